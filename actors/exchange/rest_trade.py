"""Orders, executions and positions over REST, besides what the trade socket can do (Bybit v5, *Trade*, *Position*)."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import islice
from typing import TypeVar

from actors.exchange import parse, render
from actors.exchange.operations import Answer, Call, Result, named
from actors.exchange.parse import Fields
from hean.exchange.market import Market
from hean.exchange.refusals import Refused, invalid
from hean.exchange.words import ZERO, ClosedPnl, Execution, Order, OrderFilter, Status
from hean.messages import Side
from hean.units import DAY, MILLISECOND

DAYS_MS = 24 * 60 * 60 * 1000
_WEEK_MS = 7 * DAYS_MS
_MOST_CLOSED = 500
_MOST_LOOKED_AT = 20_000
"""Entries of a history that one request goes through: more would hold everybody up."""
_LEVERAGE_STEP = Decimal("0.01")
_FORGOTTEN = frozenset({Status.CANCELLED, Status.REJECTED, Status.DEACTIVATED})
_EMPTY = frozenset({"inverse", "option"})
_ORDER_FILTERS = ("Order", "StopOrder", "tpslOrder", "OcoOrder", "BidirectionalTpslOrder")

T = TypeVar("T")

# --- pages of what is kept oldest first -----------------------------------------------------------


def span(fields: Fields, now_ms: int, usual_ms: int = _WEEK_MS) -> tuple[int, int]:
    """From when to when (ms) a history is asked for: at most seven days, and up to now where nothing is said."""
    start, end = fields.time("startTime"), fields.time("endTime")
    if start is not None and end is not None:
        if start > end:
            raise invalid("startTime is later than endTime")
        if end - start > _WEEK_MS:
            raise invalid("the time from startTime to endTime may be no more than 7 days")
        return start, end
    if start is not None:
        return start, start + _WEEK_MS
    if end is not None:
        return end - _WEEK_MS, end
    return now_ms - usual_ms, now_ms


def page(
    kept: Sequence[T],
    ts: Callable[[T], int],
    fields: Fields,
    between: tuple[int, int],
    limit: int,
    wanted: Callable[[T], bool],
) -> tuple[list[T], str]:
    """A page of a list, the newest first, and the cursor of the next; "" where nothing follows.

    Only what lies between the times (ms) is looked at, and not more than it takes to fill the page. Of a long history in
    which little is wanted a page may be short, or empty, and the next one go on.
    """
    first = bisect_left(kept, between[0] * MILLISECOND, key=ts)
    last = bisect_left(kept, (between[1] + 1) * MILLISECOND, key=ts)
    begin = parse.place(fields)
    at = last if begin is None else min(last, begin)
    found: list[T] = []
    until = max(first, at - _MOST_LOOKED_AT)
    while at > until:
        entry = kept[at - 1]
        if wanted(entry):
            if len(found) == limit:
                return found, render.page(at)
            found.append(entry)
        at -= 1
    return found, render.page(at) if at > first else ""


class Scope:
    """What a request narrows a list of a category down to: symbol, base or settlement coin; the first that is given counts.

    Where one order is named, by its id or link id, the rest does not count.
    """

    def __init__(self, call: Call, *, required: bool = False, by_id: bool = False) -> None:
        fields, directory = call.fields, call.server.directory
        self.category = fields.category()
        named = ("", "", "") if by_id else (fields.text("symbol"), fields.text("baseCoin"), fields.text("settleCoin"))
        symbol, base, settle = named
        if required and self.category == "linear" and not (symbol or base or settle):
            raise invalid("symbol, baseCoin or settleCoin is required")
        self.markets: dict[str, Market] = {}
        if self.category in _EMPTY:
            return
        if symbol:
            market = directory.named(fields.for_order())
            self.markets = {market.listing.id: market}
            return
        for market in directory.of(self.category):
            coins = market.listing.instrument
            if (not base or coins.base == base) and (base or not settle or coins.quote == settle):
                self.markets[market.listing.id] = market

    def __contains__(self, instrument: str) -> bool:
        return instrument in self.markets


# --- orders ---------------------------------------------------------------------------------------


def open_orders(call: Call) -> Result:
    """Orders that are open, or with `openOnly` 1 those finished last; by id in any state since this exchange was started."""
    fields = call.fields
    by_id = _names_order(fields)
    scope = Scope(call, required=not by_id, by_id=by_id)
    limit = fields.whole("limit", 20, 1, 50)
    closed = fields.whole("openOnly", 0, 0, 2) > 0
    wanted = _filtered(fields)
    if by_id:
        found = [order for order in _by_id(call, scope) if _is_recent(call, order)]
    elif closed:
        recent = (
            order
            for order in islice(_newest(call), _MOST_LOOKED_AT)
            if not order.status.is_open and _is_recent(call, order) and order.instrument in scope
        )
        found = [order for order in islice(recent, _MOST_CLOSED) if wanted(order)]
    else:
        open_ = call.account.open_orders.values()
        found = [order for order in open_ if order.instrument in scope and wanted(order)]
    found.sort(key=_age, reverse=True)
    return _orders(scope, *_after(found, fields, limit))


def order_history(call: Call) -> Result:
    """Orders of a week, in any state; those that ended without a fill are forgotten after a day."""
    fields = call.fields
    by_id = _names_order(fields)
    scope = Scope(call, by_id=by_id)
    limit = fields.whole("limit", 20, 1, 50)
    if by_id:
        return _orders(scope, _by_id(call, scope), "")
    between = span(fields, call.now // MILLISECOND)
    status, filtered = fields.text("orderStatus"), _filtered(fields)
    if status and status not in tuple(Status):
        raise fields.wrong("orderStatus")
    orders = call.exchange.records[call.uid].orders

    def wanted(order_id: str) -> bool:
        order = orders[order_id]
        if order.instrument not in scope or status not in {"", order.status} or not filtered(order):
            return False
        return order.status not in _FORGOTTEN or bool(order.filled) or order.ts_updated > call.now - DAY

    ids = call.server.order_ids(call.uid)
    found, more = page(ids, lambda order_id: orders[order_id].ts_created, fields, between, limit, wanted)
    return _orders(scope, [orders[order_id] for order_id in found], more)


def _names_order(fields: Fields) -> bool:
    return bool(fields.text("orderId") or fields.text("orderLinkId"))


def _orders(scope: Scope, found: Iterable[Order], more: str) -> Result:
    shown = [render.order(order, scope.markets[order.instrument].listing) for order in found]
    return {"category": scope.category, "list": shown, "nextPageCursor": more}


def _by_id(call: Call, scope: Scope) -> list[Order]:
    fields = call.fields
    order_id = fields.text("orderId") or call.account.link_ids.get(fields.text("orderLinkId"), "")
    order = call.exchange.records[call.uid].orders.get(order_id)
    return [order] if order is not None and order.instrument in scope else []


def _newest(call: Call) -> Iterator[Order]:
    orders = call.exchange.records[call.uid].orders
    return (orders[order_id] for order_id in reversed(call.server.order_ids(call.uid)))


def _is_recent(call: Call, order: Order) -> bool:
    """Whether the realtime list knows it: what had ended when the venue was started is in the history alone."""
    return order.status.is_open or order.ts_updated >= call.server.ts_started


def _filtered(fields: Fields) -> Callable[[Order], bool]:
    asked = fields.text("orderFilter")
    if asked and asked not in _ORDER_FILTERS:
        raise fields.wrong("orderFilter")
    return lambda order: asked in {"", _filter_of(order)}


def _filter_of(order: Order) -> str:
    """The filter an order falls under: one that has been triggered is an active order like any other."""
    if order.status.is_open and order.status is not Status.UNTRIGGERED:
        return "Order"
    return {"": "Order", "tpslOrder": "tpslOrder"}.get(order.stop_order_type, "StopOrder")


def _age(order: Order) -> tuple[int, str]:
    return order.ts_created, order.order_id


def _after(found: list[Order], fields: Fields, limit: int) -> tuple[list[Order], str]:
    """The page of a list that may have lost some since the page before: what is older than the last one shown."""
    last = parse.cursor(fields, 2)
    if last is not None:
        before = parse.count(fields, last[0]), last[1]
        found = [order for order in found if _age(order) < before]
    shown = found[:limit]
    return shown, render.cursor(*_age(shown[-1])) if len(found) > limit else ""


def cancel_all(call: Call) -> Result:
    fields = call.fields
    scope = Scope(call, required=True)
    asked = fields.text("orderFilter")
    if asked and asked not in _ORDER_FILTERS:
        raise fields.wrong("orderFilter")
    # Spot cancels active orders alone where nothing is said (Bybit v5, *Cancel All Orders*).
    asked = asked or ("Order" if scope.category == "spot" else "")
    if asked and asked not in tuple(OrderFilter):
        return {"list": [], "success": "1"}
    canceled = call.exchange.cancel_all(
        call.uid,
        scope.markets,
        call.now,
        order_filter=OrderFilter(asked) if asked else None,
        stop_order_type=fields.text("stopOrderType"),
    )
    return {"list": [named(order) for order in canceled], "success": "1"}


def pre_check(call: Call) -> Result:
    """How an order would change the account's margin rates, in units of 0.01 %."""
    fields = call.fields
    before, after = call.exchange.pre_check(call.uid, parse.new_order(fields, call.server.directory), call.now)
    rates: dict[str, int] = {}
    for when, wallet in (("pre", before), ("post", after)):
        balance = wallet.margin
        rates[f"{when}ImrE4"] = int(wallet.initial / balance * 10_000) if balance > 0 else 0
        rates[f"{when}MmrE4"] = int(wallet.maintenance / balance * 10_000) if balance > 0 else 0
    return {"orderId": "", "orderLinkId": parse.link_id(fields), **rates}


