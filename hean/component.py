"""What a component is, and how its contract is read back from its signature."""

import types
import typing
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from hean.errors import ContractError
from hean.messages import Message
from hean.tape import Tape

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)


class Component(Protocol[In_contra, Out_co]):
    """Something that is handed a message and the time, and returns messages.

    It never waits, reads no clock and opens nothing. All that changes is in `state`.
    """

    @property
    def state(self) -> Struct:
        """Everything that changes, and nothing else."""

    def handle(self, message: In_contra, now: int) -> Iterable[Out_co]:
        """Take one message in, and say what follows from it. The signature is the contract."""

    def wake_at(self) -> int | None:
        """When to be told `Wake`, computed from the state; None when nothing is pending."""


@typing.runtime_checkable
class Observer(Protocol):
    """A component that can tell which rows of a tape would leave it silent.

    Both methods take the rows [start, stop) of the tape, as positions in its one order.
    """

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first row at which, given its present state, `handle` might say something or change what it will say.

        Pure. Answering too early costs time, answering too late is a bug; `stop` means none of these rows.
        """

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        """Take rows it would have been silent on, leaving the state that handling each would have left."""


def takes(component: object) -> frozenset[type[Message]]:
    """The message types `handle` takes, by its annotation.

    Raises:
        ContractError: the parameter `message` is not annotated with message types.
    """
    return _message_types(component, "message")


def says(component: object) -> frozenset[type[Message]]:
    """The message types `handle` returns an iterable of, by its annotation.

    Raises:
        ContractError: the return annotation is not an iterable of message types.
    """
    return _message_types(component, "return")


def _message_types(component: object, name: str) -> frozenset[type[Message]]:
    handle = getattr(component, "handle", None)
    where = f"{getattr(component, '__name__', type(component).__name__)}.handle"
    if handle is None:
        raise ContractError(f"{where} is missing")
    hints = typing.get_type_hints(handle)
    if name not in hints:
        raise ContractError(f"{where}: annotate {name!r} with the messages it means, such as Bar | PositionChanged")
    annotation = hints[name]
    if name == "return":
        arguments = typing.get_args(annotation)
        annotation = arguments[0] if arguments else Any
    found = frozenset(_flatten(annotation))
    if (annotation is not typing.Never and not found) or not all(
        isinstance(kind, type) and issubclass(kind, Message) for kind in found
    ):
        raise ContractError(f"{where}: {name!r} should name messages, and reads {annotation!r}")
    return found


def _flatten(annotation: object) -> Iterable[Any]:
    if typing.get_origin(annotation) in {typing.Union, types.UnionType}:
        for part in typing.get_args(annotation):
            yield from _flatten(part)
    elif annotation is typing.Never:
        return
    else:
        yield annotation
