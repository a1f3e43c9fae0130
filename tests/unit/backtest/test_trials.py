"""A sweep's directory: what is kept is kept, and nothing else is taken for it."""

from decimal import Decimal

import polars as pl
import pytest

from hean.backtest.sweep import Row
from hean.errors import ConfigError, DataError
from hean.store.trials import Sweep, SweepDirectory, parameter_types

SWEEP = Sweep("abc", {"base": {}, "seed": 1}, 4)
TYPES = parameter_types(
    {"strategy.every": [10, 20], "risk.x": [1, 0.5], "symbols": ["BTCUSDT", ["A", "B"]], "on": [True]}
)


def row(number, net="1", error=None, **more):
    parameters = {"strategy.every": 10, "risk.x": 1, "symbols": ["A", "B"], "on": True}
    known = {} if error else {"net": Decimal(net), "result_hash": f"hash{number}", "daily_returns": [0.1, -0.1]}
    return Row(f"trial{number}", number, parameters, error, **known | more)


@pytest.fixture
def directory(tmp_path):
    return SweepDirectory(tmp_path / "run")


def test_what_is_kept_comes_back_in_the_order_of_the_sweep(directory):
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(3), row(1)], TYPES)
        directory.keep([row(2, error="refused")], TYPES)
    rows = SweepDirectory(directory.root).rows()
    assert rows["number"].to_list() == [1, 2, 3]
    assert rows["error"].to_list() == [None, "refused", None]
    assert rows["net"].to_list() == [Decimal(1), None, Decimal(1)]
    assert rows["daily_returns"].to_list() == [[0.1, -0.1], None, [0.1, -0.1]]
    assert rows["sharpe"].to_list() == [None] * 3


def test_parameters_are_columns_of_their_own_kind(directory):
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(1)], TYPES)
    rows = directory.rows()
    assert rows.select(pl.col("^param.*$")).to_dicts() == [
        {"param.strategy.every": 10, "param.risk.x": 1.0, "param.symbols": '["A","B"]', "param.on": True}
    ]


def test_money_is_kept_to_the_last_digit(directory):
    net = "-123456789012.123456789012345678"
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(1, net)], TYPES)
        assert pl.read_parquet(directory.finish())["net"].to_list() == [Decimal(net)]


def test_a_refused_trial_is_to_be_tried_again_and_its_result_takes_its_place(directory):
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(1, error="whoever ran it died"), row(2)], TYPES)
        assert directory.done() == {"trial2"}
        directory.keep([row(1, "5")], TYPES)
        directory.keep([row(1, error="whoever ran it died")], TYPES)
    assert directory.done() == {"trial1", "trial2"}
    assert directory.rows()["net"].to_list() == [Decimal(5), Decimal(1)]


def test_a_sweep_goes_on_only_where_it_was_and_only_when_told_to(directory):
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(1)], TYPES)
    with pytest.raises(ConfigError, match="say --resume"), directory.writing(SWEEP, resume=False):
        pass
    with directory.writing(SWEEP, resume=True):
        assert directory.done() == {"trial1"}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Sweep("def", {"base": {}, "seed": 2}, 4), "other settings"),
        (Sweep("def", SWEEP.settings, 4), "other data, or other code"),
    ],
)
def test_another_sweep_is_not_mixed_in(directory, other, what):
    with directory.writing(SWEEP, resume=False):
        pass
    with pytest.raises(ConfigError, match=what), directory.writing(other, resume=True):
        pass


def test_somebodys_files_are_not_written_among(directory):
    directory.root.mkdir()
    (directory.root / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="name an empty or a new directory"), directory.writing(SWEEP, resume=True):
        pass


def test_two_do_not_write_at_once(directory):
    with (
        directory.writing(SWEEP, resume=False),
        pytest.raises(ConfigError, match="another sweep is writing here"),
        SweepDirectory(directory.root).writing(SWEEP, resume=True),
    ):
        pass


def test_a_part_that_a_crash_left_half_written_is_nothing(directory):
    with directory.writing(SWEEP, resume=False):
        directory.keep([row(1)], TYPES)
        (directory.root / "parts" / "0123.new").write_bytes(b"PAR1 and no more")
    with directory.writing(SWEEP, resume=True):
        assert directory.done() == {"trial1"}
        assert not list((directory.root / "parts").glob("*.new"))


def test_a_crash_before_the_first_word_leaves_a_directory_that_may_be_taken(directory):
    (directory.root / "parts").mkdir(parents=True)
    (directory.root / "sweep.new").write_text('{"id"')
    with directory.writing(SWEEP, resume=False):
        assert directory.sweep() == SWEEP


def test_a_damaged_table_of_contents_is_named(directory):
    directory.root.mkdir()
    (directory.root / "sweep.json").write_text('{"id"')
    with pytest.raises(DataError, match=r"sweep\.json: it cannot be read"), directory.writing(SWEEP, resume=True):
        pass


def test_nothing_kept_is_nothing_and_not_an_empty_result(directory):
    with directory.writing(SWEEP, resume=False):
        assert directory.rows() is None
        assert directory.done() == set()
        with pytest.raises(DataError, match="nothing is kept"):
            directory.finish()
