"""The market's routes against the exchange on loopback: what they say, what they say while it is silent, and how often it is asked."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import msgspec
import pytest
from fastapi import FastAPI

from actors.gateways.bybit_rest import UnansweredError
from actors.http.market import Kept, VenueMarket, market_router
from actors.places import write_settings
from actors.up import BEGUN, SETTINGS, Begun
from hean.engine_settings import EngineSettings, VenueMode
from tests.exchange.conftest import Venue

PERP, SPOT = "BTCUSDT-LINEAR.BYBIT", "BTCUSDT-SPOT.BYBIT"


def begin(home, port, symbols=("BTCUSDT", "ETHUSDT")):
    """What `hean up` leaves behind of a sandbox."""
    folder = home / VenueMode.SANDBOX
    folder.mkdir(parents=True, exist_ok=True)
    (home / BEGUN).write_bytes(msgspec.json.encode(Begun(VenueMode.SANDBOX, 0)))
    settings = EngineSettings(endpoint=f"http://127.0.0.1:{port}", strategies=[{"use": "impulse"}], symbols=symbols)
    write_settings(folder / SETTINGS, settings)


class Page:
    """A client of the routes alone, each refusal as FastAPI makes it."""

    def __init__(self, home, **options):
        self.market = VenueMarket(home, **options)
        app = FastAPI()
        app.include_router(market_router(self.market))
        self._transport = httpx.ASGITransport(app)

    def ask(self, path, **query):
        async def asked():
            async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1") as client:
                return await client.get(path, params=query or None)

        return asyncio.run(asked())

    def get(self, path, status=200, **query):
        answer = self.ask(path, **query)
        assert answer.status_code == status, answer.text
        return answer.json()


@pytest.fixture
def page(shared, tmp_path):
    begin(tmp_path, shared.port)
    made = Page(tmp_path)
    yield made
    made.market.close()


def at(text):
    return datetime.fromisoformat(text).timestamp()


# --- what is told --------------------------------------------------------------------------------


def test_the_board_has_every_symbol_with_its_figures_and_their_ages(shared, page):
    told = page.get("/carry", hold_days=7)
    assert (told["venue"], told["stale"], told["failure"], told["hold_days"]) == ("sandbox", False, "", 7)
    assert {one["symbol"] for one in told["rows"]} == {"BTCUSDT", "ETHUSDT"}
    row = next(one for one in told["rows"] if one["symbol"] == "BTCUSDT")
    venue = shared.read("/v5/market/tickers", None, category="linear", symbol="BTCUSDT")["list"][0]
    listed = shared.read("/v5/market/funding/history", None, category="linear", symbol="BTCUSDT", limit=200)["list"]
    rates = [float(one["fundingRate"]) * 1e4 for one in listed]

    assert row["interval_h"]["value"] == 8
    assert row["settled_bp"]["value"] == pytest.approx(rates[0])
    assert at(row["settled_bp"]["as_of"]) == int(listed[0]["fundingRateTimestamp"]) / 1000
    # The oldest only starts the clock: nobody knows how long it was for.
    assert row["mean_of"] == {"settlements": len(rates) - 1, "hours": 8.0 * (len(rates) - 1)}
    assert row["mean_8h_bp"]["value"] == pytest.approx(sum(rates[:-1]) / (len(rates) - 1))
    assert row["predicted_8h_bp"]["value"] == pytest.approx(float(venue["fundingRate"]) * 1e4)
    assert at(row["next_settlement"]) == int(venue["nextFundingTime"]) / 1000
    assert 0 < row["next_settlement_in_s"] <= 8 * 3600
    # The market holds still at 60,000 with a tick of 0.1 on either side: the legs quote a basis of their spreads alone.
    assert row["basis_bp"]["value"] == pytest.approx(0, abs=1)
    assert row["costs"] | {"perp_half_spread_bp": 0, "spot_half_spread_bp": 0} == {
        "perp_fee_bp": 2.0,
        "spot_fee_bp": 10.0,
        "perp_half_spread_bp": 0,
        "spot_half_spread_bp": 0,
        "impact_bp": 0.5,
        "perp_as_maker": True,
    }
    assert row["cost_bp"]["value"] == pytest.approx(25 + 2 * row["costs"]["spot_half_spread_bp"])
    assert row["net_8h_bp"]["value"] == pytest.approx(row["mean_8h_bp"]["value"] - row["cost_bp"]["value"] / 21)
    assert all(0 <= row[name]["age_s"] < 60 for name in ("basis_bp", "cost_bp", "predicted_8h_bp"))


def test_candles_are_the_venues_own_oldest_first_and_the_running_one_says_so(shared, page):
    told = page.get("/candles", instrument=PERP, interval="1m", limit=30)
    venue = shared.read("/v5/market/kline", None, category="linear", symbol="BTCUSDT", interval="1", limit=30)["list"]
    assert len(told["candles"]) == 30
    assert [at(one["at"]) for one in told["candles"]] == sorted(at(one["at"]) for one in told["candles"])
    theirs = {int(row[0]) / 1000: [float(x) for x in row[1:6]] for row in venue}
    same = [one for one in told["candles"] if one["closed"] and at(one["at"]) in theirs]
    assert len(same) >= 28
    for one in same:
        assert [one[name] for name in ("open", "high", "low", "close", "volume")] == theirs[at(one["at"])]
    assert [one["closed"] for one in told["candles"]][:-1] == [True] * 29
    assert page.get("/candles", instrument=SPOT, interval="1h", limit=5)["interval"] == "1h"


def test_instruments_are_spot_and_perpetual_of_every_symbol(page):
    told = page.get("/instruments")["instruments"]
    assert [one["id"] for one in told] == [
        "BTCUSDT-LINEAR.BYBIT",
        "BTCUSDT-SPOT.BYBIT",
        "ETHUSDT-LINEAR.BYBIT",
        "ETHUSDT-SPOT.BYBIT",
    ]
    assert (told[0]["funding_interval_h"], told[1]["funding_interval_h"]) == (8, None)
    assert all(isinstance(told[0][name], str) for name in ("tick", "step", "min_quantity", "min_notional"))


def test_a_symbol_without_spot_is_a_row_that_says_so(tmp_path):
    with Venue(symbols=("BTCUSDT", "ETHUSDT")) as venue:
        # 10000XUSDT is listed nowhere here: the others are shown all the same.
        begin(tmp_path, venue.port, ("BTCUSDT", "10000XUSDT"))
        told = Page(tmp_path).get("/carry")
    known, unknown = told["rows"]
    assert (known["symbol"], unknown["symbol"]) == ("BTCUSDT", "10000XUSDT")
    assert unknown["basis_bp"] == {
        "value": None,
        "as_of": None,
        "age_s": None,
        "why": "10000XUSDT-LINEAR.BYBIT is not listed",
    }
    assert unknown["net_apr"]["value"] is None


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"instrument": "DOGEUSDT-LINEAR.BYBIT"}, 404),
        ({"instrument": "nonsense"}, 404),
        ({"instrument": PERP, "interval": "8h"}, 422),
        ({"instrument": PERP, "limit": 0}, 422),
        ({"instrument": PERP, "limit": 1001}, 422),
        ({}, 422),
    ],
)
def test_what_makes_no_sense_is_refused(page, query, status):
    page.get("/candles", status, **query)


@pytest.mark.parametrize("path", ["/carry", "/instruments", f"/candles?instrument={PERP}"])
def test_before_any_engine_was_begun_nothing_is_known(tmp_path, path):
    assert "hean up" in Page(tmp_path).get(path, 503)["detail"]


# --- the venue falls silent ----------------------------------------------------------------------


def test_a_silent_venue_leaves_the_last_known_with_its_age_and_nothing_where_nothing_was(tmp_path):
    with Venue() as venue:
        begin(tmp_path, venue.port)
        page = Page(tmp_path, carry_s=0.0, candles_s=0.0, timeout_s=1.0)
        first = page.get("/carry")
        candles = page.get("/candles", instrument=PERP)
    time.sleep(0.1)
    later, again = page.get("/carry"), page.get("/candles", instrument=PERP)
    assert (first["stale"], later["stale"], again["stale"]) == (False, True, True)
    assert "get_tickers" in later["failure"]
    assert later["as_of"] == first["as_of"]
    assert later["age_s"] > first["age_s"]
    assert [one["symbol"] for one in later["rows"]] == [one["symbol"] for one in first["rows"]]
    assert again["candles"] == candles["candles"]
    refused = page.ask("/candles", instrument=SPOT)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    page.market.close()


def test_another_mode_or_another_address_is_another_market(shared, tmp_path):
    begin(tmp_path, 9)  # nobody is there
    page = Page(tmp_path, timeout_s=1.0)
    page.get("/instruments", 503)
    begin(tmp_path, shared.port, ("BTCUSDT",))
    assert len(page.get("/instruments")["instruments"]) == 2
    page.market.close()


# --- how often it is asked -----------------------------------------------------------------------


class Asked:
    """Counts how often it is asked; each answer takes a moment, and some are none."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.count = 0

    def __call__(self):
        self.count += 1
        time.sleep(0.05)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def gather(kept, times):
    async def together():
        return await asyncio.gather(*(kept.get() for _ in range(times)))

    return asyncio.run(together())


