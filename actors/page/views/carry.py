"""The carry board: what holding each coin hedged would earn by its funding, after what it costs to get in and out."""

from collections.abc import Mapping
from typing import Any, Final

from nicegui import ui

from actors.page.layout import live, panel, text, told
from actors.page.sheet import Cell, Column, Sheet
from actors.page.store import Store, Topic
from actors.page.words import UNKNOWN, age, instant, money, number, percent, plain, signed, tone

HOLDS: Final = (3, 7, 14, 30, 90)

COLUMNS: Final = [
    Column("symbol", "Symbol"),
    Column("settled", "Settled", number=True, hint="The last settled rate, per 8 h"),
    Column("mean", "Mean, a week", number=True, hint="The mean of the last settlements, per 8 h"),
    Column(
        "predicted",
        "Predicted",
        number=True,
        flash=True,
        hint="What the venue says the running interval is on the way to, per 8 h",
    ),
    Column("nowcast", "Our nowcast", number=True, hint="From the premia seen so far, with its 95 % band, per 8 h"),
    Column("basis", "Basis", number=True, flash=True, hint="Perpetual bid less spot ask, over the spot's middle"),
    Column("cost", "Cost in and out", number=True, hint="Fees, half spreads and impact of a round trip, both legs"),
    Column("net", "Net per 8 h", number=True, hint="The mean less the cost spread over the time it is held"),
    Column("apr", "Net a year", number=True, flash=True, hint="The same, as a share of the notional a year"),
    Column("even", "Breaks even", number=True, hint="Days until funding has paid for getting in and out"),
    Column("next", "Settles in", number=True),
]


def build(store: Store) -> None:
    chosen = {"days": 14}

    def look() -> Topic:
        return store.see("/carry", every_s=5.0, hold_days=chosen["days"])

    with panel(
        "Carry",
        look,
        store=store,
        limit_s=180,
        note="basis points per 8 hours; held hedged: short the perpetual, long the spot",
    ) as card:
        card.body.classes("flush whole")
        with card.head:
            ui.label("held for").classes("mute push")
            with ui.element("div").classes("seg").props('role="group" aria-label="How long it is held"'):
                buttons = {
                    days: ui.button(f"{days} d", on_click=lambda days=days: pick(days)).props("flat dense")
                    for days in HOLDS
                }
        message = ui.element("div")
        sheet = Sheet(
            COLUMNS,
            key="symbol",
            empty=(
                "No symbol is traded as a pair",
                "Name symbols that have a spot and a perpetual in the settings (`symbols`).",
            ),
        )
        foot = ui.label().classes("empty")

        def pick(days: int) -> None:
            chosen["days"] = days
            mark()
            refresh()

        def mark() -> None:
            for days, button in buttons.items():
                on = days == chosen["days"]
                button.classes(add="on") if on else button.classes(remove="on")
                button.props["aria-pressed"] = "true" if on else "false"

        def refresh() -> None:
            topic = look()
            message.clear()
            sheet.set_visibility(topic.value is not None)
            with message:
                if not told(topic, "The carry board"):
                    return
                body = topic.value
                if body["stale"]:
                    why = body["failure"] or "the venue does not answer"
                    ui.label(f"The venue was last heard {age(topic.grown(body['age_s']))} ago: {why}.").classes(
                        "failed"
                    )
            sheet.show([_row(row, stale=body["stale"]) for row in sorted(body["rows"], key=_rank)])
            text(
                foot,
                f"Fee tier {plain(body['fee_tier'])}; {plain(body['fee_source'])}. What was earned before is no promise of what will be.",
            )

        mark()
        live(store, refresh, look, every_s=1.0)


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    net = number(row["net_apr"]["value"])
    return net is None, -float(net or 0)


def _row(row: Mapping[str, Any], *, stale: bool) -> dict[str, Any]:
    low, high = row["nowcast_low_8h_bp"], row["nowcast_high_8h_bp"]
    band = "" if low is None or high is None else f"{signed(low, 1)} to {signed(high, 1)}"
    costs = row["costs"]
    what = ", ".join(f"{name.removesuffix('_bp').replace('_', ' ')} {plain(cost)}" for name, cost in costs.items())
    interval = row["interval_h"]["value"]
    every = "" if interval is None else f"every {interval:g} h"
    told_ = {
        "symbol": Cell(row["symbol"], note=every, hint=f"{row['perp']} and {row['spot']}"),
        "settled": _bp(row["settled_8h_bp"]),
        "mean": _bp(row["mean_8h_bp"], coloured=True),
        "predicted": _bp(row["predicted_8h_bp"]),
        "nowcast": _bp(row["nowcast_8h_bp"], note=band),
        "basis": _bp(row["basis_bp"], places=1),
        "cost": _bp(row["cost_bp"], places=1, hint=what, sign=False),
        "net": _bp(row["net_8h_bp"], coloured=True),
        "apr": _known(row["net_apr"], lambda value: percent(value, 1, sign=True), coloured=True),
        "even": _known(row["days_to_break_even"], lambda value: f"{money(value, 1)} d"),
        "next": Cell(age(row["next_settlement_in_s"])) if row["next_settlement_in_s"] is not None else None,
    }
    return told_ | {"tone": "mute" if stale else ""}


def _bp(
    known: Mapping[str, Any],
    *,
    places: int = 2,
    coloured: bool = False,
    note: str = "",
    hint: str = "",
    sign: bool = True,
) -> Cell:
    return _known(
        known, lambda value: (signed if sign else money)(value, places), coloured=coloured, note=note, hint=hint
    )


def _known(known: Mapping[str, Any], write: Any, *, coloured: bool = False, note: str = "", hint: str = "") -> Cell:
    """A figure of the board: its value, or a dash that says why it is not known."""
    if known["value"] is None:
        return Cell(UNKNOWN, hint=known["why"] or "not known")
    seen = instant(known["as_of"])
    return Cell(
        write(known["value"]), tone=tone(known["value"]) if coloured else "", note=note, hint=hint or _when(seen, known)
    )


def _when(seen: float | None, known: Mapping[str, Any]) -> str:
    return "" if seen is None else f"as of {known['as_of']}"
