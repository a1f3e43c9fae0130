"""The gates of real money, and a dry run behind them: seen from the engine and from the venue's actor, without Ray."""

import json
import time
from decimal import Decimal
from random import Random

import pytest

from actors.engine import SETTINGS, EngineActor
from actors.exchange.drills import TOKEN, Plan, serving
from actors.exchange.opening import FIRST_UID
from actors.gateways.bybit_endpoint import MAINNET, Keys, loopback
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.gateways.bybit_venue import VenueConfig
from actors.gateways.fence import write_epoch
from actors.last_resort import Flattened, latch
from actors.places import KEYS, LATCH, read_settings, write_settings
from actors.shell import Peer, Seat
from actors.venue import VenueActor, VenuePlan
from hean import codec
from hean.arming import PHRASE, Lease, account_of, bond
from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import ConfigError, HeanError
from hean.instruments import Category
from hean.messages import CancelAll, Envelope, OrderExpired, OrderFact, Side, SubmitOrder, TimeInForce
from hean.monitor import Held, MonitorState, StrategyView
from hean.store.engine_book import BOOK, EngineBook, lease_in
from hean.units import DAY, SECOND
from tests.ray.stage import CHURN

PERP = "BTCUSDT-LINEAR.BYBIT"
OPEN = {"dry_run": False, "live_confirm": "YES", "confirm_phrase": PHRASE}


def live(**gates):
    churn = {"use": CHURN, "config": {"name": "churn", "perp": PERP}, "sizing": {"kind": "fixed", "notional": 600}}
    return EngineSettings.model_validate({"venue": "live", "strategies": [churn], **gates})


def write_keys(home, key, secret):
    (home / KEYS).write_text(f'key = "{key}"\nsecret = "{secret}"\n')
    (home / KEYS).chmod(0o600)


class Mailbox:
    """Where an actor would be: what it is told lies here."""

    def __init__(self, *takes):
        self.messages = []
        self.peer = Peer(
            self, frozenset(name for kind in takes for name in (one.__name__ for one in codec.spoken(kind))), 1
        )

    @property
    def tell(self):
        return self

    def remote(self, parcel, _sender):
        self.messages += [one.message for one in codec.envelopes(parcel)]


def submit(name):
    return SubmitOrder(
        name, "churn", PERP, Side.BUY, Decimal("0.001"), Decimal(20_000), TimeInForce.GTC,
        reduce_only=False, reference=None, bracket=None,
    )  # fmt: skip


@pytest.fixture
def venue(tmp_path):
    """Begin the venue's actor; nobody else is there."""
    made = []

    def begin(settings, plan, rules):
        write_epoch(tmp_path, 1)
        actor = VenueActor(plan)
        made.append(actor)
        actor.recover(Seat("venue", tmp_path, settings, rules, "tst", 1, 1))
        return actor

    yield begin
    for actor in made:
        actor.rest()
        actor.log.close()


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Begin an engine that reaches no venue."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    made = []

    def begin(**gates):
        write_settings(tmp_path / SETTINGS, live(**gates))
        write_keys(tmp_path, "key", "secret")
        made.append(EngineActor(str(tmp_path)))
        return made[-1]

    yield begin
    for one in made:
        assert one.shutdown()
        one._book.close()
        one.log.close()


def wait(what, until, seconds=10):
    limit = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < limit, f"no {what}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("gates", "reasons"),
    [
        ({}, ("DRY_RUN=false", "LIVE_CONFIRM=YES", "CONFIRM_PHRASE=")),
        (OPEN | {"dry_run": True}, ("DRY_RUN=false",)),
        (OPEN | {"live_confirm": "yes"}, ("LIVE_CONFIRM=YES",)),
        (OPEN | {"confirm_phrase": "I accept"}, ("CONFIRM_PHRASE=",)),
        (OPEN, ()),
    ],
)
def test_the_engine_says_which_gates_of_real_money_are_shut(engine, gates, reasons):
    begun = engine(**gates)
    status = begun.status()
    reasons = (*reasons, "hean arm")
    assert len(status.permit) == len(reasons)
    assert all(remedy in reason for remedy, reason in zip(reasons, status.permit, strict=True))
    assert status.dry_run is gates.get("dry_run", True)
    assert status.trading is None


