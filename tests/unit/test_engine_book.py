"""What the engine never forgets: no number twice, and what a person wanted."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.arming import Bond, Lease
from hean.errors import JournalError
from hean.messages import SwitchStrategy
from hean.store.engine_book import Change, Death, EngineBook, lease_in


@pytest.fixture
def path(tmp_path):
    return tmp_path / "engine.db"


@pytest.fixture
def book(path):
    one = EngineBook(path, Random(1))
    yield one
    one.close()


def test_the_tag_of_orders_is_drawn_once(path, book):
    again = EngineBook(path, Random(2))
    assert again.tag == book.tag
    assert len(book.tag) == 3
    again.close()


@given(st.lists(st.tuples(st.sampled_from(["core", "churn"]), st.integers(0, 30)), max_size=20))
def test_no_number_is_given_twice_and_each_is_above_what_others_gave(tmp_path_factory, asked):
    book = EngineBook(tmp_path_factory.mktemp("book") / "engine.db", Random(1))
    given_before = 0
    for node, above in asked:
        life = book.begin(node, "why", 1, above=above)
        assert life > max(given_before, above)
        given_before = life
    book.close()


_BEGINNER = """
import sys
from pathlib import Path
from random import Random
from hean.store.engine_book import EngineBook
book = EngineBook(Path(sys.argv[1]), Random(1))
while True:
    print(book.begin("core", "why", 1), flush=True)
"""


def test_a_number_that_was_seen_is_not_given_again_after_a_kill(path):
    root = Path(__file__).resolve().parents[2]
    seen = []
    for _ in range(3):
        engine = subprocess.Popen([sys.executable, "-c", _BEGINNER, path], stdout=subprocess.PIPE, text=True, cwd=root)
        seen.append(int(engine.stdout.readline()))
        time.sleep(0.05)
        engine.kill()
        seen += [int(line) for line in engine.stdout.read().split()]
        engine.wait()
        engine.stdout.close()
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


def test_a_life_that_ended_without_a_word_is_known(book):
    assert book.interrupted() is None
    life = book.begin("core", "started", 1)
    book.begin("churn", "it died", 2)
    assert book.interrupted() == life
    book.end(life, "in order")
    assert book.interrupted() is None


def test_what_a_person_wants_outlives_the_engine(path, book):
    assert book.wants()
    assert not book.wants_flat()
    book.want(trade=False, flat=True)
    again = EngineBook(path, Random(1))
    assert (again.wants(), again.wants_flat()) == (False, True)
    again.want(trade=False)
    assert (book.wants(), book.wants_flat()) == (False, False)
    again.want(trade=True)
    assert (book.wants(), book.wants_flat()) == (True, False)
    again.close()


def test_deaths_are_counted_by_node_and_told_since_a_time(book):
    for ts, node in enumerate(("risk", "broker", "risk")):
        book.died(Death(ts, node, "killed"))
    assert [(one.ts, one.node) for one in book.deaths(1)] == [(1, "broker"), (2, "risk")]
    assert book.restarts() == {"broker": 1, "risk": 2}


def test_the_account_is_opened_once(book):
    assert book.opened(5) == 5
    assert book.opened(9) == 5


def test_a_recovery_that_never_came_is_not_nought(book):
    assert book.recovery() is None
    book.recovered(3, 1.5, 1)
    assert book.recovery() == 1.5


def test_a_damaged_book_is_named(path):
    path.write_bytes(b"rubbish" * 1000)
    with pytest.raises(JournalError, match=r"engine\.db: file is not a database: move it away"):
        EngineBook(path, Random(1))


def test_a_full_disk_is_said_to_be_full(path, book):
    book._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(JournalError, match=r"engine\.db: database or disk is full"):
        book.died(Death(1, "risk", "x" * 100_000))


def test_a_table_that_is_gone_is_a_journal_error(path, book):
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE lives")
    db.close()
    with pytest.raises(JournalError, match="no such table"):
        book.begin("core", "started", 1)


def test_a_lease_is_kept_until_it_is_taken_back_and_others_can_read_it(path, book):
    first = Lease(Bond("s1", "a1"), "ada", 10, 20)
    second = Lease(Bond("s2", "a1"), "bob", 11, 21)
    assert lease_in(path) is None
    assert book.lease() is None
    book.grant(first)
    book.grant(second)
    assert book.lease() == lease_in(path) == second
    book.revoke("the settings changed")
    assert book.lease() is None
    assert lease_in(path) is None
    book.grant(first)
    assert lease_in(path) == first


def test_no_book_has_no_lease_and_a_damaged_one_is_not_taken_for_that(tmp_path):
    assert lease_in(tmp_path / "none.db") is None
    (tmp_path / "damaged.db").write_bytes(b"not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(JournalError, match="damaged"):
        lease_in(tmp_path / "damaged.db")


def test_what_persons_changed_is_kept_in_its_order(path, book):
    changes = [Change(at, "churn", "every_s", "1.0", "2.0", "ada", "calmer") for at in (2, 1)]
    for change in changes:
        book.changed(change)
    assert book.changes() == changes


def test_the_last_word_on_each_strategy_that_was_switched_outlives_the_engine(path, book):
    off, on = (SwitchStrategy("churn", turned, "ada", "why") for turned in (False, True))
    other = SwitchStrategy("basis", False, "bob", "x")
    for said in (off, other, on):
        book.switch(said)
    book.close()
    again = EngineBook(path, Random(2))
    assert again.switches() == [other, on]
    again.close()
