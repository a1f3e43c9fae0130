"""The life of an order, as clients see it."""

import pytest

from hean.exchange.refusals import Refused
from hean.exchange.words import (
    Amendment,
    Executed,
    Exit,
    OrderChanged,
    OrderFilter,
    Printed,
    Smp,
    Status,
    TpslMode,
    TradingStop,
    Trigger,
    TriggerBy,
    Which,
)
from hean.messages import TimeInForce
from tests.unit.exchange.floor import ANN, BOB, PERP, SPOT, D, Floor, Side

BUY, SELL = Side.BUY, Side.SELL


@pytest.fixture
def floor():
    made = Floor()
    yield made
    made.adds_up()


def states(floor, order):
    return [event.order.status for event in floor.heard(OrderChanged) if event.order.order_id == order.order_id]


# --- limit and market -----------------------------------------------------------------------------


def test_a_limit_order_rests_and_fills_at_its_own_price_as_maker(floor):
    order = floor.order(ANN, BUY, "0.5", "59500")
    assert states(floor, order) == [Status.NEW]

    floor.worth("59400")

    events = floor.exchange.drain()
    fill = next(event.execution for event in events if isinstance(event, Executed))
    assert (fill.price, fill.quantity, fill.maker) == (D("59500"), D("0.5"), True)
    assert fill.fee == D("0.5") * D("59500") * D("0.0002")
    assert order.status is Status.FILLED
    assert order.left == 0


def test_a_taker_walks_the_book_and_stops_at_its_limit(floor):
    floor.quote(PERP, SELL, "60010", "2")
    order = floor.order(ANN, BUY, "15", "60005", time_in_force=TimeInForce.IOC)
    assert (order.status, order.filled, order.average) == (Status.CANCELLED, D(10), D(60001))
    assert order.left == 0
    assert order.reject_reason == "EC_NoEnoughQtyToFill"


def test_an_order_takes_level_by_level(floor):
    floor.quote(PERP, SELL, "60010", "2")
    order = floor.order(ANN, BUY, "11", "60010")
    assert order.status is Status.FILLED
    assert order.value == 10 * D(60001) + D(60010)


def test_what_rests_first_at_a_price_is_filled_first(floor):
    first = floor.order(ANN, BUY, "0.5", "59900")
    second = floor.order(BOB, BUY, "0.5", "59900")
    floor.quote(PERP, BUY, "59999", "0")
    floor.others_take(PERP, SELL, "0.7")
    assert (first.status, first.filled) == (Status.FILLED, D("0.5"))
    assert (second.status, second.filled) == (Status.PARTIALLY_FILLED, D("0.2"))


def test_a_better_price_goes_before_an_older_order(floor):
    floor.quote(PERP, BUY, "59999", "0")
    older = floor.order(ANN, BUY, "0.5", "59900")
    better = floor.order(BOB, BUY, "0.5", "59950")
    floor.others_take(PERP, SELL, "0.5")
    assert better.status is Status.FILLED
    assert older.filled == 0


def test_two_clients_trade_with_each_other_and_both_pay(floor):
    floor.order(ANN, BUY, "0.5", "60000")
    floor.exchange.drain()
    floor.order(BOB, SELL, "0.5", "60000")
    events = floor.exchange.drain()
    fills = [event.execution for event in events if isinstance(event, Executed)]
    assert [(fill.uid, fill.maker) for fill in fills] == [(ANN, True), (BOB, False)]
    assert fills[0].exec_id == fills[1].exec_id
    assert [event.side for event in events if isinstance(event, Printed)] == [SELL]
    assert floor.held(ANN) == -floor.held(BOB) == D("0.5")


@pytest.mark.parametrize(("name", "ended"), [(PERP, Status.CANCELLED), (SPOT, Status.REJECTED)], ids=["linear", "spot"])
def test_a_post_only_order_that_would_take_ends_without_a_fill(floor, name, ended):
    order = floor.order(ANN, BUY, "0.1", "60001", name=name, time_in_force=TimeInForce.POST_ONLY)
    assert (order.status, order.reject_reason, order.filled) == (ended, "EC_PostOnlyWillTakeLiquidity", 0)


def test_fill_or_kill_fills_whole_or_not_at_all(floor):
    killed = floor.order(ANN, BUY, "11", "60001", time_in_force=TimeInForce.FOK)
    assert (killed.status, killed.filled) == (Status.CANCELLED, 0)
    filled = floor.order(ANN, BUY, "10", "60001", time_in_force=TimeInForce.FOK)
    assert filled.status is Status.FILLED


def test_a_market_order_is_held_to_a_protected_price(floor):
    floor.quote(PERP, SELL, "60001", "1")
    floor.quote(PERP, SELL, "61300", "5")  # beyond 2 % of the mark
    order = floor.order(ANN, BUY, "3")
    assert (order.status, order.filled) == (Status.CANCELLED, D(1))
    assert order.price is not None
    assert order.price < D(61300)


