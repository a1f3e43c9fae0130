"""The shapes of what the API is told and answers, as its document describes them.

Money is a decimal number as text, observations are numbers, instants are ISO 8601 in UTC, ages are seconds. What is not known
is null, never nought.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

Money = Annotated[
    Decimal, PlainSerializer(str, return_type=str), Field(json_schema_extra={"type": "string", "examples": ["100.25"]})
]
"""A decimal number as text: nothing is lost on its way through a parser that knows floats alone."""


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# --- wishes -----------------------------------------------------------------------------------------


class Wish(_Shape):
    """Who asks for something. Without a name it is the API that asks."""

    model_config = ConfigDict(str_strip_whitespace=True)

    person: str = Field(default="", max_length=100, description="Who wishes it; it is written down.", examples=["ada"])


class Reasoned(Wish):
    """A wish with the reason for it."""

    reason: str = Field(
        min_length=1,
        max_length=500,
        description="Why; it is written down.",
        examples=["the exchange is in maintenance"],
    )


class StopMode(StrEnum):
    """How trading ends: what is being entered may finish, nothing more is opened, or all is closed."""

    GRACEFUL = "graceful"
    REDUCE = "reduce"
    FLATTEN = "flatten"


class Stop(Wish):
    """How and why to stop."""

    mode: StopMode = Field(
        default=StopMode.GRACEFUL,
        description="`graceful`: entries under way may finish; `reduce`: they are cancelled; `flatten`: what is held is closed too.",
    )
    reason: str = Field(default="", max_length=500, description="Why; it is written down.", examples=["end of the day"])


class Arm(Wish):
    """A step of arming live trading: empty first, then the nonce that was given and the phrase."""

    nonce: str = Field(default="", max_length=200, description="As given by the first step; good once, for a minute.")
    phrase: str = Field(default="", max_length=200, description="What the first step asks to be typed.")


class Configure(Reasoned):
    """Other parameters for a strategy. The engine begins anew with them, by the one path of every start."""

    changes: dict[str, Any] = Field(
        min_length=1,
        max_length=100,
        description="Parameters by name.",
        examples=[{"enter_bp": 2.0, "min_settlements": 3}],
    )


class ProcessWish(Wish):
    """A run of a process."""

    process: str = Field(
        min_length=1, max_length=64, description="As `/processes` lists it.", examples=["environment-scan"]
    )
    arguments: dict[str, str] = Field(
        default={}, max_length=200, description="What to do it with.", examples=[{"symbols": "BTCUSDT,ETHUSDT"}]
    )
    key: str = Field(
        default="",
        max_length=64,
        description="A name for this run: asked for again, it goes on instead of beginning anew.",
        examples=["first-quarter"],
    )


class Decision(Reasoned):
    """A person's word on a step of which nobody knows how far it came."""

    again: bool = Field(description="Do the step again; or else give the run up.")


class SmokeTestWish(Wish):
    """The smallest order, far from the market, through the running engine: sent, amended, cancelled."""

    instrument: str = Field(
        default="BTCUSDT-LINEAR.BYBIT", max_length=64, description="Which one.", examples=["BTCUSDT-LINEAR.BYBIT"]
    )
    key: str = Field(default="", max_length=64, description="A name for this run.")


class BacktestWish(Wish):
    """A strategy over recorded data."""

    strategy: str = Field(min_length=1, max_length=200, description="A built-in one.", examples=["impulse"])
    symbols: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,32}$")]] = Field(
        default=["BTCUSDT"], min_length=1, max_length=50, description="The venue's symbols.", examples=[["BTCUSDT"]]
    )
    start: str = Field(default="", max_length=40, description="First instant, UTC.", examples=["2026-01-01"])
    end: str = Field(default="", max_length=40, description="The end, itself not part of it.", examples=["2026-03-01"])
    settings: dict[str, str] = Field(
        default={},
        max_length=100,
        description="Any other setting by its path.",
        examples=[{"strategy.trigger": "2.5", "capital": "5000"}],
    )
    key: str = Field(default="", max_length=64, description="A name for this run.")


