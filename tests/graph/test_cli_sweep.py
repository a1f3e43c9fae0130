"""`hean sweep`, up to where it needs Ray and from there on: what it refuses, and what it says of what is kept."""

import json
import time

import pytest
from typer.testing import CliRunner

from actors.cli import app
from hean.backtest.market import load_market
from hean.backtest.sweep import SweepSettings, run_trial, specifications, sweep_id
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.store.trials import Sweep, SweepDirectory, parameter_types
from hean.trading_system import build_strategies
from tests.graph.turner import __file__ as turner

runner = CliRunner()
FILE = f"""
[base]
strategies = [{{ use = "{turner}:Turner", sizing = {{ kind = "fixed", notional = 1000 }} }}]
venue_name = "SYNTHETIC"
synthetic = true

[parameters]
strategy.every = [30, 60]
"""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "catalog"
    made = runner.invoke(app, ["data", "generate", "--symbols", "BTCUSDT", "--days", "1", "--catalog", str(path)])
    assert made.exit_code == 0, made.output
    return path


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def sweep(where, *words):
    return runner.invoke(app, ["sweep", "--catalog", str(where), *map(str, words)])


def one_line(answer):
    assert answer.exit_code == 1, answer.output
    (line,) = [line for line in answer.stderr.splitlines() if line.strip()]
    return line


@pytest.fixture
def finished(where, file, tmp_path):
    """A directory in which every trial of the file is kept, run one after another without Ray."""
    import tomllib

    catalog, settings = Catalog(where), SweepSettings(**tomllib.loads(file.read_text()))
    # As the command lays it out: each strategy a table of its own.
    settings.base["strategies"][0]["config"] = {}
    trials = specifications(settings, catalog)
    directory = SweepDirectory(tmp_path / "run")
    types = parameter_types({"strategy.every": [30, 60]})
    with directory.writing(Sweep(sweep_id(settings, trials), settings.model_dump(mode="json"), 2), resume=False):
        for trial in trials:
            run = validated(BacktestSettings, trial.tree)
            market = load_market(run, build_strategies(run), catalog)
            directory.keep([run_trial(trial, market, clock=time.perf_counter)], types)
    return directory


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing is varied: say --param"),
        (["-p", "strategy.every"], "should read name=values"),
        (["-s", f"{turner}:Turner", "-p", "strategy.evry=1,2"], "did you mean every?"),
        (["-s", "impuls", "-p", "strategy.trigger=1,2"], "did you mean impulse?"),
        (["-p", "strategy.trigger=1,2"], "say --strategy impulse"),
        (["-s", "impulse", "-p", "strategy.trigger=2:3"], "in how many steps"),
        (["-s", "impulse", "-p", "symbols=BTC/USDT"], "write BTCUSDT"),
        (["missing.toml"], "missing.toml cannot be read"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(where, words, says):
    assert says in one_line(sweep(where, *words))


def test_a_report_that_cannot_be_written_is_refused_before_the_sweep(where, file, tmp_path):
    assert "is a directory" in one_line(sweep(where, file, "--out", tmp_path / "run", "--report", tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_directory_with_a_sweep_is_gone_on_with_only_when_told_to(where, file, finished):
    assert "say --resume" in one_line(sweep(where, file, "--out", finished.root))
    other = one_line(sweep(where, file, "--out", finished.root, "--resume", "--capital", "77"))
    assert "a sweep of other settings" in other


def test_data_that_has_grown_since_is_other_data(where, file, finished, tmp_path):
    import shutil

    grown = tmp_path / "catalog"
    shutil.copytree(where, grown)
    more = ["data", "generate", "BTCUSDT", "--start", "2025-01-02", "--days", "1", "--catalog", str(grown)]
    assert runner.invoke(app, more).exit_code == 0
    assert "other data, or other code" in one_line(sweep(grown, file, "--out", finished.root, "--resume"))


def test_a_sweep_that_is_done_is_concluded_from_what_is_kept(where, file, finished, tmp_path):
    page = tmp_path / "elsewhere" / "page.html"
    answer = sweep(where, file, "--out", finished.root, "--resume", "--json", "--report", page)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert (told["trials"], told["done"], told["refused"], told["synthetic"]) == (2, 2, 0, True)
    assert "no evidence" in told["caution"]
    assert "SYNTHETIC DATA" in page.read_text()
    best, other = told["best"]
    assert float(best["net"]) >= float(other["net"])

    settings = tmp_path / "backtest.toml"
    settings.write_text(file.read_text().partition("[parameters]")[0].replace("[base]", ""))
    every = f"strategy.every={best['param.strategy.every']}"
    words = ["backtest", "--settings", settings, "--set", every, "--catalog", where, "--no-report", "--json"]
    alone = json.loads(runner.invoke(app, list(map(str, words))).stdout)
    assert (alone["result_hash"], alone["net_pnl"]) == (best["result_hash"], best["net"])


def test_on_a_terminal_how_many_were_tried_comes_before_the_best(where, file, finished):
    answer = sweep(where, file, "--out", finished.root, "--resume")
    assert answer.exit_code == 0, answer.output
    caution = "2 trials. The best of 2 looks good by luck alone: this is no evidence."
    assert answer.stdout.index("SYNTHETIC DATA") < answer.stdout.index(caution) < answer.stdout.index("every=")
