"""How far the engine's actors are from bare Ray: tick to order, a flood of market data, a start after a long run.

    python -m tests.bench.engine [--soak 60]

All parts are real but the two ends: the market is made here, and the venue fills at once. With `--soak` nothing else is
done than to let ten ticks a second become orders for as many minutes, and the memory of each process is told.
"""

import argparse
import sqlite3
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import psutil
import ray

from actors import cluster as ray_cluster
from actors.crew import OPTIONS, Crew
from actors.roles import BrokerActor, MonitorActor, PortfolioActor, ReconcilerActor, RiskManagerActor, StrategyActor
from actors.shell import Post, Seat
from hean import codec
from hean.engine_settings import EngineSettings
from hean.live_system import component, live_strategies, topology, traded
from hean.messages import OPENING, AdjustBooks, Envelope, EpochBegan, NodeStarted, ReconcileCompleted, StartTrading
from hean.recovery import Retelling
from hean.store.journal import Journal
from hean.store.rules import in_force
from tests.bench.engine_parts import Head, Link, MadeFeed, PromptVenue

HERE = Path(__file__).resolve().parent
PERP = "BTCUSDT-LINEAR.BYBIT"
HOPS = 4
TICKS, PER_SECOND = 400, 20
FLOOD, FLOOD_S, SYMBOLS = 20_000, 15, 20
ENTRIES = 400_000
LIMITS = {
    "trade_risk": 1e6,
    "symbol_exposure": 1e6,
    "gross_exposure": 1e6,
    "strategy_leverage": 1e6,
    "margin": 1e6,
    "daily_loss": 1e6,
    "orders_per_minute": 1_000_000_000,
    "price_collar": 1e6,
    "kill_switch": {"jump": 1e6, "yellow": 1e6, "orange": 1e6, "red": 1e6},
}
KINDS = {
    "portfolio": PortfolioActor,
    "reconciler": ReconcilerActor,
    "broker": BrokerActor,
    "risk": RiskManagerActor,
    "monitor": MonitorActor,
}


class Bench:
    """A crew with made ends, and a word for each of its nodes."""

    def __init__(self, home, strategies, symbols):
        self.settings = EngineSettings.model_validate(
            {"strategies": strategies, "symbols": symbols, "risk": LIMITS, "endpoint": "http://127.0.0.1:1"}
        )
        self.strategies = live_strategies(self.settings)
        rules = {name: in_force((), PERP, 0)[0] for name in traded(self.strategies)}
        self.instruments = {name: _named(one, name) for name, one in rules.items()}
        self.home = home
        self.crew = Crew(home)
        for node in topology(self.settings, self.strategies).nodes:
            seat = self.seat(node.name, 1)
            if node.role in KINDS:
                self.crew.seat(seat, KINDS[node.role])
            elif node.role == "strategy":
                self.crew.seat(seat, StrategyActor)
            elif node.role == "venue":
                self.crew.seat(seat, PromptVenue)
        self.crew.seat(self.seat("feed", 1), MadeFeed, None)
        names = list(self.crew.members)
        self.crew.recover(names, 120)
        self.crew.connect(names, 60)
        self.crew.ask(["feed"], "begin", timeout_s=10)
        self.crew.ask([one.name for one in self.strategies], "awake", timeout_s=30)
        self.post = Post("engine@1")
        self.post.connect(self.crew.peers())
        self.seq = 0

    def seat(self, name, life):
        return Seat(name, self.home, self.settings, self.instruments, "bch", life, life)

    def tell(self, name, message):
        self.seq += 1
        parcel = codec.letters([Envelope("engine@1", self.seq, time.time_ns(), "", "", message)])
        self.crew.members[name].handle.tell.remote(parcel, "engine@1")

    def start(self):
        self.tell("risk", EpochBegan(1))
        self.tell("portfolio", NodeStarted("core"))
        for number, one in enumerate(self.strategies):
            self.tell(
                "portfolio", AdjustBooks(f"o{number}", one.name, "", "USDT", Decimal(1_000_000), Decimal(1), OPENING)
            )
        self.crew.settle(KINDS, 20)
        self.agree()
        self.tell("risk", StartTrading())
        self.crew.settle(KINDS, 20)

    def agree(self):
        self.tell("risk", ReconcileCompleted(self.seq + 1, 0, False))

    def end(self):
        self.crew.end(list(self.crew.members))


