from decimal import Decimal

import pytest

from hean.processes.environment import (
    Finding,
    Freshness,
    Reader,
    environment,
    read_depth,
    read_fees,
    read_funding,
    read_market,
)
from hean.units import SECOND

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"


def found(value, as_of=0, ttl_s=60, reason="", name="fee"):
    return Finding(name, value, "Bybit v5", as_of * SECOND, ttl_s, reason)


@pytest.mark.parametrize(
    ("findings", "now_s", "value", "freshness", "reason"),
    [
        ([found("1")], 60, "1", Freshness.CURRENT, ""),
        ([found("1")], 61, "1", Freshness.STALE, ""),
        ([found("1"), found("2", 10)], 20, "2", Freshness.CURRENT, ""),
        ([found("2", 10), found("1")], 20, "2", Freshness.CURRENT, ""),
        ([found(None, reason="no answer")], 1, None, Freshness.ABSENT, "no answer"),
        ([found("1"), found(None, 30, reason="no answer")], 40, "1", Freshness.CURRENT, "no answer"),
        ([found("1"), found(None, 70, reason="no answer")], 80, "1", Freshness.STALE, "no answer"),
        ([found(None, 0, reason="no answer"), found("1", 10)], 20, "1", Freshness.CURRENT, ""),
    ],
)
def test_a_fact_is_current_while_it_holds_and_never_afterwards(findings, now_s, value, freshness, reason):
    seen = environment(findings, now_s * SECOND)
    fact = seen.facts["fee"]
    assert (fact.value, fact.freshness, fact.reason) == (value, freshness, reason)
    assert seen.current("fee") == (value if freshness is Freshness.CURRENT else None)


def test_what_was_never_asked_is_not_known():
    assert environment([], 0).current("fee") is None


def test_a_ticker_is_read_as_the_venue_writes_it():
    reader = Reader("market", "Bybit v5 market/tickers", 7)
    ticker = {"bid1Price": "99.9", "ask1Price": "100.1", "bid1Size": "3", "ask1Size": "", "markPrice": "100.05"}
    read_market(reader, PERP, ticker)
    told = {one.name.removeprefix(f"{PERP} "): (one.value, one.reason) for one in reader.found}
    assert told == {
        "bid": ("99.9", ""),
        "ask": ("100.1", ""),
        "spread bp": ("20.0000", ""),
        "bid size": ("3", ""),
        "ask size": (None, "the answer does not say"),
        "mark": ("100.05", ""),
    }
    assert {(one.source, one.as_of, one.ttl_s) for one in reader.found} == {("Bybit v5 market/tickers", 7, 60)}


def test_a_book_without_one_side_has_no_spread_and_no_depth():
    reader = Reader("market", "x", 0)
    read_market(reader, SPOT, {"bid1Price": "99.9", "ask1Price": ""})
    read_depth(reader, SPOT, {"b": [["99.9", "1"]], "a": []})
    unknown = {one.name.removeprefix(f"{SPOT} ") for one in reader.found if one.value is None}
    assert {"ask", "spread bp", "depth of bids within 10 bp", "depth of asks within 10 bp"} <= unknown


def test_depth_counts_what_is_within_ten_basis_points_of_the_middle():
    reader = Reader("market", "x", 0)
    read_depth(reader, SPOT, {"b": [["99.95", "2"], ["99.8", "50"]], "a": [["100.05", "1"], ["100.1", "4"]]})
    assert [one.value for one in reader.found] == ["199.90", "500.45"]


def test_funding_and_fees_of_nought_are_known():
    reader = Reader("funding", "x", 0)
    read_funding(reader, PERP, {"fundingRate": "0", "nextFundingTime": "1700000000000"})
    read_fees(reader, PERP, {"makerFeeRate": "0", "takerFeeRate": "0.00055"})
    assert [one.value for one in reader.found] == ["0", "1700000000000", "0", "0.00055"]
    assert all(one.value is None or Decimal(one.value) >= 0 for one in reader.found)
