"""What a carry earns and what it costs: settled funding brought to one measure, its nowcast, and the price of a round trip.

Rates are fractions of position value. Symbols settle every one to eight hours and change their interval,
so a rate means nothing without the time it was for: all means here are per eight hours.

Source: Bybit help centre, *Introduction to Funding Rate*.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.units import DAY, HOUR, MINUTE

PERIOD = 8 * HOUR

INTEREST_PER_8H = 0.0001
"""The interest part of the rate: 0.01 % for eight hours, 0.03 % a day."""

DEADBAND = 0.0005
"""Premia within this of the interest rate leave the funding rate at the interest rate."""

INTERVALS = frozenset(hours * HOUR for hours in (1, 2, 3, 4, 6, 8))
"""What a funding interval can be; any other distance between two settlements is a hole in what was heard."""

SURE = 1.96
"""Standard deviations to either side that hold 95 % of a normal variable."""


class Settlements(Struct):
    """Settled rates, oldest first, and how long each was for.

    The interval is the distance to the settlement before, so the first heard only starts the clock. After
    a hole the interval is taken to be what it was; a hole that looks like an interval (one missing
    settlement of a four-hour symbol) is read as one, and understates that rate by half.
    """

    ts_last: int = 0
    interval: int = 0
    ts: list[int] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    length: list[int] = field(default_factory=list)

    def add(self, ts: int, rate: float, keep: int) -> None:
        """Take a settlement in, and forget those more than `keep` nanoseconds before it. Told twice, it counts once."""
        if ts <= self.ts_last:
            return
        # Some venues stamp a settlement some milliseconds late.
        distance = (ts - self.ts_last + MINUTE) // HOUR * HOUR if self.ts_last else 0
        if distance in INTERVALS:
            self.interval = distance
        self.ts_last = ts
        if not self.interval:
            return
        self.ts.append(ts)
        self.rate.append(rate)
        self.length.append(self.interval)
        old = 0
        while self.ts[old] <= ts - keep:
            old += 1
        del self.ts[:old], self.rate[:old], self.length[:old]

    def mean(self, span: int) -> float | None:
        """The mean rate per eight hours of the settlements in `span` nanoseconds up to the last; None without any.

        It is what a position of constant value would have been paid over the time the settlements were
        for. Where all were for eight hours it is their plain mean.
        """
        first = self._first(span)
        covered = sum(self.length[first:])
        # An exact sum: where the history begins must not change a bit of it.
        return math.fsum(self.rate[first:]) / covered * PERIOD if covered else None

    def covered(self, span: int) -> int:
        """How many nanoseconds of `span` up to the last settlement are accounted for."""
        return sum(self.length[self._first(span) :])

    def remaining(self, now: int) -> int | None:
        """Nanoseconds until the next settlement, if the interval stays; 0 at a settlement not heard of yet."""
        if not self.interval:
            return None
        since = now - self.ts_last
        gone = since % self.interval
        return self.interval - gone if gone or not since else 0

    def current(self, now: int) -> bool:
        """Whether the last settlement heard is the last there was, or the one before it that is just being replaced."""
        return bool(self.interval) and now - self.ts_last < 2 * self.interval

    def _first(self, span: int) -> int:
        first = len(self.ts)
        while first and self.ts[first - 1] > self.ts_last - span:
            first -= 1
        return first


class Nowcast(Struct, frozen=True):
    """The rate the running interval is on the way to, with what it may still become.

    `low` and `high` bound it with 95 %, `known` is the share of its final weight that has been seen.
    """

    rate: float
    low: float
    high: float
    known: float


class PairCosts(BaseModel, frozen=True, extra="forbid"):
    """What it costs to trade a perpetual and its spot together. The defaults are Bybit's base tier."""

    perp_maker_bp: float = Field(
        default=2.0, description="maker fee of the perpetual, basis points; negative: a rebate"
    )
    perp_taker_bp: float = Field(default=5.5, ge=0, description="taker fee of the perpetual, basis points")
    perp_as_maker: bool = Field(default=True, description="whether the perpetual leg is worked as maker, in and out")
    spot_taker_bp: float = Field(default=10.0, ge=0, description="taker fee of the spot leg, basis points")
    perp_half_spread_bp: float = Field(default=0.5, ge=0, description="half the spread of the perpetual, basis points")
    spot_half_spread_bp: float = Field(default=0.5, ge=0, description="half the spread of the spot leg, basis points")
    impact_bp: float = Field(default=0.5, ge=0, description="what our size moves the pair by, each way, basis points")

    @property
    def fees_bp(self) -> float:
        """Fees and impact one way, basis points of one leg's value: what executable prices do not show."""
        return (self.perp_maker_bp if self.perp_as_maker else self.perp_taker_bp) + self.spot_taker_bp + self.impact_bp

    @property
    def one_way_bp(self) -> float:
        """All of it one way: a maker crosses no spread, nor is credited with one."""
        return self.fees_bp + self.spot_half_spread_bp + (0.0 if self.perp_as_maker else self.perp_half_spread_bp)

    @property
    def round_trip_bp(self) -> float:
        """All of it, in and out."""
        return 2 * self.one_way_bp


