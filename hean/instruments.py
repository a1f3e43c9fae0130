"""What may be traded, by which rules; and the one border between float and Decimal."""

import enum
import math
from decimal import Decimal
from functools import cached_property
from typing import Annotated

import msgspec

from hean.errors import ConfigError


class Category(enum.StrEnum):
    """The venue's own division: what a fill does to the account differs between them."""

    SPOT = "SPOT"
    LINEAR = "LINEAR"
    INVERSE = "INVERSE"


class RiskTier(msgspec.Struct, frozen=True):
    """Margin asked of a position whose value is at most `up_to` (Bybit v5, *Get Risk Limit*).

    Rates are fractions of position value. `deduction` makes the maintenance margin continuous
    from one tier to the next: it is subtracted from `value x maintenance_rate`.
    """

    up_to: Decimal
    maintenance_rate: Decimal
    initial_rate: Decimal
    deduction: Decimal = Decimal(0)


class Instrument(msgspec.Struct, frozen=True, dict=True):
    """The rules of one instrument, as they stood at one time.

    Prices move in `tick`, quantities in `step`; both are in the venue's units (quote per base,
    base). `min_notional` and `max_notional` bound price times quantity. A spot instrument has no funding
    (`funding_interval_h` 0) and no tiers.
    """

    id: str
    base: str
    quote: str
    tick: Decimal
    step: Decimal
    min_quantity: Decimal
    max_limit_quantity: Decimal
    max_market_quantity: Decimal
    min_notional: Decimal
    max_leverage: Decimal = Decimal(1)
    funding_interval_h: int = 0
    funding_cap: Decimal = Decimal(0)
    tiers: tuple[RiskTier, ...] = ()

    @cached_property
    def category(self) -> Category:
        return category_of(self.id)

    @cached_property
    def is_spot(self) -> bool:
        return self.category is Category.SPOT

    @cached_property
    def _tick(self) -> float:
        return float(self.tick)

    @cached_property
    def _step(self) -> float:
        return float(self.step)

    def price(self, x: float) -> Decimal:
        """Round a measured price to the nearest tick."""
        return round(x / self._tick) * self.tick

    def price_down(self, x: float) -> Decimal:
        """Round a measured price down to a tick; a price within 1e-9 of one counts as on it."""
        return math.floor(x / self._tick + 1e-9) * self.tick

    def price_up(self, x: float) -> Decimal:
        """Round a measured price up to a tick; a price within 1e-9 of one counts as on it."""
        return math.ceil(x / self._tick - 1e-9) * self.tick

    def quantity(self, x: float) -> Decimal:
        """Round a quantity towards zero to a step: never more than was asked for."""
        steps = math.floor(abs(x) / self._step + 1e-9)
        return (steps if x >= 0 else -steps) * self.step

    def whole_steps(self, held: Decimal) -> Decimal:
        """Round what is held towards zero to a step, in the step's own digits: the part that can be traded. The rest is dust."""
        part = held.copy_abs()
        part -= part % self.step
        # The venue refuses more digits than it asked for, be they noughts.
        return (part if held >= 0 else -part).quantize(self.step)


def instrument_id(symbol: str, category: Category, venue: str) -> str:
    """Name an instrument as HEAN does everywhere: `BTCUSDT-LINEAR.BYBIT`."""
    return f"{symbol}-{category}.{venue}"


def split_id(instrument: str) -> tuple[str, Category, str]:
    """Take `BTCUSDT-LINEAR.BYBIT` apart into symbol, category and venue.

    Raises:
        ConfigError: the name is not of that form.
    """
    symbol, dash, rest = instrument.partition("-")
    category, dot, venue = rest.partition(".")
    if not (symbol and dash and dot and venue) or category not in Category.__members__:
        raise ConfigError(f"instrument {instrument!r} should read like BTCUSDT-LINEAR.BYBIT or BTCUSDT-SPOT.BYBIT")
    return symbol, Category(category), venue


def category_of(instrument: str) -> Category:
    return split_id(instrument)[1]


Perp = Annotated[str, Category.LINEAR]
"""A strategy's config field of this type names a linear perpetual, filled from the symbol where it is not given."""

Spot = Annotated[str, Category.SPOT]
"""The same for a spot instrument."""
