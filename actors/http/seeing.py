"""What can be seen: questions that anybody on this machine may ask, answered from what the engine last heard."""

import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from actors.http import answers, home, schemas
from actors.http.asking import READS, Asked, Json
from actors.http.port import LateError, NoEngineError
from actors.http.problems import documented
from hean.monitor import Status

router = APIRouter(responses=READS)

Limit = Annotated[int, Query(ge=1, le=1_000, description="How many at most.")]
OfStrategy = Annotated[str | None, Query(max_length=100, description="Of this strategy alone.", examples=["impulse"])]


@router.get("/engine/status", tags=["engine"], summary="The engine at a glance", response_model=schemas.Status)
async def status(engine: Asked) -> Json:
    """Phase, trading, what stands against it, equity, every actor with its age, restarts and lag, and the feeds."""
    return Json(answers.status(await engine.picture()))


@router.get(
    "/health",
    tags=["engine"],
    summary="Whether all is well",
    response_model=schemas.Health,
    responses={503: {"model": schemas.Health, "description": "It is not: the reasons say why."}},
)
async def health(engine: Asked) -> Json:
    """For who watches over processes: 200 where all is well, 503 where it is not. That a person stopped trading is well."""
    try:
        found = answers.health(await engine.picture())
    except (NoEngineError, LateError) as trouble:
        found = {"ok": False, "as_of": answers.at(time.time_ns()), "reasons": [str(trouble)]}
    return Json(found, 200 if found["ok"] else 503)


@router.get("/positions", tags=["money"], summary="What is held", response_model=schemas.Positions)
async def positions(engine: Asked) -> Json:
    """By strategy and instrument, as the books have it; legs that hedge each other also as pairs."""
    return Json(answers.positions(await engine.picture()))


@router.get("/orders", tags=["money"], summary="Orders", response_model=schemas.Orders)
async def orders(
    engine: Asked,
    status: Annotated[Status | None, Query(description="Of this status alone.")] = None,
    strategy: OfStrategy = None,
    limit: Limit = 100,
) -> Json:
    """Those that wait, then those that ended or filled; each newest first."""
    found = answers.orders(await engine.picture(), status=status, strategy=strategy, limit=limit)
    return Json(found)


@router.get("/fills", tags=["money"], summary="Fills", response_model=schemas.Fills)
async def fills(engine: Asked, strategy: OfStrategy = None, limit: Limit = 100) -> Json:
    """What traded, newest first."""
    return Json(answers.fills(await engine.history(), strategy=strategy, limit=limit))


@router.get("/trades", tags=["money"], summary="Round trips", response_model=schemas.Trades)
async def trades(engine: Asked, strategy: OfStrategy = None, limit: Limit = 100) -> Json:
    """Positions from flat to flat, newest first, net of fees and funding."""
    return Json(answers.trades(await engine.history(), strategy=strategy, limit=limit))


@router.get("/equity", tags=["money"], summary="The equity and its parts", response_model=schemas.Equity)
async def equity(
    engine: Asked, points: Annotated[int, Query(ge=1, le=4_000, description="Of the curve, at most.")] = 500
) -> Json:
    """The curve, each point with what it is made of, and the profit of each strategy in the same parts."""
    return Json(answers.equity(await engine.picture(), await engine.history(), points=points))


@router.get("/strategies", tags=["strategies"], summary="All strategies", response_model=schemas.Strategies)
async def strategies(engine: Asked) -> Json:
    """What each is, what it may, what it earned, and why it trades or not."""
    return Json(answers.strategies(await engine.picture()))


@router.get(
    "/strategies/{name}",
    tags=["strategies"],
    summary="One strategy",
    response_model=schemas.Strategy,
    responses=documented(404),
)
async def strategy(name: str, engine: Asked) -> Json:
    """What it is, what it may, what it earned, and why it trades or not."""
    return Json(answers.strategy(await engine.picture(), name))


@router.get("/risk", tags=["risk"], summary="Limits used and left", response_model=schemas.Risk)
async def risk(engine: Asked) -> Json:
    """Every limit with what of it is used, and what risk refused."""
    return Json(answers.risk(await engine.picture()))


@router.get(
    "/why",
    tags=["strategies"],
    summary="Why it did or did not trade",
    response_model=schemas.Whys,
    responses=documented(404),
)
async def why(engine: Asked, strategy: OfStrategy = None) -> Json:
    """From what a strategy was shown to what was filled, and what stood in the way."""
    return Json(answers.why(await engine.picture(), strategy))


@router.get("/settings", tags=["engine"], summary="Settings and who set them", response_model=schemas.Settings)
async def settings(request: Request) -> Json:
    """What the engine was begun with; secrets are not shown. Empty where none was begun."""
    where: Path = request.app.state.home
    tree, origins = await run_in_threadpool(home.settings, where)
    found: dict[str, Any] = {"as_of": answers.at(time.time_ns()), "settings": answers.settings(tree, origins)}
    return Json(found)
