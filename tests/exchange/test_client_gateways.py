"""Our own use of pybit against the exchange on loopback, on an ordinary day."""

import logging
import socket
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

from actors.exchange.auth import ALL_RIGHTS, ApiKey
from actors.exchange.drills import cut_sockets, slow_answers
from actors.gateways import bybit_endpoint
from actors.gateways.bybit_endpoint import DEMO, ENDPOINTS, MAINNET, TESTNET, Keys, Pings, loopback, session
from actors.gateways.bybit_feed import BybitFeed
from actors.gateways.bybit_rest import Absence, Backoff, BybitRest, UnansweredError
from actors.gateways.bybit_streams import Attempts, Pace, Stream
from actors.gateways.bybit_venue import BybitVenue
from hean.bybit import decode
from hean.bybit.decode import OrderStage, OrderWord
from hean.bybit.encode import Verdict
from hean.bybit.orders import Restored
from hean.errors import ConfigError, ContractError
from hean.execution.orders import OrderStatus
from hean.instruments import Category
from hean.messages import (
    AccountSnapshot,
    AmendOrder,
    Bar,
    BookLevels,
    CancelAll,
    FundingRate,
    MarkPrice,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PremiumIndex,
    Quote,
    Side,
    SnapshotAccount,
    SubmitOrder,
    TimeInForce,
    Trade,
)
from hean.units import MINUTE, SECOND
from tests.exchange.client import FEED, PERP, QUICK, SHORT, SPOT, VENUE, Desk, exchange
from tests.exchange.conftest import Venue, key


@pytest.fixture
def served():
    with exchange() as running:
        yield running


@pytest.fixture
def desk(served):
    with Desk(served) as at_work:
        yield at_work


@pytest.fixture(params=["rest", "socket"])
def trading(served, request):
    config = VENUE.model_copy(update={"orders_by": request.param})
    with Desk(served, config=config) as at_work:
        if request.param == "socket":
            at_work.until(lambda: at_work.venue._account.sender.trade.socket is not None, "the trade socket stands")
        yield at_work


# --- orders ---------------------------------------------------------------------------------------


def test_orders_go_out_and_what_became_of_them_comes_back(trading):
    bid, ask = trading.best()
    bought = trading.order()
    coin = trading.order(instrument=SPOT, quantity="0.002")
    rests = trading.resting()
    shy = trading.order(limit=ask * 1.001, tif=TimeInForce.POST_ONLY)
    vain = trading.order(limit=bid * 0.99, tif=TimeInForce.IOC)
    too_much = trading.order(quantity="100")
    trading.until(lambda: all(trading.facts(name) for name in trading.sent), "an answer to each")
    trading.cancel(rests)
    trading.until(lambda: len(trading.facts(rests)) == 2, "the cancel is told")
    trading.until(lambda: trading.orders()[coin].status is OrderStatus.FILLED, "the coin is bought")

    assert [type(fact) for fact in trading.facts(bought)] == [OrderAccepted, OrderFilled]
    (fee,) = [fact for fact in trading.facts(coin) if isinstance(fact, OrderFilled)][:1]
    assert fee.fee_currency == "BTC"  # a buyer on spot pays in the coin
    assert [type(fact) for fact in trading.facts(rests)] == [OrderAccepted, OrderCanceled]
    assert type(trading.facts(shy)[-1]) is OrderExpired
    assert type(trading.facts(vain)[-1]) is OrderExpired
    (refused,) = trading.facts(too_much)
    assert (type(refused), refused.reason[:6]) == (OrderRejected, "110007")
    assert all(fact.strategy == "drill" for name in trading.sent for fact in trading.facts(name))
    trading.order(Side.SELL, reduce_only=True)
    trading.order(Side.SELL, instrument=SPOT, quantity="0.001")
    trading.nothing_lost()


def test_an_amendment_is_taken_and_the_order_keeps_its_name(trading):
    name = trading.resting()
    trading.until(lambda: trading.facts(name), "an answer")
    trading.venue.tell(AmendOrder("drill", name, PERP, Decimal("0.003"), None))
    trading.until(
        lambda: any(o.link_id == name and o.quantity == Decimal("0.003") for o in trading.records.orders.values()),
        "the exchange has the new quantity",
    )
    trading.venue.tell(AmendOrder("drill", name, PERP, None, Decimal("0.1")))
    trading.until(lambda: trading.errors()["amend refused"], "a refusal that is told")
    trading.cancel(name)
    trading.nothing_lost()


