"""Any CSV of candles with a header: a time, open, high, low, close, volume."""

import re

from hean.instruments import instrument_id
from hean.store.catalog import ImportBatch
from hean.store.importers.checks import incoming
from hean.store.importers.reading import Found
from hean.store.importers.times import from_epoch, from_iso
from hean.store.kinds import interval_name

NAME = "plain CSV"
EXPECTS = "SYMBOL_interval.csv with a header that names a time (ISO with offset, or s, ms, us, ns since 1970), open, high, low, close, volume"

_STAMPS = ("timestamp", "time", "date", "datetime", "ts", "open_time", "start")
_OHLC = ["open", "high", "low", "close"]
_SYMBOL = re.compile(r"(?<![A-Z0-9])(?P<symbol>[A-Z0-9]{2,}(?:USDT|USDC|USD))(?![A-Z0-9])")


def _names(found: Found) -> list[str]:
    return [name.lower() for name in found.header]


def claims(found: Found) -> bool:
    names = _names(found)
    return names[0] in _STAMPS and set(_OHLC) <= set(names)


def read(found: Found) -> ImportBatch:
    """Read candles of one symbol; the interval is the shortest step between them."""
    names = _names(found)
    symbol = found.hints.symbol
    if symbol is None:
        named = _SYMBOL.search(found.name)
        if named is None:
            found.refuse("does not name its symbol", remedy="name the file like BTCUSDT_1m.csv, or say --symbol")
        symbol = named["symbol"]
    instrument = instrument_id(symbol, found.market(), found.venue())
    has_volume = "volume" in names
    rows = found.numbers(found.table(names, header=True), [*_OHLC, "volume"] if has_volume else _OHLC)
    stamp = names[0]
    if rows.height < 2:
        found.refuse("holds fewer than two candles: their interval cannot be told", remedy="import a longer file")
    # The first stamp decides what all of them must be.
    whole = re.fullmatch(r"\s*-?\d+\s*", rows[stamp][0] or "") is not None
    rows = (from_epoch if whole else from_iso)(found, rows, stamp)
    note = ""
    if rows.height > 1 and bool((rows["ts_event"].diff().drop_nulls() < 0).all()):
        rows = rows.reverse()
        note = "newest first in the file, turned round"
    steps = rows["ts_event"].diff().drop_nulls()
    shortest = steps.filter(steps > 0).min()
    if not isinstance(shortest, int):
        found.refuse("has candles out of order or twice", row=int(rows["row"][1]))
    prefix = "bar" if has_volume else found.said_by_path({"mark": {"mark"}, "index": {"index"}, "premium": {"premium"}})
    if prefix is None:
        found.refuse("has no volume", remedy="let the file's name say mark, index or premium if that is what it holds")
    return found.batch(NAME, [incoming(found, f"{prefix}-{interval_name(shortest)}", instrument, rows)], note=note)
