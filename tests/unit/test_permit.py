"""The permit to trade real money."""

import copy
import pickle
from itertools import product

import pytest

from hean.arming import LEASE_NS, PHRASE, Lease, account_of, bond
from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import ContractError
from hean.permit import LivePermit, live_gate, shut

GOOD = {"venue": VenueMode.LIVE, "dry_run": False, "live_confirm": "YES", "confirm_phrase": PHRASE}
BAD = {"venue": VenueMode.TESTNET, "dry_run": True, "live_confirm": "yes", "confirm_phrase": "I accept"}
REMEDIES = {
    "venue": "HEAN_VENUE=live",
    "dry_run": "DRY_RUN=false",
    "live_confirm": "LIVE_CONFIRM=YES",
    "confirm_phrase": f'CONFIRM_PHRASE="{PHRASE}"',
}


NOW = 1_800_000_000_000_000_000
ACCOUNT = account_of("key")


def settings(**changes):
    return EngineSettings(strategies=({"use": "impulse"},), **changes)


def asked(wanted, **named):
    """Ask the gate under a lease for just what is wanted."""
    return live_gate(wanted, Lease(bond(wanted, ACCOUNT), "ada", NOW, NOW + LEASE_NS), ACCOUNT, NOW, **named)


@pytest.mark.parametrize("wrong", list(product([False, True], repeat=4)))
def test_every_gate_that_is_shut_is_a_reason_with_its_remedy(wrong):
    names = [name for name, bad in zip(GOOD, wrong, strict=True) if bad]
    wanted = settings(**GOOD | {name: BAD[name] for name in names})
    answer = asked(wanted)
    if not names:
        assert isinstance(answer, LivePermit)
        assert shut(wanted) == ()
        return
    assert answer == shut(wanted)
    assert len(answer) == len(names)
    assert all(REMEDIES[name] in reason for name, reason in zip(names, answer, strict=True))


def test_by_default_nothing_is_permitted():
    assert len(shut(settings())) == 4
    assert len(live_gate(settings(), None, ACCOUNT, NOW)) == 5


def test_what_a_person_types_counts_for_the_setting():
    assert shut(settings(**GOOD | {"confirm_phrase": ""}), PHRASE) == ()
    assert len(shut(settings(**GOOD), "no")) == 1
    assert len(shut(settings(**GOOD), "")) == 1


def test_without_a_lease_for_just_this_there_is_no_permit():
    wanted = settings(**GOOD)
    other = wanted.model_copy(update={"symbols": ("ETHUSDT",)})
    for lease, why in (
        (None, "not armed"),
        (Lease(bond(other, ACCOUNT), "ada", NOW, NOW + 1), "other settings"),
        (Lease(bond(wanted, account_of("another")), "ada", NOW, NOW + 1), "other account"),
        (Lease(bond(other, account_of("another")), "ada", NOW, NOW + 1), "other settings and account"),
        (Lease(bond(wanted, ACCOUNT), "ada", NOW - LEASE_NS, NOW), "ada armed ended at"),
    ):
        (reason,) = live_gate(wanted, lease, ACCOUNT, NOW)
        assert why in reason
        assert "`hean arm`" in reason
    assert isinstance(live_gate(wanted, Lease(bond(wanted, ACCOUNT), "ada", 0, NOW + 1), ACCOUNT, NOW), LivePermit)


def test_a_later_gate_is_one_more_reason():
    assert asked(settings(**GOOD), further=(lambda _: "no certificate: run hean evaluate",)) == (
        "no certificate: run hean evaluate",
    )


def test_a_permit_is_made_nowhere_else():
    with pytest.raises(ContractError):
        LivePermit(object())
    permit = asked(settings(**GOOD))
    for away in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ContractError):
            away(permit)
