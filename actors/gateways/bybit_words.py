"""What the threads of a gateway that trades say to one another, and how the whole is set."""

from typing import Literal

from msgspec import Struct
from pydantic import BaseModel, Field

from actors.gateways.bybit_rest import Absence, AccountReport, ClockOffset
from actors.gateways.bybit_streams import StreamEvent
from hean.bybit.decode import Execution, OrderWord
from hean.bybit.encode import Outcome
from hean.bybit.lanes import OrderRequest, Request
from hean.bybit.orders import Question
from hean.messages import (
    AccountSnapshot,
    AmendOrder,
    CancelAll,
    CancelOrder,
    ErrorReported,
    FundingSettled,
    InterestCharged,
    OrderFact,
    ReconcileDue,
    SnapshotAccount,
    SubmitOrder,
)

Told = SubmitOrder | AmendOrder | CancelOrder | CancelAll | SnapshotAccount
Said = OrderFact | FundingSettled | InterestCharged | AccountSnapshot | ErrorReported | ReconcileDue


class VenueConfig(BaseModel, frozen=True, extra="forbid"):
    """How orders travel, and how long things may take."""

    orders_by: Literal["rest", "socket"] = Field(
        default="rest", description="how orders are sent while both ways stand"
    )
    timeout_s: float = Field(default=5, gt=0, description="how long an answer may take; then the outcome is unknown")
    recv_window_ms: int = Field(default=5_000, gt=0, description="a request older than this the venue refuses")
    age_s: float = Field(
        default=5, gt=0, description="an order that opens and could not be sent for so long is not sent"
    )
    lag_s: float = Field(default=5, ge=0, description="how far the venue's answers about orders may lag")
    patience_s: float = Field(default=1, gt=0, description="what the stream has not said by then is asked for")
    silence_s: float = Field(
        default=60, gt=0, description="a private stream silent for so long while orders are open is checked by REST"
    )
    guard_s: int | None = Field(
        default=None, ge=3, le=300, description="the venue cancels all orders when we are gone for so long (DCP)"
    )
    ack_s: float = Field(default=5, gt=0, description="how long a subscription's acknowledgement may take")
    clock_s: float = Field(default=60, gt=0, description="between two measurements of the venue's clock")
    skew_s: float = Field(default=1, gt=0, description="a clock further off than this is reported")
    seed: int = Field(default=0, description="of the jitter between attempts")


class Done(Struct, frozen=True):
    """What came of a request."""

    asked: Request
    outcome: Outcome


class NotSent(Struct, frozen=True):
    """A request that did not leave, and will not; certain, since it was in our own hands."""

    asked: OrderRequest
    reason: str


class Moot(Struct, frozen=True):
    """An order that had not left when its cancel came: neither will."""

    client_order_id: str


class Found(Struct, frozen=True):
    """What the venue says of one order: its state, its executions, or nothing that could be read (None)."""

    question: Question
    answer: OrderWord | Absence | tuple[Execution | FundingSettled, ...] | None


class Reported(Struct, frozen=True):
    """An answer to `SnapshotAccount`s, by their ids, and to our own wish to catch up, which has the id None."""

    request_ids: tuple[int | None, ...]
    report: AccountReport


class Clock(Struct, frozen=True):
    offset: ClockOffset


class Note(Struct, frozen=True):
    """Something that goes on as an `ErrorReported`."""

    kind: str
    detail: str


Event = Told | Done | NotSent | Moot | Found | Reported | Clock | Note | StreamEvent
