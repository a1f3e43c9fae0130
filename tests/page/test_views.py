"""What the views make of the API's answers, before anything is drawn."""

import json
import time
from decimal import Decimal

import pytest

from actors.page import charts, layout, prices
from actors.page.client import ApiError
from actors.page.store import Link, Mode, Topic
from actors.page.views import dashboard, risk, strategies
from actors.page.words import MINUS

HOUR = 3600


def _heard(value):
    topic = Topic("/somewhere")
    topic.hear(value)
    return topic


def _points(*worths, begin=0, step=HOUR):
    return [
        {"ts": (begin + i * step) * 10**9, "equity": worth, "marks_known": True, "parts": {}}
        for i, worth in enumerate(worths)
    ]


# --- ages -------------------------------------------------------------------------------------------


def test_an_answer_is_as_old_as_what_it_tells_of():
    topic = _heard({"as_of": (time.time() - 40) * 1e9})

    assert layout.how_old(topic) == pytest.approx(40, abs=2)


def test_what_was_never_heard_has_no_age():
    assert layout.how_old(Topic("/somewhere")) is None


def test_an_age_inside_an_answer_stands_still_as_an_instant():
    topic = _heard({"as_of": "2026-11-23T03:00:10Z"})

    assert layout.born(topic, 10.2) == 1795402800
    assert layout.born(topic, None) is None


# --- money ------------------------------------------------------------------------------------------


def test_the_day_begins_at_midnight():
    day = 20_000 * 86_400
    change = layout.day_change(_points("100", "110", "121", begin=day - HOUR))

    assert change == ("+11.00 (+10.00 %)", "good", "today")


def test_a_day_that_began_with_the_curve_says_so():
    assert layout.day_change(_points("100", "99", begin=20_000 * 86_400 + HOUR)) == (
        f"{MINUS}1.00 ({MINUS}1.00 %)",
        "bad",
        "since start",
    )


def test_no_curve_no_change():
    assert layout.day_change([]) == (layout.UNKNOWN, "", "")


def test_a_curve_begins_where_it_is_known_what_it_is_made_of():
    heard = _points("0", "50", "100", "101")
    heard[2]["parts"] = heard[3]["parts"] = {"price": "0"}

    assert layout.settled(heard) == heard[2:]
    assert layout.settled([]) == []
    assert layout.settled(_points("0", "50")) == _points("0", "50")


def test_a_curve_begins_where_all_that_the_account_holds_was_heard_of():
    heard = _points("100", "900", "1000", "1001", "1003", "900")
    for point, fees in zip(heard, ("0", "0", "0", "0", "-1", "-2"), strict=True):
        point["parts"] = {"price": "0", "fees": fees}

    assert layout.settled(heard) == heard[2:]
    assert layout.settled(heard[2:]) == heard[2:]
    assert layout.settled(heard[:3]) == heard[2:3]
    assert layout.settled(heard[4:]) == heard[4:]


def test_the_drawdown_is_from_the_highest_so_far():
    now, deepest = dashboard.drawdown(_points("100", "200", "150", "180"))

    assert (now, deepest) == (pytest.approx(-0.1), pytest.approx(-0.25))


def test_no_curve_no_drawdown():
    assert dashboard.drawdown([]) == (None, None)


def test_parts_that_nobody_said_are_not_nought():
    assert dashboard.totals({"curve": _points("100")}) == {}
    assert dashboard.totals({"curve": [{"parts": {"funding": "2.50", "fees": None}}]}) == {"funding": Decimal("2.50")}


# --- mode -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (None, ("MODE UNKNOWN", "")),
        ({"venue": "sandbox", "dry_run": True}, ("SANDBOX", "sandbox")),
        ({"venue": "paper", "dry_run": False}, ("PAPER", "paper")),
        ({"venue": "live", "dry_run": True}, ("DRY RUN", "dry")),
        ({"venue": "live", "dry_run": False}, ("LIVE", "live")),
        ({"venue": "elsewhere"}, ("ELSEWHERE", "elsewhere")),
    ],
)
def test_only_orders_to_the_main_net_are_called_live(status, wanted):
    assert layout.mode(status) == wanted


