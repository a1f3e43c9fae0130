"""Two legs as one: the lead first, as maker; every fill of it hedged at once; unwound when it cannot be.

    LEADING ──fill──► HEDGING ──hedged──► LEADING … ──all hedged──► done
       │                 │
       │ given up        └─cannot be hedged──► UNWINDING ──► unwound, or broken
       └──► done with what is hedged

The lead is cut into clips, so that what stands unhedged never exceeds `max_naked`.
"""

import enum
from collections.abc import Iterator
from decimal import Decimal

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.execution.orders import Order
from hean.instruments import Instrument
from hean.messages import (
    CancelOrder,
    OrderFact,
    OrderFilled,
    OrderRejected,
    PairFinished,
    PairLeg,
    Side,
    SubmitOrder,
    SubmitPair,
    TimeInForce,
)

ZERO = Decimal(0)
S = 1_000_000_000


class PairConfig(BaseModel, frozen=True, extra="forbid"):
    reprice_s: float = Field(default=2.0, gt=0, description="seconds a resting lead waits before it follows the price")
    max_walk_bp: float = Field(
        default=10.0,
        ge=0,
        description="basis points from the price decided at, beyond which an opening lead is given up",
    )
    patience_s: float = Field(
        default=3600.0, gt=0, description="seconds after which an opening pair is given up, and a closing one crosses"
    )
    hedge_attempts: int = Field(default=3, ge=1, description="orders tried for one hedge before the lead is unwound")
    spot_fee_bp: float = Field(
        default=10.0,
        ge=0,
        description="taker fee on spot, basis points; a buyer pays it in the coin, so the hedge buys more",
    )


class Stage(enum.StrEnum):
    LEADING = "LEADING"
    HEDGING = "HEDGING"
    UNWINDING = "UNWINDING"


class Pair(Struct):
    """A pair in progress. Quantities are of each leg, fees in the coin taken off."""

    order: SubmitPair
    ts_started: int
    ts_follow: int
    stage: Stage = Stage.LEADING
    led: Decimal = ZERO
    hedged: Decimal = ZERO
    attempt: int = 0
    failures: int = 0
    bid: float = 0.0
    ask: float = 0.0
    child: str = ""
    limit: Decimal | None = None
    canceling: bool = False
    crossing: bool = False
    ending: str = ""


