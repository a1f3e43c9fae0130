"""How values are written on the page. Unknown is a dash and never nought; a number says its sign, not its colour alone."""

import re
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

UNKNOWN = "–"  # noqa: RUF001 the dash that stands for a value nobody knows
MINUS = "−"  # noqa: RUF001 as wide as a plus, so that columns of digits stand straight

_VENUE = re.compile(r"\b([A-Z0-9]+-(?:LINEAR|SPOT|INVERSE))\.[A-Z]+\b")


def number(value: Any) -> Decimal | None:
    """What the API wrote as a number, exactly; None where it is unknown or not a number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def money(value: Any, places: int = 2) -> str:
    """1234.5 → "1,234.50"; nothing is rounded to nought in silence: what is smaller than the last place keeps its digits."""
    found = number(value)
    if found is None:
        return UNKNOWN
    while found and places < 8 and abs(found) < Decimal(5).scaleb(-places - 1):
        places += 1
    return _written(f"{found:,.{places}f}")


def signed(value: Any, places: int = 2) -> str:
    """As money, with its sign said, above nought too."""
    text = money(value, places)
    found = number(value)
    return f"+{text}" if found is not None and found > 0 else text


def quantity(value: Any) -> str:
    """All its digits, without trailing noughts."""
    found = number(value)
    if found is None:
        return UNKNOWN
    return _written(f"{found.normalize():,f}" if found else "0")


def price(value: Any) -> str:
    """As many places as its size deserves: 65,000.1 and 0.08123."""
    found = number(value)
    if found is None:
        return UNKNOWN
    size = abs(found)
    places = 2 if size >= 100 else 4 if size >= 1 else 6
    return _written(f"{found:,.{places}f}")


def percent(value: Any, places: int = 2, *, sign: bool = False) -> str:
    """A fraction as a percentage: 0.0123 → "1.23 %"."""
    found = number(value)
    if found is None:
        return UNKNOWN
    return (signed if sign else money)(found * 100, places) + " %"


def basis_points(value: Any, places: int = 2) -> str:
    """A fraction in hundredths of a percent, with its sign."""
    found = number(value)
    return UNKNOWN if found is None else signed(found * 10_000, places) + " bp"


def plain(value: Any) -> str:
    """Whatever the API said, as short as it can be read: numbers without noise, lists with commas."""
    if value is None or value == "":
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _written(f"{value:.6g}")
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(one) for one in value) or UNKNOWN
    if isinstance(value, dict):
        return ", ".join(f"{name} {plain(one)}" for name, one in value.items()) or UNKNOWN
    return str(value)


def measured(value: Any, unit: str = "") -> str:
    """A figure of a rule with its unit: fractions as percentages, money with its currency."""
    found = number(value)
    if found is None:
        return UNKNOWN
    match unit:
        case "fraction" | "share" | "ratio of equity":
            return percent(found)
        case "":
            return _written(f"{float(found):,.6g}")
        case _:
            return f"{money(found) if found % 1 else _written(f'{found:,.0f}')} {unit}"


def age(seconds: float | None) -> str:
    """3.2 → "3 s", 200 → "3 min", 8000 → "2 h", 200000 → "2 d"."""
    if seconds is None:
        return UNKNOWN
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 129_600:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 86_400:.0f} d"


def instant(value: Any) -> float | None:
    """A time of the API (ISO-8601, or integer nanoseconds) as seconds since the epoch."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and not value.isdigit():
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    found = number(value)
    if found is None:
        return None
    return float(found / 1_000_000_000 if found > 10**14 else found / 1000 if found > 10**11 else found)


def tone(value: Any) -> str:
    """The colour of a gain or a loss: "good" above nought, "bad" below it, else nothing."""
    found = number(value)
    return "" if not found else "good" if found > 0 else "bad"


def counted(count: int | None, thing: str) -> str:
    """A count with its noun: "1 signal", "2 signals"; a dash where nobody knows it."""
    return f"{UNKNOWN if count is None else f'{count:,}'} {thing}{'' if count == 1 else 's'}"


def brief(text: str) -> str:
    """Without the venue after each instrument: every one on this page is of the same."""
    return _VENUE.sub(r"\1", text)


def spoken(name: str) -> str:
    """A name of the code as a person says it: "max_drawdown" → "max drawdown"."""
    return name.replace("_", " ").replace("-", " ")


def _written(text: str) -> str:
    return text.replace("-", MINUS)
