"""A backtest: settings and a catalog in, a result one can believe out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal, localcontext
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

import numpy as np
from msgspec import Struct

from hean.backtest.kernels import drawdown_curve
from hean.backtest.market import Market, load_market, told
from hean.backtest.player import Player
from hean.backtest.report import result_hash
from hean.backtest.result import Benchmark, Event, Funnel, Pnl, RunResult, StrategyResult
from hean.backtest.trips import round_trips
from hean.dispatcher import Dispatcher
from hean.errors import ContractError, HeanError
from hean.instruments import split_id
from hean.messages import (
    Bar,
    Envelope,
    FundingSettled,
    InterestCharged,
    KillSwitchTripped,
    MarkPrice,
    Message,
    NodeStarted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    Quote,
    Signal,
    SignalRefused,
    StartTrading,
    Trade,
    TradingStateChanged,
)
from hean.portfolio.accounting import EXACT, Profit
from hean.settings import BacktestSettings
from hean.store.catalog import Catalog
from hean.tape import Floats, Ints
from hean.trading_system import Strategy, build, build_strategies
from hean.units import MINUTE, YEAR, minute

STARTED = "started"
"""What risk says of the beginning of a run: no news."""

STRETCH = 20
"""Parts a run is played in, so that somebody can be told how far it is."""


class Played(Struct):
    """A run as it stands after the tape: its components, and everything said."""

    player: Player
    components: dict[str, Any]
    log: list[Envelope]


def run_backtest(
    settings: BacktestSettings,
    catalog: Catalog,
    *,
    clock: Callable[[], float],
    progress: Callable[[float], None] = lambda _: None,
) -> RunResult:
    """Run a backtest as the settings say.

    Args:
        settings: The whole tree.
        catalog: Where the market is recorded.
        clock: Seconds of some clock, to say how long it took: the result does not depend on it.
        progress: Told how much is done, from 0 to 1.

    Raises:
        ConfigError: a setting or a strategy is wrong.
        DataError: data is missing, wrong, or made up without leave.
    """
    strategies = build_strategies(settings)
    market = load_market(settings, strategies, catalog)
    return run_on(market, settings, strategies, clock=clock, progress=progress)


def run_on(
    market: Market,
    settings: BacktestSettings,
    strategies: Sequence[Strategy],
    *,
    clock: Callable[[], float],
    progress: Callable[[float], None] = lambda _: None,
) -> RunResult:
    """Run a backtest on a market that is loaded: what `run_backtest` does once it has read one."""
    began = clock()
    played = play(settings, strategies, market, progress=progress)
    wall_s = clock() - began
    return summarise(settings, strategies, market, played, wall_s=wall_s)


def play(
    settings: BacktestSettings,
    strategies: Sequence[Strategy],
    market: Market,
    *,
    stepping: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> Played:
    """Play the market's tape through the whole system, from its start."""
    tape = market.tape
    topology, components = build(
        settings,
        strategies,
        market.instruments,
        market.tiers,
        told(tape),
        dense_marks=market.dense_marks,
        price_age_s=market.price_age_s,
    )
    log: list[Envelope] = []
    player = Player(Dispatcher(topology, components, log=log.append), topology, tape, stepping=stepping)
    first = tape.after(market.ts_start - 1)
    with _named(strategies):
        player.warm_up(first)
        player.tell("portfolio", NodeStarted("portfolio"), market.ts_start)
        player.tell("risk", StartTrading(), market.ts_start, seq=1)
        for part in range(1, STRETCH + 1):
            stop = first + (tape.size - first) * part // STRETCH
            # Never in the midst of an instant: its wakes come after all of its rows.
            player.play(tape.after(tape.ts_at(stop - 1)) if stop > first else stop)
            progress(part / STRETCH)
    return Played(player, components, log)


@contextmanager
def _named(strategies: Sequence[Strategy]) -> Iterator[None]:
    """Give what a strategy raises the name of the strategy; what anything else raises is a bug of ours, and passes.

    Raises:
        HeanError: a strategy raised something; the text says where, in what and when.
    """
    try:
        yield
    except HeanError:
        raise
    except Exception as error:  # a strategy may be anybody's, and raise anything
        for strategy in strategies:
            where = _where(error.__traceback__, strategy.component)
            if where:
                said = " ".join(str(error).split())
                raised = f"{type(error).__name__}: {said}" if said else type(error).__name__
                raise HeanError(f"{strategy.name} raised {raised} {where}") from error
        raise


def _where(trace: TracebackType | None, component: Any) -> str:
    """In which method of a component something was raised, at what time and in which line; empty for another's.

    A method of the component is known by its first argument; `handle` has the message and the time as the next two.
    """
    method = file = ""
    line = 0
    for frame, at in walk_tb(trace):
        code = frame.f_code
        arguments = [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount]]
        if not method and arguments and arguments[0] is component:
            file, method = code.co_filename, code.co_name
            match arguments[1:]:
                case [Message() as message, int(now)]:
                    method += f"({type(message).__name__}) at {minute(now)} UTC"
                case _:
                    method += "()"
        if method and code.co_filename == file:
            line = at
    return f"in {method} ({Path(file).name}:{line})" if method else ""


