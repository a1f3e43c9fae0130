"""The vocabulary: every message the parts of HEAN exchange, and the envelope it travels in.

Three moods. An `Observation` is what the market showed; a `Command` is what should happen; a `Fact`
is what did. Observations are `float`: measurements. Commands and facts about money are `Decimal`:
obligations. Times are integer UTC nanoseconds named `ts_...`.
"""

import enum
from decimal import Decimal

from msgspec import Struct


class Side(enum.IntEnum):
    """The side of an order or a trade; as a number, the sign of what it does to a position."""

    BUY = 1
    SELL = -1

    @property
    def other(self) -> "Side":
        return Side.SELL if self is Side.BUY else Side.BUY


class TimeInForce(enum.StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    POST_ONLY = "PostOnly"


class TradingState(enum.StrEnum):
    """ACTIVE trades; REDUCING may only lessen positions; HALTED does nothing until a person resets it."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class Liquidity(enum.StrEnum):
    MAKER = "maker"
    TAKER = "taker"


class Message(Struct, frozen=True, tag=True, gc=False):
    """Something said. Immutable, so that whoever hears it hears the same."""


class Observation(Message, frozen=True):
    """What the market showed at `ts_event`. The feed alone may conflate observations."""

    instrument: str
    ts_event: int


class Command(Message, frozen=True):
    """What should happen. Never conflated, never dropped."""


class Fact(Message, frozen=True):
    """What did happen. Never conflated, never dropped; the monitor hears every one."""


# --- observations -------------------------------------------------------------------------------


class Trade(Observation, frozen=True):
    """A trade between others; `side` is the taker's. Size in base units."""

    price: float
    size: float
    side: Side


class Quote(Observation, frozen=True):
    """The best bid and offer from this instant on. Sizes in base units."""

    bid: float
    bid_size: float
    ask: float
    ask_size: float


class BookLevels(Observation, frozen=True):
    """A change of the order book: (price, size) pairs; size 0 deletes; a snapshot replaces all."""

    snapshot: bool
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]


class BarOpened(Observation, frozen=True):
    """A candle has begun: its first price, known at its first instant. For the venue alone."""

    open: float


class Bar(Observation, frozen=True):
    """A closed candle, told at its close. `ts_event` is the close, `ts_open` its first instant. Volume in base units."""

    ts_open: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class MarkPrice(Observation, frozen=True):
    """The venue's mark: what positions are valued, margined and funded at."""

    price: float


class PremiumIndex(Observation, frozen=True):
    """One closed minute of the premium index, as a fraction of the index: what funding is made of."""

    premium: float


class FundingRate(Observation, frozen=True):
    """The rate settled at `ts_event`, a fraction of position value for one interval. Positive: longs pay shorts."""

    rate: float


class FeedStale(Fact, frozen=True):
    """The market cannot be seen: nothing has come for longer than the instrument's limit."""

    instrument: str
    ts_last: int


class FeedLive(Fact, frozen=True):
    """The market can be seen again."""

    instrument: str


# --- what a strategy wants ----------------------------------------------------------------------


class Leg(Struct, frozen=True, gc=False):
    """One side of what a strategy wants to hold.

    `weight` is the share of the position the sizer allows: 1 long, -1 short, 0 nothing. `price` is
    what the strategy last saw the leg trade at, and `ts_seen` when: risk sizes by the one and
    refuses a leg whose other is too old.
    """

    instrument: str
    weight: float
    price: float
    ts_seen: int


class Bracket(Struct, frozen=True, gc=False):
    """Exits held at the venue once the entry fills, as prices: a stop-loss, and perhaps a take-profit."""

    stop: float
    target: float | None


class Signal(Command, frozen=True):
    """What a strategy wants to hold from now on, and why. Says nothing of how much: that is risk's word.

    One leg is a position; two are a pair, opened and closed as one. `edge_bp` is the gain it
    expects after all costs, in basis points of notional, and `volatility` the instrument's, per
    year: the sizer reads both; either may be unknown. `context` names the market it was decided in, for decision memory.
    """

    strategy: str
    legs: tuple[Leg, ...]
    reason: str
    edge_bp: float | None
    volatility: float | None
    bracket: Bracket | None
    context: str


class SignalRefused(Fact, frozen=True):
    """Risk said no: the rule's stable code, the figure measured and the limit it broke, as people read them."""

    strategy: str
    instrument: str
    rule: str
    measured: str
    limit: str


# --- orders -------------------------------------------------------------------------------------


class OrderBracket(Struct, frozen=True, gc=False):
    """A bracket in ticks of the instrument: what the venue holds."""

    stop: Decimal
    target: Decimal | None


LAST_RESORT = "lr"
"""What the ids of orders begin with that closed what strategies held while no engine was there to do it."""


