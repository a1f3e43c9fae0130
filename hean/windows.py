"""Rolling windows for walking forward: where parameters are chosen, and where the choice is then tried."""

from msgspec import Struct
from pydantic import BaseModel, Field

from hean.errors import ConfigError
from hean.units import DAY, utc

MOST = 10_000
"""Windows of one evaluation: beyond, the lengths were hardly meant."""


class Lengths(BaseModel, frozen=True, extra="forbid"):
    """How long the windows are, in whole days of UTC."""

    train_days: int = Field(default=180, ge=1, le=10_000, description="days in which parameters are chosen")
    test_days: int = Field(default=30, ge=1, le=10_000, description="days after them in which the choice is tried")
    step_days: int | None = Field(
        default=None, ge=1, le=10_000, description="days from one window to the next; as long as a test if not given"
    )
    purge_days: int = Field(
        default=3, ge=0, le=10_000, description="days left out between the two: the longest that a position is held"
    )
    embargo_days: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="days left out beside, for what outlasts a position; a hundredth of the training if not given",
    )

    @property
    def step(self) -> int:
        return self.test_days if self.step_days is None else self.step_days

    @property
    def gap(self) -> int:
        """Days between training and test."""
        embargo = -(-self.train_days // 100) if self.embargo_days is None else self.embargo_days
        return self.purge_days + embargo

    @property
    def needed(self) -> int:
        """Days that one window takes."""
        return self.train_days + self.gap + self.test_days


class Window(Struct, frozen=True):
    """One window, counted from 1: each period from its first instant to the one after its last, UTC nanoseconds."""

    number: int
    train: tuple[int, int]
    test: tuple[int, int]


def rolling(start: int, end: int, lengths: Lengths) -> list[Window]:
    """Every window that lies within a period: training, the days left out, and the test, each beginning at 00:00 UTC.

    Raises:
        ConfigError: Not one fits: the text says how many days it takes. Or tests would overlap: a day would count twice.
    """
    if lengths.step < lengths.test_days:
        raise ConfigError(
            f"a step of {lengths.step} d is shorter than a test of {lengths.test_days} d, and days would be counted twice: "
            f"let --step-days be at least {lengths.test_days}"
        )
    first, last = -(-start // DAY), end // DAY
    count = (last - first - lengths.needed) // lengths.step + 1
    if count < 1:
        raise ConfigError(
            f"from {day(start)} to {day(end)} there are {max(0, last - first)} whole days, and one window takes "
            f"{lengths.needed}: {lengths.train_days} of training, {lengths.gap} left out, {lengths.test_days} of test; "
            "take a longer period or shorter windows"
        )
    if count > MOST:
        raise ConfigError(f"these lengths make {count:,} windows, and {MOST:,} are the most")
    return [_window(number, first + (number - 1) * lengths.step, lengths) for number in range(1, count + 1)]


def _window(number: int, first: int, lengths: Lengths) -> Window:
    trained = first + lengths.train_days
    test = trained + lengths.gap
    return Window(number, (first * DAY, trained * DAY), (test * DAY, (test + lengths.test_days) * DAY))


def day(ts: int) -> str:
    """The day of an instant, as people write it."""
    return utc(ts)[:10]
