"""What HTTP asks of the engine: a dozen questions and wishes, none of which waits in a mailbox of trading.

`ray_engine` answers them from the actors; the tests answer them from a fake.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from actors.process_factory import ProcessView
from actors.words import Arming, History, Picture
from hean.errors import HeanError
from hean.processes.runs import RunView


class NoEngineError(HeanError):
    """Nobody is there to be asked: none was begun, or it is being begun anew."""


class LateError(HeanError):
    """The engine is there and did not answer in time: whether it heard is not known."""


class NoSuchError(HeanError):
    """There is no strategy, run or process of this name."""


class Engine(Protocol):
    """The engine, as HTTP sees it.

    Each may raise `NoEngineError` and `LateError`; a wish that is refused is a `HeanError`, whose words name the remedy,
    and one that makes no sense a `ConfigError`. `trace` is given to every message that a wish sets going.
    """

    async def picture(self) -> Picture:
        """All that can be seen, as it was at most a fraction of a second ago."""

    async def history(self) -> History:
        """The equity and what it is made of, fills and round trips, as they were about a second ago.

        Raises:
            NoEngineError: There is none, or it has not heard yet what has been.
        """

    async def start(self, *, person: str, trace: str) -> str:
        """Trade, as soon as nothing stands against it."""

    async def stop(self, *, flatten: bool, finish: bool, person: str, reason: str, trace: str) -> str:
        """Open nothing more; `finish` what is being entered, or `flatten` what is held."""

    async def kill(self, person: str, reason: str, *, trace: str) -> str:
        """Pull the kill switch: cancel, close, verify, latch."""

    async def reset(self, person: str, reason: str, *, trace: str) -> str:
        """Put the kill switch back; trading begins only with `start`."""

    async def arm(self, person: str, *, nonce: str, phrase: str, trace: str) -> Arming:
        """Arm live trading in two steps: without a nonce, one is given; with it and the phrase, it is armed."""

    async def switch(self, strategy: str, *, on: bool, person: str, reason: str, trace: str) -> str:
        """Let one strategy open positions, or not."""

    async def configure(
        self, strategy: str, changes: Mapping[str, Any], *, person: str, reason: str, trace: str
    ) -> str:
        """Give one strategy other parameters; the engine begins anew with them."""

    async def processes(self) -> list[ProcessView]:
        """The processes that may be asked for."""

    async def runs(self) -> list[RunView]:
        """Runs under way, and the newest that are over; the newest first."""

    async def run(self, run_id: str) -> RunView:
        """One run, however old.

        Raises:
            NoSuchError: There is none of this id.
        """

    async def request(self, process: str, arguments: Mapping[str, str], *, key: str) -> str:
        """Ask for a run, and return its id; the same key stands for the same run."""

    async def cancel(self, run_id: str, person: str, reason: str) -> RunView:
        """End a run; what it has under way is stopped."""

    async def decide(self, run_id: str, person: str, reason: str, *, again: bool) -> RunView:
        """Answer a run that waits for a person: do the step again, or give the run up."""
