"""What Bybit V5 sends, field by field: pushes of its sockets and rows of its answers.

Strict about what is used, blind to the rest: a field that is not named here is ignored, a named one must be there
and well formed. Numbers are texts in plain notation, so that nothing odd (an exponent, a NaN) reaches a `Decimal`;
where the venue may leave one out it says an empty text. Times are in milliseconds.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from hean.errors import DataError

Number = Annotated[str, Meta(pattern=r"^-?[0-9]{1,24}(\.[0-9]{1,24})?\Z")]
MaybeNumber = Annotated[str, Meta(pattern=r"^(-?[0-9]{1,24}(\.[0-9]{1,24})?)?\Z")]
Millis = Annotated[int, Meta(ge=0, le=9_223_372_036_854)]
Count = Annotated[int, Meta(ge=-1, le=2**63 - 1)]
Id = Annotated[str, Meta(pattern=r"^[ -~]{0,128}\Z")]
Symbol = Annotated[str, Meta(pattern=r"^[A-Z0-9]{1,40}\Z")]
Category = Literal["linear", "spot", "inverse", "option"]
Side = Literal["Buy", "Sell"]
Level = tuple[Number, Number]

T = TypeVar("T")

_ODD = (msgspec.ValidationError, UnicodeError, OverflowError, RecursionError)


def read(shape: type[T], payload: object, what: str) -> T:
    """Read a payload as `shape`.

    Raises:
        DataError: A field is missing or malformed: the text names it.
    """
    try:
        return msgspec.convert(payload, shape, strict=False)
    except _ODD as damage:
        raise DataError(
            f"{what} is not as Bybit V5 has it: {damage}", remedy="ask again by REST; if it stays so, HEAN is too old"
        ) from None


# --- the envelope -------------------------------------------------------------------------------


class Push(Struct, rename="camel"):
    """One message of a stream. Public ones have `ts`, and `cts` where the matching engine's time is known."""

    topic: Id
    data: Any
    type: Literal["snapshot", "delta", ""] = ""
    ts: Millis = 0
    cts: Millis = 0
    creation_time: Millis = 0


class Ack(Struct):
    """The answer to a subscribe, unsubscribe or auth request."""

    op: Id
    success: bool = False
    ret_msg: Annotated[str, Meta(max_length=10_000)] = ""
    req_id: Id = ""


class Answer(Struct, rename="camel"):
    """The envelope of every REST answer."""

    ret_code: int
    result: dict[str, Any]
    time: Millis
    ret_msg: str = ""
    ret_ext_info: Any = None


# --- the market ---------------------------------------------------------------------------------


class BookData(Struct):
    """Levels of an order book; `u` counts the updates of one topic, `seq` is the matching engine's own count."""

    s: Symbol
    b: list[Level]
    a: list[Level]
    u: Count
    seq: Count = 0


class RestBook(Struct):
    s: Symbol
    b: list[Level]
    a: list[Level]
    u: Count
    ts: Millis
    seq: Count = 0
    cts: Millis = 0


class PublicTrade(Struct):
    ts: Millis = field(name="T")
    symbol: Symbol = field(name="s")
    side: Side = field(name="S")
    size: Number = field(name="v")
    price: Number = field(name="p")
    trade_id: Id = field(name="i")
    seq: Count = 0


class RestTrade(Struct, rename="camel"):
    exec_id: Id
    symbol: Symbol
    price: Number
    size: Number
    side: Side
    time: Millis
    seq: Count = 0


class TickerData(Struct, rename="camel"):
    """A ticker or a part of one: a delta names only what changed."""

    symbol: Symbol
    last_price: MaybeNumber | None = None
    mark_price: MaybeNumber | None = None
    index_price: MaybeNumber | None = None
    funding_rate: MaybeNumber | None = None
    next_funding_time: MaybeNumber | None = None
    open_interest: MaybeNumber | None = None


