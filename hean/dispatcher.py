"""Runs the components it hosts, and hands back what is addressed to others."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Never

from hean.component import says, takes
from hean.errors import ContractError
from hean.messages import Envelope, Message, Signal, Wake
from hean.topology import Node, Topology, owner


class Host:
    """One hosted component, and what the dispatcher must know of it."""

    __slots__ = ("before", "component", "handle", "node", "plans", "says", "seq", "source", "touched")

    def __init__(self, node: Node, component: Any, incarnation: int) -> None:
        self.node = node
        self.component = component
        self.handle = component.handle
        self.says: tuple[type[Message], ...] | None = None
        self.source = f"{node.name}@{incarnation}" if incarnation else node.name
        self.seq = 0
        self.plans: dict[type[Message], _Plan] = {}
        self.touched = False
        self.before: Callable[[Host], None] | None = None


class _Plan:
    """Who hears one kind of message from one host: the same for all, or by the strategy it is about.

    `signed` where every such message must bear the name of the node that says it.
    """

    __slots__ = ("by_strategy", "outward", "rest", "signed")

    def __init__(self, *, signed: bool) -> None:
        self.signed = signed
        self.by_strategy: dict[str, tuple[Host, ...]] | None = None
        self.rest: tuple[Host, ...] = ()
        self.outward: tuple[tuple[Node, Any], ...] = ()


class Dispatcher:
    """Delivers messages among the components it hosts, first said first heard, until nobody has more to say.

    Args:
        topology: The nodes of the run and the routes between them.
        components: The component of each node hosted here, by the node's name.
        incarnation: The life this is, as the engine counts them; part of every id said here.
        log: Called with every envelope said, in order; None to keep none.
    """

    def __init__(
        self,
        topology: Topology,
        components: Mapping[str, Any],
        *,
        incarnation: int = 0,
        log: Callable[[Envelope], None] | None = None,
    ) -> None:
        self.topology = topology
        self.log = log
        self._queue: deque[tuple[Host, Envelope]] = deque()
        self.touched: list[Host] = []
        self.hosts = {
            node.name: Host(node, components[node.name], incarnation)
            for node in topology.nodes
            if node.name in components
        }
        unknown = set(components) - set(self.hosts)
        if unknown:
            raise ContractError(f"no node of the topology is called {', '.join(sorted(unknown))}")
        self._takes = {name: takes(host.component) for name, host in self.hosts.items()}

    def tell(self, name: str, envelope: Envelope, now: int) -> list[tuple[Node, Envelope]]:
        """Tell one hosted node, and everyone here who hears of what follows.

        Returns:
            What is addressed to nodes that are not hosted here, in the order it was said.
        """
        return self.tell_host(self.hosts[name], envelope, now)

    def wake(self, host: Host, now: int) -> list[tuple[Node, Envelope]]:
        """Tell a host that the time it asked for has come."""
        return self.tell_host(host, _envelope_of(host.source, _WAKE, now), now)

    def warm(self, host: Host, message: Message, now: int) -> None:
        """Let a host take a message in, and hear nothing of what it says."""
        said: Iterable[Message] = ()
        try:
            said = host.handle(message, now)
            list(said)
        except BaseException as error:
            _must_be_messages(host, message, said, error)
            raise

    def tell_host(self, host: Host, envelope: Envelope, now: int) -> list[tuple[Node, Envelope]]:
        outward: list[tuple[Node, Envelope]] = []
        answers: Any = ()
        queue = self._queue
        log = self.log
        touched = self.touched
        try:
            while True:
                if host.before is not None:
                    host.before(host)
                if not host.touched:
                    host.touched = True
                    touched.append(host)
                # Collected before anything is sent: if it raises half-way, nothing leaves.
                answers = host.handle(envelope.message, now)
                said = list(answers)
                if said:
                    source, seq, plans = host.source, host.seq, host.plans
                    cause = f"{envelope.source}:{envelope.seq}"
                    trace = envelope.trace or cause
                    seen = envelope.ts_seen
                    for message in said:
                        plan = plans.get(type(message))
                        if plan is None:
                            plan = plans[type(message)] = self._plan(host, type(message))
                        if plan.signed and message.strategy != host.node.name:
                            _refuse_name(host, message.strategy)
                        seq += 1
                        answer = Envelope(source, seq, now, trace, cause, message, seen)
                        if log is not None:
                            log(answer)
                        hearers = plan.rest
                        if plan.by_strategy is not None:
                            hearers = plan.by_strategy.get(message.strategy, hearers)
                        for hearer in hearers:
                            queue.append((hearer, answer))
                        if plan.outward:
                            outward += [
                                (node, answer) for node, only in plan.outward if only is None or only(message, node)
                            ]
                    host.seq = seq
                if not queue:
                    return outward
                host, envelope = queue.popleft()
        except BaseException as error:
            queue.clear()
            _must_be_messages(host, envelope.message, answers, error)
            raise

    def _plan(self, host: Host, kind: type[Message]) -> _Plan:
        if host.says is None:
            host.says = tuple(says(host.component))
        if not issubclass(kind, host.says):
            promised = ", ".join(sorted(one.__name__ for one in host.says)) or "nothing"
            raise ContractError(f"{host.node.name} says {kind.__name__}, and its handle is annotated to say {promised}")
        plan = _Plan(signed=host.node.role == "strategy" and issubclass(kind, Signal))
        here: list[tuple[Host, bool]] = []
        outward = []
        for node, only in self.topology.receivers(host.node, kind):
            hearer = self.hosts.get(node.name)
            if hearer is None:
                outward.append((node, only))
            elif any(issubclass(kind, taken) for taken in self._takes[node.name]):
                here.append((hearer, only is owner))
        plan.outward = tuple(outward)
        plan.rest = tuple(hearer for hearer, owned in here if not owned)
        if any(owned for _, owned in here):
            names = {hearer.node.name for hearer, owned in here if owned}
            plan.by_strategy = {
                name: tuple(hearer for hearer, owned in here if not owned or hearer.node.name == name) for name in names
            }
        return plan


def _envelope_of(source: str, message: Message, now: int) -> Envelope:
    """What nobody said and no log has: a word of the machinery itself."""
    return Envelope(source=source, seq=0, ts_init=now, trace="", cause="", message=message)


def _refuse_name(host: Host, name: str) -> Never:
    raise ContractError(f"{host.node.name} signs a Signal as {name!r}: let it say config.name")


def _must_be_messages(host: Host, message: Message, answers: object, error: BaseException) -> None:
    """Say in words what Python says of `list(None)`.

    Raises:
        ContractError: what `handle` returned cannot be gone through.
    """
    if not isinstance(answers, Iterable):
        what = "None" if answers is None else f"a {type(answers).__name__}"
        raise ContractError(
            f"{host.node.name} returned {what} from handle({type(message).__name__}): "
            "yield the messages, or return a sequence of them, such as ()"
        ) from error


_WAKE = Wake()
