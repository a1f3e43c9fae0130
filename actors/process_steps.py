"""How each step of a process is worked: in a task of its own, with what it was given, and an answer that JSON can hold.

A step that is not the first attempt looks first, where doing its work twice would do harm.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.gateways.bybit_endpoint import MAINNET, Endpoint, Keys
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Absence, Backoff, BybitRest, UnansweredError
from actors.gateways.fence import Fence, write_epoch
from actors.keys import read_keys
from hean.bybit.decode import OrderStage, category_word
from hean.bybit.encode import Outcome, Verdict
from hean.errors import ConfigError, DataError, HeanError, VenueError
from hean.instruments import Category, Instrument, instrument_id, split_id
from hean.messages import AmendOrder, CancelOrder, Side, SubmitOrder, TimeInForce
from hean.processes import environment as env
from hean.processes.built_in import BACKTEST_OPTIONS, CHOSEN, lengths_in, smoke_order_id, windows_in
from hean.processes.smoke_test import NAME, SmokeTest, SmokeTestConfig, smallest
from hean.units import parse_time, utc

_PATIENCE_S = 10.0
_LOOK_S = 0.2


class ProcessPlan(Struct, frozen=True):
    """Where processes work: no secret is in it.

    `home` is the directory of the venue mode; `keys` the file of the account's, None where the account is on paper.
    """

    home: Path
    catalog: Path
    endpoint: Endpoint
    keys: Path | None


class Errand(Struct, frozen=True):
    """One attempt at one step: what is given, what the steps it needs have found, and where it is worked."""

    run_id: str
    process: str
    step: str
    attempt: int
    given: dict[str, str]
    inputs: dict[str, Any]
    plan: ProcessPlan


Work = Callable[[Errand], Any]
Build = Callable[[Errand], Any]


# --- smoke test ---------------------------------------------------------------------------------


def look(errand: Errand) -> dict[str, Any]:
    """The rules of an instrument, and its best bid and offer now."""
    name = errand.given["instrument"]
    symbol, category, _ = split_id(name)
    with _public(errand.plan) as rest:
        rules = rest.rules(category, frozenset({symbol}))[name]
        ticker = ticker_of(rest, symbol, category)
    bid, ask = str(ticker.get("bid1Price") or ""), str(ticker.get("ask1Price") or "")
    if not bid or not ask:
        raise VenueError(f"{name} has no bid or no offer: try again when it is traded")
    return {"rules": msgspec.to_builtins(rules), "bid": bid, "ask": ask, "as_of": time.time_ns()}


def probe(errand: Errand) -> SmokeTest:
    """The component of the smoke test. Each attempt has an order of its own: the broker sends none twice."""
    given = errand.given
    order_id = smoke_order_id(errand.run_id, given["asked"])
    config = SmokeTestConfig(
        run_id=hosted_id(errand.run_id, errand.step, errand.attempt),
        order_id=f"{order_id}-{errand.attempt}",
        earlier=tuple(f"{order_id}-{number}" for number in range(1, errand.attempt)),
        reference=Decimal(errand.inputs["look"]["bid"]),
        distance=Decimal(given["distance"]),
        amends=errand.plan.keys is not None,  # the venue of paper trading takes none
        patience_s=float(given["patience_s"]),
    )
    return SmokeTest(config, _rules_in(errand.inputs["look"]))


def none_left(errand: Errand) -> dict[str, Any]:
    """Ask the venue whether an order of a smoke test is open. On paper there is nobody to ask, and it says so."""
    name = errand.given["instrument"]
    if errand.plan.keys is None:
        return {"checked": False, "reason": "the account is on paper: its venue said itself that the order is gone"}
    with _private(errand.plan) as rest:
        left = [word.link_id for word in rest.open_orders(split_id(name)[1]) if word.link_id.startswith(f"{NAME}-")]
    if left:
        raise VenueError(f"{', '.join(left)} is still open: cancel it by hand")
    return {"checked": True, "as_of": time.time_ns()}


def place(errand: Errand) -> dict[str, Any]:
    """Send the order, unless an earlier attempt has: its id says so."""
    rules = _rules_in(errand.inputs["look"])
    price = rules.price_down(float(errand.inputs["look"]["bid"]) * (1 - float(errand.given["distance"])))
    order_id = smoke_order_id(errand.run_id, errand.given["asked"])
    order = SubmitOrder(
        client_order_id=order_id,
        strategy=NAME,
        instrument=rules.id,
        side=Side.BUY,
        quantity=smallest(rules, price),
        limit=price,
        time_in_force=TimeInForce.POST_ONLY,
        reduce_only=False,
        reference=None,
        bracket=None,
    )
    told = {"order_id": order_id, "price": f"{price:f}", "quantity": f"{order.quantity:f}"}
    with _private(errand.plan) as rest, _sending(errand.plan) as orders:
        if errand.attempt > 1 and not isinstance(rest.look_up(rules.id, order_id), Absence):
            return told | {"found": "an earlier attempt sent it"}
        began = time.perf_counter()
        _must_be_accepted(orders.send(order), "the order")
        _until_open(rest, rules.id, order_id)
    return told | {"acknowledged_ms": f"{(time.perf_counter() - began) * 1000:.1f}"}


def amend(errand: Errand) -> dict[str, Any]:
    """Move the order away by some ticks. To do that twice does no harm."""
    rules = _rules_in(errand.inputs["look"])
    order_id = errand.inputs["place"]["order_id"]
    price = Decimal(errand.inputs["place"]["price"]) - 10 * rules.tick
    with _private(errand.plan) as rest, _sending(errand.plan) as orders:
        began = time.perf_counter()
        found = rest.look_up(rules.id, order_id)
        if isinstance(found, Absence) or found.limit != price:
            _must_be_accepted(orders.send(AmendOrder(NAME, order_id, rules.id, None, price)), "the amendment")
    return {
        "order_id": order_id,
        "price": f"{price:f}",
        "acknowledged_ms": f"{(time.perf_counter() - began) * 1000:.1f}",
    }


def cancel(errand: Errand) -> dict[str, Any]:
    """Cancel the order, and wait until the venue has it so."""
    name, order_id = errand.given["instrument"], errand.inputs["amend"]["order_id"]
    with _private(errand.plan) as rest, _sending(errand.plan) as orders:
        began = time.perf_counter()
        found = rest.look_up(name, order_id)
        if isinstance(found, Absence):
            raise VenueError(f"the venue does not know {order_id}, which it has acknowledged")
        if found.stage is OrderStage.OPEN:
            _must_be_accepted(orders.send(CancelOrder(NAME, order_id, name)), "the cancellation")
        while found.stage is OrderStage.OPEN:
            if time.perf_counter() - began > _PATIENCE_S:
                raise VenueError(f"{order_id} is open {_PATIENCE_S:g} s after its cancellation")
            time.sleep(_LOOK_S)
            found = rest.look_up(name, order_id)
            if isinstance(found, Absence):
                break
        if not isinstance(found, Absence) and found.filled:
            raise VenueError(f"{found.filled:f} of {order_id} traded: close that by hand")
    return {"order_id": order_id, "gone_ms": f"{(time.perf_counter() - began) * 1000:.1f}"}


def smoke_test(plan: ProcessPlan, instrument: str = "BTCUSDT-LINEAR.BYBIT", distance: str = "0.10") -> dict[str, Any]:
    """A smoke test of a venue without an engine: what each step found, by its name.

    Whatever fails, the order is called back before this raises.

    Raises:
        HeanError: A step failed; the text says which.
    """
    given = {"instrument": instrument, "distance": distance, "asked": str(time.time_ns())}
    found: dict[str, Any] = {}
    steps: dict[str, Work] = {"look": look, "place": place, "amend": amend, "cancel": cancel, "verify": none_left}
    for step, work in steps.items():
        try:
            found[step] = work(Errand(NAME, NAME, step, 1, given, found, plan))
        except HeanError as failure:
            order_id = smoke_order_id(NAME, given["asked"])
            if step in {"place", "amend", "cancel"}:
                with _sending(plan) as orders:
                    left = orders.send(CancelOrder(NAME, order_id, instrument))
                sure = "it was cancelled" if left.verdict is Verdict.ACCEPTED else f"look for {order_id}: {left.reason}"
                raise VenueError(f"{step}: {failure}; {sure}") from failure
            raise VenueError(f"{step}: {failure}") from failure
    return found


def hosted_id(run_id: str, step: str, attempt: int) -> str:
    """What a hosted component says that it finished: run, step and attempt in one word."""
    return f"{run_id}/{step}/{attempt}"


def _must_be_accepted(outcome: Outcome, what: str) -> None:
    if outcome.verdict is Verdict.REFUSED:
        raise VenueError(f"the venue refused {what}: {outcome.reason}")
    if outcome.verdict is Verdict.UNKNOWN:
        raise VenueError(f"what became of {what} is not known: {outcome.reason}")


def _until_open(rest: BybitRest, instrument: str, order_id: str) -> None:
    """Wait until an order that was taken can be looked up: an acknowledgement is no more than that it was heard."""
    ends = time.perf_counter() + _PATIENCE_S
    while True:
        found = rest.look_up(instrument, order_id)
        if not isinstance(found, Absence):
            if found.stage is not OrderStage.OPEN:
                raise VenueError(f"the order ended by itself: {found.stage.name} {found.reason}".strip())
            return
        if time.perf_counter() > ends:
            raise VenueError(f"the venue took {order_id}, and does not know it {_PATIENCE_S:g} s later")
        time.sleep(_LOOK_S)


def _rules_in(found: Mapping[str, Any]) -> Instrument:
    return msgspec.convert(found["rules"], Instrument)


# --- environment scan ---------------------------------------------------------------------------


def scan_clock(errand: Errand) -> dict[str, Any]:
    """How far the venue's clock is ahead of ours."""
    reader = _reader("clock", "market/time")
    names = ("clock offset ms", "clock offset within ms")
    with _public(errand.plan) as rest, _saying_absence(reader, names):
        offset = rest.clock_offset()
        for name, value in zip(names, (offset.offset, offset.within), strict=True):
            reader.say(name, round(value / 1e6, 3))
    return _findings(reader)


