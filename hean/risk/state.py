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
    """Everything is being closed. `attempts` counts the times something was sent; `verifying` once the venue was asked.

    It is `denied` once the venue has shown that something is left, and `denials` counts how often that was so.
    """

    next_at: int | None
    backoff: int
    attempts: int = 0
    verifying: bool = False
    denied: bool = False
    denials: int = 0


class Off(Struct, frozen=True):
    """Who switched a strategy off, why, and when."""

    person: str
    reason: str
    ts: int


class Skew(Struct):
    """Our clock and the venue's differ: since when without a pause, and when that was last reported."""

    since: int
    last: int


class RiskState(Struct):
    """All that changes. `reducing` holds the causes for not opening, in words: trading is active when there is none.

    `issued` counts the ids given in this `epoch`. `earlier` names the orders and pairs of earlier lives of which the broker
    has not said whether they live on. `finishing` is why trading comes to its end once what is under way has finished, empty
    while it does not; `off` names the strategies that may open nothing.
    """

    trading: TradingState = TradingState.HALTED
    started: bool = False
    ts_started: int = 0
    epoch: int = 0
    earlier: list[str] = field(default_factory=list)
    reducing: dict[str, str] = field(default_factory=dict)
    finishing: str = ""
    off: dict[str, Off] = field(default_factory=dict)
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
    ts_jumped: int | None = None
    skew: Skew | None = None
    flattening: Flattening | None = None
    kill: KillSwitchState = field(default_factory=KillSwitchState)
    memory: MemoryState = field(default_factory=MemoryState)
