"""The gateways' own threads, told one thing at a time: no socket, no exchange."""

import time
from decimal import Decimal
from itertools import pairwise
from types import SimpleNamespace

import pytest
import websocket
from hypothesis import given
from hypothesis import strategies as st

from actors.gateways.bybit_endpoint import Keys, RedirectedSocket, loopback
from actors.gateways.bybit_feed import BybitFeed, _Answer
from actors.gateways.bybit_rest import AccountReport, _spans
from actors.gateways.bybit_streams import Attempts, Connected, Heard, Lost, Pace, Stream
from actors.gateways.bybit_venue import BybitVenue
from actors.gateways.bybit_watched import ask_for
from actors.gateways.bybit_words import Reported
from hean.bybit.encode import Verdict
from hean.bybit.wire import Push
from hean.instruments import Category
from hean.messages import (
    AccountSnapshot,
    AmendOrder,
    Bar,
    FeedLive,
    FeedStale,
    FundingRate,
    FundingSettled,
    OrderAmended,
    OrderOutcomeUnknown,
    PremiumIndex,
    ReconcileDue,
    Side,
    SubmitOrder,
    TimeInForce,
    Trade,
)
from hean.units import DAY, MILLISECOND, MINUTE, SECOND

PERP = "BTCUSDT-LINEAR.BYBIT"
NOWHERE = loopback(1)


def feed(*kinds):
    said = []
    return BybitFeed(NOWHERE, [(PERP, kind) for kind in kinds], said.extend), said


def venue(**more):
    made = BybitVenue(NOWHERE, Keys("k", "s"), {}, print, since=0, **more)._account
    made.private.generation = 1
    return made


def order(name="ours-1"):
    return SubmitOrder(
        client_order_id=name,
        strategy="carry",
        instrument=PERP,
        side=Side.BUY,
        quantity=Decimal(1),
        limit=Decimal(100),
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference=None,
        bracket=None,
    )


# --- the feed -------------------------------------------------------------------------------------


def candle(begins):
    return Bar(PERP, begins + MINUTE, begins, 1.0, 2.0, 0.5, 1.5, 3.0)


def closing(begins):
    row = {
        "start": begins // MILLISECOND,
        "end": (begins + MINUTE) // MILLISECOND - 1,
        "open": "1",
        "high": "2",
        "low": "0.5",
        "close": "1.5",
        "volume": "3",
        "confirm": True,
    }
    return Push(topic="kline.1.BTCUSDT", data=[row])


def test_a_candle_that_does_not_follow_the_last_waits_for_those_between():
    watching, said = feed(Bar)
    watched = watching._watched[PERP]
    at = watched.ts_bar
    channel = watching._channels[Category.LINEAR]
    watching._hear(Category.LINEAR, channel, closing(at))
    watching._hear(Category.LINEAR, channel, closing(at + 3 * MINUTE))  # the connection was away for two
    question = watching._questions.get_nowait()
    assert question.about == "bars"
    found = [candle(at + n * MINUTE) for n in range(4)]
    watching._answered(_Answer(question.number, PERP, "bars", found))
    watching._flush(force=True)
    assert said == found


