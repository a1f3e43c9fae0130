"""Processes that outlive the command which started them, and are known again by a mark in their environment.

A pid says little: it may be somebody else's by now. A mark is drawn for each start and handed down to every child, so
whoever carries it is ours, and nobody else is ever ended.
"""

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
from msgspec import Struct

Tell = Callable[[str], None]
"""Who is told each step, in words."""

MARK = "HEAN_MARK"
# Of the engine and of its gateways: what else is started here has no business with them.
_SECRETS = ("BYBIT_",)
_BEGIN_S = 2.0
_QUIET_LOOKS = 2


class Detached(Struct, frozen=True):
    """A process that was started here: its pid, and the mark that tells it from whoever gets that pid later."""

    pid: int
    mark: str


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without the venue's keys, and without the mark of whoever started us."""
    return {
        name: value for name, value in environment.items() if not name.upper().startswith(_SECRETS) and name != MARK
    }


def launch(command: list[str], *, environment: Mapping[str, str], log: Path) -> Detached:
    """Start a process in a session of its own; what it prints is added to `log`.

    Args:
        command: What to run; its first word is the path of a program.
        environment: All that it inherits, but for the mark.
        log: Where its output goes; only its owner may read it.

    Raises:
        OSError: There is no such program, or the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    pid = os.posix_spawn(
        command[0],
        command,
        {**environment, MARK: mark},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = Detached(pid, mark)
    # For a moment the new program has no environment yet; one that has ended already has none any more.
    limit = time.monotonic() + _BEGIN_S
    while not is_alive(process) and not _is_over(pid) and time.monotonic() < limit:
        time.sleep(0.005)
    return process


def python(*arguments: str) -> list[str]:
    """A command of this very Python."""
    return [sys.executable, *arguments]


def is_alive(process: Detached) -> bool:
    """Whether it still runs, and is still ours."""
    try:
        found = psutil.Process(process.pid)
        return bool(found.status() != psutil.STATUS_ZOMBIE and found.environ().get(MARK) == process.mark)
    except psutil.Error:
        return False


def marked(mark: str) -> Iterator[psutil.Process]:
    """Every living process that carries a mark: what was started with it, and all that came of it."""
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                yield process
        except psutil.Error:  # gone meanwhile, or not ours to look at
            continue


def end(mark: str, patience_s: float) -> int:
    """End all that carries a mark: ask first, then insist. Says how many there were."""
    asked = list(marked(mark))
    for process in asked:
        _tell(process, kill=False)
    deadline = time.monotonic() + patience_s
    # Not `psutil.wait_procs`: it takes a zombie for a living process.
    while (left := list(marked(mark))) and time.monotonic() < deadline:
        time.sleep(0.1)
    quiet = 0
    while quiet < _QUIET_LOOKS:  # one that is just being started carries no mark for a moment
        for process in left:
            _tell(process, kill=True)
        time.sleep(0.02)
        left = list(marked(mark))
        quiet = 0 if left else quiet + 1
    return len(asked)


def _is_over(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def _tell(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.Error:
        return
