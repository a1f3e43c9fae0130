"""Binance's public archive: candles and aggregated trades, with or without a header, in ms or (spot, since 2025) us."""

import re

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import from_epoch, on_the_hour
from hean.store.kinds import INTERVALS

NAME = "Binance archive"
EXPECTS = (
    "data.binance.vision: SYMBOL-1h-2024-10-28.zip or SYMBOL-aggTrades-….zip, below a directory spot or futures/um"
)

_MEMBER = re.compile(r"(?P<symbol>[A-Z0-9]+)-(?P<what>\d+[mhd]|aggTrades|trades|fundingRate)-\d{4}-\d\d(?:-\d\d)?\.csv")
_KLINE = [
    "open_time", "open", "high", "low", "close", "volume", "close_time",
    "quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore",
]  # fmt: skip
_AGGREGATE = [
    "agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "transact_time", "is_buyer_maker",
]  # fmt: skip

_TRADE = ["id", "price", "quantity", "quote_quantity", "time", "is_buyer_maker"]
_FUNDING = ["calc_time", "funding_interval_hours", "last_funding_rate"]
# The files of spot trades have one column more: `is_best_match`.
_FIELDS = {"aggTrades": {7, 8}, "trades": {6, 7}, "fundingRate": {3}}
# Candles of other prices are named like those of trades; only their directory tells.
_PRICES = {"mark": {"markpriceklines"}, "index": {"indexpriceklines"}, "premium": {"premiumindexklines"}}


def _member(found: Found) -> re.Match[str] | None:
    name = found.members[0] if len(found.members) == 1 else found.name
    return _MEMBER.fullmatch(name)


def claims(found: Found) -> bool:
    member = _member(found)
    if member is None:
        return False
    return len(found.header) in _FIELDS.get(member["what"], {len(_KLINE)})


def read(found: Found) -> ImportBatch:
    """Read one file of one symbol."""
    member = _member(found)
    if member is None:
        found.refuse("is not named as Binance names its archives", remedy=EXPECTS)
    what = member["what"]
    columns = {"aggTrades": _AGGREGATE, "trades": _TRADE, "fundingRate": _FUNDING}.get(what, _KLINE)
    best = len(found.header) > len(columns)
    category = Category.SPOT if best else Category.LINEAR if what == "fundingRate" else found.market()
    instrument = instrument_id(member["symbol"], category, "BINANCE")
    rows = found.table([*columns, "is_best_match"] if best else columns, header=not found.header[0].isdigit())
    if what == "aggTrades":
        note = "aggregated trades: fills of one taker order at one price are one row"
        return _trades(found, rows, instrument, stamp="transact_time", trade_id="agg_trade_id", note=note)
    if what == "trades":
        return _trades(found, rows, instrument, stamp="time", trade_id="id")
    if what == "fundingRate":
        return _funding(found, rows, instrument)
    if what not in INTERVALS:
        found.refuse(f"has candles of {what}", remedy=f"known are {', '.join(INTERVALS)}")
    rows = found.numbers(from_epoch(found, rows, "open_time"), _KLINE[1:6])
    prefix = found.said_by_path(_PRICES) or "bar"
    return found.batch(NAME, [incoming(found, f"{prefix}-{what}", instrument, rows)])


def _trades(
    found: Found, rows: pl.DataFrame, instrument: str, *, stamp: str, trade_id: str, note: str = ""
) -> ImportBatch:
    rows = found.numbers(from_epoch(found, rows, stamp), ["price", "quantity"])
    # Whoever was not the maker was the taker: a buyer who was maker was sold to.
    seller = pl.col("is_buyer_maker").str.strip_chars().str.to_lowercase()
    rows = rows.with_columns(
        pl.col("quantity").alias("size"),
        seller.replace_strict({"true": -1, "false": 1}, default=None, return_dtype=pl.Int8).alias("side"),
        pl.col(trade_id).alias("trade_id"),
        pl.lit(None, dtype=pl.Int64).alias("ts_recv"),
    )
    return found.batch(NAME, [incoming(found, "trade", instrument, rows)], note=note)


def _funding(found: Found, rows: pl.DataFrame, instrument: str) -> ImportBatch:
    """Binance stamps settlements some milliseconds late."""
    rows = found.numbers(from_epoch(found, rows, "calc_time"), ["last_funding_rate"])
    rows, note = on_the_hour(rows.rename({"last_funding_rate": "rate"}))
    return found.batch(NAME, [incoming(found, "funding", instrument, rows)], note=note)
