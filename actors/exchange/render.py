"""What the exchange keeps, as Bybit's V5 writes it: orders, executions, positions, wallets, instruments, tickers.

Prices, sizes and times leave as strings. Linear keeps the scale of the instrument ("60000.00"); spot trims zeros, and so do the
private streams (`stream`, `trims`). An absent number is "" or, where the venue says so, "0", and never null. Source: Bybit v5
documentation, page by page, and answers and messages recorded from the venue.
"""

from collections.abc import Iterable, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from urllib.parse import quote

from hean.exchange.account import Holding, PositionFigures, TradingAccount, figures, leverage_of, order_initial
from hean.exchange.exchange import Exchange
from hean.exchange.listing import Listing
from hean.exchange.market import Market
from hean.exchange.words import (
    ZERO,
    ClosedPnl,
    ExecType,
    Execution,
    Exit,
    LogRow,
    Order,
    OrderType,
    Printed,
    TriggerBy,
)
from hean.execution.margin import tier_of
from hean.messages import Side
from hean.units import MILLISECOND

Rendered = dict[str, Any]

SIDES = {Side.BUY: "Buy", Side.SELL: "Sell"}
_RISE, _FALL = 1, 2

# --- numbers and times ----------------------------------------------------------------------------


def number(value: Decimal) -> str:
    """A number in full and without trailing zeros: never in exponent notation."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def figure(value: Decimal, digits: int = 8) -> str:
    """A number that was computed, to so many decimals at most."""
    return number(value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def measured(value: float, digits: int = 8) -> str:
    """The same of a measurement, without binary noise."""
    return figure(Decimal(f"{value:.15g}"), digits)


def milliseconds(ts: int) -> str:
    return str(ts // MILLISECOND)


def price(value: Decimal, listing: Listing, *, trims: bool = False) -> str:
    return number(value) if trims or listing.is_spot else f"{value:.{price_scale(listing)}f}"


def price_or_none(value: Decimal | None, listing: Listing, *, trims: bool = False) -> str:
    """A price that may be absent: "" where it is."""
    return "" if value is None else price(value, listing, trims=trims)


def size(value: Decimal, listing: Listing, *, trims: bool = False) -> str:
    return number(value) if trims or listing.is_spot else f"{value:.{listing.quantity_places}f}"


# Contracts that Bybit writes with one digit more than their tick has: "0.10" (instruments-info, read on 2026-08-09).
_FINER = frozenset(
    {
        *("1000BONKUSDT", "1000PEPEUSDT", "BCHUSDT", "BEATUSDT", "BNBUSDT", "BNTUSDT", "BTCUSDT", "CLUSDT", "DATAUSDT"),
        *("DEXEUSDT", "DRAMUSDT", "HUSDT", "INJUSDT", "JELLYJELLYUSDT", "JSTUSDT", "LABUSDT", "MNTUSDT", "NAORISUSDT"),
        *("OGUSDT", "PAXGUSDT", "PIEVERSEUSDT", "SOLUSDT", "STXUSDT", "SUIUSDT", "UBUSDT", "VVVUSDT", "XAUTUSDT"),
        *("XCNUSDT", "XVGUSDT", "XVSUSDT"),
    }
)


def price_scale(listing: Listing) -> int:
    """How many decimals prices of a contract are written with."""
    return listing.price_places + (listing.symbol in _FINER)


def cursor(*parts: object) -> str:
    """A page cursor: opaque to clients, percent-encoded as the venue's are, since they are sent back as they came."""
    return quote(":".join(map(str, parts)), safe="")


def page(place: int) -> str:
    """A cursor that is a place in a list."""
    return cursor("page", place)


# --- orders and executions ------------------------------------------------------------------------


