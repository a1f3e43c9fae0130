"""A venue of our own: it fills orders against a recorded or live market as Bybit would have.

How finely it can do so depends on what is known of the market. With a book (or a best bid and
offer) an order walks it at the instant it arrives, as far as it goes. With trades alone it fills at
the first print after its arrival, half a spread worse. With candles alone latency is nought: a market
order fills at the next open, and within a candle a stop comes before a target.

Exits (a stop-loss and perhaps a take-profit) are held here once the entry fills, so that they do not
depend on us being alive. Positions are margined, funded and, where it comes to that, liquidated.
"""

import enum
import math
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.execution.account import Account, MarginForm, initial_margin, margin_form
from hean.execution.fees import fee, fee_rates
from hean.execution.funding import settlement
from hean.execution.margin import ZERO, bankruptcy_price, initial
from hean.execution.matching import crosses, queue_after, taker_price, walk
from hean.instruments import Instrument
from hean.market.book import OrderBook
from hean.market.crossings import first_beyond, first_quote_beyond
from hean.market.quiet import MarkSearch
from hean.messages import (
    AccountSnapshot,
    Bar,
    BarOpened,
    BookLevels,
    CancelOrder,
    FundingRate,
    FundingSettled,
    InterestCharged,
    Liquidity,
    MarkPrice,
    Observation,
    OrderAccepted,
    OrderBracket,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderRejected,
    Quote,
    Side,
    SnapshotAccount,
    SubmitOrder,
    TimeInForce,
    Trade,
    VenueOrder,
    Wake,
)
from hean.tape import Stream, Tape

HOUR = 3_600_000_000_000
MS = 1_000_000


class Tier(enum.StrEnum):
    """How much of an instrument's market is known, coarsest first."""

    BARS = "bars"
    TRADES = "trades"
    BOOK = "book"


class SimulatedVenueConfig(BaseModel, frozen=True, extra="forbid"):
    balances: dict[str, Decimal] = Field(
        default={"USDT": Decimal(10_000)}, description="what the account begins with, by coin"
    )
    fee_tier: str = Field(default="base", description="Bybit fee tier: base, vip1 ... vip5, supreme")
    half_spread_bp: float = Field(
        default=0.5,
        ge=0,
        le=100,
        description="basis points a taker pays beyond a printed price, where no book is known",
    )
    latency_ms: float = Field(
        default=80.0, ge=0, description="milliseconds from our order to the venue; candles know none"
    )
    latency_jitter_ms: float = Field(default=40.0, ge=0, description="milliseconds it may be shorter or longer, evenly")
    seed: int = Field(default=1, description="of the latencies, together with each order's id")
    leverage: Decimal = Field(
        default=Decimal(10), gt=0, description="leverage the account is set to; margin is 1/leverage"
    )
    haircut: float = Field(
        default=0.05, ge=0, lt=1, description="share of a spot coin's value that does not count as margin"
    )
    borrow_rate_hourly: Decimal = Field(
        default=Decimal("0.00001"), ge=0, description="interest an hour on quote currency borrowed to carry losses"
    )
    borrow_free: Decimal = Field(
        default=ZERO, ge=0, description="quote currency of unrealised loss that bears no interest"
    )
    cancel_share: float = Field(
        default=0.5, ge=0, le=1, description="share of cancelled size taken to have stood before us in the queue"
    )


class Working(Struct, gc=False):
    """An order on its way, or resting."""

    order: SubmitOrder
    left: Decimal
    ts_arrives: int
    resting: bool = False
    limit: float = 0.0
    ahead: float = 0.0
    displayed: float = 0.0
    traded: float = 0.0


class Held(Struct, gc=False):
    """Exits held for a filled entry: they close `left` on `side`, whichever price comes first."""

    entry: str
    strategy: str
    side: Side
    left: Decimal
    stop: Decimal
    target: Decimal | None
    stop_at: float
    target_at: float


class Desk(Struct):
    """One instrument: its last price, its open candle, and what of ours is at work in it."""

    price: float | None = None
    ts_opened: int = -1
    open: float = 0.0
    working: dict[str, Working] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)


class SimulatedVenueState(Struct):
    account: Account
    desks: dict[str, Desk]
    trades: int = 0
    orders: int = 0
    ts_interest: int = 0
    finished: dict[str, str] = field(default_factory=dict)