class SubmitOrder(Command, frozen=True):
    """An order. `limit` is None for a market order; quantity in base units, always positive.

    `reference` is the price it was decided at: what slippage is measured from; None where risk closes on its own
    word, at whatever price there is.
    """

    client_order_id: str
    strategy: str
    instrument: str
    side: Side
    quantity: Decimal
    limit: Decimal | None
    time_in_force: TimeInForce
    reduce_only: bool
    reference: Decimal | None
    bracket: OrderBracket | None


class PairLeg(Struct, frozen=True, gc=False):
    """One leg of a pair: what to trade, from where, and the price seen when it was decided."""

    instrument: str
    side: Side
    quantity: Decimal
    reference: Decimal


class SubmitPair(Command, frozen=True):
    """Two legs to be traded as one. The `lead` goes first, as maker; every fill of it is hedged with the `hedge`.

    `opening` is False when the pair reduces what is held. `max_naked` bounds, in quote currency, what
    may stand unhedged; the rest of the limits are the executor's own. `reduce_only` is whether what takes a contract
    back, in closing or unwinding, may say so to the venue: only while no other strategy stands against this one, for
    the venue knows one net position.
    """

    pair_id: str
    strategy: str
    lead: PairLeg
    hedge: PairLeg
    opening: bool
    max_naked: Decimal
    reduce_only: bool


class AmendOrder(Command, frozen=True):
    """A new quantity (in all, base units) or limit for an open order; None leaves it."""

    strategy: str
    client_order_id: str
    instrument: str
    quantity: Decimal | None
    limit: Decimal | None


class CancelOrder(Command, frozen=True):
    strategy: str
    client_order_id: str
    instrument: str


class CancelAll(Command, frozen=True):
    """Cancel every resting entry order of `strategy`, or of all where it is empty. Protective stops stay."""

    strategy: str


class OrderFact(Fact, frozen=True):
    """Something that befell one order."""

    client_order_id: str
    strategy: str
    instrument: str


class OrderSubmitted(OrderFact, frozen=True):
    """The order has left us; nothing is known of it yet."""

    side: Side
    quantity: Decimal


class OrderSent(Fact, frozen=True):
    """An order goes out to the venue at `ts_sent`, for a row of the market that was received at `ts_seen`.

    Said of those orders alone whose row is known; it says nothing of what becomes of them.
    """

    client_order_id: str
    strategy: str
    instrument: str
    ts_seen: int
    ts_sent: int


class OrderAccepted(OrderFact, frozen=True):
    """The venue has it, and it rests."""

    venue_order_id: str


class OrderRejected(OrderFact, frozen=True):
    """The venue's word that the order does not exist."""

    reason: str


class OrderOutcomeUnknown(OrderFact, frozen=True):
    """The venue did not answer, or not readably. The order may be live: it is looked up, never sent again."""

    reason: str


class OrderFilled(OrderFact, frozen=True):
    """Part or all of an order traded.

    `quantity` and `price` are this fill's alone. `fee` is in `fee_currency`, positive when we pay
    it: on spot a buyer pays in the base coin (Bybit v5, *Enum: spot fee currency*). Bybit calls this
    an execution, and may send it more than once: `trade_id` is what makes it unique. `reference` is the
    price the order was decided at, None where it is not known. `exit` marks a fill of a
    venue-held exit: "stop", "target", "liquidation", or empty.
    """

    trade_id: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    reference: Decimal | None
    exit: str
    ts_event: int


class OrderAmended(OrderFact, frozen=True):
    """The venue has changed the order as asked; None is what was left as it was."""

    quantity: Decimal | None
    limit: Decimal | None


class OrderCanceled(OrderFact, frozen=True):
    reason: str


class OrderExpired(OrderFact, frozen=True):
    """The order ended by its own terms: an IOC remainder, a post-only order that would have taken."""

    reason: str


class RestatedOrder(Struct, frozen=True, gc=False):
    """An order under way: what of it may still trade, signed, and what has. `unknown` where the venue has not answered for it."""

    strategy: str
    instrument: str
    remaining: Decimal
    filled: Decimal
    unknown: bool


class OrdersRestated(Fact, frozen=True):
    """All that the broker has under way, after a restart: whatever else was reserved in an earlier life is let go of.

    `remaining` is by client order id, the orders of pairs among them; `pairs` are those at work or waiting, as they were asked for.
    """

    remaining: dict[str, RestatedOrder]
    pairs: tuple[SubmitPair, ...]


class PairFinished(Fact, frozen=True):
    """A pair is over: "done" as asked, "unwound" because a leg could not be traded, or "broken" with a leg left naked."""

    pair_id: str
    strategy: str
    outcome: str
    reason: str


# --- money --------------------------------------------------------------------------------------


