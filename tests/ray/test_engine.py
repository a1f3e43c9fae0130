"""What a person asks of the engine, and what it keeps its word in: a kill switch, a stop, an order nobody answered for."""

import json
import os
import signal
import time
from contextlib import contextmanager
from decimal import Decimal

import psutil
import pytest
import ray
from ray._private.state import state as ray_state
from ray.core.generated.gcs_pb2 import ActorTableData

from actors import cluster as ray_cluster
from actors.cluster import NAMESPACE
from actors.exchange.drills import lose_answers, storm
from actors.exchange.opening import FIRST_UID
from hean.codec import decoded
from hean.errors import HeanError
from hean.processes.runs import OVER, RunStatus
from hean.risk.state import RiskState
from hean.units import SECOND
from tests.ray.stage import BUSY, CHURN, Truth, acting, describe, held, must_agree, must_be_exact, wait_for_flow
from tests.ray.stage import wait_until_flat as flat

CORE = ("risk", "broker", "portfolio", "reconciler", "venue", "feed")
KINDS = {
    "engine": "EngineActor",
    "feed": "FeedActor",
    "churn": "StrategyActor",
    "greedy": "StrategyActor",
    "pair": "StrategyActor",
    "risk": "RiskManagerActor",
    "broker": "BrokerActor",
    "venue": "VenueActor",
    "portfolio": "PortfolioActor",
    "reconciler": "ReconcilerActor",
    "monitor": "MonitorActor",
    "factory": "ProcessFactoryActor",
}
GREEDY = {
    "use": CHURN,
    "config": {"name": "greedy", "perp": "BTCUSDT-LINEAR.BYBIT", "every_s": 1.0},
    "sizing": {"kind": "fixed", "notional": 50_000_000},
}
NOTIONAL = Decimal(600)


@pytest.fixture(scope="module")
def stage(cluster, tmp_path_factory):
    with acting(tmp_path_factory.mktemp("engine"), {"strategies": [*BUSY["strategies"], GREEDY]}) as stage:
        stage.coins = Truth(stage.exchange).coins()
        stage.wait_until_trading()
        yield stage


def risk():
    return decoded(RiskState, ray.get(ray.get_actor("risk", namespace=NAMESPACE).state.remote()))


def at_exchange(stage):
    """Every order the exchange was ever given, by its link id."""
    records = stage.exchange.server.bybit.exchange.records[str(FIRST_UID)]
    return [order.link_id for order in list(records.orders.values())]


def must_be_silent(stage, seconds=1.5):
    """See that no order goes out."""
    before = len(at_exchange(stage))
    time.sleep(seconds)
    assert len(at_exchange(stage)) == before


# --- seen from Ray ------------------------------------------------------------------------------


def test_every_part_is_an_actor_with_a_name_and_a_class_that_take_no_cpu(stage):
    rows = ray_state._connect_and_get_accessor().get_actor_table(None, None)
    told = [ActorTableData.FromString(row) for row in rows]
    living = {one.name: one for one in told if one.state == ActorTableData.ALIVE and one.ray_namespace == NAMESPACE}

    assert {name: one.class_name for name, one in living.items()} == KINDS
    assert not any(one.required_resources.get("CPU") for one in living.values())
    assert living["churn"].repr_name == "StrategyActor(churn)"
    assert all(psutil.Process(one.pid).nice() == psutil.Process().nice() for one in living.values())
    assert {one.name: (one.kind, one.pid) for one in stage.status().actors} == {
        name: (one.class_name, one.pid) for name, one in living.items() if name != "engine"
    }


def test_no_secret_is_in_what_ray_knows_in_an_environment_or_in_a_file(cluster, stage):
    secret = stage.exchange.secret.encode()
    rows = ray_state._connect_and_get_accessor().get_actor_table(None, None)
    processes = ray_cluster.processes(cluster.home)
    seen = {process.pid: repr((process.environ(), process.cmdline())).encode() for process in processes}
    files = [path for path in stage.home.rglob("*") if path.is_file()]

    assert len(secret) > 10
    assert any(b"StrategyActor" in row for row in rows)
    assert not any(secret in row for row in rows)
    assert len(seen) > len(KINDS)
    assert not [pid for pid, text in seen.items() if secret in text]
    assert {path.name for path in files if secret in path.read_bytes()} == {"keys.toml"}


