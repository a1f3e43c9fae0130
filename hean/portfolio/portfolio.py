"""What is held, what it is worth, and when to say so."""

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Annotated, TypeAlias, assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.instruments import Instrument
from hean.market.quiet import SLACK, MarkSearch, price_of
from hean.messages import (
    OPENING,
    AdjustBooks,
    Bar,
    BooksAdjusted,
    EquityChanged,
    FundingSettled,
    InterestCharged,
    MarkPrice,
    NodeStarted,
    Observation,
    OrderFilled,
    PositionChanged,
    ProfitParts,
    ProfitsStated,
    Quote,
    Trade,
    Wake,
)
from hean.netting import ZERO
from hean.portfolio.accounting import RESERVE, Accountant, Ledger, Profit
from hean.portfolio.allocation import Shares, divide
from hean.tape import Tape
from hean.units import DAY

Said: TypeAlias = PositionChanged | ProfitsStated | EquityChanged | BooksAdjusted

REMEMBERED = 10_000
_ENTRY = Context(prec=16)
FAR = 1e300
"""Further than any equity; JSON has no infinity."""


class PortfolioConfig(BaseModel, frozen=True, extra="forbid"):
    currency: str = Field(default="USDT", description="what everything is valued in")
    balances: dict[str, Annotated[Decimal, Field(allow_inf_nan=False)]] = Field(
        description="what the account holds at the beginning, by currency or coin; nothing where the venue will say"
    )
    shares: Shares = Field(default={}, description="each strategy's share of the opening money; the rest is reserve")
    equity_step: Decimal = Field(
        default=Decimal("0.0025"), gt=0, lt=1, description="a move of equity that is said, as a fraction of it"
    )
    say_profits: bool = Field(
        default=False, description="whether each strategy's profit is said in parts with the equity: for people alone"
    )


class Remembered(Struct):
    """Ids seen, at least the newest `REMEMBERED` of them: two generations, so that forgetting costs nothing.

    The venue repeats what it said before a reconnect, minutes at most: ten thousand fills reach further back.
    """

    newer: dict[str, None] = field(default_factory=dict)
    older: dict[str, None] = field(default_factory=dict)

    def first_time(self, name: str) -> bool:
        if name in self.newer or name in self.older:
            return False
        if len(self.newer) >= REMEMBERED:
            self.older, self.newer = self.newer, {}
        self.newer[name] = None
        return True


class Fence(Struct):
    """Equity as a float, `constant + sum of slope x mark`, and bounds within which nothing need be said.

    The bounds lie a hair inside the true ones: at the fence the exact figure decides.
    """

    constant: float = 0.0
    slopes: dict[str, float] = field(default_factory=dict)
    low: float = -FAR
    high: float = FAR


class PortfolioState(Struct):
    """`assumed` names what has no true mark yet: `marks` may have the price of its fill instead, or nothing.

    `said` is the equity last said, None before the first time; `midnight` the next one, None before the time is known.
    `settlements` are the ids of funding and of interest.
    """

    ledger: Ledger = field(default_factory=Ledger)
    marks: dict[str, float] = field(default_factory=dict)
    assumed: dict[str, None] = field(default_factory=dict)
    said: Decimal | None = None
    midnight: int | None = None
    fence: Fence = field(default_factory=Fence)
    fills: Remembered = field(default_factory=Remembered)
    settlements: Remembered = field(default_factory=Remembered)
    adjustments: Remembered = field(default_factory=Remembered)


