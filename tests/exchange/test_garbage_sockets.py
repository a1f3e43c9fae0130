"""What no client should say, said on every socket: answered or cut, and never felt by anybody else."""

import asyncio
import contextlib
import json
import logging
import random
import socket
import struct

import pytest
import websocket

from tests.exchange.stage import login, staged

PATHS = ("public/linear", "public/spot", "public/option", "public/misc/status", "private", "trade")

TEXTS = [
    "",
    "ping",
    "{",
    "[]",
    "null",
    "5",
    '"op"',
    "{}",
    '{"op":null}',
    '{"op":5}',
    '{"op":{}}',
    '{"op":"subscribe"}',
    '{"op":"subscribe","args":null}',
    '{"op":"subscribe","args":"tickers.BTCUSDT"}',
    '{"op":"subscribe","args":[]}',
    '{"op":"subscribe","args":[null]}',
    '{"op":"subscribe","args":[1,2]}',
    '{"op":"subscribe","args":[["tickers.BTCUSDT"]]}',
    '{"op":"subscribe","args":{"tickers":"BTCUSDT"}}',
    '{"op":"unsubscribe","args":[7]}',
    '{"op":"unsubscribe","args":["never.subscribed"]}',
    '{"op":"auth"}',
    '{"op":"auth","args":[{},[],null]}',
    '{"op":"ping","req_id":{}}',
    '{"op":"ping","req_id":1.5}',
    '{"op":"ping","req_id":123456789012345678901234567890}',
    '{"op":"ping","reqId":[]}',
    '{"op":"order.create","header":7,"args":[{}]}',
    '{"op":"order.create","header":{"X-BAPI-TIMESTAMP":{}},"args":[{"category":"linear"}]}',
    '{"op":"order.create","args":[{"category":["linear"]}]}',
    '{"op":"\\u0000","args":["\\u0000"]}',
    '{"op":"subscribe","args":["\\ud800"]}',
    '{"op":"subscribe","args":["orderbook.50.BTCUSDT' + "é" * 500 + '"]}',
    "[" * 100_000,
    '{"op":"subscribe","args":' + "[" * 50_000 + "]" * 50_000 + "}",
    '{"a":' * 30_000 + "1" + "}" * 30_000,
    '{"op":"subscribe","args":["' + "x" * 200_000 + '"]}',
    '{"op":' + "9" * 10_000 + "}",
]


@pytest.fixture(scope="module")
def venue():
    with staged() as stage:
        stage.server.limits.scale = float("inf")
        yield stage


@pytest.fixture(autouse=True)
def quiet(caplog, venue):
    """Nothing is logged as an error, and the server lives on."""
    with caplog.at_level(logging.WARNING):
        yield
        with venue.client("public/linear") as client:
            assert client.ask({"op": "ping"})["ret_msg"] == "pong"
        venue.do(lambda: None)
    assert [record.getMessage() for record in caplog.records if record.name != "websocket"] == []


@pytest.mark.parametrize("path", PATHS)
def test_every_text_is_answered(venue, path):
    for text in TEXTS:
        with venue.client(path) as client:
            client.send(text)
            told = client.hear()
            assert told is not None, text[:100]
            # A lone ping is none of ours to refuse; everything else is a refusal, or says that it is well.
            assert told.get("success") in {True, False} or "retCode" in told or told.get("op") == "pong"


@pytest.mark.parametrize("path", ["private", "trade"])
def test_every_text_is_answered_to_who_has_proved_itself(venue, path):
    for text in TEXTS:
        with venue.client(path) as client:
            client.ask(login())
            client.send(text)
            assert client.hear() is not None, text[:100]


