"""The private socket: who may listen, what is told of orders, fills, positions and coins, and what a lost connection cancels."""

import base64
import time

import pytest
from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pkcs1_15

from actors.exchange.auth import ApiKey
from tests.exchange.stage import PERP, SPOT, limit, login, market, order, staged

ANOTHER = "another secret"


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


@pytest.fixture
def own_venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


# --- who may listen -------------------------------------------------------------------------------


@pytest.mark.parametrize("type_of", [int, str])
def test_a_client_proves_itself_with_a_time_as_number_or_text(venue, type_of):
    with venue.client("private") as client:
        told = client.ask(login(expires=type_of(int(time.time() * 1000) + 5_000)) | {"req_id": "5"})

    assert told.pop("conn_id")
    assert told == {"success": True, "ret_msg": "", "op": "auth", "req_id": "5"}


def test_a_client_may_sign_with_an_rsa_key(own_venue):
    key = RSA.generate(2048)
    own_venue.server.auth.add(ApiKey(key="rsa", uid="1", public_key=key.public_key().export_key().decode()))
    stamp = int(time.time() * 1000) + 5_000
    signed = base64.b64encode(pkcs1_15.new(key).sign(SHA256.new(f"GET/realtime{stamp}".encode()))).decode()
    with own_venue.client("private") as client:
        assert client.ask({"op": "auth", "args": ["rsa", stamp, signed]})["success"]


@pytest.mark.parametrize(
    "auth",
    [
        login(secret=ANOTHER),
        login(expires=int(time.time() * 1000) - 1),
        login() | {"args": ["no such key", 1, "x"]},
        login() | {"args": []},
        login() | {"args": None},
        login() | {"args": [1, 2, 3]},
        login() | {"args": ["key-1", True, "x"]},
        login() | {"args": ["key-1", "soon", "x"]},
        login() | {"args": ["key-1", 10**30, "x"]},
    ],
)
def test_who_cannot_prove_itself_is_told_so_and_cut(venue, auth):
    with venue.client("private") as client:
        refusal = client.ask(auth)

        assert not refusal["success"]
        assert refusal["ret_msg"]
        assert refusal["op"] == "auth"
        assert client.is_cut()


def test_a_key_bound_to_another_address_is_refused(own_venue):
    own_venue.server.auth.add(ApiKey(key="key-far", secret=ANOTHER, uid="1", ips=("10.1.2.3",)))
    with own_venue.client("private") as client:
        assert "IP" in client.ask(login("far", secret=ANOTHER))["ret_msg"]


def test_auth_and_the_first_subscription_may_come_back_to_back(venue):
    with venue.client("private") as client:
        client.send(login())
        client.send({"op": "subscribe", "args": ["order"], "req_id": "2"})
        answers = [client.hear(), client.hear()]

    assert [(answer["op"], answer["success"]) for answer in answers] == [("auth", True), ("subscribe", True)]


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        (["tickers.BTCUSDT"], "error:handler not found,topic:tickers.BTCUSDT"),
        (["position.spot"], "error:handler not found,topic:position.spot"),
        (["wallet.linear"], "error:handler not found,topic:wallet.linear"),
        (["order", "execution.linear"], "error:topics of all categories and of one may not be in the same request"),
        (["order", "order"], "error:already subscribed,topic:order"),
    ],
)
def test_topics_are_refused_as_a_whole(venue, topics, said):
    with venue.private() as client:
        assert client.ask({"op": "subscribe", "args": topics})["ret_msg"] == said
        assert client.ask({"op": "subscribe", "args": ["order"]})["success"]


def test_nobody_listens_without_proof(venue):
    with venue.client("private") as client:
        refusal = client.ask({"op": "subscribe", "args": ["order"]})
        pong = client.ask({"op": "ping", "req_id": "3"})

    assert not refusal["success"]
    assert set(pong) == {"req_id", "op", "args", "conn_id"}
    assert (pong["op"], pong["req_id"]) == ("pong", "3")
    assert abs(int(pong["args"][0]) - time.time() * 1000) < 5_000


# --- what is told ---------------------------------------------------------------------------------


