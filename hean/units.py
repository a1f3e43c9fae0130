"""Time in nanoseconds since 1970, UTC: what longer units are, and instants as people write them."""

from datetime import UTC, datetime, timedelta

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEAR = 365 * DAY

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2262, 1, 1, tzinfo=UTC)  # a few months on, nanoseconds no longer fit into 64 bits


def utc(ts: int) -> str:
    """Write an instant to the second, and what is below a second only where there is any; `parse_time` reads it."""
    seconds, below = divmod(ts, SECOND)
    stamp = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{below:09d}".rstrip("0") if below else ""
    return f"{stamp}{fraction}Z"


def parse_time(text: str) -> int:
    """Read an ISO date or time; one without an offset is UTC.

    Raises:
        ValueError: It is neither, or outside 1970 .. 2262.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 2025-06-01 or 2025-06-01T08:00") from None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    if not _EPOCH <= when < _LAST:
        raise ValueError(f"{text!r} lies outside 1970 .. 2262")
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000


def minute(ts: int) -> str:
    """Write an instant as a sentence has it: to the minute, or to the second where that says more."""
    text = utc(ts // SECOND * SECOND).removesuffix("Z").replace("T", " ")
    return text.removesuffix(":00") if text.endswith(":00") else text
