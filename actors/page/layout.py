"""The shell around every view: what is always visible, the way about, and how a view is kept fresh.

A view is a module with `build(store)`. What it draws it registers with `live`: it is drawn anew when one of the answers it
looks at is new, at most twice a second, and no more once its elements are gone. Ages tick in the browser, without traffic.
"""

import contextlib
import importlib
import json
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from msgspec import Struct
from nicegui import Client, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from actors.page import dialogs, keyboard
from actors.page.sheet import chip
from actors.page.store import Mode, Store, Topic
from actors.page.words import UNKNOWN, age, instant, money, number, percent, signed, tone

Look = Callable[[], Topic]
"""Asks the store for an answer; called at every turn, since what nobody looks at is not kept fresh."""

TURN_S: Final = 0.5
TICK_S: Final = 1.0
LIMIT_S: Final = 10.0
DAY_S: Final = 86_400
FOUND: Final = Decimal("0.01")
"""How near the equity is to what it was found to be, once all that the account holds was heard of."""

_log = structlog.get_logger("page")


class View(Struct, frozen=True):
    path: str
    title: str
    module: str


VIEWS: Final = (
    View("/", "Dashboard", "dashboard"),
    View("/strategies", "Strategies", "strategies"),
    View("/risk", "Risk", "risk"),
    View("/orders", "Orders", "orders"),
    View("/positions", "Positions", "positions"),
    View("/carry", "Carry", "carry"),
    View("/processes", "Processes", "processes"),
    View("/actors", "Actors", "actors"),
    View("/logs", "Logs", "logs"),
)


# --- keeping fresh --------------------------------------------------------------------------------


class _Drawn:
    """Something drawn from answers, and which of them it has seen."""

    def __init__(self, anchor: Element, refresh: Callable[[], Any], looks: Sequence[Look], every_s: float) -> None:
        self._anchor = weakref.ref(anchor)
        self._refresh = refresh
        self._looks = looks
        self._every_s = every_s
        self._seen: tuple[Any, ...] = ()
        self._next = 0.0
        self.has_failed = False

    @property
    def is_gone(self) -> bool:
        anchor = self._anchor()
        return anchor is None or anchor.is_deleted

    def turn(self, now: float) -> None:
        """Draw it anew if something is new, and it is time."""
        topics = [look() for look in self._looks]
        seen = tuple((id(topic), topic.version) for topic in topics)
        anchor = self._anchor()
        if anchor is None or now < self._next or (topics and seen == self._seen):
            return
        self._next = now + self._every_s * 0.9  # turns are not punctual: a slow one must not cost a whole turn
        self._seen = seen
        with anchor:
            self._refresh()


