"""The market for whoever looks at it: the carry board, candles and rules, asked of the venue in public, in threads.

What was had is kept for a moment, and asked for once however many look. While the venue is silent the last that is known is
shown with its age, and says so; where nothing is known the answer is 503, never an empty market.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import APIRouter, HTTPException, Query
from msgspec import Struct
from pydantic import BaseModel, Field

from actors.gateways.bybit_endpoint import Endpoint
from actors.gateways.bybit_rest import Backoff, BybitRest, UnansweredError
from actors.gateways.warm_up import History
from actors.http.problems import documented
from actors.places import endpoint, read_settings
from actors.process_steps import ticker_of
from actors.up import SETTINGS, mode_folder
from hean.bybit import decode
from hean.bybit.decode import category_word
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError, HeanError
from hean.execution.fees import fee_rates
from hean.instruments import Category, Instrument, instrument_id, split_id
from hean.market.carry import PERIOD, PairCosts, Settlements
from hean.market.carry_board import MEAN_OF, BoardRow, Heard, Known, Top, board
from hean.messages import Bar, FundingRate, Liquidity, PremiumIndex
from hean.store.kinds import INTERVALS
from hean.tape import Tape
from hean.units import DAY, HOUR, MILLISECOND, MINUTE, SECOND, utc

CARRY_S = 30.0
CANDLES_S = 2.0
RULES_S = 600.0
"""How long each is kept before it is asked for again."""

PATIENCE_S = 5.0
"""Longer nobody is kept waiting: what is under way goes on, and is there for the next."""

_AGAIN_S = 2.0  # after a failure nobody asks for so long
_AT_ONCE = 4
_MOST = 1_000
_FEW = 200
_SETTLED_NS = 65 * SECOND  # a settlement later than this ago may not be listed yet; nobody waits for it here
_SPAN = MEAN_OF + 2 * PERIOD

Interval = Literal["1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d"]


# --- what is answered -------------------------------------------------------------------------------


class KnownFigure(BaseModel):
    """A figure with its age."""

    value: float | None = Field(description="null where it is not known", examples=[1.25])
    as_of: str | None = Field(description="the instant it held at, UTC", examples=["2026-03-01T08:00:00Z"])
    age_s: float | None = Field(description="how long ago that was, seconds", examples=[12.5])
    why: str = Field(description="why it is not known; empty where it is", examples=[""])


class Costs(BaseModel):
    """What a round trip in both legs is made of, one way each, basis points. Half-spreads as quoted now; null: not known."""

    perp_fee_bp: float = Field(examples=[2.0])
    spot_fee_bp: float = Field(examples=[10.0])
    perp_half_spread_bp: float | None = Field(description="crossed only where the perpetual is taken", examples=[0.08])
    spot_half_spread_bp: float | None = Field(examples=[0.12])
    impact_bp: float = Field(description="what our size is taken to move the pair by", examples=[0.5])
    perp_as_maker: bool = Field(description="whether the perpetual leg is worked as maker, in and out")


class MeanOf(BaseModel):
    """What a mean is over."""

    settlements: int = Field(examples=[21])
    hours: float = Field(description="hours they were for", examples=[168.0])


class CarryRow(BaseModel):
    """One symbol's carry: the perpetual sold, its spot held. Rates are of position value; `_8h` means brought to eight hours."""

    symbol: str = Field(examples=["BTCUSDT"])
    perp: str = Field(examples=["BTCUSDT-LINEAR.BYBIT"])
    spot: str = Field(examples=["BTCUSDT-SPOT.BYBIT"])
    interval_h: KnownFigure = Field(description="hours between two settlements, the symbol's own")
    settled_bp: KnownFigure = Field(description="the last settled rate, for its own interval")
    settled_8h_bp: KnownFigure
    mean_8h_bp: KnownFigure = Field(description="the mean of the last 21 periods of eight hours")
    mean_of: MeanOf
    predicted_8h_bp: KnownFigure = Field(description="where the venue says the running interval is heading")
    nowcast_8h_bp: KnownFigure = Field(description="the same, from the minutes of premium seen so far")
    nowcast_low_8h_bp: float | None = Field(description="with 95 % it is above this", examples=[0.9])
    nowcast_high_8h_bp: float | None = Field(description="and below this", examples=[1.4])
    nowcast_known: float | None = Field(description="share of the interval's weight that was seen", examples=[0.56])
    basis_bp: KnownFigure = Field(description="the perpetual's bid less the spot's offer, over the spot")
    cost_bp: KnownFigure = Field(description="a round trip in both legs")
    costs: Costs
    net_8h_bp: KnownFigure = Field(description="the mean less the cost, spread over the time it is held")
    net_apr: KnownFigure = Field(description="the same over a year, a fraction, not compounded")
    days_to_break_even: KnownFigure = Field(description="until the mean has paid the cost; null where it never does")
    next_settlement: str | None = Field(examples=["2026-03-01T16:00:00Z"])
    next_settlement_in_s: float | None = Field(examples=[1_800.0])


