"""The state file: what was saved comes back, whatever became of the process; and what is no state file is said so."""

import contextlib
import sqlite3
import subprocess
import sys
from decimal import Decimal
from random import Random

import msgspec
import pytest
from pybit.exceptions import InvalidRequestError
from pybit.unified_trading import HTTP

from actors.exchange import drills
from actors.exchange.keeper import FORMAT, Keeper
from actors.exchange.opening import Plan
from hean.errors import ConfigError, DataError
from hean.exchange.account import HEDGE
from hean.exchange.candles import CandleBook
from hean.exchange.clearing import HOUSE
from hean.exchange.exchange import Exchange
from hean.exchange.ids import Ids
from hean.exchange.listing import listings
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.exchange.refusals import Refused
from hean.exchange.words import (
    Amendment,
    Exit,
    NewOrder,
    OrderType,
    Status,
    TpslMode,
    TradingStop,
    Trigger,
    Which,
)
from hean.messages import Side, TimeInForce
from hean.units import DAY, HOUR, MILLISECOND, MINUTE, SECOND

START = 1_700_000_000 * SECOND
PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
MIDDLE = Decimal(60_000)
FUNDS = {"USDT": Decimal(100_000), "BTC": Decimal(1), "ETH": Decimal(10)}
D = Decimal


def built(start=START, middle=MIDDLE):
    listed = listings(["BTCUSDT"], at=start, funding_minutes=60)
    markets = {name: Market(one, Pricing(one, start), CandleBook()) for name, one in listed.items()}
    exchange = Exchange(markets, Ids(seed=1, ts_start=start))
    for name in (PERP, SPOT):
        markets[name].external_index = float(middle)
        quote(exchange, name, middle, start)
    exchange.tick(start)
    return exchange


def quote(exchange, name, middle, now):
    """Let the house quote around a price, and something trade there."""
    listing = exchange.markets[name].listing
    exchange.markets[name].external_index = float(middle)
    for distance in range(1, 60):
        for side in Side:
            price = middle - side * distance
            exchange.background_set(name, side, listing.ticks(price), listing.steps(D("0.5")), now)
    exchange.background_take(name, Side.BUY, None, listing.steps(D("0.001")), now)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


def limit(side, price, quantity="0.01", link="", name=PERP, **more):
    return NewOrder(
        instrument=name,
        side=side,
        kind=OrderType.LIMIT,
        quantity=D(quantity),
        price=D(price),
        link_id=link,
        **more,
    )


def market(side, quantity="0.01", name=PERP, **more):
    return NewOrder(
        instrument=name,
        side=side,
        kind=OrderType.MARKET,
        quantity=D(quantity),
        time_in_force=TimeInForce.IOC,
        **more,
    )


class Life:
    """One life of an exchange with a file: begun anew, or taken up where the last one ended."""

    def __init__(self, path, start=START, middle=MIDDLE):
        self.keeper = Keeper(path)
        self.exchange = built(start, middle)
        self.now = start
        saved = self.keeper.load()
        if saved is None:
            for uid in ("1", "2"):
                self.exchange.open_account(uid, FUNDS, start)
        else:
            saved.put_back(self.exchange, start)
        self.settle()

    def settle(self):
        self.keeper.save(self.exchange, self.exchange.drain())

    def create(self, new, uid="1"):
        order = self.exchange.create(uid, new, self.now)
        self.settle()
        return order

    def pass_time(self, by, middle=MIDDLE):
        self.now += by
        quote(self.exchange, PERP, middle, self.now)
        self.exchange.tick(self.now)
        self.settle()

    def end(self):
        self.keeper.close()


def clients(exchange):
    return {uid: account for uid, account in exchange.accounts.items() if uid != HOUSE}


def plainly(value):
    """Structs as dicts, without the count of arrivals in the book: their order is what matters, see `queue`."""
    match value:
        case dict():
            return {name: plainly(one) for name, one in value.items() if name != "place"}
        case list():
            return [plainly(one) for one in value]
        case _:
            return value


