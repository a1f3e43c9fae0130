"""The actor that owns the processes it spawns: each step a task of its own, or a component in an actor of its own.

What is decided is kept in the table first and done afterwards, so that a successor goes on where this one was killed.
"""

import fcntl
import hashlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import ray
from msgspec import Struct

from actors.process_steps import COMPONENTS, WORKS, Build, Errand, ProcessPlan, Work, findings_in, hosted_id
from actors.shell import Peer, Post
from actors.words import Pulse, Recovered
from hean import codec
from hean.errors import ConfigError, HeanError
from hean.messages import CancelProcess, Envelope, Message, ProcessFinished, ProcessRequested, ProcessStarted, Wake
from hean.processes.built_in import BUILT_IN, DIRECT_SMOKE_TEST, ENVIRONMENT_SCAN, SMOKE_TEST
from hean.processes.definition import Hosting, ProcessDefinition, Taken, must_be_key
from hean.processes.environment import EnvironmentView, environment
from hean.processes.factory import REMEMBERED, Decided, Heard, ProcessFactory, Said, StartStep, StepEnded, StopStep
from hean.processes.runs import RunView
from hean.processes.smoke_test import NAME
from hean.store.runs import RunTable
from hean.topology import Node
from hean.units import SECOND

TABLE = "processes.db"
GRACE_S = 20.0
"""How long a component that is told to end may take to clear up, before its actor is ended."""

_LOOK_S = 0.25
_MONITOR = Node("monitor", "monitor")
_TAKES = frozenset({ProcessFinished.__name__})

OFFERED = tuple(definition for definition in BUILT_IN if definition is not DIRECT_SMOKE_TEST)
"""What a factory beside an engine does: orders go through the engine alone."""

Attempted = tuple[str, str, int]


class Hosts(Protocol):
    """Who gives a component an actor of its own, in a place of the topology."""

    def start(self, node: str, component: Any) -> None:
        """Begin an actor for it, connected to the others; one that is there already is ended first."""

    def tell(self, node: str, message: Message) -> None:
        """Tell it something."""

    def stop(self, node: str) -> None:
        """End its actor, if there is one."""


class ProcessView(Struct, frozen=True):
    """A process that may be asked for, and what with."""

    name: str
    version: int
    about: str
    takes: tuple[Taken, ...] = ()
    further: str = ""


