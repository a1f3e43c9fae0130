"""Two plain rules for measuring the engine: each says where it may speak, as the built-in strategies do."""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from numba import njit
from pydantic import BaseModel, Field

from hean.instruments import Perp
from hean.messages import Bar, Bracket, Leg, PositionChanged, Signal, Trade, Wake
from hean.tape import Tape

MINUTE = 60_000_000_000


class ImpulseRuleConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = Field(default="impulse", description="node name")
    instrument: Perp = Field(description="what is traded")
    lookback: int = Field(default=2, description="bars the move is measured over")
    move: float = Field(default=0.004, description="fraction the close must have moved")
    stop: float = Field(default=0.006, description="stop-loss, fraction of the close")
    target: float = Field(default=0.009, description="take-profit, fraction of the close")
    hold_bars: int = Field(default=60, description="bars after which it is closed")


class ImpulseRuleState(Struct):
    closes: list[float]
    held: float = 0.0
    ts_out: int | None = None


class ImpulseRule:
    """Enter with a move of the close; leave at the bracket or after a time."""

    def __init__(self, config: ImpulseRuleConfig) -> None:
        self.config = config
        self.state = ImpulseRuleState([])

    def handle(self, message: Bar | PositionChanged | Wake, now: int) -> Iterator[Signal]:
        config, state = self.config, self.state
        kind = type(message)
        if kind is Bar:
            closes = state.closes
            closes.append(message.close)
            if len(closes) > config.lookback + 1:
                del closes[0]
            if len(closes) <= config.lookback or state.held:
                return
            close = closes[-1]
            moved = close / closes[0] - 1
            if abs(moved) < config.move:
                return
            sign = 1.0 if moved > 0 else -1.0
            bracket = Bracket(close * (1 - sign * config.stop), close * (1 + sign * config.target))
            yield Signal(config.name, (Leg(config.instrument, sign, close, now),), "moved", None, None, bracket, "")
        elif kind is PositionChanged:
            state.held = float(message.quantity)
            state.ts_out = now + config.hold_bars * MINUTE if state.held else None
        else:
            state.ts_out = None
            leg = Leg(config.instrument, 0.0, state.closes[-1], now)
            yield Signal(config.name, (leg,), "time", None, None, None, "")

    def wake_at(self) -> int | None:
        return self.state.ts_out

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        if self.state.held:
            return stop
        bars = tape.stream(Bar, self.config.instrument)
        first, last = bars.rows_before(start), bars.rows_before(stop)
        row = first_move(bars.columns["close"], self.config.lookback, self.config.move, first, last)
        return bars.position(row) if row < last else stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        bars = tape.stream(Bar, self.config.instrument)
        last = bars.rows_before(stop)
        first = max(0, last - self.config.lookback - 1)
        if last > bars.rows_before(start):
            self.state.closes = bars.columns["close"][first:last].tolist()


@njit(cache=True)
def first_move(close, lookback, move, start, stop):
    for row in range(max(start, lookback), stop):
        if abs(close[row] / close[row - lookback] - 1) >= move:
            return row
    return stop


class EmaCrossConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = Field(default="ema", description="node name")
    instrument: Perp = Field(description="what is traded")
    fast: int = Field(default=1_000, description="trades the fast mean decays over")
    slow: int = Field(default=4_000, description="trades the slow mean decays over")
    band: float = Field(default=0.0, description="fraction the means must differ by, against chatter")


class EmaCrossState(Struct):
    fast: float = 0.0
    slow: float = 0.0
    seen: int = 0
    held: float = 0.0
    asked: int = 0


class EmaCross:
    """Long while the fast mean of the trades is over the slow one, else nothing."""

    def __init__(self, config: EmaCrossConfig) -> None:
        self.config = config
        self.state = EmaCrossState()
        self._a = 2 / (config.fast + 1)
        self._b = 2 / (config.slow + 1)

    def handle(self, message: Trade | PositionChanged, now: int) -> Iterator[Signal]:
        state = self.state
        if type(message) is PositionChanged:
            state.held = float(message.quantity)
            return
        price = message.price
        if state.seen == 0:
            state.fast = state.slow = price
        else:
            state.fast += self._a * (price - state.fast)
            state.slow += self._b * (price - state.slow)
        state.seen += 1
        if state.seen < self.config.slow:
            return
        apart = state.fast / state.slow - 1
        long = state.held > 0
        if (not long and apart > self.config.band) or (long and apart < -self.config.band):
            wanted = 0.0 if long else 1.0
            if state.asked == state.seen - 1:
                return  # the order said at the last trade fills at this one
            state.asked = state.seen
            yield Signal(
                self.config.name, (Leg(self.config.instrument, wanted, price, now),), "cross", None, None, None, ""
            )

    def wake_at(self) -> int | None:
        return None

    def _means(self, tape: Tape):
        trades = tape.stream(Trade, self.config.instrument)
        return tape.derived(("ema", self._a, self._b), lambda: ema_columns(trades.columns["price"], self._a, self._b))

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        state = self.state
        trades = tape.stream(Trade, self.config.instrument)
        fast, slow = self._means(tape)
        first, last = trades.rows_before(start), trades.rows_before(stop)
        first = max(first, self.config.slow - 1)
        first = max(first, state.asked + 1) if state.asked else first
        row = first_cross(fast, slow, self.config.band, state.held > 0, first, last)
        return trades.position(row) if row < last else stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        trades = tape.stream(Trade, self.config.instrument)
        row = trades.rows_before(stop)
        if row:
            fast, slow = self._means(tape)
            self.state.fast, self.state.slow, self.state.seen = fast.item(row - 1), slow.item(row - 1), row


@njit(cache=True)
def ema_columns(price, a, b):
    fast = np.empty(price.size)
    slow = np.empty(price.size)
    f = s = price[0]
    for row in range(price.size):
        if row:
            f += a * (price[row] - f)
            s += b * (price[row] - s)
        fast[row] = f
        slow[row] = s
    return fast, slow


@njit(cache=True)
def first_cross(fast, slow, band, long, start, stop):
    for row in range(start, stop):
        apart = fast[row] / slow[row] - 1
        if apart < -band if long else apart > band:
            return row
    return stop
