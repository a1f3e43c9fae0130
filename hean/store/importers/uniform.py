"""Files already in one form: `venue.market.SYMBOL.kind.period.parquet`, as the repository's data set has them."""

import re

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.kinds import kind

NAME = "uniform Parquet"
EXPECTS = "venue.market.SYMBOL.kind.period.parquet with a column `ts` of UTC times"

_FILE = re.compile(
    r"(?P<venue>bybit|binance)\.(?P<market>linear|spot|inverse|basis)\.(?P<symbol>[A-Z0-9]+)\.(?P<kind>[a-z]+(?:-\d+[mhd])?)\..+\.parquet"
)
_KINDS = {
    "kline": "bar",
    "mark": "mark",
    "index": "index",
    "premium": "premium",
    "funding": "funding",
    "price": "basis",
    "trades": "trade",
    "aggtrades": "trade",
    "bbo": "quote",
    "depth": "depth",
    "ticker": "ticker",
    "quote": "quote-bar",
}
_RENAMED = {"recv_ts": "ts_recv", "next_funding": "next_funding_ts"}
_NOTES = {
    "aggtrades": "aggregated trades: fills of one taker order at one price are one row",
    "price": "the middles of open and close are known only at the end of their minute",
}


def claims(found: Found) -> bool:
    return _FILE.fullmatch(found.name) is not None and found.raw.startswith(b"PAR1")


def read(found: Found) -> ImportBatch:
    """Read one file of the uniform form."""
    named = _FILE.fullmatch(found.name)
    if named is None:
        found.refuse("is not named as the uniform form names its files", remedy=EXPECTS)
    word, _, interval = named["kind"].partition("-")
    if word not in _KINDS:
        found.refuse(f"is of the kind {named['kind']!r}, which is none", remedy=f"known are {', '.join(_KINDS)}")
    kind_name = f"{_KINDS[word]}-{interval}" if interval else _KINDS[word]
    # The basis file sets spot beside perp; it is kept under the perpetual.
    market = Category.LINEAR if named["market"] == "basis" else Category(named["market"].upper())
    instrument = instrument_id(named["symbol"], market, named["venue"].upper())
    try:
        rows = pl.read_parquet(found.raw)
    except pl.exceptions.PolarsError as damage:
        found.refuse(f"is no Parquet: {damage}", remedy="fetch the file again")
    rows = _as_kind(found, rows, kind_name)
    return found.batch(NAME, [incoming(found, kind_name, instrument, rows)], note=_NOTES.get(word, ""))


def _as_kind(found: Found, rows: pl.DataFrame, kind_name: str) -> pl.DataFrame:
    if rows.schema.get("ts") != pl.Datetime("ms", "UTC"):
        found.refuse(f"has `ts` as {rows.schema.get('ts')}", remedy="it must be Datetime[ms, UTC]")
    stamps = [name for name, of in rows.schema.items() if isinstance(of, pl.Datetime)]
    rows = rows.with_columns(pl.col(name).dt.timestamp("ns") for name in stamps)
    rows = rows.rename({"ts": "ts_event", **{old: new for old, new in _RENAMED.items() if old in rows.columns}})
    if "type" in rows.columns:
        rows = rows.with_columns((pl.col("type") == "snapshot").alias("snapshot"))
    if "side" in rows.columns:
        sides = {"buy": 1, "sell": -1, "bid": 1, "ask": -1}
        rows = rows.with_columns(pl.col("side").replace_strict(sides, default=None, return_dtype=pl.Int8))
    shape = kind(kind_name)
    absent = [name for name in shape.columns if name not in rows.columns]
    if absent and shape.shape != "ticker":
        found.refuse(f"lacks the columns {', '.join(absent)} of a {kind_name}", remedy="fetch the file again")
    rows = rows.with_columns(pl.lit(None, dtype=shape.columns[name]).alias(name) for name in absent)
    # Depth and ticks of a live capture come in arrival order; the catalog sorts all but depth.
    rows = rows.with_row_index("row", offset=1)
    return rows if shape.stamped_once or shape.keeps_arrival_order else rows.sort("ts_event", maintain_order=True)
