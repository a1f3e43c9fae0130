"""Strategies that never rest: one that turns about in one instrument, one that opens and closes a pair. They seek no gain."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.instruments import Category
from hean.messages import Leg, PositionChanged, Quote, Signal
from hean.units import SECOND

Perpetual = Annotated[str, Category.LINEAR]
Coin = Annotated[str, Category.SPOT]


class ChurnConfig(BaseModel, frozen=True, extra="forbid"):
    name: str
    perp: Perpetual
    every_s: float = Field(default=0.5, gt=0, description="seconds between two changes of mind")


class ChurnState(Struct):
    ts_last: int = 0
    turn: int = 0


class Churn:
    """Long, flat, short, flat, and again."""

    def __init__(self, config: ChurnConfig) -> None:
        self.config = config
        self.state = ChurnState()

    def handle(self, message: Quote | PositionChanged, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        if isinstance(message, PositionChanged) or now - state.ts_last < config.every_s * SECOND:
            return
        state.ts_last = now
        state.turn += 1
        weight = (1.0, 0.0, -1.0, 0.0)[state.turn % 4]
        price = (message.bid + message.ask) / 2
        yield Signal(config.name, (Leg(config.perp, weight, price, now),), "churn", None, None, None, "")

    def waits_for(self, now: int) -> tuple[str, ...]:
        left = self.config.every_s - (now - self.state.ts_last) / SECOND
        return (f"waits for: {left:.1f} s more",) if left > 0 else ("met: it is time",)

    def wake_at(self) -> int | None:
        return None


class PairChurnConfig(BaseModel, frozen=True, extra="forbid"):
    name: str
    perp: Perpetual
    spot: Coin
    every_s: float = Field(default=2.0, gt=0, description="seconds between two changes of mind")


class PairChurnState(Struct):
    ts_last: int = 0
    wanted: float = 0.0
    prices: dict[str, float] = {}
    seen: dict[str, int] = {}


class PairChurn:
    """Short the perpetual and long the coin, then neither, and again."""

    def __init__(self, config: PairChurnConfig) -> None:
        self.config = config
        self.state = PairChurnState()

    def handle(self, message: Quote | PositionChanged, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        if isinstance(message, PositionChanged):
            return
        state.prices[message.instrument] = (message.bid + message.ask) / 2
        state.seen[message.instrument] = now
        if len(state.prices) < 2 or now - state.ts_last < config.every_s * SECOND:
            return
        state.ts_last = now
        state.wanted = 1.0 - state.wanted
        legs = (
            Leg(config.perp, -state.wanted, state.prices[config.perp], state.seen[config.perp]),
            Leg(config.spot, state.wanted, state.prices[config.spot], state.seen[config.spot]),
        )
        yield Signal(config.name, legs, "churn", 50.0, None, None, "")

    def wake_at(self) -> int | None:
        return None


class DoomedConfig(ChurnConfig):
    doom: Path = Field(
        description="a file: while it is there, all that is heard is death; one that says once goes with the first"
    )


class Doomed(Churn):
    """One that raises when it is told to."""

    def __init__(self, config: DoomedConfig) -> None:
        super().__init__(config)
        self.doom = config.doom

    def handle(self, message: Quote | PositionChanged, now: int) -> Iterator[Signal]:
        if self.doom.exists():
            if self.doom.read_text() == "once":
                self.doom.unlink()
            raise RuntimeError("doomed")
        return super().handle(message, now)
