"""What those who ask are shown: the monitor's state as figures with their ages. What was never said is None."""

from collections.abc import Iterable, Mapping

import msgspec

from actors.crew import Member
from actors.words import ActorView, OrderRow, PositionView, RefusalView, Voice, WhyView
from hean.messages import TradingState
from hean.monitor import Monitor, MonitorState, StrategyView
from hean.units import SECOND


def shown(state: MonitorState) -> MonitorState:
    """A monitor's state without what only the monitor itself needs."""
    return msgspec.structs.replace(state, told={}, told_before={}, curve=[])


def positions(state: MonitorState, now: int) -> tuple[PositionView, ...]:
    """Everything held by some strategy; what was held once and is flat is left out, unless of dust."""
    return tuple(
        PositionView(strategy, instrument, held.quantity, held.dust, held.entry or None, _age(held.ts, now))
        for strategy, view in state.strategies.items()
        for instrument, held in view.positions.items()
        if held.quantity or held.dust
    )


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
