"""What follows when somebody dies."""

import pytest

from hean.engine_settings import EngineSettings
from hean.live_system import live_strategies, topology
from hean.risk.killswitch import KillSwitchConfig
from hean.supervision import ALONE, LASTING, STUBBORN, Fate, Supervision, lasting
from hean.units import SECOND

MOST = 3 + STUBBORN
RULES = Supervision(KillSwitchConfig(max_deaths=3, death_window_s=600))
GRAPH = topology(settings := EngineSettings(strategies=({"use": "impulse"},)), live_strategies(settings))
ROLES = {node.name: node.role for node in GRAPH.nodes} | {"feed": "feed"}


@pytest.mark.parametrize(
    ("role", "few", "many", "more"),
    [
        # with how many deaths before it:  0           MOST        MOST + 1
        ("process",    Fate.FORGOTTEN, Fate.FORGOTTEN, Fate.FORGOTTEN),
        ("strategy",   Fate.ALONE,     Fate.LEFT,      Fate.LEFT),
        ("monitor",    Fate.ALONE,     Fate.ALONE,     Fate.CORE),
        ("factory",    Fate.ALONE,     Fate.ALONE,     Fate.CORE),
        ("risk",       Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("broker",     Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("portfolio",  Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("reconciler", Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("venue",      Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("feed",       Fate.CORE,      Fate.CORE,      Fate.CORE),
        ("",           Fate.CORE,      Fate.CORE,      Fate.CORE),
    ],
)  # fmt: skip
def test_the_fate_of_each_role(role, few, many, more):
    assert [RULES.fate(role, before) for before in (0, MOST, MOST + 1)] == [few, many, more]


def test_a_strategy_is_begun_anew_as_often_as_patience_lasts():
    assert [RULES.fate("strategy", before) for before in range(MOST + 1)] == [Fate.ALONE] * MOST + [Fate.LEFT]


def test_nothing_is_begun_any_more_after_more_deaths_than_patience_bears():
    assert RULES.too_many(MOST) is None
    assert RULES.too_many(MOST + 1) == "6 deaths in 600 s"


def test_what_is_long_past_does_not_count():
    assert RULES.since(1_000 * SECOND) == 400 * SECOND


def test_every_role_of_a_run_is_known_to_the_rules():
    assert set(ROLES.values()) <= LASTING | ALONE | {"process"}


def test_who_lives_keeps_its_process_unless_it_happened_on_the_way_up():
    assert lasting(ROLES, {"risk"}) == ROLES.keys() - {"risk", "smoke", "factory"}
    assert lasting(ROLES, {"risk"}, on_the_way=True) == frozenset()
