"""Small files in which it is kept what was begun: JSON, written as a whole or not at all, for their owner alone."""

import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from hean.errors import ConfigError

Kept = TypeVar("Kept", bound=Struct)


def read(path: Path, kind: type[Kept]) -> Kept | None:
    """What is kept there; None where nothing is.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as damage:
        raise ConfigError(f"{path} cannot be read ({damage}): delete it") from damage


def write(path: Path, content: Struct) -> None:
    write_text(path, msgspec.json.format(msgspec.json.encode(content)).decode() + "\n")


def write_text(path: Path, text: str) -> None:
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
    made.replace(path)
