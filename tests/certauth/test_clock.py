"""Time as the rest of the code sees it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from certauth.clock import from_timestamp, in_words, parse_duration, rfc3339, system_clock, whole_seconds
from certauth.errors import UsageError


def test_the_system_clock_is_aware_and_does_not_stand_still() -> None:
    """Two readings lie in order, both in UTC."""
    first, second = system_clock(), system_clock()
    assert first.tzinfo is UTC
    assert first <= second


def test_a_timestamp_is_a_moment_in_utc() -> None:
    """POSIX seconds and back."""
    moment = from_timestamp(1_772_600_767)
    assert moment == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert moment.timestamp() == 1_772_600_767


def test_fractions_of_a_second_are_dropped() -> None:
    """Never rounded up: a credential must not end later than decided."""
    moment = datetime(2026, 3, 4, 5, 6, 7, 999_999, tzinfo=UTC)
    assert whole_seconds(moment) == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert rfc3339(moment) == "2026-03-04T05:06:07Z"


def test_other_time_zones_are_written_in_utc() -> None:
    """One spelling for one moment."""
    moment = datetime(2026, 3, 4, 7, 6, 7, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(moment) == "2026-03-04T05:06:07Z"


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=999), "0 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(minutes=10), "10 min"),
        (timedelta(hours=7, minutes=59, seconds=59), "7 h 59 min"),
        (timedelta(days=1, seconds=5), "1 d 5 s"),
        (timedelta(days=400, hours=3, minutes=2), "400 d 3 h"),
        (-timedelta(minutes=90), "1 h 30 min ago"),
    ],
)
def test_durations_in_words(duration: timedelta, words: str) -> None:
    """The two largest units, and ``ago`` for the past."""
    assert in_words(duration) == words


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("8h", timedelta(hours=8)),
        ("7d", timedelta(days=7)),
        ("0s", timedelta(0)),
    ],
)
def test_durations_are_read(text: str, duration: timedelta) -> None:
    """A whole number and a unit."""
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "8", "h", "-1h", "1.5h", "1e6h", "inf", "nan", "8 h", "8H", "8h\n", "9" * 10 + "s", "1h30m"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    """Infinite, fractional and negative durations included."""
    with pytest.raises(UsageError, match="bad-duration"):
        parse_duration(text)
