"""The API over a fake engine, on loopback in this process: begun, ended, and begun again at the same place."""

import socket
import threading
import time
from contextlib import contextmanager

import uvicorn

from actors.http.app import build_app
from actors.http.home import token_for
from tests.http.fake_engine import FakeEngine
from tests.http.serve import furnish


class Server:
    """An API that may go away and come back; its engine and its home stay."""

    def __init__(self, home):
        self.home = home
        self.folder = furnish(home)
        self.token_file = home / "api.token"
        self.token = token_for(home)
        self.engine = FakeEngine()
        self.port = 0
        self._server = None
        self._thread = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def begin(self):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        app = build_app(self.engine, home=self.home, token=self.token)
        config = uvicorn.Config(app, log_config=None, ws_ping_interval=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [sock]})
        self._thread.start()
        until(lambda: self._server.started, "the server lives")

    def end(self):
        """Hang up on everybody, as a process does that dies."""
        if self._server is not None:
            self._server.should_exit = True
            self._thread.join(20)
            assert not self._thread.is_alive(), "the server does not end"
            self._server = None

    def heard(self, method):
        """What the engine was told by that name, oldest first."""
        return [told for name, told in self.engine.told if name == method]


@contextmanager
def serving(home):
    server = Server(home)
    server.begin()
    try:
        yield server
    finally:
        server.end()


def until(holds, what, seconds=30.0):
    """Wait until something holds; what it returned."""
    limit = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < limit, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return found
