"""The engine where nothing can be begun: it says why, keeps its word, and does not look alive."""

import time

import pytest

from actors.engine import SETTINGS, EngineActor
from actors.heartbeat import last_beat
from actors.places import LATCH, read_settings, write_settings
from actors.words import Phase
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError, HeanError, JournalError
from hean.store.engine_book import Death
from tests.ray.stage import BUSY

TREE = {**BUSY, "venue": "paper", "endpoint": "http://127.0.0.1:9"}


@pytest.fixture
def begin(tmp_path):
    """Begin an engine in this process, for which there is no venue."""
    made = []

    def begun(**supervision):
        switch = {"risk": {"kill_switch": {"max_deaths": 3}}, "supervision": supervision}
        write_settings(tmp_path / SETTINGS, EngineSettings.model_validate({**TREE, **switch}))
        made.append(EngineActor(str(tmp_path)))
        return made[-1]

    yield begun
    for engine in made:
        assert engine.shutdown()
        engine._book.close()
        engine.log.close()


def wait(engine, until, seconds=10):
    limit = time.monotonic() + seconds
    while not until(status := engine.status()):
        assert time.monotonic() < limit, status
        time.sleep(0.02)
    return status


def test_it_says_why_it_cannot_begin(begin):
    status = wait(begin(), lambda status: status.blocked)
    assert "http://127.0.0.1:9 does not say its rules" in status.blocked[0]
    assert (status.phase, status.trading, status.equity) == (Phase.STARTING, None, None)


def test_an_engine_that_dies_again_and_again_stays_down(begin, tmp_path):
    engine = begin()
    wait(engine, lambda status: status.blocked)
    life = engine._book.begin("core", "started", 1)
    for _ in range(5):
        engine._book.died(Death(time.time_ns(), "engine", "killed"))
    successor = begin()  # the life before did not end in order
    status = wait(successor, lambda status: status.phase is Phase.STOPPED)
    assert "6 deaths" in status.blocked[0]
    assert (tmp_path / LATCH).exists()

    assert successor.shutdown()
    assert successor._book.interrupted() is None, f"life {life} was ended by a person"
    again = begin()  # who begins it now has looked into it
    assert "does not say its rules" in wait(again, lambda status: status.blocked).blocked[0]


def test_an_engine_that_cannot_begin_falls_silent_in_the_end(begin, tmp_path):
    begin(ready_s=0.5)
    limit = time.monotonic() + 20
    while (beat := last_beat(tmp_path)) is None or time.time_ns() - beat.ts < 3_000_000_000:
        assert time.monotonic() < limit, "it goes on beating"
        time.sleep(0.1)
    assert beat.exposed is None, "what is held is not known"


def test_a_kill_is_latched_even_where_nothing_can_be_noted(begin, tmp_path):
    engine = begin()
    engine._book._do("PRAGMA max_page_count = 1")
    engine._book._do("CREATE TEMP TRIGGER full BEFORE INSERT ON about BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    with pytest.raises(JournalError, match="disk is full"):
        engine.kill("ann", "a test")
    assert "ann" in (tmp_path / LATCH).read_text()
    engine._book._do("DROP TRIGGER full")


def test_the_kill_switch_is_not_said_to_be_put_back_where_nobody_hears(begin):
    engine = begin()
    with pytest.raises(HeanError, match="stays pulled: the engine is STARTING"):
        engine.reset("ann", "a test")


def test_what_was_asked_for_while_nobody_heard_is_not_forgotten(begin):
    engine = begin()
    assert "once it is at work" in engine.stop(flatten=True)
    assert engine._book.wants_flat()
    engine.start()
    assert not engine._book.wants_flat()


@pytest.mark.parametrize("left", [b"", b'{"venue": "pap', b"\xff\xfe"])
def test_settings_that_were_half_written_are_named(tmp_path, left):
    path = tmp_path / SETTINGS
    path.write_bytes(left)
    with pytest.raises(ConfigError, match=r"settings\.json cannot be read .*`hean up` writes it anew"):
        read_settings(path)


def test_settings_are_written_whole_by_however_many(tmp_path):
    path = tmp_path / SETTINGS
    settings = EngineSettings.model_validate(TREE)
    write_settings(path, settings)
    write_settings(path, settings)
    assert read_settings(path) == settings
    assert list(tmp_path.iterdir()) == [path]
