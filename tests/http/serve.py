"""Serve the API over a fake engine, for those who draw pages: `python -m tests.http.serve --port 8000`.

Its home is new each time, unless one is named: then token, answers kept and logs are as they were.
"""

import argparse
import socket
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvicorn

from actors.http.app import build_app
from actors.http.home import token_for
from actors.logs import NodeLog
from actors.places import write_settings
from actors.up import BEGUN, SETTINGS, Begun
from hean.engine_settings import EngineSettings, VenueMode
from tests.http.fake_engine import FakeEngine


def furnish(home: Path) -> Path:
    """Make a home as `hean up` leaves one; the directory of its mode."""
    folder = home / VenueMode.SANDBOX
    folder.mkdir(parents=True, exist_ok=True)
    (home / BEGUN).write_bytes(msgspec.json.encode(Begun(VenueMode.SANDBOX, time.time_ns())))
    tree = {
        "venue": "sandbox",
        "endpoint": "http://127.0.0.1:1",
        "symbols": ["BTCUSDT", "ETHUSDT"],
        "strategies": [{"use": "funding-harvester"}, {"use": "impulse", "config": {"trigger": 2.5}}],
        "confirm_phrase": "a phrase that nobody is shown",
    }
    write_settings(folder / SETTINGS, EngineSettings.model_validate(tree))
    (folder / "origins.json").write_text('{"symbols": "file", "venue": "default"}')
    log = NodeLog(folder, "engine", 7)
    log.info("ready", seconds=4.2)
    log.warning("not warm", name="impulse", trouble="the venue does not answer")
    log.close()
    return folder


@contextmanager
def listening(port: int = 0):
    """A socket on loopback; on any free port where none is named."""
    # The protocol is named, since asyncio lets a small answer leave at once only where it knows that this is TCP.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        yield sock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, listening(given.port) as sock:
        home = (given.home or Path(made)).absolute()
        furnish(home)
        token = token_for(home)
        app = build_app(FakeEngine(given.seed), home=home, token=token)
        print(f"http://127.0.0.1:{sock.getsockname()[1]}/docs\ntoken {token}\nhome {home}", flush=True)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        server.run(sockets=[sock])


if __name__ == "__main__":
    main()