def summarise(
    settings: BacktestSettings, strategies: Sequence[Strategy], market: Market, played: Played, *, wall_s: float
) -> RunResult:
    """Read a result off what was said, and off the books."""
    log, tape = played.log, market.tape
    portfolio = played.components["portfolio"]
    profits: dict[str, Profit] = portfolio.profits()
    equity = portfolio.state.ledger.equity(portfolio.state.marks)
    curve_ts, curve = equity_curve(settings.capital, market, log)
    dumped = settings.model_dump(mode="json")
    with localcontext(EXACT):
        total = _total([_pnl(profit) for profit in profits.values()])
    if total.net != equity - settings.capital:
        raise HeanError(
            f"the parts of the profit add up to {total.net}, and the equity changed by {equity - settings.capital}"
        )
    with _named(strategies):
        results = tuple(_result_of(strategy, market, log, profits) for strategy in strategies)
    return RunResult(
        ts_start=market.ts_start,
        ts_end=market.ts_end,
        capital=settings.capital,
        equity_final=equity,
        pnl=total,
        strategies=results,
        trips=round_trips(log, market.instruments, portfolio.state.marks),
        benchmarks=_benchmarks(settings, market),
        events=_events(log),
        curve_ts=curve_ts,
        curve=curve,
        drawdown=drawdown_curve(curve),
        rows=tape.size - tape.after(market.ts_start - 1),
        deliveries=played.player.deliveries,
        wall_s=wall_s,
        synthetic=market.synthetic,
        settings=dumped,
        data=market.data,
        result_hash=result_hash(log, dumped, market.data),
        tape=tape,
        log=tuple(log),
    )


def _result_of(
    strategy: Strategy, market: Market, log: Sequence[Envelope], profits: Mapping[str, Profit]
) -> StrategyResult:
    own = getattr(strategy.component, "notes", _nothing)(market.tape)
    return StrategyResult(
        name=strategy.name,
        instruments=strategy.instruments,
        config=strategy.component.config.model_dump(mode="json"),
        pnl=_pnl(profits.get(strategy.name, Profit())),
        funnel=_funnel(strategy, market, log),
        notes=(*own, *(note.text for note in market.notes if set(note.about) & set(strategy.instruments))),
    )


def equity_curve(capital: Decimal, market: Market, log: Sequence[Envelope]) -> tuple[Ints, Floats]:
    """The account's equity at each close of a candle, or each minute of ticks: arithmetic on columns.

    Every fill exchanges quote currency for a quantity, of a coin or of a contract alike; what is held is
    worth its last price.
    """
    stamps = [market.ts_start]
    moved = [float(capital)]
    flows: dict[str, tuple[list[int], list[float]]] = {}
    for envelope in log:
        if envelope.source != "venue":
            continue
        fact = envelope.message
        if type(fact) is OrderFilled:
            signed = float(fact.quantity) * fact.side
            in_coin = float(fact.fee) if fact.fee_currency != "USDT" else 0.0
            when, quantities = flows.setdefault(fact.instrument, ([], []))
            when.append(envelope.ts_init)
            quantities.append(signed - in_coin)
            stamps.append(envelope.ts_init)
            moved.append(-signed * float(fact.price) - (0.0 if in_coin else float(fact.fee)))
        elif type(fact) is FundingSettled:
            stamps.append(envelope.ts_init)
            moved.append(float(fact.amount))
        elif type(fact) is InterestCharged:
            stamps.append(envelope.ts_init)
            moved.append(-float(fact.amount))
    grid = _grid(market)
    curve = np.cumsum(moved)[np.searchsorted(np.array(stamps, np.int64), grid, side="right") - 1]
    for name, (when, quantities) in flows.items():
        held = np.r_[0.0, np.cumsum(quantities)][np.searchsorted(np.array(when, np.int64), grid, side="right")]
        curve += held * _prices_at(market, name, grid)
    return grid, curve


def _grid(market: Market) -> Ints:
    closes = [stream.ts for stream in market.tape.streams if stream.kind is Bar]
    if closes:
        grid = np.unique(np.concatenate(closes))
    else:
        last = market.tape.last_ts
        grid = np.append(
            np.arange(market.ts_start - market.ts_start % MINUTE + MINUTE, last, MINUTE, dtype=np.int64), last
        )
    return np.concatenate([np.array([market.ts_start], np.int64), grid[grid > market.ts_start]])


