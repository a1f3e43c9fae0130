"""The recorded data of the markets goes in as its documentation says."""

import re

import polars as pl
import pytest

from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.store.importers import Hints, files_under, import_file
from hean.units import HOUR, MINUTE
from tests.data_dir import data_dir, needs_data

pytestmark = needs_data
BYBIT_LINEAR = Hints(venue="bybit", market=Category.LINEAR)
# What neither its bytes nor its path says of itself must be said for it, and for nothing else.
SILENT = ("csv-iso-offset", "bybit-mt4-kline", "bybit-rest-v5")


def bring(catalog, folder):
    return [
        import_file(catalog, file, BYBIT_LINEAR if file.parent.name in SILENT else Hints())
        for file in files_under([data_dir() / folder])
    ]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("real"))
    return catalog, bring(catalog, "market"), bring(catalog, "raw")


def test_every_file_of_the_data_set_is_recognised_and_enters(everything):
    _, market, raw = everything
    assert len(market) == len(list((data_dir() / "market").glob("*.parquet")))
    for outcome in (*market, *raw):
        assert outcome.refusal is None, str(outcome.refusal)
        assert outcome.format is not None, outcome.file


def test_each_file_has_the_rows_its_documentation_states(everything):
    _, market, _ = everything
    stated = re.findall(
        r"^\| `([^`]+\.parquet)` \| ([\d,]+) \|", (data_dir() / "market" / "README.md").read_text(), re.MULTILINE
    )
    assert len(stated) > 80
    rows = {outcome.file.rsplit("/", 1)[1]: outcome.committed.rows for outcome in market}
    assert rows == {name: int(count.replace(",", "")) for name, count in stated}


def test_the_raw_originals_agree_with_the_uniform_files(everything):
    _, _, raw = everything
    there = {outcome.file.rsplit("/raw/", 1)[1] for outcome in raw if outcome.already_there}
    assert there >= {
        "bybit-public-trading/BTCUSD2019-10-01.csv.gz",
        "bybit-ob500/xrpusdt-ob500.data.zip",
        "binance-ws/spot_ethusdt_20240808.gz",
        "binance-vision/futures-APEUSDT-aggTrades-2024-10-18.zip",
        "csv-iso-offset/BTCUSDT_1m.csv",
        "freqtrade/bybit/BTC_USDT-5m.feather",
        "freqtrade/bybit/futures/BTC_USDT_USDT-8h-funding_rate.feather",
        "lean/crypto/bybit/minute/btcusdt/20221213_trade.zip",
        "lean/cryptofuture/bybit/minute/btcusdt/20221213_trade.zip",
        "lean/cryptofuture/bybit/minute/btcusdt/20221213_quote.zip",
        "lean/cryptofuture/bybit/margin_interest/btcusdt.csv",
    }


def test_a_second_import_adds_nothing(everything):
    catalog, _, _ = everything
    before = (catalog.root / "manifest.json").read_bytes()
    assert all(outcome.already_there for folder in ("market", "raw") for outcome in bring(catalog, folder))
    assert (catalog.root / "manifest.json").read_bytes() == before


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    catalog = Catalog(tmp_path_factory.mktemp("raw"))
    outcomes = bring(catalog, "raw")
    assert not [outcome.refusal for outcome in outcomes if outcome.refusal]
    return catalog


@pytest.mark.parametrize(
    ("kind", "instrument", "rows"),
    [
        ("trade", "BTCUSD-INVERSE.BYBIT", 93_598),
        ("trade", "APEUSDT-LINEAR.BINANCE", 45_342),
        ("depth", "XRPUSDT-LINEAR.BYBIT", 3_966),
        ("depth", "BTCUSDT-LINEAR.BYBIT", 7_180),
        ("ticker", "ETHUSDT-LINEAR.BYBIT", 216),
        ("trade", "SOLUSDT-LINEAR.BYBIT", 165),
        ("bar-1h", "BTCUSDT-LINEAR.BINANCE", 24),
        ("bar-1h", "BTCUSDT-SPOT.BINANCE", 24),
        ("quote-bar-1m", "BTCUSDT-LINEAR.BYBIT", 460),
    ],
)
def test_raw_files_alone_give_the_same_counts(raw, kind, instrument, rows):
    assert raw.find(kind, instrument).rows == rows


def test_the_raw_trade_archive_keeps_microseconds_and_ids(raw):
    rows = raw.read("trade", "BTCUSD-INVERSE.BYBIT")
    assert rows["ts_event"][-1] == 1569974396557895000
    assert rows["trade_id"].n_unique() == 93_598
    assert rows["ts_event"].is_sorted()


def test_the_metatrader_month_begins_three_hours_early(raw):
    first = raw.read("bar-1m", "BTCUSDT-LINEAR.BYBIT", start=1_672_500_000 * 10**9, end=1_672_600_000 * 10**9)[
        "ts_event"
    ][0]
    assert first == 1_672_520_400 * 10**9


def test_the_recorded_rules_are_in_force_from_their_day_on(raw):
    day = 1_786_310_818 * 10**9
    instrument, origin = raw.rules("BTCUSDT-LINEAR.BYBIT", day)
    assert str(instrument.tick) == "0.1"
    assert not origin.later
    assert raw.rules("0GUSDT-LINEAR.BYBIT", day)[0].funding_interval_h in {1, 4, 8}
    assert raw.rules("0GUSDT-LINEAR.BYBIT", day - 400 * 24 * HOUR)[1].later


def test_the_real_crash_is_believed(everything):
    catalog, _, _ = everything
    start = 1_722_816_000 * 10**9
    crash = catalog.read("bar-1m", "BTCUSDT-SPOT.BINANCE", start=start, end=start + 24 * HOUR)
    assert crash["low"].min() == 49_000.0


def test_the_holes_that_are_documented_are_reported(everything):
    catalog, _, _ = everything
    gaps = catalog.find("quote-bar-1m", "BTCUSD-INVERSE.BYBIT").gaps
    assert (gaps.holes, gaps.missing) == (114, 257)
    wif = catalog.find("funding", "WIFUSDT-LINEAR.BYBIT")
    assert wif.gaps.holes == 0  # though its interval went from 8 h to 4 h


def test_one_minute_bars_add_up_to_five(everything):
    catalog, _, _ = everything
    start, end = 1_748_563_200 * 10**9, 1_751_155_200 * 10**9
    minutes = catalog.read("bar-1m", "ETHUSDT-LINEAR.BYBIT", start=start, end=end)
    summed = minutes.group_by(pl.col("ts_event") // (5 * MINUTE) * (5 * MINUTE), maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()
    )
    fives = catalog.read("bar-5m", "ETHUSDT-LINEAR.BYBIT", start=start, end=end)
    assert summed.equals(fives.drop("volume"))


def test_a_testnets_price_is_refused_beside_the_real_one(everything, tmp_path):
    catalog, _, _ = everything
    real = catalog.read("bar-5m", "BTCUSDT-LINEAR.BYBIT").head(2_000)
    lines = ["timestamp,open,high,low,close,volume"]
    lines += [
        f"{row['ts_event'] // 10**9},{','.join(str(row[n] * 0.5) for n in ('open', 'high', 'low', 'close'))},1"
        for row in real.iter_rows(named=True)
    ]
    path = tmp_path / "BTCUSDT_3m.csv"
    path.write_text("\n".join(lines))
    outcome = import_file(catalog, path, Hints(venue="bybit", market=Category.SPOT))
    assert "a testnet?" in str(outcome.refusal)
