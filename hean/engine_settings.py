"""Everything a run that trades depends on: one frozen tree, as for a backtest."""

import enum
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

from hean.execution.broker import BrokerConfig
from hean.execution.venue_state import SimulatedVenueConfig
from hean.reconcile.reconciler import ReconcilerConfig
from hean.risk.config import RiskConfig
from hean.settings import StrategySettings


class VenueMode(enum.StrEnum):
    """Where orders go, from the harmless to the real."""

    SANDBOX = "sandbox"
    PAPER = "paper"
    TESTNET = "testnet"
    DEMO = "demo"
    LIVE = "live"

    @property
    def is_ours(self) -> bool:
        """Whether fills are simulated in our own process."""
        return self is VenueMode.PAPER

    @property
    def is_real(self) -> bool:
        """Whether it is anybody's money."""
        return self is VenueMode.LIVE


class SupervisionConfig(BaseModel, frozen=True, extra="forbid"):
    """How the engine watches over its actors."""

    ping_s: float = Field(default=0.5, gt=0, description="between two looks at every actor")
    lag_s: float = Field(default=5.0, gt=0, description="an actor whose mailbox is later than this is taken for dead")
    ready_s: float = Field(default=60.0, gt=0, description="how long any one step of a start may take")
    clean_s: float = Field(
        default=120.0, gt=0, description="how long to wait for a clean comparison before a person is told"
    )
    snapshot_every: int = Field(default=5_000, gt=0, description="entries of a journal between two snapshots")


class EngineSettings(BaseModel, frozen=True, extra="forbid"):
    """Everything but secrets. What begins with `dry_run` is a gate of live trading: see `hean.permit`."""

    venue: VenueMode = Field(default=VenueMode.SANDBOX, description="sandbox, paper, testnet, demo or live")
    endpoint: str = Field(default="", description="address of a Bybit that stands in for the mode's own, on loopback")
    strategies: tuple[StrategySettings, ...] = Field(min_length=1, description="what runs, side by side in one account")
    symbols: tuple[str, ...] = Field(default=("BTCUSDT",), min_length=1, description="the venue's symbols")
    capital: Decimal = Field(default=Decimal(10_000), gt=0, description="USDT a paper account begins with")
    dry_run: bool = Field(default=True, description="log the orders that would go to the main net, and send none")
    live_confirm: str = Field(default="", description="YES, or nothing goes to the main net")
    confirm_phrase: str = Field(default="", description="the phrase that live trading asks for")
    risk: RiskConfig = Field(default=RiskConfig(reconciler=True), description="limits of the account")
    broker: BrokerConfig = Field(default=BrokerConfig(), description="the broker")
    reconciler: ReconcilerConfig = Field(default=ReconcilerConfig(), description="the reconciler")
    paper: SimulatedVenueConfig = Field(
        default=SimulatedVenueConfig(), description="the simulated venue of paper trading"
    )
    feed: dict[str, Any] = Field(default={}, description="the feed gateway's own settings, such as flush_ms")
    account: dict[str, Any] = Field(default={}, description="the venue gateway's own settings, such as timeout_s")
    supervision: SupervisionConfig = Field(default=SupervisionConfig(), description="the engine")

    @property
    def venue_name(self) -> str:
        """Every mode trades what Bybit lists."""
        return "BYBIT"
