"""The life of an order, cell by cell."""

import pytest

from hean.errors import ContractError
from hean.execution.orders import AFTER, TERMINAL, Order, OrderStatus, remember
from hean.messages import (
    Liquidity,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    Side,
    TimeInForce,
)
from tests.unit.execution.market import PERP, D

COLUMNS = ("Submitted", "Accepted", "Filled", "Rejected", "OutcomeUnknown", "Amended", "Canceled", "Expired")
TABLE = """
NEW        SUBMITTED  -         -         -         -         -         -         -
SUBMITTED  -          OPEN      OPEN      REJECTED  UNKNOWN   OPEN      CANCELED  EXPIRED
UNKNOWN    -          OPEN      OPEN      REJECTED  UNKNOWN   OPEN      CANCELED  EXPIRED
OPEN       -          OPEN      OPEN      -         OPEN      OPEN      CANCELED  EXPIRED
FILLED     -          FILLED    -         -         -         -         FILLED    -
CANCELED   -          -         CANCELED  -         -         -         -         -
REJECTED   -          -         -         -         -         -         -         -
EXPIRED    -          -         EXPIRED   -         -         -         -         -
"""
CELLS = [
    (row.split()[0], column, after)
    for row in TABLE.strip().splitlines()
    for column, after in zip(COLUMNS, row.split()[1:], strict=True)
]


def facts(quantity="1"):
    who = ("o", "a", PERP)
    fill = OrderFilled(*who, "t", Side.BUY, D(quantity), D(1), D(0), "USDT", Liquidity.MAKER, None, "", 1)
    return {
        "Submitted": OrderSubmitted(*who, Side.BUY, D(3)),
        "Accepted": OrderAccepted(*who, "v"),
        "Filled": fill,
        "Rejected": OrderRejected(*who, "no"),
        "OutcomeUnknown": OrderOutcomeUnknown(*who, "timeout"),
        "Amended": OrderAmended(*who, D(2), None),
        "Canceled": OrderCanceled(*who, "by us"),
        "Expired": OrderExpired(*who, "IOC"),
    }


def an_order(status, filled="0"):
    return Order("o", "a", PERP, Side.BUY, D(3), D(1), TimeInForce.GTC, D(1), OrderStatus(status), D(filled))


@pytest.mark.parametrize(("before", "fact", "after"), CELLS)
def test_every_cell(before, fact, after):
    order = an_order(before)
    if after == "-":
        with pytest.raises(ContractError, match=f"which is {before}"):
            order.apply(facts()[fact])
    else:
        order.apply(facts()[fact])
        assert order.status == after


def test_the_table_has_no_other_cells():
    assert sum(len(row) for row in AFTER.values()) == sum(after != "-" for *_, after in CELLS)
    assert set(AFTER) == set(OrderStatus)


@pytest.mark.parametrize("status", ["SUBMITTED", "UNKNOWN", "OPEN", "CANCELED", "EXPIRED"])
def test_an_order_is_filled_when_its_fills_add_up(status):
    order = an_order(status, filled="1")
    order.apply(facts("2")["Filled"])

    assert order.status == "FILLED"
    assert order.over


def test_more_fills_than_were_asked_for_are_nobodys_books():
    with pytest.raises(ContractError, match="too many"):
        an_order("OPEN", filled="2.5").apply(facts()["Filled"])


@pytest.mark.parametrize(
    ("filled", "quantity", "status"),
    [("1", "2", "OPEN"), ("1", "1", "FILLED"), ("1", "0.5", "FILLED"), ("1", None, "OPEN")],
)
def test_an_order_amended_to_what_has_filled_is_filled(filled, quantity, status):
    order = an_order("OPEN", filled=filled)
    order.apply(OrderAmended("o", "a", PERP, quantity and D(quantity), D(9)))

    assert (order.status, order.limit) == (status, D(9))
    assert order.quantity == D(quantity or 3)


def test_a_fill_from_before_an_amendment_is_not_too_many():
    order = an_order("OPEN", filled="1")
    order.apply(OrderAmended("o", "a", PERP, D("1.5"), None))
    order.apply(facts("1")["Filled"])

    assert order.status == "FILLED"
    with pytest.raises(ContractError, match="too many"):
        an_order("OPEN", filled="2.5").apply(facts()["Filled"])


def test_over_is_what_no_acknowledgement_follows():
    assert {status for status in OrderStatus if an_order(status).over} == TERMINAL


def test_the_newest_are_remembered():
    memory = {}
    for number in range(100):
        remember(memory, str(number), number, 10)
        assert list(memory)[-10:] == [str(n) for n in range(max(0, number - 9), number + 1)]
        assert len(memory) <= 20
