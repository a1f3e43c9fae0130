"""`hean demo`: everything in the foreground with its API and its page, looked after, and gone without a rest at a signal."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from actors import cluster, front

HEAN = Path(sys.executable).with_name("hean")


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def left(home):
    """Whoever was begun there and still is."""
    return [
        one.info["cmdline"]
        for one in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(one.info["cmdline"] or ())
    ]


class Demo:
    """A demonstration, and what it says."""

    def __init__(self, home, log):
        self.home = home
        self.api, self.page = free_port(), free_port()
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [HEAN, "demo", "--api-port", str(self.api), "--page-port", str(self.page), "--home", home],
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def said(self):
        return self._log.read_text()

    def wait(self, what, until, seconds=300):
        limit = time.monotonic() + seconds
        while True:
            try:
                if found := until():
                    return found
            except (httpx.TransportError, FileNotFoundError, json.JSONDecodeError):
                pass
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < limit, f"no {what} within {seconds} s:\n{self.said()}"
            time.sleep(0.5)

    def status(self):
        answer = httpx.get(f"http://127.0.0.1:{self.api}/engine/status", timeout=5)
        return answer.json() if answer.status_code == 200 else None

    def trades(self):
        return (found := self.status()) is not None and found["trading"] == "ACTIVE" and found

    def shows(self):
        return httpx.get(f"http://127.0.0.1:{self.page}/", timeout=5).status_code == 200

    def end(self, number):
        self.process.send_signal(number)
        time.sleep(1)
        self.process.send_signal(signal.SIGINT)  # somebody is impatient
        assert self.process.wait(120) == 0, self.said()


@pytest.fixture
def demo(tmp_path):
    one = Demo(tmp_path / "home", tmp_path / "out")
    yield one
    if one.process.poll() is None:
        one.process.send_signal(signal.SIGTERM)
        one.process.wait(180)
    subprocess.run([HEAN, "down", "--home", one.home], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_asks_for_the_end_while_it_begins_leaves_nothing_behind(demo, number):
    demo.wait("Ray", lambda: "starting Ray" in demo.said())
    time.sleep(0.5)
    demo.end(number)
    assert "everything is ended" in demo.said()
    assert left(demo.home) == []


@pytest.mark.slow
def test_everything_is_shown_looked_after_and_ended(demo):
    demo.wait("addresses", lambda: "Ctrl-C" in demo.said())
    for address in (
        f"http://127.0.0.1:{demo.page}",
        f"http://127.0.0.1:{demo.api}/docs",
        "api.token",
        "Ray's dashboard",
    ):
        assert address in demo.said()
    assert demo.shows()
    life = demo.wait("trading", demo.trades)["epoch"]
    refused = httpx.post(f"http://127.0.0.1:{demo.api}/engine/stop", json={"mode": "reduce", "reason": "x"}, timeout=10)
    assert refused.status_code == 401
    around = json.loads(
        subprocess.run([HEAN, "status", "--json", "--home", demo.home], capture_output=True, check=True).stdout
    )["surroundings"]
    assert (around["api"], around["page"], around["watchdog"]) == (True, True, True)
    taken = subprocess.run(
        [HEAN, "demo", "--home", demo.home.with_name("other"), "--api-port", str(demo.api)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"port {demo.api} of this machine is taken" in taken.stderr

    first = front.known(demo.home).page.process.pid
    os.kill(first, signal.SIGKILL)
    demo.wait("page", lambda: front.known(demo.home).page.process.pid != first and demo.shows())
    assert demo.status()["epoch"] == life, "the engine did not notice"

    for process in list(cluster.processes(demo.home)):
        process.kill()
    assert demo.wait("trading", demo.trades)["epoch"] > life
    assert demo.wait("page", demo.shows)

    demo.wait("rest", lambda: demo.said().rstrip().endswith("running"))
    time.sleep(5)  # whoever began it has left Ray
    demo.end(signal.SIGTERM)
    assert left(demo.home) == []
    assert not cluster.is_running(demo.home)


@pytest.mark.slow
def test_down_ends_what_is_in_the_foreground(demo):
    demo.wait("watchdog", lambda: "starting the watchdog" in demo.said())
    subprocess.run([HEAN, "down", "--home", demo.home], check=True, capture_output=True)
    assert demo.process.wait(60) == 0
    assert left(demo.home) == []