def told_of(exchange):
    """Everything that clients can ask for, and their queues."""
    own = msgspec.to_builtins([clients(exchange), exchange.records], str_keys=True)
    return [plainly(own), [queue(exchange, name, side) for name in exchange.markets for side in Side]]


def total(exchange):
    """Every coin there is: what accounts hold, what positions are worth at a price, and the fees taken."""
    coins = dict(exchange.fees)
    for account in exchange.accounts.values():
        for coin, balance in account.balances.items():
            coins[coin] = coins.get(coin, D(0)) + balance
        for name, held in account.holdings.items():
            quote_coin = exchange.markets[name].listing.instrument.quote
            for holding in held.values():
                worth = holding.quantity * MIDDLE - holding.position.value
                coins[quote_coin] = coins.get(quote_coin, D(0)) + worth
    return {coin: amount for coin, amount in coins.items() if amount}


def queue(exchange, name, side):
    """Whose orders wait on a side, in the order they would be met."""
    other = Side.SELL if side is Side.BUY else Side.BUY
    book = exchange.markets[name].book
    return [(one.key, one.price, one.size) for one in book.opposite(other, None) if one.owner != HOUSE]


def test_a_new_file_holds_nothing_and_remembers_what_market_it_is_of(path):
    keeper = Keeper(path)
    assert keeper.load() is None
    assert keeper.market is None
    keeper.begin({"seed": 7, "symbols": ["BTCUSDT"]})
    keeper.close()

    again = Keeper(path)
    assert again.market == {"seed": 7, "symbols": ["BTCUSDT"]}
    again.close()


def test_everything_of_an_account_comes_back(path):
    before = Life(path)
    exchange = before.exchange
    exchange.set_leverage("1", PERP, D(25), D(25), before.now)
    exchange.switch_mode("2", [PERP], HEDGE, before.now)
    exchange.set_window("1", "DERIVATIVES", 30, before.now)
    before.create(market(Side.BUY, "0.2"))
    before.create(market(Side.SELL, "0.1", position_idx=2), uid="2")
    before.create(market(Side.BUY, "100", name=SPOT, in_quote=True))
    resting = before.create(limit(Side.BUY, "59000", link="rests"))
    before.create(limit(Side.SELL, "60500", link="sells", name=SPOT))
    before.create(limit(Side.BUY, "61000", link="waits", trigger=Trigger(D(60_800), rising=True)))
    exchange.trading_stop(
        "1",
        TradingStop(
            instrument=PERP,
            position_idx=0,
            mode=TpslMode.FULL,
            take_profit=Exit(D(66_000)),
            stop_loss=Exit(D(55_000)),
        ),
        before.now,
    )
    amendment = Amendment(which=Which(instrument=PERP, order_id=resting.order_id), quantity=D("0.005"))
    exchange.amend("1", amendment, before.now)
    exchange.settle_funding(PERP, before.now, D("0.0001"))
    before.settle()
    before.end()

    after = Life(path)

    assert clients(after.exchange) == clients(exchange)
    assert after.exchange.accounts[HOUSE].balances == exchange.accounts[HOUSE].balances
    assert after.exchange.records == exchange.records
    assert after.exchange.fees == exchange.fees
    assert after.exchange.issued == exchange.issued
    assert total(after.exchange) == total(exchange) == after.exchange.issued
    after.end()


def test_open_orders_return_to_their_places(path):
    before = Life(path)
    created = [
        before.create(limit(Side.BUY, price, quantity), uid)
        for uid, price, quantity in [
            ("1", "59900.5", "0.01"),
            ("2", "59900.5", "0.02"),
            ("1", "59800", "0.03"),
            ("2", "59900.5", "0.04"),
            ("1", "59950.5", "0.05"),
        ]
    ]
    # A larger quantity goes to the back: places are not the order of creation.
    which = Which(instrument=PERP, order_id=created[0].order_id)
    before.exchange.amend("1", Amendment(which=which, quantity=D("0.015")), before.now)
    before.settle()
    wanted = queue(before.exchange, PERP, Side.BUY)
    before.end()

    after = Life(path)

    assert [key for key, _, _ in wanted] == [created[at].order_id for at in (4, 1, 3, 0, 2)]
    assert queue(after.exchange, PERP, Side.BUY) == wanted
    after.end()


