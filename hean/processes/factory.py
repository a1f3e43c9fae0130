"""Which step of which run is worked, and what became of it. Decides, and does nothing: the shell works the steps.

What it decides is kept before it is done (see `hean.store.runs`), so that a successor knows at least as much as has happened.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, assert_never

from msgspec import Struct, field

from hean.errors import ConfigError
from hean.messages import CancelProcess, ProcessFinished, ProcessRequested, ProcessStarted, Wake
from hean.processes.definition import AfterCrash, ProcessDefinition, Step, input_hash, step_key, steps_of
from hean.processes.runs import UNDER_WAY, Attempt, AttemptStatus, Run, RunStatus, RunView, StepView
from hean.units import SECOND, minute

INTERRUPTIONS = 5
"""So often a step may be broken off by crashes before it is taken to be what causes them."""

REMEMBERED = 200
"""Runs that are over and still in memory; all are in the table."""


class StepEnded(Struct, frozen=True):
    """The shell's word of an attempt: what it found, or why it failed."""

    run_id: str
    step: str
    attempt: int
    output: Any = None
    failure: str | None = None


class Decided(Struct, frozen=True):
    """A person's word on a step of which nobody knows how far it came: do it again, or give the run up."""

    run_id: str
    person: str
    reason: str
    again: bool


class StartStep(Struct, frozen=True):
    """Work a step. From the second attempt on it must look first whether it was done, where doing it twice does harm."""

    run_id: str
    process: str
    step: Step
    attempt: int
    inputs: dict[str, Any]


class StopStep(Struct, frozen=True):
    """End an attempt, however it stands: nobody waits for its answer any more."""

    run_id: str
    step: str
    attempt: int
    reason: str


Heard = ProcessRequested | CancelProcess | Decided | StepEnded | Wake
Said = StartStep | StopStep | ProcessStarted | ProcessFinished


class FactoryState(Struct):
    """The runs by id, in the order they were asked for."""

    runs: dict[str, Run] = field(default_factory=dict)


