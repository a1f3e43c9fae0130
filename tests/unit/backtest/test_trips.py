from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.backtest.trips import round_trips
from hean.errors import ContractError
from hean.messages import OrderFilled, PairLeg, Side, Signal, SubmitOrder, SubmitPair, TimeInForce
from tests.unit.backtest.make import ETH, INSTRUMENTS, PERP, SPOT, D, fill, said, settled

ZERO = D(0)


def trips(*facts, marks=None):
    return round_trips([said(fact) for fact in facts], INSTRUMENTS, marks)


def seen(trip):
    return (trip.side, trip.quantity, trip.entry_price, trip.exit_price, trip.pnl)


# --- by hand ------------------------------------------------------------------------------------


def test_a_long_from_flat_to_flat():
    (trip,) = trips(fill(PERP, "2", "100", fee="0.1", ts=5), fill(PERP, "-2", "110", fee="0.2", ts=9, ending="target"))

    assert seen(trip) == ("long", D(2), D(100), D(110), D("19.7"))
    assert (trip.ts_open, trip.ts_close, trip.fees, trip.funding) == (5, 9, D("0.3"), ZERO)
    assert (trip.strategy, trip.instruments, trip.closed_by) == ("a", (PERP,), "target")


def test_a_short_gains_when_the_price_falls():
    assert seen(*trips(fill(PERP, "-2", "100"), fill(PERP, "2", "90"))) == ("short", D(2), D(100), D(90), D(20))


def test_entries_and_partial_closes_are_one_trip_at_their_mean_prices():
    (trip,) = trips(
        fill(PERP, "1", "100"), fill(PERP, "1", "104"), fill(PERP, "-0.5", "110"), fill(PERP, "-1.5", "102")
    )

    assert seen(trip) == ("long", D(2), D(102), D(104), D(4))


def test_a_flip_closes_one_trip_and_opens_the_next():
    first, second = trips(
        fill(PERP, "1", "100"), fill(PERP, "-3", "110", fee="0.3", ts=7), fill(PERP, "2", "105"), marks={PERP: 1.0}
    )

    assert seen(first) == ("long", D(1), D(100), D(110), D("9.9"))
    assert seen(second) == ("short", D(2), D(110), D(105), D("9.8"))
    assert first.ts_close == second.ts_open == 7


def test_an_open_trip_is_valued_at_the_mark():
    (trip,) = trips(fill(PERP, "2", "100", fee="0.1"), marks={PERP: 104.5})

    assert (trip.ts_close, trip.exit_price, trip.closed_by, trip.pnl) == (None, None, "", D("8.9"))


def test_without_a_mark_an_open_trip_is_valued_at_the_last_fill():
    assert trips(fill(PERP, "1", "100"), fill(PERP, "1", "103"))[0].pnl == 3


def test_two_opposite_legs_of_one_coin_are_one_trip():
    (trip,) = trips(
        fill(PERP, "-1", "101", ts=1),
        fill(SPOT, "1", "100", ts=2),
        fill(PERP, "1", "90", ts=3),
        fill(SPOT, "-1", "89.5", ts=4),
    )

    assert trip.instruments == (PERP, SPOT)
    assert seen(trip) == ("short", D(1), D(101), D(90), D("0.5"))
    assert (trip.ts_open, trip.ts_close) == (1, 4)


def test_a_pair_that_rolls_its_lead_stays_one_trip():
    (trip,) = trips(
        fill(PERP, "-1", "101"),
        fill(SPOT, "1", "100"),
        fill(PERP, "1", "90"),
        fill(PERP, "-1", "91"),
        marks={PERP: 91.0, SPOT: 90.0},
    )

    assert trip.instruments == (PERP, SPOT)
    assert trip.pnl == 11 - 10


def test_two_legs_the_same_way_are_two_trips():
    assert [trip.instruments for trip in trips(fill(PERP, "1", "101"), fill(SPOT, "1", "100"))] == [(PERP,), (SPOT,)]


def test_other_coins_and_other_strategies_are_other_trips():
    found = trips(fill(PERP, "-1", "100"), fill(ETH, "1", "10"), fill(PERP, "1", "100", strategy="b"))

    assert [(trip.strategy, trip.instruments) for trip in found] == [("a", (PERP,)), ("a", (ETH,)), ("b", (PERP,))]