def test_however_many_look_the_venue_is_asked_once():
    asked = Asked("answer")
    with ThreadPoolExecutor(4) as pool:
        kept = Kept(asked, pool, 60.0)
        assert {one.value for one in gather(kept, 50)} == {"answer"}
        gather(kept, 50)
    assert asked.count == 1


def test_what_is_old_is_asked_for_again():
    asked = Asked(1, 2)
    with ThreadPoolExecutor(4) as pool:
        kept = Kept(asked, pool, 0.0)
        assert [one.value for one in gather(kept, 3)] == [1, 1, 1]
        assert [one.value for one in gather(kept, 3)] == [2, 2, 2]


def test_who_failed_is_left_alone_for_a_moment():
    asked = Asked("known", UnansweredError("silence"))
    with ThreadPoolExecutor(4) as pool:
        kept = Kept(asked, pool, 0.0)
        gather(kept, 1)
        failed = [one for _ in range(5) for one in gather(kept, 5)]
    assert {(one.value, one.stale, one.failure) for one in failed} == {("known", True, "silence")}
    assert asked.count == 2


def test_nobody_who_goes_away_takes_the_answer_with_him():
    asked = Asked("answer")

    async def one_leaves(kept):
        hasty = asyncio.create_task(kept.get())
        patient = asyncio.create_task(kept.get())
        await asyncio.sleep(0.01)
        hasty.cancel()
        return (await patient).value

    with ThreadPoolExecutor(4) as pool:
        assert asyncio.run(one_leaves(Kept(asked, pool, 60.0))) == "answer"
    assert asked.count == 1


def test_nobody_waits_for_a_slow_venue_longer_than_he_must():
    asked = Asked("old", "new")

    async def in_a_hurry(kept):
        first = kept.get()
        with pytest.raises(UnansweredError, match="no answer within"):
            await first
        await asyncio.sleep(0.1)
        old = await kept.get()
        await asyncio.sleep(0.1)
        return old, await kept.get()

    with ThreadPoolExecutor(4) as pool:
        old, new = asyncio.run(in_a_hurry(Kept(asked, pool, 0.0, patience_s=0.01)))
    assert (old.value, old.stale, old.failure) == ("old", True, "no answer within 0.01 s")
    assert (new.value, new.stale) == ("new", True)


def test_a_fault_of_ours_is_loud():
    with ThreadPoolExecutor(4) as pool, pytest.raises(ZeroDivisionError):
        gather(Kept(Asked(ZeroDivisionError()), pool, 60.0), 1)
