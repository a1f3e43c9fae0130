"""Our own client under every lever: what "nothing lost" means for each, and that it is so.

Unless a test says otherwise it means: every order of ours has at the exchange what we believe of it, under its own name and
no other; every execution there is known to us exactly once; and every book shown is, level for level, the exchange's.
"""

import time
from decimal import Decimal

import pytest

from actors.exchange.drills import (
    cut_sockets,
    delay,
    deleverage,
    disconnect_window,
    drop,
    late_entry,
    lose_answers,
    mute,
    race_cancel,
    refuse_connections,
    reorder,
    repeat,
    restart_books,
    restrict,
    settle_funding,
    shock_mark,
    skew_clock,
    slow_answers,
    stop_pongs,
    storm,
)
from hean.bybit.encode import Verdict
from hean.exchange.words import ExecType
from hean.execution.orders import OrderStatus
from hean.messages import (
    AccountSnapshot,
    BookLevels,
    ErrorReported,
    FeedLive,
    FeedStale,
    FundingSettled,
    MarkPrice,
    OrderAccepted,
    OrderBracket,
    OrderCanceled,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    Quote,
    Side,
    SnapshotAccount,
    Trade,
)
from tests.exchange.client import PERP, SPOT, VENUE, Desk, exchange

BOTH_WAYS = pytest.mark.parametrize("desk", ["rest", "socket"], indirect=True)


@pytest.fixture
def desk(request):
    way = getattr(request, "param", "rest")
    with exchange() as served, Desk(served, config=VENUE.model_copy(update={"orders_by": way})) as at_work:
        if way == "socket":
            at_work.until(lambda: at_work.venue._account.sender.trade.socket is not None, "the trade socket stands")
        yield at_work


# --- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("close_frame", [True, False], ids=["with a close frame", "without a word"])
@BOTH_WAYS
def test_all_sockets_are_cut(desk, close_frame):
    """Nothing lost: also every public trade, in order; and that reconciliation is due has been said."""
    since = time.time_ns()
    for times in range(3):
        desk.some_flow(1)
        desk.until(
            lambda times=times: desk.venue._account.private.generation > times, "the private stream stands again"
        )
        desk.until(lambda: desk.venue._account.private.topics.live, "and is subscribed")
        with cut_sockets(desk.served, close_frame=close_frame) as pull:
            desk.some_flow(2)
        assert "cut" in str(pull.effects)
    desk.nothing_lost()
    desk.books_are_right()
    desk.trades_are_right(since)
    desk.until(lambda: len(desk.reconciles()) >= 3, "each time that reconciliation is due")


def test_pongs_stop(desk):
    """Nothing lost: a socket that answers no ping is given up, as it may be half dead, and replaced until one does."""
    generation = desk.venue._account.private.generation
    with stop_pongs(desk.served):
        desk.until(lambda: desk.venue._account.private.generation > generation, "the silent socket is replaced")
        desk.some_flow(2)
    desk.nothing_lost()
    desk.books_are_right()
    desk.until(lambda: desk.venue._account.private.topics.live, "the stream stands again")


@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_connections_are_refused_for_a_while(desk, seconds):
    """Nothing lost: pybit's own reconnecting would have died of it. What was asked for meanwhile is settled afterwards."""
    since = time.time_ns()
    desk.some_flow(1)
    rests = desk.resting()
    desk.until(lambda: desk.facts(rests), "an answer")
    with refuse_connections(desk.served, seconds, cut=True):
        meanwhile = desk.order()
        desk.until(lambda: desk.facts(meanwhile), "an outcome")
        desk.until(lambda: desk.feed.book(PERP) is None, "what cannot be seen is not shown")
    desk.cancel(rests)
    desk.some_flow(1)
    desk.nothing_lost()
    desk.books_are_right()
    desk.trades_are_right(since)


# --- what the market says -------------------------------------------------------------------------


