from decimal import Decimal

import msgspec
import pytest

import hean.messages
from hean import codec
from hean.component import says, takes
from hean.messages import (
    BooksAdjusted,
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    Fact,
    FeedLive,
    FeedStale,
    FundingSettled,
    InterestCharged,
    KillSwitchTripped,
    Liquidity,
    NodeFailed,
    NodeStarted,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFact,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSent,
    OrdersRestated,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    ProcessFinished,
    ProcessStarted,
    ProfitParts,
    ProfitsStated,
    ReconcileCompleted,
    ReconcileDue,
    RestatedOrder,
    Severity,
    Side,
    SignalRefused,
    StrategySwitched,
    TradingState,
    TradingStateChanged,
    Wake,
)
from hean.monitor import (
    CURVE_KEPT,
    FILLS_KEPT,
    KEPT,
    RECENT_KEPT,
    REMEMBERED,
    STATUS,
    TICK_TO_ORDER_BUCKETS,
    TRIPS_KEPT,
    WAITING_KEPT,
    Monitor,
    MonitorState,
    Status,
)
from tests.unit.backtest.make import INSTRUMENTS, SPOT, fill, settled

PERP = "BTCUSDT-LINEAR.BYBIT"
SECOND = 1_000_000_000


def heard(*messages, now=SECOND):
    monitor = Monitor()
    for message in messages:
        assert list(monitor.handle(message, now)) == []
    return monitor


def filled(name="o", trade="t", quantity="0.5", price="100", fee="0.03"):
    return OrderFilled(
        name,
        "a",
        PERP,
        trade,
        Side.BUY,
        Decimal(quantity),
        Decimal(price),
        Decimal(fee),
        "USDT",
        Liquidity.MAKER,
        None,
        "",
        0,
    )


SUBMITTED = OrderSubmitted("o", "a", PERP, Side.BUY, Decimal(1))
ACCEPTED = OrderAccepted("o", "a", PERP, "v")
UNKNOWN = OrderOutcomeUnknown("o", "a", PERP, "timeout")
REJECTED = OrderRejected("o", "a", PERP, "no")
CANCELED = OrderCanceled("o", "a", PERP, "asked")
EXPIRED = OrderExpired("o", "a", PERP, "remainder")


def test_what_was_never_said_is_unknown_and_not_nought():
    monitor = Monitor()

    assert monitor.state == MonitorState()
    assert monitor.state.equity is None
    assert monitor.state.trading is None
    assert monitor.state.reconciliation.ts_success is None
    assert monitor.reconcile_lag_s(SECOND) is None


@pytest.mark.parametrize(
    ("facts", "status", "waiting"),
    [
        ([SUBMITTED], "submitted", True),
        ([SUBMITTED, ACCEPTED], "accepted", True),
        ([SUBMITTED, UNKNOWN], "unknown", True),
        ([UNKNOWN, ACCEPTED], "accepted", True),
        ([ACCEPTED, SUBMITTED], "accepted", True),
        ([ACCEPTED, filled()], "filled", False),
        ([filled(), ACCEPTED], "filled", False),
        ([SUBMITTED, REJECTED], "rejected", False),
        ([filled(), EXPIRED], "expired", False),
        ([CANCELED, filled()], "canceled", False),
        ([CANCELED, ACCEPTED], "canceled", False),
    ],
)
def test_the_latest_word_about_an_order_wins_in_whatever_order_it_comes(facts, status, waiting):
    state = heard(*facts).state
    orders = state.waiting_orders if waiting else state.recent_orders

    assert {name: order.status for name, order in orders.items()} == {"o": status}
    assert len(state.waiting_orders) + len(state.recent_orders) == 1


def test_what_venue_and_broker_both_say_is_counted_once():
    monitor = heard(SUBMITTED, ACCEPTED, ACCEPTED, filled(), filled(), filled(trade="t2"), CANCELED, CANCELED)
    seen = monitor.state.strategies["a"]

    assert seen.orders == {"submitted": 1, "accepted": 1, "filled": 1, "canceled": 1}
    assert (seen.trades, seen.turnover, seen.fees) == (2, Decimal(100), {"USDT": Decimal("0.06")})
    assert monitor.state.recent_orders["o"].filled == Decimal(1)


def test_every_order_fact_but_an_amendment_has_a_status():
    assert set(STATUS) | {OrderAmended} == set(OrderFact.__subclasses__())


