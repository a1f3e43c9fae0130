"""The limits: one pure function each. `None` is yes; a `Refusal` names the rule, the figure and the limit it broke.

Money is quote currency, shares are fractions, ages are nanoseconds. A figure equal to its limit is inside it.
"""

import enum
import math
import re
from collections.abc import Collection
from decimal import Decimal

from msgspec import Struct

from hean.instruments import Instrument
from hean.messages import Bracket, Side, SubmitOrder, TimeInForce, TradingState
from hean.risk.memory import FAR

_ACTIVE = TradingState.ACTIVE
LINK_ID = "[A-Za-z0-9_-]{1,36}"
"""Bybit v5, *Place Order*: what orderLinkId may be."""


class Rule(enum.StrEnum):
    """The stable codes of refusals: dashboards and strategies may depend on them."""

    UNKNOWN_STRATEGY = "UNKNOWN_STRATEGY"
    UNKNOWN_INSTRUMENT = "UNKNOWN_INSTRUMENT"
    SAME_INSTRUMENT = "SAME_INSTRUMENT"
    WEIGHT = "WEIGHT"
    SPOT_SHORT = "SPOT_SHORT"
    TRADING_STATE = "TRADING_STATE"
    STRATEGY_OFF = "STRATEGY_OFF"
    STALE_PRICE = "STALE_PRICE"
    STALE_RECONCILE = "STALE_RECONCILE"
    ORDER_PENDING = "ORDER_PENDING"
    CONTEXT_BLOCKED = "CONTEXT_BLOCKED"
    UNKNOWN_EQUITY = "UNKNOWN_EQUITY"
    DAILY_LOSS = "DAILY_LOSS"
    ORDER_RATE = "ORDER_RATE"
    PRICE_COLLAR = "PRICE_COLLAR"
    BRACKET = "BRACKET"
    SIZE_UNKNOWN = "SIZE_UNKNOWN"
    SIZE_ZERO = "SIZE_ZERO"
    MIN_QUANTITY = "MIN_QUANTITY"
    MIN_NOTIONAL = "MIN_NOTIONAL"
    MAX_QUANTITY = "MAX_QUANTITY"
    TRADE_RISK = "TRADE_RISK"
    SYMBOL_EXPOSURE = "SYMBOL_EXPOSURE"
    PAIR_DELTA = "PAIR_DELTA"
    STRATEGY_BUDGET = "STRATEGY_BUDGET"
    GROSS_EXPOSURE = "GROSS_EXPOSURE"
    MARGIN = "MARGIN"
    STRESS_MARGIN = "STRESS_MARGIN"
    NOT_A_PROBE = "NOT_A_PROBE"
    PROBE_NOTIONAL = "PROBE_NOTIONAL"
    PROBE_PRICE = "PROBE_PRICE"
    PROBE_COUNT = "PROBE_COUNT"


class Refusal(Struct, frozen=True, gc=False):
    """Why not: the rule, what was measured, and the limit, as people read them."""

    rule: Rule
    measured: str
    limit: str


# --- whether to trade at all --------------------------------------------------------------------


def trading_state(trading: TradingState) -> Refusal | None:
    """Only an active system opens or adds."""
    if trading is _ACTIVE:
        return None
    return Refusal(Rule.TRADING_STATE, trading, _ACTIVE)


def finishing(why: str) -> Refusal | None:
    """While trading comes to its end, what is under way may finish, and nothing else begins."""
    return Refusal(Rule.TRADING_STATE, why, _ACTIVE) if why else None


def stale_price(age: int, limit: int) -> Refusal | None:
    """A price from the future is as unusable as an old one: one of the two clocks is wrong."""
    if 0 <= age <= limit:
        return None
    return Refusal(Rule.STALE_PRICE, f"{age / 1e9:.3f} s old", f"{limit / 1e9:.3f} s")


def weight(value: float) -> Refusal | None:
    """A weight beyond 1 would be more than the sizer allows."""
    return None if -1 <= value <= 1 else Refusal(Rule.WEIGHT, f"{value:g}", "from -1 to 1")


