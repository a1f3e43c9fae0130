"""The tape of the market: Parquet files under one directory, and the manifest that names them.

    manifest.json                                   what is there; readers believe nothing else
    bar-1m/BTCUSDT-LINEAR.BYBIT/2025-06.1c5f….parquet   a month; ticks are cut by day
    rules/rules.77ab….json                          instrument rules with the time they were read

All times are nanoseconds since 1970, UTC, and stand in `ts_event`.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import polars as pl

from hean.errors import DataError
from hean.instruments import Instrument, split_id
from hean.store import manifest as files
from hean.store.kinds import Kind, kind
from hean.store.manifest import Gap, Gaps, Manifest, Partition, Series, SourceFile
from hean.store.merge import gaps_of, merge
from hean.store.rules import DatedRules, RulesOrigin, changed_rules, decode_rules, encode_rules, in_force
from hean.units import utc

__all__ = [
    "Catalog",
    "Committed",
    "Gap",
    "Gaps",
    "ImportBatch",
    "Incoming",
    "Partition",
    "Series",
    "Source",
    "SourceFile",
]


T = TypeVar("T")

_RESTORE = "restore it from a copy, or import its sources into a new catalog"


@dataclass(frozen=True)
class Source:
    """Where a batch comes from."""

    name: str
    sha256: str
    importer: str
    note: str = ""


@dataclass(frozen=True)
class Incoming:
    """The rows of one series, in catalog order, with the columns of its kind."""

    kind: str
    instrument: str
    rows: pl.DataFrame


@dataclass(frozen=True)
class ImportBatch:
    """Everything one source file says. It enters wholly or not at all."""

    source: Source
    series: tuple[Incoming, ...] = ()
    rules: tuple[DatedRules, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True)
class Committed:
    """What a batch added: rows by kind and instrument, and instruments whose rules are new."""

    added: Mapping[tuple[str, str], int] = field(default_factory=dict)
    rules: int = 0

    @property
    def rows(self) -> int:
        return sum(self.added.values())


class Catalog:
    """All the market data there is, for whoever reads or adds.

    Readers need no lock: they see the manifest as it was when they asked. Writers wait for one
    another.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def exists(self) -> bool:
        """Whether anything was ever committed; readers take a path without a catalog for an empty one."""
        return files.exists(self.root)

    def must_be_writable(self) -> None:
        """Say before a long fetch what `commit` would say after it.

        Raises:
            DataError: The directory holds somebody's files, and no catalog.
        """
        files.must_be_ours(self.root)

    def series(self) -> list[Series]:
        """List what is there, by kind and instrument."""
        return sorted(files.load(self.root).series, key=lambda series: (series.instrument, series.kind))

    def find(self, kind: str, instrument: str) -> Series | None:
        """Return the series, or None if the catalog has nothing of the kind for the instrument."""
        return _find(files.load(self.root), kind, instrument)

    def holds(self, batch: ImportBatch) -> bool:
        """Whether the same content was imported before, under the same name and as the same series."""
        manifest = files.load(self.root)
        said = (batch.source.name, batch.source.sha256)
        known = (_find(manifest, incoming.kind, incoming.instrument) for incoming in batch.series)
        return bool(batch.series) and all(
            series is not None and said in {(source.name, source.sha256) for source in series.sources}
            for series in known
        )

    def read(self, kind: str, instrument: str, *, start: int | None = None, end: int | None = None) -> pl.DataFrame:
        """Return the rows with `start <= ts_event < end`, in catalog order.

        Raises:
            DataError: The catalog has no such series, or nothing of it in that time, or a file
                is not what the manifest says.
        """
        return self._looking(lambda manifest: self._read(manifest, kind, instrument, start=start, end=end))

    def manifest_of(
        self, kind: str, instrument: str, *, start: int | None = None, end: int | None = None
    ) -> dict[str, Any]:
        """Describe the data a run is made from, so that a report can name it exactly.

        Gaps are those inside the window. Where a window of bars or their kin begins before the data,
        or ends after it, that is a gap, too.
        """
        series = _required(files.load(self.root), kind, instrument)
        rows = self.read(kind, instrument, start=start, end=end)
        stamps = rows["ts_event"].to_numpy()
        partitions = [part for part in series.partitions if _within(part, start=start, end=end)]
        sources = [source for source in series.sources if _within(source, start=start, end=end)]
        gaps = _gaps_in_window(stamps, series, start=start, end=end)
        return {
            "kind": kind,
            "instrument": instrument,
            "interval": series.interval,
            "synthetic": series.synthetic,
            "rows": rows.height,
            "first_ts": int(stamps.min()) if stamps.size else None,
            "last_ts": int(stamps.max()) if stamps.size else None,
            "partitions": {part.file: part.sha256 for part in partitions},
            "gaps": msgspec.to_builtins(gaps),
            "sources": [msgspec.to_builtins(source) for source in sources],
        }

    def rules(self, instrument: str, at: int) -> tuple[Instrument, RulesOrigin] | None:
        """Return the instrument's rules as known at `at`, and where they come from.

        The newest recorded rules not after `at`; else those that came with HEAN; else the
        earliest recorded later. `RulesOrigin.later` says when they are of a later day than `at`.
        """
        return in_force(self._looking(self._recorded), instrument, at)

    def fingerprint(self, instruments: Iterable[str]) -> str:
        """Hash all that is recorded of some instruments, their rules included: it changes when any of it does."""
        names = frozenset(instruments)
        manifest = files.load(self.root)
        # Rules of one venue may stand in for another's.
        markets = {split_id(name)[:2] for name in names}
        rules = [dated for dated in self._looking(self._recorded) if split_id(dated.instrument.id)[:2] in markets]
        held = sorted(
            (series.kind, series.instrument, [part.sha256 for part in series.partitions])
            for series in manifest.series
            if series.instrument in names
        )
        return hashlib.sha256(msgspec.json.encode(held) + encode_rules(rules)).hexdigest()

    def commit(self, batch: ImportBatch) -> Committed:
        """Add what `batch` says and the catalog does not have yet.

        Raises:
            DataError: It contradicts what is there, or would mix made-up data with real; a file of the
                catalog is damaged or gone; or the directory is somebody's, and no catalog.
        """
        with files.writing(self.root):
            manifest = files.load(self.root)
            files.sweep(self.root, manifest)
            held = {(series.kind, series.instrument): series for series in manifest.series}
            added: dict[tuple[str, str], int] = {}
            for incoming in batch.series:
                key = (incoming.kind, incoming.instrument)
                before = held.get(key)
                after = self._extended(before, incoming, batch)
                if after is None:
                    continue
                held[key] = after
                added[key] = after.rows - (before.rows if before is not None else 0)
            recorded = self._recorded(manifest)
            fresh = changed_rules(recorded, batch.rules)
            rules = manifest.rules
            if fresh:
                rules, _ = files.add_file(self.root, "rules/rules", "json", encode_rules([*recorded, *fresh]))
            if added or fresh:
                files.replace(self.root, Manifest(series=tuple(held.values()), rules=rules))
            return Committed(added=added, rules=len(fresh))

    def _recorded(self, manifest: Manifest) -> list[DatedRules]:
        if manifest.rules is None:
            return []
        try:
            return decode_rules(self._content(manifest.rules))
        except msgspec.DecodeError as broken:
            path = self.root / manifest.rules
            raise DataError(f"the rules cannot be read: {broken}", file=str(path), remedy=_RESTORE) from broken

    def _extended(self, series: Series | None, incoming: Incoming, batch: ImportBatch) -> Series | None:
        """Write the partitions `incoming` changes; None when it says nothing new."""
        shape = kind(incoming.kind)
        rows = _as_kind(incoming, shape)
        _must_not_mix(series, incoming, synthetic=batch.synthetic)
        if rows.is_empty():
            return None
        parts = {part.period: part for part in series.partitions} if series is not None else {}
        changed = False
        for period, arriving in _by_period(rows, shape):
            part = parts.get(period)
            held = self._load(part) if part is not None else rows.clear()
            merged = merge(held, arriving, shape, series=f"{incoming.kind} of {incoming.instrument}")
            if part is not None and merged.height == held.height:
                continue
            parts[period] = self._store(merged, incoming, period)
            changed = True
        if not changed:
            return None
        ordered = tuple(parts[period] for period in sorted(parts))
        source = SourceFile(
            name=batch.source.name,
            sha256=batch.source.sha256,
            importer=batch.source.importer,
            note=batch.source.note,
            rows=rows.height,
            first_ts=int(rows["ts_event"].min()),  # type: ignore[arg-type]  # an Int64 column, not empty
            last_ts=int(rows["ts_event"].max()),  # type: ignore[arg-type]
        )
        return Series(
            kind=incoming.kind,
            instrument=incoming.instrument,
            interval=shape.interval,
            synthetic=batch.synthetic,
            partitions=ordered,
            sources=(*(series.sources if series is not None else ()), source),
            gaps=self._gaps(ordered, shape),
        )

    def _gaps(self, parts: tuple[Partition, ...], shape: Kind) -> Gaps:
        if not shape.stamped_once:
            return Gaps()
        stamps = [self._load(part, columns=["ts_event"])["ts_event"].to_numpy() for part in parts]
        return gaps_of(np.concatenate(stamps), shape)

    def _store(self, rows: pl.DataFrame, incoming: Incoming, period: str) -> Partition:
        buffer = io.BytesIO()
        rows.write_parquet(buffer, compression="zstd")
        stem = f"{incoming.kind}/{incoming.instrument}/{period}"
        name, digest = files.add_file(self.root, stem, "parquet", buffer.getvalue())
        stamps = rows["ts_event"]
        return Partition(
            file=name,
            period=period,
            rows=rows.height,
            first_ts=int(stamps.min()),  # type: ignore[arg-type]  # an Int64 column, not empty
            last_ts=int(stamps.max()),  # type: ignore[arg-type]
            sha256=digest,
        )

    def _load(self, part: Partition, *, columns: list[str] | None = None) -> pl.DataFrame:
        content = self._content(part.file)
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise DataError(
                "the file is not the one the manifest names: its checksum differs",
                file=str(self.root / part.file),
                remedy=_RESTORE,
            )
        return pl.read_parquet(content, columns=columns)

    def _content(self, name: str) -> bytes:
        path = self.root / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            gone = "the manifest names this file, and it is gone"
            raise _VanishedError(gone, file=str(path), remedy=_RESTORE) from None

    def _looking(self, look: Callable[[Manifest], T]) -> T:
        """Look at files the manifest names; once more if a writer has replaced and swept them meanwhile."""
        manifest = files.load(self.root)
        try:
            return look(manifest)
        except _VanishedError:
            if files.load(self.root) == manifest:
                raise
            return self._looking(look)

    def _read(
        self, manifest: Manifest, kind_name: str, instrument: str, *, start: int | None, end: int | None
    ) -> pl.DataFrame:
        series = _required(manifest, kind_name, instrument)
        if not _within(series, start=start, end=end):
            raise DataError(
                f"{kind_name} of {instrument} runs from {utc(series.first_ts)} to {utc(series.last_ts)}: "
                "nothing of the time asked for",
                file=str(self.root),
                remedy="ask for another time, or import or download what is missing",
            )
        inside = pl.lit(value=True)
        if start is not None:
            inside &= pl.col("ts_event") >= start
        if end is not None:
            inside &= pl.col("ts_event") < end
        empty = pl.DataFrame(schema=dict(kind(kind_name).columns))
        parts = [self._load(part) for part in series.partitions if _within(part, start=start, end=end)]
        return pl.concat([empty, *parts]).filter(inside)


