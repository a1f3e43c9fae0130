"""A node that is told its journal again: it becomes what it was and says what it said, wherever it begins."""

import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from hean import codec
from hean.errors import JournalError
from hean.messages import Envelope, Fact, NodeStarted, PositionChanged, Wake
from hean.recovery import Hearing, Memo, Retelling
from hean.store.journal import Journal, Snapshot, Told
from hean.topology import Node, Route, Topology

GRAPH = Topology(
    (Node("counter", "counter"), Node("ear", "ear")),
    (Route("tongue", (NodeStarted,), "counter"), Route("counter", (PositionChanged,), "ear")),
)


class CounterState(Struct):
    heard: list[str] = []
    woken: int = 0


class Counter:
    """Says how many it has heard, at every second; and how often it was woken."""

    def __init__(self) -> None:
        self.state = CounterState()

    def handle(self, message: NodeStarted | Wake, now: int) -> Iterator[PositionChanged]:
        state = self.state
        if isinstance(message, Wake):
            state.woken += 1
        else:
            state.heard.append(message.node)
        if len(state.heard) % 2 == 0:
            yield PositionChanged("", "", Decimal(len(state.heard)), Decimal(state.woken), Decimal(now))

    def wake_at(self) -> int | None:
        return None


def letter(source, seq, node="x"):
    return Envelope(source, seq, 1, "", "", NodeStarted(node))


def told(n, *envelopes, life=1, now=None):
    return Told(n, life, n if now is None else now, codec.letters(envelopes) if envelopes else None)


def begun(snapshot=None):
    return Retelling(GRAPH, "counter", Counter(), snapshot)


# --- what is news ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["a@1", "a@2", "b@1"]), st.integers(1, 9)), max_size=40))
def test_nothing_is_heard_twice_and_nothing_new_is_passed_over(said):
    hearing = Hearing({})
    found = [(one.source, one.seq) for one in hearing.news(letter(*one) for one in said)]
    assert len(set(found)) == len(found)
    for source in {source for source, _ in said}:
        highest = 0
        expected = [seq for one, seq in said if one == source and seq > highest and (highest := seq)]
        assert [seq for one, seq in found if one == source] == expected


def test_what_has_no_number_is_always_news():
    assert len(Hearing({}).news([letter("engine@1", 0)] * 3)) == 3


def test_who_is_forgotten_is_who_was_silent_longest():
    hearing = Hearing({})
    hearing.news([letter("old@1", 1), letter("steady@1", 1)])
    for life in range(100):
        hearing.news([letter(f"short@{life}", 1), letter("steady@1", life + 2)])
    hearing.forget()
    assert hearing.cursors["steady@1"] == 101
    assert len(hearing.cursors) == 64
    assert "old@1" not in hearing.cursors


# --- telling again --------------------------------------------------------------------------------


ENTRIES = st.lists(
    st.one_of(st.none(), st.lists(st.tuples(st.sampled_from(["t@1", "t@2", "u@1"]), st.integers(0, 6)), max_size=4)),
    max_size=25,
)


@settings(max_examples=60)
@given(ENTRIES, st.data())
def test_a_successor_becomes_what_its_predecessor_was_from_any_snapshot(batches, data):
    at = data.draw(st.integers(0, len(batches)))
    entries = [
        told(n, *(letter(source, seq, f"{n}") for source, seq in batch)) if batch else told(n)
        for n, batch in enumerate(batches, 1)
    ]
    first = begun()
    first.live(1)
    said = [first.tell(entry) for entry in entries[:at]]
    snapshot = Snapshot(at, 1, 0, codec.encoded(first.component.state), first.memo())
    said += [first.tell(entry) for entry in entries[at:]]

    second = begun(snapshot)
    again = list(second.all(entries[at:]))

    assert [one.said for one in again] == [one.said for one in said[at:]]
    assert [one.outward for one in again] == [one.outward for one in said[at:]]
    assert codec.encoded(second.component.state) == codec.encoded(first.component.state)
    assert second.memo() == first.memo()


@settings(max_examples=30)
@given(ENTRIES, st.data())
def test_what_a_crash_cuts_off_was_never_said(batches, data):
    """The journal is written first: whatever it has not, nobody has heard of."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counter.db"
        outside = []
        crash = data.draw(st.integers(0, len(batches)))
        with Journal(path, "counter") as journal:
            journal.begin(1, 1, b"")
            life = begun()
            life.live(1)
            for n, batch in enumerate(batches[:crash], 1):
                entry = told(n, *(letter(*one) for one in batch)) if batch else told(n)
                journal.tell(1, entry.now, entry.parcel)
                if n == crash:
                    break  # killed between writing and saying
                outside += life.tell(entry).said
        with Journal(path, "counter") as journal:
            successor = begun(journal.newest())
            again = [one for entry in successor.all(journal.after(0)) for one in entry.said]
        assert again[: len(outside)] == outside
        assert len({(one.source, one.seq) for one in again}) == len(again)


def test_each_life_counts_what_it_says_from_one():
    life = begun()
    life.tell(told(1, letter("t@1", 1), letter("t@1", 2)))
    (said,) = life.tell(told(2, letter("t@1", 3), letter("t@1", 4), life=3)).said
    assert (said.source, said.seq) == ("counter@3", 1)


def test_damage_is_said_by_name():
    good = begun()
    good.live(1)
    state, memo = codec.encoded(good.component.state), good.memo()
    for snapshot in (Snapshot(7, 1, 0, b"\0", memo), Snapshot(7, 1, 0, state, b"\0")):
        with pytest.raises(JournalError, match="snapshot of counter after entry 7 is damaged"):
            begun(snapshot)
    with pytest.raises(JournalError, match="entry 8 of counter is damaged"):
        begun().tell(Told(8, 1, 1, b"no parcel"))


def test_a_memo_is_read_as_it_was_written():
    memo = Memo(7, {"b@1": 3, "a@1": 9})
    assert codec.decoded(Memo, codec.encoded(memo)) == memo
    assert issubclass(NodeStarted, Fact)
