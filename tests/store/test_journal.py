"""The journal of one node: what was written is there, whatever happened to its writer; what cannot be read is said to be so."""

import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.errors import JournalError
from hean.store.journal import FORMAT, Journal, JournalReader


def begun(path, **options):
    journal = Journal(path, "risk", **options)
    journal.begin(1, 1, b"built")
    return journal


def parcels(told):
    return [(one.n, one.parcel) for one in told]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journals" / "risk.db"


# --- what is kept ---------------------------------------------------------------------------------


def test_what_was_told_is_told_again_in_order(path):
    with begun(path) as journal:
        for number in range(3):
            journal.tell(1, number, b"%d" % number if number != 1 else None)
    with Journal(path, "risk") as again:
        assert parcels(again.after(0)) == [(1, b"0"), (2, None), (3, b"2")]
        assert parcels(again.after(2)) == [(3, b"2")]


def test_what_was_said_last_is_written_at_the_end_or_told_again(path):
    with begun(path) as journal:
        journal.tell(1, 1, b"a")
        journal.said(b"on a")
        journal.tell(1, 2, b"b")
        assert list(journal.said_before(2)) == [(1, b"on a")]
        journal.said(b"on b")
    with Journal(path, "risk") as again:
        assert [parcel for _, parcel in again.said_before(2)] == [b"on a", b"on b"]


def test_entries_are_counted_on_though_a_snapshot_has_let_go_of_them(path):
    with begun(path) as journal:
        for number in range(3):
            journal.tell(1, number, b"old")
        journal.snapshot(1, 3, b"state", b"memo")
    with Journal(path, "risk") as again:
        assert again.tell(1, 4, b"new") == 4
        assert parcels(again.after(again.newest().n)) == [(4, b"new")]


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from(["tell", "said", "snapshot", "reopen"]), max_size=60), st.integers(1, 4), st.integers(0, 9)
)
def test_a_successor_finds_the_newest_snapshot_and_all_that_followed(steps, keep, entries):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "risk.db"
        journal = begun(path, keep=keep, entries=entries)
        told, kept, said = {}, [], {}
        for step in steps:
            if step == "tell":
                n = journal.tell(1, len(told), b"%d" % len(told))
                told[n] = b"%d" % (n - 1)
            elif step == "said" and told:
                journal.said(b"said")
                said[max(told)] = b"said"
            elif step == "snapshot":
                journal.snapshot(1, 0, b"state %d" % len(told), b"")
                kept = [n for n in kept if n != len(told)] + [len(told)]
            else:
                journal.close()
                journal = Journal(path, "risk", keep=keep, entries=entries)
        journal.flush()
        newest = journal.newest()
        assert (newest.n if newest else 0) == (kept[-1] if kept else 0)
        assert newest is None or newest.state == b"state %d" % newest.n
        after = newest.n if newest else 0
        assert parcels(journal.after(after)) == [(n, told[n]) for n in sorted(told) if n > after]
        # Of the older ones as many are left as are to be kept, and what was said on hearing them.
        oldest = kept[-keep:][0] if kept else 0
        assert len(list(journal.said_before(len(told)))) >= sum(n > oldest or n > kept[-1] - entries for n in said)
        journal.close()
        reader = JournalReader(path)
        assert len(reader.snapshots()) == min(keep, len(kept))
        reader.close()


