"""A journal told again: the same to the byte, or the first thing that is not."""

import sqlite3
from decimal import Decimal

import pytest

from actors.replay import replay, told_again
from actors.shell import ComponentActor, Seat
from hean import codec
from hean.engine_settings import EngineSettings, SupervisionConfig, VenueMode
from hean.errors import JournalError
from hean.messages import AdjustBooks, Envelope, NodeStarted, StartTrading
from hean.settings import StrategySettings
from tests.unit.portfolio.books import INSTRUMENTS, PERP, SPOT, fill

SETTINGS = EngineSettings(
    strategies=(StrategySettings(use="funding-harvester", config={"name": "carry", "perp": PERP, "spot": SPOT}),),
    supervision=SupervisionConfig(snapshot_every=4),
)


class Node:
    """The portfolio's shell, as an actor would be, without anybody to speak to."""

    def __init__(self, home, life, settings=SETTINGS):
        self.actor = ComponentActor()
        self.actor.recover(Seat("portfolio", home, settings, INSTRUMENTS, "tag", life, life))
        self.said = 0

    def hears(self, *messages, source="broker@1"):
        for message in messages:
            self.said += 1
            self.actor.tell(codec.letters([Envelope(source, self.said, 1, "", "", message)]), source)

    def dies(self):
        """As by SIGKILL: nothing more is written."""
        self.actor.log.close()
        self.actor._journal._unwritten = None
        self.actor._journal.close()

    def rests(self):
        self.actor.rest()
        self.actor.log.close()


def trades(number, start=0):
    sides = ("0.5", "-0.2", "-0.3")
    for n in range(start, start + number):
        yield fill(PERP if n % 2 else SPOT, sides[n % 3], 50_000 + n, strategy="carry", fee="0.1", trade_id=f"t{n}")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journals" / "portfolio.db"


@pytest.fixture
def opened():
    return AdjustBooks("open", "", "", "USDT", Decimal(10_000), Decimal(1), "opening")


def test_a_journal_told_again_says_and_becomes_the_same(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, NodeStarted("core"), *trades(9))
    node.dies()
    again = Node(tmp_path, 2)
    again.hears(*trades(5, start=9), source="broker@2")
    again.rests()

    found = replay(path)
    assert found.difference == ""
    assert (found.node, found.entries, found.lives) == ("portfolio", 16, 2)
    assert found.snapshots >= 4
    assert found.messages > 16


def test_it_is_told_again_while_it_is_being_written(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(6))

    found = replay(path)
    assert found.difference == ""
    assert found.entries == 7
    node.hears(*trades(1, start=6))
    node.rests()


def test_only_what_came_after_the_newest_snapshot(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(5))
    assert replay(path, from_newest=True).entries == 2
    node.rests()
    assert replay(path, from_newest=True).entries == 0


def test_a_life_of_other_settings_is_told_by_them(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(6))
    node.dies()
    other = Node(tmp_path, 2, SETTINGS.model_copy(update={"capital": Decimal(5)}))
    other.hears(*trades(2, start=6), source="broker@2")
    other.rests()

    assert replay(path).difference == ""


def _alter(path, statement, *values):
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def test_what_was_said_otherwise_is_named(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(9))
    node.rests()
    with sqlite3.connect(path) as db:
        n, parcel = db.execute("SELECT n, parcel FROM said ORDER BY n DESC").fetchone()
    db.close()
    said = codec.envelopes(parcel)
    other = Envelope(said[0].source, 99, *(getattr(said[0], name) for name in ("ts_init", "trace", "cause", "message")))
    _alter(path, "UPDATE said SET parcel = ? WHERE n = ?", codec.letters([other, *said[1:]]), n)

    found = replay(path)
    assert not found.is_same
    assert found.difference == f"entry {n}, message 1: {type(said[0].message).__name__}.seq was 99, is {said[0].seq}"


def test_what_was_never_said_is_named(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(9))
    node.rests()
    _alter(path, "DELETE FROM said WHERE n = 8")

    assert "entry 8: it says" in replay(path).difference


def test_a_state_that_is_not_the_same_is_named_by_its_field(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(9))
    state = node.actor.component.state
    node.rests()
    kept = codec.decoded(type(state), codec.encoded(state))
    kept.marks["X"] = 1.0
    with sqlite3.connect(path) as db:
        (n,) = db.execute("SELECT max(n) FROM snapshots").fetchone()
    db.close()
    _alter(path, "UPDATE snapshots SET state = ? WHERE n = ?", codec.encoded(kept), n)

    assert replay(path).difference == f"snapshot after entry {n}: state.marks.X is gone"


def test_the_component_of_a_journal_is_as_it_was_left(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(10))
    left = codec.encoded(node.actor.component.state)
    node.dies()

    assert codec.encoded(told_again(path).component.state) == left


def test_a_component_that_dies_of_an_entry_is_as_it_was_before_it(tmp_path, path, opened):
    node = Node(tmp_path, 1)
    node.hears(opened, *trades(10))
    left = codec.encoded(node.actor.component.state)
    poison = [Envelope("nobody", n, 1, "", "", one) for n, one in enumerate([*trades(1, start=99), StartTrading()], 1)]
    node.actor._journal.tell(1, 2, codec.letters(poison))
    node.dies()

    assert codec.encoded(told_again(path).component.state) == left


def test_what_keeps_no_words_cannot_be_told_again(tmp_path):
    settings = SETTINGS.model_copy(update={"venue": VenueMode.PAPER})
    actor = ComponentActor()
    actor.recover(Seat("venue", tmp_path, settings, INSTRUMENTS, "tag", 1, 1))
    actor.rest()
    actor.log.close()

    with pytest.raises(JournalError, match="not all it was told"):
        replay(tmp_path / "journals" / "venue.db")


def test_there_is_no_such_journal(tmp_path):
    with pytest.raises(JournalError, match="no such journal"):
        replay(tmp_path / "none.db")
