"""The account over REST: wallet, settings, transaction log, API key; and how often one may ask."""

import json
import math
import time
from decimal import Decimal

import pytest

from actors.exchange import limits
from actors.exchange.faults import LossFault, Storm, StormFault
from actors.exchange.limits import Limits
from hean.units import MILLISECOND, SECOND
from tests.exchange.conftest import ANN, BOB, NO_SPOT, READER, Venue, answered, signed

NOW = 1_700_000_000 * SECOND
ORDER = {
    "category": "linear",
    "symbol": "BTCUSDT",
    "side": "Buy",
    "orderType": "Limit",
    "qty": "0.01",
    "price": "59500",
}


class TestWallet:
    def wallet(self, venue, **query):
        (wallet,) = venue.read("/v5/account/wallet-balance", accountType="UNIFIED", **query)["list"]
        return wallet, {coin["coin"]: coin for coin in wallet["coin"]}

    def test_without_a_coin_those_that_are_there_are_shown(self, shared):
        wallet, coins = self.wallet(shared)

        assert set(coins) == {"USDT", "BTC", "ETH"}
        assert (wallet["totalWalletBalance"], wallet["totalEquity"]) == ("190000", "190000")
        assert coins["BTC"]["usdValue"] == "60000"

    def test_coins_are_chosen_by_name(self, shared):
        _, coins = self.wallet(shared, coin="USDT,BTC")

        assert list(coins) == ["USDT", "BTC"]
        assert shared.get("/v5/account/wallet-balance", accountType="UNIFIED", coin="XYZ")["retCode"] == 10001

    @pytest.mark.parametrize("kind", [None, "CONTRACT", "unified"])
    def test_the_account_is_unified(self, shared, kind):
        assert shared.get("/v5/account/wallet-balance", accountType=kind)["retCode"] == 10001

    def test_its_figures_add_up_with_a_position_and_orders(self, server):
        server.order("Buy", "0.5")
        server.order("Sell", "0.5", "60400", category="spot")
        server.order("Buy", "0.2", "59500")

        wallet, coins = self.wallet(server)
        figures = {
            name: Decimal(value)
            for name, value in wallet.items()
            if value and name.startswith(("total", "account")) and name != "accountType"
        }
        usdt = {
            name: Decimal(value)
            for name, value in coins["USDT"].items()
            if isinstance(value, str) and name != "coin" and value
        }

        assert usdt["equity"] == usdt["walletBalance"] + usdt["unrealisedPnl"]
        assert figures["totalPerpUPL"] == usdt["unrealisedPnl"]
        assert figures["totalMarginBalance"] == figures["totalWalletBalance"] + figures["totalPerpUPL"]
        assert figures["totalInitialMargin"] == usdt["totalOrderIM"] + usdt["totalPositionIM"]
        assert figures["totalMaintenanceMargin"] == usdt["totalPositionMM"]
        assert usdt["totalOrderIM"] > 0
        assert Decimal(coins["BTC"]["locked"]) == Decimal("0.5")
        assert 0 < figures["accountMMRate"] < figures["accountIMRate"] < 1
        assert figures["totalAvailableBalance"] < figures["totalMarginBalance"] - figures["totalInitialMargin"]


