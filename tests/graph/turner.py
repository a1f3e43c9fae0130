# a component is handed the time whether it needs it or not
"""Strategies to sweep over: built from settings as anybody's own file is, in a process of its own or not."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.instruments import Perp
from hean.messages import Bar, Leg, Signal


class TurnerState(Struct):
    bars: int = 0


class TurnerConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "turner"
    perp: Perp
    every: int = Field(default=60, gt=0)
    weight: float = Field(default=0.1, gt=0, le=1)
    fails: bool = False
    waits_s: float = Field(default=0.0, ge=0)
    dies_unless: str = Field(default="", description="a file: while it is not there, whoever runs this is killed")


class Turner:
    """Long, flat, short and flat again, every so many bars."""

    def __init__(self, config: TurnerConfig) -> None:
        self.config = config
        self.state = TurnerState()

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        state.bars += 1
        if state.bars == 1:
            time.sleep(config.waits_s)
            if config.dies_unless and not Path(config.dies_unless).exists():
                os.kill(os.getpid(), signal.SIGKILL)
        if state.bars % config.every:
            return
        if config.fails:
            raise ArithmeticError("as it was told to")
        weight = config.weight * (1.0, 0.0, -1.0, 0.0)[state.bars // config.every % 4]
        leg = Leg(config.perp, weight, message.close, message.ts_event)
        yield Signal(config.name, (leg,), "turn", None, None, None, "")

    def wake_at(self) -> int | None:
        return None


class SecretiveConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "secretive"
    perp: Perp
    every: int = 1


class Secretive(Turner):
    """Refuses to be built where an exchange's key could be read."""

    def __init__(self, config: SecretiveConfig) -> None:
        found = [name for name in os.environ if name.startswith(("BYBIT_", "HEAN_KEY"))]
        if found:
            raise PermissionError(f"can read {found}")
        super().__init__(TurnerConfig(name=config.name, perp=config.perp))
