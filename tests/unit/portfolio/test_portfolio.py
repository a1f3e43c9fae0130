import itertools

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.component import Observer, says, takes
from hean.errors import ContractError
from hean.messages import (
    OPENING,
    AdjustBooks,
    Bar,
    BooksAdjusted,
    EquityChanged,
    FundingSettled,
    InterestCharged,
    MarkPrice,
    NodeStarted,
    OrderFilled,
    PositionChanged,
    ProfitParts,
    ProfitsStated,
    Quote,
    Trade,
    Wake,
)
from hean.portfolio.portfolio import DAY, REMEMBERED, Portfolio, PortfolioConfig, PortfolioState, Remembered
from hean.tape import Stream, Tape
from tests.unit.portfolio.books import ETH_PERP, INSTRUMENTS, PERP, SPOT, D, charged, fill, settled

NOON = 10 * DAY + DAY // 2
WATCHES = frozenset({(PERP, MarkPrice), (SPOT, Bar), (SPOT, Quote), (ETH_PERP, Trade)})


def portfolio(**changes):
    given_ = {"balances": {"USDT": D(1000)}, "shares": {"a": D("0.5"), "b": D("0.25")}}
    return Portfolio(PortfolioConfig(**(given_ | changes)), INSTRUMENTS, WATCHES)


def tell(component, *messages, now=NOON):
    return [said for message in messages for said in component.handle(message, now)]


def mark(price, instrument=PERP):
    return MarkPrice(instrument, 0, price)


def equities(said):
    return [message.equity for message in said if isinstance(message, EquityChanged)]


# --- what it says -------------------------------------------------------------------------------


def test_a_fill_is_followed_by_the_position_and_then_the_equity():
    said = tell(portfolio(), mark(100.0), fill(PERP, "0.5", "100", fee="0.03"))

    assert said == [
        PositionChanged("a", PERP, D("0.5"), D(0), D(100)),
        EquityChanged(D("999.97"), D("999.97"), marks_known=True),
    ]


def test_what_is_below_a_step_is_dust():
    held = portfolio()
    tell(held, Quote(SPOT, 0, 99.99, 1.0, 100.01, 1.0))
    (position, _) = tell(held, fill(SPOT, "0.5", "100", fee="0.0000005", fee_currency="BTC"))

    assert (position.quantity, position.dust, position.entry) == (D("0.499999"), D("0.0000005"), D(100))

    (position, _) = tell(held, fill(SPOT, "-0.499999", "101"))
    assert (position.quantity, position.dust, position.entry) == (D(0), D("0.0000005"), D(0))


def test_a_fill_told_twice_counts_once():
    held = portfolio()
    once = fill(PERP, "1", "100", trade_id="same")

    assert len(tell(held, once)) == 2
    assert tell(held, once) == []


def test_a_settlement_told_twice_counts_once():
    held = portfolio()
    once = settled(PERP, rate="0.0001", mark="100", amount="0.01", settlement_id="same")

    assert equities(tell(held, once, once)) == [D("1000.01")]


def test_the_newest_ids_are_remembered_and_memory_is_bounded():
    seen = Remembered()
    for number in range(3 * REMEMBERED):
        assert seen.first_time(str(number))

    assert not any(seen.first_time(str(number)) for number in range(2 * REMEMBERED, 3 * REMEMBERED))
    assert len(seen.newer) + len(seen.older) <= 2 * REMEMBERED


def test_interest_told_twice_counts_once():
    held = portfolio()
    once = charged("0.25", charge_id="same")

    assert equities(tell(held, once, once)) == [D("999.75")]


def test_interest_changes_equity():
    assert equities(tell(portfolio(), charged("0.25"))) == [D("999.75")]


def test_interest_and_fees_in_coin_change_what_is_held_of_it():
    held = portfolio()
    tell(held, mark(100.0), mark(100.0, SPOT), fill(SPOT, "-1", "100"))

    said = tell(held, charged("0.01", "BTC"))
    assert [(one.strategy, one.quantity) for one in said[:-1]] == [("a", D("-1.01"))]
    said = tell(held, fill(PERP, "1", "100", strategy="b", fee="0.02", fee_currency="BTC"))
    assert [(one.instrument, one.quantity) for one in said[:-1]] == [(PERP, D(1)), (SPOT, D("-0.02"))]


@pytest.mark.parametrize(
    ("price", "said"),
    [(102.49, []), (102.5, [D("1002.50")]), (97.51, []), (97.5, [D("997.50")])],
    ids=["less up", "up", "less down", "down"],
)
def test_a_move_of_a_step_is_said(price, said):
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"))

    assert equities(tell(held, mark(price))) == said