def test_the_rest_of_a_spot_market_order_is_partially_filled_canceled(floor):
    floor.quote(SPOT, SELL, "60001", "0.5")
    order = floor.order(ANN, BUY, "0.8", name=SPOT)
    assert (order.status, order.filled) == (Status.PARTIALLY_FILLED_CANCELED, D("0.5"))


def test_a_spot_market_buy_may_be_given_in_quote_currency(floor):
    order = floor.order(ANN, BUY, "1000", name=SPOT, in_quote=True)
    assert order.status is Status.FILLED
    assert order.value <= 1000 < order.value + D("0.000001") * D(60001)
    assert floor.balance(ANN, "BTC") == 1 + order.filled * D("0.999")


def test_spot_fees_are_taken_in_the_coin_received(floor):
    bought = floor.order(ANN, BUY, "0.1", name=SPOT)
    sold = floor.order(BOB, SELL, "0.1", name=SPOT)
    assert bought.fees == {"BTC": D("0.0001")}
    assert sold.fees == {"USDT": D("0.1") * D(59999) * D("0.001")}


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "asked"),
    [
        (10001, {"quantity": "0.0005", "price": "59000"}),
        (10001, {"quantity": "0.1", "price": "59000.05"}),
        (10001, {"quantity": "0"}),
        (10001, {"quantity": "2000", "price": "59000"}),
        (10001, {"quantity": "0.1", "price": "59000", "position_idx": 1}),
        (110003, {"quantity": "0.1", "price": "70000"}),
        (110094, {"quantity": "0.001", "price": "100"}),
        (110007, {"quantity": "50", "price": "59000"}),
        (110017, {"quantity": "0.1", "price": "59000", "reduce_only": True}),
        (110092, {"quantity": "0.1", "price": "59000", "trigger": Trigger(D(59000), rising=True, by=TriggerBy.MARK)}),
        (110093, {"quantity": "0.1", "price": "59000", "trigger": Trigger(D(61000), rising=False, by=TriggerBy.MARK)}),
        (10001, {"quantity": "0.1", "price": "59000", "take_profit": Exit(D(58000))}),
        (10001, {"quantity": "0.1", "price": "59000", "take_profit": Exit(D("60000.05"))}),
        (10001, {"quantity": "0.1", "trigger": Trigger(D(65000), rising=True), "take_profit": Exit(D(64000))}),
        (170134, {"quantity": "0.1", "price": "59000.05", "name": SPOT}),
        (170137, {"quantity": "0.0000001", "price": "59000", "name": SPOT}),
        (170140, {"quantity": "0.00001", "price": "59000", "name": SPOT}),
        (170132, {"quantity": "0.1", "price": "61000", "name": SPOT}),
        (170131, {"quantity": "3", "price": "59000", "name": SPOT}),
        (170140, {"quantity": "1", "name": SPOT, "in_quote": True}),
    ],
)
def test_what_cannot_be_is_refused_at_once_and_changes_nothing(floor, code, asked):
    before = floor.exchange.accounts[ANN].balances.copy(), floor.exchange.wallet(ANN)
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, asked.pop("quantity"), **asked)
    assert refusal.value.code == code
    assert (floor.exchange.accounts[ANN].balances, floor.exchange.wallet(ANN)) == before
    assert not floor.exchange.accounts[ANN].open_orders
    assert floor.exchange.drain() == []


def test_a_link_id_is_used_once_for_ever(floor):
    order = floor.order(ANN, BUY, "0.1", "59000", link_id="mine")
    floor.exchange.cancel(ANN, Which(instrument=PERP, link_id="mine"), floor.now)
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.1", "59000", link_id="mine")
    assert refusal.value.code == 110072
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.1", "59900", name=SPOT, link_id="mine")
    assert refusal.value.code == 170141
    assert floor.order(BOB, BUY, "0.1", "59000", link_id="mine").status is Status.NEW
    assert floor.exchange.find(ANN, Which(instrument=PERP, link_id="mine")) is order


def test_a_refused_order_uses_up_no_link_id(floor):
    with pytest.raises(Refused):
        floor.order(ANN, BUY, "50", "59000", link_id="mine")
    assert floor.order(ANN, BUY, "0.1", "59000", link_id="mine").status is Status.NEW


def test_the_501st_order_of_an_instrument_is_refused(floor):
    for _ in range(500):
        floor.order(ANN, BUY, "0.001", "59000")
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.001", "59000")
    assert refusal.value.code == 110020
    assert floor.order(ANN, BUY, "0.001", "59900", name=SPOT).status is Status.NEW


