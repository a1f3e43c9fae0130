"""Two legs as one: stories told to the broker, with a venue that does as the story says."""

import itertools
from decimal import Decimal
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean import codec
from hean.execution.broker import Broker, BrokerConfig, BrokerState
from hean.execution.pairs import PairConfig
from hean.messages import (
    CORE,
    CancelAll,
    CancelOrder,
    Liquidity,
    NodeStarted,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    PairFinished,
    PairLeg,
    Quote,
    Side,
    SubmitOrder,
    SubmitPair,
    TimeInForce,
    Trade,
    TradingState,
    TradingStateChanged,
    Wake,
)
from tests.unit.execution.market import INSTRUMENTS, PERP, SECOND, SPOT

D = Decimal
OPENING = {"lead_side": Side.SELL, "opening": True}
CLOSING = {"lead_side": Side.BUY, "opening": False}


def pair(
    quantity="0.4",
    *,
    lead_side=Side.SELL,
    opening=True,
    naked="10000",
    pair_id="p-1",
    lead=PERP,
    hedge=SPOT,
    reduces=True,
):
    other = Side(-lead_side)
    legs = (
        PairLeg(lead, lead_side, D(quantity), D(50_000)),
        PairLeg(hedge, other, D(quantity), D(50_000)),
    )
    return SubmitPair(pair_id, "carry", *legs, opening, D(naked), reduces)


class Story:
    """A broker, and the venue's side of what befalls its orders. What it was told is kept, to be told again."""

    def __init__(self, **config):
        self.config = BrokerConfig(pairs=PairConfig(**config))
        self.broker = Broker(self.config, INSTRUMENTS)
        self.now = 1_000 * SECOND
        self.told, self.said, self.working = [], [], {}
        self.trades = itertools.count(1)
        self.traded = {PERP: D(0), SPOT: D(0)}
        self.worst = D(0)

    def __call__(self, message, after=0.0):
        self.now += round(after * SECOND)
        self.told.append((message, self.now))
        said = list(self.broker.handle(message, self.now))
        self.said += said
        for order in said:
            if isinstance(order, SubmitOrder):
                self.working[order.client_order_id] = [order, order.quantity]
        return said

    def fill(self, order_id=None, quantity=None, price=50_000, fee_bp=10, late=None):
        order, left = late or self.working[order_id or self.last.client_order_id]
        part = left if quantity is None else D(quantity)
        spot_buy = order.instrument == SPOT and order.side is Side.BUY
        fee = part * D(fee_bp).scaleb(-4) if spot_buy else D(0)
        self.traded[order.instrument] += order.side * part - fee
        self.worst = max(self.worst, abs(self.traded[PERP] + self.traded[SPOT]))
        if late is None:
            self.working[order.client_order_id][1] -= part
            if left == part:
                del self.working[order.client_order_id]
        return self(
            OrderFilled(
                order.client_order_id,
                order.strategy,
                order.instrument,
                f"t-{next(self.trades)}",
                order.side,
                part,
                D(price),
                fee,
                "BTC" if spot_buy else "USDT",
                Liquidity.TAKER,
                None,
                "",
                self.now,
            )
        )

    def _end(self, kind, *rest):
        order, _ = self.working.pop(self.last.client_order_id)
        return self(kind(order.client_order_id, order.strategy, order.instrument, *rest))

    def reject(self, reason="no"):
        return self._end(OrderRejected, reason)

    def expire(self, reason="EC_PostOnlyWillTakeLiquidity"):
        return self._end(OrderExpired, reason)

    def cancel(self):
        return self._end(OrderCanceled, "by us")

    def silence(self):
        """The venue does not answer for the order at work."""
        order = self.last
        return self(OrderOutcomeUnknown(order.client_order_id, order.strategy, order.instrument, "timeout"))

    def restart(self, after=0.0):
        """The broker dies, is read back from its state, and told that it has started."""
        state = codec.encoded(self.broker.state)
        self.broker = Broker(self.config, INSTRUMENTS)
        self.broker.state = codec.decoded(BrokerState, state)
        assert codec.encoded(self.broker.state) == state
        return self(NodeStarted(CORE), after)

    def quote(self, bid, ask, after=0.0):
        return self(Quote(PERP, self.now + round(after * SECOND), bid, 1.0, ask, 1.0), after)

    @property
    def last(self):
        """The order at work."""
        return next(iter(self.working.values()))[0]

    @property
    def outcomes(self):
        return [said.outcome for said in self.said if isinstance(said, PairFinished)]

    @property
    def sent(self):
        return [said for said in self.said if isinstance(said, SubmitOrder)]


