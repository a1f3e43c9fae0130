"""The permit to trade real money."""

import copy
import pickle
from itertools import product

import pytest

from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import ContractError
from hean.permit import PHRASE, LivePermit, live_gate

GOOD = {"venue": VenueMode.LIVE, "dry_run": False, "live_confirm": "YES", "confirm_phrase": PHRASE}
BAD = {"venue": VenueMode.TESTNET, "dry_run": True, "live_confirm": "yes", "confirm_phrase": "I accept"}
REMEDIES = {
    "venue": "HEAN_VENUE=live",
    "dry_run": "DRY_RUN=false",
    "live_confirm": "LIVE_CONFIRM=YES",
    "confirm_phrase": f'CONFIRM_PHRASE="{PHRASE}"',
}


def settings(**changes):
    return EngineSettings(strategies=({"use": "impulse"},), **changes)


@pytest.mark.parametrize("wrong", list(product([False, True], repeat=4)))
def test_every_gate_that_is_shut_is_a_reason_with_its_remedy(wrong):
    shut = [name for name, bad in zip(GOOD, wrong, strict=True) if bad]
    answer = live_gate(settings(**GOOD | {name: BAD[name] for name in shut}))
    if not shut:
        assert isinstance(answer, LivePermit)
        return
    assert len(answer) == len(shut)
    assert all(REMEDIES[name] in reason for name, reason in zip(shut, answer, strict=True))


def test_by_default_nothing_is_permitted():
    assert len(live_gate(settings())) == 4


def test_what_a_person_types_counts_for_the_setting():
    silent = settings(**GOOD | {"confirm_phrase": ""})
    assert isinstance(live_gate(silent, PHRASE), LivePermit)
    assert live_gate(settings(**GOOD), "no") != ()
    assert not isinstance(live_gate(settings(**GOOD), ""), LivePermit)


def test_a_later_gate_is_one_more_reason():
    assert live_gate(settings(**GOOD), further=(lambda _: "no certificate: run hean evaluate",)) == (
        "no certificate: run hean evaluate",
    )


def test_a_permit_is_made_nowhere_else():
    with pytest.raises(ContractError):
        LivePermit(object())
    permit = live_gate(settings(**GOOD))
    for away in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ContractError):
            away(permit)
