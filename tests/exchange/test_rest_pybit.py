"""pybit 5.17 as it is, its address apart, against every REST method that a trading engine uses."""

import time
from decimal import Decimal

import pytest
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from tests.exchange.conftest import ANN, ANN_RSA, RSA_KEY, Venue, key

LINEAR = {"category": "linear", "symbol": "BTCUSDT"}
ORDER = {**LINEAR, "side": "Buy", "orderType": "Limit", "qty": "0.01", "price": "59500"}


def session(venue, client=ANN, **options):
    rsa = client is ANN_RSA
    made = HTTP(
        api_key=client.key,
        api_secret=RSA_KEY.export_key().decode() if rsa else client.secret,
        rsa_authentication=rsa,
        **options,
    )
    made.endpoint = f"http://127.0.0.1:{venue.port}"
    return made


@pytest.fixture
def bybit(server):
    return session(server)


class TestMarketData:
    @pytest.mark.parametrize(
        ("method", "query"),
        [
            ("get_server_time", {}),
            ("get_kline", {**LINEAR, "interval": 5, "limit": 10}),
            ("get_mark_price_kline", {**LINEAR, "interval": "60"}),
            ("get_index_price_kline", {**LINEAR, "interval": "D"}),
            ("get_premium_index_price_kline", {**LINEAR, "interval": 1}),
            *(
                ("get_instruments_info", {"category": name, "limit": 1000})
                for name in ("linear", "spot", "inverse", "option")
            ),
            ("get_orderbook", {**LINEAR, "limit": 50}),
            ("get_tickers", {"category": "spot"}),
            ("get_tickers", LINEAR),
            ("get_funding_rate_history", {**LINEAR, "limit": 5}),
            ("get_public_trade_history", LINEAR),
            ("get_open_interest", {**LINEAR, "intervalTime": "1h"}),
            ("get_risk_limit", LINEAR),
            ("get_price_limit", LINEAR),
        ],
    )
    def test_it_is_had_without_a_key(self, shared, method, query):
        made = HTTP()
        made.endpoint = f"http://127.0.0.1:{shared.port}"

        assert getattr(made, method)(**query)["retCode"] == 0