def brief(order):
    return (order.instrument, order.side, order.quantity, order.limit is not None, order.time_in_force)


def test_the_lead_goes_as_maker_and_its_fill_is_hedged_by_the_net_of_the_fee():
    story = Story()
    story(pair("0.4"))
    story.fill()
    story.fill()

    assert [brief(order) for order in story.sent] == [
        (PERP, Side.SELL, D("0.200"), True, TimeInForce.POST_ONLY),
        (SPOT, Side.BUY, D("0.200200"), False, TimeInForce.IOC),
        (PERP, Side.SELL, D("0.200"), True, TimeInForce.POST_ONLY),
    ]
    story.fill()
    story.fill()
    assert story.outcomes == ["done"]
    assert abs(story.traded[PERP] + story.traded[SPOT]) < D("0.000002")


def test_it_closes_with_orders_that_only_reduce():
    story = Story()
    story(pair("0.1", **CLOSING))
    story.fill()

    assert [(order.instrument, order.reduce_only) for order in story.sent] == [(PERP, True), (SPOT, False)]


def test_a_partial_fill_calls_the_rest_back_before_it_is_hedged():
    story = Story()
    story(pair("0.1"))

    assert story.fill(quantity="0.03")[1:] == [CancelOrder("carry", "p-1-1", PERP)]
    assert brief(story.cancel()[-1]) == (SPOT, Side.BUY, D("0.030030"), False, TimeInForce.IOC)


def test_a_fill_that_crossed_the_cancel_is_hedged_too():
    story = Story()
    story(pair("0.1"))
    lead = story.working["p-1-1"][0]
    story.quote(50_100.0, 50_100.2, after=3)
    story.cancel()
    assert story.last.client_order_id == "p-1-2"

    assert story.fill(late=(lead, D("0.04")))[-1] == CancelOrder("carry", "p-1-2", PERP)
    assert brief(story.cancel()[-1]) == (SPOT, Side.BUY, D("0.040040"), False, TimeInForce.IOC)


def test_a_hedge_that_cannot_be_traded_is_tried_again_and_then_the_lead_is_unwound():
    story = Story(hedge_attempts=3)
    story(pair("0.1"))
    story.fill()
    for _ in range(3):
        story.reject()

    assert brief(story.last) == (PERP, Side.BUY, D("0.100"), False, TimeInForce.IOC)
    assert story.last.reduce_only
    story.fill()
    assert story.outcomes == ["unwound"]
    assert story.traded[PERP] == 0


def test_a_lead_that_cannot_be_unwound_leaves_the_pair_broken():
    story = Story(hedge_attempts=2)
    story(pair("0.1"))
    story.fill()
    for _ in range(4):
        story.reject()

    assert story.outcomes == ["broken"]
    assert story.said[-1].reason == f"0.100 of {PERP} cannot be unwound"


NOTHING_THERE = "110017 current position is zero, cannot fix reduce-only order qty"


@pytest.mark.parametrize("reduces", [True, False])
def test_what_closes_and_what_unwinds_a_contract_reduces_only_where_it_may(reduces):
    story = Story()
    story(pair("0.1", reduces=reduces, **CLOSING))
    assert [order.reduce_only for order in story.sent] == [reduces]

    story = Story(hedge_attempts=1)
    story(pair("0.1", reduces=reduces))
    story.fill()
    story.reject()
    assert (story.last.instrument, story.last.reduce_only) == (PERP, reduces)


def test_a_closing_lead_that_finds_nothing_to_reduce_is_for_risk_to_ask_anew():
    story = Story(hedge_attempts=3)
    story(pair("0.1", **CLOSING))
    story.reject(NOTHING_THERE)

    assert len(story.sent) == 1
    assert story.said[-1] == PairFinished("p-1", "carry", "unwound", f"lead rejected: {NOTHING_THERE}")


