"""The log: what was said and why, bounded, merged by time, and without a secret."""

import itertools
import json
import threading
from decimal import Decimal

import pytest

from actors import logs
from actors.logs import NodeLog, RotatingFile, Wanted, followed, merged, redacted
from hean.messages import Envelope, KillSwitchTripped, Side, SubmitOrder, TimeInForce

SECRET = "pLainSecret1"  # noqa: S105 (opens nothing)


@pytest.fixture
def log_of(tmp_path):
    opened = []

    def make(node, life=None):
        opened.append(NodeLog(tmp_path, node, life))
        return opened[-1]

    yield make
    for log in opened:
        log.close()


@pytest.fixture
def order():
    return SubmitOrder(
        client_order_id="abc1-impulse-1",
        strategy="impulse",
        instrument="BTCUSDT-LINEAR.BYBIT",
        side=Side.BUY,
        quantity=Decimal("0.010"),
        limit=None,
        time_in_force=TimeInForce.IOC,
        reduce_only=False,
        reference=65_000.0,
        bracket=None,
    )


def test_what_was_said_is_written_with_what_set_it_going(tmp_path, log_of, order):
    log_of("risk", 7).said([Envelope("risk@7", 3, 1, "feed@7:9", "impulse@7:2", order)])

    (line,) = merged(tmp_path, Wanted())
    assert (line.node, line.level, line.event) == ("risk", "info", "SubmitOrder")
    assert line.rest["life"] == 7
    assert (line.rest["id"], line.rest["trace"], line.rest["cause"]) == ("risk@7:3", "feed@7:9", "impulse@7:2")
    assert line.rest["said"]["quantity"] == "0.010", "to the last digit"


def test_a_trace_leads_through_all_nodes_in_the_order_of_time(tmp_path, log_of, order):
    risk, broker = log_of("risk"), log_of("broker")
    risk.said([Envelope("risk@1", 1, 1, "t1", "c", order)])
    broker.said([Envelope("broker@1", 1, 1, "t1", "c", order)])
    risk.said([Envelope("risk@1", 2, 1, "t2", "c", order)])
    risk.info("recovered")

    assert [line.node for line in merged(tmp_path, Wanted(trace="t1"))] == ["risk", "broker"]
    assert [line.event for line in merged(tmp_path, Wanted(nodes=("risk",)))] == ["SubmitOrder"] * 2 + ["recovered"]


def test_what_a_person_should_look_at_stands_out(tmp_path, log_of):
    log = log_of("risk")
    log.info("recovered")
    log.said([Envelope("risk@1", 1, 1, "", "", KillSwitchTripped("drawdown", "0.21", "0.20"))])
    try:
        int("no such thing")
    except ValueError as failure:
        log.died(failure)

    seen = list(merged(tmp_path, Wanted(level="warning")))
    assert [line.event for line in seen] == ["KillSwitchTripped", "died"]
    assert "no such thing" in seen[1].rest["exception"]


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": "x1"},
        {"outer": [{"BYBIT_API_SECRET": "x1"}]},
        f"refused: {SECRET} is wrong",
        {"a": f"{SECRET}"},
        "-----BEGIN RSA PRIVATE KEY-----\nx1\n-----END RSA PRIVATE KEY-----",
        "key aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456x1 refused",
    ],
)
def test_neither_a_known_secret_nor_what_looks_like_one_is_seen(value, monkeypatch):
    monkeypatch.setattr(logs, "_known", set())
    logs.hide(SECRET)

    seen = json.dumps(redacted(value))
    assert "x1" not in seen
    assert SECRET not in seen


def test_what_is_no_secret_is_left_as_it_is():
    said = {
        "id": "abc1z-funding-harvester-BTC-000123",
        "venue": "0f3a1f0e-5d1b-4f7e-9b32-2f6f0ea7b8c1",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "n": 3,
    }
    assert redacted(said) == said


def test_the_log_is_bounded_and_the_newest_is_kept(tmp_path):
    file = RotatingFile(tmp_path / "node.log", bound=1_000, kept=2)
    for n in range(1_000):
        file.write(f"line {n}\n")
    file.flush()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "node.log.1", "node.log.2"]
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())
    assert (tmp_path / "node.log").read_text().splitlines()[-1] == "line 999"
    file.close()


def test_older_files_are_read_before_newer_ones_and_a_torn_line_is_passed_over(tmp_path, log_of):
    log = log_of("risk")
    for n in range(3):
        log.info("told", n=n)
    folder = tmp_path / "logs"
    first, second, third = (folder / "risk.log").read_text().splitlines(keepends=True)
    (folder / "risk.log.2").write_text(first)
    (folder / "risk.log.1").write_text(second + second[:30])
    (folder / "risk.log").write_text(third)

    assert [line.rest["n"] for line in merged(tmp_path, Wanted())] == [0, 1, 2]


def test_following_tells_what_comes_through_a_change_of_files(tmp_path, log_of):
    log = log_of("risk")
    log.info("before")
    coming = followed(tmp_path, Wanted(), poll_s=0.01)
    written = (log_of(name) for name in ("broker", "venue"))

    def tell():
        log.info("first")
        (tmp_path / "logs" / "risk.log").rename(tmp_path / "logs" / "risk.log.1")
        log_of("risk").info("second")
        next(written).info("third")

    # It begins to look when it is first asked.
    teller = threading.Timer(0.2, tell)
    teller.start()
    assert [line.event for line in itertools.islice(coming, 3)] == ["first", "second", "third"]
    teller.join()
    coming.close()
