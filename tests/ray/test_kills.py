"""SIGKILL of every part, under order flow: afterwards the books say what the exchange says, to the last digit."""

import os
import signal
import time
from decimal import Decimal
from random import Random

import pytest

from tests.ray.stage import Truth, acting, books, describe

ROLES = ("risk", "broker", "portfolio", "reconciler", "venue", "feed", "monitor", "churn", "pair")
ALL = ("risk", "broker", "portfolio", "reconciler", "venue", "feed", "monitor", "churn", "pair")


@pytest.fixture(scope="module")
def stage(cluster, tmp_path_factory):
    with acting(tmp_path_factory.mktemp("kills")) as stage:
        stage.wait_until_trading()
        yield stage


def wait_for_flow(stage, more=4, seconds=30):
    """Let some more orders fill."""
    before = len(Truth(stage.exchange).executions())
    limit = time.monotonic() + seconds
    while len(Truth(stage.exchange).executions()) < before + more:
        assert time.monotonic() < limit, f"no orders fill: {describe(stage.status())}"
        time.sleep(0.2)


def must_agree(stage):
    """Stop, let everything come to rest, and lay our books beside the exchange's."""
    truth = Truth(stage.exchange)
    stage.ask("stop", flatten=True)
    still = 0

    def at_rest(status):
        nonlocal still
        still = 0 if _held(status) or truth.open_orders() or truth.positions() else still + 1
        return still > 10  # an order may have been on its way when it was stopped

    stage.wait("rest", at_rest, 60)
    limit = time.monotonic() + 20
    while (difference := _difference(truth)) and time.monotonic() < limit:
        time.sleep(0.2)
    assert not difference, f"ours and theirs differ: {difference}; {describe(stage.status())}"
    links = [link for link, _ in truth.executions().values()]
    assert all(links), "somebody else traded"
    assert not truth.positions()
    stage.ask("start")
    stage.wait_until_trading()


def _held(status):
    """What strategies hold; what was in the account before them is the reserve's."""
    return [one for one in status.positions if one.strategy and one.quantity]


def _difference(truth):
    ours, coins, positions = books(), truth.coins(), truth.positions()
    theirs = {**coins, **{f"{symbol}-LINEAR.BYBIT": size for symbol, size in positions.items()}}
    names = {"USDT", "BTC", "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"}
    return {
        name: (str(ours.get(name, 0)), str(theirs.get(name, 0)))
        for name in sorted(names)
        if ours.get(name, Decimal(0)) != theirs.get(name, Decimal(0))
    }


@pytest.mark.parametrize("role", ROLES)
def test_any_actor_may_be_killed_under_order_flow(stage, role):
    before = stage.status()
    restarts = {one.name: one.restarts for one in before.actors}[role]
    wait_for_flow(stage)
    time.sleep(Random(f"{role} 1").uniform(0, 1.5))
    stage.kill(role)
    stage.wait("death seen", lambda status: {one.name: one.restarts for one in status.actors}.get(role, 0) > restarts)
    stage.wait_until_trading()
    wait_for_flow(stage)
    must_agree(stage)


def test_all_of_them_may_be_killed_at_once(stage):
    epoch = stage.status().epoch
    wait_for_flow(stage)
    stage.kill(*ALL)
    stage.wait_until_trading(after=epoch)
    wait_for_flow(stage)
    must_agree(stage)


def test_the_engine_may_be_killed_and_takes_the_same_path(stage):
    epoch = stage.status().epoch
    wait_for_flow(stage)
    os.kill(stage.ask("pid"), signal.SIGKILL)
    stage.wait_until_trading(after=epoch)
    wait_for_flow(stage)
    must_agree(stage)


def test_one_death_after_another_at_random_moments_leaves_the_books_exact(stage):
    chance = Random(20_261_122)
    for _ in range(4):
        epoch = stage.status().epoch
        time.sleep(chance.uniform(0.2, 3.0))
        some = chance.sample(ALL[:6], chance.randint(1, 3))
        stage.kill(*some)
        stage.wait_until_trading(after=epoch)
    wait_for_flow(stage)
    must_agree(stage)