def test_a_closing_lead_that_the_venue_cut_ends_with_what_it_has_once_nothing_is_left_to_reduce():
    story = Story(hedge_attempts=3)
    story(pair("0.1", **CLOSING))
    story.fill(quantity="0.04")
    story.expire("ended at 0.04 of 0.1")
    story.fill()
    assert (story.last.instrument, story.last.quantity, story.last.reduce_only) == (PERP, D("0.060"), True)
    story.reject(NOTHING_THERE)

    assert story.outcomes == ["done"]
    assert story.said[-1].reason.startswith("lead rejected")
    assert story.traded[PERP] + story.traded[SPOT] == 0


@pytest.mark.parametrize("how", ["rejected", "expired"])
@pytest.mark.parametrize("dies", [False, True])
def test_an_unwinding_that_finds_nothing_to_reduce_goes_on_as_a_plain_order_of_the_same_size(how, dies):
    story = Story(hedge_attempts=1)
    story(pair("0.1"))
    story.fill()
    story.reject()
    assert story.last.reduce_only
    if how == "rejected":
        story.reject(NOTHING_THERE)
    else:
        story.expire("CancelByReduceOnly")
    if dies:
        story.restart()

    assert (story.last.side, story.last.quantity, story.last.reduce_only) == (Side.BUY, D("0.100"), False)
    story.fill(quantity="0.04")
    story.expire("no more of it")
    assert (story.last.quantity, story.last.reduce_only) == (D("0.060"), False)
    story.fill()
    assert story.outcomes == ["unwound"]
    assert story.traded[PERP] == 0


def test_a_hedge_that_finds_nothing_to_reduce_goes_on_as_a_plain_order_of_the_same_size():
    story = Story(hedge_attempts=1)
    story(pair("0.1", lead=SPOT, hedge=PERP, lead_side=Side.SELL, opening=False))
    story.fill()
    assert (story.last.instrument, story.last.reduce_only) == (PERP, True)
    story.reject(NOTHING_THERE)

    assert (story.last.instrument, story.last.quantity, story.last.reduce_only) == (PERP, D("0.100"), False)
    story.fill()
    assert story.outcomes == ["done"]


def test_what_is_too_small_to_be_an_order_is_only_reduced_and_let_be_where_it_cannot():
    """0.001 at 50,000 is worth 50, and the venue takes no plain order below that of the rules here."""
    story = Story(hedge_attempts=1)
    story.broker = Broker(
        story.config, {**INSTRUMENTS, PERP: msgspec.structs.replace(INSTRUMENTS[PERP], min_notional=D(60))}
    )
    story(pair("0.1", reduces=False))
    story.fill()
    story.fill(quantity="0.099")
    story.expire()
    story.reject()

    assert (story.last.side, story.last.quantity, story.last.reduce_only) == (Side.BUY, D("0.001"), True)
    story.reject(NOTHING_THERE)
    assert story.outcomes == ["unwound"]


def test_a_hedge_filled_in_part_is_unwound_only_for_the_rest():
    story = Story(hedge_attempts=1)
    story(pair("0.1"))
    story.fill()
    story.fill(quantity="0.05")
    story.expire()
    story.reject()

    assert (story.last.side, story.last.quantity) == (Side.BUY, D("0.050"))


def test_the_lead_follows_the_price_and_not_before_its_time():
    story = Story(reprice_s=2)
    story(pair("0.1"))
    assert story.sent[0].limit == D("50000.1")

    assert story.quote(50_010.0, 50_010.1, after=1) == []
    assert story.quote(50_010.0, 50_010.1, after=1) == [CancelOrder("carry", "p-1-1", PERP)]
    assert story.cancel()[-1].limit == D("50010.1")
    assert story.quote(50_010.0, 50_010.1, after=5) == []


def test_a_lead_that_would_have_taken_waits_for_the_next_price():
    story = Story(reprice_s=2)
    story(pair("0.1"))

    assert story.expire()[1:] == []
    assert story.quote(50_004.0, 50_004.1, after=1) == []
    assert story.quote(50_005.0, 50_005.1, after=1)[-1].limit == D("50005.1")


@pytest.mark.parametrize(("ask", "outcomes"), [(49_951.0, []), (49_949.0, ["unwound"])], ids=["near", "ran away"])
def test_an_opening_lead_walks_only_so_far(ask, outcomes):
    story = Story(max_walk_bp=10)
    story(pair("0.1"))
    story.quote(ask - 0.1, ask, after=3)
    story.cancel()

    assert story.outcomes == outcomes


