"""The exchange on loopback with a market that does what the test says, and plain WebSocket clients."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import threading
import time
import urllib.request
from collections import deque
from contextlib import contextmanager
from decimal import Decimal

import numpy as np
import websocket

from actors.exchange.auth import ApiKey
from actors.exchange.server import ExchangeServer, ServerOptions
from hean.exchange.bybit import Bybit
from hean.exchange.history import History
from hean.exchange.listing import listings
from hean.exchange.sources.source import Flow, Shown
from hean.messages import Side
from hean.units import MINUTE, SECOND

PERP, SPOT, ETH_PERP = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"
PRICES = {"BTCUSDT": 60_000, "ETHUSDT": 2_000}
LEVELS = 1_100
TIMEOUT_S = 5


class Prompted:
    """A market that stands still until it is told to move. Levels are in ticks and steps."""

    name = "prompted"
    synthetic = True
    ended = False

    def __init__(self, listed, ts_start):
        self._listed = listed
        self._ts_start = ts_start
        self._moves = deque()
        self.instruments = tuple(listed)
        for instrument in self.instruments:
            middle = self.middle(instrument)
            self.show(
                instrument,
                bids=[(middle - 1 - away, 1_000 + away) for away in range(LEVELS)],
                asks=[(middle + 1 + away, 1_000 + away) for away in range(LEVELS)],
                index=float(PRICES[listed[instrument].symbol]),
                interest=1_000.0,
            )

    def middle(self, instrument):
        return self._listed[instrument].ticks(Decimal(PRICES[self._listed[instrument].symbol]))

    def history(self):
        first = (self._ts_start // MINUTE - 120) * MINUTE
        histories = {}
        for instrument, listing in self._listed.items():
            price = float(PRICES[listing.symbol])
            prices = np.full((120, 4), price)
            last = np.column_stack([prices, np.full(120, 2.0), np.full(120, 2 * price)])
            past = {} if listing.is_spot else {"mark": prices, "index": prices, "premium": np.zeros((120, 4))}
            histories[instrument] = History(ts_first=first, last=last, **past)
        return histories

    def show(self, instrument, *, bids=(), asks=(), index=None, interest=None):
        self._moves.append(lambda ts: Shown(instrument, ts, False, tuple(bids), tuple(asks), index, interest))

    def take(self, instrument, side, steps):
        self._moves.append(lambda ts: Flow(instrument, ts, side, None, steps))

    def advance(self, now):
        while self._moves:
            yield self._moves.popleft()(now)


class Stage:
    """An exchange that runs in a thread of its own; `do` lets something happen on it between two of its steps."""

    def __init__(self, **options):
        self.now = time.time_ns()
        listed = listings(["BTCUSDT", "ETHUSDT"], at=self.now)
        self.source = Prompted(listed, self.now)
        self.bybit = Bybit.open(listed, self.source, ts_start=self.now, seed=1)
        keys = [ApiKey(key=f"key-{uid}", secret=f"secret-{uid}", uid=uid) for uid in ("1", "2")]
        for key in keys:
            balances = {"USDT": Decimal(100_000), "BTC": Decimal(5), "ETH": Decimal(50)}
            self.bybit.exchange.open_account(key.uid, balances, self.now)
        self.server = ExchangeServer(self.bybit, ServerOptions(port=0, keys=tuple(keys), **options))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def hub(self):
        return self.server.hub

    @property
    def exchange(self):
        return self.bybit.exchange

    def start(self):
        self._thread.start()
        self.port = self._await(self.server.start())

    def stop(self):
        self._await(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()

    def _await(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S * 2)

    def do(self, function):
        async def run():
            return function()

        return self._await(run())

    def rest(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=TIMEOUT_S) as answer:
            return json.load(answer)["result"]

    @contextmanager
    def client(self, path, **options):
        address = f"ws://127.0.0.1:{self.port}/v5/{path}"
        socket = websocket.create_connection(address, timeout=TIMEOUT_S, **options)
        try:
            yield Client(socket)
        finally:
            with contextlib.suppress(OSError, websocket.WebSocketException):
                socket.close(timeout=1)
            socket.shutdown()

    @contextmanager
    def private(self, *topics, uid="1"):
        with self.client("private") as client:
            assert client.ask(login(uid))["success"]
            if topics:
                assert client.ask({"op": "subscribe", "args": topics})["success"]
            yield client

    @contextmanager
    def trader(self, uid="1"):
        with self.client("trade") as client:
            assert client.ask(login(uid))["retCode"] == 0
            yield client


@contextmanager
def staged(**options):
    stage = Stage(**options)
    stage.start()
    try:
        yield stage
    finally:
        stage.stop()


class Client:
    """A socket as a client sees it: everything that came, in order."""

    def __init__(self, socket):
        self.socket = socket
        self.heard = []

    def send(self, request):
        self.socket.send(request if isinstance(request, (str, bytes)) else json.dumps(request))

    def hear(self, seconds=TIMEOUT_S):
        """The next message; None when none comes in time."""
        self.socket.settimeout(seconds)
        try:
            message = json.loads(self.socket.recv())
        except websocket.WebSocketTimeoutException:
            return None
        self.heard.append(message)
        return message

    def ask(self, request):
        """Send a request, and return the next message that is no push."""
        self.send(request)
        return self.until(lambda message: "topic" not in message)

    def until(self, wanted, seconds=TIMEOUT_S):
        """The next message that is wanted; what comes before it is in `heard`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.hear(left)
            if message is not None and wanted(message):
                return message
        raise AssertionError(f"not heard within {seconds} s; last were {str(self.heard[-3:])[:1000]}")

    def topic(self, topic, seconds=TIMEOUT_S):
        return self.until(lambda message: message.get("topic") == topic, seconds)

    def gather(self, seconds, *, least=0):
        """All that comes within some time, which begins once there are as many as must come."""
        gathered = [self.hear() for _ in range(least)]
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self.hear(left)
            if message is not None:
                gathered.append(message)
        return gathered

    def is_cut(self, seconds=TIMEOUT_S):
        """Whether the connection ends in time; what still came is in `heard`. `close_code` is None without a close frame."""
        deadline = time.monotonic() + seconds
        self.close_code = None
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                opcode, data = self.socket.recv_data()
            except websocket.WebSocketTimeoutException:
                return False
            except (OSError, websocket.WebSocketException):
                return True
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                self.close_code = int.from_bytes(data[:2], "big")
                return True
            self.heard.append(json.loads(data))
        return False


def login(uid="1", *, expires=None, secret=None):
    """A request to authenticate; `expires` is in ms, of whatever type it is given in."""
    stamp = int(time.time() * 1000) + 5_000 if expires is None else expires
    made = hmac.new((secret or f"secret-{uid}").encode(), f"GET/realtime{stamp}".encode(), hashlib.sha256)
    return {"op": "auth", "args": [f"key-{uid}", stamp, made.hexdigest()]}


def order(op="order.create", *, req_id=None, header=None, **fields):
    """A request on the trade socket."""
    stamp = {"X-BAPI-TIMESTAMP": str(int(time.time() * 1000))} if header is None else header
    told = {"header": stamp, "op": op, "args": [{"category": "linear", "symbol": "BTCUSDT", **fields}]}
    return told if req_id is None else {"reqId": req_id} | told


def limit(side="Buy", price="59000", qty="0.010", **fields):
    return order(side=side, orderType="Limit", qty=qty, price=price, **fields)


def market(side="Buy", qty="0.010", **fields):
    return order(side=side, orderType="Market", qty=qty, **fields)


BUY, SELL = Side.BUY, Side.SELL
__all__ = ["SECOND"]
