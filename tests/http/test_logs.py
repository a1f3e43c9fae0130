"""The newest lines and the story of one order, over HTTP; and no secret in anything that can be read."""

import asyncio
import json
import os
from decimal import Decimal

import httpx
import msgspec
import pytest

from actors import logs, up
from actors.http import stream
from actors.http.app import build_app
from hean import codec
from hean.engine_settings import VenueMode
from hean.messages import Envelope, ErrorReported, OrderAccepted, Side, SubmitOrder, TimeInForce
from hean.store.journal import Journal
from tests.http.fake_engine import FakeEngine

ORDER = SubmitOrder(
    client_order_id="abc1-impulse-1",
    strategy="impulse",
    instrument="BTCUSDT-LINEAR.BYBIT",
    side=Side.BUY,
    quantity=Decimal("0.010"),
    limit=None,
    time_in_force=TimeInForce.IOC,
    reduce_only=False,
    reference=None,
    bracket=None,
)
REQUEST = "5f0c2f6a9d0e4b1a8c3d7e6f5a4b3c2d"


@pytest.fixture
def home(tmp_path):
    (tmp_path / VenueMode.SANDBOX).mkdir()
    (tmp_path / up.BEGUN).write_bytes(msgspec.json.encode(up.Begun(VenueMode.SANDBOX, 0)))
    return tmp_path


@pytest.fixture
def ask(home):
    app = build_app(FakeEngine(), home=home, token="t" * 64)

    def asked(path, method="GET", **more):
        async def run():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                return await client.request(method, path, **more)

        return asyncio.run(run())

    asked.app = app
    return asked


@pytest.fixture
def written(home):
    """Logs of some actors, in which one order goes through."""
    made = {name: logs.NodeLog(home / VenueMode.SANDBOX, name, 1) for name in ("engine", "risk", "venue")}
    made["engine"].info("begun", life=1)
    made["risk"].said([Envelope("risk@1", 9, 1, REQUEST, "engine@1:4", ORDER)])
    accepted = OrderAccepted(ORDER.client_order_id, "impulse", ORDER.instrument, "venue-17")
    made["venue"].said([Envelope("venue@1", 3, 1, "", "", accepted)])
    made["venue"].warning("slow", ms=900)
    yield made
    for log in made.values():
        log.close()


def test_the_newest_lines_come_by_time_and_by_what_is_asked_for(ask, written):
    found = ask("/logs").json()
    assert [line["event"] for line in found["lines"]] == ["begun", "SubmitOrder", "OrderAccepted", "slow"]
    assert set(found["nodes"]) >= {"engine", "risk", "venue"}
    assert found["lines"][1]["rest"]["said"]["quantity"] == "0.010"

    assert [line["event"] for line in ask("/logs?limit=1").json()["lines"]] == ["slow"]
    assert [line["event"] for line in ask("/logs?level=warning").json()["lines"]] == ["slow"]
    assert {line["node"] for line in ask("/logs?node=risk&node=engine").json()["lines"]} == {"risk", "engine"}
    assert [line["event"] for line in ask(f"/logs?trace={REQUEST}").json()["lines"]] == ["SubmitOrder"]


@pytest.mark.parametrize("sought", [REQUEST, "risk@1:9", "abc1-impulse-1", "venue-17"])
def test_the_story_is_told_from_whatever_name_is_known(sought, ask, written):
    found = ask(f"/logs/trace/{sought}").json()
    assert [line["event"] for line in found["lines"]] == ["SubmitOrder", "OrderAccepted"]
    assert (found["id"], found["traces"], found["orders"]) == (sought, [REQUEST], ["abc1-impulse-1"])


def test_what_nobody_named_is_not_found(ask, written):
    answer = ask("/logs/trace/nobody")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "nobody" in answer.json()["detail"]


def test_where_nothing_was_begun_there_are_no_lines(tmp_path, ask):
    (tmp_path / up.BEGUN).unlink()
    assert ask("/logs").json()["lines"] == []
    assert ask("/logs/trace/x").status_code == 404


def test_a_request_begins_the_story_of_what_it_set_going(ask, written):
    answer = ask(
        "/engine/kill",
        "POST",
        json={"reason": "a drill", "person": "ada"},
        headers={"Authorization": f"Bearer {'t' * 64}", "X-Request-ID": REQUEST},
    )
    assert answer.status_code == 200
    told = ask(f"/logs/trace/{REQUEST}").json()
    assert [line["event"] for line in told["lines"]] == ["SubmitOrder", "OrderAccepted", "POST /engine/kill"]
    assert ask.app.state.engine.told[-1][1]["trace"] == REQUEST


# --- secrets ----------------------------------------------------------------------------------------

API_KEY = "kX9vQ2mZ7pL4tR8wYb"
API_SECRET = "Zr8Kq3Vn5Xw1Tb7Yc2Md9Pf4Lg6Hj0Sa8Dq"  # noqa: S105 (opens nothing)
BEARER = "9c1f04be55a27d3386e0"
PHRASE = "I accept real losses, every one"
PLANTED = (API_KEY, API_SECRET, BEARER, PHRASE)


