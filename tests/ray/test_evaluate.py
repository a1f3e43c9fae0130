"""Walking forward on Ray: each test is a backtest like any other, nothing finished is done twice, whoever dies meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray

from actors import cluster as ray_cluster
from actors.evaluation import identify, look, walk
from actors.gateways.bybit_endpoint import loopback
from actors.process_factory import ProcessFactoryActor
from actors.process_steps import WORKS, ProcessPlan
from hean.backtest.run import run_backtest
from hean.backtest.walk_forward import WalkForwardSettings, evaluated, windows_of
from hean.processes.built_in import EVALUATE
from hean.processes.runs import OVER, RunStatus
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.store.synthetic import SyntheticMarket, generate
from hean.units import parse_time, utc
from tests.ray.swinger import __file__ as swinger

START, END = "2025-01-01", "2025-01-08"
LENGTHS = {"train_days": 3, "test_days": 1, "purge_days": 0, "embargo_days": 0}
WINDOWS = 4
GRID = {"strategy.every": (30, 60, 90)}

BASE = {
    "strategies": [{"use": f"{swinger}:Swinger"}],
    "symbols": ["BTCUSDT"],
    "venue_name": "SYNTHETIC",
    "synthetic": True,
    "start": utc(parse_time(START)),
    "end": utc(parse_time(END)),
}
ARGUMENTS = {
    "strategy": f"{swinger}:Swinger",
    "venue_name": "SYNTHETIC",
    "synthetic": "true",
    "start": START,
    "end": END,
    "param.strategy.every": "[30, 60, 90]",
    **{name: str(days) for name, days in LENGTHS.items()},
}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    made = Catalog(tmp_path_factory.mktemp("evaluate") / "catalog")
    for batch in generate(SyntheticMarket(symbols=("BTCUSDT",), start=parse_time(START), days=7, seed=3)):
        made.commit(batch)
    return made


def settings_of(**more):
    return WalkForwardSettings(base=BASE, parameters=GRID | more, windows=LENGTHS)


def walked(settings, catalog, root, *, resume=False):
    windows = windows_of(settings, parse_time(START), parse_time(END))
    name, trials = identify(settings, windows, catalog)
    told = []
    tried = walk(
        settings, windows, trials, catalog, root, name=name, resume=resume, told=lambda *progress: told.append(progress)
    )
    return evaluated(settings, name, tried), trials, told


@pytest.fixture(scope="module")
def whole(cluster, catalog, tmp_path_factory):
    """One evaluation to its end: what came of it, its trials, and where it lies."""
    root = tmp_path_factory.mktemp("walk") / "run"
    return (*walked(settings_of(), catalog, root), root)


# --- right --------------------------------------------------------------------------------------


def test_there_are_as_many_trials_as_windows_times_the_grid(whole):
    evaluation, trials, *_ = whole
    assert (evaluation.trials, evaluation.tests, len(evaluation.windows)) == (WINDOWS * 3, WINDOWS, WINDOWS)
    assert len({trial.id for trial in trials}) == len(trials) == WINDOWS * 3
    assert all(one.choice.trials == 3 for one in evaluation.windows)


def test_every_test_is_what_a_backtest_of_the_chosen_settings_is(whole, catalog):
    for one in whole[0].windows:
        tree = BASE | {"start": utc(one.window.test[0])[:10], "end": utc(one.window.test[1])[:10]}
        tree["strategies"] = [
            {"use": f"{swinger}:Swinger", "config": {"every": one.choice.parameters["strategy.every"]}}
        ]
        alone = run_backtest(validated(BacktestSettings, tree), catalog, clock=time.perf_counter)
        assert one.result.result_hash == alone.result_hash
        assert one.result.net == round(alone.pnl.net, 18)


def test_the_headline_is_the_tests_put_together(whole):
    evaluation = whole[0]
    rows = [one.result for one in evaluation.windows]
    assert evaluation.net == sum(row.net for row in rows)
    assert evaluation.trades == sum(row.trades for row in rows) > 0
    assert evaluation.returns == tuple(value for row in rows for value in row.daily_returns)
    assert evaluation.days == WINDOWS
    assert [utc(ts) for ts in evaluation.ts] == [f"2025-01-0{day}T00:00:00Z" for day in (5, 6, 7, 8)]


def test_done_again_it_is_the_same_and_nothing_is_run_twice(whole, catalog, tmp_path):
    evaluation, *_, root = whole
    again, _, told = walked(settings_of(), catalog, root, resume=True)
    assert told == [], "nothing was left to run"
    assert (again.id, again.result_hash) == (evaluation.id, evaluation.result_hash)
    assert again == evaluation
    fresh, _, told = walked(settings_of(), catalog, tmp_path / "elsewhere")
    assert told
    assert fresh.result_hash == evaluation.result_hash


def test_what_was_looked_at_is_counted_once_an_evaluation(whole, catalog):
    evaluation, trials, *_ = whole
    assert (look(evaluation, trials, catalog).evaluations, look(evaluation, trials, catalog).evaluations) == (1, 1)
    other = settings_of(**{"strategy.fails": (False, True)})
    windows = windows_of(other, parse_time(START), parse_time(END))
    name, tried = identify(other, windows, catalog)
    looks = look(evaluated(other, name, evaluation.windows), tried, catalog)
    assert (looks.evaluations, looks.trials) == (2, 2 * WINDOWS * 3)


def test_a_set_that_fails_is_refused_and_never_chosen(cluster, catalog, tmp_path):
    evaluation, *_ = walked(settings_of(**{"strategy.fails": (True, False)}), catalog, tmp_path)
    assert all((one.choice.trials, one.choice.refused) == (6, 3) for one in evaluation.windows)
    assert all(one.choice.parameters["strategy.fails"] is False for one in evaluation.windows)


# --- as a process -------------------------------------------------------------------------------


class Stage:
    """A factory that evaluates, and can be killed and begun anew, on one home."""

    def __init__(self, home, catalog):
        self.home = home
        self.plan = ProcessPlan(home, catalog.root, loopback(1), None)
        self.incarnation = 0
        self.begin()

    def begin(self):
        self.incarnation += 1
        actor = ray.remote(num_cpus=0, max_restarts=0)(ProcessFactoryActor)
        self.factory = actor.remote(self.plan, self.incarnation, definitions=(EVALUATE,), works=WORKS, components={})
        self.pid = ray.get(self.factory.recover.remote()).pid
        ray.get(self.factory.connect.remote({}))

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.02)

    def call(self, method, *arguments):
        try:
            return ray.get(getattr(self.factory, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def until(self, run_id, reached, within=240.0):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            run = self.call("run", run_id)
            if reached(run):
                return run
            assert run.status not in OVER, run
            time.sleep(0.05)
        raise AssertionError(f"{run_id} is {run}")


@pytest.fixture
def stage(cluster, catalog, tmp_path):
    made = Stage(tmp_path, catalog)
    yield made
    ray.kill(made.factory)


def statuses(run):
    return [step.status for step in run.steps]


def at_work(cluster):
    """Processes that evaluate just now."""
    found = []
    for process in ray_cluster.processes(cluster.home):
        with suppress(psutil.Error):
            said = " ".join(process.cmdline())
            if "evaluate: evaluate-" in said or "ray::hean sweep" in said:
                found.append(process)
    return found


def test_a_killed_factory_goes_on_with_the_window_it_was_at_and_the_result_is_the_same(stage, whole):
    run_id = stage.call("request", "evaluate", ARGUMENTS, "monday")
    before = stage.until(run_id, lambda run: statuses(run)[:2] == ["FINISHED", "RUNNING"])
    stage.kill()
    stage.begin()
    run = stage.until(run_id, lambda run: run.status is RunStatus.COMPLETED)
    assert statuses(run) == ["FINISHED"] * (WINDOWS + 1)
    assert run.steps[0].attempts == 1
    assert run.steps[0].ts_ended == before.steps[0].ts_ended, "a finished window is not walked through again"
    found = run.steps[-1].output
    evaluation = whole[0]
    assert found["evaluation"] != "", "it has an id of its own: its settings are written in another way"
    assert [one["result_hash"] for one in found["windows"]] == [one.result.result_hash for one in evaluation.windows]
    assert found["headline"]["trials"] == WINDOWS * 3
    assert float(found["headline"]["net"]) == pytest.approx(float(evaluation.net), abs=1e-9)
    assert "looked at" in found["caution"]
    assert Path(found["report"]).read_text().startswith("<!DOCTYPE html>")


def test_a_cancelled_evaluation_leaves_nobody_at_work_and_goes_on_when_it_is_asked_for_again(stage, cluster):
    slow = ARGUMENTS | {"strategy.waits_s": "1.5", "param.strategy.every": "[25, 50]"}
    run_id = stage.call("request", "evaluate", slow, "slow")
    stage.until(
        run_id, lambda run: statuses(run)[0] == "RUNNING" and any((stage.home / "evaluations").rglob("parts/*.parquet"))
    )
    assert stage.call("cancel", run_id, "ann", "enough").status is RunStatus.CANCELED
    deadline = time.monotonic() + 60
    while at_work(cluster) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert at_work(cluster) == []
    kept = sorted((stage.home / "evaluations").rglob("parts/*.parquet"))
    assert stage.call("request", "evaluate", slow, "slow") == run_id
    stage.until(run_id, lambda run: statuses(run)[0] == "FINISHED")
    assert set(kept) <= set((stage.home / "evaluations").rglob("parts/*.parquet"))
    stage.call("cancel", run_id, "ann", "enough")


# --- the command --------------------------------------------------------------------------------


def command(cluster, catalog, out, *words):
    lengths = [word for name, days in LENGTHS.items() for word in (f"--{name.replace('_', '-')}", str(days))]
    told = [
        *("evaluate", "-s", f"{swinger}:Swinger", "--venue", "SYNTHETIC", "--synthetic", "--json"),
        *("-p", "strategy.every=30:90:13", "--set", "strategy.waits_s=0.3"),
        *("--catalog", str(catalog.root), "--address", cluster.address, "--out", str(out), *lengths, *words),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "from actors.cli import main; main()", *told],
        env={**os.environ, **ray_cluster.environment(cluster.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_evaluation_that_is_interrupted_goes_on_where_it_was(cluster, catalog, tmp_path):
    out = tmp_path / "run"
    first = command(cluster, catalog, out)
    parts = out / "training" / "parts"
    deadline = time.monotonic() + 90
    while first.poll() is None and len(list(parts.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGINT)
    said, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors.decode()
    assert json.loads(said)["interrupted"]
    assert "--resume goes on" in errors.decode()

    kept = {path: path.read_bytes() for path in parts.glob("*.parquet")}
    assert kept
    second = command(cluster, catalog, out, "--resume")
    said, errors = second.communicate(timeout=300)
    assert second.returncode == 0, errors.decode()
    told = json.loads(said)
    assert (told["headline"]["trials"], told["headline"]["tests"], len(told["windows"])) == (
        13 * WINDOWS,
        WINDOWS,
        WINDOWS,
    )
    assert all(path.read_bytes() == content for path, content in kept.items()), "nothing was run again"
    assert "Nothing here corrects for selection" in told["caution"]
    assert "out of sample" in Path(told["report"]).read_text()
