"""The table of runs: what processes were asked for, and every attempt at every step. Written before and after each.

runs    one row a run: what was asked for, and how it stands
steps   one row an attempt at a step: its key, what it found, when it began and ended
"""

import fcntl
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import msgspec

from hean.errors import JournalError
from hean.processes.runs import Run

FORMAT = 1

_TABLES = """
CREATE TABLE runs (run TEXT PRIMARY KEY, process TEXT NOT NULL, version INTEGER NOT NULL, status TEXT NOT NULL,
                   reason TEXT NOT NULL, asked TEXT NOT NULL, arguments TEXT NOT NULL, ts_asked INTEGER NOT NULL,
                   t0 INTEGER, t1 INTEGER, memo TEXT NOT NULL);
CREATE TABLE steps (run TEXT NOT NULL, step TEXT NOT NULL, attempt INTEGER NOT NULL, process TEXT NOT NULL,
                    version INTEGER NOT NULL, status TEXT NOT NULL, key TEXT NOT NULL, input_hash TEXT NOT NULL,
                    output TEXT, reason TEXT NOT NULL, t0 INTEGER NOT NULL, t1 INTEGER,
                    PRIMARY KEY (run, step, attempt));
CREATE INDEX by_process ON runs (process);
"""
_MEMO = ("due", "asking", "failures", "interruptions")
_OPEN = "status IN ('PENDING', 'RUNNING', 'WAITING')"


class Closable(Protocol):
    def close(self) -> None: ...


class RunTable:
    """The table of one factory, its one writer. A commit survives the death of the process and waits for the disk.

    Args:
        path: The file; made with its directory where there is none.

    Raises:
        JournalError: Another factory writes it, it is of a later HEAN, or it is no such table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as busy:
            self._lock.close()
            raise JournalError(f"{path} is being written by another factory: stop it first") from busy
        with _closing_on_error(self._lock), _blaming(path):
            # One thread at a time uses it, and not always the same.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        with _closing_on_error(self), _blaming(path):
            self._prepare()

    def keep(self, runs: Iterable[Run]) -> None:
        """Write down how runs stand: all of them or none."""
        with _blaming(self.path), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for run in runs:
                memo = {name: getattr(run, name) for name in _MEMO}
                self._db.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        run.run_id, run.process, run.version, run.status, run.reason, _json(run.asked),
                        _json(run.arguments), run.ts_asked, run.ts_began, run.ts_ended, _json(memo),
                    ),
                )  # fmt: skip
                self._db.executemany(
                    "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            run.run_id, one.step, one.number, run.process, run.version, one.status, one.key,
                            one.input_hash, _json(one.output), one.reason, one.ts_began, one.ts_ended,
                        )
                        for one in run.attempts
                    ],
                )  # fmt: skip

    def unfinished(self) -> list[Run]:
        """The runs that are not over, in the order they were asked for."""
        return self._runs(f"WHERE {_OPEN} ORDER BY ts_asked, rowid")

    def newest(self, count: int) -> list[Run]:
        """Some runs that are over, those asked for last, the oldest of them first."""
        return self._runs(f"WHERE NOT {_OPEN} ORDER BY ts_asked DESC, rowid DESC LIMIT ?", count)[::-1]

    def run(self, run_id: str) -> Run | None:
        return next(iter(self._runs("WHERE run = ?", run_id)), None)

    def count(self, process: str) -> int:
        """How many runs of a process there ever were."""
        with _blaming(self.path):
            found = self._db.execute("SELECT count(*) FROM runs WHERE process = ?", (process,)).fetchone()
        return int(found[0])

    def close(self) -> None:
        self._db.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
        known = self._db.execute("PRAGMA user_version").fetchone()[0]
        if known != FORMAT:
            raise JournalError(f"{self.path} has format {known}, and not {FORMAT}: use the HEAN that wrote it")

    def _runs(self, which: str, *values: Any) -> list[Run]:
        columns = "run, process, version, status, reason, asked, arguments, ts_asked, t0, t1, memo"
        with _blaming(self.path):
            # `which` is written here, above; what comes from outside is in `values`.
            rows = self._db.execute(f"SELECT {columns} FROM runs {which}", values).fetchall()  # noqa: S608
            return [self._read(row) for row in rows]

    def _read(self, row: tuple[Any, ...]) -> Run:
        run_id, process, version, status, reason, asked, arguments, ts_asked, began, ended, memo = row
        attempts = self._db.execute(
            "SELECT step, attempt, status, key, input_hash, output, reason, t0, t1 FROM steps "
            "WHERE run = ? ORDER BY t0, rowid",
            (run_id,),
        ).fetchall()
        told = {
            "run_id": run_id, "process": process, "version": version, "status": status, "reason": reason,
            "asked": _read(asked), "arguments": _read(arguments), "ts_asked": ts_asked, "ts_began": began,
            "ts_ended": ended, **_read(memo),
            "attempts": [
                {
                    "step": step, "number": number, "status": how, "key": key, "input_hash": given,
                    "output": _read(output), "reason": why, "ts_began": t0, "ts_ended": t1,
                }
                for step, number, how, key, given, output, why, t0, t1 in attempts
            ],
        }  # fmt: skip
        return msgspec.convert(told, Run)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str) -> Any:
    return msgspec.json.decode(text)


@contextmanager
def _closing_on_error(opened: Closable) -> Iterator[None]:
    try:
        yield
    except BaseException:
        opened.close()
        raise


class _blaming:  # noqa: N801 (used as a statement)
    """Name the file of what SQLite or a damaged row says.

    Raises:
        JournalError: the disk is full, the file is damaged, ...
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, sqlite3.Error | msgspec.MsgspecError):
            raise JournalError(f"{self._path}: {error}") from error
