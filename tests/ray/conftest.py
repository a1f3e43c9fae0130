"""One Ray for the whole suite: started as `hean up` starts it, in a home of its own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from actors import cluster as ray_cluster

WHOLE_ENGINES = {
    "test_chaos.py",
    "test_command.py",
    "test_engine.py",
    "test_engine_alone.py",
    "test_evaluate.py",
    "test_falls.py",
    "test_foreground.py",
    "test_kills.py",
    "test_paper.py",
    "test_processes.py",
    "test_serve.py",
    "test_redis.py",
    "test_sweep.py",
}
"""What takes minutes, and has a target of its own."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in WHOLE_ENGINES:
            item.add_marker(pytest.mark.engine)


@dataclass(frozen=True)
class Cluster:
    """Where it is, and the home directory whose token opens it."""

    address: str
    home: Path


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    try:
        started = ray_cluster.start(home, dashboard=False, num_cpus=2, object_store_mb=200)
        ray_cluster.connect(home)
        yield Cluster(started.address, home)
    finally:
        import ray

        ray.shutdown()
        ray_cluster.stop(home)
