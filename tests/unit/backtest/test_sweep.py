# ruff: noqa: S301  # what is unpickled was pickled a line above
"""What a sweep tries, by what name, and what is kept of it."""

import pickle
import shutil
import time
from decimal import Decimal
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.backtest.market import load_market
from hean.backtest.run import play, run_backtest
from hean.backtest.sweep import (
    MOST_A_TASK,
    TASK_S,
    Range,
    SweepSettings,
    by_market,
    chunk_size,
    combinations,
    laid_over,
    parse_parameter,
    run_trial,
    specifications,
    sweep_id,
)
from hean.errors import ConfigError
from hean.messages import Bar
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.store.synthetic import SyntheticMarket, generate
from hean.trading_system import build_strategies
from hean.units import parse_time
from tests.graph.turner import __file__ as turner

FIXED = {"kind": "fixed", "notional": 1000}
BASE = {
    "strategies": [{"use": f"{turner}:Turner", "sizing": FIXED}],
    "symbols": ["BTCUSDT"],
    "venue_name": "SYNTHETIC",
    "synthetic": True,
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    made = Catalog(tmp_path_factory.mktemp("sweep") / "catalog")
    market = SyntheticMarket(symbols=("BTCUSDT", "ETHUSDT"), start=parse_time("2025-01-01"), days=2, seed=1)
    for batch in generate(market):
        made.commit(batch)
    return made


def sweep(base=BASE, **parameters):
    return SweepSettings(base=base, parameters={name.replace("__", "."): one for name, one in parameters.items()})


def run_of(trial):
    return validated(BacktestSettings, trial.tree)


def market_of(trial, catalog):
    run = run_of(trial)
    return load_market(run, build_strategies(run), catalog)


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ({"low": 0.005, "high": 0.02, "steps": 4}, [0.005, 0.01, 0.015, 0.02]),
        ({"low": 1, "high": 10, "steps": 4}, [1, 4, 7, 10]),
        ({"low": 1, "high": 2, "steps": 3}, [1, 1.5, 2]),
        ({"low": 0.1, "high": 0.7, "steps": 7}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ({"low": 0.001, "high": 1, "steps": 4, "scale": "log"}, [0.001, 0.01, 0.1, 1.0]),
    ],
)
def test_a_range_has_the_values_a_person_would_write(said, values):
    found = Range(**said).values()
    assert found == values
    assert [type(one) for one in found] == [type(one) for one in values]


@pytest.mark.parametrize(
    ("said", "name", "values"),
    [
        ("strategy.trigger=2,2.5,3", "strategy.trigger", (2, 2.5, 3)),
        ("symbols=BTCUSDT, ETHUSDT", "symbols", ("BTCUSDT", "ETHUSDT")),
        ('symbols=[["BTCUSDT","ETHUSDT"],["BTCUSDT"]]', "symbols", (["BTCUSDT", "ETHUSDT"], ["BTCUSDT"])),
        ("start=2025-06-01T08:00,2025-06-02", "start", ("2025-06-01T08:00", "2025-06-02")),
        ("strategy.on=true,false", "strategy.on", (True, False)),
        ("a=0.1:0.3:3", "a", Range(low=0.1, high=0.3, steps=3)),
        ("a=log:1e-3:1:4", "a", Range(low=1e-3, high=1, steps=4, scale="log")),
        ("a=2:4", "a", Range(low=2, high=4)),
        ("a=whole:2:4", "a", Range(low=2, high=4, whole=True)),
    ],
)
def test_a_parameter_is_read_off_the_command_line(said, name, values):
    found = parse_parameter(said)
    assert found == (name, values)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("strategy.trigger", "should read name=values"),
        ("=1,2", "should read name=values"),
        ("a=", "should read name=values"),
        ("a=3:2:4", "from a number to a greater one"),
        ("a=1:2:1", "--param a.steps"),
        ("a=log:0:2:4", "begins above nought"),
        ("a=whole:0.5:2", "lie between whole numbers"),
        ("a=[1, 2", "no list of TOML"),
    ],
)
def test_a_parameter_that_says_nothing_is_refused_by_its_name(said, remedy):
    with pytest.raises(ConfigError, match=remedy.replace("[", r"\[")):
        parse_parameter(said)


@pytest.mark.parametrize(
    ("tree", "remedy"),
    [
        ({"parameters": {}}, "parameters"),
        ({"parameters": {"a": []}}, "a has no values"),
        ({"parameters": {"a": {"low": 1, "high": 2}}}, "in how many steps"),
        ({"parameters": {"a": [1]}, "kind": "random"}, "--random 200"),
        ({"parameters": {name: {"low": 1, "high": 2, "steps": 100} for name in "abc"}}, "1,000,000 combinations"),
        ({"parameters": {"a": {"low": 1, "hihg": 2}}}, "did you mean high"),
    ],
)
def test_a_sweep_that_cannot_be_laid_out_is_refused(tree, remedy):
    with pytest.raises(ConfigError, match=remedy):
        validated(SweepSettings, {"base": BASE, **tree})


