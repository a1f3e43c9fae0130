"""The dashboard: the money, what it is made of, the market with our trades on it, and what wants attention."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from actors.page.charts import CandleChart, EquityChart
from actors.page.layout import Tile, aged, born, live, panel, settled, since, text, told, toned, words
from actors.page.prices import worth
from actors.page.sheet import Cell, Column, Sheet
from actors.page.store import Store, Topic
from actors.page.theme import PARTS
from actors.page.words import (
    UNKNOWN,
    age,
    brief,
    counted,
    money,
    number,
    percent,
    price,
    quantity,
    signed,
    spoken,
    tone,
)

INTERVALS: Final = ("1m", "5m", "15m", "1h", "4h", "1d")
HOUR_S: Final = 3600
WORTH_SAYING: Final = 1
"""Of what is unhedged: a remainder smaller than a step of the instrument is nobody's concern."""


def build(store: Store) -> None:
    _tiles(store)
    with ui.element("div").classes("grid").style("margin-top:12px"):
        with ui.element("div").classes("stack span8"):
            _equity(store)
            _market(store)
        with ui.element("div").classes("stack span4"):
            _alerts(store)
            _why(store)
            _positions(store)
            _feeds(store)


# --- the figures ----------------------------------------------------------------------------------


def _tiles(store: Store) -> None:
    def equity() -> Topic:
        return store.see("/equity", every_s=5.0, points=1000)

    def positions() -> Topic:
        return store.see("/positions", every_s=2.0)

    def risk() -> Topic:
        return store.see("/risk", every_s=3.0)

    with ui.element("div").classes("tiles") as box:
        aged(box, store, equity, 30)
        total = Tile("Equity", "Everything the account holds, at the last known prices")
        fall = Tile("Drawdown", "How far the equity is below its highest")
        result = Tile("Result since start", "Everything earned and lost, after costs")
        carry = Tile("Funding", "Funding received less funding paid")
        costs = Tile("Fees and slippage", "What trading itself cost")
        held = Tile("Held", "Value of what is held, longs and shorts added up")
        naked = Tile("Unhedged", "What a pair holds on one side alone")

    def refresh() -> None:
        told_ = equity().value or {}
        curve = settled(told_.get("curve") or ())
        total.show(
            money(told_.get("equity")),
            "",
            f"cash {money(told_.get('cash'))}" if told_.get("cash") is not None else "cash unknown",
        )
        depth, deepest = drawdown(curve)
        fall.show(percent(depth), "bad" if depth else "", f"deepest {percent(deepest)}" if deepest is not None else "")
        parts = totals(told_)
        net = sum(parts.values(), Decimal(0)) if parts else None
        equity_now = number(told_.get("equity"))
        begun = None if net is None or equity_now is None else equity_now - net
        share = percent(net / begun, sign=True) if net is not None and begun else ""
        result.show(signed(net), tone(net), f"{share} of {money(begun)}" if share else "")
        carry.show(signed(parts.get("funding")), tone(parts.get("funding")), "")
        spent = [parts[name] for name in ("fees", "slippage") if name in parts]
        costs.show(
            signed(sum(spent)) if spent else UNKNOWN,
            tone(sum(spent)) if spent else "",
            f"fees {signed(parts.get('fees'))}" if spent else "",
        )
        rows = (positions().value or {}).get("positions")
        values = [worth(store, row).value for row in rows or () if number(row["quantity"])]
        known = [abs(value) for value in values if value is not None]
        if rows is None or len(known) < len(values):
            held.show(UNKNOWN, "", "" if rows is None else "a price is not known")
        else:
            held.show(money(sum(known, Decimal(0))), "", _count(rows))
        risky = risk().value or {}
        bare = number(risky.get("naked"))
        is_bare = bare is not None and bare >= WORTH_SAYING
        naked.show(money(bare), "warn" if is_bare else "", "" if bare is None else "of pairs" if is_bare else "hedged")

    with box:
        live(store, refresh, equity, positions, risk, every_s=1.0)


def _count(rows: Sequence[Mapping[str, Any]]) -> str:
    held = sum(1 for row in rows if number(row.get("quantity")))
    return "nothing held" if not held else f"{held} position{'' if held == 1 else 's'}"