def scan_rules(errand: Errand) -> dict[str, Any]:
    """The rules of every symbol, spot and perpetual."""
    reader = _reader("rules", "market/instruments-info")
    with _public(errand.plan) as rest:
        for symbol, category, name in _watched(errand):
            with _saying_absence(reader, env.rules_names(name)):
                env.read_rules(reader, rest.rules(category, frozenset({symbol}))[name])
    return _findings(reader)


def scan_market(errand: Errand) -> dict[str, Any]:
    """Spreads, depth and funding as they are now."""
    top, funding = _reader("market", "market/tickers"), _reader("funding", "market/tickers")
    depth = _reader("market", "market/orderbook")
    with _public(errand.plan) as rest:
        for symbol, category, name in _watched(errand):
            ticker: Mapping[str, Any] = {}
            with _saying_absence(top, env.market_names(name)):
                ticker = ticker_of(rest, symbol, category)
                env.read_market(top, name, ticker)
            if category is not Category.SPOT:
                with _saying_absence(funding, env.funding_names(name)):
                    if not ticker:
                        raise UnansweredError("there is no ticker")
                    env.read_funding(funding, name, ticker)
            with _saying_absence(depth, env.depth_names(name)):
                asked = {"category": category_word(category), "symbol": symbol, "limit": 50}
                env.read_depth(depth, name, rest.public("get_orderbook", asked))
    return _findings(top, funding, depth)