def test_a_public_topic_falls_silent(desk):
    """Nothing lost: that the market cannot be seen is said, nothing stale is shown as live, and it is seen again."""
    with mute(desk.served, "orderbook.*"):
        desk.until(lambda: desk.of_kind(FeedStale, PERP), "that the feed is stale")
        desk.until(lambda: desk.feed.book(PERP) is None, "a silent book is no longer shown")
    desk.until(lambda: desk.of_kind(FeedLive, PERP), "that it is live again")
    desk.books_are_right()
    stale = [type(one) for one in desk.market if isinstance(one, FeedStale | FeedLive) and one.instrument == PERP]
    assert stale == [FeedStale, FeedLive]


def test_the_trades_fall_silent(desk):
    """Nothing lost: trades that no stream brought are had by REST, in order and once."""
    since = time.time_ns()
    with mute(desk.served, "publicTrade.*"):
        desk.some_flow(3)
        desk.trades_are_right(since)
    desk.some_flow(2)
    desk.trades_are_right(since)


def test_the_marks_fall_silent(desk):
    """Nothing lost: a mark that is not renewed is said to be stale, and comes again."""
    with mute(desk.served, "tickers.*"):
        desk.until(lambda: desk.of_kind(FeedStale, PERP), "that the feed is stale")
    desk.until(lambda: desk.of_kind(FeedLive, PERP), "that it is live again")
    seen = len(desk.of_kind(MarkPrice, PERP))
    desk.until(lambda: len(desk.of_kind(MarkPrice, PERP)) > seen, "a new mark")


LEVERS = {
    "dropped": (drop, {"every": 7}),
    "repeated": (repeat, {"every": 3, "times": 2}),
    "delayed": (delay, {"every": 5, "ms": 300}),
    "reordered": (reorder, {"every": 4}),
}


@pytest.mark.parametrize("lever", LEVERS)
def test_deltas_of_a_book_go_astray(desk, lever):
    """Nothing lost: at no moment is a book told that the exchange did not have; afterwards it is the exchange's.

    What is told is followed as a consumer would: a book that is unknown is an empty one, and a known one never crosses.
    """
    pull, arguments = LEVERS[lever]
    with pull(desk.served, "orderbook.50.*", part="delta", **arguments) as pulled:
        time.sleep(2.5)
        assert pulled.effects
    desk.books_are_right()
    breaks = sum(desk.feed._watched[name].chain.breaks for name in (PERP, SPOT))
    assert (breaks > 0) is (lever != "repeated")
    unknown = [one for one in desk.of_kind(BookLevels) if one.snapshot and not one.bids and not one.asks]
    assert (len(unknown) > 0) is (lever != "repeated")
    for name in (PERP, SPOT):
        bids, asks = {}, {}
        for told in desk.of_kind(BookLevels, name):
            if told.snapshot:
                bids, asks = {}, {}
            bids |= dict(told.bids)
            asks |= dict(told.asks)
            bids, asks = ({price: size for price, size in side.items() if size} for side in (bids, asks))
            assert len(bids) <= 50
            assert len(asks) <= 50
            assert not bids or not asks or max(bids) < min(asks)


@pytest.mark.parametrize("lever", LEVERS)
def test_snapshots_of_a_book_go_astray(desk, lever):
    """Nothing lost: a subscription whose snapshot does not come, or comes late, is begun anew until one does."""
    pull, arguments = LEVERS[lever]
    astray = pull(desk.served, "orderbook.50.*", part="snapshot", **(arguments | {"every": 1}))
    with astray as pulled, cut_sockets(desk.served, kind="public"):
        desk.until(lambda: pulled.effects, "a snapshot that goes astray")
    desk.books_are_right()


def test_public_trades_are_repeated(desk):
    """Nothing lost: each is told once."""
    since = time.time_ns()
    with repeat(desk.served, "publicTrade.*"):
        desk.some_flow(3)
    desk.trades_are_right(since)


def test_public_trades_are_dropped(desk):
    """Nothing lost in silence: a trade that later ones have overtaken is not told out of its order, but is reported."""
    with drop(desk.served, "publicTrade.*", next=1) as pull:
        desk.until(lambda: pull.effects, "a trade that is lost")
    desk.some_flow(2)
    desk.until(
        lambda: desk.errors()["trades lost"] or _trades_told(desk), "the trade is had by REST, or its loss is reported"
    )


