"""Time and chance: the only module that asks the machine for either.

Everything else takes a `now` (an aware UTC datetime) or a `Clock`, so a test can own both.
"""

from __future__ import annotations

import math
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Protocol

Duration = float | timedelta | str
"""Seconds as a number, a timedelta, or text: "250ms", "30s", "5m", "1h30m", "7d"."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*")


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> datetime:
        """The current moment, aware, in UTC."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def seconds(duration: Duration) -> float:
    """A duration in seconds. Raises ValueError for text that is no duration and for anything negative or infinite."""
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        value = _parse(duration)
    else:
        value = float(duration)
    if not 0 <= value < math.inf:  # also refuses NaN
        raise ValueError(f"a duration is a finite number of seconds, not negative: {duration!r}")
    return value


def _parse(text: str) -> float:
    total, position = 0.0, 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            break
        total += float(part[1]) * _UNITS[part[2]]
        position = part.end()
    if position == 0 or position < len(text):
        raise ValueError(
            f"not a duration: {text!r}. Write seconds as a number, or text such as '30s', '5m', '1h30m', '7d'"
        )
    return total


def timestamp(moment: datetime) -> float:
    """Seconds since the epoch, exact to the microsecond until the year 2106."""
    return (moment - EPOCH).total_seconds()


def moment(timestamp: float) -> datetime:
    """The aware UTC datetime of a timestamp, rounded to the microsecond (what every store keeps)."""
    return EPOCH + timedelta(microseconds=round(timestamp * 1_000_000))


def fresh_id(hex_digits: int = 12) -> str:
    """Unguessable hexadecimal digits: 12 for a run_id, 32 where a collision must never happen."""
    return secrets.token_hex((hex_digits + 1) // 2)[:hex_digits]
