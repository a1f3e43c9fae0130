"""An engine that only pretends: all that HTTP may ask, answered from a market that is made up and moves with the clock.

What befalls orders it tells a real monitor, so that counts, orders and positions agree with one another as in a run.
"""

import math
import time
from collections.abc import Mapping
from decimal import Decimal
from random import Random
from typing import Any

from msgspec.structs import replace

from actors import views
from actors.http.port import LateError, NoEngineError, NoSuchError
from actors.process_factory import OFFERED, ProcessView
from actors.words import (
    ActorView,
    Arming,
    ConsumerFigures,
    EngineView,
    FeedFigures,
    History,
    LimitUse,
    Phase,
    Picture,
    StrategyCard,
    Voice,
)
from hean.errors import ConfigError, HeanError
from hean.messages import (
    CapitalAllocated,
    Discrepancy,
    DiscrepancyKind,
    EpochBegan,
    EquityChanged,
    ErrorReported,
    FeedLive,
    FundingSettled,
    KillSwitchTripped,
    Liquidity,
    NodeFailed,
    NodeStarted,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    OrderSubmitted,
    PairFinished,
    PositionChanged,
    ProfitParts,
    ProfitsStated,
    ReconcileCompleted,
    Severity,
    Side,
    SignalRefused,
    TradingState,
    TradingStateChanged,
)
from hean.monitor import PARTS, Monitor
from hean.processes.runs import RunStatus, RunView, StepView
from hean.trips import RoundTrip
from hean.units import HOUR, MINUTE, SECOND

BTC, ETH = "BTCUSDT-LINEAR.BYBIT", "ETHUSDT-LINEAR.BYBIT"
BTC_SPOT, ETH_SPOT = "BTCUSDT-SPOT.BYBIT", "ETHUSDT-SPOT.BYBIT"
HARVEST, BASIS, IMPULSE = "funding-harvester", "basis-arbitrage", "impulse"
LEVEL = {BTC: 64_000.0, BTC_SPOT: 63_980.0, ETH: 3_200.0, ETH_SPOT: 3_199.0}
PAIRS = {HARVEST: (BTC, BTC_SPOT, Decimal("0.05")), BASIS: (ETH, ETH_SPOT, Decimal("0.8"))}
PHRASE = "I accept real losses"
PAST_S = 2 * 3600
STEP_S = 60
BROUGHT_IN = Decimal(100_000)
FEE = Decimal("0.00055")