def test_an_order_told_twice_is_sent_once_and_one_known_to_the_venue_is_looked_up(served, desk):
    name = desk.resting()
    desk.until(lambda: desk.facts(name), "an answer")
    desk.venue.tell(desk.sent[name])
    desk.until(lambda: desk.errors()["told twice"], "the second is refused here")
    with Desk(served, prefix="successor") as successor:  # which does not remember
        successor.sent[name] = desk.sent[name]
        successor.venue.tell(desk.sent[name])
        successor.until(
            lambda: any(type(fact) is OrderAccepted and fact.strategy for fact in successor.facts(name)), "it is found"
        )
        assert not successor.of_kind(OrderRejected)
    desk.cancel(name)
    desk.nothing_lost()


def test_cancel_all_takes_what_rests_that_nobody_told_us_of_too(served, desk):
    with Desk(served, prefix="other") as other:
        foreign = other.resting(SPOT, quantity="0.002")
        other.until(lambda: other.facts(foreign), "an answer")
        own = desk.resting()
        desk.until(lambda: desk.facts(own), "an answer")
        desk.venue.tell(CancelAll(""))
        other.until(lambda: not any(is_open for is_open, _ in desk.at_the_exchange().values()), "nothing is open")
    desk.until(lambda: type(desk.facts(own)[-1]) is OrderCanceled, "its end is told")


def test_what_cannot_be_sent_is_said_at_once(desk):
    with pytest.raises(ContractError):
        desk.order(quantity="0")
    with pytest.raises(ContractError):
        desk.venue.tell(AmendOrder("drill", "x", PERP, None, None))


def test_what_has_not_left_when_the_gateway_is_stopped_does_not_leave(served):
    with Desk(served, trades=False) as desk, slow_answers(served, 200):
        said = []
        venue = BybitVenue(desk.endpoint, desk.keys, desk.rules, said.extend, since=time.time_ns(), config=VENUE)
        venue.start()
        desk.venue = None
        limit = desk.rules[PERP].price(desk.best()[0] * 0.98)
        for number in range(40):
            tif = TimeInForce.GTC
            venue.tell(SubmitOrder(f"o-{number}", "s", PERP, Side.BUY, Decimal("0.001"), limit, tif, False, None, None))
        desk.until(desk.at_the_exchange, "the first have left")
        venue.stop(timeout_s=1)
        left = len(desk.at_the_exchange())
        assert left < 40
        time.sleep(0.7)
        assert len(desk.at_the_exchange()) == left


def test_two_orders_of_ours_that_meet_are_a_fill_each(desk):
    bid, _ = desk.best()
    rests = desk.order(limit=bid)
    desk.until(lambda: desk.facts(rests), "an answer")
    meets = desk.order(Side.SELL, quantity="3", limit=bid * 0.999)
    desk.until(lambda: desk.orders()[rests].filled and desk.orders()[meets].filled, "both have fills")
    desk.nothing_lost()


def test_an_order_of_an_earlier_life_is_taken_up_again(served):
    with Desk(served) as before:
        name = before.resting()
        before.until(lambda: before.facts(name), "an answer")
        command = before.sent[name]
    with Desk(served, restored=[Restored(command)]) as after:
        after.sent[name] = command
        after.said.append(OrderAccepted(name, "drill", PERP, ""))  # told in the earlier life
        after.cancel(name)
        after.until(lambda: type(after.facts(name)[-1]) is OrderCanceled, "it is called back")
        assert after.facts(name)[-1].strategy == "drill"


# --- questions ------------------------------------------------------------------------------------


def test_a_look_up_finds_the_open_the_finished_and_the_absent(served, desk):
    rests, filled = desk.resting(), desk.order()
    desk.until(lambda: all(desk.facts(name) for name in desk.sent), "answers")
    desk.until(lambda: desk.orders()[filled].status is OrderStatus.FILLED, "the fill")
    found = {name: desk.rest.look_up(PERP, name) for name in (rests, filled, "nobody")}
    assert isinstance(found[rests], OrderWord)
    assert (found[rests].stage, found[filled].stage) == (OrderStage.OPEN, OrderStage.FILLED)
    assert isinstance(found["nobody"], Absence)
    desk.cancel(rests)
    nowhere = BybitRest(loopback(_closed_port()), desk.keys, instruments={}, backoff=Backoff(), timeout_s=1)
    with pytest.raises(UnansweredError):
        nowhere.look_up(PERP, rests)
    nowhere.close()


