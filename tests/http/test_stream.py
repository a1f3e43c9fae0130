"""The stream, over real sockets: whoever comes back has missed nothing, and whoever is slow costs nothing."""

import asyncio
import base64
import contextlib
import json
import random
import threading
import time
from decimal import Decimal

import msgspec
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from actors import logs, up
from actors.http import stream
from actors.http.port import NoEngineError
from actors.http.stream import CREDIT, Stream
from hean import codec
from hean.engine_settings import VenueMode
from hean.messages import CapitalAllocated, Envelope, ErrorReported
from hean.store.journal import Journal
from tests.http.fake_engine import FakeEngine

TOKEN = "let-me-in"  # noqa: S105 (opens nothing)


class Written:
    """A home with a monitor's journal and logs, written while they are read."""

    def __init__(self, home):
        self.home = home
        self.folder = home / VenueMode.SANDBOX
        self.folder.mkdir(parents=True)
        (home / up.BEGUN).write_bytes(msgspec.json.encode(up.Begun(VenueMode.SANDBOX, 0)))
        self.journal = Journal(self.folder / "journals" / "monitor.db", "monitor", keep=2)
        self.journal.begin(1, 1, b"")
        self.said = 0
        self.log = logs.NodeLog(self.folder, "risk", 1)

    def tell(self, facts=1):
        """One entry of so many facts, each with a number of its own."""
        batch = []
        for _ in range(facts):
            self.said += 1
            fact = ErrorReported("venue", "numbered", str(self.said))
            batch.append(Envelope("venue@1", self.said, self.said, "t", "c", fact))
        return self.journal.tell(1, time.time_ns(), codec.letters(batch))

    def close(self):
        self.journal.close()
        self.log.close()


@pytest.fixture
def written(tmp_path):
    found = Written(tmp_path / "home")
    yield found
    found.close()


class Served:
    """The stream under a real server."""

    def __init__(self, home, engine=None, *, token=TOKEN, state_s=0.02):
        self.engine = engine or FakeEngine()
        self.app = FastAPI()
        self.app.state.stream = self.stream = Stream(self.engine, home, token=token, state_s=state_s)
        self.app.include_router(stream.router)
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def open(self, **more):
        return connect(f"ws://127.0.0.1:{self.port}/stream", compression=None, max_size=None, **more)

    def end(self):
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def serve(written):
    begun = []

    def make(**more):
        begun.append(Served(written.home, **more))
        return begun[-1]

    yield make
    for one in begun:
        one.end()


async def hello(socket, *channels, **more):
    await socket.send(json.dumps({"channels": channels, **more}))


async def frame(socket, *, ack=True, within_s=5.0):
    async with asyncio.timeout(within_s):
        found = json.loads(await socket.recv())
    if ack and "seq" in found:
        await socket.send(json.dumps({"ack": found["seq"]}))
    return found


async def until(socket, wanted, within_s=10.0):
    """Frames up to the first that is wanted."""
    async with asyncio.timeout(within_s):
        while True:
            found = await frame(socket)
            if wanted(found):
                return found


async def to_the_end(socket, *, ack=True):
    """The last frame before a socket is closed, and the code it is closed with."""
    last = None
    try:
        while True:
            last = await frame(socket, ack=ack)
    except ConnectionClosed as closed:
        return last, closed.rcvd.code


async def sockets(served, count):
    """Wait until so many are served."""
    for _ in range(500):
        if served.stream.sockets == count:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"{served.stream.sockets} are served, not {count}")


def numbers(found):
    return [int(fact["said"]["detail"]) for fact in found["data"]]


# --- facts ------------------------------------------------------------------------------------------


def test_facts_come_as_they_are_written_with_the_number_of_their_entry(written, serve):
    written.tell(3)
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "facts")
            await asyncio.sleep(0.3)
            second, third = written.tell(2), written.tell()
            found = [await frame(socket)]
            while found[-1]["seq"] < third:
                found.append(await frame(socket))
            return second, third, found

    second, third, found = asyncio.run(run())
    facts = [fact for one in found for fact in one["data"]]
    assert [(fact["n"], fact["i"]) for fact in facts] == [(second, 0), (second, 1), (third, 0)]
    assert [fact["id"] for fact in facts] == ["venue@1:4", "venue@1:5", "venue@1:6"]
    assert facts[0]["event"] == "ErrorReported"
    assert (facts[0]["trace"], facts[0]["cause"], facts[0]["source"]) == ("t", "c", "venue@1")
    assert found[-1]["cursor"] == str(third)


