"""The money of a simulated venue: fills booked with their fees, funding, interest, margin and liquidation."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from hean.errors import ConfigError
from hean.execution.account import MarkForm, booked, cash_form, margin_form, measured
from hean.execution.desks import Desks
from hean.execution.fees import fee, fee_rates
from hean.execution.funding import settlement
from hean.execution.margin import ZERO, bankruptcy_move, initial
from hean.execution.venue_state import SimulatedVenueConfig, SimulatedVenueState, Working
from hean.instruments import Category, Instrument
from hean.messages import (
    Bar,
    EntryKind,
    FundingRate,
    FundingSettled,
    InterestCharged,
    Liquidity,
    OrderFilled,
    Side,
    SubmitOrder,
    VenueEntry,
)
from hean.units import HOUR


class Clearing:
    """Keeps the account of a simulated venue.

    Raises:
        ConfigError: the instruments settle in more than one currency.
    """

    def __init__(
        self,
        config: SimulatedVenueConfig,
        instruments: Mapping[str, Instrument],
        desks: Desks,
        state: SimulatedVenueState,
    ) -> None:
        quotes = {instrument.quote for instrument in instruments.values()}
        inverse = [name for name, instrument in instruments.items() if instrument.category is Category.INVERSE]
        if len(quotes) != 1 or inverse:
            raise ConfigError(
                f"a simulated account settles in one quote currency: {', '.join(instruments) or 'no instruments'} do not"
            )
        self.quote = quotes.pop()
        self.rates = fee_rates(config.fee_tier)
        self._config = config
        self._instruments = instruments
        self._desks = desks
        self._state = state
        self._account = state.account
        self._spot_of = {instrument.base: name for name, instrument in instruments.items() if instrument.is_spot}
        self._haircut = Decimal(str(config.haircut))
        self._margin: MarkForm | None = None
        self._cash: MarkForm | None = None

    def book(
        self,
        client_order_id: str,
        strategy: str,
        instrument: Instrument,
        side: Side,
        quantity: Decimal,
        price: Decimal,
        liquidity: Liquidity,
        reference: Decimal | None,
        ending: str,
        now: int,
    ) -> OrderFilled:
        state = self._state
        rate = self.rates.of(instrument.category, liquidity)
        paid, coin = fee(instrument, side, quantity, price, rate, liquidity)
        signed = quantity if side is Side.BUY else -quantity
        self._account.trade(instrument, signed, price)
        self._account.credit(coin, -paid)
        if not instrument.is_spot:
            owned = state.owned.setdefault(instrument.id, {})
            owned[strategy] = owned.get(strategy, ZERO) + signed
        self._changed()
        state.trades += 1
        trade_id = f"sim-{state.trades}"
        self._log(trade_id, EntryKind.FILL, instrument.id, coin, paid, now)
        return OrderFilled(
            client_order_id,
            strategy,
            instrument.id,
            trade_id,
            side,
            quantity,
            price,
            paid,
            coin,
            liquidity,
            reference,
            ending,
            now,
        )

    def owned(self, name: str, strategy: str) -> Decimal:
        """A strategy's part of a netted position."""
        return self._state.owned.get(name, _NOTHING).get(strategy, ZERO)

    def _changed(self) -> None:
        self._margin = self._cash = None

    def _log(self, name: str, kind: EntryKind, instrument: str, currency: str, amount: Decimal, now: int) -> None:
        log = self._state.log
        log.append(VenueEntry(name, kind, instrument, currency, amount, now))
        if len(log) >= 2 * _LOGGED:
            del log[:_LOGGED]

    # --- what an order asks for ---------------------------------------------------------------------

    def refuses(self, order: SubmitOrder, instrument: Instrument, price: Decimal, at_work: Iterable[Working]) -> str:
        """Why the account cannot bear an order, with what it has at work already; empty when it can."""
        account = self._account
        quantity = order.quantity
        if instrument.is_spot:
            buys = order.side is Side.BUY
            coin = instrument.quote if buys else instrument.base
            needed = quantity * price if buys else quantity
            for working in at_work:
                other = working.order
                if other.side is order.side and self._instruments[other.instrument].is_spot:
                    if buys:
                        needed += self._value(working)
                    elif other.instrument == order.instrument:
                        needed += working.left
            have = account.balances.get(coin, ZERO)
            return f"170131 Insufficient balance: {needed:f} {coin} needed, {have:f} there" if have < needed else ""
        held = account.held(instrument)
        grows = abs(held + quantity * order.side) - abs(held)
        if grows <= 0:
            return ""
        config = self._config
        needed = initial(instrument, grows * price, config.leverage, self.rates.linear_taker)
        for working in at_work:
            rules = self._instruments[working.order.instrument]
            if not rules.is_spot and not working.order.reduce_only:
                needed += initial(rules, self._value(working), config.leverage, self.rates.linear_taker)
        free = self._margin_free()
        return f"110007 ab not enough for new order: {needed:.2f} needed, {free:.2f} free" if free < needed else ""

    def _value(self, working: Working) -> Decimal:
        order = working.order
        return working.left * (
            order.limit if order.limit is not None else measured(self._desks.price(order.instrument))
        )

    def _margin_free(self) -> Decimal:
        """Margin balance less what the open positions tie up."""
        account, config = self._account, self._config
        free = ZERO
        for coin, amount in account.balances.items():
            if coin == self.quote:
                free += amount
            elif amount and coin in self._spot_of:
                free += amount * (1 - self._haircut) * measured(self._desks.price(self._spot_of[coin]))
        for name, position in account.positions.items():
            worth = position.quantity * measured(self._desks.price(name))
            free += worth - position.value
            free -= initial(self._instruments[name], abs(worth), config.leverage, self.rates.linear_taker)
        return free

    # --- money that moves by itself -----------------------------------------------------------------

    def settle(self, funding: FundingRate) -> Iterator[FundingSettled]:
        """Move funding on what is held at the stamp, at the mark of that instant."""
        name = funding.instrument
        position = self._account.positions.get(name)
        if position is None:
            return
        mark, rate = measured(self._desks.price(name)), Decimal(str(funding.rate))
        amount = booked(settlement(position.quantity, mark, rate))
        self._account.credit(self.quote, amount)
        self._changed()
        settlement_id = f"{name}:{funding.ts_event}"
        self._log(settlement_id, EntryKind.FUNDING, name, self.quote, amount, funding.ts_event)
        yield FundingSettled(settlement_id, name, position.quantity, rate, mark, amount, funding.ts_event)

    def watch_debt(self, now: int) -> None:
        """Let interest begin at the next hour where quote currency is owed, and set against coins."""
        state = self._state
        if state.ts_interest is None and len(self._account.balances) > 1:
            form = self.cash()
            if form is not None and form.at(self._prices(form)) < 0:
                state.ts_interest = now - now % HOUR + HOUR

    def interest(self, now: int) -> Iterator[InterestCharged]:
        """Charge an hour's interest on what is owed (Bybit help centre, *Borrowing, Interest and Repayment*)."""
        state = self._state
        if state.ts_interest is None or now < state.ts_interest:
            return
        owed = -self._account.balances.get(self.quote, ZERO) - self._config.borrow_free
        for name, position in self._account.positions.items():
            owed -= position.quantity * measured(self._desks.price(name)) - position.value
        if owed <= 0:
            state.ts_interest = None
            return
        charge_id = f"{self.quote}:{state.ts_interest}"
        state.ts_interest = now - now % HOUR + HOUR
        amount = booked(owed * self._config.borrow_rate_hourly)
        self._account.credit(self.quote, -amount)
        self._changed()
        self._log(charge_id, EntryKind.INTEREST, "", self.quote, amount, now)
        yield InterestCharged(charge_id, self.quote, owed, amount, now)

    # --- margin -------------------------------------------------------------------------------------

    def fails(self, adverse: Bar | None = None) -> bool:
        """Whether the margin no longer covers the maintenance of what is held, at the worst a candle has shown."""
        if not self._account.positions:
            return False
        form = self.margin()
        return form.at(self._prices(form, adverse)) <= 0

    def liquidate(self, now: int, adverse: Bar | None = None) -> Iterator[OrderFilled]:
        """Take every position away at its bankruptcy price: what was left of the margin goes with it.

        Bybit goes down the risk tiers first and may leave a part; one step is the harsher reading.
        """
        prices = self._prices(self.margin(), adverse)
        move = self._left_to_lose(prices)
        for name, position in list(self._account.positions.items()):
            instrument = self._instruments[name]
            side = Side.SELL if position.quantity > 0 else Side.BUY
            at = prices[name] * (1 - move if side is Side.SELL else 1 + move)
            # To the tick that leaves the account a little rather than a debt.
            price = instrument.price_up(at) if side is Side.SELL else instrument.price_down(at)
            self._state.orders += 1
            yield self.book(
                f"liquidation-{self._state.orders}",
                "",
                instrument,
                side,
                abs(position.quantity),
                price,
                Liquidity.TAKER,
                price,
                "liquidation",
                now,
            )
        self._state.owned.clear()

    def _left_to_lose(self, prices: Mapping[str, float]) -> float:
        """How far the marks may move until the margin balance is gone, as a fraction of them."""
        balance = float(self._account.balances.get(self.quote, ZERO))
        value = 0.0
        for name, position in self._account.positions.items():
            balance += float(position.quantity) * prices[name] - float(position.value)
            value += abs(float(position.quantity)) * prices[name]
        for coin, amount in self._account.balances.items():
            if coin in self._spot_of:
                balance += float(amount) * self._desks.price(self._spot_of[coin]) * (1 - self._config.haircut)
        return bankruptcy_move(balance, value, float(self.rates.linear_taker))

    def margin(self) -> MarkForm:
        if self._margin is None:
            self._margin = margin_form(
                self._account,
                self._instruments,
                self._spot_of,
                quote=self.quote,
                haircut=self._config.haircut,
                taker_rate=float(self.rates.linear_taker),
            )
        return self._margin

    def cash(self) -> MarkForm | None:
        """What is owed once it falls below nought; None where there is no coin to borrow against."""
        if self._cash is None and any(
            amount > 0 for coin, amount in self._account.balances.items() if coin != self.quote
        ):
            self._cash = cash_form(self._account, quote=self.quote)
            self._cash.constant += float(self._config.borrow_free)
        return self._cash

    def _prices(self, form: MarkForm, adverse: Bar | None = None) -> dict[str, float]:
        prices = {name: self._desks.price(name) for name in form.slopes}
        if adverse is not None and adverse.instrument in prices:
            prices[adverse.instrument] = adverse.low if form.slopes[adverse.instrument] > 0 else adverse.high
        return prices


_LOGGED = 200
"""Lines of the log that are kept at the least: far more than can be on their way when somebody asks."""

_NOTHING: dict[str, Decimal] = {}
