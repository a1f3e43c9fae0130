"""What people see of the command line: messages on standard error, one line for what HEAN refuses."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict

import typer

from hean.errors import HeanError

if TYPE_CHECKING:
    from rich.console import Console


def people() -> "Console":
    """A console on standard error: standard output is for results."""
    from rich.console import Console

    wide = None if sys.stderr.isatty() else 200
    return Console(stderr=True, width=wide, highlight=False, soft_wrap=True)


class Bar(TypedDict):
    """How a progress bar is shown: to people, on a terminal, and gone when it is done."""

    console: "Console"
    transient: bool
    disable: bool


def progress_bar() -> Bar:
    """Where nobody watches there is no bar: it would leave empty lines in a log."""
    shown = people()
    return Bar(console=shown, transient=True, disable=not shown.is_terminal)


@contextmanager
def saying_errors(*, as_json: bool) -> Iterator[None]:
    """Turn what HEAN or the disk refuses into one line and status 1; a bug keeps its traceback.

    With `as_json`, whatever ends the command is the one object on standard output.
    """
    try:
        yield
    except HeanError as refusal:
        _say(str(refusal), as_json=as_json)
        raise typer.Exit(1) from None
    except BrokenPipeError:
        raise  # nobody reads any more, as after `| head`
    except OSError as failure:
        what = f"cannot read or write {failure.filename}" if failure.filename is not None else "cannot read or write"
        _say(f"{what}: {failure.strerror or failure}", as_json=as_json)
        raise typer.Exit(1) from None
    except typer.Exit:
        raise
    except Exception as bug:
        if as_json:
            typer.echo(json.dumps({"error": f"internal error: {bug!r}; please report it"}))
        raise


def _say(error: str, *, as_json: bool) -> None:
    people().print(f"hean: {error}", style="red", markup=False)
    if as_json:
        typer.echo(json.dumps({"error": error}))
