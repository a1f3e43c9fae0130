"""The gateway that trades, where it matters who goes first, who may send at all, and that nothing goes wrong unseen."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from decimal import Decimal

import pytest

from actors.exchange.auth import ALL_RIGHTS
from actors.exchange.drills import lose_answers, mute, serving, slow_answers, storm
from actors.exchange.opening import Plan
from actors.exchange.server import SIGNED
from actors.gateways.bybit_endpoint import DEMO, MAINNET, TESTNET, Endpoint, Keys, loopback
from actors.gateways.bybit_venue import BybitVenue
from actors.gateways.dry_run import DryRun
from actors.gateways.fence import Fence, write_epoch
from hean.arming import PHRASE, Lease, account_of, bond
from hean.bybit.orders import Restored
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError, VenueError
from hean.execution.orders import OrderStatus
from hean.messages import (
    AccountSnapshot,
    AmendOrder,
    CancelAll,
    CancelOrder,
    ErrorReported,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Side,
    SnapshotAccount,
    SubmitOrder,
    TimeInForce,
)
from hean.permit import LivePermit, live_gate
from tests.exchange.client import PERP, QUICK, SHORT, SPOT, VENUE, Desk, exchange
from tests.exchange.conftest import Venue, key


@pytest.fixture
def served():
    with exchange() as running:
        yield running


@pytest.fixture
def strict():
    """An exchange that counts requests as the venue does."""
    with serving(Plan(symbols=("BTCUSDT",), seed=5, days=1, accounts=2)) as running:
        yield running


# --- when it goes out -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["rest", "socket"])
def test_of_each_order_it_is_told_once_that_it_goes_out_before_the_venue_has_it(served, way):
    going = []
    config = VENUE.model_copy(update={"orders_by": way})
    with Desk(served, config=config, going=lambda order: going.append((order.client_order_id, time.time_ns()))) as desk:
        if way == "socket":
            desk.until(lambda: desk.venue._account.sender.trade.socket is not None, "the trade socket stands")
        began = time.time_ns()
        names = [desk.resting() for _ in range(5)]
        desk.until(lambda: all(desk.facts(name) for name in names), "an answer to each")
        desk.cancel(names[0])
        desk.until(lambda: desk.orders()[names[0]].status is OrderStatus.CANCELED, "the cancel")
        there = {order.link_id: order.ts_created for order in desk.records.orders.values()}
        assert sorted(name for name, _ in going) == sorted(names)
        # The exchange stamps in whole milliseconds.
        assert all(began <= at <= there[name] + 1_000_000 for name, at in going)


# --- who goes first -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["rest", "socket"])
def test_behind_a_flood_of_opening_orders_a_cancel_and_a_reduce_leave_next(strict, way):
    config = VENUE.model_copy(update={"orders_by": way, "age_s": 2.5})
    with Desk(strict, config=config) as desk:
        if way == "socket":
            desk.until(lambda: desk.venue._account.sender.trade.socket is not None, "the trade socket stands")
        rests, held = desk.resting(), desk.order()
        desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "a position")
        desk.until(lambda: desk.facts(rests), "an answer")
        time.sleep(1.1)
        flood = [desk.resting(away=0.02 + at / 5_000) for at in range(40)]
        desk.cancel(rests)
        lessens = desk.order(Side.SELL, reduce_only=True)
        desk.until(lambda: desk.orders()[rests].status is OrderStatus.CANCELED, "the cancel")
        desk.until(lambda: desk.orders()[lessens].status is OrderStatus.FILLED, "the reduce")
        desk.until(lambda: all(desk.facts(name) for name in flood), "each of the flood has an answer")
        ended = {type(desk.facts(name)[0]) for name in flood}
        assert ended == {OrderAccepted, OrderExpired}
        expired = [desk.facts(name)[0] for name in flood if type(desk.facts(name)[0]) is OrderExpired]
        assert all(fact.reason.startswith("too old: waited ") for fact in expired)
        assert not {fact.client_order_id for fact in expired} & set(desk.at_the_exchange())
        assert desk.errors()["backoff"] == 0, "the venue never had to say that it was too much"
        assert not desk.of_kind(OrderRejected)
        there = {order.link_id: order for order in desk.records.orders.values()}
        sent = sorted(there[name].ts_created for name in flood if name in there)
        # Ten leave at once, and ten in each second: neither waited for those that were told before it.
        for first in (there[rests].ts_updated, there[lessens].ts_created):
            assert sum(ts > first for ts in sent) > len(sent) / 3


def test_an_order_that_has_not_left_and_its_cancel_are_both_moot(strict):
    with Desk(strict) as desk:
        flood = [desk.resting(away=0.02 + at / 5_000) for at in range(25)]
        desk.cancel(flood[-1])
        desk.until(lambda: desk.facts(flood[-1]), "an answer")
        (fact,) = desk.facts(flood[-1])
        assert (type(fact), fact.reason) == (OrderCanceled, "never sent: its cancel came first")
        desk.venue.tell(CancelAll(""))
        desk.until(lambda: not desk.venue._account.tracker.open, "all is over")
        assert flood[-1] not in desk.at_the_exchange()
        assert len(desk.at_the_exchange()) < 25


def test_no_thread_that_waits_for_an_answer_to_an_opening_order_holds_a_cancel_up(served):
    with Desk(served, config=VENUE.model_copy(update={"timeout_s": 5.0})) as desk:
        rests = desk.resting()
        desk.until(lambda: desk.facts(rests), "an answer")
        with slow_answers(served, 1_500):
            for _ in range(8):
                desk.resting()
            time.sleep(0.1)
            desk.cancel(rests)
            desk.until(lambda: desk.orders()[rests].status is OrderStatus.CANCELED, "the cancel", 1.4)
        desk.until(lambda: all(desk.facts(name) for name in desk.sent), "answers")


@pytest.mark.parametrize("way", ["rest", "socket"])
def test_a_group_that_was_turned_away_waits_until_the_venue_said(served, way):
    with Desk(served, config=VENUE.model_copy(update={"orders_by": way})) as desk:
        if way == "socket":
            desk.until(lambda: desk.venue._account.sender.trade.socket is not None, "the trade socket stands")
        with storm(served, path="/v5/order/create", next=1, code=10006) as pull:
            first = desk.resting()
            desk.until(lambda: desk.facts(first), "an answer")
            assert pull.effects
        assert type(desk.facts(first)[0]) is OrderRejected
        then = desk.resting()
        assert desk.venue.meter.budget._buckets["order/create linear"].until > 0
        desk.until(lambda: desk.facts(then), "it leaves later")
        assert type(desk.facts(then)[0]) is OrderAccepted


# --- amendments -----------------------------------------------------------------------------------


def test_an_amendment_that_was_taken_is_told(served):
    with Desk(served) as desk:
        name = desk.resting()
        desk.until(lambda: desk.facts(name), "an answer")
        desk.venue.tell(AmendOrder("drill", name, PERP, Decimal("0.003"), None))
        desk.until(lambda: desk.of_kind(OrderAmended), "the amendment")
        assert desk.of_kind(OrderAmended) == [OrderAmended(name, "drill", PERP, Decimal("0.003"), None)]
        with lose_answers(served, "/v5/order/amend"):
            desk.venue.tell(AmendOrder("drill", name, PERP, Decimal("0.004"), None))
            desk.until(lambda: len(desk.of_kind(OrderAmended)) == 2, "it is known by the order itself")


# --- the kill switch ------------------------------------------------------------------------------


def test_a_cancel_of_everything_is_insisted_on_until_the_venue_says_yes(served):
    with Desk(served, prefix="other") as other, Desk(served) as desk:
        foreign = other.resting(SPOT, quantity="0.002")
        other.until(lambda: other.facts(foreign), "an answer")
        with storm(served, path="/v5/order/cancel-all", next=3, code=10016):
            desk.venue.tell(CancelAll(""))
            desk.until(lambda: desk.errors()["cancel all failed"] == 3, "that it failed")
        desk.until(lambda: not any(is_open for is_open, _ in desk.at_the_exchange().values()), "nothing is open")


def test_a_gateway_that_is_stopped_takes_nothing_in_silence(served):
    with Desk(served, trades=False) as desk:
        said = []
        venue = BybitVenue(desk.endpoint, desk.keys, desk.rules, said.extend, since=time.time_ns(), config=VENUE)
        venue.start()
        venue.stop()
        with pytest.raises(VenueError, match="is stopped"):
            venue.tell(SnapshotAccount(1))
        assert not venue.alive


# --- silence, and what a successor needs ----------------------------------------------------------


def test_a_silent_stream_is_checked_while_orders_are_open_and_not_else(served):
    with Desk(served, config=VENUE.model_copy(update={"silence_s": 0.4})) as desk:
        time.sleep(1.0)
        assert not desk.reconciles()
        with mute(served, "*", kind="private"):
            rests = desk.resting()
            desk.until(lambda: desk.facts(rests), "an answer")
            bought = desk.order()
            desk.until(desk.reconciles, "that reconciliation is due")
            desk.until(lambda: desk.orders()[bought].status is OrderStatus.FILLED, "what it did not say is asked for")
        assert "said nothing for 0.4 s" in desk.reconciles()[0].reason
        desk.cancel(rests)


def test_all_who_wish_for_a_snapshot_get_one_and_the_cursor_moves_on(served):
    begun = time.time_ns() - 3600 * 10**9
    with Desk(served, since=begun) as desk:
        for number in range(1, 30):
            desk.venue.tell(SnapshotAccount(number))
        desk.until(lambda: len(desk.of_kind(AccountSnapshot)) == 29, "all of them")
        assert {one.request_id for one in desk.of_kind(AccountSnapshot)} == set(range(1, 30))
        assert len({one.ts_event for one in desk.of_kind(AccountSnapshot)}) < 29, "some shared an answer"
        assert desk.venue.since > begun


def test_a_ledger_can_be_laid_beside_the_transaction_log(served):
    with Desk(served) as desk:
        bid, _ = desk.best()
        rests = desk.order(limit=bid)
        desk.until(lambda: desk.facts(rests), "an answer")
        meets = desk.order(Side.SELL, quantity="3", limit=bid * 0.999)
        desk.order(instrument=SPOT, quantity="0.002")
        desk.until(lambda: desk.orders()[rests].filled and desk.orders()[meets].filled, "two of ours have met")
        desk.nothing_lost()
        lines = desk.rest.transactions(time.time_ns() - 3600 * 10**9, time.time_ns())
        assert {line.ledger_id for line in lines if line.kind == "TRADE"} == {
            fill.trade_id for fill in desk.of_kind(OrderFilled)
        }
        fees = {fill.trade_id: (fill.fee, fill.fee_currency) for fill in desk.of_kind(OrderFilled)}
        for line in lines:
            if line.kind == "TRADE" and line.fee:
                assert fees[line.ledger_id] == (line.fee, line.currency)


# --- nothing fails unseen -------------------------------------------------------------------------


def _break(_):
    raise ZeroDivisionError("a bug of ours")


@pytest.mark.parametrize("place", ["asking", "sending", "pump", "stream"])
def test_a_thread_that_fails_is_reported_and_the_gateway_is_not_alive(served, place):
    with Desk(served, trades=False) as desk:
        said = []
        venue = BybitVenue(
            desk.endpoint, desk.keys, desk.rules, said.extend, since=time.time_ns(), config=VENUE, pace=QUICK
        )
        account = venue._account
        match place:
            case "asking":
                account.asking._measure = _break
            case "sending":
                account.sender.lanes.take = lambda *_: _break(None)
            case "pump":
                account.tracker.due = lambda *_, **__: _break(None)
            case _:
                account.private.stream._live = _break
        venue.start()
        desk.until(lambda: any(getattr(one, "kind", "") == "gateway failed" for one in said), "that it failed")
        assert "ZeroDivisionError: a bug of ours" in next(one.detail for one in said if one.kind == "gateway failed")
        desk.until(lambda: not venue.alive, "and is seen to")
        venue.stop(timeout_s=1)


# --- who may send ---------------------------------------------------------------------------------


@contextmanager
def fenced(desk, home, epoch, said):
    venue = BybitVenue(
        desk.endpoint,
        desk.keys,
        desk.rules,
        said.extend,
        since=time.time_ns(),
        config=VENUE,
        pace=QUICK,
        pings=SHORT,
        fence=Fence(home, epoch, wait_s=5),
    )
    venue.start()
    try:
        yield venue
    finally:
        venue.stop()


def bid(desk, name):
    limit = desk.rules[PERP].price(desk.best()[0] * 0.98)
    return SubmitOrder(name, "s", PERP, Side.BUY, Decimal("0.001"), limit, TimeInForce.GTC, False, None, None)


def test_a_gateway_whose_successor_has_begun_sends_nothing_and_says_so_once(served, tmp_path):
    write_epoch(tmp_path, 1)
    said = []
    with Desk(served, trades=False) as desk, fenced(desk, tmp_path, 1, said) as venue:
        venue.tell(bid(desk, "first"))
        desk.until(lambda: "first" in desk.at_the_exchange(), "it sends")
        write_epoch(tmp_path, 2)
        for number in range(5):
            venue.tell(bid(desk, f"late-{number}"))
        desk.until(lambda: any(getattr(one, "kind", "") == "fenced" for one in said), "that it may not")
        venue.tell(CancelOrder("s", "first", PERP))
        venue.tell(CancelAll(""))
        Fence(tmp_path, 2, wait_s=5).release()  # while the predecessor still stands
        time.sleep(0.5)
        assert desk.at_the_exchange() == {"first": (True, Decimal(0))}
        assert [one.kind for one in said if isinstance(one, ErrorReported)] == ["fenced"]
        assert not [one for one in said if getattr(one, "client_order_id", "").startswith("late")]
        assert not venue.alive


SENDER = """
import sys, time
from decimal import Decimal
from pathlib import Path
from actors.gateways.bybit_endpoint import Keys, loopback
from actors.gateways.bybit_venue import BybitVenue
from actors.gateways.fence import Fence
from hean.messages import Side, SubmitOrder, TimeInForce
url, key, secret, home, price = sys.argv[1:]
told = lambda batch: [print(one, flush=True) for one in batch]
venue = BybitVenue(loopback(url), Keys(key, secret), {}, told, since=time.time_ns(), fence=Fence(Path(home), 1))
venue.start()
number = 0
while True:
    number += 1
    venue.tell(SubmitOrder(f"old-{number}", "s", "BTCUSDT-LINEAR.BYBIT", Side.BUY, Decimal("0.001"), Decimal(price),
                           TimeInForce.GTC, False, None, None))
    time.sleep(0.02)
