"""Strategies that share one position at the venue, and the reserve, which is nobody's: what may only reduce, what is tried again."""

from decimal import Decimal

import pytest

from hean import codec
from hean.messages import (
    EpochBegan,
    KillSwitchTripped,
    OrderExpired,
    OrderRejected,
    OrdersRestated,
    PairFinished,
    PullKillSwitch,
    ReconcileCompleted,
    SignalRefused,
    StartTrading,
    StopTrading,
    SubmitOrder,
    SubmitPair,
    TradingState,
    VerifyFlat,
    Wake,
)
from hean.risk.config import RiskConfig
from hean.risk.manager import RiskManager
from hean.risk.sizing import FixedNotional
from hean.risk.state import RiskState
from tests.unit.risk.story import INSTRUMENTS, LOOSE, PERP, SPOT, Told, instrument, orders, rules, two, worth

REFUSED = "110017 current position is zero, cannot fix reduce-only order qty"


def sharing(notional=1_000, **config):
    return Told(strategies=two(FixedNotional(notional=notional)), **(LOOSE | config))


def refuse(told, order, reason=REFUSED):
    return told.say(OrderRejected(order.client_order_id, order.strategy, order.instrument, reason))


def flags(said):
    return [message.reduce_only for message in said if isinstance(message, SubmitPair)]


def read_back(told):
    """Risk dies, and its successor reads its state from bytes."""
    state = codec.encoded(told.manager.state)
    told.manager = RiskManager(RiskConfig(**LOOSE), INSTRUMENTS, two(FixedNotional(notional=1_000)), "r1")
    told.manager.state = codec.decoded(RiskState, state)
    assert codec.encoded(told.manager.state) == state


# --- what may only reduce ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "reduces"),
    [("0", True), ("-0.02", True), ("0.02", False), ("0.001", False)],
    ids=["nobody", "one on the same side", "one as large against it", "a smaller one against it"],
)
def test_a_pair_says_whether_its_contract_may_only_reduce(held, reduces):
    told = sharing()
    told.hold(PERP, held, "other")
    assert flags(told.want(-1.0, 1.0)) == [reduces]

    told = sharing()
    told.hold(PERP, held, "other")
    told.hold_pair("0.020")
    assert flags(told.want(0.0, 0.0)) == [reduces]


def test_what_is_on_the_way_to_stand_against_a_pair_counts_as_well():
    told = sharing()
    told.want(1.0, strategy="other")

    assert flags(told.want(-1.0, 1.0)) == [False]


def test_the_owners_own_position_nets_like_any_other():
    told = sharing()
    told.hold(PERP, "0.020", "")
    told.hold(PERP, "-0.020")

    assert orders(told.want(0.0)) == [(PERP, Decimal("0.020"), False)]


# --- what is tried again -------------------------------------------------------------------------


def closing(told):
    """A close that may only reduce, and another strategy that turns against it on the way."""
    told.hold(PERP, "-0.020")
    (order,) = told.want(0.0)
    assert order.reduce_only
    told.hold(PERP, "0.020", "other")
    return order


def test_a_close_refused_because_another_turned_is_sent_again_without_the_mark_and_no_larger():
    told = sharing()
    order = closing(told)

    said = refuse(told, order)

    assert orders(said) == [(PERP, Decimal("0.020"), False)]
    (again,) = (one for one in said if isinstance(one, SubmitOrder))
    assert refuse(told, again, "110007 ab not enough for new order") == []  # once: this was not for the mark


def test_a_close_that_the_venue_cut_is_sent_again_for_what_is_left():
    told = sharing()
    order = closing(told)
    told.fill(order, "0.015")

    said = told.say(OrderExpired(order.client_order_id, "impulse", PERP, "ended at 0.015 of 0.020"))

    assert orders(said) == [(PERP, Decimal("0.005"), False)]


def test_a_cut_close_waits_for_the_position_its_fill_makes():
    told = sharing()
    order = closing(told)
    told.fill(order, "0.015", settle=False)
    assert told.say(OrderExpired(order.client_order_id, "impulse", PERP, "ended at 0.015 of 0.020")) == []

    assert orders(told.hold(PERP, "-0.005")) == [(PERP, Decimal("0.005"), False)]


def test_a_close_refused_with_nobody_against_it_is_not_sent_again():
    """The venue does not have what we hold: without the mark it would open what it ought to close."""
    told = sharing()
    told.hold(PERP, "-0.020")
    (order,) = told.want(0.0)

    assert refuse(told, order) == []


@pytest.mark.parametrize("dies", [False, True])
def test_a_pair_whose_lead_was_refused_is_closed_anew(dies):
    told = sharing()
    told.hold_pair("0.020")
    (pair,) = told.want(0.0, 0.0)
    assert pair.reduce_only
    told.hold(PERP, "0.030", "other")
    if dies:
        read_back(told)
        told.say(EpochBegan(1))
        for name, held in ((PERP, "-0.020"), (SPOT, "0.020")):
            told.hold(name, held)
        told.hold(PERP, "0.030", "other")
        told.say(OrdersRestated({}, (pair,)), StartTrading())

    said = told.say(PairFinished(pair.pair_id, "impulse", "unwound", f"lead rejected: {REFUSED}"))

    (again,) = said
    assert (again.lead.quantity, again.hedge.quantity, again.opening) == (Decimal("0.020"), Decimal("0.020"), False)
    assert not again.reduce_only
    assert told.say(PairFinished(again.pair_id, "impulse", "unwound", "lead rejected: 110007")) == []


