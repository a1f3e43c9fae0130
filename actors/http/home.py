"""What the API knows from HEAN's home directory: its token, the mode that was begun last, its settings, its log."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from actors import up
from actors.logs import NodeLog
from hean.errors import ConfigError, HeanError

TOKEN = "api.token"  # noqa: S105 (the name of a file)
ORIGINS = "origins.json"
NAME = "api"


def token_for(home: Path) -> str:
    """The token of the API: drawn once, for the owner of the home alone."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / TOKEN
    drawn = path.with_name(f".{TOKEN}.{secrets.token_hex(4)}")
    with suppress(FileExistsError):  # whoever was first has drawn it
        with open(os.open(drawn, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(secrets.token_hex(32))
        try:
            os.link(drawn, path)
        finally:
            drawn.unlink()
    return read_token(home)


def read_token(home: Path) -> str:
    """The token of the API.

    Raises:
        ConfigError: There is none.
    """
    try:
        return (home / TOKEN).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{home / TOKEN} cannot be read ({error.strerror}): `hean up` makes it") from error


def folder(home: Path) -> Path | None:
    """The directory of the mode that was begun last; None where none was."""
    try:
        return up.mode_folder(home)
    except HeanError:
        return None


def settings(home: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """What the engine was begun with, and who set what, by dotted name; nothing where none was begun."""
    where = folder(home)
    if where is None:
        return {}, {}
    return _read(where / up.SETTINGS), _read(where / ORIGINS)


class AccessLog:
    """The requests, in the log of the mode that was begun last. Reads that went well are for those who look closely."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._folder: Path | None = None
        self._log: NodeLog | None = None
        self._ended = False

    def request(self, method: str, path: str, status: int, ms: float, trace: str) -> None:
        log = self._current()
        if log is not None:
            if status == 500:
                tell = log.error
            elif status >= 400:
                tell = log.warning
            else:
                tell = log.info if method not in {"GET", "SOCKET"} else log.debug
            tell(f"{method} {path}", status=status, ms=round(ms, 1), trace=trace)

    def bug(self, method: str, path: str, trace: str, error: Exception) -> None:
        log = self._current()
        if log is not None:
            log.error(
                "bug", request=f"{method} {path}", trace=trace, why=f"{type(error).__name__}: {error}", exc_info=error
            )

    def close(self) -> None:
        """End it: a socket that is let go of later is not noted."""
        self._ended = True
        self._put_down()

    def _put_down(self) -> None:
        if self._log is not None:
            self._log.close()
        self._folder = self._log = None

    def _current(self) -> NodeLog | None:
        if self._ended:
            return None
        where = folder(self._home)
        if where != self._folder:
            self._put_down()
            with suppress(OSError):  # nobody goes without an answer for want of a log
                self._folder, self._log = where, None if where is None else NodeLog(where, NAME)
        return self._log


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
