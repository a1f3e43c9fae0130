"""The exchange: everything that a client, the market or the passing of time can do to it.

Each call either raises `Refused` and has changed nothing, or has happened wholly. What it set going is collected in
order and taken by `drain`. The parts:

    entry        what must be true of an order before it exists
    matching     orders meet, price first and then time
    triggers     orders that wait for a price, and the exits of positions
    clearing     the money of it all
    liquidation  what happens when the money is gone
"""

from bisect import insort
from collections.abc import Iterable, Mapping
from decimal import Decimal
from operator import itemgetter

from msgspec.structs import replace

from hean.exchange.account import HEDGE, ONE_WAY, Leverage, TradingAccount, Wallet, Window
from hean.exchange.clearing import HOUSE, Clearing, Records
from hean.exchange.entry import Entry, exits_from
from hean.exchange.ids import Ids
from hean.exchange.liquidation import Liquidation
from hean.exchange.market import Market
from hean.exchange.matching import Matching
from hean.exchange.pricing import impact_notional, impact_price
from hean.exchange.refusals import Refused, invalid, unknown_order
from hean.exchange.triggers import Triggers, check_exits
from hean.exchange.words import (
    ZERO,
    AccountChanged,
    Amendment,
    Event,
    Exit,
    NewOrder,
    Order,
    OrderFilter,
    OrderType,
    PositionChanged,
    Status,
    TradingStop,
    Which,
)
from hean.execution.margin import tier_of
from hean.messages import Side

__all__ = ["HOUSE", "Exchange", "Records"]


