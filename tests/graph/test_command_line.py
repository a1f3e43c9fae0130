"""`hean backtest` from end to end, on a made-up market: what it prints, what it refuses, what it imports."""

import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest
from typer.testing import CliRunner

from actors.cli import app
from tests.data_dir import ROOT
from tests.graph.scripted import __file__ as script
from tests.store.making import candle_lines, write_csv

runner = CliRunner()
MONEY = ("capital", "equity_final", "net_pnl")


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    path = tmp_path_factory.mktemp("command-line") / "catalog"
    made = runner.invoke(
        app, ["data", "generate", "--symbols", "BTCUSDT,ETHUSDT", "--days", "12", "--catalog", str(path)]
    )
    assert made.exit_code == 0, made.output
    return str(path)


def hean(where, *words, synthetic=True):
    flags = ["--synthetic"] if synthetic else []
    return ["backtest", "--catalog", where, "--venue", "SYNTHETIC", "--no-report", *flags, *words]


def backtest(where, *words, **options):
    return runner.invoke(app, hean(where, *words, **options))


CHATTER = ("--strategy", f"{script}:Chatter", "--set", "strategy.every=300", "--notional", "1500", "--json")


def test_it_prints_one_object_that_adds_up(where):
    answer = backtest(where, *CHATTER)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert {"result_hash", "trades", "net_pnl", "pnl", "equity_final", "refusals", "rows", "wall_s", "data"} <= set(
        told
    )
    assert told["trades"] > 5
    assert told["synthetic"] is True
    assert len(told["result_hash"]) == 64
    assert told["rows"] > 12 * 1440
    assert any(name.startswith("bar-1m BTCUSDT-LINEAR.SYNTHETIC") for name in told["data"])
    assert all(isinstance(told[name], str) for name in MONEY)
    parts = told["pnl"]
    assert all(isinstance(part, str) for part in parts.values())
    assert sum(map(Decimal, parts.values())) == Decimal(told["net_pnl"])
    assert Decimal(told["equity_final"]) - Decimal(told["capital"]) == Decimal(told["net_pnl"])
    assert sum(Decimal(one["net_pnl"]) for one in told["strategies"]) == Decimal(told["net_pnl"])
    assert all(isinstance(count, int) and count for count in told["refusals"].values())


@pytest.mark.parametrize("strategy", ["impulse", "funding-harvester", "basis-arbitrage"])
def test_every_built_in_strategy_runs_as_it_comes(where, strategy):
    answer = backtest(where, "--strategy", strategy, "--json")
    assert answer.exit_code == 0, answer.output
    assert Decimal(json.loads(answer.stdout)["equity_final"]) > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--strategy", "impulze"], ["impulze", "did you mean impulse?"]),
        (["--strategy", "impulse", "--set", "risk.gros_exposure=1"], ["gros_exposure", "did you mean gross_exposure?"]),
        (["--strategy", "impulse", "--set", "strategy.triger=4"], ["triger", "did you mean trigger?"]),
        (["--strategy", "impulse", "--set", "capital"], ["capital", "key=value"]),
        (["--strategy", "impulse", "--start", "yesterday"], ["yesterday", "2025-06-01"]),
        (["--strategy", "impulse", "--start", "2025-01-05", "--end", "2025-01-02"], ["2025-01-02", "2025-01-05"]),
        (["--strategy", "impulse", "--start", "2031-01-01"], ["BTCUSDT-LINEAR.SYNTHETIC", "in this period"]),
        (["--strategy", f"{script}:Chater"], ["no class Chater", "did you mean Chatter?"]),
        (["--strategy", "nowhere.py:Strategy"], ["nowhere.py"]),
        (["--strategy", f"{script}:ShortConfig"], ["ShortConfig"]),
        (["--strategy", "funding-harvester", "--symbols", "XRPUSDT"], ["XRPUSDT-LINEAR.SYNTHETIC"]),
        (["--strategy", "impulse", "--interval", "7m"], ["7m"]),
    ],
    ids=lambda value: "-".join(value)[-40:].replace("/", " ") if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(where, words, says):
    answer = backtest(where, *words)
    assert answer.exit_code != 0
    assert answer.stdout == ""
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, answer.stderr
    for part in says:
        assert part in lines[0]


