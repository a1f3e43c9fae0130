"""Dialogs: what will happen is said first, a reason is asked for, and what the engine answered is shown.

A command is sent once: while it is on its way the button rests, and what is sent again after silence is the same command.
"""

import asyncio
import getpass
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from actors.page import deeds
from actors.page.client import Answer, ApiError, Command
from actors.page.deeds import Deed, Effect
from actors.page.store import STATUS, Store
from actors.page.words import instant, plain
from hean.errors import HeanError

_LOOK_S = 0.5
_TOUCHED = (STATUS, "/positions", "/orders", "/strategies", "/risk", "/processes")
"""What a command may have changed: asked again at once."""

MODES = {
    "graceful": "Let what is under way finish",
    "reduce": "Cancel what is under way",
    "flatten": "Close everything",
}


def person() -> str:
    """In whose name commands are given: the page is on this machine, and so is whoever sits before it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "page"


# --- what may be done -------------------------------------------------------------------------------


def start(store: Store) -> None:
    Confirmation(store, deeds.start(store))


def stop(store: Store) -> None:
    """Ask how to stop."""
    Stopping(store)


def flatten(store: Store) -> None:
    Confirmation(store, deeds.stop(store, "flatten"))


def kill(store: Store) -> None:
    Confirmation(store, deeds.kill(store))


def reset(store: Store) -> None:
    Confirmation(store, deeds.reset(store))


def arm(store: Store) -> None:
    Arming(store)


def switch(store: Store, strategy: str, on: bool) -> None:  # noqa: FBT001
    Confirmation(store, deeds.switch(store, strategy, on=on))


def configure(store: Store, strategy: str, now: Mapping[str, Any], changes: Mapping[str, Any]) -> "Confirmation":
    """Args:
    store: What is known.
    strategy: Whose parameters.
    now: As they are.
    changes: Those that will be others.
    """
    return Confirmation(store, deeds.configure(store, strategy, now, changes))


def begin_process(
    store: Store, process: str, arguments: Mapping[str, str], key: str, begun: Callable[[str], None]
) -> None:
    """Args:
    store: What is known.
    process: What is begun.
    arguments: With what, where that is not the usual.
    key: A name for the run; empty gives it the next number.
    begun: Told the run's id.
    """
    Confirmation(store, deeds.begin_process(process, arguments, key), lambda answer: begun(str(answer.body["run_id"])))


def cancel_run(store: Store, run: Mapping[str, Any]) -> None:
    Confirmation(store, deeds.cancel_run(run))


def decide_run(store: Store, run: Mapping[str, Any], again: bool) -> None:  # noqa: FBT001
    Confirmation(store, deeds.decide_run(run, again=again))


# --- how it is asked ----------------------------------------------------------------------------------


class Confirmation:
    """A dialog about one deed, open from when it is made.

    Args:
        store: What is known, and through what it is done.
        deed: What is to be done.
        on_done: Told the answer, once it is done.
    """

    def __init__(self, store: Store, deed: Deed, on_done: Callable[[Answer], None] | None = None) -> None:
        self._on_done = on_done
        self.store = store
        self.deed = deed
        self.answer: Answer | None = None
        self._command: Command | None = None
        self._sending = False
        self._shown: Sequence[Effect] | None = None
        with ui.context.client.content:  # it outlives what it was opened from, such as a form that closes
            self.dialog = ui.dialog().props('aria-labelledby="deed-title"')
        self.dialog.on("hide", self.dialog.delete)
        with self.dialog, ui.card().classes("deed danger" if deed.danger else "deed").mark("deed"):
            self._draw()
            ui.timer(_LOOK_S, self._look)
        self.dialog.open()

    def _draw(self) -> None:
        deed = self.deed
        self._title = ui.label(deed.title).classes("deed-title").props('id="deed-title" role="heading" aria-level="2"')
        self._before()
        self._effects = ui.element("div").classes("effects")
        self._form = ui.element("div").classes("deed-form")
        with self._form:
            self._reason_input()
            self._word_input()
        self._said = ui.element("div").classes("deed-said").props('role="status" aria-live="polite"')
        with ui.element("div").classes("deed-buttons"):
            self._close = ui.button("Cancel", on_click=self.dialog.close).props("unelevated no-caps").classes("plain")
            self._go = ui.button(deed.verb, on_click=self.send).props("unelevated no-caps")
            self._go.classes("kill" if deed.danger else "primary").mark("do")
        self._look()

    def _before(self) -> None:
        """What is asked before anything else: others ask how."""

    def _reason_input(self) -> None:
        self._reason: ui.input | None = None
        if not self.deed.reason:
            return
        self._reason = ui.input("Reason", placeholder="why; it is written down", on_change=self._look)
        self._reason.props('outlined dense maxlength=500 autofocus aria-required="true"').classes("deed-reason")
        with ui.element("div").classes("line tight"):
            for often in self.deed.reasons:
                offer = ui.button(often, on_click=lambda often=often: self._take(often))
                offer.props("unelevated no-caps dense").classes("plain offer")

    def _word_input(self) -> None:
        self._word: ui.input | None = None
        if not self.deed.word:
            return
        self._word = ui.input(f"Type {self.deed.word} to confirm", on_change=self._look)
        self._word.props('outlined dense autocomplete=off autocapitalize=off spellcheck=false aria-required="true"')
        self._word.classes("deed-word").on("keydown.enter", self.send)

    def _take(self, reason: str) -> None:
        if self._reason is not None:
            self._reason.set_value(reason)

    # --- while the person thinks ----------------------------------------------------------------

    def _look(self) -> None:
        """Say anew what will happen, where that changed; let the button be pressed when all is given."""
        if self.answer is not None:
            self._show(self.deed.after() if self.deed.after is not None else ())
            return
        self._show(self._preface() + list(self.deed.effects()))
        self._go.set_enabled(not self._sending and not self._lacks())

    def _preface(self) -> list[Effect]:
        """What is shown may be old, or come from nobody."""
        link, status = self.store.link, self.store.status()
        if link.is_lost:
            return [Effect(f"The API does not answer, so that this may be old: {link.fault}", tone="warn")]
        if status.fault is not None:
            return [Effect(f"No word of the engine: {status.fault}", tone="warn")]
        return []

    def _lacks(self) -> str:
        """What has yet to be given."""
        if self._reason is not None and not (self._reason.value or "").strip():
            return "a reason"
        if self._word is not None and (self._word.value or "").strip() != self.deed.word:
            return f"the word {self.deed.word}"
        return ""

    def _show(self, effects: Sequence[Effect]) -> None:
        if effects == self._shown:
            return
        self._shown = effects
        self._effects.clear()
        with self._effects:
            for effect in effects:
                with ui.element("div").classes(f"effect {effect.tone}"):
                    ui.label(effect.text)
                    if effect.items:
                        with ui.element("ul"):
                            for item in effect.items:
                                with ui.element("li"):
                                    ui.label(item)

    # --- doing it -----------------------------------------------------------------------------------

    async def send(self) -> None:
        """Have it done. Pressed twice, or again after silence, it is done once."""
        if self._sending or self.answer is not None or self._lacks():
            return
        self._sending = True
        self._go.set_enabled(False)
        self._go.props("loading")
        self._said.clear()
        try:
            answer = await self.store.api.send(self._made())
        except HeanError as failure:
            self._failed(failure)
        else:
            self._done(answer)
        finally:
            self._sending = False
        if not self.dialog.is_deleted:
            self._go.props(remove="loading")
            self._look()
        await asyncio.gather(*(self.store.refresh(path) for path in _TOUCHED))

    def _made(self) -> Command:
        """The command. It stays the same one as long as it says the same."""
        reason = (self._reason.value or "").strip() if self._reason is not None else ""
        made = self.deed.command(reason, person())
        if self._command is None or (self._command.path, self._command.body) != (made.path, made.body):
            self._command = made
        return self._command

    def _done(self, answer: Answer) -> None:
        self.answer = answer
        if self._on_done is not None:
            self._on_done(answer)
        if self.dialog.is_deleted:
            return
        self._form.delete()
        self._go.set_visibility(False)
        self._close.set_text("Close")
        self._show(())
        with self._said:
            ui.label(_sentence(answer.body)).classes("said good")
            request_line(answer.request_id)

    def _failed(self, failure: HeanError) -> None:
        if self.dialog.is_deleted:
            return
        with self._said:
            if isinstance(failure, ApiError) and failure.is_silence:
                ui.label(f"{failure}. Whether it was done is not known.").classes("said warn")
                ui.label("Sending it again is safe: it is the same command, and is done once.").classes("mute")
                self._go.set_text("Send again")
            else:
                ui.label(str(failure)).classes("said bad")
            if isinstance(failure, ApiError):
                request_line(failure.request_id)


class Stopping(Confirmation):
    """A dialog that asks how to stop, with what each way means."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, deeds.stop(store, "graceful"))

    def _before(self) -> None:
        choice = ui.radio(MODES, value="graceful", on_change=lambda event: self._choose(event.value))
        choice.props('inline dense aria-label="How to stop"').classes("deed-modes")

    def _choose(self, mode: str) -> None:
        self.deed = deeds.stop(self.store, mode)
        self._go.set_text(self.deed.verb)
        self._go.classes(remove="kill primary", add="kill" if self.deed.danger else "primary")
        self._look()