class EvaluateWish(BacktestWish):
    """A strategy and its grid of parameters over rolling windows: only what is out of sample counts."""

    start: str = Field(min_length=1, max_length=40, description="First instant, UTC.", examples=["2025-01-01"])
    end: str = Field(
        min_length=1, max_length=40, description="The end, itself not part of it.", examples=["2026-01-01"]
    )
    grid: dict[str, list[str]] = Field(
        min_length=1,
        max_length=10,
        description="Values by the path of the setting; every combination is a trial.",
        examples=[{"strategy.trigger": ["2.0", "2.5", "3.0"]}],
    )
    train_days: int = Field(default=180, ge=1, le=3650, description="Length of the window that is chosen in.")
    test_days: int = Field(default=30, ge=1, le=3650, description="Length of the window that is judged, after it.")
    step_days: int | None = Field(
        default=None, ge=1, le=3650, description="From one window to the next; `test_days` if absent."
    )
    purge_days: int = Field(default=3, ge=0, le=365, description="Days between the two that count for neither.")
    embargo_days: int | None = Field(
        default=None,
        ge=0,
        le=365,
        description="Days left out between the two beside those; 1 % of training if absent.",
    )


# --- answers: the engine ------------------------------------------------------------------------------


class Said(_Shape):
    """What the engine says to a wish."""

    said: str = Field(description="In words.", examples=["trading begins as soon as nothing stands against it"])
    request_id: str = Field(description="The trace of all that was set going: `/logs/trace/{id}` tells its story.")


class Armed(Said):
    """How far live trading is armed. It goes on only with the nonce and the phrase."""

    armed: bool = Field(description="Whether live trading is armed now.")
    nonce: str | None = Field(description="To be given back with the phrase; null where it is armed or cannot be.")
    phrase: str | None = Field(description="What a person must type.")
    expires: datetime | None = Field(description="Until when: of the nonce, or of being armed.")
    reasons: list[str] = Field(description="What stands against it.")
    allowed: dict[str, str] = Field(description="What would be allowed, by name.")
    account: str = Field(description="The account it is bound to, as a fingerprint.")
    settings: str = Field(description="The settings it is bound to, as a fingerprint.")


class Actor(_Shape):
    """One actor of the engine."""

    name: str
    kind: str
    pid: int | None
    alive: bool
    age_s: float | None = Field(description="Since this life of it began.")
    restarts: int
    lag_ms: float | None = Field(description="How far its mailbox is behind.")
    told: int | None = Field(description="Messages it was told in this life.")
    said: int | None = Field(description="Messages it said.")
    detail: str


class Feed(_Shape):
    """How fresh the market data of an instrument is."""

    instrument: str
    live: bool | None = Field(description="null where nobody has said.")
    age_s: float | None = Field(description="Since the last word of it.")
    ages_s: dict[str, float] = Field(description="The same by kind of observation.")
    rows: int
    conflated: int = Field(description="Rows that a later one took the place of.")


class Status(_Shape):
    """The engine at a glance."""

    as_of: datetime
    venue: str = Field(description="sandbox, paper, testnet, demo or live.", examples=["sandbox"])
    phase: str = Field(description="STARTING, RECOVERING, RECONCILING, WARMING, RUNNING or STOPPED.")
    epoch: int
    trading: str | None = Field(description="ACTIVE, REDUCING or HALTED; null while risk cannot be asked.")
    reason: str
    blocked: list[str] = Field(description="What stands against trading, in words.")
    tripped: str = Field(description="What tripped the kill switch; empty while it is not.")
    equity: Money | None
    equity_age_s: float | None
    marks_known: bool | None = Field(description="Whether every price the equity rests on is known.")
    reconcile_lag_s: float | None = Field(description="Since the books were last found to agree with the venue.")
    discrepancies: int | None
    recovery_s: float | None = Field(description="How long the last start took.")
    dry_run: bool
    armed_until: datetime | None = Field(description="Until when real orders may be opened; null where they may not.")
    permit: list[str] = Field(description="What stands against trading real money.")
    actors: list[Actor]
    errors: dict[str, dict[str, int]] = Field(description="Counts by node and kind.")
    feeds: list[Feed]


