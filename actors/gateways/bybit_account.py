"""One account at Bybit as we know it: what is told goes to whoever sends, what is heard is put in order and said.

It decides nothing. What it should have heard and did not, it asks for. Everything that can block has a thread of its own;
this is the one that never does.
"""

import queue
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import assert_never

from msgspec import structs

from actors.gateways.bybit_asking import Asking
from actors.gateways.bybit_endpoint import Endpoint, Keys, Pings, private_socket
from actors.gateways.bybit_meter import Meter
from actors.gateways.bybit_rest import Absence, AccountReport, Backoff, BybitRest, ClockOffset
from actors.gateways.bybit_sending import Sender
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
from actors.gateways.bybit_vigil import CatchUp, Insistence, Silence
from actors.gateways.bybit_words import (
    Clock,
    Done,
    Event,
    Found,
    Moot,
    Note,
    NotSent,
    Reported,
    Said,
    Told,
    VenueConfig,
)
from actors.gateways.threads import FAILED, guarded
from hean.bybit import decode
from hean.bybit.decode import Execution, OrderWord, Position
from hean.bybit.encode import Verdict, amend_request, cancel_request, order_request
from hean.bybit.lanes import CancelEverything, lessens
from hean.bybit.orders import Ask, OrderTracker, Question, Restored
from hean.bybit.topics import Topics
from hean.bybit.wire import Push
from hean.errors import DataError, VenueError
from hean.instruments import Category, Instrument
from hean.messages import (
    AmendOrder,
    CancelAll,
    CancelOrder,
    ErrorReported,
    FundingSettled,
    ReconcileDue,
    SnapshotAccount,
    SubmitOrder,
)
from hean.units import SECOND

_OVERLAP = 60 * SECOND
"""How far before the last answer executions are asked for again: the venue's list may lag."""

_PULSE_S = 0.05
_KEPT_SETTLEMENTS = 10_000


