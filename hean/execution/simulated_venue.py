"""A venue of our own: it fills orders against a recorded or live market as Bybit would have.

How finely it can do so depends on what is known of the market. With a book (or a best bid and
offer) an order walks it at the instant it arrives, as far as it goes. With trades alone it fills at
the first print after its arrival, half a spread worse. With candles alone latency is nought: a market
order fills at the next open, and within a candle a stop comes before a target.

Exits (a stop-loss and perhaps a take-profit) are held here once the entry fills, so that they do not
depend on us being alive. Positions are margined, funded and, where it comes to that, liquidated.
The account is one, netted as Bybit's one-way mode is: what reduces the position reduces it for everyone.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

from hean.errors import ConfigError
from hean.execution.account import Account, measured
from hean.execution.booked import BookMarket
from hean.execution.clearing import Clearing
from hean.execution.desks import Desks
from hean.execution.floor import Floor
from hean.execution.printed import PrintedMarket
from hean.execution.touches import Touches
from hean.execution.venue_state import SimulatedVenueConfig, SimulatedVenueState, Tier, Working
from hean.instruments import Instrument
from hean.messages import (
    AccountSnapshot,
    Bar,
    BarOpened,
    BookLevels,
    CancelOrder,
    FundingRate,
    FundingSettled,
    InterestCharged,
    MarkPrice,
    Observation,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Quote,
    SnapshotAccount,
    SubmitOrder,
    Trade,
    VenueOrder,
    Wake,
)
from hean.tape import Tape

__all__ = ["SimulatedVenue", "SimulatedVenueConfig", "SimulatedVenueState", "Tier"]


class SimulatedVenue:
    """Matching, latency, fees, slippage, funding, margin and liquidation for one account.

    Args:
        config: What the account is like.
        instruments: The rules of everything it may trade.
        tiers: How much of each instrument's market will be told.
        watches: Which observations will be told, as the node's own.

    Raises:
        ConfigError: an instrument has no tier, or they settle in more than one currency.
    """

    def __init__(
        self,
        config: SimulatedVenueConfig,
        instruments: Mapping[str, Instrument],
        tiers: Mapping[str, Tier],
        watches: frozenset[tuple[str, type[Observation]]],
    ) -> None:
        if set(instruments) != set(tiers):
            raise ConfigError(f"every instrument needs a tier: {', '.join(sorted(set(instruments) ^ set(tiers)))}")
        self.config = config
        self.instruments = dict(instruments)
        self.tiers = dict(tiers)
        self.watches = watches
        self._take_up(SimulatedVenueState(account=Account(dict(config.balances)), desks={}))

    @property
    def state(self) -> SimulatedVenueState:
        self._desks.catch_up()
        return self._state

    @state.setter
    def state(self, state: SimulatedVenueState) -> None:
        self._take_up(state)

    def _take_up(self, state: SimulatedVenueState) -> None:
        """Work on this state from now on: all that looks into it is made anew."""
        config = self.config
        self._state = state
        self._desks = Desks(state.desks, state.books, self.tiers, self.watches)
        self._clearing = Clearing(config, self.instruments, self._desks, state)
        self._floor = Floor(config, self.instruments, self._desks, self._clearing, state)
        self._printed = PrintedMarket(self._floor, config.half_spread_bp, config.stale_entry_s)
        self._book = BookMarket(self._floor, config.cancel_share)
        self._touches = Touches(self.tiers, self.watches, self._desks, self._clearing, state)

    # --- being told -----------------------------------------------------------------------------

    def handle(
        self,
        message: SubmitOrder
        | CancelOrder
        | SnapshotAccount
        | Trade
        | Quote
        | BookLevels
        | BarOpened
        | Bar
        | MarkPrice
        | FundingRate
        | Wake,
        now: int,
    ) -> Iterator[
        OrderAccepted
        | OrderRejected
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | FundingSettled
        | InterestCharged
        | AccountSnapshot
    ]:
        match message:
            case SubmitOrder():
                yield from self._submit(message, now)
            case BarOpened():
                yield from self._printed.opened(message, now)
            case Bar():
                yield from self._printed.closed(message, now)
                yield from self._margin_check(now, adverse=message)
            case Trade(instrument=name):
                if self.tiers[name] is Tier.BOOK:
                    yield from self._book.traded(message, now)
                else:
                    yield from self._printed.traded(message, now)
                    yield from self._margin_check(now)
            case Quote() | BookLevels():
                yield from self._book.shown(message, now)
                yield from self._margin_check(now)
            case MarkPrice(instrument=name, price=price):
                self._desks[name].price = price
                yield from self._margin_check(now)
            case FundingRate():
                yield from self._clearing.settle(message)
            case Wake():
                yield from self._arrivals(now)
                yield from self._clearing.interest(now)
            case CancelOrder():
                yield from self._cancel(message, now)
            case SnapshotAccount():
                yield self._snapshot(message, now)
            case _:
                assert_never(message)
        self._clearing.watch_debt(now)

    def wake_at(self) -> int | None:
        """When the next order or cancel arrives, or interest is due."""
        due = self._state.ts_interest
        for name in self._desks.busy:
            tier = self.tiers[name]
            if tier is Tier.BARS:
                continue
            for working in self._state.desks[name].working.values():
                at = working.ts_cancel
                if tier is Tier.BOOK and not working.resting:
                    at = working.ts_arrives
                if at is not None and (due is None or at < due):
                    due = at
        return due

    # --- orders ---------------------------------------------------------------------------------

    def _submit(
        self, order: SubmitOrder, now: int
    ) -> Iterator[OrderAccepted | OrderRejected | OrderFilled | OrderExpired]:
        refusal = self._refuses(order)
        if refusal:
            yield OrderRejected(order.client_order_id, order.strategy, order.instrument, refusal)
            return
        tier = self.tiers[order.instrument]
        desk = self._desks[order.instrument]
        arrives = now if tier is Tier.BARS else now + self._floor.latency(order.client_order_id)
        working = Working(order, order.quantity, arrives)
        if order.limit is not None:
            working.limit = float(order.limit)
        if tier is Tier.BARS and desk.ts_opened == now:
            # The candle that begins at this instant has shown its open: that is the next open.
            yield from self._printed.activate(desk, working, desk.open, now)
        elif tier is Tier.BOOK and arrives <= now:
            yield from self._book.meet(desk, working, now)
        else:
            self._floor.admit(desk, working)

    def _refuses(self, order: SubmitOrder) -> str:
        """Why the venue will not take an order, in its own words; empty when it will."""
        instrument = self.instruments.get(order.instrument)
        if instrument is None:
            return "10001 symbol invalid"
        desk = self._desks[order.instrument]
        quantity, limit = order.quantity, order.limit
        if order.client_order_id in self._state.link_ids:
            return "110072 OrderLinkedID is duplicate"
        self._floor.use_up(order.client_order_id)
        if quantity <= 0 or quantity % instrument.step:
            return f"10001 quantity {quantity} is not a positive multiple of {instrument.step}"
        if limit is not None and (limit <= 0 or limit % instrument.tick):
            return f"10001 price {limit} is not a positive multiple of {instrument.tick}"
        most = instrument.max_market_quantity if limit is None else instrument.max_limit_quantity
        if quantity > most:
            return f"10001 quantity {quantity} is over the largest order of {most}"
        if desk.price is None:
            return "110118 no price is known"
        if order.reduce_only:
            if self._state.account.held(instrument) * order.side >= 0:
                return "110017 current position is zero or on the same side, cannot fix reduce-only order qty"
            return ""
        if quantity < instrument.min_quantity:
            return f"10001 quantity {quantity} is under the smallest order of {instrument.min_quantity}"
        price = limit if limit is not None else measured(desk.price)
        if quantity * price < instrument.min_notional:
            return f"110094 order value {quantity * price:f} is under {instrument.min_notional}"
        return self._clearing.refuses(order, instrument, price, self._floor.at_work())

    def _cancel(self, message: CancelOrder, now: int) -> Iterator[OrderCanceled | OrderRejected]:
        order_id, name = message.client_order_id, message.instrument
        working = self._state.desks[name].working.get(order_id) if name in self._state.desks else None
        if working is not None:
            if self.tiers[name] is not Tier.BARS and working.ts_cancel is None:
                # It cannot overtake the order itself.
                working.ts_cancel = max(working.ts_arrives, now + self._floor.latency(f"{order_id}/cancel"))
            if (working.ts_cancel or now) <= now:
                yield self._floor.cancel(self._desks[name], working, "by us")
        elif order_id not in self._state.link_ids:
            yield OrderRejected(order_id, message.strategy, name, "110001 order not exists")

    def _arrivals(self, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderCanceled | OrderExpired]:
        for name in sorted(self._desks.busy):
            desk = self._desks[name]
            for working in list(desk.working.values()):
                if self.tiers[name] is Tier.BOOK and not working.resting and working.ts_arrives <= now:
                    yield from self._book.meet(desk, working, now)
                due = working.ts_cancel is not None and working.ts_cancel <= now
                if due and working.order.client_order_id in desk.working:
                    yield self._floor.cancel(desk, working, "by us")

    # --- the account ----------------------------------------------------------------------------

    def _margin_check(self, now: int, adverse: Bar | None = None) -> Iterator[OrderCanceled | OrderFilled]:
        if self._state.account.positions and self._clearing.fails(adverse):
            yield from self._floor.clear()
            yield from self._clearing.liquidate(now, adverse)

    def _snapshot(self, message: SnapshotAccount, now: int) -> AccountSnapshot:
        account = self._state.account
        orders = tuple(
            VenueOrder(
                order.client_order_id, order.instrument, order.side, order.quantity, order.quantity - working.left
            )
            for desk in self._state.desks.values()
            for working in desk.working.values()
            for order in (working.order,)
        )
        positions = {name: position.quantity for name, position in account.positions.items()}
        entries = {name: position.value / position.quantity for name, position in account.positions.items()}
        modes = {f"{name} leverage": f"{self.config.leverage.normalize():f}" for name in positions}
        return AccountSnapshot(
            message.request_id,
            now,
            True,
            orders,
            positions,
            dict(account.balances),
            entries,
            modes,
            tuple(self._state.log),
        )

    # --- rows that pass in silence --------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first row that meets an order, settles funding on a position or endangers the margin."""
        if not self._desks.busy and not self._state.account.positions:
            return stop
        return self._touches.first(tape, start, stop)

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        """Take rows in silence: what they leave behind is looked up when it is asked for."""
        self._desks.skip(tape, start, stop)