def test_the_eleventh_conditional_order_is_refused(floor):
    for _ in range(10):
        floor.order(ANN, BUY, "0.001", "59000", trigger=Trigger(D(61000), rising=True))
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.001", "59000", trigger=Trigger(D(61000), rising=True))
    assert refusal.value.code == 110009


def test_exits_of_a_position_do_not_count_as_conditional_orders(floor):
    floor.order(ANN, BUY, "0.2", take_profit=Exit(D(62000)), stop_loss=Exit(D(58000)))
    for _ in range(10):
        floor.order(ANN, BUY, "0.001", "59000", trigger=Trigger(D(61000), rising=True))
    assert len(floor.exchange.accounts[ANN].open_orders) == 12


def test_of_spot_thirty_conditional_and_thirty_exit_orders_may_wait(floor):
    for kind in (OrderFilter.STOP, OrderFilter.TPSL):
        more = {"name": SPOT, "trigger": Trigger(D(59000), rising=False), "order_filter": kind}
        for _ in range(30):
            floor.order(ANN, SELL, "0.001", **more)
        with pytest.raises(Refused) as refusal:
            floor.order(ANN, SELL, "0.001", **more)
        assert refusal.value.code == 170810


@pytest.mark.parametrize(("status", "code"), [("ReduceOnly", 110023), ("Settling", 110063)])
def test_a_symbol_that_is_closing_takes_no_new_positions(floor, status, code):
    floor.order(ANN, BUY, "0.1")
    floor.exchange.markets[PERP].status = status
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.1", "59000")
    assert refusal.value.code == code
    if status == "ReduceOnly":
        assert floor.order(ANN, SELL, "0.1", reduce_only=True).status is Status.FILLED


# --- cancel and amend -----------------------------------------------------------------------------


def test_a_canceled_order_keeps_what_it_has_filled_and_frees_the_rest(floor):
    available = floor.exchange.wallet(ANN).available
    order = floor.order(ANN, BUY, "0.5", "59900")
    assert floor.exchange.wallet(ANN).available < available
    floor.exchange.cancel(ANN, Which(instrument=PERP, order_id=order.order_id), floor.now)
    assert (order.status, order.cancel_type, order.left) == (Status.CANCELLED, "CancelByUser", 0)
    assert floor.exchange.wallet(ANN).available == available


@pytest.mark.parametrize(("name", "code"), [(PERP, 110001), (SPOT, 170213)])
def test_what_is_finished_can_neither_be_canceled_nor_amended(floor, name, code):
    order = floor.order(ANN, BUY, "0.1", name=name)
    which = Which(instrument=name, order_id=order.order_id)
    for act in (
        lambda: floor.exchange.cancel(ANN, which, floor.now),
        lambda: floor.exchange.amend(ANN, Amendment(which=which, price=D(59000)), floor.now),
        lambda: floor.exchange.cancel(BOB, which, floor.now),
    ):
        with pytest.raises(Refused) as refusal:
            act()
        assert refusal.value.code == code


def test_a_smaller_quantity_keeps_the_place_in_the_queue_and_a_larger_one_loses_it(floor):
    floor.quote(PERP, BUY, "59999", "0")
    ann = floor.order(ANN, BUY, "0.5", "59900")
    bob = floor.order(BOB, BUY, "0.5", "59900")
    amend = floor.exchange.amend
    amend(ANN, Amendment(which=Which(instrument=PERP, order_id=ann.order_id), quantity=D("0.4")), floor.now)
    floor.others_take(PERP, SELL, "0.1")
    assert (ann.filled, bob.filled) == (D("0.1"), 0)
    amend(ANN, Amendment(which=Which(instrument=PERP, order_id=ann.order_id), quantity=D("0.6")), floor.now)
    floor.others_take(PERP, SELL, "0.5")
    assert (ann.filled, bob.filled) == (D("0.1"), D("0.5"))
    assert ann.left == D("0.5")


def test_an_amended_price_may_cross_and_takes_then(floor):
    order = floor.order(ANN, BUY, "0.5", "59000")
    which = Which(instrument=PERP, order_id=order.order_id)
    floor.exchange.amend(ANN, Amendment(which=which, price=D("60001")), floor.now)
    assert (order.status, order.average) == (Status.FILLED, D(60001))


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (110064, {"quantity": D("0.1")}),
        (10001, {"quantity": D("0.5")}),
        (10001, {"price": D("59000.03")}),
        (110003, {"price": D(70000)}),
        (110007, {"quantity": D(100)}),
        (10001, {"trigger_price": D(61000)}),
    ],
)
def test_an_amendment_that_cannot_be_leaves_the_order_as_it_was(floor, code, changes):
    floor.quote(PERP, BUY, "59999", "0")
    order = floor.order(ANN, BUY, "0.5", "59900")
    floor.others_take(PERP, SELL, "0.1")
    wallet = floor.exchange.wallet(ANN)
    which = Which(instrument=PERP, order_id=order.order_id)
    with pytest.raises(Refused) as refusal:
        floor.exchange.amend(ANN, Amendment(which=which, **changes), floor.now)
    assert refusal.value.code == code
    assert (order.quantity, order.left, order.price) == (D("0.5"), D("0.4"), D(59900))
    assert floor.exchange.wallet(ANN) == wallet


