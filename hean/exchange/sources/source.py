"""What a source of the market says."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from msgspec import Struct

from hean.exchange.history import History
from hean.messages import Side

Levels = tuple[tuple[int, int], ...]
"""Prices in ticks, each with the size wanted there in steps; 0: nothing is wanted any more."""


class Shown(Struct, frozen=True):
    """What the background wants to have resting: all of it in a snapshot, otherwise what changed.

    `index` is what the instrument is worth elsewhere; `interest` the open interest of one side in base units. None: as before.
    """

    instrument: str
    ts: int
    snapshot: bool
    bids: Levels
    asks: Levels
    index: float | None = None
    interest: float | None = None


class Flow(Struct, frozen=True):
    """A taker comes: it takes up to `steps` at `limit` ticks or better, or at any price.

    What it takes of the background comes back after a while, like what a client took; of a `recorded` flow only when the
    source says so.
    """

    instrument: str
    ts: int
    side: Side
    limit: int | None
    steps: int
    recorded: bool = False


Move = Shown | Flow


class Source(Protocol):
    """A market that moves by itself.

    `instruments` are those it knows, by their names on the exchange; `name` says what it is, to people. `ended` is set once
    there is nothing more to come: the market holds its last quotes.
    """

    name: str
    synthetic: bool
    instruments: tuple[str, ...]
    ended: bool

    def history(self) -> Mapping[str, History]:
        """The closed minutes before the start, by instrument."""
        ...

    def advance(self, now: int) -> Iterator[Move]:
        """All that happened since the last call, up to `now`, in order of time."""
        ...
