"""What is seen is what the engine showed: whole, in the shapes of the document, and never nought for what is not known."""

import time

import pytest
from msgspec.structs import replace

from actors.http import schemas
from actors.words import History, Phase
from hean.monitor import MonitorState
from tests.http.fake_engine import BASIS, HARVEST, IMPULSE, FakeEngine, gone, late

READS = {
    "/engine/status": schemas.Status,
    "/health": schemas.Health,
    "/positions": schemas.Positions,
    "/orders?limit=1000": schemas.Orders,
    "/fills?limit=1000": schemas.Fills,
    "/trades?limit=1000": schemas.Trades,
    "/equity?points=4000": schemas.Equity,
    "/strategies": schemas.Strategies,
    f"/strategies/{IMPULSE}": schemas.Strategy,
    "/risk": schemas.Risk,
    "/why": schemas.Whys,
    "/settings": schemas.Settings,
    "/processes": schemas.Processes,
    "/processes/smoke-test-3": schemas.Run,
}


class Blank(FakeEngine):
    """An engine that was begun this instant: nothing was said yet."""

    async def picture(self):
        seen = await super().picture()
        view = replace(
            seen.view,
            phase=Phase.STARTING,
            trading=None,
            equity=None,
            equity_age_s=None,
            marks_known=None,
            reconcile_lag_s=None,
            discrepancies=None,
            recovery_s=None,
            positions=(),
            actors=tuple(
                replace(one, pid=None, alive=False, age_s=None, lag_ms=None, told=None, said=None)
                for one in seen.view.actors
            ),
        )
        cards = tuple(replace(one, enabled=None, ts_last_signal=None, last_signal="") for one in seen.strategies)
        feeds = tuple(replace(one, live=None, age_s=None, ages_s={}) for one in seen.feeds)
        limits = tuple(replace(one, used=None, amount=None) for one in seen.limits)
        return replace(seen, view=view, monitor=MonitorState(), why=(), limits=limits, strategies=cards, feeds=feeds)

    async def history(self):
        return History(time.time_ns(), (), (), ())


@pytest.mark.parametrize("path", READS)
def test_every_answer_has_the_shape_of_its_document(api, path):
    answer = api.stranger.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    READS[path].model_validate_json(answer.content)


@pytest.mark.parametrize("path", READS)
def test_what_nobody_has_said_is_null(api, path):
    blank = Blank()
    api.engine.picture, api.engine.history = blank.picture, blank.history

    answer = api.stranger.get(path)

    assert answer.status_code == (503 if path == "/health" else 200)
    READS[path].model_validate_json(answer.content)


def test_an_equity_nobody_knows_is_not_nought(api):
    blank = Blank()
    api.engine.picture = blank.picture

    said = api.stranger.get("/engine/status").json()
    risk = api.stranger.get("/risk").json()

    assert [said[name] for name in ("equity", "trading", "reconcile_lag_s", "discrepancies")] == [None] * 4
    assert {(one["used"], one["left"]) for one in risk["limits"]} == {(None, None)}
    assert risk["naked"] is None
    assert api.stranger.get("/positions").json()["reconciled"] is None


def test_money_is_text_to_the_last_digit(api):
    status, held = api.stranger.get("/engine/status").json(), api.stranger.get("/positions").json()

    assert isinstance(status["equity"], str)
    assert all(isinstance(one["quantity"], str) for one in held["positions"])


def test_legs_that_hedge_each_other_are_a_pair(api):
    pairs = api.stranger.get("/positions").json()["pairs"]

    assert [(one["strategy"], one["base"], len(one["legs"]), float(one["net"])) for one in pairs] == [
        (BASIS, "ETH", 2, 0.0),
        (HARVEST, "BTC", 2, 0.0),
    ]


def test_orders_are_of_every_status_and_can_be_asked_by_one(api):
    everything = api.stranger.get("/orders?limit=1000").json()["orders"]
    canceled = api.stranger.get("/orders?limit=1000&status=canceled").json()["orders"]
    two = api.stranger.get(f"/orders?limit=2&strategy={HARVEST}").json()["orders"]

    assert {one["status"] for one in everything} == {
        "unknown", "accepted", "filled", "rejected", "canceled", "expired",
    }  # fmt: skip
    assert canceled == [one | {"age_s": canceled[at]["age_s"]} for at, one in enumerate(everything_of(everything))]
    assert [one["strategy"] for one in two] == [HARVEST, HARVEST]


def everything_of(orders):
    return [one for one in orders if one["status"] == "canceled"]


def test_a_curve_keeps_both_its_ends(api):
    whole = api.stranger.get("/equity?points=4000").json()["curve"]
    few = api.stranger.get("/equity?points=5").json()["curve"]

    assert len(few) == 5
    assert few[0] == whole[0]
    assert few[-1]["ts"] >= whole[-1]["ts"]
    assert all(set(one["parts"]) >= {"price", "basis", "funding", "fees", "slippage"} for one in few)


def test_the_parts_of_a_profit_add_up(api):
    said = api.stranger.get("/equity?points=1").json()

    for parts in said["by_strategy"].values():
        assert sum(float(part) for name, part in parts.items() if name != "net") == pytest.approx(float(parts["net"]))
    assert float(said["equity"]) == pytest.approx(
        100_000 + sum(float(parts["net"]) for parts in said["by_strategy"].values()), abs=0.01
    )


def test_settings_say_who_set_them_and_hide_what_is_secret(api):
    found = {one["name"]: (one["value"], one["origin"]) for one in api.stranger.get("/settings").json()["settings"]}

    assert found["symbols"] == (["BTCUSDT", "ETHUSDT"], "file")
    assert found["venue"] == ("sandbox", "default")
    assert found["risk.gross_exposure"] == (2.0, None)
    assert found["confirm_phrase"][0] == "…"


@pytest.mark.parametrize("path", ["/strategies/nobody", "/why?strategy=nobody", "/processes/nobody", "/nowhere"])
def test_what_is_not_there_is_said_to_be_so(api, path):
    answer = api.stranger.get(path)

    assert answer.status_code == 404
    assert answer.json()["detail"]


def test_it_is_well_while_a_person_has_stopped_trading(api):
    api.person.post("/engine/stop", json={"mode": "reduce"})

    assert api.stranger.get("/health").json()["ok"] is True


def test_it_is_not_well_when_the_kill_switch_is_pulled_or_an_actor_is_gone(api):
    api.person.post("/engine/kill", json={"reason": "a drill", "person": "ada"})
    whole = api.engine._actors
    api.engine._actors = lambda now: tuple(replace(one, alive=one.name != "risk") for one in whole(now))

    answer = api.stranger.get("/health")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == [
        "the kill switch was tripped by a person: ada: a drill",
        "risk does not answer",
    ]


@pytest.mark.parametrize("failure", [gone(), late()])
def test_health_says_that_nobody_is_there(api, failure):
    api.engine.failure = failure

    answer = api.stranger.get("/health")

    assert answer.status_code == 503
    assert answer.json()["reasons"] == [str(failure)]


def test_the_routes_of_the_others_are_there(api):
    """The market, the logs and the metrics have tests of their own."""
    answers = {path: api.stranger.get(path).status_code for path in ("/metrics", "/logs", "/carry", "/instruments")}

    assert answers == {"/metrics": 200, "/logs": 200, "/carry": 503, "/instruments": 503}
