"""What the page knows, against the API itself: what it hears, what it asks for, and what it says while nobody answers."""

import asyncio

import pytest

from actors.logs import NodeLog
from actors.page import store as store_module
from actors.page.client import Api, ApiError, Command
from actors.page.store import Link, Mode, Store, Tail, Topic


def told(server, doing):
    """Let a store live while something is done with it."""

    async def living():
        store = Store(Api(server.url, server.token_file))
        await store.begin()
        try:
            return await doing(store)
        finally:
            await store.end()

    return asyncio.run(living())


async def until(holds, what, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not (found := holds()):  # noqa: ASYNC110 (what is waited for says nothing by itself)
            await asyncio.sleep(0.02)
    assert found, what
    return found


STREAMED = ("/engine/status", "/positions", "/orders", "/strategies", "/risk", "/why")


def test_the_stream_brings_what_changes_without_being_asked(server):
    async def doing(store):
        known = {}
        await until(lambda: store.link.mode is Mode.LIVE, "the stream")
        for path in STREAMED:
            # Asked once an hour: whatever comes again and again, the stream has brought.
            topic = store.see(path, every_s=3600.0)
            before = topic.version
            await until(lambda topic=topic, before=before: topic.version > before + 2, path)
            known[path] = topic.value
        return known

    known = told(server, doing)

    assert known["/engine/status"]["phase"] == "RUNNING"
    assert set(known) == set(STREAMED)


def test_a_value_knows_how_old_it_is(server):
    async def doing(store):
        topic = store.status()
        assert topic.age_s() is None
        assert topic.grown(3.0) is None
        await until(lambda: topic.value, "a status")
        young = topic.age_s()
        server.end()
        await until(lambda: topic.age_s() > young + 0.3, "older")
        assert topic.grown(3.0) > 3.3
        assert topic.grown(None) is None
        return topic.value

    assert told(server, doing) is not None


def test_what_the_stream_does_not_bring_is_asked_for_while_somebody_looks(server):
    async def doing(store):
        await until(lambda: store.see("/fills", every_s=0.2, limit=5).value, "fills")
        before = store.see("/fills", every_s=0.2, limit=5).version
        return await until(lambda: store.see("/fills", every_s=0.2, limit=5).version > before, "newer ones")

    assert told(server, doing)


def test_what_nobody_looks_at_is_not_asked_for(server, monkeypatch):
    monkeypatch.setattr(store_module, "_LOOKED_AT_S", 0.3)

    async def doing(store):
        await until(lambda: store.see("/fills", every_s=0.1, limit=5).value, "fills")
        topic = store.see("/fills", every_s=0.1, limit=5)
        await until(lambda: topic.age_s() > 1.0, "left alone")
        before = topic.version
        await until(lambda: topic.age_s() > 2.0, "left alone still")
        return before == topic.version

    assert told(server, doing)


def test_a_question_that_fails_keeps_what_was_known_and_says_why(server):
    async def doing(store):
        await until(lambda: store.see("/strategies/impulse", every_s=0.1).value, "a strategy")
        ghost = store.see("/strategies/ghost", every_s=0.1)
        await until(lambda: ghost.fault, "no such strategy")
        return store.see("/strategies/impulse").value, ghost

    known, ghost = told(server, doing)

    assert known["name"] == "impulse"
    assert ghost.value is None
    assert isinstance(ghost.fault, ApiError)
    assert ghost.fault.status == 404


def test_a_lost_connection_is_said_with_since_when_and_when_it_is_tried_again(server):
    async def doing(store):
        await until(lambda: store.link.mode is Mode.LIVE, "the stream")
        server.end()
        await until(lambda: store.link.is_lost, "lost")
        assert "cannot be reached" in store.link.fault
        assert store.link.again_s() is not None
        await until(lambda: store.link.tries > 2, "tried again")
        assert store.status().value is not None, "what was known stays"
        server.begin()
        await until(lambda: store.link.mode is Mode.LIVE, "found again")
        return store.link

    link = told(server, doing)

    assert link.fault == ""
    assert link.again_s() is None


def test_lines_written_while_nobody_served_them_are_not_missed(server):
    log = NodeLog(server.folder, "broker", 1)

    async def doing(store):
        await until(lambda: store.link.mode is Mode.LIVE, "the stream")
        await asyncio.sleep(0.3)
        log.info("before")
        await until(lambda: "before" in events(store), "what is written meanwhile")
        server.end()
        await until(lambda: store.link.is_lost, "lost")
        log.info("meanwhile")
        server.begin()
        await until(lambda: "meanwhile" in events(store), "what was written in between")
        return events(store)

    try:
        heard = told(server, doing)
    finally:
        log.close()

    assert heard.count("before") == heard.count("meanwhile") == 1


def events(store):
    return [line.get("event") for _, line in store.logs.since()]


def test_an_engine_that_is_not_there_is_no_lost_api(server):
    from actors.http.port import NoEngineError

    async def doing(store):
        await until(lambda: store.link.mode is Mode.LIVE, "the stream")
        server.engine.failure = NoEngineError("no engine: `hean up` begins one")
        await until(lambda: store.status().fault, "said")
        fault = str(store.status().fault)
        assert not store.link.is_lost
        assert store.status().value is not None
        server.engine.failure = None
        await until(lambda: store.status().fault is None, "back")
        return fault

    assert "hean up" in told(server, doing)


def test_after_a_command_nobody_waits_for_the_next_turn(server):
    async def doing(store):
        await until(lambda: store.see("/processes", every_s=3600.0).value, "processes")
        answer = await store.api.send(Command("/processes", {"process": "environment-scan", "arguments": {}}))
        await store.refresh("/processes")
        return answer.body["run_id"], [run["run_id"] for run in store.see("/processes", every_s=3600.0).value["runs"]]

    run_id, known = told(server, doing)

    assert run_id in known


def test_the_lag_of_each_actor_is_kept_for_a_minute(server, monkeypatch):
    monkeypatch.setattr(store_module, "_LAG_S", 0.05)
    monkeypatch.setattr(store_module, "LAGS_KEPT", 3)

    async def doing(store):
        await until(lambda: len(store.lags("broker")) == 3, "three of them")
        return store.lags("broker"), store.lags("nobody")

    kept, none = told(server, doing)

    assert all(lag is not None for lag in kept)
    assert none == ()


def test_a_frame_that_cannot_be_read_does_not_end_the_page(server, monkeypatch):
    read = store_module.Store._hear
    broken = [True]

    def stumble(store, frame):
        if broken and frame.channel == "state":
            broken.clear()
            raise KeyError("a fault of our own")
        read(store, frame)

    monkeypatch.setattr(store_module.Store, "_hear", stumble)

    async def doing(store):
        await until(lambda: not broken and store.link.mode is Mode.LIVE, "it goes on", 60)
        return True

    assert told(server, doing)


def test_memory_is_bounded_however_much_is_looked_at(server):
    store = Store(Api(server.url, server.token_file))

    for number in range(10 * store_module.TOPICS_KEPT):
        store.see("/candles", instrument=f"X{number}")

    assert len(store._topics) <= store_module.TOPICS_KEPT
    asyncio.run(store.end())


@pytest.mark.parametrize(
    ("kept", "added", "since", "found"),
    [
        (3, ["a", "b"], 0, [(1, "a"), (2, "b")]),
        (3, ["a", "b"], 1, [(2, "b")]),
        (3, ["a", "b"], 2, []),
        (2, ["a", "b", "c"], 0, [(2, "b"), (3, "c")]),
    ],
    ids=["all", "what is new", "nothing new", "only the newest are kept"],
)
def test_a_tail_tells_what_came_since(kept, added, since, found):
    tail = Tail(kept)

    tail.add(added)

    assert tail.since(since) == found


def test_a_topic_that_was_answered_again_has_another_version():
    topic = Topic("/x")

    topic.hear({"a": 1})
    heard = topic.version
    topic.fail(ApiError("no"))

    assert topic.version > heard
    assert topic.value == {"a": 1}
    assert str(topic.fault) == "no"


def test_a_link_counts_its_tries_until_it_is_found():
    link = Link()

    link.down("gone", 1.0)
    link.down("gone", 2.0)

    assert (link.mode, link.tries, link.is_lost) == (Mode.LOST, 2, True)
    assert 1.0 < link.again_s() <= 2.0
    link.up(Mode.LIVE)
    assert (link.mode, link.tries, link.again_s()) == (Mode.LIVE, 0, None)
