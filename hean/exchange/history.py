"""What had happened on one instrument before the exchange began."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from hean.units import MINUTE

Floats = NDArray[np.float64]


class History(Struct, frozen=True, kw_only=True):
    """Closed minutes without a hole from `ts_first` on, and what was settled meanwhile.

    `last` has the columns open, high, low, close, volume (base) and turnover (quote), shape (n, 6); `mark`, `index` and
    `premium` have open, high, low and close, shape (n, 4), and are None where they are not known. `settled` are funding rates
    by stamp, `interest` the open interest of one side in base units by stamp, both oldest first.
    """

    ts_first: int
    last: Floats
    mark: Floats | None = None
    index: Floats | None = None
    premium: Floats | None = None
    settled: tuple[tuple[int, float], ...] = ()
    interest: tuple[tuple[int, float], ...] = ()

    @property
    def ts_end(self) -> int:
        """When the last minute closed."""
        return self.ts_first + len(self.last) * MINUTE
