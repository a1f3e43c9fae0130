"""All that changes about risk, in one place: what a snapshot holds."""

from decimal import Decimal

from msgspec import Struct, field

from hean.messages import TradingState
from hean.risk.exposure import ZERO, Order, Slot
from hean.risk.killswitch import KillSwitchState
from hean.risk.memory import MemoryState


class Seen(Struct):
    """A price and when it was heard: a signal's own, or that of a fill."""

    price: float | Decimal
    ts: int


class Flattening(Struct):
    """Everything is being closed. `attempts` counts the times something was sent; `verifying` once the venue was asked."""

    next_at: int | None
    backoff: int
    attempts: int = 0
    verifying: bool = False


class RiskState(Struct):
    """All that changes. `reducing` holds the causes for not opening, in words: trading is active when there is none."""

    trading: TradingState = TradingState.HALTED
    started: bool = False
    reducing: dict[str, str] = field(default_factory=dict)
    issued: int = 0
    equity: Decimal | None = None
    day: int = -1
    day_equity: Decimal = ZERO
    slots: dict[str, dict[str, Slot]] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    shares: dict[str, Decimal] = field(default_factory=dict)
    prices: dict[str, Seen] = field(default_factory=dict)
    stale: dict[str, int] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    ts_reconciled: int | None = None
    flattening: Flattening | None = None
    kill: KillSwitchState = field(default_factory=KillSwitchState)
    memory: MemoryState = field(default_factory=MemoryState)
