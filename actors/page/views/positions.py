"""Positions: pairs as pairs, with what their legs leave unhedged; then what is held alone."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from nicegui import ui

from actors.page.layout import Tile, aged, born, live, panel, since, text, told, toned, words
from actors.page.prices import Worth, worth
from actors.page.sheet import Cell, Column, Sheet
from actors.page.store import Store, Topic
from actors.page.views.dashboard import short, signed_quantity
from actors.page.words import UNKNOWN, money, number, percent, price, quantity, signed, tone

Row = Mapping[str, Any]

COLUMNS = [
    Column("instrument", "Instrument"),
    Column("quantity", "Quantity", number=True, flash=True),
    Column("entry", "Entry", number=True),
    Column("mark", "Mark", number=True, flash=True),
    Column("value", "Value", number=True),
    Column("gain", "Unrealised", number=True, hint="Quantity times mark less entry: before fees and funding"),
    Column("age", "Unchanged for", number=True),
]
PAIR_COLUMNS = [
    Column("instrument", "Pair"),
    *COLUMNS[1:-1],
    Column("funding", "Funding earned", number=True, hint="By this strategy, over all its pairs, since the beginning"),
    COLUMNS[-1],
]
BARE = Decimal("0.001")
"""Of the largest leg: less unhedged than that is what steps and fees leave over."""

LAST = "What the market traded at last: the engine does not say the mark"
NOTHING = Cell(" ", tone="nothing")
"""Where there is nothing to be said, which is not the same as unknown."""


def build(store: Store) -> None:
    def look() -> Topic:
        return store.see("/positions", every_s=1.0)

    def equity() -> Topic:
        return store.see("/equity", every_s=5.0, points=1000)

    with ui.element("div").classes("stack"):
        _summary(store, look, equity)
        with panel("Pairs", look, store=store, note="legs of one strategy that hedge each other") as card:
            card.body.classes("flush whole")
            message = ui.element("div")
            pairs = Sheet(
                PAIR_COLUMNS,
                empty=("No pair is held", "A pair appears when a carry or basis strategy holds both its legs."),
            )
        with panel("Held alone", look, store=store) as card:
            card.body.classes("flush whole")
            singles = Sheet(
                [COLUMNS[0], Column("strategy", "Strategy"), *COLUMNS[1:]],
                empty=(
                    "Nothing is held alone",
                    "What has no other leg stands here, and what was the owner's from before.",
                ),
            )

        def refresh() -> None:
            topic = look()
            message.clear()
            for sheet in (pairs, singles):
                sheet.set_visibility(topic.value is not None)
            with message:
                if not told(topic, "Positions"):
                    return
            body = topic.value
            funding = (equity().value or {}).get("by_strategy") or {}
            rows: list[dict[str, Any]] = []
            paired = set()
            for pair in body["pairs"]:
                rows.append(_pair(topic, pair, funding, [worth(store, leg) for leg in pair["legs"]]))
                for leg in pair["legs"]:
                    paired.add((leg["strategy"], leg["instrument"]))
                    rows.append(_row(topic, leg, worth(store, leg)) | {"tone": "leg"})
            pairs.show(rows)
            alone = [row for row in body["positions"] if (row["strategy"], row["instrument"]) not in paired]
            singles.show([_row(topic, row, worth(store, row)) for row in alone if number(row["quantity"])])

        live(store, refresh, look, equity)


def _summary(store: Store, look: Any, equity: Any) -> None:
    with ui.element("div").classes("tiles") as box:
        aged(box, store, look)
        gross = Tile("Gross", "Longs and shorts added up, at the mark")
        net = Tile("Net", "Longs less shorts, at the mark")
        gain = Tile("Unrealised", "What closing at the mark would bring, before costs")
        funding = Tile("Funding so far", "Of all strategies, since the beginning")
        with ui.element("div").classes("tile"):
            ui.label("Reconciled").classes("name")
            with ui.element("b"):
                agree = words("span", UNKNOWN)
            with words("small"):
                source = words("span")
                checked = words("span").classes("since").style("margin-left:4px")

    def refresh() -> None:
        topic = look()
        body = topic.value
        if body is None:
            return
        rows = body["positions"]
        at = [worth(store, row) for row in rows if number(row["quantity"])]
        known = [one.value for one in at if one.value is not None]
        whole = len(known) == len(at)
        gross.show(
            money(sum(map(abs, known), Decimal(0))) if whole else UNKNOWN, "", "" if whole else "a price is not known"
        )
        net.show(signed(sum(known, Decimal(0))) if whole else UNKNOWN)
        gains = [one.gain for one in at]
        sure = [one for one in gains if one is not None]
        total = sum(sure, Decimal(0))
        partly = f"{len(gains) - len(sure)} not known" if len(sure) < len(gains) else ""
        gain.show(signed(total) if sure or not gains else UNKNOWN, tone(total), partly)
        parts = ((equity().value or {}).get("curve") or [{}])[-1].get("parts") or {}
        funding.show(signed(parts.get("funding")), tone(parts.get("funding")))
        is_so = body["reconciled"]
        text(agree, "unknown" if is_so is None else "yes" if is_so else "differs")
        toned(agree, "", "warn" if is_so is None else "good" if is_so else "bad")
        lag = body["reconcile_lag_s"]
        text(source, f"{body['source']}, checked" if lag is not None else f"{body['source']}, never checked")
        since(checked, born(topic, lag))
        checked.set_visibility(lag is not None)

    with box:
        live(store, refresh, look, equity, every_s=1.0)


def _pair(topic: Topic, pair: Row, funding: Mapping[str, Mapping[str, Any]], at: Sequence[Worth]) -> dict[str, Any]:
    """The head of a pair: its strategy, what is left unhedged, and what funding brought that strategy."""
    legs = pair["legs"]
    net = number(pair["net"])
    largest = max((abs(number(leg["quantity"]) or Decimal(0)) for leg in legs), default=Decimal(0))
    bare = None if net is None or not largest else abs(net) / largest
    hedged = "" if bare is None else "hedged" if bare < BARE else f"{percent(bare)} of a leg unhedged"
    earned = (funding.get(pair["strategy"]) or {}).get("funding")
    value = _sum([one.value for one in at])
    gain = _sum([one.gain for one in at])
    return {
        "key": f"{pair['strategy']} {pair['base']}",
        "tone": "head",
        "instrument": Cell(pair["base"], note=pair["strategy"]),
        "quantity": Cell(
            f"net {quantity(net)}" if net is not None else UNKNOWN,
            tone="" if bare is None or bare < BARE else "warn",
            note=hedged,
            hint="What the legs leave unhedged",
        ),
        "entry": NOTHING,
        "mark": NOTHING,
        "funding": None if earned is None else Cell(signed(earned), tone=tone(earned)),
        "value": Cell(signed(value), hint="Longs less shorts") if value is not None else None,
        "gain": None if gain is None else Cell(signed(gain), tone=tone(gain)),
        "age": Cell(
            since=max((began for leg in legs if (began := born(topic, leg["age_s"])) is not None), default=None)
        ),
    }


def _row(topic: Topic, row: Row, at: Worth) -> dict[str, Any]:
    held = number(row["quantity"]) or Decimal(0)
    dust = number(row["dust"])
    return {
        "key": f"{row['strategy']} {row['instrument']}",
        "instrument": Cell(short(row["instrument"]), hint=row["instrument"]),
        "strategy": Cell(row["strategy"])
        if row["strategy"]
        else Cell("the owner's", tone="mute", hint="Held from before; no strategy trades it"),
        "quantity": Cell(signed_quantity(held), tone=tone(held), note=f"{quantity(dust)} dust" if dust else ""),
        "entry": Cell(price(row["entry"]), hint="" if row["entry"] is not None else "Nobody knows what was paid"),
        "mark": Cell(
            price(at.price), note="" if at.is_mark or at.price is None else "last", hint="" if at.is_mark else LAST
        ),
        "funding": NOTHING,
        "value": money(at.value),
        "gain": None if at.gain is None else Cell(signed(at.gain), tone=tone(at.gain)),
        "age": Cell(since=born(topic, row["age_s"])),
    }


def _sum(values: Sequence[Decimal | None]) -> Decimal | None:
    """Their sum; None where one is unknown."""
    known = [value for value in values if value is not None]
    return sum(known, Decimal(0)) if len(known) == len(values) else None
