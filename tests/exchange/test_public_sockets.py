"""The public sockets: what is acknowledged and refused, how long they live, and in which order things come."""

import socket
import threading
import time
from random import Random

import pytest
import websocket

from actors.exchange.faults import StreamFault
from actors.exchange.sockets import active_time, frame
from tests.exchange.stage import BUY, ETH_PERP, PERP, SELL, staged

ACK_S = 0.020


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        yield stage


@pytest.fixture
def own_venue():
    """A venue whose settings the test changes."""
    with staged() as stage:
        yield stage


def subscribe(*topics, **fields):
    return {"op": "subscribe", "args": list(topics)} | fields


# --- acknowledgements -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "request_", "answer"),
    [
        ("linear", {"op": "ping"}, {"success": True, "ret_msg": "pong", "req_id": "", "op": "ping"}),
        ("linear", {"op": "ping", "req_id": "7"}, {"success": True, "ret_msg": "pong", "req_id": "7", "op": "ping"}),
        ("spot", {"op": "ping"}, {"success": True, "ret_msg": "pong", "op": "ping"}),
        ("linear", subscribe("publicTrade.BTCUSDT"), {"success": True, "ret_msg": "", "req_id": "", "op": "subscribe"}),
        (
            "spot",
            subscribe("publicTrade.BTCUSDT"),
            {"success": True, "ret_msg": "subscribe", "op": "subscribe"},
        ),
        (
            "spot",
            subscribe("publicTrade.BTCUSDT", req_id=12),
            {"success": True, "ret_msg": "subscribe", "req_id": "12", "op": "subscribe"},
        ),
        ("misc/status", subscribe("system.status"), {"success": True, "ret_msg": "", "req_id": "", "op": "subscribe"}),
    ],
)
def test_requests_are_acknowledged_in_the_words_of_their_category(venue, category, request_, answer):
    with venue.client(f"public/{category}") as client:
        told = client.ask(request_)

        assert told.pop("conn_id")
        assert told == answer
        assert list(told) == list(answer)


def test_a_socket_has_one_name(venue):
    with venue.client("public/linear") as one, venue.client("public/linear") as other:
        names = [client.ask({"op": "ping"})["conn_id"] for client in (one, one, other)]

    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("category", "topics", "said"),
    [
        ("linear", ["orderbook.500.BTCUSDT"], "error:handler not found,topic:orderbook.500.BTCUSDT"),
        ("linear", ["orderbook.50.btcusdt"], "error:handler not found,topic:orderbook.50.btcusdt"),
        ("linear", ["orderbook.50.NOSUCH"], "error:handler not found,topic:orderbook.50.NOSUCH"),
        ("linear", ["liquidation.BTCUSDT"], "error:handler not found,topic:liquidation.BTCUSDT"),
        ("linear", ["kline.2.BTCUSDT"], "error:handler not found,topic:kline.2.BTCUSDT"),
        ("linear", ["kline.BTCUSDT"], "error:handler not found,topic:kline.BTCUSDT"),
        ("linear", ["order"], "error:handler not found,topic:order"),
        ("linear", [""], "error:handler not found,topic:"),
        ("linear", ["publicTrade.BTCUSDT", "tickers.NOSUCH"], "error:handler not found,topic:tickers.NOSUCH"),
        ("linear", ["tickers.BTCUSDT", "tickers.BTCUSDT"], "error:already subscribed,topic:tickers.BTCUSDT"),
        ("spot", ["publicTrade.NOSUCH"], "Invalid symbol :[publicTrade.NOSUCH]"),
        ("spot", ["allLiquidation.BTCUSDT"], "Invalid symbol :[allLiquidation.BTCUSDT]"),
        ("inverse", ["tickers.BTCUSD"], "error:handler not found,topic:tickers.BTCUSD"),
        ("misc/status", ["tickers.BTCUSDT"], "error:handler not found,topic:tickers.BTCUSDT"),
        ("spot", [f"kline.{n}.BTCUSDT" for n in range(11)], "args size >10"),
        ("linear", ["x" * 21_000], "error:args length exceeds 21000"),
    ],
)
def test_one_bad_topic_refuses_the_whole_request(venue, category, topics, said):
    with venue.client(f"public/{category}") as client:
        refusal = client.ask(subscribe(*topics))

        assert (refusal["success"], refusal["ret_msg"], refusal["op"]) == (False, said, "subscribe")
        # Nothing of it was subscribed to, and the socket is of use.
        assert client.gather(0.3) == []
        assert client.ask({"op": "ping"})["ret_msg"] == "pong"


