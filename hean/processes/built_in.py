"""The processes that come with HEAN: what each is asked for with, and its steps. The shell knows how each step is worked."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from hean.errors import ConfigError
from hean.instruments import Category, instrument_id, split_id
from hean.processes.definition import Arguments, Hosting, ProcessDefinition, Step, Taken, chosen, digest
from hean.units import DAY, SECOND, parse_time, utc
from hean.windows import Lengths, Window, day, rolling

KINDS = ("bar-1m", "mark-1m", "funding")
"""What is fetched of a perpetual where nothing else is asked for; of spot there are only bars."""

_DAYS_BACK = 90


# --- smoke test ---------------------------------------------------------------------------------


_SMOKE_TAKES = (
    Taken("instrument", "BTCUSDT-LINEAR.BYBIT", "what the order is for"),
    Taken("distance", "0.10", "how far below the best bid it is put, as a fraction: 0.05 to 0.5"),
    Taken("patience_s", "10", "seconds the venue may take for each answer"),
)


def _smoke_arguments(given: Mapping[str, str], now: int) -> Arguments:
    found = chosen("smoke-test", given, _SMOKE_TAKES)
    split_id(found["instrument"])
    _must_lie("smoke-test", found, "distance", 0.05, 0.5)
    _must_lie("smoke-test", found, "patience_s", 0.1, 300)
    # Part of the order's id: the id is unique for ever, and the same for each attempt at one run.
    return found | {"asked": str(now)}


def _smoke_steps(arguments: Mapping[str, str]) -> list[Step]:
    patience = float(arguments["patience_s"])
    return [
        Step(name="look", work="look", given=_of(arguments, "instrument"), timeout_s=30, attempts=3),
        Step(
            name="probe",
            work="probe",
            given=dict(arguments),
            timeout_s=10 * patience + 30,
            hosting=Hosting.COMPONENT,
        ),
        Step(
            name="verify",
            work="none-left",
            given=_of(arguments, "instrument"),
            needs=("probe",),
            timeout_s=30,
            attempts=3,
        ),
    ]


def _direct_steps(arguments: Mapping[str, str]) -> list[Step]:
    """The same without an engine, asked of the venue directly. Placing looks first whether the order is there."""
    given = dict(arguments)
    return [
        Step(name="look", work="look", given=given, timeout_s=30, attempts=3),
        Step(name="place", work="place", given=given, timeout_s=30, attempts=3),
        Step(name="amend", work="amend", given=given, needs=("look", "place"), timeout_s=30, attempts=3),
        Step(name="cancel", work="cancel", given=given, timeout_s=30, attempts=3),
        Step(name="verify", work="none-left", given=given, timeout_s=30, attempts=3),
    ]


def smoke_order_id(run_id: str, asked: str) -> str:
    """What the order of a smoke test is called: the same for each attempt at it."""
    return f"smoke-{digest(run_id, asked)[:12]}"


SMOKE_TEST = ProcessDefinition(
    name="smoke-test",
    version=1,
    about="one small order far from the market, through the running engine: sent, amended, cancelled",
    takes=_SMOKE_TAKES,
    complete=_smoke_arguments,
    plan=_smoke_steps,
)
DIRECT_SMOKE_TEST = ProcessDefinition(
    name="smoke-test-direct",
    version=1,
    about="the same order, asked of the venue without an engine",
    takes=_SMOKE_TAKES,
    complete=_smoke_arguments,
    plan=_direct_steps,
)


# --- environment scan ---------------------------------------------------------------------------


_SCAN_TAKES = (Taken("symbols", "BTCUSDT", "the venue's symbols, with commas between them"),)


def _scan_arguments(given: Mapping[str, str], _now: int) -> Arguments:
    found = chosen("environment-scan", given, _SCAN_TAKES)
    return found | {"symbols": ",".join(_symbols("environment-scan", found["symbols"]))}


def _scan_steps(arguments: Mapping[str, str]) -> list[Step]:
    """Each group by itself: what cannot be had of one is absent, and the others are had all the same."""
    given = dict(arguments)
    return [
        Step(name=group, work=f"scan-{group}", given=given, needs=(), timeout_s=60, attempts=2)
        for group in ("clock", "rules", "market", "account")
    ]


ENVIRONMENT_SCAN = ProcessDefinition(
    name="environment-scan",
    version=1,
    about="rules, fees, funding, spreads, balances and the venue's clock: each with its source, age and time to live",
    takes=_SCAN_TAKES,
    complete=_scan_arguments,
    plan=_scan_steps,
)


# --- data backfill ------------------------------------------------------------------------------


_BACKFILL_TAKES = (
    Taken("symbols", "BTCUSDT", "the venue's symbols, with commas between them"),
    Taken("market", "linear", "spot, linear or inverse"),
    Taken("kinds", "", f"of series, such as {', '.join(KINDS)}; empty takes the usual ones of the market"),
    Taken("start", "", f"first instant, UTC; empty is {_DAYS_BACK} days before the end"),
    Taken("end", "", "the end, itself not part of it; empty is now"),
)


def _backfill_arguments(given: Mapping[str, str], now: int) -> Arguments:
    found = chosen("backfill", given, _BACKFILL_TAKES)
    symbols = _symbols("backfill", found["symbols"])
    market = found["market"].upper()
    if market not in Category.__members__:
        raise ConfigError(f"process backfill: market {found['market']!r} should be spot, linear or inverse")
    kinds = [kind.strip() for kind in found["kinds"].split(",") if kind.strip()]
    end = _time("backfill", "end", found["end"]) if found["end"] else now // SECOND * SECOND
    start = _time("backfill", "start", found["start"]) if found["start"] else end - _DAYS_BACK * DAY
    if start >= end:
        raise ConfigError(f"process backfill: start {utc(start)} should lie before end {utc(end)}")
    return {
        "symbols": ",".join(symbols),
        "market": market.lower(),
        "kinds": ",".join(kinds or (KINDS[:1] if market == Category.SPOT else KINDS)),
        "start": utc(start),
        "end": utc(end),
    }


def _backfill_steps(arguments: Mapping[str, str]) -> list[Step]:
    """One step a series and month: what is in the catalog already is not fetched again."""
    start, end = parse_time(arguments["start"]), parse_time(arguments["end"])
    category = Category(arguments["market"].upper())
    return [
        Step(
            name=f"{kind} {symbol} {utc(since)[:7]}",
            work="download",
            given={
                "kind": kind,
                "instrument": instrument_id(symbol, category, "BYBIT"),
                "start": utc(since),
                "end": utc(until),
            },
            timeout_s=1_800,
            attempts=5,
            pause_s=10,
        )
        for symbol in arguments["symbols"].split(",")
        for kind in arguments["kinds"].split(",")
        for since, until in months(start, end)
    ]


def months(start: int, end: int) -> list[tuple[int, int]]:
    """A period cut where months begin."""
    cut = []
    at = start
    while at < end:
        day = datetime.fromtimestamp(at // SECOND, tz=UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        until = min(end, int(following.timestamp()) * SECOND)
        cut.append((at, until))
        at = until
    return cut


BACKFILL = ProcessDefinition(
    name="backfill",
    version=1,
    about="Bybit's past into the catalog, month by month: what is there is not fetched again",
    takes=_BACKFILL_TAKES,
    complete=_backfill_arguments,
    plan=_backfill_steps,
)


# --- backtest -----------------------------------------------------------------------------------

BACKTEST_OPTIONS = ("start", "end", "capital", "venue_name", "interval", "tier", "synthetic")
"""Arguments that are settings of a backtest by the same name."""

_BACKTEST_TAKES = (
    Taken("strategy", None, "a built-in one, such as impulse or funding_harvester"),
    Taken("symbols", "BTCUSDT", "the venue's symbols, with commas between them"),
    Taken("start", "", "first instant of trading, UTC; with no end either, the longest unbroken record is played"),
    Taken("end", "", "the end, UTC, itself not part of it"),
    Taken("capital", "", "USDT the account begins with"),
    Taken("venue_name", "", "whose market it is played on: BYBIT, BINANCE, SYNTHETIC"),
    Taken(
        "interval",
        "",
        "length of the candles, such as 1m; empty takes the finest that are recorded for the whole period",
    ),
    Taken("tier", "", "bars, trades or book: what the venue fills against; empty takes what the strategy watches"),
    Taken("synthetic", "", "true lets made-up data be used; the report then says so"),
)


def _backtest_arguments(given: Mapping[str, str], _now: int) -> Arguments:
    return _run_arguments("backtest", given, _BACKTEST_TAKES)


def _run_arguments(process: str, given: Mapping[str, str], takes: Sequence[Taken]) -> Arguments:
    """Any setting may be given by its path, such as `risk.leverage` or `strategy.trigger`."""
    named = {name: value for name, value in given.items() if "." not in name}
    paths = {name: value for name, value in given.items() if "." in name}
    found = chosen(process, named, takes)
    found["symbols"] = ",".join(_symbols(process, found["symbols"]))
    return {name: value for name, value in found.items() if value} | paths


def _backtest_steps(arguments: Mapping[str, str]) -> list[Step]:
    return [Step(name="run", work="backtest", given=dict(arguments), timeout_s=6 * 3_600, cpus=1.0)]


BACKTEST = ProcessDefinition(
    name="backtest",
    version=1,
    about="strategies over recorded data: figures, and a report",
    takes=_BACKTEST_TAKES,
    further="any setting by its path, such as risk.leverage=2 or strategy.trigger=2.5",
    complete=_backtest_arguments,
    plan=_backtest_steps,
    alone=False,
)


# --- evaluation ---------------------------------------------------------------------------------

CHOSEN = "param."
"""What the argument of a parameter begins with that is chosen by training: `param.strategy.trigger=2,2.5,3`."""

_LENGTHS = tuple(Lengths.model_fields)
_EVALUATE_TAKES = (
    *(
        Taken(one.name, None, one.about.partition(";")[0]) if one.name in {"start", "end"} else one
        for one in _BACKTEST_TAKES
    ),
    *(
        Taken(name, "" if length.default is None else str(length.default), length.description or "")
        for name, length in Lengths.model_fields.items()
    ),
)


def _evaluate_arguments(given: Mapping[str, str], _now: int) -> Arguments:
    """Both ends of the period must be given: the steps of a run are its windows."""
    found = _run_arguments("evaluate", given, _EVALUATE_TAKES)
    if not any(name.startswith(CHOSEN) for name in found):
        raise ConfigError(f"process evaluate: there is nothing to choose among: give {CHOSEN}strategy.trigger=2,2.5,3")
    for name in ("start", "end"):
        if name not in found:
            raise ConfigError(f"process evaluate: the argument {name} must be given, as {name}=2026-01-01")
        found[name] = utc(_time("evaluate", name, found[name]))
    for name in _LENGTHS:
        if name in found:
            _must_be_days("evaluate", name, found[name])
    windows_in(found)
    return found


def windows_in(arguments: Mapping[str, str]) -> list[Window]:
    """The windows of an evaluation.

    Raises:
        ConfigError: Not one fits into its period.
    """
    return rolling(parse_time(arguments["start"]), parse_time(arguments["end"]), lengths_in(arguments))


def lengths_in(arguments: Mapping[str, str]) -> Lengths:
    """How long they are."""
    return Lengths(**{name: int(arguments[name]) for name in _LENGTHS if name in arguments})


def _evaluate_steps(arguments: Mapping[str, str]) -> list[Step]:
    """One window after the other: each keeps all processors busy, and what a finished one found is never looked for again."""
    steps = [
        Step(
            name=f"window {window.number}: {day(window.test[0])} to {day(window.test[1])}",
            work="evaluate-window",
            given={**arguments, "window": str(window.number)},
            timeout_s=24 * 3_600,
            attempts=2,
        )
        for window in windows_in(arguments)
    ]
    report = Step(
        name="report",
        work="evaluate-report",
        given=dict(arguments),
        needs=tuple(step.name for step in steps),
        timeout_s=1_800,
        attempts=2,
    )
    return [*steps, report]


EVALUATE = ProcessDefinition(
    name="evaluate",
    version=1,
    about="parameters chosen in one window of the past and tried in the next: what that made out of sample",
    takes=_EVALUATE_TAKES,
    further=f"{CHOSEN}strategy.trigger=2,2.5,3 for each parameter to choose; any setting by its path, such as risk.leverage=2",
    complete=_evaluate_arguments,
    plan=_evaluate_steps,
)

BUILT_IN = (SMOKE_TEST, DIRECT_SMOKE_TEST, ENVIRONMENT_SCAN, BACKFILL, BACKTEST, EVALUATE)


# --- reading arguments --------------------------------------------------------------------------


def _symbols(process: str, text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip().upper() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError(f"process {process}: symbols names none; write symbols=BTCUSDT,ETHUSDT")
    for name in names:
        if not re.fullmatch(r"[A-Z0-9]+", name):
            raise ConfigError(f"process {process}: {name!r} is no symbol of the venue; write BTCUSDT")
    return names


def _time(process: str, name: str, text: str) -> int:
    try:
        return parse_time(text)
    except ValueError as fault:
        raise ConfigError(f"process {process}: {name} {fault}") from None


def _must_be_days(process: str, name: str, text: str) -> None:
    least = 0 if name in {"purge_days", "embargo_days"} else 1
    if not re.fullmatch(r"\d{1,4}", text) or int(text) < least:
        raise ConfigError(f"process {process}: {name} {text!r} should be whole days, from {least} to 9999")


def _must_lie(process: str, arguments: Mapping[str, str], name: str, least: float, most: float) -> None:
    text = arguments[name]
    try:
        good = least <= float(text) <= most
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"process {process}: {name} {text!r} should be a number from {least:g} to {most:g}")


def _of(arguments: Mapping[str, str], *names: str) -> Arguments:
    return {name: arguments[name] for name in names}
