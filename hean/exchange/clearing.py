"""The money of the exchange: fills booked with their fees, funding, margin, and the records each account can ask for.

Whatever one side pays another receives: the sum over all accounts, the house's and the fees taken included, is what was
paid in, to the last digit.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct, field
from msgspec.structs import replace

from hean.exchange.account import Holding, TradingAccount, Wallet, leverage_of, wallet
from hean.exchange.ids import Ids
from hean.exchange.market import Market
from hean.exchange.words import (
    ZERO,
    AccountChanged,
    ClosedPnl,
    Event,
    ExecType,
    Executed,
    Execution,
    FundingStruck,
    Logged,
    LogRow,
    Order,
    OrderChanged,
    PnlClosed,
    PositionChanged,
    WalletChanged,
)
from hean.execution.fees import BYBIT_TIERS, fee
from hean.execution.funding import settlement
from hean.messages import Liquidity, Side
from hean.netting import PICO
from hean.units import SECOND

HOUSE = "house"
"""Whose the background liquidity is: an account without margin, fees or records. It also takes over what is liquidated."""

_HAIRCUTS = {"USDT": ZERO, "USDC": ZERO, "BTC": Decimal("0.05"), "ETH": Decimal("0.05")}
_OTHER_HAIRCUT = Decimal("0.15")


def haircut(coin: str) -> Decimal:
    """The share of a coin's worth that carries no margin. Bybit's has tiers by size; these are of the first, on the cautious side."""
    return _HAIRCUTS.get(coin, _OTHER_HAIRCUT)


class Records(Struct):
    """What one account's past is asked for, oldest first; `orders` holds finished and open ones by id."""

    orders: dict[str, Order] = field(default_factory=dict)
    executions: list[Execution] = field(default_factory=list)
    log: list[LogRow] = field(default_factory=list)
    closed: list[ClosedPnl] = field(default_factory=list)


class Fill(Struct, frozen=True):
    """One fill of a client's order: what traded, and what it costs. `paid` is in `coin`, and positive when it is paid."""

    order: Order
    market: Market
    quantity: Decimal
    price: Decimal
    liquidity: Liquidity
    exec_type: ExecType
    exec_id: str
    rate: Decimal
    paid: Decimal
    coin: str
    now: int

    @property
    def value(self) -> Decimal:
        return self.quantity * self.price

    def execution(self, closed: Decimal, realised: Decimal) -> Execution:
        """What is recorded of it, once the order has been told."""
        order, market = self.order, self.market
        return Execution(
            exec_id=self.exec_id,
            uid=order.uid,
            instrument=order.instrument,
            exec_type=self.exec_type,
            side=order.side,
            price=self.price,
            quantity=self.quantity,
            value=self.value,
            fee=self.paid,
            fee_coin=self.coin,
            fee_rate=self.rate,
            maker=self.liquidity is Liquidity.MAKER,
            mark=market.mark,
            index=market.pricing.index,
            ts=self.now,
            seq=market.seq,
            order_id=order.order_id,
            link_id=order.link_id,
            kind=order.kind,
            order_price=order.price,
            order_quantity=order.quantity,
            left=ZERO if order.in_quote else order.left,
            stop_order_type=order.stop_order_type,
            create_type=order.create_type,
            closed=closed,
            pnl=realised,
            leveraged=order.leveraged,
            in_quote=order.in_quote,
        )


