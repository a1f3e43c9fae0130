"""Runs made up from a seed, for the tests of what is said about a run."""

from decimal import Decimal
from itertools import count

import numpy as np

from hean.backtest.kernels import drawdown_curve
from hean.backtest.result import Benchmark, Funnel, Pnl, RunResult, StrategyResult
from hean.backtest.trips import round_trips
from hean.instruments import Instrument
from hean.messages import (
    Bar,
    BarOpened,
    Envelope,
    FundingSettled,
    Liquidity,
    OrderFilled,
    Side,
    Signal,
    SignalRefused,
    SubmitOrder,
    TimeInForce,
)
from hean.tape import Stream, Tape
from hean.trips import RoundTrip

D = Decimal
ZERO = D(0)
MINUTE = 60_000_000_000
DAY = 86_400_000_000_000
START = 1_704_067_200_000_000_000  # 2024-01-01
PERP, SPOT, ETH = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"


def instrument(name, base, tick, step, notional="5"):
    return Instrument(name, base, "USDT", D(tick), D(step), D(step), D(1000), D(1000), D(notional))


INSTRUMENTS = {
    PERP: instrument(PERP, "BTC", "0.1", "0.001"),
    SPOT: instrument(SPOT, "BTC", "0.01", "0.000001"),
    ETH: instrument(ETH, "ETH", "0.01", "0.01"),
}

_ids = count(1)


def said(message, *, source="venue", ts=0, cause="", seq=None):
    return Envelope(source, next(_ids) if seq is None else seq, ts, "", cause, message)


def fill(
    name,
    signed,
    price,
    *,
    strategy="a",
    fee="0",
    coin="USDT",
    ts=0,
    ending="",
    order="order",
    trade=None,
    reference=None,
):
    signed = D(signed)
    return OrderFilled(
        client_order_id=order,
        strategy=strategy,
        instrument=name,
        trade_id=trade or f"t{next(_ids)}",
        side=Side.BUY if signed > 0 else Side.SELL,
        quantity=abs(signed),
        price=D(price),
        fee=D(fee),
        fee_currency=coin,
        liquidity=Liquidity.TAKER,
        reference=reference,
        exit=ending,
        ts_event=ts,
    )


def settled(name, *, quantity, rate, mark, amount, ts=0):
    return FundingSettled(f"f{next(_ids)}", name, D(quantity), D(rate), D(mark), D(amount), ts)


def bars(name, ts_open, closes, *, interval=MINUTE, seed=1, spread=0.0004):
    chance = np.random.default_rng(seed)
    opens = np.concatenate([closes[:1], closes[:-1]])
    wick = np.abs(chance.normal(0, spread, (2, closes.size))) * closes
    columns = {
        "open": opens,
        "high": np.round(np.maximum(opens, closes) + wick[0], 1),
        "low": np.round(np.minimum(opens, closes) - wick[1], 1),
        "close": closes,
        "volume": np.round(chance.lognormal(2, 1, closes.size), 3),
    }
    return [
        Stream(Bar, name, ts_open + interval, columns, interval=interval),
        Stream(BarOpened, name, ts_open, {"open": opens}, interval=interval),
    ]


def walk(count_, *, seed, start=42_000.0, volatility=0.0006):
    chance = np.random.default_rng(seed)
    return np.round(start * np.exp(np.cumsum(chance.normal(0, volatility, count_))), 1)