def test_an_opening_pair_loses_patience_and_ends_with_what_it_has():
    story = Story(patience_s=60)
    story(pair("0.4"))
    story.fill()
    story.fill()
    assert story.broker.wake_at() == 1_060 * SECOND

    assert story(Wake(), after=60) == [CancelOrder("carry", "p-1-3", PERP)]
    story.cancel()
    assert story.outcomes == ["done"]
    assert story.said[-1].reason == "not filled within 60 s"
    assert story.broker.wake_at() is None


def test_a_closing_pair_that_loses_patience_crosses():
    story = Story(patience_s=60)
    story(pair("0.1", **CLOSING))
    story(Wake(), after=60)

    assert brief(story.cancel()[-1]) == (PERP, Side.BUY, D("0.1"), False, TimeInForce.IOC)


@pytest.mark.parametrize(
    "message",
    [CancelAll("carry"), CancelAll(""), TradingStateChanged(TradingState.HALTED, "why")],
    ids=["its own", "all", "halt"],
)
def test_an_opening_pair_that_is_stopped_ends_hedged(message):
    story = Story()
    story(pair("0.4"))
    story.fill(quantity="0.1")

    assert [said for said in story(message) if isinstance(said, CancelOrder)] == []  # on its way already
    story.cancel()
    story.fill()
    assert story.outcomes == ["done"]


def test_a_stopped_pair_that_has_no_order_at_work_ends_at_once():
    story = Story()
    story(pair("0.1"))
    story.expire()

    assert story(CancelAll("carry")) == [PairFinished("p-1", "carry", "unwound", "canceled")]


def test_a_closing_pair_is_not_stopped():
    story = Story()
    story(pair("0.1", **CLOSING))

    assert story(CancelAll("")) == [CancelAll("")]  # it goes on to the venue, and calls nothing of ours back
    assert story(TradingStateChanged(TradingState.HALTED, "why")) == []


def test_a_halted_broker_opens_no_pair():
    story = Story()
    story(TradingStateChanged(TradingState.REDUCING, "why"))

    assert story(pair("0.1")) == [PairFinished("p-1", "carry", "unwound", "trading is REDUCING")]


def test_a_pair_that_closes_calls_back_the_one_that_opens():
    story = Story()
    story(pair("0.4"))
    story.fill()
    story.fill()

    assert story(pair("0.2", **CLOSING, pair_id="p-2")) == [CancelOrder("carry", "p-1-3", PERP)]
    said = story.cancel()
    assert (said[1].pair_id, said[1].outcome) == ("p-1", "done")
    assert (said[-1].client_order_id, said[-1].side) == ("p-2-1", Side.BUY)


def test_pairs_that_wait_are_told_of_when_they_are_dropped():
    story = Story()
    story(pair("0.1"))
    story(pair("0.1", pair_id="p-2"))

    assert PairFinished("p-2", "carry", "unwound", "canceled") in story(CancelAll("carry"))


@pytest.mark.parametrize(
    ("naked", "opening", "sizes"),
    [
        ("6000", True, ["0.1"]),
        ("2000", True, ["0.034", "0.033", "0.033"]),
        ("49", True, []),
        ("49", False, ["0.001"]),
    ],
    ids=["at once", "in even clips", "too small to open", "closing is never too small"],
)
def test_the_lead_is_cut_into_clips(naked, opening, sizes):
    story = Story()
    story(pair("0.1", naked=naked, opening=opening))
    for _ in range(3):
        if story.working and opening:
            story.fill()
            story.fill()

    assert [str(order.quantity) for order in story.sent if order.instrument == PERP] == sizes
    assert story.outcomes == (["done" if sizes else "unwound"] if opening else [])


def test_a_rest_too_small_for_the_hedge_is_left():
    story = Story()
    story(pair("0.1"))
    said = story.fill(quantity="0.00009")  # 4.50 of notional, where 5 is the least

    assert [message for message in said if not isinstance(message, OrderFilled)] == []