def _trades_told(desk):
    """Whether all trades the exchange printed since the feed began are told."""
    first = desk.of_kind(Trade, PERP)[0].ts_event
    return all(desk._same_trades(name, first) for name in (PERP, SPOT))


def test_every_book_begins_anew(desk):
    """Nothing lost: a restart of the service (u = 1) is a new book, without a gap and without a subscription."""
    for _ in range(3):
        with restart_books(desk.served):
            desk.books_are_right()
    assert all(desk.feed._watched[name].chain.breaks == 0 for name in (PERP, SPOT))
    assert desk.feed.book(PERP).u < 100_000
    assert not desk.of_kind(FeedStale)


# --- what the account says ------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["order", "execution", "*"])
@pytest.mark.parametrize("lever", LEVERS)
def test_private_messages_go_astray(desk, lever, topic):
    """Nothing lost: fills that did not come are asked for, those that came twice count once, and an end comes last."""
    pull, arguments = LEVERS[lever]
    with pull(desk.served, topic, kind="private", **(arguments | {"every": 2})):
        desk.some_flow(4)
        desk.venue.tell(SnapshotAccount(1))
        desk.until(lambda: desk.of_kind(AccountSnapshot), "a snapshot")
    desk.venue.tell(SnapshotAccount(2))
    desk.nothing_lost()
    for name in desk.sent:
        kinds = [type(fact) for fact in desk.facts(name)]
        if OrderCanceled in kinds:
            assert kinds.index(OrderCanceled) == len(kinds) - 1


@pytest.mark.parametrize("topic", ["execution", "*"])
def test_the_private_stream_is_mute(desk, topic):
    """Nothing lost: what orders did is had by REST, at the latest with the next snapshot."""
    with mute(desk.served, topic, kind="private"):
        desk.some_flow(2)
        desk.venue.tell(SnapshotAccount(1))
        desk.nothing_lost()


# --- answers --------------------------------------------------------------------------------------


def test_answers_are_slow(desk):
    """Nothing lost: an order that nobody confirmed in time is unknown, not refused; it is there, once, and is found."""
    with slow_answers(desk.served, 1_500):
        bought, rests = desk.order(), desk.resting()
        desk.until(lambda: len(desk.of_kind(OrderOutcomeUnknown)) == 2 or _both(desk, bought, rests), "an outcome")
        time.sleep(1.2)
    desk.until(lambda: desk.orders()[bought].status is OrderStatus.FILLED, "the fill")
    desk.cancel(rests)
    desk.nothing_lost()


def _both(desk, *names):
    return all(any(isinstance(fact, OrderAccepted) for fact in desk.facts(name)) for name in names)


@pytest.mark.parametrize("mute_too", [False, True], ids=["the stream tells", "the stream is mute too"])
def test_the_answer_of_an_executed_create_is_lost(desk, mute_too):
    """Nothing lost: the order exists once, under its own name; it is known as unknown, then as what it is."""
    if mute_too:
        desk.served.levers.pull("mute", topic="*", kind="private")
    with lose_answers(desk.served, next=2) as pull:
        bought, rests = desk.order(), desk.resting()
        desk.until(lambda: pull.effects == ["lost 2 answers of /v5/order/create"], "both answers are lost")
        desk.until(lambda: all(_known(desk, name) for name in (bought, rests)), "both are found")
    if mute_too:
        assert len(desk.of_kind(OrderOutcomeUnknown)) == 2
        desk.served.levers.release_all()
    desk.cancel(rests)
    desk.nothing_lost()


def _known(desk, name):
    return desk.orders()[name].status in {OrderStatus.OPEN, OrderStatus.FILLED}


def test_the_answer_of_a_cancel_is_lost(desk):
    """Nothing lost: whether it worked is asked, and if not it is sent again; here the stream does not tell either."""
    rests = desk.resting()
    desk.until(lambda: desk.facts(rests), "an answer")
    with mute(desk.served, "*", kind="private"), lose_answers(desk.served, "/v5/order/cancel"):
        desk.cancel(rests)
        desk.until(lambda: desk.orders()[rests].status is OrderStatus.CANCELED, "its end")
    desk.nothing_lost()


