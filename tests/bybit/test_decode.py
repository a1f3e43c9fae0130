"""What Bybit sends, read: recorded payloads become these messages, and garbage becomes a `DataError` and nothing else."""

from collections import Counter, defaultdict
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.bybit import decode
from hean.bybit.book_chain import BookChain, Link
from hean.bybit.decode import OrderStage, Ticker
from hean.errors import DataError
from hean.instruments import Category, instrument_id
from hean.messages import EntryKind, FundingRate, FundingSettled, InterestCharged, Liquidity, MarkPrice, Side, Trade
from tests.bybit import recorded
from tests.data_dir import needs_data

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
MS = 1_000_000

ORDER = {
    "orderId": "o1", "orderLinkId": "ours-1", "symbol": "BTCUSDT", "side": "Buy", "qty": "0.010", "cumExecQty": "0.004",
    "orderStatus": "PartiallyFilled", "createdTime": "1700000000000", "updatedTime": "1700000000001",
    "category": "linear", "timeInForce": "GTC", "cancelType": "UNKNOWN", "rejectReason": "EC_NoError",
}  # fmt: skip
FILL = {
    "execId": "e1", "execType": "Trade", "orderId": "o1", "orderLinkId": "ours-1", "symbol": "BTCUSDT",
    "execPrice": "60000.10", "execQty": "0.004", "execFee": "0.132", "execTime": "1700000000002", "side": "Buy",
    "isMaker": False, "category": "linear", "feeRate": "0.00055", "feeCurrency": "USDT", "markPrice": "60001.00",
}  # fmt: skip
LINE = {
    "id": "1", "type": "TRADE", "currency": "USDT", "change": "-0.132", "cashFlow": "0", "funding": "", "fee": "0.132",
    "transactionTime": "1700000000002", "symbol": "BTCUSDT", "category": "linear",
}  # fmt: skip


def push(topic, data, **more):
    return decode.push({"topic": topic, "data": data, "ts": 1_700_000_000_000, **more})


# --- recorded -------------------------------------------------------------------------------------


@needs_data
def test_the_books_of_recorded_sockets_never_break_their_chain_nor_cross():
    chains = defaultdict(BookChain)
    links = Counter()
    for category, message in recorded.heard_on_sockets():
        if message.get("topic", "").startswith("orderbook"):
            said = decode.push(message)
            name = instrument_id(said.topic.rsplit(".", 1)[1], Category(category.upper()), "BYBIT")
            links[chains[name].hear(decode.book_update(said, name))] += 1
    assert set(links) == {Link.FITS}
    assert links[Link.FITS] > 2_000
    assert all(len(list(chain.book.levels(side))) <= 200 for chain in chains.values() for side in Side)


@needs_data
def test_every_recorded_trade_ticker_and_candle_is_read():
    tickers = defaultdict(Ticker)
    read = Counter()
    for category, message in recorded.heard_on_sockets():
        topic = message.get("topic", "")
        if not topic or topic.startswith("orderbook"):
            continue
        said = decode.push(message)
        name = instrument_id(topic.rsplit(".", 1)[1], Category(category.upper()), "BYBIT")
        match topic.partition(".")[0]:
            case "publicTrade":
                prints = decode.prints(said, name)
                assert [one.trade_id for one in prints] == [trade["i"] for trade in message["data"]]
                read["trades"] += len(prints)
            case "tickers":
                mark = tickers[category, name].fold(said, name)
                read["marks"] += mark is not None
                assert mark is None or mark.price == float(message["data"]["markPrice"])
            case "kline":
                read["bars"] += len(decode.bars(said, name))
                assert [bar.close for bar in decode.bars(said, name)] == [
                    float(bar["close"]) for bar in message["data"] if bar["confirm"]
                ]
    assert all(read[kind] > 0 for kind in ("trades", "marks", "bars")), read
    perp = tickers["linear", PERP]
    assert perp.predicted is not None
    assert perp.ts_next_funding % (8 * 3600 * 10**9) == 0
    assert tickers["spot", SPOT].mark is None


@needs_data
def test_an_archived_book_is_whole_after_fifty_messages():
    chain = BookChain()
    assert {chain.hear(decode.book_update(decode.push(one), "X")) for one in recorded.archived_book()} == {Link.FITS}
    last = recorded.archived_book()[-1]["data"]
    kept = dict(chain.book.levels(Side.BUY))
    for price, size in last["b"]:
        assert kept.get(float(price), 0.0) == float(size)


