"""What those who ask are shown: what is not known is said to be so, and everything has its age."""

import pickle
from decimal import Decimal

from actors import views
from actors.crew import Member
from actors.words import (
    ConsumerFigures,
    History,
    Phase,
    Pulse,
    Seen,
    Voice,
)
from hean.engine_settings import EngineSettings
from hean.live_system import live_strategies
from hean.messages import (
    EquityChanged,
    FeedStale,
    Liquidity,
    OrderRejected,
    OrderSubmitted,
    PositionChanged,
    ReconcileCompleted,
    Side,
    StrategySwitched,
    TradingState,
    TradingStateChanged,
)
from hean.monitor import FillView, Monitor, Point
from hean.units import SECOND

BTC, ETH = "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"
NOW = 1_800_000_000 * SECOND
D = Decimal
(IMPULSE,) = live_strategies(EngineSettings(strategies=({"use": "impulse", "config": {"trigger": 2.5}},)))
CARDS = {IMPULSE.name: views.card(IMPULSE)}


def told(*facts):
    monitor = Monitor()
    for ago, fact in enumerate(reversed(facts)):
        monitor.handle(fact, NOW - (len(facts) - ago) * SECOND)
    return monitor


def standing(**said):
    return views.Standing(
        **{
            "ts": NOW,
            "venue": "sandbox",
            "phase": Phase.RUNNING,
            "heard": True,
            "epoch": 3,
            "ts_began": NOW - 60 * SECOND,
            "blocked": (),
            "recovery_s": None,
            "dry_run": False,
            "permit": (),
            "armed_until": None,
        }
        | said
    )


def crew(**pulses):
    return {
        name: Member(name, "Actor", None, 1, None, NOW, pulse=Pulse(name, 1, NOW, 0, 0, **said))
        for name, said in pulses.items()
    }


def picture(monitor, members, **said):
    view = views.engine(standing(**said), monitor.state, members, {})
    return views.picture(view, monitor.state, members, CARDS, [BTC, ETH])


def test_of_what_nobody_has_said_anything_nothing_is_claimed():
    seen = picture(Monitor(), {})
    view = seen.view
    assert (view.trading, view.equity, view.equity_age_s, view.marks_known, view.discrepancies) == (None,) * 5
    assert view.reconcile_lag_s == 60.0, "since the beginning: there was no comparison yet"
    assert seen.limits == ()
    assert seen.consumers == ()
    (card,) = seen.strategies
    assert (card.enabled, card.ts_last_signal, card.last_signal) == (None, None, "")
    assert [(one.instrument, one.live, one.age_s, one.ages_s, one.price) for one in seen.feeds] == [
        (BTC, None, None, {}, None),
        (ETH, None, None, {}, None),
    ]


def test_what_was_said_before_the_core_went_down_is_not_so_any_more():
    monitor = told(TradingStateChanged(TradingState.ACTIVE, "started"))
    assert picture(monitor, {}).view.trading is TradingState.ACTIVE
    assert picture(monitor, {}, heard=False, phase=Phase.STARTING).view.trading is None


def test_an_equity_counts_from_the_first_comparison_on():
    worth = EquityChanged(D(10_000), D(9_000), marks_known=True)
    assert picture(told(worth), {}).view.equity is None
    assert picture(told(worth, ReconcileCompleted(1, 0, flat=False)), {}).view.equity == D(10_000)


def test_a_strategy_is_on_until_it_is_switched_off_and_says_what_it_wanted_last():
    voice = Voice(10, 2, ("waits for: a turn",), NOW - SECOND, "+1 BTC: a turn")
    members = crew(**{IMPULSE.name: {"voice": voice}})
    on = picture(told(TradingStateChanged(TradingState.ACTIVE, "started")), members)
    off = picture(told(StrategySwitched(IMPULSE.name, on=False, person="ada", reason="x")), members)
    assert (on.strategies[0].enabled, off.strategies[0].enabled) == (True, False)
    assert on.strategies[0].last_signal == "+1 BTC: a turn"
    assert on.strategies[0].config["trigger"] == 2.5
    (why,) = on.why
    assert (why.funnel["signals"], why.gates) == (2, ("waits for: a turn",))


def test_the_market_has_an_age_by_kind_and_prices_what_is_held():
    seen = Seen(BTC, {"Quote": NOW - SECOND, "Trade": NOW - 3 * SECOND}, 7, 2, 64_000.5)
    members = crew(feed={"seen": (seen,), "consumers": (ConsumerFigures("risk", 1, 2, 3),)})
    held = [PositionChanged("carry", one, D(1), D(0), D(60_000)) for one in (BTC, ETH)]
    shown = picture(told(*held), members)
    btc, eth = shown.feeds
    assert (btc.live, btc.age_s, btc.ages_s, btc.rows, btc.conflated) == (True, 1.0, {"Quote": 1.0, "Trade": 3.0}, 7, 2)
    assert eth.age_s is None
    assert {one.instrument: one.mark for one in shown.view.positions} == {BTC: 64_000.5, ETH: None}
    assert picture(told(FeedStale(BTC, NOW)), members).feeds[0].live is False


def test_what_an_order_may_yet_bring_is_held_to_be_its_strategy_s_too():
    submitted = [OrderSubmitted(name, "impulse", ETH, Side.BUY, D(1)) for name in ("o", "p")]
    monitor = told(PositionChanged("carry", BTC, D(1), D(0), D(60_000)), *submitted)
    monitor.handle(OrderRejected("o", "impulse", ETH, "no"), NOW)
    assert views.held(monitor.state) == {"carry": {BTC}, "impulse": {ETH}}

    monitor.handle(OrderRejected("p", "impulse", ETH, "no"), NOW)
    assert views.held(monitor.state) == {"carry": {BTC}}


def test_an_order_says_how_much_was_ordered_where_that_was_heard():
    sent = OrderSubmitted("o-1", "s", BTC, Side.SELL, D("0.5"))
    unheard = OrderRejected("o-2", "s", BTC, "no")
    rows = {one.client_order_id: one for one in views.orders(told(sent, unheard).state, NOW)}
    assert (rows["o-1"].side, rows["o-1"].quantity, rows["o-1"].filled) == ("SELL", D("0.5"), D(0))
    assert (rows["o-2"].side, rows["o-2"].quantity, rows["o-2"].reason) == (None, None, "no")


def test_a_history_is_sent_as_it_is():
    parts = {"price": D("1.50"), "fees": D("-0.1")}
    fill = FillView("t", "o", "s", BTC, Side.BUY, D(1), D(2), D("0.1"), "USDT", Liquidity.MAKER, "", D(2), NOW)
    history = History(NOW, (Point(NOW, D("10.10"), True, parts), Point(NOW, D(1), False)), (fill,), ())
    again = pickle.loads(pickle.dumps(history))  # noqa: S301 (our own)
    assert again == history
    assert str(again.curve[0].equity) == "10.10"
