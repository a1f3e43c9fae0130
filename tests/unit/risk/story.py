"""Stories of the risk manager: it is told things, and we listen to what it says."""

import itertools
from decimal import Decimal

from hean.instruments import Instrument
from hean.messages import (
    EquityChanged,
    Leg,
    Liquidity,
    OrderFilled,
    PositionChanged,
    Signal,
    SignalRefused,
    StartTrading,
    SubmitOrder,
)
from hean.risk.config import RiskConfig, StrategyLimits
from hean.risk.manager import RiskManager
from hean.risk.sizing import FixedNotional

SECOND = 1_000_000_000
PERP, SPOT, ETH = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT", "ETHUSDT-LINEAR.BYBIT"
LOOSE = {"symbol_exposure": 100.0, "gross_exposure": 100.0, "margin": 100.0, "strategy_leverage": 100.0}


def instrument(name, step="0.001", **changes):
    spot = "SPOT" in name
    rules = {
        "id": name,
        "base": name[:3],
        "quote": "USDT",
        "tick": Decimal("0.1"),
        "step": Decimal(step),
        "min_quantity": Decimal(step),
        "max_limit_quantity": Decimal(1000),
        "max_market_quantity": Decimal(100),
        "min_notional": Decimal(5),
        "max_leverage": Decimal(1) if spot else Decimal(100),
    }
    return Instrument(**(rules | changes))


INSTRUMENTS = {PERP: instrument(PERP), SPOT: instrument(SPOT, "0.000001"), ETH: instrument(ETH, "0.01")}


class Told:
    """A risk manager, and a broker and portfolio as obliging as a story needs."""

    def __init__(self, equity=10_000, strategies=None, start=True, **config):
        names = strategies or {"impulse": StrategyLimits(sizing=FixedNotional(notional=1_000))}
        self.manager = RiskManager(RiskConfig(**config), INSTRUMENTS, names, "r1")
        self.now = 1_000 * SECOND
        self.trades = itertools.count()
        self.say(EquityChanged(Decimal(equity), Decimal(equity), marks_known=True))
        if start:
            self.say(StartTrading())

    def say(self, *heard, after=0.0):
        self.now += round(after * SECOND)
        return [said for message in heard for said in self.manager.handle(message, self.now)]

    def want(self, *weights, strategy="impulse", instruments=(PERP, SPOT), price=50_000.0, **more):
        legs = tuple(Leg(name, weight, price, self.now) for name, weight in zip(instruments, weights, strict=False))
        fields = {"reason": "why", "edge_bp": None, "volatility": None, "bracket": None, "context": ""} | more
        return self.say(Signal(strategy=strategy, legs=legs, **fields))

    def fill(self, order, quantity=None, price=None, settle=True):
        """Fill an order, all of it by default, and post the position it makes."""
        quantity = order.quantity if quantity is None else Decimal(quantity)
        if price is None:
            # What risk closes on its own word names no price: it trades at the last one known.
            price = order.reference or self.manager.state.slots[order.strategy][order.instrument].price
        heard = self.say(
            OrderFilled(
                client_order_id=order.client_order_id,
                strategy=order.strategy,
                instrument=order.instrument,
                trade_id=str(next(self.trades)),
                side=order.side,
                quantity=quantity,
                price=Decimal(price),
                fee=Decimal(0),
                fee_currency="USDT",
                liquidity=Liquidity.TAKER,
                reference=order.reference,
                exit="",
                ts_event=self.now,
            )
        )
        if settle:
            before = self.manager.state.slots[order.strategy][order.instrument].held
            heard += self.hold(order.instrument, before + order.side * quantity, strategy=order.strategy)
        return heard

    def hold(self, name, quantity, strategy="impulse", price=50_000):
        quantity = Decimal(quantity)
        return self.say(
            PositionChanged(strategy, name, quantity, Decimal(0), Decimal(price) if quantity else Decimal(0))
        )

    def hold_pair(self, quantity, strategy="impulse"):
        self.hold(PERP, -Decimal(quantity), strategy)
        self.hold(SPOT, quantity, strategy)

    @property
    def trading(self):
        return self.manager.state.trading


def rules(said):
    return [message.rule for message in said if isinstance(message, SignalRefused)]


def orders(said):
    """Side times quantity of every order said, with a mark where it may only reduce."""
    return [
        (message.instrument, message.side * message.quantity, message.reduce_only)
        for message in said
        if isinstance(message, SubmitOrder)
    ]


def two(sizing, **more):
    return {name: StrategyLimits(sizing=sizing, **more) for name in ("impulse", "other")}


def worth(equity):
    """The account's worth, all of it in cash."""
    return EquityChanged(Decimal(equity), Decimal(equity), marks_known=True)


def fall(told, equity=8_900):
    """A drawdown, and the same five seconds later."""
    return told.say(EquityChanged(Decimal(equity), Decimal(equity), marks_known=True)) + told.say(
        EquityChanged(Decimal(equity), Decimal(equity), marks_known=True), after=5
    )
