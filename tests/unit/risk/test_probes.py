"""Orders of processes: risk lets through what cannot matter."""

from decimal import Decimal

import pytest

from hean.messages import (
    AmendOrder,
    CancelOrder,
    EpochBegan,
    OrderAmended,
    OrderBracket,
    OrderCanceled,
    OrdersRestated,
    PullKillSwitch,
    RestatedOrder,
    Side,
    StopTrading,
    SubmitOrder,
    TimeInForce,
)
from tests.unit.risk.story import PERP, SPOT, Told, rules

D = Decimal


def probe(
    order_id="smoke-1", *, name=PERP, strategy="smoke", side=Side.BUY, quantity="0.001", limit="45000", **changes
):
    fields = {
        "client_order_id": order_id,
        "strategy": strategy,
        "instrument": name,
        "side": side,
        "quantity": D(quantity),
        "limit": None if limit is None else D(limit),
        "time_in_force": TimeInForce.POST_ONLY,
        "reduce_only": False,
        "reference": None,
        "bracket": None,
    }
    return SubmitOrder(**(fields | changes))


def seen():
    """A manager that has heard a price of 50,000, and waits to be started."""
    told = Told()
    told.want(1.0)
    told.say(EpochBegan(1), OrdersRestated({}, ()))
    return told


def slot(told, strategy="smoke", name=PERP):
    return told.manager.state.slots[strategy][name]


@pytest.mark.parametrize("side", list(Side))
def test_a_small_order_that_rests_far_away_goes_through_before_trading_is_started(side):
    order = probe(side=side, limit="45000" if side is Side.BUY else "55000")
    told = seen()

    assert told.say(order) == [order]
    assert slot(told).orders == 1
    assert slot(told).target == side * D("0.001")
    assert slot(told).value == D("0.001") * order.limit
    told.say(OrderCanceled("smoke-1", "smoke", PERP, "by us"))
    assert not slot(told).pending
    assert slot(told).value == 0


@pytest.mark.parametrize(
    ("order", "rule"),
    [
        (probe(strategy="impulse", order_id="impulse-1"), "NOT_A_PROBE"),
        (probe(strategy=""), "NOT_A_PROBE"),
        (probe(order_id="r11-impulse-1"), "NOT_A_PROBE"),
        (probe(order_id="smoke-" + "1" * 31), "NOT_A_PROBE"),
        (probe(order_id="smoke-ü"), "NOT_A_PROBE"),
        (probe(limit=None), "NOT_A_PROBE"),
        (probe(time_in_force=TimeInForce.GTC), "NOT_A_PROBE"),
        (probe(reduce_only=True), "NOT_A_PROBE"),
        (probe(bracket=OrderBracket(D(1), None)), "NOT_A_PROBE"),
        (probe(quantity="0"), "NOT_A_PROBE"),
        (probe(limit="-1"), "NOT_A_PROBE"),
        (probe(name="XRPUSDT-LINEAR.BYBIT"), "UNKNOWN_INSTRUMENT"),
        (probe(quantity="0.003"), None),
        (probe(quantity="0.004"), "PROBE_NOTIONAL"),
        (probe(name=SPOT, quantity="0.0004", limit="37500"), None),
        (probe(name=SPOT, quantity="0.000401", limit="37500"), "PROBE_NOTIONAL"),
        (probe(limit="47500"), None),
        (probe(limit="47500.1"), "PROBE_PRICE"),
        (probe(limit="55000"), "PROBE_PRICE"),
        (probe(side=Side.SELL, limit="52500"), None),
        (probe(side=Side.SELL, limit="52499.9"), "PROBE_PRICE"),
        (probe(side=Side.SELL, limit="45000"), "PROBE_PRICE"),
        (probe(name=SPOT, quantity="0.0001", limit="60000"), None),
    ],
)
def test_what_might_matter_is_refused(order, rule):
    said = seen().say(order)

    assert rules(said) == ([] if rule is None else [rule])
    if rule is None:
        assert said == [order]
    else:
        assert (said[0].strategy, said[0].instrument) == (order.strategy, order.instrument)


def test_an_id_is_used_once_and_only_so_many_rest_at_once():
    told = seen()
    told.say(probe("smoke-1"))

    assert rules(told.say(probe("smoke-1"))) == ["NOT_A_PROBE"]
    assert rules(told.say(probe("smoke-2"), probe("smoke-3"), probe("smoke-4"))) == ["PROBE_COUNT"]
    told.say(OrderCanceled("smoke-1", "smoke", PERP, "by us"))
    assert rules(told.say(probe("smoke-4"))) == []


def test_orders_of_processes_count_to_the_rate_of_orders():
    told = Told(orders_per_minute=1)

    assert rules(told.say(probe("smoke-1"), probe("smoke-2"))) == ["ORDER_RATE"]
    assert rules(told.say(probe("smoke-2"), after=60)) == []


@pytest.mark.parametrize("closing", [PullKillSwitch("ada", "look"), StopTrading(flatten=True)])
def test_nothing_is_tried_out_while_everything_is_closed(closing):
    told = Told(reconciler=True)
    told.say(closing)

    assert rules(told.say(probe())) == ["TRADING_STATE"]


@pytest.mark.parametrize(
    ("quantity", "limit", "rule"),
    [
        (None, "44000", None),
        ("0.002", None, None),
        ("0.002", "44000", None),
        (None, "48000", "PROBE_PRICE"),
        (None, "0", "PROBE_PRICE"),
        ("0.004", None, "PROBE_NOTIONAL"),
        ("0", None, "PROBE_NOTIONAL"),
    ],
)
def test_an_order_may_be_changed_to_less_and_to_no_nearer(quantity, limit, rule):
    told = seen()
    told.say(probe(quantity="0.003"))
    amend = AmendOrder("smoke", "smoke-1", PERP, quantity and D(quantity), limit and D(limit))

    said = told.say(amend)

    assert rules(said) == ([] if rule is None else [rule])
    assert (said == [amend]) is (rule is None)


def test_nobody_changes_an_order_that_is_not_a_process_own():
    told = Told()
    (order,) = told.want(1.0)
    told.say(probe("smoke-1"))
    amends = [
        AmendOrder("impulse", order.client_order_id, PERP, D("0.001"), None),
        AmendOrder("scan", "smoke-1", PERP, None, D(40_000)),
        AmendOrder("smoke", "smoke-7", PERP, None, D(40_000)),
    ]

    assert rules(told.say(*amends)) == ["NOT_A_PROBE"] * 3


def test_what_is_amended_to_less_counts_as_less_and_ends_when_that_has_traded():
    told = seen()
    order = probe(quantity="0.003")
    told.say(order)
    told.say(OrderAmended("smoke-1", "smoke", PERP, D("0.002"), None))
    assert slot(told).target == D("0.002")
    told.fill(order, "0.001", price="45000")
    assert slot(told).pending

    told.say(OrderAmended("smoke-1", "smoke", PERP, D("0.001"), None))

    assert not slot(told).pending
    assert slot(told).target == slot(told).held == D("0.001")


def test_a_cancel_always_goes_through():
    cancel = CancelOrder("smoke", "smoke-1", PERP)

    assert seen().say(cancel) == [cancel]


def test_an_order_of_a_process_is_counted_again_after_a_restart():
    told = seen()
    told.say(probe())
    told.say(EpochBegan(2), OrdersRestated({"smoke-1": RestatedOrder("smoke", PERP, D("0.001"), D(0), False)}, ()))
    assert slot(told).orders == 1

    told.say(EpochBegan(3), OrdersRestated({}, ()))
    assert not slot(told).pending
