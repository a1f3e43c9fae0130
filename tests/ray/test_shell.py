"""The shell of a component without Ray around it: what it keeps, what it tells again, when it ends."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from actors.feed import FeedActor
from actors.gateways.fence import write_epoch
from actors.roles import PaperVenueActor, PortfolioActor, ReconcilerActor, StrategyActor
from actors.shell import Alarm, Clock, Peer, Post, Seat
from actors.venue import VenueActor
from hean import codec
from hean.engine_settings import EngineSettings
from hean.errors import JournalError
from hean.live_system import live_strategies, traded
from hean.messages import (
    CORE,
    CancelOrder,
    Envelope,
    MarkPrice,
    NodeStarted,
    OrderAccepted,
    OrderRejected,
    OrderSent,
    PositionChanged,
    Quote,
    ReconcileDue,
    Side,
    SnapshotAccount,
    SubmitOrder,
    TimeInForce,
)
from hean.store.rules import in_force
from hean.topology import Node
from hean.units import SECOND

PERP = "BTCUSDT-LINEAR.BYBIT"
CHURN = f"{Path(__file__).resolve().parent / 'churn.py'}:Churn"
HOUR = 3_600 * SECOND


def seat(home, node, life=1):
    tree = {
        "venue": "paper",
        "strategies": [{"use": CHURN, "config": {"name": "churn"}, "sizing": {"kind": "fixed", "notional": 600}}],
    }
    settings = EngineSettings.model_validate(tree)
    names = traded(live_strategies(settings))
    rules = {name: msgspec.structs.replace(in_force((), PERP, 0)[0], id=name) for name in names}
    return Seat(node, home, settings, rules, "tst", life, life)


def letters(source, *messages, first=1):
    return codec.letters([Envelope(source, seq, 1, "", "", message) for seq, message in enumerate(messages, first)])


@pytest.fixture
def begun():
    """Begin an actor's first life, and let go of its files at the end."""
    made = []

    def begin(kind, seat, *arguments):
        actor = kind(*arguments)
        made.append(actor)
        actor.recover(seat)
        return actor

    yield begin
    for actor in made:
        if isinstance(actor, VenueActor | FeedActor):
            actor.rest()
        elif actor._journal is not None:
            actor._journal.close()
        actor.log.close()


class Mailbox:
    """Where an actor would be: what it is told lies here."""

    def __init__(self, *takes, life=1):
        self.heard = []
        self.peer = Peer(self, frozenset(kind.__name__ for kind in takes), life)

    @property
    def tell(self):
        return self

    def remote(self, parcel, _sender):
        self.heard += codec.envelopes(parcel)

    @property
    def messages(self):
        return [one.message for one in self.heard]


def submit(number):
    return SubmitOrder(
        f"o{number}", "churn", PERP, Side.BUY, Decimal("0.001"), Decimal(50_000), TimeInForce.GTC,
        reduce_only=False, reference=None, bracket=None,
    )  # fmt: skip


# --- facts that nobody heard ----------------------------------------------------------------------


def test_what_a_strategy_holds_is_not_lost_on_it_while_it_has_no_past(tmp_path, begun):
    strategy = begun(StrategyActor, seat(tmp_path, "churn"))
    held = PositionChanged("churn", PERP, Decimal(1), Decimal(0), Decimal(60_000))
    told = []
    strategy._life.host.handle = lambda message, _: told.append(message) or ()

    strategy.tell(codec.rows("feed.churn@1", 1, 1, [Quote(PERP, 1, 1.0, 1.0, 2.0, 1.0)]), "feed@1")
    strategy.tell(letters("portfolio@1", held), "portfolio@1")
    assert told == []

    plan = type("Plan", (), {"endpoint": None, "kept": None, "bar_minutes": 1})
    strategy.warm(plan)  # it watches quotes alone, and those have no past to ask for
    assert told == [held]