def order(order: Order, listing: Listing, *, stream: bool = False) -> Rendered:
    """An order (Bybit v5, *Get Open & Closed Orders*); with `stream`, as the private topic shows it."""
    open_ = order.status.is_open
    coin = fee_coin(order, listing)
    absent = "" if listing.is_spot else "0"
    rendered: Rendered = {
        "orderId": order.order_id,
        "orderLinkId": order.link_id,
        "parentOrderLinkId": order.parent_link_id,
        "blockTradeId": "",
        "symbol": listing.symbol,
        "price": price(order.price or ZERO, listing, trims=stream),
        "qty": number(order.quantity) if order.in_quote else size(order.quantity, listing, trims=stream),
        "side": SIDES[order.side],
        "isLeverage": str(int(order.leveraged)) if listing.is_spot else "",
        "positionIdx": order.position_idx,
        "orderStatus": order.status.value,
        "cancelType": order.cancel_type,
        "rejectReason": order.reject_reason,
        "avgPrice": "" if order.average is None else figure(order.average),
        "leavesQty": _leaves(order, listing, trims=stream) if open_ else "0",
        "leavesValue": number(_leaves_value(order)) if open_ else "0",
        "cumExecQty": size(order.filled, listing, trims=stream),
        "cumExecValue": number(order.value),
        "cumExecFee": number(order.fees.get(coin, ZERO)),
        "timeInForce": order.time_in_force.value,
        "orderType": order.kind.value,
        "stopOrderType": order.stop_order_type,
        "orderIv": "",
        "marketUnit": _market_unit(order.kind, listing, in_quote=order.in_quote),
        "slippageToleranceType": order.slippage_type or "UNKNOWN",
        "slippageTolerance": absent if order.slippage is None else number(order.slippage),
        **_trigger(order, listing, trims=stream),
        **_exits(order.take_profit, order.stop_loss, listing, trims=stream),
        "ocoTriggerBy": "",
        "lastPriceOnCreated": price(order.last_on_create, listing, trims=stream) if order.last_on_create else "",
        "reduceOnly": order.reduce_only,
        "closeOnTrigger": order.close_on_trigger,
        "placeType": "",
        "smpType": order.smp.value,
        "smpGroup": 0,
        "smpOrderId": order.smp_order_id,
        "createdTime": milliseconds(order.ts_created),
        "updatedTime": milliseconds(order.ts_updated),
        "cumFeeDetail": {paid_in: number(paid) for paid_in, paid in order.fees.items()},
        "rpiTakerAccess": False,
        "rpiMatchedQty": "0",
        "extraFees": "",
    }
    if listing.is_spot:
        rendered["basePrice"] = rendered["lastPriceOnCreated"]
    else:
        # Fields that spot does not have: general clients tell the two apart by them.
        rendered["createType"] = order.create_type
        unset = "UNKNOWN" if stream else ""
        rendered["tpslMode"] = unset if order.tpsl_mode is None else order.tpsl_mode.value
    if stream:
        rendered |= {
            "category": listing.category,
            "feeCurrency": coin if listing.is_spot else "",
            "closedPnl": number(order.closed_pnl),
        }
    return rendered


def fee_coin(order: Order, listing: Listing) -> str:
    """The coin an order's fees are taken in: that of its fills, or the one a fee-paying fill would be charged in."""
    if order.fees:
        return next(iter(order.fees))
    return listing.instrument.base if listing.is_spot and order.side is Side.BUY else listing.instrument.quote


def _leaves(order: Order, listing: Listing, *, trims: bool) -> str:
    return number(order.left) if order.in_quote else size(order.left, listing, trims=trims)


def _leaves_value(order: Order) -> Decimal:
    """What is left at the order's price; a market order in quote currency is its own value."""
    return order.left if order.in_quote else order.left * (order.price or ZERO)


def _market_unit(kind: OrderType | None, listing: Listing, *, in_quote: bool) -> str:
    if not listing.is_spot or kind is not OrderType.MARKET:
        return ""
    return "quoteCoin" if in_quote else "baseCoin"


def _trigger(order: Order, listing: Listing, *, trims: bool) -> Rendered:
    trigger = order.trigger
    if trigger is None:
        if order.trailing is None:
            return {"triggerPrice": "", "triggerDirection": 0, "triggerBy": ""}
        # A trailing stop that is not active yet shows the price it becomes so at, and the way it will be triggered.
        return {
            "triggerPrice": price_or_none(order.active_price, listing, trims=trims),
            "triggerDirection": _FALL if order.side is Side.SELL else _RISE,
            "triggerBy": TriggerBy.LAST.value,
        }
    return {
        "triggerPrice": price(trigger.price, listing, trims=trims),
        "triggerDirection": _RISE if trigger.rising else _FALL,
        "triggerBy": "" if listing.is_spot else trigger.by.value,
    }


