"""Sweeps on Ray: each trial what a backtest of it is, whoever dies meanwhile; the market read where it lies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import psutil
import pytest

from actors import cluster as ray_cluster
from hean.backtest.market import Market, load_market
from hean.backtest.run import run_backtest
from hean.backtest.sweep import SweepSettings, specifications
from hean.errors import ConfigError
from hean.messages import Bar
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.store.synthetic import SyntheticMarket, generate
from hean.store.trials import SweepDirectory
from hean.tape import Stream, Tape
from hean.trading_system import build_strategies
from hean.units import parse_time
from tests.graph.turner import __file__ as turner

FIXED = {"kind": "fixed", "notional": 1000}
BASE = {
    "strategies": [{"use": f"{turner}:Turner", "sizing": FIXED}],
    "venue_name": "SYNTHETIC",
    "synthetic": True,
}
COLUMNS = ("open", "high", "low", "close", "volume")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    made = Catalog(tmp_path_factory.mktemp("sweep") / "catalog")
    market = SyntheticMarket(symbols=("BTCUSDT", "ETHUSDT"), start=parse_time("2025-01-01"), days=1, seed=1)
    for batch in generate(market):
        made.commit(batch)
    return made


@pytest.fixture
def run(cluster, catalog):
    """Run a sweep to its end; says its rows by number."""
    from actors.gateways.compute import run_trials

    def go(trials, **options):
        kept = []
        run_trials(trials, load=lambda trial: market_of(trial, catalog), keep=kept.extend, **options)
        assert sorted(row.number for row in kept) == [trial.number for trial in trials], "each once"
        return {row.number: row for row in kept}

    return go


def market_of(trial, catalog):
    settings = validated(BacktestSettings, trial.tree)
    return load_market(settings, build_strategies(settings), catalog)


def trials_of(catalog, base=BASE, **parameters):
    named = {name.replace("__", "."): one for name, one in parameters.items()}
    return specifications(SweepSettings(base=base, parameters=named), catalog)


def workers_of(cluster):
    """Processes that run a task of a sweep just now."""
    found = []
    for process in ray_cluster.processes(cluster.home):
        with suppress(psutil.Error):
            if process.name().startswith("ray::hean") or "ray::hean sweep" in " ".join(process.cmdline()):
                found.append(process)
    return found


# --- right --------------------------------------------------------------------------------------


def test_every_trial_is_what_a_backtest_of_its_settings_is(run, catalog):
    trials = trials_of(catalog, strategy__every=[7, 30], symbols=["BTCUSDT", "ETHUSDT"], capital=[500, 10_000])
    rows = run(trials)

    for trial in trials:
        alone = run_backtest(validated(BacktestSettings, trial.tree), catalog, clock=time.perf_counter)
        assert rows[trial.number].result_hash == alone.result_hash
        assert rows[trial.number].net == alone.pnl.net
    assert len({row.net for row in rows.values()}) >= 4


def test_a_built_in_strategy_is_the_same_on_columns_that_cannot_be_written(run, catalog):
    trials = trials_of(
        catalog, BASE | {"strategies": ["impulse"]}, strategy__volume_days=[1], strategy__trigger=[1.0, 1.5]
    )
    rows = run(trials)
    for trial in trials:
        alone = run_backtest(validated(BacktestSettings, trial.tree), catalog, clock=time.perf_counter)
        assert rows[trial.number].result_hash == alone.result_hash


def test_what_is_refused_anywhere_is_a_row_and_costs_nobody_else(run, catalog):
    trials = trials_of(
        catalog,
        strategy__every=[10, -1],
        strategy__fails=[False, True],
        period=["2025-01-01/2025-01-02", "2031-01-01/2031-01-02"],
    )
    errors = [rows.error for _, rows in sorted(run(trials).items())]
    assert errors[0] is None
    assert "no 1m candles" in errors[1] or "nothing" in errors[1] or "has no" in errors[1]
    assert "as it was told to" in errors[2]
    assert all("every" in error for error in errors[4:])


def test_other_code_where_it_runs_ends_the_sweep(run, catalog, tmp_path):
    file = tmp_path / "turner.py"
    shutil.copy(turner, file)
    base = BASE | {"strategies": [{"use": f"{file}:Turner", "sizing": FIXED}]}
    trials = trials_of(catalog, base, strategy__every=[10])
    file.write_text(file.read_text() + "\n# another thought\n")
    with pytest.raises(ConfigError, match="the code has changed"):
        run(trials)


def test_how_far_it_is_counts_up_to_all_of_them(run, catalog):
    told = []
    run(trials_of(catalog, strategy__every=list(range(5, 45)), strategy__fails=[False, True]), progress=told.append)
    done = [one.done for one in told]
    assert done == sorted(done)
    assert (told[0].done, told[0].left_s) == (0, None)
    assert (told[-1].done, told[-1].total, told[-1].failed, told[-1].left_s) == (80, 80, 40, 0.0)


# --- the market, where it lies ------------------------------------------------------------------


def big_market(rows):
    ts = np.arange(rows, dtype=np.int64) * 1_000_000_000
    streams = [
        Stream(Bar, name, ts + shift, {column: np.full(rows, 1.0 + shift) for column in COLUMNS}, interval=1)
        for shift, name in enumerate(("AUSDT-LINEAR.SYNTHETIC", "BUSDT-LINEAR.SYNTHETIC"))
    ]
    return Market(Tape(streams), {}, {}, frozenset(), 0, rows, 5.0, True, {}, ())


def test_workers_read_the_columns_in_the_store_and_hold_no_copy(cluster):
    import ray

    def look(held):
        import psutil
        import ray

        memory = psutil.Process().memory_full_info
        before = memory().uss
        market = ray.get(held[0])
        columns = [column for stream in market.tape.streams for column in stream.columns.values()]
        arrays = [*columns, *(stream.ts for stream in market.tape.streams), market.tape._ts]
        arrays += [stream.positions for stream in market.tape.streams]
        total = sum(float(array.sum()) for array in arrays)
        size = sum(array.nbytes for array in arrays)
        flags = {(array.flags.writeable, array.flags.owndata) for array in arrays}
        return memory().uss - before, size, flags, total

    ref = ray.put(big_market(300_000))
    task = ray.remote(num_cpus=1)(look)
    ray.get(task.remote([ray.put(big_market(10))]))  # what is imported once is not counted
    grown, size, flags, total = ray.get(task.remote([ref]))

    assert size > 30_000_000
    assert total > 0
    assert flags == {(False, False)}
    assert grown < size / 5


def test_compiled_kernels_are_found_and_not_compiled_anew_by_each_worker(run, catalog, cluster):
    import ray

    impulse = BASE | {"strategies": ["impulse"]}
    trials = trials_of(catalog, impulse, strategy__volume_days=[1], strategy__trigger=[1.0])
    run(trials)

    def fresh(market, trials):
        from actors.gateways.compute import run_chunk
        from hean import tape
        from hean.market import features

        run_chunk(market, trials)
        kernels = [one for module in (tape, features) for one in vars(module).values() if hasattr(one, "stats")]
        hits = sum(sum(one.stats.cache_hits.values()) for one in kernels)
        return hits, [f"{one} {list(one.stats.cache_misses)}" for one in kernels if one.stats.cache_misses]

    # Each call ends its process, so sooner or later one is a new process's: the first may be given to those that compiled
    # for an earlier test, one for each processor. Were each to compile anew, none would miss nothing.
    task, market = ray.remote(num_cpus=1, max_calls=1)(fresh), ray.put(market_of(trials[0], catalog))
    for _ in range(4):
        hits, missed = ray.get(task.remote(market, trials))
        if not missed:
            break
    assert hits > 3
    assert missed == []


def test_a_worker_has_none_of_an_exchanges_keys(catalog, monkeypatch):
    from actors.gateways.compute import run_chunk

    (trial,) = trials_of(catalog, BASE | {"strategies": [f"{turner}:Secretive"]}, strategy__every=[1])
    market = market_of(trial, catalog)
    monkeypatch.setenv("BYBIT_API_SECRET", "never-seen")
    monkeypatch.setenv("HEAN_KEYS", "never-seen")
    (row,) = run_chunk(market, [trial])
    assert row.error is None
    assert not {"BYBIT_API_SECRET", "HEAN_KEYS"} & set(os.environ)


# --- who dies -----------------------------------------------------------------------------------


def test_workers_that_are_killed_cost_only_their_tasks(run, catalog, cluster):
    slow = trials_of(catalog, strategy__every=list(range(5, 21)), strategy__waits_s=[0.3])
    killed = set()

    def kill(so_far):
        if so_far.done >= 3 and len(killed) < 2:
            for process in workers_of(cluster)[:1]:
                killed.add(process.pid)
                process.kill()

    rows = run(slow, progress=kill)
    assert len(killed) == 2
    assert {row.error for row in rows.values()} == {None}
    calm = run(trials_of(catalog, strategy__every=list(range(5, 21)), strategy__waits_s=[0.3])[:3])
    assert all(calm[number].result_hash == rows[number].result_hash for number in calm)


def test_a_trial_that_kills_whoever_runs_it_is_a_row_and_those_beside_it_are_run(run, catalog, monkeypatch):
    from actors.gateways import compute

    monkeypatch.setattr(compute, "RETRIES", 0)
    nowhere = "/nowhere/at/all"
    trials = [
        *trials_of(catalog, strategy__every=list(range(5, 35))),
        *trials_of(catalog, strategy__dies_unless=[nowhere], strategy__every=[99]),
        *trials_of(catalog, strategy__every=list(range(40, 50))),
    ]
    numbered = [
        type(one)(one.id, place, one.parameters, one.tree, one.code, one.market) for place, one in enumerate(trials, 1)
    ]
    rows = run(numbered)
    assert Counter(row.error is None for row in rows.values()) == {True: 40, False: 1}
    assert "whoever ran it died" in rows[31].error


def test_an_interrupt_keeps_what_is_finished_and_stops_the_rest(cluster, catalog):
    from actors.gateways.compute import run_trials

    kept = []
    trials = trials_of(catalog, strategy__every=list(range(5, 65)), strategy__waits_s=[0.2])

    def interrupt(so_far):
        if so_far.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trials(trials, load=lambda one: market_of(one, catalog), keep=kept.extend, progress=interrupt)
    assert 4 <= len(kept) < 60
    assert len({row.trial for row in kept}) == len(kept)
    deadline = time.monotonic() + 60
    while workers_of(cluster) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not workers_of(cluster), "nothing of it runs on"


# --- the command --------------------------------------------------------------------------------


SETTINGS = """
[base]
venue_name = "SYNTHETIC"
synthetic = true
strategies = [{{ use = "{turner}:Turner", sizing = {{ kind = "fixed", notional = 1000 }} }}]

