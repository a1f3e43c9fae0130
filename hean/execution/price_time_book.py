"""The book of a venue: every order in its place, the best price first and at each price the oldest first.

Prices are whole ticks and sizes whole steps: nothing is compared or added up but integers.
"""

from collections.abc import Iterable, Iterator

from msgspec import Struct
from sortedcontainers import SortedDict

from hean.messages import Side


class Resting(Struct, eq=False, gc=False):
    """What rests in a book under a key of its own: `size` is what is left of it."""

    key: str
    owner: str
    side: Side
    price: int
    size: int


class Level:
    """One price: its orders, oldest first, and their sizes added up."""

    __slots__ = ("queue", "size")

    def __init__(self) -> None:
        self.queue: dict[str, Resting] = {}
        self.size = 0


class PriceTimeBook:
    """Orders of both sides. `version` rises with every change that the public could see."""

    def __init__(self) -> None:
        # Bids are kept under their negated price, so that both sides begin with the best.
        self._sides: dict[Side, SortedDict[int, Level]] = {Side.BUY: SortedDict(), Side.SELL: SortedDict()}
        self._orders: dict[str, Resting] = {}
        self.version = 0

    def __len__(self) -> int:
        return len(self._orders)

    def get(self, key: str) -> Resting | None:
        return self._orders.get(key)

    def add(self, resting: Resting) -> None:
        """Put an order at the back of its price's queue.

        Raises:
            ValueError: the key is in the book already, or there is nothing of it.
        """
        if resting.key in self._orders or resting.size <= 0:
            raise ValueError(f"{resting.key} is in the book already, or its size {resting.size} is none")
        side = self._sides[resting.side]
        at = -resting.price if resting.side is Side.BUY else resting.price
        level = side.get(at)
        if level is None:
            level = side[at] = Level()
        level.queue[resting.key] = resting
        level.size += resting.size
        self._orders[resting.key] = resting
        self.version += 1

    def reduce(self, resting: Resting, by: int) -> None:
        """Take `by` steps off an order: it keeps its place, and leaves the book with the last step."""
        side = self._sides[resting.side]
        at = -resting.price if resting.side is Side.BUY else resting.price
        level = side[at]
        resting.size -= by
        level.size -= by
        if resting.size <= 0:
            del level.queue[resting.key]
            del self._orders[resting.key]
            if not level.queue:
                del side[at]
        self.version += 1

    def remove(self, resting: Resting) -> None:
        self.reduce(resting, resting.size)

    def best(self, side: Side) -> int | None:
        """The best price of a side, in ticks; None while it is empty."""
        levels = self._sides[side]
        if not levels:
            return None
        at: int = levels.peekitem(0)[0]
        return -at if side is Side.BUY else at

    def first(self, side: Side) -> Resting | None:
        """Whose turn it is on a side: the oldest order at the best price."""
        levels = self._sides[side]
        if not levels:
            return None
        level: Level = levels.peekitem(0)[1]
        return next(iter(level.queue.values()))

    def opposite(self, side: Side, limit: int | None) -> Iterator[Resting]:
        """The orders that one of `side` limited to `limit` would meet, in the order it would meet them. The book may not change meanwhile."""
        other = side.other
        bound = limit if limit is None or other is Side.SELL else -limit
        for at, level in self._sides[other].items():
            if bound is not None and at > bound:
                return
            yield from level.queue.values()

    def levels(self, side: Side, depth: int) -> list[tuple[int, int]]:
        """(price, size) of the best `depth` prices."""
        sign = -1 if side is Side.BUY else 1
        found: list[tuple[int, int]] = []
        for at, level in self._sides[side].items():
            if len(found) == depth:
                break
            found.append((sign * at, level.size))
        return found

    def each_level(self, side: Side) -> Iterator[tuple[int, int]]:
        """(price, size) of every price, the best first. The book may not change meanwhile."""
        sign = -1 if side is Side.BUY else 1
        return ((sign * at, level.size) for at, level in self._sides[side].items())

    def size_at(self, side: Side, price: int) -> int:
        level = self._sides[side].get(-price if side is Side.BUY else price)
        return level.size if level is not None else 0

    def prices(self, side: Side) -> Iterable[int]:
        """Every price of a side, the best first."""
        sign = -1 if side is Side.BUY else 1
        return (sign * at for at in self._sides[side])
