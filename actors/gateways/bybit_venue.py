"""An account at Bybit that trades: orders out, the private stream in, snapshots of all that is held.

What it is told it sends, once, in the order of urgency and within the venue's rate limits (`bybit_sending`); what it hears
it puts in order and says (`bybit_account`); what it should have heard and did not, it asks for (`bybit_asking`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from actors.gateways.bybit_account import BybitAccount
from actors.gateways.bybit_endpoint import Endpoint, Keys, Pings, trade_socket
from actors.gateways.bybit_meter import Meter
from actors.gateways.bybit_rest import AccountReport, Backoff, ClockOffset
from actors.gateways.bybit_sending import Sending
from actors.gateways.bybit_streams import Attempts, Pace, Stream
from actors.gateways.bybit_words import Event, Said, Told, VenueConfig
from actors.gateways.fence import Fence
from hean.bybit.orders import Restored
from hean.errors import ConfigError
from hean.instruments import Instrument
from hean.messages import SubmitOrder
from hean.permit import LivePermit

__all__ = ["BybitVenue", "Said", "Told", "VenueConfig"]


class BybitVenue:
    """Trades one account, until stopped.

    Args:
        endpoint: Where.
        keys: Who.
        instruments: The rules of what is traded, by id.
        say: Takes what happened, in batches, in order; called from the gateway's own thread, must not block.
        since: From when on executions and the log are asked for: when they were last known to be complete.
        restored: Orders of an earlier life that may still be open.
        heard: The ids told in an earlier life: `trade_id`, `settlement_id` and `charge_id`.
        config: How, and how long.
        pace: How streams are begun again.
        pings: How often they ping.
        attempts: How many connections may be begun; shared with other gateways of the venue.
        node: Who reports an error.
        fence: The right to send; let go of when the gateway is stopped. None where nobody else could send.
        permit: To trade real money.
        going: Told of each order just before it is sent; called from several threads, must not block.

    Raises:
        ConfigError: The endpoint may be one of real money, and there is no permit.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        instruments: Mapping[str, Instrument],
        say: Callable[[Sequence[Said]], None],
        *,
        since: int,
        restored: Iterable[Restored] = (),
        heard: Iterable[str] = (),
        config: VenueConfig | None = None,
        pace: Pace | None = None,
        pings: Pings | None = None,
        attempts: Attempts | None = None,
        node: str = "venue",
        fence: Fence | None = None,
        permit: LivePermit | None = None,
        going: Callable[[SubmitOrder], None] | None = None,
    ) -> None:
        if endpoint.is_real and not isinstance(permit, LivePermit):
            raise ConfigError(
                f"{endpoint.name} is real money, and nothing permits to trade it: see hean.permit.live_gate"
            )
        config, pace, pings = config or VenueConfig(), pace or Pace(), pings or Pings()
        attempts = attempts or Attempts()
        self.meter = Meter()
        self.backoff = Backoff(lambda detail: self._account.note("backoff", detail))

        def sender(tell: Callable[[Event], None]) -> Sending:
            return Sending(
                endpoint,
                keys,
                config,
                tell,
                backoff=self.backoff,
                meter=self.meter,
                fence=fence,
                trade=_trade_stream(endpoint, keys, config, tell, pace=pace, pings=pings, attempts=attempts),
                going=going,
            )

        self._account = BybitAccount(
            endpoint,
            keys,
            instruments,
            say,
            sender,
            since=since,
            restored=restored,
            heard=heard,
            config=config,
            pace=pace,
            pings=pings,
            attempts=attempts,
            backoff=self.backoff,
            meter=self.meter,
            node=node,
            trades=True,
        )

    def start(self) -> None:
        """Begin to trade, with a key that may.

        Raises:
            ConfigError: The key may withdraw, or lacks a right to trade.
            UnansweredError: The venue did not say what the key may do.
        """
        self._account.start()

    def tell(self, message: Told) -> None:
        """Take a command; what comes of it is said.

        Raises:
            ContractError: No request can be made of it; nothing was sent.
            VenueError: The gateway is stopped; nothing was sent.
        """
        self._account.tell(message)

    def stop(self, timeout_s: float = 5.0) -> None:
        """End all threads; those that the network holds end by themselves. What has not left by now does not."""
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


def _trade_stream(
    endpoint: Endpoint,
    keys: Keys,
    config: VenueConfig,
    tell: Callable[[Event], None],
    *,
    pace: Pace,
    pings: Pings,
    attempts: Attempts,
) -> Stream | None:
    if config.orders_by != "socket" or not endpoint.trade:
        return None
    return Stream(
        "trade",
        lambda _, wires: trade_socket(endpoint, keys, wires, config.recv_window_ms, pings),
        tell,
        pace=pace,
        attempts=attempts,
        seed=config.seed,
        ready=lambda socket: bool(socket.auth),
    )
