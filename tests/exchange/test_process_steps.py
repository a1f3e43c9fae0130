"""The steps of processes against the exchange on loopback: what each finds, and what it does not do twice."""

import time
from decimal import Decimal
from pathlib import Path

import pytest

from actors.gateways.bybit_endpoint import MAINNET, loopback
from actors.gateways.fence import Fence, write_epoch
from actors.process_steps import (
    Errand,
    ProcessPlan,
    amend,
    backtest,
    cancel,
    fetch,
    findings_in,
    look,
    none_left,
    place,
    probe,
    scan_account,
    scan_clock,
    scan_market,
    scan_rules,
    smoke_test,
)
from hean.errors import ConfigError, HeanError, VenueError
from hean.processes.environment import Freshness, environment
from hean.store.catalog import Catalog
from hean.units import MINUTE, utc
from tests.exchange.conftest import ANN

PERP = "BTCUSDT-LINEAR.BYBIT"
GIVEN = {"instrument": PERP, "distance": "0.10", "patience_s": "5", "asked": "1"}


@pytest.fixture
def plan(server, tmp_path):
    keys = tmp_path / "keys.toml"
    keys.write_text(f'key = "{ANN.key}"\nsecret = "{ANN.secret}"\n')
    keys.chmod(0o600)
    return ProcessPlan(tmp_path, tmp_path / "catalog", loopback(server.port), keys)


def errand(plan, step="s", attempt=1, given=None, **inputs):
    return Errand("r-1", "p", step, attempt, GIVEN if given is None else given, inputs, plan)


def open_orders(server):
    return server.read("/v5/order/realtime", ANN, category="linear", symbol="BTCUSDT")["list"]


# --- smoke test ----------------------------------------------------------------------------------


def test_a_smoke_test_without_an_engine_goes_there_and_back(server, plan):
    found = smoke_test(plan)
    assert list(found) == ["look", "place", "amend", "cancel", "verify"]
    assert Decimal(found["place"]["price"]) <= Decimal("0.9") * Decimal(found["look"]["bid"])
    assert Decimal(found["amend"]["price"]) < Decimal(found["place"]["price"])
    assert found["verify"]["checked"]
    assert open_orders(server) == []
    (order,) = server.read("/v5/order/history", ANN, category="linear", orderLinkId=found["place"]["order_id"])["list"]
    assert (order["orderStatus"], Decimal(order["price"])) == ("Cancelled", Decimal(found["amend"]["price"]))


def test_a_second_attempt_at_placing_finds_the_order_of_the_first(server, plan):
    seen = look(errand(plan))
    first = place(errand(plan, look=seen))
    again = place(errand(plan, attempt=2, look=seen))
    assert again["found"] == "an earlier attempt sent it"
    assert again["order_id"] == first["order_id"]
    assert len(open_orders(server)) == 1


def test_a_second_attempt_places_the_order_that_never_arrived(server, plan):
    place(errand(plan, attempt=2, look=look(errand(plan))))
    assert len(open_orders(server)) == 1


def test_amending_and_cancelling_twice_does_no_harm(server, plan):
    placed = place(errand(plan, look=(seen := look(errand(plan)))))
    first = amend(errand(plan, look=seen, place=placed))
    again = amend(errand(plan, attempt=2, look=seen, place=placed))
    assert first["price"] == again["price"]
    assert Decimal(open_orders(server)[0]["price"]) == Decimal(first["price"])
    cancel(errand(plan, amend=first))
    cancel(errand(plan, attempt=2, amend=first))
    assert open_orders(server) == []


def test_an_order_that_is_left_is_named(server, plan):
    placed = place(errand(plan, look=look(errand(plan))))
    with pytest.raises(VenueError, match=f"{placed['order_id']} is still open"):
        none_left(errand(plan))


def test_on_paper_nobody_is_asked_whether_an_order_is_left(plan, tmp_path):
    paper = ProcessPlan(tmp_path, plan.catalog, plan.endpoint, None)
    assert none_left(errand(paper))["checked"] is False
    with pytest.raises(ConfigError, match="on paper"):
        place(errand(paper, look=look(errand(paper))))


def test_nothing_is_sent_past_a_running_engine_or_to_the_main_net(server, plan, tmp_path):
    seen = look(errand(plan))
    write_epoch(plan.home, 3)
    engine = Fence(plan.home, 3)
    try:
        with pytest.raises(VenueError, match="is held by process"):
            place(errand(plan, look=seen))
    finally:
        engine.release()
    with pytest.raises(ConfigError, match="main net"):
        place(errand(ProcessPlan(tmp_path, plan.catalog, MAINNET, plan.keys), look=seen))
    assert open_orders(server) == []