def _exits(take_profit: Exit | None, stop_loss: Exit | None, listing: Listing, *, trims: bool) -> Rendered:
    def of(exit_: Exit | None, name: str, short: str) -> Rendered:
        limit = price_or_none(exit_.limit if exit_ else None, listing, trims=trims)
        return {
            name: price_or_none(exit_.price if exit_ else None, listing, trims=trims),
            f"{short}LimitPrice": limit or ("" if listing.is_spot else "0"),
            f"{short}TriggerBy": exit_.by.value if exit_ and not listing.is_spot else "",
        }

    return of(take_profit, "takeProfit", "tp") | of(stop_loss, "stopLoss", "sl")


def execution(execution: Execution, listing: Listing, *, stream: bool = False) -> Rendered:
    """A fill or a settlement of funding (Bybit v5, *Get Trade History*: the index price is of options alone)."""
    in_quote = execution.in_quote
    rendered: Rendered = {
        "symbol": listing.symbol,
        "orderId": execution.order_id,
        "orderLinkId": execution.link_id,
        "side": SIDES[execution.side],
        "orderPrice": price(execution.order_price or ZERO, listing, trims=stream),
        "orderQty": number(execution.order_quantity)
        if in_quote
        else size(execution.order_quantity, listing, trims=stream),
        "leavesQty": number(execution.left) if in_quote else size(execution.left, listing, trims=stream),
        "orderType": execution.kind.value if execution.kind is not None else "UNKNOWN",
        "stopOrderType": execution.stop_order_type or ("" if listing.is_spot else "UNKNOWN"),
        "execFee": number(execution.fee),
        "execId": execution.exec_id,
        "execPrice": price(execution.price, listing, trims=stream),
        "execQty": size(execution.quantity, listing, trims=stream),
        "execType": execution.exec_type.value,
        "execValue": number(execution.value),
        "execTime": milliseconds(execution.ts),
        "feeCurrency": execution.fee_coin,
        "isMaker": execution.maker,
        "feeRate": number(execution.fee_rate),
        "tradeIv": "",
        "markIv": "",
        "markPrice": price_or_none(execution.mark, listing, trims=stream),
        "indexPrice": "",
        "underlyingPrice": "",
        "blockTradeId": "",
        "closedSize": "" if listing.is_spot else size(execution.closed, listing, trims=stream),
        "seq": execution.seq,
        "extraFees": "",
    }
    if not listing.is_spot:
        rendered["createType"] = execution.create_type
    if stream:
        rendered |= {
            "category": listing.category,
            "isLeverage": str(int(execution.leveraged)),
            "execPnl": number(execution.pnl),
            "marketUnit": _market_unit(execution.kind, listing, in_quote=in_quote),
        }
    return rendered


def fast_execution(execution: Execution, listing: Listing) -> Rendered | None:
    """A fill in short (Bybit v5, *Fast Execution*); None for what is not a trade. A maker's link id is not told."""
    if execution.exec_type is not ExecType.TRADE:
        return None
    return {
        "category": listing.category,
        "symbol": listing.symbol,
        "orderId": execution.order_id,
        "isMaker": execution.maker,
        "orderLinkId": "" if execution.maker else execution.link_id,
        "execId": execution.exec_id,
        "execPrice": price(execution.price, listing, trims=True),
        "execQty": size(execution.quantity, listing, trims=True),
        "side": SIDES[execution.side],
        "execTime": milliseconds(execution.ts),
        "seq": execution.seq,
    }


# --- positions ------------------------------------------------------------------------------------


