"""Round trips: what each strategy held, from flat to flat, read from the log of a run.

Only the venue's own word counts: the broker passes the same fills on. Two opposite legs of one coin are one trip.
A fill that goes through nought closes one trip and opens the next. What is left of a coin and too
small to be sold is dust: the trip is over without it, and dust passes to the next trip at the
price of the last fill, so that profits add up and no trip stays open for a millionth of a coin.

Interest is the account's, not a position's: it is in no trip.
"""

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, localcontext

from msgspec import Struct, field

from hean.backtest.result import RoundTrip
from hean.errors import ContractError
from hean.instruments import Instrument
from hean.messages import Envelope, FundingSettled, OrderFilled, Signal, SubmitOrder, SubmitPair

ZERO = Decimal(0)
EXACT = Context(prec=60)
PRICE = Context(prec=12)
PICO = Decimal("1e-12")


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
        Closed and open trips. A trip's `side` and prices are those of the instrument it traded first; `quantity` is
        all that was opened of it, so that entry, exit and quantity multiply. `closed_by` is "stop",
        "target" or "liquidation" for an exit held at the venue, otherwise the reason of the
        signal that asked for it, or "risk" where no signal did; empty while the trip is open.

    Raises:
        ContractError: A fill is of an unknown instrument, or its fee in a coin that is neither of its two.
    """
    book = _Book(instruments)
    with localcontext(EXACT):
        for envelope in log:
            message = envelope.message
            if isinstance(message, OrderFilled):
                if envelope.source.startswith("venue"):
                    book.fill(message)
            elif isinstance(message, FundingSettled):
                book.funding(message)
            elif isinstance(message, Signal):
                book.reasons[envelope.id] = message.reason
            elif isinstance(message, SubmitOrder):
                # Risk says it first, and the broker once more on the way to the venue.
                book.asked.setdefault(message.client_order_id, envelope.cause)
            elif isinstance(message, SubmitPair):
                book.asked[message.pair_id] = envelope.cause
        marked = {name: Decimal(str(mark)) for name, mark in (marks or {}).items()}
        return tuple(trip.told(book.last | marked) for trip in book.trips)


class _Leg(Struct):
    """One instrument of a trip: what is held, and how it got there."""

    held: Decimal = ZERO
    direction: int = 0
    opened: Decimal = ZERO
    opened_value: Decimal = ZERO
    closed: Decimal = ZERO
    closed_value: Decimal = ZERO


class _Trip(Struct):
    """A trip under way. `cash` is the quote currency that came in, less what went out: fees in coin are in `legs`."""

    strategy: str
    base: str
    ts_open: int
    legs: dict[str, _Leg] = field(default_factory=dict)
    cash: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    ts_close: int | None = None
    closed_by: str = ""

    def told(self, prices: Mapping[str, Decimal]) -> RoundTrip:
        name, leg = next(iter(self.legs.items()))
        pnl = self.cash + self.funding
        if self.ts_close is None:
            pnl += sum((held.held * prices[instrument] for instrument, held in self.legs.items()), ZERO)
        done = self.ts_close is not None and bool(leg.closed)
        return RoundTrip(
            strategy=self.strategy,
            instruments=tuple(self.legs),
            side="long" if self.legs[name].direction > 0 else "short",
            quantity=leg.opened,
            ts_open=self.ts_open,
            ts_close=self.ts_close,
            entry_price=PRICE.divide(leg.opened_value, leg.opened),
            exit_price=PRICE.divide(leg.closed_value, leg.closed) if done else None,
            pnl=pnl,
            fees=self.fees,
            funding=self.funding,
            closed_by=self.closed_by,
        )


class _Book:
    """Every strategy's trips, and the dust of its past ones."""

    def __init__(self, instruments: Mapping[str, Instrument]) -> None:
        self.instruments = instruments
        self.trips: list[_Trip] = []
        self.last: dict[str, Decimal] = {}
        self.reasons: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        self._open: dict[str, list[_Trip]] = {}
        self._dust: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}  # quantity, and the price it was passed on at
        self._seen: set[str] = set()

    def fill(self, fill: OrderFilled) -> None:
        if fill.trade_id in self._seen:
            return
        self._seen.add(fill.trade_id)
        if fill.instrument not in self.instruments:
            raise ContractError(f"a fill of {fill.instrument}, which is not among the instruments of the run")
        signed = fill.quantity if fill.side > 0 else -fill.quantity
        if fill.strategy and fill.exit != "liquidation":
            self._trade(fill, fill.strategy, signed, fill.fee)
        else:
            self._divide(fill, signed)
        self.last[fill.instrument] = fill.price

    def funding(self, settled: FundingSettled) -> None:
        """Divide a settlement by what each strategy holds; what was rounded goes to the largest holder."""
        if settled.settlement_id in self._seen:
            return
        self._seen.add(settled.settlement_id)
        holders = [(trip, trip.legs[settled.instrument].held) for trip in self._holders(settled.instrument)]
        if not holders:
            return
        rest = settled.amount
        for trip, held in holders:
            amount = -held * settled.mark * settled.rate
            trip.funding += amount
            rest -= amount
        largest, _ = max(holders, key=lambda holder: abs(holder[1]))
        largest.funding += rest

    def _holders(self, instrument: str) -> list[_Trip]:
        return [
            trip
            for trips in self._open.values()
            for trip in trips
            if instrument in trip.legs and trip.legs[instrument].held
        ]

    def _divide(self, fill: OrderFilled, signed: Decimal) -> None:
        """Divide a fill of the venue's own among the holders, in proportion to what each holds."""
        holders = [(trip.strategy, trip.legs[fill.instrument].held) for trip in self._holders(fill.instrument)]
        net = sum((held for _, held in holders), ZERO)
        if not net or (signed > 0) == (net > 0):
            self._trade(fill, fill.strategy, signed, fill.fee)
            return
        gross = sum((abs(held) for _, held in holders), ZERO)
        step = self.instruments[fill.instrument].step
        left, fee_left = signed, fill.fee
        for index, (strategy, held) in enumerate(holders):
            part, fee = _towards_zero(signed * held / net, step), _towards_zero(fill.fee * abs(held) / gross, PICO)
            if index == len(holders) - 1:
                part, fee = left, fee_left
            left -= part
            fee_left -= fee
            if part:
                self._trade(fill, strategy, part, fee)

    def _trade(self, fill: OrderFilled, strategy: str, signed: Decimal, fee: Decimal) -> None:
        """Book one strategy's fill, split at nought where it goes through it."""
        name = fill.instrument
        holder = next(
            (trip for trip in self._open.get(strategy, ()) if name in trip.legs and trip.legs[name].held), None
        )
        if holder is not None:
            held = holder.legs[name].held
            if (signed > 0) != (held > 0) and abs(signed) > abs(held) and not self._is_dust(name, held + signed, fill):
                closing_fee = _towards_zero(fee * abs(held) / abs(signed), PICO)
                self._book(holder, fill, -held, closing_fee)
                signed, fee, holder = signed + held, fee - closing_fee, None
        self._book(holder or self._join(fill, strategy, signed), fill, signed, fee)

    def _join(self, fill: OrderFilled, strategy: str, signed: Decimal) -> _Trip:
        """The strategy's trip in the same coin that this leg hedges, or a new one."""
        base = self.instruments[fill.instrument].base
        trips = self._open.setdefault(strategy, [])
        for trip in trips:
            others = sum((leg.held for name, leg in trip.legs.items() if name != fill.instrument), ZERO)
            if trip.base == base and others and (others > 0) != (signed > 0):
                break
        else:
            trip = _Trip(strategy, base, fill.ts_event)
            trips.append(trip)
            self.trips.append(trip)
        return trip

    def _book(self, trip: _Trip, fill: OrderFilled, signed: Decimal, fee: Decimal) -> None:
        name, price = fill.instrument, fill.price
        instrument = self.instruments[name]
        leg = trip.legs.get(name)
        if leg is None:
            leg = trip.legs[name] = _Leg(direction=1 if signed > 0 else -1)
        dust, passed_at = self._dust.pop((trip.strategy, name), (ZERO, ZERO))
        # Selling nothing but dust ends a trip as well; else dust says nothing of which way a fill goes.
        before = leg.held or (dust if abs(signed) <= abs(dust) else ZERO)
        leg.held += dust
        trip.cash -= dust * passed_at
        size = abs(signed)
        if (signed > 0) == (leg.direction > 0):
            leg.opened += size
            leg.opened_value += size * price
        else:
            leg.closed += size
            leg.closed_value += size * price
        leg.held += signed
        trip.cash -= signed * price
        if fee:
            if fill.fee_currency == instrument.quote:
                trip.cash -= fee
                trip.fees += fee
            elif fill.fee_currency == instrument.base and instrument.is_spot:
                leg.held -= fee
                trip.fees += fee * price
            else:
                raise ContractError(f"a fee in {fill.fee_currency} for {name} cannot be valued")
        reduces = before and (signed > 0) != (before > 0)
        if reduces and all(self._is_dust(each, of.held, fill) for each, of in trip.legs.items()):
            self._close(trip, fill)

    def _is_dust(self, name: str, held: Decimal, fill: OrderFilled) -> bool:
        """Whether nothing is left that could be sold: on spot the venue refuses what is under its smallest order."""
        if not held:
            return True
        instrument = self.instruments[name]
        if not instrument.is_spot:
            return False
        price = fill.price if name == fill.instrument else self.last.get(name, fill.price)
        size = abs(instrument.whole_steps(held))
        return size < instrument.min_quantity or size * price < instrument.min_notional

    def _close(self, trip: _Trip, fill: OrderFilled) -> None:
        for name, leg in trip.legs.items():
            if leg.held:
                price = fill.price if name == fill.instrument else self.last.get(name, fill.price)
                trip.cash += leg.held * price
                quantity, _ = self._dust.get((trip.strategy, name), (ZERO, ZERO))
                self._dust[trip.strategy, name] = (quantity + leg.held, price)
                leg.held = ZERO
        trip.ts_close = fill.ts_event
        trip.closed_by = fill.exit or self._reason(fill.client_order_id)
        self._open[trip.strategy].remove(trip)

    def _reason(self, client_order_id: str) -> str:
        cause = self.asked.get(client_order_id.rpartition("-")[0]) or self.asked.get(client_order_id, "")
        return self.reasons.get(cause, "risk")


def _towards_zero(x: Decimal, unit: Decimal) -> Decimal:
    return x - (x.copy_abs() % unit).copy_sign(x)