def test_a_snapshot_says_what_stands_page_after_page(desk):
    names = [desk.resting(away=0.02 + at / 5_000) for at in range(55)]
    held = desk.order(quantity="0.002")
    desk.until(lambda: all(desk.facts(name) for name in desk.sent), "answers")
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "the fill")
    desk.venue.tell(SnapshotAccount(9))
    desk.until(lambda: desk.of_kind(AccountSnapshot), "a snapshot")
    (snapshot,) = desk.of_kind(AccountSnapshot)
    assert (snapshot.request_id, snapshot.complete) == (9, True)
    assert set(names) <= {order.client_order_id for order in snapshot.orders}
    account = desk.served.server.exchange.accounts[desk.uid]
    assert snapshot.balances == {coin: amount for coin, amount in account.balances.items() if amount}
    report = desk.venue.last_report
    assert {one.exec_id for one in report.executions} <= {one.exec_id for one in desk.executions()}
    assert sum(one.change for one in report.transactions if one.currency == "USDT") != 0
    assert [one.row_id for one in desk.rest.transactions(0, time.time_ns())][-3:] == [
        row.row_id for row in desk.records.log
    ][-3:]
    desk.venue.tell(CancelAll(""))
    desk.nothing_lost()


def test_the_whole_log_is_read_page_after_page_and_ends_in_the_balance(desk):
    for at in range(60):
        desk.order(Side.BUY if at % 2 == 0 else Side.SELL)
    desk.nothing_lost(30)
    lines = desk.rest.transactions(time.time_ns() - 3600 * SECOND, time.time_ns())
    assert [line.row_id for line in lines] == [row.row_id for row in desk.records.log]
    (last,) = [line for line in lines if line.currency == "USDT"][-1:]
    assert last.balance == desk.rest.balances()["USDT"]
    found = desk.rest.executions_since(Category.LINEAR, time.time_ns() - 3600 * SECOND, time.time_ns())
    assert {one.exec_id for one in found} == {
        one.exec_id for one in desk.records.executions if one.instrument == PERP and one.exec_type.value == "Trade"
    }


def test_a_snapshot_of_which_a_part_failed_is_not_complete():
    with exchange() as served, Desk(served) as desk:
        # The gateway asks for itself as it begins: whichever of the questions comes first is refused.
        storm = served.levers.pull("storm", code=10016, path="/v5/position/list")
        desk.venue.tell(SnapshotAccount(3))
        desk.until(lambda: desk.of_kind(AccountSnapshot), "a snapshot")
        (snapshot,) = desk.of_kind(AccountSnapshot)
        assert not snapshot.complete
        assert desk.errors()["snapshot incomplete"] >= 1
        served.levers.release(storm)
        desk.venue.tell(SnapshotAccount(4))
        desk.until(lambda: len(desk.of_kind(AccountSnapshot)) == 2, "another")
        assert desk.of_kind(AccountSnapshot)[1].complete


def test_settings_that_are_so_already_are_a_success(desk):
    for _ in range(2):
        assert desk.changes.set_leverage(PERP, Decimal(7)).verdict is Verdict.ACCEPTED
        assert desk.changes.one_way(PERP).verdict is Verdict.ACCEPTED
    assert desk.changes.set_leverage(PERP, Decimal(10)).verdict is Verdict.ACCEPTED


def test_the_clock_of_this_machine_is_the_exchanges_own(desk):
    offset = desk.rest.clock_offset()
    assert abs(offset.offset) <= offset.within + 1_000_000
    desk.until(lambda: desk.venue.clock is not None and desk.feed.clock is not None, "both measured it")
    assert desk.errors()["clock skew"] == 0


# --- the market -----------------------------------------------------------------------------------


def test_the_market_is_shown_as_it_is(desk):
    since = time.time_ns()
    desk.books_are_right()
    desk.order()
    desk.order(instrument=SPOT, quantity="0.001")
    desk.nothing_lost()
    desk.trades_are_right(since)
    quote = desk.of_kind(Quote, PERP)[-1]
    assert quote.bid < quote.ask
    assert desk.of_kind(MarkPrice, PERP)
    assert desk.of_kind(BookLevels, PERP)[0].snapshot
    stamps = [one.ts_event for one in desk.of_kind(Trade, PERP)]
    assert stamps == sorted(stamps)


