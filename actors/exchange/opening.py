"""An exchange made ready and served: its market, its accounts with their keys, and what a state file remembers of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from actors.exchange.auth import ApiKey
from actors.exchange.faults import ACK_DELAY_S
from actors.exchange.keeper import Keeper
from actors.exchange.key_file import read_keys
from actors.exchange.server import ExchangeServer, ServerOptions
from hean.errors import ConfigError
from hean.exchange.bybit import Bybit
from hean.exchange.listing import Listing, listings
from hean.exchange.sources.source import Source

FUNDS = {"USDT": Decimal(100_000), "BTC": Decimal(1), "ETH": Decimal(10)}
"""What every account begins with."""

FIRST_UID = 10_000_001


class Plan(Struct, frozen=True, kw_only=True):
    """What exchange is wanted. None takes what the state file says, or else the default.

    `key` and `secret` are the first account's; the others have names made from their number, and `key_file` has more. `start` is where the tape
    begins, an instant in nanoseconds; `days` how much of a past a made-up market has, and `step_ms` how often it moves.
    """

    symbols: tuple[str, ...] | None = None
    market: Literal["synthetic", "tape"] | None = None
    seed: int | None = None
    days: int | None = None
    step_ms: int | None = None
    funding_minutes: int | None = None
    catalog: Path = Path("catalog")
    start: int | None = None
    tier: Literal["depth", "trades", "candles"] | None = None
    speed: float | None = None
    accounts: int = 1
    key: str = ""
    secret: str = ""
    key_file: Path | None = None
    state: Path | None = None


class Opened(Struct, frozen=True):
    """An exchange, the keys of its accounts, who keeps it, and whether it was taken up from its file."""

    bybit: Bybit
    keys: tuple[ApiKey, ...]
    keeper: Keeper | None
    is_resumed: bool


def opened(plan: Plan, now: int) -> Opened:
    """Make an exchange ready.

    Raises:
        ConfigError: an option is wrong, or says otherwise than the state file.
        DataError: the state file or the tape is of no use.
    """
    keeper = Keeper(plan.state) if plan.state is not None else None
    try:
        return _opened(plan, now, keeper)
    except BaseException:
        if keeper is not None:
            keeper.close()
        raise


async def serve(
    exchange: Opened,
    options: ServerOptions,
    *,
    begun: Callable[[ExchangeServer], None],
    ended: asyncio.Event,
    latency_s: float = 0.0,
    ack_s: float = ACK_DELAY_S,
) -> None:
    """Serve an exchange until it is told to end, or fails; its file is closed then.

    Args:
        exchange: What to serve.
        options: Where, and to whom.
        begun: Called once connections are taken.
        ended: Set by whoever wants it to end.
        latency_s: How far away it pretends to be.
        ack_s: How long it takes to acknowledge on a socket.

    Raises:
        OSError: the port is taken.
        HeanError: what has happened cannot be saved any more.
    """
    server = ExchangeServer(exchange.bybit, options, exchange.keeper)
    server.faults.ack_delay_s = ack_s
    server.faults.move_away(latency_s)
    try:
        await server.start()
        begun(server)
        asked, failed = asyncio.create_task(ended.wait()), asyncio.create_task(server.ended())
        await asyncio.wait((asked, failed), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if failed.done():
            failed.result()
        failed.cancel()
    finally:
        try:
            await server.stop()
        finally:
            if exchange.keeper is not None:
                exchange.keeper.close()


def _opened(plan: Plan, now: int, keeper: Keeper | None) -> Opened:
    saved = keeper.load() if keeper is not None else None
    terms = _terms(plan, keeper.market if saved is not None and keeper is not None else None, now)
    listed = listings(terms["symbols"], at=now, funding_minutes=terms["funding_minutes"])
    source = _generated(listed, terms, now) if terms["market"] == "synthetic" else _tape(plan, listed, terms, now)
    if saved is not None:
        saved.remember(source.history())
    bybit = Bybit.open(listed, source, ts_start=now, seed=terms["seed"])
    if saved is not None:
        saved.put_back(bybit.exchange, now)
    elif keeper is not None:
        keeper.begin(terms)
    uids = [str(FIRST_UID + number) for number in range(plan.accounts)]
    for uid in uids:
        if uid not in bybit.exchange.accounts:
            bybit.exchange.open_account(uid, FUNDS, now)
    more = read_keys(plan.key_file, uids) if plan.key_file is not None else ()
    return Opened(bybit, _keys(plan, uids) + more, keeper, saved is not None)


def _keys(plan: Plan, uids: Sequence[str]) -> tuple[ApiKey, ...]:
    keys = [ApiKey(key=f"loopback-key-{at}", secret=f"loopback-secret-{at}", uid=uid) for at, uid in enumerate(uids, 1)]
    first = keys[0]
    keys[0] = ApiKey(key=plan.key or first.key, secret=plan.secret or first.secret, uid=first.uid)
    return tuple(keys)


_DEFAULTS: dict[str, Any] = {
    "market": "synthetic",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "seed": 1,
    "days": 30,
    "step_ms": 100,
    "funding_minutes": None,
    "speed": 1.0,
    "tier": None,
    "start": None,
}


def _terms(plan: Plan, begun: dict[str, Any] | None, now: int) -> dict[str, Any]:
    """What the market is to be, once and for all: what is not asked for is the file's, or the default.

    `begun` is when the market first began; `start` what the tape showed then.
    """
    asked: dict[str, Any] = {name: getattr(plan, name) for name in _DEFAULTS}
    asked["symbols"] = list(plan.symbols) if plan.symbols is not None else None
    if begun is None:
        return _DEFAULTS | {name: value for name, value in asked.items() if value is not None} | {"begun": now}
    for name, value in asked.items():
        if value is not None and value != begun[name]:
            raise ConfigError(
                f"{plan.state} was begun with {name} {_said(begun[name])}, not {_said(value)}: "
                "leave the option out, or name another state file"
            )
    return begun


def _said(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else "unset" if value is None else str(value)


def _generated(listed: Mapping[str, Listing], terms: Mapping[str, Any], now: int) -> Source:
    from hean.exchange.sources.generated import Generated, Recipe

    return Generated(listed, Recipe(terms["seed"], terms["begun"], terms["days"], terms["step_ms"]), now)


def _tape(plan: Plan, listed: Mapping[str, Listing], terms: dict[str, Any], now: int) -> Source:
    """The tape, as far on as the clock has run since it was first put in."""
    from hean.exchange.sources.replayed import Replay, Replayed
    from hean.store.catalog import Catalog

    start = terms["start"]
    if start is not None:
        start += round((now - terms["begun"]) * terms["speed"])
    replay = Replay(speed=terms["speed"], grain=terms["tier"], ts_tape=start, days=terms["days"])
    tape = Replayed(Catalog(plan.catalog), listed, replay, now)
    if start is None:
        terms["start"] = tape.ts_tape
    return tape
