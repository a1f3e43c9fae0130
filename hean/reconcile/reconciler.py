"""Our books against the venue's word: nothing is believed once, and silence is not an answer."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.errors import ConfigError
from hean.instruments import Instrument
from hean.messages import (
    AccountSnapshot,
    Discrepancy,
    DiscrepancyKind,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PositionChanged,
    ReconcileCompleted,
    SnapshotAccount,
    VerifyFlat,
    Wake,
)
from hean.reconcile.diff import OwnOrder, Pair, differences, is_flat
from hean.units import SECOND

ZERO = Decimal(0)


class ReconcilerConfig(BaseModel, frozen=True, extra="forbid"):
    every_s: float = Field(default=30, gt=0, description="between one snapshot and the next")
    confirm_s: float = Field(default=5, gt=0, description="between two snapshots that must agree on a difference")
    grace_s: float = Field(
        default=5, ge=0, description="after the last fact about it, an order or a position may differ"
    )
    least_s: float = Field(default=1, ge=0, description="between two snapshots asked for other than to verify flatness")
    pairs: tuple[tuple[str, str], ...] = Field(default=(), description="spot and perpetual that balance each other")
    leg_tolerance: Decimal = Field(
        default=Decimal("0.05"), ge=0, description="of the larger leg; beyond it a pair is imbalanced"
    )


class Suspicion(Struct):
    """A difference seen: since which snapshot, and what was last said of it, as ours and theirs."""

    ts_first: int
    said: tuple[str, str] | None = None


class ReconcilerState(Struct):
    """`holdings` is by instrument and strategy, dust included; `heard` when a subject was last heard of.

    `closed` keeps orders that ended, and when, while a snapshot may still show them. `suspicions` is by kind and
    subject. `verify_from` is the first request that may answer `VerifyFlat`.
    """

    orders: dict[str, OwnOrder] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    holdings: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    suspicions: dict[str, dict[str, Suspicion]] = field(default_factory=dict)
    requests: int = 0
    answered: int = 0
    ts_asked: int = 0
    ts_next: int = 0
    verify_from: int = 0
    verifying: bool = False


class Reconciler:
    """Asks the venue what it holds of ours, and says what differs from our own fold of the facts.

    A difference is said when two complete snapshots some seconds apart show it, and nothing was lately heard of
    its subject. A snapshot that is not complete concludes nothing: not flat, not well, not even reconciled.
    It corrects nothing and trades nothing.

    Args:
        config: Times, and which legs balance.
        instruments: What may be held; their steps are the tolerance.

    Raises:
        ConfigError: a pair names an instrument that is not there.
    """

    def __init__(self, config: ReconcilerConfig, instruments: Mapping[str, Instrument]) -> None:
        self.config = config
        self.state = ReconcilerState()
        self._instruments = instruments
        self._pairs = tuple(Pair(spot, perp) for spot, perp in config.pairs)
        for name in {name for pair in config.pairs for name in pair} - set(instruments):
            raise ConfigError(f"reconciler pairs: {name} is not among the instruments")

    def handle(
        self,
        message: OrderSubmitted
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | PositionChanged
        | AccountSnapshot
        | VerifyFlat
        | Wake,
        now: int,
    ) -> Iterator[SnapshotAccount | Discrepancy | ReconcileCompleted]:
        state = self.state
        match message:
            case OrderSubmitted() | OrderAccepted():
                self._open(message, now)
            case OrderOutcomeUnknown():
                self._open(message, now)
                if now - state.ts_asked < self._ns(self.config.least_s):
                    state.ts_next = min(state.ts_next, state.ts_asked + self._ns(self.config.least_s))
                else:
                    yield self._ask(now)
            case OrderFilled():
                self._heard_of(message.instrument, now)
                order = state.orders.get(message.client_order_id)
                if order is not None:
                    order.filled += message.quantity
                    order.ts_heard = now
                    if order.filled == order.quantity:
                        del state.orders[message.client_order_id]
                        state.closed[message.client_order_id] = now
            case OrderRejected() | OrderCanceled() | OrderExpired():
                state.orders.pop(message.client_order_id, None)
                state.closed[message.client_order_id] = now
            case PositionChanged():
                self._heard_of(message.instrument, now)
                held = state.holdings.setdefault(message.instrument, {})
                held[message.strategy] = message.quantity + message.dust
            case AccountSnapshot():
                yield from self._compare(message, now)
            case VerifyFlat():
                state.verifying = True
                yield self._ask(now)
                state.verify_from = state.requests
            case Wake():
                if now >= state.ts_next:
                    yield self._ask(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self.state.ts_next

    def _open(self, message: OrderSubmitted | OrderAccepted | OrderOutcomeUnknown, now: int) -> None:
        # A word about an order that has ended came late: it stays ended.
        if message.client_order_id not in self.state.closed:
            order = self.state.orders.get(message.client_order_id)
            if order is None:
                sent = message.quantity if isinstance(message, OrderSubmitted) else None
                self.state.orders[message.client_order_id] = OwnOrder(message.instrument, ZERO, now, sent)
            else:
                order.ts_heard = now

    def _heard_of(self, instrument: str, now: int) -> None:
        self.state.heard[instrument] = now
        rules = self._instruments.get(instrument)
        if rules is not None and rules.is_spot:
            self.state.heard[rules.base] = now

    def _ask(self, now: int) -> SnapshotAccount:
        state = self.state
        state.requests += 1
        state.ts_asked = now
        state.ts_next = now + self._ns(self.config.every_s)
        return SnapshotAccount(state.requests)

    def _compare(self, theirs: AccountSnapshot, now: int) -> Iterator[Discrepancy | ReconcileCompleted]:
        state = self.state
        if theirs.request_id <= state.answered:
            return
        soon = now + self._ns(self.config.confirm_s)
        if not theirs.complete:
            if state.verifying or state.suspicions:
                state.ts_next = min(state.ts_next, soon)
            return
        state.answered = theirs.request_id
        confirmed = 0
        suspicions: dict[str, dict[str, Suspicion]] = {}
        for found in differences(
            state.orders, self._totals(), theirs, self._instruments, self._pairs, self.config.leg_tolerance
        ):
            if theirs.ts_event < self._last_heard(found) + self._ns(self.config.grace_s):
                state.ts_next = min(state.ts_next, soon)
                continue
            known = state.suspicions.get(found.kind, {}).get(found.subject)
            suspicion = known or Suspicion(theirs.ts_event)
            suspicions.setdefault(str(found.kind), {})[found.subject] = suspicion
            if known is None or theirs.ts_event - known.ts_first < self._ns(self.config.confirm_s):
                state.ts_next = min(state.ts_next, soon)
                continue
            confirmed += 1
            if suspicion.said != (found.ours, found.theirs):
                suspicion.said = (found.ours, found.theirs)
                yield found
        state.suspicions = suspicions
        self._forget(theirs)
        flat = is_flat(theirs, self._instruments, self._kept()) and theirs.request_id >= state.verify_from
        if theirs.request_id >= state.verify_from:
            state.verifying = False
        yield ReconcileCompleted(theirs.request_id, confirmed, flat)

    def _totals(self) -> dict[str, Decimal]:
        return {name: sum(held.values(), ZERO) for name, held in self.state.holdings.items()}

    def _kept(self) -> dict[str, Decimal]:
        """Coins no strategy owns: the portfolio's reserve."""
        return {name: held[""] for name, held in self.state.holdings.items() if "" in held}

    def _last_heard(self, found: Discrepancy) -> int:
        state = self.state
        subjects = [found.subject]
        if found.kind is DiscrepancyKind.LEG_IMBALANCE:
            subjects += [pair.spot for pair in self._pairs if pair.perp == found.subject]
        last = max(state.heard.get(subject, 0) for subject in subjects)
        order = state.orders.get(found.subject)
        return max(last, order.ts_heard if order is not None else 0, state.closed.get(found.subject, 0))

    def _forget(self, theirs: AccountSnapshot) -> None:
        """Drop what is over: ended orders no snapshot can show any more, and those of unknown size that filled and are gone."""
        state = self.state
        settled = theirs.ts_event - self._ns(self.config.grace_s)
        listed = {order.client_order_id for order in theirs.orders}
        for name, order in list(state.orders.items()):
            if order.quantity is None and order.filled and name not in listed and order.ts_heard <= settled:
                del state.orders[name]
                state.closed[name] = order.ts_heard
        horizon = theirs.ts_event - 10 * self._ns(self.config.every_s)
        state.closed = {name: ended for name, ended in state.closed.items() if ended > horizon}

    @staticmethod
    def _ns(seconds: float) -> int:
        return int(seconds * SECOND)
