"""What the engine answers, as tables for people. What is not known is shown as `unknown`, never as nought; every figure has its age."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from actors.logs import Line
from actors.words import ActorView, EngineView, OrderRow, PositionView, WhyView
from hean.units import minute

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from actors.up import Surroundings

UNKNOWN = "unknown"
NONE = "-"


def age(seconds: float | None) -> str:
    """How long ago, in the unit one would say it in."""
    if seconds is None:
        return UNKNOWN
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def number(value: Decimal | float | None, places: int | None = None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.{places}f}" if places is not None else f"{value:,f}"


def _short(value: Decimal, places: int) -> str:
    text = number(value, places)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _since(what: str, seconds: float | None) -> str:
    return f"{what}, {age(seconds)} ago" if seconds is not None else f"{what}, at an unknown time"


def status(view: EngineView, around: "Surroundings") -> "RenderableType":
    """Everything at a glance."""
    from rich.console import Group

    parts: list[RenderableType] = [summary(view, around)]
    if view.positions:
        parts.append(positions(view.positions))
    parts.append(actors(view.actors))
    if view.errors:
        parts.append(_errors(view.errors))
    return Group(*parts)


def summary(view: EngineView, around: "Surroundings") -> "Table":
    table = _pairs()
    trading = UNKNOWN if view.trading is None else f"{view.trading}" + (f": {view.reason}" if view.reason else "")
    equity = UNKNOWN if view.equity is None else _since(f"{number(view.equity, 2)} USDT", view.equity_age_s)
    if view.equity is not None and not view.marks_known:
        equity += " (not everything held has a price)"
    table.add_row("venue", view.venue + (", dry run: no order is sent" if view.dry_run and view.permit else ""))
    table.add_row("phase", f"{view.phase}, life {view.epoch}")
    table.add_row("trading", trading)
    for reason in view.blocked:
        table.add_row("", f"not trading: {reason}")
    table.add_row("kill switch", f"PULLED: {view.tripped}" if view.tripped else "not pulled")
    table.add_row("equity", equity)
    lag = UNKNOWN if view.reconcile_lag_s is None else f"{age(view.reconcile_lag_s)} since the last clean comparison"
    table.add_row("reconciled", lag)
    table.add_row("discrepancies", UNKNOWN if view.discrepancies is None else str(view.discrepancies))
    table.add_row("last recovery", UNKNOWN if view.recovery_s is None else f"{view.recovery_s:.1f} s")
    for reason in view.permit if view.venue == "live" else ():
        table.add_row("live gate shut", reason)
    if view.armed_until is not None:
        table.add_row("ARMED", f"real orders are sent until {minute(view.armed_until)} UTC")
    for name, words in outside(around):
        table.add_row(name, words)
    return table


def trouble(words: str, around: "Surroundings") -> "Table":
    """What can be said where the engine does not answer."""
    table = _pairs()
    table.add_row("engine", words)
    table.add_row("venue", around.mode)
    for name, said in outside(around):
        table.add_row(name, said)
    return table


def outside(around: "Surroundings") -> list[tuple[str, str]]:
    """What runs besides the engine."""
    rows = [("Ray", f"at {around.address}" if around.ray else "NOT RUNNING")]
    if around.dashboard is not None:
        rows.append(("dashboard", around.dashboard))
    if around.api is not None:
        rows.append(("API", f"{around.api_url}/docs" if around.api else "DOES NOT ANSWER: `hean up` starts it"))
    if around.page is not None:
        rows.append(("page", f"{around.page_url}" if around.page else "DOES NOT ANSWER: `hean up` starts it"))
    if around.exchange is not None:
        rows.append(("exchange", f"{around.exchange_url}" if around.exchange else "NOT RUNNING"))
    if around.watchdog is not None:
        rows.append(("watchdog", "running" if around.watchdog else "NOT RUNNING: `hean up` starts it"))
    if around.latched is not None:
        rows.append(("latch", "the kill switch was pulled without the engine: it stays out until it is reset"))
    return rows


def actors(views: Sequence[ActorView]) -> "Table":
    table = _table("actor", "class", "pid", "alive", "age", "restarts", "mailbox", "told", "said", "")
    for one in views:
        table.add_row(
            one.name,
            one.kind,
            UNKNOWN if one.pid is None else str(one.pid),
            "yes" if one.alive else "NO",
            age(one.age_s),
            str(one.restarts),
            UNKNOWN if one.lag_ms is None else f"{one.lag_ms:.0f} ms",
            UNKNOWN if one.told is None else f"{one.told:,}",
            UNKNOWN if one.said is None else f"{one.said:,}",
            one.detail,
        )
    return table


def positions(views: Sequence[PositionView]) -> "Table":
    table = _table("strategy", "instrument", "quantity", "dust", "entry", "age")
    for one in views:
        table.add_row(
            one.strategy or "(nobody's)",
            one.instrument,
            number(one.quantity),
            _short(one.dust, 12) if one.dust else NONE,
            _short(one.entry, 6) if one.quantity and one.entry is not None else NONE,
            age(one.age_s),
        )
    return table


def orders(rows: Sequence[OrderRow]) -> "Table":
    table = _table("order", "strategy", "instrument", "side", "status", "filled", "at", "age", "")
    for one in rows:
        table.add_row(
            one.client_order_id,
            one.strategy,
            one.instrument,
            one.side or UNKNOWN,
            one.status,
            number(one.filled) if one.filled else NONE,
            NONE if one.average_price is None else _short(one.average_price, 6),
            age(one.age_s),
            one.reason,
        )
    return table


def why(views: Sequence[WhyView]) -> "RenderableType":
    """Why each strategy did or did not trade: the way from what it saw to fills, and what stood in it."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for one in views:
        parts.append(Text(one.strategy, style="bold"))
        table = _pairs()
        table.add_row("trading", one.trading)
        for reason in one.blocked_by:
            table.add_row("blocked by", reason)
        table.add_row("way", "  →  ".join(f"{name} {count:,}" for name, count in one.funnel.items()) or UNKNOWN)
        for gate in one.gates:
            table.add_row("waits for", gate)
        parts.append(table)
        if one.refusals:
            refusals = _table("refused by", "times", "last of", "measured", "limit", "age")
            for refusal in one.refusals:
                refusals.add_row(
                    refusal.rule,
                    f"{refusal.count:,}",
                    refusal.instrument,
                    refusal.measured,
                    refusal.limit,
                    age(refusal.age_s),
                )
            parts.append(refusals)
    return Group(*parts)


