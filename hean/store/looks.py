"""Who has looked at which days out of sample: a line for every evaluation, kept with the data that were looked at.

A test that was looked at is no longer unseen: whoever evaluates again on its days has learnt from it.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hean.errors import DataError

NAME = "looks.jsonl"


class Look(msgspec.Struct, frozen=True):
    """An evaluation: what it is known by, what was run, and how many trials it chose among.

    `tests` are the periods that were looked at, UTC nanoseconds, `markets` whose: `BYBIT BTCUSDT`. `by` is whatever was
    tried: the names of the strategies.
    """

    evaluation: str
    by: tuple[str, ...]
    markets: tuple[str, ...]
    tests: tuple[tuple[int, int], ...]
    trials: int

    def meets(self, other: "Look") -> bool:
        """Whether both have looked at some day of the same market."""
        if not set(self.markets) & set(other.markets):
            return False
        return any(a < d and c < b for a, b in self.tests for c, d in other.tests)


def note(root: Path, look: Look) -> list[Look]:
    """Write a look down, once for each evaluation, and return all that have met it, itself included.

    Args:
        root: The directory of the data.
        look: Who looks, before anything is shown.

    Raises:
        DataError: What was written before cannot be read, or this cannot be written.
    """
    path = root / NAME
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            known = [msgspec.json.decode(line, type=Look) for line in file.read().splitlines() if line.strip()]
            if look.evaluation not in {one.evaluation for one in known}:
                file.write(msgspec.json.encode(look) + b"\n")
                file.flush()
                os.fsync(file.fileno())
                known.append(look)
    except msgspec.DecodeError as damage:
        raise DataError(f"it cannot be read: {damage}", file=str(path), remedy="mend or move it") from damage
    except OSError as error:
        raise DataError(f"it cannot be written: {error.strerror}", file=str(path)) from error
    return _meeting(known, look)


def _meeting(known: Iterable[Look], look: Look) -> list[Look]:
    return [one for one in known if one.meets(look)]
