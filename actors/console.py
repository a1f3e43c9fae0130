"""What people see of the command line: messages on standard error, one line for what HEAN refuses."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from hean.errors import HeanError

if TYPE_CHECKING:
    from rich.console import Console


def people() -> "Console":
    """A console on standard error: standard output is for results."""
    from rich.console import Console

    wide = None if sys.stderr.isatty() else 200
    return Console(stderr=True, width=wide, highlight=False, soft_wrap=True)


@contextmanager
def saying_errors(*, as_json: bool) -> Iterator[None]:
    """Turn what HEAN refuses into one line and status 1."""
    try:
        yield
    except HeanError as refusal:
        people().print(f"hean: {refusal}", style="red", markup=False)
        if as_json:
            typer.echo(json.dumps({"error": str(refusal)}))
        raise typer.Exit(1) from None
