"""How funding is made and what it moves: pure rules, shared by every venue of ours.

Source: Bybit help centre, *Introduction to Funding Rate*.
"""

from collections.abc import Sequence
from decimal import Decimal

INTEREST_PER_8H = 0.0001
"""The interest part of the rate: 0.01 % for eight hours, 0.03 % a day."""

DEADBAND = 0.0005
"""Premia within this of the interest rate leave the funding rate at the interest rate."""


def settlement(quantity: Decimal, mark: Decimal, rate: Decimal) -> Decimal:
    """What a position of signed `quantity` receives at a settlement: a short receives when the rate is positive."""
    return -quantity * mark * rate


def mean_premium(premia: Sequence[float]) -> float:
    """The interval's premium: later minutes weigh more, the i-th of n with weight i.

    Raises:
        ValueError: there is no minute to take the mean of.
    """
    if not premia:
        raise ValueError("the mean premium of no minutes is unknown, not zero")
    return sum(weight * premium for weight, premium in enumerate(premia, 1)) / (len(premia) * (len(premia) + 1) / 2)


def funding_rate(premium: float, interval_h: int, cap: float) -> float:
    """The rate of one interval from its mean premium: F = P + clamp(I - P, -0.05 %, +0.05 %), held within ±cap.

    Args:
        premium: Mean premium index of the interval, a fraction of the index.
        interval_h: Length of the interval in hours.
        cap: Largest magnitude of the rate, a fraction; the symbol's own.
    """
    interest = INTEREST_PER_8H * interval_h / 8
    rate = premium + min(max(interest - premium, -DEADBAND), DEADBAND)
    return min(max(rate, -cap), cap)


def nowcast(known: Sequence[float], expected: float, minutes: int) -> float:
    """The mean premium the interval will have, when `known` are its first minutes and the rest stay at `expected`.

    Args:
        known: Premium of each minute gone by, in order; may be empty.
        expected: Premium assumed of each minute still to come, such as a mean of the recent ones.
        minutes: How many the interval has.

    Raises:
        ValueError: more minutes are known than the interval has.
    """
    if len(known) > minutes:
        raise ValueError(f"{len(known)} minutes are known of an interval of {minutes}")
    gone = sum(weight * premium for weight, premium in enumerate(known, 1))
    total = minutes * (minutes + 1) / 2
    ahead = total - len(known) * (len(known) + 1) / 2
    return (gone + expected * ahead) / total
