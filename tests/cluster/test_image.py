"""The image: linted, pinned, without secrets, and for nobody special. It is not built here."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, ROOT

BIN = Path(sys.executable).parent
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def linted(path):
    return subprocess.run([BIN / "hadolint", path], capture_output=True, text=True, check=False)


def test_the_linter_takes_it():
    outcome = linted(CLUSTER / "Dockerfile")
    assert outcome.returncode == 0, outcome.stdout


def test_what_the_linter_is_for_is_refused(tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("python:3.11.13-slim-bookworm", "python:latest"))
    assert linted(tmp_path / "Dockerfile").returncode == 1


def test_all_of_it_comes_from_a_lock_with_hashes():
    installs = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert sum("--require-hashes" in line for line in installs) == 2, "all but ourselves"


@pytest.mark.parametrize("name", ["requirements.lock", "cluster/requirements.lock"])
def test_every_line_of_a_lock_is_pinned_and_hashed(name):
    text = (ROOT / name).read_text()
    pins = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert pins
    assert all("==" in line and line.endswith("\\") for line in pins)
    assert "--index-url" not in text


def test_the_image_has_nothing_in_it_that_only_tests_need():
    run, tested = (
        dict(line.split()[0].split("==") for line in path.read_text().splitlines() if line[:1].isalpha())
        for path in (CLUSTER / "requirements.lock", ROOT / "requirements.lock")
    )
    assert not run.keys() & {"pytest", "playwright", "hypothesis", "schemathesis", "mypy"}
    assert run.items() <= tested.items(), "what is tested is what runs"


def test_only_what_is_named_gets_into_an_image():
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*"
    named = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == named
    assert all((ROOT / place).exists() for place in named)


def test_it_runs_as_nobody_special_and_is_looked_after():
    stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in stage
    assert "\nHEALTHCHECK " in stage
    assert "ARG" not in stage
    for word in ("SECRET", "TOKEN", "PASSWORD", "BYBIT"):
        assert word not in DOCKERFILE
