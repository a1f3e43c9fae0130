"""The pair is entered when the basis is far from the usual and worth its costs, and left as one."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hean.component import Observer, says, takes
from hean.market.carry import PairCosts
from hean.messages import FundingRate, Quote, Signal, Wake
from hean.strategies.basis_arbitrage import BasisArbitrage, BasisArbitrageConfig, BasisArbitrageState
from tests.data_dir import needs_data
from tests.unit.strategies.carry_story import (
    DAY,
    HOUR,
    MINUTE,
    PERP,
    SPOT,
    T0,
    bar,
    bars,
    holds,
    market,
    play,
    recorded_pair,
    tell,
    weights,
)

FREE = PairCosts(
    perp_maker_bp=0,
    perp_taker_bp=0,
    spot_taker_bp=0,
    perp_half_spread_bp=0,
    spot_half_spread_bp=0,
    impact_bp=0,
)
CONFIG = BasisArbitrageConfig(name="basis", perp=PERP, spot=SPOT, window_days=1 / 24, coverage=0.9, costs=FREE)
# Sixty bases of -1, 0, 1 bp in turn: median 0, median absolute deviation 1 bp, and nothing that persists.
USUAL = [
    message for minute in range(1, 60) for message in bars(T0 + minute * MINUTE, 100 * (1 + (minute % 3 - 1) * 1e-4))
]
NOW = T0 + 60 * MINUTE
BP = 1e-4
IN, OUT = (-1.0, 1.0), (0.0, 0.0)


def at(basis_bp, ts=NOW):
    return bars(ts, 100 * (1 + basis_bp * BP))


def warmed(config=CONFIG, messages=USUAL):
    strategy = BasisArbitrage(config)
    assert not tell(strategy, messages)
    return strategy


def entered(config=CONFIG, *, perp=100.5, spot=100.0, quantity=1):
    strategy = warmed(config)
    tell(strategy, [holds("basis", PERP, -quantity, perp), holds("basis", SPOT, quantity, spot)], now=NOW - MINUTE)
    return strategy


def test_enters_far_over_the_usual_with_both_legs():
    (signal,) = tell(warmed(), at(50))

    assert [(leg.instrument, leg.weight, leg.ts_seen) for leg in signal.legs] == [(PERP, -1, NOW), (SPOT, 1, NOW)]
    assert [leg.price for leg in signal.legs] == [100 * (1 + 50 * BP), 100]
    assert signal.bracket is None
    # 50 bp, less half a deviation of 1.4826 bp that is left on the table.
    assert signal.edge_bp == pytest.approx(50 - 0.5 * 1.4826, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "basis_bp", "wanted"),
    [
        ({"min_edge_bp": 0}, 3.80, [IN]),
        ({"min_edge_bp": 0}, 3.60, []),
        ({"min_edge_bp": 5}, 5.80, [IN]),
        ({"min_edge_bp": 5}, 5.70, []),
        ({"costs": PairCosts()}, 32.8, [IN]),
        ({"costs": PairCosts()}, 32.7, []),
        ({}, -50, []),
        ({"coverage": 1.0}, 50, [IN]),
        ({"window_days": 61 / 1440, "coverage": 1.0}, 50, []),
    ],
    ids=[
        "2.56 deviations",
        "2.43 deviations",
        "just over the edge",
        "just under the edge",
        "over costs: 25 bp of fees and impact, 2 x 0.5 bp of spread each way, 5 bp of edge, 0.74 bp left",
        "under costs",
        "cheap perpetual",
        "window just full",
        "window a minute short",
    ],
)
def test_asks_for_every_condition_of_an_entry(change, basis_bp, wanted):
    strategy = warmed(CONFIG.model_copy(update=change))

    assert weights(tell(strategy, at(basis_bp))) == wanted


def test_asks_that_the_basis_reverts_in_time():
    # A slow wave: each basis is much like the one before.
    slow = [m for i in range(1, 60) for m in bars(T0 + i * MINUTE, 100 * (1 + np.sin(i / 6) * BP))]

    assert weights(tell(warmed(messages=slow), at(3.9))) == []
    assert weights(tell(warmed(CONFIG.model_copy(update={"min_edge_bp": 0.1}), slow), at(3.9))) == [IN]
    assert not tell(warmed(CONFIG.model_copy(update={"min_edge_bp": 0.1, "max_half_life_h": 1 / 60}), slow), at(3.9))


def test_does_not_decide_on_closes_of_different_instants():
    strategy = warmed()

    assert not tell(strategy, [bar(PERP, NOW, 101), bar(SPOT, NOW + MINUTE, 100)])
    assert weights(tell(strategy, [bar(PERP, NOW + MINUTE, 101)])) == [IN]


def test_says_it_once_in_each_span_of_the_clock():
    strategy = warmed()
    said = tell(strategy, [m for i in range(20) for m in at(300 - 50 * (i % 2), NOW + i * MINUTE)])

    assert weights(said) == [IN, IN]
    assert [signal.legs[0].ts_seen for signal in said] == [NOW, NOW + 15 * MINUTE]


def test_what_quotes_show_counts_before_what_closes_do():
    crossed = [Quote(PERP, NOW, 100.0, 1, 101.0, 1), Quote(SPOT, NOW, 99.9, 1, 100.0, 1)]
    late = [Quote(quote.instrument, NOW - 6 * 10**9, *quote_sides(quote)) for quote in crossed]

    assert not tell(warmed(), [*crossed, *at(50)])  # the opening gets nothing: 100.0 against 100.0
    assert weights(tell(warmed(), [*late, *at(50)])) == [IN]


def quote_sides(quote):
    return quote.bid, quote.bid_size, quote.ask, quote.ask_size


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (at(0.7), "back to the usual"),
        (at(0.8), ""),
        (bars(NOW, 101.99, 100.50), ""),
        (bars(NOW, 102.01, 100.50), "has lost"),
    ],
    ids=["0.47 deviations", "0.54 deviations", "lost just under 1 %", "lost just over 1 %"],
)
def test_leaves_as_one(messages, reason):
    said = tell(entered(perp=100.4878, spot=100.0), messages)

    assert weights(said) == [OUT] * bool(reason)
    assert all(reason in signal.reason for signal in said)


@pytest.mark.parametrize(("hours", "leaves"), [(72, True), (71.99, False)])
def test_leaves_when_its_time_is_over(hours, leaves):
    config = CONFIG.model_copy(update={"max_hold_h": hours})
    strategy = entered(config)
    strategy.state.ts_entered = NOW - 72 * HOUR if leaves else NOW - 71 * HOUR

    assert bool(tell(strategy, at(50))) is leaves


@pytest.mark.parametrize(("rate", "leaves"), [(-10e-4, True), (-1e-4, False), (10e-4, False)])
def test_leaves_when_carry_eats_what_is_left(rate, leaves):
    """Nine settlements to come of -10 bp are more than the 30 bp the basis has left; of -1 bp they are less."""
    strategy = entered()
    tell(strategy, [FundingRate(PERP, T0 + hour * HOUR, rate) for hour in (-16, -8, 0)])

    assert weights(tell(strategy, at(30))) == [OUT] * leaves


@pytest.mark.parametrize(("basis_bp", "wanted"), [(95.7, []), (95.8, [IN])])
def test_does_not_enter_what_carry_would_eat(basis_bp, wanted):
    strategy = warmed()
    tell(strategy, [FundingRate(PERP, T0 + hour * HOUR, -10e-4) for hour in (-16, -8, 0)])

    assert weights(tell(strategy, at(basis_bp))) == wanted


@pytest.mark.parametrize(
    ("spot", "seconds", "says_out"),
    [(0.94, 5, True), (0.94, 4.9, False), (0.96, 60, False), (0, 5, True)],
    ids=["6 % for 5 s", "6 % for less", "4 % for long", "one leg alone"],
)
def test_closes_both_legs_when_they_differ_for_too_long(spot, seconds, says_out):
    strategy = warmed()
    tell(strategy, [holds("basis", PERP, -1, 100.5), holds("basis", SPOT, spot, 100)], now=NOW)
    now = NOW + int(seconds * 10**9)

    assert (strategy.wake_at() is not None and strategy.wake_at() <= now) is says_out
    assert weights(tell(strategy, [Wake()], now=now)) == [OUT] * says_out
    assert strategy.wake_at() is None or strategy.wake_at() > now


def test_legs_that_meet_again_are_left_alone():
    strategy = warmed()
    tell(strategy, [holds("basis", PERP, -1, 100.5)], now=NOW)
    tell(strategy, [holds("basis", SPOT, 1, 100)], now=NOW + 10**9)

    assert strategy.wake_at() is None
    assert not tell(strategy, [Wake()], now=NOW + HOUR)


def test_a_pair_is_two_instruments():
    with pytest.raises(ValidationError) as caught:
        BasisArbitrageConfig(name="basis", perp=PERP, spot=PERP)

    assert [error["loc"] for error in caught.value.errors()] == [("spot",)]


def test_every_field_says_what_it_is():
    assert all(field.description for field in BasisArbitrageConfig.model_fields.values())


def test_keeps_its_contract():
    assert says(BasisArbitrage) == {Signal}
    assert Wake in takes(BasisArbitrage)
    assert isinstance(BasisArbitrage(CONFIG), Observer)


LIVELY = BasisArbitrageConfig(
    name="basis",
    perp=PERP,
    spot=SPOT,
    window_days=3 / 24,
    coverage=0.8,
    enter_z=1.2,
    min_edge_bp=8,
    max_hold_h=0.4,
    max_loss=0.002,
    costs=FREE,
    ask_again_s=300,
)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), quotes=st.booleans(), funded=st.booleans(), fills=st.booleans())
def test_passing_over_quiet_spans_says_what_stepping_says(seed, quotes, funded, fills):
    tape = market(seed, 900, quotes=quotes, funding=-4e-4 if funded else None)

    stepped = play(BasisArbitrage(LIVELY), tape, stepping=True, fills=fills)
    skipped = play(BasisArbitrage(LIVELY), tape, stepping=False, fills=fills)

    assert skipped[:2] == stepped[:2]
    assert skipped[2] < stepped[2] / 2


def test_the_random_market_is_traded_in_and_out():
    said, _, _ = play(BasisArbitrage(LIVELY), market(1, 2000, funding=-4e-4), stepping=False)

    reasons = {signal.reason for _, signal, _ in said}
    assert len(said) > 10
    assert "the basis is back to the usual" in reasons
    assert "held for 0.4 h" in reasons
    assert any("has lost" in reason for reason in reasons)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(200, 899))
def test_what_comes_later_changes_nothing(seed, cut):
    tape = market(seed, 900, quotes=True)
    until = T0 + cut * MINUTE

    whole, _, _ = play(BasisArbitrage(LIVELY), tape, stepping=False)
    short, _, _ = play(BasisArbitrage(LIVELY), tape.until(until), stepping=False)

    assert [signal for _, signal, _ in short] == [s for _, s, _ in whole if s.legs[0].ts_seen <= until]


def told_from_the_start_and_from_later(seed, late):
    """What is said once the window, a day of funding and the running span of the clock are over, for either."""
    tape = market(seed, 2600, quotes=True, funding=-2e-4)
    begin = T0 + late * MINUTE
    same = begin + int(LIVELY.window_days * DAY) + DAY + 8 * HOUR
    for start in (0, tape.after(begin)):
        said, _, _ = play(BasisArbitrage(LIVELY), tape, stepping=False, fills=False, start=start)
        yield [signal for _, signal, _ in said if signal.legs[0].ts_seen >= same]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.integers(1, 200))
def test_where_the_warm_up_began_changes_nothing(seed, late):
    early, later = told_from_the_start_and_from_later(seed, late)

    assert early == later


def test_and_there_is_something_to_change():
    early, later = told_from_the_start_and_from_later(1, 100)

    assert early == later
    assert early


def test_a_warm_up_folded_at_once_leaves_what_was_told_and_no_word_of_its_own():
    tape = market(7, 900, quotes=True)
    folded, told = BasisArbitrage(LIVELY), BasisArbitrage(LIVELY)

    folded.skip(tape, 0, tape.size)
    said, _, _ = play(told, tape, stepping=True, fills=False)

    assert said
    told.state.asked, told.state.ts_asked = 0.0, 0
    assert folded.state == told.state


def test_its_state_is_one_value():
    strategy = BasisArbitrage(LIVELY)
    play(strategy, market(2, 600), stepping=False)

    encoded = msgspec.json.encode(strategy.state)
    assert msgspec.json.decode(encoded, type=BasisArbitrageState) == strategy.state


def test_a_tape_without_quotes_or_funding_is_said_to_be_one():
    notes = BasisArbitrage(CONFIG).notes(market(3, 10, funding=None))

    assert any("closes stand in" in note for note in notes)
    assert any("carry against" in note for note in notes)
    assert not any("no bars" in note for note in notes)


def test_gates_narrow():
    gates = BasisArbitrage(LIVELY.model_copy(update={"min_edge_bp": 40})).gates(market(4, 2000))

    counts = [count for _, count in gates]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[3] > 0


@needs_data
def test_on_a_real_pair_the_edge_never_covers_the_base_tier():
    tape = recorded_pair("bybit.linear.BTCUSDT.kline-5m", "bybit.spot.BTCUSDT.kline-5m", 5 * MINUTE)
    strategy = BasisArbitrage(BasisArbitrageConfig(name="basis", perp=PERP, spot=SPOT))

    said, _, _ = play(strategy, tape, stepping=False)

    assert not said
    assert dict(strategy.gates(tape))["2.5 deviations over the median"] > 500


@needs_data
def test_on_a_real_pair_passing_over_quiet_spans_says_what_stepping_says():
    tape = recorded_pair("bybit.linear.ETHUSDT.kline-5m", "bybit.spot.ETHUSDT.kline-5m", 5 * MINUTE)
    tape = tape.until(tape.first_ts + 15 * DAY)
    config = BasisArbitrageConfig(name="basis", perp=PERP, spot=SPOT, costs=FREE, min_edge_bp=1)

    skipped = play(BasisArbitrage(config), tape, stepping=False)

    assert len(skipped[0]) > 10
    assert skipped[:2] == play(BasisArbitrage(config), tape, stepping=True)[:2]


# --- what it says it waits for ------------------------------------------------------------------


def test_it_names_the_first_condition_that_fails_and_measures_them_all():
    strategy = warmed()
    tell(strategy, at(3))

    assert strategy.waits_for(NOW) == (
        "met: both legs closing a bar at one instant",
        "met: an entry not asked for in these 900 s already",
        "met: 0.04 days of bases that move, at least 0.04",
        "waits for: basis 2.02 deviations over its median, above 2.5",
        "then: 2.3 bp to gain after costs, above 5",
        "then: half-life of a deviation 0.0 h, under 24",
    )


def test_what_is_not_known_is_called_so():
    assert BasisArbitrage(CONFIG).waits_for(NOW) == (
        "waits for: both legs closing a bar at one instant",
        "then: an entry not asked for in these 900 s already",
        "then: 0.00 days of bases that move, at least 0.04",
        "then: basis unknown deviations over its median, above 2.5",
        "then: unknown bp to gain after costs, above 5",
        "then: half-life of a deviation inf h, under 24",
    )


def test_while_it_holds_it_says_when_it_would_leave():
    strategy = entered()
    tell(strategy, at(40))

    assert strategy.waits_for(NOW + HOUR) == (
        f"holds: -1 {PERP} and 1 {SPOT}",
        "leaves when: the legs differ for 0 s, at least 5",
        "or when: the pair has lost -0.10, more than 1.01",
        "or when: held for 1.0 h, at least 72",
        "or when: basis 26.98 deviations over its median, under 0.5",
        "or when: 39.3 bp left to gain, under 0",
    )


def test_asking_what_it_waits_for_changes_nothing():
    strategy = warmed()
    tell(strategy, at(50))
    before = msgspec.json.encode(strategy.state)
    strategy.waits_for(NOW + DAY)

    assert msgspec.json.encode(strategy.state) == before
