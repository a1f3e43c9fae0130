import pytest

from hean.messages import DiscrepancyKind, Severity
from hean.reconcile.diff import OwnOrder, Pair, differences, is_flat
from tests.unit.reconcile.account import INSTRUMENTS, PERP, SPOT, D, listed, snapshot

KIND = DiscrepancyKind
OTHER = "SOLUSDT-LINEAR.BYBIT"


def own(filled="0"):
    return OwnOrder(PERP, D(filled), 0)


@pytest.mark.parametrize(
    ("orders", "holdings", "theirs", "found"),
    [
        ({}, {}, {}, []),
        ({"o": own()}, {}, {"orders": [listed("o")]}, []),
        ({}, {}, {"orders": [listed("o")]}, [(KIND.MISSING_LOCAL, Severity.HIGH, "o")]),
        ({}, {}, {"orders": [listed("")]}, [(KIND.MISSING_LOCAL, Severity.HIGH, PERP)]),
        ({"o": own()}, {}, {}, [(KIND.MISSING_VENUE, Severity.LOW, "o")]),
        ({"o": own("0.4")}, {}, {}, []),
        ({"o": own("0.4")}, {}, {"orders": [listed("o", filled="0.5")]}, [(KIND.QUANTITY, Severity.HIGH, "o")]),
        ({}, {PERP: D(1)}, {"positions": {PERP: "1"}}, []),
        ({}, {PERP: D(1)}, {"positions": {PERP: "1.0009"}}, []),
        ({}, {PERP: D(1)}, {"positions": {PERP: "1.001"}}, [(KIND.QUANTITY, Severity.HIGH, PERP)]),
        ({}, {PERP: D(1)}, {"positions": {PERP: "-1"}}, [(KIND.QUANTITY, Severity.HIGH, PERP)]),
        ({}, {PERP: D(1)}, {}, [(KIND.MISSING_VENUE, Severity.HIGH, PERP)]),
        ({}, {}, {"positions": {PERP: "1"}}, [(KIND.MISSING_LOCAL, Severity.HIGH, PERP)]),
        ({}, {}, {"positions": {OTHER: "0.00001"}}, [(KIND.MISSING_LOCAL, Severity.HIGH, OTHER)]),
        ({}, {PERP: D(0)}, {"positions": {PERP: "0"}}, []),
        ({}, {SPOT: D(1)}, {"balances": {"BTC": "1.0000009", "USDT": "5"}}, []),
        ({}, {SPOT: D(1)}, {"balances": {"BTC": "1.000001"}}, [(KIND.BALANCE, Severity.HIGH, "BTC")]),
        ({}, {SPOT: D(1)}, {}, [(KIND.BALANCE, Severity.HIGH, "BTC")]),
    ],
    ids=[
        "nothing",
        "the same order",
        "an order we do not know",
        "an order that is not ours",
        "an order the venue does not know",
        "a filled order that is gone",
        "a fill we have not heard of",
        "the same position",
        "less than a step",
        "a step",
        "the other side",
        "a position we alone have",
        "a position the venue alone has",
        "an instrument without rules",
        "flat",
        "dust",
        "a coin",
        "no coin",
    ],
)
def test_every_kind_of_difference(orders, holdings, theirs, found):
    seen = differences(orders, holdings, snapshot(**theirs), INSTRUMENTS)

    assert [(one.kind, one.severity, one.subject) for one in seen] == found


@pytest.mark.parametrize(
    ("spot", "perp", "imbalanced"),
    [("1", "-1", False), ("1", "-0.96", False), ("1", "-0.95", True), ("0", "-1", True), ("0", "0", False)],
)
def test_legs_that_ought_to_balance(spot, perp, imbalanced):
    held = {SPOT: D(spot), PERP: D(perp)}
    theirs = snapshot(positions={PERP: perp}, balances={"BTC": spot})
    seen = differences({}, held, theirs, INSTRUMENTS, (Pair(SPOT, PERP),), D("0.05"))

    assert [(one.kind, one.subject) for one in seen] == [(KIND.LEG_IMBALANCE, PERP)] * imbalanced


@pytest.mark.parametrize(
    ("theirs", "kept", "flat"),
    [
        ({}, {}, True),
        ({"balances": {"USDT": "9"}}, {}, True),
        ({"positions": {PERP: "0"}}, {}, True),
        ({"orders": [listed("o")]}, {}, False),
        ({"positions": {PERP: "-0.001"}}, {}, False),
        ({"balances": {"BTC": "0.00005"}}, {}, False),
        ({"balances": {"BTC": "0.000049"}}, {}, True),
        ({"balances": {"BTC": "2.00001"}}, {SPOT: D(2)}, True),
        ({}, {SPOT: D(2)}, False),
    ],
)
def test_flat_is_nothing_that_could_be_traded_away(theirs, kept, flat):
    assert is_flat(snapshot(**theirs), INSTRUMENTS, kept) is flat
