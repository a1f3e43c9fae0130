"""How often may be asked: no rolling span ever holds more than the venue allows."""

from hypothesis import given
from hypothesis import strategies as st

from hean.bybit.encode import Action
from hean.bybit.rate_budget import RateBudget, endpoint_group, group_of
from hean.instruments import Category
from hean.units import MILLISECOND, SECOND

CREATE = group_of(Action.CREATE, Category.LINEAR)


def taken(budget, group, now, times, **more):
    return sum(budget.take(group, now, **more) == 0 for _ in range(times))


def test_contracts_and_spot_have_the_limits_of_the_venue_and_share_nothing():
    budget = RateBudget()
    assert taken(budget, CREATE, 0, 30) == 10
    assert taken(budget, group_of(Action.CREATE, Category.SPOT), 0, 30) == 20
    assert taken(budget, group_of(Action.CANCEL, Category.LINEAR), 0, 30) == 10
    assert taken(budget, endpoint_group("order/cancel-all", Category.LINEAR), 0, 30) == 10


@given(pauses=st.lists(st.integers(0, 300 * MILLISECOND), max_size=120))
def test_no_second_holds_more_than_the_limit(pauses):
    budget, now, left = RateBudget(), 0, []
    for pause in pauses:
        now += pause
        if budget.take(CREATE, now) == 0:
            left.append(now)
    assert all(sum(at <= one <= at + SECOND for one in left) <= 10 for at in left)


@given(gone=st.integers(0, 2 * SECOND))
def test_who_waits_as_long_as_told_may_go_and_not_a_moment_before(gone):
    budget = RateBudget()
    taken(budget, CREATE, 0, 10)
    wait = budget.take(CREATE, gone)
    if wait:
        assert budget.wait(CREATE, gone + wait - 1) == 1
        assert budget.take(CREATE, gone + wait) == 0


def test_the_venues_word_on_its_limit_counts():
    budget = RateBudget()
    budget.told(CREATE, 15, 0)
    assert taken(budget, CREATE, 0, 30) == 15
    budget.told(CREATE, 3, 0)
    assert taken(budget, CREATE, 5 * SECOND, 30) == 3


def test_a_group_that_was_turned_away_waits_and_the_others_do_not():
    budget = RateBudget()
    budget.exhausted(CREATE, 700)
    assert budget.take(CREATE, 0) == 700
    assert budget.take(group_of(Action.CANCEL, Category.LINEAR), 0) == 0


def test_questions_leave_room_in_the_address_limit_for_what_changes_something():
    budget = RateBudget()
    assert taken(budget, "market/time", 0, 1_000, changes=False) == 500
    assert taken(budget, CREATE, 0, 20) == 10
    assert taken(budget, "unknown", 0, 1_000) == 90
    assert 5 * SECOND <= budget.take("market/time", 0, changes=False) <= 5.1 * SECOND
