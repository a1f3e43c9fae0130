"""What the engine's bench puts in place of the world: a feed that makes its own market, a venue that fills at once, and a
bare chain of Ray actors to measure against."""

import os
import time
from decimal import Decimal

import ray

from actors.feed import FeedActor
from actors.shell import Post
from actors.words import Pulse, Recovered
from hean import codec
from hean.live_system import live_strategies, topology
from hean.messages import (
    CancelOrder,
    Envelope,
    Liquidity,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    Quote,
    Side,
    SnapshotAccount,
    SubmitOrder,
    Trade,
)
from hean.topology import Node

VENUE = Node("venue", "venue")


class MadeFeed(FeedActor):
    """The real feed actor, told by a thread here instead of by sockets."""

    def begin(self):
        pass

    def ping(self):
        return Pulse("feed", os.getpid(), time.time_ns(), self._rows, self._told, "")

    def tick(self, instrument, price):
        """Show one quote, and say when."""
        now = time.time_ns()
        self._say([Quote(instrument, now, price - 0.5, 1.0, price + 0.5, 1.0)])
        return now

    def pour(self, instruments, per_second, seconds, trades_of=3):
        """Show as many rows a second, quotes and trades in turn, in flushes of 20 ms; how many of each."""
        shown = {"quotes": 0, "trades": 0}
        began = time.perf_counter()
        flush = 0.02
        number = 0
        count = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * per_second) - count
            batch = []
            for _ in range(due):
                name = instruments[number % len(instruments)]
                number += 1
                price = 100.0 + number % 50
                if number % trades_of == 0:
                    batch.append(Trade(name, time.time_ns(), price, 0.01, Side.BUY))
                    shown["trades"] += 1
                else:
                    batch.append(Quote(name, time.time_ns(), price - 0.5, 1.0, price + 0.5, 1.0))
                    shown["quotes"] += 1
            count += due
            if batch:
                self._say(batch)
            time.sleep(max(0.0, flush - (time.perf_counter() - began - now)))
        return shown


class PromptVenue:
    """Takes an order, notes when, and says at once that it is filled: in the place of a gateway."""

    def __init__(self):
        self._seq = 0
        self._arrived = []

    def recover(self, seat):
        self.seat = seat
        self._post = Post(f"venue@{seat.incarnation}")
        self._graph = topology(self.seat.settings, live_strategies(self.seat.settings))
        taken = frozenset(kind.__name__ for kind in (SubmitOrder, CancelOrder, SnapshotAccount))
        return Recovered("venue", os.getpid(), 0, False, 0.0, {}, taken)

    def connect(self, peers):
        self._post.connect(peers)

    def tell(self, parcel, _sender):
        now = time.time_ns()
        for envelope in codec.envelopes(parcel):
            message = envelope.message
            if isinstance(message, SubmitOrder):
                self._arrived.append((now, message.reference))
                self._seq += 1
                name = (message.client_order_id, message.strategy, message.instrument)
                self._say(OrderAccepted(*name, f"v{self._seq}"))
                price = message.reference or Decimal(100)
                self._say(
                    OrderFilled(
                        *name,
                        trade_id=f"t{self._seq}",
                        side=message.side,
                        quantity=message.quantity,
                        price=price,
                        fee=Decimal(0),
                        fee_currency="USDT",
                        liquidity=Liquidity.TAKER,
                        reference=message.reference,
                        exit="",
                        ts_event=now,
                    )
                )
            elif isinstance(message, CancelOrder):
                self._say(OrderCanceled(message.client_order_id, message.strategy, message.instrument, "asked"))

    def arrived(self):
        """When each order came, and clear the list."""
        found, self._arrived = self._arrived, []
        return found

    def ping(self):
        return Pulse("venue", os.getpid(), time.time_ns(), len(self._arrived), 0, "")

    def rest(self):
        pass

    def _say(self, message):
        self._seq += 1
        envelope = Envelope(f"venue@{self.seat.incarnation}", self._seq, time.time_ns(), "", "", message)
        receivers = self._graph.receivers(VENUE, type(message))
        self._post.send((node, envelope) for node, only in receivers if only is None or only(message, node))


@ray.remote(num_cpus=0)
class Link:
    """One actor of the bare chain: it passes on what it is told, and the last notes when."""

    def __init__(self, following=None):
        self._following = following
        self._arrived = []

    def tell(self, parcel, sender):
        if self._following is not None:
            self._following.tell.remote(parcel, sender)
        else:
            self._arrived.append(time.time_ns())

    def arrived(self):
        found, self._arrived = self._arrived, []
        return found

    def ping(self):
        return os.getpid()


@ray.remote(num_cpus=0)
class Head:
    """The first of the bare chain: as the feed does, it tells from a thread of its own."""

    def __init__(self, following):
        self._following = following

    def tick(self, parcel):
        ts = time.time_ns()
        self._following.tell.remote(parcel, "head@1")
        return ts
