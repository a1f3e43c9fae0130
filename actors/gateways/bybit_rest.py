"""What one thread asks of Bybit by REST: look-ups, and all that a snapshot is made of. Nothing here changes anything.

When the venue says that too much is asked, nobody asks for a while: `Backoff` is shared by all threads of an account.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from statistics import median
from typing import Any

import msgspec
import requests
from msgspec import Struct
from pybit.exceptions import FailedRequestError, InvalidRequestError

from actors.gateways.bybit_endpoint import Endpoint, Keys, session
from actors.gateways.bybit_meter import Meter, reset_of
from hean.bybit import decode
from hean.bybit.decode import Execution, OrderWord, Position, Transaction, category_word
from hean.bybit.encode import Arguments, look_up_request
from hean.bybit.wire import Page
from hean.errors import ConfigError, DataError, HeanError
from hean.instruments import Category, Instrument, split_id
from hean.messages import AccountSnapshot, FundingSettled, VenueOrder
from hean.store.rules import from_bybit
from hean.units import DAY, MILLISECOND, SECOND, utc

SETTLE = "USDT"
BAN_NS = 600 * SECOND
"""Bybit v5, *Rate limit*: HTTP 403 means this address asked too often, and lasts about ten minutes."""

_CROWDED_NS = 2 * SECOND
_PAGES = 200
_ORDERS_A_PAGE = 50
_EXECUTIONS_A_PAGE = 100
_LINES_A_PAGE = 50
_SPAN_MS = (7 * DAY - SECOND) // MILLISECOND
"""Bybit v5: histories are asked for in spans of at most seven days."""

# pybit looks into what it takes for an object; an answer that is none makes it trip.
_UNREADABLE = (ValueError, AttributeError, KeyError, TypeError, msgspec.MsgspecError)


UNREADABLE_ANSWER = (DataError, *_UNREADABLE)
"""What reading an answer may raise."""


class UnansweredError(HeanError):
    """A question that the venue refused, did not answer, or not readably."""


class Hold(Struct, frozen=True):
    """Until when something may not be asked, and why."""

    until: int
    reason: str


class Backoff:
    """What may not be asked for a while: one question, or under the empty name everything. The longest word counts."""

    def __init__(self, report: Callable[[str], None] = lambda _: None) -> None:
        self._report = report
        self._lock = threading.Lock()
        self.holds: dict[str, Hold] = {}

    def hold(self, question: str, until: int, reason: str) -> None:
        with self._lock:
            before = self.holds.get(question)
            longer = before is None or until > before.until
            if longer:
                self.holds[question] = Hold(until, reason)
        if longer and (before is None or before.until < time.time_ns()):
            self._report(f"{reason}: {question or 'nothing'} waits until {utc(until // MILLISECOND * MILLISECOND)}")

    def left(self, question: str) -> tuple[int, str]:
        """Nanoseconds to wait before a question may be asked, and why; 0 when there are none."""
        now = time.time_ns()
        holds = [hold for name in ("", question) if (hold := self.holds.get(name)) is not None and hold.until > now]
        if not holds:
            return 0, ""
        longest = max(holds, key=lambda hold: hold.until)
        return longest.until - now, longest.reason


class ClockOffset(Struct, frozen=True):
    """How far the venue's clock is ahead of ours, and within what."""

    offset: int
    within: int


class Absence(Struct, frozen=True):
    """The venue, asked at `ts_asked`, knows no such order: neither open nor in its history."""

    ts_asked: int


@dataclass(frozen=True)
class AccountReport:
    """All that an account says of itself: what stands, what was executed and what was booked since the cursor.

    `failures` names the parts that could not be asked; then the snapshot is not complete.
    """

    snapshot: AccountSnapshot
    orders: tuple[OrderWord, ...]
    positions: tuple[Position, ...]
    executions: tuple[Execution | FundingSettled, ...]
    transactions: tuple[Transaction, ...]
    failures: tuple[str, ...]


