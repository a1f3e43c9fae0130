"""Arrays to figures: what is said of an equity curve and of a list of profits.

A figure that is not defined (no trade, too few days, nothing varied) is None: it is unknown, and unknown is
not nought. Input that cannot be an equity curve or a series of returns at all raises.
"""

import math

import numpy as np
from msgspec import Struct

from hean.tape import Floats, Ints

DAY = 86_400_000_000_000
DAYS_A_YEAR = 365
"""Crypto trades every day; so do its years."""

Z95 = 1.959963984540054


class Drawdown(Struct, frozen=True):
    """A fall from a running peak: its depth as a fraction of the peak, and the steps it fell from and to."""

    depth: float
    peak: int
    trough: int


class Interval(Struct, frozen=True):
    """An estimate, and the bounds that hold with 95 % confidence."""

    value: float
    low: float
    high: float


def max_drawdown(equity: Floats) -> Drawdown:
    """Find the deepest fall from a running peak.

    Args:
        equity: Account equity at each step, shape (n,), in quote currency, all above zero.

    Returns:
        Depth as a fraction of the peak, in [0, 1), and the steps it fell from and to.
        A curve that never falls has depth 0 and peak == trough == 0.

    Raises:
        ValueError: `equity` is empty, not one-dimensional, or not finite and positive
            throughout. A drawdown through a gap in the data is not a drawdown of zero.

    Source:
        Magdon-Ismail and Atiya, "Maximum drawdown", Risk 17(10), 2004.
    """
    _levels(equity)
    fall = drawdown_curve(equity)
    trough = int(fall.argmax())
    return Drawdown(float(fall[trough]), int(equity[: trough + 1].argmax()), trough)


def drawdown_curve(equity: Floats) -> Floats:
    """Measure at every step how far equity is under its running peak, as a fraction of the peak, shape (n,).

    Equity may fall to nought and below, to a fraction of 1 and more: a curve is drawn through ruin as well.

    Raises:
        ValueError: `equity` is empty, not one-dimensional or not finite, or does not begin above zero.
    """
    if equity.ndim != 1 or not equity.size:
        raise ValueError(f"equity must be a non-empty vector, was shape {equity.shape}")
    if not (np.isfinite(equity).all() and equity[0] > 0):
        raise ValueError("equity must be finite, and begin above zero")
    fall: Floats = 1 - equity / np.maximum.accumulate(equity)
    return fall


