"""Whether to trade at all: the trading state, what the kill switch sets going, and closing everything."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import TypeAlias

from hean.messages import (
    CancelAll,
    EquityChanged,
    KillSwitchReset,
    KillSwitchTripped,
    NodeFailed,
    ReconcileCompleted,
    SubmitOrder,
    SubmitPair,
    TradingState,
    TradingStateChanged,
    VerifyFlat,
)
from hean.risk.config import RiskConfig, StrategyLimits, exact
from hean.risk.desk import Desk
from hean.risk.killswitch import ORANGE, YELLOW, KillSwitch, Tier, Trip
from hean.risk.state import Flattening, RiskState
from hean.units import DAY, SECOND

Consequence: TypeAlias = TradingStateChanged | KillSwitchTripped | CancelAll | SubmitOrder | SubmitPair | VerifyFlat


class Control:
    """Trading is HALTED until started and once the switch has tripped, REDUCING while there is any cause, else ACTIVE.

    Causes: "stopped" and "node" until `StartTrading`; "drawdown" while the orange tier lasts; "reconcile" until the next
    comparison, "discrepancy" until a clean one; "jump" until either; "pair ..." until that strategy is flat or trading starts.
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
        jump = self._kill.jumped(equity)
        if jump is not None and jump > self._jump_price_move * self._gross():
            state.reducing["jump"] = f"equity went from {state.kill.equity} to {equity} without a fill"
        tier = state.kill.tier
        trip = self._kill.mark(equity, now)
        state.equity = equity
        day = now // DAY
        if day != state.day:
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
        yield from self._judge(trip, now)
        if state.kill.tier is not tier:
            yield from self._scaled(tier)

    def wake(self, now: int) -> Iterator[Consequence]:
        yield from self.check(now)
        flattening = self.state.flattening
        if flattening is not None and flattening.next_at is not None and now >= flattening.next_at:
            yield from self._flatten(flattening, now)

    def wake_at(self) -> int | None:
        state = self.state
        alarm, flattening = state.kill.alarm, state.flattening
        if alarm is None and flattening is None and not self._reconciler:
            return None
        times = (alarm, self.reconcile_due(), flattening.next_at if flattening is not None else None)
        return min((time for time in times if time is not None), default=None)

    def reconcile_due(self) -> int | None:
        """When the lag of reconciliation becomes a cause; None where none runs, or it is one already."""
        state = self.state
        if not self._reconciler or state.ts_reconciled is None or "reconcile" in state.reducing:
            return None
        return state.ts_reconciled + self._lag

    def reconciled(self, message: ReconcileCompleted, now: int) -> Iterator[Consequence]:
        state = self.state
        state.ts_reconciled = now
        state.reducing.pop("reconcile", None)
        if message.discrepancies == 0:
            state.reducing.pop("discrepancy", None)
            state.reducing.pop("jump", None)
            self._desk.agreed(now)
        flattening = state.flattening
        if flattening is not None and flattening.verifying and message.flat:
            state.flattening = None
        yield from self.announce()

    def error(self, now: int) -> Iterator[Consequence]:
        yield from self._tripped(self._kill.error(now), now)

    def node_failed(self, message: NodeFailed, now: int) -> Iterator[Consequence]:
        """A strategy is restarted alone; without any other node what we know is not whole."""
        if message.node.partition("@")[0] not in self._strategies:
            self.state.reducing["node"] = f"{message.node} failed: {message.reason}"
        yield from self._tripped(self._kill.death(now), now)
        yield from self.announce()

    def start(self, now: int) -> Iterator[Consequence]:
        """Trade, unless the switch is latched. What was being closed for a stop is no longer."""
        state = self.state
        if state.kill.tripped:
            return
        state.started = True
        state.flattening = None
        if state.ts_reconciled is None:
            state.ts_reconciled = now
        state.reducing = {
            cause: why for cause, why in state.reducing.items() if cause in {"drawdown", "reconcile", "discrepancy"}
        }
        yield from self.announce("started")

    def stop(self, now: int, *, flatten: bool) -> Iterator[Consequence]:
        yield from self.reduce("stopped", "stopped")
        yield CancelAll(strategy="")
        if flatten:
            yield from self._begin_flattening(now)

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
            state.flattening = None
            state.reducing["stopped"] = f"reset by {message.person}: {message.reason}"
        yield from self.announce()

    def settled(self, strategy: str, now: int) -> Iterator[Consequence]:
        """Something of `strategy` has come to rest: see what waited for that."""
        state = self.state
        busy = any(slot.pending or slot.held for slot in state.slots[strategy].values())
        if not busy and state.reducing.pop(f"pair {strategy}", None) is not None:
            yield from self.announce()
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

    def _tripped(self, trip: Trip | None, now: int) -> Iterator[Consequence]:
        if trip is None:
            return
        self.state.started = False
        yield KillSwitchTripped(trip.cause, trip.measured, trip.limit)
        yield from self.announce(trip.cause)
        yield CancelAll(strategy="")
        yield from self._begin_flattening(now)

    def _begin_flattening(self, now: int) -> Iterator[Consequence]:
        self.state.flattening = flattening = Flattening(next_at=None, backoff=self._backoff)
        yield from self._flatten(flattening, now)

    def _flatten(self, flattening: Flattening, now: int) -> Iterator[Consequence]:
        """Close what is held and not yet being closed; once nothing is, ask the venue whether that is so.

        Pairs are closed as pairs, twice; after that each leg by itself. When `flatten_attempts` have not
        sufficed, the switch says so, and a person has to act.
        """
        state, desk = self.state, self._desk
        flattening.next_at = now + flattening.backoff
        flattening.backoff = min(2 * flattening.backoff, self._backoff_max)
        if desk.flat():
            flattening.verifying = True
            if not self._reconciler:
                state.flattening = None
            yield VerifyFlat()
            return
        flattening.verifying = False
        exhausted = flattening.attempts >= self._config.flatten_attempts
        sent = False
        for places in state.slots.values():
            held = [slot for slot in places.values() if desk.tradable(slot)]
            if not held or any(slot.pending and not desk.lost(slot) for slot in places.values()):
                continue
            sent = True
            if not exhausted:
                yield from desk.close(held, as_pairs=flattening.attempts < 2)
        if sent and exhausted:
            flattening.next_at = None
            state.kill.tripped = state.kill.tripped or "FLATTEN"
            state.started = False
            yield KillSwitchTripped("FLATTEN", "positions are left", f"{flattening.attempts} attempts")
            yield from self.announce("FLATTEN")
        flattening.attempts += sent

    def _gross(self) -> Decimal:
        slots = (slot for places in self.state.slots.values() for slot in places.values())
        return sum((slot.value for slot in slots), Decimal(0))
