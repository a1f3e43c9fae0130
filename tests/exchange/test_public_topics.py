"""What the public topics say. Names, types and order of fields are those of streams recorded from the venue in August 2026."""

import json
from decimal import Decimal

import pytest

from actors.exchange.public import Candles, Direction, Liquidations, PriceLimit, Trades, length_ms
from hean.exchange.candles import CandleBook
from hean.exchange.listing import listings
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.exchange.words import Liquidated, Printed
from hean.messages import Side
from hean.units import DAY, MILLISECOND, MINUTE, SECOND, parse_time
from tests.exchange.stage import BUY, ETH_PERP, PERP, SELL, SPOT, staged

START = parse_time("2026-08-10")
LISTED = listings(["BTCUSDT"], at=START)

LINEAR_TICKER = [
    "symbol",
    "tickDirection",
    "price24hPcnt",
    "lastPrice",
    "prevPrice24h",
    "highPrice24h",
    "lowPrice24h",
    "prevPrice1h",
    "markPrice",
    "indexPrice",
    "openInterest",
    "openInterestValue",
    "turnover24h",
    "volume24h",
    "fundingIntervalHour",
    "fundingCap",
    "singleOpenInterest",
    "singleOpenInterestValue",
    "nextFundingTime",
    "fundingRate",
    "bid1Price",
    "bid1Size",
    "ask1Price",
    "ask1Size",
    "preOpenPrice",
    "preQty",
    "curPreListingPhase",
]
SPOT_TICKER = [
    "symbol",
    "lastPrice",
    "highPrice24h",
    "lowPrice24h",
    "prevPrice24h",
    "volume24h",
    "turnover24h",
    "price24hPcnt",
    "usdIndexPrice",
]


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        yield stage


def market(instrument=PERP):
    listing = LISTED[instrument]
    return Market(listing, Pricing(listing, START), CandleBook())


def printed(price, at=0, side=Side.BUY, quantity="0.004"):
    return Printed(PERP, f"id-{at}", side, Decimal(price), Decimal(quantity), START + at * MILLISECOND, 100 + at)


# --- trades ---------------------------------------------------------------------------------------


def test_a_trade_is_told_at_once_in_the_form_of_its_category(venue):
    with venue.client("public/linear") as linear, venue.client("public/spot") as spot:
        for client in (linear, spot):
            client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT"]})
        venue.source.take(PERP, SELL, 5)
        venue.source.take(SPOT, BUY, 50)
        contract, coin = linear.topic("publicTrade.BTCUSDT"), spot.topic("publicTrade.BTCUSDT")

    assert set(contract) == set(coin) == {"topic", "type", "ts", "data"}
    assert contract["type"] == coin["type"] == "snapshot"
    [sold], [bought] = contract["data"], coin["data"]
    assert set(sold) == {"T", "s", "S", "v", "p", "L", "i", "BT", "RPI", "seq"}
    assert set(bought) == set(sold) - {"L"}
    assert (sold["s"], sold["S"], sold["v"], sold["p"]) == ("BTCUSDT", "Sell", "0.005", "59999.90")
    assert (bought["s"], bought["S"], bought["v"], bought["p"]) == ("BTCUSDT", "Buy", "0.00005", "60000.1")
    for trade in (sold, bought):
        assert (trade["BT"], trade["RPI"]) == (False, False)
        assert type(trade["T"]) is type(trade["seq"]) is int
        assert type(trade["i"]) is str


def test_a_taker_of_several_levels_is_several_trades_the_oldest_first(venue):
    with venue.client("public/linear") as client:
        client.ask({"op": "subscribe", "args": ["publicTrade.BTCUSDT"]})
        venue.source.take(PERP, BUY, 2_500)
        trades = client.topic("publicTrade.BTCUSDT")["data"]
        recent = venue.rest("/v5/market/recent-trade?category=linear&symbol=BTCUSDT&limit=3")["list"]

    assert [trade["p"] for trade in trades] == ["60000.10", "60000.20", "60000.30"]
    assert [trade["seq"] for trade in trades] == sorted(trade["seq"] for trade in trades)
    assert [(one["execId"], one["price"], one["size"], int(one["time"]), int(one["seq"])) for one in recent[::-1]] == [
        (one["i"], one["p"], one["v"], one["T"], one["seq"]) for one in trades
    ]


def test_a_message_holds_at_most_1024_trades():
    feed = Trades("publicTrade.BTCUSDT", LISTED[PERP])
    for at in range(2_500):
        feed.hear(printed("60000", at), "PlusTick")

    messages = [json.loads(payload)["data"] for payload in feed.due(START)]

    assert [len(trades) for trades in messages] == [1024, 1024, 452]
    assert [trade["seq"] for trades in messages for trade in trades] == list(range(100, 2_600))
    assert feed.due(START) == []


