"""Market data over REST: what everybody may ask (Bybit v5, *Market*)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from actors.exchange import render
from actors.exchange.parse import Fields, count, cursor, place
from hean.exchange.candles import INTEREST_INTERVALS, INTERVALS, Kind
from hean.exchange.market import Market
from hean.exchange.refusals import invalid
from hean.messages import Side
from hean.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from actors.exchange.server import ExchangeServer

Result = Mapping[str, Any]
Public = Callable[["ExchangeServer", Fields, int], Result]

DERIVATIVES, ALL = ("linear", "inverse"), ("linear", "inverse", "spot", "option")
_EMPTY = frozenset({"inverse", "option"})
"""Categories that clients ask for and this exchange lists nothing in."""


def time(_: "ExchangeServer", __: Fields, now: int) -> Result:
    return {"timeSecond": str(now // SECOND), "timeNano": str(now)}


def instruments(server: "ExchangeServer", fields: Fields, _: int) -> Result:
    """Instruments and their rules; unknown symbols are an empty list. Spot is not paged, as on the venue."""
    category = fields.category()
    limit = fields.whole("limit", 500, 1, 1000)
    symbol, base, status = fields.text("symbol"), fields.text("baseCoin"), fields.text("status")
    found = [
        market
        for market in server.directory.of(category)
        if symbol in {"", market.listing.symbol} and base in {"", market.listing.instrument.base}
    ]
    shown = [one for one in map(render.instrument, found) if status in {"", one["status"]}]
    if category == "spot":
        return {"category": category, "list": shown}
    begin = place(fields) or 0
    more = render.page(begin + limit) if begin + limit < len(shown) else ""
    return {"category": category, "list": shown[begin : begin + limit], "nextPageCursor": more}


def candles(kind: Kind, categories: tuple[str, ...] = ALL) -> Public:
    def answer(server: "ExchangeServer", fields: Fields, _: int) -> Result:
        category = fields.choice("category", categories, "linear")
        interval = fields.needed("interval")
        if interval not in INTERVALS:
            raise invalid("Invalid period!")
        start, end, limit = fields.time("start"), fields.time("end"), fields.whole("limit", 200, 1, 1000)
        if start is not None and end is not None and start > end:
            raise invalid("start is later than end")
        if category in _EMPTY:
            return {"category": category, "symbol": fields.needed("symbol"), "list": []}
        market = server.directory.find(category, fields.needed("symbol"))
        if market is None:
            raise fields.wrong("symbol")
        rows = market.candles.query(kind, interval, start, end, limit)
        listing = market.listing
        shown = [render.candle(row, listing, kind) for row in rows]
        return {"category": category, "symbol": listing.symbol, "list": shown}

    return answer


def tickers(server: "ExchangeServer", fields: Fields, now: int) -> Result:
    category = fields.category()
    return {"category": category, "list": [render.ticker(market, now) for market in _asked(server, fields, category)]}


def order_book(server: "ExchangeServer", fields: Fields, now: int) -> Result:
    """The best prices; `u` is the update id of the deepest stream, which this book is the same as."""
    category = fields.category()
    limit = fields.whole("limit", 1 if category == "spot" else 25, 1, 1000)
    ts = now // MILLISECOND
    if category in _EMPTY:
        return {"s": fields.needed("symbol"), "b": [], "a": [], "ts": ts, "u": 0, "seq": 0, "cts": ts}
    market = server.directory.named(fields)
    return {
        "s": market.listing.symbol,
        "b": render.levels(market, Side.BUY, limit),
        "a": render.levels(market, Side.SELL, limit),
        "ts": ts,
        "u": server.hub.u_of(market.listing.id),
        "seq": market.seq,
        "cts": (market.ts_matched or now) // MILLISECOND,
    }


def trades(server: "ExchangeServer", fields: Fields, _: int) -> Result:
    category = fields.category()
    most, usual = (60, 60) if category == "spot" else (1000, 500)
    limit = fields.whole("limit", usual, 1, most)
    if category in _EMPTY:
        return {"category": category, "list": []}
    market = server.directory.named(fields)
    newest = [printed for printed, _ in zip(reversed(market.trades), range(limit), strict=False)]
    return {"category": category, "list": [render.trade(printed, market.listing) for printed in newest]}


def funding_history(server: "ExchangeServer", fields: Fields, _: int) -> Result:
    """Rates that have been settled, the newest first."""
    category = _category(fields, DERIVATIVES)
    start, end = fields.time("startTime"), fields.time("endTime")
    limit = fields.whole("limit", 200, 1, 200)
    if start is not None and (end is None or start > end):
        raise invalid("startTime needs an endTime that is not before it")
    if category in _EMPTY:
        return {"category": category, "list": []}
    market = server.directory.named(fields)
    shown: list[Result] = []
    for ts, rate in reversed(market.pricing.settled):
        ms = ts // MILLISECOND
        if len(shown) == limit or (start is not None and ms < start):
            break
        if end is None or ms <= end:
            shown.append(render.funding(ts, rate, market.listing))
    return {"category": category, "list": shown}


def open_interest(server: "ExchangeServer", fields: Fields, _: int) -> Result:
    category = _category(fields, DERIVATIVES)
    interval = fields.choice("intervalTime", tuple(INTEREST_INTERVALS))
    start, end, limit = fields.time("startTime"), fields.time("endTime"), fields.whole("limit", 50, 1, 200)
    if start is not None and end is not None and start > end:
        raise invalid("startTime is later than endTime")
    if category in _EMPTY:
        return {"category": category, "symbol": fields.needed("symbol"), "list": [], "nextPageCursor": ""}
    market = server.directory.named(fields)
    before = cursor(fields, 2)
    if before is not None:
        if before[0] != "before":
            raise fields.wrong("cursor")
        end = count(fields, before[1]) - 1
    rows = market.candles.open_interest(interval, start, end, limit + 1)
    more = render.cursor("before", rows[limit - 1][0]) if len(rows) > limit else ""
    shown = [render.open_interest(row) for row in rows[:limit]]
    return {"category": category, "symbol": market.listing.symbol, "list": shown, "nextPageCursor": more}


def risk_limits(server: "ExchangeServer", fields: Fields, _: int) -> Result:
    category = _category(fields, DERIVATIVES)
    tiers = [tier for market in _asked(server, fields, category) for tier in render.risk_limits(market.listing)]
    return {"category": category, "list": tiers, "nextPageCursor": ""}


def price_limit(server: "ExchangeServer", fields: Fields, now: int) -> Result:
    category = fields.choice("category", ALL, "linear")
    market = server.directory.find(category, fields.needed("symbol"))
    if market is None:
        raise fields.wrong("symbol")
    return render.price_limit(market, now)


def _category(fields: Fields, allowed: tuple[str, ...]) -> str:
    return fields.choice("category", allowed)


def _asked(server: "ExchangeServer", fields: Fields, category: str) -> list[Market]:
    """The market asked for, or all of a category.

    Raises:
        Refused: there is none of that symbol in a category that has any.
    """
    if fields.text("symbol") and category not in _EMPTY:
        return [server.directory.named(fields)]
    return server.directory.of(category)
