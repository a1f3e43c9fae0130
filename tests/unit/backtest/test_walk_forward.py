"""What training chooses, worked by hand; what is read off the tests; and that no test ever reaches into a choice."""

import math
import time
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hean.backtest.sweep import Row, Trial, market_of, run_trial
from hean.backtest.walk_forward import (
    CAUTION,
    PERIOD,
    Choice,
    Looks,
    Tried,
    WalkForwardSettings,
    choose,
    chosen_trials,
    evaluated,
    evaluation_id,
    must_be_purged,
    plateau,
    training_trials,
    windows_of,
)
from hean.backtest.walk_forward_report import as_json, caution, render
from hean.errors import ConfigError
from hean.store.catalog import Catalog, ImportBatch, Incoming
from hean.store.looks import Look, note
from hean.store.synthetic import SyntheticMarket, generate
from hean.units import DAY, parse_time
from hean.windows import Lengths, Window
from tests.graph.turner import __file__ as turner

WINDOW = Window(1, (0, 10 * DAY), (12 * DAY, 15 * DAY))
LENGTHS = {"train_days": 10, "test_days": 3, "purge_days": 1, "embargo_days": 1}


def settings_of(*, min_trades=1, **parameters):
    named = {name.replace("__", "."): values for name, values in parameters.items()}
    base = {"strategies": ["impulse"], "capital": 1000}
    return WalkForwardSettings(base=base, parameters=named, windows=LENGTHS, min_trades=min_trades)


def trained(settings, sharpes, window=WINDOW, trades=5, **more):
    """Trials of one window and their rows: a Sharpe ratio each, None for one that did not trade, text for a refusal."""
    from hean.backtest.sweep import combinations

    trials, rows = [], {}
    period = "1970-01-01/1970-01-11"
    for number, (parameters, said) in enumerate(
        zip(combinations(settings.sweep([window.train])), sharpes, strict=True), 1
    ):
        assert parameters[PERIOD] == period
        trials.append(Trial(f"t{number}", number, parameters, {}, "code", "market"))
        rows[f"t{number}"] = {
            "error": said if isinstance(said, str) else None,
            "trades": trades if isinstance(said, float) else 0,
            "open_trades": 0,
            "sharpe_daily": said if isinstance(said, float) else None,
            "daily_returns": [0.01, 0.02] if isinstance(said, float) else [0.0, 0.0],
        } | more
    return trials, rows


def chosen(settings, sharpes, **more):
    return choose(settings, WINDOW, *trained(settings, sharpes, **more))


# --- the choice ---------------------------------------------------------------------------------


def test_a_good_set_among_good_ones_is_chosen_before_the_best_among_bad_ones():
    settings = settings_of(strategy__trigger=[1, 2, 3, 4, 5, 6, 7])
    # A peak of 0.9 at 2 between -0.5 and -0.5; a plateau of 0.3, 0.4, 0.3 about 6.
    found = chosen(settings, [-0.5, 0.9, -0.5, 0.1, 0.3, 0.4, 0.3])
    # A fifth of three is the least of them: about 6 it is 0.3; at the edge, about 7, it is 0.3 as well, of 0.4 and 0.3.
    assert found.parameters == {"strategy.trigger": 6}
    assert found.score == 0.3
    assert found.daily == pytest.approx(0.015)
    assert (found.trials, found.refused, found.traded) == (7, 0, 7)


def test_of_equal_scores_the_better_measure_is_chosen_and_then_the_first_that_is_listed():
    settings = settings_of(strategy__trigger=[1, 2, 3])
    assert chosen(settings, [0.2, 0.2, 0.2]).parameters == {"strategy.trigger": 1}
    assert chosen(settings, [0.2, 0.5, 0.2]).parameters == {"strategy.trigger": 2}


def test_neighbours_lie_beside_one_another_by_their_size_however_they_are_listed():
    settings = settings_of(strategy__trigger=[3, 1, 2])
    # By size: 1 has 0.5, 2 has 0.4, 3 has -1. About 1 the least is 0.4; about 2 and 3 it is -1.
    assert chosen(settings, [-1.0, 0.5, 0.4]).parameters == {"strategy.trigger": 1}


