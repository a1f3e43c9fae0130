"""Recorded public sockets of Bybit V5 (one JSON object a line), with the rules that were asked for beside them."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch, Incoming
from hean.store.importers.bybit_book import Book
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.kinds import interval_name, kind
from hean.store.rules import DatedRules, read_from_bybit

NAME = "recorded Bybit V5 socket"
EXPECTS = "JSON lines with `t` = header, http, connect, send or recv (.jsonl.zst); the exchange's message is the string in `data`"

_MS = 1_000_000
_TICKER = {
    "lastPrice": "last",
    "markPrice": "mark",
    "indexPrice": "index",
    "fundingRate": "funding_rate",
    "openInterest": "open_interest",
    "bid1Price": "bid",
    "bid1Size": "bid_size",
    "ask1Price": "ask",
    "ask1Size": "ask_size",
}
_PERPETUAL = {"LinearPerpetual": Category.LINEAR, "InversePerpetual": Category.INVERSE}


def claims(found: Found) -> bool:
    return found.first_line.startswith('{"t":') and '"exchange":"BYBIT' in found.first_line.replace(" ", "")


@dataclass
class _Heard:
    """What the sockets said of one instrument."""

    book: Book = field(default_factory=Book)
    trades: list[tuple[Any, ...]] = field(default_factory=list)
    bars: dict[int, list[tuple[Any, ...]]] = field(default_factory=dict)
    ticker: dict[str, float | int | None] = field(default_factory=dict)
    tickers: list[dict[str, Any]] = field(default_factory=list)


def read(found: Found) -> ImportBatch:
    """Replay the recording. A linear and a spot socket use the same topics: the address tells them apart."""
    categories: dict[str, Category] = {}
    heard: dict[str, _Heard] = {}
    rules: list[DatedRules] = []
    for number, line in found.lines():
        entry = found.json(line, row=number)
        try:
            match entry["t"]:
                case "connect":
                    categories[entry["conn"]] = Category(entry["addr"].rsplit("/", 1)[1].upper())
                case "http" if "instruments-info" in entry["url"]:
                    rules += _rules(found, found.json(entry["data"], row=number), row=number)
                case "recv":
                    message = found.json(entry["data"], row=number)
                    if "topic" in message:
                        ts_recv = round(entry["ts"] * 1_000_000) * 1_000
                        _hear(heard, categories[entry["conn"]], message, row=number, ts_recv=ts_recv)
        except (KeyError, TypeError, ValueError, IndexError) as damage:
            found.refuse(
                f"is not as Bybit sends it: {damage!r}", row=number, remedy="cut the line out, or record again"
            )
    series = [one for name, said in heard.items() for one in _series(found, name, said)]
    broken = {name: said.book.breaks for name, said in heard.items() if said.book.breaks}
    note = "; ".join(f"{name}: the chain of update ids breaks {count} times" for name, count in broken.items())
    return found.batch(NAME, series, note=note, rules=rules)


def _rules(found: Found, answer: dict[str, Any], *, row: int) -> list[DatedRules]:
    result = answer["result"]
    category = Category(result["category"].upper())
    read_at = answer["time"] * _MS
    read = []
    for entry in result["list"]:
        # A dated future has neither funding nor a place in the strategies.
        if category is not Category.SPOT and _PERPETUAL.get(entry["contractType"]) is not category:
            continue
        try:
            read.append(read_from_bybit(entry, category, ts_from=read_at, source=f"{NAME}: {found.name}"))
        except msgspec.ValidationError as damage:
            found.refuse(f"has rules of {entry.get('symbol')} that cannot be read: {damage}", row=row)
    return read


def _hear(heard: dict[str, _Heard], category: Category, message: dict[str, Any], *, row: int, ts_recv: int) -> None:
    topic, *middle, symbol = message["topic"].split(".")
    said = heard.setdefault(instrument_id(symbol, category, "BYBIT"), _Heard())
    match topic:
        case "orderbook":
            said.book.hear(message, row=row, ts_recv=ts_recv)
        case "publicTrade":
            for trade in message["data"]:
                side = {"Buy": 1, "Sell": -1}[trade["S"]]
                told = (trade["T"] * _MS, float(trade["p"]), float(trade["v"]), side, trade["i"], ts_recv, row)
                said.trades.append(told)
        case "kline":
            for bar in message["data"]:
                if bar["confirm"]:  # until then it is the minute so far
                    prices = (float(bar[name]) for name in ("open", "high", "low", "close", "volume"))
                    length = int(middle[0]) * 60_000 * _MS
                    said.bars.setdefault(length, []).append((bar["start"] * _MS, *prices, row))
        case "tickers":
            _fold(said, message, row=row, ts_recv=ts_recv)


def _fold(said: _Heard, message: dict[str, Any], *, row: int, ts_recv: int) -> None:
    """A delta names only what changed; each message becomes a full row."""
    if message["type"] == "snapshot":
        said.ticker = {}
    body = message["data"]
    said.ticker |= {name: float(body[theirs]) for theirs, name in _TICKER.items() if body.get(theirs)}
    if body.get("nextFundingTime"):
        said.ticker["next_funding_ts"] = int(body["nextFundingTime"]) * _MS
    said.tickers.append({"ts_event": message["ts"] * _MS, **said.ticker, "ts_recv": ts_recv, "row": row})


def _series(found: Found, instrument: str, said: _Heard) -> list[Incoming]:
    told = []
    if said.book.levels:
        told.append(incoming(found, "depth", instrument, said.book.rows()))
    if said.trades:
        told.append(incoming(found, "trade", instrument, _frame("trade", said.trades)))
    for length, bars in said.bars.items():
        name = f"bar-{interval_name(length)}"
        told.append(incoming(found, name, instrument, _frame(name, bars)))
    if said.tickers:
        rows = pl.DataFrame(said.tickers, schema={**kind("ticker").columns, "row": pl.Int64})
        told.append(incoming(found, "ticker", instrument, rows.sort("ts_event", maintain_order=True)))
    return told


def _frame(kind_name: str, rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema={**kind(kind_name).columns, "row": pl.Int64}, orient="row")
    return frame.sort("ts_event", maintain_order=True)
