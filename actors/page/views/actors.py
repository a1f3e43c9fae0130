"""Actors: who lives, since when, how often begun anew, how far behind; and the life of the engine itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from nicegui import ui

from actors.page.layout import Tile, born, live, panel, told
from actors.page.sheet import Cell, Column, Sheet
from actors.page.spreadsheet import as_csv
from actors.page.store import Store
from actors.page.words import UNKNOWN, age, number, plain

LATE_MS: Final = 1_000.0
"""A mailbox that is further behind than this is told of in colour."""

_WAIT_MS: Final = 250.0


def build(store: Store) -> None:
    Crew(store)


class Crew:
    """The view.

    Args:
        store: What is known.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        with ui.element("div").classes("stack"):
            self._tiles()
            with panel(
                "Actors", store.status, store=store, note="each a process of its own, watched over by the engine"
            ):
                with ui.element("div").classes("filters"):
                    self._text = ui.input(placeholder="Name or kind  /", on_change=self._draw)
                    self._text.props('outlined dense clearable aria-label="Filter by name or kind"').classes("filter")
                    export = ui.button("CSV", on_click=self._export).props("unelevated dense no-caps")
                    export.props('title="Save these rows as a file"').classes("plain push")
                self._waiting = ui.element("div")
                self._sheet = Sheet(
                    _COLUMNS, empty=("No actor is known", "The engine has begun none yet."), sortable=True
                )
            with ui.element("div").classes("grid"):
                with panel("Market data", store.status, store=store, classes="span6"):
                    self._feeds = Sheet(
                        _FEEDS, empty=("No feed is known", "An instrument appears once it is listened to.")
                    )
                with panel(
                    "Errors", store.status, store=store, classes="span6", note="counted since the journal began"
                ):
                    self._errors = Sheet(_ERRORS, empty=("No error was reported", ""))
            live(store, self._draw, store.status)

    def _tiles(self) -> None:
        with ui.element("div").classes("tiles"):
            self._phase = Tile("Engine")
            self._alive = Tile("Actors that answer")
            self._life = Tile("Life", "Each start counts one more: orders of an earlier life are fenced off")
            self._recovery = Tile(
                "Last start took", "From nothing to trading: journals, venue, reconciliation, warm-up"
            )
            self._restarts = Tile("Begun anew")
            self._lag = Tile("Furthest behind", "The mailbox that is furthest behind")

    # --- drawing --------------------------------------------------------------------------------

    def _draw(self) -> None:
        topic = self.store.status()
        self._waiting.clear()
        with self._waiting:
            if not told(topic, "Actors"):
                return
        status = topic.value
        actors: Sequence[Mapping[str, Any]] = status.get("actors") or ()
        self._show_tiles(status, actors)
        rows = [self._row(actor, born(topic, actor.get("age_s"))) for actor in actors if self._wants(actor)]
        self._sheet.show(rows)
        self._feeds.show([_feed(feed, born(topic, feed.get("age_s"))) for feed in status.get("feeds") or ()])
        self._errors.show(
            [
                {"key": f"{node} {kind}", "node": node, "kind": kind, "count": f"{count:,}"}
                for node, kinds in (status.get("errors") or {}).items()
                for kind, count in kinds.items()
            ]
        )

    def _show_tiles(self, status: Mapping[str, Any], actors: Sequence[Mapping[str, Any]]) -> None:
        blocked = status.get("blocked") or ()
        self._phase.show(
            str(status.get("phase") or UNKNOWN), below=blocked[0] if blocked else str(status.get("reason") or "")
        )
        alive = sum(1 for one in actors if one.get("alive"))
        silent = [one["name"] for one in actors if not one.get("alive")]
        self._alive.show(
            f"{alive} of {len(actors)}",
            "bad" if silent else "",
            f"silent: {', '.join(silent)}" if silent else "all of them",
            "bad" if silent else "",
        )
        self._life.show(plain(status.get("epoch")))
        took = number(status.get("recovery_s"))
        self._recovery.show(UNKNOWN if took is None else f"{took:.1f} s")
        again = {one["name"]: one.get("restarts") or 0 for one in actors}
        most = max(again, key=lambda name: again[name], default="")
        below = f"{again[most]} of them {most}" if most and again[most] else "none of them"
        self._restarts.show(f"{sum(again.values())}", below=below)
        lags = {one["name"]: lag for one in actors if (lag := number(one.get("lag_ms"))) is not None}
        last = max(lags, key=lambda name: lags[name], default="")
        self._lag.show(_lag(lags.get(last)), _lag_tone(lags.get(last)), last)

    def _row(self, actor: Mapping[str, Any], begun: float | None) -> dict[str, Any]:
        name = str(actor.get("name"))
        lag = number(actor.get("lag_ms"))
        history = tuple(self.store.lags(name))
        return {
            "key": name,
            "tone": "" if actor.get("alive") else "bad",
            "name": name,
            "kind": Cell(str(actor.get("kind") or ""), "mute"),
            "pid": None if actor.get("pid") is None else str(actor["pid"]),
            "alive": Cell("answers", "good", badge=True) if actor.get("alive") else Cell("silent", "bad", badge=True),
            "age": Cell(since=begun),
            "restarts": Cell(str(actor.get("restarts") or 0), "warn" if actor.get("restarts") else "mute"),
            "lag": Cell(_lag(lag), _lag_tone(lag), hint=_past(history), spark=history),
            "told": None if actor.get("told") is None else f"{actor['told']:,}",
            "said": None if actor.get("said") is None else f"{actor['said']:,}",
            "detail": actor.get("detail"),
        }

    def _wants(self, actor: Mapping[str, Any]) -> bool:
        sought = (self._text.value or "").strip().lower()
        return sought in f"{actor.get('name')} {actor.get('kind')} {actor.get('detail')}".lower()

    def _export(self) -> None:
        actors = [one for one in (self.store.status().value or {}).get("actors") or () if self._wants(one)]
        ui.download.content(as_csv(_CSV, actors), "hean-actors.csv", "text/csv")


