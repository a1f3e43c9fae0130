"""The venue that is told only what may concern it says what the venue that is told everything says, and ends as it does."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hean.backtest.player import compare
from tests.unit.execution.market import ETH, MINUTE, PERP, SPOT, play, random_plan, random_tape

MARKETS = {
    "bars": {PERP: "bars"},
    "trades": {PERP: "trades"},
    "quotes": {PERP: "quotes"},
    "depth": {PERP: "depth"},
    "a pair on bars": {PERP: "bars", SPOT: "bars"},
    "a pair on quotes and depth": {PERP: "quotes", SPOT: "depth"},
    "all sorts": {PERP: "trades", SPOT: "bars", ETH: "depth"},
}


@pytest.mark.parametrize("markets", MARKETS.values(), ids=MARKETS)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    orders=st.integers(1, 25),
    marks=st.booleans(),
    latency=st.sampled_from([0.0, 80.0, 5_000.0]),
    usdt=st.sampled_from(["20", "100", "1000", "100000"]),
    coin=st.sampled_from(["0", "7"]),
    rows=st.sampled_from([30, 200]),
    warm=st.sampled_from([0, 11]),
)
def test_skipping_and_stepping_agree(markets, seed, orders, marks, latency, usdt, coin, rows, warm):
    span = rows * MINUTE
    tape, tiers = random_tape(seed, markets, rows, span, marks=marks)
    plan = random_plan(seed, list(markets), span, orders)
    config = {"latency_ms": latency, "balances": {"USDT": usdt, "BTC": coin}, "leverage": 50, "borrow_rate_hourly": "0.001"}  # fmt: skip

    skipped, venue, player = play(tape, tiers, plan, stepping=False, warm=warm, **config)
    stepped, reference, stepper = play(tape, tiers, plan, stepping=True, warm=warm, **config)

    assert compare(skipped, stepped) == ""
    assert msgspec.json.encode(venue.state) == msgspec.json.encode(reference.state)
    assert player.deliveries <= stepper.deliveries


@pytest.mark.parametrize("kind", ["bars", "trades", "quotes", "depth"])
def test_an_idle_venue_is_told_nothing(kind):
    tape, tiers = random_tape(1, {PERP: kind}, 500, 500 * MINUTE)

    log, _, player = play(tape, tiers, [], stepping=False)

    assert log == []
    assert player.deliveries == 0
