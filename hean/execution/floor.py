"""The trading floor of a simulated venue: orders and exits at work, from arrival to their end, however they are matched."""

import math
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal

from hean.execution.clearing import Clearing
from hean.execution.desks import Desks
from hean.execution.margin import ZERO
from hean.execution.orders import remember
from hean.execution.venue_state import Desk, Held, SimulatedVenueConfig, SimulatedVenueState, Working
from hean.instruments import Instrument
from hean.messages import (
    Liquidity,
    OrderAccepted,
    OrderBracket,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    Side,
    SubmitOrder,
)

MS = 1_000_000

REMEMBERED = 100_000
"""Link ids kept to refuse a second use. Bybit promises for ever; a mistaken repetition comes within moments."""


class Floor:
    """What befalls orders, whatever is known of the market."""

    def __init__(
        self,
        config: SimulatedVenueConfig,
        instruments: Mapping[str, Instrument],
        desks: Desks,
        clearing: Clearing,
        state: SimulatedVenueState,
    ) -> None:
        self.instruments = instruments
        self.desks = desks
        self.clearing = clearing
        self.state = state
        self._account = state.account
        self._config = config

    def latency(self, what: str) -> int:
        """Nanoseconds until the venue hears of something: drawn from its name, so that a replay draws the same."""
        drawn = zlib.crc32(f"{self._config.seed}/{what}".encode()) / 0xFFFFFFFF
        latency = self._config.latency_ms + self._config.latency_jitter_ms * (2 * drawn - 1)
        return max(0, int(latency * MS))

    # --- orders -------------------------------------------------------------------------------------

    def at_work(self) -> Iterator[Working]:
        for name in self.desks.busy:
            yield from self.desks[name].working.values()

    def admit(self, desk: Desk, working: Working) -> None:
        desk.working[working.order.client_order_id] = working
        self.desks.busy.add(working.order.instrument)

    def dismiss(self, desk: Desk, working: Working) -> None:
        order = working.order
        desk.working.pop(order.client_order_id, None)
        self.desks.tidy(order.instrument)

    def use_up(self, client_order_id: str) -> None:
        remember(self.state.link_ids, client_order_id, None, REMEMBERED)

    def rest(self, desk: Desk, working: Working) -> OrderAccepted:
        working.resting = True
        self.admit(desk, working)
        self.state.orders += 1
        order = working.order
        return OrderAccepted(order.client_order_id, order.strategy, order.instrument, f"sim-{self.state.orders}")

    def expire(self, desk: Desk, working: Working, reason: str) -> OrderExpired:
        order = working.order
        self.dismiss(desk, working)
        return OrderExpired(order.client_order_id, order.strategy, order.instrument, reason)

    def cancel(self, desk: Desk, working: Working, reason: str) -> OrderCanceled:
        order = working.order
        self.dismiss(desk, working)
        return OrderCanceled(order.client_order_id, order.strategy, order.instrument, reason)

    def tradable(self, working: Working) -> Decimal:
        """What of an order may trade: no more than the position if it may only reduce, nor than there is of a coin."""
        order = working.order
        instrument = self.instruments[order.instrument]
        if not order.reduce_only and not (instrument.is_spot and order.side is Side.SELL):
            return working.left
        return min(working.left, self._closable(instrument, order.side))

    def over(self, desk: Desk, working: Working) -> OrderExpired:
        """End an order that nothing is left for."""
        return self.expire(desk, working, "CancelByReduceOnly" if working.order.reduce_only else "Insufficient balance")

    def _closable(self, instrument: Instrument, side: Side) -> Decimal:
        held = self._account.held(instrument)
        return instrument.whole_steps(abs(held)) if held * side < 0 else ZERO

    def make(
        self, desk: Desk, working: Working, now: int, size: float | None = None
    ) -> Iterator[OrderFilled | OrderExpired]:
        """Fill a resting order at its own price, no more than `size` of it."""
        quantity = self.tradable(working)
        if quantity <= 0:
            yield self.over(desk, working)
            return
        if size is not None:
            quantity = min(quantity, self.instruments[working.order.instrument].quantity(size))
        limit = working.order.limit
        if quantity > 0 and limit is not None:
            yield self.fill(desk, working, quantity, limit, Liquidity.MAKER, now)

    def fill(
        self, desk: Desk, working: Working, quantity: Decimal, price: Decimal, liquidity: Liquidity, now: int
    ) -> OrderFilled:
        order = working.order
        working.left -= quantity
        owned = self.clearing.owned(order.instrument, order.strategy)
        filled = self.clearing.book(
            order.client_order_id,
            order.strategy,
            self.instruments[order.instrument],
            order.side,
            quantity,
            price,
            liquidity,
            order.reference,
            "",
            now,
        )
        if desk.held:
            self._use_up_exits(desk, order, quantity)
        if self.instruments[order.instrument].is_spot:
            # A fee taken in the coin bought is not there to be sold again.
            opened = quantity if filled.fee_currency == self.clearing.quote else quantity - order.side * filled.fee
        else:
            opened = min(quantity, max(ZERO, quantity + owned * order.side))
        if order.bracket is not None and opened:
            self._hold(desk, order, opened, order.bracket)
        if not working.left:
            self.dismiss(desk, working)
        return filled

    # --- exits --------------------------------------------------------------------------------------

    def _use_up_exits(self, desk: Desk, order: SubmitOrder, quantity: Decimal) -> None:
        """Let a strategy's own closing trade use up the exits held for it, the oldest first."""
        for held in list(desk.held.values()):
            if held.strategy == order.strategy and held.side is order.side:
                used = min(quantity, held.left)
                held.left -= used
                quantity -= used
                if held.left < self.instruments[order.instrument].step:
                    del desk.held[held.entry]
        self.desks.tidy(order.instrument)

    def _hold(self, desk: Desk, order: SubmitOrder, quantity: Decimal, bracket: OrderBracket) -> None:
        held = desk.held.get(order.client_order_id)
        if held is not None:
            held.left += quantity
            return
        desk.held[order.client_order_id] = Held(
            order.client_order_id,
            order.strategy,
            order.side.other,
            quantity,
            bracket.stop,
            bracket.target,
            float(bracket.stop),
            math.inf * order.side if bracket.target is None else float(bracket.target),
        )
        self.desks.busy.add(order.instrument)

    def exit_quantity(self, instrument: Instrument, held: Held) -> Decimal:
        """How much an exit closes: no more than its strategy owns, whatever others hold against it; of a coin, what there is."""
        left = instrument.whole_steps(held.left)
        if instrument.is_spot:
            return min(left, self._closable(instrument, held.side))
        owned = self.clearing.owned(instrument.id, held.strategy)
        return min(left, max(ZERO, -owned * held.side))

    def release(self, name: str, desk: Desk, held: Held) -> None:
        """Let one of a bracket's two exits go, and the other with it."""
        desk.held.pop(held.entry, None)
        self.desks.tidy(name)

    def exit(
        self, instrument: Instrument, held: Held, kind: str, quantity: Decimal, price: Decimal, now: int
    ) -> OrderFilled:
        reference = held.stop if kind == "stop" or held.target is None else held.target
        return self.clearing.book(
            f"{held.entry}-{kind}",
            held.strategy,
            instrument,
            held.side,
            quantity,
            price,
            Liquidity.TAKER,
            reference,
            kind,
            now,
        )

    def clear(self) -> Iterator[OrderCanceled]:
        """Take everything of ours off the floor, before a liquidation."""
        for desk in self.desks.values():
            for working in list(desk.working.values()):
                yield self.cancel(desk, working, "CancelAllBeforeLiq")
            desk.held.clear()
        self.desks.busy.clear()