def position(exchange: Exchange, uid: str, instrument: str, index: int, *, stream: bool = False) -> Rendered:
    """A position, flat or not (Bybit v5, *Get Position Info*); the stream says entryPrice for avgPrice."""
    account, market = exchange.accounts[uid], exchange.markets[instrument]
    listing = market.listing
    holding = account.holdings.get(instrument, {}).get(index) or Holding()
    mark = market.mark
    leverage = leverage_of(account, instrument, _leaning(holding, index))
    sums = figures(listing, holding, mark or ZERO, leverage, account.rates.linear_taker)
    flat = not holding.quantity
    tiers = listing.instrument.tiers
    tier = tier_of(listing.instrument, sums.value)
    rendered: Rendered = {
        "positionIdx": index,
        "riskId": tiers.index(tier) + 1 if tier in tiers else 1,
        "riskLimitValue": number(tier.up_to) if tier.up_to.is_finite() else "",
        "symbol": listing.symbol,
        "side": "" if flat else SIDES[Side.BUY if holding.quantity > 0 else Side.SELL],
        "size": "0" if flat else size(abs(holding.quantity), listing, trims=stream),
        "entryPrice" if stream else "avgPrice": "0" if holding.entry is None else figure(holding.entry),
        "positionValue": _unless(flat, abs(holding.position.value), stream=stream),
        "autoAddMargin": 0,
        "positionStatus": "Normal",
        "leverage": number(leverage),
        "breakEvenPrice": _unless(flat, _break_even(account, holding), stream=stream),
        "markPrice": price_or_none(mark, listing, trims=stream),
        "liqPrice": price_or_none(_liquidation_price(exchange, uid, instrument, index), listing, trims=stream),
        "bustPrice": "",
        "positionIM": figure(sums.initial),
        "positionIMByMp": figure(sums.initial),
        "positionMM": figure(sums.maintenance),
        "positionMMByMp": figure(sums.maintenance),
        # Of isolated margin alone: in cross margin it is the account that backs a position.
        "positionBalance": "0",
        "takeProfit": _exit_price(exchange, uid, holding.take_profit, listing, stream=stream),
        "stopLoss": _exit_price(exchange, uid, holding.stop_loss, listing, stream=stream),
        "trailingStop": _trailing_distance(exchange, uid, holding, listing, stream=stream),
        "sessionAvgPrice": "",
        "delta": "",
        "gamma": "",
        "vega": "",
        "theta": "",
        "unrealisedPnl": _unless(flat, sums.profit, stream=stream),
        "curRealisedPnl": number(holding.running),
        "cumRealisedPnl": number(holding.realised),
        "adlRankIndicator": _adl_rank(sums),
        "createdTime": milliseconds(holding.ts_created),
        "updatedTime": milliseconds(holding.ts_updated),
        "openTime": holding.ts_opened // MILLISECOND,
        "seq": holding.seq,
        "isReduceOnly": False,
        "mmrSysUpdatedTime": "",
        "leverageSysUpdatedTime": "",
        "tpslMode": "Full",
        "tradeMode": 0,
    }
    if stream:
        rendered["category"] = listing.category
    return rendered


def _leaning(holding: Holding, index: int) -> Decimal:
    """The sign a position has or, while it is flat, would have: index 2 of hedge mode is the short one."""
    return holding.quantity or Decimal(-1 if index == 2 else 1)


def _unless(flat: bool, value: Decimal, *, stream: bool) -> str:  # noqa: FBT001 (reads as a sentence)
    """A figure of a position; of a flat one the answers say "" and the stream "0"."""
    if flat:
        return "0" if stream else ""
    return figure(value)


def _break_even(account: TradingAccount, holding: Holding) -> Decimal:
    """Where closing now, its taker fee paid, would leave nothing lost or won since the position was opened."""
    held = holding.quantity
    if not held:
        return ZERO
    return (holding.position.value - holding.running) / (held - abs(held) * account.rates.linear_taker)


def _liquidation_price(exchange: Exchange, uid: str, instrument: str, index: int) -> Decimal | None:
    """An estimate, since in cross margin all the account holds moves it; none where it lies outside the prices there can be."""
    found, listing = exchange.liquidation_price(uid, instrument, index), exchange.markets[instrument].listing
    return found if found is not None and listing.instrument.tick <= found <= max_price(listing) else None


def _exit_price(exchange: Exchange, uid: str, order_id: str, listing: Listing, *, stream: bool) -> str:
    exit_ = exchange.accounts[uid].open_orders.get(order_id)
    if exit_ is None or exit_.trigger is None:
        return "0" if stream else ""
    return price(exit_.trigger.price, listing, trims=stream)


def _trailing_distance(exchange: Exchange, uid: str, holding: Holding, listing: Listing, *, stream: bool) -> str:
    exit_ = exchange.accounts[uid].open_orders.get(holding.trailing)
    return price((exit_.trailing if exit_ is not None else None) or ZERO, listing, trims=stream)