# --- why ----------------------------------------------------------------------------------------


def test_why_shows_what_was_seen_wanted_refused_and_traded(stage):
    stage.wait("a refusal", lambda _: stage.ask("why", "greedy")[0].refusals)
    stage.wait("a pair", lambda _: stage.ask("why", "pair")[0].funnel["filled"])
    churn, greedy = stage.ask("why", "churn")[0], stage.ask("why", "greedy")[0]

    assert churn.funnel["rows"] > churn.funnel["signals"] > 0
    assert churn.funnel["filled"] > 0
    assert (churn.blocked_by, churn.trading.partition(":")[0]) == ((), "ACTIVE")
    assert greedy.funnel["refused"] > 0
    assert greedy.funnel["filled"] == 0
    assert all(one.rule and one.measured != one.limit and one.count > 0 for one in greedy.refusals)
    assert {one.instrument for one in greedy.refusals} == {"BTCUSDT-LINEAR.BYBIT"}


# --- one picture --------------------------------------------------------------------------------


@contextmanager
def standing_still(stage, *names):
    """Have actors do nothing at all: whoever asks them would wait."""
    pids = [stage.pid(name) for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_everything_is_seen_though_no_trading_mailbox_answers(stage):
    wait_for_flow(stage)
    stage.wait("gates", lambda _: stage.ask("why", "churn")[0].gates)
    with standing_still(stage, "risk", "broker", "churn", "feed", "portfolio", "venue", "reconciler"):
        began = time.monotonic()
        picture, history = stage.ask("picture"), stage.ask("history")
        told = stage.ask("why", "churn")[0], stage.ask("figures")
        assert time.monotonic() - began < 3.0

    assert picture.view.phase == "RUNNING"
    assert picture.monitor.strategies["churn"].trades > 0
    assert {one.strategy: one.gates for one in picture.why}["churn"][0].startswith(("waits for: ", "met: "))
    assert told[0].funnel["signals"] > 0
    assert told[1]["churn"]["told"] > 0

    gross = next(one for one in picture.limits if one.rule == "GROSS_EXPOSURE")
    assert 0 <= gross.used < gross.limit
    churn = next(one for one in picture.strategies if one.name == "churn")
    assert (churn.enabled, churn.config["every_s"], churn.sizing["notional"]) == (True, 0.4, 600.0)
    assert churn.last_signal.endswith("ETHUSDT-LINEAR.BYBIT: churn")
    assert 0 < time.time_ns() - churn.ts_last_signal < 60 * SECOND
    eth = next(one for one in picture.feeds if one.instrument == "ETHUSDT-LINEAR.BYBIT")
    assert eth.live
    assert eth.age_s == min(eth.ages_s.values()) < 30
    assert eth.rows > 0
    assert {one.name for one in picture.consumers} == {"churn", "greedy", "pair", "portfolio", "broker"}

    assert [point.ts for point in history.curve] == sorted(point.ts for point in history.curve)
    assert history.fills[0].ts >= history.fills[-1].ts
    assert {fill.client_order_id for fill in history.fills} <= set(at_exchange(stage))
    assert {trip.strategy for trip in history.trips} <= {"churn", "pair"}


def lines(stage, node, trace):
    found = (json.loads(line) for line in (stage.home / "logs" / f"{node}.log").read_text().splitlines())
    return [one for one in found if one.get("trace") == trace]


def test_what_a_person_sets_going_carries_the_trace_of_it(stage):
    trace = "0af7651916cd43dd8448eb211c80319c"
    stage.ask("stop", finish=True, person="ada", reason="a look", trace=trace)
    stage.wait("a stop", lambda one: one.trading == "REDUCING")
    stage.ask("start", person="ada", trace=trace[::-1])
    stage.wait_until_trading()

    asked, told = lines(stage, "engine", trace)
    assert (asked["what"], asked["person"], asked["reason"]) == ("stop", "ada", "a look")
    assert told["said"] == {
        "type": "StopTrading",
        "flatten": False,
        "finish": True,
        "person": "ada",
        "reason": "a look",
    }
    assert "TradingStateChanged" in {one["event"] for one in lines(stage, "risk", trace)}
    assert "TradingStateChanged" in {one["event"] for one in lines(stage, "risk", trace[::-1])}


# --- one strategy ---------------------------------------------------------------------------------


def is_on(stage, name):
    return next(one.enabled for one in stage.ask("picture").strategies if one.name == name)


def test_a_strategy_that_is_switched_off_stays_so_and_the_others_go_on(stage):
    wait_for_flow(stage)
    stage.ask("switch", "churn", False, "ada", "too much of it")
    stage.wait("it off", lambda _: is_on(stage, "churn") is False)
    epoch = stage.status().epoch
    stage.kill("risk")
    stage.wait_until_trading(after=epoch)
    stage.wait("a refusal", lambda _: any(one.rule == "STRATEGY_OFF" for one in stage.ask("why", "churn")[0].refusals))
    assert is_on(stage, "churn") is False
    stage.wait(
        "it flat", lambda one: not [held for held in one.positions if held.strategy == "churn" and held.quantity]
    )
    before = stage.ask("why", "pair")[0].funnel["filled"]
    stage.wait("another's trade", lambda _: stage.ask("why", "pair")[0].funnel["filled"] > before)
    assert not [one for one in stage.status().positions if one.strategy == "churn" and one.quantity]

    stage.ask("switch", "churn", True, "ada", "enough")
    stage.wait("it on", lambda _: is_on(stage, "churn"))
    stage.wait("a position", lambda one: any(held.strategy == "churn" and held.quantity for held in one.positions))
    with pytest.raises(HeanError, match="there is no strategy chrun"):
        refused(stage, "switch", "chrun", False, "ada", "x")
    with pytest.raises(HeanError, match="says why"):
        refused(stage, "switch", "churn", False, "ada", " ")


def test_a_strategy_is_set_otherwise_with_what_is_held_as_it_is(stage):
    wait_for_flow(stage)
    epoch = stage.status().epoch
    began = time.monotonic()
    pids = {one.name: one.pid for one in stage.status().actors if one.kind != "ProcessFactoryActor"}
    said = stage.ask("configure", "churn", {"every_s": 0.6}, "ada", "calmer")
    assert "every_s from 0.4 to 0.6" in said
    stage.wait_until_trading(after=epoch)
    print(f"other settings after {time.monotonic() - began:.1f} s")
    churn = next(one for one in stage.ask("picture").strategies if one.name == "churn")
    assert churn.config["every_s"] == 0.6
    (asked,) = [one for one in lines(stage, "engine", "") if one["event"] == "asked" and one["what"] == "configure"]
    assert (asked["person"], asked["reason"], asked["changes"]) == ("ada", "calmer", "every_s from 0.4 to 0.6")
    assert {one.name: one.pid for one in stage.status().actors if one.kind != "ProcessFactoryActor"} == pids
    for changes, why in (({"evry_s": 1}, "did you mean every_s"), ({"every_s": 0.6}, "nothing would change")):
        with pytest.raises(HeanError, match=why):
            refused(stage, "configure", "churn", changes, "ada", "x")
    wait_for_flow(stage)
    must_agree(stage)


def test_while_only_the_venue_is_silent_nobody_is_to_blame(stage):
    epoch = stage.status().epoch
    with storm(stage.exchange, status=502, path="/v5/position/set-leverage", next=1):
        stage.kill("risk")
        status = stage.wait("trouble", lambda one: any("leverage" in reason for reason in one.blocked))
    pids = {one.name: one.pid for one in status.actors if one.kind != "ProcessFactoryActor"}
    stage.wait_until_trading(after=epoch + 1)
    assert {one.name: one.pid for one in stage.status().actors if one.kind != "ProcessFactoryActor"} == pids
    wait_for_flow(stage)
    must_agree(stage)


def refused(stage, method, *arguments):
    try:
        stage.ask(method, *arguments)
    except ray.exceptions.RayTaskError as refusal:
        raise refusal.cause from None


# --- orders nobody answers for ------------------------------------------------------------------


def test_an_order_whose_answer_is_lost_is_looked_up_and_not_sent_again(stage):
    unknown = stage.ask("why", "churn")[0].funnel["unknown"]
    with lose_answers(stage.exchange, next=3) as lever:
        stage.wait("loss", lambda _: any("3" in effect for effect in lever.effects), 30)
    wait_for_flow(stage, 8)
    must_agree(stage)

    assert len(set(at_exchange(stage))) == len(at_exchange(stage))
    assert most_held(stage) < NOTIONAL * Decimal("1.1")
    assert stage.ask("why", "churn")[0].funnel["unknown"] == unknown, "every one of them has ended"


def test_an_order_that_never_arrived_is_refused_after_it_was_looked_up(stage):
    rejected = rejections(stage)
    with storm(stage.exchange, status=502, path="/v5/order/create", next=3) as lever:
        stage.wait("storm", lambda _: any("3" in effect for effect in lever.effects), 30)
    stage.wait("rejections", lambda _: rejections(stage) > rejected, 30)
    wait_for_flow(stage, 8)
    must_agree(stage)

    assert most_held(stage) < NOTIONAL * Decimal("1.1")


def rejections(stage):
    return sum(one.funnel["rejected"] for one in stage.ask("why"))


def most_held(stage):
    """The largest position in the contract that one strategy alone trades, ever: one order too many would double it."""
    truth, fills, cursor = Truth(stage.exchange), [], None
    while True:
        page = truth.session.get_executions(category="linear", symbol="ETHUSDT", limit=100, cursor=cursor)["result"]
        fills += [one for one in page["list"] if one["execType"] == "Trade"]
        cursor = page["nextPageCursor"]
        if not cursor or not page["list"]:
            break
    held, most = Decimal(0), Decimal(0)
    for one in reversed(fills):
        held += Decimal(one["execQty"]) * (1 if one["side"] == "Buy" else -1)
        most = max(most, abs(held) * Decimal(one["execPrice"]))
    assert most > 0
    return most


# --- a person stops -----------------------------------------------------------------------------


def test_a_stop_outlives_the_death_of_risk(stage):
    wait_for_flow(stage)
    epoch = stage.status().epoch
    stage.ask("stop", flatten=False)
    stage.kill("risk")
    status = stage.wait("new life", lambda one: one.epoch > epoch and one.phase == "RUNNING")

    assert status.trading in {"HALTED", "REDUCING"}
    assert any("hean start" in reason for reason in status.blocked)
    assert any("hean start" in reason for reason in stage.ask("why", "churn")[0].blocked_by)
    must_be_silent(stage)
    stage.ask("start")
    stage.wait_until_trading()


def test_what_was_to_be_closed_is_closed_though_everybody_dies_in_the_midst(stage):
    wait_for_flow(stage)
    stage.wait("position", held)
    epoch = stage.status().epoch
    stage.ask("stop", flatten=True)
    stage.kill(*CORE)
    stage.wait("new life", lambda one: one.epoch > epoch and one.phase == "RUNNING")
    flat(stage)
    must_be_exact(stage)
    must_be_silent(stage)
    stage.ask("start")
    stage.wait_until_trading()


# --- the smoke test -----------------------------------------------------------------------------


def factory(method, *arguments, **named):
    limit = time.monotonic() + 20
    while True:
        try:
            actor = ray.get_actor("factory", namespace=NAMESPACE)
            return ray.get(getattr(actor, method).remote(*arguments, **named), timeout=20)
        except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError, ValueError) as failure:
            # One that was killed is begun anew.
            if time.monotonic() > limit or (
                isinstance(failure, ray.exceptions.RayTaskError) and "begun" not in str(failure)
            ):
                raise
            time.sleep(0.2)


