"""Orders of HEAN as request arguments of Bybit V5, and what each return code means for what was asked.

Numbers go out as texts made from `Decimal`: a float would be sent with 17 digits or an exponent.
"""

import enum
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from hean.bybit.decode import category_word
from hean.errors import ContractError
from hean.instruments import Category, split_id
from hean.messages import AmendOrder, CancelOrder, SubmitOrder, TimeInForce

Arguments = dict[str, Any]

# Bybit v5, *Place Order*: at most 36 letters, digits, dashes and underscores.
_LINK_ID = re.compile(r"[A-Za-z0-9_-]{1,36}\Z")
_SIDES = {1: "Buy", -1: "Sell"}


def order_request(order: SubmitOrder) -> Arguments:
    """The arguments of `order/create`. The position mode is one-way.

    Raises:
        ContractError: The order's id cannot be a link id, or a number is not positive.
    """
    if not _LINK_ID.match(order.client_order_id):
        raise ContractError(f"{order.client_order_id!r} cannot be an orderLinkId: 1 to 36 of A-Z a-z 0-9 - _")
    arguments = _named(order.instrument, order.client_order_id)
    spot = arguments["category"] == "spot"
    arguments |= {
        "side": _SIDES[order.side],
        "orderType": "Market" if order.limit is None else "Limit",
        "qty": _positive(order.quantity, "quantity", order.client_order_id),
    }
    if order.limit is not None:
        arguments["price"] = _positive(order.limit, "limit", order.client_order_id)
        arguments["timeInForce"] = str(order.time_in_force)
    elif order.time_in_force is TimeInForce.POST_ONLY:
        raise ContractError(f"order {order.client_order_id} is post-only and has no limit")
    if spot:
        if order.limit is None:
            arguments["marketUnit"] = "baseCoin"  # a market buy is else in quote currency
    else:
        arguments["positionIdx"] = 0
        if order.reduce_only:
            arguments["reduceOnly"] = True
    if order.bracket is not None:
        arguments["stopLoss"] = _positive(order.bracket.stop, "stop", order.client_order_id)
        arguments["slOrderType"] = "Market"
        if order.bracket.target is not None:
            arguments["takeProfit"] = _positive(order.bracket.target, "target", order.client_order_id)
            arguments["tpOrderType"] = "Market"
        if not spot:
            # Exits of what this order fills: full ones would close what other strategies hold as well.
            arguments["tpslMode"] = "Partial"
    return arguments


def amend_request(amend: AmendOrder) -> Arguments:
    """The arguments of `order/amend`.

    Raises:
        ContractError: Nothing is to change, or a number is not positive.
    """
    arguments = _named(amend.instrument, amend.client_order_id)
    if amend.quantity is None and amend.limit is None:
        raise ContractError(f"the amendment of {amend.client_order_id} changes nothing")
    if amend.quantity is not None:
        arguments["qty"] = _positive(amend.quantity, "quantity", amend.client_order_id)
    if amend.limit is not None:
        arguments["price"] = _positive(amend.limit, "limit", amend.client_order_id)
    return arguments


def cancel_request(cancel: CancelOrder) -> Arguments:
    """The arguments of `order/cancel`."""
    return _named(cancel.instrument, cancel.client_order_id)


def cancel_all_request(category: Category, settle: str = "USDT") -> Arguments:
    """The arguments of `order/cancel-all` for entry orders: protective stops are of another filter, and stay."""
    arguments: Arguments = {"category": category_word(category), "orderFilter": "Order"}
    if category is not Category.SPOT:
        arguments["settleCoin"] = settle
    return arguments


def look_up_request(instrument: str, client_order_id: str) -> Arguments:
    """The arguments of `order/realtime` and `order/history` for one order, in whatever state."""
    return _named(instrument, client_order_id)


def _named(instrument: str, client_order_id: str) -> Arguments:
    symbol, category, _ = split_id(instrument)
    return {"category": category_word(category), "symbol": symbol, "orderLinkId": client_order_id}


def _positive(number: Decimal, what: str, order_id: str) -> str:
    if not (number.is_finite() and number > 0):
        raise ContractError(f"the {what} of order {order_id} is {number}: it must be positive")
    return f"{number:f}"


# --- what came of it ------------------------------------------------------------------------------


