"""A run of the whole system in one thread, with a seed deciding whose message arrives next.

One dispatcher per node, as in live trading. Ray keeps the order of what one sender tells one
receiver, and nothing else: so every pair of nodes has a queue of its own, and chance picks the queue. Nodes may
be killed: a successor is told again what its predecessor was told, and must end in the same state.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from hean.component import takes
from hean.dispatcher import Dispatcher
from hean.errors import ContractError
from hean.messages import Envelope, Message
from hean.tape import Tape
from hean.topology import Node, Topology

FEED = Node("feed", "feed")


class Told(Struct, frozen=True):
    """One entry of a node's journal: what it was told, and when. `envelope` is None for a `Wake`."""

    now: int
    envelope: Envelope | None


class Simulation:
    """The nodes of a run, the queues between them, and a virtual clock.

    Args:
        topology: Nodes and routes.
        build: Makes the components anew, by node name: called once, and again for the successor of a killed node.
        tape: The market, told row by row.
        seed: Decides the order of deliveries.
        haste: How likely time moves on while messages are under way, from 0 (never) to 1.
    """

    def __init__(
        self, topology: Topology, build: Callable[[], Mapping[str, Any]], tape: Tape, *, seed: int, haste: float = 0.05
    ) -> None:
        self.topology = topology
        self._build = build
        self._tape = tape
        self._random = Random(seed)  # noqa: S311 (it decides an order, and must be repeatable)
        self._haste = haste
        self.now = tape.first_ts
        self.log: list[Envelope] = []
        self.journals: dict[str, list[Told]] = {node.name: [] for node in topology.nodes}
        self._queues: dict[tuple[str, str], deque[Envelope]] = {}
        self._position = 0
        components = build()
        self.components = dict(components)
        self._takes = {name: tuple(takes(component)) for name, component in components.items()}
        self._nodes = {
            node.name: self._dispatcher(node, components[node.name], log=self.log.append) for node in topology.nodes
        }
        self._hearers = {
            (stream.kind, stream.instrument): [
                node.name
                for node, only in topology.receivers(FEED, stream.kind)
                if (only is None or (stream.instrument, stream.kind) in node.watches)
                and stream.kind in takes(components[node.name])
            ]
            for stream in tape.streams
        }

    def tell(self, name: str, message: Message, *, source: str = "engine", seq: int = 0) -> None:
        """Put a message from outside on its way to a node."""
        self._enqueue(source, name, Envelope(source, seq, self.now, "", "", message))

    def run(self, rows: int | None = None, *, kill: Sequence[str] = (), risk: float = 0.0) -> None:
        """Play rows of the tape, and deliver in any order the seed likes.

        Args:
            rows: How many; all that are left where None.
            kill: Nodes that may be killed.
            risk: How likely one is, at each step.
        """
        stop = self._tape.size if rows is None else min(self._tape.size, self._position + rows)
        while self._position < stop:
            if kill and self._random.random() < risk:
                self.kill(self._random.choice(list(kill)))
            waiting = [pair for pair, queue in self._queues.items() if queue]
            if waiting and self._random.random() >= self._haste:
                self._deliver(self._random.choice(waiting))
            else:
                self._advance()

    def settle(self) -> None:
        """Deliver everything that is under way, and what follows from it, without letting time go on."""
        while waiting := [pair for pair, queue in self._queues.items() if queue]:
            self._deliver(self._random.choice(waiting))

    def kill(self, name: str) -> None:
        """Kill a node, and let a successor read its journal.

        Raises:
            ContractError: the successor ends in another state: the component is not a function of what it was told.
        """
        before = snapshot(self.components[name])
        component, dispatcher = self.replayed(name)
        if snapshot(component) != before:
            raise ContractError(f"{name}, told the same again, ends in another state")
        dispatcher.log = self.log.append
        self.components[name] = component
        self._nodes[name] = dispatcher

    def replayed(self, name: str) -> tuple[Any, Dispatcher]:
        """A new component of a node, told alone everything its predecessor was; what it says is thrown away."""
        node = next(node for node in self.topology.nodes if node.name == name)
        component = self._build()[name]
        dispatcher = self._dispatcher(node, component, log=None)
        for told in self.journals[name]:
            _tell(dispatcher, name, told)
        return component, dispatcher

    def said_again(self, name: str) -> list[Envelope]:
        """Everything a node says when it is told alone what it was told in this run."""
        node = next(node for node in self.topology.nodes if node.name == name)
        again: list[Envelope] = []
        dispatcher = self._dispatcher(node, self._build()[name], log=again.append)
        for told in self.journals[name]:
            _tell(dispatcher, name, told)
        return again

    # --- one step -------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let time go on to the next row of the tape, or to the time somebody asked for before it."""
        at = self._tape.ts_at(self._position)
        wakes = {name: wake for name, one in self.components.items() if (wake := one.wake_at()) is not None}
        due = [name for name, wake in wakes.items() if wake < at]
        if due:
            name = min(due, key=wakes.__getitem__)
            self.now = max(self.now, wakes[name])
            self._hand(name, Told(self.now, None))
            return
        stream, row = self._tape.at(self._position)
        self._position += 1
        self.now = max(self.now, at)
        envelope = Envelope("feed", self._position, self.now, "", "", stream.message(row))
        for name in self._hearers[stream.kind, stream.instrument]:
            self._enqueue("feed", name, envelope)

    def _deliver(self, pair: tuple[str, str]) -> None:
        self._hand(pair[1], Told(self.now, self._queues[pair].popleft()))

    def _hand(self, name: str, told: Told) -> None:
        self.journals[name].append(told)
        for node, envelope in _tell(self._nodes[name], name, told):
            if isinstance(envelope.message, self._takes[node.name]):
                self._enqueue(name, node.name, envelope)

    def _enqueue(self, source: str, name: str, envelope: Envelope) -> None:
        self._queues.setdefault((source, name), deque()).append(envelope)

    def _dispatcher(self, node: Node, component: Any, *, log: Callable[[Envelope], None] | None) -> Dispatcher:
        return Dispatcher(self.topology, {node.name: component}, log=log)


def snapshot(component: Any) -> bytes:
    """The state of a component, as bytes that can be compared."""
    return msgspec.msgpack.encode(component.state)


def _tell(dispatcher: Dispatcher, name: str, told: Told) -> list[tuple[Node, Envelope]]:
    if told.envelope is None:
        return dispatcher.wake(dispatcher.hosts[name], told.now)
    return dispatcher.tell(name, told.envelope, told.now)
