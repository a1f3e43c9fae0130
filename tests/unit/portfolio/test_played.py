"""The portfolio on a tape, as a backtest plays it: told every row, and told only where it may speak."""

from collections.abc import Iterator

import numpy as np
import pytest
from msgspec import Struct

from hean.backtest.player import Player, compare
from hean.dispatcher import Dispatcher
from hean.messages import Bar, EquityChanged, MarkPrice, NodeStarted, OrderFilled, PositionChanged, Quote, Wake
from hean.portfolio.portfolio import DAY, Portfolio, PortfolioConfig
from hean.tape import Stream, Tape
from hean.topology import Node, Topology
from tests.unit.portfolio.books import INSTRUMENTS, PERP, SPOT, D, fill

WATCHES = frozenset({(PERP, MarkPrice), (SPOT, Quote), (SPOT, Bar)})
START = 10 * DAY


class ScriptState(Struct):
    """How many fills were said."""

    said: int = 0


class Script:
    """Stands for a broker: says fills at given times."""

    def __init__(self, fills):
        self.fills = fills
        self.state = ScriptState()

    def handle(self, message: Wake | PositionChanged, now: int) -> Iterator[OrderFilled]:
        while isinstance(message, Wake) and self.state.said < len(self.fills) and self.wake_at() <= now:
            self.state.said += 1
            yield self.fills[self.state.said - 1][1]

    def wake_at(self):
        return self.fills[self.state.said][0] if self.state.said < len(self.fills) else None


def market(rng, rows):
    ts = START + np.sort(rng.integers(0, 5 * DAY, (3, rows)), axis=1)
    price = np.round(100 * np.exp(np.cumsum(rng.normal(0, 3e-4, (3, rows)), axis=1)), 2)
    ones = np.ones(rows)
    names = ("open", "high", "low", "close")
    return Tape(
        [
            Stream(MarkPrice, PERP, ts[0], {"price": price[0]}),
            Stream(Quote, SPOT, ts[1], {"bid": price[1], "ask": price[1] + 0.01, "bid_size": ones, "ask_size": ones}),
            Stream(Bar, SPOT, ts[2], dict.fromkeys(names, price[2]) | {"volume": ones}, interval=1),
        ]
    )


def played(tape, fills, *, stepping):
    topology = Topology((Node("portfolio", "portfolio", WATCHES), Node("broker", "broker")))
    config = PortfolioConfig(balances={"USDT": D(1000)}, shares={"a": D("0.5")})
    components = {"portfolio": Portfolio(config, INSTRUMENTS, WATCHES), "broker": Script(fills)}
    log = []
    player = Player(Dispatcher(topology, components, log=log.append), topology, tape, stepping=stepping)
    player.warm_up(100)
    player.tell("portfolio", NodeStarted("portfolio"), tape.ts_at(100))
    player.tell("broker", Wake(), tape.ts_at(100))
    player.play()
    player.tell("portfolio", NodeStarted("portfolio"), tape.last_ts)  # what was skipped is folded before it is told
    return player, log, components["portfolio"].state


@pytest.mark.parametrize("seed", range(8))
def test_a_run_told_where_it_may_speak_says_what_a_run_told_everything_says(seed):
    rng = np.random.default_rng(seed)
    tape = market(rng, 2_000)
    times = np.sort(rng.integers(tape.ts_at(100), tape.last_ts, 30)).tolist()
    fills = [
        (
            ts,
            fill(
                (PERP, SPOT)[int(rng.integers(2))],
                str(round(float(rng.normal(0, 3)), 3) or 1),
                "100",
                fee="0.01",
                reference="100",
                trade_id=f"t{ts}",
            ),
        )
        for ts in times
    ]

    stepped, every, after_every = played(tape, fills, stepping=True)
    skipped, some, after_some = played(tape, fills, stepping=False)

    assert not compare(some, every)
    assert after_some == after_every
    assert sum(isinstance(envelope.message, EquityChanged) for envelope in every) > 40
    silent = skipped.deliveries - sum(envelope.source == "portfolio" for envelope in some)
    assert silent <= 0 < stepped.deliveries - skipped.deliveries
