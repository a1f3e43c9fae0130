"""A process outside Ray that flattens when the engine's heart has stopped: `python -m actors.watchdog HOME`.

It looks at one small file. An engine that ends in order says so there, and then nothing is done; one that falls silent while
something is held or rests, or while that is not known, is given some time, and then everything is closed without it.
"""

import argparse
import fcntl
import sys
import time
from collections.abc import Callable
from pathlib import Path

from actors.heartbeat import Beat, last_beat
from actors.logs import NodeLog

SILENCE_S = 30.0
NAME = "watchdog"
_LOOK_S = 0.5
_RETRY_S = 5.0


class Watch:
    """When to act. Reads no clock and no file: it is told what is seen, and when.

    Args:
        silence_s: How long the heart may be still.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._last: Beat | None = None
        self._since = 0.0
        self._acted = False

    def is_due(self, beat: Beat | None, now: float) -> bool:
        """Whether it is time to close everything, once for each silence.

        Args:
            beat: The last beat that can be read; None where there is none.
            now: Seconds by a clock that stands still while the machine sleeps: whoever was asleep with it is not silent.
        """
        if beat is not None and (self._last is None or beat.ts != self._last.ts):
            self._last, self._since, self._acted = beat, now, False
        last = self._last
        if last is None or last.stopped or last.exposed is False or self._acted:
            return False
        self._acted = now - self._since > self._silence_s
        return self._acted

    def silent_s(self, now: float) -> float:
        return now - self._since


def guard(home: Path, silence_s: float, act: Callable[[str], bool], log: NodeLog) -> None:
    """Watch for ever.

    Args:
        home: The directory of the venue mode.
        silence_s: How long the heart may be still.
        act: Closes everything, for the reason it is given; False where it could not, and has to be tried again.
        log: Where everything is written down.
    """
    watch = Watch(silence_s)
    log.info("watching", silence_s=silence_s)
    while True:
        now = time.monotonic()
        if watch.is_due(last_beat(home), now):
            reason = f"the engine has not been heard of for {watch.silent_s(now):.0f} s"
            log.error("flattening", reason=reason)
            while not act(reason):
                time.sleep(_RETRY_S)
        time.sleep(_LOOK_S)


def _flatten(home: Path, log: NodeLog) -> Callable[[str], bool]:
    from actors.last_resort import out

    def act(reason: str) -> bool:
        try:
            done = out(home, NAME, reason, tell=lambda step: log.warning("step", step=step))
        except Exception as trouble:  # noqa: BLE001 (nobody comes after us: whatever it was, it is tried again)
            log.warning("cannot flatten", trouble=f"{type(trouble).__name__}: {trouble}")
            return False
        log.error("flattened", closed=[[name, str(size)] for name, size in done.closed], left=list(done.left))
        return True

    return act


def main() -> None:
    """Watch over one home, the only one to do so."""
    parser = argparse.ArgumentParser(prog="python -m actors.watchdog", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--silence", type=float, default=SILENCE_S, metavar="SECONDS")
    given = parser.parse_args()
    with (given.home / f"{NAME}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{given.home} has a watchdog already")
        log = NodeLog(given.home, NAME)
        guard(given.home, given.silence, _flatten(given.home, log), log)


if __name__ == "__main__":
    main()
