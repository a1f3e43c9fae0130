"""Out of everything, without the engine: with the keys and REST alone, for when nothing else answers.

All orders are cancelled, positions in contracts closed by reduce-only market orders, and on spot is sold what our books
say that strategies hold, never more: the account may have coins of its own. Then the venue is asked whether anything is left,
and it goes on until nothing is. The kill switch is latched before anything is sent, so that an engine that comes back stays out.

Each order is written down before it is sent. One of which no outcome is known is looked up, and never sent under another name.
"""

import os
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Self

import msgspec
import requests
from msgspec import Struct
from pybit.exceptions import FailedRequestError, InvalidRequestError

from actors.gateways.bybit_endpoint import Endpoint, Keys, session
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Absence, Backoff, BybitRest, UnansweredError
from actors.gateways.fence import Fence, write_epoch
from actors.keys import read_keys
from actors.places import KEYS, LATCH, Latched, endpoint, read_settings
from actors.replay import told_again
from hean.bybit import decode
from hean.bybit.decode import Execution, OrderStage
from hean.bybit.encode import Verdict
from hean.errors import DataError, HeanError, VenueError
from hean.instruments import Category, Instrument, split_id
from hean.messages import LAST_RESORT, Side, SubmitOrder, TimeInForce
from hean.portfolio.accounting import RESERVE
from hean.store.engine_book import tag_of
from hean.units import SECOND

LEDGER = "last_resort.jsonl"
STRATEGY = "last-resort"

_FIRST_WAIT_S = 0.25
_MOST_WAIT_S = 15.0
# Asked again after this: what was sent just before may still have been on its way.
_SETTLED_S = 1.0
_TIMEOUT_S = 3.0
_RECV_WINDOW_MS = 3_000
# An order that the venue does not know this long after it was sent has not arrived, and will not.
_SURE_S = 8.0
# A fill may be older than what the books heard last: whoever was to tell it died first.
_UNHEARD_S = 600
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Bybit v5, *Cancel All Orders*: contracts are all kinds of orders where no filter is given; spot is asked kind by kind.
_ALL_ORDERS = (
    {"category": "linear", "settleCoin": "USDT"},
    {"category": "spot", "orderFilter": "Order"},
    {"category": "spot", "orderFilter": "tpslOrder"},
    {"category": "spot", "orderFilter": "OcoOrder"},
    {"category": "spot", "orderFilter": "StopOrder"},
)


class Closing(Struct, frozen=True, tag=True):
    """One order of ours, written down before it is sent; `run` is the run that made it."""

    run: int
    ts: int
    order: str
    instrument: str
    side: Side
    quantity: Decimal


class Ended(Struct, frozen=True, tag=True):
    """What became of one, and how much of it was traded."""

    ts: int
    order: str
    how: str
    filled: Decimal


class Flattened(Struct, frozen=True):
    """What came of it.

    Args:
        verified: Whether the venue itself said that nothing is left of what is ours to close.
        rounds: How often it was tried.
        closed: What was traded, as instrument and signed quantity.
        left: What is not closed, and why, in words.
    """

    verified: bool
    rounds: int
    closed: tuple[tuple[str, Decimal], ...]
    left: tuple[str, ...]


class Ledger:
    """Every order of ours and its end, on the disk before anything follows from it.

    Args:
        path: The file. A line that a crash has cut off is passed over: what it was about was not sent.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.closings: dict[str, Closing] = {}
        self.ends: dict[str, Ended] = {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            try:
                self._take(msgspec.json.decode(line, type=Closing | Ended))
            except msgspec.DecodeError:
                continue
        self.run = max((one.run for one in self.closings.values()), default=0) + 1

    def write(self, entry: Closing | Ended) -> None:
        self._take(entry)
        # A line of its own, even where a crash cut the last one off.
        with self._path.open("ab") as file:
            file.write((b"" if file.tell() == 0 else b"\n") + msgspec.json.encode(entry))
            file.flush()
            os.fsync(file.fileno())

    def unended(self) -> list[Closing]:
        """Orders of which it is not known what became."""
        return [one for name, one in self.closings.items() if name not in self.ends]

    def name(self, instrument: str) -> str:
        """The next order's id: of this run, this instrument, and counted."""
        symbol, category, _ = split_id(instrument)
        count = sum(one.run == self.run and one.instrument == instrument for one in self.closings.values()) + 1
        return f"{LAST_RESORT}{_base36(self.run)}-{symbol}{'S' if category is Category.SPOT else 'L'}-{count}"

    def traded(self, instrument: str, since: int) -> Decimal:
        """How much of an instrument was traded after a time, signed."""
        return sum(
            (
                one.side * self.ends[name].filled
                for name, one in self.closings.items()
                if name in self.ends and one.instrument == instrument and one.ts > since
            ),
            Decimal(0),
        )

    def of_this_run(self) -> tuple[tuple[str, Decimal], ...]:
        return tuple(
            (one.instrument, one.side * self.ends[name].filled)
            for name, one in self.closings.items()
            if one.run == self.run and name in self.ends and self.ends[name].filled
        )

    def _take(self, entry: Closing | Ended) -> None:
        if isinstance(entry, Closing):
            self.closings[entry.order] = entry
        else:
            self.ends[entry.order] = entry


