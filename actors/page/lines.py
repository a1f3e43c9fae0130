"""Lines of the log as people read them: when, who, how grave, what, and in a few words what was said. Never as markup."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from actors.page.words import instant, plain

LEVELS = ("debug", "info", "warning", "error", "critical")

_NOT_WORDS = frozenset(
    {"id", "trace", "cause", "said", "life", "request_id", "exception", "ts", "node", "level", "event", "rest"}
)
_LONG = 600


class LogLine(Struct, frozen=True):
    """One line. `key` is the same for the same line, however it came; `raw` is the line as it was written."""

    key: str
    at: float | None
    node: str
    level: str
    event: str
    words: str
    trace: str
    raw: dict[str, Any]

    def names(self, text: str) -> bool:
        """Whether a text, in small letters, is somewhere in it."""
        return text in f"{self.node} {self.event} {self.words} {self.trace}".lower()

    def is_at_least(self, level: str) -> bool:
        return self.level not in LEVELS or LEVELS.index(self.level) >= LEVELS.index(level)

    def is_of(self, trace: str) -> bool:
        """Whether it names a trace, a request, a message or an order, by its whole name or by its beginning."""
        return any(str(value).startswith(trace) for value in _leaves(self.raw))


def read(line: Mapping[str, Any]) -> LogLine:
    """A line as the API tells it: what is not of every line is in `rest`, or beside the others."""
    rest = line.get("rest")
    more = (
        dict(rest)
        if isinstance(rest, Mapping)
        else {name: value for name, value in line.items() if name not in {"ts", "node", "level", "event"}}
    )
    ts, node, event = (str(line.get(name, "")) for name in ("ts", "node", "event"))
    raw = {"ts": ts, "level": str(line.get("level", "")), "node": node, "event": event, **more}
    return LogLine(
        key=f"{ts} {node} {event} {more.get('id', '')}",
        at=instant(ts),
        node=node,
        level=raw["level"] or "info",
        event=event,
        words=_words(more),
        trace=str(more.get("trace") or more.get("request_id") or ""),
        raw=raw,
    )


def written(line: LogLine) -> str:
    """The line as JSON, as it stands in the file."""
    return msgspec.json.encode(line.raw, enc_hook=repr).decode()


def _words(more: Mapping[str, Any]) -> str:
    said = more.get("said")
    parts = (
        [f"{name} {plain(value)}" for name, value in said.items() if not _is_nothing(value)]
        if isinstance(said, Mapping)
        else []
    )
    parts += [
        f"{name} {plain(value)}" for name, value in more.items() if name not in _NOT_WORDS and not _is_nothing(value)
    ]
    if failure := _failure(more.get("exception")):
        parts.append(failure)
    words = ", ".join(parts)
    return words if len(words) <= _LONG else words[:_LONG] + " …"


def _failure(told: Any) -> str:
    """The last line of a traceback says what it was."""
    if isinstance(told, str):
        return told.strip().rpartition("\n")[2]
    if isinstance(told, list) and told and isinstance(told[-1], Mapping):
        return f"{told[-1].get('exc_type', '')}: {told[-1].get('exc_value', '')}".strip(": ")
    return ""


def _is_nothing(value: Any) -> bool:
    return value is None or value in ("", [], {}, ())


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list | tuple):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]
