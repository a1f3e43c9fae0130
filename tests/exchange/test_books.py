"""The book streams by themselves: what a client that keeps a book of its own ends up with."""

import itertools
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.exchange import render
from actors.exchange.books import Chain, prices_of, sizes_of
from hean.exchange.candles import CandleBook
from hean.exchange.listing import listings
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.execution.price_time_book import Resting
from hean.messages import Side
from hean.units import MILLISECOND, SECOND, parse_time

START = parse_time("2026-08-10")
LISTED = listings(["BTCUSDT"], at=START)
LINEAR, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
KEYS = itertools.count()


def market(instrument=LINEAR):
    listing = LISTED[instrument]
    return Market(listing, Pricing(listing, START), CandleBook())


def rest(market, side, price, size):
    """Put `size` steps at `price` ticks; what was there before goes."""
    book = market.book
    for resting in [one for one in book.opposite(opposite(side), None) if one.price == price]:
        book.remove(resting)
    if size:
        book.add(Resting(str(next(KEYS)), "somebody", side, price, size))
    market.seq += 1
    market.ts_matched += MILLISECOND


def opposite(side):
    return Side.SELL if side is Side.BUY else Side.BUY


def fill(market, levels, size=5):
    for step in range(levels):
        rest(market, Side.BUY, 9_999 - step, size)
        rest(market, Side.SELL, 10_001 + step, size)


def heard(payload):
    return json.loads(payload)


class Kept:
    """A book as a strict client keeps it: every breach of the stream's rules is an error."""

    def __init__(self, depth):
        self.depth = depth
        self.bids, self.asks = {}, {}
        self.u = self.seq = 0

    def hear(self, message):
        data = message["data"]
        assert data["seq"] >= self.seq or data["u"] == 1
        if message["type"] == "snapshot":
            self.bids, self.asks = dict(map(tuple, data["b"])), dict(map(tuple, data["a"]))
        else:
            assert data["u"] == self.u + 1
            assert data["b"] or data["a"]
            for side, told in ((self.bids, data["b"]), (self.asks, data["a"])):
                for price, size in told:
                    if size == "0":
                        del side[price]
                    else:
                        assert side.get(price) != size
                        side[price] = size
        self.u, self.seq = data["u"], data["seq"]
        bids, asks = [Decimal(p) for p, _ in data["b"]], [Decimal(p) for p, _ in data["a"]]
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert max(len(self.bids), len(self.asks)) <= self.depth

    @property
    def levels(self):
        return [
            sorted(([p, s] for p, s in self.bids.items()), key=lambda level: -Decimal(level[0])),
            sorted(([p, s] for p, s in self.asks.items()), key=lambda level: Decimal(level[0])),
        ]


def truth(market, depth):
    return [render.levels(market, side, depth) for side in (Side.BUY, Side.SELL)]


CHANGES = st.lists(
    st.tuples(st.sampled_from([Side.BUY, Side.SELL]), st.integers(0, 80), st.integers(0, 3)), max_size=12
)


@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=15), st.sampled_from([LINEAR, SPOT]), st.integers(40, 70))
def test_a_kept_book_is_the_book_whoever_joins_when(steps, instrument, levels):
    shown = market(instrument)
    fill(shown, levels)
    chain = Chain(shown, 50, START)
    clients = [Kept(50)]
    clients[0].hear(heard(chain.first(START)))

    for number, (changes, joins) in enumerate(steps, 1):
        now = START + number * 20 * MILLISECOND
        for side, away, size in changes:
            rest(shown, side, 9_999 - away if side is Side.BUY else 10_001 + away, size)
        if joins:
            # Between two pushes: the book has moved on, but what comes next is told to all.
            clients.append(Kept(50))
            clients[-1].hear(heard(chain.first(now)))
        for payload in chain.due(now):
            for client in clients:
                client.hear(heard(payload))
        for client in clients:
            assert client.levels == truth(shown, 50)
            assert client.u == chain.u