def tick_to_order(home):
    """Milliseconds from a quote at the feed to its order at the venue; and of as many bare one-way calls."""
    churn = {"use": f"{HERE.parent / 'ray' / 'churn.py'}:Churn", "sizing": {"kind": "fixed", "notional": 600}}
    bench = Bench(home, [{**churn, "config": {"name": "churn", "every_s": 0.001}}], ["BTCUSDT"])
    bench.start()
    feed, venue = bench.crew.members["feed"].handle, bench.crew.members["venue"].handle
    last = Link.remote()
    chain = last
    for _ in range(HOPS - 1):
        chain = Link.remote(chain)
    head = Head.remote(chain)
    ray.get([last.ping.remote(), chain.ping.remote()])
    letter = codec.letters([Envelope("head@1", 1, 1, "", "", StartTrading())]) + b"\0" * 200
    ours, bare = {}, []
    for number in range(TICKS):
        price = 60_000 + number % 5_000 + (number // 5_000) * 0.1
        ours[Decimal(price).quantize(Decimal("0.1"))] = ray.get(feed.tick.remote(PERP, price))
        time.sleep(0.5 / PER_SECOND)
        bare.append(ray.get(head.tick.remote(letter)))
        time.sleep(0.5 / PER_SECOND)
        if number % 100 == 0:
            bench.agree()
    time.sleep(1)
    took = [(ts - ours[price]) / 1e6 for ts, price in ray.get(venue.arrived.remote()) if price in ours]
    arrived = ray.get(last.arrived.remote())
    least = [(there - here) / 1e6 for here, there in zip(bare, arrived, strict=True)]
    bench.end()
    return took, least


def flood(home):
    """Twenty thousand rows a second over twenty symbols into three strategies: what arrives, and how late."""
    names = tuple(f"S{number:02d}USDT" for number in range(SYMBOLS))
    watcher = f"{HERE / 'engine_watcher.py'}:Watcher"
    strategies = [{"use": watcher, "config": {"name": f"w{number}"}} for number in range(3)]
    bench = Bench(home, strategies, list(names))
    feed = bench.crew.members["feed"].handle
    ref = feed.pour.remote([f"{name}-LINEAR.BYBIT" for name in names], FLOOD, FLOOD_S)
    lags = {f"w{number}": [] for number in range(3)}
    while not ray.wait([ref], timeout=0)[0]:
        for name, lag in lags.items():
            began = time.perf_counter()
            ray.get(bench.crew.members[name].handle.ping.remote())
            lag.append(1000 * (time.perf_counter() - began))
        time.sleep(0.02)
    shown = ray.get(ref)
    time.sleep(1)
    bench.crew.settle(list(lags), 20)
    heard = {name: codec.decoded(dict, ray.get(bench.crew.members[name].handle.state.remote())) for name in lags}
    conflated = {name: of["conflated"] for name, of in ray.get(feed.figures.remote()).items()}
    bench.end()
    return shown, heard, conflated, lags


def long_start(home):
    """Seconds until a risk manager is back that has heard as much as in a long day."""
    churn = {"use": f"{HERE.parent / 'ray' / 'churn.py'}:Churn", "sizing": {"kind": "fixed", "notional": 600}}
    bench = Bench(home, [{**churn, "config": {"name": "churn"}}], ["BTCUSDT"])
    bench.start()
    bench.crew.ask(["risk"], "rest", timeout_s=10)
    bench.crew.end(list(bench.crew.members))
    # As its shell would have it, without the calls between processes.
    graph = topology(bench.settings, bench.strategies)
    with Journal(home / "journals" / "risk.db", "risk") as journal:
        made = component(bench.settings, bench.instruments, "risk", "bch", bench.strategies)
        life = Retelling(graph, "risk", made, journal.newest())
        every = bench.settings.supervision.snapshot_every
        for number in range(1, ENTRIES + 1):
            now = time.time_ns()
            letter = Envelope("reconciler@1", number, now, "", "", ReconcileCompleted(number, 0, False))
            parcel = codec.letters([letter])
            journal.tell(1, now, parcel)
            life.hear(now, codec.envelopes(parcel))
            if number % every == 0:
                journal.snapshot(1, now, codec.encoded(made.state), life.memo())
    size = sum(path.stat().st_size for path in (home / "journals").glob("risk.db*"))
    with sqlite3.connect(home / "journals" / "risk.db") as db:
        left = db.execute("SELECT count(*) FROM told").fetchone()[0]
    began = time.perf_counter()
    handle = ray.remote(RiskManagerActor).options(**{**OPTIONS, "name": "risk-again"}).remote()
    back = ray.get(handle.recover.remote(bench.seat("risk", 2)))
    took = time.perf_counter() - began
    ray.kill(handle)
    return took, back, left, size


def soak(home, minutes):
    """Memory of each process under order flow, at the beginning and at the end."""
    churn = {"use": f"{HERE.parent / 'ray' / 'churn.py'}:Churn", "sizing": {"kind": "fixed", "notional": 600}}
    bench = Bench(home, [{**churn, "config": {"name": "churn", "every_s": 0.001}}], ["BTCUSDT"])
    bench.start()
    feed = bench.crew.members["feed"].handle
    pids = {name: one.recovered.pid for name, one in bench.crew.members.items()}
    marks = []
    began = time.monotonic()
    number = 0
    while (now := time.monotonic() - began) < minutes * 60:
        number += 1
        ray.get(feed.tick.remote(PERP, 60_000 + number % 5_000))
        if number % 200 == 0:
            bench.agree()
        if len(marks) <= now // 60:
            marks.append({name: psutil.Process(pid).memory_full_info().uss / 1e6 for name, pid in pids.items()})
            print(f"  minute {len(marks) - 1}: {sum(marks[-1].values()):.0f} MB in all", flush=True)
        time.sleep(0.1)
    orders = len(ray.get(bench.crew.members["venue"].handle.arrived.remote()))
    bench.end()
    return marks, orders


def _named(instrument, name):
    import msgspec

    return msgspec.structs.replace(instrument, id=name, base=name.split("USDT")[0])


def _figures(values):
    return f"p50 {np.percentile(values, 50):6.2f} ms   p99 {np.percentile(values, 99):6.2f} ms   n {len(values)}"


def soaked(home, minutes):
    marks, orders = soak(home, minutes)
    early = min(5, len(marks) - 1)
    print(f"memory (USS) at minute {early} and minute {len(marks) - 1}, {orders:,} orders")
    for name in marks[0]:
        print(f"  {name:12} {marks[early][name]:6.1f} MB {marks[-1][name]:6.1f} MB")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="watch memory for so long, only")
    minutes = arguments.parse_args().soak
    home = Path(tempfile.mkdtemp(prefix="hean-bench-"))
    ray_cluster.start(home, dashboard=False, num_cpus=2)
    ray_cluster.connect(home)
    try:
        if minutes:
            soaked(home / "soak", minutes)
            return
        took, least = tick_to_order(home / "ticks")
        print("tick to order, feed → strategy → risk → broker → venue")
        print(f"  HEAN         {_figures(took)}")
        print(f"  bare calls   {_figures(least)}")
        ratios = [np.percentile(took, share) / np.percentile(least, share) for share in (50, 99)]
        print(f"  ratio        p50 {ratios[0]:.2f}   p99 {ratios[1]:.2f}", flush=True)
        shown, heard, conflated, lags = flood(home / "flood")
        print(
            f"flood: {sum(shown.values()) / FLOOD_S:,.0f} rows/s over {SYMBOLS} symbols into 3 strategies, {FLOOD_S} s"
        )
        for name, lag in lags.items():
            of = heard[name]
            print(
                f"  {name}: trades {of['trades']} of {shown['trades']}, quotes {of['quotes']} of {shown['quotes']}"
                f" ({conflated[name]} conflated), mailbox {_figures(lag)}",
                flush=True,
            )
        took, back, left, size = long_start(home / "long")
        print(
            f"start after {ENTRIES:,} entries: {took:.2f} s with its process, of which {back.seconds:.2f} s the journal"
        )
        print(f"  told again {back.entries}, kept {left:,} entries in {size / 1e6:.1f} MB", flush=True)
    finally:
        ray.shutdown()
        ray_cluster.stop(home)


if __name__ == "__main__":
    main()
