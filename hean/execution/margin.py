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


def bankruptcy_move(balance: float, value: float, taker_rate: float) -> float:
    """How far every mark may yet move against its position until closing them all, fees included, leaves nothing.

    Args:
        balance: Margin balance at the marks, quote currency; negative where they have gone too far already.
        value: Value of the positions at the marks, added up without their signs.
        taker_rate: Fee of closing, a fraction of value.

    Returns:
        A fraction of the marks; negative when it lies behind them. A liquidated account loses its margin and no more: what a
        gap takes beyond it is borne by the venue's insurance fund.
    """
    return balance / value - taker_rate
