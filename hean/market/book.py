"""The order book: sorted, one price a level."""

from bisect import bisect_left, insort
from collections.abc import Iterator

from msgspec import Struct, field

from hean.messages import BookLevels, Side


class OrderBook(Struct):
    """Displayed sizes by price. Prices are floats as observed, and are compared as such: a level's price never changes."""

    # Bids are kept under their negated price, so that both lists begin with the best.
    _bids: list[float] = field(default_factory=list)
    _asks: list[float] = field(default_factory=list)
    _sizes: tuple[dict[float, float], dict[float, float]] = field(default_factory=lambda: ({}, {}))

    def apply(self, change: BookLevels) -> None:
        if change.snapshot:
            self.clear()
        for price, size in change.bids:
            self._set(Side.BUY, price, size)
        for price, size in change.asks:
            self._set(Side.SELL, price, size)

    def replace(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Show one level a side: all that a best bid and offer tells."""
        self.clear()
        self._set(Side.BUY, bid, bid_size)
        self._set(Side.SELL, ask, ask_size)

    def clear(self) -> None:
        self._bids.clear()
        self._asks.clear()
        self._sizes[0].clear()
        self._sizes[1].clear()

    def _set(self, side: Side, price: float, size: float) -> None:
        keys, sizes = (self._bids, self._sizes[0]) if side is Side.BUY else (self._asks, self._sizes[1])
        key = -price if side is Side.BUY else price
        if size > 0:
            if price not in sizes:
                insort(keys, key)
            sizes[price] = size
        elif price in sizes:
            del sizes[price]
            del keys[bisect_left(keys, key)]

    @property
    def bid(self) -> float | None:
        return -self._bids[0] if self._bids else None

    @property
    def ask(self) -> float | None:
        return self._asks[0] if self._asks else None

    def best(self, side: Side) -> float | None:
        return self.bid if side is Side.BUY else self.ask

    @property
    def middle(self) -> float | None:
        """Half-way between the best of both sides; None while one is empty."""
        return (self._asks[0] - self._bids[0]) / 2 if self._bids and self._asks else None

    def take(self, side: Side, price: float, size: float) -> None:
        """Take from a level what one of ours has traded there, until the level is next told."""
        self._set(side, price, max(0.0, self.size_at(side, price) - size))

    def size_at(self, side: Side, price: float) -> float:
        """What is displayed at a price on a side; 0 where nothing is."""
        return self._sizes[0 if side is Side.BUY else 1].get(price, 0.0)

    def levels(self, side: Side) -> Iterator[tuple[float, float]]:
        """(price, size) from the best on: what an order of the other side would take."""
        if side is Side.BUY:
            for key in self._bids:
                yield -key, self._sizes[0][-key]
        else:
            for key in self._asks:
                yield key, self._sizes[1][key]

    def depth(self, side: Side, within: float) -> float:
        """Size displayed within a fraction of the best price of a side."""
        best = self.best(side)
        if best is None:
            return 0.0
        return sum(size for price, size in self.levels(side) if abs(price - best) <= within * best)
