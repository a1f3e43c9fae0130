"""A sweep as one HTML file: what was tried, what came of it, and how little the best of many proves.

It asks nothing of any network and needs no scripts. What is unknown says so, and is never drawn as nought.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape
from importlib import resources
from statistics import median
from typing import Any

import polars as pl

from hean.backtest import words
from hean.backtest.report import PARTS
from hean.backtest.sweep import Range, SweepSettings
from hean.store.trials import PARAMETER, Sweep
from hean.units import minute

MOST_LISTED = 100
"""Trials in the table, best first."""

MOST_CELLS = 14
"""Values of a parameter a heat map shows one by one; more are joined."""

_BINS = 8
_BARS = 40
_MAPS = 3
_DASH = "&ndash;"
_NONE = (None, None)


def render(sweep: Sweep, settings: SweepSettings, rows: pl.DataFrame) -> str:
    """Write the report of a sweep, as far as it is."""
    results = rows.filter(pl.col("error").is_null()).sort(["net", "number"], descending=[True, False])
    body = (
        _header(sweep, settings, rows, results),
        _tiles(sweep, rows, results),
        _maps(settings, results),
        _distribution(results),
        _best(settings, results),
        _errors(settings, rows),
        _varied(settings),
        _footer(sweep),
    )
    style = asset("report.css") + asset("sweep.css")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(f'HEAN sweep: {subject(settings.base, settings.parameters)}')}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def luck(trials: int) -> str:
    """What must be read before the best trial is."""
    if trials == 1:
        return "One trial, chosen by whoever ran it, on one stretch of the past: this is no evidence."
    return f"The best of {trials:,} looks good by luck alone: this is no evidence."


def subject(base: Mapping[str, Any], parameters: Mapping[str, Range | Sequence[Any]]) -> str:
    """What is run, in a word or two."""
    listed = base.get("strategies", [])
    names = [str(one.get("use", "?") if isinstance(one, Mapping) else one) for one in listed]
    chosen = parameters.get("strategies", ())
    varied = [] if isinstance(chosen, Range) else [str(value) for value in chosen]
    shown = [name.replace("\\", "/").rpartition("/")[2] for name in varied or names]
    return " + ".join(shown) or "a backtest"


def _header(sweep: Sweep, settings: SweepSettings, rows: pl.DataFrame, results: pl.DataFrame) -> str:
    stamp = (
        '<div class="synthetic" role="alert"><strong>SYNTHETIC DATA</strong>This market was made up. '
        "The figures below show that the machinery works; they say nothing about any real market.</div>"
        if results["synthetic"].any()
        else ""
    )
    span = ""
    if results.height:
        starts, ends = results["ts_start"], results["ts_end"]
        span = f", trading from <b>{minute(int(starts.to_numpy().min()))}</b> to <b>{minute(int(ends.to_numpy().max()))}</b> UTC"
    way = "every combination" if settings.kind == "grid" else f"drawn at random from seed {settings.seed}"
    left = sweep.trials - rows.height
    unfinished = f" {left:,} of {sweep.trials:,} trials are still to come." if left else ""
    return (
        f'<header><div class="eyebrow">HEAN sweep</div><h1>{escape(subject(settings.base, settings.parameters))}: '
        f"{escape(', '.join(settings.parameters))}</h1>"
        f'<div class="lede"><b>{sweep.trials:,}</b> trials, {way}{span}</div>'
        f'<div class="luck"><strong>{sweep.trials:,} trial{"" if sweep.trials == 1 else "s"}</strong>'
        f"{escape(luck(sweep.trials))}{unfinished}</div>{stamp}</header>"
    )


def _tiles(sweep: Sweep, rows: pl.DataFrame, results: pl.DataFrame) -> str:
    net = _nets(results)
    gained = sum(one > 0 for one in net)
    idle = sum(count == 0 for count in results["trades"].to_list()) if results.height else 0
    middle = median(net) if net else None
    errors = rows.height - results.height
    tiles = (
        ("Trials", f"{rows.height:,}", f"of {sweep.trials:,}"),
        (
            "Gained",
            words.percent(gained / len(net), places=0) if net else words.unknown(),
            f"{gained:,} of {len(net):,}",
        ),
        ("Median net P&L", words.toned(middle), "half made more, half less"),
        ("Best", words.toned(max(net, default=None)), "by luck, or not: see above"),
        ("Worst", words.toned(min(net, default=None)), f"{idle:,} closed no trade" if idle else ""),
        ("Refused", f"{errors:,}", "listed below" if errors else ""),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><div class="name">{escape(name)}</div><div class="figure">{figure}</div>'
            f'<div class="hint">{hint}</div></div>'
            for name, figure, hint in tiles
        )
        + "</div>"
    )


def _nets(results: pl.DataFrame) -> list[Decimal]:
    return results["net"].to_list()


# --- where the profit lies ----------------------------------------------------------------------


def _maps(settings: SweepSettings, results: pl.DataFrame) -> str:
    """A map for each two of the first parameters that vary; bars where only one does."""
    if not results.height:
        return ""
    varied = [name for name in settings.parameters if results[PARAMETER + name].n_unique() > 1]
    if not varied:
        return ""
    if len(varied) == 1:
        inside = _bars(settings, results, varied[0])
        title, hint = f"Net P&amp;L by {escape(varied[0])}", "the median, where trials share a value"
    else:
        pairs = list(itertools.combinations(varied, 2))
        maps = "".join(f'<div class="wide">{_map(settings, results, *pair)}</div>' for pair in pairs[:_MAPS])
        inside = f'<div class="maps">{maps}</div>'
        title = "Net P&amp;L by two parameters"
        hint = "the median of the trials in a cell, over whatever else is varied; good cells among bad ones are luck"
        if len(pairs) > _MAPS:
            hint += f"; {_MAPS} of {len(pairs):,} pairs, the first varied first"
    return (
        f'<section id="maps"><div class="head"><h2>{title}</h2><span class="hint">{hint}</span></div>{inside}</section>'
    )


def _bars(settings: SweepSettings, results: pl.DataFrame, name: str) -> str:
    labels, places = _cells(settings, results, name)
    nets = _nets(results)
    medians = [
        median([net for net, at in zip(nets, places, strict=True) if at == place] or [Decimal(0)])
        for place in range(len(labels))
    ]
    most = float(max(map(abs, medians))) or 1.0
    rows = "".join(
        f'<div class="row"><div class="label">{escape(label)}</div><div class="track">'
        f'<i class="{"gain" if net > 0 else "loss"}" style="left:0;width:{abs(float(net)) / most * 100:.2f}%"></i></div>'
        f'<div class="value">{words.toned(net)}</div></div>'
        for label, net in itertools.islice(zip(labels, medians, strict=True), _BARS)
    )
    return f'<div class="bars">{rows}</div>'


def _map(settings: SweepSettings, results: pl.DataFrame, down: str, across: str) -> str:
    rows, row_of = _cells(settings, results, down)
    columns, column_of = _cells(settings, results, across)
    inside: dict[tuple[int, int], list[Decimal]] = {}
    for net, row, column in zip(_nets(results), row_of, column_of, strict=True):
        inside.setdefault((row, column), []).append(net)
    medians = {place: median(nets) for place, nets in inside.items()}
    most = max((abs(float(net)) for net in medians.values()), default=0.0) or 1.0
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in columns)
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(
            _cell(medians.get((row, column)), len(inside.get((row, column), ())), most)
            for column in range(len(columns))
        )
        + "</tr>"
        for row, label in enumerate(rows)
    )
    return (
        f'<table class="heat"><caption>{escape(down)} downwards, {escape(across)} to the right</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _cell(net: Decimal | None, count: int, most: float) -> str:
    if net is None:
        return '<td class="unknown" title="no trial here has a result">unknown</td>'
    tone = "gain" if net > 0 else "loss"
    share = abs(float(net)) / most * 60
    of = "1 trial" if count == 1 else f"median of {count:,} trials"
    return f'<td title="{of}" style="background:color-mix(in srgb, var(--{tone}) {share:.0f}%, transparent)">{words.signed(net)}</td>'


def _cells(settings: SweepSettings, results: pl.DataFrame, name: str) -> tuple[list[str], list[int]]:
    """The cells of an axis, and which of them each trial lies in. Many numbers are joined to spans of equal width."""
    values = results[PARAMETER + name].to_list()
    distinct = list(dict.fromkeys(values))
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    if not numbers or len(distinct) <= MOST_CELLS:
        ordered = sorted(distinct) if numbers else sorted(distinct, key=str)
        place = {value: at for at, value in enumerate(ordered)}
        return [plain_value(value) for value in ordered], [place[value] for value in values]
    parameter = settings.parameters[name]
    log = isinstance(parameter, Range) and parameter.scale == "log"
    low, high = min(distinct), max(distinct)
    edges = [low * (high / low) ** (at / _BINS) if log else low + (high - low) * at / _BINS for at in range(_BINS + 1)]
    labels = [f"{a:.3g} .. {b:.3g}" for a, b in itertools.pairwise(edges)]
    return labels, [min(_BINS - 1, sum(value >= edge for edge in edges[1:-1])) for value in values]


def plain_value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _distribution(results: pl.DataFrame) -> str:
    return spread(_nets(results), "How the trials are spread", "trials")


def spread(profits: Sequence[Decimal], title: str, what: str) -> str:
    """A histogram of profits, gains and losses apart; nothing where there is no spread."""
    nets = [float(net) for net in profits]
    if len(nets) < 2 or min(nets) == max(nets):
        return ""
    low, high = min(nets), max(nets)
    width = _width((high - low) / min(30, max(6, round(math.sqrt(len(nets)) * 2))))
    first = math.floor(low / width)
    counts = [0] * (math.floor(high / width) - first + 1)
    for net in nets:
        counts[math.floor(net / width) - first] += 1
    most = max(counts)
    bars = "".join(
        f'<div title="{_span(first + at, width)}: {count:,}">{f"{count:,}" if count else ""}'
        f'<i class="{"loss" if first + at < 0 else "gain"}" style="height:{count / most * 140:.0f}px"></i></div>'
        for at, count in enumerate(counts)
    )
    ends = "".join(f"<span>{words.money(Decimal(str((first + at) * width)))}</span>" for at in (0, len(counts)))
    return (
        f'<section id="distribution"><div class="head"><h2>{title}</h2><span class="hint">{what} by net '
        f'P&amp;L, {words.money(Decimal(str(width)))} to a bar</span></div><div class="counts">{bars}</div>'
        f'<div class="ends">{ends}</div></section>'
    )


def _width(about: float) -> float:
    """The next of 1, 2, 5, 10 and so on: bars meet at nought."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= about * (1 - 1e-9))


