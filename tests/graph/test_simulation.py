"""Hundreds of runs of the whole system, each in its own order of deliveries, nodes dying at random: what must hold in all."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal, localcontext

import msgspec
import pytest

from hean.backtest.player import compare
from hean.backtest.trips import round_trips
from hean.errors import ContractError
from hean.execution.simulated_venue import Tier
from hean.messages import (
    Bar,
    CancelOrder,
    KillSwitchReset,
    KillSwitchTripped,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    Quote,
    ReconcileCompleted,
    Side,
    Signal,
    SignalRefused,
    StartTrading,
    StopTrading,
    SubmitOrder,
    SubmitPair,
    Trade,
    TradingState,
    TradingStateChanged,
)
from hean.portfolio.accounting import EXACT
from hean.risk.limits import Rule
from hean.simulation import snapshot
from tests.graph.house import (
    BTC,
    BTC_SPOT,
    CAPITAL,
    ETH,
    ETH_SPOT,
    INSTRUMENTS,
    SECOND,
    Chatter,
    ChatterConfig,
    carrier,
    chatter,
    house,
    market,
)

ZERO = Decimal(0)
TIERS = tuple(Tier)
ENDS = (OrderCanceled, OrderExpired, OrderRejected)


def apart(seed):
    """Each perpetual is one strategy's: the account holds what the strategy holds."""
    return (
        chatter("perp", ETH, seed)
        | chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), bracket=0.0)
        | carrier("carrier", seed, (BTC,), (BTC_SPOT,))
    )


def together(seed):
    """Several strategies in the same instruments, for and against each other."""
    return (
        chatter("perp", ETH, seed)
        | chatter("other", ETH, seed, every=4)
        | chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), bracket=0.0)
        | carrier("carrier", seed, (BTC,), (BTC_SPOT,))
    )


def played(seed, strategies, *, tier=None, kill=True, **changes):
    tier = tier or TIERS[seed % len(TIERS)]
    found = house(market(seed, tier), tier, strategies, seed=seed, haste=(0.02, 0.1, 0.4)[seed % 3], **changes)
    found.sim.run(kill=sorted(found.sim.components) if kill else (), risk=0.003)
    found.quiet()
    return found


# --- what must hold ------------------------------------------------------------------------------


def books_agree(found):
    """The portfolio's books are the venue's account to the last digit, and the strategies' books add up to them."""
    account, ledger = found["venue"].state.account, found["portfolio"].state.ledger
    perps = [name for name in INSTRUMENTS if not INSTRUMENTS[name].is_spot]
    with localcontext(EXACT):
        # What is realised when is each book's own affair; cash less what open positions cost is not.
        theirs = account.balances["USDT"] - sum((position.value for position in account.positions.values()), ZERO)
        ours = sum(
            (
                book.balance("USDT", "cash") - sum((book.cost.get(name, ZERO) for name in perps), ZERO)
                for book in ledger.books.values()
            ),
            ZERO,
        )
    assert ours == ledger.constant == theirs
    assert ledger.cash() == account.balances["USDT"]
    accountant = found["portfolio"].accountant
    for name, instrument in INSTRUMENTS.items():
        held = sum((accountant.quantity(book, name) for book in ledger.books.values()), ZERO)
        assert held == ledger.exposure.get(name, ZERO) == account.held(instrument), name
    for commodity, accounts in ledger.account().items():
        assert sum(accounts.values()) == 0, commodity


def every_order_ends_once(found):
    """Each order sent has one end, or rests at both sides; each execution is booked once by everybody."""
    venue, broker = found["venue"].state, found["broker"].state
    asked = Counter(order.client_order_id for order in found.said("broker", SubmitOrder))
    assert set(asked.values()) <= {1}
    submitted = Counter(order.client_order_id for order in found.said("broker", OrderSubmitted))
    assert submitted == asked
    wanted = [order.client_order_id for order in found.said("risk", SubmitOrder)]
    assert set(wanted) <= set(asked)
    fills = found.said("venue", OrderFilled)
    assert len({fill.trade_id for fill in fills}) == len(fills)
    assert Counter(fill.trade_id for fill in found.said("broker", OrderFilled)) == Counter(
        fill.trade_id for fill in fills
    )
    filled = defaultdict(Decimal)
    for fill in fills:
        filled[fill.client_order_id] += fill.quantity
    sizes = {order.client_order_id: order.quantity for order in found.said("broker", SubmitOrder)}
    ends = Counter(fact.client_order_id for fact in found.said("venue", *ENDS))
    ends.update(name for name, size in sizes.items() if filled[name] == size)
    resting = {name for desk in venue.desks.values() for name in desk.working}
    canceled = {command.client_order_id for command in found.said("broker", CancelOrder)}
    for name in asked:
        assert ends[name] + (name in resting) == 1 or (name in canceled and ends[name] == 2), name
    assert resting == set(broker.open)


