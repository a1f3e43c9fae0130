"""Books that were not told everything, beside an exchange that knows: they end where it stands, and say what was corrected."""

import random
from itertools import permutations

import pytest

from actors.exchange import render
from hean.bybit import decode
from hean.bybit.decode import Execution
from hean.codec import decoded, encoded
from hean.exchange.words import Executed
from hean.messages import (
    OPENING,
    AccountSnapshot,
    AdjustBooks,
    BooksAdjusted,
    Discrepancy,
    FundingSettled,
    NodeStarted,
    OrderFilled,
    OrdersRestated,
    ReconcileCompleted,
    SnapshotAccount,
    Wake,
)
from hean.portfolio.portfolio import Portfolio, PortfolioConfig
from hean.reconcile.reconciler import Reconciler, ReconcilerConfig
from hean.units import SECOND
from tests.graph.test_wallet import STRATEGIES, Desk
from tests.unit.exchange.floor import ANN, PERP, SPOT, D, Side


class Account(Desk):
    """A client whose portfolio and reconciler are told by an unreliable wire; what they say to each other arrives."""

    def __init__(self, seed, *, loses=0.0, swaps=0.0):
        self.loses, self.swaps = loses, swaps
        super().__init__(seed)
        config = PortfolioConfig(balances={}, shares=dict.fromkeys(STRATEGIES, D("0.3")))
        self.portfolio = Portfolio(config, self.instruments, frozenset())
        self.reconciler = Reconciler(ReconcilerConfig(), self.instruments)
        self.late = []

    def tell(self, component, message):
        answers = list(component.handle(message, self.floor.now))
        self.said += answers
        for one in answers:
            match one:
                case SnapshotAccount():
                    self.tell(self.reconciler, self.snapshot(one.request_id))
                case AdjustBooks():
                    self.tell(self.portfolio, one)
                case Discrepancy() | ReconcileCompleted():
                    pass
                case _:
                    self.tell(self.reconciler, one)

    def hear(self):
        listings = {name: market.listing for name, market in self.floor.exchange.markets.items()}
        rows = [
            render.execution(event.execution, listings[event.execution.instrument], stream=True)
            for event in self.floor.exchange.drain()
            if isinstance(event, Executed) and event.execution.uid == ANN
        ]
        for said in decode.executions(rows, self.instruments):
            if self.random.random() < self.loses:
                continue
            fact = self.filled(said) if isinstance(said, Execution) else said
            if self.random.random() < self.swaps:
                self.late.append(fact)
                continue
            self.fact(fact)
            while self.late:
                self.fact(self.late.pop())

    def fact(self, fact):
        assert isinstance(fact, OrderFilled | FundingSettled)
        for component in (self.reconciler, self.portfolio):
            self.tell(component, fact)

    def snapshot(self, request_id):
        """The venue's word, over the wire."""
        exchange, now = self.floor.exchange, self.floor.now
        account = exchange.accounts[ANN]
        rows = [
            render.log_row(row, exchange.markets[row.instrument].listing if row.instrument else None)
            for row in exchange.records[ANN].log
            if row.ts > now - 120 * SECOND
        ]
        holding = account.holding(PERP, 0)
        entries = {} if holding.entry is None else {PERP: D(render.figure(holding.entry))}
        return AccountSnapshot(
            request_id=request_id,
            ts_event=now,
            complete=True,
            orders=(),
            positions={PERP: holding.quantity} if holding.quantity else {},
            balances=dict(account.balances),
            entries=entries,
            modes={"margin": "REGULAR_MARGIN"},
            booked=tuple(decode.entry(line) for line in decode.transactions(rows)),
        )

    def wait(self, seconds):
        """Let time pass, and the reconciler ask when it wants to."""
        until = self.floor.now + seconds * SECOND
        while (at := self.reconciler.wake_at()) <= until:
            self.floor.now = max(self.floor.now, at)
            self.tell(self.reconciler, Wake())
        self.floor.pass_time((until - self.floor.now) / SECOND)

    def of_kind(self, kind):
        return [one for one in self.said if isinstance(one, kind)]

    def agree(self):
        ledger = self.portfolio.state.ledger
        assert ledger.cash() == self.floor.balance(ANN)
        assert ledger.exposure.get(SPOT, 0) == self.floor.balance(ANN, "BTC")
        assert ledger.exposure.get(PERP, 0) == self.floor.held(ANN)
        assert self.of_kind(ReconcileCompleted)[-1].discrepancies == 0
        assert self.reconciler.state.suspicions == {}
        assert self.reconciler.state.adjusting == {}


