"""What others recorded of the venue, against what this exchange answers: the same keys, with the same JSON types.

Newer fields may stand beside the recorded ones. Recordings are not part of the repository: see `tests/data_dir.py`.
"""

import json
from decimal import Decimal

import pytest
import zstandard

from actors.exchange import render
from hean.errors import ConfigError
from hean.exchange.listing import listings
from hean.exchange.words import Executed, OrderChanged
from hean.units import parse_time
from tests.data_dir import data_dir
from tests.exchange.conftest import ANN, Venue

RECORDED = data_dir() / "bybit_fixtures"
NET, XCHANGE = RECORDED / "bybit_net", RECORDED / "xchange"
INSTRUMENTS = data_dir() / "raw" / "bybit-ws-v5" / "BYBIT.jsonl.zst"
PERP = "BTCUSDT-LINEAR.BYBIT"

pytestmark = pytest.mark.skipif(
    not (NET.is_dir() and XCHANGE.is_dir()),
    reason="recorded payloads not found: set HEAN_DATA_DIR to the directory that holds bybit_fixtures/",
)

LIMIT = {
    "category": "linear",
    "symbol": "BTCUSDT",
    "side": "Buy",
    "orderType": "Limit",
    "qty": "0.01",
    "price": "59500",
}
WHICH = {"category": "linear", "symbol": "BTCUSDT", "orderLinkId": "resting"}

