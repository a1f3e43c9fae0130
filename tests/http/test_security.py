"""Who has no token, comes from another site or under another name changes nothing, and learns nothing that is secret."""

import http.client
import json
import socket
import stat
import threading

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from actors.http.app import build_app
from actors.http.home import token_for
from actors.http.security import BODY, Allowance
from tests.http.conftest import acting, served
from tests.http.fake_engine import FakeEngine

WHY = {"reason": "a drill"}
CHANGING = [
    "/engine/start",
    "/engine/stop",
    "/engine/kill",
    "/engine/reset",
    "/engine/arm",
    "/strategies/impulse/enable",
    "/strategies/impulse/disable",
    "/strategies/impulse/configure",
    "/processes",
    "/processes/smoke-test-3/cancel",
    "/processes/smoke-test-3/decide",
    "/smoke-test/run",
    "/backtest",
    "/evaluate",
]
METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]


def raw(api, method, path, headers):
    """A request with exactly these headers."""
    connection = http.client.HTTPConnection(api.netloc, timeout=10)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_every_route_that_changes_something_is_listed_here(api):
    document = api.stranger.get("/openapi.json").json()["paths"]
    changing = {path for path, item in document.items() if set(item) - {"get"}}

    assert {path.replace("{name}", "impulse").replace("{run_id}", "smoke-test-3") for path in changing} == set(CHANGING)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer ü".encode("latin-1")},
        {"Authorization": "Basic {token}"},
        {"Authorization": "{token}"},
        {"Cookie": "token={token}; api_token={token}; Authorization=Bearer {token}"},
        {"X-Api-Key": "{token}"},
    ],
    ids=["none", "empty", "wrong", "not ascii", "another scheme", "bare", "a cookie", "another header"],
)
def test_without_the_token_nothing_changes(api, headers):
    shown = {
        name: value if isinstance(value, bytes) else value.format(token=api.token) for name, value in headers.items()
    }
    for path in CHANGING:
        answer = api.stranger.post(path, json=WHY, headers=shown)
        in_the_address = api.stranger.post(f"{path}?token={api.token}&access_token={api.token}", json=WHY)

        assert [answer.status_code, in_the_address.status_code] == [401, 401], path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert api.engine.told == []


def test_two_tokens_are_none(api):
    shown = [("Host", api.netloc), ("Authorization", f"Bearer {api.token}"), ("Authorization", "Bearer x")]

    status, _ = raw(api, "POST", "/engine/start", [*shown, ("Content-Length", "0")])

    assert status == 401
    assert api.engine.told == []


def test_where_there_is_no_token_nobody_changes_anything(tmp_path):
    engine = FakeEngine()
    with served(build_app(engine, home=tmp_path / "home", token=None)) as url:
        for shown in ("", "Bearer", "Bearer None"):
            assert httpx.post(f"{url}/engine/start", headers={"Authorization": shown}).status_code == 401
    assert engine.told == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:3000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "{own}"},
    ],
)
def test_a_page_of_another_site_changes_nothing_even_with_the_token(api, headers):
    sent = {name: value.format(own=api.url) for name, value in headers.items()}

    assert {api.person.post(path, json=WHY, headers=sent).status_code for path in CHANGING} == {403}
    assert api.engine.told == []


def test_a_page_of_our_own_may(api):
    sent = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}

    assert api.person.post("/engine/start", headers=sent).status_code == 200


STRANGE = [
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.",
    "user@localhost",
    "[::1",
    "",
    "192.168.0.7",
    None,
]


@pytest.mark.parametrize("host", STRANGE)
@pytest.mark.parametrize("method", METHODS)
def test_under_another_name_nothing_is_answered(api, method, host):
    """DNS rebinding: a page points its own name at this machine; that name is what the browser says."""
    shown = [("Authorization", f"Bearer {api.token}"), ("Content-Length", "0")]
    named = [] if host is None else [("Host", host)]

    for path in ("/engine/status", "/engine/kill", "/openapi.json", "/docs", "/metrics", "/nowhere"):
        status, body = raw(api, method, path, [*named, *shown])

        assert status in {400, 403}, path  # uvicorn itself refuses what is no name at all
        assert b"equity" not in body
    assert api.engine.told == []


def test_two_names_are_none(api):
    status, _ = raw(api, "GET", "/engine/status", [("Host", api.netloc), ("Host", "evil.example")])

    assert status in {400, 403}


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1", "[::1]:{port}", "LOCALHOST", "desk.example"])
def test_under_its_own_names_it_is(tmp_path, host):
    with acting(tmp_path / "home", hosts=("desk.example",)) as api:
        named = host.format(port=api.url.rpartition(":")[2])

        assert api.stranger.get("/engine/status", headers={"Host": named}).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "more"),
    [
        ("evil.example", None, {}),
        ("127.0.0.1", "http://evil.example", {}),
        ("127.0.0.1", "null", {}),
        ("127.0.0.1", None, {"Sec-Fetch-Site": "cross-site"}),
    ],
)
def test_a_page_of_another_site_opens_no_socket(api, host, origin, more):
    port = int(api.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port)) as sock,
        pytest.raises(InvalidStatus) as refused,
    ):
        connect(f"ws://{host}:{port}/stream", sock=sock, origin=origin, additional_headers=more)

    assert refused.value.response.status_code == 403


def test_the_socket_of_our_own_page_opens(api):
    with connect(f"ws://{api.netloc}/stream", origin=api.url) as stream:
        stream.send(json.dumps({"channels": ["state"]}))

        assert json.loads(stream.recv(timeout=10))["channel"] == "state"


def test_no_other_site_may_read_an_answer(api):
    asked = api.stranger.get("/engine/status", headers={"Origin": "http://evil.example"})
    before = api.stranger.options(
        "/engine/kill", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    )

    assert before.status_code == 405
    for answer in (asked, before):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_up_to_a_size(api, chunked):
    body = json.dumps({"reason": "x" * BODY}).encode()
    sent = iter([body[:1000], body[1000:]]) if chunked else body

    answer = api.person.post("/engine/kill", content=sent, headers={"Content-Type": "application/json"})

    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert api.engine.told == []


def test_wishes_have_a_rate_but_for_those_that_end_trading(tmp_path):
    with acting(tmp_path / "home", allowance=Allowance(per_s=0.001, burst=3)) as api:
        answers = [api.person.post("/engine/start") for _ in range(4)]
        unknown = [api.stranger.post("/engine/start") for _ in range(3)]
        ended = [api.person.post("/engine/kill", json=WHY), api.person.post("/engine/stop")]
        seen = api.stranger.get("/engine/status")

    assert [one.status_code for one in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert {one.status_code for one in unknown} == {401}, "who has no token takes nobody's turn"
    assert [one.status_code for one in [*ended, seen]] == [200, 200, 200]


def test_an_allowance_comes_back_with_time():
    allowance = Allowance(per_s=2.0, burst=2.0)

    assert [allowance.take(now) for now in (10.0, 10.0, 10.0, 10.4, 10.6, 10.6)] == [0, 0, 1, 1, 0, 1]


def test_the_token_is_drawn_once_for_its_owner_alone(tmp_path):
    home = tmp_path / "home"
    found = []
    drawing = [threading.Thread(target=lambda: found.append(token_for(home))) for _ in range(8)]
    for one in drawing:
        one.start()
    for one in drawing:
        one.join()

    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert stat.S_IMODE((home / "api.token").stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["api.token"]
