"""Figures as people read them on the page of a run."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from html import escape

from hean.backtest.kernels import Interval
from hean.backtest.summary import Figures
from hean.errors import ConfigError
from hean.instruments import Category, split_id

_MINUS = "\N{MINUS SIGN}"


def money(amount: Decimal) -> str:
    rounded = round(amount, 2)
    return f"{rounded or abs(rounded):,.2f}".replace("-", _MINUS)


def signed(amount: Decimal) -> str:
    return ("+" if round(amount, 2) > 0 else "") + money(amount)


def toned(amount: Decimal | None, *, why: str = "") -> str:
    if amount is None:
        return unknown(why)
    tone = "gain" if round(amount, 2) > 0 else "loss" if round(amount, 2) < 0 else ""
    return f'<span class="{tone}">{signed(amount)}</span>' if tone else signed(amount)


def share(amount: Decimal, capital: Decimal) -> str:
    return percent(float(amount / capital), signed=True) if capital > 0 else unknown()


def percent(fraction: float | None, *, places: int = 2, signed: bool = False, why: str = "") -> str:
    if fraction is None:
        return unknown(why)
    text = f"{fraction * 100:,.{places}f}"
    if not float(text.replace(",", "")):
        text = text.removeprefix("-")
    return ("+" if signed and float(text.replace(",", "")) > 0 else "") + text.replace("-", _MINUS) + " %"


def number(x: float | None, *, places: int = 2, suffix: str = "", why: str = "") -> str:
    return unknown(why) if x is None else f"{x:,.{places}f}".replace("-", _MINUS) + suffix


def count(count: int | None) -> str:
    return unknown() if count is None else f"{count:,}"


def between(interval: Interval | None, places: int) -> str:
    if interval is None:
        return ""
    return f"95 %: {number(interval.low, places=places)} to {number(interval.high, places=places)}"


def why_sharpe(found: Figures) -> str:
    return "needs four days" if found.days < 4 else "returns do not vary"


def unknown(why: str = "") -> str:
    return f'<span class="unknown" title="{escape(why) or "not known"}">unknown</span>' + (
        f' <span class="hint">{escape(why)}</span>' if why else ""
    )


def duration(ns: int | None, *, why: str = "") -> str:
    return unknown(why) if ns is None else span(ns)


def span(ns: int) -> str:
    seconds = ns / 1e9
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds:.3g} s"


def price(price: Decimal) -> str:
    """A price to eight figures: the mean of several fills has no last digit."""
    text = f"{round(price, max(0, 7 - price.adjusted())):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain_number(x: Decimal) -> str:
    text = f"{x:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def key(key: object) -> str:
    return f"{key:f}" if isinstance(key, Decimal) else escape(str(key))


def seconds(ts: int) -> float | int:
    seconds, below = divmod(ts, 1_000_000_000)
    return seconds if not below else round(seconds + below / 1e9, 3)


def most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def split(name: str) -> tuple[str, Category | None]:
    try:
        symbol, category, _ = split_id(name)
    except ConfigError:
        return name, None
    return symbol, category


def symbol(name: str) -> str:
    return split(name)[0]


def label(name: str) -> str:
    symbol, category = split(name)
    return symbol if category is None else f"{symbol} {category.lower()}"


def labels(names: Sequence[str]) -> str:
    """BTCUSDT linear / spot: the symbol once, where it is the same."""
    first, *rest = [label(name) for name in names]
    symbol = first.split(" ")[0]
    return " / ".join([first, *(label.removeprefix(f"{symbol} ") for label in rest)])
