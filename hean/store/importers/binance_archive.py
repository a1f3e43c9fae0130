"""Binance's public archive: candles and aggregated trades, with or without a header, in ms or (spot, since 2025) us."""

import re

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import from_epoch
from hean.store.kinds import INTERVALS

NAME = "Binance archive"
EXPECTS = (
    "data.binance.vision: SYMBOL-1h-2024-10-28.zip or SYMBOL-aggTrades-….zip, below a directory spot or futures/um"
)

_MEMBER = re.compile(r"(?P<symbol>[A-Z0-9]+)-(?P<what>\d+[mhd]|aggTrades)-\d{4}-\d\d(?:-\d\d)?\.csv")
_KLINE = [
    "open_time", "open", "high", "low", "close", "volume", "close_time",
    "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
]  # fmt: skip
_AGGREGATE = [
    "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker",
]  # fmt: skip


def _member(found: Found) -> re.Match[str] | None:
    name = found.members[0] if len(found.members) == 1 else found.name
    return _MEMBER.fullmatch(name)


def claims(found: Found) -> bool:
    member = _member(found)
    if member is None:
        return False
    fields = len(found.header)
    return fields in {7, 8} if member["what"] == "aggTrades" else fields == len(_KLINE)


def read(found: Found) -> ImportBatch:
    """Read one file of one symbol."""
    member = _member(found)
    if member is None:
        found.refuse("is not named as Binance names its archives", remedy=EXPECTS)
    aggregated = member["what"] == "aggTrades"
    # Only the spot file of aggregated trades has the eighth column, `is_best_match`.
    best = aggregated and len(found.header) == 8
    columns = [*_AGGREGATE, "is_best_match"] if best else _AGGREGATE if aggregated else _KLINE
    rows = found.table(columns, header=not found.header[0].isdigit())
    instrument = instrument_id(member["symbol"], Category.SPOT if best else found.market(), "BINANCE")
    if aggregated:
        return _trades(found, rows, instrument)
    rows = found.numbers(from_epoch(found, rows, "open_time"), _KLINE[1:6])
    if member["what"] not in INTERVALS:
        found.refuse(f"has candles of {member['what']}", remedy=f"known are {', '.join(INTERVALS)}")
    return found.batch(NAME, [incoming(found, f"bar-{member['what']}", instrument, rows)])


def _trades(found: Found, rows: pl.DataFrame, instrument: str) -> ImportBatch:
    rows = found.numbers(from_epoch(found, rows, "transact_time"), ["price", "quantity"])
    # Whoever was not the maker was the taker: a buyer who was maker was sold to.
    seller = pl.col("is_buyer_maker").str.strip_chars().str.to_lowercase()
    rows = rows.with_columns(
        pl.col("quantity").alias("size"),
        seller.replace_strict({"true": -1, "false": 1}, default=None, return_dtype=pl.Int8).alias("side"),
        pl.col("agg_trade_id").alias("trade_id"),
        pl.lit(None, dtype=pl.Int64).alias("ts_recv"),
    )
    note = "aggregated trades: fills of one taker order at one price are one row"
    return found.batch(NAME, [incoming(found, "trade", instrument, rows)], note=note)
