"""Who may speak to the page: only a browser that was sent here by this very host.

NiceGUI's socket accepts every origin. A page elsewhere could therefore open it, and a name of somebody else's that is
made to point at this machine could read it. This stands before everything the page serves, plain requests and sockets alike.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "  # Vue compiles its templates in the browser
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Sequence[tuple[bytes, bytes]] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
)
OWN_SITE = ("same-origin", "none")


class Guard:
    """Refuses what is not addressed to one of `hosts`, or was sent by another site; tells the browser to frame and sniff nothing.

    `hosts` are names without ports. An `Origin`, where there is one, must be the very host the request is addressed to.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ("127.0.0.1", "localhost", "[::1]")) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal:
            await _refuse(scope, send, refusal)
            return
        await self._app(scope, receive, _with_headers(send))

    def _refusal(self, scope: Scope) -> str:
        """Why not, in words; empty where nothing speaks against it."""
        host = _header(scope, b"host").lower()
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name not in self._hosts:
            return "this page answers only to the names of its own machine"
        origin = _header(scope, b"origin")
        if origin and urlsplit(origin).netloc.lower() != host:
            return "another site may not speak to this page"
        site = _header(scope, b"sec-fetch-site")
        navigates = _header(scope, b"sec-fetch-mode") == "navigate" and scope.get("method") in {"GET", "HEAD"}
        if site and site not in OWN_SITE and not navigates:
            return "another site may not speak to this page"
        if scope["type"] == "websocket" and not origin:
            return "a browser says where its page came from"
        return ""


def _header(scope: Scope, name: bytes) -> str:
    """The one value of a header; said twice, it is no value that anything here accepts."""
    found = [value for key, value in scope["headers"] if key == name]
    if len(found) > 1:
        return "said twice"
    return found[0].decode("latin-1").strip() if found else ""


async def _refuse(scope: Scope, send: Send, why: str) -> None:
    if scope["type"] == "websocket":
        await send(
            {"type": "websocket.close", "code": 1008, "reason": why}
        )  # before it was accepted: the browser hears 403
        return
    body = why.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
        await send(message)

    return sent
