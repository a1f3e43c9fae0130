"""Compiled searches: the first row of a tape where something valued at the market may happen."""

from collections.abc import Collection, Mapping
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.compiled import kernel
from hean.errors import ContractError
from hean.messages import Bar, MarkPrice, Observation, Quote, Trade
from hean.tape import Stream, Tape

Floats: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int32]

BLOCK = 256
"""Rows whose extremes are kept: a search passes a block at a time where the extremes stay inside."""

SLACK = 1e-10
"""Of the sum of what is added up: a search must not answer late for a rounding."""

MARKS = (MarkPrice, Bar, Trade, Quote)
"""What an instrument can be valued at: the mark, the close, the last trade, the middle of the quote."""

_NO_PLACES = np.empty(0, np.int32)


class MarkSearch:
    """Finds the first row of a tape that brings `constant + sum of slope x price` out of an interval.

    A price is that of the last row of its instrument, of any kind watched. Where one instrument with one
    stream is searched, its own column is scanned; where there are several, a joint view of all that is
    watched, built once and kept with the tape.

    Args:
        tape: The market.
        watches: Instrument and kind of the rows that carry prices; other kinds than those in `MARKS` are left aside.
        adverse: Test a bar also at its low, or its high where the slope is negative: for what happens within it.
    """

    def __init__(
        self, tape: Tape, watches: Collection[tuple[str, type[Observation]]], *, adverse: bool = False
    ) -> None:
        self.tape = tape
        self._adverse = adverse
        self._streams: dict[str, list[Stream]] = {}
        for stream in tape.streams:
            if stream.kind in MARKS and (stream.instrument, stream.kind) in watches:
                self._streams.setdefault(stream.instrument, []).append(stream)
        self._slots = {instrument: slot for slot, instrument in enumerate(self._streams)}
        self._direct: dict[str, _Direct] = {}
        self._joint: _Joint | None = None

    def first_outside(
        self,
        start: int,
        stop: int,
        *,
        constant: float,
        slopes: Mapping[str, float],
        prices: Mapping[str, float],
        low: float,
        high: float,
    ) -> int:
        """The first position in [start, stop) at which the value is at or beyond `low` or `high`, or `stop`.

        It may be a hair early, within `SLACK`, and is never late.

        Args:
            start: The first position that may answer.
            stop: The first that may not.
            constant: What does not move.
            slopes: By instrument, how the value moves with its price. What the tape does not show stays at its price.
            prices: The prices known at `start`; every instrument with a slope has one.
            low: The lower bound; minus infinity for none.
            high: The upper bound; infinity for none.
        """
        moving = ""
        count = 0
        size = abs(constant)
        for instrument, slope in slopes.items():
            if slope == 0.0:
                continue
            term = slope * prices[instrument]
            size += abs(term)
            streams = self._streams.get(instrument)
            if streams is None:
                constant += term
            else:
                count += len(streams)
                moving = instrument
        if count == 0:
            return stop
        slack = SLACK * size
        low += slack
        high -= slack
        if count > 1:
            return self._search_joint(start, stop, constant, slopes, prices, low, high)
        slope = slopes[moving]
        lowest, highest = (low - constant) / slope, (high - constant) / slope
        direct = self._direct.get(moving)
        if direct is None:
            direct = self._direct[moving] = self._columns(self._streams[moving][0])
        if slope > 0.0:
            down, up, block_down, block_up = direct.low, direct.price, direct.block_low, direct.block_most
        else:
            lowest, highest = highest, lowest
            down, up, block_down, block_up = direct.price, direct.high, direct.block_least, direct.block_high
        return int(_scan(direct.positions, down, up, block_down, block_up, start, stop, lowest, highest))

    def first_row(self, instrument: str, start: int, stop: int) -> int:
        """The first position in [start, stop) that prices the instrument, or `stop`."""
        found = stop
        for stream in self._streams.get(instrument, ()):
            row = _rows_before(stream, start)
            if row < len(stream):
                found = min(found, stream.position(row))
        return found

    def first_told(self, start: int, stop: int) -> int:
        """The first position in [start, stop) that prices anything watched, or `stop`."""
        return min((self.first_row(instrument, start, stop) for instrument in self._streams), default=stop)

    def last_prices(self, start: int, stop: int) -> list[tuple[str, float]]:
        """The last price of each instrument that has one in [start, stop)."""
        found = []
        for instrument, streams in self._streams.items():
            last = start - 1
            latest = None
            for stream in streams:
                row = _rows_before(stream, stop) - 1
                if row >= 0:
                    position = row if stream.positions is None else stream.positions.item(row)
                    if position > last:
                        last = position
                        latest = stream, row
            if latest is not None:
                found.append((instrument, price_at(*latest)))
        return found

    def _columns(self, stream: Stream) -> "_Direct":
        key = ("marks", stream.index, self._adverse)
        return self.tape.derived(key, lambda: _direct(stream, adverse=self._adverse))

    def _search_joint(
        self,
        start: int,
        stop: int,
        constant: float,
        slopes: Mapping[str, float],
        prices: Mapping[str, float],
        low: float,
        high: float,
    ) -> int:
        joint = self._joint
        if joint is None:
            streams = [(stream, self._slots[name]) for name, group in self._streams.items() for stream in group]
            key = ("marks", tuple(stream.index for stream, _ in streams), self._adverse)
            joint = self._joint = self.tape.derived(key, lambda: _join(streams, adverse=self._adverse))
        slope = np.zeros(len(self._slots))
        known = np.zeros(len(self._slots))
        for instrument, slot in self._slots.items():
            if slopes.get(instrument):
                slope[slot] = slopes[instrument]
                known[slot] = prices[instrument]
        return int(
            _scan_joint(
                joint.position,
                joint.slot,
                joint.price,
                joint.low,
                joint.high,
                joint.block_low,
                joint.block_high,
                joint.block_last,
                start,
                stop,
                constant,
                slope,
                known,
                low,
                high,
            )
        )


