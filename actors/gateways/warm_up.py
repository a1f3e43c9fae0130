"""The past that a strategy must know before it may speak, and the joint between that past and the feed.

Candles, premia, settlements and marks are asked for by REST and read as the feed reads them, so that a row is the same
whichever way it came. What was had once is kept on disk, and only what has happened since is asked for again. Quotes,
trades and books have no past.
"""

import fcntl
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from actors.gateways.bybit_endpoint import Endpoint
from actors.gateways.bybit_history import Throttle
from actors.gateways.bybit_rest import Backoff, BybitRest, UnansweredError
from hean.bybit import decode
from hean.bybit.decode import category_word
from hean.component import Observer
from hean.dispatcher import Dispatcher, Host
from hean.instruments import split_id
from hean.messages import Bar, Envelope, FundingRate, MarkPrice, Observation, PremiumIndex
from hean.tape import Ints, Stream, Tape
from hean.units import DAY, MILLISECOND, MINUTE, SECOND

PAST: tuple[type[Observation], ...] = (Bar, PremiumIndex, FundingRate, MarkPrice)
"""What can be asked for afterwards."""

_METHODS = {
    Bar: "get_kline",
    PremiumIndex: "get_premium_index_price_kline",
    MarkPrice: "get_mark_price_kline",
    FundingRate: "get_funding_rate_history",
}
_COLUMNS: dict[type[Observation], tuple[str, ...]] = {
    Bar: ("open", "high", "low", "close", "volume"),
    PremiumIndex: ("premium",),
    MarkPrice: ("price",),
    FundingRate: ("rate",),
}
_CANDLES_A_PAGE = 1_000
_SETTLEMENTS_A_PAGE = 200
_LATE_NS = 3 * SECOND  # what closed later than this ago may still change, or be open by the venue's clock
_SETTLED_LATE_NS = 60 * SECOND  # so long after its instant a settled rate may not be listed yet
_ASKED_PER_SECOND = 20.0  # Bybit v5, *Rate limit*: an address may ask 600 times in 5 s; this is a sixth of it
_ATTEMPTS = 5
_AT_ONCE = 4
_BRIDGED = 7 * DAY  # a longer time between what is kept and what is wanted is not asked for

Watch = tuple[str, type[Observation]]
Ask = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class Series(Struct, frozen=True):
    """What is known of one kind and instrument: every row later than `since`, oldest first, `ts` when each was known."""

    since: int
    ts: Ints
    columns: dict[str, NDArray[np.float64]]

    @property
    def until(self) -> int:
        """When the newest row was known; nothing later is."""
        return int(self.ts[-1]) if self.ts.size else self.since

    def joined(self, later: "Series") -> "Series":
        """These rows, and those that follow."""
        columns = {name: np.concatenate([column, later.columns[name]]) for name, column in self.columns.items()}
        return Series(self.since, np.concatenate([self.ts, later.ts]), columns)

    def within(self, since: int, until: int) -> "Series":
        """The rows later than one instant, and not later than another."""
        rows = slice(*self.ts.searchsorted([since, until], side="right").tolist())
        return Series(max(since, self.since), self.ts[rows], {name: of[rows] for name, of in self.columns.items()})


