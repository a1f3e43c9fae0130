"""What a backtest must not depend on: how it is played, what comes later on the tape, and where the tape begins."""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hean.backtest.market import load_market
from hean.backtest.player import compare
from hean.backtest.run import play, summarise
from hean.messages import OrderFilled, Signal
from hean.settings import BacktestSettings
from hean.store.catalog import Catalog
from hean.store.importers import Hints, import_file
from hean.store.kinds import DAY
from hean.store.synthetic import SyntheticMarket, generate
from hean.trading_system import build_strategies
from tests.data_dir import data_dir, needs_data
from tests.graph.scripted import __file__ as script

T0 = 1_735_689_600_000_000_000  # 2025-01-01
FIXED = {"kind": "fixed", "notional": 1500}
WIDE = {"symbol_exposure": 2, "trade_risk": 1, "stress_margin": 2, "price_collar": 0.2, "margin": 2}
EAGER_CARRY = {
    "enter_bp": 0.2,
    "exit_bp": 0.15,
    "short_days": 2,
    "long_days": 6,
    "min_settlements": 5,
    "basis_days": 3,
    "margin_of_costs": 0,
    "horizon_days": 200,
    "basis_percentile": 0.1,
}
EAGER_BASIS = {
    "enter_z": 1.0,
    "min_edge_bp": 0,
    "window_days": 1,
    "costs": {"spot_taker_bp": 0, "perp_taker_bp": 0, "perp_maker_bp": 0},
}
EAGER_IMPULSE = {"trigger": 2.0, "volume_ratio": 0.8, "cost_multiple": 0.1, "volume_days": 2, "cooldown_min": 5}


def tree(*uses, symbols=("BTCUSDT",), venue="SYNTHETIC", **changes):
    """Settings of a run of built-in strategies or scripted ones, with their own settings."""
    strategies = []
    for use, config in uses:
        name = use if use[0].islower() else f"{script}:{use}"
        strategies.append({"use": name, "config": config, "sizing": FIXED})
    return BacktestSettings.model_validate(
        {
            "strategies": strategies,
            "symbols": symbols,
            "venue_name": venue,
            "synthetic": venue == "SYNTHETIC",
            "capital": "20000",
            "risk": WIDE,
        }
        | changes
    )


def once(settings, market, *, stepping=False):
    strategies = build_strategies(settings)
    return strategies, play(settings, strategies, market, stepping=stepping)


def states(played):
    return {name: msgspec.msgpack.encode(component.state) for name, component in played.components.items()}


def alike_both_ways(settings, catalog, *, signals=1, fills=1):
    """Play skipping and stepping; what is said and what is left must be the same."""
    market = load_market(settings, build_strategies(settings), catalog)
    _, skipped = once(settings, market)
    _, stepped = once(settings, market, stepping=True)
    assert compare(skipped.log, stepped.log) == ""
    left, other = states(skipped), states(stepped)
    assert [name for name in left if left[name] != other[name]] == []
    assert sum(isinstance(one.message, Signal) for one in skipped.log) >= signals
    assert sum(isinstance(one.message, OrderFilled) for one in skipped.log) >= fills
    assert skipped.player.deliveries < stepped.player.deliveries
    return market, skipped


@pytest.fixture(scope="session")
def made_up(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("made-up"))
    for batch in generate(SyntheticMarket(("BTCUSDT", "ETHUSDT"), T0, 14, seed=3)):
        catalog.commit(batch)
    return catalog


@pytest.fixture(scope="session")
def made_up_ticks(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("made-up-ticks"))
    for batch in generate(SyntheticMarket(("BTCUSDT",), T0, 2, seed=4, trades=True)):
        catalog.commit(batch)
    return catalog


ALL = (
    ("impulse", EAGER_IMPULSE),
    ("funding-harvester", EAGER_CARRY),
    ("basis-arbitrage", EAGER_BASIS),
    ("Carrier", {"every": 300}),
)
LATE = {"start": "2025-01-08"}
SHORT = {"start": "2025-01-08", "end": "2025-01-09T12:00"}
RUNS = {
    "impulse": (tree(("impulse", EAGER_IMPULSE), symbols=("BTCUSDT", "ETHUSDT"), **SHORT), 4),
    "carry": (tree(("funding-harvester", EAGER_CARRY), **LATE), 1),
    "basis": (tree(("basis-arbitrage", EAGER_BASIS), **SHORT), 2),
    "scripted": (tree(("Carrier", {"every": 300}), ("Chatter", {"every": 90}), **LATE), 20),
    "all": (tree(*ALL, symbols=("BTCUSDT",), **SHORT), 10),
}


