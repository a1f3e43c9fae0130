"""The broker: keeps the life of every order, works pairs, and hears each execution once.

It takes orders from risk alone. What the venue says goes on to whoever is concerned; what it says
twice goes on once.
"""

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.execution.orders import Order
from hean.execution.pairs import Pair, PairConfig, PairExecutor
from hean.instruments import Instrument
from hean.messages import (
    Bar,
    CancelAll,
    CancelOrder,
    Observation,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    Quote,
    SubmitOrder,
    SubmitPair,
    Trade,
    TradingState,
    TradingStateChanged,
    Wake,
)
from hean.tape import Tape

REMEMBERED = 10_000
"""Executions and finished orders kept to recognise a repetition: far more than a venue resends after a reconnect."""


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


VenueFact = OrderAccepted | OrderRejected | OrderOutcomeUnknown | OrderFilled | OrderCanceled | OrderExpired


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
        self._pairs = PairExecutor(config.pairs, dict(instruments))
        self._state = BrokerState()
        self._pairs.pairs = self._state.pairs
        self._pairs.waiting = self._state.waiting

    @property
    def state(self) -> BrokerState:
        return self._state

    def handle(
        self,
        message: SubmitOrder
        | SubmitPair
        | CancelOrder
        | CancelAll
        | TradingStateChanged
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | Bar
        | Quote
        | Trade
        | Wake,
        now: int,
    ) -> Iterator[
        SubmitOrder
        | CancelOrder
        | OrderSubmitted
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | PairFinished
    ]:
        match message:
            case SubmitOrder():
                yield from self._send(message)
            case (
                OrderFilled()
                | OrderAccepted()
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
                yield from self._cancel(message)
            case CancelAll(strategy=strategy):
                yield from self._work(self._pairs.stop(strategy, "canceled"))
                for order in list(self._state.open.values()):
                    if strategy in {"", order.strategy} and order.limit is not None:
                        yield CancelOrder(order.strategy, order.client_order_id, order.instrument)
            case TradingStateChanged(trading=trading):
                self._state.trading = trading
                if trading is not TradingState.ACTIVE:
                    yield from self._work(self._pairs.stop("", f"trading is {trading}"))
            case Bar(instrument=name, close=close):
                yield from self._work(self._pairs.saw(name, close, close, now))
            case Trade(instrument=name, price=price):
                yield from self._work(self._pairs.saw(name, price, price, now))
            case Quote(instrument=name, bid=bid, ask=ask):
                yield from self._work(self._pairs.saw(name, bid, ask, now))
            case Wake():
                yield from self._work(self._pairs.woken(now))
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self._pairs.wake_at() if self._state.pairs else None

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
        )
        submitted = OrderSubmitted(order.client_order_id, order.strategy, order.instrument, order.side, order.quantity)
        order.apply(submitted)
        self._state.open[order.client_order_id] = order
        yield submitted
        yield submit

    def _cancel(self, message: CancelOrder) -> Iterator[SubmitOrder | CancelOrder | OrderSubmitted | PairFinished]:
        if message.client_order_id in self._state.pairs:
            yield from self._work(self._pairs.stop(message.strategy, "canceled"))
        elif message.client_order_id in self._state.open:
            yield message

    def _relay(
        self, fact: VenueFact, now: int
    ) -> Iterator[VenueFact | SubmitOrder | CancelOrder | OrderSubmitted | PairFinished]:
        state = self._state
        if type(fact) is OrderFilled:
            # Bybit re-sends executions after a reconnect; the first one counted.
            if fact.trade_id in state.heard:
                return
            _remember(state.heard, fact.trade_id, None)
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
            _remember(state.finished, order.client_order_id, order)
        if state.pairs:
            yield from self._work(self._pairs.heard(fact, order, now))

    def _work(
        self, said: Iterator[SubmitOrder | CancelOrder | PairFinished] | Iterator[CancelOrder]
    ) -> Iterator[SubmitOrder | CancelOrder | OrderSubmitted | PairFinished]:
        for message in said:
            if isinstance(message, SubmitOrder):
                yield from self._send(message)
            else:
                yield message

    # --- rows that pass in silence -----------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first price a resting lead would follow."""
        for name, since in self._pairs.follows():
            for kind in (Bar, Quote, Trade):
                stream = tape.stream(kind, name) if (name, kind) in self.watches else None
                if stream is not None:
                    row = max(stream.rows_before(start), int(stream.ts.searchsorted(since)))
                    if row < len(stream):
                        stop = min(stop, stream.position(row))
        return stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        """Rows a lead does not follow leave nothing behind."""


def _remember(memory: dict[str, Any], key: str, value: Any) -> None:
    """Keep the newest entries of a dict, which is ordered by age."""
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
