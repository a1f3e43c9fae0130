"""What the monitor remembers, brought to the engine only while somebody asks for it."""

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayError

from actors.words import History

EVERY_S = 1.0
"""Between two errands to the monitor."""

ASKED_S = 10.0
"""For so long after it was asked for, it is kept fresh."""


class Archive:
    """Keeps the last history that was brought. Whoever asks first may wait for it; who brings it never does."""

    def __init__(self) -> None:
        self._there = threading.Condition()
        self._last = History(0, (), (), ())
        self._brought = -ASKED_S
        self._asked = -ASKED_S
        self._sent = -EVERY_S
        self._under_way: Any = None

    def get(self, patience_s: float = 2.0) -> History:
        """The history as it was brought last; where that is long ago, a fresh one is waited for a little."""
        with self._there:
            self._asked = time.monotonic()
            self._there.wait_for(lambda: time.monotonic() - self._brought < ASKED_S, patience_s)
            return self._last

    def bring(self, ask: Callable[[], Any]) -> None:
        """Fetch what is there by now, and send out anew if somebody asked of late.

        Args:
            ask: Asks the monitor, and gives the reference of its answer.
        """
        now = time.monotonic()
        if self._under_way is not None:
            if not ray.wait([self._under_way], timeout=0)[0]:
                return
            self._take()
        if now - self._asked < ASKED_S and now - self._sent >= EVERY_S:
            self._sent, self._under_way = now, ask()

    def _take(self) -> None:
        arrived, self._under_way = self._under_way, None
        try:
            found: History = ray.get(arrived)
        except RayError:
            return  # the monitor died over it: its successor is asked
        with self._there:
            self._last, self._brought = found, time.monotonic()
            self._there.notify_all()
