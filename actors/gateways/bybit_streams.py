"""Sockets that are never mended, always replaced: a supervisor for each, and what keeps it from hammering the venue.

pybit's own reconnecting gives up for good after a tenth of a second, or knocks a hundred times a second; and a failed
object of it can block whoever touches it. So each attempt is a new object in a thread of its own, which nobody else
waits for.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import websocket

from actors.gateways.bybit_endpoint import Hear, Wires
from actors.gateways.threads import FAILED, guarded
from hean.bybit import decode
from hean.bybit.topics import Topics
from hean.bybit.wire import Ack, Push, read
from hean.errors import DataError

Opened = Any  # a socket of pybit's

GONE = (websocket.WebSocketException, OSError, AttributeError)
"""What using a socket may raise when it has just gone. AttributeError: websocket-client loses it between two lines."""


@dataclass(frozen=True)
class Pace:
    """How a stream is begun again. The pause doubles with every failure, with up to half of it taken off by chance."""

    first_s: float = 0.5
    most_s: float = 30.0
    healthy_s: float = 10.0
    """A connection that lived this long was a good one: the next failure is the first again."""
    ready_s: float = 10.0
    """How long being let in may take."""


class Attempts:
    """How many connections may be begun: Bybit allows 500 in five minutes, and each of ours is up to ten of pybit's.

    A bucket that holds `burst` and fills at one in `every_s`; shared by the streams of one venue.
    """

    def __init__(self, burst: float = 20.0, every_s: float = 10.0) -> None:
        self._burst = burst
        self._every_s = every_s
        self._tokens = burst
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def wait_s(self) -> float:
        """Take one, and return 0; or return how long to wait before asking again."""
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._filled) / self._every_s)
            self._filled = now
            if self._tokens >= 1:
                self._tokens -= 1
                return 0.0
            return (1 - self._tokens) * self._every_s


@dataclass(frozen=True)
class Connected:
    """A stream stands. `generation` counts its connections from 1."""

    stream: str
    generation: int


@dataclass(frozen=True)
class Lost:
    """A connection is gone, or an attempt at one came to nothing."""

    stream: str
    generation: int
    reason: str


@dataclass(frozen=True)
class Heard:
    """A message as it came; `ts` is when."""

    stream: str
    generation: int
    ts: int
    payload: Any


@dataclass(frozen=True)
class Failed:
    """The supervisor of a stream has failed: it does not come back."""

    stream: str
    reason: str


StreamEvent = Connected | Lost | Heard | Failed

_STOP = object()
_PULSE_S = 0.05
_MOST_CLOSING = 4


@dataclass
class _Again:
    reason: str


class Stream:
    """One supervised socket.

    Args:
        name: What its events are called by.
        open_socket: Connects a new pybit socket that gives all it hears to the callable and notes its connections in
            the list; it may block, and raise.
        tell: Takes every event; must not block.
        pace: When to try again.
        attempts: How often that may be, shared with others.
        seed: Of the jitter.
        ready: Whether a socket that stands has been let in.
    """

    def __init__(
        self,
        name: str,
        open_socket: Callable[[Hear, Wires], Opened],
        tell: Callable[[StreamEvent], None],
        *,
        pace: Pace,
        attempts: Attempts,
        seed: int,
        ready: Callable[[Opened], bool] = lambda _: True,
    ) -> None:
        self.name = name
        self.generation = 0
        self.socket: Opened | None = None
        self._open_socket = open_socket
        self._tell = tell
        self._pace = pace
        self._attempts = attempts
        self._random = Random(f"{seed}-{name}")  # noqa: S311  jitter, not a secret
        self._ready = ready
        self._control: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._closing: list[threading.Thread] = []
        self._thread = guarded(self._supervise, f"stream-{name}", lambda why: self._tell(Failed(self.name, why)))
        # An address that takes a connection and says nothing must not hold the supervisor for ever.
        websocket.setdefaulttimeout(10)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; `join` waits for that."""
        self._stopping.set()
        self._control.put(_STOP)

    def join(self, timeout_s: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether its supervisor is at work, connected or not."""
        return self._thread.is_alive()

    def send(self, generation: int, request: dict[str, Any]) -> None:
        """Send a request on this connection of the stream; one that is gone takes its requests with it."""
        self._control.put((generation, request))

    def renew(self, generation: int, reason: str) -> None:
        """Give this connection up and begin another."""
        self._control.put((generation, _Again(reason)))

    # --- the supervisor's thread ------------------------------------------------------------------

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if failures:
                pause = min(self._pace.most_s, self._pace.first_s * 2 ** min(failures - 1, 16))
                self._stopping.wait(pause * (1 - 0.5 * self._random.random()))
            while not self._stopping.is_set() and (wait := self._attempts.wait_s()):
                self._stopping.wait(wait)
            if self._stopping.is_set():
                return
            self.generation += 1
            begun = time.monotonic()
            reason = self._live(self.generation)
            failures = 1 if time.monotonic() - begun > self._pace.healthy_s else failures + 1
            self._tell(Lost(self.name, self.generation, reason))

    def _live(self, generation: int) -> str:
        """Open a connection and serve it until it ends; why it did."""

        def hear(payload: Any) -> None:
            self._tell(Heard(self.name, generation, time.time_ns(), payload))

        wires: Wires = []
        try:
            socket = self._open_socket(hear, wires)
        except GONE as failure:
            _shut(wires)
            return f"no connection: {type(failure).__name__}"
        try:
            # An inner attempt of pybit's that failed leaves the object unable to ping.
            reason = "pybit needed more than one attempt" if socket.exited else self._wait_until_ready(socket)
            if not reason:
                self.socket = socket
                self._tell(Connected(self.name, generation))
                reason = self._serve(socket, generation)
            return reason
        finally:
            self.socket = None
            self._close(socket, wires)

    def _wait_until_ready(self, socket: Opened) -> str:
        patience = time.monotonic() + self._pace.ready_s
        while not self._ready(socket):
            if self._stopping.wait(_PULSE_S):
                return "stopped"
            if not _alive(socket):
                return "closed before we were let in"
            if time.monotonic() > patience:
                return "not let in"
        return ""

    def _serve(self, socket: Opened, generation: int) -> str:
        while True:
            try:
                asked = self._control.get(timeout=_PULSE_S)
            except queue.Empty:
                asked = None
            if self._stopping.is_set():
                return "stopped"
            if not _alive(socket):
                return "the connection was closed"
            if asked is None or asked is _STOP or asked[0] != generation:
                continue
            if isinstance(asked[1], _Again):
                return asked[1].reason
            try:
                socket.ws.send(json.dumps(asked[1]))
            except GONE as failure:
                return f"sending failed: {type(failure).__name__}"

    def _close(self, socket: Opened, wires: Wires) -> None:
        """Let a socket go in a thread of its own: pybit waits for it, and the venue may not answer."""
        self._closing = [thread for thread in self._closing if thread.is_alive()]
        while len(self._closing) >= _MOST_CLOSING:
            self._closing.pop(0).join(_MOST_CLOSING)
        thread = threading.Thread(target=_exit, args=(socket, wires), name=f"closing-{self.name}", daemon=True)
        thread.start()
        self._closing.append(thread)


UNREADABLE = "unreadable message"


@dataclass(frozen=True)
class Trouble:
    """Something a stream said that is no message of a topic."""

    kind: str
    detail: str


class Channel:
    """A stream and the topics it should carry. All but the stream itself is its owner's thread."""

    def __init__(self, stream: Stream, topics: Topics) -> None:
        self.stream = stream
        self.topics = topics
        self.generation = 0
        self._refused: set[str] = set()

    def take(self, event: StreamEvent, now: int) -> Push | Trouble | None:
        """Take an event in: the push in it, or what is wrong, if either is.

        What an earlier connection says late is not heard.
        """
        match event:
            case Connected(generation=generation):
                self.generation = generation
                self._send(self.topics.open(now))
            case Lost():
                self.topics.lost()
            case Failed():
                return Trouble(FAILED, f"stream {event.stream}: {event.reason}")
            case Heard(generation=generation) if generation == self.generation:
                return self._hear(event, now)
            case Heard(payload=payload) if event.generation > self.generation:
                # Said before the stream was told to stand: the answer to pybit's own auth request.
                return self._hear(event, now) if isinstance(payload, dict) and payload.get("op") == "auth" else None
        return None

    def tick(self, now: int) -> None:
        """Ask for what must be asked for."""
        due = self.topics.due(now)
        if due.reconnect:
            self.topics.lost()  # so that it is asked once
            self.stream.renew(self.generation, due.reconnect)
            return
        self._send(due.requests)

    def _hear(self, event: Heard, now: int) -> Push | Trouble | None:
        payload = event.payload
        try:
            if isinstance(payload, dict) and "topic" in payload:
                push = decode.push(payload)
                # When it came, not when its turn does: who is behind with listening does not see the market.
                self.topics.hear(push.topic, event.ts)
                return push
            ack = read(Ack, payload, "an acknowledgement")
        except DataError as damage:
            return Trouble(UNREADABLE, str(damage))
        if ack.op == "auth" and not ack.success:
            self.stream.renew(event.generation, "not let in")
            return Trouble("not let in", ack.ret_msg)
        self._send(self.topics.acknowledged(ack, now))
        new = self.topics.refused.keys() - self._refused
        self._refused |= new
        return Trouble("topic refused", "; ".join(self.topics.refused[name] for name in sorted(new))) if new else None

    def _send(self, requests: list[dict[str, Any]]) -> None:
        for request in requests:
            self.stream.send(self.generation, request)


def _alive(socket: Opened) -> bool:
    return bool(socket.wst.is_alive() and socket.is_connected())


def _exit(socket: Opened, wires: Wires) -> None:
    with contextlib.suppress(*GONE, ValueError):
        socket.exit()
    _shut(wires)
    # Its reader ends with it; until then it keeps the file open.
    socket.wst.join(5)


def _shut(wires: Wires) -> None:
    for wire in wires:
        if wire is not None:
            wire.shutdown()
