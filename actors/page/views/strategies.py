"""Strategies, a card each: what it saw and what came of it, what it waits for, what it earned, and its parameters."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from actors.page import dialogs
from actors.page.layout import aged, asof, born, empty, live, since, text, told, toned, words
from actors.page.sheet import Cell, Column, Sheet
from actors.page.store import Store, Topic
from actors.page.theme import PARTS
from actors.page.views.dashboard import short
from actors.page.words import (
    UNKNOWN,
    age,
    brief,
    instant,
    money,
    number,
    percent,
    plain,
    price,
    quantity,
    signed,
    spoken,
    tone,
)

Row = Mapping[str, Any]

FUNNEL: Final = (
    ("rows", "rows seen"),
    ("signals", "signals"),
    ("refused", "refused by risk"),
    ("submitted", "orders"),
    ("filled", "orders filled"),
)
ENDS: Final = ("rejected", "canceled", "expired", "unknown")
GATES: Final = (
    ("met: ", "met", "✓", ""),
    ("waits for: ", "waits", "●", ""),
    ("then: ", "then", "○", ""),
    ("holds: ", "holds", "■", "holds "),
    ("leaves when: ", "", "→", "leaves when "),
    ("or when: ", "", "", "or when "),
)
"""How each line of a strategy's own words begins, and how it is drawn."""
TRIPS: Final = 200


def build(store: Store) -> None:
    def look() -> Topic:
        return store.see("/strategies", every_s=1.0)

    def trades() -> Topic:
        return store.see("/trades", every_s=5.0, limit=TRIPS)

    box = ui.element("div").classes("grid level")
    cards: dict[str, Card] = {}

    def refresh() -> None:
        topic = look()
        rows = (topic.value or {}).get("strategies") or ()
        names = [row["name"] for row in rows]
        if list(cards) != names or not cards:
            box.clear()
            cards.clear()
            with box:
                if told(topic, "The strategies") and not rows:
                    empty(
                        "No strategy runs", "Name one in the settings (`strategies`), and begin again with `hean up`."
                    )
                cards.update({row["name"]: Card(store, row, look) for row in rows})
        for row in rows:
            trips = [trip for trip in (trades().value or {}).get("trades") or () if trip["strategy"] == row["name"]]
            cards[row["name"]].show(topic, row, trips, is_known=trades().value is not None)

    live(store, refresh, look, trades, every_s=1.0)


