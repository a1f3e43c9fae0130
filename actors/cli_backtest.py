# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""`hean backtest`: a strategy, symbols and a period in; figures and a report out."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli_options import (
    CATALOG,
    AsJson,
    Assignments,
    CandleLength,
    Capital,
    CatalogPlace,
    End,
    FillTier,
    Start,
    Strategies,
    Symbols,
    Synthetic,
    VenueName,
    laid_out,
    must_be_writable,
    settings_of,
)
from actors.console import people, progress_bar, saying_errors

if TYPE_CHECKING:
    from hean.settings import BacktestSettings


def backtest(
    strategy: Strategies = None,
    symbols: Symbols = None,
    start: Start = None,
    end: End = None,
    capital: Capital = None,
    venue: VenueName = None,
    interval: CandleLength = None,
    tier: FillTier = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="TOML file with any of the settings.")
    ] = None,
    assignments: Assignments = None,
    notional: Annotated[
        float | None, typer.Option("--notional", help="USDT of every position, in place of sizing by risk.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Where the HTML report goes [default: runs/<result hash>.html].")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no HTML report.")] = False,
    synthetic: Synthetic = False,
    catalog: CatalogPlace = CATALOG,
    as_json: AsJson = False,
) -> None:
    """Run strategies over recorded market data, and report what they would have made.

    Examples:

      hean backtest -s impulse --symbols BTCUSDT,ETHUSDT --start 2025-06-01 --end 2025-06-29

      hean backtest -s funding-harvester --symbols BTCUSDT --interval 5m --set strategy.enter_bp=1

      hean backtest -s my_strategy.py:MyStrategy --symbols SOLUSDT --capital 5000
    """
    with saying_errors(as_json=as_json):
        from hean.settings import BacktestSettings, read_toml, validated

        options = settings_of(
            symbols=symbols,
            start=start,
            end=end,
            capital=capital,
            venue=venue,
            interval=interval,
            tier=tier,
            synthetic=synthetic,
        )
        tree = read_toml(settings_file) if settings_file is not None else {}
        laid_out(tree, options, strategy or (), assignments or (), notional=notional)
        settings = validated(BacktestSettings, tree)
        if not no_report:
            must_be_writable(report if report is not None else _REPORTS / "report.html")
        _run(settings, catalog, report=report, write=not no_report, as_json=as_json)


_REPORTS = Path("runs")


def _run(settings: "BacktestSettings", catalog: Path, *, report: Path | None, write: bool, as_json: bool) -> None:
    import time

    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from hean.backtest.report import as_json as json_of
    from hean.backtest.run import run_backtest
    from hean.store.catalog import Catalog

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    # Standard output is for the result: what a strategy prints is for people.
    with Progress(*columns, **progress_bar()) as bar, redirect_stdout(sys.stderr):
        task = bar.add_task("playing the tape", total=1.0)
        result = run_backtest(
            settings,
            Catalog(catalog),
            clock=time.perf_counter,
            progress=lambda done: bar.update(task, completed=done),
        )
    where = None
    if write:
        from hean.backtest.html import render

        where = report if report is not None else _REPORTS / f"{result.result_hash[:16]}.html"
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(render(result), encoding="utf-8")
    if as_json:
        import json

        typer.echo(json.dumps(json_of(result) | {"report": str(where) if where else None}))
        return
    from rich.console import Console

    from actors.terminal import print_summary

    print_summary(result, Console())
    if where:
        people().print(f"report: {where}")
