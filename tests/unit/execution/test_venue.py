"""What a venue of ours does with an order: told a market, it says what Bybit would have said."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.errors import ConfigError
from hean.execution.floor import MS
from hean.execution.simulated_venue import SimulatedVenue, SimulatedVenueConfig, Tier
from hean.messages import (
    Bar,
    BookLevels,
    CancelOrder,
    Liquidity,
    MarkPrice,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Quote,
    Side,
    SnapshotAccount,
    Trade,
)
from tests.unit.execution.market import INSTRUMENTS, MINUTE, PERP, SPOT, START, D, Told, buy, fills, instrument, sell


def bars(*, price=100.0, **more):
    """A venue on candles that has seen one, in which nothing moved."""
    told = Told(Tier.BARS, **more)
    for name in (PERP, SPOT):
        told.bar(0, price, price, price, price, name)
    return told


def reasons(said):
    return [fact.reason for fact in said if isinstance(fact, OrderRejected | OrderExpired | OrderCanceled)]


# --- candles ----------------------------------------------------------------------------------------


def test_a_market_order_fills_at_the_next_open():
    told = bars(half_spread_bp=10)
    assert told(buy("1"), START + MINUTE) == []

    assert fills(told.bar(1, 101, 105, 99, 104)[0]) == [(1, D("101.2"))]


def test_a_candle_that_begins_now_has_shown_its_open():
    told = bars()
    told.bar(1, 101, 101, 101, 101)

    assert fills(told(sell("1"), START + MINUTE)) == [(-1, D("101.0"))]


@pytest.mark.parametrize(
    ("candle", "filled"),
    [
        ((101, 102, 98, 101), [(-1, D("99.0"))]),
        ((98.5, 99, 98, 99), [(-1, D("98.5"))]),
        ((101, 103, 100, 102), [(-1, D("103.0"))]),
        ((104, 105, 103, 104), [(-1, D("104.0"))]),
        ((101, 104, 98, 101), [(-1, D("99.0"))]),
        ((101, 102, 99.5, 101), []),
    ],
    ids=["stop", "gap through the stop", "target", "gap through the target", "both: the stop first", "neither"],
)
def test_exits_within_a_candle(candle, filled):
    told = bars()
    told(buy("1", bracket=("99", "103")), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)

    opened, closed = told.bar(2, *candle)
    assert fills(opened + closed) == filled
    assert bool(told.venue.state.desks[PERP].held) is not bool(filled)


def test_an_entry_that_opens_beyond_its_stop_leaves_at_once_at_that_price():
    told = bars()
    told(buy("1", bracket=("99", "103")), START + MINUTE)
    opened, closed = told.bar(1, 98, 102, 97, 101)

    assert fills(opened) == [(1, D("98.0")), (-1, D("98.0"))]
    assert closed == []


def test_an_entry_and_its_stop_in_one_candle_cost_the_stop():
    told = bars()
    told(buy("1", limit="99.5", bracket=("99", "103")), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)

    assert fills(told.bar(2, 100, 104, 98, 103)[1]) == [(1, D("99.5")), (-1, D("99.0"))]


@pytest.mark.parametrize(
    ("candle", "filled"),
    [((100, 101, 99, 100), []), ((100, 101, 98.9, 100), [(1, D("99.0"))]), ((99, 100, 99, 100), []), ((98, 99, 97, 99), [(1, D("99.0"))])],
    ids=["a touch", "through", "a touch at the open", "through at the open"],
)  # fmt: skip
def test_a_resting_limit_needs_prices_through_it(candle, filled):
    told = bars()
    told(buy("1", limit="99"), START + MINUTE)
    assert [type(fact) for fact in told.bar(1, 100, 100, 100, 100)[0]] == [OrderAccepted]

    opened, closed = told.bar(2, *candle)
    assert fills(opened + closed) == filled
    assert all(fact.liquidity is Liquidity.MAKER for fact in opened + closed)


@pytest.mark.parametrize(
    ("tif", "limit", "what"),
    [
        ("PostOnly", "101", "EC_PostOnlyWillTakeLiquidity"),
        ("PostOnly", "99", "rests"),
        ("IOC", "99", "EC_NoImmediateQtyToFill"),
        ("FOK", "99", "EC_NoImmediateQtyToFill"),
        ("IOC", "101", "fills"),
        ("FOK", "101", "fills"),
        ("GTC", "101", "fills"),
    ],
)
def test_what_a_limit_meets_at_the_open(tif, limit, what):
    told = bars()
    told(buy("1", limit=limit, tif=tif), START + MINUTE)
    (fact,) = told.bar(1, 100, 100, 100, 100)[0]

    assert {OrderAccepted: "rests", OrderFilled: "fills"}.get(type(fact)) == what or fact.reason == what


def test_a_limit_order_that_takes_pays_no_more_than_its_limit():
    told = bars(half_spread_bp=100)
    told(buy("1", limit="100.5"), START + MINUTE)

    assert fills(told.bar(1, 100, 100, 100, 100)[0]) == [(1, D("100.5"))]


def test_reduce_only_is_cut_to_the_position():
    told = bars()
    told(buy("1"), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)
    told(sell("3", reduce_only=True), START + 2 * MINUTE)
    filled, rest = told.bar(2, 100, 100, 100, 100)[0]

    assert fills([filled]) == [(-1, D("100.0"))]
    assert rest.reason == "CancelByReduceOnly"
    assert told.position() == 0


def test_a_strategys_own_closing_trade_uses_up_its_exits():
    told = bars()
    told(buy("3", bracket=("99", None), order_id="entry"), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)
    told(sell("1"), START + 2 * MINUTE)
    told.bar(2, 100, 100, 100, 100)

    assert told.venue.state.desks[PERP].held["entry"].left == 2
    assert fills(told.bar(3, 98, 98, 98, 98)[0]) == [(-2, D("98.0"))]
    assert told.position() == 0


def test_an_exit_names_its_entry_and_the_price_it_was_held_at():
    told = bars()
    told(buy("1", bracket=("99", None), order_id="entry"), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)
    (fact,) = told.bar(2, 98, 98, 98, 98)[0]

    assert (fact.client_order_id, fact.exit, fact.reference) == ("entry-stop", "stop", D(99))


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (buy("1", "XRPUSDT-LINEAR.BYBIT"), "10001 symbol invalid"),
        (buy("0.0005"), "10001 quantity 0.0005 is not a positive multiple of 0.001"),
        (buy("0"), "10001 quantity 0 is not"),
        (buy("1", limit="100.05"), "10001 price 100.05 is not a positive multiple of 0.1"),
        (buy("101"), "10001 quantity 101 is over the largest order of 100"),
        (buy("0.04"), "110094 order value 4.00 is under 5"),
        (buy("0.000000", SPOT), "10001"),
        (sell("1", reduce_only=True), "110017"),
        (sell("1", SPOT), "170131 Insufficient balance: 1 BTC needed, 0 there"),
        (buy("100", SPOT, limit="100.01"), "170131 Insufficient balance: 10001.00 USDT needed, 10000 there"),
        (buy("1", "ETHUSDT-LINEAR.BYBIT"), "110118 no price is known"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_refusals_in_bybits_words(order, code):
    told = bars()

    assert told(order, START + MINUTE)[0].reason.startswith(code)


def test_a_second_use_of_a_link_id_is_refused_even_after_the_first_has_ended():
    told = bars()
    told(buy("1", order_id="x"), START + MINUTE)
    assert reasons(told(buy("1", order_id="x"), START + MINUTE)) == ["110072 OrderLinkedID is duplicate"]

    told.bar(1, 100, 100, 100, 100)
    assert reasons(told(buy("1", order_id="x"), START + 2 * MINUTE)) == ["110072 OrderLinkedID is duplicate"]


def test_margin_is_asked_for_what_is_at_work_too():
    told = bars(balances={"USDT": "100"}, leverage=10)
    assert told(buy("5"), START + MINUTE) == []

    (refused,) = told(buy("5"), START + MINUTE)
    assert refused.reason == "110007 ab not enough for new order: 100.55 needed, 100.00 free"


def test_a_coin_is_not_sold_twice():
    told = bars(balances={"USDT": "0", "BTC": "1"})
    assert told(sell("0.6", SPOT), START + MINUTE) == []

    assert reasons(told(sell("0.6", SPOT), START + MINUTE))[0].startswith("170131")


def test_a_spot_buyer_pays_in_the_coin():
    told = bars()
    told(buy("1", SPOT), START + MINUTE)
    told.bar(1, 100, 100, 100, 100, SPOT)

    assert told.account.balances == {"USDT": D("9900.00"), "BTC": D("0.999")}


def test_a_cancel_of_what_never_was_is_refused_and_of_what_has_ended_is_not_answered():
    told = bars()
    told(buy("1", order_id="x"), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)

    assert reasons(told(CancelOrder("a", "y", PERP), START + 2 * MINUTE)) == ["110001 order not exists"]
    assert told(CancelOrder("a", "x", PERP), START + 2 * MINUTE) == []


def test_the_snapshot_is_what_is_there():
    told = bars()
    told(buy("1"), START + MINUTE)
    told.bar(1, 100, 100, 100, 100)
    told(buy("2", limit="90", order_id="x"), START + 2 * MINUTE)
    (snapshot,) = told(SnapshotAccount(7), START + 2 * MINUTE)

    assert (snapshot.request_id, snapshot.complete, snapshot.positions) == (7, True, {PERP: D(1)})
    assert [(held.client_order_id, held.quantity, held.filled) for held in snapshot.orders] == [("x", D(2), D(0))]


@pytest.mark.parametrize("odd", [{"quote": "USDC"}, {"id": "BTCUSD-INVERSE.BYBIT"}], ids=["currency", "inverse"])
def test_an_account_settles_in_one_currency(odd):
    rules = {
        PERP: INSTRUMENTS[PERP],
        "other": instrument(**({"name": SPOT} | odd) if "id" not in odd else {"name": odd["id"]}),
    }
    with pytest.raises(ConfigError, match="one quote currency"):
        SimulatedVenue(SimulatedVenueConfig(), rules, dict.fromkeys(rules, Tier.BARS), frozenset())


# --- trades -----------------------------------------------------------------------------------------


def trades(*prints, **more):
    told = Told(Tier.TRADES, **more)
    for ms, price, size in prints:
        told(a_print(ms, price, size))
    return told


def a_print(ms, price, size=1.0, side=Side.SELL):
    return Trade(PERP, START + ms * MS, float(price), size, side)


def test_an_order_fills_at_the_first_print_after_its_arrival():
    told = trades((0, 100, 1), latency_ms=80)
    told(buy("1"), START)

    assert [fills(told(a_print(ms, price))) for ms, price in ((40, 90), (80, 91), (81, 92), (82, 93))] == [
        [],
        [],
        [(1, D("92.0"))],
        [],
    ]


@given(st.text("abcdef-0123456789", min_size=1, max_size=12), st.integers(0, 9))
def test_latency_is_drawn_from_the_orders_id_and_stays_within_its_bounds(order_id, seed):
    one, other = (Told(Tier.TRADES, latency_ms=80, latency_jitter_ms=40, seed=seed) for _ in range(2))
    latency = one.venue._floor.latency(order_id)

    assert 40 * MS <= latency <= 120 * MS
    assert other.venue._floor.latency(order_id) == latency


def test_a_resting_order_is_filled_by_prints_beyond_it_and_no_more_than_their_size():
    told = trades((0, 100, 1))
    told(buy("1", limit="99"), START)
    told(a_print(1, 100))

    assert [
        fills(told(a_print(2, price, size))) for price, size in ((99, 5), (98.9, 0.4), (98.8, 0.0001), (98, 9))
    ] == [
        [],
        [(D("0.4"), D("99"))],
        [],
        [(D("0.6"), D("99"))],
    ]


def test_a_cancel_takes_its_time_and_a_print_may_come_before_it():
    told = trades((0, 100, 1), latency_ms=80)
    told(buy("2", limit="99", order_id="x"), START)
    told(a_print(100, 100))
    assert told(CancelOrder("a", "x", PERP), START + 100 * MS) == []

    assert fills(told(a_print(150, 98))) == [(1, D(99))]
    assert told.venue.wake_at() == START + 180 * MS
    assert told.wake() == [OrderCanceled("x", "a", PERP, "by us")]


# --- a book -----------------------------------------------------------------------------------------


def shown(told, bids, asks, ms=0):
    return told(BookLevels(PERP, START + ms * MS, True, tuple(bids), tuple(asks)))


def book(bids=((99.0, 1.0),), asks=((100.0, 1.0), (100.1, 2.0), (102.0, 5.0)), **more):
    told = Told(Tier.BOOK, **more)
    shown(told, bids, asks)
    return told


@pytest.mark.parametrize(
    ("order", "filled", "what"),
    [
        (buy("0.5"), [("0.5", "100.0")], []),
        (buy("2"), [("1", "100.0"), ("1", "100.1")], []),
        (buy("10"), [("1", "100.0"), ("2", "100.1"), ("5", "102.0")], ["EC_NoEnoughQtyToFill"]),
        (buy("5", limit="101", tif="IOC"), [("1", "100.0"), ("2", "100.1")], ["EC_NoEnoughQtyToFill"]),
        (buy("5", limit="101", tif="FOK"), [], ["EC_NoEnoughQtyToFill"]),
        (buy("3", limit="101", tif="FOK"), [("1", "100.0"), ("2", "100.1")], []),
        (buy("1", limit="99.5", tif="IOC"), [], ["EC_NoImmediateQtyToFill"]),
        (buy("1", limit="100", tif="PostOnly"), [], ["EC_PostOnlyWillTakeLiquidity"]),
        (buy("2", limit="100"), [("1", "100.0")], []),
    ],
)
def test_an_order_walks_the_book_as_it_arrives(order, filled, what):
    told = book()
    said = told(order, START)

    assert fills(said) == [(D(quantity), D(price)) for quantity, price in filled]
    assert reasons(said) == what
    left = order.quantity - sum(D(quantity) for quantity, _ in filled)
    rests = left and not what
    assert isinstance(said[-1], OrderAccepted) is bool(rests)


def test_it_meets_the_book_of_its_arrival():
    told = book(latency_ms=80)
    told(buy("1"), START)
    shown(told, [(104.0, 1.0)], [(105.0, 1.0)], ms=50)
    assert told.venue.wake_at() == START + 80 * MS

    assert fills(told.wake()) == [(1, D("105.0"))]


def test_two_of_ours_do_not_take_the_same_size():
    told = book()

    assert fills(told(buy("1"), START) + told(buy("1"), START)) == [(1, D("100.0")), (1, D("100.1"))]


def test_a_resting_order_waits_for_the_queue_before_it():
    told = book(bids=[(99.0, 5.0)], cancel_share=0.5)
    told(buy("2", limit="99"), START)

    assert fills(told(a_print(1, 99, 2.0))) == []  # five before us, two of them gone
    shown(told, [(99.0, 4.0)], [(100.0, 1.0)], ms=2)  # two traded, and one was added behind us
    shown(told, [(99.0, 2.0)], [(100.0, 1.0)], ms=3)  # two canceled: one of them before us
    assert fills(told(a_print(4, 99, 2.5))) == [(D("0.5"), D(99))]
    assert fills(told(a_print(5, 99, 9.0, Side.BUY))) == []
    assert fills(told(a_print(6, 98.9, 9.0))) == [(D("1.5"), D(99))]


def test_a_book_that_comes_through_a_resting_order_fills_it():
    told = book()
    told(buy("2", limit="99.5"), START)

    assert fills(shown(told, [(99.0, 1.0)], [(99.4, 1.0)], ms=1)) == [(2, D("99.5"))]


def test_exits_go_through_a_thin_book_as_far_as_it_reaches():
    told = book(asks=[(100.0, 5.0)])
    told(buy("3", bracket=("98", None)), START)

    assert fills(shown(told, [(97.0, 1.0), (96.0, 0.5)], [(99.0, 1.0)], ms=1)) == [
        (-1, D("97.0")),
        (D("-0.5"), D("96.0")),
    ]
    assert fills(shown(told, [(97.5, 9.0)], [(99.0, 1.0)], ms=2)) == [(D("-1.5"), D("97.5"))]
    assert not told.venue.state.desks[PERP].held


def test_a_best_bid_and_offer_is_a_book_of_one_level():
    told = Told(Tier.BOOK, kinds=(Quote, Trade))
    told(Quote(PERP, START, 99.0, 1.0, 100.0, 1.0))
    said = told(buy("3"), START)

    assert fills(said) == [(1, D("100.0"))]
    assert reasons(said) == ["EC_NoEnoughQtyToFill"]


def test_where_levels_are_told_a_quote_says_nothing_new():
    told = book()
    told(Quote(PERP, START, 1.0, 1.0, 2.0, 1.0))

    assert fills(told(buy("1"), START)) == [(1, D("100.0"))]


def test_one_instrument_may_be_told_by_mark_and_candle_together():
    told = bars()
    told(MarkPrice(PERP, START + MINUTE, 123.0))
    assert told.venue.state.desks[PERP].price == 123.0

    told(Bar(PERP, START + 2 * MINUTE, START + MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0))
    assert told.venue.state.desks[PERP].price == 1.0


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["rows", "order", "wake"]), max_size=12))
def test_no_fill_comes_before_its_order_has_arrived(steps):
    told, ms, arrivals = trades((0, 100, 1), latency_ms=80, latency_jitter_ms=40), 0, {}
    for number, step in enumerate(steps):
        ms += 30
        if step == "order":
            told(buy("1", order_id=str(number)), START + ms * MS)
            arrivals[str(number)] = START + ms * MS + told.venue._floor.latency(str(number))
        told(a_print(ms, 100 + number))

    assert all(fact.ts_event > arrivals[fact.client_order_id] for fact in told.heard if isinstance(fact, OrderFilled))


@pytest.mark.parametrize("tier", [Tier.BARS, Tier.BOOK])
def test_exits_are_held_for_what_the_fee_has_left_of_the_coin(tier):
    told = Told(tier)
    if tier is Tier.BOOK:
        told(BookLevels(SPOT, START, True, ((100.0, 9.0),), ((100.0, 9.0),)))
    else:
        told.bar(0, 100, 100, 100, 100, SPOT)
        told.bar(1, 100, 100, 100, 100, SPOT)
    now = START + MINUTE
    told(buy("1", SPOT, bracket=("90", None), order_id="entry"), now)
    assert told.venue.state.desks[SPOT].held["entry"].left == D("0.999")

    told(sell("0.999", SPOT), now)
    assert not told.venue.state.desks[SPOT].held
