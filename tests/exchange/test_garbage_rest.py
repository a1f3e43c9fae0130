"""Garbage over REST: answered as the venue would or closed, never a stack trace, never a dead server."""

import contextlib
import json
import socket
import struct
import time
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.exchange.server import PUBLIC, SIGNED
from tests.exchange.conftest import ANN, Venue, signed

READS = sorted([*PUBLIC, *(path for method, path in SIGNED if method == "GET")])
WRITES = sorted(path for method, path in SIGNED if method == "POST")
NAMES = [
    "category",
    "symbol",
    "side",
    "orderType",
    "qty",
    "price",
    "timeInForce",
    "orderLinkId",
    "orderId",
    "positionIdx",
    "reduceOnly",
    "closeOnTrigger",
    "triggerPrice",
    "triggerDirection",
    "triggerBy",
    "takeProfit",
    "stopLoss",
    "tpTriggerBy",
    "slTriggerBy",
    "tpslMode",
    "tpLimitPrice",
    "slLimitPrice",
    "tpOrderType",
    "slOrderType",
    "smpType",
    "isLeverage",
    "marketUnit",
    "orderFilter",
    "slippageToleranceType",
    "slippageTolerance",
    "bboSideType",
    "bboLevel",
    "request",
    "limit",
    "cursor",
    "startTime",
    "endTime",
    "start",
    "end",
    "interval",
    "intervalTime",
    "openOnly",
    "settleCoin",
    "baseCoin",
    "coin",
    "accountType",
    "currency",
    "type",
    "execType",
    "orderStatus",
    "stopOrderType",
    "mode",
    "buyLeverage",
    "sellLeverage",
    "trailingStop",
    "activePrice",
    "tpSize",
    "slSize",
    "timeWindow",
    "product",
    "setMarginMode",
    "margin",
    "status",
]
WORDS = [
    "linear",
    "spot",
    "inverse",
    "option",
    "BTCUSDT",
    "ETHUSDT",
    "btcusdt",
    "Buy",
    "Sell",
    "Limit",
    "Market",
    "GTC",
    "IOC",
    "FOK",
    "PostOnly",
    "RPI",
    "LastPrice",
    "MarkPrice",
    "IndexPrice",
    "Full",
    "Partial",
    "CancelMaker",
    "CancelTaker",
    "CancelBoth",
    "baseCoin",
    "quoteCoin",
    "Order",
    "StopOrder",
    "tpslOrder",
    "TickSize",
    "Percent",
    "Queue",
    "Counterparty",
    "USDT",
    "BTC",
    "UNIFIED",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "0.01",
    "60000",
    "59500",
    "60500",
    "61000",
    "59000",
    "1e-5",
    "1E400",
    "NaN",
    "inf",
    "Infinity",
    "true",
    "false",
    "page%3A3",
    "page%3A-1",
    "before%3A0",
    "5min",
    "1h",
    "D",
    "W",
    "M",
    "60",
    "1000",
    "DERIVATIVES",
    "REGULAR_MARGIN",
    "999999999999999",
    "0.000000000000000001",
    "1700000000000",
    "9999999999999999",
]

texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.text("0123456789.-+eE_ ", max_size=24))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-5, 100_000), st.floats(allow_nan=True), texts, texts, texts
)
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(texts, scalars, max_size=2))
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=6))
bodies = st.dictionaries(names, values, max_size=12)
prices = st.sampled_from(["59500", "60000", "60001", "60500.5", "3000", "2990", "0.1", "999999999999999", "0"])
plausible = st.fixed_dictionaries(
    {
        "category": st.sampled_from(["linear", "linear", "spot"]),
        "symbol": st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        "side": st.sampled_from(["Buy", "Sell"]),
        "orderType": st.sampled_from(["Limit", "Market"]),
        "qty": st.sampled_from(["0", "0.001", "0.01", "0.1", "5", "600", "100000", "0.0000001"]),
        "price": prices,
    },
    optional={
        "timeInForce": st.sampled_from(["GTC", "IOC", "FOK", "PostOnly"]),
        "triggerPrice": prices,
        "triggerDirection": st.sampled_from([1, 2, "1"]),
        "triggerBy": st.sampled_from(["LastPrice", "MarkPrice", "IndexPrice"]),
        "reduceOnly": st.booleans(),
        "closeOnTrigger": st.booleans(),
        "positionIdx": st.sampled_from([0, 0, 1, "2"]),
        "takeProfit": prices,
        "stopLoss": prices,
        "tpLimitPrice": prices,
        "tpOrderType": st.sampled_from(["Limit", "Market"]),
        "tpslMode": st.sampled_from(["Full", "Partial"]),
        "smpType": st.sampled_from(["None", "CancelMaker", "CancelTaker", "CancelBoth"]),
        "marketUnit": st.sampled_from(["baseCoin", "quoteCoin"]),
        "orderFilter": st.sampled_from(["Order", "tpslOrder", "StopOrder"]),
        "bboSideType": st.sampled_from(["Queue", "Counterparty"]),
        "bboLevel": st.sampled_from(["1", "5"]),
        "orderLinkId": st.sampled_from([f"link-{number}" for number in range(40)]),
        # What amends, sets exits, leverage and modes takes these.
        "trailingStop": prices,
        "activePrice": prices,
        "tpSize": st.sampled_from(["0.01", "1"]),
        "slSize": st.sampled_from(["0.01", "1"]),
        "buyLeverage": st.just("20"),
        "sellLeverage": st.just("20"),
        "mode": st.sampled_from([0, 3]),
        "timeWindow": st.just(10),
    },
)
orders = st.builds(lambda order, spoilt: order | spoilt, plausible, st.dictionaries(names, values, max_size=2))
few = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def check(venue, response):
    """Whatever was sent, this is an answer of the venue's, and no bug was found."""
    assert response.status in {200, 400, 403, 404}, (response.status, response.body)
    if response.status == 400:
        return  # what is not HTTP is not answered in JSON
    envelope = json.loads(response.body)
    assert envelope.keys() == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    assert type(envelope["retCode"]) is int
    assert isinstance(envelope["retMsg"], str)
    assert isinstance(envelope["result"], dict)
    assert isinstance(envelope["retExtInfo"], dict)
    assert envelope["retCode"] != 10016, envelope
    assert b"Traceback" not in response.body


