"""From the catalog to a tape: which series a run needs, and what stands in where one is missing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
from msgspec import Struct
from msgspec.structs import replace

from hean.errors import ConfigError, DataError
from hean.execution.simulated_venue import Tier
from hean.instruments import Instrument, split_id
from hean.market.book import OrderBook
from hean.messages import (
    Bar,
    BarOpened,
    BookLevels,
    FundingRate,
    MarkPrice,
    Observation,
    PremiumIndex,
    Quote,
    Side,
    Trade,
)
from hean.settings import BacktestSettings
from hean.store.catalog import Catalog
from hean.store.kinds import INTERVALS, NAMES
from hean.store.manifest import Series
from hean.tape import Ints, Stream, Tape
from hean.trading_system import Strategy
from hean.units import DAY, HOUR, MINUTE, SECOND, minute, parse_time


class Note(Struct, frozen=True):
    """Something a reader of the figures must know of the data, and the instruments it is about."""

    about: tuple[str, ...]
    text: str


class Market(Struct, frozen=True):
    """The tape of one run, with everything that must be known to read its result.

    `ts_start` is where trading begins: what lies before it on the tape is for warming up. `notes` says
    what is missing, and what stands in for it.
    """

    tape: Tape
    instruments: dict[str, Instrument]
    tiers: dict[str, Tier]
    dense_marks: frozenset[str]
    ts_start: int
    ts_end: int
    price_age_s: float
    synthetic: bool
    data: dict[str, Any]
    notes: tuple[Note, ...]


ENOUGH_OF_A_PERIOD = 0.999
"""Part of what the best series covers of a period asked for that a finer one must cover to be taken instead."""

ENOUGH_OF_A_RECORD = 0.95
"""The same where no period is asked for: the rest is given up to have the finer candles."""

MOST_HOLES = 10
"""Holes of one instrument that are named one by one."""

_TICKS: dict[str, type[Observation]] = {"trade": Trade, "quote": Quote, "depth": BookLevels}
_DOWNLOADED = ("bar-", "mark-", "index-", "premium-", "funding", "rules")
Period = tuple[int, int]


def load_market(settings: BacktestSettings, strategies: Sequence[Strategy], catalog: Catalog) -> Market:
    """Read what the strategies trade from the catalog.

    Raises:
        ConfigError: candles of no known length are asked for.
        DataError: a series is missing, is made up without leave, or does not reach into the period; or the
            rules of an instrument are unknown. The text names what is missing and the remedy.
    """
    names = tuple(dict.fromkeys(name for strategy in strategies for name in strategy.instruments))
    watching = {name: [strategy for strategy in strategies if name in strategy.instruments] for name in names}
    if settings.interval is not None and settings.interval not in INTERVALS:
        raise ConfigError(f"interval {settings.interval!r} is none of {', '.join(INTERVALS)}")
    if not catalog.exists:
        raise DataError(
            f"no catalog at {catalog.root}: import, download or generate data first",
            remedy=f"for {names[0]}: {_remedy(catalog, settings, names[0], 'bar-1m')}",
        )
    series = catalog.series()
    choices = {name: _price_choices(settings, watching[name], name, series, catalog) for name in names}
    enough = ENOUGH_OF_A_RECORD if settings.start is None and settings.end is None else ENOUGH_OF_A_PERIOD
    roughly = _span(settings, list(choices.values()))
    prices = {name: _best(choices[name], roughly, enough) or choices[name][0] for name in names}
    ts_start, ts_end = period = _period(settings, list(prices.values()))
    needed: list[Series] = []
    streams: list[Stream] = []
    notes: list[Note] = []
    tiers: dict[str, Tier] = {}
    dense: set[str] = set()
    history: dict[str, int] = {}
    oldest = 0
    for name in names:
        price = prices[name]
        warmup = max((strategy.warmup_ns for strategy in watching[name]), default=0)
        history[name] = ts_start - next((a for a, b in price.stretches() if a <= ts_start < b), ts_start)
        from_ts = ts_start - min(warmup, history[name])
        tiers[name] = _tier_of(price)
        oldest = max(oldest, price.interval or 0)
        frame = catalog.read(price.kind, name, start=from_ts, end=ts_end)
        needed.append(price)
        streams += _price_streams(price, frame, until=ts_end)
        notes += _holes(name, _column(frame, "ts_event"), price.interval or 0, period)
        kinds = frozenset(kind for strategy in watching[name] for kind in strategy.watches_kinds)
        for other in _also_watched(series, price, kinds, period):
            needed.append(other)
            rows = catalog.read(other.kind, name, start=from_ts, end=ts_end)
            # What opens a candle is for a venue that fills against candles.
            streams += [one for one in _price_streams(other, rows, until=ts_end) if one.kind is not BarOpened]
        if split_id(name)[1] != "LINEAR":
            continue
        funding = _find(series, name, "funding")
        if funding is not None and funding.first_ts < ts_end and funding.last_ts >= ts_start:
            needed.append(funding)
            streams.append(_funding(catalog.read("funding", name, end=ts_end), name))
            notes += _partly_funded(funding, period)
        elif FundingRate in kinds:
            raise DataError(
                f"there is no funding of {name} from {minute(ts_start)} to {minute(ts_end)}",
                remedy=_remedy(catalog, settings, name, "funding", period),
            )
        else:
            notes.append(Note((name,), f"{name}: no funding is recorded for this period, so none is settled"))
        mark = _best(_candles(series, name, "mark"), period, ENOUGH_OF_A_PERIOD)
        if mark is None:
            notes.append(Note((name,), f"{name}: no mark price is recorded; its own last price stands in for it"))
        else:
            needed.append(mark)
            streams.append(_marks(catalog.read(mark.kind, name, start=from_ts, end=ts_end), name))
            known = _covered(mark, period) / (ts_end - ts_start)
            coarse = (mark.interval or 0) > (price.interval or MINUTE)
            if coarse:
                every = f"the mark is recorded every {NAMES.get(mark.interval or 0, '?')}"
                notes.append(Note((name,), f"{name}: {every}; between its stamps the last price stands in for it"))
            if known < ENOUGH_OF_A_PERIOD:
                missing = f"the mark is recorded for {known:.0%} of the period"
                notes.append(Note((name,), f"{name}: {missing}; the last price stands in for the rest"))
            elif not coarse:
                dense.add(name)
        premium = _best(_candles(series, name, "premium"), period, ENOUGH_OF_A_PERIOD)
        if premium is not None and PremiumIndex in kinds:
            needed.append(premium)
            rows = catalog.read(premium.kind, name, start=from_ts, end=ts_end)
            streams.append(_premia(rows, name, premium.interval or 0, ts_end))
    notes += _cut_short(settings, names, period)
    notes += [note for strategy in strategies for note in _short_of_history(strategy, history)]
    made_up = [one for one in needed if one.synthetic]
    if made_up and not settings.synthetic:
        raise DataError(
            f"{made_up[0].kind} of {made_up[0].instrument} is made up, and a backtest on it proves nothing about a market",
            remedy="say --synthetic to run it all the same, or choose recorded data",
        )
    instruments, origins = _rules(catalog, settings, names, ts_start)
    notes += origins
    data = {
        f"{one.kind} {one.instrument}": catalog.manifest_of(
            one.kind, one.instrument, start=None if one.kind == "funding" else ts_start, end=ts_end
        )
        for one in needed
    }
    return Market(
        tape=Tape([stream for stream in streams if len(stream)]),
        instruments=instruments,
        tiers=tiers,
        dense_marks=frozenset(dense),
        ts_start=ts_start,
        ts_end=ts_end,
        price_age_s=settings.risk.price_age_s + oldest / SECOND,
        synthetic=bool(made_up),
        data=data,
        notes=tuple(notes),
    )


def asked_of(settings: BacktestSettings, strategies: Sequence[Strategy]) -> tuple[object, ...]:
    """Everything `load_market` goes by, but for the catalog: runs that agree in it are played on one market."""
    watching = [
        (one.name, one.instruments, sorted(kind.__name__ for kind in one.watches_kinds), one.warmup_ns)
        for one in strategies
    ]
    period = (settings.start, settings.end, settings.interval, settings.tier)
    return (*period, settings.synthetic, settings.risk.price_age_s, watching)


def told(tape: Tape) -> frozenset[tuple[str, type[Observation]]]:
    """Every instrument and kind a tape has."""
    return frozenset((stream.instrument, stream.kind) for stream in tape.streams)


# --- when ---------------------------------------------------------------------------------------


def _span(settings: BacktestSettings, choices: Sequence[Sequence[Series]]) -> Period:
    """From when to when is asked for; what is left open reaches as far as every instrument is known without a break.

    A series may hold days that lie years apart. Unless both ends are asked for, a run stays on one side of a
    hole longer than a day.

    Args:
        settings: The whole tree.
        choices: For each instrument, the series any of which may be its price.

    Raises:
        DataError: there is no time at which all instruments are known, or none within what is asked for.
    """
    common: list[Period] = [(-(1 << 62), 1 << 62)]
    for alternatives in choices:
        known = [stretch for series in alternatives for stretch in series.stretches()]
        common = _widest((max(a, c), min(b, d)) for a, b in common for c, d in known if max(a, c) < min(b, d))
    asked = None if settings.start is None else parse_time(settings.start)
    until = None if settings.end is None else parse_time(settings.end)
    if asked is not None and until is not None:
        start, end = asked, until
    elif not common:
        names = ", ".join(f"{series.kind} of {series.instrument}" for (series, *_) in choices)
        raise DataError(
            f"there is no time at which all of these are known: {names}", remedy="hean data list shows when"
        )
    elif asked is not None:
        start, end = asked, max((b for a, b in common if a <= asked < b), default=max(b for _, b in common))
    elif until is not None:
        start, end = min((a for a, b in common if a < until <= b), default=min(a for a, _ in common)), until
    else:
        start, end = max(common, key=lambda stretch: stretch[1] - stretch[0])
    if start >= end:
        first, last = min(a for a, _ in common), max(b for _, b in common)
        raise DataError(
            f"what is recorded reaches from {minute(first)} to {minute(last)}: there is nothing in this period",
            remedy="choose --start and --end within it; hean data list shows what there is",
        )
    return start, end


def _period(settings: BacktestSettings, prices: Sequence[Series]) -> Period:
    """From when to when is traded: as `_span` says for the series chosen, less the days before and after all of them.

    Raises:
        DataError: one of them has nothing in that time.
    """
    start, end = _span(settings, [[series] for series in prices])
    for series in prices:
        if not _covered(series, (start, end)):
            raise DataError(
                f"{series.kind} of {series.instrument} reaches from {minute(series.first_ts)} to {minute(series.last_ts)}, "
                f"and has nothing from {minute(start)} to {minute(end)}",
                remedy="choose other --start and --end, or import more; hean data list shows what there is",
            )
    # Days without any price are no part of the record: they would count as days without a loss.
    return (
        max(start, min(series.first_ts for series in prices)),
        min(end, max(series.last_ts + (series.interval or 1) for series in prices)),
    )


def _widest(periods: Iterable[Period]) -> list[Period]:
    """Those that do not lie within another, by their beginning."""
    kept: list[Period] = []
    for start, end in sorted(set(periods), key=lambda one: (one[0], -one[1])):
        if not kept or end > kept[-1][1]:
            kept.append((start, end))
    return kept


def _covered(series: Series, period: Period) -> int:
    """How much of a period a series is known for, in nanoseconds."""
    start, end = period
    return sum(max(0, min(end, b) - max(start, a)) for a, b in series.pieces())


# --- which series -------------------------------------------------------------------------------


def _price_choices(
    settings: BacktestSettings, watching: Sequence[Strategy], name: str, series: Sequence[Series], catalog: Catalog
) -> list[Series]:
    """The series an instrument may be traded against, the finest first: as its strategies watch, or as the settings say.

    Raises:
        DataError: there is none that reaches into the period asked for.
    """
    kinds = frozenset(kind for strategy in watching for kind in strategy.watches_kinds)
    here = [one for one in series if one.instrument == name]
    wanted = settings.tier
    if wanted is None:
        wanted = Tier.BARS if Bar in kinds else Tier.BOOK if Quote in kinds else Tier.TRADES
    if wanted is Tier.BARS:
        found = _candles(here, name, "bar")
        if settings.interval is not None:
            found = [one for one in found if one.interval == INTERVALS[settings.interval]]
    else:
        found = [one for word in _WORDS[wanted] for one in here if one.kind == word]
    start = -(1 << 62) if settings.start is None else parse_time(settings.start)
    end = 1 << 62 if settings.end is None else parse_time(settings.end)
    found = [one for one in found if _covered(one, (start, end))]
    if found:
        return found
    missing = f"bar-{settings.interval or '1m'}" if wanted is Tier.BARS else _WORDS[wanted][-1]
    what = f"{settings.interval} candles" if wanted is Tier.BARS and settings.interval else str(wanted)
    has = ", ".join(
        f"{one.kind} from {minute(one.first_ts)} to {minute(one.last_ts)}"
        for one in sorted(here, key=lambda one: one.kind)
        if one.kind.startswith("bar-") or one.kind in _TICKS
    )
    raise DataError(
        f"the catalog has no {what} of {name} in this period; of {name} it has {has or 'nothing'}",
        remedy=_remedy(catalog, settings, name, missing, _around(here, series, watching)),
    )


_WORDS = {Tier.TRADES: ("trade",), Tier.BOOK: ("depth", "quote")}


def _candles(series: Iterable[Series], name: str, word: str) -> list[Series]:
    """The candles of an instrument, of prices, marks or premia as the word says, the finest first."""
    found = [one for one in series if one.instrument == name and one.kind.startswith(f"{word}-")]
    return sorted(found, key=lambda one: one.interval or 0)


def _best(choices: Sequence[Series], period: Period, enough: float) -> Series | None:
    """The first that covers nearly as much of a period as the one that covers most; None where none covers any."""
    covered = [_covered(one, period) for one in choices]
    most = max(covered, default=0)
    return next((one for one, part in zip(choices, covered, strict=True) if part and part >= enough * most), None)


def _also_watched(
    series: Sequence[Series], price: Series, kinds: frozenset[type[Observation]], period: Period
) -> list[Series]:
    """What else of an instrument is recorded in the period and watched: by a strategy, or by a venue that has a book."""
    watched = kinds | ({Trade} if _tier_of(price) is Tier.BOOK else set())
    # The touch of a recorded book is read off the book itself.
    known = {price.kind, "quote"} if price.kind == "depth" else {price.kind}
    found = [
        one
        for one in series
        if one.instrument == price.instrument and one.kind not in known and _TICKS.get(one.kind) in watched
        if _covered(one, period)
    ]
    if Bar in watched and not price.kind.startswith("bar-"):
        bars = _best(_candles(series, price.instrument, "bar"), period, ENOUGH_OF_A_PERIOD)
        found += [bars] if bars is not None else []
    return found


# --- what is missing, and what to do about it ---------------------------------------------------


def _holes(name: str, ts: Ints, interval: int, period: Period) -> list[Note]:
    """Notes of every hole in the prices longer than an hour, its ends included."""
    start, end = period
    left = np.clip(np.r_[start, ts + interval], start, end)
    again = np.clip(np.r_[ts, end], start, end)
    wide = np.flatnonzero(again - left > HOUR)
    notes = [
        Note(
            (name,),
            f"{name}: nothing is recorded from {minute(left.item(at))} to {minute(again.item(at))}; "
            "what was held then was carried over",
        )
        for at in wide[:MOST_HOLES].tolist()
    ]
    if wide.size > MOST_HOLES:
        hours = (again - left)[wide[MOST_HOLES:]].sum() / HOUR
        notes.append(Note((name,), f"{name}: {wide.size - MOST_HOLES:,} more such holes, of {hours:,.0f} hours in all"))
    return notes


def _cut_short(settings: BacktestSettings, names: tuple[str, ...], period: Period) -> list[Note]:
    """Notes of what was asked for and lies before, or after, everything recorded."""
    asked = [(settings.start, period[0]), (settings.end, period[1])]
    gone = [sorted((parse_time(text), edge)) for text, edge in asked if text is not None and parse_time(text) != edge]
    return [
        Note(names, f"nothing is recorded from {minute(start)} to {minute(end)}: that time is left out")
        for start, end in gone
    ]


def _partly_funded(funding: Series, period: Period) -> list[Note]:
    start, end = period
    name = funding.instrument
    if funding.first_ts - start <= 8 * HOUR and end - funding.last_ts <= 8 * HOUR:
        return []
    reach = f"from {minute(funding.first_ts)} to {minute(funding.last_ts)}"
    return [Note((name,), f"{name}: funding is recorded {reach}; none is settled before or after")]


def _short_of_history(strategy: Strategy, history: Mapping[str, int]) -> list[Note]:
    """A note where a strategy begins to trade on less of the past than it asks for."""
    wanted, has = strategy.warmup_ns, min(history[name] for name in strategy.instruments)
    if has >= wanted:
        return []
    unit, word = next((unit, word) for unit, word in _UNITS if wanted >= unit or unit == SECOND)
    part = _short(has / unit) if has else "none"
    text = (
        f"{strategy.name} wants {_short(wanted / unit)} {word} before the start; prices are recorded for {part} of them"
    )
    return [Note(strategy.instruments, text)]


_UNITS = ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes"), (SECOND, "seconds"))


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _around(here: Sequence[Series], series: Sequence[Series], watching: Sequence[Strategy]) -> Period | None:
    """When the instrument is known, or those it is traded with: what is missing is wanted for the same time."""
    together = {name for strategy in watching for name in strategy.instruments}
    others = [one for one in here or series if one.instrument in together and one.kind.startswith("bar-")]
    return (min(one.first_ts for one in others), max(one.last_ts for one in others)) if others else None


def _remedy(catalog: Catalog, settings: BacktestSettings, name: str, kind: str, period: Period | None = None) -> str:
    """The command that brings a series in; `period` is when it is wanted, where the settings do not say."""
    symbol, category, venue = split_id(name)
    since = parse_time(settings.start) if settings.start is not None else period[0] if period else _ANY_DAY
    until = parse_time(settings.end) if settings.end is not None else period[1] if period else None
    words = ["hean data"]
    if venue == "SYNTHETIC" and kind not in {"quote", "depth", "rules"}:
        words += ["generate", symbol, "--start", _day(since)]
        words += ["--days", str(-(-(until - since // DAY * DAY) // DAY))] if until is not None else []
        words += ["--trades"] if kind == "trade" else []
    elif venue == "BYBIT" and kind.startswith(_DOWNLOADED):
        words += ["download", symbol]
        words += ["--market", category.lower()] if category != "LINEAR" else []
        words += ["--start", _day(since)] if kind != "rules" else []
        words += ["--end", _day(until + DAY - 1)] if until is not None and kind != "rules" else []
        words += ["--kind", kind]
    else:
        return f"bring in a recording of them: hean data import PATH{_elsewhere(catalog)}"
    return " ".join(words) + _elsewhere(catalog)


_ANY_DAY = 1_735_689_600 * SECOND  # 2025-01-01


def _day(ts: int) -> str:
    return minute(ts // DAY * DAY).removesuffix(" 00:00")


def _elsewhere(catalog: Catalog) -> str:
    return "" if catalog.root == Path("catalog") else f" --catalog {catalog.root}"


def _find(series: Sequence[Series], name: str, kind: str) -> Series | None:
    return next((one for one in series if one.instrument == name and one.kind == kind), None)


# --- rows to streams ----------------------------------------------------------------------------


def _tier_of(series: Series) -> Tier:
    if series.kind.startswith("bar-"):
        return Tier.BARS
    return Tier.TRADES if series.kind == "trade" else Tier.BOOK


def _column(frame: pl.DataFrame, name: str) -> Any:
    return np.ascontiguousarray(frame[name].to_numpy())


def _price_streams(series: Series, frame: pl.DataFrame, *, until: int) -> list[Stream]:
    ts: Ints = _column(frame, "ts_event")
    name = series.instrument
    if series.kind.startswith("bar-"):
        interval = series.interval or 0
        columns = {column: _column(frame, column) for column in ("open", "high", "low", "close", "volume")}
        closed = ts + interval <= until
        bars = {column: values[closed] for column, values in columns.items()}
        return [
            Stream(Bar, name, ts[closed] + interval, bars, interval=interval),
            Stream(BarOpened, name, ts[closed], {"open": bars["open"]}, interval=interval),
        ]
    if series.kind == "trade":
        return [Stream(Trade, name, ts, {column: _column(frame, column) for column in ("price", "size", "side")})]
    if series.kind == "quote":
        columns = {column: _column(frame, column) for column in ("bid", "bid_size", "ask", "ask_size")}
        return [Stream(Quote, name, ts, columns)]
    levels = _depth(frame, name)
    return [levels, _touch(levels)]


def _touch(levels: Stream) -> Stream:
    """The best bid and offer after each change of a recorded book, where both are there."""
    book = OrderBook()
    rows: list[tuple[int, float, float, float, float]] = []
    for row in range(len(levels)):
        book.apply(cast("BookLevels", levels.message(row)))
        bid, ask = book.bid, book.ask
        if bid is not None and ask is not None:
            shown = (bid, book.size_at(Side.BUY, bid), ask, book.size_at(Side.SELL, ask))
            if not rows or rows[-1][1:] != shown:
                rows.append((levels.ts.item(row), *shown))
    names = ("bid", "bid_size", "ask", "ask_size")
    columns = {name: np.array([one[index] for one in rows]) for index, name in enumerate(names, 1)}
    return Stream(Quote, levels.instrument, np.array([one[0] for one in rows], np.int64), columns)


def _depth(frame: pl.DataFrame, name: str) -> Stream:
    """Book changes: the levels of one stamp and kind, as they arrived together, are one row."""
    ts: Ints = np.maximum.accumulate(_column(frame, "ts_event"))
    snapshot = _column(frame, "snapshot")
    begins = np.flatnonzero(np.r_[True, (np.diff(ts) != 0) | (snapshot[1:] != snapshot[:-1])])
    columns = {
        "snapshot": snapshot[begins],
        "first": begins.astype(np.int64),
        "last": np.r_[begins[1:], ts.size].astype(np.int64),
        "side": _column(frame, "side"),
        "price": _column(frame, "price"),
        "size": _column(frame, "size"),
    }
    return Stream(BookLevels, name, ts[begins], columns)


def _funding(frame: pl.DataFrame, name: str) -> Stream:
    return Stream(FundingRate, name, _column(frame, "ts_event"), {"rate": _column(frame, "rate")})


def _marks(frame: pl.DataFrame, name: str) -> Stream:
    """The mark at the open of each candle: the one instant it is known exactly."""
    return Stream(MarkPrice, name, _column(frame, "ts_event"), {"price": _column(frame, "open")})


def _premia(frame: pl.DataFrame, name: str, interval: int, until: int) -> Stream:
    ts: Ints = _column(frame, "ts_event") + interval
    known = ts <= until
    return Stream(PremiumIndex, name, ts[known], {"premium": _column(frame, "close")[known]})


def _rules(
    catalog: Catalog, settings: BacktestSettings, names: Sequence[str], at: int
) -> tuple[dict[str, Instrument], list[Note]]:
    instruments: dict[str, Instrument] = {}
    notes: list[Note] = []
    for name in names:
        found = catalog.rules(name, at)
        if found is None:
            raise DataError(
                f"the rules of {name} (tick, lot, smallest order) are unknown",
                remedy=_remedy(catalog, settings, name, "rules"),
            )
        rules, origin = found
        instruments[name] = rules if rules.id == name else replace(rules, id=name)
        late = ", later than this period" if origin.later else ""
        notes.append(Note((name,), f"{name}: rules as of {_day(origin.as_of)}{late} ({origin.source})"))
    return instruments, notes