def test_the_step_is_measured_from_what_was_last_said():
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"))

    assert equities(tell(held, mark(102.0), mark(104.0), mark(102.0), mark(101.0))) == [D(1004), D(1001)]


def test_nothing_held_is_nothing_said():
    assert tell(portfolio(), mark(100.0), mark(200.0)) == []


def test_a_position_without_a_mark_is_worth_its_price_and_says_so_until_one_comes():
    held = portfolio()
    assert tell(held, fill(PERP, "1", "100", fee="1"))[-1] == EquityChanged(D(999), D(999), marks_known=False)
    assert tell(held, mark(100.1)) == [EquityChanged(D("999.1"), D(999), marks_known=True)]


def test_coins_brought_in_are_unknown_until_marked():
    held = portfolio(balances={"USDT": D(1000), "BTC": D(2)})
    assert tell(held, NodeStarted("portfolio"))[-1] == EquityChanged(D(1000), D(1000), marks_known=False)
    assert tell(held, Bar(SPOT, 0, 0, 1.0, 1.0, 1.0, 100.0, 1.0)) == [EquityChanged(D(1200), D(1000), marks_known=True)]


def test_profits_are_said_in_parts_just_before_the_equity_where_that_is_asked_for():
    held = portfolio(say_profits=True)
    bought = fill(PERP, "1", "101", fee="0.05", reference="100.5")
    said = tell(held, mark(100.0), bought, settled(PERP, rate="0.0001", mark="100", amount="-0.01"), mark(110.0))

    assert [type(one) for one in said] == [PositionChanged, *3 * [ProfitsStated, EquityChanged]]
    last, equity = said[-2:]
    own = last.strategies["a"]
    assert (own.price, own.slippage, own.fees, own.funding) == (D("9.5"), D("-0.5"), D("-0.05"), D("-0.01"))
    assert {name: one.brought_in for name, one in last.strategies.items()} == {"a": 500, "b": 250, "": 250}
    assert equity.equity == sum(
        getattr(one, part) for one in last.strategies.values() for part in ProfitParts.__struct_fields__
    )


def test_a_start_restates_positions_and_equity():
    held = portfolio()
    before = tell(held, mark(100.0), fill(PERP, "1", "100"), fill(PERP, "-2", "100", strategy="b"))

    assert tell(held, NodeStarted("portfolio")) == [before[0], before[2], before[3]]


def test_a_liquidation_is_told_to_everybody_it_befell():
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"), fill(PERP, "2", "100", strategy="b"))

    said = tell(held, fill(PERP, "-3", "90", strategy="", ending="liquidation"))
    assert [(message.strategy, message.quantity) for message in said[:-1]] == [("a", 0), ("b", 0)]


# --- what the venue says and nothing explains ---------------------------------------------------


def entry(quantity, instrument="", currency="", *, strategy="", price="0", reason="corrected", name="x"):
    return AdjustBooks(name, strategy, instrument, currency, D(quantity), D(price), reason)


def in_parts(held, strategy):
    profit = held.profits()[strategy]
    return {part: value for part in profit.PARTS if (value := getattr(profit, part))}


def test_an_adjustment_is_made_once_and_said_with_what_it_changes():
    held = portfolio()
    tell(held, mark(100.0))
    said = tell(held, entry("0.5", PERP, strategy="a", price="90"), entry("0.5", PERP, strategy="a", price="90"))

    assert said == [
        BooksAdjusted("x", "a", PERP, "", D("0.5"), D(90), "corrected"),
        PositionChanged("a", PERP, D("0.5"), D(0), D(90)),
        EquityChanged(D(1005), D(1000), marks_known=True),
    ]


def test_money_that_nothing_explains_is_a_part_of_its_own_and_flagged():
    held = portfolio()
    (_, equity) = tell(held, entry("-0.01", currency="USDT"))

    assert equity == EquityChanged(D("999.99"), D("999.99"), marks_known=True)
    assert in_parts(held, "") == {"adjustments": D("-0.01")}
    assert held.state.ledger.account()["USDT"]["adjustment"] == D("0.01")


def test_a_position_that_was_lost_is_taken_out_at_what_it_was_entered_at_and_no_price_profit():
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"), mark(104.0))
    tell(held, entry("-1", PERP, strategy="a", price="100"))

    assert in_parts(held, "a") == {"price": D(4), "adjustments": D(-4)}
    assert held.state.ledger.account()[PERP] == {"trading": D(-1), "position": D(0), "adjustment": D(1)}
    assert held.state.ledger.cash() == 1000


