"""Drills: an exchange in a thread of its own, and every lever as a context manager that lets go when it is left.

    with serving() as exchange, drop(exchange, "orderbook.50.BTCUSDT", part="delta", next=3) as pull:
        ...
        pull.effects  # ["dropped 3 deltas of orderbook.50.BTCUSDT"]

The levers are pulled over HTTP, so they work on an exchange in another process just as well: `Remote(url, token)`.
"""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from typing import Any, Literal, Protocol

from actors.exchange.auth import ApiKey
from actors.exchange.faults import Kind, Part
from actors.exchange.opening import Opened, Plan, opened, serve
from actors.exchange.server import ExchangeServer, ServerOptions
from hean.errors import HeanError

TOKEN = "drill"  # noqa: S105 (of an exchange that lives as long as a test)


class LeverError(HeanError):
    """A lever could not be pulled; the text says why."""


class Levers:
    """The levers of an exchange, over HTTP.

    Args:
        url: Of the exchange, such as http://127.0.0.1:8080.
        token: What it was given, or printed, at start.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token

    def show(self) -> dict[str, Any]:
        """Every lever with its arguments, and what is armed."""
        return self._ask("GET", "/admin")

    def log(self) -> list[dict[str, Any]]:
        """What was done, the oldest first."""
        pulls: list[dict[str, Any]] = self._ask("GET", "/admin/log")["log"]
        return pulls

    def pull(self, lever: str, **arguments: Any) -> "Pulled":
        """Pull a lever; arguments that are None are left out.

        Raises:
            LeverError: the exchange does not have it, or refuses its arguments.
        """
        given = {name: _plain(value) for name, value in arguments.items() if value is not None}
        return Pulled(self, lever, self._ask("POST", f"/admin/{lever}", given)["pull"])

    def release(self, pulled: "Pulled") -> None:
        self._ask("DELETE", f"/admin/{pulled.lever}?pull={pulled.number}")

    def release_all(self) -> None:
        self._ask("DELETE", "/admin")

    def wait_until_open(self, seconds: float) -> None:
        """Wait until the port takes connections again.

        Raises:
            LeverError: it still does not after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.show()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise LeverError(f"{self.url} is still closed after {seconds:g} s") from error
                time.sleep(0.02)
            else:
                return

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 (an http URL that the caller gave)
            self.url + path,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 (as above)
                told: dict[str, Any] = json.load(answer)
                return told
        except urllib.error.HTTPError as refusal:
            with refusal:
                raise LeverError(json.loads(refusal.read() or b"{}").get("error", str(refusal))) from None


class Pulled:
    """One pull of a lever."""

    def __init__(self, levers: Levers, lever: str, number: int) -> None:
        self.levers = levers
        self.lever = lever
        self.number = number

    @property
    def effects(self) -> list[str]:
        """What it has done so far, by the log of the exchange."""
        (entry,) = (one for one in self.levers.log() if one["pull"] == self.number)
        effects: list[str] = entry["effects"]
        return effects


class Drillable(Protocol):
    """What has levers: an exchange served here, or a remote one."""

    @property
    def levers(self) -> Levers: ...


class Remote:
    """An exchange in another process."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        self.ws_url = "ws" + self.url.removeprefix("http")
        self.levers = Levers(self.url, token)


class Served:
    """An exchange served in this process; `key` and `secret` are its first account's, `keys` those of all."""

    def __init__(self, server: ExchangeServer, keys: tuple[ApiKey, ...]) -> None:
        self.server = server
        self.keys = keys
        self.key, self.secret = keys[0].key, keys[0].secret
        self.url = f"http://127.0.0.1:{server.port}"
        self.ws_url = f"ws://127.0.0.1:{server.port}"
        self.levers = Levers(self.url, server.options.token)


