"""The page's line to the API, against the API itself."""

import asyncio

import pytest

from actors.page.client import Api, ApiError, Command
from hean.errors import ConfigError
from tests.page.stage import Server


def through(api, *doings):
    """Do things one after the other; what each came to."""

    async def doing():
        try:
            return [await one(api) for one in doings]
        finally:
            await api.close()

    return asyncio.run(doing())


def test_what_is_asked_is_answered_as_the_api_says_it(server):
    api = Api(server.url, server.token_file)

    status, orders = through(
        api, lambda api: api.get("/engine/status"), lambda api: api.get("/orders", limit=3, strategy=None)
    )

    assert status["venue"] == "sandbox"
    assert len(orders["orders"]) == 3


def test_a_command_that_is_sent_twice_is_done_once(server):
    stop = Command("/engine/stop", {"mode": "reduce", "reason": "test", "person": "ada"})

    first, again = through(Api(server.url, server.token_file), *[lambda api: api.send(stop)] * 2)

    assert len(server.heard("stop")) == 1
    assert first.body == again.body


def test_two_commands_that_say_the_same_are_two(server):
    through(
        Api(server.url, server.token_file),
        *[lambda api: api.send(Command("/engine/stop", {"mode": "reduce", "reason": "test"}))] * 2,
    )

    assert len(server.heard("stop")) == 2


def test_an_answer_names_the_request_under_which_the_logs_tell_more(server):
    (answer,) = through(Api(server.url, server.token_file), lambda api: api.send(Command("/engine/start")))

    assert answer.request_id == answer.body["request_id"] == server.heard("start")[0]["trace"]


def test_a_refusal_is_the_engines_own_words(server):
    reset = Command("/engine/reset", {"person": "ada", "reason": "test"})

    with pytest.raises(ApiError, match="the kill switch is not pulled") as refused:
        through(Api(server.url, server.token_file), lambda api: api.send(reset))

    assert refused.value.status == 409
    assert len(refused.value.request_id) == 32
    assert not refused.value.is_silence


def test_a_command_that_lacks_something_says_what(server):
    with pytest.raises(ApiError, match="reason") as refused:
        through(Api(server.url, server.token_file), lambda api: api.send(Command("/engine/kill", {"person": "ada"})))

    assert any("reason" in name for name in refused.value.by_field)
    assert server.heard("kill") == []


def test_nobody_there_is_silence_and_no_refusal(tmp_path):
    server = Server(tmp_path)
    server.begin()
    server.end()

    with pytest.raises(ApiError, match="cannot be reached") as silence:
        through(Api(server.url, server.token_file), lambda api: api.get("/engine/status"))

    assert silence.value.is_silence


def test_a_proxy_of_the_environment_is_not_gone_through(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")

    (status,) = through(Api(server.url, server.token_file), lambda api: api.get("/engine/status"))

    assert status["venue"] == "sandbox"


def test_a_token_that_others_may_read_is_not_used(server):
    server.token_file.chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        through(Api(server.url, server.token_file), lambda api: api.send(Command("/engine/start")))

    assert server.heard("start") == []


def test_without_a_token_it_can_be_looked_and_nothing_done(server):
    server.token_file.unlink()
    api = Api(server.url, server.token_file)

    with pytest.raises(ConfigError, match="cannot be read"):
        through(api, lambda api: api.get("/positions"), lambda api: api.send(Command("/engine/start")))
