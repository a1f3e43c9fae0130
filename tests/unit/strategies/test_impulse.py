"""What the impulse engine says when told bars, order flow, fills and refusals."""

import itertools
import math
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from hean.market.features import impulse_now, volume_ratio
from hean.messages import (
    Bar,
    Liquidity,
    OrderFilled,
    PositionChanged,
    Quote,
    Side,
    SignalRefused,
    Trade,
    Wake,
)
from hean.strategies.impulse import ImpulseConfig, ImpulseEngine
from hean.tape import Stream, Tape

PERP = "BTCUSDT-LINEAR.BYBIT"
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
START = 20_000 * DAY
LENGTH = 1_600  # of the calm before: more than a day and an hour, ending at 02:40
BASE = {"instrument": PERP, "volume_days": 1, "sigma_window_min": 60, "context_window_h": 1, "stop_sigma": 1.0}


def calm(rows=LENGTH, step=8e-4):
    """Closes that go up and down by a hair, and the volume of each bar."""
    return [60_000 * (1 + step * (row % 2)) for row in range(rows)], [10.0 + row % 3 for row in range(rows)]


def stream_of(closes, volumes, start=START):
    close = np.array(closes)
    ts = start + (np.arange(close.size, dtype=np.int64) + 1) * MINUTE
    columns = {"open": close, "high": close, "low": close, "close": close, "volume": np.array(volumes)}
    return Stream(Bar, PERP, ts, columns, interval=MINUTE)


def impulse(move=0.01, rows=LENGTH):
    """Calm, and then two bars of a move; only the second is sudden and busy."""
    closes, volumes = calm(rows)
    last = closes[-1]
    return stream_of([*closes, last * (1 + move / 5), last * (1 + move)], [*volumes, 10.0, 110.0])


def tell(engine, stream, first=0, last=None):
    """What it says to each bar, by the bar's stamp."""
    said = []
    for row in range(first, len(stream) if last is None else last):
        bar = stream.message(row)
        said += [(bar.ts_event, signal) for signal in engine.handle(bar, bar.ts_event)]
    return said


def engine(**changes):
    return ImpulseEngine(ImpulseConfig(**{**BASE, **changes}))


def asked(stream, **changes):
    return [(ts, signal.legs[0].weight) for ts, signal in tell(engine(**changes), stream)]


def hold(engine, quantity, now, entry=60_000):
    told = PositionChanged("impulse", PERP, Decimal(quantity), Decimal(0), Decimal(entry))
    return list(engine.handle(told, now))


def fill(engine, side, price, now, quantity="1", fee="0"):
    filled = OrderFilled(
        "id", "impulse", PERP, f"t{now}{side}", side, Decimal(quantity), Decimal(price), Decimal(fee), "USDT",
        Liquidity.TAKER, None, "", now,
    )  # fmt: skip
    return list(engine.handle(filled, now))


# --- going in -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("move", "weight"), [(0.01, 1.0), (-0.01, -1.0)], ids=["up", "down"])
def test_joins_a_sudden_busy_move(move, weight):
    stream = impulse(move)
    said = tell(engine(), stream)
    ts, price = stream.ts.item(-1), stream.columns["close"].item(-1)
    sigma, z = impulse_now(stream.ts, stream.columns["close"], MINUTE, 2, 60)
    hourly = sigma * math.sqrt(60)

    [(at, signal)] = said
    assert at == ts
    [leg] = signal.legs
    assert (leg.instrument, leg.weight, leg.price, leg.ts_seen) == (PERP, weight, price, ts)
    assert signal.bracket.stop == pytest.approx(price * math.exp(-weight * hourly))
    assert signal.bracket.target == pytest.approx(price * math.exp(2 * weight * hourly))
    assert signal.edge_bp is None
    assert signal.volatility == pytest.approx(sigma * math.sqrt(365 * 24 * 60))
    assert signal.reason == f"moved {z:+.1f} sigma in 120 s on 5.5 times the usual volume"


@pytest.mark.parametrize(
    ("changes", "enters"),
    [
        ({"trigger": 5.33}, True),
        ({"trigger": 5.34}, False),
        ({"volume_ratio": 5.45}, True),
        ({"volume_ratio": 5.46}, False),
        ({"cost_multiple": 8.51}, True),
        ({"cost_multiple": 8.52}, False),
        ({"cost_bp": 33.0}, True),
        ({"cost_bp": 33.0, "spread_bp": 1.1}, False),
    ],
    ids=str,
)
def test_every_gate_just_inside_and_just_outside(changes, enters):
    stream = impulse()
    sigma, z = impulse_now(stream.ts, stream.columns["close"], MINUTE, 2, 60)
    assert z == pytest.approx(5.336, abs=1e-3)
    assert sigma * math.sqrt(60) / 12e-4 == pytest.approx(8.5115, abs=1e-4)
    assert volume_ratio(stream.ts, stream.columns["volume"], len(stream) - 1, MINUTE, 2, 1) == pytest.approx(120 / 22)

    assert bool(asked(stream, **changes)) is enters