def every_pair_finishes_once(found):
    sent = Counter(pair.pair_id for pair in found.said("risk", SubmitPair))
    finished = Counter(pair.pair_id for pair in found.said("broker", PairFinished))
    at_work = Counter([*found["broker"].state.pairs, *found["broker"].state.waiting])
    assert finished + at_work == sent


def nobody_waits_for_what_is_over(found):
    """What risk thinks is under way is under way at the broker; what the strategies were told they hold, they hold."""
    risk, broker = found["risk"].state, found["broker"].state
    open_orders = {name for name, order in broker.open.items() if name in risk.orders}
    assert set(risk.orders) == open_orders
    told = {(fact.strategy, fact.instrument): fact for fact in found.said("portfolio", PositionChanged)}
    for strategy, places in risk.slots.items():
        for name, slot in places.items():
            assert not slot.pair or slot.pair in broker.pairs or slot.pair in broker.waiting, slot
            fact = told.get((strategy, name))
            assert slot.held == (fact.quantity if fact else 0)
            if not slot.orders and not slot.pair:
                assert slot.target == slot.held, slot
    held = found["monitor"].state.strategies
    for (strategy, name), fact in told.items():
        assert held[strategy].positions[name].quantity == fact.quantity


def reconciled(found):
    last = found.said("reconciler", ReconcileCompleted)[-1]
    assert last.discrepancies == 0
    assert found["reconciler"].state.suspicions == {}


def limits_are_respected(found, *, symbol=Decimal("0.6"), slack=Decimal("1.05")):
    """No coin is held beyond its limit: prices may have moved by the slack since."""
    held = defaultdict(Decimal)
    for fill in found.said("venue", OrderFilled):
        base = INSTRUMENTS[fill.instrument].base
        held[fill.strategy, fill.instrument] += fill.quantity * fill.side - (
            fill.fee if fill.fee_currency == base else 0
        )
        net = sum((one for (_, name), one in held.items() if INSTRUMENTS[name].base == base), ZERO)
        assert abs(net) * fill.price <= symbol * CAPITAL * slack, fill
    assert all(quantity >= 0 for (_, name), quantity in held.items() if INSTRUMENTS[name].is_spot)


def naked_legs_are_bounded(found, *, naked=Decimal("0.02")):
    """Between any two fills of a pair no more stands unhedged than is allowed, and what is too small to be an order."""
    carried = ZERO
    for fill in found.said("venue", OrderFilled):
        if fill.strategy == "carrier":
            carried += fill.quantity * fill.side - (fill.fee if fill.fee_currency == "BTC" else 0)
            loose = max(INSTRUMENTS[name].step for name in (BTC, BTC_SPOT)) * fill.price
            assert abs(carried) * fill.price <= naked * CAPITAL + loose, fill


def the_switch_stays_tripped(found):
    """After it tripped nothing is opened any more, and trading does not start again."""
    envelopes = [envelope for envelope in found.sim.log if envelope.source == "risk"]
    tripped = [index for index, envelope in enumerate(envelopes) if isinstance(envelope.message, KillSwitchTripped)]
    if not tripped:
        return False
    for envelope in envelopes[tripped[0] :]:
        match envelope.message:
            case TradingStateChanged(trading=trading):
                assert trading is TradingState.HALTED
            case SubmitOrder(reduce_only=reduces, instrument=name, side=side):
                assert reduces or (INSTRUMENTS[name].is_spot and side is Side.SELL)
            case SubmitPair(opening=opening):
                assert not opening
    assert found["risk"].state.trading is TradingState.HALTED
    return True


def what_people_see_is_so(found):
    """The monitor's round trips are those of the log."""
    seen = found["monitor"].state
    closed = [trip for trip in round_trips(found.sim.log, INSTRUMENTS) if trip.ts_close is not None]
    assert Counter(map(_as_traded, seen.trips)) == Counter(map(_as_traded, closed))
    assert [fill.trade_id for fill in seen.fills] == [fill.trade_id for fill in found.said("venue", OrderFilled)]


