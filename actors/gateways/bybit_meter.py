"""The rate budget of one account, shared by all threads that ask in its name."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from hean.bybit.rate_budget import RateBudget, endpoint_group
from hean.instruments import Category
from hean.units import MILLISECOND, SECOND

_ENDPOINTS = {
    "get_open_orders": "order/realtime",
    "get_order_history": "order/history",
    "get_executions": "execution/list",
    "get_positions": "position/list",
    "get_wallet_balance": "account/wallet-balance",
    "get_account_info": "account/info",
    "get_transaction_log": "account/transaction-log",
    "get_api_key_information": "user/query-api",
    "set_dcp": "order/disconnected-cancel-all",
    "set_leverage": "position/set-leverage",
    "switch_position_mode": "position/switch-mode",
}


class Meter:
    """A rate budget and its lock: `turn` is told whenever more may leave than did."""

    def __init__(self) -> None:
        self.budget = RateBudget()
        self.turn = threading.Condition()

    def wait_for_turn(self, method: str, arguments: Mapping[str, Any], patience_s: float, *, changes: bool) -> bool:
        """Wait until pybit's `method` may be called; False where that takes longer than `patience_s`."""
        category = Category.SPOT if arguments.get("category") == "spot" else Category.LINEAR
        group = endpoint_group(_ENDPOINTS.get(method, method), category)
        limit = time.monotonic_ns() + int(patience_s * SECOND)
        while True:
            now = time.monotonic_ns()
            with self.turn:
                wait = self.budget.take(group, now, changes=changes)
            if not wait:
                return True
            if now + wait > limit:
                return False
            time.sleep(wait / SECOND)

    def heard(self, group: str, headers: object) -> None:
        """Take in what the venue says of its own limit."""
        limit = _number(headers, "X-Bapi-Limit")
        if limit:
            with self.turn:
                self.budget.told(group, limit, time.monotonic_ns())
                self.turn.notify_all()

    def exhausted(self, group: str, headers: object) -> None:
        """The venue said that too much was asked (10006): nothing of the group leaves until it says, or for a second."""
        now = time.time_ns()
        left = reset_of(headers, now) - now
        with self.turn:
            self.budget.exhausted(group, time.monotonic_ns() + left)


def reset_of(headers: object, now: int) -> int:
    """When a rate limit is over, by its header; within a second where the header makes no sense."""
    at = _number(headers, "X-Bapi-Limit-Reset-Timestamp") * MILLISECOND
    return min(max(at, now + SECOND // 20), now + SECOND) if at else now + SECOND


def _number(headers: object, name: str) -> int:
    text = str(headers.get(name, "")) if isinstance(headers, Mapping) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
