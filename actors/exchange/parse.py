"""What a client sent, read field by field: into the words of the exchange, or refused with the name of the field.

Numbers come as text or as JSON numbers, and are kept as they were written: exponents, NaN and what is too long are refused.
Booleans and integers may come as text. What is not known is ignored. Source: Bybit v5, *Place Order*, *Error Codes*.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from hean.exchange.market import Market
from hean.exchange.refusals import Refused, invalid
from hean.exchange.words import (
    ZERO,
    Amendment,
    Exit,
    NewOrder,
    Order,
    OrderFilter,
    OrderType,
    Smp,
    TpslMode,
    TradingStop,
    Trigger,
    TriggerBy,
    Which,
)
from hean.messages import Side, TimeInForce

CATEGORIES = ("linear", "spot", "inverse", "option")
_BUY_SELL = {"Buy": Side.BUY, "Sell": Side.SELL}

# 15 digits before the point and 18 behind it: more than any instrument has, and exact in what is computed of it.
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,18})?|\.[0-9]{1,18}", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,19}", re.ASCII)
_LINK_ID = re.compile(r"[A-Za-z0-9_-]{1,36}", re.ASCII)
_LAST_MS = 253_000_000_000_000  # in 9987: a month on there are still dates
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}

# --- JSON and queries -----------------------------------------------------------------------------

_decode = msgspec.json.Decoder(float_hook=str).decode


def read_json(raw: bytes | str) -> dict[str, Any]:
    """A JSON object, its fractional numbers as the text they were written in.

    Raises:
        Refused: it is none.
    """
    try:
        body = _decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise invalid(f"the body is not JSON ({type(error).__name__})") from error
    if not isinstance(body, dict):
        raise invalid("the body is not a JSON object")
    return body


def read_query(raw: str) -> dict[str, Any]:
    """The parameters of a raw query string; of one that is repeated the first counts.

    Raises:
        Refused: it is not UTF-8.
    """
    query: dict[str, Any] = {}
    try:
        for name, value in parse_qsl(raw, keep_blank_values=True, errors="strict"):
            query.setdefault(name.encode().decode(), value.encode().decode())
    except ValueError as error:
        raise invalid("the query is not UTF-8") from error
    return query


# --- fields ---------------------------------------------------------------------------------------


class Fields:
    """The parameters of a request. Absent, null and "" are the same.

    `of_spot_order` is set where spot has codes of its own for what is wrong.
    """

    def __init__(self, values: Mapping[str, Any], *, of_spot_order: bool = False) -> None:
        self.values = values
        self._spot = of_spot_order

    def text(self, name: str) -> str:
        value = self.values.get(name)
        match value:
            case None:
                return ""
            case str():
                return value
            case bool():
                return str(value).lower()
            case int():
                return str(value)
            case _:
                raise self.wrong(name)

    def needed(self, name: str) -> str:
        text = self.text(name)
        if not text:
            raise self.missing(name)
        return text

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str:
        """One of a few words; required where there is no default."""
        text = self.needed(name) if default is None else self.text(name) or default
        if text not in allowed:
            raise self.wrong(name)
        return text

    def number(self, name: str) -> Decimal | None:
        """A number that is not negative, in plain notation."""
        text = self.text(name)
        if not text:
            return None
        if _NUMBER.fullmatch(text) is None:
            raise invalid(f"{name} invalid")
        return Decimal(text)

    def above_zero(self, name: str) -> Decimal | None:
        """The same where 0 means as much as nothing."""
        return self.number(name) or None

    def on_grid(self, name: str, grid: Decimal) -> Decimal | None:
        """A number that is a multiple of a tick or step."""
        number = self.number(name)
        if number is not None and number % grid:
            raise invalid(f"{name} invalid: it moves in {grid:f}")
        return number

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """An integer within its bounds."""
        text = self.text(name)
        if not text:
            return default
        if _WHOLE.fullmatch(text) is None or not low <= int(text) <= high:
            raise self.wrong(name)
        return int(text)

    def time(self, name: str) -> int | None:
        """A time in milliseconds; what lies beyond the calendar is its end."""
        return min(self.whole(name, 0, 0, 10**18 - 1), _LAST_MS) if self.text(name) else None

    def flag(self, name: str) -> bool:
        value = _FLAGS.get(self.text(name).lower())
        if value is None:
            raise self.wrong(name)
        return value

    def category(self) -> str:
        return self.choice("category", CATEGORIES)

    def for_order(self) -> "Fields":
        """The same fields, with spot's own codes if it is about spot."""
        return Fields(self.values, of_spot_order=self.values.get("category") == "spot")

    def wrong(self, name: str) -> Refused:
        if self._spot:
            return Refused(_WRONG_OF_SPOT.get(name, 170130), f"Invalid {name}.")
        return invalid(f"{name} invalid")

    def missing(self, name: str) -> Refused:
        if self._spot:
            return Refused(170105, f"Parameter '{name}' was empty.")
        return invalid(f"{name} is required")