def post(venue, path, body):
    return venue.send("POST", path, body, signed(ANN, body) | {"Content-Type": "application/json"})


def answers(wire):
    try:
        wire.sendall(b"GET /v5/market/time HTTP/1.1\r\nHost: x\r\n\r\n")
        return wire.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def reachable(venue):
    with socket.create_connection(("127.0.0.1", venue.port), timeout=5) as wire:
        return answers(wire)


class TestBodies:
    @few
    @given(path=st.sampled_from(WRITES), body=bodies)
    def test_any_object(self, shared, path, body):
        check(shared, post(shared, path, json.dumps(body).encode()))

    @few
    @given(path=st.sampled_from(WRITES), order=orders)
    def test_what_is_nearly_an_order(self, shared, path, order):
        check(shared, post(shared, path, json.dumps(order).encode()))

    @few
    @given(
        path=st.sampled_from([path for path in WRITES if "batch" in path]),
        requests=st.lists(st.one_of(orders, values), max_size=12),
    )
    def test_what_is_nearly_a_batch(self, shared, path, requests):
        check(shared, post(shared, path, json.dumps({"category": "linear", "request": requests}).encode()))

    @few
    @given(path=st.sampled_from(WRITES), body=st.binary(max_size=200))
    def test_any_bytes(self, shared, path, body):
        check(shared, post(shared, path, body))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"null",
            b"[]",
            b'"text"',
            b"{",
            b'{"category": "linear"',
            b'{"category": NaN}',
            b'{"category": "\xff\xfe"}',
            b'{"symbol": "\\ud800"}',
            b"[" * 100_000,
            b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
            b'{"qty": ' + b"9" * 100_000 + b"}",
            b'{"qty": 1e999999999}',
            b'\xef\xbb\xbf{"category": "linear"}',
            b"{} {}",
            b"{'category': 'linear'}",
        ],
        ids=lambda body: body[:24].decode("latin-1"),
    )
    def test_what_is_no_json_object_is_a_parameter_error(self, shared, body):
        response = post(shared, "/v5/order/create", body)

        check(shared, response)
        assert json.loads(response.body)["retCode"] == 10001


class TestQueries:
    @few
    @given(path=st.sampled_from(READS), query=st.dictionaries(names, texts, max_size=10))
    def test_any_parameters(self, shared, path, query):
        from urllib.parse import urlencode

        text = urlencode(query, errors="surrogatepass")
        check(shared, shared.send("GET", f"{path}?{text}", headers=signed(ANN, text.encode())))

    @few
    @given(
        path=st.sampled_from(READS), query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=80)
    )
    def test_any_printable_query(self, shared, path, query):
        query = query.replace("#", "")
        check(shared, shared.send("GET", f"{path}?{query}", headers=signed(ANN, query.encode())))

    @pytest.mark.parametrize("interval", ["1", "720", "D", "W", "M"])
    @pytest.mark.parametrize("path", [path for path in READS if "kline" in path])
    def test_any_span_of_candles(self, shared, path, interval):
        times = (None, 0, 1, 10**12, 253_402_300_800_000, 10**18 - 1)
        for start, end in product(times, repeat=2):
            span = "".join(f"&{name}={at}" for name, at in (("start", start), ("end", end)) if at is not None)
            query = f"category=linear&symbol=BTCUSDT&interval={interval}{span}"
            check(shared, shared.send("GET", f"{path}?{query}"))

    @pytest.mark.parametrize("path", [path for path in READS if "kline" not in path])
    def test_any_span_of_a_history(self, shared, path):
        for start, end in product((None, 0, 10**12, 253_402_300_800_000, 10**18 - 1), repeat=2):
            span = "".join(f"&{name}={at}" for name, at in (("startTime", start), ("endTime", end)) if at is not None)
            query = f"category=linear&symbol=BTCUSDT&intervalTime=1h{span}"
            check(shared, shared.send("GET", f"{path}?{query}", headers=signed(ANN, query.encode())))

    @few
    @given(headers=st.dictionaries(
        st.sampled_from(["X-BAPI-API-KEY", "X-BAPI-TIMESTAMP", "X-BAPI-SIGN", "X-BAPI-RECV-WINDOW"]),
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, blacklist_categories=["Cc"]), max_size=40),
    ))  # fmt: skip
    def test_any_headers(self, shared, headers):
        check(shared, shared.send("GET", "/v5/account/info", headers=headers))


