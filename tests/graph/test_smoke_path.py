"""The smoke test on the way every order goes: by risk and broker to a venue, in one dispatcher."""

from decimal import Decimal

from hean.dispatcher import Dispatcher
from hean.execution.broker import Broker, BrokerConfig
from hean.execution.simulated_venue import SimulatedVenue, SimulatedVenueConfig, Tier
from hean.messages import (
    CancelOrder,
    Envelope,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderSubmitted,
    ProcessFinished,
    Quote,
    Side,
    SignalRefused,
    SubmitOrder,
    TimeInForce,
)
from hean.processes.smoke_test import SmokeTest, SmokeTestConfig
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.manager import RiskManager
from hean.topology import Node, Topology
from hean.units import SECOND
from tests.graph.house import BTC, CAPITAL, INSTRUMENTS, START

D = Decimal
WATCHES = frozenset({(BTC, Quote)})
BID = 60_000.0


class Path:
    def __init__(self, strategies=(), **config):
        nodes = (
            Node("venue", "venue", WATCHES),
            Node("broker", "broker", WATCHES),
            Node("risk", "risk"),
            Node("smoke", "process"),
        )
        rules = {BTC: INSTRUMENTS[BTC]}
        config = {"run_id": "r/probe/1", "order_id": "smoke-r-1", "reference": D(BID), "amends": False} | config
        self.parts = {
            "venue": SimulatedVenue(SimulatedVenueConfig(balances={"USDT": CAPITAL}), rules, {BTC: Tier.BOOK}, WATCHES),
            "broker": Broker(BrokerConfig(), rules, WATCHES),
            "risk": RiskManager(RiskConfig(reconciler=True), rules, dict.fromkeys(strategies, StrategyLimits()), "t"),
            "smoke": SmokeTest(SmokeTestConfig(**config), rules[BTC]),
        }
        self.log = []
        self.dispatcher = Dispatcher(Topology(nodes), self.parts, log=self.log.append)
        self.now = START

    def quote(self, bid):
        row = Quote(BTC, self.now, bid, 5.0, bid + 0.1, 5.0)
        self.dispatcher.tell("venue", Envelope("feed", self.now, self.now, "", "", row), self.now)

    def run(self, until_s=60):
        """Let time go on from one thing that is due to the next."""
        ends = self.now + until_s * SECOND
        while True:
            due = {name: at for name, part in self.parts.items() if (at := part.wake_at()) is not None}
            name = min(due, key=due.__getitem__, default=None)
            if name is None or due[name] > ends:
                return
            self.now = max(self.now, due[name])
            self.dispatcher.wake(self.dispatcher.hosts[name], self.now)

    def said(self, source, *kinds):
        return [one.message for one in self.log if one.source == source and isinstance(one.message, kinds)]


def test_an_order_goes_there_and_back_and_leaves_nothing_open():
    path = Path()
    path.quote(BID)
    path.run()
    facts = path.said("broker", OrderSubmitted, OrderAccepted, OrderCanceled, OrderFilled)
    assert [type(one) for one in facts] == [OrderSubmitted, OrderAccepted, OrderCanceled]
    (finished,) = path.said("smoke", ProcessFinished)
    assert finished.outcome == "completed", finished
    assert list(finished.report) == ["rules", "sent", "acknowledged", "amended", "canceled"]
    assert path.parts["broker"].state.open == {}
    assert path.parts["risk"].state.orders == {}
    assert path.parts["smoke"].wake_at() is None


def test_a_second_attempt_calls_the_order_of_the_first_back():
    path = Path(order_id="smoke-r-2", earlier=("smoke-r-1",))
    path.quote(BID)
    left = SubmitOrder(
        client_order_id="smoke-r-1",
        strategy="smoke",
        instrument=BTC,
        side=Side.BUY,
        quantity=D("0.002"),
        limit=D(54_000),
        time_in_force=TimeInForce.POST_ONLY,
        reduce_only=False,
        reference=None,
        bracket=None,
    )
    path.dispatcher.tell("risk", Envelope("smoke", 1, path.now, "", "", left), path.now)
    path.run()
    gone = [one.client_order_id for one in path.said("broker", OrderCanceled)]
    assert sorted(gone) == ["smoke-r-1", "smoke-r-2"]
    assert path.parts["broker"].state.open == {}


def test_what_risk_refuses_is_told_and_nothing_is_sent():
    path = Path(strategies=("smoke",))  # a strategy of that name has no orders of its own
    path.run()
    (finished,) = path.said("smoke", ProcessFinished)
    assert finished.outcome.startswith("failed: risk refused: ")
    assert path.said("risk", SignalRefused)
    assert path.said("broker", SubmitOrder, CancelOrder) == []
