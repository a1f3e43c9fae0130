"""A new life of the core: what is let go of, what counts again, and what is remembered."""

from decimal import Decimal
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean import codec
from hean.messages import (
    CancelAll,
    EpochBegan,
    FeedStale,
    KillSwitchReset,
    NodeFailed,
    OrderRejected,
    OrdersRestated,
    PairFinished,
    PairLeg,
    ReconcileCompleted,
    RestatedOrder,
    Side,
    StartTrading,
    StopTrading,
    SubmitOrder,
    SubmitPair,
    TimeInForce,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)
from hean.risk.config import RiskConfig
from hean.risk.desk import in_letters
from hean.risk.exposure import Order, Slot
from hean.risk.killswitch import KillSwitchState
from hean.risk.manager import LINK_ID, RiskManager
from hean.risk.memory import Cell, MemoryState, RoundTrip, Shadow
from hean.risk.sizing import FixedNotional
from hean.risk.state import Flattening, Off, RiskState, Seen, Skew
from tests.unit.risk.story import ETH, INSTRUMENTS, PERP, SPOT, Told, fall, orders, rules, two
from tests.unit.risk.test_control import everything

D = Decimal
NOTHING = OrdersRestated({}, ())


def pair(pair_id, *, opening=True, quantity="0.020", strategy="impulse"):
    lead = PairLeg(PERP, Side.SELL if opening else Side.BUY, D(quantity), D(50_000))
    hedge = PairLeg(SPOT, Side.BUY if opening else Side.SELL, D(quantity), D(50_000))
    return SubmitPair(pair_id, strategy, lead, hedge, opening, D(200), True)


def left(remaining, filled="0", *, name=PERP, strategy="impulse", unknown=False):
    return RestatedOrder(strategy, name, D(remaining), D(filled), unknown)


def slot(told, name=PERP, strategy="impulse"):
    return told.manager.state.slots[strategy][name]


# --- a new life ----------------------------------------------------------------------------------


def test_a_new_life_is_halted_and_calls_entry_orders_back():
    told = Told()

    assert told.say(EpochBegan(1)) == [
        TradingStateChanged(TradingState.HALTED, "life 1 of the core began"),
        CancelAll(""),
    ]
    assert told.say(EpochBegan(2)) == [CancelAll("")]
    assert rules(told.want(1.0)) == ["TRADING_STATE"]
    assert told.say(StartTrading()) == [TradingStateChanged(TradingState.ACTIVE, "started")]


def test_what_a_death_and_an_old_feed_forbade_ends_with_them():
    told = Told()
    told.say(NodeFailed("broker@1", "killed"), FeedStale(PERP, 5), EpochBegan(2))

    assert told.manager.state.reducing == {}
    told.say(StartTrading())
    assert orders(told.want(1.0))


def test_a_person_who_stopped_trading_has_stopped_it_still():
    told = Told()
    told.say(StopTrading(flatten=False), EpochBegan(2))

    assert "stopped" in told.manager.state.reducing


@pytest.mark.parametrize(("epoch", "letters"), [(0, ""), (1, "1"), (35, "z"), (36, "10"), (46_655, "zzz")], ids=str)
def test_the_number_of_a_life_is_short(epoch, letters):
    assert in_letters(epoch) == letters


def test_ids_begin_with_the_life_they_were_given_in_and_never_come_again():
    told = Told()
    given_before = [told.want(1.0)[0].client_order_id]
    for epoch in (1, 2, 36):
        told.say(EpochBegan(epoch), NOTHING, StartTrading())
        given_before.append(told.want(1.0)[0].client_order_id)

    assert given_before == ["r1-impulse-1", "r11-impulse-1", "r12-impulse-1", "r110-impulse-1"]


def test_an_epoch_that_is_told_again_counts_on():
    told = Told()
    told.say(EpochBegan(4), NOTHING, StartTrading())
    (first,) = told.want(1.0)
    told.say(EpochBegan(4), NOTHING, StartTrading())

    assert first.client_order_id == "r14-impulse-1"
    assert told.want(1.0)[0].client_order_id == "r14-impulse-2"


def test_the_longest_id_fits_the_venue():
    name = "a-name-of-16-let"
    manager = RiskManager(RiskConfig(), INSTRUMENTS, {name: two(FixedNotional(notional=1))["other"]}, "tag")
    manager.state.epoch = 46_655
    manager.state.issued = 999_998
    order_id = manager._desk._next_id(name)

    assert order_id == "tagzzz-a-name-of-16-let-999999"
    assert len(f"{order_id}-9999") <= LINK_ID


# --- what is under way ----------------------------------------------------------------------------


