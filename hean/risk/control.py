"""Whether to trade at all: the trading state, what the kill switch sets going, and closing everything."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeAlias

from hean.messages import (
    CancelAll,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    KillSwitchReset,
    KillSwitchTripped,
    NodeFailed,
    PullKillSwitch,
    ReconcileCompleted,
    StartTrading,
    StopTrading,
    StrategySwitched,
    SubmitOrder,
    SubmitPair,
    SwitchStrategy,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
)
from hean.risk.config import RiskConfig, StrategyLimits, exact
from hean.risk.desk import Desk
from hean.risk.exposure import RESERVE, ZERO
from hean.risk.killswitch import ORANGE, YELLOW, KillSwitch, Tier, Trip
from hean.risk.state import Flattening, Off, RiskState, Skew
from hean.units import DAY, SECOND

KEPT = frozenset({"drawdown", "reconcile", "discrepancy", "clock"})
"""Causes for reducing that a person's word does not end."""

Consequence: TypeAlias = (
    TradingStateChanged | KillSwitchTripped | StrategySwitched | CancelAll | SubmitOrder | SubmitPair | VerifyFlat
)


LOOKERS_ON = frozenset({"monitor", "factory", "smoke"})
"""Nodes that take no part in trading."""


class Control:
    """Trading is HALTED until started and once the switch has tripped, REDUCING while there is any cause, else ACTIVE.

    Causes: "stopped" and "node" until `StartTrading`; "drawdown" while the orange tier lasts; "reconcile" until the next
    comparison, "discrepancy" until a clean one; "jump" until a clean one some time after it, or trading starts; "clock" until
    it is no longer said to be wrong; "pair ..." until that strategy is flat or trading starts. Three of them trip when they
    last: "reconcile" and "clock" for too long, "jump" when a comparison does not explain it.
    """

    def __init__(
        self, config: RiskConfig, strategies: Mapping[str, StrategyLimits], kill: KillSwitch, desk: Desk
    ) -> None:
        self.state = RiskState()
        self._config = config
        self._reconciler = config.reconciler
        self._strategies = strategies
        self._kill = kill
        self._desk = desk
        self._jump_price_move = exact(config.kill_switch.jump_price_move)
        self._lag = round(config.reconcile_lag_s * SECOND)
        self._lag_trip = round(config.reconcile_trip_s * SECOND)
        self._jump_judged = round(config.kill_switch.jump_judged_s * SECOND)
        self._skew_trip = round(config.kill_switch.skew_trip_s * SECOND)
        self._skew_calm = round(config.kill_switch.skew_calm_s * SECOND)
        self._backoff = round(config.flatten_backoff_s * SECOND)
        self._backoff_max = round(config.flatten_backoff_max_s * SECOND)

    def announce(self, reason: str = "") -> Iterator[Consequence]:
        """Say the trading state if it is no longer what was last said."""
        state = self.state
        if state.kill.tripped or not state.started:
            trading = TradingState.HALTED
        else:
            trading = TradingState.REDUCING if state.reducing else TradingState.ACTIVE
        if trading is not state.trading:
            state.trading = trading
            yield TradingStateChanged(
                trading, reason or next(iter(state.reducing.values()), "nothing stands against it")
            )

    def reduce(self, cause: str, reason: str) -> Iterator[Consequence]:
        self.state.reducing[cause] = reason
        yield from self.announce()

    # --- what it is told ------------------------------------------------------------------------

    def equity(self, message: EquityChanged, now: int) -> Iterable[Consequence]:
        """Take the account's worth; one whose marks are not known is no worth at all."""
        state = self.state
        if not message.marks_known:
            state.equity = None
            return ()
        equity = message.equity
        # Until trading starts it is for the reconciler to find out what the account is worth.
        jump = self._kill.jumped(equity) if state.started else None
        if jump is not None and jump > self._jump_price_move * self._gross():
            state.reducing["jump"] = f"equity went from {state.kill.equity} to {equity} without a fill"
            state.ts_jumped = now
        tier = state.kill.tier
        trip = self._kill.mark(equity, now)
        state.equity = equity
        day = now // DAY
        if day != state.day or state.day_equity <= ZERO:
            state.day = day
            state.day_equity = equity
        if state.kill.tier is not tier:
            return (*self._judge(trip, now), *self._scaled(tier))
        if trip is not None or state.reducing or tier is ORANGE:
            return self._judge(trip, now)
        return ()

    def _scaled(self, before: Tier) -> Iterator[Consequence]:
        """Say that sizes are scaled down from now on, or no longer: a size that shrinks unsaid misleads."""
        state = self.state
        if state.kill.tier is YELLOW:
            scale = self._config.kill_switch.yellow_scale
            yield TradingStateChanged(state.trading, f"drawdown {state.kill.drawdown:.2%}: sizes times {scale:g}")
        elif before is YELLOW and state.kill.tier is not ORANGE:
            yield TradingStateChanged(state.trading, "the drawdown has passed: sizes in full")

    def check(self, now: int) -> Iterator[Consequence]:
        """Judge again as time has passed."""
        state = self.state
        tier = state.kill.tier
        trip = self._kill.check(now, confirmable=not state.stale)
        due = self.reconcile_due()
        if due is not None and now >= due:
            state.reducing["reconcile"] = f"no comparison with the venue for {self._config.reconcile_lag_s:g} s"
        if state.skew is not None and now >= state.skew.last + self._skew_calm:
            state.skew = None
            state.reducing.pop("clock", None)
        overdue = self._reconcile_overdue()
        if trip is None and overdue is not None and now >= overdue:
            limit = f"{self._config.reconcile_trip_s:g} s"
            trip = self._kill.trip("RECONCILE", "no comparison with the venue", limit)
        yield from self._judge(trip, now)
        if state.kill.tier is not tier:
            yield from self._scaled(tier)

    def wake(self, now: int) -> Iterator[Consequence]:
        yield from self.check(now)
        flattening = self.state.flattening
        if flattening is not None and flattening.next_at is not None and now >= flattening.next_at:
            if flattening.denied or self._desk.resting():
                yield CancelAll(strategy="")  # the last one may have come to nothing
            yield from self._flatten(flattening, now)

    def wake_at(self) -> int | None:
        state = self.state
        alarm, flattening, skew = state.kill.alarm, state.flattening, state.skew
        if alarm is None and flattening is None and skew is None and not self._reconciler:
            return None
        times = (
            alarm,
            self.reconcile_due(),
            self._reconcile_overdue(),
            skew.last + self._skew_calm if skew is not None else None,
            flattening.next_at if flattening is not None else None,
        )
        return min((time for time in times if time is not None), default=None)

    def reconcile_due(self) -> int | None:
        """When the lag of reconciliation becomes a cause; None where none runs, or it is one already."""
        state = self.state
        if not self._reconciler or state.ts_reconciled is None or "reconcile" in state.reducing:
            return None
        return state.ts_reconciled + self._lag

    def _reconcile_overdue(self) -> int | None:
        """When that lag trips the switch: not before trading has had as long to see one."""
        since = unreconciled_since(self.state) if self._reconciler else None
        return None if since is None else since + self._lag_trip

    def reconciled(self, message: ReconcileCompleted, now: int) -> Iterator[Consequence]:
        state = self.state
        state.ts_reconciled = now
        state.reducing.pop("reconcile", None)
        jumped = state.reducing.get("jump")
        judged = jumped is not None and now - (state.ts_jumped or 0) >= self._jump_judged
        if message.discrepancies == 0:
            state.reducing.pop("discrepancy", None)
            if judged:
                del state.reducing["jump"]
            self._desk.agreed(now)
        elif judged and jumped is not None:
            limit = "books that agree with the venue's"
            yield from self._tripped(self._kill.trip("JUMP", jumped, limit), now)
        flattening = state.flattening
        if flattening is not None and flattening.verifying:
            if message.flat:
                state.flattening = None
            else:
                flattening.denied = True
        yield from self._finished()
        yield from self.announce()

    def reported(self, message: ErrorReported, now: int) -> Iterator[Consequence]:
        """Count an error that a node reports, unless an ordinary day brings it; a clock that is wrong is a cause by itself."""
        if message.kind == "clock skew":
            yield from self._skewed(message.detail, now)
        elif message.kind not in self._config.kill_switch.noted:
            yield from self.error(now)

    def _skewed(self, detail: str, now: int) -> Iterator[Consequence]:
        state = self.state
        if state.skew is None or now - state.skew.last >= self._skew_calm:
            state.skew = Skew(now, now)
        state.skew.last = now
        state.reducing["clock"] = detail
        if state.started and now - state.skew.since >= self._skew_trip:
            limit = f"right again within {self._config.kill_switch.skew_trip_s:g} s"
            yield from self._tripped(self._kill.trip("CLOCK", detail, limit), now)
        yield from self.announce()

    def rejected(self, order_id: str, reason: str, now: int) -> Iterator[Consequence]:
        """An order that the venue refused is an error, unless an ordinary day brings it."""
        plain = reason.lower().replace("_", " ")
        if not plain.startswith(self._config.kill_switch.excused):
            yield from self.error(now, order_id)

    def error(self, now: int, order_id: str = "") -> Iterator[Consequence]:
        yield from self._tripped(self._kill.error(now, order_id), now)

    def node_failed(self, message: NodeFailed, now: int) -> Iterator[Consequence]:
        """A strategy is begun anew alone, its orders called back; without a node of the core what we know is not whole."""
        if message.node in self._strategies:
            yield CancelAll(message.node)
        elif message.node not in LOOKERS_ON:
            self.state.reducing["node"] = f"{message.node} failed: {message.reason}"
        yield from self._tripped(self._kill.death(now), now)
        yield from self.announce()

    def epoch(self, message: EpochBegan, now: int) -> Iterator[Consequence]:
        """A new life begins: HALTED until started, entry orders called back. What was latched or being closed goes on.

        Closing waits until the broker has said what is still under way.
        """
        state = self.state
        if message.epoch > state.epoch:
            state.epoch, state.issued = message.epoch, 0
        state.started = False
        if state.finishing:
            state.reducing["stopped"], state.finishing = state.finishing, ""
        state.reducing.pop("node", None)
        state.stale.clear()  # the feed begins anew too, and says what it cannot see
        state.ts_reconciled = None
        self._desk.restart()
        flattening = state.flattening
        if flattening is not None and flattening.next_at is not None:
            flattening.verifying = flattening.denied = False
            flattening.next_at = now + self._backoff_max
        yield from self.announce(f"life {message.epoch} of the core began")
        yield CancelAll(strategy="")

    def restated(self, now: int) -> None:
        """The broker has said what is under way: closing goes on once the portfolio has had its say too."""
        flattening = self.state.flattening
        if flattening is not None and flattening.next_at is not None:
            flattening.next_at = min(flattening.next_at, now + self._backoff)

    def pull(self, message: PullKillSwitch, now: int) -> Iterator[Consequence]:
        """A person pulls the switch; who and why is kept, and not waited for. Pulled again, it closes everything anew."""
        measured = f"{message.person.strip() or 'nobody named'}: {message.reason.strip() or 'no reason given'}"
        trip = self._kill.trip("PERSON", measured, "a person's word")
        if trip is not None:
            yield from self._tripped(trip, now)
        else:
            yield CancelAll(strategy="")
            yield from self._begin_flattening(now)

    def start(self, message: StartTrading, now: int) -> Iterator[Consequence]:
        """Trade, unless the switch is latched. What was being closed for a stop, or was to end, is no longer."""
        state = self.state
        if state.kill.tripped:
            return
        ending = bool(state.finishing)
        state.started = True
        state.ts_started = now
        state.flattening = None
        state.finishing = ""
        self._desk.started()
        if state.ts_reconciled is None:
            state.ts_reconciled = now
        state.reducing = {cause: why for cause, why in state.reducing.items() if cause in KEPT}
        why = _by("started", message.person, message.reason)
        if ending and not state.reducing and state.trading is TradingState.ACTIVE:
            yield TradingStateChanged(state.trading, why)  # it was last said to come to its end
        else:
            yield from self.announce(why)

    def stop(self, message: StopTrading, now: int) -> Iterator[Consequence]:
        """Open nothing more: at once, or as soon as what is under way has finished."""
        state = self.state
        why = _by("stopped", message.person, message.reason)
        if message.finish and not message.flatten and state.trading is TradingState.ACTIVE and self._under_way():
            state.finishing = why
            yield TradingStateChanged(state.trading, f"{why}; what is under way may finish")
            return
        state.finishing = ""
        yield from self.reduce("stopped", why)
        yield CancelAll(strategy="")
        if message.flatten:
            yield from self._begin_flattening(now)

    def switch(self, message: SwitchStrategy, now: int) -> Iterator[Consequence]:
        """Let a strategy open positions, or call back what it is opening and refuse the rest. What it holds it may close.

        The same word again is no news: each start repeats it.
        """
        state, strategy = self.state, message.strategy
        off = state.off.get(strategy)
        last = None if off is None else (off.person, off.reason)
        wanted = None if message.on else (message.person, message.reason)
        if strategy not in self._strategies or wanted == last:
            return
        if message.on:
            state.off.pop(strategy, None)
        else:
            state.off[strategy] = Off(message.person, message.reason, now)
        yield StrategySwitched(strategy, message.on, message.person, message.reason)
        if not message.on:
            yield CancelAll(strategy)

    def reset(self, message: KillSwitchReset, now: int) -> Iterator[Consequence]:
        """Put the switch back, if a person says why: positions may be reduced, and `StartTrading` does the rest."""
        state = self.state
        tripped = bool(state.kill.tripped)
        if not self._kill.reset(message.person, message.reason, now):
            return
        state.kill = self._kill.state
        state.reducing.pop("drawdown", None)
        if tripped:
            state.started = True
            state.ts_started = now
            state.flattening = None
            state.reducing["stopped"] = f"reset by {message.person}: {message.reason}"
        yield from self.announce()

    def settled(self, strategy: str, now: int) -> Iterator[Consequence]:
        """Something of `strategy` has come to rest: see what waited for that."""
        state = self.state
        busy = any(slot.pending or slot.held for slot in state.slots[strategy].values())
        if not busy and state.reducing.pop(f"pair {strategy}", None) is not None:
            yield from self.announce()
        yield from self._finished()
        flattening = state.flattening
        if flattening is not None and not flattening.verifying and self._desk.flat():
            yield from self._flatten(flattening, now)

    # --- what follows ---------------------------------------------------------------------------

    def _judge(self, trip: Trip | None, now: int) -> Iterator[Consequence]:
        state = self.state
        if state.kill.tier is ORANGE:
            state.reducing["drawdown"] = f"drawdown {state.kill.drawdown:.2%}"
        else:
            state.reducing.pop("drawdown", None)
        yield from self._tripped(trip, now)
        yield from self.announce()

    def _under_way(self) -> bool:
        """Whether any strategy's order or pair has not come to its end."""
        slots = self.state.slots
        return any(slot.pending for name in self._strategies for slot in slots.get(name, {}).values())

    def _finished(self) -> Iterator[Consequence]:
        """If trading was to end once nothing is under way any more, and nothing is: end it."""
        state = self.state
        if state.finishing and not self._under_way():
            why, state.finishing = state.finishing, ""
            yield from self.reduce("stopped", why)

    def _tripped(self, trip: Trip | None, now: int) -> Iterator[Consequence]:
        if trip is None:
            return
        self.state.started = False
        self.state.finishing = ""
        yield KillSwitchTripped(trip.cause, trip.measured, trip.limit)
        yield from self.announce(trip.cause)
        yield CancelAll(strategy="")
        yield from self._begin_flattening(now)

    def _begin_flattening(self, now: int) -> Iterator[Consequence]:
        self.state.flattening = flattening = Flattening(next_at=None, backoff=self._backoff)
        yield from self._flatten(flattening, now)

    def _flatten(self, flattening: Flattening, now: int) -> Iterator[Consequence]:
        """Close what strategies hold and is not yet being closed; once nothing is, ask the venue whether that is so.

        Pairs are closed as pairs, twice; after that each leg by itself. When `flatten_attempts` have not
        sufficed, the switch says so, and a person has to act.
        """
        state, desk = self.state, self._desk
        flattening.next_at = now + flattening.backoff
        flattening.backoff = min(2 * flattening.backoff, self._backoff_max)
        if desk.flat():
            flattening.denials += flattening.denied
            flattening.verifying, flattening.denied = True, False
            if flattening.denials >= self._config.flatten_attempts:
                yield from self._give_up(flattening, "the venue shows something left", flattening.denials)
                return
            if not self._reconciler:
                state.flattening = None
            yield VerifyFlat()
            return
        flattening.verifying = flattening.denied = False
        exhausted = flattening.attempts >= self._config.flatten_attempts
        sent = False
        for strategy, places in state.slots.items():
            held = [] if strategy == RESERVE else [slot for slot in places.values() if desk.tradable(slot)]
            if not held or any(slot.pending and not desk.lost(slot) for slot in places.values()):
                continue
            sent = True
            if not exhausted:
                yield from desk.close(held, as_pairs=flattening.attempts < 2)
        if sent and exhausted:
            yield from self._give_up(flattening, "positions are left", flattening.attempts)
        flattening.attempts += sent

    def _give_up(self, flattening: Flattening, measured: str, attempts: int) -> Iterator[Consequence]:
        """Try no more: a person has to act."""
        state = self.state
        flattening.next_at = None
        state.kill.tripped = state.kill.tripped or "FLATTEN"
        state.started = False
        yield KillSwitchTripped("FLATTEN", measured, f"{attempts} attempts")
        yield from self.announce("FLATTEN")

    def _gross(self) -> Decimal:
        """The value of all that moves the equity, the reserve's coins as well."""
        slots = (slot for places in self.state.slots.values() for slot in places.values())
        return sum((slot.value for slot in slots), Decimal(0))


def unreconciled_since(state: RiskState) -> int | None:
    """Since when trading has waited for a comparison with the venue; None where it does not trade, or never saw one."""
    if not state.started or state.kill.tripped or state.ts_reconciled is None:
        return None
    return max(state.ts_reconciled, state.ts_started)


def _by(what: str, person: str, reason: str) -> str:
    """What somebody did, who it was and why, as far as that is known."""
    return (f"{what} by {person}" if person else what) + (f": {reason}" if reason else "")
