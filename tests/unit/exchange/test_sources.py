"""Markets that move by themselves: made up from a seed, or replayed from a tape."""

from decimal import Decimal
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from hean.errors import ConfigError, DataError
from hean.exchange.bybit import Bybit
from hean.exchange.listing import listings
from hean.exchange.sources.generated import Generated, Recipe
from hean.exchange.sources.ladder import Ladder
from hean.exchange.sources.replayed import Replay, Replayed
from hean.exchange.sources.source import Flow, Shown
from hean.exchange.words import Executed, NewOrder, OrderType, Printed
from hean.market.carry import funding_rate, mean_premium
from hean.messages import Side, TimeInForce
from hean.store.catalog import Catalog
from hean.store.synthetic import SyntheticMarket, generate
from hean.units import DAY, HOUR, MILLISECOND, MINUTE, SECOND, parse_time
from tests.store.making import bars, batch

NOW = parse_time("2026-11-22T10:17:23") + 123_456_789
BTC, SPOT, ETH = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"


def listed(*symbols, funding_minutes=None):
    return listings(symbols or ("BTCUSDT",), at=NOW, funding_minutes=funding_minutes)


def made(*symbols, seed=7, days=2, ts_start=NOW, funding_minutes=None, **more):
    recipe = Recipe(seed=seed, ts_anchor=NOW, days=days, **more)
    return Generated(listed(*symbols, funding_minutes=funding_minutes), recipe, ts_start)


def rows_of(history, kind="last"):
    return {history.ts_first + at * MINUTE: tuple(row) for at, row in enumerate(getattr(history, kind).tolist())}


# --- made up ----------------------------------------------------------------------------------------


def test_the_same_recipe_makes_the_same_market():
    one, two = made(), made()
    assert list(one.advance(NOW + 5 * SECOND)) == list(two.advance(NOW + 5 * SECOND))
    assert np.array_equal(one.history()[BTC].last, two.history()[BTC].last)
    assert "synthetic" in one.name


def test_another_seed_makes_another_market():
    one, two = made(), made(seed=8)
    assert not np.array_equal(one.history()[BTC].last, two.history()[BTC].last)
    assert list(one.advance(NOW)) != list(two.advance(NOW))


def test_what_happens_does_not_depend_on_how_often_it_is_asked():
    one, two = made(), made()
    at_once = list(one.advance(NOW + 3 * SECOND))
    piecemeal = [move for ms in range(0, 3001, 7) for move in two.advance(NOW + ms * MILLISECOND)]
    piecemeal += two.advance(NOW + 3 * SECOND)
    assert at_once == piecemeal
    assert [move.ts for move in at_once] == sorted(move.ts for move in at_once)


def test_leaving_out_a_symbol_changes_no_other():
    both, alone = made("BTCUSDT", "ETHUSDT"), made("ETHUSDT")
    assert np.array_equal(both.history()[ETH].last, alone.history()[ETH].last)
    kept = [move for move in both.advance(NOW + 2 * SECOND) if move.instrument.startswith("ETH")]
    assert kept == list(alone.advance(NOW + 2 * SECOND))


def test_weeks_of_minutes_reach_up_to_where_the_market_begins():
    for name, past in made(days=30).history().items():
        assert len(past.last) >= 30 * 1440
        assert past.ts_end % MINUTE == 0
        assert NOW - 2 * MINUTE < past.ts_end <= NOW
        opens, highs, lows, closes, volume, turnover = past.last.T
        assert np.array_equal(opens[1:], closes[:-1])
        assert (lows <= np.minimum(opens, closes)).all()
        assert (highs >= np.maximum(opens, closes)).all()
        assert (turnover / volume <= highs + 1e-6).all()
        assert (turnover / volume >= lows - 1e-6).all()
        assert np.allclose(closes / 0.1, np.rint(closes / 0.1), atol=1e-6), name


