"""The search must never answer late, and a hair early at most: it is compared with reading every row."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.market.quiet import MarkSearch, price_at
from hean.messages import Bar, MarkPrice, Quote, Trade
from hean.tape import Stream, Tape

PERP = "BTCUSDT-LINEAR.BYBIT"
SPOT = "BTCUSDT-SPOT.BYBIT"
KINDS = (MarkPrice, Bar, Trade, Quote)


def stream(kind, instrument, rng, rows, volatility=1e-4):
    ts = np.sort(rng.integers(0, 5 * rows, rows)).astype(np.int64)
    price = 100 * np.exp(np.cumsum(rng.normal(0, volatility, rows)))
    columns = {
        MarkPrice: {"price": price},
        Trade: {"price": price, "size": price, "side": np.ones(rows, np.int8)},
        Quote: {"bid": price * 0.999, "ask": price * 1.001, "bid_size": price, "ask_size": price},
        Bar: {
            "open": price,
            "high": price * (1 + np.abs(rng.normal(0, volatility, rows))),
            "low": price * (1 - np.abs(rng.normal(0, volatility, rows))),
            "close": price,
            "volume": price,
        },
    }[kind]
    return Stream(kind, instrument, ts, columns, interval=1)


def read_every_row(tape, watches, start, stop, *, constant, slopes, prices, low, high, adverse):
    known = dict(prices)
    for position in range(start, stop):
        source, row = tape.at(position)
        slope = slopes.get(source.instrument, 0.0)
        if (source.instrument, source.kind) not in watches or slope == 0.0:
            continue
        known[source.instrument] = close = price_at(source, row)
        value = constant + sum(slopes[name] * known[name] for name in slopes)
        worst = value
        if adverse and source.kind is Bar:
            worse = source.columns["low" if slope > 0 else "high"].item(row)
            worst = min(value, value + slope * (worse - close))
        if worst <= low or value >= high:
            return position
    return stop


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32), adverse=st.booleans())
def test_finds_the_row_that_reading_every_row_finds(data, seed, adverse):
    rng = np.random.default_rng(seed)
    pairs = data.draw(
        st.lists(st.tuples(st.sampled_from([PERP, SPOT]), st.sampled_from(KINDS)), min_size=1, max_size=4, unique=True)
    )
    tape = Tape([stream(kind, instrument, rng, int(rng.integers(1, 900))) for instrument, kind in pairs])
    watches = frozenset(pairs[: data.draw(st.integers(1, len(pairs)))])
    start = data.draw(st.integers(0, tape.size))
    stop = data.draw(st.integers(start, tape.size))
    slopes = {name: data.draw(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0])) for name in (PERP, SPOT)}
    prices = {PERP: 100.0, SPOT: 100.1}
    value = 50.0 + sum(slopes[name] * prices[name] for name in slopes)
    low = value - data.draw(st.sampled_from([0.05, 0.5, 2.0, float("inf")]))
    high = value + data.draw(st.sampled_from([0.05, 0.5, 2.0, float("inf")]))

    found = MarkSearch(tape, watches, adverse=adverse).first_outside(
        start, stop, constant=50.0, slopes=slopes, prices=prices, low=low, high=high
    )

    ask = {"constant": 50.0, "slopes": slopes, "prices": prices, "low": low, "high": high, "adverse": adverse}
    assert found == read_every_row(tape, watches, start, stop, **ask)


@settings(max_examples=50, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_the_last_prices_are_those_of_the_last_rows(data, seed):
    rng = np.random.default_rng(seed)
    tape = Tape([stream(MarkPrice, PERP, rng, 40), stream(Bar, PERP, rng, 30), stream(Quote, SPOT, rng, 20)])
    start = data.draw(st.integers(0, tape.size))
    stop = data.draw(st.integers(start, tape.size))
    watches = {(PERP, MarkPrice), (PERP, Bar), (SPOT, Quote)}
    told = {}
    for position in range(start, stop):
        source, row = tape.at(position)
        told[source.instrument] = price_at(source, row)

    assert dict(MarkSearch(tape, watches).last_prices(start, stop)) == told


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
def test_a_tape_of_one_stream_is_scanned_to_its_end(rows):
    tape = Tape([stream(MarkPrice, PERP, np.random.default_rng(0), rows, volatility=0.0)])
    search = MarkSearch(tape, {(PERP, MarkPrice)})
    ask = {"constant": 0.0, "slopes": {PERP: 1.0}, "prices": {PERP: 100.0}, "low": 99.0, "high": 101.0}

    assert search.first_outside(0, rows, **ask) == rows
    assert search.first_outside(rows - 1, rows, **ask | {"high": 100.0}) == rows - 1


def test_a_rounding_makes_the_answer_early_and_never_late():
    price = np.array([0.3, 0.1 + 0.2 - 1e-16])
    tape = Tape([Stream(MarkPrice, PERP, np.arange(2), {"price": price})])
    search = MarkSearch(tape, {(PERP, MarkPrice)})

    assert (
        search.first_outside(
            0, 2, constant=0.0, slopes={PERP: 1.0}, prices={PERP: 0.2}, low=-1.0, high=0.30000000000000004
        )
        == 0
    )
