"""Subscriptions: what is asked for, what is acknowledged, what falls silent, and what is done about it."""

import pytest

from hean.bybit.topics import Topics, TopicStage
from hean.bybit.wire import Ack
from hean.units import SECOND

BOOK, TRADES = "orderbook.50.BTCUSDT", "publicTrade.BTCUSDT"


def topics(*names, per_request=10, limit=5):
    limits = {name: limit * SECOND if name.startswith("orderbook") else None for name in names or (BOOK, TRADES)}
    return Topics(limits, per_request=per_request, ack_ns=2 * SECOND, pause_ns=SECOND, now=0)


def ack(request, *, success=True, ret_msg=""):
    return Ack(op="subscribe", success=success, ret_msg=ret_msg, req_id=request["req_id"])


def opened(now=0):
    kept = topics()
    (request,) = kept.open(now)
    kept.acknowledged(ack(request), now)
    assert kept.live
    return kept


def test_all_is_asked_for_in_requests_of_so_many_and_live_once_acknowledged():
    kept = topics(*(f"orderbook.50.S{n}" for n in range(12)))
    first, second = kept.open(0)
    assert (len(first["args"]), len(second["args"])) == (10, 2)
    assert not kept.live
    kept.acknowledged(ack(first), 0)
    assert not kept.live
    kept.acknowledged(ack(second), 0)
    assert kept.live


def test_a_refused_request_is_asked_again_topic_by_topic_and_only_the_bad_one_is_given_up():
    kept = topics()
    (request,) = kept.open(0)
    alone = kept.acknowledged(ack(request, success=False, ret_msg="error:handler not found"), 0)
    assert [one["args"] for one in alone] == [[BOOK], [TRADES]]
    kept.acknowledged(ack(alone[0], success=False, ret_msg="error:handler not found"), 0)
    kept.acknowledged(ack(alone[1]), 0)
    assert kept.topics[BOOK].stage is TopicStage.REFUSED
    assert kept.refused == {BOOK: "error:handler not found"}
    assert kept.live
    assert kept.due(100 * SECOND).requests == []


def test_what_is_subscribed_already_is_not_refused():
    kept = topics(BOOK)
    (request,) = kept.open(0)
    kept.acknowledged(ack(request, success=False, ret_msg=f"error:already subscribed,topic:{BOOK}"), 0)
    assert kept.live


def test_an_acknowledgement_that_never_comes_ends_the_connection():
    kept = topics()
    kept.open(0)
    assert not kept.due(2 * SECOND).reconnect
    assert "not acknowledged" in kept.due(3 * SECOND).reconnect


def test_a_message_is_as_good_as_an_acknowledgement():
    kept = topics(BOOK)
    kept.open(0)
    kept.hear(BOOK, 1)
    assert kept.live


def test_a_silent_topic_is_begun_anew_and_then_the_connection():
    kept = opened()
    kept.hear(BOOK, SECOND)
    assert kept.due(6 * SECOND).requests == []
    unsubscribe, subscribe = kept.due(7 * SECOND).requests
    assert (unsubscribe["op"], unsubscribe["args"]) == ("unsubscribe", [BOOK])
    assert (subscribe["op"], subscribe["args"]) == ("subscribe", [BOOK])
    kept.acknowledged(ack(subscribe), 7 * SECOND)
    assert not kept.due(12 * SECOND).requests
    assert kept.due(13 * SECOND).requests
    kept.acknowledged(Ack(op="subscribe", success=True, req_id="r5"), 13 * SECOND)
    assert "silent" in kept.due(17 * SECOND).reconnect


def test_nobody_has_to_trade():
    kept = topics(TRADES)
    kept.acknowledged(ack(kept.open(0)[0]), 0)
    due = kept.due(10_000 * SECOND)
    assert (due.requests, due.reconnect) == ([], "")
    assert not kept.silent([TRADES], 10_000 * SECOND)


def test_what_nobody_has_to_say_is_not_seen_while_it_is_not_subscribed():
    kept = opened()
    kept.due(100 * SECOND)
    kept.lost()
    assert not kept.silent([TRADES], 102 * SECOND)
    assert kept.silent([TRADES], 103 * SECOND)
    kept.acknowledged(ack(kept.open(104 * SECOND)[0]), 104 * SECOND)
    kept.due(104 * SECOND)
    assert not kept.silent([TRADES], 105 * SECOND)


@pytest.mark.parametrize(("now", "silent"), [(5, False), (6, True)])
def test_silence_is_counted_across_connections(now, silent):
    kept = opened()
    kept.lost()
    kept.open(4 * SECOND)
    assert kept.silent([BOOK], now * SECOND) is silent


def test_a_broken_chain_is_begun_anew_at_once_but_not_again_within_the_pause():
    kept = opened()
    kept.renew(BOOK)
    _, subscribe = kept.due(SECOND).requests
    kept.acknowledged(ack(subscribe), SECOND)
    kept.renew(BOOK)
    assert kept.due(SECOND + SECOND // 2).requests == []
    assert len(kept.due(2 * SECOND).requests) == 2


def test_a_topic_that_makes_sense_again_is_left_alone():
    kept = opened()
    kept.renew(BOOK)
    kept.settled(BOOK)
    assert kept.due(3 * SECOND).requests == []


def test_a_topic_that_never_makes_sense_ends_the_connection():
    kept = opened()
    for now in range(1, 5):
        assert not kept.due(now * SECOND).reconnect
        kept.hear(BOOK, now * SECOND)
        kept.renew(BOOK)
    assert "makes no sense" in kept.due(5 * SECOND).reconnect


def test_nothing_is_asked_of_a_socket_that_is_gone():
    kept = opened()
    kept.renew(BOOK)
    kept.lost()
    due = kept.due(100 * SECOND)
    assert (due.requests, due.reconnect) == ([], "")
