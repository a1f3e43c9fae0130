"""Walk-forward: parameters are chosen in one window and tried in the next, which they have not seen; only that counts.

    training   every parameter set, on each training window     trials of a sweep, with its periods as one parameter more
    choice     by the training alone                            `choose`
    test       the chosen set, on the days after                a backtest like any other, to the same result hash

Nothing here corrects for having chosen beyond that: a strategy that was thought of because it fits this very past fits the
tests as well, and who evaluates until something shines has chosen by the tests. How often they were looked at is counted.
"""

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Self

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, Field, field_validator, model_validator

from hean.backtest import kernels
from hean.backtest.market import load_market
from hean.backtest.report import without_places
from hean.backtest.sweep import (
    Range,
    Row,
    SweepSettings,
    Trial,
    combinations,
    hashed,
    laid_over,
    leaves,
    specifications,
)
from hean.backtest.words import span
from hean.errors import ConfigError
from hean.settings import BacktestSettings, validated
from hean.store.catalog import Catalog
from hean.tape import Floats
from hean.trading_system import build_strategies
from hean.units import DAY
from hean.windows import Lengths, Window, day, rolling

PERIOD = "period"
QUANTILE = 0.2
"""A parameter set is worth what a fifth of its neighbourhood does not reach: a plateau, not a peak."""

CAUTION = (
    "Nothing here corrects for selection beyond the choice within each window: who has tried other strategies, grids or "
    "periods on these days has chosen by them."
)


class WalkForwardSettings(BaseModel, frozen=True, extra="forbid"):
    """A backtest, what of it is chosen, and in which windows."""

    base: dict[str, Any] = Field(description="settings of the backtest that all trials have in common")
    parameters: dict[str, Range | tuple[Any, ...]] = Field(
        min_length=1, description="what is chosen: a list of values, or { low, high, steps, scale }"
    )
    windows: Lengths = Field(default=Lengths(), description="how long the windows are")
    min_trades: int = Field(
        default=1, ge=1, description="trades in training, open ones too, without which a set is not chosen"
    )

    @field_validator("parameters", mode="before")
    @classmethod
    def _flat(cls, said: object) -> object:
        return dict(leaves(said)) if isinstance(said, Mapping) else said

    @model_validator(mode="after")
    def _leaves_the_period_to_the_windows(self) -> Self:
        for name in (PERIOD, "start", "end"):
            if name in self.parameters:
                raise ValueError(f"{name} is no parameter here: the windows say when")
        SweepSettings(base=self.base, parameters=self.parameters)
        return self

    def sweep(self, periods: Sequence[tuple[int, int]]) -> SweepSettings:
        """Every parameter set on each of some periods."""
        told = tuple(_period(one) for one in periods)
        return SweepSettings(base=self.base, parameters={**self.parameters, PERIOD: told})


def windows_of(settings: WalkForwardSettings, start: int, end: int) -> list[Window]:
    """The windows of a period.

    Raises:
        ConfigError: Not one fits, or a position may be held for longer than what is left out before a test.
    """
    must_be_purged(settings)
    return rolling(start, end, settings.windows)


