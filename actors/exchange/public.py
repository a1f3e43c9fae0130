"""The public sockets: books, trades, tickers, candles, liquidations and price limits, each topic told to all alike.

Source: Bybit v5, *Public* streams; forms, cadences and acknowledgements as recorded from the venue.
"""

from calendar import monthrange
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from actors.exchange import render
from actors.exchange.books import DEEPEST, DEPTHS, Chain
from actors.exchange.requests import Garbled, Request, read, topics_of
from hean.exchange.candles import INTERVALS
from hean.exchange.listing import Listing
from hean.exchange.market import Market
from hean.exchange.words import Event, Liquidated, Printed
from hean.messages import Side
from hean.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from actors.exchange.sockets import Connection, Effect, Hub

CATEGORIES = ("linear", "spot", "inverse", "option")

_SPOT_TOPICS = 10
_CHARACTERS = 21_000
_TRADES = 1024
_SLACK = 5 * MILLISECOND
"""Steps are not of one length to the millisecond: what is due within this is due."""


class Feed(Protocol):
    """What one topic says. `every` is the shortest time between two pushes, in nanoseconds."""

    topic: str
    every: int

    def first(self, now: int) -> bytes | None:
        """What a new subscriber is told: what the others have been told so far. None where the past is nobody's."""
        ...

    def due(self, now: int) -> list[bytes]:
        """What is to be told of what has happened since this was last asked."""
        ...


