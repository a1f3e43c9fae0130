"""The carry board: what holding a pair would earn and cost, symbol beside symbol.

Pure arithmetic on what was heard; every figure knows when it held, and one that cannot be had is unknown and says why.
Rates are brought to eight hours, since symbols settle at intervals of their own.
"""

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from hean.market.basis import executable
from hean.market.carry import PERIOD, Nowcast, PairCosts, Settlements, running_nowcast
from hean.units import DAY, HOUR, MINUTE, YEAR

MEAN_OF = 21 * PERIOD
"""What the mean is over: twenty-one periods of eight hours, the window the harvester enters by."""

_BP = 1e-4
_WINDOW = 60 * MINUTE
_HALFLIFE_MIN = 15.0


class Known(Struct, frozen=True):
    """A figure, and the instant it held at. `value` is None where it is not known, and `why` then says why."""

    value: float | None
    as_of: int | None
    why: str = ""


class Top(Struct, frozen=True):
    """The best bid and offer of one leg at an instant."""

    bid: float
    ask: float
    ts: int

    @property
    def half_spread_bp(self) -> float:
        return (self.ask - self.bid) / (self.ask + self.bid) / _BP


class Heard(Struct, frozen=True):
    """All that was heard of one symbol. None is not known, and `troubles` may say why, by what was asked.

    Args:
        symbol: The venue's name of it.
        perp: The leg that is sold.
        spot: The leg that is bought.
        interval_h: Hours between two settlements, the symbol's own.
        cap: The largest funding rate, a fraction of one interval.
        ts_rules: When these two were asked for.
        funding: What has settled.
        predicted: The venue's own word on the running interval, a fraction of that interval.
        ts_next: When it settles.
        ts_ticker: When these two were asked for.
        perp_top: Best bid and offer of the perpetual.
        spot_top: The same of spot.
        premium_ts: When each minute of premium closed, oldest first.
        premium: What it was.
        troubles: Why something is not known: of "rules", "funding", "perp", "spot".
    """

    symbol: str
    perp: str
    spot: str
    interval_h: int | None = None
    cap: float | None = None
    ts_rules: int | None = None
    funding: Settlements = field(default_factory=Settlements)
    predicted: float | None = None
    ts_next: int | None = None
    ts_ticker: int | None = None
    perp_top: Top | None = None
    spot_top: Top | None = None
    premium_ts: Sequence[int] = ()
    premium: Sequence[float] = ()
    troubles: dict[str, str] = {}


class BoardRow(Struct, frozen=True):
    """One symbol's carry. Rates in basis points of position value, `net_apr` a fraction a year of it, simple.

    Args:
        symbol: The venue's name of it.
        perp: The leg that is sold.
        spot: The leg that is bought.
        interval: Hours between two settlements.
        settled: The last settled rate, for its own interval.
        settled_8h: The same for eight hours.
        mean_8h: The mean for eight hours of what settled in `MEAN_OF`.
        settlements: Of how many settlements.
        covered_h: Hours they were for.
        predicted_8h: Where the venue says the running interval is heading.
        nowcast_8h: The same from the minutes of premium seen.
        nowcast: It with its bounds, for its own interval.
        interval_ns: What that was.
        basis: What selling the perpetual and buying the spot would get now: perpetual's bid less the spot's offer.
        cost: A round trip in both legs.
        costs: What it is made of; half-spreads are as quoted now where `cost` is known.
        net_8h: The mean less the cost, spread over the time it is held.
        net_apr: The same over a year.
        days_to_break_even: Days after which the mean has paid the cost.
        ts_next: The next settlement.
    """

    symbol: str
    perp: str
    spot: str
    interval: Known
    settled: Known
    settled_8h: Known
    mean_8h: Known
    settlements: int
    covered_h: float
    predicted_8h: Known
    nowcast_8h: Known
    nowcast: Nowcast | None
    interval_ns: int
    basis: Known
    cost: Known
    costs: PairCosts
    net_8h: Known
    net_apr: Known
    days_to_break_even: Known
    ts_next: int | None


def board(heard: Iterable[Heard], fees: PairCosts, *, hold_days: float, now: int) -> list[BoardRow]:
    """The board: what earns most after costs first, what is not known last.

    Args:
        heard: What was heard of each symbol.
        fees: What the account pays, and by which route it trades; the half-spreads in it are replaced by those quoted.
        hold_days: How long a carry is held: its cost is spread over so many days.
        now: The instant it is asked at.
    """
    rows = [row(one, fees, hold_days=hold_days, now=now) for one in heard]
    return sorted(rows, key=lambda one: (one.net_8h.value is None, -(one.net_8h.value or 0.0), one.symbol))


