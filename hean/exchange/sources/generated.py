"""A made-up market from a seed: regimes of drift and volatility, a basis that reverts, moments of stress.

It is for trying the machinery, never for judging a strategy. Minutes are drawn a day at a time, counted from an anchor; inside
a minute the price is a bridge from its open to its close. So the weeks before the start and what follows it are one walk, and
an exchange that comes back with the same seed and anchor finds the market where it would have been.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from msgspec import Struct

from hean.errors import ConfigError
from hean.exchange.history import Floats, History
from hean.exchange.listing import Listing
from hean.exchange.sources.ladder import Ladder
from hean.exchange.sources.source import Flow, Move, Shown
from hean.market.made_up import (
    BASIS,
    DRIFT,
    STARTS,
    VOLATILITY,
    basis_closes,
    premium_of,
    regimes,
    settlements,
    walk,
)
from hean.messages import Side
from hean.units import DAY, MILLISECOND, MINUTE, SECOND, YEAR

_A_DAY = DAY // MINUTE
_WARM = 30 * SECOND
_COARSE = SECOND
_STRESS_MINUTES = 4.0  # mean length of a moment of stress
_STRESS_VOLATILITY = 2.5  # by how much more it moves
_STRESS_FLOW = 1.5  # by how much more is traded
_STRESS_DEPTH = 0.25  # what is left of the sizes
_STRESS_SPREAD = 2e-4  # by how much of the price the spread is wider
_TAKERS_A_MINUTE = 90.0
_SIZE_SIGMA = 1.2  # of the logarithm of a taker's size
_REACH = 20e-4  # of the price, that a taker walks at most
_LEVEL = 1 / 150  # of a calm minute's turnover: a level near the best
_IMPACT_HALF_SPREAD = 0.2e-4  # of the price: impact prices lie about so far from the middle
_TURNOVER = {"BTC": 1_200_000.0, "ETH": 700_000.0}
_OTHER_TURNOVER = 250_000.0  # quote currency a minute in calm, perpetual
_SPOT_TURNOVER = 0.4  # of the perpetual's
_INTEREST_MINUTES = 2_500  # of turnover: the open interest
_BASIS = 2.0  # times what the regimes say: enough for the premium to leave the dead band of the funding rate
_INTEREST_SWING = 60.0  # how much it grows with the basis


@dataclass(frozen=True)
class Recipe:
    """What makes one made-up market differ from another.

    `ts_anchor` is when it began, which is a minute; `days` how much of a past it has.
    """

    seed: int
    ts_anchor: int
    days: int = 30
    step_ms: int = 100
    stress_a_day: float = 6.0


class Generated:
    """The market of a recipe, from `ts_start` on. The same recipe, start and instruments make the same market.

    Raises:
        ConfigError: the recipe makes no sense, or the start comes before its anchor.
    """

    synthetic = True
    ended = False

    def __init__(self, listings: Mapping[str, Listing], recipe: Recipe, ts_start: int) -> None:
        anchor = recipe.ts_anchor // MINUTE * MINUTE
        if ts_start < anchor:
            raise ConfigError("a made-up market cannot be entered before it began")
        if recipe.seed < 0 or recipe.days < 1 or recipe.stress_a_day < 0:
            raise ConfigError(
                f"a made-up market has a seed and stress from 0 on, and a past of a day or more: {recipe}"
            )
        if recipe.step_ms < 20 or MINUTE % (recipe.step_ms * MILLISECOND):
            raise ConfigError(f"steps of {recipe.step_ms} ms: take 20 or more, so that they divide a minute")
        self.name = f"synthetic market, seed {recipe.seed}"
        self.instruments = tuple(listings)
        self._recipe = recipe
        self._ts_start = ts_start
        self._ts_first = anchor - recipe.days * DAY
        self._symbols = {listing.symbol: listing.instrument.base for listing in listings.values()}
        self._days = self._drawn_days()
        self._begin = max((ts_start - _WARM - self._ts_first) // MINUTE, recipe.days * _A_DAY)
        past = [next(self._days) for _ in range(self._begin // _A_DAY + 1)]
        self._today = past[-1]
        self._scales = {
            symbol: STARTS.get(base, 100.0) / past[recipe.days].symbols[symbol].opens.item(0)
            for symbol, base in self._symbols.items()
        }
        self._desks = [self._desk(listing) for listing in listings.values()]
        self._history = self._told(past)
        self._moves = self._live()
        self._next = next(self._moves)

    def history(self) -> Mapping[str, History]:
        return self._history

    def advance(self, now: int) -> Iterator[Move]:
        while self._next.ts <= now:
            yield self._next
            self._next = next(self._moves)

    # --- minutes ----------------------------------------------------------------------------------

    def _drawn_days(self) -> Iterator["_Day"]:
        """Day after day from the first. Each is drawn from a seed of its own, and goes on where the one before ended."""
        recipe = self._recipe
        regime, number = 0, 0
        prices = dict.fromkeys(self._symbols, 1.0)
        bases = dict.fromkeys(self._symbols, 0.0)
        while True:
            shared = np.random.default_rng([recipe.seed, number])
            drawn = regimes(shared, _A_DAY, MINUTE, regime)
            pull = shared.standard_normal((_A_DAY, 1))
            stress = _stress(shared, recipe.stress_a_day)
            volatility = VOLATILITY[drawn] * (1 + _STRESS_VOLATILITY * stress)
            symbols = {}
            for symbol in self._symbols:
                # Seeded by name: leaving out one symbol changes no other.
                chance = np.random.default_rng([recipe.seed, number, *symbol.encode()])
                path = walk(chance, DRIFT[drawn, None], volatility[:, None], pull, start=prices[symbol], step=MINUTE)
                closes = basis_closes(chance, _BASIS * BASIS[drawn], step=MINUTE, before=bases[symbol])
                high, low = _extremes(chance, path, volatility * np.sqrt(MINUTE / YEAR))
                symbols[symbol] = _Symbol(
                    opens=path[:, 0],
                    closes=path[:, 1],
                    highs=high,
                    lows=low,
                    basis_opens=np.concatenate([[bases[symbol]], closes[:-1]]),
                    basis_closes=closes,
                )
                prices[symbol], bases[symbol] = path.item(-1, 1), closes.item(-1)
            busy = VOLATILITY[drawn] / VOLATILITY[0] * (1 + _STRESS_FLOW * stress)
            yield _Day(number, volatility, busy, stress, symbols)
            regime, number = int(drawn[-1]), number + 1

    def _desk(self, listing: Listing) -> "_Desk":
        rules = listing.instrument
        price = STARTS.get(rules.base, 100.0)
        turnover = _TURNOVER.get(rules.base, _OTHER_TURNOVER) * (_SPOT_TURNOVER if listing.is_spot else 1.0)
        chance = np.random.default_rng([self._recipe.seed, *listing.id.encode()])
        tick, step = float(rules.tick), float(rules.step)
        return _Desk(
            listing=listing,
            tick=tick,
            step=step,
            turnover=turnover,
            ladder=Ladder(chance, price=price / tick, steps=turnover * _LEVEL / price / step),
        )

    # --- the past ---------------------------------------------------------------------------------

    def _told(self, past: list["_Day"]) -> dict[str, History]:
        first = self._begin - self._recipe.days * _A_DAY
        ts_first = self._ts_first + first * MINUTE
        told = {}
        for desk in self._desks:
            symbol = desk.listing.symbol
            columns = [
                np.concatenate([getattr(day.symbols[symbol], name) for day in past])[first : self._begin]
                for name in _Symbol.__struct_fields__
            ]
            opens, closes, highs, lows = (column * self._scales[symbol] for column in columns[:4])
            index = np.column_stack([opens, highs, lows, closes])
            basis = columns[5]
            # What printed is drawn minute by minute from the first of its day, so that a later start tells the same past.
            printed = np.concatenate([_printed(self._recipe.seed, day, desk) for day in past])[first : self._begin]
            told[desk.listing.id] = _history(desk, ts_first, index, basis, printed)
        return told

    # --- what follows -----------------------------------------------------------------------------

    def _live(self) -> Iterator[Move]:
        minute = self._begin
        step = self._recipe.step_ms * MILLISECOND
        count = MINUTE // step
        coarse_until = self._ts_start - 2 * _COARSE
        ts_shown = 0
        while True:
            if minute // _A_DAY > self._today.number:
                self._today = next(self._days)
            ts_minute = self._ts_first + minute * MINUTE
            plans = {symbol: self._plan(symbol, minute, count) for symbol in self._symbols}
            takers = sorted(
                (
                    taker
                    for desk in self._desks
                    for taker in self._takers(desk, minute, plans[desk.listing.symbol], step)
                ),
                key=lambda taker: taker[0],
            )
            stress = self._today.stress.item(minute % _A_DAY)
            interests = {desk.listing.id: self._interest(desk, minute) for desk in self._desks}
            come = 0
            for at in range(count):
                ts = ts_minute + at * step
                if not at or ts >= coarse_until or ts % _COARSE == 0:
                    for desk in self._desks:
                        yield self._shown(desk, ts, plans[desk.listing.symbol], at, stress, ts - ts_shown, interests)
                    ts_shown = ts
                while come < len(takers) and takers[come][0] < ts + step:
                    ts_taker, desk, side, steps = takers[come]
                    come += 1
                    reach = max(3, round(desk.ladder.bid * _REACH))
                    limit = desk.ladder.ask + reach if side is Side.BUY else max(1, desk.ladder.bid - reach)
                    yield Flow(desk.listing.id, ts_taker, side, limit, steps)
            minute += 1

    def _plan(self, symbol: str, minute: int, count: int) -> "_Plan":
        """The steps of a minute: a Brownian bridge from its open to its close, and the basis straight."""
        drawn, at = self._today.symbols[symbol], minute % _A_DAY
        chance = np.random.default_rng([self._recipe.seed, minute, 1, *symbol.encode()])
        along = np.arange(count) / count
        moves = chance.standard_normal(count) * (self._today.volatility[at] * np.sqrt(MINUTE / YEAR / count))
        path = np.concatenate([[0.0], np.cumsum(moves)])
        low, high = np.log(drawn.opens[at]), np.log(drawn.closes[at])
        bridge = low + (high - low) * along + path[:-1] - along * path[-1]
        index = np.exp(bridge) * self._scales[symbol]
        basis = drawn.basis_opens[at] + (drawn.basis_closes[at] - drawn.basis_opens[at]) * along
        return _Plan(index.tolist(), (index * np.exp(basis)).tolist(), np.diff(bridge, append=high))

    def _shown(
        self,
        desk: "_Desk",
        ts: int,
        plan: "_Plan",
        at: int,
        stress: float,
        elapsed: int,
        interests: Mapping[str, float | None],
    ) -> Shown:
        reference = (plan.index if desk.listing.is_spot else plan.perp)[at] / desk.tick
        first = not desk.begun
        desk.begun = True
        bids, asks = desk.ladder.follow(
            reference,
            0.0 if first else elapsed / SECOND,
            widened=stress * _STRESS_SPREAD * reference,
            depth=1 - (1 - _STRESS_DEPTH) * stress,
        )
        return Shown(
            desk.listing.id,
            ts,
            snapshot=first,
            bids=bids,
            asks=asks,
            index=plan.index[at],
            interest=interests[desk.listing.id] if not at or first else None,
        )

    def _takers(self, desk: "_Desk", minute: int, plan: "_Plan", step: int) -> Iterator[tuple[int, "_Desk", Side, int]]:
        """Who comes in a minute: more of them when it moves, and rather with the move than against it."""
        chance = np.random.default_rng([self._recipe.seed, minute, 2, *desk.listing.id.encode()])
        busy = self._today.busy.item(minute % _A_DAY)
        count = int(chance.poisson(_TAKERS_A_MINUTE * busy))
        moved = plan.moves / (np.abs(plan.moves).mean() or 1.0)
        weights = np.cumsum(1 + np.abs(moved))
        steps = np.searchsorted(weights, chance.random(count) * weights[-1])
        bought = chance.random(count) < 0.5 + 0.35 * np.tanh(moved[steps])
        value = desk.turnover / _TAKERS_A_MINUTE * chance.lognormal(-(_SIZE_SIGMA**2) / 2, _SIZE_SIGMA, count)
        sizes = np.maximum(1, np.rint(value / plan.index[0] / desk.step)).astype(np.int64)
        ts_minute = self._ts_first + minute * MINUTE
        # To the millisecond, as the venue stamps its trades.
        within = (steps * step + chance.random(count) * step).astype(np.int64) // MILLISECOND * MILLISECOND
        for ts, buys, size in zip((ts_minute + within).tolist(), bought.tolist(), sizes.tolist(), strict=True):
            yield ts, desk, Side.BUY if buys else Side.SELL, size

    def _interest(self, desk: "_Desk", minute: int) -> float | None:
        if desk.listing.is_spot:
            return None
        basis = self._today.symbols[desk.listing.symbol].basis_opens.item(minute % _A_DAY)
        return _interest(desk, basis)


class _Symbol(Struct, frozen=True):
    """The minutes of one symbol in a day: its index, up to a scale, and the basis of its perpetual. Shape (1440,) each."""

    opens: Floats
    closes: Floats
    highs: Floats
    lows: Floats
    basis_opens: Floats
    basis_closes: Floats


class _Day(Struct, frozen=True):
    """The minutes of a day; volatility is a year's, `busy` how much more is traded than in calm, `stress` in [0, 1]."""

    number: int
    volatility: Floats
    busy: Floats
    stress: Floats
    symbols: dict[str, _Symbol]


