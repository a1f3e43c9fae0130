"""QuantConnect LEAN's minute files: milliseconds since midnight UTC, the date in the name; and its funding file."""

import re
from datetime import UTC, datetime

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.units import DAY, SECOND

NAME = "LEAN"
EXPECTS = "…/crypto(future)/venue/minute/symbol/20221213_trade.zip or _quote.zip, and …/margin_interest/symbol.csv"

_ZIP = re.compile(r"(?P<day>\d{8})_(?P<what>trade|quote)\.zip")
_MEMBER = re.compile(r"\d{8}_(?P<symbol>[a-z0-9]+)_minute_(?:trade|quote)(?P<perp>_perp)?\.csv")
_FUNDING_LINE = re.compile(r"\d{8} \d\d:\d\d:\d\d,-?[\d.eE-]+")
_MS = 1_000_000
_TRADE = ["ms", "open", "high", "low", "close", "volume"]
_QUOTE = ["ms", *(f"{side}_{name}" for side in ("bid", "ask") for name in ("open", "high", "low", "close", "size"))]


def claims(found: Found) -> bool:
    if _ZIP.fullmatch(found.name):
        return len(found.members) == 1 and _MEMBER.fullmatch(found.members[0]) is not None
    return found.name.endswith(".csv") and _FUNDING_LINE.fullmatch(found.first_line) is not None


def read(found: Found) -> ImportBatch:
    """Read a day of minutes, or a whole history of funding. Crypto prices are plain, not in LEAN's ten-thousandths."""
    named = _ZIP.fullmatch(found.name)
    if named is None:
        return _funding(found)
    member = _MEMBER.fullmatch(found.members[0])
    if member is None:
        found.refuse(f"holds {found.members[0]}", remedy=EXPECTS)
    symbol = member["symbol"].upper()
    columns = _TRADE if named["what"] == "trade" else _QUOTE
    rows = found.numbers(found.table(columns, header=False), columns)
    outside = rows.filter(~pl.col("ms").is_between(0, DAY // _MS, closed="left"))
    if not outside.is_empty():
        found.refuse(f"has {outside['ms'][0]} as milliseconds since midnight", row=int(outside["row"][0]))
    midnight = int(datetime.strptime(named["day"], "%Y%m%d").replace(tzinfo=UTC).timestamp()) * SECOND
    rows = rows.with_columns((pl.col("ms").cast(pl.Int64) * _MS + midnight).alias("ts_event"))
    category = _perpetual(symbol) if member["perp"] else Category.SPOT
    kind_name = "bar-1m" if named["what"] == "trade" else "quote-bar-1m"
    note = "" if named["what"] == "trade" else "minutes in which the quote did not change are absent"
    series = incoming(found, kind_name, instrument_id(symbol, category, found.venue()), rows)
    return found.batch(NAME, [series], note=note)


def _funding(found: Found) -> ImportBatch:
    symbol = found.path.stem.upper()
    rows = found.numbers(found.table(["stamp", "rate"], header=False), ["rate"])
    stamp = pl.col("stamp").str.to_datetime("%Y%m%d %H:%M:%S", time_unit="ns", strict=False).cast(pl.Int64)
    rows = rows.with_columns(stamp.alias("ts_event"))
    series = incoming(found, "funding", instrument_id(symbol, _perpetual(symbol), found.venue()), rows)
    return found.batch(NAME, [series])


def _perpetual(symbol: str) -> Category:
    return Category.LINEAR if symbol.endswith(("USDT", "USDC")) else Category.INVERSE