# --- what wants attention ---------------------------------------------------------------------------


def _status(**said):
    return _heard(
        {"as_of": "2026-11-23T03:00:00Z", "blocked": [], "tripped": "", "discrepancies": 0, "marks_known": True} | said
    )


def test_nothing_wants_attention_where_all_is_well():
    feeds = [{"instrument": "BTCUSDT-LINEAR.BYBIT", "live": True, "age_s": 0.1}]

    assert (
        dashboard.alerts(_status(feeds=feeds, actors=[{"name": "risk", "alive": True}]), _heard({"refusals": []})) == []
    )


def test_the_kill_switch_comes_before_all_else():
    feeds = [
        {"instrument": "BTCUSDT-LINEAR.BYBIT", "live": False, "age_s": 30.0},
        {"instrument": "X.BYBIT", "live": None, "age_s": None},
    ]
    found = dashboard.alerts(_status(tripped="DRAWDOWN", blocked=["risk is silent"], feeds=feeds), Topic("/risk"))

    assert [(kind, word) for kind, word, _, _ in found] == [("danger", "killed"), ("warn", "blocked"), ("warn", "feed")]


def test_old_refusals_want_no_attention():
    refusal = {"strategy": "impulse", "rule": "PRICE_COLLAR", "measured": "1.2 %", "limit": "1 %"}
    told = {"as_of": "2026-11-23T03:00:00Z", "refusals": [refusal | {"age_s": 5.0}, refusal | {"age_s": 7200.0}]}

    assert [what for _, _, what, _ in dashboard.alerts(_status(), _heard(told))] == [
        "impulse: price collar, 1.2 % against 1 %"
    ]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ({"blocked_by": ["the books differ"], "gates": ["waits for: a move"]}, "held back: the books differ"),
        ({"gates": ["met: three settlements", "waits for: the basis", "then: the spread"]}, "waits for the basis"),
        ({"gates": ["met: all of it"]}, "all it waits for is met"),
        ({"gates": ["holds: -0.1 BTCUSDT-LINEAR.BYBIT", "leaves when: it is dear"]}, "holds: -0.1 BTCUSDT-LINEAR"),
        ({"gates": []}, "does not say what it waits for"),
    ],
)
def test_a_strategy_says_the_first_thing_in_its_way(why, words):
    assert dashboard.waiting(why) == words


# --- prices -----------------------------------------------------------------------------------------


class _Market:
    """A store that knows candles, and nothing else."""

    def __init__(self, topic):
        self._topic = topic

    def see(self, _path, **_query):
        return self._topic


HELD = {"instrument": "BTCUSDT-LINEAR.BYBIT", "quantity": "-2", "entry": "110", "mark": None}


def test_a_mark_is_believed_before_the_last_price():
    market = _Market(_heard({"age_s": 0.1, "candles": [{"close": 100.0}]}))

    assert prices.worth(market, HELD | {"mark": "105"}) == prices.Worth(
        Decimal(105), Decimal(-210), Decimal(10), is_mark=True
    )
    assert prices.worth(market, HELD) == prices.Worth(
        Decimal("100.0"), Decimal("-200.0"), Decimal("20.0"), is_mark=False
    )


@pytest.mark.parametrize(
    "topic", [Topic("/candles"), _heard({"age_s": 900.0, "candles": [{"close": 100.0}]}), _heard({"candles": []})]
)
def test_an_old_price_or_none_leaves_the_worth_unknown(topic):
    assert prices.worth(_Market(topic), HELD) == prices.Worth(None, None, None, is_mark=False)


# --- charts -----------------------------------------------------------------------------------------


def _played(shown, told):
    """What the browser shows after it was told."""
    if "all" in told:
        return told["all"]
    begin = told["more"][0][0] if told["more"] else float("inf")
    return [row for row in shown if told["first"] <= row[0] < begin] + told["more"]