def test_orders_that_the_market_has_passed_meanwhile_are_met_at_their_price(path):
    before = Life(path)
    passed = before.create(limit(Side.SELL, "60030.5", "0.7"))
    apart = before.create(limit(Side.SELL, "60090.5", "0.7"))
    before.end()

    after = Life(path, middle=D(60_060))

    met = after.exchange.records["1"].orders[passed.order_id]
    assert (met.status, met.average) == (Status.FILLED, D("60030.5"))
    assert all(one.maker for one in after.exchange.records["1"].executions)
    assert queue(after.exchange, PERP, Side.SELL) == [(apart.order_id, 600_905, 700)]
    book = after.exchange.markets[PERP].book
    assert book.best(Side.BUY) < book.best(Side.SELL)
    assert total(after.exchange) == after.exchange.issued
    after.end()
    assert Keeper(path).load().records["1"].orders[passed.order_id].status is Status.FILLED


def test_link_ids_are_refused_for_ever(path):
    before = Life(path)
    before.create(limit(Side.BUY, "59000", link="once"))
    before.exchange.cancel("1", Which(instrument=PERP, link_id="once"), before.now)
    before.settle()
    before.end()

    after = Life(path)

    with pytest.raises(Refused, match="110072"):
        after.create(limit(Side.BUY, "59000", link="once"))
    after.create(limit(Side.BUY, "59000", link="once"), uid="2")
    after.end()


def test_names_are_never_given_twice(path):
    seen = set()
    for _ in range(3):
        life = Life(path)
        order = life.create(market(Side.BUY, "0.001"))
        executions = [one.exec_id for one in life.exchange.records["1"].executions]
        assert order.order_id not in seen
        assert len(set(executions)) == len(executions)
        assert life.exchange.markets[PERP].seq >= max(
            one.seq for one in life.exchange.records["1"].executions if one.instrument == PERP
        )
        seen.add(order.order_id)
        life.end()

    assert len(seen) == 3


def test_a_closing_order_continues_its_record_after_a_restart(path):
    before = Life(path)
    before.create(market(Side.BUY, "0.1"))
    order = before.create(limit(Side.SELL, "60010.5", "0.1", reduce_only=True))
    listing = before.exchange.markets[PERP].listing
    ticks = listing.ticks(D("60010.5"))
    book = before.exchange.markets[PERP].book
    ahead = sum(one.size for one in book.opposite(Side.BUY, ticks) if one.owner == HOUSE)
    before.exchange.background_take(PERP, Side.BUY, ticks, ahead + 20, before.now)
    before.settle()
    (record,) = before.exchange.records["1"].closed
    assert 0 < record.closed < D("0.1")
    before.end()

    after = Life(path)
    after.exchange.background_take(PERP, Side.BUY, ticks, listing.steps(D(10)), after.now)
    after.settle()
    after.end()
    last = Life(path)

    (record,) = last.exchange.records["1"].closed
    assert (record.order_id, record.closed, record.fills) == (order.order_id, D("0.1"), record.fills)
    assert record.fills >= 2
    last.end()


def test_a_trailing_stop_keeps_what_it_has_gained(path):
    before = Life(path)
    before.create(market(Side.BUY, "0.1"))
    wanted = TradingStop(instrument=PERP, position_idx=0, mode=TpslMode.FULL, trailing=D(500))
    before.exchange.trading_stop("1", wanted, before.now)
    before.settle()
    for step in range(1, 6):
        before.pass_time(SECOND, MIDDLE + 20 * step)
    stops = [order.trigger for order in before.exchange.accounts["1"].open_orders.values()]
    assert stops
    assert stops[0].price > MIDDLE - 450
    before.end()

    after = Life(path)

    assert [order.trigger for order in after.exchange.accounts["1"].open_orders.values()] == stops
    after.end()


