"""Orders that wait for a price: conditionals, take-profits, stop-losses and trailing stops.

An exit of a position is an order like any other, which only reduces and waits for its trigger. One of full size closes
whatever the position is when it fires. Source: Bybit v5, *Place Order*, *Set Trading Stop*; help centre, *TP/SL*.
"""

from collections.abc import Iterator
from decimal import Decimal

from hean.exchange.account import Holding
from hean.exchange.clearing import Clearing
from hean.exchange.market import Market
from hean.exchange.matching import Matching
from hean.exchange.refusals import Refused, invalid, not_modified
from hean.exchange.words import (
    ZERO,
    Exit,
    Order,
    OrderFilter,
    OrderType,
    Status,
    TpslMode,
    TradingStop,
    Trigger,
    TriggerBy,
)
from hean.messages import Side, TimeInForce


class Triggers:
    """Every order that waits, by instrument."""

    def __init__(self, clearing: Clearing, matching: Matching) -> None:
        self._clearing = clearing
        self._matching = matching
        self._waiting: dict[str, dict[str, Order]] = {}
        self._looked_at: dict[str, tuple[Decimal | None, ...]] = {}

    def wait(self, order: Order) -> None:
        order.status = Status.UNTRIGGERED
        self.restore(order)
        self._clearing.say(order)

    def restore(self, order: Order) -> None:
        self._waiting.setdefault(order.instrument, {})[order.order_id] = order
        self.look_again(order.instrument)

    def look_again(self, instrument: str) -> None:
        """What waits there has changed: that no price has moved since the last look says nothing."""
        self._looked_at.pop(instrument, None)

    def forget(self, order: Order) -> None:
        self._waiting.get(order.instrument, {}).pop(order.order_id, None)

    def waiting(self, uid: str, instrument: str) -> Iterator[Order]:
        return (order for order in self._waiting.get(instrument, {}).values() if order.uid == uid)

    def due(self, market: Market) -> list[Order]:
        """The orders whose price has come, in the order they were made; they wait no longer."""
        waiting = self._waiting.get(market.listing.id)
        prices = tuple(market.price(by) for by in TriggerBy)
        if not waiting or self._looked_at.get(market.listing.id) == prices:
            return []
        self._looked_at[market.listing.id] = prices
        fired = []
        for order in list(waiting.values()):
            if order.trailing is not None:
                self._follow(order, market)
            trigger = order.trigger
            price = market.price(trigger.by) if trigger is not None else None
            if trigger is None or price is None:
                continue
            if price >= trigger.price if trigger.rising else price <= trigger.price:
                del waiting[order.order_id]
                fired.append(order)
        return fired

    def _follow(self, order: Order, market: Market) -> None:
        """Let a trailing stop follow the last price: it only ever moves the way the position gains."""
        last = market.last
        if last is None or order.trailing is None:
            return
        gains = -order.side
        if order.trigger is None and order.active_price is not None and (last - order.active_price) * gains < 0:
            return
        stop = last - order.trailing * gains
        if order.trigger is None or (stop - order.trigger.price) * gains > 0:
            order.trigger = Trigger(stop, rising=order.side is Side.BUY, by=TriggerBy.LAST)

    def fire(self, order: Order, market: Market, now: int) -> bool:
        """Make a waiting order ready to enter the book. False when there is nothing for it to do: then it has ended."""
        account = self._clearing.accounts[order.uid]
        sibling = account.open_orders.get(order.sibling)
        if sibling is not None:
            self.withdraw(sibling, market, now)
        if order.only_reduces:
            room = self._matching.room(order)
            order.left = room if order.whole else min(order.left, room)
            order.quantity = order.filled + order.left
            self._unlink(order)
            if not order.left:
                cleared = "CancelByTpSlTsClear" if order.stop_order_type in _EXITS else "CancelByReduceOnly"
                self._matching.end(order, market, now, cancel_type=cleared)
                return False
        order.status = Status.TRIGGERED
        if order.create_type == "CreateByUser":
            order.create_type = "CreateByStopOrder"
        order.ts_updated = now
        return True

    def withdraw(self, order: Order, market: Market, now: int, cancel_type: str = "CancelByTpSlTsClear") -> None:
        """Cancel an order that waits."""
        self.forget(order)
        self._unlink(order)
        self._matching.end(order, market, now, cancel_type=cancel_type)

    def _unlink(self, order: Order) -> None:
        held = self._clearing.accounts[order.uid].holdings.get(order.instrument, {}).get(order.position_idx)
        if held is not None:
            if held.take_profit == order.order_id:
                held.take_profit = ""
            if held.stop_loss == order.order_id:
                held.stop_loss = ""
            if held.trailing == order.order_id:
                held.trailing = ""

    # --- exits of a position ------------------------------------------------------------------------

    def follow_position(self, uid: str, index: int, market: Market, now: int) -> None:
        """Show on exits of full size what they would close now; clear those whose position is gone, or has turned over."""
        held = self._clearing.accounts[uid].quantity(market.listing.id, index)
        for order in list(self.waiting(uid, market.listing.id)):
            if order.position_idx != index:
                continue
            if held * order.side >= 0:
                if order.stop_order_type in _EXITS:
                    self.withdraw(order, market, now)
            elif order.whole and order.quantity != abs(held):
                order.quantity = order.left = abs(held)
                order.ts_updated = now
                self._clearing.say(order)

    def attach(self, order: Order, quantity: Decimal, market: Market, now: int) -> None:
        """Set the exits that came with an order, now that `quantity` of it has filled."""
        take, stop = order.take_profit, order.stop_loss
        if market.listing.is_spot:
            if order.status is Status.FILLED and not order.children:
                self._pair(order, take, stop, self._received(order, market), market, now)
            return
        holding = self._clearing.accounts[order.uid].holding(order.instrument, order.position_idx)
        if holding.quantity * order.side <= 0:
            # It has closed; there is nothing of its own to leave.
            return
        if order.tpsl_mode is TpslMode.PARTIAL:
            opened = min(quantity, abs(holding.quantity))
            if not self._grow(order, opened, now):
                self._pair(order, take, stop, opened, market, now)
            return
        for exit_, kind in ((take, "TakeProfit"), (stop, "StopLoss")):
            if exit_ is not None:
                self._set_whole(order.uid, holding, order.position_idx, kind, exit_, market, now)

    def _received(self, order: Order, market: Market) -> Decimal:
        """What a filled spot order leaves to sell, or what it sold, in whole steps."""
        instrument = market.listing.instrument
        net = order.filled - order.fees.get(instrument.base, ZERO) if order.side is Side.BUY else order.filled
        return instrument.whole_steps(net)

    def _pair(
        self, order: Order, take: Exit | None, stop: Exit | None, quantity: Decimal, market: Market, now: int
    ) -> None:
        """Make a take-profit and a stop-loss of their own size; each knows the other."""
        if quantity <= 0:
            return
        spot = market.listing.is_spot
        both = take is not None and stop is not None
        made: list[Order] = []
        for exit_, kind in ((take, "PartialTakeProfit"), (stop, "PartialStopLoss")):
            if exit_ is None:
                continue
            name = ("OcoOrder" if both else "tpslOrder") if spot else kind
            child = self._exit(order.uid, order.instrument, order.position_idx, -order.side, name, exit_, quantity, now)
            child.trigger = Trigger(
                exit_.price, rising=(kind == "PartialTakeProfit") is (order.side is Side.BUY), by=exit_.by
            )
            child.parent_link_id = order.link_id
            if spot:
                child.order_filter = OrderFilter.TPSL
                child.reduce_only = child.close_on_trigger = False
            made.append(child)
        if both:
            made[0].sibling, made[1].sibling = made[1].order_id, made[0].order_id
        for child in made:
            self._keep(child)
        order.children = tuple(child.order_id for child in made)

    def _grow(self, order: Order, quantity: Decimal, now: int) -> bool:
        """Enlarge the exits that an earlier fill of an order has made. False where none are left."""
        account = self._clearing.accounts[order.uid]
        grown = False
        for order_id in order.children:
            child = account.open_orders.get(order_id)
            if child is not None and child.status is Status.UNTRIGGERED:
                child.quantity += quantity
                child.left += quantity
                child.ts_updated = now
                self._clearing.say(child)
                grown = True
        return grown

    def set_on(self, uid: str, wanted: TradingStop, market: Market, now: int) -> None:
        """Set, change or remove the exits of a position (v5, *Set Trading Stop*).

        Raises:
            Refused: there is no position, an exit is on the wrong side of the price, or nothing would change.
        """
        holding = self._clearing.accounts[uid].holding(wanted.instrument, wanted.position_idx)
        if not holding.quantity:
            raise Refused(10001, "can not set tp/sl/ts for zero position")
        side = Side.BUY if holding.quantity > 0 else Side.SELL
        check_exits(market, side, wanted.take_profit, wanted.stop_loss, market.mark)
        if wanted.mode is TpslMode.PARTIAL:
            self._set_partial(uid, wanted, holding, side, market, now)
            return
        trails = self._clearing.accounts[uid].open_orders.get(holding.trailing)
        if not _trails_so(trails, wanted):
            _check_trailing(market, side, wanted)
        changed = False
        for exit_, kind in ((wanted.take_profit, "TakeProfit"), (wanted.stop_loss, "StopLoss")):
            if exit_ is not None:
                changed |= self._set_whole(uid, holding, wanted.position_idx, kind, exit_, market, now)
        if wanted.trailing is not None:
            changed |= self._set_trailing(uid, holding, wanted, side, market, now)
        if not changed:
            raise not_modified()
        holding.ts_updated = now
        self._matching.say_position(uid, wanted.instrument, wanted.position_idx)

    def _set_partial(
        self, uid: str, wanted: TradingStop, holding: Holding, side: Side, market: Market, now: int
    ) -> None:
        exits = (
            (wanted.take_profit, wanted.take_size, "PartialTakeProfit"),
            (wanted.stop_loss, wanted.stop_size, "PartialStopLoss"),
        )
        made = []
        for exit_, size, kind in exits:
            if exit_ is None or not exit_.price:
                continue
            if size is None or not 0 < size <= abs(holding.quantity) or size % market.listing.instrument.step:
                raise invalid("tpSize and slSize must be whole steps, above zero and no more than the position")
            child = self._exit(uid, wanted.instrument, wanted.position_idx, -side, kind, exit_, size, now)
            child.trigger = Trigger(
                exit_.price, rising=(kind == "PartialTakeProfit") is (side is Side.BUY), by=exit_.by
            )
            made.append(child)
        if not made:
            raise not_modified()
        if len(made) == 2:
            if made[0].quantity != made[1].quantity:
                raise invalid("tpSize and slSize must be equal")
            made[0].sibling, made[1].sibling = made[1].order_id, made[0].order_id
        for child in made:
            self._keep(child)
        self._matching.say_position(uid, wanted.instrument, wanted.position_idx)

    def _set_whole(
        self, uid: str, holding: Holding, index: int, kind: str, exit_: Exit, market: Market, now: int
    ) -> bool:
        """Set one exit of full size; price 0 removes it. Returns whether that changed anything."""
        account = self._clearing.accounts[uid]
        standing = account.open_orders.get(holding.take_profit if kind == "TakeProfit" else holding.stop_loss)
        side = Side.BUY if holding.quantity > 0 else Side.SELL
        rising = (kind == "TakeProfit") is (side is Side.BUY)
        trigger = Trigger(exit_.price, rising=rising, by=exit_.by)
        if standing is None and not exit_.price:
            return False
        if standing is not None:
            if exit_.price and standing.trigger == trigger and _limit_of(standing) == exit_.limit:
                return False
            self.withdraw(standing, market, now)
        if not exit_.price:
            return True
        made = self._exit(uid, market.listing.id, index, -side, kind, exit_, abs(holding.quantity), now)
        made.trigger, made.whole, made.tpsl_mode = trigger, True, TpslMode.FULL
        if kind == "TakeProfit":
            holding.take_profit = made.order_id
        else:
            holding.stop_loss = made.order_id
        self._keep(made)
        return True

    def _set_trailing(
        self, uid: str, holding: Holding, wanted: TradingStop, side: Side, market: Market, now: int
    ) -> bool:
        standing = self._clearing.accounts[uid].open_orders.get(holding.trailing)
        if _trails_so(standing, wanted):
            return False
        if standing is not None:
            self.withdraw(standing, market, now)
        if not wanted.trailing:
            return standing is not None
        made = self._exit(
            uid, wanted.instrument, wanted.position_idx, -side, "TrailingStop", Exit(ZERO), abs(holding.quantity), now
        )
        made.whole, made.trailing, made.active_price = True, wanted.trailing, wanted.active_price
        made.tpsl_mode = TpslMode.FULL
        holding.trailing = made.order_id
        self._keep(made)
        self._follow(made, market)
        return True

    def _exit(
        self, uid: str, instrument: str, index: int, side: int, kind: str, exit_: Exit, quantity: Decimal, now: int
    ) -> Order:
        market = self._clearing.markets[instrument]
        limited = exit_.limit is not None and exit_.limit > 0
        return Order(
            order_id=self._clearing.ids.order(spot=market.listing.is_spot),
            link_id="",
            uid=uid,
            instrument=instrument,
            side=Side(side),
            kind=OrderType.LIMIT if limited else OrderType.MARKET,
            quantity=quantity,
            left=quantity,
            price=exit_.limit if limited else None,
            time_in_force=TimeInForce.GTC if limited else TimeInForce.IOC,
            ts_created=now,
            ts_updated=now,
            position_idx=index,
            reduce_only=True,
            close_on_trigger=True,
            tpsl_mode=TpslMode.PARTIAL,
            stop_order_type=kind,
            create_type=_CREATE_TYPE.get(kind, "CreateByUser"),
            last_on_create=market.last or ZERO,
        )

    def _keep(self, order: Order) -> None:
        self._clearing.accounts[order.uid].open_orders[order.order_id] = order
        self._clearing.records[order.uid].orders[order.order_id] = order
        self.wait(order)


