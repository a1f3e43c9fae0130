"""What the venue says of an order, in whatever order it comes, becomes facts that follow from one another."""

from decimal import Decimal
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.bybit.decode import Execution, OrderStage, OrderWord
from hean.bybit.encode import Outcome, Verdict
from hean.bybit.orders import Ask, OrderTracker, Restored
from hean.execution.orders import TERMINAL, Order, OrderStatus
from hean.messages import (
    AmendOrder,
    ErrorReported,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderBracket,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    Side,
    SubmitOrder,
    TimeInForce,
)
from hean.units import SECOND

PERP = "BTCUSDT-LINEAR.BYBIT"
YES = Outcome(Verdict.ACCEPTED, venue_order_id="v-1")
NO = Outcome(Verdict.REFUSED, "110007 ab not enough for new order", 110007)
SILENCE = Outcome(Verdict.UNKNOWN, "ReadTimeout")
NO_SUCH = Outcome(Verdict.UNKNOWN, "110001 order not exists or too late to cancel", 110001, look_up=True)


def order(name="ours-1", quantity="3"):
    return SubmitOrder(
        client_order_id=name,
        strategy="carry",
        instrument=PERP,
        side=Side.BUY,
        quantity=Decimal(quantity),
        limit=Decimal(100),
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        reference=Decimal(99),
        bracket=None,
    )


def word(stage=OrderStage.OPEN, filled="0", link="ours-1", venue_id="v-1", reason="", **more):
    fields = {"quantity": Decimal(3), "parent": "", "exit": "", "ts_updated": 1} | more
    return OrderWord(
        order_id=venue_id,
        link_id=link,
        instrument=PERP,
        side=Side.BUY,
        filled=Decimal(filled),
        stage=stage,
        reason=reason,
        **fields,
    )


def fill(exec_id="e-1", quantity="1", link="ours-1", venue_id="v-1", exit_="", liquidity=Liquidity.TAKER):
    return Execution(
        exec_id=exec_id,
        order_id=venue_id,
        link_id=link,
        instrument=PERP,
        side=Side.BUY,
        quantity=Decimal(quantity),
        price=Decimal(100),
        fee=Decimal("0.1"),
        fee_currency="USDT",
        liquidity=liquidity,
        exit=exit_,
        ts_event=5,
        seq=1,
    )


def tracker(**changes):
    return OrderTracker("venue", changes.pop("restored", ()), changes.pop("heard", ()), 0, **changes)


def sent(name="ours-1", **changes):
    kept = tracker(**changes)
    assert kept.sending(order(name), 0)
    return kept


def kinds(said):
    return [type(one) for one in said]


def asks(kept, now):
    return [(question.client_order_id, question.ask) for question in kept.due(now)]


# --- three outcomes of sending ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "said", "over"),
    [(YES, OrderAccepted, False), (NO, OrderRejected, True), (SILENCE, OrderOutcomeUnknown, False)],
)
def test_an_order_has_three_outcomes(outcome, said, over):
    kept = sent()
    (fact,) = kept.created("ours-1", outcome, 1)
    assert type(fact) is said
    assert (fact.client_order_id, fact.strategy, fact.instrument) == ("ours-1", "carry", PERP)
    assert kept.orders["ours-1"].over is over


def test_an_order_of_one_name_is_sent_once():
    kept = sent()
    assert not kept.sending(order(), 1)


def test_an_acknowledgement_that_lost_the_race_against_the_stream_says_nothing_new():
    kept = sent()
    assert kinds(kept.heard(word(), 1)) == [OrderAccepted]
    assert list(kept.created("ours-1", YES, 2)) == []
    assert list(kept.created("ours-1", NO, 2)) == []


# --- what is not known is asked for -----------------------------------------------------------------


