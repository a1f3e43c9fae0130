"""Matching where a book is known: an order walks it as it arrives, and a resting one waits in its queue.

Ours takes from the book until the level is next told; otherwise the market does not answer to us.
"""

from collections.abc import Iterator

from hean.execution.floor import Floor
from hean.execution.margin import ZERO
from hean.execution.matching import beyond, crosses, queue_after, walk
from hean.execution.venue_state import Desk, Held, Working
from hean.messages import (
    BookLevels,
    Liquidity,
    OrderAccepted,
    OrderExpired,
    OrderFilled,
    Quote,
    TimeInForce,
    Trade,
)


class BookMarket:
    """Fills by the book."""

    def __init__(self, floor: Floor, cancel_share: float) -> None:
        self._floor = floor
        self._cancel_share = cancel_share

    def shown(self, shown: Quote | BookLevels, now: int) -> Iterator[OrderFilled | OrderExpired]:
        name = shown.instrument
        desks = self._floor.desks
        if isinstance(shown, Quote) and name in desks.with_levels:
            return
        if not desks.show(shown) or name not in desks.busy:
            return
        desk, book = desks[name], desks.books[name]
        for held in list(desk.held.values()):
            best = book.best(held.side.other)
            kind = held.reached(best, best) if best is not None else ""
            if kind:
                yield from self._exit(name, desk, held, kind, now)
        for working in list(desk.working.values()):
            if not working.resting:
                continue
            side = working.order.side
            best = book.best(side.other)
            if best is not None and crosses(side, working.limit, best):
                yield from self._floor.make(desk, working, now)
                continue
            displayed = book.size_at(side, working.limit)
            working.ahead = queue_after(
                working.ahead,
                traded=working.traded,
                before=working.displayed,
                after=displayed,
                cancel_share=self._cancel_share,
            )
            working.displayed, working.traded = displayed, 0.0

    def traded(self, trade: Trade, now: int) -> Iterator[OrderFilled | OrderExpired]:
        """Let a print work through the queue before our resting orders, and fill them when it has."""
        if trade.instrument not in self._floor.desks.busy:
            return
        desk = self._floor.desks[trade.instrument]
        for working in list(desk.working.values()):
            side = working.order.side
            if not working.resting or trade.side is side:
                continue
            if beyond(side, working.limit, trade.price, trade.price):
                yield from self._floor.make(desk, working, now, size=trade.size)
            elif trade.price == working.limit:
                ours = trade.size - max(0.0, working.ahead - working.traded)
                working.traded += trade.size
                if ours > 0:
                    yield from self._floor.make(desk, working, now, size=ours)

    def meet(self, desk: Desk, working: Working, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        """Let an order that arrives take what the book has for it, and rest or expire with what is left."""
        order, floor = working.order, self._floor
        instrument = floor.instruments[order.instrument]
        book = floor.desks.books[order.instrument]
        other = order.side.other
        best = book.best(other)
        limit = None if order.limit is None else working.limit
        marketable = best is not None and (limit is None or crosses(order.side, limit, best))
        if marketable and order.time_in_force is TimeInForce.POST_ONLY:
            yield floor.expire(desk, working, "EC_PostOnlyWillTakeLiquidity")
            return
        wanted = floor.tradable(working)
        if wanted <= 0:
            yield floor.over(desk, working)
            return
        takes = list(walk(book.levels(other), order.side, wanted, limit, instrument)) if marketable else []
        if order.time_in_force is TimeInForce.FOK and sum((take.quantity for take in takes), ZERO) < wanted:
            yield floor.expire(desk, working, "EC_NoEnoughQtyToFill")
            return
        for take in takes:
            book.take(other, take.level, float(take.quantity))
            yield floor.fill(desk, working, take.quantity, take.price, Liquidity.TAKER, now)
        if not working.left:
            return
        if floor.tradable(working) <= 0:
            yield floor.over(desk, working)
        elif order.limit is None or order.time_in_force in {TimeInForce.IOC, TimeInForce.FOK}:
            yield floor.expire(desk, working, "EC_NoEnoughQtyToFill" if takes else "EC_NoImmediateQtyToFill")
        else:
            working.ahead = working.displayed = book.size_at(order.side, working.limit)
            yield floor.rest(desk, working)

    def _exit(self, name: str, desk: Desk, held: Held, kind: str, now: int) -> Iterator[OrderFilled]:
        """Close what a bracket holds against the book; what the book cannot take waits for the next change of it."""
        floor = self._floor
        instrument, book = floor.instruments[name], floor.desks.books[name]
        wanted = floor.exit_quantity(instrument, held)
        other = held.side.other
        for take in list(walk(book.levels(other), held.side, wanted, None, instrument)):
            book.take(other, take.level, float(take.quantity))
            held.left -= take.quantity
            wanted -= take.quantity
            yield floor.exit(instrument, held, kind, take.quantity, take.price, now)
        if wanted <= 0:
            floor.release(name, desk, held)
