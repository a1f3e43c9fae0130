"""An order book kept from snapshots and deltas, whose chain of update ids is checked: a known book, or none."""

import enum

from hean.bybit.decode import BookUpdate
from hean.market.book import OrderBook
from hean.messages import BookLevels


class Link(enum.Enum):
    """What an update was to the book.

    FITS: taken in. OLD: the one before, said again or late. WAITING: no snapshot has come yet. BROKEN: the chain broke with
    it, and the book is unknown until the next snapshot.
    """

    FITS = enum.auto()
    OLD = enum.auto()
    WAITING = enum.auto()
    BROKEN = enum.auto()


class BookChain:
    """One instrument's book of one topic.

    Bybit v5, *Orderbook*: `u` of consecutive deltas rises by exactly one; a snapshot, and `u` 1 which marks a restart
    of the service, begin the chain anew. Only a repetition of the very last update is harmless: an older one may also
    be the start of another chain.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self.ts_event = 0
        self.breaks = 0
        self._book = OrderBook()

    @property
    def book(self) -> OrderBook | None:
        """The book, sorted; None while it is unknown."""
        return None if self.last is None else self._book

    def forget(self) -> None:
        """Know nothing until the next snapshot: the socket is gone, or the chain is about to be begun anew."""
        self.last = None
        self._book.clear()

    def hear(self, update: BookUpdate) -> Link:
        levels = update.levels
        if levels.snapshot:
            if self.last is not None and levels.ts_event < self.ts_event and update.u != 1:
                return Link.OLD  # held up on its way, and overtaken
        else:
            if self.last is None:
                return Link.WAITING
            if update.u == self.last:
                return Link.OLD
            if update.u != self.last + 1:
                return self._break()
        self._book.apply(levels)
        bid, ask = self._book.bid, self._book.ask
        if bid is not None and ask is not None and bid >= ask:
            return self._break()
        self.last = update.u
        self.ts_event = levels.ts_event
        return Link.FITS

    def _break(self) -> Link:
        self.breaks += 1
        self.forget()
        return Link.BROKEN


def unknown(instrument: str, ts_event: int) -> BookLevels:
    """What is told of a book that is not known: an empty one in place of the last, so that nobody trades on it."""
    return BookLevels(instrument, ts_event, snapshot=True, bids=(), asks=())
