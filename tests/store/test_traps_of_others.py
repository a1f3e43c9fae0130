"""Each foreign format has something that would silently spoil the data: each is a test here."""

import json

import polars as pl
import pytest
from pyarrow import feather

from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.store.importers import Hints, read
from hean.units import HOUR, MINUTE
from tests.store.making import T0, bars, candle_lines, write_csv, write_gzip, write_zip

T0_S = T0 // 10**9
T0_MS = T0 // 10**6
BYBIT_LINEAR = Hints(venue="bybit", market=Category.LINEAR)


def only(batch):
    assert len(batch.series) == 1
    return batch.series[0]


# --- freqtrade


def feather_file(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(columns).with_columns(pl.from_epoch("date", time_unit="ns").dt.replace_time_zone("UTC"))
    feather.write_feather(frame.to_arrow(), str(path), compression="lz4")
    return path


def freqtrade_bars(count, step):
    rows = bars(count, step=step)
    return {"date": rows["ts_event"], **{name: rows[name] for name in ("open", "high", "low", "close", "volume")}}


def test_the_last_freqtrade_bar_may_be_open_and_is_left_out(tmp_path):
    batch = read(feather_file(tmp_path / "bybit" / "BTC_USDT-5m.feather", freqtrade_bars(10, 5 * MINUTE)))
    assert (only(batch).kind, only(batch).instrument) == ("bar-5m", "BTCUSDT-SPOT.BYBIT")
    assert only(batch).rows.height == 9
    assert "left out" in batch.source.note


def test_freqtrade_keeps_the_funding_rate_in_open(tmp_path):
    columns = {"date": [T0, T0 + 8 * HOUR], "open": [1e-4, -2e-4], "high": [0.0] * 2, "low": [0.0] * 2}
    columns |= {"close": [0.0] * 2, "volume": [0.0] * 2}
    path = tmp_path / "bybit" / "futures" / "BTC_USDT_USDT-8h-funding_rate.feather"
    series = only(read(feather_file(path, columns)))
    assert (series.kind, series.instrument) == ("funding", "BTCUSDT-LINEAR.BYBIT")
    assert series.rows["rate"].to_list() == [1e-4, -2e-4]


def test_funding_stamped_some_milliseconds_late_is_put_on_the_hour(tmp_path):
    columns = {"date": [T0 + 7_000_000], "open": [1e-4], "high": [0.0], "low": [0.0], "close": [0.0], "volume": [0.0]}
    batch = read(feather_file(tmp_path / "binance" / "futures" / "BTC_USDT_USDT-8h-funding_rate.feather", columns))
    assert only(batch).rows["ts_event"].to_list() == [T0]
    assert "rounded" in batch.source.note
    late = {**columns, "date": [T0 + 120 * 10**9]}
    with pytest.raises(DataError, match="off the grid"):
        read(feather_file(tmp_path / "binance" / "futures" / "ETH_USDT_USDT-8h-funding_rate.feather", late))


def test_freqtrade_mark_has_no_volume(tmp_path):
    columns = freqtrade_bars(10, 4 * HOUR) | {"volume": [None] * 10}
    path = tmp_path / "bybit" / "futures" / "BTC_USDT_USDT-4h-mark.feather"
    series = only(read(feather_file(path, columns)))
    assert series.kind == "mark-4h"
    assert "volume" not in series.rows.columns


def test_freqtrade_stamps_may_be_milliseconds_but_must_be_utc(tmp_path):
    rows = pl.DataFrame(freqtrade_bars(10, 5 * MINUTE)).with_columns(pl.from_epoch("date", time_unit="ns"))
    path = tmp_path / "bybit" / "BTC_USDT-5m.feather"
    path.parent.mkdir()
    in_ms = rows.with_columns(pl.col("date").dt.cast_time_unit("ms").dt.replace_time_zone("UTC"))
    feather.write_feather(in_ms.to_arrow(), str(path))
    assert only(read(path)).rows["ts_event"][1] == T0 + 5 * MINUTE
    feather.write_feather(rows.to_arrow(), str(path))
    with pytest.raises(DataError, match="no time in UTC"):
        read(path)


def test_a_freqtrade_file_whose_venue_nobody_says_is_refused(tmp_path):
    path = feather_file(tmp_path / "BTC_USDT-5m.feather", freqtrade_bars(10, 5 * MINUTE))
    with pytest.raises(DataError, match="which venue"):
        read(path)
    assert only(read(path, Hints(venue="bybit"))).instrument == "BTCUSDT-SPOT.BYBIT"


# --- plain CSV


def test_iso_stamps_with_an_offset_become_utc(tmp_path):
    lines = ["2025-06-01 02:00:00+02:00,1,1,1,1,1", "2025-06-01T00:01:00Z,1,1,1,1,1"]
    series = only(read(write_csv(tmp_path / "BTCUSDT_1m.csv", lines), BYBIT_LINEAR))
    assert series.rows["ts_event"].to_list() == [T0, T0 + MINUTE]


def test_stamps_without_an_offset_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 2.*states no offset"):
        read(write_csv(tmp_path / "BTCUSDT_1m.csv", ["2025-06-01 00:00:00,1,1,1,1,1"] * 2), BYBIT_LINEAR)


@pytest.mark.parametrize("scale", [1, 10**3, 10**6, 10**9], ids=["s", "ms", "us", "ns"])
def test_the_unit_of_an_epoch_is_told_by_its_size(tmp_path, scale):
    series = only(read(write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(5, scale=scale)), BYBIT_LINEAR))
    assert series.rows["ts_event"].to_list() == [T0 + i * MINUTE for i in range(5)]


