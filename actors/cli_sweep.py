# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""`hean sweep`: a strategy and what to vary in; every trial, and what it is worth, out."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli_options import (
    CATALOG,
    Address,
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
    Workers,
    laid_out,
    must_be_writable,
    settings_of,
)
from actors.console import people, progress_bar, saying_errors
from actors.own_ray import stopped_by_signals, workers_at

if TYPE_CHECKING:
    import polars as pl

    from actors.gateways.compute import Progress as SoFar
    from hean.backtest.sweep import SweepSettings, Trial
    from hean.store.trials import SweepDirectory

_RUNS = Path("runs")
_SHOWN = 10
_INTERRUPTED = 130


def sweep(
    settings_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SETTINGS.toml]",
            help="TOML file with [base] (settings of the backtest), [parameters], kind, count and seed.",
        ),
    ] = None,
    strategy: Strategies = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            help="What to vary: strategy.trigger=2,2.5,3, risk.trade_risk=0.005:0.02:4 (four values), log:LOW:HIGH:N, "
            "LOW:HIGH or whole:LOW:HIGH (with --random), symbols=BTCUSDT,ETHUSDT, period=2025-01-01/2025-02-01,2025-02-01/2025-03-01. Repeat it.",
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", help="Draw so many combinations, in place of the whole grid.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="What they are drawn from [default: 1].")] = None,
    symbols: Symbols = None,
    start: Start = None,
    end: End = None,
    capital: Capital = None,
    venue: VenueName = None,
    interval: CandleLength = None,
    tier: FillTier = None,
    assignments: Assignments = None,
    synthetic: Synthetic = False,
    catalog: CatalogPlace = CATALOG,
    workers: Workers = None,
    address: Address = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Directory of the results [default: runs/sweep-<its id>].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the sweep in that directory.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Where the HTML report goes [default: report.html in that directory]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one backtest with many settings, and say how little the best of them proves.

    Each trial is what `hean backtest` makes of the same settings, to the same result hash. What is finished is kept at
    once: Ctrl-C loses only what is under way, and --resume goes on.

    Examples:

      hean sweep -s impulse --symbols BTCUSDT -p strategy.trigger=2,2.5,3 -p risk.trade_risk=0.005:0.02:4

      hean sweep -s impulse -p strategy.trigger=2:4 -p strategy.hold_min=10:120 --random 200 --seed 7

      hean sweep -s funding-harvester -p symbols=BTCUSDT,ETHUSDT -p strategy.enter_bp=log:0.1:3:6
    """
    with saying_errors(as_json=as_json):
        from hean.backtest.sweep import specifications, sweep_id
        from hean.store.catalog import Catalog
        from hean.store.trials import Sweep, SweepDirectory, parameter_types

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
        settings = _settings(
            settings_file, options, strategy or (), assignments or (), parameters or (), random=random, seed=seed
        )
        tape = Catalog(catalog)
        # Standard output is for the result: what a strategy's file or Ray prints is for people.
        with redirect_stdout(sys.stderr):
            trials = specifications(settings, tape)
        what = Sweep(sweep_id(settings, trials), settings.model_dump(mode="json"), len(trials))
        directory = SweepDirectory(out if out is not None else _RUNS / f"sweep-{what.id[:12]}")
        page = report if report is not None else directory.root / "report.html"
        must_be_writable(page)
        with directory.writing(what, resume=resume):
            done = directory.done()
            left = [trial for trial in trials if trial.id not in done]
            people().print(
                f"{len(trials):,} trials"
                + (f", {len(done):,} of them done before" if done else "")
                + f"; results in {directory.root}"
            )
            types = parameter_types({name: [one.parameters[name] for one in trials] for name in settings.parameters})
            ended = _run(left, tape, directory, types, address=address, workers=workers) if left else True
            _conclude(directory, what, settings, page, ended=ended, as_json=as_json)
        if not ended:
            raise typer.Exit(_INTERRUPTED)


def _settings(
    file: Path | None,
    options: Mapping[str, object],
    strategies: Sequence[str],
    assignments: Sequence[str],
    parameters: Sequence[str],
    *,
    random: int | None,
    seed: int | None,
) -> "SweepSettings":
    """What is tried: as the file says, and over it the command line.

    Raises:
        ConfigError: a part of it is wrong, or nothing is varied.
    """
    from hean.backtest.sweep import SweepSettings
    from hean.settings import validated

    tree, base = tables_of(file, parameters)
    laid_out(base, options, strategies, assignments)
    if random is not None:
        tree |= {"kind": "random", "count": random}
    if seed is not None:
        tree["seed"] = seed
    settings: SweepSettings = validated(SweepSettings, tree)
    return settings.model_copy(
        update={
            "base": found_anywhere(settings.base),
            "parameters": {name: found_anywhere(one) for name, one in settings.parameters.items()},
        }
    )


def tables_of(file: Path | None, parameters: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tree of a settings file, what is varied on the command line laid over it; and the backtest's own in it.

    Raises:
        ConfigError: A part of it is wrong, or nothing is varied.
    """
    from hean.backtest.sweep import parse_parameter
    from hean.errors import ConfigError
    from hean.settings import read_toml

    tree: dict[str, Any] = read_toml(file) if file is not None else {}
    base = tree.setdefault("base", {})
    if not isinstance(base, dict):
        raise ConfigError(f"base: {base!r} should be a table of the backtest's settings: [base]")
    varied = tree.setdefault("parameters", {})
    if not isinstance(varied, dict):
        raise ConfigError(f"parameters: {varied!r} should be a table: [parameters]")
    varied |= dict(parse_parameter(one) for one in parameters)
    if not varied:
        raise ConfigError("nothing is varied: say --param strategy.trigger=2,2.5,3, or list [parameters] in the file")
    return tree, base