class Clearing:
    """Accounts and records, and everything that moves money between them."""

    def __init__(self, markets: Mapping[str, Market], ids: Ids) -> None:
        self.markets = markets
        self.ids = ids
        self.accounts: dict[str, TradingAccount] = {}
        self.records: dict[str, Records] = {}
        self.fees: dict[str, Decimal] = {}
        self.issued: dict[str, Decimal] = {}
        self.events: list[Event] = []
        self._listings = {name: market.listing for name, market in markets.items()}
        self._closing: dict[str, ClosedPnl] = {}
        self._priced_by: dict[str, Market] = {}
        for market in markets.values():
            # The spot market values a coin; where there is none, the derivative's index does.
            base = market.listing.instrument.base
            if market.listing.is_spot or base not in self._priced_by:
                self._priced_by[base] = market
        self.accounts[HOUSE] = TradingAccount(uid=HOUSE, balances={}, rates=BYBIT_TIERS["base"])

    @property
    def house(self) -> TradingAccount:
        return self.accounts[HOUSE]

    def clients(self) -> Iterable[TradingAccount]:
        return (account for uid, account in self.accounts.items() if uid != HOUSE)

    def open_account(self, uid: str, balances: Mapping[str, Decimal], now: int) -> TradingAccount:
        account = TradingAccount(uid=uid, balances={}, rates=BYBIT_TIERS["base"], ts_updated=now)
        self.accounts[uid] = account
        self.records[uid] = Records()
        for coin, amount in balances.items():
            self.issued[coin] = self.issued.get(coin, ZERO) + amount
            balance = account.credit(coin, amount)
            self.log(
                LogRow(
                    row_id=self.ids.row(uid, coin),
                    uid=uid,
                    kind="TRANSFER_IN",
                    currency=coin,
                    change=amount,
                    cash_flow=amount,
                    balance=balance,
                    quantity=amount,
                    ts=now,
                )
            )
        self.events += [AccountChanged(uid), WalletChanged(uid)]
        return account

    # --- what is said -----------------------------------------------------------------------------

    def say(self, order: Order) -> None:
        """Tell the order as it is now, and with it its position: the venue pushes both."""
        self.events.append(OrderChanged(replace(order, fees=dict(order.fees))))
        if not self._listings[order.instrument].is_spot:
            self.events.append(PositionChanged(order.uid, order.instrument, order.position_idx))

    def log(self, row: LogRow) -> None:
        self.records[row.uid].log.append(row)
        self.events.append(Logged(row))

    def _record(self, execution: Execution) -> None:
        self.records[execution.uid].executions.append(execution)
        self.events.append(Executed(execution))

    # --- fills --------------------------------------------------------------------------------------

    def fill_house(self, market: Market, side: Side, quantity: Decimal, price: Decimal) -> None:
        """Book the house's side of a fill: without a fee, and without a record."""
        house, instrument = self.house, market.listing.instrument
        signed = quantity * side
        if instrument.is_spot:
            house.credit(instrument.base, signed)
            house.credit(instrument.quote, -signed * price)
        else:
            house.credit(instrument.quote, house.holding(instrument.id, 0).position.trade(signed, price))

    def fill(
        self,
        order: Order,
        market: Market,
        quantity: Decimal,
        price: Decimal,
        liquidity: Liquidity,
        now: int,
        exec_type: ExecType = ExecType.TRADE,
        exec_id: str = "",
    ) -> None:
        """Book one fill of a client's order, with its fee, and record it."""
        account, instrument = self.accounts[order.uid], market.listing.instrument
        rate = account.rates.of(instrument.category, liquidity)
        paid, coin = fee(instrument, order.side, quantity, price, rate, liquidity)
        exec_id = exec_id or self.ids.execution(spot=instrument.is_spot)
        fill = Fill(order, market, quantity, price, liquidity, exec_type, exec_id, rate, paid, coin, now)
        order.filled += quantity
        order.value += fill.value
        order.left -= fill.value if order.in_quote else quantity
        order.fees[coin] = order.fees.get(coin, ZERO) + paid
        order.ts_updated = account.ts_updated = now
        self.fees[coin] = self.fees.get(coin, ZERO) + paid
        if instrument.is_spot:
            self._book_coins(account, fill)
            closed = realised = ZERO
        else:
            closed, realised = self._book_position(account, fill)
        self._record(fill.execution(closed, realised))
        self.events.append(WalletChanged(order.uid))

    def _book_coins(self, account: TradingAccount, fill: "Fill") -> None:
        """Exchange coins, each with its own line in the log, its quantity signed."""
        instrument = fill.market.listing.instrument
        signed = fill.quantity * fill.order.side
        for coin, flow in ((instrument.base, signed), (instrument.quote, -signed * fill.price)):
            paid, rate = (fill.paid, fill.rate) if coin == fill.coin else (ZERO, ZERO)
            balance = account.credit(coin, flow - paid)
            self.log(self._line(fill, coin, balance, flow=flow, paid=paid, rate=rate, quantity=flow, size=ZERO))

    def _book_position(self, account: TradingAccount, fill: "Fill") -> tuple[Decimal, Decimal]:
        """Change the position, and settle what it realises. Returns the quantity closed and its profit before fees."""
        order, name = fill.order, fill.market.listing.id
        holding = account.holding(name, order.position_idx)
        held, entry = holding.quantity, holding.entry
        closed = min(abs(held), fill.quantity) if held * order.side < 0 else ZERO
        realised = holding.position.trade(fill.quantity * order.side, fill.price)
        self._settle_position(account, holding, held, realised, fill.paid, fill.now)
        holding.seq = fill.market.seq
        balance = account.credit(fill.coin, realised - fill.paid)
        account.realised[fill.coin] = account.realised.get(fill.coin, ZERO) + realised - fill.paid
        size = holding.quantity
        self.log(
            self._line(
                fill,
                fill.coin,
                balance,
                flow=realised,
                paid=fill.paid,
                rate=fill.rate,
                quantity=fill.quantity,
                size=size,
            )
        )
        closing_fee = ZERO
        if closed and entry is not None:
            opening_fee = (holding.open_fee * closed / abs(held)).quantize(PICO)
            closing_fee = (fill.paid * closed / fill.quantity).quantize(PICO)
            order.closed_pnl += realised - opening_fee - closing_fee
            self._close(account, fill, closed, entry, realised, opening_fee, closing_fee)
            holding.open_fee -= opening_fee
        holding.open_fee += fill.paid - closing_fee
        return closed, realised

    def _line(
        self,
        fill: "Fill",
        coin: str,
        balance: Decimal,
        *,
        flow: Decimal,
        paid: Decimal,
        rate: Decimal,
        quantity: Decimal,
        size: Decimal,
    ) -> LogRow:
        """A fill in the transaction log, for one of the coins that moved."""
        order, listing = fill.order, fill.market.listing
        return LogRow(
            row_id=self.ids.row(order.uid, listing.symbol),
            uid=order.uid,
            kind=_LOG_KIND[fill.exec_type],
            currency=coin,
            change=flow - paid,
            cash_flow=flow,
            fee=paid,
            balance=balance,
            instrument=listing.id,
            side=order.side,
            quantity=quantity,
            size=size,
            price=fill.price,
            fee_rate=rate,
            trade_id=fill.exec_id,
            order_id=order.order_id,
            link_id=order.link_id,
            ts=fill.now,
        )

    def _settle_position(
        self, account: TradingAccount, holding: Holding, held: Decimal, realised: Decimal, paid: Decimal, now: int
    ) -> None:
        """Add what a fill has realised and cost to a position that was `held` before it."""
        after = holding.quantity
        holding.realised += realised - paid
        holding.ts_updated = account.ts_updated = now
        if held * after > 0 or after == 0:
            holding.running += realised - paid
            return
        # It begins here. Of a fill that turned it over, the profit belongs to the one before, and the fee in part.
        holding.running = -paid if held == 0 else -(paid * after / (after - held)).quantize(PICO)
        holding.ts_opened = now
        holding.ts_created = holding.ts_created or now

    def _close(
        self,
        account: TradingAccount,
        fill: "Fill",
        closed: Decimal,
        entry: Decimal,
        realised: Decimal,
        opening_fee: Decimal,
        closing_fee: Decimal,
    ) -> None:
        """Add what a fill has closed to the record of its order."""
        order, price, now = fill.order, fill.price, fill.now
        record = self._closing.get(order.order_id)
        if record is None:
            record = ClosedPnl(
                uid=order.uid,
                instrument=order.instrument,
                order_id=order.order_id,
                side=order.side,
                kind=order.kind,
                exec_type=fill.exec_type,
                order_price=order.price if order.price is not None else price,
                quantity=order.quantity,
                closed=ZERO,
                entry_value=ZERO,
                exit_value=ZERO,
                pnl=ZERO,
                fills=0,
                leverage=leverage_of(account, order.instrument, -Decimal(order.side)),
                open_fee=ZERO,
                close_fee=ZERO,
                ts_created=now,
                ts_updated=now,
            )
            self._closing[order.order_id] = record
            self.records[order.uid].closed.append(record)
        record.closed += closed
        record.entry_value += (closed * entry).quantize(PICO)
        record.exit_value += closed * price
        record.pnl += realised - opening_fee - closing_fee
        record.open_fee += opening_fee
        record.close_fee += closing_fee
        record.fills += 1
        record.ts_updated = now
        self.events.append(PnlClosed(replace(record)))

    def finished(self, order: Order) -> None:
        """Forget what only an open order needs."""
        self._closing.pop(order.order_id, None)

    def restore_closing(self) -> None:
        """After a restart, go on with the closed-profit records of orders that are still open."""
        for uid, records in self.records.items():
            still = self.accounts[uid].open_orders
            self._closing.update({one.order_id: one for one in records.closed if one.order_id in still})

    # --- funding ------------------------------------------------------------------------------------

    def fund(self, market: Market, rate: Decimal, mark: Decimal, now: int) -> None:
        """Move funding between all who hold a position at this instant: longs pay shorts when the rate is positive."""
        listing = market.listing
        instrument = listing.instrument
        for account in self.accounts.values():
            for index, holding in account.holdings.get(listing.id, {}).items():
                held = holding.quantity
                if not held:
                    continue
                amount = settlement(held, mark, rate)
                balance = account.credit(instrument.quote, amount)
                if account.uid == HOUSE:
                    continue
                holding.running += amount
                holding.realised += amount
                account.realised[instrument.quote] = account.realised.get(instrument.quote, ZERO) + amount
                account.ts_updated = holding.ts_updated = now
                exec_id = self.ids.execution(spot=False)
                order_id = f"{now // SECOND}-8-{account.uid}-{listing.symbol_id}-{index}"
                side = Side.BUY if held > 0 else Side.SELL
                self._record(
                    Execution(
                        exec_id=exec_id,
                        uid=account.uid,
                        instrument=listing.id,
                        exec_type=ExecType.FUNDING,
                        side=side,
                        price=mark,
                        quantity=abs(held),
                        value=abs(held) * mark,
                        fee=-amount,
                        fee_coin=instrument.quote,
                        fee_rate=rate,
                        maker=False,
                        mark=mark,
                        index=market.pricing.index,
                        ts=now,
                        seq=market.seq,
                        order_id=order_id,
                        order_quantity=abs(held),
                    )
                )
                self.log(
                    LogRow(
                        row_id=self.ids.row(account.uid, listing.symbol),
                        uid=account.uid,
                        kind="SETTLEMENT",
                        currency=instrument.quote,
                        change=amount,
                        funding=amount,
                        balance=balance,
                        instrument=listing.id,
                        side=side,
                        quantity=abs(held),
                        size=held,
                        price=mark,
                        fee_rate=rate if held > 0 else -rate,
                        trade_id=exec_id,
                        order_id=order_id,
                        ts=now,
                    )
                )
                self.events += [PositionChanged(account.uid, listing.id, index), WalletChanged(account.uid)]
        self.events.append(FundingStruck(listing.id, rate, mark, now))

    # --- figures ------------------------------------------------------------------------------------

    def worth(self, coin: str) -> Decimal | None:
        """What one of a coin is worth in USDT; None while nobody says."""
        if coin in {"USDT", "USDC"}:
            return _ONE
        market = self._priced_by.get(coin)
        if market is None:
            return None
        return market.pricing.index if market.pricing.index is not None else market.last

    def mark(self, instrument: str) -> Decimal:
        """The mark of a derivative; its last price, or nought, before there is one: nothing can be held then."""
        market = self.markets[instrument]
        return market.mark or market.last or ZERO

    def wallet(self, account: TradingAccount) -> Wallet:
        return wallet(account, self._listings, self.mark, self.worth, haircut)


_ONE = Decimal(1)
_LOG_KIND = {ExecType.TRADE: "TRADE", ExecType.LIQUIDATION: "LIQUIDATION", ExecType.DELEVERAGING: "ADL"}
