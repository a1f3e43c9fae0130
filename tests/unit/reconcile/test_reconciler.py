from decimal import Decimal

import msgspec
import pytest

from hean.component import says, takes
from hean.errors import ConfigError
from hean.messages import (
    OPENING,
    AdjustBooks,
    BooksAdjusted,
    Discrepancy,
    DiscrepancyKind,
    EntryKind,
    EquityChanged,
    FundingSettled,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    OrderSubmitted,
    PositionChanged,
    ReconcileCompleted,
    ReconcileDue,
    RestatedOrder,
    Side,
    SnapshotAccount,
    VenueEntry,
    VerifyFlat,
    Wake,
)
from hean.reconcile.reconciler import Reconciler, ReconcilerConfig, ReconcilerState
from tests.unit.reconcile.account import INSTRUMENTS, PERP, SECOND, SPOT, D, listed, snapshot


class Story:
    """A reconciler, told things at seconds; each snapshot answers the last request. It has `begun` unless it is said not to."""

    def __init__(self, *, begun=True, **config):
        self.reconciler = Reconciler(ReconcilerConfig(**config), INSTRUMENTS)
        self.reconciler.state.opened = self.reconciler.state.settled = begun

    def at(self, second, message):
        return list(self.reconciler.handle(message, int(second * SECOND)))

    def answer(self, second, **theirs):
        self.reconciler.state.requests += 1
        return self.at(second, snapshot(self.reconciler.state.requests, at=second, **theirs))

    @property
    def next(self):
        return self.reconciler.wake_at() / SECOND


def position(quantity, instrument=PERP, *, strategy="a", dust="0"):
    return PositionChanged(strategy, instrument, D(quantity), D(dust), D(0))


def filled(name="o", quantity="0.4", trade="t"):
    return OrderFilled(name, "a", PERP, trade, Side.BUY, D(quantity), D(1), D(0), "USDT", Liquidity.MAKER, None, "", 0)


def discrepancies(said):
    return [(message.kind, message.subject) for message in said if isinstance(message, Discrepancy)]


# --- when it asks -------------------------------------------------------------------------------


def test_asks_at_the_start_and_then_every_half_minute():
    story = Story()
    assert story.next == 0

    assert story.at(100, Wake()) == [SnapshotAccount(1)]
    assert story.next == 130
    assert story.at(129, Wake()) == []
    assert story.at(130, Wake()) == [SnapshotAccount(2)]


def test_asks_when_an_outcome_is_unknown_but_not_ten_times_a_second():
    story = Story()
    unknown = OrderOutcomeUnknown("o", "a", PERP, "timeout")

    assert story.at(100, unknown) == [SnapshotAccount(1)]
    assert story.at(100.1, unknown) == []
    assert story.next == 101


def test_asks_again_soon_when_something_is_suspected():
    story = Story()
    story.at(100, Wake())
    story.answer(100, positions={PERP: "1"})

    assert story.next == 105


# --- what it concludes --------------------------------------------------------------------------


def test_a_difference_is_said_when_two_snapshots_show_it_and_only_once():
    story = Story()
    assert story.answer(100, positions={PERP: "1"}) == [ReconcileCompleted(1, 0, flat=False)]
    assert discrepancies(story.answer(104.9, positions={PERP: "1"})) == []
    assert story.answer(105, positions={PERP: "1"}) == [
        Discrepancy(DiscrepancyKind.MISSING_LOCAL, "high", PERP, "0", "1"),
        ReconcileCompleted(3, 1, flat=False),
    ]
    assert story.answer(135, positions={PERP: "1"}) == [ReconcileCompleted(4, 1, flat=False)]
    assert discrepancies(story.answer(165, positions={PERP: "2"})) == [(DiscrepancyKind.MISSING_LOCAL, PERP)]


def test_a_difference_that_went_away_begins_anew():
    story = Story()
    story.answer(100, positions={PERP: "1"})
    story.answer(105)

    assert discrepancies(story.answer(110, positions={PERP: "1"})) == []


def test_nothing_is_concluded_while_facts_are_on_their_way():
    story = Story()
    story.answer(100, positions={PERP: "1"})
    story.at(103, filled())

    assert discrepancies(story.answer(107.9, positions={PERP: "1"})) == []
    assert discrepancies(story.answer(108, positions={PERP: "1"})) == []
    assert discrepancies(story.answer(113, positions={PERP: "1"})) == [(DiscrepancyKind.MISSING_LOCAL, PERP)]


