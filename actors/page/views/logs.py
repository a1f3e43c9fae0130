"""The logs of all processes in one: what is written from now on, or all that belongs to one trace."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from actors.page import lines
from actors.page.client import ApiError
from actors.page.layout import live, panel, text
from actors.page.lines import LEVELS, LogLine
from actors.page.store import Store, Topic

SHOWN: Final = 500
KEPT: Final = 5_000
_ASKED: Final = 500
_EVERY_S: Final = 2.0
_NOTHING: Final = (
    "No line",
    "Nothing that these filters let through has been written. Take a lower level, or another actor.",
)


class LogPane(Element, component="../static/log.js"):
    """The lines. What is added is sent once; nothing in them is ever taken for markup.

    Args:
        on_trace: Told the trace that was clicked.
    """

    def __init__(self, on_trace: Callable[[str], Any]) -> None:
        super().__init__()
        self._props |= {"initial": [], "empty": list(_NOTHING), "kept": SHOWN}
        self._number = 0

        def clicked(event: GenericEventArguments) -> None:
            on_trace(str(event.args))

        self.on("trace", clicked)

    def append(self, added: Iterable[LogLine | str]) -> None:
        """Add lines; a text is a gap, in words."""
        if told := [self._told(one) for one in added]:
            self.run_method("append", told[-SHOWN:])

    def replace(self, found: Iterable[LogLine | str]) -> None:
        self.run_method("replace", [self._told(one) for one in found][-SHOWN:])

    def _told(self, line: LogLine | str) -> dict[str, Any]:
        self._number += 1
        if isinstance(line, str):
            return {"n": self._number, "gap": line}
        return {
            "n": self._number,
            "at": line.at,
            "ts": line.raw["ts"],
            "level": line.level,
            "node": line.node,
            "event": line.event,
            "words": line.words,
            "trace": line.trace,
        }


def build(store: Store) -> None:
    Logs(store, _asked())


class Logs:
    """The view: filters, the lines, and whether they go on.

    Args:
        store: What is known.
        trace: Whose lines alone are shown; empty shows those of all.
    """

    def __init__(self, store: Store, trace: str = "") -> None:
        self.store = store
        self._held: deque[LogLine | str] = deque(maxlen=KEPT)
        self._keys: dict[str, None] = {}
        self._heard = store.logs.count
        self._paused = False
        self._missed = 0
        self._fault = ""
        with panel("Logs", classes="logs"):
            self._filters(trace)
            self._note = ui.label("").classes("tab-sum")
            self._pane = LogPane(self._only)
            live(store, self._nodes, self._names)
            live(store, self._go_on)
        ui.timer(0, self._read, once=True)

    def _filters(self, trace: str) -> None:
        with ui.element("div").classes("filters"):
            self._text = ui.input(placeholder="Text  /", on_change=self._again)
            self._text.props('outlined dense clearable debounce=200 aria-label="Filter by text"').classes("filter")
            levels = {level: "Every level" if level == LEVELS[0] else f"{level} and worse" for level in LEVELS[:-1]}
            self._level = ui.select(levels, value="info", on_change=self._ask_again)
            self._level.props('outlined dense options-dense aria-label="Level"')
            self._node = ui.select({"": "Every actor"}, value="", on_change=self._ask_again)
            self._node.props('outlined dense options-dense aria-label="Actor"')
            self._trace = ui.input(placeholder="Trace, request or order", value=trace, on_change=self._ask_again)
            self._trace.props('outlined dense clearable debounce=300 aria-label="Trace, request or order"')
            self._trace.classes("filter mono")
            self._pause = (
                ui.button("Pause", on_click=self._turn).props("unelevated dense no-caps").classes("plain push")
            )
            export = ui.button("JSON lines", on_click=self._export).props("unelevated dense no-caps")
            export.props('title="Save these lines as a file"').classes("plain")

    # --- where lines come from ------------------------------------------------------------------

    async def _read(self) -> None:
        """Ask for what was written so far: of a trace its whole story, else the newest lines."""
        self._heard = self.store.logs.count
        sought = self._sought()
        try:
            if sought:
                answer = await self.store.api.get(f"/logs/trace/{quote(sought, safe='')}")
            else:
                answer = await self.store.api.get("/logs", **self._query())
        except ApiError as fault:
            self._fault = f"The logs cannot be read: {fault}"
            self._say()
            return
        if sought != self._sought() or self._pane.is_deleted:
            return  # another was asked for meanwhile
        self._fault = ""
        self._held.clear()
        self._keys = {}
        self._hold(lines.read(line) for line in answer.get("lines") or ())
        self._again()

    def _query(self) -> dict[str, Any]:
        return {"level": self._level.value, "node": self._node.value or None, "limit": _ASKED}

    def _names(self) -> Topic:
        """Whose logs there are."""
        return self.store.see("/logs", every_s=10.0, limit=1)

    def _go_on(self) -> None:
        """Add what was written since."""
        sought = self._sought()
        if self.store.is_streaming:
            told = self.store.logs.since(self._heard)
            self._heard = self.store.logs.count
            found: list[LogLine | str] = [_gap(line["gap"]) if "gap" in line else lines.read(line) for _, line in told]
        else:
            answer = self.store.see("/logs", every_s=_EVERY_S, **self._query()).value or {}
            found = [lines.read(line) for line in answer.get("lines") or ()]
        of_it = [line for line in found if not sought or isinstance(line, str) or line.is_of(sought)]
        added = [line for line in self._hold(of_it) if self._wants(line)]
        if self._paused:
            self._missed += len(added)
        else:
            self._pane.append(added)
        self._say()

    def _hold(self, found: Iterable[LogLine | str]) -> list[LogLine | str]:
        """Keep those that were not heard yet, and return them."""
        new = []
        for line in found:
            if isinstance(line, LogLine):
                if line.key in self._keys:
                    continue
                self._keys[line.key] = None
                while len(self._keys) > KEPT:
                    del self._keys[next(iter(self._keys))]
            self._held.append(line)
            new.append(line)
        return new

    # --- what is shown --------------------------------------------------------------------------

    def _wants(self, line: LogLine | str) -> bool:
        if isinstance(line, str):
            return True
        words = (self._text.value or "").strip().lower()
        return (
            line.is_at_least(self._level.value)
            and (not self._node.value or line.node == self._node.value)
            and (not words or line.names(words))
        )

    def _again(self) -> None:
        self._missed = 0
        self._pane.replace([line for line in self._held if self._wants(line)])
        self._say()

    async def _ask_again(self) -> None:
        await self._read()

    def _only(self, trace: str) -> None:
        self._trace.set_value(trace)

    def _turn(self) -> None:
        self._paused = not self._paused
        self._pause.set_text("Go on" if self._paused else "Pause")
        if not self._paused:
            self._again()

    def _say(self) -> None:
        """How many lines, and what is not shown."""
        sought = self._sought()
        words = self._fault
        if not words and self._paused:
            words = f"Paused: {self._missed} lines were written since." if self._missed else "Paused."
        elif not words and sought:
            words = f"All that belongs to {sought}."
        elif not words and not self.store.is_streaming:
            words = f"The newest lines are asked for every {_EVERY_S:g} s: {self.store.link.fault or 'there is no stream yet'}."
        text(self._note, words)

    def _nodes(self) -> None:
        found = (self._names().value or {}).get("nodes") or ()
        options = {"": "Every actor"} | {str(node): str(node) for node in found}
        if self._node.value and self._node.value not in options:
            options[self._node.value] = self._node.value
        if options != self._node.options:
            self._node.set_options(options)

    def _sought(self) -> str:
        return (self._trace.value or "").strip()

    def _export(self) -> None:
        found = [line for line in self._held if isinstance(line, LogLine) and self._wants(line)]
        content = "".join(f"{lines.written(line)}\n" for line in found)
        ui.download.content(content, "hean-logs.jsonl", "application/x-ndjson")


def _gap(gap: dict[str, Any]) -> str:
    who = ", ".join(gap.get("nodes") or ()) or "some actors"
    return f"Lines of {who} are missing here: they were gone before they could be read."


def _asked() -> str:
    """The trace that the address names."""
    return parse_qs(urlsplit(ui.context.client.sub_pages_router.current_path).query).get("trace", [""])[0]
