from decimal import Context, Decimal, getcontext, localcontext

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.errors import ConfigError, ContractError
from hean.portfolio.accounting import (
    CASH,
    FEE,
    FUNDING,
    INTEREST,
    INVENTORY,
    POSITION,
    REALISED,
    REBATE,
    RESERVE,
    Accountant,
    Ledger,
    measured,
)
from tests.unit.portfolio.books import (
    ETH_PERP,
    ETH_SPOT,
    INSTRUMENTS,
    PERP,
    SPOT,
    D,
    charged,
    fill,
    instrument,
    settled,
)

ACCOUNTANT = Accountant(INSTRUMENTS, "USDT")
WIDE = Context(prec=200)


def opened(**money):
    ledger = Ledger()
    for strategy, amount in money.items():
        ACCOUNTANT.transfer(ledger, strategy, "USDT", D(amount))
    return ledger


def parts(ledger, strategy, marks):
    profit, _ = ACCOUNTANT.profit(ledger.books[strategy], marks)
    return {part: value for part in profit.PARTS if (value := getattr(profit, part))}


# --- by hand ------------------------------------------------------------------------------------


def test_a_long_that_gains_and_is_closed():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "2", "100", fee="0.11", reference="100"), marks)
    assert ledger.equity(marks) == D("999.89")
    marks = {PERP: 110.0}
    assert ledger.equity(marks) == D("1019.89")
    ACCOUNTANT.fill(ledger, fill(PERP, "-2", "109", fee="0.12", reference="110"), marks)
    book = ledger.books["a"]

    assert book.balance("USDT", CASH) == ledger.equity(marks) == D("1017.77")
    assert book.balance("USDT", REALISED) == D(-18)
    assert book.balance("USDT", FEE) == D("0.23")
    assert book.balance(PERP, POSITION) == 0
    assert parts(ledger, "a", marks) == {"price": D(20), "slippage": D(-2), "fees": D("-0.23")}


def test_a_short_that_is_closed_in_part_keeps_the_rest_of_its_cost():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "-3", "100"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "1", "90"), {PERP: 90.0})
    book = ledger.books["a"]

    assert book.balance("USDT", REALISED) == D(-10)
    assert book.cost[PERP] == D(-200)
    assert ledger.equity({PERP: 90.0}) == D(1030)


def test_a_flip_closes_all_and_opens_the_rest_at_the_new_price():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "2", "100"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-5", "110"), marks)
    book = ledger.books["a"]

    assert book.balance("USDT", REALISED) == D(-20)
    assert book.balance(PERP, POSITION) == D(-3)
    assert book.cost[PERP] == D(-330)


def test_a_cost_that_does_not_divide_loses_nothing():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "0.003", "100.1"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "0.004", "100.2"), marks)
    cost = ledger.books["a"].cost[PERP]
    ACCOUNTANT.fill(ledger, fill(PERP, "-0.003", "100"), marks)
    book = ledger.books["a"]

    assert book.cost[PERP] + D("0.3") + book.balance("USDT", REALISED) == cost


def test_a_spot_buyer_pays_the_fee_in_coin_and_keeps_the_price_he_paid_as_entry():
    ledger, marks = opened(a="1000"), {SPOT: 100.0}
    ACCOUNTANT.fill(ledger, fill(SPOT, "1", "100.5", fee="0.001", fee_currency="BTC", reference="100"), marks)
    book = ledger.books["a"]

    assert book.balance("USDT", CASH) == D("899.5")
    assert book.balance("BTC", INVENTORY) == D("0.999")
    assert book.balance("BTC", FEE) == D("0.001")
    assert book.cost[SPOT] / D("0.999") == D("100.5")
    assert parts(ledger, "a", marks) == {"slippage": D("-0.5"), "fees": D("-0.1005"), "price": D("0.0005")}


def test_a_spot_seller_pays_in_quote_and_a_maker_may_be_paid():
    ledger, marks = opened(a="1000"), {SPOT: 100.0}
    ACCOUNTANT.transfer(ledger, "a", "BTC", D(1))
    ACCOUNTANT.fill(ledger, fill(SPOT, "-1", "100", fee="-0.02", reference="100"), marks)
    book = ledger.books["a"]

    assert book.balance("USDT", CASH) == D("1100.02")
    assert book.balance("USDT", REBATE) == D("-0.02")
    assert parts(ledger, "a", marks) == {"fees": D("0.02")}


