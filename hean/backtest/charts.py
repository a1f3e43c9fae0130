"""What the charts of a run's page are drawn from."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from hean.backtest import words
from hean.backtest.candles import Candles, candles, packed, thinned, varints, zigzag
from hean.backtest.result import RunResult
from hean.instruments import Category
from hean.messages import Bar, MarkPrice, OrderFilled, Quote, Trade
from hean.trips import RoundTrip

MOST_CANDLES = 100_000
"""Candles carried by one page, over all its instruments: what a browser zooms without a pause."""

MOST_POINTS = 60_000
"""Points of the equity curve."""

MOST_DRAWN = 4_000
"""Round trips on the charts, newest first."""


_KINDS = {Trade: "trades", Quote: "quotes", MarkPrice: "marks"}


def chart(result: RunResult, trips: Sequence[RoundTrip], names: Sequence[str]) -> dict[str, Any]:
    drawn = list(enumerate(trips, 1))[-MOST_DRAWN:]
    strategies = list(dict.fromkeys(trip.strategy for trip in trips))
    place = {name: index for index, name in enumerate(names)}
    firsts = {trip.instruments[0] for trip in trips}
    shown = []
    for name in names:
        found = candles(
            result.tape, name, start=result.ts_start, end=result.ts_end, most=MOST_CANDLES // max(1, len(names))
        )
        step = 0 if found is None else found.step // 1_000_000_000
        shown.append(
            {
                "label": words.label(name),
                "candles": None if found is None else packed(found),
                "step": step,
                "recorded": "" if found is None else _recorded(result, name, found),
                "joined": found is not None and found.recorded > found.ts.size,
                "fills": [] if name in firsts else _fills(result, name),
            }
        )
    return {
        "start": result.ts_start // 1_000_000_000,
        "end": -(-result.ts_end // 1_000_000_000),
        "capital": float(result.capital),
        "curve": _curve(result),
        "instruments": shown,
        "pairs": _pairs(names),
        "first": place[trips[-1].instruments[0]] if trips else 0,
        "strategies": strategies,
        "trips": [
            [
                number,
                strategies.index(trip.strategy),
                [place[name] for name in trip.instruments],
                1 if trip.side in {"long", "buy"} else -1,
                words.plain_number(trip.quantity),
                words.seconds(trip.ts_open),
                None if trip.ts_close is None else words.seconds(trip.ts_close),
                float(trip.entry_price),
                None if trip.exit_price is None else float(trip.exit_price),
                round(float(trip.pnl), 4),
                round(float(trip.fees), 4),
                round(float(trip.funding), 4),
                trip.closed_by,
            ]
            for number, trip in drawn
        ],
    }


def _recorded(result: RunResult, name: str, found: Candles) -> str:
    """What candles were made of, in words: 40,320 recorded of 1 min, 1,204 trades."""
    if found.source is Bar:
        stream = result.tape.stream(Bar, name)
        return f"{found.recorded:,} recorded of {words.span(stream.interval)}" if stream is not None else ""
    return f"{found.recorded:,} {_KINDS[found.source]}"


def _curve(result: RunResult) -> dict[str, Any]:
    """The equity curve as varints, two to a point: seconds since the last, and the change of equity, zigzag."""
    kept = thinned(result.curve_ts, result.curve, result.drawdown, MOST_POINTS // 5)
    decimals = 2 if float(np.abs(result.curve).max(initial=1.0)) >= 100 else 6
    seconds = np.rint(result.curve_ts[kept] / 1e9).astype(np.int64)
    units = np.rint(result.curve[kept] * 10.0**decimals).astype(np.int64)
    numbers = np.empty((kept.size, 2), np.int64)
    numbers[:, 0] = np.diff(seconds, prepend=seconds[:1])
    numbers[:, 1] = zigzag(np.diff(units, prepend=0))
    return {
        "first": int(seconds[0]) if kept.size else 0,
        "count": int(kept.size),
        "decimals": decimals,
        "bytes": base64.b64encode(varints(numbers.ravel())).decode("ascii"),
    }


def _fills(result: RunResult, name: str) -> list[list[Any]]:
    """Fills of a leg that gives no trip its prices: the other half of pairs."""
    found = [
        [words.seconds(fill.ts_event), float(fill.price), int(fill.side), words.plain_number(fill.quantity)]
        for each in result.log
        if isinstance(fill := each.message, OrderFilled) and fill.instrument == name and each.source.startswith("venue")
    ]
    return found[-MOST_DRAWN:]


def instruments(result: RunResult, trips: Sequence[RoundTrip]) -> list[str]:
    """Everything a strategy watches or has traded, in the order it is named."""
    named = [name for strategy in result.strategies for name in strategy.instruments]
    return list(dict.fromkeys(named + [name for trip in trips for name in trip.instruments]))


def _pairs(names: Sequence[str]) -> list[list[int]]:
    """Places of a contract and of the spot market of the same symbol."""
    found = []
    for place, name in enumerate(names):
        symbol, category = words.split(name)
        if category is not Category.SPOT:
            found += [
                [place, other] for other, each in enumerate(names) if words.split(each) == (symbol, Category.SPOT)
            ]
    return found
