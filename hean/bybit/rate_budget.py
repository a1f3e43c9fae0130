"""How often Bybit may be asked: for each group of endpoints of an account, and for all that one address sends.

A token that was used comes back when its span is over, so that no span of that length ever holds more than the limit: Bybit
counts a rolling second (Bybit v5, *Rate Limit Rules*). What the venue itself says of its limits replaces the table.

A machine without a clock; one for all threads of an account, behind the lock of `actors.gateways.bybit_meter`.
"""

from collections import deque

from msgspec import Struct, field

from hean.bybit.encode import Action
from hean.instruments import Category
from hean.units import MILLISECOND, SECOND

ADDRESS = "address"
"""The group that every request belongs to, whoever makes it."""

_MARGIN = 50 * MILLISECOND  # two requests may arrive closer to each other than they left
_SECOND = SECOND + _MARGIN
_ADDRESS_LIMIT, _ADDRESS_SPAN = 600, 5 * SECOND + _MARGIN
_KEPT_BACK = 100
"""What questions leave of the address's limit to whoever changes something."""

# Bybit v5, *Rate Limit Rules*: requests a second of an account without a VIP level, for contracts and for spot.
_LIMITS = {
    "order/create": (10, 20),
    "order/amend": (10, 10),
    "order/cancel": (10, 20),
    "order/cancel-all": (10, 20),
    "order/realtime": (50, 50),
    "order/history": (50, 50),
    "execution/list": (50, 50),
    "position/list": (50, 50),
    "account/wallet-balance": (50, 50),
    "account/info": (50, 50),
    "account/transaction-log": (25, 25),
    "user/query-api": (10, 10),
    "order/disconnected-cancel-all": (5, 5),
    "position/set-leverage": (10, 10),
    "position/switch-mode": (10, 10),
}
_ENDPOINTS = {
    Action.CREATE: "order/create",
    Action.AMEND: "order/amend",
    Action.CANCEL: "order/cancel",
}


def group_of(action: Action, category: Category) -> str:
    """The group a request about one order is counted in."""
    return endpoint_group(_ENDPOINTS[action], category)


def endpoint_group(endpoint: str, category: Category) -> str:
    """The group of an endpoint, such as `order/cancel-all`, for one category."""
    return f"{endpoint} {'spot' if category is Category.SPOT else 'linear'}"


class _Bucket(Struct):
    allowed: int
    span: int
    used: deque[int] = field(default_factory=deque)
    until: int = 0

    def wait(self, now: int, keep: int = 0) -> int:
        """Nanoseconds until a token is there; `keep` are left untouched."""
        while self.used and self.used[0] <= now - self.span:
            self.used.popleft()
        held_up = max(0, self.until - now)
        over = len(self.used) - max(1, self.allowed - keep)
        return held_up if over < 0 else max(held_up, self.used[over] + self.span - now)


class RateBudget:
    """What may be asked now, of one account from one address."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {ADDRESS: _Bucket(_ADDRESS_LIMIT, _ADDRESS_SPAN)}

    def wait(self, group: str, now: int, *, changes: bool = True) -> int:
        """Nanoseconds until a request of a group may leave, 0 if it may at once.

        Args:
            group: As `group_of` or `endpoint_group` names it; one that is not known counts for the address alone.
            now: By any clock that is never set back.
            changes: Whether it changes something: then it may use what questions leave.
        """
        address = self._buckets[ADDRESS].wait(now, 0 if changes else _KEPT_BACK)
        bucket = self._bucket(group)
        return max(address, bucket.wait(now) if bucket is not None else 0)

    def take(self, group: str, now: int, *, changes: bool = True) -> int:
        """Use a token up and return 0; or return how long to wait before asking again."""
        wait = self.wait(group, now, changes=changes)
        if not wait:
            self._buckets[ADDRESS].used.append(now)
            bucket = self._bucket(group)
            if bucket is not None:
                bucket.used.append(now)
        return wait

    def told(self, group: str, limit: int, now: int) -> None:
        """Take the venue's word for the limit of a group."""
        bucket = self._bucket(group)
        if bucket is not None and limit > 0:
            bucket.wait(now)
            bucket.allowed = limit

    def exhausted(self, group: str, until: int) -> None:
        """The venue turned a request of a group away: nothing of it leaves before `until`."""
        bucket = self._bucket(group)
        if bucket is not None:
            bucket.until = max(bucket.until, until)

    def _bucket(self, group: str) -> _Bucket | None:
        known = self._buckets.get(group)
        if known is None:
            endpoint, _, category = group.partition(" ")
            limits = _LIMITS.get(endpoint)
            if limits is None:
                return None
            known = self._buckets[group] = _Bucket(limits[category == "spot"], _SECOND)
        return known
