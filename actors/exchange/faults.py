"""What goes wrong on purpose: which requests are refused, whose answers are lost, what becomes of what the sockets say.

Bookkeeping alone: `levers` arms it, the server and the sockets ask it. Everything is off until it is armed.
"""

import re
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatchcase
from random import Random
from typing import Literal

from msgspec import Struct, field

Kind = Literal["public", "private", "trade"]
Part = Literal["snapshot", "delta", "message"]

SKEW_NS = 0
ACK_DELAY_S = 0.020
"""pybit notes what it waits for only after it has sent it: an acknowledgement may not come at once."""


class Faults:
    """What is armed. A quantity that is `next` is counted over all streams or requests, `every` on each stream by itself.

    Attributes:
        latency_s: of the network, added to every answer and push; no fault, but a way to be far away.
        skew_ns: how far the venue's clock is ahead of the true one when it checks the time of a request.
        answer_delay_s: how long every answer of REST is held back; what of it is no latency, on the trade socket as well.
        ack_delay_s: how long acknowledgements on a socket are held back.
        pongs: whether pings are answered.
    """

    def __init__(self, clock: Callable[[], int], chance: Random | None = None) -> None:
        self.latency_s = 0.0
        self.skew_ns = SKEW_NS
        self.answer_delay_s = 0.0
        self.ack_delay_s = ACK_DELAY_S
        self.pongs = True
        self._clock = clock
        self._chance = chance if chance is not None else Random(0)  # noqa: S311 (a drill, not a secret)
        self._streams: list[StreamFault] = []
        self._storms: list[StormFault] = []
        self._losses: list[LossFault] = []
        self._held: dict[tuple[str, str], list[str]] = {}

    @property
    def quiet(self) -> bool:
        """Whether what the sockets say goes out as it is: `outgoing` need not be asked."""
        return not self._streams and not self._held and not self.latency_s

    def move_away(self, latency_s: float) -> None:
        """Be so much further away from every client."""
        self.latency_s += latency_s
        self.answer_delay_s += latency_s
        self.ack_delay_s += latency_s

    def arm(self, fault: "StreamFault | StormFault | LossFault") -> None:
        match fault:
            case StreamFault():
                self._streams.append(fault)
            case StormFault():
                self._storms.append(fault)
            case LossFault():
                self._losses.append(fault)

    def release(self, fault: "StreamFault | StormFault | LossFault") -> None:
        """Take a fault back; one that is spent or was never armed is let be.

        A message it holds back goes out after the next one of its stream.
        """
        self._streams[:] = [one for one in self._streams if one is not fault]
        self._storms[:] = [one for one in self._storms if one is not fault]
        self._losses[:] = [one for one in self._losses if one is not fault]

    def forget(self, to: str) -> None:
        """Drop what is held back and counted for a connection that is gone."""
        for key in [key for key in self._held if key[0] == to]:
            del self._held[key]
        for fault in self._streams:
            for key in [key for key in fault.seen if key[0] == to]:
                del fault.seen[key]

    def refuses(self, path: str, uid: str | None) -> "Storm | None":
        """What a request is refused with, asked once before it is handled; None lets it through."""
        now = self._clock()
        self._storms[:] = [one for one in self._storms if not one.is_spent(now)]
        for fault in self._storms:
            if path.startswith(fault.path) and fault.uid in {None, uid}:
                if fault.next is not None:
                    fault.next -= 1
                fault.effects["refused", "request", f"of {path} with {fault.storm}"] += 1
                return fault.storm
        return None

    def loses(self, path: str) -> bool:
        """Whether the answer of a request that has been executed is lost; asked once for each."""
        self._losses[:] = [one for one in self._losses if one.next]
        for fault in self._losses:
            if path.startswith(fault.path):
                fault.next -= 1
                fault.effects["lost", "answer", f"of {path}"] += 1
                return True
        return False

    def outgoing(self, topic: str, text: str, kind: Kind, to: str = "") -> list[tuple[float, str]]:
        """What becomes of a push: (seconds to wait, text) of all that goes out now, in this order.

        Args:
            topic: Its topic.
            text: Itself, as JSON.
            kind: Of the socket.
            to: Names the connection, so that what is counted or held back for one never reaches another.
        """
        now = self._clock()
        self._streams[:] = [one for one in self._streams if not one.is_spent(now)]
        part = part_of(text)
        # An answer on the trade socket has come this far already: it has waited for `ack_delay_s`.
        away_s = 0.0 if kind == "trade" else self.latency_s
        pushes = [(away_s, text)]
        for fault in self._streams:
            # The push after one that is held back is to pass it, not to be held back as well.
            passes = fault.verb == "reorder" and (to, topic) in self._held
            if fault.concerns(topic, part, kind) and fault.strikes(to, topic, self._chance, may=not passes):
                fault.effects[_PAST[fault.verb], part, f"of {topic}"] += 1
                match fault.verb:
                    case "drop":
                        return []
                    case "reorder":
                        self._held.setdefault((to, topic), []).append(text)
                        return []
                    case "repeat":
                        pushes *= 1 + fault.times
                    case "delay":
                        pushes = [(wait + fault.delay_s, one) for wait, one in pushes]
        return pushes + [(away_s, one) for one in self._held.pop((to, topic), ())]