class TestSettings:
    def test_the_account_says_what_kind_it_is(self, shared):
        info = shared.read("/v5/account/info")

        assert (info["unifiedMarginStatus"], info["marginMode"], info["smpGroup"]) == (5, "REGULAR_MARGIN", 0)

    @pytest.mark.parametrize(
        ("query", "symbols", "rates"),
        [
            ({"category": "linear", "symbol": "BTCUSDT"}, ["BTCUSDT"], ("0.00055", "0.0002")),
            ({"category": "linear"}, ["BTCUSDT", "ETHUSDT"], ("0.00055", "0.0002")),
            ({"category": "spot", "symbol": "ETHUSDT"}, ["ETHUSDT"], ("0.001", "0.001")),
        ],
    )
    def test_fee_rates(self, shared, query, symbols, rates):
        result = shared.read("/v5/account/fee-rate", **query)

        assert [row["symbol"] for row in result["list"]] == symbols
        assert {(row["takerFeeRate"], row["makerFeeRate"]) for row in result["list"]} == {rates}
        assert ("category" in result) is (query["category"] == "spot")

    def test_margin_is_crossed_and_nothing_else(self, shared):
        kept = shared.post("/v5/account/set-margin-mode", setMarginMode="REGULAR_MARGIN")
        other = shared.post("/v5/account/set-margin-mode", setMarginMode="ISOLATED_MARGIN")
        none = shared.post("/v5/account/set-margin-mode", setMarginMode="NO_MARGIN")

        assert (kept["retCode"], kept["result"]) == (0, {"reasons": []})
        assert other["retCode"] == 3400045
        assert other["result"]["reasons"][0].keys() == {"reasonCode", "reasonMsg"}
        assert none["retCode"] == 10001

    def test_collateral_ratios_are_what_the_wallet_counts(self, shared):
        ratios = {
            row["currency"]: Decimal(row["collateralRatio"])
            for row in shared.read("/v5/account/collateral-info")["list"]
        }
        (wallet,) = shared.read("/v5/account/wallet-balance", accountType="UNIFIED")["list"]

        counted = sum(Decimal(coin["usdValue"]) * ratios[coin["coin"]] for coin in wallet["coin"])
        assert counted == Decimal(wallet["totalAvailableBalance"])

    def test_what_is_armed_and_grouped_is_nothing_at_first(self, shared):
        assert shared.read("/v5/account/query-dcp-info") == {"dcpInfos": []}
        assert shared.read("/v5/account/smp-group") == {"smpGroup": 0}

    @pytest.mark.parametrize(
        ("key", "read_only", "spot"), [(ANN, 0, ["SpotTrade"]), (READER, 1, ["SpotTrade"]), (NO_SPOT, 0, [])]
    )
    def test_a_key_knows_its_rights(self, shared, key, read_only, spot):
        shown = shared.read("/v5/user/query-api", key)

        assert (shown["apiKey"], shown["readOnly"], shown["permissions"]["Spot"]) == (key.key, read_only, spot)
        assert (shown["userID"], shown["uta"], shown["unified"], shown["type"]) == (10_000_001, 1, 0, 1)
        assert shown["secret"] == ""

    def test_coins_are_those_that_are_traded(self, shared):
        rows = shared.read("/v5/asset/coin/query-info")["rows"]

        assert [row["coin"] for row in rows] == ["BTC", "USDT", "ETH"]
        assert [row["coin"] for row in shared.read("/v5/asset/coin/query-info", coin="ETH")["rows"]] == ["ETH"]


class TestTransactionLog:
    def log(self, venue, **query):
        return venue.read("/v5/account/transaction-log", **query)

    def test_what_changed_is_cash_and_funding_less_the_fee(self, server):
        server.order("Buy", "0.1")
        server.order("Sell", "0.05")
        server.order("Buy", "600", category="spot")
        server.do(lambda inside: inside.exchange.settle_funding("BTCUSDT-LINEAR.BYBIT", inside.now()))

        rows = self.log(server, limit=50)["list"]

        assert {row["type"] for row in rows} == {"TRADE", "SETTLEMENT", "TRANSFER_IN"}
        balances: dict[str, Decimal] = {}
        for row in reversed(rows):
            change = Decimal(row["change"])
            assert change == Decimal(row["cashFlow"]) + Decimal(row["funding"] or 0) - Decimal(row["fee"])
            balances[row["currency"]] = balances.get(row["currency"], Decimal(0)) + change
            assert Decimal(row["cashBalance"]) == balances[row["currency"]]

    def test_a_spot_trade_is_a_row_for_each_coin(self, server):
        order_id = server.order("Buy", "600", category="spot")

        rows = {row["currency"]: row for row in self.log(server, category="spot")["list"]}

        assert set(rows) == {"BTC", "USDT"}
        assert {row["orderId"] for row in rows.values()} == {order_id}
        assert Decimal(rows["BTC"]["qty"]) > 0 > Decimal(rows["USDT"]["qty"])
        assert (Decimal(rows["BTC"]["fee"]) > 0, rows["USDT"]["fee"]) == (True, "0")

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"currency": "USDT"}, 2),
            ({"currency": "BTC"}, 1),
            ({"type": "TRANSFER_IN"}, 3),
            ({"type": "TRADE"}, 1),
            ({"category": "linear"}, 1),
            ({"baseCoin": "ETH"}, 0),
            ({"accountType": "UNIFIED", "category": "option"}, 0),
        ],
        ids=str,
    )
    def test_it_is_filtered(self, server, query, found):
        server.order("Buy", "0.1")

        assert len(self.log(server, **query)["list"]) == found

    def test_it_turns_its_pages(self, server):
        for _ in range(4):
            server.order("Buy", "0.01")
        whole = self.log(server)["list"]

        paged, cursor = [], None
        while cursor != "":
            page = self.log(server, limit=3, cursor=cursor)
            paged += page["list"]
            cursor = page["nextPageCursor"]

        assert paged == whole
        assert len(paged) == 7

    def test_of_another_time_there_is_nothing(self, shared):
        week_ago = time.time_ns() // MILLISECOND - 7 * 86_400_000

        assert self.log(shared, startTime=week_ago, endTime=week_ago + 86_400_000)["list"] == []