_WRONG_OF_SPOT = {"timeInForce": 170115, "orderType": 170116, "side": 170117, "symbol": 170121}


class Directory:
    """Which market a category and a symbol name."""

    def __init__(self, markets: Iterable[Market]) -> None:
        self._named = {(market.listing.category, market.listing.symbol): market for market in markets}

    def of(self, category: str) -> list[Market]:
        return [market for (name, _), market in self._named.items() if name == category]

    def find(self, category: str, symbol: str) -> Market | None:
        return self._named.get((category, symbol))

    def named(self, fields: Fields) -> Market:
        """The market that a request is about.

        Raises:
            Refused: there is none of that name.
        """
        market = self.find(fields.category(), fields.needed("symbol"))
        if market is None:
            raise fields.wrong("symbol")
        return market


# --- paging ---------------------------------------------------------------------------------------


def cursor(fields: Fields, parts: int) -> list[str] | None:
    """What a cursor of ours was made of, so many parts; None on the first page.

    It was given out percent-encoded and comes back as it was, decoded once with the query, or encoded once more.
    """
    text = fields.text("cursor")
    if not text:
        return None
    found = unquote(unquote(text)).split(":")
    if len(found) != parts or not all(found):
        raise fields.wrong("cursor")
    return found


def count(fields: Fields, text: str) -> int:
    """A number in a cursor of ours: such as we give out, and no other."""
    if _COUNT.fullmatch(text) is None:
        raise fields.wrong("cursor")
    return int(text)


def place(fields: Fields) -> int | None:
    """A cursor that is a place in a list: how many entries, counted from the oldest, are still to be shown."""
    parts = cursor(fields, 2)
    if parts is None:
        return None
    if parts[0] != "page":
        raise fields.wrong("cursor")
    return count(fields, parts[1])


# --- orders ---------------------------------------------------------------------------------------


def new_order(fields: Fields, directory: Directory) -> NewOrder:
    """An order as `order/create` takes it.

    Raises:
        Refused: a parameter is missing or malformed.
    """
    fields = fields.for_order()
    market = directory.named(fields)
    listing = market.listing
    side = _BUY_SELL[fields.choice("side", _BUY_SELL)]
    kind = OrderType(fields.choice("orderType", tuple(OrderType)))
    quantity = fields.number("qty")
    if quantity is None:
        raise fields.missing("qty")
    quantity, in_quote = _in_units(fields, market, side, kind, quantity)
    trigger = _trigger(fields, market)
    slippage_type, slippage = _slippage(fields, kind)
    return NewOrder(
        instrument=listing.id,
        side=side,
        kind=kind,
        quantity=quantity,
        price=_price(fields, market, side) if kind is OrderType.LIMIT else None,
        time_in_force=_time_in_force(fields, kind),
        link_id=link_id(fields),
        position_idx=0 if listing.is_spot else fields.whole("positionIdx", 0, 0, 2),
        reduce_only=not listing.is_spot and fields.flag("reduceOnly"),
        close_on_trigger=not listing.is_spot and fields.flag("closeOnTrigger"),
        trigger=trigger,
        take_profit=_exit_of_order(fields, "tp", "takeProfit", market),
        stop_loss=_exit_of_order(fields, "sl", "stopLoss", market),
        tpsl_mode=TpslMode(fields.choice("tpslMode", tuple(TpslMode), TpslMode.FULL)),
        smp=Smp(fields.choice("smpType", tuple(Smp), Smp.NONE)),
        in_quote=in_quote,
        order_filter=_filter(fields, market, trigger),
        leveraged=listing.is_spot and fields.flag("isLeverage"),
        slippage_type=slippage_type,
        slippage=slippage,
    )


