"""What the tests of reconciliation share."""

from decimal import Decimal

from hean.instruments import Instrument
from hean.messages import AccountSnapshot, Side, VenueOrder

D = Decimal
SECOND = 1_000_000_000
PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"
INSTRUMENTS = {
    name: Instrument(name, "BTC", "USDT", D("0.1"), D(step), D(least), D(100), D(100), D(5))
    for name, step, least in ((PERP, "0.001", "0.001"), (SPOT, "0.000001", "0.00005"))
}


def listed(name, *, filled="0"):
    return VenueOrder(name, PERP, Side.BUY, D(1), D(filled))


def snapshot(
    request=1, *, at=0.0, complete=True, orders=(), positions=None, balances=None, entries=None, modes=None, booked=()
):
    return AccountSnapshot(
        request_id=request,
        ts_event=int(at * SECOND),
        complete=complete,
        orders=tuple(orders),
        positions={name: D(amount) for name, amount in (positions or {}).items()},
        balances={name: D(amount) for name, amount in (balances or {}).items()},
        entries={name: D(price) for name, price in (entries or {}).items()},
        modes=modes or {},
        booked=tuple(booked),
    )
