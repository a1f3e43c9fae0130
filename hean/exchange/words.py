"""What the exchange keeps of orders and money, and what it says when they change.

Money is `Decimal`, time is integer UTC nanoseconds; instruments are named as everywhere in HEAN
(`BTCUSDT-LINEAR.BYBIT`), coins as the venue does. The terms and their values are those of Bybit's V5.
"""

import enum
from decimal import Decimal

from msgspec import Struct, field

from hean.messages import Side, TimeInForce

ZERO = Decimal(0)


class OrderType(enum.StrEnum):
    LIMIT = "Limit"
    MARKET = "Market"


class TriggerBy(enum.StrEnum):
    """The price that a trigger watches."""

    LAST = "LastPrice"
    INDEX = "IndexPrice"
    MARK = "MarkPrice"


class TpslMode(enum.StrEnum):
    """Whether exits close the whole position, whatever its size, or a part of their own."""

    FULL = "Full"
    PARTIAL = "Partial"


class Smp(enum.StrEnum):
    """Self-match prevention: what gives way when an incoming order meets one of the same account."""

    NONE = "None"
    CANCEL_MAKER = "CancelMaker"
    CANCEL_TAKER = "CancelTaker"
    CANCEL_BOTH = "CancelBoth"


class OrderFilter(enum.StrEnum):
    """What kind of order a client sends or asks for: a spot TP/SL order reserves its coins, a conditional does not."""

    ORDER = "Order"
    TPSL = "tpslOrder"
    STOP = "StopOrder"


class Status(enum.StrEnum):
    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    UNTRIGGERED = "Untriggered"
    TRIGGERED = "Triggered"
    FILLED = "Filled"
    CANCELLED = "Cancelled"
    PARTIALLY_FILLED_CANCELED = "PartiallyFilledCanceled"
    REJECTED = "Rejected"
    DEACTIVATED = "Deactivated"

    @property
    def is_open(self) -> bool:
        return self in _OPEN


_OPEN = frozenset({Status.NEW, Status.PARTIALLY_FILLED, Status.UNTRIGGERED, Status.TRIGGERED})


class ExecType(enum.StrEnum):
    TRADE = "Trade"
    FUNDING = "Funding"
    LIQUIDATION = "BustTrade"
    DELEVERAGING = "AdlTrade"


# --- what a client asks ---------------------------------------------------------------------------


class Trigger(Struct, frozen=True):
    """An order that waits for a price: `rising` up to it, or falling down to it."""

    price: Decimal
    rising: bool
    by: TriggerBy = TriggerBy.LAST


class Exit(Struct, frozen=True):
    """A take-profit or stop-loss: at market once `price` is reached, or at `limit`."""

    price: Decimal
    by: TriggerBy = TriggerBy.LAST
    limit: Decimal | None = None


class NewOrder(Struct, frozen=True, kw_only=True):
    """An order as a client asks for it, its words understood and its numbers read.

    `quantity` is in base units, or in quote currency where `in_quote`; nought closes the position where the
    order is reduce-only and close-on-trigger. `price` is None for a market order.
    """

    instrument: str
    side: Side
    kind: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    link_id: str = ""
    position_idx: int = 0
    reduce_only: bool = False
    close_on_trigger: bool = False
    trigger: Trigger | None = None
    take_profit: Exit | None = None
    stop_loss: Exit | None = None
    tpsl_mode: TpslMode = TpslMode.FULL
    smp: Smp = Smp.NONE
    in_quote: bool = False
    order_filter: OrderFilter = OrderFilter.ORDER
    leveraged: bool = False
    slippage_type: str = ""
    slippage: Decimal | None = None

    @property
    def only_reduces(self) -> bool:
        """Whether it can never open a position: by its own word, or as the closing side of a hedge-mode index."""
        return self.reduce_only or (self.position_idx, self.side) in _CLOSING

    @property
    def stop_order_type(self) -> str:
        """What the venue calls it while it waits for its trigger."""
        if self.trigger is None:
            return ""
        return "tpslOrder" if self.order_filter is OrderFilter.TPSL else "Stop"