def test_coins_that_nothing_explains_come_at_their_mark_without_being_paid_for():
    held = portfolio()
    tell(held, mark(100.0, SPOT))
    (_, position, equity) = tell(held, entry("0.2", SPOT))
    tell(held, mark(110.0, SPOT))

    assert (position.quantity, position.entry) == (D("0.2"), D(100))
    assert equity == EquityChanged(D(1020), D(1000), marks_known=True)
    assert in_parts(held, "") == {"price": D(2), "adjustments": D(20)}


def test_profit_realised_at_another_time_moves_between_position_and_cash_alone():
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"))
    before = held.profits()
    (_, equity) = tell(held, entry("0.3", PERP, "USDT", price="100.3"))

    assert equity == EquityChanged(D(1000), D("1000.3"), marks_known=True)
    assert held.profits() == before
    assert tell(held, fill(PERP, "-1", "101"))[-1].cash == 1001  # it is realised once


@pytest.mark.parametrize("marked", [True, False])
def test_what_was_there_before_us_is_brought_in_and_no_profit(marked):
    held = portfolio(balances={})
    if marked:
        tell(held, mark(100.0), mark(50.0, SPOT))
    said = tell(
        held,
        entry("1000", currency="USDT", reason=OPENING, name="1"),
        entry("2", PERP, price="90", reason=OPENING, name="2"),
        entry("3", SPOT, reason=OPENING, name="3"),
    )
    assert said[-1].marks_known is marked
    assert said[-1].cash == 1000
    tell(held, mark(100.0), mark(50.0, SPOT))
    profits = held.profits()

    assert held.state.ledger.equity(held.state.marks) == 1000 + 2 * 10 + 3 * 50
    books = held.state.ledger.books
    assert {name: book.balance("USDT", "cash") for name, book in books.items()} == {"a": 500, "b": 250, "": 250}
    # Without a mark a position is brought in at its price: what it has gained since then is the reserve's profit.
    assert {name: profit.net() for name, profit in profits.items()} == {"a": 0, "b": 0, "": 0 if marked else 20}
    assert not any(profit.adjustments for profit in profits.values())


def test_what_the_books_do_not_have_cannot_be_adjusted():
    for one in (entry("1", "SOLUSDT-LINEAR.BYBIT"), entry("1", currency="SOL"), entry("1")):
        with pytest.raises(ContractError, match="which the books do not have"):
            tell(portfolio(), one)


# --- time ---------------------------------------------------------------------------------------


def test_equity_is_said_at_midnight_even_when_nothing_happened():
    held = portfolio()
    assert held.wake_at() is None

    tell(held, mark(100.0))
    assert held.wake_at() == 11 * DAY
    assert tell(held, Wake(), now=11 * DAY - 1) == []
    assert tell(held, Wake(), now=11 * DAY) == [EquityChanged(D(1000), D(1000), marks_known=True)]
    assert held.wake_at() == 12 * DAY


def test_the_reserve_is_what_no_strategy_has():
    books = portfolio().state.ledger.books
    assert {name: book.balance("USDT", "cash") for name, book in books.items()} == {"a": 500, "b": 250, "": 250}


def test_profits_are_read_up_to_the_last_mark():
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "101", fee="0.1", reference="100"), mark(100.5))
    profit = held.profits()["a"]

    assert (profit.price, profit.slippage, profit.fees) == (D("0.5"), D(-1), D("-0.1"))


def test_the_signature_is_the_contract():
    marks = {MarkPrice, Bar, Trade, Quote}
    assert takes(Portfolio) == marks | {OrderFilled, FundingSettled, InterestCharged, AdjustBooks, NodeStarted, Wake}
    assert says(Portfolio) == {PositionChanged, EquityChanged, BooksAdjusted, ProfitsStated}
    assert isinstance(portfolio(), Observer)


# --- skipping says what stepping says -------------------------------------------------------------


def rows(kind, instrument, rng, count, volatility):
    ts = NOON + np.sort(rng.integers(0, 3 * DAY, count)).astype(np.int64)
    price = 100 * np.exp(np.cumsum(rng.normal(0, volatility, count)))
    price = np.round(price, 2)
    ones = np.ones(count)
    columns = {
        MarkPrice: {"price": price},
        Trade: {"price": price, "size": ones, "side": np.ones(count, np.int8)},
        Quote: {"bid": price - 0.01, "ask": price + 0.02, "bid_size": ones, "ask_size": ones},
        Bar: {"open": price, "high": price, "low": price, "close": price, "volume": ones},
    }[kind]
    return Stream(kind, instrument, ts, columns, interval=1)


