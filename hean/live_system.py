"""The composition root of a run that trades: the nodes, and the component of each.

A backtest hosts every component in one dispatcher (`hean.trading_system`); here each lives in a process of its own,
which builds its own and no other.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from hean.engine_settings import EngineSettings
from hean.errors import ConfigError
from hean.execution.broker import Broker
from hean.execution.simulated_venue import SimulatedVenue
from hean.execution.venue_state import Tier
from hean.instruments import Category, Instrument, split_id
from hean.messages import FundingRate, MarkPrice, Observation, PremiumIndex, Quote, Trade
from hean.monitor import Monitor
from hean.portfolio.portfolio import Portfolio, PortfolioConfig
from hean.reconcile.reconciler import Reconciler
from hean.risk.config import StrategyLimits, exact
from hean.risk.manager import RiskManager
from hean.topology import MARKET, Node, Topology
from hean.trading_system import Strategy, build_strategies, default_sizing

Watches = frozenset[tuple[str, type[Observation]]]

CONTRACTS_ONLY = (MarkPrice, FundingRate, PremiumIndex)

PRICE_AGE_S = 10.0
"""Seconds a leg's price may be old when a position is opened on it, where a strategy watches quotes: a candle that is had by
REST, because the stream was late with it, is five seconds old."""

BAR_PRICE_AGE_S = 65.0
"""The same of a strategy that sees closed candles of a minute only."""


def live_strategies(settings: EngineSettings) -> list[Strategy]:
    """The strategies of a run, built and named.

    Raises:
        ConfigError: A strategy or a setting of one is wrong.
    """
    return build_strategies(settings)


def traded(strategies: Iterable[Strategy]) -> tuple[str, ...]:
    """Every instrument that some strategy trades, in the order they are named."""
    return tuple(dict.fromkeys(name for strategy in strategies for name in strategy.instruments))


def pairs(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Spot and perpetual of one symbol, where both are traded."""
    by_symbol: dict[str, dict[Category, str]] = {}
    for name in names:
        symbol, category, _ = split_id(name)
        by_symbol.setdefault(symbol, {})[category] = name
    return tuple(
        (of[Category.SPOT], of[Category.LINEAR])
        for of in by_symbol.values()
        if Category.SPOT in of and Category.LINEAR in of
    )


def topology(settings: EngineSettings, strategies: Sequence[Strategy]) -> Topology:
    """The nodes of a run, and what each sees of the market."""
    names = traded(strategies)
    quotes: Watches = frozenset((name, Quote) for name in names)
    contracts = [name for name in names if split_id(name)[1] is not Category.SPOT]
    marks: Watches = frozenset((name, MarkPrice) for name in contracts)
    valued = marks | frozenset((name, Quote) for name in names if name not in contracts)
    venue: Watches = frozenset()
    if settings.venue.is_ours:
        trades: Watches = frozenset((name, Trade) for name in names)
        venue = quotes | marks | trades | frozenset((name, FundingRate) for name in contracts)
    paired = {name for pair in pairs(names) for name in pair}
    nodes = [
        Node("venue", "venue", venue),
        Node("portfolio", "portfolio", valued),
        Node("broker", "broker", frozenset((name, kind) for name, kind in quotes if name in paired)),
        *(Node(strategy.name, "strategy", _seen(strategy)) for strategy in strategies),
        Node("risk", "risk"),
        Node("reconciler", "reconciler"),
        Node("smoke", "process"),
        Node("factory", "factory"),
        Node("monitor", "monitor"),
    ]
    return Topology(tuple(nodes))


def _seen(strategy: Strategy) -> Watches:
    return frozenset(
        (name, kind)
        for name in strategy.instruments
        for kind in strategy.watches_kinds
        if kind in MARKET and not (kind in CONTRACTS_ONLY and split_id(name)[1] is Category.SPOT)
    )


def component(
    settings: EngineSettings, instruments: Mapping[str, Instrument], name: str, tag: str, strategies: Sequence[Strategy]
) -> Any:
    """The component of one node.

    Args:
        settings: The whole tree.
        instruments: The rules of everything traded.
        name: The node's name: a role, or a strategy's.
        tag: What order ids begin with: three characters, drawn once for a home directory.
        strategies: The strategies of the run.

    Raises:
        ConfigError: There is no such node, or a setting of it is wrong.
    """
    of = {node.name: node for node in topology(settings, strategies).nodes}
    if name not in of:
        raise ConfigError(f"there is no node {name}: {', '.join(of)}")
    match name:
        case "risk":
            config = settings.risk.model_copy(update={"reconciler": True})
            return RiskManager(config, instruments, {one.name: _limits(one) for one in strategies}, tag)
        case "broker":
            return Broker(settings.broker, instruments, of[name].watches)
        case "portfolio":
            shares = {strategy.name: strategy.share for strategy in strategies}
            # An account is what the venue says it is: its first snapshot opens the books.
            money = PortfolioConfig(balances={}, shares=shares, say_profits=True)
            return Portfolio(money, instruments, of[name].watches)
        case "reconciler":
            given = settings.reconciler
            return Reconciler(given.model_copy(update={"pairs": given.pairs or pairs(instruments)}), instruments)
        case "monitor":
            return Monitor(instruments)
        case "venue":
            return _paper(settings, instruments, of[name].watches)
        case _:
            for strategy in strategies:
                if strategy.name == name:
                    return strategy.component
            raise ConfigError(f"{name} is made by the factory, not from settings")


def _limits(strategy: Strategy) -> StrategyLimits:
    age = PRICE_AGE_S if Quote in strategy.watches_kinds else BAR_PRICE_AGE_S
    return StrategyLimits(
        share=strategy.share, price_age_s=age, sizing=strategy.settings.sizing or default_sizing(strategy)
    )


def _paper(settings: EngineSettings, instruments: Mapping[str, Instrument], watches: Watches) -> SimulatedVenue:
    balances: dict[str, Decimal] = {"USDT": settings.capital}
    config = settings.paper.model_copy(update={"balances": balances, "leverage": exact(settings.risk.leverage)})
    return SimulatedVenue(config, instruments, dict.fromkeys(instruments, Tier.BOOK), watches)