def test_a_paper_venue_says_again_what_was_not_heard_however_much_it_has_said_since(tmp_path, begun):
    venue = begun(PaperVenueActor, seat(tmp_path, "venue"))
    broker = Mailbox(OrderAccepted)
    venue.post.connect({"broker": broker.peer})
    quote = Quote(PERP, time.time_ns(), 60_000.0, 10.0, 60_001.0, 10.0)
    venue.tell(codec.rows("feed.venue@1", 1, 1, [quote]), "feed@1")
    for number in range(1, 21):
        venue.tell(letters("broker@1", submit(number), first=number), "broker@1")
    limit = time.monotonic() + 10
    while len(broker.heard) < 20 and time.monotonic() < limit:
        venue.wake()
        time.sleep(0.02)
    assert len(broker.heard) == 20

    late = Mailbox(OrderAccepted)
    venue.recover(seat(tmp_path, "venue", life=2))
    venue.post.connect({"broker": late.peer})
    venue.deliver_again({"broker": {"venue@1": 3}})

    assert late.heard == broker.heard[3:]


def test_whoever_is_begun_anew_is_told_what_it_missed_before_anything_newer():
    post = Post("broker@1")
    monitor = Node("monitor", "monitor")

    def say(first, last):
        post.send((monitor, Envelope("broker@1", seq, 1, "", "", NodeStarted(str(seq)))) for seq in range(first, last))

    say(1, 4)
    anew = Mailbox(NodeStarted)
    post.connect({"monitor": msgspec.structs.replace(anew.peer, cursors={"broker@1": 1})})
    say(4, 5)

    assert [one.seq for one in anew.heard] == [2, 3, 4]


def test_facts_are_told_again_while_a_thread_of_a_gateway_says_new_ones():
    post = Post("venue@1")
    monitor = Node("monitor", "monitor")
    mailbox = Mailbox(NodeStarted)
    post.connect({"monitor": mailbox.peer})
    post.remember((monitor, Envelope("venue@1", seq, 1, "", "", NodeStarted("x"))) for seq in range(1, 20_000))
    ended = threading.Event()

    def pump():
        seq = 20_000
        while not ended.is_set():
            post.send([(monitor, Envelope("venue@1", seq, 1, "", "", NodeStarted("x")))])
            seq += 1

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        assert all(post.again({"monitor": {"venue@1": 19_000}}) for _ in range(20))
    finally:
        ended.set()
        thread.join()


# --- lives ----------------------------------------------------------------------------------------


def test_an_alarm_of_an_earlier_life_does_not_have_things_said_to_nobody(tmp_path, begun):
    reconciler = begun(ReconcilerActor, seat(tmp_path, "reconciler"))
    reconciler.wake()  # it is due: it has never asked
    assert reconciler.component.state.requests == 0

    venue = Mailbox(SnapshotAccount)
    reconciler.post.connect({"venue": venue.peer})
    reconciler.wake()
    assert venue.messages == [SnapshotAccount(1)]


def test_words_of_an_earlier_life_are_not_heard(tmp_path, begun):
    reconciler = begun(ReconcilerActor, seat(tmp_path, "reconciler", life=2))
    venue = Mailbox(SnapshotAccount)
    reconciler.post.connect({"venue": venue.peer})
    reconciler.tell(letters("engine@1", ReconcileDue("old")), "engine@1")
    assert venue.messages == []
    reconciler.tell(letters("engine@2", ReconcileDue("new")), "engine@2")
    assert len(venue.messages) == 1


def test_a_successor_hears_nothing_twice(tmp_path, begun):
    portfolio = begun(PortfolioActor, seat(tmp_path, "portfolio"))
    parcel = letters("engine@1", NodeStarted(CORE), NodeStarted(CORE))
    portfolio.tell(parcel, "engine@1")
    assert portfolio.recover(seat(tmp_path, "portfolio", life=2)).cursors == {"engine@1": 2}
    monitor = Mailbox(NodeStarted)
    portfolio.post.connect({"monitor": monitor.peer})
    before = portfolio.state()
    portfolio.tell(parcel, "engine@2")  # told again by a later life
    assert portfolio.state() == before
    assert portfolio.post.sent == 0


