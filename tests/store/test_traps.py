"""Each foreign format has something that would silently spoil the data: each is a test here."""

import io
import json

import polars as pl
import pyarrow as pa
import pytest
import zstandard
from pyarrow import feather

from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.store.importers import Hints, import_file, read
from hean.store.kinds import HOUR, MINUTE
from tests.store.making import T0, bars, candle_lines, write_csv, write_gzip, write_zip

T0_S = T0 // 10**9
T0_MS = T0 // 10**6
BYBIT_LINEAR = Hints(venue="bybit", market=Category.LINEAR)


def only(batch):
    assert len(batch.series) == 1
    return batch.series[0]


# --- Bybit's trade archive of derivatives

ARCHIVE = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional"


def test_the_bybit_trade_archive_is_newest_first_and_is_turned_round(tmp_path):
    lines = [
        ARCHIVE,
        f"{T0_S + 2}.5,BTCUSDT,Buy,0.3,101,PlusTick,c,1,1,1",
        f"{T0_S + 1}.25,BTCUSDT,Sell,0.2,100,PlusTick,b,1,1,1",
        f"{T0_S + 1}.25,BTCUSDT,Buy,0.1,100,PlusTick,a,1,1,1",
    ]
    series = only(read(write_gzip(tmp_path / "BTCUSDT2025-06-01.csv.gz", "\n".join(lines))))
    assert (series.kind, series.instrument) == ("trade", "BTCUSDT-LINEAR.BYBIT")
    assert series.rows["trade_id"].to_list() == ["a", "b", "c"]
    assert series.rows["side"].to_list() == [1, -1, 1]


def test_float_seconds_lose_no_microsecond(tmp_path):
    lines = [ARCHIVE, "1569974396.557895,BTCUSD,Buy,11668,8319.5,PlusTick,x,1,1,1"]
    series = only(read(write_gzip(tmp_path / "BTCUSD2019-10-01.csv.gz", "\n".join(lines))))
    assert series.rows["ts_event"].to_list() == [1569974396557895000]


def test_the_size_of_an_inverse_contract_stays_in_dollars(tmp_path):
    # homeNotional is the USD amount there and foreignNotional the coin amount: neither may be taken for the size.
    lines = [ARCHIVE, "1569974396.5,BTCUSD,Buy,11668,8319.5,PlusTick,x,140248813.0,11668,1.40248813"]
    batch = read(write_gzip(tmp_path / "BTCUSD2019-10-01.csv.gz", "\n".join(lines)))
    assert only(batch).instrument == "BTCUSD-INVERSE.BYBIT"
    assert only(batch).rows["size"].to_list() == [11668.0]
    assert "USD contracts" in batch.source.note


# --- Bybit's spot trade archive


def test_the_bybit_spot_archive_has_other_columns_ms_and_small_letters(tmp_path):
    lines = ["id,timestamp,price,volume,side,rpi", f"1,{T0_MS},6.5,10,buy,0", f"2,{T0_MS + 5},6.4,20,sell,0"]
    series = only(read(write_csv(tmp_path / "UNIUSDC_2025-06-01.csv", lines[1:], header=lines[0])))
    assert (series.kind, series.instrument) == ("trade", "UNIUSDC-SPOT.BYBIT")
    assert series.rows.row(0)[:5] == (T0, 6.5, 10.0, 1, "1")
    assert series.rows.row(1)[:5] == (T0 + 5_000_000, 6.4, 20.0, -1, "2")


# --- Bybit's V5 REST answers


def rest(result, *, time=T0_MS + 5 * 60_000 + 1):
    return json.dumps({"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": time})


def rest_candles(count, *, width=7):
    rows = [[str(T0_MS + i * 60_000), "100", "102", "99", "101", "5", "500"][:width] for i in range(count)]
    return {"symbol": "BTCUSDT", "category": "linear", "list": rows[::-1]}


