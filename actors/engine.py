"""The engine: begins the actors by the one path there is, watches over them, and begins them anew when one has died.

    build → each actor is told its journal again → facts nobody heard are delivered again
          → resting entries are cancelled, the venue is asked → books and orders are restated → reconciled until clean
          → strategies warmed up → trading

A first start, one after a crash and one after a deploy are this path. The engine owns its actors, so that they die with
it; it is itself begun anew by Ray.
"""

import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import ray
from msgspec import structs

from actors import views
from actors.archive import Archive
from actors.cluster import NAMESPACE
from actors.crew import Crew, FallenError, Member
from actors.feed import FeedActor
from actors.heartbeat import Heartbeat
from actors.last_resort import out
from actors.live_guard import LiveGuard
from actors.logs import NodeLog
from actors.places import Latched, Places, read_settings, write_settings
from actors.process_factory import ProcessFactoryActor
from actors.roles import (
    BrokerActor,
    MonitorActor,
    PaperVenueActor,
    PortfolioActor,
    ProcessActor,
    ReconcilerActor,
    RiskManagerActor,
    StrategyActor,
)
from actors.shell import ComponentActor, Post, Seat
from actors.venue import VenueActor
from actors.words import (
    Arming,
    EngineView,
    History,
    OrderRow,
    Phase,
    Picture,
    PositionView,
    StrategyCard,
    WhyView,
)
from hean import codec
from hean.configure import configured
from hean.engine_settings import EngineSettings
from hean.errors import ConfigError, HeanError, JournalError, VenueError
from hean.instruments import Instrument
from hean.live_system import live_strategies, topology, traded
from hean.messages import (
    CORE,
    Envelope,
    EpochBegan,
    KillSwitchReset,
    Message,
    NodeFailed,
    NodeStarted,
    PullKillSwitch,
    ReconcileDue,
    StartTrading,
    StopTrading,
    SwitchStrategy,
)
from hean.monitor import MonitorState
from hean.permit import shut
from hean.store.engine_book import BOOK, Change, Death, EngineBook
from hean.supervision import Fate, Supervision, lasting
from hean.topology import Node, Topology
from hean.trading_system import Strategy

NAME = "engine"
SETTINGS = "settings.json"

_KINDS: dict[str, type[ComponentActor]] = {
    "portfolio": PortfolioActor,
    "reconciler": ReconcilerActor,
    "broker": BrokerActor,
    "risk": RiskManagerActor,
    "monitor": MonitorActor,
}

_AT_WORK = frozenset({Phase.RECONCILING, Phase.WARMING, Phase.RUNNING})
"""Phases in which risk hears what it is told, and what the monitor says is so."""

_ENGINE = Node(NAME, NAME)
_ROUND_S = 0.25
_RETRY_S = 5.0
_SILENT_S = 120.0
_REST_S = 5.0
_BEAT_S = 1.0
_OUT_S = 20.0
"""How long the engine tries to close everything without its core, before it leaves that to the watchdog."""

_NOW = "`hean kill --now` does it without waiting for that"
_STEPS = 3
"""How many steps of a start, each at its longest, may pass before the engine counts as silent."""


