"""Everything a run that trades depends on: one frozen tree, as for a backtest.

Defaults, then a TOML file, then the environment: `HEAN_RISK__GROSS_EXPOSURE=1.5` is `risk.gross_exposure`.
"""

import copy
import difflib
import enum
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, Field

from hean.errors import ConfigError
from hean.execution.broker import BrokerConfig
from hean.execution.venue_state import SimulatedVenueConfig
from hean.reconcile.reconciler import ReconcilerConfig
from hean.risk.config import RiskConfig
from hean.settings import StrategySettings, strategies_in, validated


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
    watchdog_s: float = Field(
        default=30.0, ge=5, description="silence of the engine after which everything is closed without it"
    )


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


# --- where a setting comes from -----------------------------------------------------------------

PREFIX = "HEAN_"
NOT_SETTINGS = frozenset({"HEAN_HOME", "HEAN_CATALOG", "HEAN_DATA_DIR", "HEAN_ADMIN_TOKEN", "HEAN_KEYS"})
"""What else begins so: places and secrets, read by whoever needs them."""

_GATES = {"DRY_RUN": "dry_run", "LIVE_CONFIRM": "live_confirm", "CONFIRM_PHRASE": "confirm_phrase"}
"""The gates of live trading have names of their own; with the prefix they mean the same."""


class Origin(enum.StrEnum):
    """Who set a setting."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


def engine_settings(tree: Mapping[str, Any], environment: Mapping[str, str]) -> EngineSettings:
    """The settings of a run.

    Args:
        tree: What a file says, and the command line laid over it.
        environment: All of it, as the process was given it. An empty value is as good as none.

    Raises:
        ConfigError: A setting is unknown or does not fit; the text names it, and the nearest that is known.
    """
    merged = _laid_over(_defaults(), _file(tree))
    said = {path: (name, value) for name, path, value in _said(environment)}
    for path, (name, value) in said.items():
        branch = merged
        for part in path[:-1]:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{name}: {part} has no settings below it")
        branch[path[-1]] = value
    strategies_in(merged)
    return validated(EngineSettings, merged)  # type: ignore[no-any-return]


def origins(tree: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Origin]:
    """Who set each setting, by its dotted name.

    Raises:
        ConfigError: As for `engine_settings`.
    """
    file = _file(tree)
    said = {path for _, path, _ in _said(environment)}
    found: dict[str, Origin] = {}
    for path in _leaves(engine_settings(tree, environment)):
        stems = [path[: at + 1] for at in range(len(path))]
        if any(stem in said for stem in stems):
            found[".".join(path)] = Origin.ENVIRONMENT
        else:
            found[".".join(path)] = Origin.FILE if _has(file, path) else Origin.DEFAULT
    return found


def _file(tree: Mapping[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(dict(tree))


def _defaults() -> dict[str, Any]:
    """What a table of settings has by default in this tree though not by itself: a part of it leaves the rest so."""
    return {
        name: kept
        for name, field in EngineSettings.model_fields.items()
        if isinstance(field.default, BaseModel) and (kept := field.default.model_dump(exclude_unset=True))
    }


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _laid_over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _said(environment: Mapping[str, str]) -> Iterator[tuple[str, tuple[str, ...], object]]:
    """What the environment says: the variable, the path of its setting, the value."""
    given: dict[tuple[str, ...], str] = {}
    for name in sorted(environment):
        text = environment[name]
        if name in _GATES:
            path: tuple[str, ...] = (_GATES[name],)
        elif name.startswith(PREFIX) and name not in NOT_SETTINGS:
            path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        else:
            continue
        annotation = _annotation(name, path)
        if not text:
            continue
        if path in given and environment[given[path]] != text:
            raise ConfigError(f"{given[path]} and {name} are one setting, and differ: unset one of them")
        given[path] = name
        yield name, path, _value(annotation, text)


def _annotation(name: str, path: tuple[str, ...]) -> object:
    """What a setting holds.

    Raises:
        ConfigError: There is no such setting.
    """
    model: object = EngineSettings
    for part in path:
        if model == dict[str, Any]:
            return object  # a gateway's own settings: it checks them itself
        fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
        if part not in fields:
            near = difflib.get_close_matches(name, [*_names(), *NOT_SETTINGS], n=1)
            tops = ", ".join(PREFIX + one.upper() for one in EngineSettings.model_fields)
            hint = f"did you mean {near[0]}?" if near else f"they begin with one of {tops}"
            raise ConfigError(f"{name}: no such setting; {hint}")
        model = fields[part].annotation
    return model


def _names() -> list[str]:
    """Every setting's name in the environment."""
    return [PREFIX + "__".join(path).upper() for path in _paths(EngineSettings)]


def _paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *path) for path in _paths(field.annotation))
        else:
            yield (name,)


def _value(annotation: object, text: str) -> object:
    """A value as TOML has it; plain text where it is not TOML, or where text is wanted; a list also with commas alone."""
    if annotation is str:
        return text
    try:
        said = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        said = {}
    if said.keys() == {"value"}:
        return said["value"]
    if str(annotation).startswith("tuple["):
        return [one.strip() for one in text.split(",") if one.strip()]
    return text


def _leaves(model: BaseModel) -> Iterator[tuple[str, ...]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from ((name, *path) for path in _leaves(value))
        elif isinstance(value, dict) and value:
            yield from ((name, str(key)) for key in value)
        else:
            yield (name,)


def _has(tree: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    found: Any = tree
    for part in path:
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True
