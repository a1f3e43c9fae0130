"""pybit itself, unchanged but for its address, on every kind of socket."""

import gc
import queue
import threading
import time
from collections import defaultdict
from functools import partial

import pytest
from pybit.unified_trading import WebSocket, WebSocketTrading

from tests.exchange.stage import BUY, ETH_PERP, PERP, staged
from tests.exchange.test_public_sockets import stir

CONNECTIONS = 80


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


def local(venue):
    """pybit's two classes, pointed at loopback: each `_connect` is called again with the final address on a reconnect."""
    base = f"ws://127.0.0.1:{venue.port}"

    class Redirect:
        def _connect(self, url):
            super()._connect(base + url[url.index("/v5/") :])

    class LocalWebSocket(Redirect, WebSocket):
        pass

    class LocalWebSocketTrading(Redirect, WebSocketTrading):
        pass

    return LocalWebSocket, LocalWebSocketTrading


@pytest.fixture
def sockets(venue):
    """Makes pybit sockets, and ends them."""
    opened = []
    public, trading = local(venue)

    def make(channel=None, **options):
        maker = trading if channel is None else public
        arguments = {"testnet": True} | ({} if channel is None else {"channel_type": channel}) | options
        opened.append(maker(**arguments))
        return opened[-1]

    yield make
    for one in opened:
        one.exit()
    gc.collect()


KEY = {"api_key": "key-1", "api_secret": "secret-1"}


def test_of_eighty_fresh_connections_not_one_stream_dies(venue, sockets):
    heard = defaultdict(list)

    def hear(number, message):
        # At once: the book that pybit hands over goes on changing.
        book = message["data"]
        heard[number].append((book["u"], *(tuple(sorted(map(tuple, book[side]))) for side in ("b", "a"))))

    stop = stir(venue)
    try:
        for number in range(CONNECTIONS):
            socket = sockets("linear")
            socket.orderbook_stream(50, "BTCUSDT", partial(hear, number))
            socket.ticker_stream("BTCUSDT", lambda _: None)
        before = {number: len(books) for number, books in heard.items()}
        over = time.monotonic() + 10
        while min(len(books) - before.get(number, 0) for number, books in heard.items()) < 5:
            assert time.monotonic() < over, [len(books) for books in heard.values()]
            time.sleep(0.05)
    finally:
        stop()

    # What pybit has put together is the book: the same in all of them at the same update.
    by_update = defaultdict(set)
    for books in list(heard.values()):
        for u, bids, asks in list(books):
            by_update[u].add((bids, asks))
            assert len(bids) == len(asks) == 50
    assert len(heard) == CONNECTIONS
    assert max(map(len, by_update.values())) == 1


def test_every_public_stream_reaches_its_callback(venue, sockets):
    heard = queue.SimpleQueue()

    def hear(message):
        heard.put(message["topic"])

    linear, spot = sockets("linear"), sockets("spot")
    linear.orderbook_stream(1, "BTCUSDT", hear)
    linear.orderbook_stream(200, ["BTCUSDT", "ETHUSDT"], hear)
    linear.ticker_stream("BTCUSDT", hear)
    linear.trade_stream("BTCUSDT", hear)
    linear.kline_stream(5, "BTCUSDT", hear)
    linear.all_liquidation_stream("BTCUSDT", hear)
    spot.orderbook_stream(50, "ETHUSDT", hear)
    spot.ticker_stream("ETHUSDT", hear)
    wanted = {
        "orderbook.1.BTCUSDT",
        "orderbook.200.BTCUSDT",
        "orderbook.200.ETHUSDT",
        "tickers.BTCUSDT",
        "publicTrade.BTCUSDT",
        "kline.5.BTCUSDT",
        "orderbook.50.ETHUSDT",
        "tickers.ETHUSDT",
    }
    over = time.monotonic() + 5
    while wanted:
        assert time.monotonic() < over, wanted
        venue.source.take(PERP, BUY, 1)
        wanted.discard(heard.get(timeout=5))


def test_an_unsubscription_ends_a_stream_and_it_can_be_taken_up_again(sockets, venue):
    heard = queue.SimpleQueue()
    socket = sockets("linear")
    socket.trade_stream("ETHUSDT", heard.put)
    socket.unsubscribe("publicTrade.ETHUSDT")
    over = time.monotonic() + 5
    while "publicTrade.ETHUSDT" in socket.callback_directory:
        assert time.monotonic() < over
        time.sleep(0.01)
    socket.trade_stream("ETHUSDT", heard.put)
    while heard.empty():
        assert time.monotonic() < over
        venue.source.take(ETH_PERP, BUY, 1)
        time.sleep(0.05)

    assert heard.get()["data"][0]["s"] == "ETHUSDT"


def test_orders_by_socket_come_back_on_the_private_streams(sockets):
    heard = {topic: queue.SimpleQueue() for topic in ("order", "execution", "position", "wallet", "fast")}
    private, trading = sockets("private", **KEY), sockets(**KEY)
    private.order_stream(heard["order"].put)
    private.execution_stream(heard["execution"].put)
    private.position_stream(heard["position"].put)
    private.wallet_stream(heard["wallet"].put)
    private.fast_execution_stream(heard["fast"].put, "linear")
    answers = queue.SimpleQueue()
    trading.place_order(
        answers.put,
        category="linear",
        symbol="BTCUSDT",
        side="Buy",
        orderType="Market",
        qty="0.01",
        orderLinkId="by-pybit",
    )

    assert answers.get(timeout=5)["retMsg"] == "OK"
    assert heard["order"].get(timeout=5)["data"][0]["orderLinkId"] == "by-pybit"
    for topic in ("execution", "position", "wallet"):
        assert heard[topic].get(timeout=5)["topic"] == topic
    assert heard["fast"].get(timeout=5)["topic"] == "execution.fast.linear"


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # websocket-client forgets what was reset
def test_a_cut_socket_comes_back_with_its_subscriptions_and_a_new_chain(venue, sockets):
    heard = queue.SimpleQueue()
    stop = stir(venue)
    try:
        sockets("linear").orderbook_stream(50, "BTCUSDT", heard.put)
        heard.get(timeout=5)
        threads = threading.active_count()
        for close_frame in (True, False):
            assert venue.do(lambda close_frame=close_frame: venue.hub.cut("public", close_frame=close_frame)) >= 1
            while not heard.empty():
                heard.get()
            assert len(heard.get(timeout=10)["data"]["b"]) == 50
    finally:
        stop()

    assert threading.active_count() <= threads + 2
