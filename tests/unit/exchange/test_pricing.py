"""Mark, premium and the rates they make, against what the formulas say."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.exchange.history import History
from hean.exchange.listing import listings
from hean.exchange.pricing import Pricing, impact_notional, impact_price, mark_price, premium_index
from hean.market.carry import funding_rate, mean_premium
from hean.units import HOUR, MINUTE, SECOND, parse_time

START = parse_time("2026-01-05T10:00:00")
PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
INDEX = 60_000.0


def pricing(minutes=60, ts_start=START):
    return Pricing(listings(["BTCUSDT"], at=START, funding_minutes=minutes)[PERP], ts_start)


def see(prices, now, premium=0.0, last=None, index=INDEX, half=0.1):
    """Show a book whose impact prices make this premium."""
    middle = index * (1 + premium)
    prices.observe(
        now, index=index, bid=middle - half, ask=middle + half, impact_bid=middle, impact_ask=middle, last=last
    )


@pytest.mark.parametrize(
    ("bid", "ask", "expected"),
    [(60_060, 60_070, 0.001), (59_930, 59_940, -0.001), (59_990, 60_010, 0.0), (60_000, 60_000, 0.0)],
    ids=["above", "below", "around", "on it"],
)
def test_the_premium_is_how_far_the_impact_prices_leave_the_index_behind(bid, ask, expected):
    assert premium_index(60_000, bid, ask) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate", "left", "basis", "last", "expected"),
    [
        (0.001, 0.5, 20, 60_100, 60_030),  # funding to come
        (0.001, 0.0, 20, 60_100, 60_020),  # mean basis
        (0.001, 1.0, 80, 60_070, 60_070),  # last price
        (-0.001, 1.0, None, 60_100, 60_020),  # the mean of the two that are known
        (0.001, 1.0, None, None, 60_060),
    ],
)
def test_the_mark_is_the_median_of_what_is_known(rate, left, basis, last, expected):
    assert mark_price(60_000, rate, left, basis, last) == pytest.approx(expected)


LEVELS = [(1000, 10), (1010, 20), (1050, 70)]  # of 0.1 and 0.01: 10 and 20.2 and 73.5 of value


@pytest.mark.parametrize(
    ("notional", "expected"),
    [(5.0, 100.0), (10.0, 100.0), (30.2, 30.2 / 0.3), (30.2 + 52.5, 82.7 / 0.8), (103.8, None)],
    ids=["within the best", "all of the best", "two levels", "into the third", "more than there is"],
)
def test_an_impact_price_is_the_mean_of_walking_the_book(notional, expected):
    found = impact_price(LEVELS, notional, tick=0.1, step=0.01)
    assert found == (pytest.approx(expected) if expected is not None else None)


def test_the_impact_notional_is_what_200_carry_at_the_largest_leverage():
    instrument = listings(["BTCUSDT"], at=START)[PERP].instrument
    assert impact_notional(instrument) == 200 * float(instrument.max_leverage)


def test_a_rate_is_struck_from_every_minute_and_later_ones_weigh_more():
    prices = pricing(60)
    premia = [round(0.002 * np.sin(minute / 9), 8) for minute in range(60)]
    for minute, premium in enumerate(premia):
        see(prices, START + minute * MINUTE + SECOND, premium)
    assert prices.ts_next == START + HOUR
    expected = round(funding_rate(mean_premium(premia), 1.0), 8)
    assert float(prices.strike()) == pytest.approx(expected, abs=1e-8)
    assert prices.settled == [(START + HOUR, prices.last_settled)]
    assert prices.ts_next == START + 2 * HOUR


def test_what_stands_when_a_minute_ends_counts_for_it():
    prices = pricing(60)
    see(prices, START, 0.003)
    see(prices, START + 59 * SECOND, -0.003)
    see(prices, START + HOUR)
    assert float(prices.strike()) == pytest.approx(-0.0025, abs=1e-8)


def test_a_minute_of_funding_is_sampled_every_five_seconds():
    prices = pricing(1)
    premia = [0.0001 * at for at in range(12)]
    for at, premium in enumerate(premia):
        see(prices, START + at * 5 * SECOND, premium)
    expected = funding_rate(mean_premium(premia), 1 / 60)
    assert float(prices.strike()) == pytest.approx(expected, abs=1e-8)
    assert prices.ts_next == START + 2 * MINUTE


def test_the_prediction_becomes_the_rate():
    prices = pricing(60)
    see(prices, START, 0.002)
    assert prices.predicted == Decimal("0.00150000")
    for minute in range(1, 61):
        see(prices, START + minute * MINUTE, 0.001)
    predicted = prices.predicted
    assert predicted != Decimal("0.00150000")
    assert prices.strike() == predicted


def test_a_rate_is_held_within_the_cap_of_its_symbol():
    prices = pricing(60)
    cap = listings(["BTCUSDT"], at=START)[PERP].instrument.funding_cap
    see(prices, START, 0.05)
    assert prices.strike() == cap
    see(prices, START + HOUR + SECOND, -0.05)
    assert prices.strike() == -cap


def test_without_any_premium_the_rate_stays_what_it_was():
    prices = pricing(60)
    assert prices.predicted is None
    assert prices.strike() == 0
    see(prices, START + HOUR, 0.002)
    struck = prices.strike()
    assert struck == Decimal("0.00150000")
    assert prices.strike() == struck  # the premium that stands holds on


def test_after_a_sleep_every_interval_is_struck_in_turn():
    prices = pricing(1)
    see(prices, START, 0.001)
    see(prices, START + 3 * MINUTE + SECOND, -0.001)
    rates = []
    while prices.ts_next <= START + 3 * MINUTE + SECOND:
        rates.append(prices.strike())
    assert [ts for ts, _ in prices.settled] == [START + at * MINUTE for at in (1, 2, 3)]
    # The first was seen before the sleep; of the others the market is known to stand where it woke up.
    assert rates[0] == Decimal("0.00050000")


@given(
    st.lists(st.floats(-0.002, 0.002), min_size=70, max_size=70),
    st.integers(1, 69),
)
def test_minutes_from_the_past_count_like_minutes_seen(premia, known):
    seen, loaded = pricing(480), pricing(480, START + known * MINUTE)
    rows = np.round(np.array(premia), 8)
    for minute, premium in enumerate(rows.tolist()):
        see(seen, START + minute * MINUTE, premium)
        if minute >= known:
            see(loaded, START + minute * MINUTE, premium)
        if minute == known - 1:
            loaded.load(
                History(
                    ts_first=START,
                    last=np.ones((known, 6)),
                    premium=np.repeat(rows[:known, None], 4, axis=1),
                    settled=((START - 2 * HOUR, 0.0002),),
                )
            )
    for prices in (seen, loaded):
        see(prices, START + 70 * MINUTE, 0.0)
    assert loaded.last_settled == Decimal("0.00020000")
    assert loaded.predicted == seen.predicted


@given(st.lists(st.tuples(st.integers(0, 7_200_000), st.floats(-0.002, 0.002)), min_size=1, max_size=30))
def test_looking_more_often_changes_nothing(changes):
    rarely, often = pricing(60), pricing(60)
    premium = 0.0
    moves = dict(sorted(changes))
    for ms in sorted({*moves, *range(0, 7_200_001, 60_000)}):
        now = START + ms * 1_000_000
        for prices in (rarely, often):
            see(prices, now, premium := moves.get(ms, premium), last=INDEX)
        see(often, now + 999, premium, last=INDEX)
    assert (rarely.predicted, rarely.mark, rarely.premium) == (often.predicted, often.mark, often.premium)


def test_the_mark_follows_the_mean_basis_of_five_minutes():
    prices = pricing(480)
    for second in range(300):
        see(prices, START + second * SECOND, 0.001)
    for second in range(300, 450):
        see(prices, START + second * SECOND, 0.002, last=61_000.0)
    # Half of the five minutes at 60 and half at 120 over the index, the median between funding and last price.
    assert float(prices.mark) == pytest.approx(60_090, abs=0.6)
    assert prices.mark % Decimal("0.1") == 0


def test_a_shock_moves_the_mark_and_ends_with_it():
    prices = pricing()
    see(prices, START, last=INDEX)
    before = prices.mark
    prices.shock = -0.1
    see(prices, START + SECOND, last=INDEX)
    assert prices.mark == before * Decimal("0.9")
    prices.shock = 0.0
    see(prices, START + 2 * SECOND, last=INDEX)
    assert prices.mark == before


def test_nothing_is_known_before_the_index_is():
    prices = pricing()
    prices.observe(START, index=None, bid=1.0, ask=2.0, impact_bid=1.0, impact_ask=2.0, last=1.5)
    assert (prices.index, prices.mark, prices.premium, prices.predicted) == (None, None, None, None)


def test_a_book_too_thin_leaves_the_premium_as_it_was():
    prices = pricing()
    see(prices, START, 0.001)
    prices.observe(START + SECOND, index=INDEX, bid=None, ask=None, impact_bid=None, impact_ask=None, last=None)
    assert prices.premium == 0.001
    assert prices.mark is not None


def test_spot_has_an_index_and_nothing_else():
    prices = Pricing(listings(["BTCUSDT"], at=START)[SPOT], START)
    prices.observe(START, index=60_000.04, bid=1.0, ask=2.0, impact_bid=1.0, impact_ask=2.0, last=1.5)
    assert prices.index == Decimal("60000.0")
    assert (prices.mark, prices.premium, prices.predicted, prices.ts_next) == (None, None, None, 0)


@pytest.mark.parametrize(("minutes", "expected"), [(480, "16:00"), (60, "11:00"), (5, "10:10"), (1, "10:08")])
def test_settlements_fall_on_multiples_of_the_interval_since_midnight(minutes, expected):
    start = parse_time("2026-01-05T10:07:12")
    assert pricing(minutes, start).ts_next == parse_time(f"2026-01-05T{expected}:00")
