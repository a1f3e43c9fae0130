"""What may be set about risk: the limits of the account, and those of each strategy."""

from decimal import Decimal

from pydantic import BaseModel, Field

from hean.risk.killswitch import KillSwitchConfig
from hean.risk.memory import MemoryConfig
from hean.risk.sizing import RiskSizing, Sizing


class RiskConfig(BaseModel, frozen=True, extra="forbid"):
    """The account's limits. None can be switched off; a large value never binds. Shares are of the account's equity.

    Limits are about what strategies hold. What was in the account before us is part of the equity, counts towards no limit
    and is not closed with the rest. A jump of the equity is held against all there is: the owner's coins move it too.
    """

    trade_risk: float = Field(
        default=0.01, gt=0, allow_inf_nan=False, description="share lost by one position at its stop"
    )
    symbol_exposure: float = Field(
        default=0.25, gt=0, allow_inf_nan=False, description="net share held of one base coin"
    )
    pair_delta: float = Field(
        default=0.02, gt=0, allow_inf_nan=False, description="share by which the legs of a pair may differ"
    )
    gross_exposure: float = Field(
        default=2.0, gt=0, allow_inf_nan=False, description="share held in all, legs counted apart"
    )
    strategy_leverage: float = Field(
        default=2.0, gt=0, allow_inf_nan=False, description="what a strategy may hold over its share"
    )
    margin: float = Field(
        default=0.90, gt=0, allow_inf_nan=False, description="share bound as margin, or paid for spot"
    )
    leverage: float = Field(
        default=3.0, ge=1, allow_inf_nan=False, description="leverage set at the venue for derivatives"
    )
    daily_loss: float = Field(default=0.03, gt=0, allow_inf_nan=False, description="share lost since 00:00 UTC")
    stress_shock: float = Field(
        default=0.30, ge=0, allow_inf_nan=False, description="move of price a pair must stand, fraction"
    )
    stress_margin: float = Field(
        default=0.50, gt=0, allow_inf_nan=False, description="share a pair may ask for after it"
    )
    max_naked: float = Field(
        default=0.02, gt=0, allow_inf_nan=False, description="share unhedged while a pair is traded"
    )
    orders_per_minute: int = Field(default=60, gt=0, description="opening orders in any minute; a pair is two")
    price_age_s: float = Field(
        default=5.0, gt=0, allow_inf_nan=False, description="oldest price a position is opened on, seconds"
    )
    price_collar: float = Field(
        default=0.01, gt=0, allow_inf_nan=False, description="move between prices heard shortly after another"
    )
    price_memory_s: float = Field(
        default=10.0, ge=0, allow_inf_nan=False, description="how long a price counts for the collar, seconds"
    )
    resize_band: float = Field(
        default=0.20, ge=0, allow_inf_nan=False, description="a held position is resized beyond this change"
    )
    reconciler: bool = Field(default=False, description="whether a reconciler runs: a backtest hosts none")
    reconcile_age_s: float = Field(
        default=90, gt=0, description="positions are opened on comparisons no older, seconds"
    )
    reconcile_lag_s: float = Field(default=120, gt=0, description="positions are only reduced beyond this age, seconds")
    reconcile_trip_s: float = Field(
        default=600, gt=0, description="everything is closed beyond this age while trading, seconds"
    )
    flatten_backoff_s: float = Field(
        default=2, gt=0, description="wait before flattening again, seconds; doubles each time"
    )
    flatten_backoff_max_s: float = Field(default=60, gt=0, description="longest such wait, seconds")
    flatten_attempts: int = Field(default=10, gt=0, description="after as many, a person is called instead")
    probe_notional: float = Field(
        default=3.0, ge=1, allow_inf_nan=False, description="value of a process's order, over the instrument's least"
    )
    probe_distance: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="how far from the last price a process's order must rest, a fraction of it",
    )
    probe_orders: int = Field(default=3, gt=0, description="orders of processes that may be open at once")
    kill_switch: KillSwitchConfig = KillSwitchConfig()
    memory: MemoryConfig = MemoryConfig()


class StrategyLimits(BaseModel, frozen=True, extra="forbid"):
    """What one strategy may do."""

    share: Decimal = Field(
        default=Decimal(1), ge=0, le=1, description="share of the equity it may use, until told otherwise"
    )
    sizing: Sizing = RiskSizing()
    price_age_s: float | None = Field(
        default=None, gt=0, description="its own oldest price, seconds: bars are older than quotes"
    )


def exact(setting: float) -> Decimal:
    """A setting as the number its author wrote."""
    return Decimal(str(setting))
