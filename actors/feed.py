"""The feed's actor: the market, to everybody who watches it, and the one place where it is conflated.

It works on credit: each consumer has at most two parcels unfinished. While one is slow its quotes and marks are
conflated, the latest of each instrument; trades, candles and settlements are kept, every one, up to a limit beyond which
the consumer is given up, and seen to be.
"""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from msgspec import Struct, field

from actors.gateways.bybit_endpoint import Endpoint
from actors.gateways.bybit_feed import BybitFeed, FeedConfig
from actors.gateways.threads import guarded
from actors.logs import NodeLog
from actors.shell import Peer, Post, Seat
from actors.words import ConsumerFigures, Pulse, Recovered, Seen
from hean import codec
from hean.live_system import live_strategies, topology
from hean.messages import Envelope, Fact, MarkPrice, Message, Observation, Quote
from hean.topology import Node, Topology

CREDIT = 2
"""Parcels a consumer may have unfinished."""

BACKLOG = 200_000
"""Rows that wait for a consumer before it is given up."""

PAUSE_S = {"portfolio": 1.0, "broker": 0.25}
"""How often a role is told at most: what is journaled, and decides nothing by the millisecond, is told less often."""

_FEED = Node("feed", "feed")


class Consumer:
    """One who watches: what waits for it, and the thread that tells it.

    `conflated` counts, by instrument, the quotes and marks that a later one took the place of.
    """

    def __init__(self, node: Node, peer: Peer, sender: str) -> None:
        self.node = node
        self.handle = peer.handle
        # Every name from the start: it is read by another thread, and never changes its size meanwhile.
        self.conflated = {name: 0 for name, _ in node.watches}
        self.told = 0
        self.overrun = False
        self.failure = ""
        self._source = f"{sender.replace('@', f'.{node.name}@')}"
        self._sender = sender
        self._seq = 0
        self._pause = PAUSE_S.get(node.role, 0.0)
        self._rows: list[Observation | None] = []
        self._since = 0
        self._newest: dict[tuple[str, type[Observation]], int] = {}
        self._there = threading.Condition()
        self._ended = threading.Event()
        self._thread = guarded(self._run, f"to-{node.name}", self._failed)
        self._thread.start()

    def put(self, batch: Sequence[Observation]) -> None:
        """Let rows wait their turn. Never blocks."""
        watches = self.node.watches
        with self._there:
            for row in batch:
                kind = type(row)
                if (row.instrument, kind) not in watches or self.overrun:
                    continue
                if kind is Quote or kind is MarkPrice:
                    before = self._newest.get((row.instrument, kind))
                    if before is not None:
                        self._rows[before] = None
                        self.conflated[row.instrument] += 1
                    self._newest[row.instrument, kind] = len(self._rows)
                self._rows.append(row)
            if len(self._rows) > BACKLOG and not self._squeezed():
                self.overrun = True
                self._rows, self._newest, self._since = [], {}, 0
            if self._rows:
                # From here it counts how long it takes until something is done about it: the wait for credit is part of that.
                self._since = self._since or time.time_ns()
                self._there.notify()

    def _squeezed(self) -> bool:
        """Close the gaps that conflation left; whether that was enough."""
        self._rows = [row for row in self._rows if row is not None]
        self._newest = {
            (row.instrument, type(row)): place
            for place, row in enumerate(self._rows)
            if isinstance(row, Quote | MarkPrice)
        }
        return len(self._rows) <= BACKLOG

    def figures(self) -> ConsumerFigures:
        return ConsumerFigures(self.node.name, self.told, sum(self.conflated.values()), len(self._rows))

    def end(self) -> None:
        with self._there:
            self._ended.set()
            self._there.notify()

    def _failed(self, reason: str) -> None:
        self.failure = reason

    def _run(self) -> None:
        unfinished: list[Any] = []
        while True:
            with self._there:
                while not self._rows and not self._ended.is_set():
                    self._there.wait()
                if self._ended.is_set():
                    return
            while len(unfinished) >= CREDIT:
                _, unfinished = ray.wait(unfinished, num_returns=1, timeout=1.0, fetch_local=False)
                if self._ended.is_set():
                    return
            with self._there:
                rows = [row for row in self._rows if row is not None]
                since = self._since
                self._rows, self._newest, self._since = [], {}, 0
            parcel = codec.rows(self._source, self._seq + 1, since, rows)
            self._seq += len(rows)
            self.told += len(rows)
            unfinished.append(self.handle.tell.remote(parcel, self._sender))
            if self._pause:
                time.sleep(self._pause)


class _Shown(Struct):
    """What was seen of one instrument: when each kind last, by its name, and how many rows."""

    last: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    mark: float | None = None
    middle: float | None = None


