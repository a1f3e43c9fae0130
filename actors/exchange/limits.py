"""How often a client may ask: per account and endpoint within any second, per address within any five.

Source: Bybit v5, *Rate Limit Rules*.
"""

from collections import defaultdict, deque
from math import inf

from msgspec import Struct

from hean.units import MILLISECOND, SECOND

_IP_REQUESTS, _IP_SPAN = 600, 5 * SECOND
_AHEAD = 50 * MILLISECOND


class Row(Struct, frozen=True):
    """A row of the table: endpoints of one name share nothing with another's; `spot` is None where it is one for both."""

    name: str
    linear: int
    spot: int | None = None

    def of(self, category: str) -> tuple[str, int]:
        """The counter a request of a category goes to, and how many a second it allows."""
        if category == "spot" and self.spot is not None:
            return f"{self.name} spot", self.spot
        return self.name, self.linear


class LimitState(Struct, frozen=True):
    """What the headers of a signed reply say: allowed a second, left of it, and when (ms) there is room again, else now."""

    allowed: int
    left: int
    reset_ms: int

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-Bapi-Limit": str(self.allowed),
            "X-Bapi-Limit-Status": str(self.left),
            "X-Bapi-Limit-Reset-Timestamp": str(self.reset_ms),
        }


class Limits:
    """Counts requests. `scale` multiplies every limit, that of addresses too; infinity lifts them."""

    def __init__(self) -> None:
        self.scale = 1.0
        self._asked: defaultdict[tuple[str, str], deque[int]] = defaultdict(deque)
        self._from: defaultdict[str, deque[int]] = defaultdict(deque)

    def take(self, uid: str, row: Row, category: str, now: int, count: int = 1) -> tuple[int, LimitState]:
        """Count up to `count` orders or requests, and say how many were within the limit.

        What is over it is not counted: a client that keeps asking is let in as soon as its second is over.
        """
        counter, allowed = row.of(category)
        allowed = self._scaled(allowed)
        asked = self._asked[uid, counter]
        _forget(asked, now - SECOND)
        granted = min(count, max(0, allowed - len(asked)))
        asked.extend([now] * granted)
        left = max(0, allowed - len(asked))
        # pybit sleeps until the reset and dies of one that has passed by the time it looks.
        room = asked[0] + SECOND if asked else now
        reset = now if granted == count else max(room, now + _AHEAD)
        return granted, LimitState(allowed, left, -(-reset // MILLISECOND))

    def admits(self, address: str, now: int) -> bool:
        """Count a request of an address, and say whether it is within what all of its requests may be."""
        asked = self._from[address]
        _forget(asked, now - _IP_SPAN)
        if len(asked) >= self._scaled(_IP_REQUESTS):
            return False
        asked.append(now)
        return True

    def _scaled(self, limit: int) -> int:
        return _UNLIMITED if self.scale == inf else int(limit * self.scale)


_UNLIMITED = 10**9


def _forget(asked: deque[int], before: int) -> None:
    while asked and asked[0] <= before:
        asked.popleft()


CREATE = Row("order/create", 10, 20)
AMEND = Row("order/amend", 10, 10)
CANCEL = Row("order/cancel", 10, 20)
CANCEL_ALL = Row("order/cancel-all", 10, 20)
PRE_CHECK = Row("order/pre-check", 10, 20)
CREATE_BATCH = Row("order/create-batch", 10, 20)
AMEND_BATCH = Row("order/amend-batch", 10, 20)
CANCEL_BATCH = Row("order/cancel-batch", 10, 20)
DISCONNECT = Row("order/disconnected-cancel-all", 5)
OPEN_ORDERS = Row("order/realtime", 50, 50)
ORDER_HISTORY = Row("order/history", 50, 50)
EXECUTIONS = Row("execution/list", 50, 50)
BORROW_CHECK = Row("order/spot-borrow-check", 50)
POSITIONS = Row("position/list", 50, 50)
CLOSED_PNL = Row("position/closed-pnl", 50, 50)
LEVERAGE = Row("position/set-leverage", 10)
MODE = Row("position/switch-mode", 10)
TRADING_STOP = Row("position/trading-stop", 10)
ADD_MARGIN = Row("position/add-margin", 10)
AUTO_MARGIN = Row("position/set-auto-add-margin", 10)
ISOLATED = Row("position/switch-isolated", 10)
WALLET = Row("account/wallet-balance", 50)
ACCOUNT = Row("account/info", 50)
COLLATERAL = Row("account/collateral-info", 50)
FEES = Row("account/fee-rate", 5)
MARGIN_MODE = Row("account/set-margin-mode", 5)
LOG = Row("account/transaction-log", 25)
DCP = Row("account/query-dcp-info", 5)
SMP = Row("account/smp-group", 5)
API_KEY = Row("user/query-api", 10)
COINS = Row("asset/coin/query-info", 5)
