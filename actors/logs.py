"""The log: one JSON object a line, one file a process, bounded; and no secret in it.

Components do not log, they say things; the shell writes down what was said. `hean logs` puts the files of all processes
into one, by time.
"""

import contextlib
import heapq
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog
from msgspec import Struct

from hean.messages import Envelope

FOLDER = "logs"
BOUND = 5_000_000
KEPT = 4
LEVELS = ("debug", "info", "warning", "error", "critical")

# What a person should look at, among all that is said.
_ALARMING = frozenset(
    {
        "BooksAdjusted",
        "Discrepancy",
        "ErrorReported",
        "FeedStale",
        "KillSwitchTripped",
        "NodeFailed",
        "OrderOutcomeUnknown",
        "OrderRejected",
        "PullKillSwitch",
    }
)

# --- secrets --------------------------------------------------------------------------------------

HIDDEN = "…"
_TELLING = re.compile(r"(?i)(secret|token|passw|api[-_]?key|private[-_]?key|signature|authorization|phrase|^sign$)")
_SHOWN = re.compile(r"(?i)(\bbearer\s+|(?:\b|_|-)(?:key|secret|token|password|signature|sign)=)[^\s&\\\"']+")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# Bybit's secrets are 36 letters and digits; an id of ours has dashes, and a digest no capitals.
_RANDOM = re.compile(r"(?<![\w-])(?=\w*[a-z])(?=\w*[A-Z])(?=\w*\d)[A-Za-z0-9]{32,}(?![\w-])")
# What pydantic did not take may be a secret in the wrong place, and it repeats it.
_NOT_TAKEN = re.compile(r"input_value=.*?(?=, input_type=|\Z)", re.DOTALL)
_known: set[str] = set()


def hide(*known: str) -> None:
    """Let these never be seen in a log of this process."""
    _known.update(secret for secret in known if len(secret) >= 6)


def redacted(value: Any) -> Any:
    """The same value, with what is secret or looks it taken out."""
    match value:
        case str():
            return _without_secrets(value)
        case Mapping():
            return {
                name: HIDDEN if inner and isinstance(name, str) and _is_telling(name) else redacted(inner)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redacted(inner) for inner in value]
        case _:
            return value


def _without_secrets(text: str) -> str:
    for secret in _known:
        text = text.replace(secret, HIDDEN)
    if len(text) >= 32:
        text = _NOT_TAKEN.sub(f"input_value={HIDDEN}", _RANDOM.sub(HIDDEN, _PEM.sub(HIDDEN, text)))
    return _SHOWN.sub(rf"\1{HIDDEN}", text) if "=" in text or " " in text else text


@lru_cache(4096)
def _is_telling(name: str) -> bool:
    """Whether what bears this name is a secret."""
    return _TELLING.search(name) is not None


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found: dict[str, Any] = redacted(event)
    return found


# --- writing --------------------------------------------------------------------------------------


class RotatingFile:
    """A file of bounded size: when it is full it becomes `.1`, and the oldest of its kind goes.

    What a disk does not take is lost: nobody ends for want of a log.

    Args:
        path: The file; only its owner may read it.
        bound: Bytes in one.
        kept: How many full ones are kept.
    """

    def __init__(self, path: Path, bound: int = BOUND, kept: int = KEPT) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._bound = bound
        self._kept = kept
        self._file = self._opened()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            if self._file.closed:  # it could not be begun anew when it was full
                self._file = self._opened()
            if self._file.tell() + len(text) > self._bound:
                self._rotate()
            return self._file.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._kept, 0, -1):
            younger = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                younger.replace(self.path.with_name(f"{self.path.name}.{number}"))
        self._file = self._opened()

    def _opened(self) -> IO[str]:
        return open(  # noqa: PTH123 (a descriptor; closed when it is full)
            os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8"
        )


