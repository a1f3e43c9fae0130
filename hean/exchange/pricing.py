"""The prices of an instrument that nobody trades at: index, mark, premium, and the funding rate they make.

Source: Bybit help centre, *Mark Price Calculation (Perpetual Contracts)* and *Introduction to Funding Rate*.
"""

import math
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from statistics import median

from hean.exchange.history import History
from hean.exchange.listing import Listing
from hean.instruments import Instrument
from hean.market.carry import funding_rate, mean_premium
from hean.units import MINUTE, SECOND

_BASIS_SECONDS = 300
_FINE_SAMPLE = 5 * SECOND
_SETTLED_KEPT = 100_000
_UNSTRUCK = Decimal(0)


class Pricing:
    """Index, mark, premium and funding of one instrument.

    `index` and `mark` stand on the tick grid, `predicted` is the rate the running interval is on the way to. All are None
    while unknown, and stay so for spot, the index excepted. `settled` holds (ts, rate), oldest first; `ts_next` is when the
    running interval ends, 0 for spot. While `shock` is not 0 the mark is that fraction off: a drill.

    Premia are sampled once a minute, in intervals shorter than an hour every 5 s: what stands when the minute ends counts.
    """

    def __init__(self, listing: Listing, ts_start: int) -> None:
        self._instrument = listing.instrument
        self._is_spot = listing.is_spot
        self._interval = listing.funding_minutes * MINUTE
        self._sample = MINUTE if listing.funding_minutes >= 60 else _FINE_SAMPLE
        self._cap = float(listing.instrument.funding_cap)
        self.index: Decimal | None = None
        self.mark: Decimal | None = None
        self.premium: float | None = None
        self.predicted: Decimal | None = None
        self.last_settled = _UNSTRUCK
        self.settled: list[tuple[int, Decimal]] = []
        self.ts_next = 0 if self._is_spot else (ts_start // self._interval + 1) * self._interval
        self.shock = 0.0
        self._index: float | None = None
        self._premia: list[float] = []
        self._ts_sampled = ts_start
        self._bases: deque[float] = deque(maxlen=_BASIS_SECONDS)
        self._basis: float | None = None
        self._mean_basis: float | None = None
        self._ts_basis = ts_start

    def load(self, history: History) -> None:
        """Take in what was settled, and the minutes of the running interval that have passed."""
        if self._is_spot:
            return
        for ts, rate in history.settled:
            self.settled.append((ts, _rate(rate)))
        if self.settled:
            self.last_settled = self.settled[-1][1]
        if history.premium is None or not len(history.premium):
            return
        closes = history.premium[:, 3]
        begin = max(self.ts_next - self._interval, history.ts_first)
        ends = range(begin + self._sample, min(history.ts_end, self.ts_next) + 1, self._sample)
        self._premia = [closes.item((end - 1 - history.ts_first) // MINUTE) for end in ends]
        self._ts_sampled = max(self._ts_sampled, ends[-1]) if ends else self._ts_sampled
        self.premium = closes.item(-1)
        self._predict()

    def observe(
        self,
        now: int,
        *,
        index: float | None,
        bid: float | None,
        ask: float | None,
        impact_bid: float | None,
        impact_ask: float | None,
        last: float | None,
    ) -> None:
        """Take in what is seen now; what is None leaves what it would change as it was.

        Args:
            now: The time.
            index: What other venues say the instrument is worth.
            bid: The best bid of the book here.
            ask: The best offer.
            impact_bid: The mean price of selling the impact notional into the book, see `impact_price`.
            impact_ask: The mean price of buying it.
            last: The last price traded.
        """
        if index is not None and index != self._index:
            self._index = index
            self.index = self._instrument.price(index)
        if self._is_spot or self._index is None:
            return
        self._sample_until(now)
        if impact_bid is not None and impact_ask is not None:
            self.premium = round(premium_index(self._index, impact_bid, impact_ask), 8)
            if self.predicted is None:
                self._predict()
        mid = (bid + ask) / 2 if bid is not None and ask is not None else None
        if mid is not None:
            self._basis = mid - self._index
        self.mark = self._instrument.price(self._mark(now, self._index, last if last is not None else mid))

    def strike(self) -> Decimal:
        """The final rate of the interval that ends at `ts_next`; the next interval begins.

        Where no premium was seen in all the interval, the rate stays what it was.
        """
        self._sample_until(self.ts_next)
        rate = self._rate_of(self._premia) if self._premia else self.last_settled
        self.settled.append((self.ts_next, rate))
        if len(self.settled) > 2 * _SETTLED_KEPT:
            del self.settled[:-_SETTLED_KEPT]
        self.last_settled = rate
        self._premia = []
        self.ts_next += self._interval
        self._predict()
        return rate

    def _sample_until(self, now: int) -> None:
        until = min(now, self.ts_next)
        ended = until // self._sample - self._ts_sampled // self._sample
        if ended > 0 and self.premium is not None:
            self._premia.extend([self.premium] * ended)
            self._predict()
        self._ts_sampled = max(self._ts_sampled, until)
        seconds = now // SECOND - self._ts_basis // SECOND
        if seconds > 0 and self._basis is not None:
            self._bases.extend([self._basis] * min(seconds, _BASIS_SECONDS))
            self._mean_basis = math.fsum(self._bases) / len(self._bases)
        self._ts_basis = max(self._ts_basis, now)

    def _mark(self, now: int, index: float, last: float | None) -> float:
        left = min(max(self.ts_next - now, 0) / self._interval, 1.0)
        basis = self._mean_basis if self._mean_basis is not None else self._basis
        mark = mark_price(index, float(self.last_settled), left, basis, last)
        return mark * (1 + self.shock)

    def _predict(self) -> None:
        """The rate if the interval ended now; before its first sample, by the premium that stands."""
        seen = self._premia or ([self.premium] if self.premium is not None else [])
        self.predicted = self._rate_of(seen) if seen else None

    def _rate_of(self, premia: list[float]) -> Decimal:
        return _rate(funding_rate(mean_premium(premia), self._interval / (60 * MINUTE), self._cap))


def premium_index(index: float, impact_bid: float, impact_ask: float) -> float:
    """How far the book stands above its index, or, negative, below it: a fraction of the index; 0 while the index lies within."""
    return (max(0.0, impact_bid - index) - max(0.0, index - impact_ask)) / index


def mark_price(index: float, rate: float, left: float, basis: float | None, last: float | None) -> float:
    """The median of three: the index with the funding still to come, the index with its mean basis, and the last price.

    Args:
        index: What the instrument is worth elsewhere.
        rate: The last funding rate.
        left: Part of the funding interval still to come, in [0, 1].
        basis: Mean of mid price less index over five minutes; None while unknown, and left out.
        last: The last price traded; None likewise.
    """
    known = [index * (1 + rate * left)]
    if basis is not None:
        known.append(index + basis)
    if last is not None:
        known.append(last)
    return median(known)


def impact_price(levels: Iterable[tuple[int, int]], notional: float, *, tick: float, step: float) -> float | None:
    """The mean price of trading a value through one side of a book; None where the book holds less.

    Args:
        levels: (price in ticks, size in steps), the best first.
        notional: The value to be traded, in quote currency.
        tick: Price of one tick.
        step: Quantity of one step.
    """
    left, quantity = notional, 0.0
    for ticks, steps in levels:
        price, size = ticks * tick, steps * step
        value = price * size
        if value >= left:
            return notional / (quantity + left / price)
        left -= value
        quantity += size
    return None


def impact_notional(instrument: Instrument) -> float:
    """The value that impact prices are measured with: what 200 of quote currency carry at the largest leverage."""
    return 200 * float(instrument.max_leverage)


def _rate(rate: float) -> Decimal:
    # Adding nought leaves no rate of minus nought.
    return Decimal(f"{round(rate, 8) + 0.0:.8f}")
