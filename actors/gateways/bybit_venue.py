"""An account at Bybit: orders out, the private stream in, snapshots of all that is held.

It decides nothing. What it is told it sends, once; what it hears it puts in order (`hean.bybit.orders`) and says; what
it should have heard and did not, it asks for. Everything that can block has a thread of its own: each order's requests
go out one after the other, those of different orders side by side.
"""

import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import count
from typing import Any, Literal, assert_never

from msgspec import Struct
from pydantic import BaseModel, Field

from actors.gateways.bybit_endpoint import Endpoint, Keys, Pings, private_socket, trade_socket
from actors.gateways.bybit_rest import Absence, AccountReport, Backoff, BybitRest, ClockOffset, UnansweredError
from actors.gateways.bybit_streams import (
    GONE,
    UNREADABLE,
    Attempts,
    Channel,
    Connected,
    Heard,
    Lost,
    Pace,
    Stream,
    StreamEvent,
    Trouble,
)
from hean.bybit import decode
from hean.bybit.decode import Execution, OrderWord, Position
from hean.bybit.encode import (
    Action,
    AmendOrder,
    Outcome,
    Verdict,
    amend_request,
    cancel_request,
    order_request,
    outcome_of,
)
from hean.bybit.orders import Ask, OrderTracker, Question, Restored
from hean.bybit.topics import Topics
from hean.bybit.wire import Push
from hean.errors import DataError
from hean.instruments import Category, Instrument
from hean.messages import (
    AccountSnapshot,
    CancelAll,
    CancelOrder,
    ErrorReported,
    FundingSettled,
    InterestCharged,
    OrderFact,
    SnapshotAccount,
    SubmitOrder,
)
from hean.units import SECOND

ORDER_THREADS = 4
_OVERLAP = 60 * SECOND
"""How far before the last answer executions are asked for again: the venue's list may lag."""

_PULSE_S = 0.05
_PULSE = object()
_CANCEL_ALL = object()
_KEPT_SETTLEMENTS = 10_000
_LONGEST_PAUSE_S = 30.0


class VenueConfig(BaseModel, frozen=True, extra="forbid"):
    """How orders travel, and how long things may take."""

    orders_by: Literal["rest", "socket"] = Field(
        default="rest", description="how orders are sent while both ways stand"
    )
    timeout_s: float = Field(default=5, gt=0, description="how long an answer may take; then the outcome is unknown")
    recv_window_ms: int = Field(default=5_000, gt=0, description="a request older than this the venue refuses")
    lag_s: float = Field(default=5, ge=0, description="how far the venue's answers about orders may lag")
    patience_s: float = Field(default=1, gt=0, description="what the stream has not said by then is asked for")
    guard_s: int | None = Field(
        default=None, ge=3, le=300, description="the venue cancels all orders when we are gone for so long (DCP)"
    )
    ack_s: float = Field(default=5, gt=0, description="how long a subscription's acknowledgement may take")
    clock_s: float = Field(default=60, gt=0, description="between two measurements of the venue's clock")
    skew_s: float = Field(default=1, gt=0, description="a clock further off than this is reported")
    seed: int = Field(default=0, description="of the jitter between attempts")


class ReconcileDue(Struct, frozen=True):
    """The private stream was away, or said something that could not be read: what we believe must be compared."""

    reason: str


Told = SubmitOrder | AmendOrder | CancelOrder | CancelAll | SnapshotAccount
Said = OrderFact | FundingSettled | InterestCharged | AccountSnapshot | ErrorReported | ReconcileDue


class _Done(Struct, frozen=True):
    """What came of a request."""

    asked: SubmitOrder | AmendOrder | CancelOrder
    outcome: Outcome


class _Found(Struct, frozen=True):
    """What the venue says of one order: its state, its executions, or nothing that could be read (None)."""

    question: Question
    answer: OrderWord | Absence | tuple[Execution | FundingSettled, ...] | None