def over(run_id, seconds=60):
    limit = time.monotonic() + seconds
    while (run := factory("run", run_id)).status not in OVER:
        assert time.monotonic() < limit, f"it does not end: {run}"
        time.sleep(0.1)
    return run


def probes(stage):
    return [link for link in Truth(stage.exchange).open_orders() if link.startswith("smoke-")]


def wait_for_probe(stage):
    limit = time.monotonic() + 30
    while not probes(stage):
        assert time.monotonic() < limit, "no order of the smoke test rests"
        time.sleep(0.05)


def test_a_smoke_test_goes_through_the_engine_and_leaves_nothing(stage):
    run = over(factory("request", "smoke-test", {}))

    assert run.status is RunStatus.COMPLETED, run
    report = next(step.output for step in run.steps if step.name == "probe")
    assert list(report) == ["rules", "sent", "acknowledged", "amended", "canceled"]
    assert not probes(stage)
    assert any(link.startswith("smoke-") for link in at_exchange(stage))


@pytest.fixture
def slowly(stage):
    """Let a smoke test's order rest: what amends it gets no answer."""
    with storm(stage.exchange, status=502, path="/v5/order/amend"):
        yield


def test_a_smoke_test_that_is_cancelled_calls_its_order_back(stage, slowly):
    run_id = factory("request", "smoke-test", {})
    wait_for_probe(stage)
    factory("cancel", run_id, "anna", "enough")

    assert over(run_id).status is RunStatus.CANCELED
    wait_for_no_probe(stage)