def test_a_market_order_is_told_in_every_topic(venue):
    with (
        venue.private("order", "execution", "execution.fast", "position", "wallet") as client,
        venue.trader() as trader,
    ):
        assert trader.ask(market(qty="0.020"))["retCode"] == 0
        told = {message["topic"]: message for message in client.gather(0.4, least=5)}

    assert set(told) == {"order", "execution", "execution.fast", "position", "wallet"}
    for topic, message in told.items():
        envelope = {"topic", "creationTime", "data"}
        assert set(message) == (envelope if topic == "execution.fast" else envelope | {"id"})
        assert type(message["creationTime"]) is int
    final, fill = told["order"]["data"][-1], told["execution"]["data"][-1]
    assert (final["orderStatus"], final["category"], final["cumExecQty"]) == ("Filled", "linear", "0.02")
    assert (fill["execQty"], fill["orderId"], fill["isMaker"]) == ("0.02", final["orderId"], False)
    assert told["execution.fast"]["data"][0]["execId"] == fill["execId"]
    [position] = told["position"]["data"]
    assert (position["symbol"], position["side"], position["size"]) == ("BTCUSDT", "Buy", "0.02")
    assert position["seq"] == fill["seq"]
    assert "entryPrice" in position
    assert "avgPrice" not in position
    [wallet] = told["wallet"]["data"]
    assert wallet["accountType"] == "UNIFIED"


def test_positions_are_told_of_orders_that_change_nothing_and_the_wallet_is_not(venue):
    with venue.private("position", "wallet", "order") as client, venue.trader() as trader:
        made = trader.ask(limit())
        trader.ask(order("order.amend", orderId=made["data"]["orderId"], price="58000"))
        trader.ask(order("order.cancel", orderId=made["data"]["orderId"]))
        told = client.gather(0.4, least=6)

    assert [message["topic"] for message in told].count("position") == 3
    assert "wallet" not in {message["topic"] for message in told}
    states = [one["orderStatus"] for message in told if message["topic"] == "order" for one in message["data"]]
    assert states == ["New", "New", "Cancelled"]


def test_what_happens_before_a_subscription_is_acknowledged_comes_after_it(own_venue):
    own_venue.server.faults.ack_delay_s = 0.3
    with own_venue.private() as client, own_venue.trader() as trader:
        client.send({"op": "subscribe", "args": ["order"]})
        time.sleep(0.1)
        trader.send(limit())
        told = [client.hear(), client.hear()]

    assert [message.get("op", message.get("topic")) for message in told] == ["subscribe", "order"]


def test_topics_of_a_category_tell_of_it_alone_and_under_their_own_name(venue):
    with (
        venue.private("order.spot", "execution.spot", "execution.fast.spot") as spot,
        venue.private("order.linear", "position.linear") as linear,
        venue.private("order") as whole,
        venue.trader() as trader,
    ):
        trader.ask(limit())
        trader.ask(market(qty="0.001", category="spot", marketUnit="baseCoin"))
        told = [client.gather(0.4, least=2) for client in (spot, linear, whole)]

    assert {message["topic"] for message in told[0]} == {"order.spot", "execution.spot", "execution.fast.spot"}
    assert {message["topic"] for message in told[1]} == {"order.linear", "position.linear"}
    assert {one["category"] for message in told[2] for one in message["data"]} == {"spot", "linear"}


def test_nobody_hears_of_another_account(venue):
    with venue.private("order", "wallet", "position", uid="2") as other, venue.trader() as trader:
        trader.ask(market())

        assert other.gather(0.4) == []


def test_orders_of_a_batch_come_in_their_order_and_may_share_a_message(venue):
    with venue.private("order") as client, venue.trader() as trader:
        requests = [
            {"symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.01", "price": str(50_000 + at * 100)}
            for at in range(20)
        ]
        requests = [one | {"price": str(59_500 + at)} for at, one in enumerate(requests)]
        batch = order("order.create-batch") | {"args": [{"category": "linear", "request": requests}]}
        made = trader.ask(batch)["data"]["list"]
        messages = client.gather(0.3, least=1)
        trader.ask(order("order.cancel-batch") | {"args": [{"category": "linear", "request": made}]})

    told = [one["orderId"] for message in messages for one in message["data"]]
    assert told == [one["orderId"] for one in made]
    assert len(messages) < len(told)


