"""Which series of a catalog a run is played on, when, and what is said of what is missing."""

import numpy as np
import polars as pl
import pytest

from hean.backtest.market import load_market
from hean.errors import ConfigError, DataError
from hean.settings import BacktestSettings
from hean.store.catalog import Catalog, ImportBatch, Incoming, Source
from hean.trading_system import build_strategies
from hean.units import DAY, HOUR, MINUTE, parse_time

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
START = parse_time("2025-06-01")


class Shelf:
    """A catalog to be filled series by series: candles every `step` over days counted from the 1st of June."""

    def __init__(self, root):
        self.catalog = Catalog(root)

    def put(self, kind, name, *spans):
        step = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": HOUR}.get(kind.rpartition("-")[2], 8 * HOUR)
        ts = np.concatenate([START + np.arange(int(a * DAY), int(b * DAY), step) for a, b in spans])
        rows = pl.DataFrame({"ts_event": ts})
        if kind == "funding":
            rows = rows.with_columns(rate=pl.lit(1e-4))
        elif kind == "trade":
            extra = {"size": 1.0, "side": 1, "trade_id": "t", "ts_recv": 0}
            rows = rows.with_columns(price=pl.lit(100.0), **{name: pl.lit(value) for name, value in extra.items()})
        else:
            rows = rows.with_columns(pl.lit(100.0).alias(name) for name in ("open", "high", "low", "close", "volume"))
        source = Source(name=f"{kind} {name}", sha256=f"{kind} {name} {spans}", importer="test")
        self.catalog.commit(ImportBatch(source=source, series=(Incoming(kind, name, rows),)))
        return self

    def load(self, use="impulse", **changes):
        tree = {"strategies": [{"use": use}], "symbols": ["BTCUSDT"]} | changes
        settings = BacktestSettings.model_validate(tree)
        return load_market(settings, build_strategies(settings), self.catalog)

    def refused(self, *words, **options):
        with pytest.raises(DataError) as refusal:
            self.load(*words, **options)
        return str(refusal.value)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "catalog")


def played(market):
    """Kinds of the prices a market is played on, and its period in days from the 1st of June."""
    kinds = {name.partition(" ")[0] for name in market.data if name.startswith(("bar", "trade"))}
    return kinds, (market.ts_start - START) / DAY, (market.ts_end - START) / DAY


def notes(market, *words):
    return [note.text for note in market.notes if all(word in note.text for word in words)]


# --- which series -------------------------------------------------------------------------------


def test_the_finest_is_taken_where_it_covers_the_period(shelf):
    shelf.put("bar-1m", PERP, (0, 10)).put("bar-5m", PERP, (0, 30))
    assert played(shelf.load(start="2025-06-02", end="2025-06-09")) == ({"bar-1m"}, 1, 8)


def test_a_coarser_one_is_taken_where_the_finest_has_a_hole(shelf):
    shelf.put("bar-1m", PERP, (0, 3), (6, 10)).put("bar-5m", PERP, (0, 30))
    assert played(shelf.load(start="2025-06-02", end="2025-06-09"))[0] == {"bar-5m"}


def test_a_minute_that_is_missing_is_no_reason(shelf):
    shelf.put("bar-1m", PERP, (0, 3), (3 + 1 / 1440, 10)).put("bar-5m", PERP, (0, 30))
    assert played(shelf.load(start="2025-06-02", end="2025-06-09"))[0] == {"bar-1m"}


def test_without_dates_the_longest_unbroken_record_is_played(shelf):
    shelf.put("bar-1m", PERP, (-900, -899), (0, 10)).put("bar-5m", PERP, (0, 30))
    assert played(shelf.load()) == ({"bar-5m"}, 0, 30)


def test_without_dates_little_is_given_up_for_finer_candles(shelf):
    shelf.put("bar-1m", PERP, (0, 29)).put("bar-5m", PERP, (0, 30))
    assert played(shelf.load()) == ({"bar-1m"}, 0, 29)


def test_without_dates_a_pair_is_played_while_both_legs_are_known(shelf):
    shelf.put("bar-5m", PERP, (0, 30)).put("bar-15m", PERP, (-100, 30)).put("bar-5m", SPOT, (4, 20))
    shelf.put("funding", PERP, (-100, 30))
    assert played(shelf.load("basis-arbitrage")) == ({"bar-5m"}, 4, 20)


def test_from_a_day_on_it_is_played_to_the_next_long_hole(shelf):
    shelf.put("bar-1m", PERP, (0, 5), (9, 12))
    assert played(shelf.load(start="2025-06-03"))[1:] == (2, 5)
    assert played(shelf.load(end="2025-06-12"))[1:] == (9, 11)


def test_candles_of_no_known_length_are_refused(shelf):
    shelf.put("bar-1m", PERP, (0, 1))
    with pytest.raises(ConfigError, match="'7m' is none of 1m"):
        shelf.load(interval="7m")


# --- what is said -------------------------------------------------------------------------------