def test_an_amendment_is_word_of_an_order_that_waits():
    monitor = heard(SUBMITTED, ACCEPTED)
    monitor.handle(OrderAmended("o", "a", PERP, Decimal(2), None), 9 * SECOND)
    monitor.handle(OrderAmended("unheard of", "a", PERP, Decimal(2), None), 9 * SECOND)

    assert {name: (one.status, one.quantity, one.ts) for name, one in monitor.state.waiting_orders.items()} == {
        "o": ("accepted", 2, 9 * SECOND)
    }


def test_side_and_size_of_an_order_are_known_once_it_is_sent():
    unsent, sent = (heard(fact).state.waiting_orders["o"] for fact in (ACCEPTED, SUBMITTED))

    assert (unsent.side, unsent.quantity) == (None, None)
    assert (sent.side, sent.quantity) == (Side.BUY, 1)


def test_after_a_restart_only_what_the_broker_has_is_waited_for():
    under_way = RestatedOrder("a", PERP, Decimal(1), Decimal(0), unknown=False)
    other = OrderSubmitted("p", "a", PERP, Side.BUY, Decimal(1))
    state = heard(SUBMITTED, other, OrdersRestated({"p": under_way}, ())).state

    assert list(state.waiting_orders) == ["p"]
    assert (state.recent_orders["o"].status, state.recent_orders["o"].reason) == (
        "submitted",
        "no longer under way after a restart",
    )


def test_refusals_are_counted_by_rule_with_the_last_figures():
    refused = [SignalRefused("a", PERP, "gross", measured, "2.0") for measured in ("2.1", "2.3")]
    seen = heard(*refused, SignalRefused("a", PERP, "stale", "9 s", "5 s")).state.strategies["a"]

    assert {rule: (one.count, one.measured) for rule, one in seen.refusals.items()} == {
        "gross": (2, "2.3"),
        "stale": (1, "9 s"),
    }


def test_the_funnel_goes_from_refused_to_traded():
    monitor = heard(SignalRefused("a", PERP, "gross", "", ""), SUBMITTED, filled())

    funnel = monitor.funnel("a")
    assert (funnel["refused"], funnel["submitted"], funnel["filled"], funnel["rejected"]) == (1, 1, 1, 0)
    assert set(monitor.funnel("nobody").values()) == {0}
    assert list(funnel)[1:] == list(Status)


def test_money():
    state = heard(
        PositionChanged("a", PERP, Decimal(1), Decimal(0), Decimal(100)),
        EquityChanged(Decimal(1000), Decimal(900), marks_known=True),
        FundingSettled("f1", PERP, Decimal(1), Decimal(0), Decimal(0), Decimal("0.5"), 0),
        FundingSettled("f1", PERP, Decimal(1), Decimal(0), Decimal(0), Decimal("0.5"), 0),
        FundingSettled("f2", PERP, Decimal(1), Decimal(0), Decimal(0), Decimal("-0.2"), 0),
        InterestCharged("c", "USDT", Decimal(5), Decimal("0.1"), 0),
        InterestCharged("c", "USDT", Decimal(5), Decimal("0.1"), 0),
        CapitalAllocated("a", Decimal("0.4")),
        PairFinished("p", "a", "unwound", ""),
    ).state

    assert state.strategies["a"].positions[PERP].quantity == 1
    assert (state.equity.equity, state.equity.ts, state.cash) == (1000, SECOND, 900)
    assert state.funding == {PERP: Decimal("0.3")}
    assert state.interest == {"USDT": Decimal("0.1")}
    assert state.strategies["a"].share == Decimal("0.4")
    assert state.strategies["a"].pairs == {"unwound": 1}


def test_the_kill_switch_stays_pulled_until_trading_goes_on():
    tripped = KillSwitchTripped("drawdown", "11 %", "10 %")
    halted = TradingStateChanged(TradingState.HALTED, "drawdown")
    monitor = heard(tripped, halted)
    assert monitor.state.tripped.cause == "drawdown"

    monitor.handle(TradingStateChanged(TradingState.ACTIVE, "reset"), SECOND)
    assert monitor.state.tripped is None


def test_the_lag_is_since_the_last_success_or_since_the_start():
    monitor = heard(NodeStarted("risk"), now=10 * SECOND)
    assert monitor.reconcile_lag_s(40 * SECOND) == 30

    monitor.handle(ReconcileCompleted(1, 0, flat=True), 35 * SECOND)
    assert monitor.reconcile_lag_s(40 * SECOND) == 5


def test_discrepancies_stand_until_a_clean_comparison():
    found = Discrepancy(DiscrepancyKind.QUANTITY, Severity.HIGH, PERP, "1", "2")
    monitor = heard(found, ReconcileCompleted(1, 1, flat=False))
    assert [one.theirs for one in monitor.state.reconciliation.last.values()] == ["2"]

    monitor.handle(ReconcileCompleted(2, 0, flat=False), SECOND)
    assert monitor.state.reconciliation.last == {}


