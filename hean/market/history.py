"""The newest rows of one stream, as columns, whether they were told one by one or lie on a tape."""

from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.messages import Observation
from hean.tape import Ints, Stream, Tape


class Rows(Struct, frozen=True):
    """What a `History` holds, oldest first."""

    ts: list[int]
    columns: dict[str, list[float]]


class History:
    """The newest `size` rows of one kind of observation of one instrument.

    Rows come one at a time (`append`), or many at once from a tape (`follow`, `skip`). In the second case nothing is
    copied: the history refers to the tape, and stays there as long as what is appended is the tape's own next row.
    What it holds is the same whichever way the rows came.

    Args:
        kind: The message each row is.
        instrument: Whose.
        columns: Which of the message's numbers to keep, by name.
        size: How many rows to keep.
    """

    __slots__ = ("_buffers", "_first", "_of", "_stamps", "_stop", "_stream", "columns", "instrument", "kind", "size")

    def __init__(self, kind: type[Observation], instrument: str, columns: tuple[str, ...], size: int) -> None:
        self.kind = kind
        self.instrument = instrument
        self.columns = columns
        self.size = size
        # Rows [_first, _stop) were told: of the tape's stream where there is one, else of buffers of our own.
        self._stream: Stream | None = None
        self._first = 0
        self._stop = 0
        self._stamps: Ints = np.empty(0, np.int64)
        self._buffers: tuple[NDArray[Any], ...] = tuple(np.empty(0) for _ in columns)
        self._of: tuple[NDArray[Any], ...] = self._buffers

    def __len__(self) -> int:
        return min(self._stop - self._first, self.size)

    def append(self, ts: int, values: tuple[float, ...]) -> None:
        """Take one row, with a value for each column."""
        stream = self._stream
        row = self._stop
        if stream is not None:
            if row < len(stream) and stream.ts.item(row) == ts:
                for column, value in zip(self._of, values, strict=True):
                    if column.item(row) != value:
                        break
                else:
                    self._stop = row + 1
                    return
            self._leave_tape()
            row = self._stop
        if row == self._stamps.size:
            self._make_room()
            row = self._stop
        self._stamps[row] = ts
        for column, value in zip(self._buffers, values, strict=True):
            column[row] = value
        self._stop = row + 1

    def skip(self, tape: Tape, start: int, stop: int) -> None:
        """Take the rows of a tape between two of its positions."""
        stream = tape.stream(self.kind, self.instrument)
        if stream is not None:
            self.follow(stream, stream.rows_before(start), stream.rows_before(stop))

    def follow(self, stream: Stream, start: int, stop: int) -> None:
        """Take rows [start, stop) of a tape's stream."""
        if start >= stop:
            return
        if self._stream is stream and self._stop == start:
            self._stop = stop
        elif self.stands_on(stream, start):
            self._first = start - len(self)
            self._stream = stream
            self._of = tuple(stream.columns[name] for name in self.columns)
            self._stop = stop
            self._stamps = np.empty(0, np.int64)
            self._buffers = tuple(np.empty(0) for _ in self.columns)
        else:
            self._leave_tape()
            columns = [stream.columns[name] for name in self.columns]
            for row in range(max(start, stop - self.size), stop):
                self.append(stream.ts.item(row), tuple(column.item(row) for column in columns))

    def stands_on(self, stream: Stream, start: int) -> bool:
        """Whether all that is held are the rows of a stream that come before its row `start`."""
        if self._stream is stream:
            return self._stop == start
        held = len(self)
        if held > start:
            return False
        ts, *columns = self.arrays()
        return bool(np.array_equal(ts, stream.ts[start - held : start])) and all(
            np.array_equal(column, stream.columns[name][start - held : start])
            for name, column in zip(self.columns, columns, strict=True)
        )

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The stamps, then each column: views, newest last."""
        stop = self._stop
        first = max(self._first, stop - self.size)
        if self._stream is None:
            return (self._stamps[first:stop], *[column[first:stop] for column in self._buffers])
        return (self._stream.ts[first:stop], *[column[first:stop] for column in self._of])

    def last(self, column: str) -> float:
        """The newest value of a column. There must be one."""
        source = self._buffers if self._stream is None else self._of
        return float(source[self.columns.index(column)].item(self._stop - 1))

    @property
    def last_ts(self) -> int:
        return int((self._stamps if self._stream is None else self._stream.ts).item(self._stop - 1))

    def rows(self) -> Rows:
        """All that is held, as plain lists."""
        ts, *columns = self.arrays()
        return Rows(
            ts.tolist(),
            {name: column.astype(np.float64).tolist() for name, column in zip(self.columns, columns, strict=True)},
        )

    def _leave_tape(self) -> None:
        """Copy what is held into buffers of our own."""
        if self._stream is None:
            return
        ts, *columns = self.arrays()
        self._stream = None
        self._refill(ts, columns)

    def _make_room(self) -> None:
        ts, *columns = self.arrays()
        self._refill(ts, columns)

    def _refill(self, ts: NDArray[Any], columns: list[NDArray[Any]]) -> None:
        """Put rows at the beginning of buffers that have room for as many more as are kept."""
        held = ts.size
        room = min(2 * self.size, max(1024, 2 * held)) if held < self.size else 2 * self.size
        room = max(room, held + 1)
        stamps = np.empty(room, np.int64)
        stamps[:held] = ts
        self._stamps = stamps
        buffers = []
        for column in columns:
            buffer = np.empty(room)
            buffer[:held] = column
            buffers.append(buffer)
        self._buffers = tuple(buffers)
        self._first = 0
        self._stop = held