def events(tape, arrivals):
    """The tape's rows and the arrivals, in order: the rows of an instant come first."""
    position = 0
    for now, message in arrivals:
        end = tape.after(now)
        yield position, end, now, message
        position = end
    yield position, tape.size, None, None


def play(held, tape, arrivals, *, skipping):
    """Told, with the time, and all it said; `arrivals` and midnights come between rows."""
    said = []

    def hear(message, now):
        said.extend((now, answer) for answer in held.handle(message, now))

    def span(position, end):
        while position < end:
            source, row = tape.at(position)
            if not skipping:
                if (source.instrument, source.kind) in WATCHES:
                    hear(source.message(row), tape.ts_at(position))
                position += 1
                continue
            loud = held.quiet_until(tape, position, end)
            assert position <= loud <= end
            held.skip(tape, position, loud)
            if loud < end:
                source, row = tape.at(loud)
                assert (source.instrument, source.kind) in WATCHES
                hear(source.message(row), tape.ts_at(loud))
            position = loud + 1

    for position, end, now, message in events(tape, arrivals):
        reached = position
        until = tape.last_ts if now is None else now
        while True:
            wake = held.wake_at()
            if wake is None and reached < end:
                span(reached, reached + 1)
                reached += 1
                continue
            if wake is None or wake > until:
                break
            middle = max(reached, min(end, tape.after(wake)))
            span(reached, middle)
            reached = middle
            hear(Wake(), wake)
        span(reached, end)
        if message is not None:
            hear(message, now)
    return said


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_skipping_says_what_stepping_says_and_leaves_the_same_state(data, seed):
    rng = np.random.default_rng(seed)
    kinds = [(PERP, MarkPrice), (SPOT, Bar), (SPOT, Quote), (ETH_PERP, Trade), (ETH_PERP, MarkPrice)]
    chosen = data.draw(st.lists(st.sampled_from(kinds), min_size=1, unique=True))
    volatility = data.draw(st.sampled_from([1e-4, 1e-3, 1e-2]))
    tape = Tape([rows(kind, name, rng, int(rng.integers(1, 500)), volatility) for name, kind in chosen])
    counter = itertools.count()
    names = st.sampled_from([PERP, SPOT, ETH_PERP])
    quantity = st.decimals("-8", "8", places=3).filter(bool)
    event = st.one_of(
        st.builds(
            lambda name, signed, strategy, fee: fill(
                name, signed, "100.05", strategy=strategy, fee=fee, reference="100", trade_id=f"t{next(counter)}"
            ),
            names,
            quantity,
            st.sampled_from(["a", "b", ""]),
            st.sampled_from(["0", "0.07"]),
        ),
        st.builds(charged, st.sampled_from(["0.1", "3"])),
        st.builds(lambda: NodeStarted("portfolio")),
    )
    times = st.integers(0, 3 * DAY).map(lambda offset: NOON + offset)
    arrivals = sorted(data.draw(st.lists(st.tuples(times, event), max_size=12)), key=lambda pair: pair[0])
    balances = data.draw(st.sampled_from([{"USDT": D(1000)}, {"USDT": D(1000), "BTC": D("0.7")}]))

    stepped, skipped = portfolio(balances=balances), portfolio(balances=balances)
    told_each = play(stepped, tape, arrivals, skipping=False)
    told_some = play(skipped, tape, arrivals, skipping=True)

    assert told_some == told_each
    assert skipped.state == stepped.state
    assert msgspec.json.decode(msgspec.json.encode(skipped.state), type=PortfolioState) == skipped.state


def test_quiet_from_end_to_end_when_nothing_is_held():
    tape = Tape([rows(MarkPrice, PERP, np.random.default_rng(0), 300, 0.01)])
    held = portfolio()
    tell(held, mark(100.0))

    assert held.quiet_until(tape, 0, 300) == 300


def test_a_row_is_not_slept_through_before_the_time_is_known():
    tape = Tape([rows(MarkPrice, PERP, np.random.default_rng(0), 300, 0.01)])

    assert portfolio().quiet_until(tape, 0, 300) == 0


def test_answering_changes_nothing():
    tape = Tape([rows(MarkPrice, PERP, np.random.default_rng(0), 300, 0.01)])
    held = portfolio()
    tell(held, mark(100.0), fill(PERP, "1", "100"))
    before = msgspec.json.encode(held.state)

    assert 0 < held.quiet_until(tape, 0, 300) < 300
    assert msgspec.json.encode(held.state) == before
