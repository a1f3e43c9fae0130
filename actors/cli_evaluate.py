# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""`hean evaluate`: a strategy and its grid in; what the choices made out of sample, and nothing else, out."""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

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
    from actors.gateways.compute import Progress as SoFar
    from hean.backtest.walk_forward import Evaluation, Looks, Tried, WalkForwardSettings
    from hean.store.catalog import Catalog

_RUNS = Path("runs")
_INTERRUPTED = 130


def evaluate(
    settings_file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SETTINGS.toml]",
            help="TOML file with [base] (settings of the backtest), [parameters], [windows] and min_trades.",
        ),
    ] = None,
    strategy: Strategies = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            help="What to choose among: strategy.trigger=2,2.5,3, risk.trade_risk=0.005:0.02:4 (four values), "
            "log:LOW:HIGH:N. Repeat it: every combination is tried in each window.",
        ),
    ] = None,
    train_days: Annotated[
        int | None, typer.Option("--train-days", help="Days in which parameters are chosen [default: 180].")
    ] = None,
    test_days: Annotated[
        int | None, typer.Option("--test-days", help="Days after them in which the choice is tried [default: 30].")
    ] = None,
    step_days: Annotated[
        int | None, typer.Option("--step-days", help="Days from one window to the next [default: as long as a test].")
    ] = None,
    purge_days: Annotated[
        int | None,
        typer.Option("--purge-days", help="Days left out between them: the longest a position is held [default: 3]."),
    ] = None,
    embargo_days: Annotated[
        int | None,
        typer.Option("--embargo-days", help="Days left out beside [default: a hundredth of the training]."),
    ] = None,
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
        Path | None, typer.Option("--out", help="Directory of the results [default: runs/evaluate-<its id>].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in that directory.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Where the HTML report goes [default: report.html in that directory]."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose parameters in one window of the past, try them in the next, and say what that made.

    Only what was made out of sample is shown. Each test is what `hean backtest` makes of the chosen settings, to the same
    result hash. Ctrl-C loses only what is under way, and --resume goes on.

    Examples:

      hean evaluate -s impulse --symbols BTCUSDT -p strategy.trigger=2,2.5,3 -p strategy.hold_min=30,60

      hean evaluate -s funding-harvester -p strategy.enter_bp=0.5:3:6 --train-days 365 --test-days 90
    """
    with saying_errors(as_json=as_json):
        from actors.evaluation import identify, look, walk
        from hean.backtest.walk_forward import evaluated, windows_of
        from hean.store.catalog import Catalog

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
        lengths = {
            "train_days": train_days,
            "test_days": test_days,
            "step_days": step_days,
            "purge_days": purge_days,
            "embargo_days": embargo_days,
        }
        settings = _settings(settings_file, options, strategy or (), assignments or (), parameters or (), lengths)
        tape = Catalog(catalog)
        # Standard output is for the result: what a strategy's file or Ray prints is for people.
        with redirect_stdout(sys.stderr):
            windows = windows_of(settings, *_period(settings, tape))
            name, trials = identify(settings, windows, tape)
        root = out if out is not None else _RUNS / f"evaluate-{name[:12]}"
        page = report if report is not None else root / "report.html"
        must_be_writable(page)
        people().print(
            f"{len(windows):,} windows, {len(trials):,} trials in training and {len(windows):,} tests at most; "
            f"results in {root}"
        )
        tried: list[Tried] | None = None
        with redirect_stdout(sys.stderr), _Bar() as told:
            try:
                # Ray has an answer of its own to SIGTERM, which it gives while it starts: ours comes after.
                with workers_at(address, workers), stopped_by_signals():
                    tried = walk(settings, windows, trials, tape, root, name=name, resume=resume, told=told)
            except KeyboardInterrupt:
                tried = None
        if tried is None:
            people().print(f"interrupted: what is finished is kept in {root}; --resume goes on")
            if as_json:
                typer.echo(json.dumps({"evaluation": name, "directory": str(root), "interrupted": True}))
            raise typer.Exit(_INTERRUPTED)
        evaluation = evaluated(settings, name, tried)
        looks = look(evaluation, trials, tape)
        _conclude(evaluation, settings, looks, root, page, as_json=as_json)


def _settings(
    file: Path | None,
    options: dict[str, object],
    strategies: Sequence[str],
    assignments: Sequence[str],
    parameters: Sequence[str],
    lengths: dict[str, int | None],
) -> "WalkForwardSettings":
    """What is evaluated: as the file says, and over it the command line.

    Raises:
        ConfigError: A part of it is wrong, or there is nothing to choose among.
    """
    from actors.cli_sweep import found_anywhere, tables_of
    from hean.backtest.walk_forward import WalkForwardSettings
    from hean.errors import ConfigError
    from hean.settings import validated

    tree, base = tables_of(file, parameters)
    laid_out(base, options, strategies, assignments)
    windows = tree.setdefault("windows", {})
    if not isinstance(windows, dict):
        raise ConfigError(f"windows: {windows!r} should be a table: [windows]")
    windows |= {name: days for name, days in lengths.items() if days is not None}
    settings: WalkForwardSettings = validated(WalkForwardSettings, tree)
    return settings.model_copy(
        update={
            "base": found_anywhere(settings.base),
            "parameters": {name: found_anywhere(one) for name, one in settings.parameters.items()},
        }
    )


def _period(settings: "WalkForwardSettings", catalog: "Catalog") -> tuple[int, int]:
    """From when to when: as asked for, or as far as the market is recorded.

    Raises:
        HeanError: It is not recorded.
    """
    from hean.backtest.walk_forward import recorded
    from hean.units import parse_time

    start, end = (settings.base.get(name) for name in ("start", "end"))
    if start is not None and end is not None:
        return parse_time(str(start)), parse_time(str(end))
    return recorded(settings, catalog)


class _Bar:
    """How far it is, for people who watch."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        self._bar = Progress(*columns, **progress_bar())
        self._task = self._bar.add_task("starting Ray", total=1, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, part: str, so_far: "SoFar") -> None:
        from actors.cli_sweep import length

        failed = f", {so_far.failed:,} refused" if so_far.failed else ""
        self._bar.update(
            self._task,
            total=so_far.total,
            completed=so_far.done,
            description=f"{part}: {so_far.done:,} of {so_far.total:,}{failed}",
            left="" if so_far.left_s is None else f"{length(so_far.left_s)} left",
        )


def _conclude(
    evaluation: "Evaluation",
    settings: "WalkForwardSettings",
    looks: "Looks",
    root: Path,
    page: Path,
    *,
    as_json: bool,
) -> None:
    """Write the report and say what came of it."""
    from hean.backtest.walk_forward_report import as_json as json_of
    from hean.backtest.walk_forward_report import render

    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(evaluation, settings, looks), encoding="utf-8")
    if as_json:
        told: dict[str, Any] = json_of(evaluation, looks)
        typer.echo(json.dumps({**told, "directory": str(root), "report": str(page), "interrupted": False}))
        return
    _print(evaluation, settings, looks)
    people().print(f"report: {page}")


