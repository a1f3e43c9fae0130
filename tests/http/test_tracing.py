"""The request's id: in each answer, in the log, and never a way to write something else there."""

import re
import shutil
import time
import uuid

import pytest

from actors.http.home import AccessLog
from actors.logs import Wanted, merged
from tests.http.serve import furnish

HEX = re.compile(r"[0-9a-f]{32}")
WHY = {"reason": "a drill"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/engine/status"),
        ("GET", "/nowhere"),
        ("GET", "/orders?limit=0"),
        ("GET", "/docs"),
        ("DELETE", "/engine/status"),
        ("POST", "/engine/kill"),
        ("POST", "/engine/start"),
    ],
)
def test_every_answer_has_an_id_of_its_own(api, method, path):
    answers = [client.request(method, path) for client in (api.person, api.stranger)]

    ids = [one.headers["x-request-id"] for one in answers]
    assert all(HEX.fullmatch(one) for one in ids)
    assert len(set(ids)) == 2


@pytest.mark.parametrize("given", [uuid.UUID(int=7).hex, str(uuid.UUID(int=7 << 100)).upper()])
def test_an_id_that_was_sent_along_is_taken(api, given):
    answer = api.person.post("/engine/start", headers={"X-Request-ID": given})

    assert answer.headers["x-request-id"] == given.replace("-", "").lower()
    assert api.engine.told[0][1]["trace"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("given", ["", "x", "g" * 32, "0" * 31, "0" * 33, "'; DROP TABLE", "a" * 10_000])
def test_one_that_is_none_is_not(api, given):
    answer = api.stranger.get("/engine/status", headers={"X-Request-ID": given})

    assert HEX.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["x-request-id"] != given


def lines(api, count):
    """So many lines of the log: a line is written when its answer is on its way."""
    limit = time.monotonic() + 10
    while len(found := list(merged(api.folder, Wanted(nodes=("api",))))) < count:
        assert time.monotonic() < limit, found
        time.sleep(0.01)
    return found


def test_requests_are_written_down_by_their_id(own):
    done = own.person.post("/engine/kill?secret=hunter2", json={"reason": "not-in-the-log"})
    own.stranger.get("/orders?limit=0")
    own.stranger.get("/engine/status")

    found = lines(own, 3)
    assert [(line.event, line.level, line.rest["status"]) for line in found] == [
        ("POST /engine/kill", "info", 200),
        ("GET /orders", "warning", 422),
        ("GET /engine/status", "debug", 200),
    ]
    assert found[0].rest["trace"] == done.headers["x-request-id"]
    assert all(line.rest["ms"] >= 0 for line in found)
    text = (own.folder / "logs" / "api.log").read_text()
    assert not [word for word in ("hunter2", "not-in-the-log", own.token, "Bearer") if word in text]


def test_a_bug_is_answered_without_its_words_and_found_in_the_log(own):
    own.engine.failure = ZeroDivisionError("in the cellar of the engine")

    answer = own.person.post("/engine/kill", json=WHY)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "cellar" not in answer.text
    (bug,) = (line for line in lines(own, 2) if line.event == "bug")
    assert bug.rest["trace"] == answer.headers["x-request-id"]
    assert "cellar" in bug.rest["why"]
    assert "Traceback" in bug.rest["exception"]


def test_behind_serve_the_proxy_alone_puts_the_id_into_the_header(tmp_path):
    from tests.http.conftest import acting

    with acting(tmp_path / "home", echoes=False) as api:
        answer = api.person.post("/engine/start", headers={"X-Request-ID": "ab" * 16})

    assert "x-request-id" not in answer.headers
    assert answer.json()["request_id"] == "ab" * 16


def test_where_nothing_can_be_written_down_nobody_goes_without_an_answer(tmp_path):
    folder, log = furnish(tmp_path), AccessLog(tmp_path)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    (folder / "logs").write_text("no directory")
    log.request("POST", "/engine/kill", 200, 1.0, "t")

    (folder / "logs").unlink()
    log.request("POST", "/engine/kill", 200, 1.0, "t")
    log.close()
    (line,) = merged(folder, Wanted())
    assert line.event == "POST /engine/kill"