def impulse_run(*, bar_count=20_000, trades=120, seed=7, name="impulse", synthetic=False, capital="10000"):
    """One strategy in one perpetual: brackets, refusals, gates, gaps in the data."""
    chance = np.random.default_rng(seed)
    closes = walk(bar_count, seed=seed)
    ts_open = START + np.arange(bar_count, dtype=np.int64) * MINUTE
    ts_open[bar_count // 2 :] += 37 * MINUTE  # a gap
    tape = Tape(bars(PERP, ts_open, closes, seed=seed))
    log, cash = [], [(START, float(capital), 0.0)]
    entries = np.sort(chance.choice(np.arange(200, bar_count - 300), trades, replace=False))
    entries = entries[np.concatenate([[True], np.diff(entries) > 130])]
    fees = slippage = ZERO
    for place, row in enumerate(entries.tolist()):
        side = 1 if chance.random() < 0.5 else -1
        last = min(row + int(chance.integers(3, 120)), bar_count - 1)
        open_end = place == entries.size - 1
        quantity = D(str(round(float(chance.uniform(0.02, 0.12)), 3)))
        reason = "three sigmas up" if side > 0 else "three sigmas down"
        signal = said(
            Signal(name, (), reason, 12.0, 0.5, None, "calm"), source=name, ts=int(ts_open[row]), seq=place + 1
        )
        order = SubmitOrder(
            f"{name}-{place}",
            name,
            PERP,
            Side(side),
            quantity,
            None,
            TimeInForce.IOC,
            False,
            D(str(closes[row])),
            None,
        )
        log += [signal, said(order, source="risk", ts=int(ts_open[row]), cause=signal.id)]
        legs = [(row, side, "")]
        if not open_end:
            ending = ("stop", "target", "")[int(chance.integers(0, 3))]
            legs.append((last, -side, ending))
        for at, way, ending in legs:
            reference = D(str(closes[at]))
            price = reference + way * D("0.5")
            fee = quantity * price * D("0.00055")
            ts = int(ts_open[at])
            log.append(
                said(
                    fill(
                        PERP, way * quantity, price, strategy=name, fee=fee, ts=ts, ending=ending, reference=reference,
                        order=f"{name}-{place}" if at == row else f"{name}-{place}-{ending}",
                    ),
                    ts=ts,
                )
            )  # fmt: skip
            fees -= fee
            slippage -= quantity * D("0.5")
            cash.append((ts, float(-way * quantity * price - fee), float(way * quantity)))
        if place % 4 == 0:
            refused = SignalRefused(name, PERP, ("daily-loss", "gross", "price-age")[place % 3], "3.2 %", "3 %")
            log.append(said(refused, source="risk", ts=int(ts_open[row])))
    trips = round_trips(log, INSTRUMENTS, {PERP: float(closes[-1])})
    net = sum((trip.pnl for trip in trips), ZERO)
    ts, curve = _curve(cash, ts_open + MINUTE, closes)
    pnl = Pnl(net - fees - slippage, ZERO, ZERO, fees, slippage, ZERO)
    funnel = Funnel(
        rows=bar_count,
        signals=161,
        refused={"daily-loss": 12, "gross": 9, "price-age": 20},
        orders=int(entries.size) * 2,
        ended={"expired": 3, "canceled": 4},
        fills=int(entries.size) * 2 - 1,
        gates=(("|z| > 3", 3120), ("spread <= 3 bp", 1204), ("cost gate", 161)),
    )
    strategy = StrategyResult(
        name,
        (PERP,),
        {"window_s": 120, "threshold": 3.0, "bracket": {"stop": 1.0, "target": 2.0}},
        pnl,
        funnel,
        ("confirmations off: the candles have no sides and no book",),
    )
    return result(
        tape,
        (strategy,),
        trips,
        ts,
        curve,
        log,
        capital=capital,
        synthetic=synthetic,
        benchmarks=(
            Benchmark("buy and hold BTCUSDT", D(capital) * D(str(round(closes[-1] / closes[0] - 1, 6))), "before fees"),
            Benchmark("idle cash", D("15.22"), "USDT lent at 4.00% a year (setting idle_yield)"),
        ),
    )


def carry_run(*, days=120, seed=3, name="funding-harvester", capital="100000"):
    """A pair held through many settlements, twice."""
    bar_count = days * 96
    interval = 15 * MINUTE
    chance = np.random.default_rng(seed)
    spot = walk(bar_count, seed=seed, volatility=0.0022)
    basis = 4e-4 + 3e-4 * np.sin(np.arange(bar_count) / 900) + chance.normal(0, 0.6e-4, bar_count)
    perp = np.round(spot * (1 + basis), 1)
    ts_open = START + np.arange(bar_count, dtype=np.int64) * interval
    tape = Tape(
        bars(PERP, ts_open, perp, interval=interval, seed=1) + bars(SPOT, ts_open, spot, interval=interval, seed=2)
    )
    log, cash = [], [(START, float(capital), 0.0, 0.0)]
    quantity = D("1.2")
    fees = funding = ZERO
    for turn, (first, last) in enumerate(((900, bar_count // 2), (bar_count // 2 + 700, bar_count - 1))):
        still_open = turn == 1
        for row, way in ((first, 1),) if still_open else ((first, 1), (last, -1)):
            ts = int(ts_open[row])
            short = fill(PERP, -way * quantity, D(str(perp[row])), strategy=name, ts=ts, fee=D("10.1"))
            coin = D("0.0012") if way > 0 else ZERO
            size = quantity + coin if way > 0 else quantity
            quote_fee = ZERO if way > 0 else D("49.2")
            long = fill(
                SPOT, way * size, D(str(spot[row])), strategy=name, ts=ts,
                fee=coin or quote_fee, coin="BTC" if coin else "USDT",
            )  # fmt: skip
            log += [said(short, ts=ts), said(long, ts=ts)]
            fees -= D("10.1") + quote_fee + coin * long.price
            paid = float(-short.quantity * short.side * short.price - long.quantity * long.side * long.price)
            cash.append((ts, paid - 10.1 - float(quote_fee), float(-way * quantity), float(way * quantity)))
        for row in range(first - first % 32 + 32, last, 32):
            rate = D(str(round(float(chance.normal(1.2e-4, 0.9e-4)), 8)))
            mark = D(str(perp[row]))
            amount = quantity * mark * rate
            ts = int(ts_open[row])
            log.append(said(settled(PERP, quantity=-quantity, rate=rate, mark=mark, amount=amount, ts=ts), ts=ts))
            funding += amount
            cash.append((ts, float(amount), 0.0, 0.0))
    log.sort(key=lambda envelope: envelope.ts_init)
    cash.sort()
    trips = round_trips(log, INSTRUMENTS, {PERP: float(perp[-1]), SPOT: float(spot[-1])})
    net = sum((trip.pnl for trip in trips), ZERO)
    ts, curve = _curve(cash, ts_open + interval, perp, spot)
    price = D("3.4")
    pnl = Pnl(price, net - funding - fees - price, funding, fees, ZERO, ZERO)
    strategy = StrategyResult(
        name,
        (PERP, SPOT),
        {"perp": PERP, "spot": SPOT, "enter_rate": 2e-4},
        pnl,
        Funnel(bar_count * 4, 3, {}, 6, {}, 6, (("mean of 21 > 2 bp", 40), ("basis percentile", 3))),
        (),
    )
    return result(
        tape,
        (strategy,),
        trips,
        ts,
        curve,
        log,
        capital=capital,
        benchmarks=(
            Benchmark("buy and hold BTCUSDT", D("-2310.55"), "before fees"),
            Benchmark("idle cash", D("1298.63"), "USDT lent at 4.00% a year (setting idle_yield)"),
        ),
    )


def empty_run(*, bar_count=600):
    """A strategy that never spoke."""
    closes = walk(bar_count, seed=5)
    ts_open = START + np.arange(bar_count, dtype=np.int64) * MINUTE
    strategy = StrategyResult(
        "silent", (PERP,), {}, Pnl(ZERO, ZERO, ZERO, ZERO, ZERO, ZERO), Funnel(bar_count, 0, {}, 0, {}, 0), ()
    )
    return result(
        Tape(bars(PERP, ts_open, closes)), (strategy,), (), ts_open + MINUTE, np.full(bar_count, 10_000.0), []
    )


def result(tape, strategies, trips, ts, curve, log, *, capital="10000", synthetic=False, benchmarks=(), **changes):
    parts = [sum((getattr(each.pnl, part) for each in strategies), ZERO) for part in Pnl.__struct_fields__]
    pnl = Pnl(*parts)
    fields = {
        "ts_start": START,
        "ts_end": int(tape.last_ts),
        "capital": D(capital),
        "equity_final": D(capital) + pnl.net,
        "pnl": pnl,
        "strategies": strategies,
        "trips": tuple(trips),
        "benchmarks": benchmarks,
        "events": (),
        "curve_ts": ts,
        "curve": curve,
        "drawdown": drawdown_curve(curve),
        "rows": tape.size,
        "deliveries": len(log),
        "wall_s": 0.4321,
        "synthetic": synthetic,
        "settings": {"symbols": ["BTCUSDT"], "capital": capital, "risk": {"gross_exposure": 2.0}, "seed": None},
        "data": {
            f"{stream.kind.__name__.lower()} {stream.instrument}": {
                "kind": "bar-1m",
                "instrument": stream.instrument,
                "interval": stream.interval,
                "synthetic": synthetic,
                "rows": len(stream),
                "first_ts": int(stream.ts[0]),
                "last_ts": int(stream.ts[-1]),
                "partitions": {f"{stream.instrument}-2024-01.parquet": "ab" * 32},
                "gaps": {"holes": 1, "missing": 37, "listed": [[int(stream.ts[0]), int(stream.ts[1]), 37]]},
                "sources": [
                    {
                        "name": "BTCUSDT-1m-2024-01.zip",
                        "sha256": "cd" * 32,
                        "importer": "binance_archive",
                        "note": "",
                        "rows": len(stream),
                        "first_ts": int(stream.ts[0]),
                        "last_ts": int(stream.ts[-1]),
                    }
                ],
            }
            for stream in tape.streams
            if stream.kind is Bar
        },
        "result_hash": "3f" * 32,
        "tape": tape,
        "log": tuple(log),
    }
    return RunResult(**{**fields, **changes})


def trip(pnl="1", *, strategy="a", instruments=(PERP,), opened=START, closed=START + DAY, **changes):
    fields = {
        "strategy": strategy,
        "instruments": instruments,
        "side": "long",
        "quantity": D("0.1"),
        "ts_open": opened,
        "ts_close": closed,
        "entry_price": D(40000),
        "exit_price": None if closed is None else D(40010),
        "pnl": D(pnl),
        "fees": D("0.1"),
        "funding": ZERO,
        "closed_by": "" if closed is None else "target",
    }
    return RoundTrip(**{**fields, **changes})


def _curve(cash, ts, *prices):
    """Equity at each stamp: cash that has moved by then, and what is held at its price."""
    when = np.array([each[0] for each in cash], dtype=np.int64)
    flows = np.cumsum(np.array([each[1:] for each in cash]), axis=0)
    at = flows[np.searchsorted(when, ts, side="right") - 1]
    return ts, at[:, 0] + sum(at[:, place + 1] * price for place, price in enumerate(prices))