@needs_data
def test_documented_private_pushes_are_read():
    (balance,) = [decode.balances(recorded.pushed("Private_Balance")["data"])]
    assert balance == {"BTC": Decimal("0.00102964")}
    (position,) = decode.positions(recorded.pushed("Private_Position")["data"])
    assert (position.instrument, position.quantity, position.entry) == (PERP, 0, None)
    (fill,) = decode.executions(recorded.pushed("Private_UserTrades")["data"], {})
    assert (fill.exec_id, fill.side, fill.quantity, fill.price) == (
        "7e2ae69c-4edf-5800-a352-893d52b446aa",
        Side.SELL,
        25,
        Decimal("0.3374"),
    )
    assert (fill.fee, fill.fee_currency, fill.liquidity) == (Decimal("0.005061"), "USDT", Liquidity.TAKER)
    assert decode.orders(recorded.pushed("Private_Order")["data"]) == []  # an option


@needs_data
def test_documented_rest_answers_are_read():
    orders = decode.answer(recorded.rest_answer("Trading_GetOrders")).result
    (word,) = decode.orders(orders["list"], orders["category"])
    assert (word.link_id, word.stage, word.quantity, word.filled) == (
        "test-000005",
        OrderStage.OPEN,
        Decimal("0.10"),
        0,
    )
    history = decode.answer(recorded.rest_answer("Trading_GetOrderHistory")).result
    assert len(decode.orders(history["list"], history["category"])) == len(history["list"])
    held = decode.answer(recorded.rest_answer("Trading_GetPositions")).result
    (position,) = decode.positions(held["list"], held["category"])
    assert (position.quantity, position.entry) == (-300, Decimal("27464.50441675"))
    log = decode.transactions(decode.answer(recorded.rest_answer("Account_GetTransactionHistory")).result["list"])
    assert [(line.kind, line.change) for line in log] == [
        ("SETTLEMENT", Decimal("-0.003676")),
        ("TRADE", Decimal("-0.0190872")),
        ("TRADE", Decimal("-0.0026028")),
    ]
    use = decode.key_use(decode.answer(recorded.rest_answer("Account_GetApiKeyInfo")).result)
    assert (use.withdraws, use.only_reads) == (False, False)
    rates = decode.settlements(decode.answer(recorded.rest_answer("ExchangeData_GetFundingRateHistory")).result, PERP)
    assert all(isinstance(rate, FundingRate) for rate in rates)
    assert rates == sorted(rates, key=lambda rate: rate.ts_event)
    trades = decode.rest_prints(decode.answer(recorded.rest_answer("ExchangeData_GetTradeHistory")).result, SPOT)
    assert all(isinstance(one.trade, Trade) for one in trades)
    assert trades
    book = decode.rest_book(decode.answer(recorded.rest_answer("ExchangeData_GetOrderbook")).result, SPOT)
    assert book.levels.snapshot


# --- the market -----------------------------------------------------------------------------------


def test_a_push_with_u_1_is_a_snapshot_whatever_it_calls_itself():
    data = {"s": "BTCUSDT", "b": [["1", "2"]], "a": [], "u": 1, "seq": 9}
    assert decode.book_update(push("orderbook.50.BTCUSDT", data, type="delta"), PERP).levels.snapshot


def test_the_time_of_a_book_is_that_of_the_matching_engine_where_it_is_told():
    data = {"s": "BTCUSDT", "b": [["1", "2"]], "a": [], "u": 5}
    at = decode.book_update(push("orderbook.50.BTCUSDT", data, type="delta", cts=1_699_999_999_990), PERP)
    assert at.levels.ts_event == 1_699_999_999_990 * MS
    assert decode.book_update(push("orderbook.50.BTCUSDT", data, type="delta"), PERP).levels.ts_event == (
        1_700_000_000_000 * MS
    )


def test_ticker_deltas_are_laid_over_the_snapshot_and_mean_nothing_before_it():
    ticker = Ticker()
    delta = {"symbol": "BTCUSDT", "markPrice": "101"}
    assert ticker.fold(push("tickers.BTCUSDT", delta, type="delta"), PERP) is None
    whole = {"symbol": "BTCUSDT", "markPrice": "100", "fundingRate": "0.0001", "nextFundingTime": "1700006400000"}
    assert ticker.fold(push("tickers.BTCUSDT", whole, type="snapshot"), PERP).price == 100
    assert ticker.fold(push("tickers.BTCUSDT", delta, type="delta"), PERP) == MarkPrice(
        PERP, 1_700_000_000_000 * MS, 101
    )
    assert ticker.fold(push("tickers.BTCUSDT", {"symbol": "BTCUSDT", "lastPrice": "99"}, type="delta"), PERP) is None
    assert (ticker.mark, ticker.last, ticker.predicted, ticker.ts_next_funding) == (
        101,
        99,
        1e-4,
        1_700_006_400_000 * MS,
    )


