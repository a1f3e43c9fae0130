"""The stream: state, facts and logs over one WebSocket, so that a client that comes back has missed nothing.

    client   {"channels": ["state", "facts", "logs"], "after": {"facts": 812, "logs": "…"}, "token": "…"}     the first message
    server   {"channel": "facts", "seq": 813, "cursor": "813", "ts": "…", "data": […]}
    client   {"ack": 813}                                                                                     for every frame

At most `CREDIT` frames are unacknowledged. The state, of which only the newest matters, is passed over meanwhile; facts and
lines wait where they lie: in the monitor's journal and in the logs, from which they are read again. So nothing grows
here for a slow client, whoever dies, and the numbers that a client goes on from are those of the files.

Ray Serve's proxy does not tell a handler that only sends that its client is gone, nor does it hold that handler back:
hence the acknowledgements, and a task that reads.
"""

import asyncio
import base64
import binascii
import hmac
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, FastAPI, WebSocket, WebSocketDisconnect
from msgspec import Struct

from actors import logs, up
from actors.http import answers
from actors.http.port import Engine
from actors.words import Picture
from hean import codec
from hean.errors import HeanError, JournalError
from hean.store.journal import JournalReader, Told

router = APIRouter()

CREDIT = 8
"""Frames that a client may leave unacknowledged."""

MOST_SOCKETS = 64
MOST_BYTES = 16_384
"""In one message of a client."""

HELLO_S = 10.0
PATIENCE_S = 30.0
"""How long a client may take to acknowledge anything, before it is dropped."""

_FURTHEST = 1 << 40
"""No log is as long, and no file system refuses to go there."""

STATE_S = 0.1
STILL_S = 1.0
"""How often the state is sent at most; and how often where nothing has changed but its age."""

LOOK_S = 0.1
FACTS_A_FRAME = 200
LINES_A_FRAME = 200
ENTRIES_HELD = 512
BATCHES_HELD = 64
"""What is held of journal and logs for those who keep up; others read the files."""

UNREADABLE, WRONG_TOKEN, TOO_SLOW, TOO_LONG, TOO_MANY, BROKEN = 4400, 4401, 4408, 1009, 1013, 1011


class RefusedError(Exception):
    """A client is not served any longer: the code its socket is closed with, and why."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """State, facts and logs as they come."""
    await of(socket.app).serve(socket)


def of(app: FastAPI) -> "Stream":
    """The application's one stream."""
    found = getattr(app.state, "stream", None)
    if found is None:
        found = app.state.stream = Stream(app.state.engine, app.state.home, token=app.state.token)
    return found


# --- what is said ---------------------------------------------------------------------------------


