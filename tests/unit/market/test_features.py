"""Features of finite windows: the same to the bit wherever the tape begins, and unknown where a bar is missing."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.market.features import (
    DAY,
    HOUR,
    YEAR,
    annualised,
    impulse_columns,
    impulse_now,
    near_stamp,
    order_flow,
    trade_imbalance,
    turmoil_rank,
    volume_ratio,
    volume_ratios,
)

MINUTE = HOUR // 60


def market(seed, rows, missing=0, interval=MINUTE):
    rng = np.random.default_rng(seed)
    ts = (np.arange(rows + missing, dtype=np.int64) + 1) * interval
    ts = np.delete(ts, rng.choice(ts.size - 1, missing, replace=False) + 1)
    close = 50_000 * np.exp(np.cumsum(rng.standard_t(3, rows) * 1e-3))
    return ts, close, rng.gamma(1, 5, rows)


# --- moves --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), window=st.integers(1, 30), share=st.floats(0, 1), start=st.integers(0, 100))
def test_the_start_of_the_tape_changes_no_bit_once_the_window_is_full(seed, window, share, start):
    bars = max(1, round(window * share))
    ts, close, _ = market(seed, 150, missing=4)
    whole = impulse_columns(ts, close, MINUTE, bars, window)
    later = impulse_columns(ts[start:], close[start:], MINUTE, bars, window)
    for one, other in zip(whole, later, strict=True):
        assert one[start + window :].tobytes() == other[window:].tobytes()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), window=st.integers(1, 30), cut=st.integers(1, 150), start=st.integers(0, 60))
def test_one_row_and_the_column_agree_to_the_bit(seed, window, cut, start):
    ts, close, _ = market(seed, 150, missing=3)
    bars = 1 + seed % window
    start = min(start, cut - 1)
    sigma, z = impulse_columns(ts[start:], close[start:], MINUTE, bars, window)
    now = impulse_now(ts[start:cut], close[start:cut], MINUTE, bars, window)
    assert np.array(now).tobytes() == np.array([sigma[cut - start - 1], z[cut - start - 1]]).tobytes()


def test_measures_the_move_in_what_the_window_predicts_for_its_length():
    ts, close, _ = market(1, 400)
    sigma, z = impulse_columns(ts, close, MINUTE, 2, 240)
    returns = np.diff(np.log(close))[-240:]
    expected = math.sqrt((returns**2).mean())
    assert sigma[-1] == pytest.approx(expected, rel=1e-6)
    assert z[-1] == pytest.approx(returns[-2:].sum() / expected / math.sqrt(2), rel=1e-5)
    assert annualised(sigma.item(-1), MINUTE) == pytest.approx(expected * math.sqrt(365 * 24 * 60), rel=1e-6)
    assert YEAR == 365 * DAY


@pytest.mark.parametrize("fault", ["missing", "zero", "nan", "infinite"])
def test_is_unknown_while_a_fault_is_in_the_window(fault):
    ts, close, _ = market(2, 100)
    if fault == "missing":
        ts[50:] += MINUTE
        unknown = range(50, 60)
    else:
        close[50] = {"zero": 0.0, "nan": math.nan, "infinite": math.inf}[fault]
        unknown = range(50, 61)
    sigma, z = impulse_columns(ts, close, MINUTE, 2, 10)
    missing = [*range(10), *unknown]
    assert np.flatnonzero(np.isnan(sigma)).tolist() == missing
    assert np.flatnonzero(np.isnan(z)).tolist() == missing


def test_a_price_that_never_moves_has_no_z():
    ts, _, _ = market(3, 30)
    sigma, z = impulse_columns(ts, np.full(30, 100.0), MINUTE, 2, 10)
    assert sigma[-1] == 0
    assert np.isnan(z).all()


def test_sums_survive_a_collapse():
    close = np.tile([1.0, 1e-6], 700)
    ts = (np.arange(close.size) + 1) * MINUTE
    sigma, _ = impulse_columns(ts, close, MINUTE, 1, 1000)
    assert sigma[-1] == pytest.approx(3.0)  # a return of more than e^3 counts as e^3


# --- volume -------------------------------------------------------------------------------------


def ratio_in_plain_words(ts, volume, row, interval, bars, days):
    known = dict(zip(ts[: row + 1].tolist(), volume[: row + 1].tolist(), strict=True))
    now = [known.get(ts.item(row) - back * interval) for back in range(bars)]
    hour = (ts.item(row) - interval) // HOUR * HOUR
    if None in now or ts[0] > hour - days * DAY + interval:
        return math.nan
    samples = []
    stretches = HOUR // (bars * interval)
    for day in range(1, days + 1):
        for cut in range(stretches):
            begin = hour - day * DAY + cut * bars * interval
            stretch = [known.get(begin + (at + 1) * interval) for at in range(bars)]
            if None not in stretch:
                samples.append(sum(stretch))
    if 2 * len(samples) <= stretches * days:
        return math.nan
    return sum(reversed(now)) / statistics.median(samples)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), bars=st.sampled_from([1, 2, 3, 5, 12]), missing=st.sampled_from([0, 20, 200]))
def test_volume_is_compared_with_the_same_hour_of_the_days_before(seed, bars, missing):
    interval = 5 * MINUTE
    ts, _, volume = market(seed, 1100 - missing, missing, interval)
    rows = range(560, 1100 - missing, 7)
    ratios = [volume_ratio(ts, volume, row, interval, bars, 2) for row in rows]
    assert ratios == pytest.approx(
        [ratio_in_plain_words(ts, volume, row, interval, bars, 2) for row in rows], nan_ok=True
    )
    always = np.full(ts.size, 9.0)
    column = volume_ratios(ts, volume, always, interval, bars, 2, 1.0)
    assert column[list(rows)].tobytes() == np.array(ratios).tobytes()


def test_usual_volume_is_unknown_until_all_its_days_have_been_told():
    ts, _, volume = market(5, 1000, interval=5 * MINUTE)
    known = [not math.isnan(volume_ratio(ts, volume, row, 5 * MINUTE, 2, 2)) for row in range(1000)]
    assert known.index(True) == 2 * DAY // (5 * MINUTE)
    assert all(known[known.index(True) :])


def test_usual_volume_reads_nothing_later():
    ts, _, volume = market(6, 1000, interval=5 * MINUTE)
    before = volume_ratio(ts, volume, 700, 5 * MINUTE, 2, 2)
    volume[701:] = 1e9
    assert volume_ratio(ts, volume, 700, 5 * MINUTE, 2, 2) == before


def test_no_usual_volume_without_any():
    ts, _, volume = market(7, 1000, interval=5 * MINUTE)
    assert math.isnan(volume_ratio(ts, 0 * volume, 900, 5 * MINUTE, 2, 2))


# --- small ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "near"), [(-2, False), (-1.99, True), (0, True), (1.99, True), (2, False)])
def test_a_funding_stamp_is_near_within_two_minutes(minutes, near):
    assert near_stamp(16 * HOUR + round(minutes * MINUTE), 8 * HOUR, 2 * MINUTE) is near


def test_order_flow_is_that_of_the_paper():
    quotes = [
        (100.0, 5.0, 101.0, 5.0),
        (100.0, 8.0, 101.0, 5.0),  # three bid more
        (100.5, 2.0, 101.0, 4.0),  # a better bid of two, and an offer of one is gone
        (100.0, 1.0, 100.5, 3.0),  # that bid is gone, and a better offer of three has come
        (100.0, 1.0, 102.0, 9.0),  # and is gone
    ]
    bid, bid_size, ask, ask_size = (np.array(column) for column in zip(*quotes, strict=True))
    assert order_flow(bid, bid_size, ask, ask_size).tolist() == [0, 3, 3, -5, 3]


def test_trade_imbalance_weighs_who_took():
    ts = np.array([1, 2, 3, 4])
    size = np.array([9.0, 3.0, 1.0, 2.0])
    side = np.array([-1, 1, -1, 1], np.int8)
    assert trade_imbalance(ts, size, side, 1) == pytest.approx(4 / 6)
    assert trade_imbalance(ts, size, side, 0) == pytest.approx(-5 / 15)
    assert math.isnan(trade_imbalance(ts, size, side, 4))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), missing=st.integers(0, 20))
def test_turmoil_is_ranked_among_the_windows_before(seed, missing):
    ts, close, _ = market(seed, 300, missing)
    sigma, _ = impulse_columns(ts, close, MINUTE, 1, 20)
    known = sigma[:-1][~np.isnan(sigma[:-1])]
    rank = turmoil_rank(ts, close, MINUTE, 20)
    if math.isnan(sigma[-1]) or 2 * known.size <= 299:
        assert math.isnan(rank)
    else:
        # Plain returns rank windows of nearly the same volatility otherwise than returns of logarithms do.
        assert rank == pytest.approx((known < sigma[-1]).mean(), abs=0.04)


def test_turmoil_has_no_rank_among_mostly_unknown_windows():
    ts, close, _ = market(8, 100)
    assert math.isnan(turmoil_rank(ts[:40], close[:40], MINUTE, 30))
    assert 0 <= turmoil_rank(ts, close, MINUTE, 30) <= 1
    close[95] = math.nan
    assert math.isnan(turmoil_rank(ts, close, MINUTE, 30))
    assert math.isnan(turmoil_rank(ts[:0], close[:0], MINUTE, 30))
