"""What a process is: its steps, which of them need which, how long each may take, and what a crash means to it."""

import enum
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from hean.errors import ConfigError

Arguments = dict[str, str]


class Hosting(enum.StrEnum):
    """Where a step is worked: as a task that ends with its answer, or as a component that is told messages until it says so."""

    TASK = "task"
    COMPONENT = "component"


class AfterCrash(enum.StrEnum):
    """What to do with a step of which nobody knows how far it came.

    REPEAT: do it again; it is told that it is not the first attempt, and looks first where doing it twice would do harm.
    ASK: only a person can know; the run waits for one.
    """

    REPEAT = "repeat"
    ASK = "ask"


class Step(Struct, frozen=True, kw_only=True):
    """One step of a run.

    Args:
        name: What it is called in its run.
        work: What is done, by the name the shell knows it by.
        given: What it is done with, beside what the steps it needs have found.
        needs: The steps that must be finished first; the one before it where not given.
        timeout_s: How long one attempt may take, from when it is asked for: waiting for a processor counts.
        attempts: How often it may fail or run out of time in all.
        pause_s: How long to wait after a failure.
        cpus: How many processors it computes on; 0 where it waits for others most of the time.
    """

    name: str
    work: str
    given: Arguments = msgspec.field(default_factory=dict)
    needs: tuple[str, ...] | None = None
    timeout_s: float
    attempts: int = 1
    pause_s: float = 2.0
    after_crash: AfterCrash = AfterCrash.REPEAT
    hosting: Hosting = Hosting.TASK
    cpus: float = 0.0


class Taken(Struct, frozen=True):
    """An argument of a process: what it is where not given, None where it must be; and what it means, in a few words."""

    name: str
    usual: str | None
    about: str


class ProcessDefinition(Struct, frozen=True, kw_only=True):
    """A kind of process.

    Args:
        name: What it is asked for by.
        version: Raised when its steps change: a run that was begun with another is not gone on with.
        about: One sentence for people.
        complete: Checks what it is asked for with, and fills in the rest, at the time it is asked for.
        plan: The steps of a run, from its complete arguments alone.
        alone: Whether a run waits until no other of its kind is under way.
        takes: What it is asked for with.
        further: What may be given besides, in a sentence; empty where nothing may.
    """

    name: str
    version: int
    about: str
    complete: Callable[[Mapping[str, str], int], Arguments]
    plan: Callable[[Mapping[str, str]], Sequence[Step]]
    alone: bool = True
    takes: tuple[Taken, ...] = ()
    further: str = ""


def steps_of(definition: ProcessDefinition, arguments: Mapping[str, str]) -> tuple[Step, ...]:
    """The steps of a run, each with the steps it needs spelled out.

    Raises:
        ConfigError: An argument or the plan itself is wrong.
    """
    steps: list[Step] = []
    for step in definition.plan(arguments):
        before = steps[-1:]
        needs = tuple(one.name for one in before) if step.needs is None else step.needs
        known = {one.name for one in steps}
        where = f"process {definition.name}, step {step.name!r}"
        if not step.name or step.name in known:
            raise ConfigError(f"{where}: every step needs a name of its own")
        if not known.issuperset(needs):
            raise ConfigError(
                f"{where} needs {', '.join(sorted(set(needs) - known))}: a step comes after what it needs"
            )
        if step.timeout_s <= 0 or step.attempts < 1 or step.pause_s < 0:
            raise ConfigError(f"{where}: timeout_s and attempts must be above 0, pause_s not below")
        steps.append(msgspec.structs.replace(step, needs=needs))
    if not steps:
        raise ConfigError(f"process {definition.name} has nothing to do: its arguments leave no step")
    return tuple(steps)


def input_hash(step: Step, inputs: Mapping[str, Any]) -> str:
    """What a step is done with, as one word: the same means that it would find the same."""
    return digest(step.work, step.given, inputs)


def step_key(process: str, version: int, run_id: str, step: str, inputs: str) -> str:
    """What a finished step is known again by."""
    return digest(process, version, run_id, step, inputs)


def digest(*parts: Any) -> str:
    """Values as one short word, the same in every process and on every day."""
    content = msgspec.json.encode(parts, order="deterministic")
    return hashlib.sha256(content).hexdigest()[:32]


def chosen(process: str, given: Mapping[str, str], takes: Sequence[Taken]) -> Arguments:
    """What was asked for, over what is usual.

    Args:
        process: Whose arguments they are.
        given: What was asked for.
        takes: Every argument there is.

    Raises:
        ConfigError: One is unknown, or one that must be given is not.
    """
    known = {one.name: one.usual for one in takes}
    unknown = [name for name in given if name not in known]
    if unknown:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"process {process} has no argument {unknown[0]!r}: there are {listed}")
    found = {name: given.get(name, usual) for name, usual in known.items()}
    for name, value in found.items():
        if value is None:
            raise ConfigError(f"process {process}: the argument {name} must be given, as {name}=VALUE")
    return {name: value for name, value in found.items() if value is not None}


def must_be_key(key: str) -> None:
    """Refuse a key that could not be part of a run's id.

    Raises:
        ConfigError: It is empty, too long, or has other than plain letters.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,63}", key):
        raise ConfigError(f"key {key!r}: at most 64 letters, digits, and _ . : + - between them")