UPGRADE = (
    b"GET /v5/public/linear HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class TestTheWire:
    @pytest.mark.parametrize(
        "raw",
        [
            b"\x00\x01\x02\x03\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET /v5/market/time HTTP/9.9\r\n\r\n",
            b"G\xc3\x89T /v5/market/time HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v5/market/time HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
            b"GET /v5/market/time HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST /v5/order/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /v5/market/tickers?category=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET " + b"/a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v5/market/time HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 100_000 + b"\r\n\r\n",
            b"GET http://elsewhere/v5/market/time HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
            b"GET //v5//market//time HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v5/../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /v5/%00/%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
        ids=lambda raw: raw[:30].decode("latin-1"),
    )
    def test_what_is_hardly_http_does_not_end_the_server(self, shared, caplog, raw):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as wire:
            wire.sendall(raw)
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while got := wire.recv(65536):
                    answer += got
            except ConnectionResetError:
                pass

        assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
        assert b"Traceback" not in answer
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []
        assert shared.get("/v5/market/time", None)["retCode"] == 0

    @pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
    def test_a_huge_body_is_refused_before_it_is_read(self, shared, chunked):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as wire:
            head = b"POST /v5/order/create HTTP/1.1\r\nHost: x\r\n"
            if chunked:
                wire.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
                piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
                for _ in range(17):
                    wire.sendall(piece)
            else:
                wire.sendall(head + b"Content-Length: 50000000\r\n\r\n")
            answer = wire.recv(65536)

        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"200" in head.split(b"\r\n")[0]
        assert b"connection: close" in head.lower()
        assert json.loads(body)["retCode"] == 10001

    @pytest.mark.parametrize(
        "sent",
        [
            b"POST /v5/order/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            b"GET /v5/market/time HTTP/1.1\r\nHost: x\r\n\r\n",
            UPGRADE,
        ],
        ids=["in its body", "before the answer", "in the handshake of a socket"],
    )
    def test_a_client_that_hangs_up_half_way_is_let_go(self, shared, caplog, sent):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", shared.port), timeout=5) as wire:
                # Reset, not closed: what is on its way to it fails.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                wire.sendall(sent)

        assert shared.get("/v5/market/time", None)["retCode"] == 0
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []

    def test_a_body_that_is_not_packed_as_it_says_is_refused(self, shared, caplog):
        headers = signed(ANN, b"abcd") | {"Content-Encoding": "gzip"}

        response = shared.send("POST", "/v5/order/create", b"abcd", headers)

        assert response.status == 200
        assert json.loads(response.body)["retCode"] == 10001
        assert [record.getMessage() for record in caplog.records if record.exc_info] == []

    def test_more_connections_than_there_are_files_are_turned_away(self, monkeypatch):
        """A process without files would take nobody any more, and say so a thousand times a second."""
        monkeypatch.setattr("resource.getrlimit", lambda _: (128, 128))
        with Venue() as venue, contextlib.ExitStack() as left:
            wires = [
                left.enter_context(socket.create_connection(("127.0.0.1", venue.port), timeout=5)) for _ in range(100)
            ]
            refused = [wire for wire in wires if not answers(wire)]

            # Those of one moment are counted only after it.
            assert 4 <= len(refused) <= 36
            for wire in wires[:50]:
                wire.close()
            deadline = time.monotonic() + 5
            while not reachable(venue):
                assert time.monotonic() < deadline

    def test_the_books_still_balance_after_all_this(self, shared):
        """Every contract bought was sold, whatever was sent before."""

        def open_interest(inside):
            exchange = inside.exchange
            return {
                name: sum(
                    holding.quantity
                    for account in exchange.accounts.values()
                    for holding in account.holdings.get(name, {}).values()
                )
                for name, market in exchange.markets.items()
                if not market.listing.is_spot
            }

        assert set(shared.do(open_interest).values()) == {0}
