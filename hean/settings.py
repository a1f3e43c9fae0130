"""One frozen tree of settings: defaults, then a TOML file, then what was said on the command line.

Each component's own settings sit beside the component; this only gathers them. An unknown key is an
error that names it.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hean.errors import ConfigError
from hean.execution.broker import BrokerConfig
from hean.execution.simulated_venue import SimulatedVenueConfig, Tier
from hean.risk.config import RiskConfig
from hean.risk.sizing import Sizing
from hean.units import parse_time


def _as_text(moment: object) -> object:
    """TOML has dates of its own."""
    return moment.isoformat() if isinstance(moment, date) else moment


def _is_time(text: str) -> str:
    parse_time(text)
    return text


Moment = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_time)]


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
        default=None,
        description="first instant of trading, UTC; with no end either, the longest unbroken record is played",
    )
    end: Moment | None = Field(default=None, description="end of trading, UTC, itself not part of it")
    interval: str | None = Field(
        default=None,
        description="length of the candles, such as 1m; where not given, the finest that are recorded for the whole period",
    )
    tier: Tier | None = Field(
        default=None,
        description="bars, trades or book: what the venue fills against; "
        "where not given, bars if a strategy watches them, else the book if one watches quotes, else trades",
    )
    synthetic: bool = Field(default=False, description="whether made-up data may be used; the report then says so")
    capital: Decimal = Field(
        default=Decimal(10_000), gt=0, le=1_000_000_000_000, description="USDT the account begins with"
    )
    idle_yield: float = Field(
        default=0.04, ge=0, le=10, description="what idle USDT would have earned, a fraction a year, for comparison"
    )
    risk: RiskConfig = Field(default=RiskConfig(), description="limits of the account")
    venue: SimulatedVenueConfig = Field(default=SimulatedVenueConfig(), description="the simulated venue")
    broker: BrokerConfig = Field(default=BrokerConfig(), description="the broker")

    @field_validator("symbols", mode="before")
    @classmethod
    def _symbols(cls, said: object) -> object:
        """Symbols as the venue writes them, each once; one text may divide several by commas."""
        if isinstance(said, str):
            said = said.split(",")
        if not isinstance(said, list | tuple) or not all(isinstance(one, str) for one in said):
            raise ValueError(f'{said!r} should be a list of symbols, such as ["BTCUSDT", "ETHUSDT"]')
        names = list(dict.fromkeys(one.strip().upper() for one in said if one.strip()))
        if not names:
            raise ValueError("name at least one, such as BTCUSDT")
        for name in names:
            if not re.fullmatch(r"[A-Z0-9]+", name):
                raise ValueError(f"{name!r} is no symbol of the venue; write {_plain_symbol(name)}")
        return names

    @field_validator("venue_name")
    @classmethod
    def _venue_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise ValueError(f"{name!r} is no venue; write BYBIT, BINANCE or SYNTHETIC")
        return name.upper()

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.start is not None and self.end is not None and parse_time(self.start) >= parse_time(self.end):
            raise ValueError(f"the period starts at {self.start}, and that is not before its end at {self.end}")
        return self

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


def _plain_symbol(name: str) -> str:
    """What was probably meant by an instrument's name, or by a pair as other programs write it."""
    instrument = re.fullmatch(r"(\w+)-(SPOT|LINEAR|INVERSE)(\..*)?", name)
    return (instrument[1] if instrument else re.sub(r"[^A-Z0-9]", "", name.partition(":")[0])) or "BTCUSDT"


def read_toml(path: Path) -> dict[str, Any]:
    """The tree in a settings file.

    Raises:
        ConfigError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"settings file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"settings file {path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
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


def strategies_in(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The strategies of a tree that is not validated yet, each as a table of its own that may be written to.

    `strategies = ["impulse"]` is short for `[[strategies]]` with `use = "impulse"`.

    Raises:
        ConfigError: they are not listed, or the settings of one are not a table.
    """
    listed = tree.get("strategies", [])
    if not isinstance(listed, list):
        raise ConfigError(
            f'strategies: {listed!r} should be a list: strategies = ["impulse"], or a table [[strategies]] for each'
        )
    tables = []
    for place, one in enumerate(listed):
        table = {"use": one} if isinstance(one, str) else one
        if not isinstance(table, dict):
            raise ConfigError(f'strategies.{place}: {one!r} should be a name or a table with `use = "impulse"`')
        if not isinstance(table.setdefault("config", {}), dict):
            raise ConfigError(f"strategies.{place}.config: {table['config']!r} should be a table of settings")
        tables.append(table)
    if tables:
        tree["strategies"] = tables
    return tables


def validated(model: type[BaseModel], tree: Mapping[str, Any], *, where: str = "") -> Any:
    """A model from a tree, with every fault named by its field and, for an unknown one, the nearest known.

    Raises:
        ConfigError: the tree does not fit.
    """
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        faults = error.errors()
    told = [_fault(model, fault, where) for fault in faults if not _follows(model, fault, faults)]
    raise ConfigError("; ".join(dict.fromkeys(told)))


_NO_STRATEGY = "no strategy is named: say --strategy impulse, or list some in the settings file"


def _fault(model: type[BaseModel], fault: Any, where: str) -> str:
    """One fault, in words."""
    path, models = _walk(model, fault["loc"])
    name = ".".join([where, *path] if where else path)
    if fault["type"] == "extra_forbidden":
        known = _fields(models)
        near = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"
        return f"{name}: no such setting; {hint}"
    if path == ["strategies"] and fault["type"] in {"missing", "too_short"}:
        return _NO_STRATEGY
    if fault["type"] == "missing":
        return f"{name}: is not set, and has no default"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if message.startswith("Input should") and isinstance(fault["input"], str | int | float | Decimal):
        message = message.replace("Input", repr(fault["input"]), 1)
    return f"{name}: {message}" if name else message


def _follows(model: type[BaseModel], fault: Any, faults: Sequence[Any]) -> bool:
    """Whether a fault only follows from another: a name misspelt is not there, and a list with a faulty item is short."""
    place = fault["loc"]
    if fault["type"] == "too_short":
        return any(other["loc"][: len(place)] == place for other in faults if other is not fault)
    return fault["type"] == "missing" and any(
        other["type"] == "extra_forbidden" and _meant(model, other["loc"]) == place for other in faults
    )


def _meant(model: type[BaseModel], place: Sequence[str | int]) -> tuple[str | int, ...]:
    """The place of the known setting whose name is nearest."""
    _, models = _walk(model, place)
    return (*place[:-1], *difflib.get_close_matches(str(place[-1]), _fields(models), n=1))


def _walk(model: type[BaseModel], place: Sequence[str | int]) -> tuple[list[str], list[type[BaseModel]]]:
    """The path to a place as people write it, and the models whose field its last part names, or should."""
    models = [model]
    path = []
    for depth, part in enumerate(place):
        last = depth == len(place) - 1
        chosen = [one for one in models if any(field.default == part for field in one.model_fields.values())]
        if isinstance(part, str) and part not in _fields(models) and chosen and not last:
            models = chosen  # pydantic's word for the member of a union that was meant: nobody wrote it
            continue
        path.append(str(part))
        if not last and isinstance(part, str):
            models = [
                inner
                for one in models
                if part in one.model_fields
                for inner in _models_in(one.model_fields[part].annotation)
            ]
    return path, models


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    """The models a field may hold: itself, the items of a tuple, the members of a union."""
    if get_origin(annotation) is None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models_in(part)


def _fields(models: Sequence[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(name for model in models for name in model.model_fields))
