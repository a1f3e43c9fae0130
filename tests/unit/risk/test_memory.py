import itertools
import math
from decimal import Decimal
from random import Random
from statistics import NormalDist, stdev

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.risk.memory import DAY, FAR, HOUR, DecisionMemory, MemoryConfig, MemoryState, RoundTrip, Shadow, discoveries

ENFORCE = MemoryConfig(mode="enforce", enforce_after=0)
BAD = [-30.0, -10.0, -20.0, 5.0]


def told(outcomes, config=ENFORCE, context="trend/high/asia", now=0):
    memory = DecisionMemory(config)
    for outcome in outcomes:
        memory.record("impulse", context, outcome, now)
    return memory


def blocked(memory, now=1, context="trend/high/asia"):
    return memory.blocked("impulse", context, now)


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        (BAD * 5, True),
        ((BAD * 5)[:19], False),
        ([-x for x in BAD * 5], False),
        ([-30.0, 29.0] * 20, False),
        ([-5.0] * 20, True),
        ([0.0] * 20, False),
    ],
    ids=["loses", "too few", "gains", "undecided", "always the same loss", "nothing"],
)
def test_a_context_is_blocked_when_it_surely_loses(outcomes, wanted):
    assert blocked(told(outcomes)) is wanted


def test_streaks_of_losses_do_not_block_a_strategy_that_wins_more_often_than_not():
    chance = Random(7)
    streaks = blocks = 0
    for _ in range(400):
        outcomes = [20.0 if chance.random() < 0.55 else -20.0 for _ in range(30)]
        streaks += any(outcomes[n : n + 3] == [-20.0] * 3 for n in range(28))
        blocks += blocked(told(outcomes))

    assert streaks / 400 > 0.78
    assert blocks / 400 < 0.05


def test_three_losses_in_a_row_block_nothing():
    assert not blocked(told([20.0, -20.0, 20.0] * 9 + [-20.0] * 3))


def test_the_mean_is_shrunk_towards_the_strategy_and_a_block_waits_for_it():
    memory = DecisionMemory(ENFORCE)
    for _ in range(40):
        memory.record("impulse", "calm", 40.0, 0)
        memory.record("impulse", "calm", 20.0, 0)
    for outcome in (BAD * 5)[:20]:
        memory.record("impulse", "trend/high/asia", outcome, 0)

    cell = memory.state.cells["impulse|trend/high/asia"]
    deviation = stdev([40.0, 20.0] * 40 + BAD * 5)
    # Twenty trades of -13.75, and 20 * 80 / (20 + 80) = 16 of the other cell's mean of 30: the sum is above 0.
    assert cell.mean == -13.75
    assert memory.probability_of_loss(cell) == pytest.approx(
        NormalDist().cdf(-(20 * -13.75 + 16 * 30) / 36 * math.sqrt(36) / deviation), rel=1e-9
    )
    assert not blocked(memory)


def test_a_block_ends_after_a_week():
    memory = told(BAD * 5, now=3)

    assert blocked(memory, 3 + 7 * DAY - 1)
    assert not blocked(memory, 3 + 7 * DAY)


def test_a_block_ends_when_what_was_imagined_meanwhile_gained():
    memory = told(BAD * 5)
    for n in range(200):
        memory.record("impulse", "trend/high/asia", 30.0, n, shadow=True)
        if not blocked(memory, n):
            break

    cell = memory.state.cells["impulse|trend/high/asia"]
    assert 1 - memory.probability_of_loss(cell) > 0.6
    assert cell.shadows == cell.count - 20


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (MemoryConfig(), False),
        (MemoryConfig(mode="off"), False),
        (MemoryConfig(mode="enforce"), False),
        (MemoryConfig(mode="enforce", enforce_after=20), True),
    ],
    ids=["observes by default", "off", "waits for 200", "enforces"],
)
def test_it_refuses_only_when_asked_to_and_when_it_knows_enough(config, wanted):
    memory = told(BAD * 5, config)

    assert blocked(memory) is wanted
    assert bool(memory.state.cells) is (config.mode != "off")


