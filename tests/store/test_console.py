"""However a command ends, it says so once: a line for people, one object for programs."""

import json

import pytest
import typer

from actors.console import saying_errors
from hean.errors import ConfigError


def ended(capsys, error, *, as_json=True):
    """Return what a command that raises `error` ends with, and what it printed on either stream."""
    with pytest.raises(BaseException) as end, saying_errors(as_json=as_json):  # noqa: PT011
        raise error
    printed = capsys.readouterr()
    return end.value, printed.out, printed.err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("no such setting"), "no such setting"),
        (PermissionError(13, "Permission denied", "/etc/x"), "cannot read or write /etc/x: Permission denied"),
        (OSError(28, "No space left on device"), "cannot read or write: No space left on device"),
        (OSError("strange"), "cannot read or write: strange"),
    ],
)
def test_a_refusal_is_one_line_and_one_object(capsys, error, said):
    end, out, err = ended(capsys, error)
    assert isinstance(end, typer.Exit)
    assert end.exit_code == 1
    assert json.loads(out) == {"error": said}
    assert err == f"hean: {said}\n"


def test_a_bug_keeps_its_traceback_and_is_one_object(capsys):
    end, out, _ = ended(capsys, ZeroDivisionError("division by zero"))
    assert isinstance(end, ZeroDivisionError)
    assert json.loads(out)["error"].startswith("internal error: ZeroDivisionError('division by zero')")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), BrokenPipeError(32, "Broken pipe"), typer.Exit(3)], ids=repr)
def test_what_is_no_error_passes(capsys, end):
    assert ended(capsys, end) == (end, "", "")


def test_people_alone_get_no_json(capsys):
    assert ended(capsys, ConfigError("no"), as_json=False)[1] == ""
