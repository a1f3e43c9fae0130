"""Settings from files and the command line: what fits, and what is said of what does not."""

from datetime import date
from pathlib import Path

import pytest
from pydantic import BaseModel

from hean.errors import ConfigError
from hean.settings import BacktestSettings, assign, read_toml, strategies_in, validated


def settings(**tree):
    tree = {"strategies": ["impulse"]} | tree
    strategies_in(tree)
    return validated(BacktestSettings, tree)


def refused(**tree):
    with pytest.raises(ConfigError) as refusal:
        settings(**tree)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("strategies", "uses"),
    [
        (["impulse"], ["impulse"]),
        ([{"use": "impulse"}, "basis-arbitrage"], ["impulse", "basis-arbitrage"]),
        ([{"use": "impulse", "config": {"trigger": 4}}], ["impulse"]),
    ],
)
def test_strategies_are_listed_by_name_or_as_tables(strategies, uses):
    assert [one.use for one in settings(strategies=strategies).strategies] == uses


@pytest.mark.parametrize(
    ("strategies", "says"),
    [
        ("impulse", "strategies: 'impulse' should be a list"),
        ({"use": "impulse"}, "a table [[strategies]] for each"),
        ([3], "strategies.0: 3 should be a name or a table"),
        ([{"use": "impulse", "config": 3}], "strategies.0.config: 3 should be a table of settings"),
        ([], "no strategy is named: say --strategy impulse, or list some in the settings file"),
        ([{"usee": "impulse"}], "strategies.0.usee: no such setting; did you mean use?"),
        (
            [{"use": "impulse", "sizing": {"kind": "fixed", "notinal": 3}}],
            "strategies.0.sizing.notinal: no such setting; did you mean notional?",
        ),
        ([{"use": "impulse", "share": 2}], "strategies.0.share: 2 should be less than or equal to 1"),
    ],
)
def test_strategies_of_another_shape_are_refused_in_one_sentence(strategies, says):
    told = refused(strategies=strategies)
    assert says in told
    assert "; no strategy" not in told
    assert told.count("strategies.0") <= 1


def test_no_strategies_at_all():
    with pytest.raises(ConfigError, match=r"^no strategy is named: say --strategy impulse"):
        validated(BacktestSettings, {})


@pytest.mark.parametrize("said", ["btcusdt,BTCUSDT, ethusdt", ["btcusdt", "ETHUSDT", "BTCUSDT"]])
def test_symbols_are_the_venues_each_once(said):
    assert settings(symbols=said).symbols == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize(
    "said", ["BTC/USDT", "BTC-USDT", "btc_usdt", "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT", "BTC/USDT:USDT"]
)
def test_a_symbol_written_otherwise_is_refused_with_what_was_meant(said):
    assert refused(symbols=said) == f"symbols: {said.upper()!r} is no symbol of the venue; write BTCUSDT"


@pytest.mark.parametrize(("said", "says"), [(",", "name at least one"), (3, "should be a list of symbols")])
def test_symbols_that_are_none(said, says):
    assert says in refused(symbols=said)


def test_a_venue_is_known_by_capital_letters():
    assert settings(venue_name="bybit").venue_name == "BYBIT"
    assert "write BYBIT" in refused(venue_name="by bit")


@pytest.mark.parametrize("start", ["2025-06-01", date(2025, 6, 1)])
def test_a_date_may_be_toml_s_own(start):
    assert settings(start=start).start == "2025-06-01"


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"capital": "1e400"}, "capital: '1e400' should be less than or equal to"),
        ({"capital": "nan"}, "capital: 'nan' should be a finite number"),
        ({"start": "0001-01-01T00:00+05:00"}, "start: '0001-01-01T00:00+05:00' lies outside 1970"),
        ({"end": "soon"}, "end: 'soon' is no"),
        ({"start": "2025-02-02", "end": "2025-02-01"}, "2025-02-02, and that is not before its end at 2025-02-01"),
        ({"start": "2025-02-02", "end": "2025-02-02"}, "not before its end"),
        ({"tier": "boook"}, "tier: 'boook' should be 'bars', 'trades' or 'book'"),
        ({"risk": {"kill_switch": {"yelow": 3}}}, "risk.kill_switch.yelow: no such setting; did you mean yellow?"),
        ({"risk": {"colour": 3}}, "risk.colour: no such setting; known: "),
        ({"venue": {"leverage": 3}}, "venue.leverage is not for a backtest; set risk.leverage"),
    ],
)
def test_a_fault_names_its_field_and_what_stood_there(tree, says):
    assert says in refused(**tree)


class Inner(BaseModel, extra="forbid"):
    width: int = 1


class Outer(BaseModel, extra="forbid"):
    needed: int
    many: list[Inner] = []
    maybe: Inner | None = None


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"needd": 1}, "needd: no such setting; did you mean needed?"),
        ({}, "needed: is not set, and has no default"),
        ({"needed": 1, "many": [{}, {"widht": 1}]}, "many.1.widht: no such setting; did you mean width?"),
        ({"needed": 1, "maybe": {"widht": 1}}, "maybe.widht: no such setting; did you mean width?"),
    ],
)
def test_the_nearest_name_is_found_inside_lists_and_alternatives(tree, says):
    with pytest.raises(ConfigError) as refusal:
        validated(Outer, tree)
    assert str(refusal.value) == says


def test_where_it_stands_is_said_before_the_field():
    with pytest.raises(ConfigError, match=r"^strategy impulse\.many\.0\.widht: "):
        validated(Outer, {"needed": 1, "many": [{"widht": 2}]}, where="strategy impulse")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"\xff\xfe", "is not text in UTF-8"), (b"a = ", "is not TOML"), (None, "cannot be read")],
    ids=["bytes", "half a line", "nothing"],
)
def test_a_file_that_is_no_settings_file(tmp_path, content, says):
    file = tmp_path / "settings.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        read_toml(Path(file))


@pytest.mark.parametrize(
    ("assignment", "tree"),
    [
        ("risk.margin=0.5", {"risk": {"margin": 0.5}}),
        ("venue.fee_tier=vip1", {"venue": {"fee_tier": "vip1"}}),
        ('symbols=["A","B"]', {"symbols": ["A", "B"]}),
    ],
)
def test_an_assignment_is_read_as_toml_or_as_text(assignment, tree):
    assert assign({}, [assignment]) == tree


@pytest.mark.parametrize(("assignment", "says"), [("capital", "key=value"), ("capital.x=1", "has no settings below")])
def test_an_assignment_that_assigns_nothing(assignment, says):
    with pytest.raises(ConfigError, match=says):
        assign({"capital": 3}, [assignment])
