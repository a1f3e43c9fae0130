"""The carry is entered on a week of rich funding, held through small negatives, and left when it no longer pays."""

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hean.component import Observer, says, takes
from hean.messages import FundingRate, PairFinished, PremiumIndex, Quote, Signal
from hean.strategies.funding_harvester import FundingHarvester, FundingHarvesterConfig, FundingHarvesterState
from hean.tape import Stream, Tape
from tests.data_dir import data_dir, needs_data
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

# Separate wallets, so that every way of leaving can be told.
CONFIG = FundingHarvesterConfig(name="carry", perp=PERP, spot=SPOT, spot_collateral=0)
IN, OUT = (-1.0, 1.0), (0.0, 0.0)
BP = 1e-4
NOW = T0 + HOUR


def funding(rates_bp, *, hours=8, last=T0):
    """Settlements of these rates, the last at `last`, after one that starts the clock."""
    step = hours * HOUR
    stamps = range(last - step * len(rates_bp), last + 1, step)
    return [FundingRate(PERP, ts, rate * BP) for ts, rate in zip(stamps, [0, *rates_bp], strict=True)]


def hours_of_basis(count=30, basis_bp=5.0, until=NOW):
    return [m for i in range(count, 0, -1) for m in bars(until - i * HOUR, 100 * (1 + basis_bp * BP))]


def warmed(rates_bp=(3,) * 30, config=CONFIG, **kwargs):
    """A strategy that is just short of deciding at NOW."""
    strategy = FundingHarvester(config)
    tell(strategy, funding(rates_bp, **kwargs))
    strategy.state.basis_ts.clear()
    for message in hours_of_basis():
        list(strategy.handle(message, NOW - 9 * DAY))
    strategy.state.asked = 0.0
    return strategy


def entered(strategy, *, perp=100.05, spot=100.0):
    tell(strategy, [holds("carry", PERP, -1, perp), holds("carry", SPOT, 1, spot)], now=NOW - MINUTE)
    return strategy


def here(basis_bp=5.0, ts=NOW):
    return bars(ts, 100 * (1 + basis_bp * BP))


def test_enters_with_both_legs_and_no_stop():
    (signal,) = tell(warmed(), here())

    assert [(leg.instrument, leg.weight, leg.price, leg.ts_seen) for leg in signal.legs] == [
        (PERP, -1, 100 * (1 + 5 * BP), NOW),
        (SPOT, 1, 100, NOW),
    ]
    assert signal.bracket is None
    assert "3.00 bp per 8 h" in signal.reason


def test_the_edge_by_hand():
    """A month at 1 bp, then a week at 3 bp.

    Mean of 21 is 3 bp, of all 111 it is (90 + 63) / 111 = 1.3784 bp; the forecast 2.1892 bp, 42 times in 14 days
    91.9459 bp. Costs: 2 x (2 maker + 10 spot + 0.5 spread + 0.5 impact) = 26 bp.
    """
    (signal,) = tell(warmed([1] * 90 + [3] * 21), here())

    assert signal.edge_bp == pytest.approx(91.945946 - 26, abs=1e-5)


@pytest.mark.parametrize(
    ("rates_bp", "wanted"),
    [
        ([2.01] * 21, [IN]),
        ([1.99] * 21, []),
        ([3] * 20, []),
        ([-1.30] * 519 + [3] * 21, [IN]),
        ([-1.32] * 519 + [3] * 21, []),
        ([9] * 300 + [1.9] * 21, []),
    ],
    ids=[
        "just over 2 bp",
        "just under 2 bp",
        "a settlement short of 21",
        "forecast of 1.5 times the costs",
        "forecast of less",
        "rich only before the last week",
    ],
)
def test_enters_on_a_week_of_rich_funding_that_pays_its_costs(rates_bp, wanted):
    assert weights(tell(warmed(rates_bp), here())) == wanted


