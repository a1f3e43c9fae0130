"""What the API costs: `GET /engine/status` through Ray Serve, against the same application on a bare uvicorn.

    python -m tests.bench.http

Both show the same picture, of an actor that stands for the engine; the bare one has it in its own process, and is the lower
bound. The two take turns, so that what else the machine does falls on both.
"""

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import ray
import uvicorn

from actors import cluster as ray_cluster
from actors.cluster import NAMESPACE
from actors.http.app import build_app
from actors.http.deployment import deploy, undeploy
from actors.http.ray_engine import ENGINE
from tests.http.fake_engine import FakeEngine
from tests.http.serve import furnish, listening

ROUNDS, EACH = 20, 50
SOME = 20


class Still(FakeEngine):
    """One picture for ever: nothing is measured but its way out."""

    def __init__(self):
        super().__init__()
        self._still = None

    async def picture(self):
        if self._still is None:
            self._still = await super().picture()
        return self._still


def free_port():
    with listening() as sock:
        return sock.getsockname()[1]


@contextmanager
def bare(home):
    """The application alone, in a process of its own; its address."""
    with listening() as sock:
        sock.listen()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        command = [sys.executable, "-m", "tests.bench.http", str(sock.fileno()), str(home)]
        process = subprocess.Popen(command, pass_fds=[sock.fileno()])
    try:
        wait_for(url)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def serve_bare(descriptor, home):
    app = build_app(Still(), home=home, token=None)
    with socket.socket(fileno=descriptor) as sock:
        uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[sock])


def wait_for(url, seconds=60):
    limit = time.monotonic() + seconds
    while True:
        try:
            if httpx.get(f"{url}/engine/status", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > limit:
            raise TimeoutError(f"{url} does not answer")
        time.sleep(0.1)


def asked(client, times):
    """Milliseconds of each of so many questions."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        answer = client.get("/engine/status")
        found.append(1000 * (time.perf_counter() - began))
        answer.raise_for_status()
    return found


def of(times, share):
    return sorted(times)[int(share * (len(times) - 1))]


def main():
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        furnish(home)
        try:
            ray_cluster.start(home, dashboard=False, num_cpus=2, object_store_mb=200)
            ray_cluster.connect(home)
            engine = ray.remote(Still).options(name=ENGINE, namespace=NAMESPACE, num_cpus=0).remote()
            ray.get(engine.picture.remote())
            began = time.perf_counter()
            through = deploy(home, port=free_port())
            print(f"Serve                        begun in {time.perf_counter() - began:.1f} s")
            wait_for(through)
            with bare(home) as url, httpx.Client(base_url=url) as one, httpx.Client(base_url=through) as other:
                for client in (one, other):
                    asked(client, SOME)
                alone, served = [], []
                for _ in range(ROUNDS):
                    alone += asked(one, EACH)
                    served += asked(other, EACH)
                size = len(one.get("/engine/status").content)
            for share, name in ((0.5, "p50"), (0.99, "p99")):
                low, high = of(alone, share), of(served, share)
                print(
                    f"GET /engine/status {name}       bare {low:6.2f} ms, Serve {high:6.2f} ms: {high / low:.1f} x"
                    f" ({size} bytes, {len(served)} each)"
                )
            undeploy()
        finally:
            ray.shutdown()
            ray_cluster.stop(home)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve_bare(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        main()
