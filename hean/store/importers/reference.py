"""Is the price level believable? Compared with whatever else the catalog knows of the same pair at the same time."""

import polars as pl

from hean.errors import DataError
from hean.instruments import Category, split_id
from hean.store.catalog import Catalog, ImportBatch, Incoming
from hean.store.kinds import Kind, kind
from hean.units import MINUTE, utc

# Spot, perpetual, mark and index of one pair, across venues, have medians within 0.2 % of each
# other; a testnet, another coin or a wrong decimal point are off by tens of per cent.
_MEDIAN_OFF = 0.05
# Closes of one instant part by several per cent in a liquidation cascade, on thin coins by more.
_BAR_OFF = 0.25
_FEWEST = 3
_DOLLARS = ("USDT", "USDC", "USD")


def must_be_plausible(catalog: Catalog, batch: ImportBatch, *, file: str) -> None:
    """Compare each priced series of `batch` with its kin in the batch and in the catalog.

    Raises:
        DataError: The level is not that of another series of the same pair over the same time.
    """
    closes = [(incoming, of) for incoming in batch.series if (of := _closes(incoming.rows, incoming.kind)) is not None]
    for position, (incoming, ours) in enumerate(closes):
        for other, theirs in closes[:position]:
            if _pair(other.instrument) == _pair(incoming.instrument):
                _compare(incoming, ours, theirs, f"{other.kind} of {other.instrument} in the same file", file=file)
        _compare_with_catalog(catalog, incoming, ours, file=file)


def _compare_with_catalog(catalog: Catalog, incoming: Incoming, ours: pl.DataFrame, *, file: str) -> None:
    start, end = int(ours["at"][0]), int(ours["at"][-1])
    for series in catalog.series():
        same = (series.kind, series.instrument) == (incoming.kind, incoming.instrument)
        if (
            same
            or series.synthetic
            or not _priced(kind(series.kind))
            or _pair(series.instrument) != _pair(incoming.instrument)
        ):
            continue
        # A bar that closes at `end` may have opened a day before.
        before = start - (series.interval or MINUTE)
        if series.first_ts >= end or series.last_ts < before:
            continue
        theirs = _closes(catalog.read(series.kind, series.instrument, start=before, end=end + 1), series.kind)
        if theirs is not None:
            _compare(incoming, ours, theirs, f"{series.kind} of {series.instrument}", file=file)


def _compare(incoming: Incoming, ours: pl.DataFrame, theirs: pl.DataFrame, named: str, *, file: str) -> None:
    both = ours.join(theirs, on="at", suffix="_theirs").with_columns(
        (pl.col("close") / pl.col("close_theirs")).alias("ratio")
    )
    if both.height < _FEWEST:
        return
    usual = both.select(pl.col("ratio").median()).item()
    if abs(usual - 1) > _MEDIAN_OFF:
        raise DataError(
            f"{incoming.kind} of {incoming.instrument} stands {usual - 1:+.1%} from {named} in the median of {both.height} "
            "common times: another coin, another unit, or a testnet?",
            file=file,
            remedy="keep the one you trust; import the other into a catalog of its own",
        )
    far = both.filter((pl.col("ratio") - 1).abs() > _BAR_OFF).head(1)
    if not far.is_empty():
        raise DataError(
            f"{incoming.kind} of {incoming.instrument} closes at {far['close'][0]} at {utc(int(far['at'][0]))}, when {named} "
            f"closes at {far['close_theirs'][0]}",
            file=file,
            remedy="keep the one you trust; import the other into a catalog of its own",
        )


def _priced(shape: Kind) -> bool:
    return shape.shape in {"bar", "trade", "quote"} or shape.prefix in {"mark", "index"}


def _pair(instrument: str) -> str:
    symbol, category, _ = split_id(instrument)
    # A dollar is a dollar here: inverse contracts and USDC pairs stand within the tolerance of USDT.
    quote = next((quote for quote in _DOLLARS if symbol.endswith(quote)), "")
    base = symbol.removesuffix(quote) if quote else symbol
    return base if quote or category is Category.INVERSE else symbol


def _closes(rows: pl.DataFrame, kind_name: str) -> pl.DataFrame | None:
    """Return the price at the END of each bar or minute: what two series of different intervals share."""
    shape = kind(kind_name)
    if not _priced(shape) or rows.is_empty():
        return None
    if shape.interval is not None:
        return rows.select((pl.col("ts_event") + shape.interval).alias("at"), "close")
    price = pl.col("price") if shape.shape == "trade" else (pl.col("bid") + pl.col("ask")) / 2
    minute = (pl.col("ts_event") // MINUTE + 1) * MINUTE
    return rows.group_by(minute.alias("at"), maintain_order=True).agg(price.last().alias("close"))
