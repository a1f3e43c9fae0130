"""The account a simulated venue keeps: coins, positions, margin. One account, cross margin, one quote currency."""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

from msgspec import Struct, field

from hean.execution.margin import ZERO, tier_of
from hean.instruments import Instrument
from hean.netting import netted


class Position(Struct, gc=False):
    """A derivative position: signed quantity, and the signed value it was entered at. Value over quantity is its entry."""

    quantity: Decimal = ZERO
    value: Decimal = ZERO

    def trade(self, signed: Decimal, price: Decimal) -> Decimal:
        """Book a fill of a signed quantity, and return the profit it realises, before fees."""
        held = self.quantity
        self.value, realised = netted(held, self.value, signed, price)
        self.quantity = held + signed
        return realised


class Account(Struct):
    """Balances by coin, and positions by instrument."""

    balances: dict[str, Decimal]
    positions: dict[str, Position] = field(default_factory=dict)

    def credit(self, coin: str, amount: Decimal) -> None:
        self.balances[coin] = self.balances.get(coin, ZERO) + amount

    def held(self, instrument: Instrument) -> Decimal:
        """What is held of it: the coin for spot, the signed position for a derivative."""
        if instrument.is_spot:
            return self.balances.get(instrument.base, ZERO)
        position = self.positions.get(instrument.id)
        return position.quantity if position is not None else ZERO

    def trade(self, instrument: Instrument, signed: Decimal, price: Decimal) -> None:
        """Book a fill without its fee: `signed` is positive when bought."""
        if instrument.is_spot:
            self.credit(instrument.base, signed)
            self.credit(instrument.quote, -signed * price)
            return
        position = self.positions.get(instrument.id)
        if position is None:
            position = self.positions[instrument.id] = Position()
        realised = position.trade(signed, price)
        if realised:
            self.credit(instrument.quote, realised)
        if position.quantity == 0:
            del self.positions[instrument.id]


class MarkForm(Struct, gc=False):
    """A sum of money as a linear form of the marks: constant + sum of slope x mark.

    Floats: a measurement that decides when to look, and what it finds is booked in Decimal.
    """

    constant: float
    slopes: dict[str, float]

    def at(self, prices: Mapping[str, float]) -> float:
        total = self.constant
        for instrument, slope in self.slopes.items():
            total += slope * prices[instrument]
        return total


def margin_form(
    account: Account,
    instruments: Mapping[str, Instrument],
    spot_of: Mapping[str, str],
    *,
    quote: str,
    haircut: float,
    taker_rate: float,
) -> MarkForm:
    """The margin balance less the maintenance margin: a position lives while it is above nought.

    A position's tier is read off its entry value, so that the form changes with the account alone.

    Args:
        account: What is held.
        instruments: The rules of everything that may be held.
        spot_of: By coin, the spot instrument it is valued at; a coin without one is worth nothing here.
        quote: The currency positions are margined in.
        haircut: Share of a coin's value that does not count.
        taker_rate: Fee of closing, a fraction; part of the maintenance margin.
    """
    form = MarkForm(0.0, {})
    for coin, amount in account.balances.items():
        if coin == quote:
            form.constant += float(amount)
        elif amount and coin in spot_of:
            form.slopes[spot_of[coin]] = float(amount) * (1 - haircut)
    for name, position in account.positions.items():
        quantity = float(position.quantity)
        tier = tier_of(instruments[name], abs(position.value))
        form.constant += float(tier.deduction) - float(position.value)
        form.slopes[name] = quantity - abs(quantity) * (float(tier.maintenance_rate) + taker_rate)
    return form


def cash_form(account: Account, *, quote: str) -> MarkForm:
    """The quote currency once every position were closed at its mark: what is below nought is borrowed against coins."""
    form = MarkForm(float(account.balances.get(quote, ZERO)), {})
    for name, position in account.positions.items():
        form.constant -= float(position.value)
        form.slopes[name] = float(position.quantity)
    return form


@lru_cache(maxsize=4096)
def measured(price: float) -> Decimal:
    """A measured price as the venue wrote it: a mean of two prices carries no binary noise into the books."""
    return Decimal(f"{price:.12g}")


def booked(amount: Decimal) -> Decimal:
    """An amount no finer than a balance of ten digits can add up without rounding."""
    rounded = amount.quantize(ATTO)
    return amount if rounded == amount else rounded


ATTO = Decimal("1e-18")
