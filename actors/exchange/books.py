"""Order books as the public streams tell them: one chain of snapshots and deltas per instrument and depth.

Source: Bybit v5, *Orderbook*, and streams recorded from the venue.
"""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from actors.exchange.render import price_scale
from hean.exchange.listing import Listing
from hean.exchange.market import Market
from hean.messages import Side
from hean.units import MILLISECOND, SECOND

DEPTHS = {1: 10, 50: 20, 200: 100, 1000: 200}
"""Levels of each side that may be subscribed to, each with the milliseconds between its pushes."""

DEEPEST = 1000
"""The depth whose `u` REST shows."""

_REPEAT_NS = 3 * SECOND

Levels = dict[int, int]
"""What a subscriber's book holds of one side, in steps by ticks, the best first."""


class Chain:
    """One book as all its subscribers have it.

    It shows the best `depth` prices of each side. What it last told is kept: a delta is the difference to what the market is
    now, and whoever comes late gets what the others have, so that the next delta fits both. `u` rises by one with every
    delta; 1 is the first word of a service that has just begun.
    """

    def __init__(self, market: Market, depth: int, now: int) -> None:
        self.topic = f"orderbook.{depth}.{market.listing.symbol}"
        self.every = DEPTHS[depth] * MILLISECOND
        self._market = market
        self._depth = depth
        self._price = prices_of(market.listing)
        self._size = sizes_of(market.listing)
        self._begin(1, now)

    def _begin(self, u: int, now: int) -> None:
        self._version = self._market.book.version
        self._show(*self._window(), u, now)

    def first(self, _: int) -> bytes:
        """What a new subscriber is told: the book as of the last `u`."""
        return self._message("snapshot", self._bids.items(), self._asks.items())

    def due(self, now: int) -> list[bytes]:
        """What is to be told now: nothing while no level of the window has changed."""
        if self._version == self._market.book.version:
            return self._again(now)
        self._version = self._market.book.version
        bids, asks = self._bids, self._asks
        window = self._window()
        if window == (bids, asks):
            return self._again(now)
        self._show(*window, self.u + 1, now)
        if self._depth == 1:
            return [self.first(now)]
        return [
            self._message(
                "delta",
                sorted(changes(bids, self._bids), reverse=True),
                sorted(changes(asks, self._asks)),
            )
        ]

    def restart(self, now: int, u: int = 1) -> bytes:
        """Begin the chain anew, as the venue does after an interruption: the snapshot that all are to be told."""
        self._begin(u, now)
        return self.first(now)

    def _window(self) -> tuple[Levels, Levels]:
        book = self._market.book
        return dict(book.levels(Side.BUY, self._depth)), dict(book.levels(Side.SELL, self._depth))

    def _show(self, bids: Levels, asks: Levels, u: int, now: int) -> None:
        self._bids, self._asks, self.u, self._ts = bids, asks, u, now
        self._seq = self._market.seq
        self._ts_matched = self._market.ts_matched

    def _again(self, now: int) -> list[bytes]:
        """The best prices are said again after three seconds without a change, with the same `u`."""
        if self._depth != 1 or now - self._ts < _REPEAT_NS:
            return []
        self._ts = now
        return [self.first(now)]

    def _message(self, kind: str, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> bytes:
        price, size = self._price, self._size
        return _encode(
            {
                "topic": self.topic,
                "type": kind,
                "ts": self._ts // MILLISECOND,
                "data": {
                    "s": self._market.listing.symbol,
                    "b": [(price(ticks), size(steps)) for ticks, steps in bids],
                    "a": [(price(ticks), size(steps)) for ticks, steps in asks],
                    "u": self.u,
                    "seq": self._seq,
                },
                "cts": self._ts_matched // MILLISECOND,
            }
        )


def changes(before: Levels, after: Levels) -> list[tuple[int, int]]:
    """The levels that make `before` into `after`: those that are new or of another size, and at size 0 those that left."""
    changed = [level for level in after.items() if before.get(level[0]) != level[1]]
    changed += [(ticks, 0) for ticks in before if ticks not in after]
    return changed


class Grid:
    """Whole ticks or steps in words, as `render` writes the same number: with so many decimals, or without idle zeros."""

    def __init__(self, unit: Decimal, decimals: int, *, trims: bool) -> None:
        self._unit = int(unit.scaleb(decimals))
        self._one = 10**decimals
        self._decimals = decimals
        self._trims = trims

    def __call__(self, count: int) -> str:
        if not count:
            return "0"
        whole, rest = divmod(count * self._unit, self._one)
        if not self._decimals or (self._trims and not rest):
            return str(whole)
        text = f"{whole}.{rest:0{self._decimals}d}"
        return text.rstrip("0") if self._trims else text


def prices_of(listing: Listing) -> Grid:
    decimals = listing.price_places if listing.is_spot else price_scale(listing)
    return Grid(listing.instrument.tick, decimals, trims=listing.is_spot)


def sizes_of(listing: Listing) -> Grid:
    return Grid(listing.instrument.step, listing.quantity_places, trims=listing.is_spot)


_encode = msgspec.json.Encoder().encode