def _adl_rank(sums: PositionFigures) -> int:
    """How near a position is to being deleveraged, 1 .. 5 by its profit on its margin; 0 while it is flat."""
    if not sums.initial:
        return 0
    return 1 if sums.profit <= 0 else min(5, 2 + int(sums.profit / sums.initial * 2))


# --- the wallet -----------------------------------------------------------------------------------


def wallet(exchange: Exchange, uid: str, coins: Iterable[str] | None = None) -> Rendered:
    """An account and its coins (Bybit v5, *Get Wallet Balance*): those asked for, or all that are not empty."""
    account, sums = exchange.accounts[uid], exchange.wallet(uid)
    shown = [coin for coin, balance in account.balances.items() if balance] if coins is None else coins
    initial_rate = _rate(sums.initial, sums.margin)
    maintenance_rate = _rate(sums.maintenance, sums.margin)
    return {
        "accountType": "UNIFIED",
        "accountLTV": "",
        "accountIMRate": initial_rate,
        "accountMMRate": maintenance_rate,
        "accountIMRateByMp": initial_rate,
        "accountMMRateByMp": maintenance_rate,
        "totalEquity": figure(sums.equity),
        "totalWalletBalance": figure(sums.wallet),
        "totalMarginBalance": figure(sums.equity),
        "totalAvailableBalance": figure(sums.available),
        "totalPerpUPL": figure(sums.profit),
        "totalInitialMargin": figure(sums.initial),
        "totalInitialMarginByMp": figure(sums.initial),
        "totalMaintenanceMargin": figure(sums.maintenance),
        "totalMaintenanceMarginByMp": figure(sums.maintenance),
        "coin": [_coin(exchange, account, coin) for coin in shown],
    }


def _rate(margin: Decimal, balance: Decimal) -> str:
    """A margin as a share of the margin balance; of an account with nothing left, one whole."""
    if not margin:
        return "0"
    return figure(margin / balance, 4) if balance > 0 else "1"


def _coin(exchange: Exchange, account: TradingAccount, coin: str) -> Rendered:
    balance = account.balances.get(coin, ZERO)
    profit, ordered, held, kept = settled_in(exchange, account, coin)
    return {
        "coin": coin,
        "equity": number(balance + profit),
        "usdValue": figure((balance + profit) * (exchange.worth(coin) or ZERO)),
        "walletBalance": number(balance),
        "locked": number(account.locked.get(coin, ZERO)),
        "spotHedgingQty": "0",
        "borrowAmount": "0",
        "spotBorrow": "0",
        "accruedInterest": "0",
        "totalOrderIM": figure(ordered),
        "totalPositionIM": figure(held),
        "totalPositionMM": figure(kept),
        "unrealisedPnl": figure(profit),
        "cumRealisedPnl": number(account.realised.get(coin, ZERO)),
        "bonus": "0",
        "marginCollateral": True,
        "collateralSwitch": True,
        "colRes": "0",
        "availableToWithdraw": "",
        "availableToBorrow": "",
    }