def test_a_settings_file_may_name_parameters_as_tables():
    nested = {"strategy": {"every": [10, 20], "weight": {"low": 0.1, "high": 0.3, "steps": 3}}, "capital": 5000}
    settings = SweepSettings(base=BASE, parameters=nested)
    assert list(settings.parameters) == ["strategy.every", "strategy.weight", "capital"]
    assert len(list(combinations(settings))) == 6


def test_a_grid_has_every_combination_once_and_the_last_named_varies_first():
    found = list(combinations(sweep(strategy__every=[10, 20], capital=[1000, 2000])))
    assert [tuple(one.values()) for one in found] == [(10, 1000), (10, 2000), (20, 1000), (20, 2000)]


@given(seed=st.integers(0, 2**32), count=st.integers(1, 30))
def test_a_longer_random_search_begins_with_the_shorter_one(seed, count):
    parameters = {
        "any": Range(low=2, high=4),
        "whole": Range(low=1, high=3, whole=True),
        "log": Range(low=0.001, high=10, scale="log"),
        "wholelog": Range(low=1, high=1000, scale="log", whole=True),
        "listed": ["a", "b"],
        "steps": Range(low=1, high=2, steps=3),
    }
    short, long = (
        SweepSettings(base=BASE, parameters=parameters, kind="random", count=n, seed=seed) for n in (count, count + 7)
    )
    found = list(combinations(long))
    assert list(combinations(short)) == found[:count]
    for one in found:
        assert 2 <= one["any"] <= 4
        assert isinstance(one["any"], float)
        assert one["whole"] in {1, 2, 3}
        assert 0.001 <= one["log"] <= 10
        assert isinstance(one["wholelog"], int)
        assert 1 <= one["wholelog"] <= 1000
        assert one["listed"] in {"a", "b"}
        assert one["steps"] in {1, 1.5, 2}


def test_another_seed_draws_other_trials():
    drawn = [
        list(
            combinations(
                SweepSettings(base=BASE, parameters={"a": Range(low=0, high=1)}, kind="random", count=5, seed=seed)
            )
        )
        for seed in (1, 2)
    ]
    assert drawn[0] != drawn[1]


# --- where values go ----------------------------------------------------------------------------


def test_parameters_are_laid_over_the_settings_by_their_paths():
    tree = {"strategies": ["impulse", {"use": "basis-arbitrage", "share": 0.5}], "risk": {"leverage": 2}}
    laid_over(
        tree,
        {
            "strategy.trigger": 3,
            "strategies.1.share": 0.25,
            "risk.trade_risk": 0.01,
            "period": "2025-01-01/2025-02-01",
            "venue.latency_ms": 5,
        },
    )
    assert tree == {
        "strategies": [
            {"use": "impulse", "config": {"trigger": 3}},
            {"use": "basis-arbitrage", "share": 0.25, "config": {"trigger": 3}},
        ],
        "risk": {"leverage": 2, "trade_risk": 0.01},
        "start": "2025-01-01",
        "end": "2025-02-01",
        "venue": {"latency_ms": 5},
    }


def test_which_strategy_runs_may_be_varied_before_its_settings_are_laid_over():
    tree = laid_over({"strategies": ["impulse"]}, {"strategy.every": 5, "strategies": "mine.py:Turner"})
    assert tree["strategies"] == [{"use": "mine.py:Turner", "config": {"every": 5}}]


@pytest.mark.parametrize(
    ("name", "value"),
    [("period", "2025-01-01"), ("strategies.3.share", 1), ("risk.leverage.x", 1), ("strategies.0", 1)],
)
def test_a_path_that_leads_nowhere_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=name.split(".", maxsplit=1)[0]):
        laid_over({"strategies": ["impulse"], "risk": {"leverage": 2}}, {name: value})


# --- trials -------------------------------------------------------------------------------------


def test_a_trial_that_the_settings_refuse_is_a_trial_with_the_reason(catalog):
    good, bad = specifications(sweep(strategy__every=[10, -1]), catalog)
    assert not good.error
    assert "every" in bad.error
    assert (bad.number, bad.parameters) == (2, {"strategy.every": -1})