def test_child_ids_name_their_pair_and_fit_the_venue():
    story = Story()
    story(pair("0.1", pair_id="run-a-strategy-name-1-123456"))
    for turn in range(1_800):  # an hour of repricing, as often as may be
        story.quote(50_000.0 + turn % 2, 50_000.2 + turn % 2, after=2)
        if story.broker.state.pairs["run-a-strategy-name-1-123456"].canceling:
            story.cancel()

    assert story.last.client_order_id == "run-a-strategy-name-1-123456-1801"
    assert len(story.last.client_order_id) <= 36


# --- a venue that does not answer -----------------------------------------------------------------


def hedging(**config):
    """A pair whose lead has filled, and whose hedge the venue does not answer for."""
    story = Story(**config)
    story(pair("0.1"))
    story.fill()
    story.silence()
    return story


def test_a_hedge_without_an_answer_is_not_sent_again_and_nothing_more_is_risked():
    story = hedging()
    sent = len(story.sent)
    story.quote(49_000.0, 49_000.2, after=20)
    story.silence()

    assert len(story.sent) == sent
    assert story.broker.wake_at() == story.now - 20 * SECOND + 30 * SECOND


@pytest.mark.parametrize("answer", ["fill", "reject", "expire"])
def test_an_answer_in_time_lets_the_pair_go_on(answer):
    story = hedging()
    getattr(story, answer)()

    assert story.broker.wake_at() is None or not [p for p in story.broker.state.pairs.values() if p.ts_silent]
    if answer == "fill":
        assert story.outcomes == ["done"]
    else:
        assert brief(story.last) == (SPOT, Side.BUY, D("0.100100"), False, TimeInForce.IOC)


def test_a_hedge_nobody_knows_of_breaks_the_pair_and_counts_by_itself():
    story = hedging()
    hedge = story.last.client_order_id
    story(Wake(), after=29)
    assert story.outcomes == []

    restated, finished = story(Wake(), after=1)

    assert isinstance(restated, OrdersRestated)
    assert restated.pairs == ()
    assert restated.remaining[hedge].remaining == D("0.100100")
    assert restated.remaining[hedge].unknown
    assert (finished.outcome, finished.reason) == ("broken", f"nobody knows what became of {hedge}")
    assert story.broker.wake_at() is None
    assert isinstance(story.fill()[0], OrderFilled)  # it traded after all, and is told of


def test_a_lead_nobody_knows_of_breaks_the_pair_too():
    story = Story()
    story(pair("0.1"))
    story.silence()
    story(Wake(), after=30)

    assert story.outcomes == ["broken"]


def test_a_pair_that_waited_to_open_does_not_begin_when_another_broke():
    story = hedging()
    story(pair("0.1", pair_id="p-2"))
    story(Wake(), after=30)

    assert [(said.pair_id, said.outcome) for said in story.said if isinstance(said, PairFinished)] == [
        ("p-1", "broken"),
        ("p-2", "unwound"),
    ]
    assert story.broker.state.pairs == {}


def test_while_trading_is_not_active_what_closes_does_not_rest_for_long():
    story = Story(hurried_s=30)
    story(pair("0.1", **CLOSING))
    assert story.broker.wake_at() == story.now + 3_600 * SECOND

    story(TradingStateChanged(TradingState.HALTED, "DRAWDOWN"))
    assert story.broker.wake_at() == story.now + 30 * SECOND
    story(OrderAccepted("p-1-1", "carry", PERP, "v"))
    story.restart()
    assert story.broker.wake_at() == story.now + 30 * SECOND
    assert story(Wake(), after=30) == [CancelOrder("carry", "p-1-1", PERP)]
    assert brief(story.cancel()[-1]) == (PERP, Side.BUY, D("0.1"), False, TimeInForce.IOC)


# --- after a restart ------------------------------------------------------------------------------


def test_a_cancel_that_may_be_lost_is_said_again():
    story = Story()
    story(pair("0.1"))
    assert CancelOrder("carry", "p-1-1", PERP) in story(CancelAll(""))

    assert story.restart()[0] == CancelOrder("carry", "p-1-1", PERP)
    story.cancel()
    assert story.outcomes == ["unwound"]


def test_it_restates_pairs_as_they_were_asked_for():
    story = Story()
    story(pair("0.1"))
    story(pair("0.1", pair_id="p-2", **CLOSING))
    (restated,) = [said for said in story.restart() if isinstance(said, OrdersRestated)]

    assert restated.pairs == (pair("0.1"), pair("0.1", pair_id="p-2", **CLOSING))
    assert list(restated.remaining) == ["p-1-1"]