def test_the_past_of_a_perpetual_hangs_together():
    past = made(days=30).history()[BTC]
    assert {len(table) for table in (past.last, past.mark, past.index, past.premium)} == {len(past.last)}
    basis = past.last[:, 3] / past.index[:, 3] - 1
    assert np.abs(past.premium[:, 3] - basis).max() < 1e-4
    assert np.abs(past.mark[:, 3] / past.last[:, 3] - 1).max() < 2e-3
    assert np.abs(basis).max() < 5e-3
    # It reverts: over a day it forgets where it was.
    assert np.abs(basis[1440:] - basis[:-1440]).mean() < 4 * basis.std()


def test_funding_follows_the_premium_by_the_formula():
    past = made(days=30).history()[BTC]
    premium = {past.ts_first + at * MINUTE: value for at, value in enumerate(past.premium[:, 3].tolist())}
    for ts, rate in past.settled:
        minutes = [premium[at] for at in range(ts - 8 * HOUR, ts, MINUTE)]
        assert rate == pytest.approx(funding_rate(mean_premium(minutes), 8, 0.00375), abs=1e-8)
    assert [ts % (8 * HOUR) for ts, _ in past.settled] == [0] * len(past.settled)
    assert 88 <= len(past.settled) <= 90
    assert len({rate for _, rate in past.settled}) > 3


def test_short_intervals_are_settled_in_the_past_too():
    past = made(funding_minutes=1).history()[BTC]
    assert len(past.settled) == len(past.last)
    assert {b - a for (a, _), (b, _) in pairwise(past.settled)} == {MINUTE}


def walked(source, until):
    """The index of BTC at every step, by time."""
    return {move.ts: move.index for move in source.advance(until) if isinstance(move, Shown) and move.instrument == BTC}


def test_what_follows_is_the_walk_that_led_there():
    source = made()
    past = source.history()[BTC]
    path = walked(source, past.ts_end + 3 * MINUTE)
    assert path[past.ts_end] == pytest.approx(past.index[-1, 3], abs=0.06)
    later = made(ts_start=NOW + HOUR).history()[BTC]
    known = rows_of(later, "index")
    for minute in range(3):
        opened, _, _, closed = known[past.ts_end + minute * MINUTE]
        assert path[past.ts_end + minute * MINUTE] == pytest.approx(opened, abs=0.06)
        assert path[past.ts_end + (minute + 1) * MINUTE] == pytest.approx(closed, abs=0.06)


