"""Threads that do not die unseen."""

import threading
from collections.abc import Callable
from typing import Any

FAILED = "gateway failed"
"""The kind of error that says that a gateway does not do its work any more, and must be replaced."""


def guarded(target: Callable[..., None], name: str, failed: Callable[[str], None], *arguments: Any) -> threading.Thread:
    """A thread of which somebody hears when it ends by an exception.

    Args:
        target: What it does.
        name: What it is called.
        failed: Told why, from the thread itself. It must not raise, and must not block.
        arguments: Of the target.
    """

    def run() -> None:
        try:
            target(*arguments)
        except Exception as failure:  # noqa: BLE001  a thread's last word: whatever it was, somebody must hear of it
            failed(f"{name}: {type(failure).__name__}: {failure}")

    return threading.Thread(target=run, name=name, daemon=True)
