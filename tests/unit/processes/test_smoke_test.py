from decimal import Decimal

import pytest

from hean.codec import decoded, encoded
from hean.instruments import Instrument
from hean.messages import (
    AmendOrder,
    CancelOrder,
    CancelProcess,
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    ProcessFinished,
    Side,
    SignalRefused,
    SubmitOrder,
    TimeInForce,
    Wake,
)
from hean.processes.smoke_test import CALLS_BACK, SmokeTest, SmokeTestConfig, SmokeTestState, smallest
from hean.units import MILLISECOND, SECOND

D = Decimal
PERP = "BTCUSDT-LINEAR.BYBIT"
RULES = Instrument(
    id=PERP,
    base="BTC",
    quote="USDT",
    tick=D("0.1"),
    step=D("0.001"),
    min_quantity=D("0.001"),
    max_limit_quantity=D(1000),
    max_market_quantity=D(100),
    min_notional=D(100),
    max_leverage=D(100),
    funding_interval_h=8,
)
ID = "smoke-abc-2"
OF = (ID, "smoke", PERP)


class Stage:
    def __init__(self, **more):
        config = {"run_id": "r/probe/2", "order_id": ID, "earlier": ("smoke-abc-1",), "reference": D("60000.1")}
        self.test = SmokeTest(SmokeTestConfig(**(config | more)), RULES)
        self.now = 10_000 * SECOND
        self.said = []

    def tell(self, message, later_ms=0):
        self.now += later_ms * MILLISECOND
        self.said = list(self.test.handle(message, self.now))
        # As a crash and a successor would have it.
        self.test.state = decoded(SmokeTestState, encoded(self.test.state))
        return self

    def hears(self, *messages):
        for message in messages:
            self.tell(message, 5)
        return self

    @property
    def kinds(self):
        return [type(one) for one in self.said]

    @property
    def outcome(self):
        return next(one for one in self.said if isinstance(one, ProcessFinished))


SUBMITTED = OrderSubmitted(*OF, Side.BUY, D("0.002"))
ACCEPTED = OrderAccepted(*OF, "v1")
AMENDED = OrderAmended(*OF, None, D("53999"))
CANCELED = OrderCanceled(*OF, "asked for")


def fill(quantity):
    return OrderFilled(*OF, "t1", Side.BUY, D(quantity), D(54_000), D(0), "USDT", Liquidity.MAKER, None, "", 1)


def test_it_sends_the_least_there_is_far_below_the_market_once_it_is_woken():
    stage = Stage()
    assert stage.test.wake_at() == 0
    stage.tell(Wake())
    earlier, order = stage.said
    assert earlier == CancelOrder("smoke", "smoke-abc-1", PERP)
    assert order == SubmitOrder(
        ID, "smoke", PERP, Side.BUY, D("0.002"), D("54000.0"), TimeInForce.POST_ONLY, False, D("60000.1"), None
    )
    # It may not be closer than risk lets a probe be, nor smaller than the venue takes, before and after it is amended.
    assert order.limit <= D("0.95") * D("60000.1")
    assert D("53999.0") * order.quantity >= RULES.min_notional


def test_there_and_back_is_a_success_with_a_report_of_each_stage():
    stage = Stage().hears(Wake(), SUBMITTED, ACCEPTED)
    assert stage.said == [AmendOrder("smoke", ID, PERP, None, D("53999.0"))]
    stage.hears(AMENDED)
    assert stage.said == [CancelOrder("smoke", ID, PERP)]
    stage.hears(CANCELED)
    assert stage.outcome == ProcessFinished(
        "r/probe/2",
        "completed",
        {
            "rules": "tick 0.1, step 0.001, at least 100",
            "sent": "after 5.0 ms, 0.002 at 54000.0, the market at 60000.1",
            "acknowledged": "after 10.0 ms",
            "amended": "after 5.0 ms, to 53999.0",
            "canceled": "after 5.0 ms, asked for",
        },
    )
    assert stage.test.wake_at() is None