def test_quotes_are_conflated_between_two_tellings_and_trades_never(served):
    slow = FEED.model_copy(update={"flush_ms": 300.0})
    batches = []
    with Desk(served, feed=slow) as desk:
        since = time.time_ns()
        desk.feed._say = lambda batch: (batches.append(list(batch)), desk.market.extend(batch))
        desk.order()
        desk.until(lambda: len(batches) > 4, "some tellings")
        desk.trades_are_right(since)
    assert desk.feed.conflated > 0
    for batch in batches:
        quotes = [one.instrument for one in batch if isinstance(one, Quote)]
        assert len(quotes) == len(set(quotes))


def test_what_bybit_does_not_have_is_refused_before_anything_starts():
    for watches in ([(SPOT, MarkPrice)], [("BTCUSDT-LINEAR.BINANCE", Quote)]):
        with pytest.raises(ConfigError):
            BybitFeed(MAINNET, watches, print)


def test_a_topic_the_venue_does_not_have_is_reported_and_the_others_live(served):
    said = []
    feed = BybitFeed(
        loopback(served.url),
        [(PERP, Quote), ("NOSUCHUSDT-LINEAR.BYBIT", Quote)],
        said.extend,
        config=FEED,
        pace=QUICK,
        pings=SHORT,
    )
    feed.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (
        any(getattr(one, "kind", "") == "topic refused" for one in said) and any(isinstance(one, Quote) for one in said)
    ):
        time.sleep(0.01)
    feed.stop()
    assert [one.detail for one in said if getattr(one, "kind", "") == "topic refused"] == [
        "linear: error:handler not found,topic:orderbook.1.NOSUCHUSDT"
    ]
    assert any(isinstance(one, Quote) for one in said)


@pytest.mark.slow
def test_what_closes_with_the_minute_is_told_once_and_as_the_exchange_has_it():
    kinds = (Bar, PremiumIndex, FundingRate)
    watches = frozenset({*((PERP, kind) for kind in kinds), *((name, BookLevels) for name in (PERP, SPOT))})
    with exchange(funding_minutes=1) as served, Desk(served, watches=watches, trades=False) as desk:
        desk.until(lambda: all(desk.of_kind(kind) for kind in kinds), "the minute closes", 80)
        (bar,), (premium,), (rate,) = (desk.of_kind(kind) for kind in kinds)
        assert bar.ts_event == premium.ts_event == rate.ts_event
        assert bar.ts_event % MINUTE == 0
        assert bar.ts_event - bar.ts_open == MINUTE
        asked = {"category": "linear", "symbol": "BTCUSDT"}
        settled = desk.rest.public("get_funding_rate_history", asked | {"limit": 1})
        assert decode.settlements(settled, PERP) == [rate]
        candles = desk.rest.public("get_kline", asked | {"interval": "1", "limit": 2})
        assert decode.rest_bars(candles, PERP, length=MINUTE, until=time.time_ns()) == [bar]
        premia = desk.rest.public("get_premium_index_price_kline", asked | {"interval": "1", "limit": 2})
        assert decode.premia(premia, PERP, length=MINUTE, until=time.time_ns()) == [premium]


# --- addresses and keys ---------------------------------------------------------------------------


def test_nothing_but_the_address_differs_between_venues():
    assert set(ENDPOINTS) == {"mainnet", "testnet", "demo"}
    own = session(MAINNET, None), session(TESTNET, None), session(DEMO, None), session(loopback(8080), None)
    plain = [
        {name: of for name, of in vars(one).items() if name not in {"endpoint", "client", "logger"}} for one in own
    ]
    assert plain[0] == plain[1] == plain[2] == plain[3]
    assert [one.endpoint for one in own] == [
        "https://api.bybit.com",
        "https://api-testnet.bybit.com",
        "https://api-demo.bybit.com",
        "http://127.0.0.1:8080",
    ]


@pytest.mark.parametrize("wrong", ["nonsense", "http://", "http://host:port", "http://host/v5", "ftp://host", 0])
def test_what_is_no_address_is_refused(wrong):
    with pytest.raises(ConfigError):
        loopback(wrong)


