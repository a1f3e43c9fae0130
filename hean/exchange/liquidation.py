"""What happens to an account whose margin no longer covers the maintenance of what it holds.

Its orders are cancelled; then positions go to the market, the largest first, down one risk tier at a time, held to the
price at which the account would have nothing left; what the market does not take by then is taken over at that price.
Source: Bybit help centre, *Liquidation Process (Unified Trading Account)*.
"""

from decimal import Decimal

from hean.exchange.account import Holding, TradingAccount
from hean.exchange.clearing import Clearing
from hean.exchange.market import Market
from hean.exchange.matching import Matching
from hean.exchange.words import ZERO, ExecType, Liquidated, Order, OrderType
from hean.execution.margin import bankruptcy_move, tier_of
from hean.messages import Side, TimeInForce


class Liquidation:
    """Takes positions away."""

    def __init__(self, clearing: Clearing, matching: Matching) -> None:
        self._clearing = clearing
        self._matching = matching

    def fails(self, account: TradingAccount) -> bool:
        """Whether the maintenance margin rate has reached one hundred per cent."""
        if not any(True for _ in account.positions()):
            return False
        wallet = self._clearing.wallet(account)
        return wallet.margin <= wallet.maintenance

    def step(self, account: TradingAccount, now: int) -> bool:
        """Reduce the largest position of an account by a tier, or wholly. False when there is none left."""
        clearing = self._clearing
        owes = clearing.wallet(account).margin < 0

        def turn(held: tuple[str, int, Holding]) -> tuple[bool, Decimal]:
            # Where a gap has left a debt, shorts go first: they can bear no more than their value, longs all of the rest.
            name, _, holding = held
            return owes and holding.quantity < 0, abs(holding.quantity) * clearing.mark(name)

        first = max(account.positions(), key=turn, default=None)
        if first is None:
            return False
        name, index, holding = first
        market = clearing.markets[name]
        price = self._bankruptcy(account, market, holding)
        order = self._order(account, market, index, holding, self._excess(market, holding), price, now)
        side = Side.BUY if holding.quantity > 0 else Side.SELL
        self._enter(order, market, price, now)
        clearing.events.append(Liquidated(name, side, order.quantity, price, now))
        return True

    def _excess(self, market: Market, holding: Holding) -> Decimal:
        """What of a position lies above the tier below its own; all of it in the lowest."""
        instrument = market.listing.instrument
        mark = self._clearing.mark(instrument.id)
        value = abs(holding.quantity) * mark
        tiers = instrument.tiers
        at = tiers.index(tier_of(instrument, value)) if tiers else 0
        if at == 0 or not mark:
            return abs(holding.quantity)
        kept = instrument.whole_steps(tiers[at - 1].up_to / mark)
        return abs(holding.quantity) - kept

    def _bankruptcy(self, account: TradingAccount, market: Market, holding: Holding) -> Decimal:
        """The price at which closing everything, fees included, leaves nothing: to the tick that leaves a little."""
        clearing = self._clearing
        wallet = clearing.wallet(account)
        value = sum((abs(held.quantity) * clearing.mark(name) for name, _, held in account.positions()), ZERO)
        taker = float(account.rates.linear_taker)
        move = bankruptcy_move(float(wallet.margin), float(value), taker)
        mark = float(clearing.mark(market.listing.id))
        instrument = market.listing.instrument
        # The fee is taken at that price, not at the mark.
        if holding.quantity > 0:
            return max(instrument.tick, instrument.price_up(mark * (1 - move / (1 - taker))))
        return max(instrument.tick, instrument.price_down(mark * (1 + move / (1 + taker))))

    def _order(
        self,
        account: TradingAccount,
        market: Market,
        index: int,
        holding: Holding,
        quantity: Decimal,
        price: Decimal,
        now: int,
        create_type: str = "CreateByLiq",
    ) -> Order:
        order = Order(
            order_id=self._clearing.ids.order(spot=False),
            link_id="",
            uid=account.uid,
            instrument=market.listing.id,
            side=Side.SELL if holding.quantity > 0 else Side.BUY,
            kind=OrderType.MARKET,
            quantity=quantity,
            left=quantity,
            price=price,
            time_in_force=TimeInForce.IOC,
            ts_created=now,
            ts_updated=now,
            position_idx=index,
            reduce_only=True,
            create_type=create_type,
            last_on_create=market.last or ZERO,
        )
        account.open_orders[order.order_id] = order
        self._clearing.records[account.uid].orders[order.order_id] = order
        return order

    def _enter(self, order: Order, market: Market, price: Decimal, now: int) -> None:
        self._matching.take(order, market, now, ExecType.LIQUIDATION)
        if order.left > 0:
            order.create_type = "CreateByTakeOver_PassThrough"
            self._matching.take_over(order, market, price, now, ExecType.LIQUIDATION)
        else:
            self._matching.fill_up(order, market, now)

    def deleverage(self, account: TradingAccount, market: Market, index: int, quantity: Decimal, now: int) -> None:
        """Close part of a position at the mark against the house: automatic deleveraging."""
        holding = account.holding(market.listing.id, index)
        price = self._clearing.mark(market.listing.id)
        order = self._order(
            account, market, index, holding, quantity, price, now, create_type="CreateByAdl_PassThrough"
        )
        self._matching.take_over(order, market, price, now, ExecType.DELEVERAGING)

    def estimate(self, account: TradingAccount, market: Market, holding: Holding) -> Decimal | None:
        """The mark at which the account would be liquidated if only this market moved against the position; None where none would do it."""
        instrument = market.listing.instrument
        mark = self._clearing.mark(instrument.id)
        if not holding.quantity or not mark:
            return None
        # margin + held x move = maintenance + |held| x rate x move; in hedge mode both legs move.
        slope = ZERO
        for one in account.holdings[instrument.id].values():
            rate = tier_of(instrument, abs(one.quantity) * mark).maintenance_rate + account.rates.linear_taker
            slope += one.quantity - abs(one.quantity) * rate
        if slope * holding.quantity <= 0:
            return None
        wallet = self._clearing.wallet(account)
        price = mark - (wallet.margin - wallet.maintenance) / slope
        if price <= 0 or price >= _FARTHEST * mark:
            return None
        return instrument.price(float(price))


_FARTHEST = 20
"""Times the mark, beyond which an estimate is no price."""
