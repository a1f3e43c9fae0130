"""The one table of who tells whom, held against what every component's signature says."""

from collections.abc import Iterable, Iterator
from typing import Never

import pytest

from hean.component import says, takes
from hean.errors import ContractError
from hean.execution.broker import Broker
from hean.execution.simulated_venue import SimulatedVenue
from hean.messages import (
    AmendOrder,
    Bar,
    CancelAll,
    CancelOrder,
    ErrorReported,
    Fact,
    FeedStale,
    KillSwitchTripped,
    OrderAmended,
    OrderOutcomeUnknown,
    Quote,
    ReconcileDue,
    Signal,
    SignalRefused,
    SnapshotAccount,
    SubmitOrder,
    Trade,
    Wake,
)
from hean.monitor import Monitor
from hean.portfolio.portfolio import Portfolio
from hean.processes.smoke_test import SmokeTest
from hean.reconcile.reconciler import Reconciler
from hean.risk.manager import RiskManager
from hean.strategies.basis_arbitrage import BasisArbitrage
from hean.strategies.funding_harvester import FundingHarvester
from hean.strategies.impulse import ImpulseEngine
from hean.topology import ANY, ROUTES, Node, Route, Topology, faults, mermaid


class LiveVenue:
    """What Bybit's gateway takes and may say, and our own venue never does: the venue may not answer at all."""

    def handle(
        self, message: SubmitOrder | AmendOrder | CancelOrder | CancelAll | SnapshotAccount, now: int
    ) -> Iterator[OrderOutcomeUnknown | OrderAmended | ErrorReported | ReconcileDue]: ...


ROLES = {
    "venue": [SimulatedVenue, LiveVenue],
    "broker": [Broker],
    "risk": [RiskManager],
    "portfolio": [Portfolio],
    "reconciler": [Reconciler],
    "monitor": [Monitor],
    "strategy": [ImpulseEngine, FundingHarvester, BasisArbitrage],
    "process": [SmokeTest],
}


class Teller:
    def handle(self, message: Bar | Wake, now: int) -> Iterator[SubmitOrder | SignalRefused]: ...


class Hearer:
    def handle(self, message: SubmitOrder | SignalRefused, now: int) -> Iterator[Never]: ...


class Watcher:
    def handle(self, message: Fact, now: int) -> Iterable[Never]: ...


SMALL = {"teller": [Teller], "hearer": [Hearer], "monitor": [Watcher]}
SOUND = (
    Route("feed", (Bar, Quote), "teller", optional=True),
    Route("teller", (SubmitOrder, SignalRefused), "hearer"),
    Route(ANY, (Fact,), "monitor", optional=True),
)


def test_the_table_and_the_signatures_agree():
    assert faults(ROUTES, ROLES) == []


def test_a_sound_table_has_no_faults():
    assert faults(SOUND, SMALL) == []


def test_what_is_sent_must_be_taken():
    routes = (*SOUND, Route("feed", (Trade,), "hearer"))
    assert faults(routes, SMALL) == ["feed sends Trade to hearer, and Hearer does not take it"]


def test_what_the_table_sends_must_be_said():
    class Wide:
        def handle(self, message: SubmitOrder | SignalRefused | CancelOrder, now: int) -> Iterator[Never]: ...

    routes = (*SOUND, Route("teller", (CancelOrder,), "hearer"))
    found = faults(routes, SMALL | {"hearer": [Wide]})
    assert found == ["teller sends CancelOrder to hearer, and Teller never says it"]


def test_what_is_said_must_have_somebody_to_hear_it():
    routes = (SOUND[0], Route("teller", (SignalRefused,), "hearer"), SOUND[2])
    assert faults(routes, SMALL) == [
        "Teller says SubmitOrder, and nobody is told",
        "Hearer takes SubmitOrder, and nobody sends it to hearer",
    ]


def test_the_monitor_hearing_every_fact_is_no_excuse_for_one_meant_for_somebody():
    class Deaf:
        def handle(self, message: SubmitOrder, now: int) -> Iterator[Never]: ...

    routes = (SOUND[0], Route("teller", (SubmitOrder,), "hearer"), SOUND[2])
    found = faults(routes, SMALL | {"hearer": [Deaf]})
    assert found == ["Teller says SignalRefused, and nobody but the monitor is told"]


def test_a_fact_for_people_alone_needs_nobody_but_the_monitor():
    class Alarm:
        def handle(self, message: Bar, now: int) -> Iterator[KillSwitchTripped]: ...

    assert faults((SOUND[0], SOUND[2]), {"teller": [Alarm], "monitor": [Watcher]}) == []


def test_what_is_taken_must_be_sent_by_somebody():
    class Curious:
        def handle(self, message: SubmitOrder | SignalRefused | FeedStale, now: int) -> Iterator[Never]: ...

    found = faults(SOUND, SMALL | {"hearer": [Curious]})
    assert found == ["Curious takes FeedStale, and nobody sends it to hearer"]


def test_nobody_may_be_told_the_same_twice():
    routes = (*SOUND, Route("teller", (SubmitOrder,), "hearer"))
    assert faults(routes, SMALL) == ["teller sends SubmitOrder to hearer twice"]


@pytest.mark.parametrize(
    "handle",
    [
        lambda self, message, now: (),
        None,
    ],
    ids=["no annotations", "no handle"],
)
def test_a_signature_that_does_not_say_what_it_means_is_an_error(handle):
    component = type("Mute", (), {"handle": handle} if handle else {})
    with pytest.raises(ContractError, match=r"Mute\.handle"):
        takes(component)


def test_a_component_that_says_nothing_says_so():
    assert says(Monitor) == frozenset()
    assert takes(Monitor) == {Fact}


def test_every_fact_reaches_the_monitor_once_and_nothing_reaches_its_sender():
    nodes = tuple(Node(role if role != "strategy" else "impulse", role) for role in ROLES)
    topology = Topology(nodes)
    for node in nodes:
        for component in ROLES[node.role]:
            for kind in says(component):
                hearers = [hearer.name for hearer, _ in topology.receivers(node, kind)]
                assert len(hearers) == len(set(hearers))
                assert node.name not in hearers
                assert ("monitor" in hearers) == issubclass(kind, Fact)


def test_an_order_reaches_the_venue_by_way_of_risk_and_broker_alone():
    senders = {(route.source, route.to) for route in ROUTES if SubmitOrder in route.sends}
    assert senders == {("risk", "broker"), ("broker", "venue"), ("process", "risk")}
    assert {(route.source, route.to) for route in ROUTES if Signal in route.sends} == {("strategy", "risk")}


def test_the_diagram_has_one_arrow_for_each_who_tells_whom():
    first, *arrows = mermaid().splitlines()
    assert first == "flowchart LR"
    drawn = [(arrow.split('"')[0].strip(" -"), arrow.split('"')[2].removeprefix(" --> ")) for arrow in arrows]
    assert sorted(drawn) == sorted({(route.source, route.to) for route in ROUTES if route.source != ANY})
    words = {word for arrow in arrows for word in arrow.split('"')[1].split("<br/>")}
    assert {"SubmitOrder", "Signal", "VerifyFlat", "PositionChanged"} <= words
