# ruff: noqa: INP001  # a script beside what it writes, and no package
"""The Grafana boards, as code: what is shown is said here once, and written to `dashboards/*.json` for Grafana to take up.

    python cluster/grafana/boards.py

Nothing that is not known is drawn as nought: a series that is absent leaves its panel saying "unknown".
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    GridPos,
    MappingType,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.dashboard import ThresholdsConfig as Thresholds
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="hean-prometheus")
WIDTH = 24

Query = str | tuple[str, str]
"""An expression, and what its series are called."""

PHASES = "STARTING|RECOVERING|RECONCILING|WARMING|RUNNING|STOPPED"
TRADING = "ACTIVE|REDUCING|HALTED"


def boards() -> dict[str, dashboard.Dashboard]:
    """Every board, by the name of its file."""
    return {"trading": _trading(), "health": _health(), "ray": _ray()}


# --- the boards -----------------------------------------------------------------------------------


def _trading() -> dashboard.Dashboard:
    return _board(
        "Trading",
        "What is held and earned, what is asked for and what risk says to it.",
        [
            [
                number("Engine", (f'hean_engine_status{{state=~"{PHASES}"}} == 1', "{{state}}"), named=True),
                number("Trading", (f'hean_engine_status{{state=~"{TRADING}"}} == 1', "{{state}}"), named=True),
                number("Kill switch", "hean_kill_switch_tripped", words={0: ("ready", "green"), 1: ("PULLED", "red")}),
                number("Equity", 'hean_equity{strategy=""}', decimals=2),
                number(
                    "Change in 24 h", 'hean_equity{strategy=""} - (hean_equity{strategy=""} offset 24h)', decimals=2
                ),
                number("Unhedged", "hean_naked_notional", decimals=2, above=((25, "red"),)),
                number(
                    "Since reconciled", "hean_reconcile_lag_seconds", unit="s", above=((60, "orange"), (120, "red"))
                ),
                number("Refused in 1 h", "sum(increase(hean_refusals_total[1h]))", decimals=0),
            ],
            [
                lines(
                    "Equity", ('hean_equity{strategy=""}', "equity"), about="In quote currency, as the books have it."
                ),
                lines(
                    "What the profit is made of",
                    ("sum by (part) (hean_profit)", "{{part}}"),
                    stacked=True,
                    about="Price, basis, funding, fees, slippage, interest and adjustments; together the net profit.",
                ),
            ],
            [
                lines("Profit by strategy", ("sum by (strategy) (hean_profit)", "{{strategy}}")),
                lines(
                    "Exposure",
                    ('hean_limit_used_quote{rule=~"GROSS_EXPOSURE|SYMBOL_EXPOSURE"}', "{{subject}}"),
                    about="In quote currency: of the account, and by coin.",
                ),
            ],
            [
                bars(
                    "Limits used",
                    ("hean_limit_used / hean_limit", "{{rule}} {{subject}}"),
                    about="A part of each limit; what is not known is left out.",
                ),
                lines(
                    "Positions", ("hean_position != 0", "{{strategy}} {{instrument}}"), about="In base units, signed."
                ),
            ],
            [
                lines(
                    "Orders a minute",
                    ("sum by (status) (rate(hean_orders_total[$__rate_interval])) * 60", "{{status}}"),
                ),
                lines("Orders waiting", ("hean_orders_waiting", "{{strategy}}")),
                lines(
                    "Refused by risk, a minute",
                    ("sum by (rule) (rate(hean_refusals_total[$__rate_interval])) * 60", "{{rule}}"),
                ),
            ],
            [
                lines("Turnover an hour", ("sum by (strategy) (rate(hean_turnover_total[1h])) * 3600", "{{strategy}}")),
                lines(
                    "Fees and funding",
                    ("sum by (currency) (hean_fees)", "fees paid, {{currency}}"),
                    ("sum(hean_funding)", "funding received"),
                ),
                lines("Pairs by how they ended", ("sum by (outcome) (increase(hean_pairs_total[1h]))", "{{outcome}}")),
            ],
        ],
    )


def _health() -> dashboard.Dashboard:
    up = {0: ("DOWN", "red"), 1: ("up", "green")}
    return _board(
        "Health",
        "Whether every part lives and keeps up, whether the market is seen, and whether the books are right.",
        [
            [
                number("API", 'up{job="hean"}', words=up),
                number("Engine", "hean_engine_up", words=up),
                number("Watchdog", "hean_watchdog_up", words=up),
                number("Alerts", 'count(ALERTS{alertstate="firing"}) or vector(0)', above=((1, "red"),)),
                number("Last start took", "hean_recovery_seconds", unit="s", decimals=1),
                number("Life of the core", "hean_engine_epoch", decimals=0),
                number("Restarts in 1 h", "sum(increase(hean_actor_restarts_total[1h]))", above=((0.5, "orange"),)),
                number("Errors in 5 min", "sum(increase(hean_errors_total[5m]))", above=((10, "orange"),)),
            ],
            [
                states("The engine", ("hean_engine_status == 1", "{{state}}")),
                states("Actors", ("hean_actor_up", "{{actor}}"), words=up),
            ],
            [
                lines(
                    "How far mailboxes are behind",
                    ("hean_actor_mailbox_lag_seconds", "{{actor}}"),
                    unit="s",
                    above=(1.0,),
                ),
                lines(
                    "Messages told, a second",
                    ("rate(hean_actor_told_total[$__rate_interval])", "{{actor}}"),
                    unit="ops",
                ),
                lines("Begun anew", ("increase(hean_actor_restarts_total[10m])", "{{actor}}")),
            ],
            [
                warmth(
                    "From tick to order",
                    "sum by (le) (increase(hean_tick_to_order_seconds_bucket[$__rate_interval]))",
                    about="How many orders left so long after the price that asked for them was received.",
                ),
                lines(
                    "From tick to order",
                    *((_within(part, "hean_tick_to_order_seconds"), f"{part:.0%} within") for part in (0.5, 0.99)),
                    unit="s",
                ),
            ],
            [
                lines("Age of the market", ("hean_feed_age_seconds", "{{instrument}}"), unit="s", above=(120.0,)),
                lines(
                    "Rows of the market, a second", ("rate(hean_feed_rows_total[$__rate_interval])", "{{instrument}}")
                ),
                lines("Rows that wait", ("hean_feed_waiting", "{{actor}}")),
                lines(
                    "Rows passed over, a second",
                    ("rate(hean_feed_conflated_total[$__rate_interval])", "{{instrument}}"),
                ),
            ],
            [
                lines(
                    "Errors", ("sum by (component, kind) (increase(hean_errors_total[5m]))", "{{component}}: {{kind}}")
                ),
                lines("Since reconciled", ("hean_reconcile_lag_seconds", "lag"), unit="s", above=(120.0,)),
                lines(
                    "Differences and adjustments",
                    ("hean_reconcile_discrepancies", "differences that stand"),
                    ("increase(hean_book_adjustments_total[1h])", "adjusted in an hour"),
                ),
                lines("Facts, a second", ("topk(8, rate(hean_facts_total[$__rate_interval]))", "{{fact}}")),
            ],
        ],
    )


def _ray() -> dashboard.Dashboard:
    return _board(
        "Ray",
        "The machines below: processors, memory, actors and tasks, as Ray itself counts them.",
        [
            [
                lines("Processors", ("ray_node_cpu_utilization", "{{instance}}"), unit="percent"),
                lines("Memory used", ("ray_node_mem_used / ray_node_mem_total", "{{instance}}"), unit="percentunit"),
                lines(
                    "Disk used",
                    ("ray_node_disk_usage / (ray_node_disk_usage + ray_node_disk_free)", "{{instance}}"),
                    unit="percentunit",
                ),
            ],
            [
                lines("Actors by state", ("sum by (State) (ray_actors)", "{{State}}")),
                lines("Tasks by state", ("sum by (State) (ray_tasks)", "{{State}}")),
            ],
            [
                lines(
                    "Processors by component",
                    ("sum by (Component) (ray_component_cpu_percentage) / 100", "{{Component}}"),
                ),
                lines(
                    "Memory by component",
                    ("sum by (Component) (ray_component_rss_bytes - ray_component_shared_bytes)", "{{Component}}"),
                    unit="bytes",
                ),
                lines("Object store", ("sum by (Location) (ray_object_store_memory)", "{{Location}}"), unit="bytes"),
            ],
            [
                lines(
                    "API requests, a second",
                    (
                        "sum by (route) (rate(ray_serve_deployment_request_counter_total[$__rate_interval]))",
                        "{{route}}",
                    ),
                ),
                lines(
                    "API, 99 % within",
                    (_within(0.99, "ray_serve_deployment_processing_latency_ms"), "all routes"),
                    unit="ms",
                ),
                lines("API requests under way", ("sum(ray_serve_deployment_queued_queries)", "queued")),
            ],
        ],
    )


def _within(part: float, name: str) -> str:
    """What this part of a histogram's durations does not exceed."""
    return f"histogram_quantile({part}, sum by (le) (rate({name}_bucket[5m])))"