class FeedPlan(Struct, frozen=True):
    """Where the market is seen, and how it is watched."""

    endpoint: Endpoint
    config: FeedConfig


class FeedActor:
    """Watches the market and tells it on. Its threads do the work: the mailbox is for control alone."""

    def __init__(self, plan: FeedPlan) -> None:
        self.plan = plan
        self._consumers: dict[str, Consumer] = {}
        self._feed: BybitFeed | None = None
        self._graph: Topology | None = None

    def recover(self, seat: Seat) -> Recovered:
        """Nothing is remembered: the market is as it is."""
        began = time.perf_counter()
        self.rest()
        self.seat = seat
        self.sender = f"feed@{seat.incarnation}"
        self.log = NodeLog(seat.home, seat.node, seat.incarnation)
        self._post = Post(self.sender)
        self._seq = self._rows = 0
        self._graph = topology(self.seat.settings, live_strategies(self.seat.settings))
        # Of each instrument that is watched: made here, so that it never changes its size while the gateway's thread counts.
        self._shown = {name: _Shown() for node in self._graph.nodes for name, _ in node.watches}
        return Recovered("feed", os.getpid(), 0, False, time.perf_counter() - began, {}, frozenset())

    def connect(self, peers: Mapping[str, Peer]) -> None:
        """Learn who watches, and who is told of what befalls the feed itself."""
        self._post.connect(peers)
        for node in self._topology.nodes:
            peer = peers.get(node.name)
            if peer is not None and node.watches:
                before = self._consumers.pop(node.name, None)
                if before is not None:
                    before.end()
                self._consumers[node.name] = Consumer(node, peer, self.sender)

    def begin(self) -> None:
        """Begin to watch. What is seen goes to those who are connected by then."""
        watches = {pair for node in self._topology.nodes for pair in node.watches}
        self._feed = BybitFeed(self.plan.endpoint, watches, self._say, config=self.plan.config)
        self._feed.start()
        self.log.info("watching", instruments=sorted({name for name, _ in watches}))

    def ping(self) -> Pulse:
        feed = self._feed
        detail = ""
        if feed is not None and not feed.alive:
            detail = "a thread of the gateway has ended"
        slow = [name for name, consumer in self._consumers.items() if consumer.overrun]
        if slow:
            detail = f"given up, too slow: {', '.join(slow)}"
        failed = [consumer.failure for consumer in list(self._consumers.values()) if consumer.failure]
        if failed:
            detail = f"not told any more: {', '.join(failed)}"
        consumers = list(self._consumers.values())
        seen = tuple(
            Seen(
                name,
                dict(one.last),
                one.rows,
                sum(consumer.conflated.get(name, 0) for consumer in consumers),
                one.middle if one.mark is None else one.mark,
            )
            for name, one in self._shown.items()
        )
        figures = tuple(consumer.figures() for consumer in consumers)
        return Pulse("feed", os.getpid(), time.time_ns(), self._rows, self._told, detail, seen=seen, consumers=figures)

    def rest(self) -> None:
        """Watch no more."""
        for consumer in self._consumers.values():
            consumer.end()
        self._consumers = {}
        if self._feed is not None:
            self._feed.stop()
            self._feed = None

    @property
    def _topology(self) -> Topology:
        assert self._graph is not None, "recover comes first"  # noqa: S101
        return self._graph

    @property
    def _told(self) -> int:
        return sum(consumer.told for consumer in self._consumers.values())

    def _say(self, batch: Sequence[Message]) -> None:
        """Take what the gateway saw: called from its thread, and must not block."""
        rows = [said for said in batch if isinstance(said, Observation)]
        facts = [said for said in batch if isinstance(said, Fact)]
        if rows:
            self._count(rows)
            for consumer in list(self._consumers.values()):
                consumer.put(rows)
        if facts:
            self._tell_facts(facts)

    def _count(self, rows: Sequence[Observation]) -> None:
        now = time.time_ns()
        self._rows += len(rows)
        for row in rows:
            shown = self._shown[row.instrument]
            shown.rows += 1
            shown.last[type(row).__name__] = now
            if isinstance(row, Quote):
                shown.middle = (row.bid + row.ask) / 2
            elif isinstance(row, MarkPrice):
                shown.mark = row.price

    def _tell_facts(self, facts: Sequence[Fact]) -> None:
        now = time.time_ns()
        outward = []
        said = []
        for fact in facts:
            self._seq += 1
            envelope = Envelope(self.sender, self._seq, now, "", "", fact)
            said.append(envelope)
            outward += [
                (node, envelope)
                for node, only in self._topology.receivers(_FEED, type(fact))
                if only is None or only(fact, node)
            ]
        self._post.send(outward)
        self.log.said(said)