_CLOSING = frozenset({(1, Side.SELL), (2, Side.BUY)})


class Which(Struct, frozen=True, kw_only=True):
    """An order as a client names it: `order_id` wins over `link_id`."""

    instrument: str
    order_id: str = ""
    link_id: str = ""


class Amendment(Struct, frozen=True, kw_only=True):
    """What is to change of an open order; None leaves it. An exit at price 0 removes it."""

    which: Which
    quantity: Decimal | None = None
    price: Decimal | None = None
    trigger_price: Decimal | None = None
    trigger_by: TriggerBy | None = None
    take_profit: Exit | None = None
    stop_loss: Exit | None = None


class TradingStop(Struct, frozen=True, kw_only=True):
    """Exits set on a position; None leaves one as it is, price 0 removes it.

    `trailing` is a distance in price, active at once or from `active_price` on. `take_size` and `stop_size`
    are of partial exits, None for the whole position.
    """

    instrument: str
    position_idx: int
    mode: TpslMode
    take_profit: Exit | None = None
    stop_loss: Exit | None = None
    take_size: Decimal | None = None
    stop_size: Decimal | None = None
    trailing: Decimal | None = None
    active_price: Decimal | None = None


# --- what the exchange keeps ----------------------------------------------------------------------


class Order(Struct, kw_only=True):
    """An order and what became of it. It is changed in place; what is said of it is a copy.

    `quantity` and `left` are in base units, or in quote currency for a market buy of spot given so (`in_quote`). `filled` is
    base units, `value` quote currency. `fees` are by coin, positive when paid. The price of a market order is the limit the
    venue holds it to. `sibling` is the other of a take-profit and stop-loss pair: one fired cancels the other; `children` are
    the exits that its fills have made; `whole` exits close all of the position, whatever its size. A trailing stop follows at
    the distance `trailing`, from `active_price` on; it has no trigger before. `reserved` is what it ties up: quote value of a
    derivative order, coins of a spot order. `place` counts arrivals in the book, 0 before the first: of two orders at one
    price the lower has priority.
    """

    order_id: str
    link_id: str
    uid: str
    instrument: str
    side: Side
    kind: OrderType
    quantity: Decimal
    left: Decimal
    price: Decimal | None
    time_in_force: TimeInForce
    ts_created: int
    ts_updated: int
    status: Status = Status.NEW
    position_idx: int = 0
    reduce_only: bool = False
    close_on_trigger: bool = False
    trigger: Trigger | None = None
    take_profit: Exit | None = None
    stop_loss: Exit | None = None
    tpsl_mode: TpslMode | None = None
    smp: Smp = Smp.NONE
    smp_order_id: str = ""
    in_quote: bool = False
    order_filter: OrderFilter = OrderFilter.ORDER
    leveraged: bool = False
    slippage_type: str = ""
    slippage: Decimal | None = None
    stop_order_type: str = ""
    create_type: str = "CreateByUser"
    cancel_type: str = "UNKNOWN"
    reject_reason: str = "EC_NoError"
    filled: Decimal = ZERO
    value: Decimal = ZERO
    fees: dict[str, Decimal] = field(default_factory=dict)
    closed_pnl: Decimal = ZERO
    last_on_create: Decimal = ZERO
    parent_link_id: str = ""
    sibling: str = ""
    children: tuple[str, ...] = ()
    whole: bool = False
    trailing: Decimal | None = None
    active_price: Decimal | None = None
    reserved: Decimal = ZERO
    place: int = 0

    @property
    def only_reduces(self) -> bool:
        """Whether it can never open a position: by its own word, or as the closing side of a hedge-mode index."""
        return self.reduce_only or (self.position_idx, self.side) in _CLOSING

    @property
    def average(self) -> Decimal | None:
        """Mean price of what has been filled; None before the first fill."""
        return self.value / self.filled if self.filled else None


