"""The market as Bybit shows it: public sockets into observations, with what sockets do not tell asked for by REST.

Nothing wrong is shown: a book whose chain of updates breaks is unknown until its next snapshot, and said to be so.
What a lost connection kept from us is fetched: trades and closed candles, in their order. Settled rates and the premium
index have no stream and are asked for when they are due.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, assert_never

from msgspec import Struct

from actors.gateways.bybit_endpoint import Endpoint, Pings, public_socket
from actors.gateways.bybit_rest import Backoff, BybitRest, ClockOffset, UnansweredError
from actors.gateways.bybit_streams import (
    UNREADABLE,
    Attempts,
    Channel,
    Connected,
    Failed,
    Heard,
    Lost,
    Pace,
    Stream,
    StreamEvent,
    Trouble,
)
from actors.gateways.bybit_watched import LATE_NS, FeedConfig, Watched, ask_for, longest_silence, wanted
from actors.gateways.threads import FAILED, guarded
from hean.bybit import decode
from hean.bybit.book_chain import Link, unknown
from hean.bybit.decode import Print, Ticker, category_word
from hean.bybit.topics import Topics, TopicStage
from hean.bybit.wire import Push
from hean.errors import DataError
from hean.instruments import Category
from hean.messages import (
    Bar,
    ErrorReported,
    FeedLive,
    FeedStale,
    FundingRate,
    MarkPrice,
    Observation,
    PremiumIndex,
    Quote,
    Side,
    Trade,
)
from hean.units import MILLISECOND, MINUTE, SECOND

__all__ = ["BybitFeed", "FeedConfig", "Said", "ShownBook"]

Said = Observation | FeedStale | FeedLive | ErrorReported

_TOPICS_A_REQUEST = 10  # Bybit v5, *Connect*: the limit of spot; contracts allow more
_RETRY_NS = 5 * SECOND
_PULSE_S = 0.05


class ShownBook(Struct, frozen=True):
    """A book as it stands: best first."""

    u: int
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]


class _Question(Struct, frozen=True):
    number: int
    watched: Watched
    about: str


class _Answer(Struct, frozen=True):
    """What the asking thread brought back: None where the venue did not say."""

    number: int
    instrument: str
    about: str
    found: list[Any] | None


class _Clock(Struct, frozen=True):
    offset: ClockOffset


class BybitFeed:
    """Watches the market of one venue, until stopped.

    Args:
        endpoint: Where.
        watches: What is wanted, as components say it: instruments, each with a kind of observation.
        say: Takes what was seen, in batches, in order; called from the feed's own thread, must not block.
        config: Limits and pauses.
        pace: How streams are begun again.
        pings: How often they ping.
        attempts: How many connections may be begun; shared with other gateways of the venue.
        node: Who reports an error.

    Raises:
        ConfigError: Something wanted does not exist at Bybit.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        watches: Iterable[tuple[str, type[Observation]]],
        say: Callable[[Sequence[Said]], None],
        *,
        config: FeedConfig | None = None,
        pace: Pace | None = None,
        pings: Pings | None = None,
        attempts: Attempts | None = None,
        node: str = "feed",
    ) -> None:
        self.config = config or FeedConfig()
        self.clock: ClockOffset | None = None
        self.conflated = 0
        self._say = say
        self._node = node
        self._now = time.time_ns()
        self._watched = {one.instrument: one for one in wanted(watches, self.config, self._now)}
        self._by_topic: dict[tuple[Category, str], Watched] = {
            (one.category, topic): one for one in self._watched.values() for topic in one.topics
        }
        self._events: queue.SimpleQueue[StreamEvent | _Answer | _Clock | None] = queue.SimpleQueue()
        self._questions: queue.SimpleQueue[_Question | str | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._out: list[Said | None] = []
        self._newest: dict[tuple[str, type[Observation]], int] = {}
        self._flushed = 0
        self._asked = 0
        self._ts_clock = 0
        self._ticked = 0
        terms = pace or Pace(), pings or Pings(), attempts or Attempts()
        self._channels = {
            category: self._channel(endpoint, category, *terms)
            for category in dict.fromkeys(one.category for one in self._watched.values())
        }
        self._rest = BybitRest(endpoint, None, instruments={}, backoff=Backoff(), timeout_s=self.config.timeout_s)
        self._threads = [
            guarded(self._pump, "feed-pump", self._failed),
            guarded(self._ask, "feed-ask", lambda why: self._events.put(Failed("feed-ask", why))),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        for channel in self._channels.values():
            channel.stream.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all threads; those that the network holds end by themselves."""
        deadline = time.monotonic() + timeout_s
        for channel in self._channels.values():
            channel.stream.stop()
        self._events.put(None)
        self._questions.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for channel in self._channels.values():
            channel.stream.join(max(0.0, deadline - time.monotonic()))
        self._rest.close()

    @property
    def alive(self) -> bool:
        """Whether all of its threads are at work: one that failed was reported, and does not come back."""
        streams = (channel.stream for channel in self._channels.values())
        return all(thread.is_alive() for thread in self._threads) and all(stream.alive for stream in streams)

    def book(self, instrument: str) -> ShownBook | None:
        """The book of an instrument whose levels are watched; None while it is unknown."""
        with self._lock:
            chain = self._watched[instrument].chain
            if chain.book is None or chain.last is None:
                return None
            return ShownBook(chain.last, tuple(chain.book.levels(Side.BUY)), tuple(chain.book.levels(Side.SELL)))

    def _channel(self, endpoint: Endpoint, category: Category, pace: Pace, pings: Pings, attempts: Attempts) -> Channel:
        topics = [topic for of, topic in self._by_topic if of is category]
        word = category_word(category)
        stream = Stream(
            word,
            lambda hear, wires: public_socket(endpoint, word, hear, wires, pings),
            self._events.put,
            pace=pace,
            attempts=attempts,
            seed=self.config.seed,
        )
        return Channel(
            stream,
            Topics(
                {topic: longest_silence(topic, self.config) for topic in topics},
                per_request=_TOPICS_A_REQUEST,
                ack_ns=int(self.config.ack_s * SECOND),
                pause_ns=int(self.config.resync_s * SECOND),
                now=self._now,
            ),
        )

    # --- the pump's thread ----------------------------------------------------------------------

    def _pump(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_PULSE_S)
            except queue.Empty:
                self._tick()
                continue
            if event is None:
                self._flush(force=True)
                return
            self._now = time.time_ns()
            with self._lock:
                match event:
                    case _Answer():
                        self._answered(event)
                    case _Clock(offset=offset):
                        self._measured(offset)
                    case Failed(stream=stream, reason=reason):
                        self._report(FAILED, f"{stream}: {reason}")
                    case Connected() | Lost() | Heard():
                        self._of_stream(event)
                    case _:
                        assert_never(event)
            self._tick()

    def _failed(self, reason: str) -> None:
        """The pump's last word."""
        self._say([ErrorReported(self._node, FAILED, reason)])

    def _tick(self) -> None:
        self._now = now = time.time_ns()
        ticks = time.monotonic_ns()
        # By a clock that nobody sets back: supervision must not wait until the hour comes round again.
        if ticks - self._ticked >= _PULSE_S * SECOND:
            self._ticked = ticks
            for channel in self._channels.values():
                channel.tick(now)
            for watched in self._watched.values():
                self._watch_over(watched, now)
            if now - self._ts_clock > self.config.clock_s * SECOND:
                self._ts_clock = now
                self._questions.put("clock")
        self._flush()

    def _of_stream(self, event: StreamEvent) -> None:
        category = Category(event.stream.upper())
        channel = self._channels[category]
        said = channel.take(event, self._now)
        match said:
            case Push():
                self._hear(category, channel, said)
            case Trouble():
                self._report(said.kind, f"{event.stream}: {said.detail}")
            case None:
                if isinstance(event, Connected | Lost):
                    for watched in self._watched.values():
                        if watched.category is category:
                            self._begin_anew(watched, connected=isinstance(event, Connected))

    def _begin_anew(self, watched: Watched, *, connected: bool) -> None:
        """The connection came or went: what was kept of it means nothing, and what was missed is fetched."""
        self._forget_book(watched)
        watched.best.forget()
        watched.quote = None
        watched.ticker = Ticker(ts_next_funding=watched.ticker.ts_next_funding)
        watched.ts_ticker = 0
        if connected:
            watched.trades.begin_anew()

    def _hear(self, category: Category, channel: Channel, push: Push) -> None:
        watched = self._by_topic.get((category, push.topic))
        if watched is None:
            return  # of a topic given up
        try:
            kind, _, rest = push.topic.partition(".")
            match kind:
                case "orderbook" if rest.startswith("1."):
                    self._hear_best(watched, channel, push)
                case "orderbook":
                    self._hear_book(watched, channel, push)
                case "publicTrade":
                    self._hear_trades(watched, decode.prints(push, watched.instrument))
                case "tickers":
                    self._hear_ticker(watched, channel, push)
                case _:
                    self._hear_bars(watched, decode.bars(push, watched.instrument))
        except DataError as damage:
            self._report(UNREADABLE, str(damage))
            channel.topics.renew(push.topic)
            if push.topic.startswith("orderbook"):
                self._forget_book(watched)

    # --- books ----------------------------------------------------------------------------------

    def _hear_book(self, watched: Watched, channel: Channel, push: Push) -> None:
        update = decode.book_update(push, watched.instrument)
        match watched.chain.hear(update):
            case Link.FITS:
                if update.levels.snapshot:
                    channel.topics.settled(push.topic)
                self._tell(update.levels)
            case Link.OLD:
                pass
            case Link.WAITING:
                channel.topics.renew(push.topic)
            case Link.BROKEN:
                self._tell(unknown(watched.instrument, update.levels.ts_event))
                channel.topics.renew(push.topic)

    def _forget_book(self, watched: Watched) -> None:
        if watched.chain.book is not None:
            ts = watched.chain.ts_event
            watched.chain.forget()
            self._tell(unknown(watched.instrument, ts))

    def _hear_best(self, watched: Watched, channel: Channel, push: Push) -> None:
        update = decode.book_update(push, watched.instrument)
        link = watched.best.hear(update)
        if link in {Link.BROKEN, Link.WAITING}:
            channel.topics.renew(push.topic)
            return
        channel.topics.settled(push.topic)
        book = watched.best.book
        if book is None or book.bid is None or book.ask is None:
            return
        quote = (book.bid, book.size_at(Side.BUY, book.bid), book.ask, book.size_at(Side.SELL, book.ask))
        if quote != watched.quote:  # said again every three seconds without a change
            watched.quote = quote
            self._tell(Quote(watched.instrument, update.levels.ts_event, *quote))

    def _hear_ticker(self, watched: Watched, channel: Channel, push: Push) -> None:
        if push.type == "delta" and (push.ts < watched.ts_ticker or not watched.ticker.known):
            # A delta that was overtaken would undo what the later one said.
            channel.topics.renew(push.topic)
            watched.ticker.known = False
            return
        channel.topics.settled(push.topic)
        watched.ts_ticker = push.ts
        before = watched.ticker.ts_next_funding
        mark = watched.ticker.fold(push, watched.instrument)
        if before is not None and watched.ticker.ts_next_funding != before:
            watched.ts_struck = before
        if mark is not None and MarkPrice in watched.kinds:
            self._tell(mark)

    # --- trades ---------------------------------------------------------------------------------

    def _hear_trades(self, watched: Watched, prints: list[Print]) -> None:
        for trade in watched.trades.hear(prints):
            self._tell(trade)

    def _compare_trades(self, watched: Watched, answer: _Answer) -> None:
        joined = watched.trades.compare(answer.number, answer.found)
        if joined.again:
            watched.trades.awaited = self._ask_for(watched, "trades")
        for kind, detail in joined.troubles:
            self._report(kind, f"{watched.instrument}: {detail}")
        for trade in joined.trades:
            self._tell(trade)

    # --- candles, settlements, premia -----------------------------------------------------------

    def _hear_bars(self, watched: Watched, bars: list[Bar]) -> None:
        """Tell candles as they close. One that does not follow the last comes by REST, behind those between."""
        for bar in bars:
            if bar.ts_open > watched.ts_bar:
                self._ask_for(watched, "bars")
            else:
                self._bars(watched, [bar])

    def _bars(self, watched: Watched, bars: list[Bar]) -> None:
        for bar in bars:
            if bar.ts_event > watched.ts_bar:
                watched.ts_bar = bar.ts_event
                self._tell(bar)

    # --- what is due by REST --------------------------------------------------------------------

    def _watch_over(self, watched: Watched, now: int) -> None:
        channel = self._channels[watched.category]
        silent = channel.topics.silent(watched.topics, now)
        if silent != watched.stale:
            watched.stale = silent
            last = max((channel.topics.topics[topic].ts_heard for topic in watched.topics), default=0)
            self._tell(FeedStale(watched.instrument, last) if silent else FeedLive(watched.instrument))
        if Bar in watched.kinds and now > watched.ts_bar + self.config.bar_ns + LATE_NS:
            self._ask_for(watched, "bars")
        if PremiumIndex in watched.kinds and now > watched.ts_premium + MINUTE + LATE_NS:
            self._ask_for(watched, "premium")
        if FundingRate in watched.kinds and self._settlement_due(watched, now):
            self._ask_for(watched, "funding")
        if Trade in watched.kinds:
            self._join_trades(watched, channel, now)
        if Trade in watched.kinds and now > watched.trades.ts_audit + self.config.trade_audit_s * SECOND:
            watched.trades.ts_audit = now
            if "trades" not in watched.asking:
                self._ask_for(watched, "trades")

    def _join_trades(self, watched: Watched, channel: Channel, now: int) -> None:
        """Once the stream tells all that trades from now on, ask for what traded before."""
        if channel.topics.topics[f"publicTrade.{watched.symbol}"].stage is not TopicStage.LIVE:
            return
        if not watched.trades.ts_since:
            watched.trades.ts_since = now
        elif watched.trades.holds and watched.trades.awaited is None:
            watched.trades.awaited = self._ask_for(watched, "trades")

    def _settlement_due(self, watched: Watched, now: int) -> bool:
        """The ticker has gone on to the next settlement; or a minute went by, for tickers that say nothing."""
        if watched.ts_settled < watched.ts_struck <= now - LATE_NS:
            return True
        return now > watched.ts_asked.get("funding", 0) + MINUTE

    def _ask_for(self, watched: Watched, about: str) -> int:
        """Have something asked for, unless it just was or is still waiting for its turn; the number of the question."""
        again = about not in watched.asking and self._now - watched.ts_asked.get(about, 0) >= _RETRY_NS
        if again or about == "trades":
            watched.ts_asked[about] = self._now
            watched.asking.add(about)
            self._asked += 1
            self._questions.put(_Question(self._asked, watched, about))
        return self._asked

    def _answered(self, answer: _Answer) -> None:
        watched = self._watched[answer.instrument]
        watched.asking.discard(answer.about)
        match answer.about:
            case "trades":
                self._compare_trades(watched, answer)
            case "bars":
                self._bars(watched, answer.found or [])
            case "premium":
                for premium in answer.found or []:
                    if premium.ts_event > watched.ts_premium:
                        watched.ts_premium = premium.ts_event
                        self._tell(premium)
            case _:
                for rate in answer.found or []:
                    if rate.ts_event > watched.ts_settled:
                        watched.ts_settled = rate.ts_event
                        self._tell(rate)

    def _measured(self, offset: ClockOffset) -> None:
        self.clock = offset
        if abs(offset.offset) - offset.within > self.config.skew_s * SECOND:
            self._report(
                "clock skew", f"the venue's clock is {offset.offset / 1e9:+.3f} s from ours: set this machine's clock"
            )

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, said: Said) -> None:
        if isinstance(said, Quote | MarkPrice):
            key = (said.instrument, type(said))
            before = self._newest.get(key)
            if before is not None:
                self._out[before] = None  # only the latest of each counts
                self.conflated += 1
            self._newest[key] = len(self._out)
        self._out.append(said)

    def _report(self, kind: str, detail: str) -> None:
        self._tell(ErrorReported(self._node, kind, detail))

    def _flush(self, *, force: bool = False) -> None:
        now = time.monotonic_ns()
        if not self._out or (now - self._flushed < self.config.flush_ms * MILLISECOND and not force):
            return
        batch = [said for said in self._out if said is not None]
        self._out = []
        self._newest.clear()
        self._flushed = now
        self._say(batch)

    # --- the asking thread ----------------------------------------------------------------------

    def _ask(self) -> None:
        while (question := self._questions.get()) is not None:
            if isinstance(question, str):
                with suppress(UnansweredError):
                    self._events.put(_Clock(self._rest.clock_offset()))
                continue
            try:
                found = ask_for(self._rest, question.watched, question.about, self.config)
            except (UnansweredError, DataError):
                found = None
            self._events.put(_Answer(question.number, question.watched.instrument, question.about, found))
