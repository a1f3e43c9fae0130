"""What the page knows: what the API said last, when that was heard, and whether the API is there.

One store serves all browsers. The stream brings what changes; what it does not bring is asked for again and again, as long
as somebody looks at it. Nothing here is ever made up: what was not heard is None.
"""

import asyncio
import contextlib
import enum
import itertools
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec
import structlog
import websockets
from msgspec import Struct
from websockets.asyncio.client import connect

from actors.page.client import Api, ApiError
from hean.errors import HeanError

STATUS: Final = "/engine/status"

FACTS_KEPT = 2_000
LOGS_KEPT = 5_000
TOPICS_KEPT = 64
"""More than a dozen browsers look at; who looks at most is not let to fill the memory."""

LAGS_KEPT = 60
ACTORS_KEPT = 200

_LOOK_S = 0.1
_TAKE_S = 0.25
"""The state comes more often than anybody draws it: it is read at most this often, and always the newest."""

_FRESH_S = 3.0
"""How long what the stream brought needs not be asked for."""

_LAG_S = 1.0
_SILENT_S = 10.0
"""A stream that brings nothing for so long is taken for dead."""

_LOOKED_AT_S = 10.0
_FORGOTTEN_S = 600.0
_PATIENCE_S = (0.25, 5.0)
_AT_ONCE = 6
_MOST_BYTES = 16 * 2**20

_log = structlog.get_logger("page")


class Topic:
    """What was heard last of one question.

    `value` is the body of the answer, None before the first. It stays when an answer fails: `fault` says why, and
    `age_s` goes on growing. `version` counts the answers, so that a view draws only what is new.
    """

    def __init__(self, path: str, query: tuple[tuple[str, Any], ...] = ()) -> None:
        self.path = path
        self.query = query
        self.value: Any = None
        self.version = 0
        self.fault: ApiError | None = None
        self._heard: float | None = None
        self._asked = -1e9
        self.looked_at = -1e9
        self._every_s = 1.0
        self._asking = False
        self._brought = False

    def age_s(self) -> float | None:
        """Seconds since the value was heard; None where it never was."""
        return None if self._heard is None else time.monotonic() - self._heard

    def grown(self, age_s: float | None) -> float | None:
        """What was `age_s` old when the value was heard is now this old."""
        since = self.age_s()
        return None if age_s is None or since is None else age_s + since

    def look(self, every_s: float) -> None:
        """Keep it fresh for some seconds more."""
        self.looked_at = time.monotonic()
        self._every_s = every_s

    def is_due(self, now: float) -> bool:
        wait_s = max(self._every_s, _FRESH_S) if self._brought else self._every_s
        return not self._asking and now - self.looked_at < _LOOKED_AT_S and now - self._asked >= wait_s

    def is_forgotten(self, now: float) -> bool:
        return now - self.looked_at > _FORGOTTEN_S

    def begin(self) -> None:
        self._asking, self._asked = True, time.monotonic()

    def end(self) -> None:
        self._asking = False

    def hear(self, value: Any, *, brought: bool = False) -> None:
        """Take an answer: to a question, or `brought` by the stream without one."""
        self.value, self.fault, self._heard = value, None, time.monotonic()
        self._asked, self._brought = self._heard, brought
        self.version += 1

    def fail(self, fault: ApiError) -> None:
        self.fault = fault
        self.version += 1


class Tail:
    """The newest of something that goes on, each with a number that grows by one."""

    def __init__(self, kept: int) -> None:
        self.count = 0
        self._items: deque[tuple[int, Any]] = deque(maxlen=kept)

    def add(self, items: Iterable[Any]) -> None:
        for item in items:
            self.count += 1
            self._items.append((self.count, item))

    def since(self, number: int = 0) -> list[tuple[int, Any]]:
        """What came after that number, oldest first, as far as it is kept."""
        newer = itertools.takewhile(lambda item: item[0] > number, reversed(self._items))
        return list(newer)[::-1]


class Mode(enum.StrEnum):
    """LIVE: the stream brings changes. POLLING: there is no stream, and the API is asked. LOST: nobody answers."""

    CONNECTING = "connecting"
    LIVE = "live"
    POLLING = "polling"
    LOST = "lost"


