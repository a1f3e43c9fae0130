"""The exchange on loopback: one port for REST, all sockets and, with a token, the levers.

REST is two tables, path to handler: what everybody may ask, and what is signed. Everything runs in one event loop: a
request is handled whole before anything else happens, and what it set going is saved and told before it is answered. So
nothing may take long: what the machine slept through is lived through a second at a time.
"""

import asyncio
import logging
import resource
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct

from actors.exchange import limits, rest_account, rest_market, rest_trade
from actors.exchange.auth import ApiKey, Keys
from actors.exchange.clock import Clock
from actors.exchange.faults import Faults, Storm
from actors.exchange.keeper import Keeper
from actors.exchange.levers import Levers
from actors.exchange.limits import Limits, LimitState
from actors.exchange.operations import OPERATIONS, TOO_OFTEN, Answer, Operation
from actors.exchange.parse import Directory, Fields, read_json, read_query
from actors.exchange.rest_market import DERIVATIVES, Public
from actors.exchange.sockets import Hub
from hean.errors import ConfigError
from hean.exchange.bybit import Bybit
from hean.exchange.exchange import Exchange
from hean.exchange.refusals import Refused, invalid
from hean.units import MILLISECOND, SECOND

log = logging.getLogger(__name__)

PUBLIC: dict[str, Public] = {
    "/v5/market/time": rest_market.time,
    "/v5/market/instruments-info": rest_market.instruments,
    "/v5/market/kline": rest_market.candles("last"),
    "/v5/market/mark-price-kline": rest_market.candles("mark", DERIVATIVES),
    "/v5/market/index-price-kline": rest_market.candles("index", DERIVATIVES),
    "/v5/market/premium-index-price-kline": rest_market.candles("premium", ("linear",)),
    "/v5/market/tickers": rest_market.tickers,
    "/v5/market/orderbook": rest_market.order_book,
    "/v5/market/recent-trade": rest_market.trades,
    "/v5/market/funding/history": rest_market.funding_history,
    "/v5/market/open-interest": rest_market.open_interest,
    "/v5/market/risk-limit": rest_market.risk_limits,
    "/v5/market/price-limit": rest_market.price_limit,
}

SIGNED: dict[tuple[str, str], Operation] = {
    ("POST", "/v5/order/create"): OPERATIONS["order.create"],
    ("POST", "/v5/order/amend"): OPERATIONS["order.amend"],
    ("POST", "/v5/order/cancel"): OPERATIONS["order.cancel"],
    ("POST", "/v5/order/create-batch"): OPERATIONS["order.create-batch"],
    ("POST", "/v5/order/amend-batch"): OPERATIONS["order.amend-batch"],
    ("POST", "/v5/order/cancel-batch"): OPERATIONS["order.cancel-batch"],
    ("POST", "/v5/order/cancel-all"): Operation(rest_trade.cancel_all, limits.CANCEL_ALL, writes=True),
    ("POST", "/v5/order/pre-check"): Operation(rest_trade.pre_check, limits.PRE_CHECK, writes=True),
    ("POST", "/v5/order/disconnected-cancel-all"): Operation(
        rest_trade.disconnect_window, limits.DISCONNECT, writes=True
    ),
    ("GET", "/v5/order/realtime"): Operation(rest_trade.open_orders, limits.OPEN_ORDERS),
    ("GET", "/v5/order/history"): Operation(rest_trade.order_history, limits.ORDER_HISTORY),
    ("GET", "/v5/order/spot-borrow-check"): Operation(rest_trade.borrow_check, limits.BORROW_CHECK),
    ("GET", "/v5/execution/list"): Operation(rest_trade.executions, limits.EXECUTIONS),
    ("GET", "/v5/position/list"): Operation(rest_trade.positions, limits.POSITIONS),
    ("GET", "/v5/position/closed-pnl"): Operation(rest_trade.closed_profits, limits.CLOSED_PNL),
    ("POST", "/v5/position/set-leverage"): Operation(rest_trade.set_leverage, limits.LEVERAGE, writes=True),
    ("POST", "/v5/position/switch-mode"): Operation(rest_trade.switch_mode, limits.MODE, writes=True),
    ("POST", "/v5/position/trading-stop"): Operation(rest_trade.trading_stop, limits.TRADING_STOP, writes=True),
    ("POST", "/v5/position/add-margin"): Operation(rest_trade.add_margin, limits.ADD_MARGIN, writes=True),
    ("POST", "/v5/position/set-auto-add-margin"): Operation(
        rest_trade.auto_add_margin, limits.AUTO_MARGIN, writes=True
    ),
    ("POST", "/v5/position/switch-isolated"): Operation(rest_trade.switch_isolated, limits.ISOLATED, writes=True),
    ("GET", "/v5/account/wallet-balance"): Operation(rest_account.wallet_balance, limits.WALLET),
    ("GET", "/v5/account/info"): Operation(rest_account.info, limits.ACCOUNT),
    ("GET", "/v5/account/fee-rate"): Operation(rest_account.fee_rate, limits.FEES),
    ("GET", "/v5/account/transaction-log"): Operation(rest_account.transaction_log, limits.LOG),
    ("GET", "/v5/account/collateral-info"): Operation(rest_account.collateral, limits.COLLATERAL),
    ("GET", "/v5/account/smp-group"): Operation(rest_account.smp_group, limits.SMP),
    ("GET", "/v5/account/query-dcp-info"): Operation(rest_account.disconnect_windows, limits.DCP),
    ("POST", "/v5/account/set-margin-mode"): Operation(rest_account.set_margin_mode, limits.MARGIN_MODE, writes=True),
    ("GET", "/v5/user/query-api"): Operation(rest_account.api_key, limits.API_KEY),
    ("GET", "/v5/asset/coin/query-info"): Operation(rest_account.coins, limits.COINS),
}

