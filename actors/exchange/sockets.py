"""The sockets of the exchange: who is connected, what they say in order, and what they are told.

Requests of one socket are handled one after another; what is said back leaves no sooner than `Faults.ack_delay_s` later, because
pybit notes what it waits for only after it has sent it. Source: Bybit v5, *Connect*.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from msgspec import Struct

from actors.exchange.private import Private
from actors.exchange.public import CATEGORIES, Public, Status
from actors.exchange.requests import proof_of
from actors.exchange.trade import Trade
from hean.exchange.refusals import Refused
from hean.exchange.words import Event

if TYPE_CHECKING:
    from actors.exchange.auth import ApiKey
    from actors.exchange.server import ExchangeServer

Kind = Literal["public", "private", "trade"]

Effect = Callable[[], None]
"""What a request brings about once its time has come: the answer, and what follows it."""

MOST_HEARD = 256 * 1024
"""Bytes of the longest message a client may send."""

MOST_UNSENT = 4 * 1024 * 1024
"""Bytes that may wait for a client who does not read; then it is cut, as on the venue."""

log = logging.getLogger(__name__)

_MOST_PENDING = 500
_GOODBYE_S = 1.0
_CHECK_S = 1.0
_NEW_CONNECTIONS, _NEW_SECONDS = 500, 300
_PUBLIC_CONNECTIONS = 1000


class Desk(Protocol):
    """What one kind of socket is for."""

    def hear(self, connection: "Connection", raw: bytes) -> Effect:
        """Take a request. What is to be said of it waits in the effect; the effects of a socket come in order."""
        ...

    def left(self, connection: "Connection") -> None: ...


class Keepalive(Struct):
    """When a silent socket is cut, in seconds.

    A public one without a subscription after `public` without a ping. A private or trade one after `signed` without a ping
    and without data, or what it asked for itself with `max_active_time`; that is looked at every `signed_check`.
    """

    public: float = 61.0
    signed: float = 600.0
    signed_check: float = 30.0


class Hub:
    """All sockets of the exchange."""

    def __init__(self, server: "ExchangeServer") -> None:
        self.server = server
        self.faults = server.faults
        self.keepalive = Keepalive()
        self.most_unsent = MOST_UNSENT
        self.connections: set[Connection] = set()
        self.unsent: list[Connection] = []
        self.public = Public(self)
        self.private = Private(self)
        self.trade = Trade(self)
        self._arrivals: dict[str, deque[float]] = {}
        self._checked = self._checked_signed = 0.0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v5/public/misc/status", self.serve_status),
            web.get("/v5/public/{category}", self.serve_public),
            web.get("/v5/private", self.serve_private),
            web.get("/v5/trade", self.serve_trade),
        ]

    async def serve_public(self, request: web.Request) -> web.StreamResponse:
        category = request.match_info["category"]
        if category not in CATEGORIES:
            raise web.HTTPNotFound
        return await self._serve(request, "public", self.public, category)

    async def serve_status(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "public", Status(), "misc/status")

    async def serve_private(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "private", self.private)

    async def serve_trade(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "trade", self.trade)

    async def _serve(self, request: web.Request, kind: Kind, desk: Desk, category: str = "") -> web.StreamResponse:
        remote = request.remote or ""
        if not self._admits(remote, kind, category):
            raise web.HTTPForbidden(text="access too frequent")
        # Pings are answered by hand, so that a drill can stop it. Frames leave whole: nothing here compresses.
        socket = web.WebSocketResponse(
            autoping=False, compress=False, max_msg_size=MOST_HEARD, decode_text=False, timeout=1.0
        )
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket
        alive_s = active_time(request.query.get("max_active_time", ""), self.keepalive.signed)
        connection = Connection(self, kind, category, remote, transport, alive_s)
        self.connections.add(connection)
        try:
            await self._listen(socket, connection, desk)
        finally:
            connection.is_open = False
            self.connections.discard(connection)
            desk.left(connection)
            self.faults.forget(connection.id)
        return socket

    async def _listen(self, socket: web.WebSocketResponse, connection: "Connection", desk: Desk) -> None:
        while True:
            message = await socket.receive()
            match message.type:
                case WSMsgType.TEXT:
                    connection.heard()
                    connection.later(desk.hear(connection, message.data))
                    await connection.caught_up()
                case WSMsgType.PING:
                    connection.pinged()
                    if self.faults.pongs:
                        connection.queue(frame(message.data, WSMsgType.PONG))
                        self.flush()
                case WSMsgType.PONG:
                    connection.heard()
                case WSMsgType.BINARY:
                    connection.is_open = False
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA)
                    return
                case _:
                    return

    def _admits(self, remote: str, kind: Kind, category: str) -> bool:
        """Whether one more connection of an address is within the limits (Bybit v5, *Connect*)."""
        now = asyncio.get_running_loop().time()
        scale = self.server.limits.scale
        arrivals = self._arrivals.setdefault(remote, deque())
        while arrivals and arrivals[0] <= now - _NEW_SECONDS:
            arrivals.popleft()
        if len(arrivals) >= _NEW_CONNECTIONS * scale:
            return False
        arrivals.append(now)
        if kind != "public":
            return True
        there = sum(one.remote == remote and one.category == category for one in self.connections)
        return there < _PUBLIC_CONNECTIONS * scale

    def prove(self, connection: "Connection", args: Any) -> "ApiKey":
        """The key of a client who says `auth`.

        Raises:
            Refused: it is not who it says, or may not come from here.
        """
        key = self.server.auth.verify_socket(*proof_of(args))
        if not key.comes_from(connection.remote):
            raise Refused(10010, "Unmatched IP, please check your API key's bound IP addresses.")
        return key

    # --- what happened, and the passing of time ---------------------------------------------------

    def publish(self, events: Collection[Event]) -> None:
        """Tell all who subscribed to it what has happened."""
        if events:
            now = self.server.now()
            self.public.publish(events, now)
            self.private.publish(events, now)
            self.flush()

    def on_step(self, now: int) -> None:
        """Push what is due by its cadence, and look after those who have gone silent."""
        self.public.step(now)
        self.private.step(now)
        self.flush()
        self._sweep(asyncio.get_running_loop().time())

    def u_of(self, instrument: str) -> int:
        """The update id that REST shows with a book as it is now: that of the deepest stream, which is told the same at once."""
        u = self.public.u_of(instrument, self.server.now())
        self.flush()
        return u

    def restart_books(self, u: int = 1) -> None:
        """Begin every book's chain anew, and tell all who have one."""
        self.public.restart_books(u, self.server.now())
        self.flush()

    def tell(self, topic: str, payload: bytes, kind: Kind, connections: Iterable["Connection"]) -> None:
        """Push a message of a topic; it leaves with the next `flush`."""
        if self.faults.quiet:
            framed = frame(payload)
            for connection in connections:
                connection.push(topic, framed)
            return
        text = payload.decode()
        for connection in tuple(connections):
            for delay_s, pushed in self.faults.outgoing(topic, text, kind, connection.id):
                if delay_s > 0:
                    asyncio.get_running_loop().call_later(
                        delay_s, self._tell_late, topic, frame(pushed.encode()), connection
                    )
                else:
                    connection.push(topic, frame(pushed.encode()))

    def _tell_late(self, topic: str, framed: bytes, connection: "Connection") -> None:
        if connection.is_open and (connection.kind == "trade" or topic in connection.topics):
            connection.push(topic, framed)
            self.flush()

    def flush(self) -> None:
        """Write what has been queued: whole frames, all of a connection at once."""
        unsent, self.unsent = self.unsent, []
        for connection in unsent:
            connection.flush()

    def _sweep(self, now: float) -> None:
        if now - self._checked >= _CHECK_S:
            self._checked = now
            for one in [one for one in self.connections if one.kind == "public" and not one.topics]:
                if now - one.last_ping >= self.keepalive.public:
                    one.cut()
        if now - self._checked_signed >= self.keepalive.signed_check:
            self._checked_signed = now
            for one in [one for one in self.connections if one.kind != "public"]:
                if now - max(one.last_heard, one.last_told) >= one.alive_s:
                    one.cut()

    def cut(self, kind: Kind | None = None, uid: str | None = None, *, close_frame: bool) -> int:
        """End connections, with or without saying so; None is any. Returns how many."""
        concerned = [one for one in self.connections if kind in {None, one.kind} and uid in {None, one.uid}]
        for connection in concerned:
            connection.cut(close_frame=close_frame)
        return len(concerned)


