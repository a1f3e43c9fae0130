"""A head that survives: what Ray knows of the cluster lies in a Redis, and is there again after everything of Ray was killed."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from actors import cluster as ray_cluster
from actors.cluster import ClusterError

REDIS = shutil.which("redis-server")
PASSWORD = "of-a-test"  # noqa: S105 (of a server that lives as long as the test)

_BEGIN = """
import sys
from pathlib import Path
import ray
from actors import cluster

class Counter:
    def __init__(self):
        self.count = 0
    def add(self):
        self.count += 1
        return self.count

home = Path(sys.argv[1])
cluster.start(home, dashboard=False, num_cpus=1, object_store_mb=100)
cluster.connect(home)
kept = ray.remote(Counter).options(
    name="kept", namespace=cluster.NAMESPACE, lifetime="detached", max_restarts=-1, num_cpus=0, get_if_exists=sys.argv[2] == "first"
)
made = kept.remote() if sys.argv[2] == "first" else ray.get_actor("kept", namespace=cluster.NAMESPACE)
print(ray.get(made.add.remote(), timeout=90))
"""


@pytest.fixture
def redis(tmp_path):
    """A Redis on loopback; its port."""
    if REDIS is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    folder = tmp_path / "redis"
    folder.mkdir()
    options = ["--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--requirepass", PASSWORD]
    server = subprocess.Popen([REDIS, *options], stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert time.monotonic() < limit
            time.sleep(0.05)
    yield port
    server.terminate()
    server.wait(20)


def begin(home, redis, password_file, time_of):
    environment = os.environ | {
        "RAY_REDIS_ADDRESS": f"127.0.0.1:{redis}",
        "RAY_REDIS_PASSWORD_FILE": str(password_file),
        "RAY_external_storage_namespace": "hean",
    }
    said = subprocess.run(
        [sys.executable, "-c", _BEGIN, home, time_of],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout.split()[-1]


@pytest.mark.slow
def test_an_actor_with_a_name_is_there_again_after_the_head_was_killed(redis, tmp_path):
    home = tmp_path / "home"
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    try:
        assert begin(home, redis, password, "first") == "1"
        for process in list(ray_cluster.processes(home)):
            process.kill()
        limit = time.monotonic() + 30
        while ray_cluster.is_running(home):
            assert time.monotonic() < limit
            time.sleep(0.1)
        assert begin(home, redis, password, "again") == "1", (
            "begun anew by Ray: what it had counted was in its own memory"
        )
    finally:
        ray_cluster.stop(home)


def test_a_password_that_cannot_be_read_is_named(tmp_path):
    said = {"RAY_REDIS_ADDRESS": "127.0.0.1:1", "RAY_REDIS_PASSWORD_FILE": str(tmp_path / "nothing")}
    with pytest.raises(ClusterError, match=r"RAY_REDIS_PASSWORD_FILE: .*nothing cannot be read: No such file"):
        ray_cluster._outside(said)


def test_without_a_redis_ray_is_told_of_none(tmp_path):
    assert ray_cluster._outside({"RAY_REDIS_ADDRESS": "", "RAY_REDIS_PASSWORD_FILE": str(tmp_path)}) == []
