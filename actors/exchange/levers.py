"""Levers: what goes wrong on purpose, over HTTP under `/admin` beside `/v5`. Off until the server is given a token.

    GET    /admin                 every lever and its arguments, and what is armed
    GET    /admin/log             what was done: when, with which arguments, how often it struck
    POST   /admin/<lever>         pull it, its arguments as a JSON object; {"off": true} releases it
    DELETE /admin/<lever>         release it; with ?pull=<number> that one pull of it
    DELETE /admin                 release everything

Only loopback peers are heard, only with the token, and no page of another origin.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from aiohttp import web
from msgspec import Struct, field
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from actors.exchange.faults import (
    SKEW_NS,
    Effects,
    Kind,
    LossFault,
    Part,
    Storm,
    StormFault,
    StreamFault,
    told,
)
from hean.exchange.clearing import HOUSE
from hean.exchange.market import TRADING, Market
from hean.exchange.refusals import Refused
from hean.units import MILLISECOND, SECOND, utc

if TYPE_CHECKING:
    from actors.exchange.server import ExchangeServer


class Levers:
    """The levers of one server: pulls, releases, and the log of both."""

    def __init__(self, server: "ExchangeServer", token: str) -> None:
        if not token:
            raise ValueError("the levers need a token")
        self._server = server
        self._token = token
        self.log: list[Pull] = []

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/admin", self._guarded(self._show)),
            web.delete("/admin", self._guarded(self._release_all)),
            web.get("/admin/log", self._guarded(self._show_log)),
            web.post("/admin/{lever}", self._guarded(self._pull)),
            web.delete("/admin/{lever}", self._guarded(self._release)),
        ]

    def armed(self) -> "list[Pull]":
        now = self._server.now()
        return [pull for pull in self.log if pull.is_armed(now)]

    async def pull(self, lever: "Lever", wanted: "Arguments") -> "Pull":
        """Do it, and note it in the log. What holds the same thing already is released first."""
        pull = Pull(
            number=len(self.log) + 1,
            lever=lever.name,
            ts=self._server.now(),
            arguments=wanted.model_dump(mode="json", exclude_none=True),
        )
        pull.holds = lever.holds(wanted)
        if pull.holds:
            self.release(*(one for one in self.armed() if one.holds == pull.holds))
        pull.hold = await lever.act(self._server, wanted, pull)
        self.log.append(pull)
        self._server.settle()
        return pull

    def release(self, *pulls: "Pull") -> None:
        for pull in pulls:
            if pull.hold is not None and pull.ts_released is None:
                pull.ts_released = self._server.now()
                pull.hold.release()
        self._server.settle()

    # --- over HTTP ----------------------------------------------------------------------------------

    def _guarded(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            if (refusal := self._stranger(request)) is not None:
                return refusal
            try:
                return await handler(request)
            except Refused as refusal:
                return _error(409, str(refusal))

        return guarded

    def _stranger(self, request: web.Request) -> web.Response | None:
        """The refusal of a caller who may not touch the levers; None for one who may."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if peer is None or not ip_address(peer[0]).is_loopback:
            return _error(403, "the levers are for this machine alone")
        if not _is_local(f"//{request.headers.get('Host', '')}"):
            return _error(403, "the Host header names another machine")
        origin = request.headers.get("Origin")
        if origin is not None and not _is_local(origin):
            return _error(403, "the Origin header names another site")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
            return _error(401, "send the header Authorization: Bearer <token>, with the token printed at start")
        return None

    async def _show(self, _: web.Request) -> web.Response:
        return web.json_response(
            {
                "levers": [lever.shown() for lever in LEVERS.values()],
                "armed": [pull.shown() for pull in self.armed()],
            }
        )

    async def _show_log(self, _: web.Request) -> web.Response:
        return web.json_response({"log": [pull.shown() for pull in self.log]})

    async def _pull(self, request: web.Request) -> web.Response:
        lever = LEVERS.get(request.match_info["lever"])
        if lever is None:
            return _no_such(request)
        try:
            body = json.loads(await request.read() or b"{}")
        except (ValueError, RecursionError) as error:
            return _error(400, f"the body is no JSON: {error}")
        if not isinstance(body, dict):
            return _error(400, "the body must be a JSON object of arguments")
        if body.pop("off", False):
            return await self._release(request)
        try:
            wanted = lever.arguments.model_validate(body)
            lever.check(self._server, wanted)
        except ValidationError as error:
            fields = {".".join(map(str, one["loc"])) or "arguments": _words(one["msg"]) for one in error.errors()}
            text = "; ".join(f"{name}: {what}" for name, what in fields.items())
            return _error(422, text, fields=fields)
        except UnknownError as error:
            return _error(422, f"{error.field}: {error.what}", fields={error.field: error.what})
        return web.json_response((await self.pull(lever, wanted)).shown())

    async def _release(self, request: web.Request) -> web.Response:
        name = request.match_info["lever"]
        if name not in LEVERS:
            return _no_such(request)
        number = request.query.get("pull")
        pulls = [one for one in self.log if one.lever == name and number in {None, str(one.number)}]
        self.release(*pulls)
        return web.json_response({"released": [one.shown() for one in pulls if one.hold is not None]})

    async def _release_all(self, _: web.Request) -> web.Response:
        pulls = self.armed()
        self.release(*pulls)
        return web.json_response({"released": [one.shown() for one in pulls]})


