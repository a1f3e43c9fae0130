"""The private sockets: what becomes of an account's orders, fills, positions and wallet; and what a lost connection cancels.

Source: Bybit v5, *Private* streams, *Connect*, *Set Disconnect Cancel All*.
"""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from actors.exchange import render
from actors.exchange.requests import Garbled, Request, read, topics_of
from hean.exchange.listing import Listing
from hean.exchange.refusals import Refused
from hean.exchange.words import (
    Event,
    Executed,
    Execution,
    Logged,
    Order,
    OrderChanged,
    PositionChanged,
    WalletChanged,
)
from hean.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from actors.exchange.sockets import Connection, Effect, Hub

WHOLE = frozenset({"order", "execution", "execution.fast", "position"})
"""Topics of all categories at once, each of which is also there by category."""

_BY_CATEGORY = frozenset(
    f"{name}.{category}"
    for name in WHOLE
    for category in ("linear", "spot", "inverse", "option")
    if (name, category) != ("position", "spot")
)
PRODUCTS = {"dcp.future": "DERIVATIVES", "dcp.spot": "SPOT", "dcp.option": "OPTIONS"}
"""Topics that say nothing: to lose every socket that has one is what disconnect-cancel waits for."""

TOPICS = WHOLE | _BY_CATEGORY | PRODUCTS.keys() | {"wallet", "greeks"}

_MOST = 50
"""Orders or executions of one message; more go out in several."""


