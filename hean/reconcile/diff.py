"""Ours and theirs, and what is different: one pure function."""

from collections.abc import Iterator, Mapping
from decimal import Context, Decimal

from msgspec import Struct, field

from hean.instruments import Instrument
from hean.messages import (
    AccountSnapshot,
    Discrepancy,
    DiscrepancyKind,
    EntryKind,
    Severity,
    VenueEntry,
    VenueOrder,
)
from hean.netting import ZERO, netted

SMALL = Decimal("0.01")
"""Money that is no more than a matter of rounding: corrected and said, and no reason to stop."""

_FIGURE = Decimal("1e-8")
_EXACT = Context(prec=60)


class OwnOrder(Struct):
    """An order we believe is open: what of it has filled, as told, and when it was last heard of.

    `quantity` is None where the first word of it was not that we sent it.
    """

    instrument: str
    filled: Decimal
    ts_heard: int
    quantity: Decimal | None = None


class Net(Struct):
    """What all strategies hold of an instrument together, as the facts add up; of a contract also the value it was entered at."""

    quantity: Decimal = ZERO
    value: Decimal = ZERO

    def trade(self, signed: Decimal, price: Decimal) -> Decimal:
        """Trade a contract, and return the profit it realises."""
        self.value, realised = netted(self.quantity, self.value, signed, price)
        self.quantity += signed
        return realised


class Booked(Struct, gc=False):
    """What a fill, a settlement or a charge cost or brought, as we were told."""

    currency: str
    amount: Decimal


REMEMBERED = 20_000


class Told(Struct):
    """What was booked by name, at least the newest `REMEMBERED` of them; all there was since `ts_since`, None while nothing is known."""

    ts_since: int | None = None
    ts_newer: int = 0
    newer: dict[str, Booked] = field(default_factory=dict)
    older: dict[str, Booked] = field(default_factory=dict)

    def note(self, name: str, booked: Booked, now: int) -> None:
        if len(self.newer) >= REMEMBERED:
            if self.older and self.ts_since is not None:
                self.ts_since = max(self.ts_since, self.ts_newer)
            self.older, self.newer, self.ts_newer = self.newer, {}, now
        self.newer[name] = booked

    def find(self, name: str) -> Booked | None:
        return self.newer.get(name) or self.older.get(name)

    def lacks(self, line: VenueEntry) -> bool:
        """Whether something was booked that we ought to be told of, and were not yet."""
        since = self.ts_since
        if line.kind is EntryKind.OTHER or since is None or line.ts_event <= since:
            return False
        return self.find(line.entry_id) is None


class Pair(Struct, frozen=True):
    """Two instruments of one coin that are held against each other."""

    spot: str
    perp: str


class Ours(Struct):
    """What we believe of the account.

    `holdings` is dust included, by instrument, and `owned` the same by instrument and strategy; `cash` what the books hold of `currency`, None before they said so. `net` is
    of contracts alone; `kept` is what no strategy owns. `settled` is the time up to which what the venue has booked must
    have reached us.
    """

    orders: Mapping[str, OwnOrder] = field(default_factory=dict)
    holdings: Mapping[str, Decimal] = field(default_factory=dict)
    cash: Decimal | None = None
    currency: str = "USDT"
    net: Mapping[str, Net] = field(default_factory=dict)
    kept: Mapping[str, Decimal] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    settled: int = 0
    owned: Mapping[str, Mapping[str, Decimal]] = field(default_factory=dict)


