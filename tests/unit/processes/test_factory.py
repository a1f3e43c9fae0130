import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.errors import ConfigError, ContractError
from hean.messages import CancelProcess, ProcessRequested
from hean.processes.definition import AfterCrash, Taken, chosen, must_be_key, steps_of
from hean.processes.factory import INTERRUPTIONS, REMEMBERED, Decided, ProcessFactory, StartStep, StepEnded
from hean.processes.runs import MAY_BECOME, AttemptStatus, Run, RunStatus
from hean.units import SECOND
from tests.unit.processes.stage import Told, definition, step

S = RunStatus
CANCEL = CancelProcess("r", "ann", "no longer needed")


def told(*steps, **more):
    return Told(definition(*(steps or (step("a"), step("b"))), **more))


# --- the way of a run ----------------------------------------------------------------------------


def test_steps_are_worked_one_after_the_other_and_each_hears_what_the_one_before_found():
    stage = told()
    assert stage.ask().starts == [("a", 1)]
    assert stage.facts == ["p"]
    stage.ended("a", output={"found": 7})
    (start,) = stage.said
    assert isinstance(start, StartStep)
    assert (start.step.name, start.inputs) == ("b", {"a": {"found": 7}})
    assert stage.ended("b", output=None).facts == ["completed"]
    assert stage.status() is S.COMPLETED


def test_steps_that_need_nothing_of_one_another_are_worked_side_by_side():
    stage = told(step("a", needs=()), step("b", needs=()), step("c", needs=("a", "b")))
    assert stage.ask().starts == [("a", 1), ("b", 1)]
    assert stage.ended("b").starts == []
    assert stage.ended("a").starts == [("c", 1)]


def test_a_step_that_failed_is_tried_again_after_its_pause_and_as_often_as_it_may_be():
    stage = told(step("a", attempts=2, pause_s=5.0))
    assert stage.ask().ended("a", failure="busy").starts == []
    assert stage.status() is S.WAITING
    assert stage.factory.wake_at() == stage.now + 5 * SECOND
    assert stage.wake(4).starts == []
    assert stage.wake(1).starts == [("a", 2)]
    assert stage.ended("a", 2, failure="busy still").facts == ["failed: a: busy still, 2 times"]
    assert stage.status() is S.FAILED


def test_a_step_that_takes_too_long_is_stopped_and_its_late_answer_is_not_heard():
    stage = told(step("a", attempts=2, timeout_s=3.0))
    stage.ask()
    assert stage.factory.wake_at() == stage.now + 3 * SECOND
    assert stage.wake(3).stops == [("a", 1)]
    assert stage.ended("a", 1, output="late").said == []
    assert stage.wake(1).starts == [("a", 2)]
    assert stage.ended("a", 2).facts == ["completed"]


def test_what_fails_stops_what_is_worked_beside_it():
    stage = told(step("a", needs=()), step("b", needs=()))
    assert stage.ask().ended("a", failure="no").stops == [("b", 1)]
    assert stage.facts == ["failed: a: no"]
    assert stage.ended("b").said == []


def test_a_run_that_is_cancelled_stops_at_once_and_says_who_wanted_it():
    stage = told()
    assert stage.ask().tell(CANCEL).stops == [("a", 1)]
    assert stage.facts == ["canceled: by ann: no longer needed"]
    assert stage.tell(CANCEL).said == []


def test_a_run_waits_for_another_of_its_kind():
    stage = told(step("a"))
    stage.ask("r")
    assert stage.ask("s").said == []
    assert stage.status("s") is S.PENDING
    assert stage.ended("a").facts == ["completed", "p"]
    assert stage.starts == [("a", 1)]
    assert stage.status("s") is S.RUNNING


def test_runs_that_may_be_side_by_side_are():
    stage = told(step("a"), alone=False)
    assert stage.ask("r").starts == [("a", 1)]
    assert stage.ask("s").starts == [("a", 1)]


def test_what_is_asked_for_twice_is_done_once():
    stage = told()
    stage.ask()
    assert stage.ask().said == []
    stage.ended("a")
    stage.ended("b")
    assert stage.ask().said == []


