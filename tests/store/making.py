"""Small market data made by hand, for tests of the store."""

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl

from hean.store.catalog import ImportBatch, Incoming, Source
from hean.units import MINUTE

PERP = "BTCUSDT-LINEAR.BYBIT"
SPOT = "BTCUSDT-SPOT.BYBIT"
T0 = 1_748_736_000_000_000_000  # 2025-06-01 00:00 UTC


def bars(count: int, *, start: int = T0, step: int = MINUTE, price: float = 100_000.0) -> pl.DataFrame:
    closes = [price + i % 7 for i in range(count)]
    opens = [price, *closes[:-1]]
    return pl.DataFrame(
        {
            "ts_event": [start + i * step for i in range(count)],
            "open": opens,
            "high": [max(o, c) + 1 for o, c in zip(opens, closes, strict=True)],
            "low": [min(o, c) - 1 for o, c in zip(opens, closes, strict=True)],
            "close": closes,
            "volume": [1.0 + i % 3 for i in range(count)],
        }
    )


def trades(count: int, *, start: int = T0, price: float = 100_000.0, ids: bool = True) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "ts_event": [start + i // 2 * 1_000_000 for i in range(count)],
            "price": [price + i % 5 for i in range(count)],
            "size": [0.001 * (1 + i % 4) for i in range(count)],
            "side": [1 if i % 3 else -1 for i in range(count)],
            "trade_id": [str(i) if ids else None for i in range(count)],
            "ts_recv": [None] * count,
        },
        schema_overrides={"trade_id": pl.String, "ts_recv": pl.Int64, "side": pl.Int8},
    )


def batch(*series: tuple[str, str, pl.DataFrame], name: str = "by hand", synthetic: bool = False) -> ImportBatch:
    return ImportBatch(
        source=Source(name=name, sha256=name.encode().hex(), importer="test"),
        series=tuple(Incoming(kind, instrument, rows) for kind, instrument, rows in series),
        synthetic=synthetic,
    )


def candle_lines(count: int, *, start_s: int = T0 // 10**9, scale: int = 1, price: float = 100_000.0) -> list[str]:
    """Rows of CSV `time,open,high,low,close,volume`; `scale` turns seconds into the unit wanted."""
    table = bars(count, start=start_s * 10**9, price=price)
    return [
        f"{row['ts_event'] // 10**9 * scale},{row['open']},{row['high']},{row['low']},{row['close']},{row['volume']}"
        for row in table.iter_rows(named=True)
    ]


def write_csv(path: Path, lines: list[str], *, header: str | None = "timestamp,open,high,low,close,volume") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(([header] if header else []) + lines) + "\n")
    return path


def write_gzip(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def write_zip(path: Path, member: str, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(member, text)
    path.write_bytes(packed.getvalue())
    return path
