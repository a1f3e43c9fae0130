"""freqtrade's candle files (Arrow): funding sits in `open`, mark has no volume, the last bar may still be open."""

import io
import re

import polars as pl
import pyarrow as pa
from pyarrow import feather

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import on_the_hour

NAME = "freqtrade feather"
EXPECTS = "BASE_QUOTE-5m.feather, or futures/BASE_QUOTE_SETTLE-8h-funding_rate.feather and the like"

_FILE = re.compile(
    r"(?P<base>[A-Z0-9]+)_(?P<quote>[A-Z0-9]+)(?:_(?P<settle>[A-Z0-9]+))?-(?P<interval>\d+[mhd])(?:-(?P<what>[a-z_]+))?\.feather"
)
_COLUMNS = ["date", "open", "high", "low", "close", "volume"]
_KINDS = {"futures": "bar", "mark": "mark", "index": "index", "premium_index": "premium"}


def claims(found: Found) -> bool:
    return _FILE.fullmatch(found.name) is not None and found.raw.startswith((b"ARROW1", b"FEA1"))


def read(found: Found) -> ImportBatch:
    """Read one file; its name says what it holds, its directory from which venue."""
    named = _FILE.fullmatch(found.name)
    if named is None:
        found.refuse("is not named as freqtrade names its files", remedy=EXPECTS)
    rows = _table(found)
    rows = rows.with_columns(pl.col("date").dt.timestamp("ns").alias("ts_event")).with_row_index("row", offset=1)
    instrument = instrument_id(
        named["base"] + named["quote"], _category(named["quote"], named["settle"]), found.venue()
    )
    what = named["what"]
    if what == "funding_rate":
        return _funding(found, rows, instrument)
    if what is not None and what not in _KINDS:
        found.refuse(f"holds {what!r}, which is none of {', '.join(_KINDS)} and funding_rate", remedy=EXPECTS)
    # freqtrade keeps what the venue sent, and the venue sends the running bar, too.
    note = "the last bar may still have been open and was left out"
    kind_name = f"{_KINDS[what] if what is not None else 'bar'}-{named['interval']}"
    return found.batch(NAME, [incoming(found, kind_name, instrument, rows.head(-1))], note=note)


def _table(found: Found) -> pl.DataFrame:
    try:
        read = feather.read_table(io.BytesIO(found.raw), columns=list(_COLUMNS))
        # Polars panics on text that is no UTF-8, of which the metadata has some that nobody needs.
        read = read.select(_COLUMNS).replace_schema_metadata(None)
        read.validate(full=True)
        rows = pl.from_arrow(read)
    except (pa.ArrowException, pl.exceptions.PolarsError, KeyError, UnicodeDecodeError, OSError) as damage:
        found.refuse(f"is not a table of {', '.join(_COLUMNS)}: {damage}", remedy=EXPECTS)
    stamp = rows.schema["date"] if isinstance(rows, pl.DataFrame) else None
    if not isinstance(rows, pl.DataFrame) or not isinstance(stamp, pl.Datetime) or stamp.time_zone != "UTC":
        found.refuse("has a `date` that is no time in UTC", remedy=EXPECTS)
    return rows.with_columns(pl.col(name).cast(pl.Float64, strict=False) for name in _COLUMNS[1:])


def _category(quote: str, settle: str | None) -> Category:
    if settle is None:
        return Category.SPOT
    return Category.LINEAR if settle == quote else Category.INVERSE


def _funding(found: Found, rows: pl.DataFrame, instrument: str) -> ImportBatch:
    """The stamp is the settlement; some venues stamp it some milliseconds late."""
    rounded, note = on_the_hour(rows.rename({"open": "rate"}))
    return found.batch(NAME, [incoming(found, "funding", instrument, rounded)], note=note)