@pytest.mark.parametrize("which", RUNS)
def test_skipping_says_what_stepping_says(made_up, which):
    run, fills = RUNS[which]
    alike_both_ways(run, made_up, fills=fills)


@pytest.mark.parametrize("seed", range(3))
def test_skipping_says_what_stepping_says_on_trades(made_up_ticks, seed):
    run = tree(
        ("Chatter", {"every": 400, "seed": seed, "bracket": 0.001}),
        ("Ticker", {"every": 3_000}),
        tier="trades",
        venue_name="SYNTHETIC",
    )
    alike_both_ways(run, made_up_ticks, fills=20)


def test_it_does_not_matter_in_how_many_parts_a_tape_is_played(made_up, monkeypatch):
    run, _ = RUNS["impulse"]
    market = load_market(run, build_strategies(run), made_up)
    logs = []
    for parts in (20, 1, 997):
        monkeypatch.setattr("hean.backtest.run.STRETCH", parts)
        logs.append(once(run, market)[1].log)
    assert compare(logs[0], logs[1]) == compare(logs[0], logs[2]) == ""


# --- no look-ahead -------------------------------------------------------------------------------


def until(log, ts):
    return [envelope for envelope in log if envelope.ts_init <= ts]


def first_difference_when_cut(settings, market, played, ts):
    """Play the tape up to an instant: what was said by then must be what the whole tape had said by then."""
    cut = replace(market, tape=market.tape.until(ts), ts_end=ts + 1)
    _, short = once(settings, cut)
    return compare(until(short.log, ts), until(played.log, ts))


@pytest.mark.parametrize("which", RUNS)
def test_nobody_knows_what_comes_later(made_up, which):
    run, fills = RUNS[which]
    market = load_market(run, build_strategies(run), made_up)
    _, played = once(run, market)
    chance = random.Random(which)
    first = market.tape.after(market.ts_start)
    spoken = [one.ts_init for one in played.log if isinstance(one.message, Signal | OrderFilled)]
    assert len(spoken) >= fills
    stamps = [market.tape.ts_at(chance.randrange(first, market.tape.size)) for _ in range(6)]
    stamps += [ts for ts in chance.sample(spoken, min(6, len(spoken))) if ts < market.tape.last_ts]
    for ts in stamps:
        assert first_difference_when_cut(run, market, played, ts) == "", ts


