"""A sweep: one backtest, many settings. What is tried, by what name it is known, and what is kept of each trial.

A trial is a backtest like any other: the same settings give the same result hash. Its id says what it was
made from (all of its settings, what is recorded of its instruments, and the code), so that a trial that is done
is never run again, and never taken for another.
"""

import copy
import hashlib
import itertools
import math
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, Literal, Self

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from pydantic import BaseModel, Field, field_validator, model_validator

import hean
from hean.backtest import kernels
from hean.backtest.market import Market, asked_of, load_market
from hean.backtest.report import without_places
from hean.backtest.result import RunResult
from hean.backtest.run import run_on
from hean.backtest.summary import daily, figures
from hean.errors import ConfigError, HeanError
from hean.settings import BacktestSettings, strategies_in, validated
from hean.store.catalog import Catalog
from hean.trading_system import build_strategies

MOST_TRIALS = 100_000
"""Trials of one sweep: beyond, the grid was hardly meant."""

TASK_S = 2.0
"""Seconds a task should take: long enough that handing it out costs nothing, short enough to lose."""

MOST_A_TASK = 500
"""Trials of one task."""

_DIGITS = Context(prec=12, rounding=ROUND_HALF_EVEN)
_DRAWN = Context(prec=6, rounding=ROUND_HALF_EVEN)


# --- what is tried ------------------------------------------------------------------------------


class Range(BaseModel, frozen=True, extra="forbid"):
    """Values from `low` to `high`, both included: so many in a grid, any in a random search without `steps`."""

    low: int | float = Field(description="the least value")
    high: int | float = Field(description="the greatest value")
    steps: int | None = Field(default=None, ge=2, le=MOST_TRIALS, description="how many values, for a grid")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="linear: equal differences; log: equal ratios"
    )

    whole: bool = Field(default=False, description="whether a random search draws whole numbers only")

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a range goes from a number to a greater one, not from {self.low} to {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a range of equal ratios begins above nought, not at {self.low}")
        if self.whole and not (isinstance(self.low, int) and isinstance(self.high, int)):
            raise ValueError(f"whole numbers lie between whole numbers, not between {self.low} and {self.high}")
        return self

    def values(self) -> list[float | int]:
        """The values of a grid, exact to twelve figures: 0.005 to 0.02 in 4 is 0.005, 0.01, 0.015, 0.02."""
        last = (self.steps or 2) - 1
        return [self._at(Decimal(step) / last, _DIGITS) for step in range(last + 1)]

    def draw(self, chance: Random) -> float | int:
        """Any value, to six figures, or any whole one."""
        if self.steps is not None:
            return chance.choice(self.values())
        if self.whole and self.scale == "linear":
            return chance.randint(int(self.low), int(self.high))
        drawn = self._at(Decimal(chance.random()), _DRAWN)
        return min(max(round(drawn), self.low), self.high) if self.whole else float(drawn)

    def _at(self, part: Decimal, figures: Context) -> float | int:
        low, high = Decimal(str(self.low)), Decimal(str(self.high))
        if self.scale == "linear":
            value = low + (high - low) * part
        else:
            value = Decimal(self.low * (self.high / self.low) ** float(part))
        value = low if not part else high if part == 1 else figures.plus(value)
        written_whole = isinstance(self.low, int) and isinstance(self.high, int)
        return int(value) if written_whole and value == int(value) else float(value)


class SweepSettings(BaseModel, frozen=True, extra="forbid"):
    """A backtest, and what of it is varied.

    A parameter is `strategy.trigger` (a setting of every strategy of the run), `period` (`2025-01-01/2025-02-01`), or any
    setting by its path: `risk.trade_risk`, `symbols`, `strategies`, `venue.fee_tier`, `strategies.0.share`.
    """

    base: dict[str, Any] = Field(description="settings of the backtest all trials have in common")
    parameters: dict[str, Range | tuple[Any, ...]] = Field(
        min_length=1, description="what is varied: a list of values, or { low, high, steps, scale }"
    )
    kind: Literal["grid", "random"] = Field(
        default="grid", description="grid: every combination; random: some, drawn from a seed"
    )
    count: int | None = Field(default=None, ge=1, le=MOST_TRIALS, description="combinations of a random search")
    seed: int = Field(default=1, description="what a random search is drawn from")

    @field_validator("parameters", mode="before")
    @classmethod
    def _flat(cls, said: object) -> object:
        """Names as paths: TOML reads `strategy.trigger = [2, 3]` as a table within a table."""
        return dict(leaves(said)) if isinstance(said, Mapping) else said

    @model_validator(mode="after")
    def _countable(self) -> Self:
        size = 1
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Range):
                if not parameter:
                    raise ValueError(f"{name} has no values")
                size *= len(parameter)
            elif self.kind == "grid" and parameter.steps is None:
                raise ValueError(f"{name}: a grid needs to know in how many steps: {parameter.low}:{parameter.high}:5")
            else:
                size *= parameter.steps or 1
        if self.kind == "random" and self.count is None:
            raise ValueError("a random search needs to know how many combinations to draw: --random 200")
        if self.kind == "grid" and size > MOST_TRIALS:
            raise ValueError(
                f"the grid has {size:,} combinations, and {MOST_TRIALS:,} are the most; search at random, or in fewer steps"
            )
        return self


