"""What a run says of money, held against recorded funding and a few lines of arithmetic of its own."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from hean.backtest.market import load_market
from hean.backtest.run import play, summarise
from hean.execution.simulated_venue import Tier
from hean.messages import Bar, EquityChanged, FundingSettled, Leg, OrderFilled, Signal
from hean.store.catalog import Catalog
from hean.store.importers import Hints, import_file
from hean.trading_system import build_strategies
from tests.data_dir import data_dir, needs_data
from tests.graph.house import CAPITAL, ETH, ETH_SPOT, Chatter, ChatterConfig, house, market
from tests.graph.test_play import tree

D = Decimal
HOUR = 3_600_000_000_000


# --- one fill, through the whole system ----------------------------------------------------------


class Buyer(Chatter):
    """Takes one position at its third row, long or short, and is content."""

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        self.state.rows += 1
        if self.state.rows == 3:
            leg = Leg(self.config.instrument, self.config.weights[0], message.close, message.ts_event)
            yield Signal(self.config.name, (leg,), "once", None, None, None, "")


def bought(instrument, weight, half_spread_bp):
    """Open one position in a market that does not move; return its fill, and equity before and after."""
    tape = market(1, Tier.BARS, rows=20, volatility=0.0, names=(instrument,))
    tape = type(tape)([stream for stream in tape.streams if stream.kind.__name__.startswith("Bar")])
    config = ChatterConfig(name="buyer", instrument=instrument, weights=(weight,))
    strategies = {"buyer": (lambda: Buyer(config), (instrument,))}
    found = house(tape, Tier.BARS, strategies, seed=1, venue={"half_spread_bp": half_spread_bp})
    found.sim.run()
    found.quiet()
    (fill,) = found.said("venue", OrderFilled)
    return fill, found.said("portfolio", EquityChanged)[-1].equity


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_opening_a_perpetual_at_an_unchanged_price_costs_its_fee_and_no_more(weight):
    fill, equity = bought(ETH, weight, 0.0)
    assert fill.price == 2500
    assert fill.fee == fill.quantity * fill.price * D("0.00055")
    assert equity == CAPITAL - fill.fee


def test_buying_spot_costs_the_fee_and_half_the_spread():
    fill, equity = bought(ETH_SPOT, 1.0, 4.0)
    assert fill.price == D("2501.00")  # four basis points over 2500
    assert fill.fee == fill.quantity * D("0.001")
    assert equity == CAPITAL - fill.quantity * 1 - fill.fee * 2500


# --- recorded funding ----------------------------------------------------------------------------


def parquet(name):
    (path,) = (data_dir() / "market").glob(name)
    return pl.read_parquet(path).with_columns(pl.col("ts").dt.epoch("ns"))


def run_of(catalog_dir, patterns, settings):
    catalog = Catalog(catalog_dir)
    for pattern in patterns:
        for file in (data_dir() / "market").glob(pattern):
            outcome = import_file(catalog, file, Hints())
            assert outcome.refusal is None
    strategies = build_strategies(settings)
    loaded = load_market(settings, strategies, catalog)
    played = play(settings, strategies, loaded)
    return played, summarise(settings, strategies, loaded, played, wall_s=0.0)


def said(played, kind):
    return [one for one in played.log if isinstance(one.message, kind) and one.source == "venue"]


@needs_data
def test_a_position_is_settled_at_every_recorded_stamp_when_the_interval_shortens(tmp_path):
    funding = parquet("bybit.linear.WIFUSDT.funding.*")
    stamps = funding["ts"].to_numpy()
    gaps = np.diff(stamps)
    change = stamps[1 + np.flatnonzero((gaps[1:] == 4 * HOUR) & (gaps[:-1] == 8 * HOUR))[0]]
    start, end = change - 72 * HOUR, change + 72 * HOUR
    run = tree(
        ("Short", {}),
        symbols=("WIFUSDT",),
        venue="BYBIT",
        interval="15m",
        start=datetime.fromtimestamp(start // 10**9, UTC).isoformat(),
        end=datetime.fromtimestamp(end // 10**9, UTC).isoformat(),
    )
    files = ("bybit.linear.WIFUSDT.kline-15m.*", "bybit.linear.WIFUSDT.funding.*", "bybit.linear.WIFUSDT.mark-1h.*")
    played, result = run_of(tmp_path, files, run)
    (entry,) = said(played, OrderFilled)
    settled = said(played, FundingSettled)
    due = [int(ts) for ts in stamps if entry.ts_init < ts < end]
    assert [one.ts_init for one in settled if one.ts_init < end] == due
    assert {8 * HOUR, 4 * HOUR} == set(np.diff(due).tolist())
    rates = dict(funding.select("ts", "rate").iter_rows())
    marks = dict(parquet("bybit.linear.WIFUSDT.mark-1h.*").select("ts", "open").iter_rows())
    quantity = entry.message.quantity
    for one in settled:
        expected = quantity * D(str(marks[one.ts_init])) * D(str(rates[one.ts_init]))
        assert one.message.amount == expected
    assert result.pnl.funding == sum(one.message.amount for one in settled)


@needs_data
def test_a_carry_held_for_a_month_earns_what_the_recorded_funding_says(tmp_path):
    run = tree(("Holder", {}), venue="BYBIT", interval="5m", start="2025-05-01", end="2025-06-01")
    files = (
        "bybit.*.BTCUSDT.kline-5m.*",
        "bybit.linear.BTCUSDT.funding.2023*",
        "bybit.linear.BTCUSDT.mark-1h.*",
    )
    played, result = run_of(tmp_path, files, run)
    fills = [one.message for one in said(played, OrderFilled)]
    perp = [fill for fill in fills if "LINEAR" in fill.instrument]
    spot = [fill for fill in fills if "SPOT" in fill.instrument]
    assert perp
    assert spot
    end = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp()) * 10**9
    funding = parquet("bybit.linear.BTCUSDT.funding.2023*").filter(pl.col("ts") < end)
    marks = dict(parquet("bybit.linear.BTCUSDT.mark-1h.*").select("ts", "open").iter_rows())

    # Sold q of the perpetual, so every settlement pays q x mark x rate.
    earned = 0.0
    for ts, rate in funding.select("ts", "rate").iter_rows():
        held = -sum(float(fill.quantity) * fill.side for fill in perp if fill.ts_event <= ts)
        earned += held * marks[ts] * rate if held else 0.0
    fees = sum(float(fill.fee) for fill in perp) + sum(float(fill.fee * fill.price) for fill in spot)
    last = {
        name: parquet(f"bybit.{name}.BTCUSDT.kline-5m.*").filter(pl.col("ts") < end)["close"][-1]
        for name in ("linear", "spot")
    }
    moved_perp = sum(float(fill.quantity) * fill.side * (last["linear"] - float(fill.price)) for fill in perp)
    moved_spot = sum(float(fill.quantity) * fill.side * (last["spot"] - float(fill.price)) for fill in spot)
    coin_fee = sum(float(fill.fee) * (last["spot"] - float(fill.price)) for fill in spot)

    settlements = [one for one in said(played, FundingSettled) if one.ts_init < end]
    assert len(settlements) > 85
    assert float(sum(one.message.amount for one in settlements)) == pytest.approx(earned, abs=0.005)
    late = sum(one.message.amount for one in said(played, FundingSettled) if one.ts_init >= end)
    assert float(result.pnl.funding - late) == pytest.approx(earned, abs=0.005)
    assert float(result.pnl.fees) == pytest.approx(-fees, abs=0.005)
    net = earned + float(late) - fees + moved_perp + moved_spot - coin_fee
    assert float(result.equity_final - result.capital) == pytest.approx(net, abs=0.005)
    # Price is nobody's concern: the legs moved by hundreds, and together by the change of the basis alone.
    assert abs(moved_perp) > 50
    assert abs(moved_perp + moved_spot) < 0.002 * 1500
    assert earned > 0