def test_a_sweep_of_nothing_but_refused_trials_is_refused_with_the_first_reason(catalog):
    with pytest.raises(ConfigError, match=r"each of the 2 trials.*did you mean every"):
        specifications(sweep(strategy__evry=[10, 20]), catalog)


def test_the_same_trial_twice_is_one(catalog):
    trials = specifications(sweep(strategy__every=[10, 20, 10]), catalog)
    assert [(trial.number, trial.parameters["strategy.every"]) for trial in trials] == [(1, 10), (2, 20)]


def test_an_id_says_what_a_trial_is_made_from_and_not_where_it_lies(catalog, tmp_path):
    settings = sweep(strategy__every=[10])
    (trial,) = specifications(settings, catalog)
    file = tmp_path / "elsewhere" / "turner.py"
    file.parent.mkdir()
    shutil.copy(turner, file)
    moved = BASE | {"strategies": [{"use": f"{file}:Turner", "sizing": FIXED}]}
    copied = Catalog(tmp_path / "catalog")
    shutil.copytree(catalog.root, copied.root)

    (same,) = specifications(sweep(moved, strategy__every=[10]), copied)
    assert same.id == trial.id
    assert sweep_id(sweep(moved, strategy__every=[10]), [same]) == sweep_id(settings, [trial])

    file.write_text(file.read_text() + "\n# another thought\n")
    (changed,) = specifications(sweep(moved, strategy__every=[10]), copied)
    (richer,) = specifications(sweep(BASE | {"capital": 10_001}, strategy__every=[10]), catalog)
    assert len({trial.id, changed.id, richer.id}) == 3


def test_an_id_changes_with_what_is_recorded_of_its_own_instruments_alone(catalog, tmp_path):
    grown = Catalog(tmp_path / "catalog")
    shutil.copytree(catalog.root, grown.root)
    settings = sweep(symbols=["BTCUSDT", "ETHUSDT"])
    before = specifications(settings, grown)
    for batch in generate(SyntheticMarket(symbols=("ETHUSDT",), start=parse_time("2025-01-03"), days=1, seed=2)):
        grown.commit(batch)
    after = specifications(settings, grown)

    assert before[0].id == after[0].id
    assert before[1].id != after[1].id
    assert before[1].market != after[1].market


@pytest.mark.parametrize(
    ("parameter", "markets"),
    [
        ({"strategy.every": [10, 20]}, 1),
        ({"risk.trade_risk": [0.01, 0.02]}, 1),
        ({"capital": [1000, 2000]}, 1),
        ({"symbols": ["BTCUSDT", "ETHUSDT"]}, 2),
        ({"period": ["2025-01-01/2025-01-02", "2025-01-02/2025-01-03"]}, 2),
        ({"interval": ["1m", "5m"]}, 2),
        ({"risk.price_age_s": [5, 10]}, 2),
        ({"strategy.name": ["a", "b"]}, 2),
    ],
)
def test_trials_share_a_market_where_nothing_it_is_read_by_differs(catalog, parameter, markets):
    trials = specifications(SweepSettings(base=BASE, parameters=parameter), catalog)
    assert len(by_market(trials)) == markets


# --- one trial ----------------------------------------------------------------------------------


def test_a_trial_is_what_a_backtest_of_its_settings_is(catalog):
    trials = specifications(sweep(strategy__every=[7, 30], risk__symbol_exposure=[0.02, 0.25]), catalog)
    shared = market_of(trials[0], catalog)
    rows = [run_trial(trial, shared, clock=time.perf_counter) for trial in trials]

    for trial, row in zip(trials, rows, strict=True):
        alone = run_backtest(run_of(trial), catalog, clock=time.perf_counter)
        assert row.result_hash == alone.result_hash
        assert row.net == alone.pnl.net != 0
        assert row.net == row.price + row.basis + row.funding + row.fees + row.slippage + row.interest
        compounded = np.prod([1 + one for one in row.daily_returns])
        assert compounded == pytest.approx(float(alone.equity_final / alone.capital))
        assert row.error is None
    assert len({row.result_hash for row in rows}) == 4


def test_nothing_a_trial_computes_from_the_tape_piles_up(catalog):
    base = BASE | {"strategies": ["impulse"]}
    (trial,) = specifications(sweep(base, strategy__trigger=[2.5]), catalog)
    shared = market_of(trial, catalog)
    run_trial(trial, shared, clock=time.perf_counter)
    fresh = pickle.loads(pickle.dumps(shared))
    assert shared.tape._derived == {}
    shared.tape.derived("kept", lambda: 1)
    assert pickle.loads(pickle.dumps(shared)).tape._derived == fresh.tape._derived == {}