def test_rest_candles_are_strings_newest_first_and_the_open_one_is_left_out(tmp_path):
    path = tmp_path / "candles.json"
    path.write_text(rest(rest_candles(6)))  # asked 1 ms into the sixth minute
    batch = read(path)
    assert only(batch).kind == "bar-1m"
    assert only(batch).rows["ts_event"].to_list() == [T0 + i * MINUTE for i in range(5)]
    assert "still open" in batch.source.note


def test_a_rest_candle_that_was_over_when_asked_for_stays(tmp_path):
    path = tmp_path / "candles.json"
    path.write_text(rest(rest_candles(5)))
    batch = read(path)
    assert only(batch).rows.height == 5
    assert batch.source.note == ""


def test_a_rest_answer_without_a_time_loses_its_newest_candle_and_says_so(tmp_path):
    path = tmp_path / "candles.json"
    path.write_text(rest(rest_candles(5), time=None))
    batch = read(path)
    assert only(batch).rows.height == 4
    assert "does not say when" in batch.source.note


def test_rest_candles_without_volume_must_say_what_they_are(tmp_path):
    for name, wanted in (("mark.json", "mark-1m"), ("premium-index.json", None), ("candles.json", None)):
        path = tmp_path / name
        path.write_text(rest(rest_candles(5, width=5)))
        if wanted is None:
            with pytest.raises(DataError, match="look alike"):
                read(path)
        else:
            assert only(read(path)).kind == wanted


def test_rest_funding_and_open_interest_are_turned_round(tmp_path):
    funding, interest = tmp_path / "funding.json", tmp_path / "oi.json"
    stamps = [str(T0_MS + 8 * 3_600_000), str(T0_MS)]
    rates = [
        {"symbol": "BTCUSDT", "fundingRate": r, "fundingRateTimestamp": t} for r, t in zip("21", stamps, strict=True)
    ]
    for rate in rates:
        rate["fundingRate"] = f"0.000{rate['fundingRate']}"
    funding.write_text(rest({"category": "linear", "list": rates}))
    interest.write_text(
        rest(
            {
                "symbol": "BTCUSDT",
                "category": "linear",
                "list": [{"openInterest": "5.5", "timestamp": t} for t in stamps],
            }
        )
    )
    assert only(read(funding)).rows.rows() == [(T0, 0.0001), (T0 + 8 * HOUR, 0.0002)]
    assert only(read(interest)).rows["ts_event"].to_list() == [T0, T0 + 8 * HOUR]


def test_a_rest_answer_that_is_an_error_is_refused(tmp_path):
    path = tmp_path / "candles.json"
    path.write_text('{"retCode":10001,"retMsg":"params error","result":{},"time":1}')
    with pytest.raises(DataError, match="not a successful answer"):
        read(path)


# --- Bybit's MetaTrader 4 archive


def test_metatrader_stamps_are_utc_plus_three_without_saying_so(tmp_path):
    lines = ["2023.01.01 00:00,16581,16581,16580.5,16581,1.881", "2023.01.01 00:01,16581,16584,16580.5,16584,38.5"]
    batch = read(write_csv(tmp_path / "BTCUSDT_1_2023-01-01_2023-01-31.csv", lines, header=None))
    assert only(batch).instrument == "BTCUSDT-LINEAR.BYBIT"
    assert only(batch).rows["ts_event"][0] == 1_672_520_400 * 10**9  # 2022-12-31 21:00 UTC
    assert "UTC+3" in batch.source.note


def test_the_first_minute_of_the_next_month_is_left_to_its_own_file(tmp_path):
    lines = ["2023.01.31 23:59,1,1,1,1,1", "2023.02.01 00:00,1,1,1,1,1"]
    batch = read(write_csv(tmp_path / "BTCUSDT_1_2023-01-01_2023-01-31.csv.gz", lines, header=None))
    assert only(batch).rows.height == 1
    assert "next month" in batch.source.note


