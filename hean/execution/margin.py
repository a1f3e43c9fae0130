"""What a position ties up, and when it is taken away: cross margin of a unified account, as pure rules.

Source: Bybit help centre, *Initial and Maintenance Margin (Unified Trading Account)*, and v5 *Get Risk
Limit*. Spot holdings carry the losses of perpetuals after a haircut.
"""

from decimal import Decimal

from hean.instruments import Instrument, RiskTier

ZERO = Decimal(0)

DEFAULT_TIER = RiskTier(Decimal("Infinity"), maintenance_rate=Decimal("0.02"), initial_rate=Decimal("0.04"))
"""For an instrument whose tiers are unknown: on the cautious side of every major's first tier."""


def tier_of(instrument: Instrument, value: Decimal) -> RiskTier:
    """The risk tier a position of this value falls into; the last one holds whatever is larger."""
    for tier in instrument.tiers:
        if value <= tier.up_to:
            return tier
    return instrument.tiers[-1] if instrument.tiers else DEFAULT_TIER


def maintenance(instrument: Instrument, value: Decimal, taker_rate: Decimal) -> Decimal:
    """Margin below which a position of this value is liquidated; the fee of closing it is part of it."""
    tier = tier_of(instrument, value)
    return value * (tier.maintenance_rate + taker_rate) - tier.deduction


def initial(instrument: Instrument, value: Decimal, leverage: Decimal, taker_rate: Decimal) -> Decimal:
    """Margin asked to open a position of this value: at the chosen leverage, or the tier's own rate where that is higher."""
    return value * (max(1 / leverage, tier_of(instrument, value).initial_rate) + taker_rate)


def bankruptcy_price(quantity: Decimal, mark: Decimal, instrument: Instrument) -> Decimal:
    """Where a liquidated position changes hands: beyond the mark by the maintenance margin, which is lost with it."""
    rate = tier_of(instrument, abs(quantity) * mark).maintenance_rate
    return mark * (1 - rate) if quantity > 0 else mark * (1 + rate)