def test_an_order_that_the_broker_never_heard_of_is_let_go_of():
    told = Told()
    told.want(1.0)
    told.say(EpochBegan(1))
    assert slot(told).pending

    told.say(NOTHING)

    assert not slot(told).pending
    assert slot(told).target == slot(told).value == 0
    assert told.manager.state.orders == {}
    told.say(StartTrading())
    assert orders(told.want(1.0)) == [(PERP, D("0.020"), False)]


def test_a_pair_that_the_broker_never_heard_of_is_let_go_of_at_both_legs():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.want(-1.0, 1.0)
    told.say(EpochBegan(1), NOTHING)

    assert [(slot(told, name).pair, slot(told, name).target) for name in (PERP, SPOT)] == [("", 0), ("", 0)]


def test_an_order_that_lives_on_counts_with_what_is_left_of_it():
    told = Told()
    (order,) = told.want(1.0)
    told.say(EpochBegan(1), OrdersRestated({order.client_order_id: left("0.015", "0.005", unknown=True)}, ()))
    told.hold(PERP, "0.005")

    assert slot(told).target == D("0.020")
    assert told.manager.state.orders[order.client_order_id] == Order("impulse", PERP, D("0.015"), True, D("0.005"))
    told.say(OrderRejected(order.client_order_id, "impulse", PERP, "no"))
    assert not slot(told).pending
    assert slot(told).target == slot(told).held == D("0.005")


@pytest.mark.parametrize("position_first", [False, True])
def test_a_fill_on_the_way_over_the_restart_leaves_nothing_pending(position_first):
    told = Told()
    (order,) = told.want(1.0)
    told.fill(order, "0.005", settle=False)  # its position was not told before the crash
    told.say(EpochBegan(1))
    restated = OrdersRestated({order.client_order_id: left("0.015", "0.005")}, ())
    if position_first:
        told.hold(PERP, "0.005")
        told.say(restated)
    else:
        told.say(restated)
        told.hold(PERP, "0.005")
    assert slot(told).target == D("0.020")
    told.fill(order, "0.015")

    assert not slot(told).pending
    assert slot(told).held == slot(told).target == D("0.020")


def test_an_order_that_risk_forgot_counts():
    told = Told()
    told.say(EpochBegan(1), OrdersRestated({"r1-impulse-9": left("-0.020")}, ()), StartTrading())

    assert slot(told).orders == 1
    assert slot(told).target == D("-0.020")
    assert rules(told.want(1.0)) == ["ORDER_PENDING"]


@pytest.mark.parametrize(("opening", "target"), [(True, D("-0.020")), (False, D(0))])
def test_a_pair_that_risk_forgot_counts_and_its_orders_with_it(opening, target):
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    known = pair("r1-impulse-7", opening=opening)
    child = {"r1-impulse-7-1": left("-0.020" if opening else "0.020")}
    told.say(EpochBegan(1), OrdersRestated(child, (known,)))

    assert (slot(told).pair, slot(told).orders, slot(told).target) == ("r1-impulse-7", 0, target)
    assert slot(told, SPOT).target == -target
    assert bool(slot(told).stress) is opening
    told.say(PairFinished("r1-impulse-7", "impulse", "unwound", "canceled"))
    assert not slot(told).pending
    assert not slot(told, SPOT).pending


def test_what_was_asked_for_in_this_life_may_still_be_on_its_way():
    told = Told()
    told.say(EpochBegan(1), StartTrading())
    (order,) = told.want(1.0)
    told.say(NOTHING)

    assert list(told.manager.state.orders) == [order.client_order_id]
    assert slot(told).pending


def test_a_pair_of_which_an_order_is_left_alive_is_counted_by_that_order():
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    (asked,) = told.want(-1.0, 1.0)
    told.say(OrdersRestated({f"{asked.pair_id}-2": left("0.020", name=SPOT, unknown=True)}, ()))
    told.say(PairFinished(asked.pair_id, "impulse", "broken", "nobody knows"))

    assert told.trading is TradingState.REDUCING
    assert not slot(told).pending
    assert slot(told, SPOT).pending


@pytest.mark.parametrize("crashed", [True, False], ids=["before the crash", "after it"])
def test_a_fill_whose_position_went_unsaid_holds_up_no_pair(crashed):
    """A pair that ends short of its target is settled once what was told of it has been answered."""
    told = Told(strategies=two(FixedNotional(notional=1_000)))
    told.hold(PERP, "0")
    told.hold(SPOT, "0")
    if not crashed:
        told.say(EpochBegan(1), NOTHING, StartTrading())
    (asked,) = told.want(-1.0, 1.0)
    for leg, side in ((PERP, Side.SELL), (SPOT, Side.BUY)):
        child = SubmitOrder(
            "x-1",
            "impulse",
            leg,
            side,
            D("0.005"),
            None,
            TimeInForce.IOC,
            reduce_only=False,
            reference=D(50_000),
            bracket=None,
        )
        told.fill(child, settle=not crashed)
    if crashed:
        told.say(EpochBegan(1), OrdersRestated({}, (asked,)))
        told.hold_pair("0.005")
    told.say(PairFinished(asked.pair_id, "impulse", "done", "canceled"))

    assert not slot(told).pending
    assert slot(told).target == D("-0.005")