class Dated(BaseModel):
    """What the venue said, and when."""

    as_of: str = Field(description="when the venue was asked, UTC", examples=["2026-03-01T08:00:00Z"])
    age_s: float = Field(description="how long ago that was, seconds", examples=[3.2])
    stale: bool = Field(
        description="whether it is older than it should be: the venue fails, and this is the last known"
    )
    failure: str = Field(description="why there is nothing newer; empty where there need not be", examples=[""])


class CarryBoard(Dated):
    """The carry of every symbol the engine watches, best first."""

    venue: str = Field(examples=["sandbox"])
    hold_days: float = Field(description="the cost is spread over so many days", examples=[14.0])
    fee_tier: str = Field(examples=["base"])
    fee_source: str = Field(examples=["setting paper.fee_tier"])
    rows: list[CarryRow]


class Candle(BaseModel):
    """Prices in quote currency, volume in base units."""

    at: str = Field(description="when it opened, UTC", examples=["2026-03-01T08:00:00Z"])
    open: float
    high: float
    low: float
    close: float
    volume: float
    closed: bool = Field(description="false of the one that still runs")


class Candles(Dated):
    """Candles of one instrument, oldest first."""

    instrument: str = Field(examples=["BTCUSDT-LINEAR.BYBIT"])
    interval: str = Field(examples=["1m"])
    candles: list[Candle]


class InstrumentRules(BaseModel):
    """The rules of one instrument. Money and quantities are text."""

    id: str = Field(examples=["BTCUSDT-LINEAR.BYBIT"])
    symbol: str = Field(examples=["BTCUSDT"])
    category: str = Field(examples=["LINEAR"])
    base: str = Field(examples=["BTC"])
    quote: str = Field(examples=["USDT"])
    tick: str = Field(examples=["0.1"])
    step: str = Field(examples=["0.001"])
    min_quantity: str = Field(examples=["0.001"])
    min_notional: str = Field(examples=["5"])
    max_leverage: str = Field(examples=["100"])
    funding_interval_h: int | None = Field(description="null of spot, which is never funded", examples=[8])


class Instruments(Dated):
    """Spot and perpetual of each of the engine's symbols, as far as the venue lists them."""

    instruments: list[InstrumentRules]


# --- what is kept -----------------------------------------------------------------------------------

T = TypeVar("T")


class Answer(Struct, Generic[T], frozen=True):
    """What was asked at `ts`. `failure` says why there is nothing newer."""

    value: T
    ts: int
    stale: bool
    failure: str


