"""Where tests find recorded market data; it is not part of the repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def data_dir() -> Path:
    """Return the directory of recorded data: `HEAN_DATA_DIR`, taken relative to the repository's root."""
    return ROOT / os.environ.get("HEAN_DATA_DIR", "../shared/data")


needs_data = pytest.mark.skipif(
    not (data_dir() / "market").is_dir(),
    reason="recorded market data not found: set HEAN_DATA_DIR to the directory that holds market/ and raw/",
)
