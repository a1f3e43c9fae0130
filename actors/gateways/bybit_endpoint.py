"""Where a Bybit is, who we are there, and real pybit pointed at it: nothing but the address differs between venues."""

import ipaddress
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pybit.unified_trading import HTTP, WebSocket, WebSocketTrading
from websocket import WebSocketException

from hean.errors import ConfigError

# What goes wrong is reported by the gateways; a library's own lines may quote what we send.
logging.getLogger("pybit").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Endpoint:
    """The addresses of one venue, each up to `/v5`. `trade` is empty where orders go by REST alone."""

    name: str
    rest: str
    public: str
    private: str
    trade: str

    @property
    def is_real(self) -> bool:
        """Whether it may be anybody's money: all that is not known to be a practice account or a machine of ours."""
        return not all(_is_harmless(address) for address in (self.rest, self.private, self.trade) if address)


_PRACTICE = frozenset(
    {"api-testnet.bybit.com", "stream-testnet.bybit.com", "api-demo.bybit.com", "stream-demo.bybit.com"}
)


def _is_harmless(address: str) -> bool:
    name = urlsplit(address).hostname or ""
    if name in _PRACTICE or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_private
    except ValueError:
        return "." not in name  # a machine of a network of ours, such as one of compose


# Bybit v5, *Integration guidance* and *Demo trading service*. Demo has the market of the main net, and no trade socket.
MAINNET = Endpoint(
    "mainnet",
    "https://api.bybit.com",
    "wss://stream.bybit.com",
    "wss://stream.bybit.com",
    "wss://stream.bybit.com",
)
TESTNET = Endpoint(
    "testnet",
    "https://api-testnet.bybit.com",
    "wss://stream-testnet.bybit.com",
    "wss://stream-testnet.bybit.com",
    "wss://stream-testnet.bybit.com",
)
DEMO = Endpoint(
    "demo",
    "https://api-demo.bybit.com",
    "wss://stream.bybit.com",
    "wss://stream-demo.bybit.com",
    "",
)


def loopback(where: int | str) -> Endpoint:
    """A Bybit on this machine, by its port or its address.

    Raises:
        ConfigError: It is neither.
    """
    text = f"http://127.0.0.1:{where}" if isinstance(where, int) else where.rstrip("/")
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and not parts.path
    except ValueError:  # a port that is no number
        good = False
    if not good:
        raise ConfigError(f"{where!r} is no address of a Bybit: write a port, or http://127.0.0.1:8080")
    sockets = "ws" + text.removeprefix("http")
    return Endpoint("loopback", text, sockets, sockets, sockets)


ENDPOINTS = {endpoint.name: endpoint for endpoint in (MAINNET, TESTNET, DEMO)}


@dataclass(frozen=True, repr=False)
class Keys:
    """An API key and its secret, a PEM text for RSA. Neither is ever shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.key or not self.secret:
            raise ConfigError("an API key and its secret are both needed")

    def __repr__(self) -> str:
        return "Keys(…)"

    @property
    def rsa(self) -> bool:
        return self.secret.lstrip().startswith("-----BEGIN")

    def hide(self, text: str) -> str:
        """Take the key out of a text: Bybit quotes it where a signature is wrong."""
        return text.replace(self.key, "…").replace(self.secret, "…")


class Session(HTTP):  # type: ignore[misc]
    """pybit's HTTP, that does not print its keys. `before_each` is called once a request is signed, and may raise."""

    before_each: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"Session({self.endpoint})"

    def _prepare_headers(self, *arguments: Any, **more: Any) -> Any:
        headers = super()._prepare_headers(*arguments, **more)
        if self.before_each is not None:
            self.before_each()
        return headers


