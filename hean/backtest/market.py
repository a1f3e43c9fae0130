"""From the catalog to a tape: which series a run needs, and what stands in where one is missing."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import polars as pl
from msgspec import Struct

from hean.errors import DataError
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
from hean.units import DAY, parse_time, utc


class Market(Struct, frozen=True):
    """The tape of one run, with everything that must be known to read its result.

    `ts_start` is where trading begins: what lies before it on the tape is for warming up. `notes` says
    what stands in for what the catalog does not have.
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
    notes: tuple[tuple[tuple[str, ...], str], ...]


_TICKS: dict[str, type[Observation]] = {"trade": Trade, "quote": Quote, "depth": BookLevels}


def load_market(settings: BacktestSettings, strategies: Sequence[Strategy], catalog: Catalog) -> Market:
    """Read what the strategies trade from the catalog.

    Raises:
        DataError: a series is missing, is made up without leave, or does not reach into the period; or the
            rules of an instrument are unknown. The text names what is missing and the remedy.
    """
    names = tuple(dict.fromkeys(name for strategy in strategies for name in strategy.instruments))
    series = catalog.series()
    prices = {name: _price_series(settings, strategies, name, series) for name in names}
    ts_start, ts_end = _period(settings, list(prices.values()))
    needed: list[Series] = []
    streams: list[Stream] = []
    notes: list[tuple[tuple[str, ...], str]] = []
    tiers: dict[str, Tier] = {}
    dense: set[str] = set()
    oldest = 0
    for name in names:
        price = prices[name]
        watching = [strategy for strategy in strategies if name in strategy.instruments]
        warmup = max((strategy.warmup_ns for strategy in watching), default=0)
        from_ts = max(price.first_ts, ts_start - warmup)
        tiers[name] = _tier_of(price)
        oldest = max(oldest, price.interval or 0)
        frame = catalog.read(price.kind, name, start=from_ts, end=ts_end)
        needed.append(price)
        streams += _price_streams(price, frame, until=ts_end)
        kinds = frozenset(kind for strategy in watching for kind in strategy.watches_kinds)
        for other in _also_watched(series, price, kinds, ts_start, ts_end):
            needed.append(other)
            rows = catalog.read(other.kind, name, start=max(other.first_ts, from_ts), end=ts_end)
            # What opens a candle is for a venue that fills against candles.
            streams += [one for one in _price_streams(other, rows, until=ts_end) if one.kind is not BarOpened]
        if split_id(name)[1] != "LINEAR":
            continue
        funding = _find(series, name, "funding")
        if funding is not None and funding.first_ts < ts_end and funding.last_ts >= ts_start:
            needed.append(funding)
            streams.append(_funding(catalog.read("funding", name, end=ts_end), name))
        elif FundingRate in kinds:
            raise DataError(
                f"there is no funding of {name} from {utc(ts_start)} on",
                remedy=f"hean data download {split_id(name)[0]} --kind funding, or import it",
            )
        else:
            notes.append(((name,), f"{name}: no funding is recorded for this period, so none is settled"))
        mark = _finest(series, name, "mark", ts_start, ts_end)
        if mark is None:
            notes.append(((name,), f"{name}: no mark price is recorded; its own last price stands in for it"))
        else:
            needed.append(mark)
            streams.append(_marks(catalog.read(mark.kind, name, start=from_ts, end=ts_end), name))
            if (mark.interval or 0) <= (price.interval or 60_000_000_000):
                dense.add(name)
            else:
                every = NAMES.get(mark.interval or 0, "?")
                stands_in = "between its stamps the last price stands in for it"
                notes.append(((name,), f"{name}: the mark is recorded every {every}; {stands_in}"))
        premium = _finest(series, name, "premium", ts_start, ts_end)
        if premium is not None and PremiumIndex in kinds:
            needed.append(premium)
            streams.append(
                _premia(
                    catalog.read(premium.kind, name, start=from_ts, end=ts_end), name, premium.interval or 0, ts_end
                )
            )
    made_up = [one for one in needed if one.synthetic]
    if made_up and not settings.synthetic:
        raise DataError(
            f"{made_up[0].kind} of {made_up[0].instrument} is made up, and a backtest on it proves nothing about a market",
            remedy="say --synthetic to run it all the same, or choose recorded data",
        )
    instruments, origins = _rules(catalog, names, ts_start)
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
        price_age_s=settings.risk.price_age_s + oldest / 1e9,
        synthetic=bool(made_up),
        data=data,
        notes=tuple(notes),
    )


