"""What can be wished of the engine: start, stop, kill, reset, arm, and a strategy on, off or otherwise.

Each wish takes the request's id along as its trace, so that the log tells what came of it.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Body, Request

from actors.http import answers, schemas
from actors.http.asking import WISHES, Asked, Json, person
from actors.http.problems import documented
from actors.http.schemas import Arm, Configure, Reasoned, Stop, StopMode, Wish
from actors.http.tracing import trace_of

router = APIRouter(responses=WISHES, dependencies=[])
KNOWN = documented(404)


@router.post("/engine/start", tags=["control"], summary="Begin to trade", response_model=schemas.Said)
async def start(request: Request, engine: Asked, wish: Annotated[Wish, Body(default_factory=Wish)]) -> Json:
    """Trade as soon as nothing stands against it; said twice it is the same as once."""
    return _said(request, await engine.start(person=person(wish), trace=trace_of(request)))


@router.post("/engine/stop", tags=["control"], summary="Stop trading", response_model=schemas.Said)
async def stop(request: Request, engine: Asked, wish: Annotated[Stop, Body(default_factory=Stop)]) -> Json:
    """Open nothing more; it stays so over restarts. With `flatten` what is held is closed as well."""
    said = await engine.stop(
        flatten=wish.mode is StopMode.FLATTEN,
        finish=wish.mode is StopMode.GRACEFUL,
        person=person(wish),
        reason=wish.reason,
        trace=trace_of(request),
    )
    return _said(request, said)


@router.post("/engine/kill", tags=["control"], summary="Pull the kill switch", response_model=schemas.Said)
async def kill(request: Request, engine: Asked, wish: Annotated[Reasoned, Body()]) -> Json:
    """Cancel everything, close everything, verify, and stay so until a person resets it. There is no limit on how often."""
    return _said(request, await engine.kill(person(wish), wish.reason, trace=trace_of(request)))


@router.post("/engine/reset", tags=["control"], summary="Put the kill switch back", response_model=schemas.Said)
async def reset(request: Request, engine: Asked, wish: Annotated[Reasoned, Body()]) -> Json:
    """Trading does not begin by this: `/engine/start` does that."""
    return _said(request, await engine.reset(person(wish), wish.reason, trace=trace_of(request)))


@router.post("/engine/arm", tags=["control"], summary="Arm live trading", response_model=schemas.Armed)
async def arm(request: Request, engine: Asked, wish: Annotated[Arm, Body(default_factory=Arm)]) -> Json:
    """In two steps: without a nonce, one is given, with what would be allowed; with it and the phrase, it is armed."""
    trace = trace_of(request)
    found = await engine.arm(person(wish), nonce=wish.nonce, phrase=wish.phrase, trace=trace)
    return Json(answers.armed(found, trace, time.time_ns()))


@router.post(
    "/strategies/{name}/enable",
    tags=["strategies"],
    summary="Let a strategy open positions",
    response_model=schemas.Said,
    responses=KNOWN,
)
async def enable(name: str, request: Request, engine: Asked, wish: Annotated[Reasoned, Body()]) -> Json:
    """It may open positions again."""
    return await _switch(name, request, engine, wish, on=True)


@router.post(
    "/strategies/{name}/disable",
    tags=["strategies"],
    summary="Let a strategy open nothing more",
    response_model=schemas.Said,
    responses=KNOWN,
)
async def disable(name: str, request: Request, engine: Asked, wish: Annotated[Reasoned, Body()]) -> Json:
    """It may still close what it holds."""
    return await _switch(name, request, engine, wish, on=False)


@router.post(
    "/strategies/{name}/configure",
    tags=["strategies"],
    summary="Give a strategy other parameters",
    response_model=schemas.Said,
    responses=KNOWN,
)
async def configure(name: str, request: Request, engine: Asked, wish: Annotated[Configure, Body()]) -> Json:
    """The engine begins anew with them, by the one path of every start; what is held stays held."""
    answers.must_have(await engine.picture(), name)
    said = await engine.configure(name, wish.changes, person=person(wish), reason=wish.reason, trace=trace_of(request))
    return _said(request, said)


async def _switch(name: str, request: Request, engine: Asked, wish: Reasoned, *, on: bool) -> Json:
    answers.must_have(await engine.picture(), name)
    said = await engine.switch(name, on=on, person=person(wish), reason=wish.reason, trace=trace_of(request))
    return _said(request, said)


def _said(request: Request, said: str) -> Json:
    return Json({"said": said, "request_id": trace_of(request)})
