"""Ray as it is started: on loopback, behind a token, as nice as we are, and gone when it is stopped."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from actors import cluster as ray_cluster
from actors.cluster import ClusterError

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.fixture(scope="module")
def actor(cluster):
    import ray

    class Plain:
        def ask(self, name):
            return os.getpriority(os.PRIO_PROCESS, 0) if name == "nice" else os.environ.get(name)

    made = ray.remote(num_cpus=0)(Plain).remote()
    assert ray.get(made.ask.remote("nice"), timeout=60) is not None
    return made


def _heard(process):
    return {link.laddr.ip for link in process.net_connections("inet") if link.status == psutil.CONN_LISTEN}


def test_every_socket_of_the_cluster_listens_on_loopback(cluster, actor):
    found = {process.pid: _heard(process) for process in ray_cluster.processes(cluster.home)}

    assert sum(map(bool, found.values())) >= 3, "the head itself listens"
    assert set().union(*found.values(), _heard(psutil.Process())) <= LOOPBACK


def test_actors_are_as_nice_as_we_are(cluster, actor):
    import ray

    assert ray.get(actor.ask.remote("nice"), timeout=30) == os.getpriority(os.PRIO_PROCESS, 0)
    assert {process.nice() for process in ray_cluster.processes(cluster.home)} == {psutil.Process().nice()}


def test_no_key_of_the_venue_reaches_an_actor(tmp_path, monkeypatch):
    monkeypatch.setenv("BYBIT_API_SECRET", "never-seen")

    assert "BYBIT_API_SECRET" not in ray_cluster.detached.scrubbed(os.environ)


def test_whoever_has_not_our_token_is_refused(cluster, tmp_path):
    home = tmp_path / "home"
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "HOME": str(home),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray looks for the address on another interface
    }
    another = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    tried = [
        subprocess.Popen(
            [sys.executable, "-c", f"import ray; ray.init(address={cluster.address!r}); print('in')"],
            env=stranger | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for more in ({}, another)
    ]
    # Ray tries for some twenty seconds.
    for one in tried:
        out, complaint = one.communicate(timeout=120)
        assert one.returncode != 0
        assert "in\n" not in out
        assert "Authentication" in complaint


def test_the_token_is_for_its_owner_alone(cluster):
    for name in ("ray.token", "ray.json", "ray.env"):
        assert stat.S_IMODE((cluster.home / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(ray_cluster.known(cluster.home).folder).stat().st_mode) == 0o700


def test_a_second_start_finds_the_first(cluster):
    assert ray_cluster.is_running(cluster.home)
    assert ray_cluster.start(cluster.home) == ray_cluster.known(cluster.home)


def test_a_second_cluster_lives_beside_the_first_and_is_stopped_alone(cluster, actor, tmp_path):
    import ray

    second = ray_cluster.start(tmp_path, dashboard=True, num_cpus=1, object_store_mb=100)
    try:
        assert second.address != cluster.address
        heard = [_heard(process) for process in ray_cluster.processes(tmp_path)]
        assert set().union(*heard) <= LOOPBACK
        # Without its raylet there is no cluster, and a start begins anew.
        psutil.Process(second.pids["raylet"]).kill()
        psutil.wait_procs(
            [psutil.Process(second.pids["raylet"])] if psutil.pid_exists(second.pids["raylet"]) else [], 5
        )
        assert not ray_cluster.is_running(tmp_path)
        with pytest.raises(ClusterError, match="not running"):
            ray_cluster.connect(tmp_path)
    finally:
        assert ray_cluster.stop(tmp_path) > 0

    assert not Path(second.folder).exists()
    assert ray_cluster.known(tmp_path) is None
    assert list(ray_cluster.detached.marked(second.leader.mark)) == []
    assert ray_cluster.stop(tmp_path) == 0, "stopping twice is stopping once"
    assert ray.get(actor.ask.remote("RAY_AUTH_MODE"), timeout=30) == "token"
