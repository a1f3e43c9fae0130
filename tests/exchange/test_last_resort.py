"""Out of everything without an engine: against the exchange on loopback, on a bad day too."""

import subprocess
import sys
import threading
import time
from decimal import Decimal

import msgspec
import pytest

from actors.exchange.drills import lose_answers, storm
from actors.gateways.bybit_endpoint import Keys, loopback
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.gateways.fence import Fence, write_epoch
from actors.heartbeat import Beat, Heartbeat
from actors.last_resort import LEDGER, Closing, Ended, Holdings, Ledger, Way, holdings, latch, out
from actors.places import Latched
from actors.shell import ComponentActor, Seat
from actors.watchdog import Watch
from hean import codec
from hean.bybit.encode import Verdict
from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import HeanError
from hean.instruments import Category
from hean.messages import AdjustBooks, Envelope, OrderBracket, Side, SubmitOrder, TimeInForce
from hean.settings import StrategySettings
from hean.units import SECOND
from tests.exchange.client import exchange
from tests.unit.portfolio.books import INSTRUMENTS, PERP, SPOT, fill

D = Decimal
CARRY = (StrategySettings(use="funding-harvester", config={"name": "carry", "perp": PERP, "spot": SPOT}),)


class Account:
    """An account at the exchange, and somebody who trades it by hand."""

    def __init__(self, served, home):
        self.served, self.home = served, home
        self.endpoint, self.keys = loopback(served.url), Keys(served.key, served.secret)
        self.rest = BybitRest(self.endpoint, self.keys, instruments={}, backoff=Backoff())
        self.orders = BybitOrders(self.endpoint, self.keys, backoff=Backoff())
        self.count = 0
        self.told = []

    def trades(self, side=Side.BUY, quantity="0.01", instrument=PERP, limit=None, bracket=None):
        self.count += 1
        order = SubmitOrder(
            f"hand-{self.count}",
            "hand",
            instrument,
            side,
            D(quantity),
            None if limit is None else D(limit),
            TimeInForce.IOC if limit is None else TimeInForce.GTC,
            False,
            None,
            bracket,
        )
        outcome = self.orders.send(order)
        assert outcome.verdict is Verdict.ACCEPTED, outcome

    def coins(self):
        return self.rest.balances()["BTC"]

    def flattens(self, held=None, limit_s=30.0):
        with Way(self.home, self.endpoint, self.keys, held, self.told.append) as way:
            return way.flatten(limit_s)

    def is_flat(self):
        return not any(one.quantity for one in self.rest.positions()) and not any(
            self.rest.open_orders(category) for category in (Category.LINEAR, Category.SPOT)
        )

    def executions(self, instrument):
        return [
            one
            for one in self.rest.executions_since(Category.SPOT, time.time_ns() - 60 * SECOND, time.time_ns())
            if one.instrument == instrument
        ]

    def ours(self):
        """What the exchange executed of orders of the last resort: name to signed quantity."""
        found = {}
        for one in self.served.server.exchange.records[self.served.keys[0].uid].executions:
            if one.link_id.startswith("lr"):
                found[one.link_id] = found.get(one.link_id, D(0)) + one.side * one.quantity
        return found


@pytest.fixture
def account(tmp_path):
    with exchange(symbols=("BTCUSDT", "ETHUSDT")) as served:
        at = Account(served, tmp_path)
        yield at
        at.rest.close()
        at.orders.close()


def test_everything_is_closed_and_the_venue_is_asked(account):
    account.trades(Side.BUY, "0.02", bracket=OrderBracket(D(30_000), D(120_000)))
    account.trades(Side.SELL, "0.5", "ETHUSDT-LINEAR.BYBIT")
    account.trades(Side.BUY, "0.01", limit="20000")
    account.trades(Side.BUY, "0.01", SPOT, limit="20000")
    assert not account.is_flat()

    done = account.flattens()

    assert done.verified
    assert account.is_flat()
    assert sorted(done.closed) == [(PERP, D("-0.02")), ("ETHUSDT-LINEAR.BYBIT", D("0.5"))]
    assert account.ours() == {"lr1-BTCUSDTL-1": D("-0.02"), "lr1-ETHUSDTL-1": D("0.5")}
    assert account.flattens().closed == (), "flat already"


