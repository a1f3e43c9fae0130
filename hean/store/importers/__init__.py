"""Foreign files into the catalog: one module for each format, and the one that recognises them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hean.errors import DataError
from hean.store.catalog import Catalog, Committed, ImportBatch
from hean.store.importers import (
    binance_archive,
    binance_socket,
    bybit_book,
    bybit_mt4,
    bybit_rest,
    bybit_socket,
    bybit_trades,
    freqtrade,
    lean,
    plain_csv,
    uniform,
)
from hean.store.importers.reading import Found, Hints
from hean.store.importers.reference import must_be_plausible

__all__ = ["FORMATS", "Format", "Hints", "Outcome", "files_under", "import_file", "read", "recognise"]

_PASSED_OVER = {"README", "README.MD", "README.TXT", "SHA256SUMS", "LICENSE", "LICENSE.TXT", "CHECKSUM"}
_ENDINGS_PASSED_OVER = {".md", ".sha256", ".checksum"}


@dataclass(frozen=True)
class Format:
    """A foreign format: how to know it, and how to read it."""

    name: str
    expects: str
    claims: Callable[[Found], bool]
    read: Callable[[Found], ImportBatch]


# Where two could claim a file, the one that asks more of it stands first.
FORMATS = tuple(
    Format(name=module.NAME, expects=module.EXPECTS, claims=module.claims, read=module.read)
    for module in (
        uniform,
        freqtrade,
        lean,
        binance_archive,
        bybit_mt4,
        bybit_trades,
        bybit_book,
        bybit_socket,
        bybit_rest,
        binance_socket,
        plain_csv,
    )
)


@dataclass(frozen=True)
class Outcome:
    """What became of one file: added, already there, refused, or not recognised."""

    file: str
    format: str | None
    committed: Committed | None = None
    refusal: DataError | None = None
    already_there: bool = False
    note: str = ""


def recognise(found: Found) -> Format | None:
    """Return the format of a file by its content and name, or None."""
    return next((form for form in FORMATS if form.claims(found)), None)


def read(path: Path, hints: Hints | None = None) -> ImportBatch:
    """Read one file of any known format.

    Raises:
        DataError: It is of none, or it is not fit for the catalog.
    """
    found = Found(path, hints)
    form = recognise(found)
    if form is None:
        found.refuse(
            "is of no known format",
            remedy="known are " + "; ".join(f"{form.name} ({form.expects})" for form in FORMATS),
        )
    return form.read(found)


def import_file(catalog: Catalog, path: Path, hints: Hints | None = None) -> Outcome:
    """Bring one file into the catalog, wholly or not at all; a refusal is an outcome, not an exception."""
    found = Found(path, hints)
    form = None
    try:
        form = recognise(found)
        if form is None:
            return Outcome(file=str(path), format=None)
        batch = form.read(found)
        if catalog.holds(batch):
            return Outcome(file=str(path), format=form.name, already_there=True, committed=Committed())
        must_be_plausible(catalog, batch, file=str(path))
        committed = catalog.commit(batch)
    except DataError as refusal:
        told = DataError(refusal.reason, file=refusal.file or str(path), row=refusal.row, remedy=refusal.remedy)
        return Outcome(file=str(path), format=form.name if form is not None else None, refusal=told)
    except (pl.exceptions.PolarsError, OverflowError) as damage:
        told = DataError(f"holds a value that fits no column: {damage}", file=str(path), remedy="get the file again")
        return Outcome(file=str(path), format=form.name if form is not None else None, refusal=told)
    already = not committed.added and not committed.rules
    return Outcome(file=str(path), format=form.name, committed=committed, already_there=already, note=batch.source.note)


def files_under(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the files named, and those in the directories named, in a fixed order; leave out what only describes them."""
    for path in paths:
        inside = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        for file in inside:
            hidden = file.name.startswith(".")
            described = file.name.upper() in _PASSED_OVER or file.suffix.lower() in _ENDINGS_PASSED_OVER
            if not path.is_dir() or not (hidden or described):
                yield file
