"""What reduces at once and trips when it lasts; what a person pulls; what an ordinary day brings."""

import pytest

from hean.messages import (
    CancelAll,
    Discrepancy,
    DiscrepancyKind,
    EpochBegan,
    ErrorReported,
    FeedLive,
    FeedStale,
    KillSwitchReset,
    KillSwitchTripped,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    PullKillSwitch,
    ReconcileCompleted,
    Severity,
    StartTrading,
    TradingState,
    VerifyFlat,
    Wake,
)
from hean.risk.killswitch import NOTED
from tests.unit.risk.story import PERP, Told, orders, worth

CLEAN, DIRTY = ReconcileCompleted(1, 0, flat=False), ReconcileCompleted(1, 1, flat=False)
SKEW = ErrorReported("venue", "clock skew", "2 s off")


def trips(said):
    return [message for message in said if isinstance(message, KillSwitchTripped)]


def causes(said):
    return [trip.cause for trip in trips(said)]


def wake_until(told, after):
    """Let time go on, waking it whenever it asks for that; what was said."""
    end, said = told.now + round(after * 10**9), []
    while (at := told.manager.wake_at()) is not None and at <= end:
        told.now = max(told.now, at)
        said += told.say(Wake())
    told.now = end
    return said


# --- the lag of reconciliation --------------------------------------------------------------------


def test_a_lag_of_reconciliation_reduces_and_then_trips():
    told = Told(reconciler=True)
    told.say(ReconcileCompleted(1, 0, flat=True))

    wake_until(told, 599)
    assert told.trading is TradingState.REDUCING
    (trip,) = trips(wake_until(told, 1))
    assert trip == KillSwitchTripped("RECONCILE", "no comparison with the venue", "600 s")
    assert told.trading is TradingState.HALTED


def test_a_comparison_in_time_keeps_it_from_tripping():
    told = Told(reconciler=True)
    for _ in range(5):
        assert causes(wake_until(told, 500)) == []
        told.say(CLEAN)
        assert told.trading is TradingState.ACTIVE


def test_where_nothing_is_traded_nothing_trips_and_a_new_start_has_its_time():
    told = Told(reconciler=True, start=False)
    told.say(ReconcileCompleted(1, 0, flat=True))
    assert causes(wake_until(told, 10_000)) == []

    told.say(StartTrading())
    assert causes(wake_until(told, 599)) == []
    assert causes(wake_until(told, 2)) == ["RECONCILE"]
    told.say(KillSwitchReset("ada", "the line is down"))
    assert causes(wake_until(told, 599)) == []


# --- the clock ------------------------------------------------------------------------------------


def test_a_clock_that_stays_wrong_trips():
    told = Told()
    said = told.say(SKEW)
    assert told.trading is TradingState.REDUCING
    for _ in range(4):
        said += wake_until(told, 60) + told.say(SKEW)
    assert causes(said) == []

    assert causes(told.say(SKEW, after=60)) == ["CLOCK"]


def test_a_clock_that_was_wrong_for_a_while_is_right_again():
    told = Told()
    for _ in range(6):
        said = told.say(SKEW) + wake_until(told, 100) + told.say(SKEW)
        assert told.trading is TradingState.REDUCING
        said += wake_until(told, 150)
        assert told.trading is TradingState.ACTIVE
        assert causes(said) == []
    assert told.manager.wake_at() is None


def test_two_reports_far_apart_are_two_wrong_clocks():
    told = Told()
    told.say(SKEW)

    assert causes(told.say(SKEW, after=1_000)) == []


def test_a_wrong_clock_is_no_error_by_itself_and_starting_does_not_set_it():
    told = Told(start=False)
    for _ in range(30):
        told.say(SKEW, after=20)
    assert told.manager.state.kill.tripped == ""

    told.say(StartTrading())
    assert told.trading is TradingState.REDUCING


