"""Ours and theirs, and what is different: one pure function."""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from msgspec import Struct

from hean.instruments import Instrument
from hean.messages import AccountSnapshot, Discrepancy, DiscrepancyKind, Severity, VenueOrder

ZERO = Decimal(0)


class OwnOrder(Struct):
    """An order we believe is open: what of it has filled, as told, and when it was last heard of.

    `quantity` is None where the first word of it was not that we sent it.
    """

    instrument: str
    filled: Decimal
    ts_heard: int
    quantity: Decimal | None = None


class Pair(Struct, frozen=True):
    """Two instruments of one coin that are held against each other."""

    spot: str
    perp: str


def differences(
    orders: Mapping[str, OwnOrder],
    holdings: Mapping[str, Decimal],
    theirs: AccountSnapshot,
    instruments: Mapping[str, Instrument],
    pairs: tuple[Pair, ...] = (),
    leg_tolerance: Decimal = ZERO,
) -> list[Discrepancy]:
    """Everything in which a complete snapshot differs from what we believe.

    Severe is what may trade, or is held, without our knowing.

    Args:
        orders: The orders we believe are open, by client order id.
        holdings: What we believe the account holds, dust included, by instrument.
        theirs: The venue's word.
        instruments: The rules. Less than a step is no difference; an instrument that is not here has no such grace.
        pairs: Legs that ought to balance at the venue.
        leg_tolerance: By how much they may not, as a fraction of the larger.
    """
    return [
        *_orders(orders, theirs.orders),
        *_positions(holdings, theirs.positions, instruments),
        *_balances(holdings, theirs.balances, instruments),
        *_legs(theirs, instruments, pairs, leg_tolerance),
    ]


def is_flat(theirs: AccountSnapshot, instruments: Mapping[str, Instrument], kept: Mapping[str, Decimal]) -> bool:
    """Whether a complete snapshot shows no order, and nothing that could be traded away.

    Args:
        theirs: The venue's word.
        instruments: The rules: what is below the least order of a spot instrument cannot be sold.
        kept: Coins, by instrument, that no strategy owns: they were there before and stay.
    """
    if theirs.orders or any(theirs.positions.values()):
        return False
    return all(
        abs(theirs.balances.get(instrument.base, ZERO) - kept.get(name, ZERO))
        < max(instrument.step, instrument.min_quantity)
        for name, instrument in instruments.items()
        if instrument.is_spot
    )


def _orders(ours: Mapping[str, OwnOrder], theirs: tuple[VenueOrder, ...]) -> Iterator[Discrepancy]:
    seen = set()
    for order in theirs:
        seen.add(order.client_order_id)
        own = ours.get(order.client_order_id)
        if own is None:
            yield Discrepancy(
                DiscrepancyKind.MISSING_LOCAL,
                Severity.HIGH,
                order.client_order_id or order.instrument,
                "no such order",
                f"{order.side.name} {order.quantity} {order.instrument}",
            )
        elif own.filled != order.filled:
            yield Discrepancy(
                DiscrepancyKind.QUANTITY,
                Severity.HIGH,
                order.client_order_id,
                f"filled {own.filled}",
                f"filled {order.filled}",
            )
    for name, own in ours.items():
        # How much was ordered is not ours to know, so a filled order that is gone is taken to be done.
        if name not in seen and not own.filled:
            yield Discrepancy(
                DiscrepancyKind.MISSING_VENUE, Severity.LOW, name, f"open in {own.instrument}", "no such order"
            )


def _positions(
    holdings: Mapping[str, Decimal], theirs: Mapping[str, Decimal], instruments: Mapping[str, Instrument]
) -> Iterator[Discrepancy]:
    ours = {
        name: quantity
        for name, quantity in holdings.items()
        if name not in instruments or not instruments[name].is_spot
    }
    for name in dict.fromkeys([*theirs, *ours]):
        own, other = ours.get(name, ZERO), theirs.get(name, ZERO)
        if own == other or (name in instruments and abs(own - other) < instruments[name].step):
            continue
        kind = DiscrepancyKind.QUANTITY
        if not own:
            kind = DiscrepancyKind.MISSING_LOCAL
        elif not other:
            kind = DiscrepancyKind.MISSING_VENUE
        yield Discrepancy(kind, Severity.HIGH, name, str(own), str(other))


def _balances(
    holdings: Mapping[str, Decimal], theirs: Mapping[str, Decimal], instruments: Mapping[str, Instrument]
) -> Iterator[Discrepancy]:
    for name, instrument in instruments.items():
        if instrument.is_spot:
            own, other = holdings.get(name, ZERO), theirs.get(instrument.base, ZERO)
            if abs(own - other) >= instrument.step:
                yield Discrepancy(DiscrepancyKind.BALANCE, Severity.HIGH, instrument.base, str(own), str(other))


def _legs(
    theirs: AccountSnapshot, instruments: Mapping[str, Instrument], pairs: tuple[Pair, ...], tolerance: Decimal
) -> Iterator[Discrepancy]:
    for pair in pairs:
        spot = theirs.balances.get(instruments[pair.spot].base, ZERO)
        perp = theirs.positions.get(pair.perp, ZERO)
        step = max(instruments[pair.spot].step, instruments[pair.perp].step)
        if abs(spot + perp) >= max(step, tolerance * max(abs(spot), abs(perp))):
            yield Discrepancy(
                DiscrepancyKind.LEG_IMBALANCE, Severity.LOW, pair.perp, f"spot against it {spot}", f"perpetual {perp}"
            )
