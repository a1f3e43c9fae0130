"""Funding brought to one measure, its nowcast, and what a round trip costs."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.market.carry import (
    DAY,
    DEADBAND,
    HOUR,
    PairCosts,
    Settlements,
    funding_rate,
    liquidation_distance,
    mean_premium,
    nowcast,
    session,
    smoothed,
)

BP = 1e-4
T0 = 20_000 * DAY


def settled(*steps, keep=365 * DAY):
    """Settlements at these distances in hours, each of 1 bp for every hour it was for."""
    heard = Settlements()
    ts = T0
    heard.add(ts, 0.0, keep)
    for hours in steps:
        ts += int(hours * HOUR)
        heard.add(ts, hours * BP, keep)
    return heard


def test_the_first_settlement_only_starts_the_clock():
    assert settled().mean(7 * DAY) is None
    assert settled().remaining(T0) is None


@pytest.mark.parametrize("hours", [1, 2, 4, 8])
def test_rates_of_any_interval_come_to_one_measure(hours):
    heard = settled(*[hours] * 60)

    assert heard.mean(2 * DAY) == pytest.approx(8 * BP)
    assert heard.covered(2 * DAY) == 2 * DAY
    assert heard.interval == hours * HOUR


def test_a_change_of_interval_weighs_each_rate_by_its_time():
    assert settled(8, 8, 8, 4, 4).mean(DAY) == pytest.approx(8 * BP)


@pytest.mark.parametrize(
    ("steps", "lengths"),
    [((8, 16, 8), [8, 8, 8]), ((4, 12, 4), [4, 4, 4]), ((8, 7.3, 8), [8, 8, 8]), ((4, 8, 4), [4, 8, 4])],
    ids=["a hole", "a longer hole", "no distance of an interval", "a hole that looks like an interval"],
)
def test_a_hole_leaves_the_interval_as_it_was(steps, lengths):
    assert settled(*steps).length == [length * HOUR for length in lengths]


def test_a_settlement_stamped_late_by_milliseconds_is_on_its_hour():
    heard = settled(8)
    heard.add(T0 + 16 * HOUR + 7_000_000, BP, DAY)
    heard.add(T0 + 24 * HOUR, BP, DAY)

    assert heard.length == [8 * HOUR] * 3


def test_told_twice_counts_once():
    heard = settled(8, 8)
    heard.add(heard.ts_last, 9.0, DAY)

    assert heard.rate == [8 * BP, 8 * BP]


@given(seed=st.integers(0, 2**32), dropped=st.integers(1, 100))
def test_where_the_history_begins_changes_no_bit(seed, dropped):
    rng = random.Random(seed)
    rates = [rng.gauss(0, BP) for _ in range(200)]
    whole, late = Settlements(), Settlements()
    for row, rate in enumerate(rates):
        whole.add(T0 + 8 * row * HOUR, rate, 30 * DAY)
        if row >= dropped:
            late.add(T0 + 8 * row * HOUR, rate, 30 * DAY)

    assert whole == late
    assert whole.mean(30 * DAY) == late.mean(30 * DAY)
    assert len(whole.ts) == 90


@pytest.mark.parametrize(("after_h", "remaining_h"), [(0, 8), (1, 7), (7.5, 0.5), (8, 0), (9, 7)], ids=str)
def test_time_to_the_next_settlement(after_h, remaining_h):
    heard = settled(8)

    assert heard.remaining(heard.ts_last + int(after_h * HOUR)) == remaining_h * HOUR
    assert heard.current(heard.ts_last + int(after_h * HOUR))
    assert not heard.current(heard.ts_last + 16 * HOUR)


# --- the formula --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("premium_bp", "rate_bp"),
    [(0, 1), (-4, 1), (6, 1), (7, 2), (-5, 0), (-10, -5), (30, 25)],
)
def test_small_premia_leave_the_rate_at_the_interest_rate(premium_bp, rate_bp):
    assert funding_rate(premium_bp * BP, 8) == pytest.approx(rate_bp * BP)


def test_the_interest_part_is_the_intervals_own():
    assert funding_rate(0, 4) == pytest.approx(0.5 * BP)
    assert funding_rate(1.0, 8, cap=0.02) == 0.02
    assert funding_rate(-1.0, 8, cap=0.02) == -0.02


@given(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1))
def test_a_higher_premium_is_never_a_lower_rate(one, other):
    low, high = sorted((one, other))

    assert funding_rate(low, 8) <= funding_rate(high, 8) + 1e-18
    assert abs(funding_rate(one, 8) - one) <= DEADBAND + 1e-15


def test_later_minutes_weigh_more():
    assert mean_premium([0.0, 0.0, 3 * BP]) == pytest.approx(1.5 * BP)
    with pytest.raises(ValueError, match="no minutes"):
        mean_premium([])


# --- the nowcast --------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "share"), [(0.25, 0.06), (0.5, 0.25), (0.75, 0.56), (0.9, 0.81), (0.97, 0.94)])
def test_what_is_known_grows_with_the_square_of_time(gone, share):
    known = [(minute, 0.0) for minute in range(1, round(480 * gone) + 1)]

    assert nowcast(known, 0.0, 0.0, 480).known == pytest.approx(share, abs=0.005)


@given(st.lists(st.floats(-0.01, 0.01), min_size=60, max_size=60))
def test_at_the_end_it_is_the_rate(premia):
    end = nowcast(list(enumerate(premia, 1)), 1.0, 1.0, 60)

    assert end.rate == pytest.approx(funding_rate(mean_premium(premia), 1), abs=1e-12)
    assert end.low == end.rate == end.high
    assert end.known == 1


def test_the_bounds_by_hand():
    """Half of an interval at 20 bp, the rest expected at 20 bp give or take 4: three quarters of the weight are open.

    20 bp - 5 bp deadband is 15 bp, and 1.96 x 4 bp x 0.75 = 5.87 bp to either side.
    """
    known = [(minute, 20 * BP) for minute in range(1, 241)]

    said = nowcast(known, 20 * BP, 4 * BP, 480)

    open_share = 1 - 240 * 241 / (480 * 481)
    assert said.rate == pytest.approx(15 * BP)
    assert said.high - said.rate == pytest.approx(1.96 * 4 * BP * open_share)
    assert said.rate - said.low == pytest.approx(1.96 * 4 * BP * open_share)


def test_a_minute_that_was_missed_is_one_more_not_seen():
    whole = nowcast([(1, BP), (2, BP), (3, BP)], 9 * BP, 0, 4)
    holed = nowcast([(1, BP), (3, BP)], 9 * BP, 0, 4)

    assert whole.known == 0.6
    assert holed.known == 0.4
    with pytest.raises(ValueError, match="each one of 4"):
        nowcast([(5, BP)], 0, 0, 4)
    with pytest.raises(ValueError, match="each one of 4"):
        nowcast([(1, BP), (1, BP)], 0, 0, 4)


def test_the_last_minutes_count_most():
    mean, spread = smoothed([0.0, 1.0], halflife=1)

    assert mean == pytest.approx(2 / 3)
    assert spread == pytest.approx(math.sqrt(2) / 3)
    assert smoothed([5.0] * 60, 15) == (pytest.approx(5.0), pytest.approx(0.0, abs=1e-12))


# --- what it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(("as_maker", "fees"), [(False, 31), (True, 24)])
def test_the_base_tier_round_trip(as_maker, fees):
    nothing = {"perp_half_spread_bp": 0, "spot_half_spread_bp": 0, "impact_bp": 0}

    assert PairCosts(perp_as_maker=as_maker, **nothing).round_trip_bp == fees


def test_a_maker_crosses_no_spread():
    assert PairCosts().round_trip_bp == 26
    assert PairCosts(perp_as_maker=False).round_trip_bp == 34
    assert PairCosts().fees_bp == 12.5


@pytest.mark.parametrize(("leverage", "distance"), [(1, 2 / 1.005 - 1), (2, 1.5 / 1.005 - 1), (3, 4 / 3.015 - 1)])
def test_liquidation_comes_when_the_money_behind_the_short_is_gone(leverage, distance):
    assert liquidation_distance(100, 100, leverage, 0.005, 0) == pytest.approx(distance)
    assert liquidation_distance(100, 100 * (1 + distance), leverage, 0.005, 0) == pytest.approx(0)


def test_a_spot_leg_that_counts_as_margin_moves_liquidation_away() -> None:
    # At 300 the short has lost 200, half of its value backs it, and the spot leg's 80 % is worth 240: 50 + 240 - 200 = 90.
    assert 50 + 0.8 * 300 - 200 > 0.005 * 300
    assert liquidation_distance(100, 300, 2, 0.005, 0.8) == pytest.approx(150 / 0.205 / 300 - 1)
    assert liquidation_distance(100, 300, 2, 0.005, 1.0) > 50
    assert liquidation_distance(100, 300, 2, 0.0, 1.0) == math.inf


def test_the_day_has_three_sessions():
    assert [session(T0 + hour * HOUR) for hour in (0, 7, 8, 16, 23)] == [
        "asia",
        "asia",
        "europe",
        "america",
        "america",
    ]
