# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""`hean backtest`: a strategy, symbols and a period in; figures and a report out."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.console import people, progress_bar, saying_errors

if TYPE_CHECKING:
    from hean.settings import BacktestSettings


def backtest(
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            "-s",
            help="funding-harvester, basis-arbitrage, impulse, or path/to/file.py:ClassName. Repeat it to run several.",
        ),
    ] = None,
    symbols: Annotated[
        str | None, typer.Option("--symbols", help="Symbols, divided by commas: BTCUSDT,ETHUSDT [default: BTCUSDT].")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="First day or instant of trading, UTC [default: with no --end either, of the longest unbroken record].",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--end", help="Day or instant trading ends before, UTC [default: where the record ends, or breaks off]."
        ),
    ] = None,
    capital: Annotated[str | None, typer.Option("--capital", help="USDT to begin with [default: 10000].")] = None,
    venue: Annotated[
        str | None, typer.Option("--venue", help="Whose market: BYBIT, BINANCE or SYNTHETIC [default: BYBIT].")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval", help="Length of the candles, such as 5m [default: the finest recorded for the whole period]."
        ),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            "--tier",
            help="What orders fill against: bars, trades or book [default: bars if the strategy watches them].",
        ),
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="TOML file with any of the settings.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="One setting: strategy.trigger=4, risk.trade_risk=0.02, venue.fee_tier=vip1. Repeat it."
        ),
    ] = None,
    notional: Annotated[
        float | None, typer.Option("--notional", help="USDT of every position, in place of sizing by risk.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Where the HTML report goes [default: runs/<result hash>.html].")
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no HTML report.")] = False,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Allow made-up data; the report is stamped.")] = False,
    catalog: Annotated[
        Path, typer.Option("--catalog", envvar="HEAN_CATALOG", help="Directory of the market data.")
    ] = Path("catalog"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Run strategies over recorded market data, and report what they would have made.

    Examples:

      hean backtest -s impulse --symbols BTCUSDT,ETHUSDT --start 2025-06-01 --end 2025-06-29

      hean backtest -s funding-harvester --symbols BTCUSDT --interval 5m --set strategy.enter_bp=1

      hean backtest -s my_strategy.py:MyStrategy --symbols SOLUSDT --capital 5000
    """
    with saying_errors(as_json=as_json):
        from hean.settings import BacktestSettings, read_toml, validated

        options = {
            "symbols": symbols,
            "start": start,
            "end": end,
            "capital": capital,
            "venue_name": venue,
            "interval": interval,
            "tier": tier,
            "synthetic": synthetic or None,
        }
        tree = read_toml(settings_file) if settings_file is not None else {}
        laid_out(tree, options, strategy or (), assignments or (), notional=notional)
        settings = validated(BacktestSettings, tree)
        if not no_report:
            must_be_writable(report if report is not None else _REPORTS / "report.html")
        _run(settings, catalog, report=report, write=not no_report, as_json=as_json)


def laid_out(
    tree: dict[str, Any],
    options: Mapping[str, object],
    strategies: Sequence[str],
    assignments: Sequence[str],
    *,
    notional: float | None = None,
) -> None:
    """Lay what was said on the command line over a tree of settings, which a file may have begun.

    Raises:
        ConfigError: the tree has another shape, or an assignment leads nowhere.
    """
    from hean.settings import assign, strategies_in

    tree |= {key: value for key, value in options.items() if value is not None}
    if strategies:
        tree["strategies"] = [{"use": use} for use in strategies]
    own = [one.removeprefix("strategy.") for one in assignments if one.startswith("strategy.")]
    assign(tree, [one for one in assignments if not one.startswith("strategy.")])
    for chosen in strategies_in(tree):
        assign(chosen["config"], own)
        if notional is not None:
            chosen["sizing"] = {"kind": "fixed", "notional": notional}


_REPORTS = Path("runs")


def must_be_writable(report: Path) -> None:
    """Say before a run, not after it, that its report has no place.

    Raises:
        ConfigError: the file cannot be written, or its directory cannot be made.
    """
    from hean.errors import ConfigError

    if report.is_dir():
        raise ConfigError(f"--report {report} is a directory: name a file in it, such as {report / 'report.html'}")
    there = next(path for path in (report, *report.absolute().parents) if path.exists())
    if there != report and not there.is_dir():
        raise ConfigError(f"--report {report}: {there} is not a directory")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"--report {report}: {there} may not be written to; name another place, or say --no-report")


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