class _VanishedError(DataError):
    """A file the manifest names is gone: swept by a writer since, or lost."""


def _find(manifest: Manifest, kind_name: str, instrument: str) -> Series | None:
    return next((one for one in manifest.series if (one.kind, one.instrument) == (kind_name, instrument)), None)


def _required(manifest: Manifest, kind_name: str, instrument: str) -> Series:
    series = _find(manifest, kind_name, instrument)
    if series is None:
        of_kind = sorted(one.instrument for one in manifest.series if one.kind == kind_name)
        of_instrument = sorted(one.kind for one in manifest.series if one.instrument == instrument)
        there = f"{instrument} has {', '.join(of_instrument)}" if of_instrument else f"nothing of {instrument} at all"
        others = f"; {kind_name} is there for {', '.join(of_kind[:5])}" if of_kind else ""
        raise DataError(
            f"the catalog has no {kind_name} of {instrument}: {there}{others}",
            remedy="import it with `hean data import`, or fetch it with `hean data download`",
        )
    return series


def _within(span: Series | Partition | SourceFile, *, start: int | None, end: int | None) -> bool:
    return (end is None or span.first_ts < end) and (start is None or span.last_ts >= start)


def _as_kind(incoming: Incoming, shape: Kind) -> pl.DataFrame:
    missing = set(shape.columns) - set(incoming.rows.columns)
    if missing:
        raise DataError(f"{incoming.kind} of {incoming.instrument} lacks the columns {', '.join(sorted(missing))}")
    return incoming.rows.select(pl.col(name).cast(of) for name, of in shape.columns.items())


