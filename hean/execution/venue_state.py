"""What a simulated venue is told at the start, and all of it that changes."""

import enum
from decimal import Decimal

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.execution.account import Account
from hean.execution.margin import ZERO
from hean.market.book import OrderBook
from hean.messages import Side, SubmitOrder, VenueEntry


class Tier(enum.StrEnum):
    """How much of an instrument's market is known, coarsest first."""

    BARS = "bars"
    TRADES = "trades"
    BOOK = "book"


class SimulatedVenueConfig(BaseModel, frozen=True, extra="forbid"):
    balances: dict[str, Decimal] = Field(
        default={"USDT": Decimal(10_000)}, description="what the account begins with, by coin"
    )
    fee_tier: str = Field(default="base", description="Bybit fee tier: base, vip1 ... vip5, supreme")
    stale_entry_s: float = Field(
        default=3600.0,
        gt=0,
        description="seconds an entry waits for a first price, where no book is known; then it expires",
    )
    half_spread_bp: float = Field(
        default=0.5,
        ge=0,
        le=100,
        description="basis points a taker pays beyond a printed price, where no book is known",
    )
    latency_ms: float = Field(
        default=80.0, ge=0, description="milliseconds from our order or cancel to the venue; candles know none"
    )
    latency_jitter_ms: float = Field(default=40.0, ge=0, description="milliseconds it may be shorter or longer, evenly")
    seed: int = Field(default=1, description="of the latencies, together with each order's id")
    leverage: Decimal = Field(
        default=Decimal(10), gt=0, description="leverage the account is set to; margin is 1/leverage"
    )
    haircut: float = Field(
        default=0.05, ge=0, lt=1, description="share of a spot coin's value that does not count as margin"
    )
    borrow_rate_hourly: Decimal = Field(
        default=Decimal("0.00001"), ge=0, description="interest an hour on quote currency borrowed to carry losses"
    )
    borrow_free: Decimal = Field(
        default=ZERO, ge=0, description="quote currency of unrealised loss that bears no interest"
    )
    cancel_share: float = Field(
        default=0.5, ge=0, le=1, description="share of cancelled size taken to have stood before us in the queue"
    )


class Working(Struct, gc=False):
    """An order on its way, or resting. `ahead` is the size in the queue before it.

    `displayed` is its level's size when last shown, `traded` what has traded there since.
    """

    order: SubmitOrder
    left: Decimal
    ts_arrives: int
    ts_cancel: int | None = None
    resting: bool = False
    limit: float = 0.0
    ahead: float = 0.0
    displayed: float = 0.0
    traded: float = 0.0


class Held(Struct, gc=False):
    """Exits held for a filled entry: they close `left` on `side`, whichever price comes first."""

    entry: str
    strategy: str
    side: Side
    left: Decimal
    stop: Decimal
    target: Decimal | None
    stop_at: float
    target_at: float

    def reached(self, low: float, high: float) -> str:
        """Which exit a range of prices reaches, the stop before the target; empty for neither."""
        if self.side is Side.SELL:
            return "stop" if low <= self.stop_at else "target" if high >= self.target_at else ""
        return "stop" if high >= self.stop_at else "target" if low <= self.target_at else ""


class Desk(Struct):
    """One instrument: its last price, its open candle, and what of ours is at work in it."""

    price: float | None = None
    ts_opened: int = -1
    open: float = 0.0
    working: dict[str, Working] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)


class SimulatedVenueState(Struct):
    """`ts_interest` is when interest is next due, None while nothing is borrowed; `link_ids` are those used up.

    `books` is what is displayed where a book is known, `log` the newest of what was booked. `owned` is each strategy's part of the netted derivative positions, by instrument and strategy: what its exits may close.
    """

    account: Account
    desks: dict[str, Desk]
    trades: int = 0
    orders: int = 0
    ts_interest: int | None = None
    owned: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    link_ids: dict[str, None] = field(default_factory=dict)
    books: dict[str, OrderBook] = field(default_factory=dict)
    log: list[VenueEntry] = field(default_factory=list)