def _as_traded(trip):
    # Funding may be heard before or after a fill that changes who held what.
    with localcontext(EXACT):
        return trip.strategy, trip.instruments, trip.side, trip.quantity, trip.entry_price, trip.pnl - trip.funding


def everything_holds(found):
    books_agree(found)
    every_order_ends_once(found)
    every_pair_finishes_once(found)
    nobody_waits_for_what_is_over(found)
    reconciled(found)
    limits_are_respected(found)
    the_switch_stays_tripped(found)
    what_people_see_is_so(found)


# --- the seeds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", range(10))
def test_no_order_of_deliveries_and_no_death_breaks_an_invariant(batch):
    for seed in range(batch * 20, (batch + 1) * 20):
        found = played(seed, apart(seed))
        everything_holds(found)
        naked_legs_are_bounded(found)


@pytest.mark.parametrize("batch", range(5))
def test_strategies_against_each_other_in_one_instrument_break_none_either(batch):
    refused = 0
    for seed in range(1000 + batch * 20, 1000 + (batch + 1) * 20):
        found = played(seed, together(seed))
        everything_holds(found)
        refused += sum("110017" in fact.reason for fact in found.said("venue", OrderRejected))
    # What closes against another strategy's position is not refused for it: a few cross a bracket on the way.
    assert refused < 20


def test_what_a_profit_is_made_of_is_all_of_it_at_each_point_of_the_curve():
    moved = set()
    for seed in range(9):
        found = played(seed, together(seed), say_profits=True)
        everything_holds(found)
        curve = found["monitor"].state.curve
        assert len(curve) > 20
        with localcontext(EXACT):
            assert all(point.equity - sum(point.parts.values()) == CAPITAL for point in curve)
        moved |= {part for point in curve for part, amount in point.parts.items() if amount}
    assert moved == {"price", "basis", "funding", "fees", "slippage"}


def bound(seed, step):
    """Three strategies that would all hold one coin, and a limit that leaves room for one."""
    strategies = (
        chatter("perp", ETH, seed, bracket=0.0)
        | chatter("other", ETH, seed, every=4, bracket=0.0)
        | chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), bracket=0.0)
    )
    tier = TIERS[seed % len(TIERS)]
    tape = market(seed, tier, step=step)
    found = house(tape, tier, strategies, seed=seed, haste=(0.02, 0.1, 0.4)[seed % 3], risk={"symbol_exposure": 0.12})
    found.sim.run()
    found.quiet()
    limits_are_respected(found, symbol=Decimal("0.12"))
    return sum(fact.rule == Rule.SYMBOL_EXPOSURE for fact in found.said("risk", SignalRefused))


