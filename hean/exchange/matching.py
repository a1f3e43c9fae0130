"""Orders meet: what takes, what rests and what becomes of the rest. Price first, then time.

Source: Bybit v5, *Place Order*, *Self Match Prevention*, and the enumerations of order states.
"""

from decimal import Decimal

from hean.exchange.clearing import HOUSE, Clearing
from hean.exchange.market import Market
from hean.exchange.words import ZERO, ExecType, Order, OrderType, PositionChanged, Printed, Smp, Status
from hean.execution.matching import crosses
from hean.execution.price_time_book import Resting
from hean.messages import Liquidity, Side, TimeInForce


class Matching:
    """The books of all markets, and the orders in them."""

    def __init__(self, clearing: Clearing) -> None:
        self._clearing = clearing
        self._places = 0
        self.shrunk: list[tuple[str, str, int]] = []
        """Positions that fills have changed and nobody has looked after yet: (account, instrument, index)."""
        self.filled: list[tuple[Order, Decimal]] = []
        """Fills of orders with exits attached, which nobody has set yet: (order, quantity)."""

    # --- orders of clients --------------------------------------------------------------------------

    def enter(self, order: Order, market: Market, now: int) -> None:
        """Let an order meet the book: trade what it can, and rest or end with what is left."""
        resting_kind = order.kind is OrderType.LIMIT and order.time_in_force in _RESTS
        order.status = Status.PARTIALLY_FILLED if order.filled else Status.NEW
        if resting_kind:
            refusal = self._would_take(order, market)
            if refusal:
                self.end(order, market, now, reject_reason=refusal)
                return
            self._clearing.say(order)
        if order.time_in_force is TimeInForce.FOK and not self._fillable(order, market):
            self.end(order, market, now, reject_reason="EC_CancelForNoFullFill")
            return
        ended = self.take(order, market, now, ExecType.TRADE)
        if self._steps_left(order, market) == 0 and order.filled:
            self.fill_up(order, market, now)
        elif resting_kind and not ended:
            self._rest(order, market)
            if order.filled:
                order.status = Status.PARTIALLY_FILLED
                self._clearing.say(order)
        elif ended:
            self.end(order, market, now, cancel_type=ended, reject_reason=_REASON_OF.get(ended, "EC_NoError"))
        else:
            reason = "EC_NoEnoughQtyToFill" if order.filled else "EC_NoImmediateQtyToFill"
            self.end(order, market, now, reject_reason=reason)

    def _would_take(self, order: Order, market: Market) -> str:
        if order.time_in_force is not TimeInForce.POST_ONLY or order.price is None:
            return ""
        best = market.book.best(order.side.other)
        takes = best is not None and crosses(order.side, market.listing.ticks(order.price), best)
        return "EC_PostOnlyWillTakeLiquidity" if takes else ""

    def _fillable(self, order: Order, market: Market) -> bool:
        """Whether the book holds all of a fill-or-kill order."""
        wanted = self._steps_left(order, market)
        limit = market.listing.ticks(order.price) if order.price is not None else None
        sold: dict[tuple[str, int], int] = {}
        for resting in market.book.opposite(order.side, limit):
            if order.smp is not Smp.NONE and resting.owner == order.uid:
                if order.smp in _CANCELS_TAKER:
                    return False
                continue
            wanted -= self._deliverable(resting, market, sold)
            if wanted <= 0:
                return True
        return wanted <= 0

    def _deliverable(self, resting: Resting, market: Market, sold: dict[tuple[str, int], int]) -> int:
        """Steps that a resting order can give after those before it in the queue; `sold` adds up what each position gave."""
        if resting.owner == HOUSE:
            return resting.size
        maker = self._maker(resting)
        position = (maker.uid, maker.position_idx)
        steps, before = resting.size, sold.get(position, 0)
        if maker.only_reduces:
            steps = max(0, min(steps, market.listing.steps(self.room(maker)) - before))
        sold[position] = before + steps
        return steps

    def _maker(self, resting: Resting) -> Order:
        return self._clearing.accounts[resting.owner].open_orders[resting.key]

    def _next(self, side: Side, market: Market, now: int) -> Resting | None:
        """Whose turn it is on a side.

        One that only reduces is first held to what there is of its position: the fill before may have been its own.
        """
        while (resting := market.book.first(side)) is not None and resting.owner != HOUSE:
            maker = self._maker(resting)
            if not maker.only_reduces:
                break
            self._hold_to_position(maker, market, now)
            if maker.status.is_open:
                break
        return resting

    def take(self, order: Order, market: Market, now: int, exec_type: ExecType) -> str:
        """Trade with what rests, best first. Returns why it may not go on, as a cancel type; empty when nothing stops it."""
        limit = market.listing.ticks(order.price) if order.price is not None else None
        while (resting := self._next(order.side.other, market, now)) is not None:
            if limit is not None and not crosses(order.side, limit, resting.price):
                break
            steps = min(self._affordable(order, market, resting.price), resting.size)
            if steps <= 0:
                break
            if resting.owner == order.uid and order.smp is not Smp.NONE:
                if order.smp in _CANCELS_MAKER:
                    self._cancel_maker(resting, market, order, now)
                if order.smp in _CANCELS_TAKER:
                    order.smp_order_id = resting.key
                    return "CancelBySmp"
                continue
            self._trade(order, resting, market, steps, now, exec_type)
        return ""

    def _affordable(self, order: Order, market: Market, ticks: int) -> int:
        """Steps an order still wants at a price: of a sum of quote currency, what it buys there."""
        listing = market.listing
        if order.in_quote:
            return listing.steps(order.left / listing.price(ticks))
        left = min(order.left, self.room(order)) if order.only_reduces else order.left
        return listing.steps(left)

    def _steps_left(self, order: Order, market: Market) -> int:
        if order.in_quote and order.left > 0:
            best = market.book.best(order.side.other)
            return self._affordable(order, market, best) if best is not None else 1
        return market.listing.steps(order.left)

    def room(self, order: Order) -> Decimal:
        """What of an order that only reduces there is a position for."""
        held = self._clearing.accounts[order.uid].quantity(order.instrument, order.position_idx)
        return abs(held) if held * order.side < 0 else ZERO

    def _trade(self, order: Order, resting: Resting, market: Market, steps: int, now: int, exec_type: ExecType) -> None:
        price, quantity = market.listing.price(resting.price), market.listing.quantity(steps)
        market.book.reduce(resting, steps)
        self._match(market, now)
        exec_id = self._clearing.ids.execution(spot=market.listing.is_spot)
        self._make(resting, market, quantity, price, exec_id, now)
        self._clearing.fill(order, market, quantity, price, Liquidity.TAKER, now, exec_type, exec_id)
        self._after_fill(order, quantity)
        self._print(market, exec_id, order.side, price, quantity, now)

    def _make(
        self, resting: Resting, market: Market, quantity: Decimal, price: Decimal, exec_id: str, now: int
    ) -> None:
        """Book the side that rested."""
        clearing = self._clearing
        if resting.owner == HOUSE:
            clearing.fill_house(market, resting.side, quantity, price)
            return
        maker = self._maker(resting)
        clearing.fill(maker, market, quantity, price, Liquidity.MAKER, now, exec_id=exec_id)
        self._after_fill(maker, quantity)
        if resting.size == 0:
            self.fill_up(maker, market, now)
        else:
            maker.status = Status.PARTIALLY_FILLED
            self._reserve(maker, market)
            clearing.say(maker)

    def _after_fill(self, order: Order, quantity: Decimal) -> None:
        self.shrunk.append((order.uid, order.instrument, order.position_idx))
        if order.take_profit is not None or order.stop_loss is not None:
            self.filled.append((order, quantity))

    def _match(self, market: Market, now: int) -> None:
        market.seq += 1
        market.ts_matched = now

    def _print(self, market: Market, exec_id: str, side: Side, price: Decimal, quantity: Decimal, now: int) -> None:
        printed = Printed(market.listing.id, exec_id, side, price, quantity, now, market.seq)
        market.last = price
        market.trades.append(printed)
        market.candles.trade(now, float(price), float(quantity))
        self._clearing.events.append(printed)

    def _cancel_maker(self, resting: Resting, market: Market, taker: Order, now: int) -> None:
        maker = self._maker(resting)
        maker.smp_order_id = taker.order_id
        self.end(maker, market, now, cancel_type="CancelBySmp", reject_reason="EC_BySelfMatch")

    def _rest(self, order: Order, market: Market) -> None:
        if order.price is None:
            raise ValueError(f"{order.order_id} has no price to rest at")
        self._places += 1
        order.place = self._places
        listing = market.listing
        steps = listing.steps(order.left)
        market.book.add(Resting(order.order_id, order.uid, order.side, listing.ticks(order.price), steps))
        market.seq += 1
        self._reserve(order, market)

    def _reserve(self, order: Order, market: Market) -> None:
        account = self._clearing.accounts[order.uid]
        account.reserve(order, market.listing, order.left, ZERO if order.price is None else order.price)

    def fill_up(self, order: Order, market: Market, now: int) -> None:
        order.status = Status.FILLED
        self._leave(order, market)
        order.ts_updated = now
        self._clearing.say(order)

    def end(
        self,
        order: Order,
        market: Market,
        now: int,
        *,
        cancel_type: str = "UNKNOWN",
        reject_reason: str = "EC_NoError",
    ) -> None:
        """End an order with what it has filled: cancelled, or what the category calls it."""
        resting = market.book.get(order.order_id)
        if resting is not None:
            market.book.remove(resting)
            self._match(market, now)
        waited = order.status is Status.UNTRIGGERED
        if waited:
            order.status = Status.DEACTIVATED
        elif market.listing.is_spot and order.filled:
            order.status = Status.PARTIALLY_FILLED_CANCELED
        elif market.listing.is_spot and reject_reason == "EC_PostOnlyWillTakeLiquidity":
            order.status = Status.REJECTED
        else:
            order.status = Status.CANCELLED
        order.cancel_type, order.reject_reason = cancel_type, reject_reason
        order.ts_updated = now
        self._leave(order, market)
        self._clearing.say(order)

    def _leave(self, order: Order, market: Market) -> None:
        order.left = ZERO
        account = self._clearing.accounts[order.uid]
        account.reserve(order, market.listing, ZERO, ZERO)
        account.open_orders.pop(order.order_id, None)
        self._clearing.finished(order)

    # --- orders that change in the book -------------------------------------------------------------

    def shorten(self, order: Order, market: Market, left: Decimal) -> None:
        """Make an order smaller: one in the book keeps its place."""
        resting = market.book.get(order.order_id)
        if resting is not None:
            market.book.reduce(resting, resting.size - market.listing.steps(left))
            market.seq += 1
        order.quantity -= order.left - left
        order.left = left
        self._reserve(order, market)

    def lift(self, order: Order, market: Market, now: int) -> None:
        """Take an order out of the book, to enter it anew."""
        resting = market.book.get(order.order_id)
        if resting is not None:
            market.book.remove(resting)
            self._match(market, now)

    def restore(self, order: Order, market: Market) -> None:
        """Put an order back after a restart, behind those restored before it."""
        listing = market.listing
        if order.price is not None:
            steps = listing.steps(order.left)
            market.book.add(Resting(order.order_id, order.uid, order.side, listing.ticks(order.price), steps))
            self._places = max(self._places, order.place)

    def cut_reducing(self, uid: str, instrument: str, index: int, market: Market, now: int) -> None:
        """Hold resting orders that only reduce to the position there still is (`CancelByReduceOnly`)."""
        account = self._clearing.accounts[uid]
        for order in list(account.open_orders.values()):
            if order.instrument != instrument or order.position_idx != index or not order.only_reduces:
                continue
            if order.status is not Status.UNTRIGGERED:
                self._hold_to_position(order, market, now)

    def _hold_to_position(self, order: Order, market: Market, now: int) -> None:
        """Cut an order that only reduces to what there is of its position; without one it ends."""
        room = self.room(order)
        if not room:
            self.end(order, market, now, cancel_type="CancelByReduceOnly")
        elif room < order.left:
            self.shorten(order, market, room)
            order.ts_updated = now
            self._clearing.say(order)

    # --- the house ----------------------------------------------------------------------------------

    def set_house(self, market: Market, side: Side, ticks: int, steps: int, now: int) -> None:
        """Make the house's size at a price what is wanted: less keeps its place, more queues behind, and what crosses trades."""
        key = f"{HOUSE}{side:+d}{ticks}"
        resting = market.book.get(key)
        before = resting.size if resting is not None else 0
        if steps == before:
            return
        if resting is not None and steps < before:
            market.book.reduce(resting, before - steps)
            self._match(market, now)
            return
        if resting is not None:
            # One entry a price: what grows goes to the back as a whole. A client in the queue gains by it, never loses.
            market.book.remove(resting)
        wanted = steps - self._push_through(market, side, ticks, steps, now)
        if wanted > 0:
            market.book.add(Resting(key, HOUSE, side, ticks, wanted))
        self._match(market, now)

    def _push_through(self, market: Market, side: Side, ticks: int, steps: int, now: int) -> int:
        """Trade with the clients that a quote of the house would cross; its own orders on the other side give way. Steps traded."""
        left = steps
        while left > 0 and (resting := self._next(side.other, market, now)) is not None:
            if not crosses(side, ticks, resting.price):
                break
            if resting.owner == HOUSE:
                market.book.remove(resting)
            else:
                left -= self.take_house(market, side, resting.price, min(left, resting.size), now)
        return steps - left

    def take_house(self, market: Market, side: Side, limit: int | None, steps: int, now: int) -> int:
        """Let the house take from the book, its own orders included: trade between others. Returns the steps traded."""
        book, listing = market.book, market.listing
        wanted = steps
        while wanted > 0 and (resting := self._next(side.other, market, now)) is not None:
            if limit is not None and not crosses(side, limit, resting.price):
                break
            traded = min(wanted, resting.size)
            price, quantity = listing.price(resting.price), listing.quantity(traded)
            book.reduce(resting, traded)
            self._match(market, now)
            exec_id = self._clearing.ids.execution(spot=listing.is_spot)
            self._make(resting, market, quantity, price, exec_id, now)
            self._clearing.fill_house(market, side, quantity, price)
            self._print(market, exec_id, side, price, quantity, now)
            wanted -= traded
        return steps - wanted

    def size_of_house(self, market: Market, side: Side, ticks: int) -> int:
        resting = market.book.get(f"{HOUSE}{side:+d}{ticks}")
        return resting.size if resting is not None else 0

    # --- taken over ---------------------------------------------------------------------------------

    def take_over(self, order: Order, market: Market, price: Decimal, now: int, exec_type: ExecType) -> None:
        """Close what is left of an order against the house at a price of its own, outside the book."""
        quantity = order.left
        self._match(market, now)
        self._clearing.fill_house(market, order.side.other, quantity, price)
        self._clearing.fill(order, market, quantity, price, Liquidity.TAKER, now, exec_type)
        self.shrunk.append((order.uid, order.instrument, order.position_idx))
        self.fill_up(order, market, now)

    def fill_wholly(self, order: Order, market: Market, now: int) -> None:
        """Fill a resting order against the house at its own price: somebody was faster than its cancel."""
        resting = market.book.get(order.order_id)
        if resting is None:
            return
        steps, ticks = resting.size, resting.price
        price, quantity = market.listing.price(ticks), market.listing.quantity(steps)
        market.book.reduce(resting, steps)
        self._match(market, now)
        exec_id = self._clearing.ids.execution(spot=market.listing.is_spot)
        self._make(resting, market, quantity, price, exec_id, now)
        self._clearing.fill_house(market, order.side.other, quantity, price)
        self._print(market, exec_id, order.side.other, price, quantity, now)

    def touched(self) -> list[tuple[str, str, int]]:
        """The positions that have changed since this was last asked, each once."""
        changed = list(dict.fromkeys(self.shrunk))
        self.shrunk.clear()
        return changed

    def take_filled(self) -> list[tuple[Order, Decimal]]:
        """The fills of orders with exits attached since this was last asked."""
        filled, self.filled = self.filled, []
        return filled

    def say_position(self, uid: str, instrument: str, index: int) -> None:
        self._clearing.events.append(PositionChanged(uid, instrument, index))


_RESTS = frozenset({TimeInForce.GTC, TimeInForce.POST_ONLY})
_CANCELS_MAKER = frozenset({Smp.CANCEL_MAKER, Smp.CANCEL_BOTH})
_CANCELS_TAKER = frozenset({Smp.CANCEL_TAKER, Smp.CANCEL_BOTH})
_REASON_OF = {"CancelBySmp": "EC_BySelfMatch"}
