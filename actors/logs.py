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
_TELLING = re.compile(r"(?i)(secret|token|passw|api_?key|private_?key|signature|authorization|phrase|^sign$)")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
# Bybit's secrets are 36 letters and digits; an id of ours has dashes, and a digest no capitals.
_RANDOM = re.compile(r"(?<![\w-])(?=\w*[a-z])(?=\w*[A-Z])(?=\w*\d)[A-Za-z0-9]{32,}(?![\w-])")
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
                name: HIDDEN if isinstance(name, str) and _TELLING.search(name) and inner else redacted(inner)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [redacted(inner) for inner in value]
        case _:
            return value


def _without_secrets(text: str) -> str:
    for secret in _known:
        text = text.replace(secret, HIDDEN)
    return _RANDOM.sub(HIDDEN, _PEM.sub(HIDDEN, text))


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


class Wanted(Struct, frozen=True):
    """Which lines: of these nodes (all if none is named), of this trace, of this level and above."""

    nodes: tuple[str, ...] = ()
    trace: str = ""
    level: str = "debug"

    def takes(self, line: Line) -> bool:
        return (
            (not self.nodes or line.node in self.nodes)
            and (not self.trace or self.trace in {line.rest.get("trace"), line.rest.get("id"), line.rest.get("cause")})
            and (line.level not in LEVELS or LEVELS.index(line.level) >= LEVELS.index(self.level))
        )


def nodes(home: Path) -> list[str]:
    """Whose logs there are."""
    return sorted(path.stem for path in (home / FOLDER).glob("*.log"))


def merged(home: Path, wanted: Wanted) -> Iterator[Line]:
    """What was written so far, by time."""
    yield from heapq.merge(*(_lines(_files(home, node), wanted) for node in nodes(home)), key=lambda line: line.ts)


def followed(home: Path, wanted: Wanted, *, poll_s: float = 0.25) -> Iterator[Line]:
    """What is written from now on, for ever; by time as far as it comes together."""
    tails = {node: _Tail(home / FOLDER / f"{node}.log", from_end=True) for node in nodes(home)}
    try:
        while True:
            for node in nodes(home):
                if node not in tails:
                    tails[node] = _Tail(home / FOLDER / f"{node}.log", from_end=False)
            found = [line for tail in tails.values() for text in tail.more() if (line := _line(text)) is not None]
            yield from sorted((line for line in found if wanted.takes(line)), key=lambda line: line.ts)
            time.sleep(poll_s)
    finally:
        for tail in tails.values():
            tail.close()


class _Tail:
    """The end of a file that grows, and may be put aside for a new one."""

    def __init__(self, path: Path, *, from_end: bool) -> None:
        self._path = path
        self._file = self._opened()
        self._rest = b""
        if self._file is not None and from_end:
            self._file.seek(0, os.SEEK_END)

    def more(self) -> list[bytes]:
        """Whole lines that came since."""
        read = self._read()
        # The old file is read to its end before the new one is begun.
        if self._is_replaced():
            read += self._read()
            self.close()
            self._file = self._opened()
            read += self._read()
        *lines, self._rest = (self._rest + read).split(b"\n")
        return lines

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> bytes:
        return b"" if self._file is None else self._file.read()

    def _opened(self) -> IO[bytes] | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

    def _is_replaced(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return self._file is None or os.fstat(self._file.fileno()).st_ino != there.st_ino


def _files(home: Path, node: str) -> list[Path]:
    """A node's files, the oldest first."""
    newest = home / FOLDER / f"{node}.log"
    older = [path for path in newest.parent.glob(f"{node}.log.*") if path.suffix[1:].isdigit()]
    return [*sorted(older, key=lambda path: -int(path.suffix[1:])), newest]


def _lines(files: Sequence[Path], wanted: Wanted) -> Iterator[Line]:
    for path in files:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            for text in file:
                line = _line(text)
                if line is not None and wanted.takes(line):
                    yield line


def _line(text: bytes) -> Line | None:
    """A line as it was written; None for one that was cut off by a crash."""
    try:
        told = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    ts, node, level, event = (str(told.pop(name, "")) for name in ("ts", "node", "level", "event"))
    return Line(ts, node, level, event, told)
