"""The kill switch: drawdown, errors and deaths. Once tripped it stays so until a person puts it back.

It watches the account's equity as the portfolio says it. Soft tiers look at the lesser of the drawdown and its
average of fifteen minutes, so that one bad mark halves nothing; the trip looks at the drawdown itself, twice.
The drawdown is from the highest equity since the last reset: a flat account does not grow out of it by itself.
"""

import enum
import math
from bisect import bisect_right
from decimal import Decimal

from msgspec import Struct, field
from pydantic import BaseModel, Field

from hean.units import SECOND

_NONE, _ALL = Decimal(0), Decimal(1)


NOTED = (
    "amend lost",
    "amend refused",
    "backoff",
    "cancel all failed",
    "cancel refused",
    "clock unknown",
    "no disconnect guard",
    "snapshot incomplete",
    "told twice",
    "topic refused",
    "trades lost",
    "trades missed",
)
"""What an ordinary day of a gateway brings: a lost connection, a cancel that came too late. Each is dealt with elsewhere:
by staleness, by the lag of reconciliation, by asking again."""


EXCUSED = (
    "dry run",
    "110017",  # Bybit v5, *Error codes*: nothing to reduce
)
"""Refusals that an ordinary day brings: what was never meant to be sent, and an exit of the venue's, or another strategy,
that came before a close of ours. If it was neither, the reconciler will say."""


class KillSwitchConfig(BaseModel, frozen=True, extra="forbid"):
    yellow: float = Field(
        default=0.05, gt=0, description="drawdown, share of the high-water mark: sizes are scaled down"
    )
    orange: float = Field(
        default=0.08, gt=0, description="drawdown, share of the high-water mark: positions are only reduced"
    )
    red: float = Field(default=0.10, gt=0, description="drawdown, share of the high-water mark: everything is closed")
    yellow_scale: float = Field(default=0.5, gt=0, le=1, description="what sizes are multiplied by from yellow on")
    smoothing_min: float = Field(default=15, gt=0, description="time constant of the averaged drawdown, minutes")
    confirm_s: float = Field(default=5, ge=0, description="the red drawdown must still stand after as many seconds")
    noted: tuple[str, ...] = Field(
        default=NOTED, description="kinds of reported errors that are no error here: somebody else deals with them"
    )
    excused: tuple[str, ...] = Field(
        default=EXCUSED, description="refused orders are no error if the reason begins so, in small letters"
    )
    max_errors: int = Field(default=10, gt=0, description="errors within the window that trip the switch")
    error_window_s: float = Field(default=300, gt=0, description="window in which errors are counted, seconds")
    max_deaths: int = Field(default=3, gt=0, description="nodes may die as often within the window; once more trips")
    death_window_s: float = Field(default=600, gt=0, description="window in which deaths are counted, seconds")
    jump: float = Field(
        default=0.20, gt=0, description="change of equity between two marks, without a fill, that is suspect"
    )
    jump_price_move: float = Field(
        default=0.25, gt=0, description="move of price between two marks that explains a jump"
    )
    jump_judged_s: float = Field(
        default=60, ge=0, description="a comparison with the venue explains a jump or trips, so many seconds after it"
    )
    skew_trip_s: float = Field(
        default=300,
        gt=0,
        description="a clock reported wrong for as long trips; before that, positions are only reduced",
    )
    skew_calm_s: float = Field(
        default=150, gt=0, description="a clock not reported wrong for as long is right again, seconds"
    )


class Tier(enum.IntEnum):
    GREEN = 0
    YELLOW = 1
    ORANGE = 2


GREEN, YELLOW, ORANGE = Tier


class Trip(Struct, frozen=True):
    """What pulled the switch, on what figure, against what limit."""

    cause: str
    measured: str
    limit: str


class KillSwitchState(Struct):
    """`raw` is the drawdown as a float, `smoothed` its average as of `ts_smoothed`, `red_since` when red was first seen.

    `blamed` is when an error of an order was counted, by client order id.
    """

    equity: Decimal | None = None
    high_water: Decimal | None = None
    drawdown: Decimal = Decimal(0)
    raw: float = 0.0
    smoothed: float = 0.0
    ts_smoothed: int = 0
    tier: Tier = Tier.GREEN
    red_since: int | None = None
    alarm: int | None = None
    traded: bool = False
    tripped: str = ""
    errors: list[int] = field(default_factory=list)
    blamed: dict[str, int] = field(default_factory=dict)
    deaths: list[int] = field(default_factory=list)
    reset_by: str = ""
    reset_reason: str = ""