def test_nothing_is_said_of_what_happens_below_the_window():
    shown = market()
    fill(shown, 60)
    chain = Chain(shown, 50, START)

    rest(shown, Side.BUY, 9_999 - 55, 9)

    assert chain.due(START + SECOND) == []
    assert chain.u == 1


def test_a_level_that_leaves_the_window_is_deleted_and_one_that_enters_is_inserted():
    shown = market()
    fill(shown, 60)
    chain = Chain(shown, 50, START)

    rest(shown, Side.BUY, 10_000, 7)
    [pushed] = chain.due(START + SECOND)
    assert heard(pushed)["data"]["b"] == [["1000.00", "0.007"], ["995.00", "0"]]

    rest(shown, Side.BUY, 10_000, 0)
    [pushed] = chain.due(START + 2 * SECOND)
    assert heard(pushed)["data"]["b"] == [["1000.00", "0"], ["995.00", "0.005"]]


def test_a_change_that_is_taken_back_between_two_pushes_is_no_update():
    shown = market()
    fill(shown, 3)
    chain = Chain(shown, 50, START)

    rest(shown, Side.SELL, 10_002, 9)
    rest(shown, Side.SELL, 10_002, 5)

    assert chain.due(START + SECOND) == []
    assert chain.u == 1


def test_times_and_sequence_are_those_of_the_matching_engine():
    shown = market()
    fill(shown, 3)
    chain = Chain(shown, 200, START)
    rest(shown, Side.SELL, 10_002, 9)
    shown.ts_matched = START + 7 * MILLISECOND

    [pushed] = chain.due(START + 100 * MILLISECOND)

    message = heard(pushed)
    assert message["topic"] == "orderbook.200.BTCUSDT"
    assert message["type"] == "delta"
    assert message["ts"] == START // MILLISECOND + 100
    assert message["cts"] == START // MILLISECOND + 7
    assert message["data"]["seq"] == shown.seq
    assert set(message) == {"topic", "type", "ts", "data", "cts"}
    assert set(message["data"]) == {"s", "b", "a", "u", "seq"}


def test_the_best_prices_come_as_snapshots_and_again_after_three_seconds():
    shown = market()
    fill(shown, 3)
    chain = Chain(shown, 1, START)
    rest(shown, Side.BUY, 9_999, 8)

    [changed] = chain.due(START + SECOND)
    unchanged = chain.due(START + 3 * SECOND)
    rest(shown, Side.BUY, 9_998, 9)
    [again] = chain.due(START + 4 * SECOND)

    assert heard(changed)["type"] == heard(again)["type"] == "snapshot"
    assert heard(changed)["data"]["b"] == [["999.90", "0.008"]]
    assert unchanged == []
    assert heard(again)["data"]["u"] == heard(changed)["data"]["u"] == 2
    assert heard(again)["data"]["b"] == heard(changed)["data"]["b"]


def test_a_restart_begins_the_chain_at_one_with_the_book_as_it_is():
    shown = market()
    fill(shown, 3)
    chain = Chain(shown, 50, START)
    kept = Kept(50)
    for size in (1, 2, 3):
        rest(shown, Side.BUY, 9_999, size)
        chain.due(START + SECOND)
    rest(shown, Side.BUY, 9_999, 4)

    kept.hear(heard(chain.restart(START + 2 * SECOND)))

    assert kept.u == 1
    assert kept.levels == truth(shown, 50)
    rest(shown, Side.BUY, 9_999, 5)
    [pushed] = chain.due(START + 3 * SECOND)
    kept.hear(heard(pushed))
    assert kept.u == 2


def test_an_empty_book_is_a_snapshot_of_nothing():
    assert heard(Chain(market(), 50, START).first(START))["data"]["b"] == []


@pytest.mark.parametrize("instrument", [LINEAR, SPOT])
@given(st.integers(1, 10**9))
def test_a_count_is_written_as_the_number_it_stands_for(instrument, count):
    listing = LISTED[instrument]

    assert prices_of(listing)(count) == render.price(listing.price(count), listing)
    assert sizes_of(listing)(count) == render.size(listing.quantity(count), listing)
