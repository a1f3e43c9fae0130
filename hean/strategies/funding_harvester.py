"""A delta-neutral carry: spot held, the perpetual sold against it, so that price is nobody's concern and funding is kept.

Funding is folded as it settles; whether to hold is decided where both legs close a bar at one
instant, so that the prices of a decision are of that instant. At a settlement that is the same instant.
"""

import math
from collections.abc import Iterator
from typing import TypeAlias, assert_never

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from hean.instruments import Category, Perp, Spot, category_of
from hean.market.basis import (
    Ints,
    Legs,
    PairView,
    Reading,
    Readings,
    Side,
    quantile,
    rolling_quantile,
    window_starts,
)
from hean.market.carry import (
    PERIOD,
    Nowcast,
    PairCosts,
    Settlements,
    liquidation_distance,
    running_nowcast,
    session,
)
from hean.messages import (
    Bar,
    FundingRate,
    Leg,
    Observation,
    PairFinished,
    PositionChanged,
    PremiumIndex,
    Quote,
    Signal,
)
from hean.strategies.gates import Gate, figure, in_words
from hean.tape import Tape
from hean.units import DAY, HOUR, MINUTE, SECOND

FULL = 0.9
"""Share of the short window that settlements must account for: one that was missed is no reason to be blind for a week."""

Bools: TypeAlias = NDArray[np.bool_]


class FundingHarvesterConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,16}$", description="the strategy's name, at most 16 letters or digits")
    perp: Perp = Field(description="the perpetual that is sold, such as BTCUSDT-LINEAR.BYBIT")
    spot: Spot = Field(description="the spot instrument that is bought, such as BTCUSDT-SPOT.BYBIT")
    enter_bp: float = Field(default=2.0, description="enter above this mean of the short window, bp per 8 h")
    exit_bp: float = Field(default=0.5, description="leave below this mean of the short window, bp per 8 h")
    short_days: float = Field(
        default=7.0, gt=0, description="short window of settled rates, days: 21 settlements of 8 h"
    )
    long_days: float = Field(default=180.0, gt=0, description="long window the forecast is shrunk to, days")
    min_settlements: int = Field(default=21, ge=1, description="settlements heard before it may speak")
    horizon_days: float = Field(default=14.0, gt=0, description="days the carry is expected to be held")
    margin_of_costs: float = Field(default=0.5, ge=0, description="net gain asked of an entry, as a share of its costs")
    exit_horizon_days: float = Field(
        default=7.0, gt=0, description="days looked ahead before leaving for negative carry"
    )
    costs: PairCosts = Field(default_factory=PairCosts, description="what a round trip costs, basis points")
    basis_percentile: float = Field(
        default=0.2, ge=0, lt=1, description="share of the window the basis must not be under"
    )
    basis_days: float = Field(default=30.0, gt=0, description="window of hourly bases the percentile is of, days")
    basis_min_hours: int = Field(default=24, ge=1, description="hourly bases heard before the percentile is known")
    quote_age_s: float = Field(default=5.0, gt=0, description="seconds for which a quote stands for its leg")
    quiet_before_s: float = Field(default=60.0, ge=0, description="no entry in the last seconds before a settlement")
    premium_halflife_m: float = Field(default=15.0, gt=0, description="half-life of the premium expected, minutes")
    premium_window_m: int = Field(default=60, ge=2, description="minutes of premium that expectation is made of")
    leverage: float = Field(
        default=2.0, gt=0, le=3, description="value of the short over the money behind it, at entry"
    )
    spot_collateral: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="share of the spot leg's value that backs the short; 0 in separate wallets",
    )
    maintenance: float = Field(default=0.005, ge=0, lt=1, description="maintenance margin of the short, share of value")
    min_liquidation: float = Field(default=0.25, ge=0, description="leave when liquidation is nearer, share of price")
    ask_again_s: float = Field(
        default=3600.0, gt=0, description="an entry is asked for once in each span of so many seconds"
    )
    leave_again_s: float = Field(default=300.0, gt=0, description="the same of leaving, seconds")

    @field_validator("perp", "spot")
    @classmethod
    def _category(cls, instrument: str, info: ValidationInfo) -> str:
        wanted = Category.LINEAR if info.field_name == "perp" else Category.SPOT
        if category_of(instrument) is not wanted:
            raise ValueError(f"{instrument} is not {wanted}: a carry sells a linear perpetual and holds its spot")
        return instrument