class Holdings(Struct, frozen=True):
    """What our books say strategies hold on spot, by instrument, and as of when.

    What was traded while the books heard nothing is the venue's to say: `tag` is what the engine's orders begin with (empty
    where that is not known), `fills` the trades that the books have.
    """

    ts: int
    quantities: dict[str, Decimal]
    tag: str = ""
    fills: frozenset[str] = frozenset()


# --- the way out ----------------------------------------------------------------------------------


def latch(home: Path, person: str, reason: str) -> None:
    """Write down that the kill switch is pulled: whoever begins to trade here reads it first."""
    home.mkdir(parents=True, exist_ok=True)
    made = home / f".{LATCH}.{os.getpid()}"
    with made.open("wb") as file:
        file.write(msgspec.json.encode(Latched(person, reason, time.time_ns())))
        file.flush()
        os.fsync(file.fileno())
    made.replace(home / LATCH)


def out(
    home: Path, person: str, reason: str, *, limit_s: float | None = None, tell: Callable[[str], None] = lambda _: None
) -> Flattened:
    """Latch, then flatten the account of a home.

    Args:
        home: The directory of the venue mode, with the settings its engine was begun with, and its keys.
        person: Who wants it.
        reason: Why.
        limit_s: How long it may take; None goes on until the venue says that nothing is left.
        tell: Is told each step, in words.

    Raises:
        HeanError: It cannot even be tried: there are no settings, or no keys.
    """
    latch(home, person, reason)
    tell(f"the kill switch is latched: {reason} ({person})")
    settings = read_settings(home / "settings.json")
    if settings.venue.is_ours:
        return Flattened(True, 0, (), ("trading was on paper: there is nothing at a venue",))
    if settings.venue.is_real and settings.dry_run:
        return Flattened(True, 0, (), ("it was a dry run: nothing was ever sent to the venue",))
    where, keys = endpoint(settings), read_keys(home / KEYS)
    try:
        held, unknown = holdings(home), ""
    except HeanError as trouble:
        held, unknown = None, str(trouble)
        tell(f"spot is left alone, what strategies hold of it is not known: {trouble}")
    with Way(home, where, keys, held, tell) as way:
        done = way.flatten(limit_s)
    return done if not unknown else msgspec.structs.replace(done, left=(*done.left, f"spot is left alone: {unknown}"))


def holdings(home: Path) -> Holdings:
    """What strategies hold on spot, by the portfolio's journal.

    Raises:
        HeanError: There is none, or it cannot be read.
    """
    rebuilt = told_again(home / "journals" / "portfolio.db")
    held: dict[str, Decimal] = {}
    for strategy, book in rebuilt.component.state.ledger.books.items():
        for name in rebuilt.instruments:
            if strategy != RESERVE and split_id(name)[1] is Category.SPOT:
                held[name] = held.get(name, Decimal(0)) + rebuilt.component.accountant.quantity(book, name)
    fills = rebuilt.component.state.fills
    return Holdings(
        rebuilt.ts,
        {name: quantity for name, quantity in held.items() if quantity > 0},
        tag_of(home / "engine.db"),
        frozenset({**fills.older, **fills.newer}),
    )


