"""What time it is on the venue."""

import time
from collections.abc import Callable


class Clock:
    """The time of this machine, nanoseconds: it never goes back, and never stands still.

    Where the machine's is put back, it goes on at half its pace until that has caught up. Where it is put forward, or the
    machine has slept, it goes along at once.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall = wall
        self._steady = steady
        self._ts, self._ts_steady = wall(), steady()

    def __call__(self) -> int:
        before, self._ts_steady = self._ts_steady, self._steady()
        self._ts = max(self._wall(), self._ts + (self._ts_steady - before) // 2)
        return self._ts