class ProcessFactoryActor:
    """Decides what to work, works it, and keeps what became of it.

    Its constructor touches nothing. `recover` reads the table, `connect` lets unfinished runs go on.

    Args:
        plan: Where processes work.
        incarnation: The life this is, as the engine counts them.
        hosts: Who gives components actors; without it, processes that need one are refused.
        definitions: The processes there are.
        works: How each kind of step is worked.
        components: The same for steps that are components: what makes them.
    """

    def __init__(
        self,
        plan: ProcessPlan,
        incarnation: int = 0,
        hosts: Hosts | None = None,
        *,
        definitions: Sequence[ProcessDefinition] = OFFERED,
        works: Mapping[str, Work] = WORKS,
        components: Mapping[str, Build] = COMPONENTS,
    ) -> None:
        self.plan = plan
        self.sender = f"factory@{incarnation}"
        self._post = Post(self.sender)
        self._works = dict(works)
        self._components = dict(components)
        self._factory = ProcessFactory(definitions)
        self._table: RunTable | None = None
        self._hosts = hosts
        self._lock = threading.RLock()
        self._stirred = threading.Event()
        self._resting = False
        self._thread: threading.Thread | None = None
        self._tasks: dict[Any, Attempted] = {}
        self._hosted: dict[str, Attempted] = {}
        self._leaving: dict[str, int] = {}
        self._seq = 0
        self._told = 0

    # --- coming to life -------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """Open the table.

        Raises:
            JournalError: A predecessor still writes it, or it cannot be read.
        """
        began = time.perf_counter()
        self._table = RunTable(self.plan.home / TABLE)
        unfinished = self._table.unfinished()
        return Recovered("factory", os.getpid(), len(unfinished), False, time.perf_counter() - began, {}, _TAKES)

    def connect(self, peers: Mapping[str, Peer], hosts: Hosts | None = None) -> None:
        """Learn where the others are. At the first time, unfinished runs go on.

        Args:
            peers: Whoever hears facts: the monitor, where there is one.
            hosts: Who gives components actors; without it, processes that need one are refused.
        """
        with self._lock:
            self._post.connect(peers)
            self._hosts = hosts or self._hosts
            if self._thread is not None:
                return
            table = self._written()
            runs = [*table.newest(REMEMBERED), *table.unfinished()]
            self._do(self._factory.resume(runs, time.time_ns()))
            self._thread = threading.Thread(target=self._watch, name="factory-watch", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        """Stop watching and let the table go: unfinished runs go on in the next life."""
        with self._lock:
            self._resting = True
            self._stirred.set()
        if self._thread is not None:
            self._thread.join(5)
        with self._lock:
            for ref in self._tasks:
                ray.cancel(ref, force=True)
            self._tasks = {}
            if self._table is not None:
                self._table.close()
                self._table = None

    def ping(self) -> Pulse:
        return Pulse("factory", os.getpid(), time.time_ns(), self._told, self._post.sent, "")

    # --- what may be asked of it ----------------------------------------------------------------

    def request(self, process: str, arguments: Mapping[str, str] | None = None, key: str = "") -> str:
        """Ask for a run, and return its id. The same key stands for the same run: one that failed goes on where it failed.

        Raises:
            ConfigError: There is no such process, an argument is wrong, or the key stands for something else.
        """
        with self._lock:
            table = self._written()
            if key:
                must_be_key(key)
            run_id = f"{process}@{key}" if key else f"{process}-{table.count(process) + 1}"
            known = table.run(run_id)
            if known is not None:
                self._factory.recall(known)
            self._must_have_hosts(process)
            self._hear(ProcessRequested(process, run_id, dict(arguments or {})))
            return run_id

    def cancel(self, run_id: str, person: str, reason: str) -> RunView:
        """End a run; what it has under way is stopped.

        Raises:
            ConfigError: There is no such run, it is over, or nobody signs for it.
        """
        with self._lock:
            self._recall(run_id)
            self._hear(CancelProcess(run_id, person, reason))
            return self.run(run_id)

    def decide(self, run_id: str, person: str, reason: str, *, again: bool) -> RunView:
        """Answer a run that waits for a person: whether the step that broke off is done again, or the run is given up.

        Raises:
            ConfigError: There is no such run, or it waits for nobody.
        """
        with self._lock:
            self._recall(run_id)
            self._hear(Decided(run_id, person, reason, again))
            return self.run(run_id)

    def processes(self) -> list[ProcessView]:
        """The processes that may be asked for."""
        known = self._factory.definitions.values()
        return [ProcessView(one.name, one.version, one.about, one.takes, one.further) for one in known]

    def runs(self) -> list[RunView]:
        """The runs that are under way, and the newest that are over; the newest first."""
        with self._lock:
            return self._factory.views()

    def run(self, run_id: str) -> RunView:
        """One run, however old.

        Raises:
            ConfigError: There is none of this id.
        """
        with self._lock:
            return self._factory.view(self._recall(run_id))

    def environment(self) -> EnvironmentView:
        """What the scans have found, as it stands now: what is too old is shown as stale."""
        with self._lock:
            found = [
                finding
                for run in self._factory.state.runs.values()
                if run.process == ENVIRONMENT_SCAN.name
                for attempt in run.attempts
                for finding in findings_in(attempt.output)
            ]
            return environment(found, time.time_ns())

    # --- the mailbox ----------------------------------------------------------------------------

    def tell(self, parcel: bytes, _sender: str) -> None:
        """Hear of hosted components that they are over."""
        with self._lock:
            for envelope in codec.envelopes(parcel):
                self._told += 1
                message = envelope.message
                if isinstance(message, ProcessFinished):
                    self._component_finished(message)

    def _component_finished(self, message: ProcessFinished) -> None:
        for node, (run_id, step, attempt) in list(self._hosted.items()):
            if hosted_id(run_id, step, attempt) == message.run_id:
                del self._hosted[node]
                self._leaving.pop(node, None)
                if self._hosts is not None:
                    self._hosts.stop(node)
                outcome, _, reason = message.outcome.partition(": ")
                failure = None if outcome == "completed" else reason or outcome
                self._hear(StepEnded(run_id, step, attempt, dict(message.report), failure))

    # --- deciding, keeping, doing ---------------------------------------------------------------

    def _hear(self, message: Heard) -> None:
        self._do(self._factory.handle(message, time.time_ns()))

    def _do(self, decided: Iterable[Said]) -> None:
        """Keep what was decided, then do it. What cannot be kept must not be done: then this process ends."""
        said = list(decided)
        try:
            self._written().keep(self._factory.changes())
        except HeanError:
            _die()
        for one in said:
            match one:
                case StopStep():
                    self._stop(one)
                case StartStep():
                    self._start(one)
                case ProcessStarted() | ProcessFinished():
                    self._say(one)
        self._stirred.set()

    def _start(self, start: StartStep) -> None:
        step = start.step
        errand = Errand(start.run_id, start.process, step.name, start.attempt, step.given, start.inputs, self.plan)
        if step.hosting is Hosting.COMPONENT:
            self._host(start, errand)
            return
        work = self._works.get(step.work)
        if work is None:
            self._hear(StepEnded(start.run_id, step.name, start.attempt, failure=f"nobody knows how to {step.work}"))
            return
        task = _work.options(num_cpus=step.cpus, max_retries=0, name=f"{start.process}: {step.work}")
        ref = task.remote(work, errand)
        self._tasks[ref] = (start.run_id, step.name, start.attempt)

    def _host(self, start: StartStep, errand: Errand) -> None:
        """Give a component its actor. There is one place of its kind in the topology."""
        step = start.step
        build = self._components.get(step.work)
        try:
            if self._hosts is None or build is None:
                raise ConfigError(f"nobody here gives {step.work} an actor of its own")
            self._hosts.start(NAME, build(errand))
        except HeanError as refusal:
            self._hear(StepEnded(start.run_id, step.name, start.attempt, failure=str(refusal)))
            return
        self._leaving.pop(NAME, None)
        self._hosted[NAME] = (start.run_id, step.name, start.attempt)

    def _stop(self, stop: StopStep) -> None:
        ended = (stop.run_id, stop.step, stop.attempt)
        for ref, attempted in list(self._tasks.items()):
            if attempted == ended:
                del self._tasks[ref]
                ray.cancel(ref, force=True)
        for node, attempted in self._hosted.items():
            if attempted == ended and self._hosts is not None:
                # It may have an order out: it calls that back, and says that it is over.
                self._hosts.tell(node, CancelProcess(hosted_id(*ended), "factory", stop.reason))
                self._leaving[node] = time.time_ns() + int(GRACE_S * SECOND)

    def _say(self, fact: Message) -> None:
        self._seq += 1
        trace = f"{self.sender}:{self._seq}"
        self._post.send([(_MONITOR, Envelope(self.sender, self._seq, time.time_ns(), trace, "", fact))])

    # --- watching -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Hear of tasks that ended, and of time that has run out; sleep while there is nothing to wait for."""
        try:
            while not self._resting:
                with self._lock:
                    refs = list(self._tasks)
                    wait = self._until_next()
                    self._stirred.clear()
                if refs:
                    ready, _ = ray.wait(refs, num_returns=1, timeout=_LOOK_S if wait is None else min(wait, _LOOK_S))
                else:
                    ready = []
                    self._stirred.wait(wait)
                with self._lock:
                    if not self._resting:
                        for ref in ready:
                            self._task_ended(ref)
                        self._look_at_the_clock()
        except BaseException:  # noqa: BLE001 (nobody would see the thread end)
            _die()

    def _until_next(self) -> float | None:
        times = [*self._leaving.values()]
        at = self._factory.wake_at()
        times += [] if at is None else [at]
        return max(0.0, (min(times) - time.time_ns()) / SECOND) if times else None

    def _task_ended(self, ref: Any) -> None:
        attempted = self._tasks.pop(ref, None)
        if attempted is None:
            return  # it was stopped meanwhile
        output: Any = None
        failure = None
        try:
            output = msgspec.json.decode(ray.get(ref))
        except ray.exceptions.RayError as error:
            failure = _reason(error)
        self._hear(StepEnded(*attempted, output, failure))

    def _look_at_the_clock(self) -> None:
        now = time.time_ns()
        at = self._factory.wake_at()
        if at is not None and at <= now:
            self._hear(Wake())
        for node in [node for node, until in self._leaving.items() if until <= now]:
            del self._leaving[node]
            self._hosted.pop(node, None)
            if self._hosts is not None:
                self._hosts.stop(node)

    # --- small things ---------------------------------------------------------------------------

    def _written(self) -> RunTable:
        if self._table is None:
            raise ConfigError("the factory is not begun: recover() and connect() come first")
        return self._table

    def _recall(self, run_id: str) -> Any:
        """A run, from memory or from the table.

        Raises:
            ConfigError: There is none of this id.
        """
        known = self._factory.state.runs.get(run_id) or self._written().run(run_id)
        if known is None:
            raise ConfigError(f"there is no run {run_id!r}: `hean process list` shows those there are")
        self._factory.recall(known)
        return known

    def _must_have_hosts(self, process: str) -> None:
        if process == SMOKE_TEST.name and self._hosts is None:
            raise ConfigError("the smoke test goes through the engine's order path, and no engine runs")


@ray.remote
def _work(work: Work, errand: Errand) -> bytes:
    """Work one step, alone: an earlier attempt that its watcher left behind is waited for, however long it takes.

    The answer goes as JSON, so that what is kept is what was found.
    """
    name = hashlib.sha256(f"{errand.run_id}/{errand.step}".encode()).hexdigest()[:32]
    path = errand.plan.home / "steps" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return msgspec.json.encode(work(errand))


def _reason(error: ray.exceptions.RayError) -> str:
    """Why a task failed, in one line."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause if isinstance(error.cause, BaseException) else error
        said = " ".join(str(cause).split())[:500]
        return said if isinstance(cause, HeanError) and said else f"{type(cause).__name__}: {said}"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its process took too much memory, and was ended"
    return f"its process ended ({type(error).__name__})"


def _die() -> None:
    """End this process: what it decided cannot be kept, or nobody watches any more. A successor goes on from the table."""
    traceback.print_exc(file=sys.stderr)
    os._exit(1)
