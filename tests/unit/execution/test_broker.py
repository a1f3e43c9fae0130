"""The broker hears each execution once, and passes on what concerns others."""

import pytest

from hean.errors import ContractError
from hean.execution.broker import Broker, BrokerConfig
from hean.messages import (
    CancelAll,
    CancelOrder,
    Liquidity,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    Side,
)
from tests.unit.execution.market import INSTRUMENTS, PERP, D, buy


def broker():
    return Broker(BrokerConfig(), INSTRUMENTS)


def hear(told, *messages):
    return [list(told.handle(message, 1)) for message in messages]


def fact(kind, *rest):
    return kind("o", "a", PERP, *rest)


def fill(trade_id, quantity="1", ending=""):
    return OrderFilled(
        "o", "a", PERP, trade_id, Side.BUY, D(quantity), D(100), D("0.1"), "USDT", Liquidity.TAKER, D(100), ending, 1
    )


def test_an_order_is_said_to_be_on_its_way_before_it_is_sent():
    sent = buy("1", order_id="o")

    assert hear(broker(), sent) == [[OrderSubmitted("o", "a", PERP, Side.BUY, D(1)), sent]]


def test_an_order_told_twice_is_sent_once():
    assert hear(broker(), buy("1", order_id="o"), buy("1", order_id="o"))[1] == []


@pytest.mark.parametrize("ending", ["", "stop", "liquidation"])
def test_an_execution_that_is_sent_again_is_passed_on_once(ending):
    said = hear(broker(), buy("2", order_id="o"), fill("t", ending=ending), fill("t", ending=ending))

    assert said[1:] == [[fill("t", ending=ending)], []]


def test_a_fill_that_crossed_the_cancel_is_passed_on():
    said = hear(broker(), buy("2", limit="100", order_id="o"), fact(OrderCanceled, "by us"), fill("t"))

    assert said[1:] == [[fact(OrderCanceled, "by us")], [fill("t")]]


def test_of_two_final_messages_the_first_counts():
    said = hear(broker(), buy("1", order_id="o"), fill("t"), fact(OrderCanceled, "too late"))

    assert said[-1] == []


def test_an_order_of_unknown_outcome_is_not_sent_again_and_may_turn_out_either_way():
    told = broker()
    unknown = fact(OrderOutcomeUnknown, "timeout")

    assert hear(told, buy("1", order_id="o"), unknown)[1] == [unknown]
    assert told.state.open["o"].status == "UNKNOWN"
    assert hear(told, fact(OrderRejected, "does not exist")) == [[fact(OrderRejected, "does not exist")]]
    assert "o" in told.state.finished


def test_what_is_not_ours_is_passed_on_for_the_reconciler():
    assert hear(broker(), fill("t"), fact(OrderExpired, "why")) == [[fill("t")], [fact(OrderExpired, "why")]]


def test_a_venue_that_fills_more_than_was_asked_for_ends_the_process():
    told = broker()
    hear(told, buy("1", order_id="o"))

    with pytest.raises(ContractError, match="too many"):
        hear(told, fill("t", "1.001"))


def test_only_what_rests_is_canceled():
    told = broker()
    hear(told, buy("1", order_id="market"), buy("1", limit="99", order_id="o"))

    assert hear(told, CancelAll("a")) == [[CancelOrder("a", "o", PERP)]]
    assert hear(told, CancelAll("another"), CancelOrder("a", "gone", PERP)) == [[], []]


def test_an_acknowledgement_after_the_fill_changes_nothing():
    told = broker()
    hear(told, buy("2", order_id="o"), fill("t"), fact(OrderAccepted, "v"))

    assert told.state.open["o"].status == "OPEN"
    assert told.state.open["o"].filled == 1