def test_a_fee_in_the_coin_is_valued_at_the_fill():
    (trip,) = trips(fill(SPOT, "1", "50000", fee="0.001", coin="BTC"), fill(SPOT, "-0.999", "51000", fee="50.949"))

    assert trip.fees == D(50) + D("50.949")
    assert trip.pnl == D("0.999") * 51000 - 50000 - D("50.949")


def test_dust_does_not_keep_a_trip_open_and_passes_on_at_its_price():
    first, second = trips(
        fill(SPOT, "1", "50000", fee="0.0010004", coin="BTC"),
        fill(SPOT, "-0.998999", "51000"),  # 0.0000006 is left
        fill(SPOT, "1", "52000"),
        fill(SPOT, "-1", "53000"),
    )

    dust = D("0.0000006")
    assert first.ts_close is not None
    assert first.pnl == D("0.998999") * 51000 - 50000 + dust * 51000
    assert second.pnl == 1000 + dust * (53000 - 51000)


def test_a_small_first_fill_does_not_end_the_trip_it_begins():
    assert [trip.quantity for trip in trips(fill(SPOT, "0.00001", "50000"), fill(SPOT, "1", "50000"))] == [D("1.00001")]


def test_the_same_fill_said_twice_counts_once():
    twice = fill(PERP, "1", "100", trade="t")

    assert [trip.quantity for trip in trips(twice, twice)] == [1]


def test_what_the_broker_passes_on_does_not_count():
    fact = fill(PERP, "1", "100")
    log = [said(fact, source="venue@3"), said(fact, source="broker"), said(fill(PERP, "1", "1"), source="broker")]

    assert [trip.quantity for trip in round_trips(log, INSTRUMENTS)] == [1]


def test_funding_is_divided_by_what_each_strategy_holds():
    one, other = trips(
        fill(PERP, "-3", "100", strategy="a"),
        fill(PERP, "1", "100", strategy="b"),
        settled(PERP, quantity="-2", rate="0.001", mark="100", amount="0.2"),
    )

    assert (one.funding, other.funding) == (D("0.3"), D("-0.1"))
    assert one.pnl == D("0.3")


def test_what_a_settlement_was_rounded_by_goes_to_the_largest():
    one, other = trips(
        fill(PERP, "-3", "100", strategy="a"),
        fill(PERP, "-1", "100", strategy="b"),
        settled(PERP, quantity="-4", rate="0.001", mark="100", amount="0.41"),
    )

    assert (one.funding, other.funding) == (D("0.31"), D("0.1"))


def test_funding_without_a_position_is_nobodys():
    assert trips(settled(PERP, quantity="0", rate="0.001", mark="100", amount="0")) == ()


def test_a_liquidation_is_divided_among_the_holders():
    one, other = trips(
        fill(PERP, "3", "100", strategy="a"),
        fill(PERP, "1", "100", strategy="b"),
        fill(PERP, "-4", "50", strategy="", ending="liquidation", fee="0.4"),
    )

    assert [(trip.quantity, trip.pnl, trip.closed_by) for trip in (one, other)] == [
        (D(3), D("-150.3"), "liquidation"),
        (D(1), D("-50.1"), "liquidation"),
    ]


def test_a_trip_says_what_asked_for_its_end():
    signal = said(Signal("a", (), "the move is over", None, None, None, ""), source="a")
    order = SubmitOrder("risk-2", "a", PERP, Side.SELL, D(1), None, TimeInForce.IOC, True, D(100), None)
    log = [
        said(fill(PERP, "1", "100", order="risk-1")),
        signal,
        said(order, source="risk", cause=signal.id),
        said(order, source="broker", cause="risk:2"),
        said(fill(PERP, "-1", "100", order="risk-2")),
    ]

    assert round_trips(log, INSTRUMENTS)[0].closed_by == "the move is over"


def test_the_children_of_a_pair_have_the_reason_of_the_pair():
    signal = said(Signal("a", (), "funding no longer pays", None, None, None, ""), source="a")
    leg = PairLeg(PERP, Side.BUY, D(1), D(100))
    pair = SubmitPair("p-1", "a", leg, leg, False, D(100), True)
    log = [
        said(fill(PERP, "-1", "100", order="p-0-1")),
        signal,
        said(pair, source="risk", cause=signal.id),
        said(fill(PERP, "1", "100", order="p-1-3")),
    ]

    assert round_trips(log, INSTRUMENTS)[0].closed_by == "funding no longer pays"


