"""The venue's actors: an account at Bybit, or one on paper. The first only carries words to the gateway and back."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from actors.gateways.bybit_endpoint import Endpoint, Keys
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Backoff
from actors.gateways.bybit_venue import BybitVenue, VenueConfig
from actors.gateways.dry_run import DryRun
from actors.gateways.fence import Fence
from actors.keys import keys_for
from actors.logs import NodeLog
from actors.shell import Peer, Post, Seat
from actors.words import Pulse, Recovered
from hean import codec
from hean.arming import account_of
from hean.bybit.encode import Verdict
from hean.bybit.orders import Restored
from hean.errors import ConfigError, VenueError
from hean.execution.orders import Restorable
from hean.live_system import live_strategies, topology
from hean.messages import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    Envelope,
    Message,
    OrderFact,
    OrderRejected,
    OrderSent,
    SnapshotAccount,
    SubmitOrder,
)
from hean.permit import LivePermit, live_gate
from hean.risk.config import exact
from hean.store.engine_book import BOOK, lease_in
from hean.topology import Node, Topology

_TRACES = 20_000
_VENUE = Node("venue", "venue")
_TAKES = frozenset(kind.__name__ for kind in (SubmitOrder, AmendOrder, CancelOrder, CancelAll, SnapshotAccount))


class VenuePlan(Struct, frozen=True):
    """Where the account is and how it is reached. The keys themselves are read by the actor alone, from their file."""

    endpoint: Endpoint
    config: VenueConfig
    keys: Path
    dry_run: bool


class Asked(Struct, frozen=True):
    """What asked for an order: its trace, its id, and when the row of the market was received that set it going; 0 is unknown."""

    trace: str
    cause: str
    ts_seen: int


UNASKED = Asked("", "", 0)


class VenueActor:
    """Carries what the broker and the reconciler want to the gateway, and what it says to whoever is concerned.

    It decides nothing, and keeps nothing: what an earlier life said and nobody heard, the venue is asked for again.
    """

    def __init__(self, plan: VenuePlan) -> None:
        self.plan = plan
        self._venue: BybitVenue | DryRun | None = None
        self._fence: Fence | None = None
        self._graph: Topology | None = None
        # What asked for an order, without the order: its trace goes on in what befalls it. Written by the mailbox, read by
        # the gateway's threads.
        self._asked: dict[str, Asked] = {}
        self._sent = 0
        self._sending = threading.Lock()
        self._routes: dict[type[Message], list[Any]] = {}

    def recover(self, seat: Seat) -> Recovered:
        """Take the fence: from here on no predecessor sends anything.

        Raises:
            HeanError: A predecessor does not let go, or there are no keys.
        """
        began = time.perf_counter()
        self.rest()
        self.seat = seat
        self.sender = f"venue@{seat.incarnation}"
        self.log = NodeLog(seat.home, seat.node, seat.incarnation)
        self._post = Post(self.sender)
        self._seq = self._told = self._sent = 0
        self._routes = {}
        self._graph = topology(self.seat.settings, live_strategies(self.seat.settings))
        self._fence = Fence(self.seat.home, self.seat.incarnation)
        return Recovered("venue", os.getpid(), 0, False, time.perf_counter() - began, {}, _TAKES)

    def connect(self, peers: Mapping[str, Peer]) -> None:
        self._post.connect(peers)

    def begin(self, orders: Sequence[Restorable], heard: Sequence[str], since: int) -> None:
        """Begin to trade the account.

        Args:
            orders: Orders of earlier lives that may still be open.
            heard: The ids of fills, settlements and charges that are in our books.
            since: From when on executions and the log are asked for.

        Raises:
            HeanError: The keys are not fit for it, or a gate of live trading is shut.
        """
        plan, seat = self.plan, self.seat
        keys = keys_for(seat.settings.venue, plan.keys.parent, {})
        restored = [Restored(one.order, one.filled, one.accepted) for one in orders]
        venue: BybitVenue | DryRun
        if plan.dry_run:
            venue = DryRun(
                plan.endpoint,
                keys,
                seat.instruments,
                self._say,
                self._write_down,
                since=since,
                restored=restored,
                heard=heard,
                config=plan.config,
            )
        else:
            permit = self._permit(keys)
            venue = BybitVenue(
                plan.endpoint,
                keys,
                seat.instruments,
                self._say,
                since=since,
                restored=restored,
                heard=heard,
                config=plan.config,
                fence=self._fence,
                permit=permit,
                going=self._going,
            )
            self._prepare(keys)
        venue.start()
        self._venue = venue
        self.log.info("trading the account", at=plan.endpoint.name, open=len(restored), since=since)

    def _permit(self, keys: Keys) -> LivePermit | None:
        """Leave to trade real money: asked for here, where it is used, of the settings and of the engine's own book.

        Raises:
            ConfigError: It is asked for, and refused: the text has all the reasons.
        """
        if not self.seat.settings.venue.is_real:
            return None
        gate = live_gate(self.seat.settings, lease_in(self.seat.home / BOOK), account_of(keys.key), time.time_ns())
        if isinstance(gate, LivePermit):
            return gate
        raise ConfigError(f"nothing permits to trade real money: {'; '.join(gate)}")

    def _prepare(self, keys: Keys) -> None:
        """Have the account as the books reckon with: one position a contract, and risk's leverage.

        Raises:
            VenueError: The venue does not do so.
        """
        orders = BybitOrders(self.plan.endpoint, keys, backoff=Backoff(), fence=self._fence)
        leverage = exact(self.seat.settings.risk.leverage)
        try:
            for name, rules in self.seat.instruments.items():
                if rules.is_spot:
                    continue
                for outcome in (orders.one_way(name), orders.set_leverage(name, min(leverage, rules.max_leverage))):
                    if outcome.verdict is not Verdict.ACCEPTED:
                        raise VenueError(
                            f"{name} cannot be set to one-way mode and leverage {leverage}: {outcome.reason}; "
                            "set it at the venue, or close what stands against it"
                        )
        finally:
            orders.close()

    def _write_down(self, what: str, arguments: Mapping[str, Any]) -> None:
        """Log a request that a dry run does not send."""
        self.log.info("not sent", request=what, arguments=dict(arguments))

    def tell(self, parcel: bytes, sender: str) -> None:
        """Hand commands to the gateway. Who belongs to an earlier life of the core is not heard."""
        if int(sender.rpartition("@")[2]) < self.seat.epoch:
            return
        venue = self._venue
        for envelope in codec.envelopes(parcel):
            message = envelope.message
            if isinstance(message, SubmitOrder):
                self._trace(message.client_order_id, envelope)
            if venue is None:
                self.log.warning("not begun", lost=type(message).__name__)
                if isinstance(message, SubmitOrder):
                    # No thread of a gateway is there to say so: nobody else speaks now.
                    order = message.client_order_id, message.strategy, message.instrument
                    self._say([OrderRejected(*order, "not sent: the gateway has not begun")])
                continue
            if isinstance(message, SubmitOrder | AmendOrder | CancelOrder | CancelAll | SnapshotAccount):
                venue.tell(message)
                self._told += 1

    def ping(self) -> Pulse:
        detail = ""
        if self._venue is not None and not self._venue.alive:
            detail = "a thread of the gateway has ended"
        return Pulse("venue", os.getpid(), time.time_ns(), self._told, self._post.sent, detail)

    def rest(self) -> None:
        """Send nothing more, and let go of the fence."""
        if self._venue is not None:
            self._venue.stop()
            self._venue = None
        if self._fence is not None:
            self._fence.release()
            self._fence = None

    def _trace(self, name: str, envelope: Envelope) -> None:
        self._asked[name] = Asked(envelope.trace or envelope.id, envelope.id, envelope.ts_seen)
        if len(self._asked) > _TRACES:
            self._asked = dict(list(self._asked.items())[_TRACES // 2 :])

    def _going(self, order: SubmitOrder) -> None:
        """Say that an order goes out, where it is known for which row of the market: called from the threads that send.

        It has numbers of its own, so that those threads and the gateway's need not wait for one another.
        """
        now = time.time_ns()
        asked = self._asked.get(order.client_order_id, UNASKED)
        if not asked.ts_seen:
            return
        sent = OrderSent(order.client_order_id, order.strategy, order.instrument, asked.ts_seen, now)
        source = self.sender.replace("@", ".sent@")
        with self._sending:
            self._sent += 1
            envelope = Envelope(source, self._sent, now, asked.trace, asked.cause, sent)
            self._post.send((node, envelope) for node, _ in self._receivers(OrderSent))

    def _say(self, batch: Sequence[Message]) -> None:
        """Take what the gateway heard: called from its thread, and must not block."""
        now = time.time_ns()
        said = []
        outward = []
        for message in batch:
            self._seq += 1
            asked = self._asked.get(message.client_order_id, UNASKED) if isinstance(message, OrderFact) else UNASKED
            envelope = Envelope(self.sender, self._seq, now, asked.trace, asked.cause, message)
            said.append(envelope)
            outward += [
                (node, envelope) for node, only in self._receivers(type(message)) if only is None or only(message, node)
            ]
        self._post.send(outward)
        self.log.said(said)

    def _receivers(self, kind: type[Message]) -> list[Any]:
        known = self._routes.get(kind)
        if known is None:
            assert self._graph is not None, "recover comes first"  # noqa: S101
            known = self._routes[kind] = self._graph.receivers(_VENUE, kind)
        return known