class TestTrading:
    @pytest.mark.parametrize("client", [ANN, ANN_RSA], ids=["HMAC", "RSA"])
    def test_the_life_of_an_order(self, server, client):
        bybit = session(server, client)

        order_id = bybit.place_order(**ORDER, orderLinkId="life")["result"]["orderId"]
        bybit.amend_order(**LINEAR, orderId=order_id, qty="0.02")
        (order,) = bybit.get_open_orders(**LINEAR)["result"]["list"]
        bybit.cancel_order(**LINEAR, orderLinkId="life")

        assert (order["orderId"], order["qty"]) == (order_id, "0.020")
        (past,) = bybit.get_order_history(category="linear")["result"]["list"]
        assert past["orderStatus"] == "Cancelled"
        assert bybit.get_open_orders(**LINEAR)["result"]["list"] == []

    def test_floats_that_pybit_writes_plainly_are_taken(self, bybit, server):
        order_id = bybit.place_order(**LINEAR, side="Buy", orderType="Limit", qty=0.01, price=59500)["result"][
            "orderId"
        ]

        assert server.found(order_id)["price"] == "59500.00"

    def test_a_float_that_pybit_writes_as_an_exponent_is_refused(self, bybit):
        with pytest.raises(InvalidRequestError) as refused:
            bybit.place_order(**LINEAR, side="Buy", orderType="Limit", qty=0.00001, price="59500")

        assert refused.value.status_code == 10001

    def test_batches(self, bybit):
        asked = [{name: value for name, value in ORDER.items() if name != "category"} for _ in range(3)]

        placed = bybit.place_batch_order(category="linear", request=asked)["result"]["list"]
        which = [{"symbol": "BTCUSDT", "orderId": one["orderId"]} for one in placed]
        amended = bybit.amend_batch_order(category="linear", request=[{**one, "price": "59400"} for one in which])
        canceled = bybit.cancel_batch_order(category="linear", request=which)

        for answer in (amended, canceled):
            assert [one["code"] for one in answer["retExtInfo"]["list"]] == [0, 0, 0]

    def test_positions_and_what_is_set_on_them(self, bybit):
        bybit.place_order(**LINEAR, side="Buy", orderType="Market", qty="0.02")
        bybit.set_leverage(**LINEAR, buyLeverage="5", sellLeverage="5")
        bybit.set_trading_stop(**LINEAR, tpslMode="Full", positionIdx=0, takeProfit="61000", stopLoss="59000")

        (position,) = bybit.get_positions(category="linear", settleCoin="USDT")["result"]["list"]
        bybit.place_order(**LINEAR, side="Sell", orderType="Market", qty="0.02", reduceOnly=True)
        (closed,) = bybit.get_closed_pnl(**LINEAR)["result"]["list"]

        assert (position["leverage"], position["takeProfit"], position["stopLoss"]) == ("5", "61000.00", "59000.00")
        assert Decimal(closed["closedPnl"]) < 0
        assert len(bybit.get_executions(category="linear")["result"]["list"]) == 2
        assert bybit.cancel_all_orders(category="linear", settleCoin="USDT")["result"]["success"] == "1"
        assert bybit.switch_position_mode(**LINEAR, mode=3)["retCode"] == 0

    def test_pages_are_turned_with_the_cursor_as_it_came(self, bybit):
        for at in range(5):
            bybit.place_order(**{**ORDER, "price": str(59400 + at)})

        shown, cursor = [], ""
        while True:
            page = bybit.get_open_orders(**LINEAR, limit=2, cursor=cursor)["result"]
            shown += [order["price"] for order in page["list"]]
            cursor = page["nextPageCursor"]
            if not cursor:
                break

        assert shown == [f"{59400 + at}.00" for at in range(4, -1, -1)]

    def test_the_rest_of_what_can_be_asked(self, bybit):
        asked = [
            bybit.get_wallet_balance(accountType="UNIFIED", coin="USDT"),
            bybit.get_account_info(),
            bybit.get_fee_rates(**LINEAR),
            bybit.get_transaction_log(accountType="UNIFIED"),
            bybit.get_collateral_info(),
            bybit.get_api_key_information(),
            bybit.get_coin_info(),
            bybit.get_borrow_quota(category="spot", symbol="BTCUSDT", side="Buy"),
            bybit.set_margin_mode(setMarginMode="REGULAR_MARGIN"),
            bybit.set_dcp(timeWindow=10),
        ]

        assert {answer["retCode"] for answer in asked} == {0}


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "body", "code"),
        [
            ("set_leverage", {**LINEAR, "buyLeverage": "10", "sellLeverage": "10"}, 110043),
            ("switch_position_mode", {**LINEAR, "mode": 0}, 110025),
            ("cancel_order", {**LINEAR, "orderId": "none"}, 110001),
            ("place_order", {**ORDER, "qty": "100"}, 110007),
        ],
    )
    def test_a_business_error_is_the_venues_code(self, shared, method, body, code):
        with pytest.raises(InvalidRequestError) as refused:
            getattr(session(shared), method)(**body)

        assert refused.value.status_code == code

    def test_a_wrong_secret(self, shared):
        made = session(shared, key("ann"))
        made.api_secret = "wrong"  # noqa: S105 (it is)

        with pytest.raises(InvalidRequestError) as refused:
            made.get_account_info()

        assert refused.value.status_code in {10003, 10004}

    def test_it_waits_out_the_rate_limit_and_goes_on(self):
        with Venue(scale=1.0) as venue:
            bybit = session(venue)
            begun = time.monotonic()
            codes = [bybit.place_order(**ORDER)["retCode"] for _ in range(12)]

        assert codes == [0] * 12
        assert time.monotonic() - begun < 5

    def test_a_forbidden_address_is_told_by_status(self):
        with Venue(scale=0.0) as venue, pytest.raises(FailedRequestError) as refused:
            session(venue).get_server_time()

        assert refused.value.status_code == 403
