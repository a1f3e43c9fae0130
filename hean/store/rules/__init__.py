"""Instrument rules with the day they were read: those recorded, and those that come with HEAN.

Rules change: venues cut ticks, move minima, and revise maxima twice a month. A run over the past
should use those of its time, and must say so when it cannot.
"""

import functools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from importlib import resources

import msgspec

from hean.instruments import Category, Instrument, RiskTier, instrument_id, split_id

SYNTHETIC = "SYNTHETIC"
DEFAULT_TIERS = "one default tier: no risk limits were recorded for this instrument"


class DatedRules(msgspec.Struct, frozen=True):
    """The rules of one instrument as read at `ts_from`; `tiers` says where its margin tiers come from."""

    ts_from: int
    source: str
    tiers: str
    instrument: Instrument


class RulesOrigin(msgspec.Struct, frozen=True):
    """Where rules come from: when they were read, from what, and whether that was after their use."""

    as_of: int
    source: str
    tiers: str
    later: bool


def default_tiers(max_leverage: Decimal) -> tuple[RiskTier, ...]:
    """Ask 2 % initial and 1 % maintenance margin of any position, more where leverage is capped lower.

    Stricter than the venue's first tiers on liquid symbols, so that a run without recorded risk
    limits errs towards less leverage.
    """
    initial = max(Decimal("0.02"), (1 / max_leverage).quantize(Decimal("0.0001")))
    return (RiskTier(up_to=Decimal(10) ** 9, maintenance_rate=initial / 2, initial_rate=initial),)


def in_force(recorded: Sequence[DatedRules], instrument: str, at: int) -> tuple[Instrument, RulesOrigin] | None:
    """Choose among recorded and shipped rules; made-up instruments follow those of Bybit."""
    symbol, category, venue = split_id(instrument)
    named = instrument_id(symbol, category, "BYBIT") if venue == SYNTHETIC else instrument
    shipped_ones = [rules for rules in shipped() if rules.instrument.id == named]
    recorded_ones = sorted((r for r in recorded if r.instrument.id == named), key=lambda rules: rules.ts_from)
    known = [rules for rules in recorded_ones if rules.ts_from <= at]
    if known:
        chosen = known[-1]
    elif shipped_ones:
        chosen = shipped_ones[0]
    elif recorded_ones:
        chosen = recorded_ones[0]
    else:
        return None
    origin = RulesOrigin(as_of=chosen.ts_from, source=chosen.source, tiers=chosen.tiers, later=chosen.ts_from > at)
    return msgspec.structs.replace(chosen.instrument, id=instrument), origin


def changed_rules(recorded: Sequence[DatedRules], read: Sequence[DatedRules]) -> list[DatedRules]:
    """Return those of `read` that say something else than what was recorded last before them."""
    newest: dict[str, list[DatedRules]] = {}
    for rules in sorted(recorded, key=lambda rules: rules.ts_from):
        newest.setdefault(rules.instrument.id, []).append(rules)
    changed = []
    for rules in read:
        before = [known for known in newest.get(rules.instrument.id, ()) if known.ts_from <= rules.ts_from]
        if not before or (before[-1].instrument, before[-1].tiers) != (rules.instrument, rules.tiers):
            changed.append(rules)
    return changed


@functools.cache
def shipped() -> tuple[DatedRules, ...]:
    """Read the rules that come with HEAN: the common symbols of Bybit, and a few of Binance."""
    content = resources.files(__name__).joinpath("shipped.json").read_bytes()
    return tuple(decode_rules(content))


def encode_rules(rules: Sequence[DatedRules]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(rules), indent=1)


def decode_rules(content: bytes) -> list[DatedRules]:
    return msgspec.json.decode(content, type=list[DatedRules])


