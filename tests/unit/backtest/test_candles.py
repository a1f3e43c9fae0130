import base64
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.backtest.candles import candles, packed, thinned, varints, zigzag
from hean.messages import Bar, Quote, Trade
from hean.tape import Stream, Tape
from tests.unit.backtest.make import DAY, MINUTE, PERP, START, bars, walk


def unpacked(told):
    """Read what a page reads, as it does."""
    numbers, value, shift = [], 0, 0
    for byte in base64.b64decode(told["bytes"]):
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            numbers.append(value)
            value = shift = 0
    of = np.array(numbers).reshape(-1, 4)
    signed = np.where(of[:, :2] % 2, -(of[:, :2] + 1) // 2, of[:, :2] // 2)
    close = np.cumsum(signed.sum(axis=1))
    open_ = close - signed[:, 1]
    high, low = np.maximum(open_, close) + of[:, 2], np.minimum(open_, close) - of[:, 3]
    ts, runs = np.empty(told["count"]), [*told["runs"], [told["count"], 0]]
    for (place, begins), (after, _) in pairwise(runs):
        ts[place:after] = begins + told["step"] * np.arange(after - place)
    return ts, *(prices / 10 ** told["decimals"] for prices in (open_, high, low, close))


def test_recorded_candles_survive_the_journey_with_their_holes():
    closes = walk(500, seed=4)
    ts_open = START + np.arange(500, dtype=np.int64) * MINUTE
    ts_open[200:] += 3 * MINUTE
    tape = Tape(bars(PERP, ts_open, closes))

    found = candles(tape, PERP, start=START, end=START + DAY, most=10_000)
    ts, *prices = unpacked(packed(found))

    stream = tape.stream(Bar, PERP)
    assert ts.tolist() == (ts_open // 10**9).tolist()
    for name, column in zip(("open", "high", "low", "close"), prices, strict=True):
        np.testing.assert_allclose(column, stream.columns[name], atol=1e-9)


def test_too_many_candles_are_joined_to_the_shortest_length_that_fits():
    closes = walk(1000, seed=4)
    tape = Tape(bars(PERP, START + np.arange(1000, dtype=np.int64) * MINUTE, closes))

    found = candles(tape, PERP, start=START, end=START + DAY, most=300)

    of = tape.stream(Bar, PERP).columns
    assert (found.step, found.ts.size, found.recorded) == (5 * MINUTE, 200, 1000)
    assert found.high.tolist() == of["high"].reshape(-1, 5).max(axis=1).tolist()
    assert found.low.tolist() == of["low"].reshape(-1, 5).min(axis=1).tolist()
    assert (found.open[1], found.close[1]) == (of["open"][5], of["close"][9])


def test_trades_and_quotes_become_candles():
    ts = START + np.arange(600, dtype=np.int64) * 500_000_000
    price = walk(600, seed=2)
    trades = Stream(Trade, PERP, ts, {"price": price, "size": price, "side": np.ones(600)})
    sizes = np.ones(600)
    quotes = Stream(Quote, PERP, ts, {"bid": price - 1, "bid_size": sizes, "ask": price + 1, "ask_size": sizes})

    of_trades = candles(Tape([trades]), PERP, start=START - 1, end=START + DAY, most=100)
    of_quotes = candles(Tape([quotes]), PERP, start=START - 1, end=START + DAY, most=100)

    assert of_trades.step == 5_000_000_000
    assert of_trades.close.tolist() == of_quotes.close.tolist() == price[9::10].tolist()
    assert candles(Tape([trades]), "other", start=START, end=START + DAY, most=100) is None


def test_what_lies_before_the_run_is_not_drawn():
    tape = Tape(bars(PERP, START + np.arange(100, dtype=np.int64) * MINUTE, walk(100, seed=1)))

    found = candles(tape, PERP, start=START + 10 * MINUTE, end=START + 20 * MINUTE, most=1000)

    assert (found.ts[0], found.ts.size) == (START + 10 * MINUTE, 10)
    assert candles(tape, PERP, start=START + DAY, end=START + 2 * DAY, most=10) is None


@given(st.lists(st.integers(0, 2**62), max_size=50))
def test_varints_read_back(numbers):
    raw, read, value, shift = varints(np.array(numbers, np.int64)), [], 0, 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            read.append(value)
            value = shift = 0

    assert read == numbers


def test_zigzag_keeps_small_what_is_small():
    assert zigzag(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [0, 1, 40, 50_000])
def test_thinning_keeps_the_ends_the_extremes_and_the_deepest_fall(size):
    curve = 1000 + np.cumsum(np.random.default_rng(1).normal(0, 1, size))
    falls = 1 - curve / np.maximum.accumulate(curve) if size else curve

    kept = thinned(np.arange(size), curve, falls, 100)

    assert kept.size <= 502 or size <= 500
    if size:
        assert {0, size - 1, int(curve.argmin()), int(curve.argmax()), int(falls.argmax())} <= set(kept.tolist())