@pytest.mark.parametrize(
    ("prices", "directions"),
    [
        ([100], ["ZeroPlusTick"]),
        ([100, 101, 101, 101], ["ZeroPlusTick", "PlusTick", "ZeroPlusTick", "ZeroPlusTick"]),
        ([100, 99, 99, 100], ["ZeroPlusTick", "MinusTick", "ZeroMinusTick", "PlusTick"]),
    ],
)
def test_the_direction_of_a_trade_is_that_of_the_last_move(prices, directions):
    direction = Direction(market())

    assert [direction.after(printed(price, at)) for at, price in enumerate(prices)] == directions


# --- tickers --------------------------------------------------------------------------------------


def test_a_linear_ticker_is_whole_at_first_and_then_what_changed(venue):
    with venue.client("public/linear") as client:
        client.ask({"op": "subscribe", "args": ["tickers.ETHUSDT"]})
        first = client.topic("tickers.ETHUSDT")
        middle = venue.source.middle(ETH_PERP)
        venue.source.show(ETH_PERP, bids=[(middle - 1, 4_321)])
        venue.source.take(ETH_PERP, BUY, 5)
        venue.source.show(ETH_PERP, index=2_001.0)
        deltas = client.gather(0.6)
        rest = venue.rest("/v5/market/tickers?category=linear&symbol=ETHUSDT")["list"][0]

    assert set(first) == {"topic", "type", "data", "cs", "ts"}
    assert first["type"] == "snapshot"
    assert sorted(first["data"]) == sorted(LINEAR_TICKER)
    assert all(type(value) is str for value in first["data"].values())
    assert type(first["cs"]) is int
    shown = dict(first["data"])
    for delta in deltas:
        assert delta["type"] == "delta"
        assert delta["data"]["symbol"] == "ETHUSDT"
        for side in ("bid1", "ask1"):
            assert (f"{side}Price" in delta["data"]) == (f"{side}Size" in delta["data"])
        changed = {name for name, value in delta["data"].items() if shown[name] != value}
        assert changed
        assert set(delta["data"]) - changed <= {"symbol", "bid1Price", "bid1Size", "ask1Price", "ask1Size"}
        shown |= delta["data"]
    assert shown["bid1Size"] == "43.21"
    assert shown["indexPrice"] == "2001.00"
    assert {name: value for name, value in shown.items() if name != "tickDirection"} == {
        name: value for name, value in rest.items() if name in shown
    }


def test_a_ticker_that_stands_still_says_nothing():
    with staged() as venue, venue.client("public/linear") as linear, venue.client("public/spot") as spot:
        for client in (linear, spot):
            client.ask({"op": "subscribe", "args": ["tickers.ETHUSDT"]})
            client.topic("tickers.ETHUSDT")
        quiet = [client.gather(0.4) for client in (linear, spot)]

    assert quiet == [[], []]


def test_a_late_subscriber_is_told_the_ticker_its_next_delta_fits(venue):
    with venue.client("public/linear") as early, venue.client("public/linear") as late:
        for client in (early, late):
            client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
            client.topic("tickers.BTCUSDT")
            venue.source.take(PERP, BUY, 3)
            early.gather(0.3)
        late.gather(0.1)
        shown = []
        for client in (early, late):
            first, *deltas = [message for message in client.heard if "topic" in message]
            shown.append(first["data"])
            for delta in deltas:
                shown[-1].update(delta["data"])

    assert shown[0] == shown[1]


def test_a_spot_ticker_is_always_whole_and_has_no_best_prices(venue):
    with venue.client("public/spot") as client:
        client.ask({"op": "subscribe", "args": ["tickers.BTCUSDT"]})
        first = client.topic("tickers.BTCUSDT")
        venue.source.take(SPOT, SELL, 70)
        second = client.topic("tickers.BTCUSDT")

    for message in (first, second):
        assert set(message) == {"topic", "ts", "type", "cs", "data"}
        assert message["type"] == "snapshot"
        assert sorted(message["data"]) == sorted(SPOT_TICKER)
        assert all(type(value) is str for value in message["data"].values())
    assert second["data"]["lastPrice"] == "59999.9"
    assert second["cs"] > first["cs"]


# --- candles --------------------------------------------------------------------------------------


