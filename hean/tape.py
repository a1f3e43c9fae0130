"""The market as columns: streams of one kind and instrument each, and the one order they are told in."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hean.compiled import kernel
from hean.errors import DataError
from hean.messages import (
    Bar,
    BarOpened,
    BookLevels,
    FundingRate,
    MarkPrice,
    Observation,
    PremiumIndex,
    Quote,
    Side,
    Trade,
)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
T = TypeVar("T")

# Within one instant: what positions are valued and funded at, then what traded, then what closed, then what opened.
# A known flaw: a stop hit within the candle that ends at a funding stamp is told after the settlement, so a position
# already gone may still pay or receive it. Finer candles make it rarer; only ticks end it.
RANK: dict[type[Observation], int] = {
    MarkPrice: 0,
    PremiumIndex: 0,
    FundingRate: 1,
    Trade: 2,
    Quote: 2,
    BookLevels: 2,
    Bar: 3,
    BarOpened: 4,
}


class Stream:
    """One kind of observation of one instrument.

    Args:
        kind: The message each row is.
        instrument: Whose.
        ts: When each row was first known, shape (n,), never falling.
        columns: The message's own fields as arrays, shape (n,) each. A `BookLevels` row names its
            levels by `first` and `last`, an index range into `side`, `price` and `size`, which are longer.
        interval: Length of a bar in nanoseconds; 0 for what is not a bar.

    Raises:
        DataError: the stamps fall somewhere.
    """

    __slots__ = ("_build", "columns", "index", "instrument", "interval", "kind", "positions", "ts")

    def __init__(
        self,
        kind: type[Observation],
        instrument: str,
        ts: Ints,
        columns: dict[str, NDArray[Any]],
        *,
        interval: int = 0,
    ) -> None:
        if ts.size > 1 and bool((np.diff(ts) < 0).any()):
            row = int(np.argmax(np.diff(ts) < 0)) + 2
            raise DataError(f"{kind.__name__} of {instrument}: time goes backwards", row=row, remedy="sort the source")
        self.kind = kind
        self.instrument = instrument
        self.ts = ts
        self.columns = columns
        self.interval = interval
        self.positions: NDArray[np.int32] | None = None  # None: the tape has no other stream
        self.index = 0
        self._build = _BUILD[kind]

    def __len__(self) -> int:
        return int(self.ts.size)

    def __getstate__(self) -> dict[str, Any]:
        # What builds a row is found again by the kind: it may be a closure, and those do not travel.
        return {name: getattr(self, name) for name in self.__slots__ if name != "_build"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._build = _BUILD[self.kind]

    def message(self, row: int) -> Observation:
        return self._build(self, row)

    def rows_before(self, position: int) -> int:
        """How many rows of this stream come before a position of the tape."""
        if self.positions is None:
            return position
        return int(_bisect(self.positions, position))

    def position(self, row: int) -> int:
        """Where a row stands in the tape's order."""
        return row if self.positions is None else int(self.positions[row])


@kernel
def _bisect(places: NDArray[np.int32], position: int) -> int:
    # numpy's searchsorted would convert the whole column for a needle of another type.
    low, high = 0, places.size
    while low < high:
        middle = (low + high) // 2
        if places[middle] < position:
            low = middle + 1
        else:
            high = middle
    return low


def _trade(stream: Stream, row: int) -> Observation:
    of = stream.columns
    side = Side.BUY if of["side"].item(row) > 0 else Side.SELL
    return Trade(stream.instrument, stream.ts.item(row), of["price"].item(row), of["size"].item(row), side)


def _quote(stream: Stream, row: int) -> Observation:
    of = stream.columns
    return Quote(
        stream.instrument,
        stream.ts.item(row),
        of["bid"].item(row),
        of["bid_size"].item(row),
        of["ask"].item(row),
        of["ask_size"].item(row),
    )


def _levels(stream: Stream, row: int) -> Observation:
    of = stream.columns
    span = slice(of["first"].item(row), of["last"].item(row))
    bids: list[tuple[float, float]] = []
    asks: list[tuple[float, float]] = []
    for side, price, size in zip(
        of["side"][span].tolist(), of["price"][span].tolist(), of["size"][span].tolist(), strict=True
    ):
        (bids if side > 0 else asks).append((price, size))
    return BookLevels(stream.instrument, stream.ts.item(row), bool(of["snapshot"].item(row)), tuple(bids), tuple(asks))


