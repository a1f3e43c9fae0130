"""The books beside the exchange's transaction log: the same fills and settlements, the same wallet to the last digit."""

import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from actors.exchange import render
from hean.bybit import decode
from hean.bybit.decode import Execution
from hean.exchange.refusals import Refused
from hean.exchange.words import ExecType, Executed, Logged
from hean.messages import EquityChanged, FundingSettled, OrderFilled
from hean.portfolio.portfolio import Portfolio, PortfolioConfig
from tests.unit.exchange.floor import ANN, BOB, PERP, SPOT, D, Floor, Side

STRATEGIES = ("a", "b", "c")


@dataclass
class Desk:
    """A client of the exchange whose fills go over the wire into books, divided among strategies that hold for and against."""

    seed: int
    owners: dict = field(default_factory=dict)
    said: list = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(self.seed)
        self.floor = Floor(funding_minutes=480, balances={"USDT": D("100000.123456"), "BTC": D("0.5")})
        self.balances = dict(self.floor.exchange.accounts[ANN].balances)
        instruments = {name: market.listing.instrument for name, market in self.floor.exchange.markets.items()}
        shares = dict.fromkeys(STRATEGIES, D("0.3"))
        self.portfolio = Portfolio(PortfolioConfig(balances=self.balances, shares=shares), instruments, frozenset())
        self.instruments = instruments
        self.price = 60_000

    def act(self):
        drawn = self.random.random()
        floor = self.floor
        if drawn < 0.7:
            name = self.random.choice((PERP, PERP, SPOT))
            quantity = D(self.random.randint(1, 400)) / 1000
            price = self.random.choice((None, str(self.price + self.random.randint(-3, 3))))
            link_id = f"o{len(self.owners)}"
            self.owners[link_id] = self.random.choice(STRATEGIES)
            with suppress(Refused):  # there may not be enough of it
                floor.order(ANN, self.random.choice((Side.BUY, Side.SELL)), quantity, price, name, link_id=link_id)
            floor.order(BOB, self.random.choice((Side.BUY, Side.SELL)), "0.05")
            for side in Side:
                floor.others_take(PERP, side, "0.2")
        elif drawn < 0.9:
            self.price += self.random.randint(-40, 40)
            floor.worth(str(self.price))
        elif floor.held(ANN) and drawn < 0.93:
            part = (abs(floor.held(ANN)) / 3).quantize(D("0.001"))
            if part:
                floor.exchange.deleverage(ANN, PERP, 0, part, floor.now)
        else:
            rate = D(self.random.randint(-75_000, 75_000)).scaleb(-8)
            floor.exchange.settle_funding(PERP, floor.now, rate)
        self.hear()

    def hear(self):
        """Tell the books what the exchange has executed; after each line of the log's last, both say the same."""
        events = self.floor.exchange.drain()
        rows = [
            render.execution(
                event.execution, self.floor.exchange.markets[event.execution.instrument].listing, stream=True
            )
            for event in events
            if isinstance(event, Executed) and event.execution.uid == ANN
        ]
        for said in decode.executions(rows, self.instruments):
            fact = self.filled(said) if isinstance(said, Execution) else said
            assert isinstance(fact, OrderFilled | FundingSettled)
            self.said += self.portfolio.handle(fact, self.floor.now)
        logged = [event.row for event in events if isinstance(event, Logged) and event.row.uid == ANN]
        for row in logged:
            self.balances[row.currency] = row.balance

    def filled(self, execution):
        return OrderFilled(
            execution.link_id,
            self.owners.get(execution.link_id, ""),
            execution.instrument,
            execution.trade_id,
            execution.side,
            execution.quantity,
            execution.price,
            execution.fee,
            execution.fee_currency,
            execution.liquidity,
            None,
            execution.exit,
            execution.ts_event,
        )

    def agree(self):
        ledger = self.portfolio.state.ledger
        told = [fact for fact in self.said if isinstance(fact, EquityChanged)]
        if told:
            assert told[-1].cash == self.balances["USDT"]
        assert ledger.cash() == self.balances["USDT"] == self.floor.balance(ANN)
        assert ledger.exposure.get(SPOT) == self.balances["BTC"] == self.floor.balance(ANN, "BTC")
        assert ledger.exposure.get(PERP, 0) == self.floor.held(ANN)
        holding = self.floor.exchange.accounts[ANN].holding(PERP, 0)
        assert ledger.entries.get(PERP, 0) == holding.position.value


@pytest.mark.parametrize("batch", range(4))
def test_cash_is_the_wallet_of_the_exchange_to_the_last_digit(batch):
    kinds = set()
    for seed in range(batch * 5, batch * 5 + 5):
        desk = Desk(seed)
        for _ in range(120):
            desk.act()
            desk.agree()
        kinds |= {one.exec_type for one in desk.floor.exchange.records[ANN].executions}
        books = desk.portfolio.state.ledger.books.values()
        # Else they would agree even if each book were asked for its own.
        assert sum(book.balance("USDT", "cash") for book in books) != desk.balances["USDT"]
    assert {ExecType.TRADE, ExecType.FUNDING, ExecType.DELEVERAGING} <= kinds
