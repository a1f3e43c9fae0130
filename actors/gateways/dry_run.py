"""An account at Bybit that is read and never touched: real keys, real market, and each order written down instead of sent.

It has nothing that could send: neither a `BybitOrders` nor a trade socket is made, and whoever is told an order only logs
the request that would have gone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from actors.gateways.bybit_account import BybitAccount
from actors.gateways.bybit_endpoint import Endpoint, Keys, Pings
from actors.gateways.bybit_meter import Meter
from actors.gateways.bybit_rest import SETTLE, AccountReport, Backoff, ClockOffset
from actors.gateways.bybit_streams import Attempts, Pace, StreamEvent
from actors.gateways.bybit_words import Done, Event, NotSent, Said, Told, VenueConfig
from hean.bybit.encode import (
    Outcome,
    Verdict,
    amend_request,
    cancel_all_request,
    cancel_request,
    order_request,
)
from hean.bybit.lanes import CancelEverything, Request
from hean.bybit.orders import Restored
from hean.instruments import Instrument
from hean.messages import AmendOrder, CancelOrder, SubmitOrder

NOT_SENT = "dry run: not sent"

Log = Callable[[str, Mapping[str, Any]], None]


class WrittenDown:
    """Sends nothing: logs each request as it would have gone, and says that it did not."""

    def __init__(self, log: Log, tell: Callable[[Event], None]) -> None:
        self._log = log
        self._tell = tell

    def put(self, request: Request, *, reduces: bool = False) -> None:  # noqa: ARG002  there is no turn to wait for
        match request:
            case SubmitOrder():
                self._log("order/create", order_request(request))
            case AmendOrder():
                self._log("order/amend", amend_request(request))
            case CancelOrder():
                self._log("order/cancel", cancel_request(request))
            case CancelEverything(category=category):
                self._log("order/cancel-all", cancel_all_request(category, SETTLE))
                self._tell(Done(request, Outcome(Verdict.ACCEPTED, NOT_SENT)))
                return
        self._tell(NotSent(request, NOT_SENT))

    def start(self) -> None:
        pass

    def holds(self, client_order_id: str) -> bool:  # noqa: ARG002  nothing waits
        return False

    def hear(self, event: StreamEvent) -> None:
        pass

    def tick(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def join(self, deadline: float) -> None:
        pass

    @property
    def alive(self) -> bool:
        return True


class DryRun:
    """Reads one account, and logs what would be sent to it. Its interface is that of `BybitVenue`.

    An order, told to it, ends at once as expired; a cancel of what does not rest as canceled; an order that does rest at
    the venue, from an earlier life, stays there. A key that can only read is enough.

    Args:
        endpoint: Where; real money too, without a permit.
        keys: Who.
        instruments: The rules of what is traded, by id.
        say: Takes what happened, in batches, in order; called from the gateway's own thread, must not block.
        log: Takes each request that would have gone: its endpoint and its arguments.
        since: From when on executions and the log are asked for.
        restored: Orders of an earlier life that may still be open.
        heard: The ids told in an earlier life: `trade_id`, `settlement_id` and `charge_id`.
        config: How, and how long.
        pace: How streams are begun again.
        pings: How often they ping.
        attempts: How many connections may be begun.
        node: Who reports an error.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        instruments: Mapping[str, Instrument],
        say: Callable[[Sequence[Said]], None],
        log: Log,
        *,
        since: int,
        restored: Iterable[Restored] = (),
        heard: Iterable[str] = (),
        config: VenueConfig | None = None,
        pace: Pace | None = None,
        pings: Pings | None = None,
        attempts: Attempts | None = None,
        node: str = "venue",
    ) -> None:
        self.backoff = Backoff(lambda detail: self._account.note("backoff", detail))
        self._account = BybitAccount(
            endpoint,
            keys,
            instruments,
            say,
            lambda tell: WrittenDown(log, tell),
            since=since,
            restored=restored,
            heard=heard,
            config=(config or VenueConfig()).model_copy(update={"guard_s": None, "orders_by": "rest"}),
            pace=pace or Pace(),
            pings=pings or Pings(),
            attempts=attempts or Attempts(),
            backoff=self.backoff,
            meter=Meter(),
            node=node,
            trades=False,
        )

    def start(self) -> None:
        """Begin to read.

        Raises:
            ConfigError: The key may withdraw.
            UnansweredError: The venue did not say what the key may do.
        """
        self._account.start()

    def tell(self, message: Told) -> None:
        """Take a command; what comes of it is said.

        Raises:
            ContractError: No request can be made of it.
            VenueError: The gateway is stopped.
        """
        self._account.tell(message)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all threads; those that the network holds end by themselves."""
        self._account.stop(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether it does its work: a thread that failed was reported, and does not come back."""
        return self._account.alive

    @property
    def since(self) -> int:
        """From when on a successor must ask for executions and the log: all before has been told."""
        return self._account.since

    @property
    def clock(self) -> ClockOffset | None:
        """How far the venue's clock is ahead, once that was measured."""
        return self._account.clock

    @property
    def last_report(self) -> AccountReport | None:
        """The last answer to everything."""
        return self._account.last_report
