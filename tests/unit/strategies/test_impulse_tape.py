"""The impulse engine on tapes: skipping says what stepping says, and neither the end nor the start of a tape matters."""

import heapq
from decimal import Decimal

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.messages import Bar, Liquidity, OrderFilled, PositionChanged, Quote, Side, SignalRefused, Trade, Wake
from hean.strategies.impulse import ImpulseConfig, ImpulseEngine
from hean.tape import Stream, Tape
from tests.data_dir import data_dir, needs_data

PERP = "BTCUSDT-LINEAR.BYBIT"
MINUTE = 60_000_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
LENGTH = 5 * MINUTE
START = 20_000 * DAY

EAGER = {
    "instrument": PERP,
    "volume_days": 1,
    "context_window_h": 2,
    "tau_s": 600,
    "sigma_window_min": 100,
    "trigger": 1.2,
    "volume_ratio": 1.0,
    "cost_multiple": 1.5,
    "depth_notional": 5_000,
    "trades_a_day": 4,
}
MEMORYLESS = {**EAGER, "cooldown_min": 1, "trades_a_day": 100_000}


def market(seed, rows=900, *, ticks=False, missing=6):
    """Bars of five minutes with heavy tails and a few of them missing, and perhaps trades and quotes from half-way on."""
    rng = np.random.default_rng(seed)
    ts = START + (np.arange(rows + missing, dtype=np.int64) + 1) * LENGTH
    ts = np.delete(ts, rng.choice(np.arange(rows // 3, rows), missing, replace=False))
    close = np.round(60_000 * np.exp(np.cumsum(rng.standard_t(3, rows) * 2e-3)), 1)
    columns = {"open": close, "high": close, "low": close, "close": close, "volume": rng.gamma(1, 5, rows)}
    streams = [Stream(Bar, PERP, ts, columns, interval=LENGTH)]
    if ticks:
        begin = rows // 2
        moved = np.sign(np.diff(close, prepend=close[0]))
        for kind, count in ((Trade, 3 * rows), (Quote, 3 * rows)):
            bar = np.sort(rng.integers(begin, rows, count))
            stamps = np.sort(ts[bar] - rng.integers(0, 50, count) * LENGTH // 50)
            price = close[bar]
            tick = {
                Trade: {"price": price, "size": rng.gamma(1, 1, count), "side": np.where(moved[bar] > 0, 1, -1)},
                Quote: {
                    "bid": price + rng.normal(0, 2, count),
                    "bid_size": rng.gamma(2, 1, count),
                    "ask": price + 10 + rng.normal(0, 2, count),
                    "ask_size": rng.gamma(2, 1, count),
                },
            }[kind]
            streams.append(Stream(kind, PERP, stamps, tick))
    return Tape(streams)


def fill(side, price, now):
    return OrderFilled(
        "id", "impulse", PERP, f"t{now}", side, Decimal(1), Decimal(str(price)), Decimal(5), "USDT",
        Liquidity.TAKER, None, "", now,
    )  # fmt: skip


def position(quantity, price):
    return PositionChanged("impulse", PERP, Decimal(quantity), Decimal(0), Decimal(str(price)))


def answers(signal, now, open_side, seed):
    """What the world makes of a signal, drawn from its instant: refused, lost on the way, or filled and stopped out later."""
    rng = np.random.default_rng([seed, now // 1000])
    [leg] = signal.legs
    price = leg.price
    if leg.weight == 0:
        if rng.random() < 0.3:
            return [(now, SignalRefused("impulse", PERP, "r", "1", "0"))]
        return [(now + 1, fill(Side(-open_side), price, now + 1)), (now + 1, position(0, 0))]
    side = Side(int(leg.weight))
    fate = rng.random()
    if fate < 0.2:
        return [(now, SignalRefused("impulse", PERP, "r", "1", "0"))]
    if fate < 0.3:
        return []
    told = [(now + 1, fill(side, price, now + 1)), (now + 1, position(int(side), price))]
    if fate < 0.8:
        out = now + int(rng.integers(1, 50)) * MINUTE
        exit_price = round(price * (1 - side * rng.choice([0.01, 0.01, -0.02])), 1)
        told += [(out, fill(Side(-side), exit_price, out)), (out, position(0, 0))]
    return told


def play(engine, tape, *, skipping, seed=0, world=answers, at=0):
    """Run it over a tape with a made-up venue, and return all it said with its state at every word and at every fact."""
    said, pending, order = [], [], 0
    open_side = 0
    while True:
        wake = engine.wake_at()
        due = min([*([pending[0][0]] if pending else []), *([wake] if wake is not None else [])], default=None)
        end = tape.size if due is None else tape.after(due)
        row = engine.quiet_until(tape, at, end) if skipping else at
        assert at <= row <= end
        if skipping and row > at:
            engine.skip(tape, at, row)
        if row < end:
            stream, index = tape.at(row)
            message, now = stream.message(index), tape.ts_at(row)
            at = row + 1
        elif due is None or due > tape.last_ts:
            return said
        else:
            at, now = end, due
            message = heapq.heappop(pending)[2] if pending and pending[0][0] == due else Wake()
        if isinstance(message, PositionChanged):
            open_side = int(message.quantity)
        signals = list(engine.handle(message, now))
        if signals or not isinstance(message, Bar | Trade | Quote):
            said.append((now, type(message).__name__, signals, msgspec.json.encode(engine.state)))
        for signal in signals:
            for ts, answer in world(signal, now, open_side, seed):
                order += 1
                heapq.heappush(pending, (ts, order, answer))


def run(tape, config=None, **how):
    return play(ImpulseEngine(ImpulseConfig(**(config or EAGER))), tape, **how)


def silence(*_):
    return []


def signals(said):
    return [(now, *words) for now, _, words, _ in said if words]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), ticks=st.booleans(), size=st.sampled_from([1.0, 0.3]))
def test_skipping_says_what_stepping_says_with_the_same_state(seed, ticks, size):
    tape = market(seed, ticks=ticks)
    config = {**EAGER, "volume_ratio": size}
    assert run(tape, config, skipping=True, seed=seed) == run(tape, config, skipping=False, seed=seed)


@pytest.mark.parametrize("ticks", [False, True], ids=["bars", "bars, trades and quotes"])
def test_the_made_up_tapes_make_it_speak(ticks):
    said = [words for seed in range(8) for words in run(market(seed, ticks=ticks), skipping=True, seed=seed)]
    kinds = [kind for _, kind, _, _ in said]
    for kind in ("Bar", "Wake", "SignalRefused", "PositionChanged"):
        assert kinds.count(kind) > 5
    assert any(msgspec.json.decode(state)["ts_paused_until"] for *_, state in said)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), ticks=st.booleans(), rows=st.integers(1, 2000))
def test_the_end_of_the_tape_changes_no_earlier_decision(seed, ticks, rows):
    tape = market(seed, ticks=ticks)
    end = tape.ts_at(min(rows, tape.size - 1))
    whole = signals(run(tape, skipping=True, seed=seed))
    cut = signals(run(tape.until(end), skipping=True, seed=seed))
    assert cut == [words for words in whole if words[0] <= end]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), ticks=st.booleans(), skipped=st.integers(1, 400))
