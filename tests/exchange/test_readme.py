"""The scripts about the exchange that the README shows do what it says."""

import subprocess
import sys

from actors.exchange import drills
from tests.graph.test_readme import block


def test_the_script_with_pybit_trades():
    script = block("python", "from pybit.unified_trading")
    with drills.serving() as exchange:
        said = subprocess.run(
            [sys.executable, "-c", script.replace("http://127.0.0.1:8080", exchange.url)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert said.returncode == 0, said.stderr
    *fills, position = said.stdout.splitlines()
    assert fills
    assert all(fill.startswith("Buy 0.0") and " fee " in fill for fill in fills)
    assert position in {"position 0.010", "position 0.020"}  # the resting bid may have been met


def test_the_levers_it_shows_are_there():
    script = block("python", "from actors.exchange import drills")
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 0, said.stderr
