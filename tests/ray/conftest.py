"""Which tests begin whole engines."""

from pathlib import Path

import pytest

WHOLE_ENGINES = {
    "test_chaos.py",
    "test_command.py",
    "test_engine.py",
    "test_engine_alone.py",
    "test_evaluate.py",
    "test_falls.py",
    "test_foreground.py",
    "test_kills.py",
    "test_paper.py",
    "test_processes.py",
    "test_serve.py",
    "test_redis.py",
    "test_sweep.py",
}
"""What takes minutes, and has a target of its own."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name in WHOLE_ENGINES:
            item.add_marker(pytest.mark.engine)
