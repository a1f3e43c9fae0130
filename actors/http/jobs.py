"""What takes long: runs of processes. Each is begun with 202 and followed, decided on or cancelled at its own address."""

import time
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Request

from actors.http import answers, schemas
from actors.http.asking import READS, WISHES, Asked, Json, person
from actors.http.idempotency import HEADER, digest
from actors.http.port import Engine
from actors.http.problems import documented
from actors.http.schemas import BacktestWish, Decision, EvaluateWish, ProcessWish, Reasoned, SmokeTestWish
from actors.http.tracing import trace_of

router = APIRouter(tags=["processes"])
KNOWN = documented(404)
BEGUN: dict[int | str, dict[str, Any]] = {
    202: {
        "model": schemas.Accepted,
        "description": "It is on its way.",
        "headers": {"Location": {"description": "Where to follow it.", "schema": {"type": "string"}}},
    }
}


@router.get("/processes", summary="Processes and their runs", response_model=schemas.Processes, responses=READS)
async def processes(engine: Asked) -> Json:
    """The processes that may be asked for, the runs under way, and the newest that are over."""
    return Json(answers.processes(await engine.processes(), await engine.runs(), time.time_ns()))


@router.get("/processes/{run_id}", summary="One run", response_model=schemas.Run, responses=READS | KNOWN)
async def run(run_id: str, engine: Asked) -> Json:
    """How it stands, each step with what it found; however old it is."""
    return Json(answers.run(await engine.run(run_id)))


@router.post(
    "/processes", summary="Begin a run", status_code=202, response_model=schemas.Accepted, responses=WISHES | BEGUN
)
async def begin(request: Request, engine: Asked, wish: Annotated[ProcessWish, Body()]) -> Json:
    """The same key stands for the same run; without one, the Idempotency-Key does."""
    return await _begun(request, engine, wish.process, wish.arguments, wish.key)


@router.post("/processes/{run_id}/cancel", summary="End a run", response_model=schemas.Run, responses=WISHES | KNOWN)
async def cancel(run_id: str, engine: Asked, wish: Annotated[Reasoned, Body()]) -> Json:
    """What it has under way is stopped."""
    await engine.run(run_id)
    return Json(answers.run(await engine.cancel(run_id, person(wish), wish.reason)))


@router.post(
    "/processes/{run_id}/decide",
    summary="Answer a run that waits for a person",
    response_model=schemas.Run,
    responses=WISHES | KNOWN,
)
async def decide(run_id: str, engine: Asked, wish: Annotated[Decision, Body()]) -> Json:
    """Of a step that broke off nobody knows how far it came: do it again, or give the run up."""
    await engine.run(run_id)
    return Json(answers.run(await engine.decide(run_id, person(wish), wish.reason, again=wish.again)))


@router.post(
    "/smoke-test/run",
    summary="Send one small order and take it back",
    status_code=202,
    response_model=schemas.Accepted,
    responses=WISHES | BEGUN,
)
async def smoke_test(
    request: Request, engine: Asked, wish: Annotated[SmokeTestWish, Body(default_factory=SmokeTestWish)]
) -> Json:
    """The smallest order, far from the market, through the running engine: sent, amended, cancelled, verified."""
    return await _begun(request, engine, "smoke-test", {"instrument": wish.instrument}, wish.key)


@router.post(
    "/backtest",
    summary="Play a strategy over recorded data",
    status_code=202,
    response_model=schemas.Accepted,
    responses=WISHES | BEGUN,
)
async def backtest(request: Request, engine: Asked, wish: Annotated[BacktestWish, Body()]) -> Json:
    """Figures and a report; the run's last step has them."""
    return await _begun(request, engine, "backtest", _arguments(wish), wish.key)


@router.post(
    "/evaluate",
    summary="Judge a strategy out of sample",
    status_code=202,
    response_model=schemas.Accepted,
    responses=WISHES | BEGUN,
)
async def evaluate(request: Request, engine: Asked, wish: Annotated[EvaluateWish, Body()]) -> Json:
    """Walk forward over rolling windows: parameters are chosen in one and judged in the next. Says how many were tried."""
    windows = {
        "train_days": wish.train_days,
        "test_days": wish.test_days,
        "step_days": wish.step_days,
        "purge_days": wish.purge_days,
        "embargo_days": wish.embargo_days,
    }
    arguments = _arguments(wish)
    arguments |= {name: str(days) for name, days in windows.items() if days is not None}
    arguments |= {f"param.{name}": ",".join(values) for name, values in wish.grid.items()}
    return await _begun(request, engine, "evaluate", arguments, wish.key)


def _arguments(wish: BacktestWish) -> dict[str, str]:
    given = {"strategy": wish.strategy, "symbols": ",".join(wish.symbols), "start": wish.start, "end": wish.end}
    return {name: value for name, value in given.items() if value} | wish.settings


async def _begun(request: Request, engine: Engine, process: str, arguments: dict[str, str], key: str) -> Json:
    """Ask for a run. Its key is the Idempotency-Key where it has no other: then not even a crash in between doubles it."""
    given = request.headers.get(HEADER)
    if not key and given is not None:
        key = f"api-{digest(given)[:32]}"
    run_id = await engine.request(process, arguments, key=key)
    found = await engine.run(run_id)
    here = f"/processes/{quote(run_id, safe='@:+')}"
    body = {
        "run_id": run_id,
        "status": found.status,
        "request_id": trace_of(request),
        "links": {"self": here, "cancel": f"{here}/cancel"},
    }
    return Json(body, 202, headers={"Location": here})