def _by_period(rows: pl.DataFrame, shape: Kind) -> list[tuple[str, pl.DataFrame]]:
    named = rows.with_columns(shape.partition(rows["ts_event"]).alias("_period"))
    return [
        (str(period), part.drop("_period"))
        for (period,), part in named.partition_by("_period", as_dict=True, maintain_order=True).items()
    ]


def _must_not_mix(series: Series | None, incoming: Incoming, *, synthetic: bool) -> None:
    made_up = incoming.instrument.endswith(".SYNTHETIC")
    if made_up != synthetic or (series is not None and series.synthetic != synthetic):
        raise DataError(
            f"{incoming.kind} of {incoming.instrument} would mix made-up data with real",
            remedy="made-up series belong to the venue SYNTHETIC, and only those do",
        )


def _gaps_in_window(stamps: np.ndarray, series: Series, *, start: int | None, end: int | None) -> Gaps:
    shape = kind(series.kind)
    inside = gaps_of(stamps, shape)
    step = series.interval
    if step is None or not stamps.size:
        return inside
    listed = list(inside.listed)
    edges = []
    if start is not None:
        begin = -(-start // step) * step
        edges.append(Gap(from_ts=begin, to_ts=int(stamps[0]), missing=int(stamps[0] - begin) // step))
    if end is not None:
        follows = int(stamps[-1]) + step
        edges.append(Gap(from_ts=follows, to_ts=end, missing=-(-(end - follows) // step)))
    edges = [gap for gap in edges if gap.missing > 0]
    return Gaps(
        holes=inside.holes + len(edges),
        missing=inside.missing + sum(gap.missing for gap in edges),
        listed=tuple(sorted([*listed, *edges], key=lambda gap: gap.from_ts)),
    )
