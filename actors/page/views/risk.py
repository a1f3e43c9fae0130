"""Risk: may we trade, how much of each limit is used, what was refused, and the levers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from actors.page import dialogs
from actors.page.layout import TRADING_TONES, born, live, panel, since, text, told, toned, words
from actors.page.sheet import Cell, Column, Sheet
from actors.page.store import Store, Topic
from actors.page.views.dashboard import WORTH_SAYING, short
from actors.page.words import UNKNOWN, instant, measured, money, number, percent, plain, spoken

Row = Mapping[str, Any]

GROUPS: Final = (
    ("Exposure", ("GROSS_EXPOSURE", "MARGIN", "STRESS_MARGIN", "SYMBOL_EXPOSURE", "STRATEGY_BUDGET", "MAX_NAKED")),
    ("Losses", ("DAILY_LOSS", "DRAWDOWN")),
    ("Working order", ()),
)
"""Limits as they belong together; what no group names stands in the last."""

TOLD: Final = {
    "KillSwitchTripped": ("killed", "danger"),
    "TradingStateChanged": ("trading", "accent"),
    "Discrepancy": ("differs", "bad"),
    "BooksAdjusted": ("adjusted", "warn"),
    "StrategySwitched": ("switched", ""),
    "NodeFailed": ("failed", "bad"),
}
KEPT: Final = 60
NEAR, FULL = 0.75, 0.95
TINY: Final = 0.001
SELF_EVIDENT: Final = {"share", "s"}
"""Units that belong to each figure; others are said once, after the limit."""


def build(store: Store) -> None:
    def look() -> Topic:
        return store.see("/risk", every_s=1.0)

    with ui.element("div").classes("grid reordered"):
        with ui.element("div").classes("stack span8"):
            _state(store, look)
            _limits(store, look)
            _refusals(store, look)
        with ui.element("div").classes("stack span4"):
            _levers(store)
            _history(store)


# --- may we trade ---------------------------------------------------------------------------------


def _state(store: Store, look: Callable[[], Topic]) -> None:
    with panel("Trading", look, store=store, classes="first"):
        with ui.element("div").classes("line verdict"):
            state = ui.label("…").classes("big")
            reason = ui.label().classes("soft grow")
        with ui.element("div").classes("facts"):
            switch, naked, differ = (_fact(name) for name in ("Kill switch", "Unhedged value", "Books and venue"))
        blocked = ui.element("div")
        shown: list[Any] = [None]

        def refresh() -> None:
            topic, status = look(), store.status().value or {}
            body = topic.value
            if body is None:
                text(state, "unknown")
                return
            trading = body["trading"]
            text(state, "KILLED" if body["tripped"] else trading or "unknown")
            toned(state, "big", "danger" if body["tripped"] else TRADING_TONES.get(str(trading), "warn"))
            text(reason, body["reason"] if trading else "risk cannot be asked; while that is so, nothing is opened")
            text(switch, f"pulled: {body['tripped']}" if body["tripped"] else "not pulled")
            toned(switch, "", "danger" if body["tripped"] else "good")
            bare = number(body["naked"])
            text(naked, UNKNOWN if bare is None else f"{money(bare)}")
            toned(naked, "num", "mute" if bare is None else "warn" if bare >= WORTH_SAYING else "good")
            count = status.get("discrepancies")
            text(differ, "not compared yet" if count is None else f"{count} differences" if count else "agree")
            toned(differ, "", "warn" if count is None else "bad" if count else "good")
            reasons = status.get("blocked") or []
            if shown[0] != reasons:
                shown[0] = list(reasons)
                blocked.clear()
                with blocked:
                    for one in reasons:
                        with ui.element("div").classes("line tight below"):
                            ui.label("blocked").classes("chip warn")
                            ui.label(one)

        live(store, refresh, look, store.status)


def _fact(name: str) -> TextElement:
    with ui.element("div"):
        ui.label(name).classes("mute")
        return words("b", UNKNOWN)


# --- limits ---------------------------------------------------------------------------------------


class _Limit:
    """One limit's bar."""

    def __init__(self, row: Row) -> None:
        with ui.element("div").classes("limit") as self.box:
            with words("span") as name:
                words("span", spoken(row["rule"]).capitalize())
                words("span", f" {_subject(row)}").classes("mute")
            self._figure = words("span").classes("num")
            with (
                ui.element("div")
                .classes("track")
                .props('role="meter" aria-valuemin="0" aria-valuemax="100"') as self._track
            ):
                self._fill = ui.element("div").classes("fill")
            name.props["title"] = row["rule"]
        self._shown: tuple[Any, ...] = ()

    def show(self, row: Row) -> None:
        used, limit = row["used"], row["limit"]
        told_ = (used, limit)
        if told_ == self._shown:
            return
        self._shown = told_
        if used is None:
            text(self._figure, f"{UNKNOWN} of {_amount(limit, row['unit'])}")
            toned(self._figure, "num", "mute")
            toned(self._fill, "fill", "unknown")
            self._track.props["aria-valuetext"] = "unknown"
            return
        part = used / limit if limit else 1.0
        text(
            self._figure,
            f"{_amount(used, row['unit'] if row['unit'] in SELF_EVIDENT else '')} of {_amount(limit, row['unit'])}",
        )
        state = "bad" if part >= FULL else "warn" if part >= NEAR else ""
        toned(self._figure, "num", "danger" if state == "bad" else state)
        toned(self._fill, "fill", state)
        self._fill.style(f"width:{min(max(part, 0.0), 1.0) * 100:.1f}%")
        self._track.props["aria-valuenow"] = f"{part * 100:.0f}"