def test_what_was_corrected_and_what_ever_differed_is_kept_when_all_is_well_again():
    found = Discrepancy(DiscrepancyKind.BALANCE, Severity.HIGH, "USDT", "1", "2")
    entry = BooksAdjusted("x", "", "", "USDT", Decimal(1), Decimal(0), "why")
    state = heard(ReconcileDue("away"), found, entry, ReconcileCompleted(1, 0, flat=False), EpochBegan(7)).state
    known = state.reconciliation

    assert known.last == {}
    assert [one.theirs for one in known.past] == ["2"]
    assert [(one.adjustment_id, one.quantity, one.ts) for one in known.adjustments] == [("x", 1, SECOND)]
    assert (known.adjusted, known.dues, known.due) == (1, 1, "away")
    assert state.epoch == 7


def test_faults_and_lives():
    state = heard(
        NodeStarted("risk"),
        NodeFailed("risk", "KeyError"),
        NodeStarted("risk"),
        NodeFailed("feed", "gone"),
        ErrorReported("venue", "rate limit", "10006"),
        ErrorReported("venue", "rate limit", "10018"),
        FeedStale(PERP, 0),
        FeedLive(PERP),
        ProcessStarted("sweep", "r1"),
        ProcessFinished("r1", "done"),
    ).state

    assert (state.nodes["risk"].starts, state.nodes["risk"].failures, state.nodes["risk"].failure) == (2, 1, "")
    assert state.nodes["feed"].failure == "gone"
    assert (state.errors["venue"]["rate limit"].count, state.errors["venue"]["rate limit"].detail) == (2, "10018")
    assert state.feeds[PERP].live
    assert (state.processes["r1"].process, state.processes["r1"].outcome) == ("sweep", "done")


def test_memory_is_bounded():
    monitor = Monitor()
    for number in range(2 * CURVE_KEPT):
        monitor.handle(EquityChanged(Decimal(number), Decimal(number), marks_known=True), number)
    for number in range(RECENT_KEPT + 10):
        monitor.handle(OrderCanceled(str(number), "a", PERP, ""), number)
    for number in range(WAITING_KEPT + 10):
        monitor.handle(OrderSubmitted(f"lost-{number}", "a", PERP, Side.BUY, Decimal(1)), number)
    for number in range(2 * KEPT):
        monitor.handle(ProcessStarted("sweep", f"run-{number}"), number)
        monitor.handle(ProcessFinished(f"unheard-{number}", "done"), number)
        monitor.handle(Discrepancy(DiscrepancyKind.FEE, Severity.LOW, f"t{number}", "1", "2"), number)
        monitor.handle(BooksAdjusted(str(number), "", "", "USDT", Decimal(1), Decimal(0), ""), number)
        monitor.handle(ErrorReported("venue", f"kind {number}", ""), number)
        monitor.handle(NodeFailed(f"risk@{number}", "gone"), number)
    state = monitor.state
    known = state.reconciliation
    kept = (state.processes, known.last, known.past, known.adjustments, state.errors["venue"])

    assert len(state.curve) <= CURVE_KEPT
    assert (state.curve[0].ts, state.curve[-1].ts) == (0, 2 * CURVE_KEPT - 1)
    assert all(one.ts < other.ts for one, other in zip(state.curve, state.curve[1:], strict=False))
    assert len(state.recent_orders) == RECENT_KEPT
    assert len(state.waiting_orders) == WAITING_KEPT
    assert {len(one) for one in kept} == {KEPT}
    assert known.adjusted == 2 * KEPT
    assert (list(state.nodes), state.nodes["risk"].failures) == (["risk"], 2 * KEPT)
    assert len(state.told) <= REMEMBERED


def test_every_kind_of_fact_is_heard_and_the_state_can_be_read():
    monitor = heard(
        SUBMITTED, filled(), NodeStarted("risk"), EquityChanged(Decimal(1), Decimal(1), marks_known=False), Wake()
    )

    assert takes(Monitor) == {Fact}
    assert says(Monitor) == frozenset()
    assert monitor.state.facts["Wake"] == 1
    assert issubclass(hean.messages.Wake, Fact)
    assert msgspec.json.decode(msgspec.json.encode(monitor.state), type=MonitorState) == monitor.state


# --- fills, round trips, profits ----------------------------------------------------------------


