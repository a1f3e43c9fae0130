"""Metrics: exact after restarts, absent where unknown, in Prometheus's own format."""

import random
import shutil
import subprocess
from decimal import Decimal

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.http.metrics import exposition
from actors.words import ActorView, EngineView, FeedFigures, LimitUse, Phase, Picture
from hean import codec
from hean.messages import (
    BooksAdjusted,
    CapitalAllocated,
    Envelope,
    EquityChanged,
    ErrorReported,
    FundingSettled,
    KillSwitchTripped,
    Liquidity,
    OrderAccepted,
    OrderCanceled,
    OrderFilled,
    OrderRejected,
    OrderSent,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    ProcessFinished,
    ProcessStarted,
    ProfitParts,
    ProfitsStated,
    ReconcileCompleted,
    Side,
    SignalRefused,
    TradingState,
    TradingStateChanged,
)
from hean.monitor import Monitor, MonitorState, Status
from hean.recovery import Retelling
from hean.store.journal import Journal
from hean.topology import Node, Topology
from hean.units import SECOND

NOW = 1_800_000_000 * SECOND
PERP = "BTCUSDT-LINEAR.BYBIT"


def view(state=None, **changed):
    """The engine as it is seen where nothing is known, but for what is said."""
    state = state or MonitorState()
    equity = state.equity
    nothing = {
        "ts": NOW,
        "venue": "sandbox",
        "phase": Phase.RUNNING,
        "epoch": 7,
        "trading": state.trading.state if state.trading else None,
        "reason": "",
        "blocked": (),
        "tripped": "",
        "equity": equity.equity if equity else None,
        "equity_age_s": None,
        "marks_known": equity.marks_known if equity else None,
        "reconcile_lag_s": None,
        "discrepancies": state.reconciliation.discrepancies,
        "recovery_s": None,
        "dry_run": False,
        "permit": (),
        "actors": (),
        "positions": (),
    }
    return EngineView(**{**nothing, **changed})


def picture(state=None, *, limits=(), feeds=(), **changed):
    state = state or MonitorState()
    return Picture(view(state, **changed), state, (), tuple(limits), (), tuple(feeds))


def samples(text):
    """Every sample of a scrape, by its name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def names(text):
    return {key[0] for key in samples(text)}


def told(*facts):
    monitor = Monitor()
    for at, fact in enumerate(facts):
        monitor.handle(fact, NOW - SECOND + at)
    return monitor.state


def fill(order, trade, quantity="0.010", price="65000.1"):
    return OrderFilled(
        client_order_id=order,
        strategy="impulse",
        instrument=PERP,
        trade_id=trade,
        side=Side.BUY,
        quantity=Decimal(quantity),
        price=Decimal(price),
        fee=Decimal("0.3575"),
        fee_currency="USDT",
        liquidity=Liquidity.TAKER,
        reference=None,
        exit="",
        ts_event=NOW,
    )


def life(seed, length=400):
    """Facts of an eventful life, some of them said more than once, as a venue's word is."""
    chance = random.Random(seed)
    said = []
    for n in range(length):
        order = "abc1-impulse-", "impulse", PERP
        number = f"{order[0]}{chance.randrange(60)}"
        of = (number, *order[1:])
        said.append(
            chance.choice(
                [
                    OrderSubmitted(*of, Side.BUY, Decimal("0.01")),
                    OrderAccepted(*of, f"venue-{n}"),
                    OrderRejected(*of, "no"),
                    OrderCanceled(*of, "asked for"),
                    fill(number, f"trade-{chance.randrange(40)}"),
                    SignalRefused("impulse", PERP, chance.choice(["gross", "stale leg"]), "2.1", "2.0"),
                    ErrorReported("venue", chance.choice(["unreadable", "amend lost"]), f"detail {n}"),
                    PairFinished(f"pair-{n}", "basis", chance.choice(["done", "unwound"]), ""),
                    FundingSettled(
                        f"s{chance.randrange(9)}", PERP, Decimal(1), Decimal("0.0001"), Decimal(1), Decimal("0.7"), n
                    ),
                    ReconcileCompleted(n, chance.randrange(2), flat=False),
                    PositionChanged("impulse", PERP, Decimal(n) / 1000, Decimal(0), Decimal(65_000)),
                    EquityChanged(Decimal(10_000 + n), Decimal(9_000 + n), marks_known=True),
                    CapitalAllocated("impulse", Decimal("0.25")),
                    OrderSent(*of, NOW, NOW + chance.randrange(9 * SECOND)),
                    ProfitsStated({"impulse": parts(price=Decimal(n), fees=Decimal(-n) / 3)}),
                    ProcessStarted("backtest", f"run-{n % 7}"),
                    ProcessFinished(f"run-{n % 7}", chance.choice(["completed", "failed: no data"])),
                    BooksAdjusted(f"a{n}", "impulse", PERP, "USDT", Decimal("0.001"), Decimal(1), "dust"),
                    TradingStateChanged(chance.choice(list(TradingState)), "because"),
                ]
            )
        )
    return said


