"""One instrument as the exchange keeps it: its book, its prices, its public trades and its candles."""

from collections import deque
from decimal import Decimal

from hean.exchange.candles import CandleBook
from hean.exchange.listing import Listing
from hean.exchange.pricing import Pricing
from hean.exchange.words import Printed, TriggerBy
from hean.execution.price_time_book import PriceTimeBook
from hean.messages import Side

TRADING, REDUCE_ONLY, SETTLING = "Trading", "ReduceOnly", "Settling"

_RECENT = 1000


class Market:
    """The state of one instrument's market.

    `last` is None until something trades; `ts_matched` is when the book last changed, `seq` rises with every change of the
    book and every trade. `external_index` is what other venues say it is worth. `pricing` keeps mark, premium and funding of a derivative, and the index of either category.
    """

    def __init__(self, listing: Listing, pricing: Pricing, candles: CandleBook) -> None:
        self.listing = listing
        self.book = PriceTimeBook()
        self.pricing = pricing
        self.candles = candles
        self.trades: deque[Printed] = deque(maxlen=_RECENT)
        self.last: Decimal | None = None
        self.external_index: float | None = None
        self.status = TRADING
        self.seq = 0
        self.ts_matched = 0

    @property
    def mark(self) -> Decimal | None:
        """What positions are valued at; for spot its last price, or before there is one what it is worth elsewhere."""
        if self.listing.is_spot:
            return self.last if self.last is not None else self.pricing.index
        return self.pricing.mark

    def price(self, by: TriggerBy) -> Decimal | None:
        """The price a trigger watches; None while it is unknown."""
        if by is TriggerBy.LAST or self.listing.is_spot:
            return self.last
        return self.pricing.mark if by is TriggerBy.MARK else self.pricing.index

    def best(self, side: Side) -> Decimal | None:
        ticks = self.book.best(side)
        return self.listing.price(ticks) if ticks is not None else None

    def bounds(self) -> tuple[Decimal, Decimal] | None:
        """The highest price a bid and the lowest an offer may have (`market/price-limit`); None while there is no price."""
        return self.within(self.listing.band)

    def within(self, band: Decimal) -> tuple[Decimal, Decimal] | None:
        """The prices a fraction above and below what bands are measured from, to the tick inside."""
        around = self.mark
        if around is None:
            return None
        tick = self.listing.instrument.tick
        high = around * (1 + band) // tick * tick
        low = -(-around * (1 - band) // tick) * tick
        return high, max(low, tick)