def test_an_amendment_of_exits_alone_ties_up_nothing(floor):
    floor.quote(PERP, BUY, "59999", "0")
    order = floor.order(ANN, SELL, "1", "59900")
    floor.exchange.markets[PERP].external_index = 60_500.0
    floor.pass_time(400)
    which = Which(instrument=PERP, order_id=order.order_id)
    floor.exchange.amend(ANN, Amendment(which=which, take_profit=Exit(D(59000))), floor.now)
    assert (order.reserved, order.take_profit) == (D(59900), Exit(D(59000)))


def test_cancel_all_takes_active_and_conditional_orders_or_one_kind(floor):
    floor.order(ANN, BUY, "0.1", "59000")
    floor.order(ANN, BUY, "0.1", "59000", trigger=Trigger(D(61000), rising=True))
    floor.order(BOB, BUY, "0.1", "59000")
    stops = floor.exchange.cancel_all(ANN, [PERP], floor.now, order_filter=OrderFilter.STOP)
    assert [order.status for order in stops] == [Status.DEACTIVATED]
    rest = floor.exchange.cancel_all(ANN, [PERP], floor.now)
    assert [order.status for order in rest] == [Status.CANCELLED]
    assert len(floor.exchange.accounts[BOB].open_orders) == 1


def test_a_cancel_that_loses_the_race_is_told_twice(floor):
    order = floor.order(ANN, BUY, "0.1", "59000")
    floor.exchange.race_next_cancel = True
    floor.exchange.drain()
    floor.exchange.cancel(ANN, Which(instrument=PERP, order_id=order.order_id), floor.now)
    told = [(event.order.status, event.order.reject_reason) for event in floor.heard(OrderChanged)]
    assert told == [
        (Status.FILLED, "EC_NoError"),
        (Status.FILLED, "EC_OrigClOrdIDDoesNotExist"),
    ]


def test_an_order_held_up_meets_the_book_later_or_can_be_canceled_before(floor):
    floor.exchange.entry_delay_ns = 5_000_000_000
    late = floor.order(ANN, BUY, "0.1", "60001")
    never = floor.order(ANN, BUY, "0.1", "60001")
    assert late.status is Status.NEW
    floor.exchange.cancel(ANN, Which(instrument=PERP, order_id=never.order_id), floor.now)
    floor.pass_time(4)
    assert late.filled == 0
    floor.pass_time(2)
    assert late.status is Status.FILLED
    assert (never.status, never.filled) == (Status.CANCELLED, 0)


def test_an_order_that_is_held_up_less_overtakes_one_held_up_more(floor):
    floor.exchange.entry_delay_ns = 60_000_000_000
    slow = floor.order(ANN, BUY, "0.1", "60001")
    floor.exchange.entry_delay_ns = 1_000_000_000
    fast = floor.order(ANN, BUY, "0.1", "60001")
    floor.pass_time(2)
    assert (slow.filled, fast.filled) == (0, D("0.1"))
    floor.pass_time(60)
    assert slow.filled == D("0.1")


def test_an_order_that_was_held_up_meets_the_book_after_a_restart():
    before = Floor()
    before.exchange.entry_delay_ns = 1_000_000_000
    order = before.order(ANN, BUY, "1000", name=SPOT, in_quote=True)
    after = Floor()
    stopped = before.exchange
    after.exchange.restore(stopped.accounts, stopped.records, stopped.fees, stopped.issued)
    assert order.status is Status.NEW
    after.pass_time(0)
    assert order.status is Status.FILLED
    assert order.value <= 1000


# --- self-match -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("smp", "maker", "taker"),
    [
        (Smp.NONE, Status.FILLED, Status.FILLED),
        (Smp.CANCEL_MAKER, Status.CANCELLED, Status.NEW),
        (Smp.CANCEL_TAKER, Status.NEW, Status.CANCELLED),
        (Smp.CANCEL_BOTH, Status.CANCELLED, Status.CANCELLED),
    ],
)
def test_the_incoming_order_says_what_happens_when_it_meets_its_own(floor, smp, maker, taker):
    resting = floor.order(ANN, BUY, "0.1", "60000")
    incoming = floor.order(ANN, SELL, "0.1", "60000", smp=smp)
    assert (resting.status, incoming.status) == (maker, taker)
    for order, other in ((resting, incoming), (incoming, resting)):
        if order.status is Status.CANCELLED:
            assert order.cancel_type == "CancelBySmp"
            assert order.smp_order_id == other.order_id


