"""What a client may ask of the exchange, whichever wire it comes by: rights, rate, and the operations on orders.

REST and the trade socket share these, their limits and their words.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from actors.exchange import limits, parse
from actors.exchange.auth import ApiKey
from actors.exchange.limits import LimitState, Row
from actors.exchange.parse import Fields
from actors.exchange.render import milliseconds
from hean.errors import HeanError
from hean.exchange.account import TradingAccount
from hean.exchange.exchange import Exchange
from hean.exchange.refusals import Refused, invalid
from hean.exchange.words import Order

if TYPE_CHECKING:
    from actors.exchange.server import ExchangeServer

TOO_OFTEN = Refused(10006, "Too many visits. Exceeded the API Rate Limit.")
MOST_IN_BATCH = {"linear": 20, "spot": 10}


class Answer(Struct):
    """What the venue answers; `limit` is of signed requests alone."""

    result: Mapping[str, Any] = field(default_factory=dict)
    ret_code: int = 0
    ret_msg: str = "OK"
    ret_ext_info: Mapping[str, Any] = field(default_factory=dict)
    limit: LimitState | None = None

    @classmethod
    def refused(cls, refusal: Refused, limit: LimitState | None = None) -> "Answer":
        return cls(ret_code=refusal.code, ret_msg=refusal.text, limit=limit)


class Call(Struct, frozen=True):
    """One request of a client who is known, within its rights and its rate.

    `granted` is how many orders of a batch the rate allows.
    """

    server: "ExchangeServer"
    key: ApiKey
    fields: Fields
    now: int
    granted: int = 1

    @property
    def uid(self) -> str:
        return self.key.uid

    @property
    def exchange(self) -> Exchange:
        return self.server.exchange

    @property
    def account(self) -> TradingAccount:
        return self.exchange.accounts[self.uid]


Result = Mapping[str, Any] | Answer


class Operation(Struct, frozen=True):
    """Something that a client may ask: what answers it, what counts it, and whether it needs the right to write."""

    answer: Callable[[Call], Result]
    row: Row
    writes: bool = False
    counts: Callable[[Fields], int] = lambda _: 1

    def __call__(self, server: "ExchangeServer", uid: str, key: ApiKey, body: Mapping[str, Any]) -> Answer:
        """Answer a request whose signature is good: first its rights, then its rate, then the business.

        What it set going has been told to the sockets, and saved, when this returns. The answer has its `limit`.
        """
        fields, now = Fields(body), server.now()
        category = _shown(body, "category")
        try:
            self._permit(key, category)
        except Refused as refusal:
            return Answer.refused(refusal, server.limits.take(uid, self.row, category, now, 0)[1])
        granted, limit = server.limits.take(uid, self.row, category, now, self.counts(fields))
        if not granted:
            return Answer.refused(TOO_OFTEN, limit)
        try:
            result = self.answer(Call(server, key, fields, now, granted))
        except Refused as refusal:
            return Answer.refused(refusal, limit)
        if self.writes:
            try:
                server.settle()
            except HeanError:
                # What cannot be saved has not happened. It ends the venue, which says why.
                return Answer.refused(Refused(10016, "Server error."), limit)
        answer = result if isinstance(result, Answer) else Answer(result)
        answer.limit = limit
        return answer

    def _permit(self, key: ApiKey, category: str) -> None:
        if self.writes and key.read_only:
            raise Refused(10005, "Permission denied, please check your API key permissions.")
        if category in parse.CATEGORIES and not key.may(category):
            raise Refused(10005, f"Permission denied, this API key has no right to {category}.")


# --- single orders --------------------------------------------------------------------------------


def create(call: Call) -> Result:
    return named(_create(call, call.fields))


def amend(call: Call) -> Result:
    return named(_amend(call, call.fields))


def cancel(call: Call) -> Result:
    return named(_cancel(call, call.fields))


def named(order: Order) -> dict[str, str]:
    """The acknowledgement: what becomes of an order is told on the streams."""
    return {"orderId": order.order_id, "orderLinkId": order.link_id}


def _create(call: Call, fields: Fields) -> Order:
    return call.exchange.create(call.uid, parse.new_order(fields, call.server.directory), call.now)


def _amend(call: Call, fields: Fields) -> Order:
    wanted = parse.amendment(fields, call.server.directory, lambda which: call.exchange.find(call.uid, which))
    return call.exchange.amend(call.uid, wanted, call.now)


def _cancel(call: Call, fields: Fields) -> Order:
    return call.exchange.cancel(call.uid, parse.which(fields, call.server.directory), call.now)


# --- batches --------------------------------------------------------------------------------------


def in_batch(fields: Fields) -> int:
    """How many orders a batch counts as; a malformed one as one."""
    requests = fields.values.get("request")
    return max(1, len(requests)) if isinstance(requests, list) else 1


def batch(one: Callable[[Call, Fields], Order], *, creates: bool = False) -> Callable[[Call], Result]:
    """Do the same with each order of a list: each succeeds or fails by itself, in order; those over the rate fail."""

    def do(call: Call) -> Result:
        done, said = [], []
        for place, asked in enumerate(_requests(call.fields)):
            fields = Fields({**asked, "category": call.fields.text("category")})
            shown = {"category": fields.text("category"), "symbol": _shown(asked, "symbol"), "orderId": ""}
            shown["orderLinkId"] = _shown(asked, "orderLinkId")
            if creates:
                shown["createAt"] = ""
            code, text = 0, "OK"
            try:
                if place >= call.granted:
                    raise TOO_OFTEN
                order = one(call, fields)
                shown |= named(order)
                if creates:
                    shown["createAt"] = milliseconds(order.ts_created)
            except Refused as refusal:
                code, text = refusal.code, refusal.text
            done.append(shown)
            said.append({"code": code, "msg": text})
        return Answer({"list": done}, ret_ext_info={"list": said})

    return do


def _requests(fields: Fields) -> list[Mapping[str, Any]]:
    category, requests = fields.category(), fields.values.get("request")
    if not isinstance(requests, list) or not requests:
        raise fields.missing("request")
    most = MOST_IN_BATCH.get(category, 20)
    if len(requests) > most:
        raise invalid(f"request holds {len(requests)} orders, at most {most} are allowed")
    if not all(isinstance(one, dict) for one in requests):
        raise fields.wrong("request")
    return requests


def _shown(asked: Mapping[str, Any], name: str) -> str:
    """A field as the client gave it, if it gave text."""
    given = asked.get(name)
    return given if isinstance(given, str) else ""


OPERATIONS: dict[str, Operation] = {
    "order.create": Operation(create, limits.CREATE, writes=True),
    "order.amend": Operation(amend, limits.AMEND, writes=True),
    "order.cancel": Operation(cancel, limits.CANCEL, writes=True),
    "order.create-batch": Operation(batch(_create, creates=True), limits.CREATE_BATCH, writes=True, counts=in_batch),
    "order.amend-batch": Operation(batch(_amend), limits.AMEND_BATCH, writes=True, counts=in_batch),
    "order.cancel-batch": Operation(batch(_cancel), limits.CANCEL_BATCH, writes=True, counts=in_batch),
}
"""By the name that the trade socket gives them."""