def disconnect_window(call: Call) -> Result:
    """Arm disconnect-cancel: how long after the last private socket is lost orders are cancelled."""
    seconds = call.fields.whole("timeWindow", -1, 3, 300)
    if seconds < 0:
        raise call.fields.missing("timeWindow")
    product = call.fields.choice("product", ("OPTIONS", "DERIVATIVES", "SPOT"), "OPTIONS")
    call.exchange.set_window(call.uid, product, seconds, call.now)
    return Answer(ret_msg="success")


def borrow_check(call: Call) -> Result:
    """What could be bought or sold of a spot symbol: nothing is lent here, so it is what there is."""
    fields = call.fields
    if fields.category() != "spot":
        raise fields.wrong("category")
    market = call.server.directory.named(fields)
    listing = market.listing
    buys = fields.choice("side", ("Buy", "Sell")) == "Buy"
    coin = listing.instrument.quote if buys else listing.instrument.base
    free = max(ZERO, call.account.free(coin))
    price = market.best(Side.SELL if buys else Side.BUY)
    amount = free if buys else free * (price or ZERO)
    base = listing.instrument.whole_steps(free / price if buys and price else ZERO if buys else free)
    return {
        "symbol": listing.symbol,
        "side": fields.text("side"),
        "maxTradeQty": render.number(base),
        "maxTradeAmount": render.figure(amount),
        "spotMaxTradeQty": render.number(base),
        "spotMaxTradeAmount": render.figure(amount),
        "borrowCoin": coin,
    }