class FundingHarvesterState(Struct):
    """What was seen of the legs, funding, premium and basis; what is held; and what was asked for last."""

    legs: Legs = field(default_factory=lambda: Legs(Side(), Side()))
    funding: Settlements = field(default_factory=Settlements)
    premium_ts: list[int] = field(default_factory=list)
    premium: list[float] = field(default_factory=list)
    basis_ts: list[int] = field(default_factory=list)
    basis: list[float] = field(default_factory=list)
    perp_held: float = 0.0
    spot_held: float = 0.0
    perp_entry: float = 0.0
    spot_entry: float = 0.0
    broken: bool = False
    asked: float = 0.0
    ts_asked: int = 0

    @property
    def holding(self) -> bool:
        return self.perp_held != 0 or self.spot_held != 0


class Outlook(Struct, frozen=True):
    """What settled funding says, per eight hours: the short mean, the long mean, and the forecast between them."""

    short: float
    long: float

    @property
    def forecast(self) -> float:
        return 0.5 * self.short + 0.5 * self.long

    def over(self, days: float) -> float:
        """What so many days are expected to pay, a fraction of value."""
        return self.forecast * (days * DAY / PERIOD)


class Hours(Struct, frozen=True):
    """Which readings are the first of their hour, when they are, and where the window of each begins."""

    index: Ints
    ts: Ints
    first: Ints


