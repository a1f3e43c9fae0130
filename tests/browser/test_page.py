"""The page in a real browser, before an engine that only pretends."""

import json
import os
import re
import socket
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from actors.logs import NodeLog
from hean.errors import HeanError
from tests.browser.conftest import NARROW, PATIENCE_MS, WIDE, Visitor
from tests.page.stage import until

VIEWS = {
    "/": "Equity",
    "/strategies": "funding-harvester",
    "/risk": "Kill switch",
    "/orders": "7-fu",
    "/positions": "basis-arbitrage",
    "/carry": "Carry",
    "/processes": "environment-scan-1",
    "/actors": "RiskManagerActor",
    "/logs": "not warm",
}
expect.set_options(timeout=PATIENCE_MS)


# --- every view -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize(("size", "theme"), [(WIDE, "dark"), (WIDE, "light"), (NARROW, "dark"), (NARROW, "light")])
def test_each_view_shows_what_lives_and_fits(server, browser, path, size, theme):
    visitor = Visitor(browser, server.page.url, size, theme)
    page = visitor.open(path)

    expect(page.locator(".page")).to_contain_text(VIEWS[path])
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    equity = page.locator(".figure", has_text="Equity").locator(".value span").first
    expect(equity).to_contain_text(re.compile(r"\d"))
    first = equity.inner_text()
    expect(equity).not_to_have_text(first)  # it moves: the market does

    too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    visitor.leave()
    assert too_wide <= 0
    visitor.must_be_content()


