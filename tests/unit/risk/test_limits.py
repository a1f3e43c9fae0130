from decimal import Decimal

import pytest

from hean.instruments import Instrument
from hean.messages import Side, TradingState
from hean.risk import limits
from hean.risk.limits import Rule

PERP = Instrument(
    id="BTCUSDT-LINEAR.BYBIT",
    base="BTC",
    quote="USDT",
    tick=Decimal("0.1"),
    step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_limit_quantity=Decimal(1000),
    max_market_quantity=Decimal(500),
    min_notional=Decimal(5),
)
E = Decimal(10_000)


@pytest.mark.parametrize(
    ("inside", "outside", "rule"),
    [
        (
            limits.trading_state(TradingState.ACTIVE),
            limits.trading_state(TradingState.REDUCING),
            Rule.TRADING_STATE,
        ),
        (
            limits.trading_state(TradingState.ACTIVE),
            limits.trading_state(TradingState.HALTED),
            Rule.TRADING_STATE,
        ),
        (limits.stale_price(5, 5), limits.stale_price(6, 5), Rule.STALE_PRICE),
        (limits.stale_price(0, 5), limits.stale_price(-1, 5), Rule.STALE_PRICE),
        (limits.stale_feed("A", {"B": 1}), limits.stale_feed("A", {"A": 1}), Rule.STALE_PRICE),
        (limits.stale_reconcile(90, 90), limits.stale_reconcile(91, 90), Rule.STALE_RECONCILE),
        (limits.unknown_equity(Decimal("0.01")), limits.unknown_equity(Decimal(0)), Rule.UNKNOWN_EQUITY),
        (limits.unknown_equity(E), limits.unknown_equity(None), Rule.UNKNOWN_EQUITY),
        (
            limits.daily_loss(E, Decimal("9700.01"), Decimal("0.03")),
            limits.daily_loss(E, Decimal(9700), Decimal("0.03")),
            Rule.DAILY_LOSS,
        ),
        (limits.order_rate(60, 60), limits.order_rate(61, 60), Rule.ORDER_RATE),
        (limits.price_collar(101.0, 100.0, 0.01), limits.price_collar(101.01, 100.0, 0.01), Rule.PRICE_COLLAR),
        (limits.price_collar(99.0, 100.0, 0.01), limits.price_collar(98.9, 100.0, 0.01), Rule.PRICE_COLLAR),
        (limits.price_collar(1e9, None, 0.01), limits.price_collar(float("nan"), None, 0.01), Rule.PRICE_COLLAR),
        (limits.price_collar(1e-9, None, 0.01), limits.price_collar(0.0, None, 0.01), Rule.PRICE_COLLAR),
        (
            limits.bracket_side(Side.BUY, Decimal(100), Decimal(99), Decimal(101)),
            limits.bracket_side(Side.BUY, Decimal(100), Decimal(100), Decimal(101)),
            Rule.BRACKET,
        ),
        (
            limits.bracket_side(Side.SELL, Decimal(100), Decimal(101), None),
            limits.bracket_side(Side.SELL, Decimal(100), Decimal(101), Decimal(100)),
            Rule.BRACKET,
        ),
        (limits.min_quantity(Decimal("0.001"), PERP), limits.min_quantity(Decimal(0), PERP), Rule.MIN_QUANTITY),
        (limits.min_notional(Decimal(5), PERP), limits.min_notional(Decimal("4.99"), PERP), Rule.MIN_NOTIONAL),
        (
            limits.max_quantity(Decimal(500), Decimal(500), PERP),
            limits.max_quantity(Decimal("500.001"), Decimal(500), PERP),
            Rule.MAX_QUANTITY,
        ),
        (
            limits.trade_risk(Decimal(100), E, Decimal("0.01")),
            limits.trade_risk(Decimal("100.01"), E, Decimal("0.01")),
            Rule.TRADE_RISK,
        ),
        (
            limits.symbol_exposure(Decimal(2500), E, Decimal("0.25")),
            limits.symbol_exposure(Decimal("2500.01"), E, Decimal("0.25")),
            Rule.SYMBOL_EXPOSURE,
        ),
        (
            limits.pair_delta(Decimal(-200), E, Decimal("0.02")),
            limits.pair_delta(Decimal("-200.01"), E, Decimal("0.02")),
            Rule.PAIR_DELTA,
        ),
        (
            limits.strategy_budget(Decimal(1), Decimal(1)),
            limits.strategy_budget(Decimal("1.01"), Decimal(1)),
            Rule.STRATEGY_BUDGET,
        ),
        (
            limits.gross_exposure(2 * E, E, Decimal(2)),
            limits.gross_exposure(2 * E + 1, E, Decimal(2)),
            Rule.GROSS_EXPOSURE,
        ),
        (limits.margin(Decimal(9000), E, Decimal("0.9")), limits.margin(Decimal(9001), E, Decimal("0.9")), Rule.MARGIN),
        (
            limits.stress_margin(Decimal(5000), E, Decimal("0.5")),
            limits.stress_margin(Decimal(5001), E, Decimal("0.5")),
            Rule.STRESS_MARGIN,
        ),
    ],
)
def test_a_limit_lets_its_own_value_through_and_names_itself_beyond(inside, outside, rule):
    assert inside is None
    assert outside.rule is rule
    assert outside.measured
    assert outside.limit


def test_a_day_of_gains_is_never_a_loss():
    assert limits.daily_loss(E, E, Decimal("1e-9")) is None
    assert limits.daily_loss(Decimal(0), E, Decimal("0.03")) is None


def test_a_refusal_reads_as_people_read():
    refusal = limits.gross_exposure(Decimal(20_001), E, Decimal(2))

    assert (refusal.measured, refusal.limit) == ("20001.00, 200.01% of equity", "200.00%")
