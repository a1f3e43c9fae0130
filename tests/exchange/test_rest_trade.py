"""Orders, executions and positions over REST: what is taken, what is refused and why, and how lists turn their pages."""

import json
import time
import uuid
from decimal import Decimal

import pytest

from hean.exchange.words import ZERO
from hean.units import DAY, MILLISECOND
from tests.exchange.conftest import ANN, BOB

CREATE, AMEND, CANCEL = "/v5/order/create", "/v5/order/amend", "/v5/order/cancel"
LIMIT = {
    "category": "linear",
    "symbol": "BTCUSDT",
    "side": "Buy",
    "orderType": "Limit",
    "qty": "0.01",
    "price": "59500",
}
SPOT = {**LIMIT, "category": "spot"}
MARKET = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.01"}
PERP = "BTCUSDT-LINEAR.BYBIT"


def code(venue, path, **body):
    return venue.post(path, **body)["retCode"]


def open_orders(venue, **query):
    return venue.read("/v5/order/realtime", **{"category": "linear", "symbol": "BTCUSDT", **query})


class TestCreate:
    def test_the_acknowledgement_names_the_order_and_no_more(self, server):
        result = server.ok(CREATE, **LIMIT, orderLinkId="mine-1")

        assert set(result) == {"orderId", "orderLinkId"}
        assert result["orderLinkId"] == "mine-1"
        uuid.UUID(result["orderId"])

    def test_spot_orders_have_ids_of_19_digits(self, server):
        order_id = server.ok(CREATE, **SPOT)["orderId"]

        assert order_id.isdecimal()
        assert len(order_id) == 19

    def test_an_order_is_shown_as_it_was_asked_for(self, server):
        order_id = server.order(
            "Sell", "0.02", "60500", orderLinkId="a", timeInForce="PostOnly", takeProfit="59000", stopLoss="61000",
            tpTriggerBy="MarkPrice", smpType="CancelMaker",
        )  # fmt: skip

        order = server.found(order_id)

        asked = {
            "symbol": "BTCUSDT", "side": "Sell", "orderType": "Limit", "timeInForce": "PostOnly", "orderLinkId": "a",
            "qty": "0.020", "price": "60500.00", "leavesQty": "0.020", "leavesValue": "1210", "cumExecQty": "0.000",
            "takeProfit": "59000.00", "stopLoss": "61000.00", "tpTriggerBy": "MarkPrice", "slTriggerBy": "LastPrice",
            "tpslMode": "Full", "smpType": "CancelMaker", "orderStatus": "New", "avgPrice": "", "reduceOnly": False,
            "positionIdx": 0, "triggerDirection": 0, "rejectReason": "EC_NoError", "cancelType": "UNKNOWN",
        }  # fmt: skip
        assert {name: order[name] for name in asked} == asked

    def test_a_filled_order_has_nothing_left(self, server):
        order = server.found(server.order("Buy", "0.01"))

        assert order["orderStatus"] == "Filled"
        assert (order["leavesQty"], order["leavesValue"]) == ("0", "0")
        assert (order["cumExecQty"], order["avgPrice"], order["cumExecValue"]) == ("0.010", "60001", "600.01")
        assert Decimal(order["cumExecFee"]) == Decimal("600.01") * Decimal("0.00055")
        assert order["cumFeeDetail"] == {"USDT": order["cumExecFee"]}
        assert order["timeInForce"] == "IOC"

    @pytest.mark.parametrize(
        ("more", "same"),
        [
            ({"qty": 1}, "1.000"),
            ({"qty": 0.015}, "0.015"),
            ({"qty": "0.010"}, "0.010"),
            ({"reduceOnly": "false", "positionIdx": "0", "isLeverage": 0, "closeOnTrigger": 0}, "0.010"),
            ({"nobody": {"knows": ["this"]}, "price": "59500.0"}, "0.010"),
            ({"orderLinkId": None, "takeProfit": "", "stopLoss": "0"}, "0.010"),
        ],
        ids=str,
    )
    def test_what_other_clients_send_is_understood(self, server, more, same):
        order_id = server.ok(CREATE, **{**LIMIT, **more})["orderId"]

        assert server.found(order_id)["qty"] == same

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [
            ({"category": "futures"}, "category"),
            ({"category": None}, "category"),
            ({"symbol": "NOUSDT"}, "symbol"),
            ({"symbol": "btcusdt"}, "symbol"),
            ({"symbol": ["BTCUSDT"]}, "symbol"),
            ({"side": "buy"}, "side"),
            ({"side": None}, "side"),
            ({"orderType": "Stop"}, "orderType"),
            ({"timeInForce": "GTX"}, "timeInForce"),
            ({"timeInForce": "RPI"}, "timeInForce"),
            ({"price": None}, "price"),
            ({"price": "59500.05"}, "price"),
            ({"price": "-1"}, "price"),
            ({"price": "0"}, "price"),
            ({"price": "NaN"}, "price"),
            ({"qty": None}, "qty"),
            ({"qty": "1e-2"}, "qty"),
            ({"qty": "1E3"}, "qty"),
            ({"qty": "inf"}, "qty"),
            ({"qty": "0x1"}, "qty"),
            ({"qty": "1_0"}, "qty"),
            ({"qty": "٣"}, "qty"),
            ({"qty": "9" * 400}, "qty"),
            ({"qty": True}, "qty"),
            ({"qty": {"value": 1}}, "qty"),
            ({"qty": "0.0005"}, "Qty"),
            ({"qty": "0"}, "Qty"),
            ({"positionIdx": 7}, "positionIdx"),
            ({"positionIdx": "x"}, "positionIdx"),
            ({"positionIdx": 1}, "position idx"),
            ({"reduceOnly": "maybe"}, "reduceOnly"),
            ({"orderLinkId": "a b"}, "orderLinkId"),
            ({"orderLinkId": "x" * 37}, "orderLinkId"),
            ({"triggerPrice": "61000"}, "triggerDirection"),
            ({"triggerPrice": "61000", "triggerDirection": 3}, "triggerDirection"),
            ({"triggerPrice": "61000", "triggerDirection": 1, "triggerBy": "Tea"}, "triggerBy"),
            ({"smpType": "CancelAll"}, "smpType"),
            ({"tpslMode": "Half", "takeProfit": "61000"}, "tpslMode"),
            ({"takeProfit": "61000", "tpOrderType": "Limit"}, "tpLimitPrice"),
            ({"takeProfit": "61000.05"}, "takeProfit"),
            ({"stopLoss": "59000.001"}, "stopLoss"),
            ({"triggerPrice": "61000.05", "triggerDirection": 1}, "triggerPrice"),
            ({"takeProfit": "61000", "tpOrderType": "Limit", "tpLimitPrice": "61000"}, "tpslMode"),
        ],
        ids=str,
    )
    def test_what_is_wrong_is_named(self, shared, wrong, named):
        body = {name: value for name, value in {**LIMIT, **wrong}.items() if value is not None}

        answer = shared.post(CREATE, **body)

        assert answer["retCode"] == 10001
        assert answer["result"] == {}
        assert named in answer["retMsg"], answer["retMsg"]

    def test_a_number_in_exponent_notation_is_refused_though_json_allows_it(self, shared):
        body = json.dumps(LIMIT).replace('"0.01"', "1e-02").encode()

        assert shared.raw_post(CREATE, body)["retCode"] == 10001

    @pytest.mark.parametrize(
        ("wrong", "refused"),
        [
            ({"side": "Up"}, 170117),
            ({"side": None}, 170105),
            ({"orderType": "Iceberg"}, 170116),
            ({"timeInForce": "GTX"}, 170115),
            ({"symbol": "NOUSDT"}, 170121),
            ({"price": None}, 170105),
            ({"price": "59500.01"}, 170134),
            ({"qty": "0.0000001"}, 170137),
            ({"qty": "0.00001"}, 170140),
            ({"qty": "500"}, 170341),
            ({"qty": "5"}, 170131),
            ({"price": "61000"}, 170132),
            ({"side": "Sell", "price": "59000"}, 170133),
            ({"isLeverage": "maybe"}, 170130),
            ({"orderType": "Market", "qty": "600.00000001"}, 170148),
            ({"qty": "1e-3"}, 10001),
        ],
        ids=str,
    )
    def test_spot_has_codes_of_its_own(self, shared, wrong, refused):
        body = {name: value for name, value in {**SPOT, **wrong}.items() if value is not None}

        assert code(shared, CREATE, **body) == refused

    @pytest.mark.parametrize(
        ("wrong", "refused"),
        [
            ({"price": "70000"}, 110003),
            ({"qty": "0.001", "price": "1000"}, 110094),
            ({"qty": "100"}, 110007),
            ({"reduceOnly": True}, 110017),
            ({"triggerPrice": "59000", "triggerDirection": 1}, 110092),
            ({"triggerPrice": "61000", "triggerDirection": 2}, 110093),
        ],
        ids=str,
    )
    def test_an_order_the_account_or_the_market_does_not_allow_does_not_exist(self, shared, wrong, refused):
        assert code(shared, CREATE, **{**LIMIT, **wrong}, orderLinkId="never") == refused
        assert open_orders(shared, orderLinkId="never")["list"] == []

    @pytest.mark.parametrize(("body", "refused"), [(LIMIT, 110072), (SPOT, 170141)], ids=["linear", "spot"])
    def test_a_link_id_is_used_once_for_ever(self, server, body, refused):
        first = server.ok(CREATE, **body, orderLinkId="once")
        server.ok(CANCEL, category=body["category"], symbol="BTCUSDT", orderLinkId="once")

        assert code(server, CREATE, **body, orderLinkId="once") == refused
        assert server.post(CREATE, BOB, **body, orderLinkId="once")["retCode"] == 0
        found = open_orders(server, category=body["category"], orderLinkId="once")["list"]
        assert [order["orderId"] for order in found] == [first["orderId"]]

    def test_a_spot_market_buy_is_a_sum_of_money_unless_told_otherwise(self, server):
        money = server.found(server.order("Buy", "600", category="spot"), "spot")
        coins = server.found(server.order("Buy", "0.01", category="spot", marketUnit="baseCoin"), "spot")
        sold = server.found(server.order("Sell", "0.01", category="spot"), "spot")

        assert (money["marketUnit"], money["qty"], money["cumExecQty"]) == ("quoteCoin", "600", "0.009999")
        assert (coins["marketUnit"], coins["qty"], coins["cumExecQty"]) == ("baseCoin", "0.01", "0.01")
        assert sold["cumExecQty"] == "0.01"
        assert (set(money["cumFeeDetail"]), set(sold["cumFeeDetail"])) == ({"BTC"}, {"USDT"})
        assert "createType" not in money

    def test_a_sale_given_by_its_proceeds_sells_what_comes_to_them(self, server):
        sold = server.found(server.order("Sell", "600", category="spot", marketUnit="quoteCoin"), "spot")

        assert Decimal(sold["cumExecQty"]) == Decimal("0.01")

    def test_a_best_price_order_takes_its_price_from_the_book(self, server):
        order_id = server.order("Buy", "0.01", "1", bboSideType="Queue", bboLevel="3")

        assert server.found(order_id)["price"] == "59997.00"

    def test_what_the_book_refuses_is_acknowledged_first(self, server):
        order = server.found(server.order("Buy", "0.01", "60010", timeInForce="PostOnly"))

        assert (order["orderStatus"], order["rejectReason"]) == ("Cancelled", "EC_PostOnlyWillTakeLiquidity")

    def test_nought_closes_the_position(self, server):
        server.order("Buy", "0.03")

        server.order("Sell", "0", reduceOnly=True, closeOnTrigger=True)

        (position,) = server.read("/v5/position/list", category="linear", symbol="BTCUSDT")["list"]
        assert (position["size"], position["side"]) == ("0", "")