class Exchange:
    """Accounts and markets, and the rules between them.

    Args:
        markets: By instrument.
        ids: What names orders and executions; continued after a restart.

    `entry_delay_ns` holds orders up before they meet the book, and `race_next_cancel` lets the next cancel come too late:
    both for drills.
    """

    def __init__(self, markets: Mapping[str, Market], ids: Ids) -> None:
        self.markets = markets
        self.ids = ids
        self.entry_delay_ns = 0
        self.race_next_cancel = False
        self._clearing = Clearing(markets, ids)
        self._matching = Matching(self._clearing)
        self._triggers = Triggers(self._clearing, self._matching)
        self._entry = Entry(self._clearing, self._triggers)
        self._liquidation = Liquidation(self._clearing, self._matching)
        self._late: list[tuple[int, Order]] = []

    @property
    def accounts(self) -> dict[str, TradingAccount]:
        return self._clearing.accounts

    @property
    def records(self) -> dict[str, Records]:
        return self._clearing.records

    @property
    def fees(self) -> dict[str, Decimal]:
        """What clients have paid in fees, by coin; rebates lessen it."""
        return self._clearing.fees

    @property
    def issued(self) -> dict[str, Decimal]:
        """What was ever paid into accounts, by coin."""
        return self._clearing.issued

    def drain(self) -> list[Event]:
        """Take what has happened since this was last called, in order."""
        events = self._clearing.events
        self._clearing.events = []
        return events

    # --- accounts -----------------------------------------------------------------------------------

    def open_account(self, uid: str, balances: Mapping[str, Decimal], now: int) -> TradingAccount:
        if uid in self.accounts:
            raise invalid(f"account {uid} exists already")
        return self._clearing.open_account(uid, balances, now)

    def wallet(self, uid: str) -> Wallet:
        return self._clearing.wallet(self.accounts[uid])

    def worth(self, coin: str) -> Decimal | None:
        """What one of a coin is worth in USDT; None while nobody says."""
        return self._clearing.worth(coin)

    def liquidation_price(self, uid: str, instrument: str, index: int) -> Decimal | None:
        """The mark that would end the account if only this market moved; None where none would, or the position is flat."""
        account = self.accounts[uid]
        holding = account.holdings.get(instrument, {}).get(index)
        return self._liquidation.estimate(account, self.markets[instrument], holding) if holding is not None else None

    # --- orders -------------------------------------------------------------------------------------

    def create(self, uid: str, new: NewOrder, now: int) -> Order:
        """Take a new order. What becomes of it is told by events: an order that takes may be finished when this returns."""
        account, market = self.accounts[uid], self._market(new.instrument)
        order = self._made(account, market, new, now)
        waits = new.trigger is not None
        if not waits or new.order_filter is OrderFilter.TPSL:
            self._entry.afford(account, market, order, order.left, self._entry.price_asked(order, market))
        if new.link_id:
            account.link_ids[new.link_id] = order.order_id
        account.open_orders[order.order_id] = order
        self.records[uid].orders[order.order_id] = order
        self._clearing.events.append(AccountChanged(uid))
        if waits:
            self._triggers.wait(order)
        else:
            self._admit(order, market, now)
        self._look_after(now)
        return order

    def _market(self, instrument: str) -> Market:
        market = self.markets.get(instrument)
        if market is None:
            raise invalid("symbol invalid")
        return market

    def _made(self, account: TradingAccount, market: Market, new: NewOrder, now: int) -> Order:
        quantity, limit = self._entry.check(account, market, new)
        spot = market.listing.is_spot
        return Order(
            order_id=self.ids.order(spot=spot),
            link_id=new.link_id,
            uid=account.uid,
            instrument=new.instrument,
            side=new.side,
            kind=new.kind,
            quantity=quantity,
            left=quantity,
            price=limit,
            time_in_force=new.time_in_force,
            ts_created=now,
            ts_updated=now,
            position_idx=new.position_idx,
            reduce_only=new.reduce_only,
            close_on_trigger=new.close_on_trigger,
            trigger=new.trigger,
            take_profit=new.take_profit,
            stop_loss=new.stop_loss,
            tpsl_mode=new.tpsl_mode if new.take_profit or new.stop_loss else None,
            smp=new.smp,
            in_quote=new.in_quote,
            order_filter=new.order_filter,
            leveraged=new.leveraged,
            slippage_type=new.slippage_type,
            slippage=new.slippage,
            stop_order_type=new.stop_order_type,
            last_on_create=market.last or ZERO,
            whole=new.close_on_trigger and new.reduce_only and new.quantity == 0,
        )

    def _admit(self, order: Order, market: Market, now: int) -> None:
        """Let an order meet the book: at once, or late where a drill holds it up."""
        if self.entry_delay_ns:
            insort(self._late, (now + self.entry_delay_ns, order), key=itemgetter(0))
            self._clearing.say(order)
        else:
            self._matching.enter(order, market, now)

    def pre_check(self, uid: str, new: NewOrder, now: int) -> tuple[Wallet, Wallet]:
        """The account as it is, and as it would be with an order; nothing remains of it.

        Raises:
            Refused: the order would not be taken.
        """
        account, market = self.accounts[uid], self._market(new.instrument)
        before = self.wallet(uid)
        counted = self.ids.orders
        order = self._made(account, market, new, now)
        self.ids.orders = counted
        self._entry.afford(account, market, order, order.left, self._entry.price_asked(order, market))
        after = self.wallet(uid)
        account.reserve(order, market.listing, ZERO, ZERO)
        return before, after

    def find(self, uid: str, which: Which) -> Order | None:
        """An order in any state; None where the account never had it in this instrument."""
        order_id = which.order_id or self.accounts[uid].link_ids.get(which.link_id, "")
        order = self.records[uid].orders.get(order_id)
        return order if order is not None and order.instrument == which.instrument else None

    def _open_order(self, uid: str, which: Which, action: str) -> Order:
        if not which.order_id and not which.link_id:
            raise invalid("OrderId or orderLinkId is required")
        order = self.find(uid, which)
        if order is None or not order.status.is_open:
            raise unknown_order(action, spot=self._market(which.instrument).listing.is_spot)
        return order

    def cancel(self, uid: str, which: Which, now: int) -> Order:
        market = self._market(which.instrument)
        order = self._open_order(uid, which, "cancel")
        if self.race_next_cancel and market.book.get(order.order_id) is not None:
            self.race_next_cancel = False
            self._lose_race(order, market, now)
        else:
            self._withdraw(order, market, now, "CancelByUser", "EC_PerCancelRequest")
        self._look_after(now)
        return order

    def _lose_race(self, order: Order, market: Market, now: int) -> None:
        """Fill an order before its cancel arrives: the venue then says twice that it is finished (Bybit v5, *Order* stream)."""
        self._matching.fill_wholly(order, market, now)
        order.cancel_type, order.reject_reason = "CancelByUser", "EC_OrigClOrdIDDoesNotExist"
        self._clearing.say(order)

    def _withdraw(self, order: Order, market: Market, now: int, cancel_type: str, reason: str) -> None:
        if order.status is Status.UNTRIGGERED:
            self._triggers.withdraw(order, market, now, cancel_type)
        else:
            self._matching.end(order, market, now, cancel_type=cancel_type, reject_reason=reason)

    def cancel_all(
        self,
        uid: str,
        instruments: Iterable[str],
        now: int,
        *,
        order_filter: OrderFilter | None = None,
        stop_order_type: str = "",
        cancel_type: str = "CancelByUser",
    ) -> list[Order]:
        """Cancel the open orders of some instruments: all of them, or those of a kind."""
        wanted = set(instruments)
        canceled = []
        for order in list(self.accounts[uid].open_orders.values()):
            if order.instrument not in wanted or not (order_filter is None or self._is_of(order, order_filter)):
                continue
            if stop_order_type and order.stop_order_type != stop_order_type:
                continue
            if order.order_id in self.accounts[uid].open_orders:
                self._withdraw(order, self.markets[order.instrument], now, cancel_type, "EC_PerCancelRequest")
                canceled.append(order)
        self._look_after(now)
        return canceled

    def _is_of(self, order: Order, order_filter: OrderFilter) -> bool:
        """Whether a filter means an order. Spot knows two kinds that wait, derivatives one."""
        if order.status is not Status.UNTRIGGERED:
            return order_filter is OrderFilter.ORDER
        if self.markets[order.instrument].listing.is_spot:
            return order_filter is order.order_filter
        return order_filter is not OrderFilter.ORDER

    def amend(self, uid: str, amendment: Amendment, now: int) -> Order:
        """Change an open order: a new price or a larger quantity goes to the back of the queue, a smaller one keeps its place."""
        market = self._market(amendment.which.instrument)
        order = self._open_order(uid, amendment.which, "replace")
        wanted = self._amended(order, market, amendment)
        account = self.accounts[uid]
        waits = order.status is Status.UNTRIGGERED
        changed = wanted.price != order.price or wanted.left != order.left
        if changed and (not waits or order.reserved):
            asked = self._entry.price_asked(wanted, market)
            self._entry.afford(account, market, order, wanted.left, asked)
        moved = wanted.price != order.price or wanted.left > order.left
        shorter = wanted.left < order.left
        if amendment.take_profit is not None:
            order.take_profit = amendment.take_profit if amendment.take_profit.price else None
        if amendment.stop_loss is not None:
            order.stop_loss = amendment.stop_loss if amendment.stop_loss.price else None
        order.trigger, order.price, order.ts_updated = wanted.trigger, wanted.price, now
        self._triggers.look_again(order.instrument)
        if waits or (moved and market.book.get(order.order_id) is None):
            order.quantity, order.left = wanted.quantity, wanted.left
            self._clearing.say(order)
        elif moved:
            self._matching.lift(order, market, now)
            order.quantity, order.left = wanted.quantity, wanted.left
            self._matching.enter(order, market, now)
        else:
            if shorter:
                self._matching.shorten(order, market, wanted.left)
            self._clearing.say(order)
        self._look_after(now)
        return order

    def _amended(self, order: Order, market: Market, amendment: Amendment) -> Order:
        """A copy of the order as it is asked to be, checked."""
        if not _changes(order, amendment):
            raise Refused(10001, "The order remains unchanged as the parameters entered match the existing ones.")
        wanted = replace(order, fees=dict(order.fees))
        if amendment.quantity is not None:
            if order.whole:
                raise invalid("qty: the order closes the whole position, whatever its size")
            if amendment.quantity <= order.filled:
                raise Refused(110064, "The quantity to be amended must be above what has been filled.")
            wanted.quantity = amendment.quantity
            wanted.left = amendment.quantity - order.filled
            if order.only_reduces and order.status is not Status.UNTRIGGERED:
                wanted.left = min(wanted.left, self._matching.room(order))
                wanted.quantity = order.filled + wanted.left
        if amendment.price is not None:
            if order.kind is not OrderType.LIMIT:
                raise invalid("price of a market order cannot be amended")
            wanted.price = amendment.price
        if amendment.trigger_price is not None or amendment.trigger_by is not None:
            if order.trigger is None or order.status is not Status.UNTRIGGERED:
                raise invalid("triggerPrice: the order does not wait for one")
            wanted.trigger = replace(
                order.trigger,
                price=amendment.trigger_price if amendment.trigger_price is not None else order.trigger.price,
                by=amendment.trigger_by or order.trigger.by,
            )
        check_exits(market, order.side, amendment.take_profit, amendment.stop_loss, exits_from(wanted, market))
        self._entry.recheck(wanted, market, moved=wanted.price != order.price)
        return wanted

    # --- settings -----------------------------------------------------------------------------------

    def set_leverage(self, uid: str, instrument: str, buy: Decimal, sell: Decimal, now: int) -> None:
        account, market = self.accounts[uid], self._market(instrument)
        most = self._most_leverage(account, market)
        if buy != sell:
            raise invalid("buyLeverage and sellLeverage must be equal in cross margin")
        if not 1 <= buy <= most:
            raise Refused(110013, f"cannot set leverage [{buy:f}] gt maxLeverage [{most:f}] by risk limit")
        before = account.leverage(instrument)
        if (before.buy, before.sell) == (buy, sell):
            raise Refused(110043, "leverage not modified")
        held = account.leverages.get(instrument)
        account.leverages[instrument] = Leverage(buy, sell)
        if buy < before.buy and self._clearing.wallet(account).available < 0:
            if held is None:
                del account.leverages[instrument]
            else:
                account.leverages[instrument] = held
            raise Refused(110044, "Available margin is insufficient.")
        account.ts_updated = now
        self._clearing.events.append(AccountChanged(uid))
        self._clearing.events += [PositionChanged(uid, instrument, index) for index in account.indices(instrument)]

    def _most_leverage(self, account: TradingAccount, market: Market) -> Decimal:
        """What the risk tier of the larger position held allows."""
        name, rules = market.listing.id, market.listing.instrument
        largest = max(abs(account.quantity(name, index)) for index in account.indices(name))
        rate = tier_of(rules, largest * self._clearing.mark(name)).initial_rate
        return min(rules.max_leverage, 1 / rate) if largest else rules.max_leverage

    def switch_mode(self, uid: str, instruments: Iterable[str], mode: int, now: int) -> None:
        """Set one-way (0) or hedge (3) mode; refused with an open position or order in any of the instruments."""
        account, names = self.accounts[uid], list(instruments)
        if mode not in {ONE_WAY, HEDGE}:
            raise invalid("mode invalid: 0 is one-way, 3 is hedge")
        if all(account.mode(name) == mode for name in names):
            raise Refused(110025, "Position mode is not modified")
        if any(name in names for name, _, _ in account.positions()):
            raise Refused(110024, "You have an existing position, so the position mode cannot be switched.")
        if any(order.instrument in names for order in account.open_orders.values()):
            raise Refused(110028, "You have existing open orders, so the position mode cannot be switched.")
        for name in names:
            account.modes[name] = mode
        account.ts_updated = now
        self._clearing.events.append(AccountChanged(uid))

    def trading_stop(self, uid: str, wanted: TradingStop, now: int) -> None:
        market = self._market(wanted.instrument)
        if wanted.position_idx not in self.accounts[uid].indices(wanted.instrument):
            raise Refused(10001, "position idx not match position mode")
        self._triggers.set_on(uid, wanted, market, now)
        self._look_after(now)

    def set_window(self, uid: str, product: str, seconds: int, now: int) -> None:
        """Arm disconnect-cancel of a product; what watches the connections cancels."""
        account = self.accounts[uid]
        account.windows[product] = Window(seconds)
        account.ts_updated = now
        self._clearing.events.append(AccountChanged(uid))

    # --- the market and time ------------------------------------------------------------------------

    def background_set(self, instrument: str, side: Side, ticks: int, steps: int, now: int) -> None:
        """Make the house's size at a price what is wanted; where that crosses clients' orders it trades with them."""
        self._matching.set_house(self.markets[instrument], side, ticks, steps, now)
        if self._matching.shrunk:
            self._look_after(now)

    def background_take(self, instrument: str, side: Side, limit: int | None, steps: int, now: int) -> int:
        """Let somebody else take from the book. Returns the steps traded."""
        traded = self._matching.take_house(self.markets[instrument], side, limit, steps, now)
        if self._matching.shrunk:
            self._look_after(now)
        return traded

    def background_at(self, instrument: str, side: Side, ticks: int) -> int:
        """The house's own size at a price, in steps."""
        return self._matching.size_of_house(self.markets[instrument], side, ticks)

    def tick(self, now: int) -> None:
        """Let time pass: prices are looked at, triggers fire, funding settles, margins are called."""
        while self._late and self._late[0][0] <= now:
            _, order = self._late.pop(0)
            if order.status.is_open:
                self._matching.enter(order, self.markets[order.instrument], now)
        for market in self.markets.values():
            self._reprice(market, now)
        for market in self.markets.values():
            while market.listing.funding_minutes and market.pricing.ts_next <= now:
                self._strike(market)
        self._look_after(now)
        for account in list(self._clearing.clients()):
            if self._liquidation.fails(account):
                self._liquidate(account, now)

    def _reprice(self, market: Market, now: int) -> None:
        bid, ask = market.best(Side.BUY), market.best(Side.SELL)
        last = float(market.last) if market.last is not None else None
        impact_bid = impact_ask = None
        if not market.listing.is_spot:
            impact_bid, impact_ask = _impact(market, Side.BUY), _impact(market, Side.SELL)
        market.pricing.observe(
            now,
            index=market.external_index,
            bid=float(bid) if bid is not None else None,
            ask=float(ask) if ask is not None else None,
            impact_bid=impact_bid,
            impact_ask=impact_ask,
            last=last,
        )
        pricing = market.pricing
        market.candles.observe(
            now,
            mark=float(pricing.mark) if pricing.mark is not None else None,
            index=float(pricing.index) if pricing.index is not None else None,
            premium=pricing.premium,
        )

    def _strike(self, market: Market) -> None:
        stamp = market.pricing.ts_next
        rate = market.pricing.strike()
        if market.pricing.mark is not None:
            self._clearing.fund(market, rate, market.pricing.mark, stamp)

    def _look_after(self, now: int) -> None:
        """Follow up what fills and prices have set going, until nothing more does: exits, reducing orders, triggers."""
        while True:
            self._after_fills(now)
            fired = [(market, order) for market in self.markets.values() for order in self._triggers.due(market)]
            for market, order in fired:
                # One that fired before it may have cancelled it.
                if order.status is Status.UNTRIGGERED:
                    self._fire(order, market, now)
            if not fired and not self._matching.shrunk:
                return

    def _after_fills(self, now: int) -> None:
        for order, quantity in self._matching.take_filled():
            self._triggers.attach(order, quantity, self.markets[order.instrument], now)
        for uid, name, index in self._matching.touched():
            market = self.markets[name]
            if market.listing.is_spot or uid == HOUSE:
                continue
            self._triggers.follow_position(uid, index, market, now)
            self._matching.cut_reducing(uid, name, index, market, now)

    def _fire(self, order: Order, market: Market, now: int) -> None:
        if not self._triggers.fire(order, market, now):
            return
        account = self.accounts[order.uid]
        try:
            self._entry.check_fired(order, market)
            if order.kind is OrderType.MARKET:
                order.price = self._entry.protected(order, market)
            self._entry.afford(account, market, order, order.left, self._entry.price_asked(order, market))
        except Refused:
            self._matching.end(order, market, now, reject_reason="EC_Others")
            return
        self._matching.enter(order, market, now)

    def _liquidate(self, account: TradingAccount, now: int) -> None:
        self.cancel_all(account.uid, self.markets, now, cancel_type="CancelAllBeforeLiq")
        while self._liquidation.fails(account) and self._liquidation.step(account, now):
            self._look_after(now)

    # --- drills -------------------------------------------------------------------------------------

    def settle_funding(self, instrument: str, now: int, rate: Decimal | None = None) -> None:
        """Settle funding at once, at the rate predicted or at one given; the running interval goes on."""
        market = self._market(instrument)
        struck = rate if rate is not None else market.pricing.predicted
        if market.listing.is_spot or struck is None or market.pricing.mark is None:
            raise invalid(f"{instrument} has no funding to settle")
        self._clearing.fund(market, struck, market.pricing.mark, now)

    def deleverage(self, uid: str, instrument: str, index: int, quantity: Decimal, now: int) -> None:
        """Close part of a position at the mark, as when the other side's loss had no other taker."""
        account, market = self.accounts[uid], self._market(instrument)
        held = account.quantity(instrument, index)
        if not 0 < quantity <= abs(held) or quantity % market.listing.instrument.step:
            raise invalid(f"quantity {quantity:f}: the position is {held:f}")
        self._liquidation.deleverage(account, market, index, quantity, now)
        self._look_after(now)

    # --- after a restart ----------------------------------------------------------------------------

    def restore(
        self,
        accounts: Mapping[str, TradingAccount],
        records: Mapping[str, Records],
        fees: Mapping[str, Decimal],
        issued: Mapping[str, Decimal],
    ) -> None:
        """Put back what was saved: accounts and records by account, and every open order in its old place."""
        self.accounts.update(accounts)
        self.records.update(records)
        self.fees.update(fees)
        self.issued.update(issued)
        open_orders = [order for account in accounts.values() for order in account.open_orders.values()]
        for order in sorted(open_orders, key=lambda order: order.place):
            market = self.markets.get(order.instrument)
            if market is None:
                continue
            if order.status is Status.UNTRIGGERED:
                self._triggers.restore(order)
            elif not order.place:
                # It had not met the book yet.
                self._late.append((0, order))
            else:
                self._matching.restore(order, market)
        self._clearing.restore_closing()


def _impact(market: Market, side: Side) -> float | None:
    """The mean price of trading the impact notional against a side of the book; None where the book is too thin."""
    instrument = market.listing.instrument
    levels = market.book.each_level(side)
    return impact_price(levels, impact_notional(instrument), tick=float(instrument.tick), step=float(instrument.step))


def _changes(order: Order, amendment: Amendment) -> bool:
    """Whether an amendment says anything new of an order."""
    return any(
        wanted is not None and wanted != before
        for wanted, before in (
            (amendment.quantity, order.quantity),
            (amendment.price, order.price),
            (amendment.trigger_price, order.trigger.price if order.trigger is not None else None),
            (amendment.trigger_by, order.trigger.by if order.trigger is not None else None),
            (amendment.take_profit, order.take_profit or Exit(ZERO)),
            (amendment.stop_loss, order.stop_loss or Exit(ZERO)),
        )
    )