def traded(*facts, now=SECOND):
    monitor = Monitor(INSTRUMENTS)
    for fact in facts:
        monitor.handle(fact, now)
    return monitor


def test_a_fill_is_kept_once_as_the_venue_said_it():
    state = heard(filled(), filled()).state

    (seen,) = state.fills
    assert (seen.trade_id, seen.client_order_id, seen.side, seen.quantity, seen.price, seen.fee) == (
        "t",
        "o",
        Side.BUY,
        Decimal("0.5"),
        Decimal(100),
        Decimal("0.03"),
    )
    assert (seen.liquidity, seen.reference, seen.ts) == (Liquidity.MAKER, None, 0)


def test_a_round_trip_is_kept_when_it_is_over():
    bought, sold = fill(PERP, "2", "100", fee="0.1", ts=5), fill(PERP, "-2", "110", fee="0.2", ts=9)
    monitor = traded(bought, bought)
    assert monitor.state.trips == []
    assert [(trip.quantity, trip.pnl) for trip in monitor.open_trips()] == [(2, Decimal("-0.1"))]

    for fact in (settled(PERP, quantity="2", rate="-0.001", mark="100", amount="0.2"), sold, sold):
        monitor.handle(fact, SECOND)

    (trip,) = monitor.state.trips
    assert (trip.side, trip.entry_price, trip.exit_price, trip.ts_open, trip.ts_close) == ("long", 100, 110, 5, 9)
    assert (trip.pnl, trip.fees, trip.funding) == (Decimal("19.9"), Decimal("0.3"), Decimal("0.2"))
    assert monitor.open_trips() == ()


def test_two_legs_are_one_round_trip_and_dust_does_not_keep_it_open():
    state = traded(
        fill(SPOT, "1", "50000", fee="0.0010004", coin="BTC"),
        fill(PERP, "-0.999", "50010"),
        fill(PERP, "0.999", "50005"),
        fill(SPOT, "-0.998999", "50001"),
    ).state

    assert [trip.instruments for trip in state.trips] == [(SPOT, PERP)]
    assert state.trips_open.open == {"a": []}


@pytest.mark.parametrize(
    ("last", "closed_by"),
    [
        (fill(PERP, "-1", "100", ending="stop"), "stop"),
        (fill(PERP, "-1", "100", reference="101"), "signal"),
        (fill(PERP, "-1", "100", reference=None), "risk"),
        (BooksAdjusted("x", "a", PERP, "", Decimal(-1), Decimal(100), "gone"), "adjustment"),
    ],
    ids=["an exit", "a decision", "risk's own word", "an entry in the books"],
)
def test_what_closed_a_trip_is_said_as_far_as_facts_tell(last, closed_by):
    assert [trip.closed_by for trip in traded(fill(PERP, "1", "100"), last).state.trips] == [closed_by]


def test_what_cannot_be_booked_is_in_no_trip_and_harms_nobody():
    strange = fill("DOGEUSDT-LINEAR.BYBIT", "1", "100")
    in_other_coin = fill(PERP, "1", "100", fee="1", coin="MNT")
    reserve = BooksAdjusted("x", "", PERP, "", Decimal(-1), Decimal(100), "gone")
    monitor = traded(strange, in_other_coin, reserve)

    assert (len(monitor.state.fills), monitor.open_trips()) == (2, ())


def test_a_leg_that_is_traded_no_more_keeps_its_trip_open_and_harms_nobody():
    before = traded(fill(SPOT, "1", "50000"), fill(PERP, "-1", "50010"))
    after = Monitor({PERP: INSTRUMENTS[PERP]})
    after.state = before.state

    after.handle(fill(PERP, "1", "50005"), SECOND)
    (trip,) = after.open_trips()
    assert (trip.instruments, trip.pnl) == ((SPOT, PERP), 5)


def test_the_newest_fills_are_kept():
    fills = heard(*(filled(trade=f"t{number}") for number in range(FILLS_KEPT + 10))).state.fills

    assert (len(fills), fills[0].trade_id, fills[-1].trade_id) == (FILLS_KEPT, "t10", f"t{FILLS_KEPT + 9}")


def test_round_trips_are_bounded():
    monitor = Monitor(INSTRUMENTS)
    for number in range(TRIPS_KEPT + 3):
        monitor.handle(fill(PERP, "1", "100", trade=f"b{number}", ts=number), number)
        monitor.handle(fill(PERP, "-1", "101", trade=f"s{number}", ts=number), number)

    assert [len(monitor.state.trips), monitor.state.trips[0].ts_open] == [TRIPS_KEPT, 3]