class Stream:
    """A topic and who listens to it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.subscribers: dict[Connection, None] = {}
        self.ts_asked = 0

    def join(self, connection: "Connection", now: int) -> bytes | None:
        """Add a subscriber, and return what it is to be told first."""
        if not self.subscribers:
            self.feed.due(now)
            self.ts_asked = now
        self.subscribers[connection] = None
        return self.feed.first(now)


class Public:
    """All public topics of both categories."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._markets: dict[tuple[str, str], Market] = {}
        self._streams: dict[tuple[str, str], Stream] = {}
        self._directions: dict[str, Direction] = {}
        now = hub.server.now()
        for instrument, market in hub.server.exchange.markets.items():
            category = market.listing.category
            self._markets[category, market.listing.symbol] = market
            self._directions[instrument] = Direction(market)
            for depth in DEPTHS:
                chain = Chain(market, depth, now)
                self._streams[category, chain.topic] = Stream(chain)

    # --- what clients ask -------------------------------------------------------------------------

    def hear(self, connection: "Connection", raw: bytes) -> "Effect":
        return partial(self._answer, connection, raw)

    def left(self, connection: "Connection") -> None:
        for topic in connection.topics:
            self._streams[connection.category, topic].subscribers.pop(connection, None)

    def _answer(self, connection: "Connection", raw: bytes) -> None:
        try:
            request = read(raw)
        except Garbled as garbled:
            connection.say(answer(connection, Request(), refusal=str(garbled)))
            return
        match request.op:
            case "ping":
                connection.pinged()
                if self._hub.faults.pongs:
                    connection.say(pong(connection, request, self._hub.server.now()))
            case "subscribe":
                self._subscribe(connection, request)
            case "unsubscribe":
                self._unsubscribe(connection, request)
            case _:
                connection.say(answer(connection, request, refusal="error:invalid op"))

    def _subscribe(self, connection: "Connection", request: Request) -> None:
        try:
            topics = topics_of(request)
        except Garbled as garbled:
            connection.say(answer(connection, request, refusal=str(garbled)))
            return
        refusal = self._refusal(connection, topics)
        connection.say(answer(connection, request, refusal=refusal, topics=topics))
        if refusal:
            return
        now = self._hub.server.now()
        for topic in topics:
            connection.topics.add(topic)
            first = self._stream(connection.category, topic).join(connection, now)
            if first is not None:
                self._hub.tell(topic, first, "public", (connection,))

    def _refusal(self, connection: "Connection", topics: Sequence[str]) -> str:
        """Why a subscription is refused, as a whole; "" where it is not."""
        category = connection.category
        if category == "spot" and len(topics) > _SPOT_TOPICS:
            return f"args size >{_SPOT_TOPICS}"
        if sum(map(len, topics)) + sum(map(len, connection.topics)) >= _CHARACTERS:
            return f"error:args length exceeds {_CHARACTERS}"
        for place, topic in enumerate(topics):
            if not self._exists(category, topic):
                return f"Invalid symbol :[{topic}]" if category == "spot" else f"error:handler not found,topic:{topic}"
            if topic in connection.topics or topic in topics[:place]:
                return f"error:already subscribed,topic:{topic}"
        return ""

    def _unsubscribe(self, connection: "Connection", request: Request) -> None:
        try:
            topics = topics_of(request)
        except Garbled as garbled:
            connection.say(answer(connection, request, refusal=str(garbled)))
            return
        for topic in connection.topics.intersection(topics):
            connection.topics.discard(topic)
            self._streams[connection.category, topic].subscribers.pop(connection, None)
        connection.say(answer(connection, request))

    # --- topics -----------------------------------------------------------------------------------

    def _exists(self, category: str, topic: str) -> bool:
        if (category, topic) in self._streams:
            return True
        name, _, rest = topic.partition(".")
        if name == "kline":
            interval, _, symbol = rest.partition(".")
            return interval in INTERVALS and (category, symbol) in self._markets
        return name in _FEEDS[category] and (category, rest) in self._markets

    def _stream(self, category: str, topic: str) -> Stream:
        """The stream of a topic that exists, begun when it is first asked for."""
        stream = self._streams.get((category, topic))
        if stream is None:
            symbol = topic.rpartition(".")[2]
            market = self._markets[category, symbol]
            stream = self._streams[category, topic] = Stream(self._feed(topic, market))
        return stream

    def _feed(self, topic: str, market: Market) -> Feed:
        name, _, rest = topic.partition(".")
        match name:
            case "publicTrade":
                return Trades(topic, market.listing)
            case "tickers" if market.listing.is_spot:
                return SpotTicker(topic, market)
            case "tickers":
                return LinearTicker(topic, market, self._directions[market.listing.id])
            case "kline":
                return Candles(topic, market, rest.partition(".")[0])
            case "allLiquidation":
                return Liquidations(topic, market.listing)
            case _:
                return PriceLimit(topic, market)

    # --- what is told -----------------------------------------------------------------------------

    def publish(self, events: Collection[Event], now: int) -> None:
        """Take in what happened; trades are told at once."""
        traded: dict[str, Stream] = {}
        for event in events:
            if isinstance(event, Printed):
                direction = self._directions[event.instrument].after(event)
                stream = self._told_of(event, "publicTrade")
                if stream is not None and isinstance(stream.feed, Trades):
                    stream.feed.hear(event, direction)
                    traded[event.instrument] = stream
            elif isinstance(event, Liquidated):
                stream = self._told_of(event, "allLiquidation")
                if stream is not None and isinstance(stream.feed, Liquidations):
                    stream.feed.hear(event)
        for stream in traded.values():
            self._tell(stream, now)

    def _told_of(self, event: Printed | Liquidated, name: str) -> Stream | None:
        """The stream of a topic of the event's instrument, where anybody listens to it."""
        listing = self._hub.server.exchange.markets[event.instrument].listing
        stream = self._streams.get((listing.category, f"{name}.{listing.symbol}"))
        return stream if stream is not None and stream.subscribers else None

    def step(self, now: int) -> None:
        """Tell what is due by its cadence."""
        for stream in self._streams.values():
            if stream.subscribers and now - stream.ts_asked >= stream.feed.every - _SLACK:
                self._tell(stream, now)

    def _tell(self, stream: Stream, now: int) -> None:
        stream.ts_asked = now
        for payload in stream.feed.due(now):
            self._hub.tell(stream.feed.topic, payload, "public", stream.subscribers)

    def u_of(self, instrument: str, now: int) -> int:
        """The update id of the deepest book, brought up to now for all who have it."""
        market = self._hub.server.exchange.markets[instrument]
        stream, chain = self._chain(market, DEEPEST)
        self._tell(stream, now)
        return chain.u

    def restart_books(self, u: int, now: int) -> None:
        for market in self._markets.values():
            for depth in DEPTHS:
                stream, chain = self._chain(market, depth)
                self._hub.tell(chain.topic, chain.restart(now, u), "public", stream.subscribers)

    def _chain(self, market: Market, depth: int) -> tuple[Stream, Chain]:
        stream = self._streams[market.listing.category, f"orderbook.{depth}.{market.listing.symbol}"]
        if not isinstance(stream.feed, Chain):
            raise TypeError(f"{stream.feed.topic} is told by {stream.feed!r}")
        return stream, stream.feed


class Status:
    """The socket of the system's status: it is well, and has nothing to say."""

    def hear(self, connection: "Connection", raw: bytes) -> "Effect":
        return partial(self._answer, connection, raw)

    def left(self, _: "Connection") -> None:
        """Nothing is kept of anybody."""

    def _answer(self, connection: "Connection", raw: bytes) -> None:
        try:
            request = read(raw)
            match request.op:
                case "ping":
                    connection.pinged()
                    if connection.hub.faults.pongs:
                        connection.say(pong(connection, request, connection.hub.server.now()))
                case "subscribe" | "unsubscribe":
                    unknown = [topic for topic in topics_of(request) if topic != "system.status"]
                    refusal = f"error:handler not found,topic:{unknown[0]}" if unknown else ""
                    if not refusal:
                        connection.topics = {"system.status"} if request.op == "subscribe" else set()
                    connection.say(answer(connection, request, refusal=refusal))
                case _:
                    connection.say(answer(connection, request, refusal="error:invalid op"))
        except Garbled as garbled:
            connection.say(answer(connection, Request(), refusal=str(garbled)))