def _in_units(fields: Fields, market: Market, side: Side, kind: OrderType, quantity: Decimal) -> tuple[Decimal, bool]:
    """The quantity, and whether it is in quote currency: only a market buy of spot is, unless told otherwise."""
    if not market.listing.is_spot or kind is not OrderType.MARKET:
        return quantity, False
    usual = "quoteCoin" if side is Side.BUY else "baseCoin"
    in_quote = fields.choice("marketUnit", ("baseCoin", "quoteCoin"), usual) == "quoteCoin"
    if in_quote and side is Side.SELL:
        # A sale given by its proceeds sells what comes to them at the best bid.
        bid = market.best(Side.BUY)
        if bid is None:
            raise fields.wrong("marketUnit")
        return market.listing.instrument.whole_steps(quantity / bid), False
    if in_quote and quantity % Decimal(1).scaleb(-market.listing.price_places - market.listing.quantity_places):
        raise Refused(170148, "Market order amount decimal too long.")
    return quantity, in_quote


def _price(fields: Fields, market: Market, side: Side) -> Decimal:
    """The limit: as given, or so many levels into the book (`bboSideType`, `bboLevel`)."""
    if fields.text("bboSideType"):
        own = fields.choice("bboSideType", ("Queue", "Counterparty")) == "Queue"
        level = fields.whole("bboLevel", 1, 1, 5)
        levels = market.book.levels(side if own else Side(-side), level)
        if len(levels) < level:
            raise fields.wrong("bboLevel")
        return market.listing.price(levels[-1][0])
    price = fields.number("price")
    if price is None:
        raise fields.missing("price")
    return price


def _time_in_force(fields: Fields, kind: OrderType) -> TimeInForce:
    """RPI is for market makers whom the venue has chosen: there are none here."""
    given = TimeInForce(fields.choice("timeInForce", tuple(TimeInForce), TimeInForce.GTC))
    return TimeInForce.IOC if kind is OrderType.MARKET else given


def link_id(fields: Fields) -> str:
    given = fields.text("orderLinkId")
    if given and _LINK_ID.fullmatch(given) is None:
        raise fields.wrong("orderLinkId")
    return given


def _trigger(fields: Fields, market: Market) -> Trigger | None:
    """What a conditional order waits for. Spot does not say in which direction: the last price decides."""
    price = fields.above_zero("triggerPrice")
    if market.listing.is_spot:
        if fields.choice("orderFilter", tuple(OrderFilter), OrderFilter.ORDER) == OrderFilter.ORDER:
            return None
        if price is None:
            raise fields.missing("triggerPrice")
        return Trigger(price=price, rising=market.last is None or price > market.last)
    if price is None:
        return None
    direction = fields.whole("triggerDirection", 0, 0, 2)
    if not direction:
        raise fields.missing("triggerDirection")
    return Trigger(price=price, rising=direction == 1, by=_trigger_by(fields, "triggerBy"))


def _trigger_by(fields: Fields, name: str, default: TriggerBy = TriggerBy.LAST) -> TriggerBy:
    return TriggerBy(fields.choice(name, tuple(TriggerBy), default))


def _filter(fields: Fields, market: Market, trigger: Trigger | None) -> OrderFilter:
    if market.listing.is_spot:
        return OrderFilter(fields.choice("orderFilter", tuple(OrderFilter), OrderFilter.ORDER))
    return OrderFilter.ORDER if trigger is None else OrderFilter.STOP


def _exit_of_order(fields: Fields, short: str, name: str, market: Market) -> Exit | None:
    """An exit attached to an order: at market, or at a limit where its order type says so."""
    tick = market.listing.instrument.tick
    price = fields.on_grid(name, tick)
    if not price:
        return None
    limit = fields.on_grid(f"{short}LimitPrice", tick) or None
    usual = OrderType.LIMIT if market.listing.is_spot and limit is not None else OrderType.MARKET
    kind = fields.choice(f"{short}OrderType", tuple(OrderType), usual)
    if kind == OrderType.MARKET:
        return Exit(price=price, by=_trigger_by(fields, f"{short}TriggerBy"))
    if limit is None:
        raise fields.missing(f"{short}LimitPrice")
    if not market.listing.is_spot and fields.text("tpslMode") != TpslMode.PARTIAL:
        raise invalid(f"{short}OrderType: a limit needs tpslMode Partial")
    return Exit(price=price, by=_trigger_by(fields, f"{short}TriggerBy"), limit=limit)


