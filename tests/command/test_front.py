"""The page's process and both ports, where no Ray is: what is refused before anything begins, and what is found again."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from actors import detached, files, foreground, front
from actors.front import Door, Doors, Front
from hean.errors import ConfigError, HeanError

HEAN = Path(sys.executable).with_name("hean")


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        yield somebody.getsockname()[1]


def test_a_taken_port_is_named_and_so_is_what_to_do(tmp_path, taken):
    with pytest.raises(ConfigError, match=rf"port {taken} .* taken: --api-port takes another, --no-api does without"):
        front.check(tmp_path, Doors(page=False, api_port=taken))
    with pytest.raises(ConfigError, match=rf"port {taken} .* --page-port takes another, --no-page does without"):
        front.check(tmp_path, Doors(api_port=free_port(), page_port=taken))


def test_nothing_is_begun_where_a_port_is_taken(tmp_path, taken):
    said = subprocess.run(
        [HEAN, "up", "--api-port", str(taken), "--home", tmp_path], capture_output=True, text=True, check=False
    )
    assert said.returncode == 1
    assert f"port {taken}" in said.stderr
    assert list(tmp_path.iterdir()) == []


def test_whoever_wants_neither_is_asked_for_no_port(tmp_path, taken):
    front.check(tmp_path, Doors(api=False, page=False, api_port=taken, page_port=taken))


def test_there_is_no_page_without_an_api(tmp_path):
    with pytest.raises(ConfigError, match="--no-page"):
        front.check(tmp_path, Doors(api=False))


@pytest.fixture
def home(tmp_path):
    (tmp_path / front.API_TOKEN).write_text("t" * 64)
    yield tmp_path
    front.end(tmp_path, print)


def test_a_page_is_found_again_moved_nowhere_begun_anew_and_ended(home):
    said = []
    doors = Doors(page_port=free_port())
    front._begin_page(home, doors, said.append)
    first = front.known(home).page
    assert urllib.request.urlopen(first.url, timeout=10).status == 200  # noqa: S310
    front.check(home, Doors(api_port=free_port()))
    with pytest.raises(ConfigError, match=f"it is at {first.port} already"):
        front.check(home, Doors(api_port=free_port(), page_port=free_port()))

    front._begin_page(home, Doors(), said.append)
    assert front.known(home).page == first, "up twice is up once"
    assert said == ["starting the page"]

    os.kill(first.process.pid, signal.SIGKILL)
    os.waitpid(first.process.pid, 0)
    assert front.has_page(home) is False
    front._begin_page(home, Doors(), said.append)
    second = front.known(home).page
    assert (second.port, front.has_page(home)) == (first.port, True), "where it was"

    front.end(home, said.append)
    assert said[-1] == "ending the page"
    assert not detached.is_alive(second.process)
    assert front.known(home) == Front()


def test_a_page_that_does_not_start_says_why_and_stops_nothing(home, taken):
    (trouble,) = front.begin(home, Doors(api=False, page=True, page_port=taken), lambda _: None)
    assert "the page does not start" in trouble
    assert "page.out" in trouble


def test_a_file_that_is_damaged_is_named(tmp_path):
    (tmp_path / front.FRONT).write_text("{")
    with pytest.raises(ConfigError, match=r"front\.json cannot be read"):
        front.known(tmp_path)


def test_what_was_opened_is_kept_for_its_owner_alone(tmp_path):
    files.write(tmp_path / front.FRONT, Front(Door(8000), None))
    assert front.known(tmp_path) == Front(Door(8000))
    assert (tmp_path / front.FRONT).stat().st_mode & 0o777 == 0o600


# --- in the foreground ------------------------------------------------------------------------------


def test_a_demonstration_deletes_nothing_that_is_not_its_own(tmp_path):
    (tmp_path / "begun.json").write_text("{}")
    said = subprocess.run([HEAN, "demo", "--home", tmp_path], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "is not a demonstration's" in said.stderr
    assert (tmp_path / "begun.json").read_text() == "{}"


def test_one_at_a_time_looks_after_a_home(tmp_path):
    with (
        foreground._alone(tmp_path),
        pytest.raises(ConfigError, match="in the foreground already"),
        foreground._alone(tmp_path),
    ):
        pytest.fail("two at once")


def test_nobody_in_the_foreground_need_not_be_asked(tmp_path):
    assert not foreground.ask_to_end(tmp_path, print)
    with foreground._alone(tmp_path):
        pass
    assert not foreground.ask_to_end(tmp_path, print)


def test_whoever_is_in_the_foreground_is_asked_to_end_and_waited_for(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from actors import foreground\n"
        "with foreground._alone(Path(sys.argv[1])), foreground._asked() as asked:\n"
        "    print('ready', flush=True); asked.wait(60); time.sleep(0.5); print('ended', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout.readline() == "ready\n"
        assert foreground.ask_to_end(tmp_path, print)
        assert one.stdout.readline() == "ended\n"
    assert one.returncode == 0


def test_one_that_does_not_end_is_said_to_be_so(tmp_path, monkeypatch):
    monkeypatch.setattr(foreground, "_ENDING_S", 0.5)
    code = (
        "import sys, time; from pathlib import Path; from actors import foreground\n"
        "with foreground._alone(Path(sys.argv[1])), foreground._asked():\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout.readline() == "ready\n"
        with pytest.raises(HeanError, match="does not end within"):
            foreground.ask_to_end(tmp_path, print)
        one.kill()
