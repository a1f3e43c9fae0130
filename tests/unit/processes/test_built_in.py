import re
from itertools import pairwise

import pytest

from hean.errors import ConfigError
from hean.processes.built_in import BUILT_IN, months, smoke_order_id
from hean.processes.definition import steps_of
from hean.processes.smoke_test import SmokeTestConfig
from hean.units import DAY, parse_time

OF = {definition.name: definition for definition in BUILT_IN}
NOW = parse_time("2026-03-02T12:00:00")


def plan(name, **given):
    definition = OF[name]
    arguments = definition.complete(given, NOW)
    return arguments, steps_of(definition, arguments)


def test_a_backfill_is_a_step_a_series_and_month():
    _, steps = plan("backfill", symbols="btcusdt, ETHUSDT", kinds="bar-1m", start="2025-12-15", end="2026-01-03")
    assert [(one.name, one.given["start"], one.given["end"]) for one in steps] == [
        ("bar-1m BTCUSDT 2025-12", "2025-12-15T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("bar-1m BTCUSDT 2026-01", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"),
        ("bar-1m ETHUSDT 2025-12", "2025-12-15T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("bar-1m ETHUSDT 2026-01", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"),
    ]
    assert {one.given["instrument"] for one in steps} == {"BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"}


def test_a_backfill_that_is_resumed_later_still_ends_when_it_was_asked_for():
    arguments, steps = plan("backfill")
    assert arguments["end"] == "2026-03-02T12:00:00Z"
    assert parse_time(arguments["start"]) == NOW - 90 * DAY
    assert steps == steps_of(OF["backfill"], arguments)


def test_months_cover_a_period_without_gap_or_overlap():
    cut = months(parse_time("2024-02-10"), parse_time("2025-01-01"))
    assert len(cut) == 11
    assert all(one[1] == other[0] for one, other in pairwise(cut))
    assert (cut[0][0], cut[-1][1]) == (parse_time("2024-02-10"), parse_time("2025-01-01"))


def test_the_groups_of_a_scan_need_nothing_of_one_another():
    _, steps = plan("environment-scan", symbols="BTCUSDT")
    assert [one.name for one in steps] == ["clock", "rules", "market", "account"]
    assert {one.needs for one in steps} == {()}


def test_every_attempt_at_a_smoke_test_has_an_id_the_venue_takes():
    arguments, _ = plan("smoke-test")
    name = smoke_order_id("smoke-test-1", arguments["asked"])
    assert name == smoke_order_id("smoke-test-1", arguments["asked"])
    assert name != smoke_order_id("smoke-test-1", str(NOW + 1))
    SmokeTestConfig(run_id="r", order_id=f"{name}-1000", reference=1)
    assert len(f"{name}-1000") <= 36


def test_settings_of_a_backtest_go_by_their_path():
    arguments, (step,) = plan("backtest", strategy="impulse", **{"risk.leverage": "2", "strategy.trigger": "4"})
    assert arguments == {"strategy": "impulse", "symbols": "BTCUSDT", "risk.leverage": "2", "strategy.trigger": "4"}
    assert step.cpus == 1


EVALUATED = {"strategy": "impulse", "start": "2025-01-01", "end": "2025-10-01", "param.strategy.trigger": "2,3"}


def test_an_evaluation_is_a_step_a_window_one_after_the_other_and_a_report_of_all():
    arguments, steps = plan("evaluate", **EVALUATED, train_days="90", test_days="30")
    # 90, 3 and 1 left out, 30: 124 of 273 days, and four more steps of 30.
    assert [one.name for one in steps] == [
        "window 1: 2025-04-05 to 2025-05-05",
        "window 2: 2025-05-05 to 2025-06-04",
        "window 3: 2025-06-04 to 2025-07-04",
        "window 4: 2025-07-04 to 2025-08-03",
        "window 5: 2025-08-03 to 2025-09-02",
        "report",
    ]
    assert [one.given["window"] for one in steps[:-1]] == ["1", "2", "3", "4", "5"]
    assert [one.needs for one in steps[:3]] == [(), (steps[0].name,), (steps[1].name,)]
    assert steps[-1].needs == tuple(one.name for one in steps[:-1])
    # It waits for the trials, which take a processor each.
    assert {one.cpus for one in steps} == {0}
    assert arguments["start"] == "2025-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("name", "given", "word"),
    [
        ("smoke-test", {"distance": "0.01"}, "distance '0.01' should be a number from 0.05 to 0.5"),
        ("smoke-test", {"distance": "nan"}, "distance 'nan' should be"),
        ("smoke-test", {"instrument": "BTCUSDT"}, "should read like BTCUSDT-LINEAR.BYBIT"),
        ("environment-scan", {"symbols": " , "}, "symbols names none"),
        ("environment-scan", {"symbol": "BTCUSDT"}, "no argument 'symbol': there are symbols"),
        ("backfill", {"symbols": "BTC/USDT"}, "'BTC/USDT' is no symbol"),
        ("backfill", {"market": "futures"}, "market 'futures' should be spot, linear or inverse"),
        ("backfill", {"start": "yesterday"}, "start 'yesterday' is no time"),
        ("backfill", {"start": "2027-01-01"}, "should lie before end"),
        ("backtest", {}, "strategy must be given"),
        ("evaluate", {"strategy": "impulse"}, "start must be given"),
        ("evaluate", EVALUATED | {"end": ""}, "end must be given"),
        ("evaluate", EVALUATED | {"end": "soon"}, "end 'soon' is no time"),
        ("evaluate", EVALUATED | {"end": "2025-02-01"}, "there are 31 whole days, and one window takes 215"),
        ("evaluate", EVALUATED | {"train_days": "1.5"}, "train_days '1.5' should be whole days, from 1"),
        ("evaluate", EVALUATED | {"purge_days": "-1"}, "purge_days '-1' should be whole days, from 0"),
        ("evaluate", EVALUATED | {"step_days": "5"}, "days would be counted twice"),
        ("evaluate", {name: EVALUATED[name] for name in ("strategy", "start", "end")}, "give param.strategy.trigger="),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(name, given, word):
    with pytest.raises(ConfigError, match=re.escape(word)):
        plan(name, **given)
