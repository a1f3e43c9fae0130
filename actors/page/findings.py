"""What a step of a process found, made ready to be read: figures, tables, cautions, and where its report lies."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from actors.page.words import money, number, percent, plain, signed, spoken

_ROWS: Final = 500
_LONG: Final = 40
_PARTS_FIRST: Final = ("headline", "figures")
_LEFT_OUT: Final = frozenset({"settings", "data", "rules", "deliveries", "rows", "wall_s", "result_hash", "report"})
"""What a report tells in full, and a summary need not."""

_MONEY: Final = (
    "pnl",
    "equity",
    "capital",
    "fees",
    "funding",
    "slippage",
    "interest",
    "basis",
    "price",
    "adjustments",
    "turnover",
)
_FRACTION: Final = ("return", "drawdown", "rate_of_return", "win_rate", "cagr", "volatility", "apr")


class Table(Struct, frozen=True):
    """Rows of a list. `numbers` are columns of digits, `wide` columns of sentences."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    numbers: frozenset[str]
    wide: frozenset[str]


class Found(Struct, frozen=True):
    report: str
    cautions: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]


def about(output: Any) -> Found:
    """What is worth showing of an output; what has no shape that is known is shown as it is."""
    if isinstance(output, str | int | float | bool):
        return Found("", (), (("found", plain(output)),), ())
    if isinstance(output, list):
        return (
            Found("", (), (), (table(output, "found"),))
            if output and isinstance(output[0], Mapping)
            else Found("", (), (("found", plain(output)),), ())
        )
    if not isinstance(output, Mapping):
        return Found("", (), (), ())
    figures: list[tuple[str, str]] = []
    tables: list[Table] = []
    for name, value in _in_order(output):
        if name in _LEFT_OUT or value is None or value in ("", [], {}):
            continue
        if _is_table(value):
            tables.append(table(value, spoken(name)))
        elif isinstance(value, Mapping):
            figures += _flat(value, "" if name in _PARTS_FIRST else name)
        elif not _is_caution(name):
            figures.append((spoken(name), written(name, value)))
    cautions = [text for name in ("caution", "cautions", "warnings") for text in _texts(output.get(name))]
    if output.get("synthetic") is True:
        cautions.append("SIMULATED: the data is made up.")
    return Found(str(output.get("report") or ""), tuple(cautions), tuple(figures), tuple(tables))


def table(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """A list of objects as a table with the columns that any of them has."""
    columns = tuple(
        dict.fromkeys(
            column for row in rows for column, value in row.items() if not isinstance(value, list | dict) or value
        )
    )
    cells = tuple(
        {column: "" if row.get(column) is None else written(column, row[column]) for column in columns}
        for row in rows[:_ROWS]
    )
    numbers = frozenset(column for column in columns if all(_is_figure(row.get(column)) for row in rows[:_ROWS]))
    wide = frozenset(
        column
        for column in columns
        if column not in numbers and max((len(row[column]) for row in cells), default=0) > _LONG
    )
    return Table(name, columns, cells, numbers, wide)


def written(name: str, value: Any) -> str:
    """A value in writing, as its name says what it is."""
    found = number(value)
    if found is None or isinstance(value, bool):
        return plain(value)
    last = name.rpartition(".")[2].lower()
    if any(last == word or last.endswith(f"_{word}") for word in ("pnl", "net")):
        return signed(found)
    if any(word in last for word in _FRACTION) and abs(found) < 100:
        return percent(found)
    if any(word in last for word in _MONEY) and isinstance(value, str):
        return money(found)
    return plain(float(found)) if isinstance(value, float) else plain(value)


def _flat(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for name, inner in value.items():
        whole = f"{prefix}.{name}" if prefix else name
        if isinstance(inner, Mapping):
            yield from _flat(inner, whole)
        elif inner not in (None, "", []):
            yield spoken(whole.replace(".", " ")), written(whole, inner)


def _in_order(output: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(name, output[name]) for name in _PARTS_FIRST if name in output] + [
        (name, value) for name, value in output.items() if name not in _PARTS_FIRST
    ]


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _is_caution(name: str) -> bool:
    return name in {"caution", "cautions", "warnings", "synthetic"}


def _texts(value: Any) -> list[str]:
    return (
        [value] if isinstance(value, str) and value else [str(one) for one in value] if isinstance(value, list) else []
    )


def _is_figure(value: Any) -> bool:
    return value is None or number(value) is not None