def opened(seed, **unreliable):
    account = Account(seed, **unreliable)
    account.tell(account.portfolio, NodeStarted("core"))
    account.wait(3)
    account.agree()
    assert {one.reason for one in account.of_kind(BooksAdjusted)} == {OPENING}
    account.wait(10)
    account.said.clear()
    return account


def trade(account, steps):
    for _ in range(steps):
        account.act()
        account.floor.pass_time(account.random.randint(0, 3))
        account.hear()
    while account.late:
        account.fact(account.late.pop())


@pytest.mark.parametrize("seed", range(6))
def test_books_that_are_told_everything_are_never_corrected(seed):
    account = opened(seed)
    trade(account, 60)
    account.wait(90)

    account.agree()
    assert not account.of_kind(AdjustBooks)
    assert not account.of_kind(Discrepancy)


@pytest.mark.parametrize("seed", range(12))
def test_books_that_were_not_told_everything_end_as_the_exchange_does_and_say_what_was_corrected(seed):
    account = opened(seed, loses=0.15, swaps=0.1 * (seed % 2))
    for _ in range(4):
        trade(account, 15)
        account.wait(90)
        account.agree()

    made = account.of_kind(BooksAdjusted)
    assert made
    assert len({one.adjustment_id for one in made}) == len(made)
    assert {one.kind for one in account.of_kind(Discrepancy)} & {"UNKNOWN_FILL", "FUNDING"}
    flagged = account.portfolio.state.ledger.account()
    assert any("adjustment" in accounts for accounts in flagged.values())


@pytest.mark.parametrize("seed", range(6))
def test_facts_that_overtake_one_another_lose_no_money(seed):
    account = opened(seed, swaps=0.4)
    for _ in range(4):
        trade(account, 15)
        account.wait(90)
        account.agree()

    assert all(one.instrument and one.currency for one in account.of_kind(BooksAdjusted))
    assert not any("adjustment" in accounts for accounts in account.portfolio.state.ledger.account().values())


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_fills_told_in_another_order_move_money_between_position_and_cash_and_make_nobody_richer(order):
    account = opened(1)
    facts = []
    account.fact = facts.append
    for side, price in ((Side.BUY, "60000"), (Side.SELL, "60400"), (Side.BUY, "60200")):
        account.floor.worth(price)
        account.owners[f"o{len(facts)}"] = "a"
        account.floor.order(ANN, side, "0.2" if side is Side.BUY else "0.1", link_id=f"o{len(facts)}")
        account.hear()
    del account.fact
    for index in order:
        account.fact(facts[index])
    profit = sum(one.net() for one in account.portfolio.profits().values())
    account.wait(90)

    account.agree()
    assert sum(one.net() for one in account.portfolio.profits().values()) == profit
    assert {one.currency and one.instrument for one in account.of_kind(BooksAdjusted)} <= {PERP}
    account.floor.order(ANN, Side.SELL, "0.3", link_id="out")
    account.hear()
    account.wait(90)
    account.agree()


@pytest.mark.parametrize("seed", range(4))
def test_a_correction_that_a_crash_has_lost_is_made_after_it(seed):
    account = opened(seed, loses=0.3)
    trade(account, 15)
    account.loses = 0.0
    chance = random.Random(seed)
    for _ in range(20):
        account.wait(chance.randint(1, 9))
        for name in ("portfolio", "reconciler"):
            component = getattr(account, name)
            component.state = decoded(type(component.state), encoded(component.state))
        account.tell(account.reconciler, OrdersRestated({}, ()))
        account.tell(account.portfolio, NodeStarted("core"))
    account.wait(90)

    account.agree()