class Hold(Struct, eq=False):
    """What stays as a lever has made it: `release` takes it back, `is_spent` says whether it has ended by itself."""

    release: Callable[[], None]
    is_spent: Callable[[int], bool] = lambda _: False


class Pull(Struct, eq=False, kw_only=True):
    """One time that a lever was pulled. `holds` names what it keeps for itself, so that a second pull replaces the first."""

    number: int
    lever: str
    ts: int
    arguments: dict[str, Any]
    effects: Effects = field(default_factory=Effects)
    notes: list[str] = field(default_factory=list)
    holds: str = ""
    hold: Hold | None = None
    ts_released: int | None = None

    def is_armed(self, now: int) -> bool:
        return self.hold is not None and self.ts_released is None and not self.hold.is_spent(now)

    def note(self, what: str) -> None:
        self.notes.append(what)

    def shown(self) -> dict[str, Any]:
        return {
            "pull": self.number,
            "lever": self.lever,
            "at": utc(self.ts),
            "arguments": self.arguments,
            "effects": [*self.notes, *told(self.effects)],
            "released": utc(self.ts_released) if self.ts_released is not None else None,
        }


class UnknownError(Exception):
    """An argument names something that this exchange does not have."""

    def __init__(self, field: str, what: str) -> None:
        self.field = field
        self.what = what
        super().__init__(f"{field}: {what}")


# --- arguments ------------------------------------------------------------------------------------


