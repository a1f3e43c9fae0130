"""Who asks: API keys, and whether a request is signed with one of them.

Verified are the bytes as they came: the query string undecoded, the body unparsed. Source: Bybit v5, *Integration Guidance*.
"""

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType

from Crypto.Hash import SHA256
from Crypto.PublicKey import RSA
from Crypto.Signature import pkcs1_15
from msgspec import Struct, field

from hean.errors import ConfigError
from hean.exchange.refusals import Refused
from hean.units import MILLISECOND

DEFAULT_WINDOW_MS = 5000
_AHEAD_MS = 1000
_LONGEST = 16  # digits of a time or window in milliseconds: more is garbage

CONTRACT, SPOT = "ContractTrade", "Spot"
ALL_RIGHTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        CONTRACT: ("Order", "Position"),
        SPOT: ("SpotTrade",),
        "Wallet": ("AccountTransfer", "SubMemberTransfer"),
        "Options": (),
        "Derivatives": ("DerivativesTrade",),
        "CopyTrading": (),
        "BlockTrade": (),
        "Exchange": (),
        "NFT": (),
        "Affiliate": (),
    }
)


class ApiKey(Struct, frozen=True, kw_only=True, dict=True):
    """A key of an account: it signs with a secret, or with the private half of an RSA key (`public_key`, PEM).

    `rights` are as `user/query-api` shows them; `ips` are the only addresses it may come from, none for any.
    """

    key: str
    uid: str
    secret: str = ""
    public_key: str = ""
    read_only: bool = False
    rights: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: ALL_RIGHTS)
    ips: tuple[str, ...] = ()

    def may(self, category: str) -> bool:
        """Whether it may concern itself with a category at all."""
        return bool(self.rights.get(SPOT if category == "spot" else CONTRACT))

    def comes_from(self, address: str | None) -> bool:
        if not self.ips:
            return True
        if address is None:
            return False
        try:
            return any(ipaddress.ip_address(address) in ipaddress.ip_network(allowed) for allowed in self.ips)
        except ValueError:
            return False

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether `signature` was made of `text` with this key: hex of an HMAC-SHA256, or base64 of an RSA-SHA256."""
        if not self.public_key:
            made = hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()
            return hmac.compare_digest(made.encode(), signature)
        try:
            pkcs1_15.new(self._rsa).verify(SHA256.new(text), base64.b64decode(signature, validate=True))
        except ValueError:  # not base64, or not of this key
            return False
        return True

    @cached_property
    def _rsa(self) -> RSA.RsaKey:
        return RSA.import_key(self.public_key)


class Keys:
    """The keys of an exchange.

    Args:
        keys: The first of them.
        clock: What time the venue checks requests by, nanoseconds.

    Raises:
        ConfigError: a key is there twice, or cannot sign anything.
    """

    def __init__(self, keys: Iterable[ApiKey], clock: Callable[[], int]) -> None:
        self._keys: dict[str, ApiKey] = {}
        self._clock = clock
        for key in keys:
            self.add(key)

    def __iter__(self) -> Iterator[ApiKey]:
        return iter(self._keys.values())

    def add(self, key: ApiKey) -> None:
        if key.key in self._keys:
            raise ConfigError(f"API key {key.key!r} is given twice")
        if bool(key.secret) == bool(key.public_key):
            raise ConfigError(f"API key {key.key!r} needs either a secret or a public key")
        if key.public_key:
            try:
                RSA.import_key(key.public_key)
            except (ValueError, IndexError, TypeError) as error:
                raise ConfigError(f"the public key of API key {key.key!r} is no RSA key in PEM: {error}") from error
        self._keys[key.key] = key

    def known(self, key: str) -> ApiKey:
        """The key of that name; refused where there is none."""
        found = self._keys.get(key)
        if found is None:
            raise Refused(10003, "API key is invalid.")
        return found

    def uid_of(self, key: str) -> str | None:
        """Whose key it says it is, before it has proved anything."""
        found = self._keys.get(key)
        return found.uid if found is not None else None

    def verify(self, headers: Mapping[str, str], payload: bytes) -> ApiKey:
        """The key that signed a request, refused in the venue's order of checks: headers, key, time, signature.

        Args:
            headers: Of the request; their names in any case.
            payload: The raw query string of a GET, the raw body of a POST.
        """
        name, timestamp = headers.get("X-BAPI-API-KEY", ""), headers.get("X-BAPI-TIMESTAMP", "")
        signature, window = headers.get("X-BAPI-SIGN", ""), headers.get("X-BAPI-RECV-WINDOW", "")
        if not (name and timestamp and signature):
            asked = f"apiTimestamp[{timestamp}] apiKey[{name}] apiSignature[{signature}]"
            raise Refused(10001, f"empty value: {_shown(asked)}: openapi sign params error!")
        key = self.known(name)
        self.check_time(timestamp, window)
        text = _bytes(timestamp + name + window) + payload
        if not key.signed(text, _bytes(signature)):
            raise Refused(10004, f"error sign! origin_string[{text.decode('utf-8', 'replace')}]")
        return key

    def verify_socket(self, name: str, expires: str, signature: str) -> ApiKey:
        """The key of an `auth` on a socket: it signs "GET/realtime" and the time (ms) until which that counts."""
        key = self.known(name)
        if _milliseconds("expires", expires) <= self._clock() // MILLISECOND:
            raise Refused(10004, "Params Error: the request has expired")
        if not key.signed(_bytes("GET/realtime" + expires), _bytes(signature)):
            raise Refused(10004, "Error sign, please check your signature generation algorithm.")
        return key

    def check_time(self, timestamp: str, window: str) -> None:
        """Refuse a request whose time, in milliseconds, is not within its window before now or up to a second after it."""
        asked = _milliseconds("timestamp", timestamp)
        wide = _milliseconds("recv_window", window) if window else DEFAULT_WINDOW_MS
        server = self._clock() // MILLISECOND
        if not server - wide <= asked < server + _AHEAD_MS:
            raise Refused(
                10002,
                "invalid request, please check your server timestamp or recv_window param. "
                f"req_timestamp[{asked}],server_timestamp[{server}],recv_window[{wide}]",
            )


def _milliseconds(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST):
        raise Refused(10001, f"params error: {name} invalid")
    return int(text)


def _shown(text: str) -> str:
    """What may be repeated to the client: a header need not be UTF-8."""
    return _bytes(text).decode("utf-8", "replace")


def _bytes(text: str) -> bytes:
    """A header as it was on the wire."""
    return text.encode("utf-8", "surrogateescape")
