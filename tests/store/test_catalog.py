"""The catalog keeps what it was given, once, and nothing half."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog, ImportBatch, Source
from hean.store.kinds import kind
from hean.store.merge import gaps_of
from hean.store.rules import DatedRules, from_bybit, read_from_bybit, shipped
from hean.units import DAY, HOUR, MINUTE
from tests.data_dir import ROOT
from tests.store.making import PERP, SPOT, T0, bars, batch, trades


@pytest.fixture
def catalog(tmp_path):
    return Catalog(tmp_path / "catalog")


def files(catalog):
    return {str(p.relative_to(catalog.root)): p.read_bytes() for p in sorted(catalog.root.rglob("*")) if p.is_file()}


def test_an_empty_directory_is_an_empty_catalog(catalog):
    assert catalog.series() == []
    assert catalog.find("bar-1m", PERP) is None


def test_what_was_committed_is_read_back(catalog):
    rows = bars(100)
    committed = catalog.commit(batch(("bar-1m", PERP, rows)))
    assert committed.added == {("bar-1m", PERP): 100}
    assert_frame_equal(catalog.read("bar-1m", PERP), rows)


def test_a_window_includes_its_start_and_excludes_its_end(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(100))))
    read = catalog.read("bar-1m", PERP, start=T0 + 10 * MINUTE, end=T0 + 20 * MINUTE)
    assert read["ts_event"].to_list() == [T0 + i * MINUTE for i in range(10, 20)]


def test_bars_are_cut_by_month_and_ticks_by_day(catalog):
    two_days = pl.concat([trades(4), trades(4, start=T0 + DAY)])
    catalog.commit(batch(("bar-1h", PERP, bars(31 * 24, step=HOUR)), ("trade", PERP, two_days)))
    assert [p.period for p in catalog.find("bar-1h", PERP).partitions] == ["2025-06", "2025-07"]
    assert [p.period for p in catalog.find("trade", PERP).partitions] == ["2025-06-01", "2025-06-02"]


def test_committing_the_same_again_changes_not_one_byte(catalog):
    said = batch(("bar-1m", PERP, bars(100)), ("trade", PERP, trades(50)))
    catalog.commit(said)
    before = files(catalog)
    again = catalog.commit(said)
    assert again.rows == 0
    assert files(catalog) == before


def test_overlapping_parts_join_into_one_series(catalog):
    whole = bars(300)
    catalog.commit(batch(("bar-1m", PERP, whole[:200]), name="one"))
    committed = catalog.commit(batch(("bar-1m", PERP, whole[100:]), name="two"))
    assert committed.rows == 100
    assert_frame_equal(catalog.read("bar-1m", PERP), whole)
    assert [source.name for source in catalog.find("bar-1m", PERP).sources] == ["one", "two"]


def test_a_contradiction_is_refused_by_its_first_stamp(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(100))))
    before = files(catalog)
    other = bars(100).with_columns(
        pl.when(pl.col("ts_event") >= T0 + 42 * MINUTE).then(7.5).otherwise(pl.col("volume")).alias("volume")
    )
    with pytest.raises(DataError, match=r"2025-06-01T00:42:00Z.*volume is 7.5 here"):
        catalog.commit(batch(("bar-1m", PERP, other)))
    after = files(catalog)
    assert {name: after[name] for name in before} == before


def test_a_batch_enters_wholly_or_not_at_all(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(100))))
    with pytest.raises(DataError):
        catalog.commit(batch(("bar-1m", SPOT, bars(10)), ("bar-1m", PERP, bars(100, price=90_000.0))))
    assert catalog.find("bar-1m", SPOT) is None


def test_a_hole_between_two_parts_is_reported_not_filled(catalog):
    whole = bars(100)
    catalog.commit(batch(("bar-1m", PERP, pl.concat([whole[:40], whole[60:]]))))
    gaps = catalog.find("bar-1m", PERP).gaps
    assert (gaps.holes, gaps.missing) == (1, 20)
    assert gaps.listed[0].from_ts == T0 + 40 * MINUTE
    assert gaps.listed[0].to_ts == T0 + 60 * MINUTE
    assert catalog.read("bar-1m", PERP).height == 80


def test_a_part_that_fills_a_hole_ends_it(catalog):
    whole = bars(100)
    catalog.commit(batch(("bar-1m", PERP, pl.concat([whole[:40], whole[60:]])), name="holed"))
    catalog.commit(batch(("bar-1m", PERP, whole[40:60]), name="filling"))
    assert catalog.find("bar-1m", PERP).gaps.holes == 0
    assert_frame_equal(catalog.read("bar-1m", PERP), whole)


@pytest.mark.parametrize(
    ("hours", "missing"),
    [
        ([0, 8, 16, 24], 0),
        ([0, 8, 16, 20, 24], 0),
        ([0, 4, 8, 16, 24], 0),
        ([0, 8, 24, 32], 1),
        ([0, 4, 12, 16], 1),
        ([0, 8, 48, 56], 4),
    ],
    ids=["regular", "8 h becomes 4 h", "4 h becomes 8 h", "one missing", "one of 4 h missing", "many missing"],
)
def test_a_changed_funding_interval_is_no_hole(hours, missing):
    stamps = pl.Series([T0 + hour * HOUR for hour in hours]).to_numpy()
    assert gaps_of(stamps, kind("funding")).missing == missing


def test_the_same_trades_in_coarser_form_are_already_there(catalog):
    fine = trades(100).with_columns(pl.col("ts_event") + 123_456)
    coarse = trades(100, ids=False)
    catalog.commit(batch(("trade", PERP, fine), name="archive"))
    assert catalog.commit(batch(("trade", PERP, coarse), name="cut to the millisecond")).rows == 0
    assert_frame_equal(catalog.read("trade", PERP), fine.sort("ts_event", maintain_order=True))


def test_trades_that_continue_others_are_added(catalog):
    whole = trades(100)
    catalog.commit(batch(("trade", PERP, whole[:60]), name="one"))
    assert catalog.commit(batch(("trade", PERP, whole[40:]), name="two")).rows == 40
    assert_frame_equal(catalog.read("trade", PERP), whole)


def test_other_trades_of_the_same_time_are_refused(catalog):
    catalog.commit(batch(("trade", PERP, trades(100))))
    with pytest.raises(DataError, match="events differ"):
        catalog.commit(batch(("trade", PERP, trades(100, price=100_001.0))))
    with pytest.raises(DataError, match="99 events here and 100"):
        catalog.commit(batch(("trade", PERP, pl.concat([trades(100)[:50], trades(100)[51:]]))))


def test_depth_keeps_the_order_of_arrival(catalog):
    rows = pl.DataFrame(
        {
            "ts_event": [T0 + 5, T0 + 3, T0 + 9],
            "snapshot": [True, False, False],
            "first_id": None,
            "last_id": [1, 2, 3],
            "prev_id": None,
            "seq": None,
            "side": [1, -1, 1],
            "price": [1.0, 2.0, 1.0],
            "size": [1.0, 1.0, 0.0],
            "ts_recv": None,
        },
        schema=dict(kind("depth").columns),
    )
    catalog.commit(batch(("depth", PERP, rows)))
    assert_frame_equal(catalog.read("depth", PERP), rows)
    assert catalog.commit(batch(("depth", PERP, rows))).rows == 0


def test_what_is_absent_is_named(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(10))))
    with pytest.raises(DataError, match=r"no funding of BTCUSDT-LINEAR.BYBIT: BTCUSDT-LINEAR.BYBIT has bar-1m"):
        catalog.read("funding", PERP)
    with pytest.raises(DataError, match=r"runs from 2025-06-01T00:00:00Z to 2025-06-01T00:09:00Z"):
        catalog.read("bar-1m", PERP, start=T0 + DAY)
    with pytest.raises(DataError, match="no kind of data called 'candles'"):
        catalog.commit(batch(("candles", PERP, bars(10))))


def test_made_up_data_never_mixes_with_real(catalog):
    with pytest.raises(DataError, match="made-up"):
        catalog.commit(batch(("bar-1m", PERP, bars(10)), synthetic=True))
    with pytest.raises(DataError, match="made-up"):
        catalog.commit(batch(("bar-1m", "BTCUSDT-LINEAR.SYNTHETIC", bars(10))))


def test_a_report_can_name_its_data_exactly(catalog):
    whole = bars(100)
    catalog.commit(batch(("bar-1m", PERP, pl.concat([whole[:40], whole[60:]])), name="holed"))
    told = catalog.manifest_of("bar-1m", PERP, start=T0 + 30 * MINUTE, end=T0 + 110 * MINUTE)
    assert told["rows"] == 50
    assert (told["first_ts"], told["last_ts"]) == (T0 + 30 * MINUTE, T0 + 99 * MINUTE)
    assert told["gaps"]["missing"] == 20 + 10
    assert [source["name"] for source in told["sources"]] == ["holed"]
    assert list(told["partitions"].values()) == [catalog.find("bar-1m", PERP).partitions[0].sha256]
    assert told["synthetic"] is False
    msgspec.json.encode(told)


def test_a_damaged_file_is_not_read(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(10))))
    path = catalog.root / catalog.find("bar-1m", PERP).partitions[0].file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="checksum differs"):
        catalog.read("bar-1m", PERP)


def test_a_damaged_manifest_is_said_to_be_damaged(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(10))))
    (catalog.root / "manifest.json").write_text('{"format": 1, "series": [')
    with pytest.raises(DataError, match="manifest cannot be read"):
        catalog.series()


CRASH = """
import os, sys
from pathlib import Path
from hean.store import manifest
from hean.store.catalog import Catalog
from tests.store.making import PERP, SPOT, bars, batch

