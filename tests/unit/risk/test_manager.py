import typing
from decimal import Decimal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hean import messages
from hean.errors import ConfigError
from hean.messages import (
    AmendOrder,
    Bracket,
    CancelAll,
    CancelOrder,
    CapitalAllocated,
    EquityChanged,
    FeedStale,
    KillSwitchTripped,
    Leg,
    OrderBracket,
    OrderExpired,
    OrderRejected,
    PairFinished,
    PositionChanged,
    Side,
    Signal,
    SignalRefused,
    StartTrading,
    StopTrading,
    StrategySwitched,
    SubmitOrder,
    SubmitPair,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.manager import RiskManager
from hean.risk.sizing import FixedNotional, RiskSizing
from tests.unit.risk.story import INSTRUMENTS, PERP, SECOND, SPOT, Told, orders, rules, two


def test_its_signature_can_be_read_back():
    hints = typing.get_type_hints(RiskManager.handle)

    heard, said = typing.get_args(hints["message"]), typing.get_args(typing.get_args(hints["return"])[0])
    assert {Signal, PairFinished, Wake} <= set(heard)
    assert set(said) == {
        SignalRefused,
        SubmitOrder,
        SubmitPair,
        AmendOrder,
        CancelOrder,
        CancelAll,
        TradingStateChanged,
        KillSwitchTripped,
        StrategySwitched,
        VerifyFlat,
    }
    assert all(issubclass(each, messages.Message) for each in heard + said)


@pytest.mark.parametrize("run", ["r.1", "r 1", "", "a-run-with-a-long-name-of-its-own"])
def test_names_that_would_make_no_link_id_are_an_error(run):
    if not run:
        run = "ü"
    with pytest.raises(ConfigError, match="order ids"):
        RiskManager(RiskConfig(), INSTRUMENTS, {"impulse": StrategyLimits()}, run)


def test_nothing_is_opened_before_trading_is_started():
    told = Told(start=False)

    assert rules(told.want(1.0)) == ["TRADING_STATE"]
    assert told.say(StartTrading()) == [TradingStateChanged(TradingState.ACTIVE, "started")]
    assert told.say(StartTrading()) == []
    assert orders(told.want(1.0)) == [(PERP, Decimal("0.020"), False)]


def test_a_signal_becomes_a_market_order():
    told = Told()

    (order,) = told.want(1.0, bracket=Bracket(stop=49_500.04, target=51_000.07))

    assert order == SubmitOrder(
        client_order_id="r1-impulse-1",
        strategy="impulse",
        instrument=PERP,
        side=Side.BUY,
        quantity=Decimal("0.020"),
        limit=None,
        time_in_force=messages.TimeInForce.IOC,
        reduce_only=False,
        reference=Decimal("50000.0"),
        bracket=OrderBracket(stop=Decimal("49500.1"), target=Decimal("51000.0")),
    )


def test_a_short_stop_is_rounded_down_to_its_price():
    (order,) = Told().want(-1.0, bracket=Bracket(stop=50_500.09, target=None))

    assert order.bracket == OrderBracket(stop=Decimal("50500.0"), target=None)


@pytest.mark.parametrize(
    ("held", "weight", "wanted"),
    [
        ("0", 0.5, [(PERP, Decimal("0.010"), False)]),
        ("0", -1.0, [(PERP, Decimal("-0.020"), False)]),
        ("0", 0.0, []),
        ("0.020", 1.0, []),
        ("0.024", 1.0, []),
        ("0.025", 1.0, []),
        ("0.026", 1.0, [(PERP, Decimal("-0.006"), True)]),
        ("0.016", 1.0, [(PERP, Decimal("0.004"), False)]),
        ("0.017", 1.0, []),
        ("0.013", 0.0, [(PERP, Decimal("-0.013"), True)]),
        ("-0.013", 0.0, [(PERP, Decimal("0.013"), True)]),
        ("0.020", -1.0, [(PERP, Decimal("-0.040"), False)]),
        ("-0.020", 0.5, [(PERP, Decimal("0.030"), False)]),
        ("150", 0.0, [(PERP, Decimal(-100), True), (PERP, Decimal(-50), True)]),
    ],
)
def test_a_signal_is_a_target(held, weight, wanted):
    told = Told()
    told.hold(PERP, held)

    assert orders(told.want(weight)) == wanted


def test_spot_is_sold_without_the_mark_that_spot_does_not_know_and_dust_stays():
    told = Told()
    told.say(PositionChanged("impulse", SPOT, Decimal("0.019999"), Decimal("0.0000004"), Decimal(50_000)))

    assert orders(told.want(0.0, instruments=(SPOT,))) == [(SPOT, Decimal("-0.019999"), False)]


def test_what_is_too_little_to_sell_is_refused_and_said():
    told = Told()
    told.hold(SPOT, "0.000099")

    assert rules(told.want(0.0, instruments=(SPOT,))) == ["MIN_NOTIONAL"]


def test_said_again_while_on_its_way_is_silence_and_the_contrary_is_refused():
    told = Told()
    (order,) = told.want(1.0)

    assert told.want(1.0) == []
    assert rules(told.want(-1.0)) == ["ORDER_PENDING"]
    told.fill(order)
    assert told.want(1.0) == []


def test_a_wish_to_leave_waits_for_what_is_under_way():
    told = Told()
    (order,) = told.want(1.0)

    assert told.want(0.0) == [CancelAll("impulse")]
    assert told.want(0.0) == []
    assert rules(told.want(1.0)) == ["ORDER_PENDING"]
    assert told.fill(order, "0.015") == []
    said = told.say(OrderExpired(order.client_order_id, "impulse", PERP, "remainder"))
    assert orders(said) == [(PERP, Decimal("-0.015"), True)]
    told.fill(said[0])
    assert told.want(0.0) == []


def test_two_fills_heard_before_their_positions_are_closed_once():
    told = Told()
    (order,) = told.want(1.0)
    told.want(0.0)
    told.fill(order, "0.012", settle=False)
    told.fill(order, "0.008", settle=False)

    assert told.hold(PERP, "0.012") == []
    assert orders(told.hold(PERP, "0.020")) == [(PERP, Decimal("-0.020"), True)]


def test_a_position_heard_before_its_fill_is_not_waited_for_again():
    told = Told()
    (order,) = told.want(1.0)
    told.hold(PERP, "0.020")
    told.fill(order, settle=False)

    assert orders(told.want(0.0)) == [(PERP, Decimal("-0.020"), True)]


def test_a_stop_held_by_the_venue_leaves_nothing_reserved():
    told = Told()
    (order,) = told.want(1.0)
    told.fill(order)
    stop = msgspec.structs.replace(order, client_order_id="stop-1", side=Side.SELL)
    told.fill(stop)

    assert told.manager.state.slots["impulse"][PERP].value == 0
    assert orders(told.want(-1.0)) == [(PERP, Decimal("-0.020"), False)]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda told: told.want(1.0, strategy="stranger"), "UNKNOWN_STRATEGY"),
        (lambda told: told.want(1.0, instruments=("XRPUSDT-LINEAR.BYBIT",)), "UNKNOWN_INSTRUMENT"),
        (lambda told: told.want(1.0, -1.0, instruments=(PERP, PERP)), "SAME_INSTRUMENT"),
        (lambda told: told.want(-1.0, instruments=(SPOT,)), "SPOT_SHORT"),
        (lambda told: told.say(StopTrading(flatten=False)) and told.want(1.0), "TRADING_STATE"),
        (lambda told: told.say(stale(told, 6)), "STALE_PRICE"),
        (lambda told: told.say(FeedStale(PERP, 5)) or told.want(1.0), "STALE_PRICE"),
        (lambda told: told.want(1.0, price=float("nan")), "PRICE_COLLAR"),
        (lambda told: told.want(1.0, price=0.0), "PRICE_COLLAR"),
        (lambda told: told.want(1.0, price=1.0e7), "SIZE_ZERO"),
        (lambda told: told.want(0.1, bracket=Bracket(50_100.0, None)), "BRACKET"),
        (lambda told: told.want(1.0, bracket=Bracket(40_000.0, None)), "TRADE_RISK"),
        (lambda _: Told(symbol_exposure=0.05).want(1.0), "SYMBOL_EXPOSURE"),
        (lambda told: told.want(1.01), "WEIGHT"),
        (lambda told: told.want(1.0, bracket=Bracket(float("nan"), None)), "BRACKET"),
        (
            lambda told: told.say(EquityChanged(Decimal(10_000), Decimal(10_000), marks_known=False)) or told.want(1.0),
            "UNKNOWN_EQUITY",
        ),
        (
            lambda told: told.say(EquityChanged(Decimal(9_700), Decimal(9_700), marks_known=True)) or told.want(1.0),
            "DAILY_LOSS",
        ),
        (lambda told: told.say(CapitalAllocated("impulse", Decimal("0.01"))) or told.want(1.0), "STRATEGY_BUDGET"),
    ],
)
def test_a_refusal_names_its_rule(change, rule):
    said = change(Told())

    assert rules(said) == [rule]
    assert all(message.measured and message.limit for message in said if isinstance(message, SignalRefused))


