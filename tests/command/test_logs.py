"""The log: what was said and why, bounded, merged by time, and without a secret."""

import itertools
import json
import random
import threading
from decimal import Decimal

import pytest

from actors import logs
from actors.logs import NodeLog, Reading, RotatingFile, Wanted, ends, followed, merged, newest, redacted, story
from hean.execution.simulated_venue import Tier
from hean.messages import (
    Envelope,
    KillSwitchTripped,
    OrderAccepted,
    OrderFilled,
    PairFinished,
    PositionChanged,
    Side,
    Signal,
    SubmitOrder,
    SubmitPair,
    TimeInForce,
)
from tests.graph.house import BTC, BTC_SPOT, ETH, carrier, chatter, house, market

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
        {"X-BAPI-API-KEY": "x1"},
        "Authorization: Bearer x1",
        "oddly  Extra inputs are not permitted [type=extra_forbidden, input_value='x1', input_type=str]",
        "GET /v5/order?api_key=x1&sign=ax1",
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


def test_the_newest_lines_are_found_from_the_end(tmp_path, log_of):
    for n in range(40):
        log_of(f"node-{n % 3}").info("told", n=n, words="x" * 5_000)
    folder = tmp_path / "logs"
    (folder / "node-0.log").rename(folder / "node-0.log.1")
    log_of("node-0").info("told", n=40)

    assert [line.rest["n"] for line in newest(tmp_path, Wanted(), 5)] == [36, 37, 38, 39, 40]
    assert newest(tmp_path, Wanted(), 1_000) == list(merged(tmp_path, Wanted()))
    assert [line.rest["n"] for line in newest(tmp_path, Wanted(nodes=("node-0",)), 3)] == [36, 39, 40]


@pytest.mark.parametrize("seed", range(8))
def test_one_who_reads_on_misses_no_line_and_gets_none_twice(seed, tmp_path):
    """Files are put aside and deleted meanwhile, lines are written in two halves, and the reader forgets all but its places."""
    chance = random.Random(seed)
    home = tmp_path
    files = {node: RotatingFile(home / "logs" / f"{node}.log", bound=2_000, kept=4) for node in ("a", "b", "c")}
    written = dict.fromkeys(files, 0)
    heard = {node: [] for node in files}
    reading = Reading(home, {})
    for _ in range(400):
        node = chance.choice(list(files))
        line = (
            json.dumps({"ts": f"{sum(written.values()):09}", "node": node, "level": "info", "n": written[node]}) + "\n"
        )
        half = 0
        if chance.random() < 0.2 and files[node].path.stat().st_size + len(line) <= 2_000:  # a line lies in one file
            half = chance.randrange(len(line))
            files[node].write(line[:half])
            files[node].flush()
        if chance.random() < 0.4:
            for found in reading.more(chance.choice([1, 3, 500])):
                heard[found.node].append(found.rest["n"])
        if chance.random() < 0.1:
            reading = Reading(home, reading.places)
        files[node].write(line[half:])
        files[node].flush()
        written[node] += 1
    while more := reading.more():
        for found in more:
            heard[found.node].append(found.rest["n"])
    for file in files.values():
        file.close()

    assert heard == {node: list(range(count)) for node, count in written.items()}
    assert not reading.missed


def test_one_who_reads_up_to_the_end_of_a_file_does_not_go_on_into_the_next(tmp_path, log_of):
    log = log_of("risk")
    log.info("before")
    until = ends(tmp_path)
    log._file._rotate()
    log.info("after")

    assert [line.event for line in Reading(tmp_path, {}, until=until).more()] == ["before"]
    assert [line.event for line in Reading(tmp_path, until).more()] == ["after"]


def test_one_who_was_away_for_too_long_is_told_so(tmp_path):
    file = RotatingFile(tmp_path / "logs" / "a.log", bound=500, kept=2)
    line = '{"ts":"%06d","node":"a","n":%d}\n'
    file.write(line % (0, 0))
    file.flush()
    reading = Reading(tmp_path, ends(tmp_path))
    for n in range(1, 200):
        file.write(line % (n, n))
    file.close()

    (first, *_, last) = [found.rest["n"] for found in reading.more()]
    assert reading.missed == {"a"}
    assert first > 1
    assert last == 199


# --- the story of one thing ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traded(tmp_path_factory):
    """The logs of a whole system, one file a node, of a run on paper; and all that was said in it."""
    home = tmp_path_factory.mktemp("traded")
    found = house(
        market(3, Tier.BOOK),
        Tier.BOOK,
        chatter("perp", ETH, 3) | carrier("carrier", 3, (BTC,), (BTC_SPOT,)),
        seed=3,
    )
    found.sim.run()
    found.quiet()
    logs = {node.name: NodeLog(home, node.name, 1) for node in found.sim.topology.nodes}
    for said in found.sim.log:
        logs[said.source.partition("@")[0]].said([said])
    for log in logs.values():
        log.close()
    return home, found.sim.log


def about(said, kind, **wanted):
    return [
        one
        for one in said
        if isinstance(one.message, kind) and all(getattr(one.message, name) == value for name, value in wanted.items())
    ]


