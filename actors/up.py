"""Beginning and ending everything on one machine: Ray, the sandbox's exchange, the engine, the watchdog, API and page.

Each part is found again if it still runs, so that whatever is broken off half-way may simply be done once more. What is
not asked of the engine itself is known from small files in the home directory.
"""

import importlib.resources
import json
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from actors import cluster, detached, files, front
from actors.cluster import ClusterError
from actors.detached import Detached, Tell
from actors.words import EngineView, Phase
from hean.engine_settings import EngineSettings, Origin, VenueMode, engine_settings, origins
from hean.errors import ConfigError, HeanError
from hean.permit import shut
from hean.settings import assign, read_toml, strategies_in

BEGUN = "begun.json"
EXCHANGE = "exchange.json"
WATCHDOG = "watchdog.json"
SETTINGS = "settings.json"
ORIGINS = "origins.json"
KEYS = "keys.toml"

SANDBOX_SEED = 268
_HEAN = "from actors.cli import main; main()"
_ANSWER_S = 5.0
_EXCHANGE_S = 60.0
_END_S = 10.0
_SHUTDOWN_S = 45.0


class Begun(Struct, frozen=True):
    """What was begun last in a home: in which mode, by whom and when."""

    mode: VenueMode
    ts: int


class Sandbox(Struct, frozen=True):
    """The exchange on this machine: its process, its address, and the account's key in play money."""

    process: Detached
    url: str


class SilentError(HeanError):
    """The engine, or Ray, does not answer: nothing is known of what it does."""


# --- where things are -------------------------------------------------------------------------------


def begun(home: Path) -> Begun | None:
    return files.read(home / BEGUN, Begun)


def mode_folder(home: Path) -> Path:
    """The directory of what was begun last.

    Raises:
        ConfigError: Nothing was.
    """
    last = begun(home)
    if last is None:
        raise ConfigError(f"nothing was begun in {home}: begin with `hean up`, or name another --home")
    return home / last.mode


def profile(mode: VenueMode) -> Path:
    """The settings a mode comes with."""
    packaged = Path(str(importlib.resources.files("actors"))) / "settings" / f"{mode}.toml"
    return packaged if packaged.exists() else Path(__file__).parents[1] / "cluster" / "settings" / f"{mode}.toml"


def settings_for(
    mode: VenueMode | None, file: Path | None, assignments: Sequence[str], symbols: Sequence[str] | None
) -> EngineSettings:
    """The settings of a run: the mode's own, or a file's; then what was said on the command line.

    Raises:
        ConfigError: A setting is unknown or does not fit; or the file is of another mode than was asked for.
    """
    return engine_settings(_tree(mode, file, assignments, symbols), os.environ)


def origins_for(
    mode: VenueMode | None, file: Path | None, assignments: Sequence[str], symbols: Sequence[str] | None
) -> dict[str, str]:
    """Who set each setting of such a run, by its dotted name: default, file, command line or environment."""
    said = {one.partition("=")[0].strip() for one in assignments}
    said = {"strategies" if name.startswith("strategy.") else name for name in said}
    said |= {"symbols"} if symbols is not None else set()
    found = origins(_tree(mode, file, assignments, symbols), os.environ)
    return {
        name: "command line"
        if origin is Origin.FILE and any(f"{name}.".startswith(f"{one}.") for one in said)
        else str(origin)
        for name, origin in found.items()
    }


def _tree(
    mode: VenueMode | None, file: Path | None, assignments: Sequence[str], symbols: Sequence[str] | None
) -> dict[str, Any]:
    tree = read_toml(file if file is not None else profile(mode or VenueMode.SANDBOX))
    if file is not None and mode is not None and tree.get("venue", str(mode)) != str(mode):
        raise ConfigError(f"{file} is for {tree['venue']}, and --venue says {mode}: leave one of them out")
    if mode is not None:
        tree["venue"] = str(mode)
    if symbols is not None:
        tree["symbols"] = list(symbols)
    own = [one.removeprefix("strategy.") for one in assignments if one.startswith("strategy.")]
    assign(tree, [one for one in assignments if not one.startswith("strategy.")])
    beside = file.absolute().parent if file is not None else Path.cwd()
    for strategy in strategies_in(tree):
        assign(strategy["config"], own)
        path, colon, name = str(strategy.get("use", "")).rpartition(":")
        if colon and path.endswith(".py"):
            # Actors have a working directory of their own.
            near = Path(path) if Path(path).exists() else beside / path
            strategy["use"] = f"{near.absolute()}:{name}"
    return tree


