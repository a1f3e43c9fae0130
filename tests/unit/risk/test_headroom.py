from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from hean.messages import (
    CapitalAllocated,
    EquityChanged,
    OrderExpired,
    OrderOutcomeUnknown,
    ReconcileCompleted,
    SubmitOrder,
    TradingState,
    Wake,
)
from hean.risk.config import StrategyLimits
from hean.risk.sizing import EquityShare, FixedNotional, RiskSizing
from tests.unit.risk.story import PERP, Told, orders, rules, two


def test_two_strategies_cannot_both_spend_the_same_headroom():
    told = Told(strategies=two(FixedNotional(notional=1_500)))
    (order,) = told.want(1.0)

    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]
    told.say(OrderOutcomeUnknown(order.client_order_id, "impulse", PERP, "timeout"))
    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]
    told.fill(order, "0.010")
    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]
    told.say(OrderExpired(order.client_order_id, "impulse", PERP, "remainder"))
    assert orders(told.want(1.0, strategy="other"))


def test_a_filled_order_holds_its_headroom_until_the_position_is_heard():
    told = Told(strategies=two(FixedNotional(notional=1_500)))
    (order,) = told.want(1.0)
    told.fill(order, settle=False)

    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]
    told.hold(PERP, "0.030")
    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]
    assert orders(told.want(-1.0, strategy="other"))


def test_sizing_by_risk_takes_what_is_left_and_a_fixed_notional_does_not():
    told = Told(
        strategies={
            "impulse": StrategyLimits(sizing=FixedNotional(notional=1_500)),
            "other": StrategyLimits(sizing=RiskSizing()),
        }
    )
    told.want(1.0)

    # Volatility would allow 10,000 * 10 % / 40 % = 2,500; the base coin leaves 1,000.
    assert orders(told.want(1.0, strategy="other", volatility=0.4)) == [(PERP, Decimal("0.020"), False)]


def test_sizing_by_risk_that_finds_no_room_names_the_limit():
    told = Told(
        strategies={
            "impulse": StrategyLimits(sizing=FixedNotional(notional=2_500)),
            "other": StrategyLimits(sizing=RiskSizing()),
        }
    )
    told.want(1.0)

    assert rules(told.want(1.0, strategy="other", volatility=0.4)) == ["SYMBOL_EXPOSURE"]


def test_sizing_by_risk_without_anything_known_is_refused():
    told = Told(strategies=two(RiskSizing()))

    assert rules(told.want(1.0)) == ["SIZE_UNKNOWN"]


def test_sizes_are_halved_in_the_yellow_tier():
    told = Told(daily_loss=1.0)
    told.say(EquityChanged(Decimal(9_400), Decimal(9_400), marks_known=True))
    told.say(Wake(), after=7_200)

    assert orders(told.want(1.0)) == [(PERP, Decimal("0.010"), False)]


QUANTITIES = st.integers(0, 60).map(lambda steps: Decimal(steps) / 1000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_the_order_of_events_the_gross_limit_holds(data):
    """Positions and everything that may still fill stay within the limit at the price all trade at."""
    told = Told(
        strategies={
            "impulse": StrategyLimits(sizing=EquityShare(share=0.7)),
            "other": StrategyLimits(sizing=RiskSizing(target_volatility=3.0)),
        },
        symbol_exposure=100.0,
        gross_exposure=1.0,
    )
    live = []
    held = {"impulse": Decimal(0), "other": Decimal(0)}
    for _ in range(data.draw(st.integers(1, 25))):
        if live and data.draw(st.booleans()):
            order = live.pop(data.draw(st.integers(0, len(live) - 1)))
            part = min(order.quantity, data.draw(QUANTITIES))
            said = []
            if part:
                held[order.strategy] += order.side * part
                said += told.fill(order, part)
            if part < order.quantity:
                said += told.say(OrderExpired(order.client_order_id, order.strategy, PERP, "remainder"))
        else:
            name = data.draw(st.sampled_from(["impulse", "other"]))
            weight = data.draw(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]))
            said = told.want(weight, strategy=name, volatility=1.0)
        live += [message for message in said if isinstance(message, SubmitOrder)]
        worst = sum(
            max(
                abs(quantity),
                abs(quantity + sum(order.side * order.quantity for order in live if order.strategy == name)),
            )
            for name, quantity in held.items()
        )
        assert worst * 50_000 <= 10_000


def test_one_position_may_answer_several_fills():
    told = Told()
    (order,) = told.want(1.0)
    told.fill(order, "0.012", settle=False)
    told.fill(order, "0.008", settle=False)
    told.hold(PERP, "0.020")

    assert not told.manager.state.slots["impulse"][PERP].pending


def test_a_clean_comparison_releases_a_fill_whose_position_was_never_heard():
    told = Told()
    (order,) = told.want(1.0)
    told.fill(order, settle=False)
    assert rules(told.want(-1.0)) == ["ORDER_PENDING"]

    told.say(ReconcileCompleted(1, 0, flat=False))
    assert rules(told.want(-1.0)) == ["ORDER_PENDING"]

    told.say(ReconcileCompleted(2, 0, flat=False), after=30)
    assert orders(told.want(-1.0))


def test_a_share_that_was_lowered_binds_at_once():
    told = Told()
    told.say(CapitalAllocated("impulse", Decimal("0.049")))

    assert rules(told.want(1.0)) == ["STRATEGY_BUDGET"]
    told.say(CapitalAllocated("impulse", Decimal("0.05")))
    assert orders(told.want(1.0))


def test_sizes_that_shrink_are_said_and_so_is_their_return():
    told = Told(10_000)
    told.say(EquityChanged(Decimal(9_400), Decimal(9_400), marks_known=True))

    (shrunk,) = told.say(EquityChanged(Decimal(9_400), Decimal(9_400), marks_known=True), after=3_600)
    (grown,) = told.say(EquityChanged(Decimal(10_000), Decimal(10_000), marks_known=True), after=36_000)

    assert (shrunk.trading, shrunk.reason) == (TradingState.ACTIVE, "drawdown 6.00%: sizes times 0.5")
    assert (grown.trading, grown.reason) == (TradingState.ACTIVE, "the drawdown has passed: sizes in full")