class Arguments(BaseModel):
    """What a lever is pulled with."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Connections(Arguments):
    kind: Kind | None = Field(default=None, description="public, private or trade; all when left out")
    uid: str | None = Field(default=None, description="of one account's sockets only")
    close_frame: bool = Field(default=True, description="false cuts the wire without a word")
    most: int | None = Field(default=None, ge=1, description="so many of them, whichever; all when left out")


class Stream(Arguments):
    topic: str = Field(default="*", min_length=1, description="a pattern: orderbook.50.BTCUSDT, orderbook.*, order")
    kind: Kind | None = Field(default=None, description="public, private or trade; all when left out")


class Pushes(Stream):
    part: Part | None = Field(default=None, description="snapshot, delta or message (private); all when left out")
    every: int = Field(default=1, ge=1, description="every nth push of each stream")
    next: int | None = Field(default=None, ge=1, description="the next so many in all, then no more")
    chance: float = Field(default=1.0, gt=0, le=1, description="strike with this chance, from the seed")
    seconds: float | None = Field(default=None, gt=0, le=86_400, description="no longer than this")


class Repeats(Pushes):
    times: int = Field(default=1, ge=1, le=100, description="how often again")


class Delays(Pushes):
    ms: float = Field(gt=0, le=600_000, description="how long each is held back")


class Nothing(Arguments):
    pass


class Outage(Arguments):
    seconds: float = Field(gt=0, le=600, description="how long the port is closed")
    cut: bool = Field(default=False, description="cut the sockets that are open, too")


class Milliseconds(Arguments):
    ms: float = Field(gt=0, le=600_000)


class Skew(Arguments):
    ms: float = Field(
        ge=-86_400_000, le=86_400_000, description="how far the venue's clock is ahead of the true one; below 0, behind"
    )


class Losses(Arguments):
    path: str = Field(default="/v5/order/create", pattern=r"^/v5/", description="requests whose path begins so")
    next: int = Field(default=1, ge=1, description="how many answers")


class Refusals(Arguments):
    code: int | None = Field(default=None, ge=1, description="a return code such as 10006 or 10016")
    status: int | None = Field(default=None, ge=400, le=599, description="an HTTP status such as 403, 429 or 502")
    path: str = Field(default="/v5/", pattern=r"^/v5/", description="requests whose path begins so")
    uid: str | None = Field(default=None, description="of one account only")
    next: int | None = Field(default=None, ge=1, description="so many requests; without it and seconds, until released")
    seconds: float | None = Field(default=None, gt=0, le=86_400)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Refusals":
        if (self.code is None) is (self.status is None):
            raise ValueError("give either code or status")
        return self


class Instrument(Arguments):
    symbol: str = Field(description="such as BTCUSDT")
    category: Literal["linear", "spot"] = "linear"


class Funding(Arguments):
    symbol: str = Field(description="such as BTCUSDT")
    rate: Decimal | None = Field(
        default=None, ge=-1, le=1, decimal_places=10, description="in place of the rate that was struck; a fraction"
    )


class Shock(Arguments):
    symbol: str = Field(description="such as BTCUSDT")
    fraction: float = Field(gt=-1, le=10, description="-0.3 shows the mark 30% below what it would be")


class Deleveraging(Arguments):
    uid: str
    symbol: str = Field(description="such as BTCUSDT")
    position_idx: Literal[0, 1, 2] = 0
    quantity: Decimal | None = Field(default=None, gt=0, description="in base units; the whole position when left out")


class Restriction(Instrument):
    status: Literal["ReduceOnly", "Settling"]


class Window(Arguments):
    uid: str
    product: Literal["DERIVATIVES", "SPOT"] = "DERIVATIVES"
    seconds: int = Field(ge=3, le=300, description="how long it waits for a socket to come back")


class Scale(Arguments):
    scale: Annotated[float, Field(gt=0, le=1e6, description="10 allows ten times as many requests")]


# --- what they do ---------------------------------------------------------------------------------


def _cut(server: "ExchangeServer", wanted: Connections, pull: "Pull") -> None:
    """Cut sockets, with a close frame or without."""
    concerned = [
        one
        for one in server.hub.connections
        if wanted.kind in {None, one.kind} and wanted.uid in {None, one.uid} and one.is_open
    ]
    for connection in concerned[: wanted.most]:
        connection.cut(close_frame=wanted.close_frame)
        pull.effects["cut", f"{connection.kind} socket", _CLOSINGS[wanted.close_frame]] += 1


def _stop_pongs(server: "ExchangeServer", _: Nothing, pull: "Pull") -> Hold:
    """Leave protocol pings unanswered."""
    server.faults.pongs = False
    pull.note("pings are not answered")

    def release() -> None:
        server.faults.pongs = True

    return Hold(release)


def _mute(server: "ExchangeServer", wanted: Stream, pull: "Pull") -> Hold:
    """Stop a topic: subscriptions stand, nothing comes."""
    return _arm(server, StreamFault(verb="drop", topic=wanted.topic, kind=wanted.kind, effects=pull.effects))


def _drop(server: "ExchangeServer", wanted: Pushes, pull: "Pull") -> Hold:
    """Lose pushes: book deltas, or private messages."""
    return _arm(server, _stream(server, "drop", wanted, pull))


def _repeat(server: "ExchangeServer", wanted: Repeats, pull: "Pull") -> Hold:
    """Send pushes more than once."""
    fault = _stream(server, "repeat", wanted, pull)
    fault.times = wanted.times
    return _arm(server, fault)


def _delay(server: "ExchangeServer", wanted: Delays, pull: "Pull") -> Hold:
    """Hold pushes back; others pass them meanwhile."""
    fault = _stream(server, "delay", wanted, pull)
    fault.delay_s = wanted.ms / 1000
    return _arm(server, fault)


def _reorder(server: "ExchangeServer", wanted: Pushes, pull: "Pull") -> Hold:
    """Let a push change places with the next of its stream."""
    return _arm(server, _stream(server, "reorder", wanted, pull))


def _restart_books(server: "ExchangeServer", _: Nothing, pull: "Pull") -> None:
    """Begin every order book anew, its snapshot with u = 1, as after a restart of the service."""
    server.hub.restart_books(u=1)
    pull.note("every book began anew with u = 1")


async def _refuse_connections(server: "ExchangeServer", wanted: Outage, pull: "Pull") -> None:
    """Close the listener for some seconds: connections are refused, this page's too."""
    await server.refuse_connections(wanted.seconds)
    pull.note(f"closed the port for {wanted.seconds:g} s")
    if wanted.cut:
        _cut(server, Connections(close_frame=False), pull)