def test_an_earlier_start_changes_no_decision_after_the_warm_up(seed, ticks, skipped):
    tape = market(seed, ticks=ticks)
    later = Tape(
        [
            Stream(
                stream.kind,
                PERP,
                stream.ts[(first := int(stream.ts.searchsorted(START + skipped * LENGTH))) :],
                {name: column[first:] for name, column in stream.columns.items()},
                interval=stream.interval,
            )
            for stream in tape.streams
        ]
    )
    warm = later.first_ts + ImpulseEngine(ImpulseConfig(**MEMORYLESS)).warmup_ns
    early = [words for words in signals(run(tape, MEMORYLESS, skipping=True, world=silence)) if words[0] >= warm]
    late = [words for words in signals(run(later, MEMORYLESS, skipping=True, world=silence)) if words[0] >= warm]
    assert early == late


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 899))
def test_rows_remembered_from_elsewhere_count_on_a_tape(seed, cut):
    """As in live: warmed up row by row, then told a tape that begins where that ended."""
    tape = market(seed)
    [stream] = tape.streams
    rest = Stream(
        Bar, PERP, stream.ts[cut:], {name: column[cut:] for name, column in stream.columns.items()}, interval=LENGTH
    )

    def continued(*, skipping):
        engine = ImpulseEngine(ImpulseConfig(**EAGER))
        for row in range(cut):
            bar = stream.message(row)
            list(engine.handle(bar, bar.ts_event))
        return play(engine, Tape([rest]), skipping=skipping, seed=seed)

    assert continued(skipping=True) == continued(skipping=False)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), ticks=st.booleans())
