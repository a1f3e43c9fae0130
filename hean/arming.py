"""Arming: the last gate of real money, that a person opens while the engine runs, for a day at most.

A person asks, is told what would be allowed, and types a phrase within a minute: then there is a lease. Both are bound to
the settings and to the account they were asked under: whoever changes either begins again.
"""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct

from hean.engine_settings import EngineSettings
from hean.errors import HeanError
from hean.units import HOUR, SECOND, minute

PHRASE = "I accept real losses"
"""What a person types. Not a secret: it is there to be read."""

CHALLENGE_NS = 60 * SECOND
LEASE_NS = 24 * HOUR

_SHOWN = 16


class Bond(NamedTuple):
    """What an arming holds for, as fingerprints: these settings, limits included, and this account."""

    settings: str
    account: str


class Challenge(Struct, frozen=True):
    """A question put to a person: good for one answer, until `until`."""

    nonce: str
    bond: Bond
    until: int


class Lease(Struct, frozen=True):
    """Leave to open positions with real money, given to `person` at `ts`, until `until`."""

    bond: Bond
    person: str
    ts: int
    until: int


def bond(settings: EngineSettings, account: str) -> Bond:
    """What an arming holds for under these settings, for this account (`account_of`)."""
    tree = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return Bond(_digest(tree), account)


def account_of(key: str) -> str:
    """An account by its API key. The key can't be had back from it."""
    return _digest(f"account {key}")


def challenge(to: Bond, nonce: str, now: int) -> Challenge:
    """Put the question. `nonce` is drawn by whoever has a source of chance."""
    return Challenge(nonce, to, now + CHALLENGE_NS)


def lease(asked: Challenge | None, nonce: str, phrase: str, to: Bond, person: str, now: int) -> Lease:
    """Take a person's answer. The challenge is used up by it, right or wrong: whoever calls this forgets it.

    Raises:
        HeanError: It is no answer to what was asked, or comes too late; the text says how to begin again.
    """
    if not person.strip():
        raise HeanError("who arms live trading gives a name")
    if asked is None:
        raise HeanError(f"nothing was asked that this would answer: {_AGAIN}")
    if nonce != asked.nonce:
        raise HeanError(f"the nonce is not the one that was given: {_AGAIN}")
    if now >= asked.until:
        raise HeanError(f"the nonce was good for {CHALLENGE_NS // SECOND} s, and they are over: {_AGAIN}")
    if to != asked.bond:
        raise HeanError(f"{_unlike(asked.bond, to)} changed since it was asked: {_AGAIN}")
    if phrase != PHRASE:
        raise HeanError(f'the phrase is not "{PHRASE}": {_AGAIN}')
    return Lease(to, person.strip(), now, now + LEASE_NS)


def is_armed(given: Lease | None, account: str, now: int) -> Callable[[EngineSettings], str | None]:
    """The gate: why not, in words; None where the lease holds.

    Args:
        given: The last lease that was not taken back, if there is one.
        account: Whose orders are to be sent (`account_of`).
        now: The time, UTC nanoseconds.
    """

    def gate(settings: EngineSettings) -> str | None:
        if given is None:
            return "live trading is not armed: `hean arm` asks what is needed"
        asked = bond(settings, account)
        if given.bond != asked:
            return f"live trading was armed for other {_unlike(given.bond, asked)}: `hean arm` arms it for these"
        if now >= given.until:
            return f"what {given.person} armed ended at {minute(given.until)} UTC: `hean arm` arms it for another day"
        return None

    return gate


_AGAIN = "ask anew with `hean arm`"


def _unlike(one: Bond, other: Bond) -> str:
    names = [name for name in Bond._fields if getattr(one, name) != getattr(other, name)]
    return " and ".join(names)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_SHOWN]
