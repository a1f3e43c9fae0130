"""The account over REST: wallet, settings, transaction log, API key, coins (Bybit v5, *Account*, *User*, *Asset*)."""

from typing import Any

from actors.exchange import render
from actors.exchange.operations import Answer, Call, Result
from actors.exchange.parse import Fields
from actors.exchange.rest_trade import DAYS_MS, page, span
from hean.exchange.clearing import haircut
from hean.exchange.refusals import invalid
from hean.exchange.words import LogRow
from hean.units import MILLISECOND, utc

UNIFIED_TRADING_ACCOUNT_2 = 5
_LISTED = ("linear", "spot")
_EMPTY = ("inverse", "option")
_PRODUCTS = ("SPOT", "DERIVATIVES", "OPTIONS")
_MARGIN_MODES = ("REGULAR_MARGIN", "ISOLATED_MARGIN", "PORTFOLIO_MARGIN")
_MOST_COINS = 50


def wallet_balance(call: Call) -> Result:
    _unified(call.fields, required=True)
    asked = call.fields.text("coin")
    coins = list(dict.fromkeys(asked.split(","))) if asked else None
    if coins is not None:
        if len(coins) > _MOST_COINS:
            raise call.fields.wrong("coin")
        unknown = next((coin for coin in coins if coin not in _coins(call)), None)
        if unknown is not None:
            raise invalid(f"coin invalid: {unknown}")
    return {"list": [render.wallet(call.exchange, call.uid, coins)]}


def _unified(fields: Fields, *, required: bool = False) -> None:
    fields.choice("accountType", ("UNIFIED",), None if required else "UNIFIED")


def _coins(call: Call) -> list[str]:
    """Every coin there is: those that are traded, and those the account holds."""
    traded = [
        coin
        for category in _LISTED
        for market in call.server.directory.of(category)
        for coin in (market.listing.instrument.base, market.listing.instrument.quote)
    ]
    return list(dict.fromkeys([*traded, *call.account.balances]))


def info(call: Call) -> Result:
    """What kind of account it is; general clients ask this first."""
    return {
        "unifiedMarginStatus": UNIFIED_TRADING_ACCOUNT_2,
        "marginMode": "REGULAR_MARGIN",
        "isMasterTrader": False,
        "spotHedgingStatus": "OFF",
        "updatedTime": render.milliseconds(call.account.ts_updated),
        "dcpStatus": "OFF",
        "timeWindow": 0,
        "smpGroup": 0,
    }


def fee_rate(call: Call) -> Result:
    """What fills cost this account, by symbol."""
    fields = call.fields
    category = fields.category()
    rates = call.account.rates
    spot = category == "spot"
    taker, maker = (rates.spot_taker, rates.spot_maker) if spot else (rates.linear_taker, rates.linear_maker)
    asked = category not in _EMPTY and fields.text("symbol")
    markets = [call.server.directory.named(fields)] if asked else call.server.directory.of(category)
    rows = [
        {
            "symbol": market.listing.symbol,
            "takerFeeRate": render.number(taker),
            "makerFeeRate": render.number(maker),
        }
        for market in markets
    ]
    return {"list": rows} if category in {"linear", "inverse"} else {"category": category, "list": rows}


def set_margin_mode(call: Call) -> Result:
    """Cross margin is the only one here; asking for it changes nothing."""
    wanted = call.fields.choice("setMarginMode", _MARGIN_MODES)
    if wanted == "REGULAR_MARGIN":
        return {"reasons": []}
    reason = {"reasonCode": "3400003", "reasonMsg": f"{wanted} is not available: this exchange keeps cross margin only"}
    return Answer({"reasons": [reason]}, ret_code=3400045, ret_msg="Set margin mode failed")