def test_the_story_of_an_order_goes_from_the_signal_to_the_books(traded):
    home, said = traded
    fill = about(said, OrderFilled, strategy="perp")[0].message
    told = story(home, fill.client_order_id)

    assert told.orders == (fill.client_order_id,)
    assert (told.lines[0].node, told.lines[0].event) == ("perp", "Signal")
    wanted = [("perp", "Signal"), ("risk", "SubmitOrder"), ("broker", "OrderSubmitted"), ("venue", "OrderFilled")]
    wanted += [("broker", "OrderFilled"), ("portfolio", "PositionChanged")]
    came = [(line.node, line.event) for line in told.lines]
    assert [came.index(one) for one in wanted] == sorted(came.index(one) for one in wanted), came
    assert {line.rest["said"].get("strategy", "perp") for line in told.lines} == {"perp"}


def test_the_venue_s_names_lead_to_the_order_as_ours_do(traded):
    home, said = traded
    fill = about(said, OrderFilled)[-1].message
    accepted = about(said, OrderAccepted)[-1].message

    assert fill.client_order_id in story(home, fill.trade_id).orders
    assert accepted.client_order_id in story(home, accepted.venue_order_id).orders


def test_the_story_is_the_same_from_wherever_it_is_begun(traded):
    home, said = traded
    order = about(said, OrderFilled, strategy="perp")[0].message.client_order_id
    whole = story(home, order)
    (trace,) = whole.traces
    (signal,) = (one for one in about(said, Signal) if one.trace == trace)

    assert story(home, trace).lines == whole.lines
    assert story(home, signal.id).lines == whole.lines


def test_the_story_of_a_leg_is_that_of_its_pair(traded):
    home, said = traded
    pair = about(said, PairFinished, outcome="done")[0].message.pair_id
    legs = {one.message.client_order_id for one in about(said, OrderFilled) if pair in one.message.client_order_id}
    assert len(legs) > 1

    for name in [pair, *legs]:
        told = story(home, name)
        assert legs <= set(told.orders)
        assert all(leg.rpartition("-")[0] == pair for leg in told.orders)
        events = [line.event for line in told.lines]
        assert events.index("Signal") < events.index("SubmitPair") < events.index("PairFinished")
        moved = {line.rest["said"]["instrument"] for line in told.lines if line.event == "PositionChanged"}
        assert moved == {leg.instrument for leg in lead_and_hedge(said, pair)}


def lead_and_hedge(said, pair):
    asked = about(said, SubmitPair, pair_id=pair)[0].message
    return asked.lead, asked.hedge


def test_no_story_has_a_line_of_another_order(traded):
    home, said = traded
    orders = {one.message.client_order_id for one in about(said, SubmitOrder, strategy="perp")}
    for order in sorted(orders)[:10]:
        named = {line.rest["said"].get("client_order_id", order) for line in story(home, order).lines}
        traces = story(home, order).traces
        siblings = {one.message.client_order_id for one in about(said, SubmitOrder) if one.trace in traces}
        assert named <= siblings | {order}


def test_what_a_request_set_going_begins_with_the_request(tmp_path, log_of, order):
    request = "5f0c2f6a9d0e4b1a8c3d7e6f5a4b3c2d"
    log_of("api").info("POST /engine/kill", trace=request, status=200)
    log_of("engine").said([Envelope("engine@1", 4, 1, request, "", KillSwitchTripped("a person", "", ""))])
    log_of("risk").said([Envelope("risk@1", 9, 1, request, "engine@1:4", order)])
    filled = PositionChanged("impulse", order.instrument, Decimal(0), Decimal(0), Decimal(0))
    log_of("venue").said(
        [Envelope("venue@1", 3, 1, "", "", OrderAccepted(order.client_order_id, "impulse", "x", "v-1"))]
    )
    log_of("portfolio").said([Envelope("portfolio@1", 7, 1, "venue@1:3", "venue@1:3", filled)])
    log_of("other").said([Envelope("other@1", 1, 1, "another", "another", filled)])

    assert [line.node for line in story(tmp_path, request).lines] == ["api", "engine", "risk", "venue", "portfolio"]
    assert story(tmp_path, "v-1").lines == story(tmp_path, request).lines


@pytest.mark.parametrize("seed", range(20))
def test_a_time_is_found_in_a_file_without_reading_all_of_it(seed):
    chance = random.Random(seed)
    times = sorted(chance.choices(range(100), k=chance.randrange(30)))
    lines = [json.dumps({"node": "a" * chance.randrange(200), "ts": f"{ts:03}"}, separators=(",", ":")) for ts in times]
    whole = "".join(f"{line}\n" for line in lines).encode()
    for wanted in range(101):
        assert whole[logs._begins(whole, f"{wanted:03}") :].count(b"\n") == sum(ts >= wanted for ts in times)


def test_of_what_nobody_named_there_is_no_story(traded):
    home, _ = traded
    assert story(home, "nobody-said-this").lines == ()
    assert story(home, "").lines == ()


def test_a_story_tells_nothing_before_what_set_it_going(tmp_path, log_of, order):
    """Who is told something may have written down what follows from it before its sender writes that it was said."""
    log_of("broker").said(
        [Envelope("broker@1", 1, 1, "t1", "risk@1:5", OrderAccepted(order.client_order_id, "i", "x", "v"))]
    )
    log_of("risk").said([Envelope("risk@1", 5, 1, "t1", "impulse@1:2", order)])
    log_of("impulse").said([Envelope("impulse@1", 2, 1, "t1", "t1", Signal("i", (), "", None, None, None, ""))])

    assert [line.node for line in story(tmp_path, "t1").lines] == ["impulse", "risk", "broker"]
