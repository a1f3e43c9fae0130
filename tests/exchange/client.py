"""Our own client at work against the exchange on loopback, and the questions whether anything was lost."""

import threading
import time
from collections import Counter
from contextlib import contextmanager
from decimal import Decimal
from itertools import count

from actors.exchange.drills import Served, scale_limits, serving
from actors.exchange.opening import Plan
from actors.gateways.bybit_endpoint import Keys, Pings, loopback
from actors.gateways.bybit_feed import BybitFeed, FeedConfig
from actors.gateways.bybit_orders import BybitOrders
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.gateways.bybit_streams import Attempts, Pace
from actors.gateways.bybit_venue import BybitVenue, VenueConfig
from hean.bybit import decode
from hean.bybit.encode import Verdict
from hean.exchange.words import ExecType
from hean.execution.orders import TERMINAL, Order, OrderStatus
from hean.instruments import Category
from hean.messages import (
    BookLevels,
    CancelOrder,
    ErrorReported,
    FundingSettled,
    MarkPrice,
    OrderFact,
    OrderFilled,
    OrderSubmitted,
    Quote,
    ReconcileDue,
    Side,
    SubmitOrder,
    TimeInForce,
    Trade,
)

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
WATCHES = frozenset((name, kind) for name in (PERP, SPOT) for kind in (Quote, BookLevels, Trade)) | {(PERP, MarkPrice)}

QUICK = Pace(first_s=0.05, most_s=0.5, healthy_s=1.0, ready_s=2.0)
SHORT = Pings(interval_s=0.6, timeout_s=0.3)
FEED = FeedConfig(
    book_silence_s=1.5,
    ticker_silence_s=1.5,
    trade_audit_s=1.0,
    resync_s=0.2,
    ack_s=1.5,
    flush_ms=5,
    clock_s=0.5,
    timeout_s=2,
)
VENUE = VenueConfig(timeout_s=1.0, recv_window_ms=1_000, lag_s=0.5, patience_s=0.2, ack_s=1.5, clock_s=0.5)


@contextmanager
def exchange(**plan):
    """A busy made-up market, its rate limits out of the way."""
    wanted = Plan(**({"symbols": ("BTCUSDT",), "seed": 5, "days": 1, "accounts": 2} | plan))
    with serving(wanted) as served, scale_limits(served, 1_000):
        yield served