def check_exits(market: Market, side: Side, take: Exit | None, stop: Exit | None, base: Decimal | None) -> None:
    """Refuse exits on the wrong side of a price, or off the tick.

    Raises:
        Refused: a take-profit that would lose, a stop-loss that would gain, or a price between two ticks.
    """
    tick = market.listing.instrument.tick
    word = "Buy" if side is Side.BUY else "Sell"
    for exit_, name, sign in ((take, "TakeProfit", 1), (stop, "StopLoss", -1)):
        if exit_ is None or not exit_.price:
            continue
        if exit_.price % tick or (exit_.limit is not None and exit_.limit % tick):
            raise invalid(f"{name}: its prices move in {tick:f}")
        if base is not None and (exit_.price - base) * side * sign <= 0:
            higher = "higher" if (side * sign) > 0 else "lower"
            raise Refused(
                10001, f"{name}:{exit_.price:f} set for {word} position should be {higher} than base_price:{base:f}"
            )


def _trails_so(trails: Order | None, wanted: TradingStop) -> bool:
    """Whether a trailing stop stands as it is wanted."""
    return trails is not None and (trails.trailing, trails.active_price) == (wanted.trailing, wanted.active_price)


def _check_trailing(market: Market, side: Side, wanted: TradingStop) -> None:
    """Refuse a trailing stop between two ticks, or one that would be active from a price already passed."""
    if not wanted.trailing:
        return
    tick = market.listing.instrument.tick
    if wanted.trailing % tick or (wanted.active_price is not None and wanted.active_price % tick):
        raise invalid(f"trailingStop and activePrice move in {tick:f}")
    if wanted.active_price is None or market.last is None:
        return
    if (wanted.active_price - market.last) * side <= 0:
        raise invalid("activePrice must lie beyond the last price, the way the position gains")


def _limit_of(order: Order) -> Decimal | None:
    return order.price if order.kind is OrderType.LIMIT else None


_EXITS = frozenset({"TakeProfit", "StopLoss", "TrailingStop", "PartialTakeProfit", "PartialStopLoss"})
_CREATE_TYPE = {
    "TakeProfit": "CreateByTakeProfit",
    "StopLoss": "CreateByStopLoss",
    "TrailingStop": "CreateByTrailingStop",
    "PartialTakeProfit": "CreateByPartialTakeProfit",
    "PartialStopLoss": "CreateByPartialStopLoss",
}
