"""A run as one JSON object, and the hash that two runs of the same thing share."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec

from hean.backtest.kernels import DAY, Interval
from hean.backtest.result import Pnl, RunResult, StrategyResult
from hean.backtest.summary import Figures, daily, figures, refusals
from hean.messages import Envelope
from hean.trips import RoundTrip

PARTS = ("price", "basis", "funding", "fees", "slippage", "interest")

_CHUNK = 4096
_PLACES = frozenset({"dir", "directory", "path", "file", "catalog"})
"""The last word of a setting that says where something lies: it may differ between two runs of the same thing."""


def result_hash(log: Iterable[Envelope], settings: Mapping[str, object], data: Mapping[str, object]) -> str:
    """Hash what was said, what it was said under, and what it was said about.

    Two runs of the same code over the same data with the same settings have the same hash. Where
    the data lie and how long the run took are no part of it; nor is the order of a dict.

    Args:
        log: Everything that was said, in order.
        settings: The whole tree. Keys whose last word is a place ("catalog_dir", "file") are left out, and of
            `path/to/file.py:ClassName` the path.
        data: The manifest by series, as the catalog gives it. Of its files only the sums count, those of its
            sources where it names them: a catalog may be cut into files in more than one way.
    """
    encoder = msgspec.msgpack.Encoder(enc_hook=str, order="deterministic")
    digest = hashlib.sha256(b"hean result 1\n")
    digest.update(encoder.encode(without_places(settings)))
    digest.update(encoder.encode({name: _identity(series) for name, series in data.items()}))
    buffer = bytearray()
    said = iter(log)
    while chunk := list(islice(said, _CHUNK)):
        encoder.encode_into(chunk, buffer)
        digest.update(buffer)
    return digest.hexdigest()


def as_json(result: RunResult, *, with_trips: bool = True) -> dict[str, Any]:
    """Everything a run was and came to, as `--json` prints it. Money is text, to the last digit; unknown is null.

    Args:
        result: The run.
        with_trips: List every round trip, and equity at each 00:00 UTC.
    """
    found = figures(result)
    told: dict[str, Any] = {
        "result_hash": result.result_hash,
        "synthetic": result.synthetic,
        "start": utc(result.ts_start),
        "end": utc(result.ts_end),
        "capital": money(result.capital),
        "equity_final": money(result.equity_final),
        "net_pnl": money(result.pnl.net),
        "pnl": parts(result.pnl),
        "trades": len(result.trips),
        "open_trades": found.open_trades,
        "fills": found.fills,
        "refusals": refusals(result),
        "figures": _figures(found),
        "benchmarks": [
            {"name": each.name, "net_pnl": money(each.net_pnl), "explanation": each.explanation}
            for each in result.benchmarks
        ],
        "events": [{"at": utc(event.ts), "what": event.text} for event in result.events],
        "strategies": [_strategy(strategy) for strategy in result.strategies],
        "rows": result.rows,
        "deliveries": result.deliveries,
        "wall_s": round(result.wall_s, 6),
        "data": plain(result.data),
        "settings": plain(result.settings),
    }
    if with_trips:
        told["daily_equity"] = _daily(result)
        told["round_trips"] = [_trip(trip) for trip in result.trips]
    return told


def parts(pnl: Pnl) -> dict[str, str]:
    """The parts of a profit as text; they add up to its net, which is not among them."""
    return {part: money(getattr(pnl, part)) for part in PARTS}


def money(amount: Decimal) -> str:
    """An amount to its last digit that says something, never in powers of ten."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def utc(ts: int) -> str:
    """An instant as people and programs read it, to the second, with what is below it only where there is any."""
    seconds, below = divmod(ts, 1_000_000_000)
    stamp = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{below:09d}".rstrip("0") if below else ""
    return f"{stamp}{fraction}Z"


def plain(value: Any) -> Any:
    """A tree of values in the types JSON has; Decimal becomes text, and what is no number null."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, Decimal):
        return money(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return plain(msgspec.to_builtins(value, enc_hook=str))


def _figures(found: Figures) -> dict[str, Any]:
    return {
        name: None if value is None else _interval(value) if isinstance(value, Interval) else _figure(name, value)
        for name, value in ((name, getattr(found, name)) for name in found.__struct_fields__)
    }


def _figure(name: str, value: Any) -> Any:
    if name in {"drawdown_from", "drawdown_to"}:
        return utc(value)
    if name in {"mean_hold", "median_hold"}:
        return round(value / 1e9, 3)
    return plain(value)


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _strategy(strategy: StrategyResult) -> dict[str, Any]:
    funnel = strategy.funnel
    return {
        "name": strategy.name,
        "instruments": list(strategy.instruments),
        "net_pnl": money(strategy.pnl.net),
        "pnl": parts(strategy.pnl),
        "funnel": {
            "rows": funnel.rows,
            "gates": [{"gate": gate, "passed": passed} for gate, passed in funnel.gates],
            "signals": funnel.signals,
            "refused": dict(funnel.refused),
            "orders": funnel.orders,
            "ended": dict(funnel.ended),
            "fills": funnel.fills,
        },
        "notes": list(strategy.notes),
        "config": plain(strategy.config),
    }


def _trip(trip: RoundTrip) -> dict[str, Any]:
    return {
        "strategy": trip.strategy,
        "instruments": list(trip.instruments),
        "side": trip.side,
        "quantity": money(trip.quantity),
        "opened": utc(trip.ts_open),
        "closed": None if trip.ts_close is None else utc(trip.ts_close),
        "entry_price": money(trip.entry_price),
        "exit_price": None if trip.exit_price is None else money(trip.exit_price),
        "pnl": money(trip.pnl),
        "fees": money(trip.fees),
        "funding": money(trip.funding),
        "closed_by": trip.closed_by,
    }


def _daily(result: RunResult) -> list[list[str]]:
    midnight = result.ts_start // DAY * DAY
    days = daily(result)
    stamps = [min(midnight + day * DAY, result.ts_end) for day in range(days.size)]
    return [[utc(ts), f"{equity:.8f}"] for ts, equity in zip(stamps, days.tolist(), strict=True)]


def _identity(series: Any) -> Any:
    """What makes a series the one it is: its rows and the sums of its sources, not where or in how many files they lie."""
    if not isinstance(series, Mapping):
        return without_places(series)
    sources = [source["sha256"] for source in series.get("sources", ())]
    kept = {key: each for key, each in series.items() if key not in {"partitions", "sources"}}
    return {**without_places(kept), "sources": sorted(sources or series.get("partitions", {}).values())}


def without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): without_places(each) for key, each in value.items() if str(key).rpartition("_")[2] not in _PLACES
        }
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    if isinstance(value, str) and ".py:" in value:
        return value.replace("\\", "/").rpartition("/")[2]
    return value
