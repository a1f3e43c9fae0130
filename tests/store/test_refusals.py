"""What cannot be true does not enter the catalog; the refusal names file, row and remedy."""

import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.store.importers import Hints, files_under, import_file, read
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.reference import must_be_plausible
from hean.store.importers.times import from_decimal_seconds, from_epoch
from hean.units import DAY, HOUR, MINUTE
from tests.store.making import PERP, SPOT, T0, bars, batch, candle_lines, trades, write_csv

FOUND = Found(Path("by-hand.csv"))
HINTS = Hints(venue="bybit", market=Category.LINEAR)


def check(kind, rows, *, hints=None):
    found = Found(Path("by-hand.csv"), hints)
    return incoming(found, kind, PERP, rows.with_row_index("row", offset=2))


def spoil(rows, at, **values):
    return (
        rows.with_row_index("i")
        .with_columns(
            pl.when(pl.col("i") == at).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
            for name, value in values.items()
        )
        .drop("i")
    )


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        ({"high": 50_000.0}, "outside of low .. high"),
        ({"low": 150_000.0}, "outside of low .. high"),
        ({"open": 150_000.0}, "outside of low .. high"),
        ({"close": 50_000.0}, "outside of low .. high"),
        ({"low": 0.0}, "has low 0.0, which is not above zero"),
        ({"low": -5.0}, "has low -5.0, which is not above zero"),
        ({"close": math.nan}, "has close nan, which is missing or not finite"),
        ({"high": math.inf}, "has high inf, which is missing or not finite"),
        ({"volume": None}, "has volume None, which is missing or not finite"),
        ({"volume": -1.0}, "negative volume"),
        ({"ts_event": T0 + 5 * MINUTE + 1}, "off the grid of 1m"),
        ({"ts_event": T0 + 4 * MINUTE}, "stands there twice"),
        ({"ts_event": T0 + 3 * MINUTE}, "not in the order of time"),
        ({"ts_event": 5}, "outside 2010 .. 2100"),
        ({"ts_event": None}, "outside 2010 .. 2100"),
    ],
)
def test_an_impossible_bar_is_refused_by_its_row(spoiled, why):
    with pytest.raises(DataError, match=why) as refused:
        check("bar-1m", spoil(bars(20), 5, **spoiled))
    assert refused.value.file == "by-hand.csv"
    assert refused.value.row == 7


@pytest.mark.parametrize(
    ("spoiled", "why"),
    [
        ({"price": 0.0}, "has price 0.0, which is not above zero"),
        ({"size": 0.0}, "has size 0.0, which is not above zero"),
        ({"price": math.nan}, "not finite"),
        ({"side": 0}, "neither side"),
        ({"side": None}, "neither side"),
        ({"ts_event": T0 - MINUTE}, "not in the order of time"),
    ],
)
def test_an_impossible_trade_is_refused_by_its_row(spoiled, why):
    with pytest.raises(DataError, match=why) as refused:
        check("trade", spoil(trades(20), 5, **spoiled))
    assert refused.value.row == 7


def test_funding_in_per_cent_is_refused():
    with pytest.raises(DataError, match="rates are fractions"):
        check("funding", pl.DataFrame({"ts_event": [T0], "rate": [0.6789]}))


def test_funding_off_the_hour_is_refused():
    with pytest.raises(DataError, match="off the grid of 1h"):
        check("funding", pl.DataFrame({"ts_event": [T0 + MINUTE], "rate": [0.0001]}))


def test_a_premium_may_be_negative_and_a_mark_may_not():
    below = bars(10).drop("volume").with_columns(pl.col("open", "high", "low", "close") - 200_000)
    assert check("premium-1m", below).rows.height == 10
    with pytest.raises(DataError, match="not above zero"):
        check("mark-1m", below)


def test_a_quote_that_crosses_itself_is_refused():
    quote = {"ts_event": [T0], "bid": [101.0], "bid_size": [1.0], "ask": [100.0], "ask_size": [1.0]}
    rows = pl.DataFrame(quote).with_columns(pl.lit(None, dtype=pl.Int64).alias(n) for n in ("update_id", "ts_recv"))
    with pytest.raises(DataError, match="bids more than is asked"):
        check("quote", rows)


