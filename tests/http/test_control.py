"""A wish reaches the engine once, with who, why and the request's id; what the engine refuses is said with the remedy."""

import pytest

from actors.http import schemas
from hean.errors import ConfigError, HeanError, JournalError
from tests.http.fake_engine import HARVEST, IMPULSE, PHRASE, gone, late

WHY = {"reason": "a drill", "person": "ada"}
WISHES = [
    ("/engine/start", {}, "start", {"person": "api"}),
    ("/engine/start", {"person": "ada"}, "start", {"person": "ada"}),
    ("/engine/stop", {}, "stop", {"flatten": False, "finish": True, "person": "api", "reason": ""}),
    ("/engine/stop", {"mode": "graceful"} | WHY, "stop", {"flatten": False, "finish": True} | WHY),
    ("/engine/stop", {"mode": "reduce"} | WHY, "stop", {"flatten": False, "finish": False} | WHY),
    ("/engine/stop", {"mode": "flatten"} | WHY, "stop", {"flatten": True, "finish": False} | WHY),
    ("/engine/kill", WHY, "kill", WHY),
    ("/engine/arm", {"person": "ada"}, "arm", {"person": "ada"}),
    (f"/strategies/{IMPULSE}/enable", WHY, "switch", {"strategy": IMPULSE, "on": True} | WHY),
    (f"/strategies/{IMPULSE}/disable", WHY, "switch", {"strategy": IMPULSE, "on": False} | WHY),
    (
        f"/strategies/{HARVEST}/configure",
        {"changes": {"enter_bp": 2.5}} | WHY,
        "configure",
        {"strategy": HARVEST, "changes": {"enter_bp": 2.5}} | WHY,
    ),
]


@pytest.mark.parametrize(("path", "body", "method", "heard"), WISHES)
def test_a_wish_is_heard_with_who_and_why_and_its_trace(api, path, body, method, heard):
    answer = api.person.post(path, json=body)

    assert answer.status_code == 200
    said = (schemas.Armed if method == "arm" else schemas.Said).model_validate_json(answer.content)
    assert said.request_id == answer.headers["x-request-id"]
    assert api.engine.told == [(method, heard | {"trace": said.request_id})]


def test_a_wish_without_a_body_is_one_with_nothing_special(api):
    assert api.person.post("/engine/start").status_code == 200
    assert api.person.post("/engine/stop").status_code == 200
    assert [method for method, _ in api.engine.told] == ["start", "stop"]


def test_what_was_wished_is_seen(api):
    api.person.post("/engine/kill", json=WHY)
    killed = api.stranger.get("/engine/status").json()
    held = api.stranger.get("/positions").json()["positions"]
    api.person.post("/engine/reset", json=WHY)
    reset = api.stranger.get("/engine/status").json()

    assert (killed["trading"], killed["tripped"]) == ("HALTED", "a person: ada: a drill")
    assert {one["strategy"] for one in held} == {""}, "what was there before us stays"
    assert (reset["trading"], reset["tripped"]) == ("REDUCING", "")


def test_arming_takes_two_steps_and_a_nonce_is_good_once(api):
    first = api.person.post("/engine/arm", json={"person": "ada"}).json()
    typed = {"person": "ada", "nonce": first["nonce"], "phrase": first["phrase"]}
    second = api.person.post("/engine/arm", json=typed)
    third = api.person.post("/engine/arm", json=typed)

    assert (first["armed"], first["phrase"]) == (False, PHRASE)
    assert first["expires"] is not None
    assert second.json()["armed"] is True
    assert second.json()["nonce"] is None
    assert third.status_code == 409


@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (HeanError("risk cannot hear it; ask again"), 409, "urn:hean:refused"),
        (JournalError("engine.db cannot be written: make room on the disk"), 409, "urn:hean:refused"),
        (ConfigError("enter_bq: no such setting; did you mean enter_bp?"), 422, "urn:hean:wrong"),
        (gone(), 503, "urn:hean:no-engine"),
        (late(), 504, "urn:hean:late"),
    ],
)
@pytest.mark.parametrize("path", ["/engine/status", "/engine/kill"])
def test_what_the_engine_says_no_to_is_a_problem_with_the_remedy(api, path, failure, status, kind):
    api.engine.failure = failure

    answer = api.person.get(path) if path == "/engine/status" else api.person.post(path, json=WHY)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": kind,
        "title": answer.json()["title"],
        "status": status,
        "detail": str(failure),
        "instance": path,
        "request_id": answer.headers["x-request-id"],
        "errors": [],
    }
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("/engine/kill", {}, "reason", "is not given, and must be"),
        ("/engine/kill", {"reason": "  "}, "reason", "String should have at least 1 character"),
        ("/engine/kill", {"reson": "x"}, "reson", "there is no such field; did you mean reason?"),
        ("/engine/kill", {"reason": "x" * 501}, "reason", "String should have at most 500 characters"),
        ("/engine/stop", {"mode": "now"}, "mode", "Input should be 'graceful', 'reduce' or 'flatten'"),
        ("/engine/stop", {"flatten": True}, "flatten", "there is no such field; known: person, mode, reason"),
        (f"/strategies/{HARVEST}/configure", WHY, "changes", "is not given, and must be"),
        ("/backtest", {"strategy": "impulse", "symbols": ["BTC/USDT"]}, "symbols.0", None),
        ("/evaluate", {"strategy": "impulse", "start": "2025-01-01"}, "end", "is not given, and must be"),
    ],
)
def test_a_wrong_field_is_named_with_the_remedy(api, path, body, field, message):
    answer = api.person.post(path, json=body)

    assert answer.status_code == 422
    (found,) = (one for one in answer.json()["errors"] if one["field"] == field)
    assert message in {None, found["message"]}
    assert api.engine.told == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff\xfe", b"null"])
