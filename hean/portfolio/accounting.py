"""The books: double entry for each strategy, exact to the last digit, and what its profit was made of."""

from collections.abc import Mapping
from decimal import Context, Decimal, getcontext, localcontext, setcontext
from functools import lru_cache
from typing import ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from hean.errors import ConfigError, ContractError
from hean.instruments import Category, Instrument
from hean.messages import LAST_RESORT, AdjustBooks, FundingSettled, InterestCharged, OrderFilled
from hean.netting import PICO, ZERO, netted

EXACT = Context(prec=60)
"""Products of quantities and prices are never rounded; Python's own 28 digits would round some."""

CASH = "cash"
INVENTORY = "inventory"
POSITION = "position"
TRADING = "trading"
REALISED = "realised"
FEE = "fee"
REBATE = "rebate"
FUNDING = "funding"
INTEREST = "interest"
TRANSFER = "transfer"
ADJUSTMENT = "adjustment"
"""What no fill, settlement or charge explains: its balances say for ever what was corrected."""

RESERVE = ""
"""The book of what no strategy owns: the unallocated share, and coins brought in."""


class Profit(Struct):
    """What a strategy's net profit was made of; the parts add up to it exactly.

    `price` is what marks did to what was held, but for matched opposite quantities of spot and perpetual of one
    coin: what the difference of their marks did to those is `basis`. A fee is valued at its fill's price;
    what a fee paid in coin would have been worth later is no part of it. `slippage` is measured from the
    reference of a fill; `unreferenced` counts the fills that had none, whose slippage stands as nought.
    `adjustments` is what entries that nothing explains were worth when they were made.
    """

    price: Decimal = ZERO
    basis: Decimal = ZERO
    funding: Decimal = ZERO
    fees: Decimal = ZERO
    slippage: Decimal = ZERO
    interest: Decimal = ZERO
    adjustments: Decimal = ZERO
    unreferenced: int = 0

    PARTS: ClassVar = ("price", "basis", "funding", "fees", "slippage", "interest", "adjustments")

    def net(self) -> Decimal:
        with localcontext(EXACT):
            return sum((getattr(self, part) for part in self.PARTS), ZERO)


class Book(Struct):
    """One strategy's accounts.

    `accounts` holds, by commodity (a currency, a coin, a contract), the balance of each account; every posting moves an
    amount between two of them, so each commodity sums to nought. `cost` is the signed value at which
    what is held of an instrument was bought: never a mean price, which would round. `accrued` is the mark up to which
    price profit has been counted, and `brought_in` what was transferred in, valued when that was first possible.
    """

    accounts: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    cost: dict[str, Decimal] = field(default_factory=dict)
    accrued: dict[str, Decimal] = field(default_factory=dict)
    brought_in: Decimal = ZERO
    profit: Profit = field(default_factory=Profit)

    def balance(self, commodity: str, account: str) -> Decimal:
        accounts = self.accounts.get(commodity)
        return ZERO if accounts is None else accounts.get(account, ZERO)

    def post(self, commodity: str, source: str, target: str, amount: Decimal) -> None:
        """Move an amount between two accounts of a commodity: the only way a balance changes."""
        accounts = self.accounts.get(commodity)
        if accounts is None:
            accounts = self.accounts[commodity] = {}
        accounts[source] = accounts.get(source, ZERO) - amount
        accounts[target] = accounts.get(target, ZERO) + amount