@pytest.mark.parametrize("path", PATHS)
def test_binary_frames_are_refused_with_a_close(venue, path):
    with venue.client(path) as client:
        client.socket.send_binary(b'{"op":"ping"}')

        assert client.is_cut()
        assert client.close_code == 1003


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b'{"op":"' + b"x" * 300_000 + b'"}', 1009), (b"\xff\xfe\x00", None)],
    ids=["too long", "no text"],
)
def test_what_cannot_be_taken_is_cut_or_refused(venue, payload, code):
    with venue.client("public/linear") as client:
        client.socket.send(payload, websocket.ABNF.OPCODE_TEXT)
        if code is None:
            assert client.hear()["success"] is False
        else:
            assert client.is_cut()
            # The word may be lost when the rest of the message is thrown away.
            assert client.close_code in {code, None}


def raw(venue, path="public/linear"):
    """A socket after the handshake, without any manners."""
    connection = socket.create_connection(("127.0.0.1", venue.port), timeout=5)
    connection.sendall(
        f"GET /v5/{path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += connection.recv(1)
    assert b" 101 " in answer
    return connection


@pytest.mark.parametrize(
    "frames",
    [
        b"\xff\xff\xff\xff",  # reserved bits
        b"\x83\x80\x00\x00\x00\x00",  # an opcode that is none
        b"\x89\xfe\x00\xff" + b"\x00" * 259,  # a ping that is too long
        b"\x81\x02hi",  # not masked
        b"\x80\x80\x00\x00\x00\x00",  # a continuation of nothing
        b"\x81\xff" + struct.pack(">Q", 1 << 62) + b"\x00" * 4,  # a message without end
        b"\x88\x81\x00\x00\x00\x00\x00",  # a close with half a code
        b"\x01\x82\x00\x00\x00\x00{}\x89\x80\x00\x00\x00\x00",  # a ping inside a message that never ends
        b"",
    ],
)
def test_broken_frames_end_a_connection_and_nothing_else(venue, frames):
    with contextlib.closing(raw(venue)) as connection:
        connection.sendall(frames)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass


def test_random_frames_and_texts_end_nothing_but_their_connection(venue):
    chance = random.Random(7)
    words = [b'{"op":', b'"subscribe"', b'"args":[', b"}", b"]", b'"tickers.BTCUSDT"', b"1e999", b"\\u0000", b",", b"-"]
    for _ in range(150):
        path = chance.choice(PATHS)
        with contextlib.closing(raw(venue, path)) as connection, contextlib.suppress(OSError):
            for _ in range(chance.randrange(1, 6)):
                if chance.random() < 0.3:
                    connection.sendall(chance.randbytes(chance.randrange(1, 200)))
                else:
                    payload = b"".join(chance.choice(words) for _ in range(chance.randrange(1, 12)))
                    connection.sendall(bytes((0x81, 0x80 | len(payload))) + b"\0\0\0\0" + payload)


def test_a_flood_of_requests_is_answered_one_by_one(venue):
    with venue.client("public/linear") as client:
        for number in range(3_000):
            client.send({"op": "ping", "req_id": str(number)})
        told = [client.hear()["req_id"] for _ in range(3_000)]

    assert told == [str(number) for number in range(3_000)]


def test_sockets_that_vanish_in_the_middle_leave_nothing_behind(venue):
    for path in PATHS:
        with contextlib.closing(raw(venue, path)) as connection:
            request = json.dumps({"op": "subscribe", "args": ["orderbook.1000.BTCUSDT"]}).encode()
            connection.sendall(bytes((0x81, 0x80 | len(request))) + b"\0\0\0\0" + request)
            # Gone with a reset, before the answer.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def gone():
        for _ in range(100):
            if not venue.hub.connections:
                return True
            await asyncio.sleep(0.02)
        return False

    assert asyncio.run_coroutine_threadsafe(gone(), venue._loop).result(5)


def test_a_plain_request_to_a_socket_is_refused(venue):
    with contextlib.closing(socket.create_connection(("127.0.0.1", venue.port), timeout=5)) as connection:
        connection.sendall(b"GET /v5/private HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part

    assert answer.startswith(b"HTTP/1.1 400")
