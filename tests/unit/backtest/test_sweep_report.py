"""The report of a sweep: how many were tried comes first, and what is unknown is not drawn as nought."""

import re
from decimal import Decimal
from html import unescape

import pytest

from hean.backtest.sweep import Row, SweepSettings
from hean.backtest.sweep_report import luck, render
from hean.store.trials import Sweep, as_frame, parameter_types

PARAMETERS = {"strategy.a": [1, 2], "strategy.b": [0.5, 1.5, 2.5]}


def row(number, a, b, net, **more):
    known = {
        "net": Decimal(net),
        **dict.fromkeys(("price", "basis", "funding", "fees", "slippage", "interest"), Decimal(0)),
        "trades": 3,
        "synthetic": False,
        "ts_start": 0,
        "ts_end": 86_400_000_000_000,
        "result_hash": "f" * 64,
    }
    return Row(f"{number:064d}", number, {"strategy.a": a, "strategy.b": b}, **known | more)


def failed(number, a, b, error):
    return Row(f"{number:064d}", number, {"strategy.a": a, "strategy.b": b}, error)


def page(rows, *, trials=None, parameters=None):
    settings = SweepSettings(base={"strategies": ["impulse"]}, parameters=parameters or PARAMETERS)
    types = parameter_types({name: [one.parameters[name] for one in rows] for name in settings.parameters})
    return render(Sweep("id", {}, trials or len(rows)), settings, as_frame(rows, types))


def text_of(html):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html.split("</style>")[1])))


ROWS = [row(1, 1, 0.5, "10"), row(2, 1, 1.5, "-30"), row(3, 2, 0.5, "20.5"), failed(4, 2, 1.5, "b: should <be> less")]


def test_how_many_were_tried_comes_before_the_best_of_them():
    text = text_of(page(ROWS, trials=1000))
    caution = "1,000 trials The best of 1,000 looks good by luck alone: this is no evidence."
    assert caution in text
    assert text.index(caution) < text.index("Best +20.50")
    assert "996 of 1,000 trials are still to come" in text


def test_one_trial_is_no_evidence_either():
    assert "no evidence" in luck(1)


def test_the_best_comes_first_and_the_tiles_count_what_gained():
    text = text_of(page(ROWS))
    table = text.partition("Trials by net")[2]
    assert table.index("+20.50") < table.index("+10.00") < table.index("\N{MINUS SIGN}30.00")
    assert "Gained 67 % 2 of 3" in text
    assert "Median net P&L +10.00" in text
    assert "Worst \N{MINUS SIGN}30.00" in text


def test_a_cell_without_a_result_is_unknown():
    html = page(ROWS)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", html.split('class="heat"')[1].split("</table>")[0])
    assert cells == ["+10.00", "\N{MINUS SIGN}30.00", "+20.50", "unknown"]


def test_a_cell_is_the_median_of_whatever_else_is_varied():
    parameters = PARAMETERS | {"capital": [1, 2, 3]}
    rows = [
        Row(
            **{
                **{name: getattr(one, name) for name in one.__struct_fields__},
                "parameters": {**one.parameters, "capital": n},
            }
        )
        for n, net in ((1, "1"), (2, "100"), (3, "7"))
        for one in (row(n, 1, 0.5, net), row(n + 3, 2, 1.5, net))
    ]
    heat = page(rows, parameters=parameters).split('class="heat"')[1].split("</table>")[0]
    assert re.findall(r'title="median of 3 trials"[^>]*>([^<]*)<', heat) == ["+7.00", "+7.00"]


def test_many_values_of_a_number_are_joined_to_spans():
    rows = [row(n, 1 + n % 2, n / 7, f"{n}") for n in range(1, 40)]
    heat = page(rows).split('class="heat"')[1].split("</table>")[0]
    assert len(re.findall(r'scope="col"', heat)) == 8
    counted = sum(int(n) for n in re.findall(r'title="(?:median of )?(\d+) trial', heat))
    assert counted == 39


def test_one_parameter_alone_is_drawn_as_bars():
    rows = [row(1, 1, 0.5, "10"), row(2, 2, 0.5, "-20")]
    html = page(rows)
    assert "Net P&amp;L by strategy.a" in html
    assert 'class="heat"' not in html


def test_the_bars_of_the_spread_count_every_trial_and_none_crosses_nought():
    rows = [row(n, 1, 0.5, f"{n - 20}.5") for n in range(40)]
    spread = page(rows).split('class="counts"')[1].split('class="ends"')[0]
    counts = re.findall(r'title="([^"]*) to ([^"]*): (\d+)"', spread)
    assert sum(int(count) for _, _, count in counts) == 40
    low_and_high = [tuple(float(x.replace("\N{MINUS SIGN}", "-").replace(",", "")) for x in one[:2]) for one in counts]
    assert all(high <= 0 or low >= 0 for low, high in low_and_high)


def test_what_was_refused_is_listed_once_with_how_often():
    html = page([*ROWS, failed(5, 2, 2.5, "b: should <be> less")])
    assert "2 trials have no result" in html
    assert html.count("b: should &lt;be&gt; less") == 1
    assert "strategy.a=2, strategy.b=1.5" in html


def test_made_up_data_stamps_the_page():
    assert "SYNTHETIC DATA" in page([row(1, 1, 0.5, "1", synthetic=True), row(2, 2, 0.5, "2")])
    assert "SYNTHETIC DATA" not in page([row(1, 1, 0.5, "1"), row(2, 2, 0.5, "2")])


@pytest.mark.parametrize(
    "rows", [[failed(1, 1, 0.5, "no")], [row(1, 1, 0.5, "0")], [row(1, 1, 0.5, "0", trades=0)] * 3]
)
def test_a_sweep_with_little_to_show_has_a_page(rows):
    text = text_of(page(rows))
    assert "no evidence" in text
    assert "nan" not in text.lower()


def test_the_page_asks_nothing_of_a_network_and_runs_nothing():
    html = page(ROWS)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")
