"""What was said: the newest lines of all actors, and the story of one order."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from actors import logs
from actors.http import answers
from actors.http.asking import READS, Json
from actors.http.home import folder
from actors.http.port import NoSuchError
from actors.http.problems import documented

router = APIRouter(tags=["logs"], responses=READS)

Level = Literal["debug", "info", "warning", "error", "critical"]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Shape):
    """One line of an actor's log."""

    ts: str = Field(description="When it was written, UTC.", examples=["2026-11-23T03:04:05.678901Z"])
    node: str = Field(description="Whose it is.", examples=["risk"])
    level: str = Field(examples=["info"])
    event: str = Field(description="What happened, or the message that was said.", examples=["SubmitOrder"])
    rest: dict[str, Any] = Field(
        description="What else the line says: `said` is the message, `trace` what set it going, `cause` what it answers.",
        examples=[{"id": "risk@7:3", "trace": "feed@7:9", "said": {"client_order_id": "abc1-impulse-000123"}}],
    )


class Lines(_Shape):
    as_of: datetime
    nodes: list[str] = Field(description="Whose logs there are.")
    lines: list[Line] = Field(description="The newest, oldest first.")


class Story(_Shape):
    """All that was said of one thing, from the request or the signal through risk, broker and venue to the books."""

    as_of: datetime
    id: str
    traces: list[str] = Field(description="What set it going.")
    orders: list[str] = Field(description="Our ids of the orders that it is about.", examples=[["abc1-impulse-000123"]])
    lines: list[Line] = Field(description="Oldest first.")


@router.get("/logs", summary="The newest lines", response_model=Lines)
async def newest(
    request: Request,
    node: Annotated[list[str] | None, Query(description="Of this actor alone; several may be named.")] = None,
    trace: Annotated[str, Query(max_length=200, description="Of this trace, request or message alone.")] = "",
    level: Annotated[Level, Query(description="Of this level and above.")] = "info",
    limit: Annotated[int, Query(ge=1, le=2_000, description="How many at most.")] = 200,
) -> Json:
    """What all actors wrote, by time; files are read from their ends."""
    wanted = logs.Wanted(tuple(node or ()), trace, level)
    return Json(await run_in_threadpool(_newest, request.app.state.home, wanted, limit))


@router.get(
    "/logs/trace/{sought}",
    summary="The story of one thing",
    response_model=Story,
    responses=documented(404),
)
async def story(
    request: Request,
    sought: Annotated[
        str,
        InPath(
            min_length=1,
            max_length=200,
            description="A request's id, a trace, a message's id, an order's id (ours or the venue's), a trade's or a pair's.",
            examples=["abc1-impulse-000123"],
        ),
    ],
) -> Json:
    """Every line of every actor about it, by time."""
    return Json(await run_in_threadpool(_told, request.app.state.home, sought))


def _newest(home: Path, wanted: logs.Wanted, limit: int) -> answers.Body:
    where = folder(home)
    return {
        "as_of": answers.at(time.time_ns()),
        "nodes": [] if where is None else logs.nodes(where),
        "lines": [] if where is None else _shown(logs.newest(where, wanted, limit)),
    }


def _told(home: Path, sought: str) -> answers.Body:
    """The story of one thing.

    Raises:
        NoSuchError: Nobody said anything of it.
    """
    where = folder(home)
    told = None if where is None else logs.story(where, sought)
    if told is None or not told.lines:
        raise NoSuchError(f"no log that is kept names {sought}")
    return {
        "as_of": answers.at(time.time_ns()),
        "id": sought,
        "traces": told.traces,
        "orders": told.orders,
        "lines": _shown(told.lines),
    }


def _shown(lines: Sequence[logs.Line]) -> Any:
    """Lines as they are shown. Each was written without its secrets; what this process alone knows is taken out here."""
    return logs.redacted(msgspec.to_builtins(lines))
