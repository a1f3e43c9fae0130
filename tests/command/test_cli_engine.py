"""The engine's commands where no engine answers, what they show of one that does, and what they keep."""

import json
import os
import time
from dataclasses import dataclass
from decimal import Decimal

import pytest
from msgspec import structs
from rich.console import Console
from typer.testing import CliRunner

from actors import detached, files, tables, up
from actors.cli import app
from actors.logs import NodeLog
from actors.up import Begun, Surroundings
from actors.words import ActorView, EngineView, OrderRow, Phase, PositionView, RefusalView, WhyView
from hean.engine_settings import VenueMode
from hean.errors import ConfigError, HeanError
from hean.messages import TradingState
from hean.units import parse_time
from tests.exchange.client import exchange
from tests.exchange.test_last_resort import Account, _home

runner = CliRunner()
D = Decimal
AROUND = Surroundings(
    "/h", "sandbox", True, "127.0.0.1:1", "http://127.0.0.1:2", True, "http://127.0.0.1:3", True, None
)
BLANK = EngineView(
    ts=1,
    venue="sandbox",
    phase=Phase.RECONCILING,
    epoch=3,
    trading=None,
    reason="",
    blocked=("being warmed up: impulse",),
    tripped="",
    equity=None,
    equity_age_s=None,
    marks_known=None,
    reconcile_lag_s=None,
    discrepancies=None,
    recovery_s=None,
    dry_run=False,
    permit=(),
    actors=(ActorView("risk", "RiskManagerActor", None, False, None, 2, None, None, None, "its process was killed"),),
    positions=(),
)


def shown(renderable):
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(renderable)
    console.file.close()
    return console.export_text()


def row(text, word):
    return next(line for line in text.splitlines() if line.strip().startswith(word))


# --- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["trading", "equity", "reconciled", "discrepancies", "last recovery"])
def test_what_is_not_known_is_never_shown_as_nought(what):
    line = row(shown(tables.status(BLANK, AROUND)), what)
    assert "unknown" in line
    assert not any(letter.isdigit() for letter in line)


def test_an_actor_of_which_nothing_is_known_is_not_shown_as_well():
    line = row(shown(tables.status(BLANK, AROUND)), "risk")
    assert line.split()[:9] == [
        "risk",
        "RiskManagerActor",
        "unknown",
        "NO",
        "unknown",
        "2",
        "unknown",
        "unknown",
        "unknown",
    ]
    assert "its process was killed" in line


def test_every_figure_has_its_age():
    held = PositionView("carry", "BTCUSDT-LINEAR.BYBIT", D("-0.500"), D("0.0001"), D("65000.5"), 75.0)
    known = BLANK.__class__(
        **{name: getattr(BLANK, name) for name in BLANK.__struct_fields__}
        | {
            "equity": D("10012.341"),
            "equity_age_s": 3.2,
            "marks_known": False,
            "reconcile_lag_s": 200.0,
            "trading": TradingState.ACTIVE,
            "positions": (held,),
            "blocked": (),
            "tripped": "drawdown: 0.21",
        }
    )
    text = shown(tables.status(known, AROUND))

    assert "10,012.34 USDT, 3.2 s ago (not everything held has a price)" in row(text, "equity")
    assert "3 min since" in row(text, "reconciled")
    assert row(text, "carry").split() == ["carry", "BTCUSDT-LINEAR.BYBIT", "-0.500", "0.0001", "65,000.5", "75", "s"]
    assert "PULLED: drawdown: 0.21" in row(text, "kill switch")


def test_what_is_armed_says_until_when():
    until = parse_time("2026-01-02T03:04")
    armed = structs.replace(BLANK, venue="live", armed_until=until)
    assert "until 2026-01-02 03:04 UTC" in row(shown(tables.status(armed, AROUND)), "ARMED")
    assert "ARMED" not in shown(tables.status(BLANK, AROUND))


def test_what_should_run_and_does_not_stands_out():
    dead = Surroundings("/h", "sandbox", False, None, None, False, "http://x", False, "{}")
    words = dict(tables.outside(dead))
    assert [words["Ray"], words["exchange"], words["watchdog"][:11]] == ["NOT RUNNING"] * 3
    assert "reset" in words["latch"]
    assert "watchdog" not in dict(tables.outside(Surroundings("/h", "paper", True, "a", None, None, None, None, None)))


def test_why_tells_the_way_and_what_stood_in_it():
    refusal = RefusalView("NAKED", 3, "BTCUSDT-SPOT.BYBIT", "0.0020", "0.0016", 12.0)
    view = WhyView(
        "pair", {"signals": 5, "refused": 3}, (refusal,), ("funding pays 0.2 bp, wants 1.0",), "ACTIVE: ", ()
    )
    text = shown(tables.why([view]))

    assert "signals 5  →  refused 3" in text
    assert "waits for" in text
    assert row(text, "NAKED").split() == ["NAKED", "3", "BTCUSDT-SPOT.BYBIT", "0.0020", "0.0016", "12", "s"]


