"""Who may send: one process at a time, and none whose successor has begun.

Two belts. A lock on a file, which the kernel lets go of when its holder dies, keeps a successor from beginning beside its
predecessor. A number in another, the epoch, outdates a predecessor that is not quite dead: it is read before each request
that changes anything, and once a higher one is written nothing is sent any more, ever. What was waiting then is answered
with nothing: it may have been told to the successor already, which looks every order up that it does not know the fate of.
"""

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hean.errors import VenueError

_POLL_S = 0.02


def write_epoch(directory: Path, epoch: int) -> None:
    """Begin an epoch: whoever holds the fence of an earlier one sends nothing from now on.

    It is on the disk when this returns, and there is no moment without a number.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix="epoch-", dir=directory)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"{epoch}\n")
        file.flush()
        os.fsync(file.fileno())
    Path(path).replace(directory / "epoch")
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FencedError(VenueError):
    """A later epoch has begun: nothing was sent."""


class Fence:
    """The right to send, of one process in one epoch.

    Args:
        directory: Where the lock and the epoch are.
        epoch: Whose right it is.
        wait_s: How long a predecessor may take to let go.

    Raises:
        VenueError: Somebody else holds the lock.
        FencedError: This epoch is over already, or its file cannot be read.
    """

    def __init__(self, directory: Path, epoch: int, *, wait_s: float = 10.0) -> None:
        self.epoch = epoch
        self._epoch_file = directory / "epoch"
        self._lock_file = directory / "sender.lock"
        self._mutex = threading.Lock()
        self._lost = ""
        self._sending = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._file: int | None = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._lock(self._file, wait_s)
            self.check()
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            self.release()
            raise

    def holds(self) -> bool:
        """Whether requests may still be sent. Once lost it stays lost; an epoch that cannot be read is a lost one."""
        if not self._lost:
            self._lost = self._loss()
        return not self._lost

    @property
    def reason(self) -> str:
        """Why nothing may be sent; empty while it may."""
        return self._lost

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Around each request. Once the right is lost, the lock is let go of when the last that was under way is over.

        Raises:
            FencedError: The right is lost, and nothing may be sent.
        """
        with self._mutex:
            self._sending += 1
        try:
            self.check()
            yield
        finally:
            with self._mutex:
                self._sending -= 1
                let_go = bool(self._lost) and not self._sending
            if let_go:
                self.release()

    def check(self) -> None:
        """Look once more, as late as can be.

        Raises:
            FencedError: The right is lost.
        """
        if not self.holds():
            raise FencedError(self._lost)

    def release(self) -> None:
        """Let go: nothing may be sent from here any more."""
        with self._mutex:
            file, self._file = self._file, None
            self._lost = self._lost or "the fence was let go of"
        if file is not None:
            os.close(file)

    def _loss(self) -> str:
        try:
            written = int(self._epoch_file.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            return f"the epoch in {self._epoch_file} cannot be read: {error}"
        return f"epoch {written} has begun, this is epoch {self.epoch}" if written > self.epoch else ""

    def _lock(self, file: int, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(file, 32, 0).decode("ascii", "replace").strip() or "unknown"
                    raise VenueError(
                        f"{self._lock_file} is held by process {holder}, which may still be sending: end it, and start again"
                    ) from None
                time.sleep(_POLL_S)
            else:
                return