class Portfolio:
    """Keeps the books, and says positions and equity.

    Equity is said when the books change, at 00:00 UTC, when something held gets its first mark, and after a move of
    `equity_step` since last said; nowhere else is anything valued. Where the config asks for it, what profits are made of is
    said each time, just before it.

    Args:
        config: Opening balances and shares.
        instruments: What may be held.
        watches: The rows of the market it is told, as instrument and kind.
    """

    def __init__(
        self,
        config: PortfolioConfig,
        instruments: Mapping[str, Instrument],
        watches: frozenset[tuple[str, type[Observation]]],
    ) -> None:
        self.config = config
        self.accountant = Accountant(instruments, config.currency)
        self.state = PortfolioState()
        self._currency = config.currency
        self._step = float(config.equity_step)
        self._says_profits = config.say_profits
        self._watches = watches
        self._search: MarkSearch | None = None
        for currency, amount in config.balances.items():
            if currency == config.currency:
                self._bring_in(amount)
            else:
                self.accountant.transfer(self.state.ledger, RESERVE, currency, amount)
                self.state.assumed[self.accountant.spot(currency)] = None
        self._refence()

    def handle(
        self,
        message: MarkPrice
        | Bar
        | Trade
        | Quote
        | OrderFilled
        | FundingSettled
        | InterestCharged
        | AdjustBooks
        | NodeStarted
        | Wake,
        now: int,
    ) -> Iterable[Said]:
        state = self.state
        if state.midnight is None:
            state.midnight = (now // DAY + 1) * DAY
        match message:
            case OrderFilled():
                return self._fill(message) if state.fills.first_time(message.trade_id) else ()
            case MarkPrice() | Bar() | Trade() | Quote():
                return self._mark(message.instrument, price_of(message))
            case FundingSettled():
                if not state.settlements.first_time(message.settlement_id):
                    return ()
                self.accountant.funding(state.ledger, message)
                return self._worth()
            case InterestCharged():
                if not state.settlements.first_time(message.charge_id):
                    return ()
                payers = self.accountant.interest(state.ledger, message, state.marks)
                if message.currency == self._currency:
                    return self._worth()
                coin = self.accountant.spot(message.currency)
                return (*[self._position(payer, coin) for payer in payers], *self._worth())
            case AdjustBooks():
                return self._adjust(message) if state.adjustments.first_time(message.adjustment_id) else ()
            case NodeStarted():
                return (*self._positions(), *self._worth())
            case Wake():
                if now < state.midnight:
                    return ()
                state.midnight = (now // DAY + 1) * DAY
                return self._worth()
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self.state.midnight

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        state = self.state
        if state.midnight is None:
            return self._searching(tape).first_told(start, stop)
        for instrument in state.assumed:
            if state.ledger.exposure.get(instrument):
                stop = self._searching(tape).first_row(instrument, start, stop)
        fence = state.fence
        if not fence.slopes or start >= stop:
            return stop
        return self._searching(tape).first_outside(
            start,
            stop,
            constant=fence.constant,
            slopes=fence.slopes,
            prices=state.marks,
            low=fence.low,
            high=fence.high,
        )

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        state = self.state
        for instrument, price in self._searching(tape).last_prices(start, stop):
            state.marks[instrument] = price
            state.assumed.pop(instrument, None)

    def profits(self) -> dict[str, Profit]:
        """Each strategy's profit in parts, up to the marks known now."""
        state = self.state
        return {name: self.accountant.profit(book, state.marks)[0] for name, book in state.ledger.books.items()}

    def _mark(self, instrument: str, price: float) -> Iterable[ProfitsStated | EquityChanged]:
        state = self.state
        marks = state.marks
        marks[instrument] = price
        if instrument in state.assumed:
            del state.assumed[instrument]
            return self._worth() if state.ledger.exposure.get(instrument) else ()
        fence = state.fence
        slopes = fence.slopes
        if instrument not in slopes:
            return ()
        value = fence.constant
        for name, slope in slopes.items():
            value += slope * marks[name]
        if fence.low < value < fence.high or state.said is None:
            return ()
        moved = abs(state.ledger.equity(marks) - state.said)
        return self._worth() if moved >= self.config.equity_step * abs(state.said) else ()

    def _fill(self, fill: OrderFilled) -> list[Said]:
        state = self.state
        name = fill.instrument
        if name not in state.marks or name in state.assumed:
            # A position is never worth nothing for want of a mark: until one comes it is worth what was paid.
            state.marks[name] = float(fill.price)
            state.assumed[name] = None
        strategies = self.accountant.fill(state.ledger, fill, state.marks)
        said: list[Said] = [self._position(strategy, name) for strategy in strategies]
        if fill.fee_currency != self._currency and self.accountant.spot(fill.fee_currency) != name:
            said += [self._position(strategy, self.accountant.spot(fill.fee_currency)) for strategy in strategies]
        said += self._worth()
        return said

    def _adjust(self, entry: AdjustBooks) -> list[Said]:
        """Make an entry of the reconciler's. Money that was there before us is divided as the shares have it."""
        state = self.state
        name, opening = entry.instrument, entry.reason == OPENING
        said: list[Said] = [
            BooksAdjusted(
                entry.adjustment_id, entry.strategy, name, entry.currency, entry.quantity, entry.price, entry.reason
            )
        ]
        if opening and not name and entry.currency == self._currency:
            self._bring_in(entry.quantity)
        else:
            if name and name not in state.marks:
                state.assumed[name] = None
                if entry.price:
                    state.marks[name] = float(entry.price)
            self.accountant.adjust(state.ledger, entry, state.marks, opening=opening)
            if name and not entry.currency:
                said.append(self._position(entry.strategy, name))
        said += self._worth()
        return said

    def _bring_in(self, amount: Decimal) -> None:
        parts, rest = divide(amount, self.config.shares)
        for strategy, part in (*parts.items(), (RESERVE, rest)):
            self.accountant.transfer(self.state.ledger, strategy, self._currency, part)

    def _position(self, strategy: str, instrument: str) -> PositionChanged:
        book = self.state.ledger.books[strategy]
        held = self.accountant.quantity(book, instrument)
        quantity = self.accountant.instrument(instrument).whole_steps(held)
        entry = _ENTRY.divide(book.cost[instrument], held) if quantity else ZERO
        return PositionChanged(strategy, instrument, quantity, held - quantity, entry)

    def _positions(self) -> Iterable[PositionChanged]:
        for strategy, book in self.state.ledger.books.items():
            for instrument in book.cost:
                yield self._position(strategy, instrument)

    def _worth(self) -> tuple[ProfitsStated | EquityChanged, ...]:
        equity = self._equity()
        return (self._profits(), equity) if self._says_profits else (equity,)

    def _profits(self) -> ProfitsStated:
        state = self.state
        stated = {}
        for name, book in state.ledger.books.items():
            profit, brought_in = self.accountant.profit(book, state.marks)
            stated[name] = ProfitParts(**{part: getattr(profit, part) for part in Profit.PARTS}, brought_in=brought_in)
        return ProfitsStated(stated)

    def _equity(self) -> EquityChanged:
        state = self.state
        state.said = state.ledger.equity(state.marks)
        assumed = state.assumed
        known = not assumed or not any(state.ledger.exposure.get(instrument) for instrument in assumed)
        self._refence()
        return EquityChanged(state.said, state.ledger.cash(), known)

    def _refence(self) -> None:
        """Compute the float figures anew: whenever the books changed, or equity was said."""
        state = self.state
        marks = state.marks
        slopes = {}
        for name, quantity in state.ledger.exposure.items():
            if quantity and name in marks:
                slopes[name] = float(quantity)
        if not slopes or state.said is None:
            state.fence = Fence(0.0, slopes)  # nothing moves, or nothing was said that it could move from
            return
        value = constant = float(state.ledger.constant)
        size = abs(constant)
        for name, slope in slopes.items():
            worth = slope * marks[name]
            value += worth
            size += abs(worth)
        reach = abs(value) * self._step - SLACK * size
        state.fence = Fence(constant, slopes, value - reach, value + reach)

    def _searching(self, tape: Tape) -> MarkSearch:
        """The search over a tape: what can be had from the tape and the watches alone is no state."""
        search = self._search
        if search is None or search.tape is not tape:
            search = self._search = MarkSearch(tape, self._watches)
        return search