class _Plan(Struct, frozen=True):
    """The steps of one minute: index and perpetual at the begin of each, and how far each goes, as a logarithm."""

    index: list[float]
    perp: list[float]
    moves: Floats


class _Desk(Struct):
    """One instrument; `turnover` is of a calm minute, in quote currency."""

    listing: Listing
    tick: float
    step: float
    turnover: float
    ladder: Ladder
    begun: bool = False


def _stress(chance: np.random.Generator, a_day: float) -> Floats:
    """Moments of stress, which come with no warning and fade in steps; none lasts past midnight of the anchor."""
    stress = np.zeros(_A_DAY)
    for _ in range(int(chance.poisson(a_day))):
        begin = int(chance.integers(_A_DAY))
        length = int(chance.geometric(1 / _STRESS_MINUTES))
        stress[begin : begin + length] = np.maximum(stress[begin : begin + length], chance.uniform(0.4, 1.0))
    return stress


def _extremes(chance: np.random.Generator, path: Floats, deviation: Floats) -> tuple[Floats, Floats]:
    """Draw how high and how low a bridge goes between open and close.

    Exact for each alone: P(max > m) = exp(-2 (m - a)(m - b) / s^2), where a and b are the logarithms of both ends.
    """
    ends = np.log(path)
    a, b = ends[:, 0], ends[:, 1]
    far = [np.sqrt((a - b) ** 2 - 2 * deviation**2 * np.log(chance.random(a.size))) for _ in range(2)]
    return np.exp((a + b + far[0]) / 2), np.exp((a + b - far[1]) / 2)