@pytest.mark.parametrize("lost", [1, 2])
def test_an_order_whose_answer_is_lost_is_looked_up_and_not_doubled(account, lost):
    account.trades(Side.BUY, "0.02")
    account.trades(Side.SELL, "0.5", "ETHUSDT-LINEAR.BYBIT")
    with lose_answers(account.served, next=lost) as pull:
        done = account.flattens()
        assert pull.effects == [f"lost {lost} answer{'s' * (lost > 1)} of /v5/order/create"]

    assert done.verified
    assert account.is_flat()
    assert account.ours() == {"lr1-BTCUSDTL-1": D("-0.02"), "lr1-ETHUSDTL-1": D("0.5")}


@pytest.mark.parametrize("kind", [{"code": 10006}, {"code": 10016}, {"status": 502}], ids=str)
def test_a_storm_of_refusals_is_outlasted(account, kind):
    account.trades(Side.BUY, "0.02")
    account.trades(Side.BUY, "0.01", limit="20000")
    with storm(account.served, path="/v5/", seconds=1.0, **kind):
        done = account.flattens()

    assert done.verified
    assert account.is_flat()
    assert sum(account.ours().values()) == D("-0.02")


def test_an_order_that_was_on_its_way_is_closed_too(account):
    on_its_way = threading.Timer(0.5, account.trades, [Side.BUY, "0.01"])
    on_its_way.start()
    done = account.flattens()
    on_its_way.join()

    assert done.verified
    assert account.is_flat()
    assert done.closed == ((PERP, D("-0.01")),)


def test_on_spot_only_what_strategies_hold_is_sold(account):
    before = account.coins()
    account.trades(Side.BUY, "0.05", SPOT)
    bought = account.coins() - before

    done = account.flattens(Holdings(time.time_ns(), {SPOT: bought}))

    assert done.verified
    rest = account.coins() - before
    assert D(0) <= rest < D("0.000001"), "less than a step is left of ours, and all that was there before"


def test_on_spot_nothing_is_sold_where_nothing_is_known(account):
    account.trades(Side.BUY, "0.05", SPOT)
    coins = account.coins()

    done = account.flattens(None)

    assert done.verified
    assert account.coins() == coins
    assert any("spot is left alone" in word for word in done.left)


def test_what_was_traded_after_the_books_heard_no_more_is_closed_too(account):
    """A core that dies between a fill and the books: whose order it was the venue still says."""
    before, ts = account.coins(), time.time_ns()
    account.trades(Side.BUY, "0.05", SPOT)
    heard = account.executions(SPOT)[0]
    account.orders.send(
        SubmitOrder("tag1-carry-1", "carry", SPOT, Side.BUY, D("0.02"), None, TimeInForce.IOC, False, None, None)
    )
    known = Holdings(ts, {SPOT: account.coins() - before - D("0.02")}, "tag", frozenset({heard.trade_id}))

    done = account.flattens(known)

    assert done.verified
    assert D(0) <= account.coins() - before < D("0.0001")
    assert account.flattens(known).closed == ()


def test_what_was_sold_after_the_books_heard_no_more_is_not_sold_again(account):
    account.trades(Side.BUY, "0.05", SPOT)
    ts, heard = time.time_ns(), account.executions(SPOT)[0]
    sold = SubmitOrder("tag1-carry-2", "carry", SPOT, Side.SELL, D("0.04"), None, TimeInForce.IOC, False, None, None)
    account.orders.send(sold)

    done = account.flattens(Holdings(ts, {SPOT: D("0.05")}, "tag", frozenset({heard.trade_id})))

    assert done.verified
    assert done.closed == ((SPOT, D("-0.01")),)


