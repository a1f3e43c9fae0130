"""The shell of a component: mailbox, clock, journal, alarm. Written once, and it decides nothing.

What a node is told is journaled, handled, and what it says is sent on: a batch in, at most one batch out to each
receiver. An exception ends the process; the engine decides what happens next.
"""

import enum
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import ray
from msgspec import Struct

from actors.logs import NodeLog
from actors.words import Pulse, Recovered
from hean import codec
from hean.component import takes
from hean.engine_settings import EngineSettings
from hean.errors import ContractError, JournalError
from hean.instruments import Instrument
from hean.live_system import component, live_strategies, topology
from hean.messages import Envelope, Fact, Message, Observation
from hean.recovery import Retelling
from hean.store.journal import Journal
from hean.topology import Node
from hean.trading_system import Strategy
from hean.units import SECOND

_LOCK_WAIT_S = 10.0
_REMEMBERED = 20_000


class Keeping(enum.StrEnum):
    """What of a node outlives its process.

    ENTRIES: all it was told, so that it can be told again. STATE: what it has become, each time something was said or
    asked (a paper venue hears too much of the market to be told that again). NOTHING: it is warmed up from the market's past.
    """

    ENTRIES = "entries"
    STATE = "state"
    NOTHING = "nothing"


_ENTRIES_OF_STATE = 5_000
"""Entries that are kept where each has a snapshot: what was said on hearing them may not have arrived."""

KEEPING = {"venue": Keeping.STATE, "strategy": Keeping.NOTHING, "process": Keeping.NOTHING}


class Seat(Struct, frozen=True):
    """All that a node's process is begun with. It holds no secret: Ray shows what actors are made from.

    `incarnation` is the life this is: a successor has a higher one. `epoch` is the life of the core that it is part of: who
    belongs to an earlier one is not heard. `home` is the directory of the venue mode.
    """

    node: str
    home: Path
    settings: EngineSettings
    instruments: dict[str, Instrument]
    tag: str
    incarnation: int
    epoch: int


class BuiltFrom(Struct, frozen=True):
    """What a journal says its component was built from, so that anybody can build it again."""

    node: str
    settings: dict[str, Any]
    instruments: dict[str, Instrument]
    tag: str


class Peer(Struct, frozen=True):
    """A receiver: where its mailbox is, the names of the messages it takes, and the life it is in.

    `cursors` is what it has heard of each source, where it is to be told at once what it missed; None where it is not.
    """

    handle: Any
    takes: frozenset[str]
    incarnation: int
    cursors: dict[str, int] | None = None


class Clock:
    """The machine's time, but never backwards: where that is set back, this one goes on from where it was.

    Standing still until the other has caught up would hold up every timer for as long.
    """

    def __init__(self) -> None:
        self._ahead = -time.monotonic_ns()

    def now(self) -> int:
        # Read in this order the difference is never too large, whatever comes between.
        self._ahead = max(self._ahead, time.time_ns() - time.monotonic_ns())
        return self._ahead + time.monotonic_ns()

    def not_before(self, ts: int) -> None:
        """Know of a time that has been already."""
        self._ahead = max(self._ahead, ts - time.monotonic_ns())