def _subject(row: Row) -> str:
    return "" if row["subject"] == "account" else short(row["subject"])


def _amount(value: float, unit: str) -> str:
    match unit:
        case "share" if 0 < value < TINY:
            return f"under {percent(TINY, 1)}"
        case "share":
            return percent(value, 1)
        case "s":
            return f"{value:,.1f} s" if value < 10 else f"{value:,.0f} s"
        case _:
            return measured(value, unit)


def _limits(store: Store, look: Callable[[], Topic]) -> None:
    with panel("Limits", look, store=store, note="how much of each is used"):
        box = ui.element("div").classes("limit-groups")
        drawn: dict[str, _Limit] = {}

        def refresh() -> None:
            topic = look()
            rows = (topic.value or {}).get("limits") or ()
            names = [f"{row['rule']} {row['subject']}" for row in rows]
            if not drawn or sorted(drawn) != sorted(names):
                drawn.clear()
                box.clear()
                with box:
                    if told(topic, "The limits") and not rows:
                        ui.label("Risk has not said its limits yet: it does once the engine runs.").classes("empty")
                    for title, members in _grouped(rows):
                        with ui.element("div").classes("bars"):
                            ui.label(title).classes("head-small")
                            drawn.update({f"{row['rule']} {row['subject']}": _Limit(row) for row in members})
            for row in rows:
                drawn[f"{row['rule']} {row['subject']}"].show(row)

        live(store, refresh, look, every_s=1.0)


def _grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    named = {rule for _, rules in GROUPS for rule in rules}
    found = []
    for title, rules in GROUPS:
        members = [row for row in rows if (row["rule"] in rules if rules else row["rule"] not in named)]
        if rules:
            members.sort(key=lambda row: rules.index(row["rule"]))
        if members:
            found.append((title, members))
    return found


# --- refusals -------------------------------------------------------------------------------------


def _refusals(store: Store, look: Callable[[], Topic]) -> None:
    with panel("Refused", look, store=store, note="signals that risk said no to") as card:
        card.body.classes("flush")
        sheet = Sheet(
            [
                Column("rule", "Rule"),
                Column("strategy", "Strategy"),
                Column("instrument", "Instrument"),
                Column("count", "Times", number=True, flash=True),
                Column("measured", "Measured", number=True),
                Column("limit", "Limit", number=True),
                Column("age", "Last", number=True),
            ],
            empty=("Nothing was refused", "Every signal so far was within the limits."),
        )

        def refresh() -> None:
            topic = look()
            sheet.show(
                [
                    {
                        "key": f"{one['strategy']} {one['rule']}",
                        "rule": spoken(one["rule"]).lower(),
                        "strategy": one["strategy"],
                        "instrument": short(one["instrument"]),
                        "count": f"{one['count']:,}",
                        "measured": one["measured"],
                        "limit": one["limit"],
                        "age": Cell(since=born(topic, one["age_s"])),
                    }
                    for one in (topic.value or {}).get("refusals") or ()
                ]
            )

        live(store, refresh, look, every_s=1.0)


