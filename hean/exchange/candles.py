"""The candles of one instrument: minutes are kept, anything longer is put together when it is asked for.

A candle opens where the one before it closed, as Bybit's do, and a minute without a trade is a candle without volume.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.exchange.history import Floats, History
from hean.units import MILLISECOND, MINUTE

Kind = Literal["last", "mark", "index", "premium"]
Row = tuple[float, ...]

INTERVALS = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720", "D", "W", "M")
"""Lengths of candles, as the wire names them: minutes, a day, a week from Monday, a month. All begin in UTC."""

INTEREST_INTERVALS = {"5min": 5, "15min": 15, "30min": 30, "1h": 60, "4h": 240, "1d": 1440}
"""Distances of open interest, as the wire names them, in minutes."""

_MINUTES_KEPT = 90 * 1440
_MS = 60_000  # of a minute
_DAY_MINUTES = 1440
_INTEREST_MINUTES = 5
_MONDAY = 4 * _DAY_MINUTES  # 1970-01-05
_WIDTHS: dict[Kind, int] = {"last": 6, "mark": 4, "index": 4, "premium": 4}


class Day(Struct, frozen=True):
    """The last 24 hours, to the minute: where the price was, how far it went, and what was traded."""

    previous: float
    previous_hour: float
    high: float
    low: float
    volume: float
    turnover: float


class CandleBook:
    """Candles of last, mark, index and premium; and open interest every five minutes.

    `interest` is the open interest of one side now, in base units; None while nobody said.
    """

    def __init__(self) -> None:
        self._kinds: dict[Kind, Minutes] = {kind: Minutes(width) for kind, width in _WIDTHS.items()}
        self._last = self._kinds["last"]
        self._day: tuple[tuple[int, int], Day] | None = None
        self._interest: list[tuple[int, float]] = []
        self.interest: float | None = None

    def load(self, history: History) -> None:
        """Take in the minutes before the first that is told."""
        first = history.ts_first // MINUTE
        past = {"last": history.last, "mark": history.mark, "index": history.index, "premium": history.premium}
        for kind, minutes in self._kinds.items():
            columns = past[kind]
            if columns is not None and len(columns):
                minutes.load(first, columns)
        self._interest.extend(history.interest)
        if self._interest:
            self.interest = self._interest[-1][1]

    def trade(self, ts: int, price: float, quantity: float) -> None:
        """Take in what was traded: `quantity` base units at `price`."""
        self._last.reach(ts // MINUTE)
        self._last.tell(ts // MINUTE, price)
        running = self._last.running
        running[4] += quantity
        running[5] += quantity * price

    def observe(self, ts: int, *, mark: float | None, index: float | None, premium: float | None) -> None:
        """Take in the prices that nobody trades at, and the time; what is None is not known."""
        at = ts // MINUTE
        self._last.reach(at)
        told: tuple[tuple[Kind, float | None], ...] = (("mark", mark), ("index", index), ("premium", premium))
        for kind, price in told:
            minutes = self._kinds[kind]
            minutes.reach(at)
            if price is not None:
                minutes.tell(at, price)

    def observe_interest(self, ts: int, interest: float) -> None:
        """Take in the open interest of one side; what stands at a multiple of five minutes is kept."""
        sample = ts // (_INTEREST_MINUTES * MINUTE) * (_INTEREST_MINUTES * MINUTE)
        if not self._interest or sample > self._interest[-1][0]:
            self._interest.append((sample, interest))
            if len(self._interest) > 2 * _MINUTES_KEPT // _INTEREST_MINUTES:
                del self._interest[: len(self._interest) // 2]
        self.interest = interest

    def query(
        self, kind: Kind, interval: str, start_ms: int | None = None, end_ms: int | None = None, limit: int = 200
    ) -> list[Row]:
        """Candles that open within `start_ms .. end_ms`, the newest first, the running one included.

        Rows are (start ms, open, high, low, close), for "last" with volume (base) and turnover (quote). Where more than `limit`
        fit, the newest are returned; with a start alone, the oldest.

        Raises:
            KeyError: there is no such interval.
        """
        minutes = self._kinds[kind]
        floor, after = _GRIDS[interval]
        if minutes.first is None:
            return []
        newest = floor(minutes.at)
        oldest = floor(minutes.first)
        if end_ms is not None:
            newest = min(newest, floor(end_ms // _MS))
        if start_ms is not None:
            begin = floor(-(-start_ms // _MS))
            oldest = max(oldest, begin if begin * _MS >= start_ms else after(begin))
        if start_ms is not None and end_ms is None:
            starts = _upwards(oldest, newest, after, limit)
        else:
            starts = _downwards(oldest, newest, floor, limit)
        return minutes.rows(starts, after(starts[-1])) if starts else []

    def running(self, interval: str, kind: Kind = "last") -> Row | None:
        """The candle of an interval that has not closed yet; None before anything was told."""
        rows = self.query(kind, interval, limit=1)
        return rows[0] if rows else None

    def day(self, now: int) -> Day | None:
        """What the last 24 hours come to; None before anything was traded. Younger markets have had what they had."""
        last = self._last
        if last.first is None:
            return None
        # Asking closes no minute: something that happened in it may still be told.
        ahead = max(0, now // MINUTE - last.at)
        if self._day is None or self._day[0] != (last.at, ahead):
            self._day = (last.at, ahead), self._closed_day(ahead)
        closed, running = self._day[1], last.running
        return Day(
            previous=closed.previous,
            previous_hour=closed.previous_hour,
            high=max(closed.high, running[1]),
            low=min(closed.low, running[2]),
            volume=closed.volume + running[4],
            turnover=closed.turnover + running[5],
        )

    def open_interest(
        self, interval: str, start_ms: int | None = None, end_ms: int | None = None, limit: int = 50
    ) -> list[tuple[int, float, float]]:
        """Open interest at multiples of an interval, the newest first: (ts ms, both sides, one side), base units.

        Raises:
            KeyError: there is no such interval.
        """
        step = INTEREST_INTERVALS[interval] * MINUTE
        found: list[tuple[int, float, float]] = []
        for ts, single in reversed(self._interest):
            ms = ts // MILLISECOND
            if len(found) == limit or (start_ms is not None and ms < start_ms):
                break
            if ts % step == 0 and (end_ms is None or ms <= end_ms):
                found.append((ms, 2 * single, single))
        return found

    def _closed_day(self, ahead: int) -> Day:
        """The minutes that have closed, of the day that ends `ahead` minutes after the running one."""
        minutes = self._last
        columns = minutes.closed(max(0, _DAY_MINUTES - ahead))
        if not len(columns):
            price = minutes.running[0]
            return Day(price, price, price, price, 0.0, 0.0)
        return Day(
            previous=columns.item(0, 0),
            previous_hour=minutes.running[0] if ahead >= 60 else columns.item(max(0, len(columns) - 60 + ahead), 0),
            high=columns[:, 1].max().item(),
            low=columns[:, 2].min().item(),
            volume=columns[:, 4].sum().item(),
            turnover=columns[:, 5].sum().item(),
        )


class Minutes:
    """Candles of one minute each, without a hole: those that have closed, and the running one.

    Minutes are counted from 1970; `first` is the oldest kept, None before the first price. `at` is the running one.
    """

    def __init__(self, width: int) -> None:
        self._columns: Floats = np.empty((0, width))
        self._count = 0
        self.first: int | None = None
        self.at = 0
        self.running: list[float] = [0.0] * width

    def load(self, first: int, columns: Floats) -> None:
        """Begin with closed minutes; the one after them runs."""
        kept = columns[-_MINUTES_KEPT:]
        self._columns = np.concatenate([kept, np.empty((_DAY_MINUTES, kept.shape[1]))])
        self._count = len(kept)
        self.first = first + len(columns) - len(kept)
        self.at = first + len(columns)
        self._open(kept.item(-1, 3))

    def reach(self, at: int) -> None:
        """Close every minute before `at`."""
        if self.first is None:
            return
        while self.at < at:
            self._close()

    def tell(self, at: int, price: float) -> None:
        """Take in a price of the running minute."""
        running = self.running
        if self.first is None:
            self.first = self.at = at
            self._open(price)
            return
        running[1] = max(running[1], price)
        running[2] = min(running[2], price)
        running[3] = price

    def closed(self, count: int) -> Floats:
        """The last minutes that have closed, at most `count`."""
        return self._columns[max(0, self._count - count) : self._count]

    def rows(self, starts: list[int], end: int) -> list[Row]:
        """Put minutes together to candles, the newest first.

        Args:
            starts: The minute each candle begins at, rising; the last may be the running one.
            end: The minute after the last candle.
        """
        first = self.first
        if first is None:
            return []
        low, high = max(starts[0], first) - first, min(end, self.at + 1) - first
        columns = self._columns[low : min(high, self._count)]
        if high > self._count:
            columns = np.vstack([columns, self.running])
        edges = [max(start - first, low) - low for start in starts]
        last = [edge - 1 for edge in edges[1:]] + [len(columns) - 1]
        parts: list[NDArray[np.float64]] = [
            columns[edges, 0],
            np.maximum.reduceat(columns[:, 1], edges),
            np.minimum.reduceat(columns[:, 2], edges),
            columns[last, 3],
            *(np.add.reduceat(columns[:, sum_of], edges) for sum_of in range(4, columns.shape[1])),
        ]
        table = np.column_stack(parts).tolist()
        return [(start * _MS, *row) for start, row in zip(reversed(starts), reversed(table), strict=True)]

    def _open(self, price: float) -> None:
        self.running[:4] = [price] * 4
        self.running[4:] = [0.0] * (len(self.running) - 4)

    def _close(self) -> None:
        if self._count == len(self._columns):
            self._make_room()
        self._columns[self._count] = self.running
        self._count += 1
        self.at += 1
        self._open(self.running[3])

    def _make_room(self) -> None:
        dropped = max(0, self._count - _MINUTES_KEPT)
        kept = self._columns[dropped : self._count]
        room = np.empty((max(_DAY_MINUTES, len(kept) // 8), kept.shape[1]))
        self._columns = np.concatenate([kept, room])
        self._count = len(kept)
        self.first = (self.first or 0) + dropped


# --- where candles begin, in minutes since 1970 ---------------------------------------------------

Grid = tuple[Callable[[int], int], Callable[[int], int]]


def _regular(length: int, origin: int = 0) -> Grid:
    return (lambda at: (at - origin) // length * length + origin, lambda start: start + length)


def _month(at: int) -> int:
    when = datetime.fromtimestamp(at * 60, UTC)
    return int(datetime(when.year, when.month, 1, tzinfo=UTC).timestamp()) // 60


def _next_month(start: int) -> int:
    return _month(start + 31 * _DAY_MINUTES)


_GRIDS: dict[str, Grid] = {
    **{name: _regular(int(name)) for name in INTERVALS if name.isdigit()},
    "D": _regular(_DAY_MINUTES),
    "W": _regular(7 * _DAY_MINUTES, _MONDAY),
    "M": (_month, _next_month),
}


def _upwards(oldest: int, newest: int, after: Callable[[int], int], limit: int) -> list[int]:
    starts: list[int] = []
    at = oldest
    while at <= newest and len(starts) < limit:
        starts.append(at)
        at = after(at)
    return starts


def _downwards(oldest: int, newest: int, floor: Callable[[int], int], limit: int) -> list[int]:
    starts: list[int] = []
    at = newest
    while at >= oldest and len(starts) < limit:
        starts.append(at)
        at = floor(at - 1)
    return starts[::-1]
