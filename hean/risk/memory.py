"""Decision memory: the kinds of market in which a strategy has lost.

A context is a cell: strategy, regime, volatility and session, 27 per strategy. A cell is blocked when it has trades
enough, its mean is almost certainly below zero after shrinking towards the strategy's own, and the finding survives
Benjamini-Hochberg over all cells. Not loss streaks: a strategy that wins 55 % of its trades loses three in a row
within thirty trades four times in five.

Outcomes are net basis points of closed single-leg trades. A pair earns by funding, which no fill shows, so pairs
are not judged.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from statistics import NormalDist
from typing import Literal

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.units import DAY, HOUR

FAR = 1e300  # no such price: an infinity would not survive being encoded

_NORMAL = NormalDist()


class MemoryConfig(BaseModel, frozen=True, extra="forbid"):
    mode: Literal["off", "observe", "enforce"] = Field(
        default="observe", description="whether blocks are kept, and refuse"
    )
    enforce_after: int = Field(
        default=200, ge=0, description="outcomes known, of all strategies, before a block refuses"
    )
    min_trades: int = Field(default=20, ge=2, description="trades in a cell before it is judged")
    shrinkage: float = Field(default=20, ge=0, description="weight of the strategy's mean in a cell's, in trades")
    block_above: float = Field(default=0.95, gt=0.5, lt=1, description="probability that the mean is below 0")
    unblock_above: float = Field(default=0.60, ge=0.5, lt=1, description="probability that the mean is above 0")
    false_discoveries: float = Field(default=0.10, gt=0, lt=1, description="share of blocks that may be luck")
    block_days: float = Field(default=7, gt=0, description="a block ends after as many days")
    shadow_cost_bp: float = Field(
        default=11, ge=0, description="round trip charged to a trade that was only imagined, bp"
    )
    shadow_hours: float = Field(
        default=24, gt=0, description="an imagined trade ends at the first price after as many hours"
    )


class Cell(Struct):
    """The outcomes of one context, in basis points. `shadows` of the `count` were imagined while it was blocked."""

    strategy: str
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    shadows: int = 0
    blocked_until: int = 0

    @property
    def mean(self) -> float:
        return self.total / self.count


class Shadow(Struct):
    """A trade that a block refused, followed by the prices that later signals carry. `stop` and `target` times `sign`."""

    context: str
    sign: int
    entry: float
    stop: float
    target: float
    ts: int


class MemoryState(Struct):
    """Cells by `strategy|context`, shadows by `strategy|instrument`."""

    cells: dict[str, Cell] = field(default_factory=dict)
    shadows: dict[str, Shadow] = field(default_factory=dict)
    outcomes: int = 0


class DecisionMemory:
    """Told outcomes, it answers whether a context is blocked."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self._enforced = config.mode == "enforce"
        self.state = MemoryState()

    def blocked(self, strategy: str, context: str, now: int) -> bool:
        """Whether a signal from this context is to be refused."""
        if not self._enforced or self.state.outcomes < self.config.enforce_after:
            return False
        cell = self.state.cells.get(f"{strategy}|{context}")
        return cell is not None and now < cell.blocked_until

    def record(self, strategy: str, context: str, outcome_bp: float, now: int, *, shadow: bool = False) -> None:
        """Take the outcome of a trade that has closed, and judge its cell anew."""
        if self.config.mode == "off" or not context:
            return
        state = self.state
        cell = state.cells.setdefault(f"{strategy}|{context}", Cell(strategy))
        cell.count += 1
        cell.total += outcome_bp
        cell.squares += outcome_bp * outcome_bp
        cell.shadows += shadow
        state.outcomes += 1
        self._judge(cell, now)

    def probability_of_loss(self, cell: Cell) -> float:
        """P(mean < 0): normal, around the cell's mean shrunk towards that of the strategy's other cells.

        The others weigh `shrinkage` trades when their mean is well known, and less while it is not: a
        strategy with a single cell has nothing but that cell to go by.
        """
        family = [other for other in self.state.cells.values() if other.strategy == cell.strategy]
        count = sum(other.count for other in family)
        total = sum(other.total for other in family)
        spread = _deviation(count, total / count, sum(other.squares for other in family))
        others = count - cell.count
        parent = (total - cell.total) / others if others else 0.0
        trust = self.config.shrinkage * others / (self.config.shrinkage + others) if others else 0.0
        weight = cell.count + trust
        return _below_zero((cell.total + trust * parent) / weight, spread / math.sqrt(weight))

    def _judge(self, cell: Cell, now: int) -> None:
        if cell.count < self.config.min_trades:
            return
        loss = self.probability_of_loss(cell)
        if now < cell.blocked_until:
            if 1 - loss > self.config.unblock_above:
                cell.blocked_until = now
        elif loss > self.config.block_above and self._survives(cell):
            cell.blocked_until = now + round(self.config.block_days * DAY)

    def _survives(self, cell: Cell) -> bool:
        """Benjamini-Hochberg over every cell with trades enough, each tested on its own trades alone."""
        tested = [other for other in self.state.cells.values() if other.count >= self.config.min_trades]
        chances = [self._chance(other) for other in tested]
        return discoveries(chances, self.config.false_discoveries)[tested.index(cell)]

    @staticmethod
    def _chance(cell: Cell) -> float:
        """How likely so low a mean is by chance if the true one is 0."""
        error = _deviation(cell.count, cell.mean, cell.squares) / math.sqrt(cell.count)
        return 1 - _below_zero(cell.mean, error)

    # --- what a block refused -------------------------------------------------------------------

    def imagine(self, strategy: str, instrument: str, shadow: Shadow) -> None:
        """Follow a trade that a block refused, unless one is being followed already."""
        self.state.shadows.setdefault(f"{strategy}|{instrument}", shadow)

    def follow(self, strategy: str, instrument: str, price: float, weight: float, now: int) -> None:
        """Show an imagined trade a price: it ends at its bracket, when the strategy leaves or turns, or when it is old."""
        key = f"{strategy}|{instrument}"
        shadow = self.state.shadows.get(key)
        if shadow is None:
            return
        out = not shadow.stop < shadow.sign * price < shadow.target
        if out or weight * shadow.sign <= 0 or now - shadow.ts >= self.config.shadow_hours * HOUR:
            del self.state.shadows[key]
            gain = shadow.sign * (price / shadow.entry - 1) * 1e4 - self.config.shadow_cost_bp
            self.record(strategy, shadow.context, gain, now, shadow=True)


