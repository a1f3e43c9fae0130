"""A kept book is the right one, or none: whatever happens to the deltas on their way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hean.bybit.book_chain import BookChain, Link, unknown
from hean.bybit.decode import BookUpdate
from hean.messages import BookLevels, Side

NAME = "BTCUSDT-LINEAR.BYBIT"


def update(u, *, snapshot=False, bids=(), asks=(), ts=None):
    return BookUpdate(u, BookLevels(NAME, u if ts is None else ts, snapshot, tuple(bids), tuple(asks)))


def opened(u=10):
    chain = BookChain()
    assert chain.hear(update(u, snapshot=True, bids=[(99, 1), (98, 2)], asks=[(101, 1)])) is Link.FITS
    return chain


def shown(chain):
    return None if chain.book is None else (list(chain.book.levels(Side.BUY)), list(chain.book.levels(Side.SELL)))


def test_nothing_is_known_before_the_first_snapshot():
    chain = BookChain()
    assert chain.hear(update(5, bids=[(99, 1)])) is Link.WAITING
    assert chain.book is None


def test_levels_are_kept_sorted_however_they_come():
    chain = opened()
    assert chain.hear(update(11, bids=[(98.5, 3)], asks=[(100.5, 4), (101, 0)])) is Link.FITS
    assert shown(chain) == ([(99, 1), (98.5, 3), (98, 2)], [(100.5, 4)])


def test_the_last_update_said_again_is_passed_over():
    chain = opened()
    chain.hear(update(11, bids=[(98, 0)]))
    assert chain.hear(update(11, bids=[(98, 0)])) is Link.OLD
    assert shown(chain) == ([(99, 1)], [(101, 1)])


def test_a_gap_an_older_update_and_a_crossed_book_make_it_unknown_until_the_next_snapshot():
    for bad in (update(12), update(9), update(11, bids=[(101, 1)])):
        chain = opened()
        assert chain.hear(bad) is Link.BROKEN
        assert chain.book is None
        assert chain.hear(update(bad.u + 1, bids=[(97, 1)])) is Link.WAITING
        assert chain.hear(update(40, snapshot=True, bids=[(90, 1)], ts=99)) is Link.FITS
        assert shown(chain) == ([(90, 1)], [])
        assert chain.breaks == 1


def test_u_1_begins_anew_even_with_an_earlier_time():
    chain = opened(u=500)
    assert chain.hear(update(1, snapshot=True, bids=[(80, 1)], ts=3)) is Link.FITS
    assert chain.hear(update(2, bids=[(81, 1)], ts=4)) is Link.FITS
    assert shown(chain)[0] == [(81, 1), (80, 1)]


def test_a_snapshot_that_was_overtaken_does_not_turn_the_book_back():
    chain = opened(u=10)
    chain.hear(update(11, bids=[(99, 7)]))
    assert chain.hear(update(10, snapshot=True, bids=[(99, 1)], ts=10)) is Link.OLD
    assert shown(chain)[0][0] == (99, 7)


def test_an_unknown_book_is_told_as_an_empty_one():
    told = unknown(NAME, 5)
    assert (told.snapshot, told.bids, told.asks) == (True, (), ())


FATES = st.lists(st.sampled_from(["as it is", "lost", "twice", "swapped", "late"]), min_size=1, max_size=40)


@given(st.data(), FATES)
@settings(max_examples=200)
def test_whatever_becomes_of_the_deltas_no_wrong_book_is_shown(data, fates):
    """A true book lives at the venue; its deltas are lost, repeated, swapped or held up on their way."""
    true = {99.0: 1.0, 98.0: 2.0}
    truths = {1000: dict(true)}
    sent = [update(1000, snapshot=True, bids=true.items(), asks=[(101, 1)])]
    for at, fate in enumerate(fates, start=1001):
        price = data.draw(st.sampled_from([95.0, 96.0, 97.0, 98.0, 99.0]))
        size = data.draw(st.sampled_from([0.0, 1.0, 2.0]))
        true[price] = size
        true = {level: of for level, of in true.items() if of}
        truths[at] = dict(true)
        delta = update(at, bids=[(price, size)])
        match fate:
            case "lost":
                pass
            case "twice":
                sent += [delta, delta]
            case "swapped":
                sent.insert(len(sent) - 1, delta)
            case "late":
                sent.insert(0, delta)
            case _:
                sent.append(delta)
    chain = BookChain()
    for one in sent:
        chain.hear(one)
        if chain.book is not None:
            assert dict(chain.book.levels(Side.BUY)) == truths[chain.last]
            assert [price for price, _ in chain.book.levels(Side.BUY)] == sorted(truths[chain.last], reverse=True)
