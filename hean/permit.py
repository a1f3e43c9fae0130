"""The permit to trade real money: a list of reasons why not, and an object that exists only when there are none.

The gates of the settings are functions: later ones are added to `GATES`, and nothing else changes. Behind them is the lease
of `hean.arming`. Whoever reaches the main net with orders asks for a `LivePermit` (`actors.gateways.bybit_venue`), and there
is no other way to one than through all of them.
"""

from collections.abc import Callable
from typing import NoReturn

from hean.arming import PHRASE, Lease, is_armed
from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import ContractError

Gate = Callable[[EngineSettings], str | None]
"""Why not, in words and with the remedy; None where nothing stands in the way."""

_TOKEN = object()


class LivePermit:
    """Leave to trade real money. Made by `live_gate` alone, in the process that uses it: it cannot be copied or sent."""

    def __init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise ContractError("a permit comes from hean.permit.live_gate, and from nowhere else")

    def __reduce__(self) -> NoReturn:
        raise ContractError("a permit is not sent or copied: ask hean.permit.live_gate where it is needed")


def is_live(settings: EngineSettings) -> str | None:
    if settings.venue is VenueMode.LIVE:
        return None
    return f"venue is {settings.venue}: say --venue live, or HEAN_VENUE=live"


def is_no_dry_run(settings: EngineSettings) -> str | None:
    return "dry_run is true: set DRY_RUN=false" if settings.dry_run else None


def is_confirmed(settings: EngineSettings) -> str | None:
    if settings.live_confirm == "YES":
        return None
    said = repr(settings.live_confirm) if settings.live_confirm else "not set"
    return f"live_confirm is {said}: set LIVE_CONFIRM=YES"


def is_phrased(settings: EngineSettings) -> str | None:
    if settings.confirm_phrase == PHRASE:
        return None
    said = "is not the phrase" if settings.confirm_phrase else "is not set"
    return f'confirm_phrase {said}: set CONFIRM_PHRASE="{PHRASE}"'


GATES: tuple[Gate, ...] = (is_live, is_no_dry_run, is_confirmed, is_phrased)


def shut(settings: EngineSettings, phrase: str | None = None) -> tuple[str, ...]:
    """The reasons that the settings alone give not to trade real money: all of them, each with its remedy.

    Args:
        settings: Of the run.
        phrase: What a person typed just now; None takes the setting `confirm_phrase`.
    """
    asked = settings if phrase is None else settings.model_copy(update={"confirm_phrase": phrase})
    return tuple(reason for gate in GATES if (reason := gate(asked)) is not None)


def live_gate(
    settings: EngineSettings, lease: Lease | None, account: str, now: int, *, further: tuple[Gate, ...] = ()
) -> LivePermit | tuple[str, ...]:
    """Give leave to trade real money, or all the reasons why not.

    Args:
        settings: Of the run.
        lease: The last that a person was given, and that was not taken back.
        account: Whose orders are to be sent (`hean.arming.account_of`).
        now: The time, UTC nanoseconds.
        further: Gates besides.
    """
    gates = (is_armed(lease, account, now), *further)
    reasons = shut(settings) + tuple(reason for gate in gates if (reason := gate(settings)) is not None)
    return reasons or LivePermit(_TOKEN)