class FakeEngine:
    """The port, over a made-up run that began two hours ago.

    Args:
        seed: Of the market; the same seed makes the same past.
        now: The clock, in UTC nanoseconds.

    Attributes:
        told: What was wished, as (method, arguments by name); the newest last.
        failure: Raised by whatever is asked next and after, until it is None again.
    """

    def __init__(self, seed: int = 7, now: Any = time.time_ns) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.failure: Exception | None = None
        self.phase = Phase.RUNNING
        self.enabled = {HARVEST: True, BASIS: True, IMPULSE: False}
        self.config: dict[str, dict[str, Any]] = {
            HARVEST: {"name": HARVEST, "symbols": ["BTCUSDT"], "enter_bp": 1.0, "exit_bp": 0.2, "min_settlements": 3},
            BASIS: {"name": BASIS, "symbols": ["ETHUSDT"], "enter_z": 2.0, "exit_z": 0.5, "max_hold_h": 24.0},
            IMPULSE: {"name": IMPULSE, "symbols": ["BTCUSDT", "ETHUSDT"], "trigger": 2.5, "hold_min": 15.0},
        }
        self._now = now
        self._chance = Random(seed)
        self._monitor = Monitor()
        self._ts = now() - PAST_S * SECOND
        self._began = self._ts
        self._orders = 0
        self._price = dict(LEVEL)
        self._entry: dict[tuple[str, str], tuple[Decimal, Decimal]] = {}
        self._parts = {name: dict.fromkeys(PARTS, Decimal(0)) for name in (*PAIRS, IMPULSE, "")}
        self._trips: list[RoundTrip] = []
        self._stopped: str | None = None
        self._nonce = ""
        self._armed: int | None = None
        self._runs = {run.run_id: run for run in _runs(self._ts)}
        self._begin()
        self._advance()

    # --- what the port asks ---------------------------------------------------------------------

    async def picture(self) -> Picture:
        self._must_answer()
        self._advance()
        now, state = self._now(), self._monitor.state
        names = [*PAIRS, IMPULSE]
        voices = {
            HARVEST: Voice(41_230, 4, ("met: three settlements above 1 bp", "waits for: the basis below its median")),
            BASIS: Voice(83_011, 9, ("met: half-life below 24 h", "waits for: a deviation of 2.0 (now 1.3)")),
            IMPULSE: Voice(120_554, 31, ("waits for: a move of 2.5 sigma (now 0.7)",)),
        }
        blocked = () if self._stopped is None else (self._stopped,)
        tripped = state.tripped
        view = EngineView(
            ts=now,
            venue="sandbox",
            phase=self.phase,
            epoch=state.epoch or 0,
            trading=state.trading.state if state.trading is not None else None,
            reason=state.trading.reason if state.trading is not None else "",
            blocked=blocked,
            tripped=f"{tripped.cause}: {tripped.measured}" if tripped is not None else "",
            equity=state.equity.equity if state.equity is not None else None,
            equity_age_s=(now - state.equity.ts) / SECOND if state.equity is not None else None,
            marks_known=state.equity.marks_known if state.equity is not None else None,
            reconcile_lag_s=self._monitor.reconcile_lag_s(now),
            discrepancies=state.reconciliation.discrepancies,
            recovery_s=4.2,
            dry_run=False,
            permit=("venue is sandbox: say --venue live, or HEAN_VENUE=live",),
            actors=self._actors(now),
            positions=views.positions(state, now, self._price),
            errors={node: {kind: one.count for kind, one in of.items()} for node, of in state.errors.items()},
        )
        return Picture(
            view=view,
            monitor=views.shown(state),
            why=tuple(views.why(state, names, voices, blocked, now)),
            limits=self._limits(now),
            strategies=tuple(self._card(name, now) for name in names),
            feeds=tuple(
                FeedFigures(name, True, 0.05 + self._wave(3, place), {"quote": 0.05, "mark": 0.4}, 90_000 + place, 412)
                for place, name in enumerate(LEVEL)
            ),
            consumers=tuple(ConsumerFigures(name, 40_000, 120, 1) for name in names),
        )

    async def history(self) -> History:
        self._must_answer()
        self._advance()
        state = self._monitor.state
        return History(self._now(), tuple(state.curve), tuple(reversed(state.fills)), tuple(reversed(self._trips)))

    async def start(self, *, person: str, trace: str) -> str:
        self._hear("start", person=person, trace=trace)
        if self._monitor.state.tripped is None:
            self._stopped = None
            self._tell(TradingStateChanged(TradingState.ACTIVE, "started"))
        return "trading begins as soon as nothing stands against it"

    async def stop(self, *, flatten: bool, finish: bool, person: str, reason: str, trace: str) -> str:
        self._hear("stop", flatten=flatten, finish=finish, person=person, reason=reason, trace=trace)
        self._stopped = "trading was stopped by a person: `hean start` begins it"
        self._tell(TradingStateChanged(TradingState.REDUCING, "stopped by a person"))
        if flatten:
            self._flatten()
            return "closing everything"
        return "what is under way may finish, nothing new is opened" if finish else "nothing more is opened"

    async def kill(self, person: str, reason: str, *, trace: str) -> str:
        self._hear("kill", person=person, reason=reason, trace=trace)
        self._tell(KillSwitchTripped("a person", f"{person}: {reason}", ""))
        self._tell(TradingStateChanged(TradingState.HALTED, "the kill switch was pulled"))
        self._stopped = "the kill switch was tripped by a person: `hean reset` puts it back"
        self._flatten()
        return "the kill switch is pulled: everything is cancelled and closed, and it stays so until a person resets it"

    async def reset(self, person: str, reason: str, *, trace: str) -> str:
        self._hear("reset", person=person, reason=reason, trace=trace)
        if self._monitor.state.tripped is None:
            raise HeanError("the kill switch is not pulled: there is nothing to put back")
        self._tell(TradingStateChanged(TradingState.REDUCING, "the kill switch was put back"))
        self._stopped = "trading was stopped by a person: `hean start` begins it"
        return "the kill switch is put back: `hean start` begins trading"

    async def arm(self, person: str, *, nonce: str, phrase: str, trace: str) -> Arming:
        self._hear("arm", person=person, trace=trace)
        bound = {"account": "9f2c11aa", "settings": "c0ffee42"}
        if not nonce:
            self._nonce = f"{self._chance.getrandbits(128):032x}"
            return Arming(
                granted=False,
                said="type the phrase within a minute",
                nonce=self._nonce,
                nonce_s=60.0,
                phrase=PHRASE,
                allowed={"gross exposure": "2.0 of the equity", "daily loss": "3 %"},
                **bound,
            )
        known, self._nonce = self._nonce, ""
        if not known or nonce != known or phrase != PHRASE:
            raise HeanError("that is not the nonce or not the phrase: begin again without either")
        self._armed = self._now() + 24 * HOUR
        return Arming(granted=True, said="live trading is armed for a day", until=self._armed, **bound)

    async def switch(self, strategy: str, *, on: bool, person: str, reason: str, trace: str) -> str:
        self._hear("switch", strategy=strategy, on=on, person=person, reason=reason, trace=trace)
        self._must_know(strategy)
        self.enabled[strategy] = on
        return f"{strategy} may open positions" if on else f"{strategy} opens nothing more"

    async def configure(
        self, strategy: str, changes: Mapping[str, Any], *, person: str, reason: str, trace: str
    ) -> str:
        self._hear("configure", strategy=strategy, changes=dict(changes), person=person, reason=reason, trace=trace)
        self._must_know(strategy)
        unknown = [name for name in changes if name not in self.config[strategy]]
        if unknown:
            raise ConfigError(f"{unknown[0]}: no such setting; known: {', '.join(self.config[strategy])}")
        self.config[strategy] |= changes
        return f"{strategy} is begun anew with {', '.join(changes)}"

    async def processes(self) -> list[ProcessView]:
        self._must_answer()
        return [ProcessView(one.name, one.version, one.about, one.takes, one.further) for one in OFFERED]

    async def runs(self) -> list[RunView]:
        self._must_answer()
        self._go_on()
        return sorted(self._runs.values(), key=lambda run: -run.ts_asked)

    async def run(self, run_id: str) -> RunView:
        self._must_answer()
        self._go_on()
        if run_id not in self._runs:
            raise NoSuchError(f"there is no run {run_id}: /processes lists them")
        return self._runs[run_id]

    async def request(self, process: str, arguments: Mapping[str, str], *, key: str) -> str:
        self._hear("request", process=process, arguments=dict(arguments), key=key)
        known = {one.name: one for one in OFFERED} | {"evaluate": None}
        if process not in known:
            raise ConfigError(f"process {process!r} is unknown: there are {', '.join(known)}")
        run_id = f"{process}@{key}" if key else f"{process}-{len(self._runs) + 1}"
        if run_id not in self._runs:
            now = self._now()
            step = StepView("run", "RUNNING", 1, now, None, "", None)
            self._runs[run_id] = RunView(
                run_id, process, 1, dict(arguments), RunStatus.RUNNING, "", "", now, now, None, (step,)
            )
        return run_id

    async def cancel(self, run_id: str, person: str, reason: str) -> RunView:
        self._hear("cancel", run_id=run_id, person=person, reason=reason)
        run = await self.run(run_id)
        if run.status is RunStatus.CANCELED:
            return run
        if run.status in {RunStatus.COMPLETED, RunStatus.FAILED}:
            raise ConfigError(f"run {run_id} is over already: {run.status}")
        self._runs[run_id] = replace(
            run, status=RunStatus.CANCELED, reason=f"by {person}: {reason}", waits_for="", ts_ended=self._now()
        )
        return self._runs[run_id]

    async def decide(self, run_id: str, person: str, reason: str, *, again: bool) -> RunView:
        self._hear("decide", run_id=run_id, person=person, reason=reason, again=again)
        run = await self.run(run_id)
        if run.status is not RunStatus.WAITING:
            raise ConfigError(f"run {run_id} waits for nobody's decision: it is {run.status}")
        status = RunStatus.RUNNING if again else RunStatus.FAILED
        self._runs[run_id] = replace(run, status=status, reason="" if again else f"given up by {person}", waits_for="")
        return self._runs[run_id]

    # --- the made-up run ------------------------------------------------------------------------

    def _begin(self) -> None:
        for node in ("core", "feed", "risk", "broker", "portfolio", "reconciler", "monitor", "venue", *PAIRS, IMPULSE):
            self._tell(NodeStarted(node))
        self._tell(EpochBegan(7))
        self._tell(TradingStateChanged(TradingState.ACTIVE, "started"))
        for name in (*PAIRS, IMPULSE):
            self._tell(CapitalAllocated(name, Decimal("0.3333")))
        for name in LEVEL:
            self._tell(FeedLive(name))
        for owner, quantity in ((BTC_SPOT, "1"), (ETH_SPOT, "10")):
            self._tell(PositionChanged("", owner, Decimal(quantity), Decimal(0), Decimal(0)))
        for strategy, (perp, spot, quantity) in PAIRS.items():
            self._trade(strategy, perp, Side.SELL, quantity, Liquidity.MAKER)
            self._trade(strategy, spot, Side.BUY, quantity, Liquidity.TAKER)
            self._tell(PairFinished(f"{strategy}:1", strategy, "done", "opened"))
        self._tell(OrderRejected(self._submit(IMPULSE, BTC, Side.BUY), IMPULSE, BTC, "insufficient margin (110007)"))
        self._tell(OrderOutcomeUnknown(self._submit(BASIS, ETH, Side.SELL), BASIS, ETH, "no answer within 2 s"))
        self._tell(OrderExpired(self._submit(HARVEST, BTC, Side.SELL), HARVEST, BTC, "post-only would have taken"))
        self._tell(OrderCanceled(self._submit(BASIS, ETH_SPOT, Side.BUY), BASIS, ETH_SPOT, "repriced"))
        self._tell(ErrorReported("venue", "TimeoutError", "no answer within 2 s"))
        self._tell(NodeFailed("impulse", "its process was killed"))
        self._tell(NodeStarted("impulse"))
        self._tell(Discrepancy(DiscrepancyKind.FEE, Severity.LOW, "8f21c0", "0.0312", "0.0331"))

    def _advance(self) -> None:
        """Let everything happen up to now, a minute at a time; of the minute that runs, prices alone."""
        now = self._now()
        while self._ts + STEP_S * SECOND <= now:
            self._ts += STEP_S * SECOND
            self._minute()
        self._move(0.02)
        self._equity(now)

    def _minute(self) -> None:
        chance = self._chance
        self._move(1.0)
        self._tell(ReconcileCompleted(self._orders, 0, flat=False))
        for strategy, rule, measured, limit in (
            (IMPULSE, "PRICE_COLLAR", "1.2 %", "1 %"),
            (BASIS, "SYMBOL_EXPOSURE", "26.1 %", "25 %"),
            (IMPULSE, "ORDER_RATE", "61 a minute", "60"),
        ):
            if chance.random() < 0.2:
                self._tell(SignalRefused(strategy, BTC, rule, measured, limit))
        if self._stopped is not None:
            return
        if chance.random() < 0.6:
            self._round_trip(chance.choice((BTC, ETH)), chance.choice((Side.BUY, Side.SELL)))
        if chance.random() < 0.5:
            name, side = chance.choice((BTC, ETH)), chance.choice((Side.BUY, Side.SELL))
            order = self._submit(HARVEST, name, side)
            self._tell(OrderAccepted(order, HARVEST, name, f"v-{order}"))
            if chance.random() < 0.8:
                self._tell(OrderCanceled(order, HARVEST, name, "repriced"))
        if self._orders % 30 == 0:
            amount = Decimal("0.41")
            settled = FundingSettled(
                f"f{self._orders}", BTC, Decimal("-0.05"), Decimal("0.0001"), Decimal(64_000), amount, self._ts
            )
            self._tell(settled)
            self._parts[HARVEST]["funding"] += amount

    def _round_trip(self, name: str, side: Side) -> None:
        quantity = Decimal("0.01") if name == BTC else Decimal("0.2")
        entry = self._trade(IMPULSE, name, side, quantity, Liquidity.TAKER)
        self._move(1.0)
        closed = self._trade(
            IMPULSE, name, side.other, quantity, Liquidity.TAKER, closed_by=self._chance.choice(("", "stop"))
        )
        fees = (entry.price + closed.price) * quantity * FEE
        gross = (closed.price - entry.price) * quantity * side
        self._parts[IMPULSE]["price"] += gross
        self._trips.append(
            RoundTrip(
                strategy=IMPULSE,
                instruments=(name,),
                side="long" if side is Side.BUY else "short",
                quantity=quantity,
                ts_open=entry.ts_event - 9 * MINUTE,
                ts_close=closed.ts_event,
                entry_price=entry.price,
                exit_price=closed.price,
                pnl=gross - fees,
                fees=fees,
                funding=Decimal(0),
                closed_by=closed.exit or "signal",
            )
        )

    def _submit(self, strategy: str, name: str, side: Side, quantity: Decimal = Decimal("0.01")) -> str:
        self._orders += 1
        order = f"7-{strategy[:2]}{self._orders:05d}"
        self._tell(OrderSubmitted(order, strategy, name, side, quantity))
        return order

    def _trade(
        self, strategy: str, name: str, side: Side, quantity: Decimal, liquidity: Liquidity, *, closed_by: str = ""
    ) -> OrderFilled:
        order = self._submit(strategy, name, side, quantity)
        self._tell(OrderAccepted(order, strategy, name, f"v-{order}"))
        reference = self._mark(name)
        price = reference * (1 + Decimal("0.0001") * side)
        fee = price * quantity * FEE
        told = OrderFilled(
            order,
            strategy,
            name,
            f"t{self._orders:06d}",
            side,
            quantity,
            price,
            fee,
            "USDT",
            liquidity,
            reference,
            closed_by,
            self._ts,
        )
        self._tell(told)
        self._parts[strategy]["fees"] -= fee
        self._parts[strategy]["slippage"] -= (price - reference) * side * quantity
        held, _ = self._entry.get((strategy, name), (Decimal(0), Decimal(0)))
        after = held + side * quantity
        self._entry[strategy, name] = (after, price if after else Decimal(0))
        self._tell(PositionChanged(strategy, name, after, Decimal(0), price if after else Decimal(0)))
        return told

    def _flatten(self) -> None:
        self._ts = max(self._ts, self._now() - 1)
        for name, order in list(self._monitor.state.waiting_orders.items()):
            self._tell(OrderCanceled(name, order.strategy, order.instrument, "closing everything"))
        for (strategy, name), (held, _) in list(self._entry.items()):
            if held:
                side = Side.SELL if held > 0 else Side.BUY
                self._trade(strategy, name, side, abs(held), Liquidity.TAKER)

    def _equity(self, now: int) -> None:
        last = self._monitor.state.equity
        if last is not None and now - last.ts < SECOND // 2:
            return
        gains = dict.fromkeys(self._parts, Decimal(0))
        for (strategy, name), (held, entry) in self._entry.items():
            gains[strategy] += held * (self._mark(name) - entry)
        stated = {
            name: ProfitParts(
                **(parts | {"basis": parts["basis"] + gains[name]}), brought_in=BROUGHT_IN if not name else Decimal(0)
            )
            for name, parts in self._parts.items()
        }
        profit = sum((getattr(one, part) for one in stated.values() for part in PARTS), Decimal(0))
        equity = (BROUGHT_IN + profit).quantize(Decimal("0.01"))
        self._tell(ProfitsStated(stated), now)
        self._tell(EquityChanged(equity, equity - 40_000, marks_known=True), now)

    def _move(self, size: float) -> None:
        for perp, spot in ((BTC, BTC_SPOT), (ETH, ETH_SPOT)):
            step = self._chance.gauss(0, 0.0004) * size + (LEVEL[perp] / self._price[perp] - 1) * 0.01 * size
            self._price[perp] *= 1 + step
            self._price[spot] = self._price[perp] * (1 - 0.0003 * (1 + 0.3 * self._chance.gauss(0, 1)))
        if size >= 1:
            self._equity(self._ts)

    def _mark(self, name: str) -> Decimal:
        return Decimal(f"{self._price[name]:.2f}")

    def _wave(self, period_s: float, phase: float = 0.0) -> float:
        """Between 0 and 1, moving with the clock."""
        return 0.5 + 0.5 * math.sin(self._now() / SECOND * 2 * math.pi / period_s + phase)

    def _tell(self, fact: Any, ts: int | None = None) -> None:
        self._monitor.handle(fact, self._ts if ts is None else ts)

    def _hear(self, method: str, **said: Any) -> None:
        self._must_answer()
        self.told.append((method, said))

    def _must_answer(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _must_know(self, strategy: str) -> None:
        if strategy not in self.config:
            raise HeanError(f"there is no strategy {strategy}: {', '.join(self.config)}")

    def _actors(self, now: int) -> tuple[ActorView, ...]:
        kinds = {
            "monitor": "MonitorActor",
            "portfolio": "PortfolioActor",
            "reconciler": "ReconcilerActor",
            "venue": "VenueActor",
            "broker": "BrokerActor",
            "risk": "RiskManagerActor",
            "feed": "FeedActor",
            "factory": "ProcessFactoryActor",
            HARVEST: "StrategyActor",
            BASIS: "StrategyActor",
            IMPULSE: "StrategyActor",
        }
        age = (now - self._began) / SECOND
        return tuple(
            ActorView(
                name=name,
                kind=kind,
                pid=40_000 + place,
                alive=True,
                age_s=age if name != IMPULSE else age / 3,
                restarts=1 if name == IMPULSE else 0,
                lag_ms=1.5 + 8 * self._wave(11, place),
                told=int(age * (20 + 3 * place)),
                said=int(age * 2),
                detail="127.0.0.1" if name == "venue" else "",
            )
            for place, (name, kind) in enumerate(kinds.items())
        )

    def _limits(self, now: int) -> tuple[LimitUse, ...]:
        wave = self._wave
        lag = self._monitor.reconcile_lag_s(now)
        return (
            _limit("GROSS_EXPOSURE", "account", 0.62 + 0.05 * wave(60), 2.0, "share", 62_000),
            _limit("MARGIN", "account", 0.31 + 0.02 * wave(50), 0.9, "share", 31_000),
            _limit("SYMBOL_EXPOSURE", "BTC", 0.18 + 0.02 * wave(40), 0.25, "share", 18_000),
            _limit("SYMBOL_EXPOSURE", "ETH", 0.09, 0.25, "share", 9_000),
            _limit("STRATEGY_BUDGET", HARVEST, 0.8, 2.0, "share", 26_700),
            _limit("STRATEGY_BUDGET", BASIS, 0.64, 2.0, "share", 21_300),
            _limit("STRATEGY_BUDGET", IMPULSE, 0.02, 2.0, "share", 640),
            _limit("MAX_NAKED", f"{HARVEST} BTC", 0.0, 0.02, "share", 0),
            _limit("MAX_NAKED", f"{BASIS} ETH", 0.001, 0.02, "share", 97),
            _limit("DAILY_LOSS", "account", 0.0042, 0.03, "share", 420),
            _limit("DRAWDOWN", "yellow", 0.011, 0.05, "share"),
            _limit("DRAWDOWN", "orange", 0.011, 0.08, "share"),
            _limit("DRAWDOWN", "red", None, 0.10, "share"),
            _limit("ORDER_RATE", "account", float(int(12 * wave(20))), 60.0, "orders"),
            _limit("RECONCILE_LAG", "account", lag, 120.0, "s"),
            _limit("ERRORS", "account", 1.0, 10.0, "errors"),
            _limit("DEATHS", "account", 1.0, 3.0, "deaths"),
        )

    def _card(self, name: str, now: int) -> StrategyCard:
        perp, spot, _ = PAIRS.get(name, (BTC, ETH, None))
        return StrategyCard(
            name=name,
            use=name,
            enabled=self.enabled[name],
            instruments=(perp, spot),
            config=dict(self.config[name]),
            share=Decimal("0.3333"),
            sizing={"kind": "fixed", "notional": 400.0},
            ts_last_signal=now - 95 * SECOND if name != HARVEST else self._began,
            last_signal="short the perpetual, long the spot: funding pays more than it costs"
            if name == HARVEST
            else "leave",
        )

    def _go_on(self) -> None:
        """Runs that were asked for take twenty seconds."""
        now = self._now()
        for run_id, run in self._runs.items():
            if run.status is RunStatus.RUNNING and now - run.ts_asked > 20 * SECOND:
                steps = tuple(
                    replace(step, status="FINISHED", ts_ended=now, output={"trades": 12}) for step in run.steps
                )
                self._runs[run_id] = replace(run, status=RunStatus.COMPLETED, ts_ended=now, steps=steps)


def gone() -> NoEngineError:
    return NoEngineError("no engine is at work: begin one with `hean up`")


def late() -> LateError:
    return LateError("the engine does not answer within 5 s: see `hean logs`")


def _runs(began: int) -> list[RunView]:
    """A run of each kind that people see."""
    at = began + 10 * MINUTE
    scan = tuple(
        StepView(name, "FINISHED", 1, at, at + 3 * SECOND, "", {"found": name})
        for name in ("clock", "rules", "market", "account")
    )
    failed = StepView(
        "run", "FAILED", 1, at + HOUR, at + HOUR + 4 * SECOND, "no data of BTCUSDT: `hean data fetch`", None
    )
    asking = StepView("place", "INTERRUPTED", 1, at + HOUR, at + HOUR + 9 * SECOND, "the factory was begun anew", None)
    return [
        RunView(
            "environment-scan-1",
            "environment-scan",
            1,
            {"symbols": "BTCUSDT"},
            RunStatus.COMPLETED,
            "",
            "",
            at,
            at,
            at + 4 * SECOND,
            scan,
        ),
        RunView(
            "backtest-2",
            "backtest",
            1,
            {"strategy": "impulse", "symbols": "BTCUSDT"},
            RunStatus.FAILED,
            "run: no data of BTCUSDT",
            "",
            at + HOUR,
            at + HOUR,
            at + HOUR + 4 * SECOND,
            (failed,),
        ),
        RunView(
            "smoke-test-3",
            "smoke-test",
            1,
            {"instrument": BTC},
            RunStatus.WAITING,
            "",
            "a person's decision on place: nobody knows how far it came",
            at + HOUR,
            at + HOUR,
            None,
            (asking,),
        ),
    ]


def _limit(
    rule: str, subject: str, used: float | None, limit: float, unit: str, amount: float | None = None
) -> LimitUse:
    return LimitUse(rule, subject, used, limit, unit, amount)