def test_a_failed_query_concludes_nothing_and_is_repeated_when_it_matters():
    story = Story()
    story.at(100, Wake())
    story.at(100, snapshot(1, at=100, positions={PERP: "1"}))
    assert story.at(105, Wake()) == [SnapshotAccount(2)]
    assert story.at(105, snapshot(2, at=105, complete=False)) == []
    assert story.next == 110
    assert discrepancies(story.answer(110, positions={PERP: "1"})) == [(DiscrepancyKind.MISSING_LOCAL, PERP)]


def test_an_answer_that_comes_late_is_left_aside():
    story = Story()
    story.answer(100)

    assert story.at(101, snapshot(1, at=99)) == []


def test_holdings_are_the_sum_over_strategies_with_their_dust():
    story = Story()
    story.at(0, position("0.5"))
    story.at(0, position("-0.2", strategy="b"))
    story.at(0, position("1", SPOT, dust="0.0000005"))

    assert story.answer(100, positions={PERP: "0.3"}, balances={"BTC": "1.0000005"}) == [
        ReconcileCompleted(1, 0, flat=False)
    ]
    assert not story.reconciler.state.suspicions


@pytest.mark.parametrize(
    ("facts", "theirs", "found"),
    [
        ([OrderSubmitted("o", "a", PERP, Side.BUY, Decimal(1))], [], [(DiscrepancyKind.MISSING_VENUE, "o")]),
        ([OrderAccepted("o", "a", PERP, "v")], [listed("o")], []),
        ([OrderAccepted("o", "a", PERP, "v"), filled()], [listed("o", filled="0.4")], []),
        ([OrderAccepted("o", "a", PERP, "v"), filled()], [], []),
        ([OrderSubmitted("o", "a", PERP, Side.BUY, Decimal(1)), OrderRejected("o", "a", PERP, "no")], [], []),
        ([OrderOutcomeUnknown("o", "a", PERP, "timeout")], [listed("o")], []),
        ([OrderCanceled("o", "a", PERP, ""), OrderAccepted("o", "a", PERP, "v")], [], []),
        ([OrderCanceled("o", "a", PERP, "")], [listed("o")], [(DiscrepancyKind.MISSING_LOCAL, "o")]),
    ],
    ids=["lost", "open", "partly filled", "filled", "rejected", "found", "late word", "not gone after all"],
)
def test_what_is_believed_of_an_order(facts, theirs, found):
    story = Story()
    for fact in facts:
        story.at(0, fact)
    story.answer(100, orders=theirs)

    assert discrepancies(story.answer(105, orders=theirs)) == found


def test_ended_orders_are_forgotten_in_time():
    story = Story()
    story.at(0, OrderAccepted("o", "a", PERP, "v"))
    story.at(0, filled())
    story.answer(100)
    assert not story.reconciler.state.orders
    story.answer(1000)
    assert not story.reconciler.state.closed


def test_legs_are_checked_where_asked():
    story = Story(pairs=((SPOT, PERP),))
    story.at(0, position("-1"))
    story.at(0, position("0.5", SPOT))
    theirs = {"positions": {PERP: "-1"}, "balances": {"BTC": "0.5"}}
    story.answer(100, **theirs)

    assert discrepancies(story.answer(105, **theirs)) == [(DiscrepancyKind.LEG_IMBALANCE, PERP)]
    with pytest.raises(ConfigError, match="SOL"):
        Story(pairs=((SPOT, "SOL"),))


# --- the beginning ------------------------------------------------------------------------------


def adjusted(story, second, said):
    """Make the entries that were asked for, as the portfolio does."""
    entries = [one for one in said if isinstance(one, AdjustBooks)]
    for one in entries:
        at = one.adjustment_id, one.strategy, one.instrument, one.currency, one.quantity, one.price, one.reason
        story.at(second, BooksAdjusted(*at))
        if one.instrument and not one.currency:
            held = story.reconciler.state.holdings.get(one.instrument, {}).get(one.strategy, D(0))
            story.at(second, position(held + one.quantity, one.instrument, strategy=one.strategy))
        else:
            cash = story.reconciler.state.cash or D(0)
            moved = one.quantity if one.currency else D(0)
            story.at(second, EquityChanged(cash + moved, cash + moved, marks_known=True))
    return [(one.instrument or one.currency, one.strategy, one.quantity) for one in entries]