def _encoded(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


class NodeLog:
    """The log of one process.

    Args:
        home: The directory of the venue mode.
        node: Whose log it is.
        incarnation: Which of its lives; None for a process that has none.
    """

    def __init__(self, home: Path, node: str, incarnation: int | None = None) -> None:
        self._file = RotatingFile(home / FOLDER / f"{node}.log")
        self._log: Any = structlog.wrap_logger(
            structlog.WriteLogger(self._file),  # type: ignore[arg-type]  # it writes and flushes, and needs no more
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
                structlog.processors.format_exc_info,
                _redact,
                structlog.processors.JSONRenderer(serializer=_encoded),
            ],
            wrapper_class=structlog.BoundLogger,
        ).bind(node=node)
        if incarnation is not None:
            self._log = self._log.bind(life=incarnation)

    def debug(self, event: str, **told: Any) -> None:
        self._log.debug(event, **told)

    def info(self, event: str, **told: Any) -> None:
        self._log.info(event, **told)

    def warning(self, event: str, **told: Any) -> None:
        self._log.warning(event, **told)

    def error(self, event: str, **told: Any) -> None:
        self._log.error(event, **told)

    def said(self, envelopes: Iterable[Envelope]) -> None:
        """Write down what the node said, each message with what set it going."""
        for envelope in envelopes:
            name = type(envelope.message).__name__
            tell = self._log.warning if name in _ALARMING else self._log.info
            tell(
                name,
                id=f"{envelope.source}:{envelope.seq}",
                trace=envelope.trace,
                cause=envelope.cause,
                said=msgspec.to_builtins(envelope.message),
            )

    def died(self, failure: BaseException) -> None:
        """Write down what ends the process."""
        self._log.critical("died", exc_info=failure, why=f"{type(failure).__name__}: {failure}")

    def close(self) -> None:
        self._file.close()


# --- reading --------------------------------------------------------------------------------------


class Line(Struct, frozen=True):
    """One line of a log; what is not of every line is in `rest`."""

    ts: str
    node: str
    level: str
    event: str
    rest: dict[str, Any]


_WHENCE = ("trace", "id", "cause", "request_id")


class Wanted(Struct, frozen=True):
    """Which lines: of these nodes (all if none is named), of this trace, of this level and above."""

    nodes: tuple[str, ...] = ()
    trace: str = ""
    level: str = "debug"

    def takes(self, line: Line) -> bool:
        return (
            (not self.nodes or line.node in self.nodes)
            and (not self.trace or self.trace in {line.rest.get(name) for name in _WHENCE})
            and (line.level not in LEVELS or LEVELS.index(line.level) >= LEVELS.index(self.level))
        )


def nodes(home: Path) -> list[str]:
    """Whose logs there are."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.log"))


def merged(home: Path, wanted: Wanted) -> Iterator[Line]:
    """What was written so far, by time."""
    yield from heapq.merge(*(_lines(_files(home, node), wanted) for node in _asked(home, wanted)), key=_when)


def newest(home: Path, wanted: Wanted, limit: int) -> list[Line]:
    """The last lines, by time; read from the end, so that old files cost nothing."""
    lines = [_lines_backwards(_files(home, node), wanted) for node in _asked(home, wanted)]
    return list(islice(heapq.merge(*lines, key=_when, reverse=True), limit))[::-1]


def followed(home: Path, wanted: Wanted, *, poll_s: float = 0.25) -> Iterator[Line]:
    """What is written from now on, for ever; by time as far as it comes together."""
    reading = Reading(home, ends(home))
    while True:
        while found := reading.more():
            yield from (line for line in found if wanted.takes(line))
        time.sleep(poll_s)


def _asked(home: Path, wanted: Wanted) -> list[str]:
    return [node for node in nodes(home) if not wanted.nodes or node in wanted.nodes]


def _when(line: Line) -> str:
    return line.ts


def _files(home: Path, node: str) -> list[Path]:
    """A node's files, the oldest first."""
    newest = home / FOLDER / f"{node}.log"
    older = [path for path in newest.parent.glob(f"{node}.log.*") if path.suffix[1:].isdigit()]
    return [*sorted(older, key=lambda path: -int(path.suffix[1:])), newest]