def test_the_last_gate_counts_what_it_would_have_said(seed, ticks):
    tape = market(seed, ticks=ticks)
    gates = ImpulseEngine(ImpulseConfig(**MEMORYLESS)).gates(tape)
    counts = [count for _, count in gates]
    said = signals(run(tape, MEMORYLESS, skipping=False, world=silence))
    assert counts[:-1] == sorted(counts[:-1], reverse=True)
    if ticks:
        begins = max(stream.ts.item(0) for stream in tape.streams)
        assert counts[-1] == sum(words[0] >= begins for words in said)
    else:
        assert counts[-1] == len(said)


def test_a_bar_missing_is_unknown_not_bridged():
    tape = market(3, missing=0)
    [stream] = tape.streams
    engine = ImpulseEngine(ImpulseConfig(**MEMORYLESS))
    words = signals(run(tape, MEMORYLESS, skipping=True, world=silence))
    hole = int(stream.ts.searchsorted(words[len(words) // 2][0])) - 1
    holed = Tape(
        [
            Stream(
                Bar, PERP, np.delete(stream.ts, hole), {k: np.delete(c, hole) for k, c in stream.columns.items()},
                interval=LENGTH,
            )
        ]
    )  # fmt: skip
    unknown = range(stream.ts.item(hole), stream.ts.item(hole) + engine.config.sigma_window_min * MINUTE + 1)
    after = signals(run(holed, MEMORYLESS, skipping=True, world=silence))
    assert not any(words[0] in unknown for words in after)
    assert any(words[0] in unknown for words in words)
    assert [words for words in after if words[0] < unknown.start] == [w for w in words if w[0] < unknown.start]


# --- the real market ----------------------------------------------------------------------------


@needs_data
def test_seven_real_weeks_of_minutes():
    path = data_dir() / "market" / "binance.linear.BTCUSDT.kline-1m.2025-05-04_2025-06-24.parquet"
    table = pl.read_parquet(path).sort("ts")
    ts = table["ts"].dt.timestamp("ns").to_numpy() + MINUTE
    columns = {name: table[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    tape = Tape([Stream(Bar, PERP, ts, columns, interval=MINUTE)])
    config = {"instrument": PERP}

    gates = dict(ImpulseEngine(ImpulseConfig(**config)).gates(tape))
    bars, known, large, paying, busy, clear = gates.values()
    assert bars == len(table)
    assert 0.9 * bars < known < bars
    assert 0.001 * known < large < 0.03 * known  # a normal market would have 0.27 %
    assert clear <= busy <= paying <= large
    assert clear > 5

    shorter = tape.until(tape.ts_at(20 * DAY // MINUTE))
    said = run(shorter, config, skipping=True)
    assert len(signals(said)) > 5
    assert said == run(shorter, config, skipping=False)