# --- panels ---------------------------------------------------------------------------------------


def lines(
    title: str,
    *queries: Query,
    unit: str = "short",
    stacked: bool = False,
    above: Sequence[float] = (),
    about: str = "",
) -> Any:
    """Figures over time; above a line of `above` they are red."""
    panel = timeseries.Panel().title(title).description(about).unit(unit).line_width(1).show_points("never")
    panel.legend(common.VizLegendOptions().display_mode("list").placement("bottom").show_legend(True))
    panel.tooltip(common.VizTooltipOptions().mode("multi").sort("desc"))
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(30)
    if above:
        panel.thresholds(_steps([(value, "red") for value in above]))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode("line"))
    return _asking(panel, queries)


def number(
    title: str,
    query: Query,
    *,
    unit: str = "none",
    decimals: int | None = None,
    above: Sequence[tuple[float, str]] = (),
    words: dict[int, tuple[str, str]] | None = None,
    named: bool = False,
) -> Any:
    """One figure, now; `words` says it in words, and `named` shows what the series is called."""
    panel = stat.Panel().title(title).unit(unit).no_value("unknown").graph_mode("none").color_mode("value")
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.text_mode("name" if named else "value")
    panel.thresholds(_steps(above))
    if decimals is not None:
        panel.decimals(decimals)
    if words:
        panel.mappings([_in_words(words)])
    return _asking(panel, [query], instant=True)


