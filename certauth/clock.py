"""The one reader of the clock: every other module is given the time it should use."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from certauth.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,9})([smhd])")

Clock = Callable[[], datetime]
"""Returns the current time as an aware datetime in UTC."""


def system_clock() -> datetime:
    """The system's time in UTC."""
    return datetime.now(UTC)


def from_timestamp(seconds: float) -> datetime:
    """The aware UTC datetime of a POSIX timestamp in seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def whole_seconds(moment: datetime) -> datetime:
    """``moment`` without its fraction of a second: X.509 and Datalog dates know whole seconds only."""
    return moment.replace(microsecond=0)


def rfc3339(moment: datetime) -> str:
    """``moment`` in UTC as RFC 3339 text, whole seconds, ``Z``."""
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_duration(text: str) -> timedelta:
    """The duration written as a whole number and a unit, ``90s``, ``10m``, ``8h`` or ``7d``;
    anything else raises ``UsageError`` (``bad-duration``).
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise UsageError("bad-duration", f"{text[:40]!r} is not a duration", hint="write 90s, 10m, 8h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def in_words(duration: timedelta) -> str:
    """A duration as people say it, in its two largest units: ``7 h 59 min``; negative ones end in ``ago``."""
    seconds = int(abs(duration.total_seconds()))
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    text = " ".join(parts[:2]) or "0 s"
    return f"{text} ago" if duration < timedelta(0) else text