class Private:
    """All private topics."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._listeners: defaultdict[str, dict[Connection, None]] = defaultdict(dict)
        self._messages = itertools.count(1)
        self._lifelines = Lifelines(hub)

    # --- what clients ask -------------------------------------------------------------------------

    def hear(self, connection: "Connection", raw: bytes) -> "Effect":
        """Take a request. It counts from now on; what is told before it is acknowledged waits, and comes after that."""
        try:
            request = read(raw)
            match request.op:
                case "ping":
                    connection.pinged()
                    return partial(self._pong, connection, request)
                case "auth":
                    return self._authenticate(connection, request)
                case _:
                    topics = self._wanted(connection, request)
        except Garbled as garbled:
            return partial(connection.say, answer(connection, Request(), refusal=str(garbled)))
        except Refused as refused:
            return partial(connection.say, answer(connection, request, refusal=refused.text))
        self._set(connection, topics, subscribed=request.op == "subscribe")
        return partial(self._acknowledge, connection, request, topics)

    def left(self, connection: "Connection") -> None:
        if connection.uid is not None:
            self._listeners[connection.uid].pop(connection, None)
            self._lifelines.lost(connection, self._hub.server.now())

    def _authenticate(self, connection: "Connection", request: Request) -> "Effect":
        try:
            key = self._hub.prove(connection, request.args)
        except Refused as refused:
            return partial(self._reject, connection, answer(connection, request, refusal=refused.text))
        if connection.uid not in {None, key.uid}:
            return partial(self._reject, connection, answer(connection, request, refusal="Repeat auth"))
        connection.key, connection.uid = key, key.uid
        return partial(connection.say, answer(connection, request))

    def _reject(self, connection: "Connection", told: dict[str, Any]) -> None:
        connection.say(told)
        connection.hang_up()

    def _pong(self, connection: "Connection", request: Request) -> None:
        if self._hub.faults.pongs:
            told = {} if request.req_id is None else {"req_id": request.id}
            stamp = str(self._hub.server.now() // MILLISECOND)
            connection.say(told | {"op": "pong", "args": [stamp], "conn_id": connection.id})

    def _acknowledge(self, connection: "Connection", request: Request, topics: Iterable[str]) -> None:
        connection.say(answer(connection, request))
        for topic in topics:
            connection.release(topic)

    def _wanted(self, connection: "Connection", request: Request) -> Sequence[str]:
        """The topics a request names; refused as a whole where one of them is wrong."""
        if request.op not in {"subscribe", "unsubscribe"}:
            raise Refused(10001, "error:invalid op")
        if connection.uid is None:
            raise Refused(10005, "Request not authorized")
        topics = topics_of(request)
        for topic in topics:
            if topic not in TOPICS:
                raise Refused(10001, f"error:handler not found,topic:{topic}")
        if request.op == "unsubscribe":
            return topics
        if not WHOLE.isdisjoint(topics) and not _BY_CATEGORY.isdisjoint(topics):
            raise Refused(10001, "error:topics of all categories and of one may not be in the same request")
        for topic in topics:
            if topic in connection.topics or topics.count(topic) > 1:
                raise Refused(10001, f"error:already subscribed,topic:{topic}")
        return topics

    def _set(self, connection: "Connection", topics: Iterable[str], *, subscribed: bool) -> None:
        uid = connection.uid or ""
        for topic in topics:
            if subscribed:
                connection.topics.add(topic)
                connection.hold(topic)
                self._listeners[uid][connection] = None
            else:
                connection.topics.discard(topic)
            if topic in PRODUCTS:
                self._lifelines.set(connection, PRODUCTS[topic], held=subscribed)

    # --- what is told -----------------------------------------------------------------------------

    def step(self, now: int) -> None:
        self._lifelines.step(now)

    def publish(self, events: Collection[Event], now: int) -> None:
        """Tell each account what happened to it: in every topic in the order it happened in."""
        accounts: dict[str, News] = {}
        for event in events:
            match event:
                case OrderChanged(order=order):
                    self._news(accounts, order.uid).orders.append(order)
                case Executed(execution=execution):
                    self._news(accounts, execution.uid).executions.append(execution)
                case PositionChanged(uid=uid, instrument=instrument, position_idx=index):
                    self._news(accounts, uid).positions[instrument, index] = None
                case Logged(row=row):
                    self._news(accounts, row.uid).coins[row.currency] = None
                case WalletChanged(uid=uid):
                    self._news(accounts, uid).wallet = True
                case _:
                    pass
        for uid, news in accounts.items():
            if self._listeners.get(uid):
                self._tell(uid, news, now)

    def _news(self, accounts: dict[str, "News"], uid: str) -> "News":
        return accounts.setdefault(uid, News())

    def _tell(self, uid: str, news: "News", now: int) -> None:
        exchange = self._hub.server.exchange
        markets = exchange.markets

        def listing(instrument: str) -> Listing:
            return markets[instrument].listing

        told: dict[str, list[Told]] = {}
        if news.executions and self._anybody(uid, "execution.fast"):
            # They are there to be first.
            fast = [(one.instrument, render.fast_execution(one, listing(one.instrument))) for one in news.executions]
            told["execution.fast"] = [(listing(name).category, one) for name, one in fast if one is not None]
        if news.orders and self._anybody(uid, "order"):
            told["order"] = [
                (listing(one.instrument).category, render.order(one, listing(one.instrument), stream=True))
                for one in news.orders
            ]
        if news.executions and self._anybody(uid, "execution"):
            told["execution"] = [
                (listing(one.instrument).category, render.execution(one, listing(one.instrument), stream=True))
                for one in news.executions
            ]
        if news.positions and self._anybody(uid, "position"):
            told["position"] = [
                (listing(name).category, render.position(exchange, uid, name, index, stream=True))
                for name, index in news.positions
                if not listing(name).is_spot
            ]
        if news.wallet and self._anybody(uid, "wallet"):
            told["wallet"] = [("", render.wallet(exchange, uid, news.coins))]
        for name, data in told.items():
            self._push(uid, name, [one for _, one in data], now)
            for category in dict.fromkeys(category for category, _ in data if category):
                self._push(uid, f"{name}.{category}", [one for of, one in data if of == category], now)

    def _anybody(self, uid: str, name: str) -> bool:
        """Whether anybody has a topic, of all categories or of one."""
        return any(
            topic == name or topic.rpartition(".")[0] == name for one in self._listeners[uid] for topic in one.topics
        )

    def _push(self, uid: str, topic: str, data: Sequence[render.Rendered], now: int) -> None:
        listeners = [one for one in self._listeners[uid] if topic in one.topics]
        if listeners:
            for at in range(0, len(data), _MOST):
                self._hub.tell(topic, self._message(uid, topic, data[at : at + _MOST], now), "private", listeners)

    def _message(self, uid: str, topic: str, data: Sequence[render.Rendered], now: int) -> bytes:
        message: dict[str, Any] = {"topic": topic, "creationTime": now // MILLISECOND, "data": data}
        if not topic.startswith("execution.fast"):
            message = {"id": f"{uid}_{now // MILLISECOND}_{next(self._messages)}"} | message
        return _encode(message)


Told = tuple[str, render.Rendered]
"""What is told of something, with its category."""


class News(Struct):
    """What is to be told to one account, gathered from what happened at once.

    A position is told as it is now, so once however often it changed. Of a wallet the coins are told whose balance changed.
    """

    orders: list[Order] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    positions: dict[tuple[str, int], None] = field(default_factory=dict)
    wallet: bool = False
    coins: dict[str, None] = field(default_factory=dict)


class Lifelines:
    """Disconnect-cancel: when the last socket of an account that has the topic of a product is lost, and no other takes the topic
    within the account's window, every active order of the product is cancelled.
    """

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._held: defaultdict[tuple[str, str], set[Connection]] = defaultdict(set)
        self._due: dict[tuple[str, str], int] = {}

    def set(self, connection: "Connection", product: str, *, held: bool) -> None:
        """A socket took a product's topic, or gave it back: that is no loss."""
        line = (connection.uid or "", product)
        if held:
            self._held[line].add(connection)
            self._due.pop(line, None)
        else:
            self._held[line].discard(connection)

    def lost(self, connection: "Connection", now: int) -> None:
        """A socket is gone: of the lines it was the last to hold, the window runs."""
        for topic in connection.topics & PRODUCTS.keys():
            uid, product = line = (connection.uid or "", PRODUCTS[topic])
            self._held[line].discard(connection)
            window = self._hub.server.exchange.accounts[uid].windows.get(product)
            if window is not None and window.seconds and not self._held[line]:
                self._due[line] = now + window.seconds * SECOND

    def step(self, now: int) -> None:
        """Cancel what has waited long enough."""
        over = [line for line, due in self._due.items() if due <= now]
        for uid, product in over:
            del self._due[uid, product]
            exchange = self._hub.server.exchange
            of_product = [
                instrument
                for instrument, market in exchange.markets.items()
                if product == ("SPOT" if market.listing.is_spot else "DERIVATIVES")
            ]
            exchange.cancel_all(uid, of_product, now, cancel_type="CancelByDCP")
        if over:
            self._hub.server.settle()


def answer(connection: "Connection", request: Request, *, refusal: str = "") -> dict[str, Any]:
    told = {"success": not refusal, "ret_msg": refusal, "op": request.op, "conn_id": connection.id}
    return told if request.req_id is None else told | {"req_id": request.id}


_encode = msgspec.json.Encoder().encode
