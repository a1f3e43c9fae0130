"""The same two rules as plain compiled loops: what no engine can beat, and what ours must equal trade for trade."""

import math

import numpy as np
from numba import njit


@njit(cache=True)
def _up(x, tick):
    return math.ceil(x / tick - 1e-9) * tick


@njit(cache=True)
def _down(x, tick):
    return math.floor(x / tick + 1e-9) * tick


@njit(cache=True)
def impulse_bars(open_, high, low, close, lookback, move, stop, target, hold, notional, half_spread, fee, tick, step):
    """Trade the impulse rule over candles: entry at the next open, the stop before the target, a gap at the open.

    Returns:
        Round trips, their profit net of fees in quote currency, and the exit price of each.
    """
    n = close.size
    exits = np.empty(n)
    trips = 0
    profit = 0.0
    sign = 0
    pending = 0
    quantity = entry = stop_at = target_at = 0.0
    since = 0
    for i in range(n):
        out = 0.0
        if sign != 0:
            o = open_[i]
            if (
                (sign > 0 and (o <= stop_at or o >= target_at))
                or (sign < 0 and (o >= stop_at or o <= target_at))
                or i == since + hold
            ):
                out = o
        if out == 0.0 and pending != 0:
            sign, pending, since = pending, 0, i
            entry = _up(open_[i] * (1 + half_spread), tick) if sign > 0 else _down(open_[i] * (1 - half_spread), tick)
            profit -= quantity * entry * fee
        if out == 0.0 and sign != 0:
            if sign > 0:
                if low[i] <= stop_at:
                    out = stop_at
                elif high[i] >= target_at:
                    out = target_at
            elif high[i] >= stop_at:
                out = stop_at
            elif low[i] <= target_at:
                out = target_at
        if out != 0.0:
            price = _down(out * (1 - half_spread), tick) if sign > 0 else _up(out * (1 + half_spread), tick)
            profit += sign * quantity * (price - entry) - quantity * price * fee
            exits[trips] = price
            trips += 1
            sign = 0
        if sign == 0 and pending == 0 and i >= lookback:
            moved = close[i] / close[i - lookback] - 1
            if abs(moved) >= move:
                pending = 1 if moved > 0 else -1
                price = close[i]
                quantity = math.floor(notional / price / step + 1e-9) * step
                if pending > 0:
                    stop_at, target_at = _up(price * (1 - stop), tick), _down(price * (1 + target), tick)
                else:
                    stop_at, target_at = _down(price * (1 + stop), tick), _up(price * (1 - target), tick)
    return trips, profit, exits[:trips]


@njit(cache=True)
def ema_ticks(price, fast, slow, band, notional, half_spread, fee, tick, step):
    """Trade the crossing of two means over trades: long or flat, filled at the next trade.

    Returns:
        Round trips, their profit net of fees in quote currency, and the exit price of each.
    """
    a, b = 2 / (fast + 1), 2 / (slow + 1)
    exits = np.empty(price.size // 2)
    trips = 0
    profit = 0.0
    long = False
    pending = False
    quantity = entry = 0.0
    f = s = price[0]
    for i in range(price.size):
        p = price[i]
        if pending:
            pending = False
            if long:
                out = _down(p * (1 - half_spread), tick)
                profit += quantity * (out - entry) - quantity * out * fee
                exits[trips] = out
                trips += 1
                long = False
            else:
                entry = _up(p * (1 + half_spread), tick)
                profit -= quantity * entry * fee
                long = True
        if i:
            f += a * (p - f)
            s += b * (p - s)
        if i + 1 >= slow:
            apart = f / s - 1
            if not long and apart > band:
                pending = True
                quantity = math.floor(notional / p / step + 1e-9) * step
            elif long and apart < -band:
                pending = True
    return trips, profit, exits[:trips]
