"""A broker that is told only the prices its leads follow says what one that is told every price says."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from hean.backtest.player import Player, compare
from hean.dispatcher import Dispatcher
from hean.execution.broker import Broker, BrokerConfig
from hean.execution.pairs import PairConfig
from hean.execution.simulated_venue import SimulatedVenue, SimulatedVenueConfig
from hean.messages import (
    Bar,
    CancelAll,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    PairFinished,
    PairLeg,
    Quote,
    Side,
    SubmitPair,
    Trade,
    Wake,
)
from hean.topology import ROUTES, Node, Route, Topology
from tests.unit.execution.market import INSTRUMENTS, MINUTE, PERP, SPOT, START, D, random_tape


class RiskState(Struct):
    done: int = 0


class Risk:
    """Stands in for risk: opens a pair and closes it, and calls it back now and then, by the clock."""

    def __init__(self, plan):
        self.plan = plan
        self.state = RiskState()

    def handle(
        self,
        message: Wake | OrderAccepted | OrderRejected | OrderFilled | OrderCanceled | OrderExpired | PairFinished,
        now: int,
    ) -> list[SubmitPair | CancelAll]:
        if not isinstance(message, Wake) or self.wake_at() is None or self.wake_at() > now:
            return []
        self.state.done += 1
        return [self.plan[self.state.done - 1][1]]

    def wake_at(self):
        return self.plan[self.state.done][0] if self.state.done < len(self.plan) else None


def a_plan(gaps, quantity, naked):
    plan, ts = [], START + 2 * MINUTE
    for number, (gap, calls_back) in enumerate(gaps):
        side = Side.BUY if number % 2 else Side.SELL
        legs = (PairLeg(PERP, side, D(quantity), D(100)), PairLeg(SPOT, Side(-side), D(quantity), D(100)))
        plan.append((ts, SubmitPair(f"p-{number}", "carry", *legs, number % 2 == 0, D(naked), True)))
        if calls_back:
            plan.append((ts + gap // 2, CancelAll("carry")))
        ts += gap
    return plan


def run(tape, tiers, plan, *, stepping, latency):
    watches = frozenset((stream.instrument, stream.kind) for stream in tape.streams)
    prices = frozenset((name, kind) for name, kind in watches if kind in {Bar, Trade, Quote})
    rules = {name: INSTRUMENTS[name] for name in tiers}
    venue = SimulatedVenue(SimulatedVenueConfig(latency_ms=latency), rules, tiers, watches)
    pairs = PairConfig(reprice_s=2, patience_s=900, max_walk_bp=200)
    components = {"venue": venue, "broker": Broker(BrokerConfig(pairs=pairs), rules, prices), "risk": Risk(plan)}
    nodes = (Node("venue", "venue", watches), Node("broker", "broker", prices), Node("risk", "risk"))
    inner = [route for route in ROUTES if {route.source, route.to} <= {"feed", "venue", "broker", "risk"}]
    routes = [Route(route.source, route.sends, route.to, route.only, True) for route in inner]
    topology = Topology(nodes, tuple(routes))
    log = []
    player = Player(Dispatcher(topology, components, log=log.append), topology, tape, stepping=stepping)
    player.tell("risk", Wake(), START)
    player.play()
    return log, components, player


@pytest.mark.parametrize("kind", ["bars", "trades", "quotes", "depth"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    gaps=st.lists(st.tuples(st.integers(1, 40).map(lambda n: n * MINUTE // 2), st.booleans()), min_size=1, max_size=6),
    quantity=st.sampled_from(["0.5", "5"]),
    naked=st.sampled_from(["60", "250"]),
    latency=st.sampled_from([0.0, 80.0]),
)
def test_skipping_and_stepping_agree(kind, seed, gaps, quantity, naked, latency):
    tape, tiers = random_tape(seed, {PERP: kind, SPOT: kind}, 400, 100 * MINUTE, funding=False)
    plan = a_plan(gaps, quantity, naked)

    skipped, ours, player = run(tape, tiers, plan, stepping=False, latency=latency)
    stepped, theirs, stepper = run(tape, tiers, plan, stepping=True, latency=latency)

    assert compare(skipped, stepped) == ""
    for name, component in ours.items():
        assert msgspec.json.encode(component.state) == msgspec.json.encode(theirs[name].state)
    assert player.deliveries <= stepper.deliveries
