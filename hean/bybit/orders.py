"""What became of our orders, put together from all that the venue says of them, in an order that makes sense.

Bybit promises no order between its topics: the end of an order may be told before its fills, and fills before the
order is acknowledged; messages may be lost, or come twice. From here they go on so that each fill is told once, the
end of an order after its last fill, and nothing is left open for want of a message: what is missing is asked for.

A state machine without a socket or a clock. It is told what was asked and what was heard, and answers with facts; `due`
says what must be asked by REST.
"""

import enum
from collections.abc import Container, Iterable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

from msgspec import Struct

from hean.bybit.decode import BRACKET, Execution, OrderStage, OrderWord
from hean.bybit.encode import Action, Outcome, Verdict
from hean.messages import (
    AmendOrder,
    CancelOrder,
    ErrorReported,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    SubmitOrder,
)
from hean.units import SECOND

ZERO = Decimal(0)

VenueSays = (
    OrderAccepted
    | OrderRejected
    | OrderOutcomeUnknown
    | OrderFilled
    | OrderAmended
    | OrderCanceled
    | OrderExpired
    | ErrorReported
)

_KEPT_ORDERS = 10_000
_KEPT_FILLS = 100_000
_FIRST_PAUSE = SECOND // 2
_LONGEST_PAUSE = 30 * SECOND
_LOUD = 6
"""How often something is asked before it is reported that asking does not help."""


class Restored(Struct, frozen=True):
    """An order of an earlier life: what was asked, what of it had filled, and whether the venue is known to have it.

    One that is not known to have arrived may never have been sent: then its absence is an answer.
    """

    order: SubmitOrder
    filled: Decimal = ZERO
    accepted: bool = True


class Tracked(Struct):
    """One order of ours.

    `expected` is what the venue says has filled of it, `filled` what has been told as fills; `wanted` is the most it may
    fill, amendments included. `ending` is its end, heard of before all of its fills were. While `unsure` its state is
    asked for; `again` asks for its cancel once more. While it is `leaving` it may still wait for its turn to be sent.
    `amend` is an amendment of which nobody knows whether it arrived, sent at `ts_amend`.
    """

    order: SubmitOrder
    ts_sent: int
    wanted: Decimal
    leaving: bool = False
    venue_order_id: str = ""
    accepted: bool = False
    over: bool = False
    filled: Decimal = ZERO
    expected: Decimal = ZERO
    ending: OrderWord | None = None
    unsure: bool = False
    canceling: bool = False
    again: bool = False
    vanished: bool = False
    asked: int = 0
    ts_ask: int = 0
    amend: AmendOrder | None = None
    ts_amend: int = 0

    @property
    def lacks_fills(self) -> bool:
        return self.filled < self.expected

    @property
    def name(self) -> tuple[str, str, str]:
        return self.order.client_order_id, self.order.strategy, self.order.instrument


class Ask(enum.StrEnum):
    """What is asked of one order by REST: its state, its executions, or to be canceled once more."""

    STATE = "state"
    FILLS = "fills"
    CANCEL = "cancel"


class Question(Struct, frozen=True):
    client_order_id: str
    instrument: str
    ask: Ask


