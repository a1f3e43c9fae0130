"""What the engine asks and answers about the arming of live trading; the gate itself stands in the venue's own process."""

import secrets
import threading
from pathlib import Path

from actors.keys import keys_for
from actors.words import Arming
from hean import arming
from hean.arming import Challenge, account_of
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError
from hean.permit import LivePermit, live_gate, shut
from hean.store.engine_book import EngineBook
from hean.units import HOUR, SECOND, minute


class LiveGuard:
    """Keeps the one question that is open, and the leases, in the engine's book.

    Args:
        home: The directory of the venue mode: the account's key is there.
        book: Where leases are kept.
    """

    def __init__(self, home: Path, book: EngineBook) -> None:
        self._home = home
        self._book = book
        self._asked: Challenge | None = None
        self._lock = threading.Lock()

    def reasons(self, settings: EngineSettings, now: int) -> tuple[str, ...]:
        """Why real money is not traded, all of it; none where it may be."""
        gate = self._gate(settings, now)
        return () if isinstance(gate, LivePermit) else gate

    def until(self, settings: EngineSettings, now: int) -> int | None:
        """When the lease ends that holds now; None where none does, or there is nothing to arm."""
        lease = self._book.lease() if settings.venue.is_real else None
        return lease.until if lease is not None and not self.reasons(settings, now) else None

    def ask(self, settings: EngineSettings, now: int) -> Arming:
        """Say what stands against arming; where nothing does, put the question."""
        try:
            account = self._account(settings)
        except ConfigError as trouble:
            return Arming(
                granted=False, said="live trading cannot be armed yet", reasons=(*shut(settings), str(trouble))
            )
        bond = arming.bond(settings, account)
        if reasons := shut(settings):
            return Arming(granted=False, said="live trading cannot be armed yet", reasons=reasons)
        with self._lock:
            asked = self._asked = arming.challenge(bond, secrets.token_hex(16), now)
        return Arming(
            granted=False,
            said=f'type "{arming.PHRASE}" within {arming.CHALLENGE_NS // SECOND} s to trade real money',
            nonce=asked.nonce,
            nonce_s=arming.CHALLENGE_NS / SECOND,
            phrase=arming.PHRASE,
            allowed=allowed(settings),
            account=bond.account,
            settings=bond.settings,
        )

    def answer(self, settings: EngineSettings, nonce: str, phrase: str, person: str, now: int) -> Arming:
        """Take the answer. Right or wrong, the nonce is used up.

        Raises:
            HeanError: It is wrong or late, or a gate was shut meanwhile.
        """
        with self._lock:
            asked, self._asked = self._asked, None
        if reasons := shut(settings):
            raise ConfigError("; ".join(reasons))
        bond = arming.bond(settings, self._account(settings))
        lease = arming.lease(asked, nonce, phrase, bond, person, now)
        self._book.grant(lease)
        return Arming(
            granted=True,
            said=f"live trading is armed until {minute(lease.until)} UTC: real orders are sent",
            until=lease.until,
            allowed=allowed(settings),
            account=bond.account,
            settings=bond.settings,
        )

    def revoke(self, why: str) -> None:
        """Take back what was granted, and forget what was asked."""
        with self._lock:
            self._asked = None
        self._book.revoke(why)

    def _gate(self, settings: EngineSettings, now: int) -> LivePermit | tuple[str, ...]:
        try:
            account = self._account(settings)
        except ConfigError as trouble:
            return (*shut(settings), str(trouble))
        return live_gate(settings, self._book.lease(), account, now)

    def _account(self, settings: EngineSettings) -> str:
        return account_of(keys_for(settings.venue, self._home, {}).key)


def allowed(settings: EngineSettings) -> dict[str, str]:
    """What an arming allows, in words a person reads before giving leave."""
    risk = settings.risk
    return {
        "for": f"{arming.LEASE_NS // HOUR} h",
        "strategies": ", ".join(one.use for one in settings.strategies),
        "symbols": ", ".join(settings.symbols),
        "gross exposure": f"{risk.gross_exposure:g} times the equity",
        "leverage": f"{risk.leverage:g}",
        "daily loss": f"{risk.daily_loss:.2%} of the equity",
        "orders a minute": str(risk.orders_per_minute),
    }
