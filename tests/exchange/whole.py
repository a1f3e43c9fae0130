"""The whole system in one process, without Ray: an exchange, both gateways, and every component in one dispatcher."""

import queue
import time
from collections import Counter
from decimal import Decimal

from actors.gateways.bybit_endpoint import Keys, loopback
from actors.gateways.bybit_feed import BybitFeed, FeedConfig
from actors.gateways.bybit_rest import Backoff, BybitRest
from actors.gateways.bybit_streams import Attempts
from actors.gateways.bybit_venue import BybitVenue, VenueConfig
from actors.gateways.warm_up import History, WarmUp
from hean.component import takes
from hean.dispatcher import Dispatcher
from hean.instruments import Category, split_id
from hean.live_system import component, live_strategies, topology, traded
from hean.messages import (
    Envelope,
    EpochBegan,
    EquityChanged,
    NodeStarted,
    Observation,
    OrderFilled,
    ReconcileCompleted,
    StartTrading,
    StopTrading,
    TradingState,
    TradingStateChanged,
)
from hean.portfolio.portfolio import Portfolio
from hean.topology import Node
from tests.exchange.client import QUICK, SHORT

CORE = ("portfolio", "reconciler", "broker", "risk", "monitor")
FEED, ENGINE = Node("feed", "feed"), Node("engine", "engine")