class ProcessFactory:
    """Decides on runs of processes.

    Args:
        definitions: The processes there are.
    """

    def __init__(self, definitions: Iterable[ProcessDefinition]) -> None:
        self.definitions = {definition.name: definition for definition in definitions}
        self.state = FactoryState()
        self._plans: dict[str, tuple[Step, ...]] = {}
        self._changed: dict[str, None] = {}

    def handle(self, message: Heard, now: int) -> Iterator[Said]:
        """Take a message in.

        Raises:
            ConfigError: It names a process or a run that there is not, or asks for what makes no sense; nothing has changed.
        """
        match message:
            case ProcessRequested():
                yield from self._requested(message, now)
            case CancelProcess():
                yield from self._canceled(message, now)
            case Decided():
                yield from self._decided(message, now)
            case StepEnded():
                yield from self._step_ended(message, now)
            case Wake():
                yield from self._woken(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        """The next time that an attempt runs out of time, or a step may be tried again."""
        times = []
        for run in self.state.runs.values():
            if run.status in UNDER_WAY:
                times += [self._deadline(run, attempt) for attempt in run.running()]
                times += run.due.values()
        return min(times, default=None)

    def resume(self, runs: Iterable[Run], now: int) -> Iterator[Said]:
        """Take over what a predecessor left behind: what was being worked then was broken off."""
        self.state = FactoryState({run.run_id: run for run in runs})
        for run in list(self.state.runs.values()):
            if run.is_over:
                continue
            self._touch(run)
            definition = self.definitions.get(run.process)
            if definition is None or definition.version != run.version:
                have = "has no such process" if definition is None else f"has version {definition.version}"
                for attempt in run.running():
                    _end(attempt, AttemptStatus.INTERRUPTED, now, "HEAN was changed")
                yield from self._fail(run, now, f"begun with version {run.version}, and this HEAN {have}: ask anew")
                continue
            for attempt in run.running():
                if attempt.status is AttemptStatus.RUNNING:  # else it ended with its run
                    _end(attempt, AttemptStatus.INTERRUPTED, now, "the factory was begun anew")
                    yield from self._broke_off(run, self._step(run, attempt.step), attempt, now)
            if run.status in UNDER_WAY:
                yield from self._go_on(run, now)
        yield from self._turns(now)

    def recall(self, run: Run) -> None:
        """Take up a run that is over and was no longer in memory."""
        self.state.runs.setdefault(run.run_id, run)

    def changes(self) -> list[Run]:
        """The runs that are no longer as they were when this was last asked: to be kept before anything is done."""
        changed = [self.state.runs[run_id] for run_id in self._changed if run_id in self.state.runs]
        self._changed.clear()
        self._forget()
        return changed

    # --- what is asked for ----------------------------------------------------------------------

    def _requested(self, message: ProcessRequested, now: int) -> Iterator[Said]:
        definition = self.definitions.get(message.process)
        if definition is None:
            raise ConfigError(f"process {message.process!r} is unknown: there are {', '.join(self.definitions)}")
        run = self.state.runs.get(message.run_id)
        if run is None:
            arguments = definition.complete(message.arguments, now)
            steps = steps_of(definition, arguments)
            run = Run(message.run_id, message.process, definition.version, dict(message.arguments), arguments, now)
            self.state.runs[run.run_id] = run
            self._plans[run.run_id] = steps
            self._touch(run)
            yield from self._turns(now)
            return
        if (run.process, run.asked) != (message.process, message.arguments):
            raise ConfigError(
                f"run {run.run_id} was asked for as {run.process} with {_listed(run.asked)}: give another key"
            )
        if run.status in {RunStatus.FAILED, RunStatus.CANCELED}:
            if run.version != definition.version:
                raise ConfigError(
                    f"run {run.run_id} was begun with version {run.version}, and {run.process} has {definition.version} "
                    "now: give another key"
                )
            run.become(RunStatus.PENDING)
            run.reason, run.ts_ended, run.asking = "", None, []
            run.due, run.failures, run.interruptions = {}, {}, {}
            self._touch(run)
            yield from self._turns(now)

    def _canceled(self, message: CancelProcess, now: int) -> Iterator[Said]:
        run = self._known(message.run_id)
        _must_be_signed(message.person, message.reason)
        if run.status is RunStatus.CANCELED:
            return
        if run.is_over:
            raise ConfigError(f"run {run.run_id} is over already: {run.status}")
        reason = f"by {message.person}: {message.reason}"
        yield from self._end(run, RunStatus.CANCELED, now, reason, AttemptStatus.CANCELED)
        yield from self._turns(now)

    def _decided(self, message: Decided, now: int) -> Iterator[Said]:
        run = self._known(message.run_id)
        _must_be_signed(message.person, message.reason)
        if run.is_over or not run.asking:
            raise ConfigError(f"run {run.run_id} waits for nobody's decision: it is {run.status}")
        step = run.asking.pop(0)
        self._touch(run)
        if message.again:
            run.due[step] = now
            yield from self._go_on(run, now)
        else:
            yield from self._fail(run, now, f"{step} given up by {message.person}: {message.reason}")
            yield from self._turns(now)

    # --- what became of a step ------------------------------------------------------------------

    def _step_ended(self, message: StepEnded, now: int) -> Iterator[Said]:
        run = self.state.runs.get(message.run_id)
        attempt = None if run is None else run.last(message.step)
        if run is None or attempt is None or attempt.number != message.attempt:
            return  # of an attempt that others came after
        if attempt.status is not AttemptStatus.RUNNING:
            return  # too late, or said twice
        self._touch(run)
        if message.failure is None:
            _end(attempt, AttemptStatus.FINISHED, now, "")
            attempt.output = message.output
            yield from self._go_on(run, now)
        else:
            _end(attempt, AttemptStatus.FAILED, now, message.failure)
            yield from self._broke_off(run, self._step(run, attempt.step), attempt, now)
            if run.status in UNDER_WAY:
                yield from self._go_on(run, now)
        yield from self._turns(now)

    def _woken(self, now: int) -> Iterator[Said]:
        for run in list(self.state.runs.values()):
            if run.status not in UNDER_WAY:
                continue
            late = [attempt for attempt in run.running() if self._deadline(run, attempt) <= now]
            for attempt in late:
                if attempt.status is not AttemptStatus.RUNNING:
                    continue  # ended with its run
                step = self._step(run, attempt.step)
                reason = f"took longer than {step.timeout_s:g} s"
                _end(attempt, AttemptStatus.TIMED_OUT, now, reason)
                self._touch(run)
                yield StopStep(run.run_id, step.name, attempt.number, reason)
                yield from self._broke_off(run, step, attempt, now)
            if run.status in UNDER_WAY and (late or any(at <= now for at in run.due.values())):
                yield from self._go_on(run, now)
        yield from self._turns(now)

    def _broke_off(self, run: Run, step: Step, attempt: Attempt, now: int) -> Iterator[Said]:
        """An attempt did not finish: try again, ask a person, or give the run up."""
        interrupted = attempt.status is AttemptStatus.INTERRUPTED
        counts = run.interruptions if interrupted else run.failures
        counts[step.name] = counts.get(step.name, 0) + 1
        if step.after_crash is AfterCrash.ASK and attempt.status is not AttemptStatus.FAILED:
            run.asking.append(step.name)
        elif interrupted and counts[step.name] <= INTERRUPTIONS:
            run.due[step.name] = now
        elif not interrupted and counts[step.name] < step.attempts:
            run.due[step.name] = now + int(step.pause_s * SECOND)
        else:
            often = f", {counts[step.name]} times" if counts[step.name] > 1 else ""
            yield from self._fail(run, now, f"{step.name}: {attempt.reason}{often}")

    # --- going on -------------------------------------------------------------------------------

    def _turns(self, now: int) -> Iterator[Said]:
        """Begin the runs whose turn it is."""
        for run in list(self.state.runs.values()):
            if run.status is RunStatus.PENDING and not (self.definitions[run.process].alone and self._busy(run)):
                run.become(RunStatus.RUNNING)
                run.ts_began = run.ts_began or now
                self._touch(run)
                yield ProcessStarted(run.process, run.run_id)
                yield from self._go_on(run, now)

    def _busy(self, waiting: Run) -> bool:
        return any(run.process == waiting.process and run.status in UNDER_WAY for run in self.state.runs.values())

    def _go_on(self, run: Run, now: int) -> Iterator[Said]:
        """Start every step that may be worked now, and see whether the run is done or waits."""
        steps = self._steps(run)
        done: dict[str, Any] = {}
        starts = []
        for step in steps:
            if not done.keys() >= set(step.needs or ()):
                continue
            inputs = {name: done[name] for name in step.needs or ()}
            given = input_hash(step, inputs)
            key = step_key(run.process, run.version, run.run_id, step.name, given)
            last = run.last(step.name)
            if last is not None and last.status is AttemptStatus.FINISHED and last.key == key:
                done[step.name] = last.output
            elif self._may_start(run, step, last, now):
                number = 1 if last is None else last.number + 1
                run.attempts.append(Attempt(step.name, number, AttemptStatus.RUNNING, key, given, now))
                run.due.pop(step.name, None)
                starts.append(StartStep(run.run_id, run.process, step, number, inputs))
        if len(done) == len(steps):
            yield from self._end(run, RunStatus.COMPLETED, now, "", AttemptStatus.CANCELED)
            return
        run.become(RunStatus.RUNNING if run.running() else RunStatus.WAITING)
        self._touch(run)
        yield from starts

    @staticmethod
    def _may_start(run: Run, step: Step, last: Attempt | None, now: int) -> bool:
        if step.name in run.asking:
            return False
        if last is None:
            return True
        return last.status is not AttemptStatus.RUNNING and run.due.get(step.name, now) <= now

    def _fail(self, run: Run, now: int, reason: str) -> Iterator[Said]:
        yield from self._end(run, RunStatus.FAILED, now, reason, AttemptStatus.CANCELED)

    def _end(
        self, run: Run, status: RunStatus, now: int, reason: str, left_behind: AttemptStatus
    ) -> Iterator[StopStep | ProcessFinished]:
        run.become(status)
        run.reason, run.ts_ended = reason, now
        run.asking, run.due = [], {}
        self._touch(run)
        for attempt in run.running():
            _end(attempt, left_behind, now, f"the run {status.lower()}")
            yield StopStep(run.run_id, attempt.step, attempt.number, attempt.reason)
        outcome = status.lower() + (f": {reason}" if reason else "")
        yield ProcessFinished(run.run_id, outcome, _report(run))

    # --- looking --------------------------------------------------------------------------------

    def views(self) -> list[RunView]:
        """Every run in memory, the one asked for last first."""
        return [self.view(run) for run in sorted(self.state.runs.values(), key=lambda run: -run.ts_asked)]

    def view(self, run: Run) -> RunView:
        """A run as people see it."""
        try:
            steps: Iterable[str] = [step.name for step in self._steps(run)]
        except (ConfigError, KeyError):  # of a HEAN that had other processes
            steps = dict.fromkeys(attempt.step for attempt in run.attempts)
        return RunView(
            run.run_id,
            run.process,
            run.version,
            run.arguments,
            run.status,
            run.reason,
            self._waits_for(run),
            run.ts_asked,
            run.ts_began,
            run.ts_ended,
            tuple(_step_view(run, name) for name in steps),
        )

    def _waits_for(self, run: Run) -> str:
        if run.status is RunStatus.PENDING:
            return f"another run of {run.process} to end"
        if run.asking:
            return f"a person to say whether {run.asking[0]} may be done again"
        if run.status is RunStatus.WAITING and run.due:
            step, at = min(run.due.items(), key=lambda item: item[1])
            return f"{minute(at)} UTC, to try {step} again"
        return ""

    # --- small things ---------------------------------------------------------------------------

    def _known(self, run_id: str) -> Run:
        run = self.state.runs.get(run_id)
        if run is None:
            raise ConfigError(f"there is no run {run_id!r}: `hean process list` shows those there are")
        return run

    def _steps(self, run: Run) -> tuple[Step, ...]:
        found = self._plans.get(run.run_id)
        if found is None:
            found = self._plans[run.run_id] = steps_of(self.definitions[run.process], run.arguments)
        return found

    def _step(self, run: Run, name: str) -> Step:
        return next(step for step in self._steps(run) if step.name == name)

    def _deadline(self, run: Run, attempt: Attempt) -> int:
        return attempt.ts_began + int(self._step(run, attempt.step).timeout_s * SECOND)

    def _touch(self, run: Run) -> None:
        self._changed[run.run_id] = None

    def _forget(self) -> None:
        over = [run_id for run_id, run in self.state.runs.items() if run.is_over]
        for run_id in over[: max(0, len(over) - REMEMBERED)]:
            del self.state.runs[run_id]
            self._plans.pop(run_id, None)


def _end(attempt: Attempt, status: AttemptStatus, now: int, reason: str) -> None:
    attempt.status, attempt.ts_ended, attempt.reason = status, now, reason


def _must_be_signed(person: str, reason: str) -> None:
    if not person.strip() or not reason.strip():
        raise ConfigError("a person and a reason are needed: somebody will want to know who, and why")


def _listed(arguments: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items()) or "no arguments"


def _report(run: Run) -> dict[str, str]:
    """How the steps went, in a word each."""
    words = {}
    for attempt in run.attempts:
        again = f" (attempt {attempt.number})" if attempt.number > 1 else ""
        words[attempt.step] = f"{attempt.status.lower()}{again}" + (f": {attempt.reason}" if attempt.reason else "")
    return words


def _step_view(run: Run, name: str) -> StepView:
    last = run.last(name)
    if last is None:
        return StepView(name, RunStatus.PENDING, 0, None, None, "", None)
    return StepView(name, last.status, last.number, last.ts_began, last.ts_ended, last.reason, last.output)
