import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.risk.sizing import (
    EquityShare,
    FixedNotional,
    RiskSizing,
    coarser_step,
    posterior_sharpe,
    size,
    stressed,
)

SIZING = RiskSizing()
PROVEN = RiskSizing(sharpe=1.5, sharpe_years=2, sharpe_trades=101)


@pytest.mark.parametrize(
    ("sizing", "stop", "volatility", "wanted", "term"),
    [
        # 0.5 % of 10,000 over a stop 500 away and 11 bp of 50,000: 50 / 555.
        (SIZING, 49_500.0, None, 50 / 555, "risk"),
        (SIZING, 50_500.0, None, 50 / 555, "risk"),
        # 10 % of 10,000 over 80 % of 50,000: 1,000 / 40,000.
        (SIZING, None, 0.8, 0.025, "volatility"),
        (SIZING, 49_500.0, 0.8, 0.025, "volatility"),
        (SIZING, 45_000.0, 0.8, 50 / 5_055, "risk"),
        # Sharpe 1.5 over two years shrinks by .25 / (.25 + .5) to 0.5; a quarter of 10,000 * 0.5 / 40,000.
        (PROVEN, None, 0.8, 0.025, "volatility"),
        (PROVEN.model_copy(update={"target_volatility": 1.0}), None, 0.8, 0.25 * 10_000 * 0.5 / 40_000, "kelly"),
        (PROVEN.model_copy(update={"sharpe": -1.0}), None, 0.8, 0.0, "kelly"),
        (PROVEN.model_copy(update={"sharpe": -1.0, "sharpe_trades": 100}), None, 0.8, 0.025, "volatility"),
        (FixedNotional(notional=1_000), None, None, 0.02, "fixed"),
        (EquityShare(share=0.5), None, None, 0.1, "share"),
    ],
)
def test_the_size_is_the_least_of_what_is_known(sizing, stop, volatility, wanted, term):
    found = size(sizing, equity=10_000.0, price=50_000.0, stop=stop, volatility=volatility)

    assert found.quantity == pytest.approx(wanted, rel=1e-12)
    assert found.term == term


@pytest.mark.parametrize("volatility", [None, 0.0])
def test_without_stop_and_volatility_there_is_no_size(volatility):
    assert size(PROVEN, equity=10_000.0, price=50_000.0, stop=None, volatility=volatility) is None


def test_a_record_counts_for_as_much_as_its_length():
    assert posterior_sharpe(PROVEN) == pytest.approx(0.5)
    assert posterior_sharpe(PROVEN.model_copy(update={"sharpe_years": 1e12})) == pytest.approx(1.5)
    assert posterior_sharpe(SIZING) == 0


POSITIVE = st.floats(1e-2, 1e7)


@given(equity=POSITIVE, price=POSITIVE, distance=st.floats(1e-4, 0.9), volatility=st.floats(0.01, 5) | st.none())
def test_a_stop_never_costs_more_than_was_risked(equity, price, distance, volatility):
    found = size(SIZING, equity=equity, price=price, stop=price * (1 - distance), volatility=volatility)

    loss = found.quantity * price * (distance + SIZING.cost_bp * 1e-4)
    assert loss <= SIZING.risk_per_trade * equity * (1 + 1e-9)
    assert found.quantity > 0


@given(equity=POSITIVE, price=POSITIVE, stop=POSITIVE, volatility=st.floats(0.01, 5), more=st.floats(1, 100))
def test_more_equity_never_means_less(equity, price, stop, volatility, more):
    def at(worth):
        return size(PROVEN, equity=worth, price=price, stop=stop, volatility=volatility).quantity

    assert at(equity * more) >= at(equity) * (1 - 1e-12)


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(0, 8), st.integers(0, 8))
def test_the_coarser_step_is_whole_in_both_and_the_least_such(one, other, places, digits):
    first, second = Decimal(one).scaleb(-places), Decimal(other).scaleb(-digits)

    step = coarser_step(first, second)

    assert step % first == 0
    assert step % second == 0
    assert not any((step / n) % first == 0 and (step / n) % second == 0 for n in (2, 3, 5, 7))


def test_the_coarser_of_two_powers_of_ten_is_the_larger():
    assert coarser_step(Decimal("0.001"), Decimal("0.000001")) == Decimal("0.001")
    assert coarser_step(Decimal("0.01"), Decimal("0.015")) == Decimal("0.03")


def test_a_pair_is_asked_for_the_loss_and_the_margin_after_the_shock():
    # 1,000 short after +30 %: 300 lost, and 10 % of 1,300 as margin.
    assert stressed(Decimal(1_000), Decimal("0.1"), Decimal("0.3")) == Decimal(430)
    assert math.isclose(float(stressed(Decimal(1_000), Decimal("0.1"), Decimal(0))), 100)
