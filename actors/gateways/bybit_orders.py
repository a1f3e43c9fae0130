"""What changes something at Bybit by REST: orders with their three outcomes, and an account's settings.

Nothing is sent twice from here. Whoever holds no `BybitOrders` cannot change anything by REST.
"""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import requests
from pybit.exceptions import FailedRequestError, InvalidRequestError

from actors.gateways.bybit_endpoint import Endpoint, Keys, session
from actors.gateways.bybit_meter import Meter
from actors.gateways.bybit_rest import SETTLE, UNREADABLE_ANSWER, Backoff, note_failure, note_refusal
from actors.gateways.fence import Fence
from hean.bybit import decode
from hean.bybit.decode import category_word
from hean.bybit.encode import (
    Action,
    Arguments,
    Outcome,
    Verdict,
    amend_request,
    cancel_all_request,
    cancel_request,
    order_request,
    outcome_of,
)
from hean.bybit.lanes import CancelEverything, Request, group
from hean.instruments import split_id
from hean.messages import AmendOrder, CancelOrder, SubmitOrder
from hean.units import SECOND

_TOO_OFTEN = 10006


class BybitOrders:
    """One thread's own way to change something.

    Args:
        endpoint: Where.
        keys: Who.
        backoff: Shared with the other threads of the account.
        meter: The account's rate budget, the same.
        fence: The right to send; None where nobody else could.
        timeout_s: How long an answer may take.
        recv_window_ms: How old a request may be when it reaches the venue.
        patience_s: How long a request may wait for a backoff to end.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        keys: Keys,
        *,
        backoff: Backoff,
        meter: Meter | None = None,
        fence: Fence | None = None,
        timeout_s: float = 5.0,
        recv_window_ms: int = 5_000,
        patience_s: float = 3.0,
    ) -> None:
        self._session = session(
            endpoint,
            keys,
            timeout_s=timeout_s,
            recv_window_ms=recv_window_ms,
            with_headers=True,
            # Looked at once a request has its time: if this process is stopped after that, the venue refuses it for its age.
            before_each=None if fence is None else fence.check,
        )
        self._keys = keys
        self._backoff = backoff
        self._meter = meter or Meter()
        self._fence = fence
        self._patience_ns = int(patience_s * SECOND)

    def close(self) -> None:
        self._session.client.close()

    # --- orders: the budget is the caller's ------------------------------------------------------

    def send(self, request: Request) -> Outcome:
        """Send a request whose turn it is, once, and say what is known of the outcome.

        Raises:
            FencedError: Nothing may be sent from here any more.
        """
        match request:
            case SubmitOrder():
                return self._act(Action.CREATE, "place_order", order_request(request), group(request))
            case AmendOrder():
                return self._act(Action.AMEND, "amend_order", amend_request(request), group(request))
            case CancelOrder():
                return self._act(Action.CANCEL, "cancel_order", cancel_request(request), group(request))
            case CancelEverything(category=category):
                arguments = cancel_all_request(category, SETTLE)
                return self._act(Action.CANCEL, "cancel_all_orders", arguments, group(request))

    # --- settings ---------------------------------------------------------------------------------

    def set_leverage(self, instrument: str, leverage: Decimal) -> Outcome:
        """Set a contract's leverage; it being so already is success."""
        symbol, category, _ = split_id(instrument)
        arguments = {
            "category": category_word(category),
            "symbol": symbol,
            "buyLeverage": f"{leverage:f}",
            "sellLeverage": f"{leverage:f}",
        }
        return self._set("set_leverage", arguments)

    def one_way(self, instrument: str) -> Outcome:
        """Keep one position of a contract, not one for each side; it being so already is success."""
        symbol, category, _ = split_id(instrument)
        return self._set("switch_position_mode", {"category": category_word(category), "symbol": symbol, "mode": 0})

    def guard_disconnect(self, product: str, seconds: int) -> Outcome:
        """Have the venue cancel all orders of a product when our private stream is gone for so long (DCP)."""
        return self._set("set_dcp", {"product": product, "timeWindow": seconds})

    def _set(self, method: str, arguments: Arguments) -> Outcome:
        if not self._meter.wait_for_turn(method, arguments, self._patience_ns / SECOND, changes=True):
            return Outcome(Verdict.REFUSED, "not sent: too much was asked", busy=True)
        return self._act(Action.SET, method, arguments, method)

    # --- sending ----------------------------------------------------------------------------------

    def _act(self, action: Action, method: str, arguments: Arguments, of: str) -> Outcome:
        """Ask for something to be done, once.

        While nobody may ask, a create is refused here, since it has not left; anything else waits its turn.
        """
        left, reason = self._backoff.left(method)
        if left > (0 if action is Action.CREATE else self._patience_ns):
            return Outcome(Verdict.REFUSED, f"not sent: {reason}", busy=True)
        if left:
            time.sleep(left / SECOND)
        try:
            answer, headers = self._call(method, arguments)
            placed = decode.answer(answer)
        except InvalidRequestError as refusal:
            if refusal.status_code == _TOO_OFTEN and action is not Action.SET:
                self._meter.exhausted(of, refusal.resp_headers)
            else:
                note_refusal(self._backoff, method, refusal)
            return outcome_of(refusal.status_code, self._keys.hide(str(refusal.message)), action)
        except FailedRequestError as failure:
            note_failure(self._backoff, failure)
            return Outcome(Verdict.UNKNOWN, f"HTTP {failure.status_code}")
        except requests.RequestException as silence:
            return Outcome(Verdict.UNKNOWN, type(silence).__name__)
        except UNREADABLE_ANSWER as unreadable:
            return Outcome(Verdict.UNKNOWN, f"the answer cannot be read: {type(unreadable).__name__}")
        self._meter.heard(of, headers)
        return outcome_of(placed.ret_code, placed.ret_msg, action, placed.result)

    def _call(self, method: str, arguments: Arguments) -> tuple[Any, Any]:
        ask: Callable[..., Any] = getattr(self._session, method)
        if self._fence is None:
            answer, _, headers = ask(**arguments)
        else:
            with self._fence.sending():
                answer, _, headers = ask(**arguments)
        return answer, headers
