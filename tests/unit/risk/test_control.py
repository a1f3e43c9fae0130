from decimal import Decimal

import msgspec
import pytest

from hean.messages import (
    Bracket,
    CancelAll,
    CancelOrder,
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    FeedLive,
    FeedStale,
    KillSwitchReset,
    KillSwitchTripped,
    Liquidity,
    NodeFailed,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    PairFinished,
    ReconcileCompleted,
    Severity,
    Side,
    SignalRefused,
    StartTrading,
    StopTrading,
    StrategySwitched,
    SubmitOrder,
    SubmitPair,
    SwitchStrategy,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)
from hean.risk.manager import RiskManager
from hean.risk.sizing import FixedNotional
from hean.risk.state import RiskState
from tests.unit.risk.story import ETH, INSTRUMENTS, LOOSE, PERP, SECOND, SPOT, Told, fall, orders, rules, two


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
    assert told.say(EquityChanged(Decimal(8_200), Decimal(8_200), marks_known=True)) == []


def test_the_orange_tier_reduces_until_a_person_resets_the_mark():
    told = Told(daily_loss=1.0)
    told.hold(PERP, "0.020")
    told.say(EquityChanged(Decimal(9_150), Decimal(9_150), marks_known=True))
    said = []
    while (at := told.manager.wake_at()) is not None:
        told.now = at
        said += told.say(Wake())

    assert said == [
        TradingStateChanged(TradingState.ACTIVE, "drawdown 8.50%: sizes times 0.5"),
        TradingStateChanged(TradingState.REDUCING, "drawdown 8.50%"),
    ]
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
        (ErrorReported("venue", "clock skew", "2 s"), Wake()),
        (NodeFailed("portfolio@3", "killed"), StartTrading()),
        (EquityChanged(Decimal(12_500), Decimal(12_500), marks_known=True), ReconcileCompleted(1, 0, flat=True)),
        (EquityChanged(Decimal(12_500), Decimal(12_500), marks_known=True), StartTrading()),
        (StopTrading(flatten=False), StartTrading()),
    ],
)
def test_causes_for_reducing_end(heard, healed):
    told = Told()

    told.say(heard)
    assert told.trading is TradingState.REDUCING
    told.say(healed, after=150)
    assert told.trading is TradingState.ACTIVE


@pytest.mark.parametrize(
    "heard",
    [
        Discrepancy(DiscrepancyKind.QUANTITY, Severity.LOW, PERP, "1", "2"),
        NodeFailed("smoke", "killed"),
        EquityChanged(Decimal(11_900), Decimal(11_900), marks_known=True),
        EquityChanged(Decimal(25_000), Decimal(25_000), marks_known=False),
        ErrorReported("feed", "decode", "bad"),
    ],
)
def test_small_things_change_nothing(heard):
    told = Told()

    assert told.say(heard) == []
    assert told.trading is TradingState.ACTIVE


def test_a_strategy_that_died_has_its_orders_called_back_and_nothing_else_stops():
    told = Told()

    assert told.say(NodeFailed("impulse", "killed")) == [CancelAll("impulse")]
    assert told.trading is TradingState.ACTIVE


def test_a_jump_that_the_market_explains_is_no_cause():
    told = Told(**LOOSE)
    told.hold(PERP, "0.200")

    told.say(EquityChanged(Decimal(12_500), Decimal(12_500), marks_known=True))

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
    told.say(EquityChanged(Decimal(8_900), Decimal(8_900), marks_known=True), FeedStale(PERP, 1))

    assert told.say(Wake(), after=10) == []
    assert told.say(FeedLive(PERP))[0].cause == "DRAWDOWN"


def test_a_blocked_context_is_refused_and_imagined():
    told = Told(memory={"mode": "enforce", "enforce_after": 0})
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


def everything(told):
    """A long story; yields after each sentence what was said."""
    (first,) = told.want(1.0, context="trend", bracket=Bracket(49_500.0, 51_000.0))
    yield [first]
    yield told.fill(first, "0.005")
    yield told.want(-1.0, 1.0, strategy="other")
    yield told.say(OrderOutcomeUnknown(first.client_order_id, "impulse", PERP, "timeout"))
    yield told.want(0.0)
    yield told.say(FeedStale(ETH, 5), CapitalAllocated("other", Decimal("0.5")))
    yield told.say(EquityChanged(Decimal(9_400), Decimal(9_400), marks_known=True), after=600)
    yield told.say(OrderExpired(first.client_order_id, "impulse", PERP, "remainder"))
    yield told.say(PairFinished("r1-other-2", "other", "broken", "why not"))
    yield told.hold(PERP, "-0.020", strategy="other")
    yield told.say(EquityChanged(Decimal(8_900), Decimal(8_900), marks_known=True), after=1)
    yield told.say(EquityChanged(Decimal(8_800), Decimal(8_800), marks_known=True), after=6)
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


def test_a_fee_paid_in_coin_is_counted_once_in_an_outcome():
    told = Told()
    (order,) = told.want(1.0, instruments=(SPOT,), context="trend")
    fill = OrderFilled(
        client_order_id=order.client_order_id,
        strategy="impulse",
        instrument=SPOT,
        trade_id="1",
        side=Side.BUY,
        quantity=Decimal("0.020000"),
        price=Decimal(50_000),
        fee=Decimal("0.00002"),
        fee_currency="BTC",
        liquidity=Liquidity.TAKER,
        reference=None,
        exit="",
        ts_event=told.now,
    )
    told.say(fill)
    told.hold(SPOT, "0.019980")
    (order,) = told.want(0.0, instruments=(SPOT,))
    told.fill(order)

    # A fee of 0.00002 coins, 1 in quote, on 1,000 entered: ten basis points.
    assert told.manager.state.memory.cells["impulse|trend"].total == pytest.approx(-10)


