"""A recorded market, replayed at the pace of the clock or faster: candles, trades or the changes of a book.

The tape is moved in time. Played at its own pace it is moved by whole days, so that its hours, and the funding stamps among
them, are those of the clock; played faster it is compressed about the instant it starts at, its past as well.
"""

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from hean.errors import DataError
from hean.exchange.history import Floats, History
from hean.exchange.listing import Listing
from hean.exchange.sources.ladder import Ladder
from hean.exchange.sources.source import Flow, Move, Shown
from hean.instruments import instrument_id, split_id
from hean.market.made_up import premium_of
from hean.messages import Side
from hean.store.catalog import Catalog, Series
from hean.units import DAY, HOUR, MILLISECOND, MINUTE, SECOND, utc

Grain = Literal["depth", "trades", "candles"]
Ints = NDArray[np.int64]

GRAINS: tuple[Grain, ...] = ("depth", "trades", "candles")
"""What can be replayed, the finest first."""

_WARM = 30 * SECOND
_STEP = SECOND // 10
_PRINTS = 60  # that a candle's volume is split into at most
_REACH = 20e-4  # of the price, that a taker walks at most
_WIDEST = 3  # ticks between bid and offer that trades leave unless they say so
_LEVEL = 1 / 150  # of a minute's volume: a level near the best
_LONGEST = HOUR  # of candles that can be replayed
_PIECE = 20_000  # rows that are made ready at once: more would hold everybody up
_MOST_TICKS = 4_000_000  # that are put together to minutes at the start
_SPREAD = 0.2e-4  # of the price, that a premium made from candles leaves out


@dataclass(frozen=True)
class Replay:
    """How to play a tape.

    `grain` is what to replay, None for the finest there is. `ts_tape` is where on the tape to start; None leaves a day to play
    and takes everything before it for the past. `venue` is whose record; None for Bybit's, else whatever there is.
    """

    speed: float = 1.0
    grain: Grain | None = None
    ts_tape: int | None = None
    venue: str | None = None
    days: int = 30


