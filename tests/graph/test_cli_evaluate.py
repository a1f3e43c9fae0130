"""`hean evaluate`, up to where it needs Ray: what it refuses, and in which words."""

import json

import pytest
from typer.testing import CliRunner

from actors.cli import app
from tests.graph.turner import __file__ as turner

runner = CliRunner()
SHORT = ["--train-days", "2", "--test-days", "1", "--purge-days", "0", "--embargo-days", "0"]


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "catalog"
    made = runner.invoke(app, ["data", "generate", "--symbols", "BTCUSDT", "--days", "4", "--catalog", str(path)])
    assert made.exit_code == 0, made.output
    return path


def evaluate(where, *words):
    told = ["--catalog", str(where), "--venue", "SYNTHETIC", "--synthetic"]
    return runner.invoke(app, ["evaluate", *told, *map(str, words)])


def one_line(answer):
    assert answer.exit_code == 1, answer.output
    (line,) = [line for line in answer.stderr.splitlines() if line.strip()]
    return line


TURNS = ["-s", f"{turner}:Turner", "-p", "strategy.every=20,30"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-s", "impulse", *SHORT], "nothing is varied: say --param"),
        ([*TURNS], "there are 4 whole days, and one window takes 215: 180 of training, 5 left out, 30 of test"),
        ([*TURNS, *SHORT, "--step-days", "0"], "windows.step_days: 0 should be greater than or equal to 1"),
        ([*TURNS, *SHORT, "--test-days", "2", "--step-days", "1"], "days would be counted twice"),
        ([*TURNS, *SHORT, "-p", "period=2025-01-01/2025-01-02"], "period is no parameter here"),
        (["-s", f"{turner}:Turner", "-p", "strategy.evry=1,2", *SHORT], "did you mean every?"),
        (["-s", "impulse", "-p", "strategy.trigger=1:2", *SHORT], "a grid needs to know in how many steps"),
        (["-s", "impulse", "-p", "strategy.hold_min=30,60", *SHORT], "may be held for 1 h, and only 0 d"),
        ([*TURNS, *SHORT, "--start", "2025-01-01", "--end", "2025-01-03"], "there are 2 whole days, and one window"),
        ([*TURNS, *SHORT, "--symbols", "ETHUSDT"], "ETHUSDT"),
    ],
)
def test_what_it_refuses_is_said_in_one_line_before_anything_is_begun(where, words, says, tmp_path):
    out = tmp_path / "run"
    assert says in one_line(evaluate(where, *words, "--out", out))
    assert not out.exists()


def test_a_refusal_is_one_object_where_json_is_wanted(where):
    answer = evaluate(where, *TURNS, "--json")
    assert answer.exit_code == 1
    assert "one window takes 215" in json.loads(answer.stdout)["error"]


def test_a_file_may_say_it_all_and_the_command_line_overrules_it(where, tmp_path):
    file = tmp_path / "evaluate.toml"
    file.write_text(
        f"""
        min_trades = 2
        [base]
        strategies = ["{turner}:Turner"]
        [parameters]
        strategy.every = [20, 30]
        [windows]
        train_days = 9
        test_days = 3
        purge_days = 0
        """
    )
    assert "one window takes 13: 9 of training, 1 left out, 3 of test" in one_line(evaluate(where, file))
    assert "one window takes 9: 5 of training, 1 left out" in one_line(evaluate(where, file, "--train-days", "5"))
    file.write_text(file.read_text().replace("purge_days", "purge_day"))
    assert "windows.purge_day: no such setting; did you mean purge_days?" in one_line(evaluate(where, file))


def test_what_it_says_of_itself_names_the_windows():
    answer = runner.invoke(app, ["evaluate", "--help"])
    assert answer.exit_code == 0
    assert "Only what was made out of sample is shown" in answer.stdout
