"""No secret is in any answer or log, however it came near: in a setting, a strategy's parameters, an error's words, a request."""

import json
from random import Random

import pytest
from msgspec.structs import replace

from hean.errors import ConfigError, HeanError
from tests.http.fake_engine import HARVEST
from tests.http.test_seeing import READS

SECRET = "xK9" + "".join(Random(5).choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=33))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"
WHY = {"reason": "a drill"}


@pytest.fixture
def planted(own, monkeypatch):
    """Secrets wherever somebody may have put one."""
    monkeypatch.setenv("BYBIT_API_SECRET", SECRET)
    monkeypatch.setenv("HEAN_ADMIN_TOKEN", SECRET)
    (own.folder / "keys.toml").write_text(f'key = "{SECRET}"\nsecret = "{SECRET}"\n')
    path = own.folder / "settings.json"
    tree = json.loads(path.read_bytes())
    tree |= {"confirm_phrase": SECRET, "account": {"api_key": SECRET, "timeout_s": 2.0}, "feed": {"note": PEM}}
    path.write_text(json.dumps(tree))
    own.engine.config[HARVEST] |= {"password": SECRET, "note": f"with {SECRET} in it", "nested": [{"token": SECRET}]}
    run = own.engine._runs["backtest-2"]
    steps = tuple(replace(one, output={"signature": SECRET, "said": [f"key {SECRET}"]}) for one in run.steps)
    own.engine._runs["backtest-2"] = replace(run, arguments={"api_key": SECRET}, steps=steps)
    return own


def everything(api):
    """Every answer that can be had, and every log."""
    paths = [*READS, "/processes/backtest-2", "/logs", "/metrics", "/openapi.json", "/docs"]
    answers = [api.stranger.get(path) for path in paths]
    return [one.text for one in answers] + [path.read_text() for path in (api.folder / "logs").iterdir()]


def test_what_is_planted_is_shown_nowhere(planted):
    found = everything(planted)

    assert not [text for text in found if SECRET in text or planted.token in text]
    assert any("…" in text for text in found), "it is hidden, not left out"


@pytest.mark.parametrize("kind", [HeanError, ConfigError, ZeroDivisionError])
@pytest.mark.parametrize("words", [f"refused: key={SECRET} is wrong", PEM, "token {token} is wrong"])
def test_an_error_does_not_tell_it_either(planted, kind, words):
    planted.engine.failure = kind(words.format(token=planted.token))
    answers = [
        planted.stranger.get("/engine/status"),
        planted.stranger.get("/health"),
        planted.stranger.get("/metrics"),
        planted.person.post("/engine/kill", json=WHY),
    ]
    planted.engine.failure = None

    found = [one.text for one in answers] + everything(planted)
    assert not [text for text in found if SECRET in text or planted.token in text]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/engine/kill", {"reason": 7, "api_secret": SECRET}),
        ("/engine/kill", {SECRET: "x"}),
        (f"/engine/kill?secret={SECRET}", {"reason": [SECRET]}),
        (f"/strategies/{SECRET}/enable", WHY),
        ("/engine/stop", {"mode": SECRET}),
    ],
)
def test_what_is_sent_by_mistake_is_not_repeated(own, path, body):
    answer = own.person.post(path, json=body, headers={"X-Request-ID": SECRET})

    assert answer.status_code in {404, 422}
    assert not [text for text in [answer.text, *everything(own)] if SECRET in text]
