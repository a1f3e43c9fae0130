"""The house in the book: it shows what is wanted, never crosses itself, and mends what was taken after a while."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hean.exchange.background import REFILL, Background
from hean.exchange.sources.source import Flow, Shown
from hean.exchange.words import Executed, Printed
from hean.units import SECOND
from tests.unit.exchange.floor import ANN, PERP, START, Floor, Side

BUY, SELL = Side.BUY, Side.SELL
T0 = 600_000  # 60,000.0 in ticks


class Stage:
    """An exchange whose only market is quoted by a background."""

    def __init__(self):
        self.floor = Floor(price=None)
        self.exchange = self.floor.exchange
        self.market = self.exchange.markets[PERP]
        self.background = Background(self.exchange, [PERP])
        self.now = START

    def show(self, bids=(), asks=(), *, snapshot=False, after=0):
        self.now += after
        self.background.show(Shown(PERP, self.now, snapshot, tuple(bids), tuple(asks)))

    def flow(self, side, steps, limit=None, *, recorded=False):
        self.background.flow(Flow(PERP, self.now, side, limit, steps, recorded))

    def mend(self, after):
        self.now += after
        self.background.mend(self.now)

    @property
    def bids(self):
        return self.market.book.levels(BUY, 1000)

    @property
    def asks(self):
        return self.market.book.levels(SELL, 1000)

    def events(self, kind):
        return [event for event in self.exchange.drain() if isinstance(event, kind)]


@pytest.fixture
def stage():
    made = Stage()
    made.market.external_index = 60_000.0
    made.show(
        [(T0 - 1, 100), (T0 - 5, 200), (T0 - 10, 300)], [(T0 + 1, 100), (T0 + 5, 200), (T0 + 10, 300)], snapshot=True
    )
    made.exchange.tick(made.now)
    made.exchange.drain()
    return made


def limit(stage, side, quantity, price):
    """A client's order, in steps and ticks; tells its id."""
    stage.floor.now = stage.now
    listing = stage.market.listing
    return stage.floor.order(
        ANN, side, str(listing.quantity(quantity)), str(listing.price(price)) if price is not None else None
    )


def test_the_book_is_what_is_wanted(stage):
    assert stage.bids == [(T0 - 1, 100), (T0 - 5, 200), (T0 - 10, 300)]
    stage.show([(T0 - 5, 250), (T0 - 10, 0), (T0 - 20, 7)], [(T0 + 1, 0), (T0 + 2, 50)])
    assert stage.bids == [(T0 - 1, 100), (T0 - 5, 250), (T0 - 20, 7)]
    assert stage.asks == [(T0 + 2, 50), (T0 + 5, 200), (T0 + 10, 300)]


def test_a_snapshot_replaces_everything(stage):
    stage.show([(T0 - 3, 9)], [(T0 + 5, 8), (T0 + 6, 7)], snapshot=True)
    assert (stage.bids, stage.asks) == ([(T0 - 3, 9)], [(T0 + 5, 8), (T0 + 6, 7)])


ladders = st.integers(-40, 40).flatmap(
    lambda middle: st.tuples(
        st.dictionaries(st.integers(middle - 30, middle - 1), st.integers(1, 99), max_size=8),
        st.dictionaries(st.integers(middle, middle + 30), st.integers(1, 99), max_size=8),
    )
)