def test_rates_are_compared_per_eight_hours():
    """1.01 bp every four hours are 2.02 bp per eight, and twenty-one of them are but half a week."""
    assert weights(tell(warmed([1.01] * 42, hours=4), here())) == [IN]
    assert not tell(warmed([0.99] * 42, hours=4), here())
    assert not tell(warmed([1.01] * 21, hours=4), here())
    assert not tell(warmed([1.01] * 21, hours=8), here())


def test_an_interval_that_changes_is_weighed_by_its_time():
    strategy = warmed([3] * 90)
    tell(strategy, [FundingRate(PERP, T0 + 4 * HOUR * i, 1.5 * BP) for i in range(1, 6)])

    assert strategy.state.funding.interval == 4 * HOUR
    assert strategy.state.funding.mean(7 * DAY) == pytest.approx(3 * BP)


@pytest.mark.parametrize(
    ("before", "wanted"),
    [(61 * 10**9, [IN]), (60 * 10**9, []), (10**9, []), (0, [])],
    ids=["61 s", "60 s", "1 s", "at it"],
)
def test_does_not_enter_in_the_last_minute_before_a_settlement(before, wanted):
    assert weights(tell(warmed(), here(ts=T0 + 8 * HOUR - before))) == wanted


def test_enters_at_a_settlement_once_that_is_told():
    strategy = warmed()
    at = T0 + 8 * HOUR

    assert weights(tell(strategy, [FundingRate(PERP, at, 3 * BP), *here(ts=at)])) == [IN]


def test_does_not_enter_on_funding_long_past():
    assert weights(tell(warmed(), here(ts=T0 + 15 * HOUR))) == [IN]
    assert not tell(warmed(), here(ts=T0 + 17 * HOUR))


@pytest.mark.parametrize(("basis_bp", "wanted"), [(3.5, [IN]), (2.5, [])])
def test_enters_on_a_basis_that_is_not_under_its_20th_percentile(basis_bp, wanted):
    strategy = warmed()
    state = strategy.state
    # With the one judged there are 31, and a fifth of the other thirty are six: under 2 bp there are five.
    state.basis = [1 * BP] * 5 + [2 * BP] * 5 + [3 * BP] * 20

    assert weights(tell(strategy, here(basis_bp))) == wanted


def test_does_not_enter_before_the_basis_is_known_for_a_day():
    strategy = FundingHarvester(CONFIG)
    tell(strategy, funding([3] * 30))

    said = tell(strategy, hours_of_basis(30))

    assert said[0].legs[0].ts_seen == NOW - 7 * HOUR


def test_does_not_decide_on_closes_of_different_instants():
    strategy = warmed()

    assert not tell(strategy, [bar(PERP, NOW, 100.05), bar(SPOT, NOW + MINUTE, 100)])
    assert weights(tell(strategy, [bar(PERP, NOW + MINUTE, 100.05)])) == [IN]


def test_what_quotes_show_counts_before_what_closes_do():
    wide = [Quote(PERP, NOW, 99.9, 1, 100.2, 1), Quote(SPOT, NOW, 99.9, 1, 100.1, 1)]

    assert not tell(warmed(), [*wide, *here()])


@pytest.mark.parametrize(
    ("premium", "wanted"),
    [(-5.1 * BP, []), (-4.9 * BP, [IN]), (None, [IN])],
    ids=["heading for -0.1 bp", "the clamp holds it at 0.1 bp", "not heard"],
)
def test_does_not_enter_against_the_nowcast(premium, wanted):
    strategy = warmed()
    if premium is not None:
        # The last hour before, and the first of the interval.
        tell(strategy, [PremiumIndex(PERP, T0 + i * MINUTE, premium) for i in range(-59, 61)])
        running = strategy.running_nowcast(NOW)
        assert running is not None
        assert running.low == pytest.approx(running.rate) == running.high
        assert running.known == pytest.approx(1 / 64, rel=0.02)

    assert weights(tell(strategy, here())) == wanted


