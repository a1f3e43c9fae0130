"""Lines of the log, as people read them; what was found, as figures and tables; and tables, as files."""

import msgspec
import pytest

from actors.page import lines
from actors.page.findings import about
from actors.page.spreadsheet import as_csv
from actors.page.words import MINUS

TRACE = "0123456789abcdef0123456789abcdef"
SAID = {
    "ts": "2026-11-23T03:00:00.250Z",
    "node": "broker",
    "level": "warning",
    "event": "OrderRejected",
    "rest": {
        "id": "broker@7:12",
        "trace": TRACE,
        "cause": "",
        "said": {"client_order_id": "7-a1", "reason": "<b>no</b>"},
    },
}


def test_a_line_says_when_who_what_and_what_was_said():
    line = lines.read(SAID)

    assert (line.node, line.level, line.event, line.trace) == ("broker", "warning", "OrderRejected", TRACE)
    assert line.words == "client_order_id 7-a1, reason <b>no</b>"
    assert line.at % 1 == pytest.approx(0.25)


def test_a_line_is_the_same_however_it_came():
    flat = {name: value for name, value in SAID.items() if name != "rest"} | SAID["rest"]

    assert lines.read(flat) == lines.read(SAID)


@pytest.mark.parametrize(
    ("sought", "found"),
    [(TRACE, True), (TRACE[:8], True), ("7-a1", True), ("broker@7:12", True), ("7-a2", False)],
)
def test_a_line_belongs_to_a_trace_an_order_and_a_message(sought, found):
    assert lines.read(SAID).is_of(sought) is found


def test_a_level_lets_the_worse_through():
    line = lines.read(SAID)

    assert [line.is_at_least(level) for level in lines.LEVELS] == [True, True, True, False, False]


def test_a_line_is_exported_as_it_was_written():
    assert (
        msgspec.json.decode(lines.written(lines.read(SAID)))
        == {name: value for name, value in SAID.items() if name != "rest"} | SAID["rest"]
    )


def test_a_failure_says_what_it_was_and_not_where():
    told = SAID | {"rest": {"exception": "Traceback (most recent call last):\n  File x\nValueError: not a number"}}

    assert lines.read(told).words == "ValueError: not a number"


def test_a_very_long_line_is_cut():
    assert len(lines.read(SAID | {"rest": {"said": {"text": "x" * 10_000}}}).words) < 700


# --- findings -------------------------------------------------------------------------------------


def test_a_backtest_is_told_in_figures_and_where_its_report_lies():
    found = about(
        {
            "report": "/home/reports/ab.html",
            "net_pnl": "-12.5",
            "synthetic": True,
            "figures": {"max_drawdown": 0.0123, "sharpe": 1.5},
            "settings": {"risk": {"leverage": 3}},
            "strategies": [{"name": "carry", "net_pnl": "3.25"}, {"name": "churn", "net_pnl": "-1"}],
            "events": [],
        }
    )

    figures = dict(found.figures)
    assert found.report == "/home/reports/ab.html"
    assert figures["net pnl"] == f"{MINUS}12.50"
    assert figures["max drawdown"] == "1.23 %"
    assert figures["sharpe"] == "1.5"
    assert not any("leverage" in name for name in figures), "settings are the report's"
    assert found.cautions == ("SIMULATED: the data is made up.",)
    (table,) = found.tables
    assert table.columns == ("name", "net_pnl")
    assert table.numbers == {"net_pnl"}


def test_what_a_scan_could_not_have_stays_empty_and_is_not_nought():
    found = about(
        {
            "findings": [
                {"name": "fee", "value": None, "reason": "on paper"},
                {"name": "tick", "value": "0.1", "reason": ""},
            ]
        }
    )

    rows = found.tables[0].rows
    assert rows[0]["value"] == ""
    assert rows[0]["reason"] == "on paper"
    assert rows[1]["value"] == "0.1"


@pytest.mark.parametrize(
    "output", [None, "", 3, "text", [], [1, 2], {}, {"a": {"b": {"c": [1]}}}, {"x": [{}]}, [{"y": None}]]
)
def test_whatever_was_found_can_be_shown(output):
    about(output)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("-0.5", "-0.5"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@sum", "'@sum"),
        ("-x", "'-x"),
        (None, ""),
        ('a,"b"', '"a,""b"""'),
        (["A", "B"], "A B"),
    ],
    ids=["a number below nought", "a formula", "another", "no number", "unknown", "commas and quotes", "several"],
)
def test_a_cell_is_written_so_that_a_spreadsheet_takes_it_for_what_it_is(value, written):
    assert as_csv(["x"], [{"x": value}]) == f"x\n{written}\n".replace("x\n\n", 'x\n""\n')