def drawdown(curve: Iterable[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """How far the last of a curve is below its highest, and the deepest fall on it, as fractions up to nought."""
    highest, now, deepest = 0.0, None, None
    for point in curve:
        value = number(point.get("equity"))
        if value is None:
            continue
        highest = max(highest, float(value))
        if highest > 0:
            now = float(value) / highest - 1
            deepest = now if deepest is None else min(deepest, now)
    return now, deepest


def totals(told_: Mapping[str, Any]) -> dict[str, Decimal]:
    """What the equity is made of at the end of its curve; empty where it is not known."""
    curve = told_.get("curve") or ()
    parts = (curve[-1].get("parts") or {}) if curve else {}
    return {name: found for name, value in parts.items() if (found := number(value)) is not None}


# --- equity ---------------------------------------------------------------------------------------


def _equity(store: Store) -> None:
    def look() -> Topic:
        return store.see("/equity", every_s=5.0, points=1000)

    legends: dict[str, TextElement] = {}
    with panel("Equity", look, store=store, limit_s=30, note="drawdown below, and what each part added"):
        chart = EquityChart().classes("chart").style("height:350px")
        with ui.element("div").classes("legend").props('role="list"'):
            for part in PARTS:
                legends[part] = _legend(chart, part)
        message = ui.element("div")

        def refresh() -> None:
            topic = look()
            message.clear()
            with message:
                if not told(topic, "The equity"):
                    return
            curve = settled(topic.value.get("curve") or ())
            if not curve:
                with message:
                    ui.label("No equity was said yet: it begins with the first reconciliation.").classes("empty")
            chart.show(curve)
            parts = totals(topic.value)
            for part, total in legends.items():
                text(total, signed(parts.get(part)))
                toned(total, "num", tone(parts.get(part)) if part in parts else "mute")
                if part == "adjustments":  # an ordinary account has none
                    total.parent_slot.parent.set_visibility(bool(parts.get(part)))  # type: ignore[union-attr]

        live(store, refresh, look, every_s=1.0)


def _legend(chart: EquityChart, part: str) -> TextElement:
    """One part's colour, name and total; a click leaves it out of the drawing."""
    off = False
    with ui.element("button").classes("legend-item").props('type="button"') as item:
        item.props["title"] = f"{spoken(part)}: click to leave it out of the chart"
        ui.element("i").style(f"background:var(--part-{part})")
        ui.label(part)
        total = words("b", UNKNOWN).classes("num")

    def flip() -> None:
        nonlocal off
        off = not off
        chart.hide(part, off=off)
        item.classes(add="off") if off else item.classes(remove="off")

    item.on("click", flip)
    return total


# --- the market -----------------------------------------------------------------------------------


def _market(store: Store) -> None:
    chosen = {"instrument": "", "interval": "1m"}

    def instruments() -> Topic:
        return store.see("/instruments", every_s=60.0)

    def candles() -> Topic:
        if not chosen["instrument"]:
            return instruments()
        return store.see(
            "/candles", every_s=1.0, instrument=chosen["instrument"], interval=chosen["interval"], limit=500
        )

    def fills() -> Topic:
        return store.see("/fills", every_s=3.0, limit=500)

    with panel("Market", candles, store=store, limit_s=15) as card:
        with card.head:
            select = ui.select([], on_change=lambda event: pick("instrument", event.value))
            select.props('dense outlined options-dense hide-bottom-space aria-label="Instrument"').classes("select")
            select.style("min-width:128px")
            last = ui.label("").classes("num").style("font-weight:600")
            change = ui.label("").classes("num note")
            buttons = _segments(INTERVALS, lambda interval: pick("interval", interval))
        message = ui.element("div")
        chart = CandleChart().classes("chart").style("height:420px")

        def pick(name: str, value: str | None) -> None:
            if value and chosen[name] != value:
                chosen[name] = value
                mark_buttons()
                refresh()

        def mark_buttons() -> None:
            for interval, button in buttons.items():
                on = interval == chosen["interval"]
                button.classes(add="on") if on else button.classes(remove="on")
                button.props["aria-pressed"] = "true" if on else "false"

        def offer() -> None:
            known = [row["id"] for row in (instruments().value or {}).get("instruments", ())]
            if not known:
                known = sorted({row["instrument"] for row in (store.status().value or {}).get("feeds", ())})
            if known and list(select.options) != known:
                select.set_options(known)
            if known and not chosen["instrument"]:
                perpetual = [name for name in known if "LINEAR" in name or "PERP" in name]
                chosen["instrument"] = (perpetual or known)[0]
                select.set_value(chosen["instrument"])

        def refresh() -> None:
            offer()
            topic = candles()
            message.clear()
            is_known = bool(chosen["instrument"]) and topic.value is not None
            chart.set_visibility(is_known)
            if not is_known:
                with message:
                    told(
                        topic,
                        f"The market of {short(chosen['instrument'])}" if chosen["instrument"] else "The instruments",
                    )
                text(last, "")
                text(change, "")
                return
            rows = topic.value.get("candles") or ()
            ours = [
                fill for fill in (fills().value or {}).get("fills", ()) if fill["instrument"] == chosen["instrument"]
            ]
            chart.show((*chosen.values(),), rows, ours)
            if rows:
                text(last, price(rows[-1]["close"]))
                moved = number(rows[-1]["close"]) / number(rows[0]["open"]) - 1 if number(rows[0]["open"]) else None  # type: ignore[operator]
                text(change, f"{percent(moved, sign=True)} over what is shown")
                toned(change, "num note", tone(moved))

        mark_buttons()
        live(store, refresh, candles, fills, instruments, every_s=1.0)


def short(instrument: str) -> str:
    """An instrument's name without the venue: every one on this page is of the same."""
    return instrument.partition(".")[0]


def _segments(names: Sequence[str], pick: Callable[[str], None]) -> dict[str, ui.button]:
    with ui.element("div").classes("seg push").props('role="group" aria-label="Length of a candle"'):
        return {name: ui.button(name, on_click=lambda name=name: pick(name)).props("flat dense") for name in names}


# --- what wants attention -------------------------------------------------------------------------


def _alerts(store: Store) -> None:
    def risk() -> Topic:
        return store.see("/risk", every_s=3.0)

    with panel("Attention", store.status, store=store) as card:
        card.body.classes("flush")
        rows = ui.element("div").classes("rows")
        shown: list[list[tuple[str, str, str, float | None]]] = []

        def refresh() -> None:
            topic = store.status()
            if topic.value is None:
                rows.clear()
                with rows:
                    told(topic, "The engine's state")
                return
            wanted = alerts(topic, risk())
            if shown and shown[0] == wanted:
                return
            shown[:] = [wanted]
            rows.clear()
            with rows:
                if not wanted:
                    ui.label("Nothing wants attention.").classes("empty")
                for kind, word, what, at in wanted:
                    with ui.element("div").classes("item"):
                        ui.label(word).classes(f"chip {kind}")
                        ui.label(what).classes("grow")
                        if at is not None:
                            since(ui.label().classes("mute num"), at)

        live(store, refresh, store.status, risk, every_s=1.0)


def alerts(status: Topic, risk: Topic) -> list[tuple[str, str, str, float | None]]:
    """What a person should look at, the worst first: tone, one word, what, and when it was (seconds since the epoch)."""
    said = status.value
    found: list[tuple[str, str, str, float | None]] = []
    if said.get("tripped"):
        found.append(("danger", "killed", f"The kill switch was pulled: {said['tripped']}. Reset it under Risk.", None))
    found += [
        ("warn", "blocked", reason, None) for reason in said.get("blocked") or () if reason != said.get("tripped")
    ]
    if said.get("discrepancies"):
        found.append(("bad", "books", f"{said['discrepancies']} differences between our books and the venue's", None))
    found += [
        ("bad", "actor", f"{actor['name']} is not alive{': ' + actor['detail'] if actor.get('detail') else ''}", None)
        for actor in said.get("actors") or ()
        if not actor.get("alive")
    ]
    found += [
        ("warn", "feed", f"{short(feed['instrument'])} is not live; last heard {age(feed.get('age_s'))} ago", None)
        for feed in said.get("feeds") or ()
        if feed.get("live") is False
    ]
    if said.get("marks_known") is False:
        found.append(("warn", "marks", "The equity rests on prices that are not known", None))
    found += [
        ("warn", "error", f"{node}: {count} × {spoken(kind)}", None)  # noqa: RUF001
        for node, kinds in (said.get("errors") or {}).items()
        for kind, count in kinds.items()
    ][:4]
    refusals = [one for one in (risk.value or {}).get("refusals") or () if one.get("age_s", 1e9) < HOUR_S]
    found += [
        (
            "",
            "refused",
            f"{one['strategy']}: {spoken(one['rule']).lower()}, {one['measured']} against {one['limit']}",
            born(risk, one["age_s"]),
        )
        for one in refusals[:4]
    ]
    return found[:12]


# --- why not --------------------------------------------------------------------------------------


def _why(store: Store) -> None:
    def look() -> Topic:
        return store.see("/why", every_s=3.0)

    with panel("Why not more", look, store=store, limit_s=15) as card:
        card.body.classes("flush")
        rows = ui.element("div").classes("rows")
        drawn: dict[str, tuple[ui.label, ui.label, ui.label]] = {}

        def refresh() -> None:
            topic = look()
            whys = (topic.value or {}).get("why") or ()
            if set(drawn) != {why["strategy"] for why in whys} or not drawn:
                drawn.clear()
                rows.clear()
                with rows:
                    if told(topic, "The strategies") and not whys:
                        ui.label("No strategy runs: name one in the settings and begin again.").classes("empty")
                    for why in whys:
                        with ui.element("div").classes("item"), ui.element("div").classes("grow"):
                            with ui.element("div").classes("line"):
                                ui.link(why["strategy"], "/strategies").style("font-weight:600;color:inherit")
                                counts = ui.label().classes("mute num push")
                            waits = ui.label().classes("soft")
                            refused = ui.label().classes("mute")
                        drawn[why["strategy"]] = (counts, waits, refused)
            for why in whys:
                counts, waits, refused = drawn[why["strategy"]]
                funnel = why.get("funnel") or {}
                text(
                    counts,
                    f"{counted(funnel.get('signals'), 'signal')}, {counted(funnel.get('filled'), 'order')} filled",
                )
                text(waits, waiting(why))
                worst = max(why.get("refusals") or (), key=lambda one: one["count"], default=None)
                text(refused, f"refused {worst['count']} × by {spoken(worst['rule']).lower()}" if worst else "")  # noqa: RUF001

        live(store, refresh, look, every_s=1.0)


def waiting(why: Mapping[str, Any]) -> str:
    """The first thing that stands in a strategy's way: the engine's, or what its own gates wait for."""
    if why.get("blocked_by"):
        return brief(f"held back: {why['blocked_by'][0]}")
    gates = [brief(str(gate)) for gate in why.get("gates") or ()]
    for gate in gates:
        if gate.startswith("waits for: "):
            return f"waits for {gate.removeprefix('waits for: ')}"
    if gates and all(gate.startswith("met: ") for gate in gates):
        return "all it waits for is met"
    return gates[0] if gates else "does not say what it waits for"


# --- positions and feeds --------------------------------------------------------------------------


def _positions(store: Store) -> None:
    def look() -> Topic:
        return store.see("/positions", every_s=2.0)

    with panel("Positions", look, store=store) as card:
        card.body.classes("flush")
        message = ui.element("div")
        sheet = Sheet(
            [
                Column("instrument", "Instrument"),
                Column("quantity", "Quantity", number=True, flash=True),
                Column("value", "Value", number=True),
            ],
            empty=("Nothing is held", "Positions appear with the first fill; why there is none stands above."),
        )

        def refresh() -> None:
            topic = look()
            message.clear()
            sheet.set_visibility(topic.value is not None)
            with message:
                if not told(topic, "Positions"):
                    return
            rows = []
            for row in topic.value["positions"]:
                held = number(row["quantity"])
                if not held:
                    continue
                name = Cell(short(row["instrument"]), note=row["strategy"] or "owner")
                rows.append(
                    {
                        "key": f"{row['strategy']} {row['instrument']}",
                        "instrument": name,
                        "quantity": Cell(signed_quantity(held), tone=tone(held)),
                        "value": money(worth(store, row).value),
                    }
                )
            sheet.show(rows)

        live(store, refresh, look, every_s=1.0)


def signed_quantity(held: Decimal) -> str:
    return f"+{quantity(held)}" if held > 0 else quantity(held)


def _feeds(store: Store) -> None:
    with panel("Feeds", store.status, store=store) as card:
        card.body.classes("flush")
        sheet = Sheet(
            [
                Column("instrument", "Instrument"),
                Column("state", "State"),
                Column("age", "Last heard", number=True),
                Column("rows", "Rows", number=True),
            ],
            empty=("No feed is known", "The engine says them once it runs."),
        )

        def refresh() -> None:
            topic = store.status()
            rows = []
            for feed in (topic.value or {}).get("feeds") or ():
                is_live = feed.get("live")
                state = Cell("live", tone="good", badge=True) if is_live else Cell("stale", tone="warn", badge=True)
                rows.append(
                    {
                        "key": feed["instrument"],
                        "instrument": short(feed["instrument"]),
                        "state": Cell("unknown", badge=True) if is_live is None else state,
                        "age": None if feed.get("age_s") is None else Cell(since=born(topic, feed["age_s"])),
                        "rows": None if feed.get("rows") is None else f"{feed['rows']:,}",
                    }
                )
            sheet.show(rows)

        live(store, refresh, store.status, every_s=2.0)
