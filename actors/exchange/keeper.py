"""The state file: what the exchange must still know after it was stopped, or killed, at any moment.

One SQLite file, one transaction for everything a request or a step of time has changed, written before it is answered. What is
acknowledged is therefore in the file; it outlives the process, and the machine too but for its last moments.
"""

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from hean.errors import ConfigError, DataError, HeanError
from hean.exchange.account import TradingAccount
from hean.exchange.candles import Kind
from hean.exchange.clearing import HOUSE, Records
from hean.exchange.exchange import Exchange
from hean.exchange.history import History
from hean.exchange.ids import Ids
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.exchange.words import (
    ClosedPnl,
    Event,
    Executed,
    Execution,
    FundingStruck,
    Logged,
    LogRow,
    Order,
    OrderChanged,
    PnlClosed,
    Printed,
    Trigger,
)
from hean.messages import Side
from hean.units import DAY, MILLISECOND, MINUTE

FORMAT = 1
"""Raised whenever an older HEAN could no longer read the file, or would misread it."""

_OURS = 0x48454158  # "HEAX", as SQLite keeps it in the head of the file

Candle = dict[str, tuple[float, ...]]
"""One minute by kind: last, mark, index, premium; open, high, low, close, for last also volume and turnover."""


class Counters(Struct, kw_only=True):
    """What is one of a kind: names given so far, fees taken, coins paid in, and the sequence of each market."""

    ids: Ids
    fees: dict[str, Decimal]
    issued: dict[str, Decimal]
    seqs: dict[str, int]


class Saved(Struct, kw_only=True):
    """What a state file holds. `settled` and `candles` are by instrument, of the time since the exchange first began."""

    accounts: dict[str, TradingAccount]
    records: dict[str, Records]
    counters: Counters
    settled: dict[str, list[tuple[int, Decimal]]] = field(default_factory=dict)
    candles: dict[str, list[tuple[int, Candle]]] = field(default_factory=dict)

    def remember(self, histories: Mapping[str, History]) -> None:
        """Put the minutes that were seen in place of those that a source has made up or read for them."""
        for name, minutes in self.candles.items():
            history = histories.get(name)
            if history is None:
                continue
            columns = {"last": history.last, "mark": history.mark, "index": history.index, "premium": history.premium}
            for ms, candle in minutes:
                at = (ms * MILLISECOND - history.ts_first) // MINUTE
                for kind, row in candle.items():
                    kept = columns[kind]
                    if kept is not None and 0 <= at < len(kept):
                        kept[at] = row

    def put_back(self, exchange: Exchange, now: int) -> None:
        """Make an exchange that has just begun, its house quoting, what it was.

        Open orders take their old places; those that the market has passed meanwhile are met by it now, at their own price.
        """
        for name in Ids.__struct_fields__:
            setattr(exchange.ids, name, getattr(self.counters.ids, name))
        for name, seq in self.counters.seqs.items():
            if name in exchange.markets:
                exchange.markets[name].seq += seq
        for name, struck in self.settled.items():
            if name in exchange.markets:
                _settle_again(exchange.markets[name].pricing, struck)
        exchange.restore(self.accounts, self.records, self.counters.fees, self.counters.issued)
        for market in exchange.markets.values():
            for side in Side:
                _uncross(exchange, market, side, now)


def _settle_again(pricing: Pricing, struck: list[tuple[int, Decimal]]) -> None:
    rates = dict(pricing.settled) | dict(struck)
    pricing.settled.clear()
    pricing.settled.extend(sorted(rates.items()))
    pricing.last_settled = pricing.settled[-1][1]


def _uncross(exchange: Exchange, market: Market, side: Side, now: int) -> None:
    """Let the house quote again what crosses the clients' orders of a side: it then trades with them."""
    other = Side.SELL if side is Side.BUY else Side.BUY
    own = (one.price for one in market.book.opposite(other, None) if one.owner != HOUSE)
    best = next(own, None)
    if best is None:
        return
    name = market.listing.id
    crossing = [(one.price, one.size) for one in market.book.opposite(side, best) if one.owner == HOUSE]
    for price, _ in crossing:
        exchange.background_set(name, other, price, 0, now)
    for price, size in crossing:
        exchange.background_set(name, other, price, size, now)