ASKED: dict[str, tuple[str, dict]] = {
    "Account_GetApiKeyInfo": ("/v5/user/query-api", {}),
    "Account_GetAssetInfo": ("/v5/asset/coin/query-info", {}),
    "Account_GetBalances": ("/v5/account/wallet-balance", {"accountType": "UNIFIED"}),
    "Account_GetCollateralInfo": ("/v5/account/collateral-info", {}),
    "Account_GetFeeRate": ("/v5/account/fee-rate", {"category": "linear", "symbol": "ETHUSDT"}),
    "Account_GetMarginAccountInfo": ("/v5/account/info", {}),
    "Account_GetTransactionHistory": ("/v5/account/transaction-log", {"category": "linear"}),
    "Account_SetLeverage": (
        "/v5/position/set-leverage",
        {"category": "linear", "symbol": "ETHUSDT", "buyLeverage": "7", "sellLeverage": "7"},
    ),
    "Account_SetMarginMode": ("/v5/account/set-margin-mode", {"setMarginMode": "PORTFOLIO_MARGIN"}),
    "Account_SwitchPositionMode": ("/v5/position/switch-mode", {"category": "linear", "symbol": "ETHUSDT", "mode": 3}),
    "ExchangeData_GetFundingRateHistory": ("/v5/market/funding/history", {"category": "linear", "symbol": "ETHUSDT"}),
    "ExchangeData_GetIndexPriceKlines": (
        "/v5/market/index-price-kline",
        {"category": "linear", "symbol": "BTCUSDT", "interval": "1"},
    ),
    "ExchangeData_GetKlines": ("/v5/market/kline", {"category": "linear", "symbol": "BTCUSDT", "interval": "60"}),
    "ExchangeData_GetLinearInverseSymbols": ("/v5/market/instruments-info", {"category": "linear"}),
    "ExchangeData_GetLinearInverseTickers": ("/v5/market/tickers", {"category": "linear"}),
    "ExchangeData_GetMarkPriceKlines": (
        "/v5/market/mark-price-kline",
        {"category": "linear", "symbol": "BTCUSDT", "interval": "15"},
    ),
    "ExchangeData_GetOpenInterest": (
        "/v5/market/open-interest",
        {"category": "linear", "symbol": "BTCUSDT", "intervalTime": "5min"},
    ),
    "ExchangeData_GetOrderPriceLimit": ("/v5/market/price-limit", {"category": "linear", "symbol": "BTCUSDT"}),
    "ExchangeData_GetOrderbook": ("/v5/market/orderbook", {"category": "spot", "symbol": "BTCUSDT"}),
    "ExchangeData_GetPremiumIndexPriceKlines": (
        "/v5/market/premium-index-price-kline",
        {"category": "linear", "symbol": "BTCUSDT", "interval": "D"},
    ),
    "ExchangeData_GetRiskLimit": ("/v5/market/risk-limit", {"category": "linear", "symbol": "BTCUSDT"}),
    "ExchangeData_GetSpotSymbols": ("/v5/market/instruments-info", {"category": "spot"}),
    "ExchangeData_GetSpotTickers": ("/v5/market/tickers", {"category": "spot"}),
    "ExchangeData_GetTradeHistory": ("/v5/market/recent-trade", {"category": "spot", "symbol": "BTCUSDT"}),
    "Trading_CancelAllOrder": ("/v5/order/cancel-all", {"category": "linear", "settleCoin": "USDT"}),
    "Trading_CancelMultipleOrders": (
        "/v5/order/cancel-batch",
        {"category": "linear", "request": [{"symbol": "BTCUSDT", "orderLinkId": "resting"}]},
    ),
    "Trading_CancelOrder": ("/v5/order/cancel", WHICH),
    "Trading_EditMultipleOrders": (
        "/v5/order/amend-batch",
        {"category": "linear", "request": [{"symbol": "BTCUSDT", "orderLinkId": "resting", "qty": "0.02"}]},
    ),
    "Trading_EditOrder": ("/v5/order/amend", WHICH | {"qty": "0.02"}),
    "Trading_GetClosedProfitLoss": ("/v5/position/closed-pnl", {"category": "linear"}),
    "Trading_GetOrderHistory": ("/v5/order/history", {"category": "linear"}),
    "Trading_GetOrders": ("/v5/order/realtime", {"category": "linear", "symbol": "BTCUSDT"}),
    "Trading_GetPositions": ("/v5/position/list", {"category": "linear", "symbol": "BTCUSDT"}),
    "Trading_GetUserTrades": ("/v5/execution/list", {"category": "linear"}),
    "Trading_PlaceMultipleOrders": ("/v5/order/create-batch", {"category": "linear", "request": [LIMIT]}),
    "Trading_PlaceOrder": ("/v5/order/create", LIMIT),
    "Trading_PreCheckOrder": ("/v5/order/pre-check", LIMIT),
    "Trading_SetDisconnectCancelAll": ("/v5/order/disconnected-cancel-all", {"timeWindow": 10}),
    "Trading_SetTradingStop": (
        "/v5/position/trading-stop",
        {"category": "linear", "symbol": "BTCUSDT", "tpslMode": "Full", "positionIdx": 0, "takeProfit": "61000"},
    ),
    "cancelAllOrders": ("/v5/order/cancel-all", {"category": "linear", "settleCoin": "USDT"}),
    "changeOrder": ("/v5/order/amend", WHICH | {"qty": "0.02"}),
    "getInstrumentLinear": ("/v5/market/instruments-info", {"category": "linear"}),
    "getInstrumentSpot": ("/v5/market/instruments-info", {"category": "spot"}),
    "getOrderDetailsLinear": ("/v5/order/realtime", WHICH),
    "getOrderDetailsSpot": ("/v5/order/realtime", {"category": "spot", "openOnly": 1}),
    "getOrderError": ("/v5/order/realtime", {"category": "futures"}),
}

EXCEPTIONS = {
    (
        "Account_GetApiKeyInfo",
        "result.permissions.Options[]",
    ): "there are no options here, so no key has a right to any",
    ("Trading_GetPositions", "result.list[].mmrSysUpdateTime"): "an old spelling: the field is mmrSysUpdatedTime",
}

STREAMS = ("Linear_", "Spot_", "Private_")
SOCKET_FILES = {"orderBookDeltaResponse", "orderBookSnapshotResponse", "tradeResponse"}


