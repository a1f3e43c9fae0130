"""The venue's time, whatever becomes of the machine's: nothing stands still, and nobody is held up."""

import time

import pytest

from actors.exchange.clock import Clock
from hean.units import MINUTE, SECOND
from tests.exchange.conftest import ANN, Venue


class Machine:
    """A machine whose clock can be put; `steady` goes on whatever happens to it."""

    def __init__(self):
        self.wall, self.steady = 1_000 * SECOND, 5 * SECOND
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def goes_on(self, ns):
        self.wall += ns
        self.steady += ns
        return self.clock() - 1_000 * SECOND


def test_it_is_the_machines_time():
    machine = Machine()

    assert [machine.goes_on(SECOND) for _ in range(3)] == [SECOND, 2 * SECOND, 3 * SECOND]


def test_put_back_it_goes_on_at_half_its_pace_until_the_machine_has_caught_up():
    machine = Machine()
    machine.goes_on(10 * SECOND)

    machine.wall -= 4 * SECOND

    # The machine says 8, 10, 12, 14, 16, 18.
    shown = [machine.goes_on(2 * SECOND) // SECOND for _ in range(6)]
    assert shown == [11, 12, 13, 14, 16, 18]


def test_asked_all_the_time_it_goes_on_all_the_same():
    machine = Machine()
    machine.wall -= MINUTE

    for _ in range(1_000):
        machine.goes_on(1_000_000)

    assert machine.clock() == 1_000 * SECOND + SECOND // 2


def test_put_forward_it_goes_along():
    machine = Machine()

    machine.wall += MINUTE

    assert machine.goes_on(SECOND) == MINUTE + SECOND


@pytest.fixture
def venue():
    """An exchange on a machine whose clock is off by `venue.off`, nanoseconds."""
    with Venue() as venue:
        venue.off = 0
        venue.do(lambda server: setattr(server, "clock", Clock(lambda: time.time_ns() + venue.off)))
        yield venue


def told(venue):
    """The time of the venue, nanoseconds."""
    return int(venue.get("/v5/market/time", None)["result"]["timeNano"])


def test_clients_are_heard_while_the_market_catches_up_with_what_the_machine_slept_through(venue):
    before = told(venue)

    venue.off = 20 * MINUTE  # it slept

    heard, deadline = [told(venue)], time.monotonic() + 60
    while heard[-1] < before + 20 * MINUTE:
        assert time.monotonic() < deadline, heard
        heard.append(told(venue))
    # In one piece it would have answered before it and after it.
    assert len({at // (10 * SECOND) for at in heard}) >= 5
    assert heard == sorted(heard)


def test_what_happens_meanwhile_is_of_the_markets_time_and_requests_are_checked_by_the_clocks(venue):
    venue.off = 5 * MINUTE

    sent_ms = (time.time_ns() + 5 * MINUTE) // 1_000_000
    body = b'{"category":"linear","symbol":"BTCUSDT","side":"Buy","orderType":"Limit","qty":"0.01","price":"59500"}'
    answer = venue.raw_post("/v5/order/create", body, at_ms=sent_ms)

    assert answer["retCode"] == 0
    (created,) = venue.do(lambda server: [one.ts_created for one in server.exchange.records[ANN.uid].orders.values()])
    assert created < sent_ms * 1_000_000 - MINUTE


def test_a_clock_that_is_put_back_does_not_stop_the_market(venue):
    venue.off = -MINUTE
    before = venue.do(lambda server: server.bybit.ts)

    deadline = time.monotonic() + 20
    while venue.do(lambda server: server.bybit.ts) < before + SECOND // 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
