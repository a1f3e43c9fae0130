"""A backtest's result on a terminal: what one looks at first."""

from decimal import Decimal
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hean.backtest.kernels import Interval
from hean.backtest.report import PARTS, utc
from hean.backtest.summary import Figures, figures, refusals

if TYPE_CHECKING:
    from rich.console import Console

    from hean.backtest.result import RunResult

UNKNOWN = Text("unknown", style="dim italic")
_RULES = 8
_EVENTS = 12


def print_summary(result: "RunResult", console: "Console") -> None:
    """Print what a run was, what it made of what, and what it would have made otherwise."""
    found = figures(result)
    names = ", ".join(dict.fromkeys(strategy.name for strategy in result.strategies))
    if result.synthetic:
        console.print(
            Text(" SYNTHETIC DATA: made up, and says nothing about a real market ", style="bold black on yellow")
        )
    console.print(
        Text.assemble(
            (names, "bold"), f"  {_day(result.ts_start)} to {_day(result.ts_end)} UTC  capital {result.capital:,.2f}"
        )
    )
    for table in (_figures(result, found), _profit(result), _comparison(result), _funnel(result)):
        console.print()
        console.print(table)
    refused = refusals(result)
    if refused:
        said = [f"{rule} {count:,}" for rule, count in refused.items()]
        more = [f"and {len(said) - _RULES} rules more"] if len(said) > _RULES else []
        console.print(Text("refused by: " + ", ".join([*said[:_RULES], *more])))
    for event in result.events[:_EVENTS]:
        console.print(Text(f"{utc(event.ts)}  {event.text}", style="yellow"))
    if len(result.events) > _EVENTS:
        console.print(Text(f"and {len(result.events) - _EVENTS:,} events more: see the report", style="yellow"))
    for note in dict.fromkeys(note for strategy in result.strategies for note in strategy.notes):
        console.print(Text(f"note: {note}", style="dim"))
    console.print(
        Text(f"{result.rows:,} rows in {result.wall_s:.2f} s, result {result.result_hash}", style="dim"),
        soft_wrap=True,
    )


def _figures(result: "RunResult", found: Figures) -> Table:
    sharpe, hits = found.sharpe, found.hit_rate
    left = (
        ("net P&L", _signed(result.pnl.net)),
        ("equity at the end", Text(f"{result.equity_final:,.2f}")),
        ("return", _percent(found.total_return)),
        ("growth a year", _percent(found.annual_return)),
        ("deepest drawdown", _percent(found.max_drawdown)),
        ("Sharpe a year", _ratio(None if sharpe is None else sharpe.value, _range(sharpe, ".1f"))),
        ("Sortino a year", _ratio(found.sortino)),
    )
    right = (
        ("round trips", Text(f"{found.trades:,} closed, {found.open_trades:,} open")),
        ("hit rate", _percent(None if hits is None else hits.value, _range(hits, ".0%").replace("%", ""))),
        ("profit factor", _ratio(found.profit_factor)),
        ("mean trade", UNKNOWN if found.mean_trade is None else _signed(found.mean_trade)),
        ("time in the market", _percent(found.exposure)),
        ("turnover", UNKNOWN if found.turnover is None else Text(f"{found.turnover:,.2f} times")),
        ("fills", UNKNOWN if found.fills is None else Text(f"{found.fills:,}")),
    )
    table = Table.grid(padding=(0, 2))
    for style in ("dim", "", "dim", ""):
        table.add_column(style=style, no_wrap=True)
    for (name, figure), (other, beside) in zip(left, right, strict=True):
        table.add_row(name, figure, other, beside)
    return table


def _profit(result: "RunResult") -> Table:
    """The parts of the profit, in all and by strategy."""
    table = _table("", *PARTS, "net")
    rows = [(strategy.name, strategy.pnl) for strategy in result.strategies] if len(result.strategies) > 1 else []
    for name, pnl in [*rows, ("all" if rows else "profit from", result.pnl)]:
        table.add_row(Text(name), *(_signed(getattr(pnl, part)) for part in PARTS), _signed(pnl.net))
    return table


def _comparison(result: "RunResult") -> Table:
    table = _table("instead", "net P&L", "this run made more by")
    for each in result.benchmarks:
        table.add_row(Text(each.name), _signed(each.net_pnl), _signed(result.pnl.net - each.net_pnl))
    if not result.benchmarks:
        table.add_row(Text("nothing to compare with"), UNKNOWN, UNKNOWN)
    return table


def _funnel(result: "RunResult") -> Table:
    table = _table("", "rows", "signals", "refused", "orders", "fills")
    for strategy in result.strategies:
        of = strategy.funnel
        counts = (of.rows, of.signals, sum(of.refused.values()), of.orders, of.fills)
        table.add_row(Text(strategy.name), *(Text(f"{count:,}") for count in counts))
    return table


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _signed(amount: Decimal) -> Text:
    rounded = round(amount, 2)
    if not rounded:
        return Text("0.00")
    return Text(f"{rounded:+,.2f}", style="blue" if rounded > 0 else "red")


def _percent(fraction: float | None, beside: str = "") -> Text:
    return UNKNOWN if fraction is None else Text(f"{fraction * 100:,.2f} %{beside}")


def _ratio(ratio: float | None, beside: str = "") -> Text:
    return UNKNOWN if ratio is None else Text(f"{ratio:,.2f}{beside}")


def _range(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" ({interval.low:{form}} to {interval.high:{form}})"


def _day(ts: int) -> str:
    return utc(ts // 60_000_000_000 * 60_000_000_000).replace("T", " ").removesuffix(":00Z")