@pytest.mark.parametrize(("smp", "filled"), [(Smp.CANCEL_TAKER, 0), (Smp.CANCEL_BOTH, 0), (Smp.CANCEL_MAKER, 3)])
def test_a_fill_or_kill_order_that_would_meet_its_own_fills_whole_or_not_at_all(floor, smp, filled):
    floor.quote(PERP, SELL, "60001", "1")
    floor.order(ANN, SELL, "0.1", "60002")
    floor.quote(PERP, SELL, "60003", "5")
    assert floor.order(ANN, BUY, "3", "60003", time_in_force=TimeInForce.FOK, smp=smp).filled == filled


# --- reduce-only ----------------------------------------------------------------------------------


def test_a_reduce_only_order_is_cut_to_the_position_and_never_flips_it(floor):
    floor.order(ANN, BUY, "0.3")
    order = floor.order(ANN, SELL, "1", reduce_only=True)
    assert (order.quantity, order.status) == (D("0.3"), Status.FILLED)
    assert floor.held(ANN) == 0


def test_a_resting_reduce_only_order_shrinks_with_the_position_and_goes_with_it(floor):
    floor.order(ANN, BUY, "0.3")
    resting = floor.order(ANN, SELL, "0.3", "60500", reduce_only=True)
    floor.order(ANN, SELL, "0.1")
    assert resting.left == D("0.2")
    floor.order(ANN, SELL, "0.2")
    assert (resting.status, resting.cancel_type) == (Status.CANCELLED, "CancelByReduceOnly")


def test_reduce_only_orders_together_close_no_more_than_there_is(floor):
    floor.order(ANN, BUY, "0.3")
    floor.quote(PERP, SELL, "60001", "0")
    first = floor.order(ANN, SELL, "0.3", "60500", reduce_only=True)
    second = floor.order(ANN, SELL, "0.2", "60550", reduce_only=True)
    floor.order(BOB, BUY, "0.6", "60590")
    assert floor.held(ANN) == 0
    assert first.status is Status.FILLED
    assert (second.status, second.cancel_type, second.filled) == (Status.CANCELLED, "CancelByReduceOnly", 0)


def test_a_reduce_only_order_is_cut_in_the_middle_of_a_sweep(floor):
    floor.order(ANN, BUY, "0.3")
    floor.quote(PERP, SELL, "60001", "0")
    floor.order(ANN, SELL, "0.1", "60500")
    reducing = floor.order(ANN, SELL, "0.3", "60550", reduce_only=True)
    floor.others_take(PERP, BUY, "0.6")
    assert floor.held(ANN) == 0
    assert (reducing.status, reducing.quantity) == (Status.FILLED, D("0.2"))


def test_a_fill_or_kill_order_does_not_count_on_what_a_position_has_no_room_for(floor):
    floor.order(ANN, BUY, "0.3")
    floor.quote(PERP, SELL, "60001", "0")
    for price in ("60500", "60550"):
        floor.order(ANN, SELL, "0.3", price, reduce_only=True)
    killed = floor.order(BOB, BUY, "0.4", "60590", time_in_force=TimeInForce.FOK)
    assert (killed.status, killed.filled) == (Status.CANCELLED, 0)
    assert floor.order(BOB, BUY, "0.3", "60590", time_in_force=TimeInForce.FOK).status is Status.FILLED


def test_quantity_nought_closes_what_there_is(floor):
    floor.order(ANN, BUY, "0.3")
    floor.order(ANN, SELL, "0", reduce_only=True, close_on_trigger=True)
    assert floor.held(ANN) == 0


# --- triggers and exits ---------------------------------------------------------------------------


def test_a_conditional_order_waits_without_margin_and_then_trades(floor):
    wallet = floor.exchange.wallet(ANN)
    order = floor.order(ANN, BUY, "0.2", trigger=Trigger(D(61000), rising=True, by=TriggerBy.MARK))
    assert (order.status, floor.exchange.wallet(ANN)) == (Status.UNTRIGGERED, wallet)
    floor.worth("60500")
    assert order.status is Status.UNTRIGGERED
    floor.worth("61000")
    assert (order.status, floor.held(ANN)) == (Status.FILLED, D("0.2"))


def test_a_conditional_order_that_cannot_be_paid_when_it_fires_is_canceled(floor):
    order = floor.order(ANN, BUY, "100", "61000", trigger=Trigger(D(61000), rising=True, by=TriggerBy.MARK))
    floor.worth("61000")
    assert (order.status, order.filled) == (Status.CANCELLED, 0)


