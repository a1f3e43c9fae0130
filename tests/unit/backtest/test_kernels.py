import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hean.backtest import kernels
from hean.backtest.kernels import DAY, Drawdown

START = 19_723 * DAY  # 2024-01-01
HOUR = DAY // 24

curves = arrays(np.float64, st.integers(1, 60), elements=st.floats(1.0, 1e6))
series = arrays(np.float64, st.integers(0, 60), elements=st.floats(-0.5, 0.5))


def of(*values):
    return np.array(values, dtype=np.float64)


def stamps(*values):
    return np.array(values, dtype=np.int64)


# --- drawdown -----------------------------------------------------------------------------------


def test_the_deepest_fall_is_from_its_own_peak():
    assert kernels.max_drawdown(of(100, 120, 90, 130, 110)) == Drawdown(0.25, 1, 2)


def test_a_curve_that_never_falls_has_no_drawdown():
    assert kernels.max_drawdown(of(1, 1, 2)) == Drawdown(0.0, 0, 0)


@pytest.mark.parametrize("curve", [of(), of(1, 0), of(1, -2), of(1, np.nan), np.ones((2, 2))])
def test_what_is_no_equity_curve_has_no_drawdown_of_nought(curve):
    with pytest.raises(ValueError, match="equity must be"):
        kernels.max_drawdown(curve)


def test_a_drawdown_is_drawn_through_ruin():
    assert kernels.drawdown_curve(of(100, 50, 0, -20)).tolist() == [0, 0.5, 1, 1.2]
    with pytest.raises(ValueError, match="begin above zero"):
        kernels.drawdown_curve(of(0, 1))


@given(curves)
def test_no_other_pair_of_steps_falls_deeper(curve):
    found = kernels.max_drawdown(curve)

    deepest = max(1 - curve[later] / curve[first] for first in range(curve.size) for later in range(first, curve.size))
    assert found.depth == pytest.approx(max(0.0, deepest), abs=1e-12)
    assert found.peak <= found.trough
    assert found.depth == 1 - curve[found.trough] / curve[found.peak]


@given(curves, st.floats(0.01, 100))
def test_drawdown_does_not_depend_on_the_size_of_the_account(curve, scale):
    assert kernels.max_drawdown(curve * scale).depth == pytest.approx(kernels.max_drawdown(curve).depth, abs=1e-9)


# --- days ---------------------------------------------------------------------------------------


def test_days_on_which_nothing_happens_are_days():
    days = kernels.daily_equity(
        stamps(START + HOUR, START + 3 * DAY), of(110, 121), opening=100.0, start=START, end=START + 4 * DAY
    )

    assert days.tolist() == [100, 110, 110, 121, 121]


def test_what_is_said_at_midnight_belongs_to_the_day_that_ends():
    days = kernels.daily_equity(stamps(START + DAY), of(110), opening=100.0, start=START, end=START + DAY)

    assert days.tolist() == [100, 110]


def test_a_day_cut_short_is_a_day():
    days = kernels.daily_equity(
        stamps(START + 30 * HOUR), of(90), opening=100.0, start=START + 5 * HOUR, end=START + 31 * HOUR
    )

    assert days.tolist() == [100, 100, 90]


def test_a_run_of_no_length_has_no_day():
    assert kernels.daily_equity(stamps(), of(), opening=100.0, start=START, end=START).tolist() == [100]


@given(st.lists(st.tuples(st.integers(0, 20 * DAY), st.floats(1, 1e6)), max_size=30), st.integers(0, 20 * DAY))
def test_the_returns_of_the_days_compound_to_the_whole(points, length):
    points = sorted(point for point in points if point[0] <= length)
    ts, curve = stamps(*(START + at for at, _ in points)), of(*(value for _, value in points))

    days = kernels.daily_equity(ts, curve, opening=100.0, start=START, end=START + length)

    whole = np.prod(1 + kernels.simple_returns(days))
    assert whole == pytest.approx((curve[-1] if curve.size and length else 100.0) / 100.0, rel=1e-9)
    assert days.size == 1 + -(-length // DAY)


# --- ratios -------------------------------------------------------------------------------------


def test_sharpe_and_its_year_by_hand():
    returns = of(0.01, -0.01, 0.02, 0.0)  # mean 0.005, sample deviation 0.0129099

    assert kernels.sharpe(returns) == pytest.approx(0.3872983)
    assert kernels.annualised(kernels.sharpe(returns)) == pytest.approx(0.3872983 * math.sqrt(365))


def test_sortino_divides_by_the_losses_over_all_periods():
    assert kernels.sortino(of(0.02, -0.01, 0.02, -0.01)) == pytest.approx(0.005 / math.sqrt(2e-4 / 4))


def test_the_error_of_a_sharpe_ratio_gives_the_published_probability():
    # Bailey and Lopez de Prado, "The deflated Sharpe ratio" (2014): with 100 trials the hurdle is 0.1132 a day.
    ratio = 2.5 / math.sqrt(250)
    error = kernels.sharpe_error(ratio, 1250, skew=-3, kurtosis=10)

    assert NormalDist().cdf((ratio - 0.1132) / error) == pytest.approx(0.9004, abs=2e-4)
    excess = kernels.sharpe_error(ratio, 1250, skew=-3, kurtosis=7)
    assert NormalDist().cdf((ratio - 0.1132) / excess) == pytest.approx(0.9018, abs=2e-4)


def test_the_interval_of_a_sharpe_ratio_shrinks_with_the_root_of_the_days():
    chance = np.random.default_rng(1)
    few, many = (kernels.sharpe_interval(chance.normal(0.001, 0.01, days)) for days in (100, 10_000))

    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    "returns", [of(), of(0.01), of(0, 0, 0, 0), of(0.01, 0.01, 0.01, 0.01), np.diff(1.01 ** np.arange(9.0)) / 1.01 ** np.arange(8.0)]
)  # fmt: skip
def test_what_does_not_vary_has_an_unknown_sharpe_and_not_nought(returns):
    assert kernels.sharpe(returns) is None
    assert kernels.sharpe_interval(returns) is None
    assert kernels.skewness(returns) is None
    assert kernels.kurtosis(returns) is None


