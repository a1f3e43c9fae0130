"""What the engine itself must never forget: the tag of its orders, the numbers of its lives, who died, what was wanted and allowed."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from hean.arming import Bond, Lease
from hean.errors import JournalError
from hean.messages import SwitchStrategy

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lives (life INTEGER PRIMARY KEY, ts INTEGER NOT NULL, node TEXT NOT NULL, why TEXT NOT NULL,
                                  ended TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS deaths (ts INTEGER NOT NULL, node TEXT NOT NULL, why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS recoveries (life INTEGER PRIMARY KEY, ts INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS leases (settings TEXT NOT NULL, account TEXT NOT NULL, person TEXT NOT NULL, ts INTEGER NOT NULL,
                                   until INTEGER NOT NULL, revoked TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS changes (ts INTEGER NOT NULL, strategy TEXT NOT NULL, name TEXT NOT NULL, old TEXT NOT NULL,
                                    new TEXT NOT NULL, person TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS switches (strategy TEXT PRIMARY KEY, turned INTEGER NOT NULL, person TEXT NOT NULL, reason TEXT NOT NULL);
"""
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
TAG = 3
BOOK = "engine.db"
_LEASE = "SELECT settings, account, person, ts, until, revoked FROM leases ORDER BY rowid DESC LIMIT 1"


class Death(Struct, frozen=True):
    ts: int
    node: str
    why: str


class Change(Struct, frozen=True):
    """One setting of a strategy that a person changed while the engine ran, from `old` to `new`, both as JSON."""

    ts: int
    strategy: str
    name: str
    old: str
    new: str
    person: str
    reason: str


def tag_of(path: Path) -> str:
    """The tag in an engine's book, which may be open elsewhere; empty where there is no such book."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            row = db.execute("SELECT value FROM about WHERE name = 'tag'").fetchone()
    except sqlite3.Error:
        return ""
    return str(row[0]) if row else ""


def lease_in(path: Path) -> Lease | None:
    """The last lease in an engine's book that was not taken back; the book may be open elsewhere. None where there is none.

    Raises:
        JournalError: There is a book, and it cannot be read.
    """
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
            return _lease(db.execute(_LEASE).fetchone())
    except sqlite3.Error as damage:
        raise JournalError(f"{path}: {damage}: move it away, and keep it") from damage


def _lease(row: tuple[Any, ...] | None) -> Lease | None:
    return None if row is None or row[5] else Lease(Bond(row[0], row[1]), *row[2:5])


class EngineBook:
    """Every write waits for the disk: a number must never be given twice, not even after the power went.

    Args:
        path: The file; made with its directory where there is none.
        chance: Draws the tag of a new book.

    Raises:
        JournalError: The file cannot be used.
    """

    def __init__(self, path: Path, chance: Random) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
            tag = "".join(chance.choice(_LETTERS) for _ in range(TAG))
            self._db.execute("INSERT OR IGNORE INTO about VALUES ('tag', ?)", (tag,))
            self.tag = self._about("tag")
        except sqlite3.Error as damage:
            raise JournalError(f"{path}: {damage}: move it away, and keep it") from damage

    def begin(self, node: str, why: str, now: int, above: int = 0) -> int:
        """Begin a life of the core, or of one node that is begun anew alone; its number, above every earlier one.

        `above` is a number that somebody else has given: the way out without the engine has epochs too.
        """
        row = self._do(
            "INSERT INTO lives (life, ts, node, why) "
            "SELECT max(coalesce(max(life), 0), ?) + 1, ?, ?, ? FROM lives RETURNING life",
            (above, now, node, why),
        )
        return int(row.fetchone()[0])

    def end(self, life: int, how: str) -> None:
        """Note that a life ended as it was meant to."""
        self._do("UPDATE lives SET ended = ? WHERE life = ?", (how, life))

    def interrupted(self) -> int | None:
        """The last life of the core, if it ended without a word."""
        row = self._do("SELECT life, ended FROM lives WHERE node = 'core' ORDER BY life DESC").fetchone()
        return None if row is None or row[1] else row[0]

    def died(self, death: Death) -> None:
        self._do("INSERT INTO deaths VALUES (?, ?, ?)", (death.ts, death.node, death.why))

    def deaths(self, since: int) -> list[Death]:
        rows = self._do("SELECT ts, node, why FROM deaths WHERE ts >= ? ORDER BY ts", (since,))
        return [Death(*row) for row in rows]

    def restarts(self) -> dict[str, int]:
        """How often each node died, in all."""
        return dict(self._do("SELECT node, count(*) FROM deaths GROUP BY node ORDER BY node"))

    def recovered(self, life: int, seconds: float, now: int) -> None:
        self._do("INSERT OR REPLACE INTO recoveries VALUES (?, ?, ?)", (life, now, seconds))

    def recovery(self) -> float | None:
        """Seconds from the beginning of the last life until it might trade; None where none got so far."""
        row = self._do("SELECT seconds FROM recoveries ORDER BY life DESC").fetchone()
        return None if row is None else row[0]

    def wants(self) -> bool:
        """Whether a person wants it to trade: it goes on after a crash only if so."""
        return self._about("trade") in {"", "yes"}

    def wants_flat(self) -> bool:
        """Whether a person wants everything closed, and has not wanted it to trade since."""
        return self._about("trade") == "flat"

    def want(self, *, trade: bool, flat: bool = False) -> None:
        self._do("INSERT OR REPLACE INTO about VALUES ('trade', ?)", ("yes" if trade else "flat" if flat else "no",))

    def opened(self, now: int) -> int:
        """When this account was first looked at: nothing before that is ours to know."""
        self._do("INSERT OR IGNORE INTO about VALUES ('opened', ?)", (str(now),))
        return int(self._about("opened"))

    def lease(self) -> Lease | None:
        """The last lease for real money, unless it was taken back. Whether it still holds is for `hean.permit` to say."""
        return _lease(self._do(_LEASE).fetchone())

    def grant(self, lease: Lease) -> None:
        values = (*lease.bond, lease.person, lease.ts, lease.until)
        self._do("INSERT INTO leases (settings, account, person, ts, until) VALUES (?, ?, ?, ?, ?)", values)

    def revoke(self, why: str) -> None:
        """Take back whatever was granted; what was taken back already stays so."""
        self._do("UPDATE leases SET revoked = ? WHERE revoked = ''", (why,))

    def changed(self, change: Change) -> None:
        """Note that a person set something otherwise."""
        self._do("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(change))

    def changes(self) -> list[Change]:
        """What persons set otherwise, oldest first."""
        return [Change(*row) for row in self._do("SELECT * FROM changes ORDER BY rowid")]

    def switch(self, wanted: SwitchStrategy) -> None:
        """Note that a person switched a strategy: the last word on each is kept."""
        self._do("INSERT OR REPLACE INTO switches VALUES (?, ?, ?, ?)", astuple(wanted))

    def switches(self) -> list[SwitchStrategy]:
        """The last word on each strategy that was ever switched."""
        rows = self._do("SELECT * FROM switches ORDER BY strategy")
        return [SwitchStrategy(name, bool(on), person, reason) for name, on, person, reason in rows]

    def close(self) -> None:
        self._db.close()

    def _about(self, name: str) -> str:
        row = self._do("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return "" if row is None else row[0]

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Ask the file, and name it where it fails.

        Raises:
            JournalError: The disk is full, the file is damaged, ...
        """
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as trouble:
            raise JournalError(f"{self.path}: {trouble}") from trouble