class Ledger(Struct):
    """The books of all strategies; the account is their sum.

    `constant` and `exposure` are that sum as it is valued: equity is the constant (cash, less the cost of
    perpetual positions) and each instrument's exposure at its mark.

    The venue nets what the strategies hold of a perpetual, and realises profit when that net is reduced, whatever each
    strategy's own book says of its own: `entries` has, by instrument, the value at which the net was entered, and
    `entered` their sum.
    """

    books: dict[str, Book] = field(default_factory=dict)
    constant: Decimal = ZERO
    exposure: dict[str, Decimal] = field(default_factory=dict)
    entries: dict[str, Decimal] = field(default_factory=dict)
    entered: Decimal = ZERO

    def book(self, strategy: str) -> Book:
        found = self.books.get(strategy)
        if found is None:
            found = self.books[strategy] = Book()
        return found

    def account(self) -> dict[str, dict[str, Decimal]]:
        """Every account, over all strategies."""
        total: dict[str, dict[str, Decimal]] = {}
        with localcontext(EXACT):
            for book in self.books.values():
                for commodity, accounts in book.accounts.items():
                    own = total.setdefault(commodity, {})
                    for account, amount in accounts.items():
                        own[account] = own.get(account, ZERO) + amount
        return total

    def cash(self) -> Decimal:
        """What the account holds of the currency, as the venue's wallet has it: unrealised profit left out."""
        return EXACT.add(self.constant, self.entered)

    def equity(self, marks: Mapping[str, float]) -> Decimal:
        """The account's worth at these marks. What has no mark is left out: the caller says so."""
        worth = self.constant
        for instrument, quantity in self.exposure.items():
            if quantity and instrument in marks:
                worth = quantity.fma(measured(marks[instrument]), worth, EXACT)
        return worth


class _Held(Struct, frozen=True):
    """Where an instrument stands in the books, and with what it is matched: all that is held of its coin, spot first."""

    name: str
    instrument: Instrument
    commodity: str
    account: str
    group: "list[_Held]"