def test_what_no_signal_asked_for_was_risks_doing():
    assert trips(fill(PERP, "1", "100"), fill(PERP, "-1", "100"))[0].closed_by == "risk"


def test_what_cannot_be_valued_is_not_nought():
    with pytest.raises(ContractError, match="MNT"):
        trips(fill(PERP, "1", "100", fee="1", coin="MNT"))
    with pytest.raises(ContractError, match="not among the instruments"):
        trips(fill("XRPUSDT-LINEAR.BYBIT", "1", "100"))


# --- whatever happens ---------------------------------------------------------------------------

steps = st.integers(-40, 40).filter(bool)
contracts = st.tuples(
    st.sampled_from([PERP, ETH]), st.sampled_from("ab"), steps, st.integers(90, 110), st.integers(0, 9)
)
coins = st.tuples(st.just(SPOT), st.sampled_from("ab"), steps, st.integers(90, 110), st.integers(0, 9))


def facts_of(drawn):
    facts = []
    for name, strategy, size, price, fee in drawn:
        if price % 7 == 0 and name == PERP:
            facts.append(settled(PERP, quantity="1", rate="0.0001", mark=str(price), amount=f"0.{fee}"))
        in_coin = name == SPOT and size > 0
        facts.append(
            fill(
                name,
                D(size) / 100,
                str(price),
                strategy=strategy,
                fee=f"0.000{fee}" if in_coin else f"0.0{fee}",
                coin="BTC" if in_coin else "USDT",
            )
        )
    return facts


def worth(facts, marks):
    """What cash moved, and what is left at its mark; and whether anything was held when funding came."""
    cash, held = ZERO, dict.fromkeys(INSTRUMENTS, ZERO)
    owners = {}
    for fact in facts:
        if not isinstance(fact, OrderFilled):
            if any(owners.values()):
                cash += fact.amount
            continue
        signed = fact.quantity * fact.side
        cash -= signed * fact.price
        held[fact.instrument] += signed
        if fact.fee_currency == "USDT":
            cash -= fact.fee
        else:
            held[fact.instrument] -= fact.fee
        if fact.instrument == PERP:
            owners[fact.strategy] = owners.get(fact.strategy, ZERO) + signed
    return cash, held, cash + sum(quantity * D(str(marks[name])) for name, quantity in held.items())


@given(st.lists(contracts, max_size=40), st.integers(80, 120))
def test_profits_of_contracts_add_up_to_the_cash_and_what_is_left(drawn, mark):
    facts, marks = facts_of(drawn), dict.fromkeys(INSTRUMENTS, float(mark))

    found = trips(*facts, marks=marks)

    assert sum((trip.pnl for trip in found), ZERO) == worth(facts, marks)[2]


@given(st.lists(contracts | coins, max_size=40))
def test_with_coins_they_add_up_at_the_prices_dust_was_left_at(drawn):
    facts = [*facts_of(drawn), fill(SPOT, "0.5", "100", strategy="a"), fill(SPOT, "0.5", "100", strategy="b")]
    marks = dict.fromkeys(INSTRUMENTS, 100.0)

    found = trips(*facts, marks=marks)

    # The last fills take up all dust into open trips, so that nothing is left outside of one.
    open_spot = {trip.strategy for trip in found if SPOT in trip.instruments and trip.ts_close is None}
    if open_spot == {"a", "b"}:
        assert sum((trip.pnl for trip in found), ZERO) == worth(facts, marks)[2]


@given(st.lists(contracts, max_size=30))
def test_no_strategy_holds_an_instrument_in_two_trips(drawn):
    found = trips(*facts_of(drawn))

    open_now = [(trip.strategy, name) for trip in found if trip.ts_close is None for name in trip.instruments]
    assert len(open_now) == len(set(open_now))
    assert all(trip.quantity > 0 for trip in found)
    assert all((trip.ts_close is None) == (trip.exit_price is None) for trip in found)


@given(st.lists(contracts, min_size=1, max_size=30))
def test_closed_trips_multiply_out(drawn):
    for trip in trips(*(fact for fact in facts_of(drawn) if isinstance(fact, OrderFilled))):
        if trip.ts_close is not None:
            way = 1 if trip.side == "long" else -1
            gross = way * trip.quantity * (trip.exit_price - trip.entry_price)
            assert trip.pnl + trip.fees == pytest.approx(gross, abs=Decimal("1e-8"))
