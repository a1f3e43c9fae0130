"""The topics one socket should carry: which it does, what must be asked for, and how long each has been silent.

A state machine without a socket or a clock: it is told what happened and when, and answers with the requests to send.
"""

import enum
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, field

from hean.bybit.wire import Ack

Request = dict[str, Any]

_RENEWALS = 3
"""How often a topic is begun anew on one connection before the connection itself is doubted."""


class TopicStage(enum.Enum):
    """WANTED: not asked for on this connection. ASKED: no word yet. LIVE: acknowledged. REFUSED: the venue has none."""

    WANTED = enum.auto()
    ASKED = enum.auto()
    LIVE = enum.auto()
    REFUSED = enum.auto()


class Topic(Struct):
    """`limit` is the longest silence that is ordinary, None where any is; times are when it was last asked, heard, live."""

    limit: int | None
    stage: TopicStage = TopicStage.WANTED
    ts_asked: int = 0
    ts_heard: int = 0
    ts_live: int = 0
    again: bool = False
    renewals: int = 0


class Due(Struct):
    """What must be done now: requests to send, and why to begin with a new connection, if so."""

    requests: list[Request] = field(default_factory=list)
    reconnect: str = ""


class Topics:
    """The topics of one socket.

    Args:
        limits: The topics, each with its longest ordinary silence in nanoseconds, or None.
        per_request: How many one subscribe request may name (Bybit v5, *Connect*: 10 on spot).
        ack_ns: How long an acknowledgement may take.
        pause_ns: The least time between two subscriptions of one topic.
        now: From when on silence is counted.
    """

    def __init__(
        self, limits: Mapping[str, int | None], *, per_request: int, ack_ns: int, pause_ns: int, now: int
    ) -> None:
        self.topics = {name: Topic(limit, ts_heard=now, ts_live=now) for name, limit in limits.items()}
        self.refused: dict[str, str] = {}
        self.connected = False
        self._per_request = per_request
        self._ack_ns = ack_ns
        self._pause_ns = pause_ns
        self._asked: dict[str, list[str]] = {}
        self._count = 0
        self._ts_connected = 0

    @property
    def live(self) -> bool:
        """Whether every topic that the venue has is subscribed."""
        stages = {topic.stage for topic in self.topics.values()}
        return self.connected and stages <= {TopicStage.LIVE, TopicStage.REFUSED}

    def open(self, now: int) -> list[Request]:
        """The socket is there: ask for everything."""
        self.connected = True
        self._ts_connected = now
        self._asked.clear()
        for topic in self.topics.values():
            topic.stage, topic.again, topic.renewals = TopicStage.WANTED, False, 0
        self.refused.clear()
        names = list(self.topics)
        return [
            self._subscribe(names[start : start + self._per_request], now)
            for start in range(0, len(names), self._per_request)
        ]

    def lost(self) -> None:
        """The socket is gone, and all its subscriptions with it."""
        self.connected = False
        self._asked.clear()
        for topic in self.topics.values():
            topic.stage, topic.again = TopicStage.WANTED, False

    def hear(self, name: str, now: int) -> None:
        """A message of a topic came: it is subscribed, acknowledged or not."""
        topic = self.topics.get(name)
        if topic is not None:
            topic.ts_heard = now
            if topic.stage is TopicStage.ASKED:
                topic.stage = TopicStage.LIVE

    def acknowledged(self, ack: Ack, now: int) -> list[Request]:
        """Take an answer to a subscribe request in. One bad topic refuses all: each is then asked for alone."""
        names = self._asked.pop(ack.req_id, [])
        if ack.op != "subscribe" or not names:
            return []
        if ack.success:
            for name in names:
                self.topics[name].stage = TopicStage.LIVE
            return []
        if len(names) > 1:
            return [self._subscribe([name], now) for name in names]
        topic = self.topics[names[0]]
        if "already subscribed" in ack.ret_msg:
            topic.stage = TopicStage.LIVE
        else:
            topic.stage = TopicStage.REFUSED
            self.refused[names[0]] = ack.ret_msg
        return []

    def renew(self, name: str) -> None:
        """Begin a topic anew, as soon as it may be: its chain broke, or its snapshot has not come."""
        self.topics[name].again = True

    def settled(self, name: str) -> None:
        """A topic makes sense again."""
        self.topics[name].again = False
        self.topics[name].renewals = 0

    def due(self, now: int) -> Due:
        """What must be done now. A silent topic is first begun anew; if it stays silent, so is the socket."""
        due = Due()
        if not self.connected:
            return due
        for name, topic in self.topics.items():
            if topic.stage is TopicStage.ASKED and now - topic.ts_asked > self._ack_ns:
                due.reconnect = f"{name} was not acknowledged"
            if topic.stage is not TopicStage.LIVE:
                continue
            topic.ts_live = now
            silence = self._silence(topic, now)
            if topic.limit is not None and silence > 3 * topic.limit:
                due.reconnect = f"{name} has been silent for {silence / 1e9:.1f} s"
            elif topic.limit is not None and silence > topic.limit and now - topic.ts_asked > topic.limit:
                topic.again = True
            if topic.again and now - topic.ts_asked >= self._pause_ns:
                topic.again = False
                topic.renewals += 1
                if topic.renewals > _RENEWALS:
                    due.reconnect = f"{name} makes no sense however often it is begun anew"
                due.requests += [
                    {"op": "unsubscribe", "req_id": self._next_id(), "args": [name]},
                    self._subscribe([name], now),
                ]
        return due

    def silent(self, names: Iterable[str], now: int) -> bool:
        """Whether one of these topics has been silent for longer than is ordinary, connected or not.

        Where any silence is ordinary, one that has not been subscribed for a while cannot be told from a quiet one.
        """
        return any(
            now - topic.ts_live > self._ack_ns if topic.limit is None else now - topic.ts_heard > topic.limit
            for topic in (self.topics[name] for name in names)
        )

    def _silence(self, topic: Topic, now: int) -> int:
        return now - max(topic.ts_heard, self._ts_connected)

    def _subscribe(self, names: list[str], now: int) -> Request:
        request_id = self._next_id()
        self._asked[request_id] = list(names)
        for name in names:
            topic = self.topics[name]
            topic.stage, topic.ts_asked = TopicStage.ASKED, now
        return {"op": "subscribe", "req_id": request_id, "args": list(names)}

    def _next_id(self) -> str:
        self._count += 1
        return f"r{self._count}"
