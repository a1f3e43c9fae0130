"""What the engine and its actors tell those who ask from outside: plain values, none of them a message of trading."""

import enum
from decimal import Decimal

from msgspec import Struct, field

from hean.messages import TradingState


class Phase(enum.StrEnum):
    """Where the engine is on the one path of a start."""

    STARTING = "STARTING"
    RECOVERING = "RECOVERING"
    RECONCILING = "RECONCILING"
    WARMING = "WARMING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class ActorView(Struct, frozen=True):
    """One actor: how old, how often begun anew, how far its mailbox is behind. None is not known, never nought."""

    name: str
    kind: str
    pid: int | None
    alive: bool
    age_s: float | None
    restarts: int
    lag_ms: float | None
    told: int | None
    said: int | None
    detail: str = ""


class PositionView(Struct, frozen=True):
    """What a strategy holds; `entry` is None where nobody knows what was paid for it."""

    strategy: str
    instrument: str
    quantity: Decimal
    dust: Decimal
    entry: Decimal | None
    age_s: float


class OrderRow(Struct, frozen=True):
    client_order_id: str
    strategy: str
    instrument: str
    status: str
    side: str | None
    filled: Decimal
    average_price: Decimal | None
    reason: str
    age_s: float


class RefusalView(Struct, frozen=True):
    """How often a rule said no to a strategy, and the last time: measured against limit."""

    rule: str
    count: int
    instrument: str
    measured: str
    limit: str
    age_s: float


class Voice(Struct, frozen=True):
    """What a strategy was shown of the market and how often it wanted something, since it was begun last.

    `gates` is what it waits for, in its own words, where it has any.
    """

    rows: int
    signals: int
    gates: tuple[str, ...]


class WhyView(Struct, frozen=True):
    """Why a strategy did or did not trade: what it saw, what its own gates say now, what risk refused, what came of its orders."""

    strategy: str
    funnel: dict[str, int]
    refusals: tuple[RefusalView, ...]
    gates: tuple[str, ...]
    trading: str
    blocked_by: tuple[str, ...]


class EngineView(Struct, frozen=True):
    """The engine at `ts`. `blocked` says why it does not trade, in words; empty while it may."""

    ts: int
    venue: str
    phase: Phase
    epoch: int
    trading: TradingState | None
    reason: str
    blocked: tuple[str, ...]
    tripped: str
    equity: Decimal | None
    equity_age_s: float | None
    marks_known: bool | None
    reconcile_lag_s: float | None
    discrepancies: int | None
    recovery_s: float | None
    dry_run: bool
    permit: tuple[str, ...]
    actors: tuple[ActorView, ...]
    positions: tuple[PositionView, ...]
    errors: dict[str, dict[str, int]] = field(default_factory=dict)


class Recovered(Struct, frozen=True):
    """What a node's shell says after it has been told its journal again.

    `cursors` is the last number heard of each source, by source with its incarnation; `takes` names the messages that
    the node may be told.
    """

    node: str
    pid: int
    entries: int
    from_snapshot: bool
    seconds: float
    cursors: dict[str, int]
    takes: frozenset[str]


class Pulse(Struct, frozen=True):
    """What an actor says of itself when it is asked whether it lives."""

    node: str
    pid: int
    ts: int
    told: int
    said: int
    detail: str = ""