def test_a_hand_that_trades_beside_the_engine_keeps_what_it_bought(account):
    account.trades(Side.BUY, "0.05", SPOT)
    coins = account.coins()

    assert account.flattens(Holdings(time.time_ns(), {}, "tag")).closed == ()
    assert account.coins() == coins


def test_a_sale_is_not_made_twice_when_the_books_have_not_heard_of_it(account):
    held = Holdings(time.time_ns(), {SPOT: D("0.05")})
    first = account.flattens(held)
    assert first.closed == ((SPOT, D("-0.05")),)
    assert account.flattens(held).closed == ()


def test_a_run_that_was_broken_off_is_looked_up_by_the_next(account):
    account.trades(Side.BUY, "0.02")
    # Written down and sent, and then killed.
    ledger = Ledger(account.home / LEDGER)
    ledger.write(Closing(1, time.time_ns(), "lr1-BTCUSDTL-1", PERP, Side.SELL, D("0.02")))
    account.orders.send(
        SubmitOrder("lr1-BTCUSDTL-1", "", PERP, Side.SELL, D("0.02"), None, TimeInForce.IOC, True, None, None)
    )

    done = account.flattens()

    assert done.verified
    assert account.ours() == {"lr1-BTCUSDTL-1": D("-0.02")}
    assert Ledger(account.home / LEDGER).unended() == []


def test_the_ledger_survives_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / LEDGER
    ledger = Ledger(path)
    one = Closing(1, 5, ledger.name(PERP), PERP, Side.SELL, D("0.02"))
    ledger.write(one)
    with path.open("ab") as file:
        file.write(b'\n{"type":"Clos')
    ledger.write(Ended(6, one.order, "filled", D("0.02")))

    again = Ledger(path)
    assert (again.run, again.unended()) == (2, [])
    assert again.traded(PERP, 4) == D("-0.02")
    assert again.traded(PERP, 5) == 0
    assert again.name(PERP) == "lr2-BTCUSDTL-1"


def test_a_gateway_that_is_not_quite_dead_sends_nothing_more(account):
    write_epoch(account.home, 7)
    fence = Fence(account.home, 7)
    gateway = BybitOrders(account.endpoint, account.keys, backoff=Backoff(), fence=fence)
    account.trades(Side.BUY, "0.02")
    release = threading.Timer(0.5, fence.release)
    release.start()
    try:
        assert account.flattens().verified
    finally:
        release.join()

    with pytest.raises(HeanError, match=r"epoch|let go"):
        gateway.send(SubmitOrder("late", "", PERP, Side.BUY, D("0.02"), None, TimeInForce.IOC, False, None, None))
    gateway.close()
    assert account.is_flat()


def test_what_cannot_be_done_in_time_is_said(account):
    account.trades(Side.BUY, "0.02")
    with storm(account.served, path="/v5/", status=502):
        done = account.flattens(limit_s=1.0)

    assert not done.verified
    assert any("502" in word for word in done.left)


# --- with a home ----------------------------------------------------------------------------------


def _books(home, *messages):
    actor = ComponentActor()
    actor.recover(Seat("portfolio", home, EngineSettings(strategies=CARRY), INSTRUMENTS, "tag", 1, 1))
    actor.tell(codec.letters([Envelope("x@1", n, 1, "", "", one) for n, one in enumerate(messages, 1)]), "x@1")
    actor.rest()
    actor.log.close()


def _home(account, **more):
    settings = EngineSettings(strategies=CARRY, endpoint=account.served.url, **more)
    (account.home / "settings.json").write_text(settings.model_dump_json())
    keys = account.home / "keys.toml"
    keys.write_text(f'key = "{account.keys.key}"\nsecret = "{account.keys.secret}"\n')
    keys.chmod(0o600)