# --- exact ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_figures_are_the_same_however_often_the_monitor_dies(seed, tmp_path):
    facts, chance = life(seed), random.Random(seed)
    graph = Topology((Node("monitor", "monitor"),))
    entries = []
    while facts:
        part, facts = facts[: (k := chance.randrange(1, 6))], facts[k:]
        first = sum(len(batch) for batch in entries) + 1
        entries.append([Envelope("broker@1", first + i, NOW, "t", "c", fact) for i, fact in enumerate(part)])

    unharmed = Retelling(graph, "monitor", Monitor(), None)
    for n, batch in enumerate(entries):
        unharmed.hear(NOW + n, batch)

    told_so_far = 0
    for incarnation in range(1, 1000):
        with Journal(tmp_path / "monitor.db", "monitor", keep=2) as journal:
            snapshot = journal.newest()
            alive = Retelling(graph, "monitor", Monitor(), snapshot)
            for _ in alive.all(journal.after(snapshot.n if snapshot else 0)):
                pass
            journal.begin(incarnation, NOW, b"")
            alive.live(incarnation)
            for _ in range(chance.randrange(1, 30)):
                if told_so_far == len(entries):
                    break
                parcel = codec.letters(entries[told_so_far])
                journal.tell(incarnation, NOW + told_so_far, parcel)
                if chance.random() < 0.9:  # else it dies of it, and its successor hears it from the journal
                    alive.hear(NOW + told_so_far, codec.envelopes(parcel))
                    if chance.random() < 0.1:
                        journal.snapshot(incarnation, NOW, codec.encoded(alive.component.state), alive.memo())
                    told_so_far += 1
                else:
                    told_so_far += 1
                    break
        if told_so_far == len(entries):
            break
    with Journal(tmp_path / "monitor.db", "monitor") as journal:
        snapshot = journal.newest()
        last = Retelling(graph, "monitor", Monitor(), snapshot)
        for _ in last.all(journal.after(snapshot.n if snapshot else 0)):
            pass

    expected = exposition(picture(unharmed.component.state))
    assert exposition(picture(last.component.state)) == expected
    assert samples(expected)["hean_orders_total", ("status", "submitted"), ("strategy", "impulse")] > 10


def test_an_order_counts_once_for_each_thing_that_befell_it():
    of = "abc1-impulse-1", "impulse", PERP
    state = told(
        OrderSubmitted(*of, Side.BUY, Decimal("0.02")),
        OrderAccepted(*of, "v1"),
        OrderAccepted(*of, "v1"),
        fill(of[0], "t1"),
        fill(of[0], "t1"),
        fill(of[0], "t2"),
    )
    seen = samples(exposition(picture(state)))
    by_status = {key[1][1]: value for key, value in seen.items() if key[0] == "hean_orders_total"}
    assert {status: count for status, count in by_status.items() if count} == {
        "submitted": 1,
        "accepted": 1,
        "filled": 1,
    }
    assert set(by_status) == set(Status), (
        "of a strategy that was heard of, what never happened is known: alerts see the first"
    )
    assert seen["hean_trades_total", ("strategy", "impulse")] == 2
    assert seen["hean_turnover_total", ("strategy", "impulse")] == pytest.approx(1300.002)
    assert seen["hean_fees", ("currency", "USDT"), ("strategy", "impulse")] == pytest.approx(0.715)


# --- unknown is absent ------------------------------------------------------------------------------


def test_without_an_engine_only_that_is_said():
    assert names(exposition(None)) == {"hean_build_info", "hean_engine_up"}
    assert samples(exposition(None))["hean_engine_up",] == 0


