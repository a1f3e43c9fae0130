"""What clients of others hold the venue to: forms that strictly typed models and general trading libraries rely on.

Each was found by running such a client against the exchange, or by laying messages recorded from the venue beside its own.
"""

import pytest
from msgspec.structs import replace
from pybit.unified_trading import HTTP

from actors.exchange import drills
from actors.exchange.opening import Plan
from tests.exchange.stage import limit, market, order, staged


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


def told_of(venue, *requests):
    """What the private topics say of requests, by topic: the data of all messages, in order."""
    with (
        venue.private("order", "execution", "execution.fast", "position", "wallet") as client,
        venue.trader() as trader,
    ):
        for request in requests:
            answer = trader.ask(request)
            assert answer["retCode"] == 0, answer
        told = {}
        for message in client.gather(0.4, least=1):
            told.setdefault(message["topic"], []).extend(message["data"])
        return told


class TestOrders:
    @pytest.mark.parametrize(("held", "active", "direction"), [("Buy", "60500", 2), ("Sell", "59500", 1)])
    def test_a_trailing_stop_says_which_way_it_will_be_triggered_before_it_is_active(
        self, server, held, active, direction
    ):
        """Bybit v5, *Enums: stopOrderType, triggerDirection*: one that closes a long falls, one that closes a short rises."""
        server.order(held)
        server.ok(
            "/v5/position/trading-stop", category="linear", symbol="BTCUSDT", tpslMode="Full", positionIdx=0,
            trailingStop="300", activePrice=active,
        )  # fmt: skip

        (stop,) = server.read("/v5/order/realtime", category="linear", symbol="BTCUSDT")["list"]

        assert stop["stopOrderType"] == "TrailingStop"
        assert stop["orderStatus"] == "Untriggered"
        assert (stop["triggerDirection"], stop["triggerBy"]) == (direction, "LastPrice")
        assert stop["tpslMode"] == "Full", "it closes the position whole"

    def test_spot_has_no_tpsl_mode_and_no_create_type(self, server):
        """Bybit v5, *Get Open & Closed Orders*: "Spot does not have this field"; libraries tell contracts from spot by it."""
        of_spot = server.found(server.order("Buy", "0.01", "59500", category="spot"), category="spot")
        of_linear = server.found(server.order("Buy", "0.01", "59500"))

        assert {"tpslMode", "createType"}.isdisjoint(of_spot)
        assert (of_linear["tpslMode"], of_linear["createType"]) == ("", "CreateByUser")

    def test_a_limit_of_an_exit_that_is_not_there_is_zero_on_linear(self, server):
        """Answers recorded from the venue in 2025: "slLimitPrice": "0"."""
        order = server.found(server.order("Buy", "0.01", "59500"))

        assert [order[name] for name in ("tpLimitPrice", "slLimitPrice", "slippageTolerance")] == ["0", "0", "0"]
        assert [order[name] for name in ("takeProfit", "stopLoss", "triggerPrice")] == ["", "", ""]

    def test_the_index_price_of_a_fill_is_of_options_alone(self, server):
        """Bybit v5, *Get Trade History*: indexPrice."""
        server.order("Buy", "0.01")

        (fill, *_) = server.read("/v5/execution/list", category="linear", symbol="BTCUSDT")["list"]

        assert fill["indexPrice"] == ""
        assert fill["markPrice"] != ""

    def test_a_position_in_cross_margin_has_no_balance_of_its_own(self, server):
        """Bybit v5, *Position* stream; messages recorded from unified accounts: "positionBalance": "0"."""
        server.order("Buy", "0.01")

        (position,) = server.read("/v5/position/list", category="linear", symbol="BTCUSDT")["list"]

        assert position["positionBalance"] == "0"


