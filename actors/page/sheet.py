"""A table that lives: rows known by a key, of which only those that changed are sent to the browser."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, structs
from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from actors.page.words import UNKNOWN

DASH = {"text": UNKNOWN, "tone": "mute", "unknown": True}


class Column(Struct, frozen=True):
    """A column. `number` sets digits to the right, `mono` writes names of machines, `flash` lights up for a moment what changed.

    `wide` columns may wrap, and take what room is left.
    """

    name: str
    title: str
    number: bool = False
    mono: bool = False
    flash: bool = False
    wide: bool = False
    hint: str = ""


class Cell(Struct, frozen=True, omit_defaults=True):
    """A cell. `since` (seconds since the epoch) is written as an age that goes on by itself, `time` as a time of day.

    `note` is small print after the text; `bar` fills that percentage of a meter; `badge` draws the text as a chip. `spark`
    is a line of what was, oldest first, broken where it is None. `sort` is what it is sorted by, where not by what is written.
    """

    text: str = UNKNOWN
    tone: str = ""
    hint: str = ""
    note: str = ""
    since: float | None = None
    time: float | None = None
    bar: float | None = None
    badge: bool = False
    spark: tuple[float | None, ...] = ()
    sort: float | None = None


class Sheet(Element, component="static/sheet.js"):
    """A table.

    Args:
        columns: Which, from left to right.
        key: The name under which each row says who it is.
        empty: What is said where there are no rows: what that means, and what to do.
        on_row: Told the key of a row that was clicked.
        sortable: Whether a click on a column's head sorts by it, in the browser.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        key: str = "key",
        empty: tuple[str, str] = ("Nothing yet", ""),
        on_row: Callable[[str], Any] | None = None,
        sortable: bool = False,
    ) -> None:
        super().__init__()
        self._columns = tuple(columns)
        self._key = key
        self._shown: dict[str, dict[str, Any]] = {}
        self._props["columns"] = [_column(one) for one in columns]
        self._props["empty"] = list(empty)
        self._props["clickable"] = on_row is not None
        self._props["sortable"] = sortable
        self._props["rows"] = []
        if on_row is not None:
            told = on_row

            def clicked(event: GenericEventArguments) -> None:
                told(str(event.args))

            self.on("row", clicked)

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows and no others. A row's `tone` colours it whole; a value is a Cell, a text, or None for unknown."""
        wanted = {str(row[self._key]): self._row(row) for row in rows}
        changed = {key: row for key, row in wanted.items() if self._shown.get(key) != row}
        moved = list(wanted) != list(self._shown)
        if not changed and not moved:
            return
        self._shown = wanted
        with (
            self._props.suspend_updates()
        ):  # who comes later is built from these; who is here is told the changes alone
            self._props["rows"] = list(wanted.items())
        self.run_method("patch", list(wanted) if moved else None, changed)

    def say_empty(self, title: str, words: str) -> None:
        """What is said where there are no rows."""
        if self._props["empty"] != [title, words]:
            self._props["empty"] = [title, words]

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"tone": row.get("tone", ""), "cells": [_cell(row.get(column.name)) for column in self._columns]}


def _column(column: Column) -> dict[str, Any]:
    kind = "number" if column.number else "mono" if column.mono else ""
    told = {"name": column.name, "title": column.title, "kind": kind, "hint": column.hint}
    return told | {"flash": column.flash, "wide": column.wide}


def _cell(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return DASH
    if isinstance(value, Cell):
        told = {
            name: one for name, one in structs.asdict(value).items() if one not in (None, "", ()) and one is not False
        }
        if value.text == UNKNOWN and value.since is None and value.time is None:
            told |= {"tone": value.tone or "mute", "unknown": True}
        return told
    return DASH if value == UNKNOWN else {"text": str(value)}


def chip(text: str, tone: str = "", hint: str = "") -> ui.label:
    """A small word in a frame."""
    made = ui.label(text).classes(f"chip {tone}")
    if hint:
        made.props["title"] = hint
    return made
