"""Windows worked by hand, with days left out; and what no window fits into."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.errors import ConfigError
from hean.units import DAY, HOUR, parse_time
from hean.windows import Lengths, day, rolling


def days(window):
    return [tuple(day(at) for at in span) for span in (window.train, window.test)]


def test_a_year_by_the_usual_lengths():
    found = rolling(parse_time("2025-01-01"), parse_time("2026-01-01"), Lengths())
    # 180 of training, 3 and 2 left out, 30 of test: 215 of 365 days, and a step of 30 five times more.
    assert [one.number for one in found] == [1, 2, 3, 4, 5, 6]
    assert days(found[0]) == [("2025-01-01", "2025-06-30"), ("2025-07-05", "2025-08-04")]
    assert days(found[5]) == [("2025-05-31", "2025-11-27"), ("2025-12-02", "2026-01-01")]


@pytest.mark.parametrize(
    ("lengths", "gap"),
    [
        ({}, 3 + 2),
        ({"train_days": 100}, 3 + 1),
        ({"train_days": 101}, 3 + 2),
        ({"train_days": 1}, 3 + 1),
        ({"embargo_days": 0}, 3),
        ({"purge_days": 0, "embargo_days": 7}, 7),
        ({"purge_days": 0, "embargo_days": 0}, 0),
    ],
)
def test_between_training_and_test_lie_the_purge_and_the_embargo(lengths, gap):
    (first, *_) = rolling(0, 400 * DAY, Lengths(**lengths))
    assert first.test[0] - first.train[1] == gap * DAY


def test_windows_begin_at_midnight_within_the_period():
    lengths = Lengths(train_days=2, test_days=1, purge_days=0, embargo_days=0)
    found = rolling(parse_time("2025-01-01T05:00"), parse_time("2025-01-06T23:00"), lengths)
    assert [days(one) for one in found] == [
        [("2025-01-02", "2025-01-04"), ("2025-01-04", "2025-01-05")],
        [("2025-01-03", "2025-01-05"), ("2025-01-05", "2025-01-06")],
    ]


def test_where_none_fits_it_says_how_many_days_it_takes():
    with pytest.raises(ConfigError, match=r"there are 214 whole days, and one window takes 215: 180 .* 5 left out, 30"):
        rolling(0, 215 * DAY - HOUR, Lengths())
    assert len(rolling(0, 215 * DAY, Lengths())) == 1
    with pytest.raises(ConfigError, match="there are 0 whole days"):
        rolling(10 * DAY, 5 * DAY, Lengths())


def test_a_day_is_tested_once():
    with pytest.raises(ConfigError, match="days would be counted twice"):
        rolling(0, 1_000 * DAY, Lengths(step_days=29))


def test_windows_without_number_are_refused():
    with pytest.raises(ConfigError, match="10,000 are the most"):
        rolling(0, 11_000 * DAY, Lengths(train_days=1, test_days=1, purge_days=0))


@given(
    start=st.integers(0, 10_000 * 24),
    length=st.integers(1, 600 * 24),
    train=st.integers(1, 200),
    test=st.integers(1, 60),
    more=st.integers(0, 30),
    purge=st.integers(0, 10),
)
def test_no_training_reaches_into_its_test_and_no_test_into_another(start, length, train, test, more, purge):
    lengths = Lengths(train_days=train, test_days=test, step_days=test + more, purge_days=purge)
    begin, end = start * HOUR, (start + length) * HOUR
    try:
        found = rolling(begin, end, lengths)
    except ConfigError:
        whole = end // DAY - -(-begin // DAY)
        assert whole < lengths.needed
        return
    assert begin <= found[0].train[0] < begin + DAY
    assert end - found[-1].test[1] < (lengths.step + 1) * DAY
    for one in found:
        assert one.train[1] - one.train[0] == train * DAY
        assert one.test[1] - one.test[0] == test * DAY
        assert one.test[0] - one.train[1] == lengths.gap * DAY >= purge * DAY
        assert one.test[1] <= end
    for one, following in itertools.pairwise(found):
        assert following.train[0] - one.train[0] == lengths.step * DAY
        assert one.test[1] <= following.test[0]
