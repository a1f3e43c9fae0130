"""What the actors are called in Ray's dashboard, and what the engine asks of one role alone."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import structs

from actors import views
from actors.shell import ComponentActor, Seat
from actors.words import History, Pulse, Recovered, Voice
from hean.execution.orders import Restorable
from hean.messages import Envelope, Fact, Observation, OrderRejected, OrderSent, Signal, SubmitOrder
from hean.monitor import MonitorState
from hean.risk.usage import LimitUse
from hean.trading_system import Strategy

if TYPE_CHECKING:  # of strategies alone: the others need neither sockets nor a compiler
    from actors.gateways.warm_up import Warmed, WarmUp
    from actors.places import WarmUpPlan

Found = TypeVar("Found")

SELDOM_S = 1.0


class Seldom(Generic[Found]):
    """What is worked out once a second at most, however often it is asked: a look must not cost the trading anything."""

    def __init__(self, find: Callable[[], tuple[Found, ...]]) -> None:
        self._find = find
        self._found: tuple[Found, ...] = ()
        self._due = 0.0

    def now(self) -> tuple[Found, ...]:
        """As of now, or of a second ago."""
        moment = time.monotonic()
        if moment >= self._due:
            self._due = moment + SELDOM_S
            self._found = self._find()
        return self._found


class StrategyActor(ComponentActor):
    """One strategy instance: warmed up before it may speak."""

    _warm_up: "WarmUp | None" = None
    _asleep = True

    def recover(self, seat: Seat) -> Recovered:
        self._warm_up = None
        self._missed: list[Envelope] = []
        self._rows = self._signals = 0
        self._wanted: tuple[str, int | None] = ("", None)
        self._gates = Seldom(self._explain)
        return super().recover(seat)

    def _build(self, strategies: Sequence[Strategy]) -> Any:
        (self._strategy,) = (strategy for strategy in strategies if strategy.name == self.seat.node)
        return self._strategy.component

    def warm(self, plan: "WarmUpPlan") -> "Warmed":
        """Tell the strategy the past, in silence; then what it holds. What the feed tells meanwhile waits its turn."""
        from actors.gateways import warm_up as warming

        history = warming.History(plan.endpoint, plan.kept, bar_minutes=plan.bar_minutes)
        warm_up = warming.WarmUp(history, self._life.dispatcher, self._life.host, self._strategy.looks_back, self._note)
        warmed = warm_up.begin(self._clock())
        self._warm_up = warm_up
        self.log.info("warm", rows=warmed.rows, asked=warmed.asked, seconds=warmed.seconds)
        missed, self._missed = self._missed, []
        if missed:
            self._hear(None, missed)
        self._set_alarm()
        return warmed

    def awake(self) -> None:
        """Let the strategy speak without a past: for one that needs none."""
        self._asleep = False

    def ping(self) -> Pulse:
        """Say with it what the strategy was shown and wanted, and what it waits for."""
        wanted, at = self._wanted
        voice = Voice(self._rows, self._signals, self._gates.now(), at, wanted)
        return structs.replace(super().ping(), voice=voice)

    def _explain(self) -> tuple[str, ...]:
        explain = getattr(self.component, "waits_for", None)
        try:
            return () if explain is None else tuple(explain(self._time.now()))
        except Exception as failure:  # noqa: BLE001 (a strategy may be anybody's: one that cannot explain itself goes on trading)
            return (f"waits_for: {type(failure).__name__}: {failure}",)

    def _news(self, batch: list[Envelope]) -> list[Envelope]:
        # Before it is warm it is told nothing: what it would say it would say without knowing the past.
        if self._warm_up is not None:
            batch = self._warm_up.join(batch)
        elif self._asleep:
            # What it holds is restated before it is warm, and not again.
            self._missed += [one for one in batch if isinstance(one.message, Fact)]
            batch = []
        self._rows += sum(isinstance(one.message, Observation) for one in batch)
        return batch

    def _note_said(self, said: Sequence[Envelope]) -> None:
        for one in said:
            if isinstance(one.message, Signal):
                self._signals += 1
                self._wanted = _in_words(one.message), one.ts_init
        super()._note_said(said)

    def _note(self, what: str) -> None:
        self.log.warning("gap", what=what)


def _in_words(signal: Signal) -> str:
    legs = ", ".join(f"{leg.weight:+g} {leg.instrument}" for leg in signal.legs)
    return f"{legs}: {signal.reason}"


class RiskManagerActor(ComponentActor):
    """Signals into orders, or refusals."""

    def recover(self, seat: Seat) -> Recovered:
        recovered = super().recover(seat)
        self._usage = Seldom(self._used)
        return recovered

    def ping(self) -> Pulse:
        """Say with it how much of each limit is used."""
        return structs.replace(super().ping(), limits=self._usage.now())

    def _used(self) -> tuple[LimitUse, ...]:
        try:
            return tuple(self.component.usage(self._time.now()))
        except Exception as failure:  # noqa: BLE001 (what is only shown must never halt what trades)
            self.log.warning("usage of limits unknown", why=f"{type(failure).__name__}: {failure}")
            return ()


class BrokerActor(ComponentActor):
    """The life of every order; two legs as one."""

    def restorable(self) -> tuple[list[Restorable], list[str]]:
        """The orders that may be open, and the ids of executions that were heard."""
        return self.component.restorable(), self.component.heard()


class PortfolioActor(ComponentActor):
    """What is held, and what it is worth."""

    def settled(self) -> list[str]:
        """The ids of settlements and charges that are in the books."""
        known = self.component.state.settlements
        return [*known.older, *known.newer]


class ReconcilerActor(ComponentActor):
    """Ours against the venue's word."""

    def settled(self) -> bool:
        """Whether a comparison was clean since the last start."""
        return bool(self.component.state.settled)

    def known_until(self) -> int:
        """When the books were last found to agree with the venue; 0 where they never were."""
        return int(self.component.state.ts_agreed)