def test_says_it_once_an_hour():
    said = tell(warmed(), [m for i in range(130) for m in here(ts=NOW + i * MINUTE)])

    assert [signal.legs[0].ts_seen for signal in said] == [NOW, NOW + HOUR, NOW + 2 * HOUR]


def test_a_sign_flip_is_no_reason_to_leave():
    strategy = entered(warmed())

    assert not tell(strategy, [FundingRate(PERP, T0 + 8 * HOUR, -20 * BP), *here(ts=T0 + 8 * HOUR)])


def test_is_not_in_and_out_around_settlements():
    """Three weeks of rich funding, one settlement in three negative: one entry, no exit."""
    strategy = warmed()
    said = []
    for settlement in range(63):
        at = T0 + 8 * (settlement + 1) * HOUR
        rate = -1 * BP if settlement % 3 == 0 else 6 * BP
        for message in [*here(ts=at - MINUTE), FundingRate(PERP, at, rate), *here(ts=at), *here(ts=at + MINUTE)]:
            for signal in strategy.handle(message, message.ts_event):
                said.append(signal)
                entered(strategy)

    assert weights(said) == [IN]


@pytest.mark.parametrize(
    ("rates_bp", "reason"),
    [
        ([3] * 90 + [0.51] * 21, ""),
        ([3] * 90 + [0.49] * 21, "0.49 bp per 8 h"),
        ([-2.4] * 519 + [0.51] * 21, "would cost more than leaving"),
        ([-1.5] * 519 + [0.51] * 21, ""),
        ([3] * 5, ""),
    ],
    ids=[
        "just over 0.5 bp",
        "just under",
        "a week that costs more than leaving",
        "one that costs less",
        "too little known",
    ],
)
def test_leaves_when_funding_no_longer_pays(rates_bp, reason):
    said = tell(entered(warmed(rates_bp)), here())

    assert weights(said) == [OUT] * bool(reason)
    assert all(reason in signal.reason for signal in said)


@pytest.mark.parametrize(
    ("leverage", "price", "wanted"),
    [(2, 119.35, []), (2, 119.45, [OUT]), (1, 159.1, []), (1, 159.3, [OUT]), (3, 106.05, []), (3, 106.2, [OUT])],
)
def test_leaves_when_liquidation_is_near(leverage, price, wanted):
    """Entered at 100, the short of leverage 2 is liquidated at 150 / 1.005 = 149.25: a quarter over 119.40."""
    strategy = entered(warmed(config=CONFIG.model_copy(update={"leverage": leverage})), perp=100.0)

    assert weights(tell(strategy, bars(NOW, price, price))) == wanted


@pytest.mark.parametrize(("entry", "wanted"), [(101.35, [OUT]), (101.25, [])])
def test_leaves_when_the_basis_has_given_all_there_is_to_earn(entry, wanted):
    """Expected of 14 days at 3 bp: 126 bp. Closing costs 1 bp of half spreads and now stands at 5 bp + 1 bp."""
    strategy = entered(warmed(), perp=entry)

    assert weights(tell(strategy, here())) == wanted


def test_asks_to_leave_every_five_minutes_until_it_is_out():
    strategy = entered(warmed([3] * 90 + [0.1] * 21))

    said = tell(strategy, [m for i in range(11) for m in here(ts=NOW + i * MINUTE)])
    tell(strategy, [holds("carry", PERP, 0, 0), holds("carry", SPOT, 0, 0)])

    assert [signal.legs[0].ts_seen for signal in said] == [NOW, NOW + 5 * MINUTE, NOW + 10 * MINUTE]
    assert not tell(strategy, here(ts=NOW + 20 * MINUTE))


@pytest.mark.parametrize(("outcome", "wanted"), [("broken", [OUT]), ("done", []), ("unwound", [])])
def test_closes_what_a_broken_pair_left(outcome, wanted):
    strategy = entered(warmed())
    tell(strategy, [PairFinished("p", "carry", outcome, "")])

    assert weights(tell(strategy, here())) == wanted