def test_a_smoke_test_survives_its_factory(stage, slowly):
    epoch = stage.status().epoch
    run_id = factory("request", "smoke-test", {"patience_s": "3"})
    wait_for_probe(stage)
    stage.kill("factory")
    over(run_id, 60)

    wait_for_no_probe(stage)
    assert stage.status().epoch == epoch, "nobody else was concerned"


def wait_for_no_probe(stage):
    limit = time.monotonic() + 20
    while probes(stage):
        assert time.monotonic() < limit, "an order of the smoke test is left"
        time.sleep(0.1)


# --- the kill switch ----------------------------------------------------------------------------


def test_a_person_pulls_the_kill_switch_and_it_stays_pulled(stage):
    wait_for_flow(stage)
    stage.wait("both at work", lambda one: sum(row.strategy == "pair" for row in held(one)) == 2)
    stage.ask("kill", "anna", "I do not like it")
    flat(stage)
    stage.wait("venue's word", lambda _: risk().flattening is None, 30)
    status = stage.status()
    assert status.trading == "HALTED"
    assert "anna: I do not like it" in status.tripped
    assert risk().kill.tripped == "PERSON"
    must_have_closed_the_pair_as_one(stage)
    must_be_exact(stage)
    must_be_silent(stage)
    left = Truth(stage.exchange).coins()
    # What was there before is there still, but for what is too little to sell.
    assert abs(left["BTC"] - stage.coins["BTC"]) < Decimal("0.0001")
    assert left["ETH"] == stage.coins["ETH"]

    pids = [one.pid for one in status.actors]
    os.kill(stage.ask("pid"), signal.SIGKILL)
    for pid in pids:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)
    status = stage.wait("new life", lambda one: one.epoch > status.epoch and one.phase == "RUNNING")
    assert status.trading == "HALTED"
    assert "anna" in status.tripped

    stage.ask("start")
    time.sleep(1.5)
    assert stage.status().trading == "HALTED"
    assert any("hean reset" in reason for reason in stage.ask("why", "churn")[0].blocked_by)
    with pytest.raises(ray.exceptions.RayTaskError, match="give a name and a reason"):
        stage.ask("reset", "anna", " ")
    assert stage.status().trading == "HALTED"
    must_be_silent(stage, 0.5)

    stage.ask("reset", "anna", "it was the weather")
    stage.ask("start")
    stage.wait_until_trading()
    wait_for_flow(stage)
    must_agree(stage)


def must_have_closed_the_pair_as_one(stage):
    """By what risk has said since it began, the last word about the pair is to close it, both legs together."""
    lines = [json.loads(line) for line in (stage.home / "logs" / "risk.log").read_text().splitlines()]
    said = [line for line in lines if line.get("said", {}).get("strategy") == "pair"]
    orders = [line for line in said if line["event"] in {"SubmitPair", "SubmitOrder"}]
    assert (orders[-1]["event"], orders[-1]["said"]["opening"]) == ("SubmitPair", False)


def test_the_kill_switch_counts_though_risk_is_not_there_to_hear_it(stage):
    wait_for_flow(stage)
    stage.kill("risk")
    stage.ask("kill", "bert", "while it was down")
    status = stage.wait("trip", lambda one: "bert" in one.tripped)
    flat(stage)
    assert stage.status().trading == "HALTED", describe(status)
    must_be_silent(stage, 0.5)
    assert not (stage.home / "latched.json").exists(), "risk has it in its journal"

    stage.ask("reset", "bert", "it was a test")
    stage.ask("start")
    stage.wait_until_trading()
    must_agree(stage)
