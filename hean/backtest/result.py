"""What a backtest was, and what came of it: everything a report is written from."""

from decimal import Decimal

from msgspec import Struct, field

from hean.messages import Envelope
from hean.tape import Floats, Ints, Tape
from hean.trips import RoundTrip


class Pnl(Struct, frozen=True):
    """Where the profit came from, in quote currency; the parts add up to `net` to the last digit."""

    price: Decimal
    basis: Decimal
    funding: Decimal
    fees: Decimal
    slippage: Decimal
    interest: Decimal

    @property
    def net(self) -> Decimal:
        return self.price + self.basis + self.funding + self.fees + self.slippage + self.interest


class Funnel(Struct, frozen=True):
    """What became of what was seen: rows of the tape the strategy watches, down to fills.

    `refused` counts by rule; `ended` counts orders by what ended them and why; `gates` names what the strategy
    itself asked for, in its own order, with how many rows passed each.
    """

    rows: int
    signals: int
    refused: dict[str, int]
    orders: int
    ended: dict[str, int]
    fills: int
    gates: tuple[tuple[str, int], ...] = ()


class StrategyResult(Struct, frozen=True):
    name: str
    instruments: tuple[str, ...]
    config: dict[str, object]
    pnl: Pnl
    funnel: Funnel
    notes: tuple[str, ...]


class Benchmark(Struct, frozen=True):
    """A row to compare with: what the same capital would have made otherwise, in quote currency."""

    name: str
    net_pnl: Decimal
    explanation: str


class Event(Struct, frozen=True):
    """Something a reader of the figures must know of: trading reduced or halted, a liquidation, a pair that came apart."""

    ts: int
    text: str


class RunResult(Struct, frozen=True):
    """A finished backtest. Money in quote currency; the curve is the account's equity at each of its stamps.

    `drawdown` is the fall from the running peak as a fraction at the same stamps. `log` is everything
    that was said, in order; `data` is the manifest of the tape, by series; `settings` is the whole tree
    the run was made with. `synthetic` is True when any series was made up. `events` are what befell the run
    beside its trades, in order.
    """

    ts_start: int
    ts_end: int
    capital: Decimal
    equity_final: Decimal
    pnl: Pnl
    strategies: tuple[StrategyResult, ...]
    trips: tuple[RoundTrip, ...]
    benchmarks: tuple[Benchmark, ...]
    events: tuple[Event, ...]
    curve_ts: Ints
    curve: Floats
    drawdown: Floats
    rows: int
    deliveries: int
    wall_s: float
    synthetic: bool
    settings: dict[str, object]
    data: dict[str, object]
    result_hash: str
    tape: Tape
    log: tuple[Envelope, ...] = field(default=())
