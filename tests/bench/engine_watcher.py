"""A strategy that counts what it sees, and wants nothing."""

from collections.abc import Iterator

from msgspec import Struct
from pydantic import BaseModel

from hean.instruments import Perp
from hean.messages import Quote, Signal, Trade


class WatcherConfig(BaseModel, frozen=True, extra="forbid"):
    name: str
    instruments: tuple[Perp, ...]


class WatcherState(Struct):
    trades: int = 0
    quotes: int = 0
    last: float = 0.0


class Watcher:
    def __init__(self, config: WatcherConfig) -> None:
        self.config = config
        self.state = WatcherState()

    def handle(self, message: Trade | Quote, now: int) -> Iterator[Signal]:
        state = self.state
        if isinstance(message, Trade):
            state.trades += 1
            state.last = message.price
        else:
            state.quotes += 1
        yield from ()

    def wake_at(self) -> int | None:
        return None
