"""The composition root: settings and instruments in, the nodes and components of one run out."""

import difflib
import importlib
import importlib.util
import re
import sys
import traceback
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from pydantic import BaseModel

from hean.component import says, takes
from hean.errors import ConfigError, ContractError, HeanError
from hean.execution.broker import Broker
from hean.execution.simulated_venue import SimulatedVenue, Tier
from hean.instruments import Category, Instrument, instrument_id, split_id
from hean.messages import (
    Bar,
    BarOpened,
    BookLevels,
    FundingRate,
    MarkPrice,
    Observation,
    Quote,
    Signal,
    Trade,
)
from hean.portfolio.portfolio import Portfolio, PortfolioConfig
from hean.risk.config import StrategyLimits, exact
from hean.risk.manager import RiskManager
from hean.risk.sizing import EquityShare, RiskSizing, Sizing
from hean.settings import BacktestSettings, StrategySettings, validated
from hean.topology import MARKET, Node, Topology

BUILT_IN = {
    "funding-harvester": ("hean.strategies.funding_harvester:FundingHarvester", "carry"),
    "basis-arbitrage": ("hean.strategies.basis_arbitrage:BasisArbitrage", "basis"),
    "impulse": ("hean.strategies.impulse:ImpulseEngine", "impulse"),
}
"""The strategies that come with HEAN: where they live, and what their nodes are called by."""

ROLES = ("venue", "portfolio", "broker", "risk")
"""The nodes of a backtest that are no strategies, each called by its role."""

PAIR_LEG = 0.6
"""Of a pair's share of the equity, what each leg is worth: spot is paid in full, and the perpetual needs its margin too."""

PRICE_OF_TIER: dict[Tier, type[Observation]] = {Tier.BARS: Bar, Tier.TRADES: Trade, Tier.BOOK: Quote}
Watches = frozenset[tuple[str, type[Observation]]]


class Strategy(Struct, frozen=True):
    """One instance of a strategy, built and named."""

    name: str
    component: Any
    settings: StrategySettings
    instruments: tuple[str, ...]
    share: Decimal

    @property
    def warmup_ns(self) -> int:
        return int(getattr(self.component, "warmup_ns", 0))

    def looks_back(self, kind: type[Observation]) -> int:
        """How much of one kind of observation it makes use of; all of its warm-up where it does not say."""
        own = getattr(self.component, "looks_back", None)
        return self.warmup_ns if own is None else int(own(kind))

    @property
    def watches_kinds(self) -> frozenset[type[Observation]]:
        return frozenset(kind for kind in takes(self.component) if issubclass(kind, Observation))


