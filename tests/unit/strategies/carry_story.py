"""A market of two legs for tests of what trades both: messages to tell, tapes to play, and two ways to play them."""

from decimal import Decimal

import msgspec
import numpy as np
import polars as pl

from hean.messages import Bar, FundingRate, PositionChanged, PremiumIndex, Quote
from hean.tape import Stream, Tape
from tests.data_dir import data_dir

PERP = "BTCUSDT-LINEAR.BYBIT"
SPOT = "BTCUSDT-SPOT.BYBIT"
MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
DAY = 24 * HOUR
T0 = 20_000 * DAY


def bar(instrument, ts, close, interval=MINUTE):
    return Bar(instrument, ts, ts - interval, close, close, close, close, 1.0)


def bars(ts, perp, spot=100.0, interval=MINUTE):
    """Both legs closing at one instant."""
    return [bar(PERP, ts, perp, interval), bar(SPOT, ts, spot, interval)]


def holds(strategy, instrument, quantity, entry):
    return PositionChanged(strategy, instrument, Decimal(str(quantity)), Decimal(0), Decimal(str(entry)))


def tell(strategy, messages, now=None):
    """What it says, to each message at its own time, or at `now`."""
    return [
        signal
        for message in messages
        for signal in strategy.handle(message, getattr(message, "ts_event", 0) if now is None else now)
    ]


def weights(signals):
    return [tuple(leg.weight for leg in signal.legs) for signal in signals]


def market(seed, rows, *, interval=MINUTE, quotes=False, premium=False, funding=3e-4, settle=8, swing=8e-4, before=30):
    """A tape of a random pair: a basis that reverts, bars that are missing, funding that wanders and begins early."""
    rng = np.random.default_rng(seed)
    ts = T0 + interval * np.arange(1, rows + 1)
    spot = 100 * np.exp(np.cumsum(rng.normal(0, 2e-3, rows)))
    basis = np.zeros(rows)
    for row in range(1, rows):
        basis[row] = 0.97 * basis[row - 1] + rng.normal(0, swing)
    perp = spot * (1 + basis)

    def candles(instrument, close, seen):
        close = close[seen]
        columns = dict.fromkeys(("open", "high", "low", "close", "volume"), close)
        return Stream(Bar, instrument, ts[seen], columns, interval=interval)

    streams = [candles(PERP, perp, rng.random(rows) > 0.03), candles(SPOT, spot, rng.random(rows) > 0.03)]
    if quotes:
        for instrument, price in ((PERP, perp), (SPOT, spot)):
            seen = rng.random(rows) > 0.5
            mid = price[seen] * (1 + rng.normal(0, 1e-4, int(seen.sum())))
            half = mid * rng.uniform(0, 2e-4, mid.size)
            columns = {"bid": mid - half, "ask": mid + half, "bid_size": mid, "ask_size": mid}
            when = np.sort(ts[seen] - rng.integers(0, 12, mid.size) * 10**9)
            streams.append(Stream(Quote, instrument, when, columns))
    if premium:
        minutes = np.arange(T0 - 10 * HOUR, int(ts[-1]), MINUTE)
        streams.append(Stream(PremiumIndex, PERP, minutes, {"premium": rng.normal(0, 2e-3, minutes.size)}))
    if funding is not None:
        stamps = np.arange(T0 - before * DAY, int(ts[-1]) + 1, settle * HOUR)
        wave = funding * np.sin(np.arange(stamps.size) / 9) + rng.normal(0, abs(funding) / 4 + 1e-9, stamps.size)
        streams.append(Stream(FundingRate, PERP, stamps, {"rate": wave}))
    return Tape(streams)


def filled(strategy, signal):
    """The pair traded at once, at the prices it was decided at; the other leg a little later in what is told."""
    for leg in signal.legs:
        entry = 0 if leg.weight == 0 else leg.price
        yield holds(signal.strategy, leg.instrument, leg.weight, entry)


def play(strategy, tape, *, stepping, fills=True, start=0):
    """Play a tape row by row, or over its quiet spans: what was said when, and the state at each row that said something."""
    said = []
    at = start
    watched = {(leg, kind) for leg in (PERP, SPOT) for kind in (Bar, Quote, PremiumIndex, FundingRate)}
    delivered = 0
    while at < tape.size:
        row = at if stepping else strategy.quiet_until(tape, at, tape.size)
        assert at <= row <= tape.size
        if not stepping:
            strategy.skip(tape, at, row)
        if row == tape.size:
            break
        stream, index = tape.at(row)
        if (stream.instrument, stream.kind) in watched:
            delivered += 1
            message = stream.message(index)
            for signal in list(strategy.handle(message, message.ts_event)):
                said.append((row, signal, msgspec.json.encode(strategy.state)))
                if fills:
                    for told in filled(strategy, signal):
                        assert not list(strategy.handle(told, message.ts_event))
        at = row + 1
    return said, msgspec.json.encode(strategy.state), delivered


def recorded_pair(perp, spot, interval, *, funding=False):
    """Recorded candles of both legs, by the beginning of their files' names, and the funding of the perpetual."""
    streams = [_candles(perp, PERP, interval), _candles(spot, SPOT, interval)]
    if funding:
        table = _table(perp.replace(perp.rpartition(".")[2], "funding"))
        streams.append(
            Stream(FundingRate, PERP, table["ts"].dt.epoch("ns").to_numpy(), {"rate": table["rate"].to_numpy()})
        )
    return Tape(streams)


def _candles(name, instrument, interval):
    table = _table(name)
    columns = {column: table[column].to_numpy() for column in ("open", "high", "low", "close", "volume")}
    return Stream(Bar, instrument, table["ts"].dt.epoch("ns").to_numpy() + interval, columns, interval=interval)


def _table(name):
    """The longest recording of that name."""
    return max((pl.read_parquet(path) for path in (data_dir() / "market").glob(f"{name}.*")), key=len)