def test_many_fills_at_once_are_told_in_several_messages(own_venue):
    middle = own_venue.source.middle(PERP)
    own_venue.source.show(PERP, asks=[(middle + away, 1) for away in range(1, 121)])
    with own_venue.private("execution") as client, own_venue.trader() as trader:
        trader.ask(market(qty="0.120"))
        messages = client.gather(0.4, least=3)

    prices = [float(fill["execPrice"]) for message in messages for fill in message["data"]]
    assert [len(message["data"]) for message in messages] == [50, 50, 20]
    assert prices == sorted(prices)


# --- disconnect-cancel ----------------------------------------------------------------------------


def arm(venue, product="DERIVATIVES", seconds=1):
    venue.do(lambda: venue.exchange.set_window("1", product, seconds, venue.server.now()))


def resting(venue, trader):
    """Two open orders, one of each category."""
    for request in (limit(), limit(category="spot", qty="0.001")):
        assert trader.ask(request)["retCode"] == 0


def open_orders(venue):
    return venue.do(lambda: sorted(one.instrument for one in venue.exchange.accounts["1"].open_orders.values()))


def test_orders_of_a_product_go_when_the_last_socket_that_guards_it_is_lost(own_venue):
    arm(own_venue)
    with own_venue.trader() as trader, own_venue.private("order") as witness:
        resting(own_venue, trader)
        with own_venue.private("dcp.future"), own_venue.private("dcp.future", "wallet"):
            pass
        lost = time.monotonic()
        cancelled = witness.until(lambda message: message["data"][0]["cancelType"] == "CancelByDCP")

    assert time.monotonic() - lost > 0.8
    assert cancelled["data"][0]["orderStatus"] == "Cancelled"
    assert open_orders(own_venue) == [SPOT]


def test_orders_stay_while_another_socket_guards_them(own_venue):
    arm(own_venue)
    with own_venue.trader() as trader, own_venue.private("dcp.future"):
        resting(own_venue, trader)
        with own_venue.private("dcp.future"):
            pass
        time.sleep(1.4)

        assert open_orders(own_venue) == [PERP, SPOT]


def test_orders_stay_when_a_guard_comes_back_in_time(own_venue):
    arm(own_venue, seconds=3)
    with own_venue.trader() as trader:
        resting(own_venue, trader)
        with own_venue.private("dcp.future"):
            pass
        time.sleep(0.5)
        with own_venue.private("dcp.future"):
            time.sleep(3)

            assert open_orders(own_venue) == [PERP, SPOT]


def test_a_lost_socket_that_guards_nothing_cancels_nothing(own_venue):
    arm(own_venue)
    arm(own_venue, "SPOT")
    with own_venue.trader() as trader:
        resting(own_venue, trader)
        with own_venue.private("order", "wallet"):
            pass
        with own_venue.private("dcp.future") as guard:
            guard.ask({"op": "unsubscribe", "args": ["dcp.future"]})
        time.sleep(1.4)

        assert open_orders(own_venue) == [PERP, SPOT]


def test_without_a_window_nothing_is_cancelled_and_spot_has_one_of_its_own(own_venue):
    arm(own_venue, "SPOT")
    with own_venue.trader() as trader:
        resting(own_venue, trader)
        with own_venue.private("dcp.future", "dcp.spot"):
            pass
        time.sleep(1.4)

        assert open_orders(own_venue) == [PERP]


# --- life -----------------------------------------------------------------------------------------


def test_a_private_socket_is_cut_when_nothing_is_said_on_either_side(own_venue):
    own_venue.hub.keepalive.signed, own_venue.hub.keepalive.signed_check = 1.5, 0.1
    with (
        own_venue.private("order") as idle,
        own_venue.private("order", uid="2") as told,
        own_venue.trader("2") as trader,
    ):
        over = time.monotonic() + 3
        while time.monotonic() < over:
            trader.ask(limit())
            time.sleep(0.1)

        assert idle.is_cut()
        assert idle.close_code is None
        assert told.ask({"op": "ping"})["op"] == "pong"


def test_sockets_of_one_account_can_be_cut(own_venue):
    with own_venue.private() as one, own_venue.private(uid="2") as other:
        own_venue.do(lambda: own_venue.hub.cut("private", "1", close_frame=False))

        assert one.is_cut()
        assert other.ask({"op": "ping"})["op"] == "pong"