def test_holdings_are_what_strategies_hold_and_not_what_was_there_before(tmp_path):
    _books(
        tmp_path,
        AdjustBooks("open", "", SPOT, "", D(1), D(50_000), "opening"),
        fill(SPOT, "0.5", 50_000, strategy="carry", fee="0.001", fee_currency="BTC"),
        fill(PERP, "-0.5", 50_000, strategy="carry"),
    )

    assert holdings(tmp_path).quantities == {SPOT: D("0.499")}


def test_from_a_home_it_latches_first_and_then_closes_all_there_is_of_ours(account):
    _home(account)
    account.trades(Side.SELL, "0.05")
    account.trades(Side.BUY, "0.05", SPOT)
    coins = account.coins()
    _books(account.home, fill(SPOT, "0.05", 50_000, strategy="carry", fee="0.0001", fee_currency="BTC"))

    done = out(account.home, "anna", "the engine is gone", limit_s=30, tell=account.told.append)

    assert done.verified
    assert account.is_flat()
    assert coins - account.coins() == D("0.0499")
    latched = msgspec.json.decode((account.home / "latched.json").read_bytes(), type=Latched)
    assert (latched.person, latched.reason) == ("anna", "the engine is gone")


@pytest.mark.parametrize("mode", [VenueMode.PAPER, VenueMode.LIVE], ids=["on paper", "in a dry run"])
def test_where_nothing_was_ever_sent_nothing_is(tmp_path, mode):
    settings = EngineSettings(strategies=CARRY, venue=mode)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())

    assert out(tmp_path, "anna", "why not").verified
    assert (tmp_path / "latched.json").exists()


def test_without_settings_it_is_latched_all_the_same(tmp_path):
    with pytest.raises((HeanError, OSError)):
        out(tmp_path, "anna", "why not")
    assert (tmp_path / "latched.json").exists()


def test_latching_again_keeps_the_file_whole(tmp_path):
    latch(tmp_path, "a", "first")
    latch(tmp_path, "b", "second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latched.json"]


# --- the watchdog ---------------------------------------------------------------------------------


def beat(ts, *, exposed=True, stopped=False):
    return Beat(ts, "RUNNING", exposed, stopped)


@pytest.mark.parametrize(
    ("seen", "due"),
    [
        ([(beat(1), 0), (beat(2), 25), (beat(2), 50)], []),
        ([(beat(1), 0), (beat(1), 31)], [31]),
        ([(beat(1), 0), (None, 31)], [31]),
        ([(beat(1), 0), (beat(1), 31), (beat(1), 62)], [31]),
        ([(beat(1), 0), (beat(1), 31), (beat(2), 40), (beat(2), 71)], [31, 71]),
        ([(beat(1, exposed=None), 0), (beat(1, exposed=None), 31)], [31]),
        ([(beat(1, exposed=False), 0), (beat(1, exposed=False), 99)], []),
        ([(beat(1, stopped=True), 0), (beat(1, stopped=True), 99)], []),
        ([(None, 0), (None, 99)], []),
    ],
    ids=[
        "it beats",
        "it is silent",
        "its file is gone",
        "once for a silence",
        "again for the next",
        "nobody knows what is held",
        "nothing is held",
        "it ended in order",
        "it never began",
    ],
)
def test_the_watchdog_acts_when_the_heart_is_still_and_something_may_be_held(seen, due):
    watch = Watch(30)
    assert [now for one, now in seen if watch.is_due(one, now)] == due


def test_the_watchdog_flattens_by_itself(account):
    _home(account)
    account.trades(Side.BUY, "0.02")
    Heartbeat(account.home).beat("RUNNING", exposed=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "actors.watchdog", str(account.home), "--silence", "0.2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + 40
        while not account.is_flat() and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.2)
        assert process.poll() is None, process.stderr.read()
        assert account.is_flat()
        assert (account.home / "latched.json").exists()
        second = subprocess.run(
            [sys.executable, "-m", "actors.watchdog", str(account.home)], capture_output=True, text=True, check=False
        )
        assert (second.returncode, "has a watchdog already" in second.stderr) == (1, True)
    finally:
        process.kill()
        process.communicate()
