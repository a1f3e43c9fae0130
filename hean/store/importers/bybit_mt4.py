"""Bybit's `kline_for_metatrader4` archive: stamps in UTC+3 that do not say so, sometimes without a header."""

import re
from datetime import UTC, date, datetime, timedelta

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.kinds import interval_name
from hean.units import HOUR, MINUTE, SECOND

NAME = "Bybit MetaTrader 4 candles"
EXPECTS = "SYMBOL_minutes_from_to.csv(.gz) with stamps like 2023.01.01 00:00"

_FILE = re.compile(r"(?P<symbol>[A-Z0-9]+)_(?P<minutes>\d+)_\d{4}-\d\d-\d\d_(?P<last>\d{4}-\d\d-\d\d)\.csv(?:\.gz)?")
_STAMP = re.compile(r"\d{4}\.\d\d\.\d\d \d\d:\d\d")
_COLUMNS = ["stamp", "open", "high", "low", "close", "volume"]
_AHEAD = 3 * HOUR


def claims(found: Found) -> bool:
    if _FILE.fullmatch(found.name) is None:
        return False
    lines = found.content[:400].decode("utf-8", errors="replace").splitlines()[:2]
    return any(_STAMP.match(line) for line in lines)


def read(found: Found) -> ImportBatch:
    """Read one month of one symbol."""
    named = _FILE.fullmatch(found.name)
    if named is None:
        found.refuse("does not name its symbol and interval", remedy=EXPECTS)
    rows = found.table(_COLUMNS, header=_STAMP.match(found.first_line) is None)
    rows = found.numbers(rows, _COLUMNS[1:])
    local = pl.col("stamp").str.to_datetime("%Y.%m.%d %H:%M", time_unit="ns", strict=False).cast(pl.Int64)
    rows = rows.with_columns((local - _AHEAD).alias("ts_event"))
    note = "stamps were UTC+3 and were moved to UTC"
    over = _midnight_after(date.fromisoformat(named["last"])) - _AHEAD
    kept = rows.filter(pl.col("ts_event").is_null() | (pl.col("ts_event") < over))
    if kept.height < rows.height:
        note += "; the first minute of the next month was left to the next month's file"
    interval = int(named["minutes"]) * MINUTE
    symbol = named["symbol"]
    category = Category.LINEAR if symbol.endswith(("USDT", "USDC", "PERP")) else Category.INVERSE
    instrument = instrument_id(symbol, category, "BYBIT")
    return found.batch(NAME, [incoming(found, f"bar-{interval_name(interval)}", instrument, kept)], note=note)


def _midnight_after(day: date) -> int:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return int(at.timestamp()) * SECOND
