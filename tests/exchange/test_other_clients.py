"""What clients of others hold the venue to: forms that strictly typed models and general trading libraries rely on.

Each was found by running such a client against the exchange.
"""

import pytest
from msgspec.structs import replace


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
