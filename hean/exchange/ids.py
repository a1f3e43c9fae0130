"""Names that the exchange gives: counted and hashed, never drawn, so that the same run gives the same ones."""

import hashlib

from msgspec import Struct


class Ids(Struct):
    """One life of the exchange differs from another by its seed and the instant it began, in nanoseconds."""

    seed: int
    ts_start: int
    orders: int = 0
    executions: int = 0
    rows: int = 0

    def order(self, *, spot: bool) -> str:
        """A UUID for a derivative order, 19 digits for one of spot, as Bybit has them."""
        self.orders += 1
        return str(self.ts_start + self.orders) if spot else self._uuid("order", self.orders)

    def execution(self, *, spot: bool) -> str:
        self.executions += 1
        return str(self.ts_start + self.executions) if spot else self._uuid("execution", self.executions)

    def row(self, uid: str, symbol: str) -> str:
        """The id of a line of the transaction log."""
        self.rows += 1
        return f"{uid}_{symbol}_{self.rows}"

    def _uuid(self, what: str, number: int) -> str:
        digest = hashlib.blake2b(f"{self.seed}/{self.ts_start}/{what}/{number}".encode(), digest_size=16).hexdigest()
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:]}"