class Whole:
    """An engine's part played by a test: it passes on what the gateways say, keeps the time, and starts and stops."""

    def __init__(self, served, settings, *, feed=None, venue=None, epoch=1, balances=None):
        self.served = served
        self.settings = settings
        self.epoch = epoch
        self.endpoint, self.keys = loopback(served.url), Keys(served.key, served.secret)
        self.rest = BybitRest(self.endpoint, self.keys, instruments={}, backoff=Backoff())
        self.strategies = live_strategies(settings)
        names = traded(self.strategies)
        self.rules = {}
        for category in (Category.LINEAR, Category.SPOT):
            symbols = frozenset(split_id(name)[0] for name in names if split_id(name)[1] is category)
            self.rules |= self.rest.rules(category, symbols) if symbols else {}
        self.graph = topology(settings, self.strategies)
        self.nodes = {node.name: node for node in self.graph.nodes}
        hosted = (*CORE, *(strategy.name for strategy in self.strategies))
        self.components = {name: component(settings, self.rules, name, "t1x", self.strategies) for name in hosted}
        if balances is not None:
            held = self.components["portfolio"].config.model_copy(update={"balances": balances})
            self.components["portfolio"] = Portfolio(held, self.rules, self.nodes["portfolio"].watches)
        self.said = []
        self.dispatcher = Dispatcher(self.graph, self.components, incarnation=epoch, log=self.said.append)
        self.inbox = queue.SimpleQueue()
        watches = {watch for node in self.graph.nodes for watch in node.watches if node.name in hosted}
        common = {"pace": QUICK, "pings": SHORT}
        self.feed = BybitFeed(
            self.endpoint,
            watches,
            lambda batch: self.inbox.put((FEED, batch)),
            config=feed or FeedConfig(flush_ms=20),
            attempts=Attempts(200, 0.1),
            **common,
        )
        self.venue = BybitVenue(
            self.endpoint,
            self.keys,
            self.rules,
            lambda batch: self.inbox.put((self.nodes["venue"], batch)),
            since=time.time_ns(),
            config=venue or VenueConfig(timeout_s=1.0, patience_s=0.3, lag_s=0.5),
            attempts=Attempts(200, 0.1),
            **common,
        )
        self.history = History(self.endpoint, None, asked_per_second=100)
        self.past = {}
        for strategy in self.strategies:
            host = self.dispatcher.hosts[strategy.name]
            self.past[strategy.name] = WarmUp(self.history, self.dispatcher, host, strategy.looks_back, self.note)
        self.notes = []
        self.heard = []
        self.now = time.time_ns()
        self.seq = 0

    def __enter__(self):
        self.feed.start()
        self.venue.start()
        return self

    def __exit__(self, *_):
        self.venue.stop()
        self.feed.stop()
        self.rest.close()

    def note(self, text):
        self.notes.append(text)

    # --- the course of things -------------------------------------------------------------------

    def recover(self, seconds=20):
        """Begin a life, agree with the venue, and warm the strategies up."""
        self.tell(ENGINE, EpochBegan(self.epoch))
        self.tell(ENGINE, NodeStarted("engine"))
        self.until(self.clean, "the books agree with the venue", seconds)
        for strategy in self.strategies:
            self.past[strategy.name].begin(time.time_ns())

    def start(self):
        self.tell(ENGINE, StartTrading())

    def flatten(self):
        self.tell(ENGINE, StopTrading(flatten=True))

    def clean(self):
        done = self.of_kind(ReconcileCompleted)
        return bool(done) and done[-1].discrepancies == 0 and self.components["reconciler"].state.settled

    def until(self, true, what, seconds=20):
        """Go on until something has become true."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n" + self.story()
            self.step()

    def run(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.step()

    def step(self):
        """Take one batch of a gateway in, and wake whoever's time has come."""
        try:
            source, batch = self.inbox.get(timeout=0.01)
        except queue.Empty:
            pass
        else:
            for message in batch:
                self.tell(source, message)
        for host in self.dispatcher.hosts.values():
            at = host.component.wake_at()
            if at is not None and at <= self.clock():
                self.post(self.dispatcher.wake(host, self.now))

    def clock(self):
        self.now = max(self.now, time.time_ns())
        return self.now

    def tell(self, source, message):
        self.seq += 1
        envelope = Envelope(f"{source.name}@{self.epoch}", self.seq, self.clock(), "", "", message)
        if not isinstance(message, Observation):
            self.heard.append(envelope)
        for node, only in self.graph.receivers(source, type(message)):
            host = self.dispatcher.hosts.get(node.name)
            if host is None or (only is not None and not only(message, node)):
                continue
            if any(issubclass(type(message), kind) for kind in takes(host.component)):
                told = self.past[node.name].join([envelope]) if node.name in self.past else [envelope]
                for one in told:
                    self.post(self.dispatcher.tell(node.name, one, self.clock()))

    def post(self, outward):
        for node, envelope in outward:
            if node.name == "venue":
                self.venue.tell(envelope.message)

    # --- what can be seen -----------------------------------------------------------------------

    def of_kind(self, kind, strategy=None):
        said = [one.message for one in self.said if isinstance(one.message, kind)]
        return [one for one in said if strategy is None or one.strategy == strategy]

    def traded(self):
        """How many fills each strategy has had."""
        return Counter(fill.strategy for fill in self.of_kind(OrderFilled))

    @property
    def equity(self):
        return self.of_kind(EquityChanged)[-1].equity

    def flat(self):
        """Whether nothing of a strategy's is held, nor under way."""
        broker, books = self.components["broker"].state, self.components["portfolio"].state.ledger.books
        accountant = self.components["portfolio"].accountant
        held = [
            accountant.instrument(name).whole_steps(accountant.quantity(book, name))
            for strategy, book in books.items()
            if strategy
            for name in self.rules
        ]
        return not (any(held) or broker.open or broker.pairs)

    @property
    def trading(self):
        states = self.of_kind(TradingStateChanged)
        return states[-1].trading if states else TradingState.HALTED

    def story(self, last=40):
        """What was said and heard lately, for whoever must find out why."""
        lines = [(one.ts_init, f"{one.source}: {one.message}") for one in [*self.said, *self.heard]]
        return "\n".join(f"{ts / 1e9:.3f} {text}" for ts, text in sorted(lines)[-last:])

    # --- theirs against ours --------------------------------------------------------------------

    def differences(self):
        """Where the books and the exchange are not the same, to the last digit: cash, coins and contracts."""
        account = self.served.server.exchange.accounts[self.served.keys[0].uid]
        ledger = self.components["portfolio"].state.ledger
        found = {}
        theirs = dict(account.balances)
        cash = ledger.cash()
        if theirs["USDT"] != cash:
            found["USDT"] = (cash, theirs["USDT"])
        accountant = self.components["portfolio"].accountant
        for name, rules in self.rules.items():
            ours = sum((accountant.quantity(book, name) for book in ledger.books.values()), Decimal(0))
            if rules.is_spot:
                held = theirs.get(rules.base, Decimal(0))
            else:
                held = {one.instrument: one.quantity for one in self.rest.positions()}.get(name, Decimal(0))
            if ours != held:
                found[name] = (ours, held)
        return found
