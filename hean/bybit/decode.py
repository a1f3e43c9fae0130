"""Bybit V5 payloads into the words of HEAN: observations, and what the venue says of orders, fills and money.

Every function is pure and raises nothing but `DataError`, whatever it is fed.
"""

import enum
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from msgspec import Struct

from hean.bybit.wire import (
    Answer,
    BookData,
    Clock,
    ExecutionRow,
    FundingRow,
    KeyRights,
    Kline,
    KlineRow,
    LogRow,
    OrderRow,
    Page,
    PositionRow,
    PriceRow,
    PublicTrade,
    Push,
    RestBook,
    RestTrade,
    TickerData,
    WalletRow,
    read,
)
from hean.errors import DataError
from hean.instruments import Category, Instrument, instrument_id
from hean.messages import (
    Bar,
    BookLevels,
    EntryKind,
    FundingRate,
    FundingSettled,
    InterestCharged,
    Liquidity,
    MarkPrice,
    PremiumIndex,
    Side,
    Trade,
    VenueEntry,
)
from hean.units import MILLISECOND

VENUE = "BYBIT"

_SIDES = {"Buy": Side.BUY, "Sell": Side.SELL}
_CATEGORIES = {"linear": Category.LINEAR, "spot": Category.SPOT, "inverse": Category.INVERSE}


def push(payload: object) -> Push:
    return read(Push, payload, "a push")


def answer(payload: object) -> Answer:
    return read(Answer, payload, "an answer")


def server_time(result: Mapping[str, Any]) -> int:
    """The venue's clock, in nanoseconds."""
    return read(Clock, dict(result), "market/time").time_nano


# --- the market ---------------------------------------------------------------------------------


class BookUpdate(Struct, frozen=True):
    """A change of an order book, and its place in the chain of updates: `u` rises by one from each to the next."""

    u: int
    levels: BookLevels


class Print(Struct, frozen=True):
    """A public trade with what tells it from others: its id, and its place in the matching engine's count."""

    trade_id: str
    seq: int
    trade: Trade


def book_update(said: Push, instrument: str) -> BookUpdate:
    """Read an `orderbook` push. One with `u` 1 is a snapshot whatever it calls itself: the service began anew."""
    data = read(BookData, said.data, said.topic)
    snapshot = said.type == "snapshot" or data.u == 1
    return BookUpdate(data.u, _levels(data, instrument, said.cts or said.ts, snapshot=snapshot))


def rest_book(result: Mapping[str, Any], instrument: str) -> BookUpdate:
    """Read an answer of `market/orderbook`."""
    data = read(RestBook, dict(result), "market/orderbook")
    return BookUpdate(data.u, _levels(data, instrument, data.cts or data.ts, snapshot=True))


def _levels(data: BookData | RestBook, instrument: str, ms: int, *, snapshot: bool) -> BookLevels:
    bids = tuple((float(price), float(size)) for price, size in data.b)
    asks = tuple((float(price), float(size)) for price, size in data.a)
    return BookLevels(instrument, ms * MILLISECOND, snapshot, bids, asks)


def prints(said: Push, instrument: str) -> list[Print]:
    """Read a `publicTrade` push, oldest first."""
    return [
        Print(
            row.trade_id,
            row.seq,
            Trade(instrument, row.ts * MILLISECOND, float(row.price), float(row.size), _SIDES[row.side]),
        )
        for row in read(list[PublicTrade], said.data, said.topic)
    ]


def rest_prints(result: Mapping[str, Any], instrument: str) -> list[Print]:
    """Read an answer of `market/recent-trade`, turned round: oldest first."""
    rows = read(list[RestTrade], _rows(result), "market/recent-trade")
    return [
        Print(
            row.exec_id,
            row.seq,
            Trade(instrument, row.time * MILLISECOND, float(row.price), float(row.size), _SIDES[row.side]),
        )
        for row in reversed(rows)
    ]


