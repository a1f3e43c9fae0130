"""Two legs as one market: what a perpetual costs over its spot, and how that behaves.

    basis   = (perp - spot) / spot            middles, or closes where there is no fresh quote
    opening = (perp bid - spot ask) / spot    what selling the perpetual and buying the spot gets
    closing = (perp ask - spot bid) / spot    what the way back gives

A reading is taken where both legs close a bar at one instant, on the row that tells the second of
them: prices of different instants make a basis that nobody could have traded.
"""

import math
from typing import TypeAlias, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.compiled import kernel
from hean.messages import Bar, FundingRate, Observation, PremiumIndex, Quote
from hean.tape import Stream, Tape

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
T = TypeVar("T", float, NDArray[np.float64])

NORMAL = 1.4826
"""The standard deviation of a normal variable over its median absolute deviation."""


class Side(Struct):
    """What was last seen of one leg: the close of its last bar and how long that was, and its quote."""

    ts: int = 0
    interval: int = 0
    close: float = 0.0
    bid: float = 0.0
    ask: float = 0.0
    ts_quote: int = 0


class Legs(Struct):
    """What was last seen of both, and when the last reading was taken."""

    perp: Side
    spot: Side
    ts_read: int = 0

    @property
    def interval(self) -> int:
        """How far readings are apart, where no bar is missing: the longer bar says."""
        return max(self.perp.interval, self.spot.interval)


class Reading(Struct, frozen=True, gc=False):
    """Both legs at one instant."""

    ts: int
    perp: float
    spot: float
    basis: float
    opening: float
    closing: float


class Readings(Struct, frozen=True):
    """Every reading of a tape; `position` is the row that completes each, `interval` how far they are apart. All of shape (n,)."""

    position: Ints
    ts: Ints
    perp: Floats
    spot: Floats
    basis: Floats
    opening: Floats
    closing: Floats
    interval: int

    def before(self, position: int) -> int:
        """How many come before a position of the tape."""
        return int(self.position.searchsorted(position))


