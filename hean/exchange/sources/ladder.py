"""A book around a reference price.

Levels stand on a grid of their own, so that a step of the price changes few of them: the best follows the price, and what
it passes goes. Sizes grow with the distance.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hean.exchange.sources.source import Levels

_LEVELS = 220
_GRID = 0.15e-4  # of the price, between two levels
_LAG = 0.03e-4  # of the price, that the reference may move before the quotes follow
_TOUCH = 2.0  # size of the best level, in sizes of the first behind it
_GROWTH = 0.1  # of that size, which each level further out has more
_REDRAWN = 60.0  # levels of a side that change their size in a second
_NEAR = 12.0  # mean distance of those, in levels
_POOL = 4096
_SPREADS = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3)


class Ladder:
    """The quotes of one instrument.

    Args:
        chance: Its own.
        price: About where it begins, in ticks.
        steps: Mean size of a level near the best, in steps.
    """

    def __init__(self, chance: np.random.Generator, *, price: float, steps: float) -> None:
        self._noise = _drawn(chance.lognormal(-0.18, 0.6, _POOL))
        self._near = _drawn(np.minimum(chance.exponential(_NEAR, _POOL), _LEVELS - 1).astype(np.int64))
        self._spreads = _drawn(chance.choice(_SPREADS, _POOL))
        self._lag = max(0.5, price * _LAG)
        grid = max(1, round(price * _GRID))
        self._bids = _Half(grid, grid)
        self._asks = _Half(grid, -(1 << 60))
        self._steps = steps
        self._depth = 1.0
        self._reference: float | None = None
        self._owed = 0.0

    @property
    def bid(self) -> int:
        """The best bid, in ticks."""
        return self._bids.best

    @property
    def ask(self) -> int:
        """The best offer, in ticks."""
        return -self._asks.best

    def follow(
        self, reference: float, elapsed_s: float, *, widened: float = 0.0, depth: float = 1.0
    ) -> tuple[Levels, Levels]:
        """What of the bids and of the offers changes when the price has moved to `reference`, in ticks.

        Args:
            reference: Where the middle of the book belongs.
            elapsed_s: Seconds since it was last asked: sizes change with time.
            widened: Ticks that the spread is wider by than usual.
            depth: Sizes as a fraction of the usual.
        """
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        if depth != self._depth:
            self._depth, self._reference = depth, None
            bids.update(self._bids.emptied())
            asks.update(self._asks.emptied())
        if self._reference is None or abs(reference - self._reference) > self._lag:
            self._reference = reference
            spread = next(self._spreads) + widened * next(self._noise)
            bid = max(1, round(reference - spread / 2))
            self._move(self._bids, bid, bids)
            self._move(self._asks, -max(bid + 1, round(bid + spread)), asks)
        self._redraw(elapsed_s, bids, asks)
        return tuple(bids.items()), tuple((-price, size) for price, size in asks.items())

    def quote(self, bid: int, ask: int) -> tuple[Levels, Levels]:
        """What changes when the best bid and offer are to be these. Both are always told: they are whole again, whatever was taken."""
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for half, best, changes in ((self._bids, bid, bids), (self._asks, -ask, asks)):
            if best != half.best or not half.sizes:
                self._move(half, best, changes)
            changes[best] = half.sizes[best]
        return tuple(bids.items()), tuple((-price, size) for price, size in asks.items())

    def shown(self) -> tuple[Levels, Levels]:
        """All of it."""
        return tuple(self._bids.sizes.items()), tuple((-price, size) for price, size in self._asks.sizes.items())

    def _move(self, half: "_Half", best: int, changes: dict[int, int]) -> None:
        for price in half.move(best):
            if price in half.sizes:
                del half.sizes[price]
                changes[price] = 0
            else:
                half.sizes[price] = changes[price] = self._size(half, price)

    def _redraw(self, elapsed_s: float, bids: dict[int, int], asks: dict[int, int]) -> None:
        self._owed += elapsed_s * _REDRAWN
        while self._owed >= 1:
            self._owed -= 1
            for half, changes in ((self._bids, bids), (self._asks, asks)):
                away = next(self._near)
                price = half.best if not away else (half.best // half.grid - away) * half.grid
                if price in half.sizes:
                    half.sizes[price] = changes[price] = self._size(half, price)

    def _size(self, half: "_Half", price: int) -> int:
        away = (half.best - price) / half.grid
        growth = 1 + _GROWTH * away if away else _TOUCH
        size: float = self._steps * self._depth * growth * next(self._noise)
        return max(1, round(size))


class _Half:
    """One side, as if of bids: offers are kept under their negated prices. Sizes are in steps, by price in ticks."""

    __slots__ = ("best", "floor", "grid", "sizes")

    def __init__(self, grid: int, floor: int) -> None:
        self.grid = grid
        self.floor = floor
        self.best = 0
        self.sizes: dict[int, int] = {}

    def move(self, best: int) -> Iterator[int]:
        """The prices that come or go when the best moves; each goes if it is there."""
        old, grid = self.best, self.grid
        self.best = best
        if not self.sizes:
            yield best
            yield from self._between(self._bottom(best), best)
            return
        if best == old:
            return
        if abs(best - old) >= _LEVELS * grid:
            yield from list(self.sizes)
            yield best
            yield from self._between(self._bottom(best), best)
            return
        if old % grid or best < old:
            yield old
        if best % grid or best > old:
            yield best
        low, high = sorted((old, best))
        yield from self._between(low + 1, high)
        bottoms = sorted((self._bottom(old), self._bottom(best)))
        yield from self._between(*bottoms)

    def emptied(self) -> dict[int, int]:
        gone = dict.fromkeys(self.sizes, 0)
        self.sizes.clear()
        return gone

    def _bottom(self, best: int) -> int:
        return max(self.floor, (best // self.grid - _LEVELS) * self.grid)

    def _between(self, low: int, high: int) -> range:
        """Prices of the grid from `low` on, below `high`."""
        return range(-(-low // self.grid) * self.grid, high, self.grid)


def _drawn(pool: NDArray[np.generic]) -> Iterator[Any]:
    return cycle(pool.tolist())