class Ticker(Struct):
    """What tickers have said of one instrument so far; None where nothing yet."""

    known: bool = False
    mark: float | None = None
    index: float | None = None
    last: float | None = None
    predicted: float | None = None
    ts_next_funding: int | None = None
    open_interest: float | None = None

    def fold(self, said: Push, instrument: str) -> MarkPrice | None:
        """Take a push in; the new mark, where there is one. A delta before any snapshot says too little to be kept."""
        data = read(TickerData, said.data, said.topic)
        if said.type != "delta":
            self.known = True
            self.mark = self.index = self.last = self.predicted = self.ts_next_funding = self.open_interest = None
        if not self.known:
            return None
        before = self.mark
        self.mark = _kept(data.mark_price, self.mark)
        self.index = _kept(data.index_price, self.index)
        self.last = _kept(data.last_price, self.last)
        self.predicted = _kept(data.funding_rate, self.predicted)
        self.open_interest = _kept(data.open_interest, self.open_interest)
        if data.next_funding_time:
            self.ts_next_funding = int(Decimal(data.next_funding_time)) * MILLISECOND
        if self.mark is None or self.mark == before:
            return None
        return MarkPrice(instrument, said.ts * MILLISECOND, self.mark)


def _kept(said: str | None, before: float | None) -> float | None:
    return float(said) if said else before


def bars(said: Push, instrument: str) -> list[Bar]:
    """Read a `kline` push: the candles in it that are closed. Until then they are the minute so far."""
    return [
        Bar(
            instrument,
            (row.end + 1) * MILLISECOND,
            row.start * MILLISECOND,
            *(float(x) for x in (row.open, row.high, row.low, row.close, row.volume)),
        )
        for row in read(list[Kline], said.data, said.topic)
        if row.confirm
    ]


def rest_bars(result: Mapping[str, Any], instrument: str, *, length: int, until: int) -> list[Bar]:
    """Read an answer of `market/kline`, oldest first: the candles that had closed by `until`, each `length` long."""
    rows = read(list[KlineRow], _rows(result), "market/kline")
    return [
        Bar(instrument, row[0] * MILLISECOND + length, row[0] * MILLISECOND, *(float(x) for x in row[1:6]))
        for row in reversed(rows)
        if row[0] * MILLISECOND + length <= until
    ]


def premia(result: Mapping[str, Any], instrument: str, *, length: int, until: int) -> list[PremiumIndex]:
    """Read an answer of `market/premium-index-price-kline`, oldest first: the closes of the minutes that had ended."""
    rows = read(list[PriceRow], _rows(result), "market/premium-index-price-kline")
    return [
        PremiumIndex(instrument, row[0] * MILLISECOND + length, float(row[4]))
        for row in reversed(rows)
        if row[0] * MILLISECOND + length <= until
    ]


def settlements(result: Mapping[str, Any], instrument: str) -> list[FundingRate]:
    """Read an answer of `market/funding/history`, oldest first."""
    rows = read(list[FundingRow], _rows(result), "market/funding/history")
    return [
        FundingRate(instrument, row.funding_rate_timestamp * MILLISECOND, float(row.funding_rate))
        for row in reversed(rows)
    ]


# --- orders -------------------------------------------------------------------------------------


class OrderStage(enum.StrEnum):
    """Where an order stands at the venue. EXPIRED ended by its own terms, CANCELED by somebody's hand."""

    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"


class OrderWord(Struct, frozen=True):
    """The venue's word on an order. `link_id` is empty where the venue made it itself; `parent` made it exist."""

    order_id: str
    link_id: str
    parent: str
    instrument: str
    side: Side
    quantity: Decimal
    filled: Decimal
    stage: OrderStage
    reason: str
    exit: str
    ts_updated: int
    limit: Decimal | None = None


_OPEN = frozenset({"New", "PartiallyFilled", "Untriggered", "Triggered"})
_OVER = frozenset({"Cancelled", "PartiallyFilledCanceled", "Deactivated", "Rejected"})
# Bybit v5, *Enum: rejectReason*: ends that lie in what the order itself asked for.
_OWN_TERMS = frozenset(
    {
        "EC_PostOnlyWillTakeLiquidity",
        "EC_NoImmediateQtyToFill",
        "EC_NoEnoughQtyToFill",
        "EC_CancelForNoFullFill",
        "EC_ReachMarketPriceLimit",
        "EC_ReachRiskPriceLimit",
    }
)
BRACKET = "bracket"
"""An exit of which the venue does not say whether it is the stop or the target."""

_EXITS = {
    "StopLoss": "stop",
    "PartialStopLoss": "stop",
    "TrailingStop": "stop",
    "TakeProfit": "target",
    "PartialTakeProfit": "target",
    # Spot does not say which of the two it is.
    "tpslOrder": BRACKET,
    "OcoOrder": BRACKET,
}
_FORCED = ("CreateByLiq", "CreateByTakeOver", "CreateByAdl", "CreateByBrokerLiq")


def orders(rows: object, category: str | None = None) -> list[OrderWord]:
    """Read orders, from the data of an `order` push or the list of an answer; options are passed over."""
    return [word for row in read(list[OrderRow], rows, "order") for word in _order(row, category)]