def told(tape: Tape) -> frozenset[tuple[str, type[Observation]]]:
    """Every instrument and kind a tape has."""
    return frozenset((stream.instrument, stream.kind) for stream in tape.streams)


def _period(settings: BacktestSettings, prices: Sequence[Series]) -> tuple[int, int]:
    """From when to when is traded: as asked, else the longest stretch over which every price is known.

    A catalog may hold days years apart in one series; a run does not leap over what is missing between them
    unless it is asked to.
    """
    stretches = [(-(1 << 62), 1 << 62)]
    for series in prices:
        stretches = [
            (max(a, c), min(b, d)) for a, b in stretches for c, d in _stretches(series) if max(a, c) < min(b, d)
        ]
    if settings.start is not None and settings.end is not None:
        start, end = parse_time(settings.start), parse_time(settings.end)
    elif settings.start is not None:
        start = parse_time(settings.start)
        end = next((b for a, b in stretches if a <= start < b), max((b for _, b in stretches), default=start))
    elif settings.end is not None:
        end = parse_time(settings.end)
        start = next((a for a, b in stretches if a < end <= b), min((a for a, _ in stretches), default=end))
    elif stretches:
        start, end = max(stretches, key=lambda stretch: stretch[1] - stretch[0])
    else:
        names = ", ".join(f"{series.kind} of {series.instrument}" for series in prices)
        raise DataError(
            f"there is no time at which all of these are known: {names}", remedy="hean data list shows when"
        )
    if start >= end:
        raise DataError(f"the period ends at {utc(end)}, and begins only at {utc(start)}")
    for series in prices:
        if series.last_ts < start or series.first_ts >= end:
            raise DataError(
                f"{series.kind} of {series.instrument} reaches from {utc(series.first_ts)} to {utc(series.last_ts)}, "
                f"and the period from {utc(start)} to {utc(end)}",
                remedy="choose --start and --end within it, or import more; hean data list shows what there is",
            )
    # Days without any price are no part of the record: they would count as days without a loss.
    reach = [(series.first_ts, series.last_ts + (series.interval or 1)) for series in prices]
    return max(start, min(first for first, _ in reach)), min(end, max(last for _, last in reach))


def _stretches(series: Series) -> list[tuple[int, int]]:
    """When a series is known without a hole longer than a day; ticks have no holes anybody could tell."""
    last = series.last_ts + (series.interval or 1)
    edges = [series.first_ts]
    for gap in series.gaps.listed:
        if gap.to_ts - gap.from_ts > DAY:
            edges += [gap.from_ts, gap.to_ts]
    edges.append(last)
    if series.interval is None:
        edges = [edge for part in series.partitions for edge in (part.first_ts, part.last_ts + 1)]
        for index in range(len(edges) - 2, 0, -2):
            if edges[index] - edges[index - 1] < DAY:
                del edges[index - 1 : index + 1]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _price_series(
    settings: BacktestSettings, strategies: Sequence[Strategy], name: str, series: Sequence[Series]
) -> Series:
    """The series an instrument is traded against: as fine as its strategies watch, unless the settings say otherwise."""
    kinds = frozenset(
        kind for strategy in strategies if name in strategy.instruments for kind in strategy.watches_kinds
    )
    here = [one for one in series if one.instrument == name]
    bars = sorted((one for one in here if one.kind.startswith("bar-")), key=lambda one: one.interval or 0)
    if settings.interval is not None:
        if settings.interval not in INTERVALS:
            raise DataError(f"interval {settings.interval!r} is none of {', '.join(INTERVALS)}")
        bars = [one for one in bars if one.interval == INTERVALS[settings.interval]]
    bars = _reaching(bars, settings)
    ticks = {Tier.TRADES: "trade", Tier.BOOK: "quote"}
    wanted = settings.tier
    if wanted is None:
        wanted = Tier.BARS if Bar in kinds else Tier.BOOK if Quote in kinds else Tier.TRADES
    if wanted is Tier.BARS:
        if bars:
            return bars[0]
    else:
        found = [one for one in here if one.kind == ticks[wanted] or (wanted is Tier.BOOK and one.kind == "depth")]
        found = _reaching(sorted(found, key=lambda one: one.kind != "depth"), settings)
        if found:
            return found[0]
    what = f"{settings.interval} candles" if wanted is Tier.BARS and settings.interval else str(wanted)
    has = ", ".join(sorted(one.kind for one in here)) or "nothing"
    raise DataError(
        f"the catalog has no {what} of {name} in this period (it has {has})",
        remedy=f"import them, or: hean data download {split_id(name)[0]}",
    )