# --- executions -----------------------------------------------------------------------------------


def executions(call: Call) -> Result:
    """Fills and settlements of funding, the newest first; an order's own, whenever they were, where it is named."""
    fields = call.fields
    scope = Scope(call, by_id=_names_order(fields))
    limit = fields.whole("limit", 50, 1, 100)
    kind = fields.text("execType")
    order_id = fields.text("orderId")
    if not order_id and fields.text("orderLinkId"):
        order_id = call.account.link_ids.get(fields.text("orderLinkId"), "none")
    between = span(fields, call.now // MILLISECOND)
    if order_id and not (fields.text("startTime") or fields.text("endTime")):
        between = _lifetime(call.exchange.records[call.uid].orders.get(order_id), between[1])

    def wanted(execution: Execution) -> bool:
        return (
            execution.instrument in scope and order_id in {"", execution.order_id} and kind in {"", execution.exec_type}
        )

    kept = call.exchange.records[call.uid].executions
    found, more = page(kept, lambda one: one.ts, fields, between, limit, wanted)
    shown = [render.execution(one, scope.markets[one.instrument].listing) for one in found]
    return {"category": scope.category, "list": shown, "nextPageCursor": more}


def _lifetime(order: Order | None, now_ms: int) -> tuple[int, int]:
    """From when to when (ms) an order can have been filled; no time at all where there is none."""
    if order is None:
        return now_ms, now_ms - 1
    ended = now_ms if order.status.is_open else order.ts_updated // MILLISECOND
    return order.ts_created // MILLISECOND, ended


# --- positions ------------------------------------------------------------------------------------


def positions(call: Call) -> Result:
    """Positions of a symbol, flat ones too; or of a settlement coin, those that are open."""
    fields = call.fields
    if (
        fields.choice("category", ("linear", "inverse", "option")) == "linear"
        and not fields.text("symbol")
        and not fields.text("settleCoin")
    ):
        raise invalid("symbol or settleCoin is required")
    scope = Scope(call)
    limit = fields.whole("limit", 20, 1, 200)
    if fields.text("symbol"):
        asked = [(name, index) for name in scope.markets for index in call.account.indices(name)]
    else:
        asked = [(name, index) for name, index, _ in call.account.positions() if name in scope]
    begin = parse.place(fields) or 0
    shown = [render.position(call.exchange, call.uid, name, index) for name, index in asked[begin : begin + limit]]
    more = render.page(begin + limit) if begin + limit < len(asked) else ""
    return {"category": scope.category, "list": shown, "nextPageCursor": more}


def set_leverage(call: Call) -> Result:
    fields = call.fields
    market = _contract(call)
    buy, sell = (fields.on_grid(name, _LEVERAGE_STEP) for name in ("buyLeverage", "sellLeverage"))
    if buy is None or sell is None:
        raise fields.missing("buyLeverage" if buy is None else "sellLeverage")
    call.exchange.set_leverage(call.uid, market.listing.id, buy, sell, call.now)
    return {}


def switch_mode(call: Call) -> Result:
    """One-way or hedge mode, of a symbol or of all that settle in a coin."""
    fields = call.fields
    mode = fields.whole("mode", -1, 0, 3)
    if fields.text("symbol"):
        instruments = [_contract(call).listing.id]
    elif fields.text("coin"):
        coin = fields.text("coin")
        category = fields.choice("category", ("linear", "inverse"))
        instruments = [
            market.listing.id
            for market in call.server.directory.of(category)
            if market.listing.instrument.quote == coin
        ]
        if not instruments:
            raise fields.wrong("coin")
    else:
        raise fields.missing("symbol")
    if mode < 0:
        raise fields.missing("mode")
    call.exchange.switch_mode(call.uid, instruments, mode, call.now)
    return {}


def trading_stop(call: Call) -> Result:
    call.exchange.trading_stop(call.uid, parse.trading_stop(call.fields, call.server.directory), call.now)
    return {}


def add_margin(call: Call) -> Result:
    """Margin cannot be added: positions share one (cross margin)."""
    _contract(call)
    raise Refused(110015, "The account is not in isolated margin mode")


def auto_add_margin(call: Call) -> Result:
    _contract(call)
    raise Refused(110076, "Only available in isolated margin mode")


def switch_isolated(call: Call) -> Result:
    _contract(call)
    raise Refused(100028, "The API cannot be accessed by unified account users.")


def _contract(call: Call) -> Market:
    market = call.server.directory.named(call.fields)
    if market.listing.is_spot:
        raise call.fields.wrong("category")
    return market


def closed_profits(call: Call) -> Result:
    fields = call.fields
    fields.choice("category", ("linear", "inverse", "option", "spot"))
    scope = Scope(call)
    limit = fields.whole("limit", 50, 1, 100)
    between = span(fields, call.now // MILLISECOND)

    def wanted(record: ClosedPnl) -> bool:
        return record.instrument in scope

    kept = call.exchange.records[call.uid].closed
    found, more = page(kept, lambda record: record.ts_created, fields, between, limit, wanted)
    shown = [render.closed_pnl(record, scope.markets[record.instrument].listing) for record in found]
    return {"category": scope.category, "list": shown, "nextPageCursor": more}