@pytest.mark.parametrize(
    ("asked", "fills", "then"),
    [
        (OPENING, 0, None),
        (CLOSING, 0, (PERP, Side.BUY, D("0.1"), True, TimeInForce.POST_ONLY)),
        (OPENING, 1, (SPOT, Side.BUY, D("0.100100"), False, TimeInForce.IOC)),
    ],
    ids=["an opening lead", "a closing lead", "a hedge"],
)
def test_an_order_that_never_left_is_rejected_and_the_pair_goes_on(asked, fills, then):
    story = Story()
    story(pair("0.1", **asked))
    for _ in range(fills):
        story.fill()
    lost = story.last.client_order_id
    story.restart()
    story.reject("the venue has no such order")
    story.quote(50_000.0, 50_000.1, after=3)  # a lead waits for the next price

    if then is None:
        assert story.outcomes == ["unwound"]
    else:
        assert story.last.client_order_id != lost
        assert brief(story.last) == then


def test_an_order_that_may_never_have_left_has_its_time_from_the_restart_on():
    story = Story()
    story(pair("0.1"))
    story.fill()
    story.restart(after=3_600)

    assert story.broker.wake_at() == story.now + 30 * SECOND
    story(Wake(), after=30)
    assert story.outcomes == ["broken"]


def test_a_lead_the_venue_has_rests_on_over_a_restart():
    story = Story()
    story(pair("0.1"))
    story(OrderAccepted("p-1-1", "carry", PERP, "v"))
    story.restart(after=60)

    assert story.broker.wake_at() == story.now + 3_540 * SECOND


# --- under any order of events ----------------------------------------------------------------------


def live(story, chance, steps, *, crossing=0.3):
    """Let the venue and the market do as chance will; fills larger than asked for are the only thing ruled out."""
    near = 50_000.0
    late = []
    for _ in range(steps):
        roll = chance.random()
        if story.working and roll < 0.55:
            order, left = story.working[story.last.client_order_id]
            step = INSTRUMENTS[order.instrument].step
            part = max(step, left * chance.randrange(1, 5) / 4 // step * step)
            story.fill(quantity=min(part, left))
        elif story.working and roll < 0.75:
            order, left = story.working[story.last.client_order_id]
            resting = order.limit is not None
            if left == order.quantity and chance.random() < 0.3:
                story.reject()
                continue
            _ = story.cancel() if resting else story.expire("EC_NoEnoughQtyToFill")
            if resting and chance.random() < crossing:
                late.append((order, min(left, INSTRUMENTS[order.instrument].step * chance.randrange(1, 40))))
        elif late and roll < 0.8:
            story.fill(late=late.pop())
        elif roll < 0.97:
            near += chance.choice([-5.0, 0.0, 0.1, 5.0])
            after = chance.choice([0.0, 0.5, 3.0])
            if chance.random() < 0.5:
                story.quote(near, near + 0.2, after)
            else:
                story(Trade(PERP, story.now, near, 1.0, Side.BUY), after)
        elif (due := story.broker.wake_at()) is not None:
            story.now = max(story.now, due)
            story(Wake())


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), opening=st.booleans(), naked=st.sampled_from(["300", "3000", "1000000"]))
def test_no_more_than_max_naked_ever_stands_without_a_hedge(seed, opening, naked):
    chance = Random(seed)
    story = Story()
    story(pair("0.4", lead_side=Side.SELL if opening else Side.BUY, opening=opening, naked=naked))

    near = 50_000.0
    for _ in range(120):
        if not story.working or chance.random() < 0.3:
            near += chance.choice([-5.0, 0.0, 5.0])
            story.quote(near, near + 0.2, after=3)
        else:
            order, left = story.working[story.last.client_order_id]
            step = INSTRUMENTS[order.instrument].step
            if chance.random() < (0.3 if left != order.quantity else 0.1):
                _ = story.cancel() if order.limit is not None else story.expire("EC_NoEnoughQtyToFill")
            else:
                story.fill(quantity=min(left, max(step, left * chance.randrange(1, 5) / 4 // step * step)))

    assert story.worst * 50_000 <= D(naked) + D("0.1")  # the hedge is whole steps, net of its fee


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), opening=st.booleans())
def test_a_pair_that_is_done_is_hedged_to_the_smallest_order(seed, opening):
    story = Story()
    story(pair("0.2", lead_side=Side.SELL if opening else Side.BUY, opening=opening, naked="3000"))
    live(story, Random(seed), 150, crossing=0)

    # The hedge is cut finer than the lead: unwinding may leave less than a step of the lead.
    left = {"done": 5, "unwound": 50}
    if story.outcomes and story.outcomes[-1] in left:
        assert abs(story.traded[PERP] + story.traded[SPOT]) * 50_000 < left[story.outcomes[-1]]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), opening=st.booleans())