class Arming(Confirmation):
    """Two steps: the engine says what would be allowed and asks for a phrase; a person types it."""

    def __init__(self, store: Store) -> None:
        self._asked: Mapping[str, Any] | None = None
        super().__init__(
            store,
            Deed(
                title="Arm live trading",
                verb="Ask to arm",
                path="/engine/arm",
                effects=self._effects_now,
                danger=True,
                reason=False,
            ),
        )

    def _effects_now(self) -> list[Effect]:
        if self._asked is None:
            return [
                Effect("Armed, strategies may open positions with real money.", tone="danger"),
                Effect("First the engine says whether anything stands against it, and what it would allow."),
            ]
        reasons = tuple(self._asked.get("reasons") or ())
        if reasons:
            return [Effect("Live trading cannot be armed, since:", reasons, "warn")]
        allowed = tuple(f"{name}: {plain(value)}" for name, value in (self._asked.get("allowed") or {}).items())
        until = instant(self._asked.get("expires"))
        found = [Effect("Armed, strategies may open positions with REAL MONEY, within:", allowed, "danger")]
        if account := self._asked.get("account"):
            found.append(Effect(f"Account {account}"))
        if until is not None:
            found.append(Effect("The question is good for a minute; then it is asked anew."))
        return found

    def _done(self, answer: Answer) -> None:
        if answer.body.get("armed"):
            super()._done(answer)
            return
        self._asked = answer.body
        phrase = answer.body.get("phrase")
        if self.dialog.is_deleted:
            return
        if not phrase:
            self._go.set_visibility(False)
            self._close.set_text("Close")
            with self._said:
                request_line(answer.request_id)
            return
        self.deed = Deed(
            title=self.deed.title,
            verb="Arm live trading",
            path=self.deed.path,
            body={"nonce": answer.body.get("nonce"), "phrase": phrase},  # it is sent only once it has been typed
            effects=self._effects_now,
            word=phrase,
            danger=True,
            reason=False,
        )
        self._go.set_text(self.deed.verb)
        self._form.clear()
        with self._form:
            self._word_input()

    def _failed(self, failure: HeanError) -> None:
        """A question that was answered wrongly, or too late, is asked anew."""
        super()._failed(failure)
        if isinstance(failure, ApiError) and not failure.is_silence and self._asked is not None:
            self._asked = None
            self._form.clear()
            self._word = None
            self.deed = Deed(
                title=self.deed.title,
                verb="Ask again",
                path=self.deed.path,
                effects=self._effects_now,
                danger=True,
                reason=False,
            )
            self._go.set_text(self.deed.verb)


def request_line(request_id: str) -> None:
    """Under which name the logs tell what became of it."""
    if request_id:
        with ui.element("div").classes("line tight request"):
            ui.label("request").classes("mute")
            ui.link(request_id[:8], f"/logs?trace={request_id}").classes("mono").props(
                f'title="{request_id}: its story in the logs"'
            )


def _sentence(body: Mapping[str, Any]) -> str:
    if "run_id" in body and "said" not in body:
        return f"{body['run_id']} is {str(body.get('status') or 'under way').lower()}."
    said = str(body.get("said") or "done")
    return said[:1].upper() + said[1:] + ("" if said.endswith(".") else ".")