class Connection:
    """One socket.

    `topics` are subscribed to; `uid` and `key` are known once it has proved who it is. Times are of the loop, in seconds.
    """

    def __init__(
        self, hub: Hub, kind: Kind, category: str, remote: str, transport: asyncio.Transport, alive_s: float
    ) -> None:
        self.id = f"{secrets.token_hex(10)}-{secrets.token_hex(3)[:5]}"
        self.kind = kind
        self.category = category
        self.remote = remote
        self.alive_s = alive_s
        self.topics: set[str] = set()
        self.uid: str | None = None
        self.key: ApiKey | None = None
        self.is_open = True
        self.hub = hub
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._outbox: list[bytes] = []
        self._held: dict[str, list[bytes]] = {}
        self._pending: deque[tuple[float, Effect]] = deque()
        self._room = asyncio.Event()
        self.last_ping = self.last_heard = self.last_told = self._loop.time()

    def heard(self) -> None:
        self.last_heard = self._loop.time()

    def pinged(self) -> None:
        self.last_ping = self.last_heard = self._loop.time()

    # --- in ---------------------------------------------------------------------------------------

    async def caught_up(self) -> None:
        """Read nothing more while too much waits to be answered."""
        if len(self._pending) >= _MOST_PENDING:
            self._room.clear()
            await self._room.wait()

    def later(self, effect: Effect) -> None:
        """Let a request take effect after the delay of acknowledgements, and after all before it."""
        faults = self.hub.faults
        # What a drill holds back of REST's answers, it holds back of those on the trade socket.
        slow_s = faults.answer_delay_s - faults.latency_s if self.kind == "trade" else 0.0
        self._pending.append((self._loop.time() + faults.ack_delay_s + slow_s, effect))
        if len(self._pending) == 1:
            self._wait()

    def _wait(self) -> None:
        self._loop.call_at(self._pending[0][0], self._act)

    def _act(self) -> None:
        now = self._loop.time()
        try:
            while self.is_open and self._pending and self._pending[0][0] <= now:
                self._pending.popleft()[1]()
        except Exception:
            # A bug that one request has found: a client that is cut comes back, one that hears nothing waits for ever.
            log.exception("an answer on a %s socket failed", self.kind)
            self.cut()
        self._room.set()
        self.hub.flush()
        if self.is_open and self._pending:
            self._wait()

    # --- out --------------------------------------------------------------------------------------

    def say(self, answer: Any) -> None:
        """Answer a request: what is not a push, and no drill touches."""
        self.queue(frame(_encode(answer)))

    def push(self, topic: str, framed: bytes) -> None:
        """Queue a push, or keep it until its topic is released."""
        if self._held and topic in self._held:
            self._held[topic].append(framed)
        else:
            self.queue(framed)

    def hold(self, topic: str) -> None:
        """Keep back what is pushed of a topic: its subscription counts, but has not been acknowledged."""
        self._held[topic] = []

    def release(self, topic: str) -> None:
        for framed in self._held.pop(topic, ()):
            self.queue(framed)

    def queue(self, framed: bytes) -> None:
        if not self._outbox:
            self.hub.unsent.append(self)
        self._outbox.append(framed)

    def flush(self) -> None:
        framed = self._outbox[0] if len(self._outbox) == 1 else b"".join(self._outbox)
        self._outbox.clear()
        transport = self._transport
        if not self.is_open or transport.is_closing():
            return
        transport.write(framed)
        self.last_told = self._loop.time()
        if transport.get_write_buffer_size() > self.hub.most_unsent:
            self.is_open = False
            transport.abort()

    def cut(self, *, close_frame: bool = False) -> None:
        """End it. Without a close frame the client sees the connection break, and loses what is still on its way."""
        self.is_open = False
        if not close_frame:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(frame(WSCloseCode.GOING_AWAY.to_bytes(2, "big"), WSMsgType.CLOSE))
            self._transport.close()
            # Who does not read does not get the frame either.
            self._loop.call_later(_GOODBYE_S, self._transport.abort)

    def hang_up(self) -> None:
        """End it after what has been said."""
        self.hub.flush()
        self.cut(close_frame=True)


def frame(payload: bytes, opcode: int = WSMsgType.TEXT) -> bytes:
    """A whole message of a server as one frame, unmasked (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 1 << 16:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + payload


def active_time(asked: str, usual: float) -> float:
    """Seconds a private socket may be silent: 30s to 600s, or minutes such as 2m; what cannot be read is the usual."""
    found = re.fullmatch(r"(\d{1,4})([sm])", asked)
    if found is None:
        return usual
    return min(max(int(found[1]) * (60 if found[2] == "m" else 1), 30), 600)


_encode = msgspec.json.Encoder().encode
