"""Everything that was said, folded into what can be seen from outside: status, money, orders, faults."""

import enum
from collections.abc import Iterable
from decimal import Decimal
from typing import Never

from msgspec import Struct, field

from hean.messages import (
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EquityChanged,
    ErrorReported,
    Fact,
    FeedLive,
    FeedStale,
    FundingSettled,
    InterestCharged,
    KillSwitchTripped,
    NodeFailed,
    NodeStarted,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFact,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    ProcessFinished,
    ProcessStarted,
    ReconcileCompleted,
    Severity,
    Side,
    SignalRefused,
    TradingState,
    TradingStateChanged,
)

ZERO = Decimal(0)
REMEMBERED = 20_000
RECENT_KEPT = 500
CURVE_KEPT = 4_000


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
    """An order as last heard of. `value` is the sum of price times quantity of its fills."""

    strategy: str
    instrument: str
    status: Status
    ts: int
    side: Side | None = None
    filled: Decimal = ZERO
    value: Decimal = ZERO
    reason: str = ""


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
    """The equity said at one time."""

    ts: int
    equity: Decimal
    marks_known: bool


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


class Reconciliation(Struct):
    """`ts_success` is the last comparison against a complete snapshot: None means there was none, not that all is well."""

    ts_success: int | None = None
    discrepancies: int | None = None
    flat: bool | None = None
    last: dict[str, Difference] = field(default_factory=dict)


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


class StrategyView(Struct):
    """One strategy's counts. `orders` is by status; `trades` counts fills; `fees` is by currency, positive when paid."""

    orders: dict[str, int] = field(default_factory=dict)
    trades: int = 0
    turnover: Decimal = ZERO
    fees: dict[str, Decimal] = field(default_factory=dict)
    refusals: dict[str, Refusals] = field(default_factory=dict)
    pairs: dict[str, int] = field(default_factory=dict)
    positions: dict[str, Held] = field(default_factory=dict)
    share: Decimal | None = None


class MonitorState(Struct):
    """What was never said is None or absent, and never nought.

    `waiting_orders` are in flight or rest, nothing filled; `recent_orders` are the newest others. `curve` is the newest equity said, thinned by half whenever it grows too long; `told` and `told_before` are ids of
    what was heard already, since a venue's word comes again from the broker.
    """

    ts_first: int | None = None
    ts_last: int | None = None
    facts: dict[str, int] = field(default_factory=dict)
    strategies: dict[str, StrategyView] = field(default_factory=dict)
    waiting_orders: dict[str, OrderView] = field(default_factory=dict)
    recent_orders: dict[str, OrderView] = field(default_factory=dict)
    equity: Point | None = None
    curve: list[Point] = field(default_factory=list)
    trading: Trading | None = None
    tripped: Tripped | None = None
    reconciliation: Reconciliation = field(default_factory=Reconciliation)
    nodes: dict[str, NodeView] = field(default_factory=dict)
    feeds: dict[str, FeedView] = field(default_factory=dict)
    errors: dict[str, dict[str, Errors]] = field(default_factory=dict)
    funding: dict[str, Decimal] = field(default_factory=dict)
    interest: dict[str, Decimal] = field(default_factory=dict)
    processes: dict[str, ProcessRun] = field(default_factory=dict)
    told: dict[str, None] = field(default_factory=dict)
    told_before: dict[str, None] = field(default_factory=dict)


class Monitor:
    """Hears every fact and says nothing. What it knows is its state: pages, metrics and commands read it."""

    def __init__(self) -> None:
        self.state = MonitorState()

    def handle(self, message: Fact, now: int) -> Iterable[Never]:
        state = self.state
        state.ts_last = now
        if state.ts_first is None:
            state.ts_first = now
        name = type(message).__name__
        state.facts[name] = state.facts.get(name, 0) + 1
        match message:
            case OrderFact():
                self._order(message, now)
            case EquityChanged():
                self._equity(Point(now, message.equity, message.marks_known))
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
            case InterestCharged():
                state.interest[message.currency] = state.interest.get(message.currency, ZERO) + message.amount
            case TradingStateChanged():
                state.trading = Trading(message.trading, message.reason, now)
                if message.trading is TradingState.ACTIVE:
                    state.tripped = None
            case KillSwitchTripped():
                state.tripped = Tripped(message.cause, message.measured, message.limit, now)
            case ReconcileCompleted():
                known = state.reconciliation
                known.ts_success, known.discrepancies, known.flat = now, message.discrepancies, message.flat
                if not message.discrepancies:
                    known.last = {}
            case Discrepancy():
                state.reconciliation.last[f"{message.kind} {message.subject}"] = Difference(
                    message.kind, message.severity, message.subject, message.ours, message.theirs, now
                )
            case ErrorReported():
                errors = state.errors.setdefault(message.node, {})
                count = errors[message.kind].count if message.kind in errors else 0
                errors[message.kind] = Errors(count + 1, message.detail, now)
            case NodeStarted():
                node = state.nodes.setdefault(message.node, NodeView(now))
                node.ts, node.starts, node.failure = now, node.starts + 1, ""
            case NodeFailed():
                node = state.nodes.setdefault(message.node, NodeView(now))
                node.ts, node.failures, node.failure = now, node.failures + 1, message.reason
            case FeedLive() | FeedStale():
                state.feeds[message.instrument] = FeedView(isinstance(message, FeedLive), now)
            case CapitalAllocated():
                self._strategy(message.strategy).share = message.share
            case ProcessStarted():
                state.processes[message.run_id] = ProcessRun(message.process, None, now)
            case ProcessFinished():
                run = state.processes.setdefault(message.run_id, ProcessRun("", None, now))
                run.outcome, run.ts = message.outcome, now
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

    def _strategy(self, name: str) -> StrategyView:
        found = self.state.strategies.get(name)
        if found is None:
            found = self.state.strategies[name] = StrategyView()
        return found

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
        if self._first_time(f"{status} {name}"):
            _add(strategy.orders, status)
        waiting, recent = self.state.waiting_orders, self.state.recent_orders
        order = waiting.get(name) or recent.get(name)
        if order is None:
            order = waiting[name] = OrderView(message.strategy, message.instrument, status, now)
        if isinstance(message, OrderFilled):
            order.side = message.side
            order.filled += message.quantity
            order.value += message.quantity * message.price
        elif isinstance(message, OrderRejected | OrderCanceled | OrderExpired | OrderOutcomeUnknown):
            order.reason = message.reason
        if RANK[status] >= RANK[order.status]:
            order.status, order.ts = status, now
        if RANK[order.status] >= RANK[Status.FILLED] and name in waiting:
            recent[name] = waiting.pop(name)
            if len(recent) > RECENT_KEPT:
                del recent[next(iter(recent))]

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


def _add(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1
