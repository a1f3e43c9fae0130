"""What one node was told, in order, and what it said: a SQLite file that any SQL tool reads.

Written before it is handled, one commit a parcel. A successor is told the same again, from the newest snapshot on, and
ends in the same state: there is no second way to recover. What was said on hearing an entry is written with the next
entry, for redelivery and for comparison; of the last entry it follows from being told it again.

    lives      one row a life of the node: its incarnation, when, and what it was built from
    told       one row a parcel: when, and its bytes; none for a `Wake`
    said       what was said on hearing it, as a parcel of letters
    snapshots  the state after an entry, and what the shell must know to go on from there
"""

import fcntl
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from msgspec import Struct

from hean.errors import JournalError

FORMAT = 1

_TABLES = """
CREATE TABLE about (node TEXT NOT NULL, format INTEGER NOT NULL);
CREATE TABLE lives (incarnation INTEGER PRIMARY KEY, ts INTEGER NOT NULL, built_from BLOB NOT NULL);
CREATE TABLE told (n INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, now INTEGER NOT NULL, parcel BLOB);
CREATE TABLE said (n INTEGER PRIMARY KEY, parcel BLOB NOT NULL);
CREATE TABLE snapshots (n INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, now INTEGER NOT NULL,
                        state BLOB NOT NULL, memo BLOB NOT NULL);
"""


class Told(Struct, frozen=True):
    """One entry: what the node was told, at what time, in which of its lives. `parcel` is None for a `Wake`."""

    n: int
    incarnation: int
    now: int
    parcel: bytes | None


class Snapshot(Struct, frozen=True):
    """The node's state after entry `n`. `memo` is the shell's own: where in its output it was, what it had heard."""

    n: int
    incarnation: int
    now: int
    state: bytes
    memo: bytes


class Life(Struct, frozen=True):
    incarnation: int
    ts: int
    built_from: bytes


