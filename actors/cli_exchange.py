# ruff: noqa: FBT002, D412  # flags of a command line are bools with defaults
"""`hean exchange`: a Bybit V5 of one's own, on loopback."""

import ipaddress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from actors.console import saying_errors

if TYPE_CHECKING:
    from actors.exchange.auth import ApiKey
    from actors.exchange.opening import Opened, Plan
    from actors.exchange.server import ExchangeServer, ServerOptions

PORT = 8080


def exchange(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Where it listens; 0 takes a free one.")
    ] = PORT,
    host: Annotated[
        str, typer.Option("--host", help="A loopback address: it is for this machine alone.")
    ] = "127.0.0.1",
    key: Annotated[str, typer.Option("--key", help="API key of the first account [default: loopback-key-1].")] = "",
    secret: Annotated[str, typer.Option("--secret", help="Its secret [default: loopback-secret-1].")] = "",
    accounts: Annotated[
        int,
        typer.Option("--accounts", min=1, max=1000, help="How many accounts there are, each with a key of its own."),
    ] = 1,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="TOML file of more keys: read-only, RSA, bound to addresses.", show_default=False),
    ] = None,
    symbols: Annotated[
        str | None,
        typer.Option(
            "--symbols", help="Symbols, divided by commas, each as perpetual and spot [default: BTCUSDT,ETHUSDT]."
        ),
    ] = None,
    market: Annotated[
        str | None,
        typer.Option("--market", help="synthetic, made up from a seed, or tape, recorded [default: synthetic]."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="Of the synthetic market: the same seed, the same market [default: 1]."),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option("--days", min=2, max=90, help="Days of history there are from the first second [default: 30]."),
    ] = None,
    catalog: Annotated[
        Path, typer.Option("--catalog", envvar="HEAN_CATALOG", help="Of a tape: directory of the market data.")
    ] = Path("catalog"),
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Of a tape: the instant it starts at, UTC [default: a day before the record ends]."
        ),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            "--tier", help="Of a tape: what is played: depth, trades or candles [default: the finest there is]."
        ),
    ] = None,
    speed: Annotated[
        float | None, typer.Option("--speed", min=1, help="Of a tape: times as fast as it was recorded [default: 1].")
    ] = None,
    funding_minutes: Annotated[
        int | None,
        typer.Option(
            "--funding-minutes", min=1, help="Minutes between fundings, such as 1 [default: the symbol's own]."
        ),
    ] = None,
    latency_ms: Annotated[
        float, typer.Option("--latency-ms", min=0, max=10_000, help="Added to every answer and push, like a network's.")
    ] = 0.0,
    ack_ms: Annotated[
        float,
        typer.Option(
            "--ack-ms", min=0, max=10_000, help="How long it takes to acknowledge on a socket; pybit needs 2."
        ),
    ] = 20.0,
    state: Annotated[
        Path | None,
        typer.Option("--state", help="File that accounts, orders and executions are kept in [default: none is kept]."),
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="Enable the levers under /admin: faults on purpose. Prints a token.")
    ] = False,
    admin_token: Annotated[
        str, typer.Option("--admin-token", envvar="HEAN_ADMIN_TOKEN", help="The same, with a token of one's own.")
    ] = "",
    step_ms: Annotated[
        int | None,
        typer.Option(
            "--step-ms", min=20, max=1000, help="How often a synthetic market moves [default: 100].", show_default=False
        ),
    ] = None,
) -> None:
    """Run a Bybit on this machine: the V5 protocol, a market that moves, play money.

    Each account begins with 100,000 USDT, 1 BTC and 10 ETH. Stop it with Ctrl-C.

    Examples:

      hean exchange

      hean exchange --funding-minutes 1 --accounts 3 --state exchange.db

      hean exchange --market tape --catalog catalog --from 2025-06-01 --speed 10
    """
    with saying_errors(as_json=False):
        from hean.errors import ConfigError

        _must_be_loopback(host)
        if bool(key) is not bool(secret):
            raise ConfigError("--key and --secret belong together: give both, or neither")
        if market != "tape" and (start is not None or tier is not None or speed is not None) and state is None:
            raise ConfigError("--from, --tier and --speed are of a tape: add --market tape")
        if market == "tape" and (seed is not None or step_ms is not None):
            raise ConfigError("--seed and --step-ms are of a synthetic market: leave them out with --market tape")
        import asyncio
        import secrets
        import time

        from actors.exchange.opening import Plan, opened
        from actors.exchange.server import ServerOptions

        plan = Plan(
            symbols=_symbols(symbols),
            market=cast("Literal['synthetic', 'tape'] | None", _one_of("--market", market, ("synthetic", "tape"))),
            seed=seed,
            days=days,
            step_ms=step_ms,
            funding_minutes=funding_minutes,
            catalog=catalog,
            start=_instant(start),
            tier=cast(
                "Literal['depth', 'trades', 'candles'] | None", _one_of("--tier", tier, ("depth", "trades", "candles"))
            ),
            speed=speed,
            accounts=accounts,
            key=key,
            secret=secret,
            key_file=keys,
            state=state,
        )
        token = admin_token or (secrets.token_urlsafe(16) if admin else "")
        ready = opened(plan, time.time_ns())
        options = ServerOptions(host=host, port=port, keys=ready.keys, token=token)
        asyncio.run(_until_told(plan, ready, options, latency_s=latency_ms / 1000, ack_s=ack_ms / 1000))