@given(st.lists(ladders, min_size=1, max_size=12))
def test_the_house_never_trades_with_itself_wherever_the_price_goes(wanted):
    stage = Stage()
    shown = [{}, {}]
    for sides in wanted:
        changes = [
            [
                (T0 + price, side.get(price, 0))
                for price in sorted({*side, *before})
                if side.get(price) != before.get(price)
            ]
            for side, before in zip(sides, shown, strict=True)
        ]
        stage.show(*changes, after=SECOND // 10)
        shown = sides
        bids, asks = sides
        assert stage.bids == [(T0 + price, bids[price]) for price in sorted(bids, reverse=True)]
        assert stage.asks == [(T0 + price, asks[price]) for price in sorted(asks)]
    assert stage.events(Printed) == []


def test_a_price_that_moves_through_an_order_fills_it_at_its_own_price(stage):
    order = limit(stage, BUY, 50, T0 - 3)
    stage.exchange.drain()
    stage.show([(T0 - 1, 0), (T0 - 5, 0)], [(T0 - 4, 80)], after=SECOND)
    fills = [event.execution for event in stage.events(Executed)]
    assert [(fill.order_id, fill.price, fill.quantity, fill.maker) for fill in fills] == [
        (order.order_id, Decimal("59999.7"), Decimal("0.050"), True)
    ]
    assert stage.asks[0] == (T0 - 4, 30)
    assert stage.bids[0] == (T0 - 10, 300)


def test_what_a_client_took_comes_back_after_a_while_and_not_before(stage):
    limit(stage, BUY, 150, None)
    assert stage.asks == [(T0 + 5, 150), (T0 + 10, 300)]
    stage.mend(0)
    stage.mend(REFILL - 1)
    assert stage.asks == [(T0 + 5, 150), (T0 + 10, 300)]
    stage.mend(1)
    assert stage.asks == [(T0 + 1, 100), (T0 + 5, 200), (T0 + 10, 300)]


def test_a_large_order_walks_the_book_and_finds_it_thinner_after(stage):
    limit(stage, BUY, 350, None)
    prices = [fill.execution.price for fill in stage.events(Executed)]
    assert prices == [Decimal("60000.1"), Decimal("60000.5"), Decimal("60001.0")]
    # The source goes on quoting as if nothing had happened, yet nothing better than what was emptied is shown.
    stage.show([], [(T0 + 1, 0), (T0 + 2, 100)], after=SECOND // 10)
    assert stage.asks == [(T0 + 10, 250)]
    stage.show([], [(T0 + 2, 0), (T0 + 3, 120)], after=SECOND // 10)
    assert stage.asks == [(T0 + 10, 250)]
    stage.mend(REFILL)
    assert stage.asks == [(T0 + 3, 120), (T0 + 5, 200), (T0 + 10, 300)]


def test_a_partly_taken_level_holds_nothing_else_back(stage):
    limit(stage, BUY, 30, None)
    stage.show([], [(T0 + 0, 40)], after=SECOND // 10)
    assert stage.asks[:2] == [(T0, 40), (T0 + 1, 70)]


def test_a_level_that_is_withdrawn_does_not_come_back(stage):
    limit(stage, BUY, 100, None)
    stage.show([], [(T0 + 1, 0)], after=SECOND // 10)
    stage.mend(2 * REFILL)
    assert stage.asks == [(T0 + 5, 200), (T0 + 10, 300)]


def test_a_missing_level_keeps_its_time_though_its_size_changes(stage):
    limit(stage, BUY, 100, None)
    stage.mend(0)
    stage.show([], [(T0 + 1, 60)], after=REFILL // 2)
    assert stage.asks[0] == (T0 + 5, 200)
    stage.mend(REFILL)
    assert stage.asks[0] == (T0 + 1, 60)


def test_takers_take_the_best_first_within_their_limit(stage):
    stage.flow(SELL, 250, T0 - 5)
    assert [(p.side, p.price, p.quantity) for p in stage.events(Printed)] == [
        (SELL, Decimal("59999.9"), Decimal("0.100")),
        (SELL, Decimal("59999.5"), Decimal("0.150")),
    ]
    assert stage.bids == [(T0 - 5, 50), (T0 - 10, 300)]
    stage.mend(0)
    stage.mend(REFILL)
    assert stage.bids == [(T0 - 1, 100), (T0 - 5, 200), (T0 - 10, 300)]


def test_takers_fill_a_client_whose_turn_it_is(stage):
    order = limit(stage, SELL, 20, T0)
    stage.flow(BUY, 50)
    fills = [event.execution for event in stage.events(Executed)]
    assert [(fill.order_id, fill.price, fill.quantity) for fill in fills] == [
        (order.order_id, Decimal("60000.0"), Decimal("0.020"))
    ]
    assert stage.asks[0] == (T0 + 1, 70)


def test_what_a_recorded_taker_took_stays_gone_until_the_record_says_otherwise(stage):
    stage.flow(BUY, 130, T0 + 5, recorded=True)
    stage.mend(0)
    stage.mend(2 * REFILL)
    assert stage.asks == [(T0 + 5, 170), (T0 + 10, 300)]
    stage.show([], [(T0 + 1, 33), (T0 + 5, 44)])
    assert stage.asks == [(T0 + 1, 33), (T0 + 5, 44), (T0 + 10, 300)]


@pytest.mark.parametrize(
    ("steps", "price", "left"),
    [
        (30, T0 + 1, [(T0 + 1, 70), (T0 + 5, 200)]),
        (170, T0 + 1, [(T0 + 5, 200), (T0 + 10, 300)]),  # more than was shown there
        (40, T0, [(T0 + 1, 100), (T0 + 5, 200)]),  # inside the spread
    ],
    ids=["less than there", "more than there", "where nothing was"],
)
def test_a_recorded_print_is_printed_whole(stage, steps, price, left):
    stage.flow(BUY, steps, price, recorded=True)
    prints = stage.events(Printed)
    assert sum(printed.quantity for printed in prints) == Decimal(steps) / 1000
    assert prints[-1].price == stage.market.listing.price(price)
    assert stage.asks[:2] == left


def test_a_recorded_taker_does_not_make_a_clients_damage_last(stage):
    limit(stage, BUY, 60, None)
    stage.flow(BUY, 10, T0 + 1, recorded=True)
    assert stage.asks[0] == (T0 + 1, 30)
    stage.mend(REFILL)
    assert stage.asks[0] == (T0 + 1, 100)
