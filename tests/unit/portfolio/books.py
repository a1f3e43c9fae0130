"""What the tests of the books share."""

from decimal import Decimal

from hean.instruments import Instrument
from hean.messages import FundingSettled, InterestCharged, Liquidity, OrderFilled, Side

D = Decimal
PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
ETH_PERP, ETH_SPOT = "ETHUSDT-LINEAR.BYBIT", "ETHUSDT-SPOT.BYBIT"


def instrument(name, base, tick, step):
    return Instrument(name, base, "USDT", D(tick), D(step), D(step), D(1000), D(1000), D(5))


INSTRUMENTS = {
    PERP: instrument(PERP, "BTC", "0.1", "0.001"),
    SPOT: instrument(SPOT, "BTC", "0.01", "0.000001"),
    ETH_PERP: instrument(ETH_PERP, "ETH", "0.01", "0.01"),
    ETH_SPOT: instrument(ETH_SPOT, "ETH", "0.01", "0.00001"),
}

_counter = iter(range(10**9))


def fill(
    instrument,
    signed,
    price,
    *,
    strategy="a",
    fee="0",
    fee_currency="USDT",
    reference=None,
    ending="",
    trade_id="",
    order="order",
):
    signed = D(signed)
    return OrderFilled(
        client_order_id=order,
        strategy=strategy,
        instrument=instrument,
        trade_id=trade_id or f"trade-{next(_counter)}",
        side=Side.BUY if signed > 0 else Side.SELL,
        quantity=abs(signed),
        price=D(price),
        fee=D(fee),
        fee_currency=fee_currency,
        liquidity=Liquidity.TAKER,
        reference=None if reference is None else D(reference),
        exit=ending,
        ts_event=0,
    )


def settled(instrument, *, rate, mark, amount, quantity="0", settlement_id=""):
    name = settlement_id or f"settlement-{next(_counter)}"
    return FundingSettled(name, instrument, D(quantity), D(rate), D(mark), D(amount), 0)


def charged(amount, currency="USDT", *, charge_id=""):
    return InterestCharged(charge_id or f"charge-{next(_counter)}", currency, D(0), D(amount), 0)
