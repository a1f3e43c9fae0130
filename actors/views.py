"""What those who ask are shown: the monitor's state as figures with their ages. What was never said is None."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct, structs

from actors.crew import Member
from actors.words import (
    ActorView,
    EngineView,
    FeedFigures,
    History,
    OrderRow,
    Phase,
    Picture,
    PositionView,
    Pulse,
    RefusalView,
    Seen,
    StrategyCard,
    Voice,
    WhyView,
)
from hean.messages import TradingState
from hean.monitor import Monitor, MonitorState, StrategyView
from hean.trading_system import Strategy, default_sizing
from hean.trips import Trips
from hean.units import SECOND


def shown(state: MonitorState) -> MonitorState:
    """A monitor's state without what only the monitor itself needs, and without what has been: see `past`."""
    left_out: dict[str, Any] = {
        "told": {},
        "told_before": {},
        "curve": [],
        "fills": [],
        "trips": [],
        "trips_open": Trips(),
    }
    return structs.replace(state, **left_out)


def past(monitor: Monitor, now: int) -> History:
    """What has been, as far as a monitor remembers it."""
    state = monitor.state
    trips = (*monitor.open_trips(), *reversed(state.trips))
    return History(now, tuple(state.curve), tuple(reversed(state.fills)), trips)


class Standing(Struct, frozen=True):
    """What the engine knows of itself: where it is on the one path, and what it is allowed.

    `heard` is whether the core is up, so that what it said last is still so. For the others see `EngineView`.
    """

    ts: int
    venue: str
    phase: Phase
    heard: bool
    epoch: int
    ts_began: int
    blocked: tuple[str, ...]
    recovery_s: float | None
    dry_run: bool
    permit: tuple[str, ...]
    armed_until: int | None


def engine(
    standing: Standing, state: MonitorState, members: Mapping[str, Member], restarts: Mapping[str, int]
) -> EngineView:
    """Everything at a glance.

    Args:
        standing: What the engine knows of itself.
        state: The monitor's.
        members: The crew.
        restarts: How often each node died.
    """
    now = standing.ts
    trading = state.trading if standing.heard else None
    equity = state.equity
    since = state.reconciliation.ts_success
    lag_since = since or standing.ts_began
    return EngineView(
        ts=now,
        venue=standing.venue,
        phase=standing.phase,
        epoch=standing.epoch,
        trading=trading.state if trading is not None else None,
        reason=trading.reason if trading is not None else "",
        blocked=standing.blocked,
        tripped=f"{state.tripped.cause}: {state.tripped.measured}" if state.tripped is not None else "",
        # Before the first comparison the books are empty: that is no worth.
        equity=equity.equity if equity is not None and since is not None else None,
        equity_age_s=_age(equity.ts, now) if equity is not None else None,
        marks_known=equity.marks_known if equity is not None else None,
        reconcile_lag_s=_age(lag_since, now) if lag_since else None,
        discrepancies=state.reconciliation.discrepancies,
        recovery_s=standing.recovery_s,
        dry_run=standing.dry_run,
        permit=standing.permit,
        actors=actors(members.values(), restarts, now),
        positions=positions(state, now, marks(members)),
        errors={node: {kind: one.count for kind, one in of.items()} for node, of in state.errors.items()},
        armed_until=standing.armed_until,
    )


def picture(
    view: EngineView,
    state: MonitorState,
    members: Mapping[str, Member],
    cards: Mapping[str, StrategyCard],
    instruments: Iterable[str],
) -> Picture:
    """Everything that can be seen, of one moment.

    Args:
        view: The engine at that moment.
        state: The monitor's.
        members: The crew, each with what it said of itself last.
        cards: What does not change of each strategy.
        instruments: All that is traded.
    """
    said = voices(members)
    feed, risk = (_pulse(members, name) for name in ("feed", "risk"))
    return Picture(
        view=view,
        monitor=state,
        why=tuple(why(state, cards, said, view.blocked, view.ts)),
        limits=risk.limits if risk is not None else (),
        strategies=tuple(at_work(card, state, said.get(name)) for name, card in cards.items()),
        feeds=feeds(instruments, feed.seen if feed is not None else (), state, view.ts),
        consumers=feed.consumers if feed is not None else (),
    )


def positions(state: MonitorState, now: int, marks: Mapping[str, float] | None = None) -> tuple[PositionView, ...]:
    """Everything held by some strategy; what was held once and is flat is left out, unless of dust.

    Args:
        state: The monitor's.
        now: The time.
        marks: Prices by instrument, as far as they are known.
    """
    prices = marks or {}
    return tuple(
        PositionView(
            strategy,
            instrument,
            held.quantity,
            held.dust,
            held.entry or None,
            _age(held.ts, now),
            prices.get(instrument),
        )
        for strategy, view in state.strategies.items()
        for instrument, held in view.positions.items()
        if held.quantity or held.dust
    )


def held(state: MonitorState) -> dict[str, set[str]]:
    """By strategy, the instruments of which it holds something, or may once its orders have filled."""
    found: dict[str, set[str]] = {}
    for position in positions(state, 0):
        found.setdefault(position.strategy, set()).add(position.instrument)
    for order in state.waiting_orders.values():
        found.setdefault(order.strategy, set()).add(order.instrument)
    return found


