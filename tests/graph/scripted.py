# a component is handed the time whether it needs it or not
"""Strategies with a script, built from settings as anybody's own file is."""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, Field

from hean.instruments import Perp, Spot
from hean.messages import Bar, BookLevels, Leg, PairFinished, PositionChanged, Quote, Signal, Trade
from hean.tape import Tape
from tests.graph.house import Carrier as Carrier  # noqa: PLC0414 (found by name in this file)
from tests.graph.house import Chatter as Chatter  # noqa: PLC0414


class OnceState(Struct):
    prices: dict[str, tuple[float, int]] = {}
    done: bool = False


class HolderConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "holder"
    perp: Perp
    spot: Spot
    after_ns: int = Field(default=0, description="the pair is opened from this instant on")


class Holder:
    """Opens the carry once both prices are known, and holds it for ever."""

    def __init__(self, config: HolderConfig) -> None:
        self.config = config
        self.state = OnceState()

    def handle(self, message: Bar | PairFinished, now: int) -> Iterator[Signal]:
        state, config = self.state, self.config
        if isinstance(message, PairFinished):
            state.done = message.outcome == "done"
            return
        state.prices[message.instrument] = message.close, message.ts_event
        if state.done or len(state.prices) < 2 or now < config.after_ns:
            return
        if len({ts for _, ts in state.prices.values()}) == 1:
            state.done = True
            legs = tuple(
                Leg(name, weight, *state.prices[name]) for name, weight in ((config.perp, -1.0), (config.spot, 1.0))
            )
            yield Signal(config.name, legs, "hold", None, None, None, "")

    def wake_at(self) -> int | None:
        return None


class ShortConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "short"
    perp: Perp
    weight: float = -1.0


class Short:
    """Takes a position at the first close, and holds it for ever."""

    def __init__(self, config: ShortConfig) -> None:
        self.config = config
        self.state = OnceState()

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        if not self.state.done:
            self.state.done = True
            leg = Leg(self.config.perp, self.config.weight, message.close, message.ts_event)
            yield Signal(self.config.name, (leg,), "hold", None, None, None, "")

    def wake_at(self) -> int | None:
        return None


class TickerState(Struct):
    rows: int = 0
    bid: float = 0.0
    ask: float = 0.0
    levels: int = 0


class TickerConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "ticker"
    perp: Perp
    every: int = 200


class Ticker:
    """Turns round every so many rows of quotes, trades and book changes."""

    def __init__(self, config: TickerConfig) -> None:
        self.config = config
        self.state = TickerState()

    def handle(self, message: Quote | Trade | BookLevels | PositionChanged, now: int) -> Iterator[Signal]:
        state = self.state
        match message:
            case Quote(bid=bid, ask=ask):
                state.bid, state.ask = bid, ask
            case Trade(price=price):
                state.bid = state.ask = price
            case BookLevels():
                state.levels += 1
            case PositionChanged():
                return
        state.rows += 1
        if state.rows % self.config.every == 0 and state.bid:
            weight = (1.0, 0.0, -1.0, 0.0)[state.rows // self.config.every % 4]
            leg = Leg(self.config.perp, weight, (state.bid + state.ask) / 2, message.ts_event)
            yield Signal(self.config.name, (leg,), "turn", None, None, None, "")

    def wake_at(self) -> int | None:
        return None


class PeekerConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "peeker"
    perp: Perp


class Peeker:
    """Cheats: it speaks at the highest close of the whole tape, which only the end of the tape can tell."""

    def __init__(self, config: PeekerConfig) -> None:
        self.config = config
        self.state = OnceState()

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        leg = Leg(self.config.perp, -1.0, message.close, message.ts_event)
        yield Signal(self.config.name, (leg,), "the top", None, None, None, "")

    def wake_at(self) -> int | None:
        return None

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        bars = tape.stream(Bar, self.config.perp)
        top = bars.position(int(np.argmax(bars.columns["close"])))
        return top if start <= top < stop else stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        pass
