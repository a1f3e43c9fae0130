"""Time as foreign files write it, to nanoseconds since 1970, exactly."""

import polars as pl

from hean.store.importers.reading import Found
from hean.units import HOUR, SECOND

FIRST = 1_262_304_000  # 2010-01-01: before it there was nothing to trade
LAST = 4_102_444_800  # 2100-01-01
_UNITS = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}


def from_epoch(found: Found, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Replace `column`, whole numbers since 1970 in whatever unit, by `ts_event`.

    Between 2010 and 2100 the four units share no number, so each number tells its own unit; a
    file that changes it half-way (Binance's archives did, in 2025) is refused.

    Raises:
        DataError: A stamp is no number, lies outside 2010 .. 2100 in every unit, or the unit changes.
    """
    text = frame[column].cast(pl.String).str.strip_chars()
    whole = frame.with_columns(text.cast(pl.Int64, strict=False).alias("_at"))
    _refuse_first(found, whole, pl.col("_at").is_null(), column, "is not a whole number since 1970")
    power = pl.lit(None, dtype=pl.Int64)
    for scale in _UNITS.values():
        low, high = FIRST * (SECOND // scale), LAST * (SECOND // scale)
        power = pl.when(pl.col("_at").is_between(low, high, closed="left")).then(scale).otherwise(power)
    scaled = whole.with_columns(power.alias("_scale"))
    _refuse_first(
        found, scaled, pl.col("_scale").is_null(), column, "lies outside 2010 .. 2100 in seconds, ms, us and ns alike"
    )
    if not scaled.is_empty():
        changed = pl.col("_scale") != pl.col("_scale").first()
        _refuse_first(found, scaled, changed, column, "is in another unit of time than the rows before it")
    return scaled.with_columns((pl.col("_at") * pl.col("_scale")).alias("ts_event")).drop("_at", "_scale")


def from_decimal_seconds(found: Found, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Replace text such as `1569974396.557895` by `ts_event`, digit by digit: a float would lose some.

    Raises:
        DataError: A stamp is not of that form or outside 2010 .. 2100.
    """
    parts = frame[column].str.strip_chars().str.split_exact(".", 1).struct.unnest()
    whole = parts["field_0"].cast(pl.Int64, strict=False)
    digits = parts["field_1"].fill_null("").str.pad_end(9, "0")
    fraction = digits.cast(pl.Int64, strict=False).set(digits.str.len_chars() != 9, None)
    read = frame.with_columns((whole * SECOND + fraction).alias("ts_event"))
    _refuse_first(found, read, pl.col("ts_event").is_null(), column, "is not seconds with a decimal fraction")
    outside = ~(pl.col("ts_event") // SECOND).is_between(FIRST, LAST, closed="left")
    _refuse_first(found, read, outside, column, "lies outside 2010 .. 2100 in seconds")
    return read


def from_iso(found: Found, frame: pl.DataFrame, column: str) -> pl.DataFrame:
    """Replace ISO 8601 text with an offset by `ts_event`.

    Raises:
        DataError: A stamp states no offset, so its zone would be a guess, or is no time at all.
    """
    text = pl.col(column).str.strip_chars()
    naive = ~text.str.contains(r"(?:[zZ]|[+-]\d\d:?\d\d)$")
    _refuse_first(found, frame, naive, column, "states no offset from UTC: its time zone would be a guess")
    stamp = (
        text.str.replace(" ", "T", literal=True)
        .str.replace(r"[zZ]$", "+00:00")
        .str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ns", time_zone="UTC", strict=False)
    )
    read = frame.with_columns(stamp.cast(pl.Int64).alias("ts_event"))
    _refuse_first(found, read, pl.col("ts_event").is_null(), column, "is not a time in ISO 8601 form")
    return read


def on_the_hour(rows: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Round settlements stamped less than a second off to their hour, and say how many; leave others to be refused."""
    full = (pl.col("ts_event") + HOUR // 2) // HOUR * HOUR
    late = (pl.col("ts_event") - full).abs()
    rounded = rows.with_columns(pl.when(late < SECOND).then(full).otherwise(pl.col("ts_event")).alias("ts_event"))
    moved = int((rounded["ts_event"] != rows["ts_event"]).sum())
    return rounded, f"{moved} stamps rounded to the hour, all by less than a second" if moved else ""


def _refuse_first(found: Found, frame: pl.DataFrame, bad: pl.Expr, column: str, why: str) -> None:
    first = frame.filter(bad).head(1)
    if not first.is_empty():
        row = int(first["row"][0])
        said = frame.filter(pl.col("row") == row)[column][0]
        found.refuse(f"{column} {said!r} {why}", row=row, remedy="state one unit and one zone throughout")
