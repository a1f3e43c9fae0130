"""Strategies learn the past by REST, and join it to what the feed tells them."""

import threading
import time
from functools import partial

import numpy as np
import pytest
from msgspec.structs import asdict

from actors.exchange.drills import storm
from actors.gateways.bybit_endpoint import loopback
from actors.gateways.bybit_rest import UnansweredError
from actors.gateways.warm_up import History, WarmUp
from hean import codec
from hean.dispatcher import Dispatcher
from hean.market.basis import PairView
from hean.messages import Bar, Envelope, FundingRate, MarkPrice, PremiumIndex, Quote, Signal, Wake
from hean.settings import BacktestSettings
from hean.topology import Node, Topology
from hean.trading_system import build_strategies
from hean.units import DAY, HOUR, MINUTE, SECOND
from tests.exchange.client import PERP, SPOT, exchange

ALL = ((PERP, Bar), (SPOT, Bar), (PERP, PremiumIndex), (PERP, FundingRate), (PERP, MarkPrice))
NAMES = ("funding-harvester", "basis-arbitrage", "impulse")


@pytest.fixture(scope="module")
def served():
    with exchange(days=3) as running:
        yield running


@pytest.fixture
def now():
    """A moment at which nothing has closed just now."""
    late = time.time_ns() % MINUTE
    if late < 4 * SECOND:
        time.sleep((4 * SECOND - late) / SECOND)
    return time.time_ns()


def history(served, kept=None):
    return History(loopback(served.url), kept, asked_per_second=1_000)


def since(now, span, watches=ALL):
    return dict.fromkeys(watches, now - span)


def strategy(use):
    (built,) = build_strategies(BacktestSettings(strategies=[{"use": use}]))
    seen = {(name, kind) for name, kind in (*ALL, (PERP, Quote)) if name in built.instruments}
    node = Node(built.name, "strategy", frozenset(one for one in seen if one[1] in built.watches_kinds))
    dispatcher = Dispatcher(Topology((node,)), {built.name: built.component})
    return built, dispatcher, dispatcher.hosts[built.name]


def warm_up(served, use, **more):
    built, dispatcher, host = strategy(use)
    return WarmUp(history(served), dispatcher, host, built.looks_back, **more), built.component


def envelope(row, seq=1):
    return Envelope("feed@1", seq, row.ts_event, "", "", row)


def rows_of(tape):
    return [stream.message(row) for stream, row in map(tape.at, range(tape.size))]


def same(one, other):
    return codec.encoded(one.state) == codec.encoded(other.state)


# --- what is asked for ----------------------------------------------------------------------------


def test_the_past_is_whole_and_in_the_order_of_a_tape(served, now):
    tape = history(served).tape(since(now, 2 * DAY), now)
    for instrument, kind in ALL:
        stream = tape.stream(kind, instrument)
        step = 8 * HOUR if kind is FundingRate else MINUTE
        assert set(np.diff(stream.ts).tolist()) == {step}
        assert stream.ts[0] > now - 2 * DAY - MINUTE
        assert stream.ts[-1] == now // step * step
    assert [row.ts_event for row in rows_of(tape)] == sorted(row.ts_event for row in rows_of(tape))
    assert list(history(served).rows(since(now, DAY, ALL[:1]), now)) == rows_of(
        history(served).tape(since(now, DAY, ALL[:1]), now)
    )


def test_what_was_had_is_not_asked_for_again(served, now, tmp_path):
    before = history(served, tmp_path)
    tape = before.tape(since(now - HOUR, DAY), now - HOUR)
    assert before.asked > len(ALL)
    again = history(served, tmp_path)
    longer = again.tape(since(now - HOUR, DAY), now)
    assert again.asked <= len(ALL)
    assert rows_of(longer.until(tape.last_ts)) == rows_of(tape)
    assert rows_of(longer) == rows_of(history(served).tape(since(now - HOUR, DAY), now))


def test_a_longer_past_than_was_kept_is_asked_for_whole(served, now, tmp_path):
    history(served, tmp_path).tape(since(now, HOUR), now)
    longer = history(served, tmp_path).tape(since(now, DAY), now)
    assert rows_of(longer) == rows_of(history(served).tape(since(now, DAY), now))


def test_what_was_kept_and_cannot_be_read_is_had_anew(served, now, tmp_path):
    wanted = rows_of(history(served, tmp_path).tape(since(now, HOUR), now))
    for file in tmp_path.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    assert rows_of(history(served, tmp_path).tape(since(now, HOUR), now)) == wanted


