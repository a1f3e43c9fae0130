"""Our books against the venue's word: nothing is believed once, and silence is not an answer."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal, localcontext
from typing import assert_never

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.errors import ConfigError
from hean.instruments import Instrument
from hean.messages import (
    OPENING,
    AccountSnapshot,
    AdjustBooks,
    BooksAdjusted,
    Discrepancy,
    DiscrepancyKind,
    EquityChanged,
    FundingSettled,
    InterestCharged,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrdersRestated,
    OrderSubmitted,
    PositionChanged,
    ReconcileCompleted,
    ReconcileDue,
    Severity,
    SnapshotAccount,
    VerifyFlat,
    Wake,
)
from hean.netting import ZERO
from hean.reconcile.diff import (
    Booked,
    Net,
    Ours,
    OwnOrder,
    Pair,
    Told,
    differences,
    is_flat,
    realised_apart,
    unknown_coins,
)
from hean.units import SECOND

RESERVE = ""
"""The book of what no strategy owns."""

_EXACT = Context(prec=60)
_PRICE = Decimal("1e-8")
_BOOKED = frozenset({DiscrepancyKind.UNKNOWN_FILL, DiscrepancyKind.FEE, DiscrepancyKind.FUNDING})
_OF_ITSELF = frozenset({DiscrepancyKind.LEG_IMBALANCE, DiscrepancyKind.MODE})
"""Nothing that ours and theirs differ in: what the venue holds or has set is not as it should be."""

_PATIENCE = 5
"""Comparisons that an entry may take to be made."""

_HELD = frozenset({DiscrepancyKind.MISSING_LOCAL, DiscrepancyKind.MISSING_VENUE, DiscrepancyKind.QUANTITY})


class ReconcilerConfig(BaseModel, frozen=True, extra="forbid"):
    every_s: float = Field(default=30, gt=0, description="between one snapshot and the next")
    confirm_s: float = Field(default=5, gt=0, description="between two snapshots that must agree on a difference")
    grace_s: float = Field(
        default=5, ge=0, description="after the last fact about it, an order or a position may differ"
    )
    least_s: float = Field(default=1, ge=0, description="between two snapshots asked for other than to verify flatness")
    correct: bool = Field(default=True, description="open the books from the venue's word, and correct them by it")
    currency: str = Field(default="USDT", description="what everything is valued in")
    modes: dict[str, str] = Field(
        default={"margin": "REGULAR_MARGIN", "position": "one-way"},
        description="what ought to be set at the venue: margin, position and leverage, in its words",
    )
    pairs: tuple[tuple[str, str], ...] = Field(default=(), description="spot and perpetual that balance each other")
    leg_tolerance: Decimal = Field(
        default=Decimal("0.05"), ge=0, description="of the larger leg; beyond it a pair is imbalanced"
    )


class Suspicion(Struct):
    """A difference seen: since which snapshot, and what was last said of it, as ours and theirs.

    `figures` are as last seen, and the same since `ts_figures`: what is corrected has stood still.
    """

    ts_first: int
    request: int
    figures: tuple[str, str]
    ts_figures: int
    said: tuple[str, str] | None = None


class ReconcilerState(Struct):
    """`holdings` is by instrument and strategy, dust included; `heard` when a subject was last heard of.

    `closed` keeps orders that ended, and when, while a snapshot may still show them. `suspicions` is by kind and
    subject. `verify_from` is the first request that may answer `VerifyFlat`.

    `cash` and `holdings` are the portfolio's word; `money` and `net`, by instrument, are our own fold of the same facts:
    where the two differ, facts are on their way. `opened` once what was there before us is in the books, `settled`
    once a comparison was clean since the last restart, `ts_agreed` up to when everything is known to agree.
    `adjusting` are entries asked for and not yet in the books; `corrected` what of the reserve, by instrument, such
    entries brought: unlike what was there before us, it does not count as kept. `noted` are coins nothing of ours values.
    """

    orders: dict[str, OwnOrder] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    holdings: dict[str, dict[str, Decimal]] = field(default_factory=dict)
    heard: dict[str, int] = field(default_factory=dict)
    suspicions: dict[str, dict[str, Suspicion]] = field(default_factory=dict)
    requests: int = 0
    answered: int = 0
    ts_asked: int = 0
    ts_next: int = 0
    verify_from: int = 0
    verifying: bool = False
    cash: Decimal | None = None
    money: Decimal | None = None
    net: dict[str, Net] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    opened: bool = False
    settled: bool = False
    ts_agreed: int = 0
    adjusting: dict[str, int] = field(default_factory=dict)
    corrected: dict[str, Decimal] = field(default_factory=dict)
    noted: dict[str, None] = field(default_factory=dict)


class Reconciler:
    """Asks the venue what it holds of ours, and says what differs from our own fold of the facts.

    A difference is said when two complete snapshots some seconds apart show it, and nothing was lately heard of
    its subject. A snapshot that is not complete concludes nothing: not flat, not well, not even reconciled.

    Then the books are corrected: by entries that say what they are and are made once. Orders are not: what we miss at the
    venue is looked up by its gateway, and what the venue has that we do not know of is for a person. The market is never
    traded to make it agree with us.

    What the account holds before we have ever looked is entered at once, as opening balances: all of it is the reserve's but
    for the money, which the strategies share. From then on the reserve's positions and coins are left alone, and an account
    with nothing else is flat. What a correction puts into the reserve is not: nobody has said whose it is.

    Args:
        config: Times, and which legs balance.
        instruments: What may be held; their steps are the tolerance.

    Raises:
        ConfigError: a pair names an instrument that is not there.
    """

    def __init__(self, config: ReconcilerConfig, instruments: Mapping[str, Instrument]) -> None:
        self.config = config
        self.state = ReconcilerState()
        self._instruments = instruments
        self._pairs = tuple(Pair(spot, perp) for spot, perp in config.pairs)
        self._spots = {rules.base: name for name, rules in instruments.items() if rules.is_spot}
        for name in {name for pair in config.pairs for name in pair} - set(instruments):
            raise ConfigError(f"reconciler pairs: {name} is not among the instruments")

    def handle(
        self,
        message: OrderSubmitted
        | OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderAmended
        | OrderCanceled
        | OrderExpired
        | OrdersRestated
        | FundingSettled
        | InterestCharged
        | PositionChanged
        | EquityChanged
        | BooksAdjusted
        | AccountSnapshot
        | ReconcileDue
        | VerifyFlat
        | Wake,
        now: int,
    ) -> Iterator[SnapshotAccount | Discrepancy | AdjustBooks | ReconcileCompleted]:
        state = self.state
        match message:
            case OrderSubmitted() | OrderAccepted():
                self._open(message, now)
            case OrderOutcomeUnknown():
                self._open(message, now)
                yield from self._ask_soon(now)
            case OrderFilled():
                self._filled(message, now)
            case OrderAmended(client_order_id=name, quantity=quantity):
                order = state.orders.get(name)
                if order is not None:
                    order.ts_heard, order.quantity = now, quantity or order.quantity
            case OrderRejected() | OrderCanceled() | OrderExpired():
                state.orders.pop(message.client_order_id, None)
                state.closed[message.client_order_id] = now
            case OrdersRestated():
                self._restated(message, now)
            case FundingSettled(settlement_id=name, amount=amount):
                if self._booked(name, self.config.currency, amount, now):
                    self._pay(self.config.currency, -amount)
            case InterestCharged(charge_id=name, currency=currency, amount=amount):
                if self._booked(name, currency, amount, now):
                    self._pay(currency, amount)
            case PositionChanged():
                self._position(message, now)
            case EquityChanged(cash=cash):
                if cash != state.cash:
                    state.cash = cash
                    state.heard[self.config.currency] = now
                if state.money is None:
                    state.money = cash
            case BooksAdjusted():
                self._adjusted(message, now)
            case AccountSnapshot():
                yield from self._compare(message, now)
            case ReconcileDue():
                yield from self._ask_soon(now)
            case VerifyFlat():
                state.verifying = True
                yield self._ask(now)
                state.verify_from = state.requests
            case Wake():
                if now >= state.ts_next:
                    yield self._ask(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self.state.ts_next

    # --- our own fold of the facts --------------------------------------------------------------

    def _open(self, message: OrderSubmitted | OrderAccepted | OrderOutcomeUnknown, now: int) -> None:
        # A word about an order that has ended came late: it stays ended.
        if message.client_order_id not in self.state.closed:
            order = self.state.orders.get(message.client_order_id)
            if order is None:
                sent = message.quantity if isinstance(message, OrderSubmitted) else None
                self.state.orders[message.client_order_id] = OwnOrder(message.instrument, ZERO, now, sent)
            else:
                order.ts_heard = now

    def _filled(self, fill: OrderFilled, now: int) -> None:
        state, name = self.state, fill.instrument
        self._heard_of(name, now)
        if not self._booked(fill.trade_id, fill.fee_currency, fill.fee, now):
            return
        with localcontext(_EXACT):
            signed = fill.quantity * fill.side
            net = state.net.setdefault(name, Net())
            if name in self._instruments and self._instruments[name].is_spot:
                net.quantity += signed
                self._pay(self.config.currency, signed * fill.price)
            else:
                self._pay(self.config.currency, -net.trade(signed, fill.price))
            self._pay(fill.fee_currency, fill.fee)
        order = state.orders.get(fill.client_order_id)
        if order is not None:
            order.filled += fill.quantity
            order.ts_heard = now
            if order.filled == order.quantity:
                del state.orders[fill.client_order_id]
                state.closed[fill.client_order_id] = now

    def _booked(self, name: str, currency: str, amount: Decimal, now: int) -> bool:
        """Note what something cost or brought; whether it is the first we hear of it."""
        state = self.state
        state.heard[currency] = state.heard[self.config.currency] = now
        known = state.told.find(name)
        if known is not None and known.currency:
            return False
        state.told.note(name, Booked(currency, amount), now)
        return True

    def _pay(self, currency: str, amount: Decimal) -> None:
        """Take money or coins out of our own fold."""
        state = self.state
        if currency == self.config.currency:
            state.money = _EXACT.subtract(state.money or ZERO, amount)
        elif currency in self._spots:
            net = state.net.setdefault(self._spots[currency], Net())
            net.quantity = _EXACT.subtract(net.quantity, amount)

    def _position(self, message: PositionChanged, now: int) -> None:
        state, name, strategy = self.state, message.instrument, message.strategy
        self._heard_of(name, now)
        held = message.quantity + message.dust
        if strategy == RESERVE and name not in state.holdings and name not in state.net:
            state.net[name] = Net(held, held * message.entry)  # coins that were given to the books at their making
        state.holdings.setdefault(name, {})[strategy] = held

    def _restated(self, message: OrdersRestated, now: int) -> None:
        """A life has begun: what the broker has under way is all there is, and what was asked of the books before is forgotten."""
        state = self.state
        for name in state.orders:
            if name not in message.remaining:
                state.closed[name] = now
        state.orders = {
            name: OwnOrder(order.instrument, order.filled, now, order.filled + abs(order.remaining))
            for name, order in message.remaining.items()
        }
        for name in message.remaining:
            state.closed.pop(name, None)
        state.adjusting = {}
        state.settled = False

    def _adjusted(self, message: BooksAdjusted, now: int) -> None:
        state, name = self.state, message.instrument
        asked = state.adjusting.pop(message.adjustment_id, None)
        state.heard[name or message.currency] = now
        if message.currency:
            self._pay(message.currency, -message.quantity)
        if name and message.currency:
            state.net.setdefault(name, Net()).value += message.quantity
        elif name:
            net = state.net.setdefault(name, Net())
            if self._instruments[name].is_spot:
                net.quantity += message.quantity
            else:
                self._pay(self.config.currency, -net.trade(message.quantity, message.price))
            if message.strategy == RESERVE and message.reason != OPENING:
                self._correct_reserve(name, message.quantity)
        if asked is not None and not state.adjusting:
            state.opened = True
            state.ts_next = min(state.ts_next, state.ts_asked + self._ns(self.config.least_s))

    def _correct_reserve(self, name: str, quantity: Decimal) -> None:
        """Note what of the reserve nobody has kept: a correction that takes away takes from that first."""
        state = self.state
        known = state.corrected.get(name, ZERO)
        if state.holdings.get(name, {}).get(RESERVE, ZERO) * quantity >= 0:
            state.corrected[name] = known + quantity
        elif known * quantity < 0:
            state.corrected[name] = known + min(abs(known), abs(quantity)).copy_sign(quantity)

    def _heard_of(self, instrument: str, now: int) -> None:
        self.state.heard[instrument] = now
        rules = self._instruments.get(instrument)
        if rules is not None and rules.is_spot:
            self.state.heard[rules.base] = now

    # --- asking ---------------------------------------------------------------------------------

    def _ask_soon(self, now: int) -> Iterator[SnapshotAccount]:
        state, least = self.state, self._ns(self.config.least_s)
        if now - state.ts_asked < least:
            state.ts_next = min(state.ts_next, state.ts_asked + least)
        else:
            yield self._ask(now)

    def _ask(self, now: int) -> SnapshotAccount:
        state = self.state
        state.requests += 1
        state.ts_asked = now
        state.ts_next = now + self._ns(self.config.every_s)
        return SnapshotAccount(state.requests)

    # --- comparing ------------------------------------------------------------------------------

    def _compare(self, theirs: AccountSnapshot, now: int) -> Iterator[Discrepancy | AdjustBooks | ReconcileCompleted]:
        state = self.state
        if theirs.request_id <= state.answered:
            return
        soon = now + self._ns(self.config.confirm_s)
        if not theirs.complete:
            if state.verifying or state.suspicions or not state.settled:
                state.ts_next = min(state.ts_next, soon)
            return
        state.answered = theirs.request_id
        # An entry that nobody made by now was asked for in vain.
        state.adjusting = {
            name: asked for name, asked in state.adjusting.items() if theirs.request_id - asked < _PATIENCE
        }
        yield from self._note_coins(theirs)
        if not state.opened:
            yield from self._begin(theirs)
            if not state.opened:
                return
        found = self._differences(theirs)
        confirmed, still = self._weigh(found, theirs)
        if len(confirmed) < len(found) or state.adjusting:
            state.ts_next = min(state.ts_next, soon)
        for one in confirmed:
            yield from self._say(one)
        if self.config.correct and not state.adjusting:
            yield from self._correct(still, found, theirs)
        self._forget(theirs)
        if all(one.kind in _OF_ITSELF for one in found):
            state.ts_agreed = theirs.ts_event - self._ns(self.config.grace_s)
        state.settled = state.settled or all(one.kind is DiscrepancyKind.LEG_IMBALANCE for one in found)
        confirmed = [one for one in confirmed if one.kind is not DiscrepancyKind.LEG_IMBALANCE]
        if state.settled or confirmed or state.verifying:
            flat = is_flat(theirs, self._instruments, self._kept()) and theirs.request_id >= state.verify_from
            if theirs.request_id >= state.verify_from:
                state.verifying = False
            yield ReconcileCompleted(theirs.request_id, len(confirmed), flat)

    def _differences(self, theirs: AccountSnapshot) -> list[Discrepancy]:
        config = self.config
        return differences(
            self._ours(theirs),
            theirs,
            self._instruments,
            pairs=self._pairs,
            leg_tolerance=config.leg_tolerance,
            modes=config.modes,
        )

    def _ours(self, theirs: AccountSnapshot) -> Ours:
        state = self.state
        settled = theirs.ts_event - self._ns(self.config.grace_s)
        return Ours(
            state.orders,
            self._totals(),
            state.cash,
            self.config.currency,
            state.net,
            self._kept(),
            state.told,
            settled,
            state.holdings,
        )

    def _weigh(self, found: list[Discrepancy], theirs: AccountSnapshot) -> tuple[list[Discrepancy], list[Discrepancy]]:
        """Which differences are no passing ones, and which of those have moreover stood still."""
        state, wait = self.state, self._ns(self.config.confirm_s)
        confirmed, still = [], []
        suspicions: dict[str, dict[str, Suspicion]] = {}
        coming = {line.instrument for line in theirs.booked if state.told.lacks(line)}
        for one in found:
            if theirs.ts_event < self._last_heard(one) + self._ns(self.config.grace_s) or self._awaits(one, coming):
                continue
            figures = (one.ours, one.theirs)
            suspicion = state.suspicions.get(one.kind, {}).get(one.subject)
            if suspicion is None:
                suspicion = Suspicion(theirs.ts_event, theirs.request_id, figures, theirs.ts_event)
            elif suspicion.figures != figures:
                suspicion.figures, suspicion.ts_figures = figures, theirs.ts_event
            suspicions.setdefault(str(one.kind), {})[one.subject] = suspicion
            if theirs.ts_event - suspicion.ts_first >= wait:
                confirmed.append(one)
                if theirs.ts_event - suspicion.ts_figures >= wait:
                    still.append(one)
        state.suspicions = suspicions
        return confirmed, still

    def _awaits(self, found: Discrepancy, coming: set[str]) -> bool:
        """Whether something that the venue has booked, and that we are still to be told, may explain a difference."""
        if found.kind is DiscrepancyKind.AVG_PRICE:
            return bool(coming)
        if found.kind is DiscrepancyKind.BALANCE and found.subject == self.config.currency:
            return bool(coming)
        base = found.subject if found.kind is DiscrepancyKind.BALANCE else None
        return any(name == found.subject or self._base(name) == base for name in coming if name)

    def _base(self, name: str) -> str:
        return self._instruments[name].base if name in self._instruments else name

    def _say(self, found: Discrepancy) -> Iterator[Discrepancy]:
        state = self.state
        suspicion = state.suspicions[found.kind][found.subject]
        if suspicion.said != suspicion.figures:
            suspicion.said = suspicion.figures
            yield found
        if found.kind in _BOOKED:
            # Said once: what it did to positions and money shows in those, and is corrected there.
            state.told.note(found.subject, Booked("", ZERO), suspicion.ts_first)

    def _note_coins(self, theirs: AccountSnapshot) -> Iterator[Discrepancy]:
        for coin, amount in unknown_coins(theirs, self._instruments, self.config.currency):
            if coin not in self.state.noted:
                self.state.noted[coin] = None
                ours = "not in the books: no spot market of it is traded"
                yield Discrepancy(DiscrepancyKind.BALANCE, Severity.LOW, coin, ours, f"{amount:f}")

    # --- correcting -----------------------------------------------------------------------------

    def _begin(self, theirs: AccountSnapshot) -> Iterator[AdjustBooks]:
        """Enter what was there before us, unless the books have begun already."""
        state, currency = self.state, self.config.currency
        state.told.ts_since = theirs.ts_event + self._ns(self.config.grace_s)
        if state.adjusting:
            return  # asked for, and not yet in the books
        # Money that no settlement explains was given to the books at their making.
        given = state.cash and not (state.told.newer or state.told.older)
        if not self.config.correct or state.net or state.holdings or given:
            state.opened = True
            return
        money = _EXACT.subtract(theirs.balances.get(currency, ZERO), state.cash or ZERO)
        entries = (
            [AdjustBooks(f"opening/{currency}/{money:f}", RESERVE, "", currency, money, ZERO, OPENING)] if money else []
        )
        for coin, name in self._spots.items():
            amount = theirs.balances.get(coin, ZERO)
            if amount:
                entries.append(AdjustBooks(f"opening/{name}/{amount:f}", RESERVE, name, "", amount, ZERO, OPENING))
        for name, quantity in theirs.positions.items():
            entry = theirs.entries.get(name)
            if quantity and entry is not None and name in self._instruments:
                entries.append(AdjustBooks(f"opening/{name}/{quantity:f}", RESERVE, name, "", quantity, entry, OPENING))
        state.opened = not entries
        yield from self._asked(entries, theirs)

    def _correct(
        self, still: list[Discrepancy], found: list[Discrepancy], theirs: AccountSnapshot
    ) -> Iterator[AdjustBooks]:
        """Make the books say what the venue does: positions and coins first, then money, which follows from them."""
        entries: list[AdjustBooks] = []
        for one in still:
            name = self._instrument_of(one)
            if name is not None and self._is_told(name):
                entries += self._corrections(one, name, theirs)
        if not any(self._instrument_of(one) is not None for one in found):
            entries += self._money(still, theirs)
        yield from self._asked(entries, theirs)

    def _is_told(self, name: str) -> bool:
        """Whether the portfolio has said what it made of all that we know of an instrument."""
        net = self.state.net.get(name, Net())
        return net.quantity == sum(self.state.holdings.get(name, {}).values(), ZERO)

    def _instrument_of(self, found: Discrepancy) -> str | None:
        """What a difference of positions or coins is in; None where it is of something else."""
        if found.kind is DiscrepancyKind.BALANCE:
            return self._spots.get(found.subject)
        return found.subject if found.kind in _HELD and found.subject in self._instruments else None

    def _corrections(self, found: Discrepancy, name: str, theirs: AccountSnapshot) -> Iterator[AdjustBooks]:
        """What is missing is taken from those who hold it, the largest first; what is too much is put into the reserve."""
        spot = self._instruments[name].is_spot
        other = theirs.balances.get(found.subject, ZERO) if spot else theirs.positions.get(name, ZERO)
        held = self.state.holdings.get(name, {})
        left = other - sum(held.values(), ZERO)
        price = ZERO if spot else self._price_of(name, left, theirs)
        if price is None:
            return  # nobody knows what it would be worth: it is said, and left for a person
        holders = sorted(held, key=lambda strategy: (strategy == RESERVE, -abs(held[strategy]), strategy))
        for strategy in holders:
            if held[strategy] * left < 0:
                part = min(abs(left), abs(held[strategy])).copy_sign(left)
                left -= part
                yield self._entry(found, strategy, name, "", part, price)
        if left:
            yield self._entry(found, RESERVE, name, "", left, price)

    def _price_of(self, name: str, signed: Decimal, theirs: AccountSnapshot) -> Decimal | None:
        """At what to enter a correction of a position: less of it at our own mean, more so that the mean becomes the venue's."""
        net, entry = self.state.net.get(name, Net()), theirs.entries.get(name)
        after = theirs.positions.get(name, ZERO)
        if net.quantity * signed < 0:
            price = net.value / net.quantity
        elif entry is None:
            return None
        else:
            price = (entry * after - net.value) / signed if net.quantity + signed == after else entry
            price = price if price > 0 else entry
        return price.quantize(_PRICE)

    def _money(self, still: list[Discrepancy], theirs: AccountSnapshot) -> Iterator[AdjustBooks]:
        currency = self.config.currency
        ours = self._ours(theirs)
        if ours.cash != self.state.money:
            return  # the portfolio is still to say what it made of what we know
        apart = realised_apart(ours, theirs, self._instruments)
        for one in still:
            if one.kind is DiscrepancyKind.AVG_PRICE and one.subject in apart:
                entry = theirs.entries[one.subject]
                yield self._entry(one, RESERVE, one.subject, currency, apart[one.subject], entry)
            elif one.kind is DiscrepancyKind.BALANCE and one.subject == currency and ours.cash is not None:
                amount = _EXACT.subtract(theirs.balances.get(currency, ZERO), ours.cash)
                yield self._entry(one, RESERVE, "", currency, amount, ZERO)

    def _entry(
        self, found: Discrepancy, strategy: str, instrument: str, currency: str, quantity: Decimal, price: Decimal
    ) -> AdjustBooks:
        first = self.state.suspicions[found.kind][found.subject].request
        name = "/".join((found.kind, found.subject, strategy, found.ours, found.theirs, str(first)))
        reason = f"{found.kind} of {found.subject}: {found.ours} in the books, {found.theirs} at the venue"
        return AdjustBooks(name, strategy, instrument, currency, quantity, price, reason)

    def _asked(self, entries: Iterable[AdjustBooks], theirs: AccountSnapshot) -> Iterator[AdjustBooks]:
        for entry in entries:
            self.state.adjusting[entry.adjustment_id] = theirs.request_id
            yield entry

    # --- what else is known ---------------------------------------------------------------------

    def _totals(self) -> dict[str, Decimal]:
        return {name: sum(held.values(), ZERO) for name, held in self.state.holdings.items()}

    def _kept(self) -> dict[str, Decimal]:
        """What no strategy owns and was there before us: the portfolio's reserve, but for what corrections put there."""
        state = self.state
        return {
            name: held[RESERVE] - state.corrected.get(name, ZERO)
            for name, held in state.holdings.items()
            if RESERVE in held
        }

    def _last_heard(self, found: Discrepancy) -> int:
        state = self.state
        subjects = [found.subject]
        if found.kind is DiscrepancyKind.LEG_IMBALANCE:
            subjects += [pair.spot for pair in self._pairs if pair.perp == found.subject]
        elif found.kind is DiscrepancyKind.AVG_PRICE:
            subjects.append(self.config.currency)
        last = max(state.heard.get(subject, 0) for subject in subjects)
        order = state.orders.get(found.subject)
        return max(last, order.ts_heard if order is not None else 0, state.closed.get(found.subject, 0))

    def _forget(self, theirs: AccountSnapshot) -> None:
        """Drop what is over: ended orders no snapshot can show any more, and those of unknown size that filled and are gone."""
        state = self.state
        settled = theirs.ts_event - self._ns(self.config.grace_s)
        listed = {order.client_order_id for order in theirs.orders}
        for name, order in list(state.orders.items()):
            if order.quantity is None and order.filled and name not in listed and order.ts_heard <= settled:
                del state.orders[name]
                state.closed[name] = order.ts_heard
        horizon = theirs.ts_event - 10 * self._ns(self.config.every_s)
        state.closed = {name: ended for name, ended in state.closed.items() if ended > horizon}

    @staticmethod
    def _ns(seconds: float) -> int:
        return int(seconds * SECOND)
