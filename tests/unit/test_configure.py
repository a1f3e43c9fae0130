"""Setting a strategy otherwise while the engine runs."""

from decimal import Decimal

import pytest

from hean.configure import configured
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError

BTC, ETH = "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"
SETTINGS = EngineSettings.model_validate(
    {
        "strategies": [
            {"use": "impulse", "share": "0.4", "sizing": {"kind": "fixed", "notional": 100.0}},
            {"use": "funding-harvester"},
        ],
        "symbols": ["BTCUSDT", "ETHUSDT"],
    }
)


ALONE = EngineSettings.model_validate({"strategies": [{"use": "impulse", "config": {"name": "alone"}}]})


def entry(settings, place=0):
    return settings.strategies[place]


def test_a_parameter_changes_for_all_that_share_its_settings_and_for_nobody_else():
    done = configured(SETTINGS, "impulse-BTC", {"trigger": 2.5}, {})
    assert done.strategies == ("impulse-BTC", "impulse-ETH")
    ((name, _, new),) = [(one.name, one.old, one.new) for one in done.changes]
    assert (name, new) == ("trigger", "2.5")
    assert entry(done.settings).config == {"trigger": 2.5}
    assert entry(done.settings, 1) == entry(SETTINGS, 1)
    assert done.settings.model_copy(update={"strategies": SETTINGS.strategies}) == SETTINGS
    assert done.widens == ()


def test_none_puts_the_default_back():
    once = configured(SETTINGS, "impulse-BTC", {"trigger": 2.5}, {})
    back = configured(once.settings, "impulse-BTC", {"trigger": None}, {})
    assert back.settings == SETTINGS
    assert [(one.new, one.old) for one in back.changes] == [(one.old, one.new) for one in once.changes]


def test_what_risk_allows_a_strategy_is_set_as_well_and_growing_is_named():
    less = configured(SETTINGS, "impulse-BTC", {"share": "0.4", "sizing.notional": 50}, {})
    assert entry(less.settings).sizing.notional == 50
    assert [one.name for one in less.changes] == ["sizing"]
    assert less.widens == ()
    more = configured(SETTINGS, "impulse-BTC", {"sizing.notional": 200}, {})
    assert more.widens == tuple(
        f"the sizing of impulse-{one} would change, and not only to less" for one in ("BTC", "ETH")
    )
    kind = configured(SETTINGS, "impulse-BTC", {"sizing": {"kind": "share", "share": 0.01}}, {})
    assert len(kind.widens) == 2


def test_a_share_that_is_left_free_makes_others_grow():
    done = configured(SETTINGS, "impulse-BTC", {"share": "0.2"}, {})
    assert entry(done.settings).share == Decimal("0.2")
    assert any("the share of carry-BTC would grow from 0.3" in one for one in done.widens)


@pytest.mark.parametrize(
    ("strategy", "changes", "held", "why"),
    [
        ("impulse-BCT", {"trigger": 1}, {}, "did you mean impulse-BTC"),
        ("impulse-BTC", {}, {}, "name what is to change"),
        ("impulse-BTC", {"triger": 1}, {}, "triger: no such setting; did you mean trigger"),
        ("impulse-BTC", {"trigger": "much"}, {}, "trigger"),
        ("impulse-BTC", {"share": 2}, {}, "share"),
        ("impulse-BTC", {"trigger": float("inf")}, {}, "not finite"),
        ("impulse-BTC", {"sizing.notional": "inf"}, {}, "finite"),
        ("impulse-BTC", {"share": "0.4"}, {}, "nothing would change"),
        ("impulse-BTC", {"name": "other"}, {}, "two strategies are called other"),
        ("alone", {"name": "other"}, {}, "keeps its name"),
        ("alone", {"instrument": ETH}, {"alone": {BTC}}, f"alone holds {BTC}"),
    ],
)
def test_what_does_not_hold_is_refused_in_words(strategy, changes, held, why):
    with pytest.raises(ConfigError, match=why):
        configured(ALONE if strategy == "alone" else SETTINGS, strategy, changes, held)


def test_who_holds_nothing_may_trade_something_else():
    assert configured(ALONE, "alone", {"instrument": ETH}, {"alone": set()}).changes[0].new == f'"{ETH}"'