class PairExecutor:
    """Works one pair of a strategy at a time; what comes meanwhile waits its turn."""

    def __init__(self, config: PairConfig, instruments: dict[str, Instrument]) -> None:
        self.config = config
        self.instruments = instruments
        self.pairs: dict[str, Pair] = {}
        self.waiting: dict[str, SubmitPair] = {}

    def start(self, order: SubmitPair, now: int) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        busy = [pair for pair in self.pairs.values() if pair.order.strategy == order.strategy]
        if busy:
            self.waiting[order.pair_id] = order
            return
        clip = self._clip(order, order.lead.quantity)
        if clip <= 0:
            yield PairFinished(
                order.pair_id, order.strategy, "unwound", f"max_naked {order.max_naked} is under the smallest order"
            )
            return
        seen = float(order.lead.reference)
        pair = Pair(order, ts_started=now, ts_follow=now, bid=seen, ask=seen)
        self.pairs[order.pair_id] = pair
        yield from self._lead(pair, now)

    def stop(self, strategy: str, reason: str) -> Iterator[CancelOrder]:
        """Open no more for a strategy, or for all where it is empty: finish with what is hedged."""
        for pair_id, order in list(self.waiting.items()):
            if order.opening and strategy in {"", order.strategy}:
                del self.waiting[pair_id]
        for pair in self.pairs.values():
            if pair.order.opening and strategy in {"", pair.order.strategy} and not pair.ending:
                pair.ending = reason
                yield from self._cancel_lead(pair)

    def heard(self, fact: OrderFact, order: Order, now: int) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        """Go on from a fact about one of our children."""
        pair = self.pairs.get(_pair_of(order.client_order_id))
        if pair is None:
            return
        if isinstance(fact, OrderFilled):
            self._count(pair, fact)
            if pair.stage is Stage.LEADING and not order.over and self._unhedged(pair) > 0 and not pair.canceling:
                # What is filled is hedged before more is: the rest of the clip comes back first.
                yield from self._cancel_lead(pair)
        if not order.over or order.client_order_id != pair.child:
            return
        passed_over = pair.stage is Stage.LEADING and order.filled == 0 and not pair.canceling and not pair.crossing
        pair.child = ""
        pair.canceling = False
        pair.failures = pair.failures + 1 if order.filled == 0 else 0
        if isinstance(fact, OrderRejected) and pair.stage is Stage.LEADING:
            pair.ending = pair.ending or f"lead rejected: {fact.reason}"
        if passed_over and not pair.ending:
            return  # it would have taken: the next price says where it may rest
        yield from self._go_on(pair, now)

    def saw(
        self, instrument: str, bid: float, ask: float, now: int
    ) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        """Follow the price with a lead it has left behind, or that found no place to rest."""
        for pair in list(self.pairs.values()):
            leg = pair.order.lead
            if leg.instrument != instrument or pair.stage is not Stage.LEADING or now < pair.ts_follow or pair.crossing:
                continue
            pair.bid, pair.ask = bid, ask
            if not pair.child:
                yield from self._go_on(pair, now)
            elif pair.limit != self._limit(pair, self.instruments[instrument]):
                yield from self._cancel_lead(pair)

    def woken(self, now: int) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        """Lose patience: an opening pair ends with what it has, a closing one takes the price there is."""
        for pair in list(self.pairs.values()):
            if now < self._deadline(pair) or pair.stage is not Stage.LEADING or pair.crossing:
                continue
            if pair.order.opening:
                pair.ending = pair.ending or f"not filled within {self.config.patience_s:g} s"
            pair.crossing = True
            if pair.child:
                yield from self._cancel_lead(pair)
            else:
                yield from self._go_on(pair, now)

    def wake_at(self) -> int | None:
        times = [
            self._deadline(pair) for pair in self.pairs.values() if pair.stage is Stage.LEADING and not pair.crossing
        ]
        return min(times, default=None)

    def follows(self) -> Iterator[tuple[str, int]]:
        """Which instruments matter now, and from when on: the leads that rest."""
        for pair in self.pairs.values():
            if pair.stage is Stage.LEADING and not pair.canceling and not pair.crossing:
                yield pair.order.lead.instrument, pair.ts_follow

    # --- the stages -----------------------------------------------------------------------------

    def _go_on(self, pair: Pair, now: int) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        order = pair.order
        if pair.stage is Stage.UNWINDING:
            left = self._unhedged_lead(pair)
            if left <= 0:
                yield from self._finish(pair, "unwound", pair.ending, now)
            elif pair.failures >= self.config.hedge_attempts:
                yield from self._finish(pair, "broken", f"{left} of {order.lead.instrument} cannot be unwound", now)
            else:
                yield from self._unwind(pair, left)
            return
        missing = self._unhedged(pair)
        if missing > 0:
            if pair.stage is Stage.HEDGING and pair.failures >= self.config.hedge_attempts:
                pair.stage = Stage.UNWINDING
                pair.failures = 0
                pair.ending = f"{missing} of {order.hedge.instrument} could not be traded"
                yield from self._unwind(pair, self._unhedged_lead(pair))
                return
            if pair.stage is Stage.LEADING:
                pair.stage = Stage.HEDGING
                pair.failures = 0
            yield from self._hedge(pair, missing)
            return
        if pair.stage is Stage.HEDGING:
            pair.stage = Stage.LEADING
            pair.failures = 0
        left = order.lead.quantity - pair.led
        if left <= 0:
            yield from self._finish(pair, "done", "", now)
        elif pair.ending or (pair.crossing and pair.failures >= self.config.hedge_attempts):
            reason = pair.ending or f"{left} of {order.lead.instrument} could not be traded"
            yield from self._finish(pair, "done" if pair.led > 0 else "unwound", reason, now)
        else:
            yield from self._lead(pair, now)

    def _lead(self, pair: Pair, now: int) -> Iterator[SubmitOrder | PairFinished | CancelOrder]:
        order = pair.order
        leg = order.lead
        instrument = self.instruments[leg.instrument]
        quantity = self._clip(order, leg.quantity - pair.led)
        limit = None if pair.crossing else self._limit(pair, instrument)
        if limit is not None and order.opening and self._walked(leg, limit) > self.config.max_walk_bp:
            yield from self._finish(pair, "done" if pair.led > 0 else "unwound", "the price ran away", now)
            return
        pair.ts_follow = now + int(self.config.reprice_s * S)
        yield self._child(
            pair,
            leg,
            leg.side,
            quantity,
            limit=limit,
            time_in_force=TimeInForce.IOC if pair.crossing else TimeInForce.POST_ONLY,
            reduce_only=not order.opening and not instrument.is_spot,
        )

    def _hedge(self, pair: Pair, missing: Decimal) -> Iterator[SubmitOrder]:
        leg = pair.order.hedge
        instrument = self.instruments[leg.instrument]
        quantity = missing
        if instrument.is_spot and leg.side is Side.BUY:
            # The fee comes off the coin bought: so much more is bought that the net is the hedge.
            quantity = instrument.quantity(float(missing) / (1 - self.config.spot_fee_bp / 1e4))
        yield self._child(
            pair,
            leg,
            leg.side,
            quantity,
            limit=None,
            time_in_force=TimeInForce.IOC,
            reduce_only=not pair.order.opening and not instrument.is_spot,
        )

    def _unwind(self, pair: Pair, quantity: Decimal) -> Iterator[SubmitOrder]:
        leg = pair.order.lead
        back = Side.SELL if leg.side is Side.BUY else Side.BUY
        instrument = self.instruments[leg.instrument]
        yield self._child(
            pair,
            leg,
            back,
            instrument.whole_steps(quantity),
            limit=None,
            time_in_force=TimeInForce.IOC,
            reduce_only=pair.order.opening and not instrument.is_spot,
        )

    def _finish(
        self, pair: Pair, outcome: str, reason: str, now: int
    ) -> Iterator[SubmitOrder | CancelOrder | PairFinished]:
        order = pair.order
        del self.pairs[order.pair_id]
        yield PairFinished(order.pair_id, order.strategy, outcome, reason)
        for pair_id, waiting in list(self.waiting.items()):
            if waiting.strategy == order.strategy:
                del self.waiting[pair_id]
                yield from self.start(waiting, now)
                return

    def _child(
        self,
        pair: Pair,
        leg: PairLeg,
        side: Side,
        quantity: Decimal,
        *,
        limit: Decimal | None,
        time_in_force: TimeInForce,
        reduce_only: bool,
    ) -> SubmitOrder:
        pair.attempt += 1
        pair.child = f"{pair.order.pair_id}-{pair.attempt}"
        pair.limit = limit
        return SubmitOrder(
            pair.child,
            pair.order.strategy,
            leg.instrument,
            side,
            quantity,
            limit,
            time_in_force,
            reduce_only,
            leg.reference,
            None,
        )

    def _cancel_lead(self, pair: Pair) -> Iterator[CancelOrder]:
        if pair.stage is Stage.LEADING and pair.child and not pair.canceling:
            pair.canceling = True
            yield CancelOrder(pair.order.strategy, pair.child, pair.order.lead.instrument)

    # --- arithmetic -----------------------------------------------------------------------------

    def _count(self, pair: Pair, fill: OrderFilled) -> None:
        """Add a fill to its leg, net of a fee taken in the coin."""
        order = pair.order
        if fill.instrument == order.lead.instrument:
            pair.led += fill.quantity if fill.side is order.lead.side else -fill.quantity
            return
        coin = self.instruments[fill.instrument].base
        pair.hedged += fill.quantity - (fill.fee if fill.fee_currency == coin else ZERO)

    def _unhedged(self, pair: Pair) -> Decimal:
        """What the hedge still owes the lead, in whole steps; nothing while it is too small to be an order."""
        order = pair.order
        instrument = self.instruments[order.hedge.instrument]
        wanted = order.hedge.quantity * pair.led / order.lead.quantity
        missing = instrument.whole_steps(max(ZERO, wanted - pair.hedged))
        tradable = missing >= instrument.min_quantity and missing * order.hedge.reference >= instrument.min_notional
        return missing if tradable else ZERO

    def _unhedged_lead(self, pair: Pair) -> Decimal:
        """The lead's quantity that stands without a hedge."""
        order = pair.order
        instrument = self.instruments[order.lead.instrument]
        return instrument.whole_steps(max(ZERO, pair.led - pair.hedged * order.lead.quantity / order.hedge.quantity))

    def _clip(self, order: SubmitPair, left: Decimal) -> Decimal:
        """How much of the lead may be at risk at once."""
        instrument = self.instruments[order.lead.instrument]
        most = instrument.whole_steps(order.max_naked / order.lead.reference)
        clip = min(left, most)
        rest = left - clip
        if 0 < rest * order.lead.reference < instrument.min_notional or 0 < rest < instrument.min_quantity:
            clip = left if left <= most else instrument.whole_steps(left / 2)
        small = clip < instrument.min_quantity or clip * order.lead.reference < instrument.min_notional
        return ZERO if small and order.opening else clip

    def _limit(self, pair: Pair, instrument: Instrument) -> Decimal:
        """Where the lead rests: at the best price of its own side, or at the last one known."""
        leg, bid, ask = pair.order.lead, pair.bid, pair.ask
        if bid == ask:
            # A single price, from a trade or a close: a tick behind it, so as not to take.
            return (
                instrument.price_up(ask) + instrument.tick
                if leg.side is Side.SELL
                else instrument.price_down(bid) - instrument.tick
            )
        return instrument.price(ask) if leg.side is Side.SELL else instrument.price(bid)

    def _walked(self, leg: PairLeg, limit: Decimal) -> float:
        """How far the limit is against us from where it was decided, in basis points."""
        against = (leg.reference - limit) if leg.side is Side.SELL else (limit - leg.reference)
        return float(against / leg.reference) * 1e4

    def _deadline(self, pair: Pair) -> int:
        return pair.ts_started + int(self.config.patience_s * S)


def _pair_of(client_order_id: str) -> str:
    return client_order_id.rpartition("-")[0]