class Storm(Struct, frozen=True):
    """A refusal: an HTTP status without a body of the venue's, or a return code in its envelope."""

    http_status: int | None = None
    ret_code: int | None = None

    def __str__(self) -> str:
        return f"HTTP {self.http_status}" if self.http_status is not None else str(self.ret_code)


Effects = Counter[tuple[str, str, str]]
"""How often a fault struck, by what it did: what was done, to what kind of thing, and of what."""


class StormFault(Struct, eq=False, kw_only=True):
    """Requests whose path begins with `path` are refused, the next few or until an instant; None is for ever."""

    storm: Storm
    path: str = "/v5/"
    uid: str | None = None
    next: int | None = None
    ts_until: int | None = None
    effects: Effects = field(default_factory=Counter)

    def is_spent(self, now: int) -> bool:
        return self.next == 0 or (self.ts_until is not None and now >= self.ts_until)


class LossFault(Struct, eq=False, kw_only=True):
    """The answers of the next few requests whose path begins with `path` are lost, after they were executed."""

    path: str
    next: int
    effects: Effects = field(default_factory=Counter)

    def is_spent(self, now: int) -> bool:  # noqa: ARG002 (as the other faults are asked)
        return not self.next


class StreamFault(Struct, eq=False, kw_only=True):
    """What happens to pushes of some topics.

    `topic` is a pattern such as `orderbook.*`. It strikes every nth push of each stream, with a chance, or the next
    few of all; without any of these it strikes each. A push that is to be reordered changes places with the next of its
    stream.
    """

    verb: Literal["drop", "repeat", "delay", "reorder"]
    topic: str = "*"
    kind: Kind | None = None
    part: Part | None = None
    every: int = 1
    next: int | None = None
    chance: float = 1.0
    times: int = 1
    delay_s: float = 0.0
    ts_until: int | None = None
    effects: Effects = field(default_factory=Counter)
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def is_spent(self, now: int) -> bool:
        return self.next == 0 or (self.ts_until is not None and now >= self.ts_until)

    def concerns(self, topic: str, part: Part, kind: Kind) -> bool:
        return (
            self.kind in {None, kind}
            and self.part in {None, part}
            and self.next != 0
            and fnmatchcase(topic, self.topic)
        )

    def strikes(self, to: str, topic: str, chance: Random, *, may: bool) -> bool:
        """Count a push of a stream, and whether this is one to strike, if it `may`."""
        self.seen[to, topic] += 1
        if not may or self.seen[to, topic] % self.every or (self.chance < 1 and chance.random() >= self.chance):
            return False
        if self.next is not None:
            self.next -= 1
        return True


def part_of(text: str) -> Part:
    """Whether a push is a snapshot or a delta of something, or a message of its own, as private ones are."""
    # The type stands before the data, whose end may be far away.
    found = _TYPE.search(text, 0, 300)
    return "message" if found is None else "delta" if found[1] == "delta" else "snapshot"


def told(effects: Effects) -> list[str]:
    """Effects as sentences: `dropped 3 deltas of orderbook.50.BTCUSDT`."""
    return [
        f"{verb} {count} {noun}{'' if count == 1 else 's'} {of_what}"
        for (verb, noun, of_what), count in effects.items()
    ]


_PAST = {"drop": "dropped", "repeat": "repeated", "delay": "delayed", "reorder": "reordered"}
_TYPE = re.compile(r'"type"\s*:\s*"(snapshot|delta)"')