def test_what_was_broken_before_does_not_end_the_next_pair():
    strategy = warmed()
    tell(strategy, [PairFinished("p", "carry", "broken", "")])

    assert weights(tell(strategy, here())) == [IN]
    assert not tell(entered(strategy), here(ts=NOW + MINUTE))


@pytest.mark.parametrize("field", ["perp", "spot"])
def test_both_legs_on_one_instrument_is_no_carry(field):
    other = {"perp": SPOT, "spot": PERP}[field]

    with pytest.raises(ValidationError) as caught:
        FundingHarvesterConfig(**{"name": "carry", "perp": PERP, "spot": SPOT, field: other})

    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


def test_every_field_says_what_it_is():
    assert all(field.description for field in FundingHarvesterConfig.model_fields.values())


def test_keeps_its_contract():
    assert says(FundingHarvester) == {Signal}
    assert {FundingRate, PremiumIndex, PairFinished} <= takes(FundingHarvester)
    assert isinstance(FundingHarvester(CONFIG), Observer)
    assert FundingHarvester(CONFIG).wake_at() is None


LIVELY = FundingHarvesterConfig(
    name="carry",
    perp=PERP,
    spot=SPOT,
    spot_collateral=0,
    enter_bp=0.6,
    exit_bp=0.3,
    short_days=1,
    long_days=3,
    min_settlements=3,
    margin_of_costs=0.0,
    basis_days=1,
    basis_min_hours=3,
    leverage=2,
    min_liquidation=0.45,
    ask_again_s=1800,
)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    quotes=st.booleans(),
    premium=st.booleans(),
    settle=st.sampled_from([1, 4, 8]),
    fills=st.booleans(),
    before=st.integers(5, 30),
)
def test_passing_over_quiet_spans_says_what_stepping_says(seed, quotes, premium, settle, fills, before):
    level = 6e-4 * settle / 8
    tape = market(
        seed, 900, interval=5 * MINUTE, quotes=quotes, premium=premium, settle=settle, funding=level, before=before
    )

    stepped = play(FundingHarvester(LIVELY), tape, stepping=True, fills=fills)
    skipped = play(FundingHarvester(LIVELY), tape, stepping=False, fills=fills)

    assert skipped[:2] == stepped[:2]


def test_the_random_market_is_traded_in_and_out_and_mostly_passed_over():
    reasons = ""
    for seed, swing, near in ((5, 8e-4, 0.45), (6, 5e-5, 0.0)):
        config = LIVELY.model_copy(update={"min_liquidation": near})
        tape = market(seed, 8000, interval=5 * MINUTE, premium=True, quotes=True, swing=swing)
        said, _, delivered = play(FundingHarvester(config), tape, stepping=False)
        assert {OUT, IN} == set(weights([signal for _, signal, _ in said]))
        assert delivered < tape.size / 20
        reasons += " ".join(signal.reason for _, signal, _ in said)

    for reason in ("less than 0.3", "liquidation", "the basis has given more", "expected after costs"):
        assert reason in reasons


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(100, 899))
def test_what_comes_later_changes_nothing(seed, cut):
    tape = market(seed, 900, interval=5 * MINUTE, premium=True, before=20)
    until = T0 + 5 * cut * MINUTE

    whole, _, _ = play(FundingHarvester(LIVELY), tape, stepping=False)
    short, _, _ = play(FundingHarvester(LIVELY), tape.until(until), stepping=False)

    assert [signal for _, signal, _ in short] == [s for _, s, _ in whole if s.legs[0].ts_seen <= until]


def told_from_the_start_and_from_later(seed, late):
    """What is said once windows and the running span of the clock are over, for either."""
    tape = market(seed, 1800, interval=5 * MINUTE, premium=True, funding=6e-4, before=20)
    begin = T0 + 5 * late * MINUTE
    same = begin + FundingHarvester(LIVELY).warmup_ns + 8 * HOUR + HOUR
    for start in (0, tape.after(begin)):
        said, _, _ = play(FundingHarvester(LIVELY), tape, stepping=False, fills=False, start=start)
        yield [signal for _, signal, _ in said if signal.legs[0].ts_seen >= same]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), late=st.integers(1, 300))