def discoveries(chances: Sequence[float], rate: float) -> list[bool]:
    """Say which of several findings stand when at most `rate` of those that do may be luck.

    Source:
        Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B 57(1), 1995.
    """
    ranked = sorted(chances)
    cut = max((p for rank, p in enumerate(ranked, 1) if p <= rate * rank / len(ranked)), default=-1.0)
    return [p <= cut for p in chances]


class RoundTrip(Struct):
    """One trade in the making: what has been bought and sold since the position was last flat.

    `cash` is what it has brought so far, fees paid; `notional` is the value of what was entered with.
    """

    context: str
    quantity: Decimal = Decimal(0)
    cash: float = 0.0
    notional: float = 0.0

    def outcome_bp(self) -> float:
        """Net gain over the value entered with. Only a closed trade has one."""
        return self.cash / self.notional * 1e4 if self.notional else 0.0

    def fold(self, quantity: Decimal, price: float, fee: float) -> float | None:
        """Add a fill, signed; the outcome of the trade it closes, if it turns the position round."""
        before = self.quantity
        after = self.quantity = before + quantity
        if before * quantity >= 0:
            value = abs(float(quantity)) * price
            self.notional += value
            self.cash -= math.copysign(value, quantity) + fee
            return None
        if before * after >= 0:
            self.cash -= float(quantity) * price + fee
            return None
        paid = fee * float(-before / quantity)
        self.cash += float(before) * price - paid
        closed = self.outcome_bp()
        self.notional = abs(float(after)) * price
        self.cash = -float(after) * price - (fee - paid)
        return closed


def _deviation(count: int, mean: float, squares: float) -> float:
    """The sample's standard deviation, from its count, mean and sum of squares."""
    return math.sqrt(max(0.0, squares - count * mean * mean) / max(1, count - 1))


def _below_zero(mean: float, error: float) -> float:
    if error == 0:
        return 1.0 if mean < 0 else 0.0 if mean > 0 else 0.5
    return _NORMAL.cdf(-mean / error)
