"""Plays a tape through one dispatcher, told only where somebody may speak.

A component that observes the tape answers the first row at which it may say something. The next step is
the earliest of those answers and of the times asked for; all rows before it are folded in silence.
What is said is the same, to the byte, as when every row is told to everyone: `stepping=True` does that,
and the suite compares the two.

Order within a step: the receivers of a row are told one after another, in the order of the routes,
and what each says is carried through before the next hears the row. The rows of an instant come before the
`Wake`s of that instant.
"""

from collections.abc import Callable
from typing import Any

from hean.component import Observer, takes
from hean.dispatcher import Dispatcher, Host
from hean.errors import ContractError
from hean.messages import Envelope, Message
from hean.tape import Stream, Tape
from hean.topology import Node, Topology

RESTLESS = 1_000
"""Wakes of one component within one instant after which it is taken to be asking for ever."""


class _Watch:
    """What the player knows of one component that observes the tape."""

    __slots__ = ("answer", "ask", "cursor", "host", "order", "rows", "searched", "skip")

    def __init__(self, host: Host, order: int, rows: list[Stream], *, stepping: bool) -> None:
        self.host = host
        self.order = order
        self.rows = rows
        self.cursor = 0  # rows before this are handled or folded
        self.searched = 0  # rows before this are known to leave it silent
        self.answer = -1  # the row it answered, where it has
        self.ask: Callable[[Tape, int, int], int] = self.next_row
        self.skip: Callable[[Tape, int, int], None] | None = None
        if isinstance(host.component, Observer):
            self.skip = host.component.skip
            if not stepping:
                self.ask = host.component.quiet_until

    def next_row(self, _: Tape, start: int, stop: int) -> int:
        """The next row it watches: for a component that is told every one of them."""
        for stream in self.rows:
            row = stream.rows_before(start)
            if row < len(stream):
                stop = min(stop, stream.position(row))
        return stop


