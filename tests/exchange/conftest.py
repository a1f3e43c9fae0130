"""A whole exchange behind its wire, in a thread of its own, and clients that sign by hand."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pkcs1_15

from actors.exchange.auth import ALL_RIGHTS, ApiKey
from actors.exchange.server import ExchangeServer, ServerOptions
from hean.exchange.bybit import Bybit
from hean.exchange.history import History
from hean.exchange.listing import listings
from hean.exchange.sources.source import Flow, Shown
from hean.messages import Side
from hean.units import HOUR, MINUTE, SECOND

PRICES = {"BTCUSDT": 60_000.0, "ETHUSDT": 3_000.0}
PAST_MINUTES = 26 * 60
FUNDS = {"USDT": Decimal(100_000), "BTC": Decimal(1), "ETH": Decimal(10)}

RSA_KEY = RSA.generate(2048)


def key(name: str, uid: str = "10000001", **more: Any) -> ApiKey:
    """A key that signs with a secret."""
    return ApiKey(key=f"{name}-key", secret=f"{name}-secret", uid=uid, **more)


ANN, BOB = key("ann"), key("bob", "10000002")
READER = key("reader", read_only=True)
FAR_AWAY = key("far", ips=("203.0.113.7",))
NO_SPOT = key("contract", rights={**ALL_RIGHTS, "Spot": ()})
ANN_RSA = ApiKey(key="ann-rsa", public_key=RSA_KEY.public_key().export_key().decode(), uid="10000001")
KEYS = (ANN, BOB, READER, FAR_AWAY, NO_SPOT, ANN_RSA)


class StillMarket:
    """A market that has a past, quotes around one price, trades a little at the beginning and then holds still."""

    name = "still market"
    synthetic = True
    ended = False

    def __init__(self, listed, ts_start):
        self.instruments = tuple(listed)
        self._listed = listed
        self._ts_start = ts_start
        self._told = False

    def history(self):
        return {name: self._past(listing) for name, listing in self._listed.items()}

    def _past(self, listing):
        first = (self._ts_start // MINUTE - PAST_MINUTES) * MINUTE
        price = PRICES[listing.symbol]
        opens = price * (1 + 0.001 * np.sin(np.arange(PAST_MINUTES + 1) / 60.0))
        opens[-1] = price
        opens = np.round(opens, listing.price_places)
        candle = np.column_stack(
            [opens[:-1], np.maximum(opens[:-1], opens[1:]), np.minimum(opens[:-1], opens[1:]), opens[1:]]
        )
        volume = np.full((PAST_MINUTES, 1), 2.5)
        premium = np.full((PAST_MINUTES, 4), 0.0002)
        settled = interest = ()
        if not listing.is_spot:
            hours = range(first // HOUR + 1, self._ts_start // HOUR + 1)
            settled = tuple((hour * HOUR, 1e-4 + hour % 7 * 1e-6) for hour in hours if hour % 8 == 0)
            interest = tuple(
                (ts, 30_000.0 + ts // MINUTE % 60) for ts in range(first + 4 * MINUTE, self._ts_start, 5 * MINUTE)
            )
            interest = tuple((ts // (5 * MINUTE) * 5 * MINUTE, held) for ts, held in interest)
        return History(
            ts_first=first,
            last=np.hstack([candle, volume, volume * candle[:, 3:4]]),
            mark=None if listing.is_spot else candle,
            index=candle,
            premium=None if listing.is_spot else premium,
            settled=settled,
            interest=interest,
        )

    def advance(self, now):
        if self._told:
            return
        self._told = True
        for name, listing in self._listed.items():
            price = PRICES[listing.symbol]
            middle = listing.ticks(Decimal(str(price)))
            size = listing.steps(Decimal(2))
            bids = tuple((middle - 10 * at, size) for at in range(1, 60))
            asks = tuple((middle + 10 * at, size) for at in range(1, 60))
            interest = None if listing.is_spot else 30_000.0
            yield Shown(name, now, True, bids, asks, index=price, interest=interest)
            for side in (Side.BUY, Side.SELL, Side.BUY):
                yield Flow(name, now, side, None, listing.steps(Decimal("0.05")))


class Venue:
    """A running exchange, seen from outside by HTTP and, where a test must, from inside its thread."""

    def __init__(
        self, *, symbols=("BTCUSDT", "ETHUSDT"), funding_minutes=None, keys=KEYS, more_keys=(), scale=math.inf
    ):
        now = time.time_ns()
        listed = listings(symbols, at=now, funding_minutes=funding_minutes)
        # It began a second ago: the market has been looked at, and there are marks.
        bybit = Bybit.open(listed, StillMarket(listed, now - SECOND), ts_start=now - SECOND, seed=7)
        bybit.advance(now)
        for uid in dict.fromkeys(key.uid for key in keys):
            bybit.exchange.open_account(uid, FUNDS, now)
        self.server = ExchangeServer(bybit, ServerOptions(keys=(*keys, *more_keys)))
        self.server.limits.scale = scale
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        self.port = self._wait(asyncio.run_coroutine_threadsafe(self.server.start(), self._loop))
        return self

    def __exit__(self, *_):
        self._wait(asyncio.run_coroutine_threadsafe(self._stop(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self):
        await self.server.stop()
        # Connections whose client is gone end with the loop.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    @staticmethod
    def _wait(future: Future) -> Any:
        return future.result(10)

    def do(self, action: Callable[[ExchangeServer], Any]) -> Any:
        """Do something inside, between two requests, and let it be told."""

        async def inside():
            done = action(self.server)
            self.server.settle()
            return done

        return self._wait(asyncio.run_coroutine_threadsafe(inside(), self._loop))

    def inside(self, action: Callable[[ExchangeServer], Awaitable[Any]]) -> Any:
        """The same with something that has to be awaited."""

        async def awaited():
            return await action(self.server)

        return self._wait(asyncio.run_coroutine_threadsafe(awaited(), self._loop))

    # --- by HTTP ----------------------------------------------------------------------------------

    def send(self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        """Send a request exactly so, and return its status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return SimpleNamespace(status=response.status, headers=response.headers, body=response.read())
        finally:
            connection.close()

    def get(self, path: str, key: ApiKey | None = ANN, **query):
        text = "&".join(f"{name}={value}" for name, value in sorted(query.items()) if value is not None)
        return self.raw_get(path, text, key)

    def raw_get(self, path: str, query: str, key: ApiKey | None = ANN, **more):
        headers = signed(key, query.encode(), **more) if key is not None else {}
        return answered(self.send("GET", f"{path}?{query}" if query else path, headers=headers))

    def post(self, path: str, key: ApiKey = ANN, **body):
        return self.raw_post(path, json.dumps(body).encode(), key)

    def raw_post(self, path: str, body: bytes, key: ApiKey = ANN, **more):
        headers = signed(key, body, **more) | {"Content-Type": "application/json"}
        return answered(self.send("POST", path, body, headers))

    def ok(self, path: str, key: ApiKey = ANN, **body):
        """Post what must succeed, and return its result."""
        answer = self.post(path, key, **body)
        assert answer["retCode"] == 0, answer
        return answer["result"]

    def read(self, path: str, key: ApiKey | None = ANN, **query):
        """Get what must succeed, and return its result."""
        answer = self.get(path, key, **query)
        assert answer["retCode"] == 0, answer
        return answer["result"]

    def order(self, side="Buy", qty="0.01", price=None, key=ANN, category="linear", symbol="BTCUSDT", **more):
        """Place an order that must be taken: limit where it has a price. Returns its id."""
        kind = {"orderType": "Market"} if price is None else {"orderType": "Limit", "price": price}
        return self.ok("/v5/order/create", key, category=category, symbol=symbol, side=side, qty=qty, **kind, **more)[
            "orderId"
        ]

    def found(self, order_id, category="linear", key=ANN):
        """An order as `order/realtime` shows it."""
        (order,) = self.read("/v5/order/realtime", key, category=category, orderId=order_id)["list"]
        return order