def test_settled_funding_and_closed_minutes_are_kept(path, monkeypatch):
    life = Life(path)
    life.create(market(Side.BUY, "0.1"))
    for _ in range(125):
        life.pass_time(MINUTE)
        # The keeper looks once a minute of the clock.
        monkeypatch.setattr("actors.exchange.keeper.time.time_ns", lambda: life.now)
    stamps = [ts for ts, _ in life.exchange.markets[PERP].pricing.settled]
    life.end()

    saved = Keeper(path).load()

    assert [ts for ts, _ in saved.settled[PERP]] == stamps
    assert len(stamps) >= 2
    assert all(ts % HOUR == 0 for ts in stamps)
    minutes = [at for at, _ in saved.candles[PERP]]
    assert minutes == list(range(minutes[0], minutes[0] + 60_000 * len(minutes), 60_000))
    assert len(minutes) >= 120
    rows = life.exchange.markets[PERP].candles.query("last", "1", limit=1000)
    by_start = {int(row[0]): row[1:] for row in rows}
    assert all(candle["last"] == by_start[at] for at, candle in saved.candles[PERP])


def test_minutes_that_the_market_no_longer_tells_are_let_go(path):
    """Or a start would take longer from week to week."""
    life = Life(path)
    life.create(market(Side.BUY, "0.1"))
    life.end()
    newest = 10**12
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT OR REPLACE INTO facts VALUES ('market', '{\"days\": 3}')")
        file.execute("DELETE FROM candles")
        for days in range(10):
            at = newest - days * DAY // MILLISECOND
            file.execute("INSERT INTO candles VALUES (?, ?, ?)", (PERP, at, '{"last":[1,1,1,1,0,0]}'))

    kept = Keeper(path)
    saved = kept.load()
    kept.close()

    assert len(saved.candles[PERP]) == 4
    assert saved.candles[PERP][-1][0] == newest


@pytest.mark.parametrize("seed", range(3))
def test_random_flow_with_restarts_is_the_same_as_without(tmp_path, seed):
    """Two exchanges are told the same; one is stopped and taken up again at every turn. Nothing tells them apart."""
    steady, broken = Life(tmp_path / "steady.db"), Life(tmp_path / "broken.db")
    chance = Random(seed)
    for turn in range(120):
        uid, draw = chance.choice("12"), chance.random()
        side = chance.choice(list(Side))
        price = MIDDLE + chance.randint(-80, 80) + D("0.5")
        name = chance.choice([PERP, SPOT])
        quantity = D(chance.randint(1, 30)) / 1000
        for life in (steady, broken):
            account = life.exchange.accounts[uid]
            try:
                if draw < 0.5:
                    life.create(limit(side, str(price), str(quantity), link=f"l{turn}", name=name), uid)
                elif draw < 0.8:
                    life.create(market(side, str(quantity), name=name), uid)
                elif account.open_orders:
                    order_id = min(account.open_orders)
                    order = account.open_orders[order_id]
                    life.exchange.cancel(uid, Which(instrument=order.instrument, order_id=order_id), life.now)
                    life.settle()
            except Refused:
                life.settle()
        if turn % 5 == 0:
            now, house = broken.now, broken.exchange.markets
            broken.end()
            broken = Life(tmp_path / "broken.db")
            broken.now = now
            # The market goes on where it was; what it showed is not the file's to keep.
            for market_name, was in house.items():
                take_over_background(was, broken.exchange.markets[market_name])
        assert told_of(broken.exchange) == told_of(steady.exchange)

    assert sum(len(one.executions) for one in broken.exchange.records.values()) > 30
    assert total(broken.exchange) == total(steady.exchange) == steady.exchange.issued
    steady.end()
    broken.end()


def take_over_background(was, market):
    """Give a market the house's quotes that another had, in their queues, and its last price."""
    for side in Side:
        other = Side.SELL if side is Side.BUY else Side.BUY
        for one in list(market.book.opposite(other, None)):
            market.book.remove(one)
        for one in was.book.opposite(other, None):
            market.book.add(one)
    market.last, market.seq = was.last, was.seq
    market.pricing = was.pricing


