from decimal import Decimal

import msgspec
import pytest

from hean.component import says, takes
from hean.errors import ConfigError
from hean.messages import (
    Discrepancy,
    DiscrepancyKind,
    Liquidity,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PositionChanged,
    ReconcileCompleted,
    Side,
    SnapshotAccount,
    VerifyFlat,
    Wake,
)
from hean.reconcile.reconciler import Reconciler, ReconcilerConfig, ReconcilerState
from tests.unit.reconcile.account import INSTRUMENTS, PERP, SECOND, SPOT, D, listed, snapshot


class Story:
    """A reconciler, told things at seconds; each snapshot answers the last request."""

    def __init__(self, **config):
        self.reconciler = Reconciler(ReconcilerConfig(**config), INSTRUMENTS)

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


def filled(name="o", quantity="0.4"):
    return OrderFilled(name, "a", PERP, "t", Side.BUY, D(quantity), D(1), D(0), "USDT", Liquidity.MAKER, None, "", 0)


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
    story.answer(100, positions={PERP: "-1"})

    assert discrepancies(story.answer(105, positions={PERP: "-1"})) == [(DiscrepancyKind.LEG_IMBALANCE, PERP)]
    with pytest.raises(ConfigError, match="SOL"):
        Story(pairs=((SPOT, "SOL"),))


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
    assert says(Reconciler) == {SnapshotAccount, Discrepancy, ReconcileCompleted}
    assert {VerifyFlat, Wake, PositionChanged} < takes(Reconciler)
    story = Story()
    story.at(0, OrderAccepted("o", "a", PERP, "v"))
    story.answer(100, positions={PERP: "1"})
    state = story.reconciler.state
    assert msgspec.json.decode(msgspec.json.encode(state), type=ReconcilerState) == state