@pytest.mark.parametrize(
    ("limit", "status"),
    [("70000", "Trading"), ("61000", "ReduceOnly")],
    ids=["out of the band", "a symbol that closes"],
)
def test_what_was_not_known_of_a_conditional_order_is_checked_when_it_fires(floor, limit, status):
    order = floor.order(ANN, BUY, "0.1", limit, trigger=Trigger(D(61000), rising=True, by=TriggerBy.MARK))
    floor.exchange.markets[PERP].status = status
    floor.worth("61000")
    assert (order.status, order.filled) == (Status.CANCELLED, 0)


def test_exits_that_came_with_an_order_stand_once_it_fills_and_one_cancels_the_other(floor):
    order = floor.order(
        ANN,
        BUY,
        "0.2",
        take_profit=Exit(D(61000), TriggerBy.MARK),
        stop_loss=Exit(D(59000), TriggerBy.MARK),
    )
    assert order.status is Status.FILLED
    exits = {o.stop_order_type: o for o in floor.exchange.accounts[ANN].open_orders.values()}
    assert set(exits) == {"TakeProfit", "StopLoss"}
    floor.worth("61010")
    assert floor.held(ANN) == 0
    assert exits["TakeProfit"].status is Status.FILLED
    assert (exits["StopLoss"].status, exits["StopLoss"].cancel_type) == (Status.DEACTIVATED, "CancelByTpSlTsClear")


def test_a_full_exit_follows_the_size_of_the_position(floor):
    floor.order(ANN, BUY, "0.2", stop_loss=Exit(D(59000), TriggerBy.MARK))
    floor.order(ANN, BUY, "0.3")
    (stop,) = floor.exchange.accounts[ANN].open_orders.values()
    assert stop.quantity == D("0.5")
    which = Which(instrument=PERP, order_id=stop.order_id)
    with pytest.raises(Refused):
        floor.exchange.amend(ANN, Amendment(which=which, quantity=D("0.1")), floor.now)
    floor.worth("58900")
    assert floor.held(ANN) == 0
    assert stop.filled == D("0.5")


def test_exits_go_when_the_position_turns_over(floor):
    floor.order(ANN, BUY, "0.1", take_profit=Exit(D(61000)), stop_loss=Exit(D(59000)))
    exits = list(floor.exchange.accounts[ANN].open_orders.values())
    floor.order(ANN, SELL, "0.3", take_profit=Exit(D(59500)))
    assert [(order.status, order.cancel_type) for order in exits] == [(Status.DEACTIVATED, "CancelByTpSlTsClear")] * 2
    (left,) = floor.exchange.accounts[ANN].open_orders.values()
    assert (left.side, left.quantity, left.trigger.price) == (BUY, D("0.2"), D(59500))
    holding = floor.exchange.accounts[ANN].holding(PERP, 0)
    assert (holding.take_profit, holding.stop_loss) == (left.order_id, "")


@pytest.mark.parametrize("mode", TpslMode)
def test_an_order_that_only_closed_leaves_no_exits(floor, mode):
    floor.order(ANN, BUY, "0.3")
    floor.order(ANN, SELL, "0.1", tpsl_mode=mode, take_profit=Exit(D(59000)))
    assert not floor.exchange.accounts[ANN].open_orders


def test_of_a_pair_that_is_due_at_once_the_first_cancels_the_other_for_good(floor):
    floor.order(ANN, BUY, "0.2")
    wanted = TradingStop(
        instrument=PERP,
        position_idx=0,
        mode=TpslMode.PARTIAL,
        take_profit=Exit(D(60500), TriggerBy.LAST),
        stop_loss=Exit(D(59500), TriggerBy.MARK),
        take_size=D("0.1"),
        stop_size=D("0.1"),
    )
    floor.exchange.trading_stop(ANN, wanted, floor.now)
    market = floor.exchange.markets[PERP]
    market.pricing.shock, market.last = -0.02, D(60500)
    floor.exchange.drain()
    floor.pass_time(0)
    told = {event.order.stop_order_type: event.order.status for event in floor.heard(OrderChanged)}
    assert told == {"PartialTakeProfit": Status.FILLED, "PartialStopLoss": Status.DEACTIVATED}


def test_partial_exits_grow_with_the_fills_of_their_order(floor):
    floor.quote(PERP, SELL, "60002", "5")
    floor.order(ANN, BUY, "1", "59000", tpsl_mode=TpslMode.PARTIAL, stop_loss=Exit(D(58000)))
    floor.quote(PERP, BUY, "59999", "0")
    floor.others_take(PERP, SELL, "0.3")
    (stop,) = [order for order in floor.exchange.accounts[ANN].open_orders.values() if order.trigger]
    assert stop.quantity == D("0.3")
    floor.others_take(PERP, SELL, "0.7")
    assert (stop.quantity, stop.stop_order_type) == (D(1), "PartialStopLoss")