def test_a_body_that_is_no_object_is_refused(api, body):
    answer = api.person.post("/engine/kill", content=body, headers={"content-type": "application/json"})

    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert api.engine.told == []


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_it_is_json_is_told_to(api, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = api.person.post("/engine/kill", content=b'{"reason": "a drill"}', headers=headers)

    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["detail"]
    assert api.engine.told == []


def test_another_method_is_told_which_one_is_taken(api):
    answer = api.person.get("/engine/kill")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "GET is not taken here, but POST" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["enable", "disable", "configure"])
def test_a_strategy_that_is_not_there_cannot_be_told_anything(api, path):
    answer = api.person.post(
        f"/strategies/nobody/{path}", json=WHY | ({"changes": {"a": 1}} if path == "configure" else {})
    )

    assert answer.status_code == 404
    assert "impulse" in answer.json()["detail"]


# --- runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "process", "arguments"),
    [
        ("/smoke-test/run", None, "smoke-test", {"instrument": "BTCUSDT-LINEAR.BYBIT"}),
        (
            "/processes",
            {"process": "backfill", "arguments": {"symbols": "BTCUSDT"}},
            "backfill",
            {"symbols": "BTCUSDT"},
        ),
        (
            "/backtest",
            {"strategy": "impulse", "symbols": ["BTCUSDT", "ETHUSDT"], "settings": {"strategy.trigger": "3"}},
            "backtest",
            {"strategy": "impulse", "symbols": "BTCUSDT,ETHUSDT", "strategy.trigger": "3"},
        ),
        (
            "/evaluate",
            {
                "strategy": "impulse",
                "start": "2025-01-01",
                "end": "2026-01-01",
                "grid": {"strategy.trigger": ["2", "3"]},
                "test_days": 20,
            },
            "evaluate",
            {
                "strategy": "impulse",
                "symbols": "BTCUSDT",
                "start": "2025-01-01",
                "end": "2026-01-01",
                "train_days": "180",
                "test_days": "20",
                "purge_days": "3",
                "param.strategy.trigger": "2,3",
            },
        ),
    ],
)
def test_what_takes_long_is_begun_and_can_be_followed_and_cancelled(api, path, body, process, arguments):
    begun = api.person.post(path, json=body)
    job = begun.json()
    followed = api.stranger.get(begun.headers["location"])
    cancelled = api.person.post(job["links"]["cancel"], json=WHY)

    schemas.Accepted.model_validate(job)
    assert begun.status_code == 202
    assert begun.headers["location"] == job["links"]["self"]
    assert api.engine.told[0] == ("request", {"process": process, "arguments": arguments, "key": ""})
    assert (followed.status_code, followed.json()["status"]) == (200, "RUNNING")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "CANCELED")
    schemas.Run.model_validate_json(cancelled.content)


def test_a_run_that_waits_for_a_person_is_decided_on_once(api):
    decided = api.person.post("/processes/smoke-test-3/decide", json=WHY | {"again": False})
    again = api.person.post("/processes/smoke-test-3/decide", json=WHY | {"again": True})

    assert (decided.status_code, decided.json()["status"]) == (200, "FAILED")
    assert again.status_code == 422
    assert "waits for nobody" in again.json()["detail"]


@pytest.mark.parametrize("what", ["cancel", "decide"])
def test_a_run_that_is_not_there_cannot_be_told_anything(api, what):
    answer = api.person.post(f"/processes/nobody/{what}", json=WHY | ({"again": True} if what == "decide" else {}))

    assert answer.status_code == 404


def test_a_process_that_is_not_there_cannot_be_begun(api):
    answer = api.person.post("/processes", json={"process": "nothing"})

    assert answer.status_code == 422
    assert "smoke-test" in answer.json()["detail"]