def test_where_the_warm_up_began_changes_nothing(seed, late):
    early, later = told_from_the_start_and_from_later(seed, late)

    assert early == later


def test_and_there_is_something_to_change():
    early, later = told_from_the_start_and_from_later(1, 100)

    assert early == later
    assert early


def test_a_tape_of_funding_alone_warms_it_up():
    tape = Tape([Stream(FundingRate, PERP, T0 + 8 * HOUR * np.arange(100), {"rate": np.full(100, 3 * BP)})])
    strategy = FundingHarvester(CONFIG)

    said, _, _ = play(strategy, tape, stepping=False)

    assert not said
    assert strategy.state.funding.mean(7 * DAY) == pytest.approx(3 * BP)
    assert "it never enters" in " ".join(strategy.notes(tape))


def test_a_warm_up_folded_at_once_leaves_what_was_told_and_no_word_of_its_own():
    tape = market(7, 900, interval=5 * MINUTE, premium=True, before=20, quotes=True)
    folded, told = FundingHarvester(LIVELY), FundingHarvester(LIVELY)

    folded.skip(tape, 0, tape.size)
    said, _, _ = play(told, tape, stepping=True, fills=False)

    assert said
    told.state.asked, told.state.ts_asked = 0.0, 0
    assert folded.state == told.state


def test_its_state_is_one_value():
    strategy = FundingHarvester(LIVELY)
    play(strategy, market(2, 600, interval=5 * MINUTE, premium=True), stepping=False)

    encoded = msgspec.json.encode(strategy.state)
    assert msgspec.json.decode(encoded, type=FundingHarvesterState) == strategy.state


def test_a_tape_says_what_it_cannot_support():
    poor = " ".join(FundingHarvester(CONFIG).notes(market(3, 10)))
    rich = " ".join(FundingHarvester(CONFIG).notes(market(3, 10, quotes=True, premium=True)))

    for word in ("no premium index", "closes stand in"):
        assert word in poor
        assert word not in rich
    assert "ADL" in rich


def test_gates_narrow_and_agree_with_what_is_said():
    """With nothing held it asks in every hour that passes them all, at the first instant of the hour at the latest."""
    config = LIVELY.model_copy(update={"ask_again_s": 3600.0})
    tape = market(4, 3000, interval=5 * MINUTE, premium=True)

    gates = FundingHarvester(config).gates(tape)
    said, _, _ = play(FundingHarvester(config), tape, stepping=False, fills=False)

    counts = [count for _, count in gates]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > counts[-1] > 0
    assert counts[-1] <= len(said)


@needs_data
def test_real_years_are_held_for_months_and_passed_over():
    """Twenty months of one coin, its perpetual standing for its spot: three carries, each left for funding or price."""
    tape = recorded_pair("bybit.linear.BTCUSDT.kline-15m", "bybit.linear.BTCUSDT.kline-15m", 15 * MINUTE, funding=True)

    said, _, delivered = play(FundingHarvester(CONFIG), tape, stepping=False)
    until = tape.until(said[1][1].legs[0].ts_seen + DAY)

    assert weights([signal for _, signal, _ in said]) == [IN, OUT] * 3
    assert delivered < 2000
    skipped = play(FundingHarvester(CONFIG), until, stepping=False)
    assert skipped[:2] == play(FundingHarvester(CONFIG), until, stepping=True)[:2]