def test_two_that_share_what_is_kept_take_turns(served, now, tmp_path):
    both = [history(served, tmp_path) for _ in range(2)]
    tapes = []
    threads = [threading.Thread(target=lambda one=one: tapes.append(one.tape(since(now, DAY), now))) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows_of(tapes[0]) == rows_of(tapes[1])
    assert min(one.asked for one in both) <= 1  # settlements, of which the next may be due any time


def test_a_venue_that_is_busy_is_asked_again_and_one_that_stays_so_is_an_error(served, now):
    with storm(served, code=10016, path="/v5/market/kline", next=1):
        assert history(served).tape(since(now, HOUR, ALL[:1]), now).size == 60
    with storm(served, code=10016, path="/v5/market/kline"), pytest.raises(UnansweredError):
        history(served).tape(since(now, HOUR, ALL[:1]), now, attempts=2)


# --- a strategy begins ----------------------------------------------------------------------------


@pytest.mark.parametrize("use", NAMES)
def test_a_strategy_is_left_as_a_backtest_leaves_it_before_its_start(served, now, use):
    joint, warmed = warm_up(served, use)
    told = joint.begin(now)
    built, _, host = strategy(use)
    since_then = {watch: now - built.looks_back(watch[1]) for watch in host.node.watches if watch in ALL}
    tape = history(served).tape(since_then, now)
    built.component.skip(tape, 0, tape.size)
    assert told.rows == tape.size > 1_000
    assert same(warmed, built.component)


def test_nothing_is_told_before_the_past_is_known_and_facts_always(served, now):
    joint, _ = warm_up(served, "impulse")
    bar = Bar(PERP, now, now - MINUTE, 1.0, 1.0, 1.0, 1.0, 1.0)
    quote = Quote(PERP, now, 1.0, 1.0, 2.0, 1.0)
    assert joint.join([envelope(bar), envelope(quote)]) == []
    fact = Envelope("engine", 1, now, "", "", Wake())
    assert joint.join([fact]) == [fact]
    joint.begin(now)
    assert joint.join([envelope(quote)]) == [envelope(quote)]


@pytest.mark.parametrize("use", NAMES)
def test_a_row_that_was_had_is_dropped_and_the_next_is_told(served, now, use):
    ended = now - 10 * MINUTE
    joint, _ = warm_up(served, use)
    joint.begin(ended)
    rows = [row for row in history(served).rows(since(now, HOUR), now) if (row.instrument, type(row)) in joint._known]
    told = [one.message for row in rows for one in joint.join([envelope(row)])]
    assert told == [row for row in rows if row.ts_event > ended]
    assert joint.join([envelope(row) for row in rows]) == []


@pytest.mark.parametrize("use", NAMES)
def test_what_the_feed_did_not_tell_is_folded_in_before_what_it_tells_next(served, now, use):
    notes = []
    joint, strategy_with_a_gap = warm_up(served, use, report=notes.append)
    joint.begin(now - HOUR)
    whole, strategy_without = warm_up(served, use)
    whole.begin(now)
    last = [
        row for row in history(served).rows(since(now, 5 * MINUTE), now) if (row.instrument, type(row)) in joint._known
    ]
    newest = max(row.ts_event for row in last)
    for row in last:
        if row.ts_event == newest:
            for one in joint.join([envelope(row)]):
                joint._dispatcher.warm(joint._host, one.message, now)
    assert len(notes) == 1
    assert "gap" in notes[0]
    assert same(strategy_with_a_gap, strategy_without) or _differs_by_a_wish(strategy_with_a_gap, strategy_without)


def _differs_by_a_wish(one, other):
    """A row that is told may be answered; what was asked for is the whole difference."""
    mine, theirs = asdict(one.state), asdict(other.state)
    return {name for name, value in mine.items() if value != theirs[name]} <= {"asked", "ts_asked", "asked_today"}


def test_a_gap_that_nobody_can_fill_is_reported_and_passed_over(served, now):
    notes = []
    joint, _ = warm_up(served, "impulse", report=notes.append)
    joint.begin(now - HOUR)
    (bar,) = history(served).rows({(PERP, Bar): now - MINUTE}, now)
    with storm(served, code=10016, path="/v5/market/kline"):
        assert joint.join([envelope(bar)]) == [envelope(bar)]
    assert "nobody said" in notes[0]


def test_what_closes_as_a_strategy_begins_is_waited_for(served):
    boundary = time.time_ns() // MINUTE * MINUTE
    joint, component = warm_up(served, "impulse")
    joint.begin(boundary)
    assert time.time_ns() >= boundary + 3 * SECOND
    assert component.state.bars.ts[-1] == boundary


# --- rows out of their order ----------------------------------------------------------------------


@pytest.mark.parametrize("use", NAMES)
def test_late_and_repeated_rows_change_nothing_and_raise_nothing(served, now, use):
    joint, component = warm_up(served, use)
    joint.begin(now)
    before = codec.encoded(component.state)
    for row in history(served).rows(since(now, 10 * MINUTE), now - 2 * MINUTE):
        if type(row) in joint_kinds(joint):
            assert list(component.handle(row, now)) == []
    assert codec.encoded(component.state) == before


def joint_kinds(joint):
    return {kind for _, kind in joint._known}


def test_a_spot_bar_that_comes_later_completes_the_reading():
    view = PairView(PERP, SPOT, perp_half_spread=0.0, spot_half_spread=0.0, quote_age=SECOND)
    _, _, host = strategy("basis-arbitrage")
    legs = host.component.state.legs
    bar = partial(Bar, open=1.0, high=1.0, low=1.0, close=1.0, volume=1.0)
    told = [
        view.saw_bar(legs, bar(PERP, MINUTE, ts_open=0)),
        view.saw_bar(legs, bar(SPOT, MINUTE, ts_open=0)),
        view.saw_bar(legs, bar(PERP, 2 * MINUTE, ts_open=MINUTE)),
        view.saw_bar(legs, bar(PERP, MINUTE, ts_open=0)),
        view.saw_bar(legs, bar(SPOT, MINUTE, ts_open=0)),
        view.saw_bar(legs, bar(SPOT, 2 * MINUTE, ts_open=MINUTE)),
    ]
    assert [reading.ts if reading else None for reading in told] == [None, MINUTE, None, None, None, 2 * MINUTE]


def test_warming_up_is_silent(served, now):
    said = []
    built, _, _ = strategy("impulse")
    node = Node(built.name, "strategy", frozenset({(PERP, Bar)}))
    dispatcher = Dispatcher(Topology((node,)), {built.name: built.component}, log=said.append)
    WarmUp(history(served), dispatcher, dispatcher.hosts[built.name], built.looks_back).begin(now)
    assert not [one for one in said if isinstance(one.message, Signal)]