def _slippage(fields: Fields, kind: OrderType) -> tuple[str, Decimal | None]:
    """How far from the best price a market order may trade: in ticks, or in per cent."""
    if kind is not OrderType.MARKET or not fields.text("slippageToleranceType"):
        return "", None
    given = fields.choice("slippageToleranceType", ("TickSize", "Percent"))
    slippage = fields.number("slippageTolerance")
    low, high = (Decimal(1), Decimal(10_000)) if given == "TickSize" else (Decimal("0.01"), Decimal(10))
    if slippage is None or not low <= slippage <= high or (given == "TickSize" and slippage % 1):
        raise invalid("slippageTolerance invalid")
    return given, slippage


def which(fields: Fields, directory: Directory) -> Which:
    """The order that a request names."""
    fields = fields.for_order()
    market = directory.named(fields)
    order_id, named = fields.text("orderId"), fields.text("orderLinkId")
    if not order_id and not named:
        raise invalid("OrderId or orderLinkId is required")
    return Which(instrument=market.listing.id, order_id=order_id, link_id=named)


def amendment(fields: Fields, directory: Directory, find: Callable[[Which], Order | None]) -> Amendment:
    """What `order/amend` asks. `find` looks the order up: what an exit does not say anew stays as it was."""
    fields = fields.for_order()
    wanted = which(fields, directory)
    order, tick = find(wanted), directory.named(fields).listing.instrument.tick
    trigger_by = _trigger_by(fields, "triggerBy") if fields.text("triggerBy") else None
    return Amendment(
        which=wanted,
        quantity=fields.number("qty"),
        price=fields.above_zero("price"),
        trigger_price=fields.above_zero("triggerPrice"),
        trigger_by=trigger_by,
        take_profit=_amended_exit(fields, "tp", "takeProfit", order.take_profit if order else None, tick),
        stop_loss=_amended_exit(fields, "sl", "stopLoss", order.stop_loss if order else None, tick),
    )


def _amended_exit(fields: Fields, short: str, name: str, before: Exit | None, tick: Decimal) -> Exit | None:
    price, limit = fields.on_grid(name, tick), fields.on_grid(f"{short}LimitPrice", tick) or None
    if price is None and before is None:
        return None
    if price is None and limit is None and not fields.text(f"{short}TriggerBy"):
        return None
    old = before if before is not None else Exit(ZERO)
    if price == 0:
        return Exit(ZERO)
    return Exit(
        price=price if price is not None else old.price,
        by=_trigger_by(fields, f"{short}TriggerBy", old.by),
        limit=limit if limit is not None else old.limit,
    )


def trading_stop(fields: Fields, directory: Directory) -> TradingStop:
    """Exits set on a position, as `position/trading-stop` takes them; "0" removes one."""
    market = directory.named(fields)
    if market.listing.is_spot:
        raise fields.wrong("category")
    tick, step = market.listing.instrument.tick, market.listing.instrument.step
    return TradingStop(
        instrument=market.listing.id,
        position_idx=fields.whole("positionIdx", 0, 0, 2),
        mode=TpslMode(fields.choice("tpslMode", tuple(TpslMode), TpslMode.FULL)),
        take_profit=_exit_of_position(fields, "tp", "takeProfit", tick),
        stop_loss=_exit_of_position(fields, "sl", "stopLoss", tick),
        take_size=fields.on_grid("tpSize", step) or None,
        stop_size=fields.on_grid("slSize", step) or None,
        trailing=fields.on_grid("trailingStop", tick),
        active_price=fields.on_grid("activePrice", tick) or None,
    )


def _exit_of_position(fields: Fields, short: str, name: str, tick: Decimal) -> Exit | None:
    price = fields.on_grid(name, tick)
    if price is None:
        return None
    limit = fields.on_grid(f"{short}LimitPrice", tick) or None
    if fields.choice(f"{short}OrderType", tuple(OrderType), OrderType.MARKET) == OrderType.MARKET:
        limit = None
    elif limit is None:
        raise fields.missing(f"{short}LimitPrice")
    elif fields.text("tpslMode") != TpslMode.PARTIAL:
        raise invalid(f"{short}OrderType: a limit needs tpslMode Partial")
    return Exit(price=price, by=_trigger_by(fields, f"{short}TriggerBy"), limit=limit)
