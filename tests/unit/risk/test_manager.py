"""Stories of the risk manager: it is told things, and we listen to what it says."""

import itertools
import typing
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean import messages
from hean.errors import ConfigError
from hean.instruments import Instrument
from hean.messages import (
    Bracket,
    CancelAll,
    CancelOrder,
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EquityChanged,
    ErrorReported,
    FeedLive,
    FeedStale,
    KillSwitchReset,
    KillSwitchTripped,
    Leg,
    Liquidity,
    NodeFailed,
    OrderBracket,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    PairFinished,
    PairLeg,
    PositionChanged,
    ReconcileCompleted,
    Severity,
    Side,
    Signal,
    SignalRefused,
    StartTrading,
    StopTrading,
    SubmitOrder,
    SubmitPair,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.manager import RiskManager
from hean.risk.sizing import EquityShare, FixedNotional, RiskSizing
from hean.risk.state import RiskState

SECOND = 1_000_000_000
PERP, SPOT, ETH = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"
LOOSE = {"symbol_exposure": 100.0, "gross_exposure": 100.0, "margin": 100.0, "strategy_leverage": 100.0}


def instrument(name, step="0.001", **changes):
    spot = "SPOT" in name
    rules = {
        "id": name,
        "base": name[:3],
        "quote": "USDT",
        "tick": Decimal("0.1"),
        "step": Decimal(step),
        "min_quantity": Decimal(step),
        "max_limit_quantity": Decimal(1000),
        "max_market_quantity": Decimal(100),
        "min_notional": Decimal(5),
        "max_leverage": Decimal(1) if spot else Decimal(100),
    }
    return Instrument(**(rules | changes))


INSTRUMENTS = {PERP: instrument(PERP), SPOT: instrument(SPOT, "0.000001"), ETH: instrument(ETH, "0.01")}


class Told:
    """A risk manager, and a broker and portfolio as obliging as a story needs."""

    def __init__(self, equity=10_000, strategies=None, start=True, **config):
        names = strategies or {"impulse": StrategyLimits(sizing=FixedNotional(notional=1_000))}
        self.manager = RiskManager(RiskConfig(**config), INSTRUMENTS, names, "r1")
        self.now = 1_000 * SECOND
        self.trades = itertools.count()
        self.say(EquityChanged(Decimal(equity), marks_known=True))
        if start:
            self.say(StartTrading())

    def say(self, *heard, after=0.0):
        self.now += round(after * SECOND)
        return [said for message in heard for said in self.manager.handle(message, self.now)]

    def want(self, *weights, strategy="impulse", instruments=(PERP, SPOT), price=50_000.0, **more):
        legs = tuple(Leg(name, weight, price, self.now) for name, weight in zip(instruments, weights, strict=False))
        fields = {"reason": "why", "edge_bp": None, "volatility": None, "bracket": None, "context": ""} | more
        return self.say(Signal(strategy=strategy, legs=legs, **fields))

    def fill(self, order, quantity=None, price=None, settle=True):
        """Fill an order, all of it by default, and post the position it makes."""
        quantity = order.quantity if quantity is None else Decimal(quantity)
        heard = self.say(
            OrderFilled(
                client_order_id=order.client_order_id,
                strategy=order.strategy,
                instrument=order.instrument,
                trade_id=str(next(self.trades)),
                side=order.side,
                quantity=quantity,
                price=order.reference if price is None else Decimal(price),
                fee=Decimal(0),
                fee_currency="USDT",
                liquidity=Liquidity.TAKER,
                reference=order.reference,
                exit="",
                ts_event=self.now,
            )
        )
        if settle:
            before = self.manager.state.slots[order.strategy][order.instrument].held
            heard += self.hold(order.instrument, before + order.side * quantity, strategy=order.strategy)
        return heard

    def hold(self, name, quantity, strategy="impulse", price=50_000):
        quantity = Decimal(quantity)
        return self.say(
            PositionChanged(strategy, name, quantity, Decimal(0), Decimal(price) if quantity else Decimal(0))
        )

    def hold_pair(self, quantity, strategy="impulse"):
        self.hold(PERP, -Decimal(quantity), strategy)
        self.hold(SPOT, quantity, strategy)

    @property
    def trading(self):
        return self.manager.state.trading


def rules(said):
    return [message.rule for message in said if isinstance(message, SignalRefused)]


def orders(said):
    """Side times quantity of every order said, with a mark where it may only reduce."""
    return [
        (message.instrument, message.side * message.quantity, message.reduce_only)
        for message in said
        if isinstance(message, SubmitOrder)
    ]


def two(sizing, **more):
    return {name: StrategyLimits(sizing=sizing, **more) for name in ("impulse", "other")}


# --- the contract -------------------------------------------------------------------------------


def test_its_signature_can_be_read_back():
    hints = typing.get_type_hints(RiskManager.handle)

    heard, said = typing.get_args(hints["message"]), typing.get_args(typing.get_args(hints["return"])[0])
    assert {Signal, PairFinished, Wake} <= set(heard)
    assert set(said) == {
        SignalRefused,
        SubmitOrder,
        SubmitPair,
        CancelOrder,
        CancelAll,
        TradingStateChanged,
        KillSwitchTripped,
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


# --- one leg ------------------------------------------------------------------------------------


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
        (lambda told: told.want(1.0) and told.want(1.0, price=51_000.0, instruments=(PERP,)), None),
        (lambda told: told.want(1.0, price=float("nan")), "PRICE_COLLAR"),
        (lambda told: told.want(1.0, price=0.0), "PRICE_COLLAR"),
        (lambda told: told.want(1.0, price=1.0e7), "SIZE_ZERO"),
        (lambda told: told.want(0.1, bracket=Bracket(50_100.0, None)), "BRACKET"),
        (lambda told: told.want(1.0, bracket=Bracket(40_000.0, None)), "TRADE_RISK"),
        (lambda told: told.want(3.0), "SYMBOL_EXPOSURE"),
        (lambda told: told.say(EquityChanged(Decimal(10_000), marks_known=False)) or told.want(1.0), "UNKNOWN_EQUITY"),
        (lambda told: told.say(EquityChanged(Decimal(9_700), marks_known=True)) or told.want(1.0), "DAILY_LOSS"),
        (lambda told: told.say(CapitalAllocated("impulse", Decimal("0.01"))) or told.want(1.0), "STRATEGY_BUDGET"),
    ],
)
def test_a_refusal_names_its_rule(change, rule):
    said = change(Told())

    assert rules(said) == ([] if rule is None else [rule])
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
    told.say(EquityChanged(Decimal(9_700), marks_known=True))
    assert rules(told.want(1.0)) == ["DAILY_LOSS"]

    told.say(EquityChanged(Decimal(9_700), marks_known=True), after=86_400)
    assert orders(told.want(1.0))