def test_an_order_that_did_not_trade_has_no_price():
    waits = OrderRow("abc1-x-1", "x", "BTCUSDT-SPOT.BYBIT", "OPEN", None, D(0), None, "", 1.0)
    assert row(shown(tables.orders([waits])), "abc1").split()[3:] == ["unknown", "OPEN", "-", "-", "1.0", "s"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "unknown"), (0.04, "0.0 s"), (59.0, "59 s"), (150, "2 min"), (9_000, "2 h"), (200_000, "2 d")],
)
def test_an_age_is_said_as_one_would(seconds, said):
    assert tables.age(seconds) == said


# --- where nothing answers ------------------------------------------------------------------------


def run(*words, code=1):
    outcome = runner.invoke(app, [str(word) for word in words])
    assert outcome.exit_code == code, (outcome.output, outcome.stderr, outcome.exception)
    return outcome


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["status"], "nothing was begun"),
        (["logs"], "nothing was begun"),
        (["replay", "risk"], "nothing was begun"),
        (["flatten", "--reason", "x"], "nothing was begun"),
        (["kill", "--reason", "x"], "nothing was begun"),
        (["kill", "--reason", " "], "say why"),
        (["stop", "--finish"], "nothing was begun"),
        (["disable", "impulse-BTC", "--reason", "x"], "nothing was begun"),
        (["enable", "impulse-BTC", "--reason", " "], "say why"),
        (["configure", "impulse-BTC", "trigger", "--reason", "x"], "name=value"),
        (["configure", "impulse-BTC", "trigger=2", "--reason", " "], "say why"),
        (["arm"], "nothing was begun"),
        (["positions"], "Ray is not running"),
        (["up", "--venue", "mars"], "is none of sandbox, paper"),
        (["up", "--symbols", ","], "names none"),
        (["up", "--set", "risk.gros_exposure=1"], "gross_exposure"),
        (["up", "--venue", "demo"], "keys.toml"),
        (["up", "--venue", "sandbox", "--keys", "x.toml"], "a key of its own"),
        (["up", "--venue", "live", "--set", "dry_run=false"], "LIVE_CONFIRM=YES"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_place(tmp_path, words, says):
    said = run(*words, "--home", tmp_path).stderr
    assert says in said
    assert "Traceback" not in said


def test_with_json_a_refusal_is_one_object(tmp_path):
    said = json.loads(run("status", "--home", tmp_path, "--json").stdout)
    assert "nothing was begun" in said["error"]


@pytest.fixture
def home(tmp_path):
    files.write(tmp_path / up.BEGUN, Begun(VenueMode.SANDBOX, 1))
    (tmp_path / "sandbox").mkdir()
    return tmp_path


def test_status_without_ray_says_what_runs_and_fails(home):
    assert "Ray is not running" in row(run("status", "--home", home).stdout, "engine")
    said = json.loads(run("status", "--home", home, "--json").stdout)
    assert (said["engine"], said["surroundings"]["ray"]) == (None, False)


def test_ending_what_does_not_run_is_no_trouble(home, tmp_path):
    run("down", "--home", home, code=0)
    run("down", "--home", tmp_path / "nowhere", code=0)


def test_a_kill_without_engine_or_ray_closes_everything_and_latches(home):
    with exchange() as served:
        account = Account(served, home / "sandbox")
        _home(account)
        account.trades(quantity="0.02")
        said = run("kill", "--reason", "it is on fire", "--home", home, "--json", code=0).stdout
        assert account.is_flat()
        account.rest.close()
        account.orders.close()

    done = json.loads(said)["flattened"]
    assert (done["verified"], done["closed"]) == (True, [["BTCUSDT-LINEAR.BYBIT", "-0.020"]])
    assert json.loads((home / "sandbox" / "latched.json").read_text())["reason"] == "it is on fire"


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(VenueMode))
def test_every_mode_comes_with_settings(mode):
    settings = up.settings_for(mode, None, [], None)
    assert settings.venue is mode
    assert settings.dry_run
    assert up.profile(mode).name == f"{mode}.toml"


def test_the_sandbox_is_what_comes_without_a_word():
    assert up.settings_for(None, None, [], None).venue is VenueMode.SANDBOX


