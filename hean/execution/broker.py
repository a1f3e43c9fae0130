"""The broker: keeps the life of every order, works pairs, and hears each execution once.

It takes orders from risk alone. What the venue says goes on to whoever is concerned; what it says
twice goes on once.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.execution.orders import Order, OrderStatus, Restorable, remember
from hean.execution.pairs import Pair, PairConfig, PairExecutor, pair_of
from hean.instruments import Instrument
from hean.market.crossings import first_beyond
from hean.messages import (
    CORE,
    AmendOrder,
    Bar,
    CancelAll,
    CancelOrder,
    NodeStarted,
    Observation,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    OrderSubmitted,
    PairFinished,
    Quote,
    Side,
    SubmitOrder,
    SubmitPair,
    Trade,
    TradingState,
    TradingStateChanged,
    Wake,
)
from hean.tape import Stream, Tape

REMEMBERED = 10_000
"""Executions and finished orders kept at the least to recognise a repetition: far more than a venue resends."""


class BrokerConfig(BaseModel, frozen=True, extra="forbid"):
    pairs: PairConfig = Field(default=PairConfig(), description="how two legs are traded as one")


class BrokerState(Struct):
    """`open` and `finished` by client order id; the rest is the pair executor's."""

    open: dict[str, Order] = field(default_factory=dict)
    finished: dict[str, Order] = field(default_factory=dict)
    heard: dict[str, None] = field(default_factory=dict)
    pairs: dict[str, Pair] = field(default_factory=dict)
    waiting: dict[str, SubmitPair] = field(default_factory=dict)
    trading: TradingState = TradingState.ACTIVE


VenueFact = (
    OrderAccepted | OrderRejected | OrderOutcomeUnknown | OrderFilled | OrderAmended | OrderCanceled | OrderExpired
)