class TestAmendAndCancel:
    def test_an_amendment_changes_what_it_names(self, server):
        order_id = server.order("Buy", "0.01", "59500", orderLinkId="x", takeProfit="60500", tpTriggerBy="MarkPrice")

        result = server.ok(
            AMEND, category="linear", symbol="BTCUSDT", orderId=order_id, qty="0.02", price="59400", takeProfit="60600"
        )

        order = server.found(order_id)
        assert result == {"orderId": order_id, "orderLinkId": "x"}
        assert (order["qty"], order["price"]) == ("0.020", "59400.00")
        assert (order["takeProfit"], order["tpTriggerBy"]) == ("60600.00", "MarkPrice")

    def test_an_exit_is_removed_by_nought(self, server):
        order_id = server.order("Buy", "0.01", "59500", takeProfit="60500", stopLoss="59000")

        server.ok(AMEND, category="linear", symbol="BTCUSDT", orderId=order_id, takeProfit="0")

        order = server.found(order_id)
        assert (order["takeProfit"], order["stopLoss"]) == ("", "59000.00")

    @pytest.mark.parametrize(
        ("path", "category", "refused"),
        [(CANCEL, "linear", 110001), (AMEND, "linear", 110001), (CANCEL, "spot", 170213), (AMEND, "spot", 170213)],
    )
    def test_an_order_that_is_not_there(self, shared, path, category, refused):
        which = {"category": category, "symbol": "BTCUSDT", "orderId": "nothing", "qty": "0.02"}

        assert code(shared, path, **which) == refused

    def test_the_order_id_wins_over_the_link_id(self, server):
        first = server.order("Buy", "0.01", "59500", orderLinkId="first")
        server.order("Buy", "0.01", "59500", orderLinkId="second")

        server.ok(CANCEL, category="linear", symbol="BTCUSDT", orderId=first, orderLinkId="second")

        assert [order["orderLinkId"] for order in open_orders(server)["list"]] == ["second"]

    @pytest.mark.parametrize("path", [CANCEL, AMEND])
    def test_an_order_must_be_named(self, shared, path):
        answer = shared.post(path, category="linear", symbol="BTCUSDT")

        assert (answer["retCode"], answer["retMsg"]) == (10001, "params error: OrderId or orderLinkId is required")

    def test_another_accounts_order_is_not_there(self, server):
        order_id = server.order("Buy", "0.01", "59500", key=BOB)

        assert code(server, CANCEL, category="linear", symbol="BTCUSDT", orderId=order_id) == 110001
        assert server.found(order_id, key=BOB)["orderStatus"] == "New"

    def test_cancel_all_takes_symbol_before_coin(self, server):
        btc = server.order("Buy", "0.01", "59500")
        eth = server.order("Buy", "0.1", "2990", symbol="ETHUSDT")

        result = server.ok("/v5/order/cancel-all", category="linear", symbol="BTCUSDT", settleCoin="USDT")

        assert result == {"list": [{"orderId": btc, "orderLinkId": ""}], "success": "1"}
        assert server.found(eth)["orderStatus"] == "New"
        assert len(server.ok("/v5/order/cancel-all", category="linear", settleCoin="USDT")["list"]) == 1

    def test_cancel_all_of_linear_needs_to_know_of_what(self, shared):
        assert code(shared, "/v5/order/cancel-all", category="linear") == 10001
        assert shared.ok("/v5/order/cancel-all", category="inverse") == {"list": [], "success": "1"}

    def test_cancel_all_of_a_kind(self, server):
        active = server.order("Buy", "0.01", "59500")
        waiting = server.order("Buy", "0.01", "60400", triggerPrice="60300", triggerDirection=1)

        server.ok("/v5/order/cancel-all", category="linear", symbol="BTCUSDT", orderFilter="StopOrder")

        assert server.found(active)["orderStatus"] == "New"
        assert server.found(waiting)["orderStatus"] in {"Deactivated", "Cancelled"}