class TestRates:
    def test_every_signed_reply_says_what_is_left(self):
        with Venue(scale=1.0) as venue:
            told = [venue.post("/v5/order/create", **ORDER)["headers"] for _ in range(3)]

        assert [headers["X-Bapi-Limit"] for headers in told] == ["10"] * 3
        assert [headers["X-Bapi-Limit-Status"] for headers in told] == ["9", "8", "7"]
        assert all(abs(int(headers["X-Bapi-Limit-Reset-Timestamp"]) - time.time() * 1000) < 5000 for headers in told)

    def test_a_refused_reply_says_so_too(self, shared):
        for path, key in (("/v5/order/create", ANN), ("/v5/order/create", READER)):
            assert "X-Bapi-Limit" in shared.post(path, key)["headers"]

    def test_public_replies_say_nothing_of_it(self, shared):
        assert "X-Bapi-Limit" not in shared.get("/v5/market/time", None)["headers"]

    def test_the_eleventh_in_a_second_is_one_too_many(self):
        with Venue(scale=1.0) as venue:
            answers = [venue.post("/v5/order/create", **ORDER) for _ in range(11)]
            other = venue.post("/v5/order/create", BOB, **ORDER)
            amended = venue.post("/v5/order/amend", **ORDER, orderId="x")

        last = answers[-1]
        assert [answer["retCode"] for answer in answers] == [0] * 10 + [10006]
        assert last["retMsg"] == "Too many visits. Exceeded the API Rate Limit."
        assert last["headers"]["X-Bapi-Limit-Status"] == "0"
        # pybit sleeps until then, and dies of a time that is past.
        assert int(last["headers"]["X-Bapi-Limit-Reset-Timestamp"]) >= last["time"] + 49
        assert (other["retCode"], amended["retCode"]) == (0, 110001)

    def test_of_a_batch_the_part_over_the_limit_fails(self):
        with Venue(scale=1.0) as venue:
            first = venue.post("/v5/order/create-batch", category="linear", request=[ORDER] * 8)
            second = venue.post("/v5/order/create-batch", category="linear", request=[ORDER] * 4)
            third = venue.post("/v5/order/create-batch", category="linear", request=[ORDER])
            single = venue.post("/v5/order/create", **ORDER)

        assert [one["code"] for one in first["retExtInfo"]["list"]] == [0] * 8
        assert [one["code"] for one in second["retExtInfo"]["list"]] == [0, 0, 10006, 10006]
        assert [bool(one["orderId"]) for one in second["result"]["list"]] == [True, True, False, False]
        assert (third["retCode"], single["retCode"]) == (10006, 0)

    def test_spot_has_its_own_counter_and_limit(self):
        with Venue(scale=1.0) as venue:
            spot = [venue.post("/v5/order/create", **{**ORDER, "category": "spot", "qty": "0.001"}) for _ in range(21)]
            linear = venue.post("/v5/order/create", **ORDER)

        assert [answer["retCode"] for answer in spot] == [0] * 20 + [10006]
        assert linear["retCode"] == 0

    def test_an_address_that_asks_too_often_is_forbidden(self):
        with Venue(scale=0.01) as venue:
            statuses = [venue.send("GET", "/v5/market/time").status for _ in range(8)]
            venue.server.limits.scale = 1.0
            after = venue.send("GET", "/v5/market/time").status

        assert statuses == [200] * 6 + [403, 403]
        assert after == 200


