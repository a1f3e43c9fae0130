"""Searches of a tape for the next row that may touch something of ours at a simulated venue."""

import math
from collections.abc import Mapping

from hean.execution.account import MarkForm
from hean.execution.clearing import Clearing
from hean.execution.desks import Desks
from hean.execution.venue_state import Desk, SimulatedVenueState, Tier
from hean.market.crossings import first_beyond, first_quote_beyond
from hean.market.quiet import MarkSearch
from hean.messages import Bar, BarOpened, BookLevels, FundingRate, Observation, Quote, Side, Trade
from hean.tape import Stream, Tape


class Touches:
    """Finds the first row that meets an order, settles funding, or endangers margin: never late, perhaps early."""

    def __init__(
        self,
        tiers: Mapping[str, Tier],
        watches: frozenset[tuple[str, type[Observation]]],
        desks: Desks,
        clearing: Clearing,
        state: SimulatedVenueState,
    ) -> None:
        self._tiers = tiers
        self._watches = watches
        self._desks = desks
        self._clearing = clearing
        self._state = state
        self._search: MarkSearch | None = None

    def first(self, tape: Tape, start: int, stop: int) -> int:
        positions = self._state.account.positions
        for name in self._desks.busy:
            tier = self._tiers[name]
            desk = self._desks[name]
            if tier is Tier.BARS:
                stop = self._bars(tape, name, desk, start, stop)
            elif tier is Tier.TRADES:
                stop = self._trades(tape, name, desk, start, stop)
            else:
                stop = self._book(tape, name, desk, start, stop)
        for name in positions:
            if (name, FundingRate) in self._watches:
                stop = _next_row(tape.stream(FundingRate, name), start, stop)
        if positions:
            stop = self._first_below(tape, self._clearing.margin(), start, stop)
        if self._state.ts_interest is None:
            cash = self._clearing.cash()
            if cash is not None and cash.slopes:
                stop = self._first_below(tape, cash, start, stop)
        return stop

    def _first_below(self, tape: Tape, form: MarkForm, start: int, stop: int) -> int:
        """The first row at which an amount that depends on the marks is gone."""
        for name in form.slopes:
            if name in self._desks.with_levels:
                stop = _next_row(tape.stream(BookLevels, name), start, stop)
        search = self._search
        if search is None or search.tape is not tape:
            search = self._search = MarkSearch(tape, self._desks.priced_by, adverse=True)
        return search.first_outside(
            start,
            stop,
            constant=form.constant,
            slopes=form.slopes,
            prices={name: self._desks.price(name) for name in form.slopes},
            low=0.0,
            high=math.inf,
        )

    def _bars(self, tape: Tape, name: str, desk: Desk, start: int, stop: int) -> int:
        opened, closed = tape.stream(BarOpened, name), tape.stream(Bar, name)
        if opened is None or closed is None:
            return stop
        shown = opened.rows_before(start)
        if shown < len(opened) and any(not working.resting for working in desk.working.values()):
            stop = min(stop, opened.position(shown))
        below, above = _bounds(desk)
        if below == -math.inf and above == math.inf:
            return stop
        of = closed.columns
        last = closed.rows_before(stop)
        row = int(first_beyond(of["low"], of["high"], below, above, closed.rows_before(start), last))
        # An open lies within its candle: none before the first candle that reaches us can. The candle under way has shown its own.
        opening = min(row, opened.rows_before(stop) - 1)
        if opening >= shown:
            price = opened.columns["open"].item(opening)
            if price <= below or price >= above:
                return opened.position(opening)
        return closed.position(row) if row < last else stop

    def _trades(self, tape: Tape, name: str, desk: Desk, start: int, stop: int) -> int:
        trades = tape.stream(Trade, name)
        if trades is None:
            return stop
        first = trades.rows_before(start)
        for working in desk.working.values():
            if not working.resting:
                row = max(first, int(trades.ts.searchsorted(working.ts_arrives, side="right")))
                if row < len(trades):
                    stop = min(stop, trades.position(row))
        below, above = _bounds(desk)
        prices = trades.columns["price"]
        last = trades.rows_before(stop)
        row = int(first_beyond(prices, prices, below, above, first, last))
        return trades.position(row) if row < last else stop

    def _book(self, tape: Tape, name: str, desk: Desk, start: int, stop: int) -> int:
        if desk.working:  # a queue is kept change by change, and print by print
            for kind in (Quote, BookLevels, Trade):
                if (name, kind) in self._watches:
                    stop = _next_row(tape.stream(kind, name), start, stop)
            return stop
        if name in self._desks.with_levels:
            return _next_row(tape.stream(BookLevels, name), start, stop)
        quotes = tape.stream(Quote, name)
        if quotes is None:
            return stop
        bid_below, bid_above, ask_below, ask_above = -math.inf, math.inf, -math.inf, math.inf
        for held in desk.held.values():
            if held.side is Side.SELL:
                bid_below, bid_above = max(bid_below, held.stop_at), min(bid_above, held.target_at)
            else:
                ask_above, ask_below = min(ask_above, held.stop_at), max(ask_below, held.target_at)
        first, last = quotes.rows_before(start), quotes.rows_before(stop)
        of = quotes.columns
        row = int(first_quote_beyond(of["bid"], of["ask"], bid_below, bid_above, ask_below, ask_above, first, last))
        return quotes.position(row) if row < last else stop


def _bounds(desk: Desk) -> tuple[float, float]:
    """The prices at or beyond which something of ours may be touched: below, above."""
    below, above = -math.inf, math.inf
    for held in desk.held.values():
        if held.side is Side.SELL:
            below, above = max(below, held.stop_at), min(above, held.target_at)
        else:
            above, below = min(above, held.stop_at), max(below, held.target_at)
    for working in desk.working.values():
        if working.resting:
            if working.order.side is Side.BUY:
                below = max(below, working.limit)
            else:
                above = min(above, working.limit)
    return below, above


def _next_row(stream: Stream | None, start: int, stop: int) -> int:
    if stream is None:
        return stop
    row = stream.rows_before(start)
    return min(stop, stream.position(row)) if row < len(stream) else stop