def test_a_trade_socket_is_cut_with_orders_on_their_way():
    """Nothing lost: orders on a socket that died are unknown, and looked up; those after it go by REST."""
    config = VENUE.model_copy(update={"orders_by": "socket"})
    with exchange() as served, Desk(served, config=config) as desk:
        for _ in range(3):
            desk.until(lambda: desk.venue._account.sender.trade.socket is not None, "the trade socket stands")
            for _ in range(4):
                desk.order()
            with cut_sockets(served, kind="trade", close_frame=False):
                desk.some_flow(1)
        desk.nothing_lost()


STORMS = [{"code": 10006}, {"code": 10016}, {"code": 10429}, {"status": 403}, {"status": 429}, {"status": 502}]


@pytest.mark.parametrize("kind", STORMS, ids=lambda kind: str(*kind.values()))
def test_creates_are_refused_by_a_storm(desk, kind):
    """Nothing lost, nothing doubled: no order came to be, and that becomes known.

    10006 is the venue's word that nothing was done: refused at once. Of the others nobody can tell: unknown, until the
    exchange has no such order though it could no longer arrive. A 403 bars us for minutes: nothing may be asked in that
    time, and to say so is all that can be done.
    """
    with storm(desk.served, path="/v5/order/create", next=1, **kind):
        name = desk.order()
        desk.until(lambda: desk.facts(name), "an outcome")
    first = desk.facts(name)[0]
    if kind == {"code": 10006}:
        assert type(first) is OrderRejected
    else:
        assert type(first) is OrderOutcomeUnknown
    barred = kind == {"status": 403}
    if barred:
        assert desk.errors()["backoff"] == 1
        again = desk.order()
        desk.until(lambda: desk.facts(again), "a refusal of our own")
        (refused,) = desk.facts(again)
        assert refused.reason.startswith("not sent")
        desk.venue.backoff.holds.clear()  # ten minutes later
    desk.until(lambda: desk.orders()[name].status is OrderStatus.REJECTED, "that there is no such order")
    assert name not in desk.at_the_exchange()
    desk.some_flow(1)
    desk.nothing_lost()


@pytest.mark.parametrize("kind", STORMS[:3] + STORMS[4:], ids=lambda kind: str(*kind.values()))
def test_everything_is_refused_for_a_while(desk, kind):
    """Nothing lost: cancels are sent again until they work, questions asked again until they are answered."""
    rests = desk.resting()
    desk.until(lambda: desk.facts(rests), "an answer")
    with storm(desk.served, path="/v5/", seconds=1.5, **kind), cut_sockets(desk.served, kind="private"):
        desk.cancel(rests)
        desk.order()
        desk.venue.tell(SnapshotAccount(5))
        desk.until(lambda: desk.of_kind(AccountSnapshot), "a snapshot")
    (snapshot,) = desk.of_kind(AccountSnapshot)
    assert snapshot.balances or not snapshot.complete  # what could not be asked is not nothing
    desk.until(lambda: desk.orders()[rests].status is OrderStatus.CANCELED, "the cancel works in the end", 25)
    desk.nothing_lost(25)
    desk.venue.tell(SnapshotAccount(6))
    desk.until(lambda: any(one.complete for one in desk.of_kind(AccountSnapshot)), "a complete one")


@pytest.mark.parametrize("ms", [5_000, -5_000])
def test_the_clocks_disagree(desk, ms):
    """Nothing lost: a skewed clock is refused in so many words, no order comes to be, and the skew itself is reported.

    The lever moves the clock requests are checked by; `market/time` says the true one. So the offset is asked of the
    check itself: the venue's refusal names it.
    """
    with skew_clock(desk.served, ms):
        name = desk.order()
        desk.until(lambda: desk.facts(name), "an outcome")
        (refused,) = desk.facts(name)
        assert (type(refused), refused.reason[:5]) == (OrderRejected, "10002")
        assert desk.changes.set_leverage(PERP, Decimal(3)).verdict is Verdict.REFUSED
    desk.some_flow(1)
    desk.nothing_lost()