def _bar(stream: Stream, row: int) -> Observation:
    of = stream.columns
    ts = stream.ts.item(row)
    return Bar(
        stream.instrument,
        ts,
        ts - stream.interval,
        of["open"].item(row),
        of["high"].item(row),
        of["low"].item(row),
        of["close"].item(row),
        of["volume"].item(row),
    )


def _one_column(kind: Callable[[str, int, float], Observation], name: str) -> Callable[[Stream, int], Observation]:
    def build(stream: Stream, row: int) -> Observation:
        return kind(stream.instrument, stream.ts.item(row), stream.columns[name].item(row))

    return build


_BUILD: dict[type[Observation], Callable[[Stream, int], Observation]] = {
    Trade: _trade,
    Quote: _quote,
    BookLevels: _levels,
    Bar: _bar,
    BarOpened: _one_column(BarOpened, "open"),
    MarkPrice: _one_column(MarkPrice, "price"),
    PremiumIndex: _one_column(PremiumIndex, "premium"),
    FundingRate: _one_column(FundingRate, "rate"),
}


class Tape:
    """Streams, and their rows in one order: by time, then kind, then instrument, then row.

    A position is a row's place in that order. The order takes 13 bytes a row beside the columns; a
    tape of one stream needs none.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = tuple(
            sorted(streams, key=lambda stream: (RANK[stream.kind], stream.instrument, stream.kind.__name__))
        )
        self.size = sum(len(stream) for stream in self.streams)
        self._derived: dict[Hashable, Any] = {}
        self._by_name = {(stream.kind, stream.instrument): stream for stream in self.streams}
        for index, stream in enumerate(self.streams):
            stream.index = index
        if len(self.streams) == 1:
            self._ts = self.streams[0].ts
            self.streams[0].positions = None
            return
        together = np.concatenate([stream.ts for stream in self.streams]) if self.streams else np.empty(0, np.int64)
        # Streams stand in the order of their rank, and a stable sort keeps it among equal stamps.
        order = np.argsort(together, kind="stable").astype(np.int32)
        self._ts = together[order]
        first = 0
        place = np.empty(self.size, np.int32)
        place[order] = np.arange(self.size, dtype=np.int32)
        self._stream_of = np.empty(self.size, np.int8 if len(self.streams) < 128 else np.int16)
        for index, stream in enumerate(self.streams):
            stream.positions = place[first : first + len(stream)]
            self._stream_of[stream.positions] = index
            first += len(stream)

    def __getstate__(self) -> dict[str, Any]:
        # A copy shares the columns, and begins without what was computed from them.
        return self.__dict__ | {"_derived": {}}

    def at(self, position: int) -> tuple[Stream, int]:
        """The stream and the row at a position."""
        if len(self.streams) == 1:
            return self.streams[0], position
        stream = self.streams[self._stream_of.item(position)]
        return stream, stream.rows_before(position)

    def ts_at(self, position: int) -> int:
        return self._ts.item(position)

    def after(self, ts: int) -> int:
        """The first position later than an instant."""
        return int(self._ts.searchsorted(ts, side="right"))

    @property
    def first_ts(self) -> int:
        return self.ts_at(0)

    @property
    def last_ts(self) -> int:
        return self.ts_at(self.size - 1)

    def stream(self, kind: type[Observation], instrument: str) -> Stream | None:
        return self._by_name.get((kind, instrument))

    def until(self, ts: int) -> "Tape":
        """The same tape, ending with what was known at `ts`."""
        cut = []
        for stream in self.streams:
            rows = int(stream.ts.searchsorted(ts, side="right"))
            long = stream.kind is BookLevels
            columns = {
                name: column if long and name in {"side", "price", "size"} else column[:rows]
                for name, column in stream.columns.items()
            }
            cut.append(Stream(stream.kind, stream.instrument, stream.ts[:rows], columns, interval=stream.interval))
        return Tape([stream for stream in cut if len(stream)])

    def derived(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Columns computed from this tape, kept so that every component and every run over it shares them."""
        if key not in self._derived:
            self._derived[key] = compute()
        return cast("T", self._derived[key])
