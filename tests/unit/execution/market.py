"""Markets made up from a seed, a script that trades in them, and the venue between the two."""

from decimal import Decimal
from itertools import count
from random import Random

import numpy as np
from msgspec import Struct

from hean.backtest.player import Player
from hean.dispatcher import Dispatcher
from hean.execution.simulated_venue import SimulatedVenue, SimulatedVenueConfig, Tier
from hean.instruments import Instrument, RiskTier
from hean.messages import (
    Bar,
    BarOpened,
    BookLevels,
    CancelOrder,
    FundingRate,
    FundingSettled,
    InterestCharged,
    MarkPrice,
    OrderAccepted,
    OrderBracket,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Quote,
    Side,
    SubmitOrder,
    TimeInForce,
    Trade,
    Wake,
)
from hean.tape import Stream, Tape
from hean.topology import Node, Route, Topology, subscriber

D = Decimal
MS, SECOND, MINUTE, HOUR = 10**6, 10**9, 60 * 10**9, 3600 * 10**9
START = 1_735_689_600 * SECOND
PERP, SPOT, ETH = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"
KINDS = (Bar, BarOpened, Trade, Quote, BookLevels, MarkPrice, FundingRate)


def instrument(name, tick="0.1", step="0.001", **changes):
    perp = "SPOT" not in name
    rules = {
        "id": name,
        "base": name[:3],
        "quote": "USDT",
        "tick": D(tick),
        "step": D(step),
        "min_quantity": D(step),
        "max_limit_quantity": D(1000),
        "max_market_quantity": D(100),
        "min_notional": D(5),
        "max_leverage": D(100) if perp else D(1),
        "funding_interval_h": 8 if perp else 0,
        "tiers": (RiskTier(D("Infinity"), D("0.005"), D("0.01")),) if perp else (),
    }
    return Instrument(**(rules | changes))


INSTRUMENTS = {PERP: instrument(PERP), SPOT: instrument(SPOT, "0.01", "0.000001"), ETH: instrument(ETH, "0.01", "0.01")}

_ids = count(1)


def order(name, side, quantity, *, limit=None, tif=None, reduce_only=False, bracket=None, order_id=None, strategy="a"):
    force = TimeInForce(tif) if tif else TimeInForce.IOC if limit is None else TimeInForce.GTC
    exits = None if bracket is None else OrderBracket(D(bracket[0]), None if bracket[1] is None else D(bracket[1]))
    return SubmitOrder(
        client_order_id=order_id or f"o-{next(_ids)}",
        strategy=strategy,
        instrument=name,
        side=side,
        quantity=D(quantity),
        limit=None if limit is None else D(limit),
        time_in_force=force,
        reduce_only=reduce_only,
        reference=D(100),
        bracket=exits,
    )


def buy(quantity, name=PERP, **more):
    return order(name, Side.BUY, quantity, **more)


def sell(quantity, name=PERP, **more):
    return order(name, Side.SELL, quantity, **more)


class Told:
    """A venue, told one thing after another; what it says is kept."""

    def __init__(self, tier=Tier.BARS, *, instruments=INSTRUMENTS, kinds=KINDS, balances=None, **config):
        settings = {"half_spread_bp": 0.0, "latency_ms": 0.0, "latency_jitter_ms": 0.0} | config
        held = {coin: D(amount) for coin, amount in (balances or {"USDT": "10000"}).items()}
        watches = frozenset((name, kind) for name in instruments for kind in kinds)
        self.venue = SimulatedVenue(
            SimulatedVenueConfig(balances=held, **settings), instruments, dict.fromkeys(instruments, tier), watches
        )
        self.heard = []

    def __call__(self, message, now=None):
        at = message.ts_event if now is None else now
        said = list(self.venue.handle(message, at))
        self.heard += said
        return said

    def bar(self, n, open_, high, low, close, name=PERP):
        """The n-th minute: its open and its close; what is said at each."""
        opened = self(BarOpened(name, START + n * MINUTE, float(open_)))
        ts = START + (n + 1) * MINUTE
        return opened, self(Bar(name, ts, ts - MINUTE, float(open_), float(high), float(low), float(close), 1.0))

    def wake(self):
        return self(Wake(), self.venue.wake_at())

    @property
    def account(self):
        return self.venue.state.account

    def position(self, name=PERP):
        held = self.account.positions.get(name)
        return held.quantity if held is not None else D(0)


