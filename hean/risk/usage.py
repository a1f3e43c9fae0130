"""What is used of every limit: the very figures that the limits compare, at the time of asking.

Limits of a single order, such as what it may lose at its stop, are used by nothing until there is one: they are not here.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from msgspec import Struct

from hean.instruments import Instrument
from hean.risk.approval import open_probes, recent_orders, share_of
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.control import unreconciled_since
from hean.risk.exposure import RESERVE, ZERO, Slot, totals
from hean.risk.killswitch import KillSwitch
from hean.risk.limits import Rule, lost_today
from hean.risk.state import RiskState
from hean.units import SECOND

SHARE = "share"
ACCOUNT = "account"


class LimitUse(Struct, frozen=True):
    """What is used of a limit, in its own unit: "share" is of the account's equity. None is not known, and never nought.

    `subject` is what is limited: the account, a strategy, a coin, an instrument. `amount` is what is used in quote currency,
    where it is money. Most limits may be reached and not passed; `DAILY_LOSS`, the tiers of `DRAWDOWN`, `ERRORS` and those
    of reconciliation that end in a trip or in reducing act when they are reached.
    """

    rule: str
    subject: str
    used: float | None
    limit: float
    unit: str
    amount: float | None = None


class Naked(Struct, frozen=True):
    """What a strategy's legs in one coin are worth that stands unhedged; None where no price is known."""

    strategy: str
    base: str
    notional: Decimal | None


def usage(
    state: RiskState,
    config: RiskConfig,
    strategies: Mapping[str, StrategyLimits],
    instruments: Mapping[str, Instrument],
    kill: KillSwitch,
    now: int,
) -> tuple[LimitUse, ...]:
    """What is used of every limit of the account, at `now`."""
    return (
        *_exposure(state, config, strategies, instruments),
        *_losses(state, config, kill, now),
        *_pace(state, config, strategies, kill, now),
        *_ages(state, config, strategies, instruments, now),
    )


def naked(state: RiskState) -> list[Naked]:
    """What stands unhedged of every pair: of a strategy's places in one coin, where they are more than one.

    It is what the legs do not match in quantity, dust included, at the dearer leg's price.
    """
    found = []
    for strategy, places in state.slots.items():
        by_base: dict[str, list[Slot]] = {}
        for slot in places.values():
            by_base.setdefault(slot.base, []).append(slot)
        for base, legs in by_base.items():
            if strategy != RESERVE and len(legs) > 1:
                loose = abs(sum((leg.held + leg.dust for leg in legs), ZERO))
                price = max(leg.price for leg in legs)
                found.append(Naked(strategy, base, loose * price if price or not loose else None))
    return found


def total(of: list[Naked]) -> Decimal | None:
    """All of it together; None where one is not known."""
    known = [one.notional for one in of if one.notional is not None]
    return sum(known, ZERO) if len(known) == len(of) else None


def _exposure(
    state: RiskState,
    config: RiskConfig,
    strategies: Mapping[str, StrategyLimits],
    instruments: Mapping[str, Instrument],
) -> Iterator[LimitUse]:
    equity = state.equity

    def held(rule: Rule, subject: str, amount: Decimal, limit: float) -> LimitUse:
        return _of_equity(rule, subject, amount, equity, limit)

    # As somebody finds it who holds nothing yet: nobody's own positions make room for him.
    every = totals(state.slots, RESERVE, "", ())
    yield held(Rule.GROSS_EXPOSURE, ACCOUNT, every.gross, config.gross_exposure)
    yield held(Rule.MARGIN, ACCOUNT, every.margin, config.margin)
    yield held(Rule.STRESS_MARGIN, ACCOUNT, every.stress, config.stress_margin)
    for base in sorted({rules.base for rules in instruments.values()}):
        coin = totals(state.slots, RESERVE, base, ())
        yield held(Rule.SYMBOL_EXPOSURE, base, max(coin.high, -coin.low), config.symbol_exposure)
    for name in strategies:
        own = totals(state.slots, name, "", ()).strategy
        limit = float(share_of(state, name, strategies)) * config.strategy_leverage
        yield held(Rule.STRATEGY_BUDGET, name, own, limit)
    for pair in naked(state):
        # Each pair is sent with what it may leave naked, as a share of the equity last marked.
        yield _of_equity(
            "MAX_NAKED", f"{pair.strategy} {pair.base}", pair.notional, state.kill.equity, config.max_naked
        )


def _losses(state: RiskState, config: RiskConfig, kill: KillSwitch, now: int) -> Iterator[LimitUse]:
    lost = lost_amount = None
    if state.equity is not None and state.day_equity > ZERO:
        lost = float(max(lost_today(state.day_equity, state.equity), ZERO))
        lost_amount = float(max(state.day_equity - state.equity, ZERO))
    yield LimitUse(Rule.DAILY_LOSS, ACCOUNT, lost, config.daily_loss, SHARE, lost_amount)
    known = state.kill.high_water is not None
    soft = kill.soft(now) if known else None
    switch = config.kill_switch
    yield LimitUse("DRAWDOWN", "yellow", soft, switch.yellow, SHARE)
    yield LimitUse("DRAWDOWN", "orange", soft, switch.orange, SHARE)
    yield LimitUse("DRAWDOWN", "red", float(state.kill.drawdown) if known else None, switch.red, SHARE)


def _pace(
    state: RiskState, config: RiskConfig, strategies: Mapping[str, StrategyLimits], kill: KillSwitch, now: int
) -> Iterator[LimitUse]:
    switch = config.kill_switch
    yield LimitUse(Rule.ORDER_RATE, ACCOUNT, recent_orders(state, now), config.orders_per_minute, "orders")
    yield LimitUse(Rule.PROBE_COUNT, ACCOUNT, open_probes(state, strategies), config.probe_orders, "orders")
    yield LimitUse("ERRORS", ACCOUNT, kill.errors(now), switch.max_errors, "errors")
    yield LimitUse("DEATHS", ACCOUNT, kill.deaths(now), switch.max_deaths, "deaths")


def _ages(
    state: RiskState,
    config: RiskConfig,
    strategies: Mapping[str, StrategyLimits],
    instruments: Mapping[str, Instrument],
    now: int,
) -> Iterator[LimitUse]:
    if config.reconciler:
        age, waited = _age(state.ts_reconciled, now), _age(unreconciled_since(state), now)
        yield LimitUse(Rule.STALE_RECONCILE, ACCOUNT, age, config.reconcile_age_s, "s")
        yield LimitUse("RECONCILE_LAG", ACCOUNT, age, config.reconcile_lag_s, "s")
        yield LimitUse("RECONCILE_TRIP", ACCOUNT, waited, config.reconcile_trip_s, "s")
    own = [config.price_age_s if one.price_age_s is None else one.price_age_s for one in strategies.values()]
    oldest = min(own, default=config.price_age_s)
    for name in instruments:
        # While an instrument can be seen, the age of its price is known only with a signal: it is used by nothing.
        if name in state.stale:
            yield LimitUse(Rule.STALE_PRICE, name, _age(state.stale[name] or None, now), oldest, "s")


def _of_equity(rule: str, subject: str, amount: Decimal | None, equity: Decimal | None, limit: float) -> LimitUse:
    used = None
    if amount is not None and equity is not None and equity > ZERO:
        used = float(amount / equity)
    return LimitUse(rule, subject, used, limit, SHARE, None if amount is None else float(amount))


def _age(ts: int | None, now: int) -> float | None:
    return None if ts is None else (now - ts) / SECOND