def _printed(seed: int, day: _Day, desk: _Desk) -> Floats:
    """Turnover of each minute of a day, and where between bid and offer its last print lay, in ticks. Shape (1440, 2)."""
    chance = np.random.default_rng([seed, day.number, 3, *desk.listing.id.encode()])
    takers = np.maximum(chance.poisson(_TAKERS_A_MINUTE * day.busy), 1)
    # The sum of many lognormal sizes, as one of the same mean and variance.
    sigma = np.sqrt(np.log1p(np.expm1(_SIZE_SIGMA**2) / takers))
    turnover = takers * desk.turnover / _TAKERS_A_MINUTE * np.exp(sigma * chance.standard_normal(_A_DAY) - sigma**2 / 2)
    return np.column_stack([turnover, chance.uniform(-1, 1, _A_DAY)])


def _history(desk: _Desk, ts_first: int, index: Floats, basis: Floats, printed: Floats) -> History:
    listing = desk.listing
    spot = listing.is_spot
    around = index if spot else index * np.exp(basis)[:, None]
    last = _on_grid(around, desk, printed[:, 1])
    volume = np.round(np.maximum(np.rint(printed[:, 0] / last[:, :4].mean(axis=1) / desk.step), 1) * desk.step, 9)
    rows = np.column_stack([last, volume, volume * last[:, :4].mean(axis=1)])
    if spot:
        return History(ts_first=ts_first, last=rows, index=_rounded(index, desk))
    premium = premium_of(basis, _IMPACT_HALF_SPREAD)
    stamps = ts_first + np.arange(len(index), dtype=np.int64) * MINUTE
    interval = listing.funding_minutes * MINUTE
    cap = float(listing.instrument.funding_cap)
    settled, rates = settlements(stamps, premium.tolist(), step=MINUTE, interval=interval, cap=cap)
    closes = stamps + MINUTE
    ran = np.concatenate([[0.0], rates])[np.searchsorted(settled, closes, side="right")]
    left = 1 - closes % interval / interval
    mean = np.convolve(np.concatenate([np.repeat(basis[:1], 4), basis]), np.full(5, 0.2), "valid")
    marks = np.median([index[:, 3] * (1 + ran * left), index[:, 3] * np.exp(mean), last[:, 3]], axis=0)
    five = np.flatnonzero(stamps % (5 * MINUTE) == 0)
    return History(
        ts_first=ts_first,
        last=rows,
        mark=_rounded(_candles(marks, index * np.exp(mean)[:, None]), desk),
        index=_rounded(index, desk),
        premium=_candles(premium, None),
        settled=tuple(zip(settled.tolist(), rates.tolist(), strict=True)),
        interest=tuple((stamps.item(at), _interest(desk, basis.item(at))) for at in five.tolist()),
    )


