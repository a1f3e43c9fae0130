"""The engine of this Ray, as HTTP asks it: found by its name, asked with a deadline, and found again after its death."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from actors.cluster import NAMESPACE
from actors.http.port import LateError, NoEngineError, NoSuchError
from actors.process_factory import ProcessView
from actors.words import Arming, History, Picture
from hean.errors import ConfigError, HeanError
from hean.processes.runs import RunView

ENGINE = "engine"
FACTORY = "factory"
DEADLINE_S = 5.0
PICTURE_S = 0.2
HISTORY_S = 1.0

T = TypeVar("T")


class RayEngine:
    """The port over actors. There may be none, or a new one at any time: nothing is kept but where it was last.

    Args:
        deadline_s: How long an answer may take.
        picture_s: How long a picture is shown to all who ask.
        history_s: The same for what has been.
    """

    def __init__(
        self, *, deadline_s: float = DEADLINE_S, picture_s: float = PICTURE_S, history_s: float = HISTORY_S
    ) -> None:
        self._engine = Reached(ENGINE, deadline_s)
        self._factory = Reached(FACTORY, deadline_s)
        self._picture: Shared[Picture] = Shared(lambda: self._engine.ask("picture"), picture_s)
        self._history: Shared[History] = Shared(lambda: self._engine.ask("history"), history_s)

    async def picture(self) -> Picture:
        return await self._picture.get()

    async def history(self) -> History:
        found = await self._history.get()
        if not found.ts:
            raise NoEngineError("what has been is not known yet: the engine is being begun, ask again in some seconds")
        return found

    async def start(self, *, person: str, trace: str) -> str:
        return await self._wish("start", person=person, trace=trace)

    async def stop(self, *, flatten: bool, finish: bool, person: str, reason: str, trace: str) -> str:
        return await self._wish("stop", flatten=flatten, finish=finish, person=person, reason=reason, trace=trace)

    async def kill(self, person: str, reason: str, *, trace: str) -> str:
        return await self._wish("kill", person=person, reason=reason, trace=trace)

    async def reset(self, person: str, reason: str, *, trace: str) -> str:
        return await self._wish("reset", person=person, reason=reason, trace=trace)

    async def arm(self, person: str, *, nonce: str, phrase: str, trace: str) -> Arming:
        arming: Arming = await self._engine.ask("arm", person=person, nonce=nonce, phrase=phrase, trace=trace)
        return arming

    async def switch(self, strategy: str, *, on: bool, person: str, reason: str, trace: str) -> str:
        return await self._wish("switch", strategy=strategy, on=on, person=person, reason=reason, trace=trace)

    async def configure(
        self, strategy: str, changes: Mapping[str, Any], *, person: str, reason: str, trace: str
    ) -> str:
        return await self._wish(
            "configure", strategy=strategy, changes=dict(changes), person=person, reason=reason, trace=trace
        )

    async def processes(self) -> list[ProcessView]:
        known: list[ProcessView] = await self._factory.ask("processes")
        return known

    async def runs(self) -> list[RunView]:
        found: list[RunView] = await self._factory.ask("runs")
        return found

    async def run(self, run_id: str) -> RunView:
        try:
            found: RunView = await self._factory.ask("run", run_id)
        except ConfigError as unknown:
            raise NoSuchError(str(unknown)) from None
        return found

    async def request(self, process: str, arguments: Mapping[str, str], *, key: str) -> str:
        run_id: str = await self._factory.ask("request", process, dict(arguments), key)
        return run_id

    async def cancel(self, run_id: str, person: str, reason: str) -> RunView:
        found: RunView = await self._factory.ask("cancel", run_id, person, reason)
        return found

    async def decide(self, run_id: str, person: str, reason: str, *, again: bool) -> RunView:
        found: RunView = await self._factory.ask("decide", run_id, person, reason, again=again)
        return found

    async def _wish(self, method: str, **said: Any) -> str:
        answer: str = await self._engine.ask(method, **said)
        self._picture.forget()  # whoever wished it wants to see what became of it
        return answer


class Reached:
    """An actor by its name: looked up when it is first asked, and again after it has died.

    Args:
        name: What it is called.
        deadline_s: How long an answer may take, the look-up included.
    """

    def __init__(self, name: str, deadline_s: float) -> None:
        self._name = name
        self._deadline_s = deadline_s
        self._handle: Any = None

    async def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of it.

        Raises:
            NoEngineError: There is none, or it is being begun anew.
            LateError: It does not answer in time.
            HeanError: It refuses.
        """
        with self._told_as_ours():
            async with asyncio.timeout(self._deadline_s):
                if self._handle is None:
                    # A look-up blocks: for long where Ray's head is away.
                    self._handle = await asyncio.to_thread(ray.get_actor, self._name, namespace=NAMESPACE)
                return await getattr(self._handle, method).remote(*arguments, **named)

    @contextmanager
    def _told_as_ours(self) -> Any:
        try:
            yield
        except TimeoutError:
            raise LateError(
                f"the {self._name} does not answer within {self._deadline_s:g} s: see `hean logs`"
            ) from None
        except RayTaskError as failure:
            if isinstance(failure.cause, HeanError):
                raise failure.cause from None
            raise
        except RayActorError as death:
            raise NoEngineError(self._why_gone(death)) from None
        except (ValueError, RayError, ConnectionError) as absence:
            self._handle = None
            if isinstance(absence, ValueError) and not str(absence).startswith("Failed to look up actor"):
                raise
            raise NoEngineError("no engine is at work: begin one with `hean up`") from None

    def _why_gone(self, death: RayActorError) -> str:
        if death.actor_init_failed:  # Ray does not begin it anew then
            self._handle = None
            *_, why = str(death).strip().splitlines()
            return f"the {self._name} cannot be begun: {why}; `hean down`, then `hean up` once that is put right"
        if not isinstance(death, ActorUnavailableError):
            self._handle = None
        return f"the {self._name} has died and is being begun anew; whether it heard is not known: ask again in some seconds"


class Shared(Generic[T]):
    """One answer for all who ask within a time, and never more than one question under way.

    Args:
        ask: Asks anew.
        good_s: How long an answer is good.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], good_s: float) -> None:
        self._ask = ask
        self._good_s = good_s
        self._known: tuple[float, T] | None = None
        self._asking: asyncio.Task[T] | None = None

    async def get(self) -> T:
        if self._known is not None and time.monotonic() < self._known[0]:
            return self._known[1]
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew())
            self._asking.add_done_callback(_heard)
        # Whoever leaves does not take the question of the others along.
        return await asyncio.shield(self._asking)

    def forget(self) -> None:
        """Let the next who asks have a new answer."""
        self._known = None
        self._asking = None

    async def _renew(self) -> T:
        began = asyncio.current_task()
        try:
            found = await self._ask()
            if self._asking is began:
                self._known = (time.monotonic() + self._good_s, found)
            return found
        finally:
            if self._asking is began:
                self._asking = None


def _heard(task: "asyncio.Task[Any]") -> None:
    """Take a failure as heard: those who waited have it, or have left."""
    if not task.cancelled():
        task.exception()
