"""What the engine and its actors tell those who ask from outside: plain values, none of them a message of trading."""

import enum
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Struct, field

from hean.messages import TradingState
from hean.monitor import FillView, MonitorState, Point
from hean.risk.usage import LimitUse
from hean.trips import RoundTrip


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
    """What a strategy holds; `entry` is None where nobody knows what was paid for it, `mark` where no price was seen yet."""

    strategy: str
    instrument: str
    quantity: Decimal
    dust: Decimal
    entry: Decimal | None
    age_s: float
    mark: float | None = None


class OrderRow(Struct, frozen=True):
    """An order as last heard of; `quantity` is what was ordered, None where that was not heard."""

    client_order_id: str
    strategy: str
    instrument: str
    status: str
    side: str | None
    filled: Decimal
    average_price: Decimal | None
    reason: str
    age_s: float
    quantity: Decimal | None = None


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

    `gates` is what it waits for, in its own words, where it has any. `last_signal` is what it wanted last, in words, and
    `ts_last_signal` when; empty and None where it wanted nothing yet.
    """

    rows: int
    signals: int
    gates: tuple[str, ...]
    ts_last_signal: int | None = None
    last_signal: str = ""


class WhyView(Struct, frozen=True):
    """Why a strategy did or did not trade: what it saw, what its own gates say now, what risk refused, what came of its orders."""

    strategy: str
    funnel: dict[str, int]
    refusals: tuple[RefusalView, ...]
    gates: tuple[str, ...]
    trading: str
    blocked_by: tuple[str, ...]


class EngineView(Struct, frozen=True):
    """The engine at `ts`. `blocked` says why it does not trade, in words; empty while it may.

    `permit` are the reasons against real money, `armed_until` when the lease for it ends; None where there is none.
    """

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
    armed_until: int | None = None


class StrategyCard(Struct, frozen=True):
    """One strategy as it runs: what it is, how it is set, whether it may open anything.

    `config` and `sizing` are plain JSON; `share` is a share of the equity. `enabled` is None where risk has not said so yet.
    """

    name: str
    use: str
    enabled: bool | None
    instruments: tuple[str, ...]
    config: dict[str, Any]
    share: Decimal
    sizing: dict[str, Any]
    ts_last_signal: int | None = None
    last_signal: str = ""


class FeedFigures(Struct, frozen=True):
    """What the feed shows of one instrument, since it was begun last.

    `ages_s` is how long ago each kind of observation was seen, by its name; `age_s` the least of these, None where nothing
    was seen yet. `live` is the feed's own last word; where it has said nothing, True once anything was seen, and None before. `conflated` counts rows that a later
    one took the place of, summed over all who watch. `price` is the last mark, or the middle of the last quote where it has
    none; of what is not seen any more it is as old as `ages_s` says.
    """

    instrument: str
    live: bool | None
    age_s: float | None
    ages_s: dict[str, float]
    rows: int
    conflated: int
    price: float | None = None


class ConsumerFigures(Struct, frozen=True):
    """One who watches the market: rows it was told, rows that a later one took the place of, rows that wait for it."""

    name: str
    told: int
    conflated: int
    waiting: int


class Picture(Struct, frozen=True):
    """Everything that can be seen of the engine, of one moment: `view.ts`."""

    view: EngineView
    monitor: MonitorState
    why: tuple[WhyView, ...]
    limits: tuple[LimitUse, ...]
    strategies: tuple[StrategyCard, ...]
    feeds: tuple[FeedFigures, ...]
    consumers: tuple[ConsumerFigures, ...] = ()


class History(Struct, frozen=True):
    """What has been, as the monitor knew it at `ts`: the equity curve, oldest first; fills and round trips, newest first.

    Trips that are still open come before those that ended.
    """

    ts: int
    curve: tuple[Point, ...]
    fills: tuple[FillView, ...]
    trips: tuple[RoundTrip, ...]

    def __reduce__(self) -> tuple[Callable[[bytes], "History"], tuple[bytes]]:
        # It may be thousands of points, sent on twice: packed it costs a tenth of what pickling each of them does.
        return _unpacked, (msgspec.msgpack.encode(self),)


def _unpacked(packed: bytes) -> History:
    return msgspec.msgpack.decode(packed, type=History)


class Arming(Struct, frozen=True):
    """An answer about the arming of live trading.

    Where `granted`, real orders may be opened until `until`. Else `reasons` says what stands against it; a `nonce` is given
    only where nothing does, is good for one answer within `nonce_s` seconds, and asks for `phrase` to be typed. `allowed` is
    what would be allowed, by name; `account` and `settings` are what it is bound to, as fingerprints.
    """

    granted: bool
    said: str
    reasons: tuple[str, ...] = ()
    nonce: str = ""
    nonce_s: float | None = None
    phrase: str = ""
    until: int | None = None
    allowed: dict[str, str] = field(default_factory=dict)
    account: str = ""
    settings: str = ""


class Seen(Struct, frozen=True):
    """What the feed has seen of one instrument: when each kind last, by its name, in UTC nanoseconds; and how many rows."""

    instrument: str
    last: dict[str, int]
    rows: int
    conflated: int
    price: float | None = None


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
    """What an actor says of itself when it is asked whether it lives; so nobody else need ask it anything.

    `voice` is a strategy's, `limits` are risk's, `seen` and `consumers` the feed's.
    """

    node: str
    pid: int
    ts: int
    told: int
    said: int
    detail: str = ""
    voice: Voice | None = None
    limits: tuple[LimitUse, ...] = ()
    seen: tuple[Seen, ...] = ()
    consumers: tuple[ConsumerFigures, ...] = ()
