"""Candles against a plain reckoning of the same trades."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.exchange.candles import INTERVALS, CandleBook
from hean.exchange.history import History
from hean.units import DAY, HOUR, MINUTE, SECOND, parse_time

START = parse_time("2026-01-05T10:00:00")  # a Monday
MS = 1_000_000


def begin_of(interval, ts):
    if interval == "M":
        when = datetime.fromtimestamp(ts // SECOND, UTC)
        return int(datetime(when.year, when.month, 1, tzinfo=UTC).timestamp()) * SECOND
    if interval == "W":
        return ts // DAY * DAY - datetime.fromtimestamp(ts // SECOND, UTC).weekday() * DAY
    length = DAY if interval == "D" else int(interval) * MINUTE
    return ts // length * length


def reckoned(trades, interval):
    """Candles of trades in order of time, the newest first; each opens where the one before closed, and none is left out."""
    minutes = {}
    for ts, price, size in trades:
        minutes.setdefault(ts // MINUTE * MINUTE, []).append((price, size))
    rows, close = {}, trades[0][1]
    for ts in range(trades[0][0] // MINUTE * MINUTE, trades[-1][0] + 1, MINUTE):
        told = minutes.get(ts, [])
        prices = [close, *(price for price, _ in told)]
        row = rows.setdefault(begin_of(interval, ts), [close, close, close, close, 0.0, 0.0])
        row[1], row[2], row[3] = max(row[1], *prices), min(row[2], *prices), prices[-1]
        row[4] += sum(size for _, size in told)
        row[5] += sum(price * size for price, size in told)
        close = prices[-1]
    return [(begin // MS, *row) for begin, row in sorted(rows.items(), reverse=True)]


some_trades = st.lists(
    st.tuples(st.integers(0, 40 * 60), st.integers(900, 1100), st.integers(1, 50)), min_size=1, max_size=60
).map(lambda rows: [(START + at * 7 * SECOND, float(price), float(size)) for at, price, size in sorted(rows)])


@given(some_trades, st.sampled_from(INTERVALS))
@settings(deadline=None)
def test_candles_of_every_length_are_those_of_the_trades(trades, interval):
    book = CandleBook()
    for trade in trades:
        book.trade(*trade)
    assert book.query("last", interval, limit=1000) == [pytest.approx(row) for row in reckoned(trades, interval)]


@given(some_trades)
@settings(deadline=None)
def test_the_last_day_is_that_of_the_trades(trades):
    book = CandleBook()
    for trade in trades:
        book.trade(*trade)
    rows = reckoned(trades, "1")[: 24 * 60 + 1]
    day = book.day(trades[-1][0])
    assert day.previous == rows[-1][1]
    assert day.previous_hour == rows[min(60, len(rows) - 1)][1]
    assert day.high == max(row[2] for row in rows)
    assert day.low == min(row[3] for row in rows)
    assert day.volume == pytest.approx(sum(row[5] for row in rows))
    assert day.turnover == pytest.approx(sum(row[6] for row in rows))


def test_the_last_day_moves_on_without_a_trade():
    book = CandleBook()
    book.trade(START, 100.0, 2.0)
    book.trade(START + HOUR, 110.0, 3.0)
    assert book.day(START + 2 * HOUR).volume == 5.0
    later = book.day(START + DAY + 30 * MINUTE)
    assert (later.volume, later.previous, later.high, later.low) == (3.0, 100.0, 110.0, 100.0)


def test_asking_for_the_day_closes_no_minute():
    book = CandleBook()
    book.trade(START, 100.0, 2.0)
    assert book.day(START + 3 * MINUTE).volume == 2.0
    book.trade(START + SECOND, 101.0, 1.0)
    assert book.query("last", "1") == [(H0, 100.0, 101.0, 100.0, 101.0, 3.0, 301.0)]


def hours(count=50):
    book = CandleBook()
    for at in range(count * 60):
        book.trade(START + at * MINUTE, 100.0 + at, 1.0)
    return book


H0 = START // MS
HOUR_MS = HOUR // MS


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({}, [49, 48, 47]),
        ({"end_ms": H0 + 10 * HOUR_MS}, [10, 9, 8]),
        ({"end_ms": H0 + 10 * HOUR_MS - 1}, [9, 8, 7]),
        ({"start_ms": H0 + 10 * HOUR_MS}, [12, 11, 10]),
        ({"start_ms": H0 + 10 * HOUR_MS + 1}, [13, 12, 11]),
        ({"start_ms": H0 + 48 * HOUR_MS}, [49, 48]),
        ({"start_ms": H0 + 10 * HOUR_MS, "end_ms": H0 + 30 * HOUR_MS}, [30, 29, 28]),
        ({"start_ms": H0 + 20 * HOUR_MS, "end_ms": H0 + 20 * HOUR_MS}, [20]),
        ({"start_ms": H0 - 10 * HOUR_MS, "end_ms": H0 - HOUR_MS}, []),
        ({"start_ms": H0 + 90 * HOUR_MS}, []),
        ({"start_ms": H0 + 5 * HOUR_MS, "end_ms": H0 + 4 * HOUR_MS}, []),
    ],
)
def test_a_window_is_cut_to_its_limit(window, expected):
    rows = hours().query("last", "60", limit=3, **window)
    assert [(row[0] - H0) // HOUR_MS for row in rows] == expected


def test_weeks_begin_on_monday_and_months_on_the_first():
    book = CandleBook()
    book.trade(parse_time("2026-01-31T23:59:30"), 100.0, 1.0)
    book.trade(parse_time("2026-02-01T00:00:10"), 101.0, 1.0)
    book.trade(parse_time("2026-02-02T00:00:10"), 102.0, 1.0)
    begins = {name: [row[0] * MS for row in book.query("last", name)] for name in ("W", "M")}
    assert begins["W"] == [parse_time("2026-02-02"), parse_time("2026-01-26")]
    assert begins["M"] == [parse_time("2026-02-01"), parse_time("2026-01-01")]


def test_a_minute_without_a_trade_carries_the_close():
    book = CandleBook()
    book.trade(START, 100.0, 1.0)
    book.observe(START + 3 * MINUTE, mark=None, index=None, premium=None)
    assert book.query("last", "1", limit=2) == [
        (H0 + 3 * 60_000, 100.0, 100.0, 100.0, 100.0, 0.0, 0.0),
        (H0 + 2 * 60_000, 100.0, 100.0, 100.0, 100.0, 0.0, 0.0),
    ]


def test_the_candle_that_closed_stands_behind_the_running_one():
    book = CandleBook()
    book.trade(START + 10 * SECOND, 100.0, 1.0)
    assert book.running("1") == book.query("last", "1")[0]
    book.trade(START + MINUTE, 104.0, 2.0)
    running, closed = book.query("last", "1", limit=2)
    assert closed == (H0, 100.0, 100.0, 100.0, 100.0, 1.0, 100.0)
    assert running == (H0 + 60_000, 100.0, 104.0, 100.0, 104.0, 2.0, 208.0)


def test_mark_index_and_premium_have_candles_of_their_own():
    book = CandleBook()
    for second, price in enumerate((5.0, 9.0, 1.0, 3.0)):
        book.observe(START + second * SECOND, mark=price, index=price + 10, premium=None)
    assert book.query("mark", "1") == [(H0, 5.0, 9.0, 1.0, 3.0)]
    assert book.query("index", "1") == [(H0, 15.0, 19.0, 11.0, 13.0)]
    assert book.query("premium", "1") == []
    assert book.query("last", "1") == []
    assert book.running("1") is None
    assert book.day(START) is None


def past(count):
    closes = 100.0 + np.arange(count)
    prices = np.column_stack([closes - 1, closes + 2, closes - 2, closes])
    return History(
        ts_first=START - count * MINUTE,
        last=np.column_stack([prices, np.ones(count), closes]),
        mark=prices + 0.5,
        interest=((START - 10 * MINUTE, 7.0), (START - 5 * MINUTE, 8.0)),
    )


def test_what_follows_goes_on_from_the_past():
    book = CandleBook()
    book.load(past(90))
    book.trade(START + SECOND, 300.0, 2.0)
    book.observe(START + SECOND, mark=301.0, index=None, premium=None)
    assert [row[0] for row in book.query("last", "60")] == [H0, H0 - HOUR_MS, H0 - 2 * HOUR_MS]
    assert book.query("last", "1", limit=2) == [
        (H0, 189.0, 300.0, 189.0, 300.0, 2.0, 600.0),
        (H0 - 60_000, 188.0, 191.0, 187.0, 189.0, 1.0, 189.0),
    ]
    assert book.query("mark", "1", limit=1) == [(H0, 189.5, 301.0, 189.5, 301.0)]
    assert book.query("last", "60", limit=2)[1][5] == 60.0
    assert book.interest == 8.0


def test_memory_is_bounded():
    book = CandleBook()
    days = 120
    for at in range(0, days * 1440, 20):
        book.trade(START + at * MINUTE, float(at), 1.0)
    kept = len(book.query("last", "60", limit=10_000))
    assert 90 * 24 <= kept < 110 * 24
    assert book.query("last", "60", limit=1)[0][4] == days * 1440 - 20


def test_open_interest_is_what_stood_at_each_stamp():
    book = CandleBook()
    for minute in range(26):
        book.observe_interest(START + minute * MINUTE, 100.0 + minute)
    at = [H0 + minute * 60_000 for minute in range(0, 26, 5)]
    assert book.interest == 125.0
    assert book.open_interest("5min", limit=2) == [(at[5], 250.0, 125.0), (at[4], 240.0, 120.0)]
    assert book.open_interest("15min") == [(at[3], 230.0, 115.0), (at[0], 200.0, 100.0)]
    assert [row[0] for row in book.open_interest("5min", at[1], at[3])] == [at[3], at[2], at[1]]


def test_an_interval_that_is_none_is_refused():
    with pytest.raises(KeyError):
        hours(1).query("last", "2")
    with pytest.raises(KeyError):
        hours(1).open_interest("1min")