def test_words_have_no_neighbours():
    settings = settings_of(interval=["1m", "5m", "15m"])
    assert chosen(settings, [0.1, 0.9, -0.5]).parameters == {"interval": "5m"}


def test_neighbours_in_two_parameters_are_all_about():
    settings = settings_of(strategy__trigger=[1, 2, 3], strategy__hold_min=[10, 20, 30])
    # Nine sets, trigger by trigger. About the middle lie all nine, and a fifth of them lies below the second least.
    found = chosen(settings, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # The corner 3, 30 has 0.5, 0.6, 0.8, 0.9 about it: its least, 0.5, is the most that any neighbourhood has.
    assert (found.parameters, found.score) == ({"strategy.trigger": 3, "strategy.hold_min": 30}, 0.5)
    assert plateau((1, 1), {(a, b): 0.1 * (3 * a + b + 1) for a in range(3) for b in range(3)}, (True, True)) == 0.2


def test_what_was_refused_or_did_not_trade_is_neither_chosen_nor_a_neighbour():
    settings = settings_of(strategy__trigger=[1, 2, 3, 4])
    found = chosen(settings, ["no data", 0.1, None, 0.4])
    assert (found.parameters, found.trials, found.refused, found.traded) == ({"strategy.trigger": 4}, 4, 1, 2)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([None, None], "nothing traded in training"),
        (["no data", "no data"], "every set was refused"),
        (["no data", None], "nothing traded in training"),
    ],
)
def test_a_window_in_which_nothing_traded_chooses_nothing_and_says_so(said, why):
    found = chosen(settings_of(strategy__trigger=[1, 2]), said)
    assert (found.parameters, found.score, found.daily, found.why) == (None, None, None, why)


def test_a_set_that_traded_too_little_is_not_chosen():
    settings = settings_of(strategy__trigger=[1, 2], min_trades=6)
    assert chosen(settings, [0.5, 0.6]).why == "nothing traded in training"
    assert chosen(settings, [0.5, 0.6], trades=4, open_trades=2).parameters == {"strategy.trigger": 2}


@given(st.lists(st.floats(-2, 2, allow_nan=False), min_size=6, max_size=6), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order_in_which_trials_end(sharpes, chance):
    settings = settings_of(strategy__trigger=[1, 2, 3], strategy__hold_min=[10, 20])
    trials, rows = trained(settings, sharpes)
    shuffled = list(trials)
    chance.shuffle(shuffled)
    assert choose(settings, WINDOW, shuffled, dict(reversed(rows.items()))) == choose(settings, WINDOW, trials, rows)


# --- what may be evaluated ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["period", "start", "end"])
def test_when_is_not_a_parameter(name):
    with pytest.raises(ValueError, match="the windows say when"):
        settings_of(**{name: ["2025-01-01/2025-02-01"]})


def test_a_purge_is_as_long_as_a_position_may_be_held():
    must_be_purged(settings_of(strategy__hold_min=[60, 1440]))
    with pytest.raises(ConfigError, match=r"may be held for 2 d, and only 1 d are left out .* --purge-days 2"):
        must_be_purged(settings_of(strategy__hold_min=[60, 2880]))
    with pytest.raises(ConfigError, match="--purge-days 3"):
        windows_of(settings_of(strategies=["impulse", "basis-arbitrage"]), 0, 100 * DAY)


# --- what came of it ----------------------------------------------------------------------------


def row(number, returns, net, start, **more):
    usual = {"fees": Decimal(-2), "funding": Decimal(1), "trades": 3, "open_trades": 0, "max_drawdown": 0.001}
    return Row(
        f"o{number}",
        number,
        {},
        net=Decimal(net),
        daily_returns=returns,
        days=len(returns),
        ts_start=start,
        ts_end=start + len(returns) * DAY,
        synthetic=False,
        result_hash=f"hash{number}",
        **usual | more,
    )


def tried(number, result, daily=0.002, why=""):
    start = 12 * DAY + (number - 1) * 3 * DAY
    window = Window(number, (start - 12 * DAY, start - 2 * DAY), (start, start + 3 * DAY))
    parameters = None if why else {"strategy.trigger": number}
    return Tried(window, Choice(number, 4, 0, 0 if why else 3, parameters, 0.1, None if why else daily, why), result)


SETTINGS = settings_of(strategy__trigger=[1, 2, 3, 4])
TWO = (
    tried(1, row(1, [0.01, -0.02, 0.03], 19, 12 * DAY)),
    tried(2, row(2, [0.0, 0.01, -0.01], -1, 15 * DAY, trades=0)),
)


def test_the_headline_worked_by_hand():
    found = evaluated(SETTINGS, "id", TWO)
    returns = [0.01, -0.02, 0.03, 0.0, 0.01, -0.01]
    assert found.returns == tuple(returns)
    assert found.ts == tuple((13 + at) * DAY for at in range(6))
    assert (found.net, found.fees, found.funding, found.trades) == (18, -4, 2, 3)
    assert (found.trials, found.tests, found.days, found.gained, found.idle) == (8, 2, 6, 1, 1)
    assert found.total_return == pytest.approx(math.prod(1 + one for one in returns) - 1)
    assert found.max_drawdown == pytest.approx(0.02)
    mean, deviation = np.mean(returns), np.std(returns, ddof=1)
    ratio = mean / deviation
    assert found.sharpe == pytest.approx(ratio * math.sqrt(365))
    away = (np.array(returns) - mean) / np.std(returns)
    skew, kurtosis = (away**3).mean(), (away**4).mean()
    error = math.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / 5)
    assert found.sharpe_error == pytest.approx(error * math.sqrt(365))
    # 20 bp in six days is a third of a tenth of a percent a day; training made twice a tenth.
    assert found.efficiency == pytest.approx((0.02 / 6) / 0.002)
    assert found.annual_return is None, "six days say nothing of a year"


