"""Orders as request arguments, and what each return code means for what was asked."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.bybit.encode import (
    Action,
    Meaning,
    Verdict,
    amend_request,
    cancel_all_request,
    cancel_request,
    meaning_of,
    order_request,
    outcome_of,
)
from hean.errors import ContractError
from hean.instruments import Category
from hean.messages import AmendOrder, CancelOrder, OrderBracket, Side, SubmitOrder, TimeInForce

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"


def order(instrument=PERP, limit="60000.10", tif=TimeInForce.GTC, *, reduce_only=False, bracket=None, **changes):
    fields = {
        "client_order_id": "harvest-7",
        "strategy": "s",
        "side": Side.SELL,
        "quantity": Decimal("0.010"),
    } | changes
    return SubmitOrder(
        instrument=instrument,
        limit=None if limit is None else Decimal(limit),
        time_in_force=tif,
        reduce_only=reduce_only,
        reference=None,
        bracket=bracket,
        **fields,
    )


NAMED = {"symbol": "BTCUSDT", "orderLinkId": "harvest-7", "side": "Sell", "qty": "0.010"}
LIMITED = {"orderType": "Limit", "price": "60000.10"}


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        (order(), {"category": "linear", "timeInForce": "GTC", "positionIdx": 0} | LIMITED),
        (
            order(tif=TimeInForce.POST_ONLY, reduce_only=True),
            {"category": "linear", "timeInForce": "PostOnly", "positionIdx": 0, "reduceOnly": True} | LIMITED,
        ),
        (order(limit=None), {"category": "linear", "orderType": "Market", "positionIdx": 0}),
        (order(SPOT, tif=TimeInForce.IOC), {"category": "spot", "timeInForce": "IOC"} | LIMITED),
        # Of a market buy on spot the quantity would else be an amount of quote currency; reduce-only it does not know.
        (order(SPOT, None, reduce_only=True), {"category": "spot", "orderType": "Market", "marketUnit": "baseCoin"}),
        (
            order(bracket=OrderBracket(Decimal(61000), Decimal("5.9E+4"))),
            {"category": "linear", "timeInForce": "GTC", "positionIdx": 0, "tpslMode": "Partial"}
            | LIMITED
            | {"stopLoss": "61000", "slOrderType": "Market", "takeProfit": "59000", "tpOrderType": "Market"},
        ),
    ],
    ids=["limit", "post-only, reducing", "market", "spot", "spot at market", "bracket"],
)
def test_an_order_as_arguments(asked, arguments):
    assert order_request(asked) == NAMED | arguments


@given(st.decimals(min_value="1e-12", max_value="1e12", allow_nan=False))
def test_numbers_leave_in_plain_notation_and_exact(quantity):
    sent = order_request(order(quantity=quantity))["qty"]
    assert "e" not in sent.lower()
    assert Decimal(sent) == quantity


@pytest.mark.parametrize(
    "wrong",
    [
        order(client_order_id=""),
        order(client_order_id="a" * 37),
        order(client_order_id="with space"),
        order(client_order_id="ends-in-a-newline\n"),
        order(quantity=Decimal(0)),
        order(quantity=Decimal("NaN")),
        order(limit="-1"),
        order(limit=None, tif=TimeInForce.POST_ONLY),
    ],
)
def test_what_cannot_be_an_order_never_leaves(wrong):
    with pytest.raises(ContractError):
        order_request(wrong)


def test_amendments_cancels_and_the_cancel_of_all():
    which = {"category": "linear", "symbol": "BTCUSDT", "orderLinkId": "x-1"}
    assert amend_request(AmendOrder("drill", "x-1", PERP, Decimal("0.02"), None)) == which | {"qty": "0.02"}
    assert amend_request(AmendOrder("drill", "x-1", PERP, None, Decimal(5))) == which | {"price": "5"}
    with pytest.raises(ContractError, match="nothing"):
        amend_request(AmendOrder("drill", "x-1", PERP, None, None))
    assert cancel_request(CancelOrder("s", "x-1", PERP)) == which
    # Protective stops are of another filter, and stay.
    assert cancel_all_request(Category.LINEAR) == {"category": "linear", "orderFilter": "Order", "settleCoin": "USDT"}
    assert cancel_all_request(Category.SPOT) == {"category": "spot", "orderFilter": "Order"}


C, A, X, S = Action.CREATE, Action.AMEND, Action.CANCEL, Action.SET


@pytest.mark.parametrize(
    ("code", "actions", "meaning"),
    [
        (0, (C, A, X, S), Meaning.DONE),
        # The venue's word that nothing was done, and why: parameters, time, keys, rights, margin, bands, limits.
        (10001, (C, A, X, S), Meaning.REFUSED),
        (10002, (C, A, X), Meaning.REFUSED),
        (10003, (C, X), Meaning.REFUSED),
        (10004, (C,), Meaning.REFUSED),
        (10005, (C,), Meaning.REFUSED),
        (10010, (C,), Meaning.REFUSED),
        (10404, (C,), Meaning.REFUSED),
        (110003, (C, A), Meaning.REFUSED),
        (110007, (C, A), Meaning.REFUSED),
        (110017, (C,), Meaning.REFUSED),
        (110023, (C,), Meaning.REFUSED),
        (110064, (A,), Meaning.REFUSED),
        (110094, (C,), Meaning.REFUSED),
        (170131, (C,), Meaning.REFUSED),
        (170140, (C,), Meaning.REFUSED),
        (30208, (C,), Meaning.REFUSED),
        (3400045, (S,), Meaning.REFUSED),
        # Turned away at the door: nothing was done, and later it may be.
        (10006, (C, A, X, S), Meaning.BUSY),
        (10018, (C, A, X), Meaning.BUSY),
        # The engine failed, or was restarting, with the request in its hands; or the door says no more than "crowded".
        (10000, (C, A, X), Meaning.UNKNOWN),
        (10016, (C, A, X), Meaning.UNKNOWN),
        (10019, (C, A, X), Meaning.UNKNOWN),
        (10429, (C, A, X), Meaning.UNKNOWN),
        (429, (C, A, X), Meaning.UNKNOWN),
        (170001, (C, A, X), Meaning.UNKNOWN),
        (170007, (C, A, X), Meaning.UNKNOWN),
        (170032, (C, A, X), Meaning.UNKNOWN),
        (170146, (C,), Meaning.UNKNOWN),
        (170147, (X,), Meaning.UNKNOWN),
        # So it was already.
        (110043, (S,), Meaning.DONE),
        (110025, (S,), Meaning.DONE),
        (110026, (S,), Meaning.DONE),
        (34040, (S, A), Meaning.DONE),
        # Sent before, or no such order: the order itself has to be asked for.
        (110072, (C,), Meaning.LOOK_UP),
        (170141, (C,), Meaning.LOOK_UP),
        (110030, (C,), Meaning.LOOK_UP),
        (10014, (C, A, X), Meaning.LOOK_UP),
        (20006, (C, A, X), Meaning.LOOK_UP),
        (110001, (A, X), Meaning.LOOK_UP),
        (170213, (A, X), Meaning.LOOK_UP),
        (110008, (X,), Meaning.LOOK_UP),
        (110010, (X,), Meaning.LOOK_UP),
        (170139, (X,), Meaning.LOOK_UP),
        (170142, (X,), Meaning.LOOK_UP),
        # Nobody has seen these: then nothing is known.
        (1, (C, X), Meaning.UNKNOWN),
        (99999999, (C, X), Meaning.UNKNOWN),
        (-1, (C, X), Meaning.UNKNOWN),
        ("0", (C,), Meaning.UNKNOWN),
        (None, (C, X), Meaning.UNKNOWN),
        (True, (C,), Meaning.UNKNOWN),
        (0.0, (C,), Meaning.UNKNOWN),
    ],
)
def test_what_a_code_means(code, actions, meaning):
    assert {meaning_of(code, action) for action in actions} == {meaning}


@given(st.integers(-10, 4_000_000), st.sampled_from(Action))
def test_no_code_but_nought_makes_an_order(code, action):
    accepted = outcome_of(code, "", action).verdict is Verdict.ACCEPTED
    if action is Action.CREATE:
        assert accepted is (code == 0)


@pytest.mark.parametrize(
    ("code", "action", "verdict", "busy", "look_up"),
    [
        (0, C, Verdict.ACCEPTED, False, False),
        (110007, C, Verdict.REFUSED, False, False),
        (10006, C, Verdict.REFUSED, True, False),
        (110072, C, Verdict.UNKNOWN, False, True),
        (10016, C, Verdict.UNKNOWN, False, False),
        (110001, X, Verdict.UNKNOWN, False, True),
        (None, C, Verdict.UNKNOWN, False, False),
    ],
)
def test_three_outcomes(code, action, verdict, busy, look_up):
    outcome = outcome_of(code, "said so", action, {"orderId": "o-1"})
    assert (outcome.verdict, outcome.busy, outcome.look_up) == (verdict, busy, look_up)
    assert outcome.venue_order_id == ("o-1" if code == 0 else "")
