"""An exchange without a market of its own: what the house quotes and what things are worth is said by the test."""

from decimal import Decimal

from hean.exchange.candles import CandleBook
from hean.exchange.exchange import HOUSE, Exchange
from hean.exchange.ids import Ids
from hean.exchange.listing import listings
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.exchange.words import NewOrder, OrderType
from hean.messages import Side, TimeInForce
from hean.units import MINUTE, SECOND, parse_time

START = parse_time("2026-01-05T10:00:00")
PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
ANN, BOB = "1001", "1002"
D = Decimal


class Floor:
    """Two clients, BTC as perpetual and spot, and a house that quotes when told to. Time stands still until it is moved."""

    def __init__(self, price="60000", symbols=("BTCUSDT",), funding_minutes=None, balances=None):
        listed = listings(symbols, at=START, funding_minutes=funding_minutes)
        self.exchange = Exchange(
            {name: Market(listing, Pricing(listing, START), CandleBook()) for name, listing in listed.items()},
            Ids(seed=1, ts_start=START),
        )
        self.now = START
        for uid in (ANN, BOB):
            self.exchange.open_account(uid, balances or {"USDT": D(100_000), "BTC": D(1)}, self.now)
        if price is not None:
            self.worth(price)
        self.exchange.drain()

    def worth(self, price, spread="1"):
        """Quote both markets of BTC at this price, ten coins on each side, and let a tick pass."""
        for name in (PERP, SPOT):
            market = self.exchange.markets[name]
            market.external_index = float(price)
            for side in Side:
                for ticks in list(market.book.prices(side)):
                    if self.exchange.background_at(name, side, ticks):
                        self.exchange.background_set(name, side, ticks, 0, self.now)
            self.quote(name, Side.BUY, D(price) - D(spread), 10)
            self.quote(name, Side.SELL, D(price) + D(spread), 10)
        self.pass_time(0)

    def quote(self, name, side, price, quantity):
        listing = self.exchange.markets[name].listing
        self.exchange.background_set(name, side, listing.ticks(D(price)), listing.steps(D(quantity)), self.now)

    def others_take(self, name, side, quantity, price=None):
        listing = self.exchange.markets[name].listing
        limit = listing.ticks(D(price)) if price is not None else None
        self.exchange.background_take(name, side, limit, listing.steps(D(quantity)), self.now)

    def pass_time(self, seconds):
        self.now += int(seconds * SECOND)
        self.exchange.tick(self.now)

    def order(self, uid, side, quantity, price=None, name=PERP, **more):
        """Send an order: limit where it has a price, else market."""
        more.setdefault("time_in_force", TimeInForce.GTC if price is not None else TimeInForce.IOC)
        new = NewOrder(
            instrument=name,
            side=side,
            kind=OrderType.LIMIT if price is not None else OrderType.MARKET,
            quantity=D(quantity),
            price=D(price) if price is not None else None,
            **more,
        )
        self.now += 1
        return self.exchange.create(uid, new, self.now)

    def held(self, uid, name=PERP, index=0):
        return self.exchange.accounts[uid].quantity(name, index)

    def balance(self, uid, coin="USDT"):
        return self.exchange.accounts[uid].balances.get(coin, D(0))

    def heard(self, kind):
        return [event for event in self.exchange.drain() if isinstance(event, kind)]

    def adds_up(self):
        """Every coin there is was paid in, and every contract bought was sold: to the last digit."""
        exchange = self.exchange
        coins = {coin for account in exchange.accounts.values() for coin in account.balances} | set(exchange.issued)
        for coin in coins:
            total = sum(account.balances.get(coin, D(0)) for account in exchange.accounts.values())
            owed = D(0)
            if coin == "USDT":
                owed = sum(
                    (
                        held.position.value
                        for account in exchange.accounts.values()
                        for _, _, held in account.positions()
                    ),
                    D(0),
                )
            there = total - owed + exchange.fees.get(coin, D(0))
            assert there == exchange.issued.get(coin, D(0)), (
                f"{coin}: {there} there, {exchange.issued.get(coin)} paid in"
            )
        for name, market in exchange.markets.items():
            if not market.listing.is_spot:
                net = sum(
                    held.quantity
                    for account in exchange.accounts.values()
                    for held in account.holdings.get(name, {}).values()
                )
                assert net == 0, f"{name}: {net} more bought than sold"


__all__ = ["ANN", "BOB", "HOUSE", "MINUTE", "PERP", "SPOT", "START", "D", "Floor", "Side"]