def scan_account(errand: Errand) -> dict[str, Any]:
    """What the account holds and pays: absent where it is on paper."""
    held, fees = _reader("account", "account/wallet-balance"), _reader("fees", "account/fee-rate")
    watched = list(_watched(errand))
    if errand.plan.keys is None:
        held.absent(["wallet USDT"], "the account is on paper")
        fees.absent([fee for *_, name in watched for fee in env.fee_names(name)], "the account is on paper")
        return _findings(held, fees)
    with _private(errand.plan) as rest:
        with _saying_absence(held, ["wallet USDT"]):
            balances = rest.balances()
            for coin, amount in sorted({"USDT": Decimal(0), **balances}.items()):
                held.say(f"wallet {coin}", amount)
        for symbol, category, name in watched:
            with _saying_absence(fees, env.fee_names(name)):
                rows = rest.public("get_fee_rates", {"category": category_word(category), "symbol": symbol}).get("list")
                row = next((row for row in rows or () if row.get("symbol") == symbol), None)
                if row is None:
                    raise UnansweredError(f"the answer does not have {symbol}")
                env.read_fees(fees, name, row)
    return _findings(held, fees)


def findings_in(output: Any) -> list[env.Finding]:
    """What a step of a scan found."""
    told = output.get("findings") if isinstance(output, dict) else None
    return [] if told is None else msgspec.convert(told, list[env.Finding])


def _reader(group: str, path: str) -> env.Reader:
    return env.Reader(group, f"Bybit v5 {path}", time.time_ns())


