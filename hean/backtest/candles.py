"""A tape's prices as candles few enough to draw, packed small enough to send along in a page."""

import base64
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.messages import Bar, MarkPrice, Observation, Quote, Trade
from hean.tape import Floats, Ints, Stream, Tape
from hean.units import DAY, HOUR, MINUTE, SECOND

STEPS = (
    *(SECOND * n for n in (1, 2, 5, 10, 15, 30)),
    *(MINUTE * n for n in (1, 3, 5, 15, 30)),
    *(HOUR * n for n in (1, 2, 4, 6, 12)),
    *(DAY * n for n in (1, 7)),
)
PREFERRED = (Bar, Trade, Quote, MarkPrice)


class Candles(Struct, frozen=True):
    """Candles of one length: `ts` is each one's first instant, shape (n,); the prices have the same shape.

    `recorded` is how many rows of `source` they were made from: as many as there are candles, or more.
    """

    source: type[Observation]
    step: int
    ts: Ints
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    recorded: int


def candles(tape: Tape, instrument: str, *, start: int, end: int, most: int) -> Candles | None:
    """An instrument's candles in a period, joined to the shortest length of which there are at most `most`.

    Recorded candles are taken where there are any, else they are made of trades, of the middle between bid and ask,
    or of the mark; None where the tape has nothing of the instrument.
    """
    for kind in PREFERRED:
        stream = tape.stream(kind, instrument)
        if stream is not None:
            found = _read(stream, start, end)
            if found is not None:
                return _joined(found, most)
    return None


def _read(stream: Stream, start: int, end: int) -> Candles | None:
    first = int(stream.ts.searchsorted(start, side="right"))
    last = int(stream.ts.searchsorted(end, side="right"))
    if first >= last:
        return None
    of = {name: column[first:last] for name, column in stream.columns.items()}
    if stream.kind is Bar:
        ts = stream.ts[first:last] - stream.interval
        return Candles(Bar, stream.interval, ts, of["open"], of["high"], of["low"], of["close"], recorded=last - first)
    price = (of["bid"] + of["ask"]) / 2 if stream.kind is Quote else of["price"]
    return Candles(stream.kind, 0, stream.ts[first:last], price, price, price, price, recorded=last - first)


def _joined(found: Candles, most: int) -> Candles:
    for step in (found.step, *STEPS):
        if step < found.step or step <= 0 or (found.step and step % found.step):
            continue
        if step == found.step and found.ts.size <= most:
            return found
        begins = _begins(found.ts, step)
        if begins.size <= most:
            break
    else:
        step = STEPS[-1]
        begins = _begins(found.ts, step)
    lasts = np.append(begins[1:], found.ts.size) - 1
    return Candles(
        found.source,
        step,
        found.ts[begins] // step * step,
        found.open[begins],
        np.maximum.reduceat(found.high, begins),
        np.minimum.reduceat(found.low, begins),
        found.close[lasts],
        recorded=found.recorded,
    )


def _begins(ts: Ints, step: int) -> NDArray[np.intp]:
    return np.flatnonzero(np.diff(ts // step, prepend=-1))


def packed(found: Candles) -> dict[str, Any]:
    """Candles as a page reads them: prices in units of the last decimal, each as its difference from a price before it.

    `runs` are pairs of a place and the second its candle begins at: from there the candles follow one another
    without a hole. `bytes` is base64 of varints, four to a candle: open less the last close, close less open,
    high above the body, low under it; the first two zigzag.
    """
    decimals = _decimals(np.concatenate([found.open, found.high, found.low, found.close]))
    scale = 10.0**decimals
    opens, highs, lows, closes = (
        np.rint(prices * scale).astype(np.int64) for prices in (found.open, found.high, found.low, found.close)
    )
    before = np.concatenate([[0], closes[:-1]])
    numbers = np.empty((opens.size, 4), np.int64)
    numbers[:, 0] = zigzag(opens - before)
    numbers[:, 1] = zigzag(closes - opens)
    numbers[:, 2] = np.maximum(0, highs - np.maximum(opens, closes))
    numbers[:, 3] = np.maximum(0, np.minimum(opens, closes) - lows)
    holes = np.flatnonzero(np.diff(found.ts, prepend=found.ts[0] - found.step - 1) != found.step)
    return {
        "step": found.step // SECOND,
        "count": int(opens.size),
        "decimals": decimals,
        "runs": [[int(place), int(found.ts[place]) // SECOND] for place in holes],
        "bytes": base64.b64encode(varints(numbers.ravel())).decode("ascii"),
    }


def varints(numbers: Ints) -> bytes:
    """Encode integers from 0 on, seven bits to a byte, lowest first; the eighth says that more follow."""
    wide = numbers.astype(np.uint64)
    lengths = np.ones(wide.size, np.int64)
    for bits in range(7, 64, 7):
        lengths += wide >= np.uint64(1 << bits)
    out = np.zeros(int(lengths.sum()), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for place in range(int(lengths.max(initial=0))):
        reached = lengths > place
        byte = (wide[reached] >> np.uint64(7 * place)) & np.uint64(127)
        out[starts[reached] + place] = byte | np.where(lengths[reached] > place + 1, 128, 0).astype(np.uint64)
    return out.tobytes()


def thinned(ts: Ints, values: Floats, falls: Floats, buckets: int) -> NDArray[np.intp]:
    """Choose the places of a curve worth drawing: of each stretch the first and last, its extremes, its deepest fall."""
    if ts.size <= 5 * buckets:
        return np.arange(ts.size)
    edges = np.linspace(0, ts.size, buckets + 1).astype(np.intp)
    kept = {0, ts.size - 1}
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[first:last]
        deepest = first + int(falls[first:last].argmax())
        kept.update((first, last - 1, first + int(part.argmin()), first + int(part.argmax()), deepest))
    return np.array(sorted(kept), dtype=np.intp)


def zigzag(x: Ints) -> Ints:
    """Number integers so that small ones stay small: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4."""
    return np.where(x >= 0, 2 * x, -2 * x - 1)


def _decimals(prices: Floats) -> int:
    """The fewest decimals that lose nothing of the prices, up to eight; of made-up means, six figures."""
    for decimals in range(9):
        scaled = prices * 10.0**decimals
        if np.abs(scaled - np.rint(scaled)).max(initial=0.0) < 1e-4:
            return decimals
    size = float(np.abs(prices).max(initial=1.0))
    return max(0, 6 - int(np.floor(np.log10(size))) - 1)
