"""Two legs as one: the lead first, as maker; every fill of it hedged at once; unwound when it cannot be.

    LEADING ──fill──► HEDGING ──hedged──► LEADING … ──all hedged──► done
       │                 │
       │ given up        └─cannot be hedged──► UNWINDING ──► unwound, or broken
       └──► done with what is hedged

The lead is cut into clips, so that what stands unhedged never exceeds `max_naked`.
"""

import enum
import math
from collections.abc import Iterable, Iterator
from decimal import Decimal

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.execution.orders import NOTHING_TO_REDUCE, Order, OrderStatus
from hean.instruments import Instrument
from hean.messages import (
    CancelOrder,
    OrderCanceled,
    OrderExpired,
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
from hean.units import SECOND

ZERO = Decimal(0)


class PairConfig(BaseModel, frozen=True, extra="forbid"):
    reprice_s: float = Field(default=2.0, gt=0, description="seconds a resting lead waits before it follows the price")
    max_walk_bp: float = Field(
        default=10.0,
        ge=0,
        description="basis points a clip of an opening lead follows the price for, beyond which the pair is given up",
    )
    patience_s: float = Field(
        default=3600.0,
        gt=0,
        description="seconds a clip may rest, after which an opening pair is given up, and a closing one crosses",
    )
    hurried_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds a clip of a closing lead may rest while trading is not ACTIVE, after which it crosses",
    )
    silence_s: float = Field(
        default=30.0,
        gt=0,
        description="seconds the venue may not answer for an order of a pair, after which the pair is broken",
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
    """A pair in progress: `led` of the lead has traded, and `kept` is that less what fees took of the coin.

    `hedged` is net of such fees too. The venue does not answer for `child` since `ts_silent`. `bid` and `ask` are where the lead may rest, as last seen. The clip under way
    was begun at `ts_clip`, when the price was `anchor`: what is hedged already is no longer at the market's mercy, so
    each clip has a patience and a reach of its own. It is `netted` once the venue has found no position for a reduce-only
    order of it: another strategy stands against this one there.
    """

    order: SubmitPair
    ts_clip: int
    anchor: Decimal
    ts_follow: int
    bid: float
    ask: float
    stage: Stage = Stage.LEADING
    led: Decimal = ZERO
    kept: Decimal = ZERO
    hedged: Decimal = ZERO
    attempt: int = 0
    failures: int = 0
    child: str = ""
    limit: Decimal | None = None
    canceling: bool = False
    crossing: bool = False
    ending: str = ""
    ts_silent: int | None = None
    netted: bool = False


Said = Iterator[SubmitOrder | CancelOrder | PairFinished]


class PairExecutor:
    """Works one pair at a time on any one instrument of a strategy; what comes meanwhile waits its turn.

    An order that the venue does not answer for is never sent again: it may trade. The pair waits for word of it, and
    risks nothing more; when none comes, it is broken, with no more than one clip naked. While `hurried`, what closes does not
    rest for long.

    Where the venue has no position for a reduce-only order, strategies have come to stand against each other, or what is
    held is gone. A lead is then not tried again: risk knows which, and asks anew. A hedge or an unwinding is, as a plain
    order: what it takes back is no more than the lead of this very pair has just traded.
    """

    def __init__(self, config: PairConfig, instruments: dict[str, Instrument]) -> None:
        self.config = config
        self.instruments = instruments
        self.pairs: dict[str, Pair] = {}
        self.waiting: dict[str, SubmitPair] = {}
        self.hurried = False
        self._spot_fee = Decimal(str(config.spot_fee_bp)).scaleb(-4)

    def start(self, order: SubmitPair, now: int) -> Said:
        busy = [pair for pair in self.pairs.values() if _meet(pair.order, order)]
        if busy:
            self.waiting[order.pair_id] = order
            for pair in busy:
                if pair.order.opening and not order.opening:
                    yield from self._end(pair, f"{order.pair_id} closes it", now)
            return
        bid, ask = self.resting(order.lead.instrument, float(order.lead.reference))
        pair = Pair(order, ts_clip=now, anchor=order.lead.reference, ts_follow=now, bid=bid, ask=ask)
        self.pairs[order.pair_id] = pair
        yield from self._lead(pair, now)

    def stop(self, strategy: str, reason: str, now: int) -> Said:
        """Open no more for a strategy, or for all where it is empty: finish with what is hedged."""
        yield from self._drop_waiting(strategy, reason)
        for pair in list(self.pairs.values()):
            if pair.order.opening and strategy in {"", pair.order.strategy}:
                yield from self._end(pair, reason, now)

    def _drop_waiting(self, strategy: str, reason: str) -> Iterator[PairFinished]:
        for order in [order for order in self.waiting.values() if order.opening and strategy in {"", order.strategy}]:
            del self.waiting[order.pair_id]
            yield PairFinished(order.pair_id, order.strategy, "unwound", reason)

    def cancel(self, pair_id: str, now: int) -> Said:
        """Call one pair back by its own id; one that closes goes on."""
        if self.pairs[pair_id].order.opening:
            yield from self._end(self.pairs[pair_id], "canceled", now)

    def restarted(self, unanswered: Iterable[str], now: int) -> Iterator[CancelOrder]:
        """Ask again for the cancels that may be lost; wait for word of orders that may never have left."""
        silent = set(unanswered)
        for pair in self.pairs.values():
            pair.ts_silent = now if pair.child in silent else None
            if pair.canceling:
                yield CancelOrder(pair.order.strategy, pair.child, pair.order.lead.instrument)

    def heard(self, fact: OrderFact, order: Order, now: int) -> Said:
        """Go on from a fact about one of our children."""
        pair = self.pairs.get(pair_of(order.client_order_id))
        if pair is None:
            return
        if isinstance(fact, OrderFilled):
            self._count(pair, fact)
        if order.client_order_id != pair.child:
            # A fill that crossed our cancel on the wire is hedged as any other.
            if pair.stage is Stage.LEADING and self._unhedged(pair) > 0:
                yield from self._cancel_lead(pair) if pair.child else self._go_on(pair, now)
            return
        if order.status is not OrderStatus.UNKNOWN:
            pair.ts_silent = None
        elif pair.ts_silent is None:
            pair.ts_silent = now
        if not order.over:
            if pair.stage is Stage.LEADING and self._unhedged(pair) > 0:
                # What is filled is hedged before more is: the rest of the clip comes back first.
                yield from self._cancel_lead(pair)
            return
        leading = pair.stage is Stage.LEADING
        passed_over = leading and not order.filled and not pair.canceling and not pair.crossing
        nothing_there = _found_nothing(fact)
        pair.child = ""
        pair.canceling = False
        if order.filled:
            pair.failures = 0
        elif nothing_there and not leading and not pair.netted:
            pair.netted = True
        elif isinstance(fact, OrderRejected) or pair.crossing or not leading:
            pair.failures += 1
        hopeless = pair.order.opening or nothing_there or pair.failures >= self.config.hedge_attempts
        if isinstance(fact, OrderRejected) and leading and hopeless:
            pair.ending = pair.ending or f"lead rejected: {fact.reason}"
        if passed_over and not pair.ending:
            return  # it would have taken: the next price says where it may rest
        yield from self._go_on(pair, now)

    def saw(self, instrument: str, bid: float, ask: float, now: int) -> Said:
        """Follow the price with a lead it has left behind, or that found no place to rest."""
        for pair in self._led_by(instrument):
            pair.bid, pair.ask = bid, ask
            if pair.stage is not Stage.LEADING or pair.crossing or now < pair.ts_follow:
                continue
            if not pair.child:
                yield from self._go_on(pair, now)
            elif pair.limit != self._limit(pair):
                yield from self._cancel_lead(pair)

    def passed(self, instrument: str, bid: float, ask: float) -> None:
        """Note a price that no lead follows."""
        for pair in self._led_by(instrument):
            pair.bid, pair.ask = bid, ask

    def woken(self, now: int) -> Said:
        """Lose patience: an opening pair ends with what it has, a closing one takes the price there is."""
        for pair in list(self.pairs.values()):
            if pair.ts_silent is not None and now >= self._answer_due(pair.ts_silent):
                yield from self._finish(pair, "broken", f"nobody knows what became of {pair.child}", now)
                continue
            if now < self._deadline(pair) or pair.stage is not Stage.LEADING or pair.crossing:
                continue
            if pair.order.opening:
                pair.ending = pair.ending or f"not filled within {self.config.patience_s:g} s"
            pair.crossing = True
            pair.failures = 0
            yield from self._cancel_lead(pair) if pair.child else self._go_on(pair, now)

    def wake_at(self) -> int | None:
        times = [
            self._deadline(pair) for pair in self.pairs.values() if pair.stage is Stage.LEADING and not pair.crossing
        ]
        times += [self._answer_due(pair.ts_silent) for pair in self.pairs.values() if pair.ts_silent is not None]
        return min(times, default=None)

    def follows(self) -> Iterator[Pair]:
        """The pairs a price may set going: those that lead, and are not called back."""
        for pair in self.pairs.values():
            if pair.stage is Stage.LEADING and not pair.canceling and not pair.crossing:
                yield pair

    def resting(self, instrument: str, price: float) -> tuple[float, float]:
        """Where a bid and an offer may rest about a single price, from a trade or a close: a tick off, so as not to take."""
        rules = self.instruments[instrument]
        return float(rules.price_down(price) - rules.tick), float(rules.price_up(price) + rules.tick)

    # --- the stages -----------------------------------------------------------------------------

    def _go_on(self, pair: Pair, now: int) -> Said:
        if pair.stage is Stage.UNWINDING:
            yield from self._unwind(pair, now)
            return
        missing = self._unhedged(pair)
        if missing > 0:
            if pair.stage is Stage.LEADING:
                pair.stage, pair.failures = Stage.HEDGING, 0
            if pair.failures < self.config.hedge_attempts:
                yield self._hedge(pair, missing)
                return
            pair.stage, pair.failures = Stage.UNWINDING, 0
            pair.ending = f"{missing} of {pair.order.hedge.instrument} could not be traded"
            yield from self._unwind(pair, now)
            return
        if pair.stage is Stage.HEDGING:
            pair.stage, pair.failures = Stage.LEADING, 0
            pair.ts_clip, pair.anchor = now, self._limit(pair)
        yield from self._lead(pair, now)

    def _lead(self, pair: Pair, now: int) -> Said:
        """Send the next clip of the lead, or finish where there is none to send."""
        order = pair.order
        leg = order.lead
        left = leg.quantity - pair.led
        clip = self._clip(pair, left)
        limit = None if pair.crossing else self._limit(pair)
        reason = pair.ending
        if not reason and left > 0:
            if clip <= 0:
                reason = f"max_naked {order.max_naked:f} leaves {left} of {leg.instrument} too small to trade"
            elif pair.crossing and pair.failures >= self.config.hedge_attempts:
                reason = f"{left} of {leg.instrument} could not be traded"
            elif limit is not None and order.opening and self._walked(pair, limit) > self.config.max_walk_bp:
                reason = "the price ran away"
        if reason or left <= 0:
            yield from self._finish(pair, "done" if pair.led > 0 else "unwound", "" if left <= 0 else reason, now)
            return
        pair.ts_follow = now + int(self.config.reprice_s * SECOND)
        yield self._child(
            pair,
            leg,
            leg.side,
            clip,
            limit=limit,
            time_in_force=TimeInForce.IOC if pair.crossing else TimeInForce.POST_ONLY,
            reduce_only=not order.opening and self._reduce_only(pair, leg, clip),
        )

    def _hedge(self, pair: Pair, missing: Decimal) -> SubmitOrder:
        leg = pair.order.hedge
        instrument = self.instruments[leg.instrument]
        quantity = missing
        if instrument.is_spot and leg.side is Side.BUY:
            # The fee comes off the coin bought: so much more is bought that the net is the hedge.
            quantity = instrument.whole_steps(missing / (1 - self._spot_fee))
        return self._child(
            pair,
            leg,
            leg.side,
            quantity,
            limit=None,
            time_in_force=TimeInForce.IOC,
            reduce_only=not pair.order.opening and self._reduce_only(pair, leg, quantity),
        )

    def _unwind(self, pair: Pair, now: int) -> Said:
        """Trade the lead back as far as it stands without a hedge."""
        leg = pair.order.lead
        instrument = self.instruments[leg.instrument]
        left = instrument.whole_steps(max(ZERO, self._naked(pair)))
        reduce_only = pair.order.opening and self._reduce_only(pair, leg, left)
        too_small = not _tradable(instrument, left, leg.reference) and (pair.netted or not reduce_only)
        if left <= 0 or too_small:
            yield from self._finish(pair, "unwound", pair.ending, now)
        elif pair.failures >= self.config.hedge_attempts:
            yield from self._finish(pair, "broken", f"{left} of {leg.instrument} cannot be unwound", now)
        else:
            back = Side.SELL if leg.side is Side.BUY else Side.BUY
            yield self._child(pair, leg, back, left, limit=None, time_in_force=TimeInForce.IOC, reduce_only=reduce_only)

    def _end(self, pair: Pair, reason: str, now: int) -> Said:
        """Let a pair end with what it has, as soon as that is hedged."""
        if pair.ending:
            return
        pair.ending = reason
        if pair.child:
            yield from self._cancel_lead(pair)
        else:
            yield from self._go_on(pair, now)

    def _finish(self, pair: Pair, outcome: str, reason: str, now: int) -> Said:
        order = pair.order
        del self.pairs[order.pair_id]
        yield PairFinished(order.pair_id, order.strategy, outcome, reason)
        if outcome == "broken":
            yield from self._drop_waiting(order.strategy, f"{order.pair_id} broke")
        for waiting in list(self.waiting.values()):
            if not any(_meet(pair.order, waiting) for pair in self.pairs.values()):
                del self.waiting[waiting.pair_id]
                yield from self.start(waiting, now)

    def _reduce_only(self, pair: Pair, leg: PairLeg, quantity: Decimal) -> bool:
        """Whether to take a leg back by an order that only reduces: it may, or it is too small to be any other."""
        instrument = self.instruments[leg.instrument]
        if instrument.is_spot:
            return False
        allowed = pair.order.reduce_only and not pair.netted
        return allowed or not _tradable(instrument, quantity, leg.reference)

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

    def _led_by(self, instrument: str) -> list[Pair]:
        return [pair for pair in self.pairs.values() if pair.order.lead.instrument == instrument]

    # --- arithmetic -----------------------------------------------------------------------------

    def _count(self, pair: Pair, fill: OrderFilled) -> None:
        """Add a fill to its leg, net of a fee taken in the coin."""
        order = pair.order
        taken = fill.fee if fill.fee_currency == self.instruments[fill.instrument].base else ZERO
        if fill.instrument == order.hedge.instrument:
            pair.hedged += fill.quantity - order.hedge.side * taken
            return
        forward = fill.side is order.lead.side
        pair.led += fill.quantity if forward else -fill.quantity
        pair.kept += (fill.quantity if forward else -fill.quantity) - order.lead.side * taken

    def _unhedged(self, pair: Pair) -> Decimal:
        """What the hedge still owes the lead, in whole steps; nothing while it is too small to be an order."""
        order = pair.order
        instrument = self.instruments[order.hedge.instrument]
        wanted = order.hedge.quantity * pair.kept / order.lead.quantity
        missing = instrument.whole_steps(max(ZERO, wanted - pair.hedged))
        return missing if _tradable(instrument, missing, order.hedge.reference) else ZERO

    def _naked(self, pair: Pair) -> Decimal:
        """The lead's quantity that stands without a hedge."""
        order = pair.order
        return pair.kept - pair.hedged * order.lead.quantity / order.hedge.quantity

    def _clip(self, pair: Pair, left: Decimal) -> Decimal:
        """How much of the lead to risk at once: even parts, so that none is too small; nothing where none can be large enough.

        A pair that closes is never stopped for being too small: it then stands naked with the least there is.
        """
        order = pair.order
        instrument = self.instruments[order.lead.instrument]
        step = instrument.step
        naked = self.instruments[order.hedge.instrument].whole_steps(abs(self._naked(pair)))
        most = instrument.whole_steps(max(ZERO, order.max_naked / order.lead.reference - naked))
        least = self._least(order)
        clip = min(left, most)
        if most > 0 and left > most:
            parts = math.ceil(left / most)
            clip = min(most, math.ceil(left / parts / step) * step)
        if clip >= least:
            return clip
        if order.opening:
            return most if least <= most <= left else ZERO
        return min(left, math.ceil(least / step) * step)

    def _least(self, order: SubmitPair) -> Decimal:
        """The smallest part of the lead that both legs can trade."""
        ratio = order.lead.quantity / order.hedge.quantity
        lead, hedge = self.instruments[order.lead.instrument], self.instruments[order.hedge.instrument]
        return max(
            lead.min_quantity,
            lead.min_notional / order.lead.reference,
            ratio * hedge.min_quantity,
            ratio * hedge.min_notional / order.hedge.reference,
        )

    def _limit(self, pair: Pair) -> Decimal:
        """Where the lead rests: at the best price of its own side."""
        leg = pair.order.lead
        return self.instruments[leg.instrument].price(pair.ask if leg.side is Side.SELL else pair.bid)

    def _walked(self, pair: Pair, limit: Decimal) -> float:
        """How far the limit is against us from where the clip was begun, in basis points."""
        against = (pair.anchor - limit) if pair.order.lead.side is Side.SELL else (limit - pair.anchor)
        return float(against / pair.anchor) * 1e4

    def _deadline(self, pair: Pair) -> int:
        patience = self.config.patience_s
        if self.hurried and not pair.order.opening:
            patience = min(patience, self.config.hurried_s)
        return pair.ts_clip + int(patience * SECOND)

    def _answer_due(self, ts_silent: int) -> int:
        return ts_silent + int(self.config.silence_s * SECOND)


def pair_of(client_order_id: str) -> str:
    """The pair a child order belongs to, by its id."""
    return client_order_id.rpartition("-")[0]


def _meet(one: SubmitPair, other: SubmitPair) -> bool:
    """Whether two pairs of a strategy trade in each other's instruments."""
    legs = {one.lead.instrument, one.hedge.instrument}
    return one.strategy == other.strategy and not legs.isdisjoint((other.lead.instrument, other.hedge.instrument))


def _found_nothing(fact: OrderFact) -> bool:
    """Whether an order ended for want of a position that it could reduce."""
    match fact:
        case OrderRejected(reason=reason) | OrderExpired(reason=reason) | OrderCanceled(reason=reason):
            return reason.startswith(NOTHING_TO_REDUCE)
        case _:
            return False


def _tradable(instrument: Instrument, quantity: Decimal, price: Decimal) -> bool:
    return quantity >= instrument.min_quantity and quantity * price >= instrument.min_notional
