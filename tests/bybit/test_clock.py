"""The venue's clock against ours."""

import time

from actors.gateways.bybit_endpoint import Keys, Pings, loopback
from actors.gateways.bybit_feed import BybitFeed, FeedConfig
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.gateways.bybit_streams import Pace
from hean.messages import ErrorReported, Quote
from tests.bybit.history_server import HistoryServer

AHEAD_S = 90


def ahead():
    now = int((time.time() + AHEAD_S) * 1_000)
    return HistoryServer(now_ms=now, first_ms=now)


def test_the_offset_is_measured_half_way_between_question_and_answer():
    with ahead() as server:
        rest = BybitRest(loopback(server.url), None, instruments={}, backoff=Backoff())
        offset = rest.clock_offset()
        rest.close()
    assert abs(offset.offset / 1e9 - AHEAD_S) < 1  # its clock stands still
    assert 0 < offset.within < 1e9


def test_a_clock_that_is_off_by_more_than_a_second_is_reported():
    said = []
    with ahead() as server:
        feed = BybitFeed(
            loopback(server.url),
            [("BTCUSDT-LINEAR.BYBIT", Quote)],
            said.extend,
            config=FeedConfig(flush_ms=0),
            pace=Pace(first_s=5),
            pings=Pings(),
        )
        feed.start()
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        feed.stop()
    (skew,) = [one for one in said if isinstance(one, ErrorReported) and one.kind == "clock skew"]
    assert skew.detail.startswith(("the venue's clock is +89", "the venue's clock is +90"))


def test_keys_say_nothing_of_themselves():
    keys = Keys("abcdef", "ghijkl")
    assert "abcdef" not in f"{keys!r} {keys}"
    assert keys.hide("error sign! origin_string[17abcdef5000]") == "error sign! origin_string[17…5000]"