def test_what_is_there_before_us_opens_the_books_at_once():
    story = Story(begun=False)
    theirs = {"balances": {"USDT": "5000.25", "BTC": "0.3"}, "positions": {PERP: "-2"}, "entries": {PERP: "61000.5"}}
    said = story.answer(100, **theirs)

    assert [one.reason for one in said] == [OPENING] * 3
    assert said[-1].price == D("61000.5")
    assert adjusted(story, 100.1, said) == [("USDT", "", D("5000.25")), (SPOT, "", D("0.3")), (PERP, "", D(-2))]
    assert story.next <= 101  # it asks again as soon as it may
    assert story.answer(101, **theirs) == [ReconcileCompleted(2, 0, flat=True)]


def test_nothing_is_said_to_agree_before_the_books_are_open():
    story = Story(begun=False)
    theirs = {"balances": {"USDT": "5000"}}
    (asked,) = story.answer(100, **theirs)

    assert story.answer(102, **theirs) == []
    adjusted(story, 103, [asked])
    assert story.answer(104, **theirs) == [ReconcileCompleted(3, 0, flat=True)]


def test_an_opening_that_was_lost_on_its_way_is_asked_for_again_as_the_same():
    story = Story(begun=False)
    theirs = {"balances": {"USDT": "5000"}}
    asked = story.answer(100, **theirs)
    story.at(101, OrdersRestated({}, ()))

    assert story.answer(102, **theirs) == asked


@pytest.mark.parametrize("complete", [True, False])
def test_books_that_have_begun_are_not_opened(complete):
    story = Story(begun=False)
    story.at(0, EquityChanged(D(5000), D(5000), marks_known=True))
    story.at(100, Wake())

    assert story.at(100, snapshot(1, at=100, balances={"USDT": "5001"}, complete=complete)) == []
    assert story.next == 105


def test_funding_that_came_before_the_first_look_is_no_reason_not_to_open():
    story = Story(begun=False)
    story.at(99, FundingSettled("f", PERP, D(1), D(0), D(0), D("0.5"), 0))
    story.at(99, EquityChanged(D("0.5"), D("0.5"), marks_known=True))

    assert adjusted(story, 100, story.answer(100, balances={"USDT": "5000"})) == [("USDT", "", D("4999.5"))]


def test_coins_that_nothing_values_are_noted_once_and_left_out():
    story = Story(begun=False)
    theirs = {"balances": {"DOGE": "1000", "PEPE": "0"}}
    (noted, done) = story.answer(100, **theirs)

    assert (noted.kind, noted.severity, noted.subject, noted.theirs) == (DiscrepancyKind.BALANCE, "low", "DOGE", "1000")
    assert done == ReconcileCompleted(1, 0, flat=True)
    assert story.answer(110, **theirs) == [ReconcileCompleted(2, 0, flat=True)]


def test_a_position_in_what_we_do_not_follow_is_for_a_person():
    story = Story(begun=False)
    theirs = {"positions": {"SOL": "3"}, "entries": {"SOL": "100"}}

    assert story.answer(100, **theirs) == []
    said = story.answer(105, **theirs)
    assert discrepancies(said) == [(DiscrepancyKind.MISSING_LOCAL, "SOL")]
    assert said[-1] == ReconcileCompleted(2, 1, flat=False)
    assert not any(isinstance(one, AdjustBooks) for one in story.answer(110, **theirs))


# --- corrections --------------------------------------------------------------------------------


def corrections(story, *, begin=100, after=105, **theirs):
    """What is corrected when two snapshots some seconds apart show the same; and that the next finds nothing."""
    assert not any(isinstance(one, AdjustBooks) for one in story.answer(begin, **theirs))
    said = story.answer(after, **theirs)
    made = adjusted(story, after, said)
    again = story.answer(after + 1, **theirs)
    assert not any(isinstance(one, Discrepancy | AdjustBooks) for one in again)
    assert again[-1].discrepancies == 0
    return made


