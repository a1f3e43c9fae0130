"""What can stand in the catalog: the kinds of series, their columns, and how they are cut into files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from hean.errors import ConfigError, DataError
from hean.units import DAY, HOUR, MINUTE, SECOND

INTERVALS: dict[str, int] = {
    "1m": MINUTE,
    "3m": 3 * MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "8h": 8 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
}
NAMES = {length: name for name, length in INTERVALS.items()}

Shape = Literal["bar", "level", "rate", "quote-bar", "basis", "interest", "trade", "quote", "depth", "ticker"]

_PRICES = {"open": pl.Float64, "high": pl.Float64, "low": pl.Float64, "close": pl.Float64}
_COLUMNS: dict[Shape, dict[str, type[pl.DataType]]] = {
    "bar": {"ts_event": pl.Int64, **_PRICES, "volume": pl.Float64},
    "level": {"ts_event": pl.Int64, **_PRICES},
    "rate": {"ts_event": pl.Int64, "rate": pl.Float64},
    "quote-bar": {
        "ts_event": pl.Int64,
        **{f"bid_{name}": pl.Float64 for name in (*_PRICES, "size")},
        **{f"ask_{name}": pl.Float64 for name in (*_PRICES, "size")},
    },
    "basis": {
        "ts_event": pl.Int64,
        "spot_oc2": pl.Float64,
        "perp_oc2": pl.Float64,
        "mark_open": pl.Float64,
        "index_open": pl.Float64,
    },
    "interest": {"ts_event": pl.Int64, "open_interest": pl.Float64},
    "trade": {
        "ts_event": pl.Int64,
        "price": pl.Float64,
        "size": pl.Float64,
        "side": pl.Int8,
        "trade_id": pl.String,
        "ts_recv": pl.Int64,
    },
    "quote": {
        "ts_event": pl.Int64,
        "bid": pl.Float64,
        "bid_size": pl.Float64,
        "ask": pl.Float64,
        "ask_size": pl.Float64,
        "update_id": pl.Int64,
        "ts_recv": pl.Int64,
    },
    "depth": {
        "ts_event": pl.Int64,
        "snapshot": pl.Boolean,
        "first_id": pl.Int64,
        "last_id": pl.Int64,
        "prev_id": pl.Int64,
        "seq": pl.Int64,
        "side": pl.Int8,
        "price": pl.Float64,
        "size": pl.Float64,
        "ts_recv": pl.Int64,
    },
    "ticker": {
        "ts_event": pl.Int64,
        "last": pl.Float64,
        "mark": pl.Float64,
        "index": pl.Float64,
        "funding_rate": pl.Float64,
        "next_funding_ts": pl.Int64,
        "open_interest": pl.Float64,
        "bid": pl.Float64,
        "bid_size": pl.Float64,
        "ask": pl.Float64,
        "ask_size": pl.Float64,
        "ts_recv": pl.Int64,
    },
}
_PREFIXES: dict[str, Shape] = {
    "bar": "bar",
    "mark": "level",
    "index": "level",
    "premium": "level",
    "quote-bar": "quote-bar",
    "basis": "basis",
}
_PLAIN: dict[str, Shape] = {
    "funding": "rate",
    "open-interest": "interest",
    "trade": "trade",
    "quote": "quote",
    "depth": "depth",
    "ticker": "ticker",
}
_SYMBOL = re.compile(r"[^\s./:-]+")
_TIMED = re.compile(r"(?P<prefix>quote-bar|bar|mark|index|premium|basis)-(?P<interval>\d+[mhd])")


@dataclass(frozen=True)
class Kind:
    """One kind of series.

    A bar is stamped with its OPEN. Its volume is in base units, except on inverse contracts,
    where it is in USD contracts, as the venue counts them. A trade's side is the taker's: +1
    bought, -1 sold. A depth row is one price level, side +1 bid, -1 ask, size 0 deletes it, and
    rows stand in the order in which they arrived. `basis` rows, though stamped with the minute's
    open, are known only at its end. The rate of `funding` is what was paid at its stamp.
    """

    name: str
    shape: Shape
    interval: int | None
    columns: Mapping[str, type[pl.DataType]]

    @property
    def prefix(self) -> str:
        """The name without the interval: `bar`, `mark`, `trade`."""
        return self.name.rsplit("-", 1)[0] if self.interval is not None else self.name

    @property
    def stamped_once(self) -> bool:
        """Whether a stamp can occur only once."""
        return self.shape not in {"trade", "quote", "depth", "ticker"}

    @property
    def keeps_arrival_order(self) -> bool:
        """Whether rows stand as they arrived rather than by their stamps."""
        return self.shape == "depth"

    def partition(self, stamps: pl.Series) -> pl.Series:
        """Name the file each row belongs to: a day of ticks, a month of anything slower."""
        # A level that arrived after midnight with a stamp from before it stays behind its predecessors.
        ordered = stamps.cum_max() if self.keeps_arrival_order else stamps
        pattern = "%Y-%m" if self.stamped_once else "%Y-%m-%d"
        return ordered.cast(pl.Datetime("ns")).dt.strftime(pattern)


def kind(name: str) -> Kind:
    """Return the kind called `name`.

    Raises:
        DataError: There is no such kind.
    """
    if name in _PLAIN:
        shape = _PLAIN[name]
        return Kind(name=name, shape=shape, interval=None, columns=_COLUMNS[shape])
    if not is_kind(name):
        kinds = ", ".join((*_PLAIN, *(f"{prefix}-1m" for prefix in _PREFIXES)))
        raise DataError(
            f"there is no kind of data called {name!r}",
            remedy=f"known are {kinds}; in place of 1m, {', '.join(INTERVALS)}",
        )
    prefix, _, interval = name.rpartition("-")
    shape = _PREFIXES[prefix]
    return Kind(name=name, shape=shape, interval=INTERVALS[interval], columns=_COLUMNS[shape])


def is_kind(name: str) -> bool:
    """Whether there is a kind called `name`."""
    timed = _TIMED.fullmatch(name)
    return name in _PLAIN or (timed is not None and timed["interval"] in INTERVALS)


def symbol_of(text: str) -> str:
    """Return a venue's symbol as venues write it: `BTCUSDT`.

    Raises:
        ConfigError: It is no symbol; perhaps an instrument.
    """
    if not _SYMBOL.fullmatch(text.strip()):
        raise ConfigError(f"{text!r} is no symbol: a symbol is what the venue calls it, such as BTCUSDT")
    return text.strip().upper()


def interval_name(length: int) -> str:
    """Return `5m` for five minutes in nanoseconds.

    Raises:
        DataError: No venue has bars of that length.
    """
    if length not in NAMES:
        raise DataError(f"{length / SECOND:g} s is not an interval of bars", remedy=f"known are {', '.join(INTERVALS)}")
    return NAMES[length]