def _lines(files: Sequence[Path], wanted: Wanted) -> Iterator[Line]:
    for path in files:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            yield from _wanted(file, wanted)


def _lines_backwards(files: Sequence[Path], wanted: Wanted) -> Iterator[Line]:
    for path in reversed(files):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            yield from _wanted(_backwards(file), wanted)


def _wanted(texts: Iterable[bytes], wanted: Wanted) -> Iterator[Line]:
    trace = _quoted(wanted.trace) if wanted.trace else b""
    for text in texts:
        # Most lines are of something else, and need not be taken apart to see that.
        if trace in text and (line := _line(text)) is not None and wanted.takes(line):
            yield line


def _backwards(file: IO[bytes], block: int = 65_536) -> Iterator[bytes]:
    """The lines of a file, the last first."""
    at = file.seek(0, os.SEEK_END)
    rest = b""
    while at:
        size = min(block, at)
        at -= size
        file.seek(at)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest


def _line(text: bytes) -> Line | None:
    """A line as it was written; None for one that was cut off by a crash."""
    try:
        told = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    ts, node, level, event = (str(told.pop(name, "")) for name in ("ts", "node", "level", "event"))
    return Line(ts, node, level, event, told)


# --- reading on -----------------------------------------------------------------------------------


class Place(Struct, frozen=True, array_like=True):
    """How far a node's log was read: up to this byte of the file that begins with a certain line.

    Files change their names when they are put aside, and the numbers that a disk gives them are given again.
    """

    file: str
    at: int


def ends(home: Path) -> dict[str, Place]:
    """Where every log ends now."""
    found = {}
    for node in nodes(home):
        with contextlib.ExitStack() as opened:
            for file in reversed(_opened(home, node, opened)):
                found[node] = Place(_mark(file), _whole(file))
                break
    return found


class Reading:
    """The logs of all nodes, read on from where somebody was: no line is missed, and none is read twice.

    Args:
        home: The directory of the venue mode.
        places: How far each node's log was read already; a node that is not named is read from its beginning.
        until: Where to stop reading each; None goes on with what comes.
    """

    def __init__(self, home: Path, places: Mapping[str, Place], *, until: Mapping[str, Place] | None = None) -> None:
        self.places = dict(places)
        self._until = until
        self.missed: set[str] = set()
        """Nodes of which lines are gone that were not read."""
        self._home = home
        self._looked: dict[str, tuple[int, int]] = {}

    def more(self, most: int = 500) -> list[Line]:
        """Lines that came since, by time as far as they come together; `places` is then where they end."""
        now = {
            node: _look(self._home, node) for node in nodes(self._home) if self._until is None or node in self._until
        }
        changed = [node for node, look in now.items() if look != self._looked.get(node)]
        coming = heapq.merge(*(self._after(node) for node in changed), key=lambda read: read[0].ts)
        found = []
        for line, node, place in islice(coming, most):
            self.places[node] = place
            found.append(line)
        if len(found) < most:
            self._looked |= {node: now[node] for node in changed}
        return found

    def _after(self, node: str) -> Iterator[tuple[Line, str, Place]]:
        with contextlib.ExitStack() as opened:
            files = [(_mark(file), file) for file in _opened(self._home, node, opened)]
            place = self.places.get(node)
            if place is not None:
                known = [mark for mark, _ in files]
                if place.file in known:
                    files = files[known.index(place.file) :]
                    files[0][1].seek(place.at)
                else:
                    self.missed.add(node)
            last = None if self._until is None else self._until[node]
            if last is not None and last.file not in {mark for mark, _ in files}:
                self.missed.add(node)  # all of it lies before what is still there
                return
            for mark, file in files:
                at = file.tell()
                for text in file:
                    if not text.endswith(b"\n"):
                        break  # it is being written, or was cut off by a crash
                    at += len(text)
                    if last is not None and mark == last.file and at > last.at:
                        return
                    line = _line(text)
                    if line is not None:
                        yield line, node, Place(mark, at)
                if last is not None and mark == last.file:
                    return  # it was put aside just there: what follows in the next file is beyond