def bought(story, quantity, price, *, strategy="a", second=0):
    """A fill in a contract, and the position it leads to."""
    side = Side.BUY if D(quantity) > 0 else Side.SELL
    trade = f"t{len(story.reconciler.state.told.newer)}"
    amount = abs(D(quantity))
    story.at(
        second,
        OrderFilled("o", strategy, PERP, trade, side, amount, D(price), D(0), "USDT", Liquidity.MAKER, None, "", 0),
    )
    held = story.reconciler.state.holdings.get(PERP, {}).get(strategy, D(0))
    story.at(second, position(held + D(quantity), strategy=strategy))


def test_a_difference_in_money_is_corrected_to_the_last_digit():
    story = Story()
    story.at(0, EquityChanged(D("10.1"), D("10.1"), marks_known=True))

    assert corrections(story, balances={"USDT": "10.000000000000000001"}) == [
        ("USDT", "", D("-0.099999999999999999")),
    ]


def test_what_is_missing_is_taken_from_who_holds_it_the_largest_first():
    story = Story()
    for strategy, quantity in (("a", "1"), ("b", "3"), ("", "2"), ("c", "-1")):
        bought(story, quantity, "100", strategy=strategy)

    assert corrections(story, positions={PERP: "1.5"}, entries={PERP: "100"}) == [
        (PERP, "b", D(-3)),
        (PERP, "a", D("-0.5")),
    ]


def test_what_is_too_much_is_the_reserves_at_what_makes_the_mean_the_venues():
    story = Story()
    bought(story, "1", "100")
    theirs = {"positions": {PERP: "3"}, "entries": {PERP: "110"}}
    story.answer(100, **theirs)
    said = story.answer(105, **theirs)

    assert adjusted(story, 105, said) == [(PERP, "", D(2))]
    assert [one.price for one in said if isinstance(one, AdjustBooks)] == [D(115)]
    assert story.reconciler.state.net[PERP].value == 330


def test_a_position_taken_over_is_not_flat_unless_it_was_there_before_us():
    story = Story()
    corrections(story, positions={PERP: "3"}, entries={PERP: "110"})
    assert story.answer(120, positions={PERP: "3"}, entries={PERP: "110"})[-1].flat is False
    corrections(story, begin=130, after=135)
    assert story.answer(140)[-1].flat is True

    opened = Story(begun=False)
    theirs = {"positions": {PERP: "3"}, "entries": {PERP: "110"}}
    adjusted(opened, 100, opened.answer(100, **theirs))
    assert opened.answer(110, **theirs)[-1].flat is True
    corrections(opened, begin=120, after=125, positions={PERP: "4"}, entries={PERP: "110"})
    assert opened.answer(130, positions={PERP: "4"}, entries={PERP: "110"})[-1].flat is False
    corrections(opened, begin=140, after=145, **theirs)
    assert opened.answer(150, **theirs)[-1].flat is True


def test_coins_are_corrected_without_being_paid_for():
    story = Story()
    story.at(0, position("1", SPOT, strategy=""))
    assert corrections(story, balances={"BTC": "0.4"}) == [(SPOT, "", D("-0.6"))]
    assert corrections(story, begin=110, after=115, balances={"BTC": "0.7000005"}) == [(SPOT, "", D("0.3000005"))]


def test_profit_realised_at_another_time_goes_from_the_position_into_cash():
    story = Story()
    story.at(0, EquityChanged(D(1000), D(1000), marks_known=True))
    for quantity, price in (("1", "100"), ("1", "110"), ("-1", "120")):
        bought(story, quantity, price)
    story.at(0, EquityChanged(D(1015), D(1015), marks_known=True))  # the venue sold before it bought: 20
    theirs = {"positions": {PERP: "1"}, "entries": {PERP: "110"}, "balances": {"USDT": "1020"}}
    story.answer(100, **theirs)
    said = story.answer(105, **theirs)

    (entry,) = (one for one in said if isinstance(one, AdjustBooks))
    assert (entry.instrument, entry.currency, entry.quantity) == (PERP, "USDT", D(5))
    assert discrepancies(said) == [(DiscrepancyKind.AVG_PRICE, PERP)]
    adjusted(story, 105, said)
    assert story.reconciler.state.net[PERP].value == 110
    assert story.answer(106, **theirs)[-1].discrepancies == 0


