"""One machine's own Ray: started so that it outlives the command, reached by whoever has its token, stopped by its mark.

Ray left to itself listens on every interface, lets everybody in and runs actors at nice 15. Here every socket is on
loopback, every caller shows a token that lies in the home directory for its owner alone, and actors are as nice as we are.
Two clusters on a machine do not meet: whatever port can be drawn is drawn, and each has a directory of its own.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors import detached
from actors.detached import Detached
from hean.errors import HeanError

NAMESPACE = "hean"
DASHBOARD_PORT = 8265
METRICS_PORT = 8090

_STARTED = "ray.json"
_TOKEN = "ray.token"  # noqa: S105 (the name of a file)
_ENVIRONMENT = "ray.env"
_LOG = "ray.log"
_LOCK = "ray.lock"
_START_S = 120.0
_STOP_S = 2.0  # without its GCS the raylet would wait for longer, and nothing of it is needed
# What a command asks Ray to do; `main` is what the console script `ray` runs.
_RAY = "from ray.scripts.scripts import main; main()"
# Of a path to a socket Linux takes 107 letters; Ray makes 72 of them itself.
_LONGEST_TEMP = 30


class ClusterError(HeanError):
    """Ray cannot be started, reached or stopped; the text says why, and what to do."""


class Address(Struct, frozen=True):
    """A cluster that was started from a home directory.

    Args:
        address: Where drivers connect to.
        dashboard: Its page, if it has one.
        folder: What Ray keeps while it runs; deleted when it is stopped.
        session: Of this run, in that folder: sockets and Ray's own logs.
        leader: The process that started the others, long gone itself; its mark is theirs.
        pids: Of Ray's own processes at the start, by their names.
    """

    address: str
    dashboard: str | None
    folder: str
    session: str
    leader: Detached
    pids: dict[str, int]


def environment(home: Path) -> dict[str, str]:
    """What each process of the cluster, and each that speaks to it, has in its environment; drawn anew the token stays."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the one switch that puts every socket on loopback
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token(home)),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do later
        "DASHBOARD_METRIC_PORT": "0",
        "RAY_START_HOOK": "actors.cluster.without_client_server",
    }


def without_client_server(parameters: Any, _head: bool) -> None:  # noqa: FBT001 (Ray calls it)
    """Ray's own hook, called before a start: the server for remote clients takes a fixed port and is of no use here."""
    parameters.ray_client_server_port = None


def start(
    home: Path, *, dashboard: bool = True, num_cpus: int | None = None, object_store_mb: int | None = None
) -> Address:
    """Start Ray, or find it running.

    Args:
        home: Where its token and its address are kept.
        dashboard: Whether it has a page: on port 8265 where that is free, else on another; and its metrics likewise on 8090.
        num_cpus: How many processors tasks may count on; all there are where not given.
        object_store_mb: How much memory its objects may take; as much as Ray likes where not given.

    Raises:
        ClusterError: It does not start.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    with _alone(home):
        found = known(home)
        if found is not None and _runs(found):
            return found
        if found is not None:
            _remove(home, found)
        return _start(home, dashboard=dashboard, num_cpus=num_cpus, object_store_mb=object_store_mb)


def stop(home: Path) -> int:
    """End every process of the cluster, and delete what it leaves behind. Says how many processes there were."""
    home = home.absolute()
    if not home.is_dir():
        return 0
    with _alone(home):
        found = known(home)
        return 0 if found is None else _remove(home, found)


def is_running(home: Path) -> bool:
    """Whether the cluster's head is alive: both of the processes without which there is none."""
    found = known(home)
    return found is not None and _runs(found)


def known(home: Path) -> Address | None:
    """The cluster that was started from here last and not stopped; whether it lives is not said."""
    try:
        return msgspec.json.decode((home / _STARTED).read_bytes(), type=Address)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as damage:
        raise ClusterError(f"{home / _STARTED} cannot be read ({damage}): delete it, and end Ray by hand") from damage


def connect(home: Path) -> Address:
    """Join the cluster from this process, once.

    Raises:
        ClusterError: None is running, or it does not let us in.
    """
    home = home.absolute()
    found = known(home)
    if found is None or not _runs(found):
        raise ClusterError(f"Ray is not running for {home}: start it with `hean up`")
    os.environ.update(environment(home))
    import logging

    import ray
    from ray._private import ray_constants, worker
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled, without stubs

    # Ray tells drivers what befalls its workers, on standard output: ours is for answers, and the engine says who died.
    worker.print_to_stdstream = _nothing
    # Ray reads its environment when it is first imported, and somebody may have done so before us.
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        with _signal_kept():
            ray.init(
                address=found.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
                ignore_reinit_error=True,
            )
    except (ray.exceptions.RayError, ConnectionError, RuntimeError) as refusal:
        raise ClusterError(f"Ray at {found.address} does not take us in: {_first_line(str(refusal))}") from refusal
    return found


def leave() -> None:
    """Leave the cluster, if this process is in one."""
    import ray

    with _signal_kept():
        ray.shutdown()


def processes(home: Path) -> list[Any]:
    """Every living process of the cluster, as psutil knows it: Ray's own, and the actors."""
    found = known(home)
    return [] if found is None else list(detached.marked(found.leader.mark))