def test_a_strategy_that_looks_ahead_is_found_out(made_up):
    run = tree(("Peeker", {}), **LATE)
    market = load_market(run, build_strategies(run), made_up)
    _, played = once(run, market)
    spoken = next(one.ts_init for one in played.log if isinstance(one.message, Signal))
    before = market.tape.ts_at(market.tape.after(spoken) // 2 + market.tape.after(market.ts_start) // 2)
    assert "the top" in first_difference_when_cut(run, market, played, before)


@given(st.integers(0, 2**32))
@settings(max_examples=8)
def test_on_trades_nobody_knows_what_comes_later(made_up_ticks, seed):
    run = tree(("Chatter", {"every": 400, "bracket": 0.001, "seed": seed}), tier="trades")
    market = load_market(run, build_strategies(run), made_up_ticks)
    _, played = once(run, market)
    chance = random.Random(seed)
    ts = market.tape.ts_at(chance.randrange(market.tape.size // 2, market.tape.size))
    assert first_difference_when_cut(run, market, played, ts) == ""


# --- warm-up -------------------------------------------------------------------------------------


class LongMemory:
    """Wants all the history there is of what it names; it is never played."""

    warmup_ns = 400 * DAY

    def __init__(self, strategy):
        self.handle = strategy.component.handle
        self.config = strategy.component.config


@pytest.mark.parametrize("which", ["impulse", "carry", "basis", "scripted-not"])
def test_more_history_changes_nothing_after_the_start(made_up, which):
    if which == "scripted-not":
        # What counts from the first row it is told does depend on it: this is what the test must find.
        run = tree(("Chatter", {"every": 50}), ("impulse", EAGER_IMPULSE), **LATE)
    else:
        run, _ = RUNS[which]
    strategies = build_strategies(run)
    some = load_market(run, strategies, made_up)
    greedy = [replace(strategy, component=LongMemory(strategy)) for strategy in strategies]
    more = load_market(run, greedy, made_up)
    assert more.tape.first_ts < some.tape.first_ts or which == "carry"
    assert more.tape.size > some.tape.size
    assert more.ts_start == some.ts_start
    _, one = once(run, some)
    _, other = once(run, more)
    said = [[(envelope.id, envelope.ts_init, envelope.message) for envelope in played.log] for played in (one, other)]
    same = said[0] == said[1]
    assert same is (which != "scripted-not")
    assert sum(isinstance(envelope.message, Signal) for envelope in one.log) > 0


# --- the books of a whole run --------------------------------------------------------------------


@pytest.mark.parametrize("which", RUNS)
def test_the_parts_of_every_strategy_add_up_to_the_change_of_equity(made_up, which):
    run, _ = RUNS[which]
    strategies = build_strategies(run)
    market = load_market(run, strategies, made_up)
    played = play(run, strategies, market)
    result = summarise(run, strategies, market, played, wall_s=0.0)
    assert sum(strategy.pnl.net for strategy in result.strategies) == result.equity_final - result.capital
    assert result.pnl.net == result.equity_final - result.capital
    assert result.pnl.fees < 0
    trips = sum(trip.pnl for trip in result.trips if trip.ts_close is not None)
    open_trips = [trip for trip in result.trips if trip.ts_close is None]
    if not open_trips:
        assert float(trips + result.pnl.interest) == pytest.approx(float(result.pnl.net), abs=0.05)
    assert result.curve[-1] == pytest.approx(float(result.equity_final), abs=0.02)


# --- real tapes ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("real-tapes"))
    for pattern in (
        "bybit.linear.BTCUSDT.kline-1m.2025-05*",
        "bybit.*.BTCUSDT.kline-5m.*",
        "bybit.linear.BTCUSDT.funding.2023*",
        "bybit.linear.BTCUSDT.mark-1h.*",
        "bybit.linear.WIFUSDT.kline-5m.*",
        "bybit.linear.WIFUSDT.funding.*",
        "bybit.linear.WIFUSDT.mark-1h.*",
        "binance.linear.BTCUSDT.trades.*",
        "binance.linear.BTCUSDT.bbo.*",
        "binance.linear.BTCUSDT.depth.*",
    ):
        for file in sorted((data_dir() / "market").glob(pattern)):
            outcome = import_file(catalog, file, Hints())
            assert outcome.refusal is None, outcome.refusal
    return catalog


REAL = {
    "impulse on BTC, minutes": (
        tree(("impulse", EAGER_IMPULSE), venue="BYBIT", interval="1m", start="2025-06-10", end="2025-06-15"),
        10,
    ),
    "carry and basis on BTC, five minutes": (
        tree(
            ("funding-harvester", EAGER_CARRY),
            ("basis-arbitrage", EAGER_BASIS),
            venue="BYBIT",
            interval="5m",
            start="2025-05-01",
            end="2025-05-20",
        ),
        4,
    ),
    "impulse on WIF": (
        tree(
            ("impulse", EAGER_IMPULSE | {"tau_s": 600}),
            symbols=("WIFUSDT",),
            venue="BYBIT",
            interval="5m",
            start="2025-02-01",
            end="2025-02-12",
        ),
        6,
    ),
}


@needs_data
@pytest.mark.parametrize("which", REAL)
def test_skipping_says_what_stepping_says_on_a_real_tape(real, which):
    run, fills = REAL[which]
    alike_both_ways(run, real, fills=fills)


@needs_data
@pytest.mark.parametrize("tier", ["trades", "book"])
def test_skipping_says_what_stepping_says_on_real_ticks(real, tier):
    run = tree(("Ticker", {"every": 100 if tier == "trades" else 1_500}), venue="BINANCE", tier=tier)
    market, played = alike_both_ways(run, real, fills=4)
    assert {stream.kind.__name__ for stream in market.tape.streams} >= {"Trade" if tier == "trades" else "Quote"}
    assert np.diff([one.ts_init for one in played.log]).min() >= 0
