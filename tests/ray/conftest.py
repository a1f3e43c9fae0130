"""One Ray for the whole suite: started as `hean up` starts it, in a home of its own."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from actors import cluster as ray_cluster


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
