import json
from decimal import Decimal

import msgspec
import pytest

from hean.backtest.report import as_json, plain, result_hash, utc
from hean.backtest.summary import figures
from hean.messages import AccountSnapshot
from tests.unit.backtest.make import DAY, START, D, carry_run, empty_run, fill, impulse_run, result, said, trip

FOUND = {"bar-1m BTC": {"rows": 5, "partitions": {"a.parquet": "aa"}, "sources": [{"name": "x.csv", "sha256": "cc"}]}}


# --- the hash -----------------------------------------------------------------------------------


def hashed(log=(), settings=None, data=None):
    return result_hash(log, settings or {"capital": 1}, FOUND if data is None else data)


def test_the_order_of_a_dict_changes_nothing():
    one = {"a": 1, "b": {"x": 1, "y": [1, 2]}}
    other = {"b": {"y": [1, 2], "x": 1}, "a": 1}
    snapshot = [
        AccountSnapshot(1, 1, True, (), of, {}, {}, {}, ()) for of in ({"a": D(1), "b": D(2)}, {"b": D(2), "a": D(1)})
    ]

    assert hashed(settings=one) == hashed(settings=other)
    assert hashed([said(snapshot[0], seq=1)]) == hashed([said(snapshot[1], seq=1)])


def test_where_things_lie_changes_nothing():
    moved = {
        "bar-1m BTC": {
            "rows": 5,
            "partitions": {"b.parquet": "bb", "c.parquet": "dd"},
            "sources": [{"name": "elsewhere/x.csv", "sha256": "cc"}],
        }
    }

    assert hashed(data=FOUND) == hashed(data=moved)
    assert hashed(settings={"catalog_dir": "/a", "use": "/a/b/mine.py:Mine"}) == hashed(
        settings={"catalog_dir": "/b", "use": "mine.py:Mine"}
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": {"capital": 2}},
        {"data": {}},
        {"data": {"bar-1m BTC": {**FOUND["bar-1m BTC"], "rows": 6}}},
        {"data": {"bar-1m BTC": {**FOUND["bar-1m BTC"], "sources": [{"name": "x.csv", "sha256": "ce"}]}}},
        {"log": [said(fill("P", "1", "100", trade="t"), seq=1)]},
    ],
    ids=["settings", "no data", "rows", "source", "log"],
)
def test_what_matters_changes_it(changed):
    assert hashed(**changed) != hashed()


def test_every_message_and_its_place_matter():
    log = [said(fill("P", "1", "100", trade=f"t{place}"), seq=place) for place in range(10_000)]
    last = msgspec.structs.replace(log[-1], message=fill("P", "1", "100.1", trade="t9999"))

    found = {hashed(log), hashed(log[:-1]), hashed([*log[:-1], last]), hashed([log[1], log[0], *log[2:]])}

    assert len(found) == 4
    assert hashed(log) == hashed(iter(log))


# --- the object ---------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [impulse_run, carry_run, empty_run])
def test_the_parts_add_up_to_the_net_as_text(run):
    of = run()
    told = json.loads(json.dumps(as_json(of), allow_nan=False))

    assert sum(Decimal(part) for part in told["pnl"].values()) == Decimal(told["net_pnl"])
    assert Decimal(told["equity_final"]) == Decimal(told["capital"]) + Decimal(told["net_pnl"])
    for strategy in told["strategies"]:
        assert sum(Decimal(part) for part in strategy["pnl"].values()) == Decimal(strategy["net_pnl"])
    assert told["trades"] == len(told["round_trips"]) == len(of.trips)
    assert {"result_hash", "refusals", "rows", "wall_s", "data", "settings", "benchmarks"} <= set(told)
    assert set(told["data"]) == set(of.data)


def test_refusals_are_summed_by_rule_most_often_first():
    assert list(as_json(impulse_run())["refusals"].items()) == [("price-age", 20), ("daily-loss", 12), ("gross", 9)]


def test_unknown_is_null_and_a_known_nought_is_nought():
    told = as_json(empty_run())["figures"]

    assert {told[name] for name in ("sharpe", "hit_rate", "profit_factor", "annual_return", "mean_trade")} == {None}
    assert (told["exposure"], told["trades"], told["fills"], told["max_drawdown"]) == (0.0, 0, 0, 0.0)


def test_without_a_log_what_was_traded_is_unknown():
    run = msgspec.structs.replace(impulse_run(), log=())

    assert (figures(run).fills, figures(run).turnover) == (None, None)


def test_equity_is_told_at_each_midnight_and_at_the_end():
    days = as_json(empty_run(bar_count=3 * 1440))["daily_equity"]

    assert [day for day, _ in days] == [f"2024-01-0{day}T00:00:00Z" for day in (1, 2, 3, 4)]
    assert days[0][1] == "10000.00000000"


def test_the_short_form_leaves_out_the_lists():
    assert not {"round_trips", "daily_equity"} & set(as_json(impulse_run(), with_trips=False))


def test_ruin_leaves_figures_unknown_and_the_rest_standing():
    run = impulse_run()
    ruined = msgspec.structs.replace(run, curve=run.curve - run.curve[-1] - 1)

    found = figures(ruined)

    assert (found.max_drawdown, found.sharpe, found.days) == (None, None, 0)
    assert found.trades == figures(run).trades


def test_trades_are_measured_when_they_are_closed():
    run = empty_run()
    trips = (trip("3"), trip("-1"), trip("100", opened=START + DAY, closed=None))
    found = figures(result(run.tape, run.strategies, trips, run.curve_ts, run.curve, []))

    assert (found.trades, found.open_trades, found.profit_factor, found.mean_trade) == (2, 1, 3.0, 1)
    assert found.hit_rate.value == 0.5
    assert found.mean_hold == DAY


@pytest.mark.parametrize(
    ("ts", "text"),
    [(START, "2024-01-01T00:00:00Z"), (START + 1_500_000_000, "2024-01-01T00:00:01.5Z"), (-1, "1969-12-31T23:59:59.999999999Z")],
)  # fmt: skip
def test_an_instant_loses_nothing(ts, text):
    assert utc(ts) == text


def test_a_tree_in_the_types_of_json():
    assert plain({"a": D("1E+3"), "b": (1, float("inf")), "c": {"y", "x"}, 3: None}) == {
        "a": "1000",
        "b": [1, None],
        "c": ["x", "y"],
        "3": None,
    }
