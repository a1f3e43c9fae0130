"""Backtests by the thousand: trials in, rows out, as Ray tasks.

A market goes into the object store once, and every worker reads it there: its columns are numpy arrays, which Ray hands
out without a copy and read-only. A task is many trials, and a plain function of them: whoever dies with one, it is run
again elsewhere, and says the same.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from hean.backtest.market import Market
from hean.backtest.sweep import Row, Trial, by_market, chunk_size, refused, run_trial
from hean.errors import HeanError

WINDOW = 3
"""Tasks in flight to a processor: enough that none waits for the next, few enough to lose."""

RETRIES = 3
"""How often a task is run again whose worker has died."""

SECRETS = ("BYBIT_", "HEAN_KEYS", "HEAN_ADMIN_TOKEN")
"""What names in the environment begin with that no backtest has any business with."""

_RECENT = 64
_LOOK_S = 0.5


class Progress(Struct, frozen=True):
    """How far a sweep is. `left_s` is None until something is known of it."""

    done: int
    total: int
    failed: int
    elapsed_s: float
    left_s: float | None


class _Flight(Struct, frozen=True):
    """A task on its way: what is run in it."""

    market: str
    trials: tuple[Trial, ...]


class _Queue:
    """Trials not handed out, those of one market after another, and how long they take."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._groups = by_market(trials)
        self._alone: list[_Flight] = []
        self._seconds: dict[str, list[float]] = {}

    def __bool__(self) -> bool:
        return bool(self._alone or self._groups)

    def needs(self, market: str) -> bool:
        """Whether trials of a market are still to be handed out."""
        return market in self._groups or any(one.market == market for one in self._alone)

    def next(self, workers: int) -> _Flight:
        """What the next task gets."""
        if self._alone:
            return self._alone.pop()
        market, waiting = next(iter(self._groups.items()))
        size = chunk_size(self._seconds.get(market, ()), waiting=len(waiting), workers=workers)
        self._groups[market] = waiting[size:]
        if not self._groups[market]:
            del self._groups[market]
        return _Flight(market, tuple(waiting[:size]))

    def drop(self, market: str) -> list[Trial]:
        """Everything of a market that cannot be had."""
        return self._groups.pop(market, [])

    def took(self, market: str, rows: Sequence[Row]) -> None:
        lately = self._seconds.setdefault(market, [])
        lately += [row.seconds for row in rows if row.seconds is not None and row.result_hash is not None]
        del lately[:-_RECENT]

    def again(self, flight: _Flight) -> None:
        """Hand out each trial of a task alone: one of them ends whoever runs it."""
        self._alone += [_Flight(flight.market, (trial,)) for trial in flight.trials]


def run_trials(
    trials: Sequence[Trial],
    *,
    load: Callable[[Trial], Market],
    keep: Callable[[Sequence[Row]], None],
    progress: Callable[[Progress], None] = lambda _: None,
    window: int = WINDOW,
) -> None:
    """Run every trial on the cluster this process is connected to.

    What is finished is kept before anything else happens, also when this is interrupted.

    Args:
        trials: What is to be run.
        load: Reads the market of a trial. What it refuses is every row of that market.
        keep: Told the rows of each task as it ends, in any order.
        progress: Told how far it is, about twice a second.
        window: Tasks in flight to a processor.

    Raises:
        HeanError: a worker cannot run any trial: it has other code.
    """
    import ray  # not with this module: Ray reads the environment as it is imported, and that may yet have to be set

    began = time.monotonic()
    done = failed = 0
    flying: dict[Any, _Flight] = {}
    markets: dict[str, Any] = {}
    runnable = [trial for trial in trials if not trial.error]
    queue = _Queue(runnable)

    def finished(rows: Sequence[Row]) -> None:
        nonlocal done, failed
        keep(rows)
        done += len(rows)
        failed += sum(row.error is not None for row in rows)

    def tell() -> None:
        elapsed = time.monotonic() - began
        ran = done - (len(trials) - len(runnable))
        left = elapsed / ran * (len(trials) - done) if ran > 0 else None
        progress(Progress(done, len(trials), failed, elapsed, left))

    finished([refused(trial, trial.error) for trial in trials if trial.error])
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(run_chunk).options(name="hean sweep")
    tell()
    try:
        while queue or flying:
            workers = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
            while queue and len(flying) < window * workers:
                flight = queue.next(workers)
                if flight.market not in markets:
                    try:
                        markets[flight.market] = ray.put(load(flight.trials[0]))
                    except HeanError as refusal:
                        rest = (*flight.trials, *queue.drop(flight.market))
                        finished([refused(trial, str(refusal)) for trial in rest])
                        continue
                flying[task.remote(markets[flight.market], flight.trials)] = flight
            if flying:
                ray.wait(list(flying), num_returns=1, timeout=_LOOK_S)
            _land(flying, queue, finished)
            for market in [name for name in markets if not queue.needs(name)]:
                if not any(flight.market == market for flight in flying.values()):
                    del markets[market]  # the last reference: the store may have its memory back
            tell()
    except KeyboardInterrupt:
        _land(flying, queue, finished)
        raise
    finally:
        for ref in flying:
            ray.cancel(ref, force=True)


def _land(flying: dict[Any, _Flight], queue: _Queue, finished: Callable[[Sequence[Row]], None]) -> None:
    """Take in every task that has ended."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    if not flying:
        return
    ended, _ = ray.wait(list(flying), num_returns=len(flying), timeout=0)
    for ref in ended:
        flight = flying.pop(ref)
        try:
            rows: list[Row] = ray.get(ref)
        except RayTaskError as raised:
            if isinstance(raised.cause, HeanError):
                raise raised.cause from raised
            raise
        except RayError as death:
            if len(flight.trials) > 1:
                queue.again(flight)
                continue
            said = str(death).strip().splitlines()
            why = said[0] if said else type(death).__name__
            rows = [refused(flight.trials[0], f"whoever ran it died, {RETRIES + 1} times: {why}")]
        queue.took(flight.market, rows)
        finished(rows)


def run_chunk(market: Market, trials: Sequence[Trial]) -> list[Row]:
    """What a worker does: run some trials on one market.

    A worker has no business with an exchange: whatever keys its node was started with are gone before a strategy's file is read.
    """
    for name in [name for name in os.environ if name.startswith(SECRETS)]:
        del os.environ[name]
    return [run_trial(trial, market, clock=time.perf_counter) for trial in trials]
