"""Market data over REST: what is asked for, what is shown, and what is refused."""

import json
import time
from decimal import Decimal
from itertools import pairwise

import pytest

from hean.units import HOUR, MILLISECOND

M = "/v5/market"


def read(venue, path, **query):
    return venue.read(f"{M}/{path}", None, **query)


def code(venue, path, **query):
    return venue.get(f"{M}/{path}", None, **query)["retCode"]


class TestTheWire:
    def test_an_answer_has_the_venues_envelope(self, shared):
        answer = shared.get(f"{M}/time", None)

        assert (answer["retCode"], answer["retMsg"], answer["retExtInfo"]) == (0, "OK", {})
        assert type(answer["time"]) is int
        assert abs(answer["time"] - time.time_ns() // MILLISECOND) < 5000
        assert answer["headers"]["Content-Type"].startswith("application/json")

    def test_the_time_has_19_digits_of_nanoseconds(self, shared):
        result = read(shared, "time")

        assert len(result["timeNano"]) == 19
        assert result["timeNano"].startswith(result["timeSecond"])

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v5/market/nothing"),
            ("POST", "/v5/market/time"),
            ("GET", "/v5/order/create"),
            ("POST", "/v5/order/realtime"),
            ("DELETE", "/v5/order/create"),
            ("GET", "/"),
            ("GET", "/v5/market/time/"),
        ],
    )
    def test_an_unknown_path_is_not_found(self, shared, method, path):
        response = shared.send(method, path)

        assert response.status == 404
        assert json.loads(response.body)["retCode"] == 10017

    def test_a_get_with_an_empty_json_body_is_forbidden(self, shared):
        assert shared.send("GET", f"{M}/time", b"{}").status == 403

    def test_of_a_repeated_parameter_the_first_counts(self, shared):
        answer = shared.raw_get(f"{M}/tickers", "category=spot&symbol=ETHUSDT&symbol=BTCUSDT&category=linear", None)

        assert answer["result"]["category"] == "spot"
        assert [row["symbol"] for row in answer["result"]["list"]] == ["ETHUSDT"]

    def test_a_query_that_is_not_utf8_is_a_parameter_error(self, shared):
        assert shared.raw_get(f"{M}/tickers", "category=%ff%fe", None)["retCode"] == 10001

    @pytest.mark.parametrize(
        ("category", "path"),
        [
            *(("inverse", path) for path in ("instruments-info", "tickers", "recent-trade", "risk-limit")),
            *(("inverse", path) for path in ("kline", "mark-price-kline", "funding/history", "open-interest")),
            *(("option", path) for path in ("instruments-info", "tickers", "recent-trade")),
        ],
    )
    def test_categories_without_instruments_are_empty_lists(self, shared, category, path):
        result = read(shared, path, category=category, symbol="BTCUSD", interval="1", intervalTime="1h", limit=10)

        assert result["list"] == []

    @pytest.mark.parametrize(
        ("path", "more"),
        [
            ("tickers", {}),
            ("orderbook", {}),
            ("recent-trade", {}),
            ("kline", {"interval": "1"}),
            ("funding/history", {}),
            ("open-interest", {"intervalTime": "1h"}),
            ("price-limit", {}),
        ],
    )
    @pytest.mark.parametrize("wrong", [{"category": "futures"}, {"symbol": "btcusdt"}, {"symbol": "NOUSDT"}], ids=str)
    def test_a_wrong_category_or_symbol_is_a_parameter_error(self, shared, path, more, wrong):
        assert code(shared, path, **{"category": "linear", "symbol": "BTCUSDT", **more, **wrong}) == 10001

    @pytest.mark.parametrize(
        ("path", "query"),
        [
            ("tickers", {}),
            ("orderbook", {"category": "linear"}),
            ("orderbook", {"category": "linear", "symbol": "BTCUSDT", "limit": "1001"}),
            ("orderbook", {"category": "linear", "symbol": "BTCUSDT", "limit": "0"}),
            ("orderbook", {"category": "linear", "symbol": "BTCUSDT", "limit": "ten"}),
            ("kline", {"category": "linear", "symbol": "BTCUSDT"}),
            ("kline", {"category": "linear", "symbol": "BTCUSDT", "interval": "2"}),
            ("kline", {"category": "linear", "symbol": "BTCUSDT", "interval": "1", "start": "2", "end": "1"}),
            ("premium-index-price-kline", {"category": "spot", "symbol": "BTCUSDT", "interval": "1"}),
            ("funding/history", {"category": "spot", "symbol": "BTCUSDT"}),
            ("funding/history", {"category": "linear", "symbol": "BTCUSDT", "startTime": "1700000000000"}),
            ("open-interest", {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "2h"}),
            ("open-interest", {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "1h", "cursor": "x"}),
            (
                "open-interest",
                {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "1h", "cursor": f"before:{'9' * 5_000}"},
            ),
            ("risk-limit", {"category": "linear", "symbol": "NOUSDT"}),
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_missing_or_out_of_bounds_is_a_parameter_error(self, shared, path, query):
        assert code(shared, path, **query) == 10001


class TestInstruments:
    def test_a_contract_keeps_the_venues_scale(self, shared):
        (one,) = read(shared, "instruments-info", category="linear", symbol="BTCUSDT")["list"]

        assert one["priceFilter"] == {"minPrice": "0.10", "maxPrice": "1999999.80", "tickSize": "0.10"}
        assert one["lotSizeFilter"]["qtyStep"] == "0.001"
        assert one["lotSizeFilter"]["maxOrderQty"] == "1500.000"
        assert one["leverageFilter"] == {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"}
        assert (one["fundingInterval"], one["upperFundingRate"], one["lowerFundingRate"]) == (480, "0.005", "-0.005")
        assert one["preListingInfo"] is None

    def test_spot_trims_zeros(self, shared):
        (one,) = read(shared, "instruments-info", category="spot", symbol="BTCUSDT")["list"]

        assert one["priceFilter"] == {"tickSize": "0.1"}
        assert one["lotSizeFilter"]["basePrecision"] == "0.000001"
        assert one["lotSizeFilter"]["quotePrecision"] == "0.0000001"
        assert one["lotSizeFilter"]["maxMarketOrderQty"] == "120"

    def test_an_unknown_symbol_is_an_empty_list(self, shared):
        assert read(shared, "instruments-info", category="linear", symbol="NOUSDT")["list"] == []

    def test_contracts_come_in_pages_and_spot_whole(self, shared):
        first = read(shared, "instruments-info", category="linear", limit=1)
        second = read(shared, "instruments-info", category="linear", limit=1, cursor=first["nextPageCursor"])

        assert [row["symbol"] for row in first["list"] + second["list"]] == ["BTCUSDT", "ETHUSDT"]
        assert second["nextPageCursor"] == ""
        assert "nextPageCursor" not in read(shared, "instruments-info", category="spot", limit=1)

    @pytest.mark.parametrize(
        ("query", "found"), [({"baseCoin": "ETH"}, 1), ({"status": "Trading"}, 2), ({"status": "PreLaunch"}, 0)]
    )
    def test_they_are_filtered(self, shared, query, found):
        assert len(read(shared, "instruments-info", category="linear", **query)["list"]) == found

    def test_tiers_are_fractions_and_go_on_where_the_one_before_ended(self, shared):
        tiers = read(shared, "risk-limit", category="linear", symbol="BTCUSDT")["list"]

        assert [tier["id"] for tier in tiers] == [1, 2, 3]
        assert [tier["isLowestRisk"] for tier in tiers] == [1, 0, 0]
        assert (tiers[0]["maintenanceMargin"], tiers[0]["initialMargin"], tiers[0]["maxLeverage"]) == (
            "0.0033", "0.0066", "100.00"
        )  # fmt: skip
        for lower, higher in pairwise(tiers):
            edge = Decimal(lower["riskLimitValue"])
            margins = [edge * Decimal(t["maintenanceMargin"]) - Decimal(t["mmDeduction"] or 0) for t in (lower, higher)]
            assert margins[0] == margins[1]


class TestPrices:
    def test_a_contracts_ticker(self, shared):
        (one,) = read(shared, "tickers", category="linear", symbol="BTCUSDT")["list"]

        assert (one["bid1Price"], one["ask1Price"], one["lastPrice"]) == ("59999.00", "60001.00", "60001.00")
        assert one["indexPrice"] == "60000.00"
        assert (one["openInterest"], one["singleOpenInterest"]) == ("60000.000", "30000.000")
        assert int(one["nextFundingTime"]) * MILLISECOND % (8 * HOUR) == 0
        assert int(one["nextFundingTime"]) > time.time_ns() // MILLISECOND
        assert (one["fundingIntervalHour"], one["fundingCap"]) == ("8", "0.005")
        change = Decimal(one["lastPrice"]) / Decimal(one["prevPrice24h"]) - 1
        assert Decimal(one["price24hPcnt"]) == round(change, 6)
        assert Decimal(one["lowPrice24h"]) <= Decimal(one["lastPrice"]) <= Decimal(one["highPrice24h"])

    def test_a_spot_ticker_has_no_mark_and_no_funding(self, shared):
        (one,) = read(shared, "tickers", category="spot", symbol="BTCUSDT")["list"]

        assert (one["bid1Price"], one["ask1Price"], one["usdIndexPrice"]) == ("59999", "60001", "60000")
        assert not {"markPrice", "fundingRate", "openInterest"} & one.keys()

    def test_a_book_is_sorted_from_the_best(self, shared):
        result = read(shared, "orderbook", category="linear", symbol="BTCUSDT", limit=200)

        bids, asks = ([Decimal(price) for price, _ in result[side]] for side in "ba")
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert len(bids) == len(asks) == 59
        assert result["b"][0] == ["59999.00", "2.000"]
        assert [type(result[name]) for name in ("ts", "u", "seq", "cts")] == [int] * 4

    @pytest.mark.parametrize(("category", "levels"), [("linear", 25), ("spot", 1)])
    def test_a_book_has_the_categorys_usual_depth(self, shared, category, levels):
        assert len(read(shared, "orderbook", category=category, symbol="BTCUSDT")["b"]) == levels

    def test_public_trades_come_newest_first(self, shared):
        trades = read(shared, "recent-trade", category="linear", symbol="BTCUSDT", limit=2)["list"]

        assert [trade["side"] for trade in trades] == ["Buy", "Sell"]
        assert int(trades[0]["seq"]) > int(trades[1]["seq"])
        assert isinstance(trades[0]["seq"], str)

    def test_the_price_limit_is_what_orders_are_held_to(self, server):
        limit = read(server, "price-limit", category="linear", symbol="BTCUSDT")
        above = str(Decimal(limit["buyLmt"]) + Decimal("0.1"))

        order = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Limit", "qty": "0.001"}
        assert server.post("/v5/order/create", **order, price=above)["retCode"] == 110003
        assert server.post("/v5/order/create", **order, price=limit["buyLmt"])["retCode"] == 0


class TestHistory:
    @pytest.mark.parametrize(
        ("path", "columns"),
        [("kline", 7), ("mark-price-kline", 5), ("index-price-kline", 5), ("premium-index-price-kline", 5)],
    )
    def test_candles_are_rows_of_text_newest_first(self, shared, path, columns):
        result = read(shared, path, category="linear", symbol="BTCUSDT", interval="15", limit=5)

        rows = result["list"]
        starts = [int(row[0]) for row in rows]
        assert (result["symbol"], result["category"]) == ("BTCUSDT", "linear")
        assert starts == sorted(starts, reverse=True)
        assert len(rows) == 5
        assert all(len(row) == columns and all(isinstance(cell, str) for cell in row) for row in rows)
        assert all(start % (15 * 60_000) == 0 for start in starts)

    def test_the_running_candle_comes_first_and_closes_at_the_last_price(self, shared):
        rows = read(shared, "kline", category="linear", symbol="BTCUSDT", interval="1")["list"]
        (ticker,) = read(shared, "tickers", category="linear", symbol="BTCUSDT")["list"]

        assert Decimal(rows[0][4]) == Decimal(ticker["lastPrice"])

    def test_candles_are_of_linear_unless_told_otherwise(self, shared):
        result = read(shared, "kline", symbol="BTCUSDT", interval="1", limit=1)

        assert result["category"] == "linear"

    def test_a_span_is_kept_to(self, shared):
        every = read(shared, "kline", category="spot", symbol="ETHUSDT", interval="5", limit=50)["list"]
        asked = every[10:21]

        rows = read(
            shared, "kline", category="spot", symbol="ETHUSDT", interval="5", start=asked[-1][0], end=asked[0][0]
        )

        assert rows["list"] == asked

    def test_settled_funding_comes_newest_first_within_its_span(self, shared):
        rows = read(shared, "funding/history", category="linear", symbol="BTCUSDT")["list"]
        stamps = [int(row["fundingRateTimestamp"]) for row in rows]

        # A day and a little has three stamps, or four by the time of day.
        assert len(rows) in {3, 4}
        assert {before - after for before, after in pairwise(stamps)} == {8 * 3_600_000}
        span = {"startTime": stamps[1], "endTime": stamps[1]}
        assert read(shared, "funding/history", category="linear", symbol="BTCUSDT", **span)["list"] == [rows[1]]
        assert read(shared, "funding/history", category="linear", symbol="BTCUSDT", limit=1)["list"] == [rows[0]]

    def test_open_interest_turns_its_pages(self, shared):
        query = {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "5min"}
        whole = read(shared, "open-interest", **query, limit=6)["list"]

        paged, cursor = [], None
        for _ in range(3):
            page = read(shared, "open-interest", **query, limit=2, cursor=cursor)
            paged += page["list"]
            cursor = page["nextPageCursor"]

        assert paged == whole
        for row in whole:
            assert Decimal(row["openInterest"]) == 2 * Decimal(row["singleOpenInterest"])