async def _until_told(
    plan: "Plan", ready: "Opened", options: "ServerOptions", *, latency_s: float, ack_s: float
) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is taken.
    """
    import asyncio
    import errno
    import signal

    from actors.exchange.opening import serve
    from actors.exchange.server import allow_files
    from hean.errors import ConfigError

    allow_files()
    ended = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    try:
        begun = partial(_greet, plan, ready)
        await serve(ready, options, begun=begun, ended=ended, latency_s=latency_s, ack_s=ack_s)
    except OSError as failure:
        if failure.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        why = "is in use" if failure.errno == errno.EADDRINUSE else "may not be listened at"
        raise ConfigError(f"port {options.port} of {options.host} {why}: take another with --port") from None


def _greet(plan: "Plan", ready: "Opened", server: "ExchangeServer") -> None:
    """Say what there is and how to reach it."""
    from actors.exchange.opening import FUNDS

    at = (
        f"[{server.options.host}]:{server.port}"
        if ":" in server.options.host
        else f"{server.options.host}:{server.port}"
    )
    bybit = ready.bybit
    names = [f"{market.listing.symbol} {market.listing.category}" for market in bybit.exchange.markets.values()]
    funds = ", ".join(f"{amount:,} {coin}" for coin, amount in FUNDS.items())
    first = ready.keys[0]
    lines = [
        f"Bybit V5 on this machine: {bybit.source.name}",
        "",
        f"  REST      http://{at}",
        f"  public    ws://{at}/v5/public/linear, ws://{at}/v5/public/spot",
        f"  private   ws://{at}/v5/private",
        f"  trade     ws://{at}/v5/trade",
        f"  markets   {', '.join(names)}",
    ]
    if plan.state is not None:
        lines.append(f"  state     {plan.state}, {'taken up where it ended' if ready.is_resumed else 'begun anew'}")
    if server.options.token:
        lines.append(f"  levers    http://{at}/admin, with the header Authorization: Bearer {server.options.token}")
    lines += ["", f"  accounts  each begins with {funds}"]
    lines += [f"  {key.uid}  {_shown(key, given=key.secret == plan.secret)}" for key in ready.keys]
    lines += [
        "",
        "  With pybit:",
        f'    session = HTTP(api_key="{first.key}", api_secret="{_GIVEN if plan.secret else first.secret}")',
        f'    session.endpoint = "http://{at}"',
        "",
        "Stop it with Ctrl-C.",
    ]
    # Scripts wait for this on standard output.
    typer.echo("\n".join(lines))


_GIVEN = "<as given>"


def _shown(key: "ApiKey", *, given: bool) -> str:
    """A key as its owner needs it. Our own secrets protect nothing but play money; one that was given may be somebody's real one."""
    secret = _GIVEN if given or not key.secret.startswith("loopback-") else key.secret
    words = f"key {key.key}  " + (f"secret {secret}" if key.secret else "RSA")
    return words + (", read only" if key.read_only else "") + (f", from {' '.join(key.ips)}" if key.ips else "")


def _must_be_loopback(host: str) -> None:
    from hean.errors import ConfigError

    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(f"--host {host}: the exchange is for this machine alone, take 127.0.0.1, ::1 or localhost")


def _symbols(text: str | None) -> tuple[str, ...] | None:
    from hean.errors import ConfigError

    if text is None:
        return None
    symbols = tuple(dict.fromkeys(name.strip().upper() for name in text.split(",") if name.strip()))
    if not symbols:
        raise ConfigError("--symbols names none: write BTCUSDT,ETHUSDT")
    return symbols


def _instant(text: str | None) -> int | None:
    from hean.errors import ConfigError
    from hean.units import parse_time

    try:
        return parse_time(text) if text is not None else None
    except ValueError as error:
        raise ConfigError(f"--from: {error}") from None


def _one_of(option: str, said: str | None, known: tuple[str, ...]) -> str | None:
    from hean.errors import ConfigError

    if said is not None and said not in known:
        raise ConfigError(f"{option} {said!r} is none of {', '.join(known)}")
    return said