class History:
    """Asks a venue for the past.

    Args:
        endpoint: Where.
        kept: Directory of what was had before; None keeps nothing, as is right for a market that is made up anew.
        bar_minutes: Length of candles, that of the feed.
        asked_per_second: How often the venue is asked, at most. Who shares a directory takes turns.
        timeout_s: How long an answer may take.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        kept: Path | None,
        *,
        bar_minutes: int = 1,
        asked_per_second: float = _ASKED_PER_SECOND,
        timeout_s: float = 4.0,
    ) -> None:
        self.asked = 0
        self._endpoint = endpoint
        self._kept = kept
        self._bar_minutes = bar_minutes
        self._timeout_s = timeout_s
        self._backoff = Backoff()
        self._throttle = Throttle(time.monotonic, time.sleep, rate=asked_per_second)
        self._lock = threading.Lock()

    def tape(self, since: Mapping[Watch, int], until: int, *, attempts: int = _ATTEMPTS) -> Tape:
        """All that was later than an instant of each kind and instrument, and not later than another, as a tape.

        It waits, a few seconds at most, where something has closed at `until` but just now; and up to a minute for a settlement
        that is due.

        Args:
            since: For each kind and instrument wanted, the instant the rows before which are known, or not wanted.
            until: The last instant that is asked for.
            attempts: How often each page may be asked for.

        Raises:
            UnansweredError: The venue did not say.
        """
        wanted = [watch for watch in since if watch[1] in PAST]
        with self._turn(), ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(lambda watch: self._known(watch, since[watch], until, attempts), wanted))
        streams = [
            Stream(kind, instrument, rows.ts, dict(rows.columns), interval=self.length(kind))
            for (instrument, kind), rows in zip(wanted, found, strict=True)
            if rows.ts.size
        ]
        return Tape(streams)

    def rows(self, since: Mapping[Watch, int], until: int) -> Iterator[Observation]:
        """The same, message by message, in the order a tape tells them."""
        tape = self.tape(since, until)
        for position in range(tape.size):
            stream, row = tape.at(position)
            yield stream.message(row)

    def length(self, kind: type[Observation]) -> int:
        """How far the rows of a kind are apart, in nanoseconds; 0 where that is not fixed."""
        if kind is FundingRate:
            return 0
        return self._bar_minutes * MINUTE if kind is Bar else MINUTE

    # --- what is kept ---------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let one process at a time ask and write: what one has fetched the next one finds."""
        if self._kept is None:
            yield
            return
        self._kept.mkdir(parents=True, exist_ok=True)
        with (self._kept / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _known(self, watch: Watch, since: int, until: int, attempts: int) -> Series:
        _, kind = watch
        length = self.length(kind)
        since, until = (since // length * length, until // length * length) if length else (since, until)
        before = self._load(watch)
        if before is None or since < before.since or since - before.until > _BRIDGED:
            before = _nothing(kind, since)
        after = _nothing(kind, before.until)  # and no later, or a hole would be kept for ever
        try:
            for page in self._pages(watch, before.until, until, attempts):
                after = after.joined(page)
        finally:
            if after.ts.size:
                before = before.joined(after)
                self._save(watch, before)
        return before.within(since, until)

    def _file(self, watch: Watch) -> Path | None:
        instrument, kind = watch
        name = f"{kind.__name__}-{self.length(kind) // MINUTE}m-{instrument}.npz"
        return None if self._kept is None else self._kept / name

    def _load(self, watch: Watch) -> Series | None:
        """What was kept; None where nothing was, or what was written cannot be read."""
        file = self._file(watch)
        if file is None:
            return None
        try:
            with file.open("rb") as inside, np.load(inside, allow_pickle=False) as held:
                names = _COLUMNS[watch[1]]
                return Series(int(held["since"]), held["ts"], {name: held[name] for name in names})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def _save(self, watch: Watch, rows: Series) -> None:
        file = self._file(watch)
        if file is None:
            return
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            arrays: dict[str, Any] = {"since": np.int64(rows.since), "ts": rows.ts, **rows.columns}
            np.savez(out, **arrays)
        part.replace(file)

    # --- asking ---------------------------------------------------------------------------------

    def _pages(self, watch: Watch, since: int, until: int, attempts: int) -> Iterator[Series]:
        rest = BybitRest(self._endpoint, None, instruments={}, backoff=self._backoff, timeout_s=self._timeout_s)
        ask = partial(self._ask, rest, attempts)
        try:
            if watch[1] is FundingRate:
                yield _series(FundingRate, since, self._settlements(ask, watch[0], since, until))
            else:
                yield from self._candles(ask, watch, since, until)
        finally:
            rest.close()

    def _candles(self, ask: Ask, watch: Watch, since: int, until: int) -> Iterator[Series]:
        """Ask forwards, in windows of one page each: no page can be cut short, and a hole is the venue's own."""
        instrument, kind = watch
        length = self.length(kind)
        if since < until:
            _wait_for(until + _LATE_NS)
        asked = _named(instrument) | {"interval": str(length // MINUTE), "limit": _CANDLES_A_PAGE}
        for begin in range(since, until, _CANDLES_A_PAGE * length):
            last = min(begin + (_CANDLES_A_PAGE - 1) * length, until - length)
            window = {"start": begin // MILLISECOND, "end": last // MILLISECOND}
            said = ask(_METHODS[kind], asked | window)
            read = decode.rest_bars if kind is Bar else decode.premia
            rows: list[Any] = read(said, instrument, length=length, until=last + length)
            yield _series(kind, begin, [row for row in rows if row.ts_event > begin])

    def _settlements(self, ask: Ask, instrument: str, since: int, until: int) -> list[FundingRate]:
        """Ask backwards: the interval may have changed meanwhile. One that is due is waited for, a minute at most."""
        found = self._settled(ask, instrument, since, until)
        if len(found) > 1:
            due = 2 * found[-1].ts_event - found[-2].ts_event
            while found[-1].ts_event < due <= until and time.time_ns() < due + _SETTLED_LATE_NS:
                _wait_for(time.time_ns() + _LATE_NS)
                found += self._settled(ask, instrument, found[-1].ts_event, until)
        return found

    def _settled(self, ask: Ask, instrument: str, since: int, until: int) -> list[FundingRate]:
        found: list[FundingRate] = []
        first, last = since // MILLISECOND + 1, until // MILLISECOND
        while first <= last:
            window = {"startTime": first, "endTime": last, "limit": _SETTLEMENTS_A_PAGE}
            page = decode.settlements(ask(_METHODS[FundingRate], _named(instrument) | window), instrument)
            found = page + found
            if len(page) < _SETTLEMENTS_A_PAGE:
                break
            last = page[0].ts_event // MILLISECOND - 1
        return found

    def _ask(self, rest: BybitRest, attempts: int, method: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and again a while later: this is only read."""
        attempt = 1
        while True:
            with self._lock:
                self._throttle.take()
                self.asked += 1
            try:
                return rest.public(method, dict(asked))
            except UnansweredError:
                if attempt >= attempts:
                    raise
            time.sleep(0.25 * 2**attempt)
            attempt += 1


class Warmed(Struct, frozen=True):
    """What a strategy was told of the past: how many rows, how often the venue was asked, and how long it took."""

    rows: int
    asked: int
    seconds: float


class _Known(Struct):
    """What a strategy has had of one kind and instrument: the newest row, and how far the last two were apart."""

    ts: int
    apart: int = 0


class WarmUp:
    """One strategy's way into the present: the past first, in silence, and then the feed's rows, with no gap and no double.

    Until it is warm, rows are passed over: those that have a past are had from there. Then a row that is not newer
    than the last is dropped; and one that leaves a gap, because the feed was away, makes what is missing be asked for and folded in
    before it. What the venue itself does not have stays missing.

    Args:
        history: Who is asked.
        dispatcher: Hosts the strategy.
        host: The strategy.
        reach: How far back it looks, in nanoseconds, by kind.
        report: Takes what went wrong, in words.
    """

    def __init__(
        self,
        history: History,
        dispatcher: Dispatcher,
        host: Host,
        reach: Callable[[type[Observation]], int],
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.warm = False
        self._history = history
        self._dispatcher = dispatcher
        self._host = host
        self._reach = reach
        self._report = report
        self._known: dict[Watch, _Known] = {}
        self._watches = [watch for watch in sorted(host.node.watches, key=_name) if watch[1] in PAST]

    def begin(self, now: int) -> Warmed:
        """Tell the strategy all that has come to pass until `now`. The feed must be live, and its rows be coming here.

        Raises:
            UnansweredError: The venue did not say.
        """
        began, asked = time.monotonic(), self._history.asked
        since = {watch: now - self._reach(watch[1]) for watch in self._watches}
        rows = self._fold(since, now)
        self.warm = True
        return Warmed(rows, self._history.asked - asked, time.monotonic() - began)

    def join(self, batch: Sequence[Envelope]) -> list[Envelope]:
        """What of a batch the strategy is to be told; facts and commands pass as they are."""
        return [envelope for envelope in batch if self._passes(envelope.message)]

    def _passes(self, row: object) -> bool:
        if not isinstance(row, Observation):
            return True
        kind, ts = type(row), row.ts_event
        known = self._known.get((row.instrument, kind))
        if known is None:
            return self.warm
        if self._leaves_a_gap(known, kind, ts):
            self._fill(ts - 1 if kind is FundingRate else ts - known.apart)
        if ts <= known.ts:
            return False
        self._note((row.instrument, kind), ts)
        return True

    @staticmethod
    def _leaves_a_gap(known: _Known, kind: type[Observation], ts: int) -> bool:
        # Marks come when they change.
        return kind is not MarkPrice and 0 < known.apart < ts - known.ts

    def _fill(self, until: int) -> None:
        """Ask for what the feed did not tell, of everything watched: what closed together is folded together."""
        since = {watch: known.ts for watch, known in self._known.items() if watch[1] is not MarkPrice}
        try:
            rows = self._fold(since, until, attempts=1)
        except UnansweredError as silence:
            self._report(f"the feed has a gap, and nobody said what was in it: {silence}")
        else:
            self._report(f"the feed has a gap: {rows} rows were asked for")

    def _fold(self, since: Mapping[Watch, int], until: int, *, attempts: int = _ATTEMPTS) -> int:
        tape = self._history.tape(since, until, attempts=attempts)
        fold(self._dispatcher, self._host, tape)
        for watch, from_ts in since.items():
            stream = tape.stream(watch[1], watch[0])
            stamps: list[int] = [] if stream is None else stream.ts[-2:].tolist()
            if watch not in self._known:
                self._known[watch] = _Known(stamps.pop(0) if stamps else from_ts, self._history.length(watch[1]))
            for ts in stamps:
                self._note(watch, ts)
        return tape.size

    def _note(self, watch: Watch, ts: int) -> None:
        known = self._known[watch]
        if watch[1] is FundingRate:
            known.apart = ts - known.ts
        known.ts = ts


def fold(dispatcher: Dispatcher, host: Host, tape: Tape) -> None:
    """Let a strategy take a tape in, and hear nothing of what it says, as a backtest does before its start."""
    component = host.component
    if isinstance(component, Observer):
        component.skip(tape, 0, tape.size)
        return
    for position in range(tape.size):
        stream, row = tape.at(position)
        dispatcher.warm(host, stream.message(row), tape.ts_at(position))


def _named(instrument: str) -> dict[str, Any]:
    symbol, category, _ = split_id(instrument)
    return {"category": category_word(category), "symbol": symbol}


def _name(watch: Watch) -> tuple[str, str]:
    return watch[0], watch[1].__name__


def _nothing(kind: type[Observation], since: int) -> Series:
    return Series(since, np.empty(0, np.int64), {name: np.empty(0) for name in _COLUMNS[kind]})


def _series(kind: type[Observation], since: int, rows: Sequence[Any]) -> Series:
    names = _COLUMNS[kind]
    # A mark is read as a premium is: the close of its minute.
    fields = ("premium",) if kind is MarkPrice else names
    columns = {
        name: np.array([getattr(row, of) for row in rows], float) for name, of in zip(names, fields, strict=True)
    }
    return Series(since, np.array([row.ts_event for row in rows], np.int64), columns)


def _wait_for(ts: int) -> None:
    left = ts - time.time_ns()
    if left > 0:
        time.sleep(left / SECOND)