class PositionChanged(Fact, frozen=True):
    """What one strategy holds of one instrument now.

    `quantity` is signed, in base units, in whole steps; `dust` is the part below a step that cannot
    be traded. `entry` is the mean price paid for it, 0 when flat.
    """

    strategy: str
    instrument: str
    quantity: Decimal
    dust: Decimal
    entry: Decimal


class FundingSettled(Fact, frozen=True):
    """Funding moved for one instrument of the account: `amount` in the settlement coin, positive when received."""

    settlement_id: str
    instrument: str
    quantity: Decimal
    rate: Decimal
    mark: Decimal
    amount: Decimal
    ts_event: int


class InterestCharged(Fact, frozen=True):
    """Interest on what the account has borrowed: `amount` in `currency`, positive when paid. `charge_id` makes it unique."""

    charge_id: str
    currency: str
    borrowed: Decimal
    amount: Decimal
    ts_event: int


class EquityChanged(Fact, frozen=True):
    """The account's worth in quote currency, marked now: all that limits and the kill switch look at.

    `cash` is what the books hold of the currency itself, unrealised profit left out: the venue's wallet says the same.
    """

    equity: Decimal
    cash: Decimal
    marks_known: bool


class ProfitParts(Struct, frozen=True):
    """What a strategy's net profit is made of up to now, in quote currency, and what was brought in for it.

    The parts are those of the books: see `hean.portfolio.accounting.Profit`.
    """

    price: Decimal
    basis: Decimal
    funding: Decimal
    fees: Decimal
    slippage: Decimal
    interest: Decimal
    adjustments: Decimal
    brought_in: Decimal


class ProfitsStated(Fact, frozen=True):
    """Each strategy's profit in parts, by its name; the empty name is what no strategy owns. For people: nobody trades by it.

    It is said just before the `EquityChanged` that it takes apart.
    """

    strategies: dict[str, ProfitParts]


class CapitalAllocated(Fact, frozen=True):
    """A strategy's share of the account's equity, between 0 and 1."""

    strategy: str
    share: Decimal


# --- the venue's word against ours --------------------------------------------------------------


class SnapshotAccount(Command, frozen=True):
    """Ask the venue what it holds of ours."""

    request_id: int


class VenueOrder(Struct, frozen=True, gc=False):
    client_order_id: str
    instrument: str
    side: Side
    quantity: Decimal
    filled: Decimal


class EntryKind(enum.StrEnum):
    """What a line of the venue's log is about."""

    FILL = "fill"
    FUNDING = "funding"
    INTEREST = "interest"
    OTHER = "other"


class VenueEntry(Struct, frozen=True, gc=False):
    """Something the venue has booked, by the id that we know it by.

    `amount` is in `currency`: the fee of a fill, positive when paid; funding, positive when received; interest, positive when
    paid; of anything else what it changed the balance by.
    """

    entry_id: str
    kind: EntryKind
    instrument: str
    currency: str
    amount: Decimal
    ts_event: int


class AccountSnapshot(Fact, frozen=True):
    """The venue's own word at `ts_event`. `complete` is False when any part of the query failed: then nothing is known.

    `entries` are the mean prices positions were entered at, by instrument. `modes` is what is set, in the venue's words:
    "margin" for the account, "<instrument> position" and "<instrument> leverage" for a contract. `booked` is what it has
    booked since some time before it was last asked.
    """

    request_id: int
    ts_event: int
    complete: bool
    orders: tuple[VenueOrder, ...]
    positions: dict[str, Decimal]
    balances: dict[str, Decimal]
    entries: dict[str, Decimal]
    modes: dict[str, str]
    booked: tuple[VenueEntry, ...]


class ReconcileDue(Fact, frozen=True):
    """Something happened after which what we believe must be compared: the private stream was away, or unreadable."""

    reason: str


OPENING = "opening balance"
"""Why what was in the account before us is entered in the books: it is brought in, and no profit."""


class AdjustBooks(Command, frozen=True):
    """Make the books say what the venue does, where nothing that was told explains the difference.

    `adjustment_id` is a function of what is corrected, so that the same correction is made once. `quantity` is
    added to `instrument`, at `price`; where `instrument` is empty, to the cash of `currency`. Where both are named,
    `quantity` of the currency goes from what the position was entered at into cash, and nobody gains by it: the venue
    realised profit at another time. The market is never touched.
    """

    adjustment_id: str
    strategy: str
    instrument: str
    currency: str
    quantity: Decimal
    price: Decimal
    reason: str


class BooksAdjusted(Fact, frozen=True):
    """An entry in the books that no fill, settlement or charge explains: it is flagged for ever."""

    adjustment_id: str
    strategy: str
    instrument: str
    currency: str
    quantity: Decimal
    price: Decimal
    reason: str


