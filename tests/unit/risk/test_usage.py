"""What is used of the limits, held against what the limits themselves say."""

from decimal import Decimal

import pytest

from hean.messages import (
    CapitalAllocated,
    EquityChanged,
    ErrorReported,
    FeedLive,
    FeedStale,
    NodeFailed,
    PairFinished,
    ReconcileCompleted,
    Wake,
)
from hean.risk.config import StrategyLimits
from hean.risk.sizing import FixedNotional
from hean.risk.usage import LimitUse
from tests.unit.risk.story import ETH, LOOSE, PERP, SECOND, SPOT, Told, orders, rules, worth

NAMES = ("impulse", "other", "newcomer")


def told_of(**config):
    strategies = {name: StrategyLimits(sizing=FixedNotional(notional=1_000)) for name in NAMES}
    return Told(strategies=strategies, **(LOOSE | config))


def used(told, rule, subject="account"):
    (found,) = [one for one in told.manager.usage(told.now) if (one.rule, one.subject) == (rule, subject)]
    return found


# --- the figures that limits compare ------------------------------------------------------------


def crowded(**config):
    """One strategy is long, another short of half of it, a third comes; leverage is three."""
    told = told_of(**config)
    told.hold(PERP, "0.040")
    told.hold(PERP, "-0.020", "other")
    told.hold(ETH, "0.02", "newcomer", price=25_000)
    return told


@pytest.mark.parametrize(
    ("rule", "setting", "subject", "amount"),
    [
        ("GROSS_EXPOSURE", "gross_exposure", "account", 3_500),
        ("MARGIN", "margin", "account", 3_500 / 3),
        ("SYMBOL_EXPOSURE", "symbol_exposure", "BTC", 2_000),
        ("STRATEGY_BUDGET", "strategy_leverage", "newcomer", 500),
    ],
)
def test_an_order_fits_exactly_into_what_is_left(rule, setting, subject, amount):
    found = used(crowded(), rule, subject)
    assert (found.unit, found.amount) == ("share", pytest.approx(amount))
    full = found.used + (0.1 / 3 if rule == "MARGIN" else 0.1)

    assert orders(crowded(**{setting: full + 1e-9}).want(1.0, strategy="newcomer"))
    assert rules(crowded(**{setting: full - 1e-9}).want(1.0, strategy="newcomer")) == [rule]


def test_what_is_on_its_way_is_used_already():
    told = told_of()
    told.want(1.0)

    assert used(told, "GROSS_EXPOSURE").amount == 1_000
    assert used(told, "ORDER_RATE") == LimitUse("ORDER_RATE", "account", 1, 60, "orders")
    told.now += 60 * SECOND
    assert used(told, "ORDER_RATE").used == 0


def test_a_budget_is_the_share_that_was_told_last():
    told = told_of(strategy_leverage=2.0)
    told.say(CapitalAllocated("impulse", Decimal("0.25")))

    assert (used(told, "STRATEGY_BUDGET", "impulse").limit, used(told, "STRATEGY_BUDGET", "other").limit) == (0.5, 2.0)


def test_of_an_unknown_equity_no_share_is_known():
    told = crowded()
    told.say(EquityChanged(Decimal(10_000), Decimal(10_000), marks_known=False))

    gross = used(told, "GROSS_EXPOSURE")
    assert (gross.used, gross.amount) == (None, 3_500)
    assert used(told, "DAILY_LOSS").used is None


@pytest.mark.parametrize(("equity", "refused"), [(9_710, []), (9_700, ["DAILY_LOSS"])])
def test_the_loss_of_the_day(equity, refused):
    told = told_of(daily_loss=0.03)
    told.say(worth(equity))
    loss = used(told, "DAILY_LOSS")

    assert (loss.used, loss.amount) == (pytest.approx((10_000 - equity) / 10_000), 10_000 - equity)
    assert rules(told.want(1.0)) == refused
    assert (loss.used >= loss.limit) is bool(refused)


