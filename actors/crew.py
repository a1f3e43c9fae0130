"""The engine's actors: made, asked, watched and ended. Nobody else makes any, so that all of them die with the engine."""

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from msgspec import Struct
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from actors.cluster import NAMESPACE
from actors.shell import Peer, Seat
from actors.words import Pulse, Recovered
from hean.errors import ContractError, HeanError

# Ray's own restarts and retries are off: its count of restarts has no time window, and a retried call would come
# twice and out of order. The engine begins actors anew, by the one path there is.
OPTIONS: dict[str, Any] = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "namespace": NAMESPACE}

_GONE_S = 10.0
_SHOWS_S = 0.3


class FallenError(HeanError):
    """An actor died, or does not answer in time.

    Args:
        node: Which.
        why: What is known of the cause.
    """

    def __init__(self, node: str, why: str) -> None:
        self.node = node
        self.why = why
        super().__init__(f"{node}: {why}")


class Member(Struct):
    """One actor of the crew. `pulse` is what it last said of itself, `lag_s` how long that took."""

    name: str
    kind: str
    handle: Any
    incarnation: int
    seat: Seat | None
    ts: int
    recovered: Recovered | None = None
    pulse: Pulse | None = None
    lag_s: float | None = None
    asked: Any = None
    asked_at: float = 0.0


