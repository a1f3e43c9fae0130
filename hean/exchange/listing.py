"""What may be traded, with what the wire says of it beyond the rules that every part of HEAN needs."""

from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property

from msgspec import Struct

from hean.errors import ConfigError
from hean.instruments import Category, Instrument, instrument_id
from hean.store.rules import in_force


class Listing(Struct, frozen=True, dict=True):
    """An instrument on this exchange.

    `band` is how far from the mark (spot: from the last price) a limit may lie, a fraction; a market order is held within
    `market_band`. `funding_minutes` is 0 for spot.
    """

    instrument: Instrument
    symbol: str
    symbol_id: int
    ts_launch: int
    band: Decimal
    market_band: Decimal
    funding_minutes: int

    @property
    def id(self) -> str:
        return self.instrument.id

    @cached_property
    def is_spot(self) -> bool:
        return self.instrument.is_spot

    @cached_property
    def category(self) -> str:
        """What the wire calls it: "linear" or "spot"."""
        return "spot" if self.is_spot else "linear"

    @cached_property
    def price_places(self) -> int:
        return places(self.instrument.tick)

    @cached_property
    def quantity_places(self) -> int:
        return places(self.instrument.step)

    def ticks(self, price: Decimal) -> int:
        """A price on the grid as whole ticks."""
        return int(price / self.instrument.tick)

    def price(self, ticks: int) -> Decimal:
        return ticks * self.instrument.tick

    def steps(self, quantity: Decimal) -> int:
        """A quantity in whole steps, what is below one left out."""
        return int(quantity / self.instrument.step)

    def quantity(self, steps: int) -> Decimal:
        return steps * self.instrument.step


def places(grid: Decimal) -> int:
    """How many decimals a number on this grid can have."""
    exponent = grid.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


# Bybit v5 instruments-info as read on 2026-08-09; others get the middle of what was seen there.
_BANDS = {
    "BTCUSDT-LINEAR.BYBIT": ("0.01", "0.02"),
    "ETHUSDT-LINEAR.BYBIT": ("0.02", "0.04"),
    "BTCUSDT-SPOT.BYBIT": ("0.005", "0.01"),
    "ETHUSDT-SPOT.BYBIT": ("0.005", "0.01"),
}
_LAUNCHED = {"BTCUSDT": 1_584_230_400, "ETHUSDT": 1_615_766_400}
_SYMBOL_IDS = {
    "BTCUSDT-LINEAR.BYBIT": 5,
    "ETHUSDT-LINEAR.BYBIT": 6,
    "BTCUSDT-SPOT.BYBIT": 9,
    "ETHUSDT-SPOT.BYBIT": 10,
}
_OTHER_LAUNCH = 1_640_995_200  # 2022-01-01


def listings(symbols: Iterable[str], *, at: int, funding_minutes: int | None = None) -> dict[str, Listing]:
    """The perpetual and, where it is known, the spot instrument of each symbol, by the rules that come with HEAN.

    Args:
        symbols: Such as BTCUSDT.
        at: When they are listed; the rules in force then.
        funding_minutes: Minutes from one settlement to the next, instead of each symbol's own.

    Raises:
        ConfigError: no rules are known of a symbol, or the interval does not divide a day.
    """
    if funding_minutes is not None and (funding_minutes < 1 or 1440 % funding_minutes):
        raise ConfigError(
            f"a funding interval of {funding_minutes} minutes does not divide a day: take 1, 5, 60 or 480"
        )
    listed: dict[str, Listing] = {}
    for symbol in symbols:
        found = [
            known[0]
            for category in (Category.LINEAR, Category.SPOT)
            if (known := in_force((), instrument_id(symbol, category, "BYBIT"), at)) is not None
        ]
        if not found:
            raise ConfigError(f"no rules of {symbol!r} come with HEAN: take a common symbol such as BTCUSDT")
        for instrument in found:
            x, y = _BANDS.get(instrument.id, ("0.05", "0.1"))
            minutes = 0 if instrument.is_spot else funding_minutes or instrument.funding_interval_h * 60
            listed[instrument.id] = Listing(
                instrument=instrument,
                symbol=symbol,
                symbol_id=_SYMBOL_IDS.get(instrument.id, 100 + len(listed)),
                ts_launch=_LAUNCHED.get(symbol, _OTHER_LAUNCH) * 1_000_000_000,
                band=Decimal(x),
                market_band=Decimal(y),
                funding_minutes=minutes,
            )
    return listed