class Kline(Struct):
    """`end` is the candle's last millisecond; `confirm` says that it is closed."""

    start: Millis
    end: Millis
    open: Number
    high: Number
    low: Number
    close: Number
    volume: Number
    confirm: bool


KlineRow = tuple[Millis, Number, Number, Number, Number, Number, Number]
PriceRow = tuple[Millis, Number, Number, Number, Number]


class FundingRow(Struct, rename="camel"):
    symbol: Symbol
    funding_rate: Number
    funding_rate_timestamp: Millis


# --- the account --------------------------------------------------------------------------------


class OrderRow(Struct, rename="camel"):
    """An order, from the stream (which names the category in each row) or from an answer (which names it once)."""

    order_id: Id
    order_link_id: Id
    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9-]{1,40}\Z")]  # options have dashes
    side: Side
    qty: Number
    cum_exec_qty: Number
    order_status: Id
    created_time: Millis
    updated_time: Millis
    category: Category | None = None
    leaves_qty: MaybeNumber = ""
    price: MaybeNumber = ""
    time_in_force: Id = ""
    cancel_type: Id = ""
    reject_reason: Id = ""
    stop_order_type: Id = ""
    create_type: Id = ""
    parent_order_link_id: Id = ""
    reduce_only: bool = False


class ExecutionRow(Struct, rename="camel"):
    exec_id: Id
    exec_type: Id
    order_id: Id
    order_link_id: Id
    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9-]{1,40}\Z")]
    exec_price: Number
    exec_qty: Number
    exec_fee: Number
    exec_time: Millis
    side: Literal["Buy", "Sell", ""]
    is_maker: bool
    category: Category | None = None
    fee_rate: MaybeNumber = ""
    fee_currency: Id = ""
    mark_price: MaybeNumber = ""
    stop_order_type: Id = ""
    create_type: Id = ""
    seq: Count = 0


class PositionRow(Struct, rename="camel"):
    """A position: the stream says `entryPrice` for what an answer calls `avgPrice`."""

    symbol: Annotated[str, Meta(pattern=r"^[A-Z0-9-]{1,40}\Z")]
    side: Literal["Buy", "Sell", "None", ""]
    size: Number
    position_idx: Literal[0, 1, 2]
    category: Category | None = None
    entry_price: MaybeNumber = ""
    avg_price: MaybeNumber = ""
    mark_price: MaybeNumber = ""
    liq_price: MaybeNumber = ""
    leverage: MaybeNumber = ""
    adl_rank_indicator: int = 0
    seq: Count = -1


class CoinRow(Struct, rename="camel"):
    coin: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{1,40}\Z")]
    wallet_balance: Number


class WalletRow(Struct, rename="camel"):
    account_type: Id
    coin: list[CoinRow]


class LogRow(Struct, rename="camel"):
    """A line of the transaction log: `change` = `cashFlow` + `funding` - `fee`."""

    id: Id
    type: Id
    currency: Id
    change: Number
    transaction_time: Millis
    cash_balance: MaybeNumber = ""
    cash_flow: MaybeNumber = ""
    funding: MaybeNumber = ""
    fee: MaybeNumber = ""
    symbol: Id = ""
    category: Id = ""
    side: Id = ""
    qty: MaybeNumber = ""
    size: MaybeNumber = ""
    trade_price: MaybeNumber = ""
    fee_rate: MaybeNumber = ""
    trade_id: Id = ""
    order_id: Id = ""
    order_link_id: Id = ""


class Page(Struct, rename="camel"):
    """One page of an answer: its rows, and where the next begins."""

    list: list[dict[str, Any]]
    next_page_cursor: str | None = None
    category: Category | None = None


class KeyRights(Struct, rename="camel"):
    """What an API key may do. `readOnly` 1 may not trade; the wallet's list names transfers and withdrawals."""

    read_only: Literal[0, 1]
    permissions: dict[str, list[str]]


class Clock(Struct, rename="camel"):
    time_nano: Annotated[int, Meta(ge=0, le=2**63 - 1)]