def price_of(message: MarkPrice | Bar | Trade | Quote) -> float:
    """What a row says its instrument is worth."""
    if isinstance(message, Bar):
        return message.close
    if isinstance(message, Quote):
        return 0.5 * (message.bid + message.ask)
    return message.price


def price_at(stream: Stream, row: int) -> float:
    """The same, read from the columns."""
    of = stream.columns
    price: float
    if stream.kind is Bar:
        price = of["close"].item(row)
    elif stream.kind is Quote:
        price = 0.5 * (of["bid"].item(row) + of["ask"].item(row))
    else:
        price = of["price"].item(row)
    return price


def prices_of(stream: Stream) -> Floats:
    """The same, for every row: the stream's own column, but for quotes."""
    of = stream.columns
    if stream.kind is Bar:
        return np.ascontiguousarray(of["close"], np.float64)
    if stream.kind is Quote:
        return np.asarray(0.5 * (of["bid"] + of["ask"]), np.float64)
    if stream.kind in MARKS:
        return np.ascontiguousarray(of["price"], np.float64)
    raise ContractError(f"{stream.kind.__name__} of {stream.instrument} carries no price")


class _Direct(Struct, frozen=True):
    """One stream as a search reads it; `low` and `high` are `price` itself where nothing is worse within a row."""

    positions: Places
    price: Floats
    low: Floats
    high: Floats
    block_least: Floats
    block_most: Floats
    block_low: Floats
    block_high: Floats


class _Joint(Struct, frozen=True):
    """Several streams in the order of the tape, and by block and slot the least, the most and the last price."""

    position: Places
    slot: NDArray[np.int16]
    price: Floats
    low: Floats
    high: Floats
    block_low: Floats
    block_high: Floats
    block_last: Floats


def _direct(stream: Stream, *, adverse: bool) -> _Direct:
    price = prices_of(stream)
    low, high = _extremes(stream, price, adverse=adverse)
    firsts = np.arange(0, len(stream), BLOCK)
    least, most = np.minimum.reduceat(price, firsts), np.maximum.reduceat(price, firsts)
    return _Direct(
        positions=_NO_PLACES if stream.positions is None else stream.positions,
        price=price,
        low=low,
        high=high,
        block_least=least,
        block_most=most,
        block_low=least if low is price else np.minimum.reduceat(low, firsts),
        block_high=most if high is price else np.maximum.reduceat(high, firsts),
    )


def _extremes(stream: Stream, price: Floats, *, adverse: bool) -> tuple[Floats, Floats]:
    if adverse and stream.kind is Bar:
        of = stream.columns
        return np.ascontiguousarray(of["low"], np.float64), np.ascontiguousarray(of["high"], np.float64)
    return price, price