class PairView:
    """Reads two legs, told one message at a time or all at once from a tape, to the same bits.

    Args:
        perp: The leg that is sold to open.
        spot: The leg that is bought.
        perp_half_spread: Fraction of price, used where no quote is fresh.
        spot_half_spread: The same for the other leg.
        quote_age: Nanoseconds for which a quote stands for its leg.
    """

    def __init__(
        self, perp: str, spot: str, *, perp_half_spread: float, spot_half_spread: float, quote_age: int
    ) -> None:
        self.perp = perp
        self.spot = spot
        self.perp_half_spread = perp_half_spread
        self.spot_half_spread = spot_half_spread
        self.quote_age = quote_age
        self.key = ("pair", perp, spot, perp_half_spread, spot_half_spread, quote_age)
        self._watches: list[tuple[type[Observation], str]] = [
            (kind, leg) for kind in (Bar, Quote) for leg in (perp, spot)
        ]
        self._watches += [(PremiumIndex, perp), (FundingRate, perp)]

    def saw_quote(self, legs: Legs, quote: Quote) -> None:
        side = legs.perp if quote.instrument == self.perp else legs.spot
        if quote.ts_event < side.ts_quote:
            return  # overtaken on its way
        side.bid, side.ask, side.ts_quote = quote.bid, quote.ask, quote.ts_event

    def saw_bar(self, legs: Legs, bar: Bar) -> Reading | None:
        """Take a bar in; a reading if both legs have now closed at its instant."""
        side = legs.perp if bar.instrument == self.perp else legs.spot
        if bar.ts_event < side.ts:
            return None  # told late, or again: what follows it is known already
        side.ts, side.close, side.interval = bar.ts_event, bar.close, bar.ts_event - bar.ts_open
        if legs.perp.ts != legs.spot.ts or legs.ts_read == bar.ts_event:
            return None
        legs.ts_read = bar.ts_event
        return self._reading(legs, bar.ts_event)

    def newest(self, legs: Legs) -> Reading | None:
        """The reading of what was last seen; None while the legs have closed bars of different instants, or none."""
        ts = legs.perp.ts
        return self._reading(legs, ts) if ts and ts == legs.spot.ts else None

    def _reading(self, legs: Legs, ts: int) -> Reading:
        perp = self._executable(legs.perp, ts, self.perp_half_spread)
        spot = self._executable(legs.spot, ts, self.spot_half_spread)
        return Reading(ts, legs.perp.close, legs.spot.close, *executable(*perp, *spot))

    def _executable(self, side: Side, ts: int, half_spread: float) -> tuple[float, float]:
        if side.ts_quote and ts - side.ts_quote <= self.quote_age:
            return side.bid, side.ask
        return side.close * (1 - half_spread), side.close * (1 + half_spread)

    # --- from a tape ----------------------------------------------------------------------------

    def streams(self, tape: Tape, kind: type[Observation], instrument: str) -> list[Stream]:
        return [stream for stream in tape.streams if stream.kind is kind and stream.instrument == instrument]

    def follows(self, legs: Legs, tape: Tape, position: int) -> bool:
        """Whether the columns say all: what was last seen is what the tape has before `position`, each row told once."""
        if not tape.derived((*self.key, "plain"), lambda: all(self._plain(tape, *watch) for watch in self._watches)):
            return False
        return all(
            _last(tape.stream(kind, leg), position) == seen
            for leg, side in ((self.perp, legs.perp), (self.spot, legs.spot))
            for kind, seen in ((Bar, side.ts), (Quote, side.ts_quote))
        )

    def _plain(self, tape: Tape, kind: type[Observation], leg: str) -> bool:
        found = self.streams(tape, kind, leg)
        if len(found) > 1:
            return False
        return kind is not Bar or not found or not bool((np.diff(found[0].ts) == 0).any())

    def first_row(self, tape: Tape, start: int, stop: int, kinds: tuple[type[Observation], ...] = ()) -> int:
        """The first position in [start, stop) that a watcher of the pair is told of, or `stop`."""
        first = stop
        for kind, leg in self._watches:
            if not kinds or kind in kinds:
                for stream in self.streams(tape, kind, leg):
                    row = stream.rows_before(start)
                    if row < len(stream):
                        first = min(first, stream.position(row))
        return first

    def rows(self, tape: Tape, kind: type[Observation], start: int, stop: int) -> tuple[Stream, int, int] | None:
        """The perpetual's rows of a kind within [start, stop), as a stream and a range of it."""
        stream = tape.stream(kind, self.perp)
        return None if stream is None else (stream, stream.rows_before(start), stream.rows_before(stop))

    def catch_up(self, legs: Legs, tape: Tape, start: int, stop: int) -> tuple[Readings, int, int]:
        """Take the bars and quotes in [start, stop) as if each had been told; the readings they make, as a range."""
        for leg, side in ((self.perp, legs.perp), (self.spot, legs.spot)):
            bars = tape.stream(Bar, leg)
            row = -1 if bars is None else bars.rows_before(stop) - 1
            if bars is not None and row >= 0 and bars.position(row) >= start:
                side.ts, side.close, side.interval = bars.ts.item(row), bars.columns["close"].item(row), bars.interval
            quotes = tape.stream(Quote, leg)
            row = -1 if quotes is None else quotes.rows_before(stop) - 1
            if quotes is not None and row >= 0 and quotes.position(row) >= start:
                side.ts_quote = quotes.ts.item(row)
                side.bid, side.ask = quotes.columns["bid"].item(row), quotes.columns["ask"].item(row)
        readings = self.readings(tape)
        low, high = readings.before(start), readings.before(stop)
        if high > low:
            legs.ts_read = readings.ts.item(high - 1)
        return readings, low, high

    def readings(self, tape: Tape) -> Readings:
        """Every reading of a tape, made once and kept with it."""
        return tape.derived((*self.key, "readings"), lambda: self._read(tape))

    def notes(self, tape: Tape) -> list[str]:
        """What stands in for quotes where the tape has none."""
        missing = [leg for leg in (self.perp, self.spot) if tape.stream(Quote, leg) is None]
        spreads = f"{self.perp_half_spread * 1e4:g} and {self.spot_half_spread * 1e4:g} bp"
        closes = "closes stand in for the executable basis, less assumed half spreads of the perpetual and spot of"
        return [f"no quotes of {' and '.join(missing)}: {closes} {spreads}"] if missing else []

    def _read(self, tape: Tape) -> Readings:
        perp, spot = tape.stream(Bar, self.perp), tape.stream(Bar, self.spot)
        if perp is None or spot is None:
            none = np.empty(0)
            stamps = np.empty(0, np.int64)
            return Readings(stamps, stamps, none, none, none, none, none, 0)
        ts, own, other = np.intersect1d(perp.ts, spot.ts, return_indices=True)
        position = np.maximum(_positions(perp)[own], _positions(spot)[other])
        closes = perp.columns["close"][own], spot.columns["close"][other]
        sides = [
            self._executables(tape.stream(Quote, leg), position, ts, close, half_spread)
            for leg, close, half_spread in (
                (self.perp, closes[0], self.perp_half_spread),
                (self.spot, closes[1], self.spot_half_spread),
            )
        ]
        return Readings(position, ts, *closes, *executable(*sides[0], *sides[1]), max(perp.interval, spot.interval))

    def _executables(
        self, quotes: Stream | None, position: Ints, ts: Ints, close: Floats, half_spread: float
    ) -> tuple[Floats, Floats]:
        bid, ask = close * (1 - half_spread), close * (1 + half_spread)
        if quotes is None:
            return bid, ask
        row = _positions(quotes).searchsorted(position) - 1
        fresh = (row >= 0) & (ts - quotes.ts[row] <= self.quote_age)
        return np.where(fresh, quotes.columns["bid"][row], bid), np.where(fresh, quotes.columns["ask"][row], ask)


