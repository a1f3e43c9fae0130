"""Who sends which message to whom: the whole system on one page, and the only place where it is written."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from hean.component import says, takes
from hean.messages import (
    AccountSnapshot,
    Bar,
    BarOpened,
    BookLevels,
    CancelAll,
    CancelOrder,
    CapitalAllocated,
    Discrepancy,
    EquityChanged,
    ErrorReported,
    Fact,
    FeedLive,
    FeedStale,
    FundingRate,
    FundingSettled,
    InterestCharged,
    KillSwitchReset,
    MarkPrice,
    Message,
    NodeFailed,
    NodeStarted,
    Observation,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    PremiumIndex,
    Quote,
    ReconcileCompleted,
    Signal,
    SignalRefused,
    SnapshotAccount,
    StartTrading,
    StopTrading,
    SubmitOrder,
    SubmitPair,
    Trade,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)

ANY = "any"
"""Stands for every role."""

VENUE_FACTS = (OrderAccepted, OrderRejected, OrderOutcomeUnknown, OrderFilled, OrderCanceled, OrderExpired)
MARKET = (Trade, Quote, BookLevels, Bar, FundingRate, MarkPrice, PremiumIndex)


class Node(Struct, frozen=True):
    """An occupant of a role. A strategy's node has the strategy's name; `watches` says what it sees of the market."""

    name: str
    role: str
    watches: frozenset[tuple[str, type[Observation]]] = frozenset()


Predicate = Callable[[Any, Node], bool]


def subscriber(message: Any, node: Node) -> bool:
    """The node watches this kind of observation of this instrument."""
    return (message.instrument, type(message)) in node.watches


def owner(message: Any, node: Node) -> bool:
    """The message is about the node's own strategy."""
    return bool(message.strategy == node.name)


class Route(Struct, frozen=True):
    """One row of the table. Where `optional`, the receiver takes what it has a use for: strategies differ."""

    source: str
    sends: tuple[type[Message], ...]
    to: str
    only: Predicate | None = None
    optional: bool = False


ROUTES = (
    #     from          sends                                     to            only
    # The order of the first four is the order in which a row of the tape is told.
    Route("feed",       (*MARKET, BarOpened),                     "venue",      subscriber, optional=True),
    Route("feed",       MARKET,                                   "portfolio",  subscriber, optional=True),
    Route("feed",       MARKET,                                   "broker",     subscriber, optional=True),
    Route("feed",       MARKET,                                   "strategy",   subscriber, optional=True),
    Route("feed",       (FeedStale, FeedLive),                    "risk"),
    Route("strategy",   (Signal, CancelOrder),                    "risk",       optional=True),
    Route("risk",       (SignalRefused,),                         "strategy",   owner, optional=True),
    Route("risk",       (SubmitOrder, SubmitPair, CancelOrder, CancelAll), "broker"),
    Route("risk",       (TradingStateChanged,),                   "broker"),
    Route("risk",       (VerifyFlat,),                            "reconciler"),
    Route("broker",     (SubmitOrder, CancelOrder),               "venue"),
    Route("venue",      VENUE_FACTS,                              "broker"),
    Route("venue",      (FundingSettled, InterestCharged),        "portfolio"),
    Route("broker",     (OrderFilled,),                           "portfolio"),
    Route("broker",     (*VENUE_FACTS, PairFinished),             "risk"),
    Route("broker",     (OrderSubmitted, *VENUE_FACTS, PairFinished), "strategy", owner, optional=True),
    Route("broker",     (OrderSubmitted, *VENUE_FACTS),           "reconciler"),
    Route("portfolio",  (PositionChanged,),                       "strategy",   owner, optional=True),
    Route("portfolio",  (PositionChanged, EquityChanged),         "risk"),
    Route("portfolio",  (PositionChanged,),                       "reconciler"),
    Route("reconciler", (SnapshotAccount,),                       "venue"),
    Route("venue",      (AccountSnapshot,),                       "reconciler"),
    Route("reconciler", (Discrepancy, ReconcileCompleted),        "risk"),
    Route("factory",    (CapitalAllocated,),                      "risk"),
    Route("engine",     (StartTrading, StopTrading, KillSwitchReset, NodeFailed, ErrorReported), "risk"),
    Route("engine",     (NodeStarted,),                           "portfolio"),
    Route(ANY,          (Fact,),                                  "monitor",    optional=True),
)  # fmt: skip

EXTERNAL = frozenset({"feed", "engine", "factory"})
"""Roles that are not components: what they send is checked against the receivers alone."""


class Topology(Struct, frozen=True):
    """The routes, and the nodes that occupy the roles of one run."""

    nodes: tuple[Node, ...]
    routes: tuple[Route, ...] = ROUTES

    def receivers(self, source: Node, kind: type[Message]) -> list[tuple[Node, Predicate | None]]:
        """Who is told a message of this kind from this node, in the order of the routes."""
        return [
            (node, route.only)
            for route in self.routes
            if route.source in {source.role, ANY} and any(issubclass(kind, sent) for sent in route.sends)
            for node in self.nodes
            if node.role == route.to and node is not source
        ]


def faults(routes: Sequence[Route], roles: Mapping[str, Iterable[object]]) -> list[str]:
    """Every disagreement between the table and the signatures, in words. None is what the suite asserts.

    Args:
        routes: The table.
        roles: The component classes that may occupy each role.
    """
    found = []
    for route in routes:
        for receiver in roles.get(route.to, ()):
            taken = takes(receiver)
            name = _name(receiver)
            if not route.optional:
                found += [
                    f"{route.source} sends {kind.__name__} to {route.to}, and {name} does not take it"
                    for kind in route.sends
                    if kind not in taken
                ]
        if route.source in EXTERNAL or route.source == ANY or route.optional:
            continue
        for sender in roles.get(route.source, ()):
            said = says(sender)
            found += [
                f"the table has {route.source} send {kind.__name__} to {route.to}, and {_name(sender)} never says it"
                for kind in route.sends
                if kind not in said
            ]
    for role, components in roles.items():
        for component in components:
            routed = [route for route in routes if route.source in {role, ANY}]
            found += [
                f"{_name(component)} says {kind.__name__}, and nobody is told"
                for kind in says(component)
                if not any(issubclass(kind, sent) for route in routed for sent in route.sends)
            ]
            sent_here = [kind for route in routes if route.to == role for kind in route.sends]
            found += [
                f"{_name(component)} takes {kind.__name__}, and nobody sends it to {role}"
                for kind in takes(component)
                if kind is not Wake and not any(issubclass(kind, sent) or issubclass(sent, kind) for sent in sent_here)
            ]
    return found


def mermaid(routes: Sequence[Route] = ROUTES) -> str:
    """The table as a Mermaid flow chart, for the README."""
    lines = ["flowchart LR"]
    for route in routes:
        if route.source != ANY:
            kinds = "<br/>".join(kind.__name__ for kind in route.sends)
            lines.append(f'    {route.source} -- "{kinds}" --> {route.to}')
    return "\n".join(lines)


def _name(component: object) -> str:
    return getattr(component, "__name__", type(component).__name__)