class Crew:
    """Every actor of one engine.

    Args:
        home: The directory of the venue mode: what an actor said last before it died lies there.
    """

    def __init__(self, home: Path) -> None:
        self.members: dict[str, Member] = {}
        self._home = home

    def seat(self, seat: Seat, kind: type[Any], *arguments: Any) -> None:
        """Give a node a life: in the process it has, if it has one that lives, else in a new one."""
        member = self.members.get(seat.node)
        if member is None:
            self.make(seat.node, kind, seat.incarnation, *arguments)
            member = self.members[seat.node]
        member.incarnation, member.seat, member.recovered = seat.incarnation, seat, None
        member.asked = member.pulse = member.lag_s = None

    def make(self, name: str, kind: type[Any], incarnation: int, *arguments: Any) -> None:
        """Make an actor; an older one of its name is ended first."""
        self._end_namesake(name)
        (self._home / "last_words" / name).unlink(missing_ok=True)
        handle = ray.remote(kind).options(name=name, **OPTIONS).remote(*arguments)
        self.members[name] = Member(name, kind.__name__, handle, incarnation, None, time.time_ns())

    def recover(self, names: Iterable[str], timeout_s: float) -> None:
        """Let actors build their components and be told their journals again."""
        refs = {}
        for name in names:
            member = self.members[name]
            refs[name] = member.handle.recover.remote(*([] if member.seat is None else [member.seat]))
        for name, recovered in self._gathered(refs, timeout_s).items():
            self.members[name].recovered = recovered

    def connect(self, names: Iterable[str], timeout_s: float) -> None:
        """Tell these where all others are."""
        peers = self.peers()
        others = {name: {one: peer for one, peer in peers.items() if one != name} for name in names}
        refs = {name: self.members[name].handle.connect.remote(others[name]) for name in names}
        self._gathered(refs, timeout_s)

    def peers(self) -> dict[str, Peer]:
        return {
            name: Peer(member.handle, member.recovered.takes, member.incarnation)
            for name, member in list(self.members.items())
            if member.recovered is not None
        }

    def cursors(self) -> dict[str, dict[str, int]]:
        """What each actor had heard of each source when it had recovered."""
        members = list(self.members.items())
        return {name: member.recovered.cursors for name, member in members if member.recovered is not None}

    def ask(self, names: Iterable[str], method: str, *arguments: Any, timeout_s: float) -> dict[str, Any]:
        """Ask several actors the same, side by side, and wait for all answers.

        Raises:
            FallenError: One died, or did not answer in time.
            HeanError: One refused, in its own words.
        """
        return self._gathered(
            {name: getattr(self.members[name].handle, method).remote(*arguments) for name in names}, timeout_s
        )

    def answer(self, name: str, asked: Any) -> Any:
        """What an actor answered, that is known to have answered.

        Raises:
            FallenError: It died of the question.
            HeanError: It refused, in its own words.
        """
        return self._answered(name, partial(ray.get, asked))

    def settle(self, names: Iterable[str], timeout_s: float) -> None:
        """Wait until everything these have told one another is handled."""
        names = list(names)
        limit = time.monotonic() + timeout_s
        before: list[tuple[int, int]] = []
        while time.monotonic() < limit:
            pulses = self.ask(names, "ping", timeout_s=max(0.1, limit - time.monotonic()))
            sums = [(pulse.told, pulse.said) for pulse in pulses.values()]
            if sums == before:
                return
            before = sums
            time.sleep(0.02)
        raise FallenError(names[0], f"the actors do not come to rest within {timeout_s:g} s")

    # --- watching -------------------------------------------------------------------------------

    def look(self, limit_s: float) -> None:
        """Look whether everybody is there and keeps up.

        Each is asked anew as soon as it has answered: how long that takes is how far its mailbox is behind.

        Raises:
            FallenError: Somebody does not: the first that was found.
        """
        # Others may come and go meanwhile; who has not recovered yet has nothing to say.
        members = [member for member in list(self.members.values()) if member.recovered is not None]
        for member in members:
            if member.asked is None:
                member.asked, member.asked_at = member.handle.ping.remote(), time.monotonic()
        asked = {member.asked: member for member in members}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=0.1)
        for ref in ready:
            member = asked[ref]
            try:
                member.pulse = ray.get(ref)
            except RayActorError as death:
                if self.members.get(member.name) is not member:
                    continue  # it was ended, and another may have its place by now
                raise FallenError(member.name, self._last_words(member.name, death)) from death
            except RayTaskError as fault:
                raise FallenError(member.name, f"it cannot say how it is: {fault.cause or fault}") from fault
            member.lag_s = time.monotonic() - member.asked_at
            member.asked = None
            if member.pulse is not None and member.pulse.detail:
                raise FallenError(member.name, member.pulse.detail)
        for member in members:
            waited = time.monotonic() - member.asked_at
            if member.asked is not None and waited > limit_s and self.members.get(member.name) is member:
                member.lag_s = waited
                raise FallenError(member.name, f"its mailbox is {waited:.1f} s behind")

    def dead(self) -> list[FallenError]:
        """Who else has died, as far as that shows at once."""
        asked = {member.handle.ping.remote(): member.name for member in list(self.members.values())}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SHOWS_S) if asked else ([], [])
        found = []
        for ref in ready:
            try:
                ray.get(ref)
            except RayActorError as death:
                found.append(FallenError(asked[ref], self._last_words(asked[ref], death)))
        return found

    # --- ending ---------------------------------------------------------------------------------

    def end(self, names: Iterable[str], *, rest_s: float = 0.0) -> None:
        """End actors: at once, or after each has written down everything."""
        names = [name for name in names if name in self.members]
        if rest_s and names:
            refs = [self.members[name].handle.rest.remote() for name in names]
            ray.wait(refs, num_returns=len(refs), timeout=rest_s)
        for name in names:
            ray.kill(self.members.pop(name).handle)

    def rest(self, names: Iterable[str], limit_s: float) -> None:
        """Have actors write down everything, and keep their processes for another life. Who is not done in time is ended."""
        asked = {self.members[name].handle.rest.remote(): name for name in names if name in self.members}
        _, late = ray.wait(list(asked), num_returns=len(asked), timeout=limit_s) if asked else ([], [])
        self.end([asked[ref] for ref in asked if ref in late or not self._has_rested(ref)])

    def _has_rested(self, asked: Any) -> bool:
        try:
            ray.get(asked)
        except RayError:
            return False
        return True

    def _end_namesake(self, name: str) -> None:
        """An actor's name is free once its process is gone."""
        self.members.pop(name, None)
        limit = time.monotonic() + _GONE_S
        while time.monotonic() < limit:
            try:
                ray.kill(ray.get_actor(name, namespace=NAMESPACE))
            except ValueError:
                return
            time.sleep(0.05)
        raise FallenError(name, f"an older actor of that name does not end within {_GONE_S:g} s")

    def _gathered(self, refs: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        limit = time.monotonic() + timeout_s
        found = {}
        for name, ref in refs.items():
            found[name] = self._answered(name, partial(ray.get, ref, timeout=max(0.01, limit - time.monotonic())))
        return found

    def _answered(self, name: str, get: Callable[[], Any]) -> Any:
        try:
            return get()
        except GetTimeoutError as silence:
            raise FallenError(name, "does not answer") from silence
        except RayActorError as death:
            raise FallenError(name, self._last_words(name, death)) from death
        except RayTaskError as refusal:
            # A broken promise of the house is a fault of ours, and comes again with the journal: it counts as a death.
            if isinstance(refusal.cause, HeanError) and not isinstance(refusal.cause, ContractError):
                raise refusal.cause from None
            raise FallenError(name, str(refusal.cause or refusal)) from refusal

    def _last_words(self, name: str, death: RayActorError) -> str:
        path = self._home / "last_words" / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
        said = str(death)
        if "connection error" in said:  # so Ray says when a process is gone and left no word
            return "its process was killed"
        return next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "nobody knows why")