def _last(stream: Stream | None, position: int) -> int:
    """When the last row before a position was; 0 where there is none."""
    row = 0 if stream is None else stream.rows_before(position)
    return 0 if stream is None or not row else int(stream.ts.item(row - 1))


def _positions(stream: Stream) -> Ints:
    return np.arange(len(stream)) if stream.positions is None else stream.positions.astype(np.int64)


def executable(perp_bid: T, perp_ask: T, spot_bid: T, spot_ask: T) -> tuple[T, T, T]:
    """The basis of the middles, and what opening and closing a pair at these quotes gets: fractions of the spot's middle."""
    spot = (spot_bid + spot_ask) * 0.5
    basis = ((perp_bid + perp_ask) * 0.5 - spot) / spot
    return basis, (perp_bid - spot_ask) / spot, (perp_ask - spot_bid) / spot


# --- order statistics of a window ---------------------------------------------------------------


def median_mad(window: Floats) -> tuple[float, float]:
    """Median and median absolute deviation of a window that is not empty: the same bits as `rolling_median_mad`."""
    ordered = np.sort(window)
    median, deviation = _middle(ordered, ordered.size)
    return float(median), float(deviation)


@kernel
def rolling_median_mad(values: Floats, first: Ints) -> tuple[Floats, Floats]:
    """Median and median absolute deviation of `values[first[i] : i + 1]`, for every i.

    A sorted window is carried along: one value goes in and the old ones come out by shifting, and
    the deviation is found by bisection from the median outwards.

    Args:
        values: Shape (n,), no NaN.
        first: Where each window begins, shape (n,), never falling, at most its own index.
    """
    medians, deviations = np.empty(values.size), np.empty(values.size)
    ordered = np.empty(_longest(first))
    size = out = 0
    for row in range(values.size):
        while out < first[row]:
            size = _take_out(ordered, size, values[out])
            out += 1
        size = _put_in(ordered, size, values[row])
        medians[row], deviations[row] = _middle(ordered, size)
    return medians, deviations