class Card:
    """One strategy."""

    def __init__(self, store: Store, row: Row, look: Callable[[], Topic]) -> None:
        self._store = store
        self._row = row
        self._gates: Sequence[str] | None = None
        self._config: Mapping[str, Any] | None = None
        with ui.element("section").classes("panel span6") as self._card:
            aged(self._card, store, look, 15)
            with ui.element("header").classes("panel-head"):
                ui.label(row["name"]).classes("title")
                self._state = ui.label().classes("chip")
                ui.label(", ".join(short(name) for name in row["instruments"])).classes("note")
                asof()
            with ui.element("div").classes("panel-body stack"):
                with ui.element("div"):
                    self._funnel()
                with ui.element("div").classes("halves"):
                    self._waits()
                    self._result()
                self._last_signal()
                self._refusals()
                self._trips()
                self._parameters()
                self._levers()

    # --- its parts ------------------------------------------------------------------------------

    def _funnel(self) -> None:
        self._steps: dict[str, TextElement] = {}
        with ui.element("div").classes("funnel"):
            for name, title in FUNNEL:
                with ui.element("div").classes("step"):
                    self._steps[name] = words("b", UNKNOWN).classes("num")
                    words("span", title)
        self._ends = ui.label().classes("mute below")

    def _waits(self) -> None:
        with ui.element("div"):
            self._waits_title = ui.label("Waits for").classes("head-small")
            self._waits_box = ui.element("div").classes("gates")

    def _result(self) -> None:
        with ui.element("div"):
            with ui.element("div").classes("line head-small"):
                ui.label("Result")
                self._total = words("b").classes("num push")
            self._bars: dict[str, tuple[Element, Element, TextElement]] = {}
            self._nothing = ui.label("Nobody has said yet: it is known after the first fill.").classes("mute")
            self._parts = ui.element("div").classes("parts")
            with self._parts:
                for part in PARTS:
                    with ui.element("div").classes("part") as line:
                        words("span", part).classes("mute")
                        with ui.element("span").classes("swing"):
                            bar = ui.element("i").style(f"background:var(--part-{part})")
                        amount = words("span").classes("num")
                    self._bars[part] = (line, bar, amount)

    def _last_signal(self) -> None:
        with ui.element("div").classes("line"):
            words("span", "Last signal").classes("head-small")
            self._signal = words("span").classes("grow")
            self._signal_age = words("span").classes("mute num")

    def _refusals(self) -> None:
        with ui.element("div").classes("line") as self._refused_none:
            words("span", "Refused").classes("head-small")
            words("span", "nothing so far")
        self._refused = Sheet(
            [
                Column("rule", "Refused by"),
                Column("count", "Times", number=True, flash=True),
                Column("last", "Last: measured against limit", wide=True),
                Column("age", "Ago", number=True),
            ],
            empty=("Nothing was refused", "Every signal so far was within the limits."),
        )

    def _parameters(self) -> None:
        with ui.element("details").classes("fold"):
            with ui.element("summary"):
                words("span", "Parameters")
                self._share = words("span").classes("mute")
            self._values = ui.element("div").classes("pair two")

    def _levers(self) -> None:
        with ui.element("div").classes("line foot"):
            self._switch = ui.button("", on_click=self._flip, color=None).props("flat dense").classes("plain")
            ui.button("Change parameters …", on_click=self._edit, color=None).props("flat dense").classes("plain")
            self._said = ui.label().classes("mute")

    def _trips(self) -> None:
        with ui.element("details").classes("fold"):
            with ui.element("summary"):
                words("span", "Round trips")
                self._score = words("span").classes("mute num")
            self._trip_sheet = Sheet(
                [
                    Column("closed", "Closed"),
                    Column("what", "What"),
                    Column("entry", "Entry → exit", number=True),
                    Column("held", "Held", number=True),
                    Column("profit", "Profit", number=True),
                ],
                empty=("No round trip is closed yet", "One appears when what was opened is closed again."),
            )

    # --- what they show -------------------------------------------------------------------------

    def show(self, topic: Topic, row: Row, trips: Sequence[Row], *, is_known: bool) -> None:
        self._row = row
        is_on = row["enabled"]
        text(self._state, "unknown" if is_on is None else "enabled" if is_on else "disabled")
        toned(self._state, "chip", "" if is_on is None else "good" if is_on else "warn")
        self._switch.set_text("Disable …" if is_on is not False else "Enable …")
        text(
            self._said,
            "may open positions" if is_on else "opens nothing; what it holds may be closed" if is_on is False else "",
        )
        why = row["why"] or {}
        self._show_funnel(why.get("funnel") or {})
        self._show_waits([*(f"waits for: {one}" for one in why.get("blocked_by") or ()), *(why.get("gates") or ())])
        self._show_result(row["profit"] or {})
        text(self._signal, brief(row["last_signal"]) or ("none since it began" if why else UNKNOWN))
        since(self._signal_age, instant(row["last_signal_at"]))
        self._signal_age.set_visibility(row["last_signal_at"] is not None)
        self._refused.set_visibility(bool(why.get("refusals")))
        self._refused_none.set_visibility(not why.get("refusals"))
        self._refused.show([_refusal(topic, one) for one in why.get("refusals") or ()])
        share = percent(row["share"]) if row["share"] is not None else "share of the equity unknown"
        text(self._share, f"{row['use']}, {share}{' of the equity' if row['share'] is not None else ''}")
        self._show_values(row["config"])
        self._show_trips(trips, is_known=is_known)

    def _show_funnel(self, funnel: Mapping[str, int]) -> None:
        for name, step in self._steps.items():
            text(step, UNKNOWN if funnel.get(name) is None else f"{funnel[name]:,}")
        ends = [f"{funnel[name]:,} {name}" for name in ENDS if funnel.get(name)]
        text(self._ends, f"of the orders: {', '.join(ends)}" if ends else "")

    def _show_waits(self, gates: Sequence[str]) -> None:
        if gates == self._gates:
            return
        self._gates = list(gates)
        text(self._waits_title, "Holds" if any(gate.startswith("holds: ") for gate in gates) else "Waits for")
        self._waits_box.clear()
        with self._waits_box:
            if not gates:
                ui.label("It does not say.").classes("mute")
            for gate in gates:
                kind, mark, said = _gate(gate)
                with ui.element("div").classes(f"gate {kind}"):
                    words("i", mark)
                    words("span", brief(said))

    def _show_result(self, profit: Mapping[str, Any]) -> None:
        values = {part: number(profit.get(part)) for part in PARTS}
        known = [value for value in values.values() if value is not None]
        self._parts.set_visibility(bool(known))
        self._nothing.set_visibility(not known)
        largest = max((abs(value) for value in known), default=None)
        text(self._total, signed(sum(known)) if known else UNKNOWN)
        toned(self._total, "num push", tone(sum(known)) if known else "mute")
        for part, (line, bar, amount) in self._bars.items():
            value = values[part]
            line.set_visibility(part != "adjustments" or bool(value))
            text(amount, signed(value))
            toned(amount, "num", tone(value) if value is not None else "mute")
            width = float(abs(value) / largest) * 50 if value and largest else 0
            left = 50 - width if value is not None and value < 0 else 50
            style = {"left": f"{left:.0f}%", "width": f"{width:.0f}%"}
            if any(bar.style.get(name) != wanted for name, wanted in style.items()):
                bar.style(f"left:{left:.0f}%;width:{width:.0f}%")

    def _show_values(self, config: Mapping[str, Any]) -> None:
        if config == self._config:
            return
        self._config = config
        self._values.clear()
        with self._values:
            for name, value in _flat(config):
                words("span", spoken(name))
                words("span", brief(plain(value))).classes("num")

    def _show_trips(self, trips: Sequence[Row], *, is_known: bool) -> None:
        ended = [trip for trip in trips if trip["closed"] is not None]
        profits = [found for trip in ended if (found := number(trip["pnl"])) is not None]
        won = sum(1 for profit in profits if profit > 0)
        said = [f"{len(ended)} closed, {won} won, {signed(sum(profits))}"] if ended else []
        if len(trips) > len(ended):
            said.append(f"{len(trips) - len(ended)} still open")
        score = "; ".join(said) or ("none yet" if is_known else "")
        text(self._score, score)
        self._trip_sheet.show([_trip(at, trip) for at, trip in enumerate(trips[:12])])

    # --- what may be done -----------------------------------------------------------------------

    def _flip(self) -> None:
        dialogs.switch(self._store, self._row["name"], self._row["enabled"] is False)

    def _edit(self) -> None:
        edit(self._store, self._row, self._card)