@pytest.mark.parametrize(
    ("minutes", "enters"), [(-3, True), (-2, True), (-1, False), (0, False), (1, False), (2, True)]
)
def test_does_not_enter_at_funding(minutes, enters):
    stream = impulse(rows=DAY // MINUTE + 8 * 60 + minutes - 2)
    assert stream.ts.item(-1) == START + DAY + 8 * HOUR + minutes * MINUTE
    assert bool(asked(stream)) is enters


def test_funding_stamps_follow_the_interval_of_the_instrument():
    stream = impulse(rows=DAY // MINUTE + 4 * 60 - 2)
    assert asked(stream)
    assert not asked(stream, funding_interval_h=4)


def test_a_missing_bar_makes_it_silent_not_wrong():
    closes, volumes = calm(1700)
    stream = stream_of([*closes, 60_300, 60_600], [*volumes, 60, 60])
    assert asked(stream)
    for missing, enters in [(1650, False), (1641, False), (1639, True), (1701, False)]:
        told = engine()
        tell(told, stream, 0, missing)
        assert bool(tell(told, stream, missing + 1)) is enters


def test_is_silent_until_it_knows_what_volume_is_usual():
    assert not asked(impulse(rows=DAY // MINUTE - 5), sigma_window_min=60)
    assert asked(impulse(rows=DAY // MINUTE + 5), sigma_window_min=60)


def test_names_the_market_it_decided_in():
    [(_, signal)] = tell(engine(), impulse(0.015))
    assert signal.context == "up|wild|asia"
    [(_, signal)] = tell(engine(), impulse(-0.015, rows=LENGTH + 8 * 60))
    assert signal.context == "down|wild|europe"
    [(_, signal)] = tell(engine(context_window_h=26), impulse(rows=LENGTH + 17 * 60))
    assert signal.context == "flat|wild|america"


def test_an_unknown_market_has_no_name():
    stream = impulse()
    told = engine(context_window_h=5)
    tell(told, stream, 0, 1400)
    [(_, signal)] = tell(told, stream, 1401)
    assert signal.context == ""
    assert signal.volatility is None


# --- order flow ---------------------------------------------------------------------------------


def flow(engine, stream, heard):
    """Tell the calm and the first bar of the move, then what is heard, then the last bar."""
    said = tell(engine, stream, 0, len(stream) - 1)
    now = stream.ts.item(-1)
    for message in heard(now):
        said += engine.handle(message, message.ts_event)
    return said + tell(engine, stream, len(stream) - 1)


def trades(bought, sold, ago=10 * SECOND):
    return lambda now: [
        Trade(PERP, now - ago, 60_000, bought, Side.BUY),
        Trade(PERP, now - ago, 60_000, sold, Side.SELL),
    ]


def quotes(*rows, spread_bp=1.0, ago=10 * SECOND):
    """Best bid and offer, 6 bitcoin each unless said."""
    return lambda now: [
        Quote(PERP, now - ago + at, bid, size, bid * (1 + spread_bp / 1e4), 6.0) for at, (bid, size) in enumerate(rows)
    ]


UP = ((60_000, 6.0), (60_100, 6.0))


@pytest.mark.parametrize(
    ("heard", "enters"),
    [
        (trades(61, 39), True),
        (trades(59, 41), False),
        (trades(39, 61), False),
        (trades(61, 39, ago=130 * SECOND), False),
        (quotes(*UP), True),
        (quotes(*reversed(UP)), False),
        (quotes(*UP, spread_bp=2.9), True),
        (quotes(*UP, spread_bp=3.1), False),
        (quotes((60_000, 0.1), (60_100, 0.34)), True),
        (quotes((60_000, 0.1), (60_100, 0.33)), False),
        (quotes(*UP, ago=130 * SECOND), False),
    ],
    ids=[
        "bought", "hardly bought", "sold", "bought long ago", "book rose", "book fell", "narrow", "wide",
        "deep", "shallow", "book rose long ago",
    ],
)  # fmt: skip
def test_order_flow_confirms_where_it_is_heard(heard, enters):
    assert bool(flow(engine(), impulse(), heard)) is enters


def test_a_heard_spread_counts_as_cost():
    assert flow(engine(cost_bp=33.0), impulse(), quotes(*UP, spread_bp=1.0))
    assert not flow(engine(cost_bp=33.0), impulse(), quotes(*UP, spread_bp=1.1))


# --- restraint ----------------------------------------------------------------------------------

ALWAYS = {"trigger": 1e-9, "volume_ratio": 0.0, "cost_multiple": 0.0, "funding_quiet_min": 0.0, "trades_a_day": 1000}


def restless(rows=3 * DAY // MINUTE):
    rng = np.random.default_rng(1)
    return stream_of(60_000 * np.exp(np.cumsum(rng.normal(0, 1e-3, rows))), rng.gamma(9, 1, rows))


def test_asks_again_only_after_the_cooldown():
    times = [ts for ts, _ in asked(restless(), **ALWAYS)]
    assert {after - before for before, after in itertools.pairwise(times)} == {15 * MINUTE}


def test_the_cooldown_begins_when_it_is_out():
    stream = restless()
    told = engine(**ALWAYS)
    tell(told, stream, 0, 2000)
    now = stream.ts.item(1999)
    hold(told, "1", now)
    assert not tell(told, stream, 2000, 2100)
    out = stream.ts.item(2099)
    hold(told, "0", out)
    assert tell(told, stream, 2100)[0][0] == out + 15 * MINUTE


def test_asks_for_so_many_trades_a_day():
    times = [ts for ts, _ in asked(restless(), **{**ALWAYS, "trades_a_day": 8})]
    second_day = [ts for ts in times if START + DAY <= ts < START + 2 * DAY]
    third_day = [ts for ts in times if START + 2 * DAY <= ts < START + 3 * DAY]
    assert len(second_day) == len(third_day) == 8
    assert third_day[0] == START + 2 * DAY


def test_a_refused_trade_does_not_count():
    stream = restless()
    told = engine(**{**ALWAYS, "trades_a_day": 2})
    times = []
    for row in range(len(stream)):
        for ts, _ in tell(told, stream, row, row + 1):
            times.append(ts)
            if len(times) < 4:
                list(told.handle(SignalRefused("impulse", PERP, "any", "1", "0"), ts))
    assert sum(ts < START + 2 * DAY for ts in times) == 5


def lose(told, now, price=59_000, fee="0"):
    """A trade of one bitcoin bought at 60,000, and sold."""
    fill(told, Side.BUY, 60_000, now, fee=fee)
    hold(told, "1", now)
    fill(told, Side.SELL, price, now, fee=fee)
    hold(told, "0", now)


@pytest.mark.parametrize(
    ("prices", "fee", "pause"),
    [
        ([59_000, 59_000, 59_000], "0", True),
        ([59_000, 59_000], "0", False),
        ([59_000, 61_000, 59_000, 59_000], "0", False),
        ([60_010, 60_010, 60_010], "4", False),
        ([60_010, 60_010, 60_010], "6", True),
    ],
    ids=["three losses", "two", "a win between", "gains after fees", "losses after fees"],
)
def test_pauses_after_losses_in_a_row(prices, fee, pause):
    stream = restless()
    told = engine(**ALWAYS)
    tell(told, stream, 0, 2000)
    now = stream.ts.item(1999)
    for price in prices:
        lose(told, now, price, fee)
    assert tell(told, stream, 2000)[0][0] == now + (4 * HOUR if pause else 15 * MINUTE)


def test_a_loss_counts_whichever_is_told_first_the_fill_or_the_position():
    told = engine()
    fill(told, Side.SELL, 60_000, 1, quantity="0.5")
    hold(told, "-0.5", 1)
    fill(told, Side.SELL, 60_000, 1, quantity="0.5")
    hold(told, "-1", 1)
    hold(told, "0", 2)
    fill(told, Side.BUY, 60_500, 2, quantity="1")
    assert told.state.losses == 1


def test_a_loss_counts_when_only_the_position_was_restated():
    told = engine()
    hold(told, "-1", 1, entry=60_000)
    fill(told, Side.BUY, 60_500, 2)
    hold(told, "0", 2)
    assert told.state.losses == 1


# --- going out ----------------------------------------------------------------------------------


def test_leaves_after_an_hour_and_asks_again_until_it_is_out():
    stream = impulse()
    told = engine()
    [(asked_at, _)] = tell(told, stream)
    assert told.wake_at() is None
    hold(told, "1", asked_at + SECOND)
    assert told.wake_at() == asked_at + HOUR
    assert not list(told.handle(Wake(), asked_at + HOUR - 1))

    [signal] = told.handle(Wake(), asked_at + HOUR)
    assert [(leg.instrument, leg.weight, leg.price) for leg in signal.legs] == [
        (PERP, 0.0, stream.columns["close"].item(-1))
    ]
    assert signal.bracket is None
    assert told.wake_at() == asked_at + HOUR + 10 * SECOND
    assert list(told.handle(Wake(), asked_at + HOUR + 10 * SECOND))
    hold(told, "0", asked_at + HOUR + 11 * SECOND)
    assert told.wake_at() is None


def test_an_hour_begins_anew_for_a_position_it_did_not_ask_for():
    told = engine()
    hold(told, "-1", 5 * HOUR)
    assert told.wake_at() == 6 * HOUR
    [signal] = told.handle(Wake(), 6 * HOUR)
    assert (signal.legs[0].price, signal.legs[0].ts_seen) == (60_000.0, 6 * HOUR)


def test_a_turned_position_has_an_hour_of_its_own():
    told = engine()
    hold(told, "-1", 5 * HOUR)
    hold(told, "-2", 5 * HOUR + MINUTE)
    assert told.wake_at() == 6 * HOUR
    hold(told, "1", 5 * HOUR + 30 * MINUTE)
    assert told.wake_at() == 6 * HOUR + 30 * MINUTE


def test_other_instruments_are_not_its_business():
    told = engine()
    other = "ETHUSDT-LINEAR.BYBIT"
    list(told.handle(PositionChanged("impulse", other, Decimal(1), Decimal(0), Decimal(1)), 1))
    assert told.wake_at() is None


# --- said to people -----------------------------------------------------------------------------


def test_says_which_confirmations_are_off():
    bars = impulse()
    quoted = Stream(Quote, PERP, bars.ts, {})
    traded = Stream(Trade, PERP, bars.ts, {})
    off = engine().notes(Tape([bars]))
    on = engine().notes(Tape([bars, quoted, traded]))
    assert sum(note.startswith("OFF") for note in off) == 2
    assert not any(note.startswith("OFF") for note in on)
    assert any("33.3% of the time" in note and "44.4%" in note for note in off)
    assert "so it says nothing" in engine().notes(Tape([]))[0]


def test_counts_what_passed_each_gate():
    assert engine().gates(Tape([impulse()])) == (
        ("bars", 1602),
        ("sigma known", 1542),
        ("move beyond 3 sigma", 1),
        ("sigma of an hour at least 3 times the costs", 1),
        ("volume beyond 2 times the usual", 1),
        ("2 minutes from funding", 1),
    )


# --- what it says it waits for ------------------------------------------------------------------


def waited_for(told, now):
    return [line.removeprefix("waits for: ") for line in told.waits_for(now) if line.startswith("waits for: ")]


def test_it_names_the_first_condition_that_fails_and_measures_them_all():
    told, stream = engine(trigger=5.35), impulse()
    for message in (*trades(59, 41)(stream.ts.item(-1)), *quotes(*UP)(stream.ts.item(-1))):
        list(told.handle(message, message.ts_event))
    assert not tell(told, stream)

    assert told.waits_for(stream.ts.item(-1)) == (
        "met: 0 s of cooldown or pause, with 0 of 8 trades today and 0 of 3 losses in a row",
        "waits for: a move of 5.34 sigma in 120 s, beyond 5.35",
        "then: sigma of an hour 102.1 bp, at least 36.0",
        "then: 2 minutes from a funding stamp",
        "then: volume 5.45 times the usual, above 2",
        "then: imbalance of trades on the move's side 0.18, above 0.2",
        "then: order flow on the move's side 12, above 0",
        "then: a spread of 1.00 bp, at most 3",
        "then: 360,600 at the best prices, at least 20,000",
    )


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({}, "899 s of cooldown or pause, with 1 of 8 trades today and 0 of 3 losses in a row"),
        ({"volume_ratio": 5.5}, "volume 5.45 times the usual, above 5.5"),
        ({"cost_bp": 40.0}, "sigma of an hour 102.1 bp, at least 123.0"),
        ({"volume_days": 2}, "volume unknown times the usual, above 2"),
    ],
    ids=["it has just asked", "not busy enough", "not worth its costs", "what is usual is not known"],
)
def test_what_is_waited_for_is_what_fails(changes, waits):
    told, stream = engine(**changes), impulse()
    assert bool(tell(told, stream)) is not bool(changes)

    assert waited_for(told, stream.ts.item(-1) + SECOND) == [waits]


def test_before_the_first_bar_it_waits_for_that():
    assert engine().waits_for(START) == (f"waits for: a first bar of {PERP}",)


def test_while_it_holds_it_says_when_it_would_leave():
    told = engine()
    hold(told, "0.5", START)

    assert told.waits_for(START + 10 * MINUTE) == (
        f"holds: 0.5 {PERP}",
        "leaves when: its stop or its target is hit at the venue",
        "or when: held for 60 minutes, 3000 s from now",
    )


def test_asking_what_it_waits_for_changes_nothing():
    told, stream = engine(), impulse()
    tell(told, stream)
    before = msgspec.json.encode(told.state)
    told.waits_for(stream.ts.item(-1) + DAY)

    assert msgspec.json.encode(told.state) == before
