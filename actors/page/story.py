"""The whole story of one order or request: from what wanted it through risk, broker and venue to the books, as the logs tell it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from actors.page import lines
from actors.page.client import ApiError
from actors.page.layout import empty
from actors.page.lines import LogLine
from actors.page.store import Store
from actors.page.words import price, quantity


class Story:
    """A dialog with the story, open from when it is made.

    Args:
        store: Through what it is asked for.
        sought: An order's id, or a trace.
        order: What is known of the order, where it is one.
    """

    def __init__(self, store: Store, sought: str, order: Mapping[str, Any] | None = None) -> None:
        self._store = store
        self._sought = sought
        self._lines: list[LogLine] = []
        with ui.dialog().props('aria-label="The story of an order"') as self._dialog, ui.card().classes("story"):
            with ui.element("div").classes("line"):
                ui.label("The story of").classes("deed-title")
                ui.label(sought).classes("mono")
                self._count = ui.label("").classes("mute")
            if order is not None:
                ui.label(_said(order)).classes("soft")
            self._body = ui.element("div").classes("story-lines").props('role="log" tabindex="0"')
            with self._body:
                ui.label("Reading the logs …").classes("skeleton")
            with ui.element("div").classes("deed-buttons"):
                ui.link("Show in the logs", f"/logs?trace={quote(sought)}").classes("push-left")
                ui.button("Read again", on_click=self._read).props("unelevated no-caps").classes("plain")
                ui.button("Close", on_click=self._dialog.close).props("unelevated no-caps autofocus").classes("plain")
        self._dialog.on("hide", self._dialog.delete)
        self._dialog.open()
        ui.timer(0, self._read, once=True)

    async def _read(self) -> None:
        try:
            answer = await self._store.api.get(f"/logs/trace/{quote(self._sought, safe='')}")
        except ApiError as fault:
            self._fail(str(fault))
            return
        self._lines = [lines.read(line) for line in answer.get("lines") or ()]
        if not self._dialog.is_deleted:
            self._draw()

    def _fail(self, words: str) -> None:
        if self._dialog.is_deleted:
            return
        self._body.clear()
        with self._body:
            ui.label(f"Its story cannot be told: {words}").classes("failed")

    def _draw(self) -> None:
        self._count.text = f"{len(self._lines)} lines"
        self._body.clear()
        with self._body:
            if not self._lines:
                empty("The logs say nothing of it", "They are kept for a while only: an old order's lines may be gone.")
            began = next((line.at for line in self._lines if line.at is not None), None)
            for line in self._lines:
                _line(line, began)


def _line(line: LogLine, began: float | None) -> None:
    after = "" if line.at is None or began is None else _after(line.at - began)
    with ui.element("div").classes(f"told {line.level}"):
        time = ui.element("time").classes("mono mute")
        if line.at is not None:
            time.props["data-time"] = str(line.at)
        ui.label(after).classes("after")
        with ui.element("div").classes("line tight"):
            ui.label(line.event).classes("what")
            ui.label(line.node).classes("mute")
        if line.words:
            ui.label(line.words).classes("words")


def _after(seconds: float) -> str:
    return f"+{1000 * seconds:.0f} ms" if seconds < 10 else f"+{seconds:.0f} s"


def _said(order: Mapping[str, Any]) -> str:
    """What is known of an order, in one sentence."""
    side = str(order.get("side") or "").lower()
    size = f" {quantity(order['quantity'])}" if order.get("quantity") is not None else ""
    words = f"{order.get('strategy')}: {side}{size} {order.get('instrument')}".strip()
    if status := order.get("status"):
        words += f", {status}"
        if (mean := order.get("average_price")) is not None:
            words += f" {quantity(order.get('filled'))} at {price(mean)}"
    elif (at := order.get("price")) is not None:
        words += f" at {price(at)}"
    reason = order.get("reason")
    return f"{words}: {reason}" if reason else words
