# a component is handed the time whether it needs it or not
"""A whole system on a made-up tape: every role occupied, the strategies chatty and scripted."""

import zlib
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
from msgspec import Struct
from pydantic import BaseModel, Field

from hean.execution.broker import Broker, BrokerConfig
from hean.execution.pairs import PairConfig
from hean.execution.simulated_venue import SimulatedVenue, SimulatedVenueConfig, Tier
from hean.instruments import Instrument, Perp, Spot
from hean.messages import (
    Bar,
    BarOpened,
    Bracket,
    FundingRate,
    Leg,
    MarkPrice,
    NodeStarted,
    PositionChanged,
    Quote,
    Signal,
    StartTrading,
    Trade,
    VerifyFlat,
)
from hean.monitor import Monitor
from hean.portfolio.portfolio import Portfolio, PortfolioConfig
from hean.reconcile.reconciler import Reconciler, ReconcilerConfig
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.manager import RiskManager
from hean.risk.sizing import FixedNotional
from hean.simulation import Simulation
from hean.tape import Stream, Tape
from hean.topology import Node, Topology

D = Decimal
SECOND = 1_000_000_000
START = 20_000 * 86_400 * SECOND - 60 * SECOND  # a minute before midnight
BTC, BTC_SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
ETH, ETH_SPOT = "ETHUSDT-LINEAR.BYBIT", "ETHUSDT-SPOT.BYBIT"
NAMES = (BTC, BTC_SPOT, ETH, ETH_SPOT)
CAPITAL = D(10_000)
PRICE_OF = {Tier.BARS: Bar, Tier.TRADES: Trade, Tier.BOOK: Quote}


def _rules(name, tick, step):
    spot = "SPOT" in name
    return Instrument(
        id=name,
        base=name[:3],
        quote="USDT",
        tick=D(tick),
        step=D(step),
        min_quantity=D(step),
        max_limit_quantity=D(1000),
        max_market_quantity=D(100),
        min_notional=D(5),
        max_leverage=D(1) if spot else D(100),
        funding_interval_h=0 if spot else 8,
    )


INSTRUMENTS = {
    BTC: _rules(BTC, "0.1", "0.001"),
    BTC_SPOT: _rules(BTC_SPOT, "0.01", "0.000001"),
    ETH: _rules(ETH, "0.01", "0.01"),
    ETH_SPOT: _rules(ETH_SPOT, "0.01", "0.00001"),
}
_FIRST = {"BTC": 60_000.0, "ETH": 2_500.0}


# --- strategies that talk ------------------------------------------------------------------------


class ChatterConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "chatter"
    instrument: Perp
    seed: int = 0
    every: int = Field(default=5, description="rows between two words, more or less")
    weights: tuple[float, ...] = (1.0, 0.5, -1.0, -0.4, 0.0, 0.0)
    bracket: float = Field(default=0.002, description="distance of the stop, a fraction; 0 for none")


class ChatterState(Struct):
    rows: int = 0
    held: Decimal = D(0)


