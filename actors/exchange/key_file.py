"""More keys for the accounts of an exchange, from a file: read-only ones, RSA ones, ones bound to an address.

[[key]]
key = "watcher"
secret = "may-look"
account = 1
read_only = true

[[key]]
key = "signer"
public_key = "signer.pem"       # beside this file; the client keeps the private half
ips = ["127.0.0.1"]
"""

from pathlib import Path

from Crypto.PublicKey import RSA
from pydantic import BaseModel, Field, model_validator

from actors.exchange.auth import ApiKey
from hean.errors import ConfigError
from hean.settings import read_toml, validated


class KeyEntry(BaseModel, frozen=True, extra="forbid"):
    """One key: it signs with a secret or with the private half of an RSA key."""

    key: str = Field(min_length=1, description="its name, sent as X-BAPI-API-KEY")
    secret: str = Field(default="", description="what HMAC signatures are made with")
    public_key: str = Field(default="", description="file of an RSA public key (PEM), instead of a secret")
    account: int = Field(default=1, ge=1, description="whose it is: the first account is 1")
    read_only: bool = Field(default=False, description="may look, not trade")
    ips: tuple[str, ...] = Field(default=(), description="the only addresses it may come from; none for any")

    @model_validator(mode="after")
    def _signs_one_way(self) -> "KeyEntry":
        if bool(self.secret) is bool(self.public_key):
            raise ValueError("give either a secret or a public_key")
        return self


class KeyFile(BaseModel, frozen=True, extra="forbid"):
    key: tuple[KeyEntry, ...]


def read_keys(path: Path, uids: list[str]) -> tuple[ApiKey, ...]:
    """The keys in a file.

    Args:
        path: The file.
        uids: The accounts there are, the first of them number 1.

    Raises:
        ConfigError: the file cannot be read, or a key in it makes no sense; the text names the field.
    """
    entries: tuple[KeyEntry, ...] = validated(KeyFile, read_toml(path), where=str(path)).key
    return tuple(_api_key(path, entry, uids) for entry in entries)


def _api_key(path: Path, entry: KeyEntry, uids: list[str]) -> ApiKey:
    if entry.account > len(uids):
        raise ConfigError(
            f"{path}: key {entry.key}: account {entry.account} is none of the {len(uids)}: say --accounts"
        )
    public = _pem(path.parent / entry.public_key) if entry.public_key else ""
    return ApiKey(
        key=entry.key,
        uid=uids[entry.account - 1],
        secret=entry.secret,
        public_key=public,
        read_only=entry.read_only,
        ips=entry.ips,
    )


def _pem(path: Path) -> str:
    try:
        text = path.read_text(encoding="ascii")
        is_private = RSA.import_key(text).has_private()
    except OSError as error:
        raise ConfigError(f"public_key {path} cannot be read: {error.strerror}") from error
    except (ValueError, IndexError, TypeError) as error:
        raise ConfigError(f"public_key {path} is no RSA key in PEM form: {error}") from error
    if is_private:
        raise ConfigError(f"public_key {path} is a private key: the exchange wants its public half")
    return text
