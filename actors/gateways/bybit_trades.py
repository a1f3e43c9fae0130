"""The trades of one instrument, each told once and in order, though the stream that brings them comes and goes.

While it is away trades are printed that it does not tell. They are asked for by REST once it stands again, and what it tells
meanwhile waits for them. A comparison now and then finds what was lost in between.
"""

from msgspec import Struct, field

from hean.bybit.decode import Print
from hean.messages import Trade

KEPT_TRADES = 5_000
_TRIES = 3


class Joined(Struct):
    """What a comparison came to: trades to tell, what went wrong (kind, detail), and whether to ask once more."""

    trades: list[Trade] = field(default_factory=list)
    troubles: list[tuple[str, str]] = field(default_factory=list)
    again: bool = False


class TradeJoin:
    """Joins what the stream tells and what was asked for.

    Args:
        page: How many trades one answer holds at most.
        now: From when on comparisons are due.
    """

    def __init__(self, page: int, now: int) -> None:
        self.ts_since = 0
        """When the stream first stood; nothing before is told."""
        self.ts_audit = now
        self.seen: dict[str, None] = {}
        self.awaited: int | None = None
        """The question whose answer the held ones wait for."""
        self._page = page
        self._last: Print | None = None
        self._held: list[Print] | None = None
        self._tries = 0

    @property
    def holds(self) -> bool:
        """Whether what the stream tells waits for what came before it."""
        return self._held is not None

    def begin_anew(self) -> None:
        """The stream stands again: what it tells from now on waits for what it did not."""
        if self.ts_since:
            self._held, self.awaited, self._tries = self._held or [], None, 0

    def hear(self, prints: list[Print]) -> list[Trade]:
        """Take in what the stream told; the trades to tell."""
        if self._held is not None:
            self._held += prints
            return []
        return self._told(prints)

    def compare(self, number: int, found: list[Print] | None) -> Joined:
        """Tell what was missed, before what waited for it.

        A trade that is newer than the last told goes in its place. An older one that was never told was lost on
        the way; it is not told out of its order, but reported.

        Args:
            number: Of the question.
            found: Its answer, None where there was none.
        """
        joined = Joined()
        if self._held is not None:
            if self.awaited is None or number < self.awaited:
                return joined  # asked for before the stream could tell what came after
            if found is None and self._tries < _TRIES:
                self._tries += 1
                joined.again = True
                return joined
            if found is None:
                joined.troubles.append(("trades missed", "nobody said what traded while we were away"))
        held, self._held = self._held, None
        unseen = [one for one in found or [] if one.trade_id not in self.seen and one.trade.ts_event >= self.ts_since]
        last = self._last
        after = unseen if last is None else [one for one in unseen if _place(one) >= _place(last)]
        if len(unseen) > len(after):
            joined.troubles.append(("trades lost", f"{len(unseen) - len(after)} never came by the stream"))
            known = {one.trade_id for one in after}
            self.seen |= dict.fromkeys(one.trade_id for one in unseen if one.trade_id not in known)
        whole_page = found is not None and len(found) >= self._page
        if whole_page and len(after) == len(found or []) and last is not None:
            joined.troubles.append(("trades missed", "more traded than one answer holds"))
        joined.trades = self._told([*after, *(held or [])])
        return joined

    def _told(self, prints: list[Print]) -> list[Trade]:
        trades = []
        for one in prints:
            if one.trade_id not in self.seen:
                self.seen[one.trade_id] = None
                self._last = one
                trades.append(one.trade)
        if len(self.seen) > 2 * KEPT_TRADES:
            self.seen = dict.fromkeys(list(self.seen)[-KEPT_TRADES:])
        return trades


def _place(one: Print) -> tuple[int, int]:
    """A trade's place in time; those of one order of ours share it."""
    return one.trade.ts_event, one.seq