def _findings(*readers: env.Reader) -> dict[str, Any]:
    return {"findings": msgspec.to_builtins([one for reader in readers for one in reader.found])}


@contextmanager
def _saying_absence(reader: env.Reader, names: Any) -> Iterator[None]:
    """What the venue does not answer, or not readably, is absent and says why; the rest of the scan goes on."""
    before = len(reader.found)
    try:
        yield
    except (UnansweredError, ConfigError, DataError, ArithmeticError, ValueError, AttributeError, TypeError) as silence:
        del reader.found[before:]
        said = str(silence) if isinstance(silence, HeanError) else f"the answer cannot be read: {silence!r}"
        reader.absent(names, said)


def _watched(errand: Errand) -> Iterator[tuple[str, Category, str]]:
    for symbol in errand.given["symbols"].split(","):
        for category in (Category.LINEAR, Category.SPOT):
            yield symbol, category, instrument_id(symbol, category, "BYBIT")


# --- backfill and backtest ----------------------------------------------------------------------


def fetch(errand: Errand) -> dict[str, Any]:
    """One series of one month into the catalog; what is there is not fetched again."""
    from actors.gateways.bybit_history import BybitHistory, Throttle, download, public_session
    from hean.store.catalog import Catalog

    given = errand.given
    catalog = Catalog(errand.plan.catalog)
    catalog.must_be_writable()
    throttle = Throttle(clock=time.monotonic, sleep=time.sleep)
    session = public_session(errand.plan.endpoint.rest)
    with closing(session.client):
        committed = download(
            BybitHistory(session, throttle),
            catalog,
            given["kind"],
            given["instrument"],
            start=parse_time(given["start"]),
            end=parse_time(given["end"]),
        )
    return {"rows": committed.rows, "rules": committed.rules}