def test_the_tiers_of_the_drawdown():
    told = told_of()
    told.say(worth(9_150))
    at_once = [used(told, "DRAWDOWN", tier).used for tier in ("yellow", "orange", "red")]
    told.now += 3600 * SECOND
    an_hour_later = [used(told, "DRAWDOWN", tier).used for tier in ("yellow", "orange", "red")]

    assert at_once == [0, 0, pytest.approx(0.085)]
    assert an_hour_later == pytest.approx([0.085 * (1 - 2.718281828**-4)] * 2 + [0.085])
    assert used(told, "DRAWDOWN", "red").limit == 0.10


def test_asking_changes_nothing():
    asked, left_alone = told_of(), told_of()
    for told in (asked, left_alone):
        told.say(worth(9_150))
    for _ in range(10):
        asked.now += 100 * SECOND
        asked.manager.usage(asked.now)
        asked.manager.naked()
    left_alone.now = asked.now

    assert asked.manager.state == left_alone.manager.state
    assert asked.say(Wake()) == left_alone.say(Wake())


def test_errors_and_deaths_within_their_windows():
    told = told_of()
    told.say(*2 * [ErrorReported("venue", "odd", "")], NodeFailed("impulse", "gone"))
    assert [used(told, rule).used for rule in ("ERRORS", "DEATHS")] == [2, 1]

    told.now += 300 * SECOND
    assert [used(told, rule).used for rule in ("ERRORS", "DEATHS")] == [0, 1]


def test_ages_are_unknown_before_anything_was_heard():
    told = told_of(reconciler=True)
    told.manager.state.ts_reconciled = None
    assert used(told, "STALE_RECONCILE").used is None

    told.say(ReconcileCompleted(1, 0, flat=True))
    told.now += 91 * SECOND
    assert (used(told, "STALE_RECONCILE").used, used(told, "RECONCILE_TRIP").used) == (91, 91)
    assert rules(told.want(1.0)) == ["STALE_RECONCILE"]


def test_without_a_reconciler_its_limits_are_none():
    assert not [one for one in told_of().manager.usage(0) if "RECONCILE" in one.rule]


def unseen(told):
    return [(one.subject, one.used) for one in told.manager.usage(told.now) if one.rule == "STALE_PRICE"]


def test_how_long_an_instrument_was_not_seen_and_nothing_of_those_that_are():
    told = told_of()
    told.say(FeedStale(PERP, told.now - 7 * SECOND))

    assert unseen(told) == [(PERP, 7)]
    told.say(FeedLive(PERP), FeedStale(ETH, 0))
    assert unseen(told) == [(ETH, None)]


# --- what stands unhedged -----------------------------------------------------------------------


def test_what_of_a_pair_is_not_hedged_yet_is_naked():
    told = told_of()
    (pair,) = told.want(-1.0, 1.0)
    assert told.manager.naked() == 0
    told.hold(PERP, "-0.020")
    told.hold(SPOT, "0.015")

    assert used(told, "MAX_NAKED", "impulse BTC") == LimitUse(
        "MAX_NAKED", "impulse BTC", 0.025, 0.02, "share", amount=250.0
    )
    told.hold(SPOT, "0.020")
    told.say(PairFinished(pair.pair_id, "impulse", "done", ""))
    assert told.manager.naked() == 0


def test_a_position_that_was_never_to_be_hedged_is_not_naked():
    told = told_of()
    told.hold(PERP, "0.020")
    told.hold(ETH, "-0.1")

    assert not [one for one in told.manager.usage(told.now) if one.rule == "MAX_NAKED"]
    assert told.manager.naked() == 0


def test_naked_coins_of_which_nobody_knows_a_price_are_unknown():
    told = told_of()
    told.hold(PERP, "0", price=0)
    told.hold(SPOT, "0.020", price=0)

    assert told.manager.naked() is None
    assert used(told, "MAX_NAKED", "impulse BTC").used is None
