"""Bybit's public trade archives: the derivatives one (newest first), and the spot one with other columns."""

import re

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import from_decimal_seconds, from_epoch

NAME = "Bybit trade archive"
EXPECTS = "Bybit's public trading archive, .csv or .csv.gz: timestamp,symbol,side,size,price,…; spot: id,timestamp,price,volume,side"

_SPOT_FILE = re.compile(r"(?P<symbol>[A-Z0-9]+)[_-]\d{4}-\d{2}(?:-\d{2})?\.csv(?:\.gz)?")


def claims(found: Found) -> bool:
    return _is_derivatives(found) or _is_spot(found)


def _is_derivatives(found: Found) -> bool:
    return found.header[:5] == ["timestamp", "symbol", "side", "size", "price"]


def _is_spot(found: Found) -> bool:
    return found.header[:5] == ["id", "timestamp", "price", "volume", "side"]


def read(found: Found) -> ImportBatch:
    """Read one day, or month, of trades of one symbol."""
    return _derivatives(found) if _is_derivatives(found) else _spot(found)


def _derivatives(found: Found) -> ImportBatch:
    """The size of an inverse contract is in USD and stays so: it is what the venue trades."""
    rows = found.table(found.header, header=True)
    symbols = rows["symbol"].unique().to_list()
    if len(symbols) != 1:
        found.refuse(f"holds the symbols {symbols}", remedy="an archive file has one symbol: split it")
    rows = from_decimal_seconds(found, found.numbers(rows, ["size", "price"]), "timestamp")
    note = ""
    if rows.height > 1 and rows["ts_event"][0] > rows["ts_event"][-1]:
        rows = rows.reverse()
        note = "newest first in the file, turned round"
    ids = pl.col("trdMatchID") if "trdMatchID" in rows.columns else pl.lit(None, dtype=pl.String)
    rows = rows.with_columns(_side(), ids.alias("trade_id"), pl.lit(None, dtype=pl.Int64).alias("ts_recv"))
    symbol = symbols[0]
    category = Category.LINEAR if symbol.endswith(("USDT", "USDC", "PERP")) else Category.INVERSE
    if category is Category.INVERSE:
        note = f"{note}; sizes are USD contracts".removeprefix("; ")
    series = incoming(found, "trade", instrument_id(symbol, category, "BYBIT"), rows)
    return found.batch(NAME, [series], note=note)


def _spot(found: Found) -> ImportBatch:
    named = _SPOT_FILE.fullmatch(found.name)
    symbol = named["symbol"] if named is not None else found.hints.symbol
    if symbol is None:
        found.refuse("does not name its symbol", remedy="name the file like BTCUSDT_2025-05-17.csv, or say --symbol")
    rows = found.table(found.header, header=True)
    rows = from_epoch(found, found.numbers(rows, ["price", "volume"]), "timestamp")
    if rows.height > 1 and rows["ts_event"][0] > rows["ts_event"][-1]:
        rows = rows.reverse()
    rows = rows.with_columns(
        _side(),
        pl.col("volume").alias("size"),
        pl.col("id").alias("trade_id"),
        pl.lit(None, dtype=pl.Int64).alias("ts_recv"),
    )
    series = incoming(found, "trade", instrument_id(symbol, Category.SPOT, "BYBIT"), rows)
    return found.batch(NAME, [series])


def _side() -> pl.Expr:
    # The derivatives archive writes Buy, the spot archive buy.
    sides = pl.col("side").str.strip_chars().str.to_lowercase()
    return sides.replace_strict({"buy": 1, "sell": -1}, default=None, return_dtype=pl.Int8).alias("side")