def settled_in(exchange: Exchange, account: TradingAccount, coin: str) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Unrealised profit, margin of orders, and initial and maintenance margin of positions that settle in a coin."""
    profit = ordered = held = kept = ZERO
    taker = account.rates.linear_taker
    for instrument, _, holding in account.positions():
        market = exchange.markets[instrument]
        if market.listing.instrument.quote == coin and market.mark is not None:
            leverage = leverage_of(account, instrument, holding.quantity)
            sums = figures(market.listing, holding, market.mark, leverage, taker)
            profit, held, kept = profit + sums.profit, held + sums.initial, kept + sums.maintenance
    for instrument, sides in account.reserved.items():
        market = exchange.markets[instrument]
        if market.listing.instrument.quote == coin and market.mark is not None:
            ordered += order_initial(account, market.listing, sides, market.mark)
    return profit, ordered, held, kept


def log_row(row: LogRow, listing: Listing | None) -> Rendered:
    """A line of the transaction log; `listing` is None where it is about no instrument (Bybit v5, *Get Transaction Log*)."""
    return {
        "id": row.row_id,
        "symbol": listing.symbol if listing is not None else "",
        "category": listing.category if listing is not None else "",
        "side": SIDES[row.side] if row.side is not None else "None",
        "transactionTime": milliseconds(row.ts),
        "type": row.kind,
        "transSubType": "",
        "qty": number(row.quantity),
        "size": number(row.size),
        "currency": row.currency,
        "tradePrice": "" if row.price is None else number(row.price),
        "funding": "" if row.funding is None else number(row.funding),
        "fee": number(row.fee),
        "cashFlow": number(row.cash_flow),
        "change": number(row.change),
        "cashBalance": number(row.balance),
        "feeRate": "" if row.fee_rate is None else number(row.fee_rate),
        "bonusChange": "",
        "tradeId": row.trade_id,
        "orderId": row.order_id,
        "orderLinkId": row.link_id,
        "extraFees": "",
    }


def closed_pnl(record: ClosedPnl, listing: Listing) -> Rendered:
    """What an order closed (Bybit v5, *Get Closed PnL*); `side` is the order's, so that of the close."""
    return {
        "symbol": listing.symbol,
        "orderId": record.order_id,
        "side": SIDES[record.side],
        "qty": number(record.quantity),
        "orderPrice": number(record.order_price),
        "orderType": record.kind.value,
        "execType": record.exec_type.value,
        "closedSize": number(record.closed),
        "cumEntryValue": figure(record.entry_value),
        "avgEntryPrice": figure(record.entry_value / record.closed),
        "cumExitValue": figure(record.exit_value),
        "avgExitPrice": figure(record.exit_value / record.closed),
        "closedPnl": figure(record.pnl),
        "fillCount": str(record.fills),
        "leverage": number(record.leverage),
        "openFee": figure(record.open_fee),
        "closeFee": figure(record.close_fee),
        "createdTime": milliseconds(record.ts_created),
        "updatedTime": milliseconds(record.ts_updated),
    }


# --- instruments ----------------------------------------------------------------------------------


def max_price(listing: Listing) -> Decimal:
    """The highest price of a contract: Bybit gives each 20 million ticks but two."""
    return listing.instrument.tick * 19_999_998


def instrument(market: Market) -> Rendered:
    """An instrument and its rules (Bybit v5, *Get Instruments Info*): the record of its category."""
    return _spot_instrument(market) if market.listing.is_spot else _linear_instrument(market)


def _linear_instrument(market: Market) -> Rendered:
    listing = market.listing
    rules = listing.instrument
    return {
        "symbol": listing.symbol,
        "contractType": "LinearPerpetual",
        # A contract that only reduces is still listed as trading; orders are what is refused.
        "status": "Settling" if market.status == "Settling" else "Trading",
        "baseCoin": rules.base,
        "quoteCoin": rules.quote,
        "launchTime": milliseconds(listing.ts_launch),
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(price_scale(listing)),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": f"{rules.max_leverage:.2f}", "leverageStep": "0.01"},
        "priceFilter": {
            "minPrice": price(rules.tick, listing),
            "maxPrice": price(max_price(listing), listing),
            "tickSize": price(rules.tick, listing),
        },
        "lotSizeFilter": {
            "maxOrderQty": size(rules.max_limit_quantity, listing),
            "minOrderQty": size(rules.min_quantity, listing),
            "qtyStep": size(rules.step, listing),
            "postOnlyMaxOrderQty": size(rules.max_limit_quantity, listing),
            "maxMktOrderQty": size(rules.max_market_quantity, listing),
            "minNotionalValue": number(rules.min_notional),
        },
        "unifiedMarginTrade": True,
        "fundingInterval": listing.funding_minutes,
        "settleCoin": rules.quote,
        "copyTrading": "both",
        "upperFundingRate": number(rules.funding_cap),
        "lowerFundingRate": number(-rules.funding_cap),
        "isPreListing": False,
        "preListingInfo": None,
        "riskParameters": _bands(listing),
        "displayName": "",
        "symbolType": "",
        "forbidUplWithdrawal": False,
        "symbolId": listing.symbol_id,
    }