@pytest.mark.parametrize("seed", range(4))
def test_one_who_is_cut_off_again_and_again_misses_no_fact_and_no_line(seed, written, serve, monkeypatch):
    """Sockets are cut, servers die, and what is held in hand is little: facts and lines come from the files."""
    monkeypatch.setattr(stream, "ENTRIES_HELD", 4)
    monkeypatch.setattr(stream, "BATCHES_HELD", 2)
    monkeypatch.setattr(stream, "FACTS_A_FRAME", 7)
    monkeypatch.setattr(stream, "LINES_A_FRAME", 5)
    chance = random.Random(seed)
    served = [serve(), serve()]
    total, ended = 300, threading.Event()
    log = logs.NodeLog(written.folder, "broker", 1)
    log._file._bound = 8_000  # put aside now and then, and kept for long enough

    def write():
        try:
            for n in range(total):
                written.tell(chance.choice([1, 1, 3]))
                log.info("numbered", number=n)
                time.sleep(0.004)
        finally:
            ended.set()

    async def run():
        after = {"facts": 0, "logs": ""}
        facts, lines = [], []
        while not (ended.is_set() and facts and len(lines) >= total and facts[-1] == written.said):
            socket = await served[chance.randrange(2)].open()
            try:
                await hello(socket, "facts", "logs", after=after)
                for _ in range(chance.randrange(1, 30)):
                    found = await frame(socket, ack=chance.random() < 0.9, within_s=0.5)
                    assert "gap" not in found
                    after[found["channel"]] = found["cursor"]
                    if found["channel"] == "facts":
                        facts += numbers(found)
                    else:
                        lines += [one["rest"]["number"] for one in found["data"] if one["event"] == "numbered"]
            except TimeoutError:
                pass
            finally:
                if chance.random() < 0.5:
                    socket.transport.abort()
                else:
                    await socket.close()
        return facts, lines

    writer = threading.Thread(target=write)
    writer.start()
    try:
        facts, lines = asyncio.run(asyncio.wait_for(run(), 60))
    finally:
        writer.join()
        log.close()
    assert facts == list(range(1, written.said + 1))
    assert lines == list(range(total))


def test_what_is_no_longer_kept_is_said_to_be_missing_and_the_state_follows(written, serve):
    for n in range(1, 31):
        written.tell()
        if n % 10 == 0:
            written.journal.snapshot(1, n, b"", b"")  # two are kept: the first ten entries go
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "facts", "state", after={"facts": 3})
            gap = await until(socket, lambda one: "gap" in one)
            state = await until(socket, lambda one: one["channel"] == "state")
            return gap, state

    gap, state = asyncio.run(run())
    first = gap["data"][0]["n"]
    assert gap["gap"] == {"from": 4, "to": first - 1}
    assert first > 10
    assert numbers(gap) == list(range(first, 31))
    assert state["data"]["/engine/status"]["phase"] == "RUNNING"


def test_a_client_of_another_journal_is_told_so_and_goes_on_with_this_one(written, serve):
    written.tell()
    written.tell()
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "facts", after={"facts": 4_000})
            first = await frame(socket)
            n = written.tell()
            return first, n, await frame(socket)

    first, n, second = asyncio.run(run())
    assert first["gap"]["from"] > first["gap"]["to"]
    assert numbers(first) == [1, 2]
    assert (second["seq"], numbers(second)) == (n, [3])


def test_before_anything_was_begun_one_may_already_listen(tmp_path):
    served = Served(tmp_path / "home")
    found = None

    async def run():
        nonlocal found
        async with served.open() as socket:
            await hello(socket, "facts", "logs")
            await asyncio.sleep(0.3)
            found = Written(tmp_path / "home")
            found.tell()
            fact = await frame(socket)
            found.log.info("hello")
            return fact, await frame(socket)

    try:
        fact, lines = asyncio.run(run())
    finally:
        found.close()
        served.end()
    assert numbers(fact) == [1]
    assert [line["event"] for line in lines["data"]] == ["hello"]


