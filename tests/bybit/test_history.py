"""Real pybit against a Bybit on loopback: what is fetched is what is missing, whole and closed."""

import json

import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from actors.cli_data import data_app
from actors.gateways.bybit_history import BybitHistory, Throttle, download, public_session
from hean.errors import DataError
from hean.instruments import Category
from hean.store.catalog import Catalog
from hean.units import DAY, HOUR, MINUTE
from tests.bybit.history_server import HistoryServer
from tests.data_dir import data_dir, needs_data
from tests.store.making import PERP, T0, batch

T0_MS = T0 // 10**6


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def bybit():
    with HistoryServer(now_ms=T0_MS + 40 * 86_400_000 + 30_000, first_ms=T0_MS - 86_400_000) as server:
        yield server


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def history(bybit, clock):
    session = public_session(bybit.url)
    yield BybitHistory(session, Throttle(clock=clock, sleep=clock.sleep))
    session.client.close()


@pytest.fixture
def catalog(tmp_path):
    return Catalog(tmp_path / "catalog")


def test_pages_join_without_a_seam(history, bybit):
    rows = history.candles("bar-1m", PERP, start=T0, end=T0 + 2_500 * MINUTE)
    assert rows["ts_event"].to_list() == [T0 + i * MINUTE for i in range(2_500)]
    assert len(bybit.asked) == 3
    assert rows["volume"].unique().to_list() == [1.5]


def test_the_running_candle_is_left_out(history, bybit):
    now = bybit.now_ms * 10**6
    rows = history.candles("bar-1m", PERP, start=now - 10 * MINUTE, end=now + HOUR)
    assert rows["ts_event"].to_list()[-1] == now // MINUTE * MINUTE - MINUTE


def test_a_candle_that_has_just_closed_is_kept(history, bybit):
    bybit.now_ms = T0_MS + 3 * 60_000
    rows = history.candles("bar-1m", PERP, start=T0, end=T0 + HOUR)
    assert rows.height == 3


def test_a_hole_in_the_venues_history_stays_one(history, bybit, catalog):
    bybit.holes = {T0_MS + i * 60_000 for i in range(100, 150)}
    download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + 600 * MINUTE)
    assert catalog.find("bar-1m", PERP).gaps.missing == 50


@pytest.mark.parametrize(
    ("kind", "path"), [("mark-1h", "mark"), ("index-1h", "index"), ("premium-1h", "premium-index")]
)
def test_the_other_candles_come_from_their_own_endpoints(history, bybit, kind, path):
    rows = history.candles(kind, PERP, start=T0, end=T0 + 5 * HOUR)
    assert rows.columns == ["row", "open", "high", "low", "close", "ts_event"]
    assert {asked for asked, _ in bybit.asked} == {f"/v5/market/{path}-price-kline"}


def test_funding_pages_backwards_and_always_names_an_end(history, bybit):
    bybit.funding_h = 1
    rows = history.funding(PERP, start=T0, end=T0 + 25 * DAY)
    assert rows["ts_event"].to_list() == [T0 + i * HOUR for i in range(25 * 24)]
    assert len(bybit.asked) == 3
    assert all({"startTime", "endTime"} <= set(query) for _, query in bybit.asked)


def test_an_end_is_not_part_of_the_funding_asked_for(history):
    rows = history.funding(PERP, start=T0, end=T0 + 16 * HOUR)
    assert rows["ts_event"].to_list() == [T0, T0 + 8 * HOUR]


def test_rules_are_read_page_by_page(history, bybit):
    bybit.symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    rules = history.rules(Category.LINEAR)
    assert [one.instrument.id for one in rules] == [f"{s}-LINEAR.BYBIT" for s in bybit.symbols]
    assert len(bybit.asked) == 3
    assert rules[0].ts_from == bybit.now_ms * 10**6