def _span(at: int, width: float) -> str:
    return f"{words.money(Decimal(str(at * width)))} to {words.money(Decimal(str((at + 1) * width)))}"


# --- one by one ---------------------------------------------------------------------------------


def _best(settings: SweepSettings, results: pl.DataFrame) -> str:
    if not results.height:
        return (
            '<section id="best"><div class="head"><h2>Trials</h2></div><p class="soft">None has a result.</p></section>'
        )
    listed = results.head(MOST_LISTED)
    hint = (
        "all"
        if listed.height == results.height
        else f"the first {listed.height:,} of {results.height:,}; results.parquet has them all"
    )
    heads = "".join(
        f'<th class="n">{escape(name)}</th>'
        for name in (
            "",
            *settings.parameters,
            "net",
            *PARTS,
            "drawdown",
            "Sharpe a year",
            "95 %",
            "trips",
            "trial",
            "result",
        )
    )
    rows = "".join(_row(settings, place, row) for place, row in enumerate(listed.iter_rows(named=True), 1))
    return (
        f'<section id="best"><div class="head"><h2>Trials by net P&amp;L</h2><span class="hint">{hint}</span></div>'
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _row(settings: SweepSettings, place: int, row: Mapping[str, Any]) -> str:
    low, high = (row["sharpe_low"], row["sharpe_high"]) if row["sharpe_low"] is not None else _NONE
    drawdown = None if row["max_drawdown"] is None else -row["max_drawdown"]
    cells = (
        f"{place}",
        *(escape(plain_value(row[PARAMETER + name])) for name in settings.parameters),
        words.toned(row["net"]),
        *(words.toned(row[part]) for part in PARTS),
        words.percent(drawdown),
        words.number(row["sharpe"]),
        _DASH if low is None or high is None else f"{words.number(low, places=1)} to {words.number(high, places=1)}",
        words.count(row["trades"]),
        f"<code>{escape(row['trial'][:10])}</code>",
        f"<code>{escape(row['result_hash'][:10])}</code>",
    )
    return "<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>"


def _errors(settings: SweepSettings, rows: pl.DataFrame) -> str:
    """What was refused: each reason once, with how often and for what first."""
    failed = rows.filter(pl.col("error").is_not_null())
    if not failed.height:
        return ""
    reasons: dict[str, list[Mapping[str, Any]]] = {}
    for row in failed.iter_rows(named=True):
        reasons.setdefault(row["error"], []).append(row)
    listed = sorted(reasons.items(), key=lambda one: -len(one[1]))
    body = "".join(
        f'<tr><td class="n">{len(of):,}</td><td>{escape(reason)}</td><td>{escape(_told(settings, of[0]))}</td></tr>'
        for reason, of in listed[:MOST_LISTED]
    )
    more = f"; the first {MOST_LISTED:,} of {len(listed):,} reasons" if len(listed) > MOST_LISTED else ""
    return (
        f'<section id="errors"><div class="head"><h2>Refused</h2><span class="hint">{failed.height:,} trials have no '
        f'result{more}</span></div><div class="wide"><table><thead><tr><th class="n">trials</th><th>why</th><th>the first of them</th>'
        f"</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _told(settings: SweepSettings, row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={plain_value(row[PARAMETER + name])}" for name in settings.parameters)


def _varied(settings: SweepSettings) -> str:
    return varied(settings.base, settings.parameters, "What was varied")


def varied(base: Mapping[str, Any], parameters: Mapping[str, Range | Sequence[Any]], title: str) -> str:
    """Each parameter with its values, and everything that was the same in all trials."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(choices(parameter))}</td></tr>"
        for name, parameter in parameters.items()
    )
    fixed = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in base.items())
    return (
        f'<section id="varied"><div class="head"><h2>{title}</h2></div>'
        f'<table class="keys"><tbody>{rows}</tbody></table><details><summary>What was not</summary>'
        f'<div class="inside wide"><table class="keys"><tbody>{fixed}</tbody></table></div></details></section>'
    )


def choices(parameter: Range | Sequence[Any]) -> str:
    if not isinstance(parameter, Range):
        return ", ".join(plain_value(value) for value in parameter)
    steps = f" in {parameter.steps} steps" if parameter.steps is not None else ", any value"
    return f"{parameter.low:g} to {parameter.high:g}{steps}" + (", equal ratios" if parameter.scale == "log" else "")


def _footer(sweep: Sweep) -> str:
    return (
        f"<footer>Sweep <code>{escape(sweep.id)}</code><br>Times are UTC, money is in quote currency. "
        "A trial's settings, run by <code>hean backtest</code>, give its result hash.</footer>"
    )


def asset(name: str) -> str:
    """A file of the page."""
    return resources.files("hean.backtest").joinpath("page", name).read_text(encoding="utf-8")
