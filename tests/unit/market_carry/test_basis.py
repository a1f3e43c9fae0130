"""The basis of two legs, and the order statistics of its window, told or read from columns to the same bits."""

import math
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hean.market.basis import (
    Legs,
    PairView,
    Side,
    half_life,
    median_mad,
    persistence,
    quantile,
    rolling_median_mad,
    rolling_quantile,
    window_starts,
)
from hean.messages import Bar, Quote
from hean.tape import Tape
from tests.unit.strategies.carry_story import DAY, HOUR, MINUTE, PERP, SPOT, T0, bar, market

# Some values come often, so that ties are met.
WINDOWS = arrays(
    np.float64, st.integers(1, 60), elements=st.sampled_from([-3.5, -1.0, 0.0, 1e-4, 1.0]) | st.floats(-9, 9)
)


@given(WINDOWS)
def test_median_and_deviation_are_what_they_are_called(window):
    middle, deviation = median_mad(window)

    assert middle == median(window.tolist())
    assert deviation == median(abs(value - middle) for value in window.tolist())


@given(WINDOWS, st.data())
def test_carried_along_or_from_the_window_alone_they_are_the_same_bits(values, data):
    lengths = data.draw(st.lists(st.integers(1, 30), min_size=values.size, max_size=values.size))
    first = np.maximum.accumulate([max(0, row + 1 - length) for row, length in enumerate(lengths)]).astype(np.int64)
    share = data.draw(st.sampled_from([0.0, 0.2, 0.5, 0.99]))

    medians, deviations = rolling_median_mad(values, first)
    quantiles = rolling_quantile(values, first, share)

    for row in range(values.size):
        window = values[first[row] : row + 1]
        assert (medians[row], deviations[row]) == median_mad(window)
        assert quantiles[row] == quantile(window.tolist(), share)


def test_a_quantile_is_a_value_that_was_there():
    assert [quantile([3.0, 1.0, 2.0, 5.0, 4.0, 6.0], share) for share in (0, 0.19, 0.2, 0.4)] == [1, 1, 2, 3]


def test_windows_are_of_time_not_of_rows():
    ts = np.array([0, 10, 20, 25, 60], np.int64)

    assert window_starts(ts, 20).tolist() == [0, 0, 1, 1, 4]


@pytest.mark.parametrize(("phi", "seed"), [(0.5, 1), (0.9, 2), (0.99, 3)])
def test_half_life_of_a_process_that_is_known(phi, seed):
    rng = np.random.default_rng(seed)
    values = np.zeros(40_000)
    for row in range(1, values.size):
        values[row] = 3 + phi * (values[row - 1] - 3) + rng.normal()

    assert persistence(values) == pytest.approx(phi, abs=0.01)
    assert half_life(values, MINUTE) == pytest.approx(math.log(2) / -math.log(phi) * MINUTE, rel=0.2)


def test_what_does_not_revert_has_no_half_life():
    assert half_life(np.arange(100.0), 1) == math.inf
    assert half_life(np.ones(100), 1) == math.inf
    assert half_life(np.array([1.0]), 1) == math.inf
    assert half_life(np.array([1.0, -1.0] * 50), 1) == 0


# --- readings -----------------------------------------------------------------------------------


def view(**change):
    values = {"perp_half_spread": 1e-4, "spot_half_spread": 2e-4, "quote_age": 5 * 10**9}
    return PairView(PERP, SPOT, **{**values, **change})


def test_executable_prices_are_the_worse_side_of_each_leg():
    legs = Legs(Side(), Side())
    reader = view()
    reader.saw_quote(legs, Quote(PERP, T0 - 5 * 10**9, 100.9, 1, 101.1, 1))
    reader.saw_quote(legs, Quote(SPOT, T0 - 6 * 10**9, 50.0, 1, 60.0, 1))

    assert reader.saw_bar(legs, bar(PERP, T0, 100.5)) is None
    reading = reader.saw_bar(legs, bar(SPOT, T0, 100.0))

    # The spot's quote is too old, so its close and half spread stand for it.
    assert reading is not None
    assert reading.opening == pytest.approx((100.9 - 100.02) / 100)
    assert reading.closing == pytest.approx((101.1 - 99.98) / 100)
    assert reading.basis == pytest.approx(0.01)
    assert (reading.perp, reading.spot) == (100.5, 100.0)


def test_each_instant_is_read_once():
    legs = Legs(Side(), Side())
    reader = view()
    told = [bar(SPOT, T0, 100), bar(PERP, T0, 101), bar(PERP, T0, 101), bar(SPOT, T0 + 1, 1), bar(PERP, T0 + 2, 1)]

    assert [reader.saw_bar(legs, message) is not None for message in told] == [False, True, False, False, False]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), quotes=st.booleans())
def test_told_one_by_one_or_read_from_columns_readings_are_the_same_bits(seed, quotes):
    tape = market(seed, 300, quotes=quotes)
    reader = view()
    legs, caught = Legs(Side(), Side()), Legs(Side(), Side())
    told = []
    for position in range(tape.size):
        assert reader.follows(legs, tape, position)
        stream, row = tape.at(position)
        message = stream.message(row)
        if isinstance(message, Bar):
            reading = reader.saw_bar(legs, message)
            if reading is not None:
                told.append((position, reading))
        elif isinstance(message, Quote):
            reader.saw_quote(legs, message)

    readings, low, high = reader.catch_up(caught, tape, 0, tape.size)

    assert (low, high) == (0, len(told))
    assert caught == legs
    assert readings.position.tolist() == [position for position, _ in told]
    for name in ("ts", "perp", "spot", "basis", "opening", "closing"):
        assert getattr(readings, name).tolist() == [getattr(reading, name) for _, reading in told]


def test_columns_are_not_followed_by_who_has_seen_something_else():
    tape = market(1, 100)
    reader = view()
    other = Legs(Side(ts=T0 - HOUR), Side(ts=T0 - HOUR))

    assert not reader.follows(other, tape, 0)
    assert not reader.follows(Legs(Side(), Side()), tape, tape.size // 2)


def test_two_streams_of_one_leg_are_told_row_by_row():
    tape = market(1, 100)
    twice = Tape([*tape.streams, *market(2, 20, interval=HOUR).streams[-1:]])

    assert not view().follows(Legs(Side(), Side()), twice, 0)


def test_a_month_of_minutes_is_read_in_a_moment():
    """Not a timed assertion: that it can be done at all at this size, every window full."""
    tape = market(1, 35 * 1440)
    readings = view().readings(tape)
    first = window_starts(readings.ts, 3 * DAY)

    medians, deviations = rolling_median_mad(readings.basis, first)

    for row in (100, 20_000, medians.size - 1):
        assert (medians[row], deviations[row]) == median_mad(readings.basis[first[row] : row + 1])
