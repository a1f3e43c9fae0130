"""A made-up market is the same for the same seed, and hangs together."""

import numpy as np
import polars as pl
import pytest

from hean.errors import DataError
from hean.store.catalog import Catalog
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found, Hints
from hean.store.synthetic import SyntheticMarket, funding_of, generate
from hean.units import DAY, HOUR, MINUTE
from tests.store.making import T0

PERP, SPOT = "BTCUSDT-LINEAR.SYNTHETIC", "BTCUSDT-SPOT.SYNTHETIC"
MARKET = SyntheticMarket(symbols=("BTCUSDT", "WIFUSDT"), start=T0, days=20, seed=7, interval="5m", trades=True)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    made = Catalog(tmp_path_factory.mktemp("made"))
    for batch in generate(MARKET):
        made.commit(batch)
    return made


def test_the_same_seed_makes_the_same_bytes(catalog, tmp_path):
    again = Catalog(tmp_path)
    for batch in generate(MARKET):
        again.commit(batch)
    files = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == {p.relative_to(catalog.root): p.read_bytes() for p in catalog.root.rglob("*") if p.is_file()}


def test_another_seed_makes_another_market(catalog):
    other = next(iter(generate(SyntheticMarket(symbols=("BTCUSDT",), start=T0, days=2, seed=8, interval="5m"))))
    assert not other.series[0].rows["close"].equals(catalog.read("bar-5m", PERP)["close"][:576])


def test_leaving_out_a_symbol_changes_no_other():
    alone = SyntheticMarket(symbols=("WIFUSDT",), start=T0, days=20, seed=7, interval="5m", trades=True)
    (one,) = generate(alone)
    both = list(generate(MARKET))[1]
    assert all(a.rows.equals(b.rows) for a, b in zip(one.series, both.series, strict=True))


def test_everything_is_marked_as_made_up(catalog):
    assert {series.synthetic for series in catalog.series()} == {True}
    assert {series.instrument.rsplit(".", 1)[1] for series in catalog.series()} == {"SYNTHETIC"}
    assert {series.kind for series in catalog.series() if series.instrument == PERP} == {
        "bar-5m", "mark-5m", "index-5m", "premium-5m", "funding", "trade",
    }  # fmt: skip


def test_made_up_series_pass_every_check_that_real_ones_do(catalog):
    for series in catalog.series():
        rows = catalog.read(series.kind, series.instrument).with_row_index("row")
        incoming(Found(catalog.root, Hints()), series.kind, series.instrument, rows)
        assert series.gaps.holes == 0


def test_prices_stand_on_the_tick(catalog):
    for instrument in (PERP, SPOT, "WIFUSDT-LINEAR.SYNTHETIC"):
        tick = float(catalog.rules(instrument, T0)[0].tick)
        closes = catalog.read("bar-5m", instrument)["close"].to_numpy()
        assert np.allclose(closes / tick, np.round(closes / tick), atol=1e-6, rtol=0)


def test_a_bar_opens_where_the_last_one_closed(catalog):
    rows = catalog.read("bar-5m", PERP)
    assert rows["open"][1:].equals(rows["close"][:-1].rename("open"))


def test_trades_add_up_to_their_bars(catalog):
    bar = pl.col("ts_event") // (5 * MINUTE) * (5 * MINUTE)
    summed = (
        catalog.read("trade", PERP)
        .group_by(bar, maintain_order=True)
        .agg(
            pl.col("price").first().alias("open"),
            pl.col("price").max().alias("high"),
            pl.col("price").min().alias("low"),
            pl.col("price").last().alias("close"),
            pl.col("size").sum().round(9).alias("volume"),
        )
    )
    assert summed.equals(catalog.read("bar-5m", PERP))


def test_perp_spot_mark_and_index_stay_together(catalog):
    index = catalog.read("index-5m", PERP)["close"].to_numpy()
    for kind, instrument in (("bar-5m", PERP), ("bar-5m", SPOT), ("mark-5m", PERP)):
        off = catalog.read(kind, instrument)["close"].to_numpy() / index - 1
        assert 0 < np.abs(off).max() < 0.01


def test_volatility_and_basis_change_with_the_regime(catalog):
    rows = catalog.read("bar-5m", PERP)
    daily = rows.group_by(pl.col("ts_event") // DAY).agg((pl.col("close").log().diff().std()).alias("s"))["s"]
    assert daily.max() > 2 * daily.min()
    premium = catalog.read("premium-5m", PERP)["close"]
    assert premium.min() < 0 < premium.max()


def test_funding_is_bybits_formula_of_the_premium(catalog):
    premium = catalog.read("premium-5m", PERP).with_columns(settled=(pl.col("ts_event") // (8 * HOUR) + 1) * 8 * HOUR)
    for settled, rate in catalog.read("funding", PERP).rows():
        samples = premium.filter(pl.col("settled") == settled)["close"].to_list()
        weights = range(1, len(samples) + 1)
        average = sum(w * p for w, p in zip(weights, samples, strict=True)) / sum(weights)
        expected = average + min(max(1e-4 - average, -5e-4), 5e-4)
        assert rate == pytest.approx(max(min(expected, 0.005), -0.005), abs=1e-8)


@pytest.mark.parametrize(
    ("premium", "hours", "rate"),
    [(0.0, 8, 1e-4), (3e-4, 8, 1e-4), (1e-3, 8, 5e-4), (-1e-3, 8, -5e-4), (0.5, 8, 0.005), (0.0, 4, 5e-5)],
    ids=["interest alone", "inside the clamp", "above", "below", "capped", "four hours"],
)
def test_funding_by_hand(catalog, premium, hours, rate):
    from msgspec.structs import replace

    perp = replace(catalog.rules(PERP, T0)[0], funding_interval_h=hours)
    stamps = T0 + np.arange(480, dtype=np.int64) * MINUTE
    settled = funding_of(stamps, np.full(480, premium), perp, step=MINUTE)
    assert settled.rows() == [(T0 + (i + 1) * hours * HOUR, pytest.approx(rate)) for i in range(8 // hours)]


def test_wif_pays_funding_every_four_hours(catalog):
    stamps = catalog.read("funding", "WIFUSDT-LINEAR.SYNTHETIC")["ts_event"]
    assert set(stamps.diff().drop_nulls().to_list()) == {4 * HOUR}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"symbols": ("NOSUCHUSDT",)}, "no rules came with HEAN"),
        ({"interval": "7m"}, "cannot make bars of 7m"),
        ({"start": T0 + 1}, "midnight"),
        ({"days": 0}, "a day or more"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, why):
    told = {"symbols": ("BTCUSDT",), "start": T0, "days": 1, "seed": 1, **changed}
    with pytest.raises(DataError, match=why):
        list(generate(SyntheticMarket(**told)))
