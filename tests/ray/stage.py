"""An engine on the session's Ray, against a Bybit on loopback in this process."""

import os
import signal
import time
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import ray
from pybit.unified_trading import HTTP

from actors import engine as engine_module
from actors.cluster import NAMESPACE
from actors.exchange.drills import TOKEN, Plan, serving
from actors.places import KEYS
from actors.words import Phase
from hean.codec import decoded
from hean.engine_settings import EngineSettings
from hean.portfolio.accounting import CASH, INVENTORY, POSITION
from hean.portfolio.portfolio import PortfolioState

HERE = Path(__file__).resolve().parent
CHURN = f"{HERE / 'churn.py'}:Churn"
PAIR_CHURN = f"{HERE / 'churn.py'}:PairChurn"

BUSY = {
    "venue": "sandbox",
    "symbols": ["BTCUSDT"],
    "strategies": [
        {
            "use": CHURN,
            "config": {"name": "churn", "perp": "ETHUSDT-LINEAR.BYBIT", "every_s": 0.4},
            "sizing": {"kind": "fixed", "notional": 600},
        },
        {"use": PAIR_CHURN, "config": {"name": "pair", "every_s": 3.0}, "sizing": {"kind": "fixed", "notional": 600}},
    ],
    "risk": {
        "orders_per_minute": 6_000,
        "max_naked": 0.0016,
        "kill_switch": {"max_deaths": 1_000, "max_errors": 10_000},
    },
    "broker": {"pairs": {"reprice_s": 0.5, "patience_s": 5.0, "max_walk_bp": 200.0}},
    "reconciler": {"every_s": 2.0, "confirm_s": 1.0, "grace_s": 2.0},
    "account": {"timeout_s": 2.0, "lag_s": 1.0, "recv_window_ms": 2_000},
}


