"""Those who die again and again: a strategy does not take the others with it, and a core that cannot live is closed without."""

import time
from decimal import Decimal

import ray

from actors.cluster import NAMESPACE
from actors.last_resort import LEDGER
from actors.words import Phase
from hean import codec
from hean.messages import Envelope, StartTrading
from tests.ray.stage import BUSY, HERE, PAIR_CHURN, Truth, acting, wait_for_flow, wait_until_flat

MOST = 3


def switch(most):
    return {"risk": {**BUSY["risk"], "kill_switch": {"max_deaths": most, "max_errors": 10_000}}}


def doomed(doom):
    return {
        "use": f"{HERE / 'churn.py'}:Doomed",
        "config": {"name": "doomed", "perp": "BTCUSDT-LINEAR.BYBIT", "every_s": 0.5, "doom": str(doom)},
        "sizing": {"kind": "fixed", "notional": 600},
    }


def restarts(status, name):
    return next((one.restarts for one in status.actors if one.name == name), None)


def test_a_strategy_that_raises_dies_alone_and_is_given_up_in_the_end(cluster, tmp_path):
    doom = tmp_path / "doom"
    strategies = [BUSY["strategies"][0], doomed(doom)]
    with acting(tmp_path, {"strategies": strategies, **switch(MOST)}) as stage:
        before = stage.wait_until_trading()
        doom.write_text("once")
        status = stage.wait("new life", lambda status: restarts(status, "doomed") == 1 and status.phase == "RUNNING")
        assert others(status) == others(before)
        assert (status.epoch, status.trading, status.blocked) == (before.epoch, "ACTIVE", ())
        wait_for_flow(stage)

        doom.write_text("for ever")
        status = stage.wait("trip", lambda status: "DEATHS" in status.tripped)
        status = stage.wait("giving up", lambda status: any("not begun any more" in one for one in status.blocked))
        assert any("RuntimeError: doomed" in one for one in status.blocked)
        assert status.trading == "HALTED"
        assert others(status) == others(before), "the others live on"
        assert restarts(status, "doomed") is None
        wait_until_flat(stage)
        time.sleep(1.5)
        status = stage.status()
        assert (status.epoch, restarts(status, "doomed")) == (before.epoch, None), "nothing is begun any more"


def others(status):
    return [(one.name, one.pid) for one in status.actors if one.name != "doomed"]


def test_a_core_that_dies_of_its_journal_each_time_is_given_up_and_everything_closed(cluster, tmp_path):
    pair = {
        "use": PAIR_CHURN,
        "config": {"name": "pair", "every_s": 6.0},
        "sizing": {"kind": "fixed", "notional": 600},
    }
    with acting(tmp_path, {"strategies": [pair], **switch(1)}) as stage:
        truth = Truth(stage.exchange)
        coins = truth.coins()
        stage.wait("both legs", lambda _: truth.positions() and truth.coins()["BTC"] > coins["BTC"])
        portfolio = ray.get_actor("portfolio", namespace=NAMESPACE)
        # Nobody tells the portfolio that: it raises, and so does whoever is told its journal.
        poison = Envelope("nobody", 1, time.time_ns(), "", "", StartTrading())
        portfolio.tell.remote(codec.letters([poison]), "nobody@999")
        status = stage.wait("giving up", lambda status: status.phase is Phase.STOPPED)

        assert "4 deaths" in status.blocked[0]
        assert "portfolio" in status.blocked[0]
        stage.wait("end of closing", lambda status: len(status.blocked) == 1)
        assert not truth.positions()
        assert not truth.open_orders()
        assert abs(truth.coins()["BTC"] - coins["BTC"]) < Decimal("0.0001")
        assert (tmp_path / LEDGER).exists()
        assert stage.status().actors == ()
        epoch = stage.status().epoch
        time.sleep(2)
        assert stage.status().epoch == epoch, "nothing is begun any more"
