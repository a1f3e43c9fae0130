"""The desk: makes the orders, reserves what they may come to hold, and lets go of it when they have ended."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from hean.instruments import Category, Instrument
from hean.messages import (
    OrderAmended,
    OrderBracket,
    OrderFact,
    OrderFilled,
    OrdersRestated,
    PairFinished,
    PairLeg,
    PositionChanged,
    Side,
    SubmitOrder,
    SubmitPair,
    TimeInForce,
)
from hean.risk.config import RiskConfig, exact
from hean.risk.exposure import BUY, RESERVE, SELL, ZERO, Order, Slot
from hean.risk.memory import DecisionMemory
from hean.risk.sizing import stressed, whole
from hean.risk.state import RiskState, Seen

_IOC = TimeInForce.IOC

ON_THE_WAY = 30_000_000_000
"""Nanoseconds within which a fill's position may still be coming."""


class Desk:
    """Every order of ours begins here, and what becomes of it is kept here.

    What is told to it comes back as the slot it was about, or None if the desk knows nothing of it.
    """

    def __init__(
        self,
        config: RiskConfig,
        instruments: Mapping[str, Instrument],
        names: Iterable[str],
        run: str,
        memory: DecisionMemory,
    ) -> None:
        self.state = RiskState()
        self._instruments = instruments
        self._names = frozenset(names)
        self._run = run
        self._memory = memory
        self._max_naked = exact(config.max_naked)
        self._least_margin = 1 / exact(config.leverage)
        self._shock = exact(config.stress_shock)
        self._most = {name: whole(rules.max_market_quantity, rules.step) for name, rules in instruments.items()}

    def close(self, slots: list[Slot], *, as_pairs: bool = True) -> Iterator[SubmitOrder | SubmitPair]:
        """Close what these slots hold: two opposite legs of one base coin as a pair, anything else by itself."""
        if as_pairs and len(slots) > 1:
            for base in dict.fromkeys(slot.base for slot in slots):
                legs = [slot for slot in slots if slot.base == base]
                if len(legs) == 2 and legs[0].held * legs[1].held < 0:
                    slots = [slot for slot in slots if slot.base != base]
                    legs.sort(key=lambda slot: self._instruments[slot.instrument].category is not Category.LINEAR)
                    first, second = ((slot, SELL if slot.held > 0 else BUY, abs(slot.held)) for slot in legs)
                    yield self.pair_order(first, second, opening=False)
        for slot in slots:
            yield from self.reduce(slot, abs(slot.held), decided=False)

    def reduce(self, slot: Slot, quantity: Decimal, *, decided: bool = True) -> list[SubmitOrder]:
        """Sell or buy back part of what is held, in as many orders as the venue's largest asks for.

        `decided` is whether a strategy wants it, at the price it named.
        """
        side = SELL if slot.held > ZERO else BUY
        spot = self._is_spot(slot)
        netted = self._netted(slot, slot.held)
        most = self._most.get(slot.instrument) or quantity
        orders = []
        while quantity > ZERO:
            part = min(quantity, most)
            # What is too small to be an order by itself may still reduce.
            reduce_only = not spot and not (netted and self._is_order(slot, part))
            orders.append(self.order(slot, side, part, reduce_only=reduce_only, bracket=None, decided=decided))
            quantity -= part
        return orders

    def _netted(self, slot: Slot, stands: Decimal) -> bool:
        """Whether anybody stands, or may come to stand, against a position in the same instrument, the reserve included.

        The venue knows one net position: it refuses a reduce-only order on its side, and cuts one that is larger.
        """
        for strategy, places in self.state.slots.items():
            other = places.get(slot.instrument) if strategy != slot.strategy else None
            if other is not None and (
                min(other.held, other.target) < 0 < stands or max(other.held, other.target) > 0 > stands
            ):
                return True
        return False

    def _is_order(self, slot: Slot, quantity: Decimal) -> bool:
        """Whether the venue takes an order of this size that opens something."""
        rules = self._instruments.get(slot.instrument)
        return rules is None or (quantity >= rules.min_quantity and quantity * slot.price >= rules.min_notional)

    def order(
        self,
        slot: Slot,
        side: Side,
        quantity: Decimal,
        *,
        reduce_only: bool,
        bracket: OrderBracket | None,
        decided: bool = True,
    ) -> SubmitOrder:
        order_id = self._next_id(slot.strategy)
        change = quantity if side is BUY else -quantity
        self.state.orders[order_id] = Order(slot.strategy, slot.instrument, change)
        slot.orders += 1
        slot.target += change
        slot.reduces = reduce_only
        slot.revalue()
        return SubmitOrder(
            client_order_id=order_id,
            strategy=slot.strategy,
            instrument=slot.instrument,
            side=side,
            quantity=quantity,
            limit=None,
            time_in_force=_IOC,
            reduce_only=reduce_only,
            reference=slot.price if decided else None,
            bracket=bracket,
        )

    def pair_order(
        self, lead: tuple[Slot, Side, Decimal], hedge: tuple[Slot, Side, Decimal], *, opening: bool
    ) -> SubmitPair:
        pair_id = self._next_id(lead[0].strategy)
        legs = []
        reduce_only = not any(
            self._netted(slot, side * quantity if opening else slot.held)
            for slot, side, quantity in (lead, hedge)
            if not self._is_spot(slot)
        )
        for slot, side, quantity in (lead, hedge):
            slot.pair = pair_id
            slot.reduces = reduce_only and not opening
            slot.target = side * quantity if opening else ZERO
            slot.revalue()
            legs.append(PairLeg(slot.instrument, side, quantity, slot.price))
        return SubmitPair(
            pair_id=pair_id,
            strategy=lead[0].strategy,
            lead=legs[0],
            hedge=legs[1],
            opening=opening,
            max_naked=self._max_naked * (self.state.kill.equity or 0),
            reduce_only=reduce_only,
        )

    def _next_id(self, strategy: str) -> str:
        state = self.state
        state.issued += 1
        # A position may carry the name of a strategy that is no longer configured: such a name was never checked.
        name = strategy if strategy in self._names else "other"
        return f"{self._run}{in_letters(state.epoch)}-{name}-{state.issued}"

    def probe(self, order: SubmitOrder) -> None:
        """Count an order that a process made, as one of ours."""
        slot = self.slot(order.strategy, order.instrument)
        change = order.side * order.quantity
        self.state.orders[order.client_order_id] = Order(order.strategy, order.instrument, change)
        slot.orders += 1
        slot.target += change
        slot.price = slot.price or order.limit or ZERO
        slot.revalue()

    # --- what befell them -----------------------------------------------------------------------

    def filled(self, fill: OrderFilled, now: int) -> Slot:
        state = self.state
        slot = self.slot(fill.strategy, fill.instrument)
        change = fill.quantity if fill.side is BUY else -fill.quantity
        slot.fills += 1
        slot.ts_fill = now
        slot.price = fill.price
        self.saw(fill.instrument, fill.price, now)
        order = state.orders.get(fill.client_order_id)
        if order is not None:
            order.remaining -= change
            order.filled += fill.quantity
            if not order.remaining:
                del state.orders[fill.client_order_id]
                slot.orders -= 1
        elif not slot.pair:  # an exit held by the venue, or a fill that crossed a cancel on the wire
            slot.target += change
        if slot.trip is not None:
            instrument = self._instruments.get(fill.instrument)
            # A fee in the base coin is not cash: it makes what is held, and later sold, less.
            fee = float(fill.fee) if instrument is None or fill.fee_currency == instrument.quote else 0.0
            before = slot.trip.context
            outcome = slot.trip.fold(change, float(fill.price), fee)
            if outcome is not None:
                slot.trip.context = slot.context
                self._memory.record(slot.strategy, before, outcome, now)
        self._settle(slot, now)
        return slot

    def ended(self, message: OrderFact, now: int) -> Slot | None:
        """An order is over, whatever of it has not traded."""
        order = self.state.orders.pop(message.client_order_id, None)
        if order is None:
            return None
        slot = self.slot(order.strategy, order.instrument)
        slot.leave |= self._netted_meanwhile(slot)
        slot.orders -= 1
        slot.target -= order.remaining
        self._settle(slot, now)
        return slot

    def _netted_meanwhile(self, slot: Slot) -> bool:
        """Whether what was to close this place ended too soon because it had to reduce, and others came to stand against it.

        It is then closed by what need not reduce: that cannot end for the same. If nobody stands against it, the
        venue does not have what we hold; nothing more is sent for it, and the reconciler will say.
        """
        reduces, slot.reduces = slot.reduces, False
        return reduces and not slot.target and self._netted(slot, slot.held)

    def amended(self, message: OrderAmended, now: int) -> Slot | None:
        """An order wants less from now on."""
        order = self.state.orders.get(message.client_order_id)
        if order is None or message.quantity is None:
            return None
        slot = self.slot(order.strategy, order.instrument)
        left = max(message.quantity - order.filled, ZERO)
        remaining = left if order.remaining > ZERO else -left
        slot.target += remaining - order.remaining
        order.remaining = remaining
        if not remaining:
            del self.state.orders[message.client_order_id]
            slot.orders -= 1
        self._settle(slot, now)
        return slot

    def unknown(self, order_id: str, *, unknown: bool) -> None:
        """The venue did not answer, or has after all. Either way the order may trade, and stays reserved."""
        order = self.state.orders.get(order_id)
        if order is not None:
            order.unknown = unknown

    def pair_finished(self, message: PairFinished, now: int) -> list[Slot]:
        places = self.state.slots.get(message.strategy, {})
        slots = [slot for slot in places.values() if slot.pair == message.pair_id]
        ended_early = bool(message.reason) and message.outcome != "broken"
        again = [slot for slot in slots if not self._is_spot(slot) and self._netted_meanwhile(slot) and ended_early]
        for slot in slots:
            slot.pair = ""
            slot.leave |= bool(again)  # its legs leave together
            self._settle(slot, now)
        return slots

    def position(self, message: PositionChanged, now: int) -> Slot:
        slot = self.slot(message.strategy, message.instrument)
        slot.hold(message.quantity, message.dust)
        if slot.restating:
            slot.restating = False
            if not slot.pair:
                slot.target = slot.held + self._under_way(slot)
        if not slot.price:
            slot.price = message.entry
        self._settle(slot, now)
        return slot

    def agreed(self, now: int) -> None:
        """Our books and the venue's agree, so no position is still to come for a fill of some time ago.

        A fresh one may have been compared by the others already while its position is on the way to us.
        """
        for places in self.state.slots.values():
            for slot in places.values():
                if now - slot.ts_fill >= ON_THE_WAY:
                    slot.fills = slot.positions = 0
                    self._settle(slot, now)

    # --- after a restart ------------------------------------------------------------------------

    def restart(self) -> None:
        """A new life begins: what is under way may be no more, and what is held is about to be told anew."""
        state, slots = self.state, self._slots()
        state.earlier = [*state.orders, *dict.fromkeys(slot.pair for slot in slots if slot.pair)]
        for slot in slots:
            slot.restating = True
            slot.fills = slot.positions = 0

    def started(self) -> None:
        """Trading begins: by now the portfolio has restated what it holds."""
        for slot in self._slots():
            slot.restating = False

    def restated(self, message: OrdersRestated, now: int) -> list[Slot]:
        """Hold what the broker has under way, and of what was asked for in earlier lives nothing else.

        What was asked for in this life may still be on its way to the broker.
        """
        state = self.state
        gone = set(state.earlier).difference(message.remaining, (pair.pair_id for pair in message.pairs))
        state.earlier.clear()
        state.orders = {name: order for name, order in state.orders.items() if name not in gone}
        pairs = {pair.pair_id: pair for pair in message.pairs}
        for name, told in message.remaining.items():
            if name.rpartition("-")[0] not in pairs:  # a pair counts as what it aims at
                state.orders[name] = Order(told.strategy, told.instrument, told.remaining, told.unknown, told.filled)
                self.slot(told.strategy, told.instrument)
        for slot in self._slots():
            slot.pair = "" if slot.pair in gone else slot.pair
        for pair in message.pairs:
            for leg in (pair.lead, pair.hedge):
                self._take_up(pair, leg)
        slots = self._slots()
        for slot in slots:
            slot.orders = sum(_of(slot, order) for order in state.orders.values())
            if not slot.pair:
                slot.target = slot.held + self._under_way(slot)
            self._settle(slot, now)
        return slots

    def _take_up(self, pair: SubmitPair, leg: PairLeg) -> None:
        slot = self.slot(pair.strategy, leg.instrument)
        slot.pair = pair.pair_id
        slot.reduces = pair.reduce_only and not pair.opening
        slot.price = slot.price or leg.reference
        slot.target = leg.side * leg.quantity if pair.opening else ZERO
        rules = self._instruments.get(leg.instrument)
        if pair.opening and not slot.stress and rules is not None and not rules.is_spot:
            slot.stress = stressed(leg.quantity * leg.reference, slot.margin_rate, self._shock)

    def _slots(self) -> list[Slot]:
        return [slot for places in self.state.slots.values() for slot in places.values()]

    def _under_way(self, slot: Slot) -> Decimal:
        """What the orders of a place may still add to it."""
        return sum((order.remaining for order in self.state.orders.values() if _of(slot, order)), ZERO)

    def _settle(self, slot: Slot, now: int) -> None:
        if slot.settle() and slot.trip is not None and not slot.held:
            if slot.trip.notional:
                self._memory.record(slot.strategy, slot.trip.context, slot.trip.outcome_bp(), now)
            slot.trip = None

    # --- what is known of a place ---------------------------------------------------------------

    def slot(self, strategy: str, instrument: str) -> Slot:
        places = self.state.slots.get(strategy)
        if places is None:
            places = self.state.slots[strategy] = {}
        slot = places.get(instrument)
        if slot is None:
            rules = self._instruments.get(instrument)
            base = instrument if rules is None else rules.base
            slot = places[instrument] = Slot(strategy, instrument, base, self._margin_rate(rules))
        return slot

    def _margin_rate(self, rules: Instrument | None) -> Decimal:
        """Initial margin, as a share of value: all of it for spot, and for what is not known."""
        if rules is None or rules.is_spot:
            return Decimal(1)
        least = rules.tiers[0].initial_rate if rules.tiers else 1 / rules.max_leverage
        return max(least, self._least_margin)

    def tradable(self, slot: Slot) -> bool:
        """Whether what is held can be closed: above the venue's least order always, of a derivative below it too.

        Of the latter no more than the net position has of it: what is less than the least order, and held against by as
        much, stays, for the venue has no position there.
        """
        if not slot.held:
            return False
        if self._is_order(slot, abs(slot.held)):
            return True
        if self._is_spot(slot):
            return False
        net = sum((other.held for other in self._slots() if other.instrument == slot.instrument), ZERO)
        return net * slot.held > 0

    def _is_spot(self, slot: Slot) -> bool:
        rules = self._instruments.get(slot.instrument)
        return rules is not None and rules.is_spot

    def flat(self) -> bool:
        """Whether no strategy holds anything that can be closed, and nothing is under way."""
        return not any(
            slot.pending or self.tradable(slot)
            for strategy, places in self.state.slots.items()
            for slot in places.values()
            if strategy != RESERVE
        )

    def resting(self) -> bool:
        """Whether something is under way that a cancel may call back: an order, or a pair that opens."""
        return bool(self.state.orders) or any(slot.pair and slot.target for slot in self._slots())

    def lost(self, slot: Slot) -> bool:
        """Whether all that is under way are orders the venue does not answer for, on a derivative.

        There, one more reduce-only order cannot do harm: it closes what is held and no more.
        """
        if slot.pair or not slot.orders or slot.margin_rate == 1 or self._netted(slot, slot.held):
            return False
        return all(order.unknown for order in self.state.orders.values() if _of(slot, order))

    def saw(self, instrument: str, price: float | Decimal, now: int) -> None:
        seen = self.state.prices.get(instrument)
        if seen is None:
            self.state.prices[instrument] = Seen(price, now)
        else:
            seen.price = price
            seen.ts = now


def _of(slot: Slot, order: Order) -> bool:
    return order.strategy == slot.strategy and order.instrument == slot.instrument


def in_letters(epoch: int) -> str:
    """The number of a life as it stands in an order's id: base 36, and nothing where no life was counted."""
    letters = ""
    while epoch > 0:
        epoch, digit = divmod(epoch, 36)
        letters = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + letters
    return letters