def _slow_answers(server: "ExchangeServer", wanted: Milliseconds, pull: "Pull") -> Hold:
    """Hold every answer back, of REST and of the trade socket."""
    server.faults.answer_delay_s = server.faults.latency_s + wanted.ms / 1000
    pull.note(f"every answer waits {wanted.ms:g} ms")

    def release() -> None:
        server.faults.answer_delay_s = server.faults.latency_s

    return Hold(release)


def _lose_answers(server: "ExchangeServer", wanted: Losses, pull: "Pull") -> Hold:
    """Execute requests and close the connection without an answer."""
    return _arm(server, LossFault(path=wanted.path, next=wanted.next, effects=pull.effects))


def _storm(server: "ExchangeServer", wanted: Refusals, pull: "Pull") -> Hold:
    """Refuse requests unexecuted, with a return code or an HTTP status."""
    return _arm(
        server,
        StormFault(
            storm=Storm(http_status=wanted.status, ret_code=wanted.code),
            path=wanted.path,
            uid=wanted.uid,
            next=wanted.next,
            ts_until=_until(server, wanted.seconds),
            effects=pull.effects,
        ),
    )


def _skew_clock(server: "ExchangeServer", wanted: Skew, pull: "Pull") -> Hold:
    """Check the time of requests by a wrong clock: 10002."""
    server.faults.skew_ns = round(wanted.ms * MILLISECOND)
    pull.note(f"the clock of the venue is off by {wanted.ms:+g} ms")

    def release() -> None:
        server.faults.skew_ns = SKEW_NS

    return Hold(release)


def _late_entry(server: "ExchangeServer", wanted: Milliseconds, pull: "Pull") -> Hold:
    """Acknowledge orders at once, and let them reach the book later."""
    exchange = server.bybit.exchange
    before = exchange.entry_delay_ns
    exchange.entry_delay_ns = round(wanted.ms * MILLISECOND)
    pull.note(f"orders reach the book {wanted.ms:g} ms after they are acknowledged")

    def release() -> None:
        exchange.entry_delay_ns = before

    return Hold(release)


def _race_cancel(server: "ExchangeServer", _: Nothing, pull: "Pull") -> Hold:
    """Fill the next order that is cancelled: it ends twice, Filled and Filled by CancelByUser."""
    exchange = server.bybit.exchange
    exchange.race_next_cancel = True
    pull.note("the next cancel of a resting order comes too late")

    def release() -> None:
        exchange.race_next_cancel = False

    return Hold(release, lambda _: not exchange.race_next_cancel)


