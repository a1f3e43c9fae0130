"""Round trips of a run: what each strategy held, from flat to flat, read from its log.

Only the venue's own word counts: the broker passes the same fills on. How fills become trips is said in `hean.trips`.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from hean.instruments import Instrument
from hean.messages import Envelope, FundingSettled, OrderFilled, Signal, SubmitOrder, SubmitPair
from hean.trips import RoundTrip, Trip, TripBook


def round_trips(
    log: Iterable[Envelope], instruments: Mapping[str, Instrument], marks: Mapping[str, float] | None = None
) -> tuple[RoundTrip, ...]:
    """Read every round trip of every strategy from a log, in the order they were opened.

    Args:
        log: What was said, in order. A live venue may say a fill twice: it counts once.
        instruments: The rules of what was traded.
        marks: Prices at the end: what an open trip's holdings are valued at. Where there is none,
            the price of the instrument's last fill is taken.

    Returns:
        Closed and open trips. `closed_by` is "stop", "target" or "liquidation" for an exit held at the venue, otherwise
        the reason of the signal that asked for it, or "risk" where no signal did; empty while the trip is open.

    Raises:
        ContractError: A fill is of an unknown instrument, or its fee in a coin that is neither of its two.
    """
    wanted = _Wanted()
    book = TripBook(instruments, wanted.why)
    over: list[Trip] = []
    seen: set[str] = set()
    for envelope in log:
        message = envelope.message
        if isinstance(message, OrderFilled):
            if envelope.source.startswith("venue") and message.trade_id not in seen:
                seen.add(message.trade_id)
                over += book.fill(message)
        elif isinstance(message, FundingSettled):
            if message.settlement_id not in seen:
                seen.add(message.settlement_id)
                book.funding(message)
        elif isinstance(message, Signal):
            wanted.reasons[envelope.id] = message.reason
        elif isinstance(message, SubmitOrder):
            # Risk says it first, and the broker once more on the way to the venue.
            wanted.asked.setdefault(message.client_order_id, envelope.cause)
        elif isinstance(message, SubmitPair):
            wanted.asked[message.pair_id] = envelope.cause
    prices = book.state.last | {name: Decimal(str(mark)) for name, mark in (marks or {}).items()}
    return tuple(trip.told(prices) for trip in sorted([*over, *book.under_way()], key=lambda trip: trip.number))


class _Wanted:
    """Which signal asked for which order."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}
        self.asked: dict[str, str] = {}

    def why(self, _: Trip, fill: OrderFilled) -> str:
        order = fill.client_order_id
        cause = self.asked.get(order.rpartition("-")[0]) or self.asked.get(order, "")
        return self.reasons.get(cause, "risk")
