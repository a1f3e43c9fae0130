"""The API over a fake engine, served on loopback in this process and asked over the wire."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from actors.http.app import build_app
from actors.http.home import token_for
from actors.http.idempotency import TABLE
from actors.http.security import Allowance
from tests.http.fake_engine import FakeEngine
from tests.http.serve import furnish, listening


@dataclass
class Api:
    """Where it is, what it is told by, and a client that shows the token and one that does not."""

    app: FastAPI
    url: str
    home: Path
    folder: Path
    token: str
    engine: FakeEngine
    person: httpx.Client
    stranger: httpx.Client

    @property
    def netloc(self):
        return self.url.removeprefix("http://")


@contextmanager
def served(app):
    """Serve an application; its address."""
    with listening() as sock:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, ws_ping_interval=None, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        limit = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive(), "the server does not come to life"
            assert time.monotonic() < limit, "the server does not come to life"
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def acting(home, engine=None, **more):
    """The API over a fake engine, in a home of its own."""
    engine = FakeEngine() if engine is None else engine
    folder, token = furnish(home), token_for(home)
    app = build_app(engine, home=home, token=token, **more)
    with served(app) as url:
        shown = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=url, headers=shown) as person, httpx.Client(base_url=url) as stranger:
            yield Api(app, url, home, folder, token, engine, person, stranger)


@pytest.fixture(scope="session")
def house(tmp_path_factory):
    """One server for all who do not look at its files."""
    with acting(tmp_path_factory.mktemp("house"), allowance=Allowance(burst=1e6)) as api:
        yield api


@pytest.fixture
def api(house):
    """The API over an engine that has heard nothing yet, and with no answers kept."""
    house.app.state.engine = house.engine = FakeEngine()
    (house.folder / TABLE).unlink(missing_ok=True)
    return house


@pytest.fixture
def own(tmp_path):
    """The API in a home that nobody else writes in."""
    with acting(tmp_path / "home") as api:
        yield api