class TestBatches:
    def test_each_order_succeeds_or_fails_by_itself_and_in_order(self, server):
        good, bad = LIMIT, {**LIMIT, "qty": "1e-2", "orderLinkId": "bad"}

        answer = server.post("/v5/order/create-batch", category="linear", request=[good, bad, {}, good])

        listed, said = answer["result"]["list"], answer["retExtInfo"]["list"]
        assert answer["retCode"] == 0
        assert [one["code"] for one in said] == [0, 10001, 10001, 0]
        assert said[0]["msg"] == "OK"
        assert [bool(one["orderId"]) for one in listed] == [True, False, False, True]
        assert (listed[1]["orderLinkId"], listed[1]["createAt"]) == ("bad", "")
        assert listed[0].keys() == {"category", "symbol", "orderId", "orderLinkId", "createAt"}
        assert len(open_orders(server)["list"]) == 2

    def test_a_batch_amends_and_cancels(self, server):
        ids = [server.order("Buy", "0.01", "59500") for _ in range(2)]
        asked = [{"symbol": "BTCUSDT", "orderId": order_id} for order_id in [*ids, "nothing"]]

        amended = server.post(
            "/v5/order/amend-batch", category="linear", request=[{**one, "qty": "0.02"} for one in asked]
        )
        canceled = server.post("/v5/order/cancel-batch", category="linear", request=asked)

        for answer in (amended, canceled):
            assert [one["code"] for one in answer["retExtInfo"]["list"]] == [0, 0, 110001]
            assert [one["orderId"] for one in answer["result"]["list"]] == [*ids, ""]
        assert [server.found(order_id)["qty"] for order_id in ids] == ["0.020", "0.020"]
        assert open_orders(server)["list"] == []

    @pytest.mark.parametrize(
        "body",
        [
            {"category": "linear"},
            {"category": "linear", "request": []},
            {"category": "linear", "request": {}},
            {"category": "linear", "request": [1, "x"]},
            {"request": [LIMIT]},
            {"category": "linear", "request": [LIMIT] * 21},
            {"category": "spot", "request": [SPOT] * 11},
        ],
        ids=["none", "empty", "an object", "no orders", "no category", "21", "11 of spot"],
    )
    def test_a_batch_that_is_none_is_refused_whole(self, shared, body):
        assert code(shared, "/v5/order/create-batch", **body) == 10001

    def test_twenty_of_linear_and_ten_of_spot_are_taken(self, server):
        for order, count in ((LIMIT, 20), ({**SPOT, "qty": "0.001"}, 10)):
            answer = server.post("/v5/order/create-batch", category=order["category"], request=[order] * count)
            assert [one["code"] for one in answer["retExtInfo"]["list"]] == [0] * count