def test_spot_takes_ten_topics_at_a_time_and_linear_any_number(venue):
    intervals = ("1", "3", "5", "15", "30", "60", "120", "240", "360", "720")
    with venue.client("public/spot") as client:
        assert client.ask(subscribe(*(f"kline.{n}.BTCUSDT" for n in intervals)))["success"]
        assert client.ask(subscribe(*(f"kline.{n}.ETHUSDT" for n in intervals)))["success"]
    with venue.client("public/linear") as client:
        assert client.ask(subscribe(*(f"kline.{n}.{s}USDT" for n in intervals for s in ("BTC", "ETH"))))["success"]


def test_a_repeated_subscription_is_refused_and_the_first_one_runs_on(venue):
    with venue.client("public/linear") as client:
        assert client.ask(subscribe("publicTrade.BTCUSDT"))["success"]
        assert client.ask(subscribe("publicTrade.BTCUSDT"))["ret_msg"] == (
            "error:already subscribed,topic:publicTrade.BTCUSDT"
        )

        venue.source.take(PERP, BUY, 5)

        assert len(client.topic("publicTrade.BTCUSDT")["data"]) == 1


def test_option_sockets_answer_in_their_own_form(venue):
    with venue.client("public/option") as client:
        refusal = client.ask(subscribe("orderbook.25.BTC-6JAN23-18000-C"))
        pong = client.ask({"op": "ping"})

    assert refusal["type"] == "COMMAND_RESP"
    assert not refusal["success"]
    assert refusal["data"] == {"failTopics": ["orderbook.25.BTC-6JAN23-18000-C"], "successTopics": []}
    assert pong["op"] == "pong"
    assert pong["args"][0].isdecimal()


