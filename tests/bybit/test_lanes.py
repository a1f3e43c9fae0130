"""Whose turn it is: cancels before what reduces before what opens, and one order's requests in their order."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.bybit.lanes import CancelEverything, Lanes, Rank, lessens
from hean.bybit.rate_budget import RateBudget
from hean.instruments import Category
from hean.messages import AmendOrder, CancelOrder, Side, SubmitOrder, TimeInForce
from hean.units import SECOND

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
AGE = 5 * SECOND


def opens(name, instrument=PERP, *, reduce_only=False):
    return SubmitOrder(
        name, "s", instrument, Side.BUY, Decimal(1), Decimal(1), TimeInForce.GTC, reduce_only, None, None
    )


def amends(name):
    return AmendOrder("s", name, PERP, Decimal(2), None)


def cancels(name, instrument=PERP):
    return CancelOrder("s", name, instrument)


def lanes():
    return Lanes(RateBudget(), AGE)


def flooded(count=50):
    """Lanes in which opening orders wait, their budget used up."""
    made = lanes()
    for number in range(count):
        made.put(opens(f"o-{number}"), 0)
    for _ in range(10):
        made.take(0)
    assert isinstance(made.take(0), int)
    return made


def test_behind_a_flood_of_what_opens_a_cancel_and_a_reduce_leave_next():
    made = flooded()
    made.put(opens("reduce", reduce_only=True), 1, reduces=True)
    made.put(cancels("old"), 2)
    made.put(CancelEverything(Category.LINEAR), 3)
    assert {made.take(3).client_order_id, made.take(3).client_order_id} == {"old", "all LINEAR"}
    assert isinstance(made.take(3), int)  # the reduce shares the budget of all creates
    later = 2 * SECOND
    assert made.take(later).client_order_id == "reduce"
    assert made.take(later).client_order_id == "o-10"


def test_one_market_that_is_used_up_does_not_hold_the_other_up():
    made = flooded()
    made.put(opens("coin", SPOT), 1)
    assert made.take(1).client_order_id == "coin"


def test_a_thread_that_is_kept_free_takes_nothing_that_opens():
    made = lanes()
    made.put(opens("o"), 0)
    assert made.take(0, Rank.REDUCE) is None
    made.put(cancels("old"), 0)
    assert made.take(0, Rank.REDUCE) == cancels("old")


def test_a_cancel_waits_for_the_answer_to_its_create():
    made = lanes()
    made.put(opens("o"), 0)
    created = made.take(0)
    assert made.put(cancels("o"), 1)
    assert made.take(1) is None
    made.done(created)
    assert made.take(1) == cancels("o")


def test_a_cancel_of_what_has_not_left_makes_both_moot():
    made = flooded()
    made.put(amends("o-20"), 1)
    assert made.holds("o-20")
    assert not made.put(cancels("o-20"), 1)
    assert not made.holds("o-20")
    assert made.take(1) != cancels("o-20")
    assert len(made) == 39


def test_a_cancel_makes_the_amendment_before_it_moot_and_is_sent_once():
    made = lanes()
    made.put(amends("o"), 0)
    for _ in range(3):
        assert made.put(cancels("o"), 0)
    assert made.take(0) == cancels("o")
    assert len(made) == 0


def test_what_opens_is_given_back_when_it_is_too_old_and_nothing_else_ever_is():
    made = lanes()
    made.put(opens("o"), 0)
    made.put(amends("o"), 0)
    made.put(amends("other"), 0)
    made.put(opens("r", reduce_only=True), 0, reduces=True)
    made.put(cancels("c"), 0)
    assert made.aged(AGE) == []
    assert {type(one.request) for one in made.aged(AGE + 1)} == {SubmitOrder, AmendOrder}
    assert len(made) == 2
    assert made.aged(10**18) == []
    assert made.take(10**18) == cancels("c")


@given(steps=st.lists(st.tuples(st.sampled_from("oarc"), st.integers(0, 5), st.integers(0, SECOND)), max_size=60))
def test_the_requests_of_one_order_leave_in_their_order_and_each_once(steps):
    made, now, told, left = lanes(), 0, [], []
    under_way = []
    for kind, number, pause in steps:
        now += pause
        name = f"o-{number}"
        request = {"o": opens(name), "a": amends(name), "r": opens(name), "c": cancels(name)}[kind]
        if isinstance(request, SubmitOrder) and any(
            one.client_order_id == name and isinstance(one, SubmitOrder) for one in told
        ):
            continue  # a name is given once
        told.append(request)
        made.put(request, now, reduces=kind == "r")
        taken = made.take(now)
        if taken is not None and not isinstance(taken, int):
            left.append(taken)
            under_way.append(taken)
        if len(under_way) > 2:
            made.done(under_way.pop(0))
    for name in {one.client_order_id for one in left}:
        asked = iter([one for one in told if one.client_order_id == name])
        assert all(any(one is other for other in asked) for one in left if one.client_order_id == name)


def test_a_sale_of_coins_lessens_what_is_held_and_a_purchase_never_does():
    sold = msgspec.structs.replace(opens("o", SPOT), side=Side.SELL)
    assert lessens(sold)
    assert not lessens(opens("o", SPOT))
    assert not lessens(msgspec.structs.replace(sold, instrument=PERP))
    assert lessens(opens("o", reduce_only=True))


@pytest.mark.parametrize("category", [Category.LINEAR, Category.SPOT])
def test_a_cancel_of_everything_waits_once(category):
    made = lanes()
    for _ in range(3):
        made.put(CancelEverything(category), 0)
    assert len(made) == 1