def fills(said):
    return [(fact.side * fact.quantity, fact.price) for fact in said if isinstance(fact, OrderFilled)]


# --- tapes from a seed ------------------------------------------------------------------------------


def walk(chance, rows, *, start=100.0, volatility=0.002, tick=0.1):
    return np.maximum(np.round(start * np.exp(np.cumsum(chance.normal(0, volatility, rows))) / tick), 1) * tick


def bar_streams(chance, name, rows, **more):
    close = walk(chance, rows, **more)
    open_ = np.r_[close[:1], close[:-1]] + np.round(chance.normal(0, 1, rows)) * 0.1 * (chance.random(rows) < 0.2)
    wick = np.round(np.abs(chance.normal(0, 0.3, (2, rows))), 1)
    ts = START + np.arange(rows, dtype=np.int64) * MINUTE
    ts[rows // 2 :] += 7 * MINUTE
    of = {
        "open": open_,
        "high": np.maximum(open_, close) + wick[0],
        "low": np.maximum(np.minimum(open_, close) - wick[1], 0.1),
        "close": close,
        "volume": np.ones(rows),
    }
    return [
        Stream(Bar, name, ts + MINUTE, of, interval=MINUTE),
        Stream(BarOpened, name, ts, {"open": open_}, interval=MINUTE),
    ]


def stamps(chance, rows, span):
    return START + np.sort(chance.integers(0, span // (10 * MS), rows)).astype(np.int64) * 10 * MS


def trade_streams(chance, name, rows, span, **more):
    of = {
        "price": walk(chance, rows, **more),
        "size": np.round(chance.exponential(0.5, rows), 3),
        "side": np.where(chance.random(rows) < 0.5, 1, -1).astype(np.int8),
    }
    return [Stream(Trade, name, stamps(chance, rows, span), of)]


def quote_streams(chance, name, rows, span, **more):
    bid = walk(chance, rows, **more)
    of = {
        "bid": bid,
        "ask": bid + 0.1 * chance.integers(1, 4, rows),
        "bid_size": np.round(chance.exponential(0.5, rows), 3) * (chance.random(rows) > 0.03),
        "ask_size": np.round(chance.exponential(0.5, rows), 3),
    }
    return [Stream(Quote, name, stamps(chance, rows, span), of)]


def level_streams(chance, name, rows, span, **more):
    """A book of three levels a side, told as a snapshot now and then and as changes between."""
    middles = walk(chance, rows, **more)
    first, last, side, price, size = [], [], [], [], []
    snapshot = chance.random(rows) < 0.1
    snapshot[0] = True
    shown = ({}, {})
    for row, middle in enumerate(middles):
        wanted = tuple(
            {round(middle + way * 0.1 * n, 1): round(float(chance.exponential(0.4)) + 0.001, 3) for n in range(1, 4)}
            for way in (-1, 1)
        )
        first.append(len(side))
        for way, before, now in zip((1, -1), shown, wanted, strict=True):
            gone = () if snapshot[row] else [at for at in before if at not in now]
            for at, amount in (*((at, 0.0) for at in gone), *now.items()):
                side.append(way)
                price.append(at)
                size.append(amount)
        last.append(len(side))
        shown = wanted
    of = {
        "snapshot": snapshot,
        "first": np.array(first),
        "last": np.array(last),
        "side": np.array(side, np.int8),
        "price": np.array(price),
        "size": np.array(size),
    }
    return [Stream(BookLevels, name, stamps(chance, rows, span), of)]


def mark_streams(chance, name, rows, span, **more):
    return [Stream(MarkPrice, name, stamps(chance, rows, span), {"price": walk(chance, rows, **more)})]


def funding_streams(chance, name, rows, span):
    return [Stream(FundingRate, name, stamps(chance, rows, span), {"rate": np.round(chance.normal(0, 1e-3, rows), 8)})]


MARKETS = {
    "bars": (Tier.BARS, lambda chance, name, _, rows: bar_streams(chance, name, rows)),
    "trades": (Tier.TRADES, lambda chance, name, span, rows: trade_streams(chance, name, rows, span)),
    "quotes": (
        Tier.BOOK,
        lambda chance, name, span, rows: (
            quote_streams(chance, name, rows, span) + trade_streams(chance, name, rows // 2, span)
        ),
    ),
    "depth": (
        Tier.BOOK,
        lambda chance, name, span, rows: (
            level_streams(chance, name, rows, span) + trade_streams(chance, name, rows // 2, span)
        ),
    ),
}


# --- a script ---------------------------------------------------------------------------------------


class ScriptState(Struct):
    done: int = 0


class Script:
    """Says what it was given at the times it was given: orders and cancels from a seed."""

    def __init__(self, plan):
        self.plan = plan
        self.state = ScriptState()

    def handle(
        self,
        message: Wake
        | OrderAccepted
        | OrderRejected
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | FundingSettled
        | InterestCharged,
        now: int,
    ) -> list[SubmitOrder | CancelOrder]:
        said = []
        while isinstance(message, Wake) and self.state.done < len(self.plan) and self.wake_at() <= now:
            said.append(self.plan[self.state.done][1])
            self.state.done += 1
        return said

    def wake_at(self):
        return self.plan[self.state.done][0] if self.state.done < len(self.plan) else None


ROUTES = (
    Route("feed", KINDS, "venue", subscriber),
    Route("script", (SubmitOrder, CancelOrder), "venue"),
    Route("venue", (OrderAccepted, OrderRejected, OrderFilled, OrderCanceled, OrderExpired), "script"),
    Route("venue", (FundingSettled, InterestCharged), "script"),
)


def random_order(chance, name, number, near):
    side = chance.choice([Side.BUY, Side.SELL])
    limit = None if chance.random() < 0.4 else D(str(round(near + chance.uniform(-1.5, 1.5), 1)))
    bracket = None
    if chance.random() < 0.5:
        away = D(str(round(near, 1)))
        stop = away - side * D(chance.choice(["0.3", "1", "3"]))
        bracket = OrderBracket(stop, away + side * D("1.5") if chance.random() < 0.6 else None)
    return SubmitOrder(
        client_order_id=f"s-{number}",
        strategy=chance.choice(["a", "b"]),
        instrument=name,
        side=side,
        quantity=D(chance.choice(["0.1", "0.25", "1", "3", "20"])),
        limit=limit,
        time_in_force=TimeInForce.IOC if limit is None else chance.choice(list(TimeInForce)),
        reduce_only=chance.random() < 0.2,
        reference=D(str(round(near, 1))),
        bracket=bracket,
    )


def random_plan(seed, names, span, orders, near=100.0):
    chance = Random(seed)
    plan, sent = [], []
    for number, at in enumerate(sorted(chance.randrange(span // SECOND) for _ in range(orders))):
        ts = START + at * SECOND + chance.choice([0, 0, 10 * MS, 137 * MS])
        if sent and chance.random() < 0.25:
            gone = chance.choice(sent)
            plan.append((ts, CancelOrder(gone.strategy, gone.client_order_id, gone.instrument)))
        else:
            sent.append(random_order(chance, chance.choice(names), number, near))
            plan.append((ts, sent[-1]))
    return sorted(plan, key=lambda planned: planned[0])


def random_tape(seed, markets, rows, span, *, marks=False, funding=True):
    """A tape of some instruments' markets, and how much is known of each."""
    chance = np.random.default_rng(seed)
    streams, tiers = [], {}
    for name, kind in markets.items():
        tier, make = MARKETS[kind]
        tiers[name] = tier
        streams += make(chance, name, span, rows)
        if name != SPOT and marks:
            streams += mark_streams(chance, name, rows // 3, span)
        if name != SPOT and funding:
            streams += funding_streams(chance, name, 8, span)
    return Tape(streams), tiers


def play(tape, tiers, plan, *, stepping, warm=0, **config):
    """Play a script against a tape; the log, and the venue."""
    watches = frozenset((stream.instrument, stream.kind) for stream in tape.streams)
    venue = SimulatedVenue(
        SimulatedVenueConfig(**config), {name: INSTRUMENTS[name] for name in tiers}, tiers, watches
    )  # fmt: skip
    topology = Topology((Node("venue", "venue", watches), Node("script", "script")), ROUTES)
    log = []
    script = Script(plan)
    player = Player(
        Dispatcher(topology, {"venue": venue, "script": script}, log=log.append), topology, tape, stepping=stepping
    )
    if warm:
        player.warm_up(warm)
    player.tell("script", Wake(), START)
    player.play()
    return log, venue, player