def test_a_download_is_complete_and_brings_the_rules(history, catalog, bybit):
    committed = download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + 2 * DAY)
    assert committed.rows == 2_880
    series = catalog.find("bar-1m", PERP)
    assert (series.rows, series.gaps.holes, series.synthetic) == (2_880, 0, False)
    assert not catalog.rules(PERP, bybit.now_ms * 10**6)[1].later
    assert "Bybit V5 download" in {source.importer for source in series.sources}


def test_a_second_download_asks_for_nothing_that_is_there(history, catalog, bybit):
    download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + DAY)
    download(history, catalog, "funding", PERP, start=T0, end=T0 + DAY)
    bybit.asked.clear()
    assert download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + DAY).rows == 0
    assert download(history, catalog, "funding", PERP, start=T0, end=T0 + DAY).rows == 0
    assert {path for path, _ in bybit.asked} == {"/v5/market/instruments-info"}


def test_what_lies_before_and_after_is_fetched(history, catalog):
    download(history, catalog, "bar-1m", PERP, start=T0 + DAY, end=T0 + 2 * DAY)
    assert download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + 3 * DAY).rows == 2 * 1_440
    assert catalog.find("bar-1m", PERP).gaps.holes == 0


def test_an_interrupted_download_goes_on_where_it_stopped(history, catalog, bybit):
    end = T0 + 40 * DAY  # June, and nine days of July

    def fail_in_july(done, _):
        bybit.trouble = ["10001"] if done == 1 else []

    with pytest.raises(DataError, match="code 10001"):
        download(history, catalog, "bar-5m", PERP, start=T0, end=end, progress=fail_in_july)
    assert catalog.find("bar-5m", PERP).rows == 30 * 288

    bybit.asked.clear()
    assert download(history, catalog, "bar-5m", PERP, start=T0, end=end).rows == 10 * 288
    starts = [int(query["start"]) for path, query in bybit.asked if path.endswith("/kline")]
    assert min(starts) == T0_MS + 30 * 86_400_000
    whole = Catalog(catalog.root.parent / "at once")
    download(history, whole, "bar-5m", PERP, start=T0, end=end)
    assert_frame_equal(catalog.read("bar-5m", PERP), whole.read("bar-5m", PERP))


@pytest.mark.parametrize("trouble", ["10006", "10016", "500", "cut", "garbage"])
def test_a_read_is_repeated_while_the_venue_is_in_trouble(history, bybit, clock, trouble):
    bybit.trouble = [trouble] * 3
    rows = history.candles("bar-1m", PERP, start=T0, end=T0 + 5 * MINUTE)
    assert rows.height == 5
    assert clock.slept == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("trouble", ["10006", "500", "cut"])
def test_patience_ends(history, bybit, clock, trouble):
    bybit.trouble = [trouble] * 100
    with pytest.raises(DataError, match=r"did not answer kline .* in 6 attempts"):
        history.candles("bar-1m", PERP, start=T0, end=T0 + 5 * MINUTE)
    # requests itself may open a dropped connection once more; the bound is ours.
    assert len(clock.slept) == 5


@pytest.mark.parametrize(("trouble", "why"), [("10001", "code 10001"), ("404", "answers 404")])
def test_a_refusal_is_final(history, bybit, clock, trouble, why):
    bybit.trouble = [trouble] * 3
    with pytest.raises(DataError, match=why):
        history.candles("bar-1m", PERP, start=T0, end=T0 + 5 * MINUTE)
    assert clock.slept == []


def test_questions_come_well_below_the_venues_limit(clock):
    throttle = Throttle(clock=clock, sleep=clock.sleep)
    times = []
    for _ in range(600):
        throttle.take()
        times.append(clock.now)
    busiest = max(sum(1 for other in times if at <= other < at + 5) for at in times)
    assert busiest <= 120
    assert times[-1] == pytest.approx(590 / 20, rel=0.05)


def test_idle_time_saves_up_no_more_than_a_burst(clock):
    throttle = Throttle(clock=clock, sleep=clock.sleep)
    clock.now = 1_000.0
    for _ in range(11):
        throttle.take()
    assert len(clock.slept) == 1