def test_an_unknown_order_is_looked_up_later_and_later_and_found():
    kept = sent()
    list(kept.created("ours-1", SILENCE, 0))
    asked = [now for now in range(0, 30 * SECOND, SECOND // 10) if asks(kept, now)]
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert asked[0] == SECOND
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]
    assert kinds(kept.heard(word(), 31 * SECOND)) == [OrderAccepted]
    assert asks(kept, 10_000 * SECOND) == []


def test_absence_is_believed_only_once_the_order_can_no_longer_arrive():
    kept = sent(absent_after=10 * SECOND)
    list(kept.created("ours-1", SILENCE, 0))
    assert list(kept.absent("ours-1", 9 * SECOND)) == []
    assert asks(kept, 10 * SECOND) == [("ours-1", Ask.STATE)]
    assert kinds(kept.absent("ours-1", 10 * SECOND)) == [OrderRejected]
    assert kept.open == []


def test_an_order_that_waits_to_be_sent_is_not_absent():
    kept = sent(absent_after=10 * SECOND)
    kept.doubt_all(20 * SECOND)  # the stream was away, and the order's turn has not come
    assert list(kept.absent("ours-1", 30 * SECOND)) == []
    assert kinds(kept.created("ours-1", YES, 40 * SECOND)) == [OrderAccepted]
    assert len(kept.open) == 1


def test_the_time_in_which_an_order_can_still_arrive_begins_when_it_has_left():
    kept = sent(absent_after=10 * SECOND)
    list(kept.created("ours-1", SILENCE, 60 * SECOND))  # it waited for its turn for a minute
    assert list(kept.absent("ours-1", 69 * SECOND)) == []
    assert kinds(kept.absent("ours-1", 70 * SECOND)) == [OrderRejected]


def test_an_order_that_exists_although_it_was_told_rejected_is_reported_once():
    kept = sent()
    list(kept.created("ours-1", NO, 0))
    (said,) = kept.heard(word(), SECOND)
    assert said.kind == "rejected order exists"
    assert list(kept.heard(word(), SECOND)) == []


@pytest.mark.parametrize(("accepted", "said"), [(True, ErrorReported), (False, OrderRejected)])
def test_an_order_of_an_earlier_life_that_never_arrived_is_rejected(accepted, said):
    kept = tracker(restored=[Restored(order(), accepted=accepted)], absent_after=SECOND)
    told = []
    for now in range(0, 100 * SECOND, SECOND):
        for _ in kept.due(now):
            told += kept.absent("ours-1", now)
    assert kinds(told) == [said]
    assert len(kept.open) == accepted


def test_an_order_that_was_acknowledged_does_not_vanish_in_silence():
    kept = sent(absent_after=0)
    list(kept.created("ours-1", YES, 0))
    kept.doubt_all(0)
    said = []
    for now in range(0, 600 * SECOND, SECOND):
        for _ in kept.due(now):
            said += kept.absent("ours-1", now)
    assert [one.kind for one in said] == ["order vanished"]
    assert len(kept.open) == 1


def test_a_fill_the_stream_did_not_bring_is_asked_for():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    list(kept.heard(word(filled="1"), SECOND))
    assert asks(kept, SECOND) == []
    assert asks(kept, 2 * SECOND) == [("ours-1", Ask.FILLS)]
    assert kinds(kept.executed(fill())) == [OrderFilled]
    assert asks(kept, 100 * SECOND) == []


def test_after_an_absence_of_the_stream_every_open_order_is_looked_up():
    kept = sent()
    kept.sending(order("ours-2"), 0)
    list(kept.created("ours-1", YES, 0))
    list(kept.created("ours-2", NO, 0))
    kept.doubt_all(5 * SECOND)
    assert asks(kept, 5 * SECOND) == [("ours-1", Ask.STATE)]


def test_an_order_that_is_missing_among_the_open_ones_is_looked_up():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.compare([], ts_asked=SECOND // 2, now=SECOND)  # sent a moment before: the list may lag
    assert asks(kept, 100 * SECOND) == []
    kept.compare([word()], ts_asked=5 * SECOND, now=5 * SECOND)
    assert asks(kept, 100 * SECOND) == []
    kept.compare([], ts_asked=5 * SECOND, now=5 * SECOND)
    assert asks(kept, 100 * SECOND) == [("ours-1", Ask.STATE)]


# --- the end comes last -----------------------------------------------------------------------------


@pytest.mark.parametrize(("stage", "fact"), [(OrderStage.CANCELED, OrderCanceled), (OrderStage.EXPIRED, OrderExpired)])
def test_the_end_of_an_order_is_told_after_its_last_fill(stage, fact):
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    assert list(kept.heard(word(stage, filled="2", reason="why"), 1)) == []
    assert kinds(kept.executed(fill("e-1"))) == [OrderFilled]
    filled, ended = kept.executed(fill("e-2"))
    assert (type(filled), type(ended), ended.reason) == (OrderFilled, fact, "why")
    assert list(kept.heard(word(stage, filled="2", reason="why"), 3)) == []


def test_a_filled_order_needs_no_other_end():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    for exec_id in ("e-1", "e-2", "e-3"):
        assert kinds(kept.executed(fill(exec_id))) == [OrderFilled]
    assert kept.open == []
    assert list(kept.heard(word(OrderStage.FILLED, filled="3"), 2)) == []
    # Bybit may send a second final message where a cancel raced the fill.
    assert list(kept.heard(word(OrderStage.CANCELED, filled="3"), 2)) == []


def test_an_order_that_the_venue_cut_down_to_the_position_ends_all_the_same():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    list(kept.executed(fill()))
    (ended,) = kept.heard(word(OrderStage.FILLED, filled="1", quantity=Decimal(1)), 1)
    assert (type(ended), ended.reason) == (OrderExpired, "ended at 1 of 3")


def test_a_fill_after_the_end_is_still_a_fill():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    assert kinds(kept.heard(word(OrderStage.CANCELED), 1)) == [OrderCanceled]
    assert kinds(kept.executed(fill())) == [OrderFilled]


def test_an_execution_counts_once_and_never_again_after_a_restart():
    kept = sent(heard=[fill("e-0").trade_id])
    assert list(kept.executed(fill("e-0"))) == []
    assert kinds(kept.executed(fill("e-1"))) == [OrderAccepted, OrderFilled]
    assert list(kept.executed(fill("e-1"))) == []


def test_two_orders_of_ours_that_meet_have_a_fill_each():
    kept = sent()
    kept.sending(order("ours-2"), 0)
    told = [
        fact
        for one in (fill(liquidity=Liquidity.MAKER), fill(link="ours-2", venue_id="v-2"))
        for fact in [*kept.executed(one), *kept.executed(one)]
        if type(fact) is OrderFilled
    ]
    assert [fact.client_order_id for fact in told] == ["ours-1", "ours-2"]
    assert told[0].trade_id != told[1].trade_id


def test_fills_that_the_venue_itself_does_not_have_are_reported_and_the_order_ends():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    list(kept.heard(word(OrderStage.CANCELED, filled="2"), 0))
    said = []
    for now in range(0, 600 * SECOND, SECOND):
        for question in kept.due(now):
            assert question.ask is Ask.FILLS
            said += kept.fills_told("ours-1")
    assert kinds(said) == [ErrorReported, OrderCanceled]


# --- cancels and amendments -------------------------------------------------------------------------


def test_a_cancel_that_the_stream_confirms_needs_nothing_else():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.canceling("ours-1")
    assert list(kept.canceled("ours-1", PERP, YES, 1)) == []
    assert kinds(kept.heard(word(OrderStage.CANCELED, reason="CancelByUser"), 2)) == [OrderCanceled]
    assert asks(kept, 1000 * SECOND) == []


def test_a_cancel_of_what_is_no_longer_there_is_looked_up_and_unknown_it_is_not():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.canceling("ours-1")
    assert list(kept.canceled("ours-1", PERP, NO_SUCH, 1)) == []
    assert asks(kept, 2 * SECOND) == [("ours-1", Ask.STATE)]
    list(kept.executed(fill("e-1", "3")))
    assert kept.open == []


def test_a_cancel_without_an_answer_is_asked_for_and_sent_again_while_the_order_stands():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.canceling("ours-1")
    assert kinds(kept.canceled("ours-1", PERP, SILENCE, 0)) == [OrderOutcomeUnknown]
    assert asks(kept, SECOND) == [("ours-1", Ask.STATE)]
    list(kept.heard(word(), SECOND))
    assert asks(kept, 3 * SECOND) == [("ours-1", Ask.CANCEL)]
    assert asks(kept, 10 * SECOND) == [("ours-1", Ask.STATE)]


def test_a_cancel_that_was_too_early_for_the_rate_is_sent_again():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.canceling("ours-1")
    assert list(kept.canceled("ours-1", PERP, Outcome(Verdict.REFUSED, "10006", 10006, busy=True), 0)) == []
    assert asks(kept, SECOND) == [("ours-1", Ask.CANCEL)]


def test_a_cancel_for_an_order_nobody_told_us_of_is_not_forgotten_when_it_was_too_early():
    (said,) = tracker().canceled("foreign", PERP, Outcome(Verdict.REFUSED, "10006", 10006, busy=True), 0)
    assert said.kind == "cancel not sent"


def test_a_refused_cancel_is_reported():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    kept.canceling("ours-1")
    (said,) = kept.canceled("ours-1", PERP, Outcome(Verdict.REFUSED, "10005 denied", 10005), 0)
    assert (type(said), said.kind) == (ErrorReported, "cancel refused")


def test_an_amendment_has_three_outcomes_too():
    amend = AmendOrder("carry", "ours-1", PERP, Decimal(2), None)
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    assert list(kept.amended(amend, YES, 0)) == [OrderAmended("ours-1", "carry", PERP, Decimal(2), None)]
    (refused,) = kept.amended(amend, Outcome(Verdict.REFUSED, "110064", 110064), 0)
    assert refused.kind == "amend refused"
    assert kinds(kept.amended(amend, SILENCE, 0)) == [OrderOutcomeUnknown]
    assert asks(kept, SECOND) == [("ours-1", Ask.STATE)]


@pytest.mark.parametrize(
    ("quantity", "limit", "at", "said"),
    [
        ("5", "101", 1, [OrderAmended]),
        ("3", "101", 1, []),
        ("5", "100", 1, []),
        ("3", "100", 11, [ErrorReported]),
    ],
    ids=["as asked", "not yet the quantity", "not yet the limit", "it can no longer arrive"],
)
def test_an_amendment_nobody_answered_is_known_by_the_order_itself(quantity, limit, at, said):
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    list(kept.amended(AmendOrder("carry", "ours-1", PERP, Decimal(5), Decimal(101)), SILENCE, 0))
    stands = word(quantity=Decimal(quantity), limit=Decimal(limit))
    assert kinds(kept.heard(stands, at * SECOND)) == said
    assert kept.orders["ours-1"].unsure is (not said)


@pytest.mark.parametrize(("end", "said"), [("moot", OrderCanceled), ("unsent", OrderExpired)])
def test_an_order_that_never_left_has_an_end(end, said):
    kept = sent()
    ended = kept.moot("ours-1") if end == "moot" else kept.unsent("ours-1", "too old")
    assert kinds(ended) == [said]
    assert kept.open == []


def amended(outcome):
    """An order for 3, amended to 5, of which 3 have filled."""
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    amend = AmendOrder("drill", "ours-1", PERP, Decimal(5), None)
    kept.amending(amend)
    list(kept.amended(amend, outcome, 1))
    assert kinds(kept.executed(fill("e-1", "3"))) == [OrderFilled]
    assert len(kept.open) == 1
    return kept


def test_an_order_amended_to_more_is_not_over_when_its_first_quantity_has_filled():
    kept = amended(YES)
    assert kinds(kept.executed(fill("e-2", "2"))) == [OrderFilled]
    assert kept.open == []


def test_the_cancel_of_what_an_amendment_added_is_told():
    kept = amended(YES)
    last = word(OrderStage.CANCELED, filled="3", quantity=Decimal(5))
    assert kinds(kept.heard(last, 2)) == [OrderCanceled]


@pytest.mark.parametrize("stage", [OrderStage.FILLED, OrderStage.CANCELED])
def test_an_order_whose_amendment_came_to_nothing_ends_filled(stage):
    kept = amended(Outcome(Verdict.REFUSED, "110007", 110007))
    assert list(kept.heard(word(stage, filled="3"), 2)) == []
    assert kept.open == []


# --- who it belongs to ------------------------------------------------------------------------------


def test_orders_of_others_are_told_without_a_strategy_and_acceptance_once():
    kept = tracker()
    (accepted,) = kept.heard(word(link="foreign"), 1)
    assert (accepted.client_order_id, accepted.strategy) == ("foreign", "")
    assert list(kept.heard(word(link="foreign"), 2)) == []
    (filled,) = kept.executed(fill(link="foreign"))
    assert (filled.client_order_id, filled.strategy, filled.reference) == ("foreign", "", None)
    assert kinds(kept.heard(word(OrderStage.CANCELED, link="foreign"), 3)) == [OrderCanceled]


def test_an_exit_belongs_to_the_strategy_of_the_order_it_protects():
    kept = sent()
    list(kept.created("ours-1", YES, 0))
    assert list(kept.heard(word(link="", venue_id="sl-9", parent="ours-1", exit="stop"), 1)) == []
    (filled,) = kept.executed(fill("e-9", link="", venue_id="sl-9", exit_="stop"))
    assert (filled.client_order_id, filled.strategy, filled.exit) == ("sl-9", "carry", "stop")
    assert len(kept.open) == 1


@pytest.mark.parametrize(
    ("target", "price", "exit_"),
    [("120", "91", "stop"), ("120", "118", "target"), (None, "150", "stop")],
)
def test_of_an_exit_on_spot_the_price_says_whether_it_is_the_stop_or_the_target(target, price, exit_):
    kept = tracker()
    bracket = OrderBracket(Decimal(90), None if target is None else Decimal(target))
    kept.sending(msgspec.structs.replace(order(), bracket=bracket), 0)
    list(kept.heard(word(link="", venue_id="oco", parent="ours-1", exit="bracket"), 1))
    fired = msgspec.structs.replace(fill("e-9", link="", venue_id="oco", exit_="bracket"), price=Decimal(price))
    (filled,) = kept.executed(fired)
    assert (filled.exit, filled.strategy) == (exit_, "carry")


def test_an_order_of_an_earlier_life_is_looked_up_at_once():
    kept = tracker(restored=[Restored(order(), Decimal(1))], heard=["e-1"])
    assert asks(kept, 0) == [("ours-1", Ask.STATE)]
    assert list(kept.heard(word(OrderStage.CANCELED, filled="2"), 1)) == []
    filled, ended = kept.executed(fill("e-2"))
    assert (filled.strategy, filled.reference, type(ended)) == ("carry", 99, OrderCanceled)


# --- any order of events ----------------------------------------------------------------------------

LIVES = {
    "filled": ([fill("e-1"), fill("e-2", "2")], word(OrderStage.FILLED, filled="3")),
    "canceled": ([fill("e-1")], word(OrderStage.CANCELED, filled="1", reason="CancelByUser")),
    "expired": ([], word(OrderStage.EXPIRED, reason="EC_PostOnlyWillTakeLiquidity")),
}


@pytest.mark.parametrize("life", LIVES)
@given(seed=st.integers(0, 10_000), outcome=st.sampled_from([YES, SILENCE, None]))
@settings(max_examples=150)
def test_whatever_is_shuffled_repeated_or_lost_the_broker_can_follow_and_nothing_is_missing(life, seed, outcome):
    """All that the venue says comes in any order, some of it twice, some never; what is asked for by REST is answered."""
    chance = Random(seed)
    fills, end = LIVES[life]
    said_by_stream = [word(), word(filled="1") if fills else word(), *fills, end]
    heard = [one for one in said_by_stream for _ in range(chance.choice([0, 1, 1, 2]))]
    answer = [outcome] if outcome is not None else []
    chance.shuffle(heard)
    heard.insert(chance.randrange(len(heard) + 1), answer)

    kept = sent(absent_after=0)
    broker = Order(**{name: getattr(order(), name) for name in ORDER_FIELDS})
    broker.apply(OrderSubmitted("ours-1", "carry", PERP, Side.BUY, Decimal(3)))
    now = 0
    facts = []
    for one in heard:
        now += SECOND // 50
        facts += told(kept, one, now)
    if outcome is None and not kept.orders["ours-1"].over:
        facts += kept.created("ours-1", SILENCE, now)
    kept.compare([], ts_asked=now + 10 * SECOND, now=now + 10 * SECOND)
    for later in range(now, now + 120 * SECOND, SECOND // 2):
        for question in kept.due(later):
            if question.ask is Ask.STATE:
                facts += kept.heard(end, later)
            else:
                facts += [fact for one in fills for fact in kept.executed(one)]
                facts += kept.fills_told("ours-1")
    for fact in facts:
        was_over = broker.status in TERMINAL
        if not was_over or type(fact) is OrderFilled:
            broker.apply(fact)

    assert [fact.trade_id for fact in facts if type(fact) is OrderFilled] == sorted(
        {one.trade_id for one in fills}, key=[fact.trade_id for fact in facts if type(fact) is OrderFilled].index
    )
    assert broker.filled == sum(one.quantity for one in fills)
    assert (
        broker.status
        is {
            "filled": OrderStatus.FILLED,
            "canceled": OrderStatus.CANCELED,
            "expired": OrderStatus.EXPIRED,
        }[life]
    )
    ends = [at for at, fact in enumerate(facts) if type(fact) in {OrderCanceled, OrderExpired}]
    last_fill = max((at for at, fact in enumerate(facts) if type(fact) is OrderFilled), default=-1)
    assert len(ends) == (life != "filled")
    assert all(at > last_fill for at in ends)
    assert kept.open == []


ORDER_FIELDS = (
    "client_order_id", "strategy", "instrument", "side", "quantity", "limit", "time_in_force", "reference"
)  # fmt: skip


def told(kept, one, now):
    if isinstance(one, list):
        return [fact for outcome in one for fact in kept.created("ours-1", outcome, now)]
    return list(kept.heard(one, now) if isinstance(one, OrderWord) else kept.executed(one))