# --- state ------------------------------------------------------------------------------------------


def test_the_state_is_what_the_api_answers_by_its_paths(serve):
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "state")
            return await frame(socket)

    data = asyncio.run(run())["data"]
    assert set(data) == {"/engine/status", "/positions", "/orders", "/strategies", "/risk", "/why"}
    assert Decimal(data["/engine/status"]["equity"]) > 0
    assert data["/positions"]["as_of"] == data["/engine/status"]["as_of"]


class Still(FakeEngine):
    """An engine in which nothing happens."""

    async def picture(self):
        if not hasattr(self, "seen"):
            self.seen = await super().picture()
        return self.seen


def test_a_state_that_does_not_change_is_said_once_a_second_and_no_more(serve, monkeypatch):
    monkeypatch.setattr(stream, "STILL_S", 0.3)
    served = serve(engine=Still())

    async def run():
        found = []
        async with served.open() as socket:
            await hello(socket, "state")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    while True:
                        found.append(await frame(socket))
        return found

    assert 3 <= len(asyncio.run(run())) <= 5


def test_without_an_engine_the_reason_is_said_instead_and_the_state_comes_back_with_it(serve):
    served = serve()
    served.engine.failure = NoEngineError("no engine is at work")

    async def run():
        async with served.open() as socket:
            await hello(socket, "state")
            silent = await frame(socket)
            served.engine.failure = None
            return silent, await until(socket, lambda one: one["data"] is not None)

    silent, back = asyncio.run(run())
    assert (silent["data"], silent["reasons"]) == (None, ["no engine is at work"])
    assert "reasons" not in back


# --- who is slow ------------------------------------------------------------------------------------


def test_one_who_acknowledges_nothing_gets_eight_frames_and_later_the_newest_state(serve):
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "state")
            found = [await frame(socket, ack=False) for _ in range(CREDIT)]
            with pytest.raises(TimeoutError):
                await frame(socket, within_s=0.5)
            await socket.send(json.dumps({"ack": found[0]["seq"]}))
            return found, await frame(socket)

    found, newest = asyncio.run(run())
    assert newest["seq"] > found[-1]["seq"] + 5, "those in between are of no use to anybody"


def test_facts_wait_for_one_who_is_slow_and_none_is_lost(written, serve, monkeypatch):
    monkeypatch.setattr(stream, "ENTRIES_HELD", 8)
    monkeypatch.setattr(stream, "FACTS_A_FRAME", 4)
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "facts", after={"facts": 0})
            for _ in range(100):
                written.tell()
            first = [await frame(socket, ack=False) for _ in range(CREDIT)]
            with pytest.raises(TimeoutError):
                await frame(socket, within_s=0.4)
            found = [number for one in first for number in numbers(one)]
            for one in first:
                await socket.send(json.dumps({"ack": one["seq"]}))
            while len(found) < 100:
                found += numbers(await frame(socket))
            return found

    assert asyncio.run(run()) == list(range(1, 101))


def test_one_who_acknowledges_nothing_for_long_is_dropped(serve, monkeypatch):
    monkeypatch.setattr(stream, "PATIENCE_S", 0.4)
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "state")
            return await to_the_end(socket, ack=False)

    last, code = asyncio.run(run())
    assert code == 4408
    assert (last["channel"], last["code"]) == ("error", 4408)


def test_when_the_last_client_is_gone_nothing_is_looked_at_any_more(serve):
    served = serve()

    async def run():
        for how in ("close", "abort"):
            socket = await served.open()
            await hello(socket, "state", "facts", "logs")
            await frame(socket)
            if how == "close":
                await socket.close()
            else:
                socket.transport.abort()
        await sockets(served, 0)

    asyncio.run(run())
    assert [one._looking for one in (served.stream.state, served.stream.facts, served.stream.logs)] == [None] * 3


# --- who is not understood --------------------------------------------------------------------------