def transaction_log(call: Call) -> Result:
    """What changed balances, the newest first; the last day where no time is given."""
    fields = call.fields
    _unified(fields)
    if fields.text("category"):
        fields.category()
    markets = call.exchange.markets
    category, base = fields.text("category"), fields.text("baseCoin")
    currency, kind = fields.text("currency"), fields.text("type")
    limit = fields.whole("limit", 20, 1, 50)

    def wanted(row: LogRow) -> bool:
        listing = markets[row.instrument].listing if row.instrument in markets else None
        return (
            currency in {"", row.currency}
            and kind in {"", row.kind}
            and (not category or (listing is not None and listing.category == category))
            and (not base or (listing is not None and listing.instrument.base == base))
        )

    between = span(fields, call.now // MILLISECOND, DAYS_MS)
    kept = call.exchange.records[call.uid].log
    found, more = page(kept, lambda row: row.ts, fields, between, limit, wanted)
    shown = [
        render.log_row(row, markets[row.instrument].listing if row.instrument in markets else None) for row in found
    ]
    return {"list": shown, "nextPageCursor": more}


def collateral(call: Call) -> Result:
    """What each coin carries as margin. Nothing can be borrowed here."""
    asked = call.fields.text("currency")
    coins = [coin for coin in _coins(call) if asked in {"", coin}]
    return {
        "list": [
            {
                "currency": coin,
                "hourlyBorrowRate": "0",
                "maxBorrowingAmount": "0",
                "freeBorrowingLimit": "0",
                "freeBorrowAmount": "0",
                "freeBorrowingAmount": "",
                "borrowAmount": "0",
                "otherBorrowAmount": "0",
                "availableToBorrow": "0",
                "borrowable": False,
                "borrowUsageRate": "0",
                "marginCollateral": True,
                "collateralSwitch": True,
                "collateralRatio": render.number(1 - haircut(coin)),
            }
            for coin in coins
        ]
    }


def smp_group(_: Call) -> Result:
    return {"smpGroup": 0}


def disconnect_windows(call: Call) -> Result:
    """What disconnect-cancel is armed with, by product."""
    windows = call.account.windows
    return {
        "dcpInfos": [
            {"product": product, "dcpStatus": "ON", "timeWindow": str(windows[product].seconds)}
            for product in _PRODUCTS
            if product in windows and windows[product].seconds
        ]
    }


def api_key(call: Call) -> Result:
    """The key that asks, and its rights."""
    key = call.key
    number = int(key.uid) if key.uid.isascii() and key.uid.isdecimal() else 0
    shown: dict[str, Any] = {
        "id": key.uid,
        "note": "",
        "apiKey": key.key,
        "readOnly": int(key.read_only),
        "secret": "",
        "permissions": {name: list(rights) for name, rights in key.rights.items()},
        "ips": list(key.ips) or ["*"],
        "type": 1,
        "deadlineDay": 0,
        "expiredAt": "1970-01-01T00:00:00Z",
        "createdAt": utc(call.server.ts_started // 1_000_000_000 * 1_000_000_000),
        "unified": 0,
        "uta": 1,
        "userID": number,
        "inviterID": 0,
        "vipLevel": "No VIP",
        "mktMakerLevel": "0",
        "affiliateID": 0,
        "rsaPublicKey": key.public_key,
        "isMaster": True,
        "parentUid": "0",
        "kycLevel": "LEVEL_DEFAULT",
        "kycRegion": "",
    }
    return shown


def coins(call: Call) -> Result:
    """Coins and how they could be moved: nothing leaves this exchange, so no chain takes or pays."""
    asked = call.fields.text("coin")
    return {
        "rows": [
            {
                "name": coin,
                "coin": coin,
                "remainAmount": "0",
                "chains": [
                    {
                        "chain": coin,
                        "chainType": coin,
                        "confirmation": "1",
                        "withdrawFee": "0",
                        "depositMin": "0",
                        "withdrawMin": "0",
                        "minAccuracy": "8",
                        "chainDeposit": "0",
                        "chainWithdraw": "0",
                        "withdrawPercentageFee": "0",
                        "contractAddress": "",
                        "safeConfirmNumber": "1",
                    }
                ],
            }
            for coin in _coins(call)
            if asked in {"", coin}
        ]
    }