def test_an_unknown_symbol_and_what_cannot_be_fetched_are_said(history, catalog):
    with pytest.raises(DataError, match="knows no linear instrument NOPEUSDT"):
        download(history, catalog, "bar-1m", "NOPEUSDT-LINEAR.BYBIT", start=T0, end=T0 + DAY)
    with pytest.raises(DataError, match="is not of Bybit"):
        download(history, catalog, "bar-1m", "BTCUSDT-LINEAR.BINANCE", start=T0, end=T0 + DAY)
    with pytest.raises(DataError, match="trade cannot be downloaded"):
        download(history, catalog, "trade", PERP, start=T0, end=T0 + DAY)


def test_a_download_at_another_level_than_the_mark_is_refused(history, catalog, bybit):
    download(history, catalog, "mark-1m", PERP, start=T0, end=T0 + DAY)
    bybit.price = 58_000.0
    with pytest.raises(DataError, match="a testnet"):
        download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + DAY)


def fixture_body(name):
    text = (data_dir() / "bybit_fixtures" / "bybit_net" / f"{name}.txt").read_text()
    return json.loads(text[text.index("{") :])


class Canned(HistoryServer):
    """Answers everything with one recorded answer."""

    def __init__(self, body):
        super().__init__(now_ms=body["time"], first_ms=0)
        self.body = body

    def answer(self, path, query):
        return self.body


@needs_data
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ExchangeData_GetKlines", "bar-1h"),
        ("ExchangeData_GetMarkPriceKlines", "mark-1h"),
        ("ExchangeData_GetIndexPriceKlines", "index-1h"),
        ("ExchangeData_GetPremiumIndexPriceKlines", "premium-1h"),
    ],
)
def test_recorded_candles_have_the_shape_that_is_read(clock, name, kind):
    body = fixture_body(name)
    entries = body["result"]["list"]
    stamps = sorted(int(entry[0]) for entry in entries)
    with Canned(body) as server:
        session = public_session(server.url)
        history = BybitHistory(session, Throttle(clock=clock, sleep=clock.sleep))
        rows = history.candles(kind, PERP, start=stamps[0] * 10**6, end=stamps[-1] * 10**6 + 1)
        session.client.close()
    assert set(rows["ts_event"].to_list()) <= {stamp * 10**6 for stamp in stamps}
    assert not rows.is_empty()


@needs_data
def test_recorded_funding_has_the_shape_that_is_read(clock):
    with Canned(fixture_body("ExchangeData_GetFundingRateHistory")) as server:
        session = public_session(server.url)
        history = BybitHistory(session, Throttle(clock=clock, sleep=clock.sleep))
        rows = history.funding("ETHPERP-LINEAR.BYBIT", start=1672041600000 * 10**6, end=1672041600001 * 10**6)
        session.client.close()
    assert rows["rate"].to_list() == [0.0001]


def test_the_command_downloads_and_tells_in_json(bybit, tmp_path):
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url]
    asked = [
        "download",
        "BTCUSDT",
        "--kind",
        "bar-5m",
        "--kind",
        "funding",
        "--start",
        "2025-06-01",
        "--end",
        "2025-06-02",
    ]
    told = CliRunner().invoke(data_app, [*asked, *where, "--json"])
    assert told.exit_code == 0, told.output
    added = {one["kind"]: one["rows"] for one in json.loads(told.stdout)["added"]}
    assert added == {"bar-5m": 288, "funding": 3}
    again = CliRunner().invoke(data_app, [*asked, *where])
    assert "everything was there already" in again.stdout


