"""`hean exchange` as a person starts it: what it says, what it refuses, how it ends; and that a kill loses nothing acknowledged."""

import hashlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from pybit.unified_trading import HTTP
from typer.testing import CliRunner

from actors.cli import app
from actors.exchange.drills import Remote, scale_limits
from actors.exchange.keeper import Keeper
from hean.exchange.clearing import HOUSE
from hean.units import MINUTE

HEAN = Path(sys.executable).with_name("hean")
TIMEOUT_S = 20
TOKEN = "drill-of-a-process"  # noqa: S105 (of an exchange that lives as long as a test)

runner = CliRunner()


class Running:
    """`hean exchange` in a process of its own, and its first account."""

    def __init__(self, process, said):
        self.process, self.said = process, said
        self.url = re.search(r"REST +(\S+)", said)[1]
        self.keys = re.findall(r"(\d+) +key (\S+) +secret (\S+)", said)

    def ask(self, method, path, account=0, **fields):
        """A signed request of an account: the envelope."""
        _, key, secret = self.keys[account]
        stamp = str(time.time_ns() // 1_000_000)
        payload = json.dumps(fields) if method == "POST" else "&".join(f"{k}={v}" for k, v in sorted(fields.items()))
        signature = hmac.new(secret.encode(), f"{stamp}{key}5000{payload}".encode(), hashlib.sha256).hexdigest()
        headers = {
            "X-BAPI-API-KEY": key,
            "X-BAPI-TIMESTAMP": stamp,
            "X-BAPI-RECV-WINDOW": "5000",
            "X-BAPI-SIGN": signature,
            "Content-Type": "application/json",
        }
        data = payload.encode() if method == "POST" else None
        query = f"?{payload}" if method == "GET" and payload else ""
        request = urllib.request.Request(self.url + path + query, data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return json.load(answer)

    def read(self, path, account=0, **query):
        told = self.ask("GET", path, account, **query)
        assert told["retCode"] == 0, told
        return told["result"]

    def order(self, account=0, side="Buy", qty="0.001", price=None, category="linear", **more):
        kind = {"orderType": "Market"} if price is None else {"orderType": "Limit", "price": price}
        fields = {"category": category, "symbol": "BTCUSDT", "side": side, "qty": qty}
        return self.ask("POST", "/v5/order/create", account, **fields, **kind, **more)

    def pages(self, path, account=0, limit=7, **query):
        """All rows of a list, page by page."""
        rows, cursor = [], ""
        while True:
            page = self.read(path, account, limit=limit, **query, **({"cursor": cursor} if cursor else {}))
            rows += page["list"]
            cursor = page["nextPageCursor"]
            if not cursor or not page["list"]:
                return rows

    def end(self, by=signal.SIGTERM):
        """Stop it: (exit code, what it still said)."""
        self.process.send_signal(by)
        said, _ = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, said


def start(*words):
    process = subprocess.Popen(
        [HEAN, "exchange", "--port", "0", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Stop it"):
            return Running(process, said)
    process.wait(TIMEOUT_S)
    raise AssertionError(said)


@contextmanager
def running(*words):
    one = start(*words)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(TIMEOUT_S)
        one.process.stdout.close()


def refused(*words):
    answer = runner.invoke(app, ["exchange", "--port", "0", *map(str, words)])
    assert answer.exit_code == 1, answer.output
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr


# --- from start to end ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_cleanly(by):
    with running("--accounts", "3") as exchange:
        assert "synthetic" in exchange.said
        assert "BTCUSDT linear, BTCUSDT spot, ETHUSDT linear, ETHUSDT spot" in exchange.said
        assert "ws://127.0.0.1:" in exchange.said
        assert "Bearer" not in exchange.said
        assert [uid for uid, _, _ in exchange.keys] == ["10000001", "10000002", "10000003"]
        for account in range(3):
            wallet = exchange.read("/v5/account/wallet-balance", account, accountType="UNIFIED")
            coins = {one["coin"]: float(one["walletBalance"]) for one in wallet["list"][0]["coin"]}
            assert coins == {"USDT": 100_000, "BTC": 1, "ETH": 10}
        assert exchange.end(by) == (0, "")


def test_pybit_trades_on_it_as_it_is_told_to():
    with running() as exchange:
        block = re.search(r"(session = .*)\n +(session\.endpoint = .*)", exchange.said)
        names = {"HTTP": HTTP}
        exec("\n".join(block.groups()), names)  # noqa: S102 (what it prints must be true)
        placed = names["session"].place_order(
            category="spot", symbol="BTCUSDT", side="Buy", orderType="Market", qty="100"
        )
        assert placed["retCode"] == 0


def test_the_first_key_is_what_one_asks_for():
    with running("--key", "mine", "--secret", "my-secret", "--accounts", "2") as exchange:
        assert exchange.keys[0][1] == "mine"
        # Somebody may have given a secret that is one.
        assert "my-secret" not in exchange.said
        exchange.keys[0] = (exchange.keys[0][0], "mine", "my-secret")
        assert exchange.read("/v5/user/query-api")["apiKey"] == "mine"
        assert exchange.read("/v5/user/query-api", 1)["apiKey"] == exchange.keys[1][1]


def test_weeks_of_history_are_there_at_once():
    with running("--days", "14", "--symbols", "ethusdt") as exchange:
        assert "ETHUSDT linear, ETHUSDT spot" in exchange.said
        for path in ("kline", "mark-price-kline", "index-price-kline"):
            rows = exchange.read(f"/v5/market/{path}", category="linear", symbol="ETHUSDT", interval="D", limit=20)[
                "list"
            ]
            assert len(rows) >= 14
        settled = exchange.read("/v5/market/funding/history", category="linear", symbol="ETHUSDT")["list"]
        assert len(settled) >= 3 * 13


def test_funding_intervals_latency_and_levers_are_as_asked():
    with running("--funding-minutes", "5", "--latency-ms", "150", "--admin-token", TOKEN) as exchange:
        asked = time.monotonic()
        (ticker,) = exchange.read("/v5/market/tickers", category="linear", symbol="BTCUSDT")["list"]
        assert time.monotonic() - asked >= 0.15
        assert int(ticker["nextFundingTime"]) * 1_000_000 % (5 * MINUTE) == 0
        (record,) = exchange.read("/v5/market/instruments-info", category="linear", symbol="BTCUSDT")["list"]
        assert record["fundingInterval"] == 5
        with scale_limits(Remote(exchange.url, TOKEN), 0.1):
            assert [exchange.order()["retCode"] for _ in range(2)] == [0, 10006]


def test_a_token_is_made_and_printed():
    with running("--admin") as exchange:
        token = re.search(r"Bearer (\S+)", exchange.said)[1]
        assert len(token) >= 16
        assert Remote(exchange.url, token).levers.show()["armed"] == []


def test_a_market_taken_up_again_has_the_same_past(tmp_path):
    def past(*words):
        with running("--days", "3", *words) as exchange:
            rows = exchange.read("/v5/market/kline", category="linear", symbol="BTCUSDT", interval="60", limit=48)[
                "list"
            ]
            return [row[1:] for row in rows[2:]]

    first, again = past("--seed", "5", "--state", tmp_path / "a.db"), past("--state", tmp_path / "a.db")
    other = past("--seed", "6", "--state", tmp_path / "b.db")

    assert first == again
    assert first != other


@pytest.mark.slow
def test_a_tape_is_played(tmp_path):
    catalog = tmp_path / "catalog"
    made = runner.invoke(app, ["data", "generate", "--symbols", "BTCUSDT", "--days", "6", "--catalog", str(catalog)])
    assert made.exit_code == 0, made.output
    words = ("--market", "tape", "--catalog", catalog, "--symbols", "BTCUSDT", "--speed", "60")
    with running(*words, "--state", tmp_path / "state.db") as exchange:
        assert "tape" in exchange.said
        assert exchange.order()["retCode"] == 0
        assert exchange.end() == (0, "")
    with running("--catalog", catalog, "--state", tmp_path / "state.db") as exchange:
        assert "tape" in exchange.said
        assert exchange.read("/v5/position/list", category="linear", symbol="BTCUSDT")["list"][0]["size"] == "0.001"
    told = refused("--market", "tape", "--catalog", tmp_path / "nothing")
    assert "nothing" in told


# --- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "--host 0.0.0.0: the exchange is for this machine alone"),  # noqa: S104
        (("--host", "192.168.1.7"), "for this machine alone"),
        (("--host", "example.com"), "for this machine alone"),
        (("--key", "mine"), "--key and --secret belong together"),
        (("--market", "live"), "--market 'live' is none of synthetic, tape"),
        (("--market", "tape", "--tier", "ticks"), "--tier 'ticks' is none of depth, trades, candles"),
        (("--from", "2025-06-01"), "--from, --tier and --speed are of a tape"),
        (("--market", "tape", "--seed", "7"), "--seed and --step-ms are of a synthetic market"),
        (("--market", "tape", "--from", "soon"), "--from: 'soon' is no time"),
        (("--symbols", " , "), "--symbols names none"),
        (("--symbols", "NOSUCHUSDT"), "no rules of 'NOSUCHUSDT'"),
        (("--funding-minutes", "7"), "a funding interval of 7 minutes does not divide a day"),
        (("--state", "/nowhere/at/all.db"), "there is no directory /nowhere/at"),
    ],
)
def test_a_wrong_option_is_one_line(words, said):
    assert said in refused(*words)


def test_a_taken_port_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        command = [HEAN, "exchange", "--port", str(port)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == f"hean: port {port} of 127.0.0.1 is in use: take another with --port\n"


def test_a_state_file_goes_with_its_market_and_with_one_process(tmp_path):
    state = tmp_path / "state.db"
    with running("--state", state, "--seed", "7", "--symbols", "BTCUSDT") as exchange:
        assert "begun anew" in exchange.said
        assert "is in use by another hean exchange" in refused("--state", state)
        assert exchange.end() == (0, "")

    assert "was begun with seed 7, not 8" in refused("--state", state, "--seed", "8")
    assert "was begun with symbols BTCUSDT, not ETHUSDT" in refused("--state", state, "--symbols", "ETHUSDT")
    with running("--state", state) as exchange:
        assert "taken up where it ended" in exchange.said
        assert "seed 7" in exchange.said
    state.write_bytes(b"\x00" * 5000)
    assert "damaged, or no state file" in refused("--state", state)


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from typer.testing import CliRunner; from actors.cli import app; "
        "assert CliRunner().invoke(app, ['exchange', '--help']).exit_code == 0; "
        "print(sorted({'aiohttp', 'numpy', 'polars', 'numba', 'msgspec', 'pybit', 'asyncio'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert said == "[]\n"


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kill_in_the_middle_of_trading_loses_nothing_that_was_acknowledged(tmp_path):
    state = tmp_path / "state.db"
    words = ("--state", state, "--accounts", "2", "--admin-token", TOKEN)
    acknowledged: list[tuple[int, str, str]] = []
    for life in range(3):
        with running(*words) as exchange:
            Remote(exchange.url, TOKEN).levers.pull("scale-limits", scale=1000)
            _all_there(exchange, acknowledged)
            threads = [
                threading.Thread(target=_trade, args=(exchange, account, f"{life}-{worker}", acknowledged))
                for account in (0, 1)
                for worker in (0, 1)
            ]
            for thread in threads:
                thread.start()
            time.sleep(1.0)
            exchange.process.kill()
            for thread in threads:
                thread.join(TIMEOUT_S)
            assert exchange.process.wait(TIMEOUT_S) == -signal.SIGKILL
    assert len(acknowledged) > 100

    with running(*words) as exchange:
        Remote(exchange.url, TOKEN).levers.pull("scale-limits", scale=1000)
        _all_there(exchange, acknowledged)
        for account, link_id, _ in acknowledged[::10]:
            assert exchange.order(account, price="1000", orderLinkId=link_id)["retCode"] == 110072
        assert exchange.end() == (0, "")
    _conserved(state)


def _trade(exchange, account, name, acknowledged):
    """Place and cancel until the exchange is gone, and note what was acknowledged."""
    number = 0
    while True:
        number += 1
        link_id = f"{name}-{account}-{number}"
        side = "Buy" if number % 2 else "Sell"
        try:
            if number % 3 == 0:
                told = exchange.order(account, side=side, orderLinkId=link_id)
            else:
                (ticker,) = exchange.read("/v5/market/tickers", category="linear", symbol="BTCUSDT")["list"]
                price = ticker["bid1Price"] if side == "Buy" else ticker["ask1Price"]
                told = exchange.order(account, side=side, price=price, orderLinkId=link_id)
            if told["retCode"] == 0:
                acknowledged.append((account, link_id, told["result"]["orderId"]))
            if number % 5 == 0:
                exchange.ask("POST", "/v5/order/cancel-all", account, category="linear", symbol="BTCUSDT")
        except (OSError, HTTPException):
            return


def _all_there(exchange, acknowledged):
    for account, link_id, order_id in acknowledged:
        found = exchange.read("/v5/order/history", account, category="linear", orderLinkId=link_id)["list"]
        assert [one["orderId"] for one in found] == [order_id], f"{link_id} was acknowledged and is gone"


def _conserved(state):
    """Of every coin there is as much as was paid in: the clients', the house's and the fees."""
    keeper = Keeper(state)
    saved = keeper.load()
    keeper.close()
    coins = dict(saved.counters.fees)
    mark = 60_000
    sizes = 0
    for account in saved.accounts.values():
        for coin, balance in account.balances.items():
            coins[coin] = coins.get(coin, 0) + balance
        for held in account.holdings.values():
            for holding in held.values():
                sizes += holding.quantity
                coins["USDT"] += holding.quantity * mark - holding.position.value
    assert sizes == 0
    assert HOUSE in saved.accounts
    assert {coin: amount for coin, amount in coins.items() if amount} == saved.counters.issued


@pytest.mark.slow
def test_what_was_there_before_a_kill_is_there_after_it(tmp_path):
    state = tmp_path / "state.db"
    words = ("--state", state, "--accounts", "2", "--funding-minutes", "480", "--admin-token", TOKEN)
    with running(*words) as exchange:
        Remote(exchange.url, TOKEN).levers.pull("scale-limits", scale=1000)
        for number in range(40):
            assert exchange.order(number % 2, side="Buy" if number % 3 else "Sell")["retCode"] == 0
        for number in range(20):
            assert exchange.order(price=f"{40_000 + number}", orderLinkId=f"rests-{number}")["retCode"] in {0, 110003}
        assert exchange.order(category="spot", qty="500")["retCode"] == 0
        exchange.ask(
            "POST", "/v5/position/set-leverage", category="linear", symbol="BTCUSDT", buyLeverage="7", sellLeverage="7"
        )
        Remote(exchange.url, TOKEN).levers.pull("settle-funding", symbol="BTCUSDT", rate="0.0003")
        before = [_seen(exchange, account) for account in (0, 1)]
        exchange.process.kill()
        exchange.process.wait(TIMEOUT_S)

    with running(*words) as exchange:
        Remote(exchange.url, TOKEN).levers.pull("scale-limits", scale=1000)
        after = [_seen(exchange, account) for account in (0, 1)]

    assert after == before
    assert len(before[0]["executions"]) > 20
    assert {row["type"] for row in before[0]["log"]} == {"TRANSFER_IN", "TRADE", "SETTLEMENT"}


def _seen(exchange, account):
    """All that an account can page through; not what the market moves without it."""
    wallet = exchange.read("/v5/account/wallet-balance", account, accountType="UNIFIED")["list"][0]["coin"]
    (position,) = exchange.read("/v5/position/list", account, category="linear", symbol="BTCUSDT")["list"]
    return {
        "executions": exchange.pages("/v5/execution/list", account, category="linear")
        + exchange.pages("/v5/execution/list", account, category="spot"),
        "history": exchange.pages("/v5/order/history", account, category="linear"),
        "open": exchange.pages("/v5/order/realtime", account, category="linear", symbol="BTCUSDT"),
        "log": exchange.pages("/v5/account/transaction-log", account),
        "closed": exchange.pages("/v5/position/closed-pnl", account, category="linear"),
        "balances": {one["coin"]: one["walletBalance"] for one in wallet},
        "position": {
            name: position[name]
            for name in ("side", "size", "avgPrice", "leverage", "cumRealisedPnl", "curRealisedPnl", "seq")
        },
    }
