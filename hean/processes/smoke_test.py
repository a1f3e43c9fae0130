"""A smoke test of the order path: one small order far from the market, there and back.

It goes where every order goes, by risk, broker and venue: sent, acknowledged, amended, cancelled. Post-only and ten per
cent from the market, it can hardly trade; where it does, that is a failure and is said.
"""

import enum
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from typing import assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.instruments import Instrument
from hean.messages import (
    AmendOrder,
    CancelOrder,
    CancelProcess,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    ProcessFinished,
    Side,
    SignalRefused,
    SubmitOrder,
    TimeInForce,
    Wake,
)
from hean.units import MILLISECOND, SECOND

NAME = "smoke"
"""Whose orders they are: the node's name, and what stands for a strategy."""

CALLS_BACK = 3
"""How often it asks for its order to be cancelled before it says that it may be left open."""


class SmokeTestConfig(BaseModel, frozen=True, extra="forbid"):
    """One smoke test.

    `earlier` are the orders of attempts that were broken off: they are cancelled first.
    """

    run_id: str = Field(min_length=1)
    order_id: str = Field(pattern=r"^smoke-[A-Za-z0-9_-]{1,30}$")
    earlier: tuple[str, ...] = ()
    reference: Decimal = Field(gt=0, description="the best bid when it was begun")
    distance: Decimal = Field(default=Decimal("0.10"), ge=Decimal("0.05"), le=Decimal("0.5"))
    amends: bool = Field(default=True, description="whether the venue takes amendments; if not, that stage is left out")
    patience_s: float = Field(default=10.0, gt=0, description="how long each stage may take")


class Stage(enum.StrEnum):
    """What it waits for."""

    BEGIN = "begin"
    SENT = "acknowledgement"
    AMENDING = "amendment"
    CANCELING = "cancellation"
    OVER = "over"


class SmokeTestState(Struct):
    """`failure` is what went wrong first; `report` what was seen, stage by stage. `ts_due` is when patience ends."""

    stage: Stage = Stage.BEGIN
    ts_due: int | None = 0
    ts_stage: int = 0
    called_back: int = 0
    filled: Decimal = Decimal(0)
    failure: str = ""
    report: dict[str, str] = field(default_factory=dict)


Said = SubmitOrder | AmendOrder | CancelOrder | ProcessFinished


