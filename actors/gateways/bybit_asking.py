"""The threads that ask: for single orders and the venue's clock the one, for all that an account holds the other.

They have nothing that could change anything.
"""

import queue
import threading
import time
from collections.abc import Callable

from actors.gateways.bybit_rest import Absence, BybitRest, UnansweredError
from actors.gateways.bybit_words import Clock, Event, Found, Note, Reported
from actors.gateways.threads import FAILED, guarded
from hean.bybit.decode import Execution, OrderWord
from hean.bybit.orders import Ask, Question
from hean.instruments import Category
from hean.messages import FundingSettled

_MEASURE = "clock"


class Asking:
    """Asks.

    Args:
        rest: Begins a conversation with the venue, one for each thread.
        tell: Takes what was found; must not block.
    """

    def __init__(self, rest: Callable[[], BybitRest], tell: Callable[[Event], None]) -> None:
        self.questions: queue.SimpleQueue[Question | str | None] = queue.SimpleQueue()
        self._rest = rest
        self._tell = tell
        self._stopping = threading.Event()
        self._measuring = False
        self._wanted: dict[int | None, int] = {}
        self._wish = threading.Condition()
        self._threads = [
            guarded(self._answer, "venue-ask", self._failed),
            guarded(self._report, "venue-report", self._failed),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def ask(self, question: Question) -> None:
        """Have one order asked about."""
        self.questions.put(question)

    def measure(self) -> None:
        """Have the venue's clock measured, unless that waits for its turn already."""
        if not self._measuring:
            self._measuring = True
            self.questions.put(_MEASURE)

    def report(self, request_id: int | None, since: int) -> None:
        """Have everything asked for; whoever wishes for it before it is begun gets the same answer."""
        with self._wish:
            self._wanted[request_id] = since
            self._wish.notify_all()

    @property
    def wanted(self) -> list[int | None]:
        """The reports that wait to be begun."""
        with self._wish:
            return list(self._wanted)

    def stop(self) -> None:
        self._stopping.set()
        self.questions.put(None)
        with self._wish:
            self._wish.notify_all()

    def join(self, deadline: float) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    @property
    def alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    # --- the threads ------------------------------------------------------------------------------

    def _answer(self) -> None:
        rest = self._rest()
        try:
            while (question := self.questions.get()) is not None and not self._stopping.is_set():
                if isinstance(question, Question):
                    self._tell(Found(question, _look(rest, question)))
                else:
                    self._measure(rest)
        finally:
            rest.close()

    def _measure(self, rest: BybitRest) -> None:
        self._measuring = False
        try:
            self._tell(Clock(rest.clock_offset()))
        except UnansweredError as silence:
            self._tell(Note("clock unknown", str(silence)))

    def _report(self) -> None:
        rest = self._rest()
        try:
            while wanted := self._next():
                newest = max((one for one in wanted if one is not None), default=0)
                report = rest.report(newest, min(wanted.values()), (Category.LINEAR, Category.SPOT))
                self._tell(Reported(tuple(wanted), report))
        finally:
            rest.close()

    def _next(self) -> dict[int | None, int]:
        with self._wish:
            while not self._wanted and not self._stopping.is_set():
                self._wish.wait()
            wanted, self._wanted = self._wanted, {}
            return {} if self._stopping.is_set() else wanted

    def _failed(self, reason: str) -> None:
        self._tell(Note(FAILED, reason))


def _look(rest: BybitRest, question: Question) -> OrderWord | Absence | tuple[Execution | FundingSettled, ...] | None:
    try:
        if question.ask is Ask.STATE:
            return rest.look_up(question.instrument, question.client_order_id)
        return tuple(rest.executions_of(question.instrument, question.client_order_id))
    except UnansweredError:
        return None