class Watch:
    """All that one browser shows of one store. Its one timer ends with the browser."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ages: dict[str, Look] = {}
        self._shell = 0
        self._drawn: list[_Drawn] = []
        self._next_tick = 0.0

    def add(self, drawn: _Drawn) -> None:
        self._drawn.append(drawn)
        self._draw(drawn, time.monotonic())

    def keep(self) -> None:
        """What is aged by now belongs to the shell."""
        self._shell = len(self.ages)

    def forget(self) -> None:
        """Look no more at what the view before showed."""
        self.ages = dict(list(self.ages.items())[: self._shell])

    def turn(self) -> None:
        """Draw what is new; tell the browser once a second how old everything is."""
        now = time.monotonic()
        self._drawn = [drawn for drawn in self._drawn if not drawn.is_gone]
        for drawn in self._drawn:
            self._draw(drawn, now)
        if now >= self._next_tick:
            self._next_tick = now + TICK_S * 0.9
            ui.run_javascript(f"hean.heard({json.dumps(self._told())})")

    def _draw(self, drawn: _Drawn, now: float) -> None:
        try:
            drawn.turn(now)
        except Exception:  # noqa: BLE001 (one part of one view of one browser: it is written down once, and all others go on)
            if not drawn.has_failed and not drawn.is_gone:
                _log.exception("not drawn")
            drawn.has_failed = True
        else:
            drawn.has_failed = False

    def _told(self) -> dict[str, Any]:
        return {
            "now": time.time(),
            "ages": {name: how_old(look()) for name, look in self.ages.items()},
            "link": link_state(self.store),
        }


_watches: weakref.WeakKeyDictionary[Client, Watch] = weakref.WeakKeyDictionary()


def live(store: Store, refresh: Callable[[], Any], *looks: Look, every_s: float = TURN_S) -> None:
    """Call `refresh` now, and whenever one of `looks` has something new, at most every `every_s` seconds.

    It is called in the slot this was called in, and no more once that is gone. Without `looks` it is called every time.
    """
    anchor = ui.context.slot.parent
    _watch(store).add(_Drawn(anchor, refresh, looks, every_s))


def _watch(store: Store) -> Watch:
    client = ui.context.client
    watch = _watches.get(client)
    if watch is None:
        watch = _watches[client] = Watch(store)
    return watch


def how_old(topic: Topic) -> float | None:
    """Seconds since what is known was so: by our own clock, or by what the API says of it where that is older."""
    heard = topic.age_s()
    if heard is None:
        return None
    so = instant(topic.value.get("as_of")) if isinstance(topic.value, dict) else None
    return round(heard if so is None else max(heard, time.time() - so), 1)


def link_state(store: Store) -> dict[str, Any]:
    """Whether the API is there and speaks for a living engine; if not, what to say about it."""
    link, status = store.link, store.status()
    if link.mode is Mode.LOST:
        again = link.again_s()
        said = f"No connection to the API for {age(link.since_s())}: {link.fault}. What you see is as it was then; trying again"
        return {"up": False, "words": f"{said} in {again:.0f} s." if again else f"{said} now."}
    if link.mode is not Mode.CONNECTING and status.fault is not None:
        seen = how_old(status)
        when = "Nothing was heard of it yet" if seen is None else f"What you see is {age(seen)} old"
        return {"up": False, "words": f"The API answers, but the engine does not: {status.fault}. {when}."}
    return {"up": True, "words": ""}


# --- parts of views -------------------------------------------------------------------------------


class Panel(Struct, frozen=True):
    """A card, and the slots in it that a view may add to."""

    card: Element
    head: Element
    body: Element


@contextlib.contextmanager
def panel(
    title: str,
    look: Look | None = None,
    *,
    store: Store | None = None,
    limit_s: float = LIMIT_S,
    note: str = "",
    classes: str = "",
) -> Iterator["Panel"]:
    """A card. Where it says what it looks at, its head shows how old that is; past `limit_s` it is greyed, and says so."""
    with ui.element("section").classes(f"panel {classes}") as card:
        with ui.element("header").classes("panel-head") as head:
            ui.label(title).classes("title")
            if note:
                ui.label(note).classes("note")
        if look is not None and store is not None:
            aged(card, store, look, limit_s)
            with head:
                asof()
        body = ui.element("div").classes("panel-body")
        with body:
            yield Panel(card, head, body)


def aged(element: Element, store: Store, look: Look, limit_s: float = LIMIT_S) -> None:
    """Grey `element` when what it shows is older than `limit_s`."""
    ages = _watch(store).ages
    name = str(len(ages))  # not the question's: what is looked at may change, as the instrument of a chart does
    ages[name] = look
    element.props["data-source"] = name
    element.props["data-limit"] = str(limit_s)


def asof(never: str = "not heard yet") -> ui.label:
    """Where the age of the nearest aged element is written."""
    made = ui.label("").classes("asof")
    made.props["data-never"] = never
    return made


def since(element: Element, at: float | None, *, limit_s: float | None = None) -> None:
    """Write into `element` how long ago `at` (seconds since the epoch) was, ticking; None is unknown."""
    told = "" if at is None else f"{at:.0f}"
    if element.props.get("data-since") != told:
        element.props["data-since"] = told
    if limit_s is not None and element.props.get("data-limit") != str(limit_s):
        element.props["data-limit"] = str(limit_s)


def born(topic: Topic, age_s: float | None) -> float | None:
    """When that was which was `age_s` old as the answer was given: seconds since the epoch, whole, so that it stands still."""
    if age_s is None or not isinstance(topic.value, dict):
        return None
    so = instant(topic.value.get("as_of"))
    return None if so is None else float(round(so - age_s))


def empty(title: str, what_to_do: str = "") -> None:
    with ui.element("div").classes("empty"):
        words("b", title)
        if what_to_do:
            ui.label(what_to_do)


def loading(words: str = "Asking the API …") -> None:
    ui.label(words).classes("skeleton")


def failed(words: str) -> None:
    ui.label(words).classes("failed")


def told(topic: Topic, what: str) -> bool:
    """Whether there is something to draw. If not, say what is being waited for, or what went wrong, in words."""
    if topic.value is not None:
        return True
    if topic.fault is not None:
        failed(f"{what} cannot be shown: {topic.fault}")
    else:
        loading(f"Waiting for {what.lower()} …")
    return False


class Tile:
    """A figure with its name, and one line below it."""

    def __init__(self, name: str, hint: str = "") -> None:
        with ui.element("div").classes("tile") as box:
            self._name = ui.label(name).classes("name")
            self._value = words("b", UNKNOWN).classes("num")
            self._below = words("small")
        if hint:
            box.props["title"] = hint

    def show(self, value: str, tone: str = "", below: str = "", below_tone: str = "") -> None:
        text(self._value, value)
        text(self._below, below)
        toned(self._value, "num", tone if value != UNKNOWN else "mute")
        toned(self._below, "", below_tone)


def words(tag: str, text: str = "") -> TextElement:
    """A piece of text in an element of that tag."""
    return TextElement(tag=tag, text=text)


def text(element: TextElement, said: str) -> None:
    """Set an element's text, and send it only if it is another."""
    if element.text != said:
        element.text = said


