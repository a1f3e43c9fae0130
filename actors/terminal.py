"""A backtest's result on a terminal: what one looks at first."""

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from hean.backtest.kernels import Interval
from hean.backtest.report import PARTS
from hean.backtest.summary import Figures, figures, refusals
from hean.units import minute

if TYPE_CHECKING:
    from rich.console import Console

    from hean.backtest.result import RunResult, StrategyResult

UNKNOWN = Text("unknown", style="dim italic")
_RULES = 8
_EVENTS = 12
_ENDLESS = 10_000


def print_summary(result: "RunResult", console: "Console") -> None:
    """Print what a run was, what it made of what, and what it would have made otherwise."""
    found = figures(result)
    names = ", ".join(dict.fromkeys(strategy.name for strategy in result.strategies))
    if result.synthetic:
        console.print(
            Text(" SYNTHETIC DATA: made up, and says nothing about a real market ", style="bold black on yellow")
        )
    console.print(Text(names, style="bold"))
    console.print(
        f"{minute(result.ts_start)} to {minute(result.ts_end)} UTC, capital {result.capital:,.2f}", highlight=False
    )
    for fitting in (
        _fitting(console, _figures(result, found, abreast=True), lambda: _figures(result, found, abreast=False)),
        *(
            _fitting(console, rows.wide(), rows.tall)
            for rows in (_profit(result), _comparison(result), _funnel(result))
        ),
    ):
        console.print()
        console.print(fitting)
    for strategy in result.strategies:
        stopped = _stopped_at(strategy)
        if stopped:
            console.print(Text(f"{strategy.name} did not trade: {stopped}"))
    refused = refusals(result)
    if refused:
        said = [f"{rule} {count:,}" for rule, count in refused.items()]
        more = [f"and {len(said) - _RULES} rules more"] if len(said) > _RULES else []
        console.print(Text("refused by: " + ", ".join([*said[:_RULES], *more])))
    for event in result.events[:_EVENTS]:
        console.print(Text(f"{minute(event.ts)}  {event.text}", style="yellow"))
    if len(result.events) > _EVENTS:
        console.print(Text(f"and {len(result.events) - _EVENTS:,} events more: see the report", style="yellow"))
    for note in dict.fromkeys(note for strategy in result.strategies for note in strategy.notes):
        console.print(Text(f"note: {note}", style="dim"))
    console.print(
        Text(f"{result.rows:,} rows in {result.wall_s:.2f} s, result {result.result_hash}", style="dim"),
        soft_wrap=True,
    )


class _Rows:
    """A table before it is known how wide it may be: a name and figures in each row."""

    def __init__(self, *heads: str) -> None:
        self.heads = heads
        self.rows: list[tuple[str, tuple[Text, ...]]] = []

    def add(self, name: str, *cells: Text) -> None:
        self.rows.append((name, cells))

    def wide(self) -> Table:
        """One line to a row, under the heads."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        for place, head in enumerate(self.heads):
            table.add_column(head, justify="right" if place else "left", no_wrap=True)
        for name, cells in self.rows:
            table.add_row(Text(name), *cells)
        return table

    def tall(self) -> Table:
        """One line to a figure: nothing is cut where the lines are short."""
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(justify="right", no_wrap=True)
        for name, cells in self.rows:
            table.add_row(Text(name, style="bold"), "")
            for head, cell in zip(self.heads[1:], cells, strict=True):
                table.add_row(Text(f"  {head}", style="dim"), cell)
        return table


def _fitting(console: "Console", wide: Table, tall: Callable[[], Table]) -> Table:
    wanted = console.measure(wide, options=console.options.update(max_width=_ENDLESS)).maximum
    return wide if wanted <= console.width else tall()


def _figures(result: "RunResult", found: Figures, *, abreast: bool) -> Table:
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
    for style in ("dim", "", "dim", "") if abreast else ("dim", ""):
        table.add_column(style=style, no_wrap=True)
    if abreast:
        for (name, figure), (other, beside) in zip(left, right, strict=True):
            table.add_row(name, figure, other, beside)
    else:
        for name, figure in (*left, *right):
            table.add_row(name, figure)
    return table


def _profit(result: "RunResult") -> _Rows:
    """The parts of the profit, in all and by strategy."""
    table = _Rows("", *PARTS, "net")
    each = [(strategy.name, strategy.pnl) for strategy in result.strategies] if len(result.strategies) > 1 else []
    for name, pnl in [*each, ("all" if each else "profit from", result.pnl)]:
        table.add(name, *(_signed(getattr(pnl, part)) for part in PARTS), _signed(pnl.net))
    return table


def _comparison(result: "RunResult") -> _Rows:
    table = _Rows("instead", "net P&L", "this run made more by")
    for each in result.benchmarks:
        table.add(each.name, _signed(each.net_pnl), _signed(result.pnl.net - each.net_pnl))
    if not result.benchmarks:
        table.add("nothing to compare with", UNKNOWN, UNKNOWN)
    return table


def _funnel(result: "RunResult") -> _Rows:
    table = _Rows("", "rows", "signals", "refused", "orders", "fills")
    for strategy in result.strategies:
        of = strategy.funnel
        counts = (of.rows, of.signals, sum(of.refused.values()), of.orders, of.fills)
        table.add(strategy.name, *(Text(f"{count:,}") for count in counts))
    return table


def _stopped_at(strategy: "StrategyResult") -> str:
    """Where a strategy that never spoke was stopped: the first of its own conditions that nothing passed."""
    if strategy.funnel.signals:
        return ""
    came = strategy.funnel.rows
    for gate, passed in strategy.funnel.gates:
        if not passed:
            return f"of {came:,} that came so far none passed '{gate}'"
        came = passed
    return ""


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
