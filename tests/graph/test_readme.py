"""What the README shows is what there is."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from actors.cli import app
from hean.topology import mermaid

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    found = [text for kind, text in re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL) if kind == language]
    return next(text for text in found if containing in text)


def test_the_drawing_is_made_from_the_table_of_routes():
    assert block("mermaid", "flowchart") == mermaid() + "\n"


def test_the_strategy_it_shows_runs_and_trades(tmp_path):
    (tmp_path / "breakout.py").write_text(block("python", "class Breakout:"), encoding="utf-8")
    catalog = ["--catalog", str(tmp_path / "catalog")]
    made = CliRunner().invoke(app, ["data", "generate", "BTCUSDT", "--days", "5", *catalog])
    assert made.exit_code == 0, made.output

    use = f"{tmp_path / 'breakout.py'}:Breakout"
    options = [
        "--venue",
        "SYNTHETIC",
        "--symbols",
        "BTCUSDT",
        "--synthetic",
        "--notional",
        "1000",
        "--no-report",
        "--json",
    ]
    ran = CliRunner().invoke(app, ["backtest", "-s", use, *options, *catalog])

    assert ran.exit_code == 0, ran.output
    result = json.loads(ran.stdout)
    assert result["trades"] > 0
    assert not result["refusals"]