def test_only_a_closed_candle_is_a_bar():
    candle = {"start": 60_000, "end": 119_999, "open": "1", "high": "3", "low": "1", "close": "2", "volume": "7"}
    running, closed = candle | {"confirm": False}, candle | {"confirm": True}
    (bar,) = decode.bars(push("kline.1.BTCUSDT", [running, closed]), PERP)
    assert (bar.ts_open, bar.ts_event, bar.close) == (60_000 * MS, 120_000 * MS, 2)


def test_the_running_candle_of_an_answer_is_left_out():
    rows = [["120000", "2", "2", "2", "2", "1", "2"], ["60000", "1", "3", "1", "2", "7", "9"]]
    read = decode.rest_bars({"list": rows}, PERP, length=60_000 * MS, until=130_000 * MS)
    assert [bar.ts_event for bar in read] == [120_000 * MS]
    rows = [[row[0], *row[1:5]] for row in rows]
    assert [one.ts_event for one in decode.premia({"list": rows}, PERP, length=60_000 * MS, until=130_000 * MS)] == [
        120_000 * MS
    ]


# --- orders and fills -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "stage", "reason"),
    [
        ({}, OrderStage.OPEN, ""),
        ({"orderStatus": "New"}, OrderStage.OPEN, ""),
        ({"orderStatus": "Untriggered"}, OrderStage.OPEN, ""),
        ({"orderStatus": "Filled"}, OrderStage.FILLED, ""),
        ({"orderStatus": "Cancelled", "cancelType": "CancelByUser"}, OrderStage.CANCELED, "CancelByUser"),
        ({"orderStatus": "Cancelled", "cancelType": "CancelAllBeforeLiq"}, OrderStage.CANCELED, "CancelAllBeforeLiq"),
        ({"orderStatus": "Cancelled", "cancelType": "CancelByDCP"}, OrderStage.CANCELED, "CancelByDCP"),
        ({"orderStatus": "Deactivated"}, OrderStage.CANCELED, "Deactivated"),
        (
            {"orderStatus": "Cancelled", "rejectReason": "EC_PostOnlyWillTakeLiquidity"},
            OrderStage.EXPIRED,
            "EC_PostOnlyWillTakeLiquidity",
        ),
        ({"orderStatus": "Cancelled", "timeInForce": "IOC"}, OrderStage.EXPIRED, "IOC remainder"),
        (
            {"orderStatus": "Cancelled", "timeInForce": "IOC", "cancelType": "CancelByPrepareLiq"},
            OrderStage.CANCELED,
            "CancelByPrepareLiq",
        ),
        ({"orderStatus": "PartiallyFilledCanceled", "timeInForce": "IOC"}, OrderStage.EXPIRED, "IOC remainder"),
        # The acknowledgement said yes before: what the book then refuses has ended, it was not rejected.
        ({"orderStatus": "Rejected", "rejectReason": "EC_Others"}, OrderStage.EXPIRED, "EC_Others"),
    ],
)
def test_how_an_order_stands_and_why_it_ended(changes, stage, reason):
    (word,) = decode.orders([ORDER | changes])
    assert (word.stage, word.reason) == (stage, reason)


def test_the_category_of_an_answer_names_that_of_its_rows():
    bare = {name: value for name, value in ORDER.items() if name != "category"}
    assert decode.orders([bare], "spot")[0].instrument == SPOT
    with pytest.raises(DataError, match="no category"):
        decode.orders([bare])


@pytest.mark.parametrize(
    ("changes", "exit_"),
    [
        ({}, ""),
        ({"stopOrderType": "UNKNOWN"}, ""),
        ({"stopOrderType": "StopLoss"}, "stop"),
        ({"stopOrderType": "TakeProfit"}, "target"),
        ({"execType": "BustTrade"}, "liquidation"),
        ({"execType": "AdlTrade"}, "liquidation"),
        ({"createType": "CreateByLiq"}, "liquidation"),
    ],
)
def test_a_fill_says_whether_it_was_an_exit_held_at_the_venue(changes, exit_):
    (fill,) = decode.executions([FILL | changes], {})
    assert (fill.exit, fill.quantity, fill.price) == (exit_, Decimal("0.004"), Decimal("60000.10"))


