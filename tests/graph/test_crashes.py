"""The whole core dies at random, and what was asked on the way is lost: what must hold after it has come back."""

from random import Random

import pytest

from hean import codec
from hean.dispatcher import Dispatcher
from hean.messages import (
    CORE,
    Command,
    EpochBegan,
    KillSwitchTripped,
    NodeStarted,
    OrderRejected,
    OrdersRestated,
    StartTrading,
    SubmitOrder,
    SubmitPair,
)
from tests.graph.house import BTC, BTC_SPOT, ETH, ETH_SPOT, carrier, chatter, house, market
from tests.graph.test_simulation import (
    NERVOUS,
    TIERS,
    books_agree,
    naked_legs_are_bounded,
    nobody_waits_for_what_is_over,
    reconciled,
    the_switch_stays_tripped,
)


def strategies(seed):
    return (
        chatter("perp", ETH, seed)
        | chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), bracket=0.0)
        | carrier("carrier", seed, (BTC,), (BTC_SPOT,), every=3)
    )


class Crashing:
    """A house whose core dies, and comes back by the one path there is."""

    def __init__(self, seed, *, forgetful=False, **changes):
        self.chance = Random(seed)
        self.tape = market(seed, TIERS[seed % 3], rows=180)
        self.house = house(
            self.tape, TIERS[seed % 3], strategies(seed), seed=seed, haste=(0.02, 0.1, 0.4)[seed % 3], **changes
        )
        self.sim = self.house.sim
        self.forgetful = forgetful
        self.epoch = 0
        self.lost = 0

    def crash(self, kept=None):
        """Die, and come back; `kept` is what risk remembers, where it lost its last moments with the power."""
        self._lose_commands()
        self.sim.settle()  # facts that were said and not heard are told again
        self._read_back("risk", kept or codec.encoded(self.house["risk"].state))
        self._read_back("broker", codec.encoded(self.house["broker"].state))
        self.epoch += 1
        self.sim.tell("risk", EpochBegan(self.epoch))
        self.sim.settle()
        self._look_up()
        if self.chance.random() < 0.5:
            self.sim.settle()
        for name in self.chance.sample(["broker", "portfolio"], 2):
            self.sim.tell(name, NodeStarted(CORE))
        self.sim.settle()
        self.every_order_counts()
        if self.chance.random() < 0.8:
            self.sim.tell("risk", StartTrading())
        self.sim.settle()

    def _lose_commands(self):
        for pair, queue in self.sim._queues.items():
            kept = [envelope for envelope in queue if not isinstance(envelope.message, Command) or pair[0] == "engine"]
            self.lost += len(queue) - len(kept)
            queue.clear()
            queue.extend(kept)

    def _read_back(self, name, state):
        """A new component, whose state is read from bytes."""
        node = self.sim._nodes[name].hosts[name].node
        component = self.sim._build()[name]
        component.state = codec.decoded(type(component.state), state)
        assert codec.encoded(component.state) == state
        dispatcher = Dispatcher(self.house.topology, {name: component}, log=self.sim.log.append)
        dispatcher.hosts[name].seq = self.sim._nodes[name].hosts[node.name].seq
        self.sim.components[name], self.sim._nodes[name] = component, dispatcher

    def _look_up(self):
        """The gateway asks for orders that may never have left; the venue has never heard of some."""
        arrived = {envelope.message.client_order_id for envelope in self._told("venue", SubmitOrder)}
        for known in self.house["broker"].restorable():
            order = known.order
            if order.client_order_id not in arrived:
                assert not known.accepted
                gone = OrderRejected(order.client_order_id, order.strategy, order.instrument, "the venue has none such")
                self.sim.tell("broker", gone, source="venue")

    def _told(self, name, kind):
        heard = [told.envelope for told in self.sim.journals[name] if told.envelope is not None]
        return [envelope for envelope in heard if isinstance(envelope.message, kind)]

    def every_order_counts(self):
        """No place is free while an order of it is live, and none is taken by what is over."""
        risk, broker = self.house["risk"].state, self.house["broker"].state
        assert risk.earlier == []
        pairs = {*broker.pairs, *broker.waiting}
        for name, order in broker.open.items():
            slot = risk.slots[order.strategy][order.instrument]
            assert slot.pending, name
            assert name in risk.orders or slot.pair in pairs, name
            if name in risk.orders:
                assert risk.orders[name].remaining == order.side * (order.quantity - order.filled)
        assert set(risk.orders) <= set(broker.open)
        for places in risk.slots.values():
            for slot in places.values():
                assert not slot.pair or slot.pair in pairs
                live = [one for one in risk.orders.values() if (one.strategy, one.instrument) == _place(slot)]
                assert slot.orders == len(live)

    def run(self, crashes=4):
        for _ in range(crashes):
            self.sim.run(rows=self.chance.randrange(self.tape.size // crashes))
            kept = codec.encoded(self.house["risk"].state) if self.forgetful else None
            self.sim.run(rows=12 if self.forgetful else 0)
            self.crash(kept)
        self.sim.run()
        self.house.quiet()


def _place(slot):
    return (slot.strategy, slot.instrument)


def no_id_is_given_twice(found):
    sent = [order.client_order_id for order in found.said("risk", SubmitOrder)]
    sent += [pair.pair_id for pair in found.said("risk", SubmitPair)]
    assert len(set(sent)) == len(sent)
    children = [order.client_order_id for order in found.said("broker", SubmitOrder)]
    assert len(set(children)) == len(children)


@pytest.mark.parametrize("batch", range(6))
def test_a_core_that_lost_what_it_asked_for_comes_back_whole(batch):
    lost = traded = 0
    for seed in range(batch * 10, batch * 10 + 10):
        crashing = Crashing(seed)
        crashing.run()
        lost += crashing.lost
        traded += len(crashing.house["venue"].state.account.positions)
        books_agree(crashing.house)
        nobody_waits_for_what_is_over(crashing.house)
        crashing.every_order_counts()
        reconciled(crashing.house)
        naked_legs_are_bounded(crashing.house)
        no_id_is_given_twice(crashing.house)
        assert len(crashing.house.said("broker", OrdersRestated)) == 4
    assert lost > 5
    assert traded > 0


def test_orders_that_risk_forgot_with_the_power_count_again_and_their_names_are_not_used_again():
    for seed in range(100, 130):
        crashing = Crashing(seed, forgetful=True)
        crashing.run()
        books_agree(crashing.house)
        crashing.every_order_counts()
        nobody_waits_for_what_is_over(crashing.house)
        naked_legs_are_bounded(crashing.house)
        no_id_is_given_twice(crashing.house)


def test_closing_everything_survives_the_crash_and_so_does_the_latch():
    tripped = 0
    for seed in range(200, 230):
        crashing = Crashing(seed, risk=NERVOUS)
        crashing.run()
        books_agree(crashing.house)
        nobody_waits_for_what_is_over(crashing.house)
        if the_switch_stays_tripped(crashing.house):
            first = next(one for one in crashing.sim.log if isinstance(one.message, KillSwitchTripped))
            if first.ts_init < crashing.tape.last_ts - 100 * 10**9:
                tripped += 1
                assert not crashing.house["risk"].state.orders
                positions = crashing.house["venue"].state.account.positions
                assert not positions, seed
    assert tripped > 5