class Desk:
    """A feed and a venue gateway, all that they said, and an order maker that counts its names."""

    def __init__(self, served: Served, *, config=VENUE, feed=FEED, watches=WATCHES, trades=True, prefix="desk", **more):
        self.served = served
        self.prefix, self.numbers = prefix, count(1)
        self.uid = served.keys[0].uid
        self.keys = Keys(served.key, served.secret)
        self.endpoint = loopback(served.url)
        self.rest = BybitRest(self.endpoint, self.keys, instruments={}, backoff=Backoff(), timeout_s=5)
        self.changes = BybitOrders(self.endpoint, self.keys, backoff=Backoff())
        self.rules = {
            **self.rest.rules(Category.LINEAR, frozenset({"BTCUSDT"})),
            **self.rest.rules(Category.SPOT, frozenset({"BTCUSDT"})),
        }
        self.market = []
        self.said = []
        self.sent = {}
        self.lock = threading.Lock()
        common = {"pace": QUICK, "pings": SHORT}
        self.feed = BybitFeed(
            self.endpoint, watches, self.market.extend, config=feed, attempts=Attempts(200, 0.1), **common
        )
        since = more.pop("since", time.time_ns())
        self.venue = (
            BybitVenue(
                self.endpoint,
                self.keys,
                self.rules,
                self.said.extend,
                since=since,
                config=config,
                attempts=Attempts(200, 0.1),
                **(common | more),
            )
            if trades
            else None
        )

    def __enter__(self):
        self.feed.start()
        if self.venue is not None:
            self.venue.start()
            self.until(lambda: self.venue._account.private.topics.live, "the private stream stands")
        self.until(lambda: all(self.feed.book(name) is not None for name in (PERP, SPOT)), "the books are known")
        trades = [one for one in self.feed._watched.values() if Trade in one.kinds]
        self.until(lambda: all(one.trades.ts_since for one in trades), "trades are told")
        return self

    def __exit__(self, *_):
        alive = self.feed.alive and (self.venue is None or self.venue.alive)
        if self.venue is not None:
            self.venue.stop()
        self.feed.stop()
        self.rest.close()
        self.changes.close()
        assert alive, "no thread has failed"
        assert not self.feed.alive

    def until(self, true, what, seconds=12.0):
        """Wait for something to become true."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; said {self.said[-20:]}"
            time.sleep(0.01)

    # --- orders ---------------------------------------------------------------------------------

    def order(self, side=Side.BUY, quantity="0.001", limit=None, instrument=PERP, tif=TimeInForce.GTC, **more):
        """Send an order; its name."""
        name = f"{self.prefix}-{next(self.numbers)}"
        command = SubmitOrder(
            client_order_id=name,
            strategy="drill",
            instrument=instrument,
            side=side,
            quantity=Decimal(quantity),
            limit=None if limit is None else self.rules[instrument].price(limit),
            time_in_force=tif,
            reduce_only=more.pop("reduce_only", False),
            reference=None,
            bracket=more.pop("bracket", None),
        )
        self.sent[name] = command
        self.venue.tell(command)
        return name

    def resting(self, instrument=PERP, away=0.02, quantity="0.001"):
        """Send a bid that nobody will reach."""
        return self.order(limit=self.best(instrument)[0] * (1 - away), instrument=instrument, quantity=quantity)

    def cancel(self, name):
        self.venue.tell(CancelOrder("drill", name, self.sent[name].instrument))

    def best(self, instrument=PERP):
        self.until(lambda: self.feed.book(instrument) is not None, "the book is known")
        book = self.feed.book(instrument)
        return (book.bids[0][0], book.asks[0][0]) if book is not None else self.best(instrument)

    def some_flow(self, rounds=4):
        """Orders of all kinds: at market on both markets and both sides, and some that rest and are called back."""
        for at in range(rounds):
            side = Side.BUY if at % 2 == 0 else Side.SELL
            self.order(side)
            self.order(side, instrument=SPOT, quantity="0.002")
            name = self.resting()
            self.until(lambda name=name: self.facts(name), "an answer to it")
            self.cancel(name)

    # --- what we know ---------------------------------------------------------------------------

    def facts(self, name):
        return [fact for fact in list(self.said) if isinstance(fact, OrderFact) and fact.client_order_id == name]

    def of_kind(self, kind, instrument=None):
        said = [one for one in [*list(self.said), *list(self.market)] if isinstance(one, kind)]
        return [one for one in said if instrument is None or one.instrument == instrument]

    def errors(self):
        return Counter(one.kind for one in self.of_kind(ErrorReported))

    def reconciles(self):
        return self.of_kind(ReconcileDue)

    def orders(self):
        """Each order as the broker has it after all these facts; a fact that cannot follow raises."""
        kept = {}
        for name, command in self.sent.items():
            order = Order(
                command.client_order_id,
                command.strategy,
                command.instrument,
                command.side,
                command.quantity,
                command.limit,
                command.time_in_force,
                command.reference,
            )
            order.apply(OrderSubmitted(name, command.strategy, command.instrument, command.side, command.quantity))
            heard = set()
            for fact in self.facts(name):
                if isinstance(fact, OrderFilled) and fact.trade_id in heard:
                    continue
                if order.status in TERMINAL and not isinstance(fact, OrderFilled):
                    continue
                heard |= {fact.trade_id} if isinstance(fact, OrderFilled) else set()
                order.apply(fact)
            kept[name] = order
        return kept

    # --- what the exchange knows ----------------------------------------------------------------

    @property
    def records(self):
        return self.served.server.exchange.records[self.uid]

    def at_the_exchange(self):
        """The orders the exchange holds of ours, by our names: (still open, filled)."""
        return {
            order.link_id: (order.status.is_open, order.filled)
            for order in list(self.records.orders.values())
            if order.link_id
        }

    def executions(self, *kinds):
        kinds = kinds or (ExecType.TRADE,)
        return [one for one in list(self.records.executions) if one.exec_type in kinds]

    def position(self):
        return {one.instrument: one.quantity for one in self.rest.positions()}.get(PERP, Decimal(0))

    def others_sell(self, quantity):
        """Let the second account sell at market."""
        other = self.served.keys[1]
        orders = BybitOrders(self.endpoint, Keys(other.key, other.secret), backoff=Backoff())
        sold = SubmitOrder(
            f"other-{next(self.numbers)}",
            "",
            PERP,
            Side.SELL,
            Decimal(quantity),
            None,
            TimeInForce.GTC,
            False,
            None,
            None,
        )
        assert orders.send(sold).verdict is Verdict.ACCEPTED
        orders.close()

    # --- nothing lost ---------------------------------------------------------------------------

    def nothing_lost(self, seconds=12.0):
        """Wait until all orders are settled in our mind, and then compare every order and every execution."""
        deadline = time.monotonic() + seconds
        while self.disagreements():
            assert time.monotonic() < deadline, f"still other than at the exchange: {self.disagreements()}"
            time.sleep(0.02)
        self.until(lambda: self._fills() >= self._executed(), "every execution is known", seconds)
        assert self._fills() == self._executed(), "every execution is known exactly once"
        settled = Counter(one.settlement_id for one in self.of_kind(FundingSettled))
        assert settled == Counter(one.exec_id for one in self.executions(ExecType.FUNDING))
        assert set(self.at_the_exchange()) <= set(self.sent), "no order was doubled under another name"

    def _fills(self):
        return Counter(fill.trade_id for fill in self.of_kind(OrderFilled))

    def _executed(self):
        kinds = ExecType.TRADE, ExecType.LIQUIDATION, ExecType.DELEVERAGING
        # One match has one id; where we met ourselves it is two fills.
        return Counter(f"{one.exec_id}:{one.order_id}" for one in self.executions(*kinds))

    def disagreements(self):
        """Each order that is not at the exchange what we believe it is: name, ours, theirs."""
        theirs = self.at_the_exchange()
        found = []
        for name, order in self.orders().items():
            is_open, filled = theirs.get(name, (False, Decimal(0)))
            settled = order.status in TERMINAL | {OrderStatus.OPEN}
            there = name in theirs or order.status is OrderStatus.REJECTED
            if not (settled and there and order.filled == filled and (order.status is OrderStatus.OPEN) is is_open):
                found.append(
                    (name, order.status, order.filled, theirs.get(name), self.venue._account.tracker.orders.get(name))
                )
        return found

    def books_are_right(self, seconds=12.0):
        """Wait until every kept book is, level for level, what the exchange shows by REST."""
        for name in (PERP, SPOT):
            self.until(lambda name=name: self._same_book(name), f"the book of {name} is that of the exchange", seconds)

    def _same_book(self, name):
        category = "spot" if name is SPOT else "linear"
        said = self.rest.public("get_orderbook", {"category": category, "symbol": "BTCUSDT", "limit": 50})
        theirs = decode.rest_book(said, name).levels
        ours = self.feed.book(name)
        return ours is not None and (ours.bids, ours.asks) == (theirs.bids, theirs.asks)

    def trades_are_right(self, since, seconds=12.0):
        """Wait until every trade printed since an instant has been told exactly once, in order."""
        for name in (PERP, SPOT):
            self.until(lambda name=name: self._same_trades(name, since), f"every trade of {name} is known", seconds)

    def _same_trades(self, name, since):
        told = [one for one in self.of_kind(Trade, name) if one.ts_event >= since]
        category = "spot" if name is SPOT else "linear"
        limit = 60 if name is SPOT else 1_000
        said = self.rest.public("get_public_trade_history", {"category": category, "symbol": "BTCUSDT", "limit": limit})
        printed = [one.trade for one in decode.rest_prints(said, name) if one.trade.ts_event >= since]
        return told[-len(printed) :] == printed if printed else not told