def test_an_engine_with_real_money_begins_nothing_until_it_is_armed(engine, tmp_path):
    begun = engine(**OPEN)
    wait("word on what is lacking", lambda: any("hean arm" in reason for reason in begun.status().blocked))
    assert begun.status().epoch == 0
    asked = begun.arm("ada")
    assert (asked.granted, asked.reasons, asked.phrase) == (False, (), PHRASE)
    assert asked.allowed["gross exposure"] == "2 times the equity"
    for nonce, phrase in ((asked.nonce, "I accept"), (asked.nonce, PHRASE), ("0" * 32, PHRASE)):
        with pytest.raises(HeanError, match="hean arm"):
            begun.arm("ada", nonce, phrase)  # the first used it up
    assert begun.status().armed_until is None
    given = begun.arm("ada", begun.arm("ada").nonce, PHRASE)
    assert given.granted
    assert DAY - SECOND < given.until - time.time_ns() <= DAY
    assert begun.status().armed_until == given.until
    assert lease_in(tmp_path / BOOK).person == "ada"
    wait("life", lambda: begun.status().epoch == 1)
    assert not any("hean arm" in reason for reason in begun.status().blocked)


def test_a_kill_closes_everything_though_nobody_armed_a_core_to_hear_it(engine, tmp_path, monkeypatch):
    closed = []

    def way(home, person, reason, **_):
        latch(home, person, reason)
        closed.append((person, reason))
        return Flattened(len(closed) > 1, 1, (), () if len(closed) > 1 else (f"{PERP} +0.001",))

    monkeypatch.setattr("actors.engine.out", way)
    monkeypatch.setattr("actors.engine._RETRY_S", 0.5)
    begun = engine(**OPEN)
    wait("word on what is lacking", lambda: any("nothing looks after" in one for one in begun.status().blocked))
    assert "as soon as it can" in begun.kill("ada", "a drill")
    wait("word on what is left", lambda: f"not closed: {PERP} +0.001" in begun.status().blocked)
    wait("end of it", lambda: not any("not closed" in one for one in begun.status().blocked))
    time.sleep(1)
    assert closed == [("ada", "a drill")] * 2
    assert "pulled by ada" in begun.status().blocked[-1]
    assert (tmp_path / LATCH).exists(), "risk hears it once there is a core"


def test_without_a_venue_a_kill_goes_on_trying(engine, monkeypatch):
    monkeypatch.setattr("actors.engine._OUT_S", 0.2)
    begun = engine(**OPEN)
    begun.kill("ada", "a drill")
    wait("word on what is left", lambda: any("not closed" in one for one in begun.status().blocked))


def test_what_is_armed_is_not_made_larger_and_what_is_changed_is_armed_no_more(engine, tmp_path):
    begun = engine(**OPEN)
    begun.arm("ada", begun.arm("ada").nonce, PHRASE)
    wait("strategies", lambda: begun.picture().strategies)
    with pytest.raises(ConfigError, match=r"sizing of churn.*hean up"):
        begun.configure("churn", {"sizing.notional": 601}, "bob", "more of it")
    assert begun.status().armed_until is not None
    said = begun.configure("churn", {"sizing.notional": 500}, "bob", "less of it")
    assert "hean arm" in said
    assert begun.status().armed_until is None
    assert lease_in(tmp_path / BOOK) is None
    wait("other settings", lambda: begun.settings.strategies[0].sizing.notional == 500)
    wait("word on what is lacking", lambda: any("hean arm" in reason for reason in begun.status().blocked))
    assert read_settings(tmp_path / SETTINGS) == begun.settings


def test_what_holds_something_for_real_money_is_not_left_alone_by_a_change(engine):
    begun = engine(**OPEN)
    begun.arm("ada", begun.arm("ada").nonce, PHRASE)
    wait("strategies", lambda: begun.picture().strategies)
    held = StrategyView(positions={PERP: Held(Decimal(1), Decimal(0), Decimal(1), 1)})
    with begun._lock:
        begun._seen = MonitorState(strategies={"churn": held})  # as the monitor says where it trades
    with pytest.raises(ConfigError, match=r"something is held.*hean flatten"):
        begun.configure("churn", {"sizing.notional": 500}, "bob", "less of it")
    assert begun.status().armed_until is not None


def test_at_the_end_of_the_lease_nothing_new_is_opened(engine, tmp_path):
    begun = engine(**OPEN)
    wait("word on what is lacking", lambda: begun.status().blocked)
    grant(tmp_path, Lease(bond(begun.settings, account_of("key")), "ada", 0, time.time_ns()))
    begun._started = begun._settled = True  # as after a day of trading
    begun._go_on()
    assert any("ada armed ended" in reason for reason in begun.status().blocked)
    (stop,) = (
        json.loads(line)
        for line in (tmp_path / "logs" / "engine.log").read_text().splitlines()
        if "StopTrading" in line
    )
    assert (stop["said"]["finish"], stop["said"]["flatten"]) == (True, False)
    assert "ada armed ended" in stop["said"]["reason"]