class Way:
    """One run of closing everything.

    Args:
        home: Where the fence, the epoch and our own ledger are.
        where: The venue.
        keys: Of the account.
        held: What strategies hold on spot; None where that is not known: spot is then left alone.
        tell: Is told each step, in words.
    """

    def __init__(
        self, home: Path, where: Endpoint, keys: Keys, held: Holdings | None, tell: Callable[[str], None]
    ) -> None:
        self._held = held
        self._tell = tell
        self._ledger = Ledger(home / LEDGER)
        self._rules: dict[str, Instrument] = {}
        self._troubles: list[str] = []
        self._fence = _fence(home, tell)
        backoff = Backoff()
        self._rest = BybitRest(
            where, keys, instruments=self._rules, backoff=backoff, timeout_s=_TIMEOUT_S, recv_window_ms=_RECV_WINDOW_MS
        )
        self._orders = BybitOrders(
            where, keys, backoff=backoff, fence=self._fence, timeout_s=_TIMEOUT_S, recv_window_ms=_RECV_WINDOW_MS
        )
        self._cancels = session(where, keys, timeout_s=_TIMEOUT_S, recv_window_ms=_RECV_WINDOW_MS)
        self._keys = keys

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rest.close()
        self._orders.close()
        self._cancels.client.close()
        if self._fence is not None:
            self._fence.release()

    def flatten(self, limit_s: float | None = None) -> Flattened:
        """Go round until the venue says that nothing is left, or the time is over."""
        deadline = None if limit_s is None else time.monotonic() + limit_s
        rounds, wait_s = 0, _FIRST_WAIT_S
        clean_since: float | None = None
        while True:
            rounds += 1
            self._troubles = []
            left = self._round()
            now = time.monotonic()
            if left is None or left:
                clean_since = None
            elif clean_since is None:
                clean_since = now
            if clean_since is not None and now - clean_since >= _SETTLED_S:
                self._tell("the venue says that nothing is left")
                return Flattened(True, rounds, self._ledger.of_this_run(), self._beyond_us())
            if deadline is not None and now + wait_s > deadline:
                words = tuple(dict.fromkeys([*(left or ()), *self._troubles, *self._beyond_us()]))
                return Flattened(False, rounds, self._ledger.of_this_run(), words)
            for word in dict.fromkeys(self._troubles):
                self._tell(f"{word}; tried again in {wait_s:.3g} s")
            time.sleep(wait_s)
            wait_s = min(_MOST_WAIT_S, wait_s * 2) if self._troubles else _FIRST_WAIT_S

    def _round(self) -> list[str] | None:
        """Cancel, look up, close, and ask what is left; None where the venue did not say."""
        self._cancel_everything()
        self._look_up()
        left = [f"{one.order} is not known to have ended" for one in self._ledger.unended()]
        try:
            positions = {one.instrument: one.quantity for one in self._rest.positions() if one.quantity}
            left += [f"{name} {quantity:+f}" for name, quantity in positions.items()]
            for name, quantity in positions.items():
                self._close(name, quantity, reduce_only=True)
            for name, quantity in self._sellable().items():
                left.append(f"{name} {quantity:+f}")
                self._close(name, quantity, reduce_only=False)
            # Asked last: what was cancelled may have filled on the way, and the next round sees it.
            for category in (Category.LINEAR, Category.SPOT):
                left += [f"order {one.link_id or one.order_id}" for one in self._rest.open_orders(category)]
        except UnansweredError as silence:
            self._troubles.append(str(silence))
            return None
        return left

    # --- orders that are there --------------------------------------------------------------------

    def _cancel_everything(self) -> None:
        for arguments in _ALL_ORDERS:
            try:
                answer = decode.answer(self._cancels.cancel_all_orders(**arguments))
            except InvalidRequestError as refusal:
                self._troubles.append(self._keys.hide(f"cancel-all: {refusal.status_code} {refusal.message}"))
            except FailedRequestError as failure:
                self._troubles.append(f"cancel-all: HTTP {failure.status_code}")
            except (requests.RequestException, DataError) as silence:
                self._troubles.append(f"cancel-all: {type(silence).__name__}")
            else:
                if answer.ret_code != 0:
                    self._troubles.append(f"cancel-all: {answer.ret_code} {answer.ret_msg}")

    def _look_up(self) -> None:
        """Ask what became of each order of which that is not known."""
        for one in self._ledger.unended():
            try:
                word = self._rest.look_up(one.instrument, one.order)
            except UnansweredError as silence:
                self._troubles.append(f"{one.order}: {silence}")
                continue
            if isinstance(word, Absence):
                if word.ts_asked - one.ts > _SURE_S * SECOND:
                    self._end(one, "never arrived", Decimal(0))
            elif word.stage is not OrderStage.OPEN:
                self._end(one, str(word.stage), word.filled)

    # --- orders that are made ---------------------------------------------------------------------

    def _close(self, name: str, quantity: Decimal, *, reduce_only: bool) -> None:
        """Send an order that takes a holding to nought, unless one is under way already."""
        if any(one.instrument == name for one in self._ledger.unended()):
            return
        most = self._rule(name).max_market_quantity
        size = min(abs(quantity), most) if most else abs(quantity)
        side = Side.SELL if quantity > 0 else Side.BUY
        closing = Closing(self._ledger.run, time.time_ns(), self._ledger.name(name), name, side, size)
        self._ledger.write(closing)
        order = SubmitOrder(
            client_order_id=closing.order,
            strategy=STRATEGY,
            instrument=name,
            side=side,
            quantity=size,
            limit=None,
            time_in_force=TimeInForce.IOC,
            reduce_only=reduce_only,
            reference=None,
            bracket=None,
        )
        self._tell(f"{closing.order}: {side.name} {size:f} {name} at the market")
        outcome = self._orders.send(order)
        match outcome.verdict:
            case Verdict.REFUSED:
                # The venue's word that it does not exist, or ours that it did not leave.
                self._end(closing, f"refused: {outcome.reason}", Decimal(0))
                self._troubles.append(f"{closing.order} was refused: {outcome.reason}")
            case Verdict.UNKNOWN:
                self._tell(f"{closing.order}: not known whether it arrived ({outcome.reason}); it will be looked up")
            case Verdict.ACCEPTED:
                pass

    def _sellable(self) -> dict[str, Decimal]:
        """What is still to be sold on spot: what the books say and what they missed, less what we have sold since.

        It is never more than is there.
        """
        if self._held is None:
            return {}
        quantities = self._held.quantities | self._missed(self._held)
        balances = self._rest.balances() if quantities else {}
        found: dict[str, Decimal] = {}
        for name, quantity in quantities.items():
            rule = self._rule(name)
            ours = quantity + self._ledger.traded(name, self._held.ts)
            # An order under way is not sold twice: `_close` waits for its end.
            free = rule.whole_steps(max(Decimal(0), min(ours, balances.get(rule.base, Decimal(0)))))
            if free >= rule.min_quantity and free > 0:
                found[name] = free
        return found

    def _missed(self, held: Holdings) -> dict[str, Decimal]:
        """What is held of each instrument in which the engine's orders traded and the books have not heard of it.

        An exit that the venue held need not bear our tag: whatever exit there was, it is taken for one of ours.
        """
        if not held.tag:
            return {}
        for name in held.quantities:
            self._rule(name)
        found: dict[str, Decimal] = {}
        for fill in self._rest.executions_since(Category.SPOT, held.ts - _UNHEARD_S * SECOND, time.time_ns()):
            if not isinstance(fill, Execution) or fill.trade_id in held.fills:
                continue
            if not (fill.exit or fill.link_id.startswith(held.tag)):
                continue
            name = fill.instrument
            fee = fill.fee if fill.fee_currency == self._rule(name).base else Decimal(0)
            found[name] = found.get(name, held.quantities.get(name, Decimal(0))) + fill.side * fill.quantity - fee
        return found

    def _beyond_us(self) -> tuple[str, ...]:
        if self._held is None:
            return ("spot is left alone: what strategies hold of it is not known",)
        return ()

    def _rule(self, name: str) -> Instrument:
        if name not in self._rules:
            symbol, category, _ = split_id(name)
            self._rules |= self._rest.rules(category, frozenset({symbol}))
        return self._rules[name]

    def _end(self, closing: Closing, how: str, filled: Decimal) -> None:
        self._ledger.write(Ended(time.time_ns(), closing.order, how, filled))
        self._tell(f"{closing.order}: {how}, {filled:f} traded")


def _fence(home: Path, tell: Callable[[str], None]) -> Fence | None:
    """Let nobody else send. A gateway that hangs may keep its lock: it sends nothing once the epoch is over."""
    try:
        epoch = int((home / "epoch").read_text(encoding="ascii")) + 1
    except (OSError, ValueError):
        epoch = 1
    write_epoch(home, epoch)
    try:
        # Longer than the venue takes a request for valid: what its holder sent before is too old afterwards.
        return Fence(home, epoch, wait_s=6.0)
    except VenueError as held:
        tell(f"{held}; its epoch is over, it sends nothing more: going on")
        return None


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _LETTERS[digit] + text
    return text or "0"
