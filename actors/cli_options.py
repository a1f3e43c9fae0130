"""What `hean backtest`, `hean sweep` and `hean evaluate` may be told alike: declared once."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

CATALOG = Path("catalog")

Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        help="funding-harvester, basis-arbitrage, impulse, or path/to/file.py:ClassName. Repeat it to run several together.",
    ),
]
Symbols = Annotated[
    str | None, typer.Option("--symbols", help="Symbols, divided by commas: BTCUSDT,ETHUSDT [default: BTCUSDT].")
]
Start = Annotated[
    str | None,
    typer.Option(
        "--start",
        help="First day or instant of trading, UTC [default: with no --end either, of the longest unbroken record].",
    ),
]
End = Annotated[
    str | None,
    typer.Option(
        "--end", help="Day or instant trading ends before, UTC [default: where the record ends, or breaks off]."
    ),
]
Capital = Annotated[str | None, typer.Option("--capital", help="USDT to begin with [default: 10000].")]
VenueName = Annotated[
    str | None, typer.Option("--venue", help="Whose market: BYBIT, BINANCE or SYNTHETIC [default: BYBIT].")
]
CandleLength = Annotated[
    str | None,
    typer.Option(
        "--interval", help="Length of the candles, such as 5m [default: the finest recorded for the whole period]."
    ),
]
FillTier = Annotated[
    str | None,
    typer.Option(
        "--tier", help="What orders fill against: bars, trades or book [default: bars if the strategy watches them]."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="One setting: strategy.trigger=4, risk.trade_risk=0.02, venue.fee_tier=vip1. Repeat it."
    ),
]
Synthetic = Annotated[bool, typer.Option("--synthetic", help="Allow made-up data; the report is stamped.")]
CatalogPlace = Annotated[Path, typer.Option("--catalog", envvar="HEAN_CATALOG", help="Directory of the market data.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Backtests at a time [default: one to a processor].")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="A Ray cluster to run on, host:port, in place of one of its own on this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def settings_of(
    *,
    symbols: str | None,
    start: str | None,
    end: str | None,
    capital: str | None,
    venue: str | None,
    interval: str | None,
    tier: str | None,
    synthetic: bool,
) -> dict[str, object]:
    """Options by the names of the settings they are; None was not said."""
    return {
        "symbols": symbols,
        "start": start,
        "end": end,
        "capital": capital,
        "venue_name": venue,
        "interval": interval,
        "tier": tier,
        "synthetic": synthetic or None,
    }


def laid_out(
    tree: dict[str, Any],
    options: Mapping[str, object],
    strategies: Sequence[str],
    assignments: Sequence[str],
    *,
    notional: float | None = None,
) -> None:
    """Lay what was said on the command line over a tree of settings, which a file may have begun.

    Raises:
        ConfigError: the tree has another shape, or an assignment leads nowhere.
    """
    from hean.settings import assign, strategies_in

    tree |= {key: value for key, value in options.items() if value is not None}
    if strategies:
        tree["strategies"] = [{"use": use} for use in strategies]
    own = [one.removeprefix("strategy.") for one in assignments if one.startswith("strategy.")]
    assign(tree, [one for one in assignments if not one.startswith("strategy.")])
    for chosen in strategies_in(tree):
        assign(chosen["config"], own)
        if notional is not None:
            chosen["sizing"] = {"kind": "fixed", "notional": notional}


def must_be_writable(report: Path) -> None:
    """Say before a run, not after it, that its report has no place.

    Raises:
        ConfigError: the file cannot be written, or its directory cannot be made.
    """
    from hean.errors import ConfigError

    if report.is_dir():
        raise ConfigError(f"--report {report} is a directory: name a file in it, such as {report / 'report.html'}")
    there = next(path for path in (report, *report.absolute().parents) if path.exists())
    if there != report and not there.is_dir():
        raise ConfigError(f"--report {report}: {there} is not a directory")
    if not os.access(there, os.W_OK):
        raise ConfigError(f"--report {report}: {there} may not be written to; name another place, or say --no-report")