def _on_grid(around: Floats, desk: _Desk, bounce: Floats) -> Floats:
    """Prices as they printed: the close somewhere between bid and offer, each open where the last minute closed."""
    ticks = np.maximum(
        1, np.rint(around / desk.tick + np.column_stack([bounce, 0 * bounce + 1, 0 * bounce - 1, bounce]))
    )
    ticks[1:, 0] = ticks[:-1, 3]
    ticks[:, 1] = ticks.max(axis=1)
    ticks[:, 2] = ticks.min(axis=1)
    return np.round(ticks * desk.tick, desk.listing.price_places)


def _rounded(prices: Floats, desk: _Desk) -> Floats:
    rounded: Floats = np.round(np.rint(prices / desk.tick) * desk.tick, desk.listing.price_places)
    return rounded


def _candles(closes: Floats, around: Floats | None) -> Floats:
    """Candles of what has closes only; how far they went is that of the candles `around`, where there are any."""
    opens = np.concatenate([closes[:1], closes[:-1]])
    high, low = np.maximum(opens, closes), np.minimum(opens, closes)
    if around is not None:
        high, low = np.maximum(high, around[:, 1]), np.minimum(low, around[:, 2])
    return np.column_stack([opens, high, low, closes])


def _interest(desk: _Desk, basis: float) -> float:
    """Open interest, which grows while longs pay for it: base units, to the step."""
    price = STARTS.get(desk.listing.instrument.base, 100.0)
    wanted = desk.turnover * _INTEREST_MINUTES / price * np.exp(_INTEREST_SWING * basis)
    return float(np.round(np.rint(wanted / desk.step) * desk.step, 9))