def load_strategy(use: str) -> tuple[type[Any], str]:
    """The class a strategy is, and the word its nodes are named by.

    Raises:
        ConfigError: there is no such strategy, file or class, or the class is no strategy.
    """
    if use in BUILT_IN:
        where, word = BUILT_IN[use]
        module_name, _, class_name = where.partition(":")
        return getattr(importlib.import_module(module_name), class_name), word
    path, colon, class_name = use.rpartition(":")
    if not colon or not path.endswith(".py"):
        near = difflib.get_close_matches(use, BUILT_IN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"built in: {', '.join(BUILT_IN)}; or path/to/file.py:ClassName"
        raise ConfigError(f"strategy {use!r} is unknown: {hint}")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"strategy {use!r}: there is no file {path}")
    # The name must not depend on where the file lies: what numba keeps beside it refers to its module.
    spec = importlib.util.spec_from_file_location(f"strategy_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"strategy {use!r}: {path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations are looked up there
    with _blaming(file, f"strategy {use!r}: {path} cannot be imported"):
        spec.loader.exec_module(module)
    strategy = getattr(module, class_name, None)
    if not isinstance(strategy, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        near = difflib.get_close_matches(class_name, classes, n=1)
        raise ConfigError(f"{path} has no class {class_name}" + (f"; did you mean {near[0]}?" if near else ""))
    return strategy, re.sub(r"[^a-z0-9]", "", class_name.lower())[:8]


@contextmanager
def _blaming(file: Path | None, what: str) -> Iterator[None]:
    """Name the line of somebody's file that raised.

    Raises:
        ConfigError: it did.
    """
    try:
        yield
    except HeanError:
        raise
    except Exception as error:  # a file that is not ours may raise anything
        where = _line_of(error, file)
        raise ConfigError(f"{what}: {type(error).__name__}: {_in_one_line(error)}{where}") from error


def _line_of(error: Exception, file: Path | None) -> str:
    """The last line of a file that was at work when something was raised; nothing where none was."""
    if isinstance(error, SyntaxError) and error.filename is not None and error.lineno is not None:
        return f" ({Path(error.filename).name}:{error.lineno})"
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if file and Path(frame.filename) == file
    ]
    return f" ({file.name}:{lines[-1]})" if file is not None and lines else ""


def _in_one_line(error: Exception) -> str:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(said.split()) or "no reason given"


def config_model(strategy: type[Any]) -> type[BaseModel]:
    """The settings a strategy is built from: the type of its `config`.

    Raises:
        ConfigError: `__init__` has no parameter `config` of a pydantic model, or that has no field `name`.
    """
    model = typing.get_type_hints(strategy.__init__).get("config")
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"{strategy.__name__}.__init__ should take `config`, annotated with a pydantic model")
    if "name" not in model.model_fields:
        raise ConfigError(f"{model.__name__} has no field for what the strategy is called: give it `name: str`")
    return model


class Wanted(Protocol):
    """What strategies are built from: the settings of any kind of run have it."""

    @property
    def strategies(self) -> tuple[StrategySettings, ...]: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def venue_name(self) -> str: ...


def build_strategies(settings: Wanted) -> list[Strategy]:
    """An instance of each strategy for each symbol, or one for all where it takes a tuple of instruments.

    Fields typed `Perp` and `Spot` are filled from the symbol, where the settings do not fill them.

    Raises:
        ConfigError: a strategy or a setting of one is wrong, its file raises something, or two nodes have one name.
    """
    built: list[tuple[StrategySettings, str, Any, tuple[str, ...]]] = []
    for wanted in settings.strategies:
        strategy, word = load_strategy(wanted.use)
        file = _file_of(strategy)
        with _blaming(file, f"strategy {wanted.use!r}"):
            model = config_model(strategy)
            _must_be_strategy(strategy)
            roles = _instrument_fields(model)
        if not roles:
            raise ConfigError(f"{model.__name__} names no instrument: give it a field typed Perp or Spot")
        together = any(many for _, many in roles.values())
        for symbols in [settings.symbols] if together else [(symbol,) for symbol in settings.symbols]:
            values: dict[str, Any] = {}
            for name, (category, many) in roles.items():
                ids = tuple(instrument_id(symbol, category, settings.venue_name) for symbol in symbols)
                values[name] = ids if many else ids[0]
            base = "" if together else "-" + re.sub(r"(USDT|USDC|USD)$", "", symbols[0])
            values["name"] = (word + base)[:16]
            values |= wanted.config
            config = validated(model, values, where=f"strategy {wanted.use}")
            instruments = tuple(
                dict.fromkeys(
                    instrument
                    for name, (_, many) in roles.items()
                    for instrument in (getattr(config, name) if many else (getattr(config, name),))
                )
            )
            with _blaming(file, f"strategy {wanted.use!r}: {strategy.__name__} cannot be built"):
                component = strategy(config=config)
            _must_be_component(component)
            built.append((wanted, config.name, component, instruments))
    names = [name for _, name, _, _ in built]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two strategies are called {name}: set config.name of one")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,16}", name):
            raise ConfigError(f"strategy name {name!r}: at most 16 letters, digits, - and _")
        if name in ROLES:
            raise ConfigError(f"strategy name {name!r} is taken by a part of HEAN: set config.name")
    shares = _shares([wanted for wanted, _, _, _ in built])
    return [
        Strategy(name=name, component=component, settings=wanted, instruments=instruments, share=share)
        for (wanted, name, component, instruments), share in zip(built, shares, strict=True)
    ]


def _must_be_strategy(strategy: type[Any]) -> None:
    try:
        taken, said = takes(strategy), says(strategy)
    except ContractError as error:
        raise ConfigError(f"{strategy.__name__} is no strategy: {error}") from error
    if not any(issubclass(kind, Observation) for kind in taken) or Signal not in said:
        raise ConfigError(
            f"{strategy.__name__}.handle should take an observation, such as Bar, and return Iterator[Signal]"
        )


def _must_be_component(component: Any) -> None:
    """What a signature cannot show: the parts that everybody else asks for."""
    name = type(component).__name__
    if not hasattr(component, "config"):
        raise ConfigError(f"{name} keeps no config: let __init__ say `self.config = config`")
    if not isinstance(getattr(component, "state", None), Struct):
        raise ConfigError(f"{name} has no state: let __init__ set `self.state` to a msgspec Struct of all that changes")
    if not callable(getattr(component, "wake_at", None)):
        raise ConfigError(f"{name} has no method `wake_at(self) -> int | None`: let it return None if it never waits")


def _file_of(strategy: type[Any]) -> Path | None:
    module = sys.modules.get(strategy.__module__)
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)