def test_without_a_word_the_last_ninety_days_of_what_the_carry_needs(bybit, tmp_path):
    bybit.first_ms = T0_MS - 200 * 86_400_000
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url, "--json"]
    told = CliRunner().invoke(data_app, ["download", "BTCUSDT", *where])
    assert told.exit_code == 0, told.output
    answer = json.loads(told.stdout)
    now = bybit.now_ms * 10**6
    days = 90 * 1_440 + now % DAY // MINUTE
    assert {one["kind"]: one["rows"] for one in answer["added"]} == {"bar-1m": days, "mark-1m": days, "funding": 271}
    assert answer["rules"] == 1
    catalog = Catalog(tmp_path / "c")
    assert {series.first_ts for series in catalog.series()} == {now // DAY * DAY - 90 * DAY}


def test_of_spot_there_are_only_bars(bybit, tmp_path):
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url]
    asked = ["download", "BTCUSDT", "--market", "SPOT", "--kind", "funding", *where]
    told = CliRunner().invoke(data_app, asked)
    assert told.exit_code == 1
    assert "BTCUSDT-SPOT.BYBIT has no funding: of spot there are only bars" in told.stderr
    assert bybit.asked == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["BTCUSDT", "--kind", "bar-7m"], "no kind of data called 'bar-7m'"),
        (["BTCUSDT", "--kind", "bar-1m", "--kind", "trade"], "trade cannot be downloaded"),
        (["BTCUSDT-PERP"], "should read like BTCUSDT-LINEAR.BYBIT"),
        (["BTCUSDT-LINEAR.BINANCE"], "is not of Bybit"),
        (["BTC/USDT"], "'BTC/USDT' is no symbol"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(bybit, tmp_path, wrong, why):
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url]
    told = CliRunner().invoke(data_app, ["download", *wrong, *where])
    assert told.exit_code == 1
    assert why in told.stderr
    assert bybit.asked == []


@pytest.mark.parametrize("endpoint", ["garbage", "127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://a:b"])
def test_an_endpoint_that_is_no_address_is_refused(tmp_path, endpoint):
    asked = ["download", "BTCUSDT", "--endpoint", endpoint, "--catalog", str(tmp_path / "c"), "--json"]
    told = CliRunner().invoke(data_app, asked)
    assert told.exit_code == 1
    assert f"endpoint '{endpoint}' is no address" in json.loads(told.stdout)["error"]


def test_a_download_into_somebodys_directory_asks_for_nothing(bybit, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    told = CliRunner().invoke(data_app, ["download", "BTCUSDT", "--endpoint", bybit.url, "--catalog", str(tmp_path)])
    assert told.exit_code == 1
    assert "is no catalog" in told.stderr
    assert bybit.asked == []


def test_rules_alone_need_no_start(bybit, tmp_path):
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url]
    told = CliRunner().invoke(data_app, ["download", "--symbols", "btcusdt", "--kind", "rules", *where])
    assert told.exit_code == 0, told.output
    assert "recorded the rules of 1 instrument" in told.stdout
    again = CliRunner().invoke(data_app, ["download", "BTCUSDT", "--kind", "rules", *where])
    assert "everything was there already" in again.stdout
    assert CliRunner().invoke(data_app, ["download", "--start", "2025-06-01", *where]).exit_code == 2


def test_the_command_says_what_is_wrong_in_one_line(bybit, tmp_path):
    where = ["--catalog", str(tmp_path / "c"), "--endpoint", bybit.url]
    told = CliRunner().invoke(
        data_app, ["download", "NOPEUSDT", "--start", "2025-06-01", "--end", "2025-06-02", *where]
    )
    assert told.exit_code == 1
    assert told.stderr.strip() == "hean: Bybit knows no linear instrument NOPEUSDT (check the symbol)"
    wrong = CliRunner().invoke(data_app, ["download", "BTCUSDT", "--start", "yesterday", *where])
    assert wrong.exit_code == 2
    assert "is no time" in wrong.stderr


def test_made_up_and_fetched_data_live_side_by_side(history, catalog, bybit):
    from tests.store.making import bars

    catalog.commit(batch(("bar-1m", "BTCUSDT-LINEAR.SYNTHETIC", bars(100, price=5.0)), synthetic=True))
    assert download(history, catalog, "bar-1m", PERP, start=T0, end=T0 + DAY).rows == 1_440
