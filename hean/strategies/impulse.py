"""The impulse engine: it joins a sudden, busy move for at most an hour, with exits held at the venue.

Without skill such a trade loses its costs: the target is hit before the stop with a chance of stop/(stop + target), no matter
the volatility. It is worth trading only where its hit rate is shown to exceed what `notes` says it must.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, assert_never

from msgspec import Struct
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from hean.instruments import Perp
from hean.market.features import (
    annualised,
    first_impulse,
    gate_counts,
    impulse_columns,
    impulse_now,
    near_stamp,
    order_flow,
    trade_imbalance,
    turmoil_rank,
    volume_ratio,
    volume_ratios,
)
from hean.market.history import History, Rows
from hean.messages import (
    Bar,
    Bracket,
    Leg,
    OrderFilled,
    PositionChanged,
    Quote,
    Signal,
    SignalRefused,
    Trade,
    Wake,
)
from hean.strategies.gates import Gate, figure, in_words
from hean.tape import Floats, Stream, Tape
from hean.units import DAY, HOUR, MINUTE, SECOND

TICKS_KEPT = 1 << 16
"""Trades and quotes remembered: a window with more of them is judged by the newest."""

_NOTHING = Decimal(0)
_QUOTE = ("bid", "bid_size", "ask", "ask_size")

Columns = tuple[NDArray[Any], ...]


class ImpulseConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = Field("impulse", pattern=r"^[A-Za-z0-9_-]{1,16}$", description="the strategy's name, and its node's")
    instrument: Perp = Field(description="the perpetual it watches and trades")

    tau_s: int = Field(
        120, ge=1, le=3600, description="length of the move it looks for, seconds; whole bars, one at least"
    )
    sigma_window_min: int = Field(
        240, ge=2, le=1440, description="minutes of one-bar returns whose root mean square the move is measured in"
    )
    trigger: float = Field(3.0, gt=0, description="a move is an impulse beyond as many sigmas of its own length")
    volume_ratio: float = Field(
        2.0, ge=0, description="its volume must exceed as many times the median of the same hour of day"
    )
    volume_days: int = Field(7, ge=1, le=30, description="days before this one that say what volume is usual")

    imbalance: float = Field(
        0.2,
        ge=-1,
        lt=1,
        description="(bought - sold) / volume of the move's trades must exceed this in its direction; -1 asks only for trades",
    )
    book_agrees: bool = Field(
        True, description="whether the order flow at the best bid and offer must be on the move's side"
    )
    max_spread_bp: float = Field(3.0, gt=0, description="widest spread it enters at, basis points")
    depth_notional: float = Field(
        20_000, ge=0, description="least value at the best bid and at the best offer, quote currency: 20 usual orders"
    )

    cost_bp: float = Field(11.0, ge=0, description="taker fees in and out, basis points of notional")
    spread_bp: float = Field(1.0, ge=0, description="spread it reckons with where no quotes are heard, basis points")
    cost_multiple: float = Field(3.0, ge=0, description="sigma of an hour must be as many times fees and spread")

    funding_interval_h: int = Field(8, ge=1, le=24, description="hours between funding stamps, counted from 00:00 UTC")
    funding_quiet_min: float = Field(2.0, ge=0, description="it does not enter closer to a funding stamp, minutes")

    stop_sigma: float = Field(
        1.0, gt=0, description="the stop's distance from the price in log price, in sigmas of an hour"
    )
    target_sigma: float = Field(
        2.0, gt=0, description="the target's distance from the price in log price, in sigmas of an hour"
    )
    hold_min: float = Field(60.0, gt=0, description="it leaves after as many minutes")
    leave_again_s: float = Field(
        10.0, gt=0, description="seconds after which it asks again to be out, if it still is in"
    )

    cooldown_min: float = Field(
        15.0, ge=1, description="minutes after asking, and after being out, without asking again"
    )
    losses: int = Field(3, ge=1, description="as many losing trades in a row make it pause")
    pause_h: float = Field(4.0, ge=0, description="length of that pause, hours")
    trades_a_day: int = Field(
        8, ge=1, description="entries asked for in one UTC day, at most; refused ones do not count"
    )

    context_window_h: int = Field(
        24, ge=1, le=96, description="hours that say which way the market goes, and how volatile it is a year"
    )


class ImpulseState(Struct):
    """What it holds and remembers. `net` and `cash` add up the fills of the trade under way.

    Stamps are 0 before the first time. `interval` is the length of the bars it is told, 0 before the first.
    """

    position: Decimal = _NOTHING
    entry: Decimal = _NOTHING
    net: Decimal = _NOTHING
    cash: Decimal = _NOTHING
    ts_asked: int = 0
    ts_entered: int = 0
    ts_leaving: int = 0
    ts_out: int = 0
    ts_paused_until: int = 0
    asked_today: int = 0
    losses: int = 0
    interval: int = 0
    bars: Rows | None = None
    trades: Rows | None = None
    quotes: Rows | None = None


class ImpulseEngine:
    """Joins a move that is large, busy, worth its costs, and confirmed by the order flow where that is told.

    It decides at the close of a bar. On bars of one second that is the engine of ticks; on bars of a minute the move is
    measured in minutes. Trades and quotes, where it hears them, are confirmations; where it does not, `notes` says which are off.
    """

    def __init__(self, config: ImpulseConfig) -> None:
        self.config = config
        self._state = ImpulseState()
        self._bars = History(Bar, config.instrument, ("close", "volume"), 1)
        self._trades = History(Trade, config.instrument, ("size", "side"), TICKS_KEPT)
        self._quotes = History(Quote, config.instrument, _QUOTE, TICKS_KEPT)
        self._hold = round(config.hold_min * MINUTE)
        self._leave_again = round(config.leave_again_s * SECOND)
        self._cooldown = round(config.cooldown_min * MINUTE)
        self._stamp_every = config.funding_interval_h * HOUR
        self._stamp_quiet = round(config.funding_quiet_min * MINUTE)
        self._set_interval(MINUTE)

    @property
    def state(self) -> ImpulseState:
        state = self._state
        state.bars, state.trades, state.quotes = self._bars.rows(), self._trades.rows(), self._quotes.rows()
        return state

    @property
    def longest_hold(self) -> int:
        """After so many nanoseconds it leaves."""
        return self._hold

    @property
    def warmup_ns(self) -> int:
        """How much of the market it must be told before it says what it would have said had it always listened."""
        return self.config.volume_days * DAY + max(2, self.config.context_window_h) * HOUR + DAY

    # --- being told -----------------------------------------------------------------------------

    def handle(
        self, message: Bar | Trade | Quote | OrderFilled | PositionChanged | SignalRefused | Wake, now: int
    ) -> Iterator[Signal]:
        match message:
            case Bar():
                if self._state.interval == 0:
                    self._begin(message.ts_event - message.ts_open)
                if len(self._bars) and message.ts_event < self._bars.last_ts:
                    return  # told late, or again: windows hold what came after it
                self._bars.append(message.ts_event, (message.close, message.volume))
                if not self._state.position and message.ts_event >= self._not_before():
                    signal = self._enter(message.ts_event, message.close)
                    if signal is not None:
                        yield signal
            case Trade():
                self._trades.append(message.ts_event, (message.size, message.side))
            case Quote():
                self._quotes.append(message.ts_event, (message.bid, message.bid_size, message.ask, message.ask_size))
            case OrderFilled():
                if message.instrument == self.config.instrument:
                    self._fold(message, now)
            case PositionChanged():
                if message.instrument == self.config.instrument:
                    self._hold_now(message, now)
            case SignalRefused():
                state = self._state
                if not state.position and state.asked_today and message.instrument == self.config.instrument:
                    state.asked_today -= 1
            case Wake():
                if self._state.position and now >= self._leaves_at():
                    yield self._leave(now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return self._leaves_at() if self._state.position else None

    # --- going in -------------------------------------------------------------------------------

    def _not_before(self) -> int:
        """No entry is asked for earlier: cooldown, the pause after losses, and the day's trades are used up."""
        state = self._state
        last = max(state.ts_asked, state.ts_out)
        earliest = last + self._cooldown if last else 0
        if state.asked_today >= self.config.trades_a_day:
            earliest = max(earliest, (state.ts_asked // DAY + 1) * DAY)
        return max(earliest, state.ts_paused_until)

    def _enter(self, ts: int, price: float) -> Signal | None:
        sigma, z = self._move()
        if not all(gate.passed for gate in self.entry_gates(ts, sigma, z)):
            return None
        config, state = self.config, self._state
        stamps, close, _ = self._bars.arrays()
        interval, bars = self._interval, self._tau_bars
        hourly = sigma * math.sqrt(HOUR / interval)
        sign = 1 if z > 0 else -1
        state.asked_today = state.asked_today + 1 if state.ts_asked // DAY == ts // DAY else 1
        state.ts_asked = ts
        state.net = state.cash = _NOTHING
        volatility, context = self._market(stamps, close, ts)
        return Signal(
            strategy=config.name,
            legs=(Leg(config.instrument, float(sign), price, ts),),
            reason=f"moved {z:+.1f} sigma in {bars * interval // SECOND} s on {self._busy():.1f} times the usual volume",
            edge_bp=None,
            volatility=volatility,
            bracket=Bracket(
                stop=price * math.exp(-sign * config.stop_sigma * hourly),
                target=price * math.exp(sign * config.target_sigma * hourly),
            ),
            context=context,
        )

    def entry_gates(self, ts: int, sigma: float, z: float) -> Iterator[Gate]:
        """Each condition of an entry on a move, in the order in which they are asked; there must be a bar."""
        config = self.config
        hour_bp = math.sqrt(HOUR / self._interval) * 1e4
        yield Gate(
            abs(z) > config.trigger,
            f"a move of {figure(abs(z))} sigma in {self._tau_bars * self._interval // SECOND} s, beyond {config.trigger:g}",
        )
        least = self._least_sigma(self._spread_bp())
        yield Gate(
            sigma >= least,
            f"sigma of an hour {figure(sigma, '.1f', hour_bp)} bp, at least {least * hour_bp:.1f}",
        )
        yield Gate(
            not near_stamp(ts, self._stamp_every, self._stamp_quiet),
            f"{config.funding_quiet_min:g} minutes from a funding stamp",
        )
        ratio = self._busy()
        yield Gate(
            ratio > config.volume_ratio, f"volume {figure(ratio)} times the usual, above {config.volume_ratio:g}"
        )
        sign = math.nan if math.isnan(z) else 1.0 if z > 0 else -1.0
        if len(self._trades):
            yield self._trade_gate(self._trades.arrays(), sign, ts)
        if len(self._quotes):
            yield from self._quote_gates(self._quotes.arrays(), sign, ts)

    def _move(self) -> tuple[float, float]:
        """Sigma of one bar, and the last move in sigmas of its own length; unknown as NaN."""
        stamps, close, _ = self._bars.arrays()
        return impulse_now(stamps, close, self._interval, self._tau_bars, self._sigma_bars)

    def _busy(self) -> float:
        """The volume of the move over what is usual; unknown as NaN. There must be a bar."""
        stamps, _, volume = self._bars.arrays()
        days = self.config.volume_days
        return volume_ratio(stamps, volume, stamps.size - 1, self._interval, self._tau_bars, days)

    def _least_sigma(self, spread_bp: float) -> float:
        """The least sigma of one bar at which an hour's is worth the costs."""
        config = self.config
        return config.cost_multiple * (config.cost_bp + spread_bp) * 1e-4 / math.sqrt(HOUR / self._interval)

    def _spread_bp(self) -> float:
        if not len(self._quotes):
            return self.config.spread_bp
        return _spread_bp(self._quotes.last("bid"), self._quotes.last("ask"))

    def _trade_gate(self, trades: Columns, sign: float, ts: int) -> Gate:
        """Those who took were on the move's side."""
        stamps, size, side = trades
        imbalance = sign * trade_imbalance(stamps, size, side, ts - self._tau_bars * self._interval)
        least = self.config.imbalance
        return Gate(imbalance > least, f"imbalance of trades on the move's side {figure(imbalance)}, above {least:g}")

    def _quote_gates(self, quotes: Columns, sign: float, ts: int) -> Iterator[Gate]:
        """The book moved with it, the spread is narrow, and there is enough to trade with at the best prices."""
        config = self.config
        stamps, bid, bid_size, ask, ask_size = quotes
        if config.book_agrees:
            first = max(0, int(stamps.searchsorted(ts - self._tau_bars * self._interval, side="right")) - 1)
            flow = sign * float(order_flow(bid[first:], bid_size[first:], ask[first:], ask_size[first:]).sum())
            yield Gate(flow > 0, f"order flow on the move's side {figure(flow, 'g')}, above 0")
        best_bid, best_ask = bid.item(-1), ask.item(-1)
        spread_bp = _spread_bp(best_bid, best_ask)
        yield Gate(
            spread_bp <= config.max_spread_bp, f"a spread of {figure(spread_bp)} bp, at most {config.max_spread_bp:g}"
        )
        depth = min(best_bid * bid_size.item(-1), best_ask * ask_size.item(-1))
        yield Gate(
            depth >= config.depth_notional,
            f"{figure(depth, ',.0f')} at the best prices, at least {config.depth_notional:,.0f}",
        )

    def _market(self, stamps: NDArray[Any], close: Floats, ts: int) -> tuple[float | None, str]:
        """The volatility per year, and the kind of market in words; unknown where a bar is missing."""
        interval = self._interval
        trend_bars = max(1, self.config.context_window_h * HOUR // interval)
        daily, trend = impulse_now(stamps, close, interval, trend_bars, trend_bars)
        rank = turmoil_rank(stamps, close, interval, self._sigma_bars)
        if math.isnan(daily) or math.isnan(trend) or math.isnan(rank):
            return (None if math.isnan(daily) else annualised(daily, interval)), ""
        regime = "up" if trend > 1 else "down" if trend < -1 else "flat"
        turmoil = "calm" if rank < 1 / 3 else "wild" if rank > 2 / 3 else "usual"
        session = ("asia", "europe", "america")[ts % DAY // (8 * HOUR)]
        return annualised(daily, interval), f"{regime}|{turmoil}|{session}"

    # --- holding, and going out -----------------------------------------------------------------

    def _hold_now(self, told: PositionChanged, now: int) -> None:
        state = self._state
        if told.quantity * state.position <= 0:
            if told.quantity:
                # Asked within the hour it may last, it is that trade; older than we remember, its hour begins now.
                state.ts_entered = state.ts_asked if now - state.ts_asked < self._hold else now
            elif state.position:
                state.ts_out = now
        state.position = told.quantity
        state.entry = told.entry

    def _fold(self, fill: OrderFilled, now: int) -> None:
        """Add up a trade's fills, and count it as lost or won, after fees, when it is closed."""
        state = self._state
        if not state.net and state.position * fill.side < 0:
            # We were told the position, not the fills that made it.
            state.net = state.position
            state.cash = -state.position * state.entry
        signed = fill.quantity * fill.side
        state.net += signed
        state.cash -= signed * fill.price + fill.fee
        if not state.net:
            state.losses = state.losses + 1 if state.cash < 0 else 0
            state.cash = _NOTHING
            if state.losses >= self.config.losses:
                state.losses = 0
                state.ts_paused_until = now + round(self.config.pause_h * HOUR)

    def _leaves_at(self) -> int:
        state = self._state
        at = state.ts_entered + self._hold
        return max(at, state.ts_leaving + self._leave_again) if state.ts_leaving >= state.ts_entered else at

    def _leave(self, now: int) -> Signal:
        self._state.ts_leaving = now
        known = len(self._bars) > 0
        price, seen = (self._bars.last("close"), self._bars.last_ts) if known else (float(self._state.entry), now)
        return Signal(
            strategy=self.config.name,
            legs=(Leg(self.config.instrument, 0.0, price, seen),),
            reason=f"held for {self.config.hold_min:g} minutes",
            edge_bp=None,
            volatility=None,
            bracket=None,
            context="",
        )

    # --- a tape ---------------------------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        """The first bar that passes every gate of bars, no earlier than entries are allowed; none while holding."""
        stream = tape.stream(Bar, self.config.instrument)
        if stream is None or self._state.position:
            return stop
        first, last = stream.rows_before(start), stream.rows_before(stop)
        if first >= last:
            return stop
        if self._state.interval == 0:
            return stream.position(first)
        if first < self._bars.size and not self._bars.stands_on(stream, first):
            # It remembers what the tape does not, so the tape's columns say less than it knows.
            return stream.position(first)
        first = max(first, int(stream.ts.searchsorted(self._not_before())))
        if first >= last:
            return stop
        row = self._first_impulse(tape, stream, first, last)
        return stream.position(row) if row < last else stop

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        stream = tape.stream(Bar, self.config.instrument)
        if stream is not None and self._state.interval == 0 and stream.rows_before(start) < stream.rows_before(stop):
            self._begin(stream.interval)
        self._bars.skip(tape, start, stop)
        self._trades.skip(tape, start, stop)
        self._quotes.skip(tape, start, stop)

    def _begin(self, interval: int) -> None:
        self._state.interval = interval
        self._set_interval(interval)

    def _set_interval(self, interval: int) -> None:
        """Count windows in bars of a length, and remember as many as the longest needs."""
        config = self.config
        self._interval = interval
        self._tau_bars = max(1, config.tau_s * SECOND // interval)
        self._sigma_bars = max(self._tau_bars, config.sigma_window_min * MINUTE // interval)
        span = max(config.volume_days * DAY + HOUR, (config.context_window_h + 1) * HOUR)
        size = max(span // interval, self._sigma_bars) + 2
        self._bars = History(Bar, config.instrument, ("close", "volume"), size)

    def _columns(self, tape: Tape, stream: Stream) -> tuple[Floats, Floats, Floats]:
        """Sigma, z and the volume ratio at every bar of a tape: shared by all that count the same windows."""
        interval, bars, window = stream.interval, self._tau_bars, self._sigma_bars
        days, trigger = self.config.volume_days, self.config.trigger
        close, volume = stream.columns["close"], stream.columns["volume"]
        sigma, z = tape.derived(
            ("impulse", stream.index, bars, window),
            lambda: impulse_columns(stream.ts, close, interval, bars, window),
        )
        ratio = tape.derived(
            ("impulse volume", stream.index, bars, window, days, trigger),
            lambda: volume_ratios(stream.ts, volume, z, interval, bars, days, trigger),
        )
        return sigma, z, ratio

    def _first_impulse(self, tape: Tape, stream: Stream, start: int, stop: int) -> int:
        sigma, z, ratio = self._columns(tape, stream)
        return int(
            first_impulse(
                stream.ts,
                sigma,
                z,
                ratio,
                start,
                stop,
                self.config.trigger,
                self._floor(tape),
                self.config.volume_ratio,
                self._stamp_every,
                self._stamp_quiet,
            )
        )

    def _floor(self, tape: Tape) -> float:
        """The least sigma whatever the spread, where quotes will say what it is."""
        quoted = len(self._quotes) > 0 or tape.stream(Quote, self.config.instrument) is not None
        return self._least_sigma(0.0 if quoted else self.config.spread_bp)

    # --- for those who ask ----------------------------------------------------------------------

    def waits_for(self, now: int) -> tuple[str, ...]:
        """What it waits for: each condition as it is measured at the last bar; while it holds, the time to leave."""
        state, config = self._state, self.config
        if state.position:
            left = (self._leaves_at() - now) / SECOND
            return (
                f"holds: {state.position:f} {config.instrument}",
                "leaves when: its stop or its target is hit at the venue",
                f"or when: held for {config.hold_min:g} minutes, {max(0.0, left):.0f} s from now",
            )
        if not len(self._bars):
            return in_words((Gate(passed=False, said=f"a first bar of {config.instrument}"),))
        wait = (self._not_before() - now) / SECOND
        today = state.asked_today if state.ts_asked // DAY == now // DAY else 0
        free = Gate(
            wait <= 0,
            f"{max(0.0, wait):.0f} s of cooldown or pause, with {today} of {config.trades_a_day} trades today and "
            f"{state.losses} of {config.losses} losses in a row",
        )
        ts = self._bars.last_ts
        return in_words((free, *self.entry_gates(ts, *self._move())))

    # --- what a reader of a report should know --------------------------------------------------

    def notes(self, tape: Tape) -> tuple[str, ...]:
        """What the tape cannot support, and what the strategy must prove."""
        config = self.config
        name = config.instrument
        said = []
        stream = tape.stream(Bar, name)
        if stream is None:
            said.append(f"No bars of {name}: it decides at their close, so it says nothing.")
        elif stream.interval > HOUR:
            said.append("Bars longer than an hour: no volume is usual for the hour, so it says nothing.")
        else:
            bars = max(1, config.tau_s * SECOND // stream.interval)
            if bars * stream.interval != config.tau_s * SECOND:
                seconds = bars * stream.interval // SECOND
                said.append(
                    f"A move of {config.tau_s} s is not a number of whole bars: it looks for one of {seconds} s."
                )
            if tape.size and stream.ts.item(-1) - stream.ts.item(0) < self.warmup_ns:
                said.append(
                    f"What volume is usual is known after {config.volume_days} days: it is silent before, so a "
                    f"tape shorter than {math.ceil(self.warmup_ns / DAY)} days says little."
                )
        if tape.stream(Trade, name) is None:
            said.append("OFF: imbalance of trades (no trades on the tape).")
        if tape.stream(Quote, name) is None:
            said.append(
                "OFF: order-flow imbalance, spread and depth (no quotes on the tape); "
                f"the spread is taken to be {config.spread_bp:g} bp."
            )
        else:
            said.append("Depth is what stands at the best prices: less than what lies within 5 bp.")
        chance = config.stop_sigma / (config.stop_sigma + config.target_sigma)
        if config.cost_multiple:
            needed = chance + 1 / (config.cost_multiple * (config.stop_sigma + config.target_sigma))
            said.append(
                f"Chance alone hits the target {chance:.1%} of the time; where sigma is smallest it needs {needed:.1%} to pay its costs."
            )
        return tuple(said)

    def gates(self, tape: Tape, since: int = 0) -> tuple[tuple[str, int], ...]:
        """How many bars of a tape, from `since` on, passed each condition and all before it, were it flat all the time."""
        config = self.config
        stream = tape.stream(Bar, config.instrument)
        if stream is None or not len(stream):
            return ()
        if self._state.interval != stream.interval:
            other = ImpulseEngine(config)
            other._begin(stream.interval)
            return other.gates(tape, since)
        sigma, z, ratio = self._columns(tape, stream)
        first = int(stream.ts.searchsorted(since))
        counts = gate_counts(
            stream.ts[first:],
            sigma[first:],
            z[first:],
            ratio[first:],
            config.trigger,
            self._floor(tape),
            config.volume_ratio,
            self._stamp_every,
            self._stamp_quiet,
        )
        known, large, paying, busy, clear = counts.tolist()
        counted = [
            ("bars", len(stream) - first),
            ("sigma known", known),
            (f"move beyond {config.trigger:g} sigma", large),
            (f"sigma of an hour at least {config.cost_multiple:g} times the costs", paying),
            (f"volume beyond {config.volume_ratio:g} times the usual", busy),
            (f"{config.funding_quiet_min:g} minutes from funding", clear),
        ]
        return (*counted, *self._flow_gates(tape, stream, sigma, z, first))

    def _flow_gates(
        self, tape: Tape, stream: Stream, sigma: Floats, z: Floats, first: int
    ) -> Iterator[tuple[str, int]]:
        trades, quotes = (tape.stream(kind, self.config.instrument) for kind in (Trade, Quote))
        if trades is None and quotes is None:
            return
        agreed = confirmed = 0
        row = self._first_impulse(tape, stream, first, len(stream))
        while row < len(stream):
            ts, sign = stream.ts.item(row), 1 if z.item(row) > 0 else -1
            position = stream.position(row)
            passed = trades is None or self._trade_gate(_newest(trades, position, ("size", "side")), sign, ts).passed
            agreed += passed
            if passed and quotes is not None and quotes.rows_before(position):
                newest = _newest(quotes, position, _QUOTE)
                pays = sigma.item(row) >= self._least_sigma(_spread_bp(newest[1].item(-1), newest[3].item(-1)))
                confirmed += pays and all(gate.passed for gate in self._quote_gates(newest, sign, ts))
            row = self._first_impulse(tape, stream, row + 1, len(stream))
        if trades is not None:
            yield "trades agree", agreed
        if quotes is not None:
            yield "quotes agree, narrow and deep", confirmed


def _spread_bp(bid: float, ask: float) -> float:
    return max(0.0, 2e4 * (ask - bid) / (ask + bid))


def _newest(stream: Stream, position: int, columns: tuple[str, ...]) -> Columns:
    """What a history of the stream would hold at a position of the tape."""
    stop = stream.rows_before(position)
    kept = slice(max(0, stop - TICKS_KEPT), stop)
    return (stream.ts[kept], *[stream.columns[name][kept] for name in columns])
