import sqlite3

import pytest

from hean.errors import JournalError
from hean.messages import ProcessRequested
from hean.processes.definition import ProcessDefinition, Step, Taken, chosen
from hean.processes.factory import ProcessFactory, StepEnded
from hean.processes.runs import RunStatus
from hean.store.runs import RunTable


def factory():
    steps = [Step(name=name, work=name, timeout_s=10.0, attempts=2) for name in ("a", "b")]
    plan = ProcessDefinition(
        name="p",
        version=3,
        about="",
        complete=lambda given, _now: chosen("p", given, [Taken("word", "usual", "")]),
        plan=lambda _: steps,
    )
    return ProcessFactory([plan])


def play(table, run_id, *ended, start=1):
    """A run as far as some answers bring it, kept after each as the actor does."""
    deciding = factory()
    messages = [ProcessRequested("p", run_id, {}), *(StepEnded(run_id, *one) for one in ended)]
    for now, message in enumerate(messages, start):
        list(deciding.handle(message, now))
        table.keep(deciding.changes())
    return deciding.state.runs[run_id]


def test_a_run_is_read_as_it_was_kept(tmp_path):
    with RunTable(tmp_path / "home" / "processes.db") as table:
        run = play(table, "r", ("a", 1, None, "busy"), ("a", 1, None, "late"))
        assert run.due
        assert table.unfinished() == [run]
    with RunTable(tmp_path / "home" / "processes.db") as table:
        assert table.run("r") == run
        assert table.run("s") is None


def test_what_is_over_is_no_longer_unfinished(tmp_path):
    with RunTable(tmp_path / "processes.db") as table:
        done = play(table, "done", ("a", 1, {"rows": [1, None]}), ("b", 1, "x"))
        open_ = play(table, "open", ("a", 1, 1), start=10)
        assert done.status is RunStatus.COMPLETED
        assert table.unfinished() == [open_]
        assert table.newest(5) == [done]
        assert table.count("p") == 2
        assert table.count("q") == 0


def test_the_newest_runs_come_oldest_first(tmp_path):
    with RunTable(tmp_path / "processes.db") as table:
        for number in range(4):
            play(table, f"r{number}", ("a", 1, 1), ("b", 1, 1), start=10 * number)
        assert [run.run_id for run in table.newest(2)] == ["r2", "r3"]


def test_anybody_can_read_the_table_with_sql(tmp_path):
    with RunTable(tmp_path / "processes.db") as table:
        play(table, "r", ("a", 1, {"rows": 7}))
        with sqlite3.connect(tmp_path / "processes.db") as db:
            rows = db.execute("SELECT step, attempt, status, output, t0, t1 FROM steps ORDER BY t0, step").fetchall()
        db.close()
    assert rows == [("a", 1, "FINISHED", '{"rows":7}', 1, 2), ("b", 1, "RUNNING", "null", 2, None)]


def test_a_second_factory_is_told_to_wait(tmp_path):
    with RunTable(tmp_path / "processes.db"), pytest.raises(JournalError, match="another factory"):
        RunTable(tmp_path / "processes.db")


@pytest.mark.parametrize("content", [b"no database at all, and long enough to be looked at" * 30])
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path, content):
    (tmp_path / "processes.db").write_bytes(content)
    with pytest.raises(JournalError, match=r"processes\.db"):
        RunTable(tmp_path / "processes.db")


def test_a_table_of_a_later_hean_is_left_alone(tmp_path):
    path = tmp_path / "processes.db"
    RunTable(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(JournalError, match="format 9, and not 1"):
        RunTable(path)