# --- the exchange itself --------------------------------------------------------------------------


def test_an_acknowledged_order_reaches_the_book_late(desk):
    """Nothing lost: acknowledged is not filled; the fill comes later and is waited for."""
    with late_entry(desk.served, 700):
        name = desk.order()
        desk.until(lambda: desk.facts(name), "the acknowledgement")
        time.sleep(0.3)
        assert desk.orders()[name].filled == 0
    desk.until(lambda: desk.orders()[name].status is OrderStatus.FILLED, "the fill")
    desk.nothing_lost()


@BOTH_WAYS
def test_a_cancel_races_a_fill(desk):
    """Nothing lost: the order is filled, in spite of the cancel's yes and of two final messages."""
    rests = desk.resting()
    desk.until(lambda: desk.facts(rests), "an answer")
    with race_cancel(desk.served):
        desk.cancel(rests)
        desk.until(lambda: desk.orders()[rests].status is OrderStatus.FILLED, "the fill")
    time.sleep(0.5)
    desk.nothing_lost()
    assert not [fact for fact in desk.facts(rests) if isinstance(fact, OrderCanceled)]


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize("away", [False, True], ids=["the stream tells", "the stream is away"])
def test_funding_is_settled_now(desk, side, away):
    """Nothing lost: the settlement is known once, to the last digit of the transaction log, and with its sign."""
    held = desk.order(side, quantity="0.010")
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "a position")
    if away:
        desk.served.levers.pull("cut", kind="private")
    with settle_funding(desk.served, "BTCUSDT", rate="0.0005"):
        desk.until(lambda: desk.of_kind(FundingSettled), "the settlement")
    desk.nothing_lost()
    (settled,) = desk.of_kind(FundingSettled)
    (line,) = [line for line in desk.rest.transactions(0, time.time_ns()) if line.kind == "SETTLEMENT"]
    assert settled.amount == line.funding == line.change
    assert (settled.amount < 0) is (side is Side.BUY)
    assert (settled.quantity, settled.rate) == (side * Decimal("0.010"), Decimal("0.0005"))
    assert settled.settlement_id == line.trade_id
    assert abs(settled.amount + settled.quantity * settled.rate * settled.mark) < Decimal("1e-6")


def test_the_mark_is_shocked_until_we_are_liquidated(desk):
    """Nothing lost: the orders taken off us and the position taken over are told as what they are."""
    desk.changes.set_leverage(PERP, Decimal(100))
    held = desk.order(quantity="4")
    rests = desk.resting(quantity="0.010")
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED and desk.facts(rests), "a position")
    with shock_mark(desk.served, "BTCUSDT", -0.9):
        desk.until(lambda: desk.executions(ExecType.LIQUIDATION), "a liquidation")
        desk.until(lambda: not desk.position(), "nothing is left of it")
        desk.until(lambda: desk.orders()[rests].status is OrderStatus.CANCELED, "the resting order is gone")
    desk.nothing_lost()
    taken = [fill for fill in desk.of_kind(OrderFilled) if fill.exit == "liquidation"]
    assert sum(fill.quantity for fill in taken) == 4
    assert all(fill.side is Side.SELL and fill.strategy == "" for fill in taken)
    assert "Liq" in desk.facts(rests)[-1].reason


def test_a_position_is_deleveraged(desk):
    """Nothing lost: what the exchange took off us is a fill that nobody ordered."""
    held = desk.order(quantity="0.010")
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "a position")
    with deleverage(desk.served, desk.uid, "BTCUSDT", quantity="0.004"):
        desk.until(lambda: desk.executions(ExecType.DELEVERAGING), "the deleveraging")
    desk.nothing_lost()
    (taken,) = [fill for fill in desk.of_kind(OrderFilled) if fill.exit]
    assert (taken.exit, taken.quantity, taken.side) == ("liquidation", Decimal("0.004"), Side.SELL)