class _Reported(Struct, frozen=True):
    """An answer to `SnapshotAccount`, or to our own wish to catch up (`request_id` None)."""

    request_id: int | None
    report: AccountReport


class _Clock(Struct, frozen=True):
    offset: ClockOffset


class _Note(Struct, frozen=True):
    kind: str
    detail: str


class _Pending(Struct, frozen=True):
    """A request on the trade socket that waits for its answer until `ts_limit`."""

    asked: SubmitOrder | AmendOrder | CancelOrder
    generation: int
    ts_limit: int


class BybitVenue:
    """Trades one account, until stopped.

    Args:
        endpoint: Where.
        keys: Who.
        instruments: The rules of what is traded, by id.
        say: Takes what happened, in batches, in order; called from the gateway's own thread, must not block.
        since: From when on executions and the log are asked for: when they were last known to be complete.
        restored: Orders of an earlier life that may still be open.
        heard: The ids of fills and settlements told in an earlier life: `trade_id` and `settlement_id`.
        config: How, and how long.
        pace: How streams are begun again.
        pings: How often they ping.
        attempts: How many connections may be begun; shared with other gateways of the venue.
        node: Who reports an error.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        instruments: Mapping[str, Instrument],
        say: Callable[[Sequence[Said]], None],
        *,
        since: int,
        restored: Iterable[Restored] = (),
        heard: Iterable[str] = (),
        config: VenueConfig | None = None,
        pace: Pace | None = None,
        pings: Pings | None = None,
        attempts: Attempts | None = None,
        node: str = "venue",
    ) -> None:
        self.config = config or VenueConfig()
        self.clock: ClockOffset | None = None
        self.positions: dict[str, Position] = {}
        self.balances: dict[str, Decimal] = {}
        self.last_report: AccountReport | None = None
        self._endpoint = endpoint
        self._keys = keys
        self._instruments = dict(instruments)
        self._say = say
        self._node = node
        self._since = since
        heard = tuple(heard)
        self._settled: dict[str, None] = dict.fromkeys(heard[-_KEPT_SETTLEMENTS:])
        self._now = time.time_ns()
        self._ticked = self._ts_clock = 0
        self._out: list[Said] = []
        self._catching_up = False
        self._failed = 0
        self._ts_catch_up: int | None = None
        self._tracker = OrderTracker(
            node,
            restored,
            heard,
            self._now,
            absent_after=int((self.config.recv_window_ms / 1_000 + self.config.timeout_s + self.config.lag_s) * SECOND),
            patience=int(self.config.patience_s * SECOND),
        )
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.backoff = Backoff(lambda detail: self._events.put(_Note("backoff", detail)))
        self._stopping = threading.Event()
        self._asking: set[Question] = set()
        self._numbers = count()
        self._pending: dict[int, _Pending] = {}
        self._pending_lock = threading.Lock()
        pace, pings, attempts = pace or Pace(), pings or Pings(), attempts or Attempts()
        self._private = self._private_channel(pace, pings, attempts)
        self._trade = self._trade_stream(pace, pings, attempts)
        self._lanes: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(ORDER_THREADS)]
        self._questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._pump, name="venue-pump", daemon=True),
            threading.Thread(target=self._answer, name="venue-ask", daemon=True, args=(self._questions,)),
            threading.Thread(target=self._answer, name="venue-report", daemon=True, args=(self._reports,)),
            *(
                threading.Thread(target=self._send_from, name=f"venue-orders-{number}", daemon=True, args=(lane,))
                for number, lane in enumerate(self._lanes)
            ),
        ]

    def start(self) -> None:
        """Begin to trade, with a key that may.

        Raises:
            ConfigError: The key may withdraw, or cannot trade.
            UnansweredError: The venue did not say what the key may do.
        """
        rest = self._rest()
        try:
            rest.must_not_withdraw()
        finally:
            rest.close()
        for thread in self._threads:
            thread.start()
        self._private.stream.start()
        if self._trade is not None:
            self._trade.start()

    def tell(self, message: Told) -> None:
        """Take a command; what comes of it is said.

        Raises:
            ContractError: No request can be made of it; nothing was sent.
        """
        match message:
            case SubmitOrder():
                order_request(message)
            case AmendOrder():
                amend_request(message)
            case CancelOrder():
                cancel_request(message)
            case CancelAll() | SnapshotAccount():
                pass
            case _:
                assert_never(message)
        self._events.put(message)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all threads; those that the network holds end by themselves. What has not left by now does not."""
        self._stopping.set()
        deadline = time.monotonic() + timeout_s
        for stream in self._streams:
            stream.stop()
        for mailbox in (*self._lanes, self._questions, self._reports, self._events):
            mailbox.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        for stream in self._streams:
            stream.join(max(0.0, deadline - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether all of its threads are at work: one that failed says so on standard error, and does not come back."""
        return all(thread.is_alive() for thread in self._threads) and all(stream.alive for stream in self._streams)

    @property
    def _streams(self) -> list[Stream]:
        return [self._private.stream] + ([self._trade] if self._trade is not None else [])

    # --- the pump's thread ----------------------------------------------------------------------

    def _pump(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_PULSE_S)
            except queue.Empty:
                event = _PULSE
            if event is None:
                self._flush()
                return
            self._now = time.time_ns()
            self._take(event)
            self._tick()
            self._flush()

    def _take(self, event: Any) -> None:
        match event:
            case SubmitOrder() | AmendOrder() | CancelOrder() | CancelAll() | SnapshotAccount():
                self._command(event)
            case _Done():
                self._done(event)
            case _Found():
                self._found(event)
            case _Reported():
                self._reported(event)
            case _Clock(offset=offset):
                self._measured(offset)
            case _Note(kind=kind, detail=detail):
                self._report(kind, detail)
            case Connected() | Lost() | Heard():
                self._of_stream(event)

    def _tick(self) -> None:
        now, ticks = self._now, time.monotonic_ns()
        # By a clock that nobody sets back: supervision must not wait until the hour comes round again.
        if ticks - self._ticked < _PULSE_S * SECOND:
            return
        self._ticked = ticks
        self._private.tick(now)
        for question in self._tracker.due(now, waiting=self._asking):
            if question.ask is Ask.CANCEL:
                strategy = self._tracker.orders[question.client_order_id].order.strategy
                self._dispatch(CancelOrder(strategy, question.client_order_id, question.instrument))
            else:
                self._asking.add(question)
                self._questions.put(question)
        self._give_up(lambda pending: pending.ts_limit < now, "no answer in time")
        if self._ts_catch_up is not None and now >= self._ts_catch_up:
            self._catch_up()
        if now - self._ts_clock > self.config.clock_s * SECOND:
            self._ts_clock = now
            self._questions.put("clock")

    # --- commands -------------------------------------------------------------------------------

    def _command(self, message: Told) -> None:
        match message:
            case SubmitOrder():
                if self._tracker.sending(message, self._now):
                    self._dispatch(message)
                else:
                    self._report(
                        "told twice", f"order {message.client_order_id} was sent before, and is not sent again"
                    )
            case AmendOrder():
                self._tracker.amending(message)
                self._dispatch(message)
            case CancelOrder(client_order_id=client_order_id):
                self._tracker.canceling(client_order_id)
                self._dispatch(message)
            case CancelAll(strategy=strategy):
                for tracked in self._tracker.open:
                    order = tracked.order
                    if strategy in {"", order.strategy} and order.limit is not None:
                        self._tracker.canceling(order.client_order_id)
                        self._dispatch(CancelOrder(order.strategy, order.client_order_id, order.instrument))
                if not strategy:
                    self._lanes[0].put(_CANCEL_ALL)
            case SnapshotAccount(request_id=request_id):
                self._reports.put((request_id, self._since))
            case _:
                assert_never(message)

    def _dispatch(self, message: SubmitOrder | AmendOrder | CancelOrder) -> None:
        """Give a request to the thread of its order: a cancel cannot overtake what it cancels."""
        self._lanes[zlib.crc32(message.client_order_id.encode()) % ORDER_THREADS].put(message)

    def _done(self, done: _Done) -> None:
        asked, now = done.asked, self._now
        match asked:
            case SubmitOrder():
                self._out += self._tracker.created(asked.client_order_id, done.outcome, now)
            case AmendOrder():
                self._out += self._tracker.amended(asked, done.outcome, now)
            case CancelOrder():
                self._out += self._tracker.canceled(asked.client_order_id, asked.instrument, done.outcome, now)
            case _:
                assert_never(asked)

    # --- streams --------------------------------------------------------------------------------

    def _of_stream(self, event: StreamEvent) -> None:
        if event.stream == "trade":
            if isinstance(event, Lost):
                self._give_up(lambda pending: pending.generation == event.generation, "the connection was lost")
            return
        was_live = self._private.topics.live
        said = self._private.take(event, self._now)
        match said:
            case Push():
                self._hear(said)
            case Trouble():
                self._report(said.kind, said.detail)
                if said.kind == UNREADABLE:
                    self._missed("the private stream")
            case None:
                pass
        if self._private.topics.live and not was_live:
            self._begun()

    def _begun(self) -> None:
        """The private stream stands: what it did not tell while it was away is asked for."""
        if self._private.generation > 1:
            self._out.append(ReconcileDue("the private stream was away"))
        self._tracker.doubt_all(self._now)
        self._catch_up()

    def _catch_up(self) -> None:
        self._ts_catch_up = None
        if not self._catching_up:
            self._catching_up = True
            self._reports.put((None, self._since))

    def _hear(self, push: Push) -> None:
        try:
            match push.topic.partition(".")[0]:
                case "order":
                    for word in decode.orders(push.data):
                        self._out += self._tracker.heard(word, self._now)
                case "execution":
                    self._executed(decode.executions(push.data, self._instruments))
                case "position":
                    self.positions |= {position.instrument: position for position in decode.positions(push.data)}
                case "wallet":
                    self.balances |= decode.balances(push.data)
                case _:
                    pass
        except DataError as damage:
            self._report(UNREADABLE, str(damage))
            self._missed(push.topic)

    def _missed(self, whence: str) -> None:
        """A message came that could not be read: what it said is asked for."""
        self._out.append(ReconcileDue(f"a message of {whence} could not be read"))
        self._tracker.doubt_all(self._now)
        self._catch_up()

    def _executed(self, executions: Iterable[Execution | FundingSettled]) -> None:
        for said in executions:
            if isinstance(said, Execution):
                self._out += self._tracker.executed(said)
            elif said.settlement_id not in self._settled:
                self._remember(said.settlement_id)
                self._out.append(said)

    def _remember(self, settlement: str) -> None:
        self._settled[settlement] = None
        if len(self._settled) > 2 * _KEPT_SETTLEMENTS:
            self._settled = dict.fromkeys(list(self._settled)[_KEPT_SETTLEMENTS:])

    # --- answers --------------------------------------------------------------------------------

    def _found(self, found: _Found) -> None:
        self._asking.discard(found.question)
        client_order_id = found.question.client_order_id
        match found.answer:
            case OrderWord():
                self._out += self._tracker.heard(found.answer, self._now)
            case Absence(ts_asked=ts_asked):
                self._out += self._tracker.absent(client_order_id, ts_asked)
            case tuple():
                self._executed(found.answer)
                self._out += self._tracker.fills_told(client_order_id)
            case None:
                pass  # it is asked again

    def _reported(self, reported: _Reported) -> None:
        report = reported.report
        self.last_report = report
        self._executed(report.executions)
        for word in report.orders:
            self._out += self._tracker.heard(word, self._now)
        if not report.failures:
            self._tracker.compare(report.orders, report.snapshot.ts_event, self._now)
        for line in report.transactions:
            charged = decode.interest(line)
            if charged is not None and line.row_id not in self._settled:
                self._remember(line.row_id)
                self._out.append(charged)
        if report.failures:
            self._report("snapshot incomplete", "; ".join(report.failures))
        else:
            skew = self.clock.offset if self.clock is not None else 0
            self._since = max(self._since, report.snapshot.ts_event + skew - _OVERLAP)
        if reported.request_id is None:
            self._catching_up = False
            self._failed = self._failed + 1 if report.failures else 0
            # What cannot be read now may never be: it is asked for again later and later.
            pause = min(self.config.patience_s * 2 ** min(self._failed - 1, 10), _LONGEST_PAUSE_S)
            self._ts_catch_up = self._now + int(pause * SECOND) if report.failures else None
        else:
            self._out.append(report.snapshot)

    def _measured(self, offset: ClockOffset) -> None:
        self.clock = offset
        if abs(offset.offset) - offset.within > self.config.skew_s * SECOND:
            self._report(
                "clock skew", f"the venue's clock is {offset.offset / 1e9:+.3f} s from ours: set this machine's clock"
            )

    def _report(self, kind: str, detail: str) -> None:
        self._out.append(ErrorReported(self._node, kind, self._keys.hide(detail)))

    def _flush(self) -> None:
        if self._out:
            batch, self._out = self._out, []
            self._say(batch)

    # --- the threads that send ------------------------------------------------------------------

    def _rest(self) -> BybitRest:
        return BybitRest(
            self._endpoint,
            self._keys,
            instruments=self._instruments,
            backoff=self.backoff,
            timeout_s=self.config.timeout_s,
            recv_window_ms=self.config.recv_window_ms,
        )

    def _send_from(self, lane: "queue.SimpleQueue[Any]") -> None:
        rest = self._rest()
        while (message := lane.get()) is not None:
            if self._stopping.is_set():
                break
            if message is _CANCEL_ALL:
                self._cancel_all(rest)
                continue
            if self._by_socket(message):
                continue
            match message:
                case SubmitOrder():
                    outcome = rest.place(message)
                case AmendOrder():
                    outcome = rest.amend(message)
                case _:
                    outcome = rest.cancel(message)
            self._events.put(_Done(message, outcome))
        rest.close()

    def _by_socket(self, message: SubmitOrder | AmendOrder | CancelOrder) -> bool:
        """Send by the trade socket, if it is wanted and stands. Once it may have left, it left."""
        socket = self._trade.socket if self._trade is not None else None
        if socket is None or self._trade is None:
            return False
        action, send, arguments = self._by_method(socket, message)
        key = next(self._numbers)
        limit = time.time_ns() + int(self.config.timeout_s * SECOND)
        with self._pending_lock:
            self._pending[key] = _Pending(message, self._trade.generation, limit)

        def answered(answer: Any) -> None:
            with self._pending_lock:
                self._pending.pop(key, None)
            fields = answer if isinstance(answer, dict) else {}
            data = fields.get("data")
            text = self._keys.hide(str(fields.get("retMsg", "")))
            outcome = outcome_of(fields.get("retCode"), text, action, data if isinstance(data, dict) else None)
            self._events.put(_Done(message, outcome))

        try:
            send(answered, answered, **arguments)
        except GONE as failure:
            with self._pending_lock:
                self._pending.pop(key, None)
            self._events.put(_Done(message, Outcome(Verdict.UNKNOWN, type(failure).__name__)))
        return True

    @staticmethod
    def _by_method(
        socket: Any, message: SubmitOrder | AmendOrder | CancelOrder
    ) -> tuple[Action, Callable[..., None], dict[str, Any]]:
        match message:
            case SubmitOrder():
                return Action.CREATE, socket.place_order, order_request(message)
            case AmendOrder():
                return Action.AMEND, socket.amend_order, amend_request(message)
            case _:
                return Action.CANCEL, socket.cancel_order, cancel_request(message)

    def _give_up(self, hopeless: Callable[[_Pending], bool], reason: str) -> None:
        """Requests on the trade socket that no answer will come to: their outcome is unknown."""
        with self._pending_lock:
            lost = [(key, pending) for key, pending in self._pending.items() if hopeless(pending)]
            for key, _ in lost:
                del self._pending[key]
        for _, pending in lost:
            self._done(_Done(pending.asked, Outcome(Verdict.UNKNOWN, reason)))

    # --- the threads that ask -------------------------------------------------------------------

    def _answer(self, questions: "queue.SimpleQueue[Any]") -> None:
        rest = self._rest()
        if questions is self._reports:
            self._guard(rest)
        while (question := questions.get()) is not None:
            if self._stopping.is_set():
                break
            match question:
                case Question():
                    self._events.put(_Found(question, self._look(rest, question)))
                case "clock":
                    self._measure(rest)
                case (request_id, since):
                    report = rest.report(request_id or 0, since, (Category.LINEAR, Category.SPOT))
                    self._events.put(_Reported(request_id, report))
        rest.close()

    def _look(self, rest: BybitRest, question: Question) -> OrderWord | Absence | tuple[Any, ...] | None:
        try:
            if question.ask is Ask.STATE:
                return rest.look_up(question.instrument, question.client_order_id)
            return tuple(rest.executions_of(question.instrument, question.client_order_id))
        except UnansweredError:
            return None

    def _measure(self, rest: BybitRest) -> None:
        try:
            self._events.put(_Clock(rest.clock_offset()))
        except UnansweredError as silence:
            self._events.put(_Note("clock unknown", str(silence)))

    def _cancel_all(self, rest: BybitRest) -> None:
        """Cancel what rests, orders that nobody told us of included."""
        for category in (Category.LINEAR, Category.SPOT):
            outcome = rest.cancel_all(category)
            if outcome.verdict is not Verdict.ACCEPTED:
                self._events.put(_Note("cancel all failed", f"{category}: {outcome.reason}"))

    def _guard(self, rest: BybitRest) -> None:
        if self.config.guard_s is None:
            return
        for product in ("DERIVATIVES", "SPOT"):
            outcome = rest.guard_disconnect(product, self.config.guard_s)
            if outcome.verdict is not Verdict.ACCEPTED:
                self._events.put(_Note("no disconnect guard", f"{product}: {outcome.reason}"))

    # --- streams --------------------------------------------------------------------------------

    def _private_channel(self, pace: Pace, pings: Pings, attempts: Attempts) -> Channel:
        topics = ["order", "execution", "position", "wallet"]
        if self.config.guard_s is not None:
            topics += ["dcp.future", "dcp.spot"]
        stream = Stream(
            "private",
            lambda hear, wires: private_socket(self._endpoint, self._keys, hear, wires, pings),
            self._events.put,
            pace=pace,
            attempts=attempts,
            seed=self.config.seed,
        )
        ack = int(self.config.ack_s * SECOND)
        return Channel(
            stream,
            Topics(dict.fromkeys(topics), per_request=len(topics), ack_ns=ack, pause_ns=SECOND, now=self._now),
        )

    def _trade_stream(self, pace: Pace, pings: Pings, attempts: Attempts) -> Stream | None:
        if self.config.orders_by != "socket" or not self._endpoint.trade:
            return None
        return Stream(
            "trade",
            lambda _, wires: trade_socket(self._endpoint, self._keys, wires, self.config.recv_window_ms, pings),
            self._events.put,
            pace=pace,
            attempts=attempts,
            seed=self.config.seed,
            ready=lambda socket: bool(socket.auth),
        )
