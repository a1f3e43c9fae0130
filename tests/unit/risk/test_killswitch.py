import math
from decimal import Decimal

import msgspec
import pytest

from hean.risk.killswitch import SECOND, KillSwitch, KillSwitchConfig, KillSwitchState, Tier

MINUTE = 60 * SECOND


def told(*marks, config=None):
    """A switch told equities at seconds, and the trips it answered with."""
    switch = KillSwitch(config or KillSwitchConfig())
    trips = [switch.mark(Decimal(equity), round(at * SECOND)) for at, equity in marks]
    return switch, [trip for trip in trips if trip is not None]


@pytest.mark.parametrize(
    ("marks", "trips"),
    [
        ([(0, 10_000), (1, 9_001), (60, 9_001)], []),
        ([(0, 10_000), (1, 9_000)], []),
        ([(0, 10_000), (1, 9_000), (5, 8_990)], []),
        ([(0, 10_000), (1, 9_000), (6, 9_000)], ["DRAWDOWN"]),
        ([(0, 10_000), (1, 9_000), (3, 9_500), (6, 9_000)], []),
        ([(0, 10_000), (1, 9_000), (3, 9_500), (6, 9_000), (11, 8_000)], ["DRAWDOWN"]),
        ([(0, 10_000), (1, 9_000), (6, 9_000), (99, 5_000)], ["DRAWDOWN"]),
        ([(0, 10_000), (1, 20_000), (2, 18_001), (9, 18_001)], []),
        ([(0, 10_000), (1, 20_000), (2, 18_000), (9, 18_000)], ["DRAWDOWN"]),
    ],
    ids=[
        "just above",
        "one mark",
        "too soon",
        "two marks",
        "recovered between",
        "counted anew",
        "only once",
        "in profit, above",
        "in profit, below",
    ],
)
def test_red_takes_two_marks_five_seconds_apart(marks, trips):
    assert [trip.cause for trip in told(*marks)[1]] == trips


def test_a_mark_that_stands_is_confirmed_by_time_while_the_market_is_seen():
    switch, _ = told((0, 10_000), (1, 8_900))
    assert switch.state.alarm == 6 * SECOND

    assert switch.check(6 * SECOND, confirmable=False) is None
    assert switch.check(6 * SECOND, confirmable=True).cause == "DRAWDOWN"


def test_soft_tiers_want_the_average_to_agree():
    switch, _ = told((0, 10_000), (60, 9_150))
    assert switch.state.tier is Tier.GREEN

    # The average reaches yellow when 8.5 % * (1 - exp(-t / 15 min)) does, and orange likewise.
    for level, tier in ((0.05, Tier.YELLOW), (0.08, Tier.ORANGE)):
        crossing = 60 * SECOND - 15 * MINUTE * math.log(1 - level / 0.085)
        assert switch.state.alarm == pytest.approx(crossing, abs=SECOND / 100)
        before = switch.state.tier
        switch.check(round(crossing) - SECOND, confirmable=True)
        assert switch.state.tier is before
        switch.check(switch.state.alarm, confirmable=True)
        assert switch.state.tier is tier
    assert switch.state.alarm is None


def test_soft_tiers_end_at_once_when_the_drawdown_does():
    switch, _ = told((0, 10_000), (60, 9_150), (7_200, 9_150), (7_201, 9_600))

    assert switch.state.tier is Tier.GREEN


def test_nine_errors_in_any_five_minutes_are_borne():
    switch = KillSwitch(KillSwitchConfig())

    assert [switch.error(n * 34 * SECOND) for n in range(40)] == [None] * 40
    assert not switch.state.tripped
    assert switch.error(39 * 34 * SECOND + 1).cause == "ERRORS"


def test_the_tenth_error_trips():
    switch = KillSwitch(KillSwitchConfig())

    answers = [switch.error(n) for n in range(12)]

    assert [n for n, trip in enumerate(answers, 1) if trip] == [10]
    assert answers[9].limit == "10"


def test_a_fourth_death_in_ten_minutes_trips():
    switch = KillSwitch(KillSwitchConfig())

    assert [bool(switch.death(n * MINUTE)) for n in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("before", "after", "traded", "suspect"),
    [(100, 120, False, None), (100, 121, False, 21), (100, 79, False, 21), (100, 200, True, None)],
)
def test_a_jump_is_suspect_when_no_fill_explains_it(before, after, traded, suspect):
    switch, _ = told((0, before))
    switch.state.traded = traded

    assert switch.jumped(Decimal(after)) == suspect


@pytest.mark.parametrize(("person", "reason"), [("", "checked"), ("ada", ""), (" ", "checked"), ("ada", "\t")])
def test_without_a_name_and_a_reason_it_stays_tripped(person, reason):
    switch, _ = told((0, 10_000), (1, 9_000), (6, 9_000))

    assert not switch.reset(person, reason, 7 * SECOND)
    assert switch.state.tripped == "DRAWDOWN"


def test_after_a_reset_drawdown_is_measured_from_there():
    switch, _ = told((0, 10_000), (1, 9_000), (6, 9_000))

    assert switch.reset("ada", "bad mark of the spot leg", 7 * SECOND)

    assert not switch.state.tripped
    assert switch.state.high_water == 9_000
    assert switch.mark(Decimal(8_200), 8 * SECOND) is None
    assert switch.mark(Decimal(8_100), 20 * SECOND) is None
    assert switch.mark(Decimal(8_100), 25 * SECOND).cause == "DRAWDOWN"


def test_its_state_survives_being_written_down():
    switch, _ = told((0, 10_000), (60, 9_150), (61, 8_900))
    restored = KillSwitch(switch.config)
    restored.state = msgspec.json.decode(msgspec.json.encode(switch.state), type=KillSwitchState)

    assert restored.state == switch.state
    assert restored.mark(Decimal(8_900), 66 * SECOND) == switch.mark(Decimal(8_900), 66 * SECOND)