def test_a_limit_that_binds_is_kept_in_every_order_of_deliveries():
    """One strategy's short gives no other headroom: it may be bought back at any time."""
    assert sum(bound(seed, SECOND // 8) for seed in range(60)) > 60


def test_a_comparison_with_the_venue_lets_go_of_no_reservation():
    for seed in range(2000, 2060):
        bound(seed, SECOND)


def test_a_venue_that_repeats_itself_changes_nothing():
    repeated = 0
    for seed in range(12):
        tier = TIERS[seed % len(TIERS)]
        found = house(market(seed, tier), tier, apart(seed), seed=seed)
        for _ in range(4):
            found.sim.run(rows=found.tape.size // 4)
            for fill in found.said("venue", OrderFilled)[-5:]:
                repeated += 1
                found.sim.tell("broker", fill, source="venue")
        found.quiet()
        everything_holds(found)
    assert repeated > 100


def test_each_seed_is_another_history_and_the_same_seed_the_same():
    tape = market(1, Tier.TRADES)

    def history(seed):
        found = house(tape, Tier.TRADES, apart(1), seed=seed)
        found.sim.run()
        found.quiet()
        everything_holds(found)
        return msgspec.msgpack.encode(found.sim.log)

    histories = [history(seed) for seed in range(20)]
    assert len(set(histories)) == 20
    assert histories[3] == history(3)


@pytest.mark.parametrize("seed", range(9))
def test_every_node_told_the_same_alone_says_the_same_and_ends_the_same(seed):
    found = played(seed, together(seed))
    spoke = 0
    for name, component in found.sim.components.items():
        again, _ = found.sim.replayed(name)
        as_before = snapshot(again) == snapshot(component)  # apart, so that no difference of kilobytes is drawn
        assert as_before, name
        said = [envelope for envelope in found.sim.log if envelope.source == name]
        assert not compare(found.sim.said_again(name), said), name
        spoke += bool(said)
    assert spoke == len(found.sim.components) - 1  # the monitor never speaks


def test_deaths_change_nothing():
    quiet, violent = (
        house(market(5, Tier.BOOK), Tier.BOOK, apart(5), seed=5),
        house(market(5, Tier.BOOK), Tier.BOOK, apart(5), seed=5),
    )
    quiet.sim.run()
    for _ in range(60):
        violent.sim.run(rows=len(violent.tape.streams))
        for name in violent.sim.components:
            violent.sim.kill(name)
    violent.sim.run()
    assert not compare(violent.sim.log, quiet.sim.log)
    assert all(snapshot(violent[name]) == snapshot(quiet[name]) for name in quiet.sim.components)


def test_a_component_that_remembers_outside_its_state_is_found_out_by_its_death():
    remembered = []

    class Forgetful(Chatter):
        def handle(self, message: Bar | Trade | Quote | PositionChanged, now: int) -> Iterator[Signal]:
            remembered.append(message)
            self.state.held = Decimal(len(remembered))
            return iter(())

    strategies = {"perp": (lambda: Forgetful(ChatterConfig(name="perp", instrument=ETH)), (ETH,))}
    found = house(market(1, Tier.TRADES), Tier.TRADES, strategies, seed=1)
    found.sim.run(rows=50)
    found.sim.settle()
    with pytest.raises(ContractError, match="perp, told the same again"):
        found.sim.kill("perp")


def test_what_one_sender_tells_one_receiver_arrives_in_order():
    found = played(2, together(2), kill=False)
    overtaken = 0
    for journal in found.sim.journals.values():
        last = {}
        heard = [told.envelope for told in journal if told.envelope is not None and told.envelope.source != "engine"]
        for envelope in heard:
            assert last.get(envelope.source, 0) < envelope.seq
            last[envelope.source] = envelope.seq
        overtaken += sum(one.ts_init > other.ts_init for one, other in itertools.pairwise(heard))
        assert all(one.now <= other.now for one, other in itertools.pairwise(journal))
    assert overtaken > 20


# --- the switch ----------------------------------------------------------------------------------

NERVOUS = {
    "kill_switch": {"yellow": 0.0005, "orange": 0.001, "red": 0.0015, "confirm_s": 1.0},
    "flatten_backoff_s": 0.5,
}


def test_the_kill_switch_closes_everything_and_stays():
    tripped = 0
    for seed in range(30):
        found = played(seed, apart(seed), risk=NERVOUS)
        books_agree(found)
        every_order_ends_once(found)
        if the_switch_stays_tripped(found):
            tripped += 1
            found.sim.tell("risk", StartTrading())
            found.sim.tell("risk", KillSwitchReset("ada", " "))
            found.sim.tell("risk", StartTrading())
            found.quiet()
            assert the_switch_stays_tripped(found)
            found.sim.tell("risk", KillSwitchReset("ada", "the feed was wrong"))
            found.sim.settle()
            assert found["risk"].state.trading is TradingState.REDUCING
            found.sim.tell("risk", StartTrading())
            found.sim.settle()
            assert found["risk"].state.trading is TradingState.ACTIVE
    assert tripped > 15


def test_after_the_switch_nothing_is_left():
    left = 0
    for seed in range(30):
        tier = TIERS[seed % 3]
        strategies = (
            chatter("perp", ETH, seed, bracket=0.0)
            | chatter("other", ETH, seed, every=4, bracket=0.0)
            | chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), bracket=0.0)
            | carrier("carrier", seed, (BTC,), (BTC_SPOT,))
        )
        found = house(market(seed, tier, rows=240), tier, strategies, seed=seed, risk=NERVOUS)
        found.sim.run(kill=sorted(found.sim.components), risk=0.003)
        found.quiet()
        tripped = [one for one in found.sim.log if isinstance(one.message, KillSwitchTripped)]
        if tripped and tripped[0].ts_init < found.tape.last_ts - 120 * SECOND:
            left += 1
            account = found["venue"].state.account
            assert account.positions == {}, seed
            for name in (BTC_SPOT, ETH_SPOT):  # what is left is too small to be sold
                assert account.held(INSTRUMENTS[name]) * Decimal(found["portfolio"].state.marks[name]) < 5
            assert found.said("reconciler", ReconcileCompleted)[-1].flat
    assert left > 5


@pytest.mark.parametrize("flatten", [False, True])
def test_a_stop_opens_nothing_more_and_flattens_if_asked(flatten):
    for seed in range(12):
        tier = TIERS[seed % 3]
        greedy = chatter("perp", ETH, seed, weights=(1.0,), bracket=0.0)
        found = house(
            market(seed, tier, rows=200), tier, greedy | carrier("carrier", seed, (BTC,), (BTC_SPOT,)), seed=seed
        )
        found.sim.run(rows=found.tape.size // 3)
        found.sim.tell("risk", StopTrading(flatten=flatten))
        found.sim.settle()
        before = len(found.sim.log)
        found.sim.run()
        found.quiet()
        everything_holds(found)
        for envelope in found.sim.log[before:]:
            if envelope.source == "risk" and isinstance(envelope.message, SubmitPair):
                assert not envelope.message.opening
            if envelope.source == "risk" and isinstance(envelope.message, TradingStateChanged):
                assert envelope.message.trading is not TradingState.ACTIVE
        if not flatten:
            assert found["venue"].state.account.positions
        else:
            assert found["venue"].state.account.positions == {}
            assert found["reconciler"].state.orders == {}
            assert found.said("reconciler", ReconcileCompleted)[-1].flat


def test_a_gentle_stop_lets_pairs_finish_and_opens_nothing_more():
    finished = Counter()
    for seed in range(36):
        tier = TIERS[seed % 3]
        strategies = carrier("carrier", seed, every=4) | chatter("perp", ETH, seed, weights=(1.0, -1.0), bracket=0.0)
        found = house(market(seed, tier, rows=200), tier, strategies, seed=seed)
        found.sim.run(rows=found.tape.size // 3)
        opening = [name for name, pair in found["broker"].state.pairs.items() if pair.order.opening]
        found.sim.tell("risk", StopTrading(flatten=False, finish=True, person="ada"))
        found.sim.settle()
        before = len(found.sim.log)
        found.sim.run(kill=["risk", "broker"], risk=0.003)
        found.quiet()
        everything_holds(found)
        said = [envelope.message for envelope in found.sim.log[before:] if envelope.source in {"risk", "broker"}]
        assert not [order for order in said if isinstance(order, SubmitPair) and order.opening]
        assert not found["broker"].state.pairs
        assert (found["risk"].state.trading, found["risk"].state.finishing) == (TradingState.REDUCING, "")
        ends = {pair.pair_id: pair for pair in said if isinstance(pair, PairFinished)}
        finished.update((ends[name].outcome, ends[name].reason) for name in opening if name in ends)
    assert finished["done", ""] > 3
    assert not any("trading is" in reason for _, reason in finished)


# --- stories that once broke ----------------------------------------------------------------------


def test_a_pair_that_was_waiting_is_finished_too():
    for seed in range(30):
        strategies = carrier("carrier", seed, every=4)
        found = house(market(seed, Tier.TRADES), Tier.TRADES, strategies, seed=seed)
        found.sim.run(rows=60)
        found.sim.tell("risk", StopTrading(flatten=False))
        found.sim.run()
        found.quiet()
        every_pair_finishes_once(found)
        nobody_waits_for_what_is_over(found)


@pytest.mark.parametrize("tier", TIERS)
def test_no_coin_is_sold_twice(tier):
    for seed in range(60):
        strategies = chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), every=3, bracket=0.0005)
        found = house(market(seed, tier, volatility=8e-4), tier, strategies, seed=seed, haste=0.3)
        found.sim.run()
        found.quiet()
        limits_are_respected(found)


def test_a_bracket_that_fired_is_gone():
    for seed in range(60):
        strategies = chatter("spot", ETH_SPOT, seed, weights=(1.0, 0.5, 0.0, 0.0), every=3, bracket=0.0005)
        found = house(market(seed, Tier.BOOK, volatility=8e-4), Tier.BOOK, strategies, seed=seed)
        found.sim.run()
        found.quiet()
        for fill in found.said("venue", OrderFilled):
            assert not fill.exit or fill.quantity * fill.price >= 5, fill


def test_an_exit_closes_what_its_entry_opened_and_opens_nothing():
    for seed in range(60):
        tier = TIERS[seed % len(TIERS)]
        strategies = chatter("perp", ETH, seed, every=4)
        found = house(market(seed, tier, rows=240), tier, strategies, seed=seed, risk=NERVOUS)
        found.sim.run()
        found.quiet()
        held = ZERO
        for fill in found.said("venue", OrderFilled):
            before, held = held, held + fill.quantity * fill.side
            assert not fill.exit or (abs(held) < abs(before) and held * before >= 0), fill