def found_anywhere(value: Any) -> Any:
    """Strategies' files by their whole paths: a worker may have another directory."""
    if isinstance(value, str) and ".py:" in value:
        path, _, name = value.rpartition(":")
        return f"{Path(path).absolute()}:{name}"
    if isinstance(value, dict):
        return {key: found_anywhere(one) for key, one in value.items()}
    return type(value)(map(found_anywhere, value)) if isinstance(value, list | tuple) else value


def _run(
    trials: "Sequence[Trial]",
    catalog: Any,
    directory: "SweepDirectory",
    types: Mapping[str, Any],
    *,
    address: str | None,
    workers: int | None,
) -> bool:
    """Run what is left; says whether it came to its end."""
    from rich.progress import BarColumn, Progress, TextColumn

    from hean.backtest.sweep import market_of

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
    with redirect_stdout(sys.stderr), Progress(*columns, **progress_bar()) as bar:
        task = bar.add_task("starting Ray", total=len(trials), left="")

        def told(so_far: "SoFar") -> None:
            failed = f", {so_far.failed:,} refused" if so_far.failed else ""
            bar.update(
                task,
                completed=so_far.done,
                description=f"{so_far.done:,} of {so_far.total:,} trials{failed}",
                left="" if so_far.left_s is None else f"{length(so_far.left_s)} left",
            )

        try:
            # Ray has an answer of its own to SIGTERM, which it gives while it starts: ours comes after.
            with workers_at(address, workers), stopped_by_signals():
                from actors.gateways.compute import run_trials

                run_trials(
                    trials,
                    load=lambda one: market_of(one, catalog),
                    keep=lambda rows: directory.keep(rows, types),
                    progress=told,
                )
        except KeyboardInterrupt:
            return False
    return True


def _conclude(
    directory: "SweepDirectory", what: Any, settings: "SweepSettings", page: Path, *, ended: bool, as_json: bool
) -> None:
    """Say what came of it, as far as it is."""
    from hean.backtest.sweep_report import render

    rows = directory.rows()
    if not ended:
        kept = 0 if rows is None else rows.height
        people().print(
            f"interrupted: {kept:,} of {what.trials:,} trials are kept in {directory.root}; --resume goes on"
        )
    if rows is None:
        if as_json:
            typer.echo(json.dumps({"id": what.id, "directory": str(directory.root), "trials": what.trials, "done": 0}))
        return
    if ended:
        results = directory.finish()
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(what, settings, rows), encoding="utf-8")
    if as_json:
        files = {"results": str(results), "report": str(page)} if ended else {"results": None, "report": None}
        typer.echo(json.dumps({**_json(directory, what, rows), **files, "interrupted": not ended}))
    elif ended:
        _print(settings, what, rows)
        people().print(f"report: {page}\nresults: {results}")


def _best(rows: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    return rows.filter(pl.col("error").is_null()).sort(["net", "number"], descending=[True, False]).head(_SHOWN)


def _json(directory: "SweepDirectory", what: Any, rows: "pl.DataFrame") -> dict[str, Any]:
    from hean.backtest.report import plain
    from hean.backtest.sweep_report import luck

    left_out = {"daily_returns", "error"}
    best = [
        {name: plain(value) for name, value in row.items() if name not in left_out} for row in _best(rows).to_dicts()
    ]
    return {
        "id": what.id,
        "directory": str(directory.root),
        "trials": what.trials,
        "done": rows.height,
        "refused": rows["error"].count(),
        "caution": luck(what.trials),
        "synthetic": bool(rows["synthetic"].any()),
        "best": best,
    }


def _print(settings: "SweepSettings", what: Any, rows: "pl.DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hean.backtest import words
    from hean.backtest.sweep_report import luck
    from hean.store.trials import PARAMETER

    console = Console()
    if rows["synthetic"].any():
        console.print(
            Text(" SYNTHETIC DATA: made up, and says nothing about a real market ", style="bold black on yellow")
        )
    console.print(Text(f"{what.trials:,} trials. {luck(what.trials)}", style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in ("net P&L", "drawdown", "Sharpe a year", "trips"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("with", overflow="fold")
    for row in _best(rows).to_dicts():
        sharpe, fall = row["sharpe"], row["max_drawdown"]
        table.add_row(
            words.signed(row["net"]),
            "unknown" if fall is None else f"{fall:.2%}",
            "unknown" if sharpe is None else f"{sharpe:.2f}",
            f"{row['trades']:,}",
            Text(
                ", ".join(f"{name.removeprefix('strategy.')}={row[PARAMETER + name]}" for name in settings.parameters)
            ),
        )
    console.print(table)
    failed = rows["error"].drop_nulls()
    if failed.len():
        console.print(Text(f"{failed.len():,} trials have no result; the first: {failed[0]}", style="yellow"))


def length(seconds: float) -> str:
    """A time as people say it."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