def daily_equity(ts: Ints, equity: Floats, *, opening: float, start: int, end: int) -> Floats:
    """Read a curve at every 00:00 UTC of a run, days on which nothing happened included.

    Args:
        ts: When each value of the curve was reached, shape (n,), UTC nanoseconds, never falling.
        equity: The curve, shape (n,), in quote currency.
        opening: Equity before the first stamp, in quote currency.
        start: When the run began: until then equity was `opening`.
        end: When it ended.

    Returns:
        Equity at the midnight before `start`, at each later midnight up to `end`, and at `end` itself where
        that is none: a day cut short counts as a day, so that the days' returns compound to the whole.

    Raises:
        ValueError: The run ends before it begins, or the shapes differ.
    """
    if end < start or ts.shape != equity.shape:
        raise ValueError(f"a curve of {ts.size} stamps and {equity.size} values from {start} to {end} has no days")
    stamps = np.arange(start // DAY + 1, end // DAY + 1, dtype=np.int64) * DAY
    if end % DAY and end > start:
        stamps = np.append(stamps, end)
    known = np.concatenate([[opening], equity])
    days: Floats = np.concatenate([[opening], known[ts.searchsorted(stamps, side="right")]])
    return days


def simple_returns(levels: Floats) -> Floats:
    """Each step's change as a fraction of the level before it, shape (n - 1,).

    Raises:
        ValueError: As `max_drawdown`: a return on nothing is not defined.
    """
    _levels(levels)
    changes: Floats = np.diff(levels) / levels[:-1]
    return changes


def sharpe(returns: Floats) -> float | None:
    """Divide the mean return by its standard deviation: per period, over a risk-free rate of nought.

    Args:
        returns: One a period, shape (n,), fractions.

    Returns:
        None with fewer than two returns, or when they do not vary.

    Raises:
        ValueError: A return is not finite, or the shape is not (n,).

    Source:
        Sharpe, "The Sharpe ratio", Journal of Portfolio Management 21(1), 1994. The deviation is the sample's (n - 1).
    """
    deviation = _deviation(returns)
    return None if deviation is None else float(returns.mean()) / deviation


def sharpe_interval(returns: Floats) -> Interval | None:
    """The Sharpe ratio per period, and where the true one lies with 95 % confidence.

    Returns:
        None where `sharpe` is None, with fewer than four returns, or when the sample's moments allow no error.

    Source:
        Bailey and López de Prado, "The Sharpe ratio efficient frontier", Journal of Risk 15(2), 2012: the variance of
        the estimate is (1 - skew x SR + (kurtosis - 1)/4 x SR^2) / (n - 1), with raw kurtosis.
    """
    ratio = sharpe(returns)
    if ratio is None or returns.size < 4:
        return None
    error = sharpe_error(ratio, returns.size, skew=skewness(returns) or 0.0, kurtosis=kurtosis(returns) or 3.0)
    return None if error is None else Interval(ratio, ratio - Z95 * error, ratio + Z95 * error)


def sharpe_error(ratio: float, size: int, *, skew: float, kurtosis: float) -> float | None:
    """Standard error of a Sharpe ratio per period from `size` returns of that skewness and raw kurtosis.

    Returns:
        None where the formula's variance is not positive: the moments are those of no distribution.
    """
    variance = (1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / (size - 1) if size > 1 else 0.0
    return math.sqrt(variance) if variance > 0 else None


def sortino(returns: Floats) -> float | None:
    """Divide the mean return by the root mean square of the losses: per period, target nought.

    Returns:
        None with fewer than two returns, or when none is a loss.

    Raises:
        ValueError: As `sharpe`.

    Source:
        Sortino and Price, "Performance measurement in a downside risk framework", Journal of Investing 3(3), 1994. The
        mean of the squares is over all periods, not over the losing ones.
    """
    _checked(returns)
    if returns.size < 2:
        return None
    downside = math.sqrt(float(np.square(np.minimum(returns, 0.0)).mean()))
    return float(returns.mean()) / downside if downside > 0 else None


def annualised(ratio: float | None, periods: int = DAYS_A_YEAR) -> float | None:
    """Scale a ratio per period to a year of `periods`, as if returns were independent; None stays None."""
    return None if ratio is None else ratio * math.sqrt(periods)


def annual_growth(opening: float, closing: float, days: float) -> float | None:
    """The growth that, compounded over a year, gives what was made in `days`: a fraction.

    Returns:
        None under thirty days, where compounding says more of the calendar than of the run, or when nothing is left.
    """
    if days < 30 or opening <= 0 or closing <= 0:
        return None
    return math.expm1(math.log(closing / opening) * DAYS_A_YEAR / days)


def calmar(growth: float | None, depth: float | None) -> float | None:
    """Divide a year's growth by the deepest drawdown, both fractions.

    Returns:
        None where either is unknown, or nothing ever fell.

    Source:
        Young, "Calmar ratio: a smoother tool", Futures, October 1991.
    """
    return growth / depth if growth is not None and depth else None


def turnover(traded: float, equity: Floats) -> float | None:
    """How many times over the mean equity was traded, both in quote currency.

    Returns:
        None when equity is not positive throughout, or unknown.
    """
    if not equity.size or not (equity > 0).all():
        return None
    return traded / float(equity.mean())


def exposure(opened: Ints, closed: Ints, *, start: int, end: int) -> float | None:
    """The share of a run in which at least one position was held.

    Args:
        opened: When each was opened, shape (n,), UTC nanoseconds.
        closed: When each was closed, or the end of the run.
        start: When the run began.
        end: When it ended.

    Returns:
        A fraction in [0, 1]; 0 without a position, which is known; None for a run of no length.
    """
    if end <= start:
        return None
    if not opened.size:
        return 0.0
    order = opened.argsort(kind="stable")
    first, last = opened[order].clip(start, end), closed[order].clip(start, end)
    reached = np.concatenate([[start], np.maximum.accumulate(last)[:-1]])
    held = np.maximum(last - np.maximum(first, reached), 0).sum()
    return int(held) / (end - start)


def hit_rate(pnl: Floats) -> Interval | None:
    """The share of trades that gained, with Wilson's interval.

    Args:
        pnl: Net profit of each closed trade, shape (n,), in quote currency. One that broke even is no hit.

    Returns:
        None without a trade.

    Raises:
        ValueError: A profit is not finite.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22(158), 1927.
    """
    _checked(pnl)
    count = pnl.size
    if not count:
        return None
    share = int((pnl > 0).sum()) / count
    square = Z95**2
    centre = (share + square / (2 * count)) / (1 + square / count)
    reach = Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    # At 0 and 1 the bounds meet the share exactly; rounding may leave them a hair apart.
    return Interval(share, max(0.0, min(share, centre - reach)), min(1.0, max(share, centre + reach)))


def profit_factor(pnl: Floats) -> float | None:
    """Divide what the gaining trades made by what the losing ones lost.

    Returns:
        None without a losing trade: infinity is not a measurement.

    Raises:
        ValueError: A profit is not finite.
    """
    _checked(pnl)
    lost = -float(pnl[pnl < 0].sum())
    return float(pnl[pnl > 0].sum()) / lost if lost > 0 else None


def skewness(returns: Floats) -> float | None:
    """The third standardised moment of the sample, over n.

    Returns:
        None with fewer than three returns, or when they do not vary.

    Raises:
        ValueError: As `sharpe`.
    """
    return _moment(returns, 3) if returns.size >= 3 else None


def kurtosis(returns: Floats) -> float | None:
    """The fourth standardised moment of the sample, over n, raw: a normal distribution has 3.

    Returns:
        None with fewer than four returns, or when they do not vary.

    Raises:
        ValueError: As `sharpe`.
    """
    return _moment(returns, 4) if returns.size >= 4 else None


def _moment(returns: Floats, power: int) -> float | None:
    if _deviation(returns) is None:
        return None
    away = returns - returns.mean()
    away /= np.abs(away).max()  # so that powers of small returns do not vanish
    return float((away**power).mean() / float(np.square(away).mean()) ** (power / 2))


def _deviation(returns: Floats) -> float | None:
    """The sample's standard deviation; None where there is none, or no more than rounding makes."""
    _checked(returns)
    if returns.size < 2:
        return None
    deviation = float(returns.std(ddof=1))
    return deviation if deviation > 1e-12 * float(np.abs(returns).max()) else None


def _levels(equity: Floats) -> None:
    if equity.ndim != 1 or not equity.size:
        raise ValueError(f"equity must be a non-empty vector, was shape {equity.shape}")
    if not (np.isfinite(equity).all() and (equity > 0).all()):
        raise ValueError("equity must be finite and positive throughout")


def _checked(values: Floats) -> None:
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"expected a finite vector, was shape {values.shape}")
