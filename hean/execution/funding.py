"""What a settlement moves. How the rate is made is in `hean.market.carry`, where strategies read it too.

Source: Bybit help centre, *Introduction to Funding Rate*.
"""

from decimal import Decimal


def settlement(quantity: Decimal, mark: Decimal, rate: Decimal) -> Decimal:
    """What a position of signed `quantity` receives at a settlement: a short receives when the rate is positive."""
    return -quantity * mark * rate