def test_a_unit_that_changes_half_way_is_refused(tmp_path):
    lines = candle_lines(3, scale=1000) + candle_lines(3, start_s=T0_S + 180, scale=10**6)
    with pytest.raises(DataError, match=r"row 5.*another unit of time"):
        read(write_csv(tmp_path / "BTCUSDT_1m.csv", lines), BYBIT_LINEAR)


@pytest.mark.parametrize("stamp", ["0", "-5", "86400", "99999999999", "20250601"])
def test_a_stamp_in_no_unit_is_refused(tmp_path, stamp):
    with pytest.raises(DataError, match=r"row 2.*outside 2010 .. 2100"):
        read(write_csv(tmp_path / "BTCUSDT_1m.csv", [f"{stamp},1,1,1,1,1"] * 3), BYBIT_LINEAR)


def test_a_csv_newest_first_throughout_is_turned_round(tmp_path):
    batch = read(write_csv(tmp_path / "BTCUSDT_1m.csv", candle_lines(5)[::-1]), BYBIT_LINEAR)
    assert only(batch).rows["ts_event"].to_list() == [T0 + i * MINUTE for i in range(5)]
    assert "turned round" in batch.source.note


# --- LEAN

DAY_S = 1_670_889_600  # 2022-12-13


def test_lean_counts_milliseconds_from_the_midnight_in_its_name(tmp_path):
    path = tmp_path / "cryptofuture" / "bybit" / "minute" / "btcusdt" / "20221213_trade.zip"
    text = "0,17194,17199.5,17193.5,17199,78.677\n60000,17199.5,17212.5,17199,17212.5,153.152"
    series = only(read(write_zip(path, "20221213_btcusdt_minute_trade_perp.csv", text)))
    assert (series.kind, series.instrument) == ("bar-1m", "BTCUSDT-LINEAR.BYBIT")
    assert series.rows["ts_event"].to_list() == [DAY_S * 10**9, DAY_S * 10**9 + MINUTE]
    assert series.rows["close"].to_list() == [17199.0, 17212.5]


def test_lean_spot_and_perpetual_are_told_apart_by_the_member(tmp_path):
    path = tmp_path / "crypto" / "bybit" / "minute" / "btcusdt" / "20221213_trade.zip"
    series = only(read(write_zip(path, "20221213_btcusdt_minute_trade.csv", "0,1,1,1,1,1\n60000,1,1,1,1,1")))
    assert series.instrument == "BTCUSDT-SPOT.BYBIT"


