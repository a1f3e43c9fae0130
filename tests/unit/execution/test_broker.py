"""The broker hears each execution once, and passes on what concerns others."""

import pytest

from hean import codec
from hean.errors import ContractError
from hean.execution.broker import Broker, BrokerConfig, BrokerState
from hean.execution.orders import Restorable
from hean.messages import (
    CORE,
    AmendOrder,
    CancelAll,
    CancelOrder,
    Liquidity,
    NodeStarted,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    OrderSubmitted,
    PairLeg,
    RestatedOrder,
    Side,
    SubmitPair,
    TradingState,
    TradingStateChanged,
)
from tests.unit.execution.market import INSTRUMENTS, PERP, SPOT, D, buy, sell


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


# --- amendments -----------------------------------------------------------------------------------


def test_an_open_order_is_amended_and_what_the_venue_says_of_it_goes_on():
    told = broker()
    amend, amended = AmendOrder("a", "o", PERP, D(1), D(98)), fact(OrderAmended, D(1), D(98))

    said = hear(told, buy("2", limit="99", order_id="o"), fact(OrderAccepted, "v"), amend, amended)

    assert said[2:] == [[amend], [amended]]
    assert (told.state.open["o"].quantity, told.state.open["o"].limit) == (1, 98)
    hear(told, fill("t", "1"))
    assert told.state.open == {}


def test_what_is_over_is_not_amended():
    told = broker()
    hear(told, buy("1", limit="99", order_id="o"), fill("t"))

    assert hear(told, AmendOrder("a", "o", PERP, None, D(98)), fact(OrderAmended, None, D(98))) == [[], []]


# --- after a restart ------------------------------------------------------------------------------


def test_cancelling_all_goes_on_to_the_venue_which_may_hold_what_nobody_told_us_of():
    told = broker()
    hear(told, buy("1", limit="99", order_id="o"))

    assert hear(told, CancelAll("")) == [[CancelOrder("a", "o", PERP), CancelAll("")]]
    assert hear(told, CancelAll("a")) == [[CancelOrder("a", "o", PERP)]]


def test_it_restates_what_is_under_way_and_calls_what_rests_back_again():
    told = broker()
    hear(told, buy("2", limit="99", order_id="o"), fact(OrderAccepted, "v"), fill("t", "0.5"))
    hear(told, sell("1", order_id="m", name=SPOT), OrderOutcomeUnknown("m", "a", SPOT, "timeout"))
    hear(told, buy("1", order_id="gone"), OrderRejected("gone", "a", PERP, "no"))

    assert hear(told, NodeStarted(CORE)) == [
        [
            CancelOrder("a", "o", PERP),
            OrdersRestated(
                {
                    "o": RestatedOrder("a", PERP, D("1.5"), D("0.5"), unknown=False),
                    "m": RestatedOrder("a", SPOT, D(-1), D(0), unknown=True),
                },
                (),
            ),
        ]
    ]


@pytest.mark.parametrize(
    ("heard", "accepted"),
    [
        ([], False),
        ([fact(OrderOutcomeUnknown, "timeout")], False),
        ([fact(OrderAccepted, "v")], True),
        ([fact(OrderAccepted, "v"), fact(OrderOutcomeUnknown, "cancel: timeout")], True),
        ([fill("t", "0.5")], True),
    ],
    ids=["on its way", "unanswered", "accepted", "a cancel unanswered", "filled in part"],
)
def test_an_open_order_is_rebuilt_in_full_for_the_venue(heard, accepted):
    told = broker()
    sent = buy("2", limit="99", order_id="o", reduce_only=True, bracket=("90", "120"))
    hear(told, sent, *heard)

    filled = told.state.open["o"].filled
    assert told.restorable() == [Restorable(sent, filled, accepted)]


def test_what_was_heard_is_known_by_name():
    told = broker()
    hear(
        told,
        buy("2", order_id="o"),
        fill("t-1", "0.5"),
        fill("t-2", "0.5"),
        fill("t-1", "0.5"),
        fill("x", ending="stop"),
    )

    assert told.heard() == ["t-1", "t-2", "x"]


def test_a_state_that_was_read_back_is_looked_at_by_every_part():
    told = broker()
    pair = SubmitPair(
        "p-1", "a", leg(PERP, Side.SELL), leg(SPOT, Side.BUY), opening=True, max_naked=D(10_000), reduce_only=True
    )
    hear(told, TradingStateChanged(TradingState.REDUCING, "why"))
    restored = broker()
    restored.state = codec.decoded(BrokerState, codec.encoded(told.state))

    assert [type(said).__name__ for said in restored.handle(pair, 1)] == ["PairFinished"]
    hear(restored, TradingStateChanged(TradingState.ACTIVE, "why"), pair)
    assert list(restored.state.pairs) == ["p-1"]
    assert restored.wake_at() is not None


def leg(name, side):
    return PairLeg(name, side, D("0.1"), D(50_000))
