"""Answers of Bybit's V5 REST market endpoints, as saved: strings, newest first, the newest candle still open."""

from typing import Any

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch, Incoming
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import from_epoch
from hean.store.kinds import interval_name

NAME = "Bybit V5 REST answer"
EXPECTS = "one answer of market/kline, …-price-kline, funding/history or open-interest as JSON"

_CANDLE = ["start", "open", "high", "low", "close"]


def claims(found: Found) -> bool:
    return found.first_line.startswith("{") and b'"retCode"' in found.content[:200] and b'"result"' in found.content


def read(found: Found) -> ImportBatch:
    """Read one answer; which endpoint gave it is told by its rows."""
    answer = found.json(found.text)
    if not isinstance(answer, dict) or answer.get("retCode") != 0:
        found.refuse("is not a successful answer: retCode is not 0", remedy="ask Bybit again")
    result = answer.get("result")
    entries = result.get("list") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(entries, list) or not entries:
        found.refuse("holds no rows", remedy="ask Bybit again, for a time that has some")
    category = _category(found, result)
    first = entries[0]
    if isinstance(first, list):
        return _candles(found, result, category, entries, asked=answer.get("time"))
    if "fundingRateTimestamp" in first:
        rows = _column(found, entries, "fundingRateTimestamp", "fundingRate", "rate")
        series = _series(found, "funding", str(first.get("symbol")), category, rows)
    elif "openInterest" in first:
        rows = _column(found, entries, "timestamp", "openInterest", "open_interest")
        series = _series(found, "open-interest", str(result.get("symbol")), category, rows)
    else:
        found.refuse("is an answer of an endpoint that is not history", remedy=EXPECTS)
    return found.batch(NAME, [series])


def _category(found: Found, result: dict[str, Any]) -> Category:
    said = str(result.get("category", "")).upper()
    return Category(said) if said in Category.__members__ else found.market()


def _candles(
    found: Found, result: dict[str, Any], category: Category, entries: list[list[str]], *, asked: int | None
) -> ImportBatch:
    """A candle is over when the answer was given after its end; if the answer does not say when, the newest may not be."""
    width = len(entries[0])
    names = [*_CANDLE, "volume", "turnover"][:width]
    if width not in {5, 7} or any(len(entry) != width for entry in entries):
        found.refuse("has candles that are neither of 5 nor of 7 fields", remedy=EXPECTS)
    rows = pl.DataFrame(entries, schema=dict.fromkeys(names, pl.String), orient="row").with_row_index("row", offset=1)
    rows = from_epoch(found, found.numbers(rows, names[1:]), "start").reverse()
    if rows.height < 2:
        found.refuse("holds one candle: its interval cannot be told", remedy="save an answer with at least two")
    interval = int(rows["ts_event"].diff().drop_nulls().min())  # type: ignore[arg-type]  # two rows at least
    if interval <= 0:
        found.refuse("has candles out of order or twice", remedy="save each answer in a file of its own")
    kind_name = f"{_prefix(found, width)}-{interval_name(interval)}"
    newest = int(rows["ts_event"][-1])
    still_open = asked is None or newest + interval > asked * 1_000_000
    note = "the newest candle was still open and was left out" if still_open else ""
    if still_open and asked is None:
        note = "the answer does not say when it was given: the newest candle may have been open and was left out"
    rows = rows.head(-1) if still_open else rows
    series = incoming(found, kind_name, instrument_id(str(result.get("symbol")), category, "BYBIT"), rows)
    return found.batch(NAME, [series], note=note)


def _prefix(found: Found, width: int) -> str:
    if width == 7:
        return "bar"
    said = found.said_by_path({"mark": {"mark"}, "index": {"index"}, "premium": {"premium"}})
    if said is None:
        found.refuse(
            "has candles without volume: mark, index and premium-index candles look alike",
            remedy="let the file's name say mark, index or premium",
        )
    return said


def _column(found: Found, entries: list[dict[str, str]], stamp: str, value: str, name: str) -> pl.DataFrame:
    told = [{"row": i, "stamp": entry.get(stamp), name: entry.get(value)} for i, entry in enumerate(entries, start=1)]
    rows = pl.DataFrame(told, schema={"row": pl.Int64, "stamp": pl.String, name: pl.String})
    return from_epoch(found, found.numbers(rows, [name]), "stamp").reverse()


def _series(found: Found, kind_name: str, symbol: str, category: Category, rows: pl.DataFrame) -> Incoming:
    return incoming(found, kind_name, instrument_id(symbol, category, "BYBIT"), rows)