@pytest.mark.parametrize("about", ["bars", "premium"])
def test_a_candle_that_closed_but_a_moment_ago_is_not_yet_had_by_rest(about):
    watching, _ = feed(Bar, PremiumIndex)
    now = time.time_ns()
    opened = [(now - MINUTE - ago * SECOND) // MILLISECOND for ago in (1, 61)]
    rows = [[str(ms), *["1"] * (6 if about == "bars" else 4)] for ms in opened]
    rest = SimpleNamespace(public=lambda *_: {"list": rows})
    assert len(ask_for(rest, watching._watched[PERP], about, watching.config)) == 1


def test_questions_do_not_pile_up_while_nobody_answers():
    watching, _ = feed(Bar, PremiumIndex, FundingRate, Trade)
    watched = watching._watched[PERP]
    watched.trades.ts_since = watching._now
    for seconds in range(0, 3_600, 5):
        watching._now += seconds * SECOND
        watching._watch_over(watched, watching._now)
    assert watching._questions.qsize() <= 4


def test_that_nobody_hears_of_trades_is_said_although_nobody_has_to_trade():
    watching, said = feed(Trade)
    watched, channel = watching._watched[PERP], watching._channels[Category.LINEAR]
    now = watching._now
    channel.take(Connected("linear", 1), now)
    channel.topics.acknowledged(SimpleNamespace(op="subscribe", req_id="r1", success=True), now)
    quiet = now + 3_600 * SECOND
    channel.tick(quiet)
    watching._watch_over(watched, quiet)
    channel.take(Lost("linear", 1, "cut"), quiet)
    watching._watch_over(watched, quiet + 4 * SECOND)
    watching._flush(force=True)
    assert said == []
    watching._watch_over(watched, quiet + 6 * SECOND)
    watching._flush(force=True)
    assert [type(one) for one in said] == [FeedStale]


def test_who_is_behind_with_listening_does_not_see_the_market():
    watching, said = feed(Bar)
    watched, channel = watching._watched[PERP], watching._channels[Category.LINEAR]
    now = watching._now + 100 * SECOND
    channel.take(Connected("linear", 1), now)
    tick = {"topic": "kline.1.BTCUSDT", "data": []}
    for came in (now - 95 * SECOND, now - SECOND):
        channel.take(Heard("linear", 1, came, tick), now)
        watching._watch_over(watched, now)
    watching._flush(force=True)
    assert [type(one) for one in said] == [FeedStale, FeedLive]


def test_a_clock_that_is_set_back_stops_nothing(monkeypatch):
    watching, said = feed(Trade)
    watching._tell(FeedLive(PERP))
    watching._tick()
    assert said.pop() == FeedLive(PERP)
    back = watching._now - 3_600 * SECOND
    monkeypatch.setattr(time, "time_ns", lambda: back)
    watching._tell(FeedLive(PERP))
    deadline = time.monotonic() + 5
    while not said and time.monotonic() < deadline:
        watching._tick()
    assert said


# --- spans of time --------------------------------------------------------------------------------


@given(since=st.integers(0, 100 * DAY), lasts=st.integers(-DAY, 100 * DAY))
def test_a_long_time_is_asked_for_in_spans_that_leave_out_nothing_and_have_nothing_twice(since, lasts):
    spans = _spans(since, since + lasts)
    assert spans[0][0] * MILLISECOND <= since
    assert spans[-1][1] * MILLISECOND >= since + lasts
    assert all(start <= end < start + 7 * DAY // MILLISECOND for start, end in spans)
    assert all(start == end + 1 for (_, end), (start, _) in pairwise(spans))


# --- the venue ------------------------------------------------------------------------------------


def test_a_private_message_that_cannot_be_read_at_all_makes_us_ask():
    trading = venue()
    trading._of_stream(Heard("private", 1, 5, {"topic": "execution", "creationTime": -1, "data": []}))
    assert any(isinstance(one, ReconcileDue) for one in trading._out)
    assert trading.asking.wanted == [None]


def test_a_settlement_told_in_an_earlier_life_is_not_told_again():
    trading = venue(heard=["f-1"])
    settled = [FundingSettled(name, PERP, *[Decimal(1)] * 4, 5) for name in ("f-1", "f-2")]
    trading._executed(settled)
    assert trading._out == settled[1:]


def test_a_question_is_put_once_until_it_is_answered():
    trading = venue()
    trading._command(order())
    trading.tracker.doubt_all(trading._now)
    for _ in range(100):
        trading._now += 30 * SECOND
        trading._ticked = 0
        trading._tick()
    waiting = trading.asking.questions
    questions = [waiting.get_nowait() for _ in range(waiting.qsize())]
    assert len(questions) == 2  # one of the order, one of the clock
    assert trading.tracker.orders["ours-1"].asked == 1  # waiting is not having been told


def test_what_cannot_be_asked_for_is_asked_for_later_and_later():
    trading = venue()
    nothing = AccountSnapshot(0, 5, False, (), {}, {}, {}, {}, ())
    asked = []
    trading._ask_for_everything()
    for seconds in range(300):
        trading._now, trading._ticked = trading._now + SECOND, 0
        trading._tick()
        if trading.asking.wanted:
            trading.asking._next()
            asked.append(seconds)
            trading._reported(Reported((None,), AccountReport(nothing, (), (), (), (), ("executions: unreadable",))))
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1, 30)


class Wire:
    """A trade socket that keeps who waits for an answer, or that has just gone."""

    auth = True

    def __init__(self, failure=None):
        self.failure = failure
        self.waiting = []

    def place_order(self, answered, _, **__):
        if self.failure is not None:
            raise self.failure
        self.waiting.append(answered)

    amend_order = place_order


def on_wire(wire):
    trading = venue()
    trading.sender.trade = SimpleNamespace(socket=wire, generation=1)
    return trading


def happened(trading):
    """Take in all that the threads have told; what is said of it."""
    while not trading._events.empty():
        trading._take(trading._events.get_nowait())
    return trading._out


def test_each_of_two_amendments_on_their_way_has_its_own_outcome():
    wire = Wire()
    trading = on_wire(wire)
    for quantity in (2, 3):
        trading.sender.by_socket(AmendOrder("drill", "ours-1", PERP, Decimal(quantity), None))
    wire.waiting[0]({"retCode": 0, "data": {}})
    trading.sender._give_up(lambda _: True, "no answer in time")
    assert [type(one) for one in happened(trading)] == [OrderAmended, OrderOutcomeUnknown]


GONE = [websocket.WebSocketConnectionClosedException("closed"), OSError(), AttributeError("'NoneType' has no 'send'")]


@pytest.mark.parametrize("failure", GONE, ids=lambda failure: type(failure).__name__)
def test_a_socket_that_goes_while_an_order_is_sent_leaves_its_outcome_unknown(failure):
    trading = on_wire(Wire(failure))
    assert trading.sender.by_socket(order())
    assert trading._events.get_nowait().outcome.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("failure", GONE, ids=lambda failure: type(failure).__name__)
def test_a_socket_that_goes_while_a_topic_is_asked_for_is_replaced(failure):
    def send(_):
        raise failure

    gone = SimpleNamespace(
        exited=False,
        is_connected=lambda: True,
        exit=lambda: None,
        ws=SimpleNamespace(send=send),
        wst=SimpleNamespace(is_alive=lambda: True, join=lambda _: None),
    )
    stream = Stream("x", lambda *_: gone, lambda _: None, pace=Pace(), attempts=Attempts(), seed=0)
    stream.send(1, {"op": "subscribe"})
    assert stream._live(1).startswith("sending failed")


def test_a_gateway_whose_stream_has_failed_is_not_alive():
    assert not feed(Trade)[0].alive
    trading = venue()
    assert not trading.alive


@pytest.mark.parametrize(
    "fault", [OSError(9, "Bad file descriptor"), AttributeError("sock"), websocket.WebSocketTimeoutException()]
)
def test_a_ping_that_finds_its_connection_gone_ends_no_thread_with_a_trace(fault):
    socket = RedirectedSocket.__new__(RedirectedSocket)
    asked = []

    def send(_):
        asked.append(1)
        raise fault

    socket.exited, socket.custom_ping_message = False, "{}"
    socket.ws = SimpleNamespace(send=send, sock=SimpleNamespace(connected=True))
    socket._send_custom_ping()
    assert asked
