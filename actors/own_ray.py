"""The Ray that a command's backtests run on: one of its own, gone with it, or somebody's cluster."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

_LONGEST_TEMP = 16  # of a path to a socket Linux takes 107 letters, and Ray makes the rest


def workers_at(address: str | None, workers: int | None) -> AbstractContextManager[None]:
    """Ray, for as long as a command needs it.

    Args:
        address: Of somebody's cluster, host:port; None begins one on this machine.
        workers: Backtests at a time, on this machine; one to a processor where not given.

    Raises:
        HeanError: It does not start, or does not take us in.
    """
    return _joined(address) if address is not None else _of_its_own(workers)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _of_its_own(workers: int | None) -> Iterator[None]:
    """A Ray of this command: on loopback, behind a token nobody else has, without the venue's keys, and gone with it."""
    from actors.cluster import environment
    from actors.detached import scrubbed
    from actors.gateways.compute import SECRETS

    above = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="hean-", dir=above if len(above) <= _LONGEST_TEMP else "/tmp"))  # noqa: S108
    inherited = dict(os.environ)
    # Backtests may give way to whatever else this machine does: they stay as nice as Ray makes them.
    own = {name: value for name, value in environment(folder).items() if name != "RAY_worker_niceness"}
    handed_down = {name: value for name, value in scrubbed(inherited).items() if not name.startswith(SECRETS)}
    os.environ.clear()
    os.environ.update({**handed_down, **own, "RAY_task_oom_retries": "3"})
    try:
        _init("local", num_cpus=workers, include_dashboard=False, _temp_dir=str(folder / "r"))
        yield
    finally:
        import ray

        ray.shutdown()
        os.environ.clear()
        os.environ.update(inherited)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """Somebody's cluster: HEAN, the same, must be installed on each of its nodes."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    _init(address)
    try:
        yield
    finally:
        import ray

        ray.shutdown()


def _init(address: str, **options: Any) -> None:
    import logging

    import ray

    from hean.errors import HeanError

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as refusal:  # Ray raises whatever it likes, plain exceptions among it
        said = next((line.strip() for line in str(refusal).splitlines() if line.strip()), type(refusal).__name__)
        raise HeanError(f"Ray at {address} does not start, or does not take us in: {said}") from refusal