[parameters]
strategy.every = {{ low = 5, high = 34, steps = 30 }}
strategy.waits_s = 0.2
"""


def command(cluster, catalog, out, *words):
    settings = out.parent / "sweep.toml"
    settings.write_text(SETTINGS.format(turner=turner))
    where = ["--catalog", str(catalog.root), "--address", cluster.address, "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", "from actors.cli import main; main()", "sweep", str(settings), *where, "--json", *words],
        env={**os.environ, **ray_cluster.environment(cluster.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_sweep_that_is_interrupted_goes_on_where_it_was(cluster, catalog, tmp_path):
    out = tmp_path / "run"
    first = command(cluster, catalog, out)
    parts = out / "parts"
    deadline = time.monotonic() + 60
    while (
        first.poll() is None
        and not (parts.is_dir() and len(list(parts.glob("*.parquet"))) >= 3)
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    said, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors.decode()
    before = json.loads(said)
    assert 3 <= before["done"] < 30
    assert before["interrupted"]
    assert "--resume goes on" in errors.decode()

    kept = {path: path.read_bytes() for path in parts.glob("*.parquet")}
    done = SweepDirectory(out).done()
    second = command(cluster, catalog, out, "--resume")
    said, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors.decode()
    after = json.loads(said)
    assert (after["done"], after["refused"], after["interrupted"]) == (30, 0, False)
    assert f"{before['done']:,} of them done before" in errors.decode()
    assert all(path.read_bytes() == content for path, content in kept.items()), "nothing was run again"
    rows = SweepDirectory(out).rows()
    assert rows["trial"].n_unique() == 30
    assert done <= set(rows["trial"])
    assert "no evidence" in (out / "report.html").read_text()
