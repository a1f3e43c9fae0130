"""What Prometheus reads: the picture as text. Nobody counts here; what is counted was folded from the facts by the monitor.

Whatever answers says the same, and says the same after a restart. What is not known has no series: nought would be a lie.
Labels are names from the settings and from the code (strategies, instruments, rules, actors), never ids.
"""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool

from actors import detached, files, up
from actors.http.port import Engine, LateError, NoEngineError
from actors.words import ActorView, ConsumerFigures, EngineView, FeedFigures, Phase, Picture
from hean.errors import HeanError
from hean.messages import ProfitParts, TradingState
from hean.monitor import PARTS, TICK_TO_ORDER_BUCKETS, MonitorState, Status, StrategyView

router = APIRouter(tags=["metrics"])

_NAKED = "MAX_NAKED"
_RESERVE = "reserve"
"""What no strategy owns."""

Number = int | float | Decimal
Samples = Iterable[tuple[Sequence[str], Number | None]]


@router.get(
    "/metrics",
    summary="Everything that Prometheus reads",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": 'hean_engine_status{state="RUNNING"} 1.0\n'}}}},
)
async def metrics(request: Request) -> Response:
    """The figures of the engine. Where there is none, only that is said: `hean_engine_up 0`."""
    engine: Engine = request.app.state.engine
    picture = None
    with suppress(NoEngineError, LateError):
        picture = await engine.picture()
    dog = await run_in_threadpool(_watchdog, request.app.state.home)
    return Response(exposition(picture, watchdog=dog), media_type=CONTENT_TYPE_PLAIN_0_0_4)


