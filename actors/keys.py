"""The keys of an account, from a file that its owner alone may read, or from the environment. They are never shown."""

import stat
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, model_validator

from actors.gateways.bybit_endpoint import Keys
from hean.engine_settings import VenueMode
from hean.errors import ConfigError
from hean.settings import read_toml, validated

KEYS_FILE = "keys.toml"
LOOPBACK = Keys("loopback-key-1", "loopback-secret-1")
"""Of the first account of an exchange that this machine serves: no secret."""

_REMEDY = 'write key = "..." and secret = "..." there, and chmod 600 it'


class KeyFile(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """An API key and its secret; `secret_file` names a PEM file beside this one, for a key that signs with RSA."""

    key: SecretStr = Field(min_length=1, description="the API key")
    secret: SecretStr = Field(default=SecretStr(""), description="its secret")
    secret_file: str = Field(default="", description="file of its RSA private key (PEM), instead of a secret")

    @model_validator(mode="after")
    def _signs_one_way(self) -> "KeyFile":
        if bool(self.secret.get_secret_value()) is bool(self.secret_file):
            raise ValueError("give either a secret or a secret_file")
        return self


def keys_for(mode: VenueMode, home: Path, environment: Mapping[str, str]) -> Keys:
    """The keys of a venue mode.

    The sandbox has its own. Else they are those of the file that HEAN_KEYS names, or of BYBIT_API_KEY and
    BYBIT_API_SECRET, or of `keys.toml` in the mode's home.

    Raises:
        ConfigError: There are none, or others may read them.
    """
    if mode is VenueMode.SANDBOX:
        return LOOPBACK
    if named := environment.get("HEAN_KEYS"):
        return read_keys(Path(named).expanduser())
    key, secret = environment.get("BYBIT_API_KEY", ""), environment.get("BYBIT_API_SECRET", "")
    if key and secret:
        return Keys(key, secret)
    if key or secret:
        lacking = "BYBIT_API_SECRET" if key else "BYBIT_API_KEY"
        raise ConfigError(f"{lacking} is not set, and the other of the two is: set both, or none and use {KEYS_FILE}")
    return read_keys(home / KEYS_FILE)


def read_keys(path: Path) -> Keys:
    """Read keys from a TOML file.

    Raises:
        ConfigError: There is no such file, others may read it, or it lacks something.
    """
    _must_be_private(path)
    file: KeyFile = validated(KeyFile, read_toml(path), where=str(path))
    secret = file.secret.get_secret_value()
    if file.secret_file:
        pem = path.parent / file.secret_file
        _must_be_private(pem)
        secret = pem.read_text(encoding="ascii", errors="replace")
        if "PRIVATE KEY-----" not in secret:
            raise ConfigError(f"{pem} is no RSA private key in PEM form: give the file that was made with the key")
    return Keys(file.key.get_secret_value(), secret)


def _must_be_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; {_REMEDY}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path} may be read by others: chmod 600 {path}")
