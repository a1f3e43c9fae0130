"""The order book against a dictionary of its levels."""

from hypothesis import given
from hypothesis import strategies as st

from hean.market.book import OrderBook
from hean.messages import BookLevels, Side

PRICES = st.integers(1, 12).map(float)
LEVELS = st.lists(st.tuples(PRICES, st.sampled_from([0.0, 0.5, 2.0])), max_size=6).map(tuple)


@given(st.lists(st.tuples(st.booleans(), LEVELS, LEVELS), max_size=8))
def test_it_shows_what_it_was_last_told_best_first(changes):
    book = OrderBook()
    bids, asks = {}, {}
    for snapshot, buys, sells in changes:
        book.apply(BookLevels("x", 1, snapshot, buys, sells))
        if snapshot:
            bids, asks = {}, {}
        bids |= dict(buys)
        asks |= dict(sells)

        shown = (
            {price: size for price, size in bids.items() if size},
            {price: size for price, size in asks.items() if size},
        )
        assert list(book.levels(Side.BUY)) == sorted(shown[0].items(), reverse=True)
        assert list(book.levels(Side.SELL)) == sorted(shown[1].items())
        assert book.bid == max(shown[0], default=None)
        assert book.ask == min(shown[1], default=None)
        assert book.middle == ((book.bid + book.ask) / 2 if shown[0] and shown[1] else None)


def test_a_best_bid_and_offer_is_all_that_is_shown():
    book = OrderBook()
    book.apply(BookLevels("x", 1, True, ((9.0, 1.0), (8.0, 1.0)), ((11.0, 1.0),)))
    book.replace(9.5, 2.0, 10.5, 0.0)

    assert list(book.levels(Side.BUY)) == [(9.5, 2.0)]
    assert book.ask is None


def test_what_is_taken_is_gone_until_it_is_told_again():
    book = OrderBook()
    book.apply(BookLevels("x", 1, True, (), ((11.0, 1.0), (12.0, 3.0))))
    book.take(Side.SELL, 11.0, 1.0)
    book.take(Side.SELL, 12.0, 1.0)

    assert list(book.levels(Side.SELL)) == [(12.0, 2.0)]


def test_depth_counts_what_is_near_the_best():
    book = OrderBook()
    book.apply(BookLevels("x", 1, True, ((100.0, 1.0), (99.9, 2.0), (90.0, 9.0)), ()))

    assert book.depth(Side.BUY, 0.001) == 3.0
    assert book.depth(Side.SELL, 0.001) == 0.0
