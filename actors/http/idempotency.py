"""A request that is sent twice is done once: the answer to an Idempotency-Key is kept for a day, in the mode's directory.

The table is shared by all replicas and outlives them. Of a request only digests are kept. What did nothing may be tried
again under its key: only answers that something was done are kept. Where the table cannot be used, what must never wait for
its turn is done all the same: to do that twice is no harm.
"""

import asyncio
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from anyio.to_thread import run_sync
from msgspec import Struct
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from actors.http.problems import RETRY_S, problem
from actors.http.security import ALWAYS_ALLOWED
from hean.units import HOUR, SECOND

HEADER = "Idempotency-Key"
TABLE = "idempotency.db"
KEPT_NS = 24 * HOUR
ABANDONED_NS = 60 * SECOND
"""A request takes no longer: whoever was at it has died, and it may be tried again."""

_WAIT_S = 5.0
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_CREATE = """
CREATE TABLE IF NOT EXISTS answers (
    key    TEXT PRIMARY KEY,
    print  TEXT NOT NULL,     -- of method, path and body
    ts     INTEGER NOT NULL,  -- when it was begun
    answer BLOB               -- NULL while it is under way
) WITHOUT ROWID
"""


class Answer(Struct, frozen=True):
    """What was answered."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Refusal(Struct, frozen=True):
    """Why a request cannot be begun under this key."""

    status: int
    detail: str


class AnswerTable:
    """The answers that were given, by key. One short transaction each: any number of processes may share it.

    Args:
        path: The file; only its owner may read it.
        now: The clock, in UTC nanoseconds.
    """

    def __init__(self, path: Path, now: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._now = now

    def begin(self, key: str, fingerprint: str) -> Answer | Refusal | None:
        """Begin a request under a key: None to go ahead, else what was answered already, or why not."""
        now = self._now()
        with self._transaction() as table:
            table.execute("DELETE FROM answers WHERE ts < ?", (now - KEPT_NS,))
            table.execute("DELETE FROM answers WHERE answer IS NULL AND ts < ?", (now - ABANDONED_NS,))
            found = table.execute("SELECT print, answer FROM answers WHERE key = ?", (key,)).fetchone()
            if found is None:
                table.execute("INSERT INTO answers VALUES (?, ?, ?, NULL)", (key, fingerprint, now))
                return None
        known, answer = found
        if known != fingerprint:
            return Refusal(422, f"this {HEADER} stands for another request: take a new one")
        if answer is None:
            return Refusal(409, f"the request with this {HEADER} is under way: ask again in a moment")
        return msgspec.msgpack.decode(answer, type=Answer)

    def end(self, key: str, answer: Answer | None) -> None:
        """Keep what was answered; with None let go of the key."""
        with self._transaction() as table:
            if answer is None:
                table.execute("DELETE FROM answers WHERE key = ? AND answer IS NULL", (key,))
            else:
                table.execute("UPDATE answers SET answer = ? WHERE key = ?", (msgspec.msgpack.encode(answer), key))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        # No WAL: it has been seen to lose its order under several writers, and there is next to nothing to write.
        table = sqlite3.connect(self._path, timeout=_WAIT_S, isolation_level=None)
        try:
            table.execute("BEGIN IMMEDIATE")
            table.execute(_CREATE)
            yield table
            table.execute("COMMIT")
        finally:
            table.close()  # what was not committed did not happen


class Once:
    """Does a request once, however often it is sent under one key.

    Args:
        app: What it is around.
        folder: Says where the table lies; None where nothing was begun, and so nothing can be done.
    """

    def __init__(self, app: ASGIApp, folder: Callable[[], Path | None]) -> None:
        self._app = app
        self._folder = folder
        self._under_way: set[asyncio.Task[list[Message]]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(HEADER) if scope["type"] == "http" and scope["method"] == "POST" else None
        where = self._folder() if given is not None else None
        if given is None or where is None:
            await self._app(scope, receive, send)
            return
        if not _KEY.fullmatch(given):
            said = "between 1 and 255 visible ASCII letters"
            fault = {"field": HEADER, "message": said}
            await problem(scope, 422, f"{HEADER}: {said}", errors=[fault])(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        key = digest(given)
        fingerprint = digest(scope["method"], scope["path"], body)
        table = AnswerTable(where / TABLE)
        try:
            known = await run_sync(table.begin, key, fingerprint)
        except (OSError, sqlite3.Error) as trouble:
            await self._without_table(scope, body, receive, send, trouble)
            return
        if isinstance(known, Refusal):
            headers = {"Retry-After": "1"} if known.status == 409 else None
            await problem(scope, known.status, known.detail, kind="idempotency", headers=headers)(scope, receive, send)
        elif known is not None:
            replayed = Response(known.body, known.status)
            replayed.raw_headers = [*known.headers, (b"idempotent-replayed", b"true")]
            await replayed(scope, receive, send)
        else:
            await self._go_ahead(scope, body, receive, send, table, key)

    async def _without_table(self, scope: Scope, body: bytes, receive: Receive, send: Send, trouble: Exception) -> None:
        if scope["path"] in ALWAYS_ALLOWED:
            await self._app(scope, _again(body, receive), send)
            return
        said = f"nothing was done: {TABLE} cannot be used ({trouble}); see to the disk, or send it without {HEADER}"
        headers = {"Retry-After": str(RETRY_S)}
        await problem(scope, 503, said, kind="idempotency", headers=headers)(scope, receive, send)

    async def _go_ahead(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, table: AnswerTable, key: str
    ) -> None:
        # Whoever leaves does not take it along: Ray Serve ends what nobody waits for, and half of it may be done.
        task = asyncio.create_task(self._done(scope, _again(body, receive), table, key))
        self._under_way.add(task)
        task.add_done_callback(self._over)
        for message in await asyncio.shield(task):
            await send(message)

    async def _done(self, scope: Scope, receive: Receive, table: AnswerTable, key: str) -> list[Message]:
        """Do it, and keep what is answered before it is sent: whoever has the answer gets the same one again."""
        recorded = _Recorded()
        try:
            await self._app(scope, receive, recorded)
        except Exception:
            await run_sync(_end, table, key, None)
            raise
        await run_sync(_end, table, key, recorded.answer() if 200 <= recorded.status < 300 else None)
        return recorded.messages

    def _over(self, task: asyncio.Task[list[Message]]) -> None:
        """Let go of it; its failure has been heard by who waited, or by nobody any more."""
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()


def _end(table: AnswerTable, key: str, answer: Answer | None) -> None:
    with suppress(OSError, sqlite3.Error):  # what was done is answered all the same
        table.end(key, answer)


class _Recorded:
    """An answer while it is made."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def __call__(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        return next((int(one["status"]) for one in self.messages if one["type"] == "http.response.start"), 500)

    def answer(self) -> Answer:
        headers = next(one["headers"] for one in self.messages if one["type"] == "http.response.start")
        body = b"".join(one.get("body", b"") for one in self.messages if one["type"] == "http.response.body")
        return Answer(self.status, tuple((bytes(name), bytes(value)) for name, value in headers), body)


def digest(*parts: Any) -> str:
    """Values as one word that says nothing about them."""
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()


async def _read(receive: Receive) -> bytes | None:
    """The body, None where the client left before its end; `Guard` has seen to its size."""
    body: bytes = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body
    return None


def _again(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read to whoever reads it next."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
