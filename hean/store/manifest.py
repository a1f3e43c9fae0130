"""The catalog's table of contents: one small file that decides what is there.

Readers believe the manifest alone. Files it does not name do not exist for them, so all an
import that dies half-way leaves behind is files, and the next writer sweeps them up.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hean.errors import ConfigError, DataError
from hean.instruments import split_id
from hean.store.kinds import is_kind
from hean.units import DAY

FORMAT = 1
_NAME = "manifest.json"
_NEW = f"{_NAME}.new"
_LOCK = ".lock"
_ELSEWHERE = "name an empty or a new directory with --catalog"
_PARTITION = re.compile(
    r"(?P<kind>[a-z0-9-]+)/(?P<instrument>[^/]+)/\d{4}-\d\d(?:-\d\d)?\.[0-9a-f]{12}\.parquet", re.ASCII
)
_RULES = re.compile(r"rules/rules\.[0-9a-f]{12}\.json", re.ASCII)


class Partition(msgspec.Struct, frozen=True):
    """One file of a series; its name carries the beginning of `sha256`."""

    file: str
    period: str
    rows: int
    first_ts: int
    last_ts: int
    sha256: str


class Gap(msgspec.Struct, frozen=True, array_like=True):
    """A run of missing stamps: from the first of them to the next that is there."""

    from_ts: int
    to_ts: int
    missing: int


class Gaps(msgspec.Struct, frozen=True):
    """What is missing in a series: all of it counted, the first of it listed."""

    holes: int = 0
    missing: int = 0
    listed: tuple[Gap, ...] = ()


class SourceFile(msgspec.Struct, frozen=True):
    """What a series, or a part of it, was made from."""

    name: str
    sha256: str
    importer: str
    note: str
    rows: int
    first_ts: int
    last_ts: int


class Series(msgspec.Struct, frozen=True):
    """What the catalog holds of one kind for one instrument."""

    kind: str
    instrument: str
    interval: int | None
    synthetic: bool
    partitions: tuple[Partition, ...]
    sources: tuple[SourceFile, ...]
    gaps: Gaps

    @property
    def rows(self) -> int:
        return sum(partition.rows for partition in self.partitions)

    @property
    def first_ts(self) -> int:
        return min(partition.first_ts for partition in self.partitions)

    @property
    def last_ts(self) -> int:
        return max(partition.last_ts for partition in self.partitions)

    def pieces(self) -> list[tuple[int, int]]:
        """When it is known: candles up to every hole, ticks from the first to the last of each day."""
        if self.interval is None:
            return [(part.first_ts, part.last_ts + 1) for part in self.partitions]
        holes = [edge for gap in self.gaps.listed for edge in (gap.from_ts, gap.to_ts)]
        edges = [self.first_ts, *holes, self.last_ts + self.interval]
        return list(zip(edges[::2], edges[1::2], strict=True))

    def stretches(self) -> list[tuple[int, int]]:
        """When it is known without a hole longer than a day."""
        joined: list[tuple[int, int]] = []
        for start, end in self.pieces():
            if joined and start - joined[-1][1] <= DAY:
                joined[-1] = joined[-1][0], max(joined[-1][1], end)
            else:
                joined.append((start, end))
        return joined


class Manifest(msgspec.Struct, frozen=True):
    """Every series, and the file with the instrument rules, if any were imported."""

    format: int = FORMAT
    series: tuple[Series, ...] = ()
    rules: str | None = None

    def files(self) -> set[str]:
        """Name every file the manifest vouches for."""
        named = {partition.file for series in self.series for partition in series.partitions}
        return named | ({self.rules} if self.rules is not None else set())


def exists(root: Path) -> bool:
    """Whether anything was ever written to a catalog under `root`."""
    return (root / _NAME).is_file()


def load(root: Path) -> Manifest:
    """Read the manifest under `root`; a directory without one is an empty catalog.

    Raises:
        DataError: The manifest cannot be read, or is of a later format.
    """
    path = root / _NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except msgspec.DecodeError as broken:
        raise DataError(
            f"the catalog's manifest cannot be read: {broken}",
            file=str(path),
            remedy="restore it from a copy, or import into a new directory",
        ) from broken
    if manifest.format > FORMAT:
        raise DataError(
            f"the catalog has format {manifest.format}, this HEAN reads up to {FORMAT}",
            file=str(path),
            remedy="use a later HEAN",
        )
    return manifest


def replace(root: Path, manifest: Manifest) -> None:
    """Make `manifest` the one and only, at once: a crash leaves either the old or the new."""
    temporary = root / _NEW
    write_durably(temporary, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    temporary.replace(root / _NAME)
    sync_directory(root)


def write_durably(path: Path, content: bytes) -> None:
    """Write `content` and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in `path`, too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def add_file(root: Path, stem: str, ending: str, content: bytes) -> tuple[str, str]:
    """Write `content` under a name that carries its hash; return the name and the hash.

    The same content has the same name, so writing it twice changes nothing that anyone reads.
    """
    digest = hashlib.sha256(content).hexdigest()
    name = f"{stem}.{digest[:12]}.{ending}"
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, content)
    sync_directory(path.parent)
    return name, digest


def sweep(root: Path, manifest: Manifest) -> None:
    """Remove the files that no manifest names: what a dead import left, and what was replaced.

    A replaced file lives until the next write, so that whoever read the manifest just before the
    replacement can still read what it names. Files not named as a catalog names its own are nobody's
    to remove.
    """
    keep = manifest.files()
    for pattern in ("*/*/*.parquet", "rules/*.json"):
        for path in root.glob(pattern):
            name = path.relative_to(root).as_posix()
            if name not in keep and _is_own(name):
                path.unlink()


def _is_own(name: str) -> bool:
    """Whether a catalog would give a file this name, relative to its root."""
    partition = _PARTITION.fullmatch(name)
    if partition is None:
        return _RULES.fullmatch(name) is not None
    try:
        split_id(partition["instrument"])
    except ConfigError:
        return False
    return is_kind(partition["kind"])


def must_be_ours(root: Path) -> None:
    """Make sure that a catalog is, or may begin, under `root`.

    Raises:
        DataError: It is no directory, or has no manifest but somebody's files.
    """
    if exists(root) or not root.exists():
        return
    if not root.is_dir():
        raise DataError("the catalog must be a directory, and this is a file", file=str(root), remedy=_ELSEWHERE)
    inside = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    # A first import that died leaves files of a catalog's shape, and no manifest.
    foreign = next((name for name in inside if name not in {_LOCK, _NEW} and not _is_own(name)), None)
    if foreign is not None:
        raise DataError(
            f"the directory is no catalog, and holds other files, such as {foreign}", file=str(root), remedy=_ELSEWHERE
        )


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Hold the catalog against every other writer; wait for one that is at work.

    Raises:
        DataError: There are somebody's files under `root`, and no catalog.
    """
    must_be_ours(root)
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
