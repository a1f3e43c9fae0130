"""What something that is held is worth: at the mark where the engine says it, or else at what the market traded at last."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from actors.page.store import Store, Topic
from actors.page.words import number

FRESH_S = 60.0
"""A last price older than this is not one."""


class Worth(Struct, frozen=True):
    """A position at a price. None is unknown; `is_mark` says whose price it is."""

    price: Decimal | None
    value: Decimal | None
    gain: Decimal | None
    is_mark: bool


def newest(store: Store, instrument: str) -> Topic:
    return store.see("/candles", every_s=3.0, instrument=instrument, interval="1m", limit=2)


def worth(store: Store, row: Mapping[str, Any]) -> Worth:
    """Value a position of `GET /positions`. `gain` is before fees and funding."""
    held, entry, mark = number(row["quantity"]), number(row["entry"]), number(row["mark"])
    found = mark
    if found is None and held:
        found = _last(newest(store, row["instrument"]))
    if held is None or found is None:
        return Worth(None, None, None, is_mark=False)
    gain = None if entry is None else held * (found - entry)
    return Worth(found, held * found, gain, is_mark=mark is not None)


def _last(topic: Topic) -> Decimal | None:
    if topic.value is None or (topic.grown(topic.value.get("age_s")) or 0.0) > FRESH_S:
        return None
    candles = topic.value.get("candles") or ()
    return number(candles[-1]["close"]) if candles else None
