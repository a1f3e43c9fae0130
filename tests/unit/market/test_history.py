"""A history holds the newest rows, and the same ones whichever way they came."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hean.market.history import History
from hean.messages import Bar, Quote
from hean.tape import Stream, Tape

PERP = "BTCUSDT-LINEAR.BYBIT"
COLUMNS = ("close", "volume")


def bars(rows, first=0):
    values = np.arange(first, first + rows, dtype=np.float64)
    return Stream(
        Bar,
        PERP,
        (values * 10).astype(np.int64),
        {name: values + at for at, name in enumerate(("open", "high", "low", "close", "volume"))},
        interval=10,
    )


def told(history):
    ts, *columns = history.arrays()
    return ts.tolist(), [column.tolist() for column in columns]


def as_if_appended(stream, rows, size, before=()):
    history = History(Bar, PERP, COLUMNS, size)
    for ts, values in before:
        history.append(ts, values)
    for row in rows:
        append(history, stream, row)
    return history


def append(history, stream, row):
    history.append(stream.ts.item(row), tuple(stream.columns[name].item(row) for name in COLUMNS))


@given(
    size=st.integers(1, 40),
    first=st.integers(0, 20),
    pieces=st.lists(st.tuples(st.integers(1, 15), st.sampled_from(["append", "follow", "miss"])), max_size=12),
    before=st.integers(0, 50),
)
def test_holds_the_same_whichever_way_the_rows_came(size, first, pieces, before):
    stream = bars(300)
    earlier = [(row - 1000, (0.5, float(row))) for row in range(before)]
    history = as_if_appended(stream, [], size, earlier)
    rows, at = [], first
    for length, how in pieces:
        if how == "append":
            for row in range(at, at + length):
                append(history, stream, row)
        elif how == "follow":
            history.follow(stream, at, at + length)
        if how != "miss":
            rows += range(at, at + length)
        at += length

    plain = as_if_appended(stream, rows, size, earlier)

    assert told(history) == told(plain)
    assert history.rows() == plain.rows()
    assert len(history) == min(size, before + len(rows))


def test_holds_no_more_than_its_size_and_the_newest_last():
    history = as_if_appended(bars(5000), range(5000), 7)

    ts, (close, volume) = told(history)
    assert ts == [10 * row for row in range(4993, 5000)]
    assert close == [row + 3 for row in range(4993, 5000)]
    assert volume[-1] == history.last("volume") == 5003
    assert history.last_ts == 49_990


def test_refers_to_the_tape_it_follows():
    stream = bars(100)
    history = History(Bar, PERP, COLUMNS, 10)
    append(history, stream, 0)
    history.follow(stream, 1, 50)
    append(history, stream, 50)

    assert np.shares_memory(history.arrays()[1], stream.columns["close"])
    assert history.last_ts == 500


def test_leaves_the_tape_when_told_what_is_not_on_it():
    stream = bars(100)
    history = History(Bar, PERP, COLUMNS, 3)
    history.follow(stream, 0, 50)
    history.append(500, (1.0, 2.0))

    assert told(history) == ([480, 490, 500], [[51.0, 52.0, 1.0], [52.0, 53.0, 2.0]])
    assert not history.stands_on(stream, 51)


def test_skips_only_its_own_rows_of_a_tape():
    quotes = Stream(Quote, PERP, np.arange(0, 1000, 5), {"bid": np.ones(200)})
    tape = Tape([bars(100), quotes])
    history = History(Bar, PERP, COLUMNS, 50)
    nothing = History(Bar, "ETHUSDT-LINEAR.BYBIT", COLUMNS, 50)
    for one in (history, nothing):
        one.skip(tape, 0, 30)
        one.skip(tape, 30, 31)

    assert told(history)[0] == list(range(0, 100, 10))
    assert len(nothing) == 0
