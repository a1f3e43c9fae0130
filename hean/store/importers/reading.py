"""What every format needs: looking into a file, reading its table, and refusing it by name."""

import functools
import gzip
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import zstandard

from hean.errors import ConfigError, DataError
from hean.instruments import Category
from hean.store.catalog import ImportBatch, Incoming, Source
from hean.store.kinds import symbol_of
from hean.store.rules import DatedRules

_PEEK = 1 << 16
_LARGEST = 4 << 30
_DEEPEST = 8  # as deep as the archives of the venues lie
_VENUES = {"BYBIT": {"bybit"}, "BINANCE": {"binance"}}
_MARKETS: dict[str, set[str]] = {
    Category.SPOT: {"spot"},
    Category.LINEAR: {"linear", "um", "futures", "perp", "cryptofuture"},
    Category.INVERSE: {"inverse", "cm"},
}


@dataclass(frozen=True)
class Hints:
    """What the user says of files that do not say it themselves, and what he will put up with.

    Raises:
        ConfigError: No format is of that venue, or the symbol is none.
    """

    venue: str | None = None
    market: Category | None = None
    symbol: str | None = None
    allow_gaps: bool = False

    def __post_init__(self) -> None:
        if self.venue is not None and self.venue.upper() not in _VENUES:
            raise ConfigError(f"venue {self.venue!r} is neither bybit nor binance")
        if self.symbol is not None:
            object.__setattr__(self, "symbol", symbol_of(self.symbol))