class Link:
    """Whether the API is there, since when, and when it is tried again.

    `mode` is what to show; `fault` says why it is not LIVE; `tries` counts attempts since it was lost.
    """

    def __init__(self) -> None:
        self.mode = Mode.CONNECTING
        self.fault = ""
        self.tries = 0
        self._since = time.monotonic()
        self._again: float | None = None
        self._lost: float | None = None

    @property
    def is_lost(self) -> bool:
        return self.mode in {Mode.LOST, Mode.CONNECTING}

    def since_s(self) -> float:
        """Seconds since it became what it is."""
        return time.monotonic() - self._since

    def again_s(self) -> float | None:
        """Seconds until it is tried again; None while it is there."""
        return None if self._again is None else max(0.0, self._again - time.monotonic())

    def up(self, mode: Mode, fault: str = "") -> None:
        self.fault, self.tries, self._again = fault, 0, None
        self._become(mode)

    def down(self, fault: str, again_s: float) -> None:
        self.fault, self.tries, self._again = fault, self.tries + 1, time.monotonic() + again_s
        self._become(Mode.LOST)

    def _become(self, mode: Mode) -> None:
        if mode is not self.mode:
            self.mode, self._since = mode, time.monotonic()


class Patience:
    """Waits longer after each failure, up to a bound, and not at all like the others."""

    def __init__(self) -> None:
        self._next_s = _PATIENCE_S[0]

    def next_s(self) -> float:
        now_s, self._next_s = self._next_s, min(2 * self._next_s, _PATIENCE_S[1])
        return now_s

    def reset(self) -> None:
        self._next_s = _PATIENCE_S[0]


_NULL: Final = msgspec.Raw(b"null")


class Frame(Struct):
    """What the stream says at once (`actors.http.stream`)."""

    channel: str
    seq: int | None = None
    cursor: str | None = None
    data: msgspec.Raw = _NULL
    gap: dict[str, Any] | None = None
    reasons: list[str] | None = None
    detail: str = ""


