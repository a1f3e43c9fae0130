"""A recorded Binance socket: each line the recorder's clock in ns, a blank, and JSON."""

import re
import statistics
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch, Incoming
from hean.store.importers.bybit_book import as_rows, chain_note
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.kinds import kind

NAME = "recorded Binance socket"
EXPECTS = 'lines of `1723161254024619568 {"stream":…}`: depth@100ms, bookTicker, trade and REST snapshots'

_LINE = re.compile(r"(\d{19}) (\{.*\})\s*")
_MS = 1_000_000


def claims(found: Found) -> bool:
    return _LINE.fullmatch(found.first_line) is not None or re.match(r"\d{19} \{", found.first_line) is not None


@dataclass
class _Heard:
    trades: list[tuple[Any, ...]] = field(default_factory=list)
    quotes: list[tuple[Any, ...]] = field(default_factory=list)
    levels: list[tuple[Any, ...]] = field(default_factory=list)
    differences: list[int] = field(default_factory=list)
    futures: bool = False
    last_id: int | None = None
    breaks: int = 0


def read(found: Found) -> ImportBatch:
    """Read one symbol's recording.

    Spot's `bookTicker` and the REST snapshot carry no exchange time. Theirs is the recorder's,
    moved by the median difference of the two clocks over all messages that carry both.
    """
    heard = _Heard()
    symbols: set[str] = set()
    for number, line in found.lines():
        parts = _LINE.fullmatch(line)
        if parts is None:
            found.refuse(
                "is not a time and a message", row=number, remedy="cut the line out; it may be the last, cut short"
            )
        ts_recv, message = int(parts[1]), found.json(parts[2], row=number)
        try:
            if "lastUpdateId" in message:
                _levels(
                    heard,
                    message["bids"],
                    message["asks"],
                    (None, True, None, message["lastUpdateId"], None),
                    ts_recv,
                    number,
                )
            elif "stream" in message:
                symbols.add(message["data"]["s"])
                _hear(heard, message["stream"].split("@")[1], message["data"], ts_recv, number)
        except (KeyError, TypeError, ValueError, IndexError) as damage:
            found.refuse(
                f"is not as Binance sends it: {damage!r}", row=number, remedy="cut the line out, or record again"
            )
    if len(symbols) != 1:
        found.refuse(f"holds the symbols {sorted(symbols)}", remedy="record each symbol in a file of its own")
    if not heard.differences:
        found.refuse("has no message with an exchange time", remedy="record a stream of trades or depth as well")
    shift = round(statistics.median(heard.differences))
    instrument = instrument_id(symbols.pop(), Category.LINEAR if heard.futures else Category.SPOT, "BINANCE")
    note = f"times the exchange does not state are the recorder's, moved by {shift / 1e6:.3f} ms, the median difference"
    notes = [note, chain_note(heard.breaks)]
    return found.batch(NAME, _series(found, instrument, heard, shift), note="; ".join(filter(None, notes)))


def _hear(heard: _Heard, stream: str, body: dict[str, Any], ts_recv: int, row: int) -> None:
    stamp = body.get("T", body.get("E"))
    ts_event = stamp * _MS if stamp is not None else None
    if "E" in body:
        heard.differences.append(body["E"] * _MS - ts_recv)
    match stream:
        case "trade" | "aggTrade":
            side = -1 if body["m"] else 1
            trade_id = str(body.get("t", body.get("a")))
            heard.trades.append((ts_event, float(body["p"]), float(body["q"]), side, trade_id, ts_recv, row))
        case "bookTicker":
            prices = (float(body[name]) for name in ("b", "B", "a", "A"))
            heard.quotes.append((ts_event, *prices, body["u"], ts_recv, row))
        case "depth":
            heard.futures |= "pu" in body
            follows = body.get("pu", body["U"] - 1)
            if heard.last_id is not None and follows != heard.last_id:
                heard.breaks += 1
            heard.last_id = body["u"]
            _levels(heard, body["b"], body["a"], (ts_event, False, body["U"], body["u"], body.get("pu")), ts_recv, row)


def _levels(
    heard: _Heard, bids: list[list[str]], asks: list[list[str]], shared: tuple[Any, ...], ts_recv: int, row: int
) -> None:
    for side, levels in ((1, bids), (-1, asks)):
        heard.levels += [(*shared, None, side, float(price), float(size), ts_recv, row) for price, size in levels]


def _series(found: Found, instrument: str, heard: _Heard, shift: int) -> list[Incoming]:
    stated = pl.col("ts_event").fill_null(pl.col("ts_recv") + shift)
    told = []
    for name, rows in (("trade", heard.trades), ("quote", heard.quotes)):
        if rows:
            frame = pl.DataFrame(rows, schema={**kind(name).columns, "row": pl.Int64}, orient="row")
            frame = frame.with_columns(stated).sort("ts_event", maintain_order=True)
            told.append(incoming(found, name, instrument, frame))
    if heard.levels:
        told.append(incoming(found, "depth", instrument, as_rows(heard.levels).with_columns(stated)))
    return told
