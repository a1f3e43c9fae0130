"""Who may send: one process, and none whose successor has begun."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from actors.gateways.fence import Fence, FencedError, write_epoch
from hean.errors import VenueError

SENDER = """
import sys, time
from pathlib import Path
from actors.gateways.fence import Fence, FencedError
home = Path(sys.argv[1])
fence = Fence(home, 1)
print("begun", flush=True)
try:
    while True:
        with fence.sending():
            with open(home / "sent", "a") as sent:
                sent.write("x")
        time.sleep(0.002)
except FencedError as lost:
    print(lost, flush=True)
time.sleep(60)
"""


@contextmanager
def predecessor(home):
    """A process that sends, and would for ever."""
    write_epoch(home, 1)
    process = subprocess.Popen([sys.executable, "-c", SENDER, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def sent(home):
    return (home / "sent").stat().st_size if (home / "sent").exists() else 0


def until(true):
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_predecessor_that_is_not_quite_dead_sends_nothing_once_its_successor_has_begun(tmp_path):
    with predecessor(tmp_path) as process:
        until(lambda: sent(tmp_path))
        os.kill(process.pid, signal.SIGSTOP)
        write_epoch(tmp_path, 2)
        with pytest.raises(VenueError, match=f"held by process {process.pid}"):
            Fence(tmp_path, 2, wait_s=0.1)
        before = sent(tmp_path)
        os.kill(process.pid, signal.SIGCONT)
        assert process.stdout.readline() == "epoch 2 has begun, this is epoch 1\n"
        assert sent(tmp_path) <= before + 1  # one that had been let through when it was stopped
        successor = Fence(tmp_path, 2, wait_s=5)  # which need not wait for its death
        assert successor.holds()
        successor.release()


def test_a_predecessor_that_is_killed_lets_go(tmp_path):
    with predecessor(tmp_path) as process:
        write_epoch(tmp_path, 2)
        process.kill()
        Fence(tmp_path, 2, wait_s=5).release()


def test_what_is_lost_stays_lost(tmp_path):
    write_epoch(tmp_path, 3)
    fence = Fence(tmp_path, 3)
    assert fence.holds()
    write_epoch(tmp_path, 4)
    assert not fence.holds()
    write_epoch(tmp_path, 3)
    with pytest.raises(FencedError, match="epoch 4"), fence.sending():
        raise AssertionError("nothing may be sent")


def test_an_epoch_that_cannot_be_read_is_a_lost_one(tmp_path):
    with pytest.raises(FencedError, match="cannot be read"):
        Fence(tmp_path, 1)
    write_epoch(tmp_path, 1)
    fence = Fence(tmp_path, 1)
    (tmp_path / "epoch").write_text("one")
    assert not fence.holds()
    fence.release()


def test_the_lock_is_let_go_of_only_when_the_last_request_is_over(tmp_path):
    write_epoch(tmp_path, 1)
    fence, sending, go_on = Fence(tmp_path, 1), threading.Event(), threading.Event()

    def send():
        with fence.sending():
            sending.set()
            go_on.wait(10)

    thread = threading.Thread(target=send)
    thread.start()
    sending.wait(10)
    write_epoch(tmp_path, 2)
    assert not fence.holds()
    with pytest.raises(VenueError, match="held by"):
        Fence(tmp_path, 2, wait_s=0.05)
    go_on.set()
    thread.join()
    Fence(tmp_path, 2, wait_s=1).release()


def test_an_epoch_is_replaced_and_never_missing(tmp_path):
    write_epoch(tmp_path, 1)
    stop, damage = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                int((tmp_path / "epoch").read_text())
            except (OSError, ValueError) as error:
                damage.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    for epoch in range(50):
        write_epoch(tmp_path, epoch)
    stop.set()
    thread.join()
    assert not damage
    assert [path.name for path in tmp_path.iterdir()] == ["epoch"]