# --- the levers -----------------------------------------------------------------------------------


def _levers(store: Store) -> None:
    with panel("Levers", note="each says first what will happen", classes="second"):
        with ui.element("div").classes("levers"):
            start = _lever("Start trading", dialogs.start, store, "primary")
            stop = _lever("Stop …", dialogs.stop, store, "plain")
            _lever("Close everything …", dialogs.flatten, store, "kill-quiet")
            _lever("Kill switch …", dialogs.kill, store, "kill")
            reset = _lever("Reset kill switch …", dialogs.reset, store, "plain")
            arm = _lever("Arm real money …", dialogs.arm, store, "kill-quiet")
        said = ui.label().classes("mute below")

        def refresh() -> None:
            status = store.status().value or {}
            is_tripped = bool(status.get("tripped"))
            is_live = status.get("venue") == "live"
            _enable(start, on=not is_tripped and status.get("trading") != "ACTIVE")
            _enable(stop, on=status.get("trading") not in {None, "HALTED"})
            _enable(reset, on=is_tripped)
            _enable(arm, on=is_live)
            against = status.get("permit") or ()
            text(
                said,
                f"Real money: {'; '.join(against)}"
                if is_live and against
                else ""
                if is_live
                else "No real money is at stake here.",
            )

        live(store, refresh, store.status, every_s=1.0)


def _lever(title: str, dialog: Callable[[Store], Any], store: Store, classes: str) -> ui.button:
    return ui.button(title, on_click=lambda: dialog(store), color=None).props("unelevated").classes(classes)


def _enable(button: ui.button, *, on: bool) -> None:
    if button.enabled != on:
        button.set_enabled(on)


# --- what befell ----------------------------------------------------------------------------------


def _history(store: Store) -> None:
    with panel("Events", store.status, store=store, note="kill switch, trading, books") as card:
        card.body.classes("flush")
        box = ui.element("div").classes("rows history")
        state: dict[str, Any] = {"seen": -1}

        def refresh() -> None:
            if state["seen"] == store.facts.count:
                return
            state["seen"] = store.facts.count
            found = [fact for _, fact in store.facts.since() if fact.get("event") in TOLD][-KEPT:]
            box.clear()
            with box:
                if not found:
                    ui.label("Nothing of the kind was heard since this page began to listen.").classes("empty")
                for fact in reversed(found):
                    word, kind = TOLD[fact["event"]]
                    with ui.element("div").classes("item"):
                        ui.label(word).classes(f"chip {kind}")
                        ui.label(_sentence(fact["event"], fact.get("said") or {})).classes("grow")
                        since(ui.label().classes("mute num"), instant(fact.get("ts")))

        live(store, refresh, every_s=1.0)


def _sentence(event: str, said: Row) -> str:
    match event:
        case "KillSwitchTripped":
            return f"{said.get('cause')}: {plain(said.get('measured'))} against {plain(said.get('limit'))}"
        case "TradingStateChanged":
            return f"{said.get('trading')}: {said.get('reason')}"
        case "Discrepancy":
            return f"{spoken(str(said.get('kind'))).lower()} of {said.get('subject')}: ours {plain(said.get('ours'))}, theirs {plain(said.get('theirs'))}"
        case "BooksAdjusted":
            what = said.get("instrument") or said.get("currency")
            return (
                f"{plain(said.get('quantity'))} {what} of {said.get('strategy') or 'the owner'}: {said.get('reason')}"
            )
        case "StrategySwitched":
            return f"{said.get('strategy')} {'enabled' if said.get('on') else 'disabled'} by {said.get('person') or 'the API'}: {said.get('reason')}"
        case _:
            return f"{said.get('node')}: {said.get('reason')}"