class Post:
    """Sends what is addressed to others, in the order it was said. Keeps the facts, for those who come back.

    A message to somebody who is not there is lost: what is a fact is delivered again when he is. A gateway's thread sends while
    the mailbox learns of others.
    """

    def __init__(self, sender: str) -> None:
        self._sender = sender
        self.peers: dict[str, Peer] = {}
        self.sent = 0
        self._takes: dict[tuple[str, type[Message]], bool] = {}
        self._facts: deque[tuple[str, Envelope]] = deque(maxlen=_REMEMBERED)
        self._lock = threading.RLock()

    def connect(self, peers: Mapping[str, Peer]) -> None:
        """Learn where others are. Who has missed something is told that before anything newer.

        It would take what has a number below one it has heard for a repetition.
        """
        with self._lock:
            self.peers |= peers
            self._takes.clear()
            self.again({name: peer.cursors for name, peer in peers.items() if peer.cursors is not None})

    def send(self, outward: Iterable[tuple[Node, Envelope]]) -> None:
        """Send each receiver its part as one parcel: those first who are to do something, then those who are to know."""
        by_receiver: dict[str, list[Envelope]] = {}
        urgent: dict[str, None] = {}
        with self._lock:
            for node, envelope in outward:
                is_fact = isinstance(envelope.message, Fact)
                if is_fact:
                    self._facts.append((node.name, envelope))
                if self._is_taken(node.name, type(envelope.message)):
                    by_receiver.setdefault(node.name, []).append(envelope)
                    if not is_fact:
                        urgent[node.name] = None
            for name in {**urgent, **by_receiver}:
                self._tell(name, by_receiver[name])

    def remember(self, outward: Iterable[tuple[Node, Envelope]]) -> None:
        """Note what was said in an earlier life; whether it arrived is not known."""
        self._facts += [(node.name, envelope) for node, envelope in outward if isinstance(envelope.message, Fact)]

    def again(self, cursors: Mapping[str, Mapping[str, int]]) -> int:
        """Deliver the facts that receivers have not heard, by what they say they heard last of each source.

        Commands are not delivered again: what was asked for and not acted on was asked for at another time.
        """
        late: dict[str, list[Envelope]] = {}
        with self._lock:
            for name, envelope in self._facts if cursors else ():
                heard = cursors.get(name)
                if heard is None or envelope.seq <= heard.get(envelope.source, 0):
                    continue
                if self._is_taken(name, type(envelope.message)):
                    late.setdefault(name, []).append(envelope)
            for name, batch in late.items():
                self._tell(name, batch)
        return sum(len(batch) for batch in late.values())

    def _tell(self, name: str, batch: Sequence[Envelope]) -> None:
        # Nobody looks at what becomes of it: an actor that cannot take what it is told is dead, and seen to be.
        self.peers[name].handle.tell.remote(codec.letters(batch), self._sender)
        self.sent += len(batch)

    def _is_taken(self, name: str, kind: type[Message]) -> bool:
        key = (name, kind)
        known = self._takes.get(key)
        if known is None:
            peer = self.peers.get(name)
            known = self._takes[key] = peer is not None and kind.__name__ in peer.takes
        return known


class Alarm:
    """Puts a `wake` into the node's own mailbox when the time it asked for has come."""

    def __init__(self, ring: Callable[[], None], name: str, clock: Clock) -> None:
        self._ring = ring
        self._clock = clock
        self._at: int | None = None
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"{name}-alarm", daemon=True)
        self._thread.start()

    def set(self, at: int | None) -> None:
        if at != self._at:
            with self._changed:
                self._at = at
                self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._ended:
                    return
                wait = None if self._at is None else (self._at - self._clock.now()) / SECOND
                if wait is None or wait > 0:
                    # Looked at again each second: the machine's clock may be set forward.
                    self._changed.wait(None if wait is None else min(wait, 1.0))
                    continue
                self._at = None
            self._ring()