class TestOrderLists:
    def test_open_orders_turn_their_pages_newest_first(self, server):
        placed = [server.order("Buy", "0.01", str(59400 + at)) for at in range(5)]

        shown, cursor, pages = [], None, 0
        while cursor != "":
            page = open_orders(server, limit=2, cursor=cursor)
            shown += [order["orderId"] for order in page["list"]]
            cursor, pages = page["nextPageCursor"], pages + 1

        assert shown == placed[::-1]
        assert pages == 3

    def test_a_page_is_not_shifted_by_an_order_that_goes(self, server):
        placed = [server.order("Buy", "0.01", str(59400 + at)) for at in range(4)]
        first = open_orders(server, limit=2)
        server.ok(CANCEL, category="linear", symbol="BTCUSDT", orderId=placed[3])

        second = open_orders(server, limit=2, cursor=first["nextPageCursor"])

        assert [order["orderId"] for order in second["list"]] == [placed[1], placed[0]]

    def test_a_cursor_is_percent_encoded_and_taken_back_as_it_is(self, server):
        for at in range(3):
            server.order("Buy", "0.01", str(59400 + at))
        cursor = open_orders(server, limit=1)["nextPageCursor"]

        assert "%3A" in cursor
        as_given = open_orders(server, limit=1, cursor=cursor)["list"]
        encoded_again = open_orders(server, limit=1, cursor=cursor.replace("%", "%25"))["list"]
        assert as_given == encoded_again

    @pytest.mark.parametrize("path", ["/v5/order/realtime", "/v5/order/history", "/v5/execution/list"])
    @pytest.mark.parametrize("cursor", ["x", "page%3Ax", "a%3Ab%3Ac", "%3A", "page%3A1e5", f"page%3A{'9' * 5_000}"])
    def test_a_cursor_that_is_none_of_ours(self, shared, path, cursor):
        answer = shared.get(path, category="linear", symbol="BTCUSDT", cursor=cursor)

        assert answer["retCode"] == 10001

    def test_finished_orders_are_shown_by_id_and_on_request(self, server):
        filled, resting = server.order("Buy", "0.01"), server.order("Buy", "0.01", "59500")

        assert [order["orderId"] for order in open_orders(server)["list"]] == [resting]
        assert [order["orderId"] for order in open_orders(server, openOnly=1)["list"]] == [filled]
        assert server.found(filled)["orderStatus"] == "Filled"
        history = server.read("/v5/order/history", category="linear")["list"]
        assert [order["orderId"] for order in history] == [resting, filled]

    def test_what_ended_before_a_restart_is_in_the_history_alone(self, server):
        filled = server.order("Buy", "0.01")
        server.do(lambda inside: setattr(inside, "ts_started", inside.now()))

        assert open_orders(server, openOnly=1)["list"] == []
        assert open_orders(server, orderId=filled)["list"] == []
        history = server.read("/v5/order/history", category="linear", orderId=filled)["list"]
        assert [order["orderStatus"] for order in history] == ["Filled"]

    @pytest.mark.parametrize(
        "query", [{}, {"limit": 51}, {"limit": 0}, {"openOnly": 3}, {"orderFilter": "All"}], ids=str
    )
    def test_open_orders_of_linear_need_a_symbol_or_coin_and_fair_bounds(self, shared, query):
        if query:
            query = {"symbol": "BTCUSDT", **query}

        assert shared.get("/v5/order/realtime", category="linear", **query)["retCode"] == 10001

    @pytest.mark.parametrize(
        ("query", "found"),
        [({"baseCoin": "BTC"}, 1), ({"baseCoin": "ETH"}, 1), ({"settleCoin": "USDT"}, 2), ({"settleCoin": "USDC"}, 0)],
        ids=str,
    )
    def test_open_orders_by_coin(self, server, query, found):
        server.order("Buy", "0.01", "59500")
        server.order("Buy", "0.1", "2990", symbol="ETHUSDT")

        assert len(server.read("/v5/order/realtime", category="linear", **query)["list"]) == found

    @pytest.mark.parametrize(
        "path", ["/v5/order/realtime", "/v5/order/history", "/v5/execution/list", "/v5/position/list"]
    )
    @pytest.mark.parametrize("category", ["inverse", "option"])
    def test_categories_without_instruments_are_empty(self, shared, path, category):
        result = shared.read(path, category=category)

        assert result == {"category": category, "list": [], "nextPageCursor": ""}

    def test_open_orders_of_a_kind(self, server):
        active = server.order("Buy", "0.01", "59500")
        waiting = server.order("Buy", "0.01", "60400", triggerPrice="60300", triggerDirection=1)

        shown = {
            kind: [order["orderId"] for order in open_orders(server, orderFilter=kind)["list"]]
            for kind in ("Order", "StopOrder", "tpslOrder")
        }

        assert shown == {"Order": [active], "StopOrder": [waiting], "tpslOrder": []}

    def test_an_order_named_by_id_is_found_whatever_else_is_asked(self, server):
        order_id = server.order("Buy", "0.01", orderLinkId="by-link")

        for path in ("/v5/order/realtime", "/v5/order/history", "/v5/execution/list"):
            for named in ({"orderId": order_id}, {"orderLinkId": "by-link"}):
                (row,) = server.read(path, category="linear", symbol="ETHUSDT", **named)["list"]
                assert row["orderId"] == order_id

    def test_the_history_forgets_after_a_day_what_ended_without_a_fill(self, server):
        canceled, filled = server.order("Buy", "0.01", "59500"), server.order("Buy", "0.01")
        server.ok(CANCEL, category="linear", symbol="BTCUSDT", orderId=canceled)

        def grow_old(inside):
            for order in inside.exchange.records[ANN.uid].orders.values():
                order.ts_created -= DAY
                order.ts_updated -= DAY

        server.do(grow_old)

        history = server.read("/v5/order/history", category="linear")["list"]
        assert [order["orderId"] for order in history] == [filled]

    @pytest.mark.parametrize("path", ["/v5/order/history", "/v5/execution/list", "/v5/position/closed-pnl"])
    @pytest.mark.parametrize(("days", "allowed"), [(7, True), (7.01, False), (-1, False)])
    def test_a_history_is_of_seven_days_at_most(self, shared, path, days, allowed):
        end = time.time_ns() // MILLISECOND
        start = end - int(days * DAY // MILLISECOND)

        answer = shared.get(path, category="linear", startTime=start, endTime=end)

        assert answer["retCode"] == (0 if allowed else 10001)

    def test_orders_of_a_span(self, server):
        placed = [server.order("Buy", "0.01", "59500") for _ in range(3)]
        times = [int(server.found(order_id)["createdTime"]) for order_id in placed]
        age = DAY // MILLISECOND

        def space_out(inside):
            for number, order in enumerate(inside.exchange.records[ANN.uid].orders.values()):
                order.ts_created -= (3 - number) * DAY

        server.do(space_out)

        def within(**span):
            listed = server.read("/v5/order/history", category="linear", **span)["list"]
            return [placed.index(order["orderId"]) for order in listed]

        assert within(startTime=times[1] - 2 * age, endTime=times[1] - 2 * age) == [1]
        assert within(startTime=times[1] - 2 * age) == [2, 1]
        assert within(endTime=times[1] - 2 * age) == [1, 0]
        assert within() == [2, 1, 0]


class TestExecutions:
    def test_a_fill_is_shown_with_its_fee(self, server):
        order_id = server.order("Buy", "0.01", orderLinkId="f")

        (fill,) = server.read("/v5/execution/list", category="linear", orderId=order_id)["list"]

        shown = {
            "symbol": "BTCUSDT", "orderId": order_id, "orderLinkId": "f", "side": "Buy", "execPrice": "60001.00",
            "execQty": "0.010", "orderQty": "0.010", "leavesQty": "0.000", "execType": "Trade", "orderType": "Market",
            "feeRate": "0.00055", "execValue": "600.01", "execFee": "0.3300055", "isMaker": False,
            "stopOrderType": "UNKNOWN", "feeCurrency": "USDT", "closedSize": "0.000",
        }  # fmt: skip
        assert {name: fill[name] for name in shown} == shown

    def test_they_turn_their_pages_newest_first_and_are_filtered(self, server):
        for number in range(5):
            server.order("Buy" if number % 2 else "Sell", "0.01", orderLinkId=f"n{number}")
        server.order("Buy", "0.1", symbol="ETHUSDT")

        shown, cursor = [], None
        while cursor != "":
            page = server.read("/v5/execution/list", category="linear", symbol="BTCUSDT", limit=2, cursor=cursor)
            shown += [fill["orderLinkId"] for fill in page["list"]]
            cursor = page["nextPageCursor"]

        assert shown == ["n4", "n3", "n2", "n1", "n0"]
        by_link = server.read("/v5/execution/list", category="linear", orderLinkId="n2")["list"]
        assert [fill["orderLinkId"] for fill in by_link] == ["n2"]
        assert server.read("/v5/execution/list", category="linear", execType="Funding")["list"] == []

    def test_of_a_long_history_one_request_goes_through_a_part(self, server):
        """What a filter leaves out is looked at all the same: a million entries would hold everybody up."""
        server.order("Buy", "0.01", orderLinkId="old")
        server.order("Buy", "0.1", symbol="ETHUSDT")

        def repeat(inside):
            fills = inside.exchange.records[ANN.uid].executions
            fills.extend([fills[-1]] * 50_000)

        server.do(repeat)
        pages, found, cursor = 0, [], None
        while cursor != "":
            page = server.read("/v5/execution/list", category="linear", symbol="BTCUSDT", cursor=cursor)
            found += [fill["orderLinkId"] for fill in page["list"]]
            cursor, pages = page["nextPageCursor"], pages + 1

        assert found == ["old"]
        assert pages == 3
        # An order's own are found at once: it is known when they were.
        by_link = server.read("/v5/execution/list", category="linear", orderLinkId="old")
        assert len(by_link["list"]) == 1

    def test_a_page_keeps_its_place_while_fills_come(self, server):
        for number in range(4):
            server.order("Buy", "0.01", orderLinkId=f"n{number}")
        first = server.read("/v5/execution/list", category="linear", limit=2)
        server.order("Buy", "0.01", orderLinkId="late")

        second = server.read("/v5/execution/list", category="linear", limit=2, cursor=first["nextPageCursor"])

        assert [fill["orderLinkId"] for fill in second["list"]] == ["n1", "n0"]

    def test_funding_is_an_execution_of_its_own_sign(self, server):
        server.order("Buy", "0.1")
        server.do(lambda inside: inside.exchange.settle_funding(PERP, inside.now(), Decimal("0.0002")))

        (row,) = server.read("/v5/execution/list", category="linear", execType="Funding")["list"]
        (logged,) = server.read("/v5/account/transaction-log", type="SETTLEMENT")["list"]

        paid = Decimal(row["execFee"])
        assert paid > 0
        assert row["orderType"] == "UNKNOWN"
        assert Decimal(logged["funding"]) == -paid
        assert Decimal(logged["change"]) == -paid
        assert (Decimal(logged["size"]), logged["feeRate"]) == (Decimal("0.1"), "0.0002")


class TestPositions:
    def positions(self, venue, **query):
        return venue.read("/v5/position/list", **{"category": "linear", "symbol": "BTCUSDT", **query})["list"]

    def test_a_flat_position_has_a_row_when_it_is_named(self, shared):
        (flat,) = self.positions(shared, symbol="ETHUSDT")

        shown = {
            "side": "",
            "size": "0",
            "positionIdx": 0,
            "avgPrice": "0",
            "seq": -1,
            "liqPrice": "",
            "leverage": "10",
        }
        assert {name: flat[name] for name in shown} == shown
        assert shared.read("/v5/position/list", category="linear", settleCoin="USDC")["list"] == []

    def test_a_position_needs_a_symbol_or_settlement_coin(self, shared):
        assert shared.get("/v5/position/list", category="linear")["retCode"] == 10001
        assert shared.get("/v5/position/list", category="spot", symbol="BTCUSDT")["retCode"] == 10001

    @pytest.mark.parametrize(("side", "sign"), [("Buy", 1), ("Sell", -1)])
    def test_its_figures_add_up(self, server, side, sign):
        server.order(side, "0.1")
        (position,) = self.positions(server)

        mark, entry = Decimal(position["markPrice"]), Decimal(position["avgPrice"])
        assert (position["side"], position["size"]) == (side, "0.100")
        assert Decimal(position["unrealisedPnl"]) == sign * (mark - entry) * Decimal("0.1")
        assert Decimal(position["positionValue"]) == entry * Decimal("0.1")
        assert Decimal(position["positionIM"]) > Decimal(position["positionMM"]) > 0
        fee = entry * Decimal("0.1") * Decimal("0.00055")
        assert Decimal(position["curRealisedPnl"]) == Decimal(position["cumRealisedPnl"]) == -fee
        even = Decimal(position["breakEvenPrice"])
        closing = sign * (even - entry) * Decimal("0.1") - even * Decimal("0.1") * Decimal("0.00055")
        assert abs(closing - fee) < Decimal("1e-6")

    def test_hedge_mode_has_two_rows(self, server):
        server.ok("/v5/position/switch-mode", category="linear", symbol="BTCUSDT", mode=3)
        server.order("Buy", "0.02", positionIdx=1)
        server.order("Sell", "0.01", positionIdx=2)

        long, short = self.positions(server)

        assert (long["positionIdx"], long["side"], long["size"]) == (1, "Buy", "0.020")
        assert (short["positionIdx"], short["side"], short["size"]) == (2, "Sell", "0.010")

    @pytest.mark.parametrize(
        ("path", "body", "refused"),
        [
            ("set-leverage", {"buyLeverage": "10", "sellLeverage": "10"}, 110043),
            ("set-leverage", {"buyLeverage": "101", "sellLeverage": "101"}, 110013),
            ("set-leverage", {"buyLeverage": "5", "sellLeverage": "6"}, 10001),
            ("set-leverage", {"buyLeverage": "5"}, 10001),
            ("set-leverage", {"buyLeverage": "1e1", "sellLeverage": "1e1"}, 10001),
            ("set-leverage", {"buyLeverage": "5.005", "sellLeverage": "5.005"}, 10001),
            ("switch-mode", {"mode": 0}, 110025),
            ("switch-mode", {"mode": 1}, 10001),
            ("switch-mode", {}, 10001),
            ("add-margin", {"margin": "10"}, 110015),
            ("set-auto-add-margin", {"autoAddMargin": 1}, 110076),
            ("switch-isolated", {"tradeMode": 1, "buyLeverage": "10", "sellLeverage": "10"}, 100028),
            ("trading-stop", {"tpslMode": "Full", "positionIdx": 0, "takeProfit": "61000"}, 10001),
            ("trading-stop", {"tpslMode": "Full", "positionIdx": 0, "takeProfit": "high"}, 10001),
        ],
    )  # fmt: skip
    def test_settings_that_are_refused(self, shared, path, body, refused):
        answer = shared.post(f"/v5/position/{path}", category="linear", symbol="ETHUSDT", **body)

        assert answer["retCode"] == refused, answer["retMsg"]

    def test_leverage_is_set_and_asks_for_less_margin(self, server):
        server.order("Buy", "0.1")
        (before,) = self.positions(server)

        assert (
            server.ok(
                "/v5/position/set-leverage", category="linear", symbol="BTCUSDT", buyLeverage="20", sellLeverage="20"
            )
            == {}
        )

        (after,) = self.positions(server)
        assert (before["leverage"], after["leverage"]) == ("10", "20")
        assert Decimal(after["positionIM"]) < Decimal(before["positionIM"])

    def test_the_mode_stays_while_there_is_a_position_or_an_order(self, server):
        order_id = server.order("Buy", "0.01", "59500")
        switch = {"category": "linear", "symbol": "BTCUSDT", "mode": 3}

        assert code(server, "/v5/position/switch-mode", **switch) == 110028
        server.ok(CANCEL, category="linear", symbol="BTCUSDT", orderId=order_id)
        server.order("Buy", "0.01")
        assert code(server, "/v5/position/switch-mode", **switch) == 110024
        assert code(server, "/v5/position/switch-mode", category="linear", coin="USDT", mode=3) == 110024

    def test_exits_are_set_shown_and_removed(self, server):
        server.order("Buy", "0.02")
        stop = {"category": "linear", "symbol": "BTCUSDT", "tpslMode": "Full", "positionIdx": 0}

        server.ok("/v5/position/trading-stop", **stop, takeProfit="61000", stopLoss="59000", trailingStop="100")
        (position,) = self.positions(server)
        assert [position[name] for name in ("takeProfit", "stopLoss", "trailingStop")] == [
            "61000.00",
            "59000.00",
            "100.00",
        ]
        assert code(server, "/v5/position/trading-stop", **stop, takeProfit="61000") == 34040

        server.ok("/v5/position/trading-stop", **stop, takeProfit="0", stopLoss="0", trailingStop="0")
        (position,) = self.positions(server)
        assert [position[name] for name in ("takeProfit", "stopLoss", "trailingStop")] == ["", "", "0.00"]

    def test_a_closed_profit_is_that_of_entry_exit_and_fees(self, server):
        server.order("Buy", "0.1")
        closing = server.order("Sell", "0.1")

        (closed,) = server.read("/v5/position/closed-pnl", category="linear", symbol="BTCUSDT")["list"]

        assert (closed["orderId"], closed["side"], closed["fillCount"], closed["execType"]) == (
            closing,
            "Sell",
            "1",
            "Trade",
        )
        entry, exit_ = Decimal(closed["cumEntryValue"]), Decimal(closed["cumExitValue"])
        fees = Decimal(closed["openFee"]) + Decimal(closed["closeFee"])
        assert Decimal(closed["closedPnl"]) == exit_ - entry - fees
        assert (closed["avgEntryPrice"], closed["avgExitPrice"], closed["closedSize"]) == ("60001", "59999", "0.1")


class TestTheRest:
    def test_a_pre_check_leaves_nothing_behind(self, server):
        before = server.read("/v5/account/wallet-balance", accountType="UNIFIED")

        result = server.ok("/v5/order/pre-check", **LIMIT, orderLinkId="pre")

        assert result["preImrE4"] == 0
        assert result["postImrE4"] > 0
        assert [type(result[name]) for name in ("preMmrE4", "postMmrE4")] == [int, int]
        assert server.read("/v5/account/wallet-balance", accountType="UNIFIED") == before
        assert code(server, "/v5/order/pre-check", **{**LIMIT, "qty": "100"}) == 110007
        assert server.ok(CREATE, **LIMIT, orderLinkId="pre")["orderLinkId"] == "pre"

    def test_disconnect_cancel_is_armed(self, server):
        answer = server.post("/v5/order/disconnected-cancel-all", timeWindow=40, product="DERIVATIVES")

        assert (answer["retCode"], answer["retMsg"]) == (0, "success")
        infos = server.read("/v5/account/query-dcp-info")["dcpInfos"]
        assert infos == [{"product": "DERIVATIVES", "dcpStatus": "ON", "timeWindow": "40"}]

    @pytest.mark.parametrize(
        "body", [{}, {"timeWindow": 2}, {"timeWindow": 301}, {"timeWindow": 10, "product": "X"}], ids=str
    )
    def test_a_window_that_is_none(self, shared, body):
        assert code(shared, "/v5/order/disconnected-cancel-all", **body) == 10001

    def test_what_could_be_bought_and_sold_is_what_there_is(self, shared):
        query = {"category": "spot", "symbol": "BTCUSDT"}

        buy = shared.read("/v5/order/spot-borrow-check", **query, side="Buy")
        sell = shared.read("/v5/order/spot-borrow-check", **query, side="Sell")

        assert (buy["borrowCoin"], sell["borrowCoin"]) == ("USDT", "BTC")
        assert Decimal(buy["maxTradeAmount"]) > Decimal(buy["maxTradeQty"]) > ZERO
        assert buy["maxTradeQty"] == buy["spotMaxTradeQty"]
        assert Decimal(sell["maxTradeQty"]) == 1