def parse_parameter(text: str) -> tuple[str, Range | tuple[Any, ...]]:
    """Read `name=2,2.5,3`, `name=0.005:0.02:4` (four values, equally far apart), `name=log:1:100:3`, or a TOML list.

    For a random search also `name=2:4` (any number) and `name=whole:2:30`.

    Raises:
        ConfigError: it is none of these.
    """
    import tomllib

    name, equals, said = text.partition("=")
    name, said = name.strip(), said.strip()
    if not equals or not name or not said:
        raise ConfigError(f"--param {text!r} should read name=values, such as strategy.trigger=2,2.5,3")
    found = re.fullmatch(rf"(log:)?(whole:)?({_NUMBER}):({_NUMBER})(?::(\d+))?", said)
    if found is not None:
        low, high = (int(one) if re.fullmatch(r"[+-]?\d+", one) else float(one) for one in found.group(3, 4))
        steps = None if found[5] is None else int(found[5])
        scale = "log" if found[1] else "linear"
        tree = {"low": low, "high": high, "steps": steps, "scale": scale, "whole": found[2] is not None}
        return name, validated(Range, tree, where=f"--param {name}")
    if said.startswith("["):
        try:
            return name, tuple(tomllib.loads(f"values = {said}")["values"])
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"--param {name}: {said} is no list of TOML: {error}") from error
    return name, tuple(_scalar(one.strip()) for one in said.split(",") if one.strip())


_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


def _scalar(text: str) -> Any:
    if text in {"true", "false"}:
        return text == "true"
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(_NUMBER, text) else text.strip("\"'")


def leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Parameters by their whole paths."""
    for key, value in tree.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value.keys() & {"low", "high"}:
            yield name, validated(Range, value, where=f"parameters.{name}")
        elif isinstance(value, Mapping):
            yield from leaves(value, name)
        elif isinstance(value, list | tuple | Range):
            yield name, value
        else:
            yield name, (value,)


# --- trials -------------------------------------------------------------------------------------


class Trial(Struct, frozen=True):
    """One backtest of a sweep.

    Args:
        id: Hash of what its result depends on.
        number: Its place in the sweep, from 1.
        parameters: What is varied, and to what.
        tree: Its settings, as a settings file has them.
        code: What it must be run by: hash of HEAN's own code, and of the files of the strategies.
        market: What its market is known by; trials that agree in it share one.
        error: Why it cannot be run; empty where it can.
    """

    id: str
    number: int
    parameters: dict[str, Any]
    tree: dict[str, Any]
    code: str
    market: str
    error: str = ""


def specifications(settings: SweepSettings, catalog: Catalog) -> list[Trial]:
    """Every trial of a sweep, in its order, each once. One that the settings refuse is among them, with the reason.

    Raises:
        ConfigError: no trial at all can be run.
    """
    trials: dict[str, Trial] = {}
    recorded: dict[tuple[str, ...], str] = {}
    for parameters in combinations(settings):
        trial = _specified(settings.base, parameters, len(trials) + 1, catalog, recorded)
        trials.setdefault(trial.id, trial)
    refused = [trial for trial in trials.values() if trial.error]
    if len(refused) == len(trials):
        every = "it" if len(refused) == 1 else f"each of the {len(refused):,} trials"
        raise ConfigError(f"{every} is refused; the first because: {refused[0].error}")
    return list(trials.values())


def combinations(settings: SweepSettings) -> Iterator[dict[str, Any]]:
    """What is varied, trial by trial. A longer random search begins with the trials of a shorter one."""
    names = list(settings.parameters)
    if settings.kind == "grid":
        grid = [one.values() if isinstance(one, Range) else one for one in settings.parameters.values()]
        for chosen in itertools.product(*grid):
            yield dict(zip(names, chosen, strict=True))
        return
    chance = Random(settings.seed)  # noqa: S311 (a search, no secret)
    for _ in range(settings.count or 0):
        yield {
            name: one.draw(chance) if isinstance(one, Range) else chance.choice(one)
            for name, one in settings.parameters.items()
        }


def _specified(
    base: Mapping[str, Any],
    parameters: dict[str, Any],
    number: int,
    catalog: Catalog,
    recorded: dict[tuple[str, ...], str],
) -> Trial:
    code = ""
    tree = copy.deepcopy(dict(base))
    try:
        tree = laid_over(tree, parameters)
        run = validated(BacktestSettings, tree)
        code = code_of(run)
        strategies = build_strategies(run)
        names = tuple(sorted({name for strategy in strategies for name in strategy.instruments}))
        if names not in recorded:
            recorded[names] = catalog.fingerprint(names)
    except HeanError as refusal:
        return Trial(hashed("refused", tree, code), number, parameters, tree, code, "", str(refusal))
    market = hashed("market", asked_of(run, strategies), recorded[names])
    made_from = without_places(run.model_dump(mode="json"))
    return Trial(hashed("trial", made_from, recorded[names], code), number, parameters, tree, code, market)


def laid_over(tree: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Set what is varied in a tree of settings.

    Raises:
        ConfigError: a name leads nowhere.
    """
    # Which strategies there are comes before what each is set to.
    for name, said in sorted(parameters.items(), key=lambda one: one[0] != "strategies"):
        value = copy.deepcopy(said)
        if name == "period":
            start, slash, end = str(value).partition("/")
            if not slash:
                raise ConfigError(f"period {value!r} should read start/end, such as 2025-01-01/2025-02-01")
            tree |= {"start": start, "end": end}
        elif name == "strategies":
            tree["strategies"] = [value] if isinstance(value, str) else value
        elif name.startswith("strategy."):
            for chosen in strategies_in(tree):
                _put(chosen["config"], name.removeprefix("strategy."), value, name)
        else:
            strategies_in(tree)
            _put(tree, name, value, name)
    strategies_in(tree)
    return tree