class ComponentActor:
    """One node of the graph, in a process of its own.

    Synchronous and single-threaded on purpose: only then does Ray keep each sender's messages in order.
    Its constructor touches nothing, so that what goes wrong is said by `recover`.
    """

    def __init__(self) -> None:
        self._journal: Journal | None = None
        self._alarm: Alarm | None = None
        self._time = Clock()
        self._now = 0
        self._has_lived = False
        self._at_rest = False

    def __repr__(self) -> str:
        """Which node it is: all that Ray's dashboard can tell one strategy from another by. It asks before there is a seat."""
        seat: Seat | None = self.__dict__.get("seat")
        if seat is None:
            return f"{type(self).__name__}({ray.get_runtime_context().get_actor_name()})"
        return f"{type(self).__name__}({seat.node}, life {seat.incarnation})"

    # --- coming to life -------------------------------------------------------------------------

    def recover(self, seat: Seat) -> Recovered:
        """Build the component, and tell it again what its predecessors were told.

        A process may be given another life when the rest of the core had to be begun anew: it forgets all, and comes
        back as any other.

        Raises:
            HeanError: It cannot be built, or its journal cannot be read.
        """
        began = time.perf_counter()
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._has_lived:
            self.log.close()
        self._has_lived = True
        self._at_rest = False
        self.seat = seat
        self.post = Post(f"{seat.node}@{seat.incarnation}")
        self.log: NodeLog = NodeLog(seat.home, seat.node, seat.incarnation)
        self._told = self._snapshot_at = 0
        self._detail = ""
        self._lives: dict[str, int] = {}
        strategies = live_strategies(seat.settings)
        graph = topology(seat.settings, strategies)
        self._node = next(node for node in graph.nodes if node.name == seat.node)
        self._keeping = KEEPING.get(self._node.role, Keeping.ENTRIES)
        self.component = self._build(strategies)
        snapshot, entries = None, 0
        if self._keeping is not Keeping.NOTHING:
            self._journal = _opened(seat, _ENTRIES_OF_STATE if self._keeping is Keeping.STATE else 0)
            snapshot = self._journal.newest()
        if snapshot is not None:
            self._time.not_before(snapshot.now)
        self._life = Retelling(graph, seat.node, self.component, snapshot)
        if self._journal is not None:
            known = snapshot.n if snapshot is not None else 0
            self._remember(self._journal, known)
            for again in self._life.all(self._journal.after(known)):
                self.post.remember(again.outward)
                self._time.not_before(again.told.now)
                entries += 1
            self._journal.begin(seat.incarnation, time.time_ns(), _built_from(seat))
        self._life.live(seat.incarnation)
        self._clock()
        if self._journal is not None:
            self._snapshot()
        self.log.info("recovered", entries=entries, seconds=time.perf_counter() - began)
        return Recovered(
            seat.node,
            os.getpid(),
            entries,
            snapshot is not None,
            time.perf_counter() - began,
            dict(self._life.hearing.cursors),
            frozenset(one.__name__ for kind in takes(self.component) for one in codec.spoken(kind)),
        )

    def _build(self, strategies: Sequence[Strategy]) -> Any:
        seat = self.seat
        return component(seat.settings, seat.instruments, seat.node, seat.tag, strategies)

    def _remember(self, journal: Journal, known: int) -> None:
        """Take up the facts said up to the entry of the snapshot: they too may not have arrived."""
        graph = self._life.dispatcher.topology
        receivers: dict[type[Message], Any] = {}
        for _, parcel in journal.said_before(known):
            for envelope in codec.envelopes(parcel):
                kind = type(envelope.message)
                if kind not in receivers:
                    receivers[kind] = graph.receivers(self._node, kind)
                self.post.remember(
                    (node, envelope) for node, only in receivers[kind] if only is None or only(envelope.message, node)
                )

    def connect(self, peers: Mapping[str, Peer]) -> None:
        """Learn where the others are: all of them at a start, one of them when it was begun anew."""
        self.post.connect(peers)
        self._lives |= {name: peer.incarnation for name, peer in peers.items()}
        if self._alarm is None:
            me = ray.get_runtime_context().current_actor
            self._alarm = Alarm(me.wake.remote, self.seat.node, self._time)
        self._set_alarm()

    def deliver_again(self, cursors: Mapping[str, Mapping[str, int]]) -> int:
        """Deliver what receivers, by their own word, have not heard; how many messages that were."""
        return self.post.again(cursors)

    # --- the mailbox ----------------------------------------------------------------------------

    def tell(self, parcel: bytes, sender: str) -> None:
        """Take a parcel in, and send on what follows from it.

        Args:
            parcel: Envelopes, or rows of the market.
            sender: Which process sends it, as node and life: facts of an earlier life may be delivered by a later one.
        """
        if self._at_rest:
            return  # whoever says it says it again: to a successor, or to the life that follows in this process
        try:
            if not self._is_of_the_past(sender) and (batch := self._news(codec.envelopes(parcel))):
                self._hear(parcel, batch)
        except Exception as failure:  # noqa: BLE001 (the one place: whatever a component raises ends its process)
            self._die(failure)

    def wake(self) -> None:
        """Tell the component that the time it asked for has come, if it has."""
        try:
            if self._at_rest or not self.post.peers:
                return  # rung in an earlier life; what this one would say now nobody would hear
            at = self.component.wake_at()
            if at is not None and at <= self._clock():
                self._hear(None, None)
            elif self._alarm is not None:
                self._alarm.set(at)
        except Exception as failure:  # noqa: BLE001 (as above)
            self._die(failure)

    def ping(self) -> Pulse:
        """Return when everything told before has been handled: the wait is the mailbox's lag."""
        return Pulse(self.seat.node, os.getpid(), time.time_ns(), self._told, self.post.sent, self._detail)

    def state(self) -> bytes:
        """The component's state, encoded."""
        return codec.encoded(self.component.state)

    def rest(self) -> None:
        """Write down everything: this life is over. The process may be ended, or be given another one by `recover`."""
        self._at_rest = True
        if self._alarm is not None:
            self._alarm.set(None)
        if self._journal is not None:
            self._snapshot()
            self._journal.close()
            self._journal = None

    def _news(self, batch: list[Envelope]) -> list[Envelope]:
        """What of a batch the component is to be told: all of it, as a rule."""
        return batch

    def _clock(self) -> int:
        """The time: the machine's, and never backwards."""
        self._now = self._time.now()
        return self._now

    def _hear(self, parcel: bytes | None, batch: list[Envelope] | None) -> None:
        now = self._clock()
        if self._keeping is Keeping.ENTRIES:
            self._written().tell(self.seat.incarnation, now, parcel)
        said, outward = self._life.hear(now, batch)
        self._told += 1 if batch is None else len(batch)
        asked = batch is not None and any(not isinstance(one.message, Observation) for one in batch)
        if self._keeping is Keeping.STATE and (said or asked):
            self._written().tell(self.seat.incarnation, now, parcel)
        if said and self._keeping is not Keeping.NOTHING:
            self._written().said(codec.letters(said))
        if self._keeping is Keeping.STATE and self._written().n > self._snapshot_at:
            self._snapshot()
        if outward:
            self.post.send(outward)
        if said:
            self._note_said(said)
        if self._keeping is Keeping.ENTRIES and self._written().n - self._snapshot_at >= self._every:
            self._snapshot()
        self._set_alarm()

    def _note_said(self, said: Sequence[Envelope]) -> None:
        self.log.said(said)

    def _say(self, messages: Sequence[Message]) -> None:
        """Say something on the component's behalf that it was not told to say: it has the number that follows."""
        host, now, node = self._life.host, self._clock(), self._node
        outward = []
        said = []
        for message in messages:
            host.seq += 1
            envelope = Envelope(host.source, host.seq, now, "", "", message)
            said.append(envelope)
            receivers = self._life.dispatcher.topology.receivers(node, type(message))
            outward += [(one, envelope) for one, only in receivers if only is None or only(message, one)]
        self.post.send(outward)
        self.log.said(said)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.set(self.component.wake_at())

    def _is_of_the_past(self, sender: str) -> bool:
        """Whether the sender has a successor already, and is not quite dead, or does not know of it: it is not heard."""
        name, _, life = sender.partition("@")
        return int(life) < max(self.seat.epoch, self._lives.get(name, 0))

    # --- the journal ----------------------------------------------------------------------------

    @property
    def _every(self) -> int:
        return self.seat.settings.supervision.snapshot_every

    def _written(self) -> Journal:
        if self._journal is None:
            raise ContractError(f"{self.seat.node} is told something after its journal was closed")
        return self._journal

    def _snapshot(self) -> None:
        journal = self._written()
        self._snapshot_at = journal.n
        journal.snapshot(self.seat.incarnation, self._now, codec.encoded(self.component.state), self._life.memo())

    def _die(self, failure: Exception) -> None:
        try:
            self._detail = f"{type(failure).__name__}: {failure}"
            (self.seat.home / "last_words").mkdir(parents=True, exist_ok=True)
            (self.seat.home / "last_words" / self.seat.node).write_text(self._detail, encoding="utf-8")
            self.log.died(failure)
        finally:
            # Nothing of it may go on, not even where the disk is full: neither threads nor what Ray would still call.
            os._exit(1)


def _opened(seat: Seat, entries: int) -> Journal:
    """Open the node's journal; a predecessor that is being ended is waited for."""
    limit = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            return Journal(seat.home / "journals" / f"{seat.node}.db", seat.node, entries=entries)
        except JournalError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)


def _built_from(seat: Seat) -> bytes:
    settings = seat.settings.model_dump(mode="json")
    return msgspec.json.encode(BuiltFrom(seat.node, settings, seat.instruments, seat.tag))