def test_money_is_corrected_once_positions_are():
    story = Story()
    story.at(0, EquityChanged(D(1000), D(1000), marks_known=True))
    bought(story, "1", "100")
    theirs = {"balances": {"USDT": "1007"}}
    story.answer(100, **theirs)

    assert adjusted(story, 105, story.answer(105, **theirs)) == [(PERP, "a", D(-1))]
    assert adjusted(story, 111, story.answer(111, **theirs)) == [("USDT", "", D(7))]


def test_a_difference_that_moves_is_said_but_not_corrected_until_it_stands():
    story = Story()
    story.at(0, EquityChanged(D(10), D(10), marks_known=True))
    story.answer(100, balances={"USDT": "11"})
    said = story.answer(105, balances={"USDT": "12"})
    assert discrepancies(said) == [(DiscrepancyKind.BALANCE, "USDT")]
    assert not any(isinstance(one, AdjustBooks) for one in said)

    assert adjusted(story, 110, story.answer(110, balances={"USDT": "12"})) == [("USDT", "", D(2))]


def test_a_correction_is_asked_for_once_while_it_is_on_its_way_and_has_the_name_of_what_it_corrects():
    story = Story()
    story.at(0, EquityChanged(D(10), D(10), marks_known=True))
    theirs = {"balances": {"USDT": "11"}}
    story.answer(100, **theirs)
    (asked,) = (one for one in story.answer(105, **theirs) if isinstance(one, AdjustBooks))
    for second in range(106, 110):
        assert not any(isinstance(one, AdjustBooks) for one in story.answer(second, **theirs))
    (again,) = (one for one in story.answer(111, **theirs) if isinstance(one, AdjustBooks))

    assert asked == again
    assert asked.adjustment_id == "BALANCE/USDT//10/11/1"


def test_nothing_is_concluded_from_what_a_fill_on_its_way_may_explain():
    story = Story(begun=False)
    story.answer(10)
    theirs = {
        "booked": [VenueEntry("t0", EntryKind.FILL, PERP, "USDT", D(0), 50 * SECOND)],
        "positions": {PERP: "1"},
        "entries": {PERP: "100"},
        "balances": {"USDT": "1"},
    }
    story.answer(100, **theirs)
    said = story.answer(105, **theirs)
    # Now it is certain that nobody will tell of it; what it did must show once more.
    assert discrepancies(said) == [(DiscrepancyKind.UNKNOWN_FILL, "t0")]
    story.answer(110, **theirs)
    said = story.answer(115, **theirs)
    assert discrepancies(said) == [(DiscrepancyKind.MISSING_LOCAL, PERP)]
    assert adjusted(story, 115, said) == [(PERP, "", D(1))]


def test_nothing_is_corrected_while_the_portfolio_is_behind():
    story = Story()
    story.at(0, EquityChanged(D(1000), D(1000), marks_known=True))
    story.at(0, filled(quantity="1"))
    theirs = {"positions": {PERP: "1"}, "entries": {PERP: "1"}, "balances": {"USDT": "999"}}
    for second in (100, 105, 110):
        assert not any(isinstance(one, AdjustBooks) for one in story.answer(second, **theirs))
    story.at(111, position("1"))
    story.at(111, EquityChanged(D(1000), D(1000), marks_known=True))

    assert adjusted(story, 120, story.answer(120, **theirs)) == [("USDT", "", D(-1))]


def test_orders_are_never_corrected():
    story = Story()
    story.at(0, OrderAccepted("ours", "a", PERP, "v"))
    story.answer(100, orders=[listed("theirs")])
    said = story.answer(105, orders=[listed("theirs")])

    assert sorted(discrepancies(said)) == [
        (DiscrepancyKind.MISSING_LOCAL, "theirs"),
        (DiscrepancyKind.MISSING_VENUE, "ours"),
    ]
    assert not any(isinstance(one, AdjustBooks) for one in said)


def test_nothing_is_corrected_where_it_is_not_wanted():
    story = Story(correct=False)
    story.at(0, EquityChanged(D(10), D(10), marks_known=True))
    for second in (100, 105, 110):
        assert not any(isinstance(one, AdjustBooks) for one in story.answer(second, balances={"USDT": "11"}))