class Kept(Generic[T]):
    """One question, asked by one thread at a time, again only when what it brought is old; a failure leaves what is known.

    Args:
        ask: Asks it; raises `HeanError` where there is no answer.
        pool: Where.
        ttl_s: How long an answer is good.
        patience_s: How long somebody may be kept waiting for one.
    """

    def __init__(
        self, ask: Callable[[], T], pool: ThreadPoolExecutor, ttl_s: float, patience_s: float = PATIENCE_S
    ) -> None:
        self._ask = ask
        self._patience = patience_s
        self._pool = pool
        self._ttl = ttl_s
        self._known: tuple[T, int] | None = None
        self._failure = ""
        self._tried = 0.0
        self._flight: asyncio.Task[None] | None = None

    async def get(self) -> Answer[T]:
        """The newest there is.

        Raises:
            UnansweredError: Nothing was ever had.
        """
        now = time.monotonic()
        wait = _AGAIN_S if self._failure else self._ttl
        if self._flight is None and (not self._tried or now - self._tried >= wait):
            self._flight = asyncio.create_task(self._fly())
        flight = self._flight
        if flight is not None:
            # Whoever goes away leaves it in the air: others wait for it.
            await asyncio.wait({flight}, timeout=self._patience)
            if flight.done():
                flight.result()
        late = flight is not None and not flight.done()
        failure = self._failure or (f"no answer within {self._patience:g} s" if late else "")
        if self._known is None:
            raise UnansweredError(failure)
        value, ts = self._known
        return Answer(value, ts, bool(failure), failure)

    async def _fly(self) -> None:
        asked = time.time_ns()
        try:
            value = await asyncio.get_running_loop().run_in_executor(self._pool, self._ask)
        except HeanError as silence:
            self._failure = str(silence)
        else:
            self._known, self._failure = (value, asked), ""
        finally:
            self._tried = time.monotonic()
            self._flight = None


# --- the venue --------------------------------------------------------------------------------------


class Place(Struct, frozen=True):
    """Which market the engine was begun on last: its addresses, the symbols, and what the account is taken to pay."""

    venue: str
    endpoint: Endpoint
    symbols: tuple[str, ...]
    fee_tier: str


