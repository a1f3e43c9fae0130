"""Matching where no book is known: by the prices that print after an order's arrival, half a spread worse for a taker.

With trades an order meets the first print after its arrival; a resting one is filled by prints beyond its
limit, no more than their size. With candles alone latency is nought: an order meets the next open, a
resting one needs a candle through its limit, and within a candle a stop comes before a target.

A taker's own size moves nothing here: with orders large against what trades, a tape with a book is wanted.
"""

from collections.abc import Iterator

from hean.execution.floor import Floor
from hean.execution.matching import beyond, crosses, taker_price
from hean.execution.venue_state import Desk, Held, Working
from hean.messages import (
    Bar,
    BarOpened,
    Liquidity,
    OrderAccepted,
    OrderExpired,
    OrderFilled,
    Side,
    TimeInForce,
    Trade,
)
from hean.units import SECOND


class PrintedMarket:
    """Fills by prints and candles."""

    def __init__(self, floor: Floor, half_spread_bp: float, stale_entry_s: float) -> None:
        self._floor = floor
        self._half_spread = half_spread_bp / 1e4
        self._stale_entry = int(stale_entry_s * SECOND)

    def opened(self, bar: BarOpened, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        desk = self._floor.desks[bar.instrument]
        desk.ts_opened, desk.open = now, bar.open
        if bar.instrument not in self._floor.desks.busy:
            return
        yield from self._fire(bar.instrument, desk, bar.open, now)
        for working in list(desk.working.values()):
            if not working.resting:
                yield from self.activate(desk, working, bar.open, now)
            elif beyond(working.order.side, working.limit, bar.open, bar.open):
                yield from self._floor.make(desk, working, now)
                yield from self._fire_entered(desk, working, bar.open, now)

    def closed(self, bar: Bar, now: int) -> Iterator[OrderFilled | OrderExpired]:
        name = bar.instrument
        desk = self._floor.desks[name]
        desk.price = bar.close
        if name not in self._floor.desks.busy:
            return
        for held in list(desk.held.values()):
            kind = held.reached(bar.low, bar.high)
            if kind:
                yield from self._exit(name, desk, held, kind, held.stop_at if kind == "stop" else held.target_at, now)
        for working in list(desk.working.values()):
            if not working.resting or working.ts_arrives > bar.ts_open:
                continue
            side, limit = working.order.side, working.limit
            if beyond(side, limit, bar.low, bar.high):
                yield from self._floor.make(desk, working, now)
                entered = desk.held.get(working.order.client_order_id)
                if entered is not None and entered.reached(bar.low, bar.high) == "stop":
                    # Beyond the entry on the way lies the stop: the candle passed both, and the worse of them is paid.
                    worse = min(entered.stop_at, limit) if side is Side.BUY else max(entered.stop_at, limit)
                    yield from self._exit(name, desk, entered, "stop", worse, now)

    def traded(self, trade: Trade, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        name = trade.instrument
        desk = self._floor.desks[name]
        desk.price = trade.price
        if name not in self._floor.desks.busy:
            return
        yield from self._fire(name, desk, trade.price, now)
        for working in list(desk.working.values()):
            if not working.resting:
                # What printed in the very instant of the arrival came before it.
                if working.ts_arrives < now:
                    yield from self.activate(desk, working, trade.price, now)
            elif beyond(working.order.side, working.limit, trade.price, trade.price):
                yield from self._floor.make(desk, working, now, size=trade.size)

    def activate(
        self, desk: Desk, working: Working, price: float, now: int
    ) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        """Let an order that has arrived meet the first price known since."""
        order = working.order
        instrument = self._floor.instruments[order.instrument]
        if now - working.ts_arrives > self._stale_entry and not order.reduce_only:
            # The record has a hole: nobody would have left an entry standing through it. A way out is still wanted.
            yield self._floor.expire(desk, working, "no price within the time an entry waits")
            return
        if order.limit is not None:
            if not crosses(order.side, working.limit, price):
                if order.time_in_force in {TimeInForce.IOC, TimeInForce.FOK}:
                    yield self._floor.expire(desk, working, "EC_NoImmediateQtyToFill")
                else:
                    yield self._floor.rest(desk, working)
                return
            if order.time_in_force is TimeInForce.POST_ONLY:
                yield self._floor.expire(desk, working, "EC_PostOnlyWillTakeLiquidity")
                return
        at = taker_price(instrument, order.side, price, self._half_spread)
        if order.limit is not None:
            at = min(at, order.limit) if order.side is Side.BUY else max(at, order.limit)
        quantity = self._floor.tradable(working)
        if quantity > 0:
            yield self._floor.fill(desk, working, quantity, at, Liquidity.TAKER, now)
        if working.left:
            yield self._floor.over(desk, working)
        if order.bracket is not None:
            yield from self._fire_entered(desk, working, price, now)

    def _fire(self, name: str, desk: Desk, price: float, now: int) -> Iterator[OrderFilled]:
        for held in list(desk.held.values()):
            kind = held.reached(price, price)
            if kind:
                yield from self._exit(name, desk, held, kind, price, now)

    def _fire_entered(self, desk: Desk, working: Working, price: float, now: int) -> Iterator[OrderFilled]:
        """Fire an exit that the price had passed already when its entry filled: a gap may leap over both."""
        held = desk.held.get(working.order.client_order_id)
        kind = held.reached(price, price) if held is not None else ""
        if held is not None and kind:
            yield from self._exit(working.order.instrument, desk, held, kind, price, now)

    def _exit(self, name: str, desk: Desk, held: Held, kind: str, price: float, now: int) -> Iterator[OrderFilled]:
        instrument = self._floor.instruments[name]
        quantity = self._floor.exit_quantity(instrument, held)
        self._floor.release(name, desk, held)
        if quantity > 0:
            at = taker_price(instrument, held.side, price, self._half_spread)
            yield self._floor.exit(instrument, held, kind, quantity, at, now)
