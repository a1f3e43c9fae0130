"""Every lever, pulled over HTTP, and what a client sees of it: on sockets and by REST, never inside the server."""

import hashlib
import hmac
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import websocket
from aiohttp.test_utils import make_mocked_request

from actors.exchange import drills
from actors.exchange.drills import LeverError, Remote
from actors.exchange.levers import LEVERS
from tests.exchange.stage import BUY, PERP, TIMEOUT_S, limit, staged

TOKEN = "let-me-break-it"  # noqa: S105 (of an exchange that lives as long as a test)
BOOK = "orderbook.50.BTCUSDT"


@pytest.fixture
def venue():
    with running() as one:
        yield one


@contextmanager
def running(token=TOKEN):
    """A staged exchange with levers, reached the way a client in another process would reach it."""
    with staged(token=token) as stage:
        url = f"http://127.0.0.1:{stage.port}"
        stage.url, stage.levers = url, Remote(url, token).levers
        yield stage


# --- a client -------------------------------------------------------------------------------------


class Rest:
    """Signed requests of an account, each on a connection of its own."""

    def __init__(self, venue, uid="1"):
        self.port, self.uid = venue.port, uid

    def ask(self, method, path, at_ms=None, **fields):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        stamp = str(int(time.time() * 1000) if at_ms is None else at_ms)
        payload = json.dumps(fields) if method == "POST" else "&".join(f"{k}={v}" for k, v in sorted(fields.items()))
        text = f"{stamp}key-{self.uid}5000{payload}"
        headers = {
            "X-BAPI-API-KEY": f"key-{self.uid}",
            "X-BAPI-TIMESTAMP": stamp,
            "X-BAPI-RECV-WINDOW": "5000",
            "X-BAPI-SIGN": hmac.new(f"secret-{self.uid}".encode(), text.encode(), hashlib.sha256).hexdigest(),
            "Content-Type": "application/json",
        }
        try:
            if method == "POST":
                connection.request(method, path, payload, headers)
            else:
                connection.request(method, f"{path}?{payload}" if payload else path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        told = json.loads(body) if answer.status == 200 else {}
        return SimpleNamespace(status=answer.status, headers=answer.headers, code=told.get("retCode"), **told)

    def get(self, path, **query):
        return self.ask("GET", path, **query)

    def order(self, side="Buy", qty="0.010", price=None, category="linear", **more):
        kind = {"orderType": "Market"} if price is None else {"orderType": "Limit", "price": price}
        fields = {"category": category, "symbol": "BTCUSDT", "side": side, "qty": qty}
        return self.ask("POST", "/v5/order/create", **fields, **kind, **more)

    def found(self, **which):
        (order,) = self.get("/v5/order/realtime", category="linear", **which).result["list"]
        return order

    def position(self):
        return self.get("/v5/position/list", category="linear", symbol="BTCUSDT").result["list"][0]

    def executions(self):
        return self.get("/v5/execution/list", category="linear").result["list"]


def eventually(find, seconds=TIMEOUT_S):
    """What `find` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)  # well below the limits of the venue
    return found


def admin(venue, method="GET", path="/admin", body=None, **headers):
    """A raw request to the levers: (status, answer)."""
    connection = http.client.HTTPConnection("127.0.0.1", venue.port, timeout=TIMEOUT_S)
    told = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {name: value for name, value in told.items() if value is not None})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text)


def subscribed(client, *topics):
    assert client.ask({"op": "subscribe", "args": topics})["success"]


@contextmanager
def watching(venue, topic=BOOK):
    """A public socket with a topic, its first snapshot heard."""
    with venue.client("public/linear") as client:
        subscribed(client, topic)
        assert client.topic(topic)["type"] == "snapshot"
        yield client


def moves(venue, count):
    """Let the book change so many times, each in a push of its own."""
    for number in range(count):
        venue.source.show(PERP, bids=[(venue.source.middle(PERP) - 5, 2_000 + venue.counted + number)])
        time.sleep(0.06)
    venue.counted += count


@pytest.fixture(autouse=True)
def _counted(request):
    if "venue" in request.fixturenames:
        request.getfixturevalue("venue").counted = 0


def updates(messages):
    return [one["data"]["u"] for one in messages if one.get("topic") == BOOK]


# --- who may pull ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({"Authorization": None}, 401, "Authorization: Bearer"),
        ({"Authorization": "Bearer something-else"}, 401, "Authorization: Bearer"),
        ({"Authorization": f"Basic {TOKEN}"}, 401, "Authorization: Bearer"),
        ({"Origin": "https://evil.example"}, 403, "Origin"),
        ({"Origin": "null"}, 403, "Origin"),
        ({"Host": "evil.example"}, 403, "Host"),
        ({"Host": "127.0.0.1.evil.example:80"}, 403, "Host"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_strangers_are_refused(shared, method, headers, status, said):
    path = "/admin/skew-clock" if method == "POST" else "/admin"

    told = admin(shared, method, path, '{"ms": 9999}' if method == "POST" else None, **headers)

    assert told[0] == status
    assert said in told[1]["error"]
    assert Rest(shared).get("/v5/account/info").code == 0


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": "http://localhost:3000"}, {"Host": "localhost:1"}, {"Host": "[::1]:1"}]
)
def test_this_machine_is_let_in(shared, headers):
    assert admin(shared, **headers)[0] == 200


def test_a_peer_elsewhere_is_refused(shared):
    """As behind a forwarded port: no test can come from there, so the handler is asked itself."""
    levers = shared.server.levers
    for peer, let_in in (("203.0.113.7", False), ("192.168.1.5", False), ("127.0.0.1", True), ("::1", True)):
        transport = SimpleNamespace(get_extra_info=lambda _, at=peer: (at, 5000))
        headers = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}"}
        request = make_mocked_request("GET", "/admin", headers, transport=transport)
        assert (levers._stranger(request) is None) is let_in


def test_without_a_token_there_are_no_levers():
    with staged() as stage:
        assert admin(stage)[0] == 404
        assert admin(stage, "POST", "/admin/skew-clock", '{"ms": 9999}')[0] == 404
        assert Rest(stage).get("/v5/account/info").code == 0


@pytest.fixture(scope="module")
def shared():
    """For what leaves nothing behind."""
    with running() as one:
        yield one


# --- what they are told ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lever", "body", "status", "said"),
    [
        ("slow-answers", "{}", 422, "ms: Field required"),
        ("slow-answers", '{"ms": -1}', 422, "ms: Input should be greater than 0"),
        ("slow-answers", '{"ms": NaN}', 422, "ms: Input should be a finite number"),
        ("slow-answers", '{"ms": 5, "minutes": 1}', 422, "minutes: Extra inputs are not permitted"),
        ("drop", '{"every": 0}', 422, "every: Input should be greater than or equal to 1"),
        ("drop", '{"part": "half"}', 422, "part: Input should be 'snapshot', 'delta' or 'message'"),
        ("storm", "{}", 422, "arguments: give either code or status"),
        ("storm", '{"code": 10006, "status": 502}', 422, "arguments: give either code or status"),
        ("storm", '{"status": 200}', 422, "status: Input should be greater than or equal to 400"),
        ("lose-answers", '{"path": "/admin"}', 422, "path: String should match pattern"),
        ("shock-mark", '{"symbol": "NOSUCH", "fraction": 0.1}', 422, "symbol: 'NOSUCH' is none of BTCUSDT, ETHUSDT"),
        ("cut", '{"uid": "77"}', 422, "uid: '77' is none of 1, 2"),
        ("restrict", '{"symbol": "BTCUSDT", "status": "Closed"}', 422, "status: Input should be 'ReduceOnly'"),
        ("deleverage", '{"uid": "1", "symbol": "BTCUSDT"}', 409, "1 holds no BTCUSDT"),
        ("cut", "[1]", 400, "the body must be a JSON object"),
        ("cut", "{", 400, "the body is no JSON"),
        ("cut", b"\xff\xfe\xfd", 400, "the body is no JSON"),
        ("cut", "[" * 100_000, 400, "the body is no JSON"),
        ("settle-funding", '{"symbol": "BTCUSDT", "rate": "1e-99999"}', 422, "rate: Decimal input should have no more"),
        ("no-such", "{}", 404, "there is no lever 'no-such': cut, stop-pongs"),
    ],
)
def test_an_argument_that_is_wrong_is_named(shared, lever, body, status, said):
    told = admin(shared, "POST", f"/admin/{lever}", body)

    assert told[0] == status
    assert said in told[1]["error"]
    assert shared.levers.show()["armed"] == []


def test_all_levers_are_shown_with_what_they_do(shared):
    shown = {one["lever"]: one for one in shared.levers.show()["levers"]}

    assert set(shown) == set(LEVERS)
    assert all(one["does"].endswith((".", "10002.")) for one in shown.values())
    assert shown["storm"]["arguments"]["code"]["description"] == "a return code such as 10006 or 10016"
    assert shown["stop-pongs"]["arguments"] == {}


def test_what_is_armed_is_shown_until_it_is_released(venue):
    first = venue.levers.pull("slow-answers", ms=5)
    venue.levers.pull("drop", topic="tickers.*")
    assert [one["lever"] for one in venue.levers.show()["armed"]] == ["slow-answers", "drop"]

    venue.levers.release(first)
    assert [one["lever"] for one in venue.levers.show()["armed"]] == ["drop"]

    assert admin(venue, "POST", "/admin/drop", '{"off": true}')[0] == 200
    assert venue.levers.show()["armed"] == []

    venue.levers.pull("mute", topic="order")
    venue.levers.pull("stop-pongs")
    venue.levers.release_all()
    assert venue.levers.show()["armed"] == []


def test_a_second_setting_replaces_the_first(venue):
    first = venue.levers.pull("skew-clock", ms=60_000)
    venue.levers.pull("skew-clock", ms=90_000)
    (armed,) = venue.levers.show()["armed"]
    assert armed["arguments"] == {"ms": 90_000.0}

    venue.levers.release(first)

    assert Rest(venue).get("/v5/account/info").code == 10002


def test_the_log_says_when_what_and_to_what_effect(venue):
    with drills.storm(venue, code=10016, path="/v5/market/", next=5):
        for _ in range(2):
            Rest(venue).get("/v5/market/time")
    with pytest.raises(LeverError, match="ms: Field required"):
        venue.levers.pull("slow-answers")

    (entry,) = venue.levers.log()

    assert entry["lever"] == "storm"
    assert entry["arguments"] == {"code": 10016, "path": "/v5/market/", "next": 5}
    assert entry["effects"] == ["refused 2 requests of /v5/market/time with 10016"]
    assert entry["at"] < entry["released"]


# --- sockets --------------------------------------------------------------------------------------


def test_cut_with_a_close_frame_and_without(venue):
    for close_frame, code in ((True, 1001), (False, None)):
        with (
            watching(venue) as public,
            venue.private("order") as private,
            venue.trader() as trader,
            drills.cut_sockets(venue, close_frame=close_frame) as pull,
        ):
            assert [one.is_cut() for one in (public, private, trader)] == [True] * 3
            assert [one.close_code for one in (public, private, trader)] == [code] * 3
            how = "with a close frame" if close_frame else "without a close frame"
            assert sorted(pull.effects) == [f"cut 1 {kind} socket {how}" for kind in ("private", "public", "trade")]


def test_cut_only_those_that_are_meant(venue):
    with (
        watching(venue) as public,
        venue.private("order", uid="1") as ann,
        venue.private("order", uid="2") as bob,
    ):
        with drills.cut_sockets(venue, kind="private", uid="2"):
            assert bob.is_cut()
        assert ann.ask({"op": "ping"})["op"] == "pong"
        with drills.cut_sockets(venue, kind="public"):
            assert public.is_cut()
        assert ann.ask({"op": "ping"})["op"] == "pong"


def test_cut_so_many(venue):
    with watching(venue) as one, watching(venue) as other:
        with drills.cut_sockets(venue, most=1) as pull:
            assert pull.effects == ["cut 1 public socket with a close frame"]
        assert [one.is_cut(0.5), other.is_cut(0.5)].count(True) == 1


def test_stop_pongs(venue):
    def pong(client):
        client.socket.ping("are you there")
        client.socket.settimeout(0.3)
        try:
            return client.socket.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            return None

    with venue.client("public/linear") as client:
        assert pong(client) == (websocket.ABNF.OPCODE_PONG, b"are you there")
        with drills.stop_pongs(venue):
            assert pong(client) is None
        assert pong(client) == (websocket.ABNF.OPCODE_PONG, b"are you there")


def test_mute_one_topic(venue):
    with watching(venue) as client:
        subscribed(client, "publicTrade.BTCUSDT")
        with drills.mute(venue, "orderbook.*") as pull:
            moves(venue, 3)
            venue.source.take(PERP, BUY, 5)
            assert client.topic("publicTrade.BTCUSDT")
            assert updates(client.heard) == [client.heard[1]["data"]["u"]]
            assert pull.effects[0].startswith("dropped ")
        client.heard.clear()
        moves(venue, 1)
        assert client.topic(BOOK)["type"] == "delta"


def hear_update(client, u):
    client.until(lambda message: message.get("topic") == BOOK and message["data"]["u"] == u)


def test_drop_deltas_leaves_a_gap_in_u(venue):
    with watching(venue) as client:
        before = client.heard[-1]["data"]["u"]
        with drills.drop(venue, BOOK, part="delta", next=3) as pull:
            moves(venue, 5)
            hear_update(client, before + 5)
            assert pull.effects == [f"dropped 3 deltas of {BOOK}"]
        assert updates(client.heard)[1:] == [before + 4, before + 5]


def test_repeat_deltas(venue):
    with watching(venue) as client:
        before = client.heard[-1]["data"]["u"]
        with drills.repeat(venue, BOOK, times=2, next=1) as pull:
            moves(venue, 2)
            hear_update(client, before + 2)
            assert pull.effects == [f"repeated 1 delta of {BOOK}"]
        assert updates(client.heard)[1:] == [before + 1] * 3 + [before + 2]


def test_delay_deltas(venue):
    with watching(venue) as client, drills.delay(venue, BOOK, ms=400, next=1) as pull:
        moved = time.monotonic()
        moves(venue, 1)
        client.topic(BOOK)
        assert time.monotonic() - moved >= 0.4
        assert pull.effects == [f"delayed 1 delta of {BOOK}"]


def test_reorder_deltas(venue):
    with watching(venue) as client:
        before = client.heard[-1]["data"]["u"]
        with drills.reorder(venue, BOOK, next=1) as pull:
            moves(venue, 3)
            hear_update(client, before + 3)
            assert pull.effects == [f"reordered 1 delta of {BOOK}"]
        assert updates(client.heard)[1:] == [before + 2, before + 1, before + 3]


def test_lose_private_messages_of_a_topic(venue):
    with venue.private("order", "execution", "wallet") as client:
        with drills.drop(venue, "execution", kind="private") as pull:
            assert Rest(venue).order().code == 0
            client.topic("wallet")
            topics = {one["topic"] for one in client.heard + client.gather(0.3) if "topic" in one}
            assert "order" in topics
            assert "execution" not in topics
            assert pull.effects == ["dropped 1 message of execution"]
        assert Rest(venue).order().code == 0
        assert client.topic("execution")["data"]


def test_repeat_private_messages(venue):
    with venue.private("execution") as client:
        with drills.repeat(venue, "execution", kind="private"):
            assert Rest(venue).order().code == 0
            told = [client.topic("execution")["data"][0]["execId"] for _ in range(2)]
        assert client.gather(0.2) == []
        assert len(set(told)) == 1


def test_reorder_private_messages(venue):
    with venue.private("order") as client, drills.reorder(venue, "order", kind="private", next=1):
        first = Rest(venue).order(price="50000").result["orderId"]
        second = Rest(venue).order(price="50000").result["orderId"]
        assert [client.topic("order")["data"][0]["orderId"] for _ in range(2)] == [second, first]


def test_delay_private_messages(venue):
    with venue.private("order") as client, drills.delay(venue, "order", kind="private", ms=400):
        placed = time.monotonic()
        Rest(venue).order(price="50000")
        client.topic("order")
        assert time.monotonic() - placed >= 0.4


def test_the_books_begin_anew_with_u_1(venue):
    with watching(venue) as client:
        moves(venue, 2)
        client.gather(0.2)
        client.heard.clear()
        with drills.restart_books(venue):
            again = client.topic(BOOK)
        assert (again["type"], again["data"]["u"], len(again["data"]["b"])) == ("snapshot", 1, 50)
        moves(venue, 1)
        assert client.topic(BOOK)["data"]["u"] == 2


# --- connections and answers ----------------------------------------------------------------------


def test_refuse_connections(venue):
    with watching(venue) as client:
        with drills.refuse_connections(venue, 0.5) as _:
            with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", venue.port), TIMEOUT_S):
                pass
            # Those that are connected stay.
            moves(venue, 1)
            assert client.topic(BOOK)
        assert Rest(venue).get("/v5/market/time").code == 0
    assert venue.levers.log()[0]["effects"] == ["closed the port for 0.5 s"]


def test_an_outage_ends_what_is_connected_too(venue):
    with watching(venue) as client, drills.refuse_connections(venue, 0.5, cut=True):
        assert client.is_cut()
        assert client.close_code is None
        with pytest.raises(ConnectionRefusedError):
            websocket.create_connection(f"ws://127.0.0.1:{venue.port}/v5/public/linear", timeout=TIMEOUT_S)
    with watching(venue):
        pass


def test_slow_answers(venue):
    with drills.slow_answers(venue, 1500):
        asked = time.monotonic()
        assert Rest(venue).get("/v5/market/time").code == 0
        assert time.monotonic() - asked >= 1.5
    asked = time.monotonic()
    Rest(venue).get("/v5/market/time")
    assert time.monotonic() - asked < 1.5


def test_an_order_whose_answer_is_lost_was_executed(venue):
    client = Rest(venue)
    with drills.lose_answers(venue, next=1) as pull:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            client.order(price="50000", orderLinkId="lost")
        assert pull.effects == ["lost 1 answer of /v5/order/create"]
        assert client.found(orderLinkId="lost")["orderStatus"] == "New"
        assert client.order(price="50000", orderLinkId="lost").code == 110072
        assert client.order(price="50000", orderLinkId="next").code == 0


@pytest.mark.parametrize("code", [10006, 10016])
def test_a_storm_of_return_codes(venue, code):
    client = Rest(venue)
    with drills.storm(venue, code=code, path="/v5/order/", next=2) as pull:
        answers = [client.order(price="50000", orderLinkId=f"n{number}") for number in range(3)]
        assert [(one.status, one.code) for one in answers] == [(200, code), (200, code), (200, 0)]
        assert pull.effects == [f"refused 2 requests of /v5/order/create with {code}"]
    if code == 10006:
        # pybit sleeps until then, and dies of a time that has passed.
        assert int(answers[0].headers["X-Bapi-Limit-Reset-Timestamp"]) > answers[0].time
        assert answers[0].headers["X-Bapi-Limit-Status"] == "0"
    assert client.get("/v5/order/realtime", category="linear", orderLinkId="n0").result["list"] == []


@pytest.mark.parametrize("status", [403, 429, 502])
def test_a_storm_of_statuses_lasts_its_seconds(venue, status):
    client = Rest(venue)
    with drills.storm(venue, status=status, path="/v5/market/", seconds=0.4):
        assert client.get("/v5/market/time").status == status
        assert client.get("/v5/account/info").code == 0
        assert eventually(lambda: client.get("/v5/market/time").code == 0)


def test_a_storm_over_one_account(venue):
    with drills.storm(venue, code=10016, uid="2"):
        assert Rest(venue, "1").get("/v5/account/info").code == 0
        assert Rest(venue, "2").get("/v5/account/info").code == 10016
    assert Rest(venue, "2").get("/v5/account/info").code == 0


def test_a_storm_reaches_the_trade_socket(venue):
    with venue.trader() as trader, drills.storm(venue, code=10016, path="/v5/order/create", next=1):
        assert trader.ask(limit(price="50000"))["retCode"] == 10016
        assert trader.ask(limit(price="50000"))["retCode"] == 0


def test_a_skewed_clock(venue):
    client = Rest(venue)
    for ms in (60_000, -60_000):
        with drills.skew_clock(venue, ms):
            assert client.get("/v5/account/info").code == 10002
            assert client.ask("GET", "/v5/account/info", at_ms=int(time.time() * 1000) + ms).code == 0
    assert client.get("/v5/account/info").code == 0


def test_limits_are_scaled(venue):
    client = Rest(venue)
    with drills.scale_limits(venue, 0.2):
        codes = [client.order(price="50000").code for _ in range(4)]
        assert codes == [0, 0, 10006, 10006]
    with drills.scale_limits(venue, 100):
        assert [client.order(price="50000").code for _ in range(30)] == [0] * 30


# --- orders and the market ------------------------------------------------------------------------


def test_an_acknowledged_order_fills_late(venue):
    client = Rest(venue)
    with drills.late_entry(venue, 1500):
        placed = time.monotonic()
        order_id = client.order().result["orderId"]
        assert time.monotonic() - placed < 1.5
        assert client.found(orderId=order_id)["orderStatus"] == "New"
        assert client.executions() == []
        eventually(lambda: client.found(orderId=order_id)["orderStatus"] == "Filled")
        assert time.monotonic() - placed >= 1.5
        (fill,) = client.executions()
        assert fill["execQty"] == "0.010"
    order_id = client.order().result["orderId"]
    assert client.found(orderId=order_id)["orderStatus"] == "Filled"


def test_a_cancel_that_a_fill_outruns_ends_the_order_twice(venue):
    client = Rest(venue)
    with venue.private("order", "execution") as private:
        order_id = client.order(price="59000").result["orderId"]
        private.topic("order")
        with drills.race_cancel(venue):
            client.ask("POST", "/v5/order/cancel", category="linear", symbol="BTCUSDT", orderId=order_id)
            told = [
                (one["orderStatus"], one["cancelType"], one["rejectReason"], one["leavesQty"])
                for message in private.gather(0.4, least=1)
                if message.get("topic") == "order"
                for one in message["data"]
            ]
            assert venue.levers.show()["armed"] == []
        assert told == [
            ("Filled", "UNKNOWN", "EC_NoError", "0"),
            ("Filled", "CancelByUser", "EC_OrigClOrdIDDoesNotExist", "0"),
        ]
    (fill,) = client.executions()
    assert (fill["orderId"], fill["execPrice"]) == (order_id, "59000.00")
    assert client.position()["size"] == "0.010"


def test_funding_is_settled_now(venue):
    client = Rest(venue)
    client.order(qty="0.100")
    with venue.private("wallet") as private, drills.settle_funding(venue, "BTCUSDT", rate="0.001") as pull:
        assert private.topic("wallet")
        assert pull.effects == ["settled funding of BTCUSDT at 0.001"]
    fill, *_ = client.executions()
    position = client.position()
    assert (fill["execType"], fill["feeRate"]) == ("Funding", "0.001")
    assert float(fill["execFee"]) == pytest.approx(0.1 * float(position["markPrice"]) * 0.001, rel=1e-3)
    row, *_ = client.get("/v5/account/transaction-log", type="SETTLEMENT").result["list"]
    assert float(row["funding"]) == -float(fill["execFee"])


def test_a_shock_of_the_mark_liquidates_and_passes(venue):
    client = Rest(venue)
    client.ask(
        "POST", "/v5/position/set-leverage", category="linear", symbol="BTCUSDT", buyLeverage="100", sellLeverage="100"
    )
    assert client.order(qty="20").code == 0
    resting = client.order(price="59500", qty="0.010").result["orderId"]
    quiet = float(client.position()["markPrice"])
    with drills.shock_mark(venue, "BTCUSDT", -0.9) as pull:
        eventually(lambda: client.position()["size"] == "0")
        marks = float(venue.rest("/v5/market/tickers?category=linear&symbol=BTCUSDT")["list"][0]["markPrice"])
        assert marks == pytest.approx(quiet * 0.1, rel=1e-3)
        assert pull.effects == ["the mark of BTCUSDT is off by -90.00%"]
    kinds = {one["execType"] for one in client.executions()}
    assert "BustTrade" in kinds
    assert client.found(orderId=resting)["cancelType"] == "CancelAllBeforeLiq"
    eventually(
        lambda: (
            float(venue.rest("/v5/market/tickers?category=linear&symbol=BTCUSDT")["list"][0]["markPrice"])
            == pytest.approx(quiet, rel=1e-3)
        )
    )


def test_a_position_is_deleveraged(venue):
    client = Rest(venue)
    client.order(qty="0.100", side="Sell")
    with drills.deleverage(venue, "1", "BTCUSDT", quantity="0.04") as pull:
        assert pull.effects == ["took 0.04 BTCUSDT off 1"]
    assert client.position()["size"] == "0.060"
    fill, *_ = client.executions()
    assert (fill["execType"], fill["createType"], fill["side"], fill["execQty"]) == (
        "AdlTrade",
        "CreateByAdl_PassThrough",
        "Buy",
        "0.040",
    )
    with drills.deleverage(venue, "1", "BTCUSDT"):
        assert client.position()["size"] == "0"


@pytest.mark.parametrize(("status", "opens", "reduces"), [("ReduceOnly", 110023, 0), ("Settling", 110063, 110063)])
def test_a_symbol_is_restricted(venue, status, opens, reduces):
    client = Rest(venue)
    client.order()
    with drills.restrict(venue, "BTCUSDT", status):
        assert client.order().code == opens
        assert client.order(side="Sell", qty="0.001", reduceOnly=True).code == reduces
        assert client.order(category="spot", price="50000").code == 0
    assert client.order().code == 0


def test_the_disconnect_window(venue):
    client = Rest(venue)
    order_id = client.order(price="50000").result["orderId"]
    with drills.disconnect_window(venue, "1", 3):
        (window,) = client.get("/v5/account/query-dcp-info").result["dcpInfos"]
        assert (window["product"], window["timeWindow"]) == ("DERIVATIVES", "3")
        with venue.private("dcp.future", "order") as private, drills.cut_sockets(venue, kind="private"):
            assert private.is_cut()
        lost = time.monotonic()
        eventually(lambda: client.found(orderId=order_id)["orderStatus"] == "Cancelled", seconds=8)
        assert time.monotonic() - lost > 2.5
        assert client.found(orderId=order_id)["cancelType"] == "CancelByDCP"
    assert client.get("/v5/account/query-dcp-info").result["dcpInfos"] == []


def test_a_lever_is_released_though_the_block_raised(venue):
    with pytest.raises(ZeroDivisionError), drills.skew_clock(venue, 60_000):
        raise ZeroDivisionError
    assert Rest(venue).get("/v5/account/info").code == 0


def test_every_lever_has_a_drill():
    """The drill of a lever bears its name, but for those whose name would not say enough by itself."""
    names = {"cut": "cut_sockets"}
    for lever in LEVERS:
        assert callable(getattr(drills, names.get(lever, lever.replace("-", "_"))))


# --- a whole exchange in a thread -----------------------------------------------------------------


def test_an_exchange_is_served_while_the_block_runs():
    with drills.serving() as exchange:
        assert {one["symbol"] for one in asked_of(exchange, "tickers?category=linear")["list"]} == {
            "BTCUSDT",
            "ETHUSDT",
        }
        with drills.storm(exchange, status=502), pytest.raises(urllib.error.HTTPError, match="502"):
            asked_of(exchange, "time")
        made = websocket.create_connection(f"{exchange.ws_url}/v5/public/linear", timeout=TIMEOUT_S)
        made.close(timeout=0)
    with pytest.raises(urllib.error.URLError):
        asked_of(exchange, "time")


def asked_of(exchange, path):
    with urllib.request.urlopen(f"{exchange.url}/v5/market/{path}", timeout=TIMEOUT_S) as answer:  # noqa: S310
        return json.load(answer)["result"]


def test_a_port_that_is_taken_is_said():
    with (
        drills.serving() as exchange,
        pytest.raises(OSError, match="in use"),
        drills.serving(port=exchange.server.port),
    ):
        pass