def toned(element: Element, classes: str, tone: str) -> None:
    """Replace an element's classes by these, and send them only if they are others."""
    wanted = f"{classes} {tone}".split()
    if list(element._classes) != wanted:  # noqa: SLF001 (there is no other way to read them)
        element.classes(replace=" ".join(wanted))


# --- the shell ------------------------------------------------------------------------------------


def shell(store: Store) -> None:
    """What is always visible, and below it the view that the address names."""
    ui.context.client.content.classes(remove="nicegui-content-padding")
    with ui.element("header").classes("top") as top:
        with ui.element("div").classes("lost"):
            ui.label("").classes("lost-words").props("role=alert")
        _status_line(store, top)
        with ui.element("nav").classes("nav").props("aria-label=Views"):
            for view in VIEWS:
                ui.link(view.title, view.path)
    _watch(store).keep()
    with ui.element("div").classes("page"):
        ui.sub_pages({view.path: _builder(store, view) for view in VIEWS})
    client = ui.context.client
    client.sub_pages_router.on_path_changed(lambda path: _at(client, path))
    _at(client, client.sub_pages_router.current_path)
    keyboard.install()
    watch = _watch(store)
    ui.timer(TURN_S, watch.turn)


def _at(client: Client, path: str) -> None:
    client.run_javascript(f"hean.at({json.dumps(urlsplit(path).path or '/')})")


def _builder(store: Store, view: View) -> Callable[[], None]:
    def build() -> None:
        ui.context.client.title = f"{view.title} · HEAN"
        _watch(store).forget()
        with ui.element("div").classes("view"):  # which goes with the view, and with it all that is kept fresh in it
            importlib.import_module(f"actors.page.views.{view.module}").build(store)

    return build


MODES: Final = {"sandbox": "SANDBOX", "paper": "PAPER", "testnet": "TESTNET", "demo": "DEMO", "live": "LIVE"}


def mode(status: dict[str, Any] | None) -> tuple[str, str]:
    """What money is at stake, as words and as a class: LIVE only where orders reach the main net."""
    if status is None:
        return "MODE UNKNOWN", ""
    venue = str(status.get("venue", ""))
    if venue == "live" and status.get("dry_run", True):
        return "DRY RUN", "dry"
    return MODES.get(venue, venue.upper() or "MODE UNKNOWN"), venue