def test_a_broker_told_the_same_again_is_the_same_and_its_state_survives_the_disk(seed, opening):
    story = Story(patience_s=30)
    story(pair("0.2", lead_side=Side.SELL if opening else Side.BUY, opening=opening, naked="3000"))
    live(story, Random(seed), 60)

    successor = Broker(story.config, INSTRUMENTS)
    again = [said for message, now in story.told for said in successor.handle(message, now)]

    assert again == story.said
    state = successor.state
    assert msgspec.json.encode(state) == msgspec.json.encode(story.broker.state)
    assert msgspec.json.decode(msgspec.json.encode(state), type=type(state)) == state
    assert successor.wake_at() == story.broker.wake_at()


def test_orders_accepted_while_a_pair_is_at_work_change_nothing():
    story = Story()
    story(pair("0.1"))

    assert story(OrderAccepted("p-1-1", "carry", PERP, "v-1")) == [OrderAccepted("p-1-1", "carry", PERP, "v-1")]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), opening=st.booleans(), naked=st.sampled_from(["300", "3000", "1000000"]))
def test_neither_silence_nor_crashes_leave_more_than_max_naked_without_a_hedge(seed, opening, naked):
    """What the venue does not answer for trades in part, or not at all; the broker dies, and what it asked for may be lost."""
    chance = Random(seed)
    story = Story(silence_s=10)
    asked = pair("0.4", lead_side=Side.SELL if opening else Side.BUY, opening=opening, naked=naked)
    story(asked)
    near = 50_000.0
    left = set()  # what the venue has
    for _ in range(150):
        roll = chance.random()
        if story.working and roll < 0.5:
            order, rest = story.working[story.last.client_order_id]
            step = INSTRUMENTS[order.instrument].step
            left.add(order.client_order_id)
            if roll < 0.1:
                _ = story.cancel() if order.limit is not None else story.expire("EC_NoEnoughQtyToFill")
            elif roll < 0.2:
                story.silence()
            else:
                story.fill(quantity=min(rest, max(step, rest * chance.randrange(1, 5) / 4 // step * step)))
        elif roll < 0.6:
            story.restart(after=chance.choice([0.0, 30.0]))
            if story.working and story.last.client_order_id not in left and chance.random() < 0.5:
                story.reject("the venue has no such order")
        elif roll < 0.7 and (due := story.broker.wake_at()) is not None:
            story.now = max(story.now, due)
            story(Wake())
        else:
            near += chance.choice([-5.0, 0.0, 5.0])
            story.quote(near, near + 0.2, after=3)

    assert story.worst * 50_000 <= D(naked) + D("0.1")
    assert len({order.client_order_id for order in story.sent}) == len(story.sent)
    if story.outcomes:
        assert story.broker.state.pairs == {}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), opening=st.booleans(), cut=st.integers(1, 60))
def test_a_broker_that_was_read_back_in_the_midst_of_a_pair_goes_on_as_the_other_would_have(seed, opening, cut):
    story = Story(patience_s=30)
    story(pair("0.2", lead_side=Side.SELL if opening else Side.BUY, opening=opening, naked="3000"))
    live(story, Random(seed), 60)

    first, second = Broker(story.config, INSTRUMENTS), Broker(story.config, INSTRUMENTS)
    said = [said for message, now in story.told[:cut] for said in first.handle(message, now)]
    second.state = codec.decoded(BrokerState, codec.encoded(first.state))
    said += [said for message, now in story.told[cut:] for said in second.handle(message, now)]

    assert said == story.said
    assert codec.encoded(second.state) == codec.encoded(story.broker.state)
    assert second.wake_at() == story.broker.wake_at()
    assert second.restorable() == story.broker.restorable()
