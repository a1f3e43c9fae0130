"""Processes: what may be run, what runs and how far it is, and what came of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from nicegui import ui

from actors.page import dialogs
from actors.page.findings import Table, about
from actors.page.layout import empty, live, panel, told
from actors.page.layout import words as element
from actors.page.sheet import Cell, Column, Sheet, chip
from actors.page.store import Store, Topic
from actors.page.words import UNKNOWN, age, instant, plain

STATUS_TONES: Final = {
    "PENDING": "",
    "RUNNING": "accent",
    "WAITING": "warn",
    "COMPLETED": "good",
    "FAILED": "bad",
    "CANCELED": "",
}
STEP_TONES: Final = {
    "RUNNING": "accent",
    "FINISHED": "good",
    "FAILED": "bad",
    "TIMED_OUT": "bad",
    "INTERRUPTED": "warn",
    "CANCELED": "",
}
UNDER_WAY: Final = frozenset({"PENDING", "RUNNING", "WAITING"})


def build(store: Store) -> None:
    Runs(store)


class Runs:
    """The view: the processes there are, the runs, and one run in full.

    Args:
        store: What is known.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._chosen = ""
        self._offered: Any = None
        self._drawn: Any = None
        with ui.element("div").classes("grid"):
            with ui.element("div").classes("stack span5 runs"):
                with panel("Runs", self._look, store=store, limit_s=30):
                    with ui.element("div").classes("filters"):
                        self._text = ui.input(placeholder="Run or process  /", on_change=self._draw)
                        self._text.props('outlined dense clearable aria-label="Filter by run or process"').classes(
                            "filter"
                        )
                        self._status = ui.select(
                            {"": "Every status"} | {one: one.lower() for one in STATUS_TONES},
                            value="",
                            on_change=self._draw,
                        )
                        self._status.props('outlined dense options-dense aria-label="Status"')
                    self._sheet = Sheet(
                        _COLUMNS,
                        empty=("No run yet", "Begin one below, or with `hean process run`."),
                        on_row=self._choose,
                    )
                with panel("Begin", self._look, store=store, limit_s=30):
                    self._offers = ui.element("div").classes("rows")
            with panel("Run", self._look, store=store, limit_s=30, classes="span7"):
                self._run = ui.element("div").classes("stack run")
            live(store, self._draw, self._look)

    def _look(self) -> Topic:
        return self.store.see("/processes", every_s=1.0)

    # --- drawing --------------------------------------------------------------------------------

    def _draw(self) -> None:
        topic = self._look()
        if topic.value is None:
            if self._drawn != str(topic.fault):
                self._drawn = str(topic.fault)
                self._run.clear()
                with self._run:
                    told(topic, "Processes")
            return
        self._offer(topic.value.get("processes") or ())
        runs = topic.value.get("runs") or ()
        wanted = [run for run in runs if self._wants(run)]
        if not self._chosen and wanted:
            self._chosen = str(wanted[0]["run_id"])
        self._sheet.show([_row(run, is_chosen=run["run_id"] == self._chosen) for run in wanted])
        self._show(next((run for run in runs if run["run_id"] == self._chosen), None))

    def _offer(self, processes: Any) -> None:
        if processes == self._offered:
            return
        self._offered = processes
        self._offers.clear()
        with self._offers:
            for process in processes:
                with ui.element("div").classes("item"):
                    with ui.element("div").classes("grow"):
                        ui.label(process["name"]).classes("process-name")
                        ui.label(process["about"]).classes("mute")
                    begin = ui.button(
                        "Begin …", on_click=lambda process=process: Form(self.store, process, self._begun)
                    )
                    begin.props(f'unelevated dense no-caps aria-label="Begin {process["name"]}"').classes("plain")

    def _wants(self, run: Mapping[str, Any]) -> bool:
        sought = (self._text.value or "").strip().lower()
        return (
            not self._status.value or run.get("status") == self._status.value
        ) and sought in f"{run.get('run_id')} {run.get('process')}".lower()

    def _choose(self, run_id: str) -> None:
        self._chosen = run_id
        self._draw()

    def _begun(self, run_id: str) -> None:
        """Show what was just begun."""
        self._chosen = run_id

    def _show(self, run: Mapping[str, Any] | None) -> None:
        if run == self._drawn:
            return
        self._drawn = run
        self._run.clear()
        with self._run:
            if run is None:
                empty("No run is chosen", "Click one on the left, or begin one.")
            else:
                self._one(run)

    def _one(self, run: Mapping[str, Any]) -> None:
        status = str(run.get("status"))
        with ui.element("div").classes("line"):
            ui.label(run["run_id"]).classes("deed-title")
            chip(status.lower(), STATUS_TONES.get(status, ""))
            with ui.element("div").classes("line tight push"):
                if status == "WAITING" and run.get("waits_for"):
                    self._button("Do it again", lambda: dialogs.decide_run(self.store, run, True), "primary")
                    self._button("Give it up", lambda: dialogs.decide_run(self.store, run, False), "plain")
                if status in UNDER_WAY:
                    self._button("End the run", lambda: dialogs.cancel_run(self.store, run), "kill-quiet")
        if run.get("waits_for"):
            ui.label(f"Waits: {run['waits_for']}").classes("warn")
        if run.get("reason"):
            ui.label(run["reason"]).classes("bad" if status == "FAILED" else "soft")
        _times(run)
        _progress(run.get("steps") or ())
        if run.get("arguments"):
            with ui.expansion("Asked for with").classes("asked"), ui.element("div").classes("kept"):
                for name, value in run["arguments"].items():
                    ui.label(name)
                    ui.label(plain(value)).classes("mono")
        for step in run.get("steps") or ():
            _step(step)

    def _button(self, words: str, told: Callable[[], Any], kind: str) -> None:
        ui.button(words, on_click=told).props("unelevated dense no-caps").classes(kind)