def test_a_run_that_failed_and_is_asked_for_again_goes_on_where_it_failed():
    stage = told()
    stage.ask().ended("a", output=1)
    stage.ended("b", failure="no")
    assert stage.ask().starts == [("b", 2)]
    assert stage.ended("b", 2).facts == ["completed"]


def test_a_step_is_done_again_where_what_it_is_done_with_has_changed():
    stage = told()
    stage.ask().ended("a", output=1)
    stage.tell(CANCEL)
    run = stage.run()
    run.attempts[0].output = 2  # as nothing of ours does
    run.attempts[1].status = AttemptStatus.FINISHED
    assert stage.ask().starts == [("b", 2)]


# --- what cannot be asked for --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (ProcessRequested("q", "r", {}), "process 'q' is unknown: there are p"),
        (ProcessRequested("p", "r", {"colour": "red"}), "no argument 'colour': there are word"),
        (CancelProcess("nobody", "ann", "why not"), "no run 'nobody'"),
        (Decided("nobody", "ann", "why not", again=True), "no run 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(message, word):
    stage = told()
    with pytest.raises(ConfigError, match=re.escape(word)):
        stage.tell(message)
    assert stage.factory.state.runs == {}
    assert stage.factory.changes() == []


def test_a_run_that_is_over_cannot_be_cancelled():
    stage = told(step("a"))
    stage.ask().ended("a")
    with pytest.raises(ConfigError, match="is over already: COMPLETED"):
        stage.tell(CANCEL)


@pytest.mark.parametrize(("person", "reason"), [("", "why"), ("ann", "  ")])
def test_nobody_cancels_without_name_and_reason(person, reason):
    stage = told()
    stage.ask()
    with pytest.raises(ConfigError, match="a person and a reason"):
        stage.tell(CancelProcess("r", person, reason))
    assert stage.status() is S.RUNNING


def test_one_key_stands_for_one_set_of_arguments():
    stage = told()
    stage.ask(word="one")
    with pytest.raises(ConfigError, match="was asked for as p with word=one"):
        stage.ask(word="other")


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ([], "has nothing to do"),
        ([step("a"), step("a")], "a name of its own"),
        ([step("a", needs=("b",)), step("b")], "needs b: a step comes after"),
        ([step("a", timeout_s=0)], "must be above 0"),
        ([step("a", attempts=0)], "must be above 0"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(steps, word):
    with pytest.raises(ConfigError, match=word):
        steps_of(definition(*steps), {})


def test_an_argument_that_must_be_given_is_asked_for_by_name():
    with pytest.raises(ConfigError, match="strategy must be given, as strategy=VALUE"):
        chosen("backtest", {}, [Taken("strategy", None, "")])


@pytest.mark.parametrize("key", ["", "with space", "a/b", "é", "x" * 65, "-first"])
def test_a_key_is_of_plain_letters(key):
    with pytest.raises(ConfigError, match="key"):
        must_be_key(key)


# --- the table of the lifecycle ------------------------------------------------------------------


@pytest.mark.parametrize("was", list(RunStatus))
@pytest.mark.parametrize("wanted", list(RunStatus))
def test_a_run_becomes_what_the_table_allows_and_nothing_else(was, wanted):
    run = Run("r", "p", 1, {}, {}, 0, status=was)
    if wanted is was or wanted in MAY_BECOME[was]:
        run.become(wanted)
        assert run.status is wanted
    else:
        with pytest.raises(ContractError, match=f"is {was} and cannot become {wanted}"):
            run.become(wanted)


def at(status):
    """A run that has come to a status, and a second behind it."""
    stage = told(step("a", attempts=2), step("b", needs=("a",)))
    if status is S.PENDING:
        return stage.ask("other").ask()
    stage.ask()
    if status is S.WAITING:
        stage.ended("a", failure="busy")
    elif status is S.COMPLETED:
        stage.ended("a").ended("b")
    elif status is S.FAILED:
        stage.ended("a").ended("b", failure="no")
    elif status is S.CANCELED:
        stage.tell(CANCEL)
    return stage


CELLS = {
    # asked again, ended well, ended badly, cancelled, time goes on by 5 s
    S.PENDING: (S.PENDING, S.PENDING, S.PENDING, S.CANCELED, S.PENDING),
    S.RUNNING: (S.RUNNING, S.RUNNING, S.WAITING, S.CANCELED, S.RUNNING),
    S.WAITING: (S.WAITING, S.WAITING, S.WAITING, S.CANCELED, S.RUNNING),
    S.COMPLETED: (S.COMPLETED, S.COMPLETED, S.COMPLETED, None, S.COMPLETED),
    S.FAILED: (S.RUNNING, S.FAILED, S.FAILED, None, S.FAILED),
    S.CANCELED: (S.RUNNING, S.CANCELED, S.CANCELED, S.CANCELED, S.CANCELED),
}


@pytest.mark.parametrize("status", list(RunStatus))
def test_every_message_in_every_status(status):
    messages = [
        lambda stage: stage.ask(),
        lambda stage: stage.ended("a"),
        lambda stage: stage.ended("a", failure="no"),
        lambda stage: stage.tell(CANCEL),
        lambda stage: stage.wake(5),
    ]
    for message, expected in zip(messages, CELLS[status], strict=True):
        stage = at(status)
        assert stage.status() is status
        if expected is None:
            with pytest.raises(ConfigError):
                message(stage)
        else:
            assert message(stage).status() is expected


# --- after a crash -------------------------------------------------------------------------------


def test_a_successor_goes_on_with_the_step_that_was_broken_off():
    stage = told()
    stage.ask().ended("a", output=1)
    assert stage.reborn().starts == [("b", 2)]
    assert stage.ended("b", 1, output="from the grave").said == []
    assert stage.ended("b", 2).facts == ["completed"]


def test_a_pause_is_kept_to_by_the_successor():
    stage = told(step("a", attempts=2, pause_s=60.0))
    stage.ask().ended("a", failure="busy")
    assert stage.reborn(later_s=10).starts == []
    assert stage.status() is S.WAITING
    assert stage.wake(50).starts == [("a", 2)]


def test_a_step_that_only_a_person_can_judge_waits_for_one():
    stage = told(step("a", after_crash=AfterCrash.ASK))
    assert stage.ask().reborn().starts == []
    assert stage.status() is S.WAITING
    assert "a person" in stage.factory.view(stage.run()).waits_for
    assert stage.reborn().starts == []
    assert stage.tell(Decided("r", "ann", "nothing was sent", again=True)).starts == [("a", 2)]
    assert stage.wake(10).stops == [("a", 2)]
    assert stage.tell(Decided("r", "ann", "enough", again=False)).facts == ["failed: a given up by ann: enough"]


def test_two_steps_that_wait_for_a_person_wait_both():
    stage = told(*(step(name, needs=(), after_crash=AfterCrash.ASK) for name in "ab"))
    stage.ask().reborn()
    assert stage.starts == []
    assert stage.tell(Decided("r", "ann", "look", again=True)).starts == [("a", 2)]
    assert stage.tell(Decided("r", "ann", "look", again=True)).starts == [("b", 2)]


def test_nobody_is_asked_for_a_decision_twice():
    stage = told()
    stage.ask()
    with pytest.raises(ConfigError, match="waits for nobody's decision"):
        stage.tell(Decided("r", "ann", "why", again=True))


def test_a_step_that_seems_to_kill_whoever_watches_is_given_up():
    stage = told(step("a"))
    stage.ask()
    for number in range(INTERRUPTIONS):
        assert stage.reborn().starts == [("a", number + 2)]
    assert stage.reborn().facts == [f"failed: a: the factory was begun anew, {INTERRUPTIONS + 1} times"]


def test_two_broken_steps_end_their_run_once():
    stage = told(step("a", needs=()), step("b", needs=()))
    stage.ask()
    for _ in range(INTERRUPTIONS):
        stage.reborn()
    assert len(stage.reborn().facts) == 1
    assert not stage.run().running()


def test_a_run_of_another_version_is_not_gone_on_with():
    stage = told(step("a"))
    assert stage.ask().reborn(definition(step("a"), version=2)).facts == [
        "failed: begun with version 1, and this HEAN has version 2: ask anew"
    ]
    with pytest.raises(ConfigError, match="give another key"):
        stage.ask()


def test_a_run_of_a_process_that_is_no_more_fails_and_can_still_be_seen():
    stage = told(step("a"))
    assert stage.ask().reborn(definition(step("z"), name="q")).facts == [
        "failed: begun with version 1, and this HEAN has no such process: ask anew"
    ]
    (view,) = stage.factory.views()
    assert [(one.name, one.status) for one in view.steps] == [("a", "INTERRUPTED")]


def test_runs_that_are_long_over_leave_memory():
    stage = told(step("a"))
    for number in range(REMEMBERED + 3):
        stage.ask(f"r{number}").ended("a", run_id=f"r{number}")
        stage.factory.changes()
    assert len(stage.factory.state.runs) == REMEMBERED
    assert "r0" not in stage.factory.state.runs


# --- any crash at any point ----------------------------------------------------------------------


class World:
    """What steps do to the world, and a shell that keeps, starts and hears as the real one does; it may die in between.

    Effects are what a step looks for when it is not the first attempt: it does not do twice what it finds done.
    """

    def __init__(self, plan, crashes):
        self.plan = plan
        self.kept = {}
        self.effects = []
        self.finished = set()
        self.started_after_finish = []
        self.crashes = crashes
        self.now = 0
        self.facts = []

    def dies(self):
        return bool(self.crashes) and self.crashes.pop(0)

    def live(self):
        """One life of a factory; True when there is nothing left to do."""
        factory = ProcessFactory([self.plan])
        self.now += SECOND
        inbox = []
        kept = [copied(run) for run in self.kept.values()]
        said = list(factory.resume(kept, self.now))
        asked = False
        while True:
            if self.dies():
                return False  # before anything is kept
            for run in factory.changes():
                self.kept[run.run_id] = copied(run)
                self.finished |= {
                    (run.run_id, one.step) for one in run.attempts if one.status is AttemptStatus.FINISHED
                }
            if self.dies():
                return False  # kept, and not done
            for one in said:
                if isinstance(one, StartStep):
                    name = (one.run_id, one.step.name)
                    if name in self.finished:
                        self.started_after_finish.append(name)
                    if one.attempt == 1 or name not in self.effects:
                        self.effects.append(name)
                    inbox.append(StepEnded(one.run_id, one.step.name, one.attempt, output=one.step.name))
                    if self.dies():
                        return False  # done, and not heard of
            if inbox:
                said = list(factory.handle(inbox.pop(), self.now))
            elif not asked:
                asked = True
                said = list(factory.handle(ProcessRequested("p", "r", {}), self.now))
            else:
                return True


def copied(run):
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(run), type=Run)


PLANS = [
    (step("a"), step("b"), step("c")),
    (step("a", needs=()), step("b", needs=()), step("c", needs=("a", "b"))),
    (step("a"), step("b", needs=("a",)), step("c", needs=("a",)), step("d", needs=("b", "c"))),
]


@given(plan=st.sampled_from(PLANS), crashes=st.lists(st.booleans(), max_size=30))
def test_whenever_it_dies_a_finished_step_is_not_worked_again_and_an_unfinished_one_is_not_lost(plan, crashes):
    world = World(definition(*plan), crashes)
    for _ in range(40):
        if world.live() and world.kept and all(run.is_over for run in world.kept.values()):
            break
    (run,) = world.kept.values()
    assert world.started_after_finish == []
    if run.status is S.COMPLETED:
        assert sorted(world.effects) == sorted(("r", one.name) for one in plan)
    else:
        # Only where crashes hit one step over and over is it given up.
        assert run.status is S.FAILED
        assert max(run.interruptions.values()) > INTERRUPTIONS
