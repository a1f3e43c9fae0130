"""The exchange with its market: what clients do on one side, what the world does on the other."""

from collections.abc import Mapping

from hean.exchange.background import REFILL, Background
from hean.exchange.candles import CandleBook
from hean.exchange.exchange import Exchange
from hean.exchange.ids import Ids
from hean.exchange.listing import Listing
from hean.exchange.market import Market
from hean.exchange.pricing import Pricing
from hean.exchange.sources.source import Shown, Source
from hean.units import SECOND

PACE = SECOND // 20
"""How often the market is looked at: triggers, marks, margins, what was taken. Always at multiples of it, so that what happens
does not depend on how often the exchange is asked."""


class Bybit:
    """An exchange whose market moves by itself. Nothing here reads a clock: `advance` is told the time.

    `ts` is how far the market has come.
    """

    def __init__(self, exchange: Exchange, source: Source, background: Background, ts_start: int) -> None:
        self.exchange = exchange
        self.source = source
        self.ts = ts_start
        self._background = background
        self._ts_look = -(-ts_start // PACE) * PACE

    @classmethod
    def open(
        cls,
        listings: Mapping[str, Listing],
        source: Source,
        *,
        ts_start: int,
        seed: int = 0,
        refill: int = REFILL,
    ) -> "Bybit":
        """Begin an exchange at `ts_start`, with the past that its source tells.

        Args:
            listings: By instrument; those the source does not know are not listed.
            source: What the market does by itself.
            ts_start: When it begins.
            seed: What its ids are made from.
            refill: After how many nanoseconds of market time what was taken from the background comes back.
        """
        markets: dict[str, Market] = {}
        ts_begin = ts_start
        for instrument, history in source.history().items():
            listing = listings[instrument]
            pricing = Pricing(listing, min(ts_start, history.ts_end))
            pricing.load(history)
            candles = CandleBook()
            candles.load(history)
            markets[instrument] = Market(listing, pricing, candles)
            ts_begin = min(ts_begin, history.ts_end)
        exchange = Exchange(markets, Ids(seed, ts_start))
        bybit = cls(exchange, source, Background(exchange, markets, refill=refill), ts_begin)
        bybit.advance(ts_start)
        exchange.drain()
        return bybit

    def advance(self, now: int) -> None:
        """Let the market do what it does up to `now`, in order of time, however late this is called."""
        for move in self.source.advance(now):
            self._look_until(move.ts)
            if isinstance(move, Shown):
                market = self.exchange.markets[move.instrument]
                if move.index is not None:
                    market.external_index = move.index
                if move.interest is not None:
                    market.candles.observe_interest(move.ts, move.interest)
                self._background.show(move)
            else:
                self._background.flow(move)
        self._look_until(now + 1)
        self.ts = max(self.ts, now)

    def _look_until(self, ts: int) -> None:
        """Look at the market at each multiple of the pace before `ts`."""
        while self._ts_look < ts:
            self._background.mend(self._ts_look)
            self.exchange.tick(self._ts_look)
            self._ts_look += PACE
