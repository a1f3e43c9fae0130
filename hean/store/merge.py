"""Rows that are there and rows that arrive: what is new, what is the same, and what contradicts."""

import numpy as np
import polars as pl

from hean.errors import DataError
from hean.store.kinds import Kind
from hean.store.manifest import Gap, Gaps
from hean.units import HOUR, utc

_LISTED = 1_000
_CLOCK = 1_000_000  # one exporter cuts stamps to the millisecond, another keeps the microsecond
_CLOCKS_APART = 100 * _CLOCK  # where no exchange time is stated, each recording estimates its own
_LONGEST_FUNDING = 8 * HOUR


def merge(held: pl.DataFrame, arriving: pl.DataFrame, kind: Kind, *, series: str) -> pl.DataFrame:
    """Join two parts of one series.

    Rows that both have must agree. Ticks have no key to compare by: over the time that both cover, both
    must tell the same events. What is held stays; of what arrives, the rest of the time is added.

    Raises:
        DataError: The two contradict each other; it names the first stamp.
    """
    if held.is_empty():
        return arriving
    if kind.stamped_once:
        return _merge_stamped(held, arriving, series=series)
    if kind.keeps_arrival_order:
        return _merge_arrivals(held, arriving, series=series)
    return _merge_events(held, arriving, series=series)


def _merge_stamped(held: pl.DataFrame, arriving: pl.DataFrame, *, series: str) -> pl.DataFrame:
    values = [name for name in held.columns if name != "ts_event"]
    both = arriving.join(held, on="ts_event", how="inner", suffix="_held", maintain_order="left")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_held")) for name in values)
    different = both.filter(differs)
    if not different.is_empty():
        row = different.row(0, named=True)
        name = next(name for name in values if row[name] != row[f"{name}_held"])
        raise _contradiction(
            series,
            row["ts_event"],
            f"{name} is {row[name]} here and {row[f'{name}_held']} in the catalog; {different.height} such rows",
        )
    fresh = arriving.join(held, on="ts_event", how="anti")
    return pl.concat([held, fresh]).sort("ts_event")


def _merge_events(held: pl.DataFrame, arriving: pl.DataFrame, *, series: str) -> pl.DataFrame:
    if "update_id" in held.columns and not (held["update_id"].has_nulls() or arriving["update_id"].has_nulls()):
        return _merge_numbered(held, arriving, series=series)
    stamp = pl.col("ts_event") // _CLOCK
    ours = held.with_columns(stamp.alias("_at"))
    theirs = arriving.with_columns(stamp.alias("_at"))
    window = ours.filter(pl.col("_at").is_between(theirs["_at"].min(), theirs["_at"].max()))
    if not window.is_empty():
        shared = pl.col("_at").is_between(window["_at"].min(), window["_at"].max())
        _must_tell_the_same(window, theirs.filter(shared), series=series)
        arriving = theirs.filter(~shared).drop("_at")
    return pl.concat([held, arriving]).sort("ts_event", maintain_order=True)


def _merge_numbered(held: pl.DataFrame, arriving: pl.DataFrame, *, series: str) -> pl.DataFrame:
    """Quotes with the venue's update ids: the id says which are the same, whatever clock stamped them."""
    values = [name for name in held.columns if name not in {"ts_event", "ts_recv", "update_id"}]
    both = arriving.join(held, on="update_id", how="inner", suffix="_held", maintain_order="left")
    unlike = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_held")) for name in values)
    apart = (pl.col("ts_event") - pl.col("ts_event_held")).abs() > _CLOCKS_APART
    different = both.filter(unlike | apart)
    if not different.is_empty():
        why = f"{different.height} quotes have the update id of another in the catalog"
        raise _contradiction(series, different["ts_event"][0], why)
    fresh = arriving.join(held, on="update_id", how="anti", maintain_order="left")
    return pl.concat([held, fresh]).sort("ts_event", maintain_order=True)


def _must_tell_the_same(held: pl.DataFrame, arriving: pl.DataFrame, *, series: str) -> None:
    # An exporter may have left out ids or the recorder's clock: what both state must be equal.
    stated = ["_at"] + [
        name
        for name in held.columns
        if name not in {"_at", "ts_event", "ts_recv"}
        and not held[name].is_null().all()
        and not arriving[name].is_null().all()
    ]
    if held.height != arriving.height:
        at = _first_difference(held["_at"].to_numpy(), arriving["_at"].to_numpy())
        why = f"{arriving.height} events here and {held.height} in the catalog in the time both cover"
        raise _contradiction(series, at * _CLOCK, why)
    one = held.select(stated).sort(stated).rename(lambda name: f"{name}_held")
    other = arriving.select(stated).sort(stated)
    unlike = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_held")) for name in stated)
    different = pl.concat([other, one], how="horizontal").filter(unlike)
    if not different.is_empty():
        why = f"{different.height} events differ from the catalog's"
        raise _contradiction(series, different["_at"][0] * _CLOCK, why)


def _merge_arrivals(held: pl.DataFrame, arriving: pl.DataFrame, *, series: str) -> pl.DataFrame:
    told = [name for name in held.columns if name != "ts_recv"]
    first, last = arriving["ts_event"].min(), arriving["ts_event"].max()
    window = held.filter(pl.col("ts_event").is_between(first, last))
    if window.is_empty():
        before = held.filter(pl.col("ts_event") < first)
        return pl.concat([before, arriving, held.filter(pl.col("ts_event") > last)])
    stated = [name for name in told if name != "ts_event"]
    if window.height != arriving.height or not window.select(stated).equals(arriving.select(stated)):
        raise _contradiction(
            series, int(window["ts_event"][0]), "the order book told here is not the one in the catalog"
        )
    return held


def _first_difference(held: np.ndarray, arriving: np.ndarray) -> int:
    shorter = min(held.size, arriving.size)
    unlike = np.flatnonzero(held[:shorter] != arriving[:shorter])
    longer = held if held.size > arriving.size else arriving
    return int(min(held[unlike[0]], arriving[unlike[0]]) if unlike.size else longer[shorter])


def _contradiction(series: str, ts_event: int, why: str) -> DataError:
    return DataError(
        f"{series} contradicts the catalog from {utc(ts_event)} on: {why}",
        remedy="keep one of the two sources: import the other into a catalog of its own",
    )


def gaps_of(stamps: np.ndarray, kind: Kind) -> Gaps:
    """Find the stamps that should be there and are not.

    Bars and their kin have a fixed grid. Funding has none, since its interval changes in a contract's
    life: there a wait is a hole if it is longer than both its neighbours, or than eight hours.
    """
    if stamps.size < 2 or (kind.interval is None and kind.shape != "rate"):
        return Gaps()
    wait = np.diff(stamps)
    if kind.interval is not None:
        usual = np.full(wait.shape, kind.interval)
    else:
        before = np.concatenate([wait[1:2], wait[:-1]])
        after = np.concatenate([wait[1:], wait[-2:-1]])
        usual = (
            np.minimum(np.maximum(before, after), _LONGEST_FUNDING)
            if wait.size > 1
            else np.minimum(wait, _LONGEST_FUNDING)
        )
    at = np.flatnonzero(wait > usual)
    missing = -(-wait[at] // usual[at]) - 1
    listed = tuple(
        Gap(from_ts=int(stamps[i] + usual[i]), to_ts=int(stamps[i + 1]), missing=int(count))
        for i, count in zip(at[:_LISTED], missing[:_LISTED], strict=True)
    )
    return Gaps(holes=int(at.size), missing=int(missing.sum()), listed=listed)