class Action(enum.StrEnum):
    CREATE = "create"
    AMEND = "amend"
    CANCEL = "cancel"
    SET = "set"
    READ = "read"


class Meaning(enum.Enum):
    """What a return code says of what was asked.

    DONE: it is so, or was so already. REFUSED: it is not, and asking again changes nothing. BUSY: it is not, and may
    be asked later. LOOK_UP: the code does not say what is; the order itself does. UNKNOWN: it may or may not be so.
    """

    DONE = enum.auto()
    REFUSED = enum.auto()
    BUSY = enum.auto()
    LOOK_UP = enum.auto()
    UNKNOWN = enum.auto()


# Bybit v5, *Error codes*. Leverage, position mode, margin mode and TP/SL that were so before.
_ALREADY_SO = {110043, 110025, 110026, 34040}
# A limit of ours was exceeded: turned away at the door, before anything was done.
_BUSY = {10006, 10018, 20003}
# The engine failed, timed out or was restarting while it had the request, or the door says no more than that it is
# crowded. Spot has its own: internal error, backend timeout, network error, creation timeout, cancellation timeout.
_UNSURE = {10000, 10016, 10019, 10429, 429, 170001, 170007, 170032, 170146, 170147}
# A link id used before: the order was sent already.
_SENT_BEFORE = {110030, 110072, 170141}
# No such order, or over.
_NO_SUCH_ORDER = {110001, 110008, 110010, 170213, 170139, 170142}
# A request that was seen before: it may have been this very one.
_SAID_BEFORE = {10014, 20006}
# Where Bybit's refusals lie: general and trading parameters, contracts, spot, keys, accounts, requests on the trade socket.
_REFUSALS = (
    range(10001, 10500),
    range(20001, 20100),
    range(30000, 40000),
    range(110000, 111000),
    range(170000, 171000),
    range(180000, 182000),
    range(3100000, 3500000),
)


def meaning_of(code: object, action: Action) -> Meaning:
    """Say what a return code means. A code that is not known, or is none, leaves the outcome unknown."""
    if not isinstance(code, int) or isinstance(code, bool):
        return Meaning.UNKNOWN
    if code == 0:
        return Meaning.DONE
    if code in _UNSURE:
        return Meaning.UNKNOWN
    if code in _BUSY:
        return Meaning.BUSY
    if code in _ALREADY_SO and action is not Action.CREATE:
        return Meaning.DONE
    if code in _SENT_BEFORE and action is Action.CREATE:
        return Meaning.LOOK_UP
    if code in _NO_SUCH_ORDER and action in {Action.AMEND, Action.CANCEL}:
        return Meaning.LOOK_UP
    if code in _SAID_BEFORE:
        return Meaning.LOOK_UP
    return Meaning.REFUSED if any(code in codes for codes in _REFUSALS) else Meaning.UNKNOWN


class Verdict(enum.Enum):
    """The three outcomes of asking for something."""

    ACCEPTED = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()


class Outcome(Struct, frozen=True):
    """What is known of a create, an amendment or a cancel after asking for it once.

    `code` is None where no readable answer came. `busy` marks a refusal that only says "later", `look_up` an answer
    that says nothing but that the order itself must be asked for.
    """

    verdict: Verdict
    reason: str = ""
    code: int | None = None
    venue_order_id: str = ""
    busy: bool = False
    look_up: bool = False


def outcome_of(code: object, text: str, action: Action, result: Mapping[str, Any] | None = None) -> Outcome:
    """The outcome that a return code, its text and its result amount to."""
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    meaning = meaning_of(code, action)
    if meaning is Meaning.DONE:
        venue_id = (result or {}).get("orderId", "")
        return Outcome(Verdict.ACCEPTED, code=number, venue_order_id=venue_id if isinstance(venue_id, str) else "")
    reason = f"{code} {text}"[:300]
    if meaning in {Meaning.REFUSED, Meaning.BUSY}:
        return Outcome(Verdict.REFUSED, reason, number, busy=meaning is Meaning.BUSY)
    if meaning is Meaning.LOOK_UP and action is Action.CREATE:
        reason = f"sent before: {reason}"
    return Outcome(Verdict.UNKNOWN, reason, number, look_up=meaning is Meaning.LOOK_UP)