class TestPrivateStreams:
    def test_numbers_of_linear_are_trimmed(self, venue):
        """Messages recorded from the venue: "price": "69795.6", "qty": "0.001", never "69795.60"."""
        told = told_of(venue, limit(price="59000", qty="0.010", takeProfit="61000"), market(qty="0.020"))

        resting, taking = told["order"][0], told["order"][-1]
        shown = ("price", "qty", "leavesQty", "cumExecQty", "takeProfit", "leavesValue")
        assert [resting[name] for name in shown] == ["59000", "0.01", "0.01", "0", "61000", "590"]
        assert (taking["cumExecQty"], taking["leavesQty"]) == ("0.02", "0")
        (fill,), (fast,) = told["execution"], told["execution.fast"]
        assert (fill["execPrice"], fill["execQty"], fill["leavesQty"]) == ("60000.1", "0.02", "0")
        assert (fast["execPrice"], fast["execQty"]) == ("60000.1", "0.02")
        assert told["position"][-1]["size"] == "0.02"

    def test_an_order_without_exits_has_an_unknown_tpsl_mode(self, venue):
        """Messages recorded from the venue: "tpslMode": "UNKNOWN", where REST says ""; spot has none."""
        of_linear = told_of(venue, limit(qty="0.010"))["order"][0]
        of_spot = told_of(
            venue, order(category="spot", symbol="BTCUSDT", side="Buy", orderType="Limit", qty="0.01", price="59000")
        )

        assert of_linear["tpslMode"] == "UNKNOWN"
        assert "tpslMode" not in of_spot["order"][0]

    def test_a_position_without_exits_has_them_at_zero(self, venue):
        """Bybit v5, *Position* stream: "takeProfit": "0"."""
        position = told_of(venue, market(side="Sell", qty="0.010"))["position"][-1]

        assert [position[name] for name in ("takeProfit", "stopLoss", "trailingStop")] == ["0", "0", "0"]

    def test_a_wallet_tells_the_coins_that_changed(self, venue):
        """A message recorded from an account of several coins names the one a fill was paid in, and the sums are of all."""
        of_linear = told_of(venue, market(qty="0.010"))["wallet"][-1]
        of_spot = told_of(venue, market(category="spot", qty="600"))["wallet"][-1]

        assert [coin["coin"] for coin in of_linear["coin"]] == ["USDT"]
        assert {coin["coin"] for coin in of_spot["coin"]} == {"BTC", "USDT"}
        assert float(of_linear["totalWalletBalance"]) > 2 * float(of_linear["coin"][0]["usdValue"])

    def test_a_coin_that_is_sold_out_is_told(self, venue):
        """A client that keeps what it was told last would otherwise hold it for ever."""
        with venue.trader("2") as other:
            assert other.ask(limit(category="spot", symbol="ETHUSDT", price="2000", qty="50"))["retCode"] == 0
        sold = told_of(venue, market(category="spot", symbol="ETHUSDT", side="Sell", qty="50"))["wallet"][-1]

        assert {coin["coin"]: coin["walletBalance"] for coin in sold["coin"]}["ETH"] == "0"


class TestTickers:
    @pytest.mark.parametrize(
        ("moved", "shown"), [(1.001, "0.0010"), (0.99, "-0.0100"), (1.0, "0.0000"), (0.999999, "0.0000")]
    )
    def test_a_spot_change_of_a_day_has_four_decimals(self, server, moved, shown, monkeypatch):
        """Streams recorded from the venue: "0.0010"; trimmed it would be "0.001"."""
        market = server.server.exchange.markets["BTCUSDT-SPOT.BYBIT"]
        day = market.candles.day(server.server.now())
        moved_day = replace(day, previous=float(market.last) / moved)
        monkeypatch.setattr(market.candles, "day", lambda _: moved_day)

        (ticker,) = server.read("/v5/market/tickers", None, category="spot", symbol="BTCUSDT")["list"]

        assert ticker["price24hPcnt"] == shown


def test_a_funding_interval_below_an_hour_is_still_a_whole_number_to_those_who_read_hours():
    """Bybit v5, *Get Tickers*: `fundingIntervalHour` counts hours; *Get Instruments Info* counts minutes."""
    with drills.serving(Plan(funding_minutes=1)) as exchange:
        session = HTTP()
        session.endpoint = exchange.url
        asked = {"category": "linear", "symbol": "BTCUSDT"}
        (ticker,) = session.get_tickers(**asked)["result"]["list"]
        (instrument,) = session.get_instruments_info(**asked)["result"]["list"]
    assert (ticker["fundingIntervalHour"], instrument["fundingInterval"]) == ("1", 1)