# --- answers: positions, orders, money ------------------------------------------------------------


class _Seen(_Shape):
    as_of: datetime
    source: str = Field(description="Whose word it is.")
    reconciled: bool | None = Field(description="Whether the last comparison with the venue found no difference.")
    reconcile_lag_s: float | None


class Position(_Shape):
    """What a strategy holds of an instrument."""

    strategy: str = Field(description="Empty: the owner's own, from before.")
    instrument: str
    quantity: Money
    dust: Money = Field(description="Part of it too small to be sold.")
    entry: Money | None = Field(description="Mean price paid; null where nobody knows.")
    mark: float | None = Field(description="The price seen last; null where none was.")
    age_s: float


class Pair(_Shape):
    """Legs of one strategy in one base coin that hedge each other."""

    strategy: str
    base: str = Field(examples=["BTC"])
    legs: list[Position]
    net: Money = Field(description="What the legs leave unhedged, in the base coin.")


class Positions(_Seen):
    positions: list[Position]
    pairs: list[Pair]


class Order(_Shape):
    client_order_id: str
    strategy: str
    instrument: str
    status: str = Field(description="submitted, unknown, accepted, filled, rejected, canceled or expired.")
    side: str | None
    quantity: Money | None = Field(description="What was ordered; null where that was not heard.")
    filled: Money
    average_price: Money | None
    reason: str
    age_s: float


class Orders(_Seen):
    orders: list[Order] = Field(description="Those that wait, then the others; each newest first.")


class Fill(_Shape):
    ts: datetime
    trade_id: str
    client_order_id: str
    strategy: str
    instrument: str
    side: str
    quantity: Money
    price: Money
    fee: Money = Field(description="Positive when paid.")
    fee_currency: str
    liquidity: str = Field(description="maker or taker.")
    exit: str = Field(description="stop, target or liquidation where the venue closed it; else empty.")
    reference: Money | None = Field(description="The price it was decided at.")


class Fills(_Shape):
    as_of: datetime
    source: str
    fills: list[Fill] = Field(description="Newest first.")


class Trade(_Shape):
    """A round trip: a position of a strategy from flat to flat. A pair is one round trip of two instruments."""

    strategy: str
    instruments: list[str] = Field(description="The prices are those of the first.")
    side: str = Field(description="long or short.")
    quantity: Money
    entry_price: Money
    exit_price: Money | None
    pnl: Money = Field(description="Net of fees and funding, in the quote currency.")
    fees: Money
    funding: Money
    opened: datetime
    closed: datetime | None
    held_s: float | None
    closed_by: str = Field(description="stop, target, liquidation, adjustment, signal, risk; empty where not known.")


class Trades(_Shape):
    as_of: datetime
    source: str
    trades: list[Trade] = Field(description="Newest first.")


class Point(_Shape):
    ts: datetime
    equity: Money
    marks_known: bool
    parts: dict[str, Money] = Field(description="What it is made of since the beginning; empty where not known.")


class Equity(_Shape):
    """The equity and what it is made of: price, basis, funding, fees, slippage, interest, adjustments."""

    as_of: datetime
    source: str
    equity: Money | None
    equity_age_s: float | None
    marks_known: bool | None
    cash: Money | None
    curve: list[Point] = Field(description="Oldest first, thinned to what was asked for.")
    by_strategy: dict[str, dict[str, Money]] = Field(
        description="Parts of the profit and `net`, by strategy; those of the owner's own under an empty name."
    )


# --- answers: strategies, risk ----------------------------------------------------------------------


