"""`make bench`: how far the engine is from a compiled loop of the same rules, measured in one run.

Every order goes through signal, risk, broker, venue and portfolio. Times are the best of three; the machine's
noise is in both figures of a ratio. Nothing here is asserted but that the trades are the same.
"""

import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hean.backtest.player import Player
from hean.dispatcher import Dispatcher
from hean.execution.simulated_venue import Tier
from hean.messages import (
    Bar,
    BarOpened,
    Envelope,
    FeedLive,
    NodeStarted,
    OrderFilled,
    StartTrading,
    Trade,
)
from hean.settings import BacktestSettings
from hean.store.rules import in_force
from hean.tape import Stream, Tape
from hean.topology import Node, Route, Topology
from hean.trading_system import build, build_strategies
from tests.bench import lower_bound

NAME = "BTCUSDT-LINEAR.BYBIT"
MINUTE = 60_000_000_000
TS = 1_735_689_600_000_000_000
NOTIONAL = 1_000.0
UNBOUND = {
    "trade_risk": 1e6,
    "symbol_exposure": 1e6,
    "gross_exposure": 1e6,
    "strategy_leverage": 1e6,
    "margin": 1e6,
    "daily_loss": 1e6,
    "orders_per_minute": 1_000_000_000,
    "price_collar": 1e6,
}
BARS, MOVE, TICKS, FAST, SLOW, BAND = 525_600, 0.0041, 5_000_000, 100, 400, 2e-6
CROSS = {"fast": FAST, "slow": SLOW, "band": BAND}
RULES = "tests/bench/strategies.py"


def bars(n: int) -> Tape:
    """Candles of a seeded random walk with fat tails, one a minute."""
    rng = np.random.default_rng(3)
    moves = rng.standard_t(4, n) * 0.0007
    close = np.round(60_000 * np.exp(np.cumsum(moves - moves.mean())), 1)
    open_ = np.r_[60_000.0, close[:-1]]
    high = np.round(np.maximum(open_, close) * (1 + abs(rng.normal(0, 0.0003, n))), 1)
    low = np.round(np.minimum(open_, close) * (1 - abs(rng.normal(0, 0.0003, n))), 1)
    ts = TS + np.arange(n, dtype=np.int64) * MINUTE
    columns = {"open": open_, "high": high, "low": low, "close": close, "volume": rng.exponential(10, n)}
    return Tape(
        [
            Stream(Bar, NAME, ts + MINUTE, columns, interval=MINUTE),
            Stream(BarOpened, NAME, ts, {"open": open_}, interval=MINUTE),
        ]
    )


def ticks(n: int) -> Tape:
    """Trades of a seeded random walk, some ten a second."""
    rng = np.random.default_rng(4)
    price = np.round(60_000 * np.exp(np.cumsum(rng.normal(0, 2e-5, n))), 1)
    ts = TS + np.cumsum(rng.integers(1_000_000, 200_000_000, n))
    side = np.where(rng.random(n) < 0.5, 1, -1).astype(np.int8)
    return Tape([Stream(Trade, NAME, ts, {"price": price, "size": rng.exponential(0.1, n), "side": side})])


def player_of(tape: Tape, rule: str, config: dict[str, float], tier: Tier) -> tuple[Player, dict, list]:
    settings = BacktestSettings.model_validate(
        {
            "strategies": [
                {"use": f"{RULES}:{rule}", "config": config, "sizing": {"kind": "fixed", "notional": NOTIONAL}}
            ],
            "capital": 1_000_000,
            "risk": UNBOUND,
            "venue": {"latency_ms": 0, "latency_jitter_ms": 0},
        }
    )
    instruments = {NAME: in_force([], NAME, TS)[0]}
    told = frozenset((stream.instrument, stream.kind) for stream in tape.streams)
    topology, components = build(settings, build_strategies(settings), instruments, {NAME: tier}, told, price_age_s=65)
    log: list[Envelope] = []
    player = Player(Dispatcher(topology, components, log=log.append), topology, tape)
    player.tell("portfolio", NodeStarted("portfolio"), tape.first_ts)
    player.tell("risk", StartTrading(), tape.first_ts, seq=1)
    return player, components, log


def best_of(times: int, run: Callable[[], float]) -> float:
    return min(run() for _ in range(times))


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def delivery_ns() -> float:
    """What handing one message from one component to another costs, the message itself included."""

    class Echo:
        def __init__(self) -> None:
            self.left = 0

        def handle(self, message, now):
            if self.left:
                self.left -= 1
                yield message

        def wake_at(self) -> None:
            return None

    Echo.handle.__annotations__ = {"message": FeedLive, "return": list[FeedLive]}
    one, other = Echo(), Echo()
    nodes = (Node("one", "one"), Node("other", "other"))
    routes = (Route("one", (FeedLive,), "other"), Route("other", (FeedLive,), "one"))
    dispatcher = Dispatcher(Topology(nodes, routes), {"one": one, "other": other}, log=[].append)
    n = 200_000
    one.left = other.left = n // 2
    took = timed(lambda: dispatcher.tell("one", Envelope("feed", 1, 0, "", "", FeedLive("x")), 0))
    return took / n * 1e9