# --- who says so, and how gently ----------------------------------------------------------------


def test_who_starts_and_stops_and_why_is_said():
    told = Told(start=False)

    assert told.say(StartTrading("ada", "a new day")) == [
        TradingStateChanged(TradingState.ACTIVE, "started by ada: a new day")
    ]
    assert told.say(StopTrading(flatten=False, person="bob")) == [
        TradingStateChanged(TradingState.REDUCING, "stopped by bob"),
        CancelAll(""),
    ]


GENTLY = StopTrading(flatten=False, finish=True, person="ada", reason="enough")
ENDED = TradingStateChanged(TradingState.REDUCING, "stopped by ada: enough")


def test_what_is_under_way_may_finish_and_nothing_else_begins():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    (pair,) = told.want(-1.0, 1.0)

    assert told.say(GENTLY) == [
        TradingStateChanged(TradingState.ACTIVE, "stopped by ada: enough; what is under way may finish")
    ]
    (refused,) = told.want(1.0, strategy="other", instruments=(ETH,))
    assert (refused.rule, refused.measured, refused.limit) == ("TRADING_STATE", "stopped by ada: enough", "ACTIVE")
    told.hold_pair("0.020")
    assert told.say(PairFinished(pair.pair_id, "impulse", "done", "")) == [ENDED]
    assert isinstance(told.want(0.0, 0.0)[0], SubmitPair)


def test_what_is_closed_meanwhile_is_waited_for_too():
    told = Told()
    told.hold(ETH, "0.02")
    (order,) = told.want(1.0)
    told.say(GENTLY)
    (closing,) = told.want(0.0, instruments=(ETH,))

    assert told.fill(order) == []
    assert told.fill(closing) == [ENDED]


def test_where_nothing_is_under_way_trading_ends_at_once():
    assert Told().say(GENTLY) == [ENDED, CancelAll("")]


@pytest.mark.parametrize(
    ("then", "trading"),
    [
        (StopTrading(flatten=False), TradingState.REDUCING),
        (StartTrading(), TradingState.ACTIVE),
        (EpochBegan(2), TradingState.HALTED),
    ],
    ids=["at once after all", "on again", "a new life"],
)
def test_a_gentle_end_gives_way_to_another_word(then, trading):
    told = Told()
    (order,) = told.want(1.0)
    told.say(GENTLY, then)
    told.fill(order)

    assert (told.trading, told.manager.state.finishing) == (trading, "")


def test_who_is_told_of_a_gentle_end_is_told_that_it_goes_on():
    told = Told()
    told.want(1.0)
    told.say(GENTLY)

    assert told.say(StartTrading("bob")) == [TradingStateChanged(TradingState.ACTIVE, "started by bob")]
    assert told.say(StartTrading("bob")) == []


def test_a_gentle_end_outlives_a_restart_as_a_stop():
    told = Told()
    told.want(1.0)
    told.say(GENTLY, EpochBegan(2))

    assert told.manager.state.reducing == {"stopped": "stopped by ada: enough"}


def test_a_strategy_that_is_off_opens_nothing_and_may_leave():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.hold(PERP, "0.020")

    assert told.say(SwitchStrategy("impulse", False, "ada", "it loses")) == [
        StrategySwitched("impulse", False, "ada", "it loses"),
        CancelAll("impulse"),
    ]
    (refused,) = told.want(1.0, instruments=(ETH,))
    assert (refused.rule, refused.measured, refused.limit) == (
        "STRATEGY_OFF",
        "switched off by ada: it loses",
        "switched on",
    )
    assert orders(told.want(1.0, strategy="other", instruments=(ETH,)))
    assert orders(told.want(0.0)) == [(PERP, Decimal("-0.020"), True)]


def test_a_flip_of_a_strategy_that_is_off_is_a_close():
    told = Told()
    told.hold(PERP, "0.020")
    told.say(SwitchStrategy("impulse", False, "ada", "it loses"))
    said = told.want(-1.0)

    assert (rules(said), orders(said)) == (["STRATEGY_OFF"], [(PERP, Decimal("-0.020"), True)])


def test_a_strategy_stays_off_over_restarts_until_it_is_switched_on():
    told = Told()
    told.say(SwitchStrategy("impulse", False, "ada", "it loses"), EpochBegan(2), StartTrading())
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(told.manager.state), type=RiskState)
    told.manager.state = state
    assert rules(told.want(1.0)) == ["STRATEGY_OFF"]

    assert told.say(SwitchStrategy("impulse", True, "bob", "tuned")) == [
        StrategySwitched("impulse", True, "bob", "tuned")
    ]
    assert orders(told.want(1.0))


def test_nobody_can_switch_a_strategy_that_is_not_there():
    assert Told().say(SwitchStrategy("nobody", False, "ada", "why")) == []


def test_a_start_repeats_who_was_switched_and_only_what_was_not_heard_is_news():
    told = Told()
    off, on = SwitchStrategy("impulse", False, "ada", "it loses"), SwitchStrategy("impulse", True, "bob", "tuned")

    assert told.say(on) == []
    assert told.say(off, EpochBegan(2), off).count(StrategySwitched("impulse", False, "ada", "it loses")) == 1
    assert told.say(on, EpochBegan(3), on).count(StrategySwitched("impulse", True, "bob", "tuned")) == 1
    assert told.manager.state.off == {}