def _look(home: Path, node: str) -> tuple[int, int]:
    try:
        seen = (home / FOLDER / f"{node}.log").stat()
    except FileNotFoundError:  # it is being put aside
        return 0, 0
    return seen.st_ino, seen.st_size


def _opened(home: Path, node: str, opened: contextlib.ExitStack) -> list[IO[bytes]]:
    """A node's files that hold a line, the oldest first, each at its beginning.

    They are opened from the newest on: while they are put aside each has a higher number, and none is passed over.
    """
    found: dict[str, IO[bytes]] = {}
    for number in range(KEPT + 1):
        path = home / FOLDER / (f"{node}.log.{number}" if number else f"{node}.log")
        with contextlib.suppress(FileNotFoundError):
            file = opened.enter_context(path.open("rb"))
            mark = _mark(file)
            if mark:
                found.setdefault(mark, file)
    return list(found.values())[::-1]


def _mark(file: IO[bytes]) -> str:
    """What tells a node's file from all others of it: its first line, which says when it was written. Empty where none is whole."""
    file.seek(0)
    first = file.readline()
    file.seek(0)
    return blake2b(first, digest_size=6).hexdigest() if first.endswith(b"\n") else ""


def _whole(file: IO[bytes]) -> int:
    """Where the last whole line of a file ends."""
    return file.seek(0, os.SEEK_END) - len(next(_backwards(file)))


# --- the story of one thing -----------------------------------------------------------------------


class Story(Struct, frozen=True):
    """All that was said of one thing, by time: the traces it belongs to, the orders it is about."""

    sought: str
    traces: tuple[str, ...]
    orders: tuple[str, ...]
    lines: tuple[Line, ...]


_BEGINNINGS = frozenset({"Signal", "SubmitOrder", "SubmitPair", "OrderSubmitted"})
"""What has the trace of whatever wanted an order. Of a fact of its later life that may be another: a paper venue's fill has
the trace of the quote that filled it."""

_SOON_S = 10
"""How long after the last line of a story others may still say something on hearing it."""


def story(home: Path, sought: str) -> Story:
    """Tell what became of one thing, from the request or the signal through risk, broker and venue to the books.

    Args:
        home: The directory of the venue mode.
        sought: A trace, a request's id, a message's id, an order's id (ours or the venue's), a trade's or a pair's.

    Returns:
        Its lines; none where nobody said anything of it.
    """
    search = _Search(home)
    search.naming(sought)
    about = search.lines()
    traces = {sought} if any(sought in {one.rest.get("trace"), one.rest.get("request_id")} for one in about) else set()
    traces |= {one.rest["trace"] for one in about if one.rest.get("id") == sought and _is_trace(one)}
    if not traces:  # from an order, or a pair, to what wanted it
        orders = {order for one in about if (order := _order(one))}
        own = {sought} | orders | {order.rpartition("-")[0] for order in orders}
        search.naming(*own)
        traces = {
            one.rest["trace"]
            for one in search.lines()
            if one.event in _BEGINNINGS and _is_trace(one) and not own.isdisjoint(map(str, _said(one).values()))
        }
    # And from what wanted it to all that came of it, whatever trace that has.
    search.naming(*traces)
    pairs = {str(_said(one)["pair_id"]) for one in search.lines() if "pair_id" in _said(one)}
    search.naming(*pairs)
    search.legs_of(*pairs)
    orders = {order for one in search.lines() if (order := _order(one))}
    search.naming(*orders)
    search.caused_by({str(one.rest["id"]) for one in search.lines() if "id" in one.rest and _order(one)})
    return Story(sought, tuple(sorted(traces)), tuple(sorted(orders)), tuple(_causes_first(search.lines())))