_MOST_BYTES = 1024 * 1024
_SLICE = SECOND
"""Of time that the market lives through at once. It is some 10 ms of work: more would hold everybody up."""
_BREATH_S = 0.001
"""Left to everybody else between two slices, other threads included."""
_FILES, _FILES_KEPT = 10_240, 32
"""Files, and so connections, that are enough for everybody; those kept for the rest of the process."""
_STORMS = {TOO_OFTEN.code: TOO_OFTEN.text, 10016: "Server error.", 10429: "System level frequency protection"}


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Where the exchange listens and to whom. Port 0 takes any that is free; without a token there are no levers."""

    host: str = "127.0.0.1"
    port: int = 0
    step_ms: int = 20
    keys: tuple[ApiKey, ...] = ()
    token: str = ""


class ExchangeServer:
    """A Bybit behind its wire.

    Args:
        bybit: The exchange and its market; every key's account is open in it.
        options: Where it listens, and to whom.
        keeper: Where it is kept, if anywhere.

    Raises:
        ConfigError: a key is of no use, or of an account that there is not.
    """

    def __init__(self, bybit: Bybit, options: ServerOptions, keeper: Keeper | None = None) -> None:
        self.bybit = bybit
        self.options = options
        self.keeper = keeper
        self.port = options.port
        self.clock = Clock()
        self._now = 0
        self.ts_started = self.now()
        self.faults = Faults(self.now)
        self.auth = Keys(options.keys, lambda: self.clock() + self.faults.skew_ns)
        for key in options.keys:
            if key.uid not in bybit.exchange.accounts:
                raise ConfigError(f"API key {key.key!r} is of account {key.uid}, which has not been opened")
        self.limits = Limits()
        self.directory = Directory(bybit.exchange.markets.values())
        self.hub = Hub(self)
        self.levers = Levers(self, options.token) if options.token else None
        self._order_ids: dict[str, list[str]] = {}
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None

    @property
    def exchange(self) -> Exchange:
        return self.bybit.exchange

    def now(self) -> int:
        """The time of the venue, nanoseconds: it never goes back, nor far ahead of what the market has lived through."""
        self._now = max(self._now, min(self.clock(), self.bybit.ts + _SLICE))
        return self._now

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> int:
        """Listen, and let the market run. Returns the port."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.add_routes(self.hub.routes())
        if self.levers is not None:
            app.add_routes(self.levers.routes())
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=0.5, logger=_http_log()
        )
        await self._runner.setup()
        await self._listen()
        self._loop = asyncio.create_task(self._run())
        return self.port

    async def stop(self) -> None:
        """Close the port and every connection; what has happened is saved."""
        tasks = [task for task in (self._reopening, self._loop) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
        self.hub.cut(close_frame=True)
        if self._runner is not None:
            await self._runner.cleanup()
        self.settle()

    async def ended(self) -> None:
        """Wait until the market stops: it does so only when it fails, and then this raises why."""
        if self._loop is not None:
            await asyncio.shield(self._loop)

    async def refuse_connections(self, seconds: float) -> None:
        """Close the port for some seconds: new connections are refused, those there are stay."""
        if self._listener is not None:
            self._listener.close()
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = asyncio.create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    async def _listen(self) -> None:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("the exchange has not been started")
        serve = self._runner.server
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if files == resource.RLIM_INFINITY:
            files = _FILES
        backlog = min(1024, files // 4)
        # So many are taken at once before they can be counted; a process without files would hear nobody any more.
        most = max(1, files - backlog - _FILES_KEPT)

        def taken() -> asyncio.BaseProtocol:
            return serve() if len(serve.connections) < most else _TurnedAway()

        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            taken, self.options.host, self.port, reuse_address=True, backlog=backlog
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _run(self) -> None:
        """Let time pass in the market, and tell what comes of it."""
        loop = asyncio.get_running_loop()
        step = self.options.step_ms / 1000
        due = loop.time()
        while True:
            now = self.now()
            self.bybit.advance(now)
            self.settle()
            if self.keeper is not None and self.keeper.failure is not None:
                raise self.keeper.failure
            self.hub.on_step(now)
            is_behind = self.clock() - now > _SLICE
            due = loop.time() + _BREATH_S if is_behind else max(due + step, loop.time())
            await asyncio.sleep(due - loop.time())

    def settle(self) -> None:
        """Save and tell what has happened since this was last called."""
        events = self.exchange.drain()
        if events:
            if self.keeper is not None:
                self.keeper.save(self.exchange, events)
            self.hub.publish(events)

    def order_ids(self, uid: str) -> list[str]:
        """The ids of all orders of an account, the oldest first: a list, so that its end is reached at once."""
        known, orders = self._order_ids.setdefault(uid, []), self.exchange.records[uid].orders
        newer = islice(reversed(orders), len(orders) - len(known))
        known.extend(reversed(list(newer)))
        return known

    # --- REST -------------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        now = self.now()
        if not self.limits.admits(request.remote or "", now):
            return self._response(Answer.refused(Refused(10018, "access too frequent")), status=403)
        storm = self.faults.refuses(path, self.auth.uid_of(request.headers.get("X-BAPI-API-KEY", "")))
        if storm is not None:
            return self._stormy(storm, now)
        asks_public = request.method == "GET" and path in PUBLIC
        if not asks_public and (request.method, path) not in SIGNED:
            return self._response(Answer.refused(Refused(10017, "Route not found.")), status=404)
        try:
            body = await _body(request)
        except Refused as refusal:
            response = self._response(Answer.refused(refusal))
            response.force_close()
            return response
        if request.method == "GET" and body.strip() == b"{}":
            # Bybit's front refuses a GET with an empty JSON body (v5, *Error Codes*).
            return self._response(Answer.refused(Refused(403, "Forbidden")), status=403)
        response = self._response(self._answer(request, path, query, body))
        if self.faults.answer_delay_s:
            await asyncio.sleep(self.faults.answer_delay_s)
        if self.faults.loses(path) and request.transport is not None:
            request.transport.abort()
        return response

    def _answer(self, request: web.Request, path: str, query: str, body: bytes) -> Answer:
        try:
            if path in PUBLIC:
                return Answer(PUBLIC[path](self, Fields(read_query(query)), self.now()))
            return self._signed(request, path, query, body)
        except Refused as refusal:
            return Answer.refused(refusal)
        except Exception:
            # A bug that one request has found must not end the venue for everybody else.
            log.exception("%s %s failed", request.method, path)
            return Answer.refused(Refused(10016, "Server error."))

    def _signed(self, request: web.Request, path: str, query: str, body: bytes) -> Answer:
        reads = request.method == "GET"
        payload = query.encode("utf-8", "surrogateescape") if reads else body
        key = self.auth.verify(request.headers, payload)
        if not key.comes_from(request.remote):
            raise Refused(10010, "Unmatched IP, please check your API key's bound IP addresses.")
        asked = read_query(query) if reads else read_json(body)
        return SIGNED[request.method, path](self, key.uid, key, asked)

    def _stormy(self, storm: Storm, now: int) -> web.Response:
        """A drill's refusal. Where it speaks of the rate, the time to wait for is still to come."""
        if storm.http_status is not None:
            return web.Response(status=storm.http_status, text="")
        code = storm.ret_code or 10016
        limit = LimitState(10, 0, now // MILLISECOND + 100) if code == TOO_OFTEN.code else None
        return self._response(Answer.refused(Refused(code, _STORMS.get(code, "")), limit))

    def _response(self, answer: Answer, status: int = 200) -> web.Response:
        envelope: Mapping[str, Any] = {
            "retCode": answer.ret_code,
            "retMsg": answer.ret_msg,
            "result": answer.result,
            "retExtInfo": answer.ret_ext_info,
            "time": self.now() // MILLISECOND,
        }
        headers = answer.limit.headers if answer.limit is not None else None
        return web.Response(
            body=msgspec.json.encode(envelope), status=status, content_type="application/json", headers=headers
        )


def allow_files() -> None:
    """Let this process take as many connections as the venue does: each is a file, and a shell allows few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _TurnedAway(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _http_log() -> logging.Logger:
    """The log of the HTTP server, without what clients do to their own connections: hang up, or send what is no HTTP."""
    told = logging.getLogger(f"{__name__}.http")
    told.addFilter(_is_ours)
    return told


def _is_ours(record: logging.LogRecord) -> bool:
    failure = record.exc_info[1] if record.exc_info else None
    return not isinstance(failure, ConnectionError | web.RequestPayloadError | HttpProcessingError)


async def _body(request: web.Request) -> bytes:
    """The body as it came, never more of it than the venue takes.

    Raises:
        Refused: it is too long, or not packed as it says.
    """
    too_long = invalid(f"the body is longer than {_MOST_BYTES} bytes")
    if request.content_length is not None and request.content_length > _MOST_BYTES:
        raise too_long
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise too_long from error
    except web.RequestPayloadError as error:
        raise invalid("the body cannot be read") from error
