"""The trade socket: orders by WebSocket, with the checks, codes and limits of REST.

Source: Bybit v5, *Websocket Trade Guideline*.
"""

import logging
import secrets
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from actors.exchange.auth import ApiKey
from actors.exchange.operations import OPERATIONS, TOO_OFTEN, Answer
from actors.exchange.requests import Garbled, TradeRequest, read_trade
from hean.exchange.refusals import Refused
from hean.units import MILLISECOND, SECOND

if TYPE_CHECKING:
    from actors.exchange.faults import Storm
    from actors.exchange.sockets import Connection, Effect, Hub

log = logging.getLogger(__name__)

_SESSIONS = 50
"""Trade sockets one account may have. Unsure: the venue says that there is a limit, not which."""

_REQUESTS = 3000
"""Requests of one address in a second."""

_IDS_KEPT = 100_000
_LONGEST_ID = 36
_CATEGORIES = frozenset({"linear", "spot"})


class Trade:
    """All trade sockets. A request is executed when it comes in; only its answer waits."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._sessions: dict[Connection, Session] = {}
        self._requests: dict[str, deque[int]] = {}

    def hear(self, connection: "Connection", raw: bytes) -> "Effect":
        try:
            request = read_trade(raw)
        except Garbled as garbled:
            return partial(connection.say, answer(connection, TradeRequest(), 10001, str(garbled)))
        match request.op:
            case "ping":
                return partial(self._pong, connection, request)
            case "auth":
                return self._authenticate(connection, request)
            case _:
                return self._operate(connection, request)

    def left(self, connection: "Connection") -> None:
        self._sessions.pop(connection, None)

    def _pong(self, connection: "Connection", request: TradeRequest) -> None:
        connection.pinged()
        if self._hub.faults.pongs:
            stamp = str(self._hub.server.now() // MILLISECOND)
            connection.say(answer(connection, request, 0, "OK", op="pong") | {"data": [stamp], "connId": connection.id})

    def _authenticate(self, connection: "Connection", request: TradeRequest) -> "Effect":
        if connection in self._sessions:
            return partial(connection.say, answer(connection, request, 20001, "Repeat auth"))
        try:
            session = self._session(connection, request)
        except Refused as refused:
            return partial(self._reject, connection, answer(connection, request, refused.code, refused.text))
        connection.key, connection.uid = session.key, session.key.uid
        self._sessions[connection] = session
        return partial(connection.say, answer(connection, request, 0, "OK"))

    def _session(self, connection: "Connection", request: TradeRequest) -> "Session":
        key = self._hub.prove(connection, request.args)
        there = sum(one.key.uid == key.uid for one in self._sessions.values())
        if there >= _SESSIONS * self._hub.server.limits.scale:
            raise Refused(10003, "Too many sessions under the same UID")
        return Session(key)

    def _reject(self, connection: "Connection", told: dict[str, Any]) -> None:
        connection.say(told)
        connection.hang_up()

    def _operate(self, connection: "Connection", request: TradeRequest) -> "Effect":
        """Execute an order request, and answer it in its turn."""
        server = self._hub.server
        path = f"/v5/{request.op.replace('.', '/')}"
        try:
            session, body = self._admitted(connection, request, path)
        except Refused as refused:
            return partial(connection.say, self._refusal(connection, request, refused))
        try:
            done = OPERATIONS[request.op](server, session.key.uid, session.key, body)
        except Exception:
            # A bug that one request has found must not end the session: its other requests would lose their answers.
            log.exception("%s failed", request.op)
            done = Answer.refused(Refused(10016, "Server error."))
        if self._hub.faults.loses(path):
            return _nothing
        told = answer(connection, request, done.ret_code, done.ret_msg) | {
            "data": done.result,
            "retExtInfo": done.ret_ext_info,
            "header": ({} if done.limit is None else done.limit.headers) | self._stamps(),
            "connId": connection.id,
        }
        return partial(self._hub.tell, request.op, _encode(told), "trade", (connection,))

    def _admitted(
        self, connection: "Connection", request: TradeRequest, path: str
    ) -> tuple["Session", Mapping[str, Any]]:
        """Whose request it is and what it asks; refused before any business check."""
        now = self._hub.server.now()
        if not self._within_limit(connection.remote, now):
            raise Refused(10403, "Exceed IP rate limit.")
        session = self._sessions.get(connection)
        if session is None:
            raise Refused(10005, "Permission denied, please auth first.")
        if request.op not in OPERATIONS:
            raise Refused(10404, f"op type is not found: {request.op}")
        session.note(request)
        storm = self._hub.faults.refuses(path, session.key.uid)
        if storm is not None:
            raise _storm(storm)
        header = request.header or {}
        timestamp, window = header.get("X-BAPI-TIMESTAMP", ""), header.get("X-BAPI-RECV-WINDOW", "")
        self._hub.server.auth.check_time(str(timestamp), str(window))
        match request.args:
            case [dict() as body] if body.get("category") in _CATEGORIES:
                return session, body
            case [dict()]:
                raise Refused(10404, "category is not correct")
            case _:
                raise Refused(10001, "params error: args takes one object")

    def _within_limit(self, remote: str, now: int) -> bool:
        asked = self._requests.setdefault(remote, deque())
        while asked and asked[0] <= now - SECOND:
            asked.popleft()
        if len(asked) >= _REQUESTS * self._hub.server.limits.scale:
            return False
        asked.append(now)
        return True

    def _refusal(self, connection: "Connection", request: TradeRequest, refused: Refused) -> dict[str, Any]:
        told = answer(connection, request, refused.code, refused.text)
        return told | {"data": {}, "retExtInfo": {}, "header": self._stamps(), "connId": connection.id}

    def _stamps(self) -> dict[str, str]:
        return {"Traceid": secrets.token_hex(16), "Timenow": str(self._hub.server.now() // MILLISECOND)}


class Session:
    """One proven trade socket: its key, and the request ids it has used."""

    def __init__(self, key: ApiKey) -> None:
        self.key = key
        self._ids: dict[str, None] = {}

    def note(self, request: TradeRequest) -> None:
        """Remember a request by its id, and refuse one that is there already."""
        if request.req_id is None:
            return
        name = str(request.req_id)
        if len(name) > _LONGEST_ID:
            raise Refused(10001, "params error: reqId is too long")
        if name in self._ids:
            raise Refused(20006, "reqId is duplicated")
        self._ids[name] = None
        if len(self._ids) > _IDS_KEPT:
            del self._ids[next(iter(self._ids))]


def answer(
    connection: "Connection", request: TradeRequest, code: int, text: str, *, op: str | None = None
) -> dict[str, Any]:
    told = {"retCode": code, "retMsg": text, "op": request.op if op is None else op, "connId": connection.id}
    return told if request.req_id is None else {"reqId": str(request.req_id)} | told


def _storm(storm: "Storm") -> Refused:
    """A drill's refusal; what it would be over HTTP, in the codes of this socket."""
    if storm.ret_code is not None:
        return Refused(storm.ret_code, TOO_OFTEN.text if storm.ret_code == TOO_OFTEN.code else "Server error.")
    return Refused({403: 10403, 429: 10429}.get(storm.http_status or 0, 10016), "Server error.")


def _nothing() -> None:
    """What is said when an answer is lost."""


_encode = msgspec.json.Encoder().encode
