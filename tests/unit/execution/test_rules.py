"""The pure rules of a venue: fees, funding, margin, matching."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.errors import ConfigError
from hean.execution.fees import BYBIT_TIERS, fee, fee_rates
from hean.execution.funding import settlement
from hean.execution.margin import DEFAULT_TIER, bankruptcy_move, initial, maintenance, tier_of
from hean.execution.matching import beyond, crosses, queue_after, taker_price, walk
from hean.instruments import Category, RiskTier
from hean.market.carry import funding_rate
from hean.messages import Liquidity, Side
from tests.unit.execution.market import INSTRUMENTS, PERP, SPOT, D, instrument

MAKER, TAKER = Liquidity.MAKER, Liquidity.TAKER


@pytest.mark.parametrize(
    ("name", "side", "rate", "liquidity", "paid"),
    [
        (PERP, Side.BUY, "0.00055", TAKER, ("0.055", "USDT")),
        (PERP, Side.SELL, "0.0002", MAKER, ("0.02", "USDT")),
        (PERP, Side.SELL, "-0.0001", MAKER, ("-0.01", "USDT")),
        (SPOT, Side.BUY, "0.001", TAKER, ("0.001", "BTC")),
        (SPOT, Side.SELL, "0.001", TAKER, ("0.1", "USDT")),
        (SPOT, Side.BUY, "-0.0001", MAKER, ("-0.01", "USDT")),
        (SPOT, Side.SELL, "-0.0001", MAKER, ("-0.0001", "BTC")),
        (SPOT, Side.BUY, "0", MAKER, ("0", "BTC")),
    ],
)
def test_a_fee_is_taken_from_what_is_received_and_a_rebate_comes_in_the_other(name, side, rate, liquidity, paid):
    assert fee(INSTRUMENTS[name], side, D(1), D(100), D(rate), liquidity) == (D(paid[0]), paid[1])


def test_the_base_tier_is_what_bybit_asks_of_everyone():
    base = fee_rates("base")

    assert [base.of(Category.SPOT, each) for each in (MAKER, TAKER)] == [D("0.001"), D("0.001")]
    assert [base.of(Category.LINEAR, each) for each in (MAKER, TAKER)] == [D("0.0002"), D("0.00055")]


@pytest.mark.parametrize("name", BYBIT_TIERS)
def test_no_tier_is_dearer_than_the_base_or_cheaper_to_take_than_to_make(name):
    rates, base = fee_rates(name), fee_rates("base")
    for category in (Category.SPOT, Category.LINEAR):
        assert rates.of(category, MAKER) <= rates.of(category, TAKER) <= base.of(category, TAKER)


def test_an_unknown_tier_is_named():
    with pytest.raises(ConfigError, match="'gold' is none of base, vip1"):
        fee_rates("gold")


@pytest.mark.parametrize(
    ("premium", "interval_h", "cap", "rate"),
    [
        (0.0, 8, 0.02, 0.0001),
        (0.0003, 8, 0.02, 0.0001),
        (0.0006, 8, 0.02, 0.0001),
        (0.0010, 8, 0.02, 0.0005),
        (-0.0010, 8, 0.02, -0.0005),
        (-0.0004, 8, 0.02, 0.0001),
        (0.05, 8, 0.02, 0.02),
        (-0.05, 8, 0.02, -0.02),
        (0.0, 1, 0.02, 0.0000125),
        (0.0003, 4, 0.02, 0.00005),
        (0.0010, 1, 0.02, 0.0005),
    ],
)
def test_the_rate_is_the_premium_clamped_towards_the_interest_and_capped(premium, interval_h, cap, rate):
    assert funding_rate(premium, interval_h, cap) == pytest.approx(rate, abs=1e-15)


@given(st.floats(-0.1, 0.1), st.sampled_from([1, 2, 4, 8]), st.floats(0.001, 0.04))
def test_the_rate_stays_within_the_cap_and_near_the_premium(premium, interval_h, cap):
    rate = funding_rate(premium, interval_h, cap)

    assert -cap <= rate <= cap
    assert abs(rate) == cap or abs(rate - premium) <= 0.0005 + 1e-15


def test_a_short_receives_when_the_rate_is_positive():
    assert settlement(D("-0.5"), D("60000"), D("0.0001")) == D("3.00000")
    assert settlement(D("0.5"), D("60000"), D("0.0001")) == D("-3.00000")


TIERED = instrument(
    PERP,
    tiers=(
        RiskTier(D(1000), D("0.005"), D("0.01")),
        RiskTier(D(5000), D("0.01"), D("0.02"), D(5)),
        RiskTier(D(9000), D("0.02"), D("0.04"), D(55)),
    ),
)


@pytest.mark.parametrize(
    ("value", "tier", "kept"), [("1000", 0, "5"), ("1001", 1, "5.01"), ("5000", 1, "45"), ("20000", 2, "345")]
)
def test_maintenance_goes_up_the_tiers_without_a_jump(value, tier, kept):
    assert tier_of(TIERED, D(value)) is TIERED.tiers[tier]
    assert maintenance(TIERED, D(value), D(0)) == D(kept)


def test_initial_margin_is_the_leverage_or_the_tier_whichever_asks_more():
    assert initial(TIERED, D(100), D(10), D("0.001")) == D("10.1")
    assert initial(TIERED, D(6000), D(50), D(0)) == D(240)


def test_an_instrument_without_tiers_is_margined_with_care():
    assert tier_of(INSTRUMENTS[SPOT], D(1)) is DEFAULT_TIER


def test_a_liquidated_position_goes_at_a_price_worse_than_its_mark():
    # 100 of margin on a position of 1,000: a tenth of the mark may go, less the fee of closing.
    assert bankruptcy_move(100.0, 1_000.0, 0.0006) == pytest.approx(0.0994)
    assert bankruptcy_move(-20.0, 1_000.0, 0.0006) == pytest.approx(-0.0206)


@pytest.mark.parametrize(("side", "crossed", "through"), [(Side.BUY, [99, 100], [99]), (Side.SELL, [100, 101], [101])])
def test_an_order_crosses_at_its_limit_and_a_resting_one_needs_prices_through_it(side, crossed, through):
    assert [price for price in (99, 100, 101) if crosses(side, 100, price)] == crossed
    assert [price for price in (99, 100, 101) if beyond(side, 100, price, price)] == through


def test_a_taker_pays_half_the_spread_to_the_tick_against_it():
    assert taker_price(INSTRUMENTS[PERP], Side.BUY, 100.0, 0.0001) == D("100.1")
    assert taker_price(INSTRUMENTS[PERP], Side.SELL, 100.0, 0.0001) == D("99.9")
    assert taker_price(INSTRUMENTS[PERP], Side.SELL, 100.0, 0.0) == D("100.0")


ASKS = [(100.0, 1.0), (100.1, 0.0005), (100.2, 2.0)]


@pytest.mark.parametrize(
    ("quantity", "limit", "taken"),
    [
        ("0.5", None, [("100.0", "0.5")]),
        ("2", None, [("100.0", "1"), ("100.2", "1")]),
        ("9", None, [("100.0", "1"), ("100.2", "2")]),
        ("2", 100.1, [("100.0", "1")]),
        ("2", 99.9, []),
        ("0", None, []),
    ],
    ids=["one level", "passes by less than a step", "the whole book", "to the limit", "short of it", "nothing"],
)
def test_a_taker_walks_the_book(quantity, limit, taken):
    takes = list(walk(ASKS, Side.BUY, D(quantity), limit, INSTRUMENTS[PERP]))

    assert [(take.price, take.quantity) for take in takes] == [(D(price), D(part)) for price, part in taken]


@pytest.mark.parametrize(
    ("traded", "after", "share", "left"),
    [(0, 10, 0.5, 8), (3, 7, 0.5, 5), (0, 6, 0.5, 6), (0, 6, 0.0, 6), (0, 9, 1.0, 7), (9, 1, 0.5, 0), (0, 20, 0.5, 8)],
    ids=["still", "prints", "cancels", "no more than is shown", "cancels in front", "past us", "joins behind"],
)
def test_the_queue_before_us_gets_shorter(traded, after, share, left):
    assert queue_after(8.0, traded=traded, before=10.0, after=after, cancel_share=share) == left


@given(*[st.floats(0, 100)] * 4, st.floats(0, 1))
def test_the_queue_never_gets_longer_or_negative(ahead, traded, before, after, share):
    assert 0 <= queue_after(ahead, traded=traded, before=before, after=after, cancel_share=share) <= min(ahead, after)


def test_decimals_stay_exact():
    assert isinstance(taker_price(INSTRUMENTS[PERP], Side.BUY, 100.0, 0.0), Decimal)