def test_the_lease_of_another_account_counts_for_nothing(engine, tmp_path):
    begun = engine(**OPEN)
    begun.arm("ada", begun.arm("ada").nonce, PHRASE)
    write_keys(tmp_path, "another", "secret")
    assert any("armed for other account" in reason for reason in begun.status().permit)


@pytest.mark.parametrize("venue", ["paper", "demo"])
def test_elsewhere_there_is_nothing_to_arm(tmp_path, monkeypatch, venue):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    write_settings(tmp_path / SETTINGS, live().model_copy(update={"venue": VenueMode(venue)}))
    begun = EngineActor(str(tmp_path))
    try:
        with pytest.raises(HeanError, match=f"nothing to arm: the venue is {venue}"):
            begun.arm("ada")
    finally:
        assert begun.shutdown()
        begun._book.close()
        begun.log.close()


def grant(home, lease):
    """Write a lease into the engine's book, as an engine of this home does."""
    book = EngineBook(home / BOOK, Random(1))
    book.grant(lease)
    book.close()


@pytest.mark.parametrize("shut", ["live_confirm", "confirm_phrase"])
def test_the_venues_actor_sends_nothing_where_a_gate_is_shut(tmp_path, venue, shut):
    settings = live(**{name: value for name, value in OPEN.items() if name != shut})
    write_keys(tmp_path, "key", "secret")
    grant(tmp_path, Lease(bond(settings, account_of("key")), "ada", 0, time.time_ns() + DAY))
    actor = venue(settings, VenuePlan(MAINNET, VenueConfig(), tmp_path / KEYS, dry_run=False), {})
    with pytest.raises(ConfigError, match=f"nothing permits.*{shut}"):
        actor.begin([], [], 0)


@pytest.mark.parametrize(
    ("settings", "key", "left", "why"),
    [
        (None, "key", DAY, "not armed"),
        (live(**OPEN, symbols=["ETHUSDT"]), "key", DAY, "armed for other settings"),
        (live(**OPEN), "another", DAY, "armed for other account"),
        (live(**OPEN), "key", -1, "ada armed ended"),
    ],
)
def test_the_venues_actor_sends_nothing_without_a_lease_for_just_this(tmp_path, venue, settings, key, left, why):
    write_keys(tmp_path, "key", "secret")
    if settings is not None:
        grant(tmp_path, Lease(bond(settings, account_of(key)), "ada", 0, time.time_ns() + left))
    actor = venue(live(**OPEN), VenuePlan(MAINNET, VenueConfig(), tmp_path / KEYS, dry_run=False), {})
    with pytest.raises(ConfigError, match=f"nothing permits.*{why}.*hean arm"):
        actor.begin([], [], 0)


def test_a_dry_run_with_real_keys_writes_orders_down_and_sends_none(tmp_path, venue):
    with serving(Plan(symbols=("BTCUSDT",), seed=5, days=1), token=TOKEN) as exchange:
        write_keys(tmp_path, exchange.key, exchange.secret)
        where = loopback(exchange.url)
        rest = BybitRest(where, Keys(exchange.key, exchange.secret), instruments={}, backoff=Backoff())
        rules = rest.rules(Category.LINEAR, frozenset({"BTCUSDT"}))
        rest.close()
        actor = venue(live(), VenuePlan(where, VenueConfig(), tmp_path / KEYS, dry_run=True), rules)
        broker = Mailbox(OrderFact)
        actor.connect({"broker": broker.peer})
        actor.begin([], [], time.time_ns())
        told = [submit("tst1-churn-1"), CancelAll("")]
        parcel = codec.letters([Envelope("broker@1", seq, 1, "", "", one) for seq, one in enumerate(told, 1)])
        actor.tell(parcel, "broker@1")
        limit = time.monotonic() + 10
        while not any(isinstance(one, OrderExpired) for one in broker.messages):
            assert time.monotonic() < limit, broker.messages
            time.sleep(0.02)
        records = exchange.server.bybit.exchange.records[str(FIRST_UID)]
        assert records.orders == {}

    (expired,) = (one for one in broker.messages if isinstance(one, OrderExpired))
    assert (expired.client_order_id, expired.reason) == ("tst1-churn-1", "dry run: not sent")
    logged = (tmp_path / "logs" / "venue.log").read_text()
    assert "order/create" in logged
    assert "tst1-churn-1" in logged
    assert "order/cancel-all" in logged
    assert exchange.secret not in logged
