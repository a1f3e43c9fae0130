"""The charts: equity with what it is made of, and candles with our trades. Only what is new goes to the browser.

Both draw with the ECharts that NiceGUI brings along; the script of each says what its points are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from nicegui.element import Element
from nicegui.elements import echart  # importing it offers its library to the browser

from actors.page.theme import PARTS
from actors.page.words import basis_points, instant, number, price, quantity

__all__ = ["CandleChart", "EquityChart", "echart"]

Row = list[Any]


class EquityChart(Element, component="static/equity.js", esm={"hean-chart": "static/chart"}):
    """Equity, its drawdown and, in equal spans of time, what each part added to it."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Row] = []
        self._props["points"] = []
        self._props["parts"] = list(PARTS)

    def show(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Show this curve (`GET /equity`), sending what is new of it."""
        rows = [row for point in curve if (row := _point(point)) is not None]
        if rows == self._rows:
            return
        told = _difference(self._rows, rows)
        self._rows = rows
        with self._props.suspend_updates():
            self._props["points"] = rows
        self.run_method("patch", told)

    def hide(self, part: str, *, off: bool) -> None:
        """Leave a part out of the drawing, or take it in again."""
        self.run_method("hide", part, off)


class CandleChart(Element, component="static/candles.js", esm={"hean-chart": "static/chart"}):
    """Candles, volume, and our fills as marks."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Row] = []
        self._marks: list[dict[str, Any]] = []
        self._what: object = None
        self._props["candles"] = []
        self._props["fills"] = []

    def show(self, what: object, candles: Sequence[Mapping[str, Any]], fills: Sequence[Mapping[str, Any]]) -> None:
        """Show these candles (`GET /candles`) and fills (`GET /fills`) of `what`, sending what is new of them."""
        rows = [row for candle in candles if (row := _candle(candle)) is not None]
        marks = [mark for fill in fills if (mark := _mark(fill)) is not None]
        told: dict[str, Any] = {}
        if what != self._what:
            told["all"] = rows
        elif rows != self._rows:
            told |= _difference(self._rows, rows)
        if marks != self._marks:
            told["fills"] = marks
        if not told:
            return
        self._what, self._rows, self._marks = what, rows, marks
        with self._props.suspend_updates():
            self._props["candles"], self._props["fills"] = rows, marks
        self.run_method("patch", told)


def _difference(shown: Sequence[Row], wanted: Sequence[Row]) -> dict[str, Any]:
    """What to tell a chart that shows `shown`: the rows from the first that changed on, or all where the past itself changed."""
    if not shown or not wanted:
        return {"all": list(wanted)}
    first = wanted[0][0]
    kept = [row for row in shown if row[0] >= first]
    same = 0
    while same < min(len(kept), len(wanted)) and kept[same] == wanted[same]:
        same += 1
    if len(wanted) - same > len(wanted) // 2:
        return {"all": list(wanted)}
    return {"first": first, "more": list(wanted[same:])}


def _point(point: Mapping[str, Any]) -> Row | None:
    at, equity = instant(point.get("ts")), number(point.get("equity"))
    if at is None or equity is None:
        return None
    parts = point.get("parts") or {}
    told = [float(number(parts.get(name)) or 0) for name in PARTS] if parts else None
    return [round(at * 1000), float(equity), bool(point.get("marks_known")), told]


def _candle(candle: Mapping[str, Any]) -> Row | None:
    at = instant(candle.get("at"))
    if at is None:
        return None
    return [round(at * 1000), *(candle.get(name) for name in ("open", "high", "low", "close", "volume", "closed"))]


def _mark(fill: Mapping[str, Any]) -> dict[str, Any] | None:
    at, traded = instant(fill.get("ts")), number(fill.get("price"))
    if at is None or traded is None:
        return None
    return {
        "t": round(at * 1000),
        "price": float(traded),
        "side": str(fill.get("side", "")).upper(),
        "quantity": quantity(fill.get("quantity")),
        "fee": f"{quantity(fill.get('fee'))} {fill.get('fee_currency') or ''}".strip(),
        "strategy": fill.get("strategy") or "",
        "liquidity": fill.get("liquidity") or "",
        "reason": _reason(fill),
    }


def _reason(fill: Mapping[str, Any]) -> str:
    """Why it was traded, as far as a fill knows: what closed it, and what it cost against the price it was decided at."""
    decided, traded = number(fill.get("reference")), number(fill.get("price"))
    said = [f"closed by {fill['exit']}"] if fill.get("exit") else []
    if decided and traded:
        side = 1 if str(fill.get("side", "")).upper() == "BUY" else -1
        said.append(f"slipped {basis_points(side * (traded / decided - 1), 1)} from {price(decided)}")
    return ", ".join(said)