def _order(row: OrderRow, category: str | None) -> Iterator[OrderWord]:
    instrument = _instrument(row.symbol, row.category or category, "order")
    if instrument is None:
        return
    stage, reason = _stage(row)
    yield OrderWord(
        order_id=row.order_id,
        link_id=row.order_link_id,
        parent=row.parent_order_link_id,
        instrument=instrument,
        side=_SIDES[row.side],
        quantity=_decimal(row.qty),
        filled=_decimal(row.cum_exec_qty),
        stage=stage,
        reason=reason,
        exit=_exit(row.stop_order_type, row.create_type),
        ts_updated=row.updated_time * MILLISECOND,
        limit=_maybe(row.price),
    )


def _stage(row: OrderRow) -> tuple[OrderStage, str]:
    status = row.order_status
    if status in _OPEN:
        return OrderStage.OPEN, ""
    if status == "Filled":
        return OrderStage.FILLED, ""
    if status not in _OVER:
        raise DataError(f"order {row.order_id} has the status {status!r}, which is unknown", remedy="a later HEAN may")
    reason = " ".join(
        word for word in (row.cancel_type, row.reject_reason) if word not in {"", "UNKNOWN", "EC_NoError"}
    )
    by_itself = row.cancel_type in {"", "UNKNOWN"} and row.time_in_force in {"IOC", "FOK"}
    if row.reject_reason in _OWN_TERMS or by_itself or status == "Rejected":
        return OrderStage.EXPIRED, reason or f"{row.time_in_force} remainder"
    return OrderStage.CANCELED, reason or status


def _exit(stop_order_type: str, create_type: str) -> str:
    if create_type.startswith(_FORCED):
        return "liquidation"
    return _EXITS.get(stop_order_type, "")


# --- executions ---------------------------------------------------------------------------------


class Execution(Struct, frozen=True):
    """A fill of one of the account's orders. `fee` is positive when paid."""

    exec_id: str
    order_id: str
    link_id: str
    instrument: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    exit: str
    ts_event: int
    seq: int

    @property
    def trade_id(self) -> str:
        """What makes it unique: `exec_id` is the match's, and two orders of one account may have met each other.

        A line of the transaction log names both, so that a ledger of fills can be laid beside it: `Transaction.ledger_id`.
        """
        return fill_id(self.exec_id, self.order_id)


def fill_id(exec_id: str, order_id: str) -> str:
    """The name of one order's part in a match."""
    return f"{exec_id}:{order_id}"


_FILLS = frozenset({"Trade", "AdlTrade", "BustTrade", "Settle", "Delivery", "BlockTrade", "MovePosition"})
_FORCED_FILLS = frozenset({"AdlTrade", "BustTrade"})


def executions(
    rows: object, instruments: Mapping[str, Instrument], category: str | None = None
) -> list[Execution | FundingSettled]:
    """Read executions, from the data of an `execution` push or the list of an answer; options are passed over."""
    return [
        said for row in read(list[ExecutionRow], rows, "execution") for said in _execution(row, instruments, category)
    ]


def _execution(
    row: ExecutionRow, instruments: Mapping[str, Instrument], category: str | None
) -> Iterator[Execution | FundingSettled]:
    instrument = _instrument(row.symbol, row.category or category, "execution")
    if instrument is None:
        return
    if row.exec_type == "Funding":
        yield _settled(row, instrument)
        return
    if row.exec_type not in _FILLS or not row.side:
        raise DataError(
            f"execution {row.exec_id} is of the type {row.exec_type!r}, side {row.side!r}, which is unknown",
            remedy="compare positions with the venue's; a later HEAN may",
        )
    side = _SIDES[row.side]
    yield Execution(
        exec_id=row.exec_id,
        order_id=row.order_id,
        link_id=row.order_link_id,
        instrument=instrument,
        side=side,
        quantity=_decimal(row.exec_qty),
        price=_decimal(row.exec_price),
        fee=_decimal(row.exec_fee),
        fee_currency=row.fee_currency or _fee_currency(instrument, side, row, instruments),
        liquidity=Liquidity.MAKER if row.is_maker else Liquidity.TAKER,
        exit="liquidation" if row.exec_type in _FORCED_FILLS else _exit(row.stop_order_type, row.create_type),
        ts_event=row.exec_time * MILLISECOND,
        seq=row.seq,
    )


