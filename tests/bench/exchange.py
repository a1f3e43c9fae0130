"""How much the exchange bears: sockets that watch books, clients that trade, and what it keeps in memory after a while.

The server is a process of its own, started as a person would; the clients are here. Run `python -m tests.bench.exchange
--minutes 1` for a short look; `make bench` takes ten minutes, as memory needs them.
"""

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp

HOST = "127.0.0.1"
TOKEN = "bench"  # noqa: S105 (of a server on loopback that lives for this run)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
START_PRICE = {"BTCUSDT": "30000", "ETHUSDT": "1000"}  # far below the market: these orders rest
QUANTITY = {"BTCUSDT": ("0.01", "0.02"), "ETHUSDT": ("0.1", "0.2")}
LATER = 30  # seconds; what comes before is starting


class Watcher(asyncio.Protocol):
    """A socket that subscribes and counts frames without decoding them; a `checked` one follows the book's chain too."""

    def __init__(self, topics, *, checked):
        self.topics = topics
        self.checked = checked
        self.frames = 0
        self.bytes = 0
        self.gaps = 0
        self.last = {}
        self.lost = False
        self._rest = b""
        self._open = False

    def connection_made(self, transport):
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v5/public/linear HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def connection_lost(self, _):
        self.lost = True

    def data_received(self, data):
        data = self._rest + data if self._rest else data
        if not self._open:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(head.decode())
            self._open = True
            self._send(json.dumps({"op": "subscribe", "args": self.topics}).encode())
        at, end = 0, len(data)
        self.bytes += end
        while end - at >= 2:
            size, head = data[at + 1] & 127, 2
            if size == 126:
                if end - at < 4:
                    break
                size, head = struct.unpack_from("!H", data, at + 2)[0], 4
            elif size == 127:
                if end - at < 10:
                    break
                size, head = struct.unpack_from("!Q", data, at + 2)[0], 10
            if end - at < head + size:
                break
            self.frames += 1
            if self.checked:
                self._check(data[at + head : at + head + size])
            at += head + size
        self._rest = data[at:]

    def _check(self, payload):
        message = json.loads(payload)
        if "topic" not in message:
            return
        topic, u = message["topic"], message["data"]["u"]
        if message["type"] == "delta" and u != self.last[topic] + 1:
            self.gaps += 1
        self.last[topic] = u

    def ping(self):
        self._send(b'{"op":"ping"}')

    def _send(self, payload):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        size = bytes([128 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 254, len(payload))
        self.transport.write(b"\x81" + size + mask + masked)


class Trader:
    """One account that places, amends and cancels; the time from each request to its acknowledgement is kept."""

    def __init__(self, key, secret, number):
        self.key, self.secret, self.number = key, secret, number
        self.took = []
        self.refused = 0
        self.link = 0

    def steps(self):
        """Requests for ever: (operation, body)."""
        while True:
            self.link += 1
            symbol = SYMBOLS[self.link % 2]
            link = f"b{self.number}-{self.link}"
            small, large = QUANTITY[symbol]
            common = {"category": "linear", "symbol": symbol, "orderLinkId": link}
            yield (
                "create",
                common
                | {
                    "side": "Buy",
                    "orderType": "Limit",
                    "qty": small,
                    "price": START_PRICE[symbol],
                    "timeInForce": "PostOnly",
                },
            )
            yield "amend", common | {"qty": large}
            yield "cancel", common

    def note(self, began, code):
        self.took.append(time.perf_counter() - began)
        self.refused += code != 0


async def trade_by_rest(trader, session, url, rate, until):
    for beat, (operation, body) in at_beats(trader, rate):
        await beat
        if time.perf_counter() > until:
            return
        raw, stamp = json.dumps(body), str(int(time.time() * 1000))
        signature = hmac.new(trader.secret.encode(), f"{stamp}{trader.key}5000{raw}".encode(), hashlib.sha256)
        headers = {
            "X-BAPI-API-KEY": trader.key,
            "X-BAPI-TIMESTAMP": stamp,
            "X-BAPI-RECV-WINDOW": "5000",
            "X-BAPI-SIGN": signature.hexdigest(),
            "Content-Type": "application/json",
        }
        began = time.perf_counter()
        async with session.post(f"{url}/v5/order/{operation}", data=raw, headers=headers) as answer:
            trader.note(began, (await answer.json())["retCode"])


async def trade_by_socket(trader, session, url, rate, until):
    async with session.ws_connect(f"{url.replace('http', 'ws')}/v5/trade", heartbeat=20) as socket:
        expires = int(time.time() * 1000) + 10_000
        signature = hmac.new(trader.secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        await socket.send_json({"op": "auth", "args": [trader.key, expires, signature]})
        assert (await socket.receive_json())["retCode"] == 0
        sent = {}

        async def listen():
            # The socket may answer later than the next request is due: both are on their way at once.
            async for message in socket:
                answer = json.loads(message.data)
                trader.note(sent.pop(answer["reqId"]), answer["retCode"])

        listening = asyncio.create_task(listen())
        for number, (beat, (operation, body)) in enumerate(at_beats(trader, rate)):
            await beat
            if time.perf_counter() > until:
                break
            name = f"{trader.number}-{number}"
            sent[name] = time.perf_counter()
            await socket.send_json(
                {
                    "reqId": name,
                    "header": {"X-BAPI-TIMESTAMP": str(int(time.time() * 1000)), "X-BAPI-RECV-WINDOW": "5000"},
                    "op": f"order.{operation}",
                    "args": [body],
                }
            )
        await asyncio.sleep(1)
        listening.cancel()


def at_beats(trader, rate):
    """Pair each request with the wait until its turn: so many a second; what is late is made up for, half a second's worth."""
    due = time.perf_counter() + trader.number / rate / 10
    for step in trader.steps():
        yield asyncio.sleep(max(0.0, due - time.perf_counter())), step
        due = max(due + 1 / rate, time.perf_counter() - 0.5)


@contextmanager
def exchange(accounts):
    """A server as a person starts it; gives its process, its address and its keys."""
    command = [
        sys.executable, "-c", "from actors.cli import main; main()", "exchange", "--port", "0", "--accounts", str(accounts),
        "--admin-token", TOKEN, "--step-ms", "20", "--symbols", ",".join(SYMBOLS),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = ""
        keys = []
        for line in process.stdout:
            said += line
            keys += re.findall(r"key\s+(\S+)\s+secret\s+(\S+)", line)
            if "Ctrl-C" in line:
                break
        found = re.search(r"http://[\d.]+:\d+", said)
        assert found, said
        yield process.pid, found.group(), keys
    finally:
        process.terminate()
        process.wait(10)


def resident_mb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


async def load(pid, url, keys, *, minutes, sockets, rate):
    loop = asyncio.get_running_loop()
    port = int(url.rsplit(":", 1)[1])
    topics = [f"orderbook.50.{symbol}" for symbol in SYMBOLS]
    watchers = []
    for number in range(sockets):
        _, watcher = await loop.create_connection(lambda n=number: Watcher(topics, checked=n % 20 == 0), HOST, port)
        watchers.append(watcher)
    traders = [Trader(key, secret, number) for number, (key, secret) in enumerate(keys)]
    began = time.perf_counter()
    until = began + minutes * 60
    each = rate / len(traders)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        lifted = await session.post(
            f"{url}/admin/scale-limits", json={"scale": 1000.0}, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert lifted.status == 200, await lifted.text()
        work = [
            asyncio.create_task(
                (trade_by_rest if trader.number % 2 else trade_by_socket)(trader, session, url, each, until)
            )
            for trader in traders
        ]
        await asyncio.sleep(min(LATER, minutes * 20))
        early, frames, cpu, at = resident_mb(pid), [w.frames for w in watchers], cpu_s(pid), time.perf_counter()
        while time.perf_counter() < until:
            await asyncio.sleep(min(15, max(0.1, until - time.perf_counter())))
            for watcher in watchers:
                watcher.ping()
        await asyncio.gather(*work)
        took = time.perf_counter() - at
    pushed = sum(w.frames - before for w, before in zip(watchers, frames, strict=True))
    rest = [took for trader in traders if trader.number % 2 for took in trader.took]
    trade = [took for trader in traders if not trader.number % 2 for took in trader.took]
    done = len(rest) + len(trade)
    print(f"exchange: {sockets} sockets on {' and '.join(topics)}, {len(traders)} accounts, {minutes:g} minutes")
    print(
        f"  books pushed      {pushed / took:10,.0f} frames/s, {pushed / took / sockets / len(topics):.1f} a second and topic"
    )
    print(
        f"  chains broken     {sum(w.gaps for w in watchers):10,} in {len(watchers[::20])} followed, {sum(w.lost for w in watchers)} sockets lost"
    )
    print(
        f"  order operations  {done / (time.perf_counter() - began):10,.0f} a second, {sum(t.refused for t in traders)} refused"
    )
    for name, times in (("REST", rest), ("trade socket", trade)):
        print(
            f"  acknowledged      {quantile(times, 0.5) * 1e3:10.1f} ms p50, {quantile(times, 0.99) * 1e3:.1f} ms p99 by {name}"
        )
    print(f"  processor         {(cpu_s(pid) - cpu) / took:10.0%} of one core")
    print(
        f"  memory            {early:10,.0f} MB early, {resident_mb(pid):,.0f} MB at the end, {done:,} operations later"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sockets", type=int, default=200)
    parser.add_argument("--rate", type=float, default=500, help="order operations a second, all accounts together")
    chosen = parser.parse_args(arguments)
    with exchange(10) as (pid, url, keys):
        asyncio.run(load(pid, url, keys, minutes=chosen.minutes, sockets=chosen.sockets, rate=chosen.rate))


if __name__ == "__main__":
    main()