def test_each_attempt_at_a_probe_has_its_own_order_and_calls_earlier_ones_back(plan):
    seen = look(errand(plan))
    first, third = (probe(errand(plan, attempt=number, look=seen)).config for number in (1, 3))
    assert third.earlier[0] == first.order_id
    assert third.order_id not in third.earlier
    assert (len(third.earlier), first.run_id, third.run_id) == (2, "r-1/s/1", "r-1/s/3")


# --- environment scan ----------------------------------------------------------------------------


def scanned(plan, symbols="BTCUSDT"):
    given = {"symbols": symbols}
    works = (scan_clock, scan_rules, scan_market, scan_account)
    found = [one for work in works for one in findings_in(work(errand(plan, given=given)))]
    return environment(found, max(one.as_of for one in found))


def test_a_scan_finds_rules_prices_funding_fees_and_balances(plan):
    seen = scanned(plan)
    absent = {name: fact.reason for name, fact in seen.facts.items() if fact.freshness is not Freshness.CURRENT}
    assert absent == {}
    assert seen.current(f"{PERP} tick") == "0.1"
    assert Decimal(seen.current(f"{PERP} spread bp")) > 0
    assert Decimal(seen.current(f"{PERP} depth of bids within 10 bp")) > 0
    assert Decimal(seen.current(f"{PERP} taker fee")) > 0
    assert Decimal(seen.current("wallet USDT")) == 100_000
    assert {fact.source for fact in seen.facts.values()} >= {"Bybit v5 market/tickers", "Bybit v5 account/fee-rate"}


def test_what_the_venue_does_not_list_is_absent_and_the_rest_is_there(plan):
    seen = scanned(plan, "BTCUSDT,NOSUCHUSDT")
    assert seen.current(f"{PERP} bid") is not None
    missing = seen.facts["NOSUCHUSDT-LINEAR.BYBIT tick"]
    assert (missing.value, missing.freshness) == (None, Freshness.ABSENT)
    assert "NOSUCHUSDT" in missing.reason
    assert seen.facts["NOSUCHUSDT-LINEAR.BYBIT taker fee"].value is None


def test_a_venue_that_cannot_be_reached_leaves_every_fact_absent_with_the_reason(plan):
    away = ProcessPlan(plan.home, plan.catalog, loopback(1), plan.keys)
    seen = scanned(away)
    assert {fact.freshness for fact in seen.facts.values()} == {Freshness.ABSENT}
    assert all(fact.reason for fact in seen.facts.values())


def test_on_paper_there_are_no_balances_and_that_is_not_nought(plan):
    seen = scanned(ProcessPlan(plan.home, plan.catalog, plan.endpoint, None))
    assert seen.facts["wallet USDT"].value is None
    assert seen.facts["wallet USDT"].reason == "the account is on paper"


# --- backfill and backtest -----------------------------------------------------------------------


def test_a_month_is_fetched_once(plan):
    at = time.time_ns() // MINUTE * MINUTE
    given = {"kind": "bar-1m", "instrument": PERP, "start": utc(at - 60 * MINUTE), "end": utc(at - 10 * MINUTE)}
    assert fetch(errand(plan, given=given))["rows"] == 50
    assert fetch(errand(plan, attempt=2, given=given))["rows"] == 0
    assert Catalog(plan.catalog).find("bar-1m", PERP).rows == 50


def test_a_backtest_leaves_its_figures_and_a_report(plan):
    from typer.testing import CliRunner

    from actors.cli_data import data_app

    words = ["generate", "--symbols", "BTCUSDT", "--days", "2", "--catalog", str(plan.catalog)]
    assert CliRunner().invoke(data_app, words).exit_code == 0
    given = {"strategy": "impulse", "symbols": "BTCUSDT", "venue_name": "SYNTHETIC", "strategy.trigger": "4"}
    with pytest.raises(HeanError, match="synthetic"):
        backtest(errand(plan, given=given))
    found = backtest(errand(plan, given=given | {"synthetic": "true"}))
    assert Path(found["report"]).read_text(encoding="utf-8")[:15].lower() == "<!doctype html>"
    assert found["result_hash"]


def test_a_setting_that_is_no_setting_is_refused(plan):
    given = {"strategy": "impulse", "symbols": "BTCUSDT", "risk.colour": "red"}
    with pytest.raises(ConfigError, match="colour"):
        backtest(errand(plan, given=given))