@contextmanager
def serving(
    plan: Plan | None = None, *, ready: Opened | None = None, port: int = 0, token: str = TOKEN, step_ms: int = 20
) -> Iterator[Served]:
    """Run an exchange in a thread while the block runs.

    Args:
        plan: What exchange; one with everything left at its default when there is none.
        ready: One that is open already, in place of a plan.
        port: Where; 0 takes any that is free.
        token: Of its levers.
        step_ms: How often the market moves.
    """
    exchange = ready if ready is not None else opened(plan if plan is not None else Plan(), time.time_ns())
    options = ServerOptions(port=port, step_ms=step_ms, keys=exchange.keys, token=token)
    life = _Life(exchange, options)
    life.start()
    try:
        yield life.served()
    finally:
        life.end()


class _Life(threading.Thread):
    """The thread of an exchange. What ends it early is raised where it is waited for."""

    def __init__(self, exchange: Opened, options: ServerOptions) -> None:
        super().__init__(name="exchange", daemon=True)
        self._exchange = exchange
        self._options = options
        self._begun = threading.Event()
        self._served: Served | None = None
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 (raised by whoever waits for this thread)
            self._failure = failure
        finally:
            self._begun.set()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()

        def begun(server: ExchangeServer) -> None:
            self._served = Served(server, self._exchange.keys)
            self._begun.set()

        await serve(self._exchange, self._options, begun=begun, ended=self._ended)

    def served(self) -> Served:
        self._begun.wait()
        if self._served is None:
            self.join()
            raise self._failure or RuntimeError("the exchange ended before it began")
        return self._served

    def end(self) -> None:
        if self._loop is not None and self._ended is not None and self.is_alive():
            self._loop.call_soon_threadsafe(self._ended.set)
        self.join()
        if self._failure is not None:
            raise self._failure


# --- every lever ----------------------------------------------------------------------------------

Drill = AbstractContextManager[Pulled]


@contextmanager
def pulled(exchange: Drillable, lever: str, **arguments: Any) -> Iterator[Pulled]:
    """Pull a lever by its name, and release it when the block is left."""
    pull = exchange.levers.pull(lever, **arguments)
    try:
        yield pull
    finally:
        exchange.levers.release(pull)


def cut_sockets(
    exchange: Drillable,
    *,
    kind: Kind | None = None,
    uid: str | None = None,
    close_frame: bool = True,
    most: int | None = None,
) -> Drill:
    """Cut sockets as the block is entered: all, or of a kind, of an account, or so many."""
    return pulled(exchange, "cut", kind=kind, uid=uid, close_frame=close_frame, most=most)


def stop_pongs(exchange: Drillable) -> Drill:
    """Leave pings unanswered."""
    return pulled(exchange, "stop-pongs")


def mute(exchange: Drillable, topic: str, *, kind: Kind | None = None) -> Drill:
    """Stop the topics of a pattern."""
    return pulled(exchange, "mute", topic=topic, kind=kind)


def drop(
    exchange: Drillable,
    topic: str = "*",
    *,
    kind: Kind | None = None,
    part: Part | None = None,
    every: int = 1,
    next: int | None = None,  # noqa: A002 (the lever's own word)
    chance: float = 1.0,
) -> Drill:
    """Lose pushes."""
    return pulled(exchange, "drop", topic=topic, kind=kind, part=part, every=every, next=next, chance=chance)


def repeat(
    exchange: Drillable,
    topic: str = "*",
    *,
    times: int = 1,
    kind: Kind | None = None,
    part: Part | None = None,
    every: int = 1,
    next: int | None = None,  # noqa: A002
    chance: float = 1.0,
) -> Drill:
    """Send pushes so many times more."""
    return pulled(
        exchange, "repeat", topic=topic, times=times, kind=kind, part=part, every=every, next=next, chance=chance
    )


def delay(
    exchange: Drillable,
    topic: str = "*",
    *,
    ms: float,
    kind: Kind | None = None,
    part: Part | None = None,
    every: int = 1,
    next: int | None = None,  # noqa: A002
    chance: float = 1.0,
) -> Drill:
    """Hold pushes back."""
    return pulled(exchange, "delay", topic=topic, ms=ms, kind=kind, part=part, every=every, next=next, chance=chance)