def wild(count, minute_range):
    half = minute_range / 2
    return (
        bars(count)
        .with_columns(pl.col("close") * (1 + half), pl.col("open") * (1 - half))
        .with_columns(pl.max_horizontal("open", "close").alias("high"), pl.min_horizontal("open", "close").alias("low"))
    )


def test_minutes_as_wild_as_a_testnets_are_refused():
    # BTCUSDT on the testnet: minute ranges of 1,000 at 58,000.
    with pytest.raises(DataError, match="is this a testnet"):
        check("bar-1m", wild(500, 1_000 / 58_000))


def test_minutes_as_wild_as_the_worst_hour_of_a_crash_pass():
    # 2024-08-05 on ETH: the median range of its worst hour was 1.07 %.
    assert check("bar-1m", wild(60, 0.0107)).rows.height == 60


def test_candles_paged_wrongly_are_refused_unless_gaps_are_allowed():
    # 200 minutes there, 13 hours missing, again and again.
    whole = bars(5 * 980)
    paged = whole.filter(pl.int_range(pl.len()) % 980 < 200)
    with pytest.raises(DataError, match=r"bars are missing, in 4 holes: paged wrongly"):
        check("bar-1m", paged)
    assert check("bar-1m", paged, hints=Hints(allow_gaps=True)).rows.height == 1000


def test_fewer_holes_are_let_in_and_reported(tmp_path):
    lines = candle_lines(100)
    path = write_csv(tmp_path / "BTCUSDT_1m.csv", lines[:30] + lines[50:])
    catalog = Catalog(tmp_path / "catalog")
    assert import_file(catalog, path, HINTS).committed.rows == 80
    assert catalog.find("bar-1m", PERP).gaps.missing == 20


def plausible(catalog, *series):
    must_be_plausible(catalog, batch(*series), file="by-hand.csv")


@pytest.fixture
def catalog(tmp_path):
    known = Catalog(tmp_path / "catalog")
    known.commit(batch(("mark-1h", PERP, bars(48, step=HOUR).drop("volume"))))
    return known


@pytest.mark.parametrize("off", [0.93, 1.07, 0.58, 10.0, 1e-3])
def test_a_price_level_far_from_the_mark_is_refused(catalog, off):
    rows = bars(24 * 60, price=100_000.0 * off)
    with pytest.raises(DataError, match=r"stands .* from mark-1h of BTCUSDT-LINEAR.BYBIT in the median"):
        plausible(catalog, ("bar-1m", PERP, rows))


def test_a_level_a_little_off_passes(catalog):
    plausible(catalog, ("bar-1m", PERP, bars(24 * 60, price=98_000.0)))


def test_other_markets_and_venues_of_the_pair_are_compared(catalog):
    for instrument in (SPOT, "BTCUSDC-LINEAR.BYBIT", "BTCUSD-INVERSE.BYBIT", "BTCUSDT-SPOT.BINANCE"):
        with pytest.raises(DataError, match="median"):
            plausible(catalog, ("bar-1m", instrument, bars(24 * 60, price=58_000.0)))
        with pytest.raises(DataError, match="median"):
            plausible(catalog, ("trade", instrument, minutely(58_000.0)))
    plausible(catalog, ("bar-1m", "ETHUSDT-LINEAR.BYBIT", bars(24 * 60, price=2_500.0)))


def minutely(price):
    return pl.concat([trades(2, start=T0 + i * MINUTE, price=price) for i in range(24 * 60)])


def test_one_bar_that_breaks_away_is_refused(catalog):
    rows = spoil(bars(24 * 60), 599, close=140_000.0, high=140_000.0)
    with pytest.raises(DataError, match=r"closes at 140000.0 at 2025-06-01T10:00:00Z"):
        plausible(catalog, ("bar-1m", PERP, rows))


def test_series_of_one_file_are_compared_with_each_other(tmp_path):
    empty = Catalog(tmp_path / "empty")
    with pytest.raises(DataError, match="in the same file"):
        plausible(empty, ("bar-1m", PERP, bars(100)), ("bar-1m", SPOT, bars(100, price=58_000.0)))


