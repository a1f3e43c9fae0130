"""SIGKILL of every part, under order flow: afterwards the books say what the exchange says, to the last digit."""

import os
import signal
import time
from random import Random

import pytest

from tests.ray.stage import acting, must_agree, wait_for_flow

ROLES = ("risk", "broker", "portfolio", "reconciler", "venue", "feed", "monitor", "churn", "pair")
ALL = ("risk", "broker", "portfolio", "reconciler", "venue", "feed", "monitor", "churn", "pair")


@pytest.fixture(scope="module")
def stage(cluster, tmp_path_factory):
    with acting(tmp_path_factory.mktemp("kills")) as stage:
        stage.wait_until_trading()
        yield stage


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
