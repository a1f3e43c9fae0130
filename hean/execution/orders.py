"""The life of an order, as a table."""

import enum
from decimal import Decimal
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from hean.errors import ContractError
from hean.messages import (
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFact,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    Side,
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
        OrderCanceled: CANCELED,
        OrderExpired: EXPIRED,
    },
    UNKNOWN: {
        OrderAccepted: OPEN,
        OrderFilled: OPEN,
        OrderRejected: REJECTED,
        OrderCanceled: CANCELED,
        OrderExpired: EXPIRED,
        OrderOutcomeUnknown: UNKNOWN,  # asked again, and still no answer
    },
    OPEN: {
        OrderAccepted: OPEN,  # an acknowledgement that lost the race against its own fill
        OrderFilled: OPEN,
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


class Order(Struct, gc=False):
    """One order, as far as its facts have told."""

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
            if self.filled > self.quantity:
                raise ContractError(
                    f"order {self.client_order_id} of {self.quantity} has fills of {self.filled}: the venue sent too many"
                )
            if self.filled == self.quantity:
                self.status = FILLED

    @property
    def over(self) -> bool:
        return self.status in TERMINAL


def remember(memory: dict[str, T], key: str, value: T, most: int) -> None:
    """Keep an entry, and at least the newest `most`: a dict is ordered by age, and forgets them in one go."""
    memory[key] = value
    if len(memory) > 2 * most:
        for old in list(islice(memory, most)):
            del memory[old]