def die(*_):
    os._exit(9)

{sabotage}
Catalog(Path(sys.argv[1])).commit(batch(("bar-1m", PERP, bars(200)), ("bar-1m", SPOT, bars(50)), name="second"))
"""


@pytest.mark.parametrize(
    "sabotage",
    ["manifest.replace = die", "manifest.sync_directory = die", "Path.replace = die"],
    ids=["before the manifest", "after the first partition", "before the manifest is renamed"],
)
def test_a_crash_half_way_leaves_the_catalog_as_it_was(catalog, sabotage):
    catalog.commit(batch(("bar-1m", PERP, bars(100)), name="first"))
    before = files(catalog)
    crash = [sys.executable, "-c", CRASH.format(sabotage=sabotage), str(catalog.root)]
    died = subprocess.run(crash, cwd=ROOT, check=False, env={"PYTHONPATH": str(ROOT)})
    assert died.returncode == 9

    assert_frame_equal(catalog.read("bar-1m", PERP), bars(100))
    assert catalog.find("bar-1m", SPOT) is None
    assert len(files(catalog)) > len(before)

    catalog.commit(batch(("bar-1m", SPOT, bars(10)), name="third"))
    named = {part.file for series in catalog.series() for part in series.partitions}
    assert {name for name in files(catalog) if name.endswith(".parquet")} == named


def test_two_writers_do_not_lose_each_others_work(catalog):
    def write(number):
        catalog.commit(batch(("bar-1m", f"C{number}USDT-LINEAR.BYBIT", bars(10)), name=str(number)))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(catalog.series()) == 8


def test_a_reader_survives_a_replacement_under_its_feet(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(10)), name="one"))
    old = catalog.find("bar-1m", PERP).partitions[0].file
    manifest, newer = catalog.root / "manifest.json", catalog.root.parent / "newer.json"
    outdated = manifest.read_bytes()
    catalog.commit(batch(("bar-1m", PERP, bars(20)), name="two"))
    catalog.commit(batch(("bar-1m", SPOT, bars(10)), name="three"))
    assert not (catalog.root / old).exists()

    # A pipe in the manifest's place: whoever opened it before the replacement reads the outdated one from it.
    manifest.rename(newer)
    os.mkfifo(manifest)
    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(catalog.read, "bar-1m", PERP)
        with manifest.open("wb") as pipe:
            newer.replace(manifest)
            pipe.write(outdated)
        assert reading.result().height == 20


def test_a_file_that_is_gone_is_named_to_reader_and_writer(catalog):
    catalog.commit(batch(("bar-1m", PERP, bars(10))))
    lost = catalog.root / catalog.find("bar-1m", PERP).partitions[0].file
    lost.unlink()
    said = f"{lost}: the manifest names this file, and it is gone .restore it"
    with pytest.raises(DataError, match=said):
        catalog.read("bar-1m", PERP)
    with pytest.raises(DataError, match=said):
        catalog.commit(batch(("bar-1m", PERP, bars(20)), name="more"))


STRANGERS = [
    "notebook/data.parquet",
    "package.json",
    "src/rules/rules.json",
    "rules/rules.json",
    "rules/mine.0123456789ab.json",
    "bar-1m/BTCUSDT-LINEAR.BYBIT/2025-06.parquet",
    "bar-1m/BTCUSDT-LINEAR.BYBIT/mine.0123456789ab.parquet",
    "bar-1m/BTCUSDT-LINEAR.BYBIT/old/2025-06.0123456789ab.parquet",
    "bar-1m/BTCUSDT/2025-06.0123456789ab.parquet",
    "bar-7m/BTCUSDT-LINEAR.BYBIT/2025-06.0123456789ab.parquet",
]


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    return path


@pytest.mark.parametrize("name", STRANGERS)
def test_no_catalog_begins_among_somebodys_files(catalog, name):
    stranger = put(catalog.root / name)
    with pytest.raises(DataError, match=r"is no catalog, and holds other files, such as .*--catalog"):
        catalog.commit(batch(("bar-1m", PERP, bars(10))))
    assert files(catalog) == {name: b"precious"}
    assert stranger.read_text() == "precious"


@pytest.mark.parametrize("name", STRANGERS)
def test_somebodys_files_survive_beside_a_catalog(catalog, name):
    catalog.commit(batch(("bar-1m", PERP, bars(10)), name="one"))
    stranger = put(catalog.root / name)
    catalog.commit(batch(("bar-1m", PERP, bars(20)), name="two"))
    catalog.commit(batch(("bar-1m", PERP, bars(30)), name="three"))
    assert stranger.read_text() == "precious"


def test_a_catalog_begins_where_a_first_import_died(catalog):
    put(catalog.root / "bar-1m/BTCUSDT-LINEAR.BYBIT/2025-06.0123456789ab.parquet")
    put(catalog.root / "rules/rules.0123456789ab.json")
    put(catalog.root / "manifest.json.new")
    assert not catalog.exists
    catalog.commit(batch(("bar-1m", PERP, bars(10))))
    assert catalog.exists
    assert not (catalog.root / "rules/rules.0123456789ab.json").exists()


def test_a_catalog_is_no_file(catalog):
    put(catalog.root)
    with pytest.raises(DataError, match="must be a directory"):
        catalog.commit(batch(("bar-1m", PERP, bars(10))))


def recorded(ts_from: int, tick: str, instrument: str = PERP) -> DatedRules:
    like = next(rules.instrument for rules in shipped() if rules.instrument.id == PERP)
    changed = msgspec.structs.replace(like, id=instrument, tick=tick)
    return DatedRules(ts_from=ts_from, source="test", tiers="", instrument=changed)


def commit_rules(catalog, *rules):
    return catalog.commit(ImportBatch(source=Source("rules", "0", "test"), rules=rules))


def test_rules_are_those_of_the_time(catalog):
    from decimal import Decimal

    commit_rules(catalog, recorded(T0, Decimal("0.5")))
    commit_rules(catalog, recorded(T0 + DAY, Decimal("0.1")))
    assert catalog.rules(PERP, T0)[0].tick == Decimal("0.5")
    assert catalog.rules(PERP, T0 + DAY - 1)[0].tick == Decimal("0.5")
    instrument, origin = catalog.rules(PERP, T0 + 2 * DAY)
    assert instrument.tick == Decimal("0.1")
    assert (origin.as_of, origin.later) == (T0 + DAY, False)


def test_rules_of_a_later_day_say_so(catalog):
    from decimal import Decimal

    instrument, origin = catalog.rules(PERP, T0)
    assert origin.later
    assert "2026-08-09" in origin.source
    assert instrument.tick == Decimal("0.1")
    commit_rules(catalog, recorded(T0 + DAY, Decimal("0.3"), "NEWUSDT-LINEAR.BYBIT"))
    assert catalog.rules("NEWUSDT-LINEAR.BYBIT", T0)[1].later
    assert catalog.rules("OTHERUSDT-LINEAR.BYBIT", T0) is None


def test_recording_the_same_rules_again_adds_nothing(catalog):
    from decimal import Decimal

    assert commit_rules(catalog, recorded(T0, Decimal("0.5"))).rules == 1
    assert commit_rules(catalog, recorded(T0, Decimal("0.5"))).rules == 0
    assert commit_rules(catalog, recorded(T0 + DAY, Decimal("0.5"))).rules == 0
    assert commit_rules(catalog, recorded(T0 + DAY, Decimal("0.1"))).rules == 1
    assert commit_rules(catalog, recorded(T0 + 2 * DAY, Decimal("0.5"))).rules == 1


def test_made_up_instruments_follow_bybits_rules(catalog):
    instrument, _ = catalog.rules("BTCUSDT-LINEAR.SYNTHETIC", T0)
    assert instrument.id == "BTCUSDT-LINEAR.SYNTHETIC"
    assert instrument.funding_interval_h == 8


def test_shipped_rules_cover_the_common_symbols_and_make_sense():
    ids = {rules.instrument.id for rules in shipped()}
    for symbol in ("BTC", "ETH", "SOL", "BNB", "XRP", "DOGE", "ADA", "DOT", "WIF", "LTC", "LINK", "AVAX", "APE"):
        assert {f"{symbol}USDT-LINEAR.BYBIT", f"{symbol}USDT-SPOT.BYBIT"} <= ids
    assert {"BTCUSDT-LINEAR.BINANCE", "ETHUSDT-SPOT.BINANCE"} <= ids
    for rules in shipped():
        instrument = rules.instrument
        assert instrument.tick > 0 and instrument.step > 0 and instrument.min_quantity > 0  # noqa: PT018
        assert instrument.is_spot == (not instrument.tiers) == (instrument.funding_interval_h == 0)
        for tier in instrument.tiers:
            assert 0 < tier.maintenance_rate < tier.initial_rate < 1


def test_recorded_rules_keep_the_margin_tiers_that_came_with_hean():
    record = {
        "symbol": "BTCUSDT",
        "baseCoin": "BTC",
        "quoteCoin": "USDT",
        "leverageFilter": {"maxLeverage": "100.00"},
        "priceFilter": {"tickSize": "0.10"},
        "lotSizeFilter": {"maxOrderQty": "10.000", "minOrderQty": "0.001", "qtyStep": "0.001", "minNotionalValue": "5"},
        "fundingInterval": 480,
        "upperFundingRate": "0.005",
    }
    read = read_from_bybit(record, Category.LINEAR, ts_from=T0, source="test")
    assert len(read.instrument.tiers) == 3
    assert str(read.instrument.tick) == "0.1"
    other = from_bybit(
        {**record, "symbol": "TENUSDT", "lotSizeFilter": {**record["lotSizeFilter"], "qtyStep": "10"}}, Category.LINEAR
    )
    assert str(other.step) == "10"
    assert len(other.tiers) == 1
    with pytest.raises(msgspec.ValidationError):
        from_bybit({**record, "priceFilter": {}}, Category.LINEAR)


def test_the_root_may_be_anywhere(tmp_path):
    catalog = Catalog(Path(tmp_path) / "deep" / "er")
    catalog.commit(batch(("bar-1m", PERP, bars(1))))
    assert catalog.read("bar-1m", PERP).height == 1
