"""A sweep's directory: what it is, and what came of its trials so far.

    sweep.json              settings and name of the sweep: only the same one may go on here
    parts/1c5f….parquet     rows of trials that are done, one file a task; each whole or not there at all
    results.parquet         all of them in order, once there are no more to come

A part is written beside its place, synced and renamed, so that a crash at any moment leaves only whole ones.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from hean.errors import ConfigError, DataError

MONEY = pl.Decimal(38, 18)
"""Money in a column: exact for every amount of at most eighteen places, and the nearest one for what was divided."""

_EIGHTEENTH = Decimal("1e-18")
_WIDE = Context(prec=38, rounding=ROUND_HALF_EVEN)
_NAME, _PARTS, _RESULTS, _LOCK = "sweep.json", "parts", "results.parquet", ".lock"
_NEW = ".new"
PARAMETER = "param."
"""What a column of a parameter begins with."""


class Sweep(msgspec.Struct, frozen=True):
    """What a directory is of: a sweep's id, its settings, and how many trials it has."""

    id: str
    settings: dict[str, Any]
    trials: int


class SweepDirectory:
    """The results of one sweep, for whoever runs it, goes on with it, or reads it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def writing(self, sweep: Sweep, *, resume: bool) -> Iterator[None]:
        """Take the directory for a sweep, alone, for as long as it runs.

        Raises:
            ConfigError: it holds another sweep, this one without leave to go on, or somebody's files; or another
                process is at it.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / _LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.root}: another sweep is writing here; wait for it, or name another --out"
                ) from None
            self._take(sweep, resume=resume)
            yield

    def _take(self, sweep: Sweep, *, resume: bool) -> None:
        known = self.sweep()
        if known is None:
            ours = {_LOCK, _PARTS, Path(_NAME).with_suffix(_NEW).name}
            if any(one.name not in ours for one in self.root.iterdir()):
                raise ConfigError(f"{self.root} holds files, and no sweep: name an empty or a new directory with --out")
            (self.root / _PARTS).mkdir(exist_ok=True)
            _write(self.root / _NAME, msgspec.json.format(msgspec.json.encode(sweep, order="deterministic")))
            return
        if not resume:
            raise ConfigError(f"{self.root} holds a sweep: say --resume to go on with it, or name another --out")
        if known.id != sweep.id:
            what = "other settings" if known.settings != sweep.settings else "other data, or other code"
            raise ConfigError(
                f"{self.root} holds a sweep of {what}, and the two may not be mixed: name another --out, or delete it"
            )
        for left in (self.root / _PARTS).glob(f"*{_NEW}"):  # of a crash, half written
            left.unlink()

    def sweep(self) -> Sweep | None:
        """What the directory is of; None where there is none.

        Raises:
            DataError: it cannot be read.
        """
        path = self.root / _NAME
        try:
            return msgspec.json.decode(path.read_bytes(), type=Sweep)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as damage:
            raise DataError(f"it cannot be read: {damage}", file=str(path), remedy="delete the directory") from damage

    def keep(self, rows: Sequence[msgspec.Struct], parameters: Mapping[str, pl.DataType]) -> None:
        """Write rows down for good: when this returns, a crash does not lose them."""
        if not rows:
            return
        frame = as_frame(rows, parameters)
        # By what is said, too: a later refusal must not take the place of a result.
        said = "".join(f"{trial} {error}\n" for trial, error in frame.select("trial", "error").iter_rows())
        name = hashlib.sha256(said.encode()).hexdigest()[:16]
        path = self.root / _PARTS / f"{name}.parquet"
        new = path.with_suffix(_NEW)
        frame.write_parquet(new, compression="zstd")
        _settle(new, path)

    def done(self) -> set[str]:
        """The trials that are kept, with a result: those that were refused may be tried again."""
        parts = [pl.read_parquet(part, columns=["trial", "error"]) for part in self._parts()]
        return {name for part in parts for name in part.filter(pl.col("error").is_null())["trial"]}

    def rows(self) -> pl.DataFrame | None:
        """All that is kept, each trial once, in the order of the sweep; None where nothing is."""
        parts = [pl.read_parquet(part) for part in self._parts()]
        if not parts:
            return None
        results_first = pl.concat(parts).sort("number", pl.col("error").is_not_null(), maintain_order=True)
        return results_first.unique("trial", keep="first", maintain_order=True)

    def finish(self) -> Path:
        """Join all that is kept into one file."""
        rows = self.rows()
        path = self.root / _RESULTS
        if rows is None:
            raise DataError("nothing is kept", file=str(self.root))
        new = path.with_suffix(_NEW)
        rows.write_parquet(new, compression="zstd")
        _settle(new, path)
        return path

    def _parts(self) -> list[Path]:
        return sorted((self.root / _PARTS).glob("*.parquet"))


def parameter_types(parameters: Mapping[str, Sequence[Any]]) -> dict[str, pl.DataType]:
    """The column of each parameter: numbers where all of its values are, else text."""
    found: dict[str, pl.DataType] = {}
    for name, values in parameters.items():
        kinds = {type(value) for value in values}
        whole, number = kinds <= {int}, kinds <= {int, float}
        found[name] = (
            pl.Boolean() if kinds == {bool} else pl.Int64() if whole else pl.Float64() if number else pl.String()
        )
    return found


def as_frame(rows: Sequence[msgspec.Struct], parameters: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Rows as a table: a column for each field, and `param.` and its name for each parameter."""
    fields = msgspec.structs.fields(type(rows[0]))
    columns: dict[str, pl.Series] = {}
    for field in fields:
        values = [getattr(row, field.name) for row in rows]
        if field.name == "parameters":
            for name, dtype in parameters.items():
                said = [_said(value[name], dtype) for value in values]
                columns[PARAMETER + name] = pl.Series(PARAMETER + name, said, dtype=dtype)
        else:
            dtype = _dtype(field.type)
            exact = [_WIDE.quantize(one, _EIGHTEENTH) if isinstance(one, Decimal) else one for one in values]
            columns[field.name] = pl.Series(field.name, exact, dtype=dtype)
    return pl.DataFrame(columns)


def _said(value: Any, dtype: pl.DataType) -> Any:
    if dtype != pl.String():
        return value
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()


_DTYPES: dict[Any, pl.DataType] = {
    str: pl.String(),
    str | None: pl.String(),
    int: pl.Int64(),
    int | None: pl.Int64(),
    float | None: pl.Float64(),
    bool | None: pl.Boolean(),
    Decimal | None: MONEY,
    list[float] | None: pl.List(pl.Float64()),
}


def _dtype(hint: Any) -> pl.DataType:
    return _DTYPES[hint]


def _write(path: Path, content: bytes) -> None:
    new = path.with_suffix(_NEW)
    new.write_bytes(content)
    _settle(new, path)


def _settle(new: Path, path: Path) -> None:
    """Let a file take its place, for good."""
    _sync(new)
    new.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