def test_a_metatrader_file_may_have_a_header(tmp_path):
    lines = ["2023.01.01 00:00,1,1,1,1,1", "2023.01.01 00:01,1,1,1,1,1"]
    batch = read(
        write_csv(tmp_path / "BTCUSDT_1_2023-01-01_2023-01-31.csv", lines, header="time,open,high,low,close,volume")
    )
    assert only(batch).rows.height == 2


# --- Bybit's order-book archive


def book_message(kind, u, bids, asks, *, ts, cts, symbol="XRPUSDT", depth=500):
    body = {"s": symbol, "b": bids, "a": asks, "u": u, "seq": 10 * u}
    return {"topic": f"orderbook.{depth}.{symbol}", "type": kind, "ts": ts, "data": body, "cts": cts}


def test_the_order_book_goes_by_the_matching_engines_time(tmp_path):
    text = "\n".join(
        json.dumps(message, separators=(",", ":"))
        for message in (
            book_message("snapshot", 1, [["1.95", "10"]], [["1.96", "20"]], ts=T0_MS + 102, cts=T0_MS),
            book_message("delta", 2, [["1.95", "0"]], [], ts=T0_MS + 140, cts=T0_MS + 100),
        )
    )
    batch = read(write_zip(tmp_path / "xrpusdt-ob500.data.zip", "2025-06-01_XRPUSDT_ob500.data", text))
    rows = only(batch).rows
    assert only(batch).instrument == "XRPUSDT-LINEAR.BYBIT"
    assert rows["ts_event"].to_list() == [T0, T0, T0 + 100_000_000]
    assert rows["snapshot"].to_list() == [True, True, False]
    assert rows["side"].to_list() == [1, -1, 1]
    assert rows["last_id"].to_list() == [1, 1, 2]


def test_a_break_in_the_chain_of_updates_is_said(tmp_path):
    messages = [
        book_message("snapshot", 1, [["1.95", "10"]], [["1.96", "20"]], ts=T0_MS, cts=T0_MS),
        book_message("delta", 5, [["1.95", "0"]], [], ts=T0_MS + 1, cts=T0_MS + 1),
    ]
    path = tmp_path / "x_ob500.data"
    path.write_text("\n".join(json.dumps(message) for message in messages))
    assert "breaks 1 time" in read(path).source.note


def test_two_hundred_levels_are_of_spot_or_of_a_contract(tmp_path):
    path = tmp_path / "2025-10-01_XRPUSDT_ob200.data"
    path.write_text(json.dumps(book_message("snapshot", 1, [["1", "1"]], [["2", "1"]], ts=T0_MS, cts=T0_MS, depth=200)))
    with pytest.raises(DataError, match="--market"):
        read(path)
    assert only(read(path, Hints(market=Category.SPOT))).instrument == "XRPUSDT-SPOT.BYBIT"


# --- a recorded V5 socket

CONF = '{"t":"header","format":2,"exchange":"BYBIT","config":{}}'


def recording(tmp_path, entries):
    told = [CONF, '{"t":"connect","conn":"a","ts":1.0,"addr":"wss://stream.bybit.com/v5/public/linear"}']
    told += ['{"t":"connect","conn":"b","ts":1.0,"addr":"wss://stream.bybit.com/v5/public/spot"}']
    for conn, ts, message in entries:
        told.append(json.dumps({"t": "recv", "conn": conn, "ts": ts, "data": json.dumps(message)}))
    path = tmp_path / "BYBIT.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor().compress("\n".join(told).encode()))
    return path


def ticker(kind, ts, **fields):
    return {"topic": "tickers.BTCUSDT", "type": kind, "data": {"symbol": "BTCUSDT", **fields}, "ts": ts}