def _print(evaluation: "Evaluation", settings: "WalkForwardSettings", looks: "Looks") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from hean.backtest import words
    from hean.backtest.walk_forward_report import caution
    from hean.windows import day

    console = Console()
    if evaluation.synthetic:
        console.print(
            Text(" SYNTHETIC DATA: made up, and says nothing about a real market ", style="bold black on yellow")
        )
    console.print(Text(caution(evaluation, looks), style="bold"))
    error = "unknown" if evaluation.sharpe_error is None else f"{evaluation.sharpe_error:.2f}"
    for name, value in (
        ("net P&L", _or_unknown(evaluation.net, words.signed)),
        ("return", _or_unknown(evaluation.total_return, "{:+.2%}".format)),
        ("drawdown", _or_unknown(evaluation.max_drawdown, "{:.2%}".format)),
        ("Sharpe a year", f"{_or_unknown(evaluation.sharpe, '{:.2f}'.format)}, standard error {error}"),
        ("round trips", _or_unknown(evaluation.trades, "{:,}".format)),
        ("windows gained", f"{evaluation.gained:,} of {evaluation.tests:,} tested, {len(evaluation.windows):,} in all"),
        (
            "efficiency",
            _or_unknown(evaluation.efficiency, "{:.2f}, the tests' daily return over that of training".format),
        ),
    ):
        console.print(Text(f"{name:16}{value}"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for head in ("window", "tested in", "net P&L", "drawdown", "trips"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("with", overflow="fold")
    for one in evaluation.windows:
        row, chosen = one.result, one.choice.parameters
        span = f"{day(one.window.test[0])} to {day(one.window.test[1])}"
        said = one.choice.why
        if chosen is not None:
            said = ", ".join(f"{name.removeprefix('strategy.')}={chosen[name]}" for name in settings.parameters)
        if row is not None and row.error is not None:
            said += f": {row.error}"
        table.add_row(
            f"{one.window.number}",
            span,
            _or_unknown(None if row is None else row.net, words.signed),
            _or_unknown(None if row is None else row.max_drawdown, "{:.2%}".format),
            _or_unknown(None if row is None else row.trades, "{:,}".format),
            Text(said),
        )
    console.print(table)


def _or_unknown(value: Any, say: Any) -> str:
    return "unknown" if value is None else str(say(value))
