"""The exchange: everything that a client, the market or the passing of time can do to it.

Each call either raises `Refused` and has changed nothing, or has happened wholly. What it set going is collected in
order and taken by `drain`.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from msgspec import Struct

from hean.exchange.account import TradingAccount, Wallet
from hean.exchange.listing import Listing
from hean.exchange.market import Market
from hean.exchange.words import (
    Amendment,
    ClosedPnl,
    Event,
    Execution,
    LogRow,
    NewOrder,
    Order,
    OrderFilter,
    TradingStop,
    Which,
)
from hean.messages import Side

HOUSE = "house"
"""Whose the background liquidity is: an account like any other, but unmargined and without histories."""


class Records(Struct):
    """What one account's past is asked for, oldest first; `orders` holds finished and open ones by id."""

    orders: dict[str, Order]
    executions: list[Execution]
    log: list[LogRow]
    closed: list[ClosedPnl]


class Exchange:
    markets: Mapping[str, Market]
    accounts: dict[str, TradingAccount]
    records: dict[str, Records]

    def open_account(self, uid: str, balances: Mapping[str, Decimal], now: int) -> TradingAccount: ...

    # orders of clients
    def create(self, uid: str, new: NewOrder, now: int) -> Order: ...
    def amend(self, uid: str, amendment: Amendment, now: int) -> Order: ...
    def cancel(self, uid: str, which: Which, now: int) -> Order: ...
    def cancel_all(
        self, uid: str, instruments: Iterable[str], now: int, *, order_filter: OrderFilter | None = None,
        stop_order_type: str = "", cancel_type: str = "CancelByUser",
    ) -> list[Order]: ...
    def pre_check(self, uid: str, new: NewOrder, now: int) -> tuple[Wallet, Wallet]: ...
    def find(self, uid: str, which: Which) -> Order | None: ...

    # settings of clients
    def set_leverage(self, uid: str, instrument: str, buy: Decimal, sell: Decimal, now: int) -> None: ...
    def switch_mode(self, uid: str, instruments: Iterable[str], mode: int, now: int) -> None: ...
    def trading_stop(self, uid: str, wanted: TradingStop, now: int) -> None: ...
    def set_window(self, uid: str, product: str, seconds: int, now: int) -> None: ...

    # figures
    def wallet(self, uid: str) -> Wallet: ...
    def worth(self, coin: str) -> Decimal: ...

    # the market and time
    def background_set(self, instrument: str, side: Side, ticks: int, steps: int, now: int) -> None: ...
    def background_take(self, instrument: str, side: Side, limit: int, steps: int, now: int) -> int: ...
    def background_at(self, instrument: str, side: Side, ticks: int) -> int: ...
    def tick(self, now: int) -> None: ...

    # drills
    def settle_funding(self, instrument: str, now: int, rate: Decimal | None = None) -> None: ...
    def deleverage(self, uid: str, instrument: str, position_idx: int, quantity: Decimal, now: int) -> None: ...

    def drain(self) -> list[Event]: ...