def exposition(picture: Picture | None, *, watchdog: bool | None = None) -> bytes:
    """The figures of one picture, in Prometheus's text format.

    Args:
        picture: What is seen of the engine; None where it does not answer.
        watchdog: Whether the watchdog lives; None where there is to be none.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Shown(picture, watchdog=watchdog))
    return generate_latest(registry)


def _watchdog(home: Path) -> bool | None:
    """Whether the process that closes everything when the engine falls silent lives; None where none is needed or known."""
    try:
        folder = up.mode_folder(home)
        settings = up.read_settings(folder)
    except (HeanError, ValueError):  # nothing was begun; or by a HEAN whose settings are not ours
        return None
    if settings is None or not up.sends(settings):
        return None
    dog = files.read(folder / up.WATCHDOG, detached.Detached)
    return dog is not None and detached.is_alive(dog)


class _Shown(Collector):
    """A picture, as metric families."""

    def __init__(self, picture: Picture | None, *, watchdog: bool | None) -> None:
        self._picture = picture
        self._watchdog = watchdog

    def collect(self) -> Iterator[Metric]:
        yield from _gauge("hean_build_info", "Which HEAN this is; always 1.", [(_build(), 1)], "version", "python")
        yield from _gauge("hean_engine_up", "Whether the engine answers.", [((), self._picture is not None)])
        yield from _gauge("hean_watchdog_up", "Whether the watchdog lives.", [((), self._watchdog)])
        if self._picture is not None:
            yield from _engine(self._picture.view)
            yield from _money(self._picture)
            yield from _orders(self._picture.monitor)
            yield from _risk(self._picture)
            yield from _reconciliation(self._picture)
            yield from _feeds(self._picture.feeds, self._picture.consumers)
            yield from _actors(self._picture.view.actors)
            yield from _work(self._picture.monitor)


# --- one subject each -------------------------------------------------------------------------------


def _engine(view: EngineView) -> Iterator[Metric]:
    states: list[tuple[Sequence[str], Number | None]] = [((str(one),), view.phase is one) for one in Phase]
    if view.trading is not None:
        states += [((str(one),), view.trading is one) for one in TradingState]
    yield from _gauge(
        "hean_engine_status",
        "1 for the engine's phase, and 1 for the trading state that risk said; 0 for the others.",
        states,
        "state",
    )
    yield from _gauge("hean_engine_epoch", "Which life of the core this is.", [((), view.epoch)])
    yield from _gauge("hean_engine_blocked", "How many reasons stand against trading.", [((), len(view.blocked))])
    yield from _gauge("hean_engine_dry_run", "Whether orders are written down instead of sent.", [((), view.dry_run)])
    yield from _gauge("hean_recovery_seconds", "How long the last start took.", [((), view.recovery_s)])


def _money(picture: Picture) -> Iterator[Metric]:
    view, seen = picture.view, picture.monitor
    strategies = _by_name(seen)
    profits = {name or _RESERVE: one for name, one in seen.profits.items()}
    equity: list[tuple[Sequence[str], Number | None]] = [(("",), view.equity)]
    if view.equity is not None:
        equity += [((name,), one.brought_in + sum(_parts(one).values())) for name, one in profits.items()]
    yield from _gauge(
        "hean_equity",
        "Worth of the account in quote currency; with a strategy, the part of it that is that one's.",
        equity,
        "strategy",
    )
    yield from _gauge(
        "hean_profit",
        "What a strategy's net profit is made of, in quote currency.",
        [((name, part), amount) for name, one in profits.items() for part, amount in _parts(one).items()],
        "strategy",
        "part",
    )
    yield from _gauge(
        "hean_capital_share",
        "Share of the equity that a strategy is allotted.",
        [((name,), one.share) for name, one in strategies.items()],
        "strategy",
    )
    yield from _gauge(
        "hean_strategy_enabled",
        "Whether a strategy may open positions.",
        [((one.name,), one.enabled) for one in picture.strategies],
        "strategy",
    )
    yield from _gauge("hean_equity_age_seconds", "Since the equity was said.", [((), view.equity_age_s)])
    yield from _gauge("hean_marks_known", "Whether every price the equity rests on is known.", [((), view.marks_known)])
    yield from _gauge("hean_cash", "Cash in quote currency, unrealised profit left out.", [((), seen.cash)])
    yield from _gauge(
        "hean_position",
        "What a strategy holds of an instrument, signed, in base units.",
        [
            ((strategy, instrument), held.quantity)
            for strategy, one in strategies.items()
            for instrument, held in one.positions.items()
        ],
        "strategy",
        "instrument",
    )
    yield from _gauge(
        "hean_fees",
        "Fees paid; rebates count against them.",
        [((name, coin), fee) for name, one in strategies.items() for coin, fee in one.fees.items()],
        "strategy",
        "currency",
    )
    yield from _gauge(
        "hean_funding", "Funding received.", [((name,), amount) for name, amount in seen.funding.items()], "instrument"
    )
    yield from _gauge(
        "hean_interest", "Interest paid.", [((name,), amount) for name, amount in seen.interest.items()], "currency"
    )


def _orders(seen: MonitorState) -> Iterator[Metric]:
    strategies = _by_name(seen).items()
    yield from _counter(
        "hean_orders",
        "Orders by what befell them: an order counts once for each.",
        [((name, status), one.orders.get(status, 0)) for name, one in strategies for status in Status],
        "strategy",
        "status",
    )
    waiting = Counter(one.strategy or _RESERVE for one in seen.waiting_orders.values())
    yield from _gauge(
        "hean_orders_waiting",
        "Orders in flight or at rest.",
        [((name,), waiting[name]) for name in {**_by_name(seen), **waiting}],
        "strategy",
    )
    yield from _counter("hean_trades", "Fills.", [((name,), one.trades) for name, one in strategies], "strategy")
    yield from _counter(
        "hean_turnover", "Value traded.", [((name,), one.turnover) for name, one in strategies], "strategy"
    )
    yield from _counter(
        "hean_pairs",
        "Pairs of legs by how they ended.",
        [((name, outcome), count) for name, one in strategies for outcome, count in one.pairs.items()],
        "strategy",
        "outcome",
    )


def _by_name(seen: MonitorState) -> dict[str, StrategyView]:
    """Strategies by their labels: an empty one would be none at all."""
    return {name or _RESERVE: one for name, one in seen.strategies.items()}


def _parts(profit: ProfitParts) -> dict[str, Decimal]:
    return {part: getattr(profit, part) for part in PARTS}


def _risk(picture: Picture) -> Iterator[Metric]:
    seen, limits = picture.monitor, picture.limits
    yield from _counter(
        "hean_refusals",
        "Signals that risk refused.",
        [((name, rule), no.count) for name, one in _by_name(seen).items() for rule, no in one.refusals.items()],
        "strategy",
        "rule",
    )
    names = ("rule", "subject", "unit")
    yield from _gauge(
        "hean_limit_used",
        "How much of a limit is used.",
        [((x.rule, x.subject, x.unit), x.used) for x in limits],
        *names,
    )
    yield from _gauge(
        "hean_limit", "What risk allows.", [((x.rule, x.subject, x.unit), x.limit) for x in limits], *names
    )
    yield from _gauge(
        "hean_limit_used_quote",
        "How much of a limit is used, in quote currency, where it is money.",
        [((x.rule, x.subject), x.amount) for x in limits],
        "rule",
        "subject",
    )
    pairs = [one.amount for one in limits if one.rule == _NAKED]
    naked = None if None in pairs or not limits else sum(one for one in pairs if one is not None)
    yield from _gauge(
        "hean_naked_notional", "Value that should be hedged and is not, in quote currency.", [((), naked)]
    )
    if seen.ts_last is not None:
        yield from _gauge(
            "hean_kill_switch_tripped", "Whether the kill switch is pulled.", [((), seen.tripped is not None)]
        )


def _reconciliation(picture: Picture) -> Iterator[Metric]:
    view, known = picture.view, picture.monitor.reconciliation
    yield from _gauge(
        "hean_reconcile_lag_seconds",
        "Since the books were last compared with the venue's own word.",
        [((), view.reconcile_lag_s)],
    )
    yield from _gauge(
        "hean_reconcile_discrepancies", "Differences that the last comparison found.", [((), known.discrepancies)]
    )
    if picture.monitor.ts_last is not None:
        yield from _counter(
            "hean_discrepancies", "Differences ever found.", [((), picture.monitor.facts.get("Discrepancy", 0))]
        )
        yield from _counter(
            "hean_book_adjustments", "Entries in the books that nothing told explains.", [((), known.adjusted)]
        )


def _feeds(feeds: Iterable[FeedFigures], consumers: Iterable[ConsumerFigures]) -> Iterator[Metric]:
    feeds = list(feeds)
    yield from _gauge(
        "hean_feed_live",
        "Whether the market can be seen.",
        [((one.instrument,), one.live) for one in feeds],
        "instrument",
    )
    yield from _gauge(
        "hean_feed_age_seconds",
        "Since the market of an instrument was last seen.",
        [((one.instrument,), one.age_s) for one in feeds],
        "instrument",
    )
    yield from _counter(
        "hean_feed_rows", "Rows of the market seen.", [((one.instrument,), one.rows) for one in feeds], "instrument"
    )
    yield from _counter(
        "hean_feed_conflated",
        "Rows that a later one took the place of.",
        [((one.instrument,), one.conflated) for one in feeds],
        "instrument",
    )
    yield from _gauge(
        "hean_feed_waiting", "Rows that wait for an actor.", [((one.name,), one.waiting) for one in consumers], "actor"
    )


def _actors(actors: Iterable[ActorView]) -> Iterator[Metric]:
    actors = list(actors)
    yield from _gauge("hean_actor_up", "Whether an actor answers.", [((x.name,), x.alive) for x in actors], "actor")
    yield from _gauge(
        "hean_actor_age_seconds", "Since an actor was begun.", [((x.name,), x.age_s) for x in actors], "actor"
    )
    yield from _counter(
        "hean_actor_restarts", "How often an actor was begun anew.", [((x.name,), x.restarts) for x in actors], "actor"
    )
    yield from _gauge(
        "hean_actor_mailbox_lag_seconds",
        "How far an actor's mailbox is behind.",
        [((x.name,), None if x.lag_ms is None else x.lag_ms / 1000) for x in actors],
        "actor",
    )
    yield from _counter(
        "hean_actor_told", "Messages an actor was told in this life.", [((x.name,), x.told) for x in actors], "actor"
    )


def _work(seen: MonitorState) -> Iterator[Metric]:
    yield from _counter(
        "hean_errors",
        "Errors reported, by who met them.",
        [((node, kind), one.count) for node, kinds in seen.errors.items() for kind, one in kinds.items()],
        "component",
        "kind",
    )
    yield from _counter(
        "hean_facts", "Everything that was said to have happened.", [((x,), n) for x, n in seen.facts.items()], "fact"
    )
    yield from _counter(
        "hean_process_runs",
        "Runs of processes by how they ended.",
        [((name, outcome), count) for name, ends in seen.runs.items() for outcome, count in ends.items()],
        "process",
        "outcome",
    )
    if seen.ts_last is not None:
        measured = seen.tick_to_order
        bounds = [*map(str, TICK_TO_ORDER_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "hean_tick_to_order_seconds",
            "From when a row of the market was received to when the order that it set going was sent.",
            buckets=list(zip(bounds, accumulate(measured.counts), strict=True)),
            sum_value=measured.sum,
        )


# --- writing ----------------------------------------------------------------------------------------


def _gauge(name: str, about: str, samples: Samples, *labels: str) -> Iterator[Metric]:
    yield from _family(GaugeMetricFamily(name, about, labels=labels), samples)


def _counter(name: str, about: str, samples: Samples, *labels: str) -> Iterator[Metric]:
    """A family whose name in the text ends in `_total`."""
    yield from _family(CounterMetricFamily(name, about, labels=labels), samples)


def _family(family: GaugeMetricFamily | CounterMetricFamily, samples: Samples) -> Iterator[Metric]:
    """What of a family is known; nothing at all where nothing is."""
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, float(value))
    if family.samples:
        yield family


@cache
def _build() -> tuple[str, str]:
    try:
        return version("hean"), platform.python_version()
    except PackageNotFoundError:  # run from the tree, not installed
        return "unknown", platform.python_version()