@pytest.mark.parametrize(
    ("side", "paid", "rate"),
    [("Buy", "0.6", "0.0001"), ("Buy", "-0.6", "-0.0001"), ("Sell", "-0.6", "0.0001"), ("Sell", "0.6", "-0.0001")],
)
def test_funding_received_has_the_sign_of_neither_the_execution_nor_the_position(side, paid, rate):
    row = FILL | {"execType": "Funding", "side": side, "execQty": "0.1", "execFee": paid, "feeRate": rate}
    (settled,) = decode.executions([row], {})
    assert isinstance(settled, FundingSettled)
    assert settled.amount == -Decimal(paid)
    # Longs pay shorts where the rate is positive.
    assert (settled.quantity * settled.rate * settled.amount) < 0


def test_an_unknown_kind_of_execution_is_not_passed_over():
    with pytest.raises(DataError, match="Teleport"):
        decode.executions([FILL | {"execType": "Teleport"}], {})


def test_the_fee_of_a_spot_buy_without_a_coin_needs_the_rules():
    row = FILL | {"category": "spot", "feeCurrency": ""}
    with pytest.raises(DataError, match="instruments-info"):
        decode.executions([row], {})
    assert decode.executions([row | {"side": "Sell"}], {})[0].fee_currency == "USDT"


def test_a_line_of_the_log_that_does_not_add_up_is_refused():
    assert decode.transactions([LINE])[0].change == Decimal("-0.132")
    with pytest.raises(DataError, match="changes by"):
        decode.transactions([LINE | {"fee": "0.131"}])


@pytest.mark.parametrize(
    ("changes", "kind", "amount"),
    [
        ({}, EntryKind.FILL, "0.132"),
        ({"type": "ADL"}, EntryKind.FILL, "0.132"),
        ({"type": "SETTLEMENT", "fee": "0", "funding": "-0.132"}, EntryKind.FUNDING, "-0.132"),
        ({"type": "INTEREST"}, EntryKind.INTEREST, "0.132"),
        ({"type": "TRANSFER_OUT"}, EntryKind.OTHER, "-0.132"),
    ],
)
def test_a_line_of_the_log_is_known_by_what_we_were_told_it_is_called(changes, kind, amount):
    (line,) = decode.transactions([LINE | changes])
    entry = decode.entry(line)

    assert (entry.kind, entry.amount, entry.currency) == (kind, Decimal(amount), "USDT")
    assert entry.entry_id == line.ledger_id


def test_interest_is_what_was_paid():
    (line,) = decode.transactions([LINE | {"type": "INTEREST", "change": "-0.132", "size": "-1000"}])
    assert decode.interest(line) == InterestCharged(
        line.row_id, "USDT", Decimal(1000), Decimal("0.132"), 1_700_000_000_002 * MS
    )


@pytest.mark.parametrize(
    ("changes", "called"),
    [
        ({"tradeId": "e1", "orderId": "o1"}, "e1:o1"),
        ({"tradeId": "e1", "orderId": "x", "type": "SETTLEMENT"}, "e1"),
        ({"type": "INTEREST", "orderId": ""}, "1"),
        ({"type": "TRANSFER_IN"}, "1"),
    ],
    ids=["fill", "funding", "interest", "transfer"],
)
def test_a_line_of_the_log_is_called_what_the_ledger_calls_it(changes, called):
    assert decode.transactions([LINE | changes])[0].ledger_id == called


def test_the_id_of_a_fill_is_that_of_its_line_in_the_log():
    (fill,) = decode.executions([FILL], {})
    (line,) = decode.transactions([LINE | {"tradeId": FILL["execId"], "orderId": FILL["orderId"]}])
    assert fill.trade_id == line.ledger_id


@pytest.mark.parametrize(
    ("permissions", "contracts", "spot"),
    [
        ({"ContractTrade": ["Order", "Position"], "Spot": ["SpotTrade"]}, True, True),
        ({"Derivatives": ["DerivativesTrade"]}, True, False),
        ({"ContractTrade": ["Position"], "Spot": []}, False, False),
        ({}, False, False),
    ],
)
def test_what_a_key_may_trade(permissions, contracts, spot):
    use = decode.key_use({"readOnly": 0, "permissions": permissions})
    assert (use.trades_contracts, use.trades_spot) == (contracts, spot)


