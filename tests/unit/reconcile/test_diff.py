import pytest

from hean.messages import DiscrepancyKind, EntryKind, Severity, VenueEntry
from hean.reconcile.diff import (
    REMEMBERED,
    Booked,
    Net,
    Ours,
    OwnOrder,
    Pair,
    Told,
    differences,
    is_flat,
    realised_apart,
)
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
    seen = differences(Ours(orders, holdings), snapshot(**theirs), INSTRUMENTS)

    assert [(one.kind, one.severity, one.subject) for one in seen] == found


@pytest.mark.parametrize(
    ("cash", "theirs", "found"),
    [
        (None, "5", []),
        ("5", "5.00", []),
        ("5", "5.000000000000000001", [(KIND.BALANCE, Severity.LOW, "USDT")]),
        ("5", "5.01", [(KIND.BALANCE, Severity.HIGH, "USDT")]),
        ("5", None, [(KIND.BALANCE, Severity.HIGH, "USDT")]),
    ],
    ids=["nothing said yet", "the same", "the last digit", "money", "no wallet"],
)
def test_cash_is_compared_to_the_last_digit(cash, theirs, found):
    ours = Ours(cash=None if cash is None else D(cash))
    seen = differences(ours, snapshot(balances={} if theirs is None else {"USDT": theirs}), INSTRUMENTS)

    assert [(one.kind, one.severity, one.subject) for one in seen] == found


@pytest.mark.parametrize(
    ("cash", "entry", "apart"),
    [
        # We have it at 105; the venue closed a part of it before it bought the rest, and made 15 by that.
        ("1015", "110", {PERP: D(15)}),
        ("1015.000000001", "109.999999999", {PERP: D("15.000000001")}),
        ("1000.0000001", "105", {PERP: D("0.0000001")}),
        ("1012", "110", {PERP: D(15)}),
        ("1050", "105", {}),
        ("985", "110", {}),
        ("1000", "110", {}),
    ],
    ids=[
        "all of it",
        "rounded",
        "rounding alone",
        "most of it",
        "money from elsewhere",
        "the wrong way",
        "no difference",
    ],
)
def test_profit_realised_at_another_time_is_told_from_money_that_is_missing(cash, entry, apart):
    ours = Ours(cash=D(1000), net={PERP: Net(D(3), D(315))})
    theirs = snapshot(positions={PERP: "3"}, entries={PERP: entry}, balances={"USDT": cash})

    assert realised_apart(ours, theirs, INSTRUMENTS) == apart
    kinds = {one.kind for one in differences(ours, theirs, INSTRUMENTS) if one.kind is not KIND.MISSING_LOCAL}
    assert kinds == ({KIND.AVG_PRICE} if apart else {KIND.BALANCE} if D(cash) != 1000 else set())


def test_a_position_that_differs_itself_explains_no_cash():
    ours = Ours(cash=D(1000), net={PERP: Net(D(2), D(210))})
    theirs = snapshot(positions={PERP: "3"}, entries={PERP: "110"}, balances={"USDT": "1120"})

    assert realised_apart(ours, theirs, INSTRUMENTS) == {}


def line(kind="fill", *, name="t", amount="0.1", currency="USDT", at=50):
    return VenueEntry(name, EntryKind(kind), PERP, currency, D(amount), at)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([line()], []),
        ([line(amount="0.10")], []),
        ([line(), line(currency="BTC", amount="0")], []),
        ([line(amount="0.2")], [(KIND.FEE, Severity.LOW, "t")]),
        ([line("funding", amount="0.2")], [(KIND.FUNDING, Severity.LOW, "t")]),
        ([line(name="x"), line(name="x", currency="BTC")], [(KIND.UNKNOWN_FILL, Severity.HIGH, "x")]),
        ([line("funding", name="x")], [(KIND.FUNDING, Severity.LOW, "x")]),
        ([line("interest", name="x")], [(KIND.FUNDING, Severity.LOW, "x")]),
        ([line("other", name="x")], []),
        ([line(name="x", at=10), line(name="x", at=91)], []),
    ],
    ids=[
        "as told",
        "as many digits as one likes",
        "the coin of a fill on spot",
        "another fee",
        "another funding",
        "a fill nobody told",
        "funding nobody told",
        "interest nobody told",
        "a transfer",
        "before us, and too young",
    ],
)
def test_what_is_booked_is_what_was_told(lines, found):
    told = Told(ts_since=10, newer={"t": Booked("USDT", D("0.1"))})
    seen = differences(Ours(told=told, settled=90), snapshot(booked=lines), INSTRUMENTS)

    assert [(one.kind, one.severity, one.subject) for one in seen] == found


