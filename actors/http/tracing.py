"""The id of a request: in its answer, in the log, and as the trace of every message that it sets going."""

import re
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = "X-Request-ID"
_WELL_FORMED = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_KEY = "hean.trace"


class Log(Protocol):
    """Where requests are written down."""

    def request(self, method: str, path: str, status: int, ms: float, trace: str) -> None:
        """One request and its answer: neither body, query nor header of it, since there is the token."""

    def bug(self, method: str, path: str, trace: str, error: Exception) -> None:
        """A fault of our own."""


class Tracing:
    """The outermost: gives each request its id, writes it down, and answers for what nobody foresaw.

    Args:
        app: What it is around.
        log: Where requests are written down.
        answer: Makes the answer to a request that failed by a fault of our own.
        echoes: Whether to put the id into the header of the answer. Ray Serve's proxy does that itself.
    """

    def __init__(self, app: ASGIApp, log: Log, answer: Callable[[Scope], Response], *, echoes: bool = True) -> None:
        self._app = app
        self._log = log
        self._answer = answer
        self._echoes = echoes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        trace = scope[_KEY] = _trace(Headers(scope=scope))
        method = scope.get("method", "SOCKET")
        status = 0
        began = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.http.response.start"}:
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if self._echoes:
                    headers[REQUEST_ID] = trace
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close" and not status:
                status = 403
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as bug:  # noqa: BLE001 (whatever it is, its words stay in the log)
            self._log.bug(method, scope["path"], trace, bug)
            if scope["type"] == "http" and not status:
                await self._answer(scope)(scope, receive, send_with_id)
        finally:
            self._log.request(method, scope["path"], status, (time.perf_counter() - began) * 1000, trace)


_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""No page of another site frames, embeds or keeps what is answered."""


def trace_of(connection: HTTPConnection) -> str:
    """The id of a request, and the trace of what it sets going: 32 hexadecimal digits."""
    return trace_in(connection.scope)


def trace_in(scope: Scope) -> str:
    return str(scope[_KEY])


def _trace(headers: Headers) -> str:
    """The id that was sent along, where it is one: 32 hexadecimal digits, or a UUID with its dashes."""
    given = headers.get(REQUEST_ID, "")
    return given.replace("-", "").lower() if _WELL_FORMED.fullmatch(given) else secrets.token_hex(16)
