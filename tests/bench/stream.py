"""How much the stream bears: twenty clients that are told a new state twenty times a second, and one that reads no more.

The server is a process of its own: plain uvicorn first, then Ray Serve with its proxy. `python -m tests.bench.stream`.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import psutil
from fastapi import FastAPI
from websockets.asyncio.client import connect

from actors.http import stream
from actors.http.stream import Stream
from tests.http.fake_engine import FakeEngine

CLIENTS, RATE = 20, 20
SAID = re.compile(rb'"reason":"(\d+)"')
SEQ = re.compile(rb'"seq":(\d+)')


class Moving(FakeEngine):
    """An engine of which something is new whenever it is asked; its `reason` says when that was."""

    base = None

    async def picture(self):
        if self.base is None:
            self.base = await super().picture()
        now = time.time_ns()
        seen = msgspec.structs.replace(self.base.view, ts=now, reason=str(now), equity=Decimal(now % 1000))
        return msgspec.structs.replace(self.base, view=seen)


def app() -> FastAPI:
    found = FastAPI()
    found.state.stream = Stream(Moving(), Path(tempfile.gettempdir()) / "hean-bench-nowhere", state_s=1 / RATE)
    found.include_router(stream.router)
    return found


def under_uvicorn(port: int) -> None:
    import uvicorn

    uvicorn.run(app(), host="127.0.0.1", port=port, log_level="error")


def under_serve(port: int) -> None:
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
    ingress = serve.ingress(app)(type("Api", (), {}))
    serve.run(serve.deployment(ingress, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0}).bind())
    print("ready", flush=True)
    sys.stdin.read()  # until the bench is done
    serve.shutdown()
    ray.shutdown()


# --- the clients ----------------------------------------------------------------------------------


async def client(port, delays, until):
    async with connect(f"ws://127.0.0.1:{port}/stream", compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"channels": ["state"]}))
        while time.monotonic() < until:
            frame = await socket.recv(decode=False)
            now = time.time_ns()
            delays.append((now - int(SAID.search(frame)[1])) / 1e6)
            await socket.send(b'{"ack": %s}' % SEQ.search(frame)[1])
        return len(frame)


async def stalled(port, until):
    """One that asks for everything, and neither reads nor acknowledges."""
    async with connect(f"ws://127.0.0.1:{port}/stream", compression=None, max_size=None) as socket:
        await socket.send(json.dumps({"channels": ["state", "logs"]}))
        socket.transport.pause_reading()
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        socket.transport.abort()


async def watch(port, processes, seconds):
    began = time.monotonic()
    delays = [[] for _ in range(CLIENTS)]
    until = began + seconds
    work = [asyncio.create_task(client(port, one, until)) for one in delays]
    work.append(asyncio.create_task(stalled(port, until)))
    await asyncio.sleep(seconds / 4)  # what comes before is starting
    for one in delays:
        one.clear()
    cpu, at, memory = cpu_of(processes), time.monotonic(), [memory_of(processes)]
    while time.monotonic() < until - 0.5:
        await asyncio.sleep(0.5)
        memory.append(memory_of(processes))
    spent, passed = cpu_of(processes) - cpu, time.monotonic() - at
    counts = [len(one) / passed for one in delays]
    sizes = await asyncio.gather(*work, return_exceptions=True)
    found = sorted(delay for one in delays for delay in one)
    return counts, found, spent / passed, memory, sizes[0]


def cpu_of(processes):
    return sum(sum(one.cpu_times()[:2]) for one in processes)


def memory_of(processes):
    return sum(one.memory_info().rss for one in processes) / 1e6


def served(name, port, seconds):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.stream", "--as", name, "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as server:
        try:
            if name == "serve":
                server.stdout.readline()
            until_open(port, server)
            me = psutil.Process(server.pid)
            everybody = [me] if name == "uvicorn" else [one for one in me.children(recursive=True) if is_of_serve(one)]
            tell(f"stream, {name}", *asyncio.run(watch(port, everybody, seconds)))
        finally:
            server.stdin.close()
            if name == "uvicorn":
                server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()


def is_of_serve(process):
    return any(part in " ".join(process.cmdline()) for part in ("ProxyActor", "ServeReplica"))


def until_open(port, server):
    import socket

    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if server.poll() is not None:
            raise RuntimeError("the server has ended")
        time.sleep(0.1)
    raise TimeoutError("the server does not listen")


def tell(name, counts, delays, cpu, memory, size):
    def share(part):
        return delays[min(len(delays) - 1, int(part * len(delays)))]

    print(
        f"{name:<16} {CLIENTS} clients of {RATE}/s, {size / 1000:.0f} kB each: "
        f"{statistics.mean(counts):.1f}/s seen (least {min(counts):.1f}), "
        f"p50 {share(0.5):.1f} ms, p99 {share(0.99):.1f} ms, {cpu:.0%} of a core, "
        f"memory {memory[0]:.0f} to {memory[-1]:.0f} MB",
        flush=True,
    )


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("--seconds", type=float, default=20.0)
    asked.add_argument("--port", type=int, default=0)
    asked.add_argument("--as", dest="name", choices=("uvicorn", "serve"))
    asked.add_argument("--only", choices=("uvicorn", "serve"))
    given = asked.parse_args()
    match given.name:
        case "uvicorn":
            under_uvicorn(given.port)
        case "serve":
            under_serve(given.port)
        case _:
            for name in ("uvicorn", "serve"):
                if given.only in {None, name}:
                    served(name, free_port(), given.seconds)


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    main()
