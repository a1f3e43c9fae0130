"""Who is begun anew when somebody dies, and when nobody is any more: the rules alone, without anybody who could die."""

import enum
from collections.abc import Iterable, Mapping

from hean.risk.killswitch import KillSwitchConfig
from hean.units import SECOND

STUBBORN = 2
"""Deaths beyond those that trip the kill switch, after which nothing is begun any more without a person."""

ALONE = frozenset({"strategy", "monitor", "factory"})
"""Roles that the core does without for a while."""

LASTING = frozenset({"portfolio", "reconciler", "broker", "risk", "monitor", "venue", "strategy", "feed"})
"""Roles that may have one life after another in the same process."""


class Fate(enum.StrEnum):
    """What follows from a death.

    FORGOTTEN: nothing; its factory hears nothing more of it, and its patience ends. ALONE: it is begun anew, the others go
    on. LEFT: it is not begun any more, the others go on. CORE: trading halts, and all are begun anew by the one path.
    """

    FORGOTTEN = "forgotten"
    ALONE = "alone"
    LEFT = "left"
    CORE = "core"


class Supervision:
    """The rules, by the settings of the kill switch.

    Args:
        config: How many may die, in what time.
    """

    def __init__(self, config: KillSwitchConfig) -> None:
        self._window_s = config.death_window_s
        self._most = config.max_deaths + STUBBORN

    def since(self, now: int) -> int:
        """Deaths from then on count."""
        return now - round(self._window_s * SECOND)

    def fate(self, role: str, before: int) -> Fate:
        """What becomes of one that died.

        Args:
            role: Its role in the topology; empty where it has none.
            before: How many had died of late already.
        """
        if role == "process":
            return Fate.FORGOTTEN
        if role not in ALONE:
            return Fate.CORE
        if role == "strategy":
            return Fate.LEFT if before + 1 > self._most else Fate.ALONE
        return Fate.CORE if before > self._most else Fate.ALONE

    def too_many(self, deaths: int) -> str | None:
        """In words, where more died of late than the kill switch and our patience bear: then nothing is begun any more."""
        return f"{deaths} deaths in {self._window_s:g} s" if deaths > self._most else None


def lasting(roles: Mapping[str, str], gone: Iterable[str] = (), *, on_the_way: bool = False) -> frozenset[str]:
    """Who goes on in the process it has.

    Args:
        roles: By name.
        gone: Who has died.
        on_the_way: Whether it happened on the way up: then nobody is trusted.
    """
    dead = frozenset(gone)
    return frozenset() if on_the_way else frozenset(n for n, role in roles.items() if role in LASTING and n not in dead)
