"""The carry board's arithmetic, worked by hand; and what it says of what it does not know."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.market.carry import PERIOD, PairCosts, Settlements
from hean.market.carry_board import Heard, Top, board, row
from hean.units import HOUR, MINUTE

NOW = 1_000 * PERIOD + HOUR
FEES = PairCosts(perp_maker_bp=2.0, perp_taker_bp=5.5, spot_taker_bp=10.0, impact_bp=0.5)
PERP = Top(bid=100.05, ask=100.07, ts=NOW - 3)
SPOT = Top(bid=99.99, ask=100.01, ts=NOW - 5)


def settled(rates, hours=8):
    """Settlements up to the last before now; one more before them only starts the clock."""
    funding, length = Settlements(), hours * HOUR
    first = NOW // length - len(rates)
    for at, rate in enumerate([0.0, *rates], first):
        funding.add(at * length, rate, 100 * PERIOD)
    return funding


def heard(**more):
    usual = {
        "symbol": "BTCUSDT",
        "perp": "BTCUSDT-LINEAR.BYBIT",
        "spot": "BTCUSDT-SPOT.BYBIT",
        "interval_h": 8,
        "ts_rules": NOW - HOUR,
        "funding": settled([1e-4] * 20 + [3e-4]),
        "predicted": 2e-4,
        "ts_next": NOW + HOUR,
        "ts_ticker": NOW - 4,
        "perp_top": PERP,
        "spot_top": SPOT,
    }
    return Heard(**usual | more)


def of(hold_days=14.0, **more):
    return row(heard(**more), FEES, hold_days=hold_days, now=NOW)


def test_a_row_worked_by_hand():
    found = of()
    assert (found.settled.value, found.settled.as_of) == (pytest.approx(3.0), 1_000 * PERIOD)
    assert found.settled_8h.value == pytest.approx(3.0)
    # Twenty of 1 bp and one of 3: 23 / 21.
    assert found.mean_8h.value == pytest.approx(23 / 21)
    assert (found.settlements, found.covered_h) == (21, 168.0)
    assert found.predicted_8h.value == pytest.approx(2.0)
    assert found.predicted_8h.as_of == NOW - 4
    # Sold at 100.05, bought at 100.01, over a spot of 100: 4 bp.
    assert found.basis.value == pytest.approx(4.0)
    assert found.basis.as_of == NOW - 5
    # The maker's 2 and the taker's 10, half of the spot's spread 1, impact 0.5: 13.5 one way. A maker crosses no spread.
    assert found.cost.value == pytest.approx(27.0)
    assert found.net_8h.value == pytest.approx(23 / 21 - 27.0 / 42)
    assert found.net_8h.as_of == NOW - HOUR  # as old as the older of its two parts: the last settlement
    assert found.net_apr.value == pytest.approx((23 / 21 - 27.0 / 42) * 1e-4 * 3 * 365)
    assert found.days_to_break_even.value == pytest.approx(27.0 / (23 / 21) / 3)
    assert found.ts_next == NOW + HOUR


def test_a_taker_of_the_perpetual_pays_its_spread_too():
    found = row(heard(), FEES.model_copy(update={"perp_as_maker": False}), hold_days=14, now=NOW)
    half_of_perp = 0.02 / (100.05 + 100.07) / 1e-4
    assert found.cost.value == pytest.approx(2 * (5.5 + 10.0 + 0.5 + 1.0 + half_of_perp))


def test_held_longer_the_same_carry_nets_more():
    assert of(hold_days=1).net_8h.value < of(hold_days=14).net_8h.value < of(hold_days=365).net_8h.value


@pytest.mark.parametrize("hours", [1, 2, 4, 8])
def test_every_interval_is_brought_to_eight_hours(hours):
    each = 1e-4 * hours / 8
    found = of(interval_h=hours, funding=settled([each] * (168 // hours), hours), predicted=2 * each)
    assert found.interval.value == hours
    assert found.settled.value == pytest.approx(hours / 8)
    assert found.settled_8h.value == pytest.approx(1.0)
    assert found.mean_8h.value == pytest.approx(1.0)
    assert (found.settlements, found.covered_h) == (168 // hours, 168.0)
    assert found.predicted_8h.value == pytest.approx(2.0)


def test_premium_of_the_running_interval_is_brought_to_eight_hours_too():
    hours = 4
    begun = NOW // (4 * HOUR) * 4 * HOUR
    closes = [begun + minute * MINUTE for minute in range(1, (NOW - begun) // MINUTE + 1)]
    found = of(interval_h=4, funding=settled([1e-4] * 42, hours), premium_ts=closes, premium=[0.0012] * len(closes))
    # A premium of 12 bp in a steady market settles at 12 - 5 = 7 bp for four hours: 14 for eight.
    assert found.nowcast_8h.value == pytest.approx(14.0)
    assert found.nowcast_8h.as_of == closes[-1]
    assert found.nowcast.low == pytest.approx(found.nowcast.high)
    capped = of(
        interval_h=4, cap=0.0005, funding=settled([1e-4] * 42, hours), premium_ts=closes, premium=[0.0012] * len(closes)
    )
    assert capped.nowcast_8h.value == pytest.approx(10.0)


def test_funding_that_takes_never_breaks_even():
    found = of(funding=settled([-1e-4] * 21))
    assert found.days_to_break_even.value is None
    assert found.days_to_break_even.why.startswith("never")
    assert found.net_8h.value < 0


def test_what_is_not_known_says_why_and_is_never_nought():
    bare = of(
        interval_h=None,
        funding=Settlements(),
        predicted=None,
        perp_top=None,
        spot_top=None,
        ts_next=None,
        troubles={"funding": "nobody said", "perp": "silence"},
    )
    for figure in (bare.settled, bare.settled_8h, bare.mean_8h, bare.net_8h, bare.net_apr, bare.nowcast_8h):
        assert (figure.value, figure.why) == (None, "nobody said")
    for figure in (bare.predicted_8h, bare.basis, bare.cost):
        assert (figure.value, figure.why) == (None, "silence")
    assert bare.interval.value is None
    assert bare.days_to_break_even.value is None
    assert (bare.settlements, bare.covered_h, bare.ts_next) == (0, 0.0, None)
    no_spot = of(spot_top=None)
    assert no_spot.cost.why == "BTCUSDT-SPOT.BYBIT has no bid or no offer"
    assert no_spot.mean_8h.value is not None
    assert no_spot.days_to_break_even.why == no_spot.cost.why


def test_the_best_comes_first_and_what_is_not_known_last():
    rich = heard(symbol="RICH", funding=settled([9e-4] * 21))
    poor = heard(symbol="POOR", funding=settled([-9e-4] * 21))
    dumb = heard(symbol="DUMB", funding=Settlements())
    assert [one.symbol for one in board([dumb, poor, heard(), rich], FEES, hold_days=14, now=NOW)] == [
        "RICH",
        "BTCUSDT",
        "POOR",
        "DUMB",
    ]


@given(rate=st.floats(1e-6, 3e-3), hold_days=st.floats(1, 365))
def test_a_carry_held_until_it_breaks_even_nets_nothing(rate, hold_days):
    found = of(funding=settled([rate] * 21), hold_days=hold_days)
    days = found.days_to_break_even.value
    assert of(funding=settled([rate] * 21), hold_days=days).net_8h.value == pytest.approx(0, abs=1e-9)
    assert (found.net_8h.value > 0) == (hold_days > days)
