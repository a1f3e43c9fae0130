"""A real browser before the real page: a process of its own, that asks an API over a fake engine in this process."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.page.stage import Server, until

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE_MS = 30_000
WIDE, NARROW = (1280, 900), (390, 844)


class PageProcess:
    """`python -m actors.page`, as `hean up` begins it."""

    def __init__(self, api_url, home, port=0):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = home / "page.out"
        self._command = [
            sys.executable,
            "-m",
            "actors.page",
            "--home",
            home,
            "--port",
            str(self.port),
            "--api",
            api_url,
        ]
        self._process = None

    def begin(self):
        with self.output.open("ab") as output:
            # NiceGUI takes a process that pytest has begun for a test of its own kind.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
            self._process = subprocess.Popen(
                self._command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        until(self._answers, f"the page answers: {self.output}", 60)

    def end(self, number=signal.SIGTERM):
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None

    def _answers(self):
        assert self._process.poll() is None, self.output.read_text(errors="replace")[-2000:]
        try:
            return httpx.get(self.url, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


class Visitor:
    """Somebody who looks, and notes whatever a browser would complain of or ask another machine for."""

    def __init__(self, browser, url, size=WIDE, theme="dark", **more):
        self.url = url
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **more
        )
        self.context.add_init_script(f"localStorage.setItem('hean-theme', '{theme}')")
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.complaints = []
        self.asked = set()
        self.received = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.on("websocket", self._socket)

    def open(self, path="/"):
        self.page.goto(self.url + path)
        self.page.locator(".nav a.here").wait_for(state="attached")
        return self.page

    def view(self, path):
        """Go to a view as a person does: without loading the page anew."""
        self.page.locator(f'.nav a[href="{path}"]').evaluate("link => link.click()")
        self.page.locator(f'.nav a.here[href="{path}"]').wait_for(state="attached")

    def leave(self):
        self.context.close()

    def must_be_content(self):
        foreign = [url for url in self.asked if not re.match(r"(http|ws)://127\.0\.0\.1[:/]|data:|blob:|about:", url)]
        assert not foreign, f"asked of other machines: {foreign}"
        assert not self.complaints, self.complaints

    def _said(self, message):
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")
        elif message.text.startswith("reloading"):
            print(message.text)  # NiceGUI loads the page anew where a starved machine lets its socket time out

    def _socket(self, socket):
        self.asked.add(socket.url)
        socket.on("framereceived", lambda payload: self.received.append(str(payload)))


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture(scope="module")
def browser():
    # Playwright keeps a loop running in this thread for as long as it lives: tests elsewhere have loops of their own.
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: `apt-get install chromium`, and this runs")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # which Chromium refuses to do without as root
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def stage(browser):
    """The API over a fake engine, and the page before it; begun once, since the page takes seconds to begin."""
    with tempfile.TemporaryDirectory(prefix="hean-page-") as home:
        server = Server(Path(home))
        server.begin()
        server.page = PageProcess(server.url, Path(home))
        try:
            server.page.begin()
            yield server
        finally:
            server.page.end()
            server.end()


@pytest.fixture
def server(stage):
    stage.engine.told.clear()
    return stage


@pytest.fixture
def visitor(server, browser):
    visiting = Visitor(browser, server.page.url)
    yield visiting
    visiting.leave()
    visiting.must_be_content()
