"""A run as one HTML file: it opens from a disk, asks nothing of any network, and has every figure in it.

Charts are drawn by the page itself from the data it carries; everything else is plain HTML and can
be read without scripts. What is unknown says so, and is never drawn as nought.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from html import escape
from importlib import resources
from itertools import accumulate
from typing import Any

from hean.backtest import charts, words
from hean.backtest.report import PARTS, plain
from hean.backtest.result import Funnel, Pnl, RunResult, StrategyResult
from hean.backtest.summary import Figures, figures, refusals
from hean.messages import SignalRefused
from hean.trips import RoundTrip
from hean.units import SECOND, minute

MOST_LISTED = 500
"""Round trips in the table, newest first."""

_RANGES = (("1 y", 365), ("3 m", 91), ("1 m", 30), ("1 w", 7), ("1 d", 1))
_DAY_S = 86_400
_OTHER = {"long": "short", "short": "long"}
_DASH = "&ndash;"
_BLANK = f"<td>{_DASH}</td>"


def render(result: RunResult) -> str:
    """Write the report of a run."""
    found = figures(result)
    trips = sorted(result.trips, key=lambda trip: trip.ts_open)
    names = charts.instruments(result, trips)
    chart = charts.chart(result, trips, names)
    what = " + ".join(dict.fromkeys(strategy.name for strategy in result.strategies)) or "no strategy"
    which = ", ".join(dict.fromkeys(words.symbol(name) for name in names)) or "no instrument"
    body = (
        _header(result, what, which),
        _tiles(result, found),
        _equity(result, names, drawn=chart["curve"]["count"]),
        _prices(chart, trips),
        _sources(result),
        _funnels(result.strategies),
        _measures(result, found),
        _trips_table(trips, several=len(result.strategies) > 1),
        _refused(result),
        _events(result),
        _notes(result.strategies),
        _manifest(result),
        _footer(result),
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    data = json.dumps(chart, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    title = f"HEAN backtest: {what}, {which}{', SYNTHETIC' if result.synthetic else ''}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be fetched, whatever a name in the data says.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f'\n<script type="application/json" id="data">{data}</script>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )


def _header(result: RunResult, what: str, which: str) -> str:
    days = (result.ts_end - result.ts_start) / 86_400e9
    stamp = (
        '<div class="synthetic" role="alert"><strong>SYNTHETIC DATA</strong>This market was made up. '
        "The figures below show that the machinery works; they say nothing about any real market.</div>"
        if result.synthetic
        else ""
    )
    return (
        f'<header><div class="eyebrow">HEAN backtest</div><h1>{escape(what)} on {escape(which)}</h1>'
        f'<div class="lede"><b>{minute(result.ts_start)}</b> to <b>{minute(result.ts_end)}</b> UTC '
        f"({days:,.1f} days), capital <b>{words.money(result.capital)}</b>, "
        f"result <code>{escape(result.result_hash[:12])}</code></div>{stamp}</header>"
    )


def _tiles(result: RunResult, found: Figures) -> str:
    net = result.pnl.net
    sharpe, hits = found.sharpe, found.hit_rate
    idle = next((each for each in result.benchmarks if "idle" in each.name.lower()), None)
    beside = "" if idle is None else f"{words.signed(net - idle.net_pnl)} against idle cash"
    tiles = (
        ("Net P&L", words.toned(net), words.percent(found.total_return, signed=True)),
        ("Equity at the end", words.money(result.equity_final), beside),
        (
            "Deepest drawdown",
            words.percent(None if found.max_drawdown is None else -found.max_drawdown),
            "" if found.drawdown_to is None else f"to {minute(found.drawdown_to)}",
        ),
        (
            "Sharpe, a year",
            words.number(None if sharpe is None else sharpe.value),
            f"95 %: {words.number(sharpe.low)} to {words.number(sharpe.high)}" if sharpe else words.why_sharpe(found),
        ),
        (
            "Round trips",
            f"{len(result.trips):,}",
            ", ".join(
                said
                for said in (
                    "" if hits is None else f"{words.percent(hits.value, places=0)} gained",
                    f"{found.open_trades:,} open" if found.open_trades else "",
                )
                if said
            ),
        ),
        ("Time in the market", words.percent(found.exposure, places=1), f"{words.count(found.fills)} fills"),
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


def _equity(result: RunResult, names: Sequence[str], *, drawn: int) -> str:
    seconds = (result.ts_end - result.ts_start) / 1e9
    ranges = "".join(
        f'<button data-range="{days * _DAY_S}">{name}</button>' for name, days in _RANGES if days * _DAY_S < seconds
    )
    of = "" if drawn == result.curve.size else f"{drawn:,} of {result.curve.size:,} points, extremes kept"
    held = (
        '<label class="check"><input type="checkbox" id="held">buy and hold <span id="held-name"></span></label>'
        if names
        else ""
    )
    return (
        '<section id="equity"><div class="head"><h2>Equity and drawdown</h2>'
        f'<span class="hint">{of}</span><div class="tools"><button data-move="-1" aria-label="earlier">&lsaquo;</button>'
        f'<button data-range="all">all</button>{ranges}<button data-move="1" aria-label="later">&rsaquo;</button>{held}</div></div>'
        '<div class="readout" aria-live="off"></div>'
        f'<div class="chart"><canvas id="equity-canvas" height="250" role="img" aria-label="equity from '
        f'{words.money(result.capital)} to {words.money(result.equity_final)}"></canvas></div>'
        '<div class="chart"><canvas id="drawdown-canvas" height="112" role="img" aria-label="drawdown"></canvas></div>'
        "<noscript><p>The charts need scripts; everything else on this page does not.</p></noscript></section>"
    )


def _prices(chart: Mapping[str, Any], trips: Sequence[RoundTrip]) -> str:
    instruments = chart["instruments"]
    if not instruments:
        return ""
    tabs = "".join(
        f'<button role="tab" data-tab="{index}" aria-selected="false" title="{escape(_made(one))}">'
        f"{escape(one['label'])}</button>"
        for index, one in enumerate(instruments)
    )
    drawn = len(chart["trips"])
    some = f"; the newest {drawn:,} of {len(trips):,} trips are drawn" if drawn < len(trips) else ""
    return (
        '<section id="price"><div class="head"><h2>Price and trades</h2><span class="hint"><span class="candles"></span>'
        f'{some}</span><div class="tools" role="tablist">{tabs}</div></div>'
        '<div class="readout"></div>'
        '<div class="chart"><canvas id="price-canvas" height="380" role="img" aria-label="price and trades"></canvas></div>'
        '<div class="chart" id="basis"><canvas id="basis-canvas" height="120" role="img" aria-label="basis"></canvas></div>'
        '<div class="legend"><span>▲ long ▼ short entry, ○ exit</span><span class="gain">gained</span>'
        '<span class="loss">lost</span><span>hollow candle: rose; full: fell</span></div></section>'
    )


def _made(one: Mapping[str, Any]) -> str:
    """What the page carries of an instrument: said where one points at its name."""
    if not one["recorded"]:
        return "no prices of it are on the tape"
    return f"{one['recorded']}" + (
        f", carried as candles of {words.span(one['step'] * SECOND)}" if one["joined"] else ""
    )


def _sources(result: RunResult) -> str:
    """The waterfall of the six parts: in all, and for each strategy where there are several."""
    falls = [_waterfall(result.pnl, "All strategies" if len(result.strategies) > 1 else "")]
    if len(result.strategies) > 1:
        falls += [_waterfall(strategy.pnl, strategy.name) for strategy in result.strategies]
    inside = f'<div class="columns">{"".join(falls)}</div>' if len(falls) > 1 else falls[0]
    return (
        '<section id="sources"><div class="head"><h2>Where the profit came from</h2>'
        '<span class="hint">each bar begins where the one above it ended; the parts add up to the net to the last digit'
        f"</span></div>{inside}</section>"
    )


def _waterfall(pnl: Pnl, title: str) -> str:
    amounts = [getattr(pnl, part) for part in PARTS]
    ends = list(accumulate(amounts))
    low, high = float(min(Decimal(0), *ends)), float(max(Decimal(0), *ends))
    span = (high - low) or 1.0
    rows = []
    for part, amount, end in zip(PARTS, amounts, ends, strict=True):
        rows.append(_fall(part, float(end - amount), float(end), amount, low=low, span=span))
    rows.append(_fall("net", 0.0, float(pnl.net), pnl.net, low=low, span=span, total=True))
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<div>{head}<div class="bars">{"".join(rows)}</div></div>'


def _fall(name: str, begin: float, end: float, amount: Decimal, *, low: float, span: float, total: bool = False) -> str:
    left, width = (min(begin, end) - low) / span * 100, abs(end - begin) / span * 100
    tone = "gain" if amount > 0 else "loss" if amount < 0 else ""
    bar = f'<i class="{tone}" style="left:{left:.3f}%;width:{width:.3f}%"></i>' if amount else ""
    zero = f'<u style="left:{-low / span * 100:.3f}%"></u>'
    return (
        f'<div class="row{" total" if total else ""}"><div class="label">{name}</div>'
        f'<div class="track">{zero}{bar}</div><div class="value">{words.toned(amount)}</div></div>'
    )


def _funnels(strategies: Sequence[StrategyResult]) -> str:
    blocks = [
        f"<div>{f'<h3>{escape(strategy.name)}</h3>' if len(strategies) > 1 else ''}{_funnel(strategy.funnel)}</div>"
        for strategy in strategies
    ]
    if not blocks:
        return ""
    inside = f'<div class="columns">{"".join(blocks)}</div>' if len(blocks) > 1 else blocks[0]
    return (
        '<section id="funnel"><div class="head"><h2>From what was seen to what was traded</h2>'
        f'<span class="hint">counts; the length of a bar is logarithmic</span></div>{inside}</section>'
    )


def _funnel(funnel: Funnel) -> str:
    refused = sum(funnel.refused.values())
    steps: list[tuple[str, int, str]] = [("rows seen", funnel.rows, "")]
    steps += [(gate, passed, "sub") for gate, passed in funnel.gates]
    steps.append(("signals", funnel.signals, ""))
    steps.append(("refused", refused, "no"))
    steps += [(rule, count, "sub no") for rule, count in words.most_first(funnel.refused)]
    steps.append(("orders", funnel.orders, ""))
    steps += [(f"ended: {ending}", count, "sub no") for ending, count in words.most_first(funnel.ended)]
    steps.append(("fills", funnel.fills, ""))
    most = math.log10(1 + max(count for _, count, _ in steps)) or 1.0
    rows = []
    for name, count, kind in steps:
        width = math.log10(1 + count) / most * 100
        tone = "loss" if "no" in kind else "" if "sub" in kind else "gain"
        rows.append(
            f'<div class="row {kind}"><div class="label">{escape(name)}</div><div class="track">'
            + (f'<i class="{tone}" style="left:0;width:{width:.2f}%"></i>' if count else "")
            + f'</div><div class="value">{count:,}</div></div>'
        )
    return f'<div class="bars">{"".join(rows)}</div>'


def _measures(result: RunResult, found: Figures) -> str:
    few = "needs days that vary"
    short = "needs thirty days"
    none = "no closed trade"
    hits, sharpe = found.hit_rate, found.sharpe
    risk = (
        ("return", words.percent(found.total_return, signed=True), ""),
        ("growth a year", words.percent(found.annual_return, signed=True, why=short), "compounded"),
        (
            "volatility a year",
            words.percent(found.volatility, why="needs two days"),
            f"from {found.days:,} daily returns",
        ),
        (
            "deepest drawdown",
            words.percent(found.max_drawdown),
            ""
            if found.drawdown_from is None or found.drawdown_to is None
            else f"{minute(found.drawdown_from)} to {minute(found.drawdown_to)}",
        ),
        (
            "Sharpe a year",
            words.number(None if sharpe is None else sharpe.value, why=words.why_sharpe(found)),
            words.between(sharpe, 2),
        ),
        ("Sharpe a day", words.number(found.sharpe_daily, places=4, why=few), "over a rate of nought"),
        ("Sortino a year", words.number(found.sortino, why="no losing day"), "downside over all days"),
        ("Calmar", words.number(found.calmar, why=short), "growth a year / deepest drawdown"),
        ("skew", words.number(found.skewness, why=few), "of daily returns"),
        ("kurtosis", words.number(found.kurtosis, why=few), "raw: a normal distribution has 3"),
        (
            "best and worst day",
            f"{words.percent(found.best_day, signed=True)} / {words.percent(found.worst_day, signed=True)}",
            "",
        ),
    )
    trades = (
        ("round trips closed", f"{found.trades:,}", f"{found.open_trades:,} still open"),
        (
            "hit rate",
            words.percent(None if hits is None else hits.value, places=1, why=none),
            ""
            if hits is None
            else f"95 %: {words.percent(hits.low, places=1)} to {words.percent(hits.high, places=1)}",
        ),
        ("profit factor", words.number(found.profit_factor, why="no losing trade" if found.trades else none), ""),
        ("mean trade", words.toned(found.mean_trade, why=none), "after fees and funding"),
        ("best trade", words.toned(found.best_trade, why=none), ""),
        ("worst trade", words.toned(found.worst_trade, why=none), ""),
        ("mean time held", words.duration(found.mean_hold, why=none), ""),
        ("median time held", words.duration(found.median_hold, why=none), ""),
        ("time in the market", words.percent(found.exposure, places=1), ""),
        ("turnover", words.number(found.turnover, suffix=" &times;"), "traded value / mean equity"),
        ("fills", words.count(found.fills), ""),
    )
    tables = "".join(
        '<table class="figures"><tbody>'
        + "".join(
            f'<tr><td>{name}</td><td class="n">{figure}</td><td class="hint">{hint}</td></tr>'
            for name, figure, hint in part
        )
        + "</tbody></table>"
        for part in (risk, trades)
    )
    return (
        f'<section id="figures"><div class="head"><h2>Figures</h2></div><div class="columns">{tables}</div></section>'
        + _benchmarks(result)
    )


def _benchmarks(result: RunResult) -> str:
    own = (
        f'<tr class="own"><td>this run</td><td class="n">{words.toned(result.pnl.net)}</td>'
        f'<td class="n">{words.share(result.pnl.net, result.capital)}</td><td class="n"></td><td></td></tr>'
    )
    rows = [
        own,
        *(
            f'<tr><td>{escape(each.name)}</td><td class="n">{words.toned(each.net_pnl)}</td>'
            f'<td class="n">{words.share(each.net_pnl, result.capital)}</td>'
            f'<td class="n">{words.toned(result.pnl.net - each.net_pnl)}</td><td class="hint">{escape(each.explanation)}</td></tr>'
            for each in result.benchmarks
        ),
    ]
    missing = "" if result.benchmarks else '<p class="hint">Nothing to compare with is known.</p>'
    return (
        '<section id="comparison"><div class="head"><h2>Against doing something else</h2></div><div class="wide"><table>'
        '<thead><tr><th></th><th class="n">net P&amp;L</th><th class="n">return</th><th class="n">this run made more by</th>'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>{missing}</section>"
    )


def _trips_table(trips: Sequence[RoundTrip], *, several: bool) -> str:
    if not trips:
        return '<section id="trips"><div class="head"><h2>Round trips</h2></div><p class="soft">Nothing was traded.</p></section>'
    listed = list(enumerate(trips, 1))[-MOST_LISTED:][::-1]
    count = (
        f"{len(trips):,}, newest first"
        if len(listed) == len(trips)
        else f"the newest {len(listed):,} of {len(trips):,}; --json has them all"
    )
    heads = (
        ("#", "n"),
        *((("strategy", ""),) if several else ()),
        ("instrument", ""),
        ("side", ""),
        ("quantity", "n"),
        ("opened, UTC", ""),
        ("closed, UTC", ""),
        ("held", "n"),
        ("entry", "n"),
        ("exit", "n"),
        ("P&amp;L", "n"),
        ("fees", "n"),
        ("funding", "n"),
        ("closed by", ""),
    )
    rows = "".join(_trip_row(number, trip, several=several) for number, trip in listed)
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in heads)
    return (
        f'<section id="trips"><div class="head"><h2>Round trips</h2><span class="hint">{count}; a heading sorts, a row '
        f'shows it on the chart</span></div><div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _trip_row(number: int, trip: RoundTrip, *, several: bool) -> str:
    held = None if trip.ts_close is None else trip.ts_close - trip.ts_open
    cells = (
        (f"{number}", "n", number),
        *(((escape(trip.strategy), "", None),) if several else ()),
        (escape(words.labels(trip.instruments)), "t", None),
        (escape(trip.side) + (f" / {_OTHER.get(trip.side, _DASH)}" if len(trip.instruments) > 1 else ""), "", None),
        (words.plain_number(trip.quantity), "n", trip.quantity),
        (minute(trip.ts_open), "t", trip.ts_open),
        (
            '<span class="soft">open</span>' if trip.ts_close is None else minute(trip.ts_close),
            "t",
            trip.ts_close or "",
        ),
        (_DASH if held is None else words.duration(held), "n", "" if held is None else held),
        (words.price(trip.entry_price), "n", trip.entry_price),
        (
            _DASH if trip.exit_price is None else words.price(trip.exit_price),
            "n",
            "" if trip.exit_price is None else trip.exit_price,
        ),
        (words.toned(trip.pnl), "n", trip.pnl),
        (words.money(trip.fees), "n", trip.fees),
        (words.signed(trip.funding), "n", trip.funding),
        (escape(trip.closed_by) or _DASH, "", None),
    )
    inside = "".join(
        f"<td{f' class={kind}' if kind else ''}{f' data-key={chr(34)}{words.key(key)}{chr(34)}' if key is not None else ''}>{text}</td>"
        for text, kind, key in cells
    )
    return f'<tr data-trip="{number}">{inside}</tr>'


def _refused(result: RunResult) -> str:
    counted = refusals(result)
    latest: dict[str, tuple[int, SignalRefused]] = {}
    for each in result.log:
        if isinstance(each.message, SignalRefused):
            latest[each.message.rule] = (each.ts_init, each.message)
    rows = []
    for rule, count in counted.items():
        ts, refusal = latest.get(rule, (None, None))
        rows.append(
            f'<tr><td>{escape(rule)}</td><td class="n">{count:,}</td><td class="t">{_DASH if ts is None else minute(ts)}</td>'
            + (
                f"<td>{escape(words.label(refusal.instrument))}</td><td>{escape(refusal.measured)}</td><td>{escape(refusal.limit)}</td></tr>"
                if refusal is not None
                else f"{3 * _BLANK}</tr>"
            )
        )
    inside = (
        '<div class="wide"><table><thead><tr><th>rule</th><th class="n">times</th><th>last, UTC</th><th>of</th>'
        f"<th>measured</th><th>limit</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        if rows
        else '<p class="soft">Nothing was refused.</p>'
    )
    return f'<section id="refusals"><div class="head"><h2>Refused, by rule</h2></div>{inside}</section>'


def _events(result: RunResult) -> str:
    """What befell the run beside its trades."""
    if not result.events:
        return ""
    listed = result.events[-MOST_LISTED:]
    left = len(result.events) - len(listed)
    hint = f'<span class="hint">the last {len(listed):,} of {len(result.events):,}</span>' if left else ""
    rows = "".join(f'<tr><td class="t">{minute(event.ts)}</td><td>{escape(event.text)}</td></tr>' for event in listed)
    return (
        f'<section id="events"><div class="head"><h2>What befell it</h2>{hint}</div><div class="wide"><table><thead><tr>'
        f"<th>UTC</th><th>what</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _notes(strategies: Sequence[StrategyResult]) -> str:
    """What the strategies say of the run; what several say is said once."""
    by: dict[str, list[str]] = {}
    for strategy in strategies:
        for note in strategy.notes:
            by.setdefault(note, []).append(strategy.name)
    if not by:
        return ""
    rows = []
    for note, who in by.items():
        whose = f"{', '.join(who)}: " if len(who) < len(strategies) else ""
        rows.append(f"<li>{escape(whose + note)}</li>")
    return f'<section id="notes"><div class="head"><h2>Notes</h2></div><ul class="notes">{"".join(rows)}</ul></section>'


def _manifest(result: RunResult) -> str:
    """Settings and data, folded away: all that is needed to run it again."""
    folded = [("Settings", _keys(result.settings))]
    folded += [(f"Configuration of {strategy.name}", _keys(strategy.config)) for strategy in result.strategies]
    folded.append((f"Data: {len(result.data):,} series", _series(result.data)))
    return (
        '<section id="manifest"><div class="head"><h2>What it was made from</h2></div>'
        + "".join(
            f'<details><summary>{escape(name)}</summary><div class="inside wide">{inside}</div></details>'
            for name, inside in folded
        )
        + "</section>"
    )


def _keys(tree: Mapping[str, object]) -> str:
    rows = [
        f"<tr><td>{escape(key)}</td><td>{'<span class=unknown>not set</span>' if value is None else escape(value)}</td></tr>"
        for key, value in _leaves(plain(tree))
    ]
    return (
        f'<table class="keys"><tbody>{"".join(rows)}</tbody></table>' if rows else '<p class="soft">Nothing is set.</p>'
    )


def _leaves(tree: Any, path: str = "") -> Iterable[tuple[str, str | None]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(each, Mapping | list) for each in tree):
        for place, value in enumerate(tree):
            yield from _leaves(value, f"{path}[{place}]")
    elif isinstance(tree, list):
        yield path, ", ".join(str(each) for each in tree) or "none"
    elif isinstance(tree, Mapping):
        yield path, "none"
    else:
        yield path, None if tree is None else str(tree)


def _series(data: Mapping[str, object]) -> str:
    rows = []
    for name, told in data.items():
        of = plain(told)
        if not isinstance(of, Mapping):
            rows.append(f'<tr><td>{escape(name)}</td><td colspan="5">{escape(str(of))}</td></tr>')
            continue
        first, last, gaps = of.get("first_ts"), of.get("last_ts"), of.get("gaps") or {}
        sums = [f"{source['sha256']}  {source['name']} ({source['importer']})" for source in of.get("sources", ())]
        sums += [f"{sha}  {file}" for file, sha in of.get("partitions", {}).items()]
        listed = [f"{minute(gap[0])} to {minute(gap[1])}: {gap[2]:,} missing" for gap in gaps.get("listed", ())]
        missing = f"{gaps['missing']:,} in {gaps['holes']:,}" if gaps.get("holes") else "none"
        rows.append(
            f"<tr><td>{escape(name)}{' <b>made up</b>' if of.get('synthetic') else ''}</td>"
            f'<td class="n">{words.count(of.get("rows"))}</td>'
            f'<td class="t">{_DASH if first is None else minute(first)}</td><td class="t">{_DASH if last is None else minute(last)}</td>'
            f"<td>{missing if 'gaps' in of else words.unknown()}{_folded(listed, 'which')}</td>"
            f"<td>{_folded(sums, f'{len(sums)} sums', mono=True) or words.unknown()}</td></tr>"
        )
    return (
        '<table><thead><tr><th>series</th><th class="n">rows</th><th>first, UTC</th><th>last, UTC</th>'
        f"<th>missing rows, in gaps</th><th>sha256</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _folded(lines: Sequence[str], name: str, *, mono: bool = False) -> str:
    if not lines:
        return ""
    shown = [*lines[:50], *([f"and {len(lines) - 50:,} more"] if len(lines) > 50 else [])]
    inside = "<br>".join(escape(line) for line in shown)
    return f'<details class="small"><summary>{escape(name)}</summary><div class="{"mono" if mono else "hint"}">{inside}</div></details>'


def _footer(result: RunResult) -> str:
    speed = f", {result.rows / result.wall_s:,.0f} rows a second" if result.wall_s > 0 else ""
    return (
        f"<footer>Result <code>{escape(result.result_hash)}</code><br>{result.rows:,} rows, {result.deliveries:,} told, "
        f"in {result.wall_s:,.3f} s{speed}. Times are UTC, money is in quote currency. "
        "The same data and settings give the same result hash.</footer>"
    )


def _asset(name: str) -> str:
    return resources.files("hean.backtest").joinpath("page", name).read_text(encoding="utf-8")
