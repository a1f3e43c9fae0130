"""What the actors do, as lines of JSON: one file a node, in the `logs` directory of its venue mode."""

import json
import logging
import logging.handlers
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from hean.messages import Envelope

_BYTES = 10_000_000
_FILES = 3


class NodeLog:
    """The log of one node in one of its lives.

    Args:
        home: The directory of the venue mode.
        node: Whose log it is.
        incarnation: Which of its lives.
    """

    def __init__(self, home: Path, node: str, incarnation: int) -> None:
        self._fixed = {"node": node, "life": incarnation}
        path = home / "logs" / f"{node}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = logging.handlers.RotatingFileHandler(path, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def said(self, envelopes: Sequence[Envelope]) -> None:
        """Log what a component said, each with its id, its trace and its cause."""
        for envelope in envelopes:
            message = msgspec.to_builtins(envelope.message, enc_hook=str)
            event = message.pop("type")
            self._write("info", event, {"id": envelope.id, "trace": envelope.trace, "cause": envelope.cause, **message})

    def died(self, failure: BaseException) -> None:
        """Log what ended the process, with where it came from."""
        import traceback

        self._write(
            "error", "died", {"error": repr(failure), "traceback": "".join(traceback.format_exception(failure))}
        )
        self._file.flush()

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        line = {"ts": time.time_ns(), "level": level, **self._fixed, "event": event, **fields}
        self._file.emit(logging.makeLogRecord({"msg": json.dumps(line, default=str)}))
