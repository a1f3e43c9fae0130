"""Who trades with whom, and at what price: pure rules, shared by every venue of ours.

A market that is known only by its candles or its trades has no book. There a fill is made at a price
that printed after the order arrived, worsened by half a spread. Where a book is known it is walked.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from msgspec import Struct

from hean.instruments import Instrument
from hean.messages import Side


def crosses(side: Side, limit: float, opposite: float) -> bool:
    """Whether an order limited to `limit` would trade with a quote of the other side at `opposite`."""
    return opposite <= limit if side is Side.BUY else opposite >= limit


def beyond(side: Side, limit: float, low: float, high: float) -> bool:
    """Whether prices went through a resting limit. A touch may leave us at the back of the queue: it is not enough."""
    return low < limit if side is Side.BUY else high > limit


def taker_price(instrument: Instrument, side: Side, price: float, half_spread: float) -> Decimal:
    """What a taker pays or gets where only a printed price is known: half a spread worse, to the tick against it."""
    if side is Side.BUY:
        return instrument.price_up(price * (1 + half_spread))
    return instrument.price_down(price * (1 - half_spread))


class Take(Struct, frozen=True, gc=False):
    """What is taken of one level: `level` as it was observed, `price` and `quantity` as they are traded."""

    level: float
    price: Decimal
    quantity: Decimal


def walk(
    levels: Iterable[tuple[float, float]], side: Side, quantity: Decimal, limit: float | None, instrument: Instrument
) -> Iterator[Take]:
    """Take from a book, the best first, until the quantity, the limit or the book is exhausted."""
    left = quantity
    for price, size in levels:
        if left <= 0 or (limit is not None and not crosses(side, limit, price)):
            return
        taken = min(left, instrument.quantity(size))
        if taken > 0:
            yield Take(price, instrument.price(price), taken)
            left -= taken


def queue_after(ahead: float, *, traded: float, before: float, after: float, cancel_share: float) -> float:
    """Size still in front of a resting order after its level changed.

    Args:
        ahead: Size in front of it until now.
        traded: What traded at the level meanwhile: it came off the front.
        before: Size displayed at the level until now.
        after: Size displayed now.
        cancel_share: Share of the cancelled size taken to have stood in front; the rest stood behind.
    """
    canceled = max(0.0, before - traded - after)
    return max(0.0, min(ahead - traded - cancel_share * canceled, after))
