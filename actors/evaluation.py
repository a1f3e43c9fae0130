"""Walking forward on Ray: training, choice and test of some windows, everything that ends kept at once.

    training/    a sweep's directory: every parameter set on each training window
    test/        another: the chosen set of each window on the days after

Both go on where they were broken off, and what is done is never run again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs

from actors.gateways.compute import Progress, run_trials
from hean.backtest.sweep import Row, Trial, hashed, market_of
from hean.backtest.walk_forward import (
    PERIOD,
    Evaluation,
    Looks,
    Tried,
    WalkForwardSettings,
    choose,
    chosen_trials,
    evaluation_id,
    training_trials,
)
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.store.looks import Look, note
from hean.store.trials import Sweep, SweepDirectory, parameter_types
from hean.windows import Window

Told = Callable[[str, Progress], None]


def identify(settings: WalkForwardSettings, windows: Sequence[Window], catalog: Catalog) -> tuple[str, list[Trial]]:
    """What an evaluation is known by, and all it tries in training.

    Raises:
        ConfigError: Nothing of it can be run.
    """
    trials = training_trials(settings, windows, catalog)
    return evaluation_id(settings, windows, trials), trials


def walk(
    settings: WalkForwardSettings,
    windows: Sequence[Window],
    trials: Sequence[Trial],
    catalog: Catalog,
    root: Path,
    *,
    name: str,
    resume: bool,
    told: Told = lambda _part, _progress: None,
) -> list[Tried]:
    """Walk through some windows on the cluster this process is connected to.

    Args:
        settings: What is evaluated.
        windows: Which windows.
        trials: Their training, as `identify` has it.
        catalog: Where the market is recorded.
        root: Directory of what ends; whoever interrupts this loses only what was under way.
        name: The id of what is walked through: only the same may go on in that directory.
        resume: Whether it may go on with what is there.
        told: Told how far which part is.

    Raises:
        HeanError: The directory holds something else, or the workers have other code.
    """
    said = settings.model_dump(mode="json")
    trained, tested = SweepDirectory(root / "training"), SweepDirectory(root / "test")
    with trained.writing(Sweep(name, said, len(trials)), resume=resume):
        varied = [*settings.parameters, PERIOD]
        rows = _run(trials, catalog, trained, varied, lambda so_far: told("training", so_far))
        choices = [choose(settings, window, trials, rows) for window in windows]
        tests = chosen_trials(settings, windows, choices, catalog)
        if not tests:
            return [Tried(*one, None) for one in zip(windows, choices, strict=True)]
        what = Sweep(hashed(name, [trial.id for trial in tests]), said, len(tests))
        with tested.writing(what, resume=True):
            found = _run(tests, catalog, tested, [PERIOD], lambda so_far: told("test", so_far))
    results = {trial.number: _row(trial, found[trial.id]) for trial in tests}
    return [Tried(window, choice, results.get(window.number)) for window, choice in zip(windows, choices, strict=True)]


def look(evaluation: Evaluation, trials: Sequence[Trial], catalog: Catalog) -> Looks:
    """Write down that these tests were looked at, and say how often they have been.

    Raises:
        DataError: It cannot be written down.
    """
    period = trials[0].parameters[PERIOD]
    runs = [
        validated(BacktestSettings, one.tree) for one in trials if one.parameters[PERIOD] == period and not one.error
    ]
    seen = Look(
        evaluation=evaluation.id,
        by=tuple(sorted({strategy.use.rpartition("/")[2] for run in runs for strategy in run.strategies})),
        markets=tuple(sorted({f"{run.venue_name} {symbol}" for run in runs for symbol in run.symbols})),
        tests=tuple(one.window.test for one in evaluation.windows if one.result is not None),
        trials=evaluation.trials,
    )
    met = note(catalog.root, seen)
    return Looks(len(met), sum(one.trials for one in met))


def _run(
    trials: Sequence[Trial],
    catalog: Catalog,
    directory: SweepDirectory,
    varied: Sequence[str],
    progress: Callable[[Progress], None],
) -> dict[str, Mapping[str, Any]]:
    """Run what is not done yet; the rows of all of them, by trial."""
    done = directory.done()
    left = [trial for trial in trials if trial.id not in done]
    types = parameter_types({name: [trial.parameters[name] for trial in trials] for name in varied})
    if left:
        run_trials(
            left,
            load=lambda trial: market_of(trial, catalog),
            keep=lambda rows: directory.keep(rows, types),
            progress=progress,
        )
    rows = directory.rows()
    return {} if rows is None else {row["trial"]: row for row in rows.iter_rows(named=True)}


def _row(trial: Trial, kept: Mapping[str, Any]) -> Row:
    """A row as it was before it was kept."""
    own: dict[str, Any] = {"trial": trial.id, "number": trial.number, "parameters": trial.parameters}
    return Row(**own, **{one.name: kept[one.name] for one in structs.fields(Row) if one.name not in own})
