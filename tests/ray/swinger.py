# a component is handed the time whether it needs it or not
"""A strategy to evaluate: sized by risk, as a process runs it; read as a file of anybody's."""

import time
from collections.abc import Iterator

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.instruments import Perp
from hean.messages import Bar, Bracket, Leg, Signal


class SwingerState(Struct):
    bars: int = 0


class SwingerConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "swinger"
    perp: Perp
    every: int = Field(default=60, gt=0)
    fails: bool = False
    waits_s: float = Field(default=0.0, ge=0)


class Swinger:
    """Long with a wide bracket, then flat, every so many bars."""

    def __init__(self, config: SwingerConfig) -> None:
        self.config = config
        self.state = SwingerState()

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        state.bars += 1
        if state.bars == 1:
            time.sleep(config.waits_s)
        if state.bars % config.every:
            return
        if config.fails:
            raise ArithmeticError("as it was told to")
        price = message.close
        weight = float(state.bars // config.every % 2)
        bracket = Bracket(0.9 * price, 1.2 * price) if weight else None
        yield Signal(
            config.name, (Leg(config.perp, weight, price, message.ts_event),), "swing", None, None, bracket, ""
        )

    def wake_at(self) -> int | None:
        return None