def test_a_journal_does_not_grow_for_ever(path):
    sizes = []
    with begun(path, keep=2, entries=100) as journal:
        for number in range(3_000):
            journal.tell(1, number, bytes(200))
            journal.said(bytes(200))
            if number % 50 == 49:
                journal.snapshot(1, number, bytes(2_000), b"")
                sizes.append(path.stat().st_size)
        assert len(list(journal.after(0))) <= 200
    assert sizes[-1] <= 1.5 * sizes[len(sizes) // 3]


# --- who writes -----------------------------------------------------------------------------------


def test_two_do_not_write_one_journal(path):
    with begun(path), pytest.raises(JournalError, match="being written by another process"):
        Journal(path, "risk")
    Journal(path, "risk").close()


def test_no_life_begins_after_a_later_one(path):
    with begun(path) as journal:
        journal.begin(7, 2, b"")
        for earlier in (7, 3):
            with pytest.raises(JournalError, match="life 7 has begun already"):
                journal.begin(earlier, 3, b"")


def test_a_journal_is_of_one_node(path):
    begun(path).close()
    with pytest.raises(JournalError, match="journal of risk, not of broker"):
        Journal(path, "broker")
    Journal(path, "risk").close()  # who was refused lets go of it


def test_a_journal_of_a_later_hean_is_left_alone(path):
    begun(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE about SET format = ?", (FORMAT + 1,))
    db.close()
    before = path.read_bytes()
    for look in (lambda: Journal(path, "risk"), lambda: JournalReader(path)):
        with pytest.raises(JournalError, match=f"has format {FORMAT + 1}, and this HEAN reads {FORMAT}"):
            look()
    assert path.read_bytes() == before


def test_a_reader_sees_one_moment_whatever_is_written_meanwhile(path):
    with begun(path, keep=1) as journal:
        journal.tell(1, 1, b"a")
        reader = JournalReader(path)
        reader.hold()
        assert parcels(reader.after(0)) == [(1, b"a")]
        journal.tell(1, 2, b"b")
        journal.snapshot(1, 2, b"", b"")
        assert parcels(reader.after(0)) == [(1, b"a")]
        reader.close()


# --- what may befall it ---------------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
from hean.store.journal import Journal
journal = Journal(Path(sys.argv[1]), "risk", keep=2)
journal.begin(int(sys.argv[2]), 1, b"")
while True:
    n = journal.tell(int(sys.argv[2]), 1, b"%d" % (journal.n + 1))
    journal.said(b"on %d" % n)
    if n % 20 == 0:
        journal.snapshot(int(sys.argv[2]), 1, b"%d" % n, b"")
    print(n, flush=True)
"""


def test_a_writer_that_is_killed_at_any_moment_has_written_all_it_went_on_from(path):
    chance = Random(4)
    root = Path(__file__).resolve().parents[2]
    for life in range(1, 7):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, str(life)], stdout=subprocess.PIPE, text=True, cwd=root
        )
        if life > 1:  # the first dies while it makes the file, perhaps
            writer.stdout.readline()
        time.sleep(chance.uniform(0, 0.1 if life > 1 else 0.35))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        writer.stdout.close()
        with Journal(path, "risk", keep=2) as journal:
            newest = journal.newest()
            after = newest.n if newest else 0
            assert newest is None or newest.state == b"%d" % after
            assert parcels(journal.after(after)) == [(n, b"%d" % n) for n in range(after + 1, journal.n + 1)]
            assert journal.n >= (int(rest[-1]) if rest else 0)
            said = {parcel for _, parcel in journal.said_before(journal.n)}
            # Of the last entry of each life it follows from telling it again.
            assert len(said) >= journal.n - after - life


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal in one file, with pages enough to be cut anywhere."""
    path = tmp_path_factory.mktemp("whole") / "risk.db"
    with begun(path) as journal:
        for number in range(300):
            journal.tell(1, number, bytes([number % 256]) * 100)
            if number % 100 == 0:
                journal.snapshot(1, number, b"state", b"memo")
    return path.read_bytes()


def _read(path):
    with Journal(path, "risk") as journal:
        newest = journal.newest()
        return [one.parcel for one in journal.after(newest.n if newest else 0)]


@settings(max_examples=60)
@given(data=st.data())
def test_a_journal_that_was_cut_off_or_overwritten_is_read_or_refused_by_name(whole, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "risk.db"
        damaged = bytearray(whole)
        at = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            del damaged[at:]
        else:
            length = data.draw(st.integers(1, 5_000))
            damaged[at : at + length] = data.draw(st.sampled_from([b"\0", b"\xff", b"x"])) * len(
                damaged[at : at + length]
            )
        path.write_bytes(damaged)
        refusal = None
        try:
            _read(path)
        except JournalError as said:
            refusal = said
        assert refusal is None or str(path) in str(refusal)


def test_a_file_that_is_no_journal_is_refused(tmp_path):
    text = tmp_path / "risk.db"
    text.write_text("nothing of the kind, and long enough to be taken for something" * 100)
    with pytest.raises(JournalError, match=r"risk\.db: file is not a database"):
        Journal(text, "risk")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE somebody_elses (n INTEGER)")
    db.close()
    with pytest.raises(JournalError, match="no journal of HEAN"):
        Journal(other, "risk")
    with pytest.raises(JournalError, match="there is no such journal"):
        JournalReader(tmp_path / "none.db")


def test_a_file_that_was_made_and_not_begun_is_begun(path):
    path.parent.mkdir()
    path.touch()
    begun(path).close()
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    Journal(copy, "risk").close()


def _fill(journal):
    for number in range(1_000):
        journal.tell(1, number, bytes(1_000))


def test_a_full_disk_is_said_to_be_full(path):
    with begun(path) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(JournalError, match=r"risk\.db: database or disk is full"):
            _fill(journal)
        journal._db.execute("PRAGMA max_page_count = 100000")
    with Journal(path, "risk") as again:
        assert [one.n for one in again.after(0)] == list(range(1, again.n + 1))