def recorded_files():
    files = sorted(NET.glob("*.txt")) + sorted(XCHANGE.glob("*.json5")) if NET.is_dir() else []
    return [file for file in files if not file.name.startswith(STREAMS) and file.stem not in SOCKET_FILES]


def payload(file):
    """A recorded answer, with method and path where the file names them."""
    text = file.read_text()
    if file.suffix == ".json5":
        return None, None, json.loads(text)
    method, path, _, body = text.split("\n", 3)
    return method.strip(), path.strip(), json.loads(body)


@pytest.fixture
def busy():
    """An exchange on which everything has happened once: fills, funding, a closed position, orders of both categories."""
    with Venue() as venue:
        venue.order("Buy", "0.1")
        venue.order("Sell", "0.05")
        venue.order("Buy", "600", category="spot")
        venue.order("Buy", "0.01", "59500", orderLinkId="resting", takeProfit="61000", stopLoss="59000")
        venue.do(lambda inside: inside.exchange.settle_funding(PERP, inside.now(), Decimal("0.0001")))
        yield venue


def differences(theirs, ours, where=""):
    """Where ours lacks a key of theirs, or has another JSON type under it; lists are compared by an element of each."""
    if type(theirs) is not type(ours):
        return [(where, f"{type(ours).__name__} instead of {type(theirs).__name__}")]
    if isinstance(theirs, dict):
        found = [(f"{where}.{name}".lstrip("."), "missing") for name in theirs.keys() - ours.keys()]
        for name in theirs.keys() & ours.keys():
            found += differences(theirs[name], ours[name], f"{where}.{name}".lstrip("."))
        return found
    if isinstance(theirs, list) and theirs:
        if not ours:
            return [(f"{where}[]", "nothing to compare with")]
        return [one for mine in ours for one in differences(theirs[0], mine, f"{where}[]")]
    return []


class TestAnswers:
    @pytest.mark.parametrize("file", recorded_files(), ids=lambda file: file.stem)
    def test_an_answer_has_the_recorded_keys_and_types(self, busy, file):
        method, path, theirs = payload(file)
        asked, body = ASKED[file.stem]
        if path is not None:
            assert path == asked
        writes = method == "POST" or file.stem in {"cancelAllOrders", "changeOrder"}

        ours = busy.post(asked, **body) if writes else busy.get(asked, **body)

        if theirs["retCode"] in {0, 3400045}:
            assert ours["retCode"] == theirs["retCode"], ours
        else:
            assert ours["retCode"] != 0
        found = [one for one in differences(theirs, ours) if (file.stem, one[0]) not in EXCEPTIONS]
        assert found == []

    def test_every_recording_is_asked_for(self):
        assert {file.stem for file in recorded_files()} == ASKED.keys()

    def test_every_exception_is_still_one(self, busy):
        """An exception that has become needless would hide a later difference."""
        files = {file.stem: file for file in recorded_files()}
        for stem, where in EXCEPTIONS:
            asked, body = ASKED[stem]
            found = differences(payload(files[stem])[2], busy.get(asked, **body))
            assert where in {one[0] for one in found}


