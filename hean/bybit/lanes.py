"""Requests about orders that wait for their turn: cancels before what reduces before what opens.

Requests about one order leave in the order they were told, one at a time. A cancel that finds its order still waiting makes
both moot. What would open, and has waited for too long, is given back: the market it was decided in is gone. What cancels
or reduces never is.

A machine without a clock; the thread-safe one around it is `actors.gateways.bybit_sending`.
"""

import enum
from collections import deque
from typing import Any

from msgspec import Struct

from hean.bybit.encode import Action
from hean.bybit.rate_budget import RateBudget, endpoint_group, group_of
from hean.instruments import Category, split_id
from hean.messages import AmendOrder, CancelOrder, Side, SubmitOrder


class Rank(enum.IntEnum):
    """Who goes first."""

    CANCEL = 0
    REDUCE = 1
    OPEN = 2


class CancelEverything(Struct, frozen=True):
    """Cancel all entry orders of a category, those that nobody told us of included."""

    category: Category

    @property
    def client_order_id(self) -> str:
        """No order's name: none has a space in it."""
        return f"all {self.category}"


OrderRequest = SubmitOrder | AmendOrder | CancelOrder
Request = OrderRequest | CancelEverything


class Waiting(Struct, frozen=True):
    """A request that has not left, and since when."""

    request: Request
    rank: Rank
    since: int


class Lanes:
    """What waits.

    Args:
        budget: What may be asked.
        age: How long what opens may wait, in nanoseconds.
    """

    def __init__(self, budget: RateBudget, age: int) -> None:
        self.budget = budget
        self._age = age
        self._queues: dict[tuple[Rank, str], deque[Waiting]] = {}
        self._of: dict[str, deque[Waiting]] = {}
        self._under_way: set[str] = set()

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def put(self, request: Request, now: int, *, reduces: bool = False) -> bool:
        """Let a request wait for its turn; False where it never will have one: a cancel whose order had not left.

        Args:
            request: What is asked.
            now: By a clock that is never set back.
            reduces: Whether an order, or the order that is amended, can only lessen a position.
        """
        name = request.client_order_id
        if isinstance(request, CancelOrder):
            if self.holds(name):
                self._drop(name)
                return False
            self._drop(name)  # an amendment of what is canceled, or the same cancel once more
        rank = _rank(request, reduces=reduces)
        if isinstance(request, CancelEverything) and name in self._of:
            return True
        waiting = Waiting(request, rank, now)
        self._queues.setdefault((rank, group(request)), deque()).append(waiting)
        self._of.setdefault(name, deque()).append(waiting)
        return True

    def holds(self, client_order_id: str) -> bool:
        """Whether an order waits to be sent."""
        waiting = self._of.get(client_order_id)
        return waiting is not None and isinstance(waiting[0].request, SubmitOrder)

    def take(self, now: int, last: Rank = Rank.OPEN) -> Request | int | None:
        """The next request that may leave, its token used up; or how long until one may; None where none waits.

        Args:
            now: The time.
            last: What ranks lower is not asked for.
        """
        soonest: int | None = None
        for rank, of in sorted(self._queues):
            if rank > last:
                break
            waiting = self._first(self._queues[rank, of])
            if waiting is None:
                continue
            wait = self.budget.take(of, now)
            if not wait:
                self._remove(waiting)
                self._under_way.add(waiting.request.client_order_id)
                return waiting.request
            soonest = wait if soonest is None else min(soonest, wait)
        return soonest

    def done(self, request: Request) -> None:
        """What was taken has been answered, or is where those behind it cannot overtake it."""
        self._under_way.discard(request.client_order_id)

    def aged(self, now: int) -> list[Waiting]:
        """Give back what would open and has waited for too long."""
        old = [
            waiting
            for (rank, _), queue in sorted(self._queues.items())
            if rank is Rank.OPEN
            for waiting in queue
            if now - waiting.since > self._age
        ]
        for waiting in old:
            self._remove(waiting)
            if isinstance(waiting.request, SubmitOrder):
                self._drop(waiting.request.client_order_id)
        return old

    def clear(self) -> None:
        """Forget all that waits."""
        self._queues.clear()
        self._of.clear()

    def _first(self, queue: deque[Waiting]) -> Waiting | None:
        """The first of a queue whose order has nothing before it, and nothing under way."""
        for waiting in queue:
            name = waiting.request.client_order_id
            before = self._of.get(name)
            if name not in self._under_way and before and before[0] is waiting:
                return waiting
        return None

    def _drop(self, client_order_id: str) -> None:
        for waiting in list(self._of.get(client_order_id, ())):
            self._remove(waiting)

    def _remove(self, waiting: Waiting) -> None:
        request = waiting.request
        place = waiting.rank, group(request)
        _take_out(self._queues, place, waiting)
        _take_out(self._of, request.client_order_id, waiting)


def _take_out(queues: dict[Any, deque[Waiting]], key: object, waiting: Waiting) -> None:
    queue = queues.get(key, deque())
    for at, one in enumerate(queue):
        if one is waiting:
            del queue[at]
            break
    if not queue:
        queues.pop(key, None)


def lessens(order: SubmitOrder) -> bool:
    """Whether an order can only lessen what is held: a reduce-only one; on spot, which has none, a sale of coins we have."""
    spot = split_id(order.instrument)[1] is Category.SPOT
    return order.reduce_only or (spot and order.side is Side.SELL)


def action_of(request: OrderRequest) -> Action:
    match request:
        case SubmitOrder():
            return Action.CREATE
        case AmendOrder():
            return Action.AMEND
        case CancelOrder():
            return Action.CANCEL


def group(request: Request) -> str:
    """The group of the budget that a request counts in."""
    if isinstance(request, CancelEverything):
        return endpoint_group("order/cancel-all", request.category)
    return group_of(action_of(request), split_id(request.instrument)[1])


def _rank(request: Request, *, reduces: bool) -> Rank:
    if isinstance(request, CancelOrder | CancelEverything):
        return Rank.CANCEL
    return Rank.REDUCE if reduces else Rank.OPEN