def _join(streams: list[tuple[Stream, int]], *, adverse: bool) -> _Joint:
    places = [stream.positions for stream, _ in streams if stream.positions is not None]
    together = np.concatenate(places)
    order = np.argsort(together, kind="stable")
    prices = [prices_of(stream) for stream, _ in streams]
    price = np.concatenate(prices)[order]
    low = high = price
    if adverse and any(stream.kind is Bar for stream, _ in streams):
        pairs = [_extremes(stream, own, adverse=True) for (stream, _), own in zip(streams, prices, strict=True)]
        low = np.concatenate([pair[0] for pair in pairs])[order]
        high = np.concatenate([pair[1] for pair in pairs])[order]
    slot = np.concatenate([np.full(len(stream), number, np.int16) for stream, number in streams])[order]
    blocks = _blocks(slot, price, low, high, 1 + max(number for _, number in streams))
    return _Joint(together[order], slot, price, low, high, *blocks)


def _rows_before(stream: Stream, position: int) -> int:
    if stream.positions is None:
        return min(position, len(stream))
    row: int = _bisect(stream.positions, position)
    return row


@kernel
def _bisect(places: Places, position: int) -> int:
    """How many places are below a position; numpy would first copy them all to wider integers."""
    first, last = 0, places.size
    while first < last:
        middle = (first + last) >> 1
        if places[middle] < position:
            first = middle + 1
        else:
            last = middle
    return first


@kernel
def _scan(
    places: Places,
    down: Floats,
    up: Floats,
    block_down: Floats,
    block_up: Floats,
    start: int,
    stop: int,
    lowest: float,
    highest: float,
) -> int:
    """The first place in [start, stop) with `down` at or below `lowest`, or `up` at or above `highest`; else `stop`."""
    if places.size:
        row, last = _bisect(places, start), _bisect(places, stop)
    else:
        row, last = start, min(stop, down.size)
    while row < last:
        block = row // BLOCK
        end = min((block + 1) * BLOCK, last)
        if not (block_down[block] > lowest and block_up[block] < highest):
            while row < end:
                if not (down[row] > lowest and up[row] < highest):
                    return int(places[row]) if places.size else row
                row += 1
        row = end
    return stop


@kernel
def _blocks(slot: NDArray[np.int16], price: Floats, low: Floats, high: Floats, slots: int) -> tuple[Floats, ...]:
    blocks = (price.size + BLOCK - 1) // BLOCK
    least = np.full((blocks, slots), np.inf)
    most = np.full((blocks, slots), -np.inf)
    final = np.full((blocks, slots), np.nan)
    for row in range(price.size):
        block, own = row // BLOCK, slot[row]
        least[block, own] = min(least[block, own], low[row], price[row])
        most[block, own] = max(most[block, own], high[row], price[row])
        final[block, own] = price[row]
    return least, most, final


@kernel
def _scan_joint(
    places: Places,
    slots: NDArray[np.int16],
    price: Floats,
    low_price: Floats,
    high_price: Floats,
    block_low: Floats,
    block_high: Floats,
    block_last: Floats,
    start: int,
    stop: int,
    constant: float,
    slope: Floats,
    known: Floats,
    low: float,
    high: float,
) -> int:
    row, last = _bisect(places, start), _bisect(places, stop)
    while row < last:
        block = row // BLOCK
        end = min((block + 1) * BLOCK, last)
        if row == block * BLOCK:
            least = most = constant
            for slot in range(slope.size):
                if slope[slot] != 0.0:
                    one = slope[slot] * min(block_low[block, slot], known[slot])
                    other = slope[slot] * max(block_high[block, slot], known[slot])
                    least += min(one, other)
                    most += max(one, other)
            if least > low and most < high:
                if end == last:
                    return stop
                for slot in range(slope.size):
                    if not np.isnan(block_last[block, slot]):
                        known[slot] = block_last[block, slot]
                row = end
                continue
        while row < end:
            own = slots[row]
            if slope[own] != 0.0:
                known[own] = price[row]
                value = constant
                for slot in range(slope.size):
                    value += slope[slot] * known[slot]
                worse = low_price[row] if slope[own] > 0.0 else high_price[row]
                worst = value + min(slope[own] * (worse - price[row]), 0.0)
                if not (worst > low and value < high):
                    return int(places[row])
            row += 1
    return stop
