"""Instants as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.units import DAY, HOUR, SECOND, parse_time, utc

T0 = 1_748_736_000 * SECOND


@pytest.mark.parametrize(
    ("text", "ts"),
    [
        ("2025-06-01", T0),
        ("2025-06-01T08:00", T0 + 8 * HOUR),
        ("2025-06-01T08:00Z", T0 + 8 * HOUR),
        ("2025-06-01T02:00+02:00", T0),
        ("2025-06-01 00:00:00.000001", T0 + 1_000),
        ("1970-01-01", 0),
    ],
)
def test_a_time_is_read_as_utc(text, ts):
    assert parse_time(text) == ts


@pytest.mark.parametrize("text", ["yesterday", "2025-13-01", "", "9999-12-31", "1969-12-31", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"is no time: write 2025-06-01|lies outside 1970 .. 2262"):
        parse_time(text)


@given(st.integers(min_value=0, max_value=290 * 365 * DAY // 1_000))
def test_what_was_written_is_read_back(microseconds):
    assert parse_time(utc(microseconds * 1_000)) == microseconds * 1_000
