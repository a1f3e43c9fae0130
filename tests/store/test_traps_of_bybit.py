"""Each of Bybit's own formats has something that would silently spoil the data: each is a test here."""

import json

import pytest
import zstandard

from hean.errors import DataError
from hean.instruments import Category
from hean.store.importers import Hints, read
from hean.units import HOUR, MINUTE
from tests.store.making import T0, write_csv, write_gzip, write_zip

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