# --- the forms of answers -------------------------------------------------------------------------


def answer(
    connection: "Connection", request: Request, *, refusal: str = "", topics: Sequence[str] = ()
) -> dict[str, Any]:
    """An acknowledgement or a refusal, in the words of the connection's category."""
    if connection.category == "option" and request.op in {"subscribe", "unsubscribe"}:
        data = {"failTopics": topics if refusal else [], "successTopics": [] if refusal else topics}
        told = {"success": not refusal, "conn_id": connection.id, "data": data, "type": "COMMAND_RESP"}
        return told | ({} if request.req_id is None else {"req_id": request.id})
    said = request.op if connection.category == "spot" and not refusal else refusal
    told = {"success": not refusal, "ret_msg": said, "conn_id": connection.id}
    if connection.category != "spot" or request.req_id is not None:
        told["req_id"] = request.id
    return told | {"op": request.op}


def pong(connection: "Connection", request: Request, now: int) -> dict[str, Any]:
    if connection.category == "option":
        return {"args": [str(now // MILLISECOND)], "op": "pong"}
    return answer(connection, request) | {"ret_msg": "pong"}


# --- feeds ----------------------------------------------------------------------------------------


class Direction:
    """Where the last price went: up or down, or to where it was after going there."""

    def __init__(self, market: Market) -> None:
        self.tick = "ZeroPlusTick"
        self._price = market.last

    def after(self, printed: Printed) -> str:
        """Take in a trade, and return the direction it went in."""
        before, self._price = self._price, printed.price
        if before is not None and printed.price != before:
            self.tick = "PlusTick" if printed.price > before else "MinusTick"
        elif not self.tick.startswith("Zero"):
            self.tick = f"Zero{self.tick}"
        return self.tick


class Trades:
    """Trades, the oldest first, as they happen."""

    every = 0

    def __init__(self, topic: str, listing: Listing) -> None:
        self.topic = topic
        self._listing = listing
        self._heard: list[dict[str, Any]] = []

    def hear(self, printed: Printed, direction: str) -> None:
        listing = self._listing
        told = {
            "T": printed.ts // MILLISECOND,
            "s": listing.symbol,
            "S": render.SIDES[printed.side],
            "v": render.size(printed.quantity, listing),
            "p": render.price(printed.price, listing),
        }
        if not listing.is_spot:
            told["L"] = direction
        self._heard.append(told | {"i": printed.exec_id, "BT": False, "RPI": False, "seq": printed.seq})

    def first(self, _: int) -> bytes | None:
        return None

    def due(self, now: int) -> list[bytes]:
        heard, self._heard = self._heard, []
        return [
            _encode(
                {"topic": self.topic, "type": "snapshot", "ts": now // MILLISECOND, "data": heard[at : at + _TRADES]}
            )
            for at in range(0, len(heard), _TRADES)
        ]


class LinearTicker:
    """The ticker of a contract: whole at first, then the fields that changed; a best price never without its size."""

    every = 100 * MILLISECOND

    def __init__(self, topic: str, market: Market, direction: Direction) -> None:
        self.topic = topic
        self._market = market
        self._direction = direction
        self._told: dict[str, Any] = {}
        self._seq = 0

    def first(self, now: int) -> bytes | None:
        return self._message("snapshot", self._told, now)

    def due(self, now: int) -> list[bytes]:
        before = self._told
        shown = render.ticker(self._market, now, stream=True)
        self._told = {"symbol": shown["symbol"], "tickDirection": self._direction.tick} | shown
        self._seq = self._market.seq
        changed = {name for name, value in self._told.items() if before.get(name) != value}
        if not changed:
            return []
        for side in ("bid1", "ask1"):
            pair = {f"{side}Price", f"{side}Size"}
            if changed & pair:
                changed |= pair
        data = {name: value for name, value in self._told.items() if name in changed or name == "symbol"}
        return [self._message("delta", data, now)]

    def _message(self, kind: str, data: dict[str, Any], now: int) -> bytes:
        return _encode({"topic": self.topic, "type": kind, "data": data, "cs": self._seq, "ts": now // MILLISECOND})


class SpotTicker:
    """The ticker of a spot instrument, always whole."""

    every = 50 * MILLISECOND

    def __init__(self, topic: str, market: Market) -> None:
        self.topic = topic
        self._market = market
        self._told: dict[str, Any] = {}
        self._seq = 0

    def first(self, now: int) -> bytes | None:
        return _encode(
            {
                "topic": self.topic,
                "ts": now // MILLISECOND,
                "type": "snapshot",
                "cs": self._seq,
                "data": self._told,
            }
        )

    def due(self, now: int) -> list[bytes]:
        before, self._told = self._told, render.ticker(self._market, now, stream=True)
        self._seq = self._market.seq
        first = self.first(now)
        return [first] if self._told != before and first is not None else []


class Candles:
    """Candles of one length: the running one as it changes, and each that closes once more, confirmed."""

    every = SECOND

    def __init__(self, topic: str, market: Market, interval: str) -> None:
        self.topic = topic
        self._market = market
        self._interval = interval
        self._told: tuple[float, ...] | None = None

    def first(self, now: int) -> bytes | None:
        return None if self._told is None else self._message([self._told], self._told, now)

    def due(self, now: int) -> list[bytes]:
        before = self._told
        start = None if before is None else int(before[0])
        rows = self._market.candles.query("last", self._interval, start_ms=start, limit=1 if start is None else 200)
        if not rows or rows[0] == before:
            return []
        self._told = running = rows[0]
        if not self._market.listing.is_spot:
            return [self._message(rows[::-1], running, now)]
        # Recorded of the venue: linear confirms a candle together with the first of the next, spot in a message of its own.
        return [self._message([row], running, now) for row in reversed(rows)]

    def _message(self, rows: Sequence[tuple[float, ...]], running: tuple[float, ...], now: int) -> bytes:
        data = [self._candle(row, now, closed=row is not running) for row in rows]
        return _encode({"topic": self.topic, "type": "snapshot", "ts": now // MILLISECOND, "data": data})

    def _candle(self, row: tuple[float, ...], now: int, *, closed: bool) -> dict[str, Any]:
        _, opened, high, low, close, volume, turnover = render.candle(row, self._market.listing, "last")
        start = int(row[0])
        return {
            "start": start,
            "end": start + length_ms(start, self._interval) - 1,
            "interval": self._interval,
            "open": opened,
            "close": close,
            "high": high,
            "low": low,
            "volume": volume,
            "turnover": turnover,
            "confirm": closed,
            "timestamp": now // MILLISECOND,
        }


def length_ms(start_ms: int, interval: str) -> int:
    """How long the candle lasts that opens at `start_ms`."""
    match interval:
        case "D" | "W":
            return 86_400_000 * (7 if interval == "W" else 1)
        case "M":
            opened = datetime.fromtimestamp(start_ms / 1000, UTC)
            return 86_400_000 * monthrange(opened.year, opened.month)[1]
        case _:
            return 60_000 * int(interval)


class Liquidations:
    """Positions taken over at their bankruptcy price; `S` is the position's side, Buy for a long."""

    every = 500 * MILLISECOND

    def __init__(self, topic: str, listing: Listing) -> None:
        self.topic = topic
        self._listing = listing
        self._heard: list[dict[str, Any]] = []

    def hear(self, liquidated: Liquidated) -> None:
        listing = self._listing
        self._heard.append(
            {
                "T": liquidated.ts // MILLISECOND,
                "s": listing.symbol,
                "S": "Buy" if liquidated.side is Side.BUY else "Sell",
                "v": render.size(liquidated.quantity, listing),
                "p": render.price(liquidated.price, listing),
            }
        )

    def first(self, _: int) -> bytes | None:
        return None

    def due(self, now: int) -> list[bytes]:
        heard, self._heard = self._heard, []
        told = {"topic": self.topic, "type": "snapshot", "ts": now // MILLISECOND, "data": heard}
        return [_encode(told)] if heard else []


class PriceLimit:
    """The highest bid and the lowest offer that orders may have, whenever they have moved."""

    every = 300 * MILLISECOND

    def __init__(self, topic: str, market: Market) -> None:
        self.topic = topic
        self._market = market
        self._told: dict[str, Any] = {}

    def first(self, now: int) -> bytes | None:
        return _encode({"topic": self.topic, "data": self._told, "ts": now // MILLISECOND})

    def due(self, now: int) -> list[bytes]:
        limits = render.price_limit(self._market, now)
        before, self._told = self._told, {name: limits[name] for name in ("symbol", "buyLmt", "sellLmt")}
        first = self.first(now)
        return [first] if self._told != before and first is not None else []


_FEEDS = {
    "linear": {"publicTrade", "tickers", "allLiquidation", "priceLimit"},
    "spot": {"publicTrade", "tickers", "priceLimit"},
    "inverse": set[str](),
    "option": set[str](),
}

_encode = msgspec.json.Encoder().encode
