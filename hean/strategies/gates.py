"""What a strategy waits for, in its own words: each condition as it was measured, against what it must be."""

import math
from collections.abc import Iterable

from msgspec import Struct


class Gate(Struct, frozen=True):
    """A condition of an entry, and whether it holds now. What is not known holds nothing open: `said` calls it unknown."""

    passed: bool
    said: str


def figure(measured: float | None, form: str = ".2f", times: float = 1.0) -> str:
    """A measured figure in words."""
    if measured is None or math.isnan(measured):
        return "unknown"
    return format(measured * times, f"z{form}")  # no minus before what is rounded to nought


def in_words(gates: Iterable[Gate]) -> tuple[str, ...]:
    """A line for each, in order: those that are met, the first that is waited for, and what comes after it."""
    lines = []
    waits = False
    for gate in gates:
        if waits:
            lines.append(f"then: {gate.said}")
        else:
            waits = not gate.passed
            lines.append(f"{'waits for' if waits else 'met'}: {gate.said}")
    return tuple(lines)
