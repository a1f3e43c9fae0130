"""What an actor was told, told again to a new component of its kind, to see whether it says and becomes the same.

The same code tells it as tells an actor that comes back (`hean.recovery`). Nothing is written: it may be done while the engine runs.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.shell import KEEPING, BuiltFrom, Keeping
from hean import codec
from hean.engine_settings import EngineSettings
from hean.errors import HeanError, JournalError
from hean.instruments import Instrument
from hean.live_system import component, live_strategies, topology
from hean.messages import Envelope
from hean.recovery import Again, Retelling
from hean.settings import validated
from hean.store.journal import JournalReader, Life, Snapshot, Told


class Replayed(Struct, frozen=True):
    """What came of telling a journal again. `difference` is the first there was, in words; empty where all is the same."""

    node: str
    entries: int
    messages: int
    snapshots: int
    lives: int
    difference: str = ""

    @property
    def is_same(self) -> bool:
        return not self.difference


def replay(path: Path, *, from_newest: bool = False) -> Replayed:
    """Tell a journal again from its oldest snapshot on, and compare.

    Args:
        path: The journal.
        from_newest: Begin at the newest snapshot instead: only what came after it is told.

    Raises:
        JournalError: It cannot be read, or its node does not keep what it is told.
        ConfigError: What it was built from makes no sense to this HEAN.
    """
    reader = JournalReader(path)
    try:
        reader.hold()
        return _Replay(reader, from_newest=from_newest).run()
    finally:
        reader.close()


class Rebuilt(Struct, frozen=True):
    """A component as its last life left it, what it was built for, and when it was last told something."""

    component: Any
    instruments: dict[str, Instrument]
    ts: int


def told_again(path: Path) -> Rebuilt:
    """Build the component a journal is of, in the state it had after the last entry.

    An entry that its component dies of is the end of what it became: it is built as it was before.

    Raises:
        JournalError: It cannot be read, or its node does not keep what it is told.
        ConfigError: What it was built from makes no sense to this HEAN.
    """
    reader = JournalReader(path)
    try:
        reader.hold()
        telling = _Replay(reader, from_newest=True)
        whole = 0
        try:
            for one in _steps(telling):
                rebuilt, whole = one, whole + 1
        except HeanError:
            raise
        except Exception:
            if not whole:
                raise
            # Whatever the component raised, it may have gone half of the way: it is told all but that once more.
            rebuilt = next(islice(_steps(telling), whole - 1, None))
        return rebuilt
    finally:
        reader.close()


def _steps(telling: "_Replay") -> Iterator[Rebuilt]:
    """The component as it begins, and after each entry: always the same one."""
    newest = telling.snapshots[-1] if telling.snapshots else None
    life, rules = telling.begun(newest), telling.built(newest).instruments
    yield Rebuilt(life.component, rules, newest.now if newest is not None else 0)
    for again in life.all(telling.reader.after(newest.n if newest is not None else 0)):
        yield Rebuilt(life.component, rules, again.told.now)


class _Replay:
    """One telling, from snapshot to snapshot: a life begins with one, so that between two there is never more than one life."""

    def __init__(self, reader: JournalReader, *, from_newest: bool) -> None:
        self.reader = reader
        self.lives: dict[int, Life] = {life.incarnation: life for life in reader.lives()}
        if not self.lives:
            raise JournalError(f"{reader.path} has not begun: nothing was told")
        snapshots = reader.snapshots()
        self.snapshots = snapshots[-1:] if from_newest else snapshots
        self.messages = 0

    def run(self) -> Replayed:
        start = self.snapshots[0] if self.snapshots else None
        life = self.begun(start)
        told, compared, since = 0, 0, start
        lives = {life.incarnation} if start is not None else set()
        unchecked: list[Told] = []
        ahead = list(self.snapshots[1:])
        entries = _with_next(self.reader.after(start.n if start is not None else 0))
        try:
            for entry, following in entries:
                while ahead and ahead[0].n < entry.n:
                    since = ahead.pop(0)
                    life = self._compare_state(life, since, unchecked)
                    unchecked, compared = [], compared + 1
                again = life.tell(entry)
                told += 1
                unchecked.append(entry)
                lives.add(entry.incarnation)
                ends = following is None or following.incarnation != entry.incarnation
                self._compare_said(again, may_be_unwritten=ends)
            for snapshot in ahead:
                life = self._compare_state(life, snapshot, unchecked)
                unchecked, compared = [], compared + 1
        except _DifferenceError as found:
            return Replayed(self.reader.node, told, self.messages, compared, len(lives), str(found))
        return Replayed(self.reader.node, told, self.messages, compared, len(lives))

    def begun(self, snapshot: Snapshot | None, incarnation: int | None = None) -> Retelling:
        """A component as it was built in a life, in the state of a snapshot."""
        built = self.built(snapshot, incarnation)
        settings: EngineSettings = validated(EngineSettings, built.settings, where=str(self.reader.path))
        strategies = live_strategies(settings)
        graph = topology(settings, strategies)
        role = next((node.role for node in graph.nodes if node.name == built.node), "")
        if KEEPING.get(role, Keeping.ENTRIES) is not Keeping.ENTRIES:
            raise JournalError(
                f"{self.reader.path}: {built.node} keeps what it has become, not all it was told: it cannot be told again"
            )
        made = component(settings, built.instruments, built.node, built.tag, strategies)
        self._since = snapshot
        return Retelling(graph, built.node, made, snapshot)

    def built(self, snapshot: Snapshot | None, incarnation: int | None = None) -> BuiltFrom:
        """What a life was built from; where none is named, that of the snapshot, or the first."""
        if incarnation is None:
            incarnation = min(self.lives) if snapshot is None else snapshot.incarnation
        return msgspec.json.decode(self.lives[incarnation].built_from, type=BuiltFrom)

    def _compare_said(self, again: Again, *, may_be_unwritten: bool) -> None:
        self.messages += len(again.said)
        written = self.reader.said(again.told.n)
        if written is None:
            # What was said last is written with the next entry, and a process that was killed had none.
            if again.said and not may_be_unwritten:
                raise _DifferenceError(
                    f"entry {again.told.n}: it says {type(again.said[0].message).__name__}, and said nothing then"
                )
            return
        if codec.letters(again.said) != written:
            raise _DifferenceError(_first_unlike(again.told.n, codec.envelopes(written), again.said))

    def _compare_state(self, life: Retelling, snapshot: Snapshot, told: Sequence[Told]) -> Retelling:
        """Compare with a snapshot, and go on from there."""
        if self._is_built_anew(life, snapshot):
            # A life of other settings was told again by them, from the newest snapshot it had.
            life = self.begun(self._since, snapshot.incarnation)
            for entry in told:
                life.tell(entry)
        life.live(snapshot.incarnation)
        state = codec.encoded(life.component.state)
        if state != snapshot.state:
            where = _first_field(_plain(snapshot.state), _plain(state), "state")
            raise _DifferenceError(f"snapshot after entry {snapshot.n}: {where}")
        if life.memo() != snapshot.memo:
            where = _first_field(_plain(snapshot.memo), _plain(life.memo()), "memo")
            raise _DifferenceError(
                f"snapshot after entry {snapshot.n}: what it had heard and said is not the same: {where}"
            )
        self._since = snapshot
        return life

    def _is_built_anew(self, life: Retelling, snapshot: Snapshot) -> bool:
        before, now = self.lives.get(life.incarnation), self.lives[snapshot.incarnation]
        return before is not None and before.built_from != now.built_from


class _DifferenceError(Exception):
    """The first thing that is not the same."""


def _with_next(entries: Iterator[Told]) -> Iterator[tuple[Told, Told | None]]:
    before: Told | None = None
    for entry in entries:
        if before is not None:
            yield before, entry
        before = entry
    if before is not None:
        yield before, None


def _first_unlike(entry: int, then: Sequence[Envelope], now: Sequence[Envelope]) -> str:
    for place, (old, new) in enumerate(zip(then, now, strict=False), 1):
        if codec.letters([old]) != codec.letters([new]):
            kinds = type(old.message).__name__, type(new.message).__name__
            if kinds[0] != kinds[1]:
                return f"entry {entry}, message {place}: {kinds[0]} then, {kinds[1]} now"
            where = _first_field(msgspec.to_builtins(old), msgspec.to_builtins(new), kinds[0])
            return f"entry {entry}, message {place}: {where}"
    return f"entry {entry}: {len(then)} messages then, {len(now)} now"


def _first_field(then: object, now: object, path: str) -> str:
    """The first field of two trees that is not the same, and what it is in each."""
    match then, now:
        case Mapping(), Mapping():
            for name in [*then, *(name for name in now if name not in then)]:
                if name not in then or name not in now:
                    return f"{path}.{name} is {'gone' if name in then else 'new'}"
                if then[name] != now[name]:
                    return _first_field(then[name], now[name], f"{path}.{name}")
            return f"{path}: the same, in another order"
        case list() | tuple(), list() | tuple():
            for place, (old, new) in enumerate(zip(then, now, strict=False)):
                if old != new:
                    return _first_field(old, new, f"{path}[{place}]")
            return f"{path} has {len(then)} then, {len(now)} now"
        case _:
            return f"{path} was {then!r}, is {now!r}"


def _plain(encoded: bytes) -> object:
    return msgspec.msgpack.decode(encoded)