@kernel
def rolling_quantile(values: Floats, first: Ints, share: float) -> Floats:
    """The value of `values[first[i] : i + 1]` with `share` of the others at or below it, for every i. Not interpolated."""
    quantiles = np.empty(values.size)
    ordered = np.empty(_longest(first))
    size = out = 0
    for row in range(values.size):
        while out < first[row]:
            size = _take_out(ordered, size, values[out])
            out += 1
        size = _put_in(ordered, size, values[row])
        quantiles[row] = ordered[math.floor(share * (size - 1))]
    return quantiles


def quantile(window: list[float], share: float) -> float:
    """The same of one window that is not empty."""
    return sorted(window)[math.floor(share * (len(window) - 1))]


def window_starts(ts: Ints, span: int) -> Ints:
    """Where the window of each row begins: the first row less than `span` nanoseconds before it."""
    return ts.searchsorted(ts - span, side="right").astype(np.int64)


@kernel
def persistence(values: Floats) -> float:
    """The slope of each value on the one before: phi of x' = a + phi x + noise, by least squares.

    Noise in the prices pulls it towards 0, and the half-life with it. Of a constant it is 1: nothing reverts.

    Args:
        values: Shape (n,), n above 2, evenly spaced.
    """
    count = values.size - 1
    before = after = 0.0
    for row in range(count):
        before += values[row]
        after += values[row + 1]
    before /= count
    after /= count
    product = square = 0.0
    for row in range(count):
        product += (values[row] - before) * (values[row + 1] - after)
        square += (values[row] - before) ** 2
    return 1.0 if square == 0.0 else product / square


def half_life(values: Floats, interval: int) -> float:
    """After how many nanoseconds half of a deviation is gone: ln 2 / -ln phi intervals; infinite where nothing reverts."""
    phi = float(persistence(values)) if values.size > 2 else 1.0
    if phi >= 1.0:
        return math.inf
    return 0.0 if phi <= 0.0 else math.log(2) / -math.log(phi) * interval


@kernel
def _longest(first: Ints) -> int:
    longest = 1
    for row in range(first.size):
        longest = max(longest, row + 1 - first[row])
    return longest + 1


@kernel
def _place(ordered: Floats, size: int, value: float) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) >> 1
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _put_in(ordered: Floats, size: int, value: float) -> int:
    place = _place(ordered, size, value)
    for row in range(size, place, -1):
        ordered[row] = ordered[row - 1]
    ordered[place] = value
    return size + 1


@kernel
def _take_out(ordered: Floats, size: int, value: float) -> int:
    for row in range(_place(ordered, size, value), size - 1):
        ordered[row] = ordered[row + 1]
    return size - 1


@kernel
def _middle(ordered: Floats, size: int) -> tuple[float, float]:
    """Median of the first `size` sorted values, and the median of how far they are from it."""
    half = size >> 1
    if size % 2:
        median = ordered[half]
        return median, _nearest(ordered, size, median, half)
    median = (ordered[half - 1] + ordered[half]) * 0.5
    return median, (_nearest(ordered, size, median, half - 1) + _nearest(ordered, size, median, half)) * 0.5


@kernel
def _nearest(ordered: Floats, size: int, centre: float, rank: int) -> float:
    """The distance from `centre` of which `rank` others are no larger.

    Below and above the centre the distances are two sorted lists; `low` is how many of the first `rank`
    distances are from below.
    """
    split = _place(ordered, size, centre)  # below: split - 1 down to 0; above: split up to size - 1
    low, high = max(0, rank - (size - split)), min(rank, split)
    while low < high:
        below = (low + high) >> 1
        # Is the next distance from below among the first `rank`?
        if centre - ordered[split - 1 - below] < ordered[split + rank - below - 1] - centre:
            low = below + 1
        else:
            high = below
    nearest = math.inf
    if low < split:
        nearest = centre - ordered[split - 1 - low]
    if split + rank - low < size:
        nearest = min(nearest, ordered[split + rank - low] - centre)
    return nearest