class Chatter:
    """Says long, short or flat as a seed has it, and sometimes holds a bracket to it."""

    def __init__(self, config: ChatterConfig) -> None:
        self.config = config
        self.state = ChatterState()

    def handle(self, message: Bar | Trade | Quote | PositionChanged, now: int) -> Iterator[Signal]:
        if isinstance(message, PositionChanged):
            self.state.held = message.quantity
            return
        config = self.config
        self.state.rows += 1
        drawn = zlib.crc32(f"{config.seed}/{config.name}/{self.state.rows}".encode())
        if drawn % config.every:
            return
        price = price_of(message)
        weight = config.weights[drawn // 64 % len(config.weights)]
        bracket = None
        if weight and config.bracket and drawn // 1024 % 2:
            sign = 1 if weight > 0 else -1
            target = price * (1 + sign * 2 * config.bracket) if drawn // 4096 % 2 else None
            bracket = Bracket(price * (1 - sign * config.bracket), target)
        leg = Leg(config.instrument, weight, price, message.ts_event)
        context = f"c{drawn // 8192 % 3}"
        yield Signal(config.name, (leg,), "chat", None, None, bracket, context)

    def wake_at(self) -> int | None:
        return None


class CarrierConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = "carrier"
    perps: tuple[Perp, ...]
    spots: tuple[Spot, ...]
    seed: int = 0
    every: int = 7


class CarrierState(Struct):
    rows: int = 0
    prices: dict[str, float] = {}
    seen: dict[str, int] = {}


class Carrier:
    """Opens and closes pairs, spot against perpetual, as a seed has it: several coins under one name."""

    def __init__(self, config: CarrierConfig) -> None:
        self.config = config
        self.state = CarrierState()

    def handle(self, message: Bar | Trade | Quote, now: int) -> Iterator[Signal]:
        config, state = self.config, self.state
        state.rows += 1
        state.prices[message.instrument] = price_of(message)
        state.seen[message.instrument] = message.ts_event
        drawn = zlib.crc32(f"{config.seed}/{config.name}/{state.rows}".encode())
        if drawn % config.every:
            return
        which = drawn // 64 % len(config.perps)
        perp, spot = config.perps[which], config.spots[which]
        if perp in state.prices and spot in state.prices:
            weight = (1.0, 1.0, 0.5, 0.0)[drawn // 1024 % 4]
            legs = (
                Leg(perp, -weight, state.prices[perp], state.seen[perp]),
                Leg(spot, weight, state.prices[spot], state.seen[spot]),
            )
            yield Signal(config.name, legs, "carry", None, None, None, "")

    def wake_at(self) -> int | None:
        return None


def price_of(message) -> float:
    match message:
        case Bar(close=price) | Trade(price=price) | MarkPrice(price=price):
            return price
        case Quote(bid=bid, ask=ask):
            return (bid + ask) / 2


# --- a market ------------------------------------------------------------------------------------


def market(seed, tier, rows=150, *, volatility=4e-4, step=SECOND, names=NAMES, drift=0.0):
    """A tape of a made-up market: each instrument priced as its tier has it, perpetuals marked and funded."""
    rng = np.random.default_rng([seed, 7])
    streams = []
    common = {base: np.cumsum(rng.normal(drift, volatility, rows)) for base in _FIRST}
    for name in names:
        rules = INSTRUMENTS[name]
        tick = float(rules.tick)
        log = common[rules.base] + rng.normal(0, volatility / 4, rows)
        price = np.round(_FIRST[rules.base] * np.exp(log) / tick) * tick
        if tier is Tier.BARS:
            ts = START + (np.arange(rows, dtype=np.int64) + 1) * step
            opened = np.r_[price[0], price[:-1]]
            reach = np.round(np.abs(rng.normal(0, volatility, (2, rows))) * price / tick) * tick
            columns = {
                "open": opened,
                "high": np.maximum(opened, price) + reach[0],
                "low": np.minimum(opened, price) - reach[1],
                "close": price,
                "volume": np.ones(rows),
            }
            streams += [
                Stream(Bar, name, ts, columns, interval=step),
                Stream(BarOpened, name, ts - step, {"open": opened}, interval=step),
            ]
        elif tier is Tier.TRADES:
            ts = START + np.sort(rng.integers(0, rows * step, rows))
            size = rng.uniform(1, 50, rows) / price[0] * 1000
            streams.append(
                Stream(Trade, name, ts, {"price": price, "size": size, "side": rng.choice([1, -1], rows).astype("i1")})
            )
        else:
            ts = START + np.sort(rng.integers(0, rows * step, rows))
            size = rng.uniform(0.2, 30, (2, rows)) / price[0] * 1000
            quotes = {"bid": price, "bid_size": size[0], "ask": price + tick, "ask_size": size[1]}
            streams.append(Stream(Quote, name, ts, quotes))
            ts = START + np.sort(rng.integers(0, rows * step, rows))
            traded = {"price": price, "size": size[0], "side": rng.choice([1, -1], rows).astype("i1")}
            streams.append(Stream(Trade, name, ts, traded))
        if not rules.is_spot:
            at = START + np.arange(5, dtype=np.int64) * (rows * step // 5) + step // 2
            rate = np.round(rng.normal(1e-4, 3e-4, at.size), 8)
            streams.append(Stream(FundingRate, name, at, {"rate": rate}))
            streams.append(Stream(MarkPrice, name, at, {"price": price[:: max(1, rows // 5)][:5] + 0.03}))
    return Tape([stream for stream in streams if len(stream)])


# --- the system ----------------------------------------------------------------------------------

LOOSE = {
    "orders_per_minute": 10_000,
    "margin": 2.0,
    "stress_margin": 2.0,
    "symbol_exposure": 0.6,
    "price_collar": 0.05,
    "reconciler": True,
}


class House:
    """A simulation of the whole system, and what it was built from."""

    def __init__(self, sim: Simulation, topology: Topology, tape: Tape) -> None:
        self.sim = sim
        self.topology = topology
        self.tape = tape

    def __getitem__(self, name):
        return self.sim.components[name]

    def said(self, source, *kinds):
        return [
            envelope.message
            for envelope in self.sim.log
            if envelope.source == source and isinstance(envelope.message, kinds)
        ]

    def quiet(self):
        """Deliver all that is under way; let the reconciler compare twice, long after."""
        self.sim.settle()
        for _ in range(2):
            self.sim.now += 30 * SECOND
            self.sim.tell("reconciler", VerifyFlat(), source="engine")
            self.sim.settle()


def system(tape, tier, strategies, *, risk=None, venue=None, sizes=None, patience_s=20.0, say_profits=False):
    """Nodes of a run, and a function that makes their components anew.

    `strategies` gives, by name, a function that makes it and the instruments it watches.
    """
    told = frozenset((stream.instrument, stream.kind) for stream in tape.streams)
    prices = frozenset((name, PRICE_OF[tier]) for name in NAMES) & told
    marks = frozenset((name, kind) for name, kind in told if kind is MarkPrice)
    nodes = Topology(
        (
            Node("venue", "venue", told),
            Node("portfolio", "portfolio", prices | marks),
            Node("broker", "broker", prices),
            *(
                Node(name, "strategy", frozenset(pair for pair in prices if pair[0] in watched))
                for name, (_, watched) in strategies.items()
            ),
            Node("risk", "risk"),
            Node("reconciler", "reconciler"),
            Node("monitor", "monitor"),
        )
    )
    tiers = {name: tier for name in NAMES if any(name == instrument for instrument, _ in told)}
    instruments = {name: INSTRUMENTS[name] for name in tiers}
    share = (1 / D(len(strategies))).quantize(D("0.01"))

    def build():
        limits = {
            name: StrategyLimits(
                share=share, price_age_s=60.0, sizing=FixedNotional(notional=(sizes or {}).get(name, 900.0))
            )
            for name in strategies
        }
        balances = {"USDT": CAPITAL}
        return {
            "venue": SimulatedVenue(SimulatedVenueConfig(balances=balances, **(venue or {})), instruments, tiers, told),
            "portfolio": Portfolio(
                PortfolioConfig(balances=balances, shares=dict.fromkeys(strategies, share), say_profits=say_profits),
                instruments,
                prices | marks,
            ),
            "broker": Broker(BrokerConfig(pairs=PairConfig(patience_s=patience_s)), instruments, prices),
            "risk": RiskManager(RiskConfig(**(LOOSE | (risk or {}))), instruments, limits, "t"),
            "reconciler": Reconciler(ReconcilerConfig(), instruments),
            "monitor": Monitor(instruments),
            **{name: make() for name, (make, _) in strategies.items()},
        }

    return nodes, build


def chatter(name, instrument, seed, **changes):
    config = ChatterConfig(name=name, instrument=instrument, seed=seed, **changes)
    return {name: (lambda: Chatter(config), (instrument,))}


def carrier(name, seed, perps=(BTC, ETH), spots=(BTC_SPOT, ETH_SPOT), **changes):
    config = CarrierConfig(name=name, perps=perps, spots=spots, seed=seed, **changes)
    return {name: (lambda: Carrier(config), (*perps, *spots))}


def house(tape, tier, strategies, *, seed, haste=0.05, start=True, **changes):
    """A simulation of the whole system, started."""
    topology, build = system(tape, tier, strategies, **changes)
    sim = Simulation(topology, build, tape, seed=seed, haste=haste)
    found = House(sim, topology, tape)
    sim.tell("portfolio", NodeStarted("portfolio"))
    sim.settle()
    if start:
        sim.tell("risk", StartTrading())
        sim.settle()
    return found