class _Search:
    """The lines of all logs that were found so far."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._found: dict[bytes, Line] = {}
        self._named: set[str] = set()

    def lines(self) -> list[Line]:
        """All of them, by time."""
        return sorted(self._found.values(), key=_when)

    def naming(self, *names: str) -> None:
        """Find those in which one of these stands as a value of its own."""
        new = {name for name in names if name} - self._named
        self._named |= new
        self._find([_quoted(name) for name in new])

    def legs_of(self, *pairs: str) -> None:
        """Find those of the orders of pairs: the broker counts them."""
        self._find([_quoted(f"{pair}-")[:-1] for pair in pairs])

    def caused_by(self, ids: set[str]) -> None:
        """Find what was said on hearing these; while the story goes on, and soon after."""
        lines = self.lines()
        if not lines:
            return
        since, until = lines[0].ts, _later(lines[-1].ts, _SOON_S)
        for whole in self._files():
            for text in whole[_begins(whole, since) : _begins(whole, until)].splitlines():
                line = _line(text)
                if line is not None and line.rest.get("cause") in ids:
                    self._found[text] = line

    def _find(self, needles: Sequence[bytes]) -> None:
        for whole in self._files() if needles else ():
            for needle in needles:
                at = whole.find(needle)
                while at >= 0:
                    end = whole.find(b"\n", at)
                    text = whole[whole.rfind(b"\n", 0, at) + 1 : end if end >= 0 else len(whole)]
                    line = _line(text)
                    if line is not None:
                        self._found[text] = line
                    at = whole.find(needle, end) if end >= 0 else -1

    def _files(self) -> Iterator[bytes]:
        for node in nodes(self._home):
            for path in _files(self._home, node):
                with contextlib.suppress(FileNotFoundError):
                    yield path.read_bytes()


_WRITTEN_AT = re.compile(rb'"ts":"([^"]+)"')


def _begins(whole: bytes, ts: str) -> int:
    """Where the first line of a file begins that was written at a time or after it."""
    low, high = 0, len(whole)
    while low < high:
        middle = whole.rfind(b"\n", low, (low + high) // 2) + 1 or low
        end = whole.find(b"\n", middle)
        end = len(whole) if end < 0 else end + 1
        said = _WRITTEN_AT.search(whole, middle, end)
        if said is not None and said[1].decode() < ts:
            low = end
        else:
            high = middle
    return low


def _later(ts: str, seconds: float) -> str:
    try:
        then = datetime.fromisoformat(ts)
    except ValueError:  # no line of ours
        return ts
    return (then + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def _causes_first(lines: Sequence[Line]) -> Iterator[Line]:
    """The same by time, but nothing before what set it going: who is told is often quicker to write than who said it."""
    said = {line.rest["id"]: line for line in lines if "id" in line.rest}
    told: set[int] = set()
    for line in lines:
        before = [line]
        while (cause := said.get(before[-1].rest.get("cause"))) is not None and cause not in before:
            before.append(cause)
        for one in reversed(before):
            if id(one) not in told:
                told.add(id(one))
                yield one


def _quoted(name: str) -> bytes:
    return msgspec.json.encode(name)


def _said(line: Line) -> Mapping[str, Any]:
    said = line.rest.get("said")
    return said if isinstance(said, Mapping) else {}


def _order(line: Line) -> str:
    """The order that a line is about; empty where it is about none."""
    return str(_said(line).get("client_order_id") or "")


def _is_trace(line: Line) -> bool:
    """Whether its trace is one thing's alone: what a component says of itself, when its time has come, has that of all such."""
    trace = line.rest.get("trace")
    return bool(trace) and not str(trace).endswith(":0")