def row(heard: Heard, fees: PairCosts, *, hold_days: float, now: int) -> BoardRow:
    """One symbol's row."""
    funding, troubles = heard.funding, heard.troubles
    silent = troubles.get("funding", "no settlement is known yet")
    settled = settled_8h = Known(None, None, silent)
    if funding.rate:
        settled = Known(funding.rate[-1] / _BP, funding.ts[-1])
        settled_8h = Known(funding.rate[-1] / funding.length[-1] * PERIOD / _BP, funding.ts[-1])
    mean = funding.mean(MEAN_OF)
    mean_8h = Known(None, None, silent) if mean is None else Known(mean / _BP, funding.ts_last)
    interval_ns = heard.interval_h * HOUR if heard.interval_h else funding.interval
    predicted_8h = _predicted(heard, interval_ns)
    cap = math.inf if heard.cap is None else heard.cap
    nowcast = running_nowcast(
        funding, heard.premium_ts, heard.premium, now, window=_WINDOW, halflife=_HALFLIFE_MIN, cap=cap
    )
    nowcast_8h = Known(None, None, troubles.get("funding", "no premium of the running interval is known"))
    if nowcast is not None:
        nowcast_8h = Known(nowcast.rate / funding.interval * PERIOD / _BP, heard.premium_ts[-1])
    costs, cost = _cost(heard, fees)
    net_8h = _net(mean_8h, cost, hold_days)
    apr = None if net_8h.value is None else net_8h.value * _BP * (YEAR / PERIOD)
    return BoardRow(
        symbol=heard.symbol,
        perp=heard.perp,
        spot=heard.spot,
        interval=_interval(heard),
        settled=settled,
        settled_8h=settled_8h,
        mean_8h=mean_8h,
        settlements=sum(ts > funding.ts_last - MEAN_OF for ts in funding.ts),
        covered_h=funding.covered(MEAN_OF) / HOUR,
        predicted_8h=predicted_8h,
        nowcast_8h=nowcast_8h,
        nowcast=nowcast,
        interval_ns=funding.interval,
        basis=_basis(heard),
        cost=cost,
        costs=costs,
        net_8h=net_8h,
        net_apr=Known(apr, net_8h.as_of, net_8h.why),
        days_to_break_even=_break_even(mean_8h, cost),
        ts_next=heard.ts_next,
    )


def _interval(heard: Heard) -> Known:
    if heard.interval_h:
        return Known(float(heard.interval_h), heard.ts_rules)
    return Known(None, None, heard.troubles.get("rules", "the venue does not say"))


def _predicted(heard: Heard, interval: int) -> Known:
    if heard.predicted is None:
        return Known(None, None, heard.troubles.get("perp", "the venue does not say"))
    if not interval:
        return Known(None, None, "for how long it is meant is not known")
    return Known(heard.predicted / interval * PERIOD / _BP, heard.ts_ticker)


def _legs(heard: Heard) -> tuple[Top, Top] | str:
    """Both legs' quotes; or why one is not known."""
    if heard.perp_top is None:
        return heard.troubles.get("perp", f"{heard.perp} has no bid or no offer")
    if heard.spot_top is None:
        return heard.troubles.get("spot", f"{heard.spot} has no bid or no offer")
    return heard.perp_top, heard.spot_top


def _basis(heard: Heard) -> Known:
    legs = _legs(heard)
    if isinstance(legs, str):
        return Known(None, None, legs)
    perp, spot = legs
    _, opening, _ = executable(perp.bid, perp.ask, spot.bid, spot.ask)
    return Known(opening / _BP, min(perp.ts, spot.ts))


def _cost(heard: Heard, fees: PairCosts) -> tuple[PairCosts, Known]:
    legs = _legs(heard)
    if isinstance(legs, str):
        return fees, Known(None, None, legs)
    perp, spot = legs
    spreads = {"perp_half_spread_bp": perp.half_spread_bp, "spot_half_spread_bp": spot.half_spread_bp}
    costs = fees.model_copy(update=spreads)
    return costs, Known(costs.round_trip_bp, min(perp.ts, spot.ts))


def _net(mean: Known, cost: Known, hold_days: float) -> Known:
    if mean.value is None or cost.value is None:
        return Known(None, None, mean.why or cost.why)
    return Known(mean.value - cost.value / (hold_days * DAY / PERIOD), _older(mean, cost))


def _break_even(mean: Known, cost: Known) -> Known:
    if mean.value is None or cost.value is None:
        return Known(None, None, mean.why or cost.why)
    if cost.value <= 0:
        return Known(0.0, _older(mean, cost))
    if mean.value <= 0:
        return Known(None, _older(mean, cost), "never: funding takes, and does not pay")
    return Known(cost.value / (mean.value * (DAY / PERIOD)), _older(mean, cost))


def _older(*figures: Known) -> int | None:
    stamps = [one.as_of for one in figures if one.as_of is not None]
    return min(stamps, default=None)
