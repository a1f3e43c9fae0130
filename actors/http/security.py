"""Who may ask: this machine under its own names, no page of another site, and for what changes something, who has the token.

A browser lends every page on the internet its place on this machine. What keeps such a page out is the name it must use
(DNS rebinding), what browsers say of a request's origin, and that the token travels in a header that no form and no image
can set. There are no cookies, and so nothing that a browser would add by itself.
"""

import hmac
import re
import time
from collections.abc import Iterable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.http.problems import problem

OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ALWAYS_ALLOWED = frozenset({"/engine/kill", "/engine/stop"})
"""What must never wait for its turn."""

BODY = 64 * 1024
PER_S = 5.0
BURST = 40.0

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")


class Guard:
    """Lets in who may ask.

    Args:
        app: What it is around.
        token: What must be shown to change something; None lets nobody.
        hosts: Names of this machine beside its own, without a port.
        allowance: How many wishes may come.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str], allowance: "Allowance") -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._names = OWN_NAMES | {name.lower() for name in hosts}
        self._allowance = allowance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Browsers let any page open a socket anywhere; its token comes in its first message."""
        headers = Headers(scope=scope)
        if self._wrong_name(headers) or _foreign(headers):
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        received = 0
        answered = False

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > BODY:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            if received <= BODY or answered:  # what is said to half a body is not the answer
                answered = True
                await send(message)

        with suppress(_TooLargeError):
            await self._app(scope, bounded, noted)
        if received > BODY and not answered:
            await _too_large(scope)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Why a request is not let in; None where it is."""
        if why := self._wrong_name(headers):
            return problem(scope, 403, why, kind="host")
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit():
            return problem(scope, 400, "Content-Length is no number")
        if int(length) > BODY:
            return _too_large(scope)
        if scope["method"] in READING:
            return None
        if why := _foreign(headers):
            return problem(scope, 403, why, kind="cross-site")
        if not self._shows_token(headers):
            said = "show the token that is in the file api.token of HEAN's home: `Authorization: Bearer …`"
            return problem(scope, 401, said, kind="token", headers={"WWW-Authenticate": "Bearer"})
        if scope["path"] not in ALWAYS_ALLOWED and (wait_s := self._allowance.take(time.monotonic())):
            said = f"too many requests that change something: ask again in {wait_s} s"
            return problem(scope, 429, said, kind="rate", headers={"Retry-After": str(wait_s)})
        return None

    def _wrong_name(self, headers: Headers) -> str:
        """Why a name will not do: a page that points a name of its own at this machine still has to say it."""
        said = headers.getlist("host")
        found = _HOST.fullmatch(said[0].lower()) if len(said) == 1 else None
        if found is None or found[1] not in self._names:
            return "this machine is not known by that name: use 127.0.0.1 or localhost, or begin with another --host"
        return ""

    def _shows_token(self, headers: Headers) -> bool:
        said = headers.getlist("authorization")
        scheme, _, shown = said[0].partition(" ") if len(said) == 1 else ("", "", "")
        # Compared as bytes, and in a time that does not tell how much of it is right.
        right = hmac.compare_digest(shown.strip().encode(), self._token or b"")
        return right and scheme.lower() == "bearer" and bool(self._token)


class Allowance:
    """So many a second, and so many at once.

    Args:
        per_s: How fast what was taken comes back.
        burst: How many may be taken at once.
    """

    def __init__(self, per_s: float = PER_S, burst: float = BURST) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._ts = 0.0

    def take(self, now: float) -> int:
        """Take one: 0; or where none is left, in how many whole seconds there is."""
        self._left = min(self._burst, self._left + (now - self._ts) * self._per_s)
        self._ts = now
        if self._left < 1:
            return max(1, round((1 - self._left) / self._per_s))
        self._left -= 1
        return 0


class _TooLargeError(Exception):
    """More was sent than is read."""


def _too_large(scope: Scope) -> Response:
    return problem(scope, 413, f"the body may have {BODY} bytes", kind="size", headers={"Connection": "close"})


def _foreign(headers: Headers) -> str:
    """Why a browser's word on where a request comes from will not do; what is no browser says nothing."""
    site = headers.get("sec-fetch-site", "none")
    if site not in {"same-origin", "none"}:
        return "a page of another site may not do this"
    origin = headers.get("origin")
    if origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower():
        return "a page of another site may not do this"
    return ""