def test_a_fall_within_a_window_counts_though_no_day_ended_there():
    found = evaluated(SETTINGS, "id", [tried(1, row(1, [0.01, 0.01, 0.01], 30, 12 * DAY, max_drawdown=0.4))])
    assert found.max_drawdown == 0.4


def test_a_window_without_a_choice_or_a_result_counts_for_nothing_at_all():
    none, refused = tried(3, None, why="nothing traded in training"), tried(4, Row("o4", 4, {}, error="no data"))
    found = evaluated(SETTINGS, "id", [refused, *TWO, none])
    assert (found.net, found.days, found.tests, len(found.windows)) == (18, 6, 2, 4)
    assert found.returns == evaluated(SETTINGS, "id", TWO).returns
    assert [one.window.number for one in found.without_choice] == [3]
    assert [one.window.number for one in found.without_result] == [4]
    assert found.trials == 16, "what was tried in vain was tried as well"


def test_where_nothing_was_tested_nothing_is_known():
    found = evaluated(SETTINGS, "id", [tried(1, None, why="nothing traded in training")])
    unknown = (
        "net",
        "fees",
        "funding",
        "trades",
        "total_return",
        "max_drawdown",
        "sharpe",
        "sharpe_error",
        "efficiency",
    )
    assert {name: getattr(found, name) for name in unknown} == dict.fromkeys(unknown)
    assert (found.days, found.tests, found.trials) == (0, 0, 4)


@pytest.mark.parametrize(("returns", "known"), [([0.01, 0.02, 0.03], False), ([0.01, 0.02, 0.03, 0.01], True)])
def test_a_sharpe_ratio_of_too_few_days_has_no_error(returns, known):
    found = evaluated(SETTINGS, "id", [tried(1, row(1, returns, 60, 12 * DAY))])
    assert (found.sharpe_error is not None) == known
    flat = evaluated(SETTINGS, "id", [tried(1, row(1, [0.0] * 9, 0, 12 * DAY))])
    assert (flat.sharpe, flat.sharpe_error, flat.total_return) == (None, None, 0.0)


def test_ruin_is_unknown_and_not_a_return():
    found = evaluated(
        SETTINGS, "id", [TWO[0], tried(2, row(2, [], -1000, 15 * DAY) and replace(TWO[1].result, daily_returns=None))]
    )
    assert (found.total_return, found.sharpe, found.max_drawdown, found.days) == (None, None, None, 0)
    assert found.net is not None