def test_what_a_hedged_pair_makes_is_basis_and_funding():
    ledger, marks = opened(a="1000"), {SPOT: 100.0, PERP: 101.0}
    ACCOUNTANT.fill(ledger, fill(SPOT, "1", "100", reference="100"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-1", "101", reference="101"), marks)
    ACCOUNTANT.funding(ledger, settled(PERP, rate="0.0001", mark="150", amount="0.015"))
    marks = {SPOT: 150.0, PERP: 150.25}

    assert parts(ledger, "a", marks) == {"basis": D("0.75"), "funding": D("0.015")}


def test_only_the_matched_part_of_a_pair_is_basis():
    ledger, marks = opened(a="1000"), {SPOT: 100.0, PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(SPOT, "3", "100", reference="100"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-1", "100", reference="100"), marks)

    assert parts(ledger, "a", {SPOT: 110.0, PERP: 108.0}) == {"basis": D(2), "price": D(20)}


def test_two_long_legs_have_no_basis():
    ledger, marks = opened(a="1000"), {SPOT: 100.0, PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(SPOT, "1", "100"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "1", "100"), marks)

    assert parts(ledger, "a", {SPOT: 110.0, PERP: 108.0}) == {"price": D(18)}


def test_a_fill_without_a_reference_is_counted_and_its_slippage_is_nought():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "1", "101"), marks)
    profit, _ = ACCOUNTANT.profit(ledger.books["a"], marks)

    assert (profit.price, profit.slippage, profit.unreferenced) == (D(-1), D(0), 1)


def test_funding_is_each_strategys_own_and_the_largest_bears_the_rounding():
    ledger, marks = opened(a="1000", b="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "3", "100", strategy="a"), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-1", "100", strategy="b"), marks)
    ACCOUNTANT.funding(ledger, settled(PERP, rate="0.0001", mark="100.01", amount="-0.0201"))

    assert ledger.books["b"].profit.funding == D("0.010001")
    assert ledger.books["a"].profit.funding == D("-0.030101")
    assert ledger.books["a"].balance("USDT", FUNDING) == D("0.030101")


def test_interest_is_paid_by_those_who_owe_and_else_by_the_largest_holder():
    ledger, marks = opened(a="1000", b="1000", c="1000"), {SPOT: 100.0}
    ACCOUNTANT.fill(ledger, fill(SPOT, "13", "100", strategy="a"), marks)
    ACCOUNTANT.fill(ledger, fill(SPOT, "11", "100", strategy="b"), marks)
    ACCOUNTANT.interest(ledger, charged("0.4"), marks)
    assert [ledger.books[name].balance("USDT", INTEREST) for name in "abc"] == [D("0.3"), D("0.1"), D(0)]

    ledger = opened(a="1000", b="1000")
    ACCOUNTANT.fill(ledger, fill(SPOT, "2", "100", strategy="b"), marks)
    ACCOUNTANT.interest(ledger, charged("0.4"), marks)
    assert ledger.books["b"].profit.interest == D("-0.4")


@pytest.mark.parametrize(("strategy", "ending"), [("", ""), ("a", "liquidation")], ids=["nobody's", "liquidation"])
def test_what_the_venue_does_of_its_own_is_everybodys_in_proportion(strategy, ending):
    ledger, marks = opened(a="1000", b="1000", c="1000"), {PERP: 100.0}
    for name, quantity in (("a", "4"), ("b", "-1"), ("c", "3")):
        ACCOUNTANT.fill(ledger, fill(PERP, quantity, "100", strategy=name), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-6", "90", strategy=strategy, ending=ending, fee="0.8"), marks)

    assert [ledger.books[name].balance(PERP, POSITION) for name in "abc"] == [0, 0, 0]
    assert [ledger.books[name].balance("USDT", FEE) for name in "abc"] == [D("0.4"), D("0.1"), D("0.3")]


def test_the_last_holder_takes_what_does_not_divide():
    ledger, marks = opened(a="1000", b="1000", c="1000"), {PERP: 100.0}
    for name in "abc":
        ACCOUNTANT.fill(ledger, fill(PERP, "1", "100", strategy=name), marks)
    ACCOUNTANT.fill(ledger, fill(PERP, "-1", "90", strategy=""), marks)

    held = [ledger.books[name].balance(PERP, POSITION) for name in "abc"]
    assert held == [D("0.667"), D("0.667"), D("0.666")]


def test_the_last_resort_closes_what_strategies_held_and_nothing_of_the_reserve():
    ledger, marks = opened(a="1000"), {SPOT: 100.0}
    ACCOUNTANT.transfer(ledger, RESERVE, "BTC", D(1))
    ACCOUNTANT.fill(ledger, fill(SPOT, "0.5", "100", strategy="a"), marks)
    ACCOUNTANT.fill(ledger, fill(SPOT, "-0.5", "90", strategy="", order="lr7-BTCUSDTS-1"), marks)

    held = {name: book.balance("BTC", INVENTORY) for name, book in ledger.books.items()}
    assert held == {"a": 0, RESERVE: 1}


def test_a_venue_fill_that_lessens_nobodys_position_goes_to_the_reserve():
    ledger, marks = opened(a="1000"), {PERP: 100.0}
    ACCOUNTANT.fill(ledger, fill(PERP, "1", "90", strategy=""), marks)

    assert ledger.books[RESERVE].balance(PERP, POSITION) == 1


def test_coins_brought_in_count_from_their_first_mark():
    ledger = opened(a="1000")
    ACCOUNTANT.transfer(ledger, "a", "BTC", D(2))
    book = ledger.books["a"]
    assert ledger.equity({}) == D(1000)

    ACCOUNTANT.fill(ledger, fill(SPOT, "-1", "100", reference="100"), {SPOT: 100.0})

    assert book.brought_in == D(1200)
    assert parts(ledger, "a", {SPOT: 105.0}) == {"price": D(5)}


# --- what is refused ----------------------------------------------------------------------------


def test_a_coin_that_cannot_be_valued_is_refused():
    with pytest.raises(ConfigError, match="SOLUSDT-SPOT"):
        ACCOUNTANT.transfer(Ledger(), "a", "SOL", D(1))
    with pytest.raises(ContractError, match="MNT"):
        ACCOUNTANT.fill(opened(a="1"), fill(PERP, "1", "1", fee="1", fee_currency="MNT"), {PERP: 1.0})


def test_a_fill_booked_or_not_leaves_the_callers_digits_alone():
    ambient = getcontext()
    ACCOUNTANT.fill(opened(a="1"), fill(PERP, "1", "1"), {PERP: 1.0})
    assert getcontext() is ambient

    with pytest.raises(ContractError, match="MNT"):
        ACCOUNTANT.fill(opened(a="1"), fill(PERP, "1", "1", fee="1", fee_currency="MNT"), {PERP: 1.0})
    assert getcontext() is ambient


def test_books_are_kept_in_one_currency():
    inverse = instrument("BTCUSD-INVERSE.BYBIT", "BTC", "0.1", "1")
    with pytest.raises(ConfigError, match="one currency"):
        Accountant({inverse.id: inverse}, "USDT")
    twin = instrument("BTCUSDT-SPOT.BINANCE", "BTC", "0.1", "1")
    with pytest.raises(ConfigError, match="keep one"):
        Accountant(INSTRUMENTS | {twin.id: twin}, "USDT")


@pytest.mark.parametrize(
    ("x", "exact"), [(28409.37, "28409.37"), (0.5 * (60000.1 + 60000.2), "60000.15"), (1e-8, "1E-8")]
)
def test_a_mark_is_the_number_the_venue_wrote(x, exact):
    assert measured(x) == Decimal(exact)


# --- under random flows -------------------------------------------------------------------------

NAMES = tuple(INSTRUMENTS)
COIN = {PERP: "BTC", SPOT: "BTC", ETH_PERP: "ETH", ETH_SPOT: "ETH"}
prices = st.decimals("90", "110", places=2)
quantities = st.decimals("-3", "3", places=3).filter(bool)
fees = st.decimals("-0.02", "0.3", places=5)
fills = st.builds(
    lambda name, signed, price, fee, strategy, reference, liquidated, in_coin: fill(
        name,
        signed,
        price,
        strategy=strategy,
        fee=fee / 100 if in_coin and name in {SPOT, ETH_SPOT} else fee,
        fee_currency=COIN[name] if in_coin and name in {SPOT, ETH_SPOT} else "USDT",
        reference=reference,
        ending="liquidation" if liquidated else "",
    ),
    st.sampled_from(NAMES),
    quantities,
    prices,
    fees,
    st.sampled_from(["a", "b", "c", ""]),
    st.none() | prices,
    st.sampled_from([False, False, False, True]),
    st.booleans(),
)
flows = st.lists(
    st.one_of(
        fills,
        fills,
        st.tuples(st.sampled_from(NAMES), st.floats(90, 110).map(lambda x: round(x, 3))),
        st.builds(
            lambda name, rate, mark, amount: settled(name, rate=rate, mark=mark, amount=amount),
            st.sampled_from([PERP, ETH_PERP]),
            st.decimals("-0.01", "0.01", places=6),
            prices,
            st.decimals("-5", "5", places=8),
        ),
        st.builds(charged, st.decimals("0", "2", places=8), st.sampled_from(["USDT", "BTC"])),
    ),
    max_size=25,
)


def worth_without_books(opening, flow, marks):
    """The account's equity from the flows alone: each fill is worth its distance from the final mark."""
    final = {name: measured(marks[name]) for name in marks}
    equity = sum(opening.values(), D(0))
    for event in flow:
        match event:
            case tuple():
                pass
            case _ if hasattr(event, "trade_id"):
                equity += event.side * event.quantity * (final[event.instrument] - event.price)
                equity -= event.fee * (1 if event.fee_currency == "USDT" else final[event.instrument])
            case _ if hasattr(event, "settlement_id"):
                equity += event.amount
            case _:
                equity -= event.amount * (1 if event.currency == "USDT" else final[SPOT])
    return equity


def play(ledger, flow, marks):
    for event in flow:
        match event:
            case (name, price):
                marks[name] = price
            case _ if hasattr(event, "trade_id"):
                ACCOUNTANT.fill(ledger, event, marks)
            case _ if hasattr(event, "settlement_id"):
                ACCOUNTANT.funding(ledger, event)
            case _:
                ACCOUNTANT.interest(ledger, event, marks)


@settings(max_examples=300, deadline=None)
@given(flow=flows)
def test_the_books_agree_with_the_flows_to_the_last_digit(flow):
    opening = {"a": D(1000), "b": D("333.33"), RESERVE: D(5)}
    ledger, marks = Ledger(), dict.fromkeys(NAMES, 100.0)
    for strategy, amount in opening.items():
        ACCOUNTANT.transfer(ledger, strategy, "USDT", amount)
    play(ledger, flow, marks)

    with localcontext(WIDE):
        equity = worth_without_books(opening, flow, marks)
        assert ledger.equity(marks) == equity
        assert sum(ACCOUNTANT.worth(book, marks) for book in ledger.books.values()) == equity
        for book in ledger.books.values():
            profit, brought_in = ACCOUNTANT.profit(book, marks)
            assert sum(getattr(profit, part) for part in profit.PARTS) == ACCOUNTANT.worth(book, marks) - brought_in
            for accounts in book.accounts.values():
                assert sum(accounts.values()) == 0
        account = ledger.account()
        for name in NAMES:
            commodity, own = (name, POSITION) if name in {PERP, ETH_PERP} else (COIN[name], INVENTORY)
            assert account.get(commodity, {}).get(own, 0) == ledger.exposure.get(name, 0)
        assert msgspec.json.decode(msgspec.json.encode(ledger), type=Ledger) == ledger


@settings(max_examples=100, deadline=None)
@given(flow=flows, extra=fills)
def test_what_is_closed_leaves_no_cost(flow, extra):
    ledger, marks = opened(a="1000", b="1000", c="1000"), dict.fromkeys(NAMES, 100.0)
    play(ledger, [*flow, extra], marks)
    for strategy, book in list(ledger.books.items()):
        for name in NAMES:
            held = ACCOUNTANT.quantity(book, name)
            if held and strategy:
                ACCOUNTANT.fill(ledger, fill(name, -held, "101.3", strategy=strategy, reference="101"), marks)
                assert book.cost[name] == 0

    for strategy in "abc":
        book = ledger.books[strategy]
        with localcontext(WIDE):
            profit, brought_in = ACCOUNTANT.profit(book, marks)
            assert profit.net() == book.balance("USDT", CASH) - brought_in


@given(signed=quantities, price=prices, fee=fees)
def test_opening_a_perpetual_at_an_unchanged_price_costs_exactly_the_fee(signed, price, fee):
    ledger, marks = opened(a="1000"), {PERP: float(price)}
    ACCOUNTANT.fill(ledger, fill(PERP, signed, price, fee=fee, reference=price), marks)

    assert ledger.equity(marks) == D(1000) - fee
    assert parts(ledger, "a", marks) == ({"fees": -fee} if fee else {})


@given(quantity=st.decimals("0.001", "5", places=6), middle=prices, half=st.decimals("0", "0.5", places=2), fee=fees)
def test_a_spot_buy_costs_exactly_the_fee_and_half_the_spread(quantity, middle, half, fee):
    ledger, marks = opened(a="1000"), {SPOT: float(middle)}
    ask = middle + half
    ACCOUNTANT.fill(ledger, fill(SPOT, quantity, ask, fee=fee, reference=middle), marks)

    assert ledger.equity(marks) == D(1000) - fee - half * quantity
    assert ledger.books["a"].profit.slippage == -half * quantity
