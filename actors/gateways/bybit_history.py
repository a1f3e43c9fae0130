"""Bybit's past into the catalog: candles, marks, indices, premia, funding and instrument rules.

Only reads, so that a lost answer may be asked for again. What is already there is not fetched; each
month is committed as soon as it is complete, so an interrupted download goes on where it stopped.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import polars as pl
import requests
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from hean.errors import ConfigError, DataError
from hean.instruments import Category, split_id
from hean.store.catalog import Catalog, Committed, ImportBatch, Source
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found, Hints
from hean.store.importers.reference import must_be_plausible
from hean.store.importers.times import from_epoch
from hean.store.kinds import Kind, kind, symbol_of
from hean.store.rules import DatedRules, read_from_bybit
from hean.units import HOUR, SECOND, utc

NAME = "Bybit V5 download"
_MS = 1_000_000
_CANDLES_A_PAGE = 1_000
_SETTLEMENTS_A_PAGE = 200
_RULES_A_PAGE = 1_000
# Bybit v5, *Rate Limit*: an address may ask 600 times in 5 s. A sixth of that leaves room for trading.
_ASKED_PER_SECOND = 20.0
_ATTEMPTS = 6
_LONGEST_PAUSE_S = 30.0
_TOO_OFTEN = {10006, 10016, 10018}  # too many visits; server error; too many from this address
_PATHS = {
    "bar": "get_kline",
    "mark": "get_mark_price_kline",
    "index": "get_index_price_kline",
    "premium": "get_premium_index_price_kline",
}
_INTERVALS = {
    "1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30",
    "1h": "60", "2h": "120", "4h": "240", "6h": "360", "12h": "720", "1d": "D",
}  # fmt: skip


def public_session(endpoint: str | None = None) -> HTTP:
    """Open a session that reports every return code and retries nothing by itself.

    `endpoint` replaces the address of the venue, for a Bybit on loopback.

    Raises:
        ConfigError: `endpoint` is no address of the web.
    """
    if endpoint is not None and not _is_address(endpoint):
        raise ConfigError(f"endpoint {endpoint!r} is no address: write http://127.0.0.1:8080 or https://api.bybit.com")
    # pybit takes an empty set for its defaults; a code that no answer has switches its retrying off.
    session = HTTP(testnet=False, retry_codes={-1}, max_retries=1, timeout=20, logging_level=logging.CRITICAL)
    if endpoint is not None:
        session.endpoint = endpoint.rstrip("/")
    return session


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


@dataclass
class Throttle:
    """A bucket of tokens, one for each question: it fills at `rate` a second and holds `burst`."""

    clock: Callable[[], float]
    sleep: Callable[[float], None]
    rate: float = _ASKED_PER_SECOND
    burst: float = 10.0
    _tokens: float = field(default=0.0, init=False)
    _filled: float | None = field(default=None, init=False)

    def take(self) -> None:
        """Wait until one more question may be asked."""
        now = self.clock()
        waited = now - self._filled if self._filled is not None else self.burst / self.rate
        self._tokens = min(self.burst, self._tokens + waited * self.rate)
        self._filled = now
        if self._tokens < 1:
            pause = (1 - self._tokens) / self.rate
            self.sleep(pause)
            self._tokens += pause * self.rate
            self._filled += pause
        self._tokens -= 1


class BybitHistory:
    """What can be asked of Bybit about the past, page by page."""

    def __init__(self, session: HTTP, throttle: Throttle) -> None:
        self._session = session
        self._throttle = throttle

    def server_time(self) -> int:
        """Return the venue's clock, in nanoseconds."""
        return int(self._ask("get_server_time")["result"]["timeNano"])

    def rules(self, category: Category, symbol: str | None = None) -> list[DatedRules]:
        """Return the rules of all instruments of a category, or of one, with the time of the answer."""
        read: list[DatedRules] = []
        cursor = ""
        while True:
            asked = {"symbol": symbol, "limit": _RULES_A_PAGE if category is not Category.SPOT else None}
            answer = self._ask("get_instruments_info", category=category.lower(), cursor=cursor or None, **asked)
            result = answer["result"]
            for entry in result["list"]:
                if not str(entry.get("contractType", "Perpetual")).endswith("Perpetual"):
                    continue  # dated futures and options have no place here
                try:
                    read.append(read_from_bybit(entry, category, ts_from=answer["time"] * _MS, source=NAME))
                except msgspec.ValidationError as damage:
                    raise DataError(
                        f"Bybit describes {entry.get('symbol')} in a way HEAN does not know: {damage}",
                        remedy="a later HEAN may",
                    ) from damage
            following = result.get("nextPageCursor") or ""
            if not following or following == cursor:
                return read
            cursor = following

    def candles(self, kind_name: str, instrument: str, *, start: int, end: int) -> pl.DataFrame:
        """Return all closed candles with `start <= open < end`.

        Asked forwards in windows of one page each: then no page can be cut short, and a hole in
        the venue's own history is a hole here.
        """
        shape = kind(kind_name)
        step = _step(shape)
        symbol, category, _ = split_id(instrument)
        has_volume = shape.shape == "bar"
        asked = {"category": category.lower(), "symbol": symbol, "interval": _INTERVALS[shape.name.rsplit("-", 1)[1]]}
        pages = []
        begin = -(-start // step) * step
        while begin < end:
            last = min(begin + (_CANDLES_A_PAGE - 1) * step, end - 1)
            window = {"start": begin // _MS, "end": last // _MS, "limit": _CANDLES_A_PAGE}
            answer = self._ask(_PATHS[shape.prefix], **asked, **window)
            rows = _candle_rows(_found(kind_name, instrument), answer["result"]["list"], has_volume=has_volume)
            given = answer["time"] * _MS
            # The running candle is in the list like any other.
            closed = rows.filter(pl.col("ts_event").is_between(begin, last) & (pl.col("ts_event") + step <= given))
            pages.append(closed)
            begin += _CANDLES_A_PAGE * step
            if begin > given:
                break
        return pl.concat(pages) if pages else _candle_rows(_found(kind_name, instrument), [], has_volume=has_volume)

    def funding(self, instrument: str, *, start: int, end: int) -> pl.DataFrame:
        """Return the settlements with `start <= ts_event < end`.

        Asked backwards, since the interval of a symbol may have changed meanwhile. Bybit wants an
        end with every start.
        """
        symbol, category, _ = split_id(instrument)
        pages = []
        last = (end - 1) // _MS
        while last * _MS >= start:
            window = {"startTime": start // _MS, "endTime": last, "limit": _SETTLEMENTS_A_PAGE}
            answer = self._ask("get_funding_rate_history", category=category.lower(), symbol=symbol, **window)
            entries = answer["result"]["list"]
            if not entries:
                break
            rows = _funding_rows(_found("funding", instrument), entries)
            pages.append(rows)
            last = int(rows["ts_event"][0]) // _MS - 1
            if len(entries) < _SETTLEMENTS_A_PAGE:
                break
        rows = pl.concat(reversed(pages)) if pages else _funding_rows(_found("funding", instrument), [])
        return rows.filter(pl.col("ts_event").is_between(start, end, closed="left"))

    def _ask(self, method: str, **asked: Any) -> dict[str, Any]:
        """Ask once, and again while the venue is busy or silent; a refusal is final.

        Raises:
            DataError: Bybit refused, or did not answer in six attempts.
        """
        asked = {name: value for name, value in asked.items() if value is not None}
        trouble = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._throttle.sleep(min(_LONGEST_PAUSE_S, 0.5 * 2**attempt))
            self._throttle.take()
            try:
                answer: dict[str, Any] = getattr(self._session, method)(**asked)
            except InvalidRequestError as refusal:
                if refusal.status_code not in _TOO_OFTEN:
                    raise DataError(
                        f"Bybit refuses {_said(method, asked)}: {refusal.message} (code {refusal.status_code})",
                        remedy="check symbol, category and interval",
                    ) from refusal
                trouble = f"{refusal.message} (code {refusal.status_code})"
            except FailedRequestError as failure:
                # Neither missing pages nor a ban of the country get better by asking again.
                if failure.status_code in {404, 451}:
                    raise DataError(
                        f"{self._session.endpoint} answers {failure.status_code} to {_said(method, asked)}",
                        remedy="check --endpoint, and whether Bybit serves your country",
                    ) from failure
                trouble = f"HTTP status {failure.status_code}"
            except (requests.RequestException, ValueError) as silence:
                trouble = type(silence).__name__
            else:
                return answer
        raise DataError(
            f"Bybit did not answer {_said(method, asked)} in {_ATTEMPTS} attempts, last: {trouble}",
            remedy="try again later; what was complete is kept",
        )


def download(
    history: BybitHistory,
    catalog: Catalog,
    kind_name: str,
    instrument: str,
    *,
    start: int,
    end: int,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Committed:
    """Record an instrument's rules, and fetch what the catalog lacks of a series; commit after each month.

    Raises:
        DataError: Bybit has no such series, refused or stayed silent, or what it sent is not fit for the catalog.
    """
    must_be_downloadable(kind_name, instrument)
    symbol, category, _ = split_id(instrument)
    added = 0
    rules = history.rules(category, symbol)
    if not rules:
        raise DataError(f"Bybit knows no {category.lower()} instrument {symbol}", remedy="check the symbol")
    asked = f"instruments-info {instrument}"
    recorded = catalog.commit(ImportBatch(source=_source(asked, repr(rules)), rules=tuple(rules)))
    if kind_name == "rules":
        return recorded
    shape = kind(kind_name)
    months = list(_months(start, end))
    for done, (month_start, month_end) in enumerate(months, start=1):
        missing = _missing(
            catalog, shape, instrument, month_start, month_end, every_h=rules[0].instrument.funding_interval_h
        )
        if missing is not None:
            first, last = missing
            if shape.shape == "rate":
                rows = history.funding(instrument, start=first, end=last)
            else:
                rows = history.candles(kind_name, instrument, start=first, end=last)
            if not rows.is_empty():
                committed = _commit(catalog, kind_name, instrument, rows)
                added += committed.rows
        progress(done, len(months))
    return Committed(added={(kind_name, instrument): added}, rules=recorded.rules)


def must_be_downloadable(kind_name: str, instrument: str) -> None:
    """Say without asking Bybit what it would not answer.

    Raises:
        ConfigError: The instrument's name is of no known form.
        DataError: Bybit has no such instrument or kind of data, or not both together.
    """
    symbol, category, venue = split_id(instrument)
    if venue != "BYBIT":
        raise DataError(f"{instrument} is not of Bybit", remedy="the instrument must end in .BYBIT")
    symbol_of(symbol)
    if kind_name == "rules":
        return
    shape = kind(kind_name)
    if shape.shape != "rate":
        _step(shape)
    if category is Category.SPOT and shape.prefix != "bar":
        raise DataError(f"{instrument} has no {kind_name}: of spot there are only bars", remedy="take --kind bar-1m")


def _commit(catalog: Catalog, kind_name: str, instrument: str, rows: pl.DataFrame) -> Committed:
    found = _found(kind_name, instrument)
    series = incoming(found, kind_name, instrument, rows)
    stamps = series.rows["ts_event"]
    name = f"{kind_name} {instrument} {utc(int(stamps[0]))[:10]} .. {utc(int(stamps[-1]))[:10]}"
    batch = ImportBatch(source=_source(name, series.rows.write_csv()), series=(series,))
    must_be_plausible(catalog, batch, file=str(found.path))
    return catalog.commit(batch)


def _missing(
    catalog: Catalog, shape: Kind, instrument: str, start: int, end: int, *, every_h: int
) -> tuple[int, int] | None:
    """Return the span to be fetched: from the first stamp the catalog lacks to the end of the last."""
    series = catalog.find(shape.name, instrument)
    if series is None or series.first_ts >= end or series.last_ts < start:
        return start, end
    held = catalog.read(shape.name, instrument, start=start, end=end)["ts_event"].to_numpy()
    if shape.shape == "rate":
        expected = np.arange(-(-start // (every_h * HOUR)), -(-end // (every_h * HOUR))) * every_h * HOUR
        return None if np.isin(expected, held).all() else (start, end)
    step = _step(shape)
    expected = np.arange(-(-start // step) * step, end, step, dtype=np.int64)
    lacking = expected[~np.isin(expected, held)]
    return (int(lacking[0]), int(lacking[-1]) + step) if lacking.size else None


def _step(shape: Kind) -> int:
    if shape.interval is None or shape.prefix not in _PATHS or shape.name.rsplit("-", 1)[1] not in _INTERVALS:
        known = [f"{prefix}-1m" for prefix in _PATHS]
        raise DataError(
            f"{shape.name} cannot be downloaded", remedy=f"take {', '.join(known)} or another interval, or funding"
        )
    return shape.interval


def _months(start: int, end: int) -> Iterator[tuple[int, int]]:
    at = start
    while at < end:
        day = datetime.fromtimestamp(at // SECOND, tz=UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        until = min(end, int(following.timestamp()) * SECOND)
        yield at, until
        at = until


def _candle_rows(found: Found, entries: list[list[str]], *, has_volume: bool) -> pl.DataFrame:
    names = ["start", "open", "high", "low", "close", *(["volume"] if has_volume else [])]
    told = [entry[: len(names)] for entry in reversed(entries)]
    rows = pl.DataFrame(told, schema=dict.fromkeys(names, pl.String), orient="row").with_row_index("row", offset=1)
    return from_epoch(found, found.numbers(rows, names[1:]), "start").drop("start")


def _funding_rows(found: Found, entries: list[Mapping[str, str]]) -> pl.DataFrame:
    told = [(entry["fundingRateTimestamp"], entry["fundingRate"]) for entry in reversed(entries)]
    rows = pl.DataFrame(told, schema={"stamp": pl.String, "rate": pl.String}, orient="row").with_row_index(
        "row", offset=1
    )
    return from_epoch(found, found.numbers(rows, ["rate"]), "stamp").drop("stamp")


def _found(kind_name: str, instrument: str) -> Found:
    # Rows of a download are checked like those of a file, and a refusal names this path. Holes are allowed:
    # they are the venue's own, not a sign of bad paging.
    return Found(Path(f"Bybit's {kind_name} of {instrument}"), Hints(allow_gaps=True))


def _source(name: str, content: str) -> Source:
    return Source(name=name, sha256=hashlib.sha256(content.encode()).hexdigest(), importer=NAME)


def _said(method: str, asked: Mapping[str, Any]) -> str:
    return f"{method.removeprefix('get_')} ({', '.join(f'{name}={value}' for name, value in asked.items())})"
