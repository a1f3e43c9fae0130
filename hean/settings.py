"""One frozen tree of settings: defaults, then a TOML file, then what was said on the command line.

Each component's own settings sit beside the component; this only gathers them. An unknown key is an
error that names it.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from hean.errors import ConfigError
from hean.execution.broker import BrokerConfig
from hean.execution.simulated_venue import SimulatedVenueConfig, Tier
from hean.risk.config import RiskConfig
from hean.risk.sizing import Sizing

NANOSECONDS = 1_000_000_000


def parse_time(text: str) -> int:
    """UTC nanoseconds of an ISO date or time; without an offset it is UTC.

    Raises:
        ValueError: it is neither.
    """
    when = datetime.fromisoformat(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return int(when.timestamp()) * NANOSECONDS + when.microsecond * 1_000


def _is_time(text: str) -> str:
    try:
        parse_time(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date: write 2025-06-01 or 2025-06-01T08:00") from None
    return text


Moment = Annotated[str, AfterValidator(_is_time)]


class StrategySettings(BaseModel, frozen=True, extra="forbid"):
    """One strategy to run: a built-in one by its name, or one's own as `path/to/file.py:ClassName`."""

    use: str = Field(description="funding-harvester, basis-arbitrage, impulse, or path/to/file.py:ClassName")
    config: dict[str, Any] = Field(default={}, description="the strategy's own settings")
    share: Decimal | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the equity for all its instances; evenly divided where not given",
    )
    sizing: Sizing | None = Field(
        default=None,
        description="how large its positions are; where not given, by risk, and a pair 0.6 of its share in each leg",
    )


class BacktestSettings(BaseModel, frozen=True, extra="forbid"):
    """Everything a backtest depends on, but for the data itself."""

    strategies: tuple[StrategySettings, ...] = Field(
        min_length=1, description="what is run, side by side in one account"
    )
    symbols: tuple[str, ...] = Field(
        default=("BTCUSDT",), min_length=1, description="the venue's symbols, such as BTCUSDT"
    )
    venue_name: str = Field(default="BYBIT", description="whose market it is played on: BYBIT, BINANCE, SYNTHETIC")
    start: Moment | None = Field(
        default=None, description="first instant of trading, UTC; the data's own where not given"
    )
    end: Moment | None = Field(default=None, description="end of trading, UTC, itself not part of it")
    interval: str | None = Field(
        default=None, description="length of the candles, such as 1m; the finest where not given"
    )
    tier: Tier | None = Field(
        default=None, description="bars, trades or book: what the venue fills against; the finest the strategy watches"
    )
    synthetic: bool = Field(default=False, description="whether made-up data may be used; the report then says so")
    capital: Decimal = Field(default=Decimal(10_000), gt=0, description="USDT the account begins with")
    idle_yield: float = Field(
        default=0.04, ge=0, description="what idle USDT would have earned, a fraction a year, for comparison"
    )
    risk: RiskConfig = Field(default=RiskConfig(), description="limits of the account")
    venue: SimulatedVenueConfig = Field(default=SimulatedVenueConfig(), description="the simulated venue")
    broker: BrokerConfig = Field(default=BrokerConfig(), description="the broker")

    @model_validator(mode="after")
    def _said_once(self) -> Self:
        """One figure has one place: what would be overwritten, or has no meaning here, is refused."""
        elsewhere = {
            "venue.balances": ("balances" in self.venue.model_fields_set, "say --capital"),
            "venue.leverage": ("leverage" in self.venue.model_fields_set, "set risk.leverage: the venue follows it"),
            "risk.reconciler": (self.risk.reconciler, "a backtest hosts none: there is nothing to reconcile"),
        }
        for name, (said, remedy) in elsewhere.items():
            if said:
                raise ValueError(f"{name} is not for a backtest; {remedy}")
        return self


def read_toml(path: Path) -> dict[str, Any]:
    """The tree in a settings file.

    Raises:
        ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"settings file {path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from error


def assign(tree: dict[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Lay `key.of.a.branch=value` over a tree; a value is read as TOML, or as text where it is not.

    Raises:
        ConfigError: an assignment has no `=`, or goes through something that is not a branch.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {assignment!r} should read key=value, such as risk.gross_exposure=1.5")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        branch = tree
        *stem, leaf = path.split(".")
        for name in stem:
            branch = branch.setdefault(name, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"--set {assignment!r}: {name} has no settings below it")
        branch[leaf] = value
    return tree


def validated(model: type[BaseModel], tree: Mapping[str, Any], *, where: str = "") -> Any:
    """A model from a tree, with every fault named by its field and, for an unknown one, the nearest known.

    Raises:
        ConfigError: the tree does not fit.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(model, fault, where) for fault in error.errors())) from None


def _fault(model: type[BaseModel], fault: Any, where: str) -> str:
    path = [str(part) for part in fault["loc"]]
    name = ".".join([where, *path] if where else path)
    if fault["type"] != "extra_forbidden":
        message = str(fault["msg"]).removeprefix("Value error, ")
        return f"{name}: {message}" if name else message
    known = _fields_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
    return f"{name}: no such setting; {hint}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        field = model.model_fields.get(name)
        inner = field.annotation if field is not None else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
    return list(model.model_fields)
