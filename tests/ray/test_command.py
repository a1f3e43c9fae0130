"""The whole by its command line, on a Ray of its own: `hean up`, a catastrophe, `hean kill`, `hean up`, `hean down`."""

import json
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from actors import cluster, detached, files, up
from actors.gateways.bybit_endpoint import loopback
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.keys import read_keys
from hean.instruments import Category

HEAN = Path(sys.executable).with_name("hean")


class Commands:
    def __init__(self, home):
        self.home = home

    def run(self, *words, code=0):
        said = subprocess.run(
            [HEAN, *words, "--home", self.home], capture_output=True, text=True, timeout=300, check=False
        )
        assert said.returncode == code, said.stdout + said.stderr
        return said

    def json(self, *words, code=0):
        return json.loads(self.run(*words, "--json", code=code).stdout)

    def wait(self, what, until, seconds=120):
        limit = time.monotonic() + seconds
        while True:
            engine = self.json("status")["engine"]
            if until(engine):
                return engine
            assert time.monotonic() < limit, f"no {what} within {seconds} s: {engine}"
            time.sleep(1)


@pytest.fixture
def commands(tmp_path):
    yield (one := Commands(tmp_path))
    up.end(tmp_path, print) if not cluster.is_running(tmp_path) else one.run("down")


def _at_the_exchange(home):
    folder = home / "sandbox"
    where = files.read(folder / up.EXCHANGE, up.Sandbox).url
    rest = BybitRest(loopback(where), read_keys(folder / up.KEYS), instruments={}, backoff=Backoff())
    try:
        orders = [*rest.open_orders(Category.LINEAR), *rest.open_orders(Category.SPOT)]
        return {one.instrument for one in rest.positions() if one.quantity}, orders, rest.balances()
    finally:
        rest.close()


@pytest.mark.slow
def test_a_sandbox_trades_survives_the_end_of_ray_and_is_ended(commands, tmp_path):
    began = commands.json("up", "--no-api", "--no-page", "--wait", "150")
    assert began["engine"]["phase"] == "RUNNING"
    around = began["surroundings"]
    assert (around["ray"], around["exchange"], around["watchdog"]) == (True, True, True)
    assert commands.json("up", "--no-api", "--no-page")["engine"]["epoch"] == began["engine"]["epoch"], (
        "up twice is up once"
    )
    commands.wait("position", lambda engine: any(one["strategy"] for one in engine["positions"]))
    assert "submitted" in commands.run("why").stdout
    assert commands.run("logs", "--node", "risk").stdout

    # The worst: Ray is gone at once, and every actor with it.
    for process in list(cluster.processes(tmp_path)):
        process.kill()
    assert commands.json("status", code=1)["engine"] is None
    assert commands.json("kill", "--reason", "Ray is gone")["flattened"]["verified"]
    positions, orders, balances = _at_the_exchange(tmp_path)
    assert (positions, orders) == (set(), [])
    assert balances["BTC"] >= Decimal(1), "what the account had of its own is not sold"
    assert commands.run("replay", "portfolio").stdout.endswith("the same\n")

    again = commands.json("up", "--no-api", "--no-page", "--wait", "150")["engine"]
    assert again["epoch"] > began["engine"]["epoch"]
    assert commands.wait("kill switch", lambda engine: engine["tripped"])["trading"] != "ACTIVE"

    dog = files.read(tmp_path / "sandbox" / up.WATCHDOG, detached.Detached)
    mark = cluster.known(tmp_path).leader.mark
    commands.run("down")
    assert list(detached.marked(mark)) == []
    assert not detached.is_alive(dog)
    assert not any(str(tmp_path) in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"]))
    commands.run("down")