def _settled(row: ExecutionRow, instrument: str) -> FundingSettled:
    """A settlement of funding.

    An execution's fee is positive when paid, so what is received is its opposite; the transaction log has the sign
    the other way round (Bybit v5, *Get Trade History*, *Get Transaction Log*). The rate is the market's, positive where
    longs pay: a short that pays says so too.
    """
    paid = _decimal(row.exec_fee)
    if not row.fee_rate:
        raise DataError(f"settlement {row.exec_id} names no rate", remedy="ask for the transaction log")
    direction = -1 if row.side == "Sell" else 1
    rate = Decimal(row.fee_rate).copy_abs()
    if paid * direction < 0:
        rate = -rate
    return FundingSettled(
        settlement_id=row.exec_id,
        instrument=instrument,
        quantity=direction * _decimal(row.exec_qty),
        rate=rate,
        mark=_decimal(row.mark_price or row.exec_price),
        amount=-paid,
        ts_event=row.exec_time * MILLISECOND,
    )


def _fee_currency(instrument: str, side: Side, row: ExecutionRow, instruments: Mapping[str, Instrument]) -> str:
    """The coin of a fee where the venue does not name it (Bybit v5, *Enum: spot fee currency*; contracts: the quote)."""
    rules = instruments.get(instrument)
    if rules is None:
        quote = next((coin for coin in ("USDT", "USDC") if row.symbol.endswith(coin)), "")
        if quote and not (instrument.endswith(f"-SPOT.{VENUE}") and side is Side.BUY):
            return quote
        raise DataError(
            f"the fee of execution {row.exec_id} names no coin, and the rules of {instrument} are not known",
            remedy="load its instruments-info",
        )
    return rules.base if rules.is_spot and side is Side.BUY else rules.quote


# --- positions, balances, the log ---------------------------------------------------------------


class Position(Struct, frozen=True):
    """The venue's word on a position; `quantity` is signed, `entry` None where flat."""

    instrument: str
    position_idx: int
    quantity: Decimal
    entry: Decimal | None
    mark: Decimal | None
    liquidation: Decimal | None
    leverage: Decimal | None
    adl_rank: int
    seq: int


def positions(rows: object, category: str | None = None) -> list[Position]:
    """Read positions, from the data of a `position` push or the list of an answer."""
    read_so_far = []
    for row in read(list[PositionRow], rows, "position"):
        instrument = _instrument(row.symbol, row.category or category, "position")
        if instrument is None:
            continue
        size = _decimal(row.size)
        if size and row.side not in _SIDES:
            raise DataError(f"the position in {instrument} of {size} has no side", remedy="ask again")
        read_so_far.append(
            Position(
                instrument=instrument,
                position_idx=row.position_idx,
                quantity=_SIDES[row.side] * size if size else Decimal(0),
                entry=_maybe(row.entry_price or row.avg_price) if size else None,
                mark=_maybe(row.mark_price),
                liquidation=_maybe(row.liq_price),
                leverage=_maybe(row.leverage),
                adl_rank=row.adl_rank_indicator,
                seq=row.seq,
            )
        )
    return read_so_far


def balances(rows: object) -> dict[str, Decimal]:
    """Read what each coin's wallet holds, from a `wallet` push or the list of `account/wallet-balance`.

    Raises:
        DataError: It is not one wallet of a unified account.
    """
    wallets = read(list[WalletRow], rows, "wallet")
    if len(wallets) != 1 or wallets[0].account_type != "UNIFIED":
        raise DataError("the wallet is not that of a unified account", remedy="upgrade the account to UTA")
    return {row.coin: _decimal(row.wallet_balance) for row in wallets[0].coin}


class Transaction(Struct, frozen=True):
    """A line of the transaction log: `change` = `cash_flow` + `funding` - `fee`; funding is positive when received."""

    row_id: str
    kind: str
    instrument: str
    currency: str
    change: Decimal
    cash_flow: Decimal
    funding: Decimal
    fee: Decimal
    balance: Decimal | None
    size: Decimal | None
    price: Decimal | None
    rate: Decimal | None
    trade_id: str
    order_id: str
    link_id: str
    ts_event: int

    @property
    def ledger_id(self) -> str:
        """What the same thing is called in a ledger: the id of a fill, a settlement or a charge, else of the line itself.

        A fill on spot has two lines, one for each coin.
        """
        if not self.trade_id:
            return self.row_id
        return self.trade_id if self.kind == "SETTLEMENT" else fill_id(self.trade_id, self.order_id)