def test_what_nobody_has_said_has_no_series():
    seen = samples(exposition(picture(phase=Phase.STARTING)))
    unknown = {
        "hean_equity",
        "hean_cash",
        "hean_reconcile_lag_seconds",
        "hean_reconcile_discrepancies",
        "hean_kill_switch_tripped",
        "hean_orders_total",
        "hean_errors_total",
        "hean_discrepancies_total",
        "hean_recovery_seconds",
        "hean_marks_known",
    }
    assert not unknown & {key[0] for key in seen}
    assert seen["hean_engine_status", ("state", "STARTING")] == 1
    assert not any(("state", str(one)) in key for key in seen for one in TradingState), "nor may it be taken for halted"


def test_a_limit_of_which_the_use_is_unknown_is_said_without_it():
    limits = [LimitUse("gross", "account", None, 2.0, "x equity"), LimitUse("orders", "impulse", 3, 5, "orders")]
    seen = samples(exposition(picture(limits=limits)))
    assert [key for key in seen if key[0] == "hean_limit_used" and ("rule", "gross") in key] == []
    assert seen["hean_limit", ("rule", "gross"), ("subject", "account"), ("unit", "x equity")] == 2.0
    assert seen["hean_limit_used", ("rule", "orders"), ("subject", "impulse"), ("unit", "orders")] == 3


def test_a_feed_that_never_said_a_word_has_no_age_and_is_neither_live_nor_dead():
    feeds = [FeedFigures(PERP, None, None, {}, 0, 0), FeedFigures("ETHUSDT-LINEAR.BYBIT", True, 0.4, {}, 9, 1)]
    seen = samples(exposition(picture(feeds=feeds)))
    assert {key for key in seen if key[0] in {"hean_feed_live", "hean_feed_age_seconds"}} == {
        ("hean_feed_live", ("instrument", "ETHUSDT-LINEAR.BYBIT")),
        ("hean_feed_age_seconds", ("instrument", "ETHUSDT-LINEAR.BYBIT")),
    }


# --- what it says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("trading", [None, *TradingState])
def test_the_engine_is_in_one_phase_and_in_at_most_one_trading_state(phase, trading):
    seen = samples(exposition(picture(phase=phase, trading=trading)))
    on = {key[1][1] for key, value in seen.items() if key[0] == "hean_engine_status" and value == 1}
    assert on == {str(phase)} | ({str(trading)} if trading else set())


def parts(**changed):
    return ProfitParts(**{**dict.fromkeys(ProfitParts.__struct_fields__, Decimal(0)), **changed})


def test_equity_is_told_in_all_and_by_strategy_with_what_it_is_made_of():
    state = told(
        ProfitsStated(
            {
                "impulse": parts(price=Decimal("70.5"), fees=Decimal(-20), brought_in=Decimal(2500)),
                "": parts(brought_in=Decimal(7450)),
            }
        ),
        EquityChanged(Decimal("10000.50"), Decimal(9000), marks_known=True),
    )
    seen = samples(exposition(picture(state)))
    equity = {dict(key[1:])["strategy"]: value for key, value in seen.items() if key[0] == "hean_equity"}
    assert equity == {"": 10000.50, "impulse": 2550.5, "reserve": 7450}
    assert equity.pop("") == sum(equity.values())
    assert seen["hean_profit", ("part", "fees"), ("strategy", "impulse")] == -20