def read_from_bybit(record: Mapping[str, object], category: Category, *, ts_from: int, source: str) -> DatedRules:
    """Date one entry of `instruments-info`; it names no margin tiers, so those that came with HEAN stay.

    Raises:
        msgspec.ValidationError: The entry lacks a field, or one is no number.
    """
    instrument = from_bybit(record, category)
    known = next((rules for rules in shipped() if rules.instrument.id == instrument.id), None)
    if known is not None:
        instrument = msgspec.structs.replace(instrument, tiers=known.instrument.tiers)
        return DatedRules(ts_from=ts_from, source=source, tiers=known.tiers, instrument=instrument)
    tiers = "" if category is Category.SPOT else DEFAULT_TIERS
    return DatedRules(ts_from=ts_from, source=source, tiers=tiers, instrument=instrument)


def from_bybit(record: Mapping[str, object], category: Category) -> Instrument:
    """Translate one entry of Bybit's `instruments-info` (v5, *Get Instruments Info*).

    Raises:
        msgspec.ValidationError: The entry lacks a field, or one is no number.
    """
    if category is Category.SPOT:
        spot = msgspec.convert(record, _SpotRecord, strict=False)
        lot = spot.lot_size_filter
        return Instrument(
            id=instrument_id(spot.symbol, category, "BYBIT"),
            base=spot.base_coin,
            quote=spot.quote_coin,
            tick=_plain(spot.price_filter.tick_size),
            step=_plain(lot.base_precision),
            min_quantity=_plain(lot.min_order_qty),
            max_limit_quantity=_plain(lot.max_limit_order_qty or lot.max_order_qty),
            max_market_quantity=_plain(lot.max_market_order_qty or lot.max_order_qty),
            min_notional=lot.min_order_amt,
        )
    perp = msgspec.convert(record, _PerpRecord, strict=False)
    sizes = perp.lot_size_filter
    max_leverage = _plain(perp.leverage_filter.max_leverage)
    return Instrument(
        id=instrument_id(perp.symbol, category, "BYBIT"),
        base=perp.base_coin,
        quote=perp.quote_coin,
        tick=_plain(perp.price_filter.tick_size),
        step=_plain(sizes.qty_step),
        min_quantity=_plain(sizes.min_order_qty),
        max_limit_quantity=_plain(sizes.max_order_qty),
        max_market_quantity=_plain(sizes.max_mkt_order_qty or sizes.max_order_qty),
        min_notional=sizes.min_notional_value or Decimal(0),
        max_leverage=max_leverage,
        funding_interval_h=perp.funding_interval // 60,
        funding_cap=perp.upper_funding_rate or Decimal(0),
        tiers=default_tiers(max_leverage),
    )


def _plain(number: Decimal) -> Decimal:
    """Drop trailing zeros, but write ten as 10, not 1E+1."""
    return number.to_integral_value() if number == number.to_integral_value() else number.normalize()


class _PriceFilter(msgspec.Struct, rename="camel"):
    tick_size: Decimal


class _SpotLots(msgspec.Struct, rename="camel"):
    base_precision: Decimal
    min_order_qty: Decimal
    max_order_qty: Decimal
    min_order_amt: Decimal
    # Absent from answers before 2025.
    max_limit_order_qty: Decimal | None = None
    max_market_order_qty: Decimal | None = None


class _SpotRecord(msgspec.Struct, rename="camel"):
    symbol: str
    base_coin: str
    quote_coin: str
    price_filter: _PriceFilter
    lot_size_filter: _SpotLots


class _PerpLots(msgspec.Struct, rename="camel"):
    qty_step: Decimal
    min_order_qty: Decimal
    max_order_qty: Decimal
    max_mkt_order_qty: Decimal | None = None
    min_notional_value: Decimal | None = None


class _Leverage(msgspec.Struct, rename="camel"):
    max_leverage: Decimal


class _PerpRecord(msgspec.Struct, rename="camel"):
    symbol: str
    base_coin: str
    quote_coin: str
    price_filter: _PriceFilter
    lot_size_filter: _PerpLots
    leverage_filter: _Leverage
    funding_interval: int
    upper_funding_rate: Decimal | None = None