@pytest.mark.parametrize("path", VIEWS)
def test_whatever_can_be_used_has_a_name_for_those_who_do_not_see_it(visitor, path):
    page = visitor.open(path)
    expect(page.locator(".page")).to_contain_text(VIEWS[path])

    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, a[href]")]
            .filter((e) => e.offsetParent !== null && e.type !== "hidden")
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.title || e.labels?.length || e.closest("label")?.textContent.trim()
                || e.getAttribute("aria-labelledby") || e.closest("[aria-label]")))
            .map((e) => e.outerHTML.slice(0, 200))"""
    )

    assert nameless == []


def test_the_token_never_reaches_the_browser(server, visitor):
    for path in VIEWS:
        visitor.open(path)
    addresses = [url for url in visitor.asked if url.startswith("http")]
    told = "".join(httpx.get(url, trust_env=False, timeout=20).text for url in addresses)

    assert "HEAN" in told
    assert len(visitor.received) > len(VIEWS)
    assert server.token not in told
    assert server.token not in "".join(visitor.received)


def test_the_mode_is_said_on_every_view(visitor):
    visitor.open("/")
    for path in VIEWS:
        visitor.view(path)
        expect(visitor.page.locator(".mode")).to_have_text("SANDBOX")


# --- commands -------------------------------------------------------------------------------------


def dialog(page):
    """The one that was opened last: another may be closing still."""
    return page.locator(".q-dialog .deed").last


def lever(page, name):
    return page.locator(".page").get_by_role("button", name=name)


def test_a_kill_asks_for_a_reason_and_a_word_says_what_happens_and_is_done_once(server, visitor):
    page = visitor.open("/risk")
    page.keyboard.press("k")
    asked = dialog(page)
    expect(asked).to_contain_text("Trading halts at once")
    expect(asked).to_contain_text(re.compile(r"\d+ positions are closed at the market, [\d,.]+ USDT together"))
    expect(asked).to_contain_text("BTCUSDT-LINEAR.BYBIT of funding-harvester")
    button = asked.get_by_role("button", name="Pull the kill switch")
    expect(button).to_be_disabled()

    asked.get_by_label("Reason").fill("a test <b>of</b> it")
    expect(button).to_be_disabled()
    asked.get_by_label("Type kill to confirm").fill("kil")
    expect(button).to_be_disabled()
    assert server.heard("kill") == []
    asked.get_by_label("Type kill to confirm").fill("kill")
    expect(button).to_be_enabled()
    button.dblclick()

    expect(asked.locator(".said")).to_contain_text("The kill switch is pulled")
    expect(page.locator(".top")).to_contain_text("KILLED")
    (told,) = server.heard("kill")
    assert told["reason"] == "a test <b>of</b> it"
    assert told["person"]
    # What is left is followed until nothing is.
    expect(asked.locator(".effects")).not_to_contain_text("Still held")
    # Its request leads to its story.
    asked.get_by_role("link").click()
    expect(page).to_have_url(re.compile(f"/logs\\?trace={told['trace']}"))
    expect(page.locator(".log")).to_contain_text("/engine/kill")

    page.keyboard.press("Escape")
    visitor.view("/risk")
    lever(page, "Reset kill switch").click()
    expect(dialog(page)).to_contain_text("a test <b>of</b> it")
    dialog(page).get_by_label("Reason").fill("it was a drill")
    dialog(page).get_by_role("button", name="Put it back").click()
    expect(dialog(page).locator(".said")).to_contain_text("put back")
    assert len(server.heard("reset")) == 1
    dialog(page).get_by_role("button", name="Close").click()

    lever(page, "Start trading").click()
    expect(dialog(page)).to_contain_text("These strategies may open positions")
    dialog(page).get_by_role("button", name="Begin to trade").click()
    expect(dialog(page).locator(".said")).to_contain_text("Trading begins")
    expect(page.locator(".top")).to_contain_text("ACTIVE")
    assert len(server.heard("start")) == 1


@pytest.mark.parametrize(
    ("mode", "button", "told"),
    [
        ("Let what is under way finish", "Stop", {"flatten": False, "finish": True}),
        ("Cancel what is under way", "Stop and cancel", {"flatten": False, "finish": False}),
        ("Close everything", "Close everything", {"flatten": True, "finish": False}),
    ],
)
def test_each_way_to_stop_says_what_it_means_and_reaches_the_engine(server, visitor, mode, button, told):
    page = visitor.open("/risk")
    lever(page, "Stop …").click()
    asked = dialog(page)
    asked.get_by_role("radio", name=mode).click()
    asked.get_by_role("button", name="test", exact=True).click()
    asked.get_by_role("button", name=button, exact=True).click()

    expect(asked.locator(".said")).to_be_visible()
    (heard,) = server.heard("stop")
    assert told.items() <= heard.items()
    assert heard["reason"] == "test"
    asked.get_by_role("button", name="Close", exact=True).click()
    lever(page, "Start trading").click()
    dialog(page).get_by_role("button", name="Begin to trade").click()
    expect(dialog(page).locator(".said")).to_be_visible()


def test_a_refusal_is_shown_in_the_engines_words_with_its_request(server, visitor, monkeypatch):
    async def refuse(**_):
        raise HeanError("risk cannot hear it: ask again in a minute")

    monkeypatch.setattr(server.engine, "stop", refuse)
    page = visitor.open("/risk")
    lever(page, "Stop …").click()
    dialog(page).get_by_label("Reason").fill("test")
    dialog(page).get_by_role("button", name="Stop", exact=True).click()

    expect(dialog(page).locator(".said")).to_have_text("risk cannot hear it: ask again in a minute")
    expect(dialog(page).locator(".request a")).to_be_visible()
    expect(dialog(page).get_by_role("button", name="Stop", exact=True)).to_be_enabled()


@pytest.fixture
def real_money(server, monkeypatch):
    """The same engine, as it looks where orders reach the main net."""
    sandbox = server.engine.picture

    async def picture():
        seen = await sandbox()
        return replace(seen, view=replace(seen.view, venue="live", dry_run=False))

    monkeypatch.setattr(server.engine, "picture", picture)


@pytest.mark.usefixtures("real_money")
def test_real_money_is_unmistakable_and_armed_only_by_typing_the_phrase(server, visitor):
    page = visitor.open("/risk")
    for path in VIEWS:
        visitor.view(path)
        expect(page.locator(".top.live .mode")).to_have_text("LIVE")
    visitor.view("/risk")
    lever(page, "Arm real money").click()
    asked = dialog(page)
    asked.get_by_role("button", name="Ask to arm").click()
    expect(asked).to_contain_text("gross exposure: 2.0 of the equity")
    button = asked.get_by_role("button", name="Arm live trading")
    expect(button).to_be_disabled()
    asked.get_by_label("Type I accept real losses to confirm").fill("i accept real losses")
    expect(button).to_be_disabled()

    asked.get_by_label("Type I accept real losses to confirm").fill("I accept real losses")
    server.engine._nonce = ""  # as if another had asked meanwhile
    button.click()
    expect(asked.locator(".said")).to_contain_text("not the nonce or not the phrase")
    asked.get_by_role("button", name="Ask again").click()
    asked.get_by_label("Type I accept real losses to confirm").fill("I accept real losses")
    asked.get_by_role("button", name="Arm live trading").click()
    expect(asked.locator(".said")).to_contain_text("armed for a day")


def test_a_process_is_begun_with_a_form_made_of_what_it_takes_and_can_be_ended(server, visitor):
    page = visitor.open("/processes")
    page.get_by_role("button", name="Begin backfill").click()
    page.get_by_label("symbols").fill("ETHUSDT")
    page.get_by_role("button", name="Go on").click()
    expect(dialog(page)).to_contain_text("symbols: ETHUSDT")
    dialog(page).get_by_role("button", name="Begin", exact=True).click()
    expect(dialog(page).locator(".said")).to_contain_text("backfill@")
    dialog(page).get_by_role("button", name="Close").click()
    (told,) = server.heard("request")
    assert (told["process"], told["arguments"]) == ("backfill", {"symbols": "ETHUSDT"})

    expect(page.locator(".run")).to_contain_text("running")
    page.get_by_role("button", name="End the run").click()
    dialog(page).get_by_label("Reason").fill("asked for by mistake")
    dialog(page).get_by_role("button", name="End the run").click()
    expect(dialog(page).locator(".said")).to_be_visible()
    dialog(page).get_by_role("button", name="Close").click()
    expect(page.locator(".run")).to_contain_text("canceled")


def test_a_run_that_waits_for_a_person_is_decided_on(server, visitor):
    page = visitor.open("/processes")
    page.locator(".sheet tbody tr", has_text="smoke-test-3").click()
    expect(page.locator(".run")).to_contain_text("Waits:")
    page.get_by_role("button", name="Do it again").click()
    dialog(page).get_by_label("Reason").fill("looked, and it was not done")
    dialog(page).get_by_role("button", name="Do it again").click()

    expect(dialog(page).locator(".said")).to_be_visible()
    (told,) = server.heard("decide")
    assert told["again"] is True


# --- a connection that is lost --------------------------------------------------------------------


def test_a_lost_api_is_unmistakable_and_what_happened_meanwhile_is_not_missed(server, visitor):
    log = NodeLog(server.folder, "broker", 3)
    page = visitor.open("/logs")
    expect(page.locator(".lost")).to_be_hidden()
    log.info("before it went")
    expect(page.locator(".log")).to_contain_text("before it went")

    server.end()
    try:
        expect(page.locator(".lost")).to_be_visible()
        expect(page.locator(".lost")).to_contain_text("API")
        page.keyboard.press("k")
        expect(dialog(page)).to_contain_text("The API does not answer")
        dialog(page).get_by_label("Reason").fill("now")
        dialog(page).get_by_label("Type kill to confirm").fill("kill")
        dialog(page).get_by_role("button", name="Pull the kill switch").click()
        expect(dialog(page)).to_contain_text("Sending it again is safe")
        log.info("while it was away")
    finally:
        server.begin()

    dialog(page).get_by_role("button", name="Cancel").click()
    expect(page.locator(".lost")).to_be_hidden()
    expect(page.locator(".log")).to_contain_text("while it was away")
    log.info("after it came back")
    expect(page.locator(".log")).to_contain_text("after it came back")
    log.close()
    assert page.locator(".log-line", has_text="while it was away").count() == 1
    assert server.heard("kill") == []


def test_a_page_whose_own_server_dies_says_so_and_comes_back_by_itself(server, browser):
    visitor = Visitor(browser, server.page.url)
    page = visitor.open("/actors")
    expect(page.locator(".page")).to_contain_text("RiskManagerActor")

    server.page.end(9)
    expect(page.locator(".lost")).to_contain_text("lost its own server")
    server.page.begin()

    expect(page.locator(".lost")).to_be_hidden()
    expect(page.locator(".page")).to_contain_text("RiskManagerActor")
    visitor.leave()


# --- orders, logs, keys ---------------------------------------------------------------------------


def test_orders_are_filtered_sorted_saved_and_told_the_story_of(server, visitor):
    log = NodeLog(server.folder, "risk", 3)
    page = visitor.open("/orders")
    page.get_by_role("tab", name="Fills").click()
    expect(page.locator(".sheet tbody tr")).not_to_have_count(0)
    page.locator(".page").get_by_label("Filter by order or instrument").fill("ETHUSDT-SPOT")
    rows = page.locator(".sheet tbody tr")
    expect(rows.filter(has_not_text="ETHUSDT-SPOT")).to_have_count(0)
    expect(rows.first).to_contain_text("basis-arbitrage")

    with page.expect_download() as saving:
        page.get_by_role("button", name="CSV").click()
    saved = saving.value.path().read_text()
    assert saved.splitlines()[0].startswith("ts,trade_id,client_order_id")
    assert len(saved.splitlines()) == 1 + rows.count()

    order = rows.first.locator("td.mono").inner_text()
    log.info("Signal", trace="ab" * 16, said={"client_order_id": order, "reason": "<img src=x onerror=alert(1)>"})
    rows.first.click()
    expect(page.locator(".story")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator(".story img").count() == 0
    page.keyboard.press("Escape")
    expect(page.locator(".story")).to_be_hidden()
    log.close()

    page.get_by_role("tab", name="Round trips").click()
    expect(page.locator(".empty")).to_contain_text("None of them")
    page.locator(".page").get_by_label("Filter by order or instrument").fill("")
    expect(page.locator(".tab-sum")).to_contain_text("USDT net in")
    net = page.get_by_role("columnheader", name="Net")
    net.get_by_role("button").click()
    expect(net).to_have_attribute("aria-sort", "ascending")
    place = [th.inner_text().strip("▴▾") for th in page.locator(".sheet th").all()].index("Net")
    nets = [number(row.locator("td").nth(place).inner_text()) for row in page.locator(".sheet tbody tr").all()[:20]]
    assert nets == sorted(nets)
    assert len(nets) > 5


def number(text):
    return float(text.replace(",", "").replace("\N{MINUS SIGN}", "-"))


def test_logs_are_never_markup_and_a_trace_leads_to_all_that_belongs_to_it(server, visitor):
    log = NodeLog(server.folder, "venue", 3)
    page = visitor.open("/logs")
    expect(page.locator(".log")).to_contain_text("ready")
    trace, other = "cd" * 16, "ef" * 16
    log.warning(
        "<script>document.title='owned'</script>",
        trace=trace,
        said={"text": "<img src=x onerror=\"document.title='owned'\">"},
    )
    log.info("of another", trace=other)
    line = page.locator(".log-line", has_text="<script>document.title='owned'</script>")
    expect(line).to_be_visible()
    expect(page.locator(".log")).to_contain_text("of another")
    assert page.locator(".log img, .log script").count() == 0
    assert "owned" not in page.title()

    line.get_by_role("button").click()
    expect(page.locator(".log")).not_to_contain_text("of another")
    expect(line).to_be_visible()
    log.info("more of the same", trace=trace)
    expect(page.locator(".log")).to_contain_text("more of the same")

    page.get_by_role("button", name="Pause").click()
    log.info("unseen as yet", trace=trace)
    expect(page.locator(".tab-sum")).to_contain_text("Paused: 1 lines")
    expect(page.locator(".log")).not_to_contain_text("unseen as yet")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".log")).to_contain_text("unseen as yet")
    log.close()

    with page.expect_download() as saving:
        page.get_by_role("button", name="JSON lines").click()
    saved = [json.loads(text) for text in saving.value.path().read_text().splitlines()]
    assert [one["event"] for one in saved][-2:] == ["more of the same", "unseen as yet"]
    assert all(one["trace"] == trace for one in saved)


def test_the_keys_lead_everywhere_and_kill_nothing(server, visitor):
    page = visitor.open("/")
    for key, path in (("4", "/orders"), ("8", "/actors"), ("1", "/")):
        page.keyboard.press(key)
        expect(page.locator(".nav a.here")).to_have_attribute("href", path)
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page).to_have_url(re.compile("/logs$"))

    page.keyboard.press("/")
    expect(page.locator(".filter input").first).to_be_focused()
    page.keyboard.type("k4?")  # into the filter, and nowhere else
    expect(page.locator(".filter input").first).to_have_value("k4?")
    expect(dialog(page)).to_have_count(0)
    page.locator(".filter input").first.blur()

    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("k")
    expect(dialog(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    assert server.heard("kill") == []


# --- who may ask ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:3000"}, {"Origin": "http://evil.example"}],
    ids=["a name rebound", "with a port", "another site"],
)
def test_another_site_gets_nothing_of_the_page(server, headers):
    answer = httpx.get(server.page.url, headers=headers, trust_env=False, timeout=20)

    assert answer.status_code == 403
    assert "Kill" not in answer.text


@pytest.mark.parametrize(
    ("name", "headers"),
    [("127.0.0.1", {"Origin": "http://evil.example"}), ("evil.example", {})],
    ids=["another site", "a name rebound"],
)
def test_another_site_opens_no_socket_to_the_page(server, name, headers):
    url = f"ws://{name}:{server.page.port}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"

    with (
        socket.create_connection(("127.0.0.1", server.page.port)) as wire,
        pytest.raises(InvalidStatus) as refused,
        connect(url, sock=wire, additional_headers=headers, proxy=None),
    ):
        pass

    assert refused.value.response.status_code == 403


def test_the_page_listens_on_this_machines_own_address_alone(server):
    answer = httpx.get(server.page.url, trust_env=False, timeout=20)

    assert answer.headers["x-frame-options"].lower() == "deny"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    listening = until(lambda: _listening(server.page.port), "it listens")
    assert listening == {"0100007F"}, "127.0.0.1, as the kernel writes it"


def _listening(port):
    """Local addresses that are listened on at a port, of both families, in the kernel's writing."""
    found = set()
    for table in filter(os.path.exists, ("/proc/net/tcp", "/proc/net/tcp6")):
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, at = local.partition(":")
            if state == "0A" and int(at, 16) == port:
                found.add(address)
    return found
