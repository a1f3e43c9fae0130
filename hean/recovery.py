"""Telling a node again what it was told: how it comes back after a crash, and how a journal is checked.

The one way back is the way forward: the same `handle`, on the same words, at the same times. `Retelling` is used by the
shell of every actor and by `hean replay` alike.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec import DecodeError, Struct

from hean import codec
from hean.dispatcher import Dispatcher
from hean.errors import JournalError
from hean.messages import Envelope
from hean.store.journal import Snapshot, Told
from hean.topology import Node, Topology


class Memo(Struct):
    """What a shell must know, beside its component's state, to go on from a snapshot.

    `seq` is the number of the last message said in the life that took the snapshot. `cursors` is the last number heard
    of each source, by source with its incarnation: what comes again is not heard twice.
    """

    seq: int = 0
    cursors: dict[str, int] = {}


class Hearing:
    """Which letters are news: each source counts what it says, and what has been heard of it is not heard again."""

    def __init__(self, cursors: Mapping[str, int]) -> None:
        self.cursors = dict(cursors)

    def news(self, batch: Iterable[Envelope]) -> list[Envelope]:
        """Those that were not heard before. What a source says in no order of its own has the number 0, and is news."""
        found = []
        for envelope in batch:
            if envelope.seq and envelope.seq <= self.cursors.get(envelope.source, 0):
                continue
            # Put last: the order is that in which sources were heard of last.
            self.cursors.pop(envelope.source, None)
            self.cursors[envelope.source] = envelope.seq
            found.append(envelope)
        return found

    def forget(self, kept: int = 64) -> None:
        """Let go of the sources of lives long past: those that have been silent for longest."""
        if len(self.cursors) > kept:
            self.cursors = dict(list(self.cursors.items())[-kept:])


class Again(Struct, frozen=True):
    """One entry told again: what was said on hearing it, and the part of that which is addressed to others."""

    told: Told
    said: list[Envelope]
    outward: list[tuple[Node, Envelope]]


class Retelling:
    """A component that is told its journal again.

    Args:
        topology: The nodes of the run and the routes between them.
        name: Whose journal it is.
        component: A new one, as it is built.
        snapshot: Where to begin; None for the very beginning.

    Raises:
        JournalError: The snapshot cannot be read.
    """

    def __init__(self, topology: Topology, name: str, component: Any, snapshot: Snapshot | None) -> None:
        self.component = component
        self._said: list[Envelope] = []
        self.dispatcher = Dispatcher(topology, {name: component}, log=self._said.append)
        self.host = self.dispatcher.hosts[name]
        self.incarnation = 0
        memo = Memo()
        if snapshot is not None:
            try:
                component.state = codec.decoded(type(component.state), snapshot.state)
                memo = codec.decoded(Memo, snapshot.memo)
            except DecodeError as damage:
                raise JournalError(
                    f"the snapshot of {name} after entry {snapshot.n} is damaged, or of another HEAN ({damage}): "
                    "use the HEAN that wrote it, or move the journal away and keep it"
                ) from damage
            self.live(snapshot.incarnation)
        self.host.seq = memo.seq
        self.hearing = Hearing(memo.cursors)

    def live(self, incarnation: int) -> None:
        """Be in a life: what is said bears its number, and is counted from one."""
        if incarnation != self.incarnation:
            self.incarnation = incarnation
            self.host.source = f"{self.host.node.name}@{incarnation}"
            self.host.seq = 0

    def tell(self, told: Told) -> Again:
        """Tell it one entry.

        Raises:
            JournalError: The entry cannot be read.
        """
        self.live(told.incarnation)
        try:
            batch = None if told.parcel is None else codec.envelopes(told.parcel)
        except DecodeError as damage:
            name = self.host.node.name
            raise JournalError(
                f"entry {told.n} of {name} is damaged, or of another HEAN ({damage}): "
                "use the HEAN that wrote it, or move the journal away and keep it"
            ) from damage
        return Again(told, *self.hear(told.now, batch))

    def hear(self, now: int, batch: list[Envelope] | None) -> tuple[list[Envelope], list[tuple[Node, Envelope]]]:
        """Handle a batch, or a `Wake` where there is none: what was said, and what of it goes out."""
        self._said.clear()
        outward: list[tuple[Node, Envelope]] = []
        if batch is None:
            outward = self.dispatcher.wake(self.host, now)
        else:
            for envelope in self.hearing.news(batch):
                outward += self.dispatcher.tell_host(self.host, envelope, now)
        return list(self._said), outward

    def all(self, entries: Iterable[Told]) -> Iterator[Again]:
        for told in entries:
            yield self.tell(told)

    def memo(self) -> bytes:
        self.hearing.forget()
        return codec.encoded(Memo(self.host.seq, self.hearing.cursors))