def test_who_rests_hears_nothing_and_goes_on_in_its_next_life_as_a_successor_would(tmp_path, begun):
    portfolio = begun(PortfolioActor, seat(tmp_path, "portfolio"))
    portfolio.tell(letters("engine@1", NodeStarted(CORE)), "engine@1")
    portfolio.rest()
    rested = portfolio.state()
    portfolio.tell(letters("engine@1", NodeStarted(CORE), first=2), "engine@1")
    portfolio.wake()
    assert portfolio.state() == rested

    recovered = portfolio.recover(seat(tmp_path, "portfolio", life=2))
    assert (recovered.cursors, recovered.entries, recovered.from_snapshot) == ({"engine@1": 1}, 0, True)
    portfolio.tell(letters("engine@2", NodeStarted(CORE)), "engine@2")
    assert portfolio.ping().told == 1


# --- what they say of themselves ------------------------------------------------------------------


class Puzzled:
    """A strategy of somebody's that cannot say what it waits for."""

    def waits_for(self, now):
        raise ZeroDivisionError("by nought")


def test_a_strategy_that_cannot_explain_itself_says_so_and_lives(tmp_path, begun):
    churn = begun(StrategyActor, seat(tmp_path, "churn"))
    assert churn.ping().voice.gates == ("met: it is time",)
    churn.component = Puzzled()
    assert churn.ping().voice.gates == ("met: it is time",), "it is asked once a second at most"
    churn._gates._due = 0.0
    assert churn.ping().voice.gates == ("waits_for: ZeroDivisionError: by nought",)


def test_the_feed_counts_what_it_shows_by_instrument(tmp_path, begun):
    feed = begun(FeedActor, seat(tmp_path, "feed"), None)
    churn, slow = Mailbox(Quote), Mailbox(Quote)
    feed.connect({"churn": churn.peer, "broker": slow.peer})
    before = time.time_ns()
    feed._say([Quote(PERP, 1, 10.0, 1.0, 11.0, 1.0), Quote(PERP, 2, 10.5, 1.0, 11.5, 1.0)])
    (seen,) = (one for one in feed.ping().seen if one.instrument == PERP)
    assert (seen.rows, seen.price) == (2, 11.0)
    assert before <= seen.last["Quote"] <= time.time_ns()
    feed._say([MarkPrice(PERP, 3, 12.0)])
    (seen,) = (one for one in feed.ping().seen if one.instrument == PERP)
    assert (seen.rows, seen.price, sorted(seen.last)) == (3, 12.0, ["MarkPrice", "Quote"])


@pytest.mark.parametrize("table", ["snapshots SET state", "snapshots SET memo", "told SET parcel"])
def test_a_damaged_journal_is_named_with_what_to_do(tmp_path, table, begun):
    portfolio = begun(PortfolioActor, seat(tmp_path, "portfolio"))
    portfolio.tell(letters("engine@1", NodeStarted(CORE)), "engine@1")
    portfolio._journal.close()
    with sqlite3.connect(tmp_path / "journals" / "portfolio.db") as db:
        db.execute(f"UPDATE {table} = x'00'")
    db.close()
    with pytest.raises(JournalError, match=r"portfolio.* is damaged, or of another HEAN .*move the journal away"):
        begun(PortfolioActor, seat(tmp_path, "portfolio", life=2))


# --- time -----------------------------------------------------------------------------------------


def test_a_successor_is_told_no_time_before_that_of_its_predecessor(tmp_path, begun):
    portfolio = begun(PortfolioActor, seat(tmp_path, "portfolio"))
    ahead = time.time_ns() + HOUR
    portfolio._time.not_before(ahead)
    portfolio.tell(letters("engine@1", NodeStarted(CORE)), "engine@1")
    portfolio.rest()  # a snapshot, and nothing after it

    successor = begun(PortfolioActor, seat(tmp_path, "portfolio", life=2))
    assert successor._clock() > ahead


