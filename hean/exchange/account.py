"""One client of the exchange: coins, positions, what is set and what is reserved; and the figures of a unified wallet.

Cross margin. Source: Bybit help centre, *Initial and Maintenance Margin (Unified Trading Account)*; v5, *Get Wallet Balance*.
"""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal

from msgspec import Struct, field

from hean.exchange.listing import Listing
from hean.exchange.words import ZERO, Order
from hean.execution.account import Position
from hean.execution.fees import FeeRates
from hean.execution.margin import initial, maintenance
from hean.messages import Side

ONE_WAY, HEDGE = 0, 3
"""Position modes, as `position/switch-mode` has them."""


class Holding(Struct, kw_only=True):
    """A position of one instrument under one index, with what is set on it.

    `running` is what this position has realised since it was opened, `realised` all there ever was; fees and funding
    are in both. `take_profit`, `stop_loss` and `trailing` are order ids of its full-size exits.
    """

    position: Position = field(default_factory=Position)
    running: Decimal = ZERO
    realised: Decimal = ZERO
    take_profit: str = ""
    stop_loss: str = ""
    trailing: str = ""
    open_fee: Decimal = ZERO
    ts_created: int = 0
    ts_updated: int = 0
    ts_opened: int = 0
    seq: int = -1

    @property
    def quantity(self) -> Decimal:
        return self.position.quantity

    @property
    def entry(self) -> Decimal | None:
        """Mean price it was entered at; None while flat."""
        return self.position.value / self.position.quantity if self.position.quantity else None


class Leverage(Struct):
    buy: Decimal = Decimal(10)
    sell: Decimal = Decimal(10)


class Window(Struct):
    """Disconnect-cancel of one product: armed with seconds to wait, 0 when off."""

    seconds: int = 0


class TradingAccount(Struct, kw_only=True):
    """Everything of one client but the histories.

    `holdings` is by instrument and position index. `open_orders` is every order that is not finished, by id.
    `link_ids` are all ever used, each with the order's id: "linear" and "spot" are one space. `reserved` is, by
    instrument, the quote value of open orders that may add to a position, bought and sold; `locked` what spot orders
    hold of each coin. Nothing can be borrowed: an order that would need it is refused.
    """

    uid: str
    balances: dict[str, Decimal]
    rates: FeeRates
    holdings: dict[str, dict[int, Holding]] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    leverages: dict[str, Leverage] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    realised: dict[str, Decimal] = field(default_factory=dict)
    link_ids: dict[str, str] = field(default_factory=dict)
    open_orders: dict[str, Order] = field(default_factory=dict)
    reserved: dict[str, dict[Side, Decimal]] = field(default_factory=dict)
    locked: dict[str, Decimal] = field(default_factory=dict)
    ts_updated: int = 0

    def credit(self, coin: str, amount: Decimal) -> Decimal:
        """Add to a coin's balance, and return what it is then."""
        balance = self.balances[coin] = self.balances.get(coin, ZERO) + amount
        return balance

    def mode(self, instrument: str) -> int:
        return self.modes.get(instrument, ONE_WAY)

    def leverage(self, instrument: str) -> Leverage:
        return self.leverages.get(instrument) or Leverage()

    def holding(self, instrument: str, index: int) -> Holding:
        """The position under an index, made when it is first asked for."""
        return self.holdings.setdefault(instrument, {}).setdefault(index, Holding())

    def indices(self, instrument: str) -> tuple[int, ...]:
        return (1, 2) if self.mode(instrument) == HEDGE else (0,)

    def quantity(self, instrument: str, index: int) -> Decimal:
        held = self.holdings.get(instrument, {}).get(index)
        return held.quantity if held is not None else ZERO

    def positions(self) -> Iterator[tuple[str, int, Holding]]:
        """Every position that is not flat."""
        for instrument, held in self.holdings.items():
            for index, holding in held.items():
                if holding.quantity:
                    yield instrument, index, holding

    def reserve(self, order: Order, listing: Listing, left: Decimal, price: Decimal) -> None:
        """Set what an order ties up to what `left` of it asks at `price`; nought once it is finished or waits for a trigger."""
        if listing.is_spot:
            coin = listing.instrument.quote if order.side is Side.BUY else listing.instrument.base
            wanted = left if order.side is Side.SELL or order.in_quote else left * price
            self.locked[coin] = self.locked.get(coin, ZERO) + wanted - order.reserved
        else:
            wanted = ZERO if order.only_reduces else left * price
            sides = self.reserved.setdefault(listing.id, {Side.BUY: ZERO, Side.SELL: ZERO})
            sides[order.side] += wanted - order.reserved
        order.reserved = wanted

    def free(self, coin: str) -> Decimal:
        """What of a coin no spot order holds."""
        return self.balances.get(coin, ZERO) - self.locked.get(coin, ZERO)


