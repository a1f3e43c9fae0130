"""`hean backtest`: what it reads its settings from, where it writes, and what a strategy may do to it."""

import json
import textwrap

import pytest
from typer.testing import CliRunner

from actors.cli import app
from tests.graph.scripted import __file__ as script

runner = CliRunner()


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    path = tmp_path_factory.mktemp("backtest") / "catalog"
    made = runner.invoke(app, ["data", "generate", "--symbols", "BTCUSDT", "--days", "2", "--catalog", str(path)])
    assert made.exit_code == 0, made.output
    return str(path)


def backtest(where, *words, report=False):
    flags = [] if report else ["--no-report"]
    fixed = ["backtest", "--catalog", where, "--venue", "synthetic", "--synthetic", *flags]
    return runner.invoke(app, [*fixed, *map(str, words)])


def one_line(answer):
    assert answer.exit_code == 1, answer.output
    (line,) = [line for line in answer.stderr.splitlines() if line.strip()]
    return line


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('strategies = "impulse"', "strategies: 'impulse' should be a list"),
        ('[strategies]\nuse = "impulse"', "or a table [[strategies]] for each"),
        ('[[strategies]]\nuse = "impulse"\nconfig = 3', "strategies.0.config: 3 should be a table of settings"),
        ("capital = 5000", "say --strategy impulse"),
        ('strategies = ["impulse"]\nstart = 2025-01-02\nend = 2025-01-01', "is not before its end"),
        ('strategies = ["impulse"]\nsymbols = "BTC/USDT"', "write BTCUSDT"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--set", "strategy.trigger=4", "--notional", "100")], ids=["plain", "set"])
def test_a_settings_file_of_another_shape_is_refused_in_one_line(where, tmp_path, toml, says, more):
    file = tmp_path / "run.toml"
    file.write_text(toml, encoding="utf-8")
    assert says in one_line(backtest(where, "--settings", file, *more))


def test_strategies_may_be_listed_by_name(where, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('strategies = ["impulse"]\nstart = 2025-01-02', encoding="utf-8")
    answer = backtest(
        where, "--settings", file, "--set", "strategy.trigger=4", "--symbols", "btcusdt,BTCUSDT", "--json"
    )
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [one["config"]["trigger"] for one in told["strategies"]] == [4]
    assert told["start"] == "2025-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--capital", "1e400"], "capital: '1e400' should be less than"),
        (["--start", "0001-01-01T00:00+05:00"], "start: '0001-01-01T00:00+05:00' lies outside 1970"),
        (["--symbols", "BTCUSDT-LINEAR.BYBIT"], "write BTCUSDT"),
        (["--set", "start=2025-02-01", "--end", "2025-01-02"], "is not before its end"),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_line(where, words, says):
    assert says in one_line(backtest(where, "-s", "impulse", *words))


# --- reports ------------------------------------------------------------------------------------


def test_a_report_goes_where_it_is_said_to(where, tmp_path):
    report = tmp_path / "new" / "report.html"
    answer = backtest(where, "-s", "impulse", "--report", report, report=True)
    assert answer.exit_code == 0, answer.output
    assert report.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_report_without_a_place_is_refused_before_the_run(where, tmp_path, monkeypatch):
    monkeypatch.setattr("hean.backtest.run.run_backtest", lambda *_, **__: pytest.fail("it was run"))
    (tmp_path / "file").write_text("not a directory", encoding="utf-8")
    assert "is a directory" in one_line(backtest(where, "-s", "impulse", "--report", tmp_path, report=True))
    within = tmp_path / "file" / "report.html"
    assert "is not a directory" in one_line(backtest(where, "-s", "impulse", "--report", within, report=True))


# --- strategies ---------------------------------------------------------------------------------

TALKER = f"""
import sys
from collections.abc import Iterator
sys.path.insert(0, {script!r}.rpartition("/tests/")[0])
from tests.graph.house import Chatter as _Chatter, ChatterConfig
from hean.messages import Bar, PositionChanged, Signal

print("hello from the file")


class Talker(_Chatter):
    def __init__(self, config: ChatterConfig) -> None:
        super().__init__(config)

    def handle(self, message: Bar | PositionChanged, now: int) -> Iterator[Signal]:
        if self.state.rows == 0:
            print("hello from the strategy")
        yield from super().handle(message, now)
"""


def test_what_a_strategy_prints_is_not_among_the_results(where, tmp_path):
    file = tmp_path / "talker.py"
    file.write_text(textwrap.dedent(TALKER), encoding="utf-8")
    answer = backtest(where, "-s", f"{file}:Talker", "--json", "--notional", "1000")
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout)["strategies"][0]["funnel"]["signals"] > 0
    assert "hello from the file" in answer.stderr
    assert "hello from the strategy" in answer.stderr


def test_what_a_strategy_raises_is_one_line_and_one_object(where, tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(TALKER.replace('print("hello from the strategy")', "1 / 0"), encoding="utf-8")
    answer = backtest(where, "-s", f"{file}:Talker", "--json")
    told = [line for line in answer.stderr.splitlines() if "hean:" in line]
    says = "raised ZeroDivisionError: division by zero in handle(Bar) at 2025-01-01 00:01 UTC (broken.py:17)"
    assert len(told) == 1
    assert says in told[0]
    assert says in json.loads(answer.stdout)["error"]
