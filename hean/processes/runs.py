"""A run of a process as it stands: what was asked for, and every attempt at every step. What is kept is this."""

import enum
from typing import Any

from msgspec import Struct, field

from hean.errors import ContractError


class RunStatus(enum.StrEnum):
    """PENDING waits for its turn, WAITING for a pause to end or for a person."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


S = RunStatus
MAY_BECOME: dict[RunStatus, frozenset[RunStatus]] = {
    S.PENDING: frozenset({S.RUNNING, S.FAILED, S.CANCELED}),
    S.RUNNING: frozenset({S.WAITING, S.COMPLETED, S.FAILED, S.CANCELED}),
    S.WAITING: frozenset({S.RUNNING, S.FAILED, S.CANCELED}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset({S.PENDING}),  # asked for again, it goes on at the step it came to
    S.CANCELED: frozenset({S.PENDING}),
}
OVER = frozenset({S.COMPLETED, S.FAILED, S.CANCELED})
UNDER_WAY = frozenset({S.RUNNING, S.WAITING})


class AttemptStatus(enum.StrEnum):
    """How an attempt at a step stands. INTERRUPTED: whoever watched over it died, and how far it came is not known."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    INTERRUPTED = "INTERRUPTED"
    CANCELED = "CANCELED"


class Attempt(Struct):
    """One attempt at one step, counted from 1. `output` is what it found, where it finished."""

    step: str
    number: int
    status: AttemptStatus
    key: str
    input_hash: str
    ts_began: int
    ts_ended: int | None = None
    output: Any = None
    reason: str = ""


class Run(Struct):
    """One run of a process.

    `asked` is what it was asked for with, `arguments` that and what was filled in. `due` says from when on a step may be
    tried again, `asking` which steps a person must decide on, one after the other. `failures` and `interruptions` count by step, since it was last asked for.
    """

    run_id: str
    process: str
    version: int
    asked: dict[str, str]
    arguments: dict[str, str]
    ts_asked: int
    status: RunStatus = RunStatus.PENDING
    reason: str = ""
    ts_began: int | None = None
    ts_ended: int | None = None
    attempts: list[Attempt] = field(default_factory=list)
    due: dict[str, int] = field(default_factory=dict)
    asking: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    interruptions: dict[str, int] = field(default_factory=dict)

    def become(self, status: RunStatus) -> None:
        """Go on to another status.

        Raises:
            ContractError: There is no way from the one to the other.
        """
        if status is self.status:
            return
        if status not in MAY_BECOME[self.status]:
            raise ContractError(f"run {self.run_id} is {self.status} and cannot become {status}")
        self.status = status

    @property
    def is_over(self) -> bool:
        return self.status in OVER

    def last(self, step: str) -> Attempt | None:
        """The newest attempt at a step."""
        return next((one for one in reversed(self.attempts) if one.step == step), None)

    def running(self) -> list[Attempt]:
        return [one for one in self.attempts if one.status is AttemptStatus.RUNNING]

    def output(self, step: str) -> Any:
        """What a finished step found."""
        return next(
            one.output for one in reversed(self.attempts) if one.step == step and one.status is AttemptStatus.FINISHED
        )


class StepView(Struct, frozen=True):
    """A step as people see it: `status` is its newest attempt's, PENDING where there was none."""

    name: str
    status: str
    attempts: int
    ts_began: int | None
    ts_ended: int | None
    reason: str
    output: Any


class RunView(Struct, frozen=True):
    """A run as people see it. `waits_for` says in words what it waits for."""

    run_id: str
    process: str
    version: int
    arguments: dict[str, str]
    status: RunStatus
    reason: str
    waits_for: str
    ts_asked: int
    ts_began: int | None
    ts_ended: int | None
    steps: tuple[StepView, ...]