def test_undefined_figures_stay_unknown():
    assert kernels.annualised(None) is None
    assert kernels.sortino(of(0.01, 0.02)) is None
    assert kernels.calmar(None, 0.1) is None
    assert kernels.calmar(0.5, 0.0) is None
    assert kernels.calmar(0.5, None) is None
    assert kernels.annual_growth(100, 110, 29.9) is None
    assert kernels.annual_growth(100, 0, 60) is None
    assert kernels.hit_rate(of()) is None
    assert kernels.profit_factor(of()) is None
    assert kernels.profit_factor(of(1, 2)) is None
    assert kernels.turnover(100.0, of(1, 0)) is None
    assert kernels.exposure(stamps(), stamps(), start=5, end=5) is None


@pytest.mark.parametrize("kernel", [kernels.sharpe, kernels.sortino, kernels.hit_rate, kernels.profit_factor])
def test_a_gap_in_the_data_is_an_error(kernel):
    with pytest.raises(ValueError, match="finite"):
        kernel(of(0.1, np.nan, 0.2))


def test_growth_compounds():
    assert kernels.annual_growth(100, 121, 730) == pytest.approx(0.1)
    assert kernels.calmar(0.1, 0.05) == pytest.approx(2)


def test_moments_of_a_normal_sample():
    sample = np.random.default_rng(2).normal(0, 1, 200_000)

    assert kernels.skewness(sample) == pytest.approx(0, abs=0.02)
    assert kernels.kurtosis(sample) == pytest.approx(3, abs=0.05)


def test_moments_by_hand():
    assert kernels.skewness(of(0, 0, 0, 4)) == pytest.approx(2 / math.sqrt(3))
    assert kernels.kurtosis(of(0, 0, 0, 4)) == pytest.approx(7 / 3)


@given(series, st.floats(0.1, 10))
def test_ratios_do_not_depend_on_the_size_of_returns(returns, scale):
    for kernel in (kernels.sharpe, kernels.sortino, kernels.skewness, kernels.kurtosis):
        before, later = kernel(returns), kernel(returns * scale)
        if before is not None and later is not None and np.abs(returns).max() > 1e-6:
            assert later == pytest.approx(before, rel=1e-6, abs=1e-9)


@given(series)
def test_kurtosis_is_never_less_than_skewness_squared_and_one(returns):
    skew, kurt = kernels.skewness(returns), kernels.kurtosis(returns)
    if skew is not None and kurt is not None:
        assert kurt >= skew**2 + 1 - 1e-6


# --- trades -------------------------------------------------------------------------------------


def test_wilsons_interval_as_published():
    # 10 of 50: Newcombe, Statistics in Medicine 17 (1998), and any table of it.
    found = kernels.hit_rate(of(*[1.0] * 10, *[-1.0] * 40))

    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.1124, 0.3304), abs=1e-4)


@pytest.mark.parametrize(("pnl", "share"), [([1.0] * 5, 1.0), ([-1.0] * 5, 0.0), ([0.0], 0.0)])
def test_a_sure_thing_is_still_uncertain(pnl, share):
    found = kernels.hit_rate(of(*pnl))

    assert found.value == share
    assert 0 <= found.low <= share <= found.high <= 1
    assert found.high - found.low > 0.3


def test_profit_factor_and_turnover():
    assert kernels.profit_factor(of(3, -1, 0, 3, -2)) == 2
    assert kernels.turnover(3000.0, of(900, 1100)) == 3


def test_time_in_the_market_counts_overlaps_once():
    assert kernels.exposure(stamps(0, 10, 15, 60), stamps(20, 18, 30, 90), start=0, end=80) == 50 / 80
    assert kernels.exposure(stamps(), stamps(), start=0, end=80) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12))
def test_time_in_the_market_is_the_union(spans):
    spans = [(min(span), max(span)) for span in spans]
    held = {second for first, last in spans for second in range(first, last)}

    found = kernels.exposure(stamps(*(s[0] for s in spans)), stamps(*(s[1] for s in spans)), start=0, end=50)

    assert found == len(held) / 50
