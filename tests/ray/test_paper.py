"""On paper: the market of a venue, fills of our own making, and not one order that leaves."""

import time
from decimal import Decimal

import pytest
import ray

from actors.cluster import NAMESPACE
from actors.exchange.opening import FIRST_UID
from actors.places import KEYS
from hean.codec import decoded
from hean.execution.venue_state import SimulatedVenueState
from tests.ray.stage import acting, books, describe, held

CAPITAL = Decimal(50_000)


@pytest.fixture(scope="module")
def stage(cluster, tmp_path_factory):
    with acting(tmp_path_factory.mktemp("paper"), {"venue": "paper", "capital": CAPITAL}) as stage:
        (stage.home / KEYS).unlink()  # nobody needs them
        stage.wait_until_trading()
        yield stage


def venue():
    return decoded(SimulatedVenueState, ray.get(ray.get_actor("venue", namespace=NAMESPACE).state.remote()))


def wait_for_fills(stage, more=5, seconds=40):
    before = filled(stage)
    stage.wait("fills", lambda _: filled(stage) >= before + more, seconds)


def filled(stage):
    return sum(one.funnel["filled"] for one in stage.ask("why"))


def must_agree(stage):
    """Close everything, and lay the books beside the account on paper."""
    stage.ask("stop", flatten=True)
    still = 0

    def at_rest(status):
        nonlocal still
        state = venue()
        at_work = state.account.positions or any(desk.working for desk in state.desks.values())
        still = 0 if held(status) or at_work else still + 1
        return still > 5

    stage.wait("rest", at_rest)
    limit = time.monotonic() + 10
    while differences() and time.monotonic() < limit:
        time.sleep(0.2)
    assert not differences(), describe(stage.status())
    status = stage.wait("a comparison", lambda status: status.reconcile_lag_s < 2)
    assert (status.discrepancies, status.errors) == (0, {})
    stage.ask("start")
    stage.wait_until_trading()


def differences():
    account, ours = venue().account, books()
    theirs = {**account.balances, **{name: one.quantity for name, one in account.positions.items()}}
    return {
        name: (ours.get(name, Decimal(0)), theirs.get(name, Decimal(0)))
        for name in {*ours, *theirs}
        if ours.get(name, Decimal(0)) != theirs.get(name, Decimal(0))
    }


def test_strategies_trade_on_paper_and_the_books_agree(stage):
    assert stage.status().venue == "paper"
    stage.wait("pairs and single legs", lambda _: all(one.funnel["filled"] > 1 for one in stage.ask("why")))
    must_agree(stage)

    assert len(venue().link_ids) > 4
    assert venue().account.balances["USDT"] != CAPITAL


@pytest.mark.parametrize("role", ["venue", "broker"])
def test_the_account_on_paper_outlives_its_process(stage, role):
    wait_for_fills(stage)
    before, epoch = venue(), stage.status().epoch
    stage.kill(role)
    stage.wait_until_trading(after=epoch)
    after = venue()
    assert after.trades >= before.trades > 0
    assert before.link_ids.keys() <= after.link_ids.keys()
    wait_for_fills(stage)
    must_agree(stage)


def test_no_order_has_left(stage):
    records = stage.exchange.server.bybit.exchange.records[str(FIRST_UID)]
    assert filled(stage) > 10
    assert (records.orders, records.executions) == ({}, [])
