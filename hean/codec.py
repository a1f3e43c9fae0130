"""Messages as bytes: how they travel between processes and lie in a journal.

A parcel is what one sender hands one receiver at once. Facts and commands travel in envelopes of their own; the rows of
the market that one flush of the feed holds share one.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

import msgspec
from msgspec import Struct

from hean.messages import Envelope, Message, Observation


def spoken(mood: type[Message]) -> Iterator[type[Message]]:
    """Every message of a mood: the classes below it that have none below themselves."""
    below = mood.__subclasses__()
    if not below:
        yield mood
    for kind in below:
        yield from spoken(kind)


_ANY_MESSAGE: Any = reduce(operator.or_, spoken(Message))
_ANY_OBSERVATION: Any = reduce(operator.or_, spoken(Observation))


class _Letter(Envelope, frozen=True, gc=False):
    """An envelope as it is read: whatever may be said is in it."""

    message: _ANY_MESSAGE


class Rows(Struct, frozen=True, tag=True, gc=False):
    """What the market showed between two flushes, in order: the row at `index` has the number `seq + index`.

    `ts_init` is when the first of them was received: what follows from any is measured from there.
    """

    source: str
    seq: int
    ts_init: int
    rows: list[_ANY_OBSERVATION]


class Letters(Struct, frozen=True, tag=True, gc=False):
    """Facts and commands, in the order they were said."""

    letters: list[_Letter]


_encoder = msgspec.msgpack.Encoder()
_parcels = msgspec.msgpack.Decoder(Rows | Letters)


def letters(envelopes: Sequence[Envelope]) -> bytes:
    """Put envelopes into a parcel."""
    # A `Letters` would not take an `Envelope`: it is written as one would be, tag first.
    return _encoder.encode({"type": "Letters", "letters": envelopes})


def rows(source: str, seq: int, ts_init: int, observations: Sequence[Observation]) -> bytes:
    """Put rows of the market into a parcel."""
    return _encoder.encode(Rows(source, seq, ts_init, list(observations)))


def envelopes(parcel: bytes) -> list[Envelope]:
    """Take a parcel apart.

    Raises:
        msgspec.DecodeError: These bytes are no parcel.
    """
    found = _parcels.decode(parcel)
    if isinstance(found, Letters):
        return list(found.letters)
    source, ts_init = found.source, found.ts_init
    return [Envelope(source, seq, ts_init, "", "", row, ts_init) for seq, row in enumerate(found.rows, found.seq)]


def encoded(state: Struct | Iterable[Any]) -> bytes:
    """A state as bytes: states that came about in the same way give the same bytes."""
    return _encoder.encode(state)


def decoded(kind: type[Any], state: bytes) -> Any:
    """A state from its bytes.

    Raises:
        msgspec.DecodeError: These bytes are no such state.
    """
    return msgspec.msgpack.decode(state, type=kind)