@pytest.mark.parametrize("away", [HOUR, DAY + 5 * HOUR, 3 * DAY])
def test_whoever_comes_back_finds_the_market_that_went_on(away):
    first, later = made(), made(ts_start=NOW + away)
    before, after = rows_of(first.history()[BTC]), rows_of(later.history()[BTC])
    both = sorted({*before} & {*after})
    assert len(both) - max(0, (2 * DAY - away) // MINUTE) in {0, 1}
    # The first minute told has no minute before it to open at.
    assert all(before[ts] == after[ts] for ts in both[1:])
    assert (NOW + away) - later.history()[BTC].ts_end < 2 * MINUTE


def test_whoever_comes_back_sees_the_same_prices_as_who_stayed():
    stayed = walked(made(), NOW + 10 * MINUTE)
    came = walked(made(ts_start=NOW + 9 * MINUTE), NOW + 10 * MINUTE)
    shared = [ts for ts in came if ts >= NOW + 9 * MINUTE]
    assert len(shared) >= 600
    assert {ts: came[ts] for ts in shared} == {ts: stayed[ts] for ts in shared}


def opened(source, **more):
    return Bybit.open(listed("BTCUSDT", "ETHUSDT", **more), source, ts_start=NOW)


def test_the_book_is_full_sound_and_of_a_plausible_depth():
    bybit = opened(made("BTCUSDT", "ETHUSDT"))
    spreads = []
    for ms in range(0, 60_000, 100):
        bybit.advance(NOW + ms * MILLISECOND)
        book = bybit.exchange.markets[BTC].book
        spreads.append(book.best(Side.SELL) - book.best(Side.BUY))
    assert min(spreads) >= 1
    assert np.median(spreads) <= 3
    for market in bybit.exchange.markets.values():
        tick, step = float(market.listing.instrument.tick), float(market.listing.instrument.step)
        for side in Side:
            levels = market.book.levels(side, 1000)
            assert len(levels) >= 200
            assert min(size for _, size in levels) >= 1
            best = levels[0][0]
            near = sum(price * tick * size * step for price, size in levels if abs(price - best) <= best * 5e-4)
            assert 50_000 < near < 2_000_000, market.listing.id


def test_a_step_changes_few_levels():
    moves = [move for move in made(step_ms=20).advance(NOW + 20 * SECOND) if isinstance(move, Shown)]
    changed = [len(move.bids) + len(move.asks) for move in moves if not move.snapshot and move.ts > NOW]
    assert np.mean(changed) < 12
    assert sum(move.snapshot for move in moves) == 2


def test_live_minutes_trade_as_much_as_those_of_the_past():
    bybit = opened(made("BTCUSDT", "ETHUSDT", stress_a_day=0.0))
    past = bybit.source.history()[BTC]
    bybit.advance(past.ts_end + 12 * MINUTE)
    live = np.array([row[6] for row in bybit.exchange.markets[BTC].candles.query("last", "1", limit=13)][1:])
    assert 0.4 < np.median(live) / np.median(past.last[-120:, 5]) < 2.5
    ranges = np.array([row[2] - row[3] for row in bybit.exchange.markets[BTC].candles.query("last", "1", limit=20)])
    assert 0.3 < np.median(ranges) / np.median(past.last[-120:, 1] - past.last[-120:, 2]) < 3.0


def test_stress_widens_spreads_thins_the_book_and_moves_it_faster():
    calm, stressed = made(stress_a_day=0.0), made(stress_a_day=3000.0)
    figures = []
    for source in (calm, stressed):
        bybit = opened(source)
        spreads = []
        bybit.advance(NOW + 3 * MINUTE)  # stress is rare in its first minutes
        for second in range(180, 240):
            bybit.advance(NOW + second * SECOND)
            book = bybit.exchange.markets[BTC].book
            spreads.append(book.best(Side.SELL) - book.best(Side.BUY))
        depth = sum(size for _, size in bybit.exchange.markets[BTC].book.levels(Side.BUY, 200))
        moves = np.diff(np.log(source.history()[BTC].index[:, 3])).std()
        figures.append((np.median(spreads), depth, moves))
    assert figures[1][0] > 5 * figures[0][0]
    assert figures[1][1] < figures[0][1] * 0.7
    assert figures[1][2] > figures[0][2] * 1.5


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"days": 0}, {"step_ms": 7}, {"step_ms": 10}, {"ts_start": NOW - HOUR}],
    ids=["seed", "days", "does not divide", "too short", "before it began"],
)
def test_a_recipe_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        made(**wrong)


# --- a ladder ---------------------------------------------------------------------------------------


def test_a_ladder_tells_every_change_and_nothing_else():
    chance = np.random.default_rng(1)
    ladder = Ladder(np.random.default_rng(2), price=5_000.0, steps=50.0)
    book = [{}, {}]
    reference = 5_000.0
    for _ in range(400):
        reference = max(250.0, reference + chance.normal(0, 30) + (chance.random() < 0.02) * chance.normal(0, 2_000))
        wide, depth = (40.0, 0.3) if chance.random() < 0.1 else (0.0, 1.0)
        for side, levels in zip(book, ladder.follow(reference, 0.1, widened=wide, depth=depth), strict=True):
            for price, size in levels:
                if size:
                    side[price] = size
                else:
                    del side[price]
        assert [dict(levels) for levels in ladder.shown()] == book
        bids, asks = book
        assert max(bids) == ladder.bid < ladder.ask == min(asks)
        assert min(len(bids), len(asks)) >= 200
        assert min(bids) > 0


# --- an exchange with its market --------------------------------------------------------------------


