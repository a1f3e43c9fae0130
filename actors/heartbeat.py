"""The engine's heartbeat: a small file, written anew about each second, that the watchdog outside Ray looks at."""

import threading
import time
from pathlib import Path

import msgspec
from msgspec import Struct

FILE = "heartbeat.json"


class Beat(Struct, frozen=True):
    """The engine as of `ts`. `exposed` is whether anything is held or rests, None while that is not known.

    `stopped` after an end in order: no beat is to be expected.
    """

    ts: int
    phase: str
    exposed: bool | None
    stopped: bool


class Heartbeat:
    """Writes the file, whole or not at all."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE
        self._lock = threading.Lock()
        self._stopped = False

    def beat(self, phase: str, *, exposed: bool | None) -> None:
        with self._lock:
            if not self._stopped:
                self._write(Beat(time.time_ns(), phase, exposed, stopped=False))

    def stop(self) -> None:
        """The last beat: nobody need wait for another."""
        with self._lock:
            self._stopped = True
            self._write(Beat(time.time_ns(), "STOPPED", None, stopped=True))

    def _write(self, beat: Beat) -> None:
        made = self._path.with_suffix(".new")
        made.write_bytes(msgspec.json.encode(beat))
        made.replace(self._path)


def last_beat(home: Path) -> Beat | None:
    """The last beat; None where there never was one, or it cannot be read."""
    try:
        return msgspec.json.decode((home / FILE).read_bytes(), type=Beat)
    except (OSError, msgspec.DecodeError):
        return None
