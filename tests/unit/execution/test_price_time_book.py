from hypothesis import given
from hypothesis import strategies as st

from hean.execution.price_time_book import PriceTimeBook, Resting
from hean.messages import Side

ACTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "reduce", "remove"]),
        st.sampled_from(Side),
        st.integers(95, 105),
        st.integers(1, 9),
        st.integers(0, 40),
    ),
    max_size=80,
)


@given(ACTS)
def test_the_book_says_what_a_plain_list_of_its_orders_would(acts):
    book, plain = PriceTimeBook(), []
    for number, (act, side, price, size, pick) in enumerate(acts):
        before = book.version
        if act == "add":
            book.add(Resting(f"o{number}", "ann", side, price, size))
            plain.append([f"o{number}", side, price, size])
        elif plain:
            chosen = plain[pick % len(plain)]
            resting = book.get(chosen[0])
            by = min(size, chosen[3]) if act == "reduce" else chosen[3]
            book.reduce(resting, by)
            chosen[3] -= by
            if not chosen[3]:
                plain.remove(chosen)
        else:
            continue
        assert book.version > before

    assert len(book) == len(plain)
    for side in Side:
        mine = [order for order in plain if order[1] is side]
        # The sort is stable: at one price the oldest stays first.
        queue = sorted(mine, key=lambda order: -order[2] * side)
        levels = {}
        for _, _, price, size in queue:
            levels[price] = levels.get(price, 0) + size
        assert book.levels(side, 100) == list(levels.items()) == list(book.each_level(side))
        assert book.levels(side, 2) == list(levels.items())[:2]
        assert list(book.prices(side)) == list(levels)
        assert book.best(side) == next(iter(levels), None)
        assert [resting.key for resting in book.opposite(Side(-side), None)] == [order[0] for order in queue]
        within = [order[0] for order in queue if (order[2] - 100) * side >= 0]
        assert [resting.key for resting in book.opposite(Side(-side), 100)] == within
        first = book.first(side)
        assert (first.key if first is not None else None) == (queue[0][0] if queue else None)
        assert all(book.size_at(side, price) == size for price, size in levels.items())
        assert book.size_at(side, 42) == 0