class Refusal(_Shape):
    """How often a rule said no to a strategy, and the last time: measured against limit."""

    strategy: str
    rule: str
    count: int
    instrument: str
    measured: str
    limit: str
    age_s: float


class Why(_Shape):
    """Why a strategy did or did not trade."""

    strategy: str
    funnel: dict[str, int] = Field(description="From what it was shown to what was filled; in that order.")
    refusals: list[Refusal]
    gates: list[str] = Field(description="What it waits for, in its own words.")
    trading: str
    blocked_by: list[str]


class Whys(_Shape):
    as_of: datetime
    why: list[Why]


class Strategy(_Shape):
    """A strategy: what it is, what it may, what it did."""

    name: str
    use: str = Field(description="A built-in one, or a file's class.")
    enabled: bool | None = Field(description="Whether it may open positions; null where nobody has said.")
    instruments: list[str]
    config: dict[str, Any] = Field(description="Its parameters.")
    share: Money | None = Field(description="Of the equity.")
    sizing: dict[str, Any] | None
    last_signal: str = Field(description="In words; empty where there was none.")
    last_signal_at: datetime | None
    last_signal_age_s: float | None
    profit: dict[str, Money] = Field(description="Parts of its profit; empty where not known.")
    why: Why | None


class Strategies(_Shape):
    as_of: datetime
    strategies: list[Strategy]


class Limit(_Shape):
    """A limit, and how much of it is used."""

    rule: str
    subject: str = Field(description="What it is measured of: the account, a strategy, a coin.")
    used: float | None
    limit: float
    left: float | None
    unit: str = Field(description="share (of the equity), orders, errors, deaths or s.")
    amount: float | None = Field(description="What is used in the quote currency, where it is money.")


class Risk(_Shape):
    as_of: datetime
    trading: str | None
    reason: str
    tripped: str
    naked: float | None = Field(description="Value held that should be hedged and is not; in the quote currency.")
    limits: list[Limit]
    refusals: list[Refusal] = Field(description="Newest first.")


# --- answers: settings, processes -------------------------------------------------------------------


class Setting(_Shape):
    name: str = Field(examples=["risk.gross_exposure"])
    value: Any = Field(description="Secrets are shown as …")
    origin: str | None = Field(description="default, file, environment or person; null where it is not known.")


class Settings(_Shape):
    as_of: datetime
    settings: list[Setting]


class Taken(_Shape):
    """What a process is asked for with."""

    name: str
    usual: str | None = Field(description="What it is where not given; null where it must be.")
    about: str


class Process(_Shape):
    """A process that may be asked for."""

    name: str
    version: int
    about: str
    takes: list[Taken]
    further: str = Field(description="What else may be given, in words; empty where nothing may.")


class StepOfRun(_Shape):
    name: str
    status: str
    attempts: int
    began: datetime | None
    ended: datetime | None
    reason: str
    output: Any = Field(description="What it found, as it found it.")


class Run(_Shape):
    """A run of a process."""

    run_id: str
    process: str
    version: int
    arguments: dict[str, str]
    status: str = Field(description="PENDING, RUNNING, WAITING, COMPLETED, FAILED or CANCELED.")
    reason: str
    waits_for: str
    asked: datetime
    began: datetime | None
    ended: datetime | None
    steps: list[StepOfRun]


class Processes(_Shape):
    as_of: datetime
    processes: list[Process]
    runs: list[Run] = Field(description="Newest first.")


class Links(_Shape):
    self: str = Field(examples=["/processes/backtest-1"])
    cancel: str = Field(examples=["/processes/backtest-1/cancel"])


class Accepted(_Shape):
    """A run that is on its way: follow it at `links.self`."""

    run_id: str
    status: str
    request_id: str
    links: Links


# --- answers: health --------------------------------------------------------------------------------


class Health(_Shape):
    """Whether the engine does what it should; if not, why not."""

    ok: bool
    as_of: datetime
    reasons: list[str]
