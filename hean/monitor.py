"""Everything that was said, folded into what can be seen from outside: status, money, orders, faults."""

import enum
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, localcontext
from typing import Any, Never

from msgspec import Struct, field

from hean.instruments import Instrument
from hean.messages import (
    BooksAdjusted,
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    Fact,
    FeedLive,
    FeedStale,
    FundingSettled,
    InterestCharged,
    KillSwitchTripped,
    Liquidity,
    NodeFailed,
    NodeStarted,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFact,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSent,
    OrdersRestated,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    ProcessFinished,
    ProcessStarted,
    ProfitParts,
    ProfitsStated,
    ReconcileCompleted,
    ReconcileDue,
    Severity,
    Side,
    SignalRefused,
    StrategySwitched,
    TradingState,
    TradingStateChanged,
)
from hean.trips import RoundTrip, Trip, TripBook, Trips
from hean.units import SECOND

ZERO = Decimal(0)
EXACT = Context(prec=60)
REMEMBERED = 20_000
RECENT_KEPT = 500
CURVE_KEPT = 4_000
WAITING_KEPT = 5_000
FILLS_KEPT = 1_000
TRIPS_KEPT = 500
KEPT = 200
"""Of runs, adjustments, differences and kinds of error, the newest are kept: ids are given for ever, memory is not."""


PARTS = ("price", "basis", "funding", "fees", "slippage", "interest", "adjustments")
"""What the profit of a point of the curve is made of."""

TICK_TO_ORDER_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The upper bounds of the histogram's buckets, seconds; one more has no bound."""


class Status(enum.StrEnum):
    """What has befallen an order, in the order in which it may. Each is counted once, however often it is told."""

    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    FILLED = "filled"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"


STATUS: dict[type[Fact], Status] = {
    OrderSubmitted: Status.SUBMITTED,
    OrderAccepted: Status.ACCEPTED,
    OrderFilled: Status.FILLED,
    OrderOutcomeUnknown: Status.UNKNOWN,
    OrderRejected: Status.REJECTED,
    OrderCanceled: Status.CANCELED,
    OrderExpired: Status.EXPIRED,
}
RANK = {status: min(rank, 4) for rank, status in enumerate(Status)}
"""What came earlier never replaces what came later: facts about one order reach us from two senders."""


class OrderView(Struct):
    """An order as last heard of. `quantity` is what was asked for, `value` the sum of price times quantity of its fills."""

    strategy: str
    instrument: str
    status: Status
    ts: int
    side: Side | None = None
    filled: Decimal = ZERO
    value: Decimal = ZERO
    reason: str = ""
    quantity: Decimal | None = None


class Refusals(Struct):
    """How often a rule refused a strategy, and the last time: what was measured, against which limit."""

    count: int
    instrument: str
    measured: str
    limit: str
    ts: int


class Held(Struct):
    quantity: Decimal
    dust: Decimal
    entry: Decimal
    ts: int


class Point(Struct):
    """The equity said at one time, and what its profit is made of by then: `PARTS`, or nothing where that was not said.

    What is left of the equity when the parts are taken away is what was brought in.
    """

    ts: int
    equity: Decimal
    marks_known: bool
    parts: dict[str, Decimal] = {}


class FillView(Struct, frozen=True):
    """An execution, at the venue's own time. `reference` is the price it was decided at, `exit` as in `OrderFilled`."""

    trade_id: str
    client_order_id: str
    strategy: str
    instrument: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    liquidity: Liquidity
    exit: str
    reference: Decimal | None
    ts: int


class Histogram(Struct):
    """How often a duration fell between two of `TICK_TO_ORDER_BUCKETS`; the last count is of those beyond them all.

    A duration is in the first bucket whose bound it does not exceed. `sum` is in seconds.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(TICK_TO_ORDER_BUCKETS) + 1))
    count: int = 0
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(TICK_TO_ORDER_BUCKETS, seconds)] += 1
        self.count += 1
        self.sum += seconds


class Trading(Struct):
    state: TradingState
    reason: str
    ts: int


class Tripped(Struct):
    cause: str
    measured: str
    limit: str
    ts: int


class Difference(Struct):
    kind: DiscrepancyKind
    severity: Severity
    subject: str
    ours: str
    theirs: str
    ts: int


class Adjustment(Struct):
    """An entry in the books that nothing told explains. Where `instrument` is empty it is of the currency's cash."""

    adjustment_id: str
    strategy: str
    instrument: str
    currency: str
    quantity: Decimal
    price: Decimal
    reason: str
    ts: int


class Reconciliation(Struct):
    """`ts_success` is the last comparison against a complete snapshot: None means there was none, not that all is well.

    `last` are the differences that stand, `past` the newest ever said; `dues` counts what made a comparison due at once,
    and `due` is the last such reason.
    """

    ts_success: int | None = None
    discrepancies: int | None = None
    flat: bool | None = None
    last: dict[str, Difference] = field(default_factory=dict)
    past: list[Difference] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)
    adjusted: int = 0
    dues: int = 0
    due: str = ""


