"""The API on Ray Serve beside an engine at work: on loopback alone, and whoever of Serve is killed, the engine trades on."""

import os
import signal
import socket
import time
import warnings
from pathlib import Path

import httpx
import psutil
import pytest

from actors import cluster as ray_cluster
from actors.http.home import read_token
from actors.up import BEGUN
from actors.words import Phase
from hean.errors import HeanError
from tests.ray.stage import BUSY, CHURN, acting

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ray 2.60's own use of pydantic
    from actors.http import deployment

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
ALONE = {**BUSY, "strategies": [one for one in BUSY["strategies"] if one["use"] == CHURN]}
MODE = "sandbox"
WITHIN_S = 25.0


@pytest.fixture(scope="module")
def address(cluster):
    """The API, begun while there is no engine."""
    (cluster.home / MODE).mkdir(exist_ok=True)
    (cluster.home / BEGUN).write_text(f'{{"mode": "{MODE}", "ts": 0}}')
    yield deployment.deploy(cluster.home, port=free_port())
    deployment.undeploy()


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def asked(address, path="/engine/status", within_s=WITHIN_S):
    """The first answer of an engine that can be had."""
    limit = time.monotonic() + within_s
    while True:
        try:
            answer = httpx.get(f"{address}{path}", timeout=5)
            if answer.status_code == 200:
                return answer.json()
            said = answer.text
        except httpx.HTTPError as failure:
            said = repr(failure)
        assert time.monotonic() < limit, f"no answer within {within_s:g} s: {said}"
        time.sleep(0.1)


def serving(cluster, name):
    """The processes of Serve that are called so."""
    return [one for one in ray_cluster.processes(cluster.home) if name in " ".join(one.cmdline())]


def fills(address):
    """How many orders have filled in all."""
    return sum(one["funnel"]["filled"] for one in asked(address, "/why")["why"])


def test_the_api_outlives_its_parts_and_the_engine_outlives_the_api(cluster, address):
    before = httpx.get(f"{address}/engine/status", timeout=10)
    assert (before.status_code, before.json()["type"]) == (503, "urn:hean:no-engine")
    assert int(before.headers["retry-after"]) > 0

    with acting(cluster.home / MODE, ALONE) as stage:
        stage.wait_until_trading()
        engine, life = stage.ask("pid"), stage.status().epoch
        assert asked(address)["trading"] == "ACTIVE", "the API finds an engine that came after it"

        for name in ("ServeReplica", "ServeController", "ProxyActor"):
            done = fills(address)
            (victim,) = serving(cluster, name)
            os.kill(victim.pid, signal.SIGKILL)
            psutil.wait_procs([victim], timeout=5)
            stage.wait("fills without " + name, lambda _: stage.ask("why")[0].funnel["filled"] > done, 20)  # noqa: B023
            assert asked(address)["epoch"] == life
            assert stage.ask("pid") == engine
        (alive,) = serving(cluster, "ServeController")
        assert alive.is_running()

        os.kill(engine, signal.SIGKILL)
        limit = time.monotonic() + 40
        while asked(address)["epoch"] == life:
            assert time.monotonic() < limit, "the API does not find the engine's next life"
            time.sleep(0.2)

        shown = {"Authorization": f"Bearer {read_token(cluster.home)}", "Idempotency-Key": "once"}
        said = [
            httpx.post(f"{address}/engine/stop", json={"mode": "reduce"}, headers=shown, timeout=10) for _ in range(2)
        ]
        assert [one.status_code for one in said] == [200, 200]
        assert said[0].content == said[1].content
        assert said[1].headers["idempotent-replayed"] == "true"
        stage.wait("the end of its start", lambda status: status.phase is Phase.RUNNING)  # then it ends in order


def test_it_listens_on_loopback_alone(cluster, address):
    assert asked_health(address).status_code == 503, "there is no engine any more"
    heard = {
        process.pid: {link.laddr.ip for link in process.net_connections("inet") if link.status == psutil.CONN_LISTEN}
        for name in ("ServeReplica", "ServeController", "ProxyActor")
        for process in serving(cluster, name)
    }

    assert len(heard) == 3
    assert all(heard.values())
    assert set().union(*heard.values()) <= LOOPBACK


def asked_health(address):
    return httpx.get(f"{address}/health", timeout=10)


def test_an_answer_has_one_id_that_is_the_trace(address):
    made = httpx.get(f"{address}/nowhere", timeout=10)
    given = httpx.get(f"{address}/nowhere", headers={"X-Request-ID": "ab" * 16}, timeout=10)

    assert given.headers["x-request-id"] == given.json()["request_id"] == "ab" * 16
    assert made.headers["x-request-id"].replace("-", "") == made.json()["request_id"]


def test_under_another_name_it_does_not_answer(address):
    answer = httpx.get(f"{address}/engine/status", headers={"Host": "evil.example"}, timeout=10)

    assert (answer.status_code, answer.json()["type"]) == (403, "urn:hean:host")


def test_begun_twice_it_is_begun_once_and_a_taken_port_is_named(cluster, address):
    (replica,) = serving(cluster, "ServeReplica")
    port = int(address.rpartition(":")[2])

    assert deployment.deploy(cluster.home, port=port) == address
    assert [one.pid for one in serving(cluster, "ServeReplica")] == [replica.pid]
    with pytest.raises(HeanError, match=f"port {port} already"):
        deployment.deploy(cluster.home, port=port + 1)


def test_the_configuration_is_plain_values():
    with pytest.raises(ValueError, match="extra"):
        deployment.ApiConfig.model_validate({"home": str(Path.cwd()), "engine": "another"})