"""


def test_a_predecessor_that_is_stopped_and_goes_on_after_its_successor_began_sends_nothing(served, tmp_path):
    write_epoch(tmp_path, 1)
    with Desk(served, trades=False) as desk:
        price = str(desk.rules[PERP].price(desk.best()[0] * 0.9))
        arguments = [served.url, served.key, served.secret, str(tmp_path), price]
        with subprocess.Popen([sys.executable, "-c", SENDER, *arguments], stdout=subprocess.PIPE, text=True) as old:
            desk.until(lambda: len(desk.at_the_exchange()) > 5, "it sends", 20)
            os.kill(old.pid, signal.SIGSTOP)
            write_epoch(tmp_path, 2)
            time.sleep(0.2)
            before = set(desk.at_the_exchange())
            os.kill(old.pid, signal.SIGCONT)
            while "fenced" not in old.stdout.readline():
                pass
            said = []
            with fenced(desk, tmp_path, 2, said) as venue:
                venue.tell(bid(desk, "new-1"))
                desk.until(lambda: "new-1" in desk.at_the_exchange(), "the successor sends")
            time.sleep(0.3)
            after = set(desk.at_the_exchange())
            old.kill()
        # At most what was on the wire when it was stopped.
        assert len(after - before - {"new-1"}) <= 4


# --- real money -----------------------------------------------------------------------------------


def test_real_money_is_not_traded_without_a_permit():
    keys = Keys("k", "s")
    elsewhere = Endpoint("loopback", "http://127.0.0.1:1", "ws://127.0.0.1:1", "wss://stream.bybit.com", "")
    for real in (MAINNET, elsewhere, Endpoint("x", "https://api.bybit.nl", "", "", "")):
        for no_permit in (None, ("dry_run is true",), object()):
            with pytest.raises(ConfigError, match="nothing permits"):
                BybitVenue(real, keys, {}, print, since=0, permit=no_permit)
    for practice in (TESTNET, DEMO, loopback(8080), loopback("http://exchange:8080"), loopback("http://10.0.0.5:80")):
        BybitVenue(practice, keys, {}, print, since=0)
    settings = EngineSettings(
        strategies=({"use": "impulse"},), venue="live", dry_run=False, live_confirm="YES", confirm_phrase=PHRASE
    )
    account = account_of(keys.key)
    permit = live_gate(settings, Lease(bond(settings, account), "ada", 0, 1), account, 0)
    assert isinstance(permit, LivePermit)
    BybitVenue(MAINNET, keys, {}, print, since=0, permit=permit)
    DryRun(MAINNET, keys, {}, print, print, since=0)


@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ({"Spot": ()}, "spot"),
        ({"ContractTrade": (), "Derivatives": ()}, r"contracts \(Orders and Positions\)"),
        ({"ContractTrade": ("Position",), "Derivatives": (), "Spot": ()}, r"contracts \(.*\) and spot"),
    ],
)
def test_a_key_that_lacks_a_right_is_refused_and_told_which(rights, lacks):
    made = key("half", rights=ALL_RIGHTS | rights)
    with Venue(keys=(made,)) as running:
        venue = BybitVenue(loopback(running.port), Keys(made.key, made.secret), {}, print, since=0)
        with pytest.raises(ConfigError, match=f"lacks the right to trade {lacks}"):
            venue.start()
        venue.stop()


# --- a dry run ------------------------------------------------------------------------------------


@contextmanager
def dry(desk, said, logged, **more):
    run = DryRun(
        desk.endpoint,
        desk.keys,
        desk.rules,
        said.extend,
        lambda endpoint, arguments: logged.append((endpoint, arguments)),
        since=time.time_ns(),
        config=VENUE.model_copy(update={"orders_by": "socket", "guard_s": 10}),
        pace=QUICK,
        pings=SHORT,
        **more,
    )
    run.start()
    try:
        yield run
    finally:
        run.stop()


def test_a_dry_run_writes_down_what_it_would_send_and_changes_nothing(served, monkeypatch):
    with Desk(served) as desk:
        foreign = desk.resting()
        desk.until(lambda: desk.facts(foreign), "an answer")
        asked = requests_seen(served, monkeypatch)
        said, logged = [], []
        theirs = Restored(desk.sent[foreign], accepted=False)
        with dry(desk, said, logged, restored=[theirs]) as run:
            wanted = bid(desk, "dry-1")
            run.tell(wanted)
            run.tell(AmendOrder("s", "dry-1", PERP, Decimal(2), None))
            run.tell(CancelOrder("s", "dry-1", PERP))
            run.tell(CancelOrder("s", "nobody", PERP))
            run.tell(CancelOrder("drill", foreign, PERP))
            run.tell(CancelAll(""))
            run.tell(SnapshotAccount(7))
            desk.until(lambda: any(isinstance(one, AccountSnapshot) for one in said), "a snapshot")
            desk.until(lambda: any(isinstance(one, OrderAccepted) for one in said), "what rests is known")
            assert run.alive
            time.sleep(0.3)
        assert [type(one) for one in said if getattr(one, "client_order_id", "") == "dry-1"] == [OrderExpired]
        (expired,) = [one for one in said if isinstance(one, OrderExpired)]
        assert expired.reason == "dry run: not sent"
        assert [one.client_order_id for one in said if isinstance(one, OrderCanceled)] == ["nobody"]
        assert [endpoint for endpoint, _ in logged if endpoint == "order/create"] == ["order/create"]
        (request,) = [arguments for endpoint, arguments in logged if endpoint == "order/create"]
        assert request == {
            "category": "linear", "symbol": "BTCUSDT", "orderLinkId": "dry-1", "side": "Buy", "orderType": "Limit",
            "qty": "0.001", "price": f"{wanted.limit:f}", "timeInForce": "GTC", "positionIdx": 0,
        }  # fmt: skip
        assert {endpoint for endpoint, _ in logged} == {
            "order/create", "order/amend", "order/cancel", "order/cancel-all",
        }  # fmt: skip
        assert "/v5/execution/list" in asked
        assert not {path for path in asked if ("POST", path) in SIGNED}
        assert desk.at_the_exchange()[foreign] == (True, Decimal(0))


def requests_seen(served, monkeypatch):
    """The path of every request the exchange takes from now on, those of trade sockets too."""
    faults, seen = served.server.faults, []
    refuses = faults.refuses
    monkeypatch.setattr(faults, "refuses", lambda path, uid: (seen.append(path), refuses(path, uid))[1])
    return seen