def test_signals_without_a_context_are_not_judged():
    assert not told(BAD * 5, context="").state.cells


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.01, 0.5))
def test_discoveries_are_the_largest_set_that_keeps_the_rate(chances, rate):
    """Brute force: of all sets closed downwards, the largest whose worst member is within rate * size / all."""
    found = discoveries(chances, rate)

    best = 0
    for size in range(1, len(chances) + 1):
        for chosen in itertools.combinations(sorted(chances), size):
            if max(chosen) <= rate * size / len(chances):
                best = max(best, size)
    assert sum(found) >= best
    assert all(p <= rate * sum(found) / len(chances) for p, kept in zip(chances, found, strict=True) if kept)


def test_the_example_of_benjamini_and_hochberg():
    """Their table of fifteen tests: four survive at 5 %, where Bonferroni keeps three."""
    chances = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]

    assert sum(discoveries(chances, 0.05)) == 4


@pytest.mark.parametrize(("crowd", "wanted"), [(0, True), (26, False)])
def test_one_bad_cell_among_many_needs_more_evidence(crowd, wanted):
    memory = DecisionMemory(ENFORCE)
    for cell in range(crowd):
        for outcome in [20.0, -20.0] * 12:
            memory.record("other", f"{cell}", outcome, 0)
    for outcome in [12.0, -28.0] * 12:
        memory.record("impulse", "alone", outcome, 0)

    assert memory.blocked("impulse", "alone", 1) is wanted


def fills(*trades):
    trip = RoundTrip("c")
    closed = [trip.fold(Decimal(quantity), price, fee) for quantity, price, fee in trades]
    return trip, [outcome for outcome in closed if outcome is not None]


def test_a_round_trip_is_net_of_fees_over_what_was_entered():
    trip, _ = fills(("1", 100.0, 0.05), ("1", 102.0, 0.05), ("-2", 103.0, 0.1))

    assert trip.outcome_bp() == pytest.approx((206 - 202 - 0.2) / 202 * 1e4)


def test_a_flip_closes_one_trade_and_begins_another():
    trip, closed = fills(("1", 100.0, 0.0), ("-3", 110.0, 0.3), ("2", 100.0, 0.0))

    assert closed == [pytest.approx((10 - 0.1) / 100 * 1e4)]
    assert trip.outcome_bp() == pytest.approx((20 - 0.2) / 220 * 1e4)


@pytest.mark.parametrize(
    ("price", "weight", "hours", "outcome"),
    [
        (100.5, 1.0, 1, None),
        (98.0, 1.0, 1, -211),
        (103.0, 1.0, 1, 289),
        (101.0, 0.0, 1, 89),
        (101.0, -1.0, 1, 89),
        (101.0, 1.0, 24, 89),
    ],
    ids=["goes on", "stop", "target", "left", "turned", "old"],
)
def test_an_imagined_trade_ends_as_a_real_one_would(price, weight, hours, outcome):
    memory = DecisionMemory(ENFORCE)
    memory.imagine("impulse", "BTC", Shadow("c", 1, 100.0, 98.5, 102.5, 0))

    memory.follow("impulse", "BTC", price, weight, hours * HOUR)

    totals = [round(cell.total) for cell in memory.state.cells.values()]
    assert totals == ([] if outcome is None else [outcome])


def test_a_short_is_imagined_the_other_way_round():
    memory = DecisionMemory(ENFORCE)
    memory.imagine("impulse", "BTC", Shadow("c", -1, 100.0, -101.0, FAR, 0))

    memory.follow("impulse", "BTC", 101.0, -1.0, HOUR)

    assert memory.state.cells["impulse|c"].total == pytest.approx(-111)


def test_what_it_remembers_survives_being_written_down():
    memory = told(BAD * 5)
    memory.imagine("impulse", "BTC", Shadow("c", -1, 100.0, -101.0, FAR, 0))
    restored = DecisionMemory(ENFORCE)
    restored.state = msgspec.json.decode(msgspec.json.encode(memory.state), type=MemoryState)

    assert restored.state == memory.state
    assert blocked(restored)