class KillSwitch:
    """Told equity, errors and deaths, it answers with a `Trip` when it trips, once."""

    def __init__(self, config: KillSwitchConfig) -> None:
        self.config = config
        self.state = KillSwitchState()
        self.scale = Decimal(str(config.yellow_scale))
        self._red = Decimal(str(config.red))
        self._jump = Decimal(str(config.jump))
        self._confirm = round(config.confirm_s * SECOND)
        self._tau = config.smoothing_min * 60 * SECOND
        self._calm = min(config.yellow, config.orange, config.red)

    def mark(self, equity: Decimal, now: int) -> Trip | None:
        """Take the account's worth; it must be known."""
        state = self.state
        state.equity = equity
        state.traded = False
        high = state.high_water
        if high is None or equity >= high:
            state.high_water = equity
            if not state.drawdown and state.smoothed == 0:
                state.ts_smoothed = now
                return None
            self._smooth(now)
            state.drawdown = _NONE
            state.raw = 0.0
        else:
            self._smooth(now)
            state.drawdown = (high - equity) / high if high > _NONE else _ALL
            state.raw = float(state.drawdown)
        return self._judge(now, confirmable=True)

    def check(self, now: int, *, confirmable: bool) -> Trip | None:
        """Judge again as time passes: the portfolio speaks when equity changes, so silence is a mark that stands.

        `confirmable` is False when the market cannot be seen: then only a new mark confirms.
        """
        self._smooth(now)
        return self._judge(now, confirmable=confirmable)

    def jumped(self, equity: Decimal) -> Decimal | None:
        """Give the change of equity since the last mark if it is suspect: large, and with no fill between."""
        before = self.state.equity
        if before is None or self.state.traded:
            return None
        change = abs(equity - before)
        return change if change > self._jump * abs(before) else None

    def error(self, now: int, order_id: str = "") -> Trip | None:
        """Count an error; of one order only the first within the window, in whichever ways it is told of."""
        config = self.config
        if order_id:
            oldest = now - round(config.error_window_s * SECOND)
            blamed = self.state.blamed = {name: ts for name, ts in self.state.blamed.items() if ts > oldest}
            if order_id in blamed:
                return None
            blamed[order_id] = now
        count = _count(self.state.errors, now, config.error_window_s)
        if count < config.max_errors:
            return None
        return self.trip("ERRORS", f"{count} in {config.error_window_s:g} s", f"{config.max_errors}")

    def death(self, now: int) -> Trip | None:
        config = self.config
        count = _count(self.state.deaths, now, config.death_window_s)
        if count <= config.max_deaths:
            return None
        return self.trip("DEATHS", f"{count} in {config.death_window_s:g} s", f"{config.max_deaths}")

    def trip(self, cause: str, measured: str, limit: str) -> Trip | None:
        """Trip, unless tripped already."""
        if self.state.tripped:
            return None
        self.state.tripped = cause
        return Trip(cause, measured, limit)

    def reset(self, person: str, reason: str, now: int) -> bool:
        """Put it back, and measure drawdown from here on. Without a name and a reason it stays as it is."""
        if not person.strip() or not reason.strip():
            return False
        equity = self.state.equity
        self.state = KillSwitchState(
            equity=equity, high_water=equity, ts_smoothed=now, reset_by=person.strip(), reset_reason=reason.strip()
        )
        return True

    # --- what is used of it ---------------------------------------------------------------------

    def soft(self, now: int) -> float:
        """The drawdown that the soft tiers look at, as a share of the high-water mark."""
        return min(self.state.raw, self._averaged(now))

    def errors(self, now: int) -> int:
        """How many errors lie within the window."""
        return _within(self.state.errors, now, self.config.error_window_s)

    def deaths(self, now: int) -> int:
        """How many deaths lie within the window."""
        return _within(self.state.deaths, now, self.config.death_window_s)

    # --- how ------------------------------------------------------------------------------------

    def _averaged(self, now: int) -> float:
        """The average, carried to `now`: the drawdown stood since the last mark."""
        state = self.state
        standing = state.raw
        if state.smoothed == standing:
            return standing
        faded = math.exp((state.ts_smoothed - now) / self._tau)
        averaged = standing + (state.smoothed - standing) * faded
        return averaged if averaged >= 1e-9 else 0.0  # it would fade for ever

    def _smooth(self, now: int) -> None:
        self.state.smoothed = self._averaged(now)
        self.state.ts_smoothed = now

    def _judge(self, now: int, *, confirmable: bool) -> Trip | None:
        state, config = self.state, self.config
        raw = state.raw
        if raw < self._calm:
            state.tier = GREEN
            state.red_since = state.alarm = None
            return None
        soft = min(raw, state.smoothed)
        state.tier = ORANGE if soft >= config.orange else YELLOW if soft >= config.yellow else GREEN
        trip = None
        alarms: list[int] = []
        if state.drawdown < self._red or state.tripped:
            state.red_since = None
        elif state.red_since is None:
            state.red_since = now
            alarms.append(now + self._confirm)
        elif now - state.red_since < self._confirm:
            alarms.append(state.red_since + self._confirm)
        elif confirmable:
            trip = self.trip("DRAWDOWN", f"{state.drawdown:.2%}", f"{config.red:.2%}")
        for level in (config.yellow, config.orange):
            if state.smoothed < level < raw:
                wait = self._tau * math.log((raw - state.smoothed) / (raw - level))
                # A millisecond late on purpose: rounding must not wake us just before the crossing.
                alarms.append(now + math.ceil(wait) + SECOND // 1000)
        state.alarm = min(alarms) if alarms and not state.tripped else None
        return trip


def _count(times: list[int], now: int, window_s: float) -> int:
    """Note `now` and count what lies within the window."""
    times.append(now)
    del times[: len(times) - _within(times, now, window_s)]
    return len(times)


def _within(times: list[int], now: int, window_s: float) -> int:
    """How many lie within the window; the oldest come first."""
    return len(times) - bisect_right(times, now - round(window_s * SECOND))