def edit(store: Store, row: Row, anchor: Element) -> None:
    """Ask for other parameters; what changes is shown once more, with what it does, before it is done."""
    config: Mapping[str, Any] = row["config"]
    fields: dict[str, Any] = {}
    with ui.dialog() as dialog, ui.card().classes("deed"):
        ui.label(f"Parameters of {row['name']}").classes("deed-title")
        ui.label("What you change is shown once more before anything is done.").classes("mute")
        with ui.element("div").classes("deed-form parameters"):
            for name, value in config.items():
                if isinstance(value, bool):
                    fields[name] = ui.switch(spoken(name), value=value)
                else:
                    fields[name] = ui.input(spoken(name), value=_written(value)).props("outlined dense")
        wrong = ui.label().classes("warn")

        def review() -> None:
            changes: dict[str, Any] = {}
            faults = []
            for name, field in fields.items():
                try:
                    value = _read(config[name], field.value)
                except ValueError as fault:
                    faults.append(f"{spoken(name)}: {fault}")
                    continue
                if value != config[name]:
                    changes[name] = value
            if faults or not changes:
                wrong.set_text("; ".join(faults) or "Nothing is changed yet.")
                return
            dialog.close()
            with anchor:  # not in this dialog, which is about to go
                dialogs.configure(store, row["name"], config, changes)

        with ui.element("div").classes("deed-buttons"):
            ui.button("Cancel", on_click=dialog.close, color=None).props("flat").classes("plain")
            ui.button("Show what changes", on_click=review, color=None).props("unelevated").classes("primary")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read(old: Any, written: Any) -> Any:
    """What a person wrote, as the kind of value it was.

    Raises:
        ValueError: It is none, in words.
    """
    if isinstance(old, (bool, str)):
        return written
    try:
        found = json.loads(written)
    except ValueError:
        raise ValueError(f"{written!r} cannot be read; write it as {json.dumps(old)} is written") from None
    if isinstance(old, (int, float)) and (isinstance(found, bool) or not isinstance(found, (int, float))):
        raise ValueError(f"{written!r} is no number")  # noqa: TRY004 (of a text, not of a type)
    return found


def _flat(config: Mapping[str, Any], under: str = "") -> list[tuple[str, Any]]:
    """Parameters one below the other, also those that are inside another."""
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += _flat(value, f"{under}{name} ") if isinstance(value, Mapping) else [(under + name, value)]
    return found


def _gate(gate: str) -> tuple[str, str, str]:
    """How a line is drawn: its class, its mark and its words."""
    for head, kind, mark, said in GATES:
        if gate.startswith(head):
            return kind, mark, said + gate.removeprefix(head)
    return "", "·", gate


def _refusal(topic: Topic, one: Row) -> dict[str, Any]:
    return {
        "key": one["rule"],
        "rule": spoken(one["rule"]).lower(),
        "count": f"{one['count']:,}",
        "last": Cell(f"{one['measured']} against {one['limit']}", note=short(one["instrument"])),
        "age": Cell(since=born(topic, one["age_s"])),
    }


def _trip(at: int, trip: Row) -> dict[str, Any]:
    names = " and ".join(short(name) for name in trip["instruments"])
    return {
        "key": f"{trip['opened']} {names} {at}",
        "closed": Cell("still open") if trip["closed"] is None else Cell(time=instant(trip["closed"])),
        "what": Cell(f"{trip['side']} {quantity(trip['quantity'])} {names}", note=spoken(trip["closed_by"])),
        "entry": f"{price(trip['entry_price'])} → {price(trip['exit_price'])}",
        "held": age(trip["held_s"]),
        "profit": Cell(
            signed(trip["pnl"]),
            tone=tone(trip["pnl"]),
            hint=f"fees {money(trip['fees'])}, funding {signed(trip['funding'])}",
        ),
    }