class TestPushes:
    """The private streams show the same objects in other clothes."""

    def test_an_order(self, busy):
        events = self.events_of(busy, lambda: busy.order("Buy", "0.01"))
        orders = [event.order for event in events if isinstance(event, OrderChanged)]
        listing = busy.server.exchange.markets[PERP].listing

        assert orders
        for order in orders:
            assert differences(self.recorded("Private_Order"), render.order(order, listing, stream=True)) == []

    def test_an_execution(self, busy):
        events = self.events_of(busy, lambda: busy.order("Buy", "0.01"))
        (execution,) = [event.execution for event in events if isinstance(event, Executed)]
        listing = busy.server.exchange.markets[PERP].listing

        assert differences(self.recorded("Private_UserTrades"), render.execution(execution, listing, stream=True)) == []
        assert differences(self.recorded("Private_MinimalUserTrades"), render.fast_execution(execution, listing)) == []

    def test_a_position(self, busy):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            shown = busy.do(
                lambda inside, name=f"{symbol}-LINEAR.BYBIT": render.position(
                    inside.exchange, ANN.uid, name, 0, stream=True
                )
            )
            assert differences(self.recorded("Private_Position"), shown) == []
            assert "avgPrice" not in shown

    def test_a_wallet(self, busy):
        shown = busy.do(lambda inside: render.wallet(inside.exchange, ANN.uid))

        assert differences(self.recorded("Private_Balance"), shown) == []

    @pytest.mark.parametrize(("name", "instrument"), [("Linear_Ticker", PERP), ("Spot_Ticker", "BTCUSDT-SPOT.BYBIT")])
    def test_a_ticker(self, busy, name, instrument):
        shown = busy.do(lambda inside: render.ticker(inside.exchange.markets[instrument], inside.now(), stream=True))

        # In which direction the price went is the stream's to know.
        assert [one for one in differences(self.recorded(name), shown) if one[0] != "tickDirection"] == []

    @staticmethod
    def recorded(name):
        text = (NET / f"{name}.txt").read_text()
        data = json.loads(text[text.index("\n=") + 2 :].strip())["data"]
        return data[0] if isinstance(data, list) else data

    @staticmethod
    def events_of(venue, action):
        """What `settle` was given while something was done."""
        heard = []
        publish = venue.server.hub.publish

        def listen(events):
            heard.extend(events)
            publish(events)

        venue.server.hub.publish = listen
        try:
            action()
        finally:
            del venue.server.hub.publish
        return heard


def read_on_the_venue():
    """Instruments as the venue itself answered on 2026-08-09, by category and symbol."""
    if not INSTRUMENTS.is_file():
        return {}
    found = {}
    with INSTRUMENTS.open("rb") as packed:
        lines = zstandard.ZstdDecompressor().stream_reader(packed).read().decode().splitlines()
    for line in lines:
        message = json.loads(line)
        if message["t"] == "http":
            result = json.loads(message["data"])["result"]
            found |= {(result["category"], row["symbol"]): row for row in result["list"]}
    return found


UNKNOWN_OF_OTHERS = {
    "launchTime",
    "symbolId",
    "riskParameters",
    "copyTrading",
    "forbidUplWithdrawal",
    "symbolType",
    "xstockMultiplier",
}
"""What the rules that come with HEAN do not say of symbols other than BTCUSDT and ETHUSDT."""


@pytest.mark.skipif(not INSTRUMENTS.is_file(), reason="the recorded session of the venue not found: set HEAN_DATA_DIR")
class TestInstruments:
    def test_majors_are_field_for_field_what_the_venue_says(self):
        theirs = read_on_the_venue()
        with Venue() as venue:
            for category in ("linear", "spot"):
                for ours in venue.read("/v5/market/instruments-info", None, category=category)["list"]:
                    assert ours == theirs[category, ours["symbol"]]

    def test_others_have_the_same_scales_and_sizes(self):
        theirs = read_on_the_venue()
        symbols = [symbol for category, symbol in theirs if category == "linear" and symbol.endswith("USDT")]
        compared = 0
        for symbol in symbols:
            try:
                listed = listings([symbol], at=parse_time("2026-08-10"))
            except ConfigError:  # no rules of it come with HEAN
                continue
            for listing in listed.values():
                ours = render.instrument(_Unpriced(listing))
                recorded = theirs.get((listing.category, symbol))
                if recorded is None:
                    continue
                assert ours.keys() == recorded.keys()
                for name in ours.keys() - UNKNOWN_OF_OTHERS:
                    if name == "lotSizeFilter" and listing.is_spot:
                        ours[name].pop("maxOrderAmt")
                        recorded[name].pop("maxOrderAmt")
                    assert ours[name] == recorded[name], (symbol, name)
                compared += 1
        assert compared > 20


class _Unpriced:
    """As much of a market as its rules are rendered from."""

    def __init__(self, listing):
        self.listing = listing
        self.status = "Trading"
