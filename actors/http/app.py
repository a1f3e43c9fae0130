"""The API as one application: Ray Serve runs it, tests call it in process.

Around the routes, from the outside in: `Tracing` gives each request its id, `Guard` lets in who may ask, `Once` does a
request once however often it is sent.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.responses import Response
from starlette.types import Scope

from actors.http import control, jobs, logs, metrics, seeing, stream
from actors.http.asking import READS
from actors.http.home import AccessLog, folder
from actors.http.idempotency import Once
from actors.http.market import VenueMarket, market_router
from actors.http.port import Engine
from actors.http.problems import Problem, documented, install, problem
from actors.http.security import Allowance, Guard
from actors.http.tracing import Tracing
from actors.logs import hide

_ABOUT = """
What the engine shows, and what may be wished of it.

* **Whoever changes something** shows `Authorization: Bearer …` with the token that lies in `api.token` in HEAN's home.
  Reading needs none: no secret is in what is read.
* **Money** is a decimal number as text, observations are numbers, instants ISO 8601 in UTC. What is not known is null.
* **Errors** are problem details (RFC 9457): `detail` names the remedy.
* **`X-Request-ID`** is in every answer, and is the trace of what a request sets going: `hean logs --trace` tells its story.
* **`Idempotency-Key`** with a POST: sent again it is answered again, and done once.
* **`/stream`** is a WebSocket of state, facts and logs.
"""
_TAGS = [
    {"name": "engine", "description": "The engine and its actors."},
    {"name": "control", "description": "Start, stop, kill, reset, arm."},
    {"name": "money", "description": "Positions, orders, fills, round trips, equity."},
    {"name": "strategies", "description": "What each may and does, and why."},
    {"name": "risk", "description": "Limits used and left."},
    {"name": "processes", "description": "What takes long: followed and cancelled at an address of its own."},
    {"name": "market", "description": "Carry board, candles, instruments."},
    {"name": "logs", "description": "What was said, and the story of one order."},
    {"name": "metrics", "description": "For Prometheus."},
]


def build_app(
    engine: Engine,
    *,
    home: Path,
    token: str | None,
    hosts: Iterable[str] = (),
    echoes: bool = True,
    allowance: Allowance | None = None,
) -> FastAPI:
    """The application.

    Args:
        engine: Who is asked.
        home: HEAN's home directory.
        token: What must be shown to change something; None lets nobody.
        hosts: Names that this machine is reached by, beside its own.
        echoes: Whether to put the request's id into the answer's header: Ray Serve does that itself.
        allowance: How many wishes may come; the usual where not given.
    """
    log = AccessLog(home)

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        yield
        log.close()

    app = FastAPIOffline(
        title="HEAN",
        version=metadata.version("hean"),
        summary="Control and sight of a trading engine.",
        description=_ABOUT,
        openapi_tags=_TAGS,
        lifespan=living,
        swagger_ui_parameters={"tryItOutEnabled": True, "persistAuthorization": False},
    )
    app.state.engine, app.state.home, app.state.token = engine, home, token
    if token:
        hide(token)
    install(app)
    for router in (seeing.router, control.router, jobs.router):
        app.include_router(router)
    app.include_router(logs.router, responses=READS)
    app.include_router(metrics.router, responses=documented(403, 500))
    app.include_router(stream.router)
    app.include_router(market_router(VenueMarket(home), READS))
    app.add_middleware(Once, folder=partial(folder, home))
    app.add_middleware(Guard, token=token, hosts=tuple(hosts), allowance=allowance or Allowance())
    app.add_middleware(Tracing, log=log, answer=_bug, echoes=echoes)
    app.openapi = partial(_document, app)  # type: ignore[method-assign]
    return app


def _bug(scope: Scope) -> Response:
    return problem(scope, 500, "a fault of HEAN's own: `hean logs --trace` with the request id finds it", kind="bug")


def _document(app: FastAPI) -> dict[str, Any]:
    """The document, with the problems and the token in it."""
    document = FastAPI.openapi(app)
    parts = document.setdefault("components", {})
    shapes = parts.setdefault("schemas", {})
    shape = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    shapes |= {**shape.pop("$defs", {}), "Problem": shape}
    parts["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "From `api.token` in HEAN's home."}
    }
    for path in document["paths"].values():
        if "post" in path:
            path["post"]["security"] = [{"token": []}]
            key = {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key with the same body is done once, and answered with the same.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
            }
            if key not in path["post"].setdefault("parameters", []):
                path["post"]["parameters"].append(key)
    return document
