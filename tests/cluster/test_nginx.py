"""nginx before the page: its own check, and a real one before something that stands in for the page."""

import shutil
import socket
import subprocess
import threading
import time

import httpx
import pytest
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.cluster.files import CLUSTER

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
CONF = CLUSTER / "nginx.conf"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def placed(folder, front, behind, text=None):
    text = (text or CONF.read_text()).replace("8080", f"127.0.0.1:{front}").replace("3080", str(behind))
    path = folder / "nginx.conf"
    path.write_text(text.replace("/tmp/", f"{folder}/"))  # noqa: S108
    return path


def test_nginx_takes_it(tmp_path):
    path = placed(tmp_path, free_port(), 3080)
    outcome = subprocess.run([NGINX, "-t", "-c", path], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_a_word_that_nginx_does_not_know_is_refused(tmp_path):
    path = placed(tmp_path, free_port(), 3080, CONF.read_text().replace("proxy_buffering", "proxy_bufering"))
    outcome = subprocess.run([NGINX, "-t", "-c", path], capture_output=True, text=True, check=False)
    assert outcome.returncode == 1


@pytest.fixture
def front(tmp_path):
    """nginx before an echo; the port it is reached by."""

    def echo(link):
        for message in link:
            link.send(f"{link.request.headers['Host']} {message}")

    with serve(echo, "127.0.0.1", 0) as page:
        thread = threading.Thread(target=page.serve_forever)
        thread.start()
        port = free_port()
        path = placed(tmp_path, port, page.socket.getsockname()[1])
        nginx = subprocess.Popen([NGINX, "-c", path, "-g", "daemon off;"], stderr=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + 20
            while True:
                try:
                    assert httpx.get(f"http://127.0.0.1:{port}/nginx-health").text == "ok\n"
                    break
                except httpx.TransportError:
                    assert time.monotonic() < limit
                    time.sleep(0.05)
            yield port
        finally:
            nginx.terminate()
            nginx.wait(20)
            page.shutdown()
            thread.join()


def test_a_socket_goes_through_and_the_page_hears_the_name_it_was_asked_by(front):
    with connect(f"ws://localhost:{front}/_nicegui_ws/") as link:
        link.send("hello")
        assert link.recv(timeout=10) == f"localhost:{front} hello"


def test_another_name_gets_nothing(front):
    answer = httpx.get(f"http://127.0.0.1:{front}/", headers={"Host": "evil.example"})
    assert answer.status_code == 421


def test_every_answer_says_that_it_is_not_to_be_framed_or_sniffed(front):
    for path in ("/nginx-health", "/"):  # the second is what the page answered
        answer = httpx.get(f"http://127.0.0.1:{front}{path}")
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "nginx/" not in answer.headers["Server"]