def must_be_purged(settings: WalkForwardSettings) -> None:
    """Refuse a purge that is shorter than a position may be held, where the strategies say how long that is.

    Raises:
        ConfigError: It is: the text says how long it has to be.
    """
    longest = 0
    for parameters in combinations(SweepSettings(base=settings.base, parameters=settings.parameters)):
        tree = laid_over(copy.deepcopy(settings.base), parameters)
        try:
            strategies = build_strategies(validated(BacktestSettings, tree))
        except ConfigError:
            continue  # it is refused as a trial, with its reason
        longest = max(longest, *(getattr(one.component, "longest_hold", None) or 0 for one in strategies))
    if longest > settings.windows.purge_days * DAY:
        days = -(-longest // DAY)
        raise ConfigError(
            f"a position may be held for {span(longest)}, and only {settings.windows.purge_days} d are left out before "
            f"a test: say --purge-days {days}"
        )


def recorded(settings: WalkForwardSettings, catalog: Catalog) -> tuple[int, int]:
    """From when to when a backtest of these settings would be played: as asked for, as far as it is recorded.

    Raises:
        HeanError: The market cannot be read.
    """
    parameters = next(combinations(SweepSettings(base=settings.base, parameters=settings.parameters)))
    run = validated(BacktestSettings, laid_over(copy.deepcopy(settings.base), parameters))
    market = load_market(run, build_strategies(run), catalog)
    return market.ts_start, market.ts_end


# --- training -----------------------------------------------------------------------------------


def training_trials(settings: WalkForwardSettings, windows: Sequence[Window], catalog: Catalog) -> list[Trial]:
    """Every parameter set on the training days of each window: a sweep like any other.

    Raises:
        ConfigError: Not one of them can be run.
    """
    return specifications(settings.sweep([window.train for window in windows]), catalog)


class Choice(Struct, frozen=True):
    """What was chosen by a training window.

    Args:
        window: Which.
        trials: Parameter sets that were tried.
        refused: Of them, those without a result.
        traded: Those that traded enough to be chosen.
        parameters: The one that was; None where none could be.
        score: What it was chosen by. It says nothing of what will come, and is shown nowhere as if it did.
        daily: Its mean daily return in training: for the efficiency alone.
        why: Why nothing was chosen.
    """

    window: int
    trials: int
    refused: int
    traded: int
    parameters: dict[str, Any] | None
    score: float | None
    daily: float | None
    why: str = ""


def choose(
    settings: WalkForwardSettings, window: Window, trials: Sequence[Trial], rows: Mapping[str, Mapping[str, Any]]
) -> Choice:
    """Choose a parameter set by its training alone.

    A set's own measure is its daily Sharpe ratio: profit alone would choose whatever bets most. Its score is the measure that
    a fifth of its neighbourhood (itself, and the sets one value away in any of the parameters that are numbers) does not
    reach: a good set among bad ones is luck. Of equal scores the better measure is chosen, then the set that was listed first.
    A set that did not trade has no measure, and is no neighbour.

    Args:
        settings: What is chosen among.
        window: In which window.
        trials: The trials of all windows, or of this one.
        rows: The rows of those that ended, by trial: `trades`, `open_trades`, `sharpe_daily`, `daily_returns`, `error`.
    """
    period = _period(window.train)
    places = _places(settings)
    measured: dict[tuple[int, ...], float] = {}
    named: dict[tuple[int, ...], tuple[Trial, Mapping[str, Any]]] = {}
    tried = refused = traded = 0
    own = [trial for trial in trials if trial.parameters[PERIOD] == period]
    for trial in own:
        tried += 1
        row = rows.get(trial.id)
        if row is None or row["error"] is not None:
            refused += 1
            continue
        if (row["trades"] or 0) + (row["open_trades"] or 0) < settings.min_trades:
            continue
        traded += 1
        if row["sharpe_daily"] is not None and row["daily_returns"]:
            place = tuple(places[name][_key(trial.parameters[name])] for name in settings.parameters)
            measured[place] = row["sharpe_daily"]
            named[place] = trial, row
    if not measured:
        why = "every set was refused" if refused == tried else "nothing traded in training" if not traded else _FLAT
        return Choice(window.number, tried, refused, traded, None, None, None, why)
    ordered = tuple(_is_number(parameter) for parameter in settings.parameters.values())
    scores = {place: plateau(place, measured, ordered) for place in measured}
    best = max(measured, key=lambda place: (scores[place], measured[place], -named[place][0].number))
    trial, row = named[best]
    parameters = {name: trial.parameters[name] for name in settings.parameters}
    daily = float(np.mean(row["daily_returns"]))
    return Choice(window.number, tried, refused, traded, parameters, scores[best], daily)


_FLAT = "what traded in training has no measure: too few days, or none like another"


def plateau(place: tuple[int, ...], measured: Mapping[tuple[int, ...], float], ordered: Sequence[bool]) -> float:
    """What a fifth of a set's neighbourhood does not reach.

    Args:
        place: Which value of each parameter the set has, by its place among them.
        measured: The measure of every set that has one.
        ordered: Whether the values of each parameter are numbers: only then is one next to another.
    """
    reach = [(at - 1, at, at + 1) if number else (at,) for at, number in zip(place, ordered, strict=True)]
    around = [measured[near] for near in itertools.product(*reach) if near in measured]
    return float(np.quantile(around, QUANTILE, method="lower"))


# --- test ---------------------------------------------------------------------------------------


def chosen_trials(
    settings: WalkForwardSettings, windows: Sequence[Window], choices: Sequence[Choice], catalog: Catalog
) -> list[Trial]:
    """The chosen set of each window on its test days; its number is the window's. Windows without a choice have none.

    Raises:
        ConfigError: One cannot be run at all.
    """
    found = []
    for window, choice in zip(windows, choices, strict=True):
        if choice.parameters is not None:
            base = laid_over(copy.deepcopy(settings.base), choice.parameters)
            sweep = SweepSettings(base=base, parameters={PERIOD: (_period(window.test),)})
            (trial,) = specifications(sweep, catalog)
            found.append(replace(trial, number=window.number))
    return found


class Tried(Struct, frozen=True):
    """A window with what came of it. `result` is the chosen set's on the test days: None where nothing was chosen."""

    window: Window
    choice: Choice
    result: Row | None


# --- the evaluation -----------------------------------------------------------------------------


class Looks(Struct, frozen=True):
    """How often out-of-sample days were looked at: evaluations of which any test met any of these, this one included.

    `trials` adds up what all of them tried in training.
    """

    evaluations: int
    trials: int


class Evaluation(Struct, frozen=True):
    """What came of walking forward, out of sample alone. None is unknown, and never nought.

    Money in quote currency, summed over windows that each begin with `capital`; returns compound from one to the next.
    Fractions are of one. `sharpe` and its standard error are of a year.

    Args:
        id: What it is known by: all that is tried, on what, by which code.
        capital: What each window begins with.
        windows: Each window, and what came of it.
        trials: Backtests in training, over all windows.
        tests: Backtests out of sample: one a window with a choice.
        days: Out-of-sample days with a return.
        ts: When each of them ended.
        returns: What it returned, as many.
        net: Net profit.
        fees: Fees paid, negative.
        funding: Funding received.
        trades: Closed round trips.
        total_return: Compounded over the days.
        annual_return: The same a year; None under thirty days.
        volatility: Of a year.
        max_drawdown: The deepest fall: of the days joined, or within a window.
        sharpe: The annualised Sharpe ratio.
        sharpe_error: Its standard error; None with fewer than four days.
        efficiency: Mean daily return out of sample over that in training of what was chosen; None where training lost.
        gained: Windows with a profit.
        idle: Windows whose choice closed no trade in its test.
        synthetic: Whether any of the market was made up.
        result_hash: What two evaluations of the same thing share.
    """

    id: str
    capital: Decimal
    windows: tuple[Tried, ...]
    trials: int
    tests: int
    days: int
    ts: tuple[int, ...]
    returns: tuple[float, ...]
    net: Decimal | None
    fees: Decimal | None
    funding: Decimal | None
    trades: int | None
    total_return: float | None
    annual_return: float | None
    volatility: float | None
    max_drawdown: float | None
    sharpe: float | None
    sharpe_error: float | None
    efficiency: float | None
    gained: int
    idle: int
    synthetic: bool
    result_hash: str

    @property
    def without_choice(self) -> list[Tried]:
        return [one for one in self.windows if one.choice.parameters is None]

    @property
    def without_result(self) -> list[Tried]:
        """Windows whose test was refused."""
        return [one for one in self.windows if one.result is not None and one.result.error is not None]


def evaluation_id(settings: WalkForwardSettings, windows: Sequence[Window], trials: Sequence[Trial]) -> str:
    """What an evaluation is known by: the windows, all that is tried in them, on what data, by which code."""
    ids = sorted(trial.id for trial in trials)
    return hashed("evaluation", without_places(settings.model_dump(mode="json")), windows, ids)


def evaluated(settings: WalkForwardSettings, name: str, tried: Iterable[Tried]) -> Evaluation:
    """Read the evaluation off its windows.

    Args:
        settings: What was evaluated.
        name: Its id.
        tried: Its windows, in any order.
    """
    windows = tuple(sorted(tried, key=lambda one: one.window.number))
    results = [one.result for one in windows if one.result is not None and one.result.error is None]
    capital = _capital(settings)
    ts, returns = _joined(results)
    growth: Floats = np.multiply.accumulate(1 + returns)
    whole = all(row.daily_returns is not None for row in results) and bool(results)
    alive = whole and bool((growth > 0).all())
    known = returns if alive else np.empty(0)
    ratio = kernels.sharpe(known)
    error = None
    if ratio is not None and known.size >= 4:
        skew, kurtosis = kernels.skewness(known) or 0.0, kernels.kurtosis(known) or 3.0
        error = kernels.sharpe_error(ratio, known.size, skew=skew, kurtosis=kurtosis)
    final = float(growth[-1]) if alive else None
    money = {
        part: sum((getattr(row, part) for row in results), Decimal(0)) if results else None
        for part in ("net", "fees", "funding")
    }
    return Evaluation(
        id=name,
        capital=capital,
        windows=windows,
        trials=sum(one.choice.trials for one in windows),
        tests=len(results),
        days=int(known.size),
        ts=tuple(ts) if alive else (),
        returns=tuple(known.tolist()),
        **money,
        trades=sum(row.trades or 0 for row in results) if results else None,
        total_return=None if final is None else final - 1,
        annual_return=None if final is None else kernels.annual_growth(1.0, final, float(known.size)),
        volatility=kernels.annualised(float(known.std(ddof=1))) if known.size > 1 else None,
        max_drawdown=_deepest(growth, results) if alive else None,
        sharpe=kernels.annualised(ratio),
        sharpe_error=kernels.annualised(error),
        efficiency=_efficiency(windows, known),
        gained=sum((row.net or 0) > 0 for row in results),
        idle=sum(row.trades == 0 and not row.open_trades for row in results),
        synthetic=any(bool(row.synthetic) for row in results),
        result_hash=_result_hash(settings, windows),
    )


def _joined(results: Sequence[Row]) -> tuple[list[int], Floats]:
    """The days of all tests, one after the other: when each ended, and what it returned."""
    ts: list[int] = []
    returns: list[float] = []
    for row in results:
        if row.daily_returns is not None and row.ts_start is not None and row.ts_end is not None:
            first = row.ts_start // DAY + 1
            ts += [min((first + at) * DAY, row.ts_end) for at in range(len(row.daily_returns))]
            returns += row.daily_returns
    return ts, np.array(returns, np.float64)


def _deepest(growth: Floats, results: Sequence[Row]) -> float:
    joined = kernels.max_drawdown(np.concatenate([[1.0], growth])).depth
    return max([joined, *(row.max_drawdown for row in results if row.max_drawdown is not None)])


def _efficiency(windows: Sequence[Tried], returns: Floats) -> float | None:
    """Source: Pardo, *The evaluation and optimization of trading strategies*, 2008: walk-forward efficiency."""
    trained = [
        one.choice.daily
        for one in windows
        if one.choice.daily is not None and one.result is not None and one.result.error is None
    ]
    if not trained or not returns.size:
        return None
    usual = math.fsum(trained) / len(trained)
    return float(returns.mean()) / usual if usual > 0 else None


def _result_hash(settings: WalkForwardSettings, windows: Sequence[Tried]) -> str:
    said = [
        (one.window, one.choice.parameters, None if one.result is None else one.result.result_hash) for one in windows
    ]
    return hashed("evaluated", without_places(settings.model_dump(mode="json")), said)


# --- small things -------------------------------------------------------------------------------


def _places(settings: WalkForwardSettings) -> dict[str, dict[str, int]]:
    """The place of each value among those of its parameter: numbers by their size, others as they are listed."""
    found = {}
    for name, parameter in settings.parameters.items():
        values = parameter.values() if isinstance(parameter, Range) else list(parameter)
        ordered = sorted(values) if _is_number(parameter) else values
        found[name] = {key: place for place, key in enumerate(dict.fromkeys(_key(value) for value in ordered))}
    return found


def _is_number(parameter: Range | Sequence[Any]) -> bool:
    return isinstance(parameter, Range) or all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in parameter
    )


def _key(value: Any) -> str:
    return repr(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else repr(value)


def _capital(settings: WalkForwardSettings) -> Decimal:
    return Decimal(str(settings.base.get("capital", BacktestSettings.model_fields["capital"].default)))


def _period(span: tuple[int, int]) -> str:
    return f"{day(span[0])}/{day(span[1])}"