def same_trades(log: list, trips: int, exits: np.ndarray) -> None:
    fills = [one.message for one in log if one.source == "venue" and type(one.message) is OrderFilled]
    ours = np.array([float(fill.price) for fill in fills[1::2]])
    if len(ours) != trips or not np.allclose(ours, exits, rtol=1e-12):
        raise SystemExit(f"the engine made {len(ours)} round trips, the lower bound {trips}: they are not the same")


def measure(name: str, tape: Tape, rule: str, config: dict[str, float], tier: Tier, bound: Callable[[], tuple]) -> None:
    bound()
    player_of(tape, rule, config, tier)[0].play(2_000)  # loads what was compiled
    trips, _, exits = bound()
    floor = best_of(3, lambda: timed(bound))
    runs = []
    for _ in range(3):
        player, _, log = player_of(Tape(tape.streams), rule, config, tier)
        runs.append(timed(player.play))
    same_trades(log, trips, exits)
    rows = len(tape.streams[0])
    took = min(runs)
    print(
        f"{name:28} {rows / took / 1e6:8.2f} M rows/s   {trips:6} round trips   {len(log):7} messages   "
        f"lower bound {rows / floor / 1e6:8.1f} M rows/s   ratio {took / floor:6.1f}   "
        f"{(took - floor) / max(1, trips) * 1e6:6.0f} us a round trip"
    )


def bound_bars(tape: Tape) -> Callable[[], tuple]:
    of = tape.stream(Bar, NAME).columns
    return lambda: lower_bound.impulse_bars(
        of["open"], of["high"], of["low"], of["close"], 2, MOVE, 0.006, 0.009, 60, NOTIONAL, 0.5e-4, 5.5e-4, 0.1, 0.001
    )


def bound_ticks(tape: Tape) -> Callable[[], tuple]:
    price = tape.stream(Trade, NAME).columns["price"]
    return lambda: lower_bound.ema_ticks(price, FAST, SLOW, BAND, NOTIONAL, 0.5e-4, 5.5e-4, 0.1, 0.001)


def memory() -> None:
    """Peak memory of the tick run over what it began with, against the tape."""
    player_of(ticks(10_000), "EmaCross", CROSS, Tier.TRADES)[0].play()
    before = resident()
    tape = ticks(TICKS)
    size = sum(stream.ts.nbytes + sum(c.nbytes for c in stream.columns.values()) for stream in tape.streams)
    player = player_of(tape, "EmaCross", CROSS, Tier.TRADES)[0]
    peak = [resident()]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    player.play()
    stop.set()
    watcher.join()
    print(f"{size} {max(peak[0], resident()) - before}")


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def first_and_second() -> None:
    """Start a process twice with an empty cache of compiled kernels: only the first may compile."""
    with tempfile.TemporaryDirectory() as cache:
        times = []
        for _ in range(2):
            code = (
                "import time; from tests.bench.__main__ import *; t = time.perf_counter(); "
                "player_of(bars(5_000), 'ImpulseRule', {'move': MOVE}, Tier.BARS)[0].play(); "
                "print(time.perf_counter() - t)"
            )
            said = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                check=True,
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
            )
            times.append(float(said.stdout))
    print(
        f"kernels                      first run of a machine {times[0]:.2f} s, second {times[1]:.2f} s, on 5,000 candles"
    )


def main() -> None:
    print(f"delivery alone               {min(delivery_ns() for _ in range(3)) / 1e3:8.2f} us (aim 3)")
    tape = bars(BARS)
    measure("(a) a year of 1 m candles", tape, "ImpulseRule", {"move": MOVE}, Tier.BARS, bound_bars(tape))
    tape = ticks(TICKS)
    measure("(b) 5 million trades", tape, "EmaCross", CROSS, Tier.TRADES, bound_ticks(tape))
    said = subprocess.run([sys.executable, "-m", "tests.bench", "memory"], capture_output=True, text=True, check=True)
    size, used = (int(word) for word in said.stdout.split())
    print(
        f"memory of (b)                {used / 1e6:8.0f} MB at its peak, the tape {size / 1e6:.0f} MB: {used / size:.1f} x (aim 3)"
    )
    first_and_second()


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        memory()
    else:
        main()
