"""Strategies from anybody's file: what is asked of one, and what is said when it raises."""

import pytest

from hean.backtest.market import load_market
from hean.backtest.run import play, summarise
from hean.errors import ConfigError, HeanError
from hean.settings import BacktestSettings
from hean.store.catalog import Catalog
from hean.store.synthetic import SyntheticMarket, generate
from hean.trading_system import build_strategies
from hean.units import DAY

WHOLE = """
from collections.abc import Iterator
from msgspec import Struct
from pydantic import BaseModel
from hean.instruments import Perp
from hean.messages import Bar, Leg, Signal, Trade


class Config(BaseModel, frozen=True, extra="forbid"):
    name: str
    instrument: Perp


class State(Struct):
    rows: int = 0


class Mine:
    warmup_ns = 0

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state = State()

    def handle(self, message: Bar, now: int) -> Iterator[Signal]:
        yield from ()

    def wake_at(self) -> int | None:
        return None
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "mine.py"


def settings(file, **changes):
    tree = {"strategies": [{"use": f"{file}:Mine"}], "venue_name": "SYNTHETIC", "synthetic": True}
    return BacktestSettings.model_validate(tree | changes)


def built(file, old="", new="", **changes):
    """Build the strategy in a file, with one part of it written otherwise."""
    assert old in WHOLE
    file.write_text(WHOLE.replace(old, new, 1) if old else WHOLE, encoding="utf-8")
    return build_strategies(settings(file, **changes))


def test_it_is_built_for_each_symbol_and_named_after_it(file):
    assert [one.name for one in built(file, symbols=["BTCUSDT", "SOLUSDT"])] == ["mine-BTC", "mine-SOL"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    name: str\n", "", "Config has no field for what the strategy is called: give it `name: str`"),
        ("        self.state = State()", "        pass", "Mine has no state"),
        ("        self.config = config", "        pass", "Mine keeps no config"),
        ("    def wake_at", "    def wakes_at", "Mine has no method `wake_at"),
        (
            "        self.state = State()",
            "        self.state = 1 / 0",
            "ZeroDivisionError: division by zero (mine.py:23)",
        ),
        ("class State(Struct):", "WINDOW = int('ten')\nclass State(Struct):", "ValueError: invalid literal"),
        ("class State(Struct):", "WINDOW = int('ten')\nclass State(Struct):", "(mine.py:14)"),
        ("import Perp", "import Perpetual", "cannot be imported: ImportError: cannot import name 'Perpetual'"),
        ("class State(Struct):", "class State(Struct:", "cannot be imported: SyntaxError: "),
        ("class State(Struct):", "class State(Struct:", "(mine.py:14)"),
        ("message: Bar,", "message: 'Barr',", "NameError: name 'Barr' is not defined"),
        ("config: Config", "config: dict", "annotated with a pydantic model"),
        ("    instrument: Perp\n", "", "names no instrument: give it a field typed Perp or Spot"),
        ("Iterator[Signal]", "Iterator[Trade]", "should take an observation, such as Bar, and return Iterator[Signal]"),
    ],
)
def test_what_is_asked_of_a_strategy_is_said(file, old, new, says):
    with pytest.raises(ConfigError) as refusal:
        built(file, old, new)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["risk", "venue"])
def test_no_strategy_is_called_as_a_part_of_the_house_is(file, name):
    with pytest.raises(ConfigError, match="is taken by a part of HEAN"):
        built(file, strategies=[{"use": f"{file}:Mine", "config": {"name": name}}])


# --- while it is played -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    found = Catalog(tmp_path_factory.mktemp("made-up"))
    for batch in generate(SyntheticMarket(("BTCUSDT",), 1_748_736_000_000_000_000, 2, seed=1)):
        found.commit(batch)
    return found


SKIPPING = """
    def skip(self, tape, start: int, stop: int) -> None:
        pass

    def quiet_until(self, tape, start: int, stop: int) -> int:
        return {}[start]

    def wake_at"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "        yield from ()",
            "        yield from {}[0]",
            r"mine-BTC raised KeyError: 0 in handle\(Bar\) at 2025-06-01 00:01 UTC \(mine\.py:26\)",
        ),
        (
            "        yield from ()",
            "        return iter(self.words)",
            r"mine-BTC raised AttributeError: .*'words'.* in handle\(Bar\) at 2025-06-01 00:01 UTC \(mine\.py:26\)",
        ),
        (
            "        return None",
            "        return 1 // 0",
            r"mine-BTC raised ZeroDivisionError: .* in wake_at\(\) \(mine",
        ),
        ("    def wake_at", SKIPPING, r"mine-BTC raised KeyError: \d+ in quiet_until\(\) \(mine\.py:33\)"),
        (
            "        yield from ()",
            "        return None",
            r"mine-BTC returned None from handle\(Bar\): yield the messages",
        ),
        (
            "        yield from ()",
            "        yield Signal('other', (), '', None, None, None, '')",
            "mine-BTC signs a Signal as 'other'",
        ),
        (
            "        yield from ()",
            "        yield message",
            "mine-BTC says Bar, and its handle is annotated to say Signal",
        ),
    ],
)
@pytest.mark.parametrize("warmed", [False, True], ids=["at once", "warmed up"])
def test_what_it_raises_while_it_is_played_bears_its_name(file, catalog, old, new, says, warmed):
    strategies = built(file, old, new)
    run = settings(file)
    if warmed:
        strategies[0].component.warmup_ns = DAY
        run = settings(file, start="2025-06-01T12:00")
    market = load_market(run, strategies, catalog)
    with pytest.raises(HeanError, match=says) as failure:
        play(run, strategies, market)
    if "raised" in says:
        assert failure.value.__cause__ is not None


def test_a_message_is_told_with_the_line_that_raised_not_the_one_that_called(file, catalog):
    strategies = built(
        file,
        "        yield from ()",
        "        self.count()\n        yield from ()\n\n    def count(self):\n        raise RuntimeError('no\\nmore')",
    )
    market = load_market(settings(file), strategies, catalog)
    with pytest.raises(HeanError, match=r"raised RuntimeError: no more in handle\(Bar\) at .* \(mine\.py:30\)"):
        play(settings(file), strategies, market)


def test_a_bug_of_the_house_is_not_blamed_on_a_strategy(file, catalog, monkeypatch):
    strategies = built(file)
    market = load_market(settings(file), strategies, catalog)
    monkeypatch.setattr("hean.backtest.player.Player.warm_up", lambda *_: {}["ours"])
    with pytest.raises(KeyError, match="ours"):
        play(settings(file), strategies, market)


def test_the_rows_of_the_funnel_are_those_after_the_start(file, catalog):
    strategies = built(file)
    run = settings(file, start="2025-06-01T12:00", end="2025-06-02")
    market = load_market(run, strategies, catalog)
    result = summarise(run, strategies, market, play(run, strategies, market), wall_s=0.0)
    assert result.strategies[0].funnel.rows == 12 * 60
