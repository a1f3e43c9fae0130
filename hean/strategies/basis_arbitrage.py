"""A perpetual too dear for its spot is sold against it, until the two are as far apart as they usually are.

What is usual is the median of three days, and how far is too far is said in median absolute
deviations: both shrug off the very outliers that are traded. The pair is judged as one: a stop on one
leg would create the naked position it fears.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias, assert_never

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationInfo, field_validator

from hean.instruments import Perp, Spot, split_id
from hean.market.basis import (
    NORMAL,
    Floats,
    Legs,
    PairView,
    Reading,
    Readings,
    Side,
    half_life,
    median_mad,
    rolling_median_mad,
    window_starts,
)
from hean.market.carry import PERIOD, PairCosts, Settlements, session
from hean.messages import Bar, FundingRate, Leg, Observation, PositionChanged, Quote, Signal, Wake
from hean.strategies.gates import Gate, figure, in_words
from hean.tape import Tape
from hean.units import DAY, HOUR, SECOND

Bools: TypeAlias = NDArray[np.bool_]


class BasisArbitrageConfig(BaseModel, frozen=True, extra="forbid"):
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,16}$", description="the strategy's name, at most 16 letters or digits")
    perp: Perp = Field(description="the leg that is sold when it is dear, such as BTCUSDT-LINEAR.BYBIT")
    spot: Spot = Field(description="the leg that is bought against it, such as BTCUSDT-SPOT.BYBIT")
    window_days: float = Field(default=3.0, gt=0, description="days of bases that say what is usual")
    coverage: float = Field(default=0.9, gt=0, le=1, description="share of the window that must have been seen")
    enter_z: float = Field(default=2.5, gt=0, description="enter above so many robust deviations over the median")
    exit_z: float = Field(default=0.5, ge=0, description="leave below so many robust deviations over the median")
    min_edge_bp: float = Field(default=5.0, ge=0, description="gain expected after all costs, basis points of one leg")
    max_half_life_h: float = Field(
        default=24.0, gt=0, description="no entry unless half a deviation is gone in time, hours"
    )
    max_hold_h: float = Field(default=72.0, gt=0, description="leave after so many hours, whatever has become of it")
    max_loss: float = Field(
        default=0.01, gt=0, description="leave when the pair has lost more, share of one leg's value"
    )
    max_imbalance: float = Field(default=0.05, gt=0, description="legs differ when by more, share of the larger")
    imbalance_s: float = Field(default=5.0, ge=0, description="seconds legs may differ before both are closed")
    costs: PairCosts = Field(default_factory=PairCosts, description="what a round trip costs, basis points")
    quote_age_s: float = Field(default=5.0, gt=0, description="seconds for which a quote stands for its leg")
    ask_again_s: float = Field(
        default=900.0, gt=0, description="an entry is asked for once in each span of so many seconds"
    )
    leave_again_s: float = Field(default=300.0, gt=0, description="the same of leaving, seconds")

    @field_validator("perp", "spot")
    @classmethod
    def _two(cls, instrument: str, info: ValidationInfo) -> str:
        split_id(instrument)
        if info.field_name == "spot" and instrument == info.data.get("perp"):
            raise ValueError(f"{instrument} is the other leg too: a pair is two instruments")
        return instrument


class BasisArbitrageState(Struct):
    """What was seen of the legs, their basis and funding; what is held, since when; and what was asked for last."""

    legs: Legs = field(default_factory=lambda: Legs(Side(), Side()))
    funding: Settlements = field(default_factory=Settlements)
    basis_ts: list[int] = field(default_factory=list)
    basis: list[float] = field(default_factory=list)
    perp_held: float = 0.0
    spot_held: float = 0.0
    perp_entry: float = 0.0
    spot_entry: float = 0.0
    ts_entered: int = 0
    ts_imbalanced: int = 0
    asked: float = 0.0
    ts_asked: int = 0

    @property
    def holding(self) -> bool:
        return self.perp_held != 0 or self.spot_held != 0


class Usual(Struct, frozen=True):
    """The median basis of the window, and its robust deviation."""

    median: float
    deviation: float


class Columns(Struct, frozen=True):
    """The same at every reading of a tape, where windows begin, and which readings could be an entry. Shape (n,)."""

    median: Floats
    deviation: Floats
    covered: Bools
    first: NDArray[np.int64]
    entries: NDArray[np.int64]


class BasisArbitrage:
    """Sells the perpetual and buys its spot when the basis is far above the usual, and takes both back when it is not.

    Only this way round: the other would sell spot that is not there.
    """

    def __init__(self, config: BasisArbitrageConfig) -> None:
        self.config = config
        self.state = BasisArbitrageState()
        self._window = round(config.window_days * DAY)
        self._max_hold = round(config.max_hold_h * HOUR)
        self._patience = round(config.imbalance_s * SECOND)
        self._ask_again = round(config.ask_again_s * SECOND)
        self._leave_again = round(config.leave_again_s * SECOND)
        self._fees = 2 * config.costs.fees_bp * 1e-4
        self._min_edge = config.min_edge_bp * 1e-4
        self._view = PairView(
            config.perp,
            config.spot,
            perp_half_spread=config.costs.perp_half_spread_bp * 1e-4,
            spot_half_spread=config.costs.spot_half_spread_bp * 1e-4,
            quote_age=round(config.quote_age_s * SECOND),
        )

    @property
    def longest_hold(self) -> int:
        """After so many nanoseconds it leaves."""
        return self._max_hold

    @property
    def warmup_ns(self) -> int:
        return self._window

    def looks_back(self, kind: type[Observation]) -> int:
        """How much of one kind it makes use of: a day of settlements, of which the first starts the clock."""
        return DAY + PERIOD if kind is FundingRate else self._window

    def handle(self, message: Bar | Quote | FundingRate | PositionChanged | Wake, now: int) -> Iterator[Signal]:
        match message:
            case Bar():
                reading = self._view.saw_bar(self.state.legs, message)
                if reading is not None:
                    self._fold_basis([reading.ts], [reading.basis])
                    yield from self._decide(reading, now)
            case Quote():
                self._view.saw_quote(self.state.legs, message)
            case FundingRate(instrument=instrument, ts_event=ts, rate=rate):
                if instrument == self.config.perp:
                    self.state.funding.add(ts, rate, DAY)
            case PositionChanged():
                self._hold(message, now)
            case Wake():
                if self._imbalanced_since_long(now) and self._may_ask(0.0, now):
                    yield self._target(0.0, IMBALANCED, None, now)
            case _:
                assert_never(message)

    def wake_at(self) -> int | None:
        """When legs that differ have done so for too long; after having asked to leave, when it may ask again."""
        state = self.state
        if not state.ts_imbalanced:
            return None
        due = state.ts_imbalanced + self._patience
        return due if state.asked else max(due, self._free(0.0))

    # --- what to say ----------------------------------------------------------------------------

    def _decide(self, reading: Reading, now: int) -> Iterator[Signal]:
        if self.state.holding:
            if self._may_ask(0.0, now):
                reason = self._leaves(reading, now)
                if reason:
                    yield self._target(0.0, reason, None, now)
        elif self._may_ask(1.0, now) and all(gate.passed for gate in self.entry_gates(reading)):
            usual = self._usual()
            if usual is not None:
                above = (reading.basis - usual.median) / usual.deviation
                edge_bp = self._edge(reading, usual) * 1e4
                yield self._target(1.0, f"the basis is {above:.1f} deviations over its median", edge_bp, now)

    def entry_gates(self, reading: Reading | None) -> Iterator[Gate]:
        """Each condition of an entry, in the order in which they are asked. None is read where the legs were not seen together."""
        config, state = self.config, self.state
        usual = self._usual()
        seen = len(state.basis) * state.legs.interval
        yield Gate(
            usual is not None,
            f"{seen / DAY:.2f} days of bases that move, at least {config.coverage * config.window_days:.2f}",
        )
        far, above, edge = False, None, None
        if reading is not None and usual is not None:
            far = reading.basis > usual.median + config.enter_z * usual.deviation
            above = (reading.basis - usual.median) / usual.deviation
            edge = self._edge(reading, usual)
        yield Gate(far, f"basis {figure(above)} deviations over its median, above {config.enter_z:g}")
        yield Gate(
            edge is not None and edge > self._min_edge,
            f"{figure(edge, '.1f', 1e4)} bp to gain after costs, above {config.min_edge_bp:g}",
        )
        # By what came before: the deviation to be judged has nothing after it that could tell.
        half = half_life(np.array(state.basis[:-1]), state.legs.interval)
        yield Gate(
            half < config.max_half_life_h * HOUR,
            f"half-life of a deviation {figure(half, '.1f', 1 / HOUR)} h, under {config.max_half_life_h:g}",
        )

    def _usual(self) -> Usual | None:
        """None until enough of the window has been seen, and where nothing moved in it."""
        state = self.state
        if len(state.basis) * state.legs.interval < self.config.coverage * self._window:
            return None
        median, mad = median_mad(np.array(state.basis))
        return Usual(median, NORMAL * mad) if mad > 0 else None

    def _edge(self, reading: Reading, usual: Usual) -> float:
        """What is left after costs and carry if the basis comes back to where it is left, half spreads being then as now."""
        leaving = usual.median + self.config.exit_z * usual.deviation + (reading.closing - reading.basis)
        return reading.opening - leaving - self._fees + self._adverse_carry()

    def _carry(self) -> float:
        """What a short was paid lately, per eight hours; 0 where no funding has been heard."""
        carry = self.state.funding.mean(DAY)
        return 0.0 if carry is None else carry

    def _adverse_carry(self) -> float:
        """What holding to the end would cost, as a negative number; carry in our favour is not counted on."""
        return min(0.0, self._carry()) * (self._max_hold / PERIOD)

    def _leaves(self, reading: Reading, now: int) -> str:
        """Why the pair should be closed; empty while it should not."""
        state, config = self.state, self.config
        if self._imbalanced_since_long(now):
            return IMBALANCED
        lost, most = self._lost(reading.perp, reading.spot), self._most()
        if lost > most:
            return f"the pair has lost {lost:.2f}, more than {most:.2f}"
        if now - state.ts_entered >= self._max_hold:
            return f"held for {config.max_hold_h:g} h"
        usual = self._usual()
        if usual is None:
            return ""
        if reading.basis < usual.median + config.exit_z * usual.deviation:
            return "the basis is back to the usual"
        if self._left(reading.basis, usual.median, usual.deviation, reading.ts) < 0:
            return "funding costs more than the basis has left to give"
        return ""

    def _lost(self, perp: Any, spot: Any) -> Any:
        """What the pair has lost since entry at these prices, funding and fees apart, in quote currency."""
        state = self.state
        return state.perp_held * (state.perp_entry - perp) + state.spot_held * (state.spot_entry - spot)

    def _most(self) -> float:
        """What it may lose."""
        state = self.state
        value = max(abs(state.perp_held) * state.perp_entry, abs(state.spot_held) * state.spot_entry)
        return self.config.max_loss * value

    def _left(self, basis: Any, median: Any, deviation: Any, ts: Any) -> Any:
        """What the pair has left to gain until its time is over, negative where funding eats it."""
        hours = (self.state.ts_entered + self._max_hold - ts) / PERIOD
        return basis - (median + self.config.exit_z * deviation) + min(0.0, self._carry()) * hours

    def _imbalanced_since_long(self, now: int) -> bool:
        return self.state.ts_imbalanced > 0 and now - self.state.ts_imbalanced >= self._patience

    def _may_ask(self, weight: float, now: int) -> bool:
        """Whether this target has not been asked for yet in the running span of the clock."""
        return self.state.asked != weight or now >= self._free(weight)

    def _free(self, weight: float) -> int:
        """When the span in which was last asked is over."""
        again = self._ask_again if weight else self._leave_again
        return (self.state.ts_asked // again + 1) * again

    def _target(self, weight: float, reason: str, edge_bp: float | None, now: int) -> Signal:
        state = self.state
        state.asked = weight
        state.ts_asked = now
        return Signal(
            strategy=self.config.name,
            legs=(
                Leg(self.config.perp, 0.0 - weight, state.legs.perp.close, state.legs.perp.ts),
                Leg(self.config.spot, weight, state.legs.spot.close, state.legs.spot.ts),
            ),
            reason=reason,
            edge_bp=edge_bp,
            volatility=None,
            bracket=None,
            context=f"basis|any|{session(now)}",
        )

    # --- what it has been told ------------------------------------------------------------------

    def _hold(self, changed: PositionChanged, now: int) -> None:
        state = self.state
        held = state.holding
        if changed.instrument == self.config.perp:
            state.perp_held, state.perp_entry = float(changed.quantity), float(changed.entry)
        elif changed.instrument == self.config.spot:
            state.spot_held, state.spot_entry = float(changed.quantity), float(changed.entry)
        if state.holding and not held:
            state.ts_entered = now
        larger = max(abs(state.perp_held), abs(state.spot_held))
        differs = abs(state.perp_held + state.spot_held) > self.config.max_imbalance * larger
        state.ts_imbalanced = (state.ts_imbalanced or now) if differs else 0

    def _fold_basis(self, ts: list[int], basis: list[float]) -> None:
        state = self.state
        state.basis_ts += ts
        state.basis += basis
        old = 0
        while state.basis_ts[old] <= ts[-1] - self._window:
            old += 1
        del state.basis_ts[:old], state.basis[:old]

    # --- the tape at once -----------------------------------------------------------------------

    def quiet_until(self, tape: Tape, start: int, stop: int) -> int:
        view, state = self._view, self.state
        if not view.follows(state.legs, tape, start):
            return view.first_row(tape, start, stop)
        stop = view.first_row(tape, start, stop, (FundingRate,))
        readings, columns = view.readings(tape), self._columns(tape)
        low, high = readings.before(start), readings.before(stop)
        if not self._basis_is_of(readings, columns, low):
            return view.first_row(tape, start, stop)
        weight = 0.0 if state.holding else 1.0
        if state.asked == weight:
            low = min(max(low, int(readings.ts.searchsorted(self._free(weight)))), high)
        if state.holding:
            found = self._next_leave(readings, columns, low, high)
        else:
            place = columns.entries.searchsorted(low)
            found = columns.entries.item(place) if place < columns.entries.size else high
        return stop if found >= high else int(readings.position[found])

    def _next_leave(self, readings: Readings, columns: Columns, low: int, high: int) -> int:
        state = self.state
        while low < high:
            part = slice(low, min(low + AT_ONCE, high))
            ts, basis = readings.ts[part], readings.basis[part]
            median, deviation = columns.median[part], columns.deviation[part]
            known = columns.covered[part] & (deviation > 0)
            leaves = known & (basis < median + self.config.exit_z * deviation)
            leaves |= known & (self._left(basis, median, deviation, ts) < 0)
            leaves |= self._lost(readings.perp[part], readings.spot[part]) > self._most()
            leaves |= ts - state.ts_entered >= self._max_hold
            if state.ts_imbalanced:
                leaves |= ts - state.ts_imbalanced >= self._patience
            if leaves.any():
                return low + int(leaves.argmax())
            low = part.stop
        return high

    def _basis_is_of(self, readings: Readings, columns: Columns, low: int) -> bool:
        """Whether the window kept is the one the tape had before reading `low`: only then its columns say what is usual."""
        kept = self.state.basis_ts
        if not low or not kept:
            return not low and not kept
        first = columns.first.item(low - 1)
        return len(kept) == low - first and kept[0] == readings.ts.item(first) and kept[-1] == readings.ts.item(low - 1)

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        settled = self._view.rows(tape, FundingRate, start, stop)
        if settled is not None:
            stream, low, high = settled
            for row in range(low, high):
                self.state.funding.add(stream.ts.item(row), stream.columns["rate"].item(row), DAY)
        readings, low, high = self._view.catch_up(self.state.legs, tape, start, stop)
        if low < high:
            self._fold_basis(readings.ts[low:high].tolist(), readings.basis[low:high].tolist())

    def _columns(self, tape: Tape) -> Columns:
        config = self.config

        def usual() -> tuple[Floats, Floats, NDArray[np.int64]]:
            readings = self._view.readings(tape)
            first = window_starts(readings.ts, self._window)
            median, mad = rolling_median_mad(readings.basis, first)
            return median, NORMAL * mad, first

        def find() -> Columns:
            readings = self._view.readings(tape)
            median, deviation, first = tape.derived((*self._view.key, "usual", self._window), usual)
            count = np.arange(1, first.size + 1) - first
            covered = count * readings.interval >= config.coverage * self._window
            leaving = median + config.exit_z * deviation + (readings.closing - readings.basis)
            far = covered & (deviation > 0) & (readings.basis > median + config.enter_z * deviation)
            entries = np.flatnonzero(far & (readings.opening - leaving - self._fees > self._min_edge))
            return Columns(median, deviation, covered, first, entries)

        own = (self._window, config.coverage, config.enter_z, config.exit_z, self._fees, self._min_edge)
        return tape.derived((*self._view.key, "basis columns", *own), find)

    # --- for those who ask ----------------------------------------------------------------------

    def waits_for(self, now: int) -> tuple[str, ...]:
        """What it waits for: each condition as it is measured now; while it holds, those of leaving."""
        reading = self._view.newest(self.state.legs)
        if self.state.holding:
            return self._holds_until(reading, now)
        again = Gate(self._may_ask(1.0, now), f"an entry not asked for in these {self.config.ask_again_s:g} s already")
        seen = Gate(reading is not None, "both legs closing a bar at one instant")
        return in_words((seen, again, *self.entry_gates(reading)))

    def _holds_until(self, reading: Reading | None, now: int) -> tuple[str, ...]:
        state, config = self.state, self.config
        usual = self._usual()
        lost = above = left = None
        if reading is not None:
            lost = float(self._lost(reading.perp, reading.spot))
            if usual is not None:
                above = (reading.basis - usual.median) / usual.deviation
                left = float(self._left(reading.basis, usual.median, usual.deviation, reading.ts)) * 1e4
        differ = (now - state.ts_imbalanced) / SECOND if state.ts_imbalanced else 0.0
        return (
            f"holds: {state.perp_held:g} {config.perp} and {state.spot_held:g} {config.spot}",
            f"leaves when: the legs differ for {differ:.0f} s, at least {config.imbalance_s:g}",
            f"or when: the pair has lost {figure(lost)}, more than {self._most():.2f}",
            f"or when: held for {(now - state.ts_entered) / HOUR:.1f} h, at least {config.max_hold_h:g}",
            f"or when: basis {figure(above)} deviations over its median, under {config.exit_z:g}",
            f"or when: {figure(left, '.1f')} bp left to gain, under 0",
        )

    # --- for the report -------------------------------------------------------------------------

    def notes(self, tape: Tape) -> tuple[str, ...]:
        """Which of its conditions this tape cannot support, and what stands in."""
        config = self.config
        legs = (config.perp, config.spot)
        said = [f"no bars of {leg}: it never enters" for leg in legs if tape.stream(Bar, leg) is None]
        if tape.stream(FundingRate, config.perp) is None:
            said.append(f"no settled funding of {config.perp}: carry against the pair is not seen")
        said += self._view.notes(tape)
        said.append("only a dear perpetual is sold: the other way round would sell spot that is not there")
        return tuple(said)

    def gates(self, tape: Tape, since: int = 0) -> tuple[tuple[str, int], ...]:
        """At how many instants, from `since` on, each condition of an entry was passed, one after the other, whatever was held; carry apart."""
        config = self.config
        readings, columns = self._view.readings(tape), self._columns(tape)
        first = int(readings.ts.searchsorted(since))
        known = columns.covered & (columns.deviation > 0) & (readings.ts >= since)
        entries = columns.entries[columns.entries >= first]
        far = known & (readings.basis > columns.median + config.enter_z * columns.deviation)
        limit = config.max_half_life_h * HOUR
        reverting = sum(
            half_life(readings.basis[columns.first.item(row) : row], readings.interval) < limit
            for row in entries.tolist()
        )
        return (
            ("both legs closed together", int(readings.ts.size) - first),
            (f"{config.window_days:g} days of bases known", int(known.sum())),
            (f"{config.enter_z:g} deviations over the median", int(far.sum())),
            (f"{config.min_edge_bp:g} bp more than costs to gain", int(entries.size)),
            (f"half-life under {config.max_half_life_h:g} h", reverting),
        )


IMBALANCED = "the legs differ for too long"

AT_ONCE = 4096
"""Readings searched together."""