def test_the_command_line_lies_over_the_file(tmp_path):
    (tmp_path / "mine.py").write_text("")
    file = tmp_path / "mine.toml"
    file.write_text('venue = "paper"\nstrategies = ["impulse", "mine.py:Mine"]\n')
    settings = up.settings_for(None, file, ["risk.gross_exposure=1.25", "strategy.trigger=2.5"], ("SOLUSDT",))

    assert settings.venue is VenueMode.PAPER
    assert (settings.risk.gross_exposure, settings.symbols) == (1.25, ("SOLUSDT",))
    assert settings.strategies[0].config["trigger"] == 2.5
    assert settings.strategies[1].use == f"{tmp_path / 'mine.py'}:Mine", "actors work elsewhere"
    with pytest.raises(ConfigError, match="is for paper"):
        up.settings_for(VenueMode.DEMO, file, [], None)


@pytest.mark.parametrize(
    ("mode", "dry_run", "sends"),
    [
        ("sandbox", True, True),
        ("paper", False, False),
        ("live", True, False),
        ("live", False, True),
        ("demo", True, True),
    ],
)
def test_the_watchdog_runs_where_something_of_ours_may_be_at_a_venue(mode, dry_run, sends):
    settings = up.settings_for(VenueMode(mode), None, [f"dry_run={str(dry_run).lower()}"], None)
    assert up.sends(settings) is sends


def test_keys_are_taken_over_for_their_owner_alone(tmp_path):
    given = tmp_path / "given.toml"
    given.write_text('key = "k"\nsecret = "s"\n')
    with pytest.raises(ConfigError, match="chmod 600"):
        up._take_keys(tmp_path, VenueMode.DEMO, given)
    given.chmod(0o600)
    up._take_keys(tmp_path, VenueMode.DEMO, given)
    assert (tmp_path / "keys.toml").stat().st_mode & 0o777 == 0o600
    up._take_keys(tmp_path, VenueMode.DEMO, None)


# --- the exchange of the sandbox ------------------------------------------------------------------


@dataclass
class Steps:
    said: list

    def __call__(self, step):
        self.said.append(step)


def test_the_exchange_is_started_once_found_again_and_goes_on_after_a_kill(tmp_path):
    steps = Steps([])
    first = up.exchange(tmp_path, ("BTCUSDT",), steps)
    try:
        assert up.exchange(tmp_path, ("BTCUSDT",), steps) == first
        assert steps.said == ["starting an exchange on this machine"]
        assert detached.end(first.process.mark, 0) == 1
        assert not detached.is_alive(first.process)
        second = up.exchange(tmp_path, ("BTCUSDT",), steps)
        assert second.url == first.url, "its clients know it by its address"
        assert second.process != first.process
    finally:
        up._end_process(tmp_path / up.EXCHANGE, steps)
    assert steps.said[-1] == "ending the exchange"
    assert not detached.is_alive(files.read(tmp_path / up.EXCHANGE, up.Sandbox).process)


def test_an_exchange_that_does_not_start_says_why(tmp_path):
    (tmp_path / "exchange.db").write_text("no database")
    with pytest.raises(HeanError, match="the exchange does not start: hean: "):
        up.exchange(tmp_path, ("BTCUSDT",), Steps([]))


def test_a_process_is_known_by_its_mark_and_not_by_its_pid_alone(tmp_path):
    process = detached.launch(
        detached.python("-c", "import time; time.sleep(60)"), environment=dict(os.environ), log=tmp_path / "out"
    )
    stranger = detached.Detached(process.pid, "another mark")
    assert detached.is_alive(process)
    assert not detached.is_alive(stranger)
    assert detached.end(stranger.mark, 0) == 0
    assert detached.is_alive(process)
    assert detached.end(process.mark, 2) == 1
    limit = time.monotonic() + 5
    while detached.is_alive(process) and time.monotonic() < limit:
        time.sleep(0.01)
    assert not detached.is_alive(process)


# --- logs -----------------------------------------------------------------------------------------


def test_logs_are_merged_cut_to_the_last_and_filtered(home):
    for node in ("risk", "broker"):
        log = NodeLog(home / "sandbox", node, 1)
        for n in range(3):
            log.info("told", n=n)
        log.warning("odd", what="two words")
        log.close()

    everything = run("logs", "--home", home, code=0).stdout.splitlines()
    assert len(everything) == 8
    assert len(run("logs", "--home", home, "--last", 3, code=0).stdout.splitlines()) == 3
    (odd,) = run("logs", "--home", home, "--level", "warning", "--node", "risk", code=0).stdout.splitlines()
    assert odd.endswith("risk               WARNING odd  what='two words'")
    assert json.loads(run("logs", "--home", home, "--json", "--last", 1, code=0).stdout)["event"] == "odd"
    assert "there are broker, risk" in run("logs", "--home", home, "--node", "nobody").stderr