class Store:
    """Everything the API said, for all who look.

    Args:
        api: Where it is heard from.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self.link = Link()
        self.facts = Tail(FACTS_KEPT)
        self.logs = Tail(LOGS_KEPT)
        self._topics: dict[tuple[str, tuple[tuple[str, Any], ...]], Topic] = {}
        self._after: dict[str, str] = {}
        self._state: msgspec.Raw | None = None
        self._taken = 0.0
        self._lags: dict[str, deque[float | None]] = {}
        self._lagged = 0.0
        self._streamed: float | None = None
        self._stream_fault = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._patience = Patience()
        self._next_probe = 0.0
        self._found = asyncio.Event()

    # --- what views read ------------------------------------------------------------------------

    def see(self, path: str, *, every_s: float = 1.0, **query: Any) -> Topic:
        """What is known of a question. It is kept fresh for as long as it is seen at least every few seconds.

        Args:
            path: What is asked.
            every_s: How old it may become before it is asked again, where the stream does not bring it.
            query: Narrows it; None is left out.
        """
        topic = self._topic(path, tuple(sorted((name, value) for name, value in query.items() if value is not None)))
        topic.look(every_s)
        return topic

    def status(self) -> Topic:
        """The engine at a glance: `GET /engine/status`."""
        return self.see(STATUS)

    def lags(self, actor: str) -> tuple[float | None, ...]:
        """How far an actor's mailbox was behind in the last minute, in ms, oldest first; None where it did not say."""
        return tuple(self._lags.get(actor, ()))

    @property
    def is_streaming(self) -> bool:
        """Whether facts and lines come by themselves, as they are said."""
        return self.link.mode is Mode.LIVE

    async def refresh(self, path: str) -> None:
        """Ask again at once for all that is known of a path: after a command, nobody should wait for the next turn."""
        await asyncio.gather(*(self._ask(topic) for topic in self._topics.values() if topic.path == path))

    # --- its life -------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Listen and ask, until `end`. Needs a running loop, and goes on whatever befalls it."""
        self._tasks = [
            asyncio.create_task(_for_ever(self._listen), name="stream"),
            asyncio.create_task(_for_ever(self._poll), name="questions"),
        ]

    async def end(self) -> None:
        tasks = [*self._tasks, *self._asking]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks = []
        await self.api.close()

    # --- asking ---------------------------------------------------------------------------------

    async def _poll(self) -> None:
        """Ask for what is looked at and not brought. While nobody answers, only whether somebody is there."""
        while True:
            now = time.monotonic()
            self.status()
            self._take(now)
            if self.link.is_lost:
                if now >= self._next_probe:
                    await self._ask(self.status())
            else:
                due = [topic for topic in self._topics.values() if topic.is_due(now)]
                for topic in due[: _AT_ONCE - len(self._asking)]:
                    topic.begin()
                    task = asyncio.create_task(self._ask(topic))
                    self._asking.add(task)
                    task.add_done_callback(self._asking.discard)
            await asyncio.sleep(_LOOK_S)

    async def _ask(self, topic: Topic) -> None:
        topic.begin()
        try:
            topic.hear(await self.api.get(topic.path, **dict(topic.query)))
        except ApiError as fault:
            topic.fail(fault)
            if fault.is_silence:
                self._lost(str(fault))
            else:
                self._reached()
        else:
            self._reached()
            if topic.path == STATUS:
                self._keep_lags()
        finally:
            topic.end()

    def _lost(self, fault: str) -> None:
        wait_s = self._patience.next_s()
        self._next_probe = time.monotonic() + wait_s
        self.link.down(fault, wait_s)

    def _reached(self) -> None:
        """Somebody answered. Who waits to hear the stream again need wait no longer."""
        self._patience.reset()
        if self.link.is_lost:
            self._found.set()
        if self._streamed is not None and time.monotonic() - self._streamed < _SILENT_S:
            self.link.up(Mode.LIVE)
        else:
            self.link.up(Mode.POLLING, self._stream_fault)

    def _topic(self, path: str, query: tuple[tuple[str, Any], ...] = ()) -> Topic:
        topic = self._topics.get((path, query))
        if topic is None:
            self._forget()
            topic = self._topics[path, query] = Topic(path, query)
        return topic

    def _forget(self) -> None:
        """Let go of what nobody looks at, and of the least looked at where there is too much."""
        now = time.monotonic()
        for name in [name for name, topic in self._topics.items() if topic.is_forgotten(now)]:
            del self._topics[name]
        while len(self._topics) >= TOPICS_KEPT:
            del self._topics[min(self._topics, key=lambda name: self._topics[name].looked_at)]

    # --- listening ------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear the stream; begin it anew where it broke off, after the last that was heard."""
        patience = Patience()
        while True:
            try:
                # To deflate what comes ten times a second over loopback would cost the API more than to make it.
                async with connect(
                    f"ws{self.api.url.removeprefix('http')}/stream",
                    proxy=None,
                    compression=None,
                    max_size=_MOST_BYTES,
                    open_timeout=5,
                ) as socket:
                    await socket.send(_encoded(self._hello()))
                    while True:
                        async with asyncio.timeout(_SILENT_S):
                            frame = msgspec.json.decode(await socket.recv(), type=Frame)
                        self._hear(frame)
                        patience.reset()
                        if frame.seq is not None:
                            await socket.send(_encoded({"ack": frame.seq}))
            except (OSError, TimeoutError, websockets.WebSocketException, msgspec.DecodeError, HeanError) as failure:
                self._stream_fault = f"no stream: {_said(failure)}"
            self._streamed = None
            if self.link.mode is Mode.LIVE:
                self.link.up(Mode.POLLING, self._stream_fault)
            self._found.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience.next_s()):
                    await self._found.wait()

    def _hello(self) -> dict[str, Any]:
        """Reading needs no token, so that none is sent."""
        return {"channels": ["state", "facts", "logs"], "after": self._after}

    def _hear(self, frame: Frame) -> None:
        self._streamed = time.monotonic()
        self._reached()
        if frame.channel in {"facts", "logs"} and frame.cursor is not None:
            self._after[frame.channel] = frame.cursor
        match frame.channel:
            case "state" if frame.reasons:
                self.status().fail(ApiError("; ".join(frame.reasons), title="no engine", status=503))
            case "state":
                self._state = frame.data
            case "facts":
                self.facts.add(_items(frame))
            case "logs":
                self.logs.add(_items(frame))
            case "error":
                raise ApiError(frame.detail, status=503)
            case _:
                pass  # a word of a newer API

    def _take(self, now: float) -> None:
        """Read the newest state there is."""
        if self._state is None or now - self._taken < _TAKE_S:
            return
        state, self._state, self._taken = self._state, None, now
        for path, value in msgspec.json.decode(state, type=dict[str, Any]).items():
            self._topic(path).hear(value, brought=True)
        self._keep_lags()

    def _keep_lags(self) -> None:
        now = time.monotonic()
        if now - self._lagged < _LAG_S:
            return
        self._lagged = now
        actors = {one["name"]: one.get("lag_ms") for one in self._topic(STATUS).value.get("actors", ())}
        for name in [name for name in self._lags if name not in actors]:
            del self._lags[name]
        for name, lag in list(actors.items())[:ACTORS_KEPT]:
            self._lags.setdefault(name, deque(maxlen=LAGS_KEPT)).append(lag)


def _items(frame: Frame) -> list[Any]:
    """What a frame tells; a gap is shown where it is, not passed over."""
    told = msgspec.json.decode(frame.data, type=list[Any] | None) or []
    return [{"gap": frame.gap}, *told] if frame.gap else told


def _encoded(told: dict[str, Any]) -> str:
    return msgspec.json.encode(told).decode()


def _said(failure: BaseException) -> str:
    return str(failure) or type(failure).__name__


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Work, and begin anew after a fault of our own: the page must not go dark for one frame that it cannot read."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 (whatever it is, it is written down, and the other browsers are served on)
            _log.exception("begun anew", what=getattr(work, "__name__", ""))
            await asyncio.sleep(1.0)