def test_without_anything_to_compare_a_level_passes(catalog):
    plausible(catalog, ("bar-1m", PERP, bars(100, start=T0 + 30 * DAY, price=58_000.0)))


def test_bars_are_compared_at_their_closes_whatever_their_length(catalog):
    # Within an hour the price doubles: the 5-minute bars agree with the hour only where both end.
    rising = bars(48, step=HOUR).with_columns(
        pl.Series("close", [100_000.0 * 1.2 ** (i + 1) for i in range(48)]),
        pl.Series("open", [100_000.0 * 1.2**i for i in range(48)]),
    )
    hours = rising.with_columns(pl.col("close").alias("high"), pl.col("open").alias("low"))
    other = Catalog(catalog.root.parent / "rising")
    other.commit(batch(("bar-1h", SPOT, hours)))
    steps = [100_000.0 * 1.2 ** (i / 12) for i in range(48 * 12 + 1)]
    fives = pl.DataFrame(
        {
            "ts_event": [T0 + i * 5 * MINUTE for i in range(48 * 12)],
            "open": steps[:-1],
            "high": steps[1:],
            "low": steps[:-1],
            "close": steps[1:],
            "volume": [1.0] * (48 * 12),
        }
    )
    plausible(other, ("bar-5m", PERP, fives))


def test_made_up_series_are_no_reference(tmp_path):
    made_up = Catalog(tmp_path / "made-up")
    made_up.commit(batch(("bar-1m", "BTCUSDT-LINEAR.SYNTHETIC", bars(100)), synthetic=True))
    plausible(made_up, ("bar-1m", PERP, bars(100, price=58_000.0)))


def test_one_bad_file_does_not_stop_the_others(tmp_path):
    write_csv(tmp_path / "in" / "BTCUSDT_1m.csv", candle_lines(10))
    write_csv(tmp_path / "in" / "ETHUSDT_1m.csv", [*candle_lines(10), "1,2,3"])
    write_csv(tmp_path / "in" / "SOLUSDT_1m.csv", [*candle_lines(10)[:5], "x,1,1,1,1,1", *candle_lines(10)[6:]])
    (tmp_path / "in" / "README.md").write_text("about")
    (tmp_path / "in" / "SHA256SUMS").write_text("about")
    (tmp_path / "in" / "notes.txt").write_text("else")
    known = Catalog(tmp_path / "catalog")
    told = {Path(o.file).name: o for o in (import_file(known, file, HINTS) for file in files_under([tmp_path / "in"]))}
    assert set(told) == {"BTCUSDT_1m.csv", "ETHUSDT_1m.csv", "SOLUSDT_1m.csv", "notes.txt"}
    assert told["BTCUSDT_1m.csv"].committed.rows == 10
    assert told["ETHUSDT_1m.csv"].refusal.row == 12
    assert told["SOLUSDT_1m.csv"].refusal.row == 7
    assert told["notes.txt"].format is None
    assert [one.instrument for one in known.series()] == [PERP]


def test_a_number_that_is_none_is_quoted(tmp_path):
    lines = candle_lines(3)
    lines[1] = lines[1].replace("100002.0", "1O0002")
    with pytest.raises(DataError, match=r"row 3: high is '1O0002', not a number"):
        read(write_csv(tmp_path / "BTCUSDT_1m.csv", lines), HINTS)


@given(st.integers(1_262_304_000, 4_102_444_799), st.sampled_from([1, 10**3, 10**6, 10**9]), st.integers(0, 10**9 - 1))
def test_every_time_of_the_century_is_read_in_its_unit(seconds, scale, rest):
    told = seconds * scale + rest % scale
    read_back = from_epoch(FOUND, pl.DataFrame({"row": [1], "t": [str(told)]}), "t")["ts_event"][0]
    assert read_back == told * (10**9 // scale)


@given(st.integers(1_262_304_000, 4_102_444_799), st.integers(0, 10**6 - 1))
def test_microseconds_behind_the_point_are_exact(seconds, micros):
    text = f"{seconds}.{micros:06d}".rstrip("0").rstrip(".")
    read_back = from_decimal_seconds(FOUND, pl.DataFrame({"row": [1], "t": [text]}), "t")["ts_event"][0]
    assert read_back == seconds * 10**9 + micros * 1_000
