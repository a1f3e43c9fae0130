"""Who sends which message to whom: the whole system on one page, and the only place where it is written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from hean.component import says, takes
from hean.messages import (
    AccountSnapshot,
    AdjustBooks,
    AmendOrder,
    Bar,
    BarOpened,
    BookLevels,
    BooksAdjusted,
    CancelAll,
    CancelOrder,
    CancelProcess,
    CapitalAllocated,
    Discrepancy,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    Fact,
    FeedLive,
    FeedStale,
    FundingRate,
    FundingSettled,
    InterestCharged,
    KillSwitchReset,
    KillSwitchTripped,
    MarkPrice,
    Message,
    NodeFailed,
    NodeStarted,
    Observation,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSent,
    OrdersRestated,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    PremiumIndex,
    ProcessFinished,
    ProfitsStated,
    PullKillSwitch,
    Quote,
    ReconcileCompleted,
    ReconcileDue,
    Signal,
    SignalRefused,
    SnapshotAccount,
    StartTrading,
    StopTrading,
    StrategySwitched,
    SubmitOrder,
    SubmitPair,
    SwitchStrategy,
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
    Route("feed",       (FeedStale, FeedLive, ErrorReported),     "risk"),
    Route("strategy",   (Signal, CancelOrder),                    "risk",       optional=True),
    Route("risk",       (SignalRefused,),                         "strategy",   owner, optional=True),
    Route("risk",       (SubmitOrder, SubmitPair, AmendOrder, CancelOrder, CancelAll), "broker"),
    Route("risk",       (TradingStateChanged,),                   "broker"),
    Route("risk",       (VerifyFlat,),                            "reconciler"),
    Route("broker",     (SubmitOrder, CancelOrder),               "venue"),
    Route("broker",     (AmendOrder, CancelAll),                  "venue",      optional=True),
    Route("broker",     (OrdersRestated,),                        "risk"),
    Route("broker",     (OrdersRestated,),                        "reconciler"),
    Route("venue",      VENUE_FACTS,                              "broker"),
    Route("venue",      (OrderAmended,),                          "broker",     optional=True),
    Route("venue",      (FundingSettled, InterestCharged),        "portfolio"),
    Route("venue",      (FundingSettled, InterestCharged),        "reconciler"),
    Route("venue",      (ErrorReported,),                         "risk",       optional=True),
    Route("venue",      (ReconcileDue,),                          "reconciler", optional=True),
    Route("broker",     (OrderFilled,),                           "portfolio"),
    Route("broker",     (*VENUE_FACTS, OrderAmended, PairFinished), "risk"),
    Route("broker",     (OrderSubmitted, *VENUE_FACTS, PairFinished), "strategy", owner, optional=True),
    Route("broker",     (OrderSubmitted, OrderAmended, *VENUE_FACTS), "reconciler"),
    Route("portfolio",  (PositionChanged,),                       "strategy",   owner, optional=True),
    Route("portfolio",  (PositionChanged, EquityChanged),         "risk"),
    Route("portfolio",  (PositionChanged, EquityChanged, BooksAdjusted), "reconciler"),
    Route("reconciler", (SnapshotAccount,),                       "venue"),
    Route("reconciler", (AdjustBooks,),                           "portfolio"),
    Route("venue",      (AccountSnapshot,),                       "reconciler"),
    Route("reconciler", (Discrepancy, ReconcileCompleted),        "risk"),
    Route("factory",    (CapitalAllocated,),                      "risk"),
    Route("process",    (SubmitOrder, AmendOrder, CancelOrder),   "risk",       optional=True),
    Route("risk",       (SignalRefused,),                         "process",    owner, optional=True),
    Route("broker",     (OrderSubmitted, OrderAmended, *VENUE_FACTS), "process", owner, optional=True),
    Route("process",    (ProcessFinished,),                       "factory"),
    Route("factory",    (CancelProcess,),                         "process",    optional=True),
    Route("engine",     (EpochBegan, StartTrading, StopTrading, SwitchStrategy, PullKillSwitch, KillSwitchReset, NodeFailed, ErrorReported), "risk"),
    Route("engine",     (ReconcileDue,),                          "reconciler"),
    Route("engine",     (NodeStarted,),                           "portfolio"),
    Route("engine",     (NodeStarted,),                           "broker"),
    Route(ANY,          (Fact,),                                  "monitor",    optional=True),
)  # fmt: skip

EXTERNAL = frozenset({"feed", "engine", "factory"})
"""Roles that are not components: what they send is checked against the receivers alone."""

FOR_PEOPLE = frozenset({KillSwitchTripped, OrderSent, ProfitsStated, StrategySwitched})
"""Facts said to be seen from outside: nobody but the monitor need hear them."""


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
    return [
        *_not_taken(routes, roles),
        *_never_said(routes, roles),
        *_said_to_nobody(routes, roles),
        *_never_sent(routes, roles),
        *_told_twice(routes),
    ]


def _not_taken(routes: Sequence[Route], roles: Mapping[str, Iterable[object]]) -> Iterator[str]:
    for route in routes:
        if not route.optional:
            for receiver in roles.get(route.to, ()):
                for kind in route.sends:
                    if kind not in takes(receiver):
                        yield f"{route.source} sends {kind.__name__} to {route.to}, and {_name(receiver)} does not take it"


def _never_said(routes: Sequence[Route], roles: Mapping[str, Iterable[object]]) -> Iterator[str]:
    """The occupants of a role may differ in what they say: one of them must say it."""
    for route in routes:
        senders = list(roles.get(route.source, ()))
        if senders and not route.optional:
            for kind in route.sends:
                if not any(kind in says(sender) for sender in senders):
                    names = ", ".join(_name(sender) for sender in senders)
                    yield f"{route.source} sends {kind.__name__} to {route.to}, and {names} never says it"


def _said_to_nobody(routes: Sequence[Route], roles: Mapping[str, Iterable[object]]) -> Iterator[str]:
    """What every role tells the monitor counts for nothing here, or no fact could ever be said in vain."""
    for role, components in roles.items():
        meant = [kind for route in routes if route.source == role for kind in route.sends]
        heard = [kind for route in routes if route.source == ANY for kind in route.sends]
        for component in components:
            for kind in sorted(says(component), key=lambda kind: kind.__name__):
                if not issubclass(kind, tuple(meant)) and not (kind in FOR_PEOPLE and issubclass(kind, tuple(heard))):
                    alone = "nobody but the monitor is told" if issubclass(kind, tuple(heard)) else "nobody is told"
                    yield f"{_name(component)} says {kind.__name__}, and {alone}"


def _never_sent(routes: Sequence[Route], roles: Mapping[str, Iterable[object]]) -> Iterator[str]:
    for role, components in roles.items():
        sent = [kind for route in routes if route.to == role for kind in route.sends]
        for component in components:
            for kind in sorted(takes(component), key=lambda kind: kind.__name__):
                if kind is not Wake and not any(issubclass(kind, one) or issubclass(one, kind) for one in sent):
                    yield f"{_name(component)} takes {kind.__name__}, and nobody sends it to {role}"


def _told_twice(routes: Sequence[Route]) -> Iterator[str]:
    for index, route in enumerate(routes):
        for other in routes[index + 1 :]:
            if route.to == other.to and (route.source == other.source or ANY in {route.source, other.source}):
                for kind in route.sends:
                    if issubclass(kind, other.sends) or any(issubclass(sent, kind) for sent in other.sends):
                        yield f"{route.source} sends {kind.__name__} to {route.to} twice"


def mermaid(routes: Sequence[Route] = ROUTES) -> str:
    """The table as a Mermaid flow chart, for the README: one arrow from each role to each other."""
    said: dict[tuple[str, str], list[str]] = {}
    for route in routes:
        if route.source != ANY:
            words = said.setdefault((route.source, route.to), [])
            words += [word for word in _in_words(route.sends) if word not in words]
    arrows = [f'    {source} -- "{"<br/>".join(words)}" --> {to}' for (source, to), words in said.items()]
    return "\n".join(["flowchart LR", *arrows])


def _in_words(kinds: Sequence[type[Message]]) -> list[str]:
    """The names of messages, with the market and the life of an order as one word each."""
    found = []
    for name, group in (("the market", MARKET), ("order facts", VENUE_FACTS)):
        if set(group) <= set(kinds):
            found.append(name)
            kinds = [kind for kind in kinds if kind not in group]
    return found + [kind.__name__ for kind in kinds if kind is not OrderSubmitted or "order facts" not in found]


def _name(component: object) -> str:
    return getattr(component, "__name__", type(component).__name__)