def backtest(errand: Errand) -> dict[str, Any]:
    """Strategies over the catalog: the figures, and where the report is."""
    from hean.backtest.html import render
    from hean.backtest.report import as_json
    from hean.backtest.run import run_backtest
    from hean.settings import BacktestSettings, validated
    from hean.store.catalog import Catalog

    settings = validated(BacktestSettings, _backtest_tree(errand.given))
    result = run_backtest(settings, Catalog(errand.plan.catalog), clock=time.perf_counter)
    report = errand.plan.home / "reports" / f"{result.result_hash[:16]}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(render(result), encoding="utf-8")
    return {"report": str(report), "ended": utc(time.time_ns() // 10**9 * 10**9)} | as_json(result, with_trips=False)


def _backtest_tree(given: Mapping[str, str]) -> dict[str, Any]:
    """The settings of a backtest, from the arguments of a process."""
    from hean.settings import assign, strategies_in

    tree: dict[str, Any] = {"symbols": given["symbols"].split(",")}
    assign(tree, [f"{name}={given[name]}" for name in ("synthetic",) if name in given])
    tree |= {name: given[name] for name in BACKTEST_OPTIONS if name in given and name != "synthetic"}
    tree["strategies"] = [{"use": use.strip()} for use in given["strategy"].split(",")]
    paths = {name: value for name, value in given.items() if "." in name and not name.startswith(CHOSEN)}
    own = [f"{name.removeprefix('strategy.')}={value}" for name, value in paths.items() if name.startswith("strategy.")]
    assign(tree, [f"{name}={value}" for name, value in paths.items() if not name.startswith("strategy.")])
    for one in strategies_in(tree):
        assign(one["config"], own)
    return tree


# --- evaluation ---------------------------------------------------------------------------------


def evaluate_window(errand: Errand) -> dict[str, Any]:
    """Training, choice and test of one window. What an attempt before this one has finished of it is found again."""
    from actors.evaluation import identify, walk
    from hean.backtest.walk_forward import must_be_purged
    from hean.store.catalog import Catalog

    settings = _evaluation(errand.given)
    must_be_purged(settings)
    window = windows_in(errand.given)[int(errand.given["window"]) - 1]
    catalog = Catalog(errand.plan.catalog)
    name, trials = identify(settings, [window], catalog)
    # By its id, too: other code or other data than at the attempt before begins anew.
    root = errand.plan.home / "evaluations" / errand.run_id / f"{window.number}-{name[:12]}"
    (tried,) = walk(settings, [window], trials, catalog, root, name=name, resume=True)
    found: dict[str, Any] = msgspec.to_builtins(tried)
    return found


def evaluate_report(errand: Errand) -> dict[str, Any]:
    """All windows together: what they made out of sample, and where the report is."""
    from actors.evaluation import identify, look
    from hean.backtest.walk_forward import Tried, evaluated
    from hean.backtest.walk_forward_report import as_json, render
    from hean.store.catalog import Catalog

    settings, catalog = _evaluation(errand.given), Catalog(errand.plan.catalog)
    tried = [msgspec.convert(one, Tried) for one in errand.inputs.values()]
    name, trials = identify(settings, windows_in(errand.given), catalog)
    evaluation = evaluated(settings, name, tried)
    looks = look(evaluation, trials, catalog)
    report = errand.plan.home / "reports" / f"evaluation-{name[:16]}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(render(evaluation, settings, looks), encoding="utf-8")
    return {"report": str(report), "ended": utc(time.time_ns() // 10**9 * 10**9)} | as_json(evaluation, looks)


def _evaluation(given: Mapping[str, str]) -> Any:
    """What is evaluated: values of a parameter as on the command line, or as JSON has a list or a range."""
    from hean.backtest.sweep import parse_parameter
    from hean.backtest.walk_forward import WalkForwardSettings
    from hean.settings import validated

    parameters: dict[str, Any] = {}
    for argument, text in given.items():
        if argument.startswith(CHOSEN):
            name = argument.removeprefix(CHOSEN)
            if text.startswith("{"):
                parameters[name] = msgspec.json.decode(text)
            else:
                parameters |= dict([parse_parameter(f"{name}={text}")])
    windows = lengths_in(given).model_dump()
    tree = {"base": _backtest_tree(given), "parameters": parameters, "windows": windows}
    return validated(WalkForwardSettings, tree)


# --- asking the venue ---------------------------------------------------------------------------


@contextmanager
def _public(plan: ProcessPlan) -> Iterator[BybitRest]:
    yield from _asking(plan, None)


@contextmanager
def _private(plan: ProcessPlan) -> Iterator[BybitRest]:
    if plan.keys is None:
        raise ConfigError("the account is on paper: there are no keys to ask with")
    yield from _asking(plan, read_keys(plan.keys))


def _asking(plan: ProcessPlan, keys: Keys | None) -> Iterator[BybitRest]:
    rest = BybitRest(plan.endpoint, keys, instruments={}, backoff=Backoff())
    try:
        yield rest
    finally:
        rest.close()


@contextmanager
def _sending(plan: ProcessPlan) -> Iterator[BybitOrders]:
    """The right to send orders without an engine: nobody has it while one runs, and nobody for the main net.

    Raises:
        ConfigError: The account is on paper, or at the main net.
        VenueError: An engine runs.
    """
    if plan.keys is None:
        raise ConfigError("the account is on paper: there are no keys to trade with")
    if plan.endpoint == MAINNET:
        raise ConfigError("nothing goes to the main net from here: run the smoke test through the engine")
    if not (plan.home / "epoch").exists():
        write_epoch(plan.home, 0)
    fence = Fence(plan.home, int((plan.home / "epoch").read_text(encoding="ascii")), wait_s=0.5)
    try:
        orders = BybitOrders(plan.endpoint, read_keys(plan.keys), backoff=Backoff(), fence=fence)
        with closing(orders):
            yield orders
    finally:
        fence.release()


def ticker_of(rest: BybitRest, symbol: str, category: Category) -> Mapping[str, Any]:
    """What *Get Tickers* says of one symbol.

    Raises:
        UnansweredError: The venue did not say, or not of this one.
    """
    asked = {"category": category_word(category), "symbol": symbol}
    rows = rest.public("get_tickers", asked).get("list")
    row = next((row for row in rows or () if isinstance(row, dict) and row.get("symbol") == symbol), None)
    if row is None:
        raise UnansweredError(f"the answer does not have {symbol}")
    return row


WORKS: dict[str, Work] = {
    "look": look,
    "none-left": none_left,
    "place": place,
    "amend": amend,
    "cancel": cancel,
    "scan-clock": scan_clock,
    "scan-rules": scan_rules,
    "scan-market": scan_market,
    "scan-account": scan_account,
    "download": fetch,
    "backtest": backtest,
    "evaluate-window": evaluate_window,
    "evaluate-report": evaluate_report,
}
COMPONENTS: dict[str, Build] = {"probe": probe}