class VenueMarket:
    """The market of what was begun last in a home. Nothing is asked before somebody looks; another mode is noticed by itself.

    Args:
        home: HEAN's home directory.
        carry_s: How long the board's figures are good.
        candles_s: How long candles are.
        timeout_s: How long one answer of the venue may take.
    """

    def __init__(
        self, home: Path, *, carry_s: float = CARRY_S, candles_s: float = CANDLES_S, timeout_s: float = 4.0
    ) -> None:
        self._home = home
        self._carry_s = carry_s
        self._candles_s = candles_s
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="market")
        self._kept: dict[tuple[object, ...], Kept[Any]] = {}
        self._place: Place | None = None
        self._backoff = Backoff()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def place(self) -> Place:
        """Where to ask.

        Raises:
            ConfigError: No engine was ever begun here, or what it was begun with cannot be read.
        """
        place = _place(read_settings(mode_folder(self._home) / SETTINGS))
        if place != self._place:
            # What is known of another market is not known of this one.
            self._place, self._kept, self._backoff = place, {}, Backoff()
        return place

    async def carry(self) -> tuple[Place, Answer[list[Heard]]]:
        """What was heard of every symbol."""
        place = self.place()
        rules = await self.rules(place)
        ask = partial(self._heard, place, rules.value, rules.ts)
        return place, await self._keep(("carry",), ask, self._carry_s).get()

    async def candles(self, instrument: str, interval: str, limit: int) -> Answer[list[Bar]]:
        """The newest candles, oldest first, the one that still runs among them."""
        place = self.place()
        size = _FEW if limit <= _FEW else _MOST
        ask = partial(self._candles, place, instrument, interval, size)
        return await self._keep(("candles", instrument, interval, size), ask, self._candles_s).get()

    async def rules(self, place: Place) -> Answer[dict[str, Instrument]]:
        """The rules of every symbol's spot and perpetual, as far as they are listed."""
        return await self._keep(("rules",), partial(self._rules, place), RULES_S).get()

    def _keep(self, key: tuple[object, ...], ask: Callable[[], T], ttl_s: float) -> Kept[T]:
        if key not in self._kept:
            self._kept[key] = Kept(ask, self._pool, ttl_s)
        return self._kept[key]

    # --- in a thread ----------------------------------------------------------------------------

    def _rest(self, place: Place) -> BybitRest:
        return BybitRest(place.endpoint, None, instruments={}, backoff=self._backoff, timeout_s=self._timeout_s)

    def _rules(self, place: Place) -> dict[str, Instrument]:
        rest = self._rest(place)
        found: dict[str, Instrument] = {}
        try:
            for category in (Category.LINEAR, Category.SPOT):
                for symbol in place.symbols:
                    try:
                        found |= rest.rules(category, frozenset({symbol}))
                    except ConfigError:
                        continue  # it is not listed there
        finally:
            rest.close()
        if not found:
            raise UnansweredError(f"{place.endpoint.rest} lists none of {', '.join(place.symbols)}")
        return found

    def _candles(self, place: Place, instrument: str, interval: str, size: int) -> list[Bar]:
        symbol, category, _ = split_id(instrument)
        length = INTERVALS[interval]
        word = "D" if length == DAY else str(length // MINUTE)
        rest = self._rest(place)
        try:
            asked = {"category": category_word(category), "symbol": symbol, "interval": word, "limit": size}
            return decode.rest_bars(rest.public("get_kline", asked), instrument, length=length, until=1 << 62)
        finally:
            rest.close()

    def _heard(self, place: Place, rules: Mapping[str, Instrument], ts_rules: int) -> list[Heard]:
        history = History(place.endpoint, None, timeout_s=self._timeout_s)

        def ask(symbol: str) -> Heard:
            rest = self._rest(place)
            try:
                return _heard(rest, history, symbol, rules, ts_rules)
            finally:
                rest.close()

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = list(pool.map(ask, place.symbols))
        if all(one.ts_ticker is None for one in found):
            raise UnansweredError(next(iter(found[0].troubles.values()), "the venue does not answer"))
        return found


def _place(settings: EngineSettings) -> Place:
    return Place(str(settings.venue), endpoint(settings), settings.symbols, settings.paper.fee_tier)


def _heard(rest: BybitRest, history: History, symbol: str, rules: Mapping[str, Instrument], ts_rules: int) -> Heard:
    """Ask for one symbol; what cannot be had is not known, and says why."""
    perp, spot = (instrument_id(symbol, category, "BYBIT") for category in (Category.LINEAR, Category.SPOT))
    said: dict[Category, Mapping[str, Any]] = {}
    stamps: dict[Category, int] = {}
    troubles: dict[str, str] = {}
    for name, category, leg in (("perp", Category.LINEAR, perp), ("spot", Category.SPOT, spot)):
        if leg not in rules:
            troubles[name] = f"{leg} is not listed"
            continue
        try:
            asked_at = time.time_ns()
            said[category] = ticker_of(rest, symbol, category)
            stamps[category] = asked_at
        except UnansweredError as silence:
            troubles[name] = str(silence)
    funding = Settlements()
    premium_ts: list[int] = []
    premium: list[float] = []
    if perp in rules:
        try:
            until = time.time_ns() - _SETTLED_NS
            since = {(perp, FundingRate): until - _SPAN, (perp, PremiumIndex): until - PERIOD - HOUR}
            tape = history.tape(since, until, attempts=1)
        except UnansweredError as silence:
            troubles["funding"] = str(silence)
        else:
            funding = _settled(tape, perp)
            premium_ts, premium = _column(tape, PremiumIndex, perp, "premium")
    known = rules.get(perp)
    contract = said.get(Category.LINEAR, {})
    following = _number(contract, "nextFundingTime")
    return Heard(
        symbol=symbol,
        perp=perp,
        spot=spot,
        interval_h=known.funding_interval_h or None if known is not None else None,
        cap=float(known.funding_cap) or None if known is not None else None,
        ts_rules=None if known is None else ts_rules,
        funding=funding,
        predicted=_number(contract, "fundingRate"),
        ts_next=None if not following else int(following) * MILLISECOND,
        ts_ticker=stamps.get(Category.LINEAR),
        perp_top=_top(contract, stamps.get(Category.LINEAR)),
        spot_top=_top(said.get(Category.SPOT, {}), stamps.get(Category.SPOT)),
        premium_ts=premium_ts,
        premium=premium,
        troubles=troubles,
    )


def _settled(tape: Tape, perp: str) -> Settlements:
    funding = Settlements()
    for ts, rate in zip(*_column(tape, FundingRate, perp, "rate"), strict=True):
        funding.add(ts, rate, _SPAN)
    return funding


def _column(tape: Tape, kind: type[Any], instrument: str, name: str) -> tuple[list[int], list[float]]:
    stream = tape.stream(kind, instrument)
    return ([], []) if stream is None else (stream.ts.tolist(), stream.columns[name].tolist())


def _top(said: Mapping[str, Any], ts: int | None) -> Top | None:
    bid, ask = _number(said, "bid1Price"), _number(said, "ask1Price")
    return Top(bid, ask, ts) if bid and ask and bid <= ask and ts is not None else None


def _number(said: Mapping[str, Any], name: str) -> float | None:
    try:
        number = float(said.get(name) or "")
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


# --- the routes -------------------------------------------------------------------------------------


def market_router(market: VenueMarket, responses: Mapping[int | str, dict[str, Any]] | None = None) -> APIRouter:
    """The routes of the market.

    Args:
        market: Who is asked.
        responses: How refusals look, by status: for the API's document.
    """
    router = APIRouter(tags=["market"], responses=dict(responses or {}))

    @router.get("/carry", summary="What a carry would earn and cost, by symbol")
    async def carry(
        hold_days: Annotated[
            float, Query(ge=1, le=365, description="how long a carry is held: its cost is spread over so many days")
        ] = 14.0,
    ) -> CarryBoard:
        """Every figure with when it was so; what is not known says why. Net is what is left after a round trip of both legs."""
        try:
            place, answer = await market.carry()
            fees = _fees(place.fee_tier)
        except HeanError as silence:
            raise _unavailable(silence) from silence
        now = time.time_ns()
        rows = board(answer.value, fees, hold_days=hold_days, now=now)
        return CarryBoard(
            **_dated(answer, now),
            venue=place.venue,
            hold_days=hold_days,
            fee_tier=place.fee_tier,
            fee_source="setting paper.fee_tier: what the account pays is not asked for here, where there are no keys",
            rows=[_row(one, now) for one in rows],
        )

    @router.get("/candles", summary="The newest candles of an instrument", responses=documented(404))
    async def candles(
        instrument: Annotated[
            str, Query(max_length=64, description="one of `/instruments`", examples=["BTCUSDT-LINEAR.BYBIT"])
        ],
        interval: Annotated[Interval, Query(description="how long a candle is")] = "1m",
        limit: Annotated[int, Query(ge=1, le=_MOST, description="how many, the newest")] = 300,
    ) -> Candles:
        """Oldest first; the last may be open still."""
        try:
            _must_be_ours(instrument, market.place().symbols)
            answer = await market.candles(instrument, interval, limit)
        except HeanError as silence:
            raise _unavailable(silence) from silence
        now = time.time_ns()
        shown = [
            Candle(
                at=utc(bar.ts_open),
                open=bar.open,
                high=bar.high,
                low=bar.low,
                close=bar.close,
                volume=bar.volume,
                closed=bar.ts_event <= answer.ts,
            )
            for bar in answer.value[-limit:]
        ]
        return Candles(**_dated(answer, now), instrument=instrument, interval=interval, candles=shown)

    @router.get("/instruments", summary="The rules of what the engine may trade")
    async def instruments() -> Instruments:
        """Spot and perpetual of each of the engine's symbols: steps, least sizes, leverage, hours between settlements."""
        try:
            answer = await market.rules(market.place())
        except HeanError as silence:
            raise _unavailable(silence) from silence
        listed = [_rules(one) for _, one in sorted(answer.value.items())]
        return Instruments(**_dated(answer, time.time_ns()), instruments=listed)

    return router


def _must_be_ours(instrument: str, symbols: Iterable[str]) -> None:
    """Refuse what the engine has nothing to do with: this is no way to ask the venue for anything at all."""
    listed = [
        instrument_id(symbol, category, "BYBIT") for symbol in symbols for category in (Category.LINEAR, Category.SPOT)
    ]
    if instrument not in listed:
        raise HTTPException(404, f"{instrument!r} is none of the engine's instruments: there are {', '.join(listed)}")


def _unavailable(silence: HeanError) -> HTTPException:
    return HTTPException(503, f"the market is not known: {silence}", headers={"Retry-After": "5"})


def _fees(tier: str) -> PairCosts:
    rates = fee_rates(tier)

    def bp(category: Category, liquidity: Liquidity) -> float:
        return float(rates.of(category, liquidity).scaleb(4))

    return PairCosts(
        perp_maker_bp=bp(Category.LINEAR, Liquidity.MAKER),
        perp_taker_bp=bp(Category.LINEAR, Liquidity.TAKER),
        spot_taker_bp=bp(Category.SPOT, Liquidity.TAKER),
    )


def _dated(answer: Answer[Any], now: int) -> dict[str, Any]:
    return {
        "as_of": _instant(answer.ts),
        "age_s": max(0.0, (now - answer.ts) / SECOND),
        "stale": answer.stale,
        "failure": answer.failure,
    }


def _row(row: BoardRow, now: int) -> CarryRow:
    nowcast, costs, known = row.nowcast, row.costs, row.cost.value is not None
    to_8h = PERIOD / row.interval_ns * 1e4 if row.interval_ns else 0.0
    return CarryRow(
        symbol=row.symbol,
        perp=row.perp,
        spot=row.spot,
        interval_h=_figure(row.interval, now),
        settled_bp=_figure(row.settled, now),
        settled_8h_bp=_figure(row.settled_8h, now),
        mean_8h_bp=_figure(row.mean_8h, now),
        mean_of=MeanOf(settlements=row.settlements, hours=row.covered_h),
        predicted_8h_bp=_figure(row.predicted_8h, now),
        nowcast_8h_bp=_figure(row.nowcast_8h, now),
        nowcast_low_8h_bp=None if nowcast is None else nowcast.low * to_8h,
        nowcast_high_8h_bp=None if nowcast is None else nowcast.high * to_8h,
        nowcast_known=None if nowcast is None else nowcast.known,
        basis_bp=_figure(row.basis, now),
        cost_bp=_figure(row.cost, now),
        costs=Costs(
            perp_fee_bp=costs.perp_maker_bp if costs.perp_as_maker else costs.perp_taker_bp,
            spot_fee_bp=costs.spot_taker_bp,
            perp_half_spread_bp=costs.perp_half_spread_bp if known else None,
            spot_half_spread_bp=costs.spot_half_spread_bp if known else None,
            impact_bp=costs.impact_bp,
            perp_as_maker=costs.perp_as_maker,
        ),
        net_8h_bp=_figure(row.net_8h, now),
        net_apr=_figure(row.net_apr, now),
        days_to_break_even=_figure(row.days_to_break_even, now),
        next_settlement=None if row.ts_next is None else utc(row.ts_next),
        next_settlement_in_s=None if row.ts_next is None else (row.ts_next - now) / SECOND,
    )


def _figure(known: Known, now: int) -> KnownFigure:
    as_of = known.as_of
    return KnownFigure(
        value=known.value,
        as_of=None if as_of is None else _instant(as_of),
        age_s=None if as_of is None else max(0.0, (now - as_of) / SECOND),
        why=known.why,
    )


def _instant(ts: int) -> str:
    """An instant to the millisecond: what is below it no clock here knows."""
    return utc(ts // MILLISECOND * MILLISECOND)


def _rules(rules: Instrument) -> InstrumentRules:
    symbol, category, _ = split_id(rules.id)
    return InstrumentRules(
        id=rules.id,
        symbol=symbol,
        category=category,
        base=rules.base,
        quote=rules.quote,
        tick=f"{rules.tick:f}",
        step=f"{rules.step:f}",
        min_quantity=f"{rules.min_quantity:f}",
        min_notional=f"{rules.min_notional:f}",
        max_leverage=f"{rules.max_leverage:f}",
        funding_interval_h=rules.funding_interval_h or None,
    )
