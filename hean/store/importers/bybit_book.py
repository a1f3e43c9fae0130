"""Order-book messages of Bybit, from its archive (`ob500`) or a recorded socket, to depth rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from hean.instruments import Category, instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.kinds import kind

NAME = "Bybit order-book archive"
EXPECTS = "one order-book message of V5 a line, as in …_ob500.data.zip"

_DEPTH = kind("depth").columns
_MS = 1_000_000


def claims(found: Found) -> bool:
    return found.first_line.startswith("{") and '"topic":"orderbook.' in found.first_line.replace(" ", "")


def read(found: Found) -> ImportBatch:
    """Read one symbol's messages. The archive does not name the category."""
    book = Book()
    symbols: set[str] = set()
    depths: set[str] = set()
    for number, line in found.lines():
        message = found.json(line, row=number)
        try:
            _, depth, symbol = message["topic"].split(".")
            book.hear(message, row=number, ts_recv=None)
        except (KeyError, TypeError, ValueError) as damage:
            found.refuse(f"is no order-book message: {damage!r}", row=number, remedy="fetch the file again")
        symbols.add(symbol)
        depths.add(depth)
    if len(symbols) != 1:
        found.refuse(f"holds the symbols {sorted(symbols)}", remedy="an archive file has one symbol: split it")
    symbol = symbols.pop()
    # Only contracts were ever archived 500 deep; 200 deep is spot, and contracts since September 2025.
    category = Category.LINEAR if depths == {"500"} else found.market()
    if category is Category.LINEAR and not symbol.endswith(("USDT", "USDC", "PERP")):
        category = Category.INVERSE
    series = incoming(found, "depth", instrument_id(symbol, category, "BYBIT"), book.rows())
    return found.batch(NAME, [series], note=book.note())


@dataclass
class Book:
    """Levels in order of arrival, and where the chain of update ids broke."""

    levels: list[tuple[Any, ...]] = field(default_factory=list)
    breaks: int = 0
    last_id: int | None = None

    def hear(self, message: dict[str, Any], *, row: int, ts_recv: int | None) -> None:
        """Take one message. `cts` is when the matching engine did it; `ts` is when the gateway sent it.

        Raises:
            KeyError, TypeError, ValueError: It is no order-book message of V5.
        """
        body = message["data"]
        snapshot = message["type"] == "snapshot"
        update_id = int(body["u"])
        if not snapshot and self.last_id is not None and update_id != self.last_id + 1:
            self.breaks += 1
        self.last_id = update_id
        stamp = int(message.get("cts", message["ts"])) * _MS
        shared = (stamp, snapshot, None, update_id, None, int(body["seq"]) if "seq" in body else None)
        for side, levels in ((1, body["b"]), (-1, body["a"])):
            self.levels += [(*shared, side, float(price), float(size), ts_recv, row) for price, size in levels]

    def rows(self) -> pl.DataFrame:
        return as_rows(self.levels)

    def note(self) -> str:
        return chain_note(self.breaks)


def chain_note(breaks: int) -> str:
    """Say how often the chain of update ids broke: from a break to the next snapshot the book is unknown."""
    return f"the chain of update ids breaks {breaks} times" if breaks else ""


def as_rows(levels: Iterable[tuple[Any, ...]]) -> pl.DataFrame:
    """Make a frame of depth rows that end in the row of the file."""
    return pl.DataFrame(list(levels), schema={**_DEPTH, "row": pl.Int64}, orient="row")