def fail(words):
    raise RuntimeError(words)


@pytest.fixture
def planted(home, monkeypatch):
    """A home and an environment with secrets in all the wrong places."""
    folder = home / VenueMode.SANDBOX
    monkeypatch.setattr(logs, "_known", set())
    monkeypatch.setenv("HEAN_API_SECRET", API_SECRET)
    monkeypatch.setenv("BYBIT_API_KEY", API_KEY)
    settings = {
        "venue": "sandbox",
        "api_key": API_KEY,
        "account": {"api_secret": API_SECRET},
        "confirm_phrase": PHRASE,
        "token": BEARER,
    }
    (folder / up.SETTINGS).write_text(json.dumps(settings))
    (folder / "origins.json").write_text(json.dumps(dict.fromkeys(settings, "file")))
    (folder / "keys.toml").write_text(f'key = "{API_KEY}"\nsecret = "{API_SECRET}"\n')
    logs.hide(API_KEY, API_SECRET, PHRASE)  # as whoever reads them does
    log = logs.NodeLog(folder, "venue", 1)
    log.info(
        "asked", headers={"X-BAPI-API-KEY": API_KEY, "Authorization": f"Bearer {BEARER}"}, body={"sign": API_SECRET}
    )
    log.info("sent", url=f"/v5/order?api_key={API_KEY}&sign={API_SECRET}", head=f"Authorization: Bearer {BEARER}")
    log.info("environment", **dict(os.environ))
    try:
        fail(f"refused: {API_KEY} with {API_SECRET}; {PHRASE}")
    except RuntimeError as failure:
        log.died(failure)
    detail = f"the venue does not know {API_KEY} / {API_SECRET}"
    reported = Envelope("venue@1", 1, 1, REQUEST, "", ErrorReported("venue", "refused", detail))
    log.said([reported])
    log.close()
    with Journal(folder / "journals" / "monitor.db", "monitor") as journal:
        journal.begin(1, 1, b"")
        journal.tell(1, 1, codec.letters([reported]))  # a journal keeps what was said, to the byte
    return home


def test_no_secret_is_in_a_log_whatever_was_written(planted):
    text = "".join(path.read_text() for path in (planted / VenueMode.SANDBOX / logs.FOLDER).iterdir())
    assert "asked" in text
    assert "environment" in text
    assert "RuntimeError" in text
    assert [secret for secret in PLANTED if secret in text] == []


def test_no_secret_is_in_any_answer_nor_in_the_log_of_the_request(planted, ask):
    token = {"Authorization": f"Bearer {BEARER}"}
    answers = [
        ask(path, headers=token)
        for path in (
            "/logs?level=debug&limit=2000",
            f"/logs/trace/{REQUEST}",
            f"/logs/trace/{API_SECRET}",
            "/settings",
            "/metrics",
            "/engine/status",
            "/strategies",
            "/processes",
            "/openapi.json",
            f"/nothing/{API_SECRET}",
            f"/orders?limit={API_SECRET}",
        )
    ]
    wrong = {"phrase": PHRASE, "nonce": API_SECRET, "secret": API_KEY}
    answers.append(ask("/engine/arm", "POST", json=wrong, headers=token))
    answers.append(ask("/engine/kill", "POST", content=f'{{"reason": "{API_SECRET}'.encode(), headers=token))
    answers.append(ask("/engine/kill", "POST", json=wrong, headers={"Authorization": f"Bearer {'t' * 64}"}))
    assert answers[4].status_code == 200, "settings that cannot be read are no reason to say nothing"
    for answer in answers:
        found = [secret for secret in PLANTED if secret in answer.text or secret in str(answer.headers)]
        assert found == [], f"{answer.request.url}: {answer.text[:500]}"

    text = "".join(path.read_text() for path in (planted / VenueMode.SANDBOX / logs.FOLDER).iterdir())
    assert "/engine/kill" in text
    assert [secret for secret in PLANTED if secret in text] == []


def test_no_secret_is_streamed(planted):
    """Not even out of the journal, which keeps what was said as it was said."""
    found = []

    async def run():
        served = stream.Stream(FakeEngine(), planted)
        client = stream.Client(None)
        for source in (served.state, served.facts, served.logs):
            source.join(client)
        for source in (served.state, served.facts, served.logs):
            following = await source.follow(client, stream.After(facts=0, logs=""))
            async with asyncio.timeout(5):
                while (frame := await following()) is None:
                    client.news.clear()
                    await client.news.wait()
            found.append(frame.text)
        for source in (served.state, served.facts, served.logs):
            source.leave(client)

    asyncio.run(run())
    assert "ErrorReported" in found[1]
    assert "environment" in found[2]
    assert [secret for secret in PLANTED for text in found if secret in text] == []