def test_training_that_lost_has_no_efficiency():
    assert evaluated(SETTINGS, "id", [tried(1, TWO[0].result, daily=-0.001)]).efficiency is None


def test_the_result_hash_is_of_choices_and_results_and_of_nothing_that_only_training_knows():
    base = evaluated(SETTINGS, "id", TWO).result_hash
    assert evaluated(SETTINGS, "id", reversed(TWO)).result_hash == base
    other = replace(TWO[0], choice=replace(TWO[0].choice, parameters={"strategy.trigger": 4}))
    assert evaluated(SETTINGS, "id", [other, TWO[1]]).result_hash != base
    other = replace(TWO[0], result=replace(TWO[0].result, result_hash="another"))
    assert evaluated(SETTINGS, "id", [other, TWO[1]]).result_hash != base
    other = replace(TWO[0], result=replace(TWO[0].result, seconds=9.0))
    assert evaluated(SETTINGS, "id", [other, TWO[1]]).result_hash == base


# --- what is said of it -------------------------------------------------------------------------


def test_the_page_shows_what_was_out_of_sample_and_nothing_that_training_made():
    marked = [replace(one, choice=replace(one.choice, score=0.7654321, daily=0.001234567)) for one in TWO]
    found = evaluated(SETTINGS, "id", [*marked, tried(3, None, why="nothing traded in training")])
    page, told = render(found, SETTINGS, Looks(1, 12)), as_json(found, Looks(1, 12))
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for shown in (page, str(told)):
        assert "0.7654" not in shown
        assert "0.765" not in shown
        assert "0.001234567" not in shown
        assert CAUTION.replace("'", "&#x27;") in shown or CAUTION in shown
        assert "nothing traded in training" in shown
        assert "12 trials" in shown
    assert page.count("<polyline") == 1
    assert told["headline"]["net"] == "18"
    assert [one["chosen"] for one in told["windows"]] == [{"strategy.trigger": 1}, {"strategy.trigger": 2}, None]
    assert [one["net"] for one in told["windows"]] == ["19", "-1", None]
    assert [at for at, _ in told["daily"]][:2] == ["1970-01-14T00:00:00Z", "1970-01-15T00:00:00Z"]


def test_what_is_unknown_is_never_drawn_as_nought():
    found = evaluated(SETTINGS, "id", [tried(1, None, why="nothing traded in training")])
    page = render(found, SETTINGS, None)
    assert page.count("unknown") > 5
    assert "Not known" in page
    assert "0.00 %" not in page
    assert "not known" in caution(found, None)


def test_the_curve_is_broken_where_days_are_missing():
    later = replace(
        TWO[1],
        result=replace(TWO[1].result, ts_start=25 * DAY, ts_end=28 * DAY),
        window=Window(2, (0, 1), (25 * DAY, 28 * DAY)),
    )
    assert render(evaluated(SETTINGS, "id", [TWO[0], later]), SETTINGS, None).count("<polyline") == 2


def test_days_that_others_have_looked_at_are_no_longer_unseen(tmp_path):
    first = Look("a", ("impulse",), ("BYBIT BTCUSDT",), ((0, 10), (10, 20)), 5)
    assert note(tmp_path, first) == [first]
    assert note(tmp_path, first) == [first], "who looks again at the same learns nothing new"
    elsewhere = Look("b", ("impulse",), ("BYBIT ETHUSDT",), ((0, 10),), 7)
    later = Look("c", ("impulse",), ("BYBIT BTCUSDT",), ((20, 30),), 7)
    assert note(tmp_path, elsewhere) == [elsewhere]
    assert note(tmp_path, later) == [later]
    both = Look("d", ("carry",), ("BYBIT BTCUSDT", "BYBIT ETHUSDT"), ((5, 25),), 1)
    assert note(tmp_path, both) == [first, elsewhere, later, both]
    found = evaluated(SETTINGS, "id", TWO)
    assert "4 evaluations, of 20 trials in all" in caution(found, Looks(4, 20))


def test_what_was_looked_at_before_and_cannot_be_read_is_not_taken_for_nothing(tmp_path):
    (tmp_path / "looks.jsonl").write_text("rubbish\n")
    from hean.errors import DataError

    with pytest.raises(DataError, match="mend or move it"):
        note(tmp_path, Look("a", (), (), (), 0))


