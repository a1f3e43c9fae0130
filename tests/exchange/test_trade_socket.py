"""The trade socket: orders with the checks, codes and limits of REST, answered in order under the ids they were given."""

import time

import pytest

from actors.exchange.faults import LossFault, Storm, StormFault, StreamFault
from tests.exchange.stage import limit, login, market, order, staged

ANOTHER = "another secret"


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


@pytest.fixture
def own_venue():
    with staged() as stage:
        yield stage


def now_ms():
    return int(time.time() * 1000)


def test_an_order_is_answered_with_its_ids_limits_and_times(own_venue):
    with own_venue.trader() as trader:
        sent = time.monotonic()
        told = trader.ask(limit(req_id="intent-1", orderLinkId="link-1"))
        waited = time.monotonic() - sent

    assert waited >= 0.020
    assert set(told) == {"reqId", "retCode", "retMsg", "op", "data", "retExtInfo", "header", "connId"}
    assert (told["reqId"], told["retCode"], told["retMsg"], told["op"]) == ("intent-1", 0, "OK", "order.create")
    assert set(told["data"]) == {"orderId", "orderLinkId"}
    assert told["data"]["orderLinkId"] == "link-1"
    assert told["retExtInfo"] == {}
    header = told["header"]
    assert set(header) == {
        "Traceid",
        "Timenow",
        "X-Bapi-Limit",
        "X-Bapi-Limit-Status",
        "X-Bapi-Limit-Reset-Timestamp",
    }
    assert all(type(value) is str for value in header.values())
    assert (header["X-Bapi-Limit"], header["X-Bapi-Limit-Status"]) == ("10", "9")


def test_an_order_can_be_made_amended_and_cancelled(venue):
    with venue.trader() as trader:
        made = trader.ask(limit())["data"]
        amended = trader.ask(order("order.amend", orderId=made["orderId"], qty="0.020"))
        cancelled = trader.ask(order("order.cancel", orderId=made["orderId"]))
        again = trader.ask(order("order.cancel", orderId=made["orderId"]))

    assert amended["data"] == cancelled["data"] == made
    assert (amended["op"], cancelled["op"]) == ("order.amend", "order.cancel")
    assert (again["retCode"], again["data"]) == (110001, {})


def test_a_batch_is_answered_order_by_order(venue):
    wanted = {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01"}
    batch = {"category": "linear", "request": [wanted | {"price": "59000"}, wanted | {"price": "59000.05"}]}
    with venue.trader() as trader:
        told = trader.ask(order("order.create-batch") | {"args": [batch]})

    assert told["retCode"] == 0
    assert [bool(one["orderId"]) for one in told["data"]["list"]] == [True, False]
    assert [one["code"] for one in told["retExtInfo"]["list"]] == [0, 10001]


def test_answers_come_in_the_order_of_the_requests(venue):
    with venue.trader() as trader:
        for number in range(100):
            trader.send(market(req_id=str(number), qty="0.001") if number % 2 else {"op": "ping"})
        told = [trader.hear() for _ in range(100)]

    assert [one.get("reqId", one["op"]) for one in told] == [
        str(number) if number % 2 else "pong" for number in range(100)
    ]


def test_a_ping_is_answered_with_the_time(venue):
    with venue.client("trade") as client:
        told = client.ask({"op": "ping"})

    assert set(told) == {"retCode", "retMsg", "op", "data", "connId"}
    assert (told["retCode"], told["retMsg"], told["op"]) == (0, "OK", "pong")
    assert abs(int(told["data"][0]) - now_ms()) < 5_000


# --- refusals -------------------------------------------------------------------------------------


def test_a_proof_is_asked_for_and_taken_once(venue):
    with venue.client("trade") as client:
        early = client.ask(limit())
        proven = client.ask(login() | {"reqId": "a"})
        repeated = client.ask(login())
        late = client.ask(limit())

    assert early["retCode"] == 10005
    assert proven == {"reqId": "a", "retCode": 0, "retMsg": "OK", "op": "auth", "connId": early["connId"]}
    assert repeated["retCode"] == 20001
    assert late["retCode"] == 0


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        (login(secret=ANOTHER), 10004),
        (login("nobody"), 10003),
        (login(expires=now_ms() - 1), 10004),
        (login() | {"args": []}, 10001),
    ],
)
def test_a_failed_proof_is_told_and_the_socket_cut(venue, auth, code):
    with venue.client("trade") as client:
        refusal = client.ask(auth)

        assert (refusal["retCode"], refusal["op"]) == (code, "auth")
        assert client.is_cut()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (lambda: order("order.destroy"), 10404),
        (lambda: order(category="inverse"), 10404),
        (lambda: order(category=None), 10404),
        (lambda: order() | {"args": []}, 10001),
        (lambda: order() | {"args": [{}, {}]}, 10001),
        (lambda: order() | {"args": ["order"]}, 10001),
        (lambda: order() | {"args": {"category": "linear"}}, 10001),
        (lambda: limit(header={}), 10001),
        (lambda: limit(header={"X-BAPI-TIMESTAMP": str(now_ms() - 60_000)}), 10002),
        (lambda: limit(header={"X-BAPI-TIMESTAMP": str(now_ms() + 600_000)}), 10002),
        (lambda: limit(header={"X-BAPI-TIMESTAMP": "soon"}), 10001),
        (lambda: limit(header={"X-BAPI-TIMESTAMP": [1]}), 10001),
        (lambda: limit(req_id="x" * 37), 10001),
        (lambda: limit(qty="0.0001"), 10001),
        (lambda: limit(qty=1e-3), 0),
        (lambda: limit(qty="1e-3"), 10001),
        (lambda: limit(price="90000"), 110003),
        (lambda: market(side="Sideways"), 10001),
        (lambda: {"op": "order.create"}, 10001),
    ],
)
def test_what_is_wrong_is_refused_and_the_socket_stays(venue, request_, code):
    with venue.trader() as trader:
        assert trader.ask(request_())["retCode"] == code
        assert trader.ask(limit())["retCode"] == 0