def _lag(lag: Any) -> str:
    if lag is None:
        return UNKNOWN
    return f"{lag:.1f} ms" if lag < 100 else f"{lag:,.0f} ms" if lag < 10_000 else age(float(lag) / 1000)


def _lag_tone(lag: Any) -> str:
    return "mute" if lag is None else "bad" if lag > LATE_MS else "warn" if lag > _WAIT_MS else ""


def _past(history: Sequence[float | None]) -> str:
    known = [lag for lag in history if lag is not None]
    return f"the last {len(history)} s: {min(known):.1f} to {max(known):.1f} ms" if known else ""


def _feed(feed: Mapping[str, Any], heard: float | None) -> dict[str, Any]:
    seen = feed.get("live")
    state = (
        Cell()
        if seen is None
        else Cell("seen", "good", badge=True)
        if seen
        else Cell("cannot be seen", "bad", badge=True)
    )
    return {
        "key": feed.get("instrument"),
        "instrument": feed.get("instrument"),
        "live": state,
        "age": Cell(since=heard),
        "rows": None if feed.get("rows") is None else f"{feed['rows']:,}",
        "conflated": None if feed.get("conflated") is None else f"{feed['conflated']:,}",
    }


_COLUMNS: Final = (
    Column("name", "Actor"),
    Column("alive", "State"),
    Column("lag", "Behind", number=True, hint="How far its mailbox is behind, and how far it was in the last minute"),
    Column("age", "Age", number=True, hint="Since this life of it began"),
    Column("restarts", "Begun anew", number=True),
    Column("told", "Told", number=True, hint="Messages it was told in this life"),
    Column("said", "Said", number=True, hint="Messages it said in this life"),
    Column("pid", "Process", number=True),
    Column("kind", "Kind"),
    Column("detail", "Detail", wide=True),
)
_CSV: Final = ("name", "kind", "pid", "alive", "age_s", "restarts", "lag_ms", "told", "said", "detail")
_FEEDS: Final = (
    Column("instrument", "Instrument"),
    Column("live", "State"),
    Column("age", "Heard", number=True, hint="How long ago the last word of it came"),
    Column("rows", "Rows", number=True),
    Column("conflated", "Conflated", number=True, hint="Rows that a later one took the place of"),
)
_ERRORS: Final = (
    Column("node", "Actor"),
    Column("kind", "Kind"),
    Column("count", "Count", number=True),
)