# --- a jump ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "after", "tripped", "trading"),
    [
        (CLEAN, 30, [], TradingState.REDUCING),
        (DIRTY, 30, [], TradingState.REDUCING),
        (CLEAN, 60, [], TradingState.ACTIVE),
        (DIRTY, 60, ["JUMP"], TradingState.HALTED),
    ],
    ids=["too soon", "too soon to blame", "explained", "not explained"],
)
def test_a_jump_is_judged_by_a_comparison_some_time_after_it(heard, after, tripped, trading):
    told = Told()
    told.say(worth(12_500))

    assert causes(told.say(heard, after=after)) == tripped
    assert told.trading is trading


def test_before_trading_starts_the_books_may_be_opened():
    told = Told(equity=0, start=False)
    told.say(worth(10_000), StartTrading())

    assert told.trading is TradingState.ACTIVE
    assert told.manager.state.day_equity == 10_000


def test_what_the_books_are_opened_with_is_no_jump_even_if_the_venue_differs_still():
    told = Told(equity=100, start=False)
    told.say(worth(10_000))

    assert causes(told.say(DIRTY, after=60)) == []


def test_a_discrepancy_alone_never_trips():
    told = Told()
    told.say(Discrepancy(DiscrepancyKind.QUANTITY, Severity.HIGH, PERP, "1", "2"))
    for _ in range(100):
        assert causes(told.say(DIRTY, after=30)) == []

    assert told.trading is TradingState.REDUCING


# --- a person -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("person", "reason", "measured"),
    [
        ("ada", "it smells", "ada: it smells"),
        (" ", "", "nobody named: no reason given"),
        ("ada", "", "ada: no reason given"),
    ],
)
def test_a_person_pulls_the_switch_and_everything_is_closed(person, reason, measured):
    told = Told()
    told.hold(PERP, "0.020")

    tripped, halted, cancel, order = told.say(PullKillSwitch(person, reason))

    assert tripped == KillSwitchTripped("PERSON", measured, "a person's word")
    assert halted.trading is TradingState.HALTED
    assert cancel == CancelAll("")
    assert orders([order]) == [(PERP, -order.quantity, True)]
    assert told.say(StartTrading()) == []


def test_pulled_again_it_closes_anew_what_was_given_up():
    told = Told(flatten_attempts=1)
    told.hold(PERP, "0.020")
    *_, order = told.say(PullKillSwitch("ada", "now"))
    told.say(OrderRejected(order.client_order_id, "impulse", PERP, "no"))
    assert causes(told.say(Wake(), after=10)) == ["FLATTEN"]
    assert told.manager.wake_at() is None

    cancel, again = told.say(PullKillSwitch("ada", "once more"))

    assert cancel == CancelAll("")
    assert orders([again]) == [(PERP, -order.quantity, True)]


def test_it_is_pulled_before_trading_was_started_too():
    assert causes(Told(start=False).say(PullKillSwitch("ada", "not today"))) == ["PERSON"]


# --- errors ---------------------------------------------------------------------------------------


def flood(told, *heard, times=12):
    return causes([said for _ in range(times) for said in told.say(*heard, after=1)])


@pytest.mark.parametrize("kind", NOTED)
def test_what_an_ordinary_day_of_a_gateway_brings_does_not_trip(kind):
    assert flood(Told(), ErrorReported("venue", kind, "why"), times=100) == []


@pytest.mark.parametrize("kind", ["unreadable message", "order vanished", "not let in", "something new"])
def test_everything_else_does(kind):
    assert flood(Told(), ErrorReported("venue", kind, "why")) == ["ERRORS"]


def test_one_order_is_one_error_however_often_it_is_told_of():
    told = Told()
    unknown = OrderOutcomeUnknown("x-1", "impulse", PERP, "timeout")

    assert flood(told, unknown, OrderRejected("x-1", "impulse", PERP, "no such order"), times=50) == []
    assert len(told.manager.state.kill.errors) == 1
    assert flood(told, *(OrderRejected(f"x-{n}", "impulse", PERP, "no") for n in range(2, 11)), times=1) == ["ERRORS"]