def test_with_json_a_refusal_is_one_object_too(where):
    answer = backtest(where, "--strategy", "impulze", "--json")
    assert answer.exit_code == 1
    assert "did you mean" in json.loads(answer.stdout)["error"]


def test_made_up_data_is_refused_without_leave(where):
    answer = backtest(where, "--strategy", "impulse", synthetic=False)
    assert answer.exit_code == 1
    assert "made up" in answer.stderr
    assert "--synthetic" in answer.stderr


def test_a_missing_catalog_is_said(tmp_path):
    answer = backtest(str(tmp_path / "nowhere"), "--strategy", "impulse")
    assert answer.exit_code == 1
    assert "BTCUSDT-LINEAR.SYNTHETIC" in answer.stderr
    assert "hean data" in answer.stderr


def test_a_carry_with_one_leg_names_what_is_missing(tmp_path):
    lines = candle_lines(50)
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", lines)
    where = str(tmp_path / "catalog")
    words = ["data", "import", str(path), "--venue", "bybit", "--market", "linear", "--catalog", where]
    assert runner.invoke(app, words).exit_code == 0
    answer = runner.invoke(app, ["backtest", "--catalog", where, "-s", "funding-harvester", "--no-report"])
    assert answer.exit_code == 1
    assert "BTCUSDT-SPOT.BYBIT" in answer.stderr
    assert "nothing" in answer.stderr


# --- the same again ------------------------------------------------------------------------------


def in_another_process(words, seed="0"):
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", "from actors.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_two_processes_with_different_hash_seeds_say_the_same(where):
    words = hean(where, *CHATTER)
    one, other = (json.loads(in_another_process(words, seed).stdout) for seed in ("1", "2"))
    assert one["result_hash"] == other["result_hash"]
    for told in (one, other):
        del told["wall_s"]
    assert one == other


def test_one_other_setting_is_another_result(where):
    hashes = {
        json.loads(backtest(where, *CHATTER, *more).stdout)["result_hash"]
        for more in ([], ["--set", "strategy.seed=1"], ["--set", "risk.trade_risk=0.011"], ["--capital", "10001"])
    }
    assert len(hashes) == 4
    assert json.loads(backtest(where, *CHATTER).stdout)["result_hash"] in hashes


def test_one_other_candle_is_another_result(tmp_path):
    hashes = []
    lines = candle_lines(300)
    for name, changed in (("as it was", lines), ("again", lines), ("one volume", [*lines[:-1], lines[-1][:-1] + "9"])):
        path = write_csv(tmp_path / name / "BTCUSDT_1m.csv", changed)
        where = str(tmp_path / name / "catalog")
        words = ["data", "import", str(path), "--venue", "bybit", "--market", "linear", "--catalog", where]
        assert runner.invoke(app, words).exit_code == 0
        answer = runner.invoke(app, ["backtest", "--catalog", where, "--no-report", *CHATTER])
        assert answer.exit_code == 0, answer.output
        hashes.append(json.loads(answer.stdout)["result_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


# --- what is imported ----------------------------------------------------------------------------

SHOW = "import sys, atexit; atexit.register(lambda: print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)); "


def modules_after(words):
    command = [sys.executable, "-c", SHOW + "from actors.cli import main; main()", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def test_a_backtest_imports_no_cluster_and_no_web_server(where):
    used = modules_after(hean(where, *CHATTER))
    assert not used & {"ray", "fastapi", "starlette", "uvicorn", "nicegui", "aiohttp", "pybit"}
    assert {"hean", "numba", "polars"} <= used


HEAVY = frozenset({"numba", "polars", "numpy", "pyarrow", "ray", "msgspec"})


def test_help_answers_without_loading_what_computes():
    assert not modules_after(["--help"]) & (HEAVY | {"pydantic"})


@pytest.mark.parametrize("command", ["backtest", "data"])
def test_help_of_a_command_loads_none_of_it_either(command):
    # Typer itself looks for pydantic there.
    assert not modules_after([command, "--help"]) & HEAVY