def test_nothing_held_is_worth_the_same_nothing_once_it_was_read_back():
    empty = Slot("impulse", PERP, "BTC", D(1), price=D("50000.0"))
    empty.target = D("0.000")
    empty.revalue()

    assert str(empty.value) == "0"


# --- closing goes on ------------------------------------------------------------------------------


def test_closing_everything_goes_on_once_the_broker_and_the_portfolio_have_spoken():
    told = Told(reconciler=True)
    told.hold(PERP, "0.020")
    *_, lost = fall(told)
    assert isinstance(lost, SubmitOrder)
    told.say(EpochBegan(1), after=1)
    assert orders(told.say(Wake())) == []
    told.say(NOTHING)
    told.hold(PERP, "0.015")

    told.now = told.manager.wake_at()
    said = told.say(Wake())

    assert orders(said) == [(PERP, D("-0.015"), True)]
    assert told.trading is TradingState.HALTED
    assert told.say(StartTrading()) == []
    assert told.fill(said[-1])[-1:] == [VerifyFlat()]
    told.say(ReconcileCompleted(1, 0, flat=True))
    assert told.manager.state.flattening is None
    assert told.manager.state.kill.tripped == "DRAWDOWN"


def test_where_the_broker_says_nothing_closing_goes_on_all_the_same():
    told = Told()
    told.hold(PERP, "0.020")
    told.hold(ETH, "1", strategy="impulse")
    fall(told)
    told.say(*(OrderRejected(name, "impulse", PERP, "no") for name in list(told.manager.state.orders)))
    told.say(EpochBegan(1))

    assert orders(told.say(Wake(), after=59)) == []
    assert len(orders(told.say(Wake(), after=1))) == 2


@pytest.mark.parametrize(("person", "trading"), [("", TradingState.HALTED), ("ada", TradingState.REDUCING)])
def test_the_latch_outlasts_the_life_it_was_set_in(person, trading):
    told = Told()
    fall(told)
    told.say(EpochBegan(1), NOTHING, StartTrading(), KillSwitchReset(person, "seen to"))

    assert told.trading is trading


def test_a_long_night_is_no_lag():
    told = Told(reconciler=True)
    told.say(ReconcileCompleted(1, 0, flat=True))
    told.say(EpochBegan(1), after=36_000)

    assert told.manager.wake_at() is None
    assert told.say(Wake(), after=3_600) == []


# --- on and off the disk --------------------------------------------------------------------------

AMOUNTS = st.decimals(-100, 100, places=3)
TIMES = st.integers(0, 2**62)
NAMES = st.sampled_from(["impulse", "other", "r1-impulse-1", PERP, SPOT])
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