def answered(response) -> dict[str, Any]:
    """The envelope of a reply that must be HTTP 200, with its headers beside it."""
    assert response.status == 200, (response.status, response.body[:300])
    envelope = json.loads(response.body)
    assert set(envelope) == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    return envelope | {"headers": response.headers}


def signed(
    key: ApiKey, payload: bytes, *, at_ms: int | None = None, window: str | None = "5000", signature: str | None = None
) -> dict[str, str]:
    stamp = str(time.time_ns() // 1_000_000 if at_ms is None else at_ms)
    text = (stamp + key.key + (window or "")).encode() + payload
    headers = {"X-BAPI-API-KEY": key.key, "X-BAPI-TIMESTAMP": stamp, "X-BAPI-SIGN": signature or sign(key, text)}
    return headers | ({"X-BAPI-RECV-WINDOW": window} if window is not None else {})


def sign(key: ApiKey, text: bytes) -> str:
    if key.public_key:
        return base64.b64encode(pkcs1_15.new(RSA_KEY).sign(SHA256.new(text))).decode()
    return hmac.new(key.secret.encode(), text, hashlib.sha256).hexdigest()


@pytest.fixture
def server():
    """A running exchange of its own, its rate limits lifted."""
    with Venue() as venue:
        yield venue


@pytest.fixture(scope="module")
def shared():
    """One running exchange for all tests of a file: for those that leave nothing behind that another would notice."""
    with Venue() as venue:
        yield venue