# --- headroom -----------------------------------------------------------------------------------


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
    told.say(EquityChanged(Decimal(9_400), marks_known=True))
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


# --- pairs --------------------------------------------------------------------------------------


def test_two_opposite_legs_are_a_pair_led_by_the_derivative():
    (pair,) = Told(strategies=two(FixedNotional(notional=2_000))).want(1.0, -1.0, instruments=(SPOT, PERP))

    assert pair == SubmitPair(
        pair_id="r1-impulse-1",
        strategy="impulse",
        lead=PairLeg(PERP, Side.SELL, Decimal("0.040"), Decimal("50000.0")),
        hedge=PairLeg(SPOT, Side.BUY, Decimal("0.040"), Decimal("50000.0")),
        opening=True,
        max_naked=Decimal("200.00"),
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


# --- the trading state and the kill switch ------------------------------------------------------


def fall(told, equity=8_900):
    """A drawdown, and the same five seconds later."""
    return told.say(EquityChanged(Decimal(equity), marks_known=True)) + told.say(
        EquityChanged(Decimal(equity), marks_known=True), after=5
    )


def test_a_kill_flattens_pairs_as_pairs_and_the_rest_by_itself():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.hold_pair("0.040", "other")
    told.hold(ETH, "-1.5")

    tripped, halted, cancel, *closing = fall(told)

    assert tripped == KillSwitchTripped("DRAWDOWN", "11.00%", "10.00%")
    assert halted == TradingStateChanged(TradingState.HALTED, "DRAWDOWN")
    assert cancel == CancelAll("")
    (pair,) = (message for message in closing if isinstance(message, SubmitPair))
    assert (pair.strategy, pair.opening) == ("other", False)
    assert (pair.lead.instrument, pair.lead.quantity, pair.lead.side) == (PERP, Decimal("0.040"), Side.BUY)
    assert orders(closing) == [(ETH, Decimal("1.5"), True)]
    assert len(closing) == 2


def test_the_venue_is_asked_once_all_is_flat():
    told = Told()
    told.hold(PERP, "0.020")
    *_, order = fall(told)

    assert told.fill(order) == [VerifyFlat()]
    assert told.manager.wake_at() is None


def test_with_a_reconciler_the_venue_is_asked_until_it_says_flat():
    told = Told(reconciler=True)
    said = fall(told)
    assert said[-1] == VerifyFlat()

    told.now = told.manager.wake_at()
    assert told.say(Wake()) == [VerifyFlat()]
    told.say(ReconcileCompleted(1, 0, flat=False))
    assert told.manager.state.flattening is not None
    told.say(ReconcileCompleted(2, 0, flat=True))
    assert told.manager.state.flattening is None


def test_while_halted_nothing_goes_through_but_cancels():
    told = Told()
    told.hold(PERP, "0.020")
    fall(told)
    cancel = CancelOrder("impulse", "r1-impulse-1", PERP)

    assert rules(told.want(1.0, instruments=(ETH,))) == ["TRADING_STATE"]
    assert rules(told.want(0.0)) == ["TRADING_STATE"]
    assert told.say(cancel) == [cancel]
    assert told.say(StartTrading()) == []


def test_what_was_under_way_when_the_switch_tripped_is_closed_when_it_lands():
    told = Told()
    (order,) = told.want(1.0)
    assert orders(fall(told)) == []
    told.fill(order)

    assert orders(told.say(Wake(), after=10)) == [(PERP, Decimal("-0.020"), True)]


def test_flattening_is_tried_again_and_then_a_person_is_called():
    told = Told(flatten_attempts=3)
    told.hold_pair("0.040")
    said = fall(told)
    sent = []
    while (at := told.manager.wake_at()) is not None:
        sent.append([type(message) for message in said if isinstance(message, (SubmitOrder, SubmitPair))])
        for message in said:
            if isinstance(message, SubmitPair):
                told.say(PairFinished(message.pair_id, "impulse", "unwound", "no market"))
            if isinstance(message, SubmitOrder):
                told.say(OrderRejected(message.client_order_id, "impulse", message.instrument, "no"))
        assert at - told.now <= 60 * SECOND
        told.now = at
        said = told.say(Wake())

    assert sent == [[SubmitPair], [SubmitPair], [SubmitOrder, SubmitOrder]]
    assert said == [KillSwitchTripped("FLATTEN", "positions are left", "3 attempts")]


def test_an_order_the_venue_does_not_answer_for_does_not_hold_up_flattening_a_derivative():
    told = Told()
    told.hold(PERP, "0.020")
    *_, order = fall(told)
    assert orders(told.say(Wake(), after=60)) == []

    told.say(OrderOutcomeUnknown(order.client_order_id, "impulse", PERP, "timeout"))

    assert orders(told.say(Wake(), after=60)) == [(PERP, Decimal("-0.020"), True)]


@pytest.mark.parametrize(("person", "reason"), [("", "seen to"), ("ada", ""), ("ada", "  ")])
def test_a_reset_without_name_and_reason_does_nothing(person, reason):
    told = Told()
    fall(told)

    assert told.say(KillSwitchReset(person, reason)) == []
    assert told.trading is TradingState.HALTED


def test_after_a_reset_trading_waits_to_be_started():
    told = Told(daily_loss=1.0)
    fall(told)

    assert told.say(KillSwitchReset("ada", "bad mark")) == [
        TradingStateChanged(TradingState.REDUCING, "reset by ada: bad mark")
    ]
    assert told.say(StartTrading()) == [TradingStateChanged(TradingState.ACTIVE, "started")]
    assert orders(told.want(1.0))
    assert told.say(EquityChanged(Decimal(8_200), marks_known=True)) == []


def test_the_orange_tier_reduces_until_a_person_resets_the_mark():
    told = Told(daily_loss=1.0)
    told.hold(PERP, "0.020")
    told.say(EquityChanged(Decimal(9_150), marks_known=True))
    said = []
    while (at := told.manager.wake_at()) is not None:
        told.now = at
        said += told.say(Wake())

    assert said == [TradingStateChanged(TradingState.REDUCING, "drawdown 8.50%")]
    assert rules(told.want(1.0, instruments=(ETH,))) == ["TRADING_STATE"]
    assert orders(told.want(0.0)) == [(PERP, Decimal("-0.020"), True)]
    assert told.say(KillSwitchReset("ada", "a loss we accept"))[0].trading is TradingState.ACTIVE


def test_stopping_reduces_and_flattens_if_asked():
    told = Told()
    told.hold(PERP, "0.020")

    assert told.say(StopTrading(flatten=False)) == [
        TradingStateChanged(TradingState.REDUCING, "stopped"),
        CancelAll(""),
    ]
    cancel, order = told.say(StopTrading(flatten=True))
    assert cancel == CancelAll("")
    assert told.fill(order) == [VerifyFlat()]
    assert told.trading is TradingState.REDUCING


@pytest.mark.parametrize(
    ("heard", "healed"),
    [
        (Discrepancy(DiscrepancyKind.QUANTITY, Severity.HIGH, PERP, "1", "2"), ReconcileCompleted(1, 0, flat=True)),
        (NodeFailed("portfolio@3", "killed"), StartTrading()),
        (EquityChanged(Decimal(12_500), marks_known=True), ReconcileCompleted(1, 0, flat=True)),
        (EquityChanged(Decimal(12_500), marks_known=True), StartTrading()),
        (StopTrading(flatten=False), StartTrading()),
    ],
)
def test_causes_for_reducing_end(heard, healed):
    told = Told()

    told.say(heard)
    assert told.trading is TradingState.REDUCING
    told.say(healed)
    assert told.trading is TradingState.ACTIVE


@pytest.mark.parametrize(
    "heard",
    [
        Discrepancy(DiscrepancyKind.QUANTITY, Severity.LOW, PERP, "1", "2"),
        NodeFailed("impulse@3", "killed"),
        EquityChanged(Decimal(11_900), marks_known=True),
        EquityChanged(Decimal(25_000), marks_known=False),
        ErrorReported("feed", "decode", "bad"),
    ],
)
def test_small_things_change_nothing(heard):
    told = Told()

    assert told.say(heard) == []
    assert told.trading is TradingState.ACTIVE


def test_a_jump_that_the_market_explains_is_no_cause():
    told = Told(**LOOSE)
    told.hold(PERP, "0.200")

    told.say(EquityChanged(Decimal(12_500), marks_known=True))

    assert told.trading is TradingState.ACTIVE


def test_a_discrepancy_outlasts_a_comparison_that_is_not_clean():
    told = Told()
    told.say(Discrepancy(DiscrepancyKind.BALANCE, Severity.HIGH, "USDT", "1", "2"))

    told.say(ReconcileCompleted(1, 1, flat=True))

    assert told.trading is TradingState.REDUCING


def test_without_comparisons_there_is_first_no_opening_and_then_only_reducing():
    told = Told(reconciler=True)
    told.say(after=91)
    assert rules(told.want(1.0)) == ["STALE_RECONCILE"]

    told.now = told.manager.wake_at()
    assert told.say(Wake()) == [TradingStateChanged(TradingState.REDUCING, "no comparison with the venue for 120 s")]
    assert told.manager.wake_at() is None
    told.say(ReconcileCompleted(1, 0, flat=True))
    assert orders(told.want(1.0))


def test_where_no_reconciler_runs_none_is_waited_for():
    told = Told()
    told.say(after=10_000)

    assert told.manager.wake_at() is None
    assert orders(told.want(1.0))


def test_ten_errors_trip_and_rejections_and_silence_are_errors():
    told = Told()
    for n in range(8):
        told.say(ErrorReported("feed", "decode", str(n)))
    told.say(OrderRejected("x", "impulse", PERP, "no"))

    said = told.say(OrderOutcomeUnknown("y", "impulse", PERP, "timeout"))

    assert said[0] == KillSwitchTripped("ERRORS", "10 in 300 s", "10")


def test_a_red_mark_is_not_confirmed_by_time_while_the_market_is_unseen():
    told = Told()
    told.say(EquityChanged(Decimal(8_900), marks_known=True), FeedStale(PERP, 1))

    assert told.say(Wake(), after=10) == []
    assert told.say(FeedLive(PERP))[0].cause == "DRAWDOWN"


def test_a_blocked_context_is_refused_and_imagined():
    told = Told(memory={"mode": "enforce", "enforce_after": 0})
    told.say(*())
    for _ in range(20):
        (order,) = told.want(1.0, context="trend")
        told.fill(order)
        (order,) = told.want(0.0, context="trend")
        told.fill(order, price="49900")
        told.say(after=61)

    assert rules(told.want(1.0, context="trend")) == ["CONTEXT_BLOCKED"]
    assert orders(told.want(1.0, context="calm"))
    assert list(told.manager.state.memory.shadows) == ["impulse|BTCUSDT-LINEAR.BYBIT"]
    cell = told.manager.state.memory.cells["impulse|trend"]
    assert cell.count == 20
    assert cell.mean == pytest.approx(-20)


# --- what is kept -------------------------------------------------------------------------------


def everything(told):
    """A long story; yields after each sentence what was said."""
    (first,) = told.want(1.0, context="trend", bracket=Bracket(49_500.0, 51_000.0))
    yield [first]
    yield told.fill(first, "0.005")
    yield told.want(-1.0, 1.0, strategy="other")
    yield told.say(OrderOutcomeUnknown(first.client_order_id, "impulse", PERP, "timeout"))
    yield told.want(0.0)
    yield told.say(FeedStale(ETH, 5), CapitalAllocated("other", Decimal("0.5")))
    yield told.say(EquityChanged(Decimal(9_400), marks_known=True), after=600)
    yield told.say(OrderExpired(first.client_order_id, "impulse", PERP, "remainder"))
    yield told.say(PairFinished("r1-other-2", "other", "broken", "why not"))
    yield told.hold(PERP, "-0.020", strategy="other")
    yield told.say(EquityChanged(Decimal(8_900), marks_known=True), after=1)
    yield told.say(EquityChanged(Decimal(8_800), marks_known=True), after=6)
    yield told.say(Wake(), after=60)
    yield told.say(KillSwitchReset("ada", "seen to"), StartTrading())
    yield told.want(1.0, instruments=(ETH,))


@pytest.mark.parametrize("codec", [msgspec.json, msgspec.msgpack], ids=["json", "msgpack"])
def test_its_state_can_be_written_down_after_any_sentence_and_the_story_goes_on_alike(codec):
    def story():
        return Told(strategies=two(FixedNotional(notional=1_000)), daily_loss=1.0)

    wanted = list(everything(story()))
    assert {type(message) for said in wanted for message in said} >= {
        SubmitOrder,
        SubmitPair,
        CancelAll,
        KillSwitchTripped,
        TradingStateChanged,
        SignalRefused,
    }

    told = story()
    heard = []
    for said in everything(told):
        heard.append(said)
        kept = codec.decode(codec.encode(told.manager.state), type=RiskState)
        assert kept == told.manager.state
        told.manager = RiskManager(told.manager.config, INSTRUMENTS, two(FixedNotional(notional=1_000)), "r1")
        told.manager.state = kept

    assert heard == wanted