# --- asking the engine ------------------------------------------------------------------------------


def ask(home: Path, method: str, *arguments: Any, timeout_s: float = _ANSWER_S, **named: Any) -> Any:
    """Ask the engine something.

    Raises:
        SilentError: It does not answer in time, or has just died.
        HeanError: There is none, or it refuses.
    """
    import ray

    from actors.engine import find

    cluster.connect(home)
    try:
        return ray.get(getattr(find(), method).remote(*arguments, **named), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise SilentError(f"the engine does not answer within {timeout_s:g} s: see `hean logs`") from None
    except ray.exceptions.RayTaskError as refusal:
        if isinstance(refusal.cause, HeanError):
            raise refusal.cause from None
        raise
    except ray.exceptions.RayActorError as death:
        if death.actor_init_failed:  # Ray does not begin it anew then
            *_, why = str(death).strip().splitlines()
            raise HeanError(
                f"the engine cannot be begun: {why}; `hean down`, then `hean up` once that is put right"
            ) from None
        raise SilentError("the engine has died, and is being begun anew: ask again in some seconds") from None


def running_mode(home: Path) -> VenueMode | None:
    """The mode of the engine that is at work in a home; None where there is none."""
    if not cluster.is_running(home):
        return None
    cluster.connect(home)
    from actors.engine import find

    try:
        find()
    except HeanError:
        return None
    last = begun(home)
    return None if last is None else last.mode


# --- beginning --------------------------------------------------------------------------------------


def begin(
    home: Path,
    settings: EngineSettings,
    keys: Path | None,
    tell: Tell,
    *,
    set_by: Mapping[str, str] | None = None,
    object_store_mb: int | None = None,
) -> None:
    """Begin everything that does not run yet, but for the API and the page. When it returns the engine is on its way.

    Args:
        home: The home directory.
        settings: Of the run.
        keys: A file with the account's key, to be taken over; None where it lies in the home already.
        tell: Is told each step.
        set_by: Who set each setting, to be kept beside the settings.
        object_store_mb: How much memory Ray's objects may take; as much as Ray likes where not given.

    Raises:
        HeanError: Something cannot be begun; or another run is at work.
    """
    home = home.absolute()
    mode = settings.venue
    folder = home / mode
    at_work = running_mode(home)
    if at_work is not None and at_work is not mode:
        raise ConfigError(f"{at_work} is running in {home}: `hean down` ends it; or take another --home")
    if mode.is_real and not settings.dry_run:
        reasons = shut(settings)  # the rest is asked for once the engine runs: see `hean arm`
        if reasons:
            raise ConfigError("live trading is not allowed:\n  " + "\n  ".join(reasons))
    folder.mkdir(parents=True, exist_ok=True)
    _take_keys(folder, mode, keys)
    if mode is VenueMode.SANDBOX and not settings.endpoint:
        settings = settings.model_copy(update={"endpoint": exchange(folder, settings.symbols, tell).url})
    if at_work is not None:
        _must_be_the_same(folder, settings)
        tell("the engine is at work already")
    if not cluster.is_running(home):
        tell("starting Ray")
    cluster.start(home, object_store_mb=object_store_mb)
    cluster.connect(home)
    files.write(home / BEGUN, Begun(mode, time.time_ns()))
    from actors.engine import create

    if at_work is None:
        tell("beginning the engine")
        files.write_text(folder / ORIGINS, json.dumps(dict(set_by or {}), indent=2) + "\n")
        create(folder, settings)
    watch(folder, settings, tell)


def exchange(folder: Path, symbols: Sequence[str], tell: Tell) -> Sandbox:
    """Start the sandbox's exchange, or find it running: with its past, its accounts and its port as they were.

    Raises:
        HeanError: It does not start.
    """
    known = files.read(folder / EXCHANGE, Sandbox)
    if known is not None and detached.is_alive(known.process) and _answers(known.url):
        return known
    if known is not None:
        detached.end(known.process.mark, _END_S)
    tell("starting an exchange on this machine")
    port = int(known.url.rpartition(":")[2]) if known is not None else 0
    if not port or not front.is_free(port):
        port = _free_port()
    state, log = folder / "exchange.db", folder / "logs" / "exchange.out"
    command = detached.python("-c", _HEAN, "exchange", "--port", str(port), "--state", str(state))
    if not state.exists():
        command += ["--symbols", ",".join(symbols), "--market", "synthetic", "--seed", str(SANDBOX_SEED)]
    began = log.stat().st_size if log.exists() else 0
    process = detached.launch(command, environment=detached.scrubbed(os.environ), log=log)
    started = Sandbox(process, f"http://127.0.0.1:{port}")
    files.write(folder / EXCHANGE, started)
    deadline = time.monotonic() + _EXCHANGE_S
    while not _answers(started.url):
        if not detached.is_alive(process):
            said = log.read_bytes()[began:].decode(errors="replace").strip().splitlines()
            raise HeanError(f"the exchange does not start: {said[-1] if said else 'it does not say why'} (see {log})")
        if time.monotonic() > deadline:
            raise HeanError(f"the exchange does not answer within {_EXCHANGE_S:g} s: see {log}")
        time.sleep(0.1)
    return started


def watch(folder: Path, settings: EngineSettings, tell: Tell) -> Detached | None:
    """Start the watchdog, or find it running; where nothing of ours is at a venue there is none."""
    if not sends(settings):
        return None
    known = files.read(folder / WATCHDOG, Detached)
    if known is not None and detached.is_alive(known):
        return known
    tell("starting the watchdog")
    # The keys are in the folder: it needs nothing of the environment.
    process = detached.launch(
        detached.python("-m", "actors.watchdog", str(folder), "--silence", str(settings.supervision.watchdog_s)),
        environment=detached.scrubbed(os.environ),
        log=folder / "logs" / "watchdog.out",
    )
    files.write(folder / WATCHDOG, process)
    return process


def sends(settings: EngineSettings) -> bool:
    """Whether orders of ours reach a venue."""
    return not settings.venue.is_ours and not (settings.venue.is_real and settings.dry_run)


def read_settings(folder: Path) -> EngineSettings | None:
    """What the engine of a mode was begun with last."""
    try:
        return EngineSettings.model_validate_json((folder / SETTINGS).read_bytes())
    except FileNotFoundError:
        return None


def wait_until_running(home: Path, limit_s: float, tell: Callable[[EngineView], None]) -> EngineView | None:
    """Wait until the engine has come to its end of a start, and trades or says why not; the last view of it.

    Raises:
        HeanError: It never answered.
    """
    deadline = time.monotonic() + limit_s
    view: EngineView | None = None
    trouble: HeanError | None = None
    while time.monotonic() < deadline:
        try:
            view = ask(home, "status")
        except SilentError as silence:
            trouble = silence
        else:
            tell(view)
            if view.phase in {Phase.RUNNING, Phase.STOPPED}:
                return view
        time.sleep(0.3)
    if view is None and trouble is not None:
        raise trouble
    return view


def progress(view: EngineView) -> str:
    """How far the engine is, in a line."""
    blocked = f": {view.blocked[0]}" if view.blocked else ""
    return f"{str(view.phase).lower()}{blocked}"


def _take_keys(folder: Path, mode: VenueMode, given: Path | None) -> None:
    """Have the account's key where the engine looks for it.

    Raises:
        ConfigError: There is none, or the file is not as it should be.
    """
    from actors.keys import read_keys

    place = folder / KEYS
    if mode is VenueMode.SANDBOX:
        if given is not None:
            raise ConfigError("--keys: the sandbox has a key of its own; leave it out")
        if not place.exists():
            files.write_text(place, 'key = "loopback-key-1"\nsecret = "loopback-secret-1"\n')
    elif given is not None:
        read_keys(given)
        files.write_text(place, given.read_text(encoding="utf-8"))
    if not mode.is_ours:
        read_keys(place)


def _must_be_the_same(folder: Path, settings: EngineSettings) -> None:
    before = read_settings(folder)
    if before is not None and before != settings:
        unlike = [name for name in type(settings).model_fields if getattr(before, name) != getattr(settings, name)]
        raise ConfigError(
            f"the engine is running with other settings ({', '.join(unlike)}): `hean down` ends it, then `hean up` again"
        )


# --- ending -----------------------------------------------------------------------------------------


def end(home: Path, tell: Tell) -> None:
    """End everything in order: the engine, then page and API, the watchdog, the exchange, Ray. What is held stays held.

    Raises:
        HeanError: The engine does not end in order, though it is there: then nothing else is ended.
    """
    home = home.absolute()
    last = begun(home)
    folder = home / last.mode if last is not None else None
    if cluster.is_running(home):
        _end_engine(home, tell)
    elif cluster.known(home) is not None:
        tell(
            "Ray is dead already: the engine did not end in order, and goes on from its journals at the next `hean up`"
        )
    front.end(home, tell)
    if folder is not None:
        for file in (WATCHDOG, EXCHANGE):
            _end_process(folder / file, tell)
    if cluster.known(home) is not None:
        tell("stopping Ray")
        cluster.leave()
        cluster.stop(home)


def _end_engine(home: Path, tell: Tell) -> None:
    import ray

    from actors.engine import find

    try:
        cluster.connect(home)
        engine = find()
    except ClusterError as trouble:
        tell(str(trouble))
        return
    except HeanError:
        return
    tell("ending the engine: nothing more is opened, everything is written down")
    try:
        if not ask(home, "shutdown", timeout_s=_SHUTDOWN_S):
            tell("the engine did not end in time; it will go on from its journals")
    except SilentError as silence:
        tell(f"{silence}; it is ended as it is, and goes on from its journals")
    with suppress(ray.exceptions.RayError):
        ray.kill(engine, no_restart=True)


def _end_process(file: Path, tell: Tell) -> None:
    known: Sandbox | Detached | None = (
        files.read(file, Sandbox) if file.name == EXCHANGE else files.read(file, Detached)
    )
    if known is None:
        return
    process = known.process if isinstance(known, Sandbox) else known
    if detached.is_alive(process):
        tell(f"ending the {file.stem}")
    detached.end(process.mark, _END_S)
    if not isinstance(known, Sandbox):  # the exchange keeps its port
        file.unlink(missing_ok=True)


# --- what else runs ---------------------------------------------------------------------------------


class Surroundings(Struct, frozen=True):
    """What runs besides the engine. None is not meant to run here."""

    home: str
    mode: str
    ray: bool
    address: str | None
    dashboard: str | None
    exchange: bool | None
    exchange_url: str | None
    watchdog: bool | None
    latched: str | None
    api: bool | None = None
    api_url: str | None = None
    page: bool | None = None
    page_url: str | None = None


def surroundings(home: Path) -> Surroundings:
    """Look at everything that needs no engine to be seen.

    Raises:
        ConfigError: Nothing was begun here.
    """
    folder = mode_folder(home)
    address = cluster.known(home)
    alive = cluster.is_running(home)
    sandbox = files.read(folder / EXCHANGE, Sandbox)
    dog = files.read(folder / WATCHDOG, Detached)
    settings = read_settings(folder)
    latch = folder / "latched.json"
    seen_through = front.known(home)
    api, page = seen_through.api, seen_through.page
    return Surroundings(
        home=str(home),
        mode=folder.name,
        ray=alive,
        address=address.address if address is not None and alive else None,
        dashboard=address.dashboard if address is not None and alive else None,
        exchange=None if sandbox is None else detached.is_alive(sandbox.process),
        exchange_url=None if sandbox is None else sandbox.url,
        watchdog=None if settings is None or not sends(settings) else dog is not None and detached.is_alive(dog),
        latched=latch.read_text(encoding="utf-8") if latch.exists() else None,
        api=None if api is None else alive and front.api_answers(api.url),
        api_url=None if api is None else api.url,
        page=None if page is None else front.page_answers(page.url),
        page_url=None if page is None else page.url,
    )


# --- small things -----------------------------------------------------------------------------------


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v5/market/time", timeout=1.0) as answer:  # noqa: S310 (our own address)
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