# --- parts of a run -------------------------------------------------------------------------------


def _row(run: Mapping[str, Any], *, is_chosen: bool) -> dict[str, Any]:
    steps = run.get("steps") or ()
    done = sum(1 for step in steps if step.get("status") == "FINISHED")
    status = str(run.get("status"))
    return {
        "key": run["run_id"],
        "tone": "here" if is_chosen else "",
        "run": Cell(_short(run["run_id"]), hint=run["run_id"]),
        "status": Cell(status.lower(), STATUS_TONES.get(status, ""), badge=True),
        "steps": Cell(f"{done}/{len(steps)}", bar=100 * done / len(steps) if steps else 0.0),
        "asked": Cell(since=instant(run.get("asked"))),
    }


def _short(run_id: str) -> str:
    """A run's id; of a long key the end, which tells it from others."""
    process, _, key = run_id.partition("@")
    return run_id if len(run_id) <= _SHORT else f"{process}@…{key[-6:]}"


def _times(run: Mapping[str, Any]) -> None:
    began, ended = instant(run.get("began")), instant(run.get("ended"))
    with ui.element("div").classes("line soft times"):
        ui.label("Asked for")
        _time(instant(run.get("asked")))
        if began is not None:
            ui.label("· began")
            _time(began)
        if ended is not None:
            ui.label("· ended")
            _time(ended)
            if began is not None:
                ui.label(f"· took {age(ended - began) if ended - began >= 10 else f'{ended - began:.1f} s'}")


def _time(at: float | None) -> None:
    if at is None:
        ui.label(UNKNOWN)
        return
    ui.element("time").props["data-time"] = str(at)


def _progress(steps: Any) -> None:
    if not steps:
        return
    done = sum(1 for step in steps if step.get("status") == "FINISHED")
    with (
        ui.element("div")
        .classes("progress")
        .props(
            f'role="progressbar" aria-valuemin="0" aria-valuemax="{len(steps)}" aria-valuenow="{done}" aria-label="Steps that are finished"'
        )
    ):
        for step in steps:
            ui.element("i").classes(STEP_TONES.get(str(step.get("status")), ""))


def _step(step: Mapping[str, Any]) -> None:
    status = str(step.get("status"))
    began, ended = instant(step.get("began")), instant(step.get("ended"))
    with ui.element("div").classes("step-of-run"):
        with ui.element("div").classes("line"):
            ui.label(str(step.get("name"))).classes("process-name")
            chip(status.lower().replace("_", " "), STEP_TONES.get(status, ""))
            if (step.get("attempts") or 0) > 1:
                ui.label(f"attempt {step['attempts']}").classes("warn")
            if began is not None and ended is not None:
                ui.label(f"{ended - began:.1f} s").classes("mute num")
            elif began is not None:
                ui.label("for").classes("mute")
                ui.element("span").classes("since mute").props["data-since"] = str(began)
        if step.get("reason"):
            ui.label(str(step["reason"])).classes("bad" if status in {"FAILED", "TIMED_OUT"} else "soft")
        if step.get("output") is not None:
            _output(step["output"])