def transactions(rows: object) -> list[Transaction]:
    """Read the list of `account/transaction-log`.

    Raises:
        DataError: A line is malformed, or does not add up.
    """
    return [_transaction(row) for row in read(list[LogRow], rows, "transaction log")]


def _transaction(row: LogRow) -> Transaction:
    change, cash, funding, fee = (_decimal(text) for text in (row.change, row.cash_flow, row.funding, row.fee))
    if change != cash + funding - fee:
        raise DataError(
            f"line {row.id} of the transaction log changes by {change}, its parts by {cash + funding - fee}",
            remedy="compare with the venue's own page",
        )
    instrument = ""
    if row.symbol and row.category in _CATEGORIES:
        instrument = instrument_id(row.symbol, _CATEGORIES[row.category], VENUE)
    return Transaction(
        row_id=row.id,
        kind=row.type,
        instrument=instrument,
        currency=row.currency,
        change=change,
        cash_flow=cash,
        funding=funding,
        fee=fee,
        balance=_maybe(row.cash_balance),
        size=_maybe(row.size),
        price=_maybe(row.trade_price),
        rate=_maybe(row.fee_rate),
        trade_id=row.trade_id,
        order_id=row.order_id,
        link_id=row.order_link_id,
        ts_event=row.transaction_time * MILLISECOND,
    )


def interest(line: Transaction) -> InterestCharged | None:
    """The interest a line of the transaction log charges, if it does."""
    if line.kind != "INTEREST":
        return None
    return InterestCharged(
        line.row_id, line.currency, (line.size or Decimal(0)).copy_abs(), -line.change, line.ts_event
    )


_ENTRIES = {
    "TRADE": EntryKind.FILL,
    "LIQUIDATION": EntryKind.FILL,
    "ADL": EntryKind.FILL,
    "SETTLEMENT": EntryKind.FUNDING,
    "INTEREST": EntryKind.INTEREST,
}


def entry(line: Transaction) -> VenueEntry:
    """A line of the transaction log as it is laid beside what we were told."""
    kind = _ENTRIES.get(line.kind, EntryKind.OTHER)
    amount = {EntryKind.FILL: line.fee, EntryKind.FUNDING: line.funding, EntryKind.INTEREST: -line.change}
    return VenueEntry(
        line.ledger_id, kind, line.instrument, line.currency, amount.get(kind, line.change), line.ts_event
    )


def page(result: Mapping[str, Any], what: str) -> Page:
    return read(Page, dict(result), what)


class KeyUse(Struct, frozen=True):
    """What an API key can do that matters to us."""

    withdraws: bool
    only_reads: bool
    trades_contracts: bool
    trades_spot: bool


def key_use(result: Mapping[str, Any]) -> KeyUse:
    """Read an answer of `user/query-api`. Moving money between accounts of one owner is not withdrawing it."""
    rights = read(KeyRights, dict(result), "user/query-api")
    named = [right for of_kind in rights.permissions.values() for right in of_kind]
    # Unified accounts name the right to contracts twice (Bybit v5, *Get API Key Information*); either is enough.
    contracts = "Order" in rights.permissions.get("ContractTrade", ()) or "DerivativesTrade" in named
    return KeyUse(
        withdraws=any("withdraw" in right.lower() for right in named),
        only_reads=rights.read_only == 1,
        trades_contracts=contracts,
        trades_spot="SpotTrade" in named,
    )


# --- small things -------------------------------------------------------------------------------


def _rows(result: Mapping[str, Any]) -> object:
    rows = result.get("list")
    if rows is None:
        raise DataError("an answer has no list", remedy="ask again")
    return rows


def _instrument(symbol: str, category: str | None, what: str) -> str | None:
    """Name an instrument; None where it is an option, which HEAN does not trade."""
    if category is None:
        raise DataError(f"{what} of {symbol} names no category", remedy="ask again by REST")
    if category == "option":
        return None
    return instrument_id(symbol, _CATEGORIES[category], VENUE)


def category_word(category: Category) -> Literal["linear", "spot", "inverse"]:
    """The venue's own word for a category."""
    return _WORDS[category]


_WORDS: dict[Category, Literal["linear", "spot", "inverse"]] = {
    Category.LINEAR: "linear",
    Category.SPOT: "spot",
    Category.INVERSE: "inverse",
}


def _decimal(text: str) -> Decimal:
    """Read a number of the wire; an empty one is nought where the venue means none."""
    return Decimal(text) if text else Decimal(0)


def _maybe(text: str) -> Decimal | None:
    return Decimal(text) if text else None