class Execution(Struct, frozen=True, kw_only=True):
    """One fill, or one settlement of funding. `fee` is positive when paid; `pnl` is of the part it closed."""

    exec_id: str
    uid: str
    instrument: str
    exec_type: ExecType
    side: Side
    price: Decimal
    quantity: Decimal
    value: Decimal
    fee: Decimal
    fee_coin: str
    fee_rate: Decimal
    maker: bool
    mark: Decimal | None
    index: Decimal | None
    ts: int
    seq: int
    order_id: str = ""
    link_id: str = ""
    kind: OrderType | None = None
    order_price: Decimal | None = None
    order_quantity: Decimal = ZERO
    left: Decimal = ZERO
    stop_order_type: str = ""
    create_type: str = ""
    closed: Decimal = ZERO
    pnl: Decimal = ZERO
    leveraged: bool = False
    in_quote: bool = False


class LogRow(Struct, frozen=True, kw_only=True):
    """One line of the transaction log: `change` = `cash_flow` + `funding` - `fee`, always (Bybit v5, *Transaction Log*)."""

    row_id: str
    uid: str
    kind: str
    currency: str
    change: Decimal
    balance: Decimal
    ts: int
    cash_flow: Decimal = ZERO
    funding: Decimal | None = None
    fee: Decimal = ZERO
    instrument: str = ""
    side: Side | None = None
    quantity: Decimal = ZERO
    size: Decimal = ZERO
    price: Decimal | None = None
    fee_rate: Decimal | None = None
    trade_id: str = ""
    order_id: str = ""
    link_id: str = ""


class ClosedPnl(Struct, kw_only=True):
    """What one order closed of a position: entry and exit as totals, and the profit after the fees of both."""

    uid: str
    instrument: str
    order_id: str
    side: Side
    kind: OrderType
    exec_type: ExecType
    order_price: Decimal
    quantity: Decimal
    closed: Decimal
    entry_value: Decimal
    exit_value: Decimal
    pnl: Decimal
    fills: int
    leverage: Decimal
    open_fee: Decimal
    close_fee: Decimal
    ts_created: int
    ts_updated: int


# --- what the exchange says -----------------------------------------------------------------------


class OrderChanged(Struct, frozen=True):
    """The order as it is now: a copy."""

    order: Order


class Executed(Struct, frozen=True):
    execution: Execution


class Logged(Struct, frozen=True):
    row: LogRow


class PnlClosed(Struct, frozen=True):
    """A closed-profit record is new, or grew with another fill of its order."""

    record: ClosedPnl


class PositionChanged(Struct, frozen=True):
    """A position, its settings or its exits changed, or an order of its instrument did: what it is now is asked for."""

    uid: str
    instrument: str
    position_idx: int


class WalletChanged(Struct, frozen=True):
    """A balance of the account changed."""

    uid: str


class AccountChanged(Struct, frozen=True):
    """A setting of the account changed: leverage, mode, disconnect window, used link ids."""

    uid: str


class Printed(Struct, frozen=True):
    """A trade as the public sees it; `side` is the taker's."""

    instrument: str
    exec_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    ts: int
    seq: int


class Liquidated(Struct, frozen=True):
    """A position was taken over at its bankruptcy price; `side` is the position's, BUY for a long."""

    instrument: str
    side: Side
    quantity: Decimal
    price: Decimal
    ts: int


class FundingStruck(Struct, frozen=True):
    """The rate of an interval is final and has been settled."""

    instrument: str
    rate: Decimal
    mark: Decimal
    ts: int


Event = (
    OrderChanged
    | Executed
    | Logged
    | PnlClosed
    | PositionChanged
    | WalletChanged
    | AccountChanged
    | Printed
    | Liquidated
    | FundingStruck
)