def test_partial_exits_have_sizes_of_their_own(floor):
    floor.order(ANN, BUY, "0.5")
    floor.exchange.trading_stop(
        ANN,
        TradingStop(
            instrument=PERP,
            position_idx=0,
            mode=TpslMode.PARTIAL,
            take_profit=Exit(D(61000), TriggerBy.MARK),
            stop_loss=Exit(D(59000), TriggerBy.MARK),
            take_size=D("0.2"),
            stop_size=D("0.2"),
        ),
        floor.now,
    )
    floor.worth("61000")
    assert floor.held(ANN) == D("0.3")
    assert not floor.exchange.accounts[ANN].open_orders


@pytest.mark.parametrize(
    "changes",
    [
        {"take_profit": Exit(D("61000.05"))},
        {"take_profit": Exit(D(62000)), "trailing": D("500.05")},
        {"take_profit": Exit(D(62000)), "trailing": D(500), "active_price": D(59000)},
        {"stop_loss": Exit(D(59500)), "stop_size": D("0.1005"), "mode": TpslMode.PARTIAL},
        {"stop_loss": Exit(D(59500)), "stop_size": D("0.6"), "mode": TpslMode.PARTIAL},
        {
            "take_profit": Exit(D(62000)),
            "stop_loss": Exit(D(59500)),
            "take_size": D("0.1"),
            "stop_size": D("0.2"),
            "mode": TpslMode.PARTIAL,
        },
    ],
    ids=["off the tick", "trails off the tick", "active already", "off the step", "too much", "sizes differ"],
)
def test_a_trading_stop_that_cannot_be_leaves_the_exits_as_they_were(floor, changes):
    floor.order(ANN, BUY, "0.5")
    common = {"instrument": PERP, "position_idx": 0, "mode": TpslMode.FULL}
    standing = TradingStop(**common, take_profit=Exit(D(61000)), trailing=D(400))
    floor.exchange.trading_stop(ANN, standing, floor.now)
    floor.exchange.drain()
    with pytest.raises(Refused) as refusal:
        floor.exchange.trading_stop(ANN, TradingStop(**common | changes), floor.now)
    assert refusal.value.code == 10001
    assert floor.exchange.drain() == []


def test_a_trading_stop_is_set_moved_and_removed(floor):
    floor.order(ANN, BUY, "0.5")

    def stop_at(price):
        wanted = TradingStop(instrument=PERP, position_idx=0, mode=TpslMode.FULL, stop_loss=Exit(D(price)))
        floor.exchange.trading_stop(ANN, wanted, floor.now)
        return [order.trigger.price for order in floor.exchange.accounts[ANN].open_orders.values()]

    assert stop_at("59000") == [D(59000)]
    with pytest.raises(Refused) as refusal:
        stop_at("59000")
    assert refusal.value.code == 34040
    assert stop_at("59500") == [D(59500)]
    assert stop_at("0") == []
    with pytest.raises(Refused):
        stop_at("61000")


def test_a_trailing_stop_follows_the_gain_and_never_back(floor):
    floor.order(ANN, BUY, "0.5")
    wanted = TradingStop(instrument=PERP, position_idx=0, mode=TpslMode.FULL, trailing=D(500))
    floor.exchange.trading_stop(ANN, wanted, floor.now)
    (stop,) = floor.exchange.accounts[ANN].open_orders.values()
    floor.worth("60900")
    floor.others_take(PERP, BUY, "0.1")
    floor.pass_time(1)
    assert stop.trigger.price == D("60401")
    floor.worth("60600")
    floor.others_take(PERP, SELL, "0.1")
    floor.pass_time(1)
    assert (stop.trigger.price, floor.held(ANN)) == (D("60401"), D("0.5"))
    floor.worth("60400")
    floor.others_take(PERP, SELL, "0.1")
    floor.pass_time(1)
    assert floor.held(ANN) == 0


def test_a_triggered_order_says_what_made_it_and_is_held_to_the_market_it_finds(floor):
    order = floor.order(ANN, BUY, "0.2", trigger=Trigger(D(62000), rising=True, by=TriggerBy.MARK))
    assert (order.price, order.stop_order_type, order.create_type) == (None, "Stop", "CreateByUser")
    floor.worth("63000")
    assert order.create_type == "CreateByStopOrder"
    assert order.average == D(63001)
    assert order.price > D(63001)


def test_exits_of_a_spot_buy_sell_what_it_has_received(floor):
    floor.order(ANN, BUY, "0.1", "60001", name=SPOT, take_profit=Exit(D(61000)), stop_loss=Exit(D(59000)))
    exits = list(floor.exchange.accounts[ANN].open_orders.values())
    assert [(order.side, order.quantity, order.stop_order_type) for order in exits] == [
        (SELL, D("0.0999"), "OcoOrder"),
        (SELL, D("0.0999"), "OcoOrder"),
    ]
    floor.worth("58900")
    floor.others_take(SPOT, SELL, "0.001")
    floor.pass_time(1)
    assert floor.balance(ANN, "BTC") == 1
    assert {order.status for order in exits} == {Status.FILLED, Status.DEACTIVATED}