class EngineActor:
    """All that is asked from outside is asked here. One thread works; the mailbox only reads, and notes wishes.

    Args:
        home: The directory of the venue mode, with the settings in it.
    """

    def __init__(self, home: str) -> None:
        self.home = Path(home)
        self.settings = read_settings(self.home / SETTINGS)
        self.log = NodeLog(self.home, NAME, 0)
        self._book = EngineBook(self.home / BOOK, SystemRandom())
        self._places = Places(self.settings, self.home)
        self._crew = Crew(self.home)
        self._supervision = Supervision(self.settings.risk.kill_switch)
        self._heart = Heartbeat(self.home)
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._phase = Phase.STARTING
        self._blocked: tuple[str, ...] = ()
        self._life = 0
        self._began = time.monotonic()
        self._ts_began = 0
        self._recovery_s = self._book.recovery()
        self._untold: list[Death] = []
        self._seen = MonitorState()
        self._warming: dict[str, Any] = {}
        self._cold: dict[str, str] = {}
        self._left: dict[str, str] = {}
        self._closed = False
        self._started = False
        self._settled = self._recovered = False
        self._latched: Latched | None = None
        self._starter = ("", "")
        self._cards: dict[str, StrategyCard] = {}
        self._archive = Archive()
        self._guard = LiveGuard(self.home, self._book)
        self._changing = threading.Lock()
        self._renewed: EngineSettings | None = None
        self._topology = Topology(())
        self._strategies: list[Strategy] = []
        self._instruments: dict[str, Instrument] = {}
        self._post = Post(NAME)
        self._seq = 0
        self._interrupted = self._book.interrupted()
        if self._interrupted is not None:
            self._life = self._interrupted
            self._died(NAME, f"life {self._interrupted} ended without a word")
        self._moved = time.monotonic()
        threading.Thread(target=self._live, name="engine", daemon=True).start()
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    # --- asked from outside ---------------------------------------------------------------------

    def status(self) -> EngineView:
        """Everything at a glance. Read from what was last heard: no trading mailbox is asked."""
        return self._view(*self._sight())

    def picture(self) -> Picture:
        """Everything that can be seen, of one moment. Read from what was last heard, as the status."""
        seen, members = self._sight()
        return views.picture(self._view(seen, members), seen, members, self._cards, traded(self._strategies))

    def history(self) -> History:
        """What has been. Kept fresh, a second old, for as long as somebody asks; who asks first waits a moment."""
        return self._archive.get()

    def positions(self) -> tuple[PositionView, ...]:
        seen, members = self._sight()
        return views.positions(seen, time.time_ns(), views.marks(members))

    def orders(self, most: int = 100) -> list[OrderRow]:
        return views.orders(self._sight()[0], time.time_ns(), most)

    def why(self, strategy: str | None = None) -> list[WhyView]:
        """Why it did or did not trade.

        Raises:
            HeanError: There is no such strategy.
        """
        if strategy is not None and strategy not in self._cards:
            raise HeanError(f"there is no strategy {strategy}: {', '.join(self._cards)}")
        seen, members = self._sight()
        names = self._cards if strategy is None else [strategy]
        return views.why(seen, names, views.voices(members), self._blocked, time.time_ns())

    def _sight(self) -> tuple[MonitorState, dict[str, Member]]:
        """What the monitor said last, which is replaced as a whole and never changed; and who is there."""
        with self._lock:
            return self._seen, dict(self._crew.members)

    def _view(self, seen: MonitorState, members: dict[str, Member]) -> EngineView:
        settings, now = self.settings, time.time_ns()
        standing = views.Standing(
            ts=now,
            venue=str(settings.venue),
            phase=self._phase,
            heard=self._phase in _AT_WORK,
            epoch=self._life,
            ts_began=self._ts_began,
            blocked=self._blocked,
            recovery_s=self._recovery_s,
            dry_run=self._places.dry_run,
            permit=self._guard.reasons(settings, now) if settings.venue.is_real else shut(settings),
            armed_until=self._guard.until(settings, now),
        )
        return views.engine(standing, seen, members, self._book.restarts())

    # --- told from outside ----------------------------------------------------------------------

    def start(self, person: str = "", trace: str = "") -> str:
        """Trade, as soon as nothing stands against it."""
        self._note("start", person, "", trace)
        self._book.want(trade=True)
        with self._lock:
            self._starter = person, trace
            self._started = False
        return "trading begins as soon as nothing stands against it"

    def stop(
        self, *, flatten: bool = False, finish: bool = False, person: str = "", reason: str = "", trace: str = ""
    ) -> str:
        """Open nothing more. It stays so over restarts.

        Args:
            flatten: Close what is held as well.
            finish: Let what is being opened come to its end first.
            person: Who wants it.
            reason: Why.
            trace: What it is part of: an id that everything it sets going carries.

        Raises:
            HeanError: Both are asked for.
        """
        if flatten and finish:
            raise HeanError("flatten closes everything, finish lets what is being opened go on: say one of them")
        self._note("flatten" if flatten else "stop", person, reason, trace)
        with self._lock:
            try:
                self._book.want(trade=False, flat=flatten)
            finally:
                self._tell(StopTrading(flatten, finish, person, reason), trace)
        if flatten and self._phase not in _AT_WORK:
            return f"nothing is opened: the engine is {self._phase}, and closes everything once it is at work; {_NOW}"
        if finish:
            return "nothing more is opened; what is being opened may come to its end"
        return "closing everything" if flatten else "nothing more is opened"

    def kill(self, person: str, reason: str, trace: str = "") -> str:
        """Pull the kill switch: cancel, close, verify, latch."""
        self._note("kill", person, reason, trace)
        try:
            self._places.latch(person, reason)  # it counts even where nobody is there to be told
            self._book.want(trade=False)
        finally:
            self._tell(PullKillSwitch(person, reason), trace)  # and even where the disk is full
        if self._phase not in _AT_WORK:
            return f"the kill switch is pulled: the engine is {self._phase}, and closes everything as soon as it can; {_NOW}"
        return "the kill switch is pulled: everything is cancelled and closed, and it stays so until a person resets it"

    def reset(self, person: str, reason: str, trace: str = "") -> str:
        """Put the kill switch back. Trading begins only with `start`.

        Raises:
            HeanError: No reason is given, or risk is not there to hear it.
        """
        _must_say_why("resets the kill switch", person, reason)
        if self._phase not in _AT_WORK:
            raise HeanError(
                f"the kill switch stays pulled: the engine is {self._phase}, and risk cannot hear it; ask again"
            )
        self._note("reset", person, reason, trace)
        self._tell(KillSwitchReset(person, reason), trace)
        return "the kill switch is put back: `hean start` begins trading"

    def switch(self, strategy: str, on: bool, person: str, reason: str, trace: str = "") -> str:  # noqa: FBT001 (asked over Ray, by place)
        """Let one strategy open positions, or no more. It stays so over restarts.

        Raises:
            HeanError: There is no such strategy, no reason is given, or risk is not there to hear it.
        """
        if strategy not in self._cards:
            raise HeanError(f"there is no strategy {strategy}: {', '.join(self._cards)}")
        _must_say_why("switches a strategy", person, reason)
        if self._phase not in _AT_WORK:
            raise HeanError(
                f"{strategy} stays as it is: the engine is {self._phase}, and risk cannot hear it; ask again"
            )
        self._note("enable" if on else "disable", person, reason, trace, strategy=strategy)
        wanted = SwitchStrategy(strategy, on, person, reason)
        try:
            self._book.switch(wanted)
        finally:
            self._tell(wanted, trace)
        return f"{strategy} may open positions" if on else f"{strategy} opens nothing more; what it holds it may close"

    def configure(self, strategy: str, changes: dict[str, Any], person: str, reason: str, trace: str = "") -> str:
        """Set a strategy otherwise: the core begins anew, by its one path, with what is held as it is.

        Raises:
            HeanError: It is refused: see `hean.configure`. Under real money nothing is made larger, and it must be armed again.
        """
        _must_say_why("sets a strategy otherwise", person, reason)
        if self._phase is Phase.STOPPED:
            raise HeanError("the engine is down and begins nothing any more: `hean down`, then `hean up` with it")
        with self._changing:
            held = views.held(self._sight()[0])
            asked = configured(self._renewed or self.settings, strategy, changes, held)
            armed = self._guard.until(self.settings, time.time_ns()) is not None
            if armed and any(strategy for strategy in held):  # the owner's own coins are nobody's
                # The core would not begin before it is armed again, and nobody would look after what is held.
                raise ConfigError("live trading is armed, and something is held: `hean flatten` closes it, then set it")
            if armed and asked.widens:
                raise ConfigError(
                    f"live trading is armed: {'; '.join(asked.widens)}: `hean down`, then `hean up` with it"
                )
            what = "; ".join(f"{change.name} from {change.old} to {change.new}" for change in asked.changes)
            self._note("configure", person, reason, trace, strategies=asked.strategies, changes=what)
            now = time.time_ns()
            for change in asked.changes:
                self._book.changed(Change(now, strategy, change.name, change.old, change.new, person, reason))
            if armed:
                self._guard.revoke(f"{person} changed the settings: {what}")
            write_settings(self.home / SETTINGS, asked.settings)
            self._renewed = asked.settings
        again = "; live trading must be armed again: `hean arm`" if armed else ""
        return f"{', '.join(asked.strategies)}: {what}; the core begins anew with it, in some seconds{again}"

    def arm(self, person: str, nonce: str = "", phrase: str = "", trace: str = "") -> Arming:
        """Arm live trading for a day: asked without a nonce it says what stands against it, or gives one.

        Raises:
            HeanError: There is nothing to arm, or the answer is none to what was asked.
        """
        if not self.settings.venue.is_real:
            raise HeanError(f"there is nothing to arm: the venue is {self.settings.venue}, and no real money is in it")
        if self._renewed is not None:
            raise HeanError("the settings have just been changed: ask again in some seconds")
        self._note("arm", person, "answers" if nonce else "asks", trace)
        if not nonce:
            return self._guard.ask(self.settings, time.time_ns())
        return self._guard.answer(self.settings, nonce, phrase, person, time.time_ns())

    def pid(self) -> int:
        """The engine's own process."""
        return os.getpid()

    def figures(self) -> dict[str, dict[str, int]]:
        """By consumer of the feed: rows told, and rows that a later one took the place of."""
        feed = self._crew.members.get("feed")
        consumers = feed.pulse.consumers if feed is not None and feed.pulse is not None else ()
        return {one.name: {"told": one.told, "conflated": one.conflated} for one in consumers}

    def shutdown(self, timeout_s: float = 30.0) -> bool:
        """End everything in order: nothing more is opened, all is written down. Whether it was in time."""
        self._ending.set()
        return self._ended.wait(timeout_s)

    # --- asked by the factory -------------------------------------------------------------------

    def host(self, name: str, component: Any) -> None:
        """Give a process an actor, connected to the others."""
        timeout = self.settings.supervision.ready_s
        life = self._book.begin(name, "asked for", time.time_ns())
        with self._lock:
            self._crew.end([name])
            self._crew.seat(self._seat(name, life), ProcessActor, component)
        try:
            self._crew.recover([name], timeout)
            # First the others: what follows from its first word must find it.
            self._introduce(name)
            self._crew.connect([name], timeout)
        except HeanError as failure:  # nobody waits for it: the step's own time limit does
            self.log.warning("not begun", name=name, why=str(failure))

    def pass_on(self, name: str, message: Message) -> None:
        """Tell a process something on its factory's behalf."""
        envelope = Envelope(NAME, 0, time.time_ns(), "", "", message)
        if name in self._crew.members:
            self._crew.members[name].handle.tell.remote(codec.letters([envelope]), f"{NAME}@{self._life}")

    def leave(self, name: str) -> None:
        """End a process's actor, if there is one."""
        with self._lock:
            self._crew.end([name])

    # --- the one thread that works --------------------------------------------------------------

    def _live(self) -> None:
        try:
            if self._interrupted is not None:
                self._must_not_be_stubborn("the engine itself")
            while not self._ending.is_set():
                try:
                    if self._renewed is not None:
                        self._renew(self._renewed)
                    self._wait_for_permit()
                    if not self._ending.is_set():
                        self._begin()
                        self._watch()
                except FallenError as fallen:
                    self._mourn(fallen)
                except HeanError as trouble:
                    self._wait_for_better(trouble)
            self._close()
        except BaseException as failure:  # noqa: BLE001 (a fault of our own: Ray begins the engine anew, by the same path)
            try:
                self.log.died(failure)
            finally:
                os._exit(1)

    def _renew(self, settings: EngineSettings) -> None:
        """Take other settings up: the core comes to rest, all of it written down, and is begun anew with them."""
        self._set(Phase.STARTING)
        self._blocked = ("the core begins anew with other settings",)
        self._call_back()
        self._pause()
        self._book.end(self._life, "in order, for other settings")
        with self._changing:
            self.settings = settings
            if self._renewed is settings:
                self._renewed = None
        self._places = Places(settings, self.home)

    def _wait_for_permit(self) -> None:
        """Begin nothing with real money that nobody armed. That is no silence: what is held stays, as it does when all is ended.

        Only a kill switch that is pulled meanwhile is not waited with: no core is there to hear of it.
        """
        while self._sends_for_real() and not self._ending.is_set():
            reasons = self._guard.reasons(self.settings, time.time_ns())
            if not reasons:
                return
            self._set(Phase.STARTING)
            self._moved = time.monotonic()
            latched = self._places.latched()
            left = () if latched is None or latched == self._latched else self._closed_for(latched)
            if latched is None:
                told: tuple[str, ...] = ("nothing looks after what is held meanwhile: `hean kill` closes it",)
            else:
                told = (f"the kill switch was pulled by {latched.person}", *(f"not closed: {one}" for one in left))
            self._blocked = (*reasons, *told)
            self._ending.wait(_RETRY_S if left else _ROUND_S)

    def _closed_for(self, latched: Latched) -> tuple[str, ...]:
        """Close everything without a core, once; what is left of it, in words."""
        self._crew.end(reversed(list(self._crew.members)))  # half a core would go on by itself
        left = self._out(latched.reason, latched.person)
        if not left:
            self._latched = self._places.latched()
        return left

    def _sends_for_real(self) -> bool:
        return self.settings.venue.is_real and not self.settings.dry_run

    def _begin(self) -> None:
        """The one path from nothing to trading."""
        self._began = time.monotonic()
        self._ts_began = time.time_ns()
        self._set(Phase.STARTING)
        timeout = self.settings.supervision.ready_s
        self._strategies = live_strategies(self.settings)
        self._cards = {one.name: views.card(one) for one in self._strategies}
        self._topology = topology(self.settings, self._strategies)
        life = self._life = self._book.begin("core", "started", self._ts_began, above=self._places.epoch())
        self._places.fence(life)  # before the venue is asked for anything: it may take long to answer
        self._instruments = self._rules()
        self._seq, self._warming, self._cold, self._left = 0, {}, {}, {}
        self._started = self._settled = self._recovered = False
        self._post = Post(f"{NAME}@{life}")
        self.log = NodeLog(self.home, NAME, life)
        names = self._make(life)
        self._crew.recover(names, timeout)
        self._crew.connect(names, timeout)
        self._post.connect(self._crew.peers())

        self._set(Phase.RECOVERING)
        kept = [name for name in names if name in _KINDS or (name == "venue" and self.settings.venue.is_ours)]
        cursors = self._crew.cursors()
        again = self._crew.ask(kept, "deliver_again", cursors, timeout_s=timeout)
        self._crew.settle(kept, timeout)
        self._open_venue(timeout)
        for death in self._untold:
            self._tell(NodeFailed(death.node, death.why))
        self._tell(EpochBegan(life))
        self._latched = None
        self._hear_of_latch()
        self._crew.settle(kept, timeout)
        self._tell(NodeStarted(CORE))
        self._crew.settle(kept, timeout)
        if self._book.wants_flat():
            self._tell(StopTrading(flatten=True))  # it may not have been heard when it was said
        for wanted in self._book.switches():
            self._tell(wanted)  # nor that
        self._untold = []
        self._set(Phase.RECONCILING)
        self._tell(ReconcileDue("a start"))
        self._crew.ask(["feed"], "begin", timeout_s=timeout)
        plan = self._places.warm_up
        self._warming = {one.name: self._crew.members[one.name].handle.warm.remote(plan) for one in self._strategies}
        self.log.info("begun", life=life, again=sum(again.values()), seconds=time.monotonic() - self._began)

    def _rules(self) -> dict[str, Instrument]:
        """The rules of all that is traded; where the venue does not say, as it said at the last start."""
        try:
            return self._places.rules(traded(self._strategies))
        except VenueError as silence:
            if not self._instruments:
                raise
            self.log.warning("rules of the last start", why=str(silence))
            return self._instruments

    def _make(self, life: int) -> list[str]:
        """Make every actor, side by side."""
        for node in self._topology.nodes:
            seat = self._seat(node.name, life)
            if node.role == "strategy":
                self._crew.seat(seat, StrategyActor)
            elif node.role in _KINDS:
                self._crew.seat(seat, _KINDS[node.role])
            elif node.role == "venue" and self.settings.venue.is_ours:
                self._crew.seat(seat, PaperVenueActor)
            elif node.role == "venue":
                self._crew.seat(seat, VenueActor, self._places.venue)
        self._crew.seat(self._seat("feed", life), FeedActor, self._places.feed)
        self._make_factory(life)
        return self._staff()

    def _staff(self) -> list[str]:
        """Everybody but the processes: those come and go as their factory wants."""
        passing = {node.name for node in self._topology.nodes if node.role == "process"}
        return [name for name in list(self._crew.members) if name not in passing]

    def _seat(self, name: str, life: int) -> Seat:
        return Seat(name, self.home, self.settings, self._instruments, self._book.tag, life, self._life)

    def _make_factory(self, life: int) -> None:
        self._crew.make("factory", ProcessFactoryActor, life, self._places.processes, life, EngineHosts())

    def _open_venue(self, timeout_s: float) -> None:
        """Let the venue take up the orders that may be open, and ask for what happened since we last knew all."""
        orders, heard = self._crew.ask(["broker"], "restorable", timeout_s=timeout_s)["broker"]
        settled = self._crew.ask(["portfolio"], "settled", timeout_s=timeout_s)["portfolio"]
        since = self._book.opened(self._ts_began)
        known = self._crew.ask(["reconciler"], "known_until", timeout_s=timeout_s)["reconciler"]
        self._crew.ask(["venue"], "begin", orders, [*heard, *settled], max(since, known), timeout_s=timeout_s)

    def _watch(self) -> None:
        """Look after everybody until somebody falls, or all is to end."""
        limit = self.settings.supervision
        due = 0.0
        while not self._ending.is_set() and self._renewed is None:
            try:
                self._crew.look(limit.lag_s if not self._warming else limit.ready_s)
                if time.monotonic() >= due:
                    due = time.monotonic() + limit.ping_s
                    self._read_monitor()
                    self._archive.bring(self._crew.members["monitor"].handle.past.remote)
                    self._go_on()
            except FallenError as fallen:
                if not self._begun_alone(fallen):
                    raise
            self._moved = time.monotonic()
            self._ending.wait(_ROUND_S)

    def _let_trade(self) -> None:
        """Begin to trade, unless a person has stopped it in this moment: what is wanted and what risk is told go together."""
        with self._lock:
            if self._book.wants():
                self._started = True
                person, trace = self._starter
                self._tell(StartTrading(person), trace)

    def _beat(self) -> None:
        """Beat as long as the actors are looked after. A start takes its time; one that does not come to its end is a silence."""
        while not self._ended.wait(_BEAT_S):
            if not self._is_silent():
                with suppress(OSError):  # a full disk is a silence too, and may end
                    self._heart.beat(self._phase, exposed=self._is_exposed())

    def _is_silent(self) -> bool:
        return time.monotonic() - self._moved > _STEPS * self.settings.supervision.ready_s

    def _go_on(self) -> None:
        """Take the next step of the start, when it may be taken."""
        for name, warming in list(self._warming.items()):
            if ray.wait([warming], timeout=0)[0]:
                del self._warming[name]
                self._warmed(name, warming)
        reasons = self._against()
        self._blocked = tuple(reasons)
        if not reasons and not self._started:
            self._let_trade()
        elif self._started and (ended := self._unarmed()):
            self._started = False  # begun again once it is armed again
            self._tell(StopTrading(flatten=False, finish=True, person=NAME, reason=ended))
        clean = self._is_reconciled()
        self._set(Phase.RECONCILING if not clean else Phase.WARMING if self._warming else Phase.RUNNING)
        if self._phase is Phase.RUNNING and not self._recovered:
            self._recovered = True
            self._recovery_s = time.monotonic() - self._began
            self._book.recovered(self._life, self._recovery_s, time.time_ns())
            self.log.info("ready", seconds=self._recovery_s)

    def _warmed(self, name: str, warming: Any) -> None:
        """Take a strategy as warm; where it did not get its past, have it ask again. The others are not concerned."""
        try:
            self._crew.answer(name, warming)
        except FallenError:
            raise
        except HeanError as trouble:
            self._cold[name] = str(trouble)
            self.log.warning("not warm", name=name, trouble=str(trouble))
            self._warming[name] = self._crew.members[name].handle.warm.remote(self._places.warm_up)
        else:
            self._cold.pop(name, None)

    def _against(self) -> list[str]:
        """What stands against trading, in words."""
        found = []
        if not self._is_reconciled():
            waited = time.monotonic() - self._began
            hint = ": see `hean logs --node reconciler`" if waited > self.settings.supervision.clean_s else ""
            found.append(f"the books have not been found to agree with the venue since the start{hint}")
        if self._warming:
            found.append(f"being warmed up: {', '.join(self._warming)}")
        found += [f"{name} does not get its past: {trouble}" for name, trouble in self._cold.items()]
        found += self._left.values()
        if unarmed := self._unarmed():
            found.append(unarmed)
        if self._seen.tripped is not None:
            found.append(f"the kill switch was tripped by {self._seen.tripped.cause}: `hean reset` puts it back")
        if not self._book.wants():
            found.append("trading was stopped by a person: `hean start` begins it")
        return found

    def _unarmed(self) -> str:
        """Why nothing is opened with real money any more, in words; empty while it may be."""
        return "; ".join(self._guard.reasons(self.settings, time.time_ns())) if self._sends_for_real() else ""

    def _is_reconciled(self) -> bool:
        """Whether the books have agreed with the venue since this life began. Later differences are risk's to weigh."""
        if not self._settled:
            timeout = self.settings.supervision.lag_s
            self._settled = self._crew.ask(["reconciler"], "settled", timeout_s=timeout)["reconciler"]
        return self._settled

    def _is_exposed(self) -> bool | None:
        """Whether anything of ours is held or rests; None before anybody has said."""
        if self._closed:
            return False
        with self._lock:
            seen = self._seen
        if seen.ts_last is None:
            return None
        return bool(seen.waiting_orders) or any(one.strategy for one in views.positions(seen, time.time_ns()))

    def _hear_of_latch(self) -> None:
        """Tell risk, once, of a kill switch that was pulled where it could not hear it."""
        latched = self._places.latched()
        if latched is not None and latched != self._latched:
            self._latched = latched
            self._tell(PullKillSwitch(latched.person, latched.reason))

    def _read_monitor(self) -> None:
        seen = self._crew.ask(["monitor"], "seen", timeout_s=self.settings.supervision.lag_s)["monitor"]
        with self._lock:
            self._seen = seen
        if seen.tripped is not None:
            self._places.unlatch()  # risk has it, in its journal
        else:
            self._hear_of_latch()

    # --- deaths ---------------------------------------------------------------------------------

    def _begun_alone(self, fallen: FallenError) -> bool:
        """Do what is to be done where the others can go on; whether they can."""
        name = fallen.node
        role = self._roles().get(name, "")
        fate = self._supervision.fate(role, self._deaths())
        if fate is Fate.FORGOTTEN:
            self.leave(name)
            return True
        if fate is Fate.CORE:
            return False
        self._died(name, fallen.why)
        self._tell(NodeFailed(name, fallen.why))
        if fate is Fate.LEFT:
            self._leave_dead(fallen)
            return True
        timeout = self.settings.supervision.ready_s
        life = self._book.begin(name, fallen.why, time.time_ns())
        if role == "factory":
            self._make_factory(life)
        else:
            self._crew.end([name])
            self._crew.seat(self._seat(name, life), StrategyActor if role == "strategy" else MonitorActor)
        self._crew.recover([name], timeout)
        self._crew.connect([name], timeout)
        self._introduce(name, missed=role == "monitor")
        if role == "strategy":
            plan = self._places.warm_up
            self._warming[name] = self._crew.members[name].handle.warm.remote(plan)
        self._untold = []
        self._tell(NodeStarted(name))
        self.log.info("begun anew", name=name, life=life)
        return True

    def _leave_dead(self, fallen: FallenError) -> None:
        """Begin a strategy no more: it would only die again."""
        name, many = fallen.node, self._supervision.too_many(self._deaths()) or "too many deaths"
        self._crew.end([name])
        self._warming.pop(name, None)
        self._left[name] = f"{name} is not begun any more: {many}, the last of {fallen}; `hean down`, then `hean up`"
        self.log.warning("left dead", name=name, why=many)

    def _introduce(self, name: str, *, missed: bool = False) -> None:
        """Tell the others where one is now; where it `missed` something, they tell it that first."""
        peer = self._crew.peers()[name]
        if missed:
            peer = structs.replace(peer, cursors=self._crew.cursors()[name])
        others = [one for one in self._staff() if one != name]
        self._crew.ask(others, "connect", {name: peer}, timeout_s=self.settings.supervision.ready_s)
        for one, member in list(self._crew.members.items()):
            if one != name and one not in others:
                member.handle.connect.remote({name: peer})  # a process may be gone by now, and is not waited for
        with self._lock:
            self._post.connect({name: peer})

    def _died(self, node: str, why: str) -> None:
        death = Death(time.time_ns(), node, why)
        try:
            self._book.died(death)
        except JournalError as trouble:  # it is told all the same
            self.log.warning("death not noted", trouble=str(trouble))
        self._untold.append(death)
        self.log.warning("death", name=node, why=why)

    def _mourn(self, fallen: FallenError) -> None:
        """Somebody of the core has died: halt. Who lives goes on in its process, with nothing of its past but its journal.

        Where it happened on the way up, nobody is trusted: all are ended, in reverse of the order of their beginning.
        """
        self._died(fallen.node, fallen.why)
        on_the_way = self._phase in {Phase.STARTING, Phase.RECOVERING}
        self._set(Phase.STARTING)
        self._blocked = (str(fallen),)
        gone = {fallen.node}
        for other in self._crew.dead():
            if other.node not in gone:
                gone.add(other.node)
                self._died(other.node, other.why)
        keep = lasting(self._roles(), gone, on_the_way=on_the_way)
        self._crew.end([name for name in reversed(list(self._crew.members)) if name not in keep])
        self._must_not_be_stubborn(str(fallen))

    def _must_not_be_stubborn(self, last: str) -> None:
        """Begin nothing any more where too many died of late, the engine itself included."""
        many = self._supervision.too_many(self._deaths())
        if many is not None:
            self._stay_down(f"{many}, the last of {last}")

    def _deaths(self) -> int:
        """How many have died of late."""
        return len(self._book.deaths(self._supervision.since(time.time_ns())))

    def _roles(self) -> dict[str, str]:
        """By name. The feed is in the table of routes, and no node of it."""
        return {node.name: node.role for node in self._topology.nodes} | {"feed": "feed"}

    def _stay_down(self, why: str) -> None:
        """It cannot be kept alive: everything is closed without it, and a person decides."""
        self.log.warning("staying down", why=why)
        self._crew.end(reversed(list(self._crew.members)))  # half a core would go on by itself
        with suppress(OSError):  # where the disk is full the watchdog acts all the same
            self._places.latch(NAME, why)
        what_now = f"{why}: `hean down`, find the cause in `hean logs`, `hean up`"
        self._blocked = (what_now, "everything is being closed without the core")
        self._set(Phase.STOPPED)
        left = self._out(why)
        self._closed = not left
        if left:
            self._moved = -math.inf  # the watchdog need not wait
        self._blocked = (what_now, *(f"not closed: {one}" for one in left))
        self._ending.wait()

    def _out(self, why: str, person: str = NAME) -> tuple[str, ...]:
        """Close everything with nothing but the keys; what is left, in words."""
        try:
            done = out(
                self.home, person, why, limit_s=_OUT_S, tell=lambda step: self.log.warning("last resort", step=step)
            )
        except Exception as trouble:  # noqa: BLE001 (to die of it would be to try it again and again)
            self.log.warning("cannot close", trouble=f"{type(trouble).__name__}: {trouble}")
            return (str(trouble) or type(trouble).__name__,)
        self.log.warning("closed", closed=[[name, str(size)] for name, size in done.closed], left=list(done.left))
        return () if done.verified else done.left or ("the venue does not say that nothing is left",)

    def _wait_for_better(self, trouble: HeanError) -> None:
        """Try again in a while. Where only the venue is silent nobody is to blame: the processes stay, all written down."""
        self._set(Phase.STARTING)
        self._blocked = (str(trouble),)
        self.log.warning("cannot begin", trouble=str(trouble))
        if isinstance(trouble, VenueError):
            self._pause()
        else:
            self._crew.end(reversed(list(self._crew.members)))
        # Each try begins an epoch, and so ends that of the way out without us: where that is due it is given its time.
        self._ending.wait(_SILENT_S if self._is_silent() else _RETRY_S)

    def _close(self) -> None:
        """End in order: nothing more is opened, entries are called back, everything is written down."""
        self._call_back()
        self._crew.end(reversed(list(self._crew.members)), rest_s=_REST_S)
        self._book.end(self._life, "in order")
        self._set(Phase.STOPPED)
        self._heart.stop()
        self._ended.set()

    def _call_back(self) -> None:
        """Open nothing more, and call entries back, as far as anybody is there to do it."""
        if "risk" in self._crew.members:
            self._tell(StopTrading(flatten=False))
            with suppress(FallenError):  # who dies now was to be ended anyway
                self._crew.settle([name for name in _KINDS if name in self._crew.members], _REST_S)

    def _pause(self) -> None:
        """End this life of everybody, all of it written down; those whose next one is alike keep their processes."""
        keep = lasting(self._roles())
        self._crew.end([name for name in self._crew.members if name not in keep], rest_s=_REST_S)
        self._crew.rest(list(self._crew.members), _REST_S)

    # --- telling --------------------------------------------------------------------------------

    def _note(self, asked: str, person: str, reason: str, trace: str, **more: Any) -> None:
        """Write down what a person asked for."""
        self.log.info("asked", what=asked, person=person, reason=reason, trace=trace, **more)

    def _tell(self, message: Message, trace: str = "") -> None:
        """Say something to whoever the table of routes names, as part of `trace`: the message's own id where there is none."""
        with self._lock:
            self._seq += 1
            envelope = Envelope(f"{NAME}@{self._life}", self._seq, time.time_ns(), trace, "", message)
            receivers = self._topology.receivers(_ENGINE, type(message))
            self._post.send((node, envelope) for node, only in receivers if only is None or only(message, node))
        self.log.said([envelope])

    def _set(self, phase: Phase) -> None:
        if phase is not self._phase:
            self._phase = phase
            self.log.info("phase", phase=str(phase))


def _must_say_why(does: str, person: str, reason: str) -> None:
    if not person.strip() or not reason.strip():
        raise HeanError(f"who {does} says why: give a name and a reason")


class EngineHosts:
    """How the factory has the engine give its components actors. It only tells, and never waits: the engine asks it things."""

    def start(self, node: str, component: Any) -> None:
        find().host.remote(node, component)

    def tell(self, node: str, message: Message) -> None:
        find().pass_on.remote(node, message)

    def stop(self, node: str) -> None:
        find().leave.remote(node)


def create(home: Path, settings: EngineSettings) -> Any:
    """Begin the engine, or find it at work: a named actor that outlives whoever asked for it, and its own death."""
    home.mkdir(parents=True, exist_ok=True)
    write_settings(home / SETTINGS, settings)
    return (
        ray.remote(EngineActor)
        .options(
            name=NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=16,
        )
        .remote(str(home))
    )


def find() -> Any:
    """The engine.

    Raises:
        HeanError: None is at work.
    """
    try:
        return ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        raise HeanError("no engine is at work: begin one with `hean up`") from None