def test_after_an_unsubscription_nothing_more_comes(venue):
    with venue.client("public/linear") as client:
        client.ask(subscribe("publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"))
        ack = client.ask({"op": "unsubscribe", "args": ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"], "req_id": "9"})
        venue.source.take(PERP, BUY, 5)

        assert (ack["success"], ack["op"], ack["req_id"]) == (True, "unsubscribe", "9")
        assert client.gather(0.3) == []
        assert client.ask(subscribe("publicTrade.BTCUSDT"))["success"]


@pytest.mark.parametrize("op", ["auth", "order.create", "", "Subscribe"])
def test_an_unknown_op_is_refused(venue, op):
    with venue.client("public/linear") as client:
        assert client.ask({"op": op})["ret_msg"] == "error:invalid op"


def test_a_category_that_does_not_exist_has_no_socket(venue):
    with pytest.raises(websocket.WebSocketBadStatusException) as refused, venue.client("public/futures"):
        pass
    assert refused.value.status_code == 404


# --- order and time -------------------------------------------------------------------------------


def test_requests_are_answered_in_order_and_no_sooner_than_they_may(venue):
    with venue.client("public/linear") as client:
        sent = time.monotonic()
        for number in range(20):
            topic = "publicTrade.BTCUSDT" if number == 7 else f"tickers.NO{number}"
            client.send(subscribe(topic, req_id=str(number)) if number % 2 else {"op": "ping", "req_id": str(number)})
        first = client.hear()
        waited = time.monotonic() - sent
        answers = [first, *(client.hear() for _ in range(19))]

    assert [answer["req_id"] for answer in answers] == [str(number) for number in range(20)]
    assert waited >= ACK_S


def test_the_acknowledgement_comes_before_the_snapshot_and_that_before_any_delta(venue):
    topics = [
        "tickers.BTCUSDT",
        "orderbook.1.BTCUSDT",
        "orderbook.50.BTCUSDT",
        "orderbook.200.BTCUSDT",
        "kline.1.BTCUSDT",
    ]
    changing = {topic for topic in topics if not topic.startswith(("kline", "orderbook.1."))}
    changed = set()
    stop = stir(venue)
    try:
        for _ in range(5):
            with venue.client("public/linear") as client:
                client.send(subscribe(*topics))
                heard = client.gather(0.5)
            assert heard[0]["op"] == "subscribe"
            for topic in topics:
                kinds = [message["type"] for message in heard if message.get("topic") == topic]
                assert kinds[0] == "snapshot"
                if topic in changing:
                    assert set(kinds[1:]) <= {"delta"}
                    changed |= {topic} if kinds[1:] else set()
    finally:
        stop()
    assert changed == changing, "in one time of five at the least there was something to hear"


def stir(venue, instrument=PERP):
    """Let the book change all the time until the function returned is called."""
    over = threading.Event()

    def run():
        middle, chance = venue.source.middle(instrument), Random(1)
        while not over.wait(0.004):
            bid, ask = ((chance.randrange(12), chance.randrange(50)) for _ in range(2))
            venue.source.show(instrument, bids=[(middle - 1 - bid[0], bid[1])], asks=[(middle + 1 + ask[0], ask[1])])

    thread = threading.Thread(target=run)
    thread.start()

    def stop():
        over.set()
        thread.join()

    return stop


def test_who_comes_late_has_the_same_book_as_who_was_there_and_as_rest(venue):
    stop = stir(venue)
    try:
        with venue.client("public/linear") as early:
            early.ask(subscribe("orderbook.1000.BTCUSDT", "orderbook.50.BTCUSDT"))
            early.gather(0.5)
            with venue.client("public/linear") as late:
                late.ask(subscribe("orderbook.1000.BTCUSDT", "orderbook.50.BTCUSDT"))
                late.gather(0.7)
                rest = venue.rest("/v5/market/orderbook?category=linear&symbol=BTCUSDT&limit=1000")
                books = [kept(one, "orderbook.1000.BTCUSDT", until=rest["u"]) for one in (early, late)]
                early.gather(0.3)
                late.gather(0.1)
                for one in (early, late):
                    kept(one, "orderbook.50.BTCUSDT", until=None)
    finally:
        stop()

    assert len(rest["b"]) == len(rest["a"]) == 1000
    for book in books:
        assert book == (rest["b"], rest["a"])


def kept(client, topic, *, until):
    """The book of a stream up to an update id, its chain checked; None takes all that was heard."""
    bids, asks, u, deltas = {}, {}, None, 0
    while until is not None and not any(
        message.get("topic") == topic and message["data"]["u"] >= until for message in client.heard
    ):
        assert client.hear() is not None
    for message in client.heard:
        if message.get("topic") != topic or u == until is not None:
            continue
        data = message["data"]
        if message["type"] == "snapshot":
            assert u is None
            bids, asks = dict(data["b"]), dict(data["a"])
        else:
            deltas += 1
            assert data["u"] == u + 1
            assert data["b"] or data["a"]
            for side, levels in ((bids, data["b"]), (asks, data["a"])):
                for price, size in levels:
                    if size == "0":
                        del side[price]
                    else:
                        side[price] = size
        u = data["u"]
    assert deltas
    return (
        [list(level) for level in sorted(bids.items(), key=lambda level: -float(level[0]))],
        [list(level) for level in sorted(asks.items(), key=lambda level: float(level[0]))],
    )


def test_a_restart_of_the_books_is_a_snapshot_with_update_one_for_all(own_venue):
    venue = own_venue
    with venue.client("public/linear") as client, venue.client("public/spot") as other:
        client.ask(subscribe("orderbook.50.BTCUSDT"))
        other.ask(subscribe("orderbook.200.ETHUSDT"))
        for size in (5, 6):
            venue.source.show(PERP, bids=[(venue.source.middle(PERP) - 1, size)])
            client.until(lambda message, size=size: message["data"]["b"][0][1] == f"0.00{size}")

        venue.do(venue.hub.restart_books)

        begun = client.until(lambda message: message["data"]["u"] == 1)
        assert begun["type"] == "snapshot"
        assert begun["data"]["b"][0][1] == "0.006"
        assert len(begun["data"]["b"]) == 50
        venue.source.show(PERP, bids=[(venue.source.middle(PERP) - 1, 7)])
        assert client.topic("orderbook.50.BTCUSDT")["data"]["u"] == 2
        assert other.until(lambda message: message["data"]["u"] == 1)["topic"] == "orderbook.200.ETHUSDT"


# --- life and death -------------------------------------------------------------------------------


def test_a_ping_frame_is_answered_with_its_own_words(venue):
    with venue.client("public/linear") as client:
        client.socket.ping("are you there")
        opcode, pong = client.socket.recv_data_frame(control_frame=True)

    assert opcode == websocket.ABNF.OPCODE_PONG
    assert pong.data == b"are you there"


def test_pongs_can_be_stopped(own_venue):
    own_venue.server.faults.pongs = False
    with own_venue.client("public/linear") as client:
        client.socket.ping("are you there")
        client.send({"op": "ping"})
        client.send(subscribe("publicTrade.BTCUSDT"))
        opcode, data = client.socket.recv_data(control_frame=True)

    assert opcode == websocket.ABNF.OPCODE_TEXT
    assert b'"op":"subscribe"' in data


def test_a_public_socket_without_topic_and_ping_is_cut_and_one_with_either_stays(own_venue):
    own_venue.hub.keepalive.public = 0.5
    with (
        own_venue.client("public/linear") as idle,
        own_venue.client("public/linear") as subscribed,
        own_venue.client("public/linear") as pinging,
    ):
        subscribed.ask(subscribe("publicTrade.BTCUSDT"))
        over = threading.Event()

        def ping():
            while not over.wait(0.1):
                pinging.socket.ping()

        thread = threading.Thread(target=ping)
        thread.start()
        try:
            assert idle.is_cut(4)
        finally:
            over.set()
            thread.join()

        assert idle.close_code is None
        for client in (subscribed, pinging):
            assert client.ask({"op": "ping"})["ret_msg"] == "pong"


@pytest.mark.parametrize(("close_frame", "code"), [(True, 1001), (False, None)])
def test_sockets_can_be_cut_with_a_close_frame_or_without(own_venue, close_frame, code):
    with own_venue.client("public/linear") as client, own_venue.client("private") as other:
        client.ask(subscribe("publicTrade.BTCUSDT"))

        assert own_venue.do(lambda: own_venue.hub.cut("public", close_frame=close_frame)) == 1

        assert client.is_cut()
        assert client.close_code == code
        assert other.ask({"op": "ping"})["op"] == "pong"
        assert own_venue.do(lambda: [one.kind for one in own_venue.hub.connections]) == ["private"]


def test_five_hundred_new_connections_in_five_minutes_are_enough_for_one_address(own_venue):
    own_venue.server.limits.scale = 3 / 500
    opened = []
    for _ in range(3):
        with own_venue.client("public/linear") as client:
            opened.append(client.ask({"op": "ping"})["ret_msg"])
    with pytest.raises(websocket.WebSocketBadStatusException) as refused, own_venue.client("public/linear"):
        pass

    assert opened == ["pong"] * 3
    assert refused.value.status_code == 403
    own_venue.server.limits.scale = float("inf")
    with own_venue.client("public/linear") as client:
        assert client.ask({"op": "ping"})["ret_msg"] == "pong"


def test_a_client_that_does_not_read_is_cut_and_nobody_else_waits(own_venue):
    venue = own_venue
    venue.hub.most_unsent = 100_000
    slow = socket.create_connection(("127.0.0.1", venue.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = websocket.create_connection(
        f"ws://127.0.0.1:{venue.port}/v5/public/linear", socket=slow, timeout=5, enable_multithread=False
    )
    # The kernel holds some megabytes for it, so it asks for a lot.
    over = time.monotonic() + 20
    try:
        while venue.do(lambda: bool(venue.hub.connections)) and time.monotonic() < over:
            for verb in ("subscribe", "unsubscribe"):
                client.send(f'{{"op":"{verb}","args":["orderbook.1000.BTCUSDT","orderbook.1000.ETHUSDT"]}}')
            time.sleep(0.001)
    except (OSError, websocket.WebSocketException):
        pass
    finally:
        client.shutdown()

    assert venue.do(lambda: not venue.hub.connections)
    with venue.client("public/linear") as other:
        assert other.ask({"op": "ping"})["ret_msg"] == "pong"


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("", 600),
        ("30s", 30),
        ("45s", 45),
        ("1m", 60),
        ("10m", 600),
        ("1s", 30),
        ("11m", 600),
        ("soon", 600),
        ("-1s", 600),
    ],
)
def test_a_private_socket_may_say_how_long_it_lives(asked, seconds):
    assert active_time(asked, 600) == seconds


# --- drills ---------------------------------------------------------------------------------------


def test_a_drill_strikes_the_topic_it_is_meant_for(own_venue):
    venue, middle = own_venue, own_venue.source.middle(PERP)
    with venue.client("public/linear") as client:
        client.ask(subscribe("orderbook.50.BTCUSDT", "orderbook.50.ETHUSDT"))
        client.topic("orderbook.50.ETHUSDT")
        fault = StreamFault(verb="drop", topic="orderbook.50.BTCUSDT", next=1)
        venue.do(lambda: venue.server.faults.arm(fault))

        heard = []
        for size in (5, 6):
            venue.source.show(PERP, bids=[(middle - 1, size)])
            venue.source.show(ETH_PERP, bids=[(venue.source.middle(ETH_PERP) - 1, size)])
            heard += client.gather(0.3)

    told = [message["data"]["u"] for message in heard if message["topic"] == "orderbook.50.BTCUSDT"]
    other = [message["data"]["u"] for message in heard if message["topic"] == "orderbook.50.ETHUSDT"]
    assert len(told) == 1
    assert len(other) == 2
    assert heard[-2]["data"]["b"][0][1] in {"0.006", "0.06"}


def test_a_delayed_push_comes_late_and_not_to_who_has_left_the_topic(own_venue):
    venue = own_venue
    with venue.client("public/linear") as client, venue.client("public/linear") as leaving:
        for one in (client, leaving):
            one.ask(subscribe("publicTrade.BTCUSDT"))
        venue.do(lambda: venue.server.faults.arm(StreamFault(verb="delay", topic="publicTrade.*", delay_s=0.4)))

        venue.source.take(PERP, SELL, 5)
        time.sleep(0.1)
        leaving.ask({"op": "unsubscribe", "args": ["publicTrade.BTCUSDT"]})
        trade = client.topic("publicTrade.BTCUSDT")

        assert trade["ts"] + 350 < time.time() * 1000
        assert leaving.gather(0.5) == []


# --- frames ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 300_000])
def test_a_frame_is_what_a_client_reads_as_one_message(length):
    ours, theirs = socket.socketpair()
    payload = bytes(32 + place % 90 for place in range(length))
    client = websocket.WebSocket()
    client.sock = theirs
    client.connected = True
    writer = threading.Thread(target=ours.sendall, args=(frame(payload) + frame(b"next"),))
    writer.start()
    try:
        assert client.recv_data() == (websocket.ABNF.OPCODE_TEXT, payload)
        assert client.recv_data() == (websocket.ABNF.OPCODE_TEXT, b"next")
    finally:
        writer.join()
        ours.close()
        theirs.close()
