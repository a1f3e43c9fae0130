"""The threads that send: what waits in the lanes goes out when its turn comes, by REST or by the trade socket, once.

The requests of one order go out one after the other, those of different orders side by side. One thread is kept free of
what opens, so that a cancel need not wait for an answer to it.
"""

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from msgspec import Struct

from actors.gateways.bybit_endpoint import Endpoint, Keys
from actors.gateways.bybit_meter import Meter
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Backoff
from actors.gateways.bybit_streams import GONE, Lost, Stream, StreamEvent
from actors.gateways.bybit_words import Done, Event, Moot, Note, NotSent, VenueConfig
from actors.gateways.fence import Fence, FencedError
from actors.gateways.threads import FAILED, guarded
from hean.bybit.encode import Action, Outcome, Verdict, amend_request, cancel_request, order_request, outcome_of
from hean.bybit.lanes import CancelEverything, Lanes, OrderRequest, Rank, Request, action_of, group
from hean.messages import AmendOrder, SubmitOrder
from hean.units import SECOND

ORDER_THREADS = 4
_TOO_OFTEN = 10006
_LONGEST_WAIT_S = 1.0


class Sender(Protocol):
    """Whoever sends what an account is told; of what becomes of it, the account is told by an event."""

    def start(self) -> None: ...

    def put(self, request: Request, *, reduces: bool = False) -> None:
        """Take a request; `reduces` marks an order, or the amendment of one, that can only lessen a position."""

    def holds(self, client_order_id: str) -> bool:
        """Whether an order has not left yet."""

    def hear(self, event: StreamEvent) -> None:
        """Take in an event of a stream that it has opened."""

    def tick(self) -> None:
        """Give up what is hopeless, and give back what is too old."""

    def stop(self) -> None: ...

    def join(self, deadline: float) -> None: ...

    @property
    def alive(self) -> bool: ...


class _Pending(Struct, frozen=True):
    """A request on the trade socket that waits for its answer until `limit`, by the monotonic clock."""

    asked: OrderRequest
    generation: int
    limit: int