def test_where_the_venue_takes_no_amendment_that_stage_is_left_out_and_said_to_be():
    stage = Stage(amends=False).hears(Wake(), ACCEPTED)
    assert stage.kinds == [CancelOrder]
    report = stage.hears(CANCELED).outcome.report
    assert report["amended"].startswith("left out")


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        ([OrderRejected(*OF, "no money")], "the venue rejected the order: no money"),
        ([SignalRefused("smoke", PERP, "TRADING_STATE", "HALTED", "ACTIVE")], "risk refused: TRADING_STATE, HALTED"),
        ([ACCEPTED, OrderCanceled(*OF, "venue")], "the order ended by itself: venue"),
        ([ACCEPTED, AMENDED, OrderExpired(*OF, "post-only")], "the order ended by itself: post-only"),
        ([ACCEPTED, fill("0.002")], "0.002 traded at 54000: close that by hand"),
        ([CancelProcess("r/probe/2", "ann", "enough"), CANCELED], "ended by ann: enough"),
        ([ACCEPTED, SignalRefused("smoke", PERP, "X", "1", "2"), CANCELED], "risk refused: X, 1 against 2"),
    ],
)
def test_whatever_goes_wrong_is_said_and_ends_it(heard, reason):
    stage = Stage().hears(Wake(), *heard)
    assert stage.outcome.outcome.startswith(f"failed: {reason}")
    assert stage.test.wake_at() is None


@pytest.mark.parametrize(
    ("heard", "waited_for"),
    [([], "acknowledgement"), ([ACCEPTED], "amendment"), ([OrderOutcomeUnknown(*OF, "silence")], "acknowledgement")],
)
def test_after_its_patience_it_calls_the_order_back_and_says_what_never_came(heard, waited_for):
    stage = Stage(patience_s=2.0).hears(Wake(), *heard)
    assert stage.tell(Wake(), 1_000).said == []  # not yet
    assert stage.tell(Wake(), 1_000).kinds == [CancelOrder]
    stage.hears(CANCELED)
    assert stage.outcome.outcome == f"failed: no {waited_for} within 2 s"


def test_an_order_that_will_not_go_is_called_back_some_times_and_then_named():
    stage = Stage(patience_s=1.0).hears(Wake(), ACCEPTED, AMENDED)
    for _ in range(CALLS_BACK - 1):
        assert stage.tell(Wake(), 1_000).kinds == [CancelOrder]
    assert stage.tell(Wake(), 1_000).outcome.outcome == (
        f"failed: no cancellation within 1 s; order {ID} may be left open"
    )


def test_a_part_that_trades_is_a_failure_and_the_rest_is_called_back():
    stage = Stage().hears(Wake(), ACCEPTED, fill("0.001"))
    assert stage.kinds == [CancelOrder]
    assert stage.hears(CANCELED).outcome.outcome == "failed: 0.001 traded at 54000: close that by hand"


def test_it_minds_its_own_order_alone_and_nothing_once_it_is_over():
    stage = Stage().hears(Wake())
    other = OrderRejected("smoke-abc-1", "smoke", PERP, "unknown")
    assert stage.hears(other, CancelProcess("another", "ann", "x")).said == []
    assert stage.test.wake_at() is not None
    stage.hears(ACCEPTED, AMENDED, CANCELED)
    assert stage.hears(ACCEPTED, CANCELED, Wake()).said == []


def test_a_refusal_before_it_has_sent_anything_is_about_another():
    stage = Stage().hears(SignalRefused("smoke", PERP, "X", "1", "2"))
    assert stage.said == []
    assert stage.hears(Wake()).kinds == [CancelOrder, SubmitOrder]


def test_before_it_has_sent_anything_it_ends_without_sending():
    stage = Stage().hears(CancelProcess("r/probe/2", "ann", "enough"))
    assert stage.kinds == [ProcessFinished]


@pytest.mark.parametrize(
    ("price", "expected"), [("54000", "0.002"), ("100000", "0.001"), ("99999.9", "0.002"), ("1", "100.000")]
)
def test_the_smallest_order_is_worth_the_least_that_is_taken(price, expected):
    quantity = smallest(RULES, D(price))
    assert quantity == D(expected)
    assert quantity * D(price) >= RULES.min_notional
    assert quantity % RULES.step == 0


@pytest.mark.parametrize("distance", ["0.04", "0.6"])
def test_it_may_not_come_near_the_market(distance):
    with pytest.raises(ValueError, match="distance"):
        Stage(distance=D(distance))