# --- no test reaches into a choice --------------------------------------------------------------


BASE = {
    "strategies": [{"use": f"{turner}:Turner", "sizing": {"kind": "fixed", "notional": 1000}}],
    "venue_name": "SYNTHETIC",
    "synthetic": True,
    "interval": "1h",
}
START = parse_time("2025-01-01")


def catalog_in(path, change=None):
    """Six days of a made-up market; `change` makes other prices of those it is told."""
    made = Catalog(path)
    for batch in generate(SyntheticMarket(symbols=("BTCUSDT",), start=START, days=6, seed=1)):
        series = tuple(
            hours(one, change)
            for one in batch.series
            if one.instrument == "BTCUSDT-LINEAR.SYNTHETIC" and one.kind == "bar-1m"
        )
        if series or batch.rules:
            made.commit(ImportBatch(batch.source, series, batch.rules, batch.synthetic))
    return made


def hours(incoming, change):
    """Candles of an hour: a backtest of each is over at once."""
    rows = incoming.rows.with_columns((pl.col("ts_event") // 3_600_000_000_000 * 3_600_000_000_000).alias("ts_event"))
    joined = rows.group_by("ts_event", maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        pl.col("volume").sum(),
    )
    if change is not None:
        joined = joined.with_columns(
            *(
                pl.when(change)
                .then(pl.col(name) * (2 - pl.col("ts_event") % 7 / 10))
                .otherwise(pl.col(name))
                .alias(name)
                for name in ("open", "close")
            )
        ).with_columns(
            pl.max_horizontal("open", "high", "low", "close").alias("high"),
            pl.min_horizontal("open", "high", "low", "close").alias("low"),
        )
    return Incoming("bar-1h", incoming.instrument, joined.select(incoming.rows.columns))


def walked(catalog):
    settings = WalkForwardSettings(
        base=BASE,
        parameters={"strategy.every": (2, 3, 5, 7)},
        windows=Lengths(train_days=2, test_days=1, step_days=2, purge_days=0, embargo_days=0),
    )
    windows = windows_of(settings, START, START + 6 * DAY)
    trials = training_trials(settings, windows, catalog)
    rows = {one.id: run_trial(one, market_of(one, catalog), clock=time.perf_counter) for one in trials}
    told = {name: {field: getattr(row, field) for field in row.__struct_fields__} for name, row in rows.items()}
    choices = [choose(settings, window, trials, told) for window in windows]
    tests = chosen_trials(settings, windows, choices, catalog)
    results = {one.number: run_trial(one, market_of(one, catalog), clock=time.perf_counter) for one in tests}
    both = [Tried(window, choice, results.get(window.number)) for window, choice in zip(windows, choices, strict=True)]
    return evaluated(settings, evaluation_id(settings, windows, trials), both)


def test_other_prices_in_the_tests_change_their_results_and_never_a_choice(tmp_path):
    calm = walked(catalog_in(tmp_path / "calm"))
    first, second = (one.window for one in calm.windows)
    assert (first.test, second.test) == (
        (first.train[1], first.train[1] + DAY),
        (second.train[1], second.train[1] + DAY),
    )
    # The first test is no part of any training here, nor is the second.
    assert second.train[0] == first.test[0], "but for the first day of the second: so only the last test is changed"
    wild = walked(catalog_in(tmp_path / "wild", pl.col("ts_event") >= second.test[0]))
    assert [one.choice for one in wild.windows] == [one.choice for one in calm.windows]
    assert all(one.choice.parameters is not None for one in calm.windows)
    assert wild.windows[0].result.net == calm.windows[0].result.net
    assert wild.windows[1].result.net != calm.windows[1].result.net
    assert wild.result_hash != calm.result_hash
    # And to see that it would be noticed: other prices in a training do change what is chosen by.
    other = walked(catalog_in(tmp_path / "other", pl.col("ts_event") < first.train[1]))
    assert other.windows[0].choice.score != calm.windows[0].choice.score
    assert other.windows[1].choice == calm.windows[1].choice