class Sending:
    """Sends.

    Args:
        endpoint: Where.
        keys: Who.
        config: How, and how long.
        tell: Takes what came of each request; must not block.
        backoff: Shared with the other threads of the account.
        meter: The account's rate budget, the same.
        fence: The right to send; None where nobody else could.
        trade: The trade socket; None where orders go by REST alone.
        going: Told of each order when its turn has come, just before it is sent; called from the threads that send, must not
            block.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        config: VenueConfig,
        tell: Callable[[Event], None],
        *,
        backoff: Backoff,
        meter: Meter,
        fence: Fence | None,
        trade: Stream | None,
        going: Callable[[SubmitOrder], None] | None = None,
    ) -> None:
        self.trade = trade
        self._going = going
        self.lanes = Lanes(meter.budget, int(config.age_s * SECOND))
        self._endpoint = endpoint
        self._keys = keys
        self._config = config
        self._tell = tell
        self._backoff = backoff
        self._meter = meter
        self._fence = fence
        self._stopping = False
        self._fenced = False
        self._numbers = count()
        self._pending: dict[int, _Pending] = {}
        self._pending_lock = threading.Lock()
        lasts = [Rank.REDUCE] + [Rank.OPEN] * (ORDER_THREADS - 1)
        self._threads = [
            guarded(self._send_from, f"venue-orders-{number}", self._failed, last) for number, last in enumerate(lasts)
        ]
        if config.guard_s is not None:
            self._guarding: threading.Thread | None = guarded(
                self._guard, "venue-guard", self._failed, int(config.guard_s)
            )
        else:
            self._guarding = None

    def start(self) -> None:
        for thread in self._threads:
            thread.start()
        if self.trade is not None:
            self.trade.start()
        if self._guarding is not None:
            self._guarding.start()

    def put(self, request: Request, *, reduces: bool = False) -> None:
        with self._meter.turn:
            if self._fenced or self._stopping:
                return
            waits = self.lanes.put(request, time.monotonic_ns(), reduces=reduces)
            self._meter.turn.notify_all()
        if not waits:
            self._tell(Moot(request.client_order_id))

    def holds(self, client_order_id: str) -> bool:
        with self._meter.turn:
            return self.lanes.holds(client_order_id)

    def hear(self, event: StreamEvent) -> None:
        if isinstance(event, Lost):
            self._give_up(lambda pending: pending.generation == event.generation, "the connection was lost")

    def tick(self) -> None:
        now = time.monotonic_ns()
        self._give_up(lambda pending: pending.limit < now, "no answer in time")
        with self._meter.turn:
            old = self.lanes.aged(now)
        for waiting in old:
            if not isinstance(waiting.request, CancelEverything):
                self._tell(NotSent(waiting.request, f"too old: waited {(now - waiting.since) / SECOND:.1f} s"))

    def stop(self) -> None:
        with self._meter.turn:
            self._stopping = True
            self.lanes.clear()
            self._meter.turn.notify_all()
        if self.trade is not None:
            self.trade.stop()

    def join(self, deadline: float) -> None:
        for thread in [*self._threads, self._guarding]:
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if self.trade is not None:
            self.trade.join(max(0.0, deadline - time.monotonic()))
        if self._fence is not None:
            self._fence.release()

    @property
    def alive(self) -> bool:
        """Whether it can send: all threads are at work, and nobody has taken its place."""
        threads = all(thread.is_alive() for thread in self._threads)
        return threads and not self._fenced and (self.trade is None or self.trade.alive)

    # --- the threads ------------------------------------------------------------------------------

    def _send_from(self, last: Rank) -> None:
        orders = self._orders()
        try:
            while (request := self._next(last)) is not None:
                if self._going is not None and isinstance(request, SubmitOrder):
                    self._going(request)
                try:
                    if isinstance(request, CancelEverything) or not self.by_socket(request):
                        self._tell(Done(request, orders.send(request)))
                except FencedError as lost:
                    self._end(lost)
                finally:
                    with self._meter.turn:
                        self.lanes.done(request)
                        self._meter.turn.notify_all()
        finally:
            orders.close()

    def _next(self, last: Rank) -> Request | None:
        """Wait for the next request whose turn it is; None once it is over."""
        with self._meter.turn:
            while not self._stopping:
                found = self.lanes.take(time.monotonic_ns(), last)
                if found is not None and not isinstance(found, int):
                    return found
                wait_s = _LONGEST_WAIT_S if found is None else found / SECOND
                self._meter.turn.wait(min(wait_s, _LONGEST_WAIT_S))
        return None

    def _orders(self) -> BybitOrders:
        return BybitOrders(
            self._endpoint,
            self._keys,
            backoff=self._backoff,
            meter=self._meter,
            fence=self._fence,
            timeout_s=self._config.timeout_s,
            recv_window_ms=self._config.recv_window_ms,
        )

    def _end(self, lost: FencedError) -> None:
        """A successor has begun. What waits is answered with nothing: its fate is the successor's to tell."""
        with self._meter.turn:
            first, self._fenced = not self._fenced, True
            self.lanes.clear()
        if first:
            self._tell(Note("fenced", f"{lost}: nothing is sent from here any more"))

    def _failed(self, reason: str) -> None:
        self._tell(Note(FAILED, reason))

    def _guard(self, seconds: int) -> None:
        orders = self._orders()
        try:
            for product in ("DERIVATIVES", "SPOT"):
                outcome = orders.guard_disconnect(product, seconds)
                if outcome.verdict is not Verdict.ACCEPTED:
                    self._tell(Note("no disconnect guard", f"{product}: {outcome.reason}"))
        except FencedError as lost:
            self._end(lost)
        finally:
            orders.close()

    # --- the trade socket -------------------------------------------------------------------------

    def by_socket(self, request: OrderRequest) -> bool:
        """Send by the trade socket, if it is wanted and stands. Once it may have left, it left.

        Raises:
            FencedError: Nothing may be sent any more.
        """
        socket = self.trade.socket if self.trade is not None else None
        if socket is None or self.trade is None:
            return False
        action, of = action_of(request), group(request)
        key = next(self._numbers)
        limit = time.monotonic_ns() + int(self._config.timeout_s * SECOND)

        def answered(answer: Any) -> None:
            with self._pending_lock:
                self._pending.pop(key, None)
            self._tell(Done(request, self._outcome(answer, action, of)))

        try:
            if self._fence is None:
                self._wait_for_answer(key, _Pending(request, self.trade.generation, limit))
                _send(socket, request, answered)
            else:
                with self._fence.sending():
                    self._wait_for_answer(key, _Pending(request, self.trade.generation, limit))
                    _send(socket, request, answered)
        except GONE as failure:
            with self._pending_lock:
                self._pending.pop(key, None)
            self._tell(Done(request, Outcome(Verdict.UNKNOWN, type(failure).__name__)))
        return True

    def _wait_for_answer(self, key: int, pending: _Pending) -> None:
        with self._pending_lock:
            self._pending[key] = pending

    def _outcome(self, answer: Any, action: Action, of: str) -> Outcome:
        fields = answer if isinstance(answer, dict) else {}
        data, code = fields.get("data"), fields.get("retCode")
        if code == _TOO_OFTEN:
            self._meter.exhausted(of, fields.get("header"))
        else:
            self._meter.heard(of, fields.get("header"))
        text = self._keys.hide(str(fields.get("retMsg", "")))
        return outcome_of(code, text, action, data if isinstance(data, dict) else None)

    def _give_up(self, hopeless: Callable[[_Pending], bool], reason: str) -> None:
        """Requests on the trade socket that no answer will come to: their outcome is unknown."""
        with self._pending_lock:
            lost = [(key, pending) for key, pending in self._pending.items() if hopeless(pending)]
            for key, _ in lost:
                del self._pending[key]
        for _, pending in lost:
            self._tell(Done(pending.asked, Outcome(Verdict.UNKNOWN, reason)))


def _send(socket: Any, request: OrderRequest, answered: Callable[[Any], None]) -> None:
    match request:
        case SubmitOrder():
            socket.place_order(answered, answered, **order_request(request))
        case AmendOrder():
            socket.amend_order(answered, answered, **amend_request(request))
        case _:
            socket.cancel_order(answered, answered, **cancel_request(request))
