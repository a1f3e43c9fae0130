# a component is handed the time whether it needs it or not
"""The exchange in the place of the simulated venue, with its own rules of netting: what it says goes over the wire and back."""

from collections.abc import Iterator
from decimal import Decimal
from random import Random

from actors.exchange import render
from hean.bybit import decode
from hean.bybit.decode import Execution
from hean.bybit.encode import Action, Outcome, Verdict, outcome_of
from hean.bybit.orders import OrderTracker
from hean.exchange.refusals import Refused
from hean.exchange.words import Executed, NewOrder, OrderChanged, OrderType, Which
from hean.messages import (
    AccountSnapshot,
    CancelOrder,
    ErrorReported,
    OrderAccepted,
    OrderAmended,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderOutcomeUnknown,
    OrderRejected,
    Quote,
    Side,
    SnapshotAccount,
    SubmitOrder,
    VenueOrder,
)
from tests.unit.exchange.floor import ANN, PERP, SPOT, START, Floor

ZERO = Decimal(0)


class Loopback:
    """One account at the exchange. `spot_fails` is how likely it refuses an order of spot for a reason of its own."""

    def __init__(self, balances, *, seed=0, spot_fails=0.0):
        self.floor = Floor(balances=dict(balances))
        self.tracker = OrderTracker("venue", (), (), START)
        self.chance = Random(seed)
        self.spot_fails = spot_fails
        self.asked = {}
        self.begun = None

    @property
    def state(self):
        raise AssertionError("the exchange is not killed")

    def handle(
        self, message: SubmitOrder | CancelOrder | SnapshotAccount | Quote, now: int
    ) -> Iterator[
        OrderAccepted
        | OrderRejected
        | OrderOutcomeUnknown
        | OrderFilled
        | OrderAmended
        | OrderCanceled
        | OrderExpired
        | ErrorReported
        | AccountSnapshot
    ]:
        self.begun = self.begun or now
        self.floor.now = max(self.floor.now + 1, START + now - self.begun)
        match message:
            case SubmitOrder():
                yield from self._submit(message)
            case CancelOrder():
                try:
                    self.floor.exchange.cancel(ANN, _which(message), self.floor.now)
                except Refused as refused:
                    assert refused.code in {110001, 170213}  # noqa: PT017 (any other is a fault of this test's)
            case SnapshotAccount(request_id=request):
                yield self._snapshot(request, now)
            case Quote(instrument=name, bid=bid):
                if name == PERP:
                    self.floor.worth(f"{bid:.1f}")
                    for side in Side:  # somebody takes what rests
                        self.floor.others_take(name, side, f"{self.chance.randint(1, 20) / 1000}")
        yield from self._heard()

    def wake_at(self):
        return None

    def _submit(self, order):
        self.asked[order.client_order_id] = order
        assert self.tracker.sending(order, self.floor.now)
        if order.instrument == SPOT and self.chance.random() < self.spot_fails:
            outcome = Outcome(Verdict.REFUSED, "170193 Buy order price cannot be higher than the limit")
        else:
            new = NewOrder(
                instrument=order.instrument,
                side=order.side,
                kind=OrderType.MARKET if order.limit is None else OrderType.LIMIT,
                quantity=order.quantity,
                price=order.limit,
                time_in_force=order.time_in_force,
                reduce_only=order.reduce_only,
                link_id=order.client_order_id,
            )
            try:
                made = self.floor.exchange.create(ANN, new, self.floor.now)
                outcome = outcome_of(0, "OK", Action.CREATE, {"orderId": made.order_id})
            except Refused as refused:
                outcome = outcome_of(refused.code, refused.text, Action.CREATE)
        yield from self.tracker.created(order.client_order_id, outcome, self.floor.now)

    def _heard(self):
        """What has happened, as the private streams say it."""
        exchange = self.floor.exchange
        for event in exchange.drain():
            match event:
                case OrderChanged(order=order) if order.uid == ANN:
                    row = render.order(order, exchange.markets[order.instrument].listing, stream=True)
                    for word in decode.orders([row]):
                        yield from self.tracker.heard(word, self.floor.now)
                case Executed(execution=execution) if execution.uid == ANN:
                    row = render.execution(execution, exchange.markets[execution.instrument].listing, stream=True)
                    for said in decode.executions([row], self.rules):
                        assert isinstance(said, Execution)
                        yield from self.tracker.executed(said)

    @property
    def rules(self):
        return {name: market.listing.instrument for name, market in self.floor.exchange.markets.items()}

    def _snapshot(self, request, now):
        account = self.floor.exchange.accounts[ANN]
        held = account.quantity(PERP, 0)
        orders = tuple(
            VenueOrder(order.link_id, order.instrument, order.side, order.quantity, order.filled)
            for order in account.open_orders.values()
        )
        entries = {PERP: account.holding(PERP, 0).position.value / held} if held else {}
        positions = {PERP: held} if held else {}
        return AccountSnapshot(request, now, True, orders, positions, dict(account.balances), entries, {}, ())


def _which(cancel):
    return Which(instrument=cancel.instrument, link_id=cancel.client_order_id)