class SimulatedVenue:
    """Matching, latency, fees, slippage, funding, margin and liquidation for one account.

    Args:
        config: What the account is like.
        instruments: The rules of everything it may trade.
        tiers: How much of each instrument's market will be told.
        watches: Which observations will be told, as the node's own.
    """

    def __init__(
        self,
        config: SimulatedVenueConfig,
        instruments: Mapping[str, Instrument],
        tiers: Mapping[str, Tier],
        watches: frozenset[tuple[str, type[Observation]]],
    ) -> None:
        self.config = config
        self.instruments = dict(instruments)
        self.tiers = dict(tiers)
        self.watches = watches
        self.rates = fee_rates(config.fee_tier)
        self._half_spread = config.half_spread_bp / 1e4
        self._books = {name: OrderBook() for name, tier in tiers.items() if tier is Tier.BOOK}
        self._state = SimulatedVenueState(
            account=Account(dict(config.balances)), desks={name: Desk() for name in instruments}
        )
        self._form: MarginForm | None = None
        self._busy: set[str] = set()
        self._behind: tuple[Tape, int] | None = None
        self._caught_up: set[str] = set()
        self._search: MarkSearch | None = None
        self._shown_by: tuple[Tape, dict[str, list[Stream]]] | None = None

    @property
    def state(self) -> SimulatedVenueState:
        for name in self.instruments:
            self._desk(name)
        return self._state

    # --- being told -----------------------------------------------------------------------------

    def handle(
        self,
        message: SubmitOrder
        | CancelOrder
        | SnapshotAccount
        | Trade
        | Quote
        | BookLevels
        | BarOpened
        | Bar
        | MarkPrice
        | FundingRate
        | Wake,
        now: int,
    ) -> Iterator[
        OrderAccepted
        | OrderRejected
        | OrderFilled
        | OrderCanceled
        | OrderExpired
        | FundingSettled
        | InterestCharged
        | AccountSnapshot
    ]:
        match message:
            case SubmitOrder():
                yield from self._submit(message, now)
            case BarOpened():
                yield from self._opened(message, now)
            case Bar():
                yield from self._closed(message, now)
            case Trade():
                yield from self._traded(message, now)
            case Quote() | BookLevels():
                yield from self._shown(message, now)
            case MarkPrice(instrument=name, price=price):
                self._desk(name).price = price
                yield from self._margin_check(now)
            case FundingRate():
                yield from self._settle(message)
            case Wake():
                yield from self._arrivals(now)
                yield from self._interest(now)
            case CancelOrder():
                yield from self._cancel(message)
            case SnapshotAccount():
                yield self._snapshot(message, now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        """When the next order arrives at a book, or the next hour of interest is due."""
        times = [
            working.ts_arrives
            for name in self._busy
            if self.tiers[name] is Tier.BOOK
            for working in self._state.desks[name].working.values()
            if not working.resting
        ]
        if self._state.account.positions and self.config.borrow_rate_hourly:
            times.append(self._state.ts_interest + HOUR)
        return min(times, default=None)

    # --- orders ---------------------------------------------------------------------------------

    def _submit(
        self, order: SubmitOrder, now: int
    ) -> Iterator[OrderAccepted | OrderRejected | OrderFilled | OrderExpired]:
        refusal = self._refuses(order)
        if refusal:
            self._finish(order.client_order_id, "rejected")
            yield OrderRejected(order.client_order_id, order.strategy, order.instrument, refusal)
            return
        desk = self._desk(order.instrument)
        tier = self.tiers[order.instrument]
        working = Working(
            order, order.quantity, now if tier is Tier.BARS else now + self._latency(order.client_order_id)
        )
        if order.limit is not None:
            working.limit = float(order.limit)
        if tier is Tier.BARS and desk.ts_opened == now:
            # The candle that begins at this instant has shown its open: that is the next open.
            yield from self._activate(desk, working, desk.open, now)
            return
        if tier is Tier.BOOK and working.ts_arrives <= now:
            yield from self._meet_book(desk, working, now)
            return
        self._at_work(desk, working)

    def _refuses(self, order: SubmitOrder) -> str:
        """Why the venue will not take an order, in its own words; empty when it will."""
        instrument = self.instruments.get(order.instrument)
        if instrument is None:
            return "10001 symbol invalid"
        quantity = order.quantity
        if (
            order.client_order_id in self._state.finished
            or order.client_order_id in self._state.desks[order.instrument].working
        ):
            return "110072 OrderLinkedID is duplicate"
        if quantity <= 0 or quantity % instrument.step:
            return f"10001 quantity {quantity} is not a positive multiple of {instrument.step}"
        if order.limit is not None and (order.limit <= 0 or order.limit % instrument.tick):
            return f"10001 price {order.limit} is not a positive multiple of {instrument.tick}"
        most = instrument.max_market_quantity if order.limit is None else instrument.max_limit_quantity
        if quantity > most:
            return f"10001 quantity {quantity} is over the largest order of {most}"
        if quantity < instrument.min_quantity and not order.reduce_only:
            return f"10001 quantity {quantity} is under the smallest order of {instrument.min_quantity}"
        desk = self._desk(order.instrument)
        if desk.price is None:
            return "110118 no price is known"
        price = order.limit if order.limit is not None else Decimal(desk.price)
        if quantity * price < instrument.min_notional and not order.reduce_only:
            return f"110094 order value {quantity * price:f} is under {instrument.min_notional}"
        account = self._state.account
        held = account.held(instrument)
        signed = quantity * order.side
        if order.reduce_only:
            if held * order.side >= 0:
                return "110017 current position is zero or on the same side, cannot fix reduce-only order qty"
            return ""
        if instrument.is_spot:
            coin, needed = (
                (instrument.quote, quantity * price) if order.side is Side.BUY else (instrument.base, quantity)
            )
            if account.balances.get(coin, ZERO) < needed:
                return f"170131 Insufficient balance: {needed:f} {coin} needed"
            return ""
        grows = abs(held + signed) - abs(held)
        if grows > 0:
            taker = self.rates.linear_taker
            needed = initial(instrument, grows * price, self.config.leverage, taker)
            free = self._margin_free()
            if free < needed:
                return f"110007 ab not enough for new order: {needed:.2f} needed, {free:.2f} free"
        return ""

    def _margin_free(self) -> Decimal:
        """Margin balance less what the open positions tie up."""
        account = self._state.account
        quote = next(iter(self.instruments.values())).quote
        total = account.balances.get(quote, ZERO)
        prices: dict[str, Decimal] = {}
        for name, position in account.positions.items():
            price = prices[name] = Decimal(self._desk(name).price or 0.0)
            total += position.quantity * price - position.value
        keep = Decimal(1 - self.config.haircut)
        for coin, amount in account.balances.items():
            if coin != quote and amount:
                total += amount * keep * self._coin_price(coin)
        if prices:
            total -= initial_margin(account, self.instruments, prices, self.config.leverage, self.rates.linear_taker)
        return total

    def _coin_price(self, coin: str) -> Decimal:
        for name, instrument in self.instruments.items():
            if instrument.is_spot and instrument.base == coin:
                price = self._desk(name).price
                if price is not None:
                    return Decimal(price)
        return ZERO

    def _latency(self, client_order_id: str) -> int:
        drawn = zlib.crc32(f"{self.config.seed}/{client_order_id}".encode()) / 0xFFFFFFFF
        latency = self.config.latency_ms + self.config.latency_jitter_ms * (2 * drawn - 1)
        return max(0, int(latency * MS))

    def _at_work(self, desk: Desk, working: Working) -> None:
        desk.working[working.order.client_order_id] = working
        self._busy.add(working.order.instrument)

    def _off_work(self, desk: Desk, working: Working, ended: str) -> None:
        order = working.order
        desk.working.pop(order.client_order_id, None)
        if not desk.working and not desk.held:
            self._busy.discard(order.instrument)
        self._finish(order.client_order_id, ended)

    def _finish(self, client_order_id: str, ended: str) -> None:
        # Link ids are unique for ever; in one process's life that is every id it has seen.
        self._state.finished[client_order_id] = ended

    def _cancel(self, message: CancelOrder) -> Iterator[OrderCanceled | OrderRejected]:
        desk = self._state.desks.get(message.instrument)
        working = desk.working.get(message.client_order_id) if desk is not None else None
        if desk is not None and working is not None:
            self._off_work(desk, working, "canceled")
            yield OrderCanceled(message.client_order_id, message.strategy, message.instrument, "by us")
        elif message.client_order_id not in self._state.finished:
            yield OrderRejected(
                message.client_order_id, message.strategy, message.instrument, "110001 order not exists"
            )

    def _activate(
        self, desk: Desk, working: Working, price: float, now: int
    ) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        """Let an order that has arrived meet the first price known since, where no book is."""
        order = working.order
        instrument = self.instruments[order.instrument]
        if order.limit is None:
            yield from self._take(desk, working, taker_price(instrument, order.side, price, self._half_spread), now)
        elif crosses(order.side, working.limit, price):
            if order.time_in_force is TimeInForce.POST_ONLY:
                yield self._expired(desk, working, "EC_PostOnlyWillTakeLiquidity")
                return
            worse = taker_price(instrument, order.side, price, self._half_spread)
            bounded = min(worse, order.limit) if order.side is Side.BUY else max(worse, order.limit)
            yield from self._take(desk, working, bounded, now)
        elif order.time_in_force in {TimeInForce.IOC, TimeInForce.FOK}:
            yield self._expired(desk, working, "EC_NoImmediateQtyToFill")
        else:
            yield self._rests(desk, working)

    def _take(self, desk: Desk, working: Working, price: Decimal, now: int) -> Iterator[OrderFilled | OrderExpired]:
        quantity = self._reducible(working)
        if quantity <= 0:
            yield self._expired(desk, working, "110017 reduce-only, and nothing is left to reduce")
            return
        yield self._fill(desk, working, quantity, price, Liquidity.TAKER, now)
        if working.left > 0:
            yield self._expired(desk, working, "CancelByReduceOnly")

    def _reducible(self, working: Working) -> Decimal:
        """What of an order may trade: all of it, or, reduce-only, no more than the position."""
        order = working.order
        if not order.reduce_only:
            return working.left
        held = self._state.account.held(self.instruments[order.instrument])
        return min(working.left, max(ZERO, -held * order.side))

    def _rests(self, desk: Desk, working: Working) -> OrderAccepted:
        working.resting = True
        self._at_work(desk, working)
        self._state.orders += 1
        order = working.order
        return OrderAccepted(order.client_order_id, order.strategy, order.instrument, f"sim-{self._state.orders}")

    def _expired(self, desk: Desk, working: Working, reason: str) -> OrderExpired:
        order = working.order
        self._off_work(desk, working, "expired")
        return OrderExpired(order.client_order_id, order.strategy, order.instrument, reason)

    # --- fills ----------------------------------------------------------------------------------

    def _fill(
        self, desk: Desk, working: Working, quantity: Decimal, price: Decimal, liquidity: Liquidity, now: int
    ) -> OrderFilled:
        order = working.order
        working.left -= quantity
        filled = self._book_fill(
            order.client_order_id,
            order.strategy,
            order.instrument,
            order.side,
            quantity,
            price,
            liquidity,
            order.reference,
            "",
            now,
        )
        self._shrink(desk, order.strategy, order.side, quantity)
        if order.bracket is not None:
            self._hold(desk, order, quantity, order.bracket)
        if working.left == 0:
            self._off_work(desk, working, "filled")
        return filled

    def _book_fill(
        self,
        client_order_id: str,
        strategy: str,
        name: str,
        side: Side,
        quantity: Decimal,
        price: Decimal,
        liquidity: Liquidity,
        reference: Decimal,
        exit_kind: str,
        now: int,
    ) -> OrderFilled:
        state = self._state
        instrument = self.instruments[name]
        rate = self.rates.of(instrument.category, liquidity)
        paid, coin = fee(instrument, side, quantity, price, rate, liquidity)
        if not state.account.positions and not instrument.is_spot:
            state.ts_interest = now - now % HOUR
        state.account.trade(instrument, quantity if side is Side.BUY else -quantity, price)
        state.account.credit(coin, -paid)
        state.trades += 1
        self._form = None
        return OrderFilled(
            client_order_id,
            strategy,
            name,
            f"sim-{state.trades}",
            side,
            quantity,
            price,
            paid,
            coin,
            liquidity,
            reference,
            exit_kind,
            now,
        )

    def _hold(self, desk: Desk, order: SubmitOrder, quantity: Decimal, bracket: OrderBracket) -> None:
        held = desk.held.get(order.client_order_id)
        if held is not None:
            held.left += quantity
            return
        away = math.inf if order.side is Side.BUY else -math.inf
        desk.held[order.client_order_id] = Held(
            order.client_order_id,
            order.strategy,
            Side.SELL if order.side is Side.BUY else Side.BUY,
            quantity,
            bracket.stop,
            bracket.target,
            float(bracket.stop),
            float(bracket.target) if bracket.target is not None else away,
        )
        self._busy.add(order.instrument)

    def _shrink(self, desk: Desk, strategy: str, side: Side, quantity: Decimal) -> None:
        """Let a strategy's own closing trade use up the exits held for it, oldest first."""
        if not desk.held:
            return
        for held in list(desk.held.values()):
            if held.strategy == strategy and held.side is side and quantity > 0:
                used = min(quantity, held.left)
                held.left -= used
                quantity -= used
                if held.left == 0:
                    del desk.held[held.entry]

    def _exit(self, name: str, desk: Desk, held: Held, kind: str, price: float, now: int) -> Iterator[OrderFilled]:
        """Fire one of a bracket's two exits; the other goes with it."""
        instrument = self.instruments[name]
        desk.held.pop(held.entry, None)
        if not desk.held and not desk.working:
            self._busy.discard(name)
        position = self._state.account.held(instrument)
        quantity = min(held.left, instrument.whole_steps(max(ZERO, -position * held.side)))
        if quantity <= 0:
            return
        at = taker_price(instrument, held.side, price, self._half_spread)
        reference = held.stop if kind == "stop" else held.target if held.target is not None else held.stop
        order_id = f"{held.entry}-{kind}"
        yield self._book_fill(
            order_id, held.strategy, name, held.side, quantity, at, Liquidity.TAKER, reference, kind, now
        )

    # --- the market, where no book is -----------------------------------------------------------

    def _opened(self, bar: BarOpened, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired]:
        desk = self._desk(bar.instrument)
        desk.ts_opened = now
        desk.open = bar.open
        if bar.instrument not in self._busy:
            return
        for held in list(desk.held.values()):
            kind = _reached(held, bar.open, bar.open)
            if kind:
                yield from self._exit(bar.instrument, desk, held, kind, bar.open, now)
        for working in list(desk.working.values()):
            if not working.resting:
                yield from self._activate(desk, working, bar.open, now)
            elif crosses(working.order.side, working.limit, bar.open):
                yield from self._make(desk, working, now)

    def _closed(self, bar: Bar, now: int) -> Iterator[OrderFilled | OrderExpired | OrderCanceled]:
        name = bar.instrument
        desk = self._desk(name)
        desk.price = bar.close
        if name in self._busy:
            for held in list(desk.held.values()):
                kind = _reached(held, bar.low, bar.high)
                if kind:
                    price = held.stop_at if kind == "stop" else held.target_at
                    yield from self._exit(name, desk, held, kind, price, now)
            for working in list(desk.working.values()):
                # A touch may leave us at the back of the queue: the price must have gone through.
                through = bar.low < working.limit if working.order.side is Side.BUY else bar.high > working.limit
                if working.resting and working.ts_arrives <= bar.ts_open and through:
                    yield from self._make(desk, working, now)
                    entered = desk.held.get(working.order.client_order_id)
                    if entered is not None and _reached(entered, bar.low, bar.high) == "stop":
                        # Beyond the entry on the way down lies the stop: the candle passed both.
                        yield from self._exit(name, desk, entered, "stop", entered.stop_at, now)
        yield from self._margin_check(now, adverse=bar)

    def _traded(self, trade: Trade, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired | OrderCanceled]:
        name = trade.instrument
        desk = self._desk(name)
        if self.tiers[name] is Tier.BOOK:
            yield from self._queue_traded(desk, trade, now)
            return
        desk.price = trade.price
        if name in self._busy:
            for held in list(desk.held.values()):
                kind = _reached(held, trade.price, trade.price)
                if kind:
                    yield from self._exit(name, desk, held, kind, trade.price, now)
            for working in list(desk.working.values()):
                if not working.resting:
                    if working.ts_arrives <= now:
                        yield from self._activate(desk, working, trade.price, now)
                elif trade.price < working.limit if working.order.side is Side.BUY else trade.price > working.limit:
                    yield from self._make(desk, working, now, size=trade.size)
        yield from self._margin_check(now)

    def _make(
        self, desk: Desk, working: Working, now: int, size: float | None = None
    ) -> Iterator[OrderFilled | OrderExpired]:
        """Fill a resting order at its own price, no more than `size` of it."""
        quantity = self._reducible(working)
        if quantity <= 0:
            yield self._expired(desk, working, "CancelByReduceOnly")
            return
        if size is not None:
            quantity = min(quantity, self.instruments[working.order.instrument].quantity(size))
        limit = working.order.limit
        if quantity > 0 and limit is not None:
            yield self._fill(desk, working, quantity, limit, Liquidity.MAKER, now)

    # --- the market, where a book is ------------------------------------------------------------

    def _shown(self, shown: Quote | BookLevels, now: int) -> Iterator[OrderFilled | OrderExpired | OrderCanceled]:
        name = shown.instrument
        desk = self._desk(name)
        book = self._books[name]
        if isinstance(shown, Quote):
            book.replace(shown.bid, shown.bid_size, shown.ask, shown.ask_size)
        else:
            book.apply(shown)
        bid, ask = book.bid, book.ask
        if bid is None or ask is None:
            return
        desk.price = (bid + ask) / 2
        if name in self._busy:
            for held in list(desk.held.values()):
                best = bid if held.side is Side.SELL else ask
                kind = _reached(held, best, best)
                if kind:
                    yield from self._exit_through_book(name, desk, held, kind, now)
            for working in list(desk.working.values()):
                if not working.resting:
                    continue
                side = working.order.side
                if crosses(side, working.limit, ask if side is Side.BUY else bid):
                    yield from self._make(desk, working, now)
                    continue
                displayed = book.size_at(side, working.limit)
                working.ahead = queue_after(
                    working.ahead,
                    traded=working.traded,
                    before=working.displayed,
                    after=displayed,
                    cancel_share=self.config.cancel_share,
                )
                working.displayed, working.traded = displayed, 0.0
        yield from self._margin_check(now)

    def _queue_traded(self, desk: Desk, trade: Trade, now: int) -> Iterator[OrderFilled | OrderExpired]:
        """Let a print work through the queue before our resting orders, and fill them when it has."""
        for working in list(desk.working.values()):
            side = working.order.side
            if not working.resting or trade.side is side:
                continue
            if trade.price < working.limit if side is Side.BUY else trade.price > working.limit:
                yield from self._make(desk, working, now, size=trade.size)
            elif trade.price == working.limit:
                ours = trade.size - max(0.0, working.ahead - working.traded)
                working.traded += trade.size
                if ours > 0:
                    yield from self._make(desk, working, now, size=ours)

    def _meet_book(
        self, desk: Desk, working: Working, now: int
    ) -> Iterator[OrderAccepted | OrderFilled | OrderExpired | OrderRejected]:
        order = working.order
        book = self._books[order.instrument]
        instrument = self.instruments[order.instrument]
        other = Side.SELL if order.side is Side.BUY else Side.BUY
        best = book.ask if order.side is Side.BUY else book.bid
        limit = None if order.limit is None else working.limit
        marketable = best is not None and (limit is None or crosses(order.side, limit, best))
        if marketable and order.time_in_force is TimeInForce.POST_ONLY:
            yield self._expired(desk, working, "EC_PostOnlyWillTakeLiquidity")
            return
        wanted = self._reducible(working)
        takes = list(walk(book.levels(other), order.side, wanted, limit, instrument)) if marketable else []
        if order.time_in_force is TimeInForce.FOK and sum((taken for _, taken in takes), ZERO) < wanted:
            yield self._expired(desk, working, "EC_NoEnoughQtyToFill")
            return
        for price, taken in takes:
            yield self._fill(desk, working, taken, price, Liquidity.TAKER, now)
        if working.left == 0:
            return
        if order.limit is None or order.time_in_force is TimeInForce.IOC:
            yield self._expired(desk, working, "EC_NoEnoughQtyToFill" if takes else "EC_NoImmediateQtyToFill")
            return
        working.ahead = working.displayed = book.size_at(order.side, working.limit)
        yield self._rests(desk, working)

    def _exit_through_book(self, name: str, desk: Desk, held: Held, kind: str, now: int) -> Iterator[OrderFilled]:
        """Close what a bracket holds against the book; what the book cannot take waits for the next change of it."""
        instrument = self.instruments[name]
        position = self._state.account.held(instrument)
        quantity = min(held.left, instrument.whole_steps(max(ZERO, -position * held.side)))
        other = Side.SELL if held.side is Side.BUY else Side.BUY
        reference = held.stop if kind == "stop" or held.target is None else held.target
        for price, taken in list(walk(self._books[name].levels(other), held.side, quantity, None, instrument)):
            held.left -= taken
            yield self._book_fill(
                f"{held.entry}-{kind}",
                held.strategy,
                name,
                held.side,
                taken,
                price,
                Liquidity.TAKER,
                reference,
                kind,
                now,
            )
        if held.left <= 0 or quantity <= 0:
            desk.held.pop(held.entry, None)
            if not desk.held and not desk.working:
                self._busy.discard(name)

    def _arrivals(self, now: int) -> Iterator[OrderAccepted | OrderFilled | OrderExpired | OrderRejected]:
        for name in sorted(self._busy):
            if self.tiers[name] is Tier.BOOK:
                desk = self._desk(name)
                for working in list(desk.working.values()):
                    if not working.resting and working.ts_arrives <= now:
                        yield from self._meet_book(desk, working, now)

    # --- money that moves by itself --------------------------------------------------------------

    def _settle(self, funding: FundingRate) -> Iterator[FundingSettled]:
        position = self._state.account.positions.get(funding.instrument)
        price = self._desk(funding.instrument).price
        if position is None or price is None:
            return
        mark, rate = Decimal(str(price)), Decimal(str(funding.rate))
        amount = settlement(position.quantity, mark, rate)
        self._state.account.credit(self.instruments[funding.instrument].quote, amount)
        self._form = None
        settlement_id = f"{funding.instrument}:{funding.ts_event}"
        yield FundingSettled(settlement_id, funding.instrument, position.quantity, rate, mark, amount, funding.ts_event)

    def _interest(self, now: int) -> Iterator[InterestCharged]:
        """Charge an hour's interest on quote currency that carries an unrealised loss (Bybit help centre, *Borrowing*)."""
        state = self._state
        if not state.account.positions or now < state.ts_interest + HOUR:
            return
        state.ts_interest = now - now % HOUR
        quote = next(iter(self.instruments.values())).quote
        worth = state.account.balances.get(quote, ZERO)
        for name, position in state.account.positions.items():
            worth += position.quantity * Decimal(str(self._desk(name).price)) - position.value
        borrowed = -worth - self.config.borrow_free
        if borrowed > 0:
            amount = borrowed * self.config.borrow_rate_hourly
            state.account.credit(quote, -amount)
            self._form = None
            yield InterestCharged(quote, borrowed, amount, now)

    def _margin_check(self, now: int, adverse: Bar | None = None) -> Iterator[OrderCanceled | OrderFilled]:
        """Take the positions away once the margin balance no longer covers their maintenance."""
        account = self._state.account
        if not account.positions:
            return
        form = self._margin_form()
        prices = {name: self._price(name) for name in form.slopes}
        if adverse is not None and adverse.instrument in prices:
            prices[adverse.instrument] = adverse.low if form.slopes[adverse.instrument] > 0 else adverse.high
        if form.at(prices) > 0:
            return
        for desk in self._state.desks.values():
            for working in list(desk.working.values()):
                order = working.order
                self._off_work(desk, working, "canceled")
                yield OrderCanceled(order.client_order_id, order.strategy, order.instrument, "CancelAllBeforeLiq")
            desk.held.clear()
        self._busy.clear()
        for name, position in list(account.positions.items()):
            instrument = self.instruments[name]
            at = bankruptcy_price(position.quantity, Decimal(str(prices[name])), instrument)
            side = Side.SELL if position.quantity > 0 else Side.BUY
            price = instrument.price_down(float(at)) if side is Side.SELL else instrument.price_up(float(at))
            self._state.orders += 1
            yield self._book_fill(
                f"liquidation-{self._state.orders}",
                "",
                name,
                side,
                abs(position.quantity),
                price,
                Liquidity.TAKER,
                price,
                "liquidation",
                now,
            )

    def _margin_form(self) -> MarginForm:
        if self._form is None:
            self._form = margin_form(
                self._state.account,
                self.instruments,
                haircut=self.config.haircut,
                taker_rate=float(self.rates.linear_taker),
            )
        return self._form

    def _price(self, name: str) -> float:
        price = self._desk(name).price
        return price if price is not None else 0.0

    def _snapshot(self, message: SnapshotAccount, now: int) -> AccountSnapshot:
        account = self._state.account
        orders = tuple(
            VenueOrder(
                order.client_order_id, order.instrument, order.side, order.quantity, order.quantity - working.left
            )
            for desk in self._state.desks.values()
            for working in desk.working.values()
            for order in (working.order,)
        )
        positions = {name: position.quantity for name, position in account.positions.items()}
        return AccountSnapshot(message.request_id, now, True, orders, positions, dict(account.balances))

    # --- rows that pass in silence -----------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first row that meets an order, settles funding on a position or endangers the margin."""
        for name in sorted(self._busy):
            stop = self._next_touch(tape, name, self._state.desks[name], start, stop)
        for name, tier in self.tiers.items():
            if tier is Tier.BOOK:
                levels = tape.stream(BookLevels, name)
                if levels is not None:  # a book is kept change by change
                    stop = _next_row(levels, start, stop)
        if self._state.account.positions:
            for name in self._state.account.positions:
                funding = tape.stream(FundingRate, name)
                if funding is not None and (name, FundingRate) in self.watches:
                    stop = _next_row(funding, start, stop)
            form = self._margin_form()
            stop = self._marks(tape).first_outside(
                start,
                stop,
                constant=form.constant,
                slopes=form.slopes,
                prices={name: self._price(name) for name in form.slopes},
                low=0.0,
                high=math.inf,
            )
        return stop

    def _marks(self, tape: Tape) -> MarkSearch:
        if self._search is None or self._search.tape is not tape:
            # Where a book is known its middle is the price, and a print against it is not.
            watches = [
                (name, kind) for name, kind in self.watches if not (kind is Trade and self.tiers.get(name) is Tier.BOOK)
            ]
            self._search = MarkSearch(tape, watches, adverse=True)
        return self._search

    def _next_touch(self, tape: Tape, name: str, desk: Desk, start: int, stop: int) -> int:
        tier = self.tiers[name]
        coming = [working for working in desk.working.values() if not working.resting]
        if tier is Tier.BARS:
            opened, closed = tape.stream(BarOpened, name), tape.stream(Bar, name)
            if opened is None or closed is None:
                return stop
            if coming:
                stop = _next_row(opened, start, stop)
            return self._first_bar(desk, opened, closed, start, stop)
        if tier is Tier.TRADES:
            trades = tape.stream(Trade, name)
            if trades is None:
                return stop
            for working in coming:
                row = max(trades.rows_before(start), int(trades.ts.searchsorted(working.ts_arrives)))
                if row < len(trades):
                    stop = min(stop, trades.position(row))
            below, above = _bounds(desk)
            if below == -math.inf and above == math.inf:
                return stop
            prices = trades.columns["price"]
            last = trades.rows_before(stop)
            row = int(first_beyond(prices, prices, below, above, trades.rows_before(start), last))
            return trades.position(row) if row < last else stop
        return self._first_quote(tape, name, desk, start, stop)

    def _first_bar(self, desk: Desk, opened: Stream, closed: Stream, start: int, stop: int) -> int:
        below, above = _bounds(desk)
        if below == -math.inf and above == math.inf:
            return stop
        columns = closed.columns
        first, last = closed.rows_before(start), closed.rows_before(stop)
        row = int(first_beyond(columns["low"], columns["high"], below, above, first, last))
        # The candle's open is part of its range, and comes first; the one under way has shown it already.
        upto = min(row + 1, opened.rows_before(stop), len(opened))
        if upto > opened.rows_before(start):
            open_price = columns["open"].item(upto - 1)
            if open_price <= below or open_price >= above:
                return min(stop, opened.position(upto - 1))
        return closed.position(row) if row < last else stop

    def _first_quote(self, tape: Tape, name: str, desk: Desk, start: int, stop: int) -> int:
        quotes = tape.stream(Quote, name)
        if desk.working:  # a queue is kept change by change
            for kind in (Quote, Trade):
                stream = tape.stream(kind, name)
                if stream is not None and (name, kind) in self.watches:
                    stop = _next_row(stream, start, stop)
        if quotes is None or not desk.held:
            return stop
        bid_below, bid_above, ask_below, ask_above = -math.inf, math.inf, -math.inf, math.inf
        for held in desk.held.values():
            if held.side is Side.SELL:
                bid_below, bid_above = max(bid_below, held.stop_at), min(bid_above, held.target_at)
            else:
                ask_above, ask_below = min(ask_above, held.stop_at), max(ask_below, held.target_at)
        first, last = quotes.rows_before(start), quotes.rows_before(stop)
        columns = quotes.columns
        row = int(
            first_quote_beyond(columns["bid"], columns["ask"], bid_below, bid_above, ask_below, ask_above, first, last)
        )
        return quotes.position(row) if row < last else stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:  # noqa: ARG002 (the last row shown is all that counts)
        """Take rows in silence: only the last price of each instrument matters, and it is looked up when asked for."""
        self._behind = (tape, stop)
        self._caught_up = set()

    def _desk(self, name: str) -> Desk:
        """An instrument's desk, with what silent rows have shown of it."""
        desk = self._state.desks[name]
        if self._behind is not None and name not in self._caught_up:
            self._caught_up.add(name)
            tape, stop = self._behind
            newest = -1
            for stream in self._streams(tape)[name]:
                row = stream.rows_before(stop) - 1
                if row < 0:
                    continue
                if stream.kind is BarOpened:
                    desk.ts_opened, desk.open = stream.ts.item(row), stream.columns["open"].item(row)
                    continue
                if stream.kind is Quote:
                    of = stream.columns
                    self._books[name].replace(
                        of["bid"].item(row), of["bid_size"].item(row), of["ask"].item(row), of["ask_size"].item(row)
                    )
                position = stream.position(row)
                if position > newest:
                    newest = position
                    desk.price = _price_of(stream, row)
        return desk

    def _streams(self, tape: Tape) -> dict[str, list[Stream]]:
        """By instrument, the streams whose last row says where the market stands."""
        if self._shown_by is None or self._shown_by[0] is not tape:
            found = {
                name: [
                    stream
                    for kind in (MarkPrice, Trade, Quote, Bar, BarOpened)
                    if (name, kind) in self.watches and not (kind is Trade and tier is Tier.BOOK)
                    if (stream := tape.stream(kind, name)) is not None
                ]
                for name, tier in self.tiers.items()
            }
            self._shown_by = tape, found
        return self._shown_by[1]


def _price_of(stream: Stream, row: int) -> float:
    of = stream.columns
    if stream.kind is Bar:
        return float(of["close"].item(row))
    if stream.kind is Quote:
        return float((of["bid"].item(row) + of["ask"].item(row)) / 2)
    return float(of["price"].item(row))


def _next_row(stream: Stream, start: int, stop: int) -> int:
    row = stream.rows_before(start)
    return min(stop, stream.position(row)) if row < len(stream) else stop


def _reached(held: Held, low: float, high: float) -> str:
    """Which exit a range of prices reaches, the stop before the target; empty for neither."""
    if held.side is Side.SELL:
        return "stop" if low <= held.stop_at else "target" if high >= held.target_at else ""
    return "stop" if high >= held.stop_at else "target" if low <= held.target_at else ""


def _bounds(desk: Desk) -> tuple[float, float]:
    """The prices at or beyond which something of ours may be touched: below, above."""
    below, above = -math.inf, math.inf
    for held in desk.held.values():
        if held.side is Side.SELL:
            below, above = max(below, held.stop_at), min(above, held.target_at)
        else:
            above, below = min(above, held.stop_at), max(below, held.target_at)
    for working in desk.working.values():
        if working.resting:
            if working.order.side is Side.BUY:
                below = max(below, working.limit)
            else:
                above = min(above, working.limit)
    return below, above