ROWS = [[i, 10 * i] for i in range(10)]


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ROWS, 0),
        ([*ROWS, [10, 5]], 1),
        ([*ROWS[:-1], [9, 91]], 1),
        ([*ROWS[2:], [10, 1], [11, 2]], 2),
        ([[i, 0] for i in range(10)], 10),
        ([[100, 1]], 1),
        ([], 0),
    ],
    ids=["the same", "one more", "the last moved", "the window moved", "all is other", "elsewhere", "nothing"],
)
def test_a_chart_is_told_only_what_is_new(wanted, sent):
    told = charts._difference(ROWS, wanted)

    assert _played(ROWS, told) == wanted
    assert len(told.get("all", told.get("more"))) == sent


def test_a_point_without_parts_draws_no_parts():
    told = {"ts": "2026-11-23T03:00:00Z", "equity": "100.5", "marks_known": False, "parts": {}}

    assert charts._point(told) == [1795402800000, 100.5, False, None]
    assert charts._point(told | {"equity": None}) is None


def test_a_fill_says_what_it_cost_and_how_far_it_slipped():
    fill = {
        "ts": "2026-11-23T03:00:00Z",
        "price": "101",
        "side": "BUY",
        "quantity": "0.50",
        "fee": "0.0505",
        "fee_currency": "USDT",
    }
    mark = charts._mark(fill | {"strategy": "impulse", "liquidity": "taker", "exit": "stop", "reference": "100"})

    assert (mark["quantity"], mark["fee"], mark["reason"]) == (
        "0.5",
        "0.0505 USDT",
        "closed by stop, slipped +100.0 bp from 100.00",
    )


# --- parameters and limits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "written", "read"),
    [
        (1.0, "2.5", 2.5),
        (3, "4", 4),
        ("a", "b", "b"),
        (True, False, False),
        (["BTC"], '["BTC", "ETH"]', ["BTC", "ETH"]),
        (None, "3", 3),
    ],
)
def test_a_parameter_is_read_as_the_kind_it_was(old, written, read):
    assert strategies._read(old, written) == read
    assert strategies._read(old, old if isinstance(old, (bool, str)) else json.dumps(old)) == old


@pytest.mark.parametrize(("old", "written"), [(1.0, "two"), (1.0, '"2"'), (1.0, "true"), (["BTC"], "BTC, ETH")])
def test_what_is_no_such_thing_is_refused_in_words(old, written):
    with pytest.raises(ValueError, match=r"cannot be read|is no number"):
        strategies._read(old, written)


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.82, "share", "82.0 %"),
        (0.0, "share", "0.0 %"),
        (2e-9, "share", "under 0.1 %"),
        (0.3, "s", "0.3 s"),
        (120.0, "s", "120 s"),
        (3.0, "orders", "3 orders"),
    ],
)
def test_what_is_hardly_used_is_not_called_unused(value, unit, written):
    assert risk._amount(value, unit) == written


def test_every_limit_has_its_place():
    rows = [
        {"rule": rule, "subject": "account"} for rule in ("DRAWDOWN", "SOMETHING_NEW", "GROSS_EXPOSURE", "DAILY_LOSS")
    ]
    found = {title: [row["rule"] for row in members] for title, members in risk._grouped(rows)}

    assert found == {
        "Exposure": ["GROSS_EXPOSURE"],
        "Losses": ["DAILY_LOSS", "DRAWDOWN"],
        "Working order": ["SOMETHING_NEW"],
    }


# --- the link ---------------------------------------------------------------------------------------


class _Link:
    """A store that nothing is asked of but how its link is."""

    def __init__(self, status, link):
        self._status, self.link = status, link

    def status(self):
        return self._status


def test_a_lost_link_says_how_old_everything_is():
    link = Link()
    link.down("the API at http://127.0.0.1:8000 cannot be reached", 2.0)
    said = layout.link_state(_Link(Topic("/engine/status"), link))

    assert said["up"] is False
    assert "cannot be reached" in said["words"]
    assert "trying again" in said["words"]


def test_an_api_without_an_engine_is_not_up():
    link, status = Link(), _heard({"as_of": time.time() * 1e9})
    link.up(Mode.POLLING)
    status.fail(ApiError("there is no engine: `hean up` begins one", status=503))

    assert "there is no engine" in layout.link_state(_Link(status, link))["words"]
    status.hear({"as_of": time.time() * 1e9})
    assert layout.link_state(_Link(status, link)) == {"up": True, "words": ""}
