"""The factory as an actor: it is killed, cancelled at and kept waiting, and what it was asked for is done once."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import ray
from typer.testing import CliRunner

from actors.cli_processes import process_app
from actors.gateways.bybit_endpoint import loopback
from actors.process_factory import TABLE, ProcessFactoryActor
from actors.process_steps import ProcessPlan, hosted_id
from actors.shell import Peer
from hean import codec
from hean.errors import ConfigError, HeanError, VenueError
from hean.messages import CancelProcess, Envelope, Fact, ProcessFinished
from hean.processes.built_in import SMOKE_TEST
from hean.processes.definition import Hosting, ProcessDefinition, Step, chosen
from hean.processes.runs import RunStatus
from hean.store.runs import RunTable

S = RunStatus

# What this file defines travels with it: no worker can import a test.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def process(name, *steps):
    return ProcessDefinition(
        name=name,
        version=1,
        about=f"a {name} for a test",
        complete=lambda given, _now: chosen(name, given, []),
        plan=lambda _arguments: list(steps),
    )


def step(name, work, **more):
    return Step(**({"name": name, "work": work, "timeout_s": 30.0, "pause_s": 0.1} | more))


PROCESSES = (
    process("walk", step("one", "mark"), step("two", "slow mark"), step("three", "mark")),
    process("stall", step("only", "stall", timeout_s=3.0, attempts=2)),
    process("fail", step("only", "fail", attempts=2)),
    process("die", step("only", "die")),
    process("odd", step("only", "nobody knows")),
    process("ghost", step("only", "ghost", hosting=Hosting.COMPONENT, timeout_s=5.0)),
    SMOKE_TEST,
)


def mark(errand):
    """Leave a trace of having worked, in the order of working."""
    with (errand.plan.home / "marks").open("a") as marks:
        marks.write(f"{errand.step} {errand.attempt}\n")
    return {"did": errand.step, "after": sorted(errand.inputs)}


def slow_mark(errand):
    (errand.plan.home / "slow").write_text(f"{os.getpid()}\n")
    while not (errand.plan.home / "go").exists():
        time.sleep(0.02)
    return mark(errand)


def stall(errand):
    with (errand.plan.home / "stalled").open("a") as pids:
        pids.write(f"{os.getpid()}\n")
    time.sleep(600)


def fail(errand):
    raise VenueError(f"not today, attempt {errand.attempt}")


def die(_errand):
    os.kill(os.getpid(), signal.SIGKILL)


WORKS = {"mark": mark, "slow mark": slow_mark, "stall": stall, "fail": fail, "die": die}


class Ear:
    """Hears facts, as the monitor does."""

    def __init__(self):
        self.heard = []

    def tell(self, parcel, _sender):
        self.heard += [envelope.message for envelope in codec.envelopes(parcel)]

    def all(self):
        return self.heard


class Stage:
    """A factory that can be killed and begun anew, on one home."""

    def __init__(self, home, name=None):
        self.name = {} if name is None else {"name": name, "namespace": "hean"}
        self.plan = ProcessPlan(home, home / "catalog", loopback(1), None)
        self.home = home
        self.incarnation = 0
        self.ear = ray.remote(num_cpus=0)(Ear).remote()
        self.begin()

    def begin(self, hosts=None, components=None):
        self.incarnation += 1
        self.factory = (
            ray.remote(num_cpus=0, max_restarts=0)(ProcessFactoryActor)
            .options(**self.name)
            .remote(self.plan, self.incarnation, definitions=PROCESSES, works=WORKS, components=components or {})
        )
        recovered = ray.get(self.factory.recover.remote())
        self.pid = recovered.pid
        ray.get(self.factory.connect.remote({"monitor": Peer(self.ear, frozenset(said(Fact)), 1)}, hosts))
        return recovered

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def ask(self, name, key="", **arguments):
        return self.call("request", name, arguments, key)

    def call(self, method, *arguments, **named):
        try:
            return ray.get(getattr(self.factory, method).remote(*arguments, **named))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None

    def until(self, run_id, *statuses, within=60.0):
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            run = self.call("run", run_id)
            if run.status in statuses:
                return run
            time.sleep(0.05)
        raise AssertionError(f"{run_id} is {run}")

    def marks(self):
        path = self.home / "marks"
        return path.read_text().splitlines() if path.exists() else []


def said(mood):
    return [kind.__name__ for kind in codec.spoken(mood)]


@pytest.fixture
def stage(cluster, tmp_path):
    made = Stage(tmp_path)
    yield made
    for actor in (made.factory, made.ear):
        ray.kill(actor)


def wait_for(condition, within=60.0):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def test_a_killed_factory_goes_on_where_it_was_and_repeats_no_finished_step(stage):
    run_id = stage.ask("walk", key="monday")
    wait_for((stage.home / "slow").exists)
    stage.kill()
    assert stage.begin().entries == 1
    (stage.home / "go").touch()
    run = stage.until(run_id, S.COMPLETED)
    assert stage.marks() == ["one 1", "two 2", "three 1"]
    assert [one.output for one in run.steps] == [
        {"did": "one", "after": []},
        {"did": "two", "after": ["one"]},
        {"did": "three", "after": ["two"]},
    ]
    # The same key is the same run: nothing is done again.
    assert stage.ask("walk", key="monday") == run_id
    assert stage.marks() == ["one 1", "two 2", "three 1"]
    heard = ray.get(stage.ear.all.remote())
    assert [(type(one).__name__, one.run_id) for one in heard] == [
        ("ProcessStarted", run_id),
        ("ProcessFinished", run_id),
    ]


def test_a_run_that_is_cancelled_leaves_nothing_at_work(stage):
    run_id = stage.ask("walk")
    wait_for(lambda: (stage.home / "slow").exists() and (stage.home / "slow").read_text().endswith("\n"))
    pid = int((stage.home / "slow").read_text())
    run = stage.call("cancel", run_id, "ann", "changed my mind")
    assert (run.status, run.reason) == (S.CANCELED, "by ann: changed my mind")
    wait_for(lambda: not Path(f"/proc/{pid}").exists())
    (stage.home / "go").touch()
    assert stage.marks() == ["one 1"]
    assert stage.ask("walk", key="other") == "walk@other"
    assert stage.until("walk@other", S.COMPLETED)


def test_a_step_that_takes_too_long_is_ended_and_tried_again_as_often_as_it_may(stage):
    run = stage.until(stage.ask("stall"), S.FAILED)
    assert run.reason == "only: took longer than 3 s, 2 times"
    assert run.steps[0].attempts == 2
    # On a busy machine an attempt may run out of time before its process is there.
    stalled = stage.home / "stalled"
    pids = stalled.read_text().split() if stalled.exists() else []
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_failure_is_told_in_the_words_it_was_raised_with(stage):
    run = stage.until(stage.ask("fail"), S.FAILED)
    assert run.reason == "only: not today, attempt 2, 2 times"


def test_a_step_whose_process_dies_fails_and_the_factory_lives(stage):
    run = stage.until(stage.ask("die"), S.FAILED)
    assert run.reason.startswith("only: its process ended")
    assert stage.call("ping").node == "factory"


def test_a_step_that_nobody_knows_is_started_before_it_fails(stage):
    stage.until(stage.ask("odd"), S.FAILED)
    assert [type(one).__name__ for one in ray.get(stage.ear.all.remote())] == ["ProcessStarted", "ProcessFinished"]


def test_what_makes_no_sense_is_refused_with_the_remedy(stage):
    with pytest.raises(ConfigError, match="there are walk, stall"):
        stage.ask("run")
    with pytest.raises(ConfigError, match="no argument 'fast'"):
        stage.ask("walk", fast="yes")
    with pytest.raises(ConfigError, match="there is no run 'walk-9'"):
        stage.call("run", "walk-9")
    with pytest.raises(ConfigError, match="no engine runs"):
        stage.ask("smoke-test")
    assert stage.call("runs") == []


def test_two_factories_never_keep_one_table(stage):
    with pytest.raises(HeanError, match="another factory"):
        RunTable(stage.home / TABLE)


class Ghosts:
    """Gives components no actor at all, and writes down what it was asked."""

    def __init__(self, home):
        self.home = home

    def start(self, node, component):
        self._note(f"start {node} {component}")

    def tell(self, node, message):
        self._note(f"tell {node} {message.reason}" if isinstance(message, CancelProcess) else f"tell {message}")

    def stop(self, node):
        self._note(f"stop {node}")

    def _note(self, text):
        with (self.home / "ghosts").open("a") as notes:
            notes.write(text + "\n")


def test_a_component_is_over_when_it_says_so_and_its_report_is_kept(stage):
    stage.kill()
    stage.begin(Ghosts(stage.home), {"ghost": lambda errand: f"ghost {errand.attempt}"})
    run_id = stage.ask("ghost")
    over = ProcessFinished(hosted_id(run_id, "only", 1), "completed", {"seen": "nothing"})
    ray.get(stage.factory.tell.remote(codec.letters([Envelope("smoke", 1, 0, "", "", over)]), "smoke@1"))
    run = stage.until(run_id, S.COMPLETED)
    assert run.steps[0].output == {"seen": "nothing"}
    assert (stage.home / "ghosts").read_text() == "start smoke ghost 1\nstop smoke\n"


def test_a_component_whose_run_is_cancelled_is_told_so_and_may_clear_up(stage):
    stage.kill()
    stage.begin(Ghosts(stage.home), {"ghost": lambda errand: f"ghost {errand.attempt}"})
    run_id = stage.ask("ghost")
    stage.call("cancel", run_id, "ann", "enough")
    assert (stage.home / "ghosts").read_text() == "start smoke ghost 1\ntell smoke the run canceled\n"
    over = ProcessFinished(hosted_id(run_id, "only", 1), "failed: ended", {})
    ray.get(stage.factory.tell.remote(codec.letters([Envelope("smoke", 1, 0, "", "", over)]), "smoke@1"))
    assert (stage.home / "ghosts").read_text().endswith("stop smoke\n")
    assert stage.call("run", run_id).status is S.CANCELED


# --- on the command line -------------------------------------------------------------------------


@pytest.fixture
def hean(cluster, tmp_path):
    named = Stage(tmp_path, "factory")

    def command(*words):
        return CliRunner().invoke(process_app, [*words, "--home", str(cluster.home)])

    yield command
    for actor in (named.factory, named.ear):
        ray.kill(actor)


def test_a_process_is_started_watched_and_cancelled_on_the_command_line(hean, tmp_path):
    assert "nothing was run yet" in hean("list").output
    begun = hean("start", "walk", "--key", "k")
    assert (begun.exit_code, begun.output.split()[:2]) == (0, ["walk@k", "RUNNING"])
    wait_for((tmp_path / "slow").exists)
    seen = json.loads(hean("status", "walk@k", "--json").stdout)["run"]
    assert [one["status"] for one in seen["steps"]] == ["FINISHED", "RUNNING", "PENDING"]
    ended = hean("cancel", "walk@k", "--person", "ann", "--reason", "enough")
    assert "CANCELED" in ended.output
    assert "by ann: enough" in ended.output
    (tmp_path / "go").touch()
    assert "COMPLETED" in hean("start", "walk", "--key", "k", "--wait").output
    failed = hean("start", "fail", "--wait")
    assert (failed.exit_code, "not today" in failed.output) == (1, True)
    listed = hean("list").output
    assert listed.index("fail-1") < listed.index("walk@k")
    assert "nothing was found yet" in hean("environment").output


REFUSED = {
    ("start", "run"): "process 'run' is unknown",
    ("start", "walk", "fast"): "'fast' should read name=value",
    ("start", "walk", "a=1", "a=2"): "a is given twice",
    ("start", "walk", "--key", "no way"): "key 'no way'",
    ("status", "walk-7"): "there is no run 'walk-7'",
    ("cancel", "walk-7", "--reason", "x"): "there is no run 'walk-7'",
}


def test_what_the_command_line_cannot_do_is_said_in_one_line(hean):
    for words, says in REFUSED.items():
        answer = hean(*words)
        assert answer.exit_code == 1, words
        (line,) = [line for line in answer.stderr.splitlines() if line.strip()]
        assert says in line


def test_without_an_engine_the_command_line_says_how_to_start_one(cluster, tmp_path):
    for home, says in ((cluster.home, "no engine runs here"), (tmp_path, "Ray is not running")):
        answer = CliRunner().invoke(process_app, ["list", "--home", str(home)])
        assert answer.exit_code == 1
        assert says in answer.stderr
        assert "hean up" in answer.stderr
