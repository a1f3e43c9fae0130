"""The page's process: where it listens, whom it lets in, and whom it asks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from nicegui import app, ui

from actors.page import layout, theme
from actors.page.client import Api
from actors.page.guard import Guard
from actors.page.store import Store

PORT = 3000
TOKEN = "api.token"  # noqa: S105 (a file's name)
OWN = ("127.0.0.1", "localhost", "[::1]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until told to end."""
    options = _parser().parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
    )
    token = options.token_file or options.home / TOKEN
    serve(Store(Api(options.api, token)), port=options.port, hosts=options.host)


def serve(store: Store, *, port: int = PORT, hosts: Sequence[str] = ()) -> None:
    """Serve `store` on this machine's own address alone; `hosts` are further names it may be called by."""
    theme.wear()
    app.add_middleware(Guard, hosts=(*OWN, *hosts))
    app.on_startup(store.begin)
    app.on_shutdown(store.end)

    def root() -> None:
        layout.shell(store)

    ui.run(
        root,
        host="127.0.0.1",
        port=port,
        title="HEAN",
        favicon=theme.FAVICON,
        dark=True,
        language="en-US",
        reload=False,
        show=False,
        tailwind=False,  # a compiler in the browser that this page has no need of
        show_welcome_message=False,
        reconnect_timeout=30.0,
        binding_refresh_interval=None,
        timeout_graceful_shutdown=2,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m actors.page", description="The page of HEAN, on this machine alone."
    )
    parser.add_argument("--api", default="http://127.0.0.1:8000", help="where the API is")
    parser.add_argument(
        "--home", type=Path, default=Path("~/.hean").expanduser(), help="HEAN's home: the token is in it"
    )
    parser.add_argument("--token-file", type=Path, help="the API's token, where it is not in HEAN's home")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument(
        "--host", action="append", default=[], help="another name the page may be called by, behind a proxy"
    )
    return parser