class BybitAccount:
    """Follows one account, until stopped.

    Args:
        endpoint: Where.
        keys: Who.
        instruments: The rules of what is traded, by id.
        say: Takes what happened, in batches, in order; called from this account's own thread, must not block.
        sender: Makes whoever sends, of a callable that takes what came of each request.
        since: From when on executions and the log are asked for: when they were last known to be complete.
        restored: Orders of an earlier life that may still be open.
        heard: The ids of fills, settlements and charges told in an earlier life.
        config: How, and how long.
        pace: How streams are begun again.
        pings: How often they ping.
        attempts: How many connections may be begun.
        backoff: Shared with whoever sends.
        meter: The account's rate budget, the same.
        node: Who reports an error.
        trades: Whether the key must be one that can trade.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        instruments: Mapping[str, Instrument],
        say: Callable[[Sequence[Said]], None],
        sender: Callable[[Callable[[Event], None]], Sender],
        *,
        since: int,
        restored: Iterable[Restored],
        heard: Iterable[str],
        config: VenueConfig,
        pace: Pace,
        pings: Pings,
        attempts: Attempts,
        backoff: Backoff,
        meter: Meter,
        node: str,
        trades: bool,
    ) -> None:
        self.config = config
        self.clock: ClockOffset | None = None
        self.positions: dict[str, Position] = {}
        self.balances: dict[str, Decimal] = {}
        self.last_report: AccountReport | None = None
        self.since = since
        self._endpoint = endpoint
        self._keys = keys
        self._instruments = dict(instruments)
        self._say = say
        self._backoff = backoff
        self._meter = meter
        self._node = node
        self._trades = trades
        heard = tuple(heard)
        self._settled: dict[str, None] = dict.fromkeys(heard[-_KEPT_SETTLEMENTS:])
        self._now = time.time_ns()
        self._ticked = self._ts_clock = 0
        self._out: list[Said] = []
        self._catch_up = CatchUp(config.patience_s)
        self._silence = Silence(config.silence_s, time.monotonic_ns())
        self._insistence = Insistence(config.patience_s)
        self._stopped = False
        self._asked: set[Question] = set()
        self.tracker = OrderTracker(
            node,
            restored,
            heard,
            self._now,
            absent_after=int((config.recv_window_ms / 1_000 + config.timeout_s + config.lag_s) * SECOND),
            patience=int(config.patience_s * SECOND),
        )
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.sender = sender(self._events.put)
        self.asking = Asking(self.rest, self._events.put)
        self.private = self._private_channel(pace, pings, attempts)
        self._thread = guarded(self._pump, "venue-pump", self._failed)

    def start(self) -> None:
        """Begin, with a key that may.

        Raises:
            ConfigError: The key may withdraw, or cannot trade.
            UnansweredError: The venue did not say what the key may do.
        """
        rest = self.rest()
        try:
            rest.must_not_withdraw(trades=self._trades)
        finally:
            rest.close()
        self._thread.start()
        self.asking.start()
        self.private.stream.start()
        self.sender.start()

    def tell(self, message: Told) -> None:
        """Take a command; what comes of it is said.

        Raises:
            ContractError: No request can be made of it; nothing was sent.
            VenueError: The gateway is stopped, or has failed; nothing was sent.
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
        if self._stopped:
            raise VenueError(f"the gateway of {self._endpoint.name} is stopped, and was told {message}: start another")
        self._events.put(message)

    def note(self, kind: str, detail: str) -> None:
        """Have an error reported; from any thread."""
        self._events.put(Note(kind, detail))

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all threads; those that the network holds end by themselves. What has not left by now does not."""
        self._stopped = True
        deadline = time.monotonic() + timeout_s
        self.sender.stop()
        self.private.stream.stop()
        self.asking.stop()
        self._events.put(None)
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self.asking.join(deadline)
        self.sender.join(deadline)
        self.private.stream.join(max(0.0, deadline - time.monotonic()))

    @property
    def alive(self) -> bool:
        """Whether it does its work: a thread that failed was reported, and does not come back."""
        return self._thread.is_alive() and self.asking.alive and self.private.stream.alive and self.sender.alive

    def rest(self) -> BybitRest:
        """One more conversation with the venue, for one thread."""
        return BybitRest(
            self._endpoint,
            self._keys,
            instruments=self._instruments,
            backoff=self._backoff,
            timeout_s=self.config.timeout_s,
            recv_window_ms=self.config.recv_window_ms,
            meter=self._meter,
        )

    # --- the pump's thread ----------------------------------------------------------------------

    def _pump(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_PULSE_S)
            except queue.Empty:
                self._now = time.time_ns()
            else:
                if event is None:
                    self._flush()
                    return
                self._now = time.time_ns()
                self._take(event)
            self._tick()
            self._flush()

    def _failed(self, reason: str) -> None:
        """The pump's last word."""
        self._stopped = True
        self._say([ErrorReported(self._node, FAILED, self._keys.hide(reason))])

    def _take(self, event: Event) -> None:
        match event:
            case SubmitOrder() | AmendOrder() | CancelOrder() | CancelAll() | SnapshotAccount():
                self._command(event)
            case Done():
                self._done(event)
            case NotSent():
                self._not_sent(event)
            case Moot(client_order_id=name):
                self._out += self.tracker.moot(name)
            case Found():
                self._found(event)
            case Reported():
                self._reported(event)
            case Clock(offset=offset):
                self._measured(offset)
            case Note(kind=kind, detail=detail):
                self._report(kind, detail)
            case Connected() | Lost() | Heard() | Failed():
                self._of_stream(event)
            case _:
                assert_never(event)

    def _tick(self) -> None:
        now, ticks = self._now, time.monotonic_ns()
        # By a clock that nobody sets back: supervision must not wait until the hour comes round again.
        if ticks - self._ticked < _PULSE_S * SECOND:
            return
        self._ticked = ticks
        self.private.tick(now)
        self.sender.tick()
        for question in self.tracker.due(now, waiting=self._asked):
            if question.ask is Ask.CANCEL:
                strategy = self.tracker.orders[question.client_order_id].order.strategy
                self.sender.put(CancelOrder(strategy, question.client_order_id, question.instrument))
            else:
                self._asked.add(question)
                self.asking.ask(question)
        for category in self._insistence.due(ticks):
            self.sender.put(CancelEverything(category))
        if self._catch_up.due(now):
            self._ask_for_everything()
        if now - self._ts_clock > self.config.clock_s * SECOND or now < self._ts_clock:
            self._ts_clock = now
            self.asking.measure()
        if self._silence.too_long(ticks, at_work=bool(self.tracker.open)):
            self._out.append(ReconcileDue(f"the private stream said nothing for {self.config.silence_s:g} s"))
            self._ask_for_everything()

    # --- commands -------------------------------------------------------------------------------

    def _command(self, message: Told) -> None:
        match message:
            case SubmitOrder():
                if self.tracker.sending(message, self._now):
                    self.sender.put(message, reduces=lessens(message))
                else:
                    self._report(
                        "told twice", f"order {message.client_order_id} was sent before, and is not sent again"
                    )
            case AmendOrder():
                self.tracker.amending(message)
                tracked = self.tracker.orders.get(message.client_order_id)
                self.sender.put(message, reduces=tracked is not None and lessens(tracked.order))
            case CancelOrder(client_order_id=client_order_id):
                self.tracker.canceling(client_order_id)
                self.sender.put(message)
            case CancelAll(strategy=strategy):
                self._cancel_all(strategy)
            case SnapshotAccount(request_id=request_id):
                self.asking.report(request_id, self.since)
            case _:
                assert_never(message)

    def _cancel_all(self, strategy: str) -> None:
        """Cancel what rests, and what would open and has not left; for all strategies, what nobody told us of too."""
        for tracked in self.tracker.open:
            order = tracked.order
            unsent = not lessens(order) and self.sender.holds(order.client_order_id)
            if strategy in {"", order.strategy} and (order.limit is not None or unsent):
                self.tracker.canceling(order.client_order_id)
                self.sender.put(CancelOrder(order.strategy, order.client_order_id, order.instrument))
        if not strategy:
            for category in (Category.LINEAR, Category.SPOT):
                self._insistence.begin(category)
                self.sender.put(CancelEverything(category))

    def _done(self, done: Done) -> None:
        asked, now = done.asked, self._now
        match asked:
            case SubmitOrder():
                self._out += self.tracker.created(asked.client_order_id, done.outcome, now)
            case AmendOrder():
                self._out += self.tracker.amended(asked, done.outcome, now)
            case CancelOrder():
                self._out += self.tracker.canceled(asked.client_order_id, asked.instrument, done.outcome, now)
            case CancelEverything(category=category):
                if done.outcome.verdict is Verdict.ACCEPTED:
                    self._insistence.accepted(category)
                else:
                    pause = self._insistence.failed(category, time.monotonic_ns())
                    self._report("cancel all failed", f"{category}: {done.outcome.reason}; again in {pause:g} s")
            case _:
                assert_never(asked)

    def _not_sent(self, event: NotSent) -> None:
        match event.asked:
            case SubmitOrder(client_order_id=name):
                self._out += self.tracker.unsent(name, event.reason)
            case AmendOrder(client_order_id=name):
                self._report("amend refused", f"{name}: {event.reason}")
            case CancelOrder():
                self._out += self.tracker.uncancelled(event.asked, event.reason, self._now)
            case _:
                assert_never(event.asked)

    # --- streams --------------------------------------------------------------------------------

    def _of_stream(self, event: StreamEvent) -> None:
        if event.stream != self.private.stream.name:
            if isinstance(event, Failed):
                self._report(FAILED, f"stream {event.stream}: {event.reason}")
            self.sender.hear(event)
            return
        was_live = self.private.topics.live
        said = self.private.take(event, self._now)
        match said:
            case Push():
                self._silence.heard(time.monotonic_ns())
                self._hear(said)
            case Trouble():
                self._report(said.kind, said.detail)
                if said.kind == UNREADABLE:
                    self._missed("the private stream")
            case None:
                pass
        if self.private.topics.live and not was_live:
            self._begun()

    def _begun(self) -> None:
        """The private stream stands: what it did not tell while it was away is asked for."""
        if self.private.generation > 1:
            self._out.append(ReconcileDue("the private stream was away"))
        self.tracker.doubt_all(self._now)
        self._ask_for_everything()

    def _ask_for_everything(self) -> None:
        if self._catch_up.begin():
            self.asking.report(None, self.since)

    def _hear(self, push: Push) -> None:
        try:
            match push.topic.partition(".")[0]:
                case "order":
                    for word in decode.orders(push.data):
                        self._out += self.tracker.heard(word, self._now)
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
        self.tracker.doubt_all(self._now)
        self._ask_for_everything()

    def _executed(self, executions: Iterable[Execution | FundingSettled]) -> None:
        for said in executions:
            if isinstance(said, Execution):
                self._out += self.tracker.executed(said)
            elif said.settlement_id not in self._settled:
                self._remember(said.settlement_id)
                self._out.append(said)

    def _remember(self, settlement: str) -> None:
        self._settled[settlement] = None
        if len(self._settled) > 2 * _KEPT_SETTLEMENTS:
            self._settled = dict.fromkeys(list(self._settled)[_KEPT_SETTLEMENTS:])

    # --- answers --------------------------------------------------------------------------------

    def _found(self, found: Found) -> None:
        self._asked.discard(found.question)
        client_order_id = found.question.client_order_id
        match found.answer:
            case OrderWord():
                self._out += self.tracker.heard(found.answer, self._now)
            case Absence(ts_asked=ts_asked):
                self._out += self.tracker.absent(client_order_id, ts_asked)
            case tuple():
                self._executed(found.answer)
                self._out += self.tracker.fills_told(client_order_id)
            case None:
                pass  # it is asked again

    def _reported(self, reported: Reported) -> None:
        report = reported.report
        self.last_report = report
        self._executed(report.executions)
        for word in report.orders:
            self._out += self.tracker.heard(word, self._now)
        if not report.failures:
            self.tracker.compare(report.orders, report.snapshot.ts_event, self._now)
        for line in report.transactions:
            charged = decode.interest(line)
            if charged is not None and charged.charge_id not in self._settled:
                self._remember(charged.charge_id)
                self._out.append(charged)
        if report.failures:
            self._report("snapshot incomplete", "; ".join(report.failures))
        else:
            skew = self.clock.offset if self.clock is not None else 0
            self.since = max(self.since, report.snapshot.ts_event + skew - _OVERLAP)
        for request_id in reported.request_ids:
            if request_id is None:
                self._catch_up.answered(self._now, failed=bool(report.failures))
            else:
                self._out.append(structs.replace(report.snapshot, request_id=request_id))

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