def _spot_instrument(market: Market) -> Rendered:
    listing = market.listing
    rules = listing.instrument
    digits = listing.quantity_places + listing.price_places
    most = number(rules.max_limit_quantity)
    return {
        "symbolId": listing.symbol_id,
        "symbol": listing.symbol,
        "baseCoin": rules.base,
        "quoteCoin": rules.quote,
        "innovation": "0",
        "status": "Trading",
        "marginTrading": "utaOnly",
        "stTag": "0",
        "lotSizeFilter": {
            "basePrecision": number(rules.step),
            "quotePrecision": number(Decimal(1).scaleb(-digits)),
            "minOrderQty": number(rules.min_quantity),
            "maxOrderQty": most,
            "minOrderAmt": number(rules.min_notional),
            "maxOrderAmt": _MAX_AMOUNTS.get(listing.symbol, "4000000"),
            "maxLimitOrderQty": most,
            "maxMarketOrderQty": number(rules.max_market_quantity),
            "postOnlyMaxLimitOrderSize": number(5 * rules.max_limit_quantity),
        },
        "priceFilter": {"tickSize": number(rules.tick)},
        "riskParameters": _bands(listing),
        "symbolType": "",
        "xstockMultiplier": "1",
    }


_MAX_AMOUNTS = {"BTCUSDT": "8000000", "ETHUSDT": "7000000", "SOLUSDT": "5000000"}
"""Quote value of the largest spot order (instruments-info, read on 2026-08-09); others get the middle of what was seen."""


def _bands(listing: Listing) -> Rendered:
    return {"priceLimitRatioX": number(listing.band), "priceLimitRatioY": number(listing.market_band)}


def risk_limits(listing: Listing) -> list[Rendered]:
    """The margin tiers of a contract, the lowest first; rates are fractions (Bybit v5, *Get Risk Limit*)."""
    return [
        {
            "id": place,
            "symbol": listing.symbol,
            "riskLimitValue": number(tier.up_to),
            "maintenanceMargin": number(tier.maintenance_rate),
            "initialMargin": number(tier.initial_rate),
            "isLowestRisk": int(place == 1),
            "maxLeverage": f"{min(1 / tier.initial_rate, listing.instrument.max_leverage):.2f}",
            "mmDeduction": number(tier.deduction) if tier.deduction else "",
        }
        for place, tier in enumerate(listing.instrument.tiers, 1)
    ]


def price_limit(market: Market, now: int) -> Rendered:
    """How high a bid and how low an offer may be (Bybit v5, *Get Order Price Limit*)."""
    bounds = market.bounds()
    high, low = bounds if bounds is not None else (None, None)
    return {
        "symbol": market.listing.symbol,
        "buyLmt": price_or_none(high, market.listing),
        "sellLmt": price_or_none(low, market.listing),
        "ts": milliseconds(now),
    }


def levels(market: Market, side: Side, depth: int) -> list[list[str]]:
    """The best prices of a side with their sizes, the best first."""
    listing = market.listing
    return [
        [price(listing.price(ticks), listing), size(listing.quantity(steps), listing)]
        for ticks, steps in market.book.levels(side, depth)
    ]


def trade(printed: Printed, listing: Listing) -> Rendered:
    """A public trade (Bybit v5, *Get Recent Public Trades*): here `seq` is a string, on the stream an integer."""
    return {
        "execId": printed.exec_id,
        "symbol": listing.symbol,
        "price": price(printed.price, listing),
        "size": size(printed.quantity, listing),
        "side": SIDES[printed.side],
        "time": milliseconds(printed.ts),
        "isBlockTrade": False,
        "isRPITrade": False,
        "seq": str(printed.seq),
    }


# --- tickers and candles --------------------------------------------------------------------------


def ticker(market: Market, now: int, *, stream: bool = False) -> Rendered:
    """The last day and the present of an instrument (Bybit v5, *Get Tickers*; with `stream`, *Ticker*).

    The stream's linear tickers have a `tickDirection` besides, which is the stream's to know.
    """
    return (
        _spot_ticker(market, now, stream=stream)
        if market.listing.is_spot
        else _linear_ticker(market, now, stream=stream)
    )


def _spot_ticker(market: Market, now: int, *, stream: bool) -> Rendered:
    listing = market.listing
    rendered = {
        "symbol": listing.symbol,
        "lastPrice": price_or_none(market.last, listing),
        **_last_day(market, now),
        "usdIndexPrice": "" if market.pricing.index is None else figure(market.pricing.index),
    }
    return rendered if stream else rendered | _touch(market)