class Keeper:
    """Keeps an exchange in a file. `failure` is why it no longer does; None while it does.

    Args:
        path: The file; made when it is not there.

    Raises:
        ConfigError: another process has it, or it cannot be written.
        DataError: it is no state file, of another format, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: HeanError | None = None
        self._trailing: dict[str, tuple[Order, Trigger | None]] = {}
        self._minute = 0
        self._kept_until: dict[str, int] = {}
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no directory {path.parent}")
        with self._explained():
            # Opened by one thread and used by another, that of the server: never by two at once.
            self._database = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
            try:
                self._open()
            except BaseException:
                self._database.close()
                raise

    def _open(self) -> None:
        run = self._database.execute
        # The lock is the kernel's and goes with the process, however it ends.
        run("PRAGMA locking_mode=EXCLUSIVE")
        run("PRAGMA synchronous=NORMAL")
        begun = self._one("SELECT count(*) FROM sqlite_master")
        if not begun:
            run("PRAGMA journal_mode=WAL")
            run("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                run(statement)
            run(f"PRAGMA application_id={_OURS}")
            run(f"PRAGMA user_version={FORMAT}")
            run("COMMIT")
            return
        if self._one("PRAGMA application_id") != _OURS:
            raise DataError("this is no state file of hean exchange", file=str(self.path), remedy="name another file")
        version = self._one("PRAGMA user_version")
        if version != FORMAT:
            raise DataError(
                f"its format is {version}, this HEAN writes {FORMAT}",
                file=str(self.path),
                remedy="begin a new file, or run the HEAN that wrote it",
            )
        run("PRAGMA journal_mode=WAL")
        run("BEGIN IMMEDIATE")
        run("COMMIT")
        if (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise DataError(f"it is damaged: {found}", file=str(self.path), remedy=_RESTORE)

    def _one(self, query: str) -> Any:
        return self._database.execute(query).fetchone()[0]

    def close(self) -> None:
        with self._explained():
            self._database.close()

    # --- what market it is of -----------------------------------------------------------------------

    @property
    def market(self) -> dict[str, Any] | None:
        """The market the file was begun with, as `begin` was told; None of a new file."""
        with self._explained():
            row = self._database.execute("SELECT body FROM facts WHERE name = 'market'").fetchone()
            return None if row is None else msgspec.json.decode(row[0], type=dict[str, Any])

    def begin(self, market: Mapping[str, Any]) -> None:
        """Note what market this is: its seed, its symbols, when it began."""
        with self._explained():
            self._database.execute(_PUT_FACT, ("market", _text(market)))

    # --- in -----------------------------------------------------------------------------------------

    def save(self, exchange: Exchange, events: Collection[Event]) -> None:
        """Write what events have changed, all of it or, if the process dies meanwhile, nothing.

        Raises:
            HeanError: it cannot be written. What came later would not fit what is there: nothing is written any more.
        """
        if not events:
            return
        if self.failure is not None:
            raise self.failure
        try:
            self._save(exchange, events)
        except HeanError as failure:
            self.failure = failure
            raise

    def _save(self, exchange: Exchange, events: Collection[Event]) -> None:
        uids: dict[str, None] = {}
        orders: dict[str, Order] = {}
        executions: list[Execution] = []
        rows: list[LogRow] = []
        closed: dict[str, ClosedPnl] = {}
        struck: list[FundingStruck] = []
        for event in events:
            match event:
                case OrderChanged(order):
                    # The order as it is by now: what is said of it may be older than its place in the book.
                    orders[order.order_id] = exchange.records[order.uid].orders[order.order_id]
                    uids[order.uid] = None
                case Executed(execution):
                    executions.append(execution)
                    uids[execution.uid] = uids[HOUSE] = None
                case Logged(row):
                    rows.append(row)
                    uids[row.uid] = None
                case PnlClosed(record):
                    closed[record.order_id] = record
                case FundingStruck():
                    struck.append(event)
                    uids[HOUSE] = None
                case Printed():
                    uids[HOUSE] = None
                case _:
                    if (uid := getattr(event, "uid", None)) is not None:
                        uids[uid] = None
        orders |= self._followed()
        with self._explained():
            many = self._database.executemany
            self._database.execute("BEGIN IMMEDIATE")
            many(_PUT_ORDER, ((order.order_id, order.uid, _text(order)) for order in orders.values()))
            many(_ADD_EXECUTION, ((one.uid, _text(one)) for one in executions))
            many(_ADD_ROW, ((one.uid, _text(one)) for one in rows))
            many(_PUT_CLOSED, ((one.order_id, one.uid, _text(one)) for one in closed.values()))
            many(_PUT_SETTLED, self._settled(exchange, struck))
            many(_PUT_ACCOUNT, ((uid, _text(_bare(exchange.accounts[uid]))) for uid in uids))
            many(_PUT_CANDLE, self._candles(exchange))
            self._database.execute(_PUT_FACT, ("counters", _text(_counters(exchange))))
            self._database.execute("COMMIT")
        self._follow(orders)

    def _follow(self, orders: Mapping[str, Order]) -> None:
        """Remember trailing stops: they move with the price, and nothing is said of it."""
        for order_id, order in orders.items():
            if order.trailing is not None and order.status.is_open:
                self._trailing[order_id] = (order, order.trigger)
            else:
                self._trailing.pop(order_id, None)

    def _followed(self) -> dict[str, Order]:
        return {name: order for name, (order, trigger) in self._trailing.items() if order.trigger != trigger}

    def _settled(self, exchange: Exchange, struck: list[FundingStruck]) -> Iterator[tuple[str, int, str]]:
        for event in struck:
            settled = exchange.markets[event.instrument].pricing.settled
            # Funding that a drill settles out of turn is no interval's.
            if settled and settled[-1] == (event.ts, event.rate):
                yield event.instrument, event.ts, str(event.rate)

    def _candles(self, exchange: Exchange) -> Iterator[tuple[str, int, str]]:
        """The minutes that have closed since they were last written."""
        minute = time.time_ns() // MINUTE
        if minute == self._minute:
            return
        self._minute = minute
        for name, market in exchange.markets.items():
            kept = self._kept_until.get(name)
            start = kept + 60_000 if kept is not None else None
            columns: dict[int, Candle] = {}
            for kind in _KINDS:
                # The newest is still running.
                for row in market.candles.query(kind, "1", start, None, 1000 if start is not None else 2)[1:]:
                    columns.setdefault(int(row[0]), {})[kind] = row[1:]
            for at in sorted(columns):
                self._kept_until[name] = at
                yield name, at, _text(columns[at])

    # --- out ----------------------------------------------------------------------------------------

    def load(self) -> Saved | None:
        """What is in the file; None of a new one.

        Raises:
            DataError: it is damaged.
        """
        with self._explained():
            found = self._database.execute("SELECT body FROM facts WHERE name = 'counters'").fetchone()
            if found is None:
                return None
            read = self._database.execute
            accounts = {uid: _read(body, TradingAccount) for uid, body in read("SELECT uid, body FROM accounts")}
            records = {uid: Records() for uid in accounts if uid != HOUSE}
            for uid, body in read("SELECT uid, body FROM orders ORDER BY number"):
                order = _read(body, Order)
                records[uid].orders[order.order_id] = order
                if order.link_id:
                    accounts[uid].link_ids[order.link_id] = order.order_id
                if order.status.is_open:
                    accounts[uid].open_orders[order.order_id] = order
                    if order.trailing is not None:
                        self._trailing[order.order_id] = (order, order.trigger)
            for uid, body in read("SELECT uid, body FROM executions ORDER BY number"):
                records[uid].executions.append(_read(body, Execution))
            for uid, body in read("SELECT uid, body FROM log ORDER BY number"):
                records[uid].log.append(_read(body, LogRow))
            for uid, body in read("SELECT uid, body FROM closed ORDER BY number"):
                records[uid].closed.append(_read(body, ClosedPnl))
            saved = Saved(accounts=accounts, records=records, counters=_read(found[0], Counters))
            for name, ts, rate in read("SELECT instrument, ts, rate FROM settled ORDER BY ts"):
                saved.settled.setdefault(name, []).append((ts, Decimal(rate)))
            # What the market no longer tells of its past is let go: a start must not take longer from week to week.
            read(_DROP_CANDLES, ((self.market or {}).get("days", _MOST_DAYS) * _DAY_MS,))
            for name, at, body in read("SELECT instrument, ms, body FROM candles ORDER BY ms"):
                saved.candles.setdefault(name, []).append((at, _read(body, Candle)))
                self._kept_until[name] = at
            return saved

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Let what SQLite has to say be understood."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ConfigError(
                    f"{self.path} is in use by another hean exchange: stop it, or name another file"
                ) from None
            raise ConfigError(f"{self.path} cannot be read or written: {error}") from error
        except (sqlite3.DatabaseError, msgspec.DecodeError, ArithmeticError) as error:
            raise DataError(
                f"it is damaged, or no state file: {error}", file=str(self.path), remedy=_RESTORE
            ) from error


def _bare(account: TradingAccount) -> TradingAccount:
    """An account without what is kept as orders."""
    return replace(account, link_ids={}, open_orders={})


def _counters(exchange: Exchange) -> Counters:
    return Counters(
        ids=exchange.ids,
        fees=exchange.fees,
        issued=exchange.issued,
        seqs={name: market.seq for name, market in exchange.markets.items()},
    )


_Kept = TypeVar("_Kept")


def _read(body: str, kind: type[_Kept]) -> _Kept:
    return msgspec.json.decode(body, type=kind)


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_KINDS: tuple[Kind, ...] = ("last", "mark", "index", "premium")
_MOST_DAYS, _DAY_MS = 90, DAY // MILLISECOND
_RESTORE = "put a copy of it back, or begin a new file"
_SCHEMA = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE accounts (uid TEXT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE orders (number INTEGER PRIMARY KEY, order_id TEXT UNIQUE, uid TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE executions (number INTEGER PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE log (number INTEGER PRIMARY KEY, uid TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE closed (number INTEGER PRIMARY KEY, order_id TEXT UNIQUE, uid TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE settled (instrument TEXT, ts INTEGER, rate TEXT NOT NULL, PRIMARY KEY (instrument, ts))",
    "CREATE TABLE candles (instrument TEXT, ms INTEGER, body TEXT NOT NULL, PRIMARY KEY (instrument, ms))",
)
_PUT_FACT = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body"
_PUT_ACCOUNT = "INSERT INTO accounts VALUES (?, ?) ON CONFLICT (uid) DO UPDATE SET body = excluded.body"
# A row that is written again keeps its number, and so its place among the others.
_PUT_ORDER = "INSERT INTO orders (order_id, uid, body) VALUES (?, ?, ?) ON CONFLICT (order_id) DO UPDATE SET body = excluded.body"
_PUT_CLOSED = "INSERT INTO closed (order_id, uid, body) VALUES (?, ?, ?) ON CONFLICT (order_id) DO UPDATE SET body = excluded.body"
_ADD_EXECUTION = "INSERT INTO executions (uid, body) VALUES (?, ?)"
_ADD_ROW = "INSERT INTO log (uid, body) VALUES (?, ?)"
_PUT_SETTLED = "INSERT OR REPLACE INTO settled VALUES (?, ?, ?)"
_DROP_CANDLES = "DELETE FROM candles WHERE ms < (SELECT max(ms) FROM candles) - ?"
_PUT_CANDLE = "INSERT OR REPLACE INTO candles VALUES (?, ?, ?)"