def parts(price, funding="0", brought_in="100"):
    amounts = {"price": price, "funding": funding, "brought_in": brought_in}
    return ProfitParts(
        **{name: Decimal(amounts.get(name, "0")) for name in ProfitParts.__struct_fields__},
    )


def test_the_curve_begins_with_what_the_first_comparison_found_and_keeps_it_after_later_ones():
    coins = [EquityChanged(Decimal(worth), Decimal(worth), marks_known=True) for worth in (0, 100, 900, 905)]
    monitor = heard(*coins[:3], ReconcileCompleted(1, 0, flat=True))
    assert [point.equity for point in monitor.state.curve] == [900]

    monitor.handle(coins[3], 2 * SECOND)
    monitor.handle(ReconcileCompleted(2, 0, flat=True), 3 * SECOND)
    assert [point.equity for point in monitor.state.curve] == [900, 905]


def test_each_point_of_the_curve_says_what_its_profit_is_made_of():
    equity = EquityChanged(Decimal(203), Decimal(200), marks_known=True)
    state = heard(equity, ProfitsStated({"a": parts("2", "0.5"), "": parts("0.5")}), equity).state

    before, after = state.curve
    assert before.parts == {}
    assert {part: amount for part, amount in after.parts.items() if amount} == {
        "price": Decimal("2.5"),
        "funding": Decimal("0.5"),
    }
    assert after.equity - sum(after.parts.values()) == 200
    assert (set(state.profits), state.ts_profits) == ({"a", ""}, SECOND)


@pytest.mark.parametrize(
    ("took", "bucket"), [(0, 0), (1_000_000, 0), (1_000_001, 1), (4 * SECOND, 11), (6 * SECOND, 12), (-5, 0)]
)
def test_how_long_a_row_took_to_become_an_order(took, bucket):
    found = heard(OrderSent("o", "a", PERP, 10 * SECOND, 10 * SECOND + took)).state.tick_to_order

    assert [index for index, count in enumerate(found.counts) if count] == [bucket]
    assert (found.count, found.sum) == (1, max(0, took) / SECOND)
    assert len(found.counts) == len(TICK_TO_ORDER_BUCKETS) + 1


def test_who_switched_a_strategy_off_is_known():
    monitor = heard(SUBMITTED)
    assert monitor.state.strategies["a"].switched is None

    monitor.handle(StrategySwitched("a", False, "ada", "it loses"), 9 * SECOND)
    switched = monitor.state.strategies["a"].switched
    assert (switched.on, switched.person, switched.reason, switched.ts) == (False, "ada", "it loses", 9 * SECOND)


def test_the_ends_of_runs_are_counted_for_ever():
    monitor = Monitor()
    for number in range(2 * KEPT):
        monitor.handle(ProcessStarted("sweep", f"r{number}"), number)
        monitor.handle(ProcessFinished(f"r{number}", "failed: no data" if number % 2 else "completed"), number)
        monitor.handle(ProcessFinished(f"r{number}", "completed"), number)

    assert monitor.state.runs == {"sweep": {"completed": KEPT, "failed": KEPT}}


def test_a_state_of_an_earlier_hean_can_be_read():
    """What was written before fills, trips and profits were kept lacks their fields."""
    told = heard(filled(), EquityChanged(Decimal(1), Decimal(1), marks_known=True)).state
    written = msgspec.to_builtins(told)
    for name in ("fills", "trips", "trips_open", "profits", "ts_profits", "tick_to_order", "runs"):
        del written[name]
    del written["curve"][0]["parts"], written["strategies"]["a"]["switched"]

    state = codec.decoded(MonitorState, codec.encoded(written))
    assert (state.curve[0].parts, state.fills, state.profits, state.tick_to_order.count) == ({}, [], {}, 0)


def test_a_round_trip_under_way_outlives_a_restart():
    before = traded(
        fill(SPOT, "1", "50000", fee="0.0010004", coin="BTC", order="o1"),
        fill(SPOT, "-0.998999", "51000", order="o2"),  # leaves dust
        fill(SPOT, "1", "52000", order="o3"),
        OrderSent("o3", "a", SPOT, 1, 2),
        ProfitsStated({"a": parts("2")}),
        EquityChanged(Decimal(1), Decimal(1), marks_known=True),
    )
    after = Monitor(INSTRUMENTS)
    after.state = codec.decoded(MonitorState, codec.encoded(before.state))
    assert after.state == before.state

    last = fill(SPOT, "-1", "53000", order="o4")
    for monitor in (before, after):
        monitor.handle(last, 9 * SECOND)
    assert after.state == before.state
    assert len(after.state.trips) == 2
