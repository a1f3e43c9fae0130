"""The page's one line to the API: what it asks, and what it has done.

Every command carries a key: sent again, it is the same command, and is done once.
"""

import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from msgspec import Struct, field

from hean.errors import ConfigError, HeanError

REQUEST_ID = "X-Request-ID"
_TIMEOUT_S = 10.0


class ApiError(HeanError):
    """Why a question was not answered, or a command not done, in words for people.

    Args:
        words: What is wrong, and where it is known what to do about it.
        title: The same in a few words.
        status: The answer's HTTP status; None where there was no answer.
        request_id: Under which the logs tell more; empty where it is not known.
        by_field: What is wrong with each field of the command.
    """

    def __init__(
        self,
        words: str,
        *,
        title: str = "",
        status: int | None = None,
        request_id: str = "",
        by_field: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(words)
        self.title = title or words
        self.status = status
        self.request_id = request_id
        self.by_field = dict(by_field or {})

    @property
    def is_silence(self) -> bool:
        """Whether nobody answered: then it is not known whether a command was done."""
        return self.status is None

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """Read what the API says is wrong (RFC 9457); other words than JSON are not repeated."""
        try:
            told = answer.json()
        except ValueError:
            told = None
        told = told if isinstance(told, dict) else {}
        title = str(told.get("title") or answer.reason_phrase or "the API refused")
        by_field = {
            str(one.get("field", "")): str(one.get("message", ""))
            for one in told.get("errors") or ()
            if isinstance(one, dict)
        }
        words = str(told.get("detail") or title)
        if by_field:
            words = f"{words}: " + "; ".join(f"{name} {message}".strip() for name, message in by_field.items())
        request_id = str(told.get("request_id") or answer.headers.get(REQUEST_ID) or "")
        return cls(words, title=title, status=answer.status_code, request_id=request_id, by_field=by_field)

    @classmethod
    def silence(cls, url: str, failure: Exception) -> Self:
        """Say that there was no answer."""
        if isinstance(failure, httpx.TimeoutException) and not isinstance(failure, httpx.ConnectTimeout):
            return cls(f"the API at {url} did not answer in time", title="no answer")
        return cls(f"the API at {url} cannot be reached", title="no connection")


class Command(Struct, frozen=True):
    """Something to be done once, however often it is sent.

    Args:
        path: Where it is posted.
        body: What it says.
        key: Of this command and no other.
    """

    path: str
    body: dict[str, Any] = field(default_factory=dict)
    key: str = field(default_factory=lambda: secrets.token_hex(16))


class Answer(Struct, frozen=True):
    """What the API answered to a command. `status` 202 means that it is under way."""

    body: dict[str, Any]
    request_id: str
    status: int


class Api:
    """The API, asked over HTTP. No proxy is gone through, whatever the environment says: it is on this machine.

    Args:
        url: Where it is, such as `http://127.0.0.1:8000`.
        token_file: The file of the token that commands need; read at each, since it may be made anew.
        timeout_s: How long an answer may take.
    """

    def __init__(self, url: str, token_file: Path, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        self._token_file = token_file
        self._http = httpx.AsyncClient(
            base_url=self.url, timeout=timeout_s, trust_env=False, headers={"Accept": "application/json"}
        )

    async def get(self, path: str, **query: Any) -> Any:
        """Ask for something.

        Args:
            path: What is asked for.
            query: Narrows it; None is left out.

        Raises:
            ApiError: It is refused, or nobody answers.
        """
        asked = {name: value for name, value in query.items() if value is not None}
        _, told = await self._answer("GET", path, params=asked)
        return told

    async def send(self, command: Command) -> Answer:
        """Have something done. To send the same command again is safe: it is done once.

        Raises:
            ApiError: It is refused; or nobody answers, and it is not known whether it was done.
            ConfigError: There is no token to send it with.
        """
        headers = {"Authorization": f"Bearer {self.token()}", "Idempotency-Key": command.key}
        answer, told = await self._answer("POST", command.path, json=command.body, headers=headers)
        return Answer(told, answer.headers.get(REQUEST_ID, ""), answer.status_code)

    def token(self) -> str:
        """The token.

        Raises:
            ConfigError: There is none, or others may read it.
        """
        try:
            mode = self._token_file.stat().st_mode
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._token_file} cannot be read: `hean up` with the API makes it") from error
        if stat.S_IMODE(mode) & 0o077:
            raise ConfigError(f"{self._token_file} may be read by others: chmod 600 {self._token_file}")
        if not token:
            raise ConfigError(f"{self._token_file} is empty: delete it, and begin the API anew")
        return token

    async def close(self) -> None:
        await self._http.aclose()

    async def _answer(self, method: str, path: str, **asked: Any) -> tuple[httpx.Response, Any]:
        try:
            answer = await self._http.request(method, path, **asked)
        except httpx.HTTPError as failure:
            raise ApiError.silence(self.url, failure) from failure
        if not answer.is_success:
            raise ApiError.of(answer)
        try:
            return answer, answer.json()
        except ValueError as damage:
            raise ApiError(f"what answers at {self.url} is not HEAN's API", status=answer.status_code) from damage