def funding_rate(premium: float, interval_h: float, cap: float = math.inf) -> float:
    """The rate of one interval from its mean premium: F = P + clamp(I - P, -0.05 %, +0.05 %), held within ±cap.

    Args:
        premium: Mean premium index of the interval, a fraction of the index.
        interval_h: Length of the interval in hours.
        cap: Largest magnitude of the rate, a fraction; the symbol's own.
    """
    interest = INTEREST_PER_8H * interval_h / 8
    rate = premium + min(max(interest - premium, -DEADBAND), DEADBAND)
    return min(max(rate, -cap), cap)


def mean_premium(premia: Sequence[float]) -> float:
    """The premium of a whole interval: later minutes weigh more, the i-th of n with weight i.

    Raises:
        ValueError: there is no minute to take the mean of.
    """
    if not premia:
        raise ValueError("the mean premium of no minutes is unknown, not zero")
    return sum(weight * premium for weight, premium in enumerate(premia, 1)) / (len(premia) * (len(premia) + 1) / 2)


def smoothed(premia: Sequence[float], halflife: float) -> tuple[float, float]:
    """Exponentially weighted mean and standard deviation, the last counting most.

    Of a finite window, so that what came before it changes nothing.

    Args:
        premia: At least one, oldest first.
        halflife: After as many, the weight is half.
    """
    fade = 0.5 ** (1 / halflife)
    weights = [fade**age for age in range(len(premia) - 1, -1, -1)]
    total = math.fsum(weights)
    mean = math.fsum(weight * premium for weight, premium in zip(weights, premia, strict=True)) / total
    squares = math.fsum(weight * (premium - mean) ** 2 for weight, premium in zip(weights, premia, strict=True))
    return mean, math.sqrt(squares / total)


def nowcast(
    known: Sequence[tuple[int, float]], expected: float, spread: float, minutes: int, cap: float = math.inf
) -> Nowcast:
    """What the interval will settle at, when the minutes not seen stay at `expected`.

    The bounds let all minutes not seen be off together by 1.96 times `spread`: premia persist, so
    errors that cancelled each other would be a promise that the market does not keep.

    Args:
        known: The minutes seen, each with its number in the interval, from 1 on; in any order, and holes are allowed.
        expected: Premium assumed of every other minute.
        spread: Standard deviation of premia about it.
        minutes: How many the interval has.
        cap: Largest magnitude of the rate, a fraction; the symbol's own.

    Raises:
        ValueError: a minute is not of the interval, or is known twice.
    """
    numbers = [number for number, _ in known]
    if len(set(numbers)) < len(numbers) or any(not 1 <= number <= minutes for number in numbers):
        raise ValueError(f"minutes {numbers} are not each one of {minutes}")
    total = minutes * (minutes + 1) // 2
    seen = sum(numbers)
    premium = (math.fsum(number * premium for number, premium in known) + expected * (total - seen)) / total
    width = SURE * spread * (total - seen) / total
    hours = minutes / 60
    return Nowcast(
        rate=funding_rate(premium, hours, cap),
        low=funding_rate(premium - width, hours, cap),
        high=funding_rate(premium + width, hours, cap),
        known=seen / total,
    )


def running_nowcast(
    funding: Settlements,
    ts: Sequence[int],
    premium: Sequence[float],
    now: int,
    *,
    window: int,
    halflife: float,
    cap: float = math.inf,
) -> Nowcast | None:
    """Where the interval that runs now is heading; None unless premia were heard lately.

    Args:
        funding: What has settled: the last of them begins the interval.
        ts: When each minute of premium closed, oldest first.
        premium: What it was, as many.
        now: The instant it is asked at.
        window: Nanoseconds of premium that the minutes to come are expected to be like.
        halflife: After as many minutes, a minute counts for half in that.
        cap: Largest magnitude of the rate, a fraction; the symbol's own.
    """
    begun = funding.ts_last
    if not funding.interval or now - begun >= funding.interval:
        return None
    recent = premium[bisect_right(ts, now - window) :]
    if not recent:
        return None
    first = bisect_right(ts, begun)
    # A minute is told at its close: the first of the interval a minute after the settlement.
    known = {
        -((begun - closed) // MINUTE): value
        for closed, value in zip(ts[first:], premium[first:], strict=True)
        if closed <= begun + funding.interval
    }
    expected, spread = smoothed(recent, halflife)
    return nowcast(list(known.items()), expected, spread, funding.interval // MINUTE, cap)


def liquidation_distance(entry: float, price: float, leverage: float, maintenance: float, collateral: float) -> float:
    """How far the price may rise before a short perpetual is liquidated, as a fraction of the price.

    The short is backed by 1 / `leverage` of its value at entry, and by the spot leg as far as the account lends
    against it: `entry (1 + 1/leverage) = price (1 + maintenance - collateral)` is where nothing is left. A leg that backs it
    all but wholly leaves no such price: the distance is infinite.

    Args:
        entry: Mean price the short was opened at.
        price: The price now, best the mark.
        leverage: Value of the short over the money behind it, at entry.
        maintenance: Maintenance margin, a fraction of value.
        collateral: Share of the spot leg's value that counts as margin; 0 where the legs are in separate wallets.
    """
    unbacked = 1 + maintenance - collateral
    return entry * (1 + 1 / leverage) / unbacked / price - 1 if unbacked > 0 else math.inf


def session(now: int) -> str:
    """Which third of the UTC day it is, by the markets then open."""
    return ("asia", "europe", "america")[now % DAY // PERIOD]