def test_from_a_row_of_the_market_to_the_order_is_a_histogram():
    state = told(
        *(OrderSent(f"o{n}", "impulse", PERP, NOW, NOW + ms * SECOND // 1000) for n, ms in enumerate([1, 4, 4, 9_000]))
    )
    seen = samples(exposition(picture(state)))
    below = {key[1][1]: value for key, value in seen.items() if key[0] == "hean_tick_to_order_seconds_bucket"}
    assert (below["0.001"], below["0.0025"], below["0.005"], below["5.0"], below["+Inf"]) == (1, 1, 3, 3, 4)
    assert seen["hean_tick_to_order_seconds_count",] == 4
    assert seen["hean_tick_to_order_seconds_sum",] == pytest.approx(9.009)


@pytest.mark.parametrize(
    ("amounts", "naked"),
    [([], None), ([("MAX_NAKED", Decimal("10.5")), ("MAX_NAKED", Decimal(2))], 12.5), ([("MAX_NAKED", None)], None)],
    ids=["nothing is known of any limit", "in all pairs", "a price is not known"],
)
def test_what_is_naked_is_summed_over_the_pairs_where_all_are_known(amounts, naked):
    limits = [LimitUse(rule, f"pair {n}", None, 0.02, "share", amount) for n, (rule, amount) in enumerate(amounts)]
    assert samples(exposition(picture(limits=limits))).get(("hean_naked_notional",)) == naked


def test_runs_of_processes_count_by_how_they_ended():
    state = told(*(ProcessStarted("backtest", f"r{n}") for n in range(3)))
    monitor = Monitor()
    monitor.state = state
    for run, outcome in (("r0", "completed"), ("r1", "failed: no data"), ("r2", "failed: no disk")):
        monitor.handle(ProcessFinished(run, outcome), NOW)
    seen = samples(exposition(picture(state)))
    runs = {dict(key[1:])["outcome"]: value for key, value in seen.items() if key[0] == "hean_process_runs_total"}
    assert runs == {"completed": 1, "failed": 2}


@pytest.mark.parametrize(("dog", "said"), [(None, None), (True, 1), (False, 0)])
def test_the_watchdog_is_spoken_of_only_where_there_is_to_be_one(dog, said):
    assert samples(exposition(None, watchdog=dog)).get(("hean_watchdog_up",)) == said


def test_what_is_the_owner_s_own_has_a_name_too():
    """An empty label is none: a sum over strategies would not know what it counts."""
    state = told(PositionChanged("", PERP, Decimal(2), Decimal(0), Decimal(0)))
    assert samples(exposition(picture(state)))["hean_position", ("instrument", PERP), ("strategy", "reserve")] == 2


def test_actors_tell_their_age_their_lag_and_how_often_they_were_begun_anew():
    actors = (
        ActorView("risk", "RiskManagerActor", 17, True, 12.5, 3, 4.0, 900, 30),
        ActorView("impulse", "StrategyActor", None, False, None, 1, None, None, None),
    )
    seen = samples(exposition(picture(actors=actors)))
    assert seen["hean_actor_mailbox_lag_seconds", ("actor", "risk")] == pytest.approx(0.004)
    assert seen["hean_actor_restarts_total", ("actor", "risk")] == 3
    assert seen["hean_actor_up", ("actor", "impulse")] == 0
    assert ("hean_actor_age_seconds", ("actor", "impulse")) not in seen


def test_the_kill_switch_is_said_to_be_off_only_where_somebody_has_said_anything():
    off = told(CapitalAllocated("impulse", Decimal(1)))
    on = told(KillSwitchTripped("drawdown", "0.21", "0.20"))
    assert samples(exposition(picture(off)))["hean_kill_switch_tripped",] == 0
    assert samples(exposition(picture(on)))["hean_kill_switch_tripped",] == 1


def test_no_label_is_an_id():
    state = told(*life(3))
    assert not any(
        "abc1" in value or "trade-" in value for key in samples(exposition(picture(state))) for _, value in key[1:]
    )


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here: Debian's package `prometheus` has it"
)
def test_promtool_finds_nothing_to_blame():
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=exposition(full_picture()), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")


def full_picture():
    """A picture in which everything is known."""
    state = told(*life(1), KillSwitchTripped("drawdown", "0.21", "0.20"))
    return picture(
        state,
        limits=[LimitUse("gross", "account", 1.9, 2.0, "x equity")],
        feeds=[FeedFigures(PERP, True, 0.4, {"Quote": 0.4}, 90, 3)],
        actors=(ActorView("risk", "RiskManagerActor", 17, True, 12.5, 3, 4.0, 900, 30),),
        recovery_s=2.5,
        equity_age_s=0.5,
        reconcile_lag_s=1.5,
    )


def test_a_name_with_quotes_and_line_ends_cannot_break_the_text():
    odd = 'a"b\nc\\d'
    assert ("hean_errors_total", ("component", odd), ("kind", odd)) in samples(
        exposition(picture(told(ErrorReported(odd, odd, ""))))
    )


def test_a_state_read_back_from_its_bytes_gives_the_same_text():
    state = told(*life(4))
    again = msgspec.msgpack.decode(codec.encoded(state), type=MonitorState)
    assert exposition(picture(again)) == exposition(picture(state))