def played(step_ms):
    """Everything said in 20 seconds when the exchange is asked every so often, a client's order among it."""
    bybit = opened(made("BTCUSDT", "ETHUSDT"))
    bybit.exchange.open_account("1", {"USDT": Decimal(1_000_000)}, NOW)
    said = []
    for ms in range(0, 20_001, step_ms):
        bybit.advance(NOW + ms * MILLISECOND)
        if ms == 10_000:
            order = NewOrder(
                instrument=BTC,
                side=Side.BUY,
                kind=OrderType.MARKET,
                quantity=Decimal(5),
                time_in_force=TimeInForce.IOC,
            )
            bybit.exchange.create("1", order, NOW + ms * MILLISECOND)
        said += bybit.exchange.drain()
    market = bybit.exchange.markets[BTC]
    return said, market.book.levels(Side.BUY, 500), market.candles.query("mark", "1"), market.pricing.predicted


def test_the_same_clients_meet_the_same_market_however_often_it_is_asked():
    often, rarely = played(20), played(5_000)
    assert any(isinstance(event, Executed) for event in often[0])
    assert often == rarely


def test_an_exchange_has_prices_trades_and_a_past_from_the_first_second():
    bybit = opened(made("BTCUSDT", "ETHUSDT"))
    assert bybit.exchange.drain() == []
    for name, market in bybit.exchange.markets.items():
        assert market.last is not None
        assert len(market.trades) > 20, name
        assert market.pricing.index is not None
        assert len(market.candles.query("last", "60", limit=1000)) >= 48
        first, *_ = market.candles.query("last", "1", limit=10)
        assert first[0] == NOW // MINUTE * MINUTE // MILLISECOND
        if not market.listing.is_spot:
            assert abs(market.pricing.mark / market.pricing.index - 1) < Decimal("0.005")
            assert market.pricing.predicted is not None
            assert market.pricing.ts_next == (NOW // (8 * HOUR) + 1) * 8 * HOUR
            assert market.pricing.last_settled == market.pricing.settled[-1][1]
            assert market.candles.interest > 0
            assert len(market.candles.open_interest("1h")) > 40


def test_the_premium_of_the_book_goes_on_from_that_of_the_past():
    bybit = opened(made("BTCUSDT", "ETHUSDT"))
    for name in (BTC, ETH):
        past = bybit.source.history()[name].premium[-1, 3]
        assert bybit.exchange.markets[name].pricing.premium == pytest.approx(past, abs=1e-4)


def test_funding_is_settled_by_the_clock():
    source = made("BTCUSDT", "ETHUSDT", funding_minutes=1)
    bybit = opened(source, funding_minutes=1)
    bybit.advance(NOW + 3 * MINUTE)
    settled = bybit.exchange.markets[BTC].pricing.settled
    minute = NOW // MINUTE * MINUTE
    assert [ts for ts, _ in settled[-3:]] == [minute + at * MINUTE for at in (1, 2, 3)]
    assert {b - a for (a, _), (b, _) in pairwise(settled)} == {MINUTE}


# --- replayed ---------------------------------------------------------------------------------------

TAPE = parse_time("2025-03-01")
MADE, MADE_SPOT = "BTCUSDT-LINEAR.SYNTHETIC", "BTCUSDT-SPOT.SYNTHETIC"


@pytest.fixture(scope="module")
def tape(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("tape"))
    for one in generate(SyntheticMarket(("BTCUSDT",), TAPE, 4, 3, "1m", trades=True)):
        catalog.commit(one)
    return catalog


def replayed(catalog, *symbols, ts_start=NOW, **how):
    return Replayed(catalog, listed(*symbols), Replay(**how), ts_start)


def recorded(catalog, kind, name):
    return {row[0]: row[1:] for row in catalog.read(kind, name).iter_rows()}


def test_a_tape_is_moved_by_whole_days_and_leaves_a_day_to_play(tape):
    source = replayed(tape)
    assert (NOW - source.ts_tape) % DAY == 0
    assert TAPE + 3 * DAY - DAY <= source.ts_tape < TAPE + 3 * DAY
    assert set(source.instruments) == {BTC, SPOT}
    assert source.synthetic
    assert "synthetic" in source.name


@pytest.mark.parametrize("grain", ["trades", "candles"])
def test_the_past_is_that_of_the_tape(tape, grain):
    source = replayed(tape, grain=grain)
    shift = NOW - source.ts_tape
    for name, of in ((BTC, MADE), (SPOT, MADE_SPOT)):
        past, told = source.history()[name], recorded(tape, "bar-1m", of)
        assert NOW - past.ts_end < 2 * MINUTE
        assert len(past.last) == (past.ts_end - shift - TAPE) // MINUTE
        assert all(row[:5] == pytest.approx(told[ts - shift]) for ts, row in rows_of(past).items())
    perp = source.history()[BTC]
    for kind in ("mark", "index", "premium"):
        told = recorded(tape, f"{kind}-1m", MADE)
        assert all(row == pytest.approx(told[ts - shift]) for ts, row in rows_of(perp, kind).items())
    told = recorded(tape, "funding", MADE)
    assert perp.settled == tuple((ts + shift, rate) for ts, (rate,) in told.items() if ts < perp.ts_end - shift)


def candles_after(bybit, name, minutes):
    """The whole minutes that were played, by their stamp."""
    begin = bybit.source.history()[name].ts_end
    rows = bybit.exchange.markets[name].candles.query("last", "1", limit=minutes + 5)
    return {row[0] * MILLISECOND: row[1:6] for row in rows if begin <= row[0] * MILLISECOND < begin + minutes * MINUTE}


def test_recorded_trades_print_as_recorded(tape):
    source = replayed(tape, grain="trades")
    bybit = Bybit.open(listed(), source, ts_start=NOW)
    bybit.advance(source.history()[BTC].ts_end + 10 * MINUTE)
    for name, of in ((BTC, MADE), (SPOT, MADE_SPOT)):
        told, live = recorded(tape, "bar-1m", of), candles_after(bybit, name, 10)
        assert len(live) == 10
        for ts, row in live.items():
            assert row == pytest.approx(told[ts - (NOW - source.ts_tape)])


def test_candles_are_walked_with_all_their_volume(tape):
    source = replayed(tape, grain="candles")
    bybit = Bybit.open(listed(), source, ts_start=NOW)
    bybit.advance(source.history()[BTC].ts_end + 10 * MINUTE)
    for name, of in ((BTC, MADE), (SPOT, MADE_SPOT)):
        told, live = recorded(tape, "bar-1m", of), candles_after(bybit, name, 10)
        assert len(live) == 10
        for ts, row in live.items():
            there = told[ts - (NOW - source.ts_tape)]
            assert row[4] == pytest.approx(there[4])
            assert row[:4] == pytest.approx(there[:4], rel=3e-4)
    index = bybit.exchange.markets[BTC].pricing.index
    at = recorded(tape, "index-1m", MADE)[(source.history()[BTC].ts_end + 9 * MINUTE) - (NOW - source.ts_tape)]
    assert at[2] <= float(index) <= at[1]


def test_a_tape_played_faster_is_compressed_with_its_past(tape):
    source = replayed(tape, grain="candles", speed=60.0)
    past = source.history()[BTC]
    told = recorded(tape, "bar-1m", MADE)
    stamps = [NOW + (ts - source.ts_tape) / 60 for ts in told]
    minutes = {}
    for stamp, row in zip(stamps, told.values(), strict=True):
        minutes.setdefault(int(stamp // MINUTE) * MINUTE, []).append(row)
    for ts, row in rows_of(past).items():
        parts = minutes[ts]
        assert row[0] == parts[0][0]
        assert row[1] == max(part[1] for part in parts)
        assert row[2] == min(part[2] for part in parts)
        assert row[3] == parts[-1][3]
        assert row[4] == pytest.approx(sum(part[4] for part in parts))
    bybit = Bybit.open(listed(), source, ts_start=NOW)
    bybit.advance(NOW + MINUTE)
    near = told[int(source.ts_tape + HOUR) // MINUTE * MINUTE]
    assert float(bybit.exchange.markets[BTC].last) == pytest.approx(near[3], rel=2e-3)


def test_a_tape_starts_where_it_is_told_to(tape):
    at = TAPE + 5 * HOUR + 123 * SECOND
    source = replayed(tape, grain="trades", ts_tape=at)
    first = next(move for move in source.advance(NOW + MINUTE) if isinstance(move, Flow) and move.ts >= NOW)
    trades = tape.read("trade", MADE).filter(pl.col("ts_event") >= at)
    spot = tape.read("trade", MADE_SPOT).filter(pl.col("ts_event") >= at)
    assert first.ts - NOW == min(trades["ts_event"][0], spot["ts_event"][0]) - at


def test_when_the_tape_ends_the_market_holds_its_last_quotes(tape):
    source = replayed(tape, grain="trades", ts_tape=TAPE + 4 * DAY - 2 * MINUTE)
    bybit = Bybit.open(listed(), source, ts_start=NOW)
    assert not source.ended
    bybit.advance(NOW + 2 * MINUTE)
    assert source.ended
    market = bybit.exchange.markets[BTC]
    bybit.advance(NOW + 3 * MINUTE)  # what was taken last is back
    quotes, last = market.book.levels(Side.BUY, 300), market.last
    bybit.advance(NOW + 10 * MINUTE)
    assert (market.book.levels(Side.BUY, 300), market.last) == (quotes, last)
    assert len(quotes) >= 200


def depth(rows, *, start=TAPE):
    """Rows of (ms, snapshot, side, price, size)."""
    return pl.DataFrame(
        {
            "ts_event": [start + ms * MILLISECOND for ms, *_ in rows],
            "snapshot": [snapshot for _, snapshot, *_ in rows],
            "first_id": [None] * len(rows),
            "last_id": [None] * len(rows),
            "prev_id": [None] * len(rows),
            "seq": [None] * len(rows),
            "side": [side for _, _, side, *_ in rows],
            "price": [price for *_, price, _ in rows],
            "size": [size for *_, size in rows],
            "ts_recv": [None] * len(rows),
        },
        schema_overrides={
            "side": pl.Int8,
            **dict.fromkeys(("first_id", "last_id", "prev_id", "seq", "ts_recv"), pl.Int64),
        },
    )


BOOK = [
    (0, True, 1, 60_000.0, 1.0),
    (0, True, 1, 59_999.5, 2.0),
    (0, True, -1, 60_000.1, 1.5),
    (0, True, -1, 60_001.0, 2.5),
    (1_000, False, 1, 60_000.0, 0.4),
    (1_000, False, -1, 60_000.5, 0.7),
    (61_000, False, -1, 60_000.1, 0.0),
    (61_000, False, 1, 60_000.2, 0.3),
    (62_000, True, 1, 59_990.0, 3.0),
    (62_000, True, -1, 59_991.0, 4.0),
    (70_000, False, 1, 59_990.0, 2.0),
]


@pytest.fixture
def recording(tmp_path):
    catalog = Catalog(tmp_path)
    prints = pl.DataFrame(
        {
            "ts_event": [TAPE + 500 * MILLISECOND, TAPE + 61_500 * MILLISECOND],
            "price": [60_000.0, 60_000.5],
            "size": [0.6, 0.2],
            "side": [-1, 1],
            "trade_id": ["1", "2"],
            "ts_recv": [None, None],
        },
        schema_overrides={"side": pl.Int8, "ts_recv": pl.Int64},
    )
    catalog.commit(batch(("depth", BTC, depth(BOOK)), ("trade", BTC, prints)))
    return catalog


@pytest.mark.parametrize(
    ("second", "bids", "asks"),
    [
        (0.1, [(600_000, 1000), (599_995, 2000)], [(600_001, 1500), (600_010, 2500)]),
        (0.6, [(600_000, 400), (599_995, 2000)], [(600_001, 1500), (600_010, 2500)]),
        (2.0, [(600_000, 400), (599_995, 2000)], [(600_001, 1500), (600_005, 700), (600_010, 2500)]),
        (61.2, [(600_002, 300), (600_000, 400), (599_995, 2000)], [(600_005, 700), (600_010, 2500)]),
        (61.7, [(600_002, 300), (600_000, 400), (599_995, 2000)], [(600_005, 500), (600_010, 2500)]),
        (62.5, [(599_900, 3000)], [(599_910, 4000)]),
        (99.0, [(599_900, 2000)], [(599_910, 4000)]),
    ],
)
def test_recorded_depth_is_the_book_and_recorded_trades_take_from_it(recording, second, bids, asks):
    source = replayed(recording, grain="depth", ts_tape=TAPE)
    bybit = Bybit.open(listed(), source, ts_start=NOW)
    assert source.instruments == (BTC,)
    bybit.advance(NOW + int(second * SECOND))
    book = bybit.exchange.markets[BTC].book
    assert (book.levels(Side.BUY, 9), book.levels(Side.SELL, 9)) == (bids, asks)


def test_recorded_trades_are_heard(recording):
    bybit = Bybit.open(listed(), replayed(recording, grain="depth", ts_tape=TAPE), ts_start=NOW)
    bybit.advance(NOW + 70 * SECOND)
    heard = [(e.side, e.price, e.quantity, e.ts) for e in bybit.exchange.drain() if isinstance(e, Printed)]
    assert heard == [
        (Side.SELL, Decimal("60000.0"), Decimal("0.600"), NOW + 500 * MILLISECOND),
        (Side.BUY, Decimal("60000.5"), Decimal("0.200"), NOW + 61_500 * MILLISECOND),
    ]


def test_a_record_entered_in_the_middle_begins_with_the_book_as_it_stands(recording):
    bybit = Bybit.open(listed(), replayed(recording, grain="depth", ts_tape=TAPE + 60_900 * MILLISECOND), ts_start=NOW)
    book = bybit.exchange.markets[BTC].book
    assert book.levels(Side.BUY, 9) == [(600_000, 400), (599_995, 2000)]
    assert book.levels(Side.SELL, 9) == [(600_001, 1500), (600_005, 700), (600_010, 2500)]


def test_without_an_index_the_market_is_its_own(recording):
    bybit = Bybit.open(listed(), replayed(recording, grain="depth", ts_tape=TAPE), ts_start=NOW)
    bybit.advance(NOW + 63 * SECOND)
    assert bybit.exchange.markets[BTC].pricing.index == Decimal("59990.5")


def test_a_client_meets_the_recorded_book(recording):
    bybit = Bybit.open(listed(), replayed(recording, grain="depth", ts_tape=TAPE), ts_start=NOW)
    bybit.exchange.open_account("1", {"USDT": Decimal(1_000_000)}, NOW)
    bybit.advance(NOW + 2 * SECOND)
    order = NewOrder(
        instrument=BTC, side=Side.BUY, kind=OrderType.LIMIT, quantity=Decimal("0.3"), price=Decimal("60000.4")
    )
    bybit.exchange.create("1", order, NOW + 2 * SECOND)
    fills = [event.execution for event in bybit.exchange.drain() if isinstance(event, Executed)]
    assert [(fill.price, fill.quantity) for fill in fills] == [(Decimal("60000.1"), Decimal("0.3"))]


# --- which of what is recorded ----------------------------------------------------------------------


def catalog_of(path, *series):
    catalog = Catalog(path)
    catalog.commit(batch(*series))
    return catalog


def test_only_what_is_recorded_is_listed(tmp_path):
    source = replayed(catalog_of(tmp_path, ("bar-1m", BTC, bars(3000))))
    assert source.instruments == (BTC,)
    assert set(Bybit.open(listed(), source, ts_start=NOW).exchange.markets) == {BTC}
    assert not source.synthetic


def test_a_moment_of_fine_record_does_not_stand_for_weeks_of_candles(tmp_path):
    month = bars(30 * 1440)
    moment = depth(BOOK, start=TAPE + 90 * DAY)
    source = replayed(catalog_of(tmp_path, ("bar-1m", BTC, month), ("depth", BTC, moment), ("depth", SPOT, moment)))
    assert source.instruments == (BTC,)
    assert "candles" in source.name
    assert len(source.history()[BTC].last) > 28 * 1440


def test_the_finest_that_lasts_is_played(tape):
    assert "trades" in replayed(tape).name
    assert "candles" in replayed(tape, grain="candles").name


def test_candles_of_five_minutes_are_cut_into_minutes(tmp_path):
    source = replayed(catalog_of(tmp_path, ("bar-5m", BTC, bars(3 * 288, step=5 * MINUTE))))
    past = source.history()[BTC]
    told = {row[0]: row[1:] for row in bars(3 * 288, step=5 * MINUTE).iter_rows()}
    shift = NOW - source.ts_tape
    rows = rows_of(past)
    whole = [ts for ts in told if all(ts + shift + at * MINUTE in rows for at in range(5))]
    assert len(whole) > 100
    for ts in whole:
        five = [rows[ts + shift + at * MINUTE] for at in range(5)]
        assert five[0][0] == told[ts][0]
        assert max(row[1] for row in five) == told[ts][1]
        assert min(row[2] for row in five) == told[ts][2]
        assert five[-1][3] == told[ts][3]
        assert sum(row[4] for row in five) == pytest.approx(told[ts][4])
    assert np.allclose(past.last[1:, 0], past.last[:-1, 3])


@pytest.mark.parametrize("seconds", [0, 61, 170, 299])
def test_within_a_candle_the_market_stands_where_its_path_is(tmp_path, seconds):
    rows = bars(3 * 288, step=5 * MINUTE)
    at = rows["ts_event"][288]
    catalog = catalog_of(tmp_path, ("bar-5m", BTC, rows))
    bybit = Bybit.open(listed(), replayed(catalog, ts_tape=at + seconds * SECOND), ts_start=NOW)
    ((low, high),) = (
        rows.filter(pl.col("ts_event").is_between(at - 5 * MINUTE, at))
        .select(pl.col("low").min(), pl.col("high").max())
        .iter_rows()
    )
    market = bybit.exchange.markets[BTC]
    assert low - 1 <= float(market.best(Side.BUY)) < float(market.best(Side.SELL)) <= high + 1
    assert market.mark is not None


def test_before_the_first_print_the_book_stands_where_the_past_ended(tmp_path):
    candles = bars(2 * 1440)
    prints = pl.DataFrame(
        {
            "ts_event": [candles["ts_event"][-1] + HOUR, candles["ts_event"][-1] + 3 * HOUR],
            "ts_recv": pl.Series([None, None], dtype=pl.Int64),
            "price": [100.0, 101.0],
            "size": [1.0, 1.0],
            "side": pl.Series([1, -1], dtype=pl.Int8),
            "trade_id": ["1", "2"],
        }
    )
    catalog = catalog_of(tmp_path, ("bar-1m", BTC, candles), ("trade", BTC, prints))
    source = replayed(catalog, grain="trades", ts_tape=prints["ts_event"][0] + HOUR)
    past = source.history()[BTC].last
    (shown,) = [move for move in source.advance(NOW) if isinstance(move, Shown)]
    assert max(ticks for ticks, _ in shown.bids) == round(past[-1, 3] / 0.1)


def test_a_hole_in_the_past_carries_the_close(tmp_path):
    rows = bars(3000)
    holed = pl.concat([rows[:300], rows[310:]])
    source = replayed(catalog_of(tmp_path, ("bar-1m", BTC, holed)))
    past = rows_of(source.history()[BTC])
    shift = NOW - source.ts_tape
    close = rows["close"][299]
    hole = [past[rows["ts_event"][at] + shift] for at in range(300, 310)]
    assert hole == [(close, close, close, close, 0.0, 0.0)] * 10


@pytest.mark.parametrize(
    ("symbol", "how", "words"),
    [
        ("ETHUSDT", {}, ["no candles, trades or depth of ETHUSDT", "hean data download ETHUSDT"]),
        ("BTCUSDT", {"grain": "depth"}, ["no depth of BTCUSDT", "bar-1m"]),
        ("BTCUSDT", {"venue": "BINANCE"}, ["of BINANCE"]),
        ("BTCUSDT", {"ts_tape": TAPE - DAY}, ["2025-02-28", "another time"]),
        ("BTCUSDT", {"speed": 0.5}, ["speed from 1 on"]),
    ],
    ids=["symbol", "grain", "venue", "time", "speed"],
)
def test_what_cannot_be_played_is_said_with_a_remedy(tape, symbol, how, words):
    with pytest.raises(DataError) as refused:
        replayed(tape, symbol, **how)
    assert all(word in str(refused.value) for word in words), str(refused.value)