class Player:
    """One tape, one dispatcher, and where the two stand.

    Args:
        dispatcher: Hosts every component.
        topology: Says who watches what; the order of its nodes is the order within a route.
        tape: The market.
        stepping: Tell every row to everyone who watches it.
    """

    def __init__(self, dispatcher: Dispatcher, topology: Topology, tape: Tape, *, stepping: bool = False) -> None:
        self._dispatcher = dispatcher
        self._tape = tape
        self._stepping = stepping
        self.deliveries = 0
        self.position = 0
        self._turn = -1
        self._wakes: dict[Host, int] = {}
        feed = Node("feed", "feed")
        watches: dict[str, _Watch] = {}
        self._hearers: list[list[_Watch]] = []
        for stream in tape.streams:
            hearers = []
            for node, only in topology.receivers(feed, stream.kind):
                host = dispatcher.hosts.get(node.name)
                if host is None or stream.kind not in takes(host.component):
                    continue
                if only is not None and (stream.instrument, stream.kind) not in node.watches:
                    continue
                watch = watches.get(node.name)
                if watch is None:
                    watch = watches[node.name] = _Watch(host, 0, [], stepping=stepping)
                watch.rows.append(stream)
                hearers.append(watch)
            self._hearers.append(hearers)
        roles = [route.to for route in topology.routes if route.source == "feed"]
        ordered = sorted(watches.values(), key=lambda watch: roles.index(watch.host.node.role))
        for order, watch in enumerate(ordered):
            watch.order = order
            watch.host.before = self._catcher(watch)
        for hearers in self._hearers:
            hearers.sort(key=lambda watch: watch.order)
        self._watches = ordered

    def tell(self, name: str, message: Message, now: int, *, source: str = "engine", seq: int = 0) -> None:
        """Tell a node something from outside: the engine's word."""
        self._dispatcher.tell(name, Envelope(source, seq, now, "", "", message), now)
        self._settle()

    def warm_up(self, position: int) -> None:
        """Take the rows before a position in without letting anybody speak.

        An observer folds them; any other component handles them and is not heard.
        """
        for watch in self._watches:
            if watch.skip is not None:
                watch.skip(self._tape, watch.cursor, position)
            else:
                now = 0
                row = watch.next_row(self._tape, watch.cursor, position)
                while row < position:
                    stream, at = self._tape.at(row)
                    now = self._tape.ts_at(row)
                    self._dispatcher.warm(watch.host, stream.message(at), now)
                    row = watch.next_row(self._tape, row + 1, position)
            watch.cursor = watch.searched = position
            watch.answer = -1
        self.position = position

    def play(self, stop: int | None = None) -> None:
        """Play the rows before `stop`, or all there are, with every time asked for among them."""
        tape = self._tape
        end = tape.size if stop is None else stop
        last_ts = tape.ts_at(end - 1) if end else 0
        if 0 < end < tape.size and tape.ts_at(end) == last_ts:
            last_ts -= 1  # the rows of an instant precede its wakes, and some are still to come
        self._settle()
        while True:
            wake = min(self._wakes.values(), default=None)
            best = end
            if wake is not None and wake <= last_ts:
                best = min(end, tape.after(wake))
            else:
                wake = None
            for watch in self._watches:
                answer = watch.answer
                if answer < 0:
                    start = watch.searched
                    if start >= best:
                        continue
                    answer = watch.ask(tape, start, best)
                    if answer >= best:
                        watch.searched = best
                        continue
                    watch.answer = watch.searched = answer
                if answer < best:  # noqa: PLR1730 (a comparison costs a tenth of a call)
                    best = answer
            if best < end and (wake is None or tape.ts_at(best) <= wake):
                self._row(best)
            elif wake is not None:
                self._wake(wake, end)
            else:
                break
            self._settle()
        self.position = end
        for watch in self._watches:
            # Whoever looks at a state now sees it as of the end.
            if watch.cursor < end:
                if watch.skip is not None:
                    watch.skip(tape, watch.cursor, end)
                watch.cursor = end
                watch.searched = max(watch.searched, end)

    def _row(self, position: int) -> None:
        tape = self._tape
        stream, row = tape.at(position)
        now = stream.ts.item(row)
        self.position = position
        envelope = None
        for watch in self._hearers[stream.index]:
            answer = watch.answer
            if answer < 0 and watch.searched <= position:
                answer = watch.ask(tape, watch.searched, position + 1)
            self._turn = watch.order
            if answer != position:
                continue  # silent: folded when it is next told something
            if watch.cursor < position and watch.skip is not None:
                watch.skip(tape, watch.cursor, position)
            watch.cursor = position + 1
            if envelope is None:
                envelope = Envelope("feed", position + 1, now, "", "", stream.message(row))
            self.deliveries += 1
            self._dispatcher.tell_host(watch.host, envelope, now)
        if envelope is None:
            # Somebody answered a row that is not told to it: early, so it goes on searching.
            for watch in self._watches:
                if watch.answer == position:
                    watch.answer = -1
                    watch.searched = position + 1
        self.position = position + 1
        self._turn = -1

    def _wake(self, wake: int, end: int) -> None:
        self.position = min(end, self._tape.after(wake))
        for host, at in list(self._wakes.items()):
            if at <= wake:
                for _ in range(RESTLESS):
                    self._dispatcher.wake(host, max(wake, at))
                    again = host.component.wake_at()
                    if again is None or again > wake:
                        break
                else:
                    raise ContractError(f"{host.node.name} asks to be woken at {again} again and again")

    def _catcher(self, watch: _Watch) -> Callable[[Host], None]:
        """What brings a component up to the present before it is told anything, and lets its answer die."""
        tape = self._tape

        def catch_up(_: Host) -> None:
            limit = self.position + 1 if watch.order <= self._turn else self.position
            cursor = watch.cursor
            if cursor < limit:
                if watch.skip is not None:
                    watch.skip(tape, cursor, limit)
                watch.cursor = cursor = limit
            watch.answer = -1
            watch.searched = cursor

        return catch_up

    def _settle(self) -> None:
        """Ask everyone who was told something when to wake it next."""
        touched = self._dispatcher.touched
        for host in touched:
            host.touched = False
            at = host.component.wake_at()
            if at is not None:
                self._wakes[host] = at
            elif host in self._wakes:
                del self._wakes[host]
        touched.clear()


def compare(one: list[Envelope], other: list[Envelope]) -> str:
    """The first difference between two logs, in words; empty when there is none."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return f"message {index}: {_describe(a)} against {_describe(b)}"
    if len(one) != len(other):
        longer: Any = one if len(one) > len(other) else other
        return f"{len(one)} messages against {len(other)}; the first one more is {_describe(longer[min(len(one), len(other))])}"
    return ""


def _describe(envelope: Envelope) -> str:
    return f"{envelope.id} at {envelope.ts_init}: {envelope.message!r}"
