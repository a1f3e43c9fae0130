"""An evaluation as one HTML file, and as one JSON object: what was made out of sample, and by which choices.

What was made in training is nowhere in it. It asks nothing of any network and needs no scripts; what is unknown says so.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from hean.backtest import words
from hean.backtest.report import plain, utc
from hean.backtest.sweep_report import asset, choices, plain_value, spread, subject, varied
from hean.backtest.walk_forward import CAUTION, Evaluation, Looks, Tried, WalkForwardSettings
from hean.units import DAY
from hean.windows import day

_WIDE, _HIGH, _LEFT, _FOOT = 1_120, 280, 74, 24


def render(evaluation: Evaluation, settings: WalkForwardSettings, looks: Looks | None) -> str:
    """Write the report."""
    what = subject(settings.base, settings.parameters)
    results = [one.result for one in evaluation.windows if one.result is not None and one.result.net is not None]
    body = (
        _header(evaluation, settings, looks, what),
        _tiles(evaluation),
        _equity(evaluation),
        _windows(evaluation, settings),
        spread([row.net for row in results if row.net is not None], "How the windows are spread", "windows"),
        _chosen(evaluation, settings),
        varied(settings.base, settings.parameters, "What was chosen among"),
        _footer(evaluation, settings),
    )
    style = asset("report.css") + asset("sweep.css") + asset("evaluation.css")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(f'HEAN evaluation: {what}')}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def caution(evaluation: Evaluation, looks: Looks | None) -> str:
    """What must be read before the figures are."""
    told = f"{_count(evaluation.trials, 'trial')} in training, {_count(evaluation.tests, 'test')} out of sample. "
    if looks is None:
        told += "How often these days were looked at before is not known. "
    elif looks.evaluations == 1:
        told += "No other evaluation here has looked at these days. "
    else:
        told += (
            f"These days were looked at by {looks.evaluations:,} evaluations, of {looks.trials:,} trials in all: they are no "
            "longer unseen. "
        )
    return told + CAUTION


def as_json(evaluation: Evaluation, looks: Looks | None) -> dict[str, Any]:
    """What came of it. Money is text, instants are ISO 8601; unknown is null."""
    left_out = {"windows", "ts", "returns", "id"}
    headline = {name: getattr(evaluation, name) for name in Evaluation.__struct_fields__ if name not in left_out}
    return {
        "evaluation": evaluation.id,
        "headline": plain(headline),
        "caution": caution(evaluation, looks),
        "looks": None if looks is None else plain(looks),
        "windows": [_window(one) for one in evaluation.windows],
        "daily": [[utc(ts), value] for ts, value in zip(evaluation.ts, evaluation.returns, strict=True)],
    }


_SHOWN = ("net", "fees", "funding", "trades", "open_trades", "days", "total_return", "max_drawdown", "sharpe")


def _window(tried: Tried) -> dict[str, Any]:
    choice, row = tried.choice, tried.result
    return {
        "window": tried.window.number,
        "train": [day(at) for at in tried.window.train],
        "test": [day(at) for at in tried.window.test],
        "trials": choice.trials,
        "traded": choice.traded,
        "refused": choice.refused,
        "chosen": plain(choice.parameters),
        "why_none": choice.why,
        "error": None if row is None else row.error,
        **{name: None if row is None else plain(getattr(row, name)) for name in _SHOWN},
        "result_hash": None if row is None else row.result_hash,
    }


# --- the page -----------------------------------------------------------------------------------


def _header(evaluation: Evaluation, settings: WalkForwardSettings, looks: Looks | None, what: str) -> str:
    stamp = (
        '<div class="synthetic" role="alert"><strong>SYNTHETIC DATA</strong>This market was made up. '
        "The figures below show that the machinery works; they say nothing about any real market.</div>"
        if evaluation.synthetic
        else ""
    )
    windows, lengths = evaluation.windows, settings.windows
    first, last = windows[0].window.test[0], windows[-1].window.test[1]
    return (
        f'<header><div class="eyebrow">HEAN evaluation, out of sample</div><h1>{escape(what)}: '
        f"{escape(', '.join(settings.parameters))}</h1>"
        f'<div class="lede"><b>{len(windows):,}</b> windows of {lengths.train_days} d of training, {lengths.gap} d left out and '
        f"{lengths.test_days} d of test; tests from <b>{day(first)}</b> to <b>{day(last)}</b> UTC</div>"
        f'<div class="luck"><strong>Out of sample</strong>{escape(caution(evaluation, looks))}</div>'
        f"{stamp}</header>"
    )


def _tiles(evaluation: Evaluation) -> str:
    error = evaluation.sharpe_error
    tiles = (
        (
            "Net P&L",
            words.toned(evaluation.net),
            f"from {words.money(evaluation.capital)} each time",
        ),
        ("Return", words.percent(evaluation.total_return, signed=True), f"over {_count(evaluation.days, 'day')}"),
        (
            "Sharpe a year",
            words.number(evaluation.sharpe),
            "too few days for its error" if error is None else f"standard error {error:.2f}",
        ),
        ("Drawdown", words.percent(_negative(evaluation.max_drawdown)), "the deepest"),
        ("Round trips", words.count(evaluation.trades), f"{evaluation.idle:,} windows closed none"),
        (
            "Windows gained",
            f"{evaluation.gained:,} of {evaluation.tests:,}",
            "efficiency unknown" if evaluation.efficiency is None else f"efficiency {evaluation.efficiency:.2f}",
        ),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><div class="name">{escape(name)}</div><div class="figure">{figure}</div>'
            f'<div class="hint" title="{escape(hint)}">{escape(hint)}</div></div>'
            for name, figure, hint in tiles
        )
        + "</div>"
    )


def _negative(depth: float | None) -> float | None:
    return None if depth is None else -depth


def _equity(evaluation: Evaluation) -> str:
    """The days of all tests joined, on the calendar: where nothing was tested there is no line."""
    head = (
        '<section id="equity"><div class="head"><h2>Out-of-sample return</h2><span class="hint">the days of the tests, one '
        "after the other, compounded</span></div>"
    )
    if not evaluation.ts:
        return head + '<p class="soft">Not known: no test has a result, or one lost everything.</p></section>'
    grown = [1.0]
    for change in evaluation.returns:
        grown.append(grown[-1] * (1 + change))
    low, high = min(grown), max(grown)
    low, high = (low, high) if high - low > 1e-9 else (low - 0.001, high + 0.001)
    first, last = evaluation.windows[0].window.test[0], evaluation.windows[-1].window.test[1]

    def across(ts: int) -> float:
        return _LEFT + (ts - first) / (last - first) * (_WIDE - _LEFT)

    def down(level: float) -> float:
        return 8 + (high - level) / (high - low) * (_HIGH - _FOOT - 16)

    shades = "".join(
        f'<rect class="test{" odd" if one.window.number % 2 else ""}" x="{across(one.window.test[0]):.1f}" y="0" '
        f'width="{across(one.window.test[1]) - across(one.window.test[0]):.1f}" height="{_HIGH - _FOOT}">'
        f"<title>window {one.window.number}</title></rect>"
        for one in evaluation.windows
        if one.result is not None and one.result.error is None
    )
    levels = [low + (high - low) * part / 4 for part in range(5)]
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDE}" y1="{down(level):.1f}" y2="{down(level):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{down(level) + 4:.1f}" text-anchor="end">{words.percent(level - 1, signed=True)}</text>'
        for level in levels
    )
    lines = "".join(
        f'<polyline points="{" ".join(f"{across(ts):.1f},{down(level):.1f}" for ts, level in stretch)}"/>'
        for stretch in _stretches(evaluation.ts, grown)
    )
    ends = (
        f'<text x="{_LEFT}" y="{_HIGH - 6}">{day(first)}</text>'
        f'<text x="{_WIDE}" y="{_HIGH - 6}" text-anchor="end">{day(last)}</text>'
    )
    return (
        f'{head}<svg class="equity" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="compounded out-of-sample return">'
        f"{shades}{grid}{lines}{ends}</svg></section>"
    )


def _stretches(ts: Sequence[int], grown: Sequence[float]) -> list[list[tuple[int, float]]]:
    """The curve in pieces, broken where days are missing; each begins at the level the one before ended at."""
    found: list[list[tuple[int, float]]] = []
    for at, stamp in enumerate(ts):
        began = (stamp - 1) // DAY * DAY
        if not found or began > found[-1][-1][0]:
            found.append([(began, grown[at])])
        found[-1].append((stamp, grown[at + 1]))
    return found


def _windows(evaluation: Evaluation, settings: WalkForwardSettings) -> str:
    heads = "".join(
        f'<th class="n">{escape(name)}</th>'
        for name in (
            "",
            "chosen in",
            "tested in",
            *settings.parameters,
            "net",
            "fees",
            "funding",
            "drawdown",
            "trips",
            "result",
        )
    )
    rows = "".join(_row(one, settings) for one in evaluation.windows)
    none = len(evaluation.without_choice)
    hint = "what was chosen in training, and what it made afterwards"
    hint += f"; in {none:,} nothing was chosen, and they count for nothing at all" if none else ""
    return (
        f'<section id="best"><div class="head"><h2>Windows</h2><span class="hint">{hint}</span></div>'
        f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _row(tried: Tried, settings: WalkForwardSettings) -> str:
    window, choice, row = tried.window, tried.choice, tried.result
    spans = [f"{day(a)} to {day(b)}" for a, b in (window.train, window.test)]
    cells = [f"{window.number}", *spans]
    if choice.parameters is None:
        return _with_note(cells, len(settings.parameters) + 6, choice.why)
    cells += [escape(plain_value(choice.parameters[name])) for name in settings.parameters]
    if row is None or row.error is not None:
        return _with_note(cells, 6, "it was not tested" if row is None else row.error or "")
    cells += [
        words.toned(row.net),
        words.toned(row.fees),
        words.toned(row.funding),
        words.percent(_negative(row.max_drawdown)),
        words.count(row.trades),
        f"<code>{escape((row.result_hash or '')[:10])}</code>",
    ]
    return "<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>"


def _with_note(cells: Sequence[str], rest: int, note: str) -> str:
    known = "".join(f'<td class="n">{cell}</td>' for cell in cells)
    return f'<tr>{known}<td colspan="{rest}" class="unknown">{escape(note)}</td></tr>'


def _chosen(evaluation: Evaluation, settings: WalkForwardSettings) -> str:
    """How often each value was chosen: a choice that jumps about follows noise."""
    rows = ""
    for name, parameter in settings.parameters.items():
        counted = Counter(
            plain_value(one.choice.parameters[name]) for one in evaluation.windows if one.choice.parameters is not None
        )
        told = ", ".join(f"{escape(value)}: {count:,}" for value, count in counted.most_common())
        rows += (
            f"<tr><td>{escape(name)}</td><td>{told or words.unknown('nothing was chosen')}</td>"
            f'<td class="soft">of {escape(choices(parameter))}</td></tr>'
        )
    return (
        '<section id="chosen"><div class="head"><h2>How often each value was chosen</h2><span class="hint">a choice that '
        f'jumps about follows noise</span></div><table class="keys"><tbody>{rows}</tbody></table></section>'
    )


def _footer(evaluation: Evaluation, settings: WalkForwardSettings) -> str:
    lengths = settings.windows
    return (
        f"<footer>Evaluation <code>{escape(evaluation.id)}</code>, result <code>{escape(evaluation.result_hash)}</code><br>"
        "Chosen by the daily Sharpe ratio in training that a fifth of a set's neighbours do not reach. "
        f"Left out between training and test: {lengths.purge_days} d for positions still open, "
        f"{lengths.gap - lengths.purge_days} d beside. Efficiency: the mean daily return out of sample over that in training of "
        "what was chosen. Times are UTC, money is in quote currency. A window's settings, run by "
        "<code>hean backtest</code> on its test days, give its result hash.</footer>"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