def reorder(
    exchange: Drillable,
    topic: str = "*",
    *,
    kind: Kind | None = None,
    part: Part | None = None,
    every: int = 1,
    next: int | None = None,  # noqa: A002
    chance: float = 1.0,
) -> Drill:
    """Let pushes change places with the next of their stream."""
    return pulled(exchange, "reorder", topic=topic, kind=kind, part=part, every=every, next=next, chance=chance)


def restart_books(exchange: Drillable) -> Drill:
    """Begin every book anew with u = 1 as the block is entered."""
    return pulled(exchange, "restart-books")


@contextmanager
def refuse_connections(exchange: Drillable, seconds: float, *, cut: bool = False) -> Iterator[Pulled]:
    """Close the port for some seconds; with `cut` open sockets end too. The block is left when it is open again."""
    pull = exchange.levers.pull("refuse-connections", seconds=seconds, cut=cut)
    try:
        yield pull
    finally:
        exchange.levers.wait_until_open(seconds + 5)


def slow_answers(exchange: Drillable, ms: float) -> Drill:
    """Hold every REST answer back."""
    return pulled(exchange, "slow-answers", ms=ms)


def lose_answers(exchange: Drillable, path: str = "/v5/order/create", *, next: int = 1) -> Drill:  # noqa: A002
    """Execute the next requests of a path, and lose their answers."""
    return pulled(exchange, "lose-answers", path=path, next=next)


def storm(
    exchange: Drillable,
    *,
    code: int | None = None,
    status: int | None = None,
    path: str = "/v5/",
    uid: str | None = None,
    next: int | None = None,  # noqa: A002
    seconds: float | None = None,
) -> Drill:
    """Refuse requests with a return code, such as 10006 or 10016, or an HTTP status, such as 403, 429 or 502."""
    return pulled(exchange, "storm", code=code, status=status, path=path, uid=uid, next=next, seconds=seconds)


def skew_clock(exchange: Drillable, ms: float) -> Drill:
    """Let the venue's clock be so far ahead when it checks the time of requests."""
    return pulled(exchange, "skew-clock", ms=ms)


def late_entry(exchange: Drillable, ms: float) -> Drill:
    """Acknowledge orders at once, and let them reach the book later."""
    return pulled(exchange, "late-entry", ms=ms)


def race_cancel(exchange: Drillable) -> Drill:
    """Fill the next order that is cancelled."""
    return pulled(exchange, "race-cancel")


def settle_funding(exchange: Drillable, symbol: str, *, rate: Decimal | str | None = None) -> Drill:
    """Settle funding as the block is entered."""
    return pulled(exchange, "settle-funding", symbol=symbol, rate=rate)


def shock_mark(exchange: Drillable, symbol: str, fraction: float) -> Drill:
    """Show a mark that is off by a fraction."""
    return pulled(exchange, "shock-mark", symbol=symbol, fraction=fraction)


def deleverage(
    exchange: Drillable, uid: str, symbol: str, *, position_idx: int = 0, quantity: Decimal | str | None = None
) -> Drill:
    """Take a position off an account as the block is entered."""
    return pulled(exchange, "deleverage", uid=uid, symbol=symbol, position_idx=position_idx, quantity=quantity)


def restrict(
    exchange: Drillable,
    symbol: str,
    status: Literal["ReduceOnly", "Settling"],
    *,
    category: Literal["linear", "spot"] = "linear",
) -> Drill:
    """Let a symbol be reduced only, or settle."""
    return pulled(exchange, "restrict", symbol=symbol, category=category, status=status)


def disconnect_window(
    exchange: Drillable, uid: str, seconds: int, *, product: Literal["DERIVATIVES", "SPOT"] = "DERIVATIVES"
) -> Drill:
    """Set an account's disconnect-cancel window, and switch it off when the block is left."""
    return pulled(exchange, "disconnect-window", uid=uid, product=product, seconds=seconds)


def scale_limits(exchange: Drillable, scale: float) -> Drill:
    """Multiply every rate limit."""
    return pulled(exchange, "scale-limits", scale=scale)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value
