"""Whom the page lets in: only browsers that this very host sent here."""

import asyncio

import pytest

from actors.page.guard import HEADERS, Guard

HERE = "127.0.0.1:3000"
NAMES = ("127.0.0.1", "localhost", "[::1]", "desk.example")


async def _page(scope, _receive, send):
    """Greets whoever reaches it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the page"})


def _asked(kind, headers, method="GET"):
    """What is sent to whoever asks so."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    told = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": kind, "path": "/", "headers": told} | ({"method": method} if kind == "http" else {})
    asyncio.run(Guard(_page, hosts=NAMES)(scope, receive, send))
    return sent


def _answer(method="GET", **headers):
    return _asked("http", [(name.replace("_", "-"), value) for name, value in headers.items()], method)[0]


def _opened(**headers):
    return _asked("websocket", list(headers.items()))[0]


@pytest.mark.parametrize(
    "host", [HERE, "127.0.0.1", "localhost:3000", "LOCALHOST:3000", "[::1]:3000", "[::1]", "desk.example"]
)
def test_who_calls_this_machine_by_its_name_is_served(host):
    answer = _answer(host=host)

    assert answer["status"] == 200
    assert set(HEADERS) <= set(answer["headers"])


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "127.0.0.1.evil.example",
        "",
        "localhost.:3000",
        "127.0.0.1@evil.example",
        "[::1].evil",
    ],
)
def test_a_name_of_somebody_else_that_points_here_is_refused(host):
    answer = _answer(host=host)

    assert answer["status"] == 403
    assert set(HEADERS) <= set(answer["headers"])


def test_who_names_no_host_is_refused():
    assert _answer()["status"] == 403


def test_a_host_that_is_said_twice_is_no_host():
    assert _asked("http", [("host", HERE), ("host", "evil.example")])[0]["status"] == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8000"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=lambda headers: " ".join(f"{name} {value}" for name, value in headers.items()),
)
def test_another_site_may_not_speak_to_the_page(method, headers):
    assert _answer(method, host=HERE, **headers)["status"] == 403


@pytest.mark.parametrize(
    "headers", [{"origin": f"http://{HERE}"}, {"sec_fetch_site": "same-origin"}, {"sec_fetch_site": "none"}]
)
def test_the_page_speaks_to_itself(headers):
    assert _answer("POST", host=HERE, **headers)["status"] == 200


def test_a_link_elsewhere_may_lead_here_but_send_nothing():
    led = {"host": HERE, "sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}

    assert _answer(**led)["status"] == 200
    assert _answer("POST", **led)["status"] == 403


def test_the_page_opens_its_own_socket():
    assert _opened(host=HERE, origin=f"http://{HERE}") == {"type": "websocket.accept"}


@pytest.mark.parametrize(
    "headers",
    [
        {"host": HERE, "origin": "http://evil.example"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"host": HERE, "origin": "http://127.0.0.1:3001"},
        {"host": HERE},
    ],
    ids=["another site", "a name of somebody else", "another port", "nobody says whence"],
)
def test_nobody_else_opens_it(headers):
    closed = _opened(**headers)

    assert (closed["type"], closed["code"]) == ("websocket.close", 1008)