def stale(told, age_s):
    return Signal("impulse", (Leg(PERP, 1.0, 50_000.0, told.now - age_s * SECOND),), "why", None, None, None, "")


def test_a_strategy_on_bars_may_use_older_prices():
    told = Told(strategies={"impulse": StrategyLimits(sizing=FixedNotional(notional=1_000), price_age_s=900)})

    assert orders(told.say(stale(told, 900)))


def test_the_collar_compares_with_what_was_heard_a_moment_ago():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.want(1.0)

    assert rules(told.want(1.0, strategy="other", price=50_501.0)) == ["PRICE_COLLAR"]
    assert orders(told.want(1.0, strategy="other", price=50_500.0))


def test_an_old_price_collars_nothing():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.want(1.0)
    told.say(after=11)

    assert orders(told.want(1.0, strategy="other", price=60_000.0))


def test_orders_are_counted_over_a_minute():
    told = Told(orders_per_minute=2)
    for _ in range(2):
        (order,) = told.want(1.0)
        told.say(OrderRejected(order.client_order_id, "impulse", PERP, "no"))

    assert rules(told.want(1.0)) == ["ORDER_RATE"]
    told.say(after=60)
    assert orders(told.want(1.0))


def test_a_flip_whose_new_side_is_refused_still_closes_the_old():
    told = Told()
    told.hold(PERP, "0.020")
    told.say(StopTrading(flatten=False))

    said = told.want(-1.0)

    assert rules(said) == ["TRADING_STATE"]
    assert orders(said) == [(PERP, Decimal("-0.020"), True)]


def test_the_loss_of_a_day_is_forgotten_at_midnight():
    told = Told()
    told.say(EquityChanged(Decimal(9_700), Decimal(9_700), marks_known=True))
    assert rules(told.want(1.0)) == ["DAILY_LOSS"]

    told.say(EquityChanged(Decimal(9_700), Decimal(9_700), marks_known=True), after=86_400)
    assert orders(told.want(1.0))


ANY = st.floats()


@settings(max_examples=300, deadline=None)
@given(weight=ANY, other=ANY, price=ANY, volatility=ANY | st.none(), stop=ANY, target=ANY | st.none(), edge=ANY)
@example(weight=1.0, other=0.0, price=1.0, volatility=None, stop=1e307, target=None, edge=None)
def test_no_number_a_strategy_can_say_brings_it_down(weight, other, price, volatility, stop, target, edge):
    told = Told(strategies=two(RiskSizing()))
    for weights in ((weight,), (weight, other), (weight, -weight)):
        told.want(*weights, price=price, volatility=volatility, bracket=Bracket(stop, target), edge_bp=edge)
        told.want(*weights, strategy="other", price=price, volatility=volatility)