_PLAIN = {"life", "trace", "id", "cause", "said", "exception"}


def log_line(line: Line) -> str:
    """One line of a log, as one line for people; a traceback below it."""
    said = line.rest.get("said")
    told: Mapping[str, object] = said if isinstance(said, Mapping) else {}
    words = [f"{name}={_word(value)}" for name, value in told.items() if name != "type"]
    words += [f"{name}={_word(value)}" for name, value in line.rest.items() if name not in _PLAIN]
    mark = "" if line.level == "info" else f"{line.level.upper()} "
    text = f"{line.ts[:23]}Z  {line.node:<18} {mark}{line.event}  {' '.join(words)}".rstrip()
    trace = line.rest.get("trace")
    text += f"  [{trace}]" if trace else ""
    exception = line.rest.get("exception")
    return f"{text}\n{exception}" if exception else text


def _word(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or not text else text


def _errors(errors: Mapping[str, Mapping[str, int]]) -> "Table":
    table = _table("errors of", "kind", "times")
    for node, kinds in errors.items():
        for kind, count in kinds.items():
            table.add_row(node, kind, f"{count:,}")
    return table


def _pairs() -> "Table":
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    return table


_RIGHT = frozenset(
    {"pid", "age", "restarts", "mailbox", "told", "said", "quantity", "dust", "entry", "filled", "at", "times"}
)


def _table(*columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in _RIGHT else "left")
    return table