# --- files that will not do -----------------------------------------------------------------------


def test_a_file_in_use_is_refused(path):
    life = Life(path)
    script = (
        "import sys; from pathlib import Path; from actors.exchange.keeper import Keeper; "
        "from hean.errors import ConfigError\n"
        "try: Keeper(Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)"
    )

    said = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True).stdout

    assert said.strip() == f"{path} is in use by another hean exchange: stop it, or name another file"
    life.end()


def test_a_file_of_something_else_is_refused(path):
    path.write_text("symbol,price\nBTCUSDT,60000\n" * 100)

    with pytest.raises(DataError, match="no state file"):
        Keeper(path)


def test_a_database_of_something_else_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE prices (price REAL)")
    database.close()

    with pytest.raises(DataError, match="no state file of hean exchange"):
        Keeper(path)

    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("prices",)]
    database.close()


def test_a_file_of_another_format_is_refused(path):
    Life(path).end()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version={FORMAT + 1}")
    database.close()

    with pytest.raises(DataError, match=f"its format is {FORMAT + 1}, this HEAN writes {FORMAT}"):
        Keeper(path)


def test_a_damaged_file_is_refused(path):
    life = Life(path)
    for number in range(300):
        life.create(limit(Side.BUY, "59000", "0.001", link=f"l{number}"))
    life.end()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 3)
        file.write(b"\xff" * 20_000)

    with pytest.raises(DataError, match="damaged"):
        Keeper(path).load()


def test_a_file_whose_words_are_no_longer_understood_is_refused(path):
    Life(path).end()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE accounts SET body = '{\"uid\": 5}' WHERE uid = '1'")
    database.close()

    with pytest.raises(DataError, match="damaged"):
        Keeper(path).load()


def test_once_it_could_not_write_it_writes_no_more(path):
    """What came after a gap would not fit what is there."""
    life = Life(path)
    life.keeper._database.execute("PRAGMA max_page_count=20")
    said = ""
    for number in range(450):
        try:
            life.create(limit(Side.BUY, "59000", "0.001", link=f"l{number}"))
        except ConfigError as failure:
            said = str(failure)
            break
    assert said == f"{path} cannot be read or written: database or disk is full"
    life.keeper._database.execute("PRAGMA max_page_count=100000")

    with pytest.raises(ConfigError, match="disk is full"):
        life.create(limit(Side.BUY, "59000", "0.001"))

    life.end()
    assert Keeper(path).load() is not None


def test_a_venue_that_can_save_no_more_ends_and_says_why(path, caplog):
    """Whoever is answered meanwhile is told that it failed."""
    refused: set[int] = set()

    with pytest.raises(ConfigError, match="disk is full"):
        _trade_on_a_full_disk(path, refused)

    assert refused <= {10016}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def _trade_on_a_full_disk(path, refused):
    with drills.serving(Plan(state=path)) as exchange:
        exchange.levers.pull("scale-limits", scale=1000)
        exchange.server.keeper._database.execute("PRAGMA max_page_count=30")
        client = HTTP(api_key=exchange.key, api_secret=exchange.secret, max_retries=1, retry_codes={-1})
        client.endpoint = exchange.url
        order = {"category": "linear", "symbol": "BTCUSDT", "side": "Buy", "orderType": "Market", "qty": "0.001"}
        with contextlib.suppress(OSError):
            for _ in range(2_000):
                try:
                    client.place_order(**order)
                except InvalidRequestError as refusal:
                    refused.add(refusal.status_code)


def test_a_venue_in_a_thread_can_be_kept_and_taken_up(path):
    with drills.serving(Plan(state=path)) as exchange:
        exchange.levers.pull("settle-funding", symbol="BTCUSDT")
    with drills.serving(Plan(state=path, accounts=2)) as exchange:
        assert len(exchange.keys) == 2


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="there is no directory"):
        Keeper(tmp_path / "nowhere" / "state.db")
