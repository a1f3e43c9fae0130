# a component is handed the time whether it needs it or not
"""Strategies that turn round every few seconds, built from settings as anybody's own file is."""

from collections.abc import Iterator

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.instruments import Perp, Spot
from hean.messages import Bracket, Leg, PairFinished, PositionChanged, Quote, Signal, Wake
from hean.units import SECOND


class QuickState(Struct):
    prices: dict[str, tuple[float, int]] = {}
    held: dict[str, float] = {}
    ts_next: int = 0


class ShuttleConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "shuttle"
    perp: Perp
    spot: Spot
    every_s: float = Field(default=0.4, gt=0)


class Shuttle:
    """Opens the carry, closes it, and so on."""

    def __init__(self, config: ShuttleConfig) -> None:
        self.config = config
        self.state = QuickState()

    def handle(self, message: Quote | PositionChanged | PairFinished | Wake, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        match message:
            case Quote():
                state.prices[message.instrument] = (0.5 * (message.bid + message.ask), message.ts_event)
            case PositionChanged():
                state.held[message.instrument] = float(message.quantity)
            case PairFinished():
                state.ts_next = now + round(config.every_s * SECOND)
            case Wake():
                state.ts_next = now + round(config.every_s * SECOND)
                if len(state.prices) == 2:
                    weight = 0.0 if any(state.held.values()) else 1.0
                    legs = (
                        Leg(config.perp, -weight, *state.prices[config.perp]),
                        Leg(config.spot, weight, *state.prices[config.spot]),
                    )
                    yield Signal(config.name, legs, "to and fro", None, None, None, "")

    def wake_at(self) -> int | None:
        return self.state.ts_next


class DartConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "dart"
    perp: Perp
    every_s: float = Field(default=0.5, gt=0)


class Dart:
    """Long with a bracket, flat, and so on."""

    def __init__(self, config: DartConfig) -> None:
        self.config = config
        self.state = QuickState()

    def handle(self, message: Quote | PositionChanged | Wake, now: int) -> Iterator[Signal]:
        state, perp = self.state, self.config.perp
        match message:
            case Quote():
                state.prices[perp] = (0.5 * (message.bid + message.ask), message.ts_event)
            case PositionChanged():
                state.held[message.instrument] = float(message.quantity)
            case Wake():
                state.ts_next = now + round(self.config.every_s * SECOND)
                if state.prices:
                    price, seen = state.prices[perp]
                    weight = 0.0 if state.held.get(perp) else 1.0
                    bracket = Bracket(0.98 * price, 1.05 * price) if weight else None
                    yield Signal(self.config.name, (Leg(perp, weight, price, seen),), "dart", None, None, bracket, "")

    def wake_at(self) -> int | None:
        return self.state.ts_next