def told(payloads):
    return [
        [
            (candle["start"] // 60_000 % 1440, candle["confirm"], candle["close"])
            for candle in json.loads(payload)["data"]
        ]
        for payload in payloads
    ]


@pytest.mark.parametrize("category", ["linear", "spot"])
def test_a_candle_is_confirmed_once_with_the_first_of_the_next_or_on_spot_before_it(category):
    shown = market(SPOT if category == "spot" else PERP)
    feed = Candles("kline.1.BTCUSDT", shown, "1")
    shown.candles.trade(START, 100.0, 1.0)
    heard = [told(feed.due(START))]
    heard.append(told(feed.due(START + SECOND)))
    shown.candles.trade(START + 2 * SECOND, 101.0, 1.0)
    heard.append(told(feed.due(START + 2 * SECOND)))
    shown.candles.observe(START + MINUTE, mark=None, index=None, premium=None)
    heard.append(told(feed.due(START + MINUTE)))
    heard.append(told(feed.due(START + MINUTE + SECOND)))
    shown.candles.trade(START + 3 * MINUTE + SECOND, 102.0, 1.0)
    heard.append(told(feed.due(START + 3 * MINUTE + SECOND)))

    pairs = [
        [[(0, False, "100")]],
        [],
        [[(0, False, "101")]],
        [[(0, True, "101"), (1, False, "101")]],
        [],
        [[(1, True, "101"), (2, True, "101"), (3, False, "102")]],
    ]
    assert heard == (pairs if category == "linear" else [[[one] for many in push for one in many] for push in pairs])


def test_a_candle_has_the_fields_of_the_venue(venue):
    with venue.client("public/linear") as client:
        client.ask({"op": "subscribe", "args": ["kline.5.BTCUSDT"]})
        message = client.topic("kline.5.BTCUSDT")
        rest = venue.rest("/v5/market/kline?category=linear&symbol=BTCUSDT&interval=5&limit=1")["list"][0]

    assert set(message) == {"topic", "data", "ts", "type"}
    [candle] = message["data"]
    assert set(candle) == set(
        "start end interval open close high low volume turnover confirm timestamp".split()  # noqa: SIM905
    )
    assert candle["end"] - candle["start"] == 5 * 60_000 - 1
    assert candle["confirm"] is False
    assert candle["interval"] == "5"
    names = ("start", "open", "high", "low", "close", "volume", "turnover")
    assert [str(candle[name]) for name in names] == rest


@pytest.mark.parametrize(
    ("start", "interval", "days"),
    [
        ("2026-08-10", "D", 1),
        ("2026-08-10", "W", 7),
        ("2026-02-01", "M", 28),
        ("2028-02-01", "M", 29),
        ("2026-12-01", "M", 31),
    ],
)
def test_long_candles_last_as_long_as_the_calendar_says(start, interval, days):
    assert length_ms(parse_time(start) // MILLISECOND, interval) == days * DAY // MILLISECOND


# --- the rest -------------------------------------------------------------------------------------


def test_liquidations_are_gathered_and_told_with_the_side_that_was_liquidated():
    feed = Liquidations("allLiquidation.BTCUSDT", LISTED[PERP])
    feed.hear(Liquidated(PERP, Side.BUY, Decimal("0.5"), Decimal("54000.1"), START))
    feed.hear(Liquidated(PERP, Side.SELL, Decimal(2), Decimal(66_000), START + MILLISECOND))

    [payload] = feed.due(START + SECOND)

    message = json.loads(payload)
    assert message == {
        "topic": "allLiquidation.BTCUSDT",
        "type": "snapshot",
        "ts": (START + SECOND) // MILLISECOND,
        "data": [
            {"T": START // MILLISECOND, "s": "BTCUSDT", "S": "Buy", "v": "0.500", "p": "54000.10"},
            {"T": START // MILLISECOND + 1, "s": "BTCUSDT", "S": "Sell", "v": "2.000", "p": "66000.00"},
        ],
    }
    assert feed.due(START + 2 * SECOND) == []


def test_price_limits_are_those_of_rest_and_told_when_they_move(venue):
    with venue.client("public/spot") as client:
        client.ask({"op": "subscribe", "args": ["priceLimit.BTCUSDT"]})
        first = client.topic("priceLimit.BTCUSDT")
        quiet = client.gather(0.5)
        rest = venue.rest("/v5/market/price-limit?category=spot&symbol=BTCUSDT")
        venue.source.take(SPOT, BUY, 1_500)
        moved = client.topic("priceLimit.BTCUSDT")

    assert set(first) == {"topic", "data", "ts"}
    assert first["data"] == {name: rest[name] for name in ("symbol", "buyLmt", "sellLmt")}
    assert quiet == []
    assert moved["data"] != first["data"]


def test_the_limits_of_a_market_without_a_price_are_not_known():
    feed = PriceLimit("priceLimit.BTCUSDT", market())

    [payload] = feed.due(START)

    assert json.loads(payload)["data"] == {"symbol": "BTCUSDT", "buyLmt": "", "sellLmt": ""}