def test_a_strategy_that_raises_is_a_row_with_what_it_raised(catalog):
    trials = specifications(sweep(strategy__fails=[False, True]), catalog)
    good, bad = (run_trial(trial, market_of(trial, catalog), clock=time.perf_counter) for trial in trials)
    assert good.error is None
    assert "turner-BTC raised ArithmeticError: as it was told to" in bad.error
    assert (bad.net, bad.trades, bad.sharpe, bad.daily_returns, bad.result_hash) == (None,) * 5


def test_figures_that_are_not_known_are_not_nought(catalog):
    base = BASE | {"start": "2025-01-01", "end": "2025-01-02"}
    (trial,) = specifications(sweep(base, strategy__every=[100_000]), catalog)
    row = run_trial(trial, market_of(trial, catalog), clock=time.perf_counter)
    assert (row.net, row.trades, row.total_return) == (Decimal(0), 0, 0.0)
    assert (row.sharpe, row.hit_rate, row.profit_factor, row.annual_return) == (None,) * 4


def test_a_trial_is_not_run_by_other_code_than_the_sweep_was_begun_with(catalog, tmp_path):
    file = tmp_path / "turner.py"
    shutil.copy(turner, file)
    (trial,) = specifications(
        sweep(BASE | {"strategies": [{"use": f"{file}:Turner", "sizing": FIXED}]}, strategy__every=[10]), catalog
    )
    market = market_of(trial, catalog)
    file.write_text(file.read_text() + "\n# another thought\n")
    with pytest.raises(ConfigError, match="the code has changed"):
        run_trial(trial, market, clock=time.perf_counter)


# --- the tape in a store ------------------------------------------------------------------------


def test_a_market_travels_as_columns_that_are_read_in_place(catalog):
    (trial,) = specifications(sweep(strategy__every=[10]), catalog)
    market = market_of(trial, catalog)
    buffers = []
    head = pickle.dumps(market, protocol=5, buffer_callback=buffers.append)
    tape = market.tape
    rows = sum(len(stream) for stream in tape.streams)
    assert len(head) < rows, "no column is in the head"

    stored = [bytes(buffer.raw()) for buffer in buffers]
    arrived = pickle.loads(head, buffers=stored).tape
    assert sum(map(len, stored)) >= 8 * rows
    for stream, other in zip(tape.streams, arrived.streams, strict=True):
        for one, two in ((stream.ts, other.ts), (stream.positions, other.positions)):
            assert (one == two).all()
            assert not two.flags.owndata
        assert all((stream.columns[name] == other.columns[name]).all() for name in stream.columns)
        assert not any(column.flags.writeable for column in other.columns.values())
    assert [arrived.at(place)[0].message(arrived.at(place)[1]) for place in range(0, tape.size, 997)] == [
        tape.at(place)[0].message(tape.at(place)[1]) for place in range(0, tape.size, 997)
    ]


def test_a_run_on_columns_that_cannot_be_written_says_the_same(catalog):
    (trial,) = specifications(sweep(BASE | {"strategies": ["impulse"]}, strategy__trigger=[2.5]), catalog)
    run = run_of(trial)
    market = market_of(trial, catalog)
    buffers = []
    head = pickle.dumps(market, protocol=5, buffer_callback=buffers.append)
    frozen = pickle.loads(head, buffers=[bytes(buffer.raw()) for buffer in buffers])
    assert not frozen.tape.stream(Bar, "BTCUSDT-LINEAR.SYNTHETIC").columns["close"].flags.writeable
    assert play(run, build_strategies(run), frozen).log == play(run, build_strategies(run), market).log


# --- how trials are handed out ------------------------------------------------------------------


@given(
    seconds=st.lists(st.floats(1e-5, 1e3), max_size=20),
    waiting=st.integers(1, 100_000),
    workers=st.integers(1, 256),
)
def test_a_task_is_long_enough_to_be_worth_it_and_leaves_something_for_everybody(seconds, waiting, workers):
    size = chunk_size(seconds, waiting=waiting, workers=workers)
    assert 1 <= size <= min(MOST_A_TASK, waiting)
    if not seconds:
        assert size == 1
    elif size < min(MOST_A_TASK, waiting // (2 * workers)):
        assert size * float(np.median(seconds)) >= TASK_S
    assert size == 1 or size <= waiting / (2 * workers)


def test_all_trials_are_handed_out_in_ever_smaller_tasks(catalog):
    waiting, sizes = 1000, []
    while waiting:
        sizes.append(chunk_size([0.01], waiting=waiting, workers=2))
        waiting -= sizes[-1]
    assert sum(sizes) == 1000
    assert sizes[0] == 200
    assert all(after <= before for before, after in zip(sizes, islice(sizes, 1, None), strict=False))
