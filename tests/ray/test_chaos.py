"""Kills, stops and a bad venue together, by a seed: nothing naked beyond its limit, no order twice, the books exact, every journal told alike again."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from decimal import Decimal
from random import Random

import psutil
import pytest
import ray
import requests
from pybit.exceptions import FailedRequestError, InvalidRequestError

from actors.cluster import NAMESPACE
from actors.exchange import drills
from actors.exchange.opening import FIRST_UID
from actors.replay import replay
from actors.words import Phase
from hean.codec import decoded
from hean.execution.broker import BrokerState
from hean.messages import OPENING
from tests.ray.stage import BUSY, Truth, acting, must_be_exact, wait_for_flow, wait_until_flat

CORE = ("risk", "broker", "portfolio", "reconciler", "venue", "feed")
STEP = Decimal("0.001")  # of the perpetual


class Onlooker(threading.Thread):
    """Asks the account all the time how much of the pair stands without its other leg."""

    def __init__(self, exchange, before):
        super().__init__(name="onlooker", daemon=True)
        self._truth = Truth(exchange)
        self._before = before
        self._ending = threading.Event()
        self.looks = 0
        self.most = Decimal(0)

    def run(self):
        while not self._ending.wait(0.1):
            try:
                first, again = self._look(), self._look()
            except (FailedRequestError, InvalidRequestError, requests.RequestException):
                continue  # the venue is made to be a bad one
            if first == again:  # else something traded between the reads
                self.looks += 1
                self.most = max(self.most, abs(sum(first)))

    def _look(self):
        return self._truth.positions().get("BTCUSDT", Decimal(0)), self._truth.coins()["BTC"] - self._before

    def end(self):
        self._ending.set()
        self.join()
        return self.most


def orders(truth):
    """Every order there ever was, as how often each link id was taken."""
    found = Counter()
    for category in ("linear", "spot"):
        cursor = None
        while True:
            page = truth.session.get_order_history(category=category, limit=50, cursor=cursor)["result"]
            found.update(one["orderLinkId"] for one in page["list"])
            cursor = page["nextPageCursor"]
            if not cursor or not page["list"]:
                break
    return found


def bad_venue(stage, chance, levers):
    """Two of what a venue may do to us, until the levers are let go of."""
    exchange = stage.exchange
    deeds = [
        lambda: drills.lose_answers(exchange, next=chance.randint(1, 3)),
        lambda: drills.lose_answers(exchange, "/v5/order/cancel", next=2),
        lambda: drills.late_entry(exchange, 800),
        lambda: drills.storm(exchange, code=10006, path="/v5/order/", next=3),
        lambda: drills.drop(exchange, "execution*", kind="private", next=3),
        lambda: drills.repeat(exchange, "execution*", kind="private", times=2),
        lambda: drills.delay(exchange, "order", kind="private", ms=1_500, chance=0.6),
        lambda: drills.cut_sockets(exchange, kind="private"),
        lambda: drills.race_cancel(exchange),
    ]
    for deed in chance.sample(deeds, 2):
        levers.enter_context(deed())


def stop_for(stage, name, seconds):
    """A process that stands still for longer than it is waited for, and then goes on, if it is still there."""
    process = psutil.Process(stage.pid(name))
    process.suspend()

    def go_on():
        time.sleep(seconds)
        if process.is_running():
            process.resume()

    waker = threading.Thread(target=go_on, daemon=True)
    waker.start()
    return waker


@pytest.fixture(scope="module")
def stage(cluster, tmp_path_factory):
    with acting(tmp_path_factory.mktemp("chaos")) as stage:
        stage.coins = Truth(stage.exchange).coins()
        stage.wait_until_trading()
        yield stage


def test_from_the_death_of_a_part_on_nothing_is_sent_however_slow_the_venue_is_to_say_its_rules(stage):
    wait_for_flow(stage)
    orders_there = stage.exchange.server.bybit.exchange.records[str(FIRST_UID)].orders
    epoch = stage.status().epoch
    with drills.slow_answers(stage.exchange, 1_500):
        stage.kill("reconciler")
        stage.wait("death seen", lambda status: status.phase is Phase.STARTING)
        time.sleep(0.7)  # what was under way arrives
        before = len(orders_there)
        time.sleep(1.8)
        assert len(orders_there) == before
        assert stage.status().phase is Phase.STARTING, "it was up again before anything could be seen"
    stage.wait_until_trading(after=epoch)


def test_a_seed_of_deaths_at_a_bad_venue_leaves_everything_as_it_ought_to_be(stage):
    chance = Random(20_261_123)
    truth = Truth(stage.exchange)
    onlooker = Onlooker(stage.exchange, stage.coins["BTC"])
    onlooker.start()
    wait_for_flow(stage)

    with ExitStack() as levers:
        bad_venue(stage, chance, levers)
        epoch = stage.status().epoch
        stage.kill(*chance.sample(CORE, 3))
        time.sleep(chance.uniform(0.5, 1.5))
        os.kill(stage.ask("pid"), signal.SIGKILL)  # in the midst of the way up
        stage.wait_until_trading(after=epoch)
    with ExitStack() as levers:
        bad_venue(stage, chance, levers)
        epoch = stage.status().epoch
        waker = stop_for(stage, "venue", 7.0)
        stage.wait_until_trading(after=epoch)
        waker.join()
    wait_for_flow(stage)

    equity = stage.status().equity
    stage.ask("stop", flatten=True)
    wait_until_flat(stage)
    must_be_exact(stage)
    assert truth.coins()["USDT"] == truth.logged()
    naked = onlooker.end()
    price = Decimal(truth.session.get_tickers(category="linear", symbol="BTCUSDT")["result"]["list"][0]["markPrice"])
    limit = equity * Decimal(str(BUSY["risk"]["max_naked"]))
    assert onlooker.looks > 20
    assert naked * price <= limit + STEP * price

    twice = {link: times for link, times in orders(truth).items() if times > 1}
    assert not twice
    broker = decoded(BrokerState, ray.get(ray.get_actor("broker", namespace=NAMESPACE).state.remote()))
    filled = Counter()
    for link, quantity in truth.executions().values():
        filled[link] += quantity
    assert not broker.open
    assert not broker.pairs
    assert dict(filled) == {name: one.filled for name, one in broker.finished.items() if one.filled}
    seen = ray.get(ray.get_actor("monitor", namespace=NAMESPACE).seen.remote())
    assert {one.reason for one in seen.reconciliation.adjustments} == {OPENING}

    for name in ("risk", "broker", "portfolio", "reconciler", "monitor"):
        again = replay(stage.home / "journals" / f"{name}.db")
        assert again.is_same, f"{name}: {again.difference}"
        assert again.entries > 0
