"""The life of an order, as a table."""

import enum
from decimal import Decimal
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from hean.errors import ContractError
from hean.messages import (
    OrderAccepted,
    OrderAmended,
    OrderBracket,
    OrderCanceled,
    OrderExpired,
    OrderFact,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    RestatedOrder,
    Side,
    SubmitOrder,
    TimeInForce,
)


class OrderStatus(enum.StrEnum):
    NEW = "NEW"
    SUBMITTED = "SUBMITTED"
    UNKNOWN = "UNKNOWN"
    OPEN = "OPEN"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


T = TypeVar("T")

NEW, SUBMITTED, UNKNOWN, OPEN, FILLED, CANCELED, REJECTED, EXPIRED = OrderStatus

# An open order becomes filled when its fills add up: arithmetic, not a transition anybody sends.
AFTER: dict[OrderStatus, dict[type[OrderFact], OrderStatus]] = {
    NEW: {OrderSubmitted: SUBMITTED},
    SUBMITTED: {
        OrderAccepted: OPEN,
        OrderFilled: OPEN,
        OrderRejected: REJECTED,
        OrderOutcomeUnknown: UNKNOWN,
        OrderAmended: OPEN,
        OrderCanceled: CANCELED,
        OrderExpired: EXPIRED,
    },
    UNKNOWN: {
        OrderAccepted: OPEN,
        OrderFilled: OPEN,
        OrderRejected: REJECTED,
        OrderAmended: OPEN,
        OrderCanceled: CANCELED,
        OrderExpired: EXPIRED,
        OrderOutcomeUnknown: UNKNOWN,  # asked again, and still no answer
    },
    OPEN: {
        OrderAccepted: OPEN,  # an acknowledgement that lost the race against its own fill
        OrderFilled: OPEN,
        OrderAmended: OPEN,
        OrderCanceled: CANCELED,
        OrderExpired: EXPIRED,
        OrderOutcomeUnknown: OPEN,  # of a cancel or an amend: the order itself is known
    },
    CANCELED: {OrderFilled: CANCELED},  # a fill that crossed our cancel on the wire
    EXPIRED: {OrderFilled: EXPIRED},  # the same, for an order that ended by its own terms
    FILLED: {
        OrderAccepted: FILLED,  # late, as above
        OrderCanceled: FILLED,  # Bybit may send two final messages when a cancel races a fill
    },
    REJECTED: {},
}

TERMINAL = frozenset({FILLED, CANCELED, REJECTED, EXPIRED})

# Bybit v5, *Error codes* and *Enum: cancelType*: there is no position, or none any more, for a reduce-only order to lessen.
NOTHING_TO_REDUCE = ("110017", "CancelByReduceOnly")


class Restorable(Struct, frozen=True, gc=False):
    """An order that may be open, as the venue's gateway takes it up after a restart.

    `order` is as it would be asked for now, `filled` what of it has traded. Where it was never `accepted` it may not have left.
    """

    order: SubmitOrder
    filled: Decimal
    accepted: bool


class Order(Struct, gc=False):
    """One order, as far as its facts have told. `most` is the most it ever was, where it was amended."""

    client_order_id: str
    strategy: str
    instrument: str
    side: Side
    quantity: Decimal
    limit: Decimal | None
    time_in_force: TimeInForce
    reference: Decimal | None
    status: OrderStatus = NEW
    filled: Decimal = Decimal(0)
    reduce_only: bool = False
    bracket: OrderBracket | None = None
    most: Decimal | None = None

    def apply(self, fact: OrderFact) -> None:
        """Take a fact in.

        Raises:
            ContractError: the fact cannot follow from the order's status: somebody's books are wrong.
        """
        after = AFTER[self.status].get(type(fact))
        if after is None:
            raise ContractError(
                f"{type(fact).__name__} cannot befall order {self.client_order_id}, which is {self.status}"
            )
        self.status = after
        if type(fact) is OrderFilled:
            self.filled += fact.quantity
            if self.filled > (self.quantity if self.most is None else self.most):
                raise ContractError(
                    f"order {self.client_order_id} of {self.quantity} has fills of {self.filled}: the venue sent too many"
                )
            if self.filled >= self.quantity:
                self.status = FILLED
        elif type(fact) is OrderAmended:
            self._amend(fact)

    def _amend(self, fact: OrderAmended) -> None:
        self.limit = self.limit if fact.limit is None else fact.limit
        if fact.quantity is not None:
            self.most = max(fact.quantity, self.quantity, self.most or fact.quantity)
            self.quantity = fact.quantity
            if self.filled >= self.quantity:
                self.status = FILLED

    @property
    def over(self) -> bool:
        return self.status in TERMINAL

    def restorable(self) -> Restorable:
        asked = SubmitOrder(
            client_order_id=self.client_order_id,
            strategy=self.strategy,
            instrument=self.instrument,
            side=self.side,
            quantity=self.quantity,
            limit=self.limit,
            time_in_force=self.time_in_force,
            reduce_only=self.reduce_only,
            reference=self.reference,
            bracket=self.bracket,
        )
        return Restorable(asked, self.filled, accepted=self.status is OPEN)

    def restated(self) -> RestatedOrder:
        remaining = self.side * (self.quantity - self.filled)
        return RestatedOrder(self.strategy, self.instrument, remaining, self.filled, unknown=self.status is UNKNOWN)


def remember(memory: dict[str, T], key: str, value: T, most: int) -> None:
    """Keep an entry, and at least the newest `most`: a dict is ordered by age, and forgets them in one go."""
    memory[key] = value
    if len(memory) > 2 * most:
        for old in list(islice(memory, most)):
            del memory[old]