def test_a_key_that_withdraws_is_told_from_one_that_moves_money_between_own_accounts():
    assert decode.key_use({"readOnly": 0, "permissions": {"Wallet": ["AccountTransfer", "Withdraw"]}}).withdraws
    assert not decode.key_use({"readOnly": 0, "permissions": {"Wallet": ["AccountTransfer"]}}).withdraws
    assert decode.key_use({"readOnly": 1, "permissions": {}}).only_reads


# --- garbage --------------------------------------------------------------------------------------

READERS = {
    "push": decode.push,
    "answer": decode.answer,
    "orders": decode.orders,
    "orders of an answer": lambda rows: decode.orders(rows, "linear"),
    "executions": lambda rows: decode.executions(rows, {}),
    "positions": decode.positions,
    "balances": decode.balances,
    "transactions": decode.transactions,
    "trades": lambda data: decode.prints(push("publicTrade.BTCUSDT", data), PERP),
    "book": lambda data: decode.book_update(push("orderbook.50.BTCUSDT", data, type="delta"), PERP),
    "ticker": lambda data: Ticker(known=True).fold(push("tickers.BTCUSDT", data, type="delta"), PERP),
    "candles": lambda data: decode.bars(push("kline.1.BTCUSDT", data), PERP),
    "candles of an answer": lambda rows: decode.rest_bars({"list": rows}, PERP, length=60 * 10**9, until=2**62),
    "rates": lambda rows: decode.settlements({"list": rows}, PERP),
    "trades of an answer": lambda rows: decode.rest_prints({"list": rows}, PERP),
    "key": lambda result: decode.key_use(result if isinstance(result, dict) else {}),
}
GOOD = {
    "orders": [ORDER],
    "orders of an answer": [ORDER],
    "executions": [FILL],
    "transactions": [LINE],
    "book": {"s": "BTCUSDT", "b": [["1", "2"]], "a": [["3", "1"]], "u": 7, "seq": 1},
    "trades": [{"T": 1, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "i": "x", "seq": 3}],
    "ticker": {"symbol": "BTCUSDT", "markPrice": "1", "nextFundingTime": "1700006400000"},
    "candles": [
        {"start": 1, "end": 2, "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1", "confirm": True}
    ],
    "rates": [{"symbol": "BTCUSDT", "fundingRate": "0.1", "fundingRateTimestamp": "1"}],
}
ODD = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["", "-", "1e9", "1E999999999", "NaN", "Infinity", "-0", "0x1", "١٢٣", "1\n", "9" * 400, "\ud800"]
    )
)
JSON = st.recursive(ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@pytest.mark.parametrize("reader", READERS)
@given(payload=JSON)
@settings(max_examples=60)
def test_garbage_is_refused_in_words(reader, payload):
    refuses_in_words(reader, payload)


@pytest.mark.parametrize("reader", GOOD)
@given(data=st.data())
@settings(max_examples=150)
def test_a_good_payload_with_one_odd_field_is_read_or_refused_in_words(reader, data):
    good = GOOD[reader]
    row = dict(good[0] if isinstance(good, list) else good)
    name = data.draw(st.sampled_from(sorted(row)))
    if data.draw(st.booleans()):
        row[name] = data.draw(JSON)
    else:
        del row[name]
    refuses_in_words(reader, [row] if isinstance(good, list) else row)


@pytest.mark.parametrize("reader", GOOD)
def test_a_good_payload_is_read_and_fields_nobody_knows_are_passed_over(reader):
    good = GOOD[reader]
    more = {"newField": {"deep": [1]}}
    with_more = [row | more for row in good] if isinstance(good, list) else good | more
    assert READERS[reader](good) == READERS[reader](with_more)


def refuses_in_words(reader, payload):
    refusal = None
    try:
        READERS[reader](payload)
    except DataError as said:
        refusal = said
    assert refusal is None or (refusal.reason and refusal.remedy)


@pytest.mark.parametrize(
    ("reader", "changes", "names"),
    [
        ("executions", {"execId": None}, r"\$\[0\]\.execId"),
        ("executions", {"execPrice": "1e5"}, r"\$\[0\]\.execPrice"),
        ("executions", {"execQty": 5}, r"\$\[0\]\.execQty"),
        ("orders", {"cumExecQty": ""}, r"\$\[0\]\.cumExecQty"),
        ("orders", {"updatedTime": "soon"}, r"\$\[0\]\.updatedTime"),
        ("transactions", {"change": "NaN"}, r"\$\[0\]\.change"),
    ],
)
def test_a_refusal_names_the_field(reader, changes, names):
    with pytest.raises(DataError, match=names):
        READERS[reader]([GOOD[reader][0] | changes])
