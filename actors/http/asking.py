"""What the routes have in common: the engine they ask, how an answer is written, and what each may be refused with."""

from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.responses import Response

from actors.http.answers import encoded
from actors.http.port import Engine
from actors.http.problems import documented
from actors.http.schemas import Wish

READS = documented(403, 422, 500, 503, 504)
"""What a question may be refused with."""

WISHES = documented(400, 401, 403, 409, 413, 422, 429, 500, 503, 504)
"""What a wish may be refused with."""

API = "api"
"""Who wishes something where nobody gave a name."""


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


Asked = Annotated[Engine, Depends(_engine)]


class Json(Response):
    """An answer as it stands: `schemas` describes it, and the tests hold it to that."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encoded(content)


def person(wish: Wish) -> str:
    """Who wishes it."""
    return wish.person or API