@needs_data
def test_a_symbol_that_went_from_eight_hours_to_four():
    (path,) = (data_dir() / "market").glob("bybit.linear.WIFUSDT.funding.*.parquet")
    table = pl.read_parquet(path)
    strategy = FundingHarvester(CONFIG)
    settled = strategy.state.funding
    intervals = set()
    for ts, rate in zip(table["ts"].dt.epoch("ns").to_list(), table["rate"].to_list(), strict=True):
        tell(strategy, [FundingRate(PERP, ts, rate)])
        intervals.add(settled.interval)
        assert settled.covered(7 * DAY) <= 7 * DAY + 4 * HOUR  # the first may have begun before

    assert intervals == {0, 8 * HOUR, 4 * HOUR}
    assert settled.interval == 4 * HOUR
    week = table["rate"].to_list()[-42:]
    assert settled.mean(7 * DAY) == pytest.approx(2 * sum(week) / 42)


# --- what it says it waits for ------------------------------------------------------------------


def first_that_fails(lines):
    (line,) = [line for line in lines if line.startswith("waits for: ")]
    return line.removeprefix("waits for: ")


def test_it_names_the_first_condition_that_fails_and_measures_them_all():
    strategy = warmed((0.8,) * 30)
    tell(strategy, bars(NOW - MINUTE, 100.05))

    assert strategy.waits_for(NOW) == (
        "met: both legs closing a bar at one instant",
        "met: an entry not asked for in these 3600 s already",
        "met: 7.0 days of funding in 30 settlements, and the last of them: at least 6.3 days in 21",
        "waits for: mean funding 0.80 bp per 8 h, above 2",
        "then: 14 days of it 33.6 bp, above 39.0 bp of costs and margin",
        "then: 25200 s to the next settlement, more than 60",
        "then: basis 4.0 bp, at least 4.0, the percentile 20 of 30 hours",
        "then: nowcast of the running interval unknown bp, above 0",
    )


@pytest.mark.parametrize(
    ("strategy", "now", "waits"),
    [
        (FundingHarvester(CONFIG), NOW, ["both legs closing a bar at one instant"]),
        (
            warmed((3,) * 5),
            NOW,
            ["1.7 days of funding in 5 settlements, and the last of them: at least 6.3 days in 21"],
        ),
        (warmed((2.1,) * 30, CONFIG.model_copy(update={"margin_of_costs": 0})), NOW, []),
        (warmed(), T0 + 8 * HOUR - 30 * 10**9, ["30 s to the next settlement, more than 60"]),
    ],
    ids=["nothing seen", "too little funding", "nothing", "a settlement comes"],
)
def test_what_is_waited_for_is_what_fails(strategy, now, waits):
    lines = strategy.waits_for(now)

    assert [line.removeprefix("waits for: ") for line in lines if line.startswith("waits for: ")] == waits


def test_the_basis_is_measured_where_both_legs_were_seen_last():
    strategy = warmed()
    assert not tell(strategy, bars(NOW, 100.01))

    assert first_that_fails(strategy.waits_for(NOW)) == "basis 0.0 bp, at least 4.0, the percentile 20 of 31 hours"


def test_what_has_just_been_asked_for_is_not_asked_for_again():
    strategy = warmed()
    assert weights(tell(strategy, bars(NOW, 100.05))) == [IN]

    assert first_that_fails(strategy.waits_for(NOW)) == "an entry not asked for in these 3600 s already"


def test_while_it_holds_it_says_when_it_would_leave():
    strategy = warmed()
    tell(
        strategy, [*bars(NOW - MINUTE, 100.05), holds("carry", PERP, -1, 100.05), holds("carry", SPOT, 1, 100)], now=NOW
    )

    assert strategy.waits_for(NOW) == (
        f"holds: -1 {PERP} and 1 {SPOT}",
        "leaves when: mean funding 3.00 bp per 8 h, under 0.5",
        "or when: 7 days of it 63.0 bp, under -13.0",
        "or when: the perpetual 100.05, above 119.463, where liquidation is too near",
        "or when: closing basis 6.0 bp, at most -121.0",
    )


def test_asking_what_it_waits_for_changes_nothing():
    strategy = warmed()
    tell(strategy, bars(NOW, 100.05))
    before = msgspec.json.encode(strategy.state)
    strategy.waits_for(NOW + DAY)

    assert msgspec.json.encode(strategy.state) == before