def orders(state: MonitorState, now: int, most: int = 100) -> list[OrderRow]:
    """Orders that wait, then those that ended or filled, newest first."""
    waiting = sorted(state.waiting_orders.items(), key=lambda item: -item[1].ts)
    recent = sorted(state.recent_orders.items(), key=lambda item: -item[1].ts)
    return [
        OrderRow(
            client_order_id=name,
            strategy=order.strategy,
            instrument=order.instrument,
            status=str(order.status),
            side=order.side.name if order.side is not None else None,
            filled=order.filled,
            average_price=order.value / order.filled if order.filled else None,
            reason=order.reason,
            age_s=_age(order.ts, now),
            quantity=order.quantity,
        )
        for name, order in [*waiting, *recent][:most]
    ]


def why(
    state: MonitorState,
    names: Iterable[str],
    voices: Mapping[str, Voice],
    blocked: tuple[str, ...],
    now: int,
) -> list[WhyView]:
    """For each strategy: the way from signals to fills, and what stood in it."""
    trading = "unknown" if state.trading is None else f"{state.trading.state}: {state.trading.reason}"
    return [
        WhyView(
            strategy=name,
            funnel={**_heard(voices.get(name)), **funnel(state, name)},
            refusals=_refusals(state.strategies.get(name, StrategyView()), now),
            gates=voices[name].gates if name in voices else (),
            trading=trading,
            blocked_by=_blocked(state, blocked),
        )
        for name in names
    ]


def _heard(voice: Voice | None) -> dict[str, int]:
    """What a strategy was shown and what it wanted, since it was begun last; left out where it does not say."""
    return {} if voice is None else {"rows": voice.rows, "signals": voice.signals}


def funnel(state: MonitorState, name: str) -> dict[str, int]:
    """Counts of one strategy, from what was refused to what traded."""
    monitor = Monitor()
    monitor.state = state
    return monitor.funnel(name)


def actors(members: Iterable[Member], restarts: Mapping[str, int], now: int) -> tuple[ActorView, ...]:
    return tuple(
        ActorView(
            name=member.name,
            kind=member.kind,
            pid=member.recovered.pid if member.recovered is not None else None,
            alive=member.pulse is not None,
            age_s=_age(member.ts, now),
            restarts=restarts.get(member.name, 0),
            lag_ms=None if member.lag_s is None else 1000 * member.lag_s,
            told=None if member.pulse is None else member.pulse.told,
            said=None if member.pulse is None else member.pulse.said,
            detail="" if member.pulse is None else member.pulse.detail,
        )
        for member in members
    )


def voices(members: Mapping[str, Member]) -> dict[str, Voice]:
    """What each strategy last said of itself."""
    said = {name: member.pulse.voice for name, member in members.items() if member.pulse is not None}
    return {name: voice for name, voice in said.items() if voice is not None}


def card(strategy: Strategy) -> StrategyCard:
    """What a strategy is and how it is set: all that does not change while it lives."""
    sizing = strategy.settings.sizing or default_sizing(strategy)
    return StrategyCard(
        name=strategy.name,
        use=strategy.settings.use,
        enabled=None,
        instruments=strategy.instruments,
        config=strategy.component.config.model_dump(mode="json"),
        share=strategy.share,
        sizing=sizing.model_dump(mode="json"),
    )


def at_work(card: StrategyCard, state: MonitorState, voice: Voice | None) -> StrategyCard:
    """The same, with what changes: whether it is switched on, and what it wanted last."""
    seen = state.strategies.get(card.name, StrategyView())
    enabled = None if state.ts_last is None else seen.switched is None or seen.switched.on
    card = structs.replace(card, enabled=enabled, share=card.share if seen.share is None else seen.share)
    if voice is None:
        return card
    return structs.replace(card, ts_last_signal=voice.ts_last_signal, last_signal=voice.last_signal)


def marks(members: Mapping[str, Member]) -> dict[str, float]:
    """The prices that the feed showed last."""
    feed = _pulse(members, "feed")
    return {one.instrument: one.price for one in (feed.seen if feed is not None else ()) if one.price is not None}


def feeds(names: Iterable[str], seen: Iterable[Seen], state: MonitorState, now: int) -> tuple[FeedFigures, ...]:
    """How fresh the market is, by instrument; what was not seen yet has no age."""
    known = {one.instrument: one for one in seen}
    found = []
    for name in names:
        one = known.get(name, Seen(name, {}, 0, 0))
        ages = {kind: _age(ts, now) for kind, ts in one.last.items()}
        live = state.feeds[name].live if name in state.feeds else bool(ages) or None
        found.append(
            FeedFigures(name, live, min(ages.values(), default=None), ages, one.rows, one.conflated, one.price)
        )
    return tuple(found)


def _pulse(members: Mapping[str, Member], name: str) -> Pulse | None:
    """What somebody said last of itself; None where that was nothing in this life."""
    return members[name].pulse if name in members else None


def _refusals(view: StrategyView, now: int) -> tuple[RefusalView, ...]:
    found = sorted(view.refusals.items(), key=lambda item: -item[1].ts)
    return tuple(
        RefusalView(rule, one.count, one.instrument, one.measured, one.limit, _age(one.ts, now)) for rule, one in found
    )


def _blocked(state: MonitorState, blocked: tuple[str, ...]) -> tuple[str, ...]:
    found = list(blocked)
    if state.tripped is not None:
        found.append(f"the kill switch was tripped by {state.tripped.cause}: {state.tripped.measured}")
    if state.trading is not None and state.trading.state is not TradingState.ACTIVE:
        found.append(f"trading is {state.trading.state}: {state.trading.reason}")
    found += [f"{name} cannot be seen" for name, feed in state.feeds.items() if not feed.live]
    return tuple(found)


def _age(ts: int, now: int) -> float:
    return (now - ts) / SECOND