class NodeView(Struct):
    """A node's life: `failure` is why it last failed, empty while it runs."""

    ts: int
    starts: int = 0
    failures: int = 0
    failure: str = ""


class FeedView(Struct):
    live: bool
    ts: int


class Errors(Struct):
    """How often a kind of error was reported, and the last one."""

    count: int
    detail: str
    ts: int


class ProcessRun(Struct):
    process: str
    outcome: str | None
    ts: int


class Switched(Struct):
    """Whether a strategy may open positions, and who said so last, and why."""

    on: bool
    person: str
    reason: str
    ts: int


class StrategyView(Struct):
    """One strategy's counts. `orders` is by status; `trades` counts fills; `fees` is by currency, positive when paid.

    `switched` is None where nobody ever switched it: then it is on.
    """

    orders: dict[str, int] = field(default_factory=dict)
    trades: int = 0
    turnover: Decimal = ZERO
    fees: dict[str, Decimal] = field(default_factory=dict)
    refusals: dict[str, Refusals] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    positions: dict[str, Held] = field(default_factory=dict)
    share: Decimal | None = None
    switched: Switched | None = None


class MonitorState(Struct):
    """What was never said is None or absent, and never nought.

    `waiting_orders` are in flight or rest, nothing filled; `recent_orders` are the newest others. `curve` is the newest
    equity said, thinned by half whenever it grows too long; `fills` and `trips` are the newest, oldest first, and
    `trips_open` what is under way. `profits` is each strategy's profit in parts, the empty name being what no strategy owns.
    `tick_to_order` is how long a row of the market took to become an order that went out. `runs` counts the ends of runs, by
    process and outcome in one word. `told` and `told_before` are ids of what was heard already, since a venue's word comes
    again from the broker.
    """

    ts_first: int | None = None
    ts_last: int | None = None
    facts: dict[str, int] = field(default_factory=dict)
    strategies: dict[str, StrategyView] = field(default_factory=dict)
    waiting_orders: dict[str, OrderView] = field(default_factory=dict)
    recent_orders: dict[str, OrderView] = field(default_factory=dict)
    equity: Point | None = None
    cash: Decimal | None = None
    epoch: int | None = None
    curve: list[Point] = field(default_factory=list)
    fills: list[FillView] = field(default_factory=list)
    trips: list[RoundTrip] = field(default_factory=list)
    trips_open: Trips = field(default_factory=Trips)
    profits: dict[str, ProfitParts] = field(default_factory=dict)
    ts_profits: int | None = None
    tick_to_order: Histogram = field(default_factory=Histogram)
    trading: Trading | None = None
    tripped: Tripped | None = None
    reconciliation: Reconciliation = field(default_factory=Reconciliation)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    feeds: dict[str, FeedView] = field(default_factory=dict)
    errors: dict[str, dict[str, Errors]] = field(default_factory=dict)
    funding: dict[str, Decimal] = field(default_factory=dict)
    interest: dict[str, Decimal] = field(default_factory=dict)
    processes: dict[str, ProcessRun] = field(default_factory=dict)
    runs: dict[str, dict[str, int]] = field(default_factory=dict)
    told: dict[str, None] = field(default_factory=dict)
    told_before: dict[str, None] = field(default_factory=dict)