class FundingHarvester:
    """Holds the carry while it pays for itself: entered on a week of rich funding, kept through small negatives.

    It never leaves for one settlement, whatever its sign: a round trip costs a week or more of funding.
    """

    def __init__(self, config: FundingHarvesterConfig) -> None:
        self.config = config
        self.state = FundingHarvesterState()
        self._short = round(config.short_days * DAY)
        self._long = round(config.long_days * DAY)
        self._window = round(config.basis_days * DAY)
        self._premium_kept = PERIOD + config.premium_window_m * MINUTE
        self._ask_again = round(config.ask_again_s * SECOND)
        self._leave_again = round(config.leave_again_s * SECOND)
        self._quiet = round(config.quiet_before_s * SECOND)
        self._cost = config.costs.round_trip_bp * 1e-4
        self._exit_cost = config.costs.one_way_bp * 1e-4
        self._view = PairView(
            config.perp,
            config.spot,
            perp_half_spread=config.costs.perp_half_spread_bp * 1e-4,
            spot_half_spread=config.costs.spot_half_spread_bp * 1e-4,
            quote_age=round(config.quote_age_s * SECOND),
        )

    @property
    def warmup_ns(self) -> int:
        """The history it makes use of. It speaks on less: from `min_settlements` that cover the short window."""
        return max(self._long, self._window)

    def looks_back(self, kind: type[Observation]) -> int:
        """How much of one kind it makes use of: half a year of settlements, of which the first starts the clock; less of prices."""
        if kind is FundingRate:
            return self._long + PERIOD
        return self._premium_kept if kind is PremiumIndex else self._window

    def handle(
        self, message: FundingRate | PremiumIndex | Bar | Quote | PositionChanged | PairFinished, now: int
    ) -> Iterator[Signal]:
        match message:
            case Bar():
                reading = self._view.saw_bar(self.state.legs, message)
                if reading is not None:
                    self._fold_basis(reading.ts, reading.opening)
                    yield from self._decide(reading, now)
            case Quote():
                self._view.saw_quote(self.state.legs, message)
            case FundingRate(instrument=instrument, ts_event=ts, rate=rate):
                if instrument == self.config.perp:
                    self.state.funding.add(ts, rate, self._long)
            case PremiumIndex(instrument=instrument, ts_event=ts, premium=premium):
                known = self.state.premium_ts
                # One told late, or again, has nothing to add to what followed it.
                if instrument == self.config.perp and (not known or ts >= known[-1]):
                    self._fold_premium([ts], [premium])
            case PositionChanged():
                self._hold(message)
            case PairFinished(outcome=outcome):
                self.state.broken = outcome == "broken"
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        return None

    # --- what to say ----------------------------------------------------------------------------

    def _decide(self, reading: Reading, now: int) -> Iterator[Signal]:
        if self.state.holding:
            reason = self._leaves(reading) if self._may_ask(0.0, now) else ""
            if reason:
                yield self._target(0.0, reason, None, reading, now)
        elif self._may_ask(1.0, now) and all(gate.passed for gate in self.entry_gates(reading.opening, now)):
            outlook = self._outlook()
            if outlook is not None:
                edge_bp = (outlook.over(self.config.horizon_days) - self._cost) * 1e4
                reason = f"funding pays {outlook.short * 1e4:.2f} bp per 8 h, {edge_bp:.1f} bp expected after costs"
                yield self._target(1.0, reason, edge_bp, reading, now)

    def entry_gates(self, opening: float | None, now: int) -> Iterator[Gate]:
        """Each condition of an entry, in the order in which they are asked. `opening` is None where the legs were not seen together."""
        config, funding = self.config, self.state.funding
        outlook = self._outlook()
        short = pays = None
        if outlook is not None:
            short, pays = outlook.short * 1e4, outlook.over(config.horizon_days)
        yield Gate(
            outlook is not None and funding.current(now),
            f"{funding.covered(self._short) / DAY:.1f} days of funding in {len(funding.ts)} settlements, and the last of them: "
            f"at least {FULL * config.short_days:.1f} days in {config.min_settlements}",
        )
        yield Gate(
            short is not None and short > config.enter_bp,
            f"mean funding {figure(short)} bp per 8 h, above {config.enter_bp:g}",
        )
        yield Gate(
            outlook is not None and self._covers_costs(outlook),
            f"{config.horizon_days:g} days of it {figure(pays, '.1f', 1e4)} bp, "
            f"above {(1 + config.margin_of_costs) * self._cost * 1e4:.1f} bp of costs and margin",
        )
        remaining = funding.remaining(now)
        # A pair worked across a settlement is half in when it comes.
        yield Gate(
            remaining is not None and remaining > self._quiet,
            f"{figure(remaining, '.0f', 1 / SECOND)} s to the next settlement, more than {config.quiet_before_s:g}",
        )
        least = self._least_basis()
        yield Gate(
            least is not None and opening is not None and opening >= least,
            f"basis {figure(opening, '.1f', 1e4)} bp, at least {figure(least, '.1f', 1e4)}, "
            f"the percentile {100 * config.basis_percentile:g} of {len(self.state.basis)} hours",
        )
        running = self.running_nowcast(now)
        rate = None if running is None else running.rate
        yield Gate(rate is None or rate > 0, f"nowcast of the running interval {figure(rate, '.2f', 1e4)} bp, above 0")

    def _outlook(self) -> Outlook | None:
        """None while too little has settled to say."""
        funding = self.state.funding
        enough = len(funding.ts) >= self.config.min_settlements and funding.covered(self._short) >= FULL * self._short
        short, long = funding.mean(self._short), funding.mean(self._long)
        return Outlook(short, long) if enough and short is not None and long is not None else None

    def _pays(self, outlook: Outlook) -> bool:
        return outlook.short * 1e4 > self.config.enter_bp and self._covers_costs(outlook)

    def _covers_costs(self, outlook: Outlook) -> bool:
        return outlook.over(self.config.horizon_days) - self._cost > self.config.margin_of_costs * self._cost

    def _least_basis(self) -> float | None:
        """What the opening basis must not be under; None while too few hours are known to say."""
        known = self.state.basis
        return quantile(known, self.config.basis_percentile) if len(known) >= self.config.basis_min_hours else None

    def running_nowcast(self, now: int) -> Nowcast | None:
        """Where the running interval is heading; None unless premia have been heard lately."""
        return running_nowcast(
            self.state.funding,
            self.state.premium_ts,
            self.state.premium,
            now,
            window=self.config.premium_window_m * MINUTE,
            halflife=self.config.premium_halflife_m,
        )

    def _leaves(self, reading: Reading) -> str:
        """Why what is held should be closed; empty while it should not."""
        if self.state.broken:
            return "a leg was left without the other"
        outlook = self._outlook()
        reason = self._funding_ends(outlook)
        if reason:
            return reason
        if reading.perp > self._highest():
            return f"liquidation is nearer than {self.config.min_liquidation:.0%} at {reading.perp:g}"
        if reading.closing <= self._lowest(outlook):
            return "the basis has given more than the carry has left to earn"
        return ""

    def _funding_ends(self, outlook: Outlook | None) -> str:
        if outlook is None:
            return ""
        if outlook.short * 1e4 < self.config.exit_bp:
            return f"funding pays {outlook.short * 1e4:.2f} bp per 8 h, less than {self.config.exit_bp:g}"
        if outlook.over(self.config.exit_horizon_days) < -self._exit_cost:
            return f"{self.config.exit_horizon_days:g} days of funding would cost more than leaving"
        return ""

    def _highest(self) -> float:
        """The price of the perpetual above which liquidation is too near."""
        state, config = self.state, self.config
        if state.perp_held >= 0 or state.perp_entry <= 0:
            return math.inf
        entry = state.perp_entry
        distance = liquidation_distance(entry, entry, config.leverage, config.maintenance, config.spot_collateral)
        liquidation = entry * (1 + distance)
        return liquidation / (1 + config.min_liquidation)

    def _lowest(self, outlook: Outlook | None) -> float:
        """The closing basis at which leaving gains as much as staying, and what leaving costs."""
        state = self.state
        if outlook is None or state.perp_entry <= 0 or state.spot_entry <= 0:
            return -math.inf
        entered = (state.perp_entry - state.spot_entry) / state.spot_entry
        return entered - max(outlook.over(self.config.horizon_days), self._exit_cost)

    def _may_ask(self, weight: float, now: int) -> bool:
        """Whether this target has not been asked for yet in the running span of the clock."""
        again = self._ask_again if weight else self._leave_again
        return self.state.asked != weight or self.state.ts_asked // again != now // again

    def _target(self, weight: float, reason: str, edge_bp: float | None, reading: Reading, now: int) -> Signal:
        state = self.state
        state.asked = weight
        state.ts_asked = now
        if weight:
            state.broken = False
        return Signal(
            strategy=self.config.name,
            legs=(
                Leg(self.config.perp, 0.0 - weight, reading.perp, reading.ts),
                Leg(self.config.spot, weight, reading.spot, reading.ts),
            ),
            reason=reason,
            edge_bp=edge_bp,
            volatility=None,
            bracket=None,
            context=f"carry|any|{session(now)}",
        )

    # --- what it has been told ------------------------------------------------------------------

    def _hold(self, changed: PositionChanged) -> None:
        state = self.state
        if changed.instrument == self.config.perp:
            state.perp_held, state.perp_entry = float(changed.quantity), float(changed.entry)
        elif changed.instrument == self.config.spot:
            state.spot_held, state.spot_entry = float(changed.quantity), float(changed.entry)
        if not state.holding:
            state.broken = False

    def _fold_premium(self, ts: list[int], premium: list[float]) -> None:
        state = self.state
        state.premium_ts += ts
        state.premium += premium
        self._forget(state.premium_ts, state.premium, self._premium_kept)

    def _fold_basis(self, ts: int, opening: float) -> None:
        """Keep the first basis of each hour of the clock."""
        state = self.state
        if state.basis_ts and state.basis_ts[-1] // HOUR == ts // HOUR:
            return
        state.basis_ts.append(ts)
        state.basis.append(opening)
        self._forget(state.basis_ts, state.basis, self._window)

    @staticmethod
    def _forget(stamps: list[int], values: list[float], span: int) -> None:
        old = 0
        while stamps[old] <= stamps[-1] - span:
            old += 1
        del stamps[:old], values[:old]

    # --- the tape at once -----------------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        view = self._view
        if not view.follows(self.state.legs, tape, start):
            return view.first_row(tape, start, stop)
        stop = view.first_row(tape, start, stop, (FundingRate,))
        readings = view.readings(tape)
        low, high = readings.before(start), readings.before(stop)
        weight = 0.0 if self.state.holding else 1.0
        low = self._from_when_it_may_ask(readings, weight, low, high)
        if low == high:
            return stop
        if self.state.holding:
            found = self._next_leave(readings, low, high)
        elif self._basis_is_of(tape, start):
            found = self._next_entry(tape, readings, low, high)
        else:
            return view.first_row(tape, start, stop)
        return stop if found == high else int(readings.position[found])

    def _next_entry(self, tape: Tape, readings: Readings, low: int, high: int) -> int:
        outlook = self._outlook()
        if outlook is None or not self._pays(outlook):
            return high
        may = self._good_bases(tape)[low:high] & self._settlements_are_far(readings.ts[low:high])
        return low + int(may.argmax()) if may.any() else high

    def _next_leave(self, readings: Readings, low: int, high: int) -> int:
        outlook = self._outlook()
        if self.state.broken or self._funding_ends(outlook):
            return low
        out = (readings.perp[low:high] > self._highest()) | (readings.closing[low:high] <= self._lowest(outlook))
        return low + int(out.argmax()) if out.any() else high

    def _from_when_it_may_ask(self, readings: Readings, weight: float, low: int, high: int) -> int:
        """The first reading after the span of the clock in which the target was last asked for."""
        if self.state.asked != weight:
            return low
        again = self._ask_again if weight else self._leave_again
        free = (self.state.ts_asked // again + 1) * again
        return min(max(low, int(readings.ts.searchsorted(free))), high)

    def _settlements_are_far(self, ts: Ints) -> Bools:
        """Which of many instants, none beyond the next settlement that is told, are not too close before it."""
        funding = self.state.funding
        since = ts - funding.ts_last
        gone = since % funding.interval
        left = np.where((gone > 0) | (since == 0), funding.interval - gone, 0)
        return (since < 2 * funding.interval) & (left > self._quiet)

    def _basis_is_of(self, tape: Tape, start: int) -> bool:
        """Whether the bases kept are those the tape had before `start`: only then its columns say what is good."""
        hours = self._hours(tape)
        last = int(hours.index.searchsorted(self._view.readings(tape).before(start)))
        kept = self.state.basis_ts
        if not last or not kept:
            return not last and not kept
        first = hours.first.item(last - 1)
        same = len(kept) == last - first
        return same and kept[0] == hours.ts.item(first) and kept[-1] == hours.ts.item(last - 1)

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        state = self.state
        settled = self._view.rows(tape, FundingRate, start, stop)
        if settled is not None:
            stream, low, high = settled
            for row in range(low, high):
                state.funding.add(stream.ts.item(row), stream.columns["rate"].item(row), self._long)
        premia = self._view.rows(tape, PremiumIndex, start, stop)
        if premia is not None and premia[1] < premia[2]:
            stream, low, high = premia
            self._fold_premium(stream.ts[low:high].tolist(), stream.columns["premium"][low:high].tolist())
        readings, low, high = self._view.catch_up(state.legs, tape, start, stop)
        index = self._hours(tape).index
        for row in index[index.searchsorted(low) : index.searchsorted(high)].tolist():
            self._fold_basis(readings.ts.item(row), readings.opening.item(row))

    def _hours(self, tape: Tape) -> Hours:
        def find() -> Hours:
            readings = self._view.readings(tape)
            index = np.flatnonzero(np.diff(readings.ts // HOUR, prepend=-1))
            ts = readings.ts[index]
            return Hours(index, ts, window_starts(ts, self._window))

        return tape.derived((*self._view.key, "hours", self._window), find)

    def _good_bases(self, tape: Tape) -> Bools:
        """Which readings have a basis that is good enough."""

        def find() -> Bools:
            readings, hours = self._view.readings(tape), self._hours(tape)
            least = rolling_quantile(readings.opening[hours.index], hours.first, self.config.basis_percentile)
            known = np.arange(1, hours.index.size + 1) - hours.first >= self.config.basis_min_hours
            of = hours.index.searchsorted(np.arange(readings.ts.size), side="right") - 1
            return known[of] & (readings.opening >= least[of])

        share, least_hours = self.config.basis_percentile, self.config.basis_min_hours
        return tape.derived((*self._view.key, "good bases", self._window, share, least_hours), find)

    # --- for those who ask ----------------------------------------------------------------------

    def waits_for(self, now: int) -> tuple[str, ...]:
        """What it waits for: each condition as it is measured now; while it holds, those of leaving."""
        reading = self._view.newest(self.state.legs)
        if self.state.holding:
            return self._holds_until(reading)
        again = Gate(self._may_ask(1.0, now), f"an entry not asked for in these {self.config.ask_again_s:g} s already")
        seen = Gate(reading is not None, "both legs closing a bar at one instant")
        return in_words((seen, again, *self.entry_gates(None if reading is None else reading.opening, now)))

    def _holds_until(self, reading: Reading | None) -> tuple[str, ...]:
        state, config = self.state, self.config
        outlook = self._outlook()
        short = week = perp = closing = None
        if outlook is not None:
            short, week = outlook.short * 1e4, outlook.over(config.exit_horizon_days) * 1e4
        if reading is not None:
            perp, closing = reading.perp, reading.closing * 1e4
        return (
            f"holds: {state.perp_held:g} {config.perp} and {state.spot_held:g} {config.spot}"
            + (", and a leg was left without the other" if state.broken else ""),
            f"leaves when: mean funding {figure(short)} bp per 8 h, under {config.exit_bp:g}",
            f"or when: {config.exit_horizon_days:g} days of it {figure(week, '.1f')} bp, under {-self._exit_cost * 1e4:.1f}",
            f"or when: the perpetual {figure(perp, 'g')}, above {self._highest():g}, where liquidation is too near",
            f"or when: closing basis {figure(closing, '.1f')} bp, at most {self._lowest(outlook) * 1e4:.1f}",
        )

    # --- for the report -------------------------------------------------------------------------

    def notes(self, tape: Tape) -> tuple[str, ...]:
        """Which of its conditions this tape cannot support, and what stands in."""
        config = self.config
        said = []
        if tape.stream(FundingRate, config.perp) is None:
            said.append(f"no settled funding of {config.perp}: it never enters")
        said += [f"no bars of {leg}: it never enters" for leg in (config.perp, config.spot) if not self._has(tape, leg)]
        if tape.stream(PremiumIndex, config.perp) is None:
            said.append("no premium index: entries are not held against a nowcast of the running interval")
        said += self._view.notes(tape)
        said += [
            "liquidation distance is taken from closes, not marks",
            "ADL rank, the venue's own state and borrow interest are not known here and stop nothing",
            "the reverse, spot sold and the perpetual bought, is never taken: the borrow rate is not known",
        ]
        return tuple(said)

    @staticmethod
    def _has(tape: Tape, leg: str) -> bool:
        return tape.stream(Bar, leg) is not None

    def gates(self, tape: Tape, since: int = 0) -> tuple[tuple[str, int], ...]:
        """In how many hours of the tape, from `since` on, each condition of an entry was passed, one after the other.

        Judged at the first instant of the hour at which both legs closed, whatever was held at the time.
        """
        config = self.config
        names = (
            "hours in which both legs closed together",
            f"{config.short_days:g} days of funding known, and current",
            f"mean above {config.enter_bp:g} bp per 8 h",
            f"{config.horizon_days:g} days pay {1 + config.margin_of_costs:g} times the costs",
            f"more than {config.quiet_before_s:g} s before the settlement",
            f"basis not under its percentile {100 * config.basis_percentile:g}",
            "nowcast above 0, where there is one",
        )
        counts = [0] * len(names)
        readings = self._view.readings(tape)
        alone = FundingHarvester(config)
        told = 0
        for row in self._hours(tape).index.tolist():
            position = readings.position.item(row)
            alone.skip(tape, told, position + 1)
            told = position + 1
            if readings.ts.item(row) < since:
                continue
            counts[0] += 1
            for number, gate in enumerate(alone.entry_gates(readings.opening.item(row), readings.ts.item(row)), 1):
                if not gate.passed:
                    break
                counts[number] += 1
        return tuple(zip(names, counts, strict=True))