class SmokeTest:
    """One run of the smoke test.

    Args:
        config: What is sent, and how patiently.
        instrument: The rules it is sent under.
    """

    def __init__(self, config: SmokeTestConfig, instrument: Instrument) -> None:
        self.config = config
        self.instrument = instrument
        self.state = SmokeTestState()
        far = float(config.reference * (1 - config.distance))
        self.price = instrument.price_down(far)
        self.amended = instrument.price_down(float(self.price) - 10 * float(instrument.tick))
        self.quantity = smallest(instrument, self.amended)

    def handle(
        self,
        message: OrderSubmitted
        | OrderAccepted
        | OrderAmended
        | OrderCanceled
        | OrderRejected
        | OrderExpired
        | OrderOutcomeUnknown
        | OrderFilled
        | SignalRefused
        | CancelProcess
        | Wake,
        now: int,
    ) -> Iterator[SubmitOrder | AmendOrder | CancelOrder | ProcessFinished]:
        state = self.state
        if isinstance(message, Wake):
            yield from self._woken(now)
            return
        if state.stage is Stage.OVER or not self._is_ours(message):
            return
        match message:
            case OrderSubmitted():
                self._note("sent", f"{self.quantity:f} at {self.price:f}, the market at {self.config.reference:f}", now)
            case OrderAccepted():
                if state.stage is Stage.SENT:
                    self._note("acknowledged", "", now)
                    if self.config.amends:
                        self._wait(Stage.AMENDING, now)
                        yield AmendOrder(NAME, self.config.order_id, self.instrument.id, None, self.amended)
                    else:
                        state.report["amended"] = "left out: this venue takes no amendments"
                        yield from self._call_back(now)
            case OrderAmended():
                if state.stage is Stage.AMENDING:
                    self._note("amended", f"to {self.amended:f}", now)
                    yield from self._call_back(now)
            case OrderCanceled() | OrderExpired():
                wanted = state.stage is Stage.CANCELING and isinstance(message, OrderCanceled)
                if not wanted:
                    self._failed(f"the order ended by itself: {message.reason}")
                self._note("canceled" if isinstance(message, OrderCanceled) else "expired", message.reason, now)
                yield self._over()
            case OrderRejected(reason=reason):
                self._failed(f"the venue rejected the order: {reason}")
                yield self._over()
            case SignalRefused(rule=rule, measured=measured, limit=limit):
                self._failed(f"risk refused: {rule}, {measured} against {limit}")
                if state.stage is Stage.SENT:
                    yield self._over()
                else:
                    yield from self._call_back(now)
            case OrderOutcomeUnknown(reason=reason):
                self._note("unknown", f"{reason}; waiting for the venue to say", now)
            case OrderFilled(quantity=quantity, price=price):
                state.filled += quantity
                self._failed(f"{state.filled:f} traded at {price:f}: close that by hand")
                if state.filled >= self.quantity:
                    yield self._over()
                elif state.stage is not Stage.CANCELING:
                    yield from self._call_back(now)
            case CancelProcess(person=person, reason=reason):
                self._failed(f"ended by {person}: {reason}")
                if state.stage is Stage.BEGIN:
                    yield self._over()
                elif state.stage is not Stage.CANCELING:
                    yield from self._call_back(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self.state.ts_due

    def _woken(self, now: int) -> Iterator[Said]:
        state, config = self.state, self.config
        if state.ts_due is None or now < state.ts_due:
            return
        if state.stage is Stage.BEGIN:
            rules = self.instrument
            self._note("rules", f"tick {rules.tick:f}, step {rules.step:f}, at least {rules.min_notional:f}", now)
            for order_id in config.earlier:
                yield CancelOrder(NAME, order_id, rules.id)
            self._wait(Stage.SENT, now)
            yield SubmitOrder(
                client_order_id=config.order_id,
                strategy=NAME,
                instrument=rules.id,
                side=Side.BUY,
                quantity=self.quantity,
                limit=self.price,
                time_in_force=TimeInForce.POST_ONLY,
                reduce_only=False,
                reference=config.reference,
                bracket=None,
            )
            return
        self._failed(f"no {state.stage} within {config.patience_s:g} s")
        if state.called_back < CALLS_BACK:
            yield from self._call_back(now)
        else:
            self._failed(f"order {config.order_id} may be left open", more=True)
            yield self._over()

    def _is_ours(self, message: object) -> bool:
        if isinstance(message, SignalRefused):
            # It names no order: before ours is sent it is about another.
            return message.strategy == NAME and self.state.stage is not Stage.BEGIN
        if isinstance(message, CancelProcess):
            return message.run_id == self.config.run_id
        return getattr(message, "client_order_id", None) == self.config.order_id

    def _call_back(self, now: int) -> Iterator[CancelOrder]:
        self.state.called_back += 1
        self._wait(Stage.CANCELING, now)
        yield CancelOrder(NAME, self.config.order_id, self.instrument.id)

    def _wait(self, stage: Stage, now: int) -> None:
        self.state.stage = stage
        self.state.ts_stage = now
        self.state.ts_due = now + int(self.config.patience_s * SECOND)

    def _note(self, name: str, detail: str, now: int) -> None:
        """What was seen, and how long after it was asked for."""
        after = "" if not self.state.ts_stage else f"after {(now - self.state.ts_stage) / MILLISECOND:.1f} ms"
        self.state.report.setdefault(name, ", ".join(word for word in (after, detail) if word))

    def _failed(self, reason: str, *, more: bool = False) -> None:
        state = self.state
        if not state.failure or more:
            state.failure = f"{state.failure}; {reason}" if state.failure else reason

    def _over(self) -> ProcessFinished:
        state = self.state
        state.stage, state.ts_due = Stage.OVER, None
        outcome = f"failed: {state.failure}" if state.failure else "completed"
        return ProcessFinished(self.config.run_id, outcome, dict(state.report))


def smallest(instrument: Instrument, price: Decimal) -> Decimal:
    """The least that may be ordered at a price, in whole steps."""
    steps = (instrument.min_notional / (price * instrument.step)).to_integral_value(ROUND_CEILING)
    return max(instrument.min_quantity, steps * instrument.step, instrument.step)