class OrderTracker:
    """All orders of one account that this gateway sent, or was told of.

    Args:
        node: Who reports an error.
        restored: Orders of an earlier life that may still be open.
        heard: The `trade_id` of fills that were told in an earlier life.
        now: The time of the start.
        absent_after: How long after sending an order its absence is final: by then the venue would refuse the request
            for its age (Bybit v5, *Guide*: recv_window), and its answers about orders have caught up.
        patience: How long the stream may take to say what an answer implies, before it is asked for.
    """

    def __init__(
        self,
        node: str,
        restored: Iterable[Restored],
        heard: Iterable[str],
        now: int,
        *,
        absent_after: int = 10 * SECOND,
        patience: int = SECOND,
    ) -> None:
        self._node = node
        self._absent_after = absent_after
        self._patience = patience
        self.orders: dict[str, Tracked] = {}
        self._open: dict[str, Tracked] = {}
        self._by_venue_id: dict[str, str] = {}
        self._parents: dict[str, str] = {}  # of the venue's own orders: the order whose exits they are
        self._strangers: dict[str, None] = {}
        self._fills: dict[str, None] = dict.fromkeys(heard)
        for known in restored:
            wanted = known.order.quantity
            kept = Tracked(known.order, now, wanted, accepted=known.accepted, filled=known.filled)
            kept.unsure, kept.ts_ask = True, now
            self._keep(kept)

    # --- what was asked -------------------------------------------------------------------------

    def sending(self, order: SubmitOrder, now: int) -> bool:
        """Note an order that is about to leave; False if one of its name has left already, and it must not."""
        if order.client_order_id in self.orders:
            return False
        self._keep(Tracked(order, now, order.quantity, leaving=True))
        self._forget_oldest()
        return True

    def amending(self, amend: AmendOrder) -> None:
        """Note an amendment that is about to leave: from now on the order may fill to its new quantity."""
        tracked = self.orders.get(amend.client_order_id)
        if tracked is not None and amend.quantity is not None:
            tracked.wanted = max(tracked.wanted, amend.quantity)

    def canceling(self, client_order_id: str) -> None:
        tracked = self.orders.get(client_order_id)
        if tracked is not None:
            tracked.canceling = True

    def created(self, client_order_id: str, outcome: Outcome, now: int) -> Iterator[VenueSays]:
        """Take in what came of sending an order."""
        tracked = self.orders[client_order_id]
        # It may have waited long before it left, and left no later than now.
        tracked.leaving, tracked.ts_sent = False, now
        if outcome.verdict is Verdict.ACCEPTED:
            self._bind(tracked, outcome.venue_order_id)
            yield from self._accept(tracked)
        elif not (tracked.accepted or tracked.over):
            if outcome.verdict is Verdict.REFUSED:
                self._finish(tracked)
                yield OrderRejected(*tracked.name, outcome.reason)
            else:
                self._wonder(tracked, now)
                yield OrderOutcomeUnknown(*tracked.name, outcome.reason)

    def amended(self, amend: AmendOrder, outcome: Outcome, now: int) -> Iterator[VenueSays]:
        """Take in what came of amending an order."""
        tracked = self.orders.get(amend.client_order_id)
        if tracked is not None and tracked.over:
            return
        if outcome.verdict is Verdict.ACCEPTED:
            yield _amended(amend)
        elif outcome.verdict is Verdict.REFUSED:
            yield self._error("amend refused", f"{amend.client_order_id}: {outcome.reason}")
        else:
            if tracked is not None:
                tracked.amend, tracked.ts_amend = amend, now
            yield from self._unsure(amend.client_order_id, amend.instrument, tracked, Action.AMEND, outcome, now)

    def moot(self, client_order_id: str) -> Iterator[VenueSays]:
        """The order had not left when its cancel came: neither will."""
        tracked = self.orders.get(client_order_id)
        if tracked is not None and not tracked.over:
            self._finish(tracked)
            yield OrderCanceled(*tracked.name, "never sent: its cancel came first")

    def unsent(self, client_order_id: str, reason: str) -> Iterator[VenueSays]:
        """The order will not be sent."""
        tracked = self.orders.get(client_order_id)
        if tracked is not None and not tracked.over:
            self._finish(tracked)
            yield OrderExpired(*tracked.name, reason)

    def uncancelled(self, cancel: CancelOrder, reason: str, now: int) -> Iterator[VenueSays]:
        """A cancel will not be sent. Where nothing rests there is nothing to cancel; else the order itself is asked for."""
        tracked = self.orders.get(cancel.client_order_id)
        if tracked is None:
            yield OrderCanceled(cancel.client_order_id, cancel.strategy, cancel.instrument, reason)
        elif not tracked.over:
            tracked.canceling = False
            self._wonder(tracked, now)

    def canceled(self, client_order_id: str, instrument: str, outcome: Outcome, now: int) -> Iterator[VenueSays]:
        """Take in what came of a cancel. That it has happened is told by the stream; if not, it is asked for."""
        tracked = self.orders.get(client_order_id)
        if outcome.verdict is Verdict.REFUSED and not outcome.busy:
            if tracked is not None:
                tracked.canceling = False
            yield self._error("cancel refused", f"{client_order_id}: {outcome.reason}")
        elif outcome.verdict is Verdict.UNKNOWN:
            yield from self._unsure(client_order_id, instrument, tracked, Action.CANCEL, outcome, now)
        elif tracked is not None and not tracked.over:
            tracked.again = outcome.busy
            self._wonder(tracked, now)
        elif tracked is None and outcome.busy:
            yield self._error("cancel not sent", f"{client_order_id}, which nobody told us of: {outcome.reason}")

    def _unsure(
        self, client_order_id: str, instrument: str, tracked: Tracked | None, action: Action, outcome: Outcome, now: int
    ) -> Iterator[VenueSays]:
        if tracked is None:
            yield OrderOutcomeUnknown(client_order_id, "", instrument, f"{action}: {outcome.reason}")
        elif not tracked.over:
            self._wonder(tracked, now)
            if not outcome.look_up:
                yield OrderOutcomeUnknown(*tracked.name, f"{action}: {outcome.reason}")

    # --- what was heard -------------------------------------------------------------------------

    def heard(self, word: OrderWord, now: int) -> Iterator[VenueSays]:
        """Take in the venue's word on an order, from the stream or from an answer."""
        tracked = self._find(word.link_id, word.order_id)
        if tracked is None:
            yield from self._of_a_stranger(word)
            return
        self._bind(tracked, word.order_id)
        if tracked.over:
            if not (tracked.accepted or tracked.vanished):
                tracked.vanished = True
                yield self._error("rejected order exists", f"{word.link_id} was told rejected, and is at the venue")
            return
        yield from self._accept(tracked)
        if word.filled > tracked.expected:
            tracked.expected = word.filled
            if not tracked.unsure:
                tracked.asked, tracked.ts_ask = 0, now + self._patience
        if word.stage is not OrderStage.OPEN:
            tracked.ending, tracked.unsure = word, False
        elif tracked.canceling and tracked.unsure:
            tracked.again = True
        elif tracked.amend is None:
            tracked.unsure = False
        else:
            yield from self._compare_amend(tracked, tracked.amend, word, now)
        yield from self._perhaps_over(tracked)

    def _compare_amend(self, tracked: Tracked, amend: AmendOrder, word: OrderWord, now: int) -> Iterator[VenueSays]:
        """See by an order whether its amendment has arrived; that it has not is certain once it no longer can."""
        if amend.quantity in {None, word.quantity} and amend.limit in {None, word.limit}:
            tracked.amend, tracked.unsure = None, False
            yield _amended(amend)
        elif now >= tracked.ts_amend + self._absent_after:
            tracked.amend, tracked.unsure = None, False
            yield self._error("amend lost", f"{amend.client_order_id}: it stands as it was")

    def executed(self, fill: Execution) -> Iterator[VenueSays]:
        """Take in an execution, from the stream or from an answer. Only the first word of it counts."""
        if fill.trade_id in self._fills:
            return
        self._fills[fill.trade_id] = None
        _forget(self._fills, _KEPT_FILLS)
        tracked = self._find(fill.link_id, fill.order_id)
        of = tracked or self.orders.get(self._parents.get(fill.order_id, ""))
        if tracked is not None:
            self._bind(tracked, fill.order_id)
            yield from self._accept(tracked)
            tracked.filled += fill.quantity
        yield OrderFilled(
            client_order_id=fill.link_id or fill.order_id,
            strategy=of.order.strategy if of is not None else "",
            instrument=fill.instrument,
            trade_id=fill.trade_id,
            side=fill.side,
            quantity=fill.quantity,
            price=fill.price,
            fee=fill.fee,
            fee_currency=fill.fee_currency,
            liquidity=fill.liquidity,
            reference=tracked.order.reference if tracked is not None else None,
            exit=_which(fill, of),
            ts_event=fill.ts_event,
        )
        if tracked is not None:
            yield from self._perhaps_over(tracked)

    def absent(self, client_order_id: str, ts_asked: int) -> Iterator[VenueSays]:
        """The venue, asked at `ts_asked`, knows no such order. Final only once the order can no longer arrive."""
        tracked = self.orders.get(client_order_id)
        if tracked is None or tracked.over:
            return
        if tracked.leaving:
            return  # it is nowhere because it has not left
        final = tracked.ts_sent + self._absent_after
        if ts_asked < final:
            tracked.ts_ask = min(tracked.ts_ask, final)
        elif not tracked.accepted:
            self._finish(tracked)
            yield OrderRejected(*tracked.name, "the venue has no such order")
        elif tracked.asked >= _LOUD and not tracked.vanished:
            tracked.vanished = True
            yield self._error("order vanished", f"{client_order_id} was acknowledged, and the venue has no such order")

    def fills_told(self, client_order_id: str) -> Iterator[VenueSays]:
        """All executions that the venue has of an order have been taken in; some may be missing there too."""
        tracked = self.orders.get(client_order_id)
        if tracked is None or tracked.over or not tracked.lacks_fills or tracked.asked < _LOUD:
            return
        yield self._error("fills missing", f"{client_order_id}: {tracked.expected} filled, {tracked.filled} told")
        tracked.expected = tracked.filled
        yield from self._perhaps_over(tracked)

    def compare(self, shown: Iterable[OrderWord], ts_asked: int, now: int) -> None:
        """All open orders were asked for at `ts_asked`: one of ours that is not among them is over, or nearly there."""
        there = {word.link_id for word in shown}
        for client_order_id, tracked in self._open.items():
            if client_order_id not in there and tracked.accepted and tracked.ts_sent < ts_asked - self._patience:
                self._wonder(tracked, now)

    def doubt_all(self, now: int) -> None:
        """The stream was away: every open order is looked up."""
        for tracked in self.open:
            if not tracked.unsure:
                tracked.unsure, tracked.asked, tracked.ts_ask = True, 0, now

    def due(self, now: int, waiting: Container[Question] = ()) -> list[Question]:
        """What must be asked now, but for what still waits. A question is put again later and later until it helps."""
        questions = []
        for tracked in self._open.values():
            if now < tracked.ts_ask or not (tracked.unsure or tracked.lacks_fills):
                continue
            ask = Ask.STATE if tracked.unsure else Ask.FILLS
            if tracked.again and tracked.canceling:
                ask, tracked.again = Ask.CANCEL, False
            question = Question(tracked.order.client_order_id, tracked.order.instrument, ask)
            if question in waiting:
                continue
            questions.append(question)
            tracked.ts_ask = now + min(_FIRST_PAUSE << min(tracked.asked, 10), _LONGEST_PAUSE)
            tracked.asked += 1
        return questions

    @property
    def open(self) -> list[Tracked]:
        """The orders that are not known to be over, the oldest first."""
        return list(self._open.values())

    # --- inside ---------------------------------------------------------------------------------

    def _keep(self, tracked: Tracked) -> None:
        self.orders[tracked.order.client_order_id] = self._open[tracked.order.client_order_id] = tracked

    def _finish(self, tracked: Tracked) -> None:
        tracked.over, tracked.unsure = True, False
        del self._open[tracked.order.client_order_id]

    def _wonder(self, tracked: Tracked, now: int) -> None:
        """Ask for an order's state, once the stream has had its chance to tell."""
        if not tracked.unsure:
            tracked.unsure, tracked.asked = True, 0
            tracked.ts_ask = now + self._patience

    def _accept(self, tracked: Tracked) -> Iterator[OrderAccepted]:
        if not tracked.accepted:
            tracked.accepted = True
            if tracked.unsure and not tracked.canceling:
                tracked.unsure = False
            yield OrderAccepted(*tracked.name, tracked.venue_order_id)

    def _perhaps_over(self, tracked: Tracked) -> Iterator[VenueSays]:
        """End an order once its end and all of its fills are known, or once its fills are all it wanted."""
        word = tracked.ending
        if tracked.over or tracked.lacks_fills:
            return
        if tracked.filled >= tracked.wanted:
            self._finish(tracked)
            return
        if word is None:
            return
        self._finish(tracked)
        if tracked.filled >= max(tracked.order.quantity, word.quantity):
            return  # an amendment to more than that came to nothing
        match word.stage:
            case OrderStage.CANCELED:
                yield OrderCanceled(*tracked.name, word.reason)
            case OrderStage.EXPIRED:
                yield OrderExpired(*tracked.name, word.reason)
            case _:
                # The venue cuts a reduce-only order down to the position, and calls the rest filled.
                yield OrderExpired(*tracked.name, f"ended at {tracked.filled} of {tracked.order.quantity}")

    def _of_a_stranger(self, word: OrderWord) -> Iterator[VenueSays]:
        """An order that is not ours, or of a life nobody told us of: facts without a strategy, each once."""
        if word.exit:
            if word.parent:
                self._parents[word.order_id] = word.parent
                _forget(self._parents, _KEPT_ORDERS)
            return
        name = (word.link_id or word.order_id, "", word.instrument)
        if word.stage is OrderStage.OPEN:
            if word.order_id not in self._strangers:
                self._strangers[word.order_id] = None
                _forget(self._strangers, _KEPT_ORDERS)
                yield OrderAccepted(*name, word.order_id)
        elif word.stage is OrderStage.CANCELED:
            yield OrderCanceled(*name, word.reason)
        elif word.stage is OrderStage.EXPIRED:
            yield OrderExpired(*name, word.reason)

    def _find(self, link_id: str, order_id: str) -> Tracked | None:
        return self.orders.get(link_id or self._by_venue_id.get(order_id, ""))

    def _bind(self, tracked: Tracked, order_id: str) -> None:
        if order_id and not tracked.venue_order_id:
            tracked.venue_order_id = order_id
            self._by_venue_id[order_id] = tracked.order.client_order_id

    def _forget_oldest(self) -> None:
        """Let finished orders go, the oldest first, once there are many."""
        if len(self.orders) <= 2 * _KEPT_ORDERS:
            return
        for client_order_id in [name for name, tracked in self.orders.items() if tracked.over][:_KEPT_ORDERS]:
            gone = self.orders.pop(client_order_id)
            self._by_venue_id.pop(gone.venue_order_id, None)

    def _error(self, kind: str, detail: str) -> ErrorReported:
        return ErrorReported(self._node, kind, detail)


def _amended(amend: AmendOrder) -> OrderAmended:
    return OrderAmended(amend.client_order_id, amend.strategy, amend.instrument, amend.quantity, amend.limit)


def _which(fill: Execution, of: Tracked | None) -> str:
    """Whether an exit is the stop or the target, by the bracket it belongs to where the venue does not say."""
    if fill.exit != BRACKET:
        return fill.exit
    bracket = of.order.bracket if of is not None else None
    if bracket is None or bracket.target is None:
        return "stop"
    return "stop" if abs(fill.price - bracket.stop) <= abs(fill.price - bracket.target) else "target"


def _forget(memory: dict[str, Any], most: int) -> None:
    """Keep at least the newest `most`: a dict is ordered by age."""
    if len(memory) > 2 * most:
        for old in list(islice(memory, most)):
            del memory[old]