def test_ticker_deltas_are_folded_into_full_rows(tmp_path):
    entries = [
        ("a", T0_S + 0.5, ticker("snapshot", T0_MS, lastPrice="100", markPrice="101", nextFundingTime=str(T0_MS + 1))),
        ("a", T0_S + 0.6, ticker("delta", T0_MS + 100, markPrice="102")),
        ("b", T0_S + 0.7, ticker("snapshot", T0_MS + 100, lastPrice="99")),
    ]
    series = {one.instrument: one.rows for one in read(recording(tmp_path, entries)).series}
    linear, spot = series["BTCUSDT-LINEAR.BYBIT"], series["BTCUSDT-SPOT.BYBIT"]
    assert linear.select("last", "mark", "next_funding_ts").rows() == [
        (100.0, 101.0, T0 + 1_000_000),
        (100.0, 102.0, T0 + 1_000_000),
    ]
    assert linear["ts_recv"].to_list() == [T0 + 500_000_000, T0 + 600_000_000]
    assert spot.select("last", "mark").rows() == [(99.0, None)]


def test_a_candle_from_the_socket_counts_only_once_confirmed(tmp_path):
    def kline(minute, confirm):
        bar = {"start": T0_MS + minute * 60_000, "open": "1", "high": "2", "low": "1", "close": "2", "volume": "3"}
        return {"topic": "kline.1.BTCUSDT", "data": [{**bar, "confirm": confirm}], "ts": 1, "type": "snapshot"}

    entries = [("a", 1.0, kline(0, False)), ("a", 1.0, kline(0, True)), ("a", 1.0, kline(1, False))]
    series = only(read(recording(tmp_path, entries)))
    assert series.kind == "bar-1m"
    assert series.rows["ts_event"].to_list() == [T0]


def test_the_same_topic_of_linear_and_spot_is_told_apart_by_its_connection(tmp_path):
    def trade(price):
        told = {"T": T0_MS, "s": "BTCUSDT", "S": "Sell", "v": "1", "p": price, "i": price}
        return {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": T0_MS, "data": [told]}

    series = {
        one.instrument: one
        for one in read(recording(tmp_path, [("a", 1.0, trade("1")), ("b", 1.0, trade("2"))])).series
    }
    assert series["BTCUSDT-LINEAR.BYBIT"].rows["price"].to_list() == [1.0]
    assert series["BTCUSDT-SPOT.BYBIT"].rows["price"].to_list() == [2.0]
    assert series["BTCUSDT-SPOT.BYBIT"].rows["side"].to_list() == [-1]


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


# --- whatever the format


def test_a_file_cut_short_is_refused_and_nothing_of_it_enters(tmp_path):
    catalog = Catalog(tmp_path / "catalog")
    path = write_gzip(tmp_path / "BTCUSDT2025-06-01.csv.gz", ARCHIVE + f"\n{T0_S}.5,BTCUSDT,Buy,1,1,P,a,1,1,1\n")
    path.write_bytes(path.read_bytes()[:-12])
    outcome = import_file(catalog, path)
    assert "cannot be unpacked" in outcome.refusal.reason
    assert catalog.series() == []


@pytest.mark.parametrize(
    "junk", [b"", b"\x00\x01\x02", b"PK\x03\x04broken", b"PAR1", b"\x28\xb5\x2f\xfdxx", b"\xff\xfe{}", b"{", b"[]"]
)
@pytest.mark.parametrize(
    "name",
    ["x.csv", "x.json", "BTC_USDT-5m.feather", "20221213_trade.zip", "bybit.linear.BTCUSDT.kline-1m.x.parquet", "x.gz"],
)
def test_rubbish_is_an_outcome_never_an_accident(tmp_path, name, junk):
    path = tmp_path / name
    path.write_bytes(junk)
    outcome = import_file(Catalog(tmp_path / "catalog"), path)
    assert outcome.committed is None


def test_arrow_rubbish_is_refused(tmp_path):
    path = tmp_path / "bybit" / "BTC_USDT-5m.feather"
    path.parent.mkdir()
    sink = io.BytesIO()
    feather.write_feather(pa.table({"x": [1]}), sink)
    path.write_bytes(sink.getvalue())
    with pytest.raises(DataError, match="no column `date`"):
        read(path)
