"""What people see the engine through: the API on Ray Serve and the page, begun beside it, found again, and ended.

The engine needs neither. Whatever keeps them from beginning is said in words, and trading goes on. Serve begins its own
parts anew when they die; a page that died is begun anew by whoever says `hean up`, or by the one in the foreground.
"""

import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

from msgspec import Struct

from actors import cluster, detached
from actors.detached import Detached, Tell
from actors.files import read, write
from hean.errors import ConfigError, HeanError

FRONT = "front.json"
API_TOKEN = "api.token"  # noqa: S105 (the name of a file)
API_PORT = 8000
PAGE_PORT = 3000

_PAGE_S = 60.0
_END_S = 5.0
_LOOK_S = 2.0


class Doors(Struct, frozen=True):
    """Through what the engine is to be seen.

    Args:
        api: Whether there is an API.
        page: Whether there is a page; it shows what the API says, so without that there is none.
        api_port: Where the API listens, on loopback; None is where it did before, or 8000.
        page_port: Likewise for the page; None is where it did before, or 3000.
        hosts: Further names both may be called by, where something stands before them.
    """

    api: bool = True
    page: bool = True
    api_port: int | None = None
    page_port: int | None = None
    hosts: tuple[str, ...] = ()


class Door(Struct, frozen=True):
    """One that was opened: its port, and the process where it has one of its own (the API lives in Ray)."""

    port: int
    process: Detached | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Front(Struct, frozen=True):
    """What was opened last in a home, and not ended since."""

    api: Door | None = None
    page: Door | None = None


def known(home: Path) -> Front:
    """What was opened here last; whether it answers is not said."""
    return read(home / FRONT, Front) or Front()


def check(home: Path, doors: Doors) -> None:
    """See that each port is free, or is ours already: before anything is begun.

    Raises:
        ConfigError: One is taken, or what is asked for does not go together.
    """
    before = known(home)
    if doors.page and not doors.api:
        raise ConfigError("--no-api: the page shows what the API says; say --no-page as well")
    if doors.api:
        _check_port(home, "api", before.api, doors.api_port, API_PORT, is_ours=cluster.is_running(home))
    if doors.page:
        ours = before.page is not None and _is_alive(before.page)
        _check_port(home, "page", before.page, doors.page_port, PAGE_PORT, is_ours=ours)


def begin(home: Path, doors: Doors, tell: Tell) -> tuple[str, ...]:
    """Open what is not open yet. Ray runs, and this process is connected to it.

    Returns:
        What could not be opened and why; empty where all is well.
    """
    troubles = []
    if doors.api:
        try:
            _begin_api(home, doors, tell)
        except Exception as trouble:  # noqa: BLE001 (whatever it was, the engine trades on)
            troubles.append(
                f"the API does not start: {_words(trouble)}; the engine does without, `hean up` tries again"
            )
    if doors.page:
        try:
            _begin_page(home, doors, tell)
        except (HeanError, OSError) as trouble:
            troubles.append(
                f"the page does not start: {_words(trouble)}; the engine does without, `hean up` tries again"
            )
    return tuple(troubles)


def end(home: Path, tell: Tell) -> None:
    """Close what is open: the page's process, and the API where this process is connected to its Ray."""
    import ray

    front = known(home)
    if front.page is not None and front.page.process is not None:
        if _is_alive(front.page):
            tell("ending the page")
        detached.end(front.page.process.mark, _END_S)
    # Serve, asked without a Ray, would begin one of its own. Where ours is dead the API died with it.
    if front.api is not None and ray.is_initialized():
        from actors.http.deployment import undeploy

        tell("ending the API")
        try:
            undeploy()
        except Exception as trouble:  # noqa: BLE001 (Ray is stopped after it: it ends with that)
            tell(f"the API does not end in order: {_words(trouble)}")
    (home / FRONT).unlink(missing_ok=True)


def has_page(home: Path) -> bool | None:
    """Whether the page's process lives; None where none was begun."""
    page = known(home).page
    return None if page is None else _is_alive(page)


def api_answers(url: str) -> bool:
    """Whether the API answers there: well, or that it is not. Serve alone, without the API, knows no such path."""
    return _status(f"{url}/health") in {200, 503}


def page_answers(url: str) -> bool:
    """Whether the page answers there."""
    return _status(url) == 200


def _status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=_LOOK_S) as answer:  # noqa: S310 (our own address)
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code
    except (OSError, ValueError):
        return None


def _begin_api(home: Path, doors: Doors, tell: Tell) -> None:
    from actors.http.deployment import deploy, is_deployed

    front = known(home)
    port = doors.api_port or (front.api.port if front.api is not None else API_PORT)
    if front.api == Door(port) and is_deployed() and api_answers(front.api.url):
        return
    tell("starting the API")
    # Written down first: Serve may hold the port though the API does not come to life, and is then found again.
    write(home / FRONT, Front(Door(port), front.page))
    deploy(home, port=port, hosts=doors.hosts)


def _begin_page(home: Path, doors: Doors, tell: Tell) -> None:
    front = known(home)
    if front.page is not None and _is_alive(front.page) and page_answers(front.page.url):
        return
    if front.page is not None and front.page.process is not None:
        detached.end(front.page.process.mark, _END_S)
    tell("starting the page")
    port = doors.page_port or (front.page.port if front.page is not None else PAGE_PORT)
    api = (front.api or Door(doors.api_port or API_PORT)).url
    log = home / "page.out"
    said_before = log.stat().st_size if log.exists() else 0
    command = detached.python("-m", "actors.page", "--home", str(home), "--port", str(port), "--api", api)
    for host in doors.hosts:
        command += ["--host", host]
    environment = detached.scrubbed(os.environ)
    environment.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI would take itself to be tested, and not listen
    process = detached.launch(command, environment=environment, log=log)
    opened = Door(port, process)
    write(home / FRONT, Front(front.api, opened))
    deadline = time.monotonic() + _PAGE_S
    while not page_answers(opened.url):
        if not detached.is_alive(process):
            said = log.read_bytes()[said_before:].decode(errors="replace").strip().splitlines()
            raise HeanError(f"{said[-1] if said else 'it does not say why'} (see {log})")
        if time.monotonic() > deadline:
            raise HeanError(f"it does not answer within {_PAGE_S:g} s (see {log})")
        time.sleep(0.1)


def _is_alive(door: Door) -> bool:
    return door.process is not None and detached.is_alive(door.process)


def _check_port(home: Path, name: str, before: Door | None, asked: int | None, usual: int, *, is_ours: bool) -> None:
    if before is not None and is_ours:
        if asked is not None and asked != before.port:
            raise ConfigError(
                f"--{name}-port {asked}: it is at {before.port} already; `hean down --home {home}` ends it, or leave the option out"
            )
        return
    port = asked or (before.port if before is not None else usual)
    if not is_free(port):
        raise ConfigError(
            f"port {port} of this machine is taken: --{name}-port takes another, --no-{name} does without"
            + (" (and --no-page)" if name == "api" else "")
        )


def is_free(port: int) -> bool:
    """Whether nobody listens there, on loopback or on all interfaces."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _words(trouble: Exception) -> str:
    lines = [line.strip() for line in str(trouble).splitlines() if line.strip()]
    return lines[-1] if lines else type(trouble).__name__