@pytest.mark.parametrize("reason", ["DRY_RUN: not sent", "dry run: would have been sent"])
def test_orders_that_are_only_logged_are_no_errors(reason):
    told = Told()

    assert causes([s for n in range(50) for s in told.say(OrderRejected(f"x-{n}", "impulse", PERP, reason))]) == []


def test_closes_that_came_after_an_exit_or_another_strategy_are_no_errors():
    told = Told()
    reason = "110017 current position is zero, cannot fix reduce-only order qty"

    assert flood(told, *(OrderRejected(f"x-{n}", "impulse", PERP, reason) for n in range(20)), times=1) == []


def test_a_lost_connection_of_two_minutes_is_borne():
    told = Told(reconciler=True)
    told.say(CLEAN)
    (order,) = told.want(1.0)
    said = told.say(
        FeedStale(PERP, 1),
        OrderOutcomeUnknown(order.client_order_id, "impulse", PERP, "timeout"),
        ErrorReported("venue", "backoff", "1"),
    )
    for _ in range(24):
        said += wake_until(told, 5)
        said += told.say(
            ErrorReported("venue", "snapshot incomplete", "timeout"),
            ErrorReported("venue", "clock unknown", "timeout"),
            OrderOutcomeUnknown(order.client_order_id, "impulse", PERP, "timeout"),
        )
    assert causes(said) == []
    assert told.trading is TradingState.REDUCING
    told.say(CLEAN, FeedLive(PERP))
    assert told.trading is TradingState.ACTIVE


# --- closing everything ---------------------------------------------------------------------------


def test_each_attempt_at_closing_cancels_again_while_something_is_under_way():
    told = Told()
    told.want(1.0)
    told.say(PullKillSwitch("ada", "now"))

    assert told.say(Wake(), after=2) == [CancelAll("")]
    assert told.say(Wake(), after=4) == [CancelAll("")]


def test_a_pair_that_closes_is_not_called_back():
    told = Told()
    told.hold_pair("0.020")
    told.say(PullKillSwitch("ada", "now"))

    assert told.say(Wake(), after=2) == []


def test_a_venue_that_shows_something_is_asked_again_after_another_cancel_and_then_a_person_is_called():
    told = Told(reconciler=True, flatten_attempts=3)
    said = told.say(PullKillSwitch("ada", "now"))
    assert said[-1] == VerifyFlat()
    asked = 1
    while told.manager.state.flattening.next_at is not None:
        told.say(CLEAN, CLEAN)  # what answers an older question may come besides
        told.now = told.manager.wake_at()
        said = told.say(Wake())
        assert said[0] == CancelAll("")
        asked += VerifyFlat() in said
        assert asked < 10

    assert asked == 3
    assert trips(said) == [KillSwitchTripped("FLATTEN", "the venue shows something left", "3 attempts")]
    told.say(ReconcileCompleted(9, 0, flat=True))
    assert told.manager.state.flattening is None


def test_a_venue_that_does_not_answer_is_asked_for_as_long_as_it_takes():
    told = Told(reconciler=True, flatten_attempts=3)
    told.say(PullKillSwitch("ada", "now"))
    said = wake_until(told, 3_600)

    assert trips(said) == []
    assert said.count(VerifyFlat()) > 50
    assert CancelAll("") not in said


def test_what_is_found_at_the_venue_while_verifying_is_closed():
    told = Told(reconciler=True)
    told.say(PullKillSwitch("ada", "now"))
    told.say(CLEAN)
    told.hold(PERP, "0.005")

    cancel, order = told.say(Wake(), after=2)

    assert cancel == CancelAll("")
    assert orders([order]) == [(PERP, -order.quantity, True)]


def test_denials_are_remembered_over_a_restart():
    told = Told(reconciler=True, flatten_attempts=2)
    told.say(PullKillSwitch("ada", "now"))
    told.say(CLEAN)
    told.say(Wake(), after=2)
    told.say(EpochBegan(1), OrdersRestated({}, ()))
    told.say(Wake(), after=2)
    told.say(CLEAN)

    assert causes(wake_until(told, 60)) == ["FLATTEN"]