def differences(
    ours: Ours,
    theirs: AccountSnapshot,
    instruments: Mapping[str, Instrument],
    *,
    pairs: tuple[Pair, ...] = (),
    leg_tolerance: Decimal = ZERO,
    modes: Mapping[str, str] | None = None,
) -> list[Discrepancy]:
    """Everything in which a complete snapshot differs from what we believe.

    Severe is what may trade, or is held, without our knowing.

    Args:
        ours: What we believe.
        theirs: The venue's word.
        instruments: The rules. Less than a step is no difference; an instrument that is not here has no such grace.
        pairs: Legs that ought to balance in every strategy that holds both.
        leg_tolerance: By how much they may not, as a fraction of the larger.
        modes: What ought to be set: "margin" of the account, "position" and "leverage" of every contract held.
    """
    return [
        *_orders(ours.orders, theirs.orders),
        *_positions(ours.holdings, theirs.positions, instruments),
        *_coins(ours.holdings, theirs.balances, instruments),
        *_cash(ours, theirs, instruments),
        *_booked(ours, theirs.booked),
        *_modes(modes or {}, theirs.modes),
        *_legs(ours.owned, instruments, pairs, leg_tolerance),
    ]


def is_flat(theirs: AccountSnapshot, instruments: Mapping[str, Instrument], kept: Mapping[str, Decimal]) -> bool:
    """Whether a complete snapshot shows no order, and nothing that could be traded away.

    Args:
        theirs: The venue's word.
        instruments: The rules: what is below the least order of a spot instrument cannot be sold.
        kept: Coins and positions, by instrument, that no strategy owns: they were there before and stay.
    """
    if theirs.orders or any(
        abs(held - kept.get(name, ZERO)) >= _step(instruments, name) for name, held in _held(theirs)
    ):
        return False
    return all(
        abs(theirs.balances.get(instrument.base, ZERO) - kept.get(name, ZERO))
        < max(instrument.step, instrument.min_quantity)
        for name, instrument in instruments.items()
        if instrument.is_spot
    )


def _held(theirs: AccountSnapshot) -> list[tuple[str, Decimal]]:
    return [(name, held) for name, held in theirs.positions.items() if held]


def _step(instruments: Mapping[str, Instrument], name: str) -> Decimal:
    return instruments[name].step if name in instruments else ZERO


def unknown_coins(
    theirs: AccountSnapshot, instruments: Mapping[str, Instrument], currency: str
) -> Iterator[tuple[str, Decimal]]:
    """Coins in the account that nothing of ours values: they are not in the books, and not compared."""
    known = {instrument.base for instrument in instruments.values() if instrument.is_spot} | {currency}
    for coin, amount in theirs.balances.items():
        if amount and coin not in known:
            yield coin, amount


def realised_apart(ours: Ours, theirs: AccountSnapshot, instruments: Mapping[str, Instrument]) -> dict[str, Decimal]:
    """What of a difference in cash is profit realised at another time, by instrument: empty where it explains nothing.

    Which fill came first decides at which mean a position stands, and so what closing a part of it has realised. What
    is more in the wallet is then less in the position; nobody has gained. The sum is the difference itself wherever the
    venue's own rounding of the mean entry leaves that open.
    """
    if ours.cash is None:
        return {}
    apart = _EXACT.subtract(theirs.balances.get(ours.currency, ZERO), ours.cash)
    shifts: dict[str, Decimal] = {}
    slack = ZERO
    for name, net in ours.net.items():
        entry, held = theirs.entries.get(name), theirs.positions.get(name, ZERO)
        if entry is None or not held or held != net.quantity or name not in instruments:
            continue
        within = abs(held) * max(instruments[name].tick / 100, _FIGURE)
        shift = _EXACT.subtract(_EXACT.multiply(entry, held), net.value)
        shifts[name] = shift if abs(shift) > within else ZERO
        slack += within
    if not shifts or not apart:
        return {}
    moved = {name: shift for name, shift in shifts.items() if shift}
    total = sum(moved.values(), ZERO)
    left = _EXACT.subtract(apart, total)
    if abs(left) > slack:
        return {name: shift.quantize(_FIGURE) for name, shift in moved.items()} if abs(left) < abs(apart) else {}
    largest = max(shifts, key=lambda name: abs(ours.net[name].quantity) * instruments[name].tick)
    moved[largest] = _EXACT.add(moved.get(largest, ZERO), left)
    return {name: shift for name, shift in moved.items() if shift}


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


