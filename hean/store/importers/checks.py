"""What makes rows unfit for the catalog, whatever format they came in."""

import math
from collections.abc import Mapping

import polars as pl

from hean.instruments import split_id
from hean.store.catalog import Incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import FIRST, LAST
from hean.store.kinds import Kind, interval_name, kind
from hean.store.merge import gaps_of
from hean.units import HOUR, MINUTE, SECOND, utc

_OHLC = ("open", "high", "low", "close")
# The median 1-minute range of real series is 0.02 .. 0.3 % (the latter WIF), and 1.07 % in the
# worst hour of the crash of 2024-08-05 on ETH. Bybit's testnet shows 1.7 % on BTC.
_WIDEST_MINUTE = 0.012
_ENOUGH_BARS = 60
_MOST_MISSING = 0.5
_HIGHEST_FUNDING = 0.1  # ten times what any venue caps it at; above it the rate is in per cent or worse


def incoming(found: Found, kind_name: str, instrument: str, rows: pl.DataFrame) -> Incoming:
    """Check `rows` and make a series of them.

    `rows` has the columns of the kind, in catalog order, and `row`: where each stood in the file.

    Raises:
        DataError: A row is impossible; it names the first. Or all together they cannot be real.
    """
    shape = kind(kind_name)
    split_id(instrument)
    if rows.is_empty():
        found.refuse(f"holds no {kind_name}", remedy="fetch the file again")
    _stamps(found, shape, rows)
    _values(found, shape, rows)
    if shape.interval is not None:
        _enough(found, shape, rows)
    if shape.shape == "bar" or shape.prefix in {"mark", "index"}:
        _believable(found, shape, rows)
    return Incoming(kind=kind_name, instrument=instrument, rows=rows.select(list(shape.columns)))


def _stamps(found: Found, shape: Kind, rows: pl.DataFrame) -> None:
    stamp = pl.col("ts_event")
    seconds = stamp // SECOND
    _refuse(found, rows, stamp.is_null() | ~seconds.is_between(FIRST, LAST, closed="left"), "is outside 2010 .. 2100")
    if shape.keeps_arrival_order:
        return
    step = stamp.diff()
    _refuse(found, rows, step < 0, "comes after a later one: rows are not in the order of time")
    if shape.stamped_once:
        _refuse(found, rows, step == 0, "stands there twice")
    grid = shape.interval if shape.interval is not None else HOUR if shape.shape == "rate" else None
    if grid is not None:
        _refuse(found, rows, stamp % grid != 0, f"is off the grid of {interval_name(grid)}")


def _values(found: Found, shape: Kind, rows: pl.DataFrame) -> None:
    needed = [name for name, of in shape.columns.items() if of is pl.Float64]
    if shape.shape == "ticker":
        present = [name for name in needed if not rows[name].is_null().all()]
        _refuse_column(found, rows, {n: ~pl.col(n).fill_null(0.0).is_finite() for n in present}, "is not finite")
        return
    # A null is as unfit as NaN, so it is made one.
    unfit = {name: ~pl.col(name).fill_null(math.nan).is_finite() for name in needed}
    _refuse_column(found, rows, unfit, "is missing or not finite")
    match shape.shape:
        case "bar" | "level":
            if shape.prefix != "premium":
                _positive(found, rows, list(_OHLC))
            if shape.shape == "bar":
                _refuse(found, rows, pl.col("volume") < 0, "has a negative volume")
            _in_range(found, rows, "")
        case "quote-bar":
            for side in ("bid_", "ask_"):
                _positive(found, rows, [side + name for name in _OHLC])
                _in_range(found, rows, side)
            crossed = (pl.col("bid_open") > pl.col("ask_open")) | (pl.col("bid_close") > pl.col("ask_close"))
            _refuse(found, rows, crossed, "bids more than is asked")
            _refuse(found, rows, pl.min_horizontal("bid_size", "ask_size") < 0, "has a negative size")
        case "rate":
            too_high = pl.col("rate").abs() >= _HIGHEST_FUNDING
            _refuse(
                found, rows, too_high, "has a funding rate of ten per cent or more: rates are fractions, 0.0001 is 1 bp"
            )
        case "basis":
            _positive(found, rows, needed)
        case "interest":
            _refuse(found, rows, pl.col("open_interest") < 0, "has a negative open interest")
        case "trade":
            _positive(found, rows, ["price", "size"])
            _sided(found, rows)
        case "quote":
            _positive(found, rows, ["bid", "ask"])
            _refuse(found, rows, pl.col("bid") > pl.col("ask"), "bids more than is asked")
            _refuse(found, rows, pl.min_horizontal("bid_size", "ask_size") < 0, "has a negative size")
        case "depth":
            _positive(found, rows, ["price"])
            _refuse(found, rows, pl.col("size") < 0, "has a negative size")
            _sided(found, rows)


def _positive(found: Found, rows: pl.DataFrame, names: list[str]) -> None:
    _refuse_column(found, rows, {name: pl.col(name) <= 0 for name in names}, "is not above zero")


def _sided(found: Found, rows: pl.DataFrame) -> None:
    _refuse(found, rows, ~pl.col("side").is_in([1, -1]).fill_null(value=False), "is on neither side")


def _in_range(found: Found, rows: pl.DataFrame, side: str) -> None:
    first, high, low, last = (pl.col(side + name) for name in _OHLC)
    crossed = (low > pl.min_horizontal(first, last)) | (high < pl.max_horizontal(first, last))
    _refuse(found, rows, crossed, f"has its {side}open or {side}close outside of {side}low .. {side}high")


def _enough(found: Found, shape: Kind, rows: pl.DataFrame) -> None:
    if found.hints.allow_gaps:
        return
    missing = gaps_of(rows["ts_event"].to_numpy(), shape)
    if missing.missing > _MOST_MISSING * (rows.height + missing.missing):
        found.refuse(
            f"{missing.missing} of {rows.height + missing.missing} bars are missing, in {missing.holes} holes: "
            "paged wrongly when it was fetched?",
            remedy="fetch it again, or take it as it is with --allow-gaps",
        )


def _believable(found: Found, shape: Kind, rows: pl.DataFrame) -> None:
    if shape.interval is None or shape.interval > HOUR or rows.height < _ENOUGH_BARS:
        return
    widest = _WIDEST_MINUTE * math.sqrt(shape.interval / MINUTE)
    usual = rows.select((pl.col("high") / pl.col("low") - 1).median()).item()
    if usual > widest:
        found.refuse(
            f"the median range of a bar is {usual:.2%}, and no real market of {shape.name} moves more than {widest:.2%}: "
            "is this a testnet?",
            remedy="fetch it from the venue's live market",
        )


def _refuse_column(found: Found, rows: pl.DataFrame, bad: Mapping[str, pl.Expr], why: str) -> None:
    """Refuse the first row in which any column is bad; say which column, and what it holds."""
    first = rows.filter(pl.any_horizontal(pl.lit(value=False), *bad.values())).head(1)
    if not first.is_empty():
        name = next(name for name, unfit in bad.items() if first.select(unfit).item())
        _refuse(found, first, pl.lit(value=True), f"has {name} {first[name][0]}, which {why}")


def _refuse(found: Found, rows: pl.DataFrame, bad: pl.Expr, why: str) -> None:
    first = rows.filter(bad).head(1)
    if not first.is_empty():
        stamp = first["ts_event"][0]
        at = "a row" if stamp is None or not 0 <= stamp < LAST * SECOND else f"the row of {utc(int(stamp))}"
        found.refuse(f"{at} {why}", row=int(first["row"][0]))