def _output(output: Any) -> None:
    """What a step found: its figures, its tables, and where its report lies."""
    found = about(output)
    if found.report:
        with ui.element("div").classes("line report"):
            ui.label("Report").classes("mute")
            ui.label(found.report).classes("mono")
            copy = ui.button("Copy", on_click=lambda: ui.clipboard.write(found.report)).props(
                "unelevated dense no-caps"
            )
            copy.props('title="Copy where it lies, to open it in a browser"').classes("plain offer")
    for caution in found.cautions:
        ui.label(caution).classes("warn")
    if found.figures:
        with ui.element("div").classes("kept"):
            for name, value in found.figures:
                ui.label(name)
                ui.label(value).classes("num")
    for table in found.tables:
        _table(table)


def _table(table: Table) -> None:
    with ui.expansion(f"{table.name} ({len(table.rows)})", value=len(table.rows) <= _OPEN).classes("asked"):
        columns = [Column(name, name, number=name in table.numbers, wide=name in table.wide) for name in table.columns]
        Sheet(columns, empty=("None", ""), sortable=True).show(
            [{"key": str(place), **row} for place, row in enumerate(table.rows)]
        )


_OPEN: Final = 12
_SHORT: Final = 28

_COLUMNS: Final = (
    Column("run", "Run"),
    Column("status", "Status"),
    Column("steps", "Steps", number=True),
    Column("asked", "Asked for", number=True, hint="How long ago"),
)


# --- asking for one -------------------------------------------------------------------------------


class Form:
    """A dialog made of what a process takes; what is given is shown once more before it begins.

    Args:
        store: Through what it is begun.
        process: The process, as the API tells of it.
        begun: Told the id of the run.
    """

    def __init__(self, store: Store, process: Mapping[str, Any], begun: Callable[[str], None]) -> None:
        self._store = store
        self._process = process
        self._begun = begun
        self._fields: dict[str, ui.input] = {}
        with ui.dialog().props('aria-labelledby="form-title"') as self._dialog, ui.card().classes("deed"):
            ui.label(f"Begin {process['name']}").classes("deed-title").props('id="form-title"')
            ui.label(process["about"]).classes("soft")
            with ui.element("div").classes("deed-form process-form"):
                for taken in process.get("takes") or ():
                    self._field(taken)
                self._further = self._more(str(process.get("further") or ""))
                with _explained(
                    "a name for this run, if you like: asked for again, it goes on instead of beginning anew"
                ):
                    self._key = ui.input("Key").props("outlined dense maxlength=64")
            self._lack = ui.label("").classes("bad")
            with ui.element("div").classes("deed-buttons"):
                ui.button("Cancel", on_click=self._dialog.close).props("unelevated no-caps").classes("plain")
                ui.button("Go on", on_click=self._ask).props("unelevated no-caps").classes("primary")
        self._dialog.on("hide", self._dialog.delete)
        self._dialog.open()

    def _field(self, taken: Mapping[str, Any]) -> None:
        usual = taken.get("usual")
        name = str(taken["name"])
        with _explained(str(taken.get("about") or "")):
            made = ui.input(name + (" *" if usual is None else ""), value=str(usual or "")).props("outlined dense")
        if usual is None:
            made.props('aria-required="true"')
        self._fields[name] = made

    def _more(self, further: str) -> ui.textarea | None:
        if not further:
            return None
        with _explained(further):
            return ui.textarea("Further, one a line").props("outlined dense autogrow input-class=mono")

    def _ask(self) -> None:
        """Show what will be begun, unless something lacks."""
        usual = {str(one["name"]): one.get("usual") for one in self._process.get("takes") or ()}
        given = {name: (field.value or "").strip() for name, field in self._fields.items()}
        lacking = [name for name, value in given.items() if usual[name] is None and not value]
        if lacking:
            self._lack.set_text(f"{lacking[0]} must be given.")
            return
        arguments = {name: value for name, value in given.items() if value != (usual[name] or "")}
        for line in (self._further.value or "").splitlines() if self._further is not None else ():
            if line.strip():
                name, equals, value = line.partition("=")
                if not equals or not name.strip():
                    self._lack.set_text(f"“{line.strip()}” should be written name=value.")
                    return
                arguments[name.strip()] = value.strip()
        self._dialog.close()
        dialogs.begin_process(
            self._store, self._process["name"], arguments, (self._key.value or "").strip(), self._begun
        )


@contextmanager
def _explained(words: str) -> Iterator[None]:
    """A field with what it means below it."""
    with ui.element("div").classes("taken"):
        yield
        if words:
            element("small", words)