class TestLimits:
    def test_the_second_rolls(self):
        limits_ = Limits()

        def ask(at_ms):
            return limits_.take("1", limits.CREATE, "linear", NOW + at_ms * MILLISECOND)[0]

        assert [ask(at) for at in range(0, 1000, 100)] == [1] * 10
        assert [ask(at) for at in (950, 999, 1000, 1001, 1100)] == [0, 0, 1, 0, 1]

    @pytest.mark.parametrize("at_ms", [1, 500, 940, 999])
    def test_the_reset_is_when_there_is_room_again_and_never_past(self, at_ms):
        limits_ = Limits()
        limits_.take("1", limits.CREATE, "linear", NOW, 10)

        now = NOW + at_ms * MILLISECOND
        granted, state = limits_.take("1", limits.CREATE, "linear", now)

        assert granted == 0
        assert state.reset_ms == max(NOW + SECOND, now + 50 * MILLISECOND) // MILLISECOND

    def test_a_limit_of_nought_has_no_reset_in_the_past_either(self):
        limits_ = Limits()
        limits_.scale = 0.0

        _, state = limits_.take("1", limits.CREATE, "linear", NOW)

        assert state.reset_ms == (NOW + 50 * MILLISECOND) // MILLISECOND

    def test_what_is_refused_is_not_counted(self):
        limits_ = Limits()
        for at in range(40):
            limits_.take("1", limits.AMEND, "linear", NOW + at)

        assert limits_.take("1", limits.AMEND, "linear", NOW + SECOND + 20)[0] == 1

    @pytest.mark.parametrize(("scale", "granted"), [(1.0, 10), (0.5, 5), (0.0, 0), (3.0, 30), (math.inf, 100)])
    def test_the_scale_multiplies_every_limit(self, scale, granted):
        limits_ = Limits()
        limits_.scale = scale

        assert limits_.take("1", limits.CREATE, "linear", NOW, 100)[0] == granted


class TestFaults:
    def test_a_storm_of_10006_gives_a_time_that_is_to_come(self, server):
        server.do(lambda inside: inside.faults.arm(StormFault(storm=Storm(ret_code=10006), next=1)))

        answer = server.get("/v5/account/info")

        assert answer["retCode"] == 10006
        assert int(answer["headers"]["X-Bapi-Limit-Reset-Timestamp"]) >= answer["time"] + 50
        assert server.get("/v5/account/info")["retCode"] == 0

    def test_a_storm_of_one_account_leaves_others_alone(self, server):
        server.do(lambda inside: inside.faults.arm(StormFault(storm=Storm(http_status=502), uid=BOB.uid)))

        assert server.get("/v5/account/info", ANN)["retCode"] == 0
        headers = signed(BOB, b"")
        assert server.send("GET", "/v5/account/info", headers=headers).status == 502

    def test_an_order_whose_answer_is_lost_exists(self, server):
        server.do(lambda inside: inside.faults.arm(LossFault(path="/v5/order/create", next=1)))

        with pytest.raises(ConnectionError):
            server.post("/v5/order/create", **ORDER, orderLinkId="lost")

        (order,) = server.read("/v5/order/realtime", category="linear", orderLinkId="lost")["list"]
        assert order["orderStatus"] == "New"
        assert server.post("/v5/order/create", **ORDER, orderLinkId="lost")["retCode"] == 110072

    def test_answers_can_be_slow(self, server):
        server.do(lambda inside: setattr(inside.faults, "answer_delay_s", 0.2))

        begun = time.perf_counter()
        server.get("/v5/market/time", None)

        assert time.perf_counter() - begun >= 0.2


class TestLife:
    def test_a_stopped_exchange_takes_no_connection(self):
        with Venue() as venue:
            assert venue.send("GET", "/v5/market/time").status == 200

        with pytest.raises(ConnectionRefusedError):
            venue.send("GET", "/v5/market/time")

    def test_connections_are_refused_for_a_while_and_on_the_same_port_again(self, server):
        server.inside(lambda inside: inside.refuse_connections(0.3))

        with pytest.raises(ConnectionRefusedError):
            server.send("GET", "/v5/market/time")

        assert opens_again(server)

    def test_a_bug_that_a_request_finds_ends_that_request_alone(self, server, caplog):
        def break_it(inside):
            inside.exchange.accounts[ANN.uid].balances = None

        server.do(break_it)

        answer = server.get("/v5/account/wallet-balance", accountType="UNIFIED")

        assert (answer["retCode"], answer["retMsg"], answer["result"]) == (10016, "Server error.", {})
        assert "Traceback" not in json.dumps(answer, default=str)
        assert server.get("/v5/market/time", None)["retCode"] == 0


def opens_again(venue) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            return answered(venue.send("GET", "/v5/market/time"))["retCode"] == 0
        except ConnectionRefusedError:
            time.sleep(0.05)
    return False
