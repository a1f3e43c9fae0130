"""What is deployed, as it lies in the tree."""

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"


def read(name):
    return yaml.safe_load((CLUSTER / name).read_text())
