"""What is watched of each instrument: which topics tell of it, what is known so far, and what has to be asked for by REST.

Settled rates and the premium index have no stream; candles and trades have one that may have been away.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct, field
from pydantic import BaseModel, Field

from actors.gateways.bybit_rest import BybitRest
from actors.gateways.bybit_trades import TradeJoin
from hean.bybit import decode
from hean.bybit.book_chain import BookChain
from hean.bybit.decode import Ticker, category_word
from hean.errors import ConfigError
from hean.instruments import Category, split_id
from hean.messages import (
    Bar,
    BookLevels,
    FundingRate,
    MarkPrice,
    Observation,
    PremiumIndex,
    Quote,
    Trade,
)
from hean.units import MILLISECOND, MINUTE, SECOND

LATE_NS = 3 * SECOND
"""What closes at an instant may be had by REST this much later."""

_LENGTHS = {"1": 1, "3": 3, "5": 5, "15": 15, "30": 30, "60": 60, "120": 120, "240": 240, "360": 360, "720": 720}
_TRADES_A_PAGE = {Category.SPOT: 60, Category.LINEAR: 1_000, Category.INVERSE: 1_000}
_CONTRACTS_ONLY = (MarkPrice, FundingRate, PremiumIndex)


class FeedConfig(BaseModel, frozen=True, extra="forbid"):
    """How the market is watched, and how long it may be silent."""

    book_depth: int = Field(default=50, description="levels of a kept book: 50, 200 or 1000")
    bar_minutes: int = Field(default=1, description="length of candles")
    flush_ms: float = Field(
        default=50, ge=0, description="between two tellings; quotes and marks in between are conflated"
    )
    book_silence_s: float = Field(default=5, gt=0, description="a book silent for longer is not to be trusted")
    ticker_silence_s: float = Field(default=20, gt=0, description="the same of a mark")
    bar_silence_s: float = Field(default=90, gt=0, description="the same of the running candle")
    trade_audit_s: float = Field(default=15, gt=0, description="how often trades are compared with those had by REST")
    resync_s: float = Field(default=1, gt=0, description="the least time between two subscriptions of one topic")
    ack_s: float = Field(default=5, gt=0, description="how long an acknowledgement may take")
    clock_s: float = Field(default=60, gt=0, description="between two measurements of the venue's clock")
    skew_s: float = Field(default=1, gt=0, description="a clock further off than this is reported")
    timeout_s: float = Field(default=5, gt=0, description="how long an answer may take")
    seed: int = Field(default=0, description="of the jitter between attempts")

    @property
    def bar_ns(self) -> int:
        return self.bar_minutes * MINUTE


class Watched(Struct):
    """One instrument, and what is known of it."""

    instrument: str
    symbol: str
    category: Category
    kinds: frozenset[type[Observation]]
    topics: tuple[str, ...]
    trades: TradeJoin
    chain: BookChain = field(default_factory=BookChain)
    best: BookChain = field(default_factory=BookChain)
    quote: tuple[float, float, float, float] | None = None
    ticker: Ticker = field(default_factory=Ticker)
    ts_ticker: int = 0
    stale: bool = False
    # what is due by REST
    ts_bar: int = 0
    ts_premium: int = 0
    ts_settled: int = 0
    ts_struck: int = 0
    ts_asked: dict[str, int] = field(default_factory=dict)
    asking: set[str] = field(default_factory=set)


def wanted(watches: Iterable[tuple[str, type[Observation]]], config: FeedConfig, now: int) -> Iterator[Watched]:
    """Everything that is to be watched, by instrument.

    Raises:
        ConfigError: Something wanted does not exist at Bybit.
    """
    kinds: dict[str, set[type[Observation]]] = {}
    for instrument, kind in watches:
        kinds.setdefault(instrument, set()).add(kind)
    minutes = str(config.bar_minutes)
    if minutes not in _LENGTHS:
        raise ConfigError(f"bar_minutes is {minutes}: Bybit has {', '.join(_LENGTHS)}")
    for instrument, of in kinds.items():
        symbol, category, venue = split_id(instrument)
        if venue != decode.VENUE:
            raise ConfigError(f"{instrument} is not of Bybit")
        topics = []
        for kind in sorted(of, key=lambda kind: kind.__name__):
            if category is Category.SPOT and kind in _CONTRACTS_ONLY:
                raise ConfigError(f"{instrument} has no {kind.__name__}: spot has neither mark nor funding")
            topics += _topics_of(kind, symbol, config)
        yield Watched(
            instrument=instrument,
            symbol=symbol,
            category=category,
            kinds=frozenset(of),
            topics=tuple(dict.fromkeys(topics)),
            trades=TradeJoin(_TRADES_A_PAGE[category], now),
            ts_bar=now - now % config.bar_ns,
            ts_premium=now - now % MINUTE,
            ts_settled=now,
        )


def _topics_of(kind: type[Observation], symbol: str, config: FeedConfig) -> list[str]:
    named = {
        Quote: [f"orderbook.1.{symbol}"],
        BookLevels: [f"orderbook.{config.book_depth}.{symbol}"],
        Trade: [f"publicTrade.{symbol}"],
        Bar: [f"kline.{config.bar_minutes}.{symbol}"],
        MarkPrice: [f"tickers.{symbol}"],
        FundingRate: [f"tickers.{symbol}"],  # for when the next is due
        PremiumIndex: [],
    }
    if kind not in named:
        raise ConfigError(f"Bybit has no stream of {kind.__name__}")
    return named[kind]


def longest_silence(topic: str, config: FeedConfig) -> int | None:
    """The longest ordinary silence of a topic, in nanoseconds. Nobody has to trade."""
    match topic.partition(".")[0]:
        case "orderbook":
            return int(config.book_silence_s * SECOND)
        case "tickers":
            return int(config.ticker_silence_s * SECOND)
        case "kline":
            return int(config.bar_silence_s * SECOND)
        case _:
            return None


def ask_for(rest: BybitRest, watched: Watched, about: str, config: FeedConfig) -> list[Any]:
    """Ask for what has no stream, or was missed: "trades", "bars", "premium" or "funding", oldest first.

    Raises:
        UnansweredError: The venue did not say.
        DataError: It said what cannot be read.
    """
    asked: dict[str, Any] = {"category": category_word(watched.category), "symbol": watched.symbol}
    name, now = watched.instrument, time.time_ns()
    closed = now - LATE_NS  # by the venue's clock too, and not closed but a moment ago
    match about:
        case "trades":
            asked["limit"] = _TRADES_A_PAGE[watched.category]
            return list(decode.rest_prints(rest.public("get_public_trade_history", asked), name))
        case "bars":
            asked |= {
                "interval": str(config.bar_minutes),
                "start": watched.ts_bar // MILLISECOND,
                "limit": 1_000,
            }
            said = rest.public("get_kline", asked)
            return list(decode.rest_bars(said, name, length=config.bar_ns, until=closed))
        case "premium":
            asked |= {"interval": "1", "start": watched.ts_premium // MILLISECOND, "limit": 1_000}
            said = rest.public("get_premium_index_price_kline", asked)
            return list(decode.premia(said, name, length=MINUTE, until=closed))
        case _:
            asked |= {
                "startTime": watched.ts_settled // MILLISECOND + 1,
                "endTime": now // MILLISECOND,
                "limit": 200,
            }
            return list(decode.settlements(rest.public("get_funding_rate_history", asked), name))
