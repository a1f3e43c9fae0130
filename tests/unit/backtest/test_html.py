import json
import re
from html.parser import HTMLParser

import msgspec
import pytest

from hean.backtest.charts import MOST_DRAWN
from hean.backtest.html import MOST_LISTED, render
from hean.backtest.result import Benchmark, Event
from tests.unit.backtest.make import DAY, MINUTE, START, D, carry_run, empty_run, impulse_run, result, trip

VOID = {"meta", "input", "br", "link", "img", "hr"}
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&"


class Page(HTMLParser):
    """What a browser would find: it complains of tags that do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.data, self.faults = [], [], [], "", []
        self.feed(text)
        self.close()
        self.faults += [f"never closed: {tag}" for tag, _ in self.open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"{tag} closes {self.open[-1] if self.open else 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data):
        within = self.open[-1] if self.open else ("", {})
        if within[1].get("id") == "data":
            self.data += data
        elif within[0] not in {"script", "style"}:
            self.text.append(data)

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))

    @property
    def chart(self):
        return json.loads(self.data)

    def count(self, tag):
        return sum(each == tag for each, _ in self.tags)


@pytest.fixture(scope="module", params=[impulse_run, carry_run, empty_run])
def text(request):
    return render(request.param())


def test_the_page_is_well_formed(text):
    assert Page(text).faults == []


def test_the_page_asks_nothing_of_any_network(text):
    page = Page(text)

    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"// [^\n]*", "", text))
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert not any("src" in attrs or "href" in attrs for _, attrs in page.tags)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_every_section(text):
    ids = {attrs.get("id") for _, attrs in Page(text).tags}

    assert {"equity", "price", "sources", "funnel", "figures", "comparison", "trips", "refusals", "manifest"} <= ids


def test_the_figures_of_the_run_are_on_the_page():
    run = impulse_run()
    words = Page(render(run)).words.replace("\N{MINUS SIGN}", "-")

    for amount in (run.pnl.net, run.pnl.fees, run.equity_final, run.benchmarks[0].net_pnl):
        assert f"{amount:,.2f}" in words
    for said in (run.result_hash, "20,000", "daily-loss", "confirmations off", "cost gate", "risk.gross_exposure"):
        assert said in words
    assert "37 in 1" in words  # rows missing from the data
    assert "cd" * 32 in words  # the sum of what it was made from


def test_the_same_run_gives_the_same_page():
    assert render(impulse_run(trades=20)) == render(impulse_run(trades=20))


def test_names_from_outside_stay_text():
    run = impulse_run(trades=10)
    strategy = msgspec.structs.replace(
        run.strategies[0],
        name=HOSTILE,
        notes=(HOSTILE,),
        config={HOSTILE: HOSTILE},
        funnel=msgspec.structs.replace(run.strategies[0].funnel, refused={HOSTILE: 1}, gates=((HOSTILE, 3),)),
    )
    run = msgspec.structs.replace(
        run,
        strategies=(strategy, strategy),
        trips=tuple(msgspec.structs.replace(each, strategy=HOSTILE, closed_by=HOSTILE) for each in run.trips),
        benchmarks=(Benchmark(HOSTILE, D(1), HOSTILE),),
        settings={HOSTILE: [HOSTILE, {"a": HOSTILE}]},
        data={HOSTILE: {"rows": 1, "sources": [{"sha256": HOSTILE, "name": HOSTILE, "importer": HOSTILE}]}},
        result_hash=HOSTILE,
    )

    text = render(run)
    page = Page(text)

    assert page.faults == []
    assert (page.count("script"), page.count("img")) == (2, 0)
    assert page.chart["strategies"] == [HOSTILE]
    assert HOSTILE in page.words


@pytest.mark.parametrize("synthetic", [True, False])
def test_made_up_data_is_stamped_loudly(synthetic):
    words = Page(render(impulse_run(trades=5, synthetic=synthetic))).words

    assert ("SYNTHETIC DATA" in words) is synthetic


def test_unknown_is_said_and_never_drawn_as_nought():
    page = Page(render(empty_run()))

    rows = re.findall(r"(hit rate|profit factor|mean trade|growth a year|Sortino a year) ([a-z]+)", page.words)
    assert len(rows) == 5
    assert {figure for _, figure in rows} == {"unknown"}
    assert "Nothing was traded." in page.words
    assert "Nothing was refused." in page.words


def test_an_instrument_without_prices_has_no_candles_and_still_a_page():
    run = impulse_run(trades=5)
    strategy = msgspec.structs.replace(run.strategies[0], instruments=("XRPUSDT-LINEAR.BYBIT", "odd"))

    page = Page(render(msgspec.structs.replace(run, strategies=(strategy,))))

    assert [one["candles"] is None for one in page.chart["instruments"]] == [True, True, False]


def test_a_pair_has_its_basis_and_the_fills_of_its_other_leg():
    chart = Page(render(carry_run())).chart

    assert chart["pairs"] == [[0, 1]]
    assert [one["label"] for one in chart["instruments"]] == ["BTCUSDT linear", "BTCUSDT spot"]
    assert [len(one["fills"]) for one in chart["instruments"]] == [0, 3]
    assert [legs for _, _, legs, *_ in chart["trips"]] == [[0, 1], [0, 1]]


def test_several_strategies_each_have_their_own_fall_and_funnel():
    run = impulse_run(trades=10)
    other = msgspec.structs.replace(run.strategies[0], name="second")

    words = Page(render(msgspec.structs.replace(run, strategies=(run.strategies[0], other)))).words

    assert words.count("slippage") == 3
    assert words.count("rows seen") == 2
    assert words.count("confirmations off") == 1


def test_long_lists_are_cut_and_the_total_stated():
    run = empty_run()
    trips = [trip("1", opened=START + place * MINUTE, closed=START + place * MINUTE + 5) for place in range(5_000)]

    text = render(result(run.tape, run.strategies, trips, run.curve_ts, run.curve, [], ts_end=START + 9 * DAY))
    page = Page(text)

    assert text.count("<tr data-trip=") == MOST_LISTED
    assert len(page.chart["trips"]) == MOST_DRAWN
    assert "the newest 500 of 5,000" in page.words
    assert "the newest 4,000 of 5,000 trips are drawn" in page.words
    assert text.index('data-trip="5000"') < text.index('data-trip="4999"')


def test_fifty_thousand_bars_fit_in_less_than_two_megabytes():
    text = render(impulse_run(bar_count=50_000, trades=600))

    assert len(text.encode()) < 2_000_000
    assert Page(text).chart["instruments"][0]["candles"]["count"] == 50_000


def test_a_year_of_minutes_is_joined_and_the_page_says_so():
    text = render(impulse_run(bar_count=200_000, trades=300))

    assert len(text.encode()) < 2_000_000
    (title,) = [of["title"] for tag, of in Page(text).tags if "data-tab" in of]
    assert title == "200,000 recorded of 1 min, carried as candles of 3 min"
    assert "joined from ${one.recorded}" in text


def test_what_befell_the_run_is_told_and_escaped():
    event = Event(START + MINUTE, "trading REDUCING: drawdown <8 %>")
    page = render(msgspec.structs.replace(impulse_run(trades=5), events=(event,)))

    assert "trading REDUCING: drawdown &lt;8 %&gt;" in page


def test_a_pair_is_named_once_and_a_mean_price_has_eight_figures():
    words = Page(render(carry_run())).words
    assert "BTCUSDT linear / spot" in words
    assert not re.search(r"\d[.,]\d*\.\d{6,}", words)