def _instrument_fields(model: type[BaseModel]) -> dict[str, tuple[Category, bool]]:
    """Which fields name instruments: of what category, and whether many."""
    found = {}
    for name, hint in typing.get_type_hints(model, include_extras=True).items():
        many = typing.get_origin(hint) is tuple
        inner = typing.get_args(hint)[0] if many else hint
        for extra in getattr(inner, "__metadata__", ()):
            if isinstance(extra, Category):
                found[name] = (extra, many)
    return found


def _shares(wanted: Sequence[StrategySettings]) -> list[Decimal]:
    """Each instance's share of the equity: a strategy's own divided among its instances, the rest evenly."""
    given = {id(settings): settings.share for settings in wanted if settings.share is not None}
    left = 1 - sum(given.values(), Decimal(0))
    if left < 0:
        raise ConfigError(f"the strategies' shares add up to {1 - left}: they may be 1 at most")
    unset = sum(1 for settings in wanted if settings.share is None)
    even = (left / unset).quantize(_SHARE, ROUND_DOWN) if unset else Decimal(0)
    counts = {key: sum(1 for settings in wanted if id(settings) == key) for key in given}
    return [
        (given[id(settings)] / counts[id(settings)]).quantize(_SHARE, ROUND_DOWN) if id(settings) in given else even
        for settings in wanted
    ]


def build(
    settings: BacktestSettings,
    strategies: Sequence[Strategy],
    instruments: Mapping[str, Instrument],
    tiers: Mapping[str, Tier],
    told: Iterable[tuple[str, type[Observation]]],
    *,
    dense_marks: frozenset[str] = frozenset(),
    price_age_s: float = 5.0,
) -> tuple[Topology, dict[str, Any]]:
    """The nodes of a backtest, and their components: every role but the reconciler and the monitor.

    Args:
        settings: The whole tree.
        strategies: The instances to run.
        instruments: The rules of everything they trade.
        tiers: What is known of each instrument's market.
        told: Every (instrument, kind) the tape has.
        dense_marks: Instruments whose recorded mark is as fine as their price, and is all they are valued at.
        price_age_s: Seconds a leg's price may be old when a position is opened on it.
    """
    have = frozenset(told)
    prices = frozenset((name, PRICE_OF_TIER[tier]) for name, tier in tiers.items())
    marks = frozenset((name, kind) for name, kind in have if kind is MarkPrice)
    # A venue that is told every change of a book reads the best bid and offer off it.
    deep = {name for name, kind in have if kind is BookLevels}
    venue_watches = have & (
        frozenset((name, kind) for name, kind in prices if not (kind is Quote and name in deep))
        | marks
        | frozenset((name, kind) for name in tiers for kind in (FundingRate,))
        | frozenset((name, BarOpened) for name, tier in tiers.items() if tier is Tier.BARS)
        | frozenset((name, kind) for name, tier in tiers.items() if tier is Tier.BOOK for kind in (BookLevels, Trade))
    )
    valued = have & (marks | frozenset((name, kind) for name, kind in prices if name not in dense_marks))
    nodes = [
        Node("venue", "venue", venue_watches),
        Node("portfolio", "portfolio", valued),
        Node("broker", "broker", have & prices),
        *(
            Node(
                strategy.name,
                "strategy",
                frozenset(
                    (name, kind)
                    for name, kind in have
                    if name in strategy.instruments and kind in MARKET and kind in strategy.watches_kinds
                ),
            )
            for strategy in strategies
        ),
        Node("risk", "risk"),
    ]
    limits = {
        strategy.name: StrategyLimits(
            share=strategy.share,
            price_age_s=price_age_s,
            sizing=strategy.settings.sizing or default_sizing(strategy),
        )
        for strategy in strategies
    }
    balances = {"USDT": settings.capital}
    components = {
        "venue": SimulatedVenue(
            settings.venue.model_copy(update={"balances": balances, "leverage": exact(settings.risk.leverage)}),
            instruments,
            tiers,
            venue_watches,
        ),
        "portfolio": Portfolio(
            PortfolioConfig(balances=balances, shares={strategy.name: strategy.share for strategy in strategies}),
            instruments,
            valued,
        ),
        "broker": Broker(settings.broker, instruments, have & prices),
        "risk": RiskManager(settings.risk, instruments, limits, "bt"),
        **{strategy.name: strategy.component for strategy in strategies},
    }
    return Topology(tuple(nodes)), components


def default_sizing(strategy: Strategy) -> Sizing:
    """By risk; a pair has no stop to size by, and takes a part of its share in each leg."""
    categories = {split_id(name)[1] for name in strategy.instruments}
    if categories == {Category.SPOT, Category.LINEAR}:
        return EquityShare(share=PAIR_LEG * float(strategy.share))
    return RiskSizing()


_SHARE = Decimal("1e-6")