class BybitRest:
    """One thread's own conversation with the venue.

    Args:
        endpoint: Where.
        keys: Who; None asks only what is public.
        instruments: The rules of what is traded, for the coins of fees.
        backoff: Shared with the other threads of the account.
        timeout_s: How long an answer may take.
        recv_window_ms: How old a request may be when it reaches the venue.
        patience_s: How long a question may wait for a backoff to end.
        meter: The account's rate budget; None where what is asked counts for nobody.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys | None,
        *,
        instruments: Mapping[str, Instrument],
        backoff: Backoff,
        timeout_s: float = 5.0,
        recv_window_ms: int = 5_000,
        patience_s: float = 3.0,
        meter: Meter | None = None,
    ) -> None:
        self._session = session(endpoint, keys, timeout_s=timeout_s, recv_window_ms=recv_window_ms)
        self._keys = keys
        self._instruments = instruments
        self._backoff = backoff
        self._meter = meter
        self._patience_ns = int(patience_s * SECOND)

    def close(self) -> None:
        self._session.client.close()

    # --- questions ------------------------------------------------------------------------------

    def look_up(self, instrument: str, client_order_id: str) -> OrderWord | Absence:
        """Ask for one order by its link id, first among the recent ones, then in the history.

        Raises:
            UnansweredError: One of the two brought no readable answer: nothing is known.
        """
        ts_asked = time.time_ns()
        asked = look_up_request(instrument, client_order_id)
        for method in ("get_open_orders", "get_order_history"):
            found = self._page(method, asked)
            with _reading():
                words = [
                    word for word in decode.orders(found.list, asked["category"]) if word.link_id == client_order_id
                ]
            if words:
                return words[0]
        return Absence(ts_asked)

    def executions_of(self, instrument: str, client_order_id: str) -> list[Execution | FundingSettled]:
        """All executions of one order, oldest first.

        Raises:
            UnansweredError: The venue did not say.
        """
        asked = look_up_request(instrument, client_order_id) | {"limit": _EXECUTIONS_A_PAGE}
        return self._executions(asked)

    def executions_since(self, category: Category, since: int, until: int) -> list[Execution | FundingSettled]:
        """All executions of a category from `since` on, oldest first.

        Raises:
            UnansweredError: The venue did not say, or did not say all.
        """
        found: list[Execution | FundingSettled] = []
        for start, end in _spans(since, until):
            asked = {
                "category": category_word(category),
                "startTime": start,
                "endTime": end,
                "limit": _EXECUTIONS_A_PAGE,
            }
            found += self._executions(asked)
        return found

    def _executions(self, asked: Arguments) -> list[Execution | FundingSettled]:
        rows = self._all("get_executions", asked)
        with _reading():
            said = decode.executions(rows, self._instruments, asked["category"])
        return sorted(said, key=lambda one: (one.ts_event, one.seq if isinstance(one, Execution) else 0))

    def transactions(self, since: int, until: int) -> list[Transaction]:
        """The transaction log from `since` on, oldest first.

        Raises:
            UnansweredError: The venue did not say, or did not say all.
        """
        lines: list[Transaction] = []
        for start, end in _spans(since, until):
            asked = {
                "accountType": "UNIFIED",
                "startTime": start,
                "endTime": end,
                "limit": _LINES_A_PAGE,
            }
            rows = self._all("get_transaction_log", asked)
            with _reading():
                # Newest first, also among those of one instant.
                lines += reversed(decode.transactions(rows))
        return lines

    def open_orders(self, category: Category) -> list[OrderWord]:
        """All open orders of a category.

        Raises:
            UnansweredError: The venue did not say all.
        """
        asked: Arguments = {"category": category_word(category), "openOnly": 0, "limit": _ORDERS_A_PAGE}
        if category is not Category.SPOT:
            asked["settleCoin"] = SETTLE
        rows = self._all("get_open_orders", asked)
        with _reading():
            return decode.orders(rows, asked["category"])

    def positions(self) -> list[Position]:
        """All open positions in contracts settled in USDT.

        Raises:
            UnansweredError: The venue did not say all.
        """
        rows = self._all("get_positions", {"category": "linear", "settleCoin": SETTLE, "limit": 200})
        with _reading():
            return decode.positions(rows, "linear")

    def balances(self) -> dict[str, Decimal]:
        """What each coin's wallet holds; a coin that is not there has none.

        Raises:
            UnansweredError: The venue did not say.
        """
        result = self._ask("get_wallet_balance", {"accountType": "UNIFIED"})
        with _reading():
            return decode.balances(result.get("list"))

    def margin_mode(self) -> str:
        """How the account is margined, in the venue's word.

        Raises:
            UnansweredError: The venue did not say.
        """
        mode = self._ask("get_account_info", {}).get("marginMode")
        if not isinstance(mode, str):
            raise UnansweredError("get_account_info: the answer names no margin mode")
        return mode

    def report(self, request_id: int, since: int, categories: tuple[Category, ...]) -> AccountReport:
        """Ask for everything. A part that fails leaves the snapshot incomplete: nothing is read as nothing."""
        now = time.time_ns()
        failures: list[str] = []

        def part(name: str, ask: Callable[[], Any], otherwise: Any) -> Any:
            try:
                return ask()
            except UnansweredError as silence:
                failures.append(f"{name}: {silence}")
                return otherwise

        orders = tuple(word for of in categories for word in part(f"orders {of}", partial(self.open_orders, of), []))
        positions = part("positions", self.positions, [])
        balances = part("balances", self.balances, {})
        margin = part("account", self.margin_mode, "")
        executions = tuple(
            said
            for of in categories
            for said in part(f"executions {of}", partial(self.executions_since, of, since, now), [])
        )
        transactions = part("transaction log", lambda: self.transactions(since, now), [])
        held: dict[str, Decimal] = {}
        entries: dict[str, Decimal] = {}
        modes = {"margin": margin}
        for position in positions:
            name = position.instrument
            modes[f"{name} position"] = "hedge" if position.position_idx else "one-way"
            if position.leverage is not None:
                modes[f"{name} leverage"] = f"{position.leverage.normalize():f}"
            if position.quantity:
                held[name] = held.get(name, Decimal(0)) + position.quantity
                if position.entry is not None and held[name] == position.quantity:
                    entries[name] = position.entry
                else:
                    entries.pop(name, None)  # of two positions held against each other there is no one mean
        snapshot = AccountSnapshot(
            request_id=request_id,
            ts_event=now,
            complete=not failures,
            orders=tuple(
                VenueOrder(word.link_id, word.instrument, word.side, word.quantity, word.filled)
                for word in orders
                if not word.exit
            ),
            positions=held,
            balances=balances,
            entries=entries,
            modes=modes,
            booked=tuple(decode.entry(line) for line in transactions),
        )
        return AccountReport(snapshot, orders, tuple(positions), executions, tuple(transactions), tuple(failures))

    def must_not_withdraw(self, *, trades: bool = True) -> None:
        """Refuse a key that can take money out, or lacks a right that is needed.

        Args:
            trades: Whether it has to trade; else it may also be one that only reads.

        Raises:
            ConfigError: It can, or lacks one: which, and what to do.
            UnansweredError: The venue did not say what it can do: then it may be anything.
        """
        result = self._ask("get_api_key_information", {})
        with _reading():
            use = decode.key_use(result)
        if use.withdraws:
            raise ConfigError("the API key may withdraw: make one that can trade and nothing else")
        if not trades:
            return
        if use.only_reads:
            raise ConfigError("the API key can only read: make one that can trade")
        lacking = [
            name
            for name, has in (("contracts (Orders and Positions)", use.trades_contracts), ("spot", use.trades_spot))
            if not has
        ]
        if lacking:
            raise ConfigError(
                f"the API key lacks the right to trade {' and '.join(lacking)}: give it that right at Bybit"
            )

    def rules(self, category: Category, symbols: frozenset[str]) -> dict[str, Instrument]:
        """The rules of some instruments, by id.

        Raises:
            ConfigError: The venue does not have one of them.
            UnansweredError: It did not say.
        """
        asked: Arguments = {"category": category_word(category)}
        rows = self._all("get_instruments_info", asked | ({} if category is Category.SPOT else {"limit": 1_000}))
        with _reading():
            found = [from_bybit(row, category) for row in rows if row.get("symbol") in symbols]
        lacking = symbols - {split_id(one.id)[0] for one in found}
        if lacking:
            raise ConfigError(f"Bybit has no {asked['category']} instrument {', '.join(sorted(lacking))}")
        return {one.id: one for one in found}

    def clock_offset(self, samples: int = 5) -> ClockOffset:
        """Measure how far the venue's clock is ahead: the median of some questions, each taken half-way.

        Raises:
            UnansweredError: It did not say.
        """
        seen: list[tuple[int, int]] = []
        for _ in range(samples):
            begun = time.time_ns()
            said = self._ask("get_server_time", {})
            ended = time.time_ns()
            with _reading():
                theirs = decode.server_time(said)
            seen.append((theirs - (begun + ended) // 2, (ended - begun) // 2))
        return ClockOffset(int(median(offset for offset, _ in seen)), max(within for _, within in seen))

    def public(self, method: str, arguments: Arguments) -> dict[str, Any]:
        """Ask for what everybody may know.

        Raises:
            UnansweredError: The venue did not say.
        """
        return self._ask(method, arguments)

    # --- asking ---------------------------------------------------------------------------------

    def _all(self, method: str, arguments: Arguments) -> list[dict[str, Any]]:
        """Ask page after page until there are no more."""
        rows: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(_PAGES):
            found = self._page(method, arguments | ({"cursor": cursor} if cursor else {}))
            rows += found.list
            following = found.next_page_cursor or ""
            if not following or following == cursor or not found.list:
                return rows
            cursor = following
        raise UnansweredError(f"{method} has more than {_PAGES} pages")

    def _page(self, method: str, arguments: Arguments) -> Page:
        result = self._ask(method, arguments)
        with _reading():
            return decode.page(result, method)

    def _ask(self, method: str, arguments: Arguments) -> dict[str, Any]:
        """Ask once; wait for a short backoff, refuse to wait for a long one."""
        left, reason = self._backoff.left(method)
        if left > self._patience_ns:
            raise UnansweredError(f"{method} not asked: {reason}")
        if left:
            time.sleep(left / SECOND)
        if self._meter is not None and not self._meter.wait_for_turn(
            method, arguments, self._patience_ns / SECOND, changes=False
        ):
            raise UnansweredError(f"{method} not asked: too much was asked before it")
        try:
            said = decode.answer(self._call(method, arguments))
        except InvalidRequestError as refusal:
            note_refusal(self._backoff, method, refusal)
            raise UnansweredError(f"{method}: {refusal.status_code} {self._hide(str(refusal.message))}"[:300]) from None
        except FailedRequestError as failure:
            note_failure(self._backoff, failure)
            raise UnansweredError(f"{method}: HTTP {failure.status_code}") from None
        except requests.RequestException as silence:
            raise UnansweredError(f"{method}: {type(silence).__name__}") from None
        except (DataError, *_UNREADABLE) as unreadable:
            raise UnansweredError(f"{method}: the answer cannot be read: {type(unreadable).__name__}") from None
        if said.ret_code != 0:
            raise UnansweredError(f"{method}: {said.ret_code} {self._hide(said.ret_msg)}"[:300])
        return said.result

    def _call(self, method: str, arguments: Arguments) -> Any:
        return getattr(self._session, method)(**arguments)

    def _hide(self, text: str) -> str:
        return text if self._keys is None else self._keys.hide(text)


@contextmanager
def _reading() -> Iterator[None]:
    """An answer that is not as it should be is none."""
    try:
        yield
    except (DataError, *_UNREADABLE) as damage:
        raise UnansweredError(str(damage)) from None


def note_refusal(backoff: Backoff, method: str, refusal: InvalidRequestError) -> None:
    """Hold back what the venue says is asked too often."""
    now = time.time_ns()
    match refusal.status_code:
        case 10006:
            backoff.hold(method, reset_of(refusal.resp_headers, now), "10006 rate limit")
        case 10018 | 10429:
            backoff.hold("", now + _CROWDED_NS, f"{refusal.status_code} too many requests")
        case _:
            pass


def note_failure(backoff: Backoff, failure: FailedRequestError) -> None:
    """The same of an answer that is an HTTP status."""
    now = time.time_ns()
    match failure.status_code:
        case 403:
            backoff.hold("", now + BAN_NS, "HTTP 403, this address asked too often")
        case 429:
            backoff.hold("", now + _CROWDED_NS, "HTTP 429 too many requests")
        case _:
            pass


def _spans(since: int, until: int) -> list[tuple[int, int]]:
    """Cut a time into spans of milliseconds that may be asked for at once, the oldest first.

    Bybit counts both ends in: what happened at a cut belongs to one of the two.
    """
    first = (since if since < until else until - SECOND) // MILLISECOND
    last = -(-until // MILLISECOND)
    return [(start, min(start + _SPAN_MS - 1, last)) for start in range(first, last + 1, _SPAN_MS)]