def settled(curve: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """A curve without its beginning, while the account was still being heard of coin by coin.

    There it is not known what the equity is made of; or nothing is earned yet, and the equity is far from what it was found
    to be in the end. Where no point knows its parts, nothing is left out.
    """
    first = next((i for i, point in enumerate(curve) if point.get("parts")), None)
    if first is None:
        return curve
    idle = first
    while idle + 1 < len(curve) and not any(map(number, (curve[idle].get("parts") or {}).values())):
        idle += 1
    found = number(curve[idle].get("equity"))
    while found and first < idle:
        here = number(curve[first].get("equity"))
        if here is not None and abs(here / found - 1) < FOUND:
            break
        first += 1
    return curve[first:]


def day_change(curve: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Change of the equity since midnight UTC, or since the curve began if that was later: text, tone, since when."""
    known = [(at, number(point.get("equity"))) for point in curve if (at := instant(point.get("ts"))) is not None]
    if not known:
        return UNKNOWN, "", ""
    midnight = known[-1][0] // DAY_S * DAY_S
    before = [(at, value) for at, value in known if at <= midnight]
    start = (before[-1] if before else known[0])[1]
    last = known[-1][1]
    if start is None or last is None:
        return UNKNOWN, "", ""
    change = last - start
    part = f" ({percent(change / start, sign=True)})" if start else ""
    return f"{signed(change)}{part}", tone(change), "today" if before else "since start"


class _Figure:
    """One figure of the status line: a name, a value, and something beside it."""

    def __init__(self, name: str, classes: str = "") -> None:
        with ui.element("div").classes(f"figure {classes}") as self.box:
            with ui.element("div").classes("name"):
                self.name = words("span", name)
            with ui.element("div").classes("value num"):
                self.value = words("span", UNKNOWN)
                self.beside = words("span").classes("beside")

    def show(self, value: str, tone: str = "", beside: str = "", beside_tone: str = "") -> None:
        text(self.value, value)
        toned(self.value, "", tone)
        if beside:
            text(self.beside, beside)
            toned(self.beside, "beside", beside_tone)


TRADING_TONES: Final = {"ACTIVE": "good", "REDUCING": "warn", "HALTED": "bad"}


def _status_line(store: Store, top: Element) -> None:
    with ui.element("div").classes("status") as line:
        ui.label("HEAN").classes("brand")
        stake = ui.label("…").classes("mode").mark("mode")
        with ui.element("div").classes("figures") as figures:
            engine = _Figure("Engine")
            equity = _Figure("Equity")
            toned(equity.beside, "beside since", "mute")
            day = _Figure("Day", "hide-small")
            books = _Figure("Books checked")
            with ui.element("div").classes("figure hide-small"):
                with ui.element("div").classes("name"):
                    words("span", "Heard")
                with ui.element("div").classes("value") as heard:
                    heard_age = asof("never")
                    heard_age.classes("soft")
            why = _Figure("Stands against trading", "why")
        aged(heard, store, store.status)
        aged(figures, store, store.status)
        with ui.element("div").classes("controls"):
            ui.button("UTC").props('flat dense title="Times in UTC or local (click to change)"').classes(
                "quiet clock-name hide-small"
            ).on("click", js_handler="() => hean.clock()")
            ui.button("◐").props('flat dense title="Dark or light" aria-label="Dark or light"').classes("quiet").on(
                "click", js_handler="() => hean.flip()"
            )
            kill = (
                ui.button("Kill switch", on_click=lambda: dialogs.kill(store)).props("unelevated dense").classes("kill")
            )
            kill.mark("kill")
            ui.button("☰").props('flat dense aria-label="Menu"').classes("quiet nav-toggle").on(
                "click", js_handler="() => hean.menu()"
            )

    def curve() -> Topic:
        return store.see("/equity", every_s=15.0, points=400)

    def refresh() -> None:
        topic = store.status()
        status = topic.value
        named, kind = mode(status)
        text(stake, named)
        toned(top, "top", kind)
        if status is None:
            return
        trading = status.get("trading")
        tripped = bool(status.get("tripped"))
        state = "KILLED" if tripped else trading or "trading unknown"
        engine.show(
            str(status.get("phase") or UNKNOWN),
            "",
            state,
            "danger" if tripped else TRADING_TONES.get(str(trading), "warn"),
        )
        equity.show(money(status.get("equity")), "" if status.get("marks_known") else "soft")
        since(equity.beside, born(topic, status.get("equity_age_s")), limit_s=60)
        text(equity.name, "Equity" if status.get("marks_known") else "Equity, marks unknown")
        change, change_tone, when = day_change(settled((curve().value or {}).get("curve", ())))
        day.show(change, change_tone)
        text(day.name, f"Change {when}" if when else "Day")
        lag = status.get("reconcile_lag_s")
        wrong = status.get("discrepancies")
        differ = "differences unknown" if wrong is None else f"{wrong} differ" if wrong else "agree"
        books.show(
            "never" if lag is None else "",
            "warn" if lag is None else "",
            differ,
            "warn" if wrong is None or wrong else "good",
        )
        if lag is not None:
            since(books.value, born(topic, lag), limit_s=120)
            text(books.value, "")
        reasons = status.get("blocked") or ()
        why.show(reasons[0] if reasons else "nothing", "")
        text(why.name, "Stands against trading" + (f" (1 of {len(reasons)})" if len(reasons) > 1 else ""))
        why.box.props["title"] = "; ".join(reasons)

    with line:
        live(store, refresh, store.status, curve)


__all__ = [
    "LIMIT_S",
    "VIEWS",
    "Tile",
    "View",
    "aged",
    "asof",
    "born",
    "chip",
    "empty",
    "failed",
    "how_old",
    "live",
    "loading",
    "panel",
    "settled",
    "shell",
    "since",
    "text",
    "told",
    "toned",
    "words",
]
