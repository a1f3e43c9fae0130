"""Everything in the foreground: begun, looked after, and ended in order by a signal.

It is what a container runs, and `hean demo`. Whatever of it dies is begun anew by the same path as everything was; the
engine looks after its actors itself. It speaks to Ray only while it begins or ends something: Ray ends whoever is
connected to it when it dies.
"""

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from msgspec import Struct

from actors import cluster, detached, files, front, up
from actors.detached import Detached, Tell
from actors.front import Doors
from actors.heartbeat import last_beat
from actors.words import EngineView
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError, HeanError
from hean.units import SECOND

PROMETHEUS = "prometheus.json"
PROMETHEUS_PORT = 9091

_LOCK = "foreground.lock"
_DEMO = "demo"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 2.0
_REST_S = 5.0
_BEAT_S = 5.0
_SILENT_S = 30.0
_ENDING_S = 180.0
_END_S = 5.0


class Asked:
    """Whether somebody asked for the end. Heard between two steps, when everything begun is written down."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self._event.set()


class EndAskedError(Exception):
    """Somebody asked for the end while everything was being begun."""


class Wanted(Struct, frozen=True):
    """What is to run in the foreground.

    Args:
        home: The home directory.
        settings: Of the run.
        doors: Through what it is to be seen.
        keys: A file with the account's key; None where it lies in the home already.
        set_by: Who set each setting.
        prometheus: The configuration of a Prometheus that runs beside it; None is without.
        object_store_mb: How much memory Ray's objects may take; as much as Ray likes where not given.
        wait_s: How long the engine may take to the end of its start, before that is said.
        fresh: Whether what an earlier demonstration left in the home is ended and deleted first.
    """

    home: Path
    settings: EngineSettings
    doors: Doors
    keys: Path | None = None
    set_by: Mapping[str, str] = {}
    prometheus: Path | None = None
    object_store_mb: int | None = None
    wait_s: float = 120.0
    fresh: bool = False


def run(wanted: Wanted, say: Tell, began: Callable[[EngineView | None], None]) -> None:
    """Begin everything, look after it, and end it when a signal comes.

    Args:
        wanted: What.
        say: Is told each step, and what becomes of it.
        began: Is told once that all that can run does.

    Raises:
        HeanError: Something cannot be begun; what was begun until then is ended, unless it ran before.
    """
    home = wanted.home
    with _alone(home), _asked() as asked:

        def tell(step: str) -> None:
            if asked:
                raise EndAskedError
            say(step)

        if wanted.fresh:
            _clear(home, say)
        ran_before = cluster.is_running(home)
        try:
            began(_begin(wanted, tell))
            _look_after(wanted, asked, tell)
        except EndAskedError:
            say("ending everything in order: that takes some seconds")
            _end(home, say)
        except BaseException:
            if not ran_before:
                _end(home, say)
            raise


def ask_to_end(home: Path, tell: Tell) -> bool:
    """Have the one that looks after a home in the foreground end everything. Says whether there was one.

    Raises:
        HeanError: It does not end.
    """
    lock = home / _LOCK
    if not lock.exists():
        return False
    with lock.open("r+") as file:
        if _locked(file.fileno()):
            return False
        tell("asking the one in the foreground to end")
        os.kill(int(file.read()), signal.SIGTERM)
        deadline = time.monotonic() + _ENDING_S
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise HeanError(f"whoever looks after {home} in the foreground does not end within {_ENDING_S:g} s")
            time.sleep(0.2)
    return True


def _begin(wanted: Wanted, tell: Tell) -> EngineView | None:
    """Begin what does not run, and wait for the engine; the last view of it."""
    home = wanted.home
    try:
        front.check(home, wanted.doors)
        up.begin(
            home,
            wanted.settings,
            wanted.keys,
            tell,
            set_by=wanted.set_by,
            object_store_mb=wanted.object_store_mb,
        )
        for trouble in front.begin(home, wanted.doors, tell):
            tell(trouble)
        if wanted.prometheus is not None:
            _begin_prometheus(home, wanted.prometheus, tell)
        return up.wait_until_running(home, wanted.wait_s, lambda view: tell(up.progress(view)))
    finally:
        cluster.leave()


def _end(home: Path, say: Tell) -> None:
    known = files.read(home / PROMETHEUS, Detached)
    if known is not None:
        say("ending Prometheus")
        detached.end(known.mark, _END_S)
        (home / PROMETHEUS).unlink(missing_ok=True)
    up.end(home, say)


def _look_after(wanted: Wanted, asked: Asked, tell: Tell) -> None:
    """Begin anew whatever has died, until the end is asked for.

    Raises:
        EndAskedError: It was.
    """
    silent: dict[str, float] = {}
    while not asked.wait(_LOOK_S):
        around = up.surroundings(wanted.home)
        parts = {
            "Ray": around.ray,
            "the exchange": around.exchange,
            "the watchdog": around.watchdog,
            "the page": front.has_page(wanted.home),
        }
        gone = [name for name, runs in parts.items() if runs is False]
        # Ray begins the engine anew, and Serve its own parts; and who is busy answers late: they are given some time.
        beats = {"the engine": _beats(wanted.home), "the API": around.api, "the page": around.page}
        quiet = [name for name, answers in beats.items() if answers is False]
        silent = {name: silent.get(name, time.monotonic()) for name in quiet}
        gone += [name for name, since in silent.items() if time.monotonic() - since > _SILENT_S]
        if not gone:
            continue
        tell(f"{' and '.join(gone)}: gone; beginning anew")
        silent = {}
        try:
            _begin(wanted, tell)
        except EndAskedError:
            raise
        except Exception as trouble:  # noqa: BLE001 (nobody comes after us: whatever it was, it is tried again)
            tell(f"that failed: {trouble}; trying again")
            asked.wait(_REST_S)
    raise EndAskedError


# --- Prometheus ------------------------------------------------------------------------------------


def _beats(home: Path) -> bool | None:
    """Whether the engine's heart beats; None where it has ended in order, or has not begun to beat."""
    beat = last_beat(up.mode_folder(home))
    if beat is None or beat.stopped:
        return None
    return (time.time_ns() - beat.ts) / SECOND < _LOOK_S + _BEAT_S