def test_a_window_of_the_request_counts_and_times_may_be_numbers(venue):
    old = now_ms() - 20_000
    with venue.trader() as trader:
        assert trader.ask(limit(header={"X-BAPI-TIMESTAMP": old}))["retCode"] == 10002
        assert trader.ask(limit(header={"X-BAPI-TIMESTAMP": old, "X-BAPI-RECV-WINDOW": 30_000}))["retCode"] == 0


def test_a_request_id_counts_once_on_a_socket(venue):
    with venue.trader() as trader, venue.trader() as other:
        assert trader.ask(limit(req_id="once"))["retCode"] == 0
        assert trader.ask(limit(req_id="once"))["retCode"] == 20006
        assert other.ask(limit(req_id="once"))["retCode"] == 0


def test_the_rate_is_shared_with_rest_and_between_sockets(own_venue):
    with own_venue.trader() as one, own_venue.trader() as other, own_venue.trader("2") as stranger:
        codes = [client.ask(limit())["retCode"] for client in (one, other) * 5]
        refusal = one.ask(limit())

        assert codes == [0] * 10
        assert refusal["retCode"] == 10006
        assert refusal["header"]["X-Bapi-Limit-Status"] == "0"
        assert int(refusal["header"]["X-Bapi-Limit-Reset-Timestamp"]) > now_ms()
        assert stranger.ask(limit())["retCode"] == 0


def test_an_account_has_so_many_sessions_and_no_more(own_venue):
    own_venue.server.limits.scale = 2 / 50
    with own_venue.client("trade") as one, own_venue.client("trade") as two, own_venue.client("trade") as three:
        codes = [client.ask(login())["retCode"] for client in (one, two, three)]

    assert codes == [0, 0, 10003]


# --- drills ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storm", "code"),
    [
        (Storm(ret_code=10006), 10006),
        (Storm(ret_code=10016), 10016),
        (Storm(http_status=403), 10403),
        (Storm(http_status=429), 10429),
        (Storm(http_status=502), 10016),
    ],
)
def test_a_storm_over_orders_blows_here_too_and_nothing_is_executed(own_venue, storm, code):
    fault = StormFault(storm=storm, path="/v5/order/create", next=1)
    own_venue.do(lambda: own_venue.server.faults.arm(fault))
    with own_venue.trader() as trader:
        assert trader.ask(limit(orderLinkId="stormy"))["retCode"] == code
        assert trader.ask(limit(orderLinkId="stormy"))["retCode"] == 0


def test_the_answer_of_an_executed_order_can_be_lost(own_venue):
    own_venue.do(lambda: own_venue.server.faults.arm(LossFault(path="/v5/order/create", next=1)))
    with own_venue.private("order") as private, own_venue.trader() as trader:
        trader.send(limit(req_id="lost", orderLinkId="executed"))
        told = private.topic("order")
        next_ = trader.ask({"op": "ping"})
        again = trader.ask(limit(req_id="again", orderLinkId="executed"))

    assert told["data"][0]["orderLinkId"] == "executed"
    assert next_["op"] == "pong"
    assert again["retCode"] == 110072


def test_answers_can_be_delayed_on_their_way(own_venue):
    own_venue.do(lambda: own_venue.server.faults.arm(StreamFault(verb="delay", kind="trade", delay_s=0.3)))
    with own_venue.trader() as trader:
        sent = time.monotonic()
        assert trader.ask(limit())["retCode"] == 0
        assert time.monotonic() - sent >= 0.3


def test_the_clock_of_the_venue_can_be_wrong(own_venue):
    own_venue.server.faults.skew_ns = 60 * 10**9
    with own_venue.client("trade") as client:
        client.ask(login(expires=now_ms() + 90_000))
        assert client.ask(limit())["retCode"] == 10002


def test_a_bug_that_one_request_finds_ends_neither_the_session_nor_the_venue(own_venue, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError

    with own_venue.trader() as trader:
        monkeypatch.setattr(own_venue.server.exchange, "create", broken)
        told = trader.ask(limit(req_id="broken"))
        monkeypatch.undo()
        after = trader.ask(limit(req_id="sound"))

    assert (told["reqId"], told["retCode"], told["retMsg"]) == ("broken", 10016, "Server error.")
    assert (after["reqId"], after["retCode"]) == ("sound", 0)
    assert "order.create failed" in caplog.text
