"""Orders: those that wait, those that were, what traded, and what came of it; each with its whole story a click away."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct
from nicegui import ui

from actors.page.deeds import WAITING
from actors.page.layout import born, live, panel, text, told
from actors.page.sheet import Cell, Column, Sheet
from actors.page.spreadsheet import as_csv
from actors.page.store import Store, Topic
from actors.page.story import Story
from actors.page.words import UNKNOWN, age, basis_points, instant, money, number, price, quantity, signed, tone

Rows = Sequence[Mapping[str, Any]]

STATUS_TONES: Final = {
    "submitted": "accent",
    "accepted": "accent",
    "unknown": "warn",
    "filled": "good",
    "rejected": "bad",
    "canceled": "",
    "expired": "",
}
SHOWN: Final = 200
_FILTERED: Final = ("None of them", "There are some, and the filters above let none of them through.")
_MOST: Final = 500


class Tab(Struct, frozen=True):
    """One of the tables: where its rows come from, which there are, and how a row is written.

    `most` is how many are asked for, None as many as come unasked; `is_of_orders` whether each row has an order's story.
    """

    name: str
    path: str
    rows: str
    columns: tuple[Column, ...]
    write: Callable[[Topic, Mapping[str, Any]], dict[str, Any]]
    empty: tuple[str, str]
    csv: tuple[str, ...]
    is_one: Callable[[Mapping[str, Any]], bool] = lambda _: True
    statuses: tuple[str, ...] = ()
    every_s: float = 2.0
    most: int | None = _MOST
    is_of_orders: bool = True


def build(store: Store) -> None:
    Blotter(store, _asked())


class Blotter:
    """The view: tabs, the filters they share, and one table.

    Args:
        store: What is known.
        order: The order whose story is opened at once; empty opens none.
    """

    def __init__(self, store: Store, order: str = "") -> None:
        self.store = store
        self.tab = TABS[0]
        self._known: dict[str, Mapping[str, Any]] = {}
        self._sheet: Sheet | None = None
        self._waiting: str | None = None
        self._more = 1
        with panel("Orders", self._look, store=store):
            with ui.element("div").classes("filters"):
                with ui.element("div").classes("seg").props('role="tablist" aria-label="Which orders"'):
                    self._tabs = {tab.name: self._tab_button(tab) for tab in TABS}
                self._text = ui.input(placeholder="Order or instrument  /", on_change=self._again).props(
                    'outlined dense clearable aria-label="Filter by order or instrument"'
                )
                self._text.classes("filter")
                self._strategy = self._select("Strategy")
                self._instrument = self._select("Instrument")
                self._status = self._select("Status")
                self._count = ui.label("").classes("count")
                ui.button("CSV", on_click=self._export).props(
                    'unelevated dense no-caps title="Save these rows as a file"'
                ).classes("plain push")
            self._sum = ui.label("").classes("tab-sum")
            self._body = ui.element("div")
            self._older = (
                ui.button(f"Show {SHOWN} more", on_click=self._show_more)
                .props("unelevated no-caps")
                .classes("plain older")
            )
            live(store, self._draw, self._look)
        self._choose(self.tab)
        if order:
            Story(store, order)

    # --- choosing -------------------------------------------------------------------------------

    def _tab_button(self, tab: Tab) -> ui.button:
        return ui.button(tab.name, on_click=lambda: self._choose(tab)).props("flat dense no-caps role=tab")

    def _select(self, name: str) -> ui.select:
        made = ui.select({"": f"Every {name.lower()}"}, value="", on_change=self._again)
        return made.props(f'outlined dense options-dense aria-label="{name}"')

    def _choose(self, tab: Tab) -> None:
        self.tab = tab
        self._more = 1
        for name, button in self._tabs.items():
            chosen = name == tab.name
            button.props(f'aria-selected="{str(chosen).lower()}"')
            button.classes(add="on") if chosen else button.classes(remove="on")
        self._status.set_visibility(bool(tab.statuses))
        self._status.set_options({"": "Every status"} | {one: one for one in tab.statuses}, value="")
        self._body.clear()
        self._waiting = None
        self._sheet = None
        self._draw()

    def _again(self) -> None:
        self._more = 1
        self._draw()

    def _show_more(self) -> None:
        self._more += 1
        self._draw()

    def _look(self) -> Topic:
        return self.store.see(self.tab.path, every_s=self.tab.every_s, limit=self.tab.most)

    # --- drawing --------------------------------------------------------------------------------

    def _draw(self) -> None:
        topic = self._look()
        if topic.value is None:
            self._say_why_not(topic)
            return
        if self._sheet is None:
            self._body.clear()
            with self._body:
                self._sheet = Sheet(
                    self.tab.columns,
                    empty=self.tab.empty,
                    on_row=self._open if self.tab.is_of_orders else None,
                    sortable=True,
                )
        rows = [row for row in topic.value.get(self.tab.rows) or () if self.tab.is_one(row)]
        self._offer(self._strategy, "strategy", {str(row.get("strategy") or "") for row in rows})
        self._offer(self._instrument, "instrument", {name for row in rows for name in _instruments(row)})
        wanted = [row for row in rows if self._wants(row)]
        shown = wanted[: self._more * SHOWN]
        self._known = {_key(row): row for row in shown}
        self._sheet.say_empty(*(_FILTERED if rows else self.tab.empty))
        self._sheet.show([{"key": _key(row), **self.tab.write(topic, row)} for row in shown])
        text(self._count, f"{len(wanted)} of {len(rows)}" if len(wanted) != len(rows) else f"{len(rows)}")
        text(self._sum, _sum(wanted) if self.tab.name == "Round trips" else "")
        self._older.set_visibility(len(wanted) > len(shown))

    def _say_why_not(self, topic: Topic) -> None:
        words = str(topic.fault or "")
        if self._waiting != words:
            self._waiting = words
            self._body.clear()
            with self._body:
                told(topic, self.tab.name)

    def _offer(self, select: ui.select, name: str, found: set[str]) -> None:
        options = {"": f"Every {name}"} | {one: one for one in sorted(found - {""})}
        if select.value and select.value not in options:
            options[select.value] = select.value
        if options != select.options:
            select.set_options(options)

    def _wants(self, row: Mapping[str, Any]) -> bool:
        sought = (self._text.value or "").strip().lower()
        return (
            (not self._strategy.value or row.get("strategy") == self._strategy.value)
            and (not self._instrument.value or self._instrument.value in _instruments(row))
            and (not self._status.value or row.get("status") == self._status.value)
            and (
                not sought
                or sought in f"{row.get('client_order_id')} {' '.join(_instruments(row))} {row.get('trade_id')}".lower()
            )
        )

    def _open(self, key: str) -> None:
        row = self._known.get(key)
        if row is not None and (order := row.get("client_order_id")):
            Story(self.store, str(order), row)

    def _export(self) -> None:
        rows = [
            row
            for row in (self._look().value or {}).get(self.tab.rows) or ()
            if self.tab.is_one(row) and self._wants(row)
        ]
        ui.download.content(
            as_csv(self.tab.csv, rows), f"hean-{self.tab.name.lower().replace(' ', '-')}.csv", "text/csv"
        )


# --- rows -----------------------------------------------------------------------------------------


def _key(row: Mapping[str, Any]) -> str:
    if trade := row.get("trade_id"):
        return str(trade)
    return str(
        row.get("client_order_id")
        or f"{row.get('strategy')} {row.get('opened')} {row.get('closed')} {row.get('quantity')}"
    )


def _instruments(row: Mapping[str, Any]) -> list[str]:
    several = row.get("instruments")
    return [str(one) for one in several] if isinstance(several, list) else [str(row.get("instrument") or "")]


def _known(write: Callable[[Any], str], value: Any) -> str | None:
    """A value in writing; None where it is not known, so that it is drawn as such."""
    return None if value is None else write(value)


def _side(side: Any) -> Cell | None:
    """Buying and selling are said in words: their colours mean no gain or loss."""
    return None if not side else Cell(str(side).lower())


def _order(topic: Topic, row: Mapping[str, Any]) -> dict[str, Any]:
    status = str(row.get("status") or "")
    return {
        "order": row.get("client_order_id"),
        "strategy": row.get("strategy"),
        "instrument": row.get("instrument"),
        "side": _side(row.get("side")),
        "status": Cell(status or UNKNOWN, STATUS_TONES.get(status, ""), badge=bool(status)),
        "quantity": _known(quantity, row.get("quantity")),
        "filled": _known(quantity, row.get("filled")),
        "average": _known(price, row.get("average_price")),
        "reason": row.get("reason"),
        "age": Cell(since=born(topic, row.get("age_s"))),
    }


def _fill(_: Topic, row: Mapping[str, Any]) -> dict[str, Any]:
    paid, wanted, size = number(row.get("price")), number(row.get("reference")), number(row.get("quantity"))
    slipped = None
    if paid is not None and wanted:
        worse = paid - wanted if str(row.get("side")).upper() == "BUY" else wanted - paid
        slipped = worse / wanted
    return {
        "time": Cell(time=instant(row.get("ts"))),
        "order": row.get("client_order_id"),
        "strategy": row.get("strategy"),
        "instrument": row.get("instrument"),
        "side": _side(row.get("side")),
        "quantity": quantity(size),
        "price": price(paid),
        "value": money(paid * size) if paid is not None and size is not None else None,
        "fee": Cell(money(row.get("fee"), 4), note=str(row.get("fee_currency") or ""))
        if row.get("fee") is not None
        else None,
        "slippage": None if slipped is None else Cell(basis_points(slipped, 1), tone(-slipped)),
        "liquidity": str(row.get("liquidity") or "").lower(),
        "exit": str(row.get("exit") or ""),
    }


def _trip(_: Topic, row: Mapping[str, Any]) -> dict[str, Any]:
    gained = row.get("pnl")
    return {
        "closed": Cell(time=instant(row.get("closed"))) if row.get("closed") else Cell("open", "accent", badge=True),
        "strategy": row.get("strategy"),
        "instruments": Cell(", ".join(_instruments(row))),
        "side": str(row.get("side") or "").lower(),
        "quantity": _known(quantity, row.get("quantity")),
        "entry": _known(price, row.get("entry_price")),
        "exit": _known(price, row.get("exit_price")),
        "pnl": Cell(signed(gained), tone(gained)),
        "fees": money(row.get("fees")),
        "funding": signed(row.get("funding")),
        "held": age(row.get("held_s")),
        "by": row.get("closed_by"),
    }


def _sum(trips: Rows) -> str:
    """What some round trips came to, of those whose profit is known."""
    gains = [gain for trip in trips if trip.get("closed") and (gain := number(trip.get("pnl"))) is not None]
    if not gains:
        return ""
    won = sum(1 for gain in gains if gain > 0)
    return f"{signed(sum(gains))} USDT net in {len(gains)} closed, {won / len(gains):.0%} of them won, {signed(sum(gains) / len(gains))} each"


_IDENTITY: Final = (
    Column("order", "Order", mono=True),
    Column("strategy", "Strategy"),
    Column("instrument", "Instrument"),
    Column("side", "Side"),
    Column("status", "Status"),
    Column("quantity", "Ordered", number=True),
    Column("filled", "Filled", number=True, flash=True),
)
_HEARD: Final = Column("age", "Heard of", number=True, hint="How long ago it was last heard of")
_ORDER_CSV: Final = (
    "client_order_id",
    "strategy",
    "instrument",
    "side",
    "status",
    "quantity",
    "filled",
    "average_price",
    "reason",
    "age_s",
)
TABS: Final = (
    Tab(
        name="Under way",
        path="/orders",
        rows="orders",
        columns=(*_IDENTITY, Column("reason", "What is known", wide=True), _HEARD),
        write=_order,
        empty=("No order is under way", "Orders appear here from when they leave until they have traded or ended."),
        csv=_ORDER_CSV,
        is_one=lambda row: row.get("status") in WAITING,
        statuses=("submitted", "unknown", "accepted"),
        every_s=1.0,
        most=None,  # as the stream brings it
    ),
    Tab(
        name="History",
        path="/orders",
        rows="orders",
        columns=(
            *_IDENTITY,
            Column("average", "Mean price", number=True),
            Column("reason", "Why it ended", wide=True),
            _HEARD,
        ),
        write=_order,
        empty=(
            "No order has ended yet",
            "What is filled, rejected, canceled or expired is kept here, the newest first.",
        ),
        csv=_ORDER_CSV,
        is_one=lambda row: row.get("status") not in WAITING,
        statuses=("filled", "rejected", "canceled", "expired"),
    ),
    Tab(
        name="Fills",
        path="/fills",
        rows="fills",
        columns=(
            Column("time", "Time"),
            Column("order", "Order", mono=True),
            Column("strategy", "Strategy"),
            Column("instrument", "Instrument"),
            Column("side", "Side"),
            Column("quantity", "Quantity", number=True),
            Column("price", "Price", number=True),
            Column("value", "Value", number=True, hint="In the quote currency"),
            Column("fee", "Fee", number=True, hint="Positive when paid"),
            Column("slippage", "Slippage", number=True, hint="Against the price it was decided at; positive is worse"),
            Column("liquidity", "Liquidity"),
            Column("exit", "Closed by"),
        ),
        write=_fill,
        empty=(
            "Nothing has traded yet",
            "Every execution is listed here, with what it cost against the price it was decided at.",
        ),
        csv=(
            "ts",
            "trade_id",
            "client_order_id",
            "strategy",
            "instrument",
            "side",
            "quantity",
            "price",
            "fee",
            "fee_currency",
            "liquidity",
            "exit",
            "reference",
        ),
    ),
    Tab(
        name="Round trips",
        path="/trades",
        rows="trades",
        is_of_orders=False,
        columns=(
            Column("closed", "Closed"),
            Column("strategy", "Strategy"),
            Column("instruments", "Instruments"),
            Column("side", "Side"),
            Column("quantity", "Quantity", number=True),
            Column("entry", "Entry", number=True),
            Column("exit", "Exit", number=True),
            Column("pnl", "Net", number=True, hint="After fees and funding, in the quote currency"),
            Column("fees", "Fees", number=True),
            Column("funding", "Funding", number=True),
            Column("held", "Held", number=True),
            Column("by", "Closed by"),
        ),
        write=_trip,
        empty=("No round trip yet", "A round trip is from flat to flat: it appears once a position is closed."),
        csv=(
            "opened",
            "closed",
            "strategy",
            "instruments",
            "side",
            "quantity",
            "entry_price",
            "exit_price",
            "pnl",
            "fees",
            "funding",
            "held_s",
            "closed_by",
        ),
    ),
)


def _asked() -> str:
    """The order that the address names."""
    return parse_qs(urlsplit(ui.context.client.sub_pages_router.current_path).query).get("order", [""])[0]