def _settle_funding(server: "ExchangeServer", wanted: Funding, pull: "Pull") -> None:
    """Settle funding now, with the rate of the running interval or a given one."""
    market = _market(server, wanted.symbol)
    rate = wanted.rate if wanted.rate is not None else market.pricing.predicted
    server.bybit.exchange.settle_funding(market.listing.id, server.now(), rate)
    pull.note(f"settled funding of {wanted.symbol} at {rate}")


def _shock_mark(server: "ExchangeServer", wanted: Shock, pull: "Pull") -> Hold:
    """Move a mark price away from the market, as far as liquidation."""
    pricing = _market(server, wanted.symbol).pricing
    pricing.shock = wanted.fraction
    pull.note(f"the mark of {wanted.symbol} is off by {wanted.fraction:+.2%}")

    def release() -> None:
        pricing.shock = 0.0

    return Hold(release)


def _deleverage(server: "ExchangeServer", wanted: Deleveraging, pull: "Pull") -> None:
    """Take a position, or part of it, off a winner (ADL)."""
    market, exchange = _market(server, wanted.symbol), server.bybit.exchange
    held = abs(exchange.accounts[wanted.uid].quantity(market.listing.id, wanted.position_idx))
    quantity = min(held, wanted.quantity) if wanted.quantity is not None else held
    if not quantity:
        raise Refused(110017, f"{wanted.uid} holds no {wanted.symbol} with positionIdx {wanted.position_idx}")
    exchange.deleverage(wanted.uid, market.listing.id, wanted.position_idx, quantity, server.now())
    pull.note(f"took {quantity:f} {wanted.symbol} off {wanted.uid}")


def _restrict(server: "ExchangeServer", wanted: Restriction, pull: "Pull") -> Hold:
    """Let a symbol be reduced only (110023), or settle (110063)."""
    market = _market(server, wanted.symbol, wanted.category)
    market.status = wanted.status
    pull.note(f"{wanted.symbol} {wanted.category} is {wanted.status}")

    def release() -> None:
        market.status = TRADING

    return Hold(release)


def _disconnect_window(server: "ExchangeServer", wanted: Window, pull: "Pull") -> Hold:
    """Set an account's window of disconnect-cancel, which the venue grants on request."""
    exchange = server.bybit.exchange
    exchange.set_window(wanted.uid, wanted.product, wanted.seconds, server.now())
    pull.note(f"{wanted.product} of {wanted.uid} is cancelled {wanted.seconds} s after its sockets are gone")
    return Hold(lambda: exchange.set_window(wanted.uid, wanted.product, 0, server.now()))


def _scale_limits(server: "ExchangeServer", wanted: Scale, pull: "Pull") -> Hold:
    """Multiply every rate limit."""
    server.limits.scale = wanted.scale
    pull.note(f"every limit is {wanted.scale:g} times its own")

    def release() -> None:
        server.limits.scale = 1.0

    return Hold(release)


# --- the table ------------------------------------------------------------------------------------


Action = Callable[["ExchangeServer", Any, Pull], Hold | Awaitable[None] | None]


class Lever(Struct, frozen=True):
    """One lever: what it does is said by its action. `exclusive` ones have one setting, which a second pull replaces."""

    name: str
    arguments: type[Arguments]
    action: Action
    exclusive: bool = False

    async def act(self, server: "ExchangeServer", wanted: Arguments, pull: Pull) -> Hold | None:
        done = self.action(server, wanted, pull)
        if isinstance(done, Awaitable):
            await done
            return None
        return done

    def holds(self, wanted: Arguments) -> str:
        """What a pull keeps for itself; empty when it gets in the way of no other."""
        where = [str(getattr(wanted, name, "")) for name in ("symbol", "category", "uid", "product")]
        return "/".join((self.name, *where)) if self.exclusive else ""

    def check(self, server: "ExchangeServer", wanted: Arguments) -> None:
        """See that what the arguments name is there.

        Raises:
            UnknownError: it is not.
        """
        if (symbol := getattr(wanted, "symbol", None)) is not None:
            _market(server, symbol, getattr(wanted, "category", "linear"))
        accounts = [uid for uid in server.bybit.exchange.accounts if uid != HOUSE]
        if (uid := getattr(wanted, "uid", None)) is not None and uid not in accounts:
            raise UnknownError("uid", f"{uid!r} is none of {', '.join(accounts)}")

    def shown(self) -> dict[str, Any]:
        fields = self.arguments.model_json_schema().get("properties", {})
        return {
            "lever": self.name,
            "does": (self.action.__doc__ or "").strip(),
            "arguments": {
                name: {key: value for key, value in about.items() if key != "title"} for name, about in fields.items()
            },
        }