SLOTS = st.builds(
    Slot,
    strategy=NAMES,
    instrument=NAMES,
    base=NAMES,
    margin_rate=AMOUNTS,
    held=AMOUNTS,
    dust=AMOUNTS,
    target=AMOUNTS,
    price=AMOUNTS,
    value=AMOUNTS,
    stress=AMOUNTS,
    orders=st.integers(0, 9),
    pair=NAMES,
    fills=st.integers(0, 9),
    positions=st.integers(0, 9),
    ts_fill=TIMES,
    leave=st.booleans(),
    restating=st.booleans(),
    context=NAMES,
    trip=st.none() | st.builds(RoundTrip, context=NAMES, quantity=AMOUNTS, cash=FLOATS, notional=FLOATS),
)
FIELDS = {
    "trading": st.sampled_from(TradingState),
    "started": st.booleans(),
    "ts_started": TIMES,
    "epoch": st.integers(0, 50_000),
    "earlier": st.lists(NAMES),
    "reducing": st.dictionaries(NAMES, NAMES),
    "finishing": NAMES,
    "off": st.dictionaries(NAMES, st.builds(Off, person=NAMES, reason=NAMES, ts=TIMES)),
    "issued": st.integers(0, 10**9),
    "equity": st.none() | AMOUNTS,
    "day": st.integers(-1, 10**6),
    "day_equity": AMOUNTS,
    "slots": st.dictionaries(NAMES, st.dictionaries(NAMES, SLOTS, max_size=2), max_size=2),
    "orders": st.dictionaries(
        NAMES,
        st.builds(Order, strategy=NAMES, instrument=NAMES, remaining=AMOUNTS, unknown=st.booleans(), filled=AMOUNTS),
    ),
    "shares": st.dictionaries(NAMES, AMOUNTS),
    "prices": st.dictionaries(NAMES, st.builds(Seen, price=AMOUNTS | FLOATS, ts=TIMES)),
    "stale": st.dictionaries(NAMES, TIMES),
    "sent": st.lists(TIMES),
    "ts_reconciled": st.none() | TIMES,
    "ts_jumped": st.none() | TIMES,
    "skew": st.none() | st.builds(Skew, since=TIMES, last=TIMES),
    "flattening": st.none()
    | st.builds(
        Flattening,
        next_at=st.none() | TIMES,
        backoff=TIMES,
        attempts=st.integers(0, 9),
        verifying=st.booleans(),
        denied=st.booleans(),
        denials=st.integers(0, 9),
    ),
    "kill": st.builds(
        KillSwitchState,
        equity=st.none() | AMOUNTS,
        high_water=st.none() | AMOUNTS,
        drawdown=AMOUNTS,
        raw=FLOATS,
        smoothed=FLOATS,
        red_since=st.none() | TIMES,
        alarm=st.none() | TIMES,
        traded=st.booleans(),
        tripped=NAMES,
        errors=st.lists(TIMES),
        blamed=st.dictionaries(NAMES, TIMES),
        deaths=st.lists(TIMES),
        reset_by=NAMES,
        reset_reason=NAMES,
    ),
    "memory": st.builds(
        MemoryState,
        cells=st.dictionaries(NAMES, st.builds(Cell, strategy=NAMES)),
        shadows=st.dictionaries(
            NAMES,
            st.builds(
                Shadow, context=NAMES, sign=st.sampled_from([1, -1]), entry=FLOATS, stop=FLOATS, target=FLOATS, ts=TIMES
            ),
        ),
        outcomes=st.integers(0, 9),
    ),
}
STATES = st.builds(RiskState, **FIELDS)


@settings(max_examples=60, deadline=None)
@given(state=STATES)
def test_any_state_is_the_same_when_it_is_read_back(state):
    again = codec.decoded(RiskState, codec.encoded(state))

    assert again == state
    assert codec.encoded(again) == codec.encoded(state)


def test_every_field_is_tried():
    assert set(FIELDS) == {field.name for field in msgspec.structs.fields(RiskState)}


class Recorded(Told):
    """A story, and all that was told in it."""

    def __init__(self, **config):
        self.entries = []
        super().__init__(**config)

    def say(self, *heard, after=0.0):
        said = super().say(*heard, after=after)
        self.entries += [(message, self.now) for message in heard]
        return said


def journal():
    """What a manager was told in a long story, and when."""
    told = Recorded(strategies=two(FixedNotional(notional=1_000)), daily_loss=1.0)
    for _ in everything(told):
        pass
    told.say(EpochBegan(1), OrdersRestated({"r1-impulse-3": left("0.010")}, (pair("r1-other-2", strategy="other"),)))
    told.hold(PERP, "0.010")
    told.hold_pair("0.030", "other")
    told.say(StartTrading(), StopTrading(flatten=True), EpochBegan(2), NOTHING, Wake(), after=90)
    told.say(Wake(), Wake(), after=60)
    return told.entries


def replayed(entries, manager):
    return [[*manager.handle(message, now)] for message, now in entries]


def manager():
    return RiskManager(RiskConfig(daily_loss=1.0), INSTRUMENTS, two(FixedNotional(notional=1_000)), "r1")


@pytest.mark.parametrize("seed", range(12))
def test_a_manager_that_was_read_back_goes_on_as_the_other_would_have(seed):
    entries = journal()
    lived = manager()
    wanted = replayed(entries, lived)
    assert {type(said) for heard in wanted for said in heard} >= {
        SubmitOrder,
        SubmitPair,
        CancelAll,
        TradingStateChanged,
    }

    cut = Random(seed).randrange(len(entries))
    first = manager()
    heard = replayed(entries[:cut], first)
    successor = manager()
    successor.state = codec.decoded(RiskState, codec.encoded(first.state))
    heard += replayed(entries[cut:], successor)

    assert heard == wanted
    assert codec.encoded(successor.state) == codec.encoded(lived.state)
    assert successor.wake_at() == lived.wake_at()


def test_a_fill_of_an_earlier_life_that_comes_late_is_not_answered_by_the_restated_position():
    told = Told()
    (order,) = told.want(1.0)
    told.say(EpochBegan(1))
    told.fill(order, "0.020", settle=False)
    told.say(NOTHING)
    told.hold(PERP, "0.020")

    assert not slot(told).pending
    assert slot(told).held == slot(told).target == D("0.020")