def session(
    endpoint: Endpoint,
    keys: Keys | None,
    *,
    timeout_s: float = 5.0,
    recv_window_ms: int = 5_000,
    with_headers: bool = False,
    before_each: Callable[[], None] | None = None,
) -> Session:
    """Open a session that reports every return code and repeats nothing by itself. One thread may use it.

    Args:
        endpoint: Where.
        keys: Who; None for what is public.
        timeout_s: How long an answer may take.
        recv_window_ms: How old a request may be when it arrives.
        with_headers: Whether an answer is a tuple of it, the time it took and its headers.
        before_each: Called when a request has its time and signature, and is about to leave; may raise.
    """
    rights = {} if keys is None else {"api_key": keys.key, "api_secret": keys.secret, "rsa_authentication": keys.rsa}
    made = Session(
        testnet=False,
        # An empty set would mean pybit's defaults; a code that no answer has switches its retrying off.
        retry_codes={-1},
        timeout=timeout_s,
        recv_window=recv_window_ms,
        logging_level=logging.CRITICAL,
        return_response_headers=with_headers,
        **rights,
    )
    made.endpoint = endpoint.rest
    made.before_each = before_each
    return made


class _Redirect:
    """pybit has no argument for a socket's address. Called again with the address it made: applying it twice is once.

    `wires` takes every connection made: websocket-client leaves one that the venue closed to the garbage collector.
    """

    def __init__(self, base: str, wires: list[Any], **rest: Any) -> None:
        self._base = base
        self._wires = wires
        super().__init__(**rest)

    def _connect(self, url: str) -> None:
        super()._connect(self._base + url[url.index("/v5/") :])  # type: ignore[misc]

    def _on_open(self) -> None:
        super()._on_open()  # type: ignore[misc]
        self._wires.append(self.ws.sock)  # type: ignore[attr-defined]

    def _send_custom_ping(self) -> None:
        # pybit's timer may find the connection closed under it: that it is gone is told by the socket itself.
        with suppress(OSError, AttributeError, WebSocketException):
            super()._send_custom_ping()  # type: ignore[misc]


class RedirectedSocket(_Redirect, WebSocket):  # type: ignore[misc]
    pass


class RedirectedTrading(_Redirect, WebSocketTrading):  # type: ignore[misc]
    pass


@dataclass(frozen=True)
class Pings:
    """How often a socket pings, and how long it waits for the pong; the first must be the longer."""

    interval_s: float = 20.0
    timeout_s: float = 10.0

    def arguments(self) -> dict[str, Any]:
        # A socket that fails is never mended, always replaced: see bybit_streams.
        return {
            "testnet": False,
            "restart_on_error": False,
            "ping_interval": self.interval_s,
            "ping_timeout": self.timeout_s,
        }


Hear = Callable[[Any], None]
Wires = list[Any]


def public_socket(endpoint: Endpoint, category: str, hear: Hear, wires: Wires, pings: Pings) -> RedirectedSocket:
    """Connect to the public stream of a category. Blocks until it stands; every message goes to `hear`, as it came."""
    return RedirectedSocket(
        base=endpoint.public, wires=wires, channel_type=category, callback_function=hear, **pings.arguments()
    )


def private_socket(endpoint: Endpoint, keys: Keys, hear: Hear, wires: Wires, pings: Pings) -> RedirectedSocket:
    """Connect to the private stream and ask to be let in: whether we are is the first message."""
    return RedirectedSocket(
        base=endpoint.private,
        wires=wires,
        channel_type="private",
        callback_function=hear,
        api_key=keys.key,
        api_secret=keys.secret,
        rsa_authentication=keys.rsa,
        private_auth_expire=5,
        **pings.arguments(),
    )


def trade_socket(endpoint: Endpoint, keys: Keys, wires: Wires, recv_window_ms: int, pings: Pings) -> RedirectedTrading:
    """Connect to the trade socket and ask to be let in: its attribute `auth` says whether we are."""
    return RedirectedTrading(
        base=endpoint.trade,
        wires=wires,
        recv_window=recv_window_ms,
        api_key=keys.key,
        api_secret=keys.secret,
        rsa_authentication=keys.rsa,
        private_auth_expire=5,
        **pings.arguments(),
    )
