"""Money that moves by itself, and the books of the account: they add up to the last digit."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.execution.account import Account, booked, measured
from hean.execution.simulated_venue import Tier
from hean.messages import BarOpened, FundingRate, FundingSettled, InterestCharged, MarkPrice, OrderCanceled, OrderFilled
from tests.unit.execution.market import (
    ETH,
    HOUR,
    INSTRUMENTS,
    MINUTE,
    PERP,
    SPOT,
    START,
    D,
    Told,
    buy,
    fills,
    play,
    random_plan,
    random_tape,
    sell,
)


def holding(*orders, price=100.0, **more):
    """A venue on candles at which these orders have filled at one price."""
    told = Told(Tier.BARS, **more)
    for name in (PERP, SPOT):
        told.bar(0, price, price, price, price, name)
    for order in orders:
        told(order, START + MINUTE)
    for name in (PERP, SPOT):
        told(BarOpened(name, START + MINUTE, price))
    assert len(fills(told.heard)) == len(orders)
    return told


def mark(told, price, name=PERP, after=2 * MINUTE):
    return told(MarkPrice(name, START + after, float(price)))


@pytest.mark.parametrize(("order", "amount"), [(buy("2"), "-0.0213"), (sell("2"), "0.0213")], ids=["long", "short"])
def test_funding_is_settled_on_the_mark_of_the_stamp(order, amount):
    told = holding(order)
    before = told.account.balances["USDT"]
    mark(told, 106.5)
    (settled,) = told(FundingRate(PERP, START + 8 * HOUR, 0.0001))

    assert settled == FundingSettled(
        f"{PERP}:{START + 8 * HOUR}", PERP, told.position(), D("0.0001"), D("106.5"), D(amount), START + 8 * HOUR
    )
    assert told.account.balances["USDT"] - before == D(amount)


def test_funding_is_settled_whenever_it_comes_whatever_the_interval():
    told = holding(buy("1"))

    assert [len(told(FundingRate(PERP, START + hours * HOUR, 0.0001))) for hours in (8, 12, 13)] == [1, 1, 1]


def test_without_a_position_nothing_is_settled():
    assert holding(buy("1", SPOT))(FundingRate(PERP, START + 8 * HOUR, 0.0001)) == []


@pytest.mark.parametrize(
    ("order", "lives", "dies", "price"),
    [(buy("9"), 89.9, 89.0, "89.0"), (sell("9"), 110.0, 111.0, "110.9")],
    ids=["long", "short"],
)
def test_a_position_is_taken_away_when_its_margin_is_gone(order, lives, dies, price):
    told = holding(order, balances={"USDT": "100"})
    told(buy("0.1", limit="50", order_id="resting"), START + MINUTE)

    assert mark(told, lives) == []
    canceled, taken = mark(told, dies)
    assert canceled == OrderCanceled("resting", "a", PERP, "CancelAllBeforeLiq")
    assert (taken.exit, taken.side, taken.price, taken.strategy) == ("liquidation", -order.side, D(price), "")
    assert told.position() == 0
    assert 0 <= told.venue.state.account.balances["USDT"] < 1


def test_a_gap_far_beyond_bankruptcy_takes_the_margin_and_no_more():
    told = holding(buy("9"), balances={"USDT": "100"})

    (taken,) = mark(told, 40.0)

    assert taken.price == 89
    assert 0 <= told.venue.state.account.balances["USDT"] < 1


def test_a_candle_is_margined_at_its_worst():
    told = holding(sell("9"), balances={"USDT": "100"})

    assert [fact.exit for fact in told.bar(2, 100, 111, 100, 100)[1]] == ["liquidation"]


@pytest.mark.parametrize(("coin", "lives"), [("9", True), ("0", False)], ids=["hedged by the coin", "without it"])
def test_a_coin_carries_the_loss_of_the_short_against_it(coin, lives):
    told = holding(sell("9"), balances={"USDT": "200", "BTC": coin})
    for price in (120, 150, 200):
        mark(told, price, SPOT)
        mark(told, price, PERP)

    assert (told.position() == -9) is lives


def test_interest_is_paid_by_the_hour_on_what_the_coin_has_to_carry():
    told = holding(sell("9"), balances={"USDT": "105", "BTC": "9"}, borrow_rate_hourly="0.001")
    cash = told.account.balances["USDT"]
    assert told.venue.wake_at() is None

    mark(told, 120, SPOT)
    mark(told, 120, PERP)
    assert told.venue.wake_at() == START + HOUR
    owed = 9 * D(20) - cash
    assert told.wake() == [InterestCharged(f"USDT:{START + HOUR}", "USDT", owed, owed * D("0.001"), START + HOUR)]

    mark(told, 100, PERP)
    assert told.wake() == []
    assert told.venue.wake_at() is None


def test_what_is_free_of_interest_is_free():
    told = holding(sell("9"), balances={"USDT": "105", "BTC": "9"}, borrow_free="100")
    mark(told, 120, SPOT)
    mark(told, 120, PERP)

    assert told.venue.wake_at() is None


def test_a_debt_stays_when_the_position_is_closed():
    told = holding(sell("9"), balances={"USDT": "105", "BTC": "9"}, borrow_rate_hourly="0.001")
    mark(told, 120, SPOT)
    mark(told, 120, PERP)
    told(buy("9"), START + 5 * MINUTE)
    told(BarOpened(PERP, START + 6 * MINUTE, 120.0))

    assert told.account.balances["USDT"] < 0
    assert isinstance(told.wake()[0], InterestCharged)


def test_a_measured_price_is_the_text_the_venue_wrote():
    assert measured((60_000.0 + 60_000.1) / 2) == D("60000.05")
    assert measured(0.1 + 0.2) == D("0.3")


@given(st.decimals(-(10**6), 10**6, places=25))
def test_what_is_booked_adds_up_without_rounding(amount):
    with localcontext() as context:
        context.prec = 28
        assert D(8_999_999_999) + booked(amount) - D(8_999_999_999) == booked(amount)
    assert abs(booked(amount) - amount) <= D("5e-19")


SIGNED = st.integers(-50, 50).filter(bool).map(lambda n: D(n) / 1000)
PRICES = st.integers(500, 2000).map(lambda n: D(n) / 10)


@given(st.lists(st.tuples(SIGNED, PRICES), max_size=20))
def test_a_position_is_the_sum_of_its_fills_and_its_profit_what_they_exchanged(trades):
    account = Account({"USDT": D(0)})
    for signed, price in trades:
        account.trade(INSTRUMENTS[PERP], signed, price)
    position = account.positions.get(PERP)

    assert account.held(INSTRUMENTS[PERP]) == sum((signed for signed, _ in trades), D(0))
    value = position.value if position is not None else D(0)
    assert account.balances["USDT"] - value == -sum((signed * price for signed, price in trades), D(0))
    assert position is None or position.quantity


@pytest.mark.parametrize("kind", ["bars", "trades", "quotes", "depth"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    orders=st.integers(1, 30),
    usdt=st.sampled_from(["100", "1000", "100000"]),
    coin=st.sampled_from(["0", "7"]),
)
def test_what_is_said_accounts_for_every_digit_of_the_account(kind, seed, orders, usdt, coin):
    markets = dict.fromkeys((PERP, SPOT, ETH), kind)
    tape, tiers = random_tape(seed, markets, 60, 60 * MINUTE, marks=True)
    plan = random_plan(seed, list(markets), 60 * MINUTE, orders)
    start = {"USDT": D(usdt), "BTC": D(coin)}

    log, venue, _ = play(tape, tiers, plan, stepping=False, balances=start, leverage=50, borrow_rate_hourly="0.001")

    coins, held = dict(start), {PERP: Decimal(0), ETH: Decimal(0)}
    for fact in (envelope.message for envelope in log):
        if isinstance(fact, OrderFilled):
            signed = fact.side * fact.quantity
            coins["USDT"] -= signed * fact.price
            coins[fact.fee_currency] -= fact.fee
            if fact.instrument == SPOT:
                coins["BTC"] += signed
            else:
                held[fact.instrument] += signed
        elif isinstance(fact, FundingSettled):
            coins["USDT"] += fact.amount
        elif isinstance(fact, InterestCharged):
            coins["USDT"] -= fact.amount
    account = venue.state.account
    tied = sum((position.value for position in account.positions.values()), D(0))
    assert account.balances == coins | {"USDT": coins["USDT"] + tied}
    assert {name: position.quantity for name, position in account.positions.items()} == {
        name: quantity for name, quantity in held.items() if quantity
    }
    assert account.balances["BTC"] >= 0