def test_a_spot_order_that_takes_several_levels_leaves_one_pair_of_exits():
    floor = Floor(balances={"USDT": D(1_000_000)})
    floor.quote(SPOT, SELL, "60002", "5")
    floor.order(ANN, BUY, "11", "60002", name=SPOT, take_profit=Exit(D(61000)), stop_loss=Exit(D(59000)))
    assert [order.quantity for order in floor.exchange.accounts[ANN].open_orders.values()] == [D("10.989")] * 2


def test_a_spot_exit_order_sets_its_coins_aside_and_a_conditional_one_does_not(floor):
    floor.order(ANN, SELL, "0.4", name=SPOT, trigger=Trigger(D(59000), rising=False), order_filter=OrderFilter.STOP)
    assert floor.exchange.accounts[ANN].free("BTC") == 1
    order = floor.order(
        ANN, SELL, "0.4", name=SPOT, trigger=Trigger(D(59000), rising=False), order_filter=OrderFilter.TPSL
    )
    assert floor.exchange.accounts[ANN].free("BTC") == D("0.6")
    which = Which(instrument=SPOT, order_id=order.order_id)
    floor.exchange.amend(ANN, Amendment(which=which, quantity=D("0.9")), floor.now)
    assert floor.exchange.accounts[ANN].free("BTC") == D("0.1")
    with pytest.raises(Refused) as refusal:
        floor.exchange.amend(ANN, Amendment(which=which, quantity=D("1.1")), floor.now)
    assert refusal.value.code == 170131
    assert order.quantity == D("0.9")
    floor.exchange.cancel(ANN, which, floor.now)
    assert floor.exchange.accounts[ANN].free("BTC") == 1


def test_of_spot_a_filter_means_one_kind_of_what_waits(floor):
    kinds = (OrderFilter.STOP, OrderFilter.TPSL, OrderFilter.ORDER)
    for kind in kinds:
        trigger = Trigger(D(59000), rising=False) if kind is not OrderFilter.ORDER else None
        floor.order(ANN, SELL, "0.1", "60200", name=SPOT, trigger=trigger, order_filter=kind)
    for kind in kinds:
        (canceled,) = floor.exchange.cancel_all(ANN, [SPOT], floor.now, order_filter=kind)
        assert canceled.order_filter is kind


def test_before_there_is_a_price_a_market_order_is_refused():
    floor = Floor(price=None)
    for name, code in ((PERP, 110118), (SPOT, 170210)):
        with pytest.raises(Refused) as refusal:
            floor.order(ANN, BUY, "0.2", name=name)
        assert refusal.value.code == code


# --- hedge mode -----------------------------------------------------------------------------------


def test_in_hedge_mode_both_sides_are_held_and_closed_by_index(floor):
    floor.exchange.switch_mode(ANN, [PERP], 3, floor.now)
    floor.order(ANN, BUY, "0.3", position_idx=1)
    floor.order(ANN, SELL, "0.2", position_idx=2)
    assert (floor.held(ANN, index=1), floor.held(ANN, index=2)) == (D("0.3"), D("-0.2"))
    floor.order(ANN, SELL, "0.5", position_idx=1)
    assert (floor.held(ANN, index=1), floor.held(ANN, index=2)) == (0, D("-0.2"))
    with pytest.raises(Refused):
        floor.order(ANN, BUY, "0.1")


def test_in_hedge_mode_the_closing_side_only_reduces(floor):
    floor.exchange.switch_mode(ANN, [PERP], 3, floor.now)
    floor.order(ANN, BUY, "0.3", position_idx=1)
    floor.exchange.markets[PERP].status = "ReduceOnly"
    with pytest.raises(Refused) as refusal:
        floor.order(ANN, BUY, "0.1", position_idx=1)
    assert refusal.value.code == 110023
    assert floor.order(ANN, SELL, "0.3", position_idx=1).status is Status.FILLED


@pytest.mark.parametrize(
    ("code", "before"),
    [
        (110025, lambda floor: floor.exchange.switch_mode(ANN, [PERP], 3, floor.now)),
        (110024, lambda floor: floor.order(ANN, BUY, "0.1")),
        (110028, lambda floor: floor.order(ANN, BUY, "0.1", "59000")),
    ],
    ids=["the same", "a position", "an order"],
)
def test_the_mode_cannot_be_switched_under_a_position_or_an_order(floor, code, before):
    before(floor)
    with pytest.raises(Refused) as refusal:
        floor.exchange.switch_mode(ANN, [PERP], 3, floor.now)
    assert refusal.value.code == code
