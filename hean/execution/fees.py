"""What a fill costs: rates by category and tier, and the coin they are taken in."""

from decimal import Decimal

from msgspec import Struct

from hean.errors import ConfigError
from hean.instruments import Category, Instrument
from hean.messages import Liquidity, Side


class FeeRates(Struct, frozen=True):
    """Fractions of the value traded; a negative maker rate is a rebate."""

    spot_maker: Decimal
    spot_taker: Decimal
    linear_maker: Decimal
    linear_taker: Decimal

    def of(self, category: Category, liquidity: Liquidity) -> Decimal:
        if category is Category.SPOT:
            return self.spot_maker if liquidity is Liquidity.MAKER else self.spot_taker
        return self.linear_maker if liquidity is Liquidity.MAKER else self.linear_taker


def _bp(*rates: str) -> FeeRates:
    spot_maker, spot_taker, linear_maker, linear_taker = (Decimal(rate).scaleb(-4) for rate in rates)
    return FeeRates(spot_maker, spot_taker, linear_maker, linear_taker)


# Basis points. Bybit help centre, *Trading Fee Structure*; on a live account `account/fee-rate` is the authority.
BYBIT_TIERS: dict[str, FeeRates] = {
    "base": _bp("10", "10", "2", "5.5"),
    "vip1": _bp("6.75", "8", "1.8", "4"),
    "vip2": _bp("6.5", "7.75", "1.6", "3.75"),
    "vip3": _bp("6.25", "7.5", "1.4", "3.5"),
    "vip4": _bp("5", "6", "1.2", "3.2"),
    "vip5": _bp("4", "5", "1", "3.2"),
    "supreme": _bp("3", "4.5", "0", "3"),
}


def fee_rates(tier: str) -> FeeRates:
    """The rates of a tier.

    Raises:
        ConfigError: there is no such tier.
    """
    if tier not in BYBIT_TIERS:
        raise ConfigError(f"fee tier {tier!r} is none of {', '.join(BYBIT_TIERS)}")
    return BYBIT_TIERS[tier]


def fee(
    instrument: Instrument, side: Side, quantity: Decimal, price: Decimal, rate: Decimal, liquidity: Liquidity
) -> tuple[Decimal, str]:
    """The fee of one fill and the coin it is taken in, positive when we pay.

    A derivative pays in its settlement coin. Spot pays in what is received: a buyer in the base
    coin, a seller in the quote coin; a maker's rebate comes in the other one (Bybit v5, *Enum: spot
    fee currency*).
    """
    if not instrument.is_spot:
        return quantity * price * rate, instrument.quote
    in_base = (side is Side.BUY) is not (rate < 0 and liquidity is Liquidity.MAKER)
    return (quantity * rate, instrument.base) if in_base else (quantity * price * rate, instrument.quote)
