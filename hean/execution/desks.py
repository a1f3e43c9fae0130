"""The desks of a simulated venue: where each instrument's market stands, silent rows of a tape included.

Of rows that pass in silence only what they leave behind matters, and it is looked up when an
instrument is next looked at.
"""

from collections.abc import Iterator, Mapping

from hean.execution.venue_state import Desk, Tier
from hean.market.book import OrderBook
from hean.messages import Bar, BarOpened, BookLevels, MarkPrice, Observation, Quote, Trade
from hean.tape import Stream, Tape


class Desks:
    """Every instrument's desk and book.

    Args:
        desks: The desks, part of the venue's state; so are
        books: what is displayed, of every instrument whose book is known.
        tiers: How much of each instrument's market is told.
        watches: Which observations are told.
    """

    def __init__(
        self,
        desks: dict[str, Desk],
        books: dict[str, OrderBook],
        tiers: Mapping[str, Tier],
        watches: frozenset[tuple[str, type[Observation]]],
    ) -> None:
        self.tiers = tiers
        self.books = books
        for name, tier in tiers.items():
            desks.setdefault(name, Desk())
            if tier is Tier.BOOK:
                books.setdefault(name, OrderBook())
        self.with_levels = frozenset(name for name in self.books if (name, BookLevels) in watches)
        self.busy: set[str] = set()
        self._desks = desks
        for name in desks:
            self.tidy(name)
        # Where a book is known its middle is the price, and a print against it is not; where its levels are known,
        # a best bid and offer says nothing new.
        self.priced_by = frozenset(
            (name, kind)
            for name, kind in watches
            if not (kind is Trade and name in self.books) and not (kind is Quote and name in self.with_levels)
        )
        self._behind: dict[str, int] = {}  # by instrument, the first row that passed in silence
        self._present = set(desks)  # those with none
        self._tape: Tape | None = None
        self._stop = 0
        self._streams: dict[str, list[Stream]] = {}

    def __getitem__(self, name: str) -> Desk:
        if name in self._behind:
            self._catch_up(name)
        return self._desks[name]

    def values(self) -> Iterator[Desk]:
        for name in self._desks:
            yield self[name]

    def price(self, name: str) -> float:
        """The last price known; nought while none is."""
        return self[name].price or 0.0

    def tidy(self, name: str) -> None:
        """Note whether anything of ours is left at a desk."""
        desk = self._desks[name]
        if desk.working or desk.held:
            self.busy.add(name)
        else:
            self.busy.discard(name)

    def show(self, shown: Quote | BookLevels) -> bool:
        """Show a change of an instrument's book; whether it has two sides to trade with."""
        desk = self[shown.instrument]
        book = self.books[shown.instrument]
        if isinstance(shown, BookLevels):
            book.apply(shown)
        else:
            book.replace(shown.bid, shown.bid_size, shown.ask, shown.ask_size)
        middle = book.middle
        if middle is None:
            return False
        desk.price = middle
        return True

    # --- rows that pass in silence -----------------------------------------------------------------

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        if tape is not self._tape:
            self.catch_up()
            self._tape = tape
            self._streams = {name: list(self._rows_of(tape, name)) for name in self._desks}
        self._stop = stop
        if self._present:
            for name in self._present:
                self._behind[name] = start
            self._present.clear()

    def catch_up(self) -> None:
        for name in list(self._behind):
            self._catch_up(name)

    def _rows_of(self, tape: Tape, name: str) -> Iterator[Stream]:
        for kind in (MarkPrice, Trade, Quote, BookLevels, Bar, BarOpened):
            stream = tape.stream(kind, name)
            if stream is not None and (name, kind) in self.priced_by:
                yield stream

    def _catch_up(self, name: str) -> None:
        start = self._behind.pop(name)
        self._present.add(name)
        desk = self._desks[name]
        newest = -1
        for stream in self._streams[name]:
            row = stream.rows_before(self._stop) - 1
            if row < 0 or stream.position(row) < start:
                continue
            price: float | None
            if stream.kind is BarOpened:
                desk.ts_opened, desk.open = stream.ts.item(row), stream.columns["open"].item(row)
                continue
            if stream.kind is BookLevels:
                row, price = self._fold_levels(stream, stream.rows_before(start), row + 1)
            elif stream.kind is Quote:
                row, price = self._fold_quotes(stream, stream.rows_before(start), row)
            else:
                price = stream.columns["close" if stream.kind is Bar else "price"].item(row)
            if price is not None and stream.position(row) > newest:
                newest = stream.position(row)
                desk.price = price

    def _fold_levels(self, stream: Stream, first: int, stop: int) -> tuple[int, float | None]:
        """Bring a book up by its changes; the last row at which it had a middle, and that."""
        book = self.books[stream.instrument]
        snapshots = stream.columns["snapshot"][first:stop].nonzero()[0]
        # What stood before the last snapshot is gone, and is read only where nothing since has had two sides.
        for begin in (first + int(snapshots[-1]), first) if snapshots.size else (first,):
            at, price = stop - 1, None
            for row in range(begin, stop):
                change = stream.message(row)
                if isinstance(change, BookLevels):
                    book.apply(change)
                if book.middle is not None:
                    at, price = row, book.middle
            if price is not None:
                break
        return at, price

    def _fold_quotes(self, stream: Stream, first: int, last: int) -> tuple[int, float | None]:
        book = self.books[stream.instrument]
        for row in range(last, first - 1, -1):
            bid, bid_size, ask, ask_size = (stream.columns[name].item(row) for name in _QUOTE)
            if row == last:
                book.replace(bid, bid_size, ask, ask_size)
            if bid_size > 0 and ask_size > 0:
                return row, (bid + ask) / 2
        return last, None


_QUOTE = ("bid", "bid_size", "ask", "ask_size")
