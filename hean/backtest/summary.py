"""A run in figures: what the report, the terminal and `--json` all show, computed once."""

from decimal import Decimal

import numpy as np
from msgspec import Struct

from hean.backtest import kernels
from hean.backtest.kernels import DAY, Interval
from hean.backtest.result import RunResult
from hean.messages import OrderFilled
from hean.tape import Floats


class Figures(Struct, frozen=True):
    """A run's figures. None is unknown: it could not be measured, and is never drawn as nought.

    Fractions are of one (0.1 is ten per cent); `days` counts those with a return; `sharpe` is annualised, with its 95 %
    interval; `trades` are closed round trips. Durations in nanoseconds, money in quote currency.
    """

    days: int
    total_return: float | None
    annual_return: float | None
    volatility: float | None
    max_drawdown: float | None
    drawdown_from: int | None
    drawdown_to: int | None
    sharpe_daily: float | None
    sharpe: Interval | None
    sortino: float | None
    calmar: float | None
    skewness: float | None
    kurtosis: float | None
    best_day: float | None
    worst_day: float | None
    exposure: float | None
    turnover: float | None
    fills: int | None
    trades: int
    open_trades: int
    hit_rate: Interval | None
    profit_factor: float | None
    mean_trade: Decimal | None
    best_trade: Decimal | None
    worst_trade: Decimal | None
    mean_hold: int | None
    median_hold: int | None


def figures(result: RunResult) -> Figures:
    """Measure a run."""
    closed = [(trip, trip.ts_close) for trip in result.trips if trip.ts_close is not None]
    profits = [trip.pnl for trip, _ in closed]
    pnl = np.array([float(each) for each in profits])
    holds = np.array([ts_close - trip.ts_open for trip, ts_close in closed], dtype=np.int64)
    days = daily(result)
    alive = bool((days > 0).all()) and bool((result.curve > 0).all())
    returns = kernels.simple_returns(days) if alive else np.empty(0)
    span = (result.ts_end - result.ts_start) / DAY
    opening, final = float(result.capital), float(result.equity_final)
    growth = kernels.annual_growth(opening, final, span)
    depth = trough = peak = None
    if alive:
        curve = np.concatenate([[opening], result.curve])
        fall = kernels.max_drawdown(curve)
        depth = fall.depth
        if depth:
            stamps = np.concatenate([[result.ts_start], result.curve_ts])
            peak, trough = int(stamps[fall.peak]), int(stamps[fall.trough])
    fills = [
        each.message for each in result.log if isinstance(each.message, OrderFilled) and each.source.startswith("venue")
    ]
    known = bool(result.log) or not result.trips
    return Figures(
        days=returns.size,
        total_return=final / opening - 1 if opening > 0 else None,
        annual_return=growth,
        volatility=kernels.annualised(float(returns.std(ddof=1))) if returns.size > 1 else None,
        max_drawdown=depth,
        drawdown_from=peak,
        drawdown_to=trough,
        sharpe_daily=kernels.sharpe(returns),
        sharpe=_year(kernels.sharpe_interval(returns)),
        sortino=kernels.annualised(kernels.sortino(returns)),
        calmar=kernels.calmar(growth, depth),
        skewness=kernels.skewness(returns),
        kurtosis=kernels.kurtosis(returns),
        best_day=float(returns.max()) if returns.size else None,
        worst_day=float(returns.min()) if returns.size else None,
        exposure=kernels.exposure(
            np.array([trip.ts_open for trip in result.trips], dtype=np.int64),
            np.array(
                [result.ts_end if trip.ts_close is None else trip.ts_close for trip in result.trips], dtype=np.int64
            ),
            start=result.ts_start,
            end=result.ts_end,
        ),
        turnover=kernels.turnover(float(sum(fill.quantity * fill.price for fill in fills)), days) if known else None,
        fills=len(fills) if known else None,
        trades=len(closed),
        open_trades=len(result.trips) - len(closed),
        hit_rate=kernels.hit_rate(pnl),
        profit_factor=kernels.profit_factor(pnl),
        mean_trade=sum(profits, Decimal(0)) / len(profits) if profits else None,
        best_trade=max(profits, default=None),
        worst_trade=min(profits, default=None),
        mean_hold=int(holds.mean()) if holds.size else None,
        median_hold=int(np.median(holds)) if holds.size else None,
    )


def daily(result: RunResult) -> Floats:
    """Equity at each 00:00 UTC of the run, and at its end, in quote currency."""
    return kernels.daily_equity(
        result.curve_ts, result.curve, opening=float(result.capital), start=result.ts_start, end=result.ts_end
    )


def refusals(result: RunResult) -> dict[str, int]:
    """How often each rule said no, over all strategies, most often first."""
    total: dict[str, int] = {}
    for strategy in result.strategies:
        for rule, count in strategy.funnel.refused.items():
            total[rule] = total.get(rule, 0) + count
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _year(ratio: Interval | None) -> Interval | None:
    if ratio is None:
        return None
    scale = float(np.sqrt(kernels.DAYS_A_YEAR))
    return Interval(ratio.value * scale, ratio.low * scale, ratio.high * scale)
