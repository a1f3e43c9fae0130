# ruff: noqa: FBT002  # flags of a command line are bools with defaults, some answered by callbacks
"""The one command, `hean`."""

from typing import Annotated

import typer

from actors.cli_backtest import backtest
from actors.cli_data import data_app
from actors.cli_engine import COMMANDS
from actors.cli_evaluate import evaluate
from actors.cli_exchange import exchange
from actors.cli_processes import process_app
from actors.cli_sweep import sweep

app = typer.Typer(
    name="hean",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,
    help="Research and trade crypto on Bybit: market data, backtests one can believe, and a Bybit of one's own.\n\n"
    "A first look without any data:\n\n"
    "  hean data generate --symbols BTCUSDT --days 60\n\n"
    "  hean backtest --strategy impulse --venue SYNTHETIC --symbols BTCUSDT --synthetic\n\n"
    "  hean exchange\n\n"
    "The whole, trading on a Bybit of one's own:\n\n"
    "  hean up",
)
app.add_typer(data_app, name="data")
app.add_typer(process_app, name="process")
app.command(name="backtest")(backtest)
app.command(name="sweep")(sweep)
app.command(name="evaluate")(evaluate)
app.command(name="exchange")(exchange)
for command in COMMANDS:
    app.command()(command)


def _version(wanted: bool) -> None:  # noqa: FBT001 (typer's callbacks take the flag)
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hean {version('hean')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Choose a command."""


def main() -> None:
    """Run the command line: the console script `hean`."""
    app()