class MonitorActor(ComponentActor):
    """Everything that was said, folded into what can be seen."""

    def seen(self) -> MonitorState:
        """The state, without what only the monitor itself needs."""
        return views.shown(self.component.state)

    def past(self) -> History:
        """The equity curve, fills and round trips."""
        return views.past(self.component, self._time.now())


class ProcessActor(ComponentActor):
    """A process: a component with an end, made by the factory."""

    def __init__(self, made: Any) -> None:
        super().__init__()
        self._made = made

    def _build(self, _: Sequence[Strategy]) -> Any:
        return self._made


class PaperVenueActor(ComponentActor):
    """An account on paper: real prices, simulated fills."""

    def recover(self, seat: Seat) -> Recovered:
        self._sent = 0
        return super().recover(seat)

    def _hear(self, parcel: bytes | None, batch: list[Envelope] | None) -> None:
        super()._hear(parcel, batch)
        for one in batch or ():
            if isinstance(one.message, SubmitOrder) and one.ts_seen:
                self._note_sent(one, one.message)

    def _note_sent(self, asked: Envelope, order: SubmitOrder) -> None:
        """Say that an order has arrived. Not under the component's own numbers: those follow from its journal alone."""
        self._sent += 1
        sent = OrderSent(order.client_order_id, order.strategy, order.instrument, asked.ts_seen, self._now)
        source = f"{self.seat.node}.sent@{self.seat.incarnation}"
        envelope = Envelope(source, self._sent, self._now, asked.trace or asked.id, asked.id, sent)
        receivers = self._life.dispatcher.topology.receivers(self._node, OrderSent)
        self.post.send((node, envelope) for node, only in receivers if only is None or only(sent, node))

    def begin(self, orders: Sequence[Restorable], _heard: Sequence[str], _since: int) -> None:
        """Refuse what never arrived: the broker waits for a word about it."""
        known = {name for desk in self.component.state.desks.values() for name in desk.working}
        lost = [one.order for one in orders if one.order.client_order_id not in known]
        said = [
            OrderRejected(order.client_order_id, order.strategy, order.instrument, "it never arrived") for order in lost
        ]
        self._say(said)
