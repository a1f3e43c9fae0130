"""How a position is netted, and what a trade realises: one rule for our books, for every venue of ours, and for comparing them.

Mean entry, as Bybit has it: opening adds to the value a position was entered at, closing takes a share of it away.
"""

from decimal import Context, Decimal

ZERO = Decimal(0)
PICO = Decimal("1e-12")
"""What a share of something is rounded to; the remainder is always somebody's."""

_EXACT = Context(prec=60)


def netted(held: Decimal, value: Decimal, signed: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
    """Trade a signed quantity against what is held.

    Args:
        held: Signed quantity before the trade.
        value: The signed value at which that was entered; over the quantity it is the mean entry.
        signed: Quantity traded, positive when bought.
        price: At which.

    Returns:
        The value at which what is left was entered, and the profit realised, before fees. Together they lose nothing: a
        partial close takes its share of the value, rounded, and the remainder of the rounding stays in the position.
    """
    if not held or (held > ZERO) is (signed > ZERO):
        return value + signed * price, ZERO
    if abs(signed) < abs(held):
        leaving = _EXACT.divide(_EXACT.multiply(value, -signed), held).quantize(PICO)
        return value - leaving, -leaving - signed * price
    return (held + signed) * price, held * price - value