def _reaching(bars: Sequence[Series], settings: BacktestSettings) -> list[Series]:
    """The series that reach into the period asked for, all of it before those that hold a part; then the finest."""
    start = None if settings.start is None else parse_time(settings.start)
    end = None if settings.end is None else parse_time(settings.end)

    def missing(one: Series) -> bool:
        return (start is not None and one.first_ts > start) or (
            end is not None and one.last_ts + (one.interval or 0) < end
        )

    reach = [one for one in bars if (start is None or one.last_ts >= start) and (end is None or one.first_ts < end)]
    if start is None and end is None:
        return sorted(reach, key=lambda one: -(one.last_ts - one.first_ts)) if len(reach) > 1 else reach
    return sorted(reach, key=lambda one: (missing(one), one.interval or 0))


def _also_watched(
    series: Sequence[Series], price: Series, kinds: frozenset[type[Observation]], start: int, end: int
) -> list[Series]:
    """What else of an instrument is recorded in the period and watched: by a strategy, or by a venue that has a book."""
    watched = kinds | ({Trade} if _tier_of(price) is Tier.BOOK else set())
    here = [one for one in series if one.instrument == price.instrument and one.first_ts < end and one.last_ts >= start]
    # The touch of a recorded book is read off the book itself.
    known = {price.kind, "quote"} if price.kind == "depth" else {price.kind}
    found = [one for one in here if one.kind not in known and _TICKS.get(one.kind) in watched]
    bars = sorted((one for one in here if one.kind.startswith("bar-")), key=lambda one: one.interval or 0)
    if Bar in watched and not price.kind.startswith("bar-") and bars:
        found.append(bars[0])
    return found


def _find(series: Sequence[Series], name: str, kind: str) -> Series | None:
    return next((one for one in series if one.instrument == name and one.kind == kind), None)


def _finest(series: Sequence[Series], name: str, word: str, start: int, end: int) -> Series | None:
    """The finest candles of a kind that cover the period's beginning."""
    found = [
        one
        for one in series
        if one.instrument == name and one.kind.startswith(f"{word}-") and one.first_ts <= start and one.last_ts >= start
        if one.first_ts < end
    ]
    return min(found, key=lambda one: one.interval or 0, default=None)


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
    catalog: Catalog, names: Sequence[str], at: int
) -> tuple[dict[str, Instrument], list[tuple[tuple[str, ...], str]]]:
    instruments: dict[str, Instrument] = {}
    notes: list[tuple[tuple[str, ...], str]] = []
    for name in names:
        found = catalog.rules(name, at)
        if found is None:
            raise DataError(
                f"the rules of {name} (tick, lot, smallest order) are unknown",
                remedy=f"hean data download {split_id(name)[0]} --kind rules, or import a recorded instruments-info",
            )
        rules, origin = found
        instruments[name] = rules if rules.id == name else _renamed(rules, name)
        late = ", later than this period" if origin.later else ""
        notes.append(((name,), f"{name}: rules as of {utc(origin.as_of)[:10]}{late} ({origin.source})"))
    return instruments, notes


def _renamed(rules: Instrument, name: str) -> Instrument:
    fields: Mapping[str, Any] = {field: getattr(rules, field) for field in rules.__struct_fields__}
    return Instrument(**{**fields, "id": name})