class After(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a client was: the cursors of the last frames it has. None begins with what comes now."""

    facts: int | str | None = None
    logs: str | None = None


class Hello(Struct, frozen=True, forbid_unknown_fields=True):
    channels: list[Literal["state", "facts", "logs"]]
    token: str = ""
    after: After = After()


class Ack(Struct, frozen=True, forbid_unknown_fields=True):
    ack: int


class Frame(Struct, omit_defaults=True):
    """What is said at once. `data` of the state are the answers of the GETs by their paths; of facts and logs a list, oldest first.

    `gap` says what is missing before it; `reasons` why there is no state.
    """

    channel: str
    seq: int
    cursor: str
    ts: str
    data: msgspec.Raw | None = None
    gap: dict[str, Any] | None = None
    reasons: list[str] | None = None


class Refusal(Struct):
    channel: str
    code: int
    detail: str


# --- one for all ----------------------------------------------------------------------------------


class Stream:
    """What one replica streams: it looks at engine, journal and logs once for all sockets, and only while there are any.

    Args:
        engine: Whom the state is asked of.
        home: HEAN's home.
        token: The API's; a client need not show one, but not a wrong one either. None takes any.
        state_s: How often the state is sent at most, in seconds.
    """

    def __init__(self, engine: Engine, home: Path, *, token: str | None = None, state_s: float = STATE_S) -> None:
        self.state = State(engine, state_s)
        self.facts = Facts(home)
        self.logs = Logs(home)
        self.sockets = 0
        self._token = token

    async def serve(self, socket: WebSocket) -> None:
        """Serve one client until it goes, or must."""
        await socket.accept()
        self.sockets += 1
        try:
            await self._serve(socket, await self._hello(socket))
        except RefusedError as refusal:
            with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
                async with asyncio.timeout(HELLO_S):
                    said = Refusal("error", refusal.code, str(refusal))
                    await socket.send_text(msgspec.json.encode(said).decode())
                    await socket.close(refusal.code, str(refusal)[:100])
        except (WebSocketDisconnect, TimeoutError):
            pass  # it is gone
        finally:
            self.sockets -= 1

    async def _hello(self, socket: WebSocket) -> Hello:
        if self.sockets > MOST_SOCKETS:
            raise RefusedError(TOO_MANY, f"there are {MOST_SOCKETS} clients already: close one, or come back later")
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await _heard(socket, Hello)
        except TimeoutError:
            raise RefusedError(TOO_SLOW, f"nothing was said within {HELLO_S:g} s: say which channels") from None
        if not hello.channels:
            raise RefusedError(UNREADABLE, "channels: name at least one of state, facts, logs")
        if hello.token and self._token is not None and not _same(hello.token, self._token):
            raise RefusedError(
                WRONG_TOKEN, "token: it is not the API's; leave it out, or take that of the home's api.token"
            )
        return hello

    async def _serve(self, socket: WebSocket, hello: Hello) -> None:
        client = Client(socket)
        sources = [getattr(self, name) for name in dict.fromkeys(hello.channels)]
        tasks = [asyncio.create_task(client.read())]
        try:
            for source in sources:
                source.join(client)
            following = [await source.follow(client, hello.after) for source in sources]
            tasks.append(asyncio.create_task(client.send(following)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for source in sources:
                source.leave(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Sent(Struct, frozen=True):
    """A frame as it goes out: its number, and its text."""

    seq: int
    text: str


Follow = Callable[[], Awaitable[Sent | None]]
"""The next frame of a channel for one client; None where there is none yet."""


class Client:
    """One socket: what it has not acknowledged yet, and what wakes it.

    `missed` is whether facts it was to have are gone: then it wants the whole state.
    """

    def __init__(self, socket: WebSocket) -> None:
        self.news = asyncio.Event()
        self.missed = False
        self._socket = socket
        self._open: list[int] = []
        self._heard_at = time.monotonic()

    async def read(self) -> None:
        """Take acknowledgements, until the client goes."""
        while True:
            ack = (await _heard(self._socket, Ack)).ack
            # Channels count for themselves; an acknowledgement is of the oldest frame with its number.
            if ack in self._open:
                self._open.remove(ack)
                self._heard_at = time.monotonic()
                self.news.set()

    async def send(self, following: list[Follow]) -> None:
        """Send what there is, as far as the credit goes; by turns, so that no channel waits for another's end."""
        turns = deque(following)
        while True:
            self.news.clear()
            quiet = 0
            while quiet < len(turns) and len(self._open) < CREDIT:
                turns.rotate(-1)
                frame = await turns[-1]()
                quiet = quiet + 1 if frame is None else 0
                if frame is not None:
                    await self._send(frame)
            await self._wait()

    async def _send(self, frame: Sent) -> None:
        if not self._open:
            self._heard_at = time.monotonic()
        self._open.append(frame.seq)
        async with asyncio.timeout(PATIENCE_S):
            await self._socket.send_text(frame.text)

    async def _wait(self) -> None:
        """Wait for news.

        Raises:
            RefusedError: The client owes an acknowledgement for too long.
        """
        left = self._heard_at + PATIENCE_S - time.monotonic() if self._open else None
        try:
            async with asyncio.timeout(left):
                await self.news.wait()
        except TimeoutError:
            raise RefusedError(TOO_SLOW, f"no frame was acknowledged for {PATIENCE_S:g} s") from None


class Source:
    """Something that is looked at again and again for all who follow it, and not at all while nobody does."""

    every_s = LOOK_S

    def __init__(self) -> None:
        self._clients: set[Client] = set()
        self._looking: asyncio.Task[None] | None = None
        self._begun = asyncio.Event()

    def join(self, client: Client) -> None:
        self._clients.add(client)
        if self._looking is None:
            self._begun.clear()
            self._looking = asyncio.create_task(self._look_on())
            self._looking.add_done_callback(lambda _: self._wake())

    def leave(self, client: Client) -> None:
        self._clients.discard(client)
        if not self._clients and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _look_on(self) -> None:
        await self._begin()
        self._begun.set()
        while True:
            began = time.monotonic()
            if await self._look():
                self._wake()
            await asyncio.sleep(max(0.0, began + self.every_s - time.monotonic()))

    def _wake(self) -> None:
        for client in self._clients:
            client.news.set()

    async def _ready(self) -> None:
        """Wait until it is known where things stand.

        Raises:
            RefusedError: They cannot be looked at.
        """
        assert self._looking is not None, "who follows has joined"  # noqa: S101
        begun = asyncio.create_task(self._begun.wait())
        await asyncio.wait({begun, self._looking}, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        self._must_look()

    def _must_look(self) -> None:
        if self._looking is not None and self._looking.done():
            raise RefusedError(BROKEN, "what is streamed cannot be looked at any more: come back later") from (
                self._looking.exception() if not self._looking.cancelled() else None
            )

    async def _begin(self) -> None:
        """See where things stand."""

    async def _look(self) -> bool:
        """Look once; whether there is something new."""
        raise NotImplementedError


# --- state ----------------------------------------------------------------------------------------


class State(Source):
    """The newest state. Its number counts what was sent, for acknowledgements alone."""

    def __init__(self, engine: Engine, every_s: float) -> None:
        super().__init__()
        self.every_s = every_s
        self._engine = engine
        self._seq = 0
        self._newest: Sent | None = None
        self._shown: tuple[Picture, dict[str, Any]] | None = None
        self._without_ages = b""
        self._changed_at = 0.0

    async def follow(self, client: Client, _after: After) -> Follow:
        seen = 0

        async def following() -> Sent | None:
            nonlocal seen
            self._must_look()
            if self._newest is None or (self._newest.seq == seen and not client.missed):
                return None
            client.missed = False
            seen = self._newest.seq
            return self._newest

        return following

    async def _begin(self) -> None:
        self._newest, self._shown, self._without_ages = None, None, b""  # it was let go of while nobody followed

    async def _look(self) -> bool:
        body, reasons = None, None
        try:
            picture = await self._engine.picture()
        except HeanError as silence:
            reasons = [str(silence)]
        else:
            if self._shown is None or self._shown[0] is not picture:
                self._shown = picture, _bodies(picture)
            body = self._shown[1]
        without_ages = msgspec.json.encode([_ageless(body), reasons])
        now = time.monotonic()
        if without_ages == self._without_ages and now - self._changed_at < STILL_S:
            return False
        self._without_ages, self._changed_at = without_ages, now
        self._seq += 1
        self._newest = _framed(Frame("state", self._seq, str(self._seq), _now(), _raw(body), reasons=reasons))
        return True


def _bodies(picture: Picture) -> dict[str, Any]:
    """The answers that make up the state, by their paths."""
    return _plain(  # type: ignore[no-any-return]
        {
            "/engine/status": answers.status(picture),
            "/positions": answers.positions(picture),
            "/orders": answers.orders(picture),
            "/strategies": answers.strategies(picture),
            "/risk": answers.risk(picture),
            "/why": answers.why(picture),
        }
    )


_AGES = ("age_s", "ages_s", "lag_s")


def _ageless(body: Any) -> Any:
    """The same without what changes with nothing but the time."""
    match body:
        case dict():
            return {name: _ageless(one) for name, one in body.items() if name != "as_of" and not name.endswith(_AGES)}
        case list():
            return [_ageless(one) for one in body]
        case _:
            return body


# --- facts ----------------------------------------------------------------------------------------


class Entry(Struct, frozen=True):
    """One entry of the monitor's journal, with what it tells."""

    n: int
    facts: list[dict[str, Any]]


class Facts(Source):
    """What was said to have happened: the monitor's journal, read while it is written. Its numbers are the journal's."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home
        self._reader: JournalReader | None = None
        self._of: tuple[Path, int] | None = None
        self._last = 0
        self._held: deque[Entry] = deque(maxlen=ENTRIES_HELD)

    async def follow(self, client: Client, after: After) -> Follow:
        at = -1
        if after.facts is not None:
            with suppress(ValueError):
                at = int(after.facts)
            if at < 0:
                raise RefusedError(UNREADABLE, f"after.facts: {after.facts!r} is no number of an entry")
        await self._ready()
        if after.facts is None:
            at = self._last

        async def following() -> Sent | None:
            nonlocal at
            self._must_look()
            if at == self._last:
                return None
            gap = None
            found = self._in_hand(at)
            if not found:
                first, found = await asyncio.to_thread(self._from_file, at)
                if first != at + 1:
                    gap = {"from": at + 1, "to": first - 1}
                    client.missed = True
                    at = first - 1
            if found:
                at = found[-1].n
            elif gap is None:
                return None
            data = _raw([fact for entry in found for fact in entry.facts])
            return _framed(Frame("facts", at, str(at), _now(), data, gap=gap))

        return following

    def _in_hand(self, at: int) -> list[Entry]:
        """The entries after one, as many as a frame holds; none where they must be read from the file."""
        if not self._held or not self._held[0].n - 1 <= at < self._last:
            return []
        return _a_frame_of(islice(self._held, at + 1 - self._held[0].n, None))

    def _from_file(self, at: int) -> tuple[int, list[Entry]]:
        """The first entry that is kept after one, and as many from there on as a frame holds.

        Where the journal has not come as far it is another one, and its first entry is what comes next.
        """
        try:
            reader = JournalReader(self._path())
        except HeanError:  # there is none yet
            return at + 1, []
        try:
            first, last = reader.kept()
            found = _a_frame_of(map(_entry, reader.after(at if at <= last else 0)))
            return (found[0].n if found else at + 1 if at <= last else first), found
        finally:
            reader.close()

    def _path(self) -> Path:
        return up.mode_folder(self._home) / "journals" / "monitor.db"

    async def _begin(self) -> None:
        self._held.clear()
        self._last = (await asyncio.to_thread(self._more, None))[1]

    async def _look(self) -> bool:
        try:
            found, last = await asyncio.to_thread(self._more, self._last)
        except JournalError:  # it is being begun: it is looked at again
            return False
        if found and (not self._held or found[0].n != self._held[-1].n + 1):
            self._held.clear()
        self._held += found
        is_news = last != self._last
        self._last = last
        return is_news

    def _more(self, after: int | None) -> tuple[list[Entry], int]:
        """The entries after one, and the number of the last; with None that number alone."""
        try:
            path = self._path()
            of = path, path.stat().st_ino
        except (OSError, HeanError):
            return [], 0
        if of != self._of and self._reader is not None:  # another has its place
            self._reader.close()
            self._reader = None
        if self._reader is None:
            self._reader = JournalReader(path)
            self._of = of
        last = self._reader.kept()[1]
        if after is None or after == last:
            return [], last
        found = [_entry(told) for told in islice(self._reader.after(after if after < last else 0), ENTRIES_HELD)]
        return found, found[-1].n if found else last


def _a_frame_of(entries: Iterable[Entry]) -> list[Entry]:
    """As many whole entries as a frame holds: one at the least."""
    found: list[Entry] = []
    facts = 0
    for entry in entries:
        if found and facts + len(entry.facts) > FACTS_A_FRAME:
            break
        found.append(entry)
        facts += len(entry.facts)
        if len(found) == FACTS_A_FRAME:
            break
    return found


def _entry(told: Told) -> Entry:
    try:
        batch = [] if told.parcel is None else codec.envelopes(told.parcel)
    except msgspec.DecodeError as damage:
        lost = {"n": told.n, "i": 0, "ts": answers.at(told.now), "event": "Unreadable", "said": {"why": str(damage)}}
        return Entry(told.n, [lost])
    return Entry(
        told.n,
        [
            {
                "n": told.n,
                "i": i,
                "ts": answers.at(one.ts_init),
                "source": one.source,
                "id": one.id,
                "trace": one.trace,
                "cause": one.cause,
                "event": type(one.message).__name__,
                "said": _plain(one.message),
            }
            for i, one in enumerate(batch)
        ],
    )


# --- logs -----------------------------------------------------------------------------------------


class Batch(Struct, frozen=True):
    """Lines that were found at once, and where the logs stood after them."""

    number: int
    lines: list[Any]
    places: dict[str, logs.Place]


class Logs(Source):
    """The lines of all logs, as they are written. A cursor says how far each node's log was read."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._home = home
        self._folder: Path | None = None
        self._reading: logs.Reading | None = None
        self._number = 0
        self._places: dict[str, logs.Place] = {}
        self._held: deque[Batch] = deque(maxlen=BATCHES_HELD)

    async def follow(self, _client: Client, after: After) -> Follow:
        cursor = None if after.logs is None else _places(after.logs)
        await self._ready()
        behind = None if cursor is None else self._catch_up(cursor)
        places = self._places if cursor is None else cursor
        heard = self._number
        seq = 0

        async def following() -> Sent | None:
            nonlocal behind, heard, places, seq
            self._must_look()
            gap = None
            lines: list[Any] = []
            if behind is None and self._held and heard < self._held[0].number - 1:
                behind, heard = self._catch_up(places), self._number
            if behind is not None:
                lines = await asyncio.to_thread(_read, behind)
                places = dict(behind.places)
                if behind.missed:
                    gap = {"nodes": sorted(behind.missed)}
                    behind.missed.clear()
                if not lines:
                    behind = None
            if behind is None and not lines:
                batch = next((one for one in self._held if one.number > heard), None)
                if batch is not None:
                    heard, lines, places = batch.number, batch.lines, batch.places
            if not lines and gap is None:
                return None
            seq += 1
            return _framed(Frame("logs", seq, _cursor(places), _now(), _raw(lines), gap=gap))

        return following

    def _catch_up(self, places: Mapping[str, logs.Place]) -> logs.Reading | None:
        """Who reads from there to where all stand now."""
        return None if self._folder is None else logs.Reading(self._folder, places, until=self._places)

    async def _begin(self) -> None:
        self._held.clear()
        self._folder = None
        await asyncio.to_thread(self._find)

    async def _look(self) -> bool:
        await asyncio.to_thread(self._find)
        before = self._number
        while self._reading is not None:
            lines = await asyncio.to_thread(_read, self._reading)
            if lines:
                self._number += 1
                self._places = dict(self._reading.places)
                self._held.append(Batch(self._number, lines, self._places))
            if len(lines) < LINES_A_FRAME:
                break
        return self._number > before

    def _find(self) -> None:
        """Look where the logs are: another mode has a folder of its own."""
        try:
            folder = up.mode_folder(self._home)
        except HeanError:  # nothing was begun yet
            return
        if folder != self._folder:
            self._folder = folder
            self._places = logs.ends(folder)
            self._reading = logs.Reading(folder, self._places)


def _read(reading: logs.Reading) -> list[Any]:
    return _plain(reading.more(LINES_A_FRAME))  # type: ignore[no-any-return]


def _cursor(places: Mapping[str, logs.Place]) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(places)).decode()


def _places(cursor: str) -> dict[str, logs.Place]:
    """Take a cursor apart; an empty one is the beginning of all logs.

    Raises:
        RefusedError: It is none of ours.
    """
    if not cursor:
        return {}
    try:
        found = msgspec.msgpack.decode(base64.urlsafe_b64decode(cursor), type=dict[str, logs.Place])
        if all(0 <= place.at <= _FURTHEST for place in found.values()):
            return found
    except (ValueError, binascii.Error, msgspec.DecodeError):
        pass
    raise RefusedError(UNREADABLE, "after.logs: it is no cursor of a frame of logs")


# --- frames and messages --------------------------------------------------------------------------


def _framed(frame: Frame) -> Sent:
    return Sent(frame.seq, msgspec.json.encode(frame).decode())


def _raw(data: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(data))


def _plain(data: Any) -> Any:
    """Data as plain values. What is secret is in no state, fact or line: this is the last of several walls."""
    return logs.redacted(msgspec.to_builtins(data))


def _now() -> str:
    return answers.at(time.time_ns())


Heard = TypeVar("Heard", bound=Struct)


async def _heard(socket: WebSocket, kind: type[Heard]) -> Heard:
    """The client's next message.

    Raises:
        RefusedError: It is too long, or not what it should be.
        WebSocketDisconnect: The client is gone.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005), message.get("reason"))
    said = message.get("text") or message.get("bytes") or b""
    if len(said) > MOST_BYTES:
        raise RefusedError(TOO_LONG, f"a message has {MOST_BYTES} bytes at most")
    try:
        return msgspec.json.decode(said, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as damage:
        wanted = ", ".join(field.name for field in msgspec.structs.fields(kind))
        raise RefusedError(UNREADABLE, f"{kind.__name__.lower()} is expected, with {wanted}: {damage}") from None


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
