"""The page before a real engine: an exchange on loopback, actors on Ray, the API on Serve, a browser. Minutes: marked engine."""

import re
import warnings

import msgspec
import pytest
from playwright.sync_api import expect

from actors.up import BEGUN, Begun
from hean.engine_settings import VenueMode
from tests.browser.conftest import PageProcess, Visitor, free_port
from tests.browser.test_page import dialog, lever
from tests.page.stage import until
from tests.ray.stage import Truth, acting, held, wait_until_flat

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Serve's own, as it is imported
    from actors.http import deployment

LONG_MS = 180_000


@pytest.fixture
def begun(cluster, browser, tmp_path):
    """A real engine that trades in the sandbox, its API, and somebody before its page."""
    home = tmp_path / "hean"
    home.mkdir()
    (home / BEGUN).write_bytes(msgspec.json.encode(Begun(VenueMode.SANDBOX, 0)))
    with acting(home / VenueMode.SANDBOX) as stage:
        stage.wait_until_trading(120)
        page = PageProcess(deployment.deploy(home, port=free_port()), home)
        try:
            page.begin()
            visitor = Visitor(browser, page.url)
            visitor.context.set_default_timeout(LONG_MS)
            yield stage, visitor
            visitor.leave()
            visitor.must_be_content()
        finally:
            page.end()
            deployment.undeploy()


@pytest.mark.engine
def test_an_engine_is_seen_killed_put_back_and_begun_again_from_the_page(begun):
    stage, visitor = begun
    expect.set_options(timeout=LONG_MS)
    truth = Truth(stage.exchange)
    page = visitor.open("/")
    expect(page.locator(".top")).to_contain_text("SANDBOX")
    expect(page.locator(".top")).to_contain_text("ACTIVE")
    equity = page.locator(".figure", has_text="Equity").locator(".value span").first
    expect(equity).to_contain_text(re.compile(r"\d"))
    first = equity.inner_text()
    expect(equity).not_to_have_text(first)

    # What trades is seen to trade, and an order's story is told from its signal to its fill.
    visitor.view("/orders")
    page.get_by_role("tab", name="Fills").click()
    expect(page.locator(".sheet tbody tr").first).to_be_visible()
    page.locator(".sheet tbody tr").first.click()
    expect(page.locator(".story")).to_contain_text("OrderFilled")
    page.keyboard.press("Escape")
    expect(page.locator(".story")).to_have_count(0)

    # The kill switch: everything is closed, by the exchange's own word.
    until(lambda: held(stage.status()), "something is held", 60)
    page.keyboard.press("k")
    expect(dialog(page)).to_contain_text("closed at the market")
    dialog(page).get_by_label("Reason").fill("a drill")
    dialog(page).get_by_label("Type kill to confirm").fill("kill")
    dialog(page).get_by_role("button", name="Pull the kill switch").click()
    expect(dialog(page).locator(".said")).to_contain_text("The kill switch is pulled")
    expect(page.locator(".top")).to_contain_text("KILLED")
    wait_until_flat(stage)
    assert not truth.positions()
    assert not truth.open_orders()
    expect(dialog(page).locator(".effects")).not_to_contain_text("Still held")
    dialog(page).get_by_role("button", name="Close").click()

    # Put back and begun again, it trades again.
    visitor.view("/risk")
    lever(page, "Reset kill switch").click()
    dialog(page).get_by_label("Reason").fill("it was a drill")
    dialog(page).get_by_role("button", name="Put it back").click()
    expect(dialog(page).locator(".said")).to_contain_text("put back")
    dialog(page).get_by_role("button", name="Close").click()
    lever(page, "Start trading").click()
    dialog(page).get_by_role("button", name="Begin to trade").click()
    expect(dialog(page).locator(".said")).to_be_visible()
    expect(page.locator(".top")).to_contain_text("ACTIVE")
    before = len(truth.executions())
    until(lambda: len(truth.executions()) > before, "it trades again", 120)

    # Every actor is seen to live, and has its process.
    visitor.view("/actors")
    expect(page.locator(".page")).to_contain_text("answers")
    dialog_or_none = page.locator(".q-dialog")
    page.keyboard.press("Escape")
    expect(dialog_or_none).to_have_count(0)
    for actor in stage.status().actors:
        expect(page.locator(".sheet tbody tr", has_text=str(actor.pid)).first).to_be_visible()