def test_a_stop_held_at_the_exchange_is_told_as_an_exit_of_its_strategy(desk):
    """Nothing lost: the stop fires at the exchange; its fill names the exit and whose it was."""
    bid, _ = desk.best()
    stop = desk.rules[PERP].price(bid * 0.9998)
    held = desk.order(quantity="0.010", bracket=OrderBracket(stop, None))
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "a position")
    desk.others_sell("8")
    desk.until(lambda: [fill for fill in desk.of_kind(OrderFilled) if fill.exit == "stop"], "the stop fires")
    (exit_,) = [fill for fill in desk.of_kind(OrderFilled) if fill.exit == "stop"]
    assert (exit_.strategy, exit_.side, exit_.quantity) == ("drill", Side.SELL, Decimal("0.010"))
    desk.nothing_lost()


@pytest.mark.parametrize(("status", "code"), [("ReduceOnly", "110023"), ("Settling", "1100")])
def test_a_symbol_is_restricted(desk, status, code):
    """Nothing lost: what may no longer be opened is refused in words, and what is held can still be given up."""
    held = desk.order(quantity="0.010")
    desk.until(lambda: desk.orders()[held].status is OrderStatus.FILLED, "a position")
    with restrict(desk.served, "BTCUSDT", status):
        name = desk.order()
        desk.until(lambda: desk.facts(name), "an outcome")
        (refused,) = desk.facts(name)
        assert (type(refused), refused.reason[: len(code)]) == (OrderRejected, code)
        if status == "ReduceOnly":
            closing = desk.order(Side.SELL, quantity="0.010", reduce_only=True)
            desk.until(lambda: desk.orders()[closing].status is OrderStatus.FILLED, "the position is given up")
    desk.nothing_lost()


def test_the_disconnect_guard_cancels_what_rests():
    """Nothing lost: we were away too long, our orders are gone, and we know it."""
    config = VENUE.model_copy(update={"guard_s": 3})
    with exchange() as served, Desk(served, config=config) as desk:
        rests = [desk.resting(), desk.resting(SPOT, quantity="0.002")]
        desk.until(lambda: all(desk.facts(name) for name in rests), "answers")
        desk.venue._account.private.stream._pace = type(desk.venue._account.private.stream._pace)(
            first_s=6.0, most_s=6.0
        )
        with disconnect_window(served, desk.uid, 3), cut_sockets(served, kind="private"):
            desk.until(lambda: all(not desk.at_the_exchange()[name][0] for name in rests), "the guard acts", seconds=20)
            desk.until(
                lambda: all(desk.orders()[name].status is OrderStatus.CANCELED for name in rests), "we know of it"
            )
        assert {desk.facts(name)[-1].reason.split()[0] for name in rests} == {"CancelByDCP"}
        desk.nothing_lost()


# --- all at once ----------------------------------------------------------------------------------


@pytest.mark.slow
@BOTH_WAYS
def test_a_bad_day(desk):
    """Nothing lost in ten seconds of orders under everything that sockets and answers can do at once."""
    levers = desk.served.levers
    levers.pull("drop", topic="*", kind="private", chance=0.2)
    levers.pull("repeat", topic="*", chance=0.2)
    levers.pull("delay", topic="*", kind="private", chance=0.3, ms=120)
    levers.pull("reorder", topic="orderbook.*", chance=0.1)
    levers.pull("drop", topic="orderbook.*", chance=0.05)
    for at in range(8):
        desk.some_flow(1)
        levers.pull("lose-answers", path="/v5/order/", next=1)
        levers.pull("cut", close_frame=at % 2 == 0)
        levers.pull("storm", code=10016, path="/v5/order/", next=2)
        desk.order(Side.BUY if at % 2 else Side.SELL)
        time.sleep(0.4)
    levers.release_all()
    desk.venue.tell(SnapshotAccount(1))
    desk.nothing_lost(30)
    desk.books_are_right()
    assert [one for one in desk.of_kind(ErrorReported) if one.kind in {"fills missing", "order vanished"}] == []
    assert desk.of_kind(Quote)