def test_every_long_hole_in_the_period_is_said(shelf):
    shelf.put("bar-1m", PERP, (0, 3), (3.5, 4), (4 + 1 / 48, 10))
    market = shelf.load(start="2025-06-02", end="2025-06-09")
    assert notes(market, "nothing is recorded") == [
        f"{PERP}: nothing is recorded from 2025-06-04 00:00 to 2025-06-04 12:00; what was held then was carried over"
    ]


def test_many_holes_are_counted(shelf):
    shelf.put("bar-1m", PERP, *((day, day + 0.5) for day in range(30)))
    market = shelf.load(start="2025-06-01", end="2025-06-30")
    assert len(notes(market, "nothing is recorded")) == 10
    assert notes(market, "more such holes") == [f"{PERP}: 19 more such holes, of 228 hours in all"]


def test_what_was_asked_for_and_is_not_recorded_is_said(shelf):
    shelf.put("bar-1m", PERP, (0, 10))
    market = shelf.load(start="2025-05-01", end="2025-06-09")
    assert notes(market, "left out") == [
        "nothing is recorded from 2025-05-01 00:00 to 2025-06-01 00:00: that time is left out"
    ]


@pytest.mark.parametrize(
    ("start", "says"),
    [
        ("2025-06-01", "impulse-BTC wants 9 days before the start; prices are recorded for none of them"),
        ("2025-06-03T03:00", "impulse-BTC wants 9 days before the start; prices are recorded for 2.1 of them"),
        ("2025-06-10", ""),
    ],
)
def test_too_little_history_is_said(shelf, start, says):
    shelf.put("bar-1m", PERP, (0, 20))
    assert "".join(notes(shelf.load(start=start), "before the start")) == says


def test_nobody_is_warmed_up_across_a_long_hole(shelf):
    shelf.put("bar-1m", PERP, (0, 5), (8, 20))
    market = shelf.load(start="2025-06-10")
    assert market.tape.first_ts >= START + 8 * DAY
    assert notes(market, "for 1 of them")


def test_a_mark_that_ends_midway_is_not_all_a_position_is_valued_at(shelf):
    shelf.put("bar-1m", PERP, (0, 10)).put("mark-1m", PERP, (0, 5))
    market = shelf.load(start="2025-06-01", end="2025-06-11")
    assert not market.dense_marks
    assert notes(market, "recorded for 50% of the period")


def test_funding_that_ends_midway_is_said(shelf):
    shelf.put("bar-1m", PERP, (0, 10)).put("funding", PERP, (0, 5))
    assert notes(shelf.load(start="2025-06-01", end="2025-06-11"), "funding is recorded from", "none is settled")


# --- what to do ---------------------------------------------------------------------------------


def test_no_catalog(shelf):
    told = shelf.refused()
    assert f"no catalog at {shelf.catalog.root}: import, download or generate data first" in told
    assert "hean data download BTCUSDT --start 2025-01-01 --kind bar-1m" in told


@pytest.mark.parametrize(
    ("use", "changes", "remedy"),
    [
        (
            "funding-harvester",
            {},
            "hean data download BTCUSDT --market spot --start 2025-06-01 --end 2025-06-11 --kind bar-1m",
        ),
        (
            "impulse",
            {"start": "2025-08-01", "end": "2025-08-03", "interval": "5m"},
            "hean data download BTCUSDT --start 2025-08-01 --end 2025-08-03 --kind bar-5m",
        ),
        ("impulse", {"tier": "book"}, "bring in a recording of them: hean data import PATH"),
        ("impulse", {"venue_name": "BINANCE"}, "bring in a recording of them: hean data import PATH"),
        (
            "impulse",
            {"venue_name": "SYNTHETIC", "start": "2025-01-01", "end": "2025-01-08", "tier": "trades"},
            "hean data generate BTCUSDT --start 2025-01-01 --days 7 --trades",
        ),
    ],
    ids=["the other leg", "another period", "no books to download", "another venue", "made up"],
)
def test_the_remedy_is_a_command_that_brings_in_what_is_missing(shelf, use, changes, remedy):
    shelf.put("bar-1m", PERP, (0, 10)).put("funding", PERP, (0, 10))
    told = shelf.refused(use, **changes)
    assert f"{remedy} --catalog {shelf.catalog.root})" in told


def test_funding_that_is_missing_is_downloaded(shelf):
    shelf.put("bar-1m", PERP, (0, 10)).put("bar-1m", SPOT, (0, 10))
    assert "hean data download BTCUSDT --start 2025-06-01 --end 2025-06-11 --kind funding" in shelf.refused(
        "funding-harvester"
    )


def test_what_there_is_of_it_is_said(shelf):
    shelf.put("bar-1m", PERP, (0, 10))
    assert f"of {PERP} it has bar-1m from 2025-06-01 00:00 to 2025-06-10 23:59" in shelf.refused(start="2026-01-01")
    assert f"of {SPOT} it has nothing" in shelf.refused("funding-harvester")
