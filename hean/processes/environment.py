"""What HEAN knows of the world it trades in: each fact with where it comes from, how old it is, and how long it holds.

A fact past its time is shown as stale, never as current; one that could not be had is absent, and says why.
"""

import enum
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct, structs

from hean.instruments import Instrument, split_id
from hean.units import DAY, HOUR, SECOND

TTL_S = {
    "rules": DAY // SECOND,
    "fees": DAY // SECOND,
    "funding": HOUR // SECOND,
    "market": 60,
    "account": 300,
    "clock": 600,
}
"""Seconds a fact holds, by the group it is of: rules change seldom, a spread at any time."""


class Finding(Struct, frozen=True):
    """One fact as it was found. `value` is None where it could not be had: `reason` says why.

    `as_of` is when it held: when the venue was asked. Numbers are written as the venue writes them.
    """

    name: str
    value: str | None
    source: str
    as_of: int
    ttl_s: int
    reason: str = ""


class Freshness(enum.StrEnum):
    CURRENT = "current"
    STALE = "stale"
    ABSENT = "absent"


class FactView(Struct, frozen=True):
    """A fact as it stands now."""

    name: str
    value: str | None
    freshness: Freshness
    source: str
    as_of: int
    age_s: float
    ttl_s: int
    reason: str


class EnvironmentView(Struct, frozen=True):
    """All facts, by name, as they stand at `ts`."""

    ts: int
    facts: dict[str, FactView]

    def current(self, name: str) -> str | None:
        """A fact's value while it holds; None where it is stale, absent or unknown."""
        fact = self.facts.get(name)
        return fact.value if fact is not None and fact.freshness is Freshness.CURRENT else None


def environment(findings: Iterable[Finding], now: int) -> EnvironmentView:
    """Every fact as it stands now: of several findings of one name the newest that has a value.

    One that could not be had again keeps the value it had, until that is stale, and says why there is no newer one.
    """
    newest: dict[str, Finding] = {}
    failed: dict[str, Finding] = {}
    for finding in findings:
        into = newest if finding.value is not None else failed
        if finding.name not in into or finding.as_of >= into[finding.name].as_of:
            into[finding.name] = finding
    facts = {}
    for name in sorted({*newest, *failed}):
        finding = newest.get(name) or failed[name]
        failure = failed.get(name)
        if failure is not None and failure.as_of > finding.as_of:
            finding = structs.replace(finding, reason=failure.reason)
        facts[name] = _view(finding, now)
    return EnvironmentView(now, facts)


def _view(finding: Finding, now: int) -> FactView:
    age_s = (now - finding.as_of) / SECOND
    freshness = Freshness.CURRENT
    if finding.value is None:
        freshness = Freshness.ABSENT
    elif age_s > finding.ttl_s:
        freshness = Freshness.STALE
    return FactView(
        finding.name, finding.value, freshness, finding.source, finding.as_of, age_s, finding.ttl_s, finding.reason
    )


class Reader:
    """Turns answers of one source, as they came, into findings of one group."""

    def __init__(self, group: str, source: str, as_of: int) -> None:
        self._group = group
        self._source = source
        self._as_of = as_of
        self.found: list[Finding] = []

    def say(self, name: str, value: object) -> None:
        """Note a fact; a value that the answer does not have is absent."""
        text = "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)
        reason = "" if text else "the answer does not say"
        self.found.append(Finding(name, text or None, self._source, self._as_of, TTL_S[self._group], reason))

    def absent(self, names: Iterable[str], reason: str) -> None:
        """Note that facts could not be had."""
        self.found += [Finding(name, None, self._source, self._as_of, TTL_S[self._group], reason) for name in names]


def rules_names(instrument: str) -> list[str]:
    return [f"{instrument} {what}" for what in ("tick", "step", "min quantity", "min notional", "funding interval h")]


def read_rules(reader: Reader, rules: Instrument) -> None:
    """The rules of an instrument."""
    values: list[object] = [rules.tick, rules.step, rules.min_quantity, rules.min_notional, rules.funding_interval_h]
    for name, value in zip(rules_names(rules.id), values, strict=True):
        if value != 0 or not rules.is_spot:  # spot is never funded
            reader.say(name, value)


def market_names(instrument: str) -> list[str]:
    common = [f"{instrument} {what}" for what in ("bid", "ask", "spread bp", "bid size", "ask size")]
    return common if _is_spot(instrument) else [*common, f"{instrument} mark"]


def read_market(reader: Reader, instrument: str, ticker: Mapping[str, Any]) -> None:
    """Spread and depth at the top, as *Get Tickers* has them (Bybit v5)."""
    bid, ask = _number(ticker, "bid1Price"), _number(ticker, "ask1Price")
    spread = None
    if bid is not None and ask is not None and 0 < bid <= ask:
        spread = round((ask - bid) / (ask + bid) * 20_000, 4)
    values = [bid, ask, spread, _number(ticker, "bid1Size"), _number(ticker, "ask1Size"), _number(ticker, "markPrice")]
    for name, value in zip(market_names(instrument), values, strict=False):
        reader.say(name, value)


def read_depth(reader: Reader, instrument: str, book: Mapping[str, Any]) -> None:
    """What could be traded within ten basis points of the middle, in quote currency (Bybit v5, *Get Orderbook*)."""
    sides = [[(Decimal(str(price)), Decimal(str(size))) for price, size, *_ in book.get(side) or ()] for side in "ba"]
    depths: list[Decimal | None] = [None, None]
    if all(sides):
        middle = (sides[0][0][0] + sides[1][0][0]) / 2
        depths = [
            sum((price * size for price, size in side if abs(price - middle) <= middle / 1000), Decimal(0))
            for side in sides
        ]
    for name, depth in zip(depth_names(instrument), depths, strict=True):
        reader.say(name, None if depth is None else round(depth, 2))


def depth_names(instrument: str) -> list[str]:
    return [f"{instrument} depth of {side} within 10 bp" for side in ("bids", "asks")]


def funding_names(instrument: str) -> list[str]:
    return [f"{instrument} funding rate", f"{instrument} next funding"]


def read_funding(reader: Reader, instrument: str, ticker: Mapping[str, Any]) -> None:
    """The rate the next settlement would have now, and when it is."""
    rate, at = funding_names(instrument)
    reader.say(rate, _number(ticker, "fundingRate"))
    reader.say(at, ticker.get("nextFundingTime"))


def fee_names(instrument: str) -> list[str]:
    return [f"{instrument} maker fee", f"{instrument} taker fee"]


def read_fees(reader: Reader, instrument: str, row: Mapping[str, Any]) -> None:
    """What the account pays, as a fraction (Bybit v5, *Get Fee Rate*)."""
    maker, taker = fee_names(instrument)
    reader.say(maker, _number(row, "makerFeeRate"))
    reader.say(taker, _number(row, "takerFeeRate"))


def _is_spot(instrument: str) -> bool:
    return split_id(instrument)[1] == "SPOT"


def _number(row: Mapping[str, Any], name: str) -> Decimal | None:
    text = row.get(name)
    return Decimal(str(text)) if text not in {None, ""} else None
