"""What holds for every test: no Ray outside the suites that are about it, and the same examples on every machine of CI."""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent
MAY_START_RAY = frozenset({"ray", "browser", "bench"})
HAS_RAY = importlib.util.find_spec("ray") is not None

settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "local")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let `ray.init` raise during a test, where Ray is there at all: what needs it has a directory of its own."""
    where = item.path.relative_to(HERE).parts[0] if item.path.is_relative_to(HERE) else ""
    if where in MAY_START_RAY or not HAS_RAY:
        return (yield)
    ray = importlib.import_module("ray")

    def refuse(*_, **__):
        raise AssertionError("no Ray here: components are driven by messages; what needs Ray belongs to tests/ray")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", refuse)
        return (yield)


@dataclass(frozen=True)
class Cluster:
    """Where it is, and the home directory whose token opens it."""

    address: str
    home: Path


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """One Ray for all who ask for it: started as `hean up` starts it, in a home of its own."""
    import ray

    from actors import cluster as ray_cluster

    home = tmp_path_factory.mktemp("home")
    try:
        started = ray_cluster.start(home, dashboard=False, num_cpus=2, object_store_mb=200)
        ray_cluster.connect(home)
        yield Cluster(started.address, home)
    finally:
        ray.shutdown()
        ray_cluster.stop(home)