class Journal:
    """The journal of one node, for its one writer.

    A commit survives the death of the process. That of the machine it survives where `durable`, at the price
    of waiting for the disk each time; else the last moments may be lost, and the venue is asked what they held.

    Args:
        path: The file; made with its directory where there is none.
        node: Whose journal it is.
        durable: Whether to wait for the disk at each entry.
        keep: How many snapshots, and the entries since the oldest of them, are kept.
        entries: How many entries are kept at the least, however near the snapshots are to one another.

    Raises:
        JournalError: Somebody else writes it, it is of another node or a later HEAN, or it is no journal.
    """

    def __init__(self, path: Path, node: str, *, durable: bool = False, keep: int = 8, entries: int = 0) -> None:
        self.path = path
        self.node = node
        self._keep = keep
        self._entries = entries
        self._unwritten: tuple[int, bytes] | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.with_suffix(".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as busy:
            self._lock.close()
            raise JournalError(f"{path} is being written by another process: stop it first") from busy
        try:
            self._db = _open(path, f"{path.absolute().as_uri()}?mode=rwc")
            with _blaming(path):
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    # One transaction: a file that was begun and does not say whose it is would stop every successor.
                    self._db.executescript(f"BEGIN; {_TABLES}")
                    self._db.execute("INSERT INTO about VALUES (?, ?)", (node, FORMAT))
                    self._db.execute("COMMIT")
            _must_be_of(self._db, path, node)
            with _blaming(path):
                # Of what a snapshot let go of, its own number is left.
                self.n: int = self._db.execute(
                    "SELECT coalesce(max(n), 0) FROM (SELECT n FROM told UNION ALL SELECT n FROM snapshots)"
                ).fetchone()[0]
        except BaseException:
            self._lock.close()
            raise

    def begin(self, incarnation: int, ts: int, built_from: bytes) -> None:
        """Begin a life.

        Raises:
            JournalError: The incarnation is not above every earlier one.
        """
        with _blaming(self.path):
            last = self._db.execute("SELECT coalesce(max(incarnation), -1) FROM lives").fetchone()[0]
            if incarnation <= last:
                raise JournalError(
                    f"{self.path}: life {last} has begun already, and this is {incarnation}: a later one is at work"
                )
            self._db.execute("INSERT INTO lives VALUES (?, ?, ?)", (incarnation, ts, built_from))

    def tell(self, incarnation: int, now: int, parcel: bytes | None) -> int:
        """Write down what the node is about to be told; its number."""
        n = self.n + 1
        with _blaming(self.path):
            if self._unwritten is None:
                self._db.execute("INSERT INTO told VALUES (?, ?, ?, ?)", (n, incarnation, now, parcel))
            else:
                self._db.execute("BEGIN")
                self._write_said()
                self._db.execute("INSERT INTO told VALUES (?, ?, ?, ?)", (n, incarnation, now, parcel))
                self._db.execute("COMMIT")
        self.n = n
        return n

    def said(self, parcel: bytes) -> None:
        """Note what was said on hearing the last entry."""
        self._unwritten = (self.n, parcel)

    def snapshot(self, incarnation: int, now: int, state: bytes, memo: bytes) -> None:
        """Keep the state after the last entry, and let go of what lies before the oldest snapshot that is kept."""
        with _blaming(self.path):
            self._db.execute("BEGIN")
            self._write_said()
            self._db.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", (self.n, incarnation, now, state, memo)
            )
            kept = self._db.execute("SELECT n FROM snapshots ORDER BY n DESC LIMIT ?", (self._keep,)).fetchall()
            oldest = kept[-1][0]
            before = min(oldest, self.n - self._entries)
            self._db.execute("DELETE FROM snapshots WHERE n < ?", (oldest,))
            self._db.execute("DELETE FROM told WHERE n <= ?", (before,))
            self._db.execute("DELETE FROM said WHERE n <= ?", (before,))
            self._db.execute("COMMIT")

    def flush(self) -> None:
        """Write down what was said last."""
        with _blaming(self.path):
            self._write_said()

    def close(self) -> None:
        self.flush()
        self._db.close()
        self._lock.close()

    def newest(self) -> Snapshot | None:
        """The newest snapshot."""
        return newest(self._db, self.path)

    def after(self, n: int) -> Iterator[Told]:
        """The entries after one, in order."""
        return told_after(self._db, self.path, n)

    def said_before(self, n: int) -> Iterator[tuple[int, bytes]]:
        """What was said on hearing the entries up to `n` that are kept, with the incarnation that said it."""
        with _blaming(self.path):
            yield from self._db.execute(
                "SELECT told.incarnation, said.parcel FROM said JOIN told USING (n) WHERE n <= ? ORDER BY n", (n,)
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _write_said(self) -> None:
        if self._unwritten is not None:
            self._db.execute("INSERT OR REPLACE INTO said VALUES (?, ?)", self._unwritten)
            self._unwritten = None


class JournalReader:
    """A journal for anybody who only looks, while it is written or after.

    Raises:
        JournalError: There is no such file, or it is no journal.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise JournalError(f"{path}: there is no such journal")
        self.path = path
        self._db = _open(path, f"{path.absolute().as_uri()}?mode=ro")
        self.node = _must_be_of(self._db, path, None)

    def hold(self) -> None:
        """Look at the journal as it is now, whatever is written to it or let go of meanwhile."""
        with _blaming(self.path):
            self._db.execute("BEGIN")

    def lives(self) -> list[Life]:
        with _blaming(self.path):
            return [Life(*row) for row in self._db.execute("SELECT * FROM lives ORDER BY incarnation")]

    def snapshots(self) -> list[Snapshot]:
        """Every snapshot that is kept, oldest first."""
        with _blaming(self.path):
            return [Snapshot(*row) for row in self._db.execute("SELECT * FROM snapshots ORDER BY n")]

    def kept(self) -> tuple[int, int]:
        """The first and the last entry that are kept; (1, 0) where there is none yet."""
        with _blaming(self.path):
            first, last = self._db.execute("SELECT coalesce(min(n), 1), coalesce(max(n), 0) FROM told").fetchone()
        return first, last

    def after(self, n: int) -> Iterator[Told]:
        """The entries after one, in order."""
        return told_after(self._db, self.path, n)

    def said(self, n: int) -> bytes | None:
        """What was said on hearing an entry; None where nothing was, or where it was not written down."""
        with _blaming(self.path):
            row = self._db.execute("SELECT parcel FROM said WHERE n = ?", (n,)).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        self._db.close()


def newest(db: sqlite3.Connection, path: Path) -> Snapshot | None:
    with _blaming(path):
        row = db.execute("SELECT * FROM snapshots ORDER BY n DESC LIMIT 1").fetchone()
    return None if row is None else Snapshot(*row)


def told_after(db: sqlite3.Connection, path: Path, n: int) -> Iterator[Told]:
    with _blaming(path):
        for row in db.execute("SELECT n, incarnation, now, parcel FROM told WHERE n > ? ORDER BY n", (n,)):
            yield Told(*row)


def _open(path: Path, address: str) -> sqlite3.Connection:
    try:
        # Ours is the only thread that uses it at a time, and not always the same.
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=10)
    except sqlite3.Error as damage:
        raise JournalError(f"{path} cannot be opened: {damage}") from damage


def _must_be_of(db: sqlite3.Connection, path: Path, node: str | None) -> str:
    """Whose journal it is.

    Raises:
        JournalError: It is another node's, of a later HEAN, or none at all.
    """
    try:
        row = db.execute("SELECT node, format FROM about").fetchone()
    except sqlite3.Error as damage:
        raise JournalError(f"{path} is no journal of HEAN: {damage}") from damage
    if row is None:
        raise JournalError(f"{path} is no journal of HEAN: it does not say whose it is")
    if row[1] != FORMAT:
        raise JournalError(f"{path} has format {row[1]}, and this HEAN reads {FORMAT}: use the HEAN that wrote it")
    if node is not None and row[0] != node:
        raise JournalError(f"{path} is the journal of {row[0]}, not of {node}")
    return str(row[0])


class _blaming:  # noqa: N801 (used as a statement)
    """Name the file of what SQLite says.

    Raises:
        JournalError: the disk is full, the file is damaged, ...
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, sqlite3.Error):
            raise JournalError(f"{self._path}: {error}") from error
