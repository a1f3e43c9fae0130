"""Arming live trading: what is asked, what counts as an answer, and what a lease holds for."""

from decimal import Decimal

import pytest

from hean.arming import CHALLENGE_NS, LEASE_NS, PHRASE, account_of, bond, challenge, is_armed, lease
from hean.engine_settings import EngineSettings
from hean.errors import HeanError

NOW = 1_800_000_000_000_000_000
SETTINGS = EngineSettings(strategies=({"use": "impulse"},), venue="live")
ACCOUNT = account_of("key")
BOND = bond(SETTINGS, ACCOUNT)
ASKED = challenge(BOND, "n1", NOW)


def test_an_answer_in_time_is_a_lease_for_a_day():
    given = lease(ASKED, "n1", PHRASE, BOND, " ada ", NOW + CHALLENGE_NS - 1)
    assert (given.person, given.bond, given.until - given.ts) == ("ada", BOND, LEASE_NS)
    assert is_armed(given, ACCOUNT, given.until - 1)(SETTINGS) is None
    assert "ended" in is_armed(given, ACCOUNT, given.until)(SETTINGS)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"asked": None}, "nothing was asked"),
        ({"nonce": "n2"}, "not the one"),
        ({"nonce": ""}, "not the one"),
        ({"now": NOW + CHALLENGE_NS}, "60 s"),
        ({"to": bond(SETTINGS.model_copy(update={"capital": Decimal(5)}), ACCOUNT)}, "settings changed"),
        ({"to": bond(SETTINGS, account_of("other"))}, "account changed"),
        ({"phrase": PHRASE.lower()}, "the phrase is not"),
        ({"person": " "}, "gives a name"),
    ],
)
def test_anything_else_is_refused_and_says_how_to_go_on(answer, why):
    given = {"asked": ASKED, "nonce": "n1", "phrase": PHRASE, "to": BOND, "person": "ada", "now": NOW} | answer
    with pytest.raises(HeanError, match=why):
        lease(**given)


def test_the_bond_holds_for_every_setting_and_survives_being_written_down():
    again = EngineSettings.model_validate_json(SETTINGS.model_dump_json())
    assert bond(again, ACCOUNT) == BOND
    for change in ({"dry_run": False}, {"risk": SETTINGS.risk.model_copy(update={"gross_exposure": 1.0})}):
        assert bond(SETTINGS.model_copy(update=change), ACCOUNT) != BOND


def test_an_account_is_told_by_its_key_and_does_not_show_it():
    assert account_of("key") != account_of("yek")
    assert "key" not in account_of("key")
