"""Where the settings of a run come from."""

from decimal import Decimal

import pytest

from hean.engine_settings import EngineSettings, Origin, VenueMode, engine_settings, origins
from hean.errors import ConfigError

TREE = {"strategies": ["impulse"]}


def test_defaults_then_the_file_then_the_environment():
    tree = TREE | {"capital": 5_000, "risk": {"gross_exposure": 1.5, "margin": 0.5}}
    said = engine_settings(tree, {"HEAN_RISK__GROSS_EXPOSURE": "1.2", "PATH": "/bin"})
    assert (said.venue, said.capital, said.risk.gross_exposure, said.risk.margin) == (
        VenueMode.SANDBOX, Decimal(5_000), 1.2, 0.5,
    )  # fmt: skip
    assert tree["risk"]["gross_exposure"] == 1.5


def test_where_each_value_comes_from_is_known():
    found = origins(TREE | {"risk": {"margin": 0.5}}, {"HEAN_VENUE": "paper", "HEAN_ACCOUNT__TIMEOUT_S": "2"})
    assert found["strategies"] is found["risk.margin"] is Origin.FILE
    assert found["venue"] is found["account.timeout_s"] is Origin.ENVIRONMENT
    assert found["risk.gross_exposure"] is found["symbols"] is Origin.DEFAULT


def test_a_table_that_sets_one_thing_leaves_the_rest_of_its_default():
    assert EngineSettings(strategies=({"use": "impulse"},)).risk.reconciler
    assert engine_settings(TREE | {"risk": {"margin": 0.5}}, {}).risk.reconciler
    assert not engine_settings(TREE | {"risk": {"reconciler": False}}, {}).risk.reconciler


@pytest.mark.parametrize("name", ["DRY_RUN", "HEAN_DRY_RUN"])
@pytest.mark.parametrize(
    ("text", "dry"), [("false", False), ("False", False), ("0", False), ("", True), ("true", True)]
)
def test_a_dry_run_ends_only_where_it_is_said_to(name, text, dry):
    assert engine_settings(TREE, {name: text}).dry_run is dry


def test_the_other_gates_have_the_names_of_the_founding_document():
    said = engine_settings(TREE, {"LIVE_CONFIRM": "YES", "CONFIRM_PHRASE": "I accept real losses"})
    assert (said.live_confirm, said.confirm_phrase) == ("YES", "I accept real losses")


def test_one_setting_under_two_names_must_agree():
    assert not engine_settings(TREE, {"DRY_RUN": "false", "HEAN_DRY_RUN": "false"}).dry_run
    with pytest.raises(ConfigError, match="DRY_RUN and HEAN_DRY_RUN are one setting"):
        engine_settings(TREE, {"DRY_RUN": "false", "HEAN_DRY_RUN": "true"})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HEAN_RISK__GROSS_EXPOSUR", "HEAN_RISK__GROSS_EXPOSURE"),
        ("HEAN_RSK__MARGIN", "HEAN_RISK__MARGIN"),
        ("HEAN_HOM", "HEAN_HOME"),
        ("HEAN_VENUE__MODE", "HEAN_VENUE"),
    ],
)
def test_an_unknown_name_is_an_error_that_names_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=rf"{name}: no such setting; did you mean {nearest}\?"):
        engine_settings(TREE, {name: "1"})


def test_places_and_secrets_are_no_settings():
    names = ("HEAN_HOME", "HEAN_CATALOG", "HEAN_DATA_DIR", "HEAN_ADMIN_TOKEN", "HEAN_KEYS")
    assert engine_settings(TREE, dict.fromkeys(names, "x")) == engine_settings(TREE, {})


@pytest.mark.parametrize("text", ["BTCUSDT,ETHUSDT", '["BTCUSDT", "ETHUSDT"]', "BTCUSDT, ETHUSDT,"])
def test_a_list_is_written_as_toml_or_with_commas(text):
    assert engine_settings(TREE, {"HEAN_SYMBOLS": text}).symbols == ("BTCUSDT", "ETHUSDT")


def test_strategies_may_be_named_in_the_environment_alone():
    said = engine_settings({}, {"HEAN_STRATEGIES": "impulse,funding-harvester"})
    assert [one.use for one in said.strategies] == ["impulse", "funding-harvester"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("HEAN_CAPITAL", "-1", "capital"),
        ("HEAN_VENUE", "mainnet", "venue"),
        ("HEAN_RISK__MARGIN", "much", "risk.margin"),
    ],
)
def test_what_does_not_fit_is_named(name, text, told):
    with pytest.raises(ConfigError, match=rf"^{told}: "):
        engine_settings(TREE, {name: text})


def test_text_stays_text_where_text_is_wanted():
    assert engine_settings(TREE, {"CONFIRM_PHRASE": "123"}).confirm_phrase == "123"