def _put(branch: Any, path: str, value: Any, name: str) -> None:
    *stem, leaf = path.split(".")
    for part in stem:
        if isinstance(branch, list) and part.isdecimal() and int(part) < len(branch):
            branch = branch[int(part)]
        elif isinstance(branch, dict):
            branch = branch.setdefault(part, {})
        else:
            raise ConfigError(f"parameter {name}: there is no {part} to set anything of")
    if not isinstance(branch, dict):
        raise ConfigError(f"parameter {name}: {leaf} is no setting of anything")
    branch[leaf] = value


def sweep_id(settings: SweepSettings, trials: Sequence[Trial]) -> str:
    """What a sweep is known by: all that is tried, of what, by which code."""
    return hashed("sweep", without_places(settings.model_dump(mode="json")), [trial.id for trial in trials])


def code_of(run: BacktestSettings) -> str:
    """Hash the code a backtest is run by: HEAN's own, and the files its strategies are in.

    What such a file imports from elsewhere is not seen.

    Raises:
        ConfigError: a file is not there.
    """
    digest = hashlib.sha256(_own_code().encode())
    for strategy in run.strategies:
        path, colon, _ = strategy.use.rpartition(":")
        if not colon or not path.endswith(".py"):
            continue
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise ConfigError(f"strategy {strategy.use!r}: {path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


@cache
def _own_code() -> str:
    """Hash the package as it lies on the disk, and the versions of what it computes with."""
    root = Path(hean.__file__).parent
    digest = hashlib.sha256()
    for said in (platform.python_version(), *(version(name) for name in ("numpy", "numba", "msgspec"))):
        digest.update(said.encode() + b"\n")
    for file in sorted(file for ending in ("py", "json") for file in root.rglob(f"*.{ending}")):
        digest.update(f"{file.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def hashed(*parts: object) -> str:
    """Values as one word, the same in every process and on every day."""
    encoder = msgspec.msgpack.Encoder(enc_hook=str, order="deterministic")
    return hashlib.sha256(encoder.encode(parts)).hexdigest()


# --- what came of them --------------------------------------------------------------------------


class Row(Struct, frozen=True):
    """What is kept of a trial. None is unknown, and never nought; of a trial that was refused all but the error is.

    Money in quote currency, its parts adding up to `net`. Ratios and durations as in `Figures`; `sharpe` is annualised,
    with its 95 % interval. `daily_returns` has one a UTC day, days cut short by the period included. `seconds` is how
    long it took.
    """

    trial: str
    number: int
    parameters: dict[str, Any]
    error: str | None = None
    net: Decimal | None = None
    price: Decimal | None = None
    basis: Decimal | None = None
    funding: Decimal | None = None
    fees: Decimal | None = None
    slippage: Decimal | None = None
    interest: Decimal | None = None
    trades: int | None = None
    open_trades: int | None = None
    fills: int | None = None
    days: int | None = None
    total_return: float | None = None
    annual_return: float | None = None
    volatility: float | None = None
    max_drawdown: float | None = None
    sharpe: float | None = None
    sharpe_low: float | None = None
    sharpe_high: float | None = None
    sharpe_daily: float | None = None
    sortino: float | None = None
    skewness: float | None = None
    kurtosis: float | None = None
    hit_rate: float | None = None
    profit_factor: float | None = None
    exposure: float | None = None
    turnover: float | None = None
    daily_returns: list[float] | None = None
    ts_start: int | None = None
    ts_end: int | None = None
    synthetic: bool | None = None
    result_hash: str | None = None
    seconds: float | None = None


def market_of(trial: Trial, catalog: Catalog) -> Market:
    """Read what a trial is played on.

    Raises:
        HeanError: As `load_market`.
    """
    run = validated(BacktestSettings, trial.tree)
    return load_market(run, build_strategies(run), catalog)


def refused(trial: Trial, error: str) -> Row:
    """The row of a trial there is no result of."""
    return Row(trial.id, trial.number, trial.parameters, error)


def run_trial(trial: Trial, market: Market, *, clock: Callable[[], float]) -> Row:
    """Run one backtest, as `hean backtest` would.

    Returns:
        Its row; where it is refused, with what was said.

    Raises:
        ConfigError: the code here is not the one the sweep was begun with.
    """
    began = clock()
    settings = validated(BacktestSettings, trial.tree)
    if code_of(settings) != trial.code:
        raise ConfigError(
            "the code has changed since the sweep was begun, or is another where it runs: "
            "run it anew, with the same code everywhere"
        )
    try:
        strategies = build_strategies(settings)
        # What one trial computes from the tape is not kept for the next: it would pile up.
        fresh = replace(market, tape=copy.copy(market.tape))
        result = run_on(fresh, settings, strategies, clock=clock)
    except HeanError as refusal:
        return replace(refused(trial, str(refusal)), seconds=clock() - began)
    return row_of(trial, result, seconds=clock() - began)


def row_of(trial: Trial, result: RunResult, *, seconds: float) -> Row:
    """What is kept of a result."""
    found = figures(result)
    days = daily(result)
    alive = bool((days > 0).all())
    return Row(
        trial=trial.id,
        number=trial.number,
        parameters=trial.parameters,
        net=result.pnl.net,
        price=result.pnl.price,
        basis=result.pnl.basis,
        funding=result.pnl.funding,
        fees=result.pnl.fees,
        slippage=result.pnl.slippage,
        interest=result.pnl.interest,
        trades=found.trades,
        open_trades=found.open_trades,
        fills=found.fills,
        days=found.days,
        total_return=found.total_return,
        annual_return=found.annual_return,
        volatility=found.volatility,
        max_drawdown=found.max_drawdown,
        sharpe=None if found.sharpe is None else found.sharpe.value,
        sharpe_low=None if found.sharpe is None else found.sharpe.low,
        sharpe_high=None if found.sharpe is None else found.sharpe.high,
        sharpe_daily=found.sharpe_daily,
        sortino=found.sortino,
        skewness=found.skewness,
        kurtosis=found.kurtosis,
        hit_rate=None if found.hit_rate is None else found.hit_rate.value,
        profit_factor=found.profit_factor,
        exposure=found.exposure,
        turnover=found.turnover,
        daily_returns=kernels.simple_returns(days).tolist() if alive else None,
        ts_start=result.ts_start,
        ts_end=result.ts_end,
        synthetic=result.synthetic,
        result_hash=result.result_hash,
        seconds=seconds,
    )


# --- how they are handed out --------------------------------------------------------------------


def by_market(trials: Iterable[Trial]) -> dict[str, list[Trial]]:
    """Trials of one market together, so that few markets are held at a time."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.market, []).append(trial)
    return groups


def chunk_size(seconds: Sequence[float], *, waiting: int, workers: int) -> int:
    """How many trials the next task gets.

    Args:
        seconds: How long trials of this market took lately; empty before the first has come back.
        waiting: Trials of this market not yet handed out.
        workers: How many tasks run at a time.

    Returns:
        One until it is known how long they take; then what fills `TASK_S`, but never so many that others go idle.
    """
    if not seconds:
        return 1
    fill = math.ceil(TASK_S / max(float(np.median(seconds)), 1e-6))
    fair = max(1, waiting // (2 * max(1, workers)))
    return max(1, min(fill, fair, MOST_A_TASK, waiting))
