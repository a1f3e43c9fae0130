"""What is answered when something is refused or goes wrong: problem details (RFC 9457), with the remedy in words."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from actors.http.answers import encoded
from actors.http.port import LateError, NoEngineError, NoSuchError
from actors.http.tracing import trace_in
from actors.logs import redacted
from hean.errors import ConfigError, HeanError

PROBLEM = "application/problem+json"
RETRY_S = 2
"""When to ask again where nobody is there to answer: a start takes some seconds."""


class Fault(BaseModel):
    """What is wrong with a field."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="By its path; empty for the body as a whole.", examples=["reason"])
    message: str = Field(examples=["is not given, and must be"])


class Problem(BaseModel):
    """What was refused or went wrong, and what to do about it."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="What kind of problem, for programs.", examples=["urn:hean:no-engine"])
    title: str = Field(examples=["Service Unavailable"])
    status: int = Field(ge=400, le=599)
    detail: str = Field(
        description="In words, with the remedy.", examples=["no engine is at work: begin one with `hean up`"]
    )
    instance: str = Field(description="The path that was asked for.")
    request_id: str = Field(description="As in the header X-Request-ID; `hean logs --trace` finds it.")
    errors: list[Fault] = Field(default=[], description="What is wrong with which field.")


class Kind(NamedTuple):
    """A kind of problem: its name for programs, its status, and when to ask again."""

    name: str
    status: int
    retry_s: int | None = None


KINDS: dict[type[HeanError], Kind] = {
    NoSuchError: Kind("unknown", 404),
    NoEngineError: Kind("no-engine", 503, RETRY_S),
    LateError: Kind("late", 504),
    ConfigError: Kind("wrong", 422),
    HeanError: Kind("refused", 409),
}
"""What an error of HEAN is to HTTP; the first that fits."""

_MEANING = {
    400: "The request cannot be read.",
    401: "No token, or a wrong one: it lies in the file `api.token` of HEAN's home directory.",
    403: "From another site, or under a name that this machine is not known by.",
    404: "There is no such thing.",
    409: "Refused as things stand; or a request with the same Idempotency-Key is under way.",
    413: "The request is too large.",
    415: "The body is no JSON.",
    422: "Something in the request is wrong: `errors` names it.",
    429: "Too many requests that change something: ask again after Retry-After seconds.",
    500: "A fault of HEAN's own: the log has it under the request id.",
    503: "Nobody is there to answer: ask again after Retry-After seconds.",
    504: "No answer in time: whether it was heard is not known.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems a route may answer with, for its document."""
    return {
        status: {
            "description": _MEANING[status],
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem(
    scope: Scope,
    status: int,
    detail: str,
    *,
    kind: str = "",
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer that says what is wrong. Nothing in it is secret, whoever wrote the words."""
    body = {
        "type": f"urn:hean:{kind}" if kind else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": redacted(detail),
        "instance": redacted(scope["path"]),
        "request_id": trace_in(scope),
        "errors": redacted(errors),
    }
    return Response(encoded(body), status, headers=headers, media_type=PROBLEM)


def install(app: FastAPI) -> None:
    """Turn whatever a route raises into a problem. What is no error of HEAN's is a bug: `Tracing` answers for it."""
    app.add_exception_handler(HeanError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _by_status)


async def _refused(request: Request, error: Exception) -> Response:
    kind = next(kind for family, kind in KINDS.items() if isinstance(error, family))
    headers = None if kind.retry_s is None else {"Retry-After": str(kind.retry_s)}
    return problem(request.scope, kind.status, str(error), kind=kind.name, headers=headers)


async def _by_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (it is registered for no other)
    detail = str(error.detail)
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "there is nothing here: /docs lists what there is"
    elif error.status_code == 405:
        detail = (
            f"{request.method} is not taken here, but {(error.headers or {}).get('Allow')}: /docs lists what there is"
        )
    return problem(request.scope, error.status_code, detail, headers=error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Say which field is wrong and how. What was given is not repeated: it may be a secret in the wrong place."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 (it is registered for no other)
    known = _fields(request)
    faults = [_fault(one, known) for one in error.errors()]
    told = "; ".join(f"{one['field']}: {one['message']}" if one["field"] else one["message"] for one in faults)
    return problem(request.scope, 422, told, kind="invalid", errors=faults)


def _fault(error: Mapping[str, Any], known: Sequence[str]) -> dict[str, str]:
    """One fault in words. What pydantic calls the place begins with where it was given: body, query, path or header."""
    kind, place = str(error["type"]), [str(part) for part in error["loc"]]
    field = ".".join(place[1:])
    match kind:
        case "json_invalid":
            return {"field": "", "message": "the body is no JSON"}
        case "missing" if not field:
            return {"field": "", "message": "a body is needed: a JSON object"}
        case "model_attributes_type" if not field:
            return {"field": "", "message": "a JSON object is expected, and `Content-Type: application/json` with it"}
        case "missing":
            return {"field": field, "message": "is not given, and must be"}
        case "extra_forbidden":
            near = get_close_matches(place[-1], known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            return {"field": field, "message": f"there is no such field; {hint}"}
        case _:
            return {"field": field, "message": str(error["msg"])}


def _fields(request: Request) -> list[str]:
    """The fields of the body that the route takes."""
    taken: Any = getattr(request.scope.get("route"), "body_field", None)
    model: Any = None if taken is None else taken.field_info.annotation
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []
