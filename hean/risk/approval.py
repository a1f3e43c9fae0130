"""Whether a strategy may open or add, and how much. Reads the state of risk, never changes it."""

from bisect import bisect_right
from collections.abc import Mapping
from decimal import Decimal

from msgspec import Struct

from hean.instruments import Instrument
from hean.messages import AmendOrder, Bracket, Leg, OrderBracket, Side, Signal, SubmitOrder
from hean.risk import limits
from hean.risk.config import RiskConfig, StrategyLimits, exact
from hean.risk.exposure import BUY, ZERO, Slot, Totals, totals
from hean.risk.killswitch import YELLOW, KillSwitch
from hean.risk.limits import Refusal, Rule
from hean.risk.memory import DecisionMemory
from hean.risk.sizing import RiskSizing, coarser_step, size, stressed, whole
from hean.risk.state import RiskState
from hean.units import MINUTE, SECOND


class Place(Struct, frozen=True, gc=False):
    """A leg with all that is needed to judge it."""

    leg: Leg
    slot: Slot
    instrument: Instrument
    side: Side
    price: Decimal


class Approver:
    """Holds the limits as they are compared: settings turned into exact numbers, once."""

    def __init__(
        self,
        config: RiskConfig,
        strategies: Mapping[str, StrategyLimits],
        kill: KillSwitch,
        memory: DecisionMemory,
    ) -> None:
        self.trade_risk = exact(config.trade_risk)
        self.symbol_exposure = exact(config.symbol_exposure)
        self.pair_delta = exact(config.pair_delta)
        self.gross_exposure = exact(config.gross_exposure)
        self.strategy_leverage = exact(config.strategy_leverage)
        self.margin = exact(config.margin)
        self.daily_loss = exact(config.daily_loss)
        self.stress_shock = exact(config.stress_shock)
        self.stress_margin = exact(config.stress_margin)
        self.probe_notional = exact(config.probe_notional)
        self.probe_distance = exact(config.probe_distance)
        self._probe_orders = config.probe_orders
        self._reconciler = config.reconciler
        self._price_collar = config.price_collar
        self._orders_per_minute = config.orders_per_minute
        self._strategies = strategies
        self._kill = kill
        self._memory = memory
        self._reconcile_age = round(config.reconcile_age_s * SECOND)
        self._price_memory = round(config.price_memory_s * SECOND)
        self._price_age = {
            name: round((config.price_age_s if own.price_age_s is None else own.price_age_s) * SECOND)
            for name, own in strategies.items()
        }

    def gate(self, state: RiskState, signal: Signal, now: int) -> Refusal | None:
        """Say why nothing may be opened now, whatever its size."""
        refusal = limits.trading_state(state.trading) or limits.finishing(state.finishing)
        if refusal is None and signal.strategy in state.off:
            off = state.off[signal.strategy]
            refusal = Refusal(Rule.STRATEGY_OFF, f"switched off by {off.person}: {off.reason}", "switched on")
        if refusal is None and self._reconciler:
            refusal = limits.stale_reconcile(now - (state.ts_reconciled or 0), self._reconcile_age)
        if refusal is not None:
            return refusal
        oldest = self._price_age[signal.strategy]
        for leg in signal.legs:
            seen = state.prices.get(leg.instrument)
            last = float(seen.price) if seen is not None and now - seen.ts <= self._price_memory else None
            refusal = (
                limits.stale_price(now - leg.ts_seen, oldest)
                or limits.stale_feed(leg.instrument, state.stale)
                or limits.price_collar(leg.price, last, self._price_collar)
            )
            if refusal is not None:
                return refusal
        if self._memory.blocked(signal.strategy, signal.context, now):
            return Refusal(Rule.CONTEXT_BLOCKED, signal.context, "a context that has not lost")
        equity = state.equity
        refusal = limits.unknown_equity(equity)
        if refusal is None and equity is not None:
            refusal = limits.daily_loss(state.day_equity, equity, self.daily_loss)
        return refusal or limits.order_rate(recent_orders(state, now) + len(signal.legs), self._orders_per_minute)

    @staticmethod
    def count(state: RiskState, now: int, *, orders: int) -> None:
        """Note that opening orders were sent, and forget those of more than a minute ago."""
        sent = state.sent
        if sent and sent[0] <= now - MINUTE:
            del sent[: bisect_right(sent, now - MINUTE)]
        sent.extend([now] * orders)

    # --- one leg --------------------------------------------------------------------------------

    def wanted(self, state: RiskState, signal: Signal, place: Place) -> Refusal | Decimal:
        """How much the sizer gives this leg, in whole steps; never 0."""
        return self._quantity(state, signal, place, place.instrument.step)

    def fit(self, state: RiskState, place: Place, wanted: Decimal, bracket: OrderBracket | None) -> Refusal | Decimal:
        """Hold `wanted` against every limit; sizing by risk shrinks to what they leave, other sizing does not.

        Equity is known here: `wanted` was sized by it.
        """
        slot, equity = place.slot, _known(state)
        others = totals(state.slots, slot.strategy, slot.base, (slot,))
        budget = self._budget(state, slot.strategy, equity)
        refusal = self._refuse(place, wanted, bracket, others, equity, budget)
        if refusal is None:
            return wanted
        if not isinstance(self._strategies[slot.strategy].sizing, RiskSizing):
            return refusal
        net = others.high if place.side is BUY else -others.low
        room = min(
            budget - others.strategy,
            self.gross_exposure * equity - others.gross,
            self.symbol_exposure * equity - net,
            (self.margin * equity - others.margin) / slot.margin_rate,
        )
        fewer = min(wanted, whole(room / place.price, place.instrument.step))
        if fewer <= max(place.side * slot.held, ZERO) or self._refuse(place, fewer, bracket, others, equity, budget):
            return refusal
        return fewer

    def _refuse(
        self,
        place: Place,
        wanted: Decimal,
        bracket: OrderBracket | None,
        others: Totals,
        equity: Decimal,
        budget: Decimal,
    ) -> Refusal | None:
        slot, instrument, price = place.slot, place.instrument, place.price
        held = slot.held * place.side
        order = abs(wanted - held)
        notional = wanted * price
        value = notional if held <= wanted and -held <= wanted else abs(held) * price
        net = notional + (others.high if place.side is BUY else -others.low)
        refusal = (
            limits.min_quantity(order, instrument)
            or limits.min_notional(order * price, instrument)
            or limits.max_quantity(order, instrument.max_market_quantity, instrument)
            or limits.strategy_budget(others.strategy + value, budget)
            or limits.gross_exposure(others.gross + value, equity, self.gross_exposure)
            or limits.symbol_exposure(net, equity, self.symbol_exposure)
            or limits.margin(others.margin + value * slot.margin_rate, equity, self.margin)
        )
        if refusal is None and bracket is not None:
            return limits.bracket_side(place.side, price, bracket.stop, bracket.target) or limits.trade_risk(
                wanted * abs(price - bracket.stop), equity, self.trade_risk
            )
        return refusal

    # --- two legs -------------------------------------------------------------------------------

    def fit_pair(self, state: RiskState, signal: Signal, lead: Place, hedge: Place) -> Refusal | Decimal:
        """The quantity of both legs, rounded to the step both can trade."""
        step = coarser_step(lead.instrument.step, hedge.instrument.step)
        dearer = lead if lead.price >= hedge.price else hedge
        wanted = self._quantity(state, signal, dearer, step)
        if isinstance(wanted, Refusal):
            return wanted
        slot, equity = lead.slot, _known(state)
        others = totals(state.slots, slot.strategy, slot.base, (lead.slot, hedge.slot))
        budget = self._budget(state, slot.strategy, equity)
        refusal = self._refuse_pair(lead, hedge, wanted, others, equity, budget)
        if refusal is None:
            return wanted
        if not isinstance(self._strategies[slot.strategy].sizing, RiskSizing):
            return refusal
        bound = lead.price * lead.slot.margin_rate + hedge.price * hedge.slot.margin_rate
        fewer = min(
            wanted,
            (budget - others.strategy) / (lead.price + hedge.price),
            (self.gross_exposure * equity - others.gross) / (lead.price + hedge.price),
            (self.margin * equity - others.margin) / bound,
            (self.stress_margin * equity - others.stress) / sum(self.stresses(lead, hedge, Decimal(1))),
        )
        fewer = whole(fewer, step)
        if fewer <= 0 or self._refuse_pair(lead, hedge, fewer, others, equity, budget):
            return refusal
        return fewer

    def _refuse_pair(
        self, lead: Place, hedge: Place, wanted: Decimal, others: Totals, equity: Decimal, budget: Decimal
    ) -> Refusal | None:
        first, second = wanted * lead.price, wanted * hedge.price
        bound = first * lead.slot.margin_rate + second * hedge.slot.margin_rate
        return (
            limits.min_quantity(wanted, lead.instrument)
            or limits.min_quantity(wanted, hedge.instrument)
            or limits.min_notional(first, lead.instrument)
            or limits.min_notional(second, hedge.instrument)
            or limits.max_quantity(wanted, lead.instrument.max_limit_quantity, lead.instrument)
            or limits.max_quantity(wanted, hedge.instrument.max_market_quantity, hedge.instrument)
            or limits.pair_delta(first - second, equity, self.pair_delta)
            or limits.strategy_budget(others.strategy + first + second, budget)
            or limits.gross_exposure(others.gross + first + second, equity, self.gross_exposure)
            or limits.margin(others.margin + bound, equity, self.margin)
            or limits.stress_margin(others.stress + sum(self.stresses(lead, hedge, wanted)), equity, self.stress_margin)
        )

    def stresses(self, lead: Place, hedge: Place, quantity: Decimal) -> tuple[Decimal, Decimal]:
        """What each leg asks for after the shock. A derivative hedged by another gains there what it loses here."""
        alone = lead.instrument.is_spot or hedge.instrument.is_spot

        def one(place: Place) -> Decimal:
            value = quantity * place.price
            if place.instrument.is_spot:
                return Decimal(0)
            asked = stressed(value, place.slot.margin_rate, self.stress_shock)
            return asked if alone else asked - value * self.stress_shock

        return one(lead), one(hedge)

    # --- orders of processes --------------------------------------------------------------------

    def probe(self, state: RiskState, order: SubmitOrder, instrument: Instrument | None, now: int) -> Refusal | None:
        """Whether an order that a process made may be sent: only one that cannot matter. It may before trading starts."""
        refusal = limits.probe_shape(order, self._strategies)
        if refusal is not None:
            return refusal
        if instrument is None:
            return Refusal(Rule.UNKNOWN_INSTRUMENT, order.instrument, "an instrument whose rules are known")
        if state.kill.tripped or state.flattening is not None:
            return Refusal(
                Rule.TRADING_STATE, state.kill.tripped or "everything is being closed", "a switch not tripped"
            )
        if order.client_order_id in state.orders:
            return Refusal(Rule.NOT_A_PROBE, f"{order.client_order_id} again", "an id of its own for each order")
        limit = order.limit or ZERO  # there is one: see its shape
        return (
            limits.probe_notional(order.quantity * limit, limit, self.probe_notional, instrument)
            or limits.probe_price(order.side, limit, _last(state, order.instrument), self.probe_distance)
            or limits.probe_count(open_probes(state, self._strategies) + 1, self._probe_orders)
            or limits.order_rate(recent_orders(state, now) + 1, self._orders_per_minute)
        )

    def amendment(self, state: RiskState, amend: AmendOrder, instrument: Instrument | None) -> Refusal | None:
        """Whether an order may be changed: a process's own, to no more and to no nearer."""
        order = state.orders.get(amend.client_order_id)
        if (
            order is None
            or instrument is None
            or order.strategy != amend.strategy
            or amend.strategy in self._strategies
        ):
            return Refusal(Rule.NOT_A_PROBE, amend.client_order_id, f"an open order of the process {amend.strategy}")
        most = abs(order.remaining) + order.filled
        if amend.quantity is not None and not 0 < amend.quantity <= most:
            return Refusal(Rule.PROBE_NOTIONAL, f"{amend.quantity:f} {instrument.base}", f"at most {most:f}")
        if amend.limit is None:
            return None
        if amend.limit <= 0:
            return Refusal(Rule.PROBE_PRICE, f"{amend.limit:f}", "above 0")
        side = BUY if order.remaining > 0 else Side.SELL
        quantity = most if amend.quantity is None else amend.quantity
        return limits.probe_notional(
            quantity * amend.limit, amend.limit, self.probe_notional, instrument
        ) or limits.probe_price(side, amend.limit, _last(state, amend.instrument), self.probe_distance)

    # --- both -----------------------------------------------------------------------------------

    def _quantity(self, state: RiskState, signal: Signal, place: Place, step: Decimal) -> Refusal | Decimal:
        if not place.price:
            return Refusal(Rule.PRICE_COLLAR, f"{place.leg.price:g}", f"above a tick of {place.instrument.tick:f}")
        refusal = limits.unknown_equity(state.equity)
        if refusal is not None:
            return refusal
        found = size(
            self._strategies[signal.strategy].sizing,
            equity=_known(state),
            price=place.leg.price,
            stop=signal.bracket.stop if signal.bracket is not None else None,
            volatility=signal.volatility,
        )
        if found is None:
            return Refusal(Rule.SIZE_UNKNOWN, "neither stop nor volatility", "one of them")
        full = found.quantity * abs(place.leg.weight)
        if self._kill.state.tier >= YELLOW:
            full *= self._kill.config.yellow_scale
        wanted = place.instrument.quantity(full)
        if step != place.instrument.step:
            wanted = whole(wanted, step)
        if not wanted:
            return Refusal(Rule.SIZE_ZERO, f"{full:g} {place.instrument.base} by {found.term}", f"a step of {step:f}")
        return wanted

    def _budget(self, state: RiskState, strategy: str, equity: Decimal) -> Decimal:
        return share_of(state, strategy, self._strategies) * equity * self.strategy_leverage


def _last(state: RiskState, instrument: str) -> Decimal | None:
    """The last price heard of an instrument, however long ago; None where none was."""
    seen = state.prices.get(instrument)
    return None if seen is None else Decimal(seen.price)


def _known(state: RiskState) -> Decimal:
    if state.equity is None:
        raise AssertionError("limits are measured against a known equity")
    return state.equity


def recent_orders(state: RiskState, now: int) -> int:
    """How many opening orders were sent in the minute before `now`. The oldest come first."""
    sent = state.sent
    return len(sent) - bisect_right(sent, now - MINUTE) if sent else 0


def open_probes(state: RiskState, strategies: Mapping[str, StrategyLimits]) -> int:
    """How many orders of processes are open: of whoever is no strategy."""
    return sum(one.strategy not in strategies for one in state.orders.values())


def share_of(state: RiskState, strategy: str, strategies: Mapping[str, StrategyLimits]) -> Decimal:
    """The share of the equity that a strategy may use: as it was told last, else as it was set."""
    share = state.shares.get(strategy)
    return strategies[strategy].share if share is None else share


def in_ticks(bracket: Bracket, place: Place) -> OrderBracket:
    """A bracket as the venue holds it: the stop never looser than asked, the target never further."""
    rules = place.instrument
    nearer, lower = rules.price_up, rules.price_down
    if place.side is not BUY:
        nearer, lower = lower, nearer
    return OrderBracket(nearer(bracket.stop), None if bracket.target is None else lower(bracket.target))
