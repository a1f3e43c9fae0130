"""What a client says on a socket, read without trust."""

from typing import Any

import msgspec
from msgspec import Struct

from hean.exchange.refusals import invalid


class Garbled(Exception):  # noqa: N818 (an answer to the client, not a failure of ours)
    """What was said is no request; the text is what the client is told."""


class Request(Struct):
    """A request on a public or private socket."""

    op: str = ""
    req_id: str | int | None = None
    args: Any = None

    @property
    def id(self) -> str:
        """What it is answered under: "" where the client gave nothing."""
        return "" if self.req_id is None else str(self.req_id)


class TradeRequest(Struct, rename="camel"):
    """A request on the trade socket. `args` is of any shape until it has been looked at."""

    op: str = ""
    req_id: str | int | None = None
    header: dict[str, Any] | None = None
    args: Any = None


def read(raw: bytes) -> Request:
    """Read a request.

    Raises:
        Garbled: it is no JSON object with fields of the right types.
    """
    try:
        return _requests.decode(raw)
    except (msgspec.DecodeError, RecursionError) as damage:
        raise Garbled(f"Failed to decode incoming data:{damage}") from None


def read_trade(raw: bytes) -> TradeRequest:
    """The same of the trade socket."""
    try:
        return _trade_requests.decode(raw)
    except (msgspec.DecodeError, RecursionError) as damage:
        raise Garbled(f"Failed to decode incoming data:{damage}") from None


def topics_of(request: Request) -> list[str]:
    """The topics a request names.

    Raises:
        Garbled: there are none, or they are no list of words.
    """
    args = request.args
    if not isinstance(args, list) or not args or not all(isinstance(one, str) for one in args):
        raise Garbled("Failed to decode incoming data:args is no list of topics")
    return args


def proof_of(args: Any) -> tuple[str, str, str]:
    """What an `auth` says: key, when it expires (ms) and signature.

    Raises:
        Refused: it says something else.
    """
    match args:
        case [str() as key, int() | str() as expires, str() as signature] if not isinstance(expires, bool):
            return key, str(expires), signature
        case _:
            raise invalid("auth takes key, expires and signature")


_requests = msgspec.json.Decoder(Request)
_trade_requests = msgspec.json.Decoder(TradeRequest, float_hook=str)
