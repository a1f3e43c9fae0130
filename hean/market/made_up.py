"""How a made-up market moves: regimes of drift and volatility, a walk with a shared part, a basis that reverts.

Shared by whatever makes markets up, so that they are all of one kind. It is for trying the machinery, never for judging
a strategy: what a strategy finds here was put here by the few lines below. Chance is handed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from hean.market.carry import funding_rate, mean_premium
from hean.units import HOUR, YEAR

Floats = NDArray[np.float64]

STARTS = {
    "BTC": 65_000.0, "ETH": 2_500.0, "SOL": 150.0, "BNB": 650.0, "XRP": 2.2, "DOGE": 0.17, "ADA": 0.6, "DOT": 3.5,
    "WIF": 0.8, "LTC": 90.0, "LINK": 14.0, "AVAX": 20.0, "APE": 0.7,
}  # fmt: skip
"""Prices to begin with, by base coin."""

_SHARED = 0.7  # share of the market's variance in each symbol's
_BASIS_NOISE = 2e-4  # standard deviation of the basis about its mean


@dataclass(frozen=True)
class Regime:
    """How the market behaves for a while: drift and volatility a year, mean basis, and how long it lasts."""

    drift: float
    volatility: float
    basis: float
    hours: float


REGIMES = (
    Regime(drift=0.0, volatility=0.30, basis=0.5e-4, hours=36),
    Regime(drift=3.0, volatility=0.55, basis=6e-4, hours=18),
    Regime(drift=-3.0, volatility=0.65, basis=-5e-4, hours=12),
    Regime(drift=-1.0, volatility=1.80, basis=-8e-4, hours=3),
)
DRIFT: Floats = np.array([regime.drift for regime in REGIMES])
VOLATILITY: Floats = np.array([regime.volatility for regime in REGIMES])
BASIS: Floats = np.array([regime.basis for regime in REGIMES])


def regimes(chance: np.random.Generator, count: int, step: int, current: int = 0) -> NDArray[np.intp]:
    """Draw which regime each bar is in: a Markov chain whose stays are geometric, and so may be drawn piece by piece."""
    drawn = np.empty(count, dtype=np.intp)
    at = 0
    while at < count:
        stay = int(chance.geometric(min(1.0, step / (REGIMES[current].hours * HOUR))))
        drawn[at : at + stay] = current
        at += stay
        current = int((current + chance.integers(1, len(REGIMES))) % len(REGIMES))
    return drawn


def walk(
    chance: np.random.Generator, drift: Floats, volatility: Floats, pull: Floats, *, start: float, step: int
) -> Floats:
    """Walk from bar to bar; a bar opens where the last one closed.

    Args:
        chance: Of the symbol's own part.
        drift: A year, shape (bars, 1).
        volatility: A year, shape (bars, 1).
        pull: Normal shocks that all symbols share, shape (bars, moves).
        start: The price the first bar opens at.
        step: Length of a bar in nanoseconds.

    Returns:
        Prices, shape (bars, moves + 1): the first of each bar is its open, the last its close.
    """
    years = step / YEAR / pull.shape[1]
    own = chance.standard_normal(pull.shape)
    shocks = np.sqrt(_SHARED) * pull + np.sqrt(1 - _SHARED) * own
    returns = (drift - volatility**2 / 2) * years + volatility * np.sqrt(years) * shocks
    walked = np.log(start) + np.cumsum(returns.ravel()).reshape(returns.shape)
    opens = np.concatenate([[np.log(start)], walked[:-1, -1]])
    path: Floats = np.exp(np.column_stack([opens, walked]))
    return path


def basis_closes(chance: np.random.Generator, mean: Floats, *, step: int, before: float | None = None) -> Floats:
    """The basis at the end of each bar, a fraction of the index: it reverts to its mean with a half-life of an hour.

    Args:
        chance: Of the symbol.
        mean: What it reverts to in each bar, shape (bars,).
        step: Length of a bar in nanoseconds.
        before: Where it was at the first open; None to begin with the first push.
    """
    keep = 0.5 ** (step / HOUR)
    noise = chance.standard_normal(mean.size) * _BASIS_NOISE * np.sqrt(1 - keep**2)
    pushes = (1 - keep) * mean + noise
    if before is not None:
        pushes[0] += keep * before
    return np.fromiter(accumulate(pushes.tolist(), lambda before, push: keep * before + push), dtype=np.float64)


def premium_of(basis: Floats, half_spread: float) -> Floats:
    """The premium index of a basis: what is left of it outside the spread, to eight decimals."""
    left: Floats = np.sign(basis) * np.maximum(np.abs(np.expm1(basis)) - half_spread, 0.0)
    return np.round(left, 8)


def settlements(
    stamps: NDArray[np.int64], premium: Sequence[float], *, step: int, interval: int, cap: float
) -> tuple[NDArray[np.int64], Floats]:
    """Settle funding from the premium of each bar, by Bybit's formula: when, and at which rate.

    Args:
        stamps: When each bar opens, without a hole.
        premium: Of each bar.
        step: Length of a bar in nanoseconds.
        interval: From one settlement to the next, in nanoseconds, a multiple of the step.
        cap: Largest magnitude of the rate.
    """
    samples = interval // step
    first = int(np.argmax(stamps % interval == 0))
    whole = (stamps.size - first) // samples
    windows = (premium[first + at * samples : first + (at + 1) * samples] for at in range(whole))
    rates = [funding_rate(mean_premium(window), interval / HOUR, cap) for window in windows]
    settled = stamps[first] + (np.arange(whole, dtype=np.int64) + 1) * interval
    return settled, np.round(np.array(rates), 8)
