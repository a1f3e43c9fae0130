"""Compiled features of finite windows of the market.

A return is the difference of two log prices in whole units of 1e-9, and sums of its square are kept in whole numbers
too: neither where a tape begins nor how it is cut changes a bit once the window is full. Windows are stretches of
time. Where a bar is missing inside one, or the tape has not yet filled it, the feature is NaN: unknown, never bridged.

`ts` are the closes of bars of one length, `interval`; windows are counted in bars.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hean.compiled import kernel
from hean.tape import Floats, Ints
from hean.units import DAY, HOUR, YEAR

UNIT = 1e-9
"""Of a log price."""

SQUARE_UNIT = 1e-15
"""Of a squared return: a window of a thousand bars holds a thousand twentyfold moves."""

_WIDEST = 3_000_000_000
_TO_SQUARE_UNITS = 1000
_BAD = -(1 << 62)


@kernel
def log_units(price: float) -> int:
    """A price's logarithm in units; a fixed impossible number where it is not a price."""
    if not price > 0.0 or price == np.inf:
        return _BAD
    return round(math.log(price) / UNIT)


@kernel
def _square(log_return: int) -> int:
    bounded = min(max(log_return, -_WIDEST), _WIDEST)
    return (bounded * bounded + _TO_SQUARE_UNITS // 2) // _TO_SQUARE_UNITS


@kernel
def _sigma_and_z(squares: int, window: int, log_return: int, bars: int) -> tuple[float, float]:
    sigma = math.sqrt(squares * SQUARE_UNIT / window)
    if sigma == 0.0:
        return sigma, np.nan
    return sigma, log_return * UNIT / (sigma * math.sqrt(bars))


@kernel
def impulse_columns(ts: Ints, close: Floats, interval: int, bars: int, window: int) -> tuple[Floats, Floats]:
    """How large a move is for this market, at every bar.

    Args:
        ts: Close of each bar, shape (n,), rising.
        close: Closing prices, shape (n,).
        interval: Length of a bar in nanoseconds.
        bars: How many bars the move takes, at least 1 and at most `window`.
        window: How many one-bar returns it is measured against.

    Returns:
        Two columns of shape (n,). The root mean square of the one-bar returns of the window, and the return over the last
        `bars` in units of what that predicts for them, `r / (sigma * sqrt(bars))`. Where the price never moved
        the second is NaN.
    """
    size = ts.size
    sigma = np.full(size, np.nan)
    z = np.full(size, np.nan)
    logs = np.empty(size, np.int64)
    squares = 0
    run = 0
    for row in range(size):
        logs[row] = log_units(close[row])
        if row == 0 or ts[row] - ts[row - 1] != interval or logs[row] == _BAD or logs[row - 1] == _BAD:
            run = 0
            squares = 0
            continue
        run += 1
        squares += _square(logs[row] - logs[row - 1])
        if run > window:
            squares -= _square(logs[row - window] - logs[row - window - 1])
        if run >= window:
            sigma[row], z[row] = _sigma_and_z(squares, window, logs[row] - logs[row - bars], bars)
    return sigma, z


@kernel
def impulse_now(ts: Ints, close: Floats, interval: int, bars: int, window: int) -> tuple[float, float]:
    """`impulse_columns` at the last row alone, to the bit."""
    last = ts.size - 1
    if last < window:
        return np.nan, np.nan
    newest = newer = log_units(close[last])
    start = newest
    squares = 0
    if newest == _BAD:
        return np.nan, np.nan
    for back in range(1, window + 1):
        row = last - back
        older = log_units(close[row])
        if older == _BAD or ts[row + 1] - ts[row] != interval:
            return np.nan, np.nan
        squares += _square(newer - older)
        if back == bars:
            start = older
        newer = older
    return _sigma_and_z(squares, window, newest - start, bars)


@kernel
def volume_ratio(ts: Ints, volume: Floats, row: int, interval: int, bars: int, days: int) -> float:
    """The volume of the last bars over what is usual for as many in this hour of day, at one row.

    Unknown (NaN) where a bar is missing now, or what is usual is unknown.

    Args:
        ts: Close of each bar, shape (n,), rising.
        volume: Volume of each, shape (n,).
        row: The bar it is asked at; nothing later is read.
        interval: Length of a bar in nanoseconds.
        bars: How many bars to add up; together at most an hour.
        days: How many days before this one say what is usual.
    """
    return _volume(ts, volume, row, interval, bars) / _usual_volume(ts, volume, row, interval, bars, days)


@kernel
def volume_ratios(ts: Ints, volume: Floats, z: Floats, interval: int, bars: int, days: int, trigger: float) -> Floats:
    """`volume_ratio` at every row whose `z` is beyond the trigger, NaN elsewhere; shape (n,)."""
    ratios = np.full(ts.size, np.nan)
    hour = -1
    usual = np.nan
    for row in range(ts.size):
        if abs(z[row]) > trigger:
            of = (ts[row] - interval) // HOUR
            if of != hour:
                hour = of
                usual = _usual_volume(ts, volume, row, interval, bars, days)
            ratios[row] = _volume(ts, volume, row, interval, bars) / usual
    return ratios


@kernel
def _volume(ts: Ints, volume: Floats, row: int, interval: int, bars: int) -> float:
    first = row - bars + 1
    if first < 0 or ts[row] - ts[first] != (bars - 1) * interval:
        return np.nan
    total = 0.0
    for at in range(first, row + 1):
        total += volume[at]
    return total


@kernel
def _usual_volume(ts: Ints, volume: Floats, row: int, interval: int, bars: int, days: int) -> float:
    """The median volume of as many bars in this hour of day, over the days before: the same at every row of the hour.

    The hour is cut into stretches, beginning at its first bar; those with a bar missing are left out. It is unknown when
    half of them are missing, when the rows do not reach back to the first of those days, and when it is 0.
    """
    hour = (ts[row] - interval) // HOUR * HOUR
    if ts[0] > hour - days * DAY + interval:
        return np.nan
    length = bars * interval
    cuts = HOUR // length
    samples = np.empty(cuts * days)
    known = 0
    for day in range(1, days + 1):
        begin = hour - day * DAY
        at = int(np.searchsorted(ts[:row], begin + interval))
        cut = 0
        total = 0.0
        count = 0
        while at < row and ts[at] <= begin + cuts * length:
            of = (ts[at] - begin - interval) // length
            if of != cut:
                cut = of
                total = 0.0
                count = 0
            total += volume[at]
            count += 1
            if count == bars:
                samples[known] = total
                known += 1
            at += 1
    if 2 * known <= cuts * days:
        return np.nan
    usual = np.median(samples[:known])
    return usual if usual > 0.0 else np.nan


@kernel
def first_impulse(
    ts: Ints,
    sigma: Floats,
    z: Floats,
    ratio: Floats,
    start: int,
    stop: int,
    trigger: float,
    least_sigma: float,
    least_ratio: float,
    stamp_every: int,
    stamp_quiet: int,
) -> int:
    """The first row in [start, stop) that passes every gate `gate_counts` counts, or `stop`."""
    for row in range(start, stop):
        if (
            abs(z[row]) > trigger
            and sigma[row] >= least_sigma
            and ratio[row] > least_ratio
            and not near_stamp(ts[row], stamp_every, stamp_quiet)
        ):
            return row
    return stop


@kernel
def gate_counts(
    ts: Ints,
    sigma: Floats,
    z: Floats,
    ratio: Floats,
    trigger: float,
    least_sigma: float,
    least_ratio: float,
    stamp_every: int,
    stamp_quiet: int,
) -> Ints:
    """How many rows have a move that is known, that is large, that pays, that is busy, that is not at a funding stamp."""
    counts = np.zeros(5, np.int64)
    for row in range(ts.size):
        if np.isnan(z[row]):
            continue
        counts[0] += 1
        if not abs(z[row]) > trigger:
            continue
        counts[1] += 1
        if not sigma[row] >= least_sigma:
            continue
        counts[2] += 1
        if not ratio[row] > least_ratio:
            continue
        counts[3] += 1
        counts[4] += not near_stamp(ts[row], stamp_every, stamp_quiet)
    return counts


@kernel
def near_stamp(ts: int, every: int, quiet: int) -> bool:
    """Whether the nearest multiple of `every` is closer than `quiet`."""
    since = ts % every
    return min(since, every - since) < quiet


@kernel
def turmoil_rank(ts: Ints, close: Floats, interval: int, window: int) -> float:
    """The share of earlier windows, of those with no bar missing, that were less volatile than the last one.

    Plain returns do for a rank. NaN when the last window is not known, or half of the others are not.
    """
    squares = np.empty(ts.size, np.int64)
    sums = np.full(ts.size, -1, np.int64)
    run = 0
    total = 0
    for row in range(1, ts.size):
        before, after = close[row - 1], close[row]
        if ts[row] - ts[row - 1] != interval or not (0.0 < before < np.inf and 0.0 < after < np.inf):
            run = 0
            total = 0
            continue
        step = min(after / before - 1.0, _WIDEST * UNIT)
        squares[row] = np.int64(step * step / SQUARE_UNIT)
        run += 1
        total += squares[row]
        if run > window:
            total -= squares[row - window]
        if run >= window:
            sums[row] = total
    last = sums[-1] if sums.size else -1
    known = 0
    below = 0
    for row in range(sums.size - 1):
        known += sums[row] >= 0
        below += 0 <= sums[row] < last
    if last < 0 or 2 * known <= sums.size - 1:
        return np.nan
    return below / known


def annualised(sigma: float, interval: int) -> float:
    """The volatility per year that a root mean square of one-bar returns amounts to."""
    return sigma * math.sqrt(YEAR / interval)


@kernel
def trade_imbalance(ts: Ints, size: Floats, side: NDArray[Any], after: int) -> float:
    """(bought - sold) / (bought + sold) of the trades later than an instant, by the taker's side; NaN without one."""
    bought = 0.0
    sold = 0.0
    for row in range(ts.size - 1, -1, -1):
        if ts[row] <= after:
            break
        if side[row] > 0:
            bought += size[row]
        else:
            sold += size[row]
    if not bought + sold > 0.0:
        return np.nan
    return (bought - sold) / (bought + sold)


@kernel
def order_flow(bid: Floats, bid_size: Floats, ask: Floats, ask_size: Floats) -> Floats:
    """Order-flow imbalance of each best bid and offer against the one before it, in base units.

    Args:
        bid: Best bids, shape (n,).
        bid_size: Size at each, shape (n,).
        ask: Best offers, shape (n,).
        ask_size: Size at each, shape (n,).

    Returns:
        Shape (n,); the first is 0, for nothing came before it. Positive: buyers came, or sellers left.

    Source:
        Cont, Kukanov and Stoikov, "The price impact of order book events", arXiv 1011.6402.
    """
    flow = np.zeros(bid.size)
    for row in range(1, bid.size):
        event = 0.0
        if bid[row] >= bid[row - 1]:
            event += bid_size[row]
        if bid[row] <= bid[row - 1]:
            event -= bid_size[row - 1]
        if ask[row] <= ask[row - 1]:
            event -= ask_size[row]
        if ask[row] >= ask[row - 1]:
            event += ask_size[row - 1]
        flow[row] = event
    return flow