def _coins(
    holdings: Mapping[str, Decimal], theirs: Mapping[str, Decimal], instruments: Mapping[str, Instrument]
) -> Iterator[Discrepancy]:
    for name, instrument in instruments.items():
        if instrument.is_spot:
            own, other = holdings.get(name, ZERO), theirs.get(instrument.base, ZERO)
            if abs(own - other) >= instrument.step:
                yield Discrepancy(DiscrepancyKind.BALANCE, Severity.HIGH, instrument.base, str(own), str(other))


def _cash(ours: Ours, theirs: AccountSnapshot, instruments: Mapping[str, Instrument]) -> Iterator[Discrepancy]:
    """The currency everything is valued in: to the last digit."""
    own, other = ours.cash, theirs.balances.get(ours.currency, ZERO)
    if own is None or own == other:
        return
    apart = realised_apart(ours, theirs, instruments)
    for name in apart:
        net = ours.net[name]
        mean = (net.value / net.quantity).quantize(_FIGURE)
        yield Discrepancy(
            DiscrepancyKind.AVG_PRICE,
            Severity.LOW,
            name,
            f"{own:f} {ours.currency}, entered at {mean.normalize():f}",
            f"{other:f} {ours.currency}, entered at {theirs.entries[name].normalize():f}",
        )
    if not apart:
        severity = Severity.LOW if abs(own - other) < SMALL else Severity.HIGH
        yield Discrepancy(DiscrepancyKind.BALANCE, severity, ours.currency, f"{own:f}", f"{other:f}")


def _booked(ours: Ours, lines: tuple[VenueEntry, ...]) -> Iterator[Discrepancy]:
    """What the venue has booked, against what we were told: only of a time when all of it must have reached us."""
    missing = set()
    for line in lines:
        if line.ts_event > ours.settled:
            continue
        told = ours.told.find(line.entry_id)
        if ours.told.lacks(line):
            kind = DiscrepancyKind.UNKNOWN_FILL if line.kind is EntryKind.FILL else DiscrepancyKind.FUNDING
            if line.entry_id not in missing:
                missing.add(line.entry_id)  # a fill on spot has a line for each coin
                severity = Severity.HIGH if line.kind is EntryKind.FILL else Severity.LOW
                yield Discrepancy(kind, severity, line.entry_id, "not told", f"{line.kind} in {line.instrument}")
        elif told is not None and told.currency == line.currency and told.amount != line.amount:
            kind = DiscrepancyKind.FEE if line.kind is EntryKind.FILL else DiscrepancyKind.FUNDING
            currency = line.currency
            yield Discrepancy(
                kind, Severity.LOW, line.entry_id, f"{told.amount:f} {currency}", f"{line.amount:f} {currency}"
            )


def _modes(wanted: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Discrepancy]:
    for what, is_set in theirs.items():
        ought = wanted.get(what.rpartition(" ")[2])
        if ought is not None and is_set != ought:
            yield Discrepancy(DiscrepancyKind.MODE, Severity.HIGH, what, ought, is_set)


def _legs(
    owned: Mapping[str, Mapping[str, Decimal]],
    instruments: Mapping[str, Instrument],
    pairs: tuple[Pair, ...],
    tolerance: Decimal,
) -> Iterator[Discrepancy]:
    """Legs of one strategy that do not balance: of a pair the worst. What others hold beside them is their own affair."""
    for pair in pairs:
        step = max(instruments[pair.spot].step, instruments[pair.perp].step)
        coins = owned.get(pair.spot, {})
        worst = None
        for strategy, perp in owned.get(pair.perp, {}).items():
            spot = coins.get(strategy, ZERO)
            apart = abs(spot + perp)
            if strategy and spot and perp and apart >= max(step, tolerance * max(abs(spot), abs(perp))):
                worst = max(worst or (ZERO, "", ZERO, ZERO), (apart, strategy, spot, perp))
        if worst is not None:
            _, strategy, spot, perp = worst
            yield Discrepancy(
                DiscrepancyKind.LEG_IMBALANCE, Severity.LOW, pair.perp, f"{strategy}: spot {spot}", f"perpetual {perp}"
            )
