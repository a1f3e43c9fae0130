"""The house: what rests in the books besides clients' orders, and the takers that come by themselves."""

from collections.abc import Iterable
from typing import Protocol

from msgspec import Struct, field
from sortedcontainers import SortedDict

from hean.exchange.sources.source import Flow, Levels, Shown
from hean.messages import Side
from hean.units import SECOND

REFILL = 3 * SECOND // 4


class House(Protocol):
    """What of the exchange the house needs."""

    def background_set(self, instrument: str, side: Side, ticks: int, steps: int, now: int) -> None: ...

    def background_take(self, instrument: str, side: Side, limit: int | None, steps: int, now: int) -> int: ...

    def background_at(self, instrument: str, side: Side, ticks: int) -> int: ...


class Background:
    """Keeps what the house has resting at what the source wants.

    What was taken is put back `refill` nanoseconds of market time after it was missed, not at once; and while a price that was
    taken wholly is empty, nothing better is quoted either: so a large order finds the book thinner after it.
    """

    def __init__(self, house: House, instruments: Iterable[str], *, refill: int = REFILL) -> None:
        self._house = house
        self._refill = refill
        self._books = {instrument: (_Half(Side.BUY), _Half(Side.SELL)) for instrument in instruments}

    def show(self, shown: Shown) -> None:
        """Quote what the source wants. What goes leaves the book before anything comes: the house never crosses itself."""
        halves = self._books[shown.instrument]
        changes = (shown.bids, shown.asks)
        for half in halves:
            self._look(shown.instrument, half, shown.ts)
        for half, levels in zip(halves, changes, strict=True):
            self._withdraw(shown, half, levels)
        for half, levels in zip(halves, changes, strict=True):
            self._place(shown, half, levels)

    def flow(self, flow: Flow) -> None:
        """Let a taker take. A recorded one finds at its price as much as it took: what a record shows of a book is never all."""
        name, now = flow.instrument, flow.ts
        met = self._books[name][flow.side is Side.BUY]
        # What clients took before comes back all the same.
        self._look(name, met, now)
        if not flow.recorded or flow.limit is None:
            self._house.background_take(name, flow.side, flow.limit, flow.steps, now)
            return
        there = self._house.background_at(name, met.side, flow.limit)
        lent = max(0, flow.steps - there)
        if lent:
            self._house.background_set(name, met.side, flow.limit, flow.steps, now)
        self._house.background_take(name, flow.side, flow.limit, flow.steps, now)
        if lent:
            left = self._house.background_at(name, met.side, flow.limit)
            self._house.background_set(name, met.side, flow.limit, max(0, left - lent), now)
        self._accept(name, met)

    def mend(self, now: int) -> None:
        """See what has been taken, and put back what was missed long enough."""
        for instrument, halves in self._books.items():
            for half in halves:
                self._look(instrument, half, now)

    def _look(self, instrument: str, half: "_Half", now: int) -> None:
        """Takers take the best first: from there on, what is short is missed from now on, up to the first that is whole."""
        for at, wanted in half.wanted.items():
            if at in half.due:
                continue
            if self._house.background_at(instrument, half.side, half.sign * at) >= wanted:
                break
            half.due[at] = now + self._refill
        if not half.due:
            return
        for at in [at for at, due in half.due.items() if due <= now]:
            del half.due[at]
            self._house.background_set(instrument, half.side, half.sign * at, half.wanted[at], now)

    def _accept(self, instrument: str, half: "_Half") -> None:
        """What a recorded taker took is gone until the record says otherwise."""
        short: list[tuple[int, int]] = []
        for at, wanted in half.wanted.items():
            if at in half.due:
                continue
            there = self._house.background_at(instrument, half.side, half.sign * at)
            if there >= wanted:
                break
            short.append((at, there))
        for at, there in short:
            if there:
                half.wanted[at] = there
            else:
                del half.wanted[at]

    def _withdraw(self, shown: Shown, half: "_Half", levels: Levels) -> None:
        gone = [half.sign * ticks for ticks, steps in levels if not steps]
        if shown.snapshot:
            kept = {half.sign * ticks for ticks, steps in levels if steps}
            gone = [at for at in half.wanted if at not in kept]
        for at in gone:
            if half.wanted.pop(at, None) is not None:
                half.due.pop(at, None)
                self._house.background_set(shown.instrument, half.side, half.sign * at, 0, shown.ts)

    def _place(self, shown: Shown, half: "_Half", levels: Levels) -> None:
        for ticks, steps in levels:
            if not steps:
                continue
            at = half.sign * ticks
            half.wanted[at] = steps
            if at in half.due:
                continue
            if half.due and (due := self._emptied_behind(shown.instrument, half, at)) is not None:
                half.due[at] = due
            else:
                self._house.background_set(shown.instrument, half.side, ticks, steps, shown.ts)

    def _emptied_behind(self, instrument: str, half: "_Half", at: int) -> int | None:
        """When the last of the prices behind this one comes back that were taken wholly; None if there are none."""
        dues = [
            due
            for price, due in half.due.items()
            if price > at and not self._house.background_at(instrument, half.side, half.sign * price)
        ]
        return max(dues, default=None)


class _Half(Struct):
    """One side of one book. Bids are kept under their negated price, so that both sides begin with the best.

    `wanted` is in steps; `due` says when a price that is short, or was held back, is to be whole.
    """

    side: Side
    wanted: SortedDict[int, int] = field(default_factory=SortedDict)
    due: dict[int, int] = field(default_factory=dict)

    @property
    def sign(self) -> int:
        return -1 if self.side is Side.BUY else 1