def cursor(at):
    """How far somebody says to have read the log of risk."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode({"risk": ("", at)})).decode()


@pytest.mark.parametrize(
    ("said", "code", "names"),
    [
        ("gar{bage", 4400, "JSON"),
        ("[]", 4400, "expected"),
        ('{"channels": ["state", "secrets"]}', 4400, "secrets"),
        ('{"channels": []}', 4400, "at least one"),
        ('{"channel": "state"}', 4400, "channel"),
        ('{"channels": ["facts"], "after": {"facts": "x"}}', 4400, "after.facts"),
        ('{"channels": ["facts"], "after": {"facts": -1}}', 4400, "after.facts"),
        ('{"channels": ["logs"], "after": {"logs": "!!!"}}', 4400, "after.logs"),
        ('{"channels": ["logs"], "after": {"logs": "gaFh"}}', 4400, "after.logs"),
        (json.dumps({"channels": ["logs"], "after": {"logs": cursor(-5)}}), 4400, "after.logs"),
        (json.dumps({"channels": ["logs"], "after": {"logs": cursor(2**62)}}), 4400, "after.logs"),
        ('{"channels": ["state"], "token": "wrong"}', 4401, "token"),
        (b"\\xff\\xfe", 4400, "expected"),
        ('{"channels": ["state"], "token": "' + "x" * 20_000 + '"}', 1009, "bytes"),
        ("[" * 5_000, 4400, "expected"),
    ],
)
def test_what_is_not_understood_is_said_and_the_socket_closed(said, code, names, serve):
    served = serve()

    async def run():
        async with served.open() as socket:
            await socket.send(said)
            refusal = await frame(socket, ack=False)
            with pytest.raises(ConnectionClosed) as closed:
                await frame(socket)
            return refusal, closed.value.rcvd.code

    refusal, closed = asyncio.run(run())
    assert (refusal["channel"], refusal["code"], closed) == ("error", code, code)
    assert names in refusal["detail"]
    assert "let-me-in" not in refusal["detail"]


def test_garbage_in_the_place_of_an_acknowledgement_ends_it_too(serve):
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "state", token=TOKEN)
            await frame(socket)
            await socket.send('{"ack": "all"}')
            return await to_the_end(socket)

    last, code = asyncio.run(run())
    assert code == 4400
    assert "ack" in last["detail"]


def test_one_who_says_nothing_is_not_waited_for(serve, monkeypatch):
    monkeypatch.setattr(stream, "HELLO_S", 0.2)
    served = serve()

    async def run():
        async with served.open() as socket:
            refusal = await frame(socket, ack=False)
            with pytest.raises(ConnectionClosed):
                await frame(socket)
            return refusal

    assert asyncio.run(run())["code"] == 4408


def test_there_is_room_for_so_many_and_others_are_told(serve, monkeypatch):
    monkeypatch.setattr(stream, "MOST_SOCKETS", 3)
    served = serve()

    async def run():
        async with contextlib.AsyncExitStack() as open_ones:
            for _ in range(3):
                socket = await open_ones.enter_async_context(served.open())
                await hello(socket, "state")
                await frame(socket)
            async with served.open() as fourth:
                refusal = await frame(fourth, ack=False)
        async with served.open() as later:
            await sockets(served, 1)
            await hello(later, "state")
            return refusal, await frame(later)

    refusal, later = asyncio.run(run())
    assert refusal["code"] == 1013
    assert later["channel"] == "state"


# --- one for all ------------------------------------------------------------------------------------


class Asked(FakeEngine):
    asked = 0

    async def picture(self):
        self.asked += 1
        return await super().picture()


def test_the_engine_is_asked_once_for_all_clients(serve):
    served = serve(engine=Asked(), state_s=0.1)

    async def one():
        async with served.open() as socket:
            await hello(socket, "state")
            for _ in range(5):
                await frame(socket)

    async def run():
        await asyncio.gather(*(one() for _ in range(10)))

    asyncio.run(run())
    assert served.engine.asked <= 15


def test_a_fact_of_money_is_told_to_the_last_digit(written, serve):
    served = serve()

    async def run():
        async with served.open() as socket:
            await hello(socket, "facts")
            await asyncio.sleep(0.3)
            share = CapitalAllocated("impulse", Decimal("0.100000000000000000001"))
            written.journal.tell(1, 5, codec.letters([Envelope("factory@1", 1, 5, "", "", share)]))
            return await frame(socket)

    assert asyncio.run(run())["data"][0]["said"]["share"] == "0.100000000000000000001"