def test_lean_quote_minutes_that_are_absent_are_holes(tmp_path):
    path = tmp_path / "cryptofuture" / "bybit" / "minute" / "btcusdt" / "20221213_quote.zip"
    text = "\n".join(f"{ms},9,9,9,9,1,10,10,10,10,2" for ms in (0, 60_000, 180_000))
    batch = read(write_zip(path, "20221213_btcusdt_minute_quote_perp.csv", text))
    catalog = Catalog(tmp_path / "catalog")
    catalog.commit(batch)
    series = catalog.find("quote-bar-1m", "BTCUSDT-LINEAR.BYBIT")
    assert (series.rows, series.gaps.missing) == (3, 1)
    assert "absent" in batch.source.note


def test_leans_margin_interest_is_funding(tmp_path):
    path = tmp_path / "cryptofuture" / "bybit" / "margin_interest" / "btcusdt.csv"
    series = only(read(write_csv(path, ["20221213 00:00:00,-0.0002016", "20221213 08:00:00,-0.00022398"], header=None)))
    assert (series.kind, series.instrument) == ("funding", "BTCUSDT-LINEAR.BYBIT")
    assert series.rows.rows() == [(DAY_S * 10**9, -0.0002016), (DAY_S * 10**9 + 8 * HOUR, -0.00022398)]


# --- Binance's archive

KLINES = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


def kline_lines(count, *, scale):
    return [
        f"{(T0_S + i * 3600) * scale},100,101,99,100,5,{(T0_S + (i + 1) * 3600) * scale - 1},500,7,2,200,0"
        for i in range(count)
    ]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("scale", [10**3, 10**6], ids=["ms", "us since 2025"])
def test_binance_candles_come_with_and_without_a_header_in_ms_and_us(tmp_path, header, scale):
    text = "\n".join(([KLINES] if header else []) + kline_lines(3, scale=scale))
    path = tmp_path / "spot" / "BTCUSDT-1h-2025-06-01.zip"
    series = only(read(write_zip(path, "BTCUSDT-1h-2025-06-01.csv", text)))
    assert (series.kind, series.instrument) == ("bar-1h", "BTCUSDT-SPOT.BINANCE")
    assert series.rows["ts_event"].to_list() == [T0 + i * HOUR for i in range(3)]


def test_a_binance_file_that_turns_from_ms_to_us_is_refused(tmp_path):
    lines = kline_lines(4, scale=10**3)[:2] + kline_lines(4, scale=10**6)[2:]
    path = write_zip(tmp_path / "spot" / "BTCUSDT-1h-2025-06.zip", "BTCUSDT-1h-2025-06.csv", "\n".join(lines))
    with pytest.raises(DataError, match=r"row 3.*another unit"):
        read(path)


def test_the_buyer_who_was_maker_was_sold_to(tmp_path):
    text = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    text += f"1,0.7,19,1,1,{T0_MS},false\n2,0.7,20,2,3,{T0_MS + 1},true"
    path = tmp_path / "futures" / "um" / "APEUSDT-aggTrades-2025-06-01.zip"
    series = only(read(write_zip(path, "APEUSDT-aggTrades-2025-06-01.csv", text)))
    assert series.instrument == "APEUSDT-LINEAR.BINANCE"
    assert series.rows["side"].to_list() == [1, -1]


def test_a_binance_file_whose_market_nobody_says_is_refused(tmp_path):
    path = write_zip(
        tmp_path / "BTCUSDT-1h-2025-06-01.zip", "BTCUSDT-1h-2025-06-01.csv", "\n".join(kline_lines(3, scale=1000))
    )
    with pytest.raises(DataError, match="spot, linear or inverse"):
        read(path)