class Found:
    """One file on disk, opened as often as it is looked at and unpacked at most once."""

    def __init__(self, path: Path, hints: Hints | None = None) -> None:
        self.path = path
        self.hints = hints if hints is not None else Hints()

    @property
    def name(self) -> str:
        return self.path.name

    @functools.cached_property
    def raw(self) -> bytes:
        """All bytes of the file.

        Raises:
            DataError: It cannot be read, or is too large to be looked at in memory.
        """
        try:
            if self.path.stat().st_size > _LARGEST:
                self.refuse("is larger than 4 GiB", remedy="split it by day or month, as the venues do")
            return self.path.read_bytes()
        except OSError as damage:
            self.refuse(f"cannot be read: {damage.strerror or damage}", remedy="check the path and its rights")

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()

    @functools.cached_property
    def members(self) -> list[str]:
        """The files in a zip; empty for anything else.

        Raises:
            DataError: It is a damaged zip.
        """
        if not self.raw.startswith(b"PK"):
            return []
        try:
            with zipfile.ZipFile(io.BytesIO(self.raw)) as archive:
                return archive.namelist()
        except zipfile.BadZipFile as damage:
            self.refuse(f"cannot be unpacked: {damage}", remedy="fetch the file again")

    @functools.cached_property
    def content(self) -> bytes:
        """The bytes inside: unpacked, whatever they were packed with.

        Raises:
            DataError: The packing is damaged, or a zip holds anything but one file.
        """
        try:
            if self.raw.startswith(b"PK"):
                if len(self.members) != 1:
                    self.refuse(f"the zip holds {len(self.members)} files", remedy="unpack it and import what it holds")
                with zipfile.ZipFile(io.BytesIO(self.raw)) as archive:
                    return archive.read(self.members[0])
            if self.raw.startswith(b"\x1f\x8b"):
                return gzip.decompress(self.raw)
            if self.raw.startswith(b"\x28\xb5\x2f\xfd"):
                with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(self.raw)) as reader:
                    return reader.read()
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError) as damage:
            self.refuse(f"cannot be unpacked: {damage}", remedy="fetch the file again")
        return self.raw

    @functools.cached_property
    def first_line(self) -> str:
        """The first line of text; empty when the content is no text."""
        head = self.content[:_PEEK].split(b"\n", 1)[0]
        try:
            return head.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            return ""

    @property
    def header(self) -> list[str]:
        """The fields of the first line."""
        return [field.strip().strip('"') for field in self.first_line.split(",")]

    def said_by_path(self, names: Mapping[str, set[str]]) -> str | None:
        """Return the key of which a word stands in the file's name, or else in the nearest directory.

        A name with words of two keys says nothing, and ends the search.
        """
        for part in reversed(self.path.parts[-_DEEPEST:]):
            words = set(re.split(r"[^a-z0-9]+", part.lower()))
            said = [key for key, known in names.items() if known & words]
            if said:
                return said[0] if len(said) == 1 else None
        return None

    def _agreed(self, what: str, path: str | None, option: str | None) -> str | None:
        """What the path or the option says; a file of one market must not enter as another's unseen."""
        if path is not None and option is not None and path.lower() != option.lower():
            self.refuse(
                f"a word of its path says the {what} is {path.lower()}, and --{what} says {option.lower()}",
                remedy=f"import it without --{what}, or from a directory of another name",
            )
        return path or option

    def venue(self) -> str:
        """Name the venue, from the path or as the user said.

        Raises:
            DataError: Neither says it, or one says otherwise than the other.
        """
        said = self._agreed("venue", self.said_by_path(_VENUES), self.hints.venue)
        if said is None:
            self.refuse(
                "neither the file nor its path says which venue it is from",
                remedy="say it with --venue, or put it in a directory named bybit or binance",
            )
        return said.upper()

    def market(self) -> Category:
        """Name the category, from the path or as the user said.

        Raises:
            DataError: Neither says it, or one says otherwise than the other.
        """
        said = self._agreed("market", self.said_by_path(_MARKETS), self.hints.market)
        if said is None:
            self.refuse(
                "neither the file nor its path says whether it is spot, linear or inverse",
                remedy="say it with --market, or put it in a directory named spot, linear or inverse",
            )
        return Category(said)

    @property
    def text(self) -> str:
        """The content as text.

        Raises:
            DataError: It is none.
        """
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError as damage:
            self.refuse(f"is no text: {damage.reason}", remedy="fetch the file again")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield line number, from 1, and text of every line that is not blank.

        Raises:
            DataError: The content is no text.
        """
        for number, line in enumerate(self.text.splitlines(), start=1):
            if line.strip():
                yield number, line

    def json(self, text: str, *, row: int | None = None) -> Any:
        """Decode JSON.

        Raises:
            DataError: It is none.
        """
        try:
            return json.loads(text)
        except json.JSONDecodeError as damage:
            self.refuse(f"holds broken JSON: {damage.msg}", row=row, remedy="fetch the file again; it may be cut short")

    def table(self, columns: list[str], *, header: bool) -> pl.DataFrame:
        """Read comma-separated text under the names given, all of it still text, and its `row`.

        Raises:
            DataError: A line has another number of fields.
        """
        for number, line in ((1, self.first_line), *self._last_lines()):
            if line and line.count(",") != len(columns) - 1:
                self.refuse(
                    f"has {line.count(',') + 1} fields where {len(columns)} are expected: {', '.join(columns)}",
                    row=number,
                    remedy="fetch the file again; it may be cut short",
                )
        try:
            frame = pl.read_csv(
                self.content,
                has_header=False,
                new_columns=columns,
                infer_schema=False,
                skip_rows=1 if header else 0,
            )
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as damage:
            self.refuse(f"is no table: {str(damage).splitlines()[0]}", remedy="fetch the file again")
        return frame.with_row_index("row", offset=2 if header else 1)

    def _last_lines(self) -> list[tuple[int, str]]:
        lines = self.content[-_PEEK:].decode("utf-8", errors="replace").rstrip().splitlines()
        count = self.content.count(b"\n") + (not self.content.endswith(b"\n"))
        return [(count, lines[-1])] if lines else []

    def numbers(self, frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
        """Turn text columns into floats.

        Raises:
            DataError: A field is no number; it names the row.
        """
        read = frame.with_columns(pl.col(name).str.strip_chars().cast(pl.Float64, strict=False) for name in names)
        for name in names:
            bad = read.filter(pl.col(name).is_null())
            if not bad.is_empty():
                row = int(bad["row"][0])
                said = frame.filter(pl.col("row") == row)[name][0]
                self.refuse(f"{name} is {said!r}, not a number", row=row)
        return read

    def batch(
        self, importer: str, series: Sequence[Incoming], *, note: str = "", rules: Sequence[DatedRules] = ()
    ) -> ImportBatch:
        """Gather what the file said."""
        source = Source(name=self.name, sha256=self.sha256, importer=importer, note=note)
        return ImportBatch(source=source, series=tuple(series), rules=tuple(rules))

    def refuse(self, reason: str, *, row: int | None = None, remedy: str = "") -> NoReturn:
        raise DataError(reason, file=str(self.path), row=row, remedy=remedy)
