"""What must be true of an order before it exists: the checks that Bybit answers at once, in one place.

Each raises `Refused` with the venue's code, and changes nothing. What needs the book (a post-only order that would take, an
IOC that finds nothing) is not checked here: such an order exists, and ends.
"""

from decimal import Decimal

from hean.exchange.account import TradingAccount
from hean.exchange.clearing import Clearing, haircut
from hean.exchange.market import REDUCE_ONLY, SETTLING, Market
from hean.exchange.refusals import Refused, duplicate_link_id, invalid, no_balance, no_margin, out_of_band
from hean.exchange.triggers import Triggers, check_exits
from hean.exchange.words import ZERO, NewOrder, Order, OrderType, Status, Trigger
from hean.execution.margin import tier_of
from hean.messages import Side

MOST_ACTIVE = 500
MOST_CONDITIONAL = {"linear": 10, "spot": 30}
"""Open orders of one account in one instrument; of spot so many conditional and as many TP/SL orders (Bybit v5, *Place Order*)."""


class Entry:
    """The checks of a new order, and of one that is amended."""

    def __init__(self, clearing: Clearing, triggers: Triggers) -> None:
        self._clearing = clearing
        self._triggers = triggers

    def check(self, account: TradingAccount, market: Market, new: NewOrder) -> tuple[Decimal, Decimal | None]:
        """Say what the order's quantity and limit are, once it may exist.

        Returns:
            The quantity, cut to the position where it only reduces; and the limit: its own, or where the venue holds a
            market order to. None for a market order that waits: it is held to what there is when it fires.

        Raises:
            Refused: it may not.
        """
        listing = market.listing
        self._open_for(market, new.only_reduces)
        if new.link_id and new.link_id in account.link_ids:
            raise duplicate_link_id(spot=listing.is_spot)
        self._position_index(account, new, market)
        self._grid(market, new)
        quantity = self._reducing(account, market, new)
        limit = new.price
        if new.kind is OrderType.MARKET and new.trigger is None:
            limit = self.protected(new, market)
            if limit is None:
                raise Refused(170210 if listing.is_spot else 110118, "Market order finds no price.")
        self._sizes(market, new, quantity, limit)
        if new.price is not None and new.trigger is None:
            self._band(market, new.side, new.price)
        self._exits(market, new)
        if new.trigger is not None:
            self._trigger(market, new.trigger)
        self._count(account, market, new.stop_order_type)
        return quantity, limit

    def _open_for(self, market: Market, reduces: bool) -> None:  # noqa: FBT001 (an order's own flag)
        if market.status == REDUCE_ONLY and not reduces:
            raise Refused(110023, "Currently you can only reduce positions in this symbol.")
        if market.status == SETTLING:
            raise Refused(110063, "Settlement in progress! Not available for trading.")

    def _position_index(self, account: TradingAccount, new: NewOrder, market: Market) -> None:
        allowed = (0,) if market.listing.is_spot else account.indices(new.instrument)
        if new.position_idx not in allowed:
            raise Refused(10001, "position idx not match position mode")

    def _grid(self, market: Market, new: NewOrder) -> None:
        """The price must be on the tick, the quantity on the step."""
        listing, instrument = market.listing, market.listing.instrument
        if new.price is not None and (new.price <= 0 or new.price % instrument.tick):
            if listing.is_spot and new.price > 0:
                raise Refused(170134, f"Order price has too many decimals: it moves in {instrument.tick:f}.")
            raise invalid(f"price {new.price:f} is not a positive multiple of {instrument.tick:f}")
        if new.in_quote:
            return
        if new.quantity < 0 or new.quantity % instrument.step:
            if listing.is_spot and new.quantity > 0:
                raise Refused(170137, f"Order quantity has too many decimals: it moves in {instrument.step:f}.")
            raise Refused(10001, f"Qty invalid: {new.quantity:f} is not a positive multiple of {instrument.step:f}")

    def _reducing(self, account: TradingAccount, market: Market, new: NewOrder) -> Decimal:
        """The quantity, no more than the position where it only reduces."""
        closes_all = new.quantity == 0 and new.reduce_only and new.close_on_trigger and not market.listing.is_spot
        if new.quantity == 0 and not closes_all:
            raise Refused(10001, "Qty invalid: it must be above zero")
        if market.listing.is_spot:
            return new.quantity
        held = account.quantity(new.instrument, new.position_idx)
        if not new.only_reduces or (new.trigger is not None and not closes_all):
            # A conditional one is held to the position it finds when it fires.
            return new.quantity
        if held == 0:
            raise Refused(110017, "current position is zero, cannot fix reduce-only order qty")
        if held * new.side > 0:
            raise Refused(110017, "reduce-only order has same side with current position")
        instrument = market.listing.instrument
        most = instrument.max_market_quantity if new.kind is OrderType.MARKET else instrument.max_limit_quantity
        return min(abs(held), most) if closes_all else min(new.quantity, abs(held))

    def protected(self, new: NewOrder | Order, market: Market) -> Decimal | None:
        """Where a market order is held to: so far from the mark, or as far as the client says."""
        tick = market.listing.instrument.tick
        best = market.best(Side.SELL if new.side is Side.BUY else Side.BUY)
        if new.slippage is not None and best is not None:
            distance = new.slippage * tick if new.slippage_type == "TickSize" else best * new.slippage / 100
            return max(tick, (best + distance * new.side) // tick * tick)
        bounds = market.within(market.listing.market_band)
        if bounds is None:
            return None
        return bounds[0] if new.side is Side.BUY else bounds[1]

    def _sizes(self, market: Market, new: NewOrder, quantity: Decimal, limit: Decimal | None) -> None:
        instrument = market.listing.instrument
        spot = market.listing.is_spot
        price = limit if new.kind is OrderType.LIMIT else market.mark
        if new.in_quote:
            self._amount(market, quantity)
            return
        most = instrument.max_market_quantity if new.kind is OrderType.MARKET else instrument.max_limit_quantity
        if quantity > most:
            if spot:
                raise Refused(170341, "Order quantity exceeded upper limit.")
            raise Refused(10001, f"The number of contracts exceeds maximum limit allowed: {most:f}")
        if new.only_reduces:
            return
        if not spot and quantity < instrument.min_quantity:
            raise Refused(10001, "The number of contracts exceeds minimum limit allowed")
        if price is not None and quantity * price < instrument.min_notional:
            if spot:
                raise Refused(170140, "Order value exceeded lower limit.")
            raise Refused(110094, f"Order notional value below the lower limit {instrument.min_notional:f}")

    def _amount(self, market: Market, amount: Decimal) -> None:
        """A market buy of spot is given as a sum of quote currency."""
        instrument = market.listing.instrument
        if amount < instrument.min_notional:
            raise Refused(170140, "Order value exceeded lower limit.")
        if market.last is not None and amount > instrument.max_market_quantity * market.last:
            raise Refused(170124, "Order amount is too large.")

    def _band(self, market: Market, side: Side, price: Decimal) -> None:
        """A bid may not be too high, nor an offer too low."""
        bounds = market.bounds()
        if bounds is None:
            return
        bound = bounds[0] if side is Side.BUY else bounds[1]
        if (price - bound) * side > 0:
            quote = market.listing.instrument.quote
            raise out_of_band(spot=market.listing.is_spot, buys=side is Side.BUY, bound=bound, quote=quote)

    def _exits(self, market: Market, new: NewOrder) -> None:
        if new.take_profit is None and new.stop_loss is None:
            return
        if new.reduce_only:
            raise invalid("a reduce-only order takes no takeProfit or stopLoss")
        check_exits(market, new.side, new.take_profit, new.stop_loss, exits_from(new, market))

    def _trigger(self, market: Market, trigger: Trigger) -> None:
        """A rising trigger lies above the price it watches, a falling one below."""
        if trigger.price <= 0 or trigger.price % market.listing.instrument.tick:
            raise invalid(f"triggerPrice {trigger.price:f} is not on the tick")
        price = market.price(trigger.by)
        if price is None or market.listing.is_spot:
            return
        scaled = 10**market.listing.price_places
        if trigger.rising and trigger.price <= price:
            said = f"trigger_price[{int(trigger.price * scaled)}] <= current[{int(price * scaled)}]??{trigger.by}"
            raise Refused(110092, f"expect Rising, but {said}")
        if not trigger.rising and trigger.price >= price:
            said = f"trigger_price[{int(trigger.price * scaled)}] >= current[{int(price * scaled)}]??{trigger.by}"
            raise Refused(110093, f"expect Falling, but {said}")

    def _count(self, account: TradingAccount, market: Market, stop_order_type: str) -> None:
        name, spot = market.listing.id, market.listing.is_spot
        if stop_order_type:
            alike = sum(order.stop_order_type == stop_order_type for order in self._triggers.waiting(account.uid, name))
            if alike >= MOST_CONDITIONAL[market.listing.category]:
                raise Refused(
                    170810 if spot else 110009, "The number of stop orders exceeds the maximum allowable limit."
                )
        if len(account.open_orders) >= MOST_ACTIVE:
            active = sum(1 for order in account.open_orders.values() if order.instrument == name)
            if active >= MOST_ACTIVE:
                raise Refused(170810 if spot else 110020, "Not allowed to have more than 500 active orders.")

    def check_fired(self, order: Order, market: Market) -> None:
        """Check what could not be known of a conditional order before its price came.

        Raises:
            Refused: it may not enter the book.
        """
        self._open_for(market, order.only_reduces)
        if order.kind is OrderType.LIMIT and order.price is not None:
            self._band(market, order.side, order.price)

    def recheck(self, wanted: Order, market: Market, *, moved: bool) -> None:
        """Check an order as it would be after an amendment.

        Raises:
            Refused: it may not be so.
        """
        as_new = NewOrder(
            instrument=wanted.instrument,
            side=wanted.side,
            kind=wanted.kind,
            quantity=wanted.quantity,
            price=wanted.price if wanted.kind is OrderType.LIMIT else None,
            reduce_only=wanted.only_reduces,
            in_quote=wanted.in_quote,
        )
        self._grid(market, as_new)
        self._sizes(market, as_new, wanted.quantity, wanted.price)
        if wanted.trigger is not None and wanted.status is Status.UNTRIGGERED:
            self._trigger(market, wanted.trigger)
        elif moved and wanted.price is not None:
            self._band(market, wanted.side, wanted.price)

    # --- whether it can be paid ---------------------------------------------------------------------

    def afford(self, account: TradingAccount, market: Market, order: Order, left: Decimal, price: Decimal) -> None:
        """Set aside what `left` of an order asks for at `price`.

        Raises:
            Refused: the account has not got it. Then nothing is set aside that was not before.
        """
        if market.listing.is_spot:
            self._afford_coins(account, market, order, left, price)
            return
        if order.only_reduces:
            return
        reserved = order.reserved
        before = self._clearing.wallet(account)
        account.reserve(order, market.listing, left, price)
        after = self._clearing.wallet(account)
        held = account.quantity(order.instrument, order.position_idx) * order.side
        grown = account.reserved[order.instrument][order.side] + held * self._clearing.mark(order.instrument)
        tier = tier_of(market.listing.instrument, grown)
        if grown > tier.up_to:
            self._give_back(account, market, order, reserved)
            raise Refused(110090, f"The order exceeds the largest position of {tier.up_to:f}.")
        if after.available < 0 and after.initial > before.initial:
            self._give_back(account, market, order, reserved)
            raise no_margin()

    def _afford_coins(
        self, account: TradingAccount, market: Market, order: Order, left: Decimal, price: Decimal
    ) -> None:
        instrument = market.listing.instrument
        reserved = order.reserved
        coin = instrument.quote if order.side is Side.BUY else instrument.base
        account.reserve(order, market.listing, left, price)
        short = account.free(coin) < 0
        if not short and order.side is Side.BUY and any(True for _ in account.positions()):
            # Money turned into a coin carries less margin: what positions need must still be there once all has been bought.
            short = self._clearing.wallet(account).available < account.locked[coin] * haircut(instrument.base)
        if short:
            self._give_back(account, market, order, reserved)
            raise no_balance()

    def _give_back(self, account: TradingAccount, market: Market, order: Order, reserved: Decimal) -> None:
        """Set aside what was so before: as many units of one."""
        account.reserve(order, market.listing, reserved, Decimal(1))

    @staticmethod
    def price_asked(order: Order, market: Market) -> Decimal:
        """What an order is taken to trade at while its margin is looked at: its limit, or the market where that is dearer."""
        mark = market.mark or ZERO
        if order.kind is OrderType.MARKET:
            return order.price if market.listing.is_spot and order.price is not None else mark
        limit = order.price if order.price is not None else mark
        return max(limit, mark) if order.side is Side.SELL and not market.listing.is_spot else limit


def exits_from(order: NewOrder | Order, market: Market) -> Decimal | None:
    """The price that exits of an order must lie beyond: about what it will trade at."""
    if order.price is not None:
        return order.price
    return order.trigger.price if order.trigger is not None else market.last
