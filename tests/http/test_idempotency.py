"""A request sent twice under one key is done once: at the same time, after a restart, and from another replica."""

import asyncio
import sqlite3
import stat
import threading

import pytest

from actors.http.idempotency import ABANDONED_NS, KEPT_NS, TABLE, Answer, AnswerTable, Once, Refusal
from hean.errors import HeanError
from tests.http.conftest import acting
from tests.http.fake_engine import FakeEngine, gone

WHY = {"reason": "a drill", "person": "ada"}
KEY = {"Idempotency-Key": "3f1c"}


def test_the_same_key_and_body_get_the_same_answer_and_are_done_once(api):
    first = api.person.post("/engine/kill", json=WHY, headers=KEY)
    second = api.person.post("/engine/kill", json=WHY, headers=KEY)

    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert len(api.engine.told) == 1
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_without_a_key_each_is_done(api):
    for _ in range(2):
        api.person.post("/engine/kill", json=WHY)

    assert len(api.engine.told) == 2


@pytest.mark.parametrize(
    ("path", "body"), [("/engine/kill", WHY | {"reason": "another"}), ("/engine/reset", WHY)], ids=["body", "path"]
)
def test_the_same_key_for_something_else_is_refused(api, path, body):
    api.person.post("/engine/kill", json=WHY, headers=KEY)
    other = api.person.post(path, json=body, headers=KEY)

    assert other.status_code == 422
    assert [method for method, _ in api.engine.told] == ["kill"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü"])
def test_a_key_is_visible_letters(api, key):
    answer = api.person.post("/engine/kill", json=WHY, headers={"Idempotency-Key": key.encode("latin-1")})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"
    assert api.engine.told == []


def test_an_answer_outlives_the_api(tmp_path):
    with acting(tmp_path / "home") as api:
        first = api.person.post("/smoke-test/run", headers=KEY)
    with acting(tmp_path / "home", FakeEngine()) as again:
        second = again.person.post("/smoke-test/run", headers=KEY)

    assert second.content == first.content
    assert second.headers["location"] == first.headers["location"]
    assert again.engine.told == []


def test_what_comes_while_the_first_is_at_work_is_told_to_wait(api):
    at_work, go_on = threading.Event(), threading.Event()
    kill = api.engine.kill

    async def slow(*arguments, **named):
        import asyncio

        at_work.set()
        await asyncio.to_thread(go_on.wait, 10)
        return await kill(*arguments, **named)

    api.engine.kill = slow
    answers = []
    first = threading.Thread(target=lambda: answers.append(api.person.post("/engine/kill", json=WHY, headers=KEY)))
    first.start()
    assert at_work.wait(10)
    meanwhile = api.stranger.post("/engine/kill", json=WHY, headers=KEY | {"Authorization": f"Bearer {api.token}"})
    go_on.set()
    first.join(10)

    assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (409, "1")
    assert answers[0].status_code == 200
    assert len(api.engine.told) == 1


def test_of_many_at_once_one_is_done(api):
    import httpx

    answers = []

    def ask():
        shown = KEY | {"Authorization": f"Bearer {api.token}"}
        answers.append(httpx.post(f"{api.url}/engine/kill", json=WHY, headers=shown, timeout=30))

    asking = [threading.Thread(target=ask) for _ in range(12)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()

    assert len(api.engine.told) == 1
    assert {one.status_code for one in answers} <= {200, 409}
    assert len({one.content for one in answers if one.status_code == 200}) == 1


@pytest.mark.parametrize("failure", [gone(), HeanError("risk cannot hear it; ask again"), ZeroDivisionError("a bug")])
def test_what_did_nothing_may_be_tried_again(api, failure):
    api.engine.failure = failure
    refused = api.person.post("/engine/kill", json=WHY, headers=KEY)
    api.engine.failure = None
    done = api.person.post("/engine/kill", json=WHY, headers=KEY)

    assert refused.status_code in {409, 500, 503}
    assert (done.status_code, len(api.engine.told)) == (200, 1)


def test_a_run_is_known_by_the_key_even_where_its_answer_was_lost(api):
    """Killed between the engine's word and ours, a replica leaves nothing behind: the run's own key stands for it."""
    first = api.person.post("/backtest", json={"strategy": "impulse"}, headers=KEY).json()
    with sqlite3.connect(api.folder / TABLE) as table:
        table.execute("DELETE FROM answers")
    table.close()
    second = api.person.post("/backtest", json={"strategy": "impulse"}, headers=KEY).json()

    assert second["run_id"] == first["run_id"]


def test_nothing_that_was_sent_is_kept(api):
    api.person.post("/engine/kill", json={"reason": "because-of-this"}, headers={"Idempotency-Key": "my-own-key"})

    kept = (api.folder / TABLE).read_bytes()
    assert b"because-of-this" not in kept
    assert b"my-own-key" not in kept
    assert api.token.encode() not in kept
    assert stat.S_IMODE((api.folder / TABLE).stat().st_mode) == 0o600


# --- the table ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = KEPT_NS

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(tmp_path, clock):
    return AnswerTable(tmp_path / TABLE, clock)


DONE = Answer(200, ((b"content-type", b"text/plain"),), b"done")


def test_an_answer_is_forgotten_after_a_day(table, clock):
    table.begin("a", "1")
    table.end("a", DONE)
    clock.now += KEPT_NS
    assert table.begin("a", "1") == DONE

    clock.now += 1
    assert table.begin("a", "2") is None


def test_who_died_over_a_request_holds_nobody_up_for_ever(table, clock):
    assert table.begin("a", "1") is None
    clock.now += ABANDONED_NS
    assert isinstance(table.begin("a", "1"), Refusal)

    clock.now += 1
    assert table.begin("a", "1") is None


def test_who_is_done_late_does_not_undo_what_another_kept(table):
    table.begin("a", "1")
    table.end("a", DONE)
    table.end("a", None)

    assert table.begin("a", "1") == DONE


def test_replicas_share_one_table(tmp_path, clock):
    one, other = AnswerTable(tmp_path / TABLE, clock), AnswerTable(tmp_path / TABLE, clock)

    assert one.begin("a", "1") is None
    assert isinstance(other.begin("a", "1"), Refusal)
    one.end("a", DONE)
    assert other.begin("a", "1") == DONE


@pytest.mark.parametrize(("path", "status"), [("/engine/kill", 200), ("/engine/stop", 200), ("/engine/reset", 503)])
def test_where_the_table_cannot_be_used_only_what_must_never_wait_is_done(own, path, status):
    (own.folder / TABLE).write_bytes(b"no database" * 100)
    answer = own.person.post(path, json=WHY, headers=KEY)

    assert answer.status_code == status, answer.text
    assert len(own.engine.told) == (status == 200)
    assert status == 200 or "nothing was done" in answer.json()["detail"]


def test_what_was_done_is_answered_where_that_cannot_be_kept(own):
    kill = own.engine.kill

    async def full(*arguments, **named):
        (own.folder / TABLE).write_bytes(b"no database" * 100)
        return await kill(*arguments, **named)

    own.engine.kill = full
    assert own.person.post("/engine/kill", json=WHY, headers=KEY).status_code == 200


def test_who_leaves_does_not_take_the_request_along(tmp_path):
    done = []

    async def app(_scope, receive, send):
        await receive()
        at_work.set()
        await go_on.wait()
        done.append("it")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def ask():
        async def receive():
            return {"type": "http.request", "body": b"{}", "more_body": False}

        async def send(message):
            heard.append(message.get("body"))

        heard = []
        await once(dict(scope), receive, send)
        return heard[-1]

    async def story():
        first = asyncio.create_task(ask())
        await at_work.wait()
        first.cancel()  # as Ray Serve does when the client has gone
        await asyncio.gather(first, return_exceptions=True)
        go_on.set()
        await asyncio.gather(*once._under_way)
        return await ask()

    scope = {"type": "http", "method": "POST", "path": "/it", "headers": [(b"idempotency-key", b"3f1c")]}
    once, at_work, go_on = Once(app, folder=lambda: tmp_path), asyncio.Event(), asyncio.Event()

    assert asyncio.run(story()) == b"done"
    assert done == ["it"]