class PositionFigures(Struct, frozen=True):
    """What one position comes to at its mark. `profit` is unrealised; money in quote currency."""

    value: Decimal
    initial: Decimal
    maintenance: Decimal
    profit: Decimal


class Wallet(Struct, frozen=True, kw_only=True):
    """The account as one sum, in USDT taken for dollars; `collateral` is its coins after their haircut."""

    wallet: Decimal
    profit: Decimal
    collateral: Decimal
    order_initial: Decimal
    position_initial: Decimal
    maintenance: Decimal

    @property
    def equity(self) -> Decimal:
        return self.wallet + self.profit

    @property
    def margin(self) -> Decimal:
        """What margin rates are measured against: collateral and unrealised profit."""
        return self.collateral + self.profit

    @property
    def initial(self) -> Decimal:
        return self.order_initial + self.position_initial

    @property
    def available(self) -> Decimal:
        return self.margin - self.initial


def figures(listing: Listing, holding: Holding, mark: Decimal, leverage: Decimal, taker: Decimal) -> PositionFigures:
    value = abs(holding.quantity) * mark
    if not value:
        return PositionFigures(ZERO, ZERO, ZERO, ZERO)
    return PositionFigures(
        value=value,
        initial=initial(listing.instrument, value, leverage, taker),
        maintenance=maintenance(listing.instrument, value, taker),
        profit=holding.quantity * mark - holding.position.value,
    )


def leverage_of(account: TradingAccount, instrument: str, quantity: Decimal) -> Decimal:
    set_to = account.leverage(instrument)
    return set_to.buy if quantity >= 0 else set_to.sell


def wallet(
    account: TradingAccount,
    listings: Mapping[str, Listing],
    mark: Callable[[str], Decimal],
    worth: Callable[[str], Decimal | None],
    haircut: Callable[[str], Decimal],
) -> Wallet:
    """Add an account up.

    Args:
        account: Whose.
        listings: What it may hold positions in.
        mark: The mark of a derivative.
        worth: What one of a coin is worth in USDT; None for a coin nobody prices: it counts for nothing.
        haircut: The share of a coin's worth that carries no margin.
    """
    total = collateral = ZERO
    for coin, balance in account.balances.items():
        price = worth(coin)
        if price is None:
            continue
        value = balance * price
        total += value
        # A debt counts in full.
        collateral += value * (1 - haircut(coin)) if balance > 0 else value
    profit = held = kept = ordered = ZERO
    taker = account.rates.linear_taker
    for instrument, _, holding in account.positions():
        leverage = leverage_of(account, instrument, holding.quantity)
        one = figures(listings[instrument], holding, mark(instrument), leverage, taker)
        profit += one.profit
        held += one.initial
        kept += one.maintenance
    for instrument, sides in account.reserved.items():
        ordered += order_initial(account, listings[instrument], sides, mark(instrument))
    return Wallet(
        wallet=total,
        profit=profit,
        collateral=collateral,
        order_initial=ordered,
        position_initial=held,
        maintenance=kept,
    )


def order_initial(account: TradingAccount, listing: Listing, sides: Mapping[Side, Decimal], mark: Decimal) -> Decimal:
    """Margin of the open orders of one instrument: what they would add to that of the position, by the tier it would be in.

    One way only the side counts that would add more; in hedge mode each index bears its own.
    """
    bought, sold = sides[Side.BUY], sides[Side.SELL]
    if not bought and not sold:
        return ZERO
    set_to, taker, instrument = account.leverage(listing.id), account.rates.linear_taker, listing.instrument

    def added(held: Decimal, signed: Decimal, leverage: Decimal) -> Decimal:
        before, after = abs(held), abs(held + signed)
        if after <= before:
            return ZERO
        return initial(instrument, after, leverage, taker) - initial(instrument, before, leverage, taker)

    if account.mode(listing.id) == HEDGE:
        long, short = account.quantity(listing.id, 1) * mark, account.quantity(listing.id, 2) * mark
        return added(long, bought, set_to.buy) + added(short, -sold, set_to.sell)
    held = account.quantity(listing.id, 0) * mark
    return max(added(held, bought, set_to.buy), added(held, -sold, set_to.sell))