def test_what_is_booked_is_judged_only_as_far_as_memory_reaches():
    told = Told(ts_since=0)
    for number in range(5 * REMEMBERED // 2):
        told.note(str(number), Booked("USDT", D(0)), now=number)
        assert all(told.find(str(one)) for one in (told.ts_since, number))
        assert len(told.newer) + len(told.older) <= 2 * REMEMBERED

    assert told.find(str(told.ts_since - 1)) is None


@pytest.mark.parametrize(
    ("is_set", "found"),
    [
        ({}, []),
        ({"margin": "CROSS", f"{PERP} position": "one-way", f"{PERP} leverage": "10"}, []),
        ({"margin": "ISOLATED"}, ["margin"]),
        ({f"{PERP} position": "hedge", f"{PERP} leverage": "5"}, [f"{PERP} position"]),
    ],
)
def test_modes_are_as_they_ought_to_be(is_set, found):
    wanted = {"margin": "CROSS", "position": "one-way"}
    seen = differences(Ours(), snapshot(modes=is_set), INSTRUMENTS, modes=wanted)

    assert [(one.kind, one.severity, one.subject) for one in seen] == [(KIND.MODE, Severity.HIGH, one) for one in found]


def test_legs_that_were_there_before_us_balance_nothing():
    theirs = snapshot(positions={PERP: "-1"}, balances={"BTC": "3"})
    ours = Ours({}, {SPOT: D(3), PERP: D(-1)}, owned={SPOT: {"": D(2), "a": D(1)}, PERP: {"a": D(-1)}})
    alone = Ours({}, {SPOT: D(3), PERP: D(-1)}, owned={SPOT: {"": D(3)}, PERP: {"": D(-1)}})

    for one in (ours, alone):
        assert not differences(one, theirs, INSTRUMENTS, pairs=(Pair(SPOT, PERP),))


@pytest.mark.parametrize(
    ("spot", "perp", "imbalanced"),
    [
        ("1", "-1", False),
        ("1", "-0.96", False),
        ("1", "-0.95", True),
        ("0.95", "-1", True),
        ("0", "-1", False),  # a position of its own
        ("1", "1", True),
        ("0", "0", False),
    ],
)
@pytest.mark.parametrize("beside", ["0", "0.7", "-3"])
def test_legs_of_one_strategy_ought_to_balance_whatever_another_holds_beside_them(spot, perp, imbalanced, beside):
    owned = {SPOT: {"carry": D(spot)}, PERP: {"impulse": D(beside), "carry": D(perp)}}
    held = {name: sum(parts.values()) for name, parts in owned.items()}
    theirs = snapshot(positions={PERP: str(held[PERP])}, balances={"BTC": spot})
    ours = Ours({}, held, owned=owned)
    seen = differences(ours, theirs, INSTRUMENTS, pairs=(Pair(SPOT, PERP),), leg_tolerance=D("0.05"))

    assert [(one.kind, one.subject) for one in seen] == [(KIND.LEG_IMBALANCE, PERP)] * imbalanced
    assert all(one.ours == f"carry: spot {spot}" and one.theirs == f"perpetual {perp}" for one in seen)


def test_of_two_strategies_whose_legs_do_not_balance_the_worse_is_named():
    owned = {SPOT: {"a": D(1), "b": D(1)}, PERP: {"a": D("-0.8"), "b": D("-0.7")}}
    theirs = snapshot(positions={PERP: "-1.5"}, balances={"BTC": "2"})
    ours = Ours({}, {SPOT: D(2), PERP: D("-1.5")}, owned=owned)

    (seen,) = differences(ours, theirs, INSTRUMENTS, pairs=(Pair(SPOT, PERP),))
    assert seen.ours == "b: spot 1"


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
        ({"positions": {PERP: "-0.5"}}, {PERP: D("-0.5")}, True),
        ({"positions": {PERP: "-0.499"}}, {PERP: D("-0.5")}, False),
        ({"positions": {OTHER: "0.001"}}, {}, False),
    ],
)
def test_flat_is_nothing_that_could_be_traded_away(theirs, kept, flat):
    assert is_flat(snapshot(**theirs), INSTRUMENTS, kept) is flat
