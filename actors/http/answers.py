"""Answers of the API, made of what the engine showed: plain values whose shapes are in `schemas`.

They are encoded as they are, and not validated once more on their way out: the tests do that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec

from actors.http.port import NoSuchError
from actors.logs import redacted
from actors.process_factory import ProcessView
from actors.views import orders as rows_of_orders
from actors.words import (
    Arming,
    FeedFigures,
    History,
    OrderRow,
    Phase,
    Picture,
    PositionView,
    RefusalView,
    StrategyCard,
    WhyView,
)
from hean.instruments import split_id
from hean.monitor import PARTS, FillView, Point
from hean.processes.runs import RunView, StepView
from hean.trips import RoundTrip
from hean.units import MILLISECOND, SECOND, utc

Body = dict[str, Any]

BOOKS = "portfolio"
FACTS = "monitor"
"""Whose word an answer is: the books, or what was said by whoever it happened to."""

LAG_S = 120.0
"""An engine whose books were not compared with the venue for as long is not well."""

_QUOTES = ("USDT", "USDC", "USD")
_ALL = 10**9


# --- the engine -------------------------------------------------------------------------------------


def status(picture: Picture) -> Body:
    """`GET /engine/status`."""
    view = picture.view
    return {
        "as_of": at(view.ts),
        "venue": view.venue,
        "phase": view.phase,
        "epoch": view.epoch,
        "trading": view.trading,
        "reason": view.reason,
        "blocked": view.blocked,
        "tripped": view.tripped,
        "equity": money(view.equity),
        "equity_age_s": view.equity_age_s,
        "marks_known": view.marks_known,
        "reconcile_lag_s": view.reconcile_lag_s,
        "discrepancies": view.discrepancies,
        "recovery_s": view.recovery_s,
        "dry_run": view.dry_run,
        "armed_until": maybe_at(view.armed_until),
        "permit": view.permit,
        "actors": view.actors,
        "errors": view.errors,
        "feeds": [_feed(one) for one in picture.feeds],
    }


def health(picture: Picture) -> Body:
    """`GET /health`: what is not as it should be. That a person stopped trading is as it should be."""
    view = picture.view
    reasons = []
    if view.phase is not Phase.RUNNING:
        reasons.append("; ".join([f"the engine is {view.phase}", *view.blocked]))
    if view.tripped:
        reasons.append(f"the kill switch was tripped by {view.tripped}")
    reasons += [f"{one.name} does not answer" for one in view.actors if not one.alive]
    reasons += [f"{one.instrument} cannot be seen" for one in picture.feeds if one.live is False]
    if view.reconcile_lag_s is None or view.reconcile_lag_s > LAG_S:
        since = "never" if view.reconcile_lag_s is None else f"not for {view.reconcile_lag_s:.0f} s"
        reasons.append(f"the books were {since} compared with the venue")
    if view.discrepancies:
        reasons.append(f"the books differ from the venue in {view.discrepancies} places")
    return {"ok": not reasons, "as_of": at(view.ts), "reasons": reasons}


def armed(arming: Arming, request_id: str, now: int) -> Body:
    """`POST /engine/arm`."""
    expires = arming.until
    if expires is None and arming.nonce_s is not None:
        expires = now + int(arming.nonce_s * SECOND)
    return {
        "said": arming.said,
        "request_id": request_id,
        "armed": arming.granted,
        "nonce": arming.nonce or None,
        "phrase": arming.phrase or None,
        "expires": maybe_at(expires),
        "reasons": arming.reasons,
        "allowed": arming.allowed,
        "account": arming.account,
        "settings": arming.settings,
    }


def _feed(one: FeedFigures) -> Body:
    return {
        "instrument": one.instrument,
        "live": one.live,
        "age_s": one.age_s,
        "ages_s": one.ages_s,
        "rows": one.rows,
        "conflated": one.conflated,
    }


# --- positions, orders, money ---------------------------------------------------------------------


def positions(picture: Picture) -> Body:
    """`GET /positions`: what is held, and which of it hedges what."""
    held = [_position(one) for one in picture.view.positions]
    legs = sorted((one for one in held if one["strategy"]), key=_pair)
    pairs = [
        {
            "strategy": strategy,
            "base": base,
            "legs": found,
            "net": money(sum((Decimal(leg["quantity"]) + Decimal(leg["dust"]) for leg in found), Decimal(0))),
        }
        for (strategy, base), several in groupby(legs, key=_pair)
        if len(found := list(several)) > 1
    ]
    return {**_seen(picture, BOOKS), "positions": held, "pairs": pairs}


def orders(picture: Picture, *, status: str | None = None, strategy: str | None = None, limit: int = 100) -> Body:
    """`GET /orders`: those that wait, then the others."""
    rows = rows_of_orders(picture.monitor, picture.view.ts, _ALL)
    wanted = (
        row
        for row in rows
        if (status is None or row.status == status) and (strategy is None or row.strategy == strategy)
    )
    return {**_seen(picture, FACTS), "orders": [_order(row) for row, _ in zip(wanted, range(limit), strict=False)]}


def fills(history: History, *, strategy: str | None = None, limit: int = 100) -> Body:
    """`GET /fills`."""
    found = [one for one in history.fills if strategy is None or one.strategy == strategy][:limit]
    return {"as_of": at(history.ts), "source": FACTS, "fills": [_fill(one) for one in found]}


def trades(history: History, *, strategy: str | None = None, limit: int = 100) -> Body:
    """`GET /trades`."""
    found = [one for one in history.trips if strategy is None or one.strategy == strategy][:limit]
    return {"as_of": at(history.ts), "source": FACTS, "trades": [_trade(one) for one in found]}


def equity(picture: Picture, history: History, *, points: int = 500) -> Body:
    """`GET /equity`: the curve, thinned; its first and its last point always stay."""
    view = picture.view
    return {
        "as_of": at(view.ts),
        "source": FACTS,
        "equity": money(view.equity),
        "equity_age_s": view.equity_age_s,
        "marks_known": view.marks_known,
        "cash": money(picture.monitor.cash),
        "curve": [_point(one) for one in thinned(history.curve, points)],
        "by_strategy": {name: profit(picture, name) for name in picture.monitor.profits},
    }


def profit(picture: Picture, strategy: str) -> dict[str, str]:
    """What a strategy gained and lost, in parts; empty where that is not known."""
    parts = picture.monitor.profits.get(strategy)
    if parts is None:
        return {}
    found: dict[str, Decimal] = {name: getattr(parts, name) for name in PARTS}
    return {name: f"{part:f}" for name, part in (found | {"net": sum(found.values(), Decimal(0))}).items()}


def naked(picture: Picture) -> float | None:
    """What should be hedged and is not, over all pairs, in the quote currency; None where a price is not known."""
    amounts = [one.amount for one in picture.limits if one.rule == "MAX_NAKED"]
    return None if None in amounts else sum(one for one in amounts if one is not None)


def thinned(curve: Sequence[Point], most: int) -> list[Point]:
    """At most so many points of a curve, evenly taken, both ends among them."""
    if len(curve) <= most:
        return list(curve)
    if most == 1:
        return [curve[-1]]
    return [curve[place * (len(curve) - 1) // (most - 1)] for place in range(most)]


def _seen(picture: Picture, source: str) -> Body:
    known = picture.monitor.reconciliation
    return {
        "as_of": at(picture.view.ts),
        "source": source,
        "reconciled": None if known.ts_success is None else known.discrepancies == 0,
        "reconcile_lag_s": picture.view.reconcile_lag_s,
    }


def _position(one: PositionView) -> Body:
    return {
        "strategy": one.strategy,
        "instrument": one.instrument,
        "quantity": money(one.quantity),
        "dust": money(one.dust),
        "entry": money(one.entry),
        "mark": one.mark,
        "age_s": one.age_s,
    }


def _pair(position: Body) -> tuple[str, str]:
    return position["strategy"], base_of(position["instrument"])


def base_of(instrument: str) -> str:
    """The base coin of an instrument of the account: BTC of BTCUSDT-LINEAR.BYBIT."""
    symbol = split_id(instrument)[0]
    return next((symbol.removesuffix(quote) for quote in _QUOTES if symbol.endswith(quote)), symbol)


def _order(row: OrderRow) -> Body:
    return {
        "client_order_id": row.client_order_id,
        "strategy": row.strategy,
        "instrument": row.instrument,
        "status": row.status,
        "side": row.side,
        "quantity": money(row.quantity),
        "filled": money(row.filled),
        "average_price": money(row.average_price),
        "reason": row.reason,
        "age_s": row.age_s,
    }


def _fill(one: FillView) -> Body:
    return {
        "ts": at(one.ts),
        "trade_id": one.trade_id,
        "client_order_id": one.client_order_id,
        "strategy": one.strategy,
        "instrument": one.instrument,
        "side": one.side.name,
        "quantity": money(one.quantity),
        "price": money(one.price),
        "fee": money(one.fee),
        "fee_currency": one.fee_currency,
        "liquidity": one.liquidity,
        "exit": one.exit,
        "reference": money(one.reference),
    }


def _trade(one: RoundTrip) -> Body:
    return {
        "strategy": one.strategy,
        "instruments": one.instruments,
        "side": one.side,
        "quantity": money(one.quantity),
        "entry_price": money(one.entry_price),
        "exit_price": money(one.exit_price),
        "pnl": money(one.pnl),
        "fees": money(one.fees),
        "funding": money(one.funding),
        "opened": at(one.ts_open),
        "closed": maybe_at(one.ts_close),
        "held_s": None if one.ts_close is None else (one.ts_close - one.ts_open) / SECOND,
        "closed_by": one.closed_by,
    }


def _point(one: Point) -> Body:
    return {
        "ts": at(one.ts),
        "equity": money(one.equity),
        "marks_known": one.marks_known,
        "parts": {name: f"{part:f}" for name, part in one.parts.items()},
    }


# --- strategies, risk -------------------------------------------------------------------------------


def strategies(picture: Picture) -> Body:
    """`GET /strategies`."""
    return {"as_of": at(picture.view.ts), "strategies": [_strategy(picture, card) for card in picture.strategies]}


def strategy(picture: Picture, name: str) -> Body:
    """`GET /strategies/{name}`.

    Raises:
        NoSuchError: There is none of this name.
    """
    return _strategy(picture, must_have(picture, name))


def must_have(picture: Picture, name: str) -> StrategyCard:
    """The card of a strategy.

    Raises:
        NoSuchError: There is none of this name.
    """
    for card in picture.strategies:
        if card.name == name:
            return card
    known = ", ".join(card.name for card in picture.strategies) or "none"
    raise NoSuchError(f"there is no strategy {name}: there are {known}")


def why(picture: Picture, strategy: str | None = None) -> Body:
    """`GET /why`.

    Raises:
        NoSuchError: There is no such strategy.
    """
    if strategy is not None:
        must_have(picture, strategy)
    found = [_why(one) for one in picture.why if strategy is None or one.strategy == strategy]
    return {"as_of": at(picture.view.ts), "why": found}


def risk(picture: Picture) -> Body:
    """`GET /risk`: limits used and left, and what was refused."""
    view = picture.view
    refusals = [_refusal(one.strategy, refusal) for one in picture.why for refusal in one.refusals]
    return {
        "as_of": at(view.ts),
        "trading": view.trading,
        "reason": view.reason,
        "tripped": view.tripped,
        "naked": naked(picture),
        "limits": [
            {
                "rule": one.rule,
                "subject": one.subject,
                "used": one.used,
                "limit": one.limit,
                "left": None if one.used is None else one.limit - one.used,
                "unit": one.unit,
                "amount": one.amount,
            }
            for one in picture.limits
        ],
        "refusals": sorted(refusals, key=lambda one: one["age_s"]),
    }


def _strategy(picture: Picture, card: StrategyCard) -> Body:
    seen = card.ts_last_signal
    return {
        "name": card.name,
        "use": card.use,
        "enabled": card.enabled,
        "instruments": card.instruments,
        "config": redacted(card.config),
        "share": money(card.share),
        "sizing": redacted(card.sizing),
        "last_signal": card.last_signal,
        "last_signal_at": maybe_at(seen),
        "last_signal_age_s": None if seen is None else (picture.view.ts - seen) / SECOND,
        "profit": profit(picture, card.name),
        "why": next((_why(one) for one in picture.why if one.strategy == card.name), None),
    }


def _why(one: WhyView) -> Body:
    return {
        "strategy": one.strategy,
        "funnel": one.funnel,
        "refusals": [_refusal(one.strategy, refusal) for refusal in one.refusals],
        "gates": one.gates,
        "trading": one.trading,
        "blocked_by": one.blocked_by,
    }


def _refusal(strategy: str, one: RefusalView) -> Body:
    return {
        "strategy": strategy,
        "rule": one.rule,
        "count": one.count,
        "instrument": one.instrument,
        "measured": one.measured,
        "limit": one.limit,
        "age_s": one.age_s,
    }


# --- processes --------------------------------------------------------------------------------------


def processes(known: Iterable[ProcessView], runs: Iterable[RunView], now: int) -> Body:
    """`GET /processes`."""
    return {"as_of": at(now), "processes": list(known), "runs": [run(one) for one in runs]}


def run(one: RunView) -> Body:
    """`GET /processes/{run_id}`."""
    return {
        "run_id": one.run_id,
        "process": one.process,
        "version": one.version,
        "arguments": redacted(one.arguments),
        "status": one.status,
        "reason": one.reason,
        "waits_for": one.waits_for,
        "asked": at(one.ts_asked),
        "began": maybe_at(one.ts_began),
        "ended": maybe_at(one.ts_ended),
        "steps": [_step(step) for step in one.steps],
    }


def _step(one: StepView) -> Body:
    return {
        "name": one.name,
        "status": one.status,
        "attempts": one.attempts,
        "began": maybe_at(one.ts_began),
        "ended": maybe_at(one.ts_ended),
        "reason": one.reason,
        "output": redacted(one.output),
    }


# --- settings -------------------------------------------------------------------------------------


def settings(tree: Mapping[str, Any], origins: Mapping[str, str]) -> list[Body]:
    """`GET /settings`: every setting by its dotted name; what is secret, or is named like it, is not shown."""
    hidden: dict[str, Any] = redacted(tree)
    return [{"name": name, "value": value, "origin": origins.get(name)} for name, value in _leaves(hidden)]


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


# --- values -----------------------------------------------------------------------------------------


def encoded(body: Any) -> bytes:
    """An answer as JSON."""
    return msgspec.json.encode(body)


def money(amount: Decimal | None) -> str | None:
    """An amount as text, without an exponent."""
    return None if amount is None else f"{amount:f}"


def at(ts: int) -> str:
    """An instant as people and browsers write it, to the millisecond."""
    return utc(ts // MILLISECOND * MILLISECOND)


def maybe_at(ts: int | None) -> str | None:
    return None if ts is None else at(ts)
