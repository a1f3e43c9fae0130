"""Where everything is in one venue mode: the venue's addresses, its rules, the fence, the past, and the way out."""

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from actors.feed import FeedPlan
from actors.gateways.bybit_endpoint import DEMO, MAINNET, TESTNET, Endpoint, loopback
from actors.gateways.bybit_feed import FeedConfig
from actors.gateways.bybit_rest import Backoff, BybitRest, UnansweredError
from actors.gateways.bybit_venue import VenueConfig
from actors.gateways.fence import write_epoch
from actors.process_steps import ProcessPlan
from actors.venue import VenuePlan
from hean.engine_settings import EngineSettings, VenueMode
from hean.errors import ConfigError, VenueError
from hean.instruments import Category, Instrument, split_id
from hean.settings import validated

KEYS = "keys.toml"
LATCH = "latched.json"

_ENDPOINTS = {
    VenueMode.PAPER: MAINNET,
    VenueMode.TESTNET: TESTNET,
    VenueMode.DEMO: DEMO,
    VenueMode.LIVE: MAINNET,
}


class Latched(Struct, frozen=True):
    """The kill switch was pulled where risk could not hear it: who, why and when."""

    person: str
    reason: str
    ts: int


class WarmUpPlan(Struct, frozen=True):
    """Where a strategy's past is asked for, and kept; None keeps nothing."""

    endpoint: Endpoint
    kept: Path | None
    bar_minutes: int


class Places:
    """One venue mode.

    Args:
        settings: The whole tree.
        home: The directory of the mode.

    Raises:
        ConfigError: A setting of a gateway is wrong, or the sandbox has no address.
    """

    def __init__(self, settings: EngineSettings, home: Path) -> None:
        self.home = home
        self.endpoint = endpoint(settings)
        feed = validated(FeedConfig, settings.feed, where="feed")
        account = validated(VenueConfig, settings.account, where="account")
        self.feed = FeedPlan(self.endpoint, feed)
        self.dry_run = settings.venue.is_real and settings.dry_run
        self.venue = VenuePlan(self.endpoint, account, home / KEYS, self.dry_run)
        # The sandbox has another past each time it is begun anew.
        kept = None if settings.venue is VenueMode.SANDBOX else home / "past"
        self.processes = ProcessPlan(
            home, home.parent / "catalog", self.endpoint, None if settings.venue.is_ours else home / KEYS
        )
        self.warm_up = WarmUpPlan(self.endpoint, kept, feed.bar_minutes)

    def rules(self, names: Iterable[str]) -> dict[str, Instrument]:
        """The rules of what is traded, as the venue has them now.

        Raises:
            VenueError: It does not say.
            ConfigError: It lists no such instrument.
        """
        by_category: dict[Category, set[str]] = {}
        for name in names:
            symbol, category, _ = split_id(name)
            by_category.setdefault(category, set()).add(symbol)
        rest = BybitRest(self.endpoint, None, instruments={}, backoff=Backoff())
        found: dict[str, Instrument] = {}
        try:
            for category, symbols in sorted(by_category.items()):
                found |= rest.rules(category, frozenset(symbols))
        except UnansweredError as silence:
            raise VenueError(f"{self.endpoint.rest} does not say its rules: {silence}") from silence
        finally:
            rest.close()
        missing = [name for name in names if name not in found]
        if missing:
            raise ConfigError(f"{self.endpoint.rest} does not list {', '.join(missing)}: take other symbols")
        return {name: found[name] for name in names}

    def epoch(self) -> int:
        """The epoch that was begun last, here or without us; 0 where there was none."""
        try:
            return int((self.home / "epoch").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def fence(self, life: int) -> None:
        """Let nobody of an earlier life send anything any more."""
        write_epoch(self.home, life)

    def latch(self, person: str, reason: str) -> None:
        """Write down that the kill switch was pulled, for when risk can hear it."""
        _write(self.home / LATCH, msgspec.json.encode(Latched(person, reason, time.time_ns())))

    def latched(self) -> Latched | None:
        """Who pulled the kill switch while risk could not hear it.

        Raises:
            ConfigError: The file cannot be read: then it is taken for pulled, and nothing begins.
        """
        path = self.home / LATCH
        try:
            return msgspec.json.decode(path.read_bytes(), type=Latched)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as damage:
            raise ConfigError(f"{path} cannot be read, so the kill switch counts as pulled: delete it") from damage

    def unlatch(self) -> None:
        """Risk has heard it, and remembers."""
        (self.home / LATCH).unlink(missing_ok=True)


def endpoint(settings: EngineSettings) -> Endpoint:
    """The venue's addresses.

    Raises:
        ConfigError: The sandbox has none yet; or one is given for a mode that has its own.
    """
    if settings.venue is VenueMode.SANDBOX:
        if not settings.endpoint:
            raise ConfigError("endpoint: the sandbox's address is not known: `hean up` starts one and fills it in")
        return loopback(settings.endpoint)
    if settings.endpoint:
        if settings.venue is not VenueMode.PAPER:
            raise ConfigError(f"endpoint: {settings.venue} has addresses of its own; leave it out")
        return loopback(settings.endpoint)
    return _ENDPOINTS[settings.venue]


def write_settings(path: Path, settings: EngineSettings) -> None:
    """Write down what the engine is begun with, whole or not at all: it is begun anew from it."""
    _write(path, settings.model_dump_json(indent=1).encode())


def read_settings(path: Path) -> EngineSettings:
    """What the engine was begun with.

    Raises:
        ConfigError: That cannot be read.
    """
    try:
        tree: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as damage:
        raise ConfigError(f"{path} cannot be read ({damage}): `hean down`, then `hean up` writes it anew") from damage
    return validated(EngineSettings, tree)  # type: ignore[no-any-return]


def _write(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all, on the disk when this returns. Several may do so at once."""
    handle, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
