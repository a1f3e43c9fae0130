"""How much: the least of what the risk, the volatility and the record of a strategy allow.

Sizes are measurements until they are rounded to a step, so they are floats here; `Instrument.quantity` rounds them
towards zero. An input that is not known drops its term; if none is left, there is no size, and none is invented.
"""

import math
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Struct
from pydantic import BaseModel, Field


class FixedNotional(BaseModel, frozen=True, extra="forbid"):
    """The same value every time: for benchmarks and simple strategies. All of it or nothing: limits do not shrink it."""

    kind: Literal["fixed"] = "fixed"
    notional: float = Field(
        gt=0, allow_inf_nan=False, description="value of a position, of each leg of a pair, in quote"
    )


class EquityShare(BaseModel, frozen=True, extra="forbid"):
    """A share of the equity as it stands: gains and losses compound. All of it or nothing, as above."""

    kind: Literal["share"] = "share"
    share: float = Field(gt=0, allow_inf_nan=False, description="value of a position, or of each leg, over equity")


class RiskSizing(BaseModel, frozen=True, extra="forbid"):
    """The least of three terms and of the headroom that the limits leave.

    The Kelly term shrinks the measured Sharpe ratio towards nothing: `SR * s0^2 / (s0^2 + 1 / years)`,
    1 / years being about the variance of a ratio measured over that long. It is left out until there are trades enough.
    """

    kind: Literal["risk"] = "risk"
    risk_per_trade: float = Field(
        default=0.005, gt=0, description="share of equity lost, costs included, if the stop is hit"
    )
    cost_bp: float = Field(default=11.0, ge=0, description="round trip of fees and spread, basis points of price")
    target_volatility: float = Field(
        default=0.10, gt=0, description="volatility wanted of the strategy, per year, of equity"
    )
    kelly_fraction: float = Field(default=0.25, gt=0, le=1, description="part of the Kelly bet taken")
    kelly_prior: float = Field(default=0.5, gt=0, description="spread of Sharpe ratios expected beforehand, per year")
    sharpe: float | None = Field(
        default=None, description="measured Sharpe ratio of the strategy, per year, after costs"
    )
    sharpe_years: float | None = Field(
        default=None, gt=0, description="length of the record it was measured on, in years"
    )
    sharpe_trades: int = Field(default=0, ge=0, description="trades in that record")
    kelly_min_trades: int = Field(default=100, ge=0, description="the Kelly term counts only above as many trades")


Sizing = Annotated[FixedNotional | EquityShare | RiskSizing, Field(discriminator="kind")]


class Size(Struct, frozen=True, gc=False):
    """A quantity in base units, not yet rounded, and the term that decided it."""

    quantity: float
    term: str


def size(
    sizing: FixedNotional | EquityShare | RiskSizing,
    *,
    equity: Decimal,
    price: float,
    stop: float | None,
    volatility: float | None,
) -> Size | None:
    """Say how much to hold at full weight, before limits and rounding.

    Args:
        sizing: The strategy's way of sizing.
        equity: The account's worth, in quote, above zero.
        price: What the instrument is expected to trade at, above zero.
        stop: Where the position is given up, if anywhere.
        volatility: Of the instrument, per year, as a fraction of price, if known.

    Returns:
        None if every term lacks an input. A quantity of 0 is an answer too: a strategy with no record of gain.
    """
    if isinstance(sizing, FixedNotional):
        return Size(sizing.notional / price, "fixed")
    account = float(equity)
    if isinstance(sizing, EquityShare):
        return Size(sizing.share * account / price, "share")
    least = math.inf
    term = ""
    if stop is not None and stop != price:
        least = risk_quantity(sizing, account, price, stop)
        term = "risk"
    if volatility is not None and volatility > 0:
        allowed = account * sizing.target_volatility / (volatility * price)
        if allowed < least:
            least, term = allowed, "volatility"
        if sizing.sharpe is not None and sizing.sharpe_years is not None:
            allowed = kelly_quantity(sizing, account, price, volatility, posterior_sharpe(sizing))
            if allowed < least and sizing.sharpe_trades > sizing.kelly_min_trades:
                least, term = allowed, "kelly"
    return Size(least, term) if term else None


def risk_quantity(sizing: RiskSizing, equity: float, price: float, stop: float) -> float:
    """What loses `risk_per_trade` of the equity between entry and stop, costs included."""
    return sizing.risk_per_trade * equity / (abs(price - stop) + sizing.cost_bp * 1e-4 * price)


def kelly_quantity(sizing: RiskSizing, equity: float, price: float, volatility: float, sharpe: float) -> float:
    """A part of Kelly's `mu / sigma^2`, written with the Sharpe ratio; nothing if there is no gain to expect."""
    return max(0.0, sizing.kelly_fraction * equity * sharpe / (volatility * price))


def posterior_sharpe(sizing: RiskSizing) -> float:
    """The measured Sharpe ratio, shrunk by how little the record can tell."""
    if sizing.sharpe is None or sizing.sharpe_years is None:
        return 0.0
    prior = sizing.kelly_prior**2
    return sizing.sharpe * prior / (prior + 1 / sizing.sharpe_years)


def coarser_step(one: Decimal, other: Decimal) -> Decimal:
    """The least step both instruments can trade: what the legs of a pair are rounded to."""
    scale = one.as_integer_ratio()[1] * other.as_integer_ratio()[1]
    return Decimal(math.lcm(int(one * scale), int(other * scale))) / scale


def whole(quantity: Decimal, step: Decimal) -> Decimal:
    """Round towards zero to a step, written with the step's own digits: the venue reads them."""
    return quantity // step * step


def stressed(notional: Decimal, margin_rate: Decimal, shock: Decimal) -> Decimal:
    """What the derivative leg of a pair asks when the price moves against it by `shock`: its loss and its margin then.

    The other leg gains as much, but in coin: until it is sold it pays no margin call.
    """
    return notional * (shock + (1 + shock) * margin_rate)