class Stage:
    """A running engine, its exchange, and a person who looks and kills."""

    def __init__(self, exchange, engine, home):
        self.exchange = exchange
        self.engine = engine
        self.home = home

    def ask(self, method, *arguments, timeout_s=20.0, **named):
        limit = time.monotonic() + timeout_s
        while True:
            try:
                return ray.get(getattr(self.engine, method).remote(*arguments, **named), timeout=timeout_s)
            except ray.exceptions.RayActorError:
                # The engine itself was killed: Ray begins it anew.
                if time.monotonic() > limit:
                    raise
                time.sleep(0.1)

    def status(self):
        return self.ask("status")

    def wait(self, what, until, seconds=60.0):
        limit = time.monotonic() + seconds
        while True:
            status = self.status()
            if until(status):
                return status
            assert time.monotonic() < limit, f"no {what} within {seconds:g} s: {describe(status)}"
            time.sleep(0.1)

    def wait_until_trading(self, seconds=60.0, *, after=0):
        return self.wait(
            "trading",
            lambda status: status.phase is Phase.RUNNING and status.trading == "ACTIVE" and status.epoch > after,
            seconds,
        )

    def pid(self, name):
        (actor,) = (one for one in self.status().actors if one.name == name)
        return actor.pid

    def kill(self, *names):
        """SIGKILL, of all of them at once."""
        pids = [self.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def stop(self):
        self.ask("shutdown")


def describe(status):
    actors = ", ".join(f"{one.name}{'' if one.alive else '?'}" for one in status.actors)
    return f"{status.phase} {status.trading} {status.reason!r} {status.blocked} errors {status.errors} [{actors}]"


@contextmanager
def acting(home, settings=None, *, seed=7, symbols=("BTCUSDT", "ETHUSDT")):
    """Begin an exchange and an engine; end both."""
    with serving(Plan(symbols=symbols, seed=seed, days=3), token=TOKEN) as exchange:
        home.mkdir(parents=True, exist_ok=True)
        keys = home / KEYS
        keys.write_text(f'key = "{exchange.key}"\nsecret = "{exchange.secret}"\n')
        keys.chmod(0o600)
        tree = {**BUSY, **(settings or {}), "endpoint": exchange.url}
        engine = engine_module.create(home, EngineSettings.model_validate(tree))
        stage = Stage(exchange, engine, home)
        try:
            yield stage
        finally:
            try:
                stage.stop()
            finally:
                ray.kill(engine, no_restart=True)


class Truth:
    """What the exchange itself says of the account, asked with pybit as anybody would."""

    def __init__(self, exchange):
        self.session = HTTP(api_key=exchange.key, api_secret=exchange.secret)
        self.session.endpoint = exchange.url

    def coins(self):
        (account,) = self.session.get_wallet_balance(accountType="UNIFIED")["result"]["list"]
        return {coin["coin"]: Decimal(coin["walletBalance"]) for coin in account["coin"]}

    def positions(self):
        found = self.session.get_positions(category="linear", settleCoin="USDT")["result"]["list"]
        signs = {"Buy": 1, "Sell": -1, "": 0}
        return {one["symbol"]: signs[one["side"]] * Decimal(one["size"]) for one in found if Decimal(one["size"])}

    def open_orders(self):
        linear = self.session.get_open_orders(category="linear", settleCoin="USDT")["result"]["list"]
        spot = self.session.get_open_orders(category="spot")["result"]["list"]
        return [one["orderLinkId"] for one in [*linear, *spot]]

    def executions(self):
        """Every fill, by the id of the execution: our link id, and how much."""
        found = {}
        for category in ("linear", "spot"):
            cursor = None
            while True:
                page = self.session.get_executions(category=category, limit=100, cursor=cursor)["result"]
                for one in page["list"]:
                    if one["execType"] == "Trade":
                        found[one["execId"]] = (one["orderLinkId"], Decimal(one["execQty"]))
                cursor = page["nextPageCursor"]
                if not cursor or not page["list"]:
                    break
        return found

    def logged(self):
        """The sum of all changes of USDT that the transaction log tells."""
        total, cursor = Decimal(0), None
        while True:
            page = self.session.get_transaction_log(currency="USDT", limit=50, cursor=cursor)["result"]
            total += sum((Decimal(line["change"]) for line in page["list"]), Decimal(0))
            cursor = page["nextPageCursor"]
            if not cursor or not page["list"]:
                return total


def books():
    """What our own books hold over all strategies: coins, and contracts."""
    state = decoded(PortfolioState, ray.get(ray.get_actor("portfolio", namespace=NAMESPACE).state.remote()))
    held = {}
    for commodity, accounts in state.ledger.account().items():
        held[commodity] = sum(accounts.get(account, Decimal(0)) for account in (CASH, INVENTORY, POSITION))
    return held


def wait_for_flow(stage, more=4, seconds=30):
    """Let some more orders fill."""
    before = len(Truth(stage.exchange).executions())
    limit = time.monotonic() + seconds
    while len(Truth(stage.exchange).executions()) < before + more:
        assert time.monotonic() < limit, f"no orders fill: {describe(stage.status())}"
        time.sleep(0.2)


def must_agree(stage):
    """Stop, let everything come to rest, lay our books beside the exchange's, and begin to trade again."""
    stage.ask("stop", flatten=True)
    wait_until_flat(stage)
    must_be_exact(stage)
    stage.ask("start")
    stage.wait_until_trading()


def wait_until_flat(stage, seconds=60):
    """Wait until strategies hold nothing, by our word and by the exchange's."""
    truth = Truth(stage.exchange)
    still = 0

    def at_rest(status):
        nonlocal still
        still = 0 if held(status) or truth.open_orders() or truth.positions() else still + 1
        return still > 10  # an order may have been on its way when it was stopped

    return stage.wait("rest", at_rest, seconds)


def must_be_exact(stage):
    """Lay the books beside what the exchange says: to the last digit."""
    truth = Truth(stage.exchange)
    limit = time.monotonic() + 20
    while (found := differences(truth)) and time.monotonic() < limit:
        time.sleep(0.2)
    assert not found, f"ours and theirs differ: {found}; {describe(stage.status())}"
    assert all(link for link, _ in truth.executions().values()), "somebody else traded"


def held(status):
    """What strategies hold; what was in the account before them is the reserve's."""
    return [one for one in status.positions if one.strategy and one.quantity]


def differences(truth):
    ours, coins, positions = books(), truth.coins(), truth.positions()
    theirs = {**coins, **{f"{symbol}-LINEAR.BYBIT": size for symbol, size in positions.items()}}
    names = {"USDT", "BTC", "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"}
    return {
        name: (str(ours.get(name, 0)), str(theirs.get(name, 0)))
        for name in sorted(names)
        if ours.get(name, Decimal(0)) != theirs.get(name, Decimal(0))
    }