def test_a_pair_that_is_closed_or_broken_is_not_closed_anew():
    for outcome, reason in (("done", ""), ("broken", "nobody knows")):
        told = sharing()
        told.hold_pair("0.020")
        (pair,) = told.want(0.0, 0.0)
        told.hold(PERP, "0.030", "other")

        said = told.say(PairFinished(pair.pair_id, "impulse", outcome, reason))

        assert not [one for one in said if isinstance(one, SubmitPair | SubmitOrder)]


def test_a_pair_refused_while_everything_is_closed_is_closed_with_the_next_attempt():
    told = sharing()
    told.hold_pair("0.020")
    (pair,) = (one for one in told.say(PullKillSwitch("ada", "why")) if isinstance(one, SubmitPair))
    told.hold(PERP, "0.030", "other")
    told.say(PairFinished(pair.pair_id, "impulse", "unwound", f"lead rejected: {REFUSED}"))

    said = told.say(Wake(), after=2)

    assert flags(said) == [False]
    assert orders(said) == [(PERP, Decimal("-0.030"), False)]


# --- less than the least order -------------------------------------------------------------------

SMALL = {**INSTRUMENTS, PERP: instrument(PERP, min_notional=Decimal(100))}


@pytest.mark.parametrize(
    ("against", "wanted"),
    [("0.001", []), ("0.0005", [(PERP, Decimal("0.001"), True)]), ("-0.001", [(PERP, Decimal("0.001"), True)])],
    ids=["offset exactly", "offset in part", "on the same side"],
)
def test_what_is_too_small_to_be_an_order_is_reduced_as_far_as_the_venue_has_it(against, wanted):
    told = sharing()
    told.manager = RiskManager(RiskConfig(**LOOSE), SMALL, two(FixedNotional(notional=1_000)), "r1")
    told.say(worth(10_000), StartTrading())
    told.hold(PERP, "-0.001")
    told.hold(PERP, against, "other")

    said = told.want(0.0)

    assert orders(said) == wanted
    assert rules(said) == ([] if wanted else ["MIN_NOTIONAL"])


def test_what_offsets_and_is_too_small_to_be_an_order_does_not_keep_a_kill_from_being_flat():
    told = sharing()
    told.manager = RiskManager(RiskConfig(**LOOSE), SMALL, two(FixedNotional(notional=1_000)), "r1")
    told.say(worth(10_000), StartTrading())
    told.hold(PERP, "-0.001")
    told.hold(PERP, "0.001", "other")

    assert told.say(PullKillSwitch("ada", "why"))[-1] == VerifyFlat()


# --- the reserve ---------------------------------------------------------------------------------


def owning(**config):
    """An account that had a coin worth five times all else before us."""
    told = Told(strategies=two(FixedNotional(notional=1_000)), **config)
    told.hold(SPOT, "1", "")
    told.hold(PERP, "0.5", "")
    return told


def test_what_was_there_before_us_takes_nobodys_headroom():
    told = owning()

    assert [type(one) for one in told.want(1.0)] == [SubmitOrder]
    assert [type(one) for one in told.want(-1.0, 1.0, strategy="other")] == [SubmitPair]


def test_what_a_strategy_holds_still_takes_headroom_beside_the_reserve():
    told = owning(symbol_exposure=0.15)
    (order,) = told.want(1.0)
    told.fill(order)

    assert rules(told.want(1.0, strategy="other")) == ["SYMBOL_EXPOSURE"]


@pytest.mark.parametrize("word", [StopTrading(flatten=True), PullKillSwitch("ada", "why")])
def test_what_was_there_before_us_is_not_closed_with_the_rest(word):
    told = owning()

    said = told.say(word)
    assert not [one for one in said if isinstance(one, SubmitOrder | SubmitPair)]
    assert VerifyFlat() in said
    assert told.say(ReconcileCompleted(1, 0, flat=True)) == []
    assert told.manager.state.flattening is None


def test_a_kill_closes_a_strategys_own_beside_the_reserve():
    told = owning()
    (order,) = told.want(1.0)
    told.fill(order)

    assert orders(told.say(PullKillSwitch("ada", "why"))) == [(PERP, Decimal("-0.020"), True)]


@pytest.mark.parametrize(("coin", "jumped"), [("1", False), ("0", True)])
def test_a_move_of_the_owners_coins_explains_a_jump(coin, jumped):
    told = Told()
    told.hold(SPOT, coin, "")

    told.say(worth(13_000))

    assert (told.trading is TradingState.REDUCING) is jumped
    assert not [one for one in told.say(Wake()) if isinstance(one, KillSwitchTripped | SignalRefused)]
