"""What each strategy holds and is about to hold, and what that leaves of the limits.

A slot is one strategy's place in one instrument. While an order of ours is under way the slot counts for the larger of
what is held and what is aimed at, so that no two strategies spend the same headroom; when all its orders have ended
and every fill heard has turned into a position, what is held is all that counts.
"""

from collections.abc import Iterable
from decimal import Decimal

from msgspec import Struct

from hean.messages import Side
from hean.risk.memory import RoundTrip

ZERO = Decimal(0)

RESERVE = ""
"""In the place of a strategy: what was in the account before us. It is its owner's, and not ours to trade or to limit."""

# `Side.BUY` is looked up in the enum at each mention, which takes longer than any limit.
BUY, SELL = Side.BUY, Side.SELL


class Order(Struct):
    """An order of ours that has not ended: what of it may still trade, signed, and what has."""

    strategy: str
    instrument: str
    remaining: Decimal
    unknown: bool = False
    filled: Decimal = ZERO


class Slot(Struct):
    """One strategy in one instrument. Quantities are signed, in base units.

    `price` is the last that this strategy named or traded at, in quote. `orders` counts ours that have not ended, `pair`
    names the pair at work here. `fills` and `positions` count what was heard since the slot was last settled: each fill is
    followed, or preceded, by the position it makes; the last came at `ts_fill`. `stress` is what a pair's leg would ask for after a shock. `leave` is
    a wish to be flat that waits for what is under way. `reduces` is whether what was last sent said that it only reduces. While `restating`, the next position is the one that the portfolio
    states anew after a restart: it answers no fill.
    """

    strategy: str
    instrument: str
    base: str
    margin_rate: Decimal
    held: Decimal = ZERO
    dust: Decimal = ZERO
    target: Decimal = ZERO
    price: Decimal = ZERO
    value: Decimal = ZERO
    stress: Decimal = ZERO
    orders: int = 0
    pair: str = ""
    fills: int = 0
    positions: int = 0
    ts_fill: int = 0
    leave: bool = False
    reduces: bool = False
    restating: bool = False
    context: str = ""
    trip: RoundTrip | None = None

    @property
    def pending(self) -> bool:
        """Whether anything is under way: an order, a pair, or a fill whose position has not been heard of."""
        return self.orders > 0 or bool(self.pair) or self.fills > self.positions

    def hold(self, held: Decimal, dust: Decimal) -> None:
        """Take what the portfolio says; the same said again is no news and answers no fill."""
        if held != self.held or dust != self.dust:
            self.held = held
            self.dust = dust
            if not self.restating:
                self.positions += 1

    def settle(self) -> bool:
        """Let go of what was reserved if nothing is under way; say whether so.

        A position that has reached its target answers every fill, however many it was said for.
        """
        settled = not (self.orders or self.pair) and (self.fills <= self.positions or self.held == self.target)
        if settled:
            self.target = self.held
            self.fills = self.positions = 0
            if not self.held:
                self.stress = ZERO
        self.revalue()
        return settled

    def revalue(self) -> None:
        """Work out anew what the slot counts for: a value, never below zero."""
        if self.held is self.target:
            self.value = abs(self.held) * self.price if self.held else ZERO
        else:
            held, target = abs(self.held), abs(self.target)
            larger = held if held >= target else target  # noqa: FURB136 (a comparison costs half of a call)
            # In a state that was read back two noughts are not one object: they count for the same all the same.
            self.value = larger * self.price if larger else ZERO


class Totals(Struct):
    """Values of all slots but those asked about: what a new target comes on top of.

    `high` and `low` are the furthest long and short that the base coin can come to stand, in quote, given
    what is under way. The legs of a pair move together, so a pair counts as what it aims at.
    """

    gross: Decimal = ZERO
    strategy: Decimal = ZERO
    margin: Decimal = ZERO
    stress: Decimal = ZERO
    high: Decimal = ZERO
    low: Decimal = ZERO


def totals(slots: dict[str, dict[str, Slot]], strategy: str, base: str, apart: Iterable[Slot]) -> Totals:
    """Add up every slot of a strategy's that counts for something, except those `apart`.

    What another strategy holds against the coin gives no headroom: it may leave at any time.
    """
    gross = own = margin = stress = high = low = ZERO
    for name, places in slots.items():
        if name == RESERVE:
            continue
        up = down = ZERO
        for slot in places.values():
            value = slot.value
            if not value or any(slot is other for other in apart):
                continue
            gross += value
            margin += value * slot.margin_rate
            stress += slot.stress
            if name == strategy:
                own += value
            if slot.base == base:
                target = slot.target * slot.price
                held = target if slot.pair else slot.held * slot.price
                up += max(held, target)
                down += min(held, target)
        high += up if name == strategy else max(up, ZERO)
        low += down if name == strategy else min(down, ZERO)
    return Totals(gross, own, margin, stress, high, low)