def _prices_at(market: Market, name: str, grid: Ints) -> Floats:
    """The last price of an instrument at each stamp; before its first price, that one (nothing can be held yet)."""
    kinds = (MarkPrice,) if name in market.dense_marks else (Bar, Trade, Quote)
    for kind in kinds:
        stream = market.tape.stream(kind, name)
        if stream is not None:
            of = stream.columns
            prices = of["close"] if kind is Bar else (of["bid"] + of["ask"]) / 2 if kind is Quote else of["price"]
            rows = np.searchsorted(stream.ts, grid, side="right") - 1
            return np.asarray(prices[np.maximum(rows, 0)], np.float64)
    raise ContractError(f"{name} is traded, and the tape has no price of it")


def _funnel(strategy: Strategy, market: Market, log: Sequence[Envelope]) -> Funnel:
    signals = orders = fills = 0
    refused: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    for envelope in log:
        message = envelope.message
        if getattr(message, "strategy", None) != strategy.name:
            continue
        at_venue = envelope.source == "venue"
        match message:
            case Signal():
                signals += 1
            case SignalRefused(rule=rule):
                refused[rule] += 1
            case OrderSubmitted():
                orders += 1
            case OrderFilled() if at_venue:
                fills += 1
            case OrderCanceled(reason=reason) | OrderExpired(reason=reason) | OrderRejected(reason=reason) if at_venue:
                word = type(message).__name__.removeprefix("Order").lower()
                ended[f"{word}: {_in_short(reason)}"] += 1
            case _:
                pass
    # A candle that closes as trading begins is of the time before.
    since = market.ts_start + 1
    rows = 0
    for stream in market.tape.streams:
        if stream.instrument in strategy.instruments and stream.kind in strategy.watches_kinds:
            rows += len(stream) - int(np.searchsorted(stream.ts, since))
    return Funnel(
        rows=rows,
        signals=signals,
        refused=dict(sorted(refused.items())),
        orders=orders,
        ended=dict(sorted(ended.items())),
        fills=fills,
        gates=tuple(getattr(strategy.component, "gates", _nothing)(market.tape, since)),
    )


def _events(log: Sequence[Envelope]) -> tuple[Event, ...]:
    """What a reader of the figures must know of beside the trades."""
    found = []
    for envelope in log:
        text = ""
        match envelope.message:
            case TradingStateChanged(trading=state, reason=reason) if reason != STARTED:
                text = f"trading {state}: {reason}"
            case KillSwitchTripped(cause=cause, measured=measured, limit=limit):
                text = f"kill switch tripped by {cause}: {measured}, limit {limit}"
            case PairFinished(strategy=strategy, outcome=outcome, reason=reason) if reason:
                text = f"{strategy}: pair {outcome}, {reason}"
            case OrderFilled(exit="liquidation", instrument=name, quantity=quantity, price=price):
                text = f"{quantity} of {name} liquidated at {price}" if envelope.source == "venue" else ""
            case _:
                pass
        if text:
            found.append(Event(envelope.ts_init, text))
    return tuple(found)


def _in_short(reason: str) -> str:
    """A venue's reason without its figures: its code, or its first words."""
    code = reason.split(" ", 1)[0]
    return code if code.isdigit() or code.startswith("EC_") else reason


def _benchmarks(settings: BacktestSettings, market: Market) -> tuple[Benchmark, ...]:
    """What the capital would have made otherwise: in each instrument, evenly in all, and idle."""
    names = [name for name in market.instruments if split_id(name)[1] == "SPOT"] or list(market.instruments)
    made = {}
    rates = settings.venue.fee_tier
    for name in names:
        ends = np.array([market.ts_start, market.tape.last_ts], np.int64)
        first, last = _prices_at(market, name, ends)
        made[name] = float(last / first - 1)
    found = [
        Benchmark(
            f"buy and hold {split_id(name)[0]}",
            _cents(float(settings.capital) * change),
            f"all of the capital in {name} from the first price to the last, before fees ({rates})",
        )
        for name, change in made.items()
    ]
    if len(made) > 1:
        mean = sum(made.values()) / len(made)
        found.append(
            Benchmark(
                "buy and hold, evenly",
                _cents(float(settings.capital) * mean),
                "the capital divided evenly, never rebalanced",
            )
        )
    years = (market.ts_end - market.ts_start) / YEAR
    earned = float(settings.capital) * ((1 + settings.idle_yield) ** years - 1)
    found.append(
        Benchmark("idle cash", _cents(earned), f"USDT lent at {settings.idle_yield:.2%} a year (setting idle_yield)")
    )
    return tuple(found)


def _pnl(profit: Profit) -> Pnl:
    return Pnl(
        price=profit.price,
        basis=profit.basis,
        funding=profit.funding,
        fees=profit.fees,
        slippage=profit.slippage,
        interest=profit.interest,
    )


def _total(parts: Sequence[Pnl]) -> Pnl:
    return Pnl(**{name: sum((getattr(part, name) for part in parts), Decimal(0)) for name in Pnl.__struct_fields__})


def _nothing(*_: object) -> tuple[Any, ...]:
    """What a strategy answers that was never taught the question."""
    return ()


def _cents(x: float) -> Decimal:
    return Decimal(f"{x:.2f}")