def bars(title: str, query: Query, *, about: str) -> Any:
    """Parts of a whole, now."""
    panel = bargauge.Panel().title(title).description(about).unit("percentunit").min(0).max(1).no_value("unknown")
    panel.orientation("horizontal").display_mode("basic")
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.thresholds(_steps([(0.75, "orange"), (0.9, "red")]))
    return _asking(panel, [query], instant=True)


def states(title: str, query: Query, *, words: dict[int, tuple[str, str]] | None = None) -> Any:
    """What was the case, over time."""
    panel = statetimeline.Panel().title(title).no_value("unknown").show_value("never").row_height(0.8)
    panel.mappings([_in_words(words or {1: ("yes", "blue")})])
    return _asking(panel, [query])


def warmth(title: str, expr: str, *, about: str) -> Any:
    """A histogram over time."""
    panel = heatmap.Panel().title(title).description(about).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit("s"))
    panel.color(heatmap.HeatmapColorOptions().scheme("Oranges").steps(32))
    return panel.datasource(SOURCE).with_target(_query(expr, "{{le}}", "A").format(PromQueryFormat.HEATMAP))


def _asking(panel: Any, queries: Iterable[Query], *, instant: bool = False) -> Any:
    panel.datasource(SOURCE)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        expr, legend = (query, "") if isinstance(query, str) else query
        asked = _query(expr, legend, letter)
        panel.with_target(asked.instant() if instant else asked.range())
    return panel


def _query(expr: str, legend: str, letter: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expr).legend_format(legend).ref_id(letter).datasource(SOURCE)


def _steps(above: Iterable[tuple[float, str]]) -> Any:
    steps = [Threshold(value=None, color="green"), *(Threshold(value=value, color=color) for value, color in above)]
    return _Built(Thresholds(mode=ThresholdsMode.ABSOLUTE, steps=steps))


def _in_words(words: dict[int, tuple[str, str]]) -> ValueMap:
    options = {str(value): ValueMappingResult(text=text, color=color) for value, (text, color) in words.items()}
    mapping = ValueMap(options=options)
    mapping.type_val = MappingType.VALUE_TO_TEXT
    return mapping


class _Built:
    """A value where a builder of it is wanted."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def build(self) -> Any:
        return self._value


# --- putting together -----------------------------------------------------------------------------


def _board(title: str, about: str, rows: Sequence[Sequence[Any]]) -> dashboard.Dashboard:
    """A board of rows of panels, each row as wide as the board."""
    board = (
        dashboard.Dashboard(f"HEAN: {title}")
        .uid(f"hean-{title.lower()}")
        .description(about)
        .tags(["hean"])
        .timezone("utc")
        .time("now-1h", "now")
        .refresh("5s")
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    number_of, y = 0, 0
    for row in rows:
        height = 4 if all(isinstance(panel, stat.Panel) for panel in row) else 8
        width = WIDTH // len(row)
        for place, panel in enumerate(row):
            number_of += 1
            panel.id(number_of).grid_pos(GridPos(h=height, w=width, x=place * width, y=y))
            board.with_panel(panel)
        y += height
    return board


def written(board: dashboard.Dashboard) -> str:
    """A board as Grafana reads it."""
    return JSONEncoder(sort_keys=True, indent=1).encode(board.build()) + "\n"


if __name__ == "__main__":
    for name, board in boards().items():
        (FOLDER / f"{name}.json").write_text(written(board), encoding="utf-8")
