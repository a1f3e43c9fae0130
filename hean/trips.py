"""Round trips: what each strategy held, from flat to flat, folded from fills and funding as they come.

Two opposite legs of one coin are one trip. A fill that goes through nought closes one trip and opens the next. What is
left of a coin and too small to be sold is dust: the trip is over without it, and dust passes to the next trip at the
price of the last fill, so that profits add up and no trip stays open for a millionth of a coin.

Interest is the account's, not a position's: it is in no trip.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Context, Decimal, localcontext

from msgspec import Struct, field

from hean.errors import ContractError
from hean.instruments import Instrument
from hean.messages import BooksAdjusted, FundingSettled, Liquidity, OrderFilled, Side

ZERO = Decimal(0)
EXACT = Context(prec=60)
PRICE = Context(prec=12)
PICO = Decimal("1e-12")


class RoundTrip(Struct, frozen=True):
    """One position of one strategy from flat to flat. `pnl` is net of fees and funding, in quote currency.

    A pair is one round trip of two instruments: `instruments` has both. `side` and the prices are those of the first, and
    `quantity` is all that was opened of it, so that entry, exit and quantity multiply. `ts_close` and `exit_price` are None
    while it is open.
    """

    strategy: str
    instruments: tuple[str, ...]
    side: str
    quantity: Decimal
    ts_open: int
    ts_close: int | None
    entry_price: Decimal
    exit_price: Decimal | None
    pnl: Decimal
    fees: Decimal
    funding: Decimal
    closed_by: str


class Leg(Struct):
    """One instrument of a trip: what is held, and how it got there."""

    held: Decimal = ZERO
    direction: int = 0
    opened: Decimal = ZERO
    opened_value: Decimal = ZERO
    closed: Decimal = ZERO
    closed_value: Decimal = ZERO


class Trip(Struct):
    """A trip under way, or just over. `cash` is the quote currency that came in, less what went out: fees in coin are in `legs`.

    `number` counts trips in the order in which they were opened.
    """

    strategy: str
    base: str
    ts_open: int
    number: int
    legs: dict[str, Leg] = field(default_factory=dict)
    cash: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    ts_close: int | None = None
    closed_by: str = ""

    def told(self, prices: Mapping[str, Decimal]) -> RoundTrip:
        """The trip as it stands. What it still holds is worth these prices; once it is over it holds nothing."""
        name, leg = next(iter(self.legs.items()))
        with localcontext(EXACT):
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


class Dust(Struct, frozen=True):
    """What past trips left of an instrument, and the price it was passed on at."""

    quantity: Decimal = ZERO
    price: Decimal = ZERO


class Trips(Struct):
    """Every strategy's open trips, the dust of its past ones by instrument, and the price of each instrument's last fill."""

    opened: int = 0
    open: dict[str, list[Trip]] = field(default_factory=dict)
    dust: dict[str, dict[str, Dust]] = field(default_factory=dict)
    last: dict[str, Decimal] = field(default_factory=dict)


class TripBook:
    """Folds fills and funding into trips. Whoever tells it sees to it that nothing is told twice.

    Args:
        instruments: The rules of what is traded.
        why: What a trip was closed by, from the fill that ended it, where that is no exit held at the venue.
        state: The trips under way.
    """

    def __init__(
        self,
        instruments: Mapping[str, Instrument],
        why: Callable[[Trip, OrderFilled], str],
        state: Trips | None = None,
    ) -> None:
        self.instruments = instruments
        self.state = state or Trips()
        self._why = why

    def knows(self, fill: OrderFilled) -> bool:
        """Whether a fill can be booked: its instrument is known, and its fee in one of that instrument's coins."""
        rules = self.instruments.get(fill.instrument)
        if rules is None:
            return False
        return not fill.fee or fill.fee_currency == rules.quote or (rules.is_spot and fill.fee_currency == rules.base)

    def fill(self, fill: OrderFilled) -> list[Trip]:
        """Take a fill in. One of the venue's own, such as a liquidation, is divided among the holders.

        Returns:
            The trips that are over by it.

        Raises:
            ContractError: It is of an unknown instrument, or its fee in a coin that is neither of its two.
        """
        if fill.instrument not in self.instruments:
            raise ContractError(f"a fill of {fill.instrument}, which is not among the instruments of the run")
        with localcontext(EXACT):
            signed = fill.quantity if fill.side > 0 else -fill.quantity
            if fill.strategy and fill.exit != "liquidation":
                over = list(self._trade(fill, fill.strategy, signed, fill.fee))
            else:
                over = list(self._divide(fill, signed))
        self.state.last[fill.instrument] = fill.price
        return over

    def funding(self, settled: FundingSettled) -> None:
        """Divide a settlement by what each strategy holds; what was rounded goes to the largest holder."""
        holders = [(trip, trip.legs[settled.instrument].held) for trip in self._holders(settled.instrument)]
        if not holders:
            return
        with localcontext(EXACT):
            rest = settled.amount
            for trip, held in holders:
                amount = -held * settled.mark * settled.rate
                trip.funding += amount
                rest -= amount
            largest, _ = max(holders, key=lambda holder: abs(holder[1]))
            largest.funding += rest

    def adjusted(self, entry: BooksAdjusted, now: int) -> list[Trip]:
        """Take in an entry in the books that no fill explains, as if it had been traded at its price, or at the last there was.

        Returns:
            The trips that are over by it: "adjustment" has closed them. What no strategy owns is in no trip.
        """
        name = entry.instrument
        price = entry.price or self.state.last.get(name)
        if entry.currency or not entry.strategy or not entry.quantity or not price or name not in self.instruments:
            return []
        return self.fill(
            OrderFilled(
                client_order_id=entry.adjustment_id,
                strategy=entry.strategy,
                instrument=name,
                trade_id=entry.adjustment_id,
                side=Side.BUY if entry.quantity > 0 else Side.SELL,
                quantity=abs(entry.quantity),
                price=price,
                fee=ZERO,
                fee_currency="",
                liquidity=Liquidity.TAKER,
                reference=None,
                exit="adjustment",
                ts_event=now,
            )
        )

    def under_way(self) -> list[Trip]:
        """The open trips, in the order in which they were opened."""
        return sorted((trip for trips in self.state.open.values() for trip in trips), key=lambda trip: trip.number)

    def _holders(self, instrument: str) -> list[Trip]:
        return [
            trip
            for trips in self.state.open.values()
            for trip in trips
            if instrument in trip.legs and trip.legs[instrument].held
        ]

    def _divide(self, fill: OrderFilled, signed: Decimal) -> Iterator[Trip]:
        """Divide a fill of the venue's own among the holders, in proportion to what each holds."""
        holders = [(trip.strategy, trip.legs[fill.instrument].held) for trip in self._holders(fill.instrument)]
        net = sum((held for _, held in holders), ZERO)
        if not net or (signed > 0) == (net > 0):
            yield from self._trade(fill, fill.strategy, signed, fill.fee)
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
                yield from self._trade(fill, strategy, part, fee)

    def _trade(self, fill: OrderFilled, strategy: str, signed: Decimal, fee: Decimal) -> Iterator[Trip]:
        """Book one strategy's fill, split at nought where it goes through it; the trips that are over by it."""
        name = fill.instrument
        trips = self.state.open.get(strategy, ())
        holder = next((trip for trip in trips if name in trip.legs and trip.legs[name].held), None)
        if holder is not None:
            held = holder.legs[name].held
            if (signed > 0) != (held > 0) and abs(signed) > abs(held) and not self._is_dust(name, held + signed, fill):
                closing_fee = _towards_zero(fee * abs(held) / abs(signed), PICO)
                if self._book(holder, fill, -held, closing_fee):
                    yield holder
                signed, fee, holder = signed + held, fee - closing_fee, None
        trip = holder or self._join(fill, strategy, signed)
        if self._book(trip, fill, signed, fee):
            yield trip

    def _join(self, fill: OrderFilled, strategy: str, signed: Decimal) -> Trip:
        """The strategy's trip in the same coin that this leg hedges, or a new one."""
        state = self.state
        base = self.instruments[fill.instrument].base
        trips = state.open.setdefault(strategy, [])
        for trip in trips:
            others = sum((leg.held for name, leg in trip.legs.items() if name != fill.instrument), ZERO)
            if trip.base == base and others and (others > 0) != (signed > 0):
                return trip
        state.opened += 1
        trip = Trip(strategy, base, fill.ts_event, state.opened)
        trips.append(trip)
        return trip

    def _book(self, trip: Trip, fill: OrderFilled, signed: Decimal, fee: Decimal) -> bool:
        """Book a fill, or a part of one; whether the trip is over by it."""
        name, price = fill.instrument, fill.price
        instrument = self.instruments[name]
        leg = trip.legs.get(name)
        if leg is None:
            leg = trip.legs[name] = Leg(direction=1 if signed > 0 else -1)
        dust = self.state.dust.get(trip.strategy, {}).pop(name, _NO_DUST)
        # Selling nothing but dust ends a trip as well; else dust says nothing of which way a fill goes.
        before = leg.held or (dust.quantity if abs(signed) <= abs(dust.quantity) else ZERO)
        leg.held += dust.quantity
        trip.cash -= dust.quantity * dust.price
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
        over = bool(reduces) and all(self._is_dust(each, of.held, fill) for each, of in trip.legs.items())
        if over:
            self._close(trip, fill)
        return over

    def _is_dust(self, name: str, held: Decimal, fill: OrderFilled) -> bool:
        """Whether nothing is left that could be sold: on spot the venue refuses what is under its smallest order."""
        if not held:
            return True
        instrument = self.instruments.get(name)  # a leg may be of what was traded under other settings
        if instrument is None or not instrument.is_spot:
            return False
        size = abs(instrument.whole_steps(held))
        return size < instrument.min_quantity or size * self._price(name, fill) < instrument.min_notional

    def _close(self, trip: Trip, fill: OrderFilled) -> None:
        for name, leg in trip.legs.items():
            if leg.held:
                price = self._price(name, fill)
                trip.cash += leg.held * price
                of = self.state.dust.setdefault(trip.strategy, {})
                of[name] = Dust(of.get(name, _NO_DUST).quantity + leg.held, price)
                leg.held = ZERO
        trip.ts_close = fill.ts_event
        trip.closed_by = fill.exit or self._why(trip, fill)
        self.state.open[trip.strategy].remove(trip)

    def _price(self, name: str, fill: OrderFilled) -> Decimal:
        """What an instrument last traded at."""
        return fill.price if name == fill.instrument else self.state.last.get(name, fill.price)


_NO_DUST = Dust()


def _towards_zero(x: Decimal, unit: Decimal) -> Decimal:
    return x - (x.copy_abs() % unit).copy_sign(x)