class DiscrepancyKind(enum.StrEnum):
    """In what ours and theirs differ.

    A fill of which we were never told is UNKNOWN_FILL; a fee, or funding and interest, that was booked otherwise than told
    is FEE or FUNDING; profit realised at another time than we thought shows as AVG_PRICE.
    """

    MISSING_LOCAL = "MISSING_LOCAL"
    MISSING_VENUE = "MISSING_VENUE"
    QUANTITY = "QUANTITY"
    AVG_PRICE = "AVG_PRICE"
    UNKNOWN_FILL = "UNKNOWN_FILL"
    BALANCE = "BALANCE"
    FEE = "FEE"
    FUNDING = "FUNDING"
    MODE = "MODE"
    LEG_IMBALANCE = "LEG_IMBALANCE"


class Severity(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


class Discrepancy(Fact, frozen=True):
    """Ours and the venue's word differ, and did so twice. `subject` is an order id, an instrument or a coin."""

    kind: DiscrepancyKind
    severity: Severity
    subject: str
    ours: str
    theirs: str


class ReconcileCompleted(Fact, frozen=True):
    """A comparison was made, against a snapshot that was complete."""

    request_id: int
    discrepancies: int
    flat: bool


class VerifyFlat(Command, frozen=True):
    """After the kill switch: ask the venue whether anything is left."""


# --- control ------------------------------------------------------------------------------------


class EpochBegan(Fact, frozen=True):
    """A new life of the core has begun: ids given from now on carry its number, and trading is HALTED until started."""

    epoch: int


class StartTrading(Command, frozen=True):
    """Trade, unless the kill switch is latched. Who asked for it, and why, where that is known."""

    person: str = ""
    reason: str = ""


class StopTrading(Command, frozen=True):
    """Stop opening positions; with `flatten`, close what is held as well.

    With `finish`, what is being opened may come to its end first: nothing is called back.
    """

    flatten: bool
    finish: bool = False
    person: str = ""
    reason: str = ""


class SwitchStrategy(Command, frozen=True):
    """A person lets one strategy open positions, or forbids it. What it holds it may close either way."""

    strategy: str
    on: bool
    person: str
    reason: str


class StrategySwitched(Fact, frozen=True):
    """A strategy may open positions from now on, or may not: who says so, and why. It stays so over restarts."""

    strategy: str
    on: bool
    person: str
    reason: str


class TradingStateChanged(Fact, frozen=True):
    trading: TradingState
    reason: str


class KillSwitchTripped(Fact, frozen=True):
    """Who pulled it and on what figure. Latched: only a person puts it back."""

    cause: str
    measured: str
    limit: str


class PullKillSwitch(Command, frozen=True):
    """A person pulls the kill switch, and says why: everything is cancelled and closed, and it latches."""

    person: str
    reason: str


class KillSwitchReset(Command, frozen=True):
    """A person lifts the kill switch, and says why."""

    person: str
    reason: str


class ErrorReported(Fact, frozen=True):
    """Something failed that a component could not hear of otherwise: counted by the kill switch."""

    node: str
    kind: str
    detail: str


CORE = "core"
"""In the place of a node: all without which there is no trading."""


class NodeStarted(Fact, frozen=True):
    """A node has begun, or begun anew, and is connected; `CORE` where that is all of them."""

    node: str


class NodeFailed(Fact, frozen=True):
    node: str
    reason: str


class Wake(Fact, frozen=True):
    """The time a component asked for has come."""


# --- processes ----------------------------------------------------------------------------------


class ProcessRequested(Command, frozen=True):
    """Begin a process; where a run of this id failed or was cancelled, let it go on at the step it came to."""

    process: str
    run_id: str
    arguments: dict[str, str]


class CancelProcess(Command, frozen=True):
    """A person ends a run before it is done, and says why; what it has under way is cleared up."""

    run_id: str
    person: str
    reason: str


class ProcessStarted(Fact, frozen=True):
    process: str
    run_id: str


class ProcessFinished(Fact, frozen=True):
    """A run is over: `outcome` is "completed", or "failed" or "canceled" and why. `report` says what it found, by name."""

    run_id: str
    outcome: str
    report: dict[str, str] = {}


# --- the envelope -------------------------------------------------------------------------------


class Envelope(Struct, frozen=True, gc=False, omit_defaults=True):
    """How a message travelled.

    `source` and `seq` (its place in that source's output) are its id, counted and never drawn.
    `trace` is the id of what set it all going, `cause` of what it directly answers. `ts_seen` is when the row of the market
    that set it all going was received; 0 where none did, and where the market is a tape.
    """

    source: str
    seq: int
    ts_init: int
    trace: str
    cause: str
    message: Message
    ts_seen: int = 0

    @property
    def id(self) -> str:
        return f"{self.source}:{self.seq}"
