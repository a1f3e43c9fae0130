"""Compiled searches: the first row at which a price reaches one of our orders."""

import numpy as np
from numpy.typing import NDArray

from hean.compiled import kernel

Floats = NDArray[np.float64]


@kernel
def first_beyond(low: Floats, high: Floats, below: float, above: float, start: int, stop: int) -> int:
    """The first row in [start, stop) whose low is at or below `below`, or whose high at or above `above`; else `stop`.

    Where rows are single prices, `low` and `high` are the same array.
    """
    for row in range(start, stop):
        if low[row] <= below or high[row] >= above:
            return row
    return stop


@kernel
def first_quote_beyond(
    bid: Floats,
    ask: Floats,
    bid_below: float,
    bid_above: float,
    ask_below: float,
    ask_above: float,
    start: int,
    stop: int,
) -> int:
    """The same for best bids and offers, each with bounds of its own."""
    for row in range(start, stop):
        if bid[row] <= bid_below or bid[row] >= bid_above or ask[row] <= ask_below or ask[row] >= ask_above:
            return row
    return stop
