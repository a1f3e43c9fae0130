"""The risk manager: a signal becomes orders, or a refusal that names its rule. Nothing reaches the broker past it.

A signal is a target, so saying it again is harmless: what is held already, or is on its way, is met with silence.
Leaving is never blocked by a limit while trading is ACTIVE or REDUCING; HALTED lets nothing through but what risk sends itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeAlias, assert_never

from hean.errors import ConfigError
from hean.instruments import Category, Instrument
from hean.messages import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    CapitalAllocated,
    Discrepancy,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    FeedLive,
    FeedStale,
    KillSwitchReset,
    KillSwitchTripped,
    Leg,
    NodeFailed,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    PairFinished,
    PositionChanged,
    PullKillSwitch,
    ReconcileCompleted,
    Severity,
    Signal,
    SignalRefused,
    StartTrading,
    StopTrading,
    StrategySwitched,
    SubmitOrder,
    SubmitPair,
    SwitchStrategy,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
    Wake,
)
from hean.risk import limits
from hean.risk.approval import Approver, Place, in_ticks
from hean.risk.config import RiskConfig, StrategyLimits, exact
from hean.risk.control import Control
from hean.risk.desk import Desk
from hean.risk.exposure import BUY, SELL, ZERO, Slot
from hean.risk.killswitch import KillSwitch
from hean.risk.limits import Refusal, Rule
from hean.risk.memory import FAR, DecisionMemory, RoundTrip, Shadow
from hean.risk.state import RiskState
from hean.risk.usage import LimitUse, naked, total, usage

Often: TypeAlias = Signal | OrderFilled | PositionChanged | EquityChanged
Seldom: TypeAlias = (
    SubmitOrder
    | AmendOrder
    | CancelOrder
    | OrderAccepted
    | OrderAmended
    | OrderRejected
    | OrderOutcomeUnknown
    | OrderCanceled
    | OrderExpired
    | OrdersRestated
    | PairFinished
    | CapitalAllocated
    | FeedStale
    | FeedLive
    | Discrepancy
    | ReconcileCompleted
    | EpochBegan
    | StartTrading
    | StopTrading
    | SwitchStrategy
    | PullKillSwitch
    | KillSwitchReset
    | NodeFailed
    | ErrorReported
    | Wake
)
Heard: TypeAlias = Often | Seldom
Said: TypeAlias = (
    SignalRefused
    | SubmitOrder
    | SubmitPair
    | AmendOrder
    | CancelOrder
    | CancelAll
    | TradingStateChanged
    | KillSwitchTripped
    | StrategySwitched
    | VerifyFlat
)

HALTED = TradingState.HALTED

# Bybit v5, *Place Order*: orderLinkId has at most 36 letters, digits, dashes and underscores. Ours end in a
# dash and a count, to which the broker adds a dash and the attempt of a pair.
LINK_ID = 36
ROOM_FOR_COUNTS = 9
ROOM_FOR_EPOCH = 3


class RiskManager:
    """Turns targets into orders within the limits, and everything into flat when the kill switch trips.

    It starts HALTED and waits for `StartTrading`. A held position is resized when the sizer's word differs from it by
    more than `resize_band`, and its bracket is not moved; a held pair is not resized. A flip is one order; if its new side
    is refused, the old one is closed all the same. A strategy's own refusals of a limit are said, never counted as errors.
    """

    def __init__(
        self,
        config: RiskConfig,
        instruments: Mapping[str, Instrument],
        strategies: Mapping[str, StrategyLimits],
        run: str,
    ) -> None:
        for name in strategies:
            link = f"{run}-{name}"
            room = LINK_ID - ROOM_FOR_COUNTS - ROOM_FOR_EPOCH
            if not re.fullmatch(r"[A-Za-z0-9_-]+", link) or len(link) > room:
                raise ConfigError(
                    f"order ids begin with run and strategy, {link!r}: make that at most "
                    f"{room} letters, digits, dashes or underscores"
                )
        self.config = config
        self._instruments = instruments
        self._strategies = strategies
        self._resize_band = exact(config.resize_band)
        self._kill = KillSwitch(config.kill_switch)
        self._memory = DecisionMemory(config.memory)
        self._desk = Desk(config, instruments, strategies, run, self._memory)
        self._control = Control(config, strategies, self._kill, self._desk)
        self._approver = Approver(config, strategies, self._kill, self._memory)
        self.state = RiskState()

    @property
    def state(self) -> RiskState:
        return self._state

    @state.setter
    def state(self, state: RiskState) -> None:
        """Take over what a snapshot holds; every part of risk looks at the same."""
        self._state = self._desk.state = self._control.state = state
        self._kill.state = state.kill
        self._memory.state = state.memory

    def handle(self, message: Heard, now: int) -> Iterable[Said]:
        match message:
            case EquityChanged():
                return self._control.equity(message, now)
            case PositionChanged():
                return self._settled(self._desk.position(message, now), now)
            case OrderFilled():
                self._state.kill.traded = True
                return self._settled(self._desk.filled(message, now), now)
            case Signal():
                return self._signal(message, now)
            case _:
                return self._seldom(message, now)

    def _seldom(self, message: Seldom, now: int) -> Iterator[Said]:
        match message:
            case OrderAccepted(client_order_id=order_id):
                self._desk.unknown(order_id, unknown=False)
            case OrderCanceled() | OrderExpired():
                yield from self._settled(self._desk.ended(message, now), now)
            case OrderRejected():
                yield from self._settled(self._desk.ended(message, now), now)
                yield from self._control.rejected(message.client_order_id, message.reason, now)
            case OrderOutcomeUnknown(client_order_id=order_id):
                self._desk.unknown(order_id, unknown=True)
                yield from self._control.error(now, order_id)
            case OrderAmended():
                yield from self._settled(self._desk.amended(message, now), now)
            case OrdersRestated():
                self._control.restated(now)
                for slot in self._desk.restated(message, now):
                    yield from self._settled(slot, now)
            case PairFinished(strategy=strategy, outcome=outcome, reason=reason):
                if outcome == "broken":
                    yield from self._control.reduce(f"pair {strategy}", f"a pair of {strategy} broke: {reason}")
                for leg in self._desk.pair_finished(message, now):
                    yield from self._settled(leg, now)
            case SubmitOrder():
                yield from self._probe(message, now)
            case AmendOrder(instrument=instrument):
                refusal = self._approver.amendment(self._state, message, self._instruments.get(instrument))
                yield message if refusal is None else _not_a_probe(message, refusal)
            case CancelOrder():
                yield message
            case CapitalAllocated(strategy=strategy, share=share):
                self._state.shares[strategy] = share
            case FeedStale(instrument=instrument, ts_last=ts_last):
                self._state.stale[instrument] = ts_last
            case FeedLive(instrument=instrument):
                self._state.stale.pop(instrument, None)
                yield from self._control.check(now)
            case Discrepancy(severity=severity, kind=kind, subject=subject):
                if severity is Severity.HIGH:
                    yield from self._control.reduce("discrepancy", f"{kind} of {subject}")
            case ReconcileCompleted():
                yield from self._control.reconciled(message, now)
            case EpochBegan():
                yield from self._control.epoch(message, now)
            case StartTrading():
                yield from self._control.start(message, now)
            case StopTrading():
                yield from self._control.stop(message, now)
            case SwitchStrategy():
                yield from self._control.switch(message, now)
            case PullKillSwitch():
                yield from self._control.pull(message, now)
            case KillSwitchReset():
                yield from self._control.reset(message, now)
            case NodeFailed():
                yield from self._control.node_failed(message, now)
            case ErrorReported():
                yield from self._control.reported(message, now)
            case Wake():
                yield from self._control.wake(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self._control.wake_at()

    def usage(self, now: int) -> tuple[LimitUse, ...]:
        """What is used of every limit now."""
        return usage(self._state, self.config, self._strategies, self._instruments, self._kill, now)

    def naked(self) -> Decimal | None:
        """What stands unhedged in all pairs together, in quote currency; None while a price of it is unknown."""
        return total(naked(self._state))

    def _probe(self, order: SubmitOrder, now: int) -> Iterator[Said]:
        """Let an order of a process through, if it cannot matter. A strategy has no orders of its own: it signals."""
        refusal = self._approver.probe(self._state, order, self._instruments.get(order.instrument), now)
        if refusal is not None:
            yield _not_a_probe(order, refusal)
            return
        self._approver.count(self._state, now, orders=1)
        self._desk.probe(order)
        yield order

    # --- signals --------------------------------------------------------------------------------

    def _signal(self, signal: Signal, now: int) -> Iterable[Said]:
        legs = signal.legs
        refusal = self._meaningless(signal)
        if refusal is not None:
            return (_refused(signal, legs[0] if legs else None, refusal),)
        if self._state.memory.shadows:
            for leg in legs:
                self._memory.follow(signal.strategy, leg.instrument, leg.price, leg.weight, now)
        if len(legs) == 1:
            return self._single(signal, self._place(signal, legs[0]), now)
        places = [self._place(signal, leg) for leg in legs]
        if len(places) == 2 and legs[0].weight + legs[1].weight == 0 and places[0].slot.base == places[1].slot.base:
            if legs[0].weight == 0:
                return self._leave(signal, places)
            # The derivative leads: its tick is wider and its maker fee lower.
            lead, hedge = sorted(places, key=lambda place: place.instrument.category is not Category.LINEAR)
            return self._pair(signal, lead, hedge, now)
        return [said for place in places for said in self._single(signal, place, now)]

    def _meaningless(self, signal: Signal) -> Refusal | None:
        """Whether a signal cannot be understood, whatever it wants."""
        if signal.strategy not in self._strategies:
            return Refusal(Rule.UNKNOWN_STRATEGY, signal.strategy, "a strategy with limits")
        legs = signal.legs
        for leg in legs:
            if leg.instrument not in self._instruments:
                return Refusal(Rule.UNKNOWN_INSTRUMENT, leg.instrument, "an instrument whose rules are known")
            refusal = limits.weight(leg.weight)
            if refusal is not None:
                return refusal
        if len(legs) > 1 and len({leg.instrument for leg in legs}) < len(legs):
            return Refusal(Rule.SAME_INSTRUMENT, legs[0].instrument, "one leg per instrument")
        return None if signal.bracket is None else limits.bracket_prices(signal.bracket)

    def _place(self, signal: Signal, leg: Leg) -> Place:
        instrument = self._instruments[leg.instrument]
        price = instrument.price(leg.price) if 0 < leg.price < FAR else ZERO
        side = BUY if leg.weight > 0 else SELL
        return Place(leg, self._desk.slot(signal.strategy, leg.instrument), instrument, side, price)

    def _single(self, signal: Signal, place: Place, now: int) -> Iterable[Said]:
        state, slot, side, leg = self._state, place.slot, place.side, place.leg
        if leg.weight == 0:
            return self._leave(signal, [place])
        if slot.pending:
            if slot.target * side > 0 and not slot.leave:
                return ()
            way = f"on the way to {slot.target:f}"
            return (_refused(signal, leg, Refusal(Rule.ORDER_PENDING, way, "settled")),)
        held = slot.held * side
        wanted = self._approver.wanted(state, signal, place)
        if held > 0:
            if isinstance(wanted, Refusal) or abs(wanted - held) <= self._resize_band * held:
                return ()
            if wanted < held:
                if state.trading is HALTED:
                    return ()
                slot.price = place.price
                return self._desk.reduce(slot, held - wanted)
        bracket = None
        refusal = self._approver.gate(state, signal, now)
        if refusal is None and side is SELL and place.instrument.is_spot:
            refusal = Refusal(Rule.SPOT_SHORT, "a short position", "spot can only be held long")
        if refusal is None:
            self._desk.saw(leg.instrument, leg.price, now)
            if signal.bracket is not None:
                bracket = in_ticks(signal.bracket, place)
            if not isinstance(wanted, Refusal):
                wanted = self._approver.fit(state, place, wanted, bracket)
        answer = refusal or wanted
        if isinstance(answer, Refusal):
            return self._refuse(signal, place, answer, now)
        self._approver.count(state, now, orders=1)
        slot.price = place.price
        slot.context = signal.context
        if slot.trip is None and signal.context:
            slot.trip = RoundTrip(signal.context)
        return (self._desk.order(slot, side, answer - held, reduce_only=False, bracket=bracket),)

    def _refuse(self, signal: Signal, place: Place, refusal: Refusal, now: int) -> Iterator[Said]:
        """Say no to the new side. A strategy that wants it no longer wants the other, so that is closed."""
        yield _refused(signal, place.leg, refusal)
        slot = place.slot
        if refusal.rule is Rule.CONTEXT_BLOCKED:
            self._memory.imagine(slot.strategy, slot.instrument, _shadow(signal, place, now))
        if slot.held * place.side < 0 and self._state.trading is not HALTED:
            slot.price = place.price or slot.price
            yield from self._desk.close([slot])

    def _pair(self, signal: Signal, lead: Place, hedge: Place, now: int) -> Iterator[Said]:
        one, other = lead.slot, hedge.slot
        going, coming = one.held * lead.side, other.held * hedge.side
        if one.pending or other.pending:
            if one.target * lead.side <= 0 or other.target * hedge.side <= 0 or one.leave or other.leave:
                way = f"on the way to {one.target:f} and {other.target:f}"
                yield _refused(signal, lead.leg, Refusal(Rule.ORDER_PENDING, way, "settled"))
            return
        if going > 0 and coming > 0:
            return
        wanted = self._approver.gate(self._state, signal, now) or self._pair_refusal(lead, hedge)
        if wanted is None:
            self._desk.saw(lead.leg.instrument, lead.leg.price, now)
            self._desk.saw(hedge.leg.instrument, hedge.leg.price, now)
            quantity = self._approver.fit_pair(self._state, signal, lead, hedge)
            if not isinstance(quantity, Refusal):
                self._approver.count(self._state, now, orders=2)
                one.price, other.price = lead.price, hedge.price
                one.stress, other.stress = self._approver.stresses(lead, hedge, quantity)
                legs = (one, lead.side, quantity), (other, hedge.side, quantity)
                yield self._desk.pair_order(*legs, opening=True)
                return
            wanted = quantity
        yield _refused(signal, lead.leg, wanted)
        if going < 0 and coming < 0 and self._state.trading is not HALTED:
            yield from self._leave(signal, [lead, hedge])

    @staticmethod
    def _pair_refusal(lead: Place, hedge: Place) -> Refusal | None:
        """A pair begins with nothing held, and does not sell spot that is not there: borrowing is not modelled."""
        if any(place.instrument.is_spot and place.side is SELL for place in (lead, hedge)):
            return Refusal(Rule.SPOT_SHORT, "a short position", "spot can only be held long")
        if lead.slot.held or hedge.slot.held:
            held = f"holds {lead.slot.held:f} and {hedge.slot.held:f}"
            return Refusal(Rule.ORDER_PENDING, held, "both legs flat")
        return None

    def _leave(self, signal: Signal, places: list[Place]) -> Iterable[Said]:
        """Close what is held; what is under way is called back, and closed once it has settled."""
        places = [place for place in places if place.slot.held or place.slot.pending]
        if not places:
            return ()
        if self._state.trading is HALTED:
            refusal = Refusal(Rule.TRADING_STATE, HALTED, "ACTIVE or REDUCING")
            return (_refused(signal, places[0].leg, refusal),)
        slots = [place.slot for place in places]
        for place in places:
            place.slot.price = place.price or place.slot.price
        if [slot for slot in slots if slot.pending]:
            if any(slot.target and not slot.leave for slot in slots):
                for slot in slots:
                    slot.leave = True
                if any(slot.orders or slot.pair for slot in slots):
                    return (CancelAll(strategy=signal.strategy),)
            return ()
        closing = [slot for slot in slots if self._desk.tradable(slot)]
        if len(closing) == len(slots):
            return self._desk.close(closing)
        return (*self._too_small(signal, places), *self._desk.close(closing))

    def _too_small(self, signal: Signal, places: list[Place]) -> Iterator[SignalRefused]:
        """Why what is held cannot be closed: the venue takes no order so small."""
        for place in places:
            if not self._desk.tradable(place.slot):
                quantity = abs(place.slot.held)
                refused = limits.min_quantity(quantity, place.instrument) or limits.min_notional(
                    quantity * place.slot.price, place.instrument
                )
                if refused is not None:
                    yield _refused(signal, place.leg, refused)

    def _settled(self, slot: Slot | None, now: int) -> Iterable[Said]:
        """If nothing is under way in this place any more, do what was waiting for that."""
        state = self._state
        if slot is None or not (slot.leave or state.reducing or state.finishing or state.flattening is not None):
            return ()
        return () if slot.pending else self._resume(slot, now)

    def _resume(self, slot: Slot, now: int) -> Iterator[Said]:
        state = self._state
        if slot.leave:
            leaving = [other for other in state.slots[slot.strategy].values() if other.leave]
            if not any(other.pending for other in leaving):
                for other in leaving:
                    other.leave = False
                if state.trading is not HALTED:
                    yield from self._desk.close([other for other in leaving if self._desk.tradable(other)])
        if state.reducing or state.finishing or state.flattening is not None:
            yield from self._control.settled(slot.strategy, now)


def _refused(signal: Signal, leg: Leg | None, refusal: Refusal) -> SignalRefused:
    return SignalRefused(
        strategy=signal.strategy,
        instrument=leg.instrument if leg is not None else "",
        rule=refusal.rule,
        measured=refusal.measured,
        limit=refusal.limit,
    )


def _not_a_probe(asked: SubmitOrder | AmendOrder, refusal: Refusal) -> SignalRefused:
    return SignalRefused(
        strategy=asked.strategy,
        instrument=asked.instrument,
        rule=refusal.rule,
        measured=refusal.measured,
        limit=refusal.limit,
    )


def _shadow(signal: Signal, place: Place, now: int) -> Shadow:
    """What a blocked signal would have entered: prices times the side, so that a stop is always below."""
    side, bracket = place.side, signal.bracket
    stop = -FAR if bracket is None else side * bracket.stop
    target = FAR if bracket is None or bracket.target is None else side * bracket.target
    return Shadow(signal.context, int(side), place.leg.price, stop, target, now)