def stale_feed(instrument: str, stale: dict[str, int]) -> Refusal | None:
    if instrument not in stale:
        return None
    return Refusal(Rule.STALE_PRICE, f"{instrument} unseen since {stale[instrument]}", "a live feed")


def stale_reconcile(age: int, limit: int) -> Refusal | None:
    if age <= limit:
        return None
    return Refusal(Rule.STALE_RECONCILE, f"{age / 1e9:.0f} s since the last", f"{limit / 1e9:.0f} s")


def unknown_equity(equity: Decimal | None) -> Refusal | None:
    """An account whose worth is not known, or is gone, opens nothing."""
    if equity is not None and equity > 0:
        return None
    return Refusal(Rule.UNKNOWN_EQUITY, "unknown" if equity is None else f"{equity:f}", "known and above 0")


def daily_loss(start: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`start` is the equity at 00:00 UTC, or the first known since."""
    if start <= equity or start - equity < limit * start:
        return None
    return Refusal(Rule.DAILY_LOSS, f"{lost_today(start, equity):.2%} lost today", f"{limit:.2%}")


def lost_today(start: Decimal, equity: Decimal) -> Decimal:
    """The share of the equity at the beginning of the day that is lost; negative where it was gained."""
    return (start - equity) / start


def order_rate(sent: int, limit: int) -> Refusal | None:
    """`sent` counts the orders of the last minute and the ones proposed."""
    if sent <= limit:
        return None
    return Refusal(Rule.ORDER_RATE, f"{sent} orders in a minute", f"{limit}")


# --- whether this price is believable -----------------------------------------------------------


def price_collar(price: float, last: float | None, limit: float) -> Refusal | None:
    """A price far from another heard moments ago is a mistake, or a market to stay out of; so is none at all."""
    if not 0 < price < math.inf:
        return Refusal(Rule.PRICE_COLLAR, f"{price:g}", "above 0")
    if last is None or abs(price - last) <= limit * last:
        return None
    return Refusal(Rule.PRICE_COLLAR, f"{price:g} against {last:g}", f"within {limit:.2%}")


def bracket_side(side: Side, price: Decimal, stop: Decimal, target: Decimal | None) -> Refusal | None:
    """A stop loses and a target gains; anything else would close at once."""
    if side > 0:
        apart = stop < price and (target is None or price < target)
    else:
        apart = price < stop and (target is None or target < price)
    if apart and stop > 0:
        return None
    return Refusal(Rule.BRACKET, f"stop {stop:f}, target {target}", f"either side of {price:f}, {side.name.lower()}")


def bracket_prices(bracket: Bracket) -> Refusal | None:
    """Whether both are prices at all: one further than `FAR` could not be counted in ticks."""
    if 0 < bracket.stop < FAR and (bracket.target is None or 0 < bracket.target < FAR):
        return None
    return Refusal(Rule.BRACKET, f"stop {bracket.stop}, target {bracket.target}", "above 0")


# --- the venue's rules --------------------------------------------------------------------------


def min_quantity(quantity: Decimal, instrument: Instrument) -> Refusal | None:
    if quantity >= instrument.min_quantity:
        return None
    return Refusal(Rule.MIN_QUANTITY, f"{quantity:f} {instrument.base}", f"{instrument.min_quantity:f}")


def min_notional(notional: Decimal, instrument: Instrument) -> Refusal | None:
    if notional >= instrument.min_notional:
        return None
    return Refusal(Rule.MIN_NOTIONAL, f"{notional:.2f} {instrument.quote}", f"{instrument.min_notional:f}")


def max_quantity(quantity: Decimal, limit: Decimal, instrument: Instrument) -> Refusal | None:
    """`limit` is the venue's for this kind of order."""
    if quantity <= limit:
        return None
    return Refusal(Rule.MAX_QUANTITY, f"{quantity:f} {instrument.base}", f"{limit:f}")


# --- how much may be at stake -------------------------------------------------------------------


def trade_risk(loss: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`loss` is what the whole position loses from here to its stop."""
    return None if loss <= limit * equity else _beyond(Rule.TRADE_RISK, loss, equity, limit)


def symbol_exposure(net: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`net` is the value of one base coin, over all instruments and strategies, in the order's direction."""
    return None if net <= limit * equity else _beyond(Rule.SYMBOL_EXPOSURE, net, equity, limit)


def pair_delta(delta: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`delta` is what of a pair is not hedged, either way."""
    return None if abs(delta) <= limit * equity else _beyond(Rule.PAIR_DELTA, abs(delta), equity, limit)


def gross_exposure(gross: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    return None if gross <= limit * equity else _beyond(Rule.GROSS_EXPOSURE, gross, equity, limit)


def margin(used: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`used` is the initial margin of derivatives and the whole price of spot."""
    return None if used <= limit * equity else _beyond(Rule.MARGIN, used, equity, limit)


def stress_margin(needed: Decimal, equity: Decimal, limit: Decimal) -> Refusal | None:
    """`needed` is what a pair's derivative asks after a shock: its loss, and its margin at the new price."""
    return None if needed <= limit * equity else _beyond(Rule.STRESS_MARGIN, needed, equity, limit)


def strategy_budget(used: Decimal, budget: Decimal) -> Refusal | None:
    """`budget` is the strategy's share of the equity, times the leverage allowed."""
    if used <= budget:
        return None
    return Refusal(Rule.STRATEGY_BUDGET, f"{used:.2f}", f"{budget:.2f}")


# --- orders of processes --------------------------------------------------------------------------


def probe_shape(order: SubmitOrder, strategies: Collection[str]) -> Refusal | None:
    """A process may only rest an order, under a name that is its own."""
    name, order_id = order.strategy, order.client_order_id
    if not name or name in strategies:
        return Refusal(Rule.NOT_A_PROBE, f"an order of {name or 'nobody'}", "a signal, or an order of a process")
    if not order_id.startswith(f"{name}-") or not re.fullmatch(LINK_ID, order_id):
        return Refusal(Rule.NOT_A_PROBE, order_id, f"{name}-..., at most 36 letters, digits, dashes or underscores")
    if order.limit is None or order.time_in_force is not TimeInForce.POST_ONLY:
        return Refusal(Rule.NOT_A_PROBE, f"{order.time_in_force}, limit {order.limit}", "post-only, with a limit")
    if order.reduce_only or order.bracket is not None:
        return Refusal(Rule.NOT_A_PROBE, "reduce-only or with a bracket", "neither")
    if order.quantity <= 0 or order.limit <= 0:
        return Refusal(Rule.NOT_A_PROBE, f"{order.quantity:f} at {order.limit:f}", "both above 0")
    return None


def probe_notional(notional: Decimal, price: Decimal, times: Decimal, instrument: Instrument) -> Refusal | None:
    """`times` the least that the venue takes as an order at this price."""
    least = max(instrument.min_notional, instrument.min_quantity * price)
    if notional <= times * least:
        return None
    return Refusal(Rule.PROBE_NOTIONAL, f"{notional:.2f} {instrument.quote}", f"{times * least:.2f}")


def probe_price(side: Side, limit: Decimal, last: Decimal | None, distance: Decimal) -> Refusal | None:
    """It must rest where it is not reached. Where no price is known, post-only has to do."""
    if last is None:
        return None
    away = (last - limit) * side / last
    if away >= distance:
        return None
    return Refusal(Rule.PROBE_PRICE, f"{away:.2%} from {last:f}", f"at least {distance:.2%}")


def probe_count(count: int, limit: int) -> Refusal | None:
    """`count` is of the orders of processes that are open, and the one proposed."""
    return None if count <= limit else Refusal(Rule.PROBE_COUNT, f"{count}", f"{limit}")


def _beyond(rule: Rule, value: Decimal, equity: Decimal, limit: Decimal) -> Refusal:
    return Refusal(rule, f"{value:.2f}, {value / equity:.2%} of equity", f"{limit:.2%}")
