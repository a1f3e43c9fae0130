"""A made-up market from a seed: spot, perpetual, mark, index, premium and funding that hang together.

It is for trying the machinery and for tests, never for judging a strategy: what a strategy finds in
it was put there by the few lines below. Its series belong to the venue SYNTHETIC, and the catalog
never mixes them with real ones.

Drift and volatility switch between regimes (a Markov chain shared by all symbols); the basis reverts
to a mean that follows the regime; the premium is what is left of the basis outside the spread; and
funding is Bybit's formula of the premium.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hean.errors import DataError
from hean.instruments import Category, Instrument, instrument_id
from hean.market.made_up import BASIS, DRIFT, STARTS, VOLATILITY, basis_closes, premium_of, regimes, settlements, walk
from hean.store.catalog import ImportBatch, Incoming, Source
from hean.store.kinds import INTERVALS, kind, symbol_of
from hean.store.rules import SYNTHETIC, in_force
from hean.units import DAY, HOUR, parse_time, utc

Floats = NDArray[np.float64]

NAME = "synthetic"
LONGEST = 3_650  # days: ten years of minutes take about 3 GB of memory
_END = parse_time("2100-01-01")
_STEPS = 6  # prices inside each bar, its open and close among them; with trades, each is one
_HALF_SPREAD = 0.5e-4


@dataclass(frozen=True)
class SyntheticMarket:
    """What to make: the same values make the same bytes."""

    symbols: tuple[str, ...]
    start: int
    days: int
    seed: int
    interval: str = "1m"
    trades: bool = False


def generate(market: SyntheticMarket) -> Iterator[ImportBatch]:
    """Yield one batch a symbol.

    Raises:
        ConfigError: A symbol is none.
        DataError: A symbol has no rules, or the time, days or interval make no sense.
    """
    step = INTERVALS.get(market.interval)
    if step is None or step > HOUR:
        raise DataError(f"cannot make bars of {market.interval}", remedy="take 1m, 3m, 5m, 15m, 30m or 1h")
    if market.days < 1 or market.start % DAY:
        raise DataError("a made-up market starts at midnight UTC and lasts a day or more")
    if market.days > LONGEST:
        raise DataError(f"a made-up market lasts {LONGEST:,} days at most, not {market.days:,}")
    end = market.start + market.days * DAY
    if end > _END:
        raise DataError(f"a made-up market ends by {utc(_END)}, not at {utc(end)}", remedy="start it earlier")
    symbols = [symbol_of(symbol) for symbol in market.symbols]
    for symbol in symbols:
        _rules(symbol, Category.LINEAR, market.start)
    count = market.days * DAY // step
    shared = np.random.default_rng([market.seed])
    drawn = regimes(shared, count, step)
    pull = shared.standard_normal((count, _STEPS - 1))
    for symbol in symbols:
        yield _one_symbol(market, symbol, drawn=drawn, pull=pull, step=step)


def _one_symbol(
    market: SyntheticMarket, symbol: str, *, drawn: NDArray[np.intp], pull: Floats, step: int
) -> ImportBatch:
    # Seeded by name, not by place: leaving out one symbol changes no other.
    chance = np.random.default_rng([market.seed, *symbol.encode()])
    perp, spot = (_rules(symbol, category, market.start) for category in (Category.LINEAR, Category.SPOT))
    stamps = market.start + np.arange(drawn.size, dtype=np.int64) * step
    start = STARTS.get(perp.base, float(perp.tick) * 20_000)
    index = walk(chance, DRIFT[drawn, None], VOLATILITY[drawn, None], pull, start=start, step=step)
    basis = _basis(chance, drawn, step=step)
    perp_path = _with_noise(chance, index * np.exp(basis), 0.3e-4)
    spot_path = _with_noise(chance, index, 0.3e-4)
    premium = premium_of(basis, _HALF_SPREAD)
    name, tick = market.interval, float(perp.tick)
    series = []
    for instrument, path in ((perp, perp_path), (spot, spot_path)):
        prices = _to_grid(path, float(instrument.tick))
        sizes = _sizes(chance, prices, drawn, instrument)
        bars = _ohlc(stamps, prices).with_columns(pl.Series("volume", np.round(sizes.sum(axis=1), 9)))
        series.append(Incoming(f"bar-{name}", instrument.id, bars))
        if market.trades:
            trades = _trades(chance, stamps, prices, sizes, step=step)
            series.append(Incoming("trade", instrument.id, trades))
    series += [
        Incoming(f"mark-{name}", perp.id, _ohlc(stamps, _to_grid(index * np.exp(basis), tick))),
        Incoming(f"index-{name}", perp.id, _ohlc(stamps, _to_grid(index, tick))),
        Incoming(f"premium-{name}", perp.id, _ohlc(stamps, premium)),
    ]
    funding = funding_of(stamps, premium[:, -1], perp, step=step)
    if not funding.is_empty():
        series.append(Incoming("funding", perp.id, funding))
    said = f"seed {market.seed}, {symbol}, {market.days} days of {name} from {utc(market.start)[:10]}{', trades' * market.trades}"
    source = Source(name=said, sha256=hashlib.sha256(said.encode()).hexdigest(), importer=NAME, note="made up")
    return ImportBatch(source=source, series=tuple(series), synthetic=True)


def funding_of(stamps: NDArray[np.int64], premium: Floats, perp: Instrument, *, step: int) -> pl.DataFrame:
    """Settle funding from the premium of each bar, by Bybit's formula and the symbol's own cap."""
    interval = perp.funding_interval_h * HOUR
    cap = float(perp.funding_cap)
    settled, rate = settlements(stamps, premium.tolist(), step=step, interval=interval, cap=cap)
    return pl.DataFrame({"ts_event": settled, "rate": rate})


def _rules(symbol: str, category: Category, at: int) -> Instrument:
    name = instrument_id(symbol, category, SYNTHETIC)
    known = in_force((), name, at)
    if known is None:
        raise DataError(f"no rules came with HEAN for {name}", remedy="take a common symbol such as BTCUSDT")
    return known[0]


def _basis(chance: np.random.Generator, drawn: NDArray[np.intp], *, step: int) -> Floats:
    """The basis inside each bar: straight from one close to the next. Shape (bars, steps)."""
    closes = basis_closes(chance, BASIS[drawn], step=step)
    opens = np.concatenate([[closes[0]], closes[:-1]])
    along = np.linspace(0.0, 1.0, _STEPS)
    path: Floats = opens[:, None] + (closes - opens)[:, None] * along
    return path


def _with_noise(chance: np.random.Generator, path: Floats, size: float) -> Floats:
    """Let the last price bounce between bid and ask, and still open each bar where the last one closed."""
    noisy: Floats = path * (1 + size * chance.standard_normal(path.shape))
    noisy[1:, 0] = noisy[:-1, -1]
    return noisy


def _to_grid(path: Floats, tick: float) -> Floats:
    decimals = max(0, -int(np.floor(np.log10(tick) + 1e-9)))
    return np.round(np.maximum(np.round(path / tick), 1) * tick, decimals)


def _ohlc(stamps: NDArray[np.int64], path: Floats) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts_event": stamps,
            "open": path[:, 0],
            "high": path.max(axis=1),
            "low": path.min(axis=1),
            "close": path[:, -1],
        }
    )


def _sizes(chance: np.random.Generator, prices: Floats, drawn: NDArray[np.intp], instrument: Instrument) -> Floats:
    """Trade about 200,000 USDT a step in calm, more when it moves; never less than one lot."""
    lot = float(instrument.step)
    busy: Floats = VOLATILITY[drawn, None] / VOLATILITY[0]
    wanted = 200_000 * busy * chance.lognormal(-0.5, 1.0, prices.shape) / prices
    decimals = max(0, -int(np.floor(np.log10(lot) + 1e-9)))
    return np.round(np.maximum(np.round(wanted / lot), 1) * lot, decimals)


def _trades(
    chance: np.random.Generator, stamps: NDArray[np.int64], prices: Floats, sizes: Floats, *, step: int
) -> pl.DataFrame:
    """Make each price of a bar one trade, so that the trades add up to the bar."""
    within = np.sort(chance.integers(0, step // 1_000_000, prices.shape), axis=1) * 1_000_000
    moved = np.diff(prices.ravel(), prepend=prices[0, 0])
    tossed = np.where(chance.random(moved.size) < 0.5, 1, -1)
    rows = {
        "ts_event": (stamps[:, None] + within).ravel(),
        "price": prices.ravel(),
        "size": sizes.ravel(),
        "side": np.where(moved == 0, tossed, np.sign(moved)).astype(np.int8),
    }
    ids = pl.int_range(prices.size, eager=True).cast(pl.String).alias("trade_id")
    return (
        pl.DataFrame(rows)
        .with_columns(ids, pl.lit(None, dtype=pl.Int64).alias("ts_recv"))
        .select(list(kind("trade").columns))
    )
