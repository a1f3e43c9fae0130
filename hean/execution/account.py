"""The account a simulated venue keeps: coins, positions, margin. One account, cross margin, USDT as quote."""

from decimal import Decimal

from msgspec import Struct, field

from hean.execution.margin import ZERO, initial, tier_of
from hean.instruments import Instrument


class Position(Struct, gc=False):
    """A derivative position: signed quantity, and the signed value it was entered at. Value over quantity is its entry."""

    quantity: Decimal = ZERO
    value: Decimal = ZERO


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
        held = position.quantity
        after = held + signed
        if held == 0 or (held > 0) == (signed > 0):
            position.value += signed * price
        elif after == 0 or (after > 0) == (held > 0):
            # A share of the entry value leaves with the closed quantity; its rounding stays with the rest.
            leaving = position.value if after == 0 else (position.value * (-signed) / held).quantize(_CENTIPICO)
            self.credit(instrument.quote, -signed * price - leaving)
            position.value -= leaving
        else:
            self.credit(instrument.quote, held * price - position.value)
            position.value = after * price
        position.quantity = after
        if after == 0:
            del self.positions[instrument.id]


class MarginForm(Struct, gc=False):
    """Margin balance less maintenance margin, as a linear form of the marks: constant + sum of slope x mark.

    Floats: a measurement that decides when to look, and what it finds is booked in Decimal.
    """

    constant: float
    slopes: dict[str, float]

    def at(self, prices: dict[str, float]) -> float:
        total = self.constant
        for instrument, slope in self.slopes.items():
            total += slope * prices[instrument]
        return total


def margin_form(
    account: Account, instruments: dict[str, Instrument], *, haircut: float, taker_rate: float
) -> MarginForm:
    """The account's margin as a form of the marks.

    A position's tier is read off its entry value, so that the form changes with the account alone.
    """
    quote = next(iter(instruments.values())).quote if instruments else "USDT"
    form = MarginForm(float(account.balances.get(quote, ZERO)), {})
    for name, instrument in instruments.items():
        if instrument.is_spot:
            held = float(account.balances.get(instrument.base, ZERO))
            if held:
                form.slopes[name] = held * (1 - haircut)
            continue
        position = account.positions.get(name)
        if position is None:
            continue
        quantity = float(position.quantity)
        tier = tier_of(instrument, abs(position.value))
        form.constant += float(tier.deduction) - float(position.value)
        form.slopes[name] = quantity - abs(quantity) * (float(tier.maintenance_rate) + taker_rate)
    return form


def initial_margin(
    account: Account, instruments: dict[str, Instrument], prices: dict[str, Decimal], leverage: Decimal, taker: Decimal
) -> Decimal:
    """Margin tied up by the open positions."""
    total = ZERO
    for name, position in account.positions.items():
        total += initial(instruments[name], abs(position.quantity) * prices[name], leverage, taker)
    return total


_CENTIPICO = Decimal("1e-14")