def _linear_ticker(market: Market, now: int, *, stream: bool) -> Rendered:
    listing, pricing = market.listing, market.pricing
    day = market.candles.day(now)
    rendered: Rendered = {
        "symbol": listing.symbol,
        "lastPrice": price_or_none(market.last, listing),
        "indexPrice": price_or_none(pricing.index, listing),
        "markPrice": price_or_none(pricing.mark, listing),
        **_last_day(market, now),
        "prevPrice1h": "" if day is None else price(_decimal(day.previous_hour), listing),
        **_interest(market.candles.interest, pricing.mark, listing),
        "fundingRate": "" if pricing.predicted is None else number(pricing.predicted),
        "nextFundingTime": milliseconds(pricing.ts_next),
        # Clients read whole hours here; what is shorter is said in minutes by instruments-info alone.
        "fundingIntervalHour": str(max(1, listing.funding_minutes // 60)),
        "fundingCap": number(listing.instrument.funding_cap),
        **_touch(market),
        "preOpenPrice": "",
        "preQty": "",
        "curPreListingPhase": "",
    }
    if not stream:
        rendered |= {
            "predictedDeliveryPrice": "",
            "basisRate": "",
            "basis": "",
            "basisRateYear": "",
            "deliveryFeeRate": "",
            "deliveryTime": "0",
        }
    return rendered


def _last_day(market: Market, now: int) -> Rendered:
    listing, day = market.listing, market.candles.day(now)
    if day is None or market.last is None:
        names = ("prevPrice24h", "price24hPcnt", "highPrice24h", "lowPrice24h", "turnover24h", "volume24h")
        return dict.fromkeys(names, "")
    change = float(market.last) / day.previous - 1 if day.previous else 0.0
    return {
        "prevPrice24h": price(_decimal(day.previous), listing),
        # Spot keeps its four decimals, "0.0010"; linear trims its six, "0.01337" (streams recorded on 2026-08-09).
        "price24hPcnt": f"{change:z.4f}" if listing.is_spot else measured(change, 6),
        "highPrice24h": price(_decimal(day.high), listing),
        "lowPrice24h": price(_decimal(day.low), listing),
        "turnover24h": measured(day.turnover) if listing.is_spot else f"{day.turnover:.4f}",
        "volume24h": measured(day.volume, listing.quantity_places) if listing.is_spot else f"{day.volume:.4f}",
    }


def _decimal(value: float) -> Decimal:
    """A measured price as it was written, without binary noise."""
    return Decimal(f"{value:.12g}")


def _touch(market: Market) -> Rendered:
    rendered: Rendered = {}
    for side, name in ((Side.BUY, "bid1"), (Side.SELL, "ask1")):
        best = levels(market, side, 1)
        rendered[f"{name}Price"], rendered[f"{name}Size"] = best[0] if best else ("", "")
    return rendered


def _interest(single: float | None, mark: Decimal | None, listing: Listing) -> Rendered:
    """Open interest of both sides and of one, in base coin and in quote currency at the mark."""
    rendered: Rendered = {}
    for sides, name in ((2, "openInterest"), (1, "singleOpenInterest")):
        held = None if single is None else sides * single
        rendered[name] = "" if held is None else f"{held:.{listing.quantity_places}f}"
        rendered[f"{name}Value"] = "" if held is None or mark is None else f"{held * float(mark):.2f}"
    return rendered


def open_interest(row: Sequence[float]) -> Rendered:
    """A sample of open interest (Bybit v5, *Get Open Interest*): base coin, eight decimals."""
    ts_ms, both, single = row
    return {"openInterest": f"{both:.8f}", "singleOpenInterest": f"{single:.8f}", "timestamp": str(int(ts_ms))}


def candle(row: Sequence[float], listing: Listing, kind: str) -> list[str]:
    """A row of a candle list: start, open, high, low, close; of last prices volume and turnover too (*Get Kline*).

    Zeros are trimmed in both categories, as on the venue; premia have six decimals.
    """
    if kind == "premium":
        return [str(int(row[0])), *(f"{value:.6f}" for value in row[1:5])]
    prices = [number(_decimal(value)) for value in row[1:5]]
    if kind != "last":
        return [str(int(row[0])), *prices]
    return [str(int(row[0])), *prices, measured(row[5], listing.quantity_places), measured(row[6])]


def funding(ts: int, rate: Decimal, listing: Listing) -> Rendered:
    return {"symbol": listing.symbol, "fundingRate": number(rate), "fundingRateTimestamp": milliseconds(ts)}