def test_binances_mark_candles_are_told_by_their_directory_alone(tmp_path):
    path = tmp_path / "futures" / "um" / "markPriceKlines" / "BTCUSDT-1h-2025-06-01.zip"
    text = "\n".join(kline_lines(3, scale=1000))
    assert only(read(write_zip(path, "BTCUSDT-1h-2025-06-01.csv", text))).kind == "mark-1h"


def test_binance_funding_is_put_on_the_hour(tmp_path):
    text = f"calc_time,funding_interval_hours,last_funding_rate\n{T0_MS + 3},8,0.0001\n{T0_MS + 28_800_000},8,-0.0002"
    series = only(read(write_zip(tmp_path / "f.zip", "BTCUSDT-fundingRate-2025-06.csv", text)))
    assert series.instrument == "BTCUSDT-LINEAR.BINANCE"
    assert series.rows.rows() == [(T0, 0.0001), (T0 + 8 * HOUR, -0.0002)]


def test_binance_single_trades_are_read_too(tmp_path):
    text = f"1,0.7,19,13.3,{T0_MS * 1000},true,true"
    series = only(read(write_zip(tmp_path / "t.zip", "APEUSDT-trades-2025-06-01.csv", text)))
    assert series.instrument == "APEUSDT-SPOT.BINANCE"
    assert series.rows.row(0) == (T0, 0.7, 19.0, -1, "1", None)


# --- a recorded Binance socket


def test_a_spot_quote_without_a_time_gets_the_recorders_moved_by_the_median(tmp_path):
    behind = 1_300_000_000  # the recorder's clock is behind the exchange's

    def line(ts_recv, message):
        return f"{ts_recv} {json.dumps(message)}"

    def trade(at_ms, trade_id):
        body = {"e": "trade", "E": at_ms, "s": "ETHUSDT", "t": trade_id, "p": "10", "q": "1", "T": at_ms, "m": True}
        return line(at_ms * 10**6 - behind, {"stream": "ethusdt@trade", "data": body})

    quote = {"u": 7, "s": "ETHUSDT", "b": "9.9", "B": "1", "a": "10", "A": "2"}
    depth = {"e": "depthUpdate", "E": T0_MS + 9, "s": "ETHUSDT", "U": 8, "u": 9, "b": [["9.9", "0"]], "a": []}
    lines = [
        trade(T0_MS, 1),
        line(T0 + 5_000_000 - behind, {"stream": "ethusdt@bookTicker", "data": quote}),
        line(T0 + 6_000_000 - behind, {"lastUpdateId": 7, "bids": [["9.9", "1"]], "asks": [["10", "2"]]}),
        line(T0 + 9_000_000 - behind, {"stream": "ethusdt@depth@100ms", "data": depth}),
        trade(T0_MS + 20, 2),
    ]
    batch = read(write_gzip(tmp_path / "spot_ethusdt.gz", "\n".join(lines)))
    series = {one.kind: one for one in batch.series}
    assert series["quote"].instrument == "ETHUSDT-SPOT.BINANCE"
    assert series["quote"].rows["ts_event"].to_list() == [T0 + 5_000_000]
    assert series["quote"].rows["ts_recv"].to_list() == [T0 + 5_000_000 - behind]
    assert series["depth"].rows["snapshot"].to_list() == [True, True, False]
    assert series["depth"].rows["ts_event"].to_list() == [T0 + 6_000_000] * 2 + [T0 + 9_000_000]
    assert series["trade"].rows["side"].to_list() == [-1, -1]
    assert "1300.000 ms" in batch.source.note


def test_a_market_said_otherwise_by_the_path_is_refused(tmp_path):
    path = tmp_path / "my-spot-recordings" / "BTCUSDT_1m.csv"
    path.parent.mkdir()
    path.write_text("timestamp,open,high,low,close,volume\n2025-06-01T00:00:00+00:00,1,2,1,2,5\n", encoding="utf-8")

    with pytest.raises(DataError, match="path says the market is spot, and --market says linear"):
        read(path, BYBIT_LINEAR)
