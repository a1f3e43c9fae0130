"""What is said to happen before it does: from what was heard, with what is not known said to be so."""

import asyncio
from pathlib import Path

import pytest

from actors.page import deeds
from actors.page.client import Api
from actors.page.store import STATUS, Store

BTC, ETH = "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"
STATUS_NOW = {"venue": "sandbox", "equity": "10000.00", "tripped": "", "blocked": [], "permit": [], "dry_run": False}


def position(strategy="carry", instrument=BTC, quantity="-0.5", entry="60000", **more):
    return {"strategy": strategy, "instrument": instrument, "quantity": quantity, "entry": entry, "mark": None} | more


def order(status="accepted", side="BUY", quantity="0.01", instrument=BTC, strategy="churn"):
    return {"status": status, "side": side, "quantity": quantity, "instrument": instrument, "strategy": strategy}


@pytest.fixture
def store():
    made = Store(Api("http://127.0.0.1:9", Path("nowhere")))
    yield made
    asyncio.run(made.api.close())


def knowing(store, *, status=None, positions=None, orders=None, pairs=(), strategies=()):
    store.see(STATUS).hear(STATUS_NOW | (status or {}))
    if positions is not None:
        store.see("/positions").hear({"positions": positions, "pairs": list(pairs)})
    if orders is not None:
        store.see("/orders").hear({"orders": orders})
    store.see("/strategies").hear({"strategies": list(strategies)})
    return store


def said(deed):
    return "\n".join(line for effect in deed.effects() for line in (effect.text, *effect.items))


def test_a_kill_names_every_order_and_every_position_with_its_size_and_worth(store):
    knowing(store, positions=[position(), position("", ETH, "10", None)], orders=[order(), order("filled")])

    words = said(deeds.kill(store))

    assert f"buy 0.01 {BTC} of churn" in words
    assert f"short 0.5 {BTC} of carry, 30,000.00 USDT at its entry price" in words
    assert "1 order under way is cancelled" in words
    assert "1 position is closed at the market, 30,000.00 USDT together" in words
    assert ETH not in words, "what no strategy holds is its owner's"


def test_a_value_at_the_market_is_said_as_of_now(store):
    knowing(store, positions=[position(mark="61000", value="-30500")], orders=[])

    assert "30,500.00 USDT now" in said(deeds.kill(store))


def test_what_is_not_known_is_said_to_be_so_and_never_nothing(store):
    store.see(STATUS).hear(STATUS_NOW)

    words = said(deeds.kill(store))

    assert words.count("is not known") == 2
    assert "No strategy holds anything" not in words
    assert [effect.text for effect in deeds.left(store)] == ["It is not known what is left."]


def test_an_order_whose_fate_is_unknown_may_still_trade(store):
    knowing(store, positions=[], orders=[order("unknown")])

    assert "what became of it is not known" in said(deeds.kill(store))


def test_orders_that_read_alike_are_told_together(store):
    knowing(store, positions=[], orders=[order()] * 3)

    assert f"3 times buy 0.01 {BTC} of churn" in said(deeds.kill(store))


def test_of_very_many_the_first_are_named_and_the_others_counted(store):
    knowing(store, positions=[], orders=[order(quantity=str(size)) for size in range(1, 31)])

    words = said(deeds.kill(store))

    assert "30 orders under way" in words
    assert "and 22 more" in words


@pytest.mark.parametrize(
    ("mode", "says", "not_says"),
    [
        ("graceful", "may finish", "cancelled"),
        ("reduce", "cancelled", "closed at the market"),
        ("flatten", "closed at the market", "stays as it is"),
    ],
)
def test_each_way_to_stop_says_what_it_does(store, mode, says, not_says):
    knowing(store, positions=[position()], orders=[order()])

    deed = deeds.stop(store, mode)

    assert says in said(deed)
    assert not_says not in said(deed)
    assert deed.command("why", "ada").body == {"mode": mode, "reason": "why", "person": "ada"}


@pytest.mark.parametrize("make", [deeds.kill, deeds.start])
def test_real_money_is_said_first_and_loudly(store, make):
    knowing(store, status={"venue": "live"}, positions=[], orders=[])

    first = make(store).effects()[0]

    assert "real money" in first.text
    assert first.tone == "danger"


def test_a_start_names_what_stands_against_it_and_who_may_trade(store):
    strategies = [{"name": "carry", "enabled": True}, {"name": "churn", "enabled": False}]
    knowing(store, status={"blocked": ["the venue does not answer"]}, strategies=strategies)

    words = said(deeds.start(store))

    assert "the venue does not answer" in words
    assert "carry" in words
    assert "churn" not in words


def test_a_start_asks_for_no_reason_and_gives_none(store):
    assert deeds.start(store).command("", "ada").body == {"person": "ada"}


def test_only_a_kill_must_be_typed(store):
    assert deeds.kill(store).word == "kill"
    assert deeds.stop(store, "flatten").word == ""


def test_a_reset_where_nothing_is_pulled_says_so(store):
    knowing(store)

    assert "nothing to put back" in said(deeds.reset(store))


def test_a_disabled_strategy_keeps_what_it_holds_and_that_is_named(store):
    knowing(store, positions=[position("carry"), position("churn", ETH)], orders=[])

    words = said(deeds.switch(store, "carry", on=False))

    assert BTC in words
    assert ETH not in words
    assert deeds.switch(store, "carry", on=False).path == "/strategies/carry/disable"


def test_a_change_is_shown_as_what_it_was_and_what_it_will_be(store):
    knowing(store, positions=[])

    deed = deeds.configure(store, "carry", {"enter_bp": 1.0, "exit_bp": 0.2}, {"enter_bp": 2.0})

    assert "enter_bp: 1 → 2" in said(deed)
    assert "exit_bp" not in said(deed)
    assert deed.command("why", "ada").body["changes"] == {"enter_bp": 2.0}


def test_after_a_kill_it_is_told_what_is_left_until_nothing_is(store):
    knowing(store, positions=[position()], orders=[order()])
    after = deeds.kill(store).after

    assert [effect.text for effect in after()] == ["Still under way: 1 order", "Still held: 1 position"]
    knowing(store, positions=[position(quantity="0", dust="0.0001")], orders=[order("canceled")])
    assert list(after()) == []


def test_a_run_that_is_given_up_is_told_apart_from_one_that_goes_on():
    run = {"run_id": "smoke-test-3", "waits_for": "a person: was the order sent?", "steps": []}

    again, given_up = deeds.decide_run(run, again=True), deeds.decide_run(run, again=False)

    assert "was the order sent?" in said(again)
    assert again.command("looked", "ada").body == {"again": True, "person": "ada", "reason": "looked"}
    assert given_up.danger
    assert not again.danger