def test_keys_are_never_shown(desk, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    keys = Keys("the-key-itself", "the-secret-itself")
    wrong = BybitRest(desk.endpoint, keys, instruments={}, backoff=Backoff())
    with pytest.raises(UnansweredError) as unknown:
        wrong.balances()
    wrong.close()
    good_key = Keys(desk.served.key, "not-its-secret")
    forged = BybitRest(desk.endpoint, good_key, instruments={}, backoff=Backoff())
    with pytest.raises(UnansweredError) as quoted:  # Bybit quotes what was to be signed, and the key in it
        forged.balances()
    forged.close()
    shown = [
        repr(keys),
        str(keys),
        repr(session(MAINNET, keys)),
        str(unknown.value),
        str(quoted.value),
        repr(desk.venue),
    ]
    text = "".join(shown) + caplog.text + "".join(capfd.readouterr())
    for secret in ("the-key-itself", "the-secret-itself", desk.served.key, desk.served.secret, "not-its-secret"):
        assert secret not in text
    assert "10004" in str(quoted.value)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (key("thief", rights={**ALL_RIGHTS, "Wallet": ("AccountTransfer", "Withdraw")}), "may withdraw"),
        (key("reader", read_only=True), "only read"),
    ],
)
def test_a_key_that_can_withdraw_or_cannot_trade_is_refused(made: ApiKey, why):
    with Venue(keys=(made,)) as running:
        venue = BybitVenue(loopback(running.port), Keys(made.key, made.secret), {}, print, since=0)
        with pytest.raises(ConfigError, match=why):
            venue.start()
        venue.stop()


# --- sockets that are dead ------------------------------------------------------------------------


def _closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "takes connections and says nothing"])
def test_a_dead_address_never_holds_the_caller_up(silent):
    listener = socket.create_server(("127.0.0.1", 0)) if silent else None
    port = listener.getsockname()[1] if listener is not None else _closed_port()
    said = []
    begun = time.monotonic()
    feed = BybitFeed(
        loopback(port), [(PERP, Quote)], said.extend, config=FEED, pace=QUICK, pings=SHORT, attempts=Attempts(50, 0.1)
    )
    feed.start()
    assert time.monotonic() - begun < 0.5
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not said:
        time.sleep(0.01)
    begun = time.monotonic()
    feed.stop(timeout_s=0.5)
    assert time.monotonic() - begun < 2.5
    if listener is not None:
        listener.close()
    assert type(said[0]).__name__ == "FeedStale"


def test_dozens_of_reconnects_leave_no_thread_and_no_file_behind(served):
    with Desk(served, trades=False) as desk:
        before = threading.active_count(), _open_files()
        for _ in range(24):
            was = [channel.generation for channel in desk.feed._channels.values()]
            with cut_sockets(served, kind="public", close_frame=False):
                desk.until(
                    lambda was=was: all(
                        channel.generation > old and channel.topics.live
                        for channel, old in zip(desk.feed._channels.values(), was, strict=True)
                    ),
                    "all is subscribed again",
                )
        desk.until(lambda: threading.active_count() <= before[0] + 2, "the threads of dead sockets are gone")
        desk.until(lambda: _open_files() <= before[1] + 2, "and their files")
        desk.books_are_right()


def _open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_attempts_are_bounded():
    attempts = Attempts(burst=3, every_s=1_000)
    assert [attempts.wait_s() for _ in range(3)] == [0, 0, 0]
    assert attempts.wait_s() > 900


def test_the_pause_before_the_next_attempt_grows_and_is_not_the_same_for_all():
    paused = {0: [], 1: []}
    for seed, waits in paused.items():

        def refuse(_, __):
            raise OSError

        stream = Stream("x", refuse, lambda _: None, pace=Pace(first_s=1, most_s=8), attempts=Attempts(), seed=seed)

        class Stopping:
            def __init__(self, waits):
                self.waits = waits

            def is_set(self):
                return len(self.waits) >= 6

            def wait(self, seconds):
                self.waits.append(seconds)
                return False

        stream._stopping = Stopping(waits)
        stream._supervise()
    for waits in paused.values():
        assert all(most / 2 <= wait <= most for wait, most in zip(waits, [1, 2, 4, 8, 8, 8], strict=True))
    assert paused[0] != paused[1]


def test_pings_are_passed_on_as_pybit_wants_them():
    assert Pings().arguments() == {
        "testnet": False,
        "restart_on_error": False,
        "ping_interval": 20.0,
        "ping_timeout": 10.0,
    }
    assert bybit_endpoint.RedirectedSocket.__mro__[2].__module__ == "pybit.unified_trading"