def test_a_fill_nobody_told_is_said_once():
    story = Story(begun=False)
    story.answer(10)
    booked = [VenueEntry("x", EntryKind.FILL, PERP, "USDT", D("0.1"), 50 * SECOND)]
    story.answer(100, booked=booked)

    assert discrepancies(story.answer(105, booked=booked)) == [(DiscrepancyKind.UNKNOWN_FILL, "x")]
    assert story.answer(110, booked=booked) == [ReconcileCompleted(4, 0, flat=True)]


# --- after a restart ----------------------------------------------------------------------------


def test_what_the_broker_has_under_way_is_all_there_is():
    story = Story()
    for name in ("gone", "kept"):
        story.at(0, OrderSubmitted(name, "a", PERP, Side.BUY, Decimal(1)))
    restated = {
        "kept": RestatedOrder("a", PERP, D("-0.3"), D("0.7"), unknown=False),
        "new": RestatedOrder("b", PERP, D(1), D(0), unknown=True),
    }
    story.at(50, OrdersRestated(restated, ()))

    theirs = [listed("kept", filled="0.7"), listed("new")]
    assert story.answer(100, orders=theirs) == [ReconcileCompleted(1, 0, flat=False)]
    story.at(101, filled("kept", "0.3"))
    assert list(story.reconciler.state.orders) == ["new"]


def test_after_a_restart_nothing_is_said_to_agree_while_it_is_in_doubt():
    story = Story()
    story.at(50, OrdersRestated({}, ()))
    story.at(100, Wake())
    assert story.at(100, snapshot(1, at=100, positions={PERP: "1"})) == []
    assert story.next == 105
    assert story.answer(105) == [ReconcileCompleted(2, 0, flat=True)]


def test_what_agreed_until_when_is_known():
    story = Story()
    assert story.reconciler.state.ts_agreed == 0
    story.answer(100)
    story.answer(200, positions={PERP: "1"})

    assert story.reconciler.state.ts_agreed == 95 * SECOND


def test_it_asks_when_it_is_due_but_not_ten_times_a_second():
    story = Story()
    assert story.at(100, ReconcileDue("away")) == [SnapshotAccount(1)]
    assert story.at(100.5, ReconcileDue("away")) == []
    assert story.next == 101


def test_an_amended_order_ends_when_all_of_its_new_quantity_has_filled():
    story = Story()
    story.at(0, OrderSubmitted("o", "a", PERP, Side.BUY, Decimal(1)))
    story.at(0, OrderAmended("o", "a", PERP, D("1.5"), None))
    story.at(0, filled(quantity="1"))
    assert list(story.reconciler.state.orders) == ["o"]
    story.at(0, filled(quantity="0.5", trade="u"))
    assert not story.reconciler.state.orders


# --- flatness -----------------------------------------------------------------------------------


def test_flat_is_said_of_an_account_asked_about_afterwards():
    story = Story()
    story.at(100, Wake())
    assert story.at(101, VerifyFlat()) == [SnapshotAccount(2)]
    assert story.at(102, snapshot(1, at=100)) == [ReconcileCompleted(1, 0, flat=False)]
    assert story.at(103, snapshot(2, at=101)) == [ReconcileCompleted(2, 0, flat=True)]


def test_a_failed_query_is_never_flat():
    story = Story()
    story.at(101, VerifyFlat())

    assert story.at(102, snapshot(1, at=102, complete=False)) == []
    assert story.next == 107
    assert story.at(107, Wake()) == [SnapshotAccount(2)]
    assert story.at(108, snapshot(2, at=108)) == [ReconcileCompleted(2, 0, flat=True)]


def test_coins_of_the_reserve_are_no_position():
    story = Story()
    story.at(0, position("2", SPOT, strategy=""))

    assert story.answer(100, balances={"BTC": "2"}) == [ReconcileCompleted(1, 0, flat=True)]


def test_the_contract_and_the_state_can_be_read():
    assert says(Reconciler) == {SnapshotAccount, Discrepancy, AdjustBooks, ReconcileCompleted}
    assert {VerifyFlat, Wake, PositionChanged} < takes(Reconciler)
    story = Story()
    story.at(0, OrderAccepted("o", "a", PERP, "v"))
    story.answer(100, positions={PERP: "1"})
    state = story.reconciler.state
    assert msgspec.json.decode(msgspec.json.encode(state), type=ReconcilerState) == state