class Replayed:
    """The recorded market of some listings, from `ts_start` on.

    `instruments` are those the catalog knows; `ts_tape` is the instant of the tape that the exchange starts at.

    Raises:
        DataError: the catalog has nothing of a symbol, not of that grain or venue, or no time at which all is known.
    """

    def __init__(self, catalog: Catalog, listings: Mapping[str, Listing], replay: Replay, ts_start: int) -> None:
        if replay.speed < 1:
            raise DataError(f"a tape cannot be played {replay.speed:g} times as fast", remedy="take a speed from 1 on")
        self._catalog = catalog
        self._replay = replay
        self._ts_start = ts_start
        self._tracks, period = _tracks(catalog, listings, replay)
        self.instruments = tuple(track.listing.id for track in self._tracks)
        self.synthetic = any(track.series.synthetic for track in self._tracks)
        self.ended = False
        asked = replay.ts_tape
        self.ts_tape = asked if asked is not None else _at_this_hour(period, replay.speed, ts_start)
        grains = ", ".join(dict.fromkeys(track.grain for track in self._tracks))
        venues = ", ".join(dict.fromkeys(split_id(track.series.instrument)[2] for track in self._tracks))
        pace = f", {replay.speed:g} times as fast" if replay.speed != 1 else ""
        made_up = "synthetic " if self.synthetic else ""
        self.name = f"{made_up}tape of {venues}: {grains} from {utc(self.ts_tape // SECOND * SECOND)}{pace}"
        warm = min(self.ts_tape - period[0], int(_WARM * replay.speed))
        self._begin = self._clock(self.ts_tape - warm) // MINUTE * MINUTE
        self._end = period[1]
        self._history = {track.listing.id: self._told(track) for track in self._tracks}
        self._moves = self._merged()
        self._next = next(self._moves, None)

    def history(self) -> Mapping[str, History]:
        return self._history

    def advance(self, now: int) -> Iterator[Move]:
        while self._next is not None and self._next.ts <= now:
            yield self._next
            self._next = next(self._moves, None)
        self.ended = self._next is None

    # --- time ---------------------------------------------------------------------------------------

    def _clock(self, ts: int) -> int:
        """What the clock shows at an instant of the tape."""
        return self._ts_start + round((ts - self.ts_tape) / self._replay.speed)

    def _clocks(self, ts: Ints) -> Ints:
        if self._replay.speed == 1:
            return ts + (self._ts_start - self.ts_tape)
        return self._ts_start + np.rint((ts - self.ts_tape) / self._replay.speed).astype(np.int64)

    def _tape(self, ts: int) -> int:
        """The instant of the tape that is played when the clock shows `ts`."""
        return self.ts_tape + round((ts - self._ts_start) * self._replay.speed)

    # --- the past -----------------------------------------------------------------------------------

    def _told(self, track: "_Track") -> History:
        until = self._tape(self._begin)
        since = until - int(self._replay.days * DAY * self._replay.speed)
        last = self._minutes(track, "bar", since, until)
        if last is None:
            last = self._minutes_of_trades(track, since, until)
        if last is None:
            return History(ts_first=self._begin, last=np.empty((0, 6)))
        ts_first = self._begin - len(last) * MINUTE
        mark, index, premium = (
            _fitted(self._minutes(track, kind, since, until), len(last)) for kind in ("mark", "index", "premium")
        )
        if premium is None and index is not None:
            premium = np.column_stack([premium_of(np.log(last[:, n] / index[:, n]), _SPREAD) for n in (0, 1, 2, 3)])
            premium[:, 1], premium[:, 2] = premium[:, [0, 3]].max(axis=1), premium[:, [0, 3]].min(axis=1)
        return History(
            ts_first=ts_first,
            last=last,
            mark=mark,
            index=index if index is not None or not track.listing.is_spot else last[:, :4],
            premium=premium,
            settled=self._stamped(track, "funding", "rate", since, until),
            interest=self._stamped(track, "open-interest", "open_interest", since, until),
        )

    def _minutes(self, track: "_Track", word: str, since: int, until: int) -> Floats | None:
        """Minutes of the clock that end with the past, from the finest candles there are; None without any."""
        series = _finest(track.kept, word, since, until)
        if series is None or series.interval is None:
            return None
        rows = self._catalog.read(series.kind, series.instrument, start=since, end=until)
        if rows.is_empty():
            return None
        ts = rows["ts_event"].to_numpy()
        names = ["open", "high", "low", "close", *(["volume"] if word == "bar" else [])]
        columns = np.column_stack([rows[name].to_numpy() for name in names])
        if word == "bar":
            columns = np.column_stack([columns, columns[:, 4] * columns[:, :4].mean(axis=1)])
        pieces = max(1, series.interval // MINUTE)
        if pieces > 1:
            ts, columns = _split(ts, columns, pieces)
        return _dense(self._clocks(ts) // MINUTE, columns, self._begin // MINUTE)

    def _minutes_of_trades(self, track: "_Track", since: int, until: int) -> Floats | None:
        series = next((one for one in track.kept if one.kind == "trade"), None)
        since = max(since, _affordable(series, until)) if series is not None else until
        if series is None or not _reaches(series, since, until):
            return None
        rows = self._catalog.read("trade", series.instrument, start=since, end=until)
        price, size = rows["price"].to_numpy(), rows["size"].to_numpy()
        if not price.size:
            return None
        columns = np.column_stack([price, price, price, price, size, size * price])
        return _dense(self._clocks(rows["ts_event"].to_numpy()) // MINUTE, columns, self._begin // MINUTE)

    def _stamped(
        self, track: "_Track", kind: str, column: str, since: int, until: int
    ) -> tuple[tuple[int, float], ...]:
        series = next((one for one in track.kept if one.kind == kind), None)
        if series is None or not _reaches(series, since, until):
            return ()
        rows = self._catalog.read(kind, series.instrument, start=since, end=until)
        return tuple(zip(self._clocks(rows["ts_event"].to_numpy()).tolist(), rows[column].to_list(), strict=True))

    # --- what follows -------------------------------------------------------------------------------

    def _merged(self) -> Iterator[Move]:
        """The moves of all instruments in order of time, each quote with the index that belongs to it."""
        players: dict[Grain, Callable[[_Track], Iterator[Move]]] = {
            "depth": self._depth,
            "trades": self._trades,
            "candles": self._candles,
        }
        recorded = {track.listing.symbol: index for track in self._tracks if (index := self._index(track)) is not None}
        spots = {track.listing.symbol for track in self._tracks if track.listing.is_spot}
        # Whose own price is the index where none is recorded: the spot market's, or, without one, the perpetual's.
        middles = {
            track.listing.id: _Middle(track.tick)
            for track in self._tracks
            if track.listing.symbol not in recorded and (track.listing.is_spot or track.listing.symbol not in spots)
        }
        symbols = {track.listing.id: track.listing.symbol for track in self._tracks}
        worth: dict[str, float | None] = {}
        streams = [players[track.grain](track) for track in self._tracks]
        for move in heapq.merge(*streams, key=lambda move: move.ts):
            if isinstance(move, Flow):
                yield move
                continue
            symbol = symbols[move.instrument]
            if symbol in recorded:
                worth[symbol] = recorded[symbol](self._tape(move.ts))
            elif move.instrument in middles:
                worth[symbol] = middles[move.instrument].after(move)
            yield replace(move, index=worth.get(symbol))

    def _index(self, track: "_Track") -> Callable[[int], float] | None:
        """The recorded index as a function of the tape's time, on its way through each candle; None where there is none."""
        since = self._tape(self._begin)
        series = _finest(track.kept, "index", since, self._end)
        if series is None or series.interval is None:
            return None
        rows = self._catalog.read(series.kind, series.instrument, start=since - series.interval, end=self._end)
        if rows.is_empty():
            return None
        ts, interval = rows["ts_event"].to_list(), series.interval
        ways = [_corners(*row) for row in rows.select("open", "high", "low", "close").iter_rows()]

        def worth(now: int) -> float:
            at = max(0, bisect_right(ts, now) - 1)
            return _along(ways[at], min(1.0, max(0.0, (now - ts[at]) / interval)))

        return worth

    def _days(self, kind: str, instrument: str, *, before: int = 0) -> Iterator[pl.DataFrame]:
        """The rows of a series from where the exchange begins, or so long before: read by the day, given in pieces that do not
        cut an instant.
        """
        since = self._tape(self._begin) - before
        series = self._catalog.find(kind, instrument)
        while since < self._end and series is not None:
            until = min((since // DAY + 1) * DAY, self._end)
            if _reaches(series, since, until):
                rows = self._catalog.read(kind, instrument, start=since, end=until)
                ts = np.maximum.accumulate(rows["ts_event"].to_numpy())
                begin = 0
                while begin < rows.height:
                    last = min(begin + _PIECE, rows.height) - 1
                    end = int(ts.searchsorted(ts[last], side="right"))
                    yield rows[begin:end]
                    begin = end
            since = until

    def _depth(self, track: "_Track") -> Iterator[Move]:
        """Recorded changes of the book, and the recorded trades, where there are any, as what takes from it."""
        flows: Iterator[Move] = iter(())
        if any(series.kind == "trade" for series in track.kept):
            flows = (
                Flow(track.listing.id, ts, side, ticks, steps, recorded=True)
                for ts, side, ticks, steps in self._prints(track)
            )
        # A print of the instant of a change comes before it: the change is what it left.
        yield from heapq.merge(flows, self._books(track), key=lambda move: move.ts)

    def _books(self, track: "_Track") -> Iterator[Move]:
        standing = self._standing(track)
        if standing is not None:
            yield standing
        for rows in self._days("depth", track.series.instrument):
            ts = np.maximum.accumulate(rows["ts_event"].to_numpy())
            snapshot = rows["snapshot"].to_numpy()
            begins = np.flatnonzero(np.r_[True, (np.diff(ts) != 0) | (snapshot[1:] != snapshot[:-1])])
            levels = _levels(track, rows)
            clocks = self._clocks(ts[begins]).tolist()
            edges = [*begins.tolist(), len(levels)]
            for at, (first, last) in enumerate(pairwise(edges)):
                yield _shown(track, clocks[at], levels[first:last], snapshot=bool(snapshot[first]))

    def _standing(self, track: "_Track") -> Shown | None:
        """The recorded book as it stands when the exchange begins; None where no snapshot of it comes before."""
        until = self._tape(self._begin)
        if not _reaches(track.series, until - DAY, until):
            return None
        rows = self._catalog.read("depth", track.series.instrument, start=until - DAY, end=until)
        whole = np.flatnonzero(rows["snapshot"].to_numpy())
        if not whole.size:
            return None
        ts = rows["ts_event"].to_numpy()
        same = whole[ts[whole] == ts[whole[-1]]]
        # The last word on each price is what stands there.
        stands = {(ticks, bid): steps for ticks, steps, bid in _levels(track, rows[same.item(0) :])}
        levels = [(ticks, steps, bid) for (ticks, bid), steps in stands.items() if steps]
        return _shown(track, self._begin, levels, snapshot=True)

    def _prints(self, track: "_Track") -> Iterator[tuple[int, Side, int, int]]:
        """Recorded trades on the clock: stamp, the taker's side, ticks and steps."""
        for rows in self._days("trade", track.series.instrument):
            ticks = np.maximum(1, np.rint(rows["price"].to_numpy() / track.tick)).astype(np.int64)
            steps = np.maximum(1, np.rint(rows["size"].to_numpy() / track.step)).astype(np.int64)
            clocks = self._clocks(rows["ts_event"].to_numpy())
            for ts, side, price, size in zip(
                clocks.tolist(), rows["side"].to_list(), ticks.tolist(), steps.tolist(), strict=True
            ):
                yield ts, Side.BUY if side > 0 else Side.SELL, price, size

    def _trades(self, track: "_Track") -> Iterator[Move]:
        """Recorded trades, each against a quote at its price; the rest of the book is made up around it."""
        name = track.listing.id
        ladder: Ladder | None = None
        bid = ask = 0
        past = self._history[name].last
        if len(past):
            # Until the first print the book stands where the past has ended.
            close = past[-1, 3].item()
            ladder = self._ladder(track, close)
            bid = max(1, round(close / track.tick))
            ask = bid + 1
            ladder.quote(bid, ask)
            yield Shown(name, self._begin, True, *ladder.shown())
        for ts, side, ticks, steps in self._prints(track):
            begun = ladder is not None
            if ladder is None:
                ladder = self._ladder(track, ticks * track.tick)
                bid, ask = (ticks - 1, ticks) if side is Side.BUY else (ticks, ticks + 1)
            if side is Side.BUY:
                ask, bid = ticks, min(ticks - 1, max(bid, ticks - _WIDEST))
            else:
                bid, ask = ticks, max(ticks + 1, min(ask, ticks + _WIDEST))
            bids, asks = ladder.quote(max(1, bid), ask)
            if not begun:
                bids, asks = ladder.shown()
            yield Shown(name, ts, not begun, bids, asks)
            yield Flow(name, ts, side, ticks, steps, recorded=True)

    def _candles(self, track: "_Track") -> Iterator[Move]:
        """Candles as a path from the open to the nearer extreme, the other, and the close; prints on the way split the volume."""
        name = track.listing.id
        interval = track.series.interval or MINUTE
        chance = np.random.default_rng([*track.listing.id.encode()])
        ladder: Ladder | None = None
        ts_shown = 0
        # The candle that is running when the exchange begins started before.
        for rows in self._days(track.series.kind, track.series.instrument, before=interval - 1):
            for ts, opened, high, low, close, volume in rows.select(
                "ts_event", "open", "high", "low", "close", "volume"
            ).iter_rows():
                corners = _corners(opened, high, low, close)
                if ladder is None:
                    ladder = self._ladder(track, opened)
                steps = max(1, round(volume / track.step)) if volume > 0 else 0
                start, end = self._clock(ts), self._clock(ts + interval)
                begin = max(start, self._begin)
                takers = [one for one in _split_volume(chance, steps, corners, start, end) if one[0] >= begin]
                for at in range(-(-begin // _STEP) * _STEP, end, _STEP):
                    yield from self._taken(name, ladder, takers, at)
                    reference = _along(corners, (at - start) / (end - start)) / track.tick
                    first = not ts_shown
                    bids, asks = ladder.follow(reference, 0.0 if first else (at - ts_shown) / SECOND)
                    ts_shown = at
                    yield Shown(name, at, first, bids, asks)
                yield from self._taken(name, ladder, takers, end)

    @staticmethod
    def _taken(name: str, ladder: Ladder, takers: list[tuple[int, Side, int]], until: int) -> Iterator[Flow]:
        while takers and takers[-1][0] < until:
            ts, side, steps = takers.pop()
            reach = max(3, round(ladder.bid * _REACH))
            limit = ladder.ask + reach if side is Side.BUY else max(1, ladder.bid - reach)
            yield Flow(name, ts, side, limit, steps)

    def _ladder(self, track: "_Track", price: float) -> Ladder:
        """A made-up book as deep as what was traded in the past calls for."""
        last = self._history[track.listing.id].last
        volume = float(np.median(last[-1440:, 4])) if len(last) else 0.0
        chance = np.random.default_rng([1, *track.listing.id.encode()])
        steps = max(volume * _LEVEL, 2_000 / price) / track.step
        return Ladder(chance, price=price / track.tick, steps=max(1.0, steps))


class _Track(Struct, frozen=True):
    """What is replayed of one listing: `series`; and everything else that is kept of the same instrument."""

    listing: Listing
    series: Series
    grain: Grain
    kept: tuple[Series, ...]

    @property
    def fineness(self) -> int:
        """Less is finer: depth, trades, candles by their length."""
        return GRAINS.index(self.grain) + (self.series.interval or 0)

    @property
    def tick(self) -> float:
        return float(self.listing.instrument.tick)

    @property
    def step(self) -> float:
        return float(self.listing.instrument.step)


class _Middle:
    """The middle of a book that is told in changes; sides are sizes by price, in steps and ticks."""

    def __init__(self, tick: float) -> None:
        self._tick = tick
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}

    def after(self, shown: Shown) -> float | None:
        """The middle once a change has been made; None while a side is empty."""
        for side, levels in ((self._bids, shown.bids), (self._asks, shown.asks)):
            if shown.snapshot:
                side.clear()
            side.update(levels)
            for ticks, steps in levels:
                if not steps:
                    side.pop(ticks, None)
        if not self._bids or not self._asks:
            return None
        return (max(self._bids) + min(self._asks)) / 2 * self._tick


# --- books ------------------------------------------------------------------------------------------


def _levels(track: _Track, rows: pl.DataFrame) -> list[tuple[int, int, bool]]:
    """Rows of recorded depth as ticks, steps, and whether they are bids. What is off our grid goes away from the middle."""
    bids = rows["side"].to_numpy() > 0
    exact = rows["price"].to_numpy() / track.tick
    ticks = np.where(bids, np.floor(exact + 1e-6), np.ceil(exact - 1e-6)).astype(np.int64)
    size = rows["size"].to_numpy()
    steps = np.where(size > 0, np.maximum(1, np.rint(size / track.step)), 0).astype(np.int64)
    return list(zip(ticks.tolist(), steps.tolist(), bids.tolist(), strict=True))


def _shown(track: _Track, ts: int, levels: Iterable[tuple[int, int, bool]], *, snapshot: bool) -> Shown:
    # A price may be told twice in one change: the last word counts.
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for ticks, steps, bid in levels:
        (bids if bid else asks)[ticks] = steps
    return Shown(track.listing.id, ts, snapshot, tuple(bids.items()), tuple(asks.items()))


# --- which series, and when -------------------------------------------------------------------------


Period = tuple[int, int]


def _tracks(catalog: Catalog, listings: Mapping[str, Listing], replay: Replay) -> tuple[list[_Track], Period]:
    """What is played of each listing, and the stretch of the tape for which all of it is known.

    The finest that lasts an hour, else what lasts longest; where one instrument is not known so finely, the next it has.
    """
    series = catalog.series()
    known: dict[str, list[_Track]] = {}
    for symbol in dict.fromkeys(listing.symbol for listing in listings.values()):
        of_symbol = [listing for listing in listings.values() if listing.symbol == symbol]
        found = _known(series, of_symbol, replay)
        if not found:
            raise DataError(
                _nothing_of(symbol, series, replay, catalog),
                remedy=f"fetch it with `hean data download {symbol}`, or make some up with `hean data generate {symbol}`",
            )
        known.update(found)
    # A spot market known for a moment only must not keep its perpetual from being played.
    perpetuals = {name: tracks for name, tracks in known.items() if not listings[name].is_spot}
    longest: tuple[list[_Track], Period] | None = None
    for some in (known, perpetuals) if perpetuals else (known,):
        for level in sorted({track.fineness for tracks in some.values() for track in tracks}):
            chosen = [
                min((track for track in tracks if track.fineness >= level), key=_by_fineness, default=None)
                for tracks in some.values()
            ]
            tracks = [track for track in chosen if track is not None]
            period = _common(tracks, replay.ts_tape)
            if len(tracks) < len(some) or period is None:
                continue
            if period[1] - period[0] >= HOUR:
                return tracks, period
            if longest is None or period[1] - period[0] > longest[1][1] - longest[1][0]:
                longest = tracks, period
    if longest is None:
        when = "at " + utc(replay.ts_tape) if replay.ts_tape is not None else "at any one time"
        spans = "; ".join(
            f"{track.series.kind} of {track.series.instrument} from {utc(track.series.first_ts)} to {utc(track.series.last_ts)}"
            for tracks in known.values()
            for track in tracks
        )
        raise DataError(
            f"the catalog {catalog.root} does not know all of these {when}: {spans}",
            remedy="play fewer symbols, another time or another grain, or bring in what is missing",
        )
    return longest


def _by_fineness(track: _Track) -> int:
    return track.fineness


def _known(series: Sequence[Series], of_symbol: Sequence[Listing], replay: Replay) -> dict[str, list[_Track]]:
    """What can be played of the listings of a symbol: of one venue, so that perpetual and spot belong together."""
    symbol = of_symbol[0].symbol
    venues = {split_id(one.instrument)[2] for one in series if split_id(one.instrument)[0] == symbol}
    ordered = ("BYBIT", *sorted(venues - {"BYBIT", "SYNTHETIC"}), "SYNTHETIC")
    for venue in (replay.venue,) if replay.venue is not None else ordered:
        found = {}
        for listing in of_symbol:
            name = instrument_id(symbol, split_id(listing.id)[1], venue)
            kept = tuple(one for one in series if one.instrument == name)
            tracks = [
                _Track(listing, one, grain, kept)
                for one in kept
                if (grain := _grain(one)) is not None and replay.grain in {None, grain}
            ]
            if tracks:
                found[listing.id] = tracks
        if found:
            return found
    return {}


def _nothing_of(symbol: str, series: Sequence[Series], replay: Replay, catalog: Catalog) -> str:
    has = sorted({one.kind for one in series if split_id(one.instrument)[0] == symbol})
    whose = f" of {replay.venue}" if replay.venue is not None else ""
    return (
        f"the catalog {catalog.root} has no {replay.grain or 'candles, trades or depth'} of {symbol}{whose} to replay; "
        f"of {symbol} it has {', '.join(has) or 'nothing'}"
    )


def _grain(series: Series) -> Grain | None:
    if series.kind.startswith("bar-"):
        return "candles" if (series.interval or 0) <= _LONGEST else None
    return {"depth": "depth", "trade": "trades"}.get(series.kind)  # type: ignore[return-value]  # a table of grains


def _common(tracks: Sequence[_Track], ts: int | None) -> Period | None:
    """The longest stretch for which all are known, or that with an instant in it; None where there is none."""
    common = [(0, 1 << 62)]
    for track in tracks:
        known = track.series.stretches()
        common = [(max(a, c), min(b, d)) for a, b in common for c, d in known if max(a, c) < min(b, d)]
    if ts is not None:
        common = [(a, b) for a, b in common if a <= ts < b]
    return max(common, key=lambda stretch: stretch[1] - stretch[0], default=None)


def _at_this_hour(period: Period, speed: float, ts_start: int) -> int:
    """The latest instant at the clock's time of day that leaves a day to play, or, of a short tape, half of it.

    A tape too short to know this time of day is started at its first minute, with the clock's seconds.
    """
    first, end = period
    latest = end - min(int(DAY * speed), (end - first) // 2)
    found = latest - (latest - ts_start) % DAY
    if found < first:
        found += DAY
    return found if first <= found < end else first + (ts_start - first) % MINUTE


def _affordable(series: Series, until: int) -> int:
    """From when on the ticks before an instant are few enough to be read at the start."""
    since, rows = until, 0
    for part in sorted(series.partitions, key=lambda part: -part.first_ts):
        rows += part.rows if part.first_ts < until else 0
        if rows > _MOST_TICKS:
            break
        since = min(since, part.first_ts)
    return since


def _reaches(series: Series, since: int, until: int) -> bool:
    return series.first_ts < until and series.last_ts >= since


def _finest(kept: Iterable[Series], word: str, since: int, until: int) -> Series | None:
    """The finest candles of a word that reach into a time; None without any."""
    found = [
        one
        for one in kept
        if one.kind.startswith(f"{word}-") and (one.interval or 0) <= _LONGEST and _reaches(one, since, until)
    ]
    return min(found, key=lambda one: one.interval or 0) if found else None


# --- candles ----------------------------------------------------------------------------------------


def _corners(opened: float, high: float, low: float, close: float) -> tuple[float, float, float, float]:
    """The way through a candle: a rising one goes down first."""
    return (opened, low, high, close) if close >= opened else (opened, high, low, close)


def _along(corners: tuple[float, float, float, float], part: float) -> float:
    """Where on its way a candle is, straight from corner to corner, a third of the time each."""
    leg = min(2, int(part * 3))
    return corners[leg] + (corners[leg + 1] - corners[leg]) * (part * 3 - leg)


def _split_volume(
    chance: np.random.Generator, steps: int, corners: tuple[float, float, float, float], start: int, end: int
) -> list[tuple[int, Side, int]]:
    """Prints that add up to a candle's volume: one at each corner, the others at any time. The last comes first."""
    if not steps:
        return []
    count = max(1, min(_PRINTS, steps, (end - start) // _STEP))
    parts = np.sort(
        np.concatenate([np.array([0.001, 0.3334, 0.6667, 0.999])[:count], chance.random(max(0, count - 4))])
    )
    shares = chance.lognormal(0.0, 1.0, count)
    sizes = np.diff(np.rint(np.cumsum(shares) / shares.sum() * steps).astype(np.int64), prepend=0)
    rising = np.diff(corners)[np.minimum(2, (parts * 3).astype(np.int64))] >= 0
    # To the millisecond, as the venue stamps its trades.
    stamps = np.maximum(start, (start + parts * (end - start)).astype(np.int64) // MILLISECOND * MILLISECOND)
    takers = [
        (ts, Side.BUY if up else Side.SELL, size)
        for ts, up, size in zip(stamps.tolist(), rising.tolist(), sizes.tolist(), strict=True)
        if size > 0
    ]
    return takers[::-1]


def _split(ts: Ints, columns: Floats, pieces: int) -> tuple[Ints, Floats]:
    """Candles of several minutes as candles of one: the price goes its way from corner to corner, the volume is even."""
    opened, high, low, close = columns[:, :4].T
    rises = close >= opened
    corners = np.column_stack([opened, np.where(rises, low, high), np.where(rises, high, low), close])
    edges = np.arange(pieces + 1) / pieces * 3
    leg = np.minimum(2, edges.astype(np.int64))
    path = corners[:, leg] + (corners[:, leg + 1] - corners[:, leg]) * (edges - leg)
    opens, closes = path[:, :-1], path[:, 1:]
    highs, lows = np.maximum(opens, closes), np.minimum(opens, closes)
    for corner in (1, 2):
        within = min(pieces - 1, corner * pieces // 3)
        highs[:, within] = np.maximum(highs[:, within], corners[:, corner])
        lows[:, within] = np.minimum(lows[:, within], corners[:, corner])
    parts = [
        opens,
        highs,
        lows,
        closes,
        *(np.repeat(sums[:, None] / pieces, pieces, axis=1) for sums in columns[:, 4:].T),
    ]
    stamps = ts[:, None] + np.arange(pieces, dtype=np.int64) * MINUTE
    return stamps.ravel(), np.column_stack([part.ravel() for part in parts])


def _dense(minutes: Ints, columns: Floats, end: int) -> Floats | None:
    """One row a minute up to `end`: rows of one minute are put together, and where there is none the last close stands."""
    before = minutes < end
    minutes, columns = minutes[before], columns[before]
    if not minutes.size:
        return None
    begins = np.flatnonzero(np.r_[True, np.diff(minutes) != 0])
    ends = np.r_[begins[1:], minutes.size] - 1
    joined = np.column_stack(
        [
            columns[begins, 0],
            np.maximum.reduceat(columns[:, 1], begins),
            np.minimum.reduceat(columns[:, 2], begins),
            columns[ends, 3],
            *(np.add.reduceat(sums, begins) for sums in columns[:, 4:].T),
        ]
    )
    at = minutes[begins] - minutes[0]
    rows = int(end - minutes[0])
    source = np.searchsorted(at, np.arange(rows), side="right") - 1
    dense = joined[source]
    empty = np.ones(rows, dtype=bool)
    empty[at] = False
    dense[empty, :4] = joined[source[empty], 3][:, None]
    dense[empty, 4:] = 0.0
    return dense


def _fitted(columns: Floats | None, rows: int) -> Floats | None:
    """The last `rows` minutes; None where fewer are known."""
    return columns[-rows:] if columns is not None and len(columns) >= rows else None
