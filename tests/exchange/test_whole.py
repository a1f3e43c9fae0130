"""The whole system in one process against the exchange: what it holds in the end is what the exchange says, to the last digit."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from actors.exchange.drills import cut_sockets, delay, lose_answers, repeat, scale_limits, serving
from actors.exchange.opening import FUNDS, Plan
from actors.gateways.bybit_feed import FeedConfig
from hean.engine_settings import EngineSettings
from hean.live_system import live_strategies
from hean.messages import (
    Discrepancy,
    ErrorReported,
    KillSwitchTripped,
    PairFinished,
    ReconcileCompleted,
    Severity,
    TradingState,
)
from hean.settings import read_toml, strategies_in, validated
from tests.exchange.whole import Whole

QUICK = Path(__file__).with_name("quick.py")
MODES = sorted((Path(__file__).parents[2] / "cluster" / "settings").glob("*.toml"))


def settings(**more):
    fixed = {"kind": "fixed", "notional": 400.0}
    return EngineSettings(
        strategies=[{"use": f"{QUICK}:{name}", "sizing": fixed} for name in ("Shuttle", "Dart")],
        risk={"reconciler": True},
        reconciler={"every_s": 1, "confirm_s": 0.5, "grace_s": 0.5, "least_s": 0.2},
        **more,
    )


def calm(_):
    return ()


def troubled(served):
    return (
        repeat(served, "execution", every=2),
        delay(served, "order", ms=150, every=3),
        lose_answers(served, next=2),
    )


@pytest.mark.slow
@pytest.mark.parametrize("faults", [calm, troubled])
def test_pairs_and_brackets_come_and_go_and_the_books_are_those_of_the_exchange(faults):
    with (
        serving(Plan(symbols=("BTCUSDT",), seed=5, days=2)) as served,
        scale_limits(served, 1_000),
        Whole(served, settings(), feed=FeedConfig(flush_ms=10)) as whole,
    ):
        whole.recover()
        opening = whole.equity
        whole.start()
        with ExitStack() as stack:
            for drill in faults(served):
                stack.enter_context(drill)
            whole.until(lambda: len(whole.of_kind(PairFinished)) >= 2, "a pair there and back")
            if faults is troubled:
                with cut_sockets(served):
                    pass
            whole.until(lambda: whole.traded()["dart-BTC"] >= 4, "two brackets there and back")
        whole.flatten()
        whole.until(whole.flat, "all is closed")
        before = len(whole.of_kind(ReconcileCompleted))
        whole.until(lambda: len(whole.of_kind(ReconcileCompleted)) > before + 1 and whole.clean(), "the venue agrees")

        assert whole.differences() == {}
        assert {pair.outcome for pair in whole.of_kind(PairFinished)} <= {"done", "unwound"}
        assert any(pair.outcome == "done" for pair in whole.of_kind(PairFinished))
        assert not whole.of_kind(KillSwitchTripped)
        assert not [one for one in whole.of_kind(Discrepancy) if one.severity is Severity.HIGH]
        assert whole.trading is TradingState.REDUCING
        assert 0.99 < whole.equity / opening < 1.01
        if faults is calm:
            assert not [one for one in whole.heard if isinstance(one.message, ErrorReported)]


def test_what_was_there_before_us_opens_the_books_and_is_nobodys():
    with serving(Plan(symbols=("BTCUSDT",), seed=5, days=2)) as served, Whole(served, settings()) as whole:
        whole.recover()
        assert whole.differences() == {}
        ledger = whole.components["portfolio"].state.ledger
        assert ledger.cash() == FUNDS["USDT"]
        assert whole.clean()


@pytest.mark.parametrize("file", MODES, ids=lambda file: file.stem)
def test_the_settings_of_every_venue_mode_are_good(file):
    tree = read_toml(file)
    strategies_in(tree)
    mode = validated(EngineSettings, tree)
    assert mode.venue == file.stem
    assert {strategy.settings.use for strategy in live_strategies(mode)} == {
        "funding-harvester",
        "basis-arbitrage",
        "impulse",
    }
    assert mode.dry_run
    assert not mode.live_confirm
    assert not mode.confirm_phrase


def test_there_are_settings_for_every_venue_mode():
    assert {file.stem for file in MODES} == {"sandbox", "paper", "testnet", "demo", "live"}
