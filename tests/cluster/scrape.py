"""What Prometheus finds at the API: a scrape of the whole application over an engine in which everything is known."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from actors.http.app import build_app
from tests.http.fake_engine import FakeEngine

OURS = {
    "hean_engine_status",
    "hean_equity",
    "hean_reconcile_lag_seconds",
    "hean_orders_total",
    "hean_errors_total",
}
HISTOGRAM = {f"hean_tick_to_order_seconds_{of}" for of in ("bucket", "sum", "count")}


@cache
def scrape() -> str:
    """The text of `GET /metrics`."""

    async def asked(home):
        transport = httpx.ASGITransport(app=build_app(FakeEngine(), home=home, token=None))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            return await client.get("/metrics")

    with tempfile.TemporaryDirectory() as home:
        answer = asyncio.run(asked(Path(home)))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return answer.text


@cache
def names() -> set[str]:
    """The names of all series; `hean_watchdog_up` is of a run whose orders reach a venue, and this one's do not."""
    found = {sample.name for family in text_string_to_metric_families(scrape()) for sample in family.samples}
    return found | {"hean_watchdog_up"}


@contextmanager
def serving() -> Iterator[int]:
    """The API under a real server; its port."""
    with tempfile.TemporaryDirectory() as home:
        app = build_app(FakeEngine(), home=Path(home), token=None)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def named(expr: str) -> set[str]:
    """The series that an expression asks for.

    Raises:
        ValueError: It cannot be parsed.
    """
    return set(_selected(promql_parser.parse(expr)))


def _selected(part: Any) -> Iterator[str]:
    match part:
        case promql_parser.VectorSelector():
            yield part.name
        case promql_parser.MatrixSelector():
            yield part.vector_selector.name
        case list():
            for one in part:
                yield from _selected(one)
        case _:
            for inside in ("lhs", "rhs", "expr", "args", "param"):
                yield from _selected(getattr(part, inside, ()) or [])