def prometheus_url(home: Path) -> str | None:
    """Where the one beside it is; None where there is none."""
    known = files.read(home / PROMETHEUS, Detached)
    return f"http://127.0.0.1:{PROMETHEUS_PORT}" if known is not None and detached.is_alive(known) else None


def _begin_prometheus(home: Path, config: Path, tell: Tell) -> None:
    """Start it on loopback where it is installed; it is for looking, so nothing hangs on it."""
    known = files.read(home / PROMETHEUS, Detached)
    if known is not None and detached.is_alive(known):
        return
    program = shutil.which("prometheus")
    if program is None:
        tell("Prometheus is not installed (Debian: apt-get install prometheus): going on without")
        return
    if not front.is_free(PROMETHEUS_PORT):
        tell(f"port {PROMETHEUS_PORT} is taken: going on without Prometheus")
        return
    tell("starting Prometheus")
    folder = home / "prometheus"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}", "--storage.tsdb.retention.time=2d"]
    started = detached.launch(command, environment=detached.scrubbed(os.environ), log=folder / "prometheus.out")
    files.write(home / PROMETHEUS, started)


# --- one at a time ---------------------------------------------------------------------------------


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a+") as file:
        if not _locked(file.fileno()):
            raise ConfigError(f"{home} is looked after in the foreground already: end that one first")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
        file.truncate(0)


@contextmanager
def _asked() -> Iterator[Asked]:
    """Hear every signal that means the end, also where whoever started us ignores it."""
    asked = Asked()
    before = {number: signal.signal(number, asked.note) for number in _SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(home: Path, say: Tell) -> None:
    """Begin a demonstration from nothing. Only what a demonstration made is deleted.

    Raises:
        ConfigError: There is something else in the directory.
    """
    mark = home / _DEMO
    left = [path for path in home.iterdir() if path.name != _LOCK]
    if left and not mark.exists():
        raise ConfigError(f"{home} is not a demonstration's: take another --home")
    if left:
        _end(home, say)
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    mark.touch()