LEVERS = {
    lever.name: lever
    for lever in (
        Lever("cut", Connections, _cut),
        Lever("stop-pongs", Nothing, _stop_pongs, exclusive=True),
        Lever("mute", Stream, _mute),
        Lever("drop", Pushes, _drop),
        Lever("repeat", Repeats, _repeat),
        Lever("delay", Delays, _delay),
        Lever("reorder", Pushes, _reorder),
        Lever("restart-books", Nothing, _restart_books),
        Lever("refuse-connections", Outage, _refuse_connections),
        Lever("slow-answers", Milliseconds, _slow_answers, exclusive=True),
        Lever("lose-answers", Losses, _lose_answers),
        Lever("storm", Refusals, _storm),
        Lever("skew-clock", Skew, _skew_clock, exclusive=True),
        Lever("late-entry", Milliseconds, _late_entry, exclusive=True),
        Lever("race-cancel", Nothing, _race_cancel, exclusive=True),
        Lever("settle-funding", Funding, _settle_funding),
        Lever("shock-mark", Shock, _shock_mark, exclusive=True),
        Lever("deleverage", Deleveraging, _deleverage),
        Lever("restrict", Restriction, _restrict, exclusive=True),
        Lever("disconnect-window", Window, _disconnect_window, exclusive=True),
        Lever("scale-limits", Scale, _scale_limits, exclusive=True),
    )
}


# --- small parts ----------------------------------------------------------------------------------


def _stream(
    server: "ExchangeServer", verb: Literal["drop", "repeat", "delay", "reorder"], wanted: Pushes, pull: "Pull"
) -> StreamFault:
    return StreamFault(
        verb=verb,
        topic=wanted.topic,
        kind=wanted.kind,
        part=wanted.part,
        every=wanted.every,
        next=wanted.next,
        chance=wanted.chance,
        ts_until=_until(server, wanted.seconds),
        effects=pull.effects,
    )


def _arm(server: "ExchangeServer", fault: StreamFault | StormFault | LossFault) -> Hold:
    server.faults.arm(fault)
    return Hold(lambda: server.faults.release(fault), fault.is_spent)


def _until(server: "ExchangeServer", seconds: float | None) -> int | None:
    return None if seconds is None else server.now() + round(seconds * SECOND)


def _market(server: "ExchangeServer", symbol: str, category: str = "linear") -> Market:
    markets = [one for one in server.bybit.exchange.markets.values() if one.listing.category == category]
    for market in markets:
        if market.listing.symbol == symbol:
            return market
    raise UnknownError(
        "symbol", f"{symbol!r} is none of {', '.join(one.listing.symbol for one in markets)} ({category})"
    )


def _is_local(address: str) -> bool:
    """Whether an address such as `http://127.0.0.1:8080` or `//localhost` names this machine."""
    try:
        host = urlsplit(address).hostname
        return host == "localhost" or (host is not None and ip_address(host).is_loopback)
    except ValueError:
        return False


def _no_such(request: web.Request) -> web.Response:
    return _error(404, f"there is no lever {request.match_info['lever']!r}: {', '.join(LEVERS)}")


def _words(message: str) -> str:
    return message.removeprefix("Value error, ")


def _error(status: int, text: str, **more: Any) -> web.Response:
    return web.json_response({"error": text, **more}, status=status)


_CLOSINGS = {True: "with a close frame", False: "without a close frame"}