def _start(
    home: Path, *, dashboard: bool, num_cpus: int | None, object_store_mb: int | None, usual: bool = True
) -> Address:
    folder = _folder()
    # Ray opens its own directories to everybody; nobody passes the one above.
    inner = folder / "r"
    log = home / _LOG
    log.unlink(missing_ok=True)
    options = [
        "--port=0",
        "--node-manager-port=0",
        "--object-manager-port=0",
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--dashboard-agent-listen-port=0",
        "--dashboard-agent-grpc-port=0",
        "--runtime-env-agent-port=0",
        f"--metrics-export-port={_port(METRICS_PORT if usual else 0) if dashboard else 0}",
        f"--include-dashboard={dashboard}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={_port(DASHBOARD_PORT if usual else 0) if dashboard else 0}",
        f"--temp-dir={inner}",
        "--no-monitor",  # it would ask a cloud for more machines
        "--disable-usage-stats",
        "--log-style=record",
    ]
    options += [] if num_cpus is None else [f"--num-cpus={num_cpus}"]
    options += [] if object_store_mb is None else [f"--object-store-memory={object_store_mb * 1024 * 1024}"]
    options += _outside(os.environ)
    everything = {**detached.scrubbed(os.environ), **environment(home)}
    if not everything.get("RAY_REDIS_ADDRESS"):
        everything.pop("RAY_REDIS_ADDRESS", None)  # one that is empty names no Redis
    leader = detached.launch(detached.python("-c", _RAY, "start", "--head", *options), environment=everything, log=log)
    # Written down at once: a start that is broken off half-way is cleaned up by the next one, or by `stop`.
    begun = Address("", None, str(folder), "", leader, {})
    _write(home / _STARTED, msgspec.json.format(msgspec.json.encode(begun)))
    if _outcome(leader) != 0:
        _remove(home, begun)
        why = _last_line(log)
        if usual and "address already in use" in why:  # another Ray was begun in the same moment
            return _start(home, dashboard=dashboard, num_cpus=num_cpus, object_store_mb=object_store_mb, usual=False)
        raise ClusterError(f"Ray does not start: {why} (all of it is in {log})")
    address = (inner / "ray_current_cluster").read_text().strip()
    pids = {name: process.pid for process in detached.marked(leader.mark) if (name := _role(process))}
    page = f"http://127.0.0.1:{_port_of(options)}" if dashboard else None
    started = Address(address, page, str(folder), str((inner / "session_latest").resolve()), leader, pids)
    _write(home / _STARTED, msgspec.json.format(msgspec.json.encode(started)))
    _write(home / _ENVIRONMENT, _shell(home, started).encode())
    return started


def _outside(said: Mapping[str, str]) -> list[str]:
    """What Ray must be told of a Redis that keeps what it knows of the cluster, so that this outlives the head.

    `RAY_REDIS_ADDRESS` says where it is: Ray reads that itself. The password lies in the file `RAY_REDIS_PASSWORD_FILE`.

    Raises:
        ClusterError: The file cannot be read.
    """
    file = said.get("RAY_REDIS_PASSWORD_FILE")
    if not said.get("RAY_REDIS_ADDRESS") or not file:
        return []
    try:
        return [f"--redis-password={Path(file).read_text(encoding='utf-8').strip()}"]
    except OSError as trouble:
        raise ClusterError(f"RAY_REDIS_PASSWORD_FILE: {file} cannot be read: {trouble.strerror}") from trouble


def _outcome(leader: Detached) -> int:
    """Wait for `ray start` to have done its part. It is a child of ours: its end is ours to collect."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(leader.pid, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return -1


def _remove(home: Path, found: Address) -> int:
    ended = detached.end(found.leader.mark, _STOP_S)
    with suppress(ChildProcessError):
        os.waitpid(found.leader.pid, os.WNOHANG)
    shutil.rmtree(found.folder, ignore_errors=True)
    for name in (_ENVIRONMENT, _STARTED):
        (home / name).unlink(missing_ok=True)
    return ended


def _runs(found: Address) -> bool:
    return bool(found.address) and all(
        name in found.pids and detached.is_alive(Detached(found.pids[name], found.leader.mark))
        for name in ("gcs_server", "raylet")
    )


def _role(process: Any) -> str:
    """What one of Ray's own processes is called; an actor has no name here."""
    words = process.cmdline()
    program = Path(words[0]).name if words else ""
    if program in {"gcs_server", "raylet"}:
        return program
    return next((Path(word).stem for word in words[:4] if word.endswith(("dashboard.py", "log_monitor.py"))), "")


def _folder() -> Path:
    """A directory of our own with a short name, closed to everybody else."""
    above = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="hean-", dir=above if len(above) <= _LONGEST_TEMP - 14 else "/tmp"))  # noqa: S108


def _port(usual: int) -> int:
    """The port by which people know something where it is free, else any."""
    for port in (usual, 0):
        with socket.socket() as trial, suppress(OSError):
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what was just given back is free
            trial.bind(("127.0.0.1", port))
            return int(trial.getsockname()[1])
    raise ClusterError("no port of this machine is free for Ray")


def _port_of(options: list[str]) -> str:
    return next(one.partition("=")[2] for one in options if one.startswith("--dashboard-port="))


def _token(home: Path) -> Path:
    path = home.absolute() / _TOKEN
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, secrets.token_hex(32).encode())
    return path


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, for its owner alone."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(content)
    made.replace(path)


def _shell(home: Path, started: Address) -> str:
    """For a shell, before Ray's own commands such as `ray list actors`."""
    said: Mapping[str, str] = {**environment(home), "RAY_ADDRESS": started.address}
    if started.dashboard is not None:
        said = {**said, "RAY_API_SERVER_ADDRESS": started.dashboard}
    return "".join(f"export {name}='{value}'\n" for name, value in said.items() if name != "RAY_START_HOOK")


@contextmanager
def _signal_kept() -> Iterator[None]:
    """Leave SIGTERM to whoever heard it before: Ray takes it for itself as it joins, and lets it kill us once it has left."""
    on_end = signal.getsignal(signal.SIGTERM)
    yield
    if on_end is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One at a time starts or stops."""
    with (home / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nothing(*_: object, **__: object) -> None:
    pass


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it does not say why")


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1]
    return "it does not say why"