class Accountant:
    """The rules of the books: what a fill, a settlement, a charge and a transfer do to a `Ledger`.

    Args:
        instruments: What may be held, by name.
        currency: What everything is valued in.

    Raises:
        ConfigError: an instrument is not settled in that currency, or a coin has two spot instruments.
    """

    def __init__(self, instruments: Mapping[str, Instrument], currency: str) -> None:
        self.currency = currency
        self._spots: dict[str, str] = {}
        self._held: dict[str, _Held] = {}
        groups: dict[str, list[_Held]] = {}
        for name, instrument in instruments.items():
            if instrument.quote != currency or instrument.category is Category.INVERSE:
                raise ConfigError(f"{name} is not settled in {currency}: the books are kept in one currency")
            if instrument.is_spot:
                other = self._spots.setdefault(instrument.base, name)
                if other != name:
                    raise ConfigError(f"{other} and {name} are both the spot market of {instrument.base}: keep one")
            group = groups.setdefault(instrument.base, [])
            if instrument.is_spot:
                self._held[name] = _Held(name, instrument, instrument.base, INVENTORY, group)
                group.insert(0, self._held[name])
            else:
                self._held[name] = _Held(name, instrument, name, POSITION, group)
                group.append(self._held[name])

    def quantity(self, book: Book, instrument: str) -> Decimal:
        held = self._held[instrument]
        return book.balance(held.commodity, held.account)

    def instrument(self, name: str) -> Instrument:
        return self._held[name].instrument

    def spot(self, coin: str) -> str:
        """The instrument a coin is valued by.

        Raises:
            ConfigError: none is known.
        """
        if coin not in self._spots:
            raise ConfigError(f"{coin} cannot be valued: add {coin}{self.currency}-SPOT.BYBIT to the instruments")
        return self._spots[coin]

    # --- what happens to the books --------------------------------------------------------------

    def transfer(self, ledger: Ledger, strategy: str, currency: str, amount: Decimal) -> None:
        """Bring money or coins in. Coins count as brought in at the first mark they are valued by."""
        book = ledger.book(strategy)
        if currency == self.currency:
            book.post(currency, TRANSFER, CASH, amount)
            book.brought_in += amount
            ledger.constant += amount
            return
        instrument = self.spot(currency)
        book.post(currency, TRANSFER, INVENTORY, amount)
        book.cost.setdefault(instrument, ZERO)
        ledger.exposure[instrument] = ledger.exposure.get(instrument, ZERO) + amount

    def fill(self, ledger: Ledger, fill: OrderFilled, marks: Mapping[str, float]) -> list[str]:
        """Book a fill. Its instrument has a mark, and `marks` are those known before it.

        Returns:
            Whose holdings changed.
        """
        ambient = getcontext()
        setcontext(EXACT)  # `localcontext` would copy it first: a tenth of what a fill costs
        try:
            signed = fill.quantity if fill.side > 0 else -fill.quantity
            self._net(ledger, self._held[fill.instrument], signed, fill.price)
            if fill.strategy and fill.exit != "liquidation":
                self._trade(ledger, fill, fill.strategy, signed, fill.fee, marks)
                return [fill.strategy]
            shares = self._divide(ledger, fill, signed)
            for strategy, part, fee in shares:
                self._trade(ledger, fill, strategy, part, fee, marks)
            return [strategy for strategy, _, _ in shares]
        finally:
            setcontext(ambient)

    def funding(self, ledger: Ledger, settled: FundingSettled) -> None:
        """Divide a settlement by what each strategy holds; what the venue rounded goes to the largest holder."""
        with localcontext(EXACT):
            rest = settled.amount
            paid = settled.mark * settled.rate
            largest, most = RESERVE, ZERO
            for strategy, book in ledger.books.items():
                quantity = self.quantity(book, settled.instrument)
                if quantity:
                    amount = -quantity * paid
                    rest -= amount
                    book.post(self.currency, FUNDING, CASH, amount)
                    book.profit.funding += amount
                    if abs(quantity) > most:
                        largest, most = strategy, abs(quantity)
            if rest:
                book = ledger.book(largest)
                book.post(self.currency, FUNDING, CASH, rest)
                book.profit.funding += rest
            ledger.constant += settled.amount

    def interest(self, ledger: Ledger, charged: InterestCharged, marks: Mapping[str, float]) -> list[str]:
        """Divide interest by what each strategy owes; if none does, the one that holds most pays it.

        Returns:
            Who paid.
        """
        coin = charged.currency != self.currency
        account = INVENTORY if coin else CASH
        with localcontext(EXACT):
            owed = {
                strategy: -book.balance(charged.currency, account)
                for strategy, book in ledger.books.items()
                if book.balance(charged.currency, account) < 0
            }
            weights = owed or {self._largest(ledger, marks): PICO}
            for strategy, amount in _in_proportion(charged.amount, weights, PICO):
                book = ledger.book(strategy)
                if not coin:
                    book.profit.interest -= amount
                    ledger.constant -= amount
                else:
                    instrument = self.spot(charged.currency)
                    self._accrue(book, self._held[instrument], marks)
                    if instrument in marks:
                        value = amount * measured(marks[instrument])
                        book.profit.interest -= value
                        book.cost[instrument] -= value
                    ledger.exposure[instrument] = ledger.exposure.get(instrument, ZERO) - amount
                book.post(charged.currency, account, INTEREST, amount)
        return list(weights)

    def adjust(self, ledger: Ledger, entry: AdjustBooks, marks: Mapping[str, float], *, opening: bool) -> None:
        """Make an entry that nothing else explains; an `opening` one brings in what was there before us, and is no profit.

        Coins come without being paid for, at their mark; a position comes as if it had been traded at the entry's price.
        Where instrument and currency are both named, the quantity of the currency goes from what the position was entered at
        into cash: the venue has realised a profit at another time than we thought, and nobody has gained by it.

        Raises:
            ContractError: the entry is of something that is not in the books.
        """
        name, amount = entry.instrument, entry.quantity
        if (
            entry.currency not in {"", self.currency}
            or (name and name not in self._held)
            or not (name or entry.currency)
        ):
            raise ContractError(
                f"adjustment {entry.adjustment_id} is of {name or entry.currency or 'nothing'}, which the books do not have"
            )
        with localcontext(EXACT):
            if name and entry.currency:
                ledger.entries[name] = ledger.entries.get(name, ZERO) + amount
                ledger.entered += amount
                return
            book = ledger.book(entry.strategy)
            source = TRANSFER if opening else ADJUSTMENT
            if not name:
                book.post(self.currency, source, CASH, amount)
                ledger.constant += amount
                worth = amount
            elif self._held[name].account is INVENTORY:
                worth = self._adjust_coins(ledger, book, self._held[name], amount, marks, source)
            else:
                worth = self._adjust_position(ledger, book, self._held[name], entry, marks, source)
            if opening:
                book.brought_in += worth
            else:
                book.profit.adjustments += worth

    # --- what the books say ---------------------------------------------------------------------

    def worth(self, book: Book, marks: Mapping[str, float]) -> Decimal:
        """One strategy's equity at these marks."""
        with localcontext(EXACT):
            worth = book.balance(self.currency, CASH)
            for instrument, cost in book.cost.items():
                if instrument in marks:
                    worth += self.quantity(book, instrument) * measured(marks[instrument])
                if self._held[instrument].account is POSITION:
                    worth -= cost
            return worth

    def profit(self, book: Book, marks: Mapping[str, float]) -> tuple[Profit, Decimal]:
        """One strategy's profit up to these marks, in parts, and what was brought in. Nothing is changed."""
        copy = replace(book, cost=dict(book.cost), accrued=dict(book.accrued), profit=replace(book.profit))
        with localcontext(EXACT):
            for instrument in book.cost:
                self._accrue(copy, self._held[instrument], marks)
        return copy.profit, copy.brought_in

    # --- how ------------------------------------------------------------------------------------

    def _net(self, ledger: Ledger, held: _Held, signed: Decimal, price: Decimal) -> None:
        """Trade against the account's own position, as the venue does; what is held of it changes afterwards."""
        if held.account is POSITION:
            name, entries = held.name, ledger.entries
            before = entries.get(name, ZERO)
            entries[name], _ = netted(ledger.exposure.get(name, ZERO), before, signed, price)
            ledger.entered += entries[name] - before

    def _adjust_coins(
        self, ledger: Ledger, book: Book, held: _Held, amount: Decimal, marks: Mapping[str, float], source: str
    ) -> Decimal:
        """Add coins nobody has paid for; what they are worth, nought while they have no mark: then it is brought in later."""
        name = held.name
        self._accrue(book, held, marks)
        book.post(held.commodity, source, INVENTORY, amount)
        ledger.exposure[name] = ledger.exposure.get(name, ZERO) + amount
        worth = amount * book.accrued.get(name, ZERO)
        book.cost[name] += worth
        return worth

    def _adjust_position(
        self, ledger: Ledger, book: Book, held: _Held, entry: AdjustBooks, marks: Mapping[str, float], source: str
    ) -> Decimal:
        """Add to a position at a price; what that is worth at the mark."""
        name, signed, price = held.name, entry.quantity, entry.price
        self._net(ledger, held, signed, price)
        self._accrue(book, held, marks)
        cost = book.cost[name]
        remaining, realised = netted(book.balance(name, POSITION), cost, signed, price)
        book.post(name, source, POSITION, signed)
        if realised:
            book.post(self.currency, REALISED, CASH, realised)
        book.cost[name] = remaining
        ledger.constant += realised + cost - remaining
        ledger.exposure[name] = ledger.exposure.get(name, ZERO) + signed
        return signed * (book.accrued[name] - price)

    def _trade(
        self,
        ledger: Ledger,
        fill: OrderFilled,
        strategy: str,
        signed: Decimal,
        fee: Decimal,
        marks: Mapping[str, float],
    ) -> None:
        """Book one strategy's part of a fill: a signed quantity, and a fee."""
        book = ledger.book(strategy)
        name, price = fill.instrument, fill.price
        held = self._held[name]
        self._accrue(book, held, marks)
        mark = book.accrued[name]
        before = book.balance(held.commodity, held.account)
        cost = book.cost[name]
        value = signed * price
        book.post(held.commodity, TRADING, held.account, signed)
        remaining, realised = netted(before, cost, signed, price)
        if held.account is INVENTORY:
            book.post(self.currency, CASH, TRADING, value)
            ledger.constant -= value
        else:
            if realised:
                book.post(self.currency, REALISED, CASH, realised)
            ledger.constant += realised + cost - remaining
        book.cost[name] = remaining
        ledger.exposure[name] = ledger.exposure.get(name, ZERO) + signed

        profit = book.profit
        reference = fill.reference
        if reference is None:
            profit.unreferenced += 1
            profit.price += signed * (mark - price)
        else:
            profit.slippage += signed * (reference - price)
            profit.price += signed * (mark - reference)
        if fee:
            self._charge(ledger, book, fill, fee, marks)

    def _charge(self, ledger: Ledger, book: Book, fill: OrderFilled, fee: Decimal, marks: Mapping[str, float]) -> None:
        currency = fill.fee_currency
        if currency == self.currency:
            account = CASH
            book.profit.fees -= fee
            ledger.constant -= fee
        else:
            account = INVENTORY
            instrument = self._spots.get(currency)
            if instrument is None or instrument not in marks:
                raise ContractError(f"a fee in {currency} cannot be valued: no spot market of it is followed")
            self._accrue(book, self._held[instrument], marks)
            mark = book.accrued[instrument]
            price = fill.price if instrument == fill.instrument else mark
            book.profit.fees -= fee * price
            book.profit.price -= fee * (mark - price)
            book.cost[instrument] -= fee * price
            ledger.exposure[instrument] = ledger.exposure.get(instrument, ZERO) - fee
        if fee > 0:
            book.post(currency, account, FEE, fee)
        else:
            book.post(currency, REBATE, account, -fee)

    def _accrue(self, book: Book, held: _Held, marks: Mapping[str, float]) -> None:
        """Count what marks did, since last counted, to the spot and perpetuals held of an instrument's coin.

        It is done before what is held changes, for each instrument of the coin at once: they are matched.
        """
        name = held.name
        if name not in book.cost:
            book.cost[name] = ZERO
            if name in marks:
                book.accrued[name] = measured(marks[name])
        spot_left = spot_move = ZERO
        for one in held.group:
            name = one.name
            if name not in book.cost or name not in marks:
                continue
            mark = measured(marks[name])
            before = book.accrued.get(name)
            quantity = book.balance(one.commodity, one.account)
            move = ZERO
            if before != mark:
                book.accrued[name] = mark
                if before is None:
                    # Held before it was ever valued: brought in, at this mark.
                    book.brought_in += quantity * mark
                    book.cost[name] += quantity * mark
                else:
                    move = mark - before
                    book.profit.price += quantity * move
            if one.account is INVENTORY:
                spot_left, spot_move = quantity, move
            elif spot_left and (spot_move or move) and (quantity > 0) != (spot_left > 0):
                matched = min(abs(quantity), abs(spot_left)).copy_sign(spot_left)
                gained = matched * (spot_move - move)
                book.profit.basis += gained
                book.profit.price -= gained
                spot_left -= matched

    def _divide(self, ledger: Ledger, fill: OrderFilled, signed: Decimal) -> list[tuple[str, Decimal, Decimal]]:
        """Divide a fill of the venue's own among those whose net position it lessens, in proportion; the last takes the rest."""
        holdings = {strategy: self.quantity(book, fill.instrument) for strategy, book in ledger.books.items()}
        if fill.client_order_id.startswith(LAST_RESORT):
            # It closed what strategies held, and nothing that was in the account before them.
            holdings.pop(RESERVE, None)
        net = sum(holdings.values(), ZERO)
        if (signed > 0) == (net > 0) or not net:
            return [(RESERVE, signed, fill.fee)]
        weights = {strategy: quantity for strategy, quantity in holdings.items() if quantity}
        quantities = _in_proportion(signed, weights, self._held[fill.instrument].instrument.step)
        fees = _in_proportion(fill.fee, {strategy: abs(quantity) for strategy, quantity in weights.items()}, PICO)
        return [(strategy, quantity, fee) for (strategy, quantity), (_, fee) in zip(quantities, fees, strict=True)]

    def _largest(self, ledger: Ledger, marks: Mapping[str, float]) -> str:
        def gross(strategy: str) -> Decimal:
            book = ledger.books[strategy]
            return sum(
                (abs(self.quantity(book, name)) * measured(marks[name]) for name in book.cost if name in marks), ZERO
            )

        return max(ledger.books, key=gross, default=RESERVE)


@lru_cache(maxsize=64)
def measured(price: float) -> Decimal:
    """A measured price as the venue wrote it. A mark is not an order: it need not lie on a tick."""
    return Decimal(f"{price:.12g}")


def _in_proportion(amount: Decimal, weights: Mapping[str, Decimal], unit: Decimal) -> list[tuple[str, Decimal]]:
    """Divide an amount by weight, each part rounded towards nought to a unit; the last takes the remainder."""
    total = sum(weights.values(), ZERO)
    parts = []
    rest = amount
    for strategy, weight in weights.items():
        part = amount * weight / total
        part -= (part.copy_abs() % unit).copy_sign(part)
        part = part.quantize(unit)  # it is a multiple of the unit: this drops noughts
        parts.append((strategy, part))
        rest -= part
    strategy, part = parts[-1]
    parts[-1] = (strategy, part + rest)
    return parts