class Monitor:
    """Hears every fact and says nothing. What it knows is its state: pages, metrics and commands read it.

    Args:
        instruments: The rules of what is traded: without those of a fill it is in no round trip.
    """

    def __init__(self, instruments: Mapping[str, Instrument] | None = None) -> None:
        self._instruments = instruments or {}
        self.state = MonitorState()

    def handle(self, message: Fact, now: int) -> Iterable[Never]:
        state = self.state
        state.ts_last = now
        if state.ts_first is None:
            state.ts_first = now
        name = type(message).__name__
        state.facts[name] = state.facts.get(name, 0) + 1
        match message:
            case OrderAmended(client_order_id=name, quantity=quantity):
                order = state.waiting_orders.get(name)
                if order is not None:
                    order.ts = now
                    order.quantity = order.quantity if quantity is None else quantity
            case OrderFact():
                self._order(message, now)
            case OrdersRestated():
                self._restated(message, now)
            case OrderSent():
                state.tick_to_order.add(max(0, message.ts_sent - message.ts_seen) / SECOND)
            case EquityChanged():
                state.cash = message.cash
                self._equity(Point(now, message.equity, message.marks_known, _summed(state.profits)))
            case ProfitsStated():
                state.profits, state.ts_profits = message.strategies, now
            case StrategySwitched():
                switched = Switched(message.on, message.person, message.reason, now)
                self._strategy(message.strategy).switched = switched
            case PositionChanged():
                held = Held(message.quantity, message.dust, message.entry, now)
                self._strategy(message.strategy).positions[message.instrument] = held
            case SignalRefused():
                refusals = self._strategy(message.strategy).refusals
                count = refusals[message.rule].count if message.rule in refusals else 0
                refusals[message.rule] = Refusals(count + 1, message.instrument, message.measured, message.limit, now)
            case PairFinished():
                _add(self._strategy(message.strategy).pairs, message.outcome)
            case FundingSettled():
                if self._first_time(f"funding {message.settlement_id}"):
                    state.funding[message.instrument] = state.funding.get(message.instrument, ZERO) + message.amount
                    self._trips().funding(message)
            case InterestCharged():
                if self._first_time(f"interest {message.charge_id}"):
                    state.interest[message.currency] = state.interest.get(message.currency, ZERO) + message.amount
            case TradingStateChanged():
                state.trading = Trading(message.trading, message.reason, now)
                if message.trading is not TradingState.HALTED:
                    state.tripped = None  # a tripped switch holds trading halted: it was put back
            case KillSwitchTripped():
                state.tripped = Tripped(message.cause, message.measured, message.limit, now)
            case ReconcileCompleted():
                known = state.reconciliation
                if known.ts_success is None:
                    state.curve = state.curve[-1:]  # before, the account was still being heard of
                known.ts_success, known.discrepancies, known.flat = now, message.discrepancies, message.flat
                if not message.discrepancies:
                    known.last = {}
            case Discrepancy():
                self._differs(message, now)
            case ReconcileDue():
                state.reconciliation.dues += 1
                state.reconciliation.due = message.reason
            case BooksAdjusted():
                self._adjusted(message, now)
            case EpochBegan():
                state.epoch = message.epoch
            case ErrorReported():
                errors = state.errors.setdefault(message.node, {})
                count = errors[message.kind].count if message.kind in errors else 0
                errors[message.kind] = Errors(count + 1, message.detail, now)
                _trim(errors, KEPT)
            case NodeStarted():
                node = self._node(message.node, now)
                node.ts, node.starts, node.failure = now, node.starts + 1, ""
            case NodeFailed():
                node = self._node(message.node, now)
                node.ts, node.failures, node.failure = now, node.failures + 1, message.reason
            case FeedLive() | FeedStale():
                state.feeds[message.instrument] = FeedView(isinstance(message, FeedLive), now)
            case CapitalAllocated():
                self._strategy(message.strategy).share = message.share
            case ProcessStarted():
                state.processes[message.run_id] = ProcessRun(message.process, None, now)
                _trim(state.processes, KEPT)
            case ProcessFinished():
                run = state.processes.setdefault(message.run_id, ProcessRun("", None, now))
                if run.outcome is None:
                    _add(state.runs.setdefault(run.process, {}), message.outcome.partition(" ")[0].rstrip(":,;"))
                run.outcome, run.ts = message.outcome, now
                _trim(state.processes, KEPT)
            case _:
                pass  # counted above: not every fact has a place of its own
        return ()

    def wake_at(self) -> int | None:
        return None

    def reconcile_lag_s(self, now: int) -> float | None:
        """Seconds since the last successful comparison; since the first fact where there was none; else unknown."""
        since = self.state.reconciliation.ts_success
        if since is None:
            since = self.state.ts_first
        return None if since is None else (now - since) / 1e9

    def funnel(self, strategy: str) -> dict[str, int]:
        """From what was refused to what traded: counts of one strategy, in that order."""
        seen = self.state.strategies.get(strategy, StrategyView())
        refused = sum(one.count for one in seen.refusals.values())
        return {"refused": refused} | {str(status): seen.orders.get(status, 0) for status in Status}

    def open_trips(self) -> tuple[RoundTrip, ...]:
        """The round trips under way, worth what each instrument last traded at."""
        book = self._trips()
        return tuple(trip.told(book.state.last) for trip in book.under_way())

    def _strategy(self, name: str) -> StrategyView:
        found = self.state.strategies.get(name)
        if found is None:
            found = self.state.strategies[name] = StrategyView()
        return found

    def _node(self, name: str, now: int) -> NodeView:
        """A node, whatever life of it."""
        return self.state.nodes.setdefault(name.partition("@")[0], NodeView(now))

    def _differs(self, message: Discrepancy, now: int) -> None:
        known = self.state.reconciliation
        found = Difference(message.kind, message.severity, message.subject, message.ours, message.theirs, now)
        known.last[f"{message.kind} {message.subject}"] = found
        _trim(known.last, KEPT)
        known.past.append(found)
        del known.past[:-KEPT]

    def _adjusted(self, message: BooksAdjusted, now: int) -> None:
        known = self.state.reconciliation
        known.adjusted += 1
        known.adjustments.append(
            Adjustment(
                message.adjustment_id,
                message.strategy,
                message.instrument,
                message.currency,
                message.quantity,
                message.price,
                message.reason,
                now,
            )
        )
        del known.adjustments[:-KEPT]
        self._over(self._trips().adjusted(message, now))

    def _restated(self, message: OrdersRestated, now: int) -> None:
        """A life has begun: an order that the broker knows nothing of never left, or its end was not told."""
        for name in [name for name in self.state.waiting_orders if name not in message.remaining]:
            order = self.state.waiting_orders[name]
            order.reason, order.ts = order.reason or "no longer under way after a restart", now
            self._settle(name)

    def _settle(self, name: str) -> None:
        """Put an order that waits no longer among those that waited."""
        self.state.recent_orders[name] = self.state.waiting_orders.pop(name)
        _trim(self.state.recent_orders, RECENT_KEPT)

    def _order(self, message: OrderFact, now: int) -> None:
        status = STATUS[type(message)]
        name = message.client_order_id
        strategy = self._strategy(message.strategy)
        if isinstance(message, OrderFilled):
            if not self._first_time(f"trade {message.trade_id}"):
                return
            strategy.trades += 1
            strategy.turnover += message.quantity * message.price
            strategy.fees[message.fee_currency] = strategy.fees.get(message.fee_currency, ZERO) + message.fee
            self._filled(message)
        if self._first_time(f"{status} {name}"):
            _add(strategy.orders, status)
        waiting, recent = self.state.waiting_orders, self.state.recent_orders
        order = waiting.get(name) or recent.get(name)
        if order is None:
            order = waiting[name] = OrderView(message.strategy, message.instrument, status, now)
            _trim(waiting, WAITING_KEPT)
        if isinstance(message, OrderFilled | OrderSubmitted):
            order.side = message.side
        if isinstance(message, OrderSubmitted):
            order.quantity = message.quantity
        if isinstance(message, OrderFilled):
            order.filled += message.quantity
            order.value += message.quantity * message.price
        elif isinstance(message, OrderRejected | OrderCanceled | OrderExpired | OrderOutcomeUnknown):
            order.reason = message.reason
        if RANK[status] >= RANK[order.status]:
            order.status, order.ts = status, now
        if RANK[order.status] >= RANK[Status.FILLED] and name in waiting:
            self._settle(name)

    def _filled(self, fill: OrderFilled) -> None:
        fills = self.state.fills
        fills.append(
            FillView(
                trade_id=fill.trade_id,
                client_order_id=fill.client_order_id,
                strategy=fill.strategy,
                instrument=fill.instrument,
                side=fill.side,
                quantity=fill.quantity,
                price=fill.price,
                fee=fill.fee,
                fee_currency=fill.fee_currency,
                liquidity=fill.liquidity,
                exit=fill.exit,
                reference=fill.reference,
                ts=fill.ts_event,
            )
        )
        del fills[:-FILLS_KEPT]
        book = self._trips()
        if book.knows(fill):
            self._over(book.fill(fill))

    def _trips(self) -> TripBook:
        return TripBook(self._instruments, _why, self.state.trips_open)

    def _over(self, trips: Iterable[Trip]) -> None:
        """Keep the round trips that are over: what they still held was dust, and is accounted for."""
        kept = self.state.trips
        kept += [trip.told({}) for trip in trips]
        del kept[:-TRIPS_KEPT]

    def _equity(self, point: Point) -> None:
        state = self.state
        state.equity = point
        state.curve.append(point)
        if len(state.curve) > CURVE_KEPT:
            state.curve = [*state.curve[:-1:2], point]

    def _first_time(self, name: str) -> bool:
        state = self.state
        if name in state.told or name in state.told_before:
            return False
        if len(state.told) >= REMEMBERED:
            state.told_before, state.told = state.told, {}
        state.told[name] = None
        return True


def _why(trip: Trip, fill: OrderFilled) -> str:
    """What closed a trip, as far as its last fill tells: nobody tells the monitor of signals.

    A close that risk decided by itself has no price it was decided at; those of a pair always have one.
    """
    if fill.reference is None:
        return "risk"
    return "signal" if len(trip.legs) == 1 else ""


def _summed(profits: Mapping[str, ProfitParts]) -> dict[str, Decimal]:
    """What the account's profit is made of; nothing where no strategy's was said."""
    if not profits:
        return {}
    with localcontext(EXACT):
        return {part: sum((getattr(one, part) for one in profits.values()), ZERO) for part in PARTS}


def _trim(kept: dict[str, Any], most: int) -> None:
    """Let the oldest go."""
    while len(kept) > most:
        del kept[next(iter(kept))]


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