class Broker:
    """Order manager and router.

    Args:
        config: How pairs are worked.
        instruments: The rules of what is traded.
        watches: What it is told of the market: the prices a pair's lead follows.
    """

    def __init__(
        self,
        config: BrokerConfig,
        instruments: Mapping[str, Instrument],
        watches: frozenset[tuple[str, type[Observation]]] = frozenset(),
    ) -> None:
        self.config = config
        self.watches = watches
        self._instruments = dict(instruments)
        self._pairs = PairExecutor(config.pairs, self._instruments)
        self.state = BrokerState()

    @property
    def state(self) -> BrokerState:
        return self._state

    @state.setter
    def state(self, state: BrokerState) -> None:
        """Take over what a snapshot holds; the executor looks at the same."""
        self._state = state
        self._pairs.pairs = state.pairs
        self._pairs.waiting = state.waiting
        self._pairs.hurried = state.trading is not TradingState.ACTIVE

    def handle(
        self,
        message: SubmitOrder
        | SubmitPair
        | AmendOrder
        | CancelOrder
        | CancelAll
        | TradingStateChanged
        | NodeStarted
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderAmended
        | OrderCanceled
        | OrderExpired
        | Bar
        | Quote
        | Trade
        | Wake,
        now: int,
    ) -> Iterator[
        SubmitOrder
        | AmendOrder
        | CancelOrder
        | CancelAll
        | OrderSubmitted
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderAmended
        | OrderCanceled
        | OrderExpired
        | OrdersRestated
        | PairFinished
    ]:
        match message:
            case SubmitOrder():
                yield from self._send(message)
            case (
                OrderFilled()
                | OrderAccepted()
                | OrderAmended()
                | OrderCanceled()
                | OrderExpired()
                | OrderRejected()
                | OrderOutcomeUnknown()
            ):
                yield from self._relay(message, now)
            case SubmitPair():
                if self._state.trading is not TradingState.ACTIVE and message.opening:
                    yield PairFinished(
                        message.pair_id, message.strategy, "unwound", f"trading is {self._state.trading}"
                    )
                else:
                    yield from self._work(self._pairs.start(message, now))
            case CancelOrder():
                if message.client_order_id in self._state.open:
                    yield message
                elif message.client_order_id in self._state.pairs:
                    yield from self._work(self._pairs.cancel(message.client_order_id, now))
            case AmendOrder():
                if message.client_order_id in self._state.open:
                    yield message
            case CancelAll(strategy=strategy):
                # A pair's own orders are called back through it; one that closes goes on.
                yield from self._work(self._pairs.stop(strategy, "canceled", now))
                yield from self._cancel_resting(strategy)
                if not strategy:
                    yield message  # the venue may hold what nobody told us of
            case NodeStarted(node=node):
                if node == CORE:
                    yield from self._restart(now)
            case TradingStateChanged(trading=trading):
                self._state.trading = trading
                self._pairs.hurried = trading is not TradingState.ACTIVE
                if trading is not TradingState.ACTIVE:
                    yield from self._work(self._pairs.stop("", f"trading is {trading}", now))
            case Bar(instrument=name, close=price) | Trade(instrument=name, price=price):
                if self._state.pairs:
                    yield from self._work(self._pairs.saw(name, *self._pairs.resting(name, price), now))
            case Quote(instrument=name, bid=bid, ask=ask):
                yield from self._work(self._pairs.saw(name, bid, ask, now))
            case Wake():
                yield from self._work(self._pairs.woken(now))
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self._pairs.wake_at() if self._state.pairs else None

    def restorable(self) -> list[Restorable]:
        """The orders that may be open, the oldest first: what the venue's gateway takes up after a restart."""
        return [order.restorable() for order in self._state.open.values()]

    def heard(self) -> list[str]:
        """The `trade_id` of every execution that is remembered to have been heard, the oldest first."""
        return list(self._state.heard)

    # --- orders -----------------------------------------------------------------------------------

    def _restart(self, now: int) -> Iterator[CancelOrder | OrdersRestated]:
        """Go on after a restart: what was asked of the venue may be lost, so what may be asked twice is asked again."""
        yield from self._pairs.restarted(self._unanswered(), now)
        yield from self._cancel_resting("")
        yield self._restated()

    def _unanswered(self) -> list[str]:
        """Open orders that the venue is not known to have."""
        silent = {OrderStatus.SUBMITTED, OrderStatus.UNKNOWN}
        return [order.client_order_id for order in self._state.open.values() if order.status in silent]

    def _cancel_resting(self, strategy: str) -> Iterator[CancelOrder]:
        """Cancel the entry orders that no pair works."""
        for order in list(self._state.open.values()):
            paired = pair_of(order.client_order_id) in self._state.pairs
            if strategy in {"", order.strategy} and order.limit is not None and not paired:
                yield CancelOrder(order.strategy, order.client_order_id, order.instrument)

    def _restated(self) -> OrdersRestated:
        state = self._state
        pairs = (*(pair.order for pair in state.pairs.values()), *state.waiting.values())
        return OrdersRestated({name: order.restated() for name, order in state.open.items()}, pairs)

    def _send(self, submit: SubmitOrder) -> Iterator[SubmitOrder | OrderSubmitted]:
        order = Order(
            submit.client_order_id,
            submit.strategy,
            submit.instrument,
            submit.side,
            submit.quantity,
            submit.limit,
            submit.time_in_force,
            submit.reference,
            reduce_only=submit.reduce_only,
            bracket=submit.bracket,
        )
        if order.client_order_id in self._state.open or order.client_order_id in self._state.finished:
            return  # told twice, sent once
        submitted = OrderSubmitted(order.client_order_id, order.strategy, order.instrument, order.side, order.quantity)
        order.apply(submitted)
        self._state.open[order.client_order_id] = order
        yield submitted
        yield submit

    def _relay(
        self, fact: VenueFact, now: int
    ) -> Iterator[VenueFact | SubmitOrder | CancelOrder | OrderSubmitted | OrdersRestated | PairFinished]:
        state = self._state
        if type(fact) is OrderFilled:
            # Bybit re-sends executions after a reconnect; the first one counted.
            if fact.trade_id in state.heard:
                return
            remember(state.heard, fact.trade_id, None, REMEMBERED)
            if fact.exit:
                yield fact  # an exit held at the venue: no order of ours, and no state to keep
                return
        order = state.open.get(fact.client_order_id) or state.finished.get(fact.client_order_id)
        if order is None:
            yield fact  # not ours, or older than we remember: the reconciler will say
            return
        was_over = order.over
        if was_over and type(fact) is not OrderFilled:
            return  # a second final message for one order
        order.apply(fact)
        yield fact
        if order.over and not was_over:
            del state.open[order.client_order_id]
            remember(state.finished, order.client_order_id, order, REMEMBERED)
        if state.pairs:
            yield from self._work(self._pairs.heard(fact, order, now))

    def _work(
        self, said: Iterator[SubmitOrder | CancelOrder | PairFinished]
    ) -> Iterator[SubmitOrder | CancelOrder | OrderSubmitted | OrdersRestated | PairFinished]:
        for message in said:
            if isinstance(message, SubmitOrder):
                yield from self._send(message)
            elif isinstance(message, PairFinished) and message.outcome == "broken" and self._left_alive(message):
                # Its order may yet trade: risk must count it by itself before it lets go of the pair.
                yield self._restated()
                yield message
            else:
                yield message

    def _left_alive(self, finished: PairFinished) -> bool:
        return any(pair_of(name) == finished.pair_id for name in self._state.open)

    # --- rows that pass in silence -----------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first price that a lead would follow."""
        for pair in self._pairs.follows():
            for stream in self._streams(tape, pair.order.lead.instrument):
                first = max(stream.rows_before(start), int(stream.ts.searchsorted(pair.ts_follow)))
                last = stream.rows_before(stop)
                if first < last:
                    row = self._left_behind(pair, stream, first, last) if pair.child else first
                    if row < last:
                        stop = min(stop, stream.position(row))
        return stop

    def _left_behind(self, pair: Pair, stream: Stream, first: int, last: int) -> int:
        """The first row in [first, last) at which a resting lead is no longer where it would be put."""
        tick, limit = float(self._instruments[stream.instrument].tick), float(pair.limit or 0)
        sells = pair.order.lead.side is Side.SELL
        if stream.kind is Quote:
            column, below, above = "ask" if sells else "bid", limit - 0.49 * tick, limit + 0.49 * tick
        else:
            column = "close" if stream.kind is Bar else "price"
            # A single price is rounded up for an offer and down for a bid, within a billionth of a tick.
            below, above = limit - 1.99 * tick, limit - (1 - 5e-10) * tick
            if not sells:
                below, above = limit + (1 - 5e-10) * tick, limit + 1.99 * tick
        prices = stream.columns[column]
        return int(first_beyond(prices, prices, below, above, first, last))

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        """Rows that no lead follows leave their price behind."""
        for name in {pair.order.lead.instrument for pair in self._state.pairs.values()}:
            newest, at = start - 1, None
            for stream in self._streams(tape, name):
                row = stream.rows_before(stop) - 1
                if row >= 0 and stream.position(row) > newest:
                    newest, at = stream.position(row), (stream, row)
            if at is not None:
                stream, row = at
                of = stream.columns
                if stream.kind is Quote:
                    bid, ask = of["bid"].item(row), of["ask"].item(row)
                else:
                    bid, ask = self._pairs.resting(name, of["close" if stream.kind is Bar else "price"].item(row))
                self._pairs.passed(name, bid, ask)

    def _streams(self, tape: Tape, name: str) -> Iterator[Stream]:
        for kind in (Bar, Quote, Trade):
            stream = tape.stream(kind, name) if (name, kind) in self.watches else None
            if stream is not None:
                yield stream