def test_a_clock_that_was_set_back_goes_on_from_where_it_was():
    clock = Clock()
    clock.not_before(time.time_ns() + HOUR)
    before = clock.now()
    time.sleep(0.02)
    assert 0.01 * SECOND < clock.now() - before < SECOND


def test_an_alarm_rings_by_a_clock_that_was_set_back():
    clock = Clock()
    clock.not_before(time.time_ns() + HOUR)
    rung = threading.Event()
    alarm = Alarm(rung.set, "node", clock)
    alarm.set(clock.now() + SECOND // 20)
    assert rung.wait(5)
    alarm.end()


# --- the end --------------------------------------------------------------------------------------

_FULL = """
import sys
from pathlib import Path
from actors.gateways.fence import write_epoch
from actors.roles import PortfolioActor
from tests.ray.test_shell import seat
home = Path(sys.argv[1])
(home / "logs").mkdir()
(home / "logs" / "portfolio.log").symlink_to("/dev/full")
portfolio = PortfolioActor()
try:
    portfolio.recover(seat(home, "portfolio"))
except OSError:
    pass  # it cannot even say that it has recovered
try:
    portfolio.tell(b"no parcel", "engine@1")
finally:
    print("alive")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_who_cannot_go_on_ends_even_where_the_disk_is_full(tmp_path):
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, ""), ended.stderr


class _Broken:
    @property
    def tell(self):
        return self

    def remote(self, *_):
        raise OSError("no way to it")


def test_a_thread_of_the_feed_that_ends_is_seen(tmp_path, begun):
    feed = begun(FeedActor, seat(tmp_path, "feed"), None)
    feed.connect({"churn": Peer(_Broken(), frozenset(), 1)})
    assert feed.ping().detail == ""
    feed._say([Quote(PERP, 1, 1.0, 1.0, 2.0, 1.0)])
    limit = time.monotonic() + 10
    while not (detail := feed.ping().detail):
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert detail == "not told any more: to-churn: OSError: no way to it"


# --- the venue's actor ----------------------------------------------------------------------------


def test_the_venues_actor_says_of_an_order_it_cannot_pass_on_that_it_was_not_sent(tmp_path, begun):
    write_epoch(tmp_path, 1)
    venue = begun(VenueActor, seat(tmp_path, "venue"), None)
    broker = Mailbox(OrderRejected)
    venue.connect({"broker": broker.peer})
    venue.tell(letters("broker@1", submit(1), CancelOrder("churn", "o1", PERP)), "broker@1")
    (rejected,) = broker.messages
    assert rejected.client_order_id == "o1"


def test_the_venues_actor_does_not_send_what_an_earlier_life_asked_for(tmp_path, begun):
    write_epoch(tmp_path, 2)
    venue = begun(VenueActor, seat(tmp_path, "venue", life=2), None)
    broker = Mailbox(OrderRejected, life=2)
    venue.connect({"broker": broker.peer})
    venue.tell(letters("broker@1", submit(1)), "broker@1")
    assert broker.messages == []


def test_the_venues_actor_says_when_an_order_goes_out_for_which_row_of_the_market(tmp_path, begun):
    write_epoch(tmp_path, 1)
    venue = begun(VenueActor, seat(tmp_path, "venue"), None)
    monitor = Mailbox(OrderSent)
    venue.connect({"monitor": monitor.peer})
    seen = time.time_ns()
    asked = [
        Envelope("broker@1", number, 1, "feed.churn@1:7", "risk@1:3", submit(number), ts_seen)
        for number, ts_seen in enumerate((seen, 0), 1)
    ]
    venue.tell(codec.letters(asked), "broker@1")
    for number in (1, 2, 3):  # the second was not asked for by the market, the third not by anybody
        venue._going(submit(number))

    (said,) = monitor.heard
    assert (said.source, said.seq, said.trace, said.cause) == ("venue.sent@1", 1, "feed.churn@1:7", "broker@1:1")
    assert (said.message.client_order_id, said.message.ts_seen) == ("o1", seen)
    assert seen <= said.message.ts_sent <= time.time_ns()
