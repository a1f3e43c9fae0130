from decimal import Decimal

import pytest

from hean import messages
from hean.messages import (
    CancelAll,
    Leg,
    PairFinished,
    PairLeg,
    Side,
    Signal,
    SubmitOrder,
    SubmitPair,
    TradingState,
    TradingStateChanged,
)
from hean.risk.config import StrategyLimits
from hean.risk.sizing import FixedNotional, RiskSizing
from tests.unit.risk.story import ETH, LOOSE, PERP, SPOT, Told, orders, rules, two


def test_two_opposite_legs_are_a_pair_led_by_the_derivative():
    (pair,) = Told(strategies=two(FixedNotional(notional=2_000))).want(1.0, -1.0, instruments=(SPOT, PERP))

    assert pair == SubmitPair(
        pair_id="r1-impulse-1",
        strategy="impulse",
        lead=PairLeg(PERP, Side.SELL, Decimal("0.040"), Decimal("50000.0")),
        hedge=PairLeg(SPOT, Side.BUY, Decimal("0.040"), Decimal("50000.0")),
        opening=True,
        max_naked=Decimal("200.00"),
        reduce_only=True,
    )


def test_a_pair_is_closed_with_what_each_leg_holds():
    told = Told()
    told.hold(PERP, "-0.040")
    told.hold(SPOT, "0.039961")

    (pair,) = told.want(0.0, 0.0)

    assert not pair.opening
    assert (pair.lead.instrument, pair.lead.side, pair.lead.quantity) == (PERP, Side.BUY, Decimal("0.040"))
    assert (pair.hedge.instrument, pair.hedge.side, pair.hedge.quantity) == (SPOT, Side.SELL, Decimal("0.039961"))
    assert told.want(0.0, 0.0) == []


def test_one_leg_left_over_is_closed_by_itself():
    told = Told()
    told.hold(PERP, "-0.040")

    assert orders(told.want(0.0, 0.0)) == [(PERP, Decimal("0.040"), True)]


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (lambda told: told.want(1.0, -1.0), ["SPOT_SHORT"]),
        (lambda told: told.want(-1.0, 1.0, strategy="big"), ["STRESS_MARGIN"]),
        (lambda told: told.hold(PERP, "-0.01") or told.want(-1.0, 1.0), ["ORDER_PENDING"]),
        (lambda told: told.hold_pair("0.04") or told.want(-1.0, 1.0), []),
        (lambda told: told.want(-1.0, 1.0) and told.want(-1.0, 1.0), []),
        (lambda told: told.want(-1.0, 1.0) and told.want(1.0, -1.0), ["ORDER_PENDING"]),
    ],
    ids=["spot cannot be short", "stress", "one leg there", "held already", "on its way", "the other way round"],
)
def test_pairs_are_refused_or_let_be(said, wanted):
    sizes = {"impulse": 1_000, "big": 7_000}
    told = Told(
        strategies={name: StrategyLimits(sizing=FixedNotional(notional=n)) for name, n in sizes.items()}, margin=2.0
    )

    heard = said(told)

    assert rules(heard) == wanted
    assert len(heard) == len(wanted)


def test_legs_whose_prices_differ_too_much_are_no_pair():
    told = Told(strategies=two(FixedNotional(notional=5_000)))
    legs = (Leg(PERP, -1.0, 50_000.0, told.now), Leg(SPOT, 1.0, 47_000.0, told.now))

    assert rules(told.say(Signal("impulse", legs, "why", None, None, None, ""))) == ["PAIR_DELTA"]


def test_legs_of_two_coins_or_of_one_sign_are_traded_apart():
    assert orders(Told().want(1.0, -1.0, instruments=(PERP, ETH))) == [
        (PERP, Decimal("0.020"), False),
        (ETH, Decimal("-0.02"), False),
    ]
    assert orders(Told(**LOOSE).want(1.0, 0.5)) == [(PERP, Decimal("0.020"), False), (SPOT, Decimal("0.010000"), False)]


def test_a_pair_holds_headroom_until_it_is_finished_and_counts_no_net():
    told = Told(strategies=two(FixedNotional(notional=5_000)), gross_exposure=1.5, margin=2.0, stress_margin=2.0)
    (pair,) = told.want(-1.0, 1.0)

    assert rules(told.want(-1.0, 1.0, strategy="other")) == ["GROSS_EXPOSURE"]
    for side, leg in ((-1, pair.lead), (1, pair.hedge)):
        child = SubmitOrder(
            f"{pair.pair_id}-x1",
            "impulse",
            leg.instrument,
            Side(side),
            Decimal("0.05"),
            None,
            messages.TimeInForce.IOC,
            reduce_only=False,
            reference=leg.reference,
            bracket=None,
        )
        told.fill(child)
        assert rules(told.want(-1.0, 1.0, strategy="other")) == ["GROSS_EXPOSURE"]
    told.say(PairFinished(pair.pair_id, "impulse", "unwound", "hedge too dear"))
    # Half of it stands: 2,500 on each side leaves just the 10,000 that another pair needs.
    assert [type(message) for message in told.want(-1.0, 1.0, strategy="other")] == [SubmitPair]


def test_leaving_a_pair_under_way_calls_it_back_and_closes_what_is_left_as_a_pair():
    told = Told(strategies=two(FixedNotional(notional=2_000)))
    (pair,) = told.want(-1.0, 1.0)

    assert told.want(0.0, 0.0) == [CancelAll("impulse")]
    told.hold(PERP, "-0.010")
    told.hold(SPOT, "0.010")
    said = told.say(PairFinished(pair.pair_id, "impulse", "done", "canceled"))

    assert [(type(message), message.opening) for message in said] == [(SubmitPair, False)]


def test_a_broken_pair_stops_new_trades_until_its_leg_is_gone():
    told = Told(strategies=two(FixedNotional(notional=2_000)))
    (pair,) = told.want(-1.0, 1.0)
    told.hold(PERP, "-0.010")

    said = told.say(PairFinished(pair.pair_id, "impulse", "broken", "spot refused"))

    assert said == [TradingStateChanged(TradingState.REDUCING, "a pair of impulse broke: spot refused")]
    (order,) = told.want(0.0, 0.0)
    assert [type(message) for message in told.fill(order)] == [TradingStateChanged]
    assert told.trading is TradingState.ACTIVE


def test_a_pair_sized_by_risk_shrinks_to_what_the_stress_leaves():
    told = Told(strategies=two(RiskSizing(target_volatility=1.0)), margin=2.0)

    # 10,000 wanted per leg; 0.3 + 1.3 / 3 of it must be at most 5,000: 6,818.18, 0.136 coins.
    (pair,) = told.want(-1.0, 1.0, volatility=1.0)

    assert pair.lead.quantity == pair.hedge.quantity == Decimal("0.136")
    assert str(pair.lead.quantity) == "0.136"
