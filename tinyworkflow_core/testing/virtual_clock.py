"""VirtualClock: time that moves only when the test moves it."""

from __future__ import annotations

from datetime import UTC, datetime

START = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
"""Where virtual time begins unless told otherwise: a Thursday morning."""


class VirtualClock:
    """Time that stands still until it is moved."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """The virtual moment."""
        return self._now

    def move_to(self, when: datetime) -> None:
        """Jump forward; never backwards."""
        self._now = max(self._now, when)
